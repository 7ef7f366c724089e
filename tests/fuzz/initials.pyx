"""QUIC for the fuzzer: its input says which frames go into which packets of which connections; they are sealed here.

Two sentences that have to hold:
    initials     every packet that a server could open is opened, and the CRYPTO pieces that come out of it are those
                 that a second reader, written apart, finds in its frames; no other packet opens; the account is right
    hide-quic    whatever is sent around a ClientHello with a listed name, no connection ever has all of it
The keys are handed in from Python, where aioquic derived them: nothing of the core's own derivation is used.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.connections cimport Connections, Datagram
from edgeblock.core.cursor cimport Cursor
from edgeblock.core.engine cimport CHECKSUM_TRUST, Decision, Engine
from edgeblock.core.flow cimport LANES, Flow, FlowTable
from edgeblock.core.packet cimport Packet
from edgeblock.core.quic cimport SEEN_DAMAGED, SEEN_INITIAL, SEEN_OVERLOAD, SEEN_REFUSED, Piece, read_frames

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_CIPHER:
        pass
    enum:
        EVP_CTRL_AEAD_GET_TAG
    EVP_CIPHER_CTX* EVP_CIPHER_CTX_new()
    const EVP_CIPHER* EVP_aes_128_ecb()
    const EVP_CIPHER* EVP_aes_128_gcm()
    int EVP_EncryptInit_ex(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, void* none, const uint8_t* key,
                           const uint8_t* iv)
    int EVP_EncryptUpdate(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size, const uint8_t* data, int size)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX* context, uint8_t* out, int* out_size)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX* context, int type, int argument, void* pointer)

cdef enum:
    IDS = 3                    # connection ids whose keys are known here
    VERSIONS = 4               # the first two are versions 1 and 2, which a server may change from one to the other
    MAX_HELLO = 2048
    MAX_HELLOS = 8
    MAX_FRAMES = 2048
    MAX_SENT = 8192
    MAX_PACKETS = 12
    MAX_MOVES = 32
    BEYOND = 64 * 1024         # of a CRYPTO stream: not kept (core/quic.pxd, MAX_CRYPTO)

cdef enum Move:
    MOVE_TRUE = 0              # bytes of the listed hello where they belong
    MOVE_FAKE = 1              # other bytes, anywhere
    MOVE_RAW = 2               # frames as the input has them
    MOVE_ODD = 3               # a frame from the table of odd ones
    MOVE_SEAL = 4              # the frames so far become a packet
    MOVE_SEND = 5              # the packets so far go out as a datagram
    MOVE_DAMAGE = 6            # the packet is damaged, and goes out
    MOVE_OTHER = 7             # the clock goes on, or a datagram as the input has it goes out

cdef struct Keys:
    uint8_t key[16]
    uint8_t iv[12]
    uint8_t hp[16]

cdef struct Hello:
    uint8_t data[MAX_HELLO]
    uint32_t size
    uint32_t needed            # with so much of its start a server has the name

cdef struct Bytes:             # the fuzzer's input; zeros beyond its end
    const uint8_t* at
    const uint8_t* end

cdef struct Pieces:            # a set of CRYPTO pieces, in whatever order
    uint64_t digest
    uint32_t count

cdef struct Sealed:            # a packet of the datagram in the making
    int k                      # whose keys
    int v
    bint foreign               # its id is one that the server chose
    uint64_t number
    size_t at                  # where it begins
    size_t frames_at
    size_t frames_size

cdef struct Table:
    const Hello* hello
    bint hidden                # the game is hide-quic
    double now
    uint8_t frames[2 * MAX_SENT]       # of every packet of the datagram, and of the one to be sealed next
    size_t frames_at
    size_t frames_size
    uint8_t sent[MAX_SENT]     # the datagram
    size_t sent_size
    Sealed packets[MAX_PACKETS]
    int packet_count
    uint64_t numbers[IDS][VERSIONS]            # the last packet number
    uint8_t known[IDS][VERSIONS]               # a packet with these keys has reached the server
    uint8_t taken[IDS][VERSIONS][MAX_HELLO]    # bytes of the hello that the server has
    bint unsure                # something was refused: what opens from here on is not known here

cdef const char* ODD[16]
cdef int ODD_SIZES[16]
cdef uint32_t NUMBERS[VERSIONS]
cdef Keys keys[IDS][VERSIONS]
cdef uint8_t ids[IDS][20]
cdef int id_sizes[IDS]
cdef Hello hellos[MAX_HELLOS]
cdef int hello_count = 0
cdef EVP_CIPHER_CTX* sealer = EVP_CIPHER_CTX_new()
cdef EVP_CIPHER_CTX* masker = EVP_CIPHER_CTX_new()
cdef FlowTable flows = FlowTable(64, 1 << 30, 120.0)
cdef Connections connections = Connections(flows, 8, 64, 100_000, 1_000_000)
cdef list odd_frames = []


cdef void fail(const char* what) noexcept nogil:
    fprintf(stderr, b"DISAGREEMENT: %s\n", what)
    abort()


def prepare(versions, sealing, given_hellos, odd) -> None:
    """`sealing`: (id, [(key, iv, hp) for each version]); `given_hellos`: (message, needed); `odd`: frames."""
    global hello_count
    cdef const uint8_t[::1] text
    cdef int i, version
    if len(versions) != VERSIONS or len(sealing) != IDS or len(given_hellos) > MAX_HELLOS or len(odd) != 16:
        raise ValueError("not as many as are played with")
    for i in range(VERSIONS):
        NUMBERS[i] = versions[i]
    for i in range(IDS):
        name, of_versions = sealing[i]
        id_sizes[i] = len(name)
        for version, (key, iv, hp) in enumerate(of_versions):
            memcpy(keys[i][version].key, <const char*>key, 16)
            memcpy(keys[i][version].iv, <const char*>iv, 12)
            memcpy(keys[i][version].hp, <const char*>hp, 16)
        memcpy(ids[i], <const char*>name, id_sizes[i])
    for message, needed in given_hellos:
        text = message
        memcpy(hellos[hello_count].data, &text[0], text.shape[0])
        hellos[hello_count].size = text.shape[0]
        hellos[hello_count].needed = needed
        hello_count += 1
    odd_frames.extend(odd)
    for i in range(16):
        ODD[i] = <const char*>(<bytes>odd_frames[i])
        ODD_SIZES[i] = len(odd_frames[i])
    EVP_EncryptInit_ex(sealer, EVP_aes_128_gcm(), NULL, NULL, NULL)
    EVP_EncryptInit_ex(masker, EVP_aes_128_ecb(), NULL, NULL, NULL)


cdef inline uint32_t _u8(Bytes* b) noexcept nogil:
    if b.at == b.end:
        return 0
    b.at += 1
    return (b.at - 1)[0]


cdef inline uint32_t _u16(Bytes* b) noexcept nogil:
    cdef uint32_t high = _u8(b)
    return (high << 8) | _u8(b)


# ---- the second reader of frames: RFC 9000, sections 16 and 19, by index


cdef bint _number(const uint8_t* data, size_t size, size_t* at, uint64_t* value) noexcept nogil:
    cdef uint64_t first
    cdef int more
    if at[0] >= size:
        return False
    first = data[at[0]]
    more = (1 << (first >> 6)) - 1
    if size - at[0] <= <size_t>more:
        return False
    value[0] = first % 64
    at[0] += 1
    while more:
        value[0] = value[0] * 256 + data[at[0]]
        at[0] += 1
        more -= 1
    return True


cdef bint _slow_frames(Table* t, const Sealed* packet, Pieces* out) noexcept nogil:
    """Adds the CRYPTO pieces to `out`; False at a frame that no server takes."""
    cdef const uint8_t* data = t.frames + packet.frames_at
    cdef size_t size = packet.frames_size
    cdef size_t at = 0
    cdef uint64_t kind, a, b, i, n
    while at < size:
        if not _number(data, size, &at, &kind):
            return False
        if kind <= 1:
            continue
        if kind == 6:
            if not _number(data, size, &at, &a) or not _number(data, size, &at, &b) or b > size - at:
                return False
            n = b if a + b <= BEYOND else BEYOND - a if a < BEYOND else 0
            if n:
                _add(out, a, data + at, n)
                _take(t, packet, a, data + at, n)
            at += b
        elif kind == 2 or kind == 3:
            if not (_number(data, size, &at, &a) and _number(data, size, &at, &a) and _number(data, size, &at, &n)
                    and _number(data, size, &at, &a)):
                return False
            n = n * 2 + (3 if kind == 3 else 0)
            i = 0
            while i < n:
                if not _number(data, size, &at, &a):
                    return False
                i += 1
        elif kind == 28 or kind == 29:
            if not _number(data, size, &at, &a) or kind == 28 and not _number(data, size, &at, &a):
                return False
            if not _number(data, size, &at, &n) or n > size - at:
                return False
            at += n
        else:
            return False
    return True


cdef inline void _add(Pieces* set, uint64_t offset, const uint8_t* data, uint64_t size) noexcept nogil:
    # A sum of digests, so that the order of the pieces makes no odds.
    cdef uint64_t digest = (offset + 0x9E3779B97F4A7C15ULL) * 0x100000001B3ULL
    cdef uint64_t i
    for i in range(size):
        digest = (digest ^ data[i]) * 0x100000001B3ULL
    set.digest += digest ^ (digest >> 29) ^ size
    set.count += 1


cdef void _take(Table* t, const Sealed* packet, uint64_t offset, const uint8_t* data, uint64_t size) noexcept nogil:
    # A piece that is the hello's own from end to end gives the server these bytes; of a mixed one, who can tell.
    cdef uint64_t n = size
    if offset >= t.hello.size:
        return
    if n > t.hello.size - offset:
        n = t.hello.size - offset
    if memcmp(data, t.hello.data + offset, n) == 0:
        memset(&t.taken[packet.k][packet.v][offset], 1, n)


# ---- packets


cdef inline size_t _put_number(uint8_t* out, uint64_t value, int form) noexcept nogil:
    # `form` 0 to 3: in 1, 2, 4 or 8 bytes; a longer one where the value asks for it (RFC 9000, 16).
    cdef int i, size
    while form < 3 and value >> ((8 << form) - 2):
        form += 1
    size = 1 << form
    for i in range(size):
        out[size - 1 - i] = <uint8_t>(value >> (8 * i))
    out[0] = (out[0] & 0x3F) | <uint8_t>(form << 6)
    return <size_t>size


cdef void _put_frames(Table* t, const uint8_t* data, size_t size) noexcept nogil:
    if size > MAX_FRAMES - t.frames_size:
        size = MAX_FRAMES - t.frames_size
    memcpy(t.frames + t.frames_at + t.frames_size, data, size)
    t.frames_size += size


cdef void _put_crypto(Table* t, uint64_t offset, const uint8_t* data, size_t size, uint32_t how) noexcept nogil:
    cdef uint8_t head[24]
    cdef size_t at
    if size + 24 > MAX_FRAMES - t.frames_size:
        return
    at = _put_number(head, 6, how & 3)
    at += _put_number(head + at, offset, how >> 2 & 3)
    at += _put_number(head + at, size, how >> 4 & 3)
    _put_frames(t, head, at)
    _put_frames(t, data, size)


cdef bint _seal(Table* t, uint32_t how, uint32_t more) noexcept nogil:
    """The frames as one packet. `how` chooses keys, version and id; `more` number, token and source id."""
    cdef Sealed* packet = &t.packets[t.packet_count]
    cdef int k = <int>(how % IDS)
    cdef int v = <int>(how // IDS % VERSIONS)
    cdef size_t number_size = (more & 3) + 1
    cdef const uint8_t* frames = t.frames + t.frames_at
    cdef uint8_t* p = t.sent + t.sent_size
    cdef uint8_t nonce[12]
    cdef uint8_t mask[32]
    cdef uint8_t padding = 0
    cdef size_t at, number_at, i
    cdef int done
    if t.packet_count == MAX_PACKETS or MAX_SENT - t.sent_size < MAX_FRAMES + 200:
        return False
    while t.frames_size + number_size < 4:              # RFC 9001, 5.4.2: long enough to be sampled
        _put_frames(t, &padding, 1)
    packet.k = k
    packet.v = v
    packet.foreign = how & 0x80 != 0
    packet.number = t.numbers[k][v] + (more >> 2 & 31)  # what a server that has the last one reads right
    if how & 0x40:
        packet.number = <uint64_t>(more >> 2 & 31) << (8 * number_size - 5)
    packet.at = t.sent_size
    packet.frames_at = t.frames_at
    packet.frames_size = t.frames_size
    p[0] = (0xD0 if v == 1 else 0xC0) | <uint8_t>(number_size - 1)
    for i in range(4):
        p[1 + i] = <uint8_t>(NUMBERS[v] >> (24 - 8 * i))
    p[5] = 8 if packet.foreign else <uint8_t>id_sizes[k]
    memcpy(p + 6, <const uint8_t*>b"server's" if packet.foreign else ids[k], p[5])
    at = 6 + p[5]
    if more & 0x80:
        p[at] = 4
        memcpy(p + at + 1, b"from", 4)
        at += 5
        at += _put_number(p + at, 5, 2)
        memcpy(p + at, b"token", 5)
        at += 5
    else:
        p[at] = p[at + 1] = 0
        at += 2
    at += _put_number(p + at, number_size + t.frames_size + 16, 1)
    number_at = at
    for i in range(number_size):
        p[at + i] = <uint8_t>(packet.number >> (8 * (number_size - 1 - i)))
    at += number_size
    memcpy(nonce, keys[k][v].iv, 12)
    for i in range(8):
        nonce[11 - i] ^= <uint8_t>(packet.number >> (8 * i))
    EVP_EncryptInit_ex(sealer, NULL, NULL, keys[k][v].key, nonce)
    EVP_EncryptUpdate(sealer, NULL, &done, p, <int>at)
    EVP_EncryptUpdate(sealer, p + at, &done, frames, <int>t.frames_size)
    EVP_EncryptFinal_ex(sealer, p + at + t.frames_size, &done)
    EVP_CIPHER_CTX_ctrl(sealer, EVP_CTRL_AEAD_GET_TAG, 16, p + at + t.frames_size)
    EVP_EncryptInit_ex(masker, NULL, NULL, keys[k][v].hp, NULL)
    EVP_EncryptUpdate(masker, mask, &done, p + number_at + 4, 16)
    p[0] ^= mask[0] & 0x0F
    for i in range(number_size):
        p[number_at + i] ^= mask[1 + i]
    t.sent_size += at + t.frames_size + 16
    t.frames_at += t.frames_size
    t.frames_size = 0
    t.packet_count += 1
    return True


# ---- datagrams


cdef bint _arrive(Table* t, Pieces* out) noexcept nogil:
    """What a server takes of the datagram; False if a packet has a frame at which it closes."""
    cdef const Sealed* packet
    cdef bint whole = True
    cdef int i
    memset(out, 0, sizeof(Pieces))
    for i in range(t.packet_count):
        packet = &t.packets[i]
        # With an id that the server chose, it must have the keys already: under this version, or the other one.
        if (not packet.foreign or t.known[packet.k][packet.v]
                or packet.v < 2 and t.known[packet.k][1 - packet.v]):
            t.known[packet.k][packet.v] = 1
            t.numbers[packet.k][packet.v] = packet.number
            whole = _slow_frames(t, packet, out) and whole
    return whole


cdef void _collect(void* context, const Piece* pieces, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if i and pieces[i].offset < pieces[i - 1].offset:
            fail(b"quic: pieces out of order")
        if <uint64_t>pieces[i].offset + pieces[i].size > BEYOND or pieces[i].size == 0:
            fail(b"quic: a piece outside the stream")
        _add(<Pieces*>context, pieces[i].offset, pieces[i].data, pieces[i].size)


cdef void _read(Table* t, const uint8_t* datagram, size_t size, bint damaged) noexcept nogil:
    # Without packets of ours in it nothing opens, but for what the input has from real clients.
    cdef Pieces expected, found
    cdef Packet from_client
    cdef Datagram d
    cdef Cursor frames
    cdef Flow* flow
    cdef bint whole = _arrive(t, &expected)
    cdef uint8_t* copy = <uint8_t*>malloc(size)        # an allocation of its own, so that a read beyond it is seen
    memcpy(copy, datagram, size)
    memset(&found, 0, sizeof(Pieces))
    memset(&from_client, 0, sizeof(Packet))
    connections.begin(&d, copy, size, t.now)
    while True:
        flow = connections.next_opened(&from_client, &d, &frames)
        if flow == NULL:
            break
        if not read_frames(connections.reader, &frames, _collect, &found, &d.seen):
            d.seen |= SEEN_DAMAGED
        connections.settle(flow, d.seen & SEEN_DAMAGED == 0)
        flows.touch(flow, flow.lane, t.now)
    free(copy)
    if d.seen & (SEEN_REFUSED | SEEN_OVERLOAD) or d.seen & SEEN_INITIAL and t.packet_count == 0:
        t.unsure = True
    if not t.unsure:
        if found.count != expected.count or found.digest != expected.digest:
            fail(b"quic: not the pieces that a server would take")
        if not whole and not d.seen & SEEN_DAMAGED or d.seen & SEEN_DAMAGED and whole and not damaged:
            fail(b"quic: a frame that no server takes")


cdef void _judge(Table* t, Engine e, const uint8_t* datagram, size_t size) noexcept nogil:
    cdef Decision made
    cdef size_t total = 28 + size
    cdef uint8_t* packet = <uint8_t*>malloc(total)
    cdef Pieces pieces
    cdef uint32_t at
    cdef int i
    memset(packet, 0, 28)
    packet[0] = 0x45
    packet[2] = <uint8_t>(total >> 8)
    packet[3] = <uint8_t>total
    packet[9] = 17
    packet[12] = 10
    packet[15] = 2
    packet[16] = 203
    packet[19] = 7
    packet[20] = 200
    packet[22] = 1
    packet[23] = 187
    packet[24] = <uint8_t>((8 + size) >> 8)
    packet[25] = <uint8_t>(8 + size)
    memcpy(packet + 28, datagram, size)
    e.judge_packet(packet, total, t.now, CHECKSUM_TRUST, &made)
    free(packet)
    if not made.accept:
        return
    _arrive(t, &pieces)
    for i in range(t.packet_count):
        at = 0
        while at < t.hello.needed and t.taken[t.packets[i].k][t.packets[i].v][at]:
            at += 1
        if at == t.hello.needed:
            fail(b"quic: the server has the listed name")


cdef void _send(Table* t, Engine e, bint damaged) noexcept nogil:
    if t.hidden:
        _judge(t, e, t.sent, t.sent_size)
    else:
        _read(t, t.sent, t.sent_size, damaged)
    t.frames_at = t.frames_size = t.sent_size = 0
    t.packet_count = 0


cdef void _damage(Table* t, uint32_t how, uint32_t where) noexcept nogil:
    # The last packet of the datagram is not what was sealed any more: it must not open.
    cdef Sealed* packet = &t.packets[t.packet_count - 1]
    cdef size_t size = t.sent_size - packet.at
    if how & 3 == 0:
        t.sent_size = packet.at + where % size
    else:
        t.sent[packet.at + where % size] ^= <uint8_t>how
    t.packet_count -= 1


# ---- the game


cdef void _play(Table* t, Engine e, Bytes b) noexcept nogil:
    cdef uint8_t fake[512]
    cdef uint32_t move, what, at, size, i, step
    cdef uint32_t moves = 0
    cdef const Hello* h = &hellos[_u8(&b) % hello_count]
    t.hello = h
    step = 40 + _u8(&b) * 4
    while b.at != b.end and moves < MAX_MOVES:
        moves += 1
        move = _u8(&b)
        what = move >> 3
        move &= 7
        if move == MOVE_TRUE:
            at = _u16(&b) % h.size
            size = (1 + _u8(&b)) * (1 + (what & 7))
            _put_crypto(t, at, h.data + at, size if size < h.size - at else h.size - at, _u8(&b))
        elif move == MOVE_FAKE:
            at = _u16(&b) % (h.size + 64) if what & 1 else _u16(&b) * (1 + 97 * (what >> 4))
            size = 1 + _u8(&b)
            for i in range(size):
                fake[i] = h.data[(at + i) % h.size] if what & 2 else 0
            if what & 4:
                for i in range(1 + size // 16):
                    fake[_u8(&b) % size] = <uint8_t>_u8(&b)
            _put_crypto(t, at, fake, size, _u8(&b))
        elif move == MOVE_RAW:
            size = _u8(&b)
            if size > <size_t>(b.end - b.at):
                size = <uint32_t>(b.end - b.at)
            _put_frames(t, b.at, size)
            b.at += size
        elif move == MOVE_ODD:
            _put_frames(t, <const uint8_t*>ODD[what & 15], ODD_SIZES[what & 15])
        elif move == MOVE_SEAL:
            _seal(t, _u8(&b), _u8(&b) if what & 1 else what)
        elif move == MOVE_SEND:
            if what & 1 or t.packet_count == 0:
                _seal(t, what >> 1 if what & 2 else 0, 4)
            _send(t, e, False)
        elif move == MOVE_DAMAGE:
            if _seal(t, _u8(&b), what):
                _damage(t, _u8(&b), _u16(&b))
                _send(t, e, True)
        elif what & 1:
            # With a name at stake no clock goes as far as the patience of servers, which ours ends with.
            t.now += _u8(&b) / 256.0 if t.hidden else _u8(&b)
        else:
            size = _u16(&b)
            if size > <size_t>(b.end - b.at):
                size = <uint32_t>(b.end - b.at)
            t.frames_at = t.frames_size = t.sent_size = 0
            t.packet_count = 0
            if t.hidden:
                _judge(t, e, b.at, size)
            else:
                _read(t, b.at, size, True)
            b.at += size
    if t.packet_count:
        _send(t, e, False)
    if not t.hidden:
        return
    # Now the hello as any client sends it, whole.
    t.frames_size = 0
    at = 0
    while at < h.size:
        size = step if step < h.size - at else h.size - at
        _put_crypto(t, at, h.data + at, size, 0)
        _seal(t, 0, 4)
        _send(t, e, False)
        at += size


cdef Table table


cdef void _forget(FlowTable table) noexcept nogil:
    cdef int lane
    for lane in range(<int>LANES):
        while table.lanes[lane].oldest != NULL:
            table.remove(table.lanes[lane].oldest)


cdef void play_initials(const uint8_t* data, size_t size) noexcept nogil:
    cdef Bytes b
    cdef uint64_t i
    memset(&table, 0, sizeof(Table))
    memset(&connections.derivations, 0, sizeof(connections.derivations))
    memset(&connections.failures, 0, sizeof(connections.failures))
    b.at = data
    b.end = data + size
    _play(&table, None, b)
    _forget(flows)
    if flows.memory or flows.flows:
        fail(b"quic: the account is not empty without connections")
    for i in range(connections.mask + 1):
        if connections.heads[i] != NULL:
            fail(b"quic: a list is not empty without connections")


cdef void play_hidden(Engine e, const uint8_t* data, size_t size) noexcept nogil:
    cdef Bytes b
    memset(&table, 0, sizeof(Table))
    memset(&e.connections.derivations, 0, sizeof(e.connections.derivations))
    memset(&e.connections.failures, 0, sizeof(e.connections.failures))
    e.clock = 0
    table.hidden = True
    b.at = data
    b.end = data + size
    _play(&table, e, b)
