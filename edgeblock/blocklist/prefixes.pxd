# Whether an address is in one of many ranges, which lie in memory as they lie in a snapshot.

from libc.stdint cimport uint8_t

# `ranges`: sorted and apart, each its first and last address of `size` bytes (4 or 16) in network order.
cdef bint is_within(const uint8_t* ranges, size_t count, const uint8_t* address, size_t size) noexcept nogil
