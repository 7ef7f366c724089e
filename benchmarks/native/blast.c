/* Sends prepared packets through one interface at a steady rate, each time as other flows.
 *
 *   blast INTERFACE FILE RATE SECONDS [CPU]        RATE in packets a second; 0 is as fast as it goes
 *   blast INTERFACE FILE 0 -COUNT [CPU]            COUNT packets
 *   blast INTERFACE FILE 0 orders                  as many as each line on standard input says, after "ready"
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

struct load {               /* a file of frames, and how far it has been sent */
    uint8_t *file, *end, *at;
    int link;
    double rate;
};

static int open_load(struct load *load, const char *interface, const char *path)
{
    struct stat about;
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    int on = 1, fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about))
        die(path);
    load->file = load->at = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (load->file == MAP_FAILED)
        die("mmap");
    load->end = load->file + about.st_size;
    load->link = socket(AF_PACKET, SOCK_RAW, 0);
    to.sll_ifindex = if_nametoindex(interface);
    to.sll_protocol = htons(ETH_P_IP);
    if (load->link < 0 || !to.sll_ifindex || bind(load->link, (struct sockaddr *)&to, sizeof to))
        die(interface);
    return setsockopt(load->link, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
}

static void send_burst(struct load *load, int part, unsigned long *refused)
{
    static struct mmsghdr headers[BURST];
    static struct iovec vectors[BURST];
    uint32_t size;
    for (int i = 0; i < part; i++) {
        if (load->at == load->end)
            load->at = load->file;
        memcpy(&size, load->at, 4);
        vectors[i] = (struct iovec){load->at + 4, size};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
        load->at += 4 + size;
    }
    for (int done = 0; done < part;) {
        int some = sendmmsg(load->link, headers + done, part - done, 0);
        if (some > 0) {
            done += some;
        } else if (errno == ENOBUFS || errno == EAGAIN) {
            ++*refused;
        } else if (errno != EINTR) {
            die("sendmmsg");
        }
    }
    for (int i = 0; i < part; i++)
        move_on(vectors[i].iov_base, vectors[i].iov_len);
}

/* Sends for so many seconds, or until `most` are sent, and says so. */
static void blast(struct load *load, double seconds, unsigned long most)
{
    struct rusage used;
    double began = now(), passed;
    unsigned long sent = 0, refused = 0;
    while ((passed = now() - began) < seconds && sent < most) {
        int part = BURST;
        if (load->rate > 0) {
            double due = passed * load->rate - sent;
            if (due < 1) {
                double left = (1 - due) / load->rate;
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
        send_burst(load, part, &refused);
        sent += part;
    }
    passed = now() - began;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"sent\": %lu, \"refused\": %lu, \"seconds\": %.6f, \"system\": %.6f}\n", sent, refused, passed,
           used.ru_stime.tv_sec + used.ru_stime.tv_usec * 1e-6);
    fflush(stdout);
}

int main(int count, char **words)
{
    struct load load = {0};
    char order[64];
    double seconds;
    if (count < 5)
        return 2;
    load.rate = atof(words[3]);
    seconds = atof(words[4]);
    if (count > 5) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(words[5]), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
    open_load(&load, words[1], words[2]);
    if (!strcmp(words[4], "orders")) {
        printf("\"ready\"\n");
        fflush(stdout);
        while (fgets(order, sizeof order, stdin))
            blast(&load, 3600, strtoul(order, NULL, 10));
    } else if (seconds < 0) {
        blast(&load, 3600, (unsigned long)-seconds);
    } else {
        blast(&load, seconds, ~0ul);
    }
    return 0;
}
