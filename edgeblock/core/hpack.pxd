# HPACK (RFC 7541): fragments of header blocks in, cut anywhere; what a request is looked up by comes out.
#
# The state is one struct that can be copied (copy_hpack), since a stream with conflicting bytes is read several ways
# at once. Of other fields than those in `Field` only sizes are kept: enough to evict entries when a server does.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.text cimport Text

cdef enum:
    DEFAULT_TABLE = 4096       # RFC 7540, 6.5.2
    # A server may offer more; none was found that offers more than 64 kB (haproxy's highest). Suricata stops there.
    MAX_TABLE = 64 * 1024
    MAX_NAME_KEPT = 16         # the longest name in `Field` has ten bytes
    # Of one value. More of it changes no host rule, and nginx takes no path of more than 8 kB.
    MAX_VALUE = 16 * 1024
    MAX_TEXTS = 20 * 1024      # hosts, or paths, of one block, where a table makes many bytes of few
    MAX_BLOCK_HOSTS = 16       # as of an HTTP/1 head; servers refuse the second, lenient ones take the first or last
    MAX_BLOCK_PATHS = 4        # every server that was tried refuses the second

cdef enum Field:
    FIELD_OTHER = 0
    FIELD_AUTHORITY
    FIELD_HOST
    FIELD_PATH
    FIELD_METHOD
    FIELD_PSEUDO               # another name that begins with a colon

cdef struct Entry:             # of the dynamic table
    uint32_t size              # RFC 7541, 4.1
    uint32_t name_size
    uint32_t at                # of what is kept of the value, in Hpack.values
    uint32_t kept
    uint32_t taken             # the number of the block that took it last
    uint8_t field              # a Field

cdef struct Hpack:             # all zero is the start of a connection
    uint8_t phase
    uint8_t form               # which representation: an enum of hpack.pyx
    uint8_t shift              # of the integer that is being read
    uint8_t huffman
    uint8_t in_value           # the string is the value, not the name
    uint8_t field              # of the name that was read
    uint8_t code_bits          # bits in `code`
    uint8_t updated            # `limit` holds; before, it is DEFAULT_TABLE
    uint8_t clamped            # the table is cut at MAX_TABLE, where a server may have more
    uint8_t lost               # entries went that a server may still have
    uint64_t code              # of a Huffman-coded string, what is not decoded yet
    uint64_t number
    uint32_t string_left
    uint32_t name_size         # of the name and value so far, decoded
    uint32_t value_size
    uint8_t name[MAX_NAME_KEPT]
    uint32_t limit             # of the table
    uint32_t table_size
    uint32_t first             # of the entries: those before it were evicted
    uint32_t count             # of entries in the table
    Text entries               # Entry structures, oldest first
    Text values
    Text value
    uint32_t blocks            # ended so far
    uint32_t spent             # bytes copied and compared besides those that came: the reader's work, cleared by it
    # Of the block that is being read, or has just ended:
    uint8_t broken             # nothing behind this can be decoded
    uint8_t unresolved         # it named an entry that is lost
    uint8_t crowded            # more hosts, paths or bytes of them than are kept
    uint8_t pseudo             # it has a field that only a request has
    uint8_t method             # of these, HTTP/2 leaves the case of letters alone
    uint8_t head               # the method is HEAD
    uint8_t connect            # the method is CONNECT
    uint8_t host_count
    uint8_t path_count
    Text hosts                 # for each two bytes of size, big-endian, and the bytes
    Text paths

cdef void read_fragment(Hpack* h, Cursor* c) noexcept nogil   # consumes all of it
cdef void end_block(Hpack* h) noexcept nogil                  # what it said can be read until begin_block
cdef void begin_block(Hpack* h) noexcept nogil
cdef bint copy_hpack(Hpack* copy, const Hpack* h) noexcept nogil
cdef uint64_t digest_hpack(const Hpack* h) noexcept nogil     # the same where same_hpack holds
cdef bint same_hpack(const Hpack* a, const Hpack* b) noexcept nogil
cdef void free_hpack(Hpack* h) noexcept nogil
cdef uint32_t weigh_hpack(const Hpack* h) noexcept nogil      # bytes of memory behind the struct
cdef list list_texts(const Text* texts)                       # hosts or paths, for tests
