/* The bare queue loop: accepts every packet of one NFQUEUE and looks at none. What a reader can at best take.
 *
 *   accept QUEUE one|many BUFFER [CPU]
 *
 * In: orders on standard input, a line each. Out: "ready" when the queue is bound, then a JSON line for each order.
 *   drain   reads and accepts until the socket is dry
 *   run     reads and accepts as packets come, until the next line on standard input
 * one: recv, then a verdict for that packet, as libnetfilter_queue's examples do. many: recvmmsg of up to 32 packets,
 * then one batch verdict for all of them. Never: a look into a packet, fail-open, a library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 32, ROOM = 65536 + 2048 + 64 };

static unsigned char *buffers;
static struct mmsghdr headers[MANY];
static struct iovec vectors[MANY];
static unsigned long packets;
static int netlink, queue, many;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static char *attribute(char *at, int type, const void *value, int size)
{
    struct nlattr head = {.nla_len = NLA_HDRLEN + size, .nla_type = type};
    memcpy(at, &head, sizeof head);
    memcpy(at + NLA_HDRLEN, value, size);
    return at + NLA_HDRLEN + NLA_ALIGN(size);
}

static char *begin(char *buffer)
{
    struct nfgenmsg family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue)};
    memcpy(buffer + NLMSG_HDRLEN, &family, sizeof family);
    return buffer + NLMSG_HDRLEN + sizeof family;
}

static void tell(char *buffer, char *end, int type)
{
    struct nlmsghdr head = {.nlmsg_len = end - buffer, .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type,
                            .nlmsg_flags = NLM_F_REQUEST};
    memcpy(buffer, &head, sizeof head);
    if (send(netlink, buffer, end - buffer, 0) < 0)
        die("send");
}

static void verdict(int type, uint32_t id)
{
    char buffer[64] = {0};
    struct nfqnl_msg_verdict_hdr accept = {.verdict = htonl(NF_ACCEPT), .id = htonl(id)};
    tell(buffer, attribute(begin(buffer), NFQA_VERDICT_HDR, &accept, sizeof accept), type);
}

/* The id of the packet in a message, which the kernel puts first; 0 for a message of another kind. */
static uint32_t id_of(const unsigned char *message)
{
    struct nlmsghdr head;
    uint32_t id;
    memcpy(&head, message, sizeof head);
    if (head.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
        return 0;
    memcpy(&id, message + NLMSG_HDRLEN + sizeof(struct nfgenmsg) + NLA_HDRLEN, sizeof id);
    return ntohl(id);
}

static int drain(void)
{
    int took = 0;
    for (;;) {
        uint32_t last = 0;
        int count;
        if (many) {
            count = recvmmsg(netlink, headers, MANY, MSG_DONTWAIT, NULL);
        } else {
            count = recv(netlink, buffers, ROOM, MSG_DONTWAIT) < 0 ? -1 : 1;
        }
        if (count < 0) {
            if (errno == EAGAIN)
                return took;
            if (errno == ENOBUFS || errno == EINTR)
                continue;
            die("recv");
        }
        for (int i = 0; i < count; i++) {
            uint32_t id = id_of(buffers + (size_t)i * ROOM);
            if (id) {
                last = id;
                packets++;
            }
        }
        if (last)
            verdict(many ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT, last);
        took += count;
        if (took >= 1024)
            return took;
    }
}

static void bind_queue(int size)
{
    char buffer[256] = {0};
    struct nfqnl_msg_config_cmd command = {.command = NFQNL_CFG_CMD_BIND};
    struct nfqnl_msg_config_params copy = {.copy_range = htonl(0xFFFF), .copy_mode = NFQNL_COPY_PACKET};
    uint32_t length = htonl(0x7FFFFFFF);
    int on = 1;
    char *at;
    netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    if (netlink < 0)
        die("socket");
    setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(netlink, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);
    at = attribute(begin(buffer), NFQA_CFG_CMD, &command, sizeof command);
    at = attribute(at, NFQA_CFG_PARAMS, &copy, sizeof copy);
    at = attribute(at, NFQA_CFG_QUEUE_MAXLEN, &length, sizeof length);
    tell(buffer, at, NFQNL_MSG_CONFIG);
}

static double seconds(struct timeval t) { return t.tv_sec + t.tv_usec * 1e-6; }

int main(int count, char **words)
{
    char line[64];
    if (count < 4)
        return 2;
    queue = atoi(words[1]);
    many = !strcmp(words[2], "many");
    if (count > 4) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(atoi(words[4]), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
    buffers = calloc(MANY, ROOM);
    if (!buffers)
        die("calloc");
    for (int i = 0; i < MANY; i++) {
        vectors[i] = (struct iovec){buffers + (size_t)i * ROOM, ROOM};
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    bind_queue(atoi(words[3]));
    printf("\"ready\"\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        struct rusage before, after;
        struct timespec began, ended;
        unsigned long first = packets;
        getrusage(RUSAGE_SELF, &before);
        clock_gettime(CLOCK_MONOTONIC, &began);
        if (!strcmp(line, "drain\n")) {
            while (drain() >= 1024)
                ;
        } else {
            struct pollfd wait[2] = {{netlink, POLLIN, 0}, {0, POLLIN, 0}};
            while (poll(wait, 2, -1) >= 0 && !wait[1].revents)
                drain();
            if (!fgets(line, sizeof line, stdin))
                return 0;
        }
        clock_gettime(CLOCK_MONOTONIC, &ended);
        getrusage(RUSAGE_SELF, &after);
        printf("{\"packets\": %lu, \"seconds\": %.6f, \"user\": %.6f, \"system\": %.6f}\n", packets - first,
               (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) * 1e-9,
               seconds(after.ru_utime) - seconds(before.ru_utime),
               seconds(after.ru_stime) - seconds(before.ru_stime));
        fflush(stdout);
    }
    return 0;
}
