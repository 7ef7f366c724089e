/* Whose a flow is, the kernel's or the engine's, and which SYNs may pass.
 *
 * Never here: a payload. program.c has the argument.
 */

INLINE int is_same(const struct key *one, const struct key *other)
{
	const __u64 *a = (const __u64 *)one, *b = (const __u64 *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]));
}

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
	place = place_of_part(key, set->secret, set->all);
	if (!is_kept(place, set, now))
		return 0;
	h = look_up(&hellos, &place);
	if (!h)
		return 0;
	return is_same(key, &h->key);
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
		// What the engine holds outlives what is remembered here, so ask for it before a flow becomes the
		// kernel's.
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
		__sync_val_compare_and_swap(&flow->handed, handed, 0);   // it may have been handed over meanwhile
	}
	flow->touched = now;
	if (flow->handed)
		what = what == PASSED_SYN ? QUEUED_WATCHED : what;
	else if (what == PASSED_SYN) {
		// The same SYN again is nothing new. Another is remembered too: the client may speak on either
		// connection. More of them without a hello than the engine reads from are a crowd, which it must know
		// of itself.
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
