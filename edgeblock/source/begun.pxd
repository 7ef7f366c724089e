# How far each flow has come that a reader has begun to read, in memory that outlives the reader.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.engine cimport Engine, Standing

cdef enum:
    IN_BUCKET = 4

cdef struct Entry:
    uint32_t tag               # of the flow's hash; 0: free
    uint32_t at                # Standing.at
    uint32_t before            # the same of a connection before on these ports that was not over
    uint8_t state              # Standing.state; 0: none
    uint8_t before_state
    uint8_t generation         # of the reader that wrote it
    uint8_t unused
    uint16_t when              # CLOCK_MONOTONIC, in steps of 2 s
    uint16_t unused_too

cdef struct Bucket:
    Entry entries[IN_BUCKET]

cdef struct Header:
    uint8_t secret[16]         # of the flows' hashes, the same for all readers of this daemon
    uint64_t generation        # of the reader that has the queue now, counted from 1
    uint64_t unused[5]


cdef class Begun:
    cdef object memory
    cdef Header* header
    cdef Bucket* buckets
    cdef uint64_t mask
    cdef double idle
    cdef double until              # CLOCK_MONOTONIC seconds: so long an unknown flow may be one of those before
    cdef uint8_t generation

    cdef void foresee(self, uint64_t hash) noexcept nogil       # Engine.foresee's: fetches what `note` touches
    cdef void note(self, const Standing* standing, double now) noexcept nogil
    cdef Entry* place(self, Bucket* bucket, uint32_t tag, uint16_t when) noexcept nogil
    cdef const Entry* find(self, uint64_t hash, double now) noexcept nogil
    # Before a packet is judged: what the engine has to know of its flow.
    cdef void restore(self, Engine engine, const uint8_t* data, size_t size, double now) noexcept nogil
