// What runs in the kernel for a packet: the first stage, flow marks without conntrack, the shortcut (`carry`). The
// last two have heads of their own, below. What follows here is about the first: which client packets of undecided
// TCP flows need not go to user space at all.
//
// Comes in: one packet, from its IP header on, that the kernel rules are about to queue (iptables, `-m bpf`).
// Goes out: 1, it may pass; 0, the queue. Never here: a packet dropped, a flow released, a name that is certainly
// listed: this stage says "certainly not" or "ask".
//
// Why nothing gets through that the engine would block. A flow is either the kernel's or the engine's, never both.
//
//   The kernel's: all it has let by is one to SYNS SYNs without data (their destination is in no list) and, behind
//   each, at most one ClientHello that begins exactly at the SYN's sequence number + 1, lies in one record and in one
//   to PIECES packets, each exactly behind the one before, ends with the last, and whose one name and parent domains
//   are not in the filter. All of that is remembered: the sequence numbers in `flows`, the bytes in `hellos`, and
//   where the packets were cut.
//
//   Of a hello in pieces the first ones pass as soon as they are certainly the beginning of one, and what they have of
//   a name is judged. A server can serve nothing on them: it answers a whole hello, and the piece that makes it whole
//   passes only when the whole has been judged as one in a single packet is. Until then nothing else of the flow
//   passes, not the same bytes again, no other SYN, no other hello: such a packet makes the flow the engine's, which
//   is told the pieces in the packets in which they came. These bytes are not to be forgotten before the rest comes,
//   or the engine would read the rest alone. So no other hello takes their place for as long as the engine would
//   remember a part of a message (`held`), and where the flow is pushed out of `flows`, user space finds them by the
//   flow's hash, and no SYN of that flow passes.
//
//   Where the flow marks are here (`requests`), one plain request of HTTP may be in the hello's place (request.h). Its
//   flow is marked as HTTP at once, so no answer ends it. The next one passes where that has ended, and only when the
//   server has acknowledged all before it. No client can forge that, and no server reads again what it has
//   acknowledged; so it takes the last one's place, as if a SYN stood before it.
//
//   The engine's: from the first packet on that is anything else (a second packet with data, the same bytes again,
//   another SYN near the first, a piece out of order, a name that may be listed, an urgent pointer, ...), and for
//   good. Before the engine judges that packet, user space plays to it what was remembered (source/recall.pyx). So of
//   every flow that it judges the engine knows what it would know without this stage, and in the same order.
//
// So a decoy opens nothing: it is remembered, and what comes after it goes to the engine, where the decoy is one copy
// of its bytes. What may be forgotten is the remembered itself, when a flood overflows `flows`, `engine` or `hellos`,
// or when nothing comes for `idle`: the engine then sees the flow as one that began before it (policies.midstream),
// as it does when its own table overflows.
//
// A mistake may only send too much to user space. So every check below asks "is it certain?", and whatever is
// unknown, too long, unusual or damaged goes to the queue. The checksum is not looked at: a packet whose checksum is
// wrong is dropped by the server, and to remember it is harmless for the reason above.

#include <linux/bpf.h>

#include "structures.h"

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
	QUEUED_PIECE,        // not one plain ClientHello, nor the beginning of one; or there is no room for its pieces
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
	RECORD_CIPHER = 20, RECORD_HANDSHAKE = 22, RECORD_DATA = 23, CLIENT_HELLO = 1, SERVER_HELLO = 2, SERVER_NAME = 0, ECH = 0xFE0D,
	IP_TCP = 6, IP_UDP = 17,
	BEHIND = 66000,              // acknowledgements that come late, as conntrack has it (MAXACKWINCONST)
	DTLS_FIRST = 20, DTLS_LAST = 22,    // first bytes of datagrams that may hold a ClientHello: policy.py
	SOON = 10,                   // seconds in which user space is told what has passed of a flow that is the engine's
	ANSWER_BYTES = 248, ANSWER_OTHER_BYTES = 768,    // policy.py has these, and why
	ANSWER_WITHIN = 1 << 16,    // of the server's first byte: a new connection's first large answer; see `answered`
};

// ---- maps: sizes that are 1 here are set by the loader

struct map {
	__u32 type, key_size, value_size, max_entries, flags;
};

struct header {                          // the first element of a filter; its prefixes are next, then its blocks
	__u64 secret[2];
	__u64 labels;                    // bit n: some listed host has n labels
	__u32 blocks;
	__u32 crowded;                   // listed addresses have more prefix lengths than there is room for: 1 IPv4, 2 IPv6
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

// Of one CPU. What stands here and not in variables, the verifier does not tell apart, so that it comes to an end.
struct scratch {
	__u64 now;
	__u64 turns;                     // programs that have begun on this CPU: one that was interrupted by another sees it
	struct view view;
	__u32 name_at, name_size, names, ech;
	__u32 have, from;                // bytes of a hello that have come, and those before this packet
	__u32 kind, so_far;              // what this packet is of it; whether it is one, or may become one
	__u32 at;                        // how far a request is read
	__u32 request, goes_on;          // it is a request, not a hello; its connection has had others
	__u32 mine, last;                // which of passed[] a hello is behind; the last of them
	__u32 known, read, near, bare;   // of a SYN: whether it is in passed[], with a hello, or near one; how many have none
	__u64 next;                      // hellos that this CPU has remembered
	__u64 dots;                      // in `name`
	__u64 hashes[LABELS];        // of the name behind each start
	__u64 starts[LABELS];        // of labels in `name`, last label first
	__u8 name[NAME_MAX + 9];
	struct key ends;                 // as in `marks`
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
static long (*look_up_route)(void *skb, struct bpf_fib_lookup *of, int size, __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long (*xfrm_state)(void *skb, __u32 at, void *of, __u32 size, __u64 flags) = (void *)BPF_FUNC_skb_get_xfrm_state;
static long (*redirect)(__u32 device, __u64 flags) = (void *)BPF_FUNC_redirect;

INLINE int count(enum outcome what)
{
	__u32 at = what;
	__u64 *counter = look_up(&outcomes, &at);

	if (counter)
		*counter += 1;
	return what <= PASSED_REQUEST ? PASS : QUEUE;
}

// ---- the filter: blocked Bloom, six bits of a block of 512 for each fingerprint (sieve.pyx says the same)

INLINE __u64 turn(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

#define ROUND                                                                                     \
	do {                                                                                      \
		v0 += v1; v1 = turn(v1, 13); v1 ^= v0; v0 = turn(v0, 32);                         \
		v2 += v3; v3 = turn(v3, 16); v3 ^= v2;                                            \
		v0 += v3; v3 = turn(v3, 21); v3 ^= v0;                                            \
		v2 += v1; v1 = turn(v1, 17); v1 ^= v2; v2 = turn(v2, 32);                         \
	} while (0)

#define SIPHASH_AGAIN(secret)                                                                     \
	do {                                                                                      \
		v0 = (secret)[0] ^ 0x736f6d6570736575ULL;                                         \
		v1 = (secret)[1] ^ 0x646f72616e646f83ULL;                                         \
		v2 = (secret)[0] ^ 0x6c7967656e657261ULL;                                         \
		v3 = (secret)[1] ^ 0x7465646279746573ULL;                                         \
	} while (0)

#define SIPHASH_BEGIN(secret)                                                                     \
	__u64 v0, v1, v2, v3;                                                                     \
	SIPHASH_AGAIN(secret)

#define SIPHASH_WORD(word)                                                                        \
	do {                                                                                      \
		__u64 w_ = (word);                                                                \
		v3 ^= w_;                                                                         \
		ROUND; ROUND;                                                                     \
		v0 ^= w_;                                                                         \
	} while (0)

// The first eight bytes of the 128-bit output: all that the filter needs of a fingerprint.
#define SIPHASH_END                                                                               \
	({                                                                                        \
		v2 ^= 0xee;                                                                       \
		ROUND; ROUND; ROUND; ROUND;                                                       \
		v0 ^ v1 ^ v2 ^ v3;                                                                \
	})

INLINE int holds(void *filter, const struct header *header, __u64 hash)
{
	__u32 at = 1 + PREFIXES + (__u32)((hash >> 32) * header->blocks >> 32);
	const struct block *block = look_up(filter, &at);
	__u64 all = 1;

	if (!block)
		return 1;
#pragma unroll
	for (int i = 0; i < 5; i++)
		all &= block->words[hash >> (9 * i + 6) & 7] >> (hash >> 9 * i & 63);
	hash = hash * 0x9E3779B97F4A7C15ULL >> 55;
	all &= block->words[hash >> 6 & 7] >> (hash & 63);
	return all & 1;
}

struct filters {                         // in force, and another while rules change: a name passes that is in neither
	void *map[2];
	const struct header *header[2];
};

INLINE int open_filters(struct filters *out, __u64 now)
{
	__u32 at = 0;
	const struct settings *set = look_up(&settings, &at);

	if (!set || (set->until && now > set->until))
		return 0;
	// The coming one first: it is put in force before it leaves this place, so it is seen in one or the other.
	at = 1;
	out->map[1] = look_up(&filters, &at);
	at = 0;
	out->map[0] = look_up(&filters, &at);
	if (!out->map[0])
		return 0;
	out->header[0] = look_up(out->map[0], &at);
	if (!out->header[0])
		return 0;
	out->header[1] = 0;
	if (!out->map[1])
		return 1;
	out->header[1] = look_up(out->map[1], &at);
	return out->header[1] && out->header[1]->secret[0] == out->header[0]->secret[0] &&
	       out->header[1]->secret[1] == out->header[0]->secret[1];
}

// The same of a host that has URLs in the lists: only a request shows which, so hellos are not asked about for it.
INLINE __u64 of_urls(__u64 hash)
{
	return (hash ^ hash >> 29) * MIX;
}

INLINE int may_hold(const struct filters *f, __u64 hash)
{
	if (holds(f->map[0], f->header[0], hash))
		return 1;
	return f->map[1] && f->header[1] && holds(f->map[1], f->header[1], hash);
}

// ---- packets

INLINE __u32 big16(const __u8 *p)
{
	return p[0] << 8 | p[1];
}

INLINE __u32 big32(const __u8 *p)
{
	return (__u32)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

// IPv6 extension headers: hop-by-hop, routing, fragment, authentication, destination options. core/packet.pyx has the
// same walk, with its reasons; tests/core/headers.py has the table that both pass.
INLINE int is_extension(__u32 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60;
}

INLINE __u32 extension_size(__u32 next, const __u8 *head)
{
	return next == 44 ? 8 : next == 51 ? 8 + head[1] * 4 : 8 + head[1] * 8;
}

// `start` is where the IP header is. False for what is no TCP, or what nobody reads: the engine passes it over, so it belongs to no flow.
INLINE int view_packet(struct __sk_buff *skb, __u32 start, struct view *v)
{
	__u8 head[40], tcp[20];
	__u32 length = skb->len - start, next;

	__builtin_memset(v, 0, sizeof(*v));
	if (load_bytes(skb, start, head, 20) < 0)
		return 0;
	if (head[0] >> 4 == 4) {
		if (head[9] != IP_TCP || big16(head + 6) & 0x3fff)
			return 0;
		v->at = (head[0] & 15) * 4;
		v->odd = v->at != 20 || big16(head + 2) != length;
		__builtin_memcpy(v->key.source, head + 12, 4);
		__builtin_memcpy(v->key.destination, head + 16, 4);
		v->key.family = 4;
	} else if (head[0] >> 4 == 6) {
		if (load_bytes(skb, start + 20, head + 20, 20) < 0)
			return 0;
		v->odd = big16(head + 4) + 40 != length;
		__builtin_memcpy(v->key.source, head + 8, 16);
		__builtin_memcpy(v->key.destination, head + 24, 16);
		v->key.family = 6;
		v->at = 40;
		next = head[6];
		for (int i = 0; i < MAX_EXTENSIONS; i++) {
			if (!is_extension(next))
				break;
			if (load_bytes(skb, start + v->at, tcp, 4) < 0)
				return 0;
			if (next == 44 && big16(tcp + 2) & 0xfff9)
				return 0;        // a piece, which only comes where nothing puts them together
			v->at += extension_size(next, tcp);
			next = tcp[0];
			v->odd = 1;
		}
		if (next != IP_TCP)
			return 0;
	} else {
		return 0;
	}
	if (load_bytes(skb, start + v->at, tcp, 20) < 0)
		return 0;
	__builtin_memcpy(&v->key.source_port, tcp, 4);
	v->seq = big32(tcp + 4);
	v->flags = tcp[13];
	v->at += (tcp[12] >> 4) * 4;
	if (tcp[12] >> 4 < 5 || v->at > length)
		v->odd = 1;
	v->size = length - v->at;
	v->at += start;
	return 1;
}

// ---- flows

INLINE void note_engine(const struct key *key, __u64 now)
{
	__u64 *touched = look_up(&engine, key);

	if (touched)
		*touched = now;
	else
		update(&engine, key, &now, BPF_ANY);
}

// Whether no other hello may take the place of one that is not whole.
INLINE int is_kept(__u32 place, const struct settings *set, __u64 now)
{
	__u32 at = place - first_part(set->all);
	const __u64 *until = look_up(&parts, &at);

	return until && *until > now;
}

INLINE void keep(__u32 place, const struct settings *set, __u64 until)
{
	__u32 at = place - first_part(set->all);
	__u64 *kept = look_up(&parts, &at);

	if (kept)
		*kept = until;
}

// Of a hello in pieces the flow is the engine's, or it is whole: another may take its place from then on.
INLINE void let_go(struct flow *flow, __u64 until)
{
	__u32 zero = 0, which = flow->part - 1, place;
	const struct settings *set = look_up(&settings, &zero);
	struct hello *h;

	flow->part = 0;
	if (which >= SYNS)
		return;
	place = flow->passed[which].place;
	h = look_up(&hellos, &place);
	if (h && set && h->serial == flow->passed[which].serial && is_kept(place, set, until))
		keep(place, set, until);
}

// Pieces have passed of this flow, and are not to be forgotten.
INLINE int has_part(const struct key *key, __u64 now)
{
	__u32 zero = 0, place;
	const struct settings *set = look_up(&settings, &zero);
	const struct hello *h;

	if (!set)
		return 1;
	place = place_of_part(key, set->all);
	if (!is_kept(place, set, now))
		return 0;
	h = look_up(&hellos, &place);
	if (!h)
		return 0;
	const __u64 *a = (const __u64 *)key, *b = (const __u64 *)&h->key;
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]));
}

INLINE void hand_over(struct flow *flow)
{
	__sync_fetch_and_add(&flow->handed, 1);
}

// Whether this packet may change the flow; one that finds another at work makes the flow the engine's.
INLINE int lock(struct flow *flow, __u32 *head)
{
	*head = flow->head;
	if (!(*head & 1) && __sync_val_compare_and_swap(&flow->head, *head, *head + 1) == *head)
		return 1;
	hand_over(flow);
	return 0;
}

INLINE void unlock(struct flow *flow, __u32 head)
{
	__sync_lock_test_and_set(&flow->tail, head + 2);
	__sync_lock_test_and_set(&flow->head, head + 2);
}

INLINE int is_past(__u64 touched, __u64 now)
{
	__u32 zero = 0;
	const struct settings *set = look_up(&settings, &zero);

	return set && now > touched && now - touched > set->idle;
}

// The same of what may be the engine's.
INLINE int is_past_held(__u64 touched, __u64 now, __u64 handed)
{
	__u32 zero = 0;
	const struct settings *set = look_up(&settings, &zero);

	return set && now > touched && now - touched > (handed ? set->held : set->idle);
}

INLINE int may_hold_address(void *filter, const struct header *header, const struct key *key)
{
	// The keys are those of blocklist/matcher.pyx: 0, prefix length, masked address, and once more with the port.
	__u64 high = *(const __u64 *)key->destination, low = *(const __u64 *)(key->destination + 8);
	__u64 port = key->destination_port, last;
	__u32 six = key->family == 6;

	if (header->crowded >> six & 1)
		return 1;
	for (__u32 i = 0; i < PREFIXES; i++) {
		__u32 at = 1 + six * (PREFIXES / 2) + i / 2;
		const struct prefixes *found = look_up(filter, &at);

		if (!found)
			return 1;
		const struct prefix *prefix = &found->prefix[i & 1];

		if (!prefix->used)
			return 0;
		__u64 a = high & prefix->high, b = low & prefix->low, bits = prefix->bits;
		SIPHASH_BEGIN(header->secret);
		if (six) {
			SIPHASH_WORD(bits << 8 | a << 16);
			SIPHASH_WORD(a >> 48 | b << 16);
			SIPHASH_WORD(b >> 48 | 18ULL << 56);
			if (holds(filter, header, SIPHASH_END))
				return 1;
			if (bits == 128) {
				SIPHASH_AGAIN(header->secret);
				SIPHASH_WORD(bits << 8 | a << 16);
				SIPHASH_WORD(a >> 48 | b << 16);
				SIPHASH_WORD(b >> 48 | port << 16 | 20ULL << 56);
				if (holds(filter, header, SIPHASH_END))
					return 1;
			}
		} else {
			last = bits << 8 | (a << 16 & 0xFFFFFFFF0000ULL);
			SIPHASH_WORD(last | 6ULL << 56);
			if (holds(filter, header, SIPHASH_END))
				return 1;
			if (bits == 32) {
				SIPHASH_AGAIN(header->secret);
				SIPHASH_WORD(last | port << 48);
				SIPHASH_WORD(8ULL << 56);
				if (holds(filter, header, SIPHASH_END))
					return 1;
			}
		}
	}
	return 0;
}

INLINE int may_be_listed(const struct key *key, __u64 now)
{
	struct filters f;

	if (!open_filters(&f, now) || may_hold_address(f.map[0], f.header[0], key))
		return 1;
	return f.map[1] && f.header[1] && may_hold_address(f.map[1], f.header[1], key);
}

// A share of the connections is the engine's from their first packet on, so that it sees what is behind destinations.
INLINE int is_sampled(const struct key *key)
{
	__u32 zero = 0;
	const struct settings *set = look_up(&settings, &zero);
	const __u64 *source = (const __u64 *)key->source, *destination = (const __u64 *)key->destination;
	__u64 hash;

	if (!set || !set->learns)
		return 0;
	hash = set->secret;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		hash = (hash ^ (i < 2 ? source[i] : destination[i - 2])) * MIX;
		hash ^= hash >> 32;
	}
	hash = (hash ^ ((__u64)__builtin_bswap16(key->source_port) << 16 |
			__builtin_bswap16(key->destination_port))) * MIX;
	return (__u32)(hash >> 32) <= set->sample;
}

INLINE enum outcome judge_syn(struct scratch *s, const struct key *key, __u64 now)
{
	const struct view *v = &s->view;
	struct flow *flow = look_up(&flows, key);
	enum outcome what = PASSED_SYN;
	__u64 handed;
	__u32 head, n;

	if (v->odd || (v->flags & (FIN | SYN | RST | ACK | URG)) != SYN || v->size)
		what = QUEUED_ODD;
	else if (may_be_listed(key, now))
		what = QUEUED_ADDRESS;
	else if (is_sampled(key))
		what = QUEUED_SAMPLE;
	if (!flow) {
		// What the engine holds outlives what is remembered here, so ask for it before a flow becomes the kernel's.
		__u64 *touched = look_up(&engine, key);

		if (what == PASSED_SYN && ((touched && !is_past_held(*touched, now, 1)) || has_part(key, now)))
			what = QUEUED_WATCHED;
		if (what != PASSED_SYN)
			return what;
		s->fresh.count = 1;
		s->fresh.touched = now;
		s->fresh.passed[0].isn = v->seq;
		if (update(&flows, key, &s->fresh, BPF_NOEXIST) == 0)
			return PASSED_SYN;
		flow = look_up(&flows, key);     // another CPU was first, or there is no room
		if (flow)
			hand_over(flow);
		return QUEUED_WATCHED;
	}
	handed = flow->handed;
	MEMORY_BARRIER();
	if (!lock(flow, &head))
		return QUEUED_WATCHED;
	if (is_past_held(flow->touched, now, handed | flow->part)) {
		flow->count = flow->part = flow->http = 0;
		__sync_val_compare_and_swap(&flow->handed, handed, 0);   // another packet may have handed it over meanwhile
	}
	flow->touched = now;
	if (flow->handed)
		what = what == PASSED_SYN ? QUEUED_WATCHED : what;
	else if (what == PASSED_SYN) {
		// The same SYN again is nothing new. Another is remembered too: the client may speak on either connection.
		// More of them without a hello than the engine reads from are a crowd, which it must know of itself.
		s->known = s->read = s->near = s->bare = 0;
		n = flow->count;
		for (__u32 i = 0; i < SYNS; i++) {
			if (i >= n)
				break;
			__u32 ahead = v->seq - flow->passed[i].isn;
			if (ahead == 0) {
				s->known = 1;
				if (flow->passed[i].size)
					s->read = 1;
			}
			if (ahead < NEAR || -ahead < NEAR)
				s->near = 1;
			if (!flow->passed[i].size)
				s->bare += 1;
		}
		MEMORY_BARRIER();
		n = flow->count;
		if (s->known) {
			if (s->read && n > STARTS)   // the engine may have given that one up, and now begins it again
				what = QUEUED_LATER;
		} else {
			if (s->near || s->bare >= STARTS || n >= SYNS || flow->part) {
				what = QUEUED_LATER;
			} else {
				struct passed one = {.isn = v->seq};
				flow->passed[n] = one;
				flow->count = n + 1;
			}
		}
	}
	if (what != PASSED_SYN) {
		hand_over(flow);
		let_go(flow, now + SOON * SECOND);
	}
	unlock(flow, head);
	return what;
}

// ---- hellos

INLINE __u32 u8_at(const struct hello *h, __u32 at)
{
	return h->data[at & (HELLO_MAX - 1)];
}

INLINE __u32 u16_at(const struct hello *h, __u32 at)
{
	at &= HELLO_MAX - 1;
	return h->data[at] << 8 | h->data[at + 1];
}

INLINE enum outcome judge_name(struct scratch *s, const struct hello *h)
{
	struct filters f;
	__u32 zero = 0, from = s->name_at, size = s->name_size;
	__u64 n = 0, labels, end;
	const __u8 *class = look_up(&classes, &zero);

	if (!class || !open_filters(&f, s->now))
		return QUEUED_NO_FILTER;
	labels = f.header[0]->labels;
	if (f.header[1])
		labels |= f.header[1]->labels;
	if (size && u8_at(h, from + size - 1) == '.')
		size--;
	if (size == 0 || size > NAME_MAX)
		return QUEUED_ODD_NAME;
	// From the last byte to the first, so that labels come in the order in which they are needed.
	__u64 bad = 0;
	for (__u32 i = 0; i < NAME_MAX; i++) {
		if (i >= size)
			break;
		__u32 at = size - 1 - i;
		__u64 c = class[u8_at(h, from + at)];
		bad |= c - 1;                             // the top bit: a byte that is not plain
		s->name[at & 127] = c;
		s->starts[n & 7] = at + 1;
		n += ((c ^ '.') - 1) >> 63;
	}
	if (bad >> 63 || n >= LABELS)
		return QUEUED_ODD_NAME;
	s->starts[n & 7] = 0;
	s->dots = n;
	s->name_size = size;
	MEMORY_BARRIER();
	n = s->dots;
	end = size = s->name_size;
	for (__u32 k = 0; k < LABELS; k++) {
		if (k > n)
			break;
		__u64 start = s->starts[k & 7], length = end - start;
		if (length == 0 || length > 63)
			return QUEUED_ODD_NAME;
		__u32 first = s->name[start & 127];
		if (k == 0 && first >= '0' && first <= '9')
			return QUEUED_ODD_NAME;           // an address, however it is written
		end = start - 1;
		if (!(labels >> (k + 1) & 1))
			continue;
		__u32 left = size - start, at = start;
		SIPHASH_BEGIN(f.header[0]->secret);
		for (int w = 0; w < NAME_MAX / 8; w++) {
			if (left < 8)
				break;
			SIPHASH_WORD(*(__u64 *)(s->name + (at & 127)));
			at += 8;
			left -= 8;
		}
		__u64 last = *(__u64 *)(s->name + (at & 127));
		last &= (1ULL << (8 * (left & 7))) - 1;
		SIPHASH_WORD(last | (__u64)(size - start) << 56);
		s->hashes[k & 7] = SIPHASH_END;
	}
	MEMORY_BARRIER();
	for (__u32 k = 0; k < LABELS; k++) {
		if (k > n)
			break;
		if (labels >> (k + 1) & 1 && may_hold(&f, s->hashes[k & 7]))
			return QUEUED_NAME;
	}
	MEMORY_BARRIER();
	n = s->dots & (LABELS - 1);
	if (s->request && labels >> (n + 1) & 1 && may_hold(&f, of_urls(s->hashes[n])))
		return QUEUED_NAME;
	return PASSED_HELLO;
}

// What is no hello, or ends behind `end`, is not read; one of which more is to come, as far as it has come.
#define NEED(size)                                                                                \
	do {                                                                                      \
		if (at + (size) > have)                                                           \
			return at + (size) > end ? QUEUED_PIECE : PASSED_PIECE;                   \
	} while (0)

// RFC 8446, sections 5.1 and 4.1.2. Everything must end exactly where the record does.
INLINE enum outcome read_hello(struct scratch *s, const struct hello *h)
{
	__u32 have = s->have, at, end;

	s->names = s->ech = 0;
	if (have < 6 || h->data[0] != RECORD_HANDSHAKE || h->data[1] != 3)
		return QUEUED_OTHER;
	end = 5 + u16_at(h, 3);
	if (have < 9 || have > end || end > HELLO_MAX || h->data[5] != CLIENT_HELLO || h->data[6] ||
	    u16_at(h, 7) != end - 9)
		return QUEUED_PIECE;
	at = 9 + 34;
	NEED(1);
	at += 1 + u8_at(h, at);                  // session id
	NEED(2);
	at += 2 + u16_at(h, at);                 // cipher suites
	NEED(1);
	at += 1 + u8_at(h, at);                  // compression
	if (at == end && have == end)
		return PASSED_HELLO;
	NEED(2);
	if (at + 2 + u16_at(h, at) != end)
		return QUEUED_PIECE;
	at += 2;
	for (int i = 0; i < EXTENSIONS; i++) {
		if (at == end)
			break;
		NEED(4);
		__u32 type = u16_at(h, at), length = u16_at(h, at + 2);
		at += 4;
		if (at + length > end)
			return QUEUED_PIECE;
		if (type == ECH)
			s->ech = 1;
		if (type == SERVER_NAME) {
			// One list of one name, of type host name.
			if (length < 6)
				return QUEUED_PIECE;
			NEED(5);
			if (u16_at(h, at) != length - 2 || u8_at(h, at + 2) || u16_at(h, at + 3) != length - 5)
				return QUEUED_PIECE;
			NEED(length);
			s->names++;
			s->name_at = at + 5;
			s->name_size = length - 5;
		}
		at += length;
		NEED(0);
	}
	return at == end ? PASSED_HELLO : QUEUED_PIECE;
}

INLINE enum outcome judge_hello(struct scratch *s, const struct hello *h, __u32 queue_ech)
{
	enum outcome what = read_hello(s, h);

	if (what > PASSED_REQUEST)
		return what;
	s->so_far = what;
	MEMORY_BARRIER();
	if (s->names > 1)
		return QUEUED_PIECE;
	if (s->ech && queue_ech)
		return QUEUED_ECH;
	if (!s->names && s->so_far == PASSED_HELLO)
		return QUEUED_NO_NAME;
	return s->so_far;
}

#include "request.h"

// For one that is whole, and its number there: those of this CPU come round.
INLINE __u32 next_place(const struct scratch *s, const struct settings *set, __u32 *serial)
{
	*serial = (__u32)(s->next & 0x7FFFFFFF) + 1;
	return cpu_number() * set->places + (__u32)(s->next % set->places);
}

// The packet's bytes, behind those that have come. The masks are for the verifier, which forgets comparisons and does
// not see that there is room: `from` and `size` are HELLO_MAX together at most.
INLINE int take_bytes(struct __sk_buff *skb, struct hello *h, __u32 at, __u32 size, __u32 from)
{
	__u64 rest = size - 1;

	if (!from) {
		asm volatile("%0 &= %1" : "+r"(rest) : "i"(HELLO_MAX - 1));
		return load_bytes(skb, at, h->data, rest + 1) == 0;
	}
	for (__u32 i = 0; i < HELLO_MAX / CHUNK; i++) {
		if (size <= CHUNK)
			break;
		if (load_bytes(skb, at, h->data + (from & (HELLO_MAX - 1)), CHUNK) < 0)
			return 0;
		at += CHUNK;
		from += CHUNK;
		size -= CHUNK;
	}
	rest = size - 1;
	asm volatile("%0 &= %1" : "+r"(rest) : "i"(CHUNK - 1));
	return load_bytes(skb, at, h->data + (from & (HELLO_MAX - 1)), rest + 1) == 0;
}

INLINE enum outcome judge_data(struct __sk_buff *skb, struct scratch *s, const struct key *key, __u64 turn, __u64 now,
			       int http)
{
	const struct view *v = &s->view;
	struct flow *flow = look_up(&flows, key);
	enum outcome what = QUEUED_LATER;
	__u32 zero = 0, head, n, mine, place, serial, was, from, part, end, left;
	struct settings *set = look_up(&settings, &zero);
	struct hello *h;
	__u8 first[6];

	if (!flow || !set)
		return QUEUED_UNKNOWN;
	if (!lock(flow, &head))
		return QUEUED_WATCHED;
	if (is_past_held(flow->touched, now, flow->handed | flow->part))
		flow->count = flow->part = flow->http = 0;
	flow->touched = now;
	if (flow->handed) {
		what = QUEUED_WATCHED;
		goto out;
	}
	n = flow->count;
	part = flow->part;
	s->mine = SYNS;
	s->request = s->goes_on = 0;
	for (__u32 i = 0; i < SYNS; i++) {
		if (i >= n)
			break;
		if (part ? part == i + 1 && v->seq == flow->passed[i].isn + 1 + flow->passed[i].size
			 : v->seq == flow->passed[i].isn + 1 && !flow->passed[i].size)
			s->mine = i;
	}
	MEMORY_BARRIER();
	if (http && !part && s->mine >= SYNS)
		go_on(s, flow, key);
	MEMORY_BARRIER();
	mine = s->mine;
	if (mine >= SYNS)
		goto out;
	if (v->odd || (v->flags & (FIN | SYN | RST | ACK | URG)) != ACK) {
		what = QUEUED_ODD;
		goto out;
	}
	if (part) {
		s->kind = GOES_ON;
		s->from = flow->passed[mine].size;
		place = flow->passed[mine].place;
		serial = flow->passed[mine].serial;
	} else {
		what = QUEUED_OTHER;
		if (load_bytes(skb, v->at, first, sizeof(first)) < 0)
			goto out;
		s->from = 0;
		s->kind = WHOLE;
		if (http && first[0] != RECORD_HANDSHAKE)
			s->request = 1;
		else if (first[0] != RECORD_HANDSHAKE || first[1] != 3 || s->goes_on)
			goto out;
		else if (v->size < 5 + big16(first + 3))
			s->kind = BEGINS;
		place = next_place(s, set, &serial);
		if (s->kind == BEGINS)
			place = place_of_part(key, set->all);
	}
	MEMORY_BARRIER();
	what = QUEUED_PIECE;
	h = look_up(&hellos, &place);
	if (!h)
		goto out;
	was = h->serial;
	part = s->kind;
	if (was == CLAIMED || (part == GOES_ON && was != serial) || (part == BEGINS && is_kept(place, set, now)) ||
	    __sync_val_compare_and_swap(&h->serial, was, CLAIMED) != was)
		goto out;
	if (part == BEGINS) {
		serial = was % 0x7FFFFFFF + 1;
		h->size = 0;                     // what it says of another flow is over
	} else if (part == GOES_ON && h->cuts[PIECES - 2]) {
		goto release;
	}
	s->have = s->from + v->size;
	MEMORY_BARRIER();
	if (s->have > HELLO_MAX || v->size > HELLO_MAX || !take_bytes(skb, h, v->at, v->size, s->from))
		goto release;
	MEMORY_BARRIER();
	if (http && s->request)
		s->so_far = what = judge_request(s, h);
	else
		what = judge_hello(s, h, set->queue_ech);
	if (what > PASSED_REQUEST)
		goto release;
	MEMORY_BARRIER();
	if (s->names)
		what = judge_name(s, h);
	if (http && what == PASSED_HELLO && s->request && !begin_http(s, flow, key))
		what = QUEUED_OTHER;
	if (what > PASSED_REQUEST)
		goto release;
	MEMORY_BARRIER();
	part = s->so_far == PASSED_PIECE;
	from = s->from;
	end = s->have;
	mine = s->mine;
	MEMORY_BARRIER();
	if (s->turns != turn) {      // interrupted by another packet, which has used the same memory
		what = QUEUED_WATCHED;
		goto release;
	}
	if (!from) {
		h->isn = v->seq - 1;
		h->key = *key;
		for (int i = 0; i < PIECES - 1; i++)
			h->cuts[i] = 0;
	} else {
		for (int i = 0; i < PIECES - 1; i++) {
			if (!h->cuts[i]) {
				h->cuts[i] = from;
				break;
			}
		}
	}
	h->size = end;
	if (from && !part) {
		// Whole now: it goes to the others, so that the next one of this flow does not take its place.
		left = place;
		place = next_place(s, set, &was);
		struct hello *to = look_up(&hellos, &place);

		what = QUEUED_WATCHED;
		if (!to)
			goto release;
		end = to->serial;
		if (end == CLAIMED || __sync_val_compare_and_swap(&to->serial, end, CLAIMED) != end)
			goto release;
		update(&hellos, &place, h, BPF_ANY);
		h->size = 0;
		keep(left, set, 0);
		__sync_lock_test_and_set(&h->serial, serial);
		h = to;
		serial = was;
		end = s->have;
	}
	if (part)
		keep(place, set, now + set->held);
	what = part ? PASSED_PIECE : s->request ? PASSED_REQUEST : PASSED_HELLO;
	s->next += !part;
	if (mine < SYNS) {
		struct passed one = {.isn = h->isn, .size = end, .serial = serial, .place = place,
				     .after = from ? flow->passed[mine].after : n};
		flow->passed[mine] = one;
		flow->part = part ? mine + 1 : 0;
	}
release:
	__sync_lock_test_and_set(&h->serial, serial);
out:
	if (what > PASSED_REQUEST) {
		hand_over(flow);
		let_go(flow, now + SOON * SECOND);
	}
	unlock(flow, head);
	return what;
}

INLINE int judge(struct __sk_buff *skb, int http)
{
	__u32 zero = 0;
	struct scratch *s = look_up(&scratches, &zero);
	enum outcome what;
	__u64 now, turn;

	if (!s)
		return QUEUE;
	turn = s->turns += 1;
	MEMORY_BARRIER();
	if (!view_packet(skb, 0, &s->view))
		return count(QUEUED_ODD);
	MEMORY_BARRIER();
	if (!s->view.size && !(s->view.flags & (SYN | URG)))
		return count(QUEUED_ODD);            // says nothing, whosever the flow is
	struct key key = s->view.key;
	now = s->now = nanoseconds();
	if (s->view.flags & SYN)
		what = judge_syn(s, &key, now);
	else
		what = judge_data(skb, s, &key, turn, now, http);
	MEMORY_BARRIER();
	if (s->turns != turn) {
		struct flow *flow = look_up(&flows, &key);

		what = QUEUED_WATCHED;
		if (flow)
			hand_over(flow);
	}
	if (what > PASSED_REQUEST)
		note_engine(&key, now);
	return count(what);
}

SECTION("socket") int first_stage(struct __sk_buff *skb)
{
	return judge(skb, 0);
}

// The same where the flow marks are here, too: only then can a request pass, for its flow has to be marked at once, and
// only then are the server's acknowledgements seen.
SECTION("requests") int first_stage_of_requests(struct __sk_buff *skb)
{
	return judge(skb, 1);
}

// ---- flow marks, where conntrack is not to keep them (`kernel = "marks"`): five programs, a map of their own
//
// Comes in: one TCP or UDP packet of either direction. Goes out: 1, what is asked is so, or has been done; 0, it is not,
// or the packet cannot be read with certainty. A 0 never takes a client's packet past the queue.
//
// A flow is known by its two ends, whichever sends: the higher one is first in the key, so that nobody has to tell the
// client from the server. Who is not in the map is undecided.
//
// Without conntrack nothing says which packets belong to a connection, only which ends they have. So a SYN makes the
// flow undecided, whatever it was, and an answer ends it only if the server has acknowledged that SYN, and the answer
// lies behind its own. Else what is still on its way of the connection before would release the new one: a client that
// is being answered only had to reset that connection and to connect again from the same port. Flows whose SYN nobody
// has seen, or that have been forgotten, are ended by any answer.

struct ends {
	struct key key;                  // the family has the protocol above it
	__u32 seq, ack;
	__u32 at;                        // of the payload
	__u8 flags;
	__u8 tcp;
	__u8 from;                       // 1: the higher end sends, 2: the lower one
};

// `start` is where the IP header is.
INLINE int view_ends(struct __sk_buff *skb, __u32 start, struct ends *e)
{
	__u8 head[40], next_head[16];
	__u32 length = skb->len, at, next, first = 0, second = 0;
	__u64 a[2] = {}, b[2] = {}, turned;

	__builtin_memset(e, 0, sizeof(*e));
	if (load_bytes(skb, start, head, 20) < 0)
		return 0;
	if (head[0] >> 4 == 4) {
		if (big16(head + 6) & 0x3fff)
			return 0;
		at = start + (head[0] & 15) * 4;
		next = head[9];
		__builtin_memcpy(&first, head + 12, 4);
		__builtin_memcpy(&second, head + 16, 4);
		a[0] = first;
		b[0] = second;
		e->key.family = 4;
	} else if (head[0] >> 4 == 6) {
		if (load_bytes(skb, start + 20, head + 20, 20) < 0)
			return 0;
		__builtin_memcpy(a, head + 8, 16);
		__builtin_memcpy(b, head + 24, 16);
		e->key.family = 6;
		at = start + 40;
		next = head[6];
		for (int i = 0; i < MAX_EXTENSIONS; i++) {
			if (!is_extension(next))
				break;
			if (load_bytes(skb, at, next_head, 4) < 0)
				return 0;
			if (next == 44 && big16(next_head + 2) & 0xfff9)
				return 0;        // a piece
			at += extension_size(next, next_head);
			next = next_head[0];
		}
	} else {
		return 0;
	}
	if (next == IP_TCP) {
		if (load_bytes(skb, at, next_head, 16) < 0)
			return 0;
		if (next_head[12] >> 4 < 5 || at + (next_head[12] >> 4) * 4 > length)
			return 0;
		e->tcp = 1;
		e->at = at + (next_head[12] >> 4) * 4;
		e->seq = big32(next_head + 4);
		e->ack = big32(next_head + 8);
		e->flags = next_head[13];
	} else if (next == IP_UDP) {
		if (load_bytes(skb, at, next_head, 8) < 0)
			return 0;
		e->at = at + 8;
	} else {
		return 0;
	}
	e->key.family |= next << 8;
	// Compared as they lie in memory; source/marking.pyx does the same.
	__u16 a_port = *(__u16 *)next_head, b_port = *(__u16 *)(next_head + 2);
	turned = a[0] != b[0] ? a[0] < b[0] : a[1] != b[1] ? a[1] < b[1] : a_port < b_port;
	if (turned) {
		__builtin_memcpy(e->key.source, b, 16);
		__builtin_memcpy(e->key.destination, a, 16);
		e->key.source_port = b_port;
		e->key.destination_port = a_port;
		e->from = 2;
	} else {
		__builtin_memcpy(e->key.source, a, 16);
		__builtin_memcpy(e->key.destination, b, 16);
		e->key.source_port = a_port;
		e->key.destination_port = b_port;
		e->from = 1;
	}
	return 1;
}

// Of UDP nothing else ends a block: no SYN says that the ports have come round again.
INLINE int is_stale(const struct mark *mark, const struct ends *e, __u64 now)
{
	return (mark->what == DONE || (mark->what == BLOCKED && !e->tcp)) && is_past(mark->touched, now);
}

INLINE struct mark *mark_of(struct __sk_buff *skb, struct ends *e)
{
	return view_ends(skb, 0, e) ? look_up(&marks, &e->key) : 0;
}

INLINE int has_mark(struct mark *mark, const struct ends *e, __u32 what)
{
	__u64 now = coarse_nanoseconds();

	if (mark->what != what || is_stale(mark, e, now))
		return 0;
	if (now > mark->touched && now - mark->touched > SECOND)    // not with every packet: other CPUs read it, too
		mark->touched = now;
	return 1;
}

// Data with which the client shows that he hears the server. Who does not can say any of 2^32 numbers.
INLINE int acknowledges(const struct mark *mark, const struct ends *e)
{
	__u32 from = mark->acknowledged - BEHIND;

	return mark->reopened == e->from && !mark->waiting && (e->flags & (SYN | RST | ACK)) == ACK &&
	       e->ack - from <= mark->server_end - from;
}

// The server's answer to a SYN. In a connection that lives it answers one without a SYN of its own (RFC 5961, 4).
INLINE void accept(struct mark *mark, const struct ends *e)
{
	if (mark->waiting) {
		if (e->from == mark->reopened || (e->ack != mark->isn + 1 && e->ack != mark->next_isn + 1))
			return;
	} else if (!mark->next_from || e->from == mark->next_from || e->seq == mark->server_isn) {
		return;
	} else {
		mark->reopened = mark->next_from;
		mark->came_by[0] = mark->came_by[1] = 0;
		if (mark->what == DONE || mark->what == HTTP)
			__sync_lock_test_and_set(&mark->what, UNDECIDED);
	}
	mark->isn = e->ack - 1;
	mark->server_isn = e->seq;
	mark->server_end = mark->acknowledged = e->seq + 1;
	mark->server_acknowledged = e->ack;
	mark->next_from = 0;
	mark->answered = 1;
	MEMORY_BARRIER();
	mark->waiting = 0;
}

INLINE void follow(struct mark *mark, const struct ends *e, __u32 size)
{
	__u32 end = e->seq + size + (e->flags & FIN);

	if (!mark->reopened || mark->waiting || e->flags & (SYN | RST))
		return;
	if (e->from != mark->reopened) {
		// In order only: what is still on its way of the connection before has other numbers.
		if (e->flags & ACK && e->seq == mark->server_end && (__s32)(e->ack - mark->server_acknowledged) > 0)
			mark->server_acknowledged = e->ack;
		if ((__s32)(end - mark->server_end) > 0)
			mark->server_end = end;
	} else if (acknowledges(mark, e) && (__s32)(e->ack - mark->acknowledged) > 0) {
		mark->acknowledged = e->ack;
	}
}

// Undecided, and the server has answered the newest SYN: from here on packets may be carried (`carry`).
INLINE int is_established(const struct mark *mark, const struct ends *e)
{
	return e->tcp && mark->what == UNDECIDED && mark->reopened && !mark->waiting;
}

SECTION("done") int is_done(struct __sk_buff *skb)
{
	struct ends e;
	int done;
	struct mark *mark = mark_of(skb, &e);

	if (!mark)
		return 0;
	if (e.tcp && (e.flags & (SYN | ACK)) == (SYN | ACK))
		accept(mark, &e);
	if (e.tcp && mark->what != DONE)
		follow(mark, &e, skb->len - e.at);
	done = has_mark(mark, &e, DONE);
	if (!done && (!is_established(mark, &e) || (e.flags & (SYN | ACK)) == SYN))
		return 0;
	// To the interfaces it came as it comes here.
	if (mark->came_by[e.from & 1] == skb->ingress_ifindex && skb->ingress_ifindex)
		mark->came_by[e.from & 1] |= CAME_THROUGH;
	return done;
}

SECTION("blocked") int is_blocked(struct __sk_buff *skb)
{
	struct ends e;
	struct mark *mark = mark_of(skb, &e);

	return mark && has_mark(mark, &e, BLOCKED);
}

// An answer ends an undecided flow if it is one to the newest SYN, of which the server has heard.
INLINE int settle(struct mark *mark, const struct ends *e, __u64 now)
{
	if (mark->reopened && (mark->waiting || e->from == mark->reopened ||
			       e->seq - (mark->server_isn + 1) >= ANSWER_WITHIN))
		return 0;
	mark->touched = now;
	mark->answered = 1;
	return __sync_val_compare_and_swap(&mark->what, UNDECIDED, DONE) == UNDECIDED;
}

// The rule has seen to it that it is the server's and long enough. Marks the flow done, if it is undecided.
SECTION("answered") int mark_done(struct __sk_buff *skb)
{
	struct mark *mark, fresh = {.what = DONE, .answered = 1};
	struct ends e;
	__u64 now = coarse_nanoseconds();

	if (!view_ends(skb, 0, &e))
		return 0;
	mark = look_up(&marks, &e.key);
	if (!mark) {
		fresh.touched = now;
		return update(&marks, &e.key, &fresh, BPF_NOEXIST) == 0;
	}
	if (mark->what == UNDECIDED)
		return settle(mark, &e, now);
	if (!is_stale(mark, &e, now))
		return 0;
	mark->touched = now;
	__u32 what = mark->what;
	return __sync_val_compare_and_swap(&mark->what, what, DONE) == what;
}

SECTION("proven") int is_proven(struct __sk_buff *skb)
{
	struct ends e;
	struct mark *mark = mark_of(skb, &e);

	return mark && e.tcp && acknowledges(mark, &e);
}

// A SYN: what was decided, was decided of another connection. Remembered also where nothing was, for an answer to the
// connection before may be on its way. Anybody can send one: where the server has been heard, it counts when the server
// answers it (`accept`), and until then what stands stands. What is blocked is the engine's to judge at once.
SECTION("reopened") int reopen(struct __sk_buff *skb)
{
	struct mark *mark, fresh = {.what = UNDECIDED, .waiting = 1};
	struct ends e;

	if (!view_ends(skb, 0, &e) || !e.tcp || (e.flags & (SYN | ACK)) != SYN)
		return 0;
	mark = look_up(&marks, &e.key);
	if (!mark) {
		fresh.touched = coarse_nanoseconds();
		fresh.isn = e.seq;
		fresh.reopened = e.from;
		if (update(&marks, &e.key, &fresh, BPF_NOEXIST) == 0)
			return 1;
		mark = look_up(&marks, &e.key);  // another CPU was first
	}
	if (!mark || (mark->what == UNDECIDED && mark->reopened == e.from && mark->isn == e.seq))
		return 0;
	if (mark->what != BLOCKED && !mark->waiting && mark->answered) {
		mark->next_isn = e.seq;
		mark->next_from = e.from;
		return 0;
	}
	mark->next_isn = mark->waiting ? mark->isn : e.seq;
	mark->next_from = 0;
	mark->isn = e.seq;
	mark->reopened = e.from;
	mark->waiting = 1;
	mark->came_by[0] = mark->came_by[1] = 0;
	__sync_lock_test_and_set(&mark->what, UNDECIDED);
	return 1;
}

// ---- the shortcut: packets from one interface to the other past the stack (`kernel = "carry"`)
//
// Comes in: a frame, where it enters the box (tc). Goes out: it leaves by the interface that the routes name, one hop
// older; or it is left alone, and takes the usual way. Never here: a packet dropped, or one carried of a flow that is
// blocked or HTTP.
//
// What it goes past are the operator's rules, address translation, and the kernel's checks of where a packet may come
// from. So a flow is carried only when packets of both directions have been seen twice, here and by the rule for done
// flows, with the same addresses and ports and from the same interface: they came the usual way, came through, and
// nobody translates them. Each has to come by the interface by which they came, and to leave by that of the other
// direction. Whatever is not plain takes the usual way: the beginning of a connection, options of IP, pieces, frames of
// other kinds, what was encrypted on the way here, what is too long for the route, the last hop.
//
// Of done flows all is carried. Of undecided ones what our rules (policy.py) certainly let by, by the same functions
// that these rules ask, so that the stack would have let by the same:
//
//   SYN, SYN-ACK, FIN, RST and URG never: they take the usual way, and so does the first packet of the client behind
//   the SYN-ACK. So the operator's firewall sees each connection begin and end.
//
//   The server's packets: rules drop them of blocked flows alone, and queue none. What an answer does to the flow
//   (`tcp_answered`) it does here, where the packet is carried; else the rule will do it.
//
//   The client's without payload (`tcp_bare`).
//
//   The client's with payload that the first stage lets by (`tcp_cleared`), of a sender who has proved his address
//   (`proven`): its own function says so and remembers them, in the same maps, whichever of the two is asked. What it
//   does not let by makes the flow the engine's, is left alone, and comes to the queue the usual way. That question is
//   the last: who is let by is carried, so that the stage is not asked a second time of the same bytes.
//
// A mark is there only if the SYN came to the client's rules, so the ports, the interfaces and the sides are theirs. A
// flow whose address is listed now has lost its mark (netfilter/cut.py). The first stage's flow is there only if no
// rule before it (`exempt_...`) let the SYN by, its destination was in no list, and the connection is in no sample.

enum { LEAVE = -1, ETHERNET = 14, V4 = 2, V6 = 10 };     // LEAVE: other filters of the interface are asked

// Where the frame would go. 0 if it is not plain, or the kernel has more to do than to send it there.
INLINE int find_route(struct __sk_buff *skb, const struct ends *e, struct bpf_fib_lookup *route)
{
	const __u8 *frame = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *ip = frame + ETHERNET;

	__builtin_memset(route, 0, sizeof(*route));
	route->ifindex = skb->ifindex;
	route->tot_len = (skb->gso_size ? skb->gso_size + e->at : skb->len) - ETHERNET;    // compared with the MTU
	route->l4_protocol = e->tcp ? IP_TCP : IP_UDP;
	// Of several routes the kernel picks by the ports.
	route->sport = e->from == 1 ? e->key.source_port : e->key.destination_port;
	route->dport = e->from == 1 ? e->key.destination_port : e->key.source_port;
	if (ip + 20 > end)
		return 0;
	if (ip[0] == 0x45) {
		if (frame[12] != 0x08 || frame[13] != 0x00 || ip[8] < 2)
			return 0;
		route->family = V4;
		route->tos = ip[1];
		__builtin_memcpy(&route->ipv4_src, ip + 12, 4);
		__builtin_memcpy(&route->ipv4_dst, ip + 16, 4);
	} else {
		if (ip + 40 > end || frame[12] != 0x86 || frame[13] != 0xdd || ip[0] >> 4 != 6 ||
		    ip[6] != route->l4_protocol || ip[7] < 2)
			return 0;
		route->family = V6;
		__builtin_memcpy(&route->flowinfo, ip, 4);
		route->flowinfo &= __builtin_bswap32(0x0fffffff);
		__builtin_memcpy(route->ipv6_src, ip + 8, 16);
		__builtin_memcpy(route->ipv6_dst, ip + 24, 16);
	}
	return look_up_route(skb, route, sizeof(*route), 0) == BPF_FIB_LKUP_RET_SUCCESS;
}

// Where what IP says ends in the frame, behind which there may be padding; 0 if the frame is shorter.
INLINE __u32 end_of(struct __sk_buff *skb, const struct bpf_fib_lookup *route)
{
	const __u8 *ip = (void *)(long)skb->data + ETHERNET, *end = (void *)(long)skb->data_end;
	__u32 at;

	if (ip + 20 > end)
		return 0;
	at = ETHERNET + (route->family == V4 ? big16(ip + 2) : big16(ip + 4) + 40);
	return at <= skb->len ? at : 0;
}

// A server's packet that says more than that it hears; netfilter/bytecode.py, `answer`, asks the same.
INLINE int is_answer(struct __sk_buff *skb, const struct ends *e)
{
	__u32 length = skb->len - ETHERNET, kind;
	__u8 begins[15];

	if (length < ANSWER_BYTES || load_bytes(skb, e->at, begins, sizeof(begins)) < 0)
		return 0;
	kind = big16(begins);
	if (kind == (RECORD_HANDSHAKE << 8 | 3))
		return begins[5] != SERVER_HELLO || big32(begins + 11) != RETRY_RANDOM;
	if (kind == (RECORD_CIPHER << 8 | 3) || kind == (RECORD_DATA << 8 | 3))
		return 1;
	kind = begins[0];
	if (kind <= 0x08 || (kind >= 0x0e && kind <= 0x13) || (kind >= 0x18 && kind <= 0x1f) || kind >= 0x7f)
		return length >= ANSWER_OTHER_BYTES;
	return 0;
}

// Of an undecided flow: whether our rules certainly let it by. Asked last, for what passes is remembered as passed.
INLINE int may_pass(struct __sk_buff *skb, struct mark *mark, const struct ends *e, __u32 size)
{
	__u32 zero = 0;
	struct scratch *s;
	enum outcome what;
	__u64 turn;

	if (!size || e->from != mark->reopened)
		return 1;
	s = look_up(&scratches, &zero);
	if (!s || !acknowledges(mark, e))
		return 0;
	turn = s->turns += 1;
	MEMORY_BARRIER();
	if (!view_packet(skb, ETHERNET, &s->view) || s->view.odd)
		return 0;                        // read once more in the stack, where it may be plain
	MEMORY_BARRIER();
	struct key key = s->view.key;
	s->now = nanoseconds();
	what = judge_data(skb, s, &key, turn, s->now, 1);
	MEMORY_BARRIER();
	if (s->turns != turn) {
		struct flow *flow = look_up(&flows, &key);

		if (flow)
			hand_over(flow);
		return 0;
	}
	return what <= PASSED_REQUEST && count(what);
}

SECTION("shortcut") int carry(struct __sk_buff *skb)
{
	struct bpf_xfrm_state decrypted;
	struct bpf_fib_lookup route;
	struct mark *mark;
	struct ends e;
	__u8 first, *frame, *ip;
	__u32 by = skb->ifindex, out, sum, size;

	if (skb->pkt_type || skb->vlan_present)  // 0: for this host's hardware address
		return LEAVE;
	if (!view_ends(skb, ETHERNET, &e))
		return LEAVE;
	if (e.tcp ? (e.flags & (SYN | ACK)) == SYN : load_bytes(skb, e.at, &first, 1) < 0 || first >= 0x80 ||
						      (first >= DTLS_FIRST && first <= DTLS_LAST))
		return LEAVE;
	mark = look_up(&marks, &e.key);
	if (!mark)
		return LEAVE;
	if (mark->came_by[e.from & 1] != (by | CAME_THROUGH)) {
		if (mark->came_by[e.from & 1] != by && xfrm_state(skb, 0, &decrypted, sizeof(decrypted), 0) < 0)
			mark->came_by[e.from & 1] = by;
		return LEAVE;
	}
	out = mark->came_by[~e.from & 1];
	if ((e.tcp && e.flags & SYN) || !(out & CAME_THROUGH) || out == (by | CAME_THROUGH))
		return LEAVE;
	out &= ~CAME_THROUGH;
	if (!has_mark(mark, &e, DONE)) {
		if (!is_established(mark, &e) || e.flags & (FIN | RST | URG))
			return LEAVE;
		if (!find_route(skb, &e, &route) || route.ifindex != out)
			return LEAVE;
		size = end_of(skb, &route);
		if (size < e.at || !may_pass(skb, mark, &e, size - e.at))
			return LEAVE;
		follow(mark, &e, size - e.at);
		if (e.from != mark->reopened && is_answer(skb, &e))
			settle(mark, &e, coarse_nanoseconds());
	} else if (!find_route(skb, &e, &route) || route.ifindex != out) {
		return LEAVE;
	}

	frame = (void *)(long)skb->data;
	ip = frame + ETHERNET;
	if (ip + 20 > (__u8 *)(long)skb->data_end)     // it is not: for the verifier
		return LEAVE;
	__builtin_memcpy(frame, route.dmac, 6);
	__builtin_memcpy(frame + 6, route.smac, 6);
	if (route.family == V4) {
		ip[8]--;                         // RFC 1141: the sum of what is one less is 0x100 more
		sum = (__u32)(ip[10] << 8 | ip[11]) + 0x100;
		sum += sum >= 0xffff;
		ip[10] = sum >> 8;
		ip[11] = sum;
	} else {
		ip[7]--;
	}
	count(CARRIED);
	return redirect(out, 0);
}

// What the loader compares with its own (structures.pyx) before it loads any program of this file.
const __u32 shared_layout[] SECTION("shared") = {LAYOUT, OUTCOMES};

char licence[] SECTION("license") = "GPL";
