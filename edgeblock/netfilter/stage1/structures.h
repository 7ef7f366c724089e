/* The structures and bounds that the programs in the kernel share with whoever reads their maps.
 *
 * Both compile this file: program.c for the kernel, structures.pyx, source/recall.pyx and source/marking.pyx for user
 * space. LAYOUT is what each has made of it; a program whose numbers differ is not loaded. Never here: code, but for
 * the one sum that both have to come to.
 */

#ifndef EDGEBLOCK_STRUCTURES_H
#define EDGEBLOCK_STRUCTURES_H

#include <linux/types.h>

enum {
	HELLO_MAX = 2048,        // a hello with post-quantum keys, in one piece after GRO, takes 1900 to 2020
	PIECES = 4,              // that one hello passes in
	CHUNK = 128,             // bytes in which a piece comes behind another
	SYNS = 12,               // ports that come round again within `idle` that often stay the kernel's
	STARTS = 4,              // as many as the engine reads from (core/starts.pxd, MAX_STARTS)
	NEAR = (1 << 20) + (1 << 16),    // what may be of one stream (MAX_AHEAD), and a packet
	MAX_EXTENSIONS = 192,    // headers of IPv6, as core/packet.pxd: the engine drops what has more
};

struct key {
	__u8 source[16], destination[16];    // IPv4 takes the first four bytes, the rest are zero
	__u16 source_port, destination_port; // as in the packet
	__u32 family;
};

struct passed {                          // a SYN that passed, and the hello or request behind it
	__u32 isn;                       // of a request that is not the first, the number before its own
	__u32 serial;                    // of the hello in its place
	__u32 place;                     // in `hellos`
	__u16 size;                      // of what has passed of the hello; 0: nothing yet
	__u16 after;                     // how many SYNs had passed before the hello
};

struct flow {
	__u32 head;                      // odd while somebody writes; a copy is whole where head and tail agree
	__u32 count;                     // of passed[]
	__u64 touched;                   // nanoseconds of the monotonic clock
	__u64 handed;                    // 0: the kernel's; else the engine's, and how often that was said
	struct passed passed[SYNS];
	__u32 tail;
	__u16 part;                      // which of passed[] has a hello not whole yet, counted from 1; 0: none
	__u16 http;                      // the same of a request; it is the last of them
};

// In most of the map those that are whole, one after the other, each CPU in a share of its own; in the last quarter
// those of which more is to come, each where the hash of its flow says.
struct hello {
	__u32 serial;                    // CLAIMED while it is written
	__u32 isn;                       // of the SYN before it
	struct key key;                  // whose it is
	__u16 size;                      // of what has come; 0: the place of one that is not whole is free
	__u16 cuts[PIECES - 1];          // where pieces end that others followed; 0: none
	__u8 data[HELLO_MAX + CHUNK];    // of the end nothing is used: what goes behind the last byte stays inside
};

struct settings {
	__u64 idle;                      // nanoseconds, for what is the kernel's
	__u64 held;                      // for what is the engine's, which holds part of a message so long
	__u32 places;                    // in `hellos`, for each CPU
	__u32 queue_ech;
	__u64 until;                     // nanoseconds of the monotonic clock, after which nothing passes; 0: no end
	__u64 secret;                    // of what nobody else is to compute: where pieces of a hello are,
	__u32 sample;                    // which connections are learnt from (core/sketch.pyx, in_sample): those
	__u32 learns;                    // whose number is not above this, where `learns` is not 0
	__u32 all;                       // places in `hellos`
	__u16 tracked;                   // conntrack is to see what is undecided: none of it is carried
	__u16 apart;                     // no interface is on both sides
};

// Of a hello, and never its number.
#define CLAIMED 0xFFFFFFFFU

static inline __attribute__((always_inline)) __u32 places_of_parts(__u32 all)
{
	return (all + 3) / 4;
}

static inline __attribute__((always_inline)) __u32 first_part(__u32 all)
{
	return all - places_of_parts(all);
}

// Where the hello of a flow is of which more is to come: both sides compute it, and nobody else can.
static inline __attribute__((always_inline)) __u32 place_of_part(const struct key *key, __u64 secret, __u32 all)
{
	const __u64 *words = (const __u64 *)key;
	__u64 hash = secret, parts = places_of_parts(all);

	for (int i = 0; i < (int)(sizeof(*key) / 8); i++) {
		hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15ULL;
		hash ^= hash >> 32;
	}
	return first_part(all) + (__u32)((hash >> 32) * parts >> 32);
}

enum what { UNDECIDED, DONE, HTTP, BLOCKED };    // as netfilter/marks.py numbers them

struct mark {                            // of a flow, both directions
	__u64 touched;                   // nanoseconds of the monotonic clock
	__u32 what;
	__u32 isn;                       // of the SYN that made it undecided
	__u32 server_isn;                // of the answer to that SYN
	__u8 reopened;                   // there was such a SYN: 1 from the higher end, 2 from the lower one
	__u8 waiting;                    // for the answer to it
	__u8 next_from;                  // the same of a later SYN, which counts when the server answers it
	__u8 answered;                   // the server has been heard: it would be heard if it began anew
	__u32 came_by[2];                // interfaces, of what the lower end sends and the higher one; see `carry`
	__u32 next_isn;
	__u32 server_end;                // how far the server has come, of what is not done,
	__u32 acknowledged;              // and what the client has acknowledged of that
	__u32 server_acknowledged;       // what the server has of the client's
	__u32 began_by;                  // the interface of the newest SYN, where no server is; 0: not known
	__u32 unused;
};

#define AT(structure, field) __builtin_offsetof(struct structure, field)
#define LAYOUT                                                                                                       \
	HELLO_MAX, PIECES, CHUNK, SYNS, STARTS, NEAR, MAX_EXTENSIONS,                                                \
	sizeof(struct key), AT(key, source), AT(key, destination), AT(key, source_port), AT(key, destination_port),  \
	AT(key, family),                                                                                             \
	sizeof(struct passed), AT(passed, isn), AT(passed, serial), AT(passed, place), AT(passed, size),             \
	AT(passed, after),                                                                                           \
	sizeof(struct flow), AT(flow, head), AT(flow, count), AT(flow, touched), AT(flow, handed), AT(flow, passed), \
	AT(flow, tail), AT(flow, part), AT(flow, http),                                                              \
	sizeof(struct hello), AT(hello, serial), AT(hello, isn), AT(hello, key), AT(hello, size),                    \
	AT(hello, cuts), AT(hello, data),                                                                            \
	sizeof(struct settings), AT(settings, idle), AT(settings, held), AT(settings, places),                       \
	AT(settings, queue_ech), AT(settings, until), AT(settings, secret), AT(settings, sample),                    \
	AT(settings, learns), AT(settings, all), AT(settings, tracked), AT(settings, apart),                         \
	UNDECIDED, DONE, HTTP, BLOCKED,                                                                              \
	sizeof(struct mark), AT(mark, touched), AT(mark, what), AT(mark, isn), AT(mark, server_isn),                 \
	AT(mark, reopened), AT(mark, waiting), AT(mark, next_from), AT(mark, answered), AT(mark, came_by),           \
	AT(mark, next_isn), AT(mark, server_end), AT(mark, acknowledged),                                            \
	AT(mark, server_acknowledged), AT(mark, began_by)

#endif
