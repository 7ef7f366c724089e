"""QUIC: a client's Initial packets, opened.

Comes in: the payload of one UDP datagram from the client, as hostile as it may be. Goes out: its Initial packets one
by one, the keys of a connection id, and the CRYPTO pieces of a packet that these keys open. Never here: which
connection a packet belongs to (core.connections), a name, a verdict, a clock, memory.
Sources: RFC 9000 sections 12, 16, 17, 19; RFC 9001 section 5 and appendix A; RFC 9369 section 3; RFC 9368.
"""

from libc.stdlib cimport calloc, free, qsort
from libc.string cimport memcpy, memset, strlen

from edgeblock.core.crypto cimport (
    ERR_clear_error, EVP_aes_128_ecb, EVP_aes_128_gcm, EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new,
    EVP_CTRL_AEAD_SET_TAG, EVP_DecryptFinal_ex, EVP_DecryptInit_ex, EVP_DecryptUpdate, EVP_EncryptInit_ex,
    EVP_EncryptUpdate, SHA256_Final, SHA256_Init, SHA256_Update)
from edgeblock.core.cursor cimport (
    Cursor, cursor, left, skip, take, take_u8, take_u32, take_varint)

cdef enum:                 # families: versions that share a salt; index into QuicReader.salts and Connection.keys
    FAMILY_1 = 0           # RFC 9001, and drafts 33 and 34
    FAMILY_2 = 1           # RFC 9369
    FAMILY_DRAFT_29 = 2    # drafts 29 to 32
    FAMILY_DRAFT_23 = 3    # drafts 23 to 28, and the versions of Meta's own client, mvfst
    FAMILY_UNKNOWN = 255

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

# Salts of the initial secret: RFC 9001, 5.2; RFC 9369, 3.3.1; draft-ietf-quic-tls-29 and -23, 5.2.
cdef const char* SALT_1 = b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
cdef const char* SALT_2 = b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
cdef const char* SALT_29 = b"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99"
cdef const char* SALT_23 = b"\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02"


# ---- the reader


cdef QuicReader* make_reader() noexcept nogil:
    cdef QuicReader* reader = <QuicReader*>calloc(1, sizeof(QuicReader))
    if reader == NULL:
        return NULL
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


# ---- datagrams and packets


cdef bint may_hold_initial(const uint8_t* data, size_t size) noexcept nogil:
    """Whether the first packet has a long header of a version known here: cheap, before any state is made."""
    cdef Cursor c = cursor(data, size)
    cdef uint8_t first
    cdef uint32_t version
    return (take_u8(&c, &first) and first & LONG_HEADER and take_u32(&c, &version)
            and _family(version) != FAMILY_UNKNOWN)


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


cdef bint are_compatible(uint8_t family, uint8_t other) noexcept nogil:
    """Whether a server that has read a hello in one version may go on in the other (RFC 9368; RFC 9369, 4.1)."""
    return family != other and (family == FAMILY_1 or family == FAMILY_2) and (
        other == FAMILY_1 or other == FAMILY_2)


cdef Walk take_packet(Cursor* c, Initial* out) noexcept nogil:
    """What stands at the cursor, which moves behind it. An Initial is left in `out`."""
    # RFC 9000, 17.2. The fixed bit is not asked for: RFC 9287 lets a client that was here before clear it.
    cdef const uint8_t* start = c.at
    cdef uint8_t first, kind
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
    if (not take_u8(c, &out.source_size) or out.source_size > MAX_CONNECTION_ID
            or not take(c, out.source_size, &out.source)):
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


cdef void derive_keys(QuicReader* reader, Connection* connection, uint8_t family) noexcept nogil:
    """The keys of its id for a family of versions (RFC 9001, 5.2; RFC 9369, 3.3.2): the client's side only."""
    cdef Keys* out = &connection.keys[family]
    cdef uint8_t secret[DIGEST]
    cdef HmacKey key
    connection.derived |= <uint8_t>(1 << family)
    reader.counters.derivations += 1
    _hmac(&reader.salts[family], connection.id, connection.id_size, secret)
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


cdef bint open_initial(QuicReader* reader, Connection* connection, const Initial* packet, Cursor* frames,
                       uint32_t* tries, uint32_t* seen) noexcept nogil:
    """Removes header protection (RFC 9001, 5.4) and opens the packet (5.3). True leaves the frames in `frames`, until
    the next packet is opened. The connection has keys of the packet's family; each try is taken from `tries`.
    """
    cdef const Keys* keys = &connection.keys[packet.family]
    cdef uint8_t mask[2 * SAMPLE]           # libcrypto may write one block more than it is given
    cdef uint8_t* header = reader.opened
    cdef size_t number_size, base, i
    cdef int count = 0
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
        tried[count] = _full_number(number, number_size, connection.bases[base - 1] + 1 if base else 0)
        for i in range(<size_t>count):
            if tried[i] == tried[count]:
                break
        else:
            if tries[0] == 0:
                seen[0] |= SEEN_REFUSED
                return False
            tries[0] -= 1
            if _open_as(reader, keys, packet, packet.number_at + number_size, tried[count], count == 0, frames):
                if not _remember_number(connection, tried[count]):
                    seen[0] |= SEEN_REFUSED | SEEN_JUMPED
                reader.counters.initials += 1
                return True
            count += 1
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


cdef bint read_frames(QuicReader* reader, Cursor* c, OnCrypto on_crypto, void* context,
                      uint32_t* seen) noexcept nogil:
    """Hands on the CRYPTO frames (RFC 9000, 19.6). False: a frame at which a server closes the connection."""
    cdef uint64_t kind, length, count
    cdef size_t pieces = 0, frames = 0
    cdef bint whole = True
    while whole and left(c):
        if c.at[0] == FRAME_PADDING:
            _skip_padding(c)
            continue
        frames += 1
        if pieces == MAX_PIECES or frames > MAX_FRAMES:
            seen[0] |= SEEN_REFUSED
            break
        if not take_varint(c, &kind):       # RFC 9000, 12.4 wants the shortest form; not every server looks
            whole = False
        elif kind == FRAME_PADDING or kind == FRAME_PING:
            pass
        elif kind == FRAME_CRYPTO:
            whole = _take_piece(reader, c, &pieces)
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
        _hand_on(reader, pieces, on_crypto, context)
    if not whole:
        reader.counters.damaged += 1
    return whole


cdef inline void _skip_padding(Cursor* c) noexcept nogil:
    cdef uint64_t[4] some
    while left(c) >= sizeof(some):
        memcpy(some, c.at, sizeof(some))
        if some[0] | some[1] | some[2] | some[3]:
            break
        skip(c, sizeof(some))
    while left(c) and c.at[0] == FRAME_PADDING:
        skip(c, 1)


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


cdef void _hand_on(QuicReader* reader, size_t count, OnCrypto on_crypto, void* context) noexcept nogil:
    if count > 1:
        qsort(reader.pieces, count, sizeof(Piece), _by_offset)
    on_crypto(context, reader.pieces, count)


cdef int _by_offset(const void* a, const void* b) noexcept nogil:
    return <int>(<const Piece*>a).offset - <int>(<const Piece*>b).offset


cdef bint _skip_varints(Cursor* c, uint64_t count) noexcept nogil:
    cdef uint64_t value
    while count:                # each turn consumes a byte, so a count that lies ends with the packet
        if not take_varint(c, &value):
            return False
        count -= 1
    return True
