"""What a client may send before TLS or HTTP begins: a PROXY header, or its side of a SOCKS dialogue.

Comes in: the client's bytes in order, cut anywhere. Goes out: FOUND with the destination that a SOCKS request names,
DONE where the tunnelled bytes begin, NEED_MORE, NOT_MINE. A client need not wait for the server's answers between.
Never here: what the server answers, a name's form, the tunnelled bytes.
Sources: the PROXY protocol (haproxy.org, proxy-protocol.txt, 2.2), RFC 1928, RFC 1929, RFC 1961, and for SOCKS 4 and
4A openssh.com/txt/socks4.protocol and socks4a.protocol.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from edgeblock.core.cursor cimport cursor, left, skip, take, take_u8
from edgeblock.core.findings cimport FINDING_NAME, Finding, Findings, add_finding, add_text
from edgeblock.core.matcher cimport PROTO_TLS
from edgeblock.core.reader cimport DONE, FEED_COST, FOUND, NEED_MORE, NOT_MINE, Step
from edgeblock.core.text cimport digest_bytes

cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef const char* HEX = b"0123456789abcdef"

cdef enum Phase:
    PHASE_FIRST = 0
    PHASE_SIGNATURE        # of PROXY v2; then two bytes, and the size of the rest
    PHASE_COMMAND
    PHASE_FAMILY
    PHASE_SIZE_HIGH
    PHASE_SIZE_LOW
    PHASE_REST
    PHASE_METHODS          # SOCKS5: how many, then each
    PHASE_METHOD
    PHASE_NEXT             # a message of the authentication, or the request
    PHASE_USER             # RFC 1929: two texts behind their sizes
    PHASE_USER_TEXT
    PHASE_PASSWORD
    PHASE_PASSWORD_TEXT
    PHASE_TOKEN_KIND       # RFC 1961: a token behind its size
    PHASE_TOKEN_HIGH
    PHASE_TOKEN_LOW
    PHASE_TOKEN
    PHASE_REQUEST          # SOCKS5: command, reserved, kind of address
    PHASE_RESERVED
    PHASE_KIND
    PHASE_NAME_SIZE
    PHASE_ADDRESS
    PHASE_PORT             # SOCKS5: behind the address
    PHASE_COMMAND_4        # SOCKS4: command, port, address, user, for 4A a name
    PHASE_PORT_4
    PHASE_ADDRESS_4
    PHASE_USER_4
    PHASE_NAME_4
    PHASE_OVER

cdef enum:
    BYTE_COST = 3          # work of a byte, in bytes of a hello
    KIND_IPV4 = 1
    KIND_NAME = 3
    KIND_IPV6 = 4
    OFFERS_TOKEN = 2       # bits of `methods`
    OFFERS_PASSWORD = 4


cdef size_t seek_hello(Sign* s, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t i = 0, near
    cdef uint8_t old
    cdef const uint8_t* next_one
    if s.size == SIGN_SIZE:
        _move_on(s)
    old = s.size
    while old and i < size:             # a sign that began in bytes before these
        s.seen[s.size] = data[i]
        s.size += 1
        i += 1
        while old and not _may_go_on(s):
            _move_on(s)
            old -= 1
        if s.size == SIGN_SIZE and old:
            return i
    if old:
        return 0
    i -= s.size
    s.size = 0
    while i < size:
        if data[i] != 0x16:             # the next is near, or there is none
            near = min(i + 8, size)
            while i < near and data[i] != 0x16:
                i += 1
            if i == near:
                next_one = <const uint8_t*>memchr(data + i, 0x16, size - i) if i < size else NULL
                if next_one == NULL:
                    return 0
                i = <size_t>(next_one - data)
        if size - i < SIGN_SIZE:
            break
        if data[i + 1] == 3 and data[i + 2] <= 4 and data[i + 5] == 1:
            memcpy(s.seen, data + i, SIGN_SIZE)
            s.size = SIGN_SIZE
            return i + SIGN_SIZE
        i += 1
    s.size = <uint8_t>(size - i)
    memcpy(s.seen, data + i, s.size)
    while s.size and not _may_go_on(s):
        _move_on(s)
    return 0


cdef inline bint _may_go_on(const Sign* s) noexcept nogil:
    return (s.seen[0] == 0x16 and (s.size < 2 or s.seen[1] == 3) and (s.size < 3 or s.seen[2] <= 4)
            and (s.size < SIGN_SIZE or s.seen[5] == 1))


cdef inline void _move_on(Sign* s) noexcept nogil:
    s.size -= 1
    memmove(s.seen, s.seen + 1, s.size)


cdef Outcome read_prefix(Prefix* p, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef size_t size
    cdef const uint8_t* piece = NULL
    while p.phase != PHASE_OVER:
        if p.phase in (PHASE_REST, PHASE_TOKEN, PHASE_USER_TEXT, PHASE_PASSWORD_TEXT):
            size = p.gap if p.gap < left(c) else left(c)
            skip(c, size)
            p.gap -= <uint16_t>size
            if p.gap:
                return NEED_MORE
            p.phase = (PHASE_OVER if p.phase == PHASE_REST else
                       PHASE_PASSWORD if p.phase == PHASE_USER_TEXT else PHASE_NEXT)
            continue
        if p.phase == PHASE_ADDRESS and p.gap:
            size = p.gap if p.gap < left(c) else left(c)
            if not take(c, size, &piece):
                return NEED_MORE
            memmove(p.destination + p.size, piece, size)
            p.size += <uint8_t>size
            p.gap -= <uint16_t>size
            if p.gap:
                return NEED_MORE
            p.phase = PHASE_PORT
            p.gap = 2
            if p.kind != KIND_NAME:
                _address_as_text(p)
            return FOUND
        if left(c) == 0:
            return NEED_MORE
        b = c.at[0]
        if p.phase == PHASE_FIRST and b == 0x0D:
            p.phase = PHASE_SIGNATURE
        if p.phase == PHASE_SIGNATURE:
            if b != <uint8_t>SIGNATURE[p.matched]:
                return NOT_MINE                 # with that byte not taken
            skip(c, 1)
            p.matched += 1
            if p.matched == SIGNATURE_SIZE:
                p.phase = PHASE_COMMAND
            continue
        take_u8(c, &b)
        if not _take(p, b):
            return NOT_MINE
        if p.phase == PHASE_OVER and p.kind == KIND_NAME and p.gap == 1:
            p.gap = 0                           # SOCKS4A: the name was the last
            return FOUND
    return DONE


cdef bint _take(Prefix* p, uint8_t b) noexcept nogil:
    # One byte that stands by itself. False: this is none of these protocols.
    if p.phase == PHASE_FIRST:
        p.phase = PHASE_METHODS if b == 5 else PHASE_COMMAND_4
        return b == 5 or b == 4
    if p.phase == PHASE_COMMAND or p.phase == PHASE_FAMILY:
        p.phase += 1
        return p.phase != PHASE_FAMILY or b >> 4 == 2
    if p.phase == PHASE_SIZE_HIGH or p.phase == PHASE_TOKEN_HIGH:
        p.gap = <uint16_t>(b << 8)
        p.phase += 1
    elif p.phase == PHASE_SIZE_LOW or p.phase == PHASE_TOKEN_LOW:
        p.gap |= b
        p.phase += 1
    elif p.phase == PHASE_METHODS:
        p.gap = b
        p.phase = PHASE_METHOD
        return b != 0
    elif p.phase == PHASE_METHOD:
        if b < 8:
            p.methods |= <uint8_t>(1 << b)
        p.gap -= 1
        if p.gap == 0:
            p.phase = PHASE_NEXT
    elif p.phase == PHASE_NEXT:
        if b == 5:
            p.phase = PHASE_REQUEST
        else:                                   # which way was agreed on only the server has said
            p.phase = PHASE_USER if p.methods & OFFERS_PASSWORD else PHASE_TOKEN_KIND
            return b == 1 and p.methods & (OFFERS_PASSWORD | OFFERS_TOKEN) != 0
    elif p.phase == PHASE_USER or p.phase == PHASE_PASSWORD:
        p.gap = b
        p.phase += 1
    elif p.phase == PHASE_TOKEN_KIND:
        p.phase += 1
    elif p.phase == PHASE_REQUEST:
        p.phase += 1
        return 1 <= b and b <= 3
    elif p.phase == PHASE_RESERVED:
        p.phase += 1
    elif p.phase == PHASE_KIND:
        p.kind = b
        p.gap = 4 if b == KIND_IPV4 else 16
        p.phase = PHASE_NAME_SIZE if b == KIND_NAME else PHASE_ADDRESS
        return b == KIND_IPV4 or b == KIND_NAME or b == KIND_IPV6
    elif p.phase == PHASE_NAME_SIZE:
        p.gap = b
        p.phase = PHASE_ADDRESS
        return b != 0
    elif p.phase == PHASE_PORT:
        p.gap -= 1
        if p.gap == 0:
            p.phase = PHASE_OVER
    elif p.phase == PHASE_COMMAND_4:
        p.gap = 2
        p.phase = PHASE_PORT_4
        return b == 1 or b == 2
    elif p.phase == PHASE_PORT_4:
        p.gap -= 1
        if p.gap == 0:
            p.phase = PHASE_ADDRESS_4
    elif p.phase == PHASE_ADDRESS_4:
        p.destination[p.size] = b
        p.size += 1
        if p.size == 4:
            p.phase = PHASE_USER_4
            p.kind = KIND_IPV4
            if p.destination[0] == 0 and p.destination[1] == 0 and p.destination[2] == 0 and b:
                p.kind = KIND_NAME
                p.size = 0
    elif p.phase == PHASE_USER_4:
        if b == 0:
            p.phase = PHASE_NAME_4 if p.kind == KIND_NAME else PHASE_OVER
            if p.kind == KIND_IPV4:
                _address_as_text(p)
                p.kind = KIND_NAME
                p.gap = 1
    elif p.phase == PHASE_NAME_4:
        if b == 0:
            p.phase = PHASE_OVER
            p.gap = 1
            return p.size != 0
        if p.size == MAX_DESTINATION:
            return False
        p.destination[p.size] = b
        p.size += 1
    return True


cdef void _address_as_text(Prefix* p) noexcept nogil:
    # As a Host line would say it: dotted, or eight groups in brackets.
    cdef uint8_t raw[16]
    cdef uint8_t i, size = 0
    cdef uint8_t count = p.size
    memmove(raw, p.destination, count)
    if count == 4:
        for i in range(4):
            if i:
                p.destination[size] = 0x2E
                size += 1
            if raw[i] >= 100:
                p.destination[size] = <uint8_t>(0x30 + raw[i] // 100)
                size += 1
            if raw[i] >= 10:
                p.destination[size] = <uint8_t>(0x30 + raw[i] // 10 % 10)
                size += 1
            p.destination[size] = <uint8_t>(0x30 + raw[i] % 10)
            size += 1
    else:
        p.destination[0] = 0x5B
        size = 1
        for i in range(16):
            if i and i % 2 == 0:
                p.destination[size] = 0x3A
                size += 1
            p.destination[size] = <uint8_t>HEX[raw[i] >> 4]
            p.destination[size + 1] = <uint8_t>HEX[raw[i] & 15]
            size += 2
        p.destination[size] = 0x5D
        size += 1
    p.size = size


# ---- the reader


cdef bint _begins(uint8_t first) noexcept nogil:
    return first == 0x0D or first == 4 or first == 5


cdef Outcome _read(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    cdef Prefix* p = <Prefix*>state
    cdef const uint8_t* came = c.at
    cdef Outcome outcome = read_prefix(p, c)
    cdef Finding* f
    step.cost = BYTE_COST * <int32_t>(c.at - came) + <int32_t>FEED_COST
    step.message = outcome == FOUND or outcome == DONE
    if outcome == FOUND:
        # Where a tunnel leads: like CONNECT's authority, but no name that was asked of the server at the other end.
        f = add_finding(out)
        if f != NULL:
            f.kind = FINDING_NAME
            f.connect = f.unsure = 1
            add_text(out, p.destination, p.size, &f.host_at, &f.host_size)
    elif outcome == NOT_MINE:
        # Of a signature that was none the first bytes are blank lines.
        step.taken, step.taken_size = <const uint8_t*>SIGNATURE, p.matched
    return outcome


cdef bint _same(const void* one, const void* other) noexcept nogil:
    cdef const Prefix* a = <const Prefix*>one
    cdef const Prefix* b = <const Prefix*>other
    return (a.phase == b.phase and a.kind == b.kind and a.methods == b.methods and a.gap == b.gap
            and a.matched == b.matched and a.size == b.size and memcmp(a.destination, b.destination, a.size) == 0)


cdef uint64_t _digest(const void* state) noexcept nogil:
    cdef const Prefix* p = <const Prefix*>state
    return digest_bytes(p.phase | <uint64_t>p.gap << 8, p.destination, p.size)


cdef Reader prefix_reader() noexcept nogil:
    cdef Reader r
    memset(&r, 0, sizeof(Reader))
    r.name, r.size, r.proto = b"prefix", sizeof(Prefix), PROTO_TLS
    r.begins, r.read, r.same, r.digest = _begins, _read, _same, _digest
    return r


# ---- for tests


def feed(pieces) -> tuple:
    """Feeds byte pieces in order. Returns (outcome, destinations, bytes consumed)."""
    cdef Prefix p
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    cdef size_t consumed = 0
    memset(&p, 0, sizeof(Prefix))
    found = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        outcome = read_prefix(&p, &c)
        while outcome == FOUND:
            found.append(<bytes>p.destination[:p.size])
            outcome = read_prefix(&p, &c)
        consumed += piece.shape[0] - left(&c)
        if outcome != NEED_MORE:
            break
    return ("need_more", "found", "done", "not_mine")[outcome], found, consumed


def seek(pieces) -> list[int]:
    """Feeds byte pieces in order. Returns the offsets behind each sign of a ClientHello."""
    cdef Sign s
    cdef const uint8_t[::1] piece
    cdef size_t at, size
    memset(&s, 0, sizeof(Sign))
    found, before = [], 0
    for data in pieces:
        piece = data
        at = 0
        while at < <size_t>piece.shape[0]:
            size = seek_hello(&s, &piece[at], piece.shape[0] - at)
            if not size:
                break
            at += size
            found.append(before + at)
        before += piece.shape[0]
    return found
