"""Every way in which servers frame one body.

Comes in: the values of the framing fields, one after the other, then what the request line tells (settle_framings).
Goes out: up to MAX_FRAMINGS ways, the one of RFC 9112 (6.3) first. "No body" is one of them wherever some server does
not look: for GET, HEAD and CONNECT, for Transfer-Encoding before HTTP/1.1, for fields or values that are spelled
oddly. Where all known servers agree there is one way, so that what a body quotes is never taken for a request.
Never here: the bytes of a body, a decision which way is right.
"""

from edgeblock.core.text cimport contains, digest_word, is_space, is_word, lower

cdef enum:
    MAX_DIGITS = 17        # 10 PB: a longer number is no length


cdef void add_framing(Framings* f, uint8_t kind, uint64_t length, bint first) noexcept nogil:
    cdef uint8_t i
    cdef bint nothing = kind == FRAMING_NONE
    for i in range(f.count):
        if f.ways[i].kind == kind and f.ways[i].length == length:
            return
        if nothing and f.ways[i].kind == FRAMING_LENGTH and f.ways[i].length == 0:
            return
    if f.count == MAX_FRAMINGS:
        f.crowded = 1
        if not first:
            return
        f.count -= 1
    i = f.count
    if first:
        while i:
            f.ways[i] = f.ways[i - 1]
            i -= 1
    f.ways[i].kind = kind
    f.ways[i].length = length
    f.count += 1


cdef void add_lengths(Framings* f, const uint8_t* text, size_t size) noexcept nogil:
    # RFC 9112, 6.3: a list of equal values is one value; where they differ, servers differ, and each is a reading.
    cdef size_t start = 0, i
    for i in range(size):
        if text[i] == 0x2C:
            _add_length(f, text + start, i - start)
            start = i + 1
            f.unsure = 1                # servers take the first number, or the field for none at all
    _add_length(f, text + start, size - start)


cdef void _add_length(Framings* f, const uint8_t* text, size_t size) noexcept nogil:
    # Plain digits are one number to everybody. "+5", "5x", "5 0", "5_0" and "0x5" are what strtol, int() of Python
    # and others make of them: the digits up to the first other byte, or all of them, or hexadecimal ones.
    cdef uint64_t head = 0, joined = 0, hexadecimal = 0
    cdef size_t i, digits = 0
    cdef int digit
    cdef bint plain = True, broken = False
    while size and is_space(text[0]):
        text += 1
        size -= 1
    while size and is_space(text[size - 1]):
        size -= 1
    for i in range(size):
        if text[i] >= 0x30 and text[i] <= 0x39:
            if digits < MAX_DIGITS:
                joined = joined * 10 + (text[i] - 0x30)
                if not broken:
                    head = joined
            digits += 1
            continue
        plain = False
        if is_space(text[i]) or text[i] == 0x5F:
            broken = broken or digits != 0
        elif text[i] != 0x2B or digits:
            break
    if not plain or digits > MAX_DIGITS:
        f.unsure = 1
    if digits == 0 or digits > MAX_DIGITS:
        return
    add_framing(f, FRAMING_LENGTH, head, False)
    add_framing(f, FRAMING_LENGTH, joined, False)
    if size > 2 and size < 18 and text[0] == 0x30 and lower(text[1]) == 0x78:
        for i in range(2, size):
            digit = hexadecimal_digit(text[i])
            if digit < 0:
                break
            hexadecimal = hexadecimal * 16 + <uint64_t>digit
        add_framing(f, FRAMING_LENGTH, hexadecimal, False)


cdef inline int hexadecimal_digit(uint8_t b) noexcept nogil:
    if b >= 0x30 and b <= 0x39:
        return b - 0x30
    b = lower(b)
    return b - 0x57 if b >= 0x61 and b <= 0x66 else -1


cdef void add_encoding(Framings* f, const uint8_t* text, size_t size) noexcept nogil:
    # Plain "chunked" decides (RFC 9112, 6.3: before any length). Anything dressed up ("xchunked", "chunked,
    # identity") is read by some servers as chunked, by others as no encoding at all; so is any other coding.
    if not contains(text, size, b"chunked", 7):
        f.unsure = 1
        return
    if not is_word(text, size, b"chunked", 7):
        f.unsure = 1
    add_framing(f, FRAMING_CHUNKED, 0, True)


cdef void settle_framings(Framings* f, bint bodiless, bint tunnel, bint old) noexcept nogil:
    """All fields were seen. `bodiless`: GET or HEAD; `tunnel`: CONNECT; `old`: a version that is not HTTP/1.1.

    RFC 9110, 9.3.1: content of a GET has no meaning, and Python's http.server leaves it to be the next request.
    Apache, Go,
    tornado and uvicorn read a body behind CONNECT; to others its tunnel begins (9.3.6). Chunked before HTTP/1.1 is
    not known to Go and waitress, and is to others (RFC 9112, 6.1).
    """
    if f.count == 0:
        return
    if tunnel:
        add_framing(f, FRAMING_NONE, 0, True)
    elif bodiless or f.unsure or old and f.ways[0].kind == FRAMING_CHUNKED:
        add_framing(f, FRAMING_NONE, 0, False)


cdef uint64_t digest_framings(uint64_t digest, const Framings* f) noexcept nogil:
    cdef uint8_t i
    for i in range(f.count):
        digest = digest_word(digest_word(digest, f.ways[i].kind), f.ways[i].length)
    return digest_word(digest, f.unsure)


cdef bint same_framings(const Framings* a, const Framings* b) noexcept nogil:
    cdef uint8_t i
    if a.count != b.count or a.crowded != b.crowded or a.unsure != b.unsure:
        return False
    for i in range(a.count):
        if a.ways[i].kind != b.ways[i].kind or a.ways[i].length != b.ways[i].length:
            return False
    return True
