"""Address entries as ranges that do not overlap, and endpoints that stand out of them: in one pass over all of them.

In: ADDRESS records (compiler.py), and what each list says. Out: records in the order of addresses. What counts most
of all entries that an address is in decides, as docs/lists.md has it: mandatory, exception, block, observe; of the
same an endpoint, then the longer prefix, then the list that comes first. Never here: why an address is listed.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy

from edgeblock.blocklist.leads cimport load

cdef enum:
    RECORD = 24                 # an ADDRESS
    PORT_AT = 18
    LIST_AT = 20
    IS_IPV6 = 1                 # its flags
    IS_EXCEPTION = 2
    EXCEPTION_WEIGHT = 3
    LIFTS = 5                   # of a list: its exceptions count, its blocks do not
    DEPTH = 130                 # prefixes around each other, one of each length

cdef struct Number:             # an address
    uint64_t high
    uint64_t low

cdef struct Entry:
    Number first
    uint64_t rank               # the greater one counts: weight, whether it is an endpoint, length, and the list
    uint16_t second             # the prefix length, or the port

cdef struct Around:
    Number last
    uint64_t rank


cdef inline int order(Number one, Number other) noexcept nogil:
    if one.high != other.high:
        return 1 if one.high > other.high else -1
    return (one.low > other.low) - (one.low < other.low)


cdef inline Number next_to(Number one) noexcept nogil:
    cdef Number made
    made.low = one.low + 1
    made.high = one.high + (made.low == 0)
    return made


cdef inline Number before(Number one) noexcept nogil:
    cdef Number made
    made.low = one.low - 1
    made.high = one.high - (one.low == 0)
    return made


cdef inline Number last_of(Number first, int free_bits) noexcept nogil:
    # The last address of a prefix that leaves so many bits free.
    cdef Number made = first
    if free_bits >= 64:
        made.low = <uint64_t>0xFFFFFFFFFFFFFFFF
        if free_bits >= 128:
            made.high = <uint64_t>0xFFFFFFFFFFFFFFFF
        else:
            made.high |= (<uint64_t>1 << (free_bits - 64)) - 1
    else:
        made.low |= (<uint64_t>1 << free_bits) - 1
    return made


cdef inline void store(Number number, uint8_t* at) noexcept nogil:
    cdef int i
    for i in range(8):
        at[i] = <uint8_t>(number.high >> (56 - 8 * i))
        at[8 + i] = <uint8_t>(number.low >> (56 - 8 * i))


cdef int compare(const void* one, const void* other) noexcept nogil:
    # By address, then by length or port; of the same what counts most comes first.
    cdef const Entry* a = <const Entry*>one
    cdef const Entry* b = <const Entry*>other
    cdef int by_address = order(a.first, b.first)
    if by_address:
        return by_address
    if a.second != b.second:
        return 1 if a.second > b.second else -1
    return (a.rank < b.rank) - (a.rank > b.rank)


cdef class _Sweep:
    """Goes through the entries of one family once."""

    cdef Entry* prefixes
    cdef Entry* endpoints
    cdef size_t prefix_count, endpoint_count, endpoint_at
    cdef int bits
    cdef bytes whats, ids
    cdef list leading
    cdef bytearray spans, ends
    cdef bint holds
    cdef Number first, last     # the span that is held, until what follows is known not to join it
    cdef int what, owner

    def __cinit__(self, const uint8_t[::1] entries not None, int family, bytes whats not None,
                  bytes weights not None, bytes ids not None, list leading not None):
        cdef size_t count = <size_t>entries.shape[0] // RECORD, i, lists = <size_t>len(weights)
        self.bits = 32 if family == 4 else 128
        self.whats, self.ids, self.leading = whats, ids, leading
        self.spans, self.ends = bytearray(), bytearray()
        self.prefixes = <Entry*>malloc((count + 1) * sizeof(Entry))
        self.endpoints = <Entry*>malloc((count + 1) * sizeof(Entry))
        if self.prefixes == NULL or self.endpoints == NULL:
            raise MemoryError
        for i in range(count):
            self.take(&entries[i * RECORD], family, lists, weights)

    def __dealloc__(self):
        free(self.prefixes)
        free(self.endpoints)

    cdef int take(self, const uint8_t* record, int family, size_t lists, const uint8_t* weights) except -1:
        cdef int length = record[16], flags = record[17]
        cdef size_t index = record[LIST_AT] | <size_t>record[LIST_AT + 1] << 8
        cdef uint16_t port = record[PORT_AT] | <uint16_t>record[PORT_AT + 1] << 8
        cdef Entry* entry
        if (6 if flags & IS_IPV6 else 4) != family:
            return 0
        if index >= lists or length > self.bits:
            raise ValueError("an address entry that cannot be")
        if weights[index] == 0 or weights[index] == LIFTS and not flags & IS_EXCEPTION:
            return 0
        if port:
            entry = &self.endpoints[self.endpoint_count]
            self.endpoint_count += 1
        else:
            entry = &self.prefixes[self.prefix_count]
            self.prefix_count += 1
        if family == 4:
            entry.first.high, entry.first.low = 0, load(record, 4)
        else:
            entry.first.high, entry.first.low = load(record, 8), load(record + 8, 8)
        entry.second = port if port else <uint16_t>length
        entry.rank = (<uint64_t>(EXCEPTION_WEIGHT if flags & IS_EXCEPTION else weights[index]) << 40
                      | <uint64_t>(port != 0) << 32 | <uint64_t>length << 16 | (0xFFFF - index))
        return 0

    cdef sweep(self):
        cdef Around around[DEPTH]
        cdef int depth = 0
        cdef size_t i
        cdef Entry* entry
        cdef Number at
        cdef bint ended = False             # `at` is behind the last address there is
        at.high = at.low = 0
        with nogil:
            qsort(self.prefixes, self.prefix_count, sizeof(Entry), compare)
            qsort(self.endpoints, self.endpoint_count, sizeof(Entry), compare)
        for i in range(self.prefix_count + 1):
            entry = &self.prefixes[i] if i < self.prefix_count else NULL
            if entry != NULL and i and order(entry.first, self.prefixes[i - 1].first) == 0 \
                    and entry.second == self.prefixes[i - 1].second:
                continue
            while depth and (entry == NULL or order(around[depth - 1].last, entry.first) < 0):
                depth -= 1
                if not ended and order(at, around[depth].last) <= 0:
                    self.say(at, around[depth].last, around[depth].rank)
                    at = next_to(around[depth].last)
                    ended = at.high == 0 and at.low == 0
            if entry == NULL:
                break
            if depth and order(at, entry.first) < 0:
                self.say(at, before(entry.first), around[depth - 1].rank)
            at = entry.first
            ended = False
            if depth == DEPTH:              # no prefixes: they would not be inside each other
                raise ValueError("an address entry that cannot be")
            around[depth].last = last_of(at, self.bits - entry.second)
            around[depth].rank = entry.rank
            if depth and around[depth - 1].rank > entry.rank:
                around[depth].rank = around[depth - 1].rank
            depth += 1
        while self.endpoint_at < self.endpoint_count:
            self.say_endpoint(0)
        self.let_go()

    cdef int what_of(self, uint64_t rank):
        return 0 if rank >> 40 == EXCEPTION_WEIGHT else self.whats[<Py_ssize_t>(0xFFFF - (rank & 0xFFFF))]

    cdef int owner_of(self, uint64_t rank):
        cdef Py_ssize_t at = <Py_ssize_t>(0xFFFF - (rank & 0xFFFF)) * 2
        return <uint8_t>self.ids[at] | <uint8_t>self.ids[at + 1] << 8

    cdef say(self, Number first, Number last, uint64_t rank):
        # What holds from one address to another; they come in their order.
        cdef int what = self.what_of(rank), owner = self.owner_of(rank)
        while self.endpoint_at < self.endpoint_count \
                and order(self.endpoints[self.endpoint_at].first, first) < 0:
            self.say_endpoint(0)
        while self.endpoint_at < self.endpoint_count \
                and order(self.endpoints[self.endpoint_at].first, last) <= 0:
            self.say_endpoint(rank)
        if self.holds and order(next_to(self.last), first) == 0 and what == self.what and owner == self.owner:
            self.last = last
            return
        self.let_go()
        self.holds, self.first, self.last, self.what, self.owner = True, first, last, what, owner

    cdef let_go(self):
        cdef uint8_t record[36]
        if not self.holds:
            return
        self.holds = False
        store(self.first, record)
        store(self.last, record + 16)
        if self.what or self.leads_on(record):
            record[32], record[33] = <uint8_t>(self.owner & 0xFF), <uint8_t>(self.owner >> 8)
            record[34], record[35] = <uint8_t>self.what, 0
            self.spans += record[:36]

    cdef say_endpoint(self, uint64_t around):
        # Where something else holds of it than of its address: `around`, 0 where nothing does.
        cdef Entry* one = &self.endpoints[self.endpoint_at]
        cdef size_t at = self.endpoint_at
        cdef uint8_t record[38]
        cdef int what = self.what_of(one.rank)
        self.endpoint_at += 1
        if at and order(one.first, self.endpoints[at - 1].first) == 0 and one.second == self.endpoints[at - 1].second:
            return
        store(one.first, record)
        memcpy(record + 16, record, 16)
        if around == 0:
            if not what and not self.leads_on(record):
                return
        elif one.rank < around or (what == self.what_of(around) and one.rank & 0xFFFF == around & 0xFFFF):
            return
        record[16], record[17] = <uint8_t>(one.second & 0xFF), <uint8_t>(one.second >> 8)
        record[18], record[19] = <uint8_t>(self.owner_of(one.rank) & 0xFF), <uint8_t>(self.owner_of(one.rank) >> 8)
        record[20], record[21] = <uint8_t>what, 0
        self.ends += record[:22]

    cdef bint leads_on(self, const uint8_t* range_):
        cdef bytes begins, ends
        for begins, ends in self.leading:
            if memcmp(range_, <const uint8_t*>ends, 16) <= 0 and memcmp(range_ + 16, <const uint8_t*>begins, 16) >= 0:
                return True
        return False


def flatten(entries, int family, bytes whats not None, bytes weights not None, bytes ids not None, list leading):
    """Ranges and endpoints of one family, sorted: as `addresses.SPAN` and `addresses.ENDPOINT` records.

    Args:
        entries: ADDRESS records.
        whats, weights, ids: by list index, what its blocks say (1 to 3), how much they count (0: nothing; an
            exception counts 3; 5: nothing but the exceptions), and what it is called in the records (two bytes).
        leading: first and last address (16 bytes each) of what is to be told of where an exception holds, too.

    Raises:
        ValueError: an entry says what none can say.
    """
    cdef _Sweep sweep = _Sweep(entries, family, whats, weights, ids, leading)
    sweep.sweep()
    return bytes(sweep.spans), bytes(sweep.ends)


def alike(const uint8_t[::1] one not None, const uint8_t[::1] other not None, size_t size):
    """How many records of that size both begin with, and with how many of the others both end."""
    cdef size_t few = <size_t>min(one.shape[0], other.shape[0]) // size, front = 0, back = 0
    cdef const uint8_t* a = &one[0] if one.shape[0] else NULL
    cdef const uint8_t* b = &other[0] if other.shape[0] else NULL
    cdef size_t a_size = <size_t>one.shape[0], b_size = <size_t>other.shape[0]
    while front < few and memcmp(a + front * size, b + front * size, size) == 0:
        front += 1
    while back < few - front and memcmp(a + a_size - (back + 1) * size, b + b_size - (back + 1) * size, size) == 0:
        back += 1
    return front, back
