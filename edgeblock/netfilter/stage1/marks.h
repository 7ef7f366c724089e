/* Flow marks, where conntrack is not to keep them (`kernel = "marks"`): five programs, a map of their own.
 *
 * Comes in: one TCP or UDP packet of either direction. Goes out: 1, what is asked is so, or has been done; 0, it is
 * not, or the packet cannot be read with certainty. A 0 never takes a client's packet past the queue.
 *
 * A flow is known by its two ends, whichever sends: the higher one is first in the key, so that nobody has to tell
 * the client from the server. Who is not in the map is undecided.
 *
 * Without conntrack nothing says which packets belong to a connection, only which ends they have. So a SYN makes the
 * flow undecided, whatever it was, and an answer ends it only if the server has acknowledged that SYN, and the answer
 * lies behind its own. Else what is still on its way of the connection before would release the new one: a client
 * that is being answered only had to reset that connection and to connect again from the same port. Flows whose SYN
 * nobody has seen, or that have been forgotten, are ended by any answer.
 */

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

// Undecided or HTTP, and the server has answered the newest SYN: from here on packets may be carried (`carry`).
INLINE int is_established(const struct mark *mark, const struct ends *e)
{
	return e->tcp && (mark->what == UNDECIDED || mark->what == HTTP) && mark->reopened && !mark->waiting;
}

SECTION("done") int is_done(struct __sk_buff *skb)
{
	struct ends e;
	int done;
	struct mark *mark = mark_of(skb, &e);

	if (!mark)
		return 0;
	// With the server's address, but from where the client is: the rules that ask for interfaces come later.
	if (e.tcp && mark->began_by && mark->began_by == skb->ingress_ifindex && e.from != mark->reopened)
		return has_mark(mark, &e, DONE);
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
	return done && !(e.flags & SYN);         // what a SYN may pass is other rules' to say
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

INLINE struct opening *place_of_opening(__u32 seq)
{
	__u32 zero = 0;
	struct scratch *s = look_up(&scratches, &zero);

	return s ? &s->openings[seq & (OPENINGS - 1)] : 0;
}

// By which interface this SYN came, where the shortcut has seen it there as it is here; else 0.
INLINE __u32 came_through(struct __sk_buff *skb, const struct ends *e)
{
	struct opening *one = place_of_opening(e->seq);
	__u32 by = skb->ingress_ifindex;

	if (!one || !by || one->by != by || one->seq != e->seq || !is_same(&one->key, &e->key))
		return 0;
	one->by = 0;
	return by | CAME_THROUGH;
}

// A SYN: what was decided, was decided of another connection. Remembered also where nothing was, for an answer to the
// connection before may be on its way. Anybody can send one: where the server has been heard, it counts when the
// server answers it (`accept`), and until then what stands stands. What is blocked is the engine's to judge at once.
SECTION("reopened") int reopen(struct __sk_buff *skb)
{
	struct mark *mark, fresh = {.what = UNDECIDED, .waiting = 1};
	__u32 zero = 0;
	const struct settings *set = look_up(&settings, &zero);
	struct ends e;
	__u32 by;

	if (!view_ends(skb, 0, &e) || !e.tcp || (e.flags & (SYN | ACK)) != SYN)
		return 0;
	if (set && set->apart)
		fresh.began_by = skb->ingress_ifindex;
	by = came_through(skb, &e);
	mark = look_up(&marks, &e.key);
	if (!mark) {
		fresh.touched = coarse_nanoseconds();
		fresh.isn = e.seq;
		fresh.reopened = e.from;
		fresh.came_by[0] = e.from & 1 ? 0 : by;
		fresh.came_by[1] = e.from & 1 ? by : 0;
		if (update(&marks, &e.key, &fresh, BPF_NOEXIST) == 0)
			return 1;
		mark = look_up(&marks, &e.key);  // another CPU was first
	}
	if (!mark || (mark->what == UNDECIDED && mark->reopened == e.from && mark->isn == e.seq))
		return 0;
	mark->began_by = fresh.began_by;
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
	mark->came_by[e.from & 1] = by;
	mark->came_by[~e.from & 1] = 0;
	__sync_lock_test_and_set(&mark->what, UNDECIDED);
	return 1;
}
