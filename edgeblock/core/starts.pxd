# Where a stream may begin, how far it was read from there, and what is known of streams that had to make room.
#
#   Start      an offset where a message may begin, and the readings that have got as far as its frontier
#   given up   a SYN's start that had to make room: bytes may come that go on with it
#   Over       sequence numbers of a stream of which no bytes are kept any more
#
# In: sequence numbers, offsets. Out: a place to read from, and whose bytes are of no use any more. Never here: bytes.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from edgeblock.core.reading cimport Reading, lost, weights

cdef enum:
    MAX_STARTS = 4             # as many as segments.MAX_READ
    LATE_REACH = 64 * 1024     # how far below the lowest byte a stream seen without its SYN may turn out to begin
    MAX_GIVEN_UP = 8
    MAX_OVER = 64              # connections on the same ports whose bytes are not kept any more
    MAX_AHEAD = 1 << 20        # bytes beyond the frontier that a server's receive window may still take

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
    uint8_t again              # all readings ended behind a message of this ReadingKind: another may come there
    uint32_t held              # memory of all readings here, as counted in Starts.held
    int64_t at
    int64_t began              # of the last message behind which the server may ask for another
    int64_t frontier           # every reading has consumed all below
    Reading* readings          # NULL, and not unread: each came to its end or was no protocol of ours
    Reading* checkpoint        # how reading begins at `at`; NULL for the start of a message
    Reading* mark              # the readings as they stood at `mark_at`: the next checkpoint
    int64_t mark_at

cdef struct Over:              # sequence numbers of which the bytes are not kept any more
    uint32_t seq
    uint32_t size
    uint32_t goes_on           # of a stream that is not over: there the client may send them again

cdef struct Starts:
    uint32_t base              # TCP sequence number of offset 0
    uint8_t syn_count          # SYNs with different sequence numbers, counted up to 255
    uint32_t given_up          # how often a SYN's start had to make room: any of those streams may be the server's
    int64_t given_up_at[MAX_GIVEN_UP]        # where they began, the last of them,
    int64_t given_up_to[MAX_GIVEN_UP]        # and how far they were read
    Over* over                 # of those that were given up before them, for one: bytes here may be other copies
    uint32_t over_count        # of which the last MAX_OVER are known
    uint32_t held              # memory of readings, and of `over`
    Start items[MAX_STARTS]

cdef struct Placed:            # what came of looking for a place; all zero before
    Start* start               # the new one; NULL: there was one already, or there is none
    uint8_t crowded            # another that is being read had to go, or there was no place for this one
    uint8_t ended              # so many streams ended, of which no bytes need be kept:
    int64_t begin[2]
    int64_t end[2]

cdef void close_starts(Starts* all) noexcept nogil
cdef void free_start(Starts* all, Start* s) noexcept nogil
cdef Reading* first_readings(const Start* s, uint8_t kind) noexcept nogil
cdef Reading* second_reading(const Start* s) noexcept nogil              # of what may come `again`
cdef int64_t offset_in(const Starts* all, uint32_t seq) noexcept nogil
cdef bint is_start(const Starts* all, uint32_t seq) noexcept nogil
cdef bint is_far_from_all(const Starts* all, uint32_t seq) noexcept nogil      # that are being read
cdef bint is_between_messages(const Start* s) noexcept nogil
cdef bint some_goes_on(const Starts* all) noexcept nogil                 # or would take a message once more
cdef bint some_is_message(const Starts* all) noexcept nogil              # some reading is of a protocol we know
cdef bint all_are_lost(const Starts* all) noexcept nogil                 # or have ended
cdef bint is_left_behind(const Starts* all, const Start* s, uint32_t moved) noexcept nogil
# Sequence numbers so close below this one that it may be of streams from there: MAX_STARTS + MAX_GIVEN_UP at most.
cdef uint32_t begun_before(const Starts* all, uint32_t seq, uint32_t* out) noexcept nogil
cdef bint note_syn(Starts* all, uint32_t seq, int64_t* at) noexcept nogil      # True: it is new, and begins there
cdef void note_lost(Starts* all, uint32_t seq, uint32_t size, Placed* out) noexcept nogil
cdef bint place_start(Starts* all, uint8_t kind, int64_t at, Placed* out) noexcept nogil     # False: there is none
cdef void move_up(Starts* all) noexcept nogil
cdef void give_up(Starts* all, const Start* s, Placed* out) noexcept nogil
cdef bint note_over(Starts* all, int64_t at, int64_t end, uint32_t goes_on) noexcept nogil
cdef bint has_come(const Starts* all, int64_t at) noexcept nogil         # for all that is known, and is not kept
cdef bint may_be_over(const Starts* all, int64_t at, size_t size) noexcept nogil     # other copies of what is over


cdef inline bint is_active(const Start* s) noexcept nogil:
    return s.unread or s.readings != NULL


cdef inline bint is_live(const Start* s) noexcept nogil:
    # Some reading has not lost its way.
    cdef const Reading* r = s.readings
    while r != NULL:
        if not lost(r):
            return True
        r = r.next
    return s.unread


cdef inline void account(Starts* all, Start* s, bint holds) noexcept nogil:
    # Readings count as memory of the window while nobody is at work on them.
    all.held -= s.held
    s.held = weights(s.readings) + weights(s.checkpoint) + weights(s.mark) if holds else 0
    all.held += s.held


cdef inline int64_t floor_of(const Starts* all) noexcept nogil:
    # The lowest: no byte below it is kept.
    cdef int i
    cdef bint any_start = False
    cdef int64_t floor = 0
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE and (not any_start or all.items[i].at < floor):
            floor = all.items[i].at
            any_start = True
    return floor


cdef inline int64_t ceiling_of(const Starts* all) noexcept nogil:
    # So far ahead a byte may be.
    cdef int i
    cdef bint any_start = False
    cdef int64_t ceiling = 0
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE and (not any_start or all.items[i].frontier > ceiling):
            ceiling = all.items[i].frontier
            any_start = True
    return ceiling + MAX_AHEAD
