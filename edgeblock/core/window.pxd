# The client side of one stream: every distinct copy of every byte range, and every way a server could read them.
#
#   Segments   the bytes (core/segments)
#   Start      an offset where a message may begin, and the readings that have got as far as its frontier

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from edgeblock.core.findings cimport Findings
from edgeblock.core.reading cimport Reading
from edgeblock.core.segments cimport Run, Segments

cdef enum:
    MAX_STARTS = 4             # as many as segments.MAX_READ
    LATE_REACH = 64 * 1024     # how far below the lowest byte a stream seen without its SYN may turn out to begin
    MAX_GIVEN_UP = 8
    MAX_OVER = 64              # connections on the same ports whose bytes are not kept any more
    MAX_AHEAD = 1 << 20        # bytes beyond the frontier that a server's receive window may still take
    PACKET_WORK = 192 * 1024   # bytes read again for one packet, all readings together
    # What one packet may cost before the rest waits for the next one, in bytes that are looked at: those of the
    # longest packet, and 128 names in it.
    PACKET_SHARE = 120 * 1024
    FLOW_WORK = 4 * 1024 * 1024    # the same for one flow

cdef enum StartKind:
    START_FREE = 0
    START_SYN = 1              # behind a SYN's sequence number: where the server starts
    START_LOWEST = 2           # no SYN was seen: the lowest byte was
    START_LOOKS = 3            # a segment that begins like a ClientHello or a request
    START_LATE = 4             # bytes where those that were read are forgotten: the server may never have got them

cdef struct Start:
    uint8_t kind               # a StartKind
    uint8_t unread             # reading has not begun, or is to begin again: no readings are kept
    uint8_t message            # a reading got as far as a message of a protocol we know
    uint8_t again              # all readings ended behind a ClientHello of this ReadingKind: another may come there
    uint32_t held              # memory of all readings here, as counted in Window.held
    int64_t at
    int64_t began              # of the last ClientHello that a reading came to the end of
    int64_t frontier           # every reading has consumed all below
    Reading* readings          # NULL, and not unread: each came to its end or was no protocol of ours
    Reading* checkpoint        # how reading begins at `at`; NULL for the start of a message
    Reading* mark              # the readings as they stood at `mark_at`: the next checkpoint
    int64_t mark_at

cdef struct Over:              # sequence numbers of which the bytes are not kept any more
    uint32_t seq
    uint32_t size
    uint32_t goes_on           # of a stream that is not over: there the client may send them again

cdef struct Window:
    uint8_t first              # ReadingKind at a start
    uint8_t syn_count          # SYNs with different sequence numbers, counted up to 255
    uint8_t http               # a reading is certain to be HTTP
    uint8_t overflow           # a cap was reached with conflicting bytes
    uint8_t forgetful          # bytes that were read are not kept any more, or were passed over unseen
    uint8_t body_open          # the only reading is in a body now
    uint8_t late_lost          # late bytes of that body were not kept
    uint32_t given_up          # how often a SYN's start had to make room: any of those streams may be the server's
    uint32_t base              # TCP sequence number of offset 0
    int64_t body_at            # the last body that the only reading there was passed over: from here
    int64_t body_end           # to here, as far as it is certain
    uint64_t unseen            # bytes of it that were passed over and never came
    uint32_t held              # memory of readings, and of `over`
    uint32_t work
    int32_t share              # what this packet may still cost
    uint8_t behind             # it may not, and there are bytes that were not read
    uint64_t dropped           # bytes that were not kept because the window was full
    int64_t given_up_at[MAX_GIVEN_UP]        # where they began, the last of them,
    int64_t given_up_to[MAX_GIVEN_UP]        # and how far they were read
    Over* over                 # of those that were given up before them, for one: bytes here may be other copies
    uint32_t over_count        # of which the last MAX_OVER are known
    uint8_t urgent_lost        # there were more urgent bytes, while nothing was read
    Start starts[MAX_STARTS]
    Segments segments

cdef void open_window(Window* w, uint8_t first, uint32_t base) noexcept nogil
cdef void close_window(Window* w) noexcept nogil
cdef int64_t offset_of(const Window* w, uint32_t seq) noexcept nogil
cdef void add_syn(Window* w, uint32_t seq) noexcept nogil                 # seq of the first byte behind the SYN
# A stream behind a SYN of which the first bytes, `size` of them, are not known any more.
cdef void add_lost(Window* w, uint32_t seq, uint32_t size) noexcept nogil
cdef bint begins_at(const Window* w, uint32_t seq) noexcept nogil
cdef bint add_start(Window* w, uint8_t kind, int64_t at) noexcept nogil
# Of what was given up, what has these offsets.
cdef void take_back(Window* w, int64_t at, size_t size) noexcept nogil
cdef void add_urgent(Window* w, int64_t at) noexcept nogil
cdef void add_bytes(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap) noexcept nogil
# `work` is what may be read again at present, all windows together, and is lessened by what was.
cdef void read_on(Window* w, Findings* out, uint32_t cap, uint32_t* work) noexcept nogil
cdef bint is_open(const Window* w) noexcept nogil                        # some reading needs more bytes
cdef bint holds_part(const Window* w) noexcept nogil                     # some message has begun and is not over
cdef bint goes_on(const Window* w) noexcept nogil                        # or would take a second ClientHello
cdef bint is_message(const Window* w) noexcept nogil                     # some reading is of a protocol we know
cdef bint is_unreadable(const Window* w) noexcept nogil                  # all readings have lost their way, or ended
cdef bint is_whole(const Window* w) noexcept nogil                       # no message is begun and not complete
cdef bint is_contested(const Window* w) noexcept nogil                   # the client has sent more than one stream
cdef bint in_body(const Window* w, int64_t at) noexcept nogil            # a reading passes over that offset unseen
cdef int64_t contiguous_end(Window* w) noexcept nogil              # end of the bytes that join the first start
cdef int64_t joined_end(Window* w, int64_t at) noexcept nogil      # of those that are kept and join `at`
cdef bint has_bytes(const Window* w, int64_t start) noexcept nogil       # that may be of a stream from there on
cdef bint is_strange(const Window* w, uint32_t seq) noexcept nogil       # filled by others than who sends these bytes
cdef bint is_far(const Window* w, uint32_t seq) noexcept nogil           # from every stream that is being read
cdef bint looks_like_message(const uint8_t* data, size_t size) noexcept nogil


cdef inline uint32_t memory_of(const Window* w) noexcept nogil:
    return w.segments.bytes + w.held
