# The packet that a reader has in its hand, and the flows whose packets have ended one, in memory that outlives it.
#
# In: each packet, before anything else looks into it. Out: whether its flow is condemned. `take_up` is on the path of
# every packet: some stores into memory that stays in the cache, no call, no hash.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    KEY_WORDS = 5
    # Each of these flows has ended a worker, and a worker takes 50 ms to be replaced: most of two minutes of that.
    # One more, and the first is forgotten: its next packet ends one more worker, and is condemned again.
    CONDEMNED = 256

cdef struct Condemned:
    uint64_t key[KEY_WORDS]
    double until               # CLOCK_MONOTONIC seconds
    uint64_t certain           # 0: the reader may have ended for another reason; once more, and it is the flow

cdef struct Hand:
    uint64_t serial            # of the packet, times two, plus one while it is in the hand: it also shows progress
    uint64_t key[KEY_WORDS]    # family, protocol and ports; the addresses. No port where they are not found
    uint64_t count             # of `condemned` that are in use
    uint64_t next              # place of the next one
    Condemned condemned[CONDEMNED]

cdef enum:
    HAND_WORDS = 1 + KEY_WORDS + 2 + CONDEMNED * (KEY_WORDS + 2)

cdef bint is_condemned(Hand* hand, double now) noexcept nogil
cdef bint take_up_odd(Hand* hand, const uint8_t* data, size_t size, double now) noexcept nogil
# The packet in the hand has ended its reader, or (not `certain`) may have. Whether its flow is condemned by that.
cdef bint condemn(Hand* hand, bint certain, double now, double seconds) noexcept nogil


cdef inline bint take_up(Hand* hand, const uint8_t* data, size_t size, double now) noexcept nogil:
    cdef uint64_t* key = hand.key
    (<volatile uint64_t*>&hand.serial)[0] = (hand.serial + 2) | 1
    if size >= 24 and data[0] == 0x45 and (data[9] == 6 or data[9] == 17) and not (data[6] & 0x3F or data[7]):
        key[0] = 4 | <uint64_t>data[9] << 8
        memcpy(<uint8_t*>key + 4, data + 20, 4)
        memcpy(key + 1, data + 12, 8)
        key[2] = key[3] = key[4] = 0
    elif size >= 44 and data[0] >> 4 == 6 and (data[6] == 6 or data[6] == 17):
        key[0] = 6 | <uint64_t>data[6] << 8
        memcpy(<uint8_t*>key + 4, data + 40, 4)
        memcpy(key + 1, data + 8, 32)
    else:
        return take_up_odd(hand, data, size, now)
    return hand.count and is_condemned(hand, now)


cdef inline void lay_down(Hand* hand) noexcept nogil:
    (<volatile uint64_t*>&hand.serial)[0] = hand.serial & ~<uint64_t>1


cdef inline void take_again(Hand* hand) noexcept nogil:
    (<volatile uint64_t*>&hand.serial)[0] = hand.serial | 1
