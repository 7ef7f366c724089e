"""The stream window: which bytes the client has sent, and every way a server could read them.

Comes in: byte ranges at stream offsets, in any order, overlapping, conflicting. Goes out: Findings, the names that
any reading a server could accept has come upon. Never here: a decision, a clock, an allocation without a cap.

How conflicts are read. Segment edges and urgent bytes cut the stream into intervals; inside an interval every version
is whole. All readings advance interval by interval; where versions differ each reading forks into one per version,
and readings that stand in the same place with the same texts are merged again. So a conflict in bytes that a protocol
passes over (random, key shares, other header fields, bodies) costs one step, and only a conflict in the name itself
makes a reading each. Nothing is ever released on the first name found: a later copy takes the readings back to the
start. What exceeds the caps sets `overflow`, and the engine's policy decides.

It holds the owners of its parts together: core/segments has the bytes, core/starts where the stream may begin, and
core/follow takes one reading through bytes. Here is what needs several of them: which bytes are read next, by which
readings, at what cost, and what may be forgotten.

One idea, though long: what is read next, what that costs and what may be forgotten for it are decided together, about
all three parts at once.
"""

from libc.stdint cimport INT64_MAX, int32_t
from libc.string cimport memset

from edgeblock.core.cursor cimport cursor
from edgeblock.core.follow cimport FORK_COST, FORK_SHARE, MAX_READINGS, MAX_WAYS, Kept, follow, keep
from edgeblock.core.reader cimport FEED_COST
from edgeblock.core.readers cimport READ_ANY, reader_at, readers
from edgeblock.core.reading cimport (Reading, body_left, copy_reading, copy_readings, free_readings, is_fresh, lost,
                                     reader_of, weights, within_body)
from edgeblock.core.segments cimport (URGENT_KNOWN, URGENT_LOST, Change, Interval, Run, UrgentOutcome, add_first,
                                      add_piece, add_urgent_byte, close_segments, drop_before, drop_between, has_room,
                                      is_doubtful, is_kept_beyond, is_kept_within, is_plain, is_run_within,
                                      kept_end, run_at, view_interval)
from edgeblock.core.starts cimport (LATE_REACH, MAX_AHEAD, MAX_GIVEN_UP, MAX_STARTS, START_FREE, START_LATE,
                                    START_LOOKS, START_LOWEST, START_SYN, Placed, Start, account, ceiling_of,
                                    close_starts, first_readings, floor_of, free_start, give_up, has_come, is_active,
                                    is_between_messages, is_left_behind, is_live, may_be_over, move_up, note_lost,
                                    note_over, note_syn, place_start, second_reading)

cdef enum:
    COPIED_FOR_ONE = 8         # so many bytes of a reading are copied, digested and freed in the time of one read
    # Bytes that all readings together take at a time, before the work is counted: the smallest units are the dearest.
    SHARED = 512
    SHARED_SHORT = 2048        # of what is certain not to fork
    SHARED_LEAST = 256         # the same of each, for many are compared each time
    MEET_COST = 8              # and of telling what became of it from one other reading
    MAX_UNSEEN = 1 << 30       # bytes of a body that never came: a decoy brings the numbers round with few packets


cdef void open_window(Window* w, uint8_t first, uint32_t base) noexcept nogil:
    memset(w, 0, sizeof(Window))
    w.first = first
    w.starts.base = base


cdef void close_window(Window* w) noexcept nogil:
    close_starts(&w.starts)
    close_segments(&w.segments)
    w.urgent_lost = 0


# ---- where it may begin


cdef void add_syn(Window* w, uint32_t seq) noexcept nogil:
    cdef int64_t at
    if note_syn(&w.starts, seq, &at):
        add_start(w, START_SYN, at)


cdef void add_lost(Window* w, uint32_t seq, uint32_t size) noexcept nogil:
    cdef Placed placed
    memset(&placed, 0, sizeof(Placed))
    note_lost(&w.starts, seq, size, &placed)
    _drop_ended(w, &placed)


cdef bint add_start(Window* w, uint8_t kind, int64_t at) noexcept nogil:
    """Whether there is a start, an old one or a new one."""
    cdef Placed placed
    cdef bint found
    memset(&placed, 0, sizeof(Placed))
    found = place_start(&w.starts, kind, at, &placed)
    w.overflow |= placed.crowded
    _drop_ended(w, &placed)
    if placed.start == NULL:
        return found
    if kind == START_LATE:
        if _is_passed_over(w, at):
            placed.start.unread = 0         # no message begins there; kept for one that turns out to begin below
        elif w.late_lost:
            w.overflow = 1                  # that one, and it may go on with what is lost
    if w.urgent_lost:
        w.overflow = 1
    return True


cdef inline void _drop_ended(Window* w, const Placed* placed) noexcept nogil:
    cdef uint8_t i
    for i in range(placed.ended):
        drop_between(&w.segments, placed.begin[i], placed.end[i])


cdef void choose_starts(Window* w, bint syn, int64_t at, const uint8_t* data, size_t size) noexcept nogil:
    """Where else may a message begin? Behind a SYN there is no doubt, as long as that reading leads anywhere."""
    cdef int64_t floor = 0, frontier = 0
    cdef bint any_start = False
    cdef const Start* s
    cdef int i, lowest = -1
    for i in range(MAX_STARTS):
        s = &w.starts.items[i]
        if s.kind == START_FREE:
            continue
        floor = s.at if not any_start else min(floor, s.at)
        frontier = s.frontier if not any_start else max(frontier, s.frontier)
        any_start = True
        if s.kind == START_LOWEST:
            lowest = i
    if w.starts.given_up:
        _take_back(w, at, size)
    if not any_start:
        if not is_open(w):
            add_start(w, START_LOWEST, at)
        return
    if at == frontier and goes_on(w):
        return                      # in order, and read: the common case
    if w.behind and at <= contiguous_end(w):
        return                      # in order, and will be read
    if w.forgetful and (at < floor or at > frontier + MAX_AHEAD):
        # What was read here is forgotten. A client who sends it again does no harm; but it may all have been a
        # decoy that died on the way, and this the first that the server gets.
        add_start(w, START_LATE, at)
        return
    if syn and w.starts.syn_count < MAX_STARTS and not w.forgetful:
        if at < floor or is_open(w) and at <= frontier or is_message(w) and not w.http:
            return
    if syn and w.starts.syn_count >= MAX_STARTS and (at < floor or at > frontier + MAX_AHEAD):
        add_start(w, START_LOWEST, at)
    elif looks_like_message(data, size) and not in_body(w, at):
        if at < floor or at > frontier or not is_open(w):
            add_start(w, START_LOOKS, at)
    elif lowest >= 0 and at < floor and floor - at <= LATE_REACH and not w.starts.items[lowest].message:
        add_start(w, START_LOWEST, at)


cdef void _take_back(Window* w, int64_t at, size_t size) noexcept nogil:
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
        for i in range(min(w.starts.given_up, <uint32_t>MAX_GIVEN_UP)):
            if at > w.starts.given_up_to[i] or at + <int64_t>size <= w.starts.given_up_at[i]:
                continue
            wanted = w.starts.given_up_at[i] if at < w.starts.given_up_to[i] else w.starts.given_up_to[i]
            stands = False
            for k in range(<uint32_t>MAX_STARTS):
                stands = stands or w.starts.items[k].kind != START_FREE and (
                    w.starts.items[k].at == w.starts.given_up_at[i] or w.starts.items[k].at == wanted)
            if not stands and turn:
                w.overflow = 1
            elif not stands:
                add_start(w, START_LOWEST, wanted)
    if w.starts.given_up > <uint32_t>MAX_GIVEN_UP:
        if w.starts.over_count and may_be_over(&w.starts, at, size):
            w.overflow = 1
        add_start(w, START_LOWEST, at)


cdef inline bint _is_passed_over(const Window* w, int64_t at) noexcept nogil:
    return w.body_at <= at and at < w.body_end


cdef void add_urgent(Window* w, int64_t at) noexcept nogil:
    cdef UrgentOutcome outcome = add_urgent_byte(&w.segments, at)
    cdef int i
    if outcome == URGENT_KNOWN:
        return
    if outcome == URGENT_LOST:
        # Where nothing is read any more it changes nothing: other protocols have many. Unless reading begins again.
        w.urgent_lost = 1
    for i in range(MAX_STARTS):
        if w.starts.items[i].kind == START_FREE or at < w.starts.items[i].at:
            continue
        if outcome != URGENT_LOST:
            if at < w.starts.items[i].frontier:
                _go_back(w, &w.starts.items[i], at)
        elif at < w.starts.items[i].frontier or is_live(&w.starts.items[i]) or w.starts.items[i].again:
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
    cdef int64_t at = w.starts.items[0].at
    cdef const Run* run = run_at(&w.segments, at)
    return at if run == NULL else max(at, run.at + <int64_t>run.size)


cdef int64_t joined_end(Window* w, int64_t at) noexcept nogil:
    return kept_end(&w.segments, at)


cdef bint is_open(const Window* w) noexcept nogil:
    cdef const Reading* r
    cdef int i
    for i in range(MAX_STARTS):
        if w.starts.items[i].unread:
            return True
        r = w.starts.items[i].readings
        while r != NULL:
            if not r.again and (w.http or not lost(r)):
                return True
            r = r.next
    return False


cdef bint holds_part(const Window* w) noexcept nogil:
    # Bytes that wait for those before them, or a reading in the middle of a message, its body included.
    cdef const Start* s
    cdef const Reading* r
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts.items[i]
        r = s.readings
        while r != NULL:
            if r.kind != READ_ANY and not is_fresh(r) and (w.http or not lost(r)):
                return True
            r = r.next
        if is_live(s) and is_kept_beyond(&w.segments, s.frontier):
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
        s = &w.starts.items[i]
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
        if is_live(&w.starts.items[i]) and not is_between_messages(&w.starts.items[i]):
            starts += 1
    return starts > 1 or w.segments.copies != NULL or w.segments.urgent_count != 0 and goes_on(w)


cdef bint in_body(const Window* w, int64_t at) noexcept nogil:
    cdef int i
    cdef const Reading* r
    for i in range(MAX_STARTS):
        r = w.starts.items[i].readings
        while r != NULL:
            if reader_of(r).body_left != NULL and w.starts.items[i].frontier + <int64_t>body_left(r) > at:
                return True
            r = r.next
    return False


cdef bint has_bytes(const Window* w, int64_t start) noexcept nogil:
    # Some byte has come that may be of the stream that begins there.
    return is_kept_within(&w.segments, start, start + <int64_t>MAX_AHEAD)


cdef bint is_strange(const Window* w, uint32_t seq) noexcept nogil:
    # Whether the first proven bytes find a window that others have filled: streams that begin elsewhere, and no byte
    # that may be of this one.
    cdef int64_t at = offset_of(w, seq)
    cdef bint others = w.starts.given_up > 0
    cdef int i
    for i in range(MAX_STARTS):
        if (w.starts.items[i].kind != START_FREE
                and not -<int64_t>LATE_REACH <= at - w.starts.items[i].at < <int64_t>MAX_AHEAD):
            others = True
    return others and not is_run_within(&w.segments, at - <int64_t>MAX_AHEAD, at + <int64_t>MAX_AHEAD)


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
    if w.body_open and not has_room(&w.segments, size, cap, w.starts.held):
        _drop_late(w)
        if not has_room(&w.segments, size, cap, w.starts.held):
            _slide(w, cap, True)
    change.floor = floor_of(&w.starts)
    if at < change.floor:
        if at + <int64_t>size <= change.floor:
            return
        data += change.floor - at
        size -= <size_t>(change.floor - at)
        at = change.floor
    if size == 0 or at > ceiling_of(&w.starts):
        return
    change.cap = cap
    change.others = w.starts.held
    change.ranges = MAX_STARTS
    change.dropped = change.any = change.overflow = 0
    for i in range(MAX_STARTS):
        change.begin[i] = w.starts.items[i].at
        change.end[i] = w.starts.items[i].frontier            # a free one has read nothing
        change.at[i] = INT64_MAX
    add_piece(&w.segments, at, data, size, &change)
    w.dropped += change.dropped
    w.overflow |= change.overflow
    if change.any:
        for i in range(MAX_STARTS):
            if change.at[i] != INT64_MAX:
                _go_back(w, &w.starts.items[i], change.at[i])


# ---- reading


cdef bint read_first(Window* w, int64_t at, const uint8_t* data, size_t size, uint32_t cap,
                     Findings* out) noexcept nogil:
    """The first bytes of all, read at once where the only stream begins with them and they begin like a message that
    is short: what `choose_starts`, `add_bytes` and `read_on` come to then. Else False, and nothing is done."""
    cdef Start* s = &w.starts.items[0]
    cdef int i
    if (not s.unread or at != s.at or not 0 < size <= <size_t>SHARED_SHORT or w.first != READ_ANY
            or not readers[reader_at[data[0]]].short_lived or w.segments.bytes or w.segments.urgent_count
            or w.starts.held or w.starts.given_up or w.starts.over_count or w.body_open
            or not has_room(&w.segments, size, cap, 0)):
        return False
    for i in range(1, MAX_STARTS):
        if w.starts.items[i].kind != START_FREE:
            return False
    s.readings = first_readings(s, w.first)
    if s.readings == NULL or not add_first(&w.segments, at, data, size):
        free_readings(s.readings)
        s.readings = NULL
        return False
    s.unread = 0
    w.behind = 0
    w.share = PACKET_SHARE - FEED_COST // 2
    _read_alone(w, s, data, <uint32_t>size, out)
    account(&w.starts, s, True)
    _make_room(w, cap, s.frontier > at)
    return True


cdef void read_on(Window* w, Findings* out, uint32_t cap, uint32_t* work) noexcept nogil:
    """Lets every start's readings go on as far as the bytes reach."""
    cdef int i
    cdef int64_t stood
    cdef uint32_t most = PACKET_WORK if work[0] > PACKET_WORK else work[0]
    cdef uint32_t budget = most, moved = 0
    w.behind = 0
    w.share = PACKET_SHARE
    for i in range(MAX_STARTS):
        if is_active(&w.starts.items[i]) or w.starts.items[i].again:
            stood = w.starts.items[i].frontier
            _advance(w, &w.starts.items[i], out, cap, &budget)
            moved |= <uint32_t>(w.starts.items[i].frontier > stood) << i
    work[0] -= most - budget
    if w.behind and w.first != READ_ANY:
        w.overflow = 1                  # the rest of a datagram's bytes may come with none
    _make_room(w, cap, moved)


cdef inline void _make_room(Window* w, uint32_t cap, uint32_t moved) noexcept nogil:
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
    account(&w.starts, s, False)
    while is_active(s) or s.again:
        pos = s.frontier
        run = run_at(&w.segments, pos)
        if run == NULL or run.at + run.size <= pos:
            run = run.next if run != NULL else w.segments.runs      # behind a gap
            if run != NULL and _leap(s, run.at):
                w.forgetful = 1
                w.unseen += <uint64_t>(s.frontier - pos)
                _note_body(w, s)
                continue
            if w.starts.over_count and s.kind != START_LATE and has_come(&w.starts, pos):
                w.overflow = 1                  # it has come to where another was: what that said, who knows
            break
        if w.share <= 0:
            w.behind = 1
            break
        if s.unread:
            s.unread = 0
            s.readings = first_readings(s, w.first)
            if s.readings == NULL:
                w.overflow = 1
                break
        elif s.again:
            s.readings = second_reading(s)
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
        w.share -= <int32_t>cost
        if alone:
            _read_alone(w, s, here.versions[0], size, out)
            continue
        s.frontier = here.stop
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
                follow(&after, fork, cursor(here.versions[i], size), pos, False, out)
        _take_kept(w, s, &after)
        if not plain and after.count > 1 and weights(s.readings) > cap:
            w.overflow = 1
            free_readings(s.readings)
            s.readings = NULL
    account(&w.starts, s, True)


cdef inline void _read_alone(Window* w, Start* s, const uint8_t* data, uint32_t size, Findings* out) noexcept nogil:
    # The only reading takes the only copy of the next bytes.
    cdef Kept after
    cdef Reading* r = s.readings
    cdef int64_t pos = s.frontier
    s.frontier += size
    s.readings = NULL
    _begin_to_keep(w, &after)
    follow(&after, r, cursor(data, size), pos, True, out)
    _take_kept(w, s, &after)


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
    if after.count == 1 and is_fresh(s.readings):
        s.again = s.readings.kind       # nothing is kept of what may never come
        free_readings(s.readings)
        s.readings = NULL


cdef inline int64_t _slice(const Reading* r, uint32_t others, uint8_t first) noexcept nogil:
    # How much is read until the work is counted again. Of a body it is as much as there is, since it is passed over.
    if others > 1:
        return max(<int64_t>SHARED // others, <int64_t>SHARED_LEAST)
    if reader_of(r).short_lived or r.kind == READ_ANY and first < 0x20:
        return SHARED_SHORT
    return <int64_t>max(<uint64_t>SHARED, min(body_left(r), <uint64_t>MAX_AHEAD))


cdef bint _spend(Window* w, uint32_t cost, uint32_t* budget) noexcept nogil:
    if budget[0] < cost or w.work > <uint32_t>FLOW_WORK:
        w.overflow = 1
        return False
    budget[0] -= cost
    w.work += cost
    return True


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
        if &w.starts.items[i] != s and is_live(&w.starts.items[i]):
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
        if w.starts.items[i].kind == START_LATE and _is_passed_over(w, w.starts.items[i].at):
            late = True
        elif w.starts.items[i].kind != START_FREE:
            other = True
    if not late or not other:
        return
    for i in range(MAX_STARTS):
        if w.starts.items[i].kind == START_LATE and _is_passed_over(w, w.starts.items[i].at):
            free_start(&w.starts, &w.starts.items[i])
    move_up(&w.starts)
    _forget(w, floor_of(&w.starts))
    w.late_lost = 1


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
        s = &w.starts.items[i]
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
        s = &w.starts.items[i]
        if s.readings == NULL:
            if s.at < floor:                # a beginning that nothing has come of
                free_start(&w.starts, s)
            continue
        free_readings(s.checkpoint)
        s.checkpoint = s.mark
        s.at = s.mark_at
        s.mark = NULL
        _mark(w, s)
    move_up(&w.starts)
    _forget(w, floor)


cdef void _leave_behind(Window* w, uint32_t moved) noexcept nogil:
    # Connections before this one on the same ports, read to their end, make room for that which has `moved`. One that
    # goes on all the same is read from where it stood.
    cdef Start* s
    cdef Placed placed
    cdef int64_t at, end
    cdef bint any_left = False
    cdef int i
    for i in range(MAX_STARTS):
        s = &w.starts.items[i]
        if moved >> i & 1 or not is_left_behind(&w.starts, s, moved):
            continue
        at, end = s.at, s.frontier
        if not note_over(&w.starts, at, end, True):
            continue
        s.at = end
        memset(&placed, 0, sizeof(Placed))
        give_up(&w.starts, s, &placed)
        free_start(&w.starts, s)
        _drop_ended(w, &placed)
        drop_between(&w.segments, at, end)
        any_left = True
    if any_left:
        w.forgetful = 1
        move_up(&w.starts)


cdef void _mark(Window* w, Start* s) noexcept nogil:
    s.mark = copy_readings(s.readings)
    s.mark_at = s.frontier
    account(&w.starts, s, True)


cdef void _forget(Window* w, int64_t floor) noexcept nogil:
    # All bytes before `floor`. Where a stream was given up that may come upon them, it is known that they were there.
    cdef const Run* run = w.segments.runs
    while run != NULL and run.at < floor and w.starts.given_up:
        note_over(&w.starts, run.at, min(run.at + <int64_t>run.size, floor), True)
        run = run.next
    w.forgetful = 1
    drop_before(&w.segments, floor)
