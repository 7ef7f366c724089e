"""The filter that the first stage asks: which fingerprints of a snapshot may be those of a name on the wire.

In: the rows of a snapshot. Out: a blocked Bloom filter, laid out as program.c reads it: a header, the lengths of
listed address prefixes, then blocks of 512 bits, six of which stand for a fingerprint. What is in it is always found;
what is not is found once in a thousand times. Never here: plain text, of which a snapshot has none.

Left out are rows that block nothing by themselves at this stage: exceptions, and URLs. Of a host at an address the
mark is in it: where that leads the engine sees. So is that of a host with URLs, by a hash of its own: only a request
is asked about for it.
"""

import struct

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from edgeblock.blocklist.bitmap cimport load_u32
from edgeblock.blocklist.fingerprint cimport (
    AT_MARK, ENDPOINT, EXCEPTION, HOST, HOST_OF_URL, HOST_ONLY, NETWORK, PRINT_SIZE, ROW_SIZE, SUBDOMAINS,
    URL_MARK,
)

BLOCK = 64              # bytes: also of the header and of a pair of prefixes
LABELS_AT, CROWDED_AT = 16, 28      # in the header
PREFIXES = 4            # lengths that there is room for, in each family: program.c
PRINTS_A_BLOCK = 32     # 16 bits each

cdef uint32_t KINDS = (1 << HOST | 1 << HOST_ONLY | 1 << SUBDOMAINS | 1 << NETWORK | 1 << ENDPOINT
                       | 1 << HOST_OF_URL | 1 << AT_MARK | 1 << URL_MARK)


cdef inline bint counts(const uint8_t* row, const uint8_t* before) noexcept nogil:
    # Whether the row is one to be found, and not found by the one before.
    cdef uint32_t value = load_u32(row + PRINT_SIZE)
    return (value & 0xFF < 32 and KINDS >> (value & 0xFF) & 1 and not value & EXCEPTION
            and (before == NULL or memcmp(row, before, PRINT_SIZE) != 0 or is_mark(row) != is_mark(before)))


cdef inline bint is_mark(const uint8_t* row) noexcept nogil:
    return load_u32(row + PRINT_SIZE) & 0xFF == URL_MARK


cdef inline uint64_t hash_of(const uint8_t* row) noexcept nogil:
    # of_urls of program.c has the same.
    cdef uint64_t hash
    memcpy(&hash, row, 8)
    return (hash ^ hash >> 29) * <uint64_t>0x9E3779B97F4A7C15 if is_mark(row) else hash


cdef inline void bits_of(uint64_t hash, uint32_t* bits) noexcept nogil:
    cdef int i
    for i in range(5):
        bits[i] = (hash >> (9 * i)) & 511
    bits[5] = (hash * <uint64_t>0x9E3779B97F4A7C15) >> 55


cdef inline uint32_t block_of(uint64_t hash, uint32_t blocks) noexcept nogil:
    return <uint32_t>((hash >> 32) * blocks >> 32)


def blocks_for(const uint8_t[::1] rows not None) -> int:
    """How many blocks the fingerprints of these rows take, one at least."""
    cdef size_t i, found = 0, count = rows.shape[0] // ROW_SIZE
    cdef const uint8_t* row
    cdef const uint8_t* before = NULL
    with nogil:
        for i in range(count):
            row = &rows[i * ROW_SIZE]
            if counts(row, before):
                found += 1
                before = row
    return max(1, found // PRINTS_A_BLOCK)


def fill(uint64_t[::1] words not None, const uint8_t[::1] rows not None) -> int:
    """Set the bits of these rows' fingerprints in `words`, which are the blocks and nothing else; how many rows had
    not all of theirs set before."""
    cdef size_t i, k, added = 0, count = rows.shape[0] // ROW_SIZE
    cdef uint32_t blocks = <uint32_t>(words.shape[0] // 8)
    cdef uint32_t[6] bits
    cdef uint64_t hash, at, before, missing
    if blocks == 0 or words.shape[0] % 8:
        raise ValueError("blocks are whole, one at least")
    with nogil:
        for i in range(count):
            if counts(&rows[i * ROW_SIZE], NULL):
                hash = hash_of(&rows[i * ROW_SIZE])
                at = <uint64_t>block_of(hash, blocks) * 8
                bits_of(hash, bits)
                missing = 0
                for k in range(6):
                    before = words[at + (bits[k] >> 6)]
                    words[at + (bits[k] >> 6)] = before | <uint64_t>1 << (bits[k] & 63)
                    missing |= ~before >> (bits[k] & 63) & 1
                added += missing
    return added


def header(bytes key not None, uint64_t labels, uint32_t blocks, uint64_t ipv4_lengths, object ipv6_lengths) -> bytes:
    """The elements before the blocks. `labels` and the lengths are a snapshot's bounds of a look-up."""
    crowded, prefixes = 0, b""
    for lengths, size, flag in ((ipv4_lengths, 32, 1), (ipv6_lengths, 128, 2)):
        wanted = [length for length in range(size + 1) if lengths >> length & 1]
        if len(wanted) > PREFIXES:
            crowded |= flag
            wanted = []
        listed = [struct.pack("=16sII", mask(length, size), length, 1) for length in wanted]
        listed += [bytes(24)] * (PREFIXES - len(listed))
        prefixes += b"".join(listed[i] + listed[i + 1] + bytes(16) for i in range(0, PREFIXES, 2))
    return struct.pack("=16sQII32x", key, labels, blocks, crowded) + prefixes


def widen(uint8_t[::1] head not None, uint64_t labels, uint64_t ipv4_lengths, object ipv6_lengths) -> None:
    """The bounds of a filter that is being asked, made wide enough for these, too.

    Each number is written by itself, and a length is in use last: whoever asks meanwhile finds the old bounds, or
    some that are wider.
    """
    numbers = memoryview(head).cast("B")
    with numbers.cast("Q") as words, numbers.cast("I") as halves:
        words[LABELS_AT // 8] |= labels
        for lengths, size, flag in ((ipv4_lengths, 32, 1), (ipv6_lengths, 128, 2)):
            first = BLOCK * (1 + (flag - 1) * (PREFIXES // 2))
            places = [first + BLOCK * (i // 2) + 24 * (i & 1) for i in range(PREFIXES)]
            used = [at for at in places if halves[at // 4 + 5]]
            there = {halves[at // 4 + 4] for at in used}
            for length in range(size + 1):
                if not lengths >> length & 1 or length in there or halves[CROWDED_AT // 4] & flag:
                    continue
                if len(used) == PREFIXES:
                    halves[CROWDED_AT // 4] |= flag
                    break
                at = places[len(used)]
                words[at // 8], words[at // 8 + 1] = struct.unpack("=QQ", mask(length, size))
                halves[at // 4 + 4] = length
                halves[at // 4 + 5] = 1
                used.append(at)


def mask(length: int, size: int) -> bytes:
    """The network mask of a prefix as the address lies in a packet; IPv4 takes the first four bytes of sixteen."""
    return (((1 << length) - 1) << (size - length)).to_bytes(size // 8, "big").ljust(16, b"\0")


def holds(const uint64_t[::1] words not None, bytes print not None) -> bool:
    """Whether blocks hold a fingerprint: what the kernel computes, for tests and measurements."""
    cdef uint64_t hash
    cdef uint32_t[6] bits
    cdef size_t k, at
    memcpy(&hash, <const uint8_t*>print, 8)
    at = <size_t>block_of(hash, <uint32_t>(words.shape[0] // 8)) * 8
    bits_of(hash, bits)
    for k in range(6):
        if not words[at + (bits[k] >> 6)] >> (bits[k] & 63) & 1:
            return False
    return True
