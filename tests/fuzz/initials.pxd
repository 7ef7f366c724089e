# QUIC for the fuzzer: two games with datagrams of Initials that really open, whatever is inside them.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from edgeblock.core.engine cimport Engine

cdef void play_initials(const uint8_t* data, size_t size) noexcept nogil            # the reader alone
cdef void play_hidden(Engine e, const uint8_t* data, size_t size) noexcept nogil    # the engine, and a listed name
