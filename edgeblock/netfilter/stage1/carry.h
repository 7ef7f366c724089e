/* The shortcut: packets from one interface to the other past the stack (`kernel = "carry"`).
 *
 * Comes in: a frame, where it enters the box (tc). Goes out: it leaves by the interface that the routes name, one hop
 * older; or it is left alone, and takes the usual way. Never here: a packet dropped, or one carried of a flow that is
 * blocked.
 *
 * What it goes past are the operator's rules, address translation, and the kernel's checks of where a packet may come
 * from. So a flow is carried only when packets of both directions have been seen twice, here and by the rule for done
 * flows (a SYN by the one for SYNs), with the same addresses and ports and from the same interface: they came the usual
 * way, came through, and nobody translates them. Each has to come by the interface by which they came, and to leave by that of the other
 * direction. Whatever is not plain takes the usual way: the beginning of a connection, options of IP, pieces, frames
 * of other kinds, what was encrypted on the way here, what is too long for the route, the last hop.
 *
 * Of done flows all is carried. Of undecided ones and HTTP, unless conntrack is to see them (`tracked`), what our
 * rules (policy.py) certainly let by, by the same functions that these rules ask, so that the stack would have let by
 * the same:
 *
 *   SYN, SYN-ACK, FIN, RST and URG never: they take the usual way, and the first two are what is seen twice. So the
 *   operator's firewall sees each connection begin and end.
 *
 *   The server's packets: rules drop them of blocked flows alone, and queue none. What an answer does to the flow
 *   (`tcp_answered`) it does here, where the packet is carried; else the rule will do it. HTTP is ended by none.
 *
 *   The client's without payload (`tcp_bare`).
 *
 *   The client's with payload that the first stage lets by (`tcp_cleared`), of a sender who has proved his address
 *   (`proven`): its own function says so and remembers them, in the same maps, whichever of the two is asked. What it
 *   does not let by makes the flow the engine's, is left alone, and comes to the queue the usual way. That question
 *   is the last: who is let by is carried, so that the stage is not asked a second time of the same bytes. Of a kept
 *   connection of HTTP that is one plain request after the other, each behind the server's acknowledgement of the
 *   last. It is seen here as the rule for done flows would see it (`follow`), for that rule sees only what is not
 *   carried: each packet is followed in one of the two, and in the order in which it comes to the box, save where
 *   packets that are carried overtake others in the stack. Then the acknowledgement comes out of order and counts for
 *   nothing, or a request comes before it, and goes to the engine.
 *
 * A mark is there only if the SYN came to the client's rules, so the ports, the interfaces and the sides are theirs.
 * A flow whose address is listed now has lost its mark (netfilter/cut.py). The first stage's flow is there only if no
 * rule before it (`exempt_...`) let the SYN by, its destination was in no list, and the connection is in no sample.
 */

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

// Of an undecided flow or HTTP: whether our rules certainly let it by. Asked last, for what passes is remembered.
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
	what = judge_data(skb, s, &key, turn, s->now, 1, 1);
	MEMORY_BARRIER();
	if (s->turns != turn) {
		struct flow *flow = look_up(&flows, &key);

		if (flow)
			hand_over(flow);
		return 0;
	}
	return what <= PASSED_REQUEST && count(what);
}

// A SYN goes up. The rule for SYNs, which sees it with the addresses that it has behind the routes, looks here for it.
INLINE int note_opening(struct __sk_buff *skb, const struct ends *e)
{
	struct opening *one = place_of_opening(e->seq);
	struct bpf_xfrm_state decrypted;

	if (one && xfrm_state(skb, 0, &decrypted, sizeof(decrypted), 0) < 0) {
		one->key = e->key;
		one->seq = e->seq;
		one->by = skb->ifindex;
	}
	return LEAVE;
}

SECTION("shortcut") int carry(struct __sk_buff *skb)
{
	struct bpf_xfrm_state decrypted;
	struct bpf_fib_lookup route;
	const struct settings *set;
	struct mark *mark;
	struct ends e;
	__u8 first, *frame, *ip;
	__u32 by = skb->ifindex, zero = 0, out, sum, size;

	if (skb->pkt_type || skb->vlan_present)  // 0: for this host's hardware address
		return LEAVE;
	if (!view_ends(skb, ETHERNET, &e))
		return LEAVE;
	if (e.tcp && (e.flags & (SYN | ACK)) == SYN)
		return note_opening(skb, &e);
	if (!e.tcp && (load_bytes(skb, e.at, &first, 1) < 0 || first >= 0x80 ||
		       (first >= DTLS_FIRST && first <= DTLS_LAST)))
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
		set = look_up(&settings, &zero);
		if (!is_established(mark, &e) || e.flags & (FIN | RST | URG) || !set || set->tracked)
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
