"""The hot part of reading lists: lines out of bytes, and Entries out of the lines that nearly all lists consist of.

In: a file opened for reading bytes, and the shapes of the plainest lines of a format. Out: numbered lines, or Entries
in place of plain ones; what is said about a file that is no list. A plain line is read here just as its format's
reader would read it, and any doubt is left to that reader: `shapes=None` is the same list, slower
(tests/blocklist/formats/test_scan.py). One line at a time is held, and of an over-long one not even that.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp, memcpy

from edgeblock.blocklist.canonical cimport Host, read_plain_host
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import HOPELESS, LINE_MAX, PACKED, Entry, Problem, no_text

cdef object URL = Kind.URL, WITH_QUERY = Kind.URL_WITH_QUERY, NETWORK = Kind.NETWORK, ENDPOINT = Kind.ENDPOINT


cdef extern from "<arpa/inet.h>":
    int AF_INET6
    int inet_pton(int family, const char* text, void* out) noexcept nogil


cdef enum:
    PLAIN_URL_MAX = 2048        # bytes; a longer one is measured by who reads every URL
    IPV6_TEXT_MAX = 39          # bytes of eight groups


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return <uint8_t>(c - 48) < 10


cdef bint has_letter(const uint8_t* text, Py_ssize_t size) noexcept nogil:
    # Of a plain host in its canonical form.
    cdef Py_ssize_t i
    for i in range(size):
        if 97 <= text[i] <= 122:
            return True
    return False


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == 32 or 9 <= c <= 13


def plain_host(bytes text not None):
    """The canonical form of a host of letters, digits, "-" and "_", as nearly all are; None for anything else."""
    cdef Host host
    cdef const uint8_t* start = text
    return host.text[:host.size] if read_plain_host(start, <size_t>len(text), &host) else None


def read_raw_lines(file):
    """Number and text of every line as it is, but for its end; a Problem in place of one that is too long."""
    cdef Py_ssize_t number = 0, size, line_max = LINE_MAX
    cdef bytes line
    cdef const uint8_t* text
    readline = file.readline
    ask = line_max + 1
    while True:
        line = readline(ask)
        size = len(line)
        if size == 0:
            return
        number += 1
        text = line
        if number == 1:
            if line[:2] == b"\xff\xfe" or line[:2] == b"\xfe\xff":
                yield 1, Problem(1, 'the file is UTF-16; save it as UTF-8, or put encoding = "utf-16" into '
                                 "the settings of this list", whole=True)
                return
            for magic, name in PACKED:
                if line.startswith(magic):
                    yield 1, Problem(1, f"the file is packed ({name}); unpack it, or pack it once, with "
                                     "gzip or zstd", whole=True)
                    return
            if line[:3] == b"\xef\xbb\xbf":
                line = line[3:]
                size -= 3
                text = line
        if size > line_max and text[size - 1] != 10:
            while line and line[-1:] != b"\n":
                if size > HOPELESS:
                    yield number, Problem(number, f"the line is longer than {HOPELESS} bytes; is this a list at all?",
                                          whole=True)
                    return
                line = readline(line_max)
                size += len(line)
            yield number, Problem(number, f"the line is longer than {line_max} bytes")
            continue
        while size and (text[size - 1] == 10 or text[size - 1] == 13):
            size -= 1
        yield number, line[:size]


# Plain lines ---------------------------------------------------------------------------------------------------

cdef inline bint is_unchanged(uint8_t c) noexcept nogil:
    # What stands in a path or a query and in its canonical form alike, and in no way means another thing there.
    return (<uint8_t>((c | 0x20) - 97) < 26 or is_digit(c) or c == 45 or c == 46 or c == 95 or c == 126 or c == 61
            or c == 38 or c == 43 or c == 44 or c == 58 or c == 64 or c == 33 or c == 40 or c == 41)


cdef Py_ssize_t put_plain_url(const uint8_t* text, Py_ssize_t size, uint8_t* out, bint* query) noexcept nogil:
    # The canonical form of a URL of a plain host with a dot in it and a path without anything that is resolved,
    # decoded or escaped. -1 for anything else.
    cdef Host host
    cdef Py_ssize_t at = 0, used
    cdef const uint8_t* slash
    cdef uint8_t c, before = 47
    query[0] = False
    if size > PLAIN_URL_MAX:
        return -1
    if size > 8 and memcmp(text, b"https://", 8) == 0:
        at = 8
    elif size > 7 and memcmp(text, b"http://", 7) == 0:
        at = 7
    slash = <const uint8_t*>memchr(text + at, 47, <size_t>(size - at))
    used = slash - text if slash != NULL else size
    if slash == NULL and at == 0 or not read_plain_host(text + at, <size_t>(used - at), &host):
        return -1
    if memchr(host.text, 46, host.size) == NULL:
        return -1
    at = used + 1
    used = host.size
    memcpy(out, host.text, host.size)
    out[used] = 47
    used += 1
    while at < size:
        c = text[at]
        if c == 63 and not query[0] and before != 47 and at + 1 < size:
            query[0] = True
        elif c == 47:
            if before == 47 and not query[0]:
                return -1                       # an empty segment
        elif not is_unchanged(c) or (c == 46 and before == 47 and not query[0]):
            return -1                           # perhaps a segment to be resolved
        out[used] = c
        used += 1
        before = c
        at += 1
    if out[used - 1] == 47 and used > host.size + 1:
        if query[0]:
            return -1
        used -= 1
    return used


cdef Py_ssize_t put_number(const uint8_t* text, Py_ssize_t size, Py_ssize_t at, long most, long* out) noexcept nogil:
    # Where a decimal number without a needless zero in front ends; -1 where there is none up to `most`.
    cdef Py_ssize_t start = at
    out[0] = 0
    while at < size and is_digit(text[at]) and at - start < 5:
        out[0] = out[0] * 10 + text[at] - 48
        at += 1
    if at == start or out[0] > most or (text[start] == 48 and at - start > 1):
        return -1
    return at


cdef Py_ssize_t put_plain_address(const uint8_t* text, Py_ssize_t size, uint8_t* out) noexcept nogil:
    # The key of an IPv4 address, with a prefix length or a port where it has one; -1 for anything else.
    cdef Py_ssize_t at = 0
    cdef long number
    cdef unsigned long bits = 0
    cdef int i
    for i in range(4):
        at = put_number(text, size, at, 255, &number)
        if at < 0 or (i < 3 and (at == size or text[at] != 46)):
            return -1
        at += i < 3
        out[2 + i] = <uint8_t>number
        bits = bits << 8 | <unsigned long>number
    out[0] = 0
    out[1] = 32
    if at == size:
        return 6
    if text[at] == 47:
        at = put_number(text, size, at + 1, 32, &number)
        if at != size or bits & ((<unsigned long>1 << (32 - number)) - 1):
            return -1
        out[1] = <uint8_t>number
        return 6
    if text[at] == 58:
        at = put_number(text, size, at + 1, 65535, &number)
        if at != size or number == 0:
            return -1
        out[6] = <uint8_t>(number >> 8)
        out[7] = <uint8_t>(number & 0xFF)
        return 8
    return -1


cdef Py_ssize_t put_plain_ipv6(const uint8_t* text, Py_ssize_t size, uint8_t* out) noexcept nogil:
    # The key of an IPv6 address in hexadecimal, with a prefix length where it has one; -1 for anything else.
    cdef char address[IPV6_TEXT_MAX + 1]
    cdef Py_ssize_t at = 0
    cdef long length = 128, bit
    while at < size and (is_digit(text[at]) or text[at] == 58 or <uint8_t>((text[at] | 0x20) - 97) < 6):
        at += 1
    if at > IPV6_TEXT_MAX or (at < size and text[at] != 47):
        return -1
    memcpy(address, text, <size_t>at)
    address[at] = 0
    if at < size and put_number(text, size, at + 1, 128, &length) != size:
        return -1
    if inet_pton(AF_INET6, address, out + 2) != 1:
        return -1
    for bit in range(length, 128):
        if out[2 + bit // 8] & (0x80 >> bit % 8):
            return -1
    out[0] = 0
    out[1] = <uint8_t>length
    return 18


cdef class Shapes:
    """The plainest lines of a format.

    Args:
        rows: (front, end, kind, exception) each: a host of letters, digits, "-" and "_" with a dot in it, between
            these two texts.
        apart: hosts that mean something else in this format.
        urls, addresses: a line may be a plain URL; an address with or without prefix length, of IPv4 with a port.
    """

    cdef list rows
    cdef object apart
    cdef bint urls, addresses

    def __init__(self, rows, apart=frozenset(), bint urls=False, bint addresses=False):
        self.rows = [(front, end, kind, exception) for front, end, kind, exception in rows]
        self.apart, self.urls, self.addresses = apart, urls, addresses

    def entry(self, Py_ssize_t number, bytes line not None):
        """The Entry of a line with this number; None where the line is not plain."""
        return self.find(number, line, len(line))

    cdef object find(self, Py_ssize_t number, const uint8_t* text, Py_ssize_t size):
        cdef Host host
        cdef uint8_t made[PLAIN_URL_MAX + 16]
        cdef Py_ssize_t before, behind
        cdef bint query
        cdef tuple row
        cdef bytes front, end, key
        for row in self.rows:
            front, end = <bytes>row[0], <bytes>row[1]
            before, behind = len(front), len(end)
            if size <= before + behind or memcmp(text, <const char*>front, <size_t>before):
                continue
            if memcmp(text + size - behind, <const char*>end, <size_t>behind):
                continue
            if not read_plain_host(text + before, <size_t>(size - before - behind), &host):
                continue
            if memchr(host.text, 46, host.size) == NULL:
                continue
            if self.addresses and is_digit(host.text[0]) and not has_letter(host.text, <Py_ssize_t>host.size):
                return None             # perhaps a range of addresses, such as 192.0.2.1-5
            key = host.text[:host.size]
            if self.apart and key in self.apart:
                return None
            return tuple.__new__(Entry, (number, row[2], key, row[3], 0, ()))
        if self.addresses and is_digit(text[0]):
            before = put_plain_address(text, size, made)
            if before > 0:
                kind = NETWORK if before == 6 else ENDPOINT
                return tuple.__new__(Entry, (number, kind, made[:before], False, 0, ()))
        if self.addresses and memchr(text, 58, <size_t>size) != NULL:
            before = put_plain_ipv6(text, size, made)
            if before > 0:
                return tuple.__new__(Entry, (number, NETWORK, made[:before], False, 0, ()))
        if self.urls:
            before = put_plain_url(text, size, made, &query)
            if before > 0:
                kind = WITH_QUERY if query else URL
                return tuple.__new__(Entry, (number, kind, made[:before], False, 0, ()))
        return None


def read_lines(file, bint raw=False, bytes comments=b"#;", Shapes shapes=None):
    """Number and text of every line that is neither empty nor begins with one of `comments`, blanks around it gone.

    A Problem in place of one that is no text; with `shapes` an Entry in place of one that has one of these.
    """
    cdef Py_ssize_t number, start, end
    cdef const uint8_t* text
    cdef bytes line
    for number, found in read_raw_lines(file):
        if type(found) is not bytes:
            yield number, found
            continue
        line = found
        text = line
        start, end = 0, len(line)
        while end and is_blank(text[end - 1]):
            end -= 1
        while start < end and is_blank(text[start]):
            start += 1
        if start == end:
            continue
        if shapes is not None and (entry := shapes.find(number, text + start, end - start)) is not None:
            yield number, entry
            continue
        if text[start] in comments:
            continue
        line = line[start:end]
        yield number, no_text(number, line, raw) or line
