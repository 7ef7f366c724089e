"""The text of a clients file into ranges of addresses, and whether an address is in one.

In: bytes that anybody may have written: a prefix, an address or a range a line, with comments. Out: for IPv4 and for
IPv6 the ranges, sorted, apart from each other, as bytes that are searched where they lie; or the first line that is
none of these. All of it counts or nothing: a list for others than it was meant for is worse than an old one. A
million lines take some tenths of a second. Never here: a file, or what the addresses are for.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy

from edgeblock.blocklist.leads cimport load

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* out)

cdef extern from "<sys/socket.h>" nogil:
    int AF_INET, AF_INET6

cdef enum:
    ADDRESS_MAX = 45        # characters of an address, INET6_ADDRSTRLEN without its end

cdef enum Said:             # what a line is
    NOTHING = 0
    RANGE = 1
    NO_ADDRESS = 2
    NO_LENGTH = 3
    BEYOND = 4
    BACKWARDS = 5
    MIXED = 6
    MAPPED = 7
    TOO_MANY = 8
    NO_ROOM = 9

_WHY = {
    NO_ADDRESS: "is no prefix, address or range; write one a line, such as 192.0.2.0/24, 2001:db8::/32 or "
                "192.0.2.1-192.0.2.9",
    NO_LENGTH: "has no length behind '/'; write 0 to 32 for IPv4, 0 to 128 for IPv6",
    BEYOND: "has bits beyond the length of its prefix; write the first address of the prefix, or a greater length",
    BACKWARDS: "is a range that ends before it begins; turn it round",
    MIXED: "is a range from one family to the other; write one of IPv4 and one of IPv6",
    MAPPED: "is an IPv4 address written as IPv6, which no packet has; write the IPv4 address",
}

cdef struct Address:        # IPv4 is in `low`
    uint64_t high
    uint64_t low

cdef struct Span:
    Address first
    Address last

cdef struct Spans:
    Span* spans
    size_t count
    size_t room
    bint sorted             # as they came


class BadLine(ValueError):
    """A line that cannot be used: its number, why it is none, and at which byte of the text the next one begins, 0
    where there is no sense in reading on."""

    @property
    def line(self):
        return self.args[0]

    @property
    def why(self):
        return self.args[1]

    @property
    def behind(self):
        return self.args[2]


cdef inline int order(Address one, Address other) noexcept nogil:
    if one.high != other.high:
        return 1 if one.high > other.high else -1
    return (one.low > other.low) - (one.low < other.low)


cdef int compare(const void* one, const void* other) noexcept nogil:
    return order((<const Span*>one).first, (<const Span*>other).first)


cdef inline void store(Address one, int size, uint8_t* at) noexcept nogil:
    cdef int i
    for i in range(min(size, 8)):
        at[size - 1 - i] = <uint8_t>(one.low >> 8 * i)
    for i in range(size - 8):
        at[i] = <uint8_t>(one.high >> (56 - 8 * i))


cdef inline Address mask(uint32_t length, uint32_t bits) noexcept nogil:
    # The bits behind a prefix of that length.
    cdef Address made
    cdef uint32_t free_bits = bits - length
    made.high = 0 if free_bits <= 64 else 0xFFFFFFFFFFFFFFFFULL >> (128 - free_bits)
    made.low = 0xFFFFFFFFFFFFFFFFULL if free_bits >= 64 else (<uint64_t>1 << free_bits) - 1
    return made


cdef inline bint is_blank(uint8_t one) noexcept nogil:
    return one == 32 or one == 9 or one == 13


cdef int read_address(const uint8_t* text, size_t size, Address* out) noexcept nogil:
    # Its family, 4 or 6; 0: it is none.
    cdef char copy[ADDRESS_MAX + 1]
    cdef uint8_t packed[16]
    while size and is_blank(text[size - 1]):
        size -= 1
    while size and is_blank(text[0]):
        text += 1
        size -= 1
    if size == 0 or size > <size_t>ADDRESS_MAX or memchr(text, 0, size) != NULL:
        return 0
    memcpy(copy, text, size)
    copy[size] = 0
    if memchr(text, 58, size) == NULL:          # a colon
        if inet_pton(AF_INET, copy, packed) != 1:
            return 0
        out.high, out.low = 0, load(packed, 4)
        return 4
    if inet_pton(AF_INET6, copy, packed) != 1:
        return 0
    out.high, out.low = load(packed, 8), load(packed + 8, 8)
    return 6


cdef int read_length(const uint8_t* text, size_t size) noexcept nogil:
    # -1: it is none.
    cdef int made = 0
    cdef size_t i
    if size == 0 or size > 3 or size > 1 and text[0] == 48:
        return -1
    for i in range(size):
        if text[i] < 48 or text[i] > 57:
            return -1
        made = 10 * made + text[i] - 48
    return made


cdef inline size_t find(const uint8_t* text, size_t size, uint8_t what) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*>memchr(text, what, size)
    return size if at == NULL else <size_t>(at - text)


cdef Said read_line(const uint8_t* text, size_t size, Span* out, int* family) noexcept nogil:
    cdef size_t at
    cdef int length, other
    cdef Address wild
    for at in range(size):                      # a comment: at the beginning, or behind a blank
        if (text[at] == 35 or text[at] == 59) and (at == 0 or is_blank(text[at - 1])):
            size = at
            break
    while size and is_blank(text[size - 1]):
        size -= 1
    while size and is_blank(text[0]):
        text += 1
        size -= 1
    if size == 0:
        return NOTHING
    at = find(text, size, 47)
    if at < size:
        family[0] = read_address(text, at, &out.first)
        if family[0] == 0:
            return NO_ADDRESS
        length = read_length(text + at + 1, size - at - 1)
        if length < 0 or length > (32 if family[0] == 4 else 128):
            return NO_LENGTH
        wild = mask(<uint32_t>length, 32 if family[0] == 4 else 128)
        if out.first.high & wild.high or out.first.low & wild.low:
            return BEYOND
        out.last.high, out.last.low = out.first.high | wild.high, out.first.low | wild.low
    else:
        at = find(text, size, 45)
        family[0] = read_address(text, at, &out.first)
        if family[0] == 0:
            return NO_ADDRESS
        out.last = out.first
        if at < size:
            other = read_address(text + at + 1, size - at - 1, &out.last)
            if other == 0:
                return NO_ADDRESS
            if other != family[0]:
                return MIXED
            if order(out.last, out.first) < 0:
                return BACKWARDS
    if family[0] == 6 and out.first.high == 0 and out.last.high == 0 \
            and out.first.low >> 32 == 0xFFFF and out.last.low >> 32 == 0xFFFF:
        return MAPPED
    return RANGE


cdef bint put(Spans* to, const Span* one) noexcept nogil:
    cdef Span* more
    if to.count == to.room:
        more = <Span*>realloc(to.spans, (2 * to.room + 64) * sizeof(Span))
        if more == NULL:
            return False
        to.spans, to.room = more, 2 * to.room + 64
    if to.count and order(to.spans[to.count - 1].first, one.first) > 0:
        to.sorted = False
    to.spans[to.count] = one[0]
    to.count += 1
    return True


cdef Said read_lines(const uint8_t* text, size_t size, size_t most, Spans* spans, size_t* line,
                     size_t* behind) noexcept nogil:
    # `spans` of IPv4, and of IPv6 behind it; what stopped it, in that line, and where the next one begins, or RANGE
    # where all is read.
    cdef size_t at = 0, end
    cdef int family = 0
    cdef Span one
    cdef Said said
    if size >= 3 and text[0] == 0xEF and text[1] == 0xBB and text[2] == 0xBF:     # a byte-order mark
        at = 3
    line[0] = 0
    while at < size:
        end = at + find(text + at, size - at, 10)
        line[0] += 1
        said = read_line(text + at, end - at, &one, &family)
        if said == RANGE:
            if spans[0].count + spans[1].count == most:
                return TOO_MANY
            if not put(&spans[family == 6], &one):
                return NO_ROOM
        elif said != NOTHING:
            behind[0] = min(end + 1, size)
            return said
        at = end + 1
    return RANGE


cdef void join(Spans* some) noexcept nogil:
    # Sorted, and apart from each other.
    cdef size_t i, kept = 0
    cdef Span* last
    cdef Address next_to
    if some.count == 0:
        return
    if not some.sorted:
        qsort(some.spans, some.count, sizeof(Span), compare)
    for i in range(1, some.count):
        last = &some.spans[kept]
        next_to.low = last.last.low + 1
        next_to.high = last.last.high + (next_to.low == 0)
        if order(some.spans[i].first, next_to) <= 0 or next_to.high == 0 and next_to.low == 0:
            if order(some.spans[i].last, last.last) > 0:
                last.last = some.spans[i].last
        else:
            kept += 1
            some.spans[kept] = some.spans[i]
    some.count = kept + 1


cdef bytes packed(const Spans* some, int size):
    cdef bytearray made = bytearray(some.count * 2 * size)
    cdef uint8_t[::1] view = made
    cdef size_t i
    for i in range(some.count):
        store(some.spans[i].first, size, &view[2 * i * size])
        store(some.spans[i].last, size, &view[(2 * i + 1) * size])
    return bytes(made)


def read_ranges(const uint8_t[::1] text not None, size_t most):
    """Ranges of IPv4, ranges of IPv6, and how many lines had one; at most so many.

    Raises:
        BadLine: a line is no prefix, address or range, or one too many.
    """
    cdef Spans spans[2]
    cdef Said said
    cdef size_t line = 0, behind = 0, count
    cdef int i
    for i in range(2):
        spans[i].spans, spans[i].count, spans[i].room, spans[i].sorted = NULL, 0, 0, True
    try:
        with nogil:
            said = read_lines(&text[0] if text.shape[0] else NULL, <size_t>text.shape[0], most, spans, &line,
                              &behind)
        if said == NO_ROOM:
            raise MemoryError
        if said == TOO_MANY:
            raise BadLine(line, f"is one too many: {most} are read; write wider prefixes", 0)
        if said != RANGE:
            raise BadLine(line, _WHY[said], behind)
        count = spans[0].count + spans[1].count
        with nogil:
            join(&spans[0])
            join(&spans[1])
        return packed(&spans[0], 4), packed(&spans[1], 16), count
    finally:
        free(spans[0].spans)
        free(spans[1].spans)


cdef bint is_within(const uint8_t* ranges, size_t count, const uint8_t* address, size_t size) noexcept nogil:
    cdef size_t low = 0, high = count, middle
    while low < high:                   # the first range that begins behind it
        middle = (low + high) >> 1
        if memcmp(ranges + middle * 2 * size, address, size) > 0:
            high = middle
        else:
            low = middle + 1
    return low != 0 and memcmp(ranges + (low - 1) * 2 * size + size, address, size) >= 0


def contains(const uint8_t[::1] ranges not None, bytes address not None):
    """Whether an address of 4 or 16 bytes is in one of these ranges."""
    cdef size_t size = <size_t>len(address)
    if size != 4 and size != 16 or <size_t>ranges.shape[0] % (2 * size):
        raise ValueError("an address has 4 or 16 bytes, and a range two of them")
    return bool(ranges.shape[0]) and bool(is_within(&ranges[0], <size_t>ranges.shape[0] // (2 * size), address, size))
