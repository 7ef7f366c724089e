"""Which packet a reader was judging when it ended, and which flows are refused for that.

In: the key of each packet's flow before it is judged (inhand.pxd), and, from the next reader, how the one before
ended. Out: flows whose packets are not judged again for a time. Never here: a name, a payload, a decision on anything
but these flows: a packet in the same batch is no reason to refuse its flow.

The key is read without the engine, since that may be what fails. Where addresses and ports do not stand where
they usually do (options, extension headers, fragments) the key has no ports first, then those that the engine's
reader of headers finds: a packet that ends a reader there condemns such packets between the two addresses.
"""

from libc.string cimport memcmp, memset

from edgeblock.core.packet cimport PACKET_TCP, PACKET_UDP, Packet, view_packet


cdef bint take_up_odd(Hand* hand, const uint8_t* data, size_t size, double now) noexcept nogil:
    cdef uint64_t* key = hand.key
    cdef Packet seen
    memset(key, 0, sizeof(hand.key))
    if size >= 40 and data[0] >> 4 == 6:
        key[0] = 6 | <uint64_t>data[6] << 8
        memcpy(key + 1, data + 8, 32)
    elif size >= 20:
        key[0] = 4 | <uint64_t>data[9] << 8
        memcpy(key + 1, data + 12, 8)
    if hand.count and is_condemned(hand, now):
        return True
    view_packet(data, size, &seen)
    if seen.kind != PACKET_TCP and seen.kind != PACKET_UDP:
        return False
    key[0] = seen.family | <uint64_t>seen.protocol << 8
    memcpy(<uint8_t*>key + 4, seen.segment, 4)
    return hand.count and is_condemned(hand, now)


cdef bint is_condemned(Hand* hand, double now) noexcept nogil:
    cdef const Condemned* one
    cdef bint any_left = False
    cdef uint64_t i
    for i in range(hand.count):
        one = &hand.condemned[i]
        if one.until <= now:
            continue
        any_left = True
        if one.certain and memcmp(one.key, hand.key, sizeof(hand.key)) == 0:
            return True
    if not any_left:
        hand.count = hand.next = 0
    return False


cdef bint condemn(Hand* hand, bint certain, double now, double seconds) noexcept nogil:
    cdef Condemned* one
    cdef uint64_t i
    if not hand.serial & 1:
        return False
    lay_down(hand)
    for i in range(hand.count):
        one = &hand.condemned[i]
        if one.until > now and memcmp(one.key, hand.key, sizeof(hand.key)) == 0:
            one.until = now + seconds
            if one.certain:
                return False
            one.certain = 1
            return True
    one = &hand.condemned[hand.next]
    memcpy(one.key, hand.key, sizeof(hand.key))
    one.until = now + seconds
    one.certain = certain
    hand.next = (hand.next + 1) % CONDEMNED
    if hand.count < CONDEMNED:
        hand.count += 1
    return certain
