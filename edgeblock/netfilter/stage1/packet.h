/* What a packet is: whose, and where its payload begins.
 *
 * Comes in: a packet, from its IP header on. Goes out: a view of it. Never here: what the payload means.
 */

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

// `start` is where the IP header is. False for what is no TCP, or what nobody reads: the engine passes it over, so it
// belongs to no flow.
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
