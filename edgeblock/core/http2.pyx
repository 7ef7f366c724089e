"""Requests of a clear-text HTTP/2 connection.

Comes in: the client's bytes behind "PRI * HTTP/2.0", in order, cut anywhere. Goes out: FOUND for every header block;
what it says stands in `hpack` until the next call. Never here: a block kept, bodies, an end before the connection's.
A frame that every server answers by closing is passed over: whoever sends it on purpose is read on all the same.
Sources: RFC 9113 sections 3.4, 4.1, 6.2, 6.10.
"""

from libc.string cimport memcpy, memset

from edgeblock.core.cursor cimport Cursor, cursor, left, nested, skip, take_u8
from edgeblock.core.hpack cimport (begin_block, copy_hpack, digest_hpack, end_block, free_hpack, list_texts,
                                   read_fragment, same_hpack)
from edgeblock.core.text cimport digest_word
from edgeblock.core.tls cimport FOUND, NEED_MORE, NOT_MINE

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


cdef bint copy_http2(Http2* copy, const Http2* h) noexcept nogil:
    memcpy(copy, h, sizeof(Http2))
    return copy_hpack(&copy.hpack, &h.hpack)


cdef uint64_t digest_http2(const Http2* h) noexcept nogil:
    return digest_word(digest_hpack(&h.hpack), h.length | <uint64_t>h.header_size << 32 | <uint64_t>h.kind << 40)


cdef bint same_http2(const Http2* a, const Http2* b) noexcept nogil:
    return (a.preface == b.preface and a.header_size == b.header_size and a.kind == b.kind and a.flags == b.flags
            and a.prefix == b.prefix and a.padded == b.padded and a.open == b.open and a.length == b.length
            and a.padding == b.padding and same_hpack(&a.hpack, &b.hpack))


cdef void free_http2(Http2* h) noexcept nogil:
    free_hpack(&h.hpack)
    memset(h, 0, sizeof(Http2))


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
    free_http2(&h)
    return ("need_more", "found", "done", "not_mine")[outcome], blocks
