"""Whether an address entry has nothing to do with some ranges, which is so of nearly every one: by its key, at once.

In: ranges of both families, sorted and apart from each other, and how wide an entry may be; a key (`network_key`).
Out: that it touches none and is no wider. Never here: what else is to be said of it.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy


cdef class Apart:
    """`starts` and `lasts` by the size of an address (4 and 16), each the addresses one after the other. An entry
    with a prefix shorter than `least4` or `least6` is not clear."""

    cdef bytes starts4, lasts4, starts6, lasts6
    cdef int least4, least6

    def __init__(self, dict starts not None, dict lasts not None, int least4, int least6):
        self.starts4, self.lasts4, self.starts6, self.lasts6 = starts[4], lasts[4], starts[16], lasts[16]
        if len(self.starts4) != len(self.lasts4) or len(self.starts6) != len(self.lasts6):
            raise ValueError("a range has two ends")
        self.least4, self.least6 = least4, least6

    def clears(self, bytes key not None):
        """Whether nothing is to be said of a network or an endpoint."""
        cdef const uint8_t* at = key
        cdef Py_ssize_t size = 4 if len(key) < 16 else 16, low = 0, high, middle
        cdef const uint8_t* starts
        cdef const uint8_t* lasts
        cdef uint8_t last[16]
        cdef int length, bit
        if len(key) < 2 + size or at[1] > 8 * size:
            return False
        length = at[1]
        if length < (self.least4 if size == 4 else self.least6):
            return False
        memcpy(last, at + 2, <size_t>size)
        for bit in range(length, <int>(8 * size)):
            last[bit // 8] |= <uint8_t>(0x80 >> bit % 8)
        starts = self.starts4 if size == 4 else self.starts6
        lasts = self.lasts4 if size == 4 else self.lasts6
        high = (len(self.starts4) if size == 4 else len(self.starts6)) // size
        while low < high:                   # the first range that begins behind it
            middle = (low + high) // 2
            if memcmp(starts + middle * size, last, <size_t>size) > 0:
                high = middle
            else:
                low = middle + 1
        return low == 0 or memcmp(lasts + (low - 1) * size, at + 2, <size_t>size) < 0
