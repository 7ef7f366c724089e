"""Fingerprints, and the rows of a snapshot while they are gathered (see the .pxd).

In: canonical bytes and a value each. Out: one sorted block of 20-byte rows without duplicates. What never happens
here: a canonical form kept after its fingerprint is made.
"""

from array import array

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, qsort, realloc
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


def fingerprint(const uint8_t[::1] key not None, bytes text not None):
    """The 16 bytes that stand for `text` under the 16-byte `key`."""
    cdef uint8_t out[PRINT_SIZE]
    if key.shape[0] != KEY_SIZE:
        raise ValueError("a key is 16 bytes")
    crypto_shorthash_siphashx24(out, text, len(text), &key[0])
    return out[:PRINT_SIZE]


cdef class Rows:
    """Rows of fingerprint and value under one 16-byte key: `add` them all, `finish` once, then read them."""

    cdef uint8_t* rows
    cdef size_t count, room
    cdef uint8_t key[KEY_SIZE]

    def __cinit__(self, bytes key not None):
        if len(key) != KEY_SIZE:
            raise ValueError("a key is 16 bytes")
        memcpy(self.key, <const uint8_t*>key, KEY_SIZE)

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
        row[16] = <uint8_t>value
        row[17] = <uint8_t>(value >> 8)
        row[18] = <uint8_t>(value >> 16)
        row[19] = <uint8_t>(value >> 24)
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
            qsort(self.rows, self.count, ROW_SIZE, compare)
            for i in range(self.count):
                row = self.rows + i * ROW_SIZE
                if kept == 0 or memcmp(row, self.rows + (kept - 1) * ROW_SIZE, ROW_SIZE) != 0:
                    if i != kept:
                        memcpy(self.rows + kept * ROW_SIZE, row, ROW_SIZE)
                    kept += 1
            self.count = kept

    def table(self):
        """All rows as bytes."""
        return PyBytes_FromStringAndSize(<char*>self.rows, self.count * ROW_SIZE)

    def prefixes(self):
        """The first 32 bits of each fingerprint as an array of unsigned 32-bit numbers, ascending."""
        numbers = array("I", bytes(4 * self.count))
        cdef uint32_t[::1] out = numbers
        cdef size_t i
        cdef const uint8_t* row
        for i in range(self.count):
            row = self.rows + i * ROW_SIZE
            out[i] = <uint32_t>row[0] << 24 | <uint32_t>row[1] << 16 | <uint32_t>row[2] << 8 | row[3]
        return numbers

    def entries(self, Py_ssize_t lists):
        """How many distinct entries each of `lists` lists has: rows that are rules of their own."""
        counts = [0] * lists
        cdef size_t i
        cdef uint32_t value
        for i in range(self.count):
            value = load_u32(self.rows + i * ROW_SIZE + PRINT_SIZE)
            if value & 0xFF < HOST_OF_URL:
                counts[value >> 16] += 1
        return counts
