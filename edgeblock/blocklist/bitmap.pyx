"""A roaring bitmap in its portable serialised form, searched where it lies (see the .pxd)."""


cdef extern from *:
    void prefetch "__builtin_prefetch" (const void* at) noexcept nogil


cdef inline bint is_run(const Bitmap* bitmap, uint32_t i) noexcept nogil:
    return bitmap.runs != NULL and bitmap.runs[i >> 3] >> (i & 7) & 1


cdef inline uint32_t offset_of(const Bitmap* bitmap, uint32_t i) noexcept nogil:
    return bitmap.few[i] if bitmap.offsets == NULL else load_u32(bitmap.offsets + 4 * i)


cdef bint open_bitmap(const uint8_t* data, size_t size, Bitmap* out) noexcept nogil:
    # Returns whether every byte that `contains` may read is there.
    cdef size_t at = 4, length
    cdef uint32_t cookie, i, cardinality
    cdef int key, last = -1
    out.data = data
    out.runs = NULL
    out.offsets = NULL
    if size < 8:
        return False
    cookie = load_u32(data)
    if cookie == COOKIE_PLAIN:
        out.containers = load_u32(data + 4)
        at = 8
    elif cookie & 0xFFFF == COOKIE_RUNS:
        out.containers = (cookie >> 16) + 1
        out.runs = data + at
        at += (out.containers + 7) // 8
    else:
        return False
    if out.containers > 65536 or at > size or size - at < <size_t>4 * out.containers:
        return False
    out.keys = data + at
    at += <size_t>4 * out.containers
    if out.runs == NULL or out.containers >= NO_OFFSETS:
        if size - at < <size_t>4 * out.containers:
            return False
        out.offsets = data + at
        at += <size_t>4 * out.containers
    for i in range(out.containers):
        key = load_u16(out.keys + 4 * i)
        if key <= last:
            return False
        last = key
        if out.offsets == NULL:
            out.few[i] = <uint32_t>at
        at = offset_of(out, i)
        if at > size:
            return False
        cardinality = <uint32_t>load_u16(out.keys + 4 * i + 2) + 1
        if is_run(out, i):
            if size - at < 2:
                return False
            length = 2 + <size_t>4 * load_u16(data + at)
        elif cardinality > ARRAY_MAX:
            length = BITSET_SIZE
        else:
            length = 2 * cardinality
        if size - at < length:
            return False
        at += length
    return True


cdef void warm_header(const Bitmap* bitmap, uint32_t value) noexcept nogil:
    cdef size_t guess = 4 * <size_t>((<unsigned long long>(value >> 16) * bitmap.containers) >> 16)
    prefetch(bitmap.keys + guess)
    if bitmap.offsets != NULL:
        prefetch(bitmap.offsets + guess)


cdef void warm_container(const Bitmap* bitmap, uint32_t value) noexcept nogil:
    cdef uint32_t low = value & 0xFFFF, guess
    if bitmap.containers == 0 or bitmap.offsets == NULL:
        return
    guess = <uint32_t>((<unsigned long long>(value >> 16) * bitmap.containers) >> 16)
    prefetch(bitmap.data + load_u32(bitmap.offsets + 4 * guess)
             + 2 * ((low * (<uint32_t>load_u16(bitmap.keys + 4 * guess + 2) + 1)) >> 16))


cdef bint contains(const Bitmap* bitmap, uint32_t value) noexcept nogil:
    cdef uint32_t high = value >> 16, low = value & 0xFFFF
    cdef uint32_t first = 0, last = bitmap.containers, middle, count, step = 8
    cdef const uint8_t* at
    if last == 0:
        return False
    # Keyed hashes fill all containers alike, so the container is nearly always the first one looked at.
    middle = <uint32_t>((<unsigned long long>high * last) >> 16)
    while True:
        count = load_u16(bitmap.keys + 4 * middle)
        if count == high:
            break
        if count < high:
            first = middle + 1
        else:
            last = middle
        if first >= last:
            return False
        middle = (first + last) >> 1
    at = bitmap.data + offset_of(bitmap, middle)
    count = <uint32_t>load_u16(bitmap.keys + 4 * middle + 2) + 1
    if is_run(bitmap, middle):
        # Pairs of start and length - 1: the last one that starts at or before `low`.
        first = 0
        last = load_u16(at)
        at += 2
        while first < last:
            middle = (first + last) >> 1
            if load_u16(at + 4 * middle) <= low:
                first = middle + 1
            else:
                last = middle
        return first != 0 and low - load_u16(at + 4 * (first - 1)) <= load_u16(at + 4 * (first - 1) + 2)
    if count > ARRAY_MAX:
        return at[low >> 3] >> (low & 7) & 1
    # Hashes are spread evenly, so the search begins where the value ought to be and widens from there.
    middle = (low * count) >> 16
    first = 0
    last = count
    if load_u16(at + 2 * middle) < low:
        first = middle + 1
        while last - first > step:
            if load_u16(at + 2 * (first + step)) >= low:
                last = first + step + 1
                break
            first += step + 1
            step <<= 1
    else:
        last = middle + 1
        while last > step:
            if load_u16(at + 2 * (last - step)) <= low:
                first = last - step
                break
            last -= step
            step <<= 1
    while first < last:
        middle = (first + last) >> 1
        if load_u16(at + 2 * middle) < low:
            first = middle + 1
        else:
            last = middle
    return first < count and load_u16(at + 2 * first) == low


cdef class BitmapView:
    """A serialised roaring bitmap as a read-only container; the Python door to the search in place.

    Raises:
        ValueError: the bytes are no bitmap in the portable format, or end too early.
    """

    cdef const uint8_t[::1] data
    cdef Bitmap bitmap

    def __init__(self, const uint8_t[::1] data):
        self.data = data
        if data.shape[0] == 0 or not open_bitmap(&data[0], data.shape[0], &self.bitmap):
            raise ValueError("no roaring bitmap in the portable format")

    def __contains__(self, uint32_t value):
        return contains(&self.bitmap, value)
