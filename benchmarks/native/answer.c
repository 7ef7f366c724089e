/* The server of the box benchmark: it answers whatever it is asked with as few cycles as it can.
 *
 *   answer TLS_PORT HTTP_PORT BULK_PORT
 *
 * In: connections on any address, IPv4 and IPv6. Out: "ready" on standard output, then on the first port for the first
 * bytes of a connection ANSWER bytes that look like a TLS handshake, and the end of it; on the second for each piece
 * that arrives ANSWER bytes of HTTP response; on the third, after the first bytes, zeros without end. Never: TLS
 * itself, whose arithmetic would hide what the way to here costs.
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

enum { ANSWER = 1200, PIECE = 256 * 1024, EVENTS = 256, TLS = 0, HTTP = 1, BULK = 2, LISTENER = 4 };

static char tls[ANSWER], http[ANSWER], zeros[PIECE], asked[65536];

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void watch(int poll, int fd, int kind, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void listen_on(int poll, int port, int kind)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        die("bind");
    watch(poll, fd, kind | LISTENER, EPOLLIN);
}

static void serve(int poll, int fd, int kind, uint32_t events)
{
    ssize_t size;
    if (kind == BULK && events & EPOLLOUT) {
        size = send(fd, zeros, sizeof zeros, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno != EAGAIN)
            close(fd);
        return;
    }
    size = recv(fd, asked, sizeof asked, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        close(fd);
    } else if (kind == BULK) {
        struct epoll_event event = {.events = EPOLLOUT, .data.u64 = (uint64_t)BULK << 32 | (uint32_t)fd};
        epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
    } else if (send(fd, kind == TLS ? tls : http, ANSWER, MSG_NOSIGNAL | MSG_DONTWAIT) != ANSWER) {
        close(fd);
    } else if (kind == TLS) {
        close(fd);          /* everything was read, so this is a FIN */
    }
}

int main(int count, char **words)
{
    struct epoll_event events[EVENTS];
    int poll = epoll_create1(0), on = 1;
    if (count < 4 || poll < 0)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    memcpy(tls, "\x16\x03\x03", 3);
    tls[3] = (ANSWER - 5) >> 8;
    tls[4] = (char)(ANSWER - 5);
    tls[5] = 2;
    memset(http, 'x', ANSWER);
    size_t head = sprintf(http, "HTTP/1.1 200 OK\r\nContent-Length: %04d\r\nConnection: keep-alive\r\n\r\n", 0);
    sprintf(http, "HTTP/1.1 200 OK\r\nContent-Length: %04zu\r\nConnection: keep-alive\r\n\r\n", ANSWER - head);
    http[head] = 'x';
    for (int kind = TLS; kind <= BULK; kind++)
        listen_on(poll, atoi(words[1 + kind]), kind);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int some = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < some; i++) {
            int fd = (int)(uint32_t)events[i].data.u64, kind = (int)(events[i].data.u64 >> 32);
            if (!(kind & LISTENER)) {
                serve(poll, fd, kind, events[i].events);
                continue;
            }
            for (int each; (each = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                setsockopt(each, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(poll, each, kind & ~LISTENER, EPOLLIN);
            }
        }
    }
}
