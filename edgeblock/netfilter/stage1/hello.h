/* Whether bytes are one plain ClientHello, or the beginning of one, and whether a name may be listed.
 *
 * Comes in: what has come of it, copied to its place. Goes out: that it passes, or why user space has to be asked.
 */

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
