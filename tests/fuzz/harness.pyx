"""What the fuzzer calls: bytes in, one game with the compiled parts, 0 out, or the process aborts.

Each game states a sentence that has to hold for any bytes, and aborts the process where it does not:
    NAME of a reader   fed whole and fed in pieces (and copied in between) it says the same, and spends what it should
    packets            any packets, judged one after the other: the table's account is right and nothing is left over
    hide               whatever is sent around a request with a listed name, the server never has all of it
    innocent           whatever is sent without a listed name, no packet is dropped that a server would take
    initials, hide-quic    as initials.pyx says
    recall             hide, where the kernel has let the first bytes by and the engine is told of them afterwards
    netlink            what a queue's messages say of a packet lies within them, and attributes are read as written
    answers, defragment, answered, marking    as parts.py says
Never here: a Python object on the way of a compiled game, so that it stays fast.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, getenv, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from edgeblock.core.blocked cimport room_of
from edgeblock.core.cursor cimport Cursor, cursor, left
from edgeblock.core.engine cimport (CHECKSUM_TRUST, COUNT_JUNK_CHECKSUM, COUNT_JUNK_HOP_BY_HOP, COUNT_JUNK_NO_ACK,
                                    COUNT_OVERFLOWS, MARK_BLOCKED, Decision, Engine, Passed)
from edgeblock.core.findings cimport Finding, Findings, clear_findings, free_findings
from edgeblock.core.flow cimport FLOW_COST, LANES, Flow, FlowTable, Quic
from edgeblock.core.matcher cimport ACTION_RESET, Around, Match, Matcher
from edgeblock.core.packet cimport PACKET_TCP, PACKET_UDP, Packet, checksum_is_right, view_packet
from edgeblock.core.reader cimport (DONE, FOUND, NEED_MORE, NOT_MINE, STATE_SIZE, STATE_WORDS, Outcome, Reader, Step)
from edgeblock.core.readers cimport MAX_READERS, readers
from edgeblock.netfilter.stage1.structures cimport (HELLO_MAX, NEAR, PIECES, STARTS, SYNS, Hello as Kept,
                                                    PassedSyn, Remembered)
from edgeblock.source.messages cimport Queued, nlmsghdr, read_packet, take_attribute, take_message, write_attribute
from edgeblock.core.window cimport memory_of
from edgeblock.source.recall cimport Recall

from edgeblock.core.readers import KINDS

from initials cimport play_hidden, play_initials

cdef extern from *:
    """
    #include <stddef.h>
    size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));
    static size_t allocated_bytes(void) {
        return __sanitizer_get_current_allocated_bytes ? __sanitizer_get_current_allocated_bytes() : 0;
    }
    """
    size_t allocated_bytes() nogil

cdef enum:
    MAX_STREAM = 4096          # of a built-in stream
    MAX_STREAMS = 64
    MAX_OPS = 40
    MAX_TRACE = 1 << 16        # digest buffer of a parser run
    PLACES = 4                 # hellos that the kernel keeps

cdef enum Game:                # before these each reader's, by its kind
    GAME_PACKETS = MAX_READERS
    GAME_HIDE                  # from here on games of streams
    GAME_INNOCENT
    GAME_INITIALS
    GAME_HIDE_QUIC
    GAME_RECALL
    GAME_NETLINK
    GAME_PARTS                 # parts.py's, in the order of PARTS

PARTS = ("answers", "defragment", "answered", "marking")
GAMES = KINDS | {name: MAX_READERS + place for place, name in enumerate(
    ("packets", "hide", "innocent", "initials", "hide-quic", "recall", "netlink", *PARTS))}

cdef struct Stream:
    uint8_t* data
    uint32_t size
    uint32_t needed            # a server that has this much of the start has the listed name
    int32_t urgent             # this byte is urgent: a server that takes it out of band reads the rest; -1: none

cdef struct Bytes:             # the fuzzer's input; zeros beyond its end
    const uint8_t* at
    const uint8_t* end

cdef struct Trace:             # what a reader said, to be compared with what it says another time
    uint64_t digest
    uint32_t events
    uint8_t outcome
    size_t consumed

cdef Engine engine = None
cdef Engine lenient = None
cdef Engine strict = None
cdef object check = None
cdef list parts = []
cdef Recall recall = None
cdef Kept* kept = NULL         # the kernel's memory of hellos
cdef public int first_of_streams = GAME_HIDE
cdef bytes listing = b""
cdef public long long slowest = 0      # nanoseconds of the dearest packet of the input that is being played
cdef Stream listed[MAX_STREAMS]
cdef Stream innocent[MAX_STREAMS]
cdef int listed_count = 0
cdef int innocent_count = 0
cdef uint64_t runs = 0
cdef bint telling = False


cdef class OneName(Matcher):
    """Lists blocked.example.com and its subdomains. The rest of the canonical form is another part's."""

    def __cinit__(self):
        self.list_names = ("listed",)

    cdef bint match_name(self, uint8_t proto, const uint8_t* host, size_t size,
                         const uint8_t* target, size_t target_size, const Around* around,
                         Match* found) noexcept nogil:
        cdef const char* name = b"blocked.example.com"
        cdef size_t i, at
        while size and host[size - 1] >= 0x30 and host[size - 1] <= 0x39:
            size -= 1
        if size and host[size - 1] == 0x3A:
            size -= 1
        while size and host[size - 1] == 0x2E:
            size -= 1
        found.spent = found.of_ech = 0
        if size < 19 or size > 19 and host[size - 20] != 0x2E:
            return False
        at = size - 19
        for i in range(19):
            if (host[at + i] | 0x20) != (<uint8_t>name[i] | 0x20):
                return False
        found.action = ACTION_RESET
        found.list_index = 0
        found.rule = 1
        return True


cdef void fail(const char* what) noexcept nogil:
    fprintf(stderr, b"DISAGREEMENT: %s\n", what)
    abort()


def prepare(listed_streams, innocent_streams, reference, plays) -> None:
    """Streams as (bytes, needed, urgent offset or -1); `reference(game, data, answer)` is the slow second opinion;
    `plays` are the games of PARTS, by name."""
    global engine, lenient, strict, check, listed_count, innocent_count, telling, recall, kept
    telling = getenv(b"EDGEBLOCK_FUZZ_TELL") != NULL
    engine = Engine(OneName(), idle=1e9, settle_packets=0, report=False)
    lenient = Engine(Matcher(), idle=1e9, settle_packets=0, conflict="pass", work="pass", report=True)
    strict = Engine(OneName(), idle=1e9, memory_full="drop")
    check = reference
    parts.extend(plays[name] for name in PARTS)
    recall = Recall.__new__(Recall)         # of no kernel: its maps are ours
    recall.places = PLACES
    kept = <Kept*>malloc(PLACES * sizeof(Kept))
    recall.hellos = <const uint8_t*>kept
    for stream in listed_streams:
        listed[listed_count] = _stream(stream)
        listed_count += 1
    for stream in innocent_streams:
        innocent[innocent_count] = _stream(stream)
        innocent_count += 1


cdef Stream _stream(given):
    cdef bytes data = given[0]
    cdef Stream s
    if len(data) > MAX_STREAM:
        raise ValueError("the stream is too long")
    s.size = len(data)
    s.data = <uint8_t*>malloc(s.size)
    memcpy(s.data, <const uint8_t*><const char*>data, s.size)
    s.needed = given[1]
    s.urgent = given[2]
    return s


# ---- input


cdef inline uint32_t _u8(Bytes* b) noexcept nogil:
    if b.at == b.end:
        return 0
    b.at += 1
    return (b.at - 1)[0]


cdef inline uint32_t _u16(Bytes* b) noexcept nogil:
    cdef uint32_t high = _u8(b)
    return (high << 8) | _u8(b)


cdef inline uint32_t _mix(uint32_t* state) noexcept nogil:
    # xorshift32: where to cut must not cost input bytes.
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 17
    state[0] ^= state[0] << 5
    return state[0]


cdef inline void _tell(Trace* t, const uint8_t* data, size_t size, uint64_t kind) noexcept nogil:
    cdef size_t i
    t.events += 1
    t.digest = (t.digest ^ kind) * 0x100000001B3ULL
    for i in range(size):
        t.digest = (t.digest ^ data[i]) * 0x100000001B3ULL
    t.digest = (t.digest ^ (size + 0x10000)) * 0x100000001B3ULL


cdef bint _same_trace(const Trace* a, const Trace* b) noexcept nogil:
    # Where a reader gives up, what it has taken of a piece means nothing.
    return (a.digest == b.digest and a.events == b.events and a.outcome == b.outcome
            and (a.consumed == b.consumed or a.outcome == NOT_MINE))


cdef inline uint8_t* _piece(const uint8_t* data, size_t size, uint32_t* cuts, size_t* length) noexcept nogil:
    # A piece of its own allocation, so that a read beyond it is seen.
    cdef uint32_t draw = _mix(cuts)
    cdef uint8_t* piece
    length[0] = 1 + (draw >> 8) % (1 + ((draw & 0xFF) * size >> 8))
    if length[0] > size:
        length[0] = size
    piece = <uint8_t*>malloc(length[0])
    memcpy(piece, data, length[0])
    return piece


# ---- the readers


cdef void _run(const Reader* reader, const uint8_t* data, size_t size, uint32_t cuts, Trace* t) noexcept nogil:
    cdef uint64_t[STATE_WORDS] state, copy
    cdef Findings found
    cdef Step step
    cdef Cursor c
    cdef const uint8_t* came
    cdef const uint8_t* began = NULL           # of the message, in this piece
    cdef size_t length
    cdef uint8_t* piece
    cdef Outcome outcome = NEED_MORE
    cdef uint32_t turn = <uint32_t>size        # which way is followed: the same whole and in pieces
    memset(state, 0, sizeof(state))
    memset(&found, 0, sizeof(Findings))
    memset(t, 0, sizeof(Trace))
    while size and outcome == NEED_MORE:
        length = size
        piece = _piece(data, size, &cuts, &length) if cuts else NULL
        c = cursor(piece if piece != NULL else data, length)
        began = NULL
        while True:
            memset(&step, 0, sizeof(Step))
            clear_findings(&found)
            came = c.at
            outcome = reader.read(state, &c, &step, &found)
            if step.cost < 0 or step.cost > (c.at - came + 1) << 20:
                fail(b"reader: a cost that cannot be")
            _tell_found(&found, t)
            if outcome == FOUND and step.aside:
                _tell(t, step.taken, step.taken_size, 1)
            if step.ways and outcome == FOUND:
                _tell(t, NULL, 0, step.ways)
                reader.choose(state, <uint8_t>(turn % step.ways))
                turn = turn * 5 + 1
            if outcome == DONE:
                if c.at == began:
                    fail(b"reader: a message without a byte")
                began = c.at
                _tell(t, NULL, 0, 99 + step.succeeded)
                if reader.release != NULL:
                    reader.release(state)
                memset(state, 0, sizeof(state))
                if left(&c) == 0:
                    outcome = NEED_MORE
                    break
            elif outcome != FOUND:
                break
        if outcome == NEED_MORE and left(&c):
            fail(b"reader: NEED_MORE with bytes left")
        if outcome == NOT_MINE and reader.lose != NULL:
            fail(b"reader: gave up, and nobody reads on")
        t.consumed += length - left(&c)
        free(piece)
        data += length
        size -= length
        if cuts & 1:            # go on with a copy
            memcpy(copy, state, sizeof(state))
            if reader.copy != NULL and not reader.copy(copy, state):
                fail(b"reader: no copy")
            if not reader.same(copy, state) or reader.digest(copy) != reader.digest(state):
                fail(b"reader: a copy is not the same")
            if reader.release != NULL:
                reader.release(state)
            memcpy(state, copy, sizeof(state))
    t.outcome = outcome
    if reader.release != NULL:
        reader.release(state)
    free_findings(&found)


cdef void _tell_found(const Findings* found, Trace* t) noexcept nogil:
    cdef const Finding* f
    cdef uint32_t i
    for i in range(found.count):
        f = &found.items[i]
        if f.path_at > f.target_size:
            fail(b"reader: the path begins behind the target")
        _tell(t, found.text.data + f.host_at, f.host_size, f.kind | f.ech << 2 | f.head << 3 | f.connect << 4)
        _tell(t, found.text.data + f.target_at, f.target_size, f.path_at << 1 | f.unsure)


# ---- packets


cdef void _judge(Engine e, const uint8_t* packet, size_t size, double now, uint32_t flags,
                 Decision* made) noexcept nogil:
    global slowest
    cdef timespec begin, end
    cdef long long taken
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin)
    e.judge_packet(packet, size, now, flags, made)
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end)
    taken = (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec
    if taken > slowest:
        slowest = taken


cdef void _forget(FlowTable table) noexcept nogil:
    # Every flow goes; then the account must be empty.
    cdef int lane
    for lane in range(<int>LANES):
        while table.lanes[lane].oldest != NULL:
            table.remove(table.lanes[lane].oldest)
    if table.flows != 0 or table.memory != 0:
        fail(b"the table's account is not empty without flows")


cdef void _audit(FlowTable table) noexcept nogil:
    cdef uint64_t memory = 0, flows = 0
    cdef Flow* flow
    cdef int lane
    for lane in range(<int>LANES):
        flow = table.lanes[lane].oldest
        while flow != NULL:
            if memory_of(&flow.window) > 1 << 30:
                fail(b"a window's account is below zero")
            if flow.held != memory_of(&flow.window) + room_of(&flow.blocked) + (
                    <uint32_t>sizeof(Quic) if flow.quic != NULL else 0):
                fail(b"a flow's bytes are not those of the table")
            memory += sizeof(Flow) + FLOW_COST + flow.held
            flows += 1
            flow = flow.newer
    if memory != table.memory or flows != table.flows:
        fail(b"the table's account is not the sum of its flows")


cdef void _play_packets(Engine e, Bytes b) noexcept nogil:
    # Each packet: two bytes of length, one of flags and clock, the packet.
    cdef uint32_t size, how
    cdef uint8_t* packet
    cdef double now = 0.0
    cdef Decision made
    cdef Packet view
    while b.at != b.end:
        how = _u8(&b)
        size = _u16(&b)
        if size > <size_t>(b.end - b.at):
            size = <uint32_t>(b.end - b.at)
        packet = <uint8_t*>malloc(size)
        memcpy(packet, b.at, size)
        b.at += size
        now += how >> 2
        view_packet(packet, size, &view)
        if view.kind == PACKET_TCP or view.kind == PACKET_UDP:
            if view.payload < packet or view.payload + view.payload_size > packet + size:
                fail(b"packet: the payload is outside the packet")
            if checksum_is_right(&view) != _slow_checksum(&view):
                fail(b"packet: the checksum")
        _judge(e, packet, size, now, how & 1, &made)
        free(packet)
    _audit(e.table)


cdef bint _slow_checksum(const Packet* p) noexcept nogil:
    # RFC 1071 as written, byte by byte.
    cdef uint64_t total = p.segment_size + p.protocol
    cdef size_t i
    if p.cut or p.source_routed or p.segment_size < 8:
        return True
    if p.kind == PACKET_UDP and p.family == 4 and p.segment[6] == 0 and p.segment[7] == 0:
        return True
    for i in range(16):
        total += <uint64_t>(p.source[i] + p.destination[i]) << (8 if i % 2 == 0 else 0)
    for i in range(p.segment_size):
        total += <uint64_t>p.segment[i] << (8 if i % 2 == 0 else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


cdef enum Op:
    OP_TRUE = 0                # bytes of the stream where they belong
    OP_FAKE = 4                # other bytes at the same place
    OP_BELOW = 8               # true bytes with fake ones before them
    OP_FLAGS = 9               # no payload, any flags
    OP_SYN_DATA = 10           # true bytes in a SYN
    OP_SYN_FAKE = 11           # fake bytes in a SYN
    OP_JUNK = 12               # no ACK flag, or a wrong checksum
    OP_REPEAT = 13             # the packet before, once more
    OP_OTHER = 14              # a packet of another flow
    OP_CLOCK = 15


cdef struct Play:
    const Stream* stream
    uint32_t isn
    double now
    uint8_t six
    uint8_t taken[MAX_STREAM]  # true bytes that the server has been let have
    uint8_t buffer[70000]
    uint32_t size              # of the packet in `buffer`
    uint32_t true_at           # the true bytes in it
    uint32_t true_size
    uint8_t opened             # the SYN of the stream was let through
    uint8_t must_pass          # no server and no policy has a reason to drop it
    uint8_t blocked
    uint8_t trust


cdef void _packet(Play* play, uint32_t seq, uint8_t flags, uint16_t urgent, const uint8_t* data, uint32_t size,
                  uint16_t port) noexcept nogil:
    cdef uint8_t* p = play.buffer
    cdef uint32_t head = 60 if play.six else 40
    cdef uint32_t total = head + size
    memset(p, 0, head)
    if play.six:
        p[0] = 0x60
        p[4] = <uint8_t>((20 + size) >> 8)
        p[5] = <uint8_t>(20 + size)
        p[6] = 6
        p[23] = 2
        p[39] = 7
        p += 40
    else:
        p[0] = 0x45
        p[2] = <uint8_t>(total >> 8)
        p[3] = <uint8_t>total
        p[9] = 6
        p[12] = 10
        p[15] = 2
        p[16] = 203
        p[19] = 7
        p += 20
    p[0] = <uint8_t>(port >> 8)
    p[1] = <uint8_t>port
    p[3] = 80
    p[4] = <uint8_t>(seq >> 24)
    p[5] = <uint8_t>(seq >> 16)
    p[6] = <uint8_t>(seq >> 8)
    p[7] = <uint8_t>seq
    p[12] = 0x50
    p[13] = flags
    p[18] = <uint8_t>(urgent >> 8)
    p[19] = <uint8_t>urgent
    if size:
        memcpy(p + 20, data, size)
    play.size = total
    play.true_size = 0
    play.must_pass = 1
    play.trust = 1


cdef void _true_packet(Play* play, uint32_t at, uint32_t size, uint8_t flags) noexcept nogil:
    cdef const Stream* s = play.stream
    cdef uint16_t urgent = 0
    if at >= s.size:
        at = s.size - 1
    if size > s.size - at:
        size = s.size - at
    if s.urgent >= 0 and <uint32_t>s.urgent >= at and <uint32_t>s.urgent < at + size:
        urgent = <uint16_t>(s.urgent - at + 1)
        flags |= 0x20
    _packet(play, play.isn + 1 + at - (1 if flags & 2 else 0), flags, urgent, s.data + at, size, 40000)
    play.true_at = at
    play.true_size = size


cdef void _tell_packet(const Play* play, const Decision* made) noexcept nogil:
    # For whoever reads a finding: EDGEBLOCK_FUZZ_TELL=1.
    cdef const uint8_t* tcp = play.buffer + (40 if play.six else 20)
    cdef uint32_t seq = (<uint32_t>tcp[4] << 24) | (<uint32_t>tcp[5] << 16) | (<uint32_t>tcp[6] << 8) | tcp[7]
    cdef uint32_t i
    fprintf(stderr, b"%c port %d at %d flags %02x size %d true %d accept %d mark %d action %d | ",
            0x2B if play.true_size else 0x2D, (<int>tcp[0] << 8) | tcp[1], <int32_t>(seq - play.isn - 1),
            tcp[13], <int>(tcp + 20 - play.buffer) * -1 + <int>play.size, play.true_size, made.accept, made.mark,
            made.action)
    for i in range(<uint32_t>(tcp + 20 - play.buffer), play.size if play.size < 100 else 100):
        fprintf(stderr, b"%02x", play.buffer[i])
    fprintf(stderr, b"\n")


cdef void _send(Engine e, Play* play, bint strict) noexcept nogil:
    cdef Decision made
    cdef uint32_t i
    cdef const Stream* s = play.stream
    cdef uint8_t* packet = <uint8_t*>malloc(play.size)
    memcpy(packet, play.buffer, play.size)
    _judge(e, packet, play.size, play.now, CHECKSUM_TRUST if play.trust else 0, &made)
    free(packet)
    if telling:
        _tell_packet(play, &made)
    if made.mark == MARK_BLOCKED:
        play.blocked = 1
    if strict:
        if not made.accept and play.must_pass:
            fail(b"a packet was dropped without a listed name")
        return
    if made.accept and play.true_size and play.opened:
        for i in range(play.true_size):
            play.taken[play.true_at + i] = 1
        for i in range(s.needed):
            if not play.taken[i]:
                return
        fail(b"the server has the whole listed request")


cdef void _open(Engine e, Play* play, bint strict) noexcept nogil:
    _packet(play, play.isn, 2, 0, NULL, 0, 40000)
    _send(e, play, strict)
    play.opened = 1


cdef void _fill(Bytes* b, uint32_t how, const Play* play, uint32_t at, uint8_t* out, uint32_t size) noexcept nogil:
    # Fake bytes: zeros, another stream's, the same with some changed, the input's own.
    cdef uint32_t i
    cdef const Stream* other = &innocent[how % innocent_count]
    cdef const Stream* s = play.stream
    how >>= 3
    if how == 0:
        memset(out, 0, size)
    elif how == 1:
        for i in range(size):
            out[i] = other.data[(at + i) % other.size]
    elif how == 2:
        for i in range(size):
            out[i] = other.data[i % other.size]
    elif how == 3:
        for i in range(size):
            out[i] = s.data[(at + i) % s.size]
        for i in range(1 + size // 8):
            out[_u8(b) % size] = <uint8_t>_u8(b)
    else:
        for i in range(size):
            out[i] = <uint8_t>_u8(b)


cdef void _play_stream(Engine e, Bytes b, const Stream* streams, int count, bint strict) noexcept nogil:
    cdef Play play
    cdef uint8_t fake[4096]
    cdef uint32_t how, op, at, size, below, step, ops
    cdef const Stream* s
    memset(&play, 0, sizeof(Play))
    s = &streams[_u8(&b) % count]
    play.stream = s
    how = _u8(&b)
    play.six = how & 1
    play.isn = 1000 if how & 6 == 0 else 0xFFFFFFF0 if how & 6 == 2 else 0x7FFFFFF8 if how & 6 == 4 else 0xFFFFFFFF
    step = 1 + (_u8(&b) | 1) * 3
    if not (how & 8):
        _open(e, &play, strict)
    for ops in range(MAX_OPS):
        if b.at == b.end:
            break
        op = _u8(&b)
        at = _u16(&b) % s.size if op & 15 < OP_CLOCK else 0
        if op & 15 == OP_CLOCK:
            play.now += _u8(&b)
            continue
        if op & 15 < OP_FAKE:
            size = 1 + _u8(&b)
            if op & 0x80:
                size = size * 16
            _true_packet(&play, at, size, 0x10 | (op >> 4 & 1) | (op >> 3 & 8))
        elif op & 15 < OP_BELOW:
            size = 1 + _u8(&b)
            if op & 0x80:
                size = size * 8
            _fill(&b, (op >> 4) | (op & 3) << 3, &play, at, fake, size)
            _packet(&play, play.isn + 1 + at, 0x10, 0, fake, size, 40000)
        elif op & 15 == OP_BELOW:
            size = _u8(&b)
            below = 1 + _u8(&b) * (1 if op & 0x80 else 4)
            if size > s.size - at:
                size = s.size - at
            _fill(&b, op >> 4, &play, at, fake, below)
            memcpy(fake + below, s.data + at, size)
            _packet(&play, play.isn + 1 + at - below, 0x10, 0, fake, below + size, 40000)
            # A server takes the true part, and of the fake part what lies in its window: not counted as taken.
        elif op & 15 == OP_FLAGS:
            size = _u8(&b)
            _packet(&play, play.isn + (at - 512 if op & 0x10 else at if op & 0x20 else 0), <uint8_t>size, 0, NULL, 0,
                    40000)
        elif op & 15 == OP_SYN_DATA:
            size = 1 + _u8(&b)
            if s.urgent >= 0:
                continue
            _true_packet(&play, 0, size, 2)
        elif op & 15 == OP_SYN_FAKE:
            size = 1 + _u8(&b)
            _fill(&b, (op >> 4) | (at & 3) << 3, &play, 0, fake, size)
            _packet(&play, play.isn, 2, 0, fake, size, 40000)
        elif op & 15 == OP_JUNK:
            size = 1 + _u8(&b)
            _fill(&b, (op >> 4) | (at & 3) << 3, &play, at, fake, size)
            _packet(&play, play.isn + 1 + at, 0 if op & 0x80 else 0x10, 0, fake, size, 40000)
            play.trust = op >> 7
            play.must_pass = 0
        elif op & 15 == OP_OTHER:
            size = _u8(&b)
            if size:
                _fill(&b, op >> 4 | (at & 3) << 3, &play, at, fake, size)
            _packet(&play, at, 0x10 if op & 0x10 else 2, 0, fake, size, 50000 + (op >> 5))
        elif play.size == 0:
            continue
        _send(e, &play, strict)
    # Now the request as any stack sends it, whole.
    if not play.opened:
        _open(e, &play, strict)
    if how & 16:
        at = s.size
        while at:
            size = step if step < at else at
            at -= size
            _true_packet(&play, at, size, 0x10)
            _send(e, &play, strict)
    else:
        at = 0
        while at < s.size:
            _true_packet(&play, at, step, 0x10)
            _send(e, &play, strict)
            at += step
    _audit(e.table)


# ---- what the first stage let by


cdef bint _is_near(uint32_t one, uint32_t other) noexcept nogil:
    return one - other < <uint32_t>NEAR or other - one < <uint32_t>NEAR


cdef void _play_recall(Engine e, Bytes b) noexcept nogil:
    # The kernel has let the first bytes of a listed stream by, behind its SYN, and other SYNs and hellos of the same
    # ports; then comes the rest, or all of it. As judge_syn in program.c has it, no two SYNs lie within NEAR, and of
    # those without a hello there are no more than STARTS.
    cdef Play play
    cdef Remembered r
    cdef const Stream* s
    cdef uint32_t how, count, which, first, at, size, step, i, k, bare = 0, known = 0
    cdef PassedSyn one
    cdef bint near
    memset(&play, 0, sizeof(Play))
    memset(&r, 0, sizeof(Remembered))
    s = &listed[_u8(&b) % listed_count]
    if s.urgent >= 0:
        return                          # the kernel lets no urgent byte by
    how = _u8(&b)
    play.stream = s
    play.six = how & 1
    play.isn = 1000 if how & 6 == 0 else 0xFFFFFFF0 if how & 6 == 2 else 0x7FFFFFF8 if how & 6 == 4 else 0xFFFFFFFF
    step = 1 + (_u8(&b) | 1) * 3
    count = 1 + _u8(&b) % SYNS
    which = _u8(&b) % count
    first = _u16(&b) % min(s.needed, min(s.size, <uint32_t>HELLO_MAX))
    for i in range(<uint32_t>PLACES):
        memset(&kept[i], 0, sizeof(Kept))
        kept[i].serial = i + 1
        _fill(&b, _u8(&b), &play, 0, kept[i].data, HELLO_MAX)
    memcpy(kept[PLACES - 1].data, s.data, first)       # in pieces
    for i in range(<uint32_t>PIECES - 1):
        kept[PLACES - 1].cuts[i] = <uint16_t>(_u8(&b) * (_u8(&b) & 9))
    bare = first == 0
    for i in range(count):
        memset(&one, 0, sizeof(PassedSyn))
        one.isn = play.isn
        one.place = PLACES - 1
        one.serial = PLACES
        one.size = <uint16_t>first
        if i != which:
            one.isn = play.isn + _u8(&b) * (1 + (_u8(&b) << 12))
            one.place = _u8(&b) & 3
            if one.place == PLACES - 1:
                one.place = PLACES                 # is none
            one.serial = one.place + 1 + (_u8(&b) & 1)
            one.size = <uint16_t>(_u8(&b) * (_u8(&b) & 9))
            near = _is_near(one.isn, play.isn)
            for k in range(known):
                near = near or _is_near(one.isn, r.passed[k].isn)
            bare += one.size == 0
            if near or bare > <uint32_t>STARTS:
                bare -= one.size == 0
                continue
        one.after = <uint16_t>(known + 1 + _u8(&b) % SYNS)
        r.passed[known] = one
        known += 1
    r.count = known
    for i in range(known):
        r.passed[i].after = <uint16_t>min(<uint32_t>r.passed[i].after, known)
    play.opened = 1
    for i in range(first):
        play.taken[i] = 1
    at = 0 if how & 16 else first
    while at < s.size:
        size = step if step < s.size - at else s.size - at
        _true_packet(&play, at if how & 32 == 0 else s.size - size - (at if how & 16 else at - first), size, 0x10)
        _remember(e, &play, &r)
        _send(e, &play, False)
        at += size
    _audit(e.table)


cdef void _remember(Engine e, const Play* play, const Remembered* r) noexcept nogil:
    # As Recall.before has it, with this for what the map says.
    cdef Passed passed[SYNS]
    cdef Packet p
    cdef uint64_t past, untold
    cdef uint32_t i, count
    view_packet(play.buffer, play.size, &p)
    count = recall.gather(r, p.seq, passed, &past)
    if count > SYNS:
        fail(b"recall: more than there were")
    for i in range(count):
        if passed[i].hello != NULL and (passed[i].size > HELLO_MAX or passed[i].hello < <const uint8_t*>kept
                                        or passed[i].hello + passed[i].size > <const uint8_t*>&kept[PLACES]):
            fail(b"recall: a hello outside its map")
    untold = e.untold(&p, past)
    if count and untold:
        if untold & ~past:
            fail(b"recall: untold of what was none")
        count = recall.pick(r, past, untold, passed)
        e.catch_up(play.buffer, play.size, past, passed, count, play.now)


# ---- a queue's messages


cdef void _play_messages(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t* copy = <uint8_t*>malloc(size)        # an allocation of its own, so that a read beyond it is seen
    cdef uint8_t written[600]
    cdef uint8_t* end
    cdef Cursor c, body, attributes, value
    cdef nlmsghdr header
    cdef Queued packet
    cdef uint16_t kind, first, second
    cdef size_t turns = 0
    memcpy(copy, data, size)
    c = cursor(copy, size)
    while take_message(&c, &header, &body):
        turns += 1
        if turns * 16 > size + 16 or body.at < copy or body.end > copy + size or c.at < body.end:
            fail(b"netlink: a message outside its datagram")
        attributes = body
        if read_packet(&body, &packet) and (packet.data < attributes.at
                                            or packet.data + packet.size > attributes.end):
            fail(b"netlink: a packet outside its message")
        while take_attribute(&attributes, &kind, &value):
            if value.at < copy or value.end > copy + size or attributes.at < value.end:
                fail(b"netlink: an attribute outside its message")
    if size > 4:
        first = copy[0] | <uint16_t>(copy[1] & 0x3F) << 8
        second = min(size - 2, <size_t>copy[2] + copy[3])
        end = write_attribute(written, first, copy + 2, second)
        c = cursor(written, <size_t>(end - written))
        if (not take_attribute(&c, &kind, &value) or kind != first or left(&value) != second or left(&c)
                or memcmp(value.at, copy + 2, second) != 0):
            fail(b"netlink: an attribute is not read as it was written")
    free(copy)


# ---- the entries


cdef public int find_game(const char* name) except -2:
    """Its number, or -1; those of streams are from `first_of_streams` on."""
    return GAMES.get((<bytes>name).decode(), -1)


cdef public const char* all_games() except NULL:
    global listing
    listing = ",".join(GAMES).encode()
    return <const char*><bytes>listing


cdef public int fuzz_one(int game, const uint8_t* data, size_t size) except -1:
    global runs, slowest
    cdef Trace whole, pieces
    cdef Bytes b
    cdef uint32_t cuts = 0x9E3779B9
    cdef size_t before = 0, after
    cdef size_t i
    cdef int turn
    runs += 1
    slowest = 0
    if game >= GAME_PARTS:
        parts[game - GAME_PARTS](<bytes>data[:size])
        return 0
    if game < GAME_PACKETS:
        for i in range(size):
            cuts = (cuts ^ data[i]) * 0x01000193
        cuts |= 1 << 31
        _run(&readers[game], data, size, 0, &whole)
        _run(&readers[game], data, size, cuts, &pieces)
        if not _same_trace(&whole, &pieces):
            fail(b"whole and in pieces differ")
        if runs % 512 == 0:
            check((<bytes>readers[game].name).decode(), <bytes>data[:size])
        return 0
    for turn in range(3):
        before = allocated_bytes()
        b.at = data
        b.end = data + size
        # Every input has the worker's time to itself.
        engine.rereading = lenient.rereading = strict.rereading = engine.worker_rereading
        if game == GAME_PACKETS:
            _play_packets(engine, b)
            _forget(engine.table)
        elif game == GAME_HIDE:
            _play_stream(engine, b, listed, listed_count, False)
            _forget(engine.table)
        elif game == GAME_INNOCENT:
            _play_stream(lenient, b, innocent, innocent_count, True)
            _forget(lenient.table)
        elif game == GAME_RECALL:
            _play_recall(engine, b)
            _forget(engine.table)
        elif game == GAME_NETLINK:
            _play_messages(data, size)
        elif game == GAME_INITIALS:
            play_initials(data, size)
        else:
            play_hidden(strict, data, size)
            _audit(strict.table)
            _forget(strict.table)
        free_findings(&engine.findings)
        free_findings(&lenient.findings)
        free_findings(&strict.findings)
        after = allocated_bytes()
        if after <= before:
            return 0
        # Python's own caches settle; a leak comes every time.
    fail(b"memory is left over")
    return 0
