"""Live packets: one NFQUEUE, received many at a time, each answered exactly once.

In: packets that a kernel rule queued, read straight from the queue's netlink socket. Out: a verdict for every one
of them, with the flow's mark where the engine asks for one; `on_decision(packet, decision)` for those that
completed a name or are owed a reply. Never here: a Python object for any other packet, a packet held back to wait
for company, a look into the packet itself (the engine does that), a log line.

`netfilterqueue` opens the handle; its receive loop, its Packet and its callback are not used, because that loop
cuts packets at 4 kB, makes one system call a packet each way, and hides losses.

Verdicts. The kernel numbers the packets of a queue in the order in which it delivers them, and a batch verdict
answers every packet up to a number that is still unanswered. So a run of plain accepts is one message that names
the last of them. A packet that is dropped or marked gets a message of its own, and the run before it is closed
first: messages leave in packet order, the kernel carries them out in that order, and a later batch can therefore
only meet packets that are meant to pass.

Marks. A verdict carries the flow's mark (NFQA_CT, masked), and most kernels obey. One built without
CONFIG_NETFILTER_NETLINK_GLUE_CT ignores it without a word; there the mark goes to the connection tracker in a message
of its own, in the same system call, found by the packet's addresses and ports. That finds no flow whose destination
this very box has translated, and none before its first packet has passed; both are counted as `unmarked`.

Without conntrack (`marking`) the mark goes into a map of the kernel's programs, at once: before the verdict.

Handing over. A queue lives as long as its socket, whoever holds it open. Another reader can take the socket and go
on: what came meanwhile waits in it. Packets that the one before had received and not answered are dropped when the
next packet arrives; their senders send them again.

In hand. Before anything looks into a packet its flow's key stands on the board (inhand.pyx). Where a reader ended
with a packet in hand, the next one is told how it ended (`blame`) and refuses that packet's flow.

Begun. How each flow of a batch stands is noted (begun.pyx) before the verdicts leave: what the next reader finds
there has passed, or may have.

Losses. The kernel cannot deliver a packet when the socket's receive buffer is full; it then passes (fail-open) or
drops it, and counts that on the socket in both cases. A queue at its length limit passes packets without any
count, so with fail-open that limit is lifted and the buffer is the only one.
"""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netfilterqueue._impl cimport NetfilterQueue, nfq_fd

from edgeblock.core.cursor cimport Cursor, cursor, left, take
from edgeblock.core.engine cimport (
    ADDRESS_PROVEN, CHECKSUM_TRUST, CHECKSUM_VERIFY, COUNT_NAMES, COUNTERS, MARK_KEEP, Decision, Engine,
    Standing,
)
from edgeblock.core.packet cimport PACKET_TCP, PACKET_UDP, TCP_URG, Packet, view_packet
from edgeblock.source.begun cimport Begun
from edgeblock.source.counters cimport (BOARD_WORDS, ENGINE_COUNTS, HAND, HEARTBEAT, JUDGE_TIMES, LOOKUP_TIMES,
                                        QUEUE_COUNTERS, QUEUE_COUNTS, SAMPLE, VERDICT_TIMES, nanoseconds, note_time)
from edgeblock.source.inhand cimport Hand, condemn, lay_down, take_again, take_up
from edgeblock.source.marking cimport Marking
from edgeblock.source.messages cimport (CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_MARK, CTA_MARK_MASK, CTA_PROTO_DST_PORT,
                                        CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_ORIG,
                                        CTA_TUPLE_PROTO, CT_SIZE, CT_UPDATE, MARK_SIZE, MSG_PACKET, MSG_VERDICT,
                                        MSG_VERDICT_BATCH, NFQA_CT, NFQA_MARK, NFQA_SKB_CSUMNOTREADY,
                                        NFQA_VERDICT_HDR, NF_ACCEPT, NF_DROP, NLA_F_NESTED, NLMSG_ERROR,
                                        NLM_F_REQUEST, PLAIN_SIZE, Queued, UPDATE_SIZE, Verdict, nlmsgerr, nlmsghdr,
                                        read_packet, take_message, write_attribute)
from edgeblock.source.recall cimport Recall
from edgeblock.errors import SystemProblem
from edgeblock.source.queue import UNLIMITED, configure, configure_held, explain, kernel_queues, lost_messages

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t)
    uint16_t htons(uint16_t)

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int fd, mmsghdr* messages, unsigned int count, int flags, timespec* timeout)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    enum:
        MSG_DONTWAIT
        AF_INET
        AF_INET6

cdef enum:
    RECEIVE = 32           # packets in one system call; their answers leave in one, too, before the next
    AHEAD = 4              # so many of them are worth a look ahead
    PAUSES = 200           # behind urgent packets, in a second: no more than a few percent of a worker's time
    TCP_FLAGS = 13         # offset of that byte in a TCP header
    CAREFUL = 10           # seconds behind a reader that ended with a packet in hand: one packet at a time, so that
                           # the next that does so takes no other with it
    BURST = 1024           # packets in one drain(), a few milliseconds, before other events have their turn
    # A message is at most a 64 KiB packet and some attributes. The odd cache line on top keeps the heads of the
    # buffers, which are all that most packets use, from falling on the same few lines of the processor's cache.
    BUFFER = 65536 + 2048 + 64
    # All marked, each after a run of one.
    ANSWERS = RECEIVE * (PLAIN_SIZE + PLAIN_SIZE + CT_SIZE + 2 * MARK_SIZE + UPDATE_SIZE)


cdef inline bint is_urgent(const uint8_t* data, size_t size) noexcept nogil:
    # TCP with an urgent pointer, behind no extension headers.
    cdef size_t at = 40
    if size < 40:
        return False
    if data[0] >> 4 == 4:
        at = <size_t>(data[0] & 15) * 4
        return data[9] == 6 and size > at + TCP_FLAGS and data[at + TCP_FLAGS] & TCP_URG != 0
    return data[6] == 6 and size > at + TCP_FLAGS and data[at + TCP_FLAGS] & TCP_URG != 0


cdef class QueueReader:
    """One bound queue. Not thread-safe: everything is called from the event loop's thread, which may replace
    `engine.matcher` between two calls.

    Args:
        number: the queue, 0 to 65535.
        engine: judges every packet; it is given CLOCK_MONOTONIC seconds.
        on_decision: called with the packet (bytes, from the IP header on) and a `core.decision.Decision`. If it
            raises, the packet passes (`fail_open`) or is dropped, its flow is not marked, and it is counted.
        length: packets the kernel may hold unanswered; only without `fail_open` (see above: losses).
        buffer: bytes of socket receive buffer, as the kernel counts them.
        fail_open: packets that the kernel cannot hold pass unseen instead of being dropped.
        marks: mask of our bits in the conntrack mark, then their value for done, HTTP and blocked.
        proof_mark: bits of the packet's mark that say ADDRESS_PROVEN; they are cleared when it passes.
        board: at least BOARD["words"] writable 64-bit words to count on (see above); None: nobody wants to see.
        held: the open socket of another reader of this queue, which has ended; the reader closes it.
        held_marks: `marks_by_verdict` of that reader.
        held_counts: what of the socket's `losses()` has been counted already.
        blame: "nothing", or for the packet that the reader before had in hand on this board; "suspected" condemns its
            flow the second time.
        blame_seconds: for which packets of a condemned flow are not judged.
        pass_condemned: they pass; else they are dropped.

    Raises:
        SystemProblem: no permission, no NFQUEUE in the kernel, or the queue is taken.
    """

    cdef NetfilterQueue handle
    cdef readonly Engine engine
    cdef public Recall recall            # of what the first stage let by; None: there is no first stage
    cdef public Marking marking          # sets marks where conntrack keeps none; None: conntrack does
    cdef public Begun begun              # of flows whose beginning has passed; None: no reader comes after this one
    cdef Standing stands[RECEIVE]        # of packets whose verdicts have not left
    cdef int standing
    cdef object on_decision
    cdef readonly int number
    cdef readonly str failure            # the last exception of on_decision, for the log; None if there was none
    cdef bint fail_open
    cdef int fd

    cdef uint8_t* buffers
    cdef iovec vectors[RECEIVE]
    cdef mmsghdr headers[RECEIVE]
    cdef int received                    # datagrams in the buffers
    cdef int next                        # the first of them not looked at
    cdef Cursor datagram                 # what is left of the one being looked at
    cdef double now
    cdef Queued packet                   # the one being judged
    cdef Decision made

    cdef Verdict template
    cdef readonly bint marks_by_verdict  # the kernel obeys the mark in a verdict
    cdef uint32_t mark_of[4]             # by core.engine.Mark, network order
    cdef uint8_t answers[ANSWERS]
    cdef size_t filled
    cdef bint accepting                  # a run of plain accepts is open
    cdef uint32_t accepted_to            # and this is its last packet
    cdef bint restoring                  # some of them go on with another mark than they came with:
    cdef uint32_t restored               # this one, which all the others have, too
    cdef uint32_t proof_mark

    cdef uint64_t packets, octets, passed, dropped, marked, decisions
    cdef readonly uint64_t failures      # exceptions of on_decision
    cdef readonly bint paused            # `drain` has more in hand, and is to be called again
    cdef uint32_t pauses                 # in the second since
    cdef double pauses_since             # CLOCK_MONOTONIC seconds
    cdef uint64_t unreadable, cut, refused, unmarked, overruns, lost
    cdef readonly uint64_t condemned     # flows whose packet has ended the reader before
    cdef uint64_t condemned_packets
    cdef bint pass_condemned
    cdef unsigned int at_a_time          # packets received in one system call
    cdef double careful_until
    cdef Hand* hand                      # on the board, or `own_hand`
    cdef Hand own_hand
    cdef uint32_t drops_seen
    cdef uint32_t full_seen
    cdef bint inherited                  # packets may wait that the reader before has received and not answered
    cdef uint64_t[::1] board_view        # keeps the memory that `board` points to
    cdef uint64_t* board                 # NULL: none
    cdef uint64_t base[BOARD_WORDS]      # what was on it before us
    cdef bint timed                      # a packet of the batch is being timed

    def __cinit__(self):
        cdef int i
        self.fd = -1
        self.hand = &self.own_hand
        self.buffers = <uint8_t*>calloc(RECEIVE, BUFFER)
        if self.buffers == NULL:
            raise MemoryError
        for i in range(RECEIVE):
            self.vectors[i].iov_base = self.buffers + <size_t>i * BUFFER
            self.vectors[i].iov_len = BUFFER
            self.headers[i].msg_hdr.msg_iov = &self.vectors[i]
            self.headers[i].msg_hdr.msg_iovlen = 1

    def __init__(self, int number, Engine engine not None, on_decision, *, unsigned int length=8192,
                 int buffer=8 << 20, bint fail_open=True,
                 tuple marks=(0x30000000, 0x10000000, 0x20000000, 0x30000000), uint64_t[::1] board=None,
                 uint32_t proof_mark=0, int held=-1, bint held_marks=False, tuple held_counts=(0, 0),
                 str blame="nothing", double blame_seconds=120.0, bint pass_condemned=False):
        self.number = number
        self.engine = engine
        self.on_decision = on_decision
        self.fail_open = fail_open
        self.proof_mark = proof_mark
        mask, done, http, blocked = marks
        for index, value in enumerate((0, done, http, blocked)):
            self.mark_of[index] = htonl(value)
        self.template.flags = NLM_F_REQUEST
        self.template.queue = htons(number)
        self.template.header_size = 12
        self.template.header_type = NFQA_VERDICT_HDR
        self.template.ct_size = CT_SIZE
        self.template.ct_type = NFQA_CT | <uint16_t>NLA_F_NESTED
        self.template.mark_size = self.template.mask_size = 8
        self.template.mark_type = CTA_MARK
        self.template.mask_type = CTA_MARK_MASK
        self.template.mask = htonl(mask)
        length = UNLIMITED if fail_open else length
        try:
            if held >= 0:
                self.fd = held
                self.inherited = True
                self.marks_by_verdict = held_marks
                self.drops_seen, self.full_seen = (count & 0xFFFFFFFF for count in held_counts)
                configure_held(held, number, length, buffer, fail_open)
            else:
                self.handle = NetfilterQueue()
                self.fd = nfq_fd(self.handle.h)
                self.marks_by_verdict = configure(self.fd, number, length, buffer, fail_open)
            os.set_inheritable(self.fd, False)     # a child that kept it would keep the queue
        except OSError as problem:
            self.release()
            raise SystemProblem(explain(number, problem)) from None
        if board is not None:
            if board.shape[0] < BOARD_WORDS:
                raise ValueError(f"a board has at least {BOARD_WORDS} words")
            self.board_view = board
            self.board = &board[0]
            memcpy(self.base, self.board, sizeof(self.base))
            self.hand = <Hand*>(self.board + HAND)
        self.pass_condemned = pass_condemned
        self.at_a_time = RECEIVE
        if blame != "nothing":
            if self.hand.serial & 1:
                self.at_a_time = 1
                self.careful_until = <double>nanoseconds() * 1e-9 + CAREFUL
            self.condemned = condemn(self.hand, blame == "certain", <double>nanoseconds() * 1e-9, blame_seconds)
        lay_down(self.hand)

    def __dealloc__(self):
        free(self.buffers)

    def fileno(self) -> int:
        """The socket, for the event loop: readable when there is something to drain."""
        return self.fd

    def drain(self) -> int:
        """Judge and answer what the kernel has delivered, until the socket is dry or BURST packets were taken.

        Returns:
            how many messages were taken; less than BURST means that the socket was dry, and nothing is in hand.

        Raises:
            OSError: the socket is broken. Nothing else; what `on_decision` raises is counted, and only what is
            not an Exception (KeyboardInterrupt) comes through, after its packet is answered.
        """
        cdef int total = 0, taken = self.received - self.next
        if self.fd < 0:
            raise ValueError("the queue is closed")
        self.paused = False
        while True:
            try:
                while self.find_decision():
                    self.report()
            finally:
                self.flush()
            if self.paused:
                return BURST
            total += taken
            if total >= BURST:
                return total
            taken = self.receive()
            if taken == 0:
                return total

    def counters(self) -> dict[str, int]:
        """Everything counted since the queue was bound, and how many packets wait in it now.

        `lost` packets were never delivered to us: they passed with fail_open, else they were dropped.
        """
        cdef uint32_t drops
        kernel = {}
        if self.fd >= 0:
            drops = lost_messages(self.fd)
            self.lost += <uint32_t>(drops - self.drops_seen)     # the kernel's counter has 32 bits
            self.drops_seen = drops
            kernel = kernel_queues().get(self.number, {})
        return {
            "packets": self.packets, "bytes": self.octets, "passed": self.passed, "dropped": self.dropped,
            "marked": self.marked, "decisions": self.decisions, "failures": self.failures,
            "unreadable": self.unreadable, "cut": self.cut, "refused": self.refused, "unmarked": self.unmarked,
            "overruns": self.overruns, "condemned": self.condemned,
            "condemned_packets": self.condemned_packets, "lost": self.lost,
            "full": <uint32_t>(kernel.get("queue_dropped", self.full_seen) - self.full_seen),
            "waiting": kernel.get("waiting", 0),
        }

    def close(self) -> None:
        """Answer what has been delivered and let the queue go. What arrives after that is the kernel ruleset's
        to decide. May be called twice; the event loop must have stopped watching `fileno()`.
        """
        if self.fd < 0:
            return
        # The bound is for a queue whose rule is still there and that fills as fast as it is emptied.
        for _ in range(64):
            if self.drain() < BURST:
                break
        self.counters()
        self.release()

    cdef void release(self):
        if self.handle is None and self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        self.handle = None               # closes the socket, and with its last holder the kernel frees the queue

    # The packet path: no Python object, no allocation.

    cdef int receive(self) except -1 nogil:
        # Fill the buffers; how many messages there are, 0 when the socket is dry.
        cdef timespec clock
        cdef int count
        while True:
            count = recvmmsg(self.fd, self.headers, self.at_a_time, MSG_DONTWAIT, NULL)
            if count >= 0:
                break
            if errno == EAGAIN:
                if self.board != NULL:
                    self.board[HEARTBEAT] = nanoseconds()
                return 0
            if errno == ENOBUFS:         # packets were lost; the next call goes on after them
                self.overruns += 1
            elif errno != EINTR:
                with gil:
                    raise OSError(errno, f"receiving from queue {self.number}: {os.strerror(errno)}")
        clock_gettime(CLOCK_MONOTONIC, &clock)
        self.now = <double>clock.tv_sec + <double>clock.tv_nsec * 1e-9
        if self.board != NULL:
            self.board[HEARTBEAT] = <uint64_t>clock.tv_sec * 1000000000 + <uint64_t>clock.tv_nsec
        self.received = count
        self.next = 0
        if self.at_a_time < RECEIVE and self.now > self.careful_until:
            self.at_a_time = RECEIVE
        if count >= AHEAD:
            self.look_ahead()
        return count

    cdef void look_ahead(self) noexcept nogil:
        # What the engine remembers of these packets' flows is in no cache: it is fetched for all of them at once, so
        # that it is waited for once.
        cdef uint64_t hashes[RECEIVE]
        cdef nlmsghdr header
        cdef Cursor datagram, body
        cdef Queued packet
        cdef int i
        for i in range(self.received):
            hashes[i] = 0
            datagram = cursor(self.buffers + <size_t>i * BUFFER, self.headers[i].msg_len)
            if take_message(&datagram, &header, &body) and header.nlmsg_type == MSG_PACKET and \
                    read_packet(&body, &packet) and not take_up(self.hand, packet.data, packet.size, self.now):
                hashes[i] = self.engine.foresee(packet.data, packet.size)
        for i in range(self.received):
            if hashes[i]:
                self.engine.foresee_flow(hashes[i])
                if self.begun is not None:
                    self.begun.foresee(hashes[i])

    cdef int find_decision(self) except -1 nogil:
        # Judge and answer up to the next packet that Python must hear of: 1, or 0 when all have been seen.
        cdef nlmsghdr header
        cdef Cursor body
        cdef uint32_t flags
        while True:
            if self.paused:
                return 0
            if not left(&self.datagram):
                if self.next == self.received:
                    return 0
                # msg_len is what was copied, never more than the buffer.
                self.datagram = cursor(self.buffers + <size_t>self.next * BUFFER, self.headers[self.next].msg_len)
                self.next += 1
            if not take_message(&self.datagram, &header, &body):
                self.unreadable += 1
                self.datagram.at = self.datagram.end
                continue
            if header.nlmsg_type == NLMSG_ERROR:
                self.note_refusal(&body)
                continue
            if header.nlmsg_type != MSG_PACKET:
                continue
            self.packets += 1
            if not read_packet(&body, &self.packet) or self.packet.protocol not in (0x0800, 0x86DD):
                self.unreadable += 1
                if self.packet.numbered:     # without a number it passes with the next run
                    self.drop_inherited()
                    self.answer(True, MARK_KEEP)
                continue
            self.drop_inherited()
            self.octets += self.packet.size
            self.cut += self.packet.cut
            if take_up(self.hand, self.packet.data, self.packet.size, self.now):
                self.condemned_packets += 1
                self.answer(self.pass_condemned, MARK_KEEP)
                continue
            if self.begun is not None and self.begun.until > self.now:
                self.begun.restore(self.engine, self.packet.data, self.packet.size, self.now)
            if self.recall is not None:
                self.recall.before(self.engine, self.packet.data, self.packet.size, self.now)
            flags = CHECKSUM_TRUST if self.packet.skb_info & NFQA_SKB_CSUMNOTREADY else CHECKSUM_VERIFY
            if self.packet.mark & self.proof_mark:
                flags |= ADDRESS_PROVEN
            if self.board != NULL and not self.packets & SAMPLE:
                self.judge_timed(flags)
            else:
                self.engine.judge_packet(self.packet.data, self.packet.size, self.now, flags, &self.made)
            if self.made.accept and is_urgent(self.packet.data, self.packet.size):
                self.pause()
            if self.begun is not None and self.engine.standing(&self.made, &self.stands[self.standing]):
                self.standing += 1
                if self.standing == RECEIVE:
                    self.note_begun()
            if self.made.names or self.made.reply:
                return 1
            self.answer(self.made.accept, self.made.mark)

    cdef void pause(self) noexcept nogil:
        # What is urgent leaves by itself, and what comes behind it a moment later. A server that reads up to the
        # urgent byte takes what is there behind it only when it is told of more (nginx waits for the next event), so
        # the two must not arrive together just because they were judged together.
        if self.now - self.pauses_since >= 1.0 or self.now < self.pauses_since:
            self.pauses_since = self.now
            self.pauses = 0
        if self.pauses < PAUSES:
            self.pauses += 1
            self.paused = True

    cdef int answer(self, bint accept, uint8_t mark) except -1 nogil:
        if accept:
            self.passed += 1
        else:
            self.dropped += 1
        if accept and mark == MARK_KEEP:
            # One message answers a run, and says one mark for all of it.
            if self.accepting and self.restored != self.packet.mark & ~self.proof_mark:
                self.close_run()
            if not self.accepting:
                self.accepting = True
                self.restoring = False
                self.restored = self.packet.mark & ~self.proof_mark
            self.restoring |= self.packet.mark & self.proof_mark != 0
            self.accepted_to = self.packet.id
            return 0
        self.close_run()
        if mark == MARK_KEEP or self.marks_by_verdict and self.marking is None:
            self.put(MSG_VERDICT, accept, self.packet.id, mark, accept and self.packet.mark & self.proof_mark != 0,
                     self.packet.mark & ~self.proof_mark)
        else:
            self.put_mark_and_verdict(accept, mark)
        self.marked += mark != MARK_KEEP
        return 0

    cdef int close_run(self) except -1 nogil:
        if self.accepting:
            self.accepting = False
            self.put(MSG_VERDICT_BATCH, True, self.accepted_to, MARK_KEEP, self.restoring, self.restored)
        return 0

    cdef int drop_inherited(self) except -1 nogil:
        # Everything before the first packet that we see. There may be nothing: the number tells the refusal apart.
        if self.inherited:
            self.inherited = False
            self.template.sequence = 1
            self.put(MSG_VERDICT_BATCH, False, self.packet.id - 1, MARK_KEEP, False, 0)
            self.template.sequence = 0
        return 0

    cdef int put(self, uint16_t kind, bint accept, uint32_t id, uint8_t mark, bint restore,
                 uint32_t restored) except -1 nogil:
        # With `restore` the packet goes on with that mark of its own.
        cdef Verdict message = self.template
        cdef uint32_t size, value = htonl(restored)
        message.size = PLAIN_SIZE if mark == MARK_KEEP else PLAIN_SIZE + CT_SIZE
        message.type = kind
        message.verdict = htonl(NF_ACCEPT if accept else NF_DROP)
        message.id = htonl(id)
        message.mark = self.mark_of[mark & 3]
        size = message.size
        if restore:
            message.size += MARK_SIZE
        if self.filled + message.size > ANSWERS:
            self.send_answers()
        memcpy(self.answers + self.filled, &message, size)
        if restore:
            write_attribute(self.answers + self.filled + size, NFQA_MARK, &value, 4)
        self.filled += message.size
        return 0

    cdef int put_mark_and_verdict(self, bint accept, uint8_t mark) except -1 nogil:
        cdef Packet seen
        cdef bint proven = self.packet.mark & self.proof_mark != 0
        cdef uint32_t restored = self.packet.mark & ~self.proof_mark
        view_packet(self.packet.data, self.packet.size, &seen)
        # The mark first, so that it is there before the server can answer. But the connection tracker knows a UDP
        # flow only once its first packet has passed; nothing depends on the server's answer there.
        if seen.kind == PACKET_UDP and accept:
            self.put(MSG_VERDICT, accept, self.packet.id, MARK_KEEP, proven, restored)
            self.put_mark(&seen, mark)
        else:
            self.put_mark(&seen, mark)
            self.put(MSG_VERDICT, accept, self.packet.id, MARK_KEEP, accept and proven, restored)
        return 0

    cdef int put_mark(self, const Packet* seen, uint8_t mark) except -1 nogil:
        cdef uint16_t address = 4 if seen.family == 4 else 16
        cdef uint16_t source_kind = CTA_IP_V4_SRC if seen.family == 4 else CTA_IP_V6_SRC
        cdef uint16_t addresses = 2 * (4 + address), protocol = 8 + 8 + 8
        cdef uint16_t source_port = htons(seen.source_port), destination_port = htons(seen.destination_port)
        cdef nlmsghdr header
        cdef uint8_t* start
        cdef uint8_t* at
        if self.marking is not None:
            self.unmarked += not self.marking.put(seen, mark)
            return 0
        if seen.kind != PACKET_TCP and seen.kind != PACKET_UDP:
            self.unmarked += 1
            return 0
        if self.filled + UPDATE_SIZE > ANSWERS:
            self.send_answers()
        start = self.answers + self.filled
        at = start + sizeof(header)
        at[0] = AF_INET if seen.family == 4 else AF_INET6      # struct nfgenmsg
        at[1] = at[2] = at[3] = 0
        at = write_attribute(at + 4, CTA_TUPLE_ORIG, NULL, 4 + addresses + 4 + protocol)
        at = write_attribute(at, CTA_TUPLE_IP, NULL, addresses)
        at = write_attribute(at, source_kind, seen.source, address)
        at = write_attribute(at, source_kind + 1, seen.destination, address)
        at = write_attribute(at, CTA_TUPLE_PROTO, NULL, protocol)
        at = write_attribute(at, CTA_PROTO_NUM, &seen.protocol, 1)
        at = write_attribute(at, CTA_PROTO_SRC_PORT, &source_port, 2)
        at = write_attribute(at, CTA_PROTO_DST_PORT, &destination_port, 2)
        at = write_attribute(at, CTA_MARK, &self.mark_of[mark & 3], 4)
        at = write_attribute(at, CTA_MARK_MASK, &self.template.mask, 4)
        memset(&header, 0, sizeof(header))
        header.nlmsg_len = <uint32_t>(at - start)
        header.nlmsg_type = CT_UPDATE
        header.nlmsg_flags = NLM_F_REQUEST
        memcpy(start, &header, sizeof(header))
        self.filled += header.nlmsg_len
        return 0

    cdef void note_refusal(self, Cursor* body) noexcept nogil:
        # The kernel's answer to a message of ours that it could not carry out: what it was about has gone.
        cdef const uint8_t* raw
        cdef nlmsgerr what
        if not take(body, sizeof(nlmsgerr), &raw):
            self.unreadable += 1
            return
        memcpy(&what, raw, sizeof(nlmsgerr))
        if what.msg.nlmsg_type == CT_UPDATE:
            self.unmarked += 1
        elif not what.msg.nlmsg_seq:
            self.refused += 1

    cdef void judge_timed(self, uint32_t flags) noexcept nogil:
        cdef uint64_t names = self.engine.counts[COUNT_NAMES], began = nanoseconds(), taken
        self.engine.judge_packet(self.packet.data, self.packet.size, self.now, flags, &self.made)
        taken = nanoseconds() - began
        note_time(self.board + JUDGE_TIMES, taken)
        if self.engine.counts[COUNT_NAMES] != names:
            note_time(self.board + LOOKUP_TIMES, taken)
        self.timed = True

    cdef void publish(self) noexcept nogil:
        cdef uint64_t* at = self.board + QUEUE_COUNTS
        cdef uint64_t* base = self.base + QUEUE_COUNTS
        cdef uint64_t[QUEUE_COUNTERS] own = [
            self.packets, self.octets, self.passed, self.dropped, self.marked, self.decisions, self.failures,
            self.unreadable, self.cut, self.refused, self.unmarked, self.overruns, self.condemned,
            self.condemned_packets]
        cdef int i
        for i in range(QUEUE_COUNTERS):
            at[i] = base[i] + own[i]
        for i in range(COUNTERS):
            self.board[ENGINE_COUNTS + i] = self.base[ENGINE_COUNTS + i] + self.engine.counts[i]

    cdef int flush(self) except -1 nogil:
        lay_down(self.hand)
        self.close_run()
        if self.board != NULL:
            self.publish()
        self.send_answers()
        if self.timed:
            self.timed = False
            note_time(self.board + VERDICT_TIMES, nanoseconds() - <uint64_t>(self.now * 1e9))
        return 0

    cdef void note_begun(self) noexcept nogil:
        cdef int i
        for i in range(self.standing):
            self.begun.note(&self.stands[i], self.now)
        self.standing = 0

    cdef int send_answers(self) except -1 nogil:
        # The kernel carries out the whole of it before send returns, or, short of memory, none of it.
        if self.standing:
            self.note_begun()
        while self.filled:
            if send(self.fd, self.answers, self.filled, 0) >= 0:
                self.filled = 0
            elif errno != EINTR and errno != ENOBUFS:
                with gil:
                    raise OSError(errno, f"sending verdicts to queue {self.number}: {os.strerror(errno)}")
        return 0

    cdef report(self):
        # The one place where a failure becomes a verdict. Whatever happens, the packet is answered.
        cdef bint accept = self.fail_open
        cdef uint8_t mark = MARK_KEEP
        then = None
        self.flush()                     # nobody waits for Python
        take_again(self.hand)
        self.decisions += 1
        try:
            then = self.on_decision(PyBytes_FromStringAndSize(<char*>self.packet.data, self.packet.size),
                                    self.engine.decision(&self.made))
            accept = self.made.accept
            mark = self.made.mark
        except Exception as problem:
            self.note_failure(problem)
        finally:
            self.answer(accept, mark)
        if then is None:
            return
        # What is sent is sent when the mark is there: the client acknowledges each piece of an answer at once, and
        # the server, which has been reset, would answer that with a reset of its own.
        self.flush()
        try:
            then()
        except Exception as problem:
            self.note_failure(problem)

    cdef note_failure(self, problem):
        self.failures += 1
        self.failure = f"{type(problem).__name__}: {problem}"
