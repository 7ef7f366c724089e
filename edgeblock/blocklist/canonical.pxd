# The canonical form of hosts and URLs: the one implementation, for the compiler and for the engine.
#
# In: bytes as they stood on the wire or in a list. Out: the bytes that are compared and fingerprinted. Cost is
# linear in the input and capped; nothing here raises, and nothing refuses to give a reading: what is wrong with a
# host is said in `problem`, and the engine still looks its parent domains up.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    HOST_MAX = 253          # RFC 1035 section 2.3.4: 255 on the wire is 253 as text
    LABEL_MAX = 63          # same section
    RAW_HOST_MAX = 1024     # a host of 253 A-label bytes is at most 4 times that as raw UTF-8; read from its end
    RAW_TARGET_MAX = 65536  # Apache stops at 8 kB, IIS at 16 kB, nginx at what it is told: 60 kB was seen to work
    READINGS_MAX = 5        # front, behind the last "@" of the authority, of all, last value, all of it
    WAYS_TARGET_MAX = 8192  # longer targets are read in one way only; nginx, Apache stop at a line of 8 kB
    WIDE = 16               # copied at once, where there is room
    URL_MAX = 4096          # canonical host + path + query that a list may hold; browsers share URLs below 2 kB

cdef enum Problem:          # why a host or URL cannot stand in a list; `PROBLEMS` in the .pyx has the words
    FINE = 0
    NO_HOST = 1
    EMPTY_LABEL = 2
    LONG_LABEL = 3
    LONG_HOST = 4
    FORBIDDEN_BYTE = 5
    BAD_ADDRESS = 6
    BAD_PORT = 7
    NOT_IDNA = 8
    BAD_SCHEME = 9
    LONG_URL = 10

cdef struct Host:
    uint8_t text[RAW_HOST_MAX]    # the canonical form; [..] around IPv6
    uint16_t size
    uint8_t problem               # a Problem
    uint8_t whole                 # 0: the front of an over-long host was left off
    uint8_t address               # 0: a name; 4 or 16: the size of the address it writes
    uint8_t bits[16]              # that address, in network order

cdef struct Readings:             # what servers may take for the host: spans of the bytes that were given
    uint32_t count
    const uint8_t* text[READINGS_MAX]
    size_t size[READINGS_MAX]

cdef enum Way:                    # how a server finds the segments of a path, before it resolves ".."
    WAY_DECODED = 1               # escapes are decoded first: nginx, Apache, Go, Python; not by parsers of URLs
    WAY_SLASH = 2                 # a backslash is a character: all but browsers' parsers and IIS
    WAY_KEEP = 4                  # an empty segment is one: parsers of URLs
    WAYS = 8                      # the sums of these

cdef struct Piece:                # of a path, up to something that some server takes for a slash
    uint16_t start                # in its decoded text
    uint16_t end
    uint8_t kind
    uint8_t mark                  # what ends it

cdef struct Ways:                 # a target, and the different paths that servers make of it
    uint32_t bits                 # of Way: those that make a difference
    uint32_t count
    size_t size
    uint8_t text[WAYS_TARGET_MAX + 2 + WIDE]         # the path, decoded
    Piece pieces[WAYS_TARGET_MAX + 2]
    uint16_t stack[WAYS_TARGET_MAX + 2]
    const uint8_t* query          # with what it begins with, as it stands
    size_t query_size
    uint32_t made_count
    size_t made_size[WAYS]
    uint8_t made[WAYS][WAYS_TARGET_MAX + 2 + WIDE]

cdef struct Target:
    size_t path                   # bytes of path in the caller's buffer, from the first slash
    size_t size                   # bytes of path, question mark and query; equal to `path` without a query
    bint path_whole               # 0: the path did not fit; what is there is its front
    bint whole                    # 0: path or query did not fit
    bint climbs                   # the path has a ".." segment
    bint params                   # a path segment has ";parameters"

cdef bint read_plain_host(const uint8_t* text, size_t size, Host* out) noexcept nogil
cdef void read_host(const uint8_t* text, size_t size, Host* out) noexcept nogil
cdef void find_readings(const uint8_t* text, size_t size, Readings* out) noexcept nogil
cdef bint find_relative(const uint8_t* target, size_t size, size_t* start, size_t* path) noexcept nogil
cdef void read_reading(const Readings* readings, uint32_t index, Host* out) noexcept nogil
cdef bint is_ambiguous(const uint8_t* text, size_t size) noexcept nogil
cdef void open_ways(Ways* w, const uint8_t* text, size_t size) noexcept nogil
cdef bint put_way(Ways* w, uint32_t way) noexcept nogil
cdef void read_way(const Ways* w, bint bare, uint8_t* out, size_t cap, Target* sizes) noexcept nogil
cdef void read_target(const uint8_t* text, size_t size, bint bare, uint8_t* out, size_t cap,
                      Target* sizes) noexcept nogil
