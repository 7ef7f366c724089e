# What the first stage let by: the maps of netfilter/stage1/program.c as user space reads them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.engine cimport Engine, Passed
from edgeblock.core.packet cimport Packet

cdef enum:
    SYNS = 12
    HELLO_MAX = 2048

cdef struct PassedSyn:
    uint32_t isn
    uint32_t serial
    uint32_t place
    uint16_t size
    uint16_t after

cdef struct Remembered:
    uint32_t head
    uint32_t count
    uint64_t touched
    uint64_t handed
    PassedSyn passed[SYNS]
    uint32_t tail
    uint32_t unused

cdef struct Hello:
    uint32_t serial
    uint32_t unused[3]
    uint8_t data[HELLO_MAX + 64]

cdef struct Key:
    uint8_t source[16]
    uint8_t destination[16]
    uint16_t source_port
    uint16_t destination_port
    uint32_t family

cdef struct Attributes:
    uint32_t map_fd
    uint32_t unused
    uint64_t key
    uint64_t value
    uint64_t flags


cdef class Recall:
    cdef int flows
    cdef uint32_t places
    cdef object memory
    cdef const uint8_t* hellos
    cdef long number
    cdef uint8_t[SYNS][HELLO_MAX] found
    cdef readonly uint64_t recalled
    cdef readonly uint64_t forgotten

    cdef void before(self, Engine engine, const uint8_t* data, size_t size, double now) noexcept nogil
    cdef uint32_t gather(self, const Remembered* r, uint32_t seq, Passed* passed, uint64_t* past) noexcept nogil
    cdef bint look_up(self, const Packet* p, Remembered* out) noexcept nogil
    cdef uint32_t pick(self, const Remembered* r, uint64_t past, uint64_t untold, Passed* passed) noexcept nogil
    cdef const uint8_t* bytes_of(self, const PassedSyn* one) noexcept nogil
