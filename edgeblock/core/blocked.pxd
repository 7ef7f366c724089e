# What stays blocked on the ports of a blocked connection when they come round again: ranges of sequence numbers.
#
# In: what the engine knows of each stream there when it blocks. Out: whether bytes may be of one of them, or go on
# with it. Never here: more than MAX_RANGES of them, a stream's bytes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    MAX_RANGES = 256           # 3 kB; a client of many has its ports again some hundred times within limits.idle

cdef struct Range:
    uint32_t first             # of the stream's bytes, as far as that is known
    uint32_t last              # the first byte that the server cannot have: without it nothing that follows is read
    uint8_t unsaid             # there was a SYN, and no byte has come
    uint8_t silent             # the same, and he who was blocked showed no proof: proven bytes are somebody else's

cdef struct Blocked:
    Range* ranges              # sorted by `first`
    uint16_t count
    uint16_t room

cdef bint add_range(Blocked* b, uint32_t first, uint32_t last, bint unsaid, bint silent) noexcept nogil # 0: no memory
cdef bint covers(const Blocked* b, uint32_t seq, uint32_t size, bint proven) noexcept nogil
cdef bint goes_on_with(const Blocked* b, uint32_t seq, uint32_t reach) noexcept nogil  # or is close behind
cdef void extend(Blocked* b, uint32_t seq, uint32_t size) noexcept nogil       # by bytes that were dropped
cdef bint takes_syn(Blocked* b, uint32_t first) noexcept nogil # whether a stream may begin there
cdef uint32_t room_of(const Blocked* b) noexcept nogil                         # bytes of memory
cdef void free_ranges(Blocked* b) noexcept nogil
