"""Header blocks of HTTP/2: the hosts, paths and method of each, and the table that later blocks refer to.

Comes in: fragments of header blocks, in order, cut anywhere. Goes out: of each block what a request is looked up by.
Never here: a byte looked at twice, a block that hides the next ones, memory for what nobody looks up. Where a decoder
may differ from another the lenient side is taken: a size update stands anywhere (nginx takes one in the middle of a
block), strings have any length, padding is what is left of a string. What no decoder takes leaves the rest of its
block unread and the table as it stood, and the next block is read.
Sources: RFC 7541; RFC 9113, 8.3.1; docs/decisions.md says why this is no library's.
"""

from libc.stdint cimport uint16_t
from libc.string cimport memcmp, memcpy, memmove, memset

from edgeblock.core.cursor cimport Cursor, cursor, left, take, take_u8
from edgeblock.core.text cimport append, digest_bytes, digest_text, digest_word, duplicate, release, same_text

cdef enum Phase:
    PHASE_FIRST = 0            # the first byte of a representation
    PHASE_NUMBER               # the rest of its integer
    PHASE_STRING               # the first byte of a string
    PHASE_STRING_SIZE          # the rest of its length
    PHASE_BYTES

cdef enum Form:
    FORM_INDEXED = 0
    FORM_ADDED                 # literal, to be added to the table
    FORM_LITERAL
    FORM_SIZE

cdef extern from *:
    unsigned int clz "__builtin_clz"(unsigned int bits) nogil

cdef enum:
    STATIC = 61
    INDEX_AUTHORITY = 1
    INDEX_GET = 2
    INDEX_POST = 3
    INDEX_PATH = 4
    INDEX_PATH_INDEX = 5
    INDEX_HOST = 38
    INDEX_STATUS_LAST = 14     # 6 to 14: scheme and status
    ENTRY_COST = 32            # RFC 7541, 4.1
    MAX_SHIFT = 56             # Go takes integers of ten bytes; their value is bounded apart
    LONGEST_CODE = 30
    END_OF_STRING = 256
    FIELD_COST = 10            # work of a representation, in bytes of plain text,
    STRING_COST = 4            # of a string apart from its bytes,
    ENTRY_WORK = 20            # of an entry that is added,
    HUFFMAN_COST = 5           # and of a byte of Huffman's code

# RFC 7541, appendix A: how long the names are. Which of them count, `_static_field` says.
cdef uint8_t[STATIC + 1] STATIC_NAMES = [
    0, 10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6,
    4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16]

# RFC 7541, appendix B: the length of each symbol's code, 256 last. The codes follow from them: among those of one
# length they rise with the symbol, and a longer one goes on where the shorter ones ended.
CODE_LENGTHS = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22,
    20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23,
    23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22,
    22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26,
    27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27,
    26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30))

cdef uint16_t[END_OF_STRING + 1] SYMBOLS            # in the order of their codes
cdef uint32_t[LONGEST_CODE + 1] FIRST_CODE          # of each length,
cdef uint16_t[LONGEST_CODE + 1] FIRST_SYMBOL        # where its symbols begin in SYMBOLS,
cdef uint16_t[LONGEST_CODE + 1] CODES               # and how many there are
cdef uint8_t[33] SHORTEST                           # by the ones at the front, the shortest code with so many
cdef uint8_t[256] SHORT_SYMBOL                      # by the next eight bits,
cdef uint8_t[256] SHORT_SIZE                        # the length of the code that they begin with; 0: more than eight


cdef void _make_codes():
    cdef uint32_t code = 0, place = 0, length, symbol, i, ones
    for length in range(1, LONGEST_CODE + 1):
        code <<= 1
        FIRST_CODE[length] = code
        FIRST_SYMBOL[length] = <uint16_t>place
        for symbol in range(END_OF_STRING + 1):
            if <uint32_t>CODE_LENGTHS[symbol] != length:
                continue
            SYMBOLS[place] = <uint16_t>symbol
            if length <= 8:
                for i in range(code << (8 - length), (code + 1) << (8 - length)):
                    SHORT_SYMBOL[i] = <uint8_t>symbol
                    SHORT_SIZE[i] = <uint8_t>length
            ones = clz(~(code << (32 - length)))
            if SHORTEST[ones] == 0:
                SHORTEST[ones] = <uint8_t>length
            place += 1
            code += 1
        CODES[length] = <uint16_t>(place - FIRST_SYMBOL[length])
    for ones in range(1, 33):           # with some of them still to come, as with those before
        SHORTEST[ones] = SHORTEST[ones] or LONGEST_CODE
    for ones in range(32, 0, -1):
        SHORTEST[ones - 1] = min(SHORTEST[ones - 1], SHORTEST[ones])


_make_codes()


# ---- the block


cdef void begin_block(Hpack* h) noexcept nogil:
    h.phase = PHASE_FIRST
    h.broken = h.unresolved = h.crowded = h.pseudo = h.method = h.head = h.connect = 0
    h.host_count = h.path_count = 0
    h.hosts.size = h.paths.size = 0


cdef void end_block(Hpack* h) noexcept nogil:
    if h.phase != PHASE_FIRST:
        h.broken = 1                    # it ends within a representation
    h.phase = PHASE_FIRST
    h.value.size = 0
    h.blocks += 1


cdef void read_fragment(Hpack* h, Cursor* c) noexcept nogil:
    cdef uint8_t b = 0
    cdef bint whole
    while left(c):
        if h.broken:
            c.at = c.end
            return
        if h.phase == PHASE_BYTES:
            _read_string(h, c)
            continue
        take_u8(c, &b)
        if h.phase == PHASE_FIRST:
            if b & 0x80:
                h.form = FORM_INDEXED
                whole = _begin_number(h, b, 7)
            elif b & 0x40:
                h.form = FORM_ADDED
                whole = _begin_number(h, b, 6)
            elif b & 0x20:
                h.form = FORM_SIZE
                whole = _begin_number(h, b, 5)
            else:
                h.form = FORM_LITERAL
                whole = _begin_number(h, b, 4)
            if whole:
                _have_number(h)
            else:
                h.phase = PHASE_NUMBER
        elif h.phase == PHASE_STRING:
            h.huffman = b >> 7
            if _begin_number(h, b, 7):
                _begin_string(h)
            else:
                h.phase = PHASE_STRING_SIZE
        elif _add_to_number(h, b):
            if h.phase == PHASE_NUMBER:
                _have_number(h)
            else:
                _begin_string(h)


cdef inline bint _begin_number(Hpack* h, uint8_t b, uint8_t bits) noexcept nogil:
    # RFC 7541, 5.1. True: that is all of it.
    cdef uint8_t most = <uint8_t>((1 << bits) - 1)
    h.number = b & most
    h.shift = 0
    return h.number < most


cdef inline bint _add_to_number(Hpack* h, uint8_t b) noexcept nogil:
    if h.shift <= MAX_SHIFT:
        h.number += <uint64_t>(b & 0x7F) << h.shift
        h.shift += 7
    elif b & 0x7F:
        h.broken = 1
    if h.number > 0x7FFFFFFF:
        h.broken = 1
    return not b & 0x80 and not h.broken


cdef void _have_number(Hpack* h) noexcept nogil:
    cdef const Entry* e
    h.spent += FIELD_COST
    h.phase = PHASE_FIRST
    if h.form == FORM_SIZE:
        _resize(h, h.number)
        return
    if h.form == FORM_INDEXED:
        _take_indexed(h, h.number)
        return
    h.name_size = h.value_size = 0
    h.value.size = 0
    h.in_value = h.number != 0
    h.phase = PHASE_STRING
    if 0 < h.number <= STATIC:
        h.field = _static_field(<uint32_t>h.number)
        h.name_size = STATIC_NAMES[h.number]
    elif h.number:
        e = _entry(h, h.number - STATIC)
        if e == NULL:
            _miss(h)
            h.field = FIELD_OTHER
            h.broken = not h.lost       # of one that is lost the value can be read, and the rest of the block
            return
        h.field = e.field
        h.name_size = e.name_size


cdef uint8_t _static_field(uint32_t index) noexcept nogil:
    if index == INDEX_AUTHORITY:
        return FIELD_AUTHORITY
    if index == INDEX_GET or index == INDEX_POST:
        return FIELD_METHOD
    if index == INDEX_PATH or index == INDEX_PATH_INDEX:
        return FIELD_PATH
    if index == INDEX_HOST:
        return FIELD_HOST
    return FIELD_PSEUDO if index <= INDEX_STATUS_LAST else FIELD_OTHER


cdef uint8_t _field_of(const Hpack* h) noexcept nogil:
    if h.name_size == 10 and memcmp(h.name, b":authority", 10) == 0:
        return FIELD_AUTHORITY
    if h.name_size == 4 and memcmp(h.name, b"host", 4) == 0:
        return FIELD_HOST
    if h.name_size == 5 and memcmp(h.name, b":path", 5) == 0:
        return FIELD_PATH
    if h.name_size == 7 and memcmp(h.name, b":method", 7) == 0:
        return FIELD_METHOD
    return FIELD_PSEUDO if h.name_size and h.name[0] == 0x3A else FIELD_OTHER


# ---- strings


cdef void _begin_string(Hpack* h) noexcept nogil:
    h.string_left = <uint32_t>h.number
    h.code = 0
    h.code_bits = 0
    h.phase = PHASE_BYTES
    if h.string_left == 0:
        _end_string(h)


cdef void _read_string(Hpack* h, Cursor* c) noexcept nogil:
    cdef const uint8_t* piece = NULL
    cdef uint32_t size = h.string_left if h.string_left < left(c) else <uint32_t>left(c)
    take(c, size, &piece)
    h.string_left -= size
    if h.huffman:
        _decode(h, piece, size)
    else:
        _put(h, piece, size)
    if h.string_left == 0 and not h.broken:
        _end_string(h)


cdef void _decode(Hpack* h, const uint8_t* data, uint32_t size) noexcept nogil:
    # RFC 7541, 5.2. At most LONGEST_CODE - 1 bits wait in `code` for the next byte.
    cdef uint8_t decoded[256]
    cdef uint32_t count = 0, i, length, bits = h.code_bits, top, ones
    cdef uint64_t code = h.code
    cdef uint16_t symbol
    h.spent += size * HUFFMAN_COST
    for i in range(size):
        code = code << 8 | data[i]
        bits += 8
        while bits:
            top = <uint32_t>(code >> (bits - 8) if bits >= 8 else code << (8 - bits)) & 0xFF
            length = SHORT_SIZE[top]
            symbol = SHORT_SYMBOL[top]
            if length == 0:
                ones = <uint32_t>(code >> (bits - 32) if bits >= 32 else code << (32 - bits))
                ones = clz(~ones) if ~ones else 32
                for length in range(SHORTEST[ones], min(bits, <uint32_t>LONGEST_CODE) + 1):
                    top = <uint32_t>(code >> (bits - length)) & ((1U << length) - 1)
                    if top - FIRST_CODE[length] < CODES[length]:
                        break
                else:
                    break
                symbol = SYMBOLS[FIRST_SYMBOL[length] + top - FIRST_CODE[length]]
            elif length > bits:
                break
            if symbol == END_OF_STRING:
                h.broken = 1
                return
            bits -= length
            code &= (<uint64_t>1 << bits) - 1
            decoded[count] = <uint8_t>symbol
            count += 1
            if count == sizeof(decoded):
                _put(h, decoded, count)
                count = 0
    h.code = code
    h.code_bits = <uint8_t>bits
    _put(h, decoded, count)


cdef void _put(Hpack* h, const uint8_t* data, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if not h.in_value:
        for i in range(size):
            if h.name_size + i >= <uint32_t>MAX_NAME_KEPT:
                break
            h.name[h.name_size + i] = data[i] | (0x20 if 0x41 <= data[i] <= 0x5A else 0)
        h.name_size += size
        return
    h.value_size += size
    if h.field == FIELD_OTHER or h.field == FIELD_PSEUDO:
        return
    if size > MAX_VALUE - h.value.size:
        size = MAX_VALUE - h.value.size
    if not append(&h.value, data, size, MAX_VALUE):
        h.crowded = 1


cdef void _end_string(Hpack* h) noexcept nogil:
    h.spent += STRING_COST
    if not h.in_value:
        h.field = _field_of(h)
        h.in_value = 1
        h.phase = PHASE_STRING
        return
    h.phase = PHASE_FIRST
    _take(h, h.field, h.value.data, h.value.size)
    if h.form == FORM_ADDED:
        _add(h)


# ---- what a request is looked up by


cdef void _take(Hpack* h, uint8_t field, const uint8_t* value, uint32_t size) noexcept nogil:
    if field == FIELD_OTHER:
        return
    if field != FIELD_HOST:
        h.pseudo = 1
    if field == FIELD_METHOD:
        h.method = 1
        h.head = size == 4 and memcmp(value, b"HEAD", 4) == 0
        h.connect = size == 7 and memcmp(value, b"CONNECT", 7) == 0
    elif field == FIELD_PATH:
        _note(h, &h.paths, &h.path_count, MAX_BLOCK_PATHS, value, size)
    elif field != FIELD_PSEUDO:
        _note(h, &h.hosts, &h.host_count, MAX_BLOCK_HOSTS, value, size)


cdef void _note(Hpack* h, Text* texts, uint8_t* count, uint8_t most, const uint8_t* value,
                uint32_t size) noexcept nogil:
    cdef uint8_t prefix[2]
    cdef uint32_t at = 0, length
    if size == 0 or h.crowded:
        return
    h.spent += size
    while at < texts.size:
        length = (<uint32_t>texts.data[at] << 8) | texts.data[at + 1]
        h.spent += 8
        if length == size:
            h.spent += size
            if memcmp(texts.data + at + 2, value, size) == 0:
                return
        at += 2 + length
    prefix[0] = <uint8_t>(size >> 8)
    prefix[1] = <uint8_t>size
    if count[0] == most or texts.size + size + 2 > MAX_TEXTS or not append(texts, prefix, 2, MAX_TEXTS):
        h.crowded = 1
    elif append(texts, value, size, MAX_TEXTS):
        count[0] += 1
    else:
        texts.size -= 2
        h.crowded = 1


cdef void _take_indexed(Hpack* h, uint64_t index) noexcept nogil:
    cdef Entry* e
    if index == 0:
        h.broken = 1
    elif index == INDEX_GET or index == INDEX_POST:
        h.method = h.pseudo = 1
        h.head = h.connect = 0
    elif index == INDEX_PATH:
        _take(h, FIELD_PATH, <const uint8_t*>b"/", 1)
    elif index == INDEX_PATH_INDEX:
        _take(h, FIELD_PATH, <const uint8_t*>b"/index.html", 11)
    elif index <= STATIC:
        _take(h, _static_field(<uint32_t>index), NULL, 0)
    else:
        e = _entry(h, index - STATIC)
        if e == NULL:
            _miss(h)
            h.broken = not h.lost
        elif e.field != FIELD_OTHER and e.taken != h.blocks + 1:
            e.taken = h.blocks + 1      # the same once more says nothing new
            _take(h, e.field, h.values.data + e.at, e.kept)


# ---- the table


cdef inline uint32_t _limit(const Hpack* h) noexcept nogil:
    return h.limit if h.updated else <uint32_t>DEFAULT_TABLE


cdef inline Entry* _entry(const Hpack* h, uint64_t back) noexcept nogil:
    # 1 is the newest; NULL where there is none.
    if back > h.count:
        return NULL
    return <Entry*>h.entries.data + (h.first + h.count - <uint32_t>back)


cdef inline void _miss(Hpack* h) noexcept nogil:
    # A server that may have more than we keep would know this entry.
    if h.lost:
        h.unresolved = 1


cdef void _resize(Hpack* h, uint64_t size) noexcept nogil:
    h.updated = 1
    h.clamped = size > MAX_TABLE
    h.limit = MAX_TABLE if h.clamped else <uint32_t>size
    _evict(h, 0)
    if not h.clamped:
        h.lost = 0                      # what a server has left, we have, too


cdef void _evict(Hpack* h, uint32_t needed) noexcept nogil:
    # RFC 7541, 4.3 and 4.4.
    cdef uint32_t limit = _limit(h), at
    cdef Entry* entries = <Entry*>h.entries.data
    cdef uint32_t i
    while h.count and h.table_size + needed > limit:
        h.table_size -= entries[h.first].size
        h.first += 1
        h.count -= 1
        if h.clamped:
            h.lost = 1
    if h.count == 0:
        h.first = 0
        h.entries.size = h.values.size = 0
    elif h.first > h.count:
        # Half of what is moved was evicted since the last time: a constant share of each insertion.
        at = entries[h.first].at
        memmove(entries, entries + h.first, h.count * sizeof(Entry))
        if h.values.data != NULL:
            memmove(h.values.data, h.values.data + at, h.values.size - at)
        for i in range(h.count):
            entries[i].at -= at
        h.first = 0
        h.entries.size = h.count * <uint32_t>sizeof(Entry)
        h.values.size -= at


cdef void _add(Hpack* h) noexcept nogil:
    cdef Entry e
    cdef uint64_t size = <uint64_t>h.name_size + h.value_size + ENTRY_COST
    h.spent += ENTRY_WORK
    if size > _limit(h):
        if h.clamped:
            h.lost = 1
        _evict(h, MAX_TABLE + 1)        # RFC 7541, 4.4: no error; nothing stays
        return
    _evict(h, <uint32_t>size)
    memset(&e, 0, sizeof(Entry))
    e.size = <uint32_t>size
    e.name_size = h.name_size
    e.at = h.values.size
    e.kept = h.value.size
    e.field = h.field
    if not append(&h.entries, <const uint8_t*>&e, sizeof(Entry), 0xFFFFFF):
        h.crowded = 1                   # no memory: the table is not a server's any more
        return
    if not append(&h.values, h.value.data, h.value.size, 0xFFFFFF):
        (<Entry*>h.entries.data + (h.first + h.count)).kept = 0
        h.crowded = 1
    h.table_size += e.size
    h.count += 1


# ---- copies


cdef bint copy_hpack(Hpack* copy, const Hpack* h) noexcept nogil:
    # False without memory; the copy is then not to be used, but safe to free.
    memcpy(copy, h, sizeof(Hpack))
    cdef bint entries = duplicate(&copy.entries, &h.entries)
    cdef bint values = duplicate(&copy.values, &h.values)
    cdef bint value = duplicate(&copy.value, &h.value)
    cdef bint hosts = duplicate(&copy.hosts, &h.hosts)
    cdef bint paths = duplicate(&copy.paths, &h.paths)
    return entries and values and value and hosts and paths


cdef uint64_t digest_hpack(const Hpack* h) noexcept nogil:
    cdef const Entry* e
    cdef uint32_t back
    cdef uint64_t digest = digest_word(h.code, h.number)
    digest = digest_word(digest, h.phase | <uint64_t>h.form << 8 | <uint64_t>h.field << 16
                         | <uint64_t>h.code_bits << 24 | <uint64_t>h.string_left << 32)
    digest = digest_word(digest, h.name_size | <uint64_t>h.value_size << 32)
    digest = digest_bytes(digest, h.name, 0 if h.in_value else min(h.name_size, <uint32_t>MAX_NAME_KEPT))
    digest = digest_text(digest_text(digest_text(digest, &h.value), &h.hosts), &h.paths)
    for back in range(1, h.count + 1):
        e = _entry(h, back)
        digest = digest_bytes(digest_word(digest, e.size | <uint64_t>e.name_size << 32), h.values.data + e.at, e.kept)
    return digest


cdef bint same_hpack(const Hpack* a, const Hpack* b) noexcept nogil:
    # Whether both would answer every further byte alike. The newest entries differ first.
    cdef const Entry* x
    cdef const Entry* y
    cdef uint32_t back
    if (a.phase != b.phase or a.form != b.form or a.shift != b.shift or a.huffman != b.huffman
            or a.in_value != b.in_value or a.field != b.field or a.code_bits != b.code_bits or a.code != b.code
            or a.number != b.number or a.string_left != b.string_left or a.name_size != b.name_size
            or a.value_size != b.value_size or _limit(a) != _limit(b) or a.clamped != b.clamped or a.lost != b.lost
            or a.table_size != b.table_size or a.count != b.count or a.broken != b.broken
            or a.unresolved != b.unresolved or a.crowded != b.crowded or a.pseudo != b.pseudo
            or a.method != b.method or a.head != b.head or a.connect != b.connect):
        return False
    if not a.in_value and memcmp(a.name, b.name, min(a.name_size, <uint32_t>MAX_NAME_KEPT)) != 0:
        return False
    if not (same_text(&a.value, &b.value) and same_text(&a.hosts, &b.hosts) and same_text(&a.paths, &b.paths)):
        return False
    for back in range(1, a.count + 1):
        x = _entry(a, back)
        y = _entry(b, back)
        if (x.size != y.size or x.name_size != y.name_size or x.field != y.field or x.kept != y.kept
                or x.kept and memcmp(a.values.data + x.at, b.values.data + y.at, x.kept) != 0):
            return False
    return True


cdef void free_hpack(Hpack* h) noexcept nogil:
    release(&h.entries)
    release(&h.values)
    release(&h.value)
    release(&h.hosts)
    release(&h.paths)
    memset(h, 0, sizeof(Hpack))


cdef uint32_t weigh_hpack(const Hpack* h) noexcept nogil:
    return h.entries.room + h.values.room + h.value.room + h.hosts.room + h.paths.room


# ---- for tests


cdef list list_texts(const Text* texts):
    cdef uint32_t at = 0, size
    found = []
    while at < texts.size:
        size = (<uint32_t>texts.data[at] << 8) | texts.data[at + 1]
        found.append(<bytes>texts.data[at + 2:at + 2 + size])
        at += 2 + size
    return found


def feed(blocks) -> list:
    """Feeds blocks, each a list of byte pieces; of each block (hosts, paths, has a method, broken, table size)."""
    cdef Hpack h
    cdef Cursor c
    cdef const uint8_t[::1] piece
    memset(&h, 0, sizeof(Hpack))
    said = []
    for pieces in blocks:
        begin_block(&h)
        for data in pieces:
            piece = data
            if piece.shape[0]:
                c = cursor(&piece[0], piece.shape[0])
                read_fragment(&h, &c)
        end_block(&h)
        said.append((list_texts(&h.hosts), list_texts(&h.paths), bool(h.method), bool(h.broken), h.table_size))
    free_hpack(&h)
    return said
