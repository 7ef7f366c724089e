/* The client of the box benchmark: asks over many connections at once and says what came of it.
 *
 *   ask ADDRESS PORT new|kept|bulk SECONDS OPEN RATE EVERY PLAIN LISTED [SOURCE COUNT]
 *
 * In: a server (native/answer.c); how many connections are open at a time; how many questions a second are begun (0: as
 * many as go); that each EVERYth question is LISTED, a file of bytes to send, and the others PLAIN, whose
 * "host00000000" gets a number of its own each time (EVERY 0: none is listed). new: a connection a question. kept: the
 * connections stay, one question at a time on each. bulk: OPEN connections that read all the time. With SOURCE the
 * connections come in turn from COUNT IPv4 addresses, of which it is the first.
 * Out: one JSON line: seconds until the last answer, and no less than SECONDS (what waits at the end for an answer that
 * never comes is counted as failed, and does not lower the rate, too); questions answered whole, plain ones that were
 * not, listed ones answered and not, bytes read, and the latencies of answered questions (with `new` from connect on),
 * in microseconds, as percentiles.
 * Never: a question given up before WAIT seconds, or counted twice.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 1200, MOST = 4096, ROOM = 1 << 18, TIMES = 1 << 22, IDLE = -1 };
static const double WAIT = 2.0;

struct line {               /* one connection, or the place for one */
    int fd, connected, sent, listed;
    size_t got;
    double asked;
};

static struct line lines[MOST];
static char plain[65536], listed[65536], room[ROOM];
static size_t plain_size, listed_size;
static char *number_at;
static float *times;
static unsigned long answered, failed, listed_answered, listed_blocked, begun, late;
static unsigned long long octets;
static double last_answer;
static struct sockaddr_storage server;
static socklen_t server_size;
static struct sockaddr_in source = {.sin_family = AF_INET};
static uint32_t sources;
static int mode, every, poller;         /* mode: 0 new, 1 kept, 2 bulk */

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

static size_t load(const char *path, char *to)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die(path);
    size_t size = fread(to, 1, 65536, file);
    fclose(file);
    return size;
}

static void end(struct line *line)
{
    close(line->fd);
    line->fd = IDLE;
    line->connected = line->sent = 0;
}

static void ask(struct line *line)
{
    const char *text = line->listed ? listed : plain;
    size_t size = line->listed ? listed_size : plain_size;
    if (!line->listed && number_at) {
        char digits[9];
        snprintf(digits, sizeof digits, "%08lu", begun % 100000000);
        memcpy(number_at, digits, 8);
    }
    line->sent = 1;
    line->got = 0;
    if (send(line->fd, text, size, MSG_NOSIGNAL) != (ssize_t)size)
        shutdown(line->fd, SHUT_RDWR);
}

static void begin(struct line *line)
{
    begun++;
    line->listed = every && begun % every == 0;
    line->asked = now();
    if (line->fd == IDLE) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = line};
        int on = 1;
        line->fd = socket(server.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (line->fd < 0)
            die("socket");
        setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        line->connected = line->sent = 0;
        line->got = 0;
        if (sources) {
            struct sockaddr_in from = source;
            from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + begun % sources);
            setsockopt(line->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
            if (bind(line->fd, (struct sockaddr *)&from, sizeof from))
                die("bind");
        }
        if (connect(line->fd, (struct sockaddr *)&server, server_size) && errno != EINPROGRESS)
            die("connect");
        epoll_ctl(poller, EPOLL_CTL_ADD, line->fd, &event);
    } else {
        ask(line);
    }
}

/* The question on this line is over. */
static void over(struct line *line, int whole)
{
    double at = now();
    if (whole)
        last_answer = at;
    if (line->listed) {
        whole ? listed_answered++ : listed_blocked++;
    } else if (whole) {
        times[answered++ % TIMES] = (at - line->asked) * 1e6;
    } else {
        failed++;
    }
    line->sent = 0;
    if (mode == 0 || !whole)
        end(line);
}

/* Returns whether the line is free for another question. */
static int go_on(struct line *line, uint32_t events)
{
    ssize_t size;
    if (!line->connected) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            over(line, 0);
            return 1;
        }
        if (!(events & EPOLLOUT))
            return 0;
        line->connected = 1;
        ask(line);
    }
    for (;;) {
        size = recv(line->fd, room, sizeof room, MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN)
            return 0;
        if (size <= 0) {
            int asked = line->sent;
            if (asked)
                over(line, 0);
            else
                end(line);
            return 1;
        }
        octets += size;
        line->got += size;
        if (mode < 2 && line->sent && line->got >= ANSWER) {
            over(line, 1);
            return 1;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int main(int count, char **words)
{
    struct epoll_event events[256];
    struct sockaddr_in *four = (void *)&server;
    struct sockaddr_in6 *six = (void *)&server;
    struct line *free_lines[MOST];
    struct rusage used;
    double seconds, rate, began, last_look;
    int open, idle = 0;
    if (count < 10)
        return 2;
    if (inet_pton(AF_INET, words[1], &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(atoi(words[2]));
        server_size = sizeof *four;
    } else if (inet_pton(AF_INET6, words[1], &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(atoi(words[2]));
        server_size = sizeof *six;
    } else {
        return 2;
    }
    mode = !strcmp(words[3], "new") ? 0 : !strcmp(words[3], "kept") ? 1 : 2;
    seconds = atof(words[4]);
    open = atoi(words[5]) < MOST ? atoi(words[5]) : MOST;
    rate = atof(words[6]);
    every = atoi(words[7]);
    if (count > 11) {
        inet_pton(AF_INET, words[10], &source.sin_addr);
        sources = atoi(words[11]);
    }
    plain_size = load(words[8], plain);
    listed_size = load(words[9], listed);
    number_at = memmem(plain, plain_size, "host00000000", 12);
    if (number_at)
        number_at += 4;
    times = malloc(TIMES * sizeof *times);
    poller = epoll_create1(0);
    if (!times || poller < 0)
        die("start");
    for (int i = open - 1; i >= 0; i--) {
        lines[i].fd = IDLE;
        free_lines[idle++] = &lines[i];
    }
    began = last_look = now();
    for (;;) {
        double at = now(), passed = at - began;
        int done = passed >= seconds, some;
        while (!done && idle && (mode < 2 || begun < (unsigned long)open)) {
            if (rate > 0 && begun >= passed * rate)
                break;
            begin(free_lines[--idle]);
        }
        if (!done && rate > 0 && !idle && begun + 1 < passed * rate)
            late++;
        if (done && (idle == open || mode == 2 || passed >= seconds + WAIT))
            break;
        some = epoll_wait(poller, events, 256, rate > 0 && !done ? 0 : 20);
        for (int i = 0; i < some; i++) {
            struct line *line = events[i].data.ptr;
            int was_busy = line->fd != IDLE && (line->sent || !line->connected);
            if (line->fd != IDLE && go_on(line, events[i].events) && was_busy)
                free_lines[idle++] = line;
        }
        if (at - last_look > 0.1) {             /* what waits for too long has failed */
            last_look = at;
            for (int i = 0; i < open && mode < 2; i++)
                if (lines[i].fd != IDLE && (lines[i].sent || !lines[i].connected) && at - lines[i].asked > WAIT) {
                    over(&lines[i], 0);
                    free_lines[idle++] = &lines[i];
                }
        }
    }
    for (int i = 0; i < open && mode < 2; i++)
        if (lines[i].fd != IDLE && (lines[i].sent || !lines[i].connected))
            over(&lines[i], 0);
    if (mode == 2)
        seconds = now() - began;
    else if (last_answer - began > seconds)
        seconds = last_answer - began;
    getrusage(RUSAGE_SELF, &used);
    unsigned long kept = answered < TIMES ? answered : TIMES;
    qsort(times, kept, sizeof *times, by_size);
    printf("{\"seconds\": %.6f, \"begun\": %lu, \"answered\": %lu, \"failed\": %lu, \"listed_answered\": %lu, "
           "\"listed_blocked\": %lu, \"octets\": %llu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f}\n",
           seconds, begun, answered, failed, listed_answered, listed_blocked, octets,
           kept ? times[kept / 2] : 0, kept ? times[kept * 99 / 100] : 0, kept ? times[kept * 999 / 1000] : 0);
    return 0;
}
