# Flow marks where conntrack keeps none: the map of netfilter/stage1/program.c, written from user space.

from libc.stdint cimport uint8_t, uint64_t

from edgeblock.core.packet cimport Packet

cdef class Marking:
    cdef int marks
    cdef long number
    cdef readonly uint64_t failed

    cdef bint put(self, const Packet* p, uint8_t what) noexcept nogil
