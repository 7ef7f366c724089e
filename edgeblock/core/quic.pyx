"""QUIC: the server names inside a client's Initial packets.

Comes in: the payload of one UDP datagram from the client, as hostile as it may be, with the state of its 4-tuple
and the caller's clock. Goes out: the names its CRYPTO streams have come to, and bits that say what else was there.
Never here: a verdict, a clock, an allocation whose size the network chose, work without a budget.

A server finds the keys of an Initial by the destination connection id of the client's first one, so everything
that could open at a server opens here: with the id in the packet itself (first flight, Retry, decoys), with one
seen before on the 4-tuple (the client switches to the id its server chose and keeps the keys), and with one seen
before under the other version (compatible version negotiation). Connections are kept apart; none settles another.
Sources: RFC 9000 sections 12, 16, 17, 19; RFC 9001 section 5 and appendix A; RFC 9369 section 3; RFC 9368.
"""

from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcmp, memcpy, memset, strlen

from edgeblock.core.crypto cimport (
    ERR_clear_error, EVP_aes_128_ecb, EVP_aes_128_gcm, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new,
    EVP_CTRL_AEAD_SET_TAG, EVP_DecryptFinal_ex, EVP_DecryptInit_ex, EVP_DecryptUpdate, EVP_EncryptInit_ex,
    EVP_EncryptUpdate, SHA256_Final, SHA256_Init, SHA256_Update)
from edgeblock.core.cursor cimport (
    Cursor, cursor, left, skip, take, take_u8, take_u32, take_varint)
from edgeblock.core.window cimport (
    FINDING_NAME, READ_HELLO, START_SYN, Findings, add_bytes, add_start, clear_findings, close_window, open_window,
    read_on)

cdef enum:                 # families: versions that share a salt; index into QuicReader.salts
    FAMILY_1 = 0           # RFC 9001, and drafts 33 and 34
    FAMILY_2 = 1           # RFC 9369
    FAMILY_DRAFT_29 = 2    # drafts 29 to 32
    FAMILY_DRAFT_23 = 3    # drafts 23 to 28, and the versions of Meta's own client, mvfst
    FAMILY_UNKNOWN = 255

cdef enum Walk:            # what stood at the cursor
    WALK_INITIAL = 0
    WALK_OTHER = 1         # a packet that is passed over
    WALK_UNKNOWN = 2       # a version that is not known here; its length cannot be told
    WALK_END = 3           # a short header, or a Retry: it takes the rest of the datagram
    WALK_DAMAGED = 4

cdef enum FrameType:       # RFC 9000, 19; these are all that an Initial may carry (12.4, table 3)
    FRAME_PADDING = 0x00
    FRAME_PING = 0x01
    FRAME_ACK = 0x02
    FRAME_ACK_ECN = 0x03
    FRAME_CRYPTO = 0x06
    FRAME_CLOSE = 0x1C
    FRAME_CLOSE_APPLICATION = 0x1D

cdef enum:
    LONG_HEADER = 0x80
    VERSION_1 = 0x00000001
    VERSION_2 = 0x6B3343CF
    VERSION_DRAFTS = 0xFF000000
    VERSION_MVFST = 0xFACEB000
    SAMPLE = 16            # RFC 9001, 5.4.2
    TAG = 16
    DIGEST = 32
    NEAR = 64              # packet numbers this close share a base: half of what one byte can say is 128

cdef double QUIC_IDLE = 60.0       # seconds: servers wait that long for the rest of a hello
cdef double FLOW_PERIOD = 10.0     # seconds over which the budgets of a 4-tuple are counted
cdef double WORKER_PERIOD = 1.0    # seconds over which the budget of a worker is counted

cdef struct Initial:
    uint32_t version
    uint8_t family
    uint8_t id_size
    const uint8_t* id      # destination connection id
    const uint8_t* start   # first byte of the packet
    size_t number_at       # offset of the packet number: up to here the header is readable
    size_t size            # of the whole packet

# Salts of the initial secret: RFC 9001, 5.2; RFC 9369, 3.3.1; draft-ietf-quic-tls-29 and -23, 5.2.
cdef const char* SALT_1 = b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
cdef const char* SALT_2 = b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
cdef const char* SALT_29 = b"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99"
cdef const char* SALT_23 = b"\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02"


# ---- the reader and what a 4-tuple remembers


cdef QuicReader* make_reader(const QuicLimits* limits) noexcept nogil:
    cdef QuicReader* reader = <QuicReader*>calloc(1, sizeof(QuicReader))
    if reader == NULL:
        return NULL
    reader.limits = limits[0]
    reader.header_cipher = EVP_CIPHER_CTX_new()
    reader.packet_cipher = EVP_CIPHER_CTX_new()
    if (reader.header_cipher == NULL or reader.packet_cipher == NULL
            or EVP_EncryptInit_ex(reader.header_cipher, EVP_aes_128_ecb(), NULL, NULL, NULL) != 1
            or EVP_DecryptInit_ex(reader.packet_cipher, EVP_aes_128_gcm(), NULL, NULL, NULL) != 1):
        free_reader(reader)
        return NULL
    _hmac_key(&reader.salts[FAMILY_1], <const uint8_t*>SALT_1, 20)
    _hmac_key(&reader.salts[FAMILY_2], <const uint8_t*>SALT_2, 20)
    _hmac_key(&reader.salts[FAMILY_DRAFT_29], <const uint8_t*>SALT_29, 20)
    _hmac_key(&reader.salts[FAMILY_DRAFT_23], <const uint8_t*>SALT_23, 20)
    return reader


cdef void free_reader(QuicReader* reader) noexcept nogil:
    if reader != NULL:
        EVP_CIPHER_CTX_free(reader.header_cipher)
        EVP_CIPHER_CTX_free(reader.packet_cipher)
        free(reader)


cdef void free_connections(Quic* quic) noexcept nogil:
    cdef Connection* connection
    while quic.connections != NULL:
        connection = quic.connections
        quic.connections = connection.next
        _free_connection(quic, connection)


cdef void _free_connection(Quic* quic, Connection* connection) noexcept nogil:
    quic.bytes -= <uint32_t>sizeof(Connection) + connection.window.bytes
    quic.connection_count -= 1
    close_window(&connection.window)
    free(connection)


cdef inline bint _has_budget(Budget* budget, uint32_t limit, double now, double period) noexcept nogil:
    if now - budget.since >= period or now < budget.since:
        budget.since = now
        budget.spent = 0
    return budget.spent < limit


# ---- names: what the engine calls


cdef struct Gathering:
    Quic* quic
    uint32_t cap


cdef uint32_t read_quic(QuicReader* reader, Quic* quic, const uint8_t* data, size_t size, double now,
                        uint32_t cap, uint32_t* work, Findings* out) noexcept nogil:
    """Reads one datagram and leaves in `out` the names it completes; `cap` bounds the memory of the 4-tuple."""
    cdef Gathering gathering
    cdef Connection* connection
    cdef uint32_t seen, before
    gathering.quic = quic
    gathering.cap = cap
    seen = read_datagram(reader, quic, data, size, now, _gather, &gathering)
    connection = quic.connections
    while connection != NULL:
        if connection.fresh:
            connection.fresh = 0
            before = connection.window.bytes
            read_on(&connection.window, out, _room(quic, connection, cap), work)
            quic.bytes += connection.window.bytes - before
            if connection.window.overflow:
                seen |= SEEN_CONFLICT
            if connection.window.dropped:
                connection.window.dropped = 0
                seen |= SEEN_FULL
        connection = connection.next
    return seen


cdef void _gather(void* context, Connection* connection, const Piece* pieces, size_t count) noexcept nogil:
    cdef Gathering* gathering = <Gathering*>context
    cdef uint32_t room = _room(gathering.quic, connection, gathering.cap)
    cdef uint32_t before = connection.window.bytes
    cdef size_t i
    for i in range(count):
        add_bytes(&connection.window, pieces[i].offset, pieces[i].data, pieces[i].size, room)
    gathering.quic.bytes += connection.window.bytes - before
    connection.fresh = 1


cdef inline uint32_t _room(const Quic* quic, const Connection* connection, uint32_t cap) noexcept nogil:
    # What this connection's window may hold when the others of the 4-tuple keep what they have.
    cdef uint32_t others = quic.bytes - connection.window.bytes
    return cap - others if others < cap else 0


# ---- datagrams and packets


cdef bint may_hold_initial(const uint8_t* data, size_t size) noexcept nogil:
    """Whether the first packet has a long header of a version known here: cheap, before any state is made."""
    cdef Cursor c = cursor(data, size)
    cdef uint8_t first
    cdef uint32_t version
    return (take_u8(&c, &first) and first & LONG_HEADER and take_u32(&c, &version)
            and _family(version) != FAMILY_UNKNOWN)


cdef uint32_t read_datagram(QuicReader* reader, Quic* quic, const uint8_t* data, size_t size, double now,
                            OnCrypto on_crypto, void* context) noexcept nogil:
    """Opens every Initial of one datagram (RFC 9000, 12.2) and hands on its CRYPTO pieces; returns bits of Seen."""
    cdef Cursor c = cursor(data, size)
    cdef Initial packet
    cdef Walk walk
    cdef uint32_t seen = 0
    if size > MAX_DATAGRAM:
        reader.counters.damaged += 1
        return SEEN_DAMAGED
    reader.now = now
    while left(&c):             # each turn consumes a header, so a datagram has few
        walk = _take_packet(&c, &packet)
        if walk == WALK_INITIAL:
            seen |= _read_initial(reader, quic, &packet, on_crypto, context)
        elif walk == WALK_UNKNOWN:
            reader.counters.unknown_version += 1
            return seen | SEEN_UNKNOWN
        elif walk == WALK_DAMAGED:
            reader.counters.damaged += 1
            return seen | SEEN_DAMAGED
        elif walk == WALK_END:
            return seen
    return seen


cdef uint8_t _family(uint32_t version) noexcept nogil:
    cdef uint32_t draft
    if version == VERSION_1:
        return FAMILY_1
    if version == VERSION_2:
        return FAMILY_2
    draft = version ^ <uint32_t>VERSION_DRAFTS
    if 29 <= draft <= 32:
        return FAMILY_DRAFT_29
    if 23 <= draft <= 28:
        return FAMILY_DRAFT_23
    if 33 <= draft <= 34:
        return FAMILY_1
    draft = version ^ <uint32_t>VERSION_MVFST
    if draft == 2 or 0x0E <= draft <= 0x13:
        return FAMILY_DRAFT_23
    return FAMILY_UNKNOWN


cdef Walk _take_packet(Cursor* c, Initial* out) noexcept nogil:
    # RFC 9000, 17.2. The fixed bit is not asked for: RFC 9287 lets a client that was here before clear it.
    cdef const uint8_t* start = c.at
    cdef const uint8_t* source
    cdef uint8_t first, kind, size
    cdef uint64_t length
    if not take_u8(c, &first):
        return WALK_DAMAGED
    if not first & LONG_HEADER:
        return WALK_END
    if not take_u32(c, &out.version):
        return WALK_DAMAGED
    out.family = _family(out.version)
    if out.family == FAMILY_UNKNOWN:
        return WALK_UNKNOWN
    if not take_u8(c, &out.id_size) or out.id_size > MAX_CONNECTION_ID or not take(c, out.id_size, &out.id):
        return WALK_DAMAGED
    if not take_u8(c, &size) or size > MAX_CONNECTION_ID or not take(c, size, &source):
        return WALK_DAMAGED
    kind = (first >> 4) & 3
    if out.family == FAMILY_2:
        kind = (kind + 3) & 3               # RFC 9369, 3.2: Initial is 1, 0-RTT 2, Handshake 3, Retry 0
    if kind == 3:
        return WALK_END                     # a Retry has no length
    if kind == 0 and not (take_varint(c, &length) and length <= left(c) and skip(c, <size_t>length)):
        return WALK_DAMAGED                 # the token
    if not take_varint(c, &length) or length > left(c):
        return WALK_DAMAGED
    out.start = start
    out.number_at = <size_t>(c.at - start)
    out.size = out.number_at + <size_t>length
    skip(c, <size_t>length)
    if kind != 0:
        return WALK_OTHER
    # RFC 9001, 5.4.2: shorter ones cannot be sampled, and servers discard them; the next packet is still read.
    return WALK_INITIAL if length >= 4 + SAMPLE else WALK_OTHER


# ---- whose keys open it


cdef uint32_t _read_initial(QuicReader* reader, Quic* quic, const Initial* packet,
                            OnCrypto on_crypto, void* context) noexcept nogil:
    cdef Connection* connection = NULL
    cdef Cursor frames
    cdef uint32_t seen = SEEN_INITIAL
    cdef uint32_t refused = _find_connection(reader, quic, packet, &connection, &frames)
    if connection == NULL:
        if refused == 0:
            reader.counters.unopened += 1
            return SEEN_UNOPENED
        return refused
    reader.counters.initials += 1
    connection.last = reader.now
    if not _read_frames(reader, connection, &frames, on_crypto, context):
        reader.counters.damaged += 1
        seen |= SEEN_DAMAGED
    return seen | refused


cdef uint32_t _find_connection(QuicReader* reader, Quic* quic, const Initial* packet,
                               Connection** found, Cursor* frames) noexcept nogil:
    # Leaves in `found` the connection whose keys open the packet, or NULL; returns the bits of Seen for what was
    # refused on the way.
    cdef Connection fresh
    cdef Connection** link
    cdef Connection* connection
    cdef Keys keys
    cdef uint32_t refused = 0
    cdef bint own, known = False
    cdef int turn, i

    # 1. The keys known here: those of the packet's own id first, then the others, the last used first.
    for turn in range(2):
        link = &quic.connections
        while link[0] != NULL:
            connection = link[0]
            if (turn == 0) == _has_id(connection, packet):
                for i in range(2):
                    if connection.versions[i] != packet.version:
                        continue
                    own = turn == 0
                    known = known or own
                    if _open(reader, quic, connection, &connection.keys[i], own, packet, frames, &refused):
                        link[0] = connection.next
                        connection.next = quic.connections
                        quic.connections = connection
                        found[0] = connection
                        return refused
            link = &connection.next

    # 2. The keys of the packet's own id: a first flight, or the answer to a Retry (RFC 9001, 5.2).
    if not known:
        refused |= _refuse_derivation(reader, quic)
        if refused & (SEEN_REFUSED | SEEN_OVERLOAD):
            return refused
        memset(&fresh, 0, sizeof(Connection))
        _derive(reader, packet.family, packet.id, packet.id_size, &fresh.keys[0])
        if _open(reader, quic, &fresh, &fresh.keys[0], True, packet, frames, &refused):
            if not _make_room(reader, quic):
                reader.counters.refused_connections += 1
                return SEEN_REFUSED
            connection = <Connection*>calloc(1, sizeof(Connection))
            if connection == NULL:
                return SEEN_OVERLOAD
            connection[0] = fresh
            connection.versions[0] = packet.version
            connection.id_size = packet.id_size
            memcpy(connection.id, packet.id, packet.id_size)
            open_window(&connection.window, READ_HELLO, 0)
            add_start(&connection.window, START_SYN, 0)
            connection.next = quic.connections
            quic.connections = connection
            quic.connection_count += 1
            quic.bytes += <uint32_t>sizeof(Connection) + connection.window.bytes
            found[0] = connection
            return refused

    # 3. The keys of an id known here, under the other version: the server chose it (RFC 9368; RFC 9369, 4.1).
    if packet.version != VERSION_1 and packet.version != VERSION_2:
        return refused
    connection = quic.connections
    while connection != NULL:
        if connection.versions[1] == 0 and connection.versions[0] == (VERSION_1 ^ VERSION_2 ^ packet.version):
            refused |= _refuse_derivation(reader, quic)
            if refused & (SEEN_REFUSED | SEEN_OVERLOAD):
                return refused
            _derive(reader, packet.family, connection.id, connection.id_size, &keys)
            if _open(reader, quic, connection, &keys, True, packet, frames, &refused):
                connection.keys[1] = keys
                connection.versions[1] = packet.version
                found[0] = connection
                return refused
        connection = connection.next
    return refused


cdef inline bint _has_id(const Connection* connection, const Initial* packet) noexcept nogil:
    return connection.id_size == packet.id_size and memcmp(connection.id, packet.id, packet.id_size) == 0


cdef uint32_t _refuse_derivation(QuicReader* reader, Quic* quic) noexcept nogil:
    # 0: there is a derivation left in both budgets, and it is spent now.
    if not _has_budget(&quic.derivations, reader.limits.derivations, reader.now, FLOW_PERIOD):
        reader.counters.refused_flow += 1
        return SEEN_REFUSED
    if not _has_budget(&reader.derivations, reader.limits.worker_derivations, reader.now, WORKER_PERIOD):
        reader.counters.refused_worker += 1
        return SEEN_OVERLOAD
    quic.derivations.spent += 1
    reader.derivations.spent += 1
    reader.counters.derivations += 1
    return 0


cdef bint _make_room(QuicReader* reader, Quic* quic) noexcept nogil:
    # Only a connection that no server waits for any more is forgotten: were it the oldest of a full table, a few
    # decoys would push out the first half of a hello.
    cdef Connection** link = &quic.connections
    cdef Connection* oldest
    if quic.connection_count < reader.limits.connections:
        return True
    if quic.connections == NULL:
        return False
    while link[0].next != NULL:
        link = &link[0].next
    oldest = link[0]
    if reader.now - oldest.last < QUIC_IDLE:
        return False
    link[0] = NULL
    _free_connection(quic, oldest)
    return True


# ---- keys


cdef void _hmac_key(HmacKey* out, const uint8_t* key, size_t size) noexcept nogil:
    # `size` is at most 32, so the key needs no hashing (RFC 2104, 2).
    cdef uint8_t block[64]
    cdef size_t i
    memset(block, 0x36, 64)
    for i in range(size):
        block[i] ^= key[i]
    SHA256_Init(&out.inner)
    SHA256_Update(&out.inner, block, 64)
    for i in range(64):
        block[i] ^= 0x36 ^ 0x5C
    SHA256_Init(&out.outer)
    SHA256_Update(&out.outer, block, 64)


cdef void _hmac(const HmacKey* key, const uint8_t* data, size_t size, uint8_t* digest) noexcept nogil:
    cdef HmacKey running = key[0]
    SHA256_Update(&running.inner, data, size)
    SHA256_Final(digest, &running.inner)
    SHA256_Update(&running.outer, digest, DIGEST)
    SHA256_Final(digest, &running.outer)


cdef void _expand_label(const HmacKey* secret, const char* label, uint8_t* out, uint8_t size) noexcept nogil:
    # HKDF-Expand-Label (RFC 8446, 7.1) with an empty context, for at most one digest of output.
    cdef uint8_t info[32]
    cdef uint8_t digest[DIGEST]
    cdef uint8_t label_size = <uint8_t>strlen(label)       # our own labels: "tls13 quicv2 key" is the longest
    info[0] = 0
    info[1] = size
    info[2] = label_size
    memcpy(info + 3, label, label_size)
    info[3 + label_size] = 0
    info[4 + label_size] = 1
    _hmac(secret, info, label_size + 5, digest)
    memcpy(out, digest, size)


cdef void _derive(QuicReader* reader, uint8_t family, const uint8_t* id, size_t id_size, Keys* out) noexcept nogil:
    # RFC 9001, 5.2 and RFC 9369, 3.3.2: the client's side only.
    cdef uint8_t secret[DIGEST]
    cdef HmacKey key
    _hmac(&reader.salts[family], id, id_size, secret)
    _hmac_key(&key, secret, DIGEST)
    _expand_label(&key, b"tls13 client in", secret, DIGEST)
    _hmac_key(&key, secret, DIGEST)
    if family == FAMILY_2:
        _expand_label(&key, b"tls13 quicv2 key", out.key, 16)
        _expand_label(&key, b"tls13 quicv2 iv", out.iv, 12)
        _expand_label(&key, b"tls13 quicv2 hp", out.hp, 16)
    else:
        _expand_label(&key, b"tls13 quic key", out.key, 16)
        _expand_label(&key, b"tls13 quic iv", out.iv, 12)
        _expand_label(&key, b"tls13 quic hp", out.hp, 16)


# ---- opening


cdef bint _open(QuicReader* reader, Quic* quic, Connection* connection, const Keys* keys, bint expected,
                const Initial* packet, Cursor* frames, uint32_t* refused) noexcept nogil:
    """Removes header protection (RFC 9001, 5.4) and opens the packet (5.3). True leaves the frames in `frames`.

    With `expected` keys one try is what any packet costs; every other counts against the 4-tuple's failures.
    """
    cdef uint8_t mask[2 * SAMPLE]           # libcrypto may write one block more than it is given
    cdef uint8_t* header = reader.opened
    cdef size_t number_size, base, i
    cdef int tries = 0
    cdef int mask_size
    cdef uint64_t number = 0
    cdef uint64_t tried[QUIC_BASES + 1]
    if (EVP_EncryptInit_ex(reader.header_cipher, NULL, NULL, keys.hp, NULL) != 1
            or EVP_EncryptUpdate(reader.header_cipher, mask, &mask_size,
                                 packet.start + packet.number_at + 4, SAMPLE) != 1):
        return False
    memcpy(header, packet.start, packet.number_at + 4)
    header[0] ^= mask[0] & 0x0F
    number_size = <size_t>(header[0] & 3) + 1
    for i in range(number_size):
        header[packet.number_at + i] ^= mask[1 + i]
        number = (number << 8) | header[packet.number_at + i]

    # The number on the wire is the end of the full one, near the largest the server has seen. We cannot know which
    # of several that is, so each is tried; where a client counts as clients do, they give one and the same.
    for base in range(<size_t>connection.bases_used + 1):
        tried[tries] = _full_number(number, number_size, connection.bases[base - 1] + 1 if base else 0)
        for i in range(<size_t>tries):
            if tried[i] == tried[tries]:
                break
        else:
            if tries or not expected:
                if not _has_budget(&quic.failures, reader.limits.failures, reader.now, FLOW_PERIOD):
                    reader.counters.refused_flow += 1
                    refused[0] |= SEEN_REFUSED
                    return False
                quic.failures.spent += 1
            if _open_as(reader, keys, packet, packet.number_at + number_size, tried[tries], tries == 0, frames):
                if not _remember_number(connection, tried[tries]):
                    refused[0] |= SEEN_REFUSED
                return True
            tries += 1
    return False


cdef uint64_t _full_number(uint64_t number, size_t size, uint64_t expected) noexcept nogil:
    # RFC 9000, A.3; `expected` is one more than the largest packet number so far.
    cdef uint64_t window = <uint64_t>1 << (8 * size)
    cdef uint64_t half = window >> 1
    cdef uint64_t full = (expected & ~(window - 1)) | number
    if full + half <= expected and full < (<uint64_t>1 << 62) - window:
        return full + window
    if full > expected + half and full >= window:
        return full - window
    return full


cdef bint _remember_number(Connection* connection, uint64_t number) noexcept nogil:
    # False: more numbers far from each other than anybody honest sends; a later packet may not open for us.
    cdef size_t i
    for i in range(connection.bases_used):
        if connection.bases[i] <= number + NEAR and number <= connection.bases[i] + NEAR:
            if number > connection.bases[i]:
                connection.bases[i] = number
            return True
    if connection.bases_used == QUIC_BASES:
        return False
    connection.bases[connection.bases_used] = number
    connection.bases_used += 1
    return True


cdef bint _open_as(QuicReader* reader, const Keys* keys, const Initial* packet, size_t header_size, uint64_t number,
                   bint first, Cursor* frames) noexcept nogil:
    # The header is in reader.opened; the frames go behind it.
    cdef uint8_t nonce[12]
    cdef uint8_t* opened = reader.opened + header_size
    cdef int size = <int>(packet.size - header_size - TAG)
    cdef const uint8_t* key = NULL          # none: the one of the try before
    cdef int count
    cdef size_t i
    if first:
        key = <const uint8_t*>keys.key
    memcpy(nonce, keys.iv, 12)
    for i in range(8):
        nonce[11 - i] ^= <uint8_t>(number >> (8 * i))
    if (EVP_DecryptInit_ex(reader.packet_cipher, NULL, NULL, key, nonce) == 1
            and EVP_DecryptUpdate(reader.packet_cipher, NULL, &count, reader.opened, <int>header_size) == 1
            and EVP_DecryptUpdate(reader.packet_cipher, opened, &count, packet.start + header_size, size) == 1
            and EVP_CIPHER_CTX_ctrl(reader.packet_cipher, EVP_CTRL_AEAD_SET_TAG, TAG,
                                    <void*>(packet.start + header_size + size)) == 1
            and EVP_DecryptFinal_ex(reader.packet_cipher, opened + size, &count) == 1):
        frames[0] = cursor(opened, <size_t>size)
        return True
    ERR_clear_error()           # the queue belongs to the thread, and others look at it
    return False


# ---- frames


cdef bint _read_frames(QuicReader* reader, Connection* connection, Cursor* c,
                       OnCrypto on_crypto, void* context) noexcept nogil:
    """Hands on the CRYPTO frames (RFC 9000, 19.6). False: a frame at which a server closes the connection."""
    cdef uint64_t kind, length, count
    cdef size_t pieces = 0
    cdef bint whole = True
    while whole and left(c):
        if c.at[0] == FRAME_PADDING:
            skip(c, 1)
            continue
        if not take_varint(c, &kind):       # RFC 9000, 12.4 wants the shortest form; not every server looks
            whole = False
        elif kind == FRAME_PADDING or kind == FRAME_PING:
            pass
        elif kind == FRAME_CRYPTO:
            whole = _take_piece(reader, c, &pieces)
            if pieces == MAX_PIECES:
                _hand_on(reader, connection, pieces, on_crypto, context)
                pieces = 0
        elif kind == FRAME_ACK or kind == FRAME_ACK_ECN:
            # largest, delay, count of ranges, first range; gap and length of each; three counts of ECN marks
            whole = (_skip_varints(c, 2) and take_varint(c, &count) and _skip_varints(c, 1)
                     and _skip_varints(c, 2 * count + (3 if kind == FRAME_ACK_ECN else 0)))
        elif kind == FRAME_CLOSE or kind == FRAME_CLOSE_APPLICATION:
            # error code, type of the frame at fault (0x1c only), reason
            whole = (_skip_varints(c, 2 if kind == FRAME_CLOSE else 1) and take_varint(c, &length)
                     and length <= left(c) and skip(c, <size_t>length))
        else:
            whole = False
    if pieces:
        _hand_on(reader, connection, pieces, on_crypto, context)
    return whole


cdef bint _take_piece(QuicReader* reader, Cursor* c, size_t* pieces) noexcept nogil:
    cdef uint64_t offset, length
    cdef Piece* piece = &reader.pieces[pieces[0]]
    if not take_varint(c, &offset) or not take_varint(c, &length):
        return False
    if length > left(c) or not take(c, <size_t>length, &piece.data):
        return False
    if offset + length > MAX_CRYPTO:        # both are below 2^62
        reader.counters.beyond += 1
        length = MAX_CRYPTO - offset if offset < MAX_CRYPTO else 0
    if length:
        piece.offset = <uint32_t>offset
        piece.size = <uint32_t>length
        pieces[0] += 1
    return True


cdef void _hand_on(QuicReader* reader, Connection* connection, size_t count,
                   OnCrypto on_crypto, void* context) noexcept nogil:
    if count > 1:
        qsort(reader.pieces, count, sizeof(Piece), _by_offset)
    on_crypto(context, connection, reader.pieces, count)


cdef int _by_offset(const void* a, const void* b) noexcept nogil:
    return <int>(<const Piece*>a).offset - <int>(<const Piece*>b).offset


cdef bint _skip_varints(Cursor* c, uint64_t count) noexcept nogil:
    cdef uint64_t value
    while count:                # each turn consumes a byte, so a count that lies ends with the packet
        if not take_varint(c, &value):
            return False
        count -= 1
    return True


# ---- for tests and tools


cdef class Reader:
    """Reads the datagrams of one 4-tuple, for tests: limits as in QuicLimits.

    read(datagram, now) returns (seen, pieces): the names of the bits of Seen as a set, and a list of
    (original destination connection id, offset, bytes), those of one packet by offset.
    """

    cdef QuicReader* reader
    cdef Quic quic
    cdef Findings findings
    cdef list pieces

    def __cinit__(self, uint32_t connections=8, uint32_t derivations=64, uint32_t failures=256,
                  uint32_t worker_derivations=100_000):
        cdef QuicLimits limits
        limits.connections = connections
        limits.derivations = derivations
        limits.failures = failures
        limits.worker_derivations = worker_derivations
        memset(&self.quic, 0, sizeof(Quic))
        memset(&self.findings, 0, sizeof(Findings))
        self.reader = make_reader(&limits)
        if self.reader == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_connections(&self.quic)
        free_reader(self.reader)
        free(self.findings.items)
        free(self.findings.text.data)

    def names(self, const uint8_t[::1] datagram, double now=0.0, uint32_t cap=160 * 1024) -> tuple:
        """As read, with the names the datagram completes instead of pieces."""
        cdef size_t size = datagram.shape[0]
        cdef uint32_t i, at
        cdef uint32_t work = 0xFFFFFFFF
        clear_findings(&self.findings)
        seen = read_quic(self.reader, &self.quic, &datagram[0] if size else NULL, size, now, cap, &work,
                         &self.findings)
        found = []
        for i in range(self.findings.count):
            if self.findings.items[i].kind == FINDING_NAME:
                at = self.findings.items[i].host_at
                found.append(<bytes>self.findings.text.data[at:at + self.findings.items[i].host_size])
        return _names_of(seen), found

    def read(self, const uint8_t[::1] datagram, double now=0.0) -> tuple:
        cdef size_t size = datagram.shape[0]
        self.pieces = []
        seen = read_datagram(self.reader, &self.quic, &datagram[0] if size else NULL, size, now, _collect,
                             <void*>self)
        return _names_of(seen), self.pieces

    def read_many(self, const uint8_t[::1] datagram, int times, bint forget=True) -> int:
        """Reads one datagram many times without Python in between, for benchmarks; returns how many opened.

        `forget` makes each the first of its 4-tuple, with keys of its own to derive."""
        cdef int opened = 0
        cdef int i
        cdef uint32_t work = 0xFFFFFFFF
        cdef const uint8_t* data = &datagram[0]
        cdef size_t size = datagram.shape[0]
        with nogil:
            for i in range(times):
                clear_findings(&self.findings)
                opened += read_quic(self.reader, &self.quic, data, size, 10.0 * i, 160 * 1024, &work,
                                    &self.findings) & SEEN_INITIAL
                if forget:
                    free_connections(&self.quic)
        return opened

    def counters(self) -> dict:
        return dict(self.reader.counters)

    @property
    def connections(self) -> int:
        return self.quic.connection_count

    @property
    def bytes(self) -> int:
        """Memory the 4-tuple holds."""
        return self.quic.bytes


cdef void _collect(void* context, Connection* connection, const Piece* pieces, size_t count) noexcept with gil:
    cdef size_t i
    for i in range(count):
        (<Reader>context).pieces.append((<bytes>connection.id[:connection.id_size], pieces[i].offset,
                                         <bytes>pieces[i].data[:pieces[i].size]))


def _names_of(seen: int) -> set[str]:
    names = ("initial", "unopened", "unknown", "damaged", "refused", "overload", "conflict", "full")
    return {name for bit, name in enumerate(names) if seen >> bit & 1}
