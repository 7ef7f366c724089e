"""Requests of a clear-text HTTP/2 connection.

Comes in: the client's bytes behind "PRI * HTTP/2.0", in order, cut anywhere. Goes out: FOUND for every header block;
`last_request` has its :authority (or Host) and :path from the hpack library. Never here: HPACK of our own, bodies.
Sources: RFC 9113 sections 3.4, 4.1, 6.2, 6.10; RFC 7541.
"""

from libc.string cimport memcpy, memset

from edgeblock.core.cursor cimport Cursor, cursor, left, skip, take, take_u8
from edgeblock.core.text cimport append, duplicate, release, same_text
from edgeblock.core.tls cimport FOUND, NEED_MORE, NOT_MINE

import hpack

cdef enum:
    FRAME_DATA = 0
    FRAME_HEADERS = 1
    FRAME_CONTINUATION = 9
    FLAG_END_HEADERS = 0x04
    FLAG_PADDED = 0x08
    FLAG_PRIORITY = 0x20

cdef const char* PREFACE = b"SM\r\n\r\n"


cdef Outcome read_http2(Http2* h, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef const uint8_t* piece = NULL
    cdef uint32_t size
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
            if h.header_size == 9 and not _start_frame(h):
                return NOT_MINE
        while h.prefix:
            if not take_u8(c, &b):
                return NEED_MORE
            if h.padded:
                h.padded = 0
                h.padding = b
            h.prefix -= 1
            h.length -= 1
            if h.prefix == 0 and h.padding > h.length:
                return NOT_MINE
        size = h.length if h.length < left(c) else <uint32_t>left(c)
        if h.open and h.length > h.padding:
            if size > h.length - h.padding:
                size = h.length - h.padding
            take(c, size, &piece)
            if not append(&h.blocks, piece, size, MAX_BLOCKS):
                return NOT_MINE
        else:
            skip(c, size)
        h.length -= size
        if h.length:
            if left(c) == 0:
                return NEED_MORE
            continue                    # the padding
        h.header_size = 0
        h.padding = 0
        if h.open and h.flags & FLAG_END_HEADERS and (h.kind == FRAME_HEADERS or h.kind == FRAME_CONTINUATION):
            h.open = 0
            size = h.blocks.size - h.block_at - 4
            h.blocks.data[h.block_at] = <uint8_t>(size >> 24)
            h.blocks.data[h.block_at + 1] = <uint8_t>(size >> 16)
            h.blocks.data[h.block_at + 2] = <uint8_t>(size >> 8)
            h.blocks.data[h.block_at + 3] = <uint8_t>size
            h.requests += 1
            return FOUND


cdef bint _start_frame(Http2* h) noexcept nogil:
    cdef uint8_t empty[4]
    h.prefix = 0
    h.padded = 0
    h.padding = 0
    if h.open != (h.kind == FRAME_CONTINUATION):
        return False                    # RFC 9113, 6.10: nothing between HEADERS and its CONTINUATIONs
    if h.kind != FRAME_HEADERS:
        return True
    if h.flags & FLAG_PADDED:
        h.padded = 1
        h.prefix = 1
    if h.flags & FLAG_PRIORITY:
        h.prefix += 5
    if h.prefix > h.length:
        return False
    memset(empty, 0, 4)
    h.block_at = h.blocks.size
    h.open = 1
    return append(&h.blocks, empty, 4, MAX_BLOCKS)


cdef bint copy_http2(Http2* copy, const Http2* h) noexcept nogil:
    memcpy(copy, h, sizeof(Http2))
    return duplicate(&copy.blocks, &h.blocks)


cdef bint same_http2(const Http2* a, const Http2* b) noexcept nogil:
    return (a.preface == b.preface and a.header_size == b.header_size and a.kind == b.kind and a.flags == b.flags
            and a.prefix == b.prefix and a.padded == b.padded and a.open == b.open and a.length == b.length
            and a.padding == b.padding and same_text(&a.blocks, &b.blocks))


cdef void free_http2(Http2* h) noexcept nogil:
    release(&h.blocks)
    memset(h, 0, sizeof(Http2))


cdef object last_request(const Http2* h):
    """(host, path, method) as bytes of the newest block; None where it is a trailer or no server could decode it."""
    cdef Cursor c = cursor(h.blocks.data, h.blocks.size)
    cdef const uint8_t* piece = NULL
    cdef uint32_t size, i
    decoder = hpack.Decoder(max_header_list_size=MAX_BLOCKS * 4)
    fields = []
    for i in range(h.requests):
        if not take(&c, 4, &piece):
            return None
        size = (<uint32_t>piece[0] << 24) | (<uint32_t>piece[1] << 16) | (<uint32_t>piece[2] << 8) | piece[3]
        if not take(&c, size, &piece):
            return None
        try:
            fields = decoder.decode(<bytes>piece[:size], raw=True)
        except (hpack.HPACKError, ValueError, IndexError, UnicodeError):
            return None
    host = path = method = None
    for name, value in fields:
        if name == b":authority" or (name == b"host" and host is None):
            host = value
        elif name == b":path":
            path = value
        elif name == b":method":
            method = value
    return None if method is None else (host, path, method)


def feed(pieces) -> tuple:
    """For tests: feeds byte pieces behind "PRI * HTTP/2.0\\r\\n\\r\\n". Returns (outcome, [(host, path, method)])."""
    cdef Http2 h
    cdef Cursor c
    cdef const uint8_t[::1] piece
    cdef Outcome outcome = NEED_MORE
    memset(&h, 0, sizeof(Http2))
    requests = []
    for data in pieces:
        piece = data
        if piece.shape[0] == 0:
            continue
        c = cursor(&piece[0], piece.shape[0])
        while True:
            outcome = read_http2(&h, &c)
            if outcome != FOUND:
                break
            requests.append(last_request(&h))
        if outcome != NEED_MORE:
            break
    free_http2(&h)
    return ("need_more", "found", "done", "not_mine")[outcome], requests
