"""HTTP/1.x requests of one connection, one after the other.

Comes in: the client's bytes in order, cut anywhere. Goes out: FOUND with the hosts and the target of a head, DONE
when a request with its body has passed, NEED_MORE. As tolerant as the most tolerant server that is known: blanks and
blank lines first, bare LF, a lone CR as a line end inside a head, any method, control bytes, white space of any kind
and amount, space before the colon, folded lines, several Host lines, absolute-form, a missing or odd version, heads
of any length. A line that is no request line, or a body that cannot be followed, does not end the reading: it looks
for the next line that ends with a version, and for a ClientHello.
One idea, though long: each byte moves one state on, and request line, head and body share it.
Never here: a decision which of several hosts counts (all are handed out), canonical forms, the content of bodies.
Sources: RFC 9112 (sections 2.2, 3, 5.2, 6, 7.1), RFC 9110 (9.3.6 CONNECT, 7.8 Upgrade), RFC 9113 (3.4).
"""

from libc.stdint cimport int32_t
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from edgeblock.core.cursor cimport cursor, left, skip, take, take_u8
from edgeblock.core.findings cimport FINDING_NAME, MAX_PAIRED, Finding, Findings, add_finding, add_text
from edgeblock.core.framing cimport (FRAMING_CHUNK, FRAMING_CHUNKED, FRAMING_LENGTH, FRAMING_NONE, FRAMING_TRAILER,
                                     Framing, add_encoding, add_framing, add_lengths, digest_framings, same_framings,
                                     settle_framings)
from edgeblock.core.matcher cimport PROTO_HTTP
from edgeblock.core.prefix cimport SIGN_SIZE, seek_hello
from edgeblock.core.reader cimport ASTRAY, DONE, FEED_COST, FOUND, LOST, NEED_MORE, NOT_MINE, Step
from edgeblock.core.text cimport (append, digest_bytes, digest_text, digest_word, duplicate, is_space, is_word, lower,
                                  release, same_text)

cdef enum:
    PLAIN_VALUE = 256      # bytes of a value that are kept as they are: more than a name has
    LINE_END = 32          # last bytes that are kept of a line that is cut, or has a NUL in it: the version is there
    MAX_SCAN = 1024        # bytes that are searched for a line end at a time: lone CRs buy no search of the rest each
    LINE_COST = 12         # work of a line of a head, in bytes of a long one,
    LOST_COST = 24         # of one that is no request, or folded,
    HOLE_COST = 40         # of one with a NUL in it,
    FIELD_COST = 32        # of a field that counts,
    FRAMING_COST = 6       # of a byte of one that frames the body,
    ODD_COST = 6           # and of a byte that is looked at by itself
    TEXT_SEEN = 8          # bytes of text before which nothing is said of a stream

cdef enum Phase:
    PHASE_BLANK = 0        # blank lines before the request line (RFC 9112, 2.2)
    PHASE_REQUEST          # the request line, or one that turns out to be none
    PHASE_LINE             # first byte of a line of the head
    PHASE_CR               # a CR was seen: a line end if LF follows, a lone CR otherwise
    PHASE_FIELD            # field name
    PHASE_VALUE            # value of a special field
    PHASE_SKIP             # value of any other field
    PHASE_HEAD_DONE        # the head was handed out, or the ways to go on in a body
    PHASE_BODY
    PHASE_CHUNK_SIZE
    PHASE_CHUNK
    PHASE_CHUNK_END        # the line end behind a chunk
    PHASE_LAST_CHUNK       # behind the line of the last chunk
    PHASE_TRAILER
    PHASE_PREFACE          # "SM" may follow
    PHASE_OVER             # the request is complete

cdef enum Special:
    FIELD_OTHER = 0
    FIELD_HOST
    FIELD_LENGTH
    FIELD_ENCODING
    FIELD_EMPTIED = 254    # the same, and what followed was no LF: to Node's lenient reader the head is over
    FIELD_EMPTY = 255      # no field: a CR at the start of a line, an empty line if LF follows

cdef const char* PREFACE_END = b"SM\r\n\r\n"
cdef const char* BEFORE_RETURN = b" HTTP/0.0"       # with any digits
cdef const char* NOTHING = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


cdef inline bint is_token(uint8_t b) noexcept nogil:
    # RFC 9110, 5.6.2.
    if (b >= 0x61 and b <= 0x7A) or (b >= 0x41 and b <= 0x5A) or (b >= 0x30 and b <= 0x39):
        return True
    return b in (0x21, 0x23, 0x24, 0x25, 0x26, 0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E)


cdef inline bint _blank(uint8_t b) noexcept nogil:
    return b == 0x20 or b == 0x09


cdef inline bint _parts(uint8_t b) noexcept nogil:
    # What parts the words of a request line for Python's http.server: str.split() of Latin-1.
    return is_space(b) or b == 0xA0 or b == 0x85 or (b >= 0x1C and b <= 0x1F)


cdef inline bint _control(uint8_t b) noexcept nogil:
    # 255 stands in no text of UTF-8, and before each command of telnet (RFC 854).
    return b < 0x20 and not is_space(b) or b == 0x7F or b == 0xFF


cdef Outcome read_http(Http* h, Cursor* c) noexcept nogil:
    cdef size_t size
    cdef Outcome outcome
    while True:
        if h.phase == PHASE_BLANK and not _pass_blank_lines(h, c):
            return NEED_MORE
        if h.phase == PHASE_REQUEST:
            outcome = _gather_line(h, c)
            if outcome != DONE:
                h.event = EVENT_HELLO
                return outcome
            if _end_request_line(h):
                h.phase = PHASE_LINE
                if h.simple:
                    h.event = EVENT_HEAD
                    return FOUND
            elif h.line.size >= 6 and memcmp(h.line.data, b"PROXY ", 6) == 0:
                h.spent += LOST_COST
                return DONE
            else:
                _reject_line(h)
            continue
        if h.phase < PHASE_HEAD_DONE:
            if h.simple == 1:           # HTTP/0.9 ends with the line; a lenient server goes on to the fields
                h.simple = 3 if h.special == FIELD_EMPTIED else 2
            outcome = _read_head(h, c)
            if outcome == FOUND and h.special == FIELD_EMPTIED:
                h.event = EVENT_HEAD
            elif outcome == FOUND:
                settle_framings(&h.framings, h.get or h.head, h.connect, h.old)
                if h.framings.crowded:
                    h.crowded = 1
                h.phase = PHASE_HEAD_DONE
                h.event = EVENT_HEAD
            return outcome
        if h.phase == PHASE_HEAD_DONE:
            _follow(h)
        elif h.phase == PHASE_OVER:
            return DONE
        elif h.phase == PHASE_PREFACE:
            outcome = _read_preface(h, c)
            if outcome != NOT_MINE:
                return outcome
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
            if outcome == NOT_MINE:
                _seek_request(h)
            elif outcome == FOUND and h.phase == PHASE_HEAD_DONE:
                h.event = EVENT_FORK
                return FOUND
            elif outcome == NEED_MORE:
                return NEED_MORE


# ---- the request line


cdef bint _pass_blank_lines(Http* h, Cursor* c) noexcept nogil:
    # Any number of them: nginx 1.22 answers a request behind 200 kB. True once something else follows.
    while left(c):
        if c.at[0] != 0x0D and c.at[0] != 0x0A:
            h.phase = PHASE_REQUEST
            h.word = h.blanks = 0
            return True
        skip(c, 1)
    return False


cdef Outcome _gather_line(Http* h, Cursor* c) noexcept nogil:
    # DONE: the line is whole, its LF is taken. FOUND: the sign of a ClientHello ends here.
    cdef const uint8_t* stop
    cdef const uint8_t* piece = NULL
    cdef size_t size, sign
    while left(c):
        if (h.line.size and h.line.data[h.line.size - 1] == 0x0D
                and _ends_at_return(h, c.at, 0, c.at[0])):
            return DONE
        stop = <const uint8_t*>memchr(c.at, 0x0A, left(c))
        size = <size_t>(stop - c.at) if stop != NULL else left(c)
        size = _until_return(h, c.at, size, &stop)
        if not h.is_http:
            sign = seek_hello(&h.sign, c.at, size + 1 if stop != NULL else size)
            if sign:                    # its last byte is no LF
                take(c, sign, &piece)
                _gather_piece(h, piece, sign)
                if h.is_http:           # what came before it in these bytes is a request
                    continue
                return FOUND
        take(c, size, &piece)
        _gather_piece(h, piece, size)
        if stop != NULL:
            skip(c, 1)
            return DONE
    return NEED_MORE


cdef size_t _until_return(Http* h, const uint8_t* data, size_t size, const uint8_t** stop) noexcept nogil:
    # The line's bytes in `data`, with a CR that ends it to Node's lenient reader at most. Whether it does is seen
    # when what is kept of the line has it, as where the bytes behind it come later; `stop` is none then.
    cdef const uint8_t* lone = data
    while True:
        lone = <const uint8_t*>memchr(lone, 0x0D, size - <size_t>(lone - data))
        if lone == NULL or lone + 1 == data + size:
            return size
        h.spent += ODD_COST
        if _ends_at_return(h, data, <size_t>(lone - data) + 1, lone[1]):
            stop[0] = NULL
            return <size_t>(lone - data) + 1
        lone += 1


cdef bint _ends_at_return(const Http* h, const uint8_t* data, size_t size, uint8_t following) noexcept nogil:
    # " HTTP/1.1", a CR, and no line end behind it; the last `size` bytes are in `data`, those before them in h.line.
    cdef size_t i
    cdef uint8_t b, known
    if following == 0x0D or following == 0x0A or h.line.size + size < 10:
        return False
    for i in range(2, 11):
        b = data[size - i] if i <= size else h.line.data[h.line.size - (i - size)]
        known = <uint8_t>BEFORE_RETURN[10 - i]
        if known == 0x30:
            if b < 0x30 or b > 0x39:
                return False
        elif b != known:
            return False
    return True


cdef void _gather_piece(Http* h, const uint8_t* piece, size_t size) noexcept nogil:
    # Bytes of a line; of one that is too long the middle is left out, so that its end, the version, is there.
    # However the bytes come, the same of them are kept: what decides the cap is looked at before more is taken.
    cdef size_t cap, keep, i
    cdef const uint8_t* hole
    while not h.holed and h.line.size < <size_t>MAX_SEEKING and size > <size_t>MAX_SEEKING - h.line.size:
        keep = <size_t>MAX_SEEKING - h.line.size
        _gather_piece(h, piece, keep)
        piece += keep
        size -= keep
    cap = MAX_SEEKING if h.seeking or h.odd else MAX_LINE
    while h.line.size == 0 and size and _parts(piece[0]):
        piece += 1
        size -= 1
    if size == 0:
        return
    if h.holed and h.line.size >= LINE_END:
        _keep_end(h, piece, size)
    else:
        hole = <const uint8_t*>memchr(piece, 0, size)
        keep = <size_t>(hole - piece) if hole != NULL else size
        if h.line.size + keep > cap:
            h.cut = 1
            keep = cap - h.line.size if h.line.size < cap else 0
            hole = piece + keep
        if not append(&h.line, piece, keep, cap):
            h.cut = 1
            hole = piece
            keep = 0
        if hole != NULL and not h.cut and not h.is_http and not h.seeking:
            _look_at_method(h)
            if not h.is_http:
                h.odd = 1               # nothing behind the NUL makes it look like a request before its end
        if hole != NULL and append(&h.line, <const uint8_t*>NOTHING, LINE_END, cap + LINE_END):
            h.holed = 1
            h.spent += HOLE_COST
            _keep_end(h, piece + keep, size - keep)
    if not h.is_http and not h.seeking and not h.holed:
        _look_at_method(h)
    if h.is_http or h.binary:
        return
    h.text = <uint8_t>(h.text + size if h.text + size < 255 else 255)
    for i in range(size):
        if _control(piece[i]):
            h.binary = 1
            break


cdef void _keep_end(Http* h, const uint8_t* piece, size_t size) noexcept nogil:
    cdef uint8_t* end = h.line.data + (h.line.size - <size_t>LINE_END)
    if size >= LINE_END:
        memcpy(end, piece + (size - <size_t>LINE_END), LINE_END)
    else:
        memmove(end, end + size, LINE_END - size)
        memcpy(end + (LINE_END - size), piece, size)


cdef void _look_at_method(Http* h) noexcept nogil:
    # A token and a path are a request before the line ends; anything but a token may turn out to be one then.
    cdef const uint8_t* text = h.line.data
    cdef size_t size = h.line.size, i
    if h.odd:
        return
    if h.blanks == 0:
        while h.word < size and h.word < 0xFFFF and is_token(text[h.word]):
            h.word += 1
        if h.word == size:
            return
        if not _parts(text[h.word]):
            h.odd = 1
            return
    i = <size_t>h.word + h.blanks
    while i < size and _parts(text[i]):
        i += 1
    h.blanks = <uint16_t>(i - h.word)
    if i < size and text[i] == 0x2F:                # "/"
        h.is_http = 1
        memset(&h.sign, 0, sizeof(h.sign))


cdef void _reject_line(Http* h) noexcept nogil:
    # No request, and no server takes it for one. Only a blank line is nothing at all.
    h.spent += LOST_COST
    if h.line.size:
        h.seeking = 1
        if not h.binary:
            h.text = 255
        if h.line.size >= 4 and memcmp(h.line.data, b"SSH-", 4) == 0:
            h.binary = 1                # RFC 4253, 4.2: what follows is
    h.is_http = 0
    h.cut = 0
    h.holed = 0
    h.line.size = 0
    h.phase = PHASE_BLANK


cdef bint _is_method(const Http* h, size_t size, const char* word, size_t word_size) noexcept nogil:
    # Behind bytes that could not be followed the method may be the end of the word.
    cdef const uint8_t* text = h.line.data
    if (h.seeking or h.odd) and size > word_size:
        return is_word(text + (size - word_size), word_size, word, word_size)
    return is_word(text, size, word, word_size)


cdef bint _is_capital(const uint8_t* text, size_t size) noexcept nogil:
    # Node's lenient reader takes any method that is registered without a version. Words of a text are not.
    cdef size_t i
    for i in range(size):
        if (text[i] < 0x41 or text[i] > 0x5A) and text[i] != 0x2D:
            return False
    return True


cdef bint _end_request_line(Http* h) noexcept nogil:
    # RFC 9112, 3: `method target HTTP/d.d`, any white space, the version last. Without a version only what HTTP/0.9
    # had is a request, with a path, an absolute URI, or as Python's http.server takes it one word of any kind behind
    # GET, and only where nothing was lost before.
    cdef const uint8_t* text = h.line.data
    cdef size_t size = h.line.size, word = 0, cut, start
    cdef bint versioned, absolute
    while size and is_space(text[size - 1]):
        size -= 1
    while word < size and not _parts(text[word]):
        word += 1
    if word == 0 or word == size:       # no method: that of a line with a NUL in it may be gone with its beginning
        return False
    start = word
    while start < size and _parts(text[start]):
        start += 1
    if start == size:                   # a word and blanks of an odd kind
        return False
    cut = size
    while cut > start and not _parts(text[cut - 1]):
        cut -= 1
    versioned = cut > start and size - cut >= 5 and is_word(text + cut, 5, b"http/", 5)
    h.get = _is_method(h, word, b"get", 3)
    h.head = _is_method(h, word, b"head", 4)
    h.connect = _is_method(h, word, b"connect", 7)
    h.old = not versioned or size - cut != 8 or memcmp(text + cut, b"HTTP/1.1", 8) != 0
    h.preface = (versioned and size - cut == 8 and memcmp(text + cut, b"HTTP/2.0", 8) == 0
                 and _is_method(h, word, b"pri", 3))
    if versioned:
        size = cut - 1
        while size > start and (is_space(text[size - 1]) or text[size - 1] >= 0x1C and text[size - 1] <= 0x1F):
            size -= 1
    elif h.seeking or not (h.get or h.head or h.connect or _is_capital(text, word)):
        return False
    h.preface = h.preface and size - start == 1 and text[start] == 0x2A
    absolute = _find_authority(h, text + start, size - start)
    if not versioned and text[start] != 0x2F and not absolute and not (
            word == 3 and memcmp(text, b"GET", 3) == 0 and cut == start):
        return False
    # Behind white space of an odd kind the version is none to Apache, and this is HTTP/0.9.
    h.simple = 0 if versioned and _blank(h.line.data[cut - 1]) else 1
    h.is_http = 1
    _keep_target(h, start, size - start)
    h.special = FIELD_OTHER
    return True


cdef void _keep_target(Http* h, size_t start, size_t size) noexcept nogil:
    # Of the line the target is left, in its place.
    cdef Text line = h.target
    memmove(h.line.data, h.line.data + start, size)
    h.target = h.line
    h.target.size = <uint32_t>size
    h.line = line
    h.line.size = 0
    h.holed = 0


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
    if i == start:
        # "http:///host/": to browsers' parsers as if it had two slashes (WHATWG URL section 4.4), to others a path.
        while i < size and (text[i] == 0x2F or text[i] == 0x5C):
            i += 1
        start = i
        while i < size and text[i] != 0x2F and text[i] != 0x3F and text[i] != 0x23 and text[i] != 0x5C:
            i += 1
    _add_host(h, text + start, i - start)
    h.authority = 1
    return True


# ---- the head


cdef Outcome _read_head(Http* h, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef const uint8_t* piece = NULL
    cdef const uint8_t* stop
    cdef const uint8_t* lone
    cdef size_t size
    while left(c):
        if h.phase == PHASE_VALUE or h.phase == PHASE_SKIP:
            # Run to the line end, or to a CR, which may be one.
            size = min(left(c), <size_t>MAX_SCAN)
            stop = <const uint8_t*>memchr(c.at, 0x0A, size)
            if stop != NULL:
                size = <size_t>(stop - c.at)
            lone = <const uint8_t*>memchr(c.at, 0x0D, size) if size else NULL
            if lone != NULL:
                size = <size_t>(lone - c.at)
            take(c, size, &piece)
            if h.phase == PHASE_VALUE:
                _gather_value(h, piece, size)
            if stop == NULL and lone == NULL:
                continue
            take_u8(c, &b)
            h.spent += ODD_COST
            h.phase = PHASE_CR if b == 0x0D else PHASE_LINE
            continue
        if h.phase == PHASE_FIELD:
            _gather_name(h, c)
        elif (h.phase == PHASE_CR and h.special == FIELD_EMPTY and left(c) and c.at[0] != 0x0A and c.at[0] != 0x0D
                and h.simple != 3):
            h.spent += LOST_COST
            h.special = FIELD_EMPTIED
            h.simple = 1
            return FOUND
        if not take_u8(c, &b):
            return NEED_MORE
        if h.phase == PHASE_LINE or h.phase == PHASE_CR:
            if b == 0x0A:
                if h.phase == PHASE_LINE or h.special == FIELD_EMPTY:
                    _end_value(h)
                    return FOUND
                h.phase = PHASE_LINE
            elif b == 0x0D:
                if h.phase == PHASE_CR:
                    h.framings.unsure = 1       # to Python's http.server an empty line is between the two
                else:
                    _end_value(h)
                    h.special = FIELD_EMPTY
                    h.phase = PHASE_CR
            elif _blank(b) and h.phase == PHASE_LINE:
                # Folded into the field before (RFC 9112, 5.2), and a field of its own to servers that trim lines: so
                # it is read as both, behind a field of no interest here, else when the value is complete.
                h.preface = 0           # with a field it is a request of HTTP/1
                h.spent += LOST_COST
                if h.special == FIELD_OTHER:
                    h.phase = PHASE_FIELD
                    h.field_size = 0
                    h.unsure = 1
                else:
                    b = 0x0A
                    _gather_value(h, &b, 1)
                    h.phase = PHASE_VALUE
            else:
                if h.phase == PHASE_CR:
                    h.framings.unsure = 1       # a line to some, to others the rest of the one before
                _end_value(h)
                h.preface = 0
                h.unsure = h.phase == PHASE_CR
                h.phase = PHASE_FIELD
                h.field_size = 0
                if b == 0x3A:
                    h.special = FIELD_OTHER
                    h.phase = PHASE_SKIP
                else:
                    _name_byte(h, b)
        elif b == 0x3A:                 # PHASE_FIELD from here
            h.special = _special(h.field, h.field_size)
            h.phase = PHASE_SKIP if h.special == FIELD_OTHER else PHASE_VALUE
        elif b == 0x0A or b == 0x0D:
            if not h.unsure:
                h.framings.unsure = 1
            h.special = FIELD_OTHER
            h.phase = PHASE_LINE if b == 0x0A else PHASE_CR
        else:
            _name_byte(h, b)
    return NEED_MORE


cdef inline void _gather_name(Http* h, Cursor* c) noexcept nogil:
    # As far as there is nothing but letters, digits and the like: most of what a head has besides values.
    cdef uint8_t b
    cdef uint32_t size = h.field_size
    while left(c):
        b = c.at[0]
        if b < 0x21 or b > 0x7E or b == 0x3A:
            break
        if size < sizeof(h.field):
            h.field[size] = lower(b)
            size += 1
        skip(c, 1)
    h.field_size = <uint8_t>size


cdef inline void _name_byte(Http* h, uint8_t b) noexcept nogil:
    # Blanks around a field name are dropped; a longer name than any special one is gathered no further. To Python's
    # http.server a line whose name is none ends the head, and what stands behind it is not seen.
    h.spent += ODD_COST
    if b < 0x21 or b > 0x7E:
        if not h.unsure:
            h.framings.unsure = 1
        if _blank(b):
            h.unsure = 1
            return
    if h.field_size < sizeof(h.field):
        h.field[h.field_size] = lower(b)
        h.field_size += 1


cdef uint8_t _special(const uint8_t* name, size_t size) noexcept nogil:
    if is_word(name, size, b"host", 4):
        return FIELD_HOST
    if is_word(name, size, b"content-length", 14):
        return FIELD_LENGTH
    if is_word(name, size, b"transfer-encoding", 17):
        return FIELD_ENCODING
    return FIELD_OTHER


cdef void _gather_value(Http* h, const uint8_t* piece, size_t size) noexcept nogil:
    # Leading white space is not kept, and behind the first bytes no blanks in a row: padding costs nothing.
    cdef size_t i, start = 0, plain
    cdef bint blank, before
    while h.line.size == 0 and size and _blank(piece[0]):
        piece += 1
        size -= 1
    if h.line.size < PLAIN_VALUE:
        plain = min(size, PLAIN_VALUE - <size_t>h.line.size)
        append(&h.line, piece, plain, MAX_VALUE)
        piece += plain
        size -= plain
        if size == 0:
            return
    before = h.line.size != 0 and _blank(h.line.data[h.line.size - 1])
    for i in range(size + 1):
        if i < size:
            blank = _blank(piece[i])
            if not (blank and before):
                before = blank
                continue
        if not append(&h.line, piece + start, i - start, MAX_VALUE):
            h.crowded = 1
            return
        start = i + 1


cdef void _end_value(Http* h) noexcept nogil:
    # The field that was gathered is complete: nothing can be folded into it any more.
    h.spent += LINE_COST
    cdef uint8_t* text = h.line.data
    cdef size_t size = h.line.size, at, end, first
    cdef uint8_t special = h.special
    cdef bint unsure = h.unsure
    h.special = FIELD_OTHER
    h.unsure = 0
    h.line.size = 0
    if special == FIELD_OTHER or special >= FIELD_EMPTIED:
        return
    while size and is_space(text[size - 1]):
        size -= 1
    first = _line_size(text, size)
    _take_field(h, special, text, first, unsure or first < size)
    if first == size:
        return
    at = first
    while at < size:                    # each folded line as a field of its own
        end = at + 1 + _line_size(text + at + 1, size - at - 1)
        _take_line(h, text + at + 1, end - at - 1)
        text[at] = 0x20
        at = end
    _take_field(h, special, text, size, True)


cdef size_t _line_size(const uint8_t* text, size_t size) noexcept nogil:
    cdef const uint8_t* stop = <const uint8_t*>memchr(text, 0x0A, size) if size else NULL
    return <size_t>(stop - text) if stop != NULL else size


cdef void _take_line(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    cdef uint8_t name[24]
    cdef size_t i, count = 0
    for i in range(size):
        if text[i] == 0x3A:
            _take_field(h, _special(name, count), text + i + 1, size - i - 1, True)
            return
        if not _blank(text[i]):
            if count == sizeof(name):
                return
            name[count] = lower(text[i])
            count += 1


cdef void _take_field(Http* h, uint8_t special, const uint8_t* text, size_t size, bint unsure) noexcept nogil:
    h.spent += FIELD_COST
    while size and is_space(text[0]):
        text += 1
        size -= 1
    while size and is_space(text[size - 1]):
        size -= 1
    if special == FIELD_HOST:
        _add_host(h, text, size)
        return
    h.spent += FRAMING_COST * <uint32_t>size
    if special == FIELD_LENGTH:
        add_lengths(&h.framings, text, size)
    elif special == FIELD_ENCODING:
        add_encoding(&h.framings, text, size)
    else:
        return
    if unsure:
        h.framings.unsure = 1


cdef void _add_host(Http* h, const uint8_t* text, size_t size) noexcept nogil:
    # The last one wins the last place: a server that takes the last of too many is read right.
    cdef uint8_t length[2]
    cdef size_t i, at = 0
    while size and is_space(text[0]):
        text += 1
        size -= 1
    while size and is_space(text[size - 1]):
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
    if append(&h.hosts, length, 2, MAX_HOSTS_TEXT):
        if append(&h.hosts, text, size, MAX_HOSTS_TEXT):
            h.host_count += 1
            return
        h.hosts.size -= 2
    h.crowded = 1


# ---- the body


cdef void _choose(void* state, uint8_t index) noexcept nogil:
    # Of a reading that has just FOUND, or of a fork of it: follow this one.
    cdef Http* h = <Http*>state
    if h.framings.count:
        h.framings.ways[0] = h.framings.ways[index]
        h.framings.count = 1


cdef void _release_head(Http* h) noexcept nogil:
    release(&h.line)
    release(&h.target)
    release(&h.hosts)
    h.host_count = 0


cdef bint _pass_over(void* state, uint64_t size) noexcept nogil:
    # Body bytes need not be seen to be passed over.
    cdef Http* h = <Http*>state
    if (h.phase != PHASE_BODY and h.phase != PHASE_CHUNK) or h.body < size:
        return False
    h.body -= size
    return True


cdef uint64_t _body_left(const void* state) noexcept nogil:
    cdef const Http* h = <const Http*>state
    return h.body if h.phase == PHASE_BODY or h.phase == PHASE_CHUNK else 0


cdef bint _within_body(const void* state) noexcept nogil:
    cdef const Http* h = <const Http*>state
    return PHASE_BODY <= h.phase and h.phase <= PHASE_CHUNK_END


cdef void _follow(Http* h) noexcept nogil:
    # Behind the head, or where a body forks: as the first framing says. The head's texts have served.
    cdef Framing way = h.framings.ways[0]
    if h.framings.count == 0:
        way.kind = FRAMING_NONE
    _release_head(h)
    h.framings.count = 0
    h.body = 0
    if h.preface:
        h.phase = PHASE_PREFACE
    elif way.kind == FRAMING_LENGTH and way.length:
        h.body = way.length
        h.phase = PHASE_BODY
    elif way.kind == FRAMING_CHUNKED:
        h.digits = 0
        h.phase = PHASE_CHUNK_SIZE
    elif way.kind == FRAMING_CHUNK:
        h.body = way.length
        h.phase = PHASE_CHUNK if way.length else PHASE_LAST_CHUNK
    elif way.kind == FRAMING_TRAILER:
        h.field_size = 0
        h.phase = PHASE_TRAILER
    else:
        h.phase = PHASE_OVER


cdef Outcome _read_chunk_lines(Http* h, Cursor* c) noexcept nogil:
    # RFC 9112, 7.1. FOUND: a phase is over. NOT_MINE: at a byte that cannot be followed, which is not taken. In the
    # trailer, `field_size` says that the line is not empty. Nothing here is kept, so nothing is too long: nginx 1.22
    # takes leading zeros, chunk extensions and trailers of any length.
    cdef uint8_t b
    h.spent += LINE_COST
    while left(c):
        b = c.at[0]
        if h.phase == PHASE_LAST_CHUNK:
            h.field_size = 0
            h.phase = PHASE_TRAILER
            if b != 0x0D and b != 0x0A:         # a trailer; to a server that does not know them, the next request
                h.framings.count = 0
                add_framing(&h.framings, FRAMING_TRAILER, 0, False)
                add_framing(&h.framings, FRAMING_NONE, 0, False)
                h.phase = PHASE_HEAD_DONE
                return FOUND
            continue
        if h.phase == PHASE_CHUNK_SIZE:
            if not _chunk_size_byte(h, b):
                return NOT_MINE
            skip(c, 1)
            if h.phase != PHASE_CHUNK_SIZE:
                return FOUND
            continue
        if h.phase == PHASE_CHUNK_END:
            if b == 0x0A:
                h.phase = PHASE_CHUNK_SIZE
                h.digits = 0
            elif b != 0x0D:                     # Node's lenient reader needs no line end
                h.phase = PHASE_CHUNK_SIZE
                h.digits = 0
                continue
            skip(c, 1)
            continue
        skip(c, 1)                              # trailer
        if b == 0x0A:
            if h.field_size == 0:
                h.phase = PHASE_OVER
                return FOUND
            h.field_size = 0
        elif b != 0x0D:
            h.field_size = 1
    return NEED_MORE


cdef bint _chunk_size_byte(Http* h, uint8_t b) noexcept nogil:
    # A byte of the line before a chunk; at its LF the phase changes. "0x5" and "1_0" are what int() of Python takes.
    cdef int digit = -1
    if b == 0x0A:
        if h.digits == 0:
            return False
        h.phase = PHASE_CHUNK if h.body else PHASE_LAST_CHUNK
        if h.twofold:
            h.framings.count = 0
            add_framing(&h.framings, FRAMING_CHUNK, h.body, False)
            add_framing(&h.framings, FRAMING_CHUNK, h.first_size, False)
            h.phase = PHASE_HEAD_DONE
        h.twofold = 0
        return True
    if h.digits == 2:
        return True
    if b >= 0x30 and b <= 0x39:
        digit = b - 0x30
    elif lower(b) >= 0x61 and lower(b) <= 0x66:
        digit = lower(b) - 0x57
    if digit >= 0:
        if h.body >> 56:
            return False
        h.body = h.body * 16 + <uint64_t>digit
        h.digits = 1
    elif h.digits == 1 and (b == 0x5F or lower(b) == 0x78 and h.body == 0) and not h.twofold:
        h.twofold = 1
        h.first_size = h.body
    elif h.digits == 1:
        h.digits = 2
    elif not is_space(b) and b != 0x2B:
        return False
    return True


cdef Outcome _read_preface(Http* h, Cursor* c) noexcept nogil:
    # RFC 9113, 3.4. DONE: HTTP/2 begins. NOT_MINE: it does not, and what was taken is the start of the next line.
    cdef const char* text = PREFACE_END
    while left(c):
        if c.at[0] != <uint8_t>text[h.body]:
            h.preface = 0
            if h.body > 2:
                _seek_request(h)
                return NOT_MINE
            if h.body:
                append(&h.line, <const uint8_t*>text, <size_t>h.body, MAX_LINE)
            h.phase = PHASE_REQUEST if h.body else PHASE_BLANK
            h.body = 0
            h.is_http = h.get = h.head = h.connect = 0
            h.word = h.blanks = 0
            return NOT_MINE
        skip(c, 1)
        h.body += 1
        if h.body == 6:
            h.preface = 2
            return DONE
    return NEED_MORE


# ---- where nothing can be followed


cdef void _seek_request(Http* h) noexcept nogil:
    _release(h)
    h.seeking = 1
    h.text = 255


cdef uint8_t _lost(const void* state) noexcept nogil:
    cdef const Http* h = <const Http*>state
    if h.is_http or not (h.seeking or h.odd or h.binary):
        return 0
    return ASTRAY if h.seeking or h.odd else LOST


cdef void _lose(void* state) noexcept nogil:
    _seek_request(<Http*>state)
    (<Http*>state).binary = 1


# ---- copies


cdef bint _copy(void* to, const void* state) noexcept nogil:
    cdef Http* copy = <Http*>to
    cdef const Http* h = <const Http*>state
    cdef bint line = duplicate(&copy.line, &h.line)
    cdef bint target = duplicate(&copy.target, &h.target)
    cdef bint hosts = duplicate(&copy.hosts, &h.hosts)
    return line and target and hosts


cdef uint64_t _digest(const void* state) noexcept nogil:
    cdef const Http* h = <const Http*>state
    cdef uint64_t digest = h.body
    digest = digest_word(digest, h.phase | <uint64_t>h.special << 8 | <uint64_t>h.unsure << 16
                         | <uint64_t>h.simple << 24 | <uint64_t>h.seeking << 32 | <uint64_t>h.odd << 40
                         | <uint64_t>h.word << 48)
    digest = digest_bytes(digest, h.sign.seen, h.sign.size)
    digest = digest_bytes(digest, h.field, h.field_size if h.phase == PHASE_FIELD else 0)
    digest = digest_framings(digest, &h.framings)
    return digest_text(digest_text(digest_text(digest, &h.line), &h.target), &h.hosts)


cdef bint _same(const void* one, const void* other) noexcept nogil:
    cdef const Http* a = <const Http*>one
    cdef const Http* b = <const Http*>other
    if (a.phase != b.phase or a.field_size != b.field_size or a.special != b.special or a.unsure != b.unsure
            or a.get != b.get or a.head != b.head or a.connect != b.connect or a.old != b.old
            or a.preface != b.preface or a.host_count != b.host_count or a.authority != b.authority
            or a.simple != b.simple or a.cut != b.cut or a.crowded != b.crowded or a.is_http != b.is_http
            or a.holed != b.holed or a.seeking != b.seeking or a.binary != b.binary or a.odd != b.odd
            or a.word != b.word or a.digits != b.digits or a.twofold != b.twofold or a.path_at != b.path_at
            or a.body != b.body
            or a.twofold and a.first_size != b.first_size or a.sign.size != b.sign.size):
        return False
    if a.phase == PHASE_FIELD and memcmp(a.field, b.field, a.field_size) != 0:
        return False
    return (same_framings(&a.framings, &b.framings) and memcmp(a.sign.seen, b.sign.seen, a.sign.size) == 0
            and same_text(&a.line, &b.line) and same_text(&a.target, &b.target) and same_text(&a.hosts, &b.hosts))


cdef void _release(void* state) noexcept nogil:
    cdef Http* h = <Http*>state
    release(&h.line)
    release(&h.target)
    release(&h.hosts)
    memset(h, 0, sizeof(Http))


cdef uint32_t _weigh(const void* state) noexcept nogil:
    cdef const Http* h = <const Http*>state
    return h.line.room + h.target.room + h.hosts.room


# ---- the reader


cdef Outcome _read(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    cdef Http* h = <Http*>state
    cdef const uint8_t* came = c.at
    cdef uint64_t body = _body_left(h)
    cdef Outcome outcome = read_http(h, c)
    cdef size_t read = <size_t>(c.at - came)
    step.cost = <int32_t>(read - min(read, body)) + <int32_t>h.spent        # a body is passed over, not looked at
    h.spent = 0
    step.message = h.is_http
    step.text = h.is_http or not h.binary and h.text >= TEXT_SEEN
    if outcome == FOUND and h.event == EVENT_HELLO:
        step.aside, step.taken, step.taken_size = 1, h.sign.seen, SIGN_SIZE
    elif outcome == FOUND:
        if h.event == EVENT_HEAD:
            _report(h, out)
            step.head, step.overflow, step.cut = 1, h.crowded, h.cut
            if h.simple == 1:
                return FOUND
        if h.framings.count > 1:
            _release_head(h)
            step.ways = h.framings.count
        else:
            _choose(h, 0)
    elif outcome == DONE:
        step.cost += FEED_COST
        if h.preface:               # what of HTTP/2's preface stands behind its head (RFC 9113, 3.4)
            step.succeeded, step.taken, step.taken_size = 1, <const uint8_t*>PREFACE_END, 6
    return outcome


cdef void _report(Http* h, Findings* out) noexcept nogil:
    # One finding for each host; a head without any is a finding without a host.
    cdef Finding* f
    cdef uint32_t target_at = 0, target_size = 0
    cdef size_t at = 0, size
    cdef uint32_t count = h.host_count if h.host_count else 1, i
    if h.preface:
        return
    add_text(out, h.target.data, h.target.size, &target_at, &target_size)
    if count * target_size > <uint32_t>MAX_PAIRED and count > 1:
        h.crowded = 1
        count = 1
    for i in range(count):
        f = add_finding(out)
        if f == NULL:
            return
        f.kind = FINDING_NAME
        f.head = h.head
        f.unsure = h.simple != 0 and h.host_count == 0
        f.connect = h.connect and h.authority
        f.target_at = target_at
        f.target_size = target_size
        f.path_at = h.path_at if h.path_at < target_size else target_size
        if h.host_count:
            size = (<size_t>h.hosts.data[at] << 8) | h.hosts.data[at + 1]
            add_text(out, h.hosts.data + at + 2, size, &f.host_at, &f.host_size)
            at += 2 + size


cdef Reader http_reader() noexcept nogil:
    cdef Reader r
    memset(&r, 0, sizeof(Reader))
    r.name, r.size, r.proto, r.shows = b"http", sizeof(Http), PROTO_HTTP, 1
    r.read, r.same, r.digest, r.choose = _read, _same, _digest, _choose
    r.copy, r.release, r.weigh = _copy, _release, _weigh
    r.body_left, r.within_body, r.pass_over = _body_left, _within_body, _pass_over
    r.lost, r.lose = _lost, _lose
    return r


# ---- for tests and fuzzing


def feed(pieces) -> tuple:
    """Feeds byte pieces in order. Returns (outcome, heads, bytes consumed, forks); the outcome is "lost" where the
    reader looks for the next request.

    A head is (hosts, target, path offset, head-only, framings as (kind,
                                                                   length)). The first framing is followed; so is
    the first of each list in `forks`, the ways to go on in a body.
    """
    cdef Http h
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    cdef size_t consumed = 0, at, size
    memset(&h, 0, sizeof(Http))
    heads, forks = [], []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            outcome = read_http(&h, &c)
            if outcome == DONE:
                if h.preface:
                    break
                _release(&h)
                if left(&c) == 0:
                    break
                continue
            if outcome != FOUND:
                break
            if h.event == EVENT_HEAD:
                hosts = []
                at = 0
                for _ in range(h.host_count):
                    size = (<size_t>h.hosts.data[at] << 8) | h.hosts.data[at + 1]
                    hosts.append(<bytes>h.hosts.data[at + 2:at + 2 + size])
                    at += 2 + size
                heads.append((hosts, <bytes>h.target.data[:h.target.size], h.path_at, bool(h.head),
                              [(h.framings.ways[i].kind, h.framings.ways[i].length)
                               for i in range(h.framings.count)]))
            elif h.event == EVENT_FORK:
                forks.append([(h.framings.ways[i].kind, h.framings.ways[i].length)
                              for i in range(h.framings.count)])
            if h.event != EVENT_HELLO and not h.simple == 1:
                _choose(&h, 0)
        consumed += piece.shape[0] - left(&c)
        if outcome == DONE and h.preface:
            break
    lost = _lost(&h) != 0
    preface = h.preface == 2
    _release(&h)
    return "http2" if preface else "lost" if lost else "need_more", heads, consumed, forks
