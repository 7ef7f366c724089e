"""What readings have come upon; findings.pxd says what it is."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport realloc
from libc.string cimport memchr, memset

from edgeblock.core.hpack cimport Hpack
from edgeblock.core.http2 cimport is_request
from edgeblock.core.reading cimport READ_HTTP2
from edgeblock.core.text cimport append, lower

cdef enum:
    MAX_FINDINGS = 4096        # of one packet
    MAX_FINDING_TEXT = 1 << 20
    MAX_PAIRED = 16 * 1024     # bytes of targets that are looked up with hosts of the same head: more is an overflow
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


cdef Finding* _new_finding(Findings* f) noexcept nogil:
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


cdef bint _put(Findings* f, const uint8_t* data, size_t size, uint32_t* at, uint32_t* length) noexcept nogil:
    at[0] = f.text.size
    length[0] = <uint32_t>size
    if append(&f.text, data, size, MAX_FINDING_TEXT):
        return True
    f.full = 1
    length[0] = 0
    return False


cdef void found_hello(const Reading* r, uint8_t kind, Findings* out) noexcept nogil:
    cdef Finding* f = _new_finding(out)
    if f == NULL:
        return
    f.kind = kind
    f.reading = r.kind
    f.ech = r.opening.tls.hello.ech
    f.began = r.began
    if kind == FINDING_NAME:
        _put(out, r.opening.tls.hello.name, r.opening.tls.hello.name_size, &f.host_at, &f.host_size)


cdef void found_request(Reading* r, Findings* out) noexcept nogil:
    # One finding for each host; a head without any is a finding without a host.
    cdef Finding* f
    cdef uint32_t target_at = 0, target_size = 0
    cdef size_t at = 0, size
    cdef uint32_t count = r.http.host_count if r.http.host_count else 1, i
    if r.http.preface:
        return
    _put(out, r.http.target.data, r.http.target.size, &target_at, &target_size)
    if count * target_size > <uint32_t>MAX_PAIRED and count > 1:
        r.http.crowded = 1
        count = 1
    for i in range(count):
        f = _new_finding(out)
        if f == NULL:
            return
        f.kind = FINDING_NAME
        f.reading = r.kind
        f.began = r.began
        f.head = r.http.head
        f.unsure = r.http.simple != 0 and r.http.host_count == 0
        f.connect = r.http.connect and r.http.authority
        f.target_at = target_at
        f.target_size = target_size
        f.path_at = r.http.path_at if r.http.path_at < target_size else target_size
        if r.http.host_count:
            size = (<size_t>r.http.hosts.data[at] << 8) | r.http.hosts.data[at + 1]
            _put(out, r.http.hosts.data + at + 2, size, &f.host_at, &f.host_size)
            at += 2 + size


cdef void found_destination(const Reading* r, Findings* out) noexcept nogil:
    # Where a tunnel leads: like CONNECT's authority, but no name that was asked of the server at the other end.
    cdef Finding* f = _new_finding(out)
    if f == NULL:
        return
    f.kind = FINDING_NAME
    f.reading = r.kind
    f.connect = f.unsure = 1
    f.began = r.began
    _put(out, r.opening.prefix.destination, r.opening.prefix.size, &f.host_at, &f.host_size)


cdef bint found_http2(const Reading* r, Findings* out) noexcept nogil:
    # One finding for each host with each path: servers that do not refuse a second take the first or the last.
    cdef const Hpack* h = &r.http2.hpack
    cdef Finding* f
    cdef uint32_t path_at = 0, host_at, target_at = 0, target_size = 0
    cdef uint32_t hosts = h.host_count if h.host_count else 1, host
    cdef uint8_t path
    cdef bint crowded = h.unresolved or h.crowded
    if not is_request(&r.http2):
        return crowded
    if hosts * h.paths.size > <uint32_t>MAX_PAIRED and hosts > 1:
        crowded = True
        hosts = 1
    for path in range(h.path_count if h.path_count else 1):
        if h.path_count:
            _put_next(out, &h.paths, &path_at, &target_at, &target_size)
        host_at = 0
        for host in range(hosts):
            f = _new_finding(out)
            if f == NULL:
                return crowded
            f.kind = FINDING_NAME
            f.reading = READ_HTTP2
            f.began = r.began + h.blocks
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
    _put(out, text + 2, size[0], text_at, size)


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
