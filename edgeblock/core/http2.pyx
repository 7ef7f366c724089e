"""Requests of a clear-text HTTP/2 connection.

Comes in: the client's bytes behind "PRI * HTTP/2.0", in order, cut anywhere. Goes out: FOUND for every header block;
what it says stands in `hpack` until the next call. Never here: a block kept, bodies, an end before the connection's.
A frame that every server answers by closing is passed over: whoever sends it on purpose is read on all the same.
Sources: RFC 9113 sections 3.4, 4.1, 6.2, 6.10.
"""

from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memset

from edgeblock.core.cursor cimport Cursor, cursor, left, nested, skip, take_u8
from edgeblock.core.findings cimport FINDING_NAME, MAX_PAIRED, Finding, Findings, add_finding, add_text
from edgeblock.core.hpack cimport (begin_block, copy_hpack, digest_hpack, end_block, free_hpack, list_texts,
                                   read_fragment, same_hpack, weigh_hpack)
from edgeblock.core.matcher cimport PROTO_HTTP
from edgeblock.core.reader cimport FOUND, NEED_MORE, NOT_MINE, Step
from edgeblock.core.text cimport Text, digest_word

cdef enum:
    FRAME_HEADERS = 1
    FRAME_CONTINUATION = 9
    FLAG_END_HEADERS = 0x04
    FLAG_PADDED = 0x08
    FLAG_PRIORITY = 0x20
    FRAME_COST = 8             # work of a frame apart from its bytes

cdef const char* PREFACE = b"SM\r\n\r\n"


cdef Outcome read_http2(Http2* h, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef uint32_t size
    cdef Cursor fragment
    while True:
        while h.preface < 6:
            if not take_u8(c, &b):
                return NEED_MORE
            if b != <uint8_t>PREFACE[h.preface]:
                return NOT_MINE
            h.preface += 1
        while h.header_size < 9:
            if not take_u8(c, &b):
                return NEED_MORE
            if h.header_size < 3:
                h.length = (h.length << 8) | b
            elif h.header_size == 3:
                h.kind = b
            elif h.header_size == 4:
                h.flags = b
            h.header_size += 1
            if h.header_size == 9:
                _start_frame(h)
        while h.prefix:
            if not take_u8(c, &b):
                return NEED_MORE
            if h.padded:
                h.padded = 0
                h.padding = b
            h.prefix -= 1
            h.length -= 1
            if h.padding > h.length - h.prefix:
                h.open = 0              # more padding than frame
                h.padding = 0
        size = h.length if h.length < left(c) else <uint32_t>left(c)
        if h.open and h.length > h.padding and _is_fragment(h):
            if size > h.length - h.padding:
                size = h.length - h.padding
            nested(c, size, &fragment)
            read_fragment(&h.hpack, &fragment)
        else:
            skip(c, size)
        h.length -= size
        if h.length:
            if left(c) == 0:
                return NEED_MORE
            continue                    # the padding
        h.header_size = 0
        h.padding = 0
        if h.open and h.flags & FLAG_END_HEADERS and _is_fragment(h):
            h.open = 0
            end_block(&h.hpack)
            return FOUND


cdef inline bint _is_fragment(const Http2* h) noexcept nogil:
    # RFC 9113, 6.10: other frames between HEADERS and its CONTINUATIONs are passed over.
    return h.kind == FRAME_HEADERS or h.kind == FRAME_CONTINUATION


cdef void _start_frame(Http2* h) noexcept nogil:
    h.hpack.spent += FRAME_COST
    h.prefix = 0
    h.padded = 0
    h.padding = 0
    if h.kind != FRAME_HEADERS:
        return
    begin_block(&h.hpack)
    if h.flags & FLAG_PADDED:
        h.padded = 1
        h.prefix = 1
    if h.flags & FLAG_PRIORITY:
        h.prefix += 5
    h.open = h.prefix <= h.length
    if not h.open:
        h.prefix = 0
        h.padded = 0


cdef bint is_request(const Http2* h) noexcept nogil:
    # Trailers have none of the fields that begin with a colon (RFC 9113, 8.1).
    return h.hpack.pseudo


# ---- the reader


cdef Outcome _read(void* state, Cursor* c, Step* step, Findings* out) noexcept nogil:
    cdef Http2* h = <Http2*>state
    cdef const uint8_t* came = c.at
    cdef Outcome outcome = read_http2(h, c)
    step.cost = <int32_t>(c.at - came) + <int32_t>h.hpack.spent
    h.hpack.spent = 0
    if outcome == FOUND:
        step.overflow = _report(h, out)
    return outcome


cdef bint _report(const Http2* http2, Findings* out) noexcept nogil:
    # One finding for each host with each path: servers that do not refuse a second take the first or the last. True:
    # these are not all that servers may take.
    cdef const Hpack* h = &http2.hpack
    cdef Finding* f
    cdef uint32_t path_at = 0, host_at, target_at = 0, target_size = 0
    cdef uint32_t hosts = h.host_count if h.host_count else 1, host
    cdef uint8_t path
    cdef bint crowded = h.unresolved or h.crowded
    if not is_request(http2):
        return crowded
    if hosts * h.paths.size > <uint32_t>MAX_PAIRED and hosts > 1:
        crowded = True
        hosts = 1
    for path in range(h.path_count if h.path_count else 1):
        if h.path_count:
            _put_next(out, &h.paths, &path_at, &target_at, &target_size)
        host_at = 0
        for host in range(hosts):
            f = add_finding(out)
            if f == NULL:
                return crowded
            f.kind = FINDING_NAME
            f.began = h.blocks
            f.head = h.head
            f.connect = h.connect and not h.path_count
            f.unsure = h.broken or not h.method
            f.target_at = target_at
            f.target_size = target_size
            if h.host_count:
                _put_next(out, &h.hosts, &host_at, &f.host_at, &f.host_size)
    return crowded


cdef void _put_next(Findings* out, const Text* texts, uint32_t* at, uint32_t* text_at, uint32_t* size) noexcept nogil:
    cdef const uint8_t* text = texts.data + at[0]
    size[0] = (<uint32_t>text[0] << 8) | text[1]
    at[0] += 2 + size[0]
    add_text(out, text + 2, size[0], text_at, size)


cdef bint _copy(void* copy, const void* state) noexcept nogil:
    return copy_hpack(&(<Http2*>copy).hpack, &(<const Http2*>state).hpack)


cdef uint64_t _digest(const void* state) noexcept nogil:
    cdef const Http2* h = <const Http2*>state
    return digest_word(digest_hpack(&h.hpack), h.length | <uint64_t>h.header_size << 32 | <uint64_t>h.kind << 40)


cdef bint _same(const void* one, const void* other) noexcept nogil:
    cdef const Http2* a = <const Http2*>one
    cdef const Http2* b = <const Http2*>other
    return (a.preface == b.preface and a.header_size == b.header_size and a.kind == b.kind and a.flags == b.flags
            and a.prefix == b.prefix and a.padded == b.padded and a.open == b.open and a.length == b.length
            and a.padding == b.padding and same_hpack(&a.hpack, &b.hpack))


cdef void _release(void* state) noexcept nogil:
    free_hpack(&(<Http2*>state).hpack)
    memset(state, 0, sizeof(Http2))


cdef uint32_t _weigh(const void* state) noexcept nogil:
    return weigh_hpack(&(<const Http2*>state).hpack)


cdef uint32_t _comparing(const void* state) noexcept nogil:
    return (<const Http2*>state).hpack.count


cdef Reader http2_reader() noexcept nogil:
    cdef Reader r
    memset(&r, 0, sizeof(Reader))
    r.name, r.size, r.proto = b"http2", sizeof(Http2), PROTO_HTTP
    r.read, r.same, r.digest, r.comparing = _read, _same, _digest, _comparing
    r.copy, r.release, r.weigh = _copy, _release, _weigh
    return r


def feed(pieces) -> tuple:
    """For tests: feeds byte pieces behind "PRI * HTTP/2.0\\r\\n\\r\\n". Returns (outcome, blocks).

    Of each block (hosts, paths), or None where it is no request.
    """
    cdef Http2 h
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    memset(&h, 0, sizeof(Http2))
    blocks = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            outcome = read_http2(&h, &c)
            if outcome != FOUND:
                break
            blocks.append((list_texts(&h.hpack.hosts), list_texts(&h.hpack.paths)) if is_request(&h) else None)
        if outcome != NEED_MORE:
            break
    _release(&h)
    return ("need_more", "found", "done", "not_mine")[outcome], blocks
