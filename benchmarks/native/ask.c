/* The client of the box benchmark: asks as often as it is told, over many connections, and says what came of it.
 *
 *   ask SERVER SERVERS CLIENT CLIENTS PORT tls|http|kept|bulk|quic OPEN EVERY PLAIN LISTED
 *
 * In: a server (native/answer.c) at SERVERS addresses of which SERVER is the first, IPv4 or IPv6; CLIENTS addresses of
 * this machine from CLIENT on; a connection takes the next of both. OPEN questions wait for answers at a time. Each
 * EVERYth is LISTED, a file of bytes to send, and the others PLAIN, whose "host00000000" gets a number of its own each
 * time, or with `kept` for each connection, as browsers ask one host on one (EVERY 0: none is listed). Orders on standard input, a line each: how many questions, with `bulk` how many bytes.
 *   tls    a connection a question: the bytes, the whole answer, the server's end, ours
 *   http   a connection a question, which the client ends first
 *   kept   the connections stay, one question at a time on each
 *   bulk   one connection: a hello at first, then what the order says, as one answer
 *   quic   a socket a question. PLAIN and LISTED are datagrams, each with its length before it (32 bits, host order): a
 *          question sends PAIR of them that stand together (the first word of the file), has as many answers, and
 *          sends two short packets that are answered, too
 * Out: "ready", then for each order a JSON line: seconds; questions answered whole, plain ones that were not, listed
 * ones answered and not, bytes read, and the latencies of answered questions (of new connections from connect on) in
 * microseconds, as percentiles. When the line comes every connection that was to end has ended on both sides.
 * Never: a question given up before WAIT seconds, or counted twice.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 1200, SHORT = 60, SHORTS = 2, MOST = 4096, ROOM = 1 << 18, FILE_ROOM = 1 << 26, TIMES = 1 << 20 };
enum { IDLE = -1, RECORD = 5 + 16384 };
enum mode { TLS, HTTP, KEPT, BULK, QUIC };
static const char *const MODES[] = {"tls", "http", "kept", "bulk", "quic"};
static const double WAIT = 2.0;
static const char NUMBERED[] = "host00000000";

struct line {               /* one connection, or the place for one */
    int fd, connected, sent, listed, whole, shorts;
    size_t got;
    unsigned long number;   /* of the host, where the connection has one */
    double asked, took;
};

struct text {               /* what is asked */
    char *bytes, *number, *at;
    size_t size;
    uint32_t pair;
};

static struct line lines[MOST];
static struct text plain, listed;
static char room[ROOM];
static float times[TIMES];
static unsigned long begun, answered, failed, listed_answered, listed_blocked, turn;
static unsigned long long octets;
static struct sockaddr_storage server, client;
static socklen_t address_size;
static uint32_t servers, clients;
static enum mode mode;
static int every, poller;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void load(const char *path, struct text *text)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    text->bytes = malloc(FILE_ROOM);
    if (!text->bytes)
        die("malloc");
    text->size = fread(text->bytes, 1, FILE_ROOM, file);
    fclose(file);
    text->bytes = realloc(text->bytes, text->size + 1);
    text->number = memmem(text->bytes, text->size, NUMBERED, sizeof NUMBERED - 1);
    if (mode == QUIC) {
        memcpy(&text->pair, text->bytes, sizeof text->pair);
        text->at = text->bytes + sizeof text->pair;
    }
}

static void parse(const char *word, struct sockaddr_storage *to, int port)
{
    struct sockaddr_in *four = (void *)to;
    struct sockaddr_in6 *six = (void *)to;
    if (inet_pton(AF_INET, word, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        address_size = sizeof *four;
    } else if (inet_pton(AF_INET6, word, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        address_size = sizeof *six;
    } else {
        die(word);
    }
}

/* The address that is so many behind `first`; the last 32 bits count. */
static struct sockaddr_storage behind(const struct sockaddr_storage *first, uint32_t count)
{
    struct sockaddr_storage at = *first;
    uint32_t *word = at.ss_family == AF_INET ? &((struct sockaddr_in *)&at)->sin_addr.s_addr
                                             : &((struct sockaddr_in6 *)&at)->sin6_addr.s6_addr32[3];
    *word = htonl(ntohl(*word) + count);
    return at;
}

static void end(struct line *line)
{
    close(line->fd);
    line->fd = IDLE;
}

static void refuse(struct line *line)       /* a line on which nothing more can be sent: its end is read next */
{
    shutdown(line->fd, SHUT_RDWR);
}

static void send_datagrams(struct line *line, struct text *text)
{
    for (uint32_t i = 0; i < text->pair; i++) {
        uint32_t size;
        if (text->at == text->bytes + text->size)
            text->at = text->bytes + sizeof text->pair;
        memcpy(&size, text->at, sizeof size);
        if (send(line->fd, text->at + sizeof size, size, 0) < 0 && errno != ECONNREFUSED)
            die("send");
        text->at += sizeof size + size;
    }
}

static void ask(struct line *line)
{
    struct text *text = line->listed ? &listed : &plain;
    line->sent = 1;
    if (mode == QUIC) {
        send_datagrams(line, text);
        return;
    }
    if (text->number && !line->listed) {
        char digits[9];
        snprintf(digits, sizeof digits, "%08lu", (mode == KEPT ? line->number : turn) % 100000000);
        memcpy(text->number + 4, digits, 8);
    }
    if (send(line->fd, text->bytes, text->size, MSG_NOSIGNAL) != (ssize_t)text->size)
        refuse(line);
}

static void open_line(struct line *line)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = line};
    struct sockaddr_storage from = behind(&client, turn % clients), to = behind(&server, turn % servers);
    int on = 1;
    line->number = turn;
    line->fd = socket(server.ss_family, (mode == QUIC ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
    if (line->fd < 0)
        die("socket");
    if (mode != QUIC) {
        setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(line->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    }
    if (bind(line->fd, (struct sockaddr *)&from, address_size))
        die("bind");
    if (connect(line->fd, (struct sockaddr *)&to, address_size) && errno != EINPROGRESS)
        die("connect");
    line->connected = mode == QUIC;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, line->fd, &event))
        die("epoll_ctl");
}

static void begin(struct line *line)
{
    begun++;
    turn++;
    line->listed = every && turn % every == 0;
    line->got = line->sent = line->whole = line->shorts = 0;
    line->asked = now();
    if (line->fd == IDLE)
        open_line(line);
    if (line->connected)
        ask(line);
}

/* The question on this line is over, and counted. */
static void over(struct line *line)
{
    if (line->listed) {
        line->whole ? listed_answered++ : listed_blocked++;
    } else if (line->whole) {
        times[answered++ % TIMES] = line->took * 1e6;
    } else {
        failed++;
    }
    line->sent = 0;
    if (mode != KEPT || !line->whole)
        end(line);
}

/* Reads a datagram; returns whether the question is over. */
static int take_datagram(struct line *line, ssize_t size)
{
    uint32_t pair = line->listed ? listed.pair : plain.pair;
    static const char packet[SHORT] = {0x40};
    if (size != (line->got < pair ? ANSWER : SHORT))
        return 1;                           /* the answer of a filter */
    if (++line->got == pair) {
        for (line->shorts = 0; line->shorts < SHORTS; line->shorts++)
            send(line->fd, packet, sizeof packet, 0);
        line->took = now() - line->asked;
    }
    line->whole = line->got == pair + SHORTS;
    return line->whole;
}

/* Returns whether the line is free for another question. */
static int go_on(struct line *line, uint32_t events)
{
    if (!line->connected) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            over(line);
            return 1;
        }
        if (!(events & EPOLLOUT))
            return 0;
        line->connected = 1;
        ask(line);
    }
    for (;;) {
        ssize_t size = recv(line->fd, room, sizeof room, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            return 0;
        if (size > 0)
            octets += size;
        if (mode == QUIC ? size <= 0 || take_datagram(line, size) : size <= 0) {
            int asked = line->sent;
            asked ? over(line) : end(line);
            return asked;
        }
        if (mode == QUIC)
            continue;
        line->got += size;
        if (line->sent && !line->whole && line->got >= ANSWER) {
            line->whole = 1;
            line->took = now() - line->asked;
            if (mode == KEPT) {
                over(line);
                return 1;
            }
            if (mode == HTTP)
                shutdown(line->fd, SHUT_WR);
        }
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* `count` questions, `open` of them at a time. */
static void questions(unsigned long count, int open)
{
    struct epoll_event events[256];
    struct line *free_lines[MOST];
    int idle = 0;
    double last_look = now();
    for (int i = open - 1; i >= 0; i--)
        free_lines[idle++] = &lines[i];
    for (;;) {
        while (idle && begun < count)
            begin(free_lines[--idle]);
        if (idle == open)
            return;
        int some = epoll_wait(poller, events, 256, 20);
        for (int i = 0; i < some; i++) {
            struct line *line = events[i].data.ptr;
            if (line->fd != IDLE && go_on(line, events[i].events))
                free_lines[idle++] = line;
        }
        double at = now();
        if (at - last_look > 0.1) {         /* what waits for too long has failed */
            last_look = at;
            for (int i = 0; i < open; i++)
                if (lines[i].fd != IDLE && (lines[i].sent || !lines[i].connected) && at - lines[i].asked > WAIT) {
                    over(&lines[i]);
                    free_lines[idle++] = &lines[i];
                }
        }
    }
}

static void take(int fd, size_t bytes)
{
    while (bytes) {
        ssize_t size = recv(fd, room, bytes < sizeof room ? bytes : sizeof room, 0);
        if (size <= 0)
            die("recv");
        bytes -= size;
        octets += size;
    }
}

/* So many bytes, in whole TLS records, over the one connection. */
static void bulk(unsigned long long bytes)
{
    static int fd = IDLE;
    /* What a client sends behind the hello: ChangeCipherSpec, once, and a record with how many bytes it wants. */
    unsigned char wish[] = {20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0};
    size_t skip = 6;
    if (fd == IDLE) {
        turn++;
        open_line(&lines[0]);
        fd = lines[0].fd;
        struct timeval patience = {10, 0};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        struct epoll_event event;
        if (epoll_wait(poller, &event, 1, 10000) != 1 || event.events & EPOLLERR)
            die("connect");
        epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
        fcntl(fd, F_SETFL, 0);              /* it waits from here on */
        if (send(fd, plain.bytes, plain.size, MSG_NOSIGNAL) != (ssize_t)plain.size)
            die("send");
        take(fd, ANSWER);
        skip = 0;
    }
    bytes = (bytes + RECORD - 1) / RECORD * RECORD;
    for (int i = 0; i < 8; i++)
        wish[11 + i] = bytes >> (56 - 8 * i);
    if (send(fd, wish + skip, sizeof wish - skip, MSG_NOSIGNAL) < 0)
        die("send");
    take(fd, bytes);
    answered++;
}

int main(int count, char **words)
{
    char order[64];
    int open;
    if (count < 11)
        return 2;
    for (mode = TLS; mode < QUIC && strcmp(words[6], MODES[mode]); mode++)
        ;
    parse(words[1], &server, atoi(words[5]));
    servers = atoi(words[2]);
    parse(words[3], &client, 0);
    clients = atoi(words[4]);
    open = atoi(words[7]) < MOST ? atoi(words[7]) : MOST;
    every = atoi(words[8]);
    load(words[9], &plain);
    load(words[10], &listed);
    poller = epoll_create1(0);
    if (poller < 0)
        die("epoll_create1");
    for (int i = 0; i < MOST; i++)
        lines[i].fd = IDLE;
    printf("\"ready\"\n");
    fflush(stdout);
    while (fgets(order, sizeof order, stdin)) {
        double since = now();
        begun = answered = failed = listed_answered = listed_blocked = octets = 0;
        mode == BULK ? bulk(strtoull(order, NULL, 10)) : questions(strtoul(order, NULL, 10), open);
        double seconds = now() - since;
        unsigned long kept = mode == BULK ? 0 : answered < TIMES ? answered : TIMES;
        qsort(times, kept, sizeof *times, by_size);
        printf("{\"seconds\": %.6f, \"begun\": %lu, \"answered\": %lu, \"failed\": %lu, \"listed_answered\": %lu, "
               "\"listed_blocked\": %lu, \"octets\": %llu, \"p50_us\": %.2f, \"p99_us\": %.1f}\n",
               seconds, begun, answered, failed, listed_answered, listed_blocked, octets,
               kept ? times[kept / 2] : 0, kept ? times[kept * 99 / 100] : 0);
        fflush(stdout);
    }
    return 0;
}
