# A roaring bitmap in its portable serialised form, searched where it lies.
#
# In: bytes as pyroaring's `serialize` writes them (github.com/RoaringBitmap/RoaringFormatSpec). Out: is a value
# in it. `open_bitmap` checks every container against the end of the bytes, so that no look-up can read outside;
# a look-up copies nothing and allocates nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    COOKIE_PLAIN = 12346    # no run containers; the count follows
    COOKIE_RUNS = 12347     # the count - 1 is in the upper half; a bit for each container follows
    NO_OFFSETS = 4          # with runs and fewer containers than this, offsets are left out
    ARRAY_MAX = 4096        # a container of more values is a bitset
    BITSET_SIZE = 8192

cdef struct Bitmap:
    const uint8_t* data
    const uint8_t* runs         # bit i: container i is runs; NULL: none is
    const uint8_t* keys         # for each container: upper 16 bits of its values, its size - 1
    const uint8_t* offsets      # for each container: where it begins in `data`; NULL: see `few`
    uint32_t containers
    uint32_t few[NO_OFFSETS]

cdef bint open_bitmap(const uint8_t* data, size_t size, Bitmap* out) noexcept nogil
cdef void warm_header(const Bitmap* bitmap, uint32_t value) noexcept nogil
cdef void warm_container(const Bitmap* bitmap, uint32_t value) noexcept nogil
cdef bint contains(const Bitmap* bitmap, uint32_t value) noexcept nogil


cdef inline uint16_t load_u16(const uint8_t* at) noexcept nogil:
    # Little-endian, at any address.
    return <uint16_t>(at[0] | <uint32_t>at[1] << 8)


cdef inline uint32_t load_u32(const uint8_t* at) noexcept nogil:
    return load_u16(at) | <uint32_t>load_u16(at + 2) << 16
