/* Sends prepared packets through one interface at a steady rate, each time as other flows.
 *
 *   blast INTERFACE FILE RATE SECONDS [CPU]        RATE in packets a second; 0 is as fast as it goes
 *   blast INTERFACE FILE 0 -COUNT [CPU]            COUNT packets
 *
 * In: a file of frames, each with its length before it (32 bits, host order), Ethernet header included, checksums
 * right. Out: one JSON line with what was sent and how long it took. After every round through the file the second
 * byte of the source address (IPv6: its fourth group) goes one up and the checksums follow, so that every round is of
 * flows that nobody has seen. Never: an answer read, a packet kept back longer than a burst of 32 takes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BURST = 32 };

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

/* RFC 1624: one 16-bit word of what a checksum covers goes from `was` to `is`. */
static void follow(uint8_t *checksum, uint16_t was, uint16_t is)
{
    uint16_t old;
    uint32_t sum;
    memcpy(&old, checksum, 2);
    sum = (uint16_t)~old + (uint32_t)(uint16_t)~was + is;
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    old = ~sum;
    memcpy(checksum, &old, 2);
}

static void move_on(uint8_t *frame, uint32_t size)
{
    uint8_t *ip = frame + 14, *word, *transport;
    uint8_t protocol;
    uint16_t was, is;
    if (size < 14 + 28)
        return;
    if (ip[0] >> 4 == 4) {
        word = ip + 12;
        transport = ip + (ip[0] & 15) * 4;
        protocol = ip[9];
    } else {
        if (size < 14 + 48)
            return;
        word = ip + 14;
        transport = ip + 40;
        protocol = ip[6];
    }
    memcpy(&was, word, 2);
    word[1]++;
    memcpy(&is, word, 2);
    if (ip[0] >> 4 == 4)
        follow(ip + 10, was, is);
    if (protocol == 6 && size >= 14u + (transport - ip) + 20)
        follow(transport + 16, was, is);
    else if (protocol == 17 && (transport[6] || transport[7]))
        follow(transport + 6, was, is);
}

int main(int count, char **words)
{
    struct stat about;
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    struct mmsghdr headers[BURST] = {0};
    struct iovec vectors[BURST];
    struct rusage used;
    uint8_t *file, *end, *at;
    double rate, seconds, began, due;
    unsigned long sent = 0, refused = 0, most = ~0ul;
    int link, on = 1, filled = 0;
    if (count < 5)
        return 2;
    rate = atof(words[3]);
    seconds = atof(words[4]);
    if (seconds < 0) {
        most = (unsigned long)-seconds;
        seconds = 3600;
    }
    if (count > 5) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(words[5]), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
    link = open(words[2], O_RDONLY);
    if (link < 0 || fstat(link, &about))
        die(words[2]);
    file = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, link, 0);
    if (file == MAP_FAILED)
        die("mmap");
    end = at = file;
    end += about.st_size;
    link = socket(AF_PACKET, SOCK_RAW, 0);
    to.sll_ifindex = if_nametoindex(words[1]);
    to.sll_protocol = htons(ETH_P_IP);
    if (link < 0 || !to.sll_ifindex || bind(link, (struct sockaddr *)&to, sizeof to))
        die(words[1]);
    setsockopt(link, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
    for (int i = 0; i < BURST; i++) {
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    began = now();
    for (;;) {
        uint32_t size;
        double passed = now() - began;
        int part = BURST, done;
        if (passed >= seconds || sent >= most)
            break;
        if (rate > 0) {
            due = passed * rate - sent;
            if (due < 1) {
                double left = (1 - due) / rate;
                if (left > 100e-6) {
                    struct timespec pause = {0, (long)((left - 60e-6) * 1e9)};
                    nanosleep(&pause, NULL);
                }
                continue;
            }
            if (due < part)
                part = due;
        }
        if (most - sent < (unsigned long)part)
            part = most - sent;
        for (filled = 0; filled < part; filled++) {
            if (at == end)
                at = file;
            memcpy(&size, at, 4);
            vectors[filled] = (struct iovec){at + 4, size};
            at += 4 + size;
        }
        for (done = 0; done < filled;) {
            int some = sendmmsg(link, headers + done, filled - done, 0);
            if (some > 0) {
                done += some;
            } else if (errno == ENOBUFS || errno == EAGAIN) {
                refused++;
            } else if (errno != EINTR) {
                die("sendmmsg");
            }
        }
        for (int i = 0; i < filled; i++)
            move_on(vectors[i].iov_base, vectors[i].iov_len);
        sent += filled;
    }
    due = now() - began;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"sent\": %lu, \"refused\": %lu, \"seconds\": %.6f, \"system\": %.6f}\n", sent, refused, due,
           used.ru_stime.tv_sec + used.ru_stime.tv_usec * 1e-6);
    return 0;
}
