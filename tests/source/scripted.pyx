"""An engine that does what the packet says, so that the queue can be tested without any protocol.

The first bytes of a UDP payload are the script: accept (0 or 1), a Mark, and whether Python is to hear of it; a
first byte of 255 ends the process.
"""

from libc.stdint cimport uint8_t, uint32_t

from libc.stdlib cimport abort

from edgeblock.core.decision import Decision as Record
from edgeblock.core.engine cimport Decision, Engine


cdef class Scripted(Engine):

    cdef int judge_packet(self, const uint8_t* data, size_t size, double now, uint32_t flags,
                          Decision* out) noexcept nogil:
        cdef size_t start = (data[0] & 15) * 4 + 8 if data[0] >> 4 == 4 else 48
        Engine.judge_packet(self, data, size, now, flags, out)
        if size >= start + 3 and data[9 if data[0] >> 4 == 4 else 6] == 17:
            if data[start] == 255:
                abort()
            out.accept = data[start]
            out.mark = data[start + 1]
            out.names = data[start + 2]
        return 0

    cdef object decision(self, const Decision* made):
        return Record(accept=bool(made.accept))
