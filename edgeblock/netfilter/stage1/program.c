// What the kernel runs for a packet: the first stage, flow marks without conntrack (marks.h), the shortcut (carry.h).
//
//   here       one packet: its place, whose turn it is, what is remembered
//   maps.h     maps, outcomes, helpers of the kernel      structures.h   what user space reads, too
//   packet.h   a packet's headers                         flows.h        whose a flow is; SYNs
//   hello.h    ClientHellos, whole and in pieces          request.h      requests of HTTP
//   sieve.h    the filter of listed names
//
// What follows here is about the first: which client packets of undecided TCP flows need not go to user space at all.
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
//   Of a hello in pieces the first ones pass as soon as they are certainly the beginning of one, and what they have
//   of a name is judged. A server can serve nothing on them: it answers a whole hello, and the piece that makes it
//   whole passes only when the whole has been judged as one in a single packet is. Until then nothing else of the
//   flow passes, not the same bytes again, no other SYN, no other hello: such a packet makes the flow the engine's,
//   which is told the pieces in the packets in which they came. These bytes are not to be forgotten before the rest
//   comes, or the engine would read the rest alone. So no other hello takes their place for as long as the engine
//   would remember a part of a message (`held`), and where the flow is pushed out of `flows`, user space finds them
//   by the flow's hash, and no SYN of that flow passes.
//
//   Where the flow marks are here (`requests`), one plain request of HTTP may be in the hello's place (request.h).
//   Its flow is marked as HTTP at once, so no answer ends it. The next one passes where that has ended, and only when
//   the server has acknowledged all before it. No client can forge that, and no server reads again what it has
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
#include "maps.h"
#include "sieve.h"
#include "packet.h"
#include "flows.h"
#include "hello.h"
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
			       int http, int carries)
{
	const struct view *v = &s->view;
	struct flow *flow = look_up(&flows, key);
	enum outcome what = QUEUED_LATER;
	__u32 zero = 0, head, n, mine, place, serial, was, from, part, end, left;
	struct settings *set = look_up(&settings, &zero);
	struct hello *h;
	__u8 first[6];
	// Segments that were merged on the way part again: a server may get one of them only.
	__u32 seam = skb->gso_size && v->size > skb->gso_size ? skb->gso_size : 0;

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
			place = place_of_part(key, set->secret, set->all);
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
	if (seam && (s->from || v->size > 2 * seam))
		goto release;                    // two from the beginning on are all that come so
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
		h->cuts[0] = seam;
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
		if (!carries)    // it may yet be dropped on its way to user space, which then hears nothing
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
		what = judge_data(skb, s, &key, turn, now, http, 0);
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

// The same where the flow marks are here, too: only then can a request pass, for its flow has to be marked at once,
// and only then are the server's acknowledgements seen.
SECTION("requests") int first_stage_of_requests(struct __sk_buff *skb)
{
	return judge(skb, 1);
}

#include "marks.h"
#include "carry.h"

// What the loader compares with its own (structures.pyx) before it loads any program of this file.
const __u32 shared_layout[] SECTION("shared") = {LAYOUT, OUTCOMES};

char licence[] SECTION("license") = "GPL";
