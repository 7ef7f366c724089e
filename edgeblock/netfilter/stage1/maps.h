/* What the programs have in common: maps, what stands in them, the outcomes, and what the kernel does for programs.
 *
 * Never here: a decision. What user space reads of it, too, is in structures.h.
 */

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define MEMORY_BARRIER() asm volatile("" ::: "memory")

enum { PASS = 1, QUEUE = 0 };

#define SECOND 1000000000ULL
#define MIX 0x9E3779B97F4A7C15ULL        // core/sketch.pyx has the same

// What became of a packet. The names are in __init__.py, in this order.
enum outcome {
	PASSED_SYN,
	PASSED_PIECE,        // of a hello of which more is to come
	PASSED_HELLO,
	PASSED_REQUEST,
	QUEUED_ADDRESS,      // destination may be listed
	QUEUED_NAME,         // name, or a parent domain, may be listed
	QUEUED_ODD_NAME,     // name that is not plain: other bytes, empty labels, digits last, too many labels
	QUEUED_NO_NAME,
	QUEUED_ECH,          // ECH, and its policy is not "accept"
	QUEUED_PIECE,        // not one plain ClientHello, nor the beginning of one; or no room for its pieces
	QUEUED_OTHER,        // not TLS, and no plain request that may pass here
	QUEUED_LATER,        // of a flow that has had its hello, or bytes somewhere else
	QUEUED_WATCHED,      // of a flow that is the engine's
	QUEUED_UNKNOWN,      // no SYN of the flow is remembered
	QUEUED_ODD,          // SYN with data, options of IP, extension headers, flags
	QUEUED_NO_FILTER,
	QUEUED_SAMPLE,       // of a connection that user space learns from, although nothing is listed
	CARRIED,             // past the kernel rules: see `carry`
	OUTCOMES
};

enum {
	NAME_MAX = 127,      // longer names, and those of more labels, are for user space: there are few
	LABELS = 8,
	EXTENSIONS = 40,     // browsers send 16 to 20
	PREFIXES = 4,        // different prefix lengths looked up for one destination
	FIN = 1, SYN = 2, RST = 4, ACK = 16, URG = 32,
	RECORD_CIPHER = 20, RECORD_HANDSHAKE = 22, RECORD_DATA = 23,
	CLIENT_HELLO = 1, SERVER_HELLO = 2, SERVER_NAME = 0, ECH = 0xFE0D,
	IP_TCP = 6, IP_UDP = 17,
	BEHIND = 66000,              // acknowledgements that come late, as conntrack has it (MAXACKWINCONST)
	DTLS_FIRST = 20, DTLS_LAST = 22,    // first bytes of datagrams that may hold a ClientHello: policy.py
	// Seconds in which user space is told what has passed of a flow that is the engine's. A queue that is full
	// drops what would tell it; by then no common server waits for the rest of a hello (nginx and Apache end a
	// handshake after 60 s).
	SOON = 120,
	ANSWER_BYTES = 248, ANSWER_OTHER_BYTES = 768,    // policy.py has these, and why
	OPENINGS = 16,              // that a CPU may have on their way from an interface to the rules
	ANSWER_WITHIN = 1 << 16,    // of the server's first byte: a new connection's first large answer; see `settle`
};

// ---- maps: sizes that are 1 here are set by the loader

struct map {
	__u32 type, key_size, value_size, max_entries, flags;
};

struct header {                          // the first element of a filter; its prefixes are next, then its blocks
	__u64 secret[2];
	__u64 labels;                    // bit n: some listed host has n labels
	__u32 blocks;
	__u32 crowded;                   // more prefix lengths are listed than there is room for: 1 IPv4, 2 IPv6
	__u64 unused[4];
};

struct prefix {                          // a length that some listed address has; the mask as it lies in packets
	__u64 high, low;
	__u32 bits, used;
};

struct prefixes {                        // elements of a filter, two in each: PREFIXES of IPv4, as many of IPv6
	struct prefix prefix[2];
	__u64 unused[2];
};

struct block {
	__u64 words[8];
};

enum { WHOLE, BEGINS, GOES_ON };

#define RETRY_RANDOM 0xCF21AD74U         // begins the random of a HelloRetryRequest (RFC 8446, 4.1.3)
#define CAME_THROUGH (1U << 31)  // beside an interface: what came by it was seen there and by the rules

struct view {
	struct key key;
	__u32 seq;
	__u32 at;                        // of the payload
	__u32 size;
	__u8 flags;
	__u8 odd;                        // nothing is passed that is not as plain as can be
};

struct opening {                         // a SYN where it enters the box, for the rule that sees it behind the routes
	struct key key;                  // as in `marks`
	__u32 seq;
	__u32 by;                        // the interface; 0: nothing is here
};

// Of one CPU. What stands here and not in variables, the verifier does not tell apart, so that it comes to an end.
struct scratch {
	__u64 now;
	__u64 turns;                     // programs begun on this CPU: one that was interrupted sees it
	struct view view;
	__u32 name_at, name_size, names, ech;
	__u32 have, from;                // bytes of a hello that have come, and those before this packet
	__u32 kind, so_far;              // what this packet is of it; whether it is one, or may become one
	__u32 at;                        // how far a request is read
	__u32 request, goes_on;          // it is a request, not a hello; its connection has had others
	__u32 mine, last;                // which of passed[] a hello is behind; the last of them
	__u32 known, read, near, bare;   // of a SYN: is it in passed[], with a hello, near one; how many have none
	__u64 next;                      // hellos that this CPU has remembered
	__u64 dots;                      // in `name`
	__u64 hashes[LABELS];        // of the name behind each start
	__u64 starts[LABELS];        // of labels in `name`, last label first
	__u8 name[NAME_MAX + 9];
	struct key ends;                 // as in `marks`
	struct opening openings[OPENINGS];
	struct flow fresh;               // what begins with a SYN; but for its number and the time all zero
};

struct map flows SECTION("maps") = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct key), sizeof(struct flow), 1, 0};
struct map engine SECTION("maps") = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct key), 8, 1, 0};
struct map hellos SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct hello), 1, BPF_F_MMAPABLE};
// Of each place of a hello that is not whole, apart from that for all SYNs ask it: nanoseconds until which no other
// takes it; 0: it is free.
struct map parts SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0};
struct map filters SECTION("maps") = {BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 2, 0};
struct map marks SECTION("maps") = {BPF_MAP_TYPE_LRU_HASH, sizeof(struct key), sizeof(struct mark), 1, 0};
struct map settings SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, sizeof(struct settings), 1, 0};
struct map scratches SECTION("maps") = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(struct scratch), 1, 0};
struct map outcomes SECTION("maps") = {BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, OUTCOMES, 0};
struct map classes SECTION("maps") = {BPF_MAP_TYPE_ARRAY, 4, 256, 1, 0};    // byte -> lower case, 0 if not plain

static void *(*look_up)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*update)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*load_bytes)(const void *skb, __u32 at, void *to, __u32 size) = (void *)BPF_FUNC_skb_load_bytes;
static __u64 (*nanoseconds)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u64 (*coarse_nanoseconds)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static __u32 (*cpu_number)(void) = (void *)BPF_FUNC_get_smp_processor_id;
static long (*look_up_route)(void *skb, struct bpf_fib_lookup *of, int n, __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long (*xfrm_state)(void *skb, __u32 at, void *of, __u32 n, __u64 flags) = (void *)BPF_FUNC_skb_get_xfrm_state;
static long (*redirect)(__u32 device, __u64 flags) = (void *)BPF_FUNC_redirect;

INLINE int count(enum outcome what)
{
	__u32 at = what;
	__u64 *counter = look_up(&outcomes, &at);

	if (counter)
		*counter += 1;
	return what <= PASSED_REQUEST ? PASS : QUEUE;
}
