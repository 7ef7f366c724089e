"""What readings have come upon; findings.pxd says what it is."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from edgeblock.core.text cimport append, lower, release

cdef enum:
    MAX_FINDINGS = 4096        # of one packet
    MAX_FINDING_TEXT = 1 << 20
    FEW_NAMES = 4              # of a packet, whatever they look like, and cost
    HOST_COST = 3              # of a byte of its host,
    TARGET_COST = 2            # of its target behind these bytes,
    TARGET_PLAIN = 128
    TARGET_ODD = 2             # more of a byte there that is no letter, digit or the like,
    MAX_DIRECTORIES = 32       # of each directory, for so many are looked up,
    DIRECTORY_COST = 32
    CLIMB_COST = 3             # of a target with "..", for each path that servers may make of it,
    MUCH_TEXT = 2048           # bytes of which also a few names are worth weighing,
    ODD_COST = 16              # and of an odd byte of a host or of a short target


cdef void clear_findings(Findings* f) noexcept nogil:
    f.count = 0
    f.full = 0
    f.text.size = 0


cdef void free_findings(Findings* f) noexcept nogil:
    free(f.items)
    release(&f.text)
    memset(f, 0, sizeof(Findings))


cdef Finding* add_finding(Findings* f) noexcept nogil:
    cdef Finding* grown
    cdef uint32_t room
    if f.count == f.room:
        if f.count == MAX_FINDINGS:
            f.full = 1
            return NULL
        room = f.room * 2 if f.room else 16
        grown = <Finding*>realloc(f.items, room * sizeof(Finding))
        if grown == NULL:
            f.full = 1
            return NULL
        f.items = grown
        f.room = room
    memset(&f.items[f.count], 0, sizeof(Finding))
    f.count += 1
    return &f.items[f.count - 1]


cdef bint add_text(Findings* f, const uint8_t* data, size_t size, uint32_t* at, uint32_t* length) noexcept nogil:
    at[0] = f.text.size
    length[0] = <uint32_t>size
    if append(&f.text, data, size, MAX_FINDING_TEXT):
        return True
    f.full = 1
    length[0] = 0
    return False


cdef int32_t cost_of(const Findings* out, uint32_t names, uint32_t text, int32_t most) noexcept nogil:
    # What was found since there were so many: it is looked up, in all the forms that servers may make of it. A few
    # names cost `most` at most: what stands behind them waits for the next packet, and nobody is refused for one.
    cdef const Finding* f
    cdef uint32_t i, last = 0xFFFFFFFF
    cdef int32_t cost = 0
    if out.count <= <uint32_t>FEW_NAMES:
        cost = <int32_t>((out.count - names) * NAME_COST + (out.text.size - text))
        if out.text.size - text <= <uint32_t>MUCH_TEXT:
            return cost
        for i in range(names, out.count):
            f = &out.items[i]
            cost += <int32_t>_cost_of_climbing(out.text.data + f.target_at, f.target_size)
        return min(cost, max(most, 0))
    for i in range(names, out.count):
        f = &out.items[i]
        cost += <int32_t>(NAME_COST + _cost_of_host(out.text.data + f.host_at, f.host_size))
        if f.target_size:
            if f.target_at != last:
                last = f.target_at
                text = _cost_of_target(out.text.data + f.target_at, f.target_size)
            cost += <int32_t>text
    return cost


cdef uint32_t _cost_of_host(const uint8_t* text, uint32_t size) noexcept nogil:
    cdef uint32_t i, odd = 0
    cdef uint8_t b
    for i in range(size):
        b = text[i]
        odd += b >= 0x80 or b < 0x2D or b == 0x2F or b == 0x3A or b == 0x3F or b == 0x40 or b == 0x5B or b == 0x5C
    return HOST_COST * size + (NAME_COST + ODD_COST * odd if odd else 0)


cdef uint32_t _cost_of_climbing(const uint8_t* text, uint32_t size) noexcept nogil:
    # A target with ".." is resolved in as many ways as servers do (blocklist/canonical, Way); 0 for any other.
    cdef uint32_t i
    cdef uint8_t b, before = 0, third = 0
    cdef bint climbs = False, other_slash = False, escaped_slash = False, empty = False, parameters = False
    if memchr(text, 46, size) == NULL and memchr(text, 37, size) == NULL:
        return 0                        # as nearly all have none
    for i in range(size):
        b = text[i]
        climbs |= (b == 0x2E and before == 0x2E or before == 0x25 and lower(b) == 0x75
                   or third == 0x25 and before == 0x32 and (lower(b) == 0x65 or b == 0x35))
        other_slash |= b == 0x5C or third == 0x25 and before == 0x35 and lower(b) == 0x63
        escaped_slash |= third == 0x25 and (before == 0x32 and lower(b) == 0x66
                                            or before == 0x35 and lower(b) == 0x63)
        empty |= b == 0x2F and before == 0x2F
        parameters |= b == 0x3B
        third, before = before, b
    if not climbs:
        return 0
    return (CLIMB_COST * size
            << other_slash + escaped_slash + (empty or other_slash or escaped_slash) + parameters)


cdef uint32_t _cost_of_target(const uint8_t* text, uint32_t size) noexcept nogil:
    cdef uint32_t i, odd = 0, directories = 0, climbing = _cost_of_climbing(text, size)
    cdef uint8_t b
    if climbing:
        return TARGET_COST * size + climbing
    for i in range(size):
        b = text[i]
        odd += b >= 0x80 or b < 0x20 or b == 0x25 or b == 0x3B or b == 0x5C
        directories += b == 0x2F
    if size <= TARGET_PLAIN:
        return size + ODD_COST * odd
    return TARGET_COST * size + TARGET_ODD * odd + DIRECTORY_COST * min(directories, <uint32_t>MAX_DIRECTORIES)
