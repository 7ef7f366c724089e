"""One way to read a stream; reading.pxd says what it is."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.core.cursor cimport Cursor, cursor
from edgeblock.core.hpack cimport weigh_hpack
from edgeblock.core.http cimport Http, copy_http, digest_http, free_http, read_http, same_http, seek_request
from edgeblock.core.http2 cimport Http2, copy_http2, digest_http2, free_http2, read_http2, same_http2
from edgeblock.core.prefix cimport same_prefix, signature
from edgeblock.core.text cimport digest_bytes, digest_word
from edgeblock.core.tls cimport DONE, NEED_MORE, NOT_MINE, Hello


cdef void free_readings(Reading* r) noexcept nogil:
    cdef Reading* next_one
    while r != NULL:
        next_one = r.next
        free_http(&r.http)
        if r.kind == READ_HTTP2:
            free_http2(&r.http2)
        free(r)
        r = next_one


cdef Reading* copy_reading(const Reading* r) noexcept nogil:
    cdef Reading* copy = <Reading*>malloc(sizeof(Reading))
    if copy == NULL:
        return NULL
    memcpy(copy, r, sizeof(Reading))
    copy.next = NULL
    cdef bint http = copy_http(&copy.http, &r.http)
    if not ((r.kind != READ_HTTP2 or copy_http2(&copy.http2, &r.http2)) and http):
        free_readings(copy)
        return NULL
    return copy


cdef Reading* copy_readings(const Reading* r) noexcept nogil:
    # All of a list, or NULL.
    cdef Reading* copies = NULL
    cdef Reading* copy
    while r != NULL:
        copy = copy_reading(r)
        if copy == NULL:
            free_readings(copies)
            return NULL
        copy.next = copies
        copies = copy
        r = r.next
    return copies


cdef bint same_reading(const Reading* a, const Reading* b) noexcept nogil:
    cdef const Tls* s = &a.opening.tls
    cdef const Tls* t = &b.opening.tls
    cdef const Hello* x = &s.hello
    cdef const Hello* y = &t.hello
    if a.kind != b.kind or a.again != b.again or a.aside != b.aside:
        return False
    if a.kind == READ_ANY:
        return True
    if a.began != b.began:
        return False
    if a.kind == READ_HTTP:
        return same_http(&a.http, &b.http)
    if a.kind == READ_HTTP2:
        return same_http2(&a.http2, &b.http2)
    if a.kind == READ_PREFIX:
        return same_prefix(&a.opening.prefix, &b.opening.prefix)
    if a.kind == READ_TLS and (s.header_size != t.header_size or s.kind != t.kind or s.record != t.record):
        return False
    return (x.phase == y.phase and x.need == y.need and x.kind == y.kind and x.ech == y.ech
            and (x.names == 0) == (y.names == 0) and x.name_too_long == y.name_too_long
            and x.name_size == y.name_size and x.value == y.value and x.gap == y.gap and x.body == y.body
            and x.extensions == y.extensions and x.extension == y.extension
            and x.names_left == y.names_left and x.name_left == y.name_left
            and memcmp(x.name, y.name, x.name_size) == 0)


cdef uint64_t digest_of(const Reading* r) noexcept nogil:
    # The same for readings that are the same.
    cdef const Tls* t = &r.opening.tls
    cdef const Hello* h = &t.hello
    cdef uint64_t digest
    if r.kind == READ_ANY:
        return 0
    if r.kind == READ_HTTP:
        digest = digest_http(&r.http)
    elif r.kind == READ_HTTP2:
        digest = digest_http2(&r.http2)
    elif r.kind == READ_PREFIX:
        digest = digest_bytes(r.opening.prefix.phase | <uint64_t>r.opening.prefix.gap << 8,
                              r.opening.prefix.destination, r.opening.prefix.size)
    else:
        digest = h.phase | <uint64_t>h.need << 8 | <uint64_t>h.kind << 16 | <uint64_t>h.value << 32
        if r.kind == READ_TLS:
            digest = digest_word(digest, t.header_size | <uint64_t>t.kind << 8 | <uint64_t>t.record << 16)
        digest = digest_word(digest, h.gap | <uint64_t>h.body << 32)
        digest = digest_word(digest, h.extensions | <uint64_t>h.extension << 32)
        digest = digest_word(digest, h.names_left | <uint64_t>h.name_left << 32)
        digest = digest_bytes(digest, h.name, h.name_size)
    return digest_word(digest, <uint64_t>r.began << 8 | r.kind)


cdef uint32_t weight(const Reading* r) noexcept nogil:
    return <uint32_t>(sizeof(Reading) + r.http.line.room + r.http.target.room + r.http.hosts.room
                      + (weigh_hpack(&r.http2.hpack) if r.kind == READ_HTTP2 else 0))


cdef void lose_way(Reading* r) noexcept nogil:
    # What stands here is none of the protocols that it began like; a request or a ClientHello may come all the same.
    # Of PROXY v2's signature that was none the first bytes are blank lines.
    cdef uint8_t matched = r.opening.prefix.matched if r.kind == READ_PREFIX else 0
    cdef Cursor c = cursor(signature(), matched)
    memset(&r.http, 0, sizeof(Http))
    if matched:
        read_http(&r.http, &c)
    else:
        seek_request(&r.http)
        r.http.binary = 1
    r.kind = READ_HTTP


cdef Outcome begin_http2(Reading* r) noexcept nogil:
    # What the request reader has taken of the preface (RFC 9113, 3.4).
    cdef Cursor c = cursor(<const uint8_t*>b"SM\r\n\r\n", 6)
    memset(&r.http2, 0, sizeof(Http2))
    return DONE if read_http2(&r.http2, &c) == NEED_MORE else NOT_MINE
