# The bytes that are kept of one stream: first copies, other copies of the same bytes, and where segments were cut.
#
#   Run        first copies, contiguous, sorted, never overlapping
#   Copy       a later copy of bytes that differ from the run's
#   edge       an offset where a segment began or ended: there a server may pass from one copy to another
#
# In: byte ranges at offsets, in any order. Out: what is new in what was read; from any offset the run there, and the
# interval in which every version is whole. Never here: a reading, or where a message begins.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_COPIES = 128
    MAX_URGENT = 8
    MAX_READ = 4               # ranges that were read

cdef struct Run:
    Run* next
    int64_t at
    uint32_t size
    uint32_t head              # bytes of room before the data,
    uint32_t room              # and from their beginning on
    uint8_t* data

cdef struct Guide:             # on the way to a run in the middle of many
    int64_t at
    Run* run

cdef struct Copy:
    Copy* next
    int64_t at
    uint32_t size
    uint8_t* data              # in the same allocation

cdef struct Segments:          # all zero is empty
    Run* runs
    Run* recent                # where the last bytes were added, NULL: not known; bytes in order need no walk
    Guide* guides              # sorted
    uint32_t guide_count
    uint32_t guide_room
    Copy* copies
    int64_t* edges             # the first `edges_sorted` of them are sorted
    uint32_t bytes             # memory held by all of these
    uint32_t run_bytes         # by runs alone
    uint16_t copy_count
    uint16_t edge_count
    uint16_t edges_sorted
    uint16_t edge_room
    uint8_t edges_lost         # no more are known: there was no room
    uint8_t urgent_count
    int64_t urgent[MAX_URGENT]

cdef struct Change:            # what was added to
    uint32_t cap               # bytes of memory that there may be,
    uint32_t others            # and that others hold of them
    int64_t floor              # no byte below is kept
    uint32_t ranges            # that were read:
    int64_t begin[MAX_READ]
    int64_t end[MAX_READ]
    # What came of it: where the bytes of each range are not the only ones any more, the lowest place.
    int64_t at[MAX_READ]       # INT64_MAX before, and where nothing changed
    uint64_t dropped           # bytes that were not kept, for want of room
    uint8_t any                # something changed in some range
    uint8_t overflow           # bytes that conflict could not be kept

cdef struct Interval:          # every version is whole up to `stop`
    int64_t stop
    uint32_t count
    bint urgent                # its one byte may have been delivered out of band
    const uint8_t* versions[MAX_COPIES + 1]

cdef enum UrgentOutcome:
    URGENT_KNOWN = 0
    URGENT_ADDED = 1
    URGENT_LOST = 2            # there were too many

cdef void close_segments(Segments* s) noexcept nogil
cdef bint add_first(Segments* s, int64_t at, const uint8_t* data, size_t size) noexcept nogil    # False: no memory
cdef void add_piece(Segments* s, int64_t at, const uint8_t* data, size_t size, Change* change) noexcept nogil
cdef UrgentOutcome add_urgent_byte(Segments* s, int64_t at) noexcept nogil
cdef Run* run_at(Segments* s, int64_t at) noexcept nogil           # the last that begins there or before, or NULL
cdef int64_t kept_end(Segments* s, int64_t at) noexcept nogil      # of the bytes that are kept and join `at`
cdef bint is_kept_beyond(const Segments* s, int64_t at) noexcept nogil               # some byte from there on
cdef bint is_kept_within(const Segments* s, int64_t at, int64_t end) noexcept nogil  # some byte that is there
cdef bint is_run_within(const Segments* s, int64_t at, int64_t end) noexcept nogil   # some run begins between
cdef bint is_doubtful(const Segments* s, int64_t at) noexcept nogil      # from there on bytes can be read in two ways
# False: edges are lost, and a version may be cut where it is not here.
cdef bint view_interval(Segments* s, const Run* run, int64_t at, Interval* out) noexcept nogil
cdef void drop_between(Segments* s, int64_t at, int64_t end) noexcept nogil      # what lies wholly there
cdef void drop_before(Segments* s, int64_t floor) noexcept nogil                 # all bytes


cdef inline bint is_plain(const Segments* s) noexcept nogil:
    # There is one copy of each byte.
    return s.copies == NULL and s.urgent_count == 0


cdef inline bint has_room(const Segments* s, size_t size, uint32_t cap, uint32_t others) noexcept nogil:
    # For so many bytes more, in a run of their own.
    return s.bytes + others + size + sizeof(Run) <= cap
