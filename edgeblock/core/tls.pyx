"""The server name of a TLS ClientHello.

Comes in: the client's bytes, in order, cut anywhere. Goes out: NEED_MORE, FOUND (a name), DONE, NOT_MINE.
Never here: a copy of more than one name, a byte looked at twice, trust in a length. A nested length is subtracted
from the one around it before a byte of it is read, so that a child never reads its neighbour.
Sources: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 9849 (encrypted_client_hello = 0xfe0d).
"""

from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.cursor cimport cursor, left, skip, take, take_u8, take_u16, take_u24
from edgeblock.core.findings cimport (FINDING_HELLO_END, FINDING_NAME, FINDING_NO_NAME, Finding, Findings,
                                      add_finding, add_text)
from edgeblock.core.matcher cimport PROTO_QUIC, PROTO_TLS
from edgeblock.core.reader cimport DONE, FOUND, NEED_MORE, NOT_MINE, Step
from edgeblock.core.text cimport digest_bytes, digest_word

cdef enum:
    RECORD_HANDSHAKE = 22
    RECORD_CHANGE_CIPHER_SPEC = 20
    RECORD_ALERT = 21
    RECORD_DATA = 23
    CLIENT_HELLO = 1
    MAX_HELLO = 131396     # OpenSSL's SSL3_RT_MAX_PLAIN_LENGTH-derived bound for a ClientHello; nginx took 40 kB
    EXTENSION_SERVER_NAME = 0
    EXTENSION_ECH = 0xFE0D
    NAME_HOST = 0
    KIND_OTHER = 255       # an extension or name type that is passed over

cdef enum Phase:           # what the gathered `value` is
    PHASE_TYPE = 0
    PHASE_LENGTH
    PHASE_SESSION_ID
    PHASE_COOKIE
    PHASE_CIPHERS
    PHASE_COMPRESSION
    PHASE_EXTENSIONS
    PHASE_EXTENSION_TYPE
    PHASE_EXTENSION_LENGTH
    PHASE_NAMES_LENGTH
    PHASE_NAME_TYPE
    PHASE_NAME_LENGTH
    PHASE_NAME
    PHASE_DONE


cdef inline bint _within(uint32_t* around, uint32_t size) noexcept nogil:
    # Claims `size` bytes of the enclosing length.
    if around[0] < size:
        return False
    around[0] -= size
    return True


cdef inline void _next(Hello* h, uint8_t phase, uint8_t need) noexcept nogil:
    h.phase = phase
    h.need = need
    h.value = 0


cdef Outcome read_hello(Hello* h, Cursor* c) noexcept nogil:
    """Reads handshake bytes (RFC 8446, 4.1.2). After FOUND the name is h.name[:h.name_size] until the next call."""
    cdef uint32_t size
    cdef uint16_t both = 0
    cdef uint8_t byte
    cdef const uint8_t* piece = NULL
    if h.phase == PHASE_TYPE and h.need == 0:
        _pass_beginning(h, c)
    while True:
        if h.gap:
            size = h.gap if h.gap < left(c) else <uint32_t>left(c)
            skip(c, size)
            h.gap -= size
            if h.gap:
                return NEED_MORE
        if h.phase == PHASE_EXTENSION_TYPE and h.need == 2:
            _pass_extensions(h, c)
        if h.need == 2 and take_u16(c, &both):
            h.value = h.value << 16 | both
            h.need = 0
        while h.need:
            if not take_u8(c, &byte):
                return NEED_MORE
            h.value = (h.value << 8) | byte
            h.need -= 1

        if h.phase == PHASE_TYPE:
            if h.value != CLIENT_HELLO:
                return NOT_MINE
            _next(h, PHASE_LENGTH, 3)
        elif h.phase == PHASE_LENGTH:
            h.body = h.value
            if h.body > MAX_HELLO or not _within(&h.body, 35):
                return NOT_MINE
            h.gap = 34                                  # legacy_version, random
            _next(h, PHASE_SESSION_ID, 1)
        elif h.phase == PHASE_SESSION_ID:
            h.gap = h.value
            if not _within(&h.body, h.gap + (1 if h.has_cookie else 2)):
                return NOT_MINE
            _next(h, PHASE_COOKIE if h.has_cookie else PHASE_CIPHERS, 1 if h.has_cookie else 2)
        elif h.phase == PHASE_COOKIE:
            h.gap = h.value
            if not _within(&h.body, h.gap + 2):
                return NOT_MINE
            _next(h, PHASE_CIPHERS, 2)
        elif h.phase == PHASE_CIPHERS:
            h.gap = h.value
            if not _within(&h.body, h.gap + 1):
                return NOT_MINE
            _next(h, PHASE_COMPRESSION, 1)
        elif h.phase == PHASE_COMPRESSION:
            h.gap = h.value
            if not _within(&h.body, h.gap):
                return NOT_MINE
            if h.body == 0:
                _next(h, PHASE_DONE, 0)                 # no extensions: a hello without a name
            elif _within(&h.body, 2):
                _next(h, PHASE_EXTENSIONS, 2)
            else:
                return NOT_MINE
        elif h.phase == PHASE_EXTENSIONS:
            h.extensions = h.value
            if not _within(&h.body, h.extensions):
                return NOT_MINE
            _next(h, PHASE_EXTENSION_TYPE, 0)
            if not _start_extension(h):
                return NOT_MINE
        elif h.phase == PHASE_EXTENSION_TYPE:
            h.kind = KIND_OTHER
            if h.value == EXTENSION_SERVER_NAME:
                h.kind = EXTENSION_SERVER_NAME
            elif h.value == EXTENSION_ECH:
                h.ech = 1
            _next(h, PHASE_EXTENSION_LENGTH, 2)
        elif h.phase == PHASE_EXTENSION_LENGTH:
            h.extension = h.value
            if not _within(&h.extensions, h.extension):
                return NOT_MINE
            if h.kind == EXTENSION_SERVER_NAME and h.extension >= 2:
                h.extension -= 2
                _next(h, PHASE_NAMES_LENGTH, 2)
            else:
                h.gap = h.extension
                if not _start_extension(h):
                    return NOT_MINE
        elif h.phase == PHASE_NAMES_LENGTH:
            h.names_left = h.value
            if not _within(&h.extension, h.names_left):
                return NOT_MINE
            if not _start_name(h):
                return NOT_MINE
        elif h.phase == PHASE_NAME_TYPE:
            h.kind = <uint8_t>h.value
            _next(h, PHASE_NAME_LENGTH, 2)
        elif h.phase == PHASE_NAME_LENGTH:
            h.name_left = h.value
            if not _within(&h.names_left, h.name_left):
                return NOT_MINE
            h.name_size = 0
            h.name_too_long = 1 if h.name_left > MAX_NAME else 0
            _next(h, PHASE_NAME, 0)
            if h.kind == NAME_HOST and h.names == MAX_NAMES:
                h.crowded = 1
            if h.kind != NAME_HOST or h.name_too_long or h.crowded:
                h.gap = h.name_left
                h.name_left = 0
                if not _start_name(h):
                    return NOT_MINE
        elif h.phase == PHASE_NAME:
            if h.name_left == 0:                        # the name was handed out
                h.name_size = 0
                if not _start_name(h):
                    return NOT_MINE
                continue
            size = h.name_left if h.name_left < left(c) else <uint32_t>left(c)
            if size == 0 or not take(c, size, &piece):
                return NEED_MORE
            h.kept = 0
            memcpy(h.name + h.name_size, piece, size)
            h.name_size = <uint16_t>(h.name_size + size)
            h.name_left -= size
            if h.name_left:
                return NEED_MORE
            h.names += 1
            h.kept = h.name_size
            return FOUND
        else:
            return DONE


cdef inline void _pass_beginning(Hello* h, Cursor* c) noexcept nogil:
    # Up to the first extension, where all of it is here and there is one: as nearly every hello comes.
    cdef Cursor rest = c[0]
    cdef uint32_t body = 0, before
    cdef uint16_t ciphers = 0, extensions = 0
    cdef uint8_t kind = 0, session = 0, compression = 0
    h.need = 1
    if (h.has_cookie or not take_u8(&rest, &kind) or kind != CLIENT_HELLO or not take_u24(&rest, &body)
            or not skip(&rest, 34) or not take_u8(&rest, &session) or not skip(&rest, session)
            or not take_u16(&rest, &ciphers) or not skip(&rest, ciphers)
            or not take_u8(&rest, &compression) or not skip(&rest, compression)
            or not take_u16(&rest, &extensions)):
        return
    before = <uint32_t>40 + session + ciphers + compression
    if body > MAX_HELLO or body < before + extensions or extensions < 4:
        return
    h.body = body - before - extensions
    h.extensions = <uint32_t>extensions - 4
    _next(h, PHASE_EXTENSION_TYPE, 2)
    c[0] = rest


cdef inline void _pass_extensions(Hello* h, Cursor* c) noexcept nogil:
    # Those that are here whole, and of no interest, with another behind them: nearly all of a hello.
    cdef Cursor rest = c[0]
    cdef const uint8_t* passed = c.at
    cdef uint32_t extensions = h.extensions
    cdef uint16_t kind = 0, size = 0
    while take_u16(&rest, &kind) and take_u16(&rest, &size):
        if kind == EXTENSION_SERVER_NAME or extensions < <uint32_t>size + 4 or not skip(&rest, size):
            break
        if kind == EXTENSION_ECH:
            h.ech = 1
        extensions -= <uint32_t>size + 4
        h.kind = KIND_OTHER
        h.extension = size
        passed = rest.at
    h.extensions = extensions
    c.at = passed


cdef inline bint _start_extension(Hello* h) noexcept nogil:
    # The next extension, or the end of the message. What may follow the extensions is passed over.
    if h.extensions == 0:
        h.gap += h.body
        h.body = 0
        _next(h, PHASE_DONE, 0)
        return True
    if not _within(&h.extensions, 4):
        return False
    _next(h, PHASE_EXTENSION_TYPE, 2)
    return True


cdef inline bint _start_name(Hello* h) noexcept nogil:
    # The next name of the list, or what follows the list inside its extension.
    if h.names_left == 0:
        h.gap += h.extension
        h.extension = 0
        return _start_extension(h)
    if not _within(&h.names_left, 3):
        return False
    _next(h, PHASE_NAME_TYPE, 1)
    return True


cdef Outcome read_tls(Tls* t, Cursor* c) noexcept nogil:
    """Reads records (RFC 8446, 5.1) and the hello inside them, joined over any number of handshake records.

    Leading alert and change_cipher_spec records are passed over, empty records too; any 3.x version is taken.
    """
    cdef uint8_t byte
    cdef size_t size
    cdef Cursor body
    cdef Outcome outcome
    while True:
        if t.header_size == 0 and left(c) >= 5 and c.at[0] == RECORD_HANDSHAKE and c.at[1] == 3:
            take_u8(c, &t.kind)
            skip(c, 2)
            take_u16(c, &t.record)
            t.header_size = 5
        while t.header_size < 5:
            if not take_u8(c, &byte):
                return NEED_MORE
            if t.header_size == 0:
                if byte < RECORD_CHANGE_CIPHER_SPEC or byte > RECORD_DATA or byte == RECORD_DATA and not t.again:
                    return NOT_MINE
                if byte != RECORD_HANDSHAKE and t.hello.phase != PHASE_TYPE:
                    return NOT_MINE     # RFC 8446, 5.1: no other record between those of one message
                t.kind = byte
            elif t.header_size == 1:
                if byte != 3:
                    return NOT_MINE
            elif t.header_size >= 3:
                t.record = <uint16_t>(<uint32_t>t.record << 8 | byte)
            t.header_size += 1
        size = t.record if t.record < left(c) else left(c)
        if t.kind != RECORD_HANDSHAKE:
            skip(c, size)
        elif size:
            body = cursor(c.at, size)
            outcome = read_hello(&t.hello, &body)
            size -= left(&body)
            skip(c, size)
            t.record = <uint16_t>(t.record - size)
            if outcome != NEED_MORE:
                return outcome
            size = 0
        t.record = <uint16_t>(t.record - size)
        if t.record:
            return NEED_MORE
        t.header_size = 0


# ---- the reader


cdef bint _begins(uint8_t first) noexcept nogil:
    return RECORD_CHANGE_CIPHER_SPEC <= first and first <= RECORD_HANDSHAKE


cdef Outcome _read(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    cdef Tls* t = <Tls*>state
    cdef const uint8_t* came = c.at
    cdef Outcome outcome = read_tls(t, c)
    step.cost = <int32_t>(c.at - came)
    return _report(t, outcome, step, out)


cdef Outcome _read_bare(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    cdef Tls* t = <Tls*>state
    cdef const uint8_t* came = c.at
    cdef Outcome outcome = read_hello(&t.hello, c)
    step.cost = <int32_t>(c.at - came)
    return _report(t, outcome, step, out)


cdef Outcome _read_with_cookie(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    (<Tls*>state).hello.has_cookie = 1
    return _read_bare(state, c, step, out)


cdef inline Outcome _report(Tls* t, Outcome outcome, Step* step, Findings* out) noexcept nogil:
    cdef Hello* h = &t.hello
    cdef Finding* f
    step.message = h.body != 0 or outcome == FOUND or outcome == DONE
    step.overflow = h.crowded
    if outcome != FOUND and outcome != DONE:
        return outcome
    f = add_finding(out)
    if f != NULL:
        f.kind = FINDING_NAME if outcome == FOUND else FINDING_HELLO_END if h.names else FINDING_NO_NAME
        f.ech = h.ech
        if outcome == FOUND:
            add_text(out, h.name, h.name_size, &f.host_at, &f.host_size)
        elif h.ech:
            add_text(out, h.name, h.kept, &f.host_at, &f.host_size)
    if outcome == DONE:
        # Perhaps not the last: the server may ask for another hello (RFC 8446, 4.1.4), and takes the name that
        # stands in that one.
        memset(h, 0, sizeof(Hello))
        t.again = 1
        step.again = 1
    return FOUND


cdef bint _same(const void* one, const void* other) noexcept nogil:
    cdef const Tls* s = <const Tls*>one
    cdef const Tls* t = <const Tls*>other
    cdef const Hello* x = &s.hello
    cdef const Hello* y = &t.hello
    return (s.header_size == t.header_size and s.kind == t.kind and s.record == t.record
            and x.phase == y.phase and x.need == y.need and x.kind == y.kind and x.ech == y.ech
            and (x.names == 0) == (y.names == 0) and x.name_too_long == y.name_too_long
            and x.name_size == y.name_size and x.value == y.value and x.gap == y.gap and x.body == y.body
            and x.extensions == y.extensions and x.extension == y.extension
            and x.names_left == y.names_left and x.name_left == y.name_left
            and memcmp(x.name, y.name, x.name_size) == 0)


cdef uint64_t _digest(const void* state) noexcept nogil:
    cdef const Tls* t = <const Tls*>state
    cdef const Hello* h = &t.hello
    cdef uint64_t digest = h.phase | <uint64_t>h.need << 8 | <uint64_t>h.kind << 16 | <uint64_t>h.value << 32
    digest = digest_word(digest, t.header_size | <uint64_t>t.kind << 8 | <uint64_t>t.record << 16)
    digest = digest_word(digest, h.gap | <uint64_t>h.body << 32)
    digest = digest_word(digest, h.extensions | <uint64_t>h.extension << 32)
    digest = digest_word(digest, h.names_left | <uint64_t>h.name_left << 32)
    return digest_bytes(digest, h.name, h.name_size)


cdef void _begin_again(void* state) noexcept nogil:
    (<Tls*>state).again = 1


cdef bint _fresh(const void* state) noexcept nogil:
    cdef const Tls* t = <const Tls*>state
    return t.header_size == 0 and t.hello.phase == PHASE_TYPE and t.hello.need <= 1 and t.hello.value == 0


cdef Reader tls_reader() noexcept nogil:
    cdef Reader r
    memset(&r, 0, sizeof(Reader))
    r.name, r.size, r.proto, r.short_lived = b"tls", sizeof(Tls), PROTO_TLS, 1
    r.begins, r.read, r.same, r.digest = _begins, _read, _same, _digest
    r.begin_again, r.fresh = _begin_again, _fresh
    return r


cdef Reader hello_reader() noexcept nogil:
    cdef Reader r = tls_reader()
    r.name, r.proto = b"hello", PROTO_QUIC
    r.begins, r.read = NULL, _read_bare
    return r


cdef Reader dtls_reader() noexcept nogil:
    cdef Reader r = hello_reader()
    r.name, r.proto, r.nameless = b"dtls", PROTO_TLS, 1        # of calls and tunnels, mostly
    r.read = _read_with_cookie
    return r


# ---- for tests and fuzzing: feed pieces, hear what came out


def feed(pieces, bint records=True, bint cookie=False) -> tuple:
    """Feeds byte pieces in order; records=False for bare handshake bytes, cookie=True for those of DTLS.

    Returns (outcome, [names], ech, bytes consumed).
    """
    cdef Tls t
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    cdef size_t consumed = 0
    memset(&t, 0, sizeof(Tls))
    t.hello.has_cookie = cookie
    names = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            outcome = read_tls(&t, &c) if records else read_hello(&t.hello, &c)
            if outcome != FOUND:
                break
            names.append(<bytes>t.hello.name[:t.hello.name_size])
        consumed += piece.shape[0] - left(&c)
        if outcome != NEED_MORE:
            break
    return ("need_more", "found", "done", "not_mine")[outcome], names, bool(t.hello.ech), consumed
