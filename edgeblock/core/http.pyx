"""HTTP/1.x requests of one connection, one after the other.

Comes in: the client's bytes in order, cut anywhere. Goes out: FOUND with the hosts and the target of a head, DONE
when a request with its body has passed, NEED_MORE, NOT_MINE. As tolerant as the most tolerant server that is known:
leading blank lines, bare LF, a lone CR as a line end inside a head, any method token, white space of any kind and
amount, space before the colon, folded lines, several Host lines, absolute-form, a missing or odd version.
Never here: a decision which of several hosts counts (all are handed out), canonical forms, the content of bodies.
Sources: RFC 9112 (sections 2.2, 3, 5.2, 6, 7.1), RFC 9110 (9.3.6 CONNECT, 7.8 Upgrade).
"""

from libc.string cimport memchr, memcmp, memcpy, memset

from edgeblock.core.cursor cimport cursor, left, skip, take, take_u8
from edgeblock.core.text cimport append, duplicate, release, same_text
from edgeblock.core.tls cimport DONE, FOUND, NEED_MORE, NOT_MINE

cdef enum:
    MAX_METHOD = 32        # the longest registered method, UPDATEREDIRECTREF, has 17 letters

cdef enum Phase:
    PHASE_BLANK = 0        # blank lines before the request line (RFC 9112, 2.2)
    PHASE_METHOD
    PHASE_REQUEST          # the rest of the request line
    PHASE_LINE             # first byte of a line of the head
    PHASE_CR               # a CR was seen: a line end if LF follows, a lone CR otherwise
    PHASE_FIELD            # field name
    PHASE_VALUE            # value of a special field
    PHASE_SKIP             # value of any other field
    PHASE_HEAD_DONE        # the head was handed out
    PHASE_BODY
    PHASE_CHUNK_SIZE
    PHASE_CHUNK
    PHASE_CHUNK_END        # the line end behind a chunk
    PHASE_TRAILER
    PHASE_OVER             # the request is complete, or its head was too long to go on

cdef enum Special:
    FIELD_OTHER = 0
    FIELD_HOST
    FIELD_LENGTH
    FIELD_ENCODING
    FIELD_UPGRADE


cdef bint is_token(uint8_t b) noexcept nogil:
    # RFC 9110, 5.6.2.
    if (b >= 0x61 and b <= 0x7A) or (b >= 0x41 and b <= 0x5A) or (b >= 0x30 and b <= 0x39):
        return True
    return b in (0x21, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E)


cdef inline bint _blank(uint8_t b) noexcept nogil:
    return b == 0x20 or b == 0x09


cdef inline bint _space(uint8_t b) noexcept nogil:
    # What lenient servers trim around a value: blanks, line ends, vertical tab and form feed.
    return b == 0x20 or (b >= 0x09 and b <= 0x0D)


cdef inline uint8_t _lower(uint8_t b) noexcept nogil:
    return b | 0x20 if b >= 0x41 and b <= 0x5A else b


cdef bint _is(const uint8_t* text, size_t size, const char* word, size_t word_size) noexcept nogil:
    # Case-insensitive; `word` is in lower case.
    cdef size_t i
    if size != word_size:
        return False
    for i in range(size):
        if _lower(text[i]) != <uint8_t>word[i]:
            return False
    return True


cdef bint _contains(const uint8_t* text, size_t size, const char* word, size_t word_size) noexcept nogil:
    cdef size_t i
    if size < word_size:
        return False
    for i in range(size - word_size + 1):
        if _is(text + i, word_size, word, word_size):
            return True
    return False


cdef Outcome read_http(Http* h, Cursor* c) noexcept nogil:
    cdef uint8_t byte = 0
    cdef size_t before, size
    cdef Outcome outcome
    while True:
        if h.phase == PHASE_BLANK and not _pass_blank_lines(h, c):
            return NEED_MORE
        if h.phase < PHASE_HEAD_DONE:
            if h.simple == 1:
                h.simple = 2            # HTTP/0.9 ends with the line; a lenient server goes on to the fields
            before = left(c)
            outcome = _read_head(h, c)
            size = before - left(c)
            h.head_size += <uint32_t>size
            if outcome == NEED_MORE and h.head_size > MAX_HEAD:
                # Judge what is there: a server with raised limits may go on to accept this.
                _end_value(h)
                h.phase = PHASE_OVER
                h.overlong = 1
                return FOUND if h.host_count else NOT_MINE
            if outcome == FOUND and h.simple != 1:
                h.phase = PHASE_HEAD_DONE
            return outcome
        if h.phase == PHASE_HEAD_DONE:
            _follow(h)
        elif h.phase == PHASE_OVER:
            return NOT_MINE if h.overlong else DONE
        elif h.phase == PHASE_BODY or h.phase == PHASE_CHUNK:
            size = left(c)
            if size > h.body:
                size = <size_t>h.body
            skip(c, size)
            h.body -= size
            if h.body:
                return NEED_MORE
            h.phase = PHASE_OVER if h.phase == PHASE_BODY else PHASE_CHUNK_END
        else:
            outcome = _read_chunk_lines(h, c)
            if outcome != FOUND:
                return outcome


# ---- the head


cdef bint _pass_blank_lines(Http* h, Cursor* c) noexcept nogil:
    # Any number of them: nginx 1.22 answers a request behind 200 kB. True once something else follows.
    while left(c):
        if c.at[0] != 0x0D and c.at[0] != 0x0A:
            h.phase = PHASE_METHOD
            h.field_size = 0
            return True
        skip(c, 1)
    return False


cdef Outcome _read_head(Http* h, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef const uint8_t* piece = NULL
    cdef const uint8_t* stop
    cdef const uint8_t* lone
    cdef size_t size
    while left(c):
        if h.phase == PHASE_VALUE or h.phase == PHASE_SKIP or h.phase == PHASE_REQUEST:
            # Run to the line end, or to a CR, which may be one.
            stop = <const uint8_t*>memchr(c.at, 0x0A, left(c))
            size = <size_t>(stop - c.at) if stop != NULL else left(c)
            lone = <const uint8_t*>memchr(c.at, 0x0D, size) if size else NULL
            if lone != NULL:
                size = <size_t>(lone - c.at)
            take(c, size, &piece)
            if h.phase != PHASE_SKIP and not _gather(h, piece, size):
                return NOT_MINE
            if h.phase == PHASE_REQUEST and not _looks_like_request(h):
                return NOT_MINE
            if not take_u8(c, &b):
                return NEED_MORE
            if h.phase == PHASE_REQUEST:
                if b == 0x0D:           # kept: trimmed if the line ends here, refused by servers if not
                    if not append(&h.line, &b, 1, MAX_HEAD):
                        return NOT_MINE
                    continue
                if not _end_request_line(h):
                    return NOT_MINE
                h.phase = PHASE_LINE
                if h.simple:
                    return FOUND
            else:
                h.phase = PHASE_CR if b == 0x0D else PHASE_LINE
            continue
        take_u8(c, &b)
        if h.phase == PHASE_METHOD:
            if _blank(b) and h.field_size:
                h.head = _is(h.field, h.field_size, b"head", 4)
                h.connect = _is(h.field, h.field_size, b"connect", 7)
                h.preface = h.field_size == 3 and memcmp(h.field, b"PRI", 3) == 0
                h.phase = PHASE_REQUEST
            elif is_token(b) and h.field_size < MAX_METHOD:
                if h.field_size < sizeof(h.field):
                    h.field[h.field_size] = b
                h.field_size += 1
            else:
                return NOT_MINE
        elif h.phase == PHASE_LINE or h.phase == PHASE_CR:
            if b == 0x0A:
                if h.phase == PHASE_LINE or h.special == FIELD_EMPTY:
                    _end_value(h)
                    return FOUND
                h.phase = PHASE_LINE
            elif b == 0x0D:
                if h.phase == PHASE_LINE:
                    _end_value(h)
                    h.special = FIELD_EMPTY
                    h.phase = PHASE_CR
            elif _blank(b) and h.phase == PHASE_LINE:
                # Folded into the field before (RFC 9112, 5.2); behind a field of no interest it is read as a field
                # of its own too, as servers do that trim lines.
                h.phase = PHASE_VALUE
                b = 0x20
                if h.special == FIELD_OTHER:
                    h.phase = PHASE_FIELD
                    h.field_size = 0
                elif not append(&h.line, &b, 1, MAX_HEAD):
                    return NOT_MINE
            else:
                _end_value(h)
                h.phase = PHASE_FIELD
                h.field_size = 0
                _name_byte(h, b)
        else:                           # PHASE_FIELD
            if b == 0x3A:
                h.special = _special(h)
                h.phase = PHASE_SKIP if h.special == FIELD_OTHER else PHASE_VALUE
            elif b == 0x0A:
                h.special = FIELD_OTHER
                h.phase = PHASE_LINE
            elif b == 0x0D:
                h.special = FIELD_OTHER
                h.phase = PHASE_CR
            else:
                _name_byte(h, b)
    return NEED_MORE


cdef enum:
    FIELD_EMPTY = 255      # no field: a CR at the start of a line, an empty line if LF follows


cdef inline void _name_byte(Http* h, uint8_t b) noexcept nogil:
    # Blanks around a field name are dropped; a longer name than any special one is gathered no further.
    if _blank(b):
        return
    if h.field_size < sizeof(h.field):
        h.field[h.field_size] = _lower(b)
    if h.field_size < 255:
        h.field_size += 1


cdef uint8_t _special(Http* h) noexcept nogil:
    if _is(h.field, h.field_size, b"host", 4):
        return FIELD_HOST
    if _is(h.field, h.field_size, b"content-length", 14):
        return FIELD_LENGTH
    if _is(h.field, h.field_size, b"transfer-encoding", 17):
        return FIELD_ENCODING
    if _is(h.field, h.field_size, b"upgrade", 7):
        return FIELD_UPGRADE
    return FIELD_OTHER


cdef bint _gather(Http* h, const uint8_t* piece, size_t size) noexcept nogil:
    # Leading white space is not kept, so that padding before a value costs nothing.
    while h.line.size == 0 and size and _blank(piece[0]):
        piece += 1
        size -= 1
    return append(&h.line, piece, size, MAX_HEAD + 4096)


cdef bint _looks_like_request(Http* h) noexcept nogil:
    # The first byte of the target tells a request from the chatter of other text protocols before the line ends.
    cdef uint8_t first
    if h.line.size == 0 or h.is_http:
        return True
    first = h.line.data[0]
    if first < 0x21 or first == 0x7F:
        return False
    if first == 0x2F:                   # "/"
        h.is_http = 1
    return True


cdef bint _end_request_line(Http* h) noexcept nogil:
    # RFC 9112, 3: `target SP HTTP/d.d`, any white space, the version last. Without a version only a target that
    # is a path or an absolute URI is taken for a request.
    cdef const uint8_t* text = h.line.data
    cdef size_t size = h.line.size, cut
    cdef bint versioned = False, absolute
    cdef size_t i
    for i in range(size):
        if (text[i] < 0x20 and not _space(text[i])) or text[i] == 0x7F:
            return False
    while size and _space(text[size - 1]):
        size -= 1
    cut = size
    while cut and not _space(text[cut - 1]):
        cut -= 1
    if cut and size - cut >= 5 and _is(text + cut, 5, b"http/", 5):
        versioned = True
        size = cut
        while size and _space(text[size - 1]):
            size -= 1
    if size == 0:
        return False
    h.preface = h.preface and versioned and size == 1 and text[0] == 0x2A
    absolute = _find_authority(h, text, size)
    if not versioned and text[0] != 0x2F and not absolute:
        return False
    h.simple = 0 if versioned else 1
    h.is_http = 1
    if not append(&h.target, text, size, MAX_HEAD):
        return False
    h.line.size = 0
    h.special = FIELD_OTHER
    return True


cdef bint _find_authority(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    # absolute-form (RFC 9112, 3.2.2) and CONNECT's authority-form (3.2.3).
    cdef size_t i = 0, start
    h.path_at = 0
    if h.connect and text[0] != 0x2F:
        h.path_at = <uint32_t>size
        _add_host(h, text, size)
        h.authority = 1
        return True
    while i < size and i < 32 and (is_token(text[i])):
        i += 1
    if i == 0 or size - i < 3 or memcmp(text + i, b"://", 3) != 0:
        return False
    start = i + 3
    i = start
    while i < size and text[i] != 0x2F and text[i] != 0x3F and text[i] != 0x23 and text[i] != 0x5C:
        i += 1
    h.path_at = <uint32_t>i
    _add_host(h, text + start, i - start)
    h.authority = 1
    return True


cdef void _add_host(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    # The last one wins the last place: a server that takes the last of too many is read right.
    cdef uint8_t length[2]
    cdef size_t i, at = 0
    while size and _space(text[0]):
        text += 1
        size -= 1
    while size and _space(text[size - 1]):
        size -= 1
    if size == 0 or size > 0xFFFF:
        return
    if h.host_count == MAX_HOSTS:
        for i in range(<size_t>MAX_HOSTS - 1):
            at += 2 + ((<size_t>h.hosts.data[at] << 8) | h.hosts.data[at + 1])
        h.hosts.size = <uint32_t>at
        h.host_count -= 1
    length[0] = <uint8_t>(size >> 8)
    length[1] = <uint8_t>size
    if append(&h.hosts, length, 2, MAX_HEAD * 2):
        if append(&h.hosts, text, size, MAX_HEAD * 2):
            h.host_count += 1
        else:
            h.hosts.size -= 2


cdef void _end_value(Http* h) noexcept nogil:
    # The field that was gathered is complete: nothing can be folded into it any more.
    cdef const uint8_t* text = h.line.data
    cdef size_t size = h.line.size
    while size and _space(text[size - 1]):
        size -= 1
    if h.special == FIELD_HOST:
        _add_host(h, text, size)
    elif h.special == FIELD_LENGTH:
        _add_lengths(h, text, size)
    elif h.special == FIELD_ENCODING:
        _add_encoding(h, text, size)
    elif h.special == FIELD_UPGRADE:
        h.upgrade = 1
    h.special = FIELD_OTHER
    h.line.size = 0


# ---- the body


cdef void _add_framing(Http* h, uint8_t kind, uint64_t length, bint first) noexcept nogil:
    cdef uint8_t i
    for i in range(h.framing_count):
        if h.framings[i].kind == kind and h.framings[i].length == length:
            return
    if h.framing_count == MAX_FRAMINGS:
        h.crowded = 1
        if not first:
            return
        h.framing_count -= 1
    i = h.framing_count
    if first:                           # chunked goes before any length (RFC 9112, 6.3)
        while i:
            h.framings[i] = h.framings[i - 1]
            i -= 1
    h.framings[i].kind = kind
    h.framings[i].length = length
    h.framing_count += 1


cdef void _add_lengths(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    # RFC 9112, 6.3: a list of equal values is one value; where they differ, servers differ, and each is a reading.
    cdef uint64_t value = 0
    cdef bint digits = False
    cdef size_t i
    for i in range(size):
        if text[i] >= 0x30 and text[i] <= 0x39 and value < (<uint64_t>1 << 59):
            value = value * 10 + (text[i] - 0x30)
            digits = True
        elif text[i] == 0x2C:
            if digits:
                _add_framing(h, FRAMING_LENGTH, value, False)
            value = 0
            digits = False
        elif not _space(text[i]) and not (text[i] == 0x2B and not digits):
            break
    if digits:
        _add_framing(h, FRAMING_LENGTH, value, False)


cdef void _add_encoding(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    # Plain "chunked" decides. Anything dressed up ("xchunked", "chunked, identity") is read by some servers as
    # chunked and by others as no encoding at all: both are readings.
    if _contains(text, size, b"chunked", 7):
        _add_framing(h, FRAMING_CHUNKED, 0, True)
        if size != 7 and not (size > 7 and _is(text + size - 7, 7, b"chunked", 7)
                              and (_space(text[size - 8]) or text[size - 8] == 0x2C)):
            _add_framing(h, FRAMING_NONE, 0, False)


cdef void choose_framing(Http* h, uint8_t index) noexcept nogil:
    # For a fork of a reading whose head was just FOUND: follow framing `index` instead of the first.
    h.framings[0] = h.framings[index]
    h.framing_count = 1


cdef bint pass_over(Http* h, uint64_t size) noexcept nogil:
    # Body bytes need not be seen to be passed over.
    if (h.phase != PHASE_BODY and h.phase != PHASE_CHUNK) or h.body < size:
        return False
    h.body -= size
    return True


cdef uint64_t body_left(const Http* h) noexcept nogil:
    return h.body if h.phase == PHASE_BODY or h.phase == PHASE_CHUNK else 0


cdef bint within_body(const Http* h) noexcept nogil:
    return PHASE_BODY <= h.phase and h.phase <= PHASE_CHUNK_END


cdef void _follow(Http* h) noexcept nogil:
    # Behind the head: the body as the first framing says. The head's texts have served.
    cdef uint8_t kind = h.framings[0].kind if h.framing_count else <uint8_t>FRAMING_NONE
    release(&h.line)
    release(&h.target)
    release(&h.hosts)
    if kind == FRAMING_LENGTH and h.framings[0].length and not h.connect:
        h.body = h.framings[0].length
        h.phase = PHASE_BODY
    elif kind == FRAMING_CHUNKED and not h.connect:
        h.body = 0
        h.field_size = 0
        h.phase = PHASE_CHUNK_SIZE
    else:
        h.phase = PHASE_OVER


cdef Outcome _read_chunk_lines(Http* h, Cursor* c) noexcept nogil:
    # RFC 9112, 7.1. `field_size`: 0 before the digits, 1 among them, 2 behind them; in the trailer, 1 says that the
    # line is not empty. FOUND: a phase is over. Nothing here is kept, so nothing is too long: nginx 1.22 takes
    # leading zeros, chunk extensions and trailers of any length.
    cdef uint8_t b = 0
    cdef int digit
    while take_u8(c, &b):
        if h.phase == PHASE_CHUNK_SIZE:
            if b == 0x0A:
                if h.field_size == 0:
                    return NOT_MINE
                h.field_size = 0
                h.phase = PHASE_CHUNK if h.body else PHASE_TRAILER
                return FOUND
            if h.field_size == 2:
                continue
            digit = -1
            if b >= 0x30 and b <= 0x39:
                digit = b - 0x30
            elif _lower(b) >= 0x61 and _lower(b) <= 0x66:
                digit = _lower(b) - 0x57
            if digit >= 0:
                if h.body >> 56:
                    return NOT_MINE
                h.body = h.body * 16 + <uint64_t>digit
                h.field_size = 1
            elif h.field_size == 1:
                h.field_size = 2
            elif not _space(b):
                return NOT_MINE
        elif h.phase == PHASE_CHUNK_END:
            if b == 0x0A:
                h.phase = PHASE_CHUNK_SIZE
            elif b != 0x0D:
                return NOT_MINE
        elif b == 0x0A:                 # trailer
            if h.field_size == 0:
                h.phase = PHASE_OVER
                return FOUND
            h.field_size = 0
        elif b != 0x0D:
            h.field_size = 1
    return NEED_MORE


# ---- copies


cdef bint copy_http(Http* copy, const Http* h) noexcept nogil:
    # False without memory; the copy is then empty but safe to free.
    memcpy(copy, h, sizeof(Http))
    cdef bint line = duplicate(&copy.line, &h.line)
    cdef bint target = duplicate(&copy.target, &h.target)
    cdef bint hosts = duplicate(&copy.hosts, &h.hosts)
    return line and target and hosts


cdef bint same_http(const Http* a, const Http* b) noexcept nogil:
    # Whether both would answer every further byte alike.
    cdef uint8_t i
    if (a.phase != b.phase or a.field_size != b.field_size or a.special != b.special or a.head != b.head
            or a.connect != b.connect or a.preface != b.preface or a.upgrade != b.upgrade
            or a.host_count != b.host_count or a.authority != b.authority or a.simple != b.simple
            or a.overlong != b.overlong or a.crowded != b.crowded
            or a.framing_count != b.framing_count or a.path_at != b.path_at or a.body != b.body):
        return False
    for i in range(a.framing_count):
        if a.framings[i].kind != b.framings[i].kind or a.framings[i].length != b.framings[i].length:
            return False
    if (a.phase == PHASE_METHOD or a.phase == PHASE_FIELD) and memcmp(
            a.field, b.field, a.field_size if a.field_size < sizeof(a.field) else sizeof(a.field)) != 0:
        return False
    return same_text(&a.line, &b.line) and same_text(&a.target, &b.target) and same_text(&a.hosts, &b.hosts)


cdef void free_http(Http* h) noexcept nogil:
    release(&h.line)
    release(&h.target)
    release(&h.hosts)
    memset(h, 0, sizeof(Http))


# ---- for tests and fuzzing


def feed(pieces) -> tuple:
    """Feeds byte pieces in order. Returns (outcome, heads, bytes consumed).

    A head is (hosts, target, path offset, head-only, framings as (kind, length)). The first framing is followed.
    """
    cdef Http h
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    cdef size_t consumed = 0, at, size
    memset(&h, 0, sizeof(Http))
    heads = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            outcome = read_http(&h, &c)
            if outcome == DONE:
                if left(&c) == 0:
                    outcome = NEED_MORE
                free_http(&h)
                if outcome == NEED_MORE:
                    break
                continue
            if outcome != FOUND:
                break
            hosts = []
            at = 0
            for _ in range(h.host_count):
                size = (<size_t>h.hosts.data[at] << 8) | h.hosts.data[at + 1]
                hosts.append(<bytes>h.hosts.data[at + 2:at + 2 + size])
                at += 2 + size
            heads.append((hosts, <bytes>h.target.data[:h.target.size], h.path_at, bool(h.head),
                          [(h.framings[i].kind, h.framings[i].length) for i in range(h.framing_count)]))
        consumed += piece.shape[0] - left(&c)
        if outcome != NEED_MORE:
            break
    free_http(&h)
    return ("need_more", "found", "done", "not_mine")[outcome], heads, consumed
