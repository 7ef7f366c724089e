"""The canonical form of hosts and URLs (see docs/lists.md for the table of decisions).

In: a host, authority or URL as a client sent it or a list manager wrote it. Out: the one form in which it is
compared. The rules are those of the WHATWG URL standard for hosts (UTS 46 without transitional processing, odd
IPv4 spellings, IPv6) and of Safe Browsing for paths and queries (percent escapes decoded until none is left, then
the few bytes that need one escaped again). A scheme and a port are never part of the form.

Decoding until stable is one pass: bytes are pushed on a stack, and a push that completes %XX replaces those three
by the byte they stand for, again if that completes another. No two escapes can overlap, so the order in which they
are replaced does not matter, and each replacement shortens the text: the cost is linear and the end is the same
as that of repeated passes. For the same reason the canonical form of a canonical form is itself.

One idea, though long: host, path and query are one text in one pass, and each step takes what the one before left.

What never happens here: an exception for any bytes, work beyond the caps of the .pxd, Python on the way of a name
on the wire, a file, a clock.
"""

import re

from libc.string cimport memchr, memcmp, memcpy, memmove

from edgeblock.blocklist.international cimport LABEL_CODES, NO_FLAW, TOO_LONG, put_label

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* out)

cdef extern from "<sys/socket.h>" nogil:
    const int AF_INET6

PROBLEMS = {
    NO_HOST: "has no host",
    EMPTY_LABEL: "has an empty label",
    LONG_LABEL: "has a label of more than 63 bytes",
    LONG_HOST: "has a host of more than 253 bytes",
    FORBIDDEN_BYTE: "has a character that no host can have",
    BAD_ADDRESS: "looks like an address but is none",
    BAD_PORT: "has a port that is no number up to 65535",
    NOT_IDNA: "has a character that international domain names do not allow",
    BAD_SCHEME: "is no http or https URL",
    LONG_URL: "is longer than 4096 bytes",
}


# Bytes ---------------------------------------------------------------------------------------------------------

cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c <= 0x20


cdef inline bint is_removed(uint8_t c) noexcept nogil:
    # WHATWG URL section 4.4: ASCII tab or newline is removed from anywhere in a URL.
    return c == 9 or c == 10 or c == 13


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return <uint8_t>(c - 48) < 10


cdef inline int hex_value(uint8_t c) noexcept nogil:
    if is_digit(c):
        return c - 48
    c |= 0x20
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef inline bint is_forbidden(uint8_t c) noexcept nogil:
    # WHATWG URL section 3.3, forbidden domain code points: controls, space, DEL and # % / : < > ? @ [ \ ] ^ |
    if c <= 0x20 or c >= 0x7F:
        return c < 0x80
    return (c == 35 or c == 37 or c == 47 or c == 58 or c == 60 or c == 62 or c == 63 or c == 64
            or (91 <= c <= 94) or c == 124)


cdef inline int hex_number(const uint8_t* digits, int count) noexcept nogil:
    # -1 where one of them is no hexadecimal digit.
    cdef int value = 0, i, digit
    for i in range(count):
        digit = hex_value(digits[i])
        if digit < 0:
            return -1
        value = value << 4 | digit
    return value


cdef inline size_t push(uint8_t* stack, size_t size, uint8_t c) noexcept nogil:
    # Returns the new size: one more, or less where escapes were completed. IIS takes "%u0061" for one, too.
    cdef int value
    stack[size] = c
    size += 1
    while hex_value(stack[size - 1]) >= 0:
        if size >= 3 and stack[size - 3] == 37:
            value = hex_number(stack + size - 2, 2)
            if value < 0:
                break
            size -= 2
            stack[size - 1] = <uint8_t>value
        elif size >= 6 and stack[size - 6] == 37 and stack[size - 5] | 0x20 == 117:
            value = hex_number(stack + size - 4, 4)
            if value < 0:
                break
            size -= 5
            if value < 0x80:
                stack[size - 1] = <uint8_t>value
            elif value < 0x800:
                stack[size - 1] = <uint8_t>(0xC0 | value >> 6)
                stack[size] = <uint8_t>(0x80 | (value & 0x3F))
                size += 1
            else:
                stack[size - 1] = <uint8_t>(0xE0 | value >> 12)
                stack[size] = <uint8_t>(0x80 | (value >> 6 & 0x3F))
                stack[size + 1] = <uint8_t>(0x80 | (value & 0x3F))
                size += 2
        else:
            break
    return size


# Hosts ---------------------------------------------------------------------------------------------------------

cdef inline void blame(Host* out, uint8_t problem) noexcept nogil:
    # The first problem is the one that is told.
    if out.problem == FINE:
        out.problem = problem


cdef void keep_end(const uint8_t** text, size_t* size, Host* out) noexcept nogil:
    # Only the last 253 bytes of a host can be listed, so an over-long one is read from its end, at a label.
    cdef const uint8_t* dot
    if size[0] <= RAW_HOST_MAX:
        return
    blame(out, LONG_HOST)
    out.whole = 0
    text[0] += size[0] - RAW_HOST_MAX
    size[0] = RAW_HOST_MAX
    dot = <const uint8_t*>memchr(text[0], 46, size[0])
    if dot == NULL:
        size[0] = 0
        return
    size[0] -= <size_t>(dot + 1 - text[0])
    text[0] = dot + 1


cdef size_t put_number(uint8_t* out, unsigned int value, unsigned int base) noexcept nogil:
    cdef uint8_t digits[8]
    cdef size_t count = 0, i
    cdef uint8_t digit
    while True:
        digit = <uint8_t>(value % base)
        digits[count] = digit + 48 if digit < 10 else digit + 87
        count += 1
        value //= base
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef void put_ipv4(Host* out) noexcept nogil:
    cdef size_t size = 0
    cdef int i
    for i in range(4):
        if i:
            out.text[size] = 46
            size += 1
        size += put_number(&out.text[size], out.bits[i], 10)
    out.size = <uint16_t>size
    out.address = 4


cdef void put_ipv6(Host* out) noexcept nogil:
    # WHATWG URL section 3.5, IPv6 serializer: the first longest run of two or more zero groups is "::".
    cdef unsigned int groups[8]
    cdef int i, run = 0, best = -1, best_size = 1
    cdef size_t size = 1
    for i in range(8):
        groups[i] = <unsigned int>out.bits[2 * i] << 8 | out.bits[2 * i + 1]
        run = run + 1 if groups[i] == 0 else 0
        if run > best_size:
            best = i + 1 - run
            best_size = run
    out.text[0] = 91
    i = 0
    while i < 8:
        if i == best:
            out.text[size] = 58
            out.text[size + 1] = 58
            size += 2
            i += best_size
            continue
        if i and out.text[size - 1] != 58:
            out.text[size] = 58
            size += 1
        size += put_number(&out.text[size], groups[i], 16)
        i += 1
    out.text[size] = 93
    out.size = <uint16_t>(size + 1)
    out.address = 16


cdef bint read_ipv6(const uint8_t* text, size_t size, Host* out) noexcept nogil:
    cdef char terminated[48]    # the longest spelling is 45 bytes
    if size >= 48 or memchr(text, 0, size) != NULL:
        return False
    memcpy(terminated, text, size)
    terminated[size] = 0
    if inet_pton(AF_INET6, terminated, out.bits) != 1:
        return False
    put_ipv6(out)
    return True


cdef bint ends_in_number(const uint8_t* label, size_t size) noexcept nogil:
    # WHATWG URL section 3.5, "ends in a number": the last label is all digits, or 0x and hexadecimal digits.
    cdef size_t i
    if size == 0 or not is_digit(label[0]):
        return False
    if size >= 2 and label[0] == 48 and label[1] == 120:
        for i in range(2, size):
            if hex_value(label[i]) < 0:
                return False
        return True
    for i in range(size):
        if not is_digit(label[i]):
            return False
    return True


cdef bint read_ipv4(Host* out) noexcept nogil:
    # WHATWG URL section 3.5, IPv4 parser: up to four parts, each decimal, octal (0..) or hexadecimal (0x..).
    cdef unsigned long long parts[4]
    cdef unsigned long long value, total
    cdef size_t i = 0, start
    cdef int count = 0, k, digit
    cdef unsigned int base
    while True:
        if count == 4:
            return False
        start = i
        base = 10
        if i < out.size and out.text[i] == 48:
            if i + 1 < out.size and out.text[i + 1] == 120:
                base = 16
                i += 2
            elif i + 1 < out.size and out.text[i + 1] != 46:
                base = 8
                i += 1
        value = 0
        while i < out.size and out.text[i] != 46:
            digit = hex_value(out.text[i])
            if digit < 0 or <unsigned int>digit >= base:
                return False
            value = value * base + <unsigned int>digit
            if value >> 32:
                return False
            i += 1
        if i == start:
            return False
        parts[count] = value
        count += 1
        if i == out.size:
            break
        i += 1
    total = parts[count - 1]
    if total >= (<unsigned long long>1 << (8 * (5 - count))):
        return False
    for k in range(count - 1):
        if parts[k] > 255:
            return False
        total |= parts[k] << (8 * (3 - k))
    for k in range(4):
        out.bits[k] = <uint8_t>(total >> (8 * (3 - k)))
    put_ipv4(out)
    return True


cdef inline size_t dot_before(const uint8_t* text, size_t end) noexcept nogil:
    # The bytes of a dot that ends at `end`, or 0. UTS 46 section 2.3: the full stop, U+3002, U+FF0E and U+FF61.
    if text[end - 1] == 46:
        return 1
    if end >= 3 and ((text[end - 3] == 0xE3 and text[end - 2] == 0x80 and text[end - 1] == 0x82)
                     or (text[end - 3] == 0xEF and text[end - 2] == 0xBC and text[end - 1] == 0x8E)
                     or (text[end - 3] == 0xEF and text[end - 2] == 0xBD and text[end - 1] == 0xA1)):
        return 3
    return 0


cdef void to_a_labels(Host* out) noexcept nogil:
    # A host with bytes above 0x7F. A label that cannot be converted stays as it is, so that its parents are still
    # found. From the last label on, until there is more than a host can hold.
    cdef uint8_t made[2 * RAW_HOST_MAX]
    cdef uint8_t label[LABEL_CODES + 4]
    cdef size_t end = out.size, at = sizeof(made), start, dot = 0
    cdef Py_ssize_t used
    cdef uint8_t flaw
    cdef const uint8_t* text
    while True:
        start = end
        while start:
            dot = dot_before(out.text, start)
            if dot:
                break
            start -= 1
        used = put_label(out.text + start, end - start, label, &flaw)
        if flaw == TOO_LONG:
            blame(out, LONG_LABEL)
        elif flaw != NO_FLAW:
            blame(out, NOT_IDNA)
        if used < 0:
            at -= end - start
            memcpy(made + at, out.text + start, end - start)
        else:
            at -= <size_t>used
            memcpy(made + at, label, <size_t>used)
        if start == 0:
            break
        if sizeof(made) - at > HOST_MAX:
            blame(out, LONG_HOST)
            out.whole = 0
            break
        at -= 1
        made[at] = 46
        end = start - dot
    text = made + at
    end = sizeof(made) - at
    keep_end(&text, &end, out)
    memcpy(out.text, text, end)
    out.size = <uint16_t>end


cdef bint read_plain_host(const uint8_t* text, size_t size, Host* out) noexcept nogil:
    # The way of nearly every host on the wire: letters, digits, "-" and "_" in labels, in one pass. False for
    # anything else, without having decided anything.
    cdef size_t i, label = 0
    cdef uint8_t c
    if size and text[size - 1] == 46:
        size -= 1
    if size == 0 or size > HOST_MAX:
        return False
    for i in range(size):
        c = text[i]
        if <uint8_t>(c - 97) < 26 or is_digit(c) or c == 45 or c == 95:
            out.text[i] = c
        elif c == 46:
            if i == label or i - label > LABEL_MAX:
                return False
            out.text[i] = c
            label = i + 1
        elif <uint8_t>(c - 65) < 26:
            out.text[i] = c | 0x20
        else:
            return False
    if size == label or size - label > LABEL_MAX or is_digit(text[label]):
        return False
    out.size = <uint16_t>size
    out.problem = FINE
    out.whole = 1
    out.address = 0
    return True


cdef inline void clear_host(Host* out) noexcept nogil:
    out.size = 0
    out.problem = FINE
    out.whole = 1
    out.address = 0


cdef void read_host(const uint8_t* text, size_t size, Host* out) noexcept nogil:
    # The authority of a URL, as lists write it and as WHATWG reads it: one reading. The wire has `find_readings`.
    cdef const uint8_t* end = text + size
    cdef const uint8_t* colon
    cdef const uint8_t* at
    cdef unsigned int port = 0
    if read_plain_host(text, size, out):
        return
    clear_host(out)
    while text < end and is_blank(text[0]):
        text += 1
    while end > text and is_blank((end - 1)[0]):
        end -= 1

    # Userinfo ends at the last "@" of an authority (WHATWG URL section 4.4, authority state).
    text = behind_last(text, end, 64)

    if text < end and text[0] == 91:
        at = <const uint8_t*>memchr(text, 93, <size_t>(end - text))
        if at == NULL or not read_ipv6(text + 1, <size_t>(at - text - 1), out):
            blame(out, BAD_ADDRESS)
            return
        colon = at + 1 if at + 1 < end else NULL
        if colon != NULL and colon[0] != 58:
            blame(out, BAD_PORT)
            return
    else:
        colon = <const uint8_t*>memchr(text, 58, <size_t>(end - text))
        if colon != NULL and memchr(colon + 1, 58, <size_t>(end - colon - 1)) != NULL:
            if read_ipv6(text, <size_t>(end - text), out):    # an address without brackets, as some SNIs have
                return
    if colon != NULL:
        at = colon + 1
        while at < end:
            if not is_digit(at[0]) or port > 65535:
                port = 65536
                break
            port = port * 10 + at[0] - 48
            at += 1
        if port > 65535:
            blame(out, BAD_PORT)
        end = colon
    if not out.address:
        read_name(text, <size_t>(end - text), out)


cdef void read_name(const uint8_t* text, size_t size, Host* out) noexcept nogil:
    # A host without userinfo and port into `out`, which is cleared.
    cdef size_t i, label = 0, used = 0
    cdef bint wide = False
    cdef uint8_t c
    while size and is_blank(text[0]):
        text += 1
        size -= 1
    while size and is_blank(text[size - 1]):
        size -= 1
    keep_end(&text, &size, out)

    for i in range(size):
        if text[i] >= 0x80:
            wide = True
    if memchr(text, 37, size) == NULL:
        for i in range(size):
            if not is_removed(text[i]):
                out.text[used] = text[i]
                used += 1
    else:
        for i in range(size):
            if not is_removed(text[i]):
                used = push(out.text, used, text[i])
        for i in range(used):
            if out.text[i] >= 0x80:
                wide = True
    out.size = <uint16_t>used
    if wide:
        to_a_labels(out)
        used = out.size

    while used and out.text[used - 1] == 46:
        used -= 1
    out.size = <uint16_t>used
    if used == 0:
        blame(out, NO_HOST)
        return
    for i in range(used):
        c = out.text[i]
        if <uint8_t>(c - 65) < 26:
            out.text[i] = c | 0x20
        elif c == 46:
            if i == label:
                blame(out, EMPTY_LABEL)
            elif i - label > LABEL_MAX:
                blame(out, LONG_LABEL)
            label = i + 1
        elif is_forbidden(c):
            blame(out, FORBIDDEN_BYTE)
    if used - label > LABEL_MAX:
        blame(out, LONG_LABEL)
    if used > HOST_MAX:
        blame(out, LONG_HOST)
    if ends_in_number(&out.text[label], used - label) and not (out.whole and read_ipv4(out)):
        blame(out, BAD_ADDRESS)


# Names on the wire ---------------------------------------------------------------------------------------------
#
# Servers do not agree where a name ends that has more in it than letters, digits, "-", "." and a port. Each way that
# a server is known to read one (docs/evasion.md has the table) is a reading, and each reading is looked up: a few
# spans of the bytes, found in one pass each, so that the cost stays linear.

cdef inline bint ends_authority(uint8_t c) noexcept nogil:
    # RFC 3986 section 3.2: "/", "?" and "#"; WHATWG URL section 4.4 adds the backslash.
    return c == 47 or c == 63 or c == 35 or c == 92


cdef inline bint ends_name(uint8_t c) noexcept nogil:
    # What ends a name for a server that takes its front: NUL and blanks for what copies strings, the port, the path,
    # what is behind an address in brackets, and the next of several values.
    return c <= 0x20 or c == 58 or c == 93 or c == 44 or ends_authority(c)


cdef const uint8_t* behind_last(const uint8_t* text, const uint8_t* end, uint8_t mark) noexcept nogil:
    # What is behind the last `mark`; all of it where there is none.
    cdef const uint8_t* at = end
    while at > text and (at - 1)[0] != mark:
        at -= 1
    return at


cdef void add_reading(const uint8_t* text, const uint8_t* end, Readings* out) noexcept nogil:
    cdef uint32_t i
    if text >= end or out.count == READINGS_MAX:
        return
    for i in range(out.count):
        if out.text[i] == text and out.size[i] == <size_t>(end - text):
            return
    out.text[out.count] = text
    out.size[out.count] = <size_t>(end - text)
    out.count += 1


cdef void add_front(const uint8_t* text, const uint8_t* end, Readings* out) noexcept nogil:
    # The name at the front of `text`, without the bracket before it: Go's servers take names out of brackets too.
    cdef const uint8_t* at
    if text < end and text[0] == 91:
        text += 1
        at = text
        while at < end and at[0] != 93:
            at += 1
        if inside_brackets(text, at):
            add_reading(text, at, out)
            return
    while text < end and is_blank(text[0]):
        text += 1
    at = text
    while at < end and not ends_name(at[0]):
        at += 1
    add_reading(text, at, out)


cdef bint inside_brackets(const uint8_t* text, const uint8_t* end) noexcept nogil:
    # Whether this can be an IPv6 address: it has a colon before anything else ends it.
    while text < end and not ends_name(text[0]):
        text += 1
    return text < end and text[0] == 58


cdef void find_readings(const uint8_t* text, size_t size, Readings* out) noexcept nogil:
    cdef const uint8_t* end = text + size
    cdef const uint8_t* authority
    cdef const uint8_t* at
    cdef const uint8_t* last
    cdef Host address
    out.count = 0
    while text < end and is_blank(text[0]):
        text += 1
    while end > text and is_blank((end - 1)[0]):
        end -= 1
    at = <const uint8_t*>memchr(text, 58, <size_t>(end - text))
    if at != NULL and memchr(at + 1, 58, <size_t>(end - at - 1)) != NULL:
        clear_host(&address)
        if read_ipv6(text, <size_t>(end - text), &address):    # an address without brackets, as some SNIs have
            add_reading(text, end, out)
            return
    while text < end and (text[0] == 47 or text[0] == 92):     # WHATWG URL section 4.4: "http://" + "//host"
        text += 1

    # nginx and whatever splits at the first colon: the front.
    add_front(text, end, out)
    # What takes it for the authority of a URL: behind the userinfo, which ends at the last "@" before the path.
    authority = text
    while authority < end and not ends_authority(authority[0]):
        authority += 1
    last = behind_last(text, authority, 64)
    at = last
    while at < authority and at[0] != 58:
        at += 1
    if last < authority and last[0] == 91:
        add_front(last, authority, out)
    else:
        add_reading(last, at, out)      # blanks and all: browsers' parsers take tabs out
    # aiohttp takes the last "@" of all, whatever is before it.
    if authority < end:
        last = behind_last(authority, end, 64)
        if last > authority:
            add_front(last, end, out)
    # Of several values, the last.
    at = end
    while at > text and (at - 1)[0] != 44 and not is_blank((at - 1)[0]):
        at -= 1
    if at != text:
        add_front(behind_last(at, end, 64), end, out)
    # All of it but for a port: servers that look only at how a name ends.
    if memchr(text, 64, <size_t>(end - text)) != NULL:
        return
    at = end
    while at > text and is_digit((at - 1)[0]):
        at -= 1
    if at > text and (at - 1)[0] == 58:
        end = at - 1
    add_reading(text, end, out)


cdef bint find_relative(const uint8_t* target, size_t size, size_t* start, size_t* path) noexcept nogil:
    # Whether a request target names a host for whoever resolves it as a browser resolves a link (WHATWG URL section
    # 4.4; Node's documentation does so): "//host/path", slashes of either kind, also behind a scheme. `start` and
    # `path` are where the host and the path begin.
    cdef const char* schemes = b"http https ws wss ftp "
    cdef size_t at = 0, i = 0, slashes = 0, from_scheme = 0
    cdef bint schemed = False
    if size < 2:
        return False
    if target[0] != 47 and target[0] != 92:
        while schemes[i]:
            at = 0
            while at < size and schemes[i] != 32 and (target[at] | 0x20) == <uint8_t>schemes[i]:
                at += 1
                i += 1
            if schemes[i] == 32 and at < size and target[at] == 58:
                schemed = True
                from_scheme = at
                at += 1
                break
            while schemes[i] != 32:
                i += 1
            i += 1
        if not schemed:
            return False
    while at < size and (target[at] == 47 or target[at] == 92):
        at += 1
        slashes += 1
    if slashes < 2 and (not schemed or from_scheme == 4):      # "http:x" is a path where the base is http, too
        return False
    start[0] = at
    while at < size and not ends_authority(target[at]):
        at += 1
    path[0] = at
    return at > start[0]


cdef void read_reading(const Readings* readings, uint32_t index, Host* out) noexcept nogil:
    cdef const uint8_t* text = readings.text[index]
    cdef size_t size = readings.size[index]
    if read_plain_host(text, size, out):
        return
    clear_host(out)
    if memchr(text, 58, size) != NULL and read_ipv6(text, size, out):
        return
    read_name(text, size, out)


# Targets -------------------------------------------------------------------------------------------------------

cdef size_t emit(const uint8_t* text, size_t size, bint query, uint8_t* out, size_t used, size_t cap,
                 bint* whole) noexcept nogil:
    # Safe Browsing: what is <= 0x20, >= 0x7F, "#" or "%" is written as an escape; "?" too inside a path.
    cdef size_t i
    cdef uint8_t c
    cdef const char* digits = b"0123456789ABCDEF"
    for i in range(size):
        c = text[i]
        if c <= 0x20 or c >= 0x7F or c == 35 or c == 37 or (c == 63 and not query):
            if cap - used < 3:
                whole[0] = False
                return used
            out[used] = 37
            out[used + 1] = <uint8_t>digits[c >> 4]
            out[used + 2] = <uint8_t>digits[c & 15]
            used += 3
        else:
            if cap == used:
                whole[0] = False
                return used
            out[used] = c
            used += 1
    return used


cdef inline void copy_wide(uint8_t* out, const uint8_t* text, size_t size) noexcept nogil:
    # Up to WIDE bytes more than asked for, so that short pieces need no call.
    if size <= WIDE:
        memcpy(out, text, WIDE)
    else:
        memcpy(out, text, size)


cdef size_t flatten(const uint8_t* path, size_t size, bint bare, uint8_t* out, bint* climbs) noexcept nogil:
    # Empty and "." segments go, ".." takes the one before with it, the final slash goes; with `bare` each segment
    # ends at its first ";". Empty segments go first, as in nginx and Apache. `path[0]` is a slash.
    cdef size_t used = 0, i = 0, start, width
    climbs[0] = False
    while i < size:
        start = i + 1
        i = start
        while i < size and path[i] != 47 and path[i] != 92 and not (bare and path[i] == 59):
            i += 1
        width = i - start
        while i < size and path[i] != 47 and path[i] != 92:     # its parameters
            i += 1
        if width == 0 or (width == 1 and path[start] == 46):
            continue
        if width == 2 and path[start] == 46 and path[start + 1] == 46:
            climbs[0] = True
            while used and out[used - 1] != 47:
                used -= 1
            if used:
                used -= 1
            continue
        out[used] = 47
        copy_wide(out + used + 1, path + start, width)
        used += 1 + width
    if used == 0:
        out[0] = 47
        used = 1
    return used


cdef size_t unescape(const uint8_t* text, size_t size, bint query, uint8_t* stack, size_t used,
                     size_t* read) noexcept nogil:
    # Decodes until no escape is left, up to the end of a path or a query; what was read of it is in `read`.
    cdef Py_ssize_t near = -8           # where the last "%" was put: it is completed within five bytes, or never
    cdef size_t i = 0
    cdef int value
    cdef uint8_t c
    while i < size:
        c = text[i]
        if c == 35 or (c == 63 and not query):
            break
        i += 1
        if c == 37:
            value = hex_number(text + i, 2) if size - i >= 2 else -1
            if value < 0:
                near = <Py_ssize_t>used
                stack[used] = c
                used += 1
                continue
            c = <uint8_t>value          # what the third byte of the three would make of them
            i += 2
        elif is_removed(c):
            continue
        if c != 37 and (<Py_ssize_t>used - near > 5 or hex_value(c) < 0):
            stack[used] = c
            used += 1
        else:
            used = push(stack, used, c)
        # An overlong form of an ASCII character (RFC 3629, section 10), which some servers took for it.
        if stack[used - 1] & 0xC0 == 0x80 and not query and used >= 2 and stack[used - 2] & 0xFE == 0xC0:
            used -= 1
            stack[used - 1] = <uint8_t>((stack[used - 1] & 1) << 6 | (stack[used] & 0x3F))
        if stack[used - 1] == 37:
            near = <Py_ssize_t>used - 1
    read[0] = i
    return used


cdef void read_target(const uint8_t* text, size_t size, bint bare, uint8_t* out, size_t cap,
                      Target* sizes) noexcept nogil:
    # `text` is the request target in origin-form; `bare` leaves path parameters (";x=1") out.
    cdef uint8_t stack[RAW_TARGET_MAX + 2 + WIDE]
    cdef uint8_t flat[RAW_TARGET_MAX + 2 + WIDE]
    cdef const uint8_t* begin = text
    cdef size_t used, i
    sizes.path_whole = True
    if size > RAW_TARGET_MAX:
        size = RAW_TARGET_MAX
        sizes.path_whole = False
    stack[0] = 47
    used = unescape(text, size, False, stack, 1, &i)
    if i < size:
        sizes.path_whole = True
    sizes.params = memchr(stack, 59, used) != NULL
    used = flatten(stack, used, bare, flat, &sizes.climbs)
    sizes.path = emit(flat, used, False, out, 0, cap, &sizes.path_whole)
    sizes.size = sizes.path
    sizes.whole = sizes.path_whole
    if i == size or text[i] == 35 or not sizes.path_whole:
        return
    text += i + 1
    size -= i + 1
    used = unescape(text, size, True, stack, 0, &i)
    if i == size and text + size == begin + RAW_TARGET_MAX:
        sizes.whole = False
    if used == 0 or sizes.path == cap:
        sizes.whole = sizes.whole and used == 0
        return
    out[sizes.path] = 63
    sizes.size = emit(stack, used, True, out, sizes.path + 1, cap, &sizes.whole)


cdef bint is_ambiguous(const uint8_t* text, size_t size) noexcept nogil:
    # Whether servers may disagree on which segments of a path there are: escapes, backslashes, empty segments.
    cdef size_t i
    for i in range(size):
        if text[i] == 63 or text[i] == 35:
            return False
        if text[i] == 37 or text[i] == 92 or (text[i] == 47 and i and text[i - 1] == 47):
            return True
    return False


# What ends a piece of a path: something that some server takes for a slash, or the end.
cdef enum:
    MARK_END = 0
    MARK_SLASH = 1
    MARK_BACKSLASH = 2
    MARK_ESCAPED_SLASH = 3
    MARK_ESCAPED_BACKSLASH = 4

# What it is: nothing, one dot, two dots, or anything else.
cdef enum:
    PIECE_EMPTY = 0
    PIECE_DOT = 1
    PIECE_DOTS = 2
    PIECE_TEXT = 3


cdef void open_ways(Ways* w, const uint8_t* text, size_t size) noexcept nogil:
    """Reads a target of at most WAYS_TARGET_MAX bytes once, for `put_way`: where its path may be cut, and decoded."""
    cdef size_t at = 0, start, read, used = 0, last = 0
    cdef uint32_t count = 0, dots
    cdef uint8_t mark, width, kind
    w.bits = w.made_count = 0
    while True:
        start = at
        dots = 0
        kind = PIECE_EMPTY
        mark = MARK_END
        width = 0
        while at < size and text[at] != 63 and text[at] != 35:
            mark = mark_at(text + at, size - at, &width)
            if mark != MARK_END:
                break
            if text[at] == 46:
                dots += 1
                at += 1
            elif text[at] == 37 and size - at >= 3 and hex_number(text + at + 1, 2) == 46:
                # Browsers' parsers decode nothing here, but "%2e" is a dot to them.
                dots += 1
                at += 3
            else:
                kind = PIECE_TEXT
                at += 1
        if kind == PIECE_EMPTY and dots:
            kind = <uint8_t>dots if dots <= 2 else PIECE_TEXT
        # No escape reaches over such an end: each is one, or none at all.
        used = unescape(text + start, at - start, False, w.text, used, &read)
        w.pieces[count].start = <uint16_t>last
        w.pieces[count].end = <uint16_t>used
        w.pieces[count].kind = kind
        w.pieces[count].mark = mark
        count += 1
        if kind == PIECE_EMPTY and count > 1 and mark != MARK_END:
            w.bits |= WAY_KEEP
        if mark == MARK_END:
            break
        if mark == MARK_BACKSLASH or mark == MARK_ESCAPED_BACKSLASH:
            w.bits |= WAY_SLASH
        if mark == MARK_ESCAPED_SLASH or mark == MARK_ESCAPED_BACKSLASH:
            w.bits |= WAY_DECODED
        w.text[used] = 47 if mark == MARK_SLASH or mark == MARK_ESCAPED_SLASH else 92
        used += 1
        last = used
        at += width
    w.count = count
    w.size = used
    w.query = text + at
    w.query_size = size - at


cdef inline uint8_t mark_at(const uint8_t* text, size_t size, uint8_t* width) noexcept nogil:
    width[0] = 1
    if text[0] == 47:
        return MARK_SLASH
    if text[0] == 92:
        return MARK_BACKSLASH
    if text[0] == 37 and size >= 3:
        width[0] = 3
        if text[1] == 50 and text[2] | 0x20 == 102:
            return MARK_ESCAPED_SLASH
        if text[1] == 53 and text[2] | 0x20 == 99:
            return MARK_ESCAPED_BACKSLASH
    return MARK_END


cdef inline bint cuts(uint8_t mark, uint32_t way) noexcept nogil:
    # Whether a server of that way takes it for a slash.
    if mark == MARK_ESCAPED_SLASH:
        return way & WAY_DECODED != 0
    if mark == MARK_ESCAPED_BACKSLASH:
        return way & (WAY_DECODED | WAY_SLASH) == WAY_DECODED
    if mark == MARK_BACKSLASH:
        return not way & WAY_SLASH
    return True


cdef bint put_way(Ways* w, uint32_t way) noexcept nogil:
    """Resolves the dots of the path as one kind of server does; False if that is a path that was there before."""
    cdef uint8_t* out = w.made[w.made_count]
    cdef uint32_t i = 0, first, depth = 0
    cdef size_t used = 0, size
    cdef uint8_t kind
    if way & ~w.bits:
        return False                    # nothing is there that such servers see otherwise
    while i < w.count:
        first = i
        kind = w.pieces[i].kind
        if kind == PIECE_EMPTY and w.pieces[i].mark == MARK_END:
            break
        while not cuts(w.pieces[i].mark, way):
            kind = PIECE_TEXT
            i += 1
        if kind == PIECE_TEXT or kind == PIECE_EMPTY and way & WAY_KEEP and first:
            size = w.pieces[i].end - w.pieces[first].start
            w.stack[depth] = <uint16_t>used
            depth += 1
            out[used] = 47
            copy_wide(out + used + 1, w.text + w.pieces[first].start, size)
            used += 1 + size
        elif kind == PIECE_DOTS and depth:
            depth -= 1
            used = w.stack[depth]
        i += 1
    if used == 0:
        out[0] = 47
        used = 1
    if used == w.size and memcmp(out, w.text, used) == 0:
        return False                    # as it stands
    for i in range(w.made_count):
        if w.made_size[i] == used and memcmp(w.made[i], out, used) == 0:
            return False
    w.made_size[w.made_count] = used
    w.made_count += 1
    return True


cdef void read_way(const Ways* w, bint bare, uint8_t* out, size_t cap, Target* sizes) noexcept nogil:
    """The canonical form of what `put_way` made last, as `read_target` makes it; `bare` as there."""
    cdef const uint8_t* path = w.made[w.made_count - 1]
    cdef uint8_t flat[WAYS_TARGET_MAX + 2 + WIDE]
    cdef uint8_t stack[WAYS_TARGET_MAX + 2]
    cdef size_t size = w.made_size[w.made_count - 1], used, read
    sizes.path_whole = True
    sizes.params = memchr(path, 59, size) != NULL
    used = flatten(path, size, bare, flat, &sizes.climbs)
    sizes.path = emit(flat, used, False, out, 0, cap, &sizes.path_whole)
    sizes.size = sizes.path
    sizes.whole = sizes.path_whole
    if w.query_size == 0 or w.query[0] == 35 or not sizes.path_whole:
        return
    used = unescape(w.query + 1, w.query_size - 1, True, stack, 0, &read)
    if used == 0 or sizes.path == cap:
        sizes.whole = sizes.whole and used == 0
        return
    out[sizes.path] = 63
    sizes.size = emit(stack, used, True, out, sizes.path + 1, cap, &sizes.whole)


# Python doors --------------------------------------------------------------------------------------------------

cdef bytes to_bytes(text):
    # A byte of a command-line argument that is no UTF-8 becomes that byte again, as it would come over the wire
    # (PEP 383); other lone surrogates become bytes that are no UTF-8, never an exception.
    if isinstance(text, str):
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")
    return bytes(text)


cdef uint8_t url_parts(bytes text, Host* host, uint8_t* out, Target* sizes):
    # Fills host and target of a URL with or without a scheme; returns the Problem.
    cdef bytes rest, authority
    cdef size_t end
    text = text.translate(None, b"\t\r\n").strip(bytes(range(0x21)))
    host.size = 0
    scheme = SCHEME.match(text)
    if scheme is None:
        rest = text[2:] if text[:2] in (b"//", b"\\\\") else text
    elif scheme[1] is not None:
        # WHATWG URL section 4.4: "http:", then any number of slashes of either kind.
        rest = text[scheme.end():].lstrip(b"/\\")
    else:
        return BAD_SCHEME
    authority = AUTHORITY.match(rest)[0]
    end = len(authority)
    read_host(authority, end, host)
    if host.problem:
        return host.problem
    rest = rest[end:]
    read_target(rest, len(rest), False, out, URL_MAX - host.size, sizes)
    return FINE if sizes.whole else LONG_URL


SCHEME = re.compile(rb"(https?):|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
AUTHORITY = re.compile(rb"[^/\\?#]*")


def canonical_host(text):
    """The canonical form of a host (`str` or bytes; a port, brackets and userinfo may be there).

    Returns:
        bytes: lower case, A-labels, no final dot, no port; or None when it is no host that a list can name
        (`why_not_host` has the reason).
    """
    cdef bytes raw = to_bytes(text)
    cdef Host host
    read_host(raw, len(raw), &host)
    return host.text[:host.size] if host.problem == FINE else None


def why_not_host(text):
    """Why `canonical_host` gives None, as the end of a sentence; "" when it does not."""
    cdef bytes raw = to_bytes(text)
    cdef Host host
    read_host(raw, len(raw), &host)
    return PROBLEMS.get(host.problem, "")


def wire_hosts(text):
    """What the engine compares for a host on the wire: a canonical form, as far as there is one, for each way that
    a server may read it; the first is that of servers which take the front."""
    cdef bytes raw = to_bytes(text)
    cdef Host host
    cdef Readings readings
    cdef uint32_t i
    if read_plain_host(raw, len(raw), &host):
        return (host.text[:host.size],)
    find_readings(raw, len(raw), &readings)
    forms = []
    for i in range(readings.count):
        read_reading(&readings, i, &host)
        form = host.text[:host.size]
        if form not in forms:
            forms.append(form)
    return tuple(forms)


def host_address(text):
    """The 4 or 16 bytes of address that a host writes, in network order; None for a name."""
    cdef bytes raw = to_bytes(text)
    cdef Host host
    read_host(raw, len(raw), &host)
    return host.bits[:host.address] if host.address and host.problem == FINE else None


def canonical_url(text):
    """The canonical form of a URL with or without http:// or https:// in front.

    Returns:
        bytes: host, path and, where there is one, "?" and query, such as b"example.com/a/b?c=1"; or None when it
        is no URL that a list can name (`why_not_url` has the reason).
    """
    cdef Host host
    cdef Target sizes
    cdef uint8_t target[URL_MAX]
    if url_parts(to_bytes(text), &host, target, &sizes) != FINE:
        return None
    return host.text[:host.size] + target[:sizes.size]


def why_not_url(text):
    """Why `canonical_url` gives None, as the end of a sentence; "" when it does not."""
    cdef Host host
    cdef Target sizes
    cdef uint8_t target[URL_MAX]
    return PROBLEMS.get(url_parts(to_bytes(text), &host, target, &sizes), "")


def canonical_target(text, bint bare=False):
    """The canonical form of a request target in origin-form: path and, where there is one, "?" and query.

    `bare` leaves path parameters (";x=1") out. What is longer than 4096 bytes is cut there.
    """
    cdef bytes raw = to_bytes(text)
    cdef Target sizes
    cdef uint8_t target[URL_MAX]
    read_target(raw, len(raw), bare, target, URL_MAX, &sizes)
    return target[:sizes.size]


def link_target(bytes text not None):
    """(authority, path and query) of a request target that names a host when it is resolved like a link, or None."""
    cdef size_t start = 0, path = 0
    if not find_relative(text, len(text), &start, &path):
        return None
    return text[start:path], text[path:]


def way_forms(bytes text not None):
    """What the matcher compares for a request target: the canonical form of each way that servers read its path."""
    cdef Ways ways
    cdef Target sizes
    cdef uint8_t target[URL_MAX]
    cdef size_t size = len(text)
    cdef bint bare
    forms = {canonical_target(text), canonical_target(text, True)}
    read_target(text, size, False, target, URL_MAX, &sizes)
    if size <= WAYS_TARGET_MAX and sizes.climbs and is_ambiguous(text, size):
        open_ways(&ways, text, size)
        for way in range(WAYS):
            if put_way(&ways, way):
                for bare in (False, True):
                    read_way(&ways, bare, target, URL_MAX, &sizes)
                    forms.add(target[:sizes.size])
    return forms
