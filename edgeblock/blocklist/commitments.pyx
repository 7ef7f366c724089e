"""What a box commits itself to about a list, so that it can show one entry of it afterwards and no other.

In: the key of the box; each entry as a line of text. Out: for each a commitment of 20 bytes, sorted, one of each: the
first bytes of SHA-256 over a salt and that text. The salt is 16 bytes that nobody has who has not the key, and
another for each text (SipHash-2-4 under a key that is derived from the box's): so a commitment tells nothing of its
entry, and who is given text and salt can check it. Never here: a file, or a text kept after its commitment is made.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from edgeblock.blocklist.fingerprint cimport KEY_SIZE, crypto_shorthash_siphashx24

from edgeblock.blocklist.keys import keyed_sum

cdef extern from "sodium.h" nogil:
    int crypto_hash_sha256(unsigned char* out, const unsigned char* data, unsigned long long size)

cdef enum:
    COMMITMENT_SIZE = 20        # of 32: to open one as another, who chooses both would have to try 2^80
    SALT_SIZE = 16
    TEXT_MAX = 4096

SIZE = COMMITMENT_SIZE


cdef int compare(const void* one, const void* other) noexcept nogil:
    return memcmp(one, other, COMMITMENT_SIZE)


cdef void sort_into(uint8_t* out, const uint8_t* made, size_t count) noexcept nogil:
    # By the first 16 bits, then each of these by itself, which fits the cache: they are hashes, and as many of each.
    cdef uint32_t ends[65537]
    cdef size_t i
    cdef const uint8_t* one
    memset(ends, 0, sizeof(ends))
    for i in range(count):
        one = made + i * COMMITMENT_SIZE
        ends[(<uint32_t>one[0] << 8 | one[1]) + 1] += 1
    for i in range(65536):
        ends[i + 1] += ends[i]
    for i in range(count):
        one = made + i * COMMITMENT_SIZE
        memcpy(out + <size_t>ends[<uint32_t>one[0] << 8 | one[1]] * COMMITMENT_SIZE, one, COMMITMENT_SIZE)
        ends[<uint32_t>one[0] << 8 | one[1]] += 1
    for i in range(65536):          # each is now where the next began
        one = out + <size_t>(ends[i - 1] if i else 0) * COMMITMENT_SIZE
        qsort(<void*>one, ends[i] - (ends[i - 1] if i else 0), COMMITMENT_SIZE, compare)


cdef class Commitments:
    """`add` each entry, `finish` once, then read them as a buffer of bytes."""

    cdef uint8_t* made
    cdef size_t count, room
    cdef uint8_t key[KEY_SIZE]

    def __cinit__(self, key not None):
        cdef bytes derived = keyed_sum(b"", key, KEY_SIZE, b"edgeblock-commit")
        memcpy(self.key, <const uint8_t*>derived, KEY_SIZE)

    def __dealloc__(self):
        free(self.made)

    def __len__(self):
        return self.count

    def salt(self, bytes text not None):
        """The 16 bytes that the commitment to a text is made with."""
        cdef uint8_t out[SALT_SIZE]
        crypto_shorthash_siphashx24(out, text, len(text), self.key)
        return out[:SALT_SIZE]

    def add(self, bytes word not None, bytes rest not None=b""):
        """One more, of the text that is both. ValueError where that is longer than any entry."""
        cdef uint8_t salted[SALT_SIZE + TEXT_MAX]
        cdef uint8_t out[32]
        cdef size_t before = len(word), size = before + len(rest), room
        cdef void* moved
        if size > TEXT_MAX:
            raise ValueError("longer than an entry can be")
        if self.count == self.room:
            room = self.room + (self.room >> 1) + 1024
            moved = realloc(self.made, room * COMMITMENT_SIZE)
            if moved == NULL:
                raise MemoryError
            self.made = <uint8_t*>moved
            self.room = room
        memcpy(salted + SALT_SIZE, <const uint8_t*>word, before)
        memcpy(salted + SALT_SIZE + before, <const uint8_t*>rest, size - before)
        crypto_shorthash_siphashx24(salted, salted + SALT_SIZE, size, self.key)
        crypto_hash_sha256(out, salted, SALT_SIZE + size)
        memcpy(self.made + self.count * COMMITMENT_SIZE, out, COMMITMENT_SIZE)
        self.count += 1

    def finish(self):
        """Sorts them and keeps one of each."""
        cdef uint8_t* sorted_ones
        cdef size_t i, kept = 0
        if not self.count:
            return
        sorted_ones = <uint8_t*>malloc(self.count * COMMITMENT_SIZE)
        if sorted_ones == NULL:
            raise MemoryError
        with nogil:
            sort_into(sorted_ones, self.made, self.count)
            for i in range(self.count):
                if not kept or memcmp(sorted_ones + i * COMMITMENT_SIZE,
                                      sorted_ones + (kept - 1) * COMMITMENT_SIZE, COMMITMENT_SIZE):
                    if i != kept:
                        memcpy(sorted_ones + kept * COMMITMENT_SIZE, sorted_ones + i * COMMITMENT_SIZE,
                               COMMITMENT_SIZE)
                    kept += 1
        free(self.made)
        self.made, self.room, self.count = sorted_ones, self.count, kept

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.made, self.count * COMMITMENT_SIZE, 1, flags)
