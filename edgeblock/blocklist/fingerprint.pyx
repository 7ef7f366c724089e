"""Fingerprints, the rows of a snapshot while they are gathered, and sorted tables of rows made one (see the .pxd).

In: canonical bytes and a value each, or tables that are sorted already. Out: one sorted block of 20-byte rows without
duplicates. What never happens here: a canonical form kept after its fingerprint is made.
"""

from array import array

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy

from edgeblock.blocklist.bitmap cimport load_u32


cdef int compare(const void* one, const void* other) noexcept nogil:
    # By fingerprint, then by value as a number: list, exception, kind.
    cdef int order = memcmp(one, other, PRINT_SIZE)
    cdef uint32_t a, b
    if order:
        return order
    a = load_u32(<const uint8_t*>one + PRINT_SIZE)
    b = load_u32(<const uint8_t*>other + PRINT_SIZE)
    return (a > b) - (a < b)


cdef void sort_rows(uint8_t* rows, size_t count) noexcept nogil:
    # By the first byte in place, then each of these 256 by itself: qsort wants as much memory again as it sorts, and
    # is quicker on what fits the cache.
    cdef size_t sizes[256]
    cdef size_t next_in[256]
    cdef size_t ends[256]
    cdef size_t i, at = 0
    cdef uint8_t row[ROW_SIZE]
    cdef uint8_t other[ROW_SIZE]
    cdef uint8_t* place
    cdef int bucket
    for i in range(256):
        sizes[i] = 0
    for i in range(count):
        sizes[rows[i * ROW_SIZE]] += 1
    for i in range(256):
        next_in[i] = at
        at += sizes[i]
        ends[i] = at
    for i in range(256):
        while next_in[i] < ends[i]:
            memcpy(row, rows + next_in[i] * ROW_SIZE, ROW_SIZE)
            bucket = row[0]
            while bucket != <int>i:
                place = rows + next_in[bucket] * ROW_SIZE
                memcpy(other, place, ROW_SIZE)
                memcpy(place, row, ROW_SIZE)
                memcpy(row, other, ROW_SIZE)
                next_in[bucket] += 1
                bucket = row[0]
            memcpy(rows + next_in[i] * ROW_SIZE, row, ROW_SIZE)
            next_in[i] += 1
    for i in range(256):
        qsort(rows + (ends[i] - sizes[i]) * ROW_SIZE, sizes[i], ROW_SIZE, compare)


def fingerprint(const uint8_t[::1] key not None, bytes text not None):
    """The 16 bytes that stand for `text` under the 16-byte `key`."""
    cdef uint8_t out[PRINT_SIZE]
    if key.shape[0] != KEY_SIZE:
        raise ValueError("a key is 16 bytes")
    crypto_shorthash_siphashx24(out, text, len(text), &key[0])
    return out[:PRINT_SIZE]


cdef object first_bits(const uint8_t* rows, size_t count):
    numbers = array("I", bytes(4 * count))
    cdef uint32_t[::1] out = numbers
    cdef size_t i
    cdef const uint8_t* row
    for i in range(count):
        row = rows + i * ROW_SIZE
        out[i] = <uint32_t>row[0] << 24 | <uint32_t>row[1] << 16 | <uint32_t>row[2] << 8 | row[3]
    return numbers


cdef inline void put_value(uint8_t* row, uint32_t value) noexcept nogil:
    row[16] = <uint8_t>value
    row[17] = <uint8_t>(value >> 8)
    row[18] = <uint8_t>(value >> 16)
    row[19] = <uint8_t>(value >> 24)


cdef class Rows:
    """Rows of fingerprint and value under one 16-byte key: `add` them all, `finish` once, then read them, as a buffer
    of bytes too."""

    cdef uint8_t* rows
    cdef size_t count, room
    cdef const uint8_t[::1] held        # the key, which is in one place only (keys.py)
    cdef const uint8_t* key

    def __cinit__(self, const uint8_t[::1] key not None):
        if key.shape[0] != KEY_SIZE:
            raise ValueError("a key is 16 bytes")
        self.held = key
        self.key = &key[0]

    def __dealloc__(self):
        free(self.rows)

    def __len__(self):
        return self.count

    cdef uint8_t* make_row(self, uint32_t value) except NULL:
        # A new row with this value; its fingerprint is still to be written.
        cdef uint8_t* row
        cdef void* moved
        cdef size_t room
        if self.count == self.room:
            room = self.room + (self.room >> 1) + 1024
            moved = realloc(self.rows, room * ROW_SIZE)
            if moved == NULL:
                raise MemoryError
            self.rows = <uint8_t*>moved
            self.room = room
        row = self.rows + self.count * ROW_SIZE
        put_value(row, value)
        self.count += 1
        return row

    def add(self, bytes text not None, uint32_t value):
        """One row for `text`."""
        crypto_shorthash_siphashx24(self.make_row(value), text, len(text), self.key)

    def add_print(self, bytes print not None, uint32_t value):
        """One row for a fingerprint that was made elsewhere, under the same key."""
        if len(print) != PRINT_SIZE:
            raise ValueError("a fingerprint is 16 bytes")
        memcpy(self.make_row(value), <const uint8_t*>print, PRINT_SIZE)

    def finish(self):
        """Sort the rows and keep one of each."""
        cdef size_t i, kept = 0
        cdef uint8_t* row
        if self.count == 0:
            return
        with nogil:
            sort_rows(self.rows, self.count)
            for i in range(self.count):
                row = self.rows + i * ROW_SIZE
                if kept == 0 or memcmp(row, self.rows + (kept - 1) * ROW_SIZE, ROW_SIZE) != 0:
                    if i != kept:
                        memcpy(self.rows + kept * ROW_SIZE, row, ROW_SIZE)
                    kept += 1
            self.count = kept

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.rows, self.count * ROW_SIZE, 1, flags)

    def prefixes(self):
        """The first 32 bits of each fingerprint as an array of unsigned 32-bit numbers, ascending."""
        return first_bits(self.rows, self.count)

    def entries(self, Py_ssize_t lists):
        """How many distinct entries each of `lists` lists has: rows that are rules of their own. One that is there
        with terms and without is one."""
        counts = [0] * lists
        cdef size_t i
        cdef uint32_t value
        for i in range(self.count):
            value = load_u32(self.rows + i * ROW_SIZE + PRINT_SIZE)
            if value & 0xFF not in (HOST_OF_URL, URL_MARK, AT_MARK) and not (
                    value & TERMS and self.has_before(i, value - TERMS)):
                counts[value >> 16] += 1
        return counts

    def has(self, bytes print not None, uint32_t value):
        """Whether there is this row, once `finish` was called."""
        cdef uint8_t wanted[ROW_SIZE]
        cdef size_t low = 0, high = self.count, middle
        if len(print) != PRINT_SIZE:
            raise ValueError("a fingerprint is 16 bytes")
        memcpy(wanted, <const uint8_t*>print, PRINT_SIZE)
        put_value(wanted, value)
        while low < high:
            middle = low + (high - low) // 2
            if memcmp(self.rows + middle * ROW_SIZE, wanted, ROW_SIZE) < 0:
                low = middle + 1
            else:
                high = middle
        return low < self.count and memcmp(self.rows + low * ROW_SIZE, wanted, ROW_SIZE) == 0

    cdef bint has_before(self, size_t at, uint32_t value) noexcept nogil:
        # Whether a row before that one has the same fingerprint and this value.
        cdef const uint8_t* print = self.rows + at * ROW_SIZE
        while at:
            at -= 1
            if memcmp(self.rows + at * ROW_SIZE, print, PRINT_SIZE) != 0:
                return False
            if load_u32(self.rows + at * ROW_SIZE + PRINT_SIZE) == value:
                return True
        return False


# ---- rows that somebody else has made: of one list, whose index is 0

cdef inline const uint8_t* start_of(const uint8_t[::1] rows) noexcept nogil:
    return &rows[0] if rows.shape[0] else NULL


cdef size_t find_row(const uint8_t* rows, size_t count, const uint8_t* wanted, size_t size) noexcept nogil:
    # The first that is not below; all of a row, or only its fingerprint, is asked for.
    cdef size_t low = 0, high = count, middle
    cdef int order
    while low < high:
        middle = low + (high - low) // 2
        order = (compare(rows + middle * ROW_SIZE, wanted) if size == ROW_SIZE
                 else memcmp(rows + middle * ROW_SIZE, wanted, size))
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return low


def look_through(const uint8_t[::1] rows not None):
    """How many entries there are, and how many of these are for addresses.

    Raises:
        ValueError: they are not what `Rows` makes of one list without terms: sorted, one of each, of known kinds.
    """
    cdef size_t i, count = rows.shape[0] // ROW_SIZE, entries = 0, addresses = 0
    cdef const uint8_t* at = start_of(rows)
    cdef uint32_t value, kind
    cdef bint good = rows.shape[0] % ROW_SIZE == 0
    with nogil:
        for i in range(count):
            value = load_u32(at + i * ROW_SIZE + PRINT_SIZE)
            kind = value & 0xFF
            if value & ~<uint32_t>(EXCEPTION | 0xFF) or not HOST <= kind <= AT_MARK or (
                    i and compare(at + (i - 1) * ROW_SIZE, at + i * ROW_SIZE) >= 0):
                good = False
                break
            entries += kind != HOST_OF_URL and kind != URL_MARK and kind != AT_MARK
            addresses += kind == NETWORK or kind == ENDPOINT
    if not good:
        raise ValueError("are no rows of one list")
    return entries, addresses


def prefixes_of(const uint8_t[::1] rows not None):
    """As `Rows.prefixes`."""
    return first_bits(start_of(rows), rows.shape[0] // ROW_SIZE)


def has_all(const uint8_t[::1] rows not None, const uint8_t[::1] some not None):
    """Whether each row of `some` is in the sorted `rows`."""
    cdef size_t i, place, count = rows.shape[0] // ROW_SIZE
    cdef const uint8_t* at = start_of(rows)
    cdef const uint8_t* asked = start_of(some)
    for i in range(<size_t>some.shape[0] // ROW_SIZE):
        place = find_row(at, count, asked + i * ROW_SIZE, ROW_SIZE)
        if place == count or memcmp(at + place * ROW_SIZE, asked + i * ROW_SIZE, ROW_SIZE) != 0:
            return False
    return True


def values_of(const uint8_t[::1] rows not None, bytes print not None):
    """The values of the rows that have this fingerprint."""
    cdef size_t count = rows.shape[0] // ROW_SIZE, place
    cdef const uint8_t* at = start_of(rows)
    if len(print) != PRINT_SIZE:
        raise ValueError("a fingerprint is 16 bytes")
    found = []
    place = find_row(at, count, <const uint8_t*>print, PRINT_SIZE)
    while place < count and memcmp(at + place * ROW_SIZE, <const uint8_t*>print, PRINT_SIZE) == 0:
        found.append(load_u32(at + place * ROW_SIZE + PRINT_SIZE))
        place += 1
    return found


# ---- several tables made one

cdef size_t record_size = 0     # of what is sorted: qsort hands on nothing of ours, and one sorts at a time


cdef int compare_records(const void* one, const void* other) noexcept nogil:
    return memcmp(one, other, record_size)


def sort_records(uint8_t[::1] records not None, size_t size):
    """Sorts records of `size` bytes by their bytes, one of each; how many bytes are left at the beginning."""
    global record_size
    cdef size_t count = records.shape[0] // size, i, kept = 1
    if count == 0:
        return 0
    record_size = size
    qsort(&records[0], count, size, compare_records)
    for i in range(1, count):
        if memcmp(&records[i * size], &records[(kept - 1) * size], size) != 0:
            if i != kept:
                memcpy(&records[kept * size], &records[i * size], size)
            kept += 1
    return kept * size


cdef struct Head:           # where the reading of one table stands
    uint64_t front          # the first 64 bits of the row, as a number
    const uint8_t* at
    const uint8_t* end
    uint32_t list_index


cdef inline uint32_t value_of(const Head* head) noexcept nogil:
    # The row's value, of list 0 in its own table, with the index that the list has now.
    cdef uint32_t value = load_u32(head.at + PRINT_SIZE)
    return value if value >> 16 == NO_LIST else value | head.list_index << 16


cdef inline bint is_before(const Head* one, const Head* other) noexcept nogil:
    cdef int order
    if one.front != other.front:
        return one.front < other.front
    order = memcmp(one.at, other.at, PRINT_SIZE)
    return order < 0 if order else value_of(one) < value_of(other)


cdef inline void look(Head* head) noexcept nogil:
    # Compilers make one load and a swap of this.
    head.front = (<uint64_t>head.at[0] << 56 | <uint64_t>head.at[1] << 48 | <uint64_t>head.at[2] << 40
                  | <uint64_t>head.at[3] << 32 | <uint64_t>head.at[4] << 24 | <uint64_t>head.at[5] << 16
                  | <uint64_t>head.at[6] << 8 | head.at[7])


cdef void sift(Head* heap, size_t count, size_t i) noexcept nogil:
    cdef size_t child
    cdef Head head = heap[i]
    while True:
        child = 2 * i + 1
        if child >= count:
            break
        if child + 1 < count and is_before(&heap[child + 1], &heap[child]):
            child += 1
        if not is_before(&heap[child], &head):
            break
        heap[i] = heap[child]
        i = child
    heap[i] = head


cdef class Merge:
    """Sorted tables of one list each, in the order of their new list indexes, read as one sorted table.

    The tables are buffers of whole rows, kept until the end; nothing of them is copied before it is read.
    """

    cdef list tables
    cdef Head* heap
    cdef size_t count
    cdef uint8_t last[ROW_SIZE]
    cdef bint begun

    def __cinit__(self, list tables not None):
        cdef const uint8_t[::1] table
        cdef size_t i
        self.tables = tables
        self.heap = <Head*>malloc((len(tables) + 1) * sizeof(Head))
        if self.heap == NULL:
            raise MemoryError
        for i in range(<size_t>len(tables)):
            table = tables[i]
            if table.shape[0] % ROW_SIZE:
                raise ValueError("a table is of whole rows")
            if table.shape[0] == 0:
                continue
            self.heap[self.count].at = &table[0]
            self.heap[self.count].end = &table[0] + table.shape[0]
            self.heap[self.count].list_index = <uint32_t>i
            look(&self.heap[self.count])
            self.count += 1
        for i in range(self.count // 2, 0, -1):
            sift(self.heap, self.count, i - 1)

    def __dealloc__(self):
        free(self.heap)

    def read_into(self, uint8_t[::1] out not None):
        """Fills `out` with the next rows; how many bytes, 0 at the end."""
        cdef size_t room = out.shape[0] // ROW_SIZE, made = 0
        cdef uint8_t* row
        cdef uint32_t value
        cdef Head* head = self.heap
        if room == 0:
            raise ValueError("no room for a row")
        with nogil:
            while made < room and self.count:
                row = &out[0] + made * ROW_SIZE
                value = value_of(head)
                memcpy(row, head.at, PRINT_SIZE)
                row[16] = <uint8_t>value
                row[17] = <uint8_t>(value >> 8)
                row[18] = <uint8_t>(value >> 16)
                row[19] = <uint8_t>(value >> 24)
                if not self.begun or memcmp(row, self.last, ROW_SIZE) != 0:
                    memcpy(self.last, row, ROW_SIZE)
                    self.begun = True
                    made += 1
                head.at += ROW_SIZE
                if head.at == head.end:
                    self.count -= 1
                    head[0] = self.heap[self.count]
                else:
                    look(head)
                if self.count > 1:
                    sift(self.heap, self.count, 0)
        return made * ROW_SIZE
