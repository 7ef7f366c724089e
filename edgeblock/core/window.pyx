"""The stream window: which bytes the client has sent, and every way a server could read them.

Comes in: byte ranges at stream offsets, in any order, overlapping, conflicting. Goes out: Findings, the names that
any reading a server could accept has come upon. Never here: a decision, a clock, an allocation without a cap.

How conflicts are read. Segment edges and urgent bytes cut the stream into intervals; inside an interval every version
is whole. All readings advance interval by interval; where versions differ each reading forks into one per version,
and readings that stand in the same place with the same texts are merged again. So a conflict in bytes that a protocol
passes over (random, key shares, other header fields, bodies) costs one step, and only a conflict in the name itself
makes a reading each. Nothing is ever released on the first name found: a later copy takes the readings back to the
start. What exceeds the caps sets `overflow`, and the engine's policy decides.

One idea, though long: what comes may change beginnings, readings and what may be forgotten at once, and none of these
is right without the others. Which bytes are kept is core/segments, how one reading goes through them core/follow.
"""

from libc.stdint cimport INT64_MAX, int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from edgeblock.core.cursor cimport cursor
from edgeblock.core.follow cimport FORK_COST, FORK_SHARE, MAX_READINGS, MAX_WAYS, Kept, follow, keep
from edgeblock.core.reader cimport FEED_COST
from edgeblock.core.readers cimport READ_ANY
from edgeblock.core.reading cimport (body_left, copy_reading, copy_readings, free_readings, is_fresh, lost,
                                     new_reading, reader_of, weights, within_body)
from edgeblock.core.segments cimport (URGENT_KNOWN, URGENT_LOST, Change, Interval, UrgentOutcome, add_piece,
                                      add_urgent_byte, close_segments, drop_before, drop_between, has_room,
                                      is_doubtful, is_kept_beyond, is_kept_within, is_plain, is_run_within,
                                      kept_end, run_at, view_interval)

cdef enum:
    COPIED_FOR_ONE = 8         # so many bytes of a reading are copied, digested and freed in the time of one read
    # Bytes that all readings together take at a time, before the work is counted: the smallest units are the dearest.
    SHARED = 512
    SHARED_SHORT = 2048        # of what is certain not to fork
    SHARED_LEAST = 256         # the same of each, for many are compared each time
    MEET_COST = 8              # and of telling what became of it from one other reading
    MAX_UNSEEN = 1 << 30       # bytes of a body that never came: a decoy brings the numbers round with few packets


# ---- life


cdef void open_window(Window* w, uint8_t first, uint32_t base) noexcept nogil:
    memset(w, 0, sizeof(Window))
    w.first = first
    w.base = base


cdef void close_window(Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        _free_start(w, &w.starts[i])
    close_segments(&w.segments)
    free(w.over)
    w.over = NULL
    w.over_count = 0
    w.urgent_lost = 0
    w.held = 0


cdef void _free_start(Window* w, Start* s) noexcept nogil:
    w.held -= s.held
    free_readings(s.readings)
    free_readings(s.checkpoint)
    free_readings(s.mark)
    memset(s, 0, sizeof(Start))


cdef Reading* _first_readings(const Window* w, const Start* s) noexcept nogil:
    cdef Reading* r
    if s.checkpoint != NULL:
        return copy_readings(s.checkpoint)
    r = new_reading(w.first)
    if r != NULL:
        r.began = s.at
    return r


# ---- offsets and starts


cdef int64_t offset_of(const Window* w, uint32_t seq) noexcept nogil:
    """The stream offset of a sequence number: the one nearest to where some reading stands, or stood that had to go.

    Not just the first: of two connections half the number space apart the other would change sides as soon as the
    first is read on.
    """
    cdef int64_t at = <int32_t>(seq - w.base)
    cdef int64_t nearest = -1
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE:
            _nearer(w, seq, w.starts[i].frontier, &nearest, &at)
    for i in range(min(<int>w.given_up, <int>MAX_GIVEN_UP)):
        _nearer(w, seq, w.given_up_to[i], &nearest, &at)
    return at


cdef inline void _nearer(const Window* w, uint32_t seq, int64_t place, int64_t* nearest, int64_t* at) noexcept nogil:
    cdef int32_t ahead = <int32_t>(seq - <uint32_t>(w.base + <uint32_t>place))
    cdef int64_t distance = -<int64_t>ahead if ahead < 0 else ahead
    if nearest[0] < 0 or distance < nearest[0]:
        nearest[0] = distance
        at[0] = place + ahead


cdef void add_syn(Window* w, uint32_t seq) noexcept nogil:
    cdef int i
    cdef int64_t at
    if w.syn_count == 0:
        # What was kept from before the SYN (a stray segment) stays, on the SYN's scale.
        at = offset_of(w, seq)
        for i in range(MAX_STARTS):
            if w.starts[i].kind == START_LOWEST:
                _free_start(w, &w.starts[i])
    else:
        at = offset_of(w, seq)
        for i in range(MAX_STARTS):
            if w.starts[i].kind == START_SYN and w.starts[i].at == at:
                return
    if w.syn_count < 255:
        w.syn_count += 1
    add_start(w, START_SYN, at)


cdef void add_lost(Window* w, uint32_t seq, uint32_t size) noexcept nogil:
    """A stream behind a SYN of which the first bytes, `size` of them, are not known any more.

    It is one that was given up. What comes of it is read behind those bytes; or from their beginning, where it is
    another copy of them. These are two places, for what stands between them may never come.
    """
    cdef int i
    cdef int64_t at = offset_of(w, seq)
    cdef Start gone
    memset(&gone, 0, sizeof(Start))
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at:
            if w.starts[i].kind != START_SYN or not w.starts[i].unread:
                return                      # it is being read
            _free_start(w, &w.starts[i])
            _move_up(w)
            break
    gone.kind = START_SYN
    gone.at = at
    gone.frontier = at + <int64_t>size
    _give_up(w, &gone)
    gone.at = gone.frontier
    _give_up(w, &gone)


cdef bint begins_at(const Window* w, uint32_t seq) noexcept nogil:
    """Whether a start stands at this sequence number."""
    cdef int i
    cdef int64_t at = offset_of(w, seq)
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at:
            return True
    return False


cdef bint add_start(Window* w, uint8_t kind, int64_t at) noexcept nogil:
    """A start in a free place, else in that of one which has come to nothing. False if there is none.

    Behind a SYN one more must be found: that of a connection which was read to its end (ports are used again) goes
    first. If all are still being read, somebody crowds them out, and that is an overflow. Late bytes take the place
    of others that have not come to a message; if all have, the same holds. Once a SYN's start had to go, any bytes
    may be those of its stream, and a place for them must be found like one for a SYN.
    """
    cdef int i, place = -1
    cdef bint taken_back = False
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at == at and w.starts[i].checkpoint == NULL:
            if kind == START_SYN:
                w.starts[i].kind = kind
            return True
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_FREE:
            place = i
            break
    if place < 0:
        for i in range(MAX_STARTS - 1, 0, -1):
            if not _is_live(&w.starts[i]) and not w.starts[i].message:
                place = i
                break
    if place < 0 and (kind == START_SYN or kind == START_LOWEST and w.given_up):
        place = MAX_STARTS - 1
        for i in range(MAX_STARTS - 1, -1, -1):
            if (_is_between_messages(&w.starts[i]) and w.starts[i].message
                    and not (kind == START_LOWEST and _reaches(&w.starts[i], at))):
                place = i
        if not _is_between_messages(&w.starts[place]) or kind == START_LOWEST and _reaches(&w.starts[place], at):
            place = -1
            for i in range(MAX_STARTS):
                if kind == START_LOWEST and _is_taken_back(w, &w.starts[i], at):
                    taken_back = True
                elif _is_guess(w, &w.starts[i]) and (place < 0 or _reaches(&w.starts[place], at)):
                    place = i
            if place < 0 and taken_back:
                return False                # these bytes are read again from there
            if place < 0:
                place = MAX_STARTS - 1
                w.overflow = 1
    if place < 0 and kind == START_LATE:
        for i in range(1, MAX_STARTS):
            if w.starts[i].kind >= START_LOOKS and not w.starts[i].message:
                place = i
                break
        if place < 0:
            w.overflow = 1
    if place < 0:
        return False
    _give_up(w, &w.starts[place])
    _free_start(w, &w.starts[place])
    w.starts[place].kind = kind
    w.starts[place].at = at
    w.starts[place].frontier = at
    w.starts[place].unread = 1
    if kind == START_LATE:
        if _is_passed_over(w, at):
            w.starts[place].unread = 0      # no message begins there; kept for one that turns out to begin below
        elif w.late_lost:
            w.overflow = 1                  # that one, and it may go on with what is lost
    if w.urgent_lost:
        w.overflow = 1
    return True


cdef inline bint _reaches(const Start* s, int64_t at) noexcept nogil:
    # These may be bytes of that stream: what is guessed of them is no reason to give it up.
    return s.at <= at and at <= s.frontier


cdef bint _is_guess(const Window* w, const Start* s) noexcept nogil:
    # Taken back (take_back), and come to nothing yet. It may go: it is taken back again, or anything is read from.
    cdef uint32_t i
    if s.kind != START_LOWEST or s.message:
        return False
    if w.given_up > <uint32_t>MAX_GIVEN_UP:
        return True
    for i in range(w.given_up):
        if s.unread and (s.at == w.given_up_at[i] or s.at == w.given_up_to[i]):
            return True
    return False


cdef bint _is_taken_back(const Window* w, const Start* s, int64_t at) noexcept nogil:
    # A stream that was given up behind these bytes, which will be read from its beginning again.
    cdef uint32_t i
    if s.kind != START_LOWEST or not s.unread:
        return False
    for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.at == w.given_up_at[i] and s.at <= at and at < w.given_up_to[i]:
            return True
    return False


cdef inline bint _is_passed_over(const Window* w, int64_t at) noexcept nogil:
    return w.body_at <= at and at < w.body_end


cdef void _give_up(Window* w, const Start* s) noexcept nogil:
    # Remembers a SYN's start that has to go; or how far it was read, of one that was taken back meanwhile.
    cdef uint32_t i
    for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.kind != START_FREE and (s.at == w.given_up_at[i] or s.at == w.given_up_to[i]):
            w.given_up_to[i] = max(w.given_up_to[i], s.frontier)
            if s.at == w.given_up_at[i]:
                return
    if s.kind == START_SYN:
        i = w.given_up % <uint32_t>MAX_GIVEN_UP
        if w.given_up >= <uint32_t>MAX_GIVEN_UP:
            _end_stream(w, i)
        w.given_up_at[i] = s.at
        w.given_up_to[i] = s.frontier
        w.given_up += 1


cdef void _end_stream(Window* w, uint32_t which) noexcept nogil:
    # The oldest that was given up: its bytes are not kept any more, unless they may be another's, too.
    cdef int64_t at = w.given_up_at[which], end = w.given_up_to[which]
    cdef uint32_t i
    if at == end:
        return
    for i in range(<uint32_t>MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at <= end and at <= w.starts[i].frontier + MAX_AHEAD:
            return
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if i != which and w.given_up_at[i] <= end and at <= w.given_up_to[i] + MAX_AHEAD:
            return
    if _note_over(w, at, end, False):
        drop_between(&w.segments, at, end)


cdef bint _note_over(Window* w, int64_t at, int64_t end, uint32_t goes_on) noexcept nogil:
    cdef Over* last
    cdef uint32_t seq = w.base + <uint32_t>at
    if w.over == NULL:
        w.over = <Over*>malloc(MAX_OVER * sizeof(Over))
        if w.over == NULL:
            return False
        w.held += <uint32_t>(MAX_OVER * sizeof(Over))
    if w.over_count:
        last = &w.over[(w.over_count - 1) % <uint32_t>MAX_OVER]
        if last.goes_on == goes_on and last.seq + last.size == seq and last.size < 1 << 30:
            last.size += <uint32_t>(end - at)
            return True
    last = &w.over[w.over_count % <uint32_t>MAX_OVER]
    last.seq, last.size, last.goes_on = seq, <uint32_t>(end - at), goes_on
    w.over_count += 1
    return True


cdef bint _is_lost(const Window* w, int64_t at) noexcept nogil:
    # Whether the byte there has come, for all that is known, and is not kept.
    cdef uint32_t i
    for i in range(min(w.over_count, <uint32_t>MAX_OVER)):
        if w.base + <uint32_t>at - w.over[i].seq < w.over[i].size:
            return True
    return False


cdef bint _is_over(const Window* w, int64_t at, size_t size) noexcept nogil:
    # Whether these may be other copies of bytes that are not kept any more.
    cdef uint32_t seq = w.base + <uint32_t>at
    cdef uint32_t i
    for i in range(min(w.over_count, <uint32_t>MAX_OVER)):
        if not w.over[i].goes_on and (seq - w.over[i].seq < w.over[i].size or w.over[i].seq - seq < size):
            return True
    if w.over_count <= <uint32_t>MAX_OVER:
        return False
    for i in range(<uint32_t>MAX_STARTS):
        if w.starts[i].kind != START_FREE and w.starts[i].at <= at and at <= w.starts[i].frontier + MAX_AHEAD:
            return False
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if w.given_up_at[i] <= at and at <= w.given_up_to[i] + MAX_AHEAD:
            return False
    return True


cdef void take_back(Window* w, int64_t at, size_t size) noexcept nogil:
    """Starts again where bytes at this offset may belong to a SYN that was given up.

    It was read to its end, so it is read on from there; but bytes below that are another copy of what was read. Bytes
    ahead of it are kept and wait for those between: ports that come round again quickly have their next sequence
    numbers there (Linux adds 65537 to the last one where tcp_tw_reuse is on). Of so many that not all are remembered,
    it is read from here, unless it may be another copy of bytes that are not kept any more: that is an overflow.
    Where that makes another go whose bytes these may be, too, somebody crowds them out.
    """
    cdef uint32_t i, k, turn
    cdef int64_t wanted
    cdef bint stands
    for turn in range(2):
        for i in range(min(w.given_up, <uint32_t>MAX_GIVEN_UP)):
            if at > w.given_up_to[i] or at + <int64_t>size <= w.given_up_at[i]:
                continue
            wanted = w.given_up_at[i] if at < w.given_up_to[i] else w.given_up_to[i]
            stands = False
            for k in range(<uint32_t>MAX_STARTS):
                stands = stands or w.starts[k].kind != START_FREE and (
                    w.starts[k].at == w.given_up_at[i] or w.starts[k].at == wanted)
            if not stands and turn:
                w.overflow = 1
            elif not stands:
                add_start(w, START_LOWEST, wanted)
    if w.given_up > <uint32_t>MAX_GIVEN_UP:
        if w.over_count and _is_over(w, at, size):
            w.overflow = 1
        add_start(w, START_LOWEST, at)


cdef bint _is_between_messages(const Start* s) noexcept nogil:
    cdef const Reading* r = s.readings
    while r != NULL:
        if r.kind != READ_ANY and not r.again and not lost(r):
            return False
        r = r.next
    return not s.unread


cdef void add_urgent(Window* w, int64_t at) noexcept nogil:
    cdef UrgentOutcome outcome = add_urgent_byte(&w.segments, at)
    cdef int i
    if outcome == URGENT_KNOWN:
        return
    if outcome == URGENT_LOST:
        # Where nothing is read any more it changes nothing: other protocols have many. Unless reading begins again.
        w.urgent_lost = 1
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_FREE or at < w.starts[i].at:
            continue
        if outcome != URGENT_LOST:
            if at < w.starts[i].frontier:
                _go_back(w, &w.starts[i], at)
        elif at < w.starts[i].frontier or _is_live(&w.starts[i]) or w.starts[i].again:
            w.overflow = 1


cdef void _go_back(Window* w, Start* s, int64_t at) noexcept nogil:
    # Of what was read, the bytes at `at` are not the only ones any more: readings begin again.
    free_readings(s.readings)
    s.readings = NULL
    s.frontier = s.at
    s.unread = 1
    s.again = 0
    if w.urgent_lost or w.late_lost and at < w.body_at:
        w.overflow = 1
    if at < s.mark_at:
        free_readings(s.mark)
        s.mark = NULL


cdef int64_t contiguous_end(Window* w) noexcept nogil:
    cdef int64_t at = w.starts[0].at
    cdef const Run* run = run_at(&w.segments, at)
    return at if run == NULL else max(at, run.at + <int64_t>run.size)


cdef int64_t joined_end(Window* w, int64_t at) noexcept nogil:
    return kept_end(&w.segments, at)


cdef bint is_open(const Window* w) noexcept nogil:
    cdef const Reading* r
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].unread:
            return True
        r = w.starts[i].readings
        while r != NULL:
            if not r.again and (w.http or not lost(r)):
                return True
            r = r.next
    return False


cdef bint is_unreadable(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if _is_live(&w.starts[i]):
            return False
    return True


cdef bint holds_part(const Window* w) noexcept nogil:
    # Bytes that wait for those before them, or a reading in the middle of a message, its body included.
    cdef const Start* s
    cdef const Reading* r
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        r = s.readings
        while r != NULL:
            if r.kind != READ_ANY and not is_fresh(r) and (w.http or not lost(r)):
                return True
            r = r.next
        if _is_live(s) and is_kept_beyond(&w.segments, s.frontier):
            return True
    return False


cdef bint goes_on(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if _is_active(&w.starts[i]) or w.starts[i].again:
            return True
    return False


cdef bint is_whole(const Window* w) noexcept nogil:
    # A body may be going on, or what is none of ours. No byte stands behind what was read.
    cdef const Start* s
    cdef const Reading* r
    cdef int64_t end = 0
    cdef bint reads = False
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if s.kind == START_FREE:
            continue
        if s.unread:
            return False
        if s.readings != NULL or s.again:
            end = max(end, s.frontier) if reads else s.frontier
            reads = True
        r = s.readings
        while r != NULL:
            if r.again:
                if not is_fresh(r):
                    return False
            elif r.kind != READ_ANY and not within_body(r) and not lost(r):
                return False
            r = r.next
    return not reads or not is_kept_beyond(&w.segments, end)


cdef bint is_contested(const Window* w) noexcept nogil:
    # More than one stream that is being read: not a connection that ended on the same ports, nor bytes sent again.
    cdef int i, starts = 0
    for i in range(MAX_STARTS):
        if _is_live(&w.starts[i]) and not _is_between_messages(&w.starts[i]):
            starts += 1
    return starts > 1 or w.segments.copies != NULL or w.segments.urgent_count != 0 and goes_on(w)


cdef bint in_body(const Window* w, int64_t at) noexcept nogil:
    cdef int i
    cdef const Reading* r
    for i in range(MAX_STARTS):
        r = w.starts[i].readings
        while r != NULL:
            if reader_of(r).body_left != NULL and w.starts[i].frontier + <int64_t>body_left(r) > at:
                return True
            r = r.next
    return False


cdef inline bint _is_active(const Start* s) noexcept nogil:
    return s.unread or s.readings != NULL


cdef bint _is_live(const Start* s) noexcept nogil:
    cdef const Reading* r = s.readings
    while r != NULL:
        if not lost(r):
            return True
        r = r.next
    return s.unread


cdef bint is_message(const Window* w) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].message:
            return True
    return False


cdef bint has_bytes(const Window* w, int64_t start) noexcept nogil:
    # Some byte has come that may be of the stream that begins there.
    return is_kept_within(&w.segments, start, start + <int64_t>MAX_AHEAD)


cdef bint is_strange(const Window* w, uint32_t seq) noexcept nogil:
    # Whether the first proven bytes find a window that others have filled: streams that begin elsewhere, and no byte
    # that may be of this one.
    cdef int64_t at = offset_of(w, seq)
    cdef bint others = w.given_up > 0
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and not -<int64_t>LATE_REACH <= at - w.starts[i].at < <int64_t>MAX_AHEAD:
            others = True
    return others and not is_run_within(&w.segments, at - <int64_t>MAX_AHEAD, at + <int64_t>MAX_AHEAD)


cdef bint is_far(const Window* w, uint32_t seq) noexcept nogil:
    # From every stream that is being read.
    cdef int64_t at = offset_of(w, seq)
    cdef int i
    for i in range(MAX_STARTS):
        if (w.starts[i].kind != START_FREE and at >= w.starts[i].at - LATE_REACH
                and at <= w.starts[i].frontier + <int64_t>MAX_AHEAD):
            return False
    return True


cdef bint looks_like_message(const uint8_t* data, size_t size) noexcept nogil:
    """A ClientHello record, or a method of capital letters with a target behind it."""
    cdef size_t i = 0
    if size >= 6 and data[0] == 0x16 and data[1] == 3:
        return data[5] == 1 and data[2] <= 4
    while i < size and i < 20 and data[i] >= 0x41 and data[i] <= 0x5A:
        i += 1
    return i >= 3 and i + 1 < size and data[i] == 0x20 and data[i + 1] > 0x20


# ---- bytes


cdef void add_bytes(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap) noexcept nogil:
    """Keeps what is new or different in `size` bytes at offset `at`; `cap` bounds the memory of the window."""
    cdef Change change
    cdef int i
    if w.body_open and not has_room(&w.segments, size, cap, w.held):
        _drop_late(w)
        if not has_room(&w.segments, size, cap, w.held):
            _slide(w, cap, True)
    change.floor = _floor(w)
    if at < change.floor:
        if at + <int64_t>size <= change.floor:
            return
        data += change.floor - at
        size -= <size_t>(change.floor - at)
        at = change.floor
    if size == 0 or at > _ceiling(w):
        return
    change.cap = cap
    change.others = w.held
    change.ranges = MAX_STARTS
    change.dropped = change.any = change.overflow = 0
    for i in range(MAX_STARTS):
        change.begin[i] = w.starts[i].at
        change.end[i] = w.starts[i].frontier            # a free one has read nothing
        change.at[i] = INT64_MAX
    add_piece(&w.segments, at, data, size, &change)
    w.dropped += change.dropped
    w.overflow |= change.overflow
    if change.any:
        for i in range(MAX_STARTS):
            if change.at[i] != INT64_MAX:
                _go_back(w, &w.starts[i], change.at[i])


cdef int64_t _floor(const Window* w) noexcept nogil:
    cdef int i
    cdef bint any_start = False
    cdef int64_t floor = 0
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and (not any_start or w.starts[i].at < floor):
            floor = w.starts[i].at
            any_start = True
    return floor


cdef int64_t _ceiling(const Window* w) noexcept nogil:
    cdef int i
    cdef bint any_start = False
    cdef int64_t ceiling = 0
    for i in range(MAX_STARTS):
        if w.starts[i].kind != START_FREE and (not any_start or w.starts[i].frontier > ceiling):
            ceiling = w.starts[i].frontier
            any_start = True
    return ceiling + MAX_AHEAD


# ---- reading


cdef void read_on(Window* w, Findings* out, uint32_t cap, uint32_t* work) noexcept nogil:
    """Lets every start's readings go on as far as the bytes reach."""
    cdef int i
    cdef int64_t stood
    cdef uint32_t most = PACKET_WORK if work[0] > PACKET_WORK else work[0]
    cdef uint32_t budget = most, moved = 0
    w.behind = 0
    w.share = PACKET_SHARE
    for i in range(MAX_STARTS):
        if _is_active(&w.starts[i]) or w.starts[i].again:
            stood = w.starts[i].frontier
            _advance(w, &w.starts[i], out, cap, &budget)
            moved |= <uint32_t>(w.starts[i].frontier > stood) << i
    work[0] -= most - budget
    if w.behind and w.first != READ_ANY:
        w.overflow = 1                  # the rest of a datagram's bytes may come with none
    if memory_of(w) >= cap // 2:
        _leave_behind(w, moved)
    if memory_of(w) >= cap // 4:
        _slide(w, cap, False)


cdef void _advance(Window* w, Start* s, Findings* out, uint32_t cap, uint32_t* budget) noexcept nogil:
    cdef Run* run
    cdef Reading* r
    cdef Reading* fork
    cdef Reading* rest
    cdef Kept after
    cdef Interval here
    cdef int64_t pos, need
    cdef uint32_t size, i, others, meet, cost, copies
    cdef bint plain, alone
    _account(w, s, False)
    while _is_active(s) or s.again:
        pos = s.frontier
        run = run_at(&w.segments, pos)
        if run == NULL or run.at + run.size <= pos:
            run = run.next if run != NULL else w.segments.runs      # behind a gap
            if run != NULL and _leap(s, run.at):
                w.forgetful = 1
                w.unseen += <uint64_t>(s.frontier - pos)
                _note_body(w, s)
                continue
            if w.over_count and s.kind != START_LATE and _is_lost(w, pos):
                w.overflow = 1                  # it has come to where another was: what that said, who knows
            break
        if w.share <= 0:
            w.behind = 1
            break
        if s.unread:
            s.unread = 0
            s.readings = _first_readings(w, s)
            if s.readings == NULL:
                w.overflow = 1
                break
        elif s.again:
            s.readings = _second_reading(w, s)
            s.again = 0
            if s.readings == NULL:
                w.overflow = 1
                break
        plain = is_plain(&w.segments) or not is_doubtful(&w.segments, pos)
        if plain:
            here.stop = run.at + run.size
            here.count = 1
            here.urgent = False
            here.versions[0] = run.data + (pos - run.at)
        elif not view_interval(&w.segments, run, pos, &here):
            w.overflow = 1
        others = 0
        r = s.readings
        while r != NULL:
            others += 1
            r = r.next
        alone = plain and others == 1
        if plain and here.stop - pos > <int64_t>SHARED_LEAST:
            here.stop = min(here.stop, pos + _slice(s.readings, others, here.versions[0][0]))
        size = <uint32_t>(here.stop - pos)
        meet = MEET_COST
        if reader_of(s.readings).comparing != NULL:
            meet += reader_of(s.readings).comparing(s.readings.state)
        copies = w.segments.copy_count
        if plain:
            cost = FEED_COST // 2 * others + others * others // 2 * meet
        else:
            cost = 4 * copies + here.count * here.count // 2 + here.count * (
                FORK_COST * others + weights(s.readings) // <uint32_t>COPIED_FOR_ONE)
            # With the bytes that each reading will take, unless it passes over them. Who waits has the next packet's
            # whole share, so that nobody waits twice.
            need = <int64_t>cost + <int64_t>here.count * others * size
            if (<int32_t>cost > w.share and w.share < PACKET_SHARE // 2
                    or need > w.share + FORK_SHARE and w.share < PACKET_SHARE):
                w.behind = 1
                break
            if <int32_t>cost > w.share + FORK_SHARE:
                w.overflow = 1
                free_readings(s.readings)
                s.readings = NULL
                break
        s.frontier = here.stop
        w.share -= <int32_t>cost
        if not plain:
            if not _spend(w, copies + here.count * here.count // 2, budget):
                free_readings(s.readings)
                s.readings = NULL
                break
            others = min(others * here.count, <uint32_t>MAX_READINGS)
        rest = s.readings
        s.readings = NULL
        _begin_to_keep(w, &after)
        while rest != NULL:
            r = rest
            rest = r.next
            r.next = NULL
            if here.urgent:                 # the byte may have been delivered out of band: a reading without it
                fork = copy_reading(r)
                if fork == NULL:
                    w.overflow = 1
                else:
                    keep(&after, fork)
            for i in range(here.count):
                fork = r
                if i + 1 < here.count:
                    fork = copy_reading(r)
                    if fork == NULL:
                        w.overflow = 1
                        continue
                if not plain and not _spend(w, size + FEED_COST + others * meet, budget):
                    free_readings(fork)
                    if fork == r:
                        r = NULL
                    continue
                follow(&after, fork, cursor(here.versions[i], size), pos, alone, out)
        _take_kept(w, s, &after)
        if after.count == 1 and is_fresh(s.readings):
            s.again = s.readings.kind       # nothing is kept of what may never come
            free_readings(s.readings)
            s.readings = NULL
        elif not plain and after.count > 1 and weights(s.readings) > cap:
            w.overflow = 1
            free_readings(s.readings)
            s.readings = NULL
    _account(w, s, True)


cdef inline void _begin_to_keep(const Window* w, Kept* after) noexcept nogil:
    after.share = w.share
    after.text = w.http
    after.cut_up = w.urgent_lost
    after.most = MAX_WAYS if is_plain(&w.segments) else MAX_READINGS
    after.overflow = after.message = after.again = after.stopped = 0
    after.cut = after.count = after.idle = 0
    after.digested = False


cdef inline void _take_kept(Window* w, Start* s, const Kept* after) noexcept nogil:
    cdef uint32_t i
    w.share = after.share
    w.http = after.text
    w.overflow |= after.overflow
    w.dropped += after.cut              # what was not kept of a target counts as what was not kept of the stream
    s.message |= after.message
    if after.again:
        s.began = after.began
    if after.stopped:
        w.behind = 1
        s.frontier = after.stopped_at
    for i in range(after.count):
        after.readings[i].next = s.readings
        s.readings = after.readings[i]
    _note_body(w, s)


cdef inline int64_t _slice(const Reading* r, uint32_t others, uint8_t first) noexcept nogil:
    # How much is read until the work is counted again. Of a body it is as much as there is, since it is passed over.
    if others > 1:
        return max(<int64_t>SHARED // others, <int64_t>SHARED_LEAST)
    if reader_of(r).short_lived or r.kind == READ_ANY and first < 0x20:
        return SHARED_SHORT
    return <int64_t>max(<uint64_t>SHARED, min(body_left(r), <uint64_t>MAX_AHEAD))


cdef Reading* _second_reading(const Window* w, const Start* s) noexcept nogil:
    # Of the same message, as far as reports are concerned: the same name once more is nothing new.
    cdef Reading* r = new_reading(s.again)
    if r != NULL:
        r.began = s.began
        r.again = 1
        reader_of(r).begin_again(r.state)
    return r


cdef bint _spend(Window* w, uint32_t cost, uint32_t* budget) noexcept nogil:
    if budget[0] < cost or w.work > <uint32_t>FLOW_WORK:
        w.overflow = 1
        return False
    budget[0] -= cost
    w.work += cost
    return True


cdef void _account(Window* w, Start* s, bint holds) noexcept nogil:
    # Readings count as memory of the window while nobody is at work on them.
    w.held -= s.held
    s.held = weights(s.readings) + weights(s.checkpoint) + weights(s.mark) if holds else 0
    w.held += s.held


cdef bint _leap(Start* s, int64_t to) noexcept nogil:
    # A gap inside a body that is passed over anyway need not be filled.
    cdef Reading* r = s.readings
    cdef uint64_t gap = <uint64_t>(to - s.frontier)
    if r == NULL or r.next != NULL or reader_of(r).pass_over == NULL or not reader_of(r).pass_over(r.state, gap):
        return False
    s.frontier = to
    return True


cdef void _note_body(Window* w, const Start* s) noexcept nogil:
    # Where the only reading passes over a body, its first bytes aside. What comes late there, or once more, changes
    # nothing, as long as what stands before the body is what was read.
    cdef const Reading* r = s.readings
    cdef uint64_t left
    cdef int i
    if s.kind == START_LATE:
        return
    for i in range(MAX_STARTS):
        if &w.starts[i] != s and _is_live(&w.starts[i]):
            return
    if r == NULL or r.next != NULL or not within_body(r):
        w.body_open = 0
        return
    if not w.body_open:
        w.body_open = 1
        w.body_at = s.frontier
        w.unseen = 0
        w.late_lost = 0
    left = body_left(r)
    w.body_end = s.frontier + <int64_t>(left if left < MAX_AHEAD else MAX_AHEAD)
    if w.unseen > MAX_UNSEEN:
        w.body_at = w.body_end


cdef void _drop_late(Window* w) noexcept nogil:
    # Late bytes of a body that was passed over make room for those to come: an upload may send many of them again.
    cdef int i
    cdef bint late = False, other = False
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_LATE and _is_passed_over(w, w.starts[i].at):
            late = True
        elif w.starts[i].kind != START_FREE:
            other = True
    if not late or not other:
        return
    for i in range(MAX_STARTS):
        if w.starts[i].kind == START_LATE and _is_passed_over(w, w.starts[i].at):
            _free_start(w, &w.starts[i])
    _move_up(w)
    _forget(w, _floor(w))
    w.late_lost = 1


cdef void _move_up(Window* w) noexcept nogil:
    # The first place tells where the stream stands.
    cdef int i
    for i in range(1, MAX_STARTS):
        if w.starts[0].kind == START_FREE and w.starts[i].kind != START_FREE:
            w.starts[0] = w.starts[i]
            memset(&w.starts[i], 0, sizeof(Start))


cdef void _slide(Window* w, uint32_t cap, bint hurry) noexcept nogil:
    # A long connection, of messages that may be long: its readings are marked now and then, and once half the memory
    # is used and a quarter of it lies behind the mark, what stands before the mark is forgotten; reading begins anew
    # from there, if it must. So what is sent again is compared with what it was for as long as clients usually send
    # it again. In a hurry all that was read is forgotten: for a body that could not be passed over otherwise.
    cdef Start* s
    cdef Reading* r
    cdef int64_t floor = 0
    cdef bint any_mark = False, ready = memory_of(w) >= cap // 2
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        r = s.readings
        while r != NULL:
            if reader_of(r).short_lived:
                return
            r = r.next
        if s.readings == NULL:
            continue
        if hurry:
            free_readings(s.mark)
            s.mark = NULL
        if s.mark == NULL:
            _mark(w, s)
        if s.mark == NULL or not hurry and s.frontier - s.mark_at < cap // 4:
            ready = False
        if not any_mark or s.mark_at < floor:
            floor = s.mark_at
        any_mark = True
    if not ready or not any_mark:
        return
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if s.readings == NULL:
            if s.at < floor:                # a beginning that nothing has come of
                _free_start(w, s)
            continue
        free_readings(s.checkpoint)
        s.checkpoint = s.mark
        s.at = s.mark_at
        s.mark = NULL
        _mark(w, s)
    _move_up(w)
    _forget(w, floor)


cdef void _leave_behind(Window* w, uint32_t moved) noexcept nogil:
    # Connections before this one on the same ports, read to their end, make room for that which has `moved`. One that
    # goes on all the same is read from where it stood.
    cdef Start* s
    cdef int64_t at, end
    cdef bint any_left = False
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts[i]
        if moved >> i & 1 or not _is_left_behind(w, s, moved):
            continue
        at, end = s.at, s.frontier
        if not _note_over(w, at, end, True):
            continue
        s.at = end
        _give_up(w, s)
        _free_start(w, s)
        drop_between(&w.segments, at, end)
        any_left = True
    if any_left:
        w.forgetful = 1
        _move_up(w)


cdef bint _is_left_behind(const Window* w, const Start* s, uint32_t moved) noexcept nogil:
    # Of one that may come upon these bytes, ahead or sent again, they stay.
    cdef const Start* other
    cdef bint left = False
    cdef int i
    if s.kind != START_SYN or not s.message or not _is_between_messages(s):
        return False
    for i in range(MAX_STARTS):
        other = &w.starts[i]
        if other == s or other.kind == START_FREE:
            continue
        if other.at <= s.frontier and s.at <= other.frontier + MAX_AHEAD:
            return False
        left = left or moved >> i & 1
    return left


cdef void _mark(Window* w, Start* s) noexcept nogil:
    s.mark = copy_readings(s.readings)
    s.mark_at = s.frontier
    _account(w, s, True)


cdef void _forget(Window* w, int64_t floor) noexcept nogil:
    # All bytes before `floor`. Where a stream was given up that may come upon them, it is known that they were there.
    cdef const Run* run = w.segments.runs
    while run != NULL and run.at < floor and w.given_up:
        _note_over(w, run.at, min(run.at + <int64_t>run.size, floor), True)
        run = run.next
    w.forgetful = 1
    drop_before(&w.segments, floor)
