/* The server of the box benchmark: it answers whatever it is asked with as few cycles as it can.
 *
 *   answer TLS_PORT HTTP_PORT BULK_PORT QUIC_PORT
 *
 * In: connections to any address, IPv4 and IPv6. Out: "ready" on standard output, then
 *   on the first port, for the hello of a connection however many segments it has, ANSWER bytes: the ServerHello,
 *   ChangeCipherSpec and one encrypted record, as TLS 1.3 has them (RFC 8446, 4.1.3 and 5), and the end of it;
 *   on the second, for each request that is there, ANSWER bytes of HTTP response;
 *   on the third the same as on the first, but no end: the last 8 bytes of what comes then say how many bytes of
 *   encrypted records are wanted;
 *   on the fourth (UDP), for each datagram with a long header ANSWER bytes with one, for each other SHORT bytes.
 * Never: TLS itself, whose arithmetic would hide what the way to here costs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER = 1200, SHORT = 60, RECORD = 5 + 16384, RECORDS = 16, EVENTS = 256, SOCKETS = 1 << 16 };
enum { TLS, HTTP, BULK, QUIC, LISTENER = 8 };

static struct talk {                /* what a connection has come to, by its descriptor */
    uint32_t wanted, got;           /* bytes of the hello; 0: not known yet */
    uint64_t owed;                  /* bytes that are still to be sent */
} talks[SOCKETS];
static char tls[ANSWER], http[ANSWER], quic[ANSWER], records[RECORDS * RECORD], asked[65536];

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void watch(int poll, int fd, int kind, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
    if (epoll_ctl(poll, how, fd, &event))
        die("epoll_ctl");
}

static void listen_on(int poll, int port, int kind)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int on = 1, off = 0, room = 4 << 20;
    int fd = socket(AF_INET6, (kind == QUIC ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (kind == QUIC) {             /* the answer has to come from the address that was asked */
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    }
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || (kind != QUIC && listen(fd, 4096)))
        die("bind");
    watch(poll, fd, kind == QUIC ? QUIC : kind | LISTENER, EPOLLIN, EPOLL_CTL_ADD);
}

static void send_owed(int poll, int fd, int waiting)
{
    struct talk *talk = &talks[fd];
    while (talk->owed) {            /* it is a number of whole records, and so is what is left of a piece */
        size_t from = (RECORD - talk->owed % RECORD) % RECORD, size = sizeof records - from;
        ssize_t sent = send(fd, records + from, size < talk->owed ? size : talk->owed, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            talk->owed = 0;
        if (sent < 0)
            break;
        talk->owed -= sent;
    }
    if ((talk->owed == 0) == waiting)
        watch(poll, fd, BULK, talk->owed ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

/* How many answers the bytes in `asked` are worth. */
static int answers(struct talk *talk, int kind, size_t size)
{
    int count = 0;
    if (kind == HTTP) {             /* the end of a request is in one piece, as every request is here */
        for (char *at = asked; (at = memmem(at, asked + size - at, "\r\n\r\n", 4)); at += 4)
            count++;
        return count;
    }
    if (!talk->wanted && size >= 5)
        talk->wanted = 5 + ((uint8_t)asked[3] << 8 | (uint8_t)asked[4]);
    talk->got += size;
    return talk->got - size < talk->wanted && talk->got >= talk->wanted;
}

static void serve(int poll, int fd, int kind, uint32_t events)
{
    struct talk *talk = &talks[fd];
    ssize_t size;
    int count;
    if (kind == BULK && events & EPOLLOUT) {
        send_owed(poll, fd, 1);
        return;
    }
    size = recv(fd, asked, sizeof asked, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        close(fd);
        return;
    }
    if (kind == BULK && talk->wanted && talk->got >= talk->wanted) {
        uint64_t owed = 0;
        for (int i = 8; i && size >= 8; i--)
            owed = owed << 8 | (uint8_t)asked[size - i];
        talk->owed += owed / RECORD * RECORD;
        send_owed(poll, fd, 0);
        return;
    }
    count = answers(talk, kind, size);
    for (int i = 0; i < count; i++)
        if (send(fd, kind == HTTP ? http : tls, ANSWER, MSG_NOSIGNAL | MSG_DONTWAIT) != ANSWER)
            break;
    if (kind == TLS && count)
        close(fd);                  /* everything was read, so this is a FIN */
}

static void serve_datagrams(int fd)
{
    struct sockaddr_in6 from;
    char control[256];
    struct iovec vector;
    for (;;) {
        struct msghdr head = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1,
                              .msg_control = control, .msg_controllen = sizeof control};
        vector = (struct iovec){asked, sizeof asked};
        if (recvmsg(fd, &head, MSG_DONTWAIT) <= 0)
            return;
        struct cmsghdr *about = CMSG_FIRSTHDR(&head);
        if (about && about->cmsg_type == IPV6_PKTINFO)
            ((struct in6_pktinfo *)CMSG_DATA(about))->ipi6_ifindex = 0;
        head.msg_flags = 0;
        vector = (struct iovec){quic, ANSWER};
        if (!(asked[0] & 0x80)) {
            asked[0] = 0x40;
            vector = (struct iovec){asked, SHORT};
        }
        sendmsg(fd, &head, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void compose(void)
{
    static const uint8_t hello[] = {
        22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3,
        7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31,                                                     /* its random bytes */
        0, 0x13, 1, 0,                                              /* no session, TLS_AES_128_GCM_SHA256 */
        0, 46, 0, 43, 0, 2, 3, 4, 0, 51, 0, 36, 0, 29, 0, 32,       /* TLS 1.3; a key share of X25519 */
        9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7, 6, 5};
    static const uint8_t change[] = {20, 3, 3, 0, 1, 1};
    size_t at = sizeof hello;
    memcpy(tls, hello, at);
    tls[4] = at - 5;
    tls[8] = at - 9;
    memcpy(tls + at, change, sizeof change);
    at += sizeof change;
    uint8_t head[] = {23, 3, 3, (ANSWER - at - 5) >> 8, (ANSWER - at - 5) & 255};
    memcpy(tls + at, head, sizeof head);
    memset(tls + at + 5, 0x5a, ANSWER - at - 5);
    memset(http, 'x', ANSWER);
    size_t size = sprintf(http, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %04d\r\n"
                                "Connection: keep-alive\r\n\r\n", 0);
    sprintf(http, "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %04zu\r\n"
                  "Connection: keep-alive\r\n\r\n", ANSWER - size);
    http[size] = 'x';
    memset(records, 0x5a, sizeof records);
    for (int i = 0; i < RECORDS; i++)
        memcpy(records + i * RECORD, "\x17\x03\x03\x40\x00", 5);
    memset(quic, 0x5a, ANSWER);
    memcpy(quic, "\xc0\x00\x00\x00\x01\x00\x08", 7);               /* an Initial of version 1, client's id empty */
}

int main(int count, char **words)
{
    struct epoll_event events[EVENTS];
    int poll = epoll_create1(0), on = 1;
    if (count < 5 || poll < 0)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    compose();
    for (int kind = TLS; kind <= QUIC; kind++)
        listen_on(poll, atoi(words[1 + kind]), kind);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int some = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < some; i++) {
            int fd = (int)(uint32_t)events[i].data.u64, kind = (int)(events[i].data.u64 >> 32);
            if (kind == QUIC) {
                serve_datagrams(fd);
            } else if (!(kind & LISTENER)) {
                serve(poll, fd, kind, events[i].events);
            } else {
                for (int each; (each = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    if (each >= SOCKETS) {
                        close(each);
                        continue;
                    }
                    talks[each] = (struct talk){0};
                    setsockopt(each, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                    watch(poll, each, kind & ~LISTENER, EPOLLIN, EPOLL_CTL_ADD);
                }
            }
        }
    }
}
