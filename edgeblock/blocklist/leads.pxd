# An address among the keys: as a number, the prefixes that it is in, and the IPv4 address that an IPv6 one leads to.
#
# In: an address in network order. Out: what formats.network_key makes of a prefix; the inner address.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

cdef enum:
    KEY_MAX = 20            # bytes of an address and a port among the keys

cdef struct Lead:           # IPv6 addresses below a prefix lead to IPv4 ones
    uint8_t prefix[16]
    uint32_t length
    uint32_t at             # from which bit on the IPv4 address is in them
    uint8_t flip            # what each of its bytes is combined with


cdef inline uint64_t load(const uint8_t* at, int size) noexcept nogil:
    # Up to 8 bytes of an address as a number.
    cdef uint64_t made = 0
    cdef int i
    for i in range(size):
        made = made << 8 | at[i]
    return made


cdef inline void put_prefix(uint8_t* key, const uint8_t* address, size_t size, uint32_t length) noexcept nogil:
    # Key of the prefix that an address is in (formats.network_key): 2 + size bytes.
    cdef size_t i
    key[0] = 0
    key[1] = <uint8_t>length
    for i in range(size):
        if 8 * i + 8 <= length:
            key[2 + i] = address[i]
        elif 8 * i >= length:
            key[2 + i] = 0
        else:
            key[2 + i] = address[i] & <uint8_t>(0xFF00 >> (length & 7))


cdef inline bint read_inner(const Lead* lead, const uint8_t* address, uint8_t* inner) noexcept nogil:
    # The IPv4 address in an IPv6 one, where that begins with the prefix. RFC 6052, 2.2: byte 8 is in none.
    cdef uint32_t whole = lead.length >> 3, i, at = lead.at >> 3
    if memcmp(address, lead.prefix, whole) != 0:
        return False
    if lead.length & 7 and (address[whole] ^ lead.prefix[whole]) & <uint8_t>(0xFF00 >> (lead.length & 7)):
        return False
    for i in range(4):
        at += at == 8
        inner[i] = address[at] ^ lead.flip
        at += 1
    return True
