# A growing byte string for parsers that outlive a packet: capped, copied when a reading forks, freed by its owner.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

cdef struct Text:          # all zero is empty
    uint8_t* data
    uint32_t size
    uint32_t room


cdef inline bint append(Text* t, const uint8_t* piece, size_t size, size_t cap) noexcept nogil:
    # False, and nothing is changed, beyond `cap` bytes or without memory.
    cdef size_t room
    cdef uint8_t* grown
    if size == 0:
        return True
    if t.size + size > cap:
        return False
    if t.size + size > t.room:
        room = t.room * 2 if t.room else 64
        while room < t.size + size:
            room *= 2
        grown = <uint8_t*>realloc(t.data, room)
        if grown == NULL:
            return False
        t.data = grown
        t.room = <uint32_t>room
    memcpy(t.data + t.size, piece, size)
    t.size += <uint32_t>size
    return True


cdef inline void release(Text* t) noexcept nogil:
    free(t.data)
    t.data = NULL
    t.size = 0
    t.room = 0


cdef inline bint duplicate(Text* copy, const Text* t) noexcept nogil:
    copy.data = NULL
    copy.size = 0
    copy.room = 0
    return append(copy, t.data, t.size, t.size)


cdef inline bint same_text(const Text* a, const Text* b) noexcept nogil:
    return a.size == b.size and (a.size == 0 or memcmp(a.data, b.data, a.size) == 0)


# ---- digests: equal states have equal ones, so that only those are compared whose digests agree


cdef inline uint64_t digest_word(uint64_t digest, uint64_t word) noexcept nogil:
    return (((digest << 5) | (digest >> 59)) ^ word) * 0x9E3779B97F4A7C15ULL


cdef inline uint64_t digest_bytes(uint64_t digest, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint64_t word = 0
    digest = digest_word(digest, size)
    while size >= 8:
        memcpy(&word, data, 8)
        digest = digest_word(digest, word)
        data += 8
        size -= 8
    if size == 0:
        return digest
    word = 0
    memcpy(&word, data, size)
    return digest_word(digest, word)


cdef inline uint64_t digest_text(uint64_t digest, const Text* t) noexcept nogil:
    return digest_bytes(digest, t.data, t.size)


# ---- bytes of text


cdef inline bint is_space(uint8_t b) noexcept nogil:
    # What lenient servers trim around a value: blanks, line ends, vertical tab and form feed.
    return b == 0x20 or (b >= 0x09 and b <= 0x0D)


cdef inline uint8_t lower(uint8_t b) noexcept nogil:
    return b | 0x20 if b >= 0x41 and b <= 0x5A else b


cdef inline bint is_word(const uint8_t* text, size_t size, const char* word, size_t word_size) noexcept nogil:
    # Case-insensitive; `word` is in lower case.
    cdef size_t i
    if size != word_size:
        return False
    for i in range(size):
        if lower(text[i]) != <uint8_t>word[i]:
            return False
    return True


cdef inline bint contains(const uint8_t* text, size_t size, const char* word, size_t word_size) noexcept nogil:
    cdef size_t i
    if size < word_size:
        return False
    for i in range(size - word_size + 1):
        if is_word(text + i, word_size, word, word_size):
            return True
    return False
