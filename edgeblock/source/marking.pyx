"""Flow marks where conntrack keeps none: what the engine decides goes into the map that the kernel's programs ask.

In: the open map, a packet of the flow, a `core.engine.Mark`. Out: the mark is in the map when `put` returns, before
any verdict leaves. Never here: a mark that is looked up, an exception because of a packet.

The structures are those of netfilter/stage1/structures.h, the order of a flow's two ends in the key is program.c's.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from edgeblock.core.engine cimport MARK_HTTP
from edgeblock.core.packet cimport PACKET_TCP, PACKET_UDP, Packet, view_packet
from edgeblock.netfilter.stage1.structures cimport FlowMark, Key
from edgeblock.source.recall cimport Attributes

from edgeblock.netfilter.stage1 import bpf
from edgeblock.netfilter.stage1.structures import SIZES

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef enum:
    MAP_LOOKUP = 1
    MAP_UPDATE = 2


cdef class Marking:
    """The map, which stays the caller's.

    Attributes:
        failed: marks that could not be set.

    Raises:
        SystemProblem: the map is another program's, or of another edgeblock.
    """

    def __init__(self, int marks):
        bpf.check_map(marks, "marks", SIZES["marks"])
        self.marks = marks
        self.number = bpf.call_number()

    cdef bint put(self, const Packet* p, uint8_t what) noexcept nogil:
        """Whether that packet's flow has the mark now."""
        cdef Key key
        cdef FlowMark mark
        cdef Attributes call
        cdef timespec clock
        cdef uint64_t[2] a, b
        cdef uint16_t a_port = <uint16_t>(p.source_port >> 8 | p.source_port << 8)
        cdef uint16_t b_port = <uint16_t>(p.destination_port >> 8 | p.destination_port << 8)
        cdef bint turned
        if p.kind != PACKET_TCP and p.kind != PACKET_UDP:
            self.failed += 1
            return False
        memset(&key, 0, sizeof(key))
        memcpy(a, p.source, 16)
        memcpy(b, p.destination, 16)
        if a[0] != b[0]:
            turned = a[0] < b[0]
        elif a[1] != b[1]:
            turned = a[1] < b[1]
        else:
            turned = a_port < b_port
        if turned:
            memcpy(key.source, p.destination, 16)
            memcpy(key.destination, p.source, 16)
        else:
            memcpy(key.source, p.source, 16)
            memcpy(key.destination, p.destination, 16)
        key.source_port = b_port if turned else a_port
        key.destination_port = a_port if turned else b_port
        key.family = p.family | <uint32_t>p.protocol << 8
        memset(&call, 0, sizeof(call))
        call.map_fd = <uint32_t>self.marks
        call.key = <uint64_t><size_t>&key
        call.value = <uint64_t><size_t>&mark
        # What the programs know of the connection stays. They may write meanwhile, so what every request asks for is
        # not written again.
        if syscall(self.number, MAP_LOOKUP, &call, sizeof(call)) != 0:
            memset(&mark, 0, sizeof(mark))
        elif mark.what == what and what == MARK_HTTP:
            return True
        clock_gettime(CLOCK_MONOTONIC, &clock)
        mark.touched = <uint64_t>clock.tv_sec * 1000000000 + <uint64_t>clock.tv_nsec
        mark.what = what
        if syscall(self.number, MAP_UPDATE, &call, sizeof(call)) != 0:
            self.failed += 1
            return False
        return True

    def mark(self, bytes packet not None, uint8_t what):
        """`put` for tests."""
        cdef Packet p
        view_packet(packet, len(packet), &p)
        return bool(self.put(&p, what))
