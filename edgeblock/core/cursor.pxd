# The only place where a pointer into a packet moves.
#
# In: a pointer and a size. Out: bytes and big-endian integers, each after a check that it is there. A function
# that fails leaves the cursor where it was. A nested length makes a nested cursor (`nested`), clamped to its
# parent, so that a child can never read a neighbour's bytes. No Python object, no exception, no allocation.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Cursor:
    const uint8_t* at      # next byte
    const uint8_t* end     # one past the last byte


cdef inline Cursor cursor(const uint8_t* data, size_t size) noexcept nogil:
    cdef Cursor c
    c.at = data
    c.end = data + size
    return c


cdef inline size_t left(const Cursor* c) noexcept nogil:
    return <size_t>(c.end - c.at)


cdef inline bint take(Cursor* c, size_t size, const uint8_t** out) noexcept nogil:
    # `size` bytes, not copied.
    if left(c) < size:
        return False
    out[0] = c.at
    c.at += size
    return True


cdef inline bint skip(Cursor* c, size_t size) noexcept nogil:
    if left(c) < size:
        return False
    c.at += size
    return True


cdef inline bint nested(Cursor* c, size_t size, Cursor* child) noexcept nogil:
    # The next `size` bytes as a cursor of their own; the parent moves past them.
    if left(c) < size:
        return False
    child.at = c.at
    child.end = c.at + size
    c.at += size
    return True


cdef inline bint take_u8(Cursor* c, uint8_t* out) noexcept nogil:
    if c.at == c.end:
        return False
    out[0] = c.at[0]
    c.at += 1
    return True


cdef inline bint take_u16(Cursor* c, uint16_t* out) noexcept nogil:
    if left(c) < 2:
        return False
    out[0] = <uint16_t>((<uint32_t>c.at[0] << 8) | c.at[1])
    c.at += 2
    return True


cdef inline bint take_u24(Cursor* c, uint32_t* out) noexcept nogil:
    if left(c) < 3:
        return False
    out[0] = (<uint32_t>c.at[0] << 16) | (<uint32_t>c.at[1] << 8) | c.at[2]
    c.at += 3
    return True


cdef inline bint take_u32(Cursor* c, uint32_t* out) noexcept nogil:
    if left(c) < 4:
        return False
    out[0] = (<uint32_t>c.at[0] << 24) | (<uint32_t>c.at[1] << 16) | (<uint32_t>c.at[2] << 8) | c.at[3]
    c.at += 4
    return True


cdef inline bint take_varint(Cursor* c, uint64_t* out) noexcept nogil:
    # RFC 9000, section 16.
    cdef size_t size, i
    cdef uint64_t value
    if c.at == c.end:
        return False
    size = <size_t>1 << (c.at[0] >> 6)
    if left(c) < size:
        return False
    value = c.at[0] & 0x3F
    for i in range(1, size):
        value = (value << 8) | c.at[i]
    c.at += size
    out[0] = value
    return True
