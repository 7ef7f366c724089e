/* The structures and bounds that the programs in the kernel share with whoever reads their maps.
 *
 * Both compile this file: program.c for the kernel, structures.pyx, source/recall.pyx and source/marking.pyx for user
 * space. LAYOUT is what each has made of it; a program whose numbers differ is not loaded. Never here: code.
 */

#ifndef EDGEBLOCK_STRUCTURES_H
#define EDGEBLOCK_STRUCTURES_H

#include <linux/types.h>

enum {
	HELLO_MAX = 2048,        // a hello with post-quantum keys, in one piece after GRO, takes 1900 to 2020
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

struct passed {                          // a SYN that passed, and the hello behind it
	__u32 isn;
	__u32 serial;                    // of the hello in its place
	__u32 place;                     // in `hellos`
	__u16 size;                      // of the hello; 0: none yet
	__u16 after;                     // how many SYNs had passed before the hello
};

struct flow {
	__u32 head;                      // odd while somebody writes; a copy is whole where head and tail agree
	__u32 count;                     // of passed[]
	__u64 touched;                   // nanoseconds of the monotonic clock
	__u64 handed;                    // 0: the kernel's; else the engine's, and how often that was said
	struct passed passed[SYNS];
	__u32 tail;
	__u32 unused;
};

struct hello {
	__u32 serial;                    // 0 while it is written
	__u32 unused[3];
	__u8 data[HELLO_MAX + 64];       // the end is never written: a look behind the last byte stays inside
};

struct settings {
	__u64 idle;                      // nanoseconds, for what is the kernel's
	__u64 held;                      // for what is the engine's: it may have part of a message so long (limits.hold)
	__u32 places;                    // in `hellos`, for each CPU
	__u32 queue_ech;
	__u64 until;                     // nanoseconds of the monotonic clock, after which nothing passes; 0: no end
	__u64 secret;                    // for which connections are learnt from (core/sketch.pyx, in_sample):
	__u32 sample;                    // those whose number is not above this,
	__u32 learns;                    // where this is not 0
};

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
	__u32 unused;
};

#define AT(structure, field) __builtin_offsetof(struct structure, field)
#define LAYOUT                                                                                                        \
	HELLO_MAX, SYNS, STARTS, NEAR, MAX_EXTENSIONS,                                                                \
	sizeof(struct key), AT(key, source), AT(key, destination), AT(key, source_port), AT(key, destination_port),   \
	AT(key, family),                                                                                              \
	sizeof(struct passed), AT(passed, isn), AT(passed, serial), AT(passed, place), AT(passed, size),              \
	AT(passed, after),                                                                                            \
	sizeof(struct flow), AT(flow, head), AT(flow, count), AT(flow, touched), AT(flow, handed), AT(flow, passed),  \
	AT(flow, tail),                                                                                               \
	sizeof(struct hello), AT(hello, serial), AT(hello, data),                                                     \
	sizeof(struct settings), AT(settings, idle), AT(settings, held), AT(settings, places),                        \
	AT(settings, queue_ech), AT(settings, until), AT(settings, secret), AT(settings, sample),                     \
	AT(settings, learns),                                                                                         \
	UNDECIDED, DONE, HTTP, BLOCKED,                                                                               \
	sizeof(struct mark), AT(mark, touched), AT(mark, what), AT(mark, isn), AT(mark, server_isn),                  \
	AT(mark, reopened), AT(mark, waiting), AT(mark, next_from), AT(mark, answered), AT(mark, came_by),             \
	AT(mark, next_isn), AT(mark, server_end), AT(mark, acknowledged)

#endif
