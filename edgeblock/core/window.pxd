# The client side of one stream: every distinct copy of every byte range, and every way a server could read them.
#
# It holds together the bytes (core/segments), where messages may begin (core/starts), and what was found out so far.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.findings cimport Findings
from edgeblock.core.segments cimport Segments
from edgeblock.core.starts cimport (MAX_STARTS, Starts, all_are_lost, is_far_from_all, is_start, offset_in,
                                    some_goes_on, some_is_message)

cdef enum:
    PACKET_WORK = 192 * 1024   # bytes read again for one packet, all readings together
    # What one packet may cost before the rest waits for the next one, in bytes that are looked at: those of the
    # longest packet, and 128 names in it.
    PACKET_SHARE = 120 * 1024
    FLOW_WORK = 4 * 1024 * 1024    # the same for one flow

cdef struct Window:
    uint8_t first              # ReadingKind at a start
    uint8_t http               # a reading is certain to be HTTP
    uint8_t overflow           # a cap was reached with conflicting bytes
    uint8_t forgetful          # bytes that were read are not kept any more, or were passed over unseen
    uint8_t body_open          # the only reading is in a body now
    uint8_t late_lost          # late bytes of that body were not kept
    int64_t body_at            # the last body that the only reading there was passed over: from here
    int64_t body_end           # to here, as far as it is certain
    uint64_t unseen            # bytes of it that were passed over and never came
    uint32_t work
    int32_t share              # what this packet may still cost
    uint8_t behind             # it may not, and there are bytes that were not read
    uint64_t dropped           # bytes that were not kept because the window was full
    uint8_t urgent_lost        # there were more urgent bytes, while nothing was read
    Starts starts
    Segments segments

cdef void open_window(Window* w, uint8_t first, uint32_t base) noexcept nogil
cdef void close_window(Window* w) noexcept nogil
cdef void add_syn(Window* w, uint32_t seq) noexcept nogil                 # seq of the first byte behind the SYN
# A stream behind a SYN of which the first bytes, `size` of them, are not known any more.
cdef void add_lost(Window* w, uint32_t seq, uint32_t size) noexcept nogil
cdef bint add_start(Window* w, uint8_t kind, int64_t at) noexcept nogil
# Where these bytes may be a beginning, or of a stream that was given up. `syn`: the flow's SYN was seen.
cdef void choose_starts(Window* w, bint syn, int64_t at, const uint8_t* data, size_t size) noexcept nogil
cdef void add_urgent(Window* w, int64_t at) noexcept nogil
cdef void add_bytes(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap) noexcept nogil
cdef bint read_first(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap,
                     Findings* out) noexcept nogil                       # all of these at once; False: not possible
# `work` is what may be read again at present, all windows together, and is lessened by what was.
cdef void read_on(Window* w, Findings* out, uint32_t cap, uint32_t* work) noexcept nogil
cdef bint is_open(const Window* w) noexcept nogil                        # some reading needs more bytes
cdef bint holds_part(const Window* w) noexcept nogil                     # some message has begun and is not over
cdef bint is_whole(const Window* w) noexcept nogil                       # no message is begun and not complete
cdef bint is_contested(const Window* w) noexcept nogil                   # the client has sent more than one stream
cdef int64_t contiguous_end(Window* w) noexcept nogil              # end of the bytes that join the first start
cdef int64_t joined_end(Window* w, int64_t at) noexcept nogil      # of those that are kept and join `at`
cdef bint has_bytes(const Window* w, int64_t start) noexcept nogil       # that may be of a stream from there on
cdef bint is_strange(const Window* w, uint32_t seq) noexcept nogil       # filled by others than who sends these bytes


cdef inline uint32_t memory_of(const Window* w) noexcept nogil:
    return w.segments.bytes + w.starts.held


cdef inline int64_t offset_of(const Window* w, uint32_t seq) noexcept nogil:
    return offset_in(&w.starts, seq)


cdef inline uint32_t seq_of(const Window* w, int64_t at) noexcept nogil:
    return w.starts.base + <uint32_t>at


cdef inline bint goes_on(const Window* w) noexcept nogil:
    # Some reading, or it would take a second ClientHello.
    return some_goes_on(&w.starts)


cdef inline bint is_message(const Window* w) noexcept nogil:
    # Some reading is of a protocol we know.
    return some_is_message(&w.starts)


cdef inline bint is_unreadable(const Window* w) noexcept nogil:
    # All readings have lost their way, or ended.
    return all_are_lost(&w.starts)


cdef inline bint begins_at(const Window* w, uint32_t seq) noexcept nogil:
    # A start stands at this sequence number.
    return is_start(&w.starts, seq)


cdef inline bint is_far(const Window* w, uint32_t seq) noexcept nogil:
    # From every stream that is being read.
    return is_far_from_all(&w.starts, seq)


cdef inline void expect_anywhere(Window* w) noexcept nogil:
    # What belongs to no known stream is read from where it comes, and a SYN to come takes nothing of it away.
    w.starts.syn_count = MAX_STARTS
