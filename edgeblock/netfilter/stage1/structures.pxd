# structures.h for the compiled modules: what the programs in the kernel and user space share.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "structures.h":
    enum:
        HELLO_MAX
        PIECES
        SYNS
        NEAR
        STARTS

    struct Key "key":
        uint8_t source[16]
        uint8_t destination[16]
        uint16_t source_port
        uint16_t destination_port
        uint32_t family

    struct PassedSyn "passed":
        uint32_t isn
        uint32_t serial
        uint32_t place
        uint16_t size
        uint16_t after

    struct Remembered "flow":
        uint32_t head
        uint32_t count
        uint64_t touched
        uint64_t handed
        PassedSyn* passed          # SYNS of them
        uint32_t tail
        uint32_t part

    struct Hello "hello":
        uint32_t serial
        uint32_t isn
        Key key
        uint16_t size
        uint16_t* cuts             # PIECES - 1
        uint8_t* data              # HELLO_MAX, and CHUNK

    const uint32_t CLAIMED
    uint32_t place_of_part(const Key* key, uint64_t secret, uint32_t all) nogil

    struct FlowMark "mark":
        uint64_t touched
        uint32_t what
