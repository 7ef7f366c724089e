"""International labels: from the bytes of one label, as sent or listed, to the A-label that is compared.

In: UTF-8, or where it is none Latin-1, which some servers take header lines for. Out: ASCII. The rules are those of
browsers: UTS 46 without transitional processing and without the hyphen rules, NFC, Punycode (RFC 3492). The tables
are compiled in (`international_tables`). What never happens here: Python, memory that grows, more than linear work
but within one label of 59 characters.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    int __builtin_popcountll(unsigned long long)

cdef extern from "international_tables.h" nogil:
    const uint16_t* WIDE_STAGE1
    const uint32_t* WIDE_STAGE2
    const uint32_t* WIDE_POOL
    const uint32_t* WIDE_FIRST
    const uint32_t* WIDE_SECOND
    const uint32_t* WIDE_COMPOSED
    const uint64_t* INVERSES
    const uint8_t* BIASES

cdef enum:
    SECOND = 1 << 23        # as in international_tables
    SELF = 1 << 21
    MAPPED = 2 << 21
    CODED_MAX = 59          # of 63 bytes "xn--" has four

cdef struct Label:
    uint32_t codes[LABEL_CODES]       # canonical combining class << 24 | code point
    uint32_t count
    uint32_t seconds                  # SECOND is set where something in it may compose


cdef inline uint32_t take_code(const uint8_t* text, size_t size, size_t* at) noexcept nogil:
    # RFC 3629: the code point above 0x7F at `at`, which moves on; 0x110000, and `at` stays, where there is none.
    cdef const uint8_t* p = text + at[0]
    cdef size_t room = size - at[0]
    cdef uint32_t code = p[0]
    if room < 2 or p[1] & 0xC0 != 0x80:
        return 0x110000
    if 0xC2 <= code and code < 0xE0:
        at[0] += 2
        return (code & 0x1F) << 6 | (p[1] & 0x3F)
    if room < 3 or p[2] & 0xC0 != 0x80:
        return 0x110000
    if code & 0xF0 == 0xE0:
        code = (code & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F)
        if code < 0x800 or code >> 11 == 0xD800 >> 11:
            return 0x110000
        at[0] += 3
        return code
    if room < 4 or p[3] & 0xC0 != 0x80 or code & 0xF8 != 0xF0:
        return 0x110000
    code = (code & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F)
    if code < 0x10000 or code > 0x10FFFF:
        return 0x110000
    at[0] += 4
    return code


cdef uint32_t compose(uint32_t first, uint32_t second) noexcept nogil:
    # The one code point that stands for both in NFC, or 0. Hangul as in Unicode, section 3.12.
    cdef uint32_t at
    if first - 0x1100 < 19 and second - 0x1161 < 21:
        return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28
    if first - 0xAC00 < 11172 and (first - 0xAC00) % 28 == 0 and second - 0x11A8 < 27:
        return first + second - 0x11A7
    at = (first * <uint32_t>0x9E3779B1 + second * <uint32_t>0x85EBCA6B) >> 20
    while WIDE_COMPOSED[at]:
        if WIDE_FIRST[at] == first and WIDE_SECOND[at] == second:
            return WIDE_COMPOSED[at]
        at = (at + 1) & 4095
    return 0


cdef bint normalize(Label* label) noexcept nogil:
    # UAX 15: what is decomposed is put in order and composed. False with more marks in a row than any name has.
    cdef uint32_t i, k, made = 0, marks = 0, code, composed, kind
    cdef int32_t starter = -1, last = -1
    for i in range(label.count):
        code = label.codes[i]
        if code < 1 << 24:
            marks = 0
            continue
        marks += 1
        if marks > MARKS_MAX:
            return False
        k = i
        while k and label.codes[k - 1] >> 24 > code >> 24:
            label.codes[k] = label.codes[k - 1]
            k -= 1
        label.codes[k] = code
    for i in range(label.count):
        code = label.codes[i]
        kind = code >> 24
        if starter >= 0 and last < <int32_t>kind:
            composed = compose(label.codes[starter], code & 0xFFFFFF)
            if composed:
                label.codes[starter] = composed
                continue
        if kind == 0:
            starter = <int32_t>made
            last = -1
        else:
            last = <int32_t>kind
        label.codes[made] = code & 0xFFFFFF
        made += 1
    label.count = made
    return True


cdef inline uint32_t divide(uint32_t number, uint32_t by) noexcept nogil:
    # By at most 64: the divider of the processor takes longer than all the rest. Right below 2**34 / 64.
    return <uint32_t>(<uint64_t>number * INVERSES[by] >> 40)


cdef inline uint8_t coded_digit(uint32_t value) noexcept nogil:
    return <uint8_t>(value + 97 if value < 26 else value + 22)    # a-z, 0-9


cdef inline uint64_t between(uint32_t first, uint32_t end) noexcept nogil:
    # The bits of the places first to end - 1; neither is more than 59.
    return (<uint64_t>1 << end) - (<uint64_t>1 << first)


cdef Py_ssize_t put_punycode(const uint32_t* codes, uint32_t size, uint8_t* out) noexcept nogil:
    # RFC 3492 section 6.3, stopping as soon as the result is too long (-1). The characters are sorted once, and those
    # that a step counts are bits: the procedure of the RFC looks at all of them for each.
    cdef uint64_t order[CODED_MAX]      # code point << 8 | place
    cdef uint64_t item, placed = 0
    cdef uint32_t code = 128, delta = 0, bias = 72, q, k, t, rest, i, wide = 0, basic, done, place, start = 0, at
    cdef Py_ssize_t used = 0
    if size > CODED_MAX:
        return -1
    for i in range(size):
        if codes[i] < 128:
            out[used] = <uint8_t>codes[i]
            used += 1
            placed |= <uint64_t>1 << i
            continue
        item = <uint64_t>codes[i] << 8 | i
        at = wide
        while at and order[at - 1] > item:
            order[at] = order[at - 1]
            at -= 1
        order[at] = item
        wide += 1
    done = basic = size - wide
    if basic:
        if used == CODED_MAX:
            return -1
        out[used] = 45
        used += 1
    for i in range(wide):
        place = <uint32_t>(order[i] & 0xFF)
        if <uint32_t>(order[i] >> 8) != code or i == 0:
            if i:                       # what of the smaller ones is behind the last place; then the next code point
                delta += <uint32_t>__builtin_popcountll(placed & between(start, size)) + 1
                code += 1
            delta += (<uint32_t>(order[i] >> 8) - code) * (done + 1)
            code = <uint32_t>(order[i] >> 8)
            start = 0
        delta += <uint32_t>__builtin_popcountll(placed & between(start, place))
        placed |= <uint64_t>1 << place
        start = place + 1
        q = delta
        k = 36
        while True:
            t = 1 if k <= bias else (26 if k >= bias + 26 else k - bias)
            if used == CODED_MAX:
                return -1
            if q < t:
                break
            rest = divide(q - t, 36 - t)
            out[used] = coded_digit(q - rest * (36 - t))
            used += 1
            q = rest
            k += 36
        out[used] = coded_digit(q)
        used += 1
        delta = delta // 700 if done == basic else delta >> 1
        done += 1
        delta += divide(delta, done)
        bias = 0
        while delta > 455:
            delta //= 35
            bias += 36
        bias += BIASES[delta]
        delta = 0
    return used


cdef inline void keep(Label* label, uint32_t code) noexcept nogil:
    # With its class, and with SECOND; of what goes beyond the room only the number is kept.
    if label.count < LABEL_CODES:
        label.codes[label.count] = code & ~<uint32_t>SECOND
        label.seconds |= code
    label.count += 1


cdef bint take_label(const uint8_t* text, size_t size, bint utf8, Label* label, uint8_t* flaw) noexcept nogil:
    # Mapped and decomposed; False, with a flaw, where it is none or has too much in it.
    cdef size_t at = 0
    cdef uint32_t code, entry, i
    label.count = 0
    label.seconds = 0
    while at < size:
        code = text[at]
        if utf8 and code >= 0x80:
            code = take_code(text, size, &at)
            if code == 0x110000:
                flaw[0] = NOT_UTF8
                return False
        else:
            at += 1
        entry = WIDE_STAGE2[<uint32_t>WIDE_STAGE1[code >> 7] << 7 | (code & 127)]
        if entry & SELF:
            keep(label, (entry >> 23) << 23 | code)
        elif entry & MAPPED:
            for i in range(entry & 0xFFFF, (entry & 0xFFFF) + (entry >> 16 & 31)):
                keep(label, WIDE_POOL[i])
        else:
            flaw[0] = DISALLOWED
            return False
    if label.count > LABEL_CODES:
        flaw[0] = TOO_LONG
        return False
    return True


cdef Py_ssize_t put_label(const uint8_t* text, size_t size, uint8_t* out, uint8_t* flaw) noexcept nogil:
    cdef Label label
    cdef uint32_t i
    cdef Py_ssize_t used
    cdef uint8_t worse = NO_FLAW
    flaw[0] = NO_FLAW
    if not take_label(text, size, True, &label, flaw):
        if flaw[0] != NOT_UTF8 or not take_label(text, size, False, &label, &worse):
            return -1
    if label.seconds & SECOND and not normalize(&label):
        flaw[0] = DISALLOWED
        return -1
    for i in range(label.count):
        if label.codes[i] >= 128:
            break
        out[i] = <uint8_t>label.codes[i]
    else:
        return <Py_ssize_t>label.count
    if label.count >= 4 and label.codes[0] == 120 and label.codes[1] == 110 and label.codes[2] == 45 \
            and label.codes[3] == 45:
        flaw[0] = DISALLOWED            # UTS 46 section 4: no U-label begins with xn--
    used = put_punycode(label.codes, label.count, out + 4)
    if used < 0:
        flaw[0] = TOO_LONG
        return -1
    out[0] = 120
    out[1] = 110
    out[2] = 45
    out[3] = 45
    return used + 4
