"""The one door: a packet and a clock in, a verdict out.

Comes in: the bytes of one IP packet, the caller's clock in seconds, and a matcher that knows the lists. Goes out: a
Decision, and the names it rests on. Never here: a clock, a socket, a file, an exception because of a packet.
The rule (docs/evasion.md): if any reading of the client's bytes that a real server could accept yields a listed name,
the flow is blocked; nothing the client can forge ever settles a flow for good.

Who says that he is a client may be another. Of each TCP packet the caller says whether its sender has shown that he
hears the server (ADDRESS_PROVEN). What shows nothing is read all the same, and dropped where it completes a name that
is listed; but it ends no flow in the kernel and gets no answer that is larger than itself. Once a flow has shown its
proof, what shows none is no part of it: it is dropped unread, as the server would drop it.

One idea, though long: what becomes of a packet depends on its flow, its proof, what was read and the policies at
once, and each step changes the same flow and the same decision. What needs none of these is elsewhere.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.blocked cimport add_range, covers, extend, goes_on_with, takes_syn
from edgeblock.core.connections cimport Connections, Datagram
from edgeblock.core.cursor cimport Cursor, cursor, left
from edgeblock.core.dtls cimport Fragment, may_hold_hello, next_fragment
from edgeblock.core.findings cimport (FINDING_HELLO_END, FINDING_NAME, FINDING_NO_NAME, Finding, Findings,
                                      clear_findings)
from edgeblock.core.flow cimport (AWAITED, FLOW_BLOCKED, FLOW_RELEASED, FLOW_WATCHED, KEY_SIZE, LANE_KEPT,
                                  LANE_KEPT_PART, LANE_PART, LANE_SETTLED, LANE_UNDECIDED, PROTOCOL_UDP, SEEN, Flow,
                                  FlowTable, is_turned)
from edgeblock.core.matcher cimport (ACTION_DROP, ACTION_OBSERVE, ACTION_PAGE, ACTION_PASS, ACTION_REDIRECT,
                                     ACTION_RESET, NO_LIST, NO_ORDER, PROTO_HTTP, PROTO_IP, PROTO_NONE, PROTO_QUIC,
                                     PROTO_TLS, Around, Match)
from edgeblock.core.packet cimport (PACKET_BAD, PACKET_FRAGMENT, PACKET_OTHER, PACKET_TCP, PACKET_UDP, TCP_ACK,
                                    TCP_FIN, TCP_RST, TCP_SYN, TCP_URG, Packet, address_text, checksum_is_right,
                                    view_packet, write_packet)
from edgeblock.core.quic cimport SEEN_DAMAGED, SEEN_OVERLOAD, SEEN_REFUSED, SEEN_UNOPENED, may_hold_initial
from edgeblock.core.readers cimport READ_ANY, READ_DTLS, readers
from edgeblock.core.starts cimport (MAX_AHEAD, MAX_GIVEN_UP, MAX_OVER, MAX_STARTS, START_FREE, START_LOWEST,
                                    START_SYN, Starts, begun_before)
from edgeblock.core.text cimport digest_bytes, digest_word
from edgeblock.core.window cimport (PACKET_SHARE, PACKET_WORK, Window, add_bytes, add_lost, add_start, add_syn,
                                    add_urgent, begins_at, choose_starts, close_window, contiguous_end,
                                    expect_anywhere, has_bytes, holds_part, is_contested, is_far, is_message,
                                    is_open, is_strange, is_unreadable, is_whole, joined_end, offset_of,
                                    open_window, read_first, read_on, seq_of)

from edgeblock.core.decision import ACTIONS, MARKS, POLICIES, PROTOCOLS
from edgeblock.core.decision import Decision as DecisionRecord
from edgeblock.core.decision import Name

_ECH = {"accept": 0, "block": 1, "block-listed-addresses": 2}

cdef enum:
    MAX_REPLIES = 8            # answers to one blocked flow: the first, and seven for retransmissions
    DTLS_PROTOCOL = 253        # of a hello's key in the table, as core.connections has one of its own
    MAX_FRAGMENTS = 64         # of DTLS hellos in a datagram: 1 µs each; clients send one or two
    WHOLE_HELLO = 4            # as many fragments as a whole hello counts for
    QUIC_REPLIES = 3           # the same of a QUIC connection: whoever is answered has not proved his address
    PLACES_MOST = 2048         # look-ups for one packet of where names lead: 150 µs; honest ones have three lengths
    QUIC_ANSWERS = 1000        # the same in one second, of all connections: 80 kB, were they all somebody else's
    MAX_UNPROVEN = 1000        # answers to unproven senders in one second: no more than what they send, and 40 kB/s
    OWN_REACH = 128 * 1024     # bytes behind an unproven stream that was blocked: what goes on with it
    SOFT_RANGES = 32           # streams without proof on the same ports; a SYN behind more of them waits for a proof
    PASSED_SYNS = 12           # as the kernel remembers (netfilter/stage1/program.c)
    TOLD = (1 << PASSED_SYNS) - 1
    KEY_WORK = 512             # of keys that are derived for a QUIC packet or tried on it: 0.7 to 0.9 us
    PASSED_MAX = 4096          # bytes of a packet that the kernel let by
    PASSED_CUTS = 3

# The names of engine.pxd's counters, in their order.
COUNTER_NAMES = (
    "packets", "tcp", "udp", "other", "fragments", "unreadable", "junk_checksum", "junk_no_ack", "junk_hop_by_hop",
    "junk_headers", "junk_unproven", "flows", "midstream", "hellos", "hellos_no_name", "hellos_ech",
    "hellos_ech_known", "requests", "names", "observed", "blocked_drop", "blocked_reset", "blocked_page",
    "blocked_redirect", "blocked_policy", "blocked_packets", "replies_repeated", "replies_withheld",
    "unproven_blocked", "unproven_answered", "unproven_unanswered", "unparsable", "conflicts", "overflows",
    "rereading_refused", "window_full", "released", "no_memory", "overworked", "work", "orphans",
)

cdef class Engine:
    """Judges packets, one at a time.

    Args:
        matcher: the lists; may be replaced at any time by assigning `engine.matcher`.
        flows, memory, flow_bytes, idle, hold, settle_packets: as in config.Limits.
        unparsable, midstream, memory_full, conflict, work, no_sni: "pass" or "drop", as in config.Policies.
        ech: "accept", "block" or "block-listed-addresses".
        quic_connections, quic_derivations, quic_failures, quic_worker_derivations: see core.connections' QuicLimits.
        worker_rereading: bytes read again in one second where copies conflict, for all flows.
        unproven: "drop" or "answer", as config.Reply: what becomes of who has not proved his address.
        report: whether the caller wants to hear of names that no rule matched (replay does, the daemon does not).

    Raises:
        ValueError: a limit or a policy is none of those. Nothing is raised for a packet.
    """

    def __init__(self, Matcher matcher not None, *, flows=262_144, memory=256 * 1024 * 1024,
                 flow_bytes=160 * 1024, idle=120.0, hold=7440.0, settle_packets=512, unparsable="pass",
                 midstream="pass", memory_full="pass", conflict="drop", work="drop", no_sni="pass", crash="drop",
                 ech="accept", quic_connections=8, quic_derivations=16, quic_failures=100_000,
                 quic_worker_derivations=1_000_000,
                 worker_rereading=32 * 1024 * 1024, unproven="answer", report=False):
        if not (0 < flows and 0 < memory and 4096 <= flow_bytes <= 64 * 1024 * 1024 and idle > 0):
            raise ValueError("a limit is out of its range")
        self.matcher = matcher
        self.table = FlowTable(flows, memory, idle, hold)
        self.flow_bytes = flow_bytes
        self.settle_packets = settle_packets
        self.worker_rereading = self.rereading = worker_rereading
        self.drop_unparsable = _drops("unparsable", unparsable)
        self.drop_midstream = _drops("midstream", midstream)
        self.drop_full = _drops("memory_full", memory_full)
        self.drop_conflict = _drops("conflict", conflict)
        self.drop_work = _drops("work", work)
        self.drop_no_name = _drops("no_sni", no_sni)
        self.drop_orphans = _drops("crash", crash)
        if ech not in _ECH:
            raise ValueError(f"ech is {ech!r}, not one of {', '.join(_ECH)}")
        self.ech = _ECH[ech]
        if unproven not in ("drop", "answer"):
            raise ValueError(f"unproven is {unproven!r}, neither 'drop' nor 'answer'")
        self.trusting = unproven == "answer"
        self.unproven_left = MAX_UNPROVEN
        self.report = bool(report)
        self.connections = Connections(self.table, quic_connections, quic_derivations, quic_failures,
                                       quic_worker_derivations)
        self.quic = self.connections.reader

    def __dealloc__(self):
        free(self.findings.items)
        free(self.findings.text.data)

    # ---- the door

    cdef int judge_packet(self, const uint8_t* data, size_t size, double now, uint32_t flags,
                          Decision* out) noexcept nogil:
        cdef Packet p
        memset(out, 0, sizeof(Decision))
        out.accept = 1
        out.list_index = NO_LIST
        clear_findings(&self.findings)
        self.current = NULL
        self.current_quic = 0
        if now > self.clock:
            self.clock = now            # a capture's clock may step back; ours does not
        if self.clock - self.rereading_since >= 1.0 or self.clock < self.rereading_since:
            self.rereading_since = self.clock
            self.rereading = self.worker_rereading
        self.table.expire(self.clock)
        self.counts[COUNT_PACKETS] += 1
        view_packet(data, size, &p)
        if self.sketches is not None and p.payload_size:
            self.sketches.foresee(&p)
        # A SYN acknowledges nothing, whatever conntrack says of one that it ignores; no server reads what a RST has.
        p.proven = flags & ADDRESS_PROVEN != 0 and p.flags & (TCP_SYN | TCP_RST | TCP_ACK) == TCP_ACK
        p.recalled = 1 if flags & RECALLED else 0
        if p.kind == PACKET_TCP:
            self.table.foresee(&p)      # while the checksum is made
        if p.many_headers:
            self.counts[COUNT_JUNK_HEADERS] += 1
            out.accept = 0
            self._note_policy(NULL, &p, POLICY_HEADERS, out)
        elif p.kind == PACKET_BAD:
            self.counts[COUNT_UNREADABLE] += 1
        elif p.misplaced_hop_by_hop:
            self.counts[COUNT_JUNK_HOP_BY_HOP] += 1
            out.accept = 0
        elif p.kind == PACKET_FRAGMENT:
            self.counts[COUNT_FRAGMENTS] += 1
        elif p.kind == PACKET_OTHER:
            self.counts[COUNT_OTHER] += 1
        elif not flags & CHECKSUM_TRUST and not checksum_is_right(&p):
            self.counts[COUNT_JUNK_CHECKSUM] += 1
            out.accept = 0
        elif p.kind == PACKET_TCP:
            self.counts[COUNT_TCP] += 1
            self._judge_tcp(&p, out)
            if (flags & ENTRY_BLOCKED and p.flags & (TCP_SYN | TCP_ACK) == TCP_SYN and out.accept
                    and out.mark == MARK_KEEP):
                # Not undecided: an answer to the old connection, still on its way, would release the new one.
                out.mark = MARK_HTTP
        else:
            self.counts[COUNT_UDP] += 1
            self._judge_udp(&p, out)
        return 0

    cdef uint64_t foresee(self, const uint8_t* data, size_t size) noexcept nogil:
        cdef Packet p
        view_packet(data, size, &p)
        return self.table.foresee(&p) if p.kind == PACKET_TCP or p.kind == PACKET_UDP else 0

    cdef void foresee_flow(self, uint64_t hash) noexcept nogil:
        self.table.foresee_flow(hash)

    cdef uint64_t untold(self, const Packet* p, uint64_t past) noexcept nogil:
        """Which SYNs of `past` (see catch_up) this packet's flow has yet to be told. One that is blocked or released
        waits with what was lost until it begins anew."""
        cdef Flow* flow = self.table.find(p, False)
        if flow == NULL or (flow.past ^ past) >> PASSED_SYNS:
            return past & TOLD
        return past & TOLD & ~flow.past if flow.state == FLOW_WATCHED else 0

    cdef void catch_up(self, const uint8_t* data, size_t size, uint64_t past, const Passed* passed, uint32_t count,
                       double now) noexcept nogil:
        """What the kernel let by of this TCP packet's flow, judged as if it came now; to be called before the packet
        is judged. `past` says what it is: a number for all that has passed, and in the lowest PASSED_SYNS bits which
        of those SYNs are told now or have been; `passed` are those that `untold` names.
        """
        cdef uint8_t packet[PASSED_MAX]
        cdef Packet p
        cdef Flow* flow
        cdef Decision made
        cdef bint lost
        cdef uint32_t i, k
        # Where proofs are asked for, the kernel lets no hello by without one.
        cdef uint32_t flags = CHECKSUM_TRUST | RECALLED | (0 if self.trusting else ADDRESS_PROVEN)
        view_packet(data, size, &p)
        if p.kind != PACKET_TCP:
            return
        flow = self.table.find(&p, False)
        if flow != NULL and (flow.past ^ past) >> PASSED_SYNS == 0:
            past |= flow.past
        for i in range(count):
            lost = passed[i].size != 0 and passed[i].hello == NULL
            flow = self.table.find(&p, False)
            if not lost or flow == NULL or flow.state != FLOW_WATCHED or not flow.syn:
                size = write_packet(packet, PASSED_MAX, &p, passed[i].isn, TCP_SYN, NULL, 0)
                self.judge_packet(packet, size, now, CHECKSUM_TRUST | RECALLED, &made)
                flow = self.table.find(&p, False)
            if lost and flow != NULL and flow.state == FLOW_WATCHED:
                if flags & ADDRESS_PROVEN and (not flow.proven or flow.awaited_count):
                    # The bytes are not known any more; that the kernel has asked for a proof before they passed is.
                    p.seq = passed[i].isn + 1
                    self._prove(flow, &p)
                add_lost(&flow.window, passed[i].isn + 1, passed[i].size)
            for k in range(i + 1):
                if passed[k].hello == NULL or not passed[k].size:
                    continue
                if passed[k].after == i + 1 or i + 1 == count and passed[k].after > count:
                    self._play_hello(&p, &passed[k], now, flags)
        flow = self.table.find(&p, False)
        if flow != NULL:
            flow.past = past

    cdef void _play_hello(self, const Packet* like, const Passed* passed, double now, uint32_t flags) noexcept nogil:
        # In the packets in which it passed: a server takes or leaves each of them whole.
        cdef uint8_t packet[PASSED_MAX]
        cdef Decision made
        cdef uint32_t i, at = 0, end
        cdef size_t size
        for i in range(PASSED_CUTS + 1):
            end = passed.size
            if i < PASSED_CUTS and at < passed.cuts[i] < end:
                end = passed.cuts[i]
            size = write_packet(packet, PASSED_MAX, like, passed.isn + 1 + at, TCP_ACK, passed.hello + at, end - at)
            if size:
                self.judge_packet(packet, size, now, flags, &made)
            at = end
            if at == passed.size:
                return

    cdef void _judge_tcp(self, const Packet* p, Decision* out) noexcept nogil:
        cdef Flow* flow = self.table.find(p, False)
        cdef bint syn = p.flags & TCP_SYN != 0
        cdef bint opening = syn and not p.flags & TCP_ACK
        cdef bint urgent = p.flags & (TCP_URG | TCP_ACK | TCP_SYN) == TCP_URG | TCP_ACK
        cdef Flow* other
        self.current_syn = opening and p.payload_size == 0
        self.current_end = p.seq + <uint32_t>p.payload_size + syn
        if opening and self._is_lifted(flow, p):
            flow = NULL
        if flow == NULL:
            if not opening and p.payload_size == 0 and not urgent:
                return
            if not syn:
                other = self.table.find(p, True)
                if other != NULL and (other.syn or is_message(&other.window) or other.state != FLOW_WATCHED):
                    return              # from the server
            if p.payload_size and not syn and not p.flags & TCP_ACK:
                self.counts[COUNT_JUNK_NO_ACK] += 1
                out.accept = 0
                return
            flow = self._open(p, opening, out)
            self.current = flow
            if flow == NULL or flow.state == FLOW_BLOCKED:
                return
        elif opening and flow.orphan and covers(&flow.blocked, p.seq + 1, 1, False):
            self.counts[COUNT_BLOCKED_PACKETS] += 1
            out.accept = 0
            return
        elif opening and not self.trusting and (flow.proven or flow.soft and flow.blocked.count >= SOFT_RANGES):
            self._await(flow, p, out)
            return
        elif opening and self._reopen(flow, p.seq):
            self.current = flow
            self._match_destination(flow, p, out)
            if flow.state == FLOW_BLOCKED:
                return
        if p.payload_size and not syn and not p.flags & TCP_ACK:
            # RFC 9293, 3.10.7.4: without ACK the segment is dropped.
            self.counts[COUNT_JUNK_NO_ACK] += 1
            out.accept = 0
            return
        if not syn and (urgent or p.payload_size):
            if p.proven:
                if not flow.proven or flow.awaited_count:
                    self._prove(flow, p)
            elif flow.proven and not p.recalled and not self.trusting:
                if p.flags & TCP_RST:
                    return              # no server reads what a RST has, and it may be the client's own
                self.counts[COUNT_JUNK_UNPROVEN] += 1
                out.accept = 0
                return
        self.current = flow
        if flow.state == FLOW_BLOCKED:
            self._again(flow, p, out)
        elif flow.blocked.count and _is_of_blocked(flow, p, p.proven and not self.trusting):
            self.counts[COUNT_BLOCKED_PACKETS] += 1
            out.accept = 0
            if p.proven or self.trusting:
                extend(&flow.blocked, p.seq, <uint32_t>p.payload_size)
        elif flow.state == FLOW_RELEASED:
            out.mark = MARK_DONE
            self.table.touch(flow, LANE_SETTLED, self.clock)
        elif urgent or p.payload_size and not (syn and flow.syn and not begins_at(&flow.window, p.seq + 1)):
            self._read(flow, p, out)        # what a SYN carries can only be the stream's beginning
        else:
            self.table.touch(flow, flow.lane, self.clock)

    cdef Flow* _open(self, const Packet* p, bint opening, Decision* out) noexcept nogil:
        # A flow's first packet: the client's SYN, or whatever came first of a flow that began before us.
        cdef Flow* flow = self._create(p, out)
        if flow == NULL:
            return NULL
        open_window(&flow.window, READ_ANY, p.seq + (1 if p.flags & TCP_SYN else 0))
        if opening:
            flow.syn = 1
            add_syn(&flow.window, p.seq + 1)
        else:
            self.counts[COUNT_MIDSTREAM] += 1
            add_start(&flow.window, START_LOWEST, 0)
        self._match_destination(flow, p, out)
        return flow

    cdef Flow* _create(self, const Packet* p, Decision* out) noexcept nogil:
        cdef Flow* flow = self.table.create(p, self.clock)
        if flow == NULL:
            self.counts[COUNT_NO_MEMORY] += 1
            if self.drop_full:
                out.accept = 0
                self._note_policy(NULL, p, POLICY_MEMORY, out)
            return NULL
        self.counts[COUNT_FLOWS] += 1
        return flow

    cdef bint _match_address(self, const Packet* p, Match* found) noexcept nogil:
        # What the lists say of where a packet goes.
        cdef Around around
        put_around(&around, p)
        return self.matcher.match_address(&around, p.destination_port, found)

    cdef void _match_destination(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        cdef Match found
        if self._match_address(p, &found):
            self._note(flow, PROTO_IP, 0, &found, 0, 0, 0, 0, 0, out)
            if found.action != ACTION_PASS and found.action != ACTION_OBSERVE:
                self._block(flow, p, PROTO_IP, &found, 0, 0, out)

    cdef bint _is_lifted(self, Flow* flow, const Packet* p) noexcept nogil:
        # A flow that was blocked for its destination alone, which no list has any more: it is forgotten.
        cdef Match found
        if flow == NULL or flow.state != FLOW_BLOCKED or flow.proto != PROTO_IP or self._match_address(p, &found) \
                and found.action != ACTION_PASS and found.action != ACTION_OBSERVE:
            return False
        self.table.remove(flow)
        return True

    cdef bint _reopen(self, Flow* flow, uint32_t isn) noexcept nogil:
        # Whether another SYN begins the flow anew. It is one more place where the stream may begin, never instead of
        # the others. A released flow starts anew, and so does a blocked one: the ports may have come round again for
        # an innocent name. But whether the server took our RST is the client's to spoil, and with a SYN that dies on
        # the way it would have its old connection back. So the bytes of any stream that had begun by then stay
        # blocked, not only of the one that was blocked: that may have been a decoy, and another the server's.
        cdef bint anew = flow.state != FLOW_WATCHED
        if flow.state == FLOW_BLOCKED and (flow.sealed or not takes_syn(&flow.blocked, isn + 1)):
            return False
        if anew:
            self._begin_anew(flow, isn + 1)
        flow.syn = 1
        add_syn(&flow.window, isn + 1)
        return anew

    cdef void _begin_anew(self, Flow* flow, uint32_t base) noexcept nogil:
        close_window(&flow.window)
        open_window(&flow.window, READ_ANY, base)
        if flow.crowded:
            expect_anywhere(&flow.window)
        flow.state = FLOW_WATCHED
        flow.soft = 0
        flow.marked = MARK_KEEP
        flow.replies = 0
        flow.packets = 0
        flow.awaits_ech = flow.heard_ech = 0
        flow.seen_count = 0
        flow.counted = 0

    # ---- proof of address

    cdef void _await(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        # A SYN on the ports of a connection that has proved itself. The server answers it with a challenge if that
        # connection lives (RFC 5961, 4), so whoever sent it may be anybody: it counts when proven bytes follow it.
        # What it carries would be read by a server that takes it for new; the client sends it again behind the
        # handshake, as RFC 7413 has it.
        cdef Match found
        cdef uint8_t i
        if self._match_address(p, &found):
            self._note(flow, PROTO_IP, 0, &found, 0, 0, 0, 0, 0, out)
            if found.action != ACTION_PASS and found.action != ACTION_OBSERVE:
                self.counts[COUNT_BLOCKED_DROP + found.action - ACTION_DROP] += 1
                out.accept = 0
                out.action = found.action
                out.proto = PROTO_IP
                out.list_index = found.list_index
                out.rule = found.rule
                out.client_ack = p.seq + <uint32_t>p.payload_size + 1
                out.reply = found.action != ACTION_DROP and self._may_answer(p)
                return
        if p.payload_size:
            self.counts[COUNT_JUNK_UNPROVEN] += 1
            out.accept = 0
            return
        for i in range(min(flow.awaited_count, <uint8_t>AWAITED)):
            if flow.awaited[i] == p.seq:
                return
        flow.awaited[flow.awaited_count % AWAITED] = p.seq
        flow.awaited_count = <uint8_t>(flow.awaited_count + 1 if flow.awaited_count < 255 - AWAITED else 2 * AWAITED)

    cdef void _prove(self, Flow* flow, const Packet* p) noexcept nogil:
        # Bytes with a proof: of this flow the first, or the first since there was a SYN.
        cdef bint first = not flow.proven
        flow.proven = 1
        if self.trusting:
            return
        if flow.awaited_count:
            self._adopt(flow, p)
        if not first:
            return
        if flow.state == FLOW_RELEASED:
            self._restart(flow, p)          # for what had no proof
        elif flow.state == FLOW_BLOCKED and flow.soft:
            if not goes_on_with(&flow.blocked, p.seq, OWN_REACH):
                self._restart(flow, p)      # somebody else had been blocked
                return
            # He who proves himself goes on with it.
            flow.soft = 0
            flow.client_seq = flow.reset_ack = p.ack
            if <int32_t>(p.seq + <uint32_t>p.payload_size - flow.client_ack) > 0:
                flow.client_ack = p.seq + <uint32_t>p.payload_size
            self._bury(flow, p.seq, p.seq + <uint32_t>p.payload_size, False, False)
            flow.reset_seq[0] = p.seq
            flow.reset_seqs = 1
            flow.marked = MARK_BLOCKED
        elif flow.state == FLOW_WATCHED and is_strange(&flow.window, p.seq):
            self._restart(flow, p)

    cdef void _adopt(self, Flow* flow, const Packet* p) noexcept nogil:
        cdef uint8_t count = min(flow.awaited_count, <uint8_t>AWAITED)
        cdef bint lost = flow.awaited_count > <int>AWAITED
        cdef uint32_t isn
        cdef uint8_t i
        for i in range(count):
            isn = flow.awaited[i]
            if p.seq - (isn + 1) < MAX_AHEAD:
                flow.awaited[i] = flow.awaited[count - 1]
                flow.awaited_count = count - 1
                self._reopen(flow, isn)
                return
        if not lost:
            return
        # Of more SYNs than are kept one may have been the beginning of this.
        if flow.state == FLOW_WATCHED:
            if is_far(&flow.window, p.seq):
                self._restart(flow, p)
        elif flow.state == FLOW_RELEASED or not goes_on_with(&flow.blocked, p.seq, OWN_REACH):
            self._restart(flow, p)

    cdef void _restart(self, Flow* flow, const Packet* p) noexcept nogil:
        # A stream whose beginning is not known for certain. Where SYNs were seen close below, it is one of those.
        cdef uint32_t[2 * (MAX_STARTS + MAX_GIVEN_UP)] begun
        cdef uint32_t count = begun_before(&flow.window.starts, p.seq, begun), k
        for k in range(flow.blocked.count):
            if (flow.blocked.ranges[k].silent and p.seq - flow.blocked.ranges[k].first < MAX_AHEAD
                    and count < <uint32_t>(2 * (MAX_STARTS + MAX_GIVEN_UP))):
                begun[count] = flow.blocked.ranges[k].first
                count += 1
        self._begin_anew(flow, begun[0] if count else p.seq)
        flow.awaited_count = 0
        flow.syn = count > 0
        for k in range(count):
            add_syn(&flow.window, begun[k])
        if not count:
            add_start(&flow.window, START_LOWEST, 0)
            expect_anywhere(&flow.window)

    # ---- datagrams

    cdef void _judge_udp(self, const Packet* p, Decision* out) noexcept nogil:
        # Every Initial is read, on whatever port, however old the flow and whoever sent before: a connection begins
        # with it, and no decoy settles the addresses for the next one.
        cdef Flow* flow = self.table.find(p, False)     # only where the address is listed; QUIC has flows of its own
        cdef Match found
        if self._is_lifted(flow, p):
            flow = NULL
        if flow == NULL and self._match_address(p, &found):
            flow = self._create(p, out)
            if flow == NULL:
                return
            self._match_destination(flow, p, out)
            if flow.state == FLOW_BLOCKED:
                return
        if flow != NULL:
            if flow.state == FLOW_BLOCKED:
                self._again(flow, p, out)
                return
            if flow.orphan and may_hold_initial(p.payload, p.payload_size):
                self.counts[COUNT_BLOCKED_PACKETS] += 1
                out.accept = 0
                return
            self.table.touch(flow, LANE_SETTLED, self.clock)
        if may_hold_initial(p.payload, p.payload_size):
            self._read_quic(p, out)
        elif may_hold_hello(p.payload, p.payload_size):
            self._read_dtls(p, out)

    cdef void _read_quic(self, const Packet* p, Decision* out) noexcept nogil:
        # A block is a connection's, not that of the addresses and ports: without the packets that its keys open no
        # server can finish the handshake. Others on the same ports are judged for themselves.
        cdef Datagram d
        cdef Cursor frames
        cdef Flow* flow
        cdef uint64_t began = self.counts[COUNT_WORK]
        cdef uint32_t keys
        self.connections.begin(&d, p.payload, p.payload_size, self.clock)
        keys = d.derivations + d.tries
        while self.counts[COUNT_WORK] - began <= <uint64_t>PACKET_SHARE:
            flow = self.connections.next_opened(p, &d, &frames)
            self.counts[COUNT_WORK] += <uint64_t>KEY_WORK * (keys - d.derivations - d.tries)
            keys = d.derivations + d.tries
            if flow == NULL:
                break
            if flow.state == FLOW_BLOCKED and not self._begin_quic_anew(flow, p):
                self._again(flow, p, out)
                continue
            if flow.quic.bound and memcmp(flow.quic.first, p.source, sizeof(flow.quic.first)) != 0:
                self.counts[COUNT_BLOCKED_PACKETS] += 1     # no client moves before the handshake is done
                out.accept = 0
                continue
            if not self.connections.take_frames(flow, &frames, self.flow_bytes, &d.seen):
                d.seen |= SEEN_DAMAGED
            self._read_hello(flow, p, out)
            self.current_quic = STANDS_BEGUN
            self.current_hash = self.table.directed(p)
        self.counts[COUNT_FLOWS] += d.created
        if self.counts[COUNT_WORK] - began > <uint64_t>PACKET_SHARE and left(&d.rest):
            # As in _read: what is left of it waits until it is sent again, and costs less then.
            self.counts[COUNT_OVERWORKED] += 1
            if self.drop_work and out.accept:
                out.accept = 0
                self._note_policy(self.table.find(p, False), p, POLICY_WORK, out)
        # What was not opened may hold anything, so the policies speak; but only this datagram is dropped, since the
        # client sends it again and the budgets come back.
        if out.accept and (d.seen & SEEN_REFUSED and self.drop_conflict or d.seen & SEEN_OVERLOAD and self.drop_full
                           or d.seen & SEEN_UNOPENED and self.drop_unparsable):
            self.counts[COUNT_BLOCKED_POLICY] += 1
            out.accept = 0
            self._note_policy(self.table.find(p, False), p,
                              POLICY_CONFLICT if d.seen & SEEN_REFUSED and self.drop_conflict else
                              POLICY_MEMORY if d.seen & SEEN_OVERLOAD and self.drop_full else POLICY_UNPARSABLE, out)

    cdef void _read_hello(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        # What a packet has added to the handshake of a QUIC connection, or of DTLS.
        cdef uint32_t first = self.findings.count
        cdef uint8_t lane = LANE_SETTLED
        cdef bint waits
        read_on(&flow.window, &self.findings, self.flow_bytes, &self.rereading)
        self.counts[COUNT_WORK] += <uint64_t>(PACKET_SHARE - flow.window.share)
        self._look_up(flow, p, 0, 0, first, out)
        if flow.state == FLOW_WATCHED and (flow.window.overflow or self.findings.full):
            self.counts[COUNT_OVERFLOWS] += 1
            if self.drop_conflict:
                self._refuse(flow, p, POLICY_CONFLICT, out)
        if flow.state == FLOW_WATCHED and flow.window.behind:
            # As in _read: the datagram is sent again.
            self.counts[COUNT_OVERWORKED] += 1
            if self.drop_work:
                out.accept = 0
                self._note_policy(flow, p, POLICY_WORK, out)
        if flow.state == FLOW_WATCHED and flow.window.dropped:
            flow.window.dropped = 0
            self.counts[COUNT_WINDOW_FULL] += 1
            if self.drop_full:
                self._refuse(flow, p, POLICY_MEMORY, out)
        waits = flow.state == FLOW_WATCHED and is_open(&flow.window)
        if flow.state == FLOW_BLOCKED:
            lane = LANE_KEPT
        elif waits:
            lane = LANE_UNDECIDED
        if flow.quic != NULL:
            if flow.state == FLOW_BLOCKED:
                memcpy(flow.quic.client, p.source, sizeof(flow.quic.client))
                flow.quic.client_port = p.source_port
            else:
                flow.quic.passed = 1
            self.connections.settle(flow, waits or flow.state == FLOW_BLOCKED and flow.quic.passed)
        self.table.touch(flow, lane, self.clock)

    cdef void _read_dtls(self, const Packet* p, Decision* out) noexcept nogil:
        # A hello is blocked, not the addresses and ports: nothing in it proves that who sent it has them. One that
        # is whole is judged by itself; pieces are put together by their message's number and length, and what is
        # whole is one more copy of these.
        cdef Cursor rest = cursor(p.payload, p.payload_size)
        cdef Cursor record = cursor(p.payload, 0)
        cdef Fragment piece
        cdef Packet key
        cdef Flow* flow
        cdef bint whole
        cdef int count = 0
        while next_fragment(&rest, &record, &piece):
            whole = piece.size == piece.total
            count += <int>WHOLE_HELLO if whole else 1
            if count > MAX_FRAGMENTS:
                if out.accept and self.drop_conflict:
                    self.counts[COUNT_BLOCKED_POLICY] += 1
                    out.accept = 0
                return
            self._key_of_hello(p, &piece, whole, &key)
            flow = self.table.find(&key, False)
            if flow == NULL:
                flow = self._create(&key, out)
                if flow == NULL:
                    return
                flow.unmarked = 1
                open_window(&flow.window, READ_DTLS, 0)
                add_start(&flow.window, START_SYN, 0)
            if flow.state == FLOW_BLOCKED:
                self._again(flow, p, out)
                continue
            self._add_fragment(flow, &piece, p, out)
            if whole:
                self._key_of_hello(p, &piece, False, &key)
                flow = self.table.find(&key, False)
                if flow != NULL and flow.state == FLOW_WATCHED:
                    self._add_fragment(flow, &piece, p, out)

    cdef void _add_fragment(self, Flow* flow, const Fragment* piece, const Packet* p, Decision* out) noexcept nogil:
        # As a hello stands in a stream: its kind and length before it (RFC 6347, 4.2.6).
        cdef uint8_t[4] head = [1, <uint8_t>(piece.total >> 16), <uint8_t>(piece.total >> 8), <uint8_t>piece.total]
        add_bytes(&flow.window, 0, head, 4, self.flow_bytes)
        add_bytes(&flow.window, 4 + <int64_t>piece.offset, piece.data, piece.size, self.flow_bytes)
        self._read_hello(flow, p, out)

    cdef void _key_of_hello(self, const Packet* p, const Fragment* piece, bint whole, Packet* key) noexcept nogil:
        cdef uint64_t[4] said
        cdef uint8_t[18] client
        memcpy(client, p.source, 16)
        memcpy(client + 16, &p.source_port, 2)
        said[0] = self.connections._hash(client, 18)
        said[1] = piece.message
        said[2] = piece.total
        said[3] = self.connections._hash(piece.data, piece.size) if whole else 0
        memset(key, 0, sizeof(Packet))
        key.family = p.family
        key.protocol = DTLS_PROTOCOL
        memcpy(key.destination, p.destination, 16)
        key.destination_port = p.destination_port
        key.source_port = whole
        memcpy(key.source, said, 8)
        said[0] = self.connections._hash(<uint8_t*>said, sizeof(said))
        memcpy(key.source + 8, said, 8)

    cdef bint _begin_quic_anew(self, Flow* flow, const Packet* p) noexcept nogil:
        # Where the server has got nothing of a blocked connection, somebody else with the same id is not joined with
        # it there, nor here. Who was blocked stays so.
        if flow.quic.passed or (flow.quic.client_port == p.source_port
                                and memcmp(flow.quic.client, p.source, sizeof(flow.quic.client)) == 0):
            return False
        self.connections.begin_anew(flow)
        memcpy(flow.quic.first, p.source, sizeof(flow.quic.first))
        flow.quic.family = p.family
        flow.quic.bound = 0
        flow.state = FLOW_WATCHED
        flow.seen_count = flow.awaits_ech = flow.heard_ech = 0
        return True

    # ---- the stream

    cdef void _read(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        cdef Window* w = &flow.window
        cdef int64_t at = offset_of(w, p.seq + (1 if p.flags & TCP_SYN else 0))
        cdef int64_t expected = contiguous_end(w)
        cdef uint64_t dropped = w.dropped
        cdef uint16_t copies = w.segments.copy_count
        cdef uint8_t lane
        if p.flags & TCP_URG or self.by_steps or not read_first(w, at, p.payload, p.payload_size, self.flow_bytes,
                                                                &self.findings):
            if p.payload_size:
                choose_starts(w, flow.syn, at, p.payload, p.payload_size)
            if p.flags & TCP_URG:
                # Linux takes the byte before the pointer, which may lie far ahead; zero it takes for one.
                add_urgent(w, at + p.urgent - (1 if p.urgent else 0))
            add_bytes(w, at, p.payload, p.payload_size, self.flow_bytes)
            read_on(w, &self.findings, self.flow_bytes, &self.rereading)
        self.counts[COUNT_WORK] += <uint64_t>(PACKET_SHARE - w.share)
        if self.findings.full:
            w.overflow = 1
        if w.overflow and self.rereading < PACKET_WORK:
            self.counts[COUNT_REREADING_REFUSED] += 1
        if w.segments.copy_count != copies:
            self.counts[COUNT_CONFLICTS] += 1
        self._look_up(flow, p, at, expected, 0, out)
        if flow.state == FLOW_WATCHED and w.overflow:
            self.counts[COUNT_OVERFLOWS] += 1
            if self.drop_conflict:
                self._refuse(flow, p, POLICY_CONFLICT, out)
            else:
                self._release(flow, out)
        if flow.state == FLOW_WATCHED and w.behind:
            # Reading goes on with the next packet. This one is sent again: nothing goes by unread, and nobody waits.
            self.counts[COUNT_OVERWORKED] += 1
            if self.drop_work:
                out.accept = 0
                self._note_policy(flow, p, POLICY_WORK, out)
        if flow.state == FLOW_WATCHED and w.dropped != dropped:
            self.counts[COUNT_WINDOW_FULL] += 1
            if self.drop_conflict if is_contested(w) else self.drop_full:
                self._refuse(flow, p, POLICY_CONFLICT if is_contested(w) else POLICY_MEMORY, out)
        if flow.state != FLOW_WATCHED:
            self.table.touch(flow, LANE_KEPT if flow.state == FLOW_BLOCKED else LANE_SETTLED, self.clock)
            return
        lane = LANE_UNDECIDED
        if w.http:
            lane = LANE_KEPT
            # Not for a SYN without proof: the entry may be of a connection that is done, and somebody else's.
            if (flow.marked != MARK_HTTP or self.findings.count) and (p.proven or self.trusting
                                                                      or not p.flags & TCP_SYN):
                # With every request: the tracker's entry may be another than the one that was marked. Ports come
                # round again, and a forged RST ends an entry; the next answer would then end the flow.
                flow.marked = MARK_HTTP
                out.mark = MARK_HTTP
        if not is_open(w):
            lane = LANE_SETTLED
        if not flow.counted and not is_message(w) and is_unreadable(w):
            flow.counted = 1
            self.counts[COUNT_UNPARSABLE] += 1
            if self.drop_unparsable if flow.syn else self.drop_midstream:
                self._refuse(flow, p, POLICY_UNPARSABLE if flow.syn else POLICY_MIDSTREAM, out)
                lane = LANE_KEPT
        if not is_open(w) and flow.state == FLOW_WATCHED:
            # Read to the end. The kernel releases it when the server answers; where no answer is ever seen
            # (one-way traffic, which the settings have to say) it is released after this many packets.
            flow.packets += 1
            if self.settle_packets and flow.packets > self.settle_packets and self.trusting and not flow.proven:
                self._release(flow, out)
        else:
            flow.packets = 0
        if flow.state == FLOW_WATCHED and holds_part(w):
            lane = LANE_KEPT_PART if w.http else LANE_PART
        self.table.touch(flow, lane, self.clock)

    # ---- names

    cdef void _look_up(self, Flow* flow, const Packet* p, int64_t at, int64_t expected, uint32_t first,
                       Decision* out) noexcept nogil:
        cdef Finding* f
        cdef Finding* last = NULL
        cdef Match found, last_found
        cdef bint last_listed = False
        cdef const uint8_t* text = self.findings.text.data
        cdef const uint8_t* host
        cdef const uint8_t* target
        cdef size_t host_size, target_size
        cdef uint8_t address[64]
        cdef uint8_t proto
        cdef bint listed, opening, by_policy
        cdef uint32_t i, places = 0
        cdef Around around
        put_around(&around, p)
        for i in range(first, self.findings.count):
            f = &self.findings.items[i]
            found.action = ACTION_PASS
            found.list_index = NO_LIST
            found.rule = 0
            found.of_ech = 0
            found.order = NO_ORDER
            proto = readers[f.reading].proto
            if f.kind != FINDING_NAME:
                listed = self._hello_end(flow, p, proto, f, &found)
                last = NULL                     # another hello in this packet is asked about anew
            else:
                host = text + f.host_at
                host_size = f.host_size
                target = NULL
                target_size = 0
                if flow.heard_ech and proto != PROTO_HTTP:
                    flow.awaits_ech = flow.heard_ech = 0
                if proto == PROTO_HTTP:
                    if host_size == 0:
                        host_size = address_text(p, address)
                        host = address
                    if not f.connect:
                        target = text + f.target_at + f.path_at
                        target_size = f.target_size - f.path_at
                        if target_size == 0:
                            target = <const uint8_t*>b"/"
                            target_size = 1
                if self._is_same_name(last, f):
                    listed = last_listed        # the same once more needs no second look
                    found = last_found
                else:
                    if places > PLACES_MOST:
                        self.counts[COUNT_OVERWORKED] += 1
                        if self.drop_work and flow.state == FLOW_WATCHED:
                            self._refuse(flow, p, POLICY_WORK, out)
                        return
                    # A tunnel's path is as invisible as that of TLS.
                    listed = self.matcher.match_name(PROTO_TLS if f.connect else proto, host, host_size,
                                                     target, target_size, &around, &found)
                    if flow.quic != NULL and memcmp(flow.quic.first, p.source, sizeof(flow.quic.first)) != 0:
                        listed = self._match_first(flow, p, proto, host, host_size, &found) or listed
                    if flow.quic != NULL and found.of_some:
                        flow.quic.bound = 1
                    last, last_listed, last_found = f, listed, found
                    places += found.spent
                    if found.of_ech and proto != PROTO_HTTP:
                        self._await_ech(flow, proto, host, host_size, &around)
                opening = flow.seen_count == 0
                if not self._is_new(flow, f):
                    if not listed or found.action == ACTION_OBSERVE or found.action == ACTION_PASS:
                        continue
                self.counts[COUNT_NAMES] += 1
                if self.sketches is not None and (p.kind != PACKET_TCP or p.proven or self.trusting) and not f.unsure:
                    self.sketches.learn(p, host, host_size, opening)
                if proto == PROTO_HTTP:
                    self.counts[COUNT_REQUESTS] += 1
                elif not f.connect:
                    self.counts[COUNT_HELLOS] += 1
            if not listed:
                found.action = ACTION_PASS
                found.list_index = NO_LIST
            if not readers[f.reading].shows and (found.action == ACTION_PAGE or found.action == ACTION_REDIRECT):
                found.action = ACTION_RESET
            if listed or (self.report and f.kind == FINDING_NAME and not f.unsure):
                by_policy = f.kind != FINDING_NAME and not found.of_ech
                self._note(flow, proto, f.ech, &found, f.host_at, 0 if by_policy else f.host_size, f.target_at,
                           f.target_size, proto == PROTO_HTTP, out)
                if by_policy:
                    self.seen[out.names - 1].policy = (
                        POLICY_NO_SNI if f.kind == FINDING_NO_NAME and self.drop_no_name else POLICY_ECH)
            if listed and found.action != ACTION_PASS:
                if found.action == ACTION_OBSERVE:
                    self.counts[COUNT_OBSERVED] += 1
                elif flow.state == FLOW_WATCHED:
                    self._block(flow, p, proto, &found, f.head, expected, out)
                    flow.client_ack = self._acknowledge(flow, p, at)
                    out.client_ack = flow.client_ack
                    # What was read is not needed any more; where it was is (see _reopen).
                    close_window(&flow.window)

    cdef bint _match_first(self, const Flow* flow, const Packet* p, uint8_t proto, const uint8_t* host,
                           size_t host_size, Match* found) noexcept nogil:
        # Of a QUIC connection whose hello came from two addresses: what holds for the first of them, where that
        # blocks. Else one packet with somebody else's address would take a client out of the lists that are for him.
        # (What comes from another address when the hello has been judged is dropped: _read_quic.)
        cdef Around around
        cdef Match other
        cdef uint32_t spent = found.spent
        cdef uint8_t of_some = found.of_some
        put_around(&around, p)
        around.client = &flow.quic.first[0]
        around.client_size = 4 if flow.quic.family == 4 else 16
        other.action = ACTION_PASS
        if not self.matcher.match_name(proto, host, host_size, NULL, 0, &around, &other) \
                or other.action == ACTION_PASS or other.action == ACTION_OBSERVE:
            found.spent += other.spent
            return False
        found[0] = other
        found.of_some = other.of_some or of_some
        found.spent += spent
        return True

    cdef bint _is_same_name(self, const Finding* a, const Finding* b) noexcept nogil:
        cdef const uint8_t* text = self.findings.text.data
        return (a != NULL and a.reading == b.reading and a.connect == b.connect and a.host_size == b.host_size
                and a.target_size == b.target_size and a.path_at == b.path_at
                and (a.host_size == 0 or memcmp(text + a.host_at, text + b.host_at, a.host_size) == 0)
                and (a.target_size == 0 or memcmp(text + a.target_at, text + b.target_at, a.target_size) == 0))

    cdef void _await_ech(self, Flow* flow, uint8_t proto, const uint8_t* host, size_t size,
                         Around* around) noexcept nogil:
        # A name with a rule for hellos that have an Encrypted ClientHello, which may stand behind the name, packets
        # away: the rule waits for the hello's end. Of several readings of one hello any may end it.
        # Of several names the first counts whose rule blocks.
        cdef Match found
        around.ech = True
        if self.matcher.match_name(proto, host, size, NULL, 0, around, &found) and found.of_ech and not (
                flow.awaits_ech and flow.with_ech_by == self.matcher.serial and flow.with_ech.action != ACTION_PASS
                and flow.with_ech.action != ACTION_OBSERVE):
            flow.awaits_ech = 1
            flow.with_ech = found
            flow.with_ech_by = self.matcher.serial
        around.ech = False

    cdef bint _hello_end(self, Flow* flow, const Packet* p, uint8_t proto, const Finding* f,
                         Match* found) noexcept nogil:
        # A whole ClientHello: what its name alone does not tell. True: `found` applies, which is a rule's (`of_ech`)
        # or a policy's.
        cdef bint refused = False
        cdef Around around
        if flow.awaits_ech and flow.with_ech_by != self.matcher.serial:     # other lists since: what do they say?
            flow.awaits_ech = 0
            put_around(&around, p)
            self._await_ech(flow, proto, self.findings.text.data + f.host_at, f.host_size, &around)
        flow.heard_ech = 1
        if f.kind == FINDING_NO_NAME:
            self.counts[COUNT_HELLOS] += 1
            self.counts[COUNT_HELLOS_NO_NAME] += 1
            refused = self.drop_no_name and not readers[f.reading].nameless
        if f.ech:
            self.counts[COUNT_HELLOS_ECH] += 1
            if self.ech == 1:
                refused = True
            elif self.ech == 2 and self._match_address(p, found) and found.action != ACTION_PASS:
                refused = True
            self.counts[COUNT_HELLOS_ECH_KNOWN] += flow.awaits_ech
        if refused:
            self.counts[COUNT_BLOCKED_POLICY] += 1
            found.action = ACTION_RESET
            found.of_ech = 0
            return True
        if f.ech and flow.awaits_ech and flow.state == FLOW_WATCHED:
            flow.awaits_ech = 0
            found[0] = flow.with_ech
            return True
        return False

    cdef bint _is_new(self, Flow* flow, const Finding* f) noexcept nogil:
        # Whether this name of this message is heard of for the first time; a clash costs a line of report. It begins
        # with what nobody outside knows, or a path could be chosen that clashes with the message behind it.
        cdef const uint8_t* text = self.findings.text.data
        cdef uint64_t hash
        cdef uint32_t i
        memcpy(&hash, self.table.secret, sizeof(hash))
        hash = digest_word(hash ^ f.reading, <uint64_t>f.began)
        hash = digest_bytes(hash, text + f.host_at, f.host_size)
        hash = digest_bytes(hash, text + f.target_at, f.target_size)
        for i in range(flow.seen_count if flow.seen_count < SEEN else SEEN):
            if flow.seen[i] == hash:
                return False
        flow.seen[flow.seen_count % SEEN] = hash
        flow.seen_count = <uint8_t>(flow.seen_count + 1 if flow.seen_count < 255 - SEEN else SEEN)
        return True

    cdef void _note(self, Flow* flow, uint8_t proto, uint8_t ech, const Match* found, uint32_t host_at,
                    uint32_t host_size, uint32_t target_at, uint32_t target_size, bint has_target,
                    Decision* out) noexcept nogil:
        cdef Seen* s
        if out.names == MAX_NAMES:
            if found.action == ACTION_PASS:
                return
            out.names -= 1              # of more names than there is room for, the listed one is told
        s = &self.seen[out.names]
        out.names += 1
        s.proto = proto
        s.action = found.action
        s.ech = ech
        s.policy = POLICY_NONE
        s.list_index = found.list_index
        s.rule = found.rule
        s.order = found.order
        s.host_at = host_at
        s.host_size = host_size
        s.target_at = target_at
        s.target_size = target_size

    # ---- verdicts

    cdef void _block(self, Flow* flow, const Packet* p, uint8_t proto, const Match* found, uint8_t head,
                     int64_t expected, Decision* out) noexcept nogil:
        cdef uint32_t at = seq_of(&flow.window, expected)
        flow.state = FLOW_BLOCKED
        flow.action = found.action
        flow.proto = proto
        flow.list_index = found.list_index
        flow.rule = found.rule
        flow.head = head
        flow.client_seq = p.ack
        flow.client_ack = p.seq + <uint32_t>p.payload_size + (1 if p.flags & TCP_SYN else 0)
        # The server expects the first byte it has not got: this packet's, or the end of what was let through.
        flow.reset_seq[0] = p.seq
        flow.reset_seq[1] = at
        flow.reset_seqs = 1 if at == p.seq else 2
        flow.reset_ack = p.ack
        flow.soft = p.kind == PACKET_TCP and not p.proven and not self.trusting
        if not flow.soft:
            flow.marked = MARK_BLOCKED
        self._bury_streams(flow, p)
        self.counts[COUNT_BLOCKED_DROP + found.action - ACTION_DROP] += 1
        self.counts[COUNT_UNPROVEN_BLOCKED] += flow.soft
        self._answer(flow, p, out)

    # ---- what stays blocked (core.blocked says why that is enough)

    cdef void _bury(self, Flow* flow, uint32_t first, uint32_t last, bint unsaid, bint silent) noexcept nogil:
        if not add_range(&flow.blocked, first, last, unsaid, silent):
            self.counts[COUNT_NO_MEMORY] += 1
            flow.sealed = 1

    cdef void _bury_streams(self, Flow* flow, const Packet* p) noexcept nogil:
        cdef const Starts* s = &flow.window.starts
        cdef uint32_t i, first = p.seq + (1 if p.flags & TCP_SYN else 0)
        if p.kind != PACKET_TCP:
            return
        self._bury(flow, first, first + <uint32_t>p.payload_size, False, False)
        for i in range(<uint32_t>MAX_STARTS):
            if s.items[i].kind != START_FREE:
                self._bury_stream(flow, s.items[i].kind, s.items[i].at, s.items[i].frontier)
        for i in range(min(s.given_up, <uint32_t>MAX_GIVEN_UP)):
            self._bury_stream(flow, START_SYN, s.given_up_at[i], s.given_up_to[i])
        for i in range(min(s.over_count, <uint32_t>MAX_OVER)):
            self._bury(flow, s.over[i].seq, s.over[i].seq + s.over[i].size, False, False)
        if s.over_count > <uint32_t>MAX_OVER or s.given_up > <uint32_t>MAX_GIVEN_UP:
            flow.crowded = 1

    cdef void _bury_stream(self, Flow* flow, uint8_t kind, int64_t at, int64_t frontier) noexcept nogil:
        cdef Window* w = &flow.window
        cdef bint unsaid = kind == START_SYN and frontier == at and not has_bytes(w, at)
        cdef int64_t end = joined_end(w, frontier)
        if w.dropped:
            end += MAX_AHEAD            # it may have come further than is kept
        if kind != START_SYN:
            at -= MAX_AHEAD             # it may have begun before what was seen of it
        self._bury(flow, seq_of(w, at), seq_of(w, end), unsaid, unsaid and flow.soft)

    cdef void _bury_unknown(self, Flow* flow, uint32_t at, uint8_t state) noexcept nogil:
        # Of a stream that had come to `at` nobody knows where it began. Behind whole messages it goes on from there.
        if state == STANDS_BEGUN:
            self._bury(flow, at - <uint32_t>MAX_AHEAD, at, False, False)
        else:
            self._bury(flow, at - 2 * <uint32_t>MAX_AHEAD, at - 1, False, False)

    cdef uint32_t _acknowledge(self, Flow* flow, const Packet* p, int64_t at) noexcept nogil:
        # The end of what the client has sent without a gap, so that it takes the answer for an answer to all of it.
        cdef int64_t end = at + <int64_t>p.payload_size
        cdef int64_t joined = contiguous_end(&flow.window)
        if joined > end:
            end = joined
        return seq_of(&flow.window, end) + (1 if p.flags & TCP_FIN else 0)

    cdef bint _may_answer(self, const Packet* p) noexcept nogil:
        # Who has proved nothing gets nothing but a RST to his SYN, which is not larger, and in its place.
        if p.flags & (TCP_SYN | TCP_ACK) != TCP_SYN:
            return False
        if self.clock - self.unproven_since >= 1.0 or self.clock < self.unproven_since:
            self.unproven_since = self.clock
            self.unproven_left = MAX_UNPROVEN
        if self.unproven_left == 0:
            self.counts[COUNT_UNPROVEN_UNANSWERED] += 1
            return False
        self.unproven_left -= 1
        self.counts[COUNT_UNPROVEN_ANSWERED] += 1
        return True

    cdef void _answer(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        cdef bint proven = p.kind != PACKET_TCP or p.proven or self.trusting
        cdef bint may = flow.action != ACTION_DROP
        out.accept = 0
        out.proven = proven
        out.mark = MARK_BLOCKED if proven and not flow.soft else MARK_KEEP
        out.action = flow.action
        out.proto = flow.proto
        out.head = flow.head
        out.list_index = flow.list_index
        out.rule = flow.rule
        out.client_seq = flow.client_seq
        out.client_ack = flow.client_ack
        out.reset_seqs = flow.reset_seqs
        memcpy(out.reset_seq, flow.reset_seq, sizeof(flow.reset_seq))
        out.reset_ack = flow.reset_ack
        out.reply = 0
        if flow.unmarked:
            out.mark = MARK_KEEP        # what is blocked is the connection
            may = may and flow.quic != NULL
        if flow.quic != NULL:
            out.quic_id_size = flow.quic.connection.id_size
            memcpy(out.quic_id, flow.quic.connection.id, sizeof(out.quic_id))
            may = may and flow.replies < QUIC_REPLIES and self._may_answer_quic()
        if not proven:
            out.client_seq = 0              # a SYN acknowledges nothing; what it says there is the sender's to choose
            out.reset_seqs = 0              # the server has not seen it
            may = may and flow.replies < MAX_REPLIES and self._may_answer(p)
        if may and flow.replies < MAX_REPLIES:
            flow.replies += 1
            out.reply = 1

    cdef bint _may_answer_quic(self) noexcept nogil:
        if self.clock - self.quic_answers_since >= 1.0 or self.clock < self.quic_answers_since:
            self.quic_answers_since = self.clock
            self.quic_answers = 0
        if self.quic_answers == QUIC_ANSWERS:
            self.counts[COUNT_REPLIES_WITHHELD] += 1
            return False
        self.quic_answers += 1
        return True

    cdef void _again(self, Flow* flow, const Packet* p, Decision* out) noexcept nogil:
        # A packet of a blocked flow: dropped; one with payload says that the client has not got the answer.
        cdef bint foreign = p.kind == PACKET_TCP and not (p.proven or self.trusting)
        self.counts[COUNT_BLOCKED_PACKETS] += 1
        self._answer(flow, p, out)
        if out.reply and p.payload_size == 0 and not foreign:
            flow.replies -= 1
            out.reply = 0
        elif out.reply:
            self.counts[COUNT_REPLIES_REPEATED] += 1
        if foreign and not flow.soft:
            return              # nobody knows whose it is: it keeps no ports blocked
        if p.kind == PACKET_TCP and p.payload_size and not p.flags & TCP_SYN:
            extend(&flow.blocked, p.seq, <uint32_t>p.payload_size)
        if p.payload_size or not p.flags & TCP_SYN:
            # A SYN that may not begin the flow anew does not keep it: who tries again and again is let in some day.
            self.table.touch(flow, LANE_KEPT, self.clock)

    cdef void _note_policy(self, Flow* flow, const Packet* p, uint8_t policy, Decision* out) noexcept nogil:
        # Told once for a flow.
        cdef Match found
        cdef uint8_t proto = PROTO_NONE
        if flow != NULL:
            if flow.told >> policy & 1:
                return
            flow.told |= <uint16_t>(1 << policy)
        found.action = ACTION_DROP
        found.list_index = NO_LIST
        found.rule = 0
        found.order = NO_ORDER
        if p.kind == PACKET_UDP:
            proto = PROTO_QUIC
        elif flow != NULL and is_message(&flow.window):
            proto = PROTO_HTTP if flow.window.http else PROTO_TLS
        self._note(flow, proto, 0, &found, 0, 0, 0, 0, 0, out)
        self.seen[out.names - 1].policy = policy

    cdef void _refuse(self, Flow* flow, const Packet* p, uint8_t policy, Decision* out) noexcept nogil:
        # A policy says drop: silent, because nobody knows what would be answered to.
        cdef Match found
        found.action = ACTION_DROP
        found.list_index = NO_LIST
        found.rule = 0
        found.order = NO_ORDER
        self._note_policy(flow, p, policy, out)
        self.counts[COUNT_BLOCKED_POLICY] += 1
        self.counts[COUNT_BLOCKED_DROP] -= 1
        self._block(flow, p, PROTO_NONE, &found, 0, 0, out)
        close_window(&flow.window)

    cdef void _release(self, Flow* flow, Decision* out) noexcept nogil:
        self.counts[COUNT_RELEASED] += 1
        close_window(&flow.window)
        flow.state = FLOW_RELEASED
        flow.marked = MARK_DONE
        out.mark = MARK_DONE

    # ---- an engine goes on where another has ended

    cdef bint standing(self, const Decision* made, Standing* out) noexcept nogil:
        cdef const Flow* flow = self.current
        out.datagrams = self.current_quic != 0
        if out.datagrams:               # of the addresses and ports: the next engine knows no connection's keys
            out.hash = self.current_hash
            out.at = 0
            out.state = self.current_quic
            return True
        if flow == NULL or flow.state == FLOW_RELEASED or not made.accept and flow.state != FLOW_BLOCKED:
            return False
        if flow.key[KEY_SIZE - 1] == PROTOCOL_UDP:
            return False
        out.hash = flow.hash ^ <uint64_t>is_turned(flow.key) << 63
        out.at = self.current_end
        if flow.state == FLOW_BLOCKED:
            out.state = STANDS_BEGUN
        elif self.current_syn:
            out.state = STANDS_SYN
        else:
            out.state = STANDS_WHOLE if is_whole(&flow.window) else STANDS_BEGUN
        return True

    cdef bint knows(self, const Packet* p) noexcept nogil:
        return self.table.find(p, False) != NULL

    cdef uint64_t hash_of(self, const Packet* p) noexcept nogil:
        return self.table.directed(p)

    cdef void take_over(self, const Packet* p, uint8_t state, uint32_t at, uint8_t before_state, uint32_t before,
                        double now) noexcept nogil:
        """The other engine has let bytes pass that this one does not know. Those of a message that was not whole are
        not to be completed; behind whole messages the next one may begin. Either way nothing else passes near them
        in the sequence space, since the server may have got any copy of them. A connection that a SYN begins
        elsewhere is judged anew.
        """
        cdef uint8_t packet[PASSED_MAX]
        cdef Decision made
        cdef Flow* flow
        cdef size_t size
        memset(&made, 0, sizeof(made))
        if now > self.clock:
            self.clock = now
        if state == STANDS_SYN:
            size = write_packet(packet, PASSED_MAX, p, at - 1, TCP_SYN, NULL, 0)
            self.judge_packet(packet, size, now, CHECKSUM_TRUST | RECALLED, &made)
            flow = self.table.find(p, False)
        elif self.drop_orphans:
            flow = self._create(p, &made)
            if flow != NULL:
                self.counts[COUNT_ORPHANS] += 1
                flow.orphan = 1
                if p.kind == PACKET_TCP:
                    open_window(&flow.window, READ_ANY, at)
                    self._bury_unknown(flow, at, state)
                    if state == STANDS_WHOLE:
                        add_start(&flow.window, START_LOWEST, 0)
                self.table.touch(flow, LANE_KEPT, self.clock)
        else:
            return
        if flow == NULL or p.kind != PACKET_TCP or not self.drop_orphans:
            return
        if before_state == STANDS_SYN:
            size = write_packet(packet, PASSED_MAX, p, before - 1, TCP_SYN, NULL, 0)
            self.judge_packet(packet, size, now, CHECKSUM_TRUST | RECALLED, &made)
        elif before_state == STANDS_MANY:
            flow.state = FLOW_BLOCKED
            flow.action = ACTION_DROP
            flow.list_index = NO_LIST
            flow.sealed = 1
        elif before_state == STANDS_BEGUN or before_state == STANDS_WHOLE:
            self._bury_unknown(flow, before, before_state)

    # ---- the Python side

    def share_secret(self, const uint8_t[::1] secret not None) -> None:
        """Hashes flows with these 16 bytes, so that another engine's hashes are the same. Before the first packet."""
        if secret.shape[0] != 16 or self.table.flows:
            raise ValueError("a secret has 16 bytes, and comes before any flow")
        self.table.share_secret(&secret[0])

    cdef object decision(self, const Decision* made):
        cdef const uint8_t* text = self.findings.text.data
        cdef Seen* s
        names = []
        for i in range(made.names):
            s = &self.seen[i]
            listed = s.list_index != NO_LIST
            name = Name(
                proto=PROTOCOLS[s.proto],
                host=plain_host(<bytes>text[s.host_at:s.host_at + s.host_size]) if s.host_size else None,
                path=_text(<bytes>text[s.target_at:s.target_at + s.target_size])
                if s.proto == PROTO_HTTP and not s.policy else None,
                action=ACTIONS[s.action],
                list=self.matcher.list_names[s.list_index] if listed else None,
                rule=f"{s.rule:08x}" if listed else None,
                ech=bool(s.ech),
                policy=POLICIES[s.policy],
                order=self.matcher.order_of(s.list_index, s.order) if listed else "",
            )
            if name not in names:
                names.append(name)
        listed = made.list_index != NO_LIST
        return DecisionRecord(
            accept=bool(made.accept), mark=MARKS[made.mark], action=ACTIONS[made.action],
            proto=PROTOCOLS[made.proto], names=tuple(names), reply=bool(made.reply), head=bool(made.head),
            client_seq=made.client_seq, client_ack=made.client_ack,
            reset_seqs=tuple(made.reset_seq[i] for i in range(made.reset_seqs)), reset_ack=made.reset_ack,
            quic_id=<bytes>made.quic_id[:made.quic_id_size], proven=bool(made.proven),
            list=self.matcher.list_names[made.list_index] if listed else None,
            rule=f"{made.rule:08x}" if listed else None)

    def judge(self, const uint8_t[::1] packet, double now, uint32_t flags=0):
        """Judges one IP packet at `now` seconds. `flags`: 1, the checksum was left to hardware; 2, ADDRESS_PROVEN."""
        cdef Decision made
        cdef const uint8_t* data = &packet[0] if packet.shape[0] else NULL
        self.judge_packet(data, packet.shape[0], now, flags, &made)
        return self.decision(&made)

    def judge_all(self, list packets, double now, uint32_t flags=0) -> int:
        """Judges packets (bytes) one after the other at one time; returns how many were accepted.

        The loop is compiled and makes no record of any packet: for benchmarks and fuzzing.
        """
        cdef Decision made
        cdef bytes packet
        cdef uint64_t accepted = 0
        for packet in packets:
            self.judge_packet(<const uint8_t*><const char*>packet, len(packet), now, flags, &made)
            accepted += made.accept
        return accepted

    def counters(self) -> dict:
        """All counters since the start, by name, and the table's present size in flows and bytes."""
        counted = {name: self.counts[i] for i, name in enumerate(COUNTER_NAMES)}
        counted.update(
            flows_expired=self.table.expired, evicted_settled=self.table.evicted[LANE_SETTLED],
            evicted_undecided=self.table.evicted[LANE_UNDECIDED] + self.table.evicted[LANE_PART],
            evicted_kept=self.table.evicted[LANE_KEPT] + self.table.evicted[LANE_KEPT_PART],
            table_flows=self.table.flows, table_bytes=self.table.memory)
        counted.update((f"quic_{name}", count) for name, count in (<dict>self.quic.counters).items())
        return counted


def _drops(key, policy) -> bool:
    if policy not in ("pass", "drop"):
        raise ValueError(f"{key} is {policy!r}, neither 'pass' nor 'drop'")
    return policy == "drop"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def plain_host(data: bytes) -> str:
    """A host as reports show it: lower case, no port, no final dot. Matching has its own, complete form."""
    host = _text(data.strip()).lower()
    if host.startswith("["):
        return host[:host.find("]") + 1] or host
    name, colon, port = host.rpartition(":")
    if colon and (port.isdigit() or not port):
        host = name
    return host.rstrip(".") or host


cdef inline void put_around(Around* around, const Packet* p) noexcept nogil:
    around.to = &p.destination[0]
    around.client = &p.source[0]
    around.to_size = around.client_size = 4 if p.family == 4 else 16
    around.ech = False


cdef bint _is_of_blocked(const Flow* flow, const Packet* p, bint proven) noexcept nogil:
    return covers(&flow.blocked, p.seq + (1 if p.flags & TCP_SYN else 0), <uint32_t>p.payload_size, proven)
