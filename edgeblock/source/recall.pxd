# What the first stage let by: the maps of netfilter/stage1/program.c as user space reads them (structures.h).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeblock.core.engine cimport Engine, Passed
from edgeblock.core.packet cimport Packet
from edgeblock.netfilter.stage1.structures cimport HELLO_MAX, SYNS, Key, PassedSyn, Remembered

cdef struct Attributes:
    uint32_t map_fd
    uint32_t unused
    uint64_t key
    uint64_t value
    uint64_t flags


cdef class Recall:
    cdef int flows
    cdef uint32_t places
    cdef uint64_t secret
    cdef object memory
    cdef const uint8_t* hellos
    cdef long number
    cdef uint8_t[SYNS][HELLO_MAX] found
    cdef readonly uint64_t recalled
    cdef readonly uint64_t forgotten

    cdef void before(self, Engine engine, const uint8_t* data, size_t size, double now) noexcept nogil
    cdef uint32_t gather(self, const Remembered* r, uint32_t seq, Passed* passed, uint64_t* past) noexcept nogil
    cdef bint look_up(self, const Packet* p, Remembered* out) noexcept nogil
    cdef bint look_up_part(self, const Key* key, Remembered* out) noexcept nogil
    cdef void cuts_of(self, const PassedSyn* one, Passed* passed) noexcept nogil
    cdef uint32_t pick(self, const Remembered* r, uint64_t past, uint64_t untold, Passed* passed) noexcept nogil
    cdef const uint8_t* bytes_of(self, const PassedSyn* one) noexcept nogil
