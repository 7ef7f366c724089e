/* Whether a packet holds one plain request of HTTP/1.1 from its first byte to its last; included by program.c.
 *
 * Comes in: the payload, copied to its place. Goes out: PASSED_REQUEST, and where the one host is; or why user space
 * has to be asked. Never here: what the name means, a byte in front of the payload or behind it.
 *
 * Plain is what every server reads alike, and core/http.pyx too: GET or HEAD, a target in origin form (RFC 9112,
 * 3.2.1) that nobody takes for "//host/path" (find_relative in blocklist/canonical.pyx), "HTTP/1.1", lines that end
 * with CRLF, no byte outside 0x20 to 0x7E in between, names of letters, digits and "-" with the colon right behind,
 * one Host, none of the fields that frame a body, change the protocol or the connection, or are a proxy's, and an
 * empty line that ends the packet. So there is no body, and the next byte begins the next message.
 *
 * Eight bytes are looked at at a time; the lowest byte of a word is the first one.
 */

enum {
	STEPS = 108,             // lines of a head, and STEP_WORDS of them: browsers send 10 to 20 lines
	STEP_WORDS = 4,
	NAME_WORDS = 5,          // field names have up to 30 bytes
	CRLF = '\r' | '\n' << 8,
};

#define EACH(byte) (0x0101010101010101ULL * (byte))
#define TOP EACH(0x80)
#define WORD(a, b, c, d, e, f, g, h)                                                              \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | (__u64)(f) << 40 |  \
	 (__u64)(g) << 48 | (__u64)(h) << 56)
#define FIRST(word, bytes) ((word) & ((1ULL << 8 * (bytes)) - 1))
#define LETTER(c) (1U << ((c) - 'a'))

// First letters of which no field name matters: Accept, Authorization, DNT, If-..., Origin, Range, Referer, Sec-...
#define INDIFFERENT                                                                                                  \
	(LETTER('a') | LETTER('b') | LETTER('d') | LETTER('g') | LETTER('i') | LETTER('j') | LETTER('k') | LETTER('l') | \
	 LETTER('m') | LETTER('n') | LETTER('o') | LETTER('q') | LETTER('r') | LETTER('s') | LETTER('v') | LETTER('w') | \
	 LETTER('y') | LETTER('z'))

INLINE __u64 word_at(const struct hello *h, __u32 at)
{
	return *(const __u64 *)(h->data + (at & (HELLO_MAX - 1)));
}

INLINE __u32 pair_at(const struct hello *h, __u32 at)
{
	return *(const __u16 *)(h->data + (at & (HELLO_MAX - 1)));
}

// The top bit of each byte that is below `least` or above 0x7E. No byte carries into the next: all are below 0x80.
INLINE __u64 outside(__u64 word, __u32 least)
{
	__u64 low = word & ~TOP;

	return (word | ~(low + EACH(0x80 - least)) | (low + EACH(1))) & TOP;
}

// The same of each that is no letter, digit or "-".
INLINE __u64 no_name(__u64 word)
{
	__u64 low = word & ~TOP, letter = low | EACH(0x20);

	letter = (letter + EACH(0x80 - 'a')) & ~(letter + EACH(0x7F - 'z'));
	letter |= (low + EACH(0x80 - '0')) & ~(low + EACH(0x7F - '9'));
	letter |= ~((low ^ EACH('-')) + EACH(0x7F));
	return (~letter | word) & TOP;
}

// Which byte's top bit is the lowest of those that are set.
INLINE __u32 first_of(__u64 tops)
{
	return ((tops & -tops) >> 7) * 0x0001020304050607ULL >> 56;
}

// A field that begins here, its first letter not INDIFFERENT: whether it is one of the few that matter to nobody.
INLINE int is_harmless(const struct hello *h, __u32 at, __u64 name)
{
	__u64 next;

	if (name == WORD('u', 's', 'e', 'r', '-', 'a', 'g', 'e') || name == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', '-') ||
	    FIRST(name, 7) == WORD('c', 'o', 'o', 'k', 'i', 'e', ':', 0) ||
	    name == WORD('c', 'a', 'c', 'h', 'e', '-', 'c', 'o') ||
	    FIRST(name, 7) == WORD('p', 'r', 'a', 'g', 'm', 'a', ':', 0) ||
	    name == WORD('p', 'r', 'i', 'o', 'r', 'i', 't', 'y') || name == WORD('x', '-', 'r', 'e', 'q', 'u', 'e', 's'))
		return 1;
	if (name != WORD('c', 'o', 'n', 'n', 'e', 'c', 't', 'i'))
		return 0;
	name = word_at(h, at + 8) | EACH(0x20);
	next = word_at(h, at + 16);
	if (name == WORD('o', 'n', ':', ' ', 'k', 'e', 'e', 'p'))
		return next == WORD('-', 'a', 'l', 'i', 'v', 'e', '\r', '\n');
	return name == WORD('o', 'n', ':', ' ', 'c', 'l', 'o', 's') &&
	       FIRST(next, 3) == WORD('e', '\r', '\n', 0, 0, 0, 0, 0);
}

INLINE enum outcome judge_request(struct scratch *s, const struct hello *h)
{
	__u32 at = 5, letter, i, k;
	__u64 word = word_at(h, 0), stop, name;

	if (FIRST(word, 6) == WORD('H', 'E', 'A', 'D', ' ', '/', 0, 0))
		at = 6;
	else if (FIRST(word, 5) != WORD('G', 'E', 'T', ' ', '/', 0, 0, 0))
		return QUEUED_OTHER;
	letter = u8_at(h, at);
	if (letter == '/' || letter == '\\')
		return QUEUED_OTHER;
	for (i = 0; i < HELLO_MAX / 8; i++) {
		stop = outside(word_at(h, at), 0x21);
		if (stop) {
			at += first_of(stop);
			break;
		}
		at += 8;
	}
	if (u8_at(h, at) != ' ' || word_at(h, at + 1) != WORD('H', 'T', 'T', 'P', '/', '1', '.', '1') ||
	    pair_at(h, at + 9) != CRLF)
		return QUEUED_OTHER;
	at += 9;
	s->names = s->name_size = 0;
	s->at = at;
	for (i = 0; i < STEPS; i++) {
		MEMORY_BARRIER();
		at = s->at;
		if (at >= s->view.size)
			break;
#pragma unroll
		for (k = 0; k < STEP_WORDS; k++) {
			stop = outside(word_at(h, at), 0x20);
			if (stop)
				break;
			at += 8;
		}
		if (!stop) {
			s->at = at;
			continue;
		}
		at += first_of(stop);
		if (pair_at(h, at) != CRLF)
			return QUEUED_OTHER;
		if (s->names && !s->name_size)
			s->name_size = at - s->name_at;
		s->at = at += 2;
		if (pair_at(h, at) == CRLF)
			break;
		name = word_at(h, at) | EACH(0x20);
		letter = (name & 0xFF) - 'a';
		if (letter >= 26)
			return QUEUED_OTHER;
		if (FIRST(name, 5) == WORD('h', 'o', 's', 't', ':', 0, 0, 0)) {
			if (s->names)
				return QUEUED_OTHER;
			s->names = 1;
			s->name_at = at + 6;
			if (u8_at(h, at + 5) != ' ')
				return QUEUED_OTHER;
		} else if (!(INDIFFERENT >> letter & 1) && !is_harmless(h, at, name)) {
			return QUEUED_OTHER;
		}
		for (k = 0; k < NAME_WORDS; k++) {
			stop = no_name(word_at(h, at));
			if (stop)
				break;
			at += 8;
		}
		if (!stop)
			return QUEUED_OTHER;
		at += first_of(stop);
		if (u8_at(h, at) != ':')
			return QUEUED_OTHER;
		s->at = at + 1;
	}
	MEMORY_BARRIER();
	at = s->at;
	if (at + 2 != s->view.size || pair_at(h, at) != CRLF || s->names != 1)
		return QUEUED_OTHER;
	return PASSED_REQUEST;
}

// ---- which connection a request belongs to, and what its server has acknowledged

// The mark of a client's packet, and which end has sent it.
INLINE struct mark *mark_of_client(struct scratch *s, const struct key *key, __u8 *from)
{
	const __u64 *a = (const __u64 *)key->source, *b = (const __u64 *)key->destination;

	s->ends = *key;
	s->ends.family |= IP_TCP << 8;
	*from = 1;
	// As view_ends.
	if (a[0] != b[0] ? a[0] < b[0] : a[1] != b[1] ? a[1] < b[1] : key->source_port < key->destination_port) {
		__builtin_memcpy(s->ends.source, key->destination, 16);
		__builtin_memcpy(s->ends.destination, key->source, 16);
		s->ends.source_port = key->destination_port;
		s->ends.destination_port = key->source_port;
		*from = 2;
	}
	return look_up(&marks, &s->ends);
}

// Whether the server of the flow's newest connection has acknowledged every byte before this number, and none behind.
INLINE int is_acknowledged(const struct mark *mark, __u8 from, __u32 seq)
{
	return mark->reopened == from && !mark->waiting && !mark->next_from && mark->server_acknowledged == seq;
}

// Whether this begins behind the last request of the connection, which the server has acknowledged as all before it.
// If it passes it takes that one's place, for what has been acknowledged is never read again. If not, the engine is
// told the last one first: what follows a request is read in other ways than what begins a connection.
INLINE void go_on(struct scratch *s, const struct flow *flow, const struct key *key)
{
	__u32 seq = s->view.seq, last;
	const struct mark *mark;
	__u8 from;

	s->last = flow->count - 1;
	MEMORY_BARRIER();
	last = s->last;
	if (last >= SYNS || flow->http != last + 1 || seq != flow->passed[last].isn + 1 + flow->passed[last].size)
		return;
	mark = mark_of_client(s, key, &from);
	if (!mark || mark->what != HTTP || !is_acknowledged(mark, from, seq))
		return;
	s->mine = last;
	s->goes_on = 1;
}

// Of a request that may pass for what it says: whether it may for where it stands. Then its flow is marked: from here
// on no answer ends it.
INLINE int begin_http(struct scratch *s, struct flow *flow, const struct key *key)
{
	struct mark *mark;
	__u8 from;

	if (s->mine + 1 != flow->count)
		return 0;
	mark = mark_of_client(s, key, &from);
	if (!mark || !is_acknowledged(mark, from, s->view.seq) ||
	    __sync_val_compare_and_swap(&mark->what, UNDECIDED, HTTP) != (s->goes_on ? HTTP : UNDECIDED))
		return 0;
	flow->http = s->mine + 1;
	return 1;
}
