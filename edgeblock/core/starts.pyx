"""Where a stream may begin; starts.pxd says what that is."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from edgeblock.core.readers cimport READ_ANY
from edgeblock.core.reading cimport copy_readings, free_readings, lost, new_reading, reader_of


cdef void close_starts(Starts* all) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE:
            free_start(all, &all.items[i])
    free(all.over)
    all.over = NULL
    all.over_count = 0
    all.held = 0


cdef void free_start(Starts* all, Start* s) noexcept nogil:
    all.held -= s.held
    free_readings(s.readings)
    free_readings(s.checkpoint)
    free_readings(s.mark)
    memset(s, 0, sizeof(Start))


cdef Reading* first_readings(const Start* s, uint8_t kind) noexcept nogil:
    cdef Reading* r
    if s.checkpoint != NULL:
        return copy_readings(s.checkpoint)
    r = new_reading(kind)
    if r != NULL:
        r.began = s.at
    return r


cdef Reading* second_reading(const Start* s) noexcept nogil:
    # Of the same message, as far as reports are concerned: the same name once more is nothing neall.
    cdef Reading* r = new_reading(s.again)
    if r != NULL:
        r.began = s.began
        r.again = 1
        reader_of(r).begin_again(r.state)
    return r


# ---- questions


cdef int64_t offset_in(const Starts* all, uint32_t seq) noexcept nogil:
    """The stream offset of a sequence number: the one nearest to where some reading stands, or stood that had to go.

    Not just the first: of two connections half the number space apart the other would change sides as soon as the
    first is read on.
    """
    cdef int64_t at = <int32_t>(seq - all.base)
    cdef int64_t nearest = -1
    cdef int i
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE:
            _nearer(all, seq, all.items[i].frontier, &nearest, &at)
    for i in range(min(<int>all.given_up, <int>MAX_GIVEN_UP)):
        _nearer(all, seq, all.given_up_to[i], &nearest, &at)
    return at


cdef inline void _nearer(const Starts* all, uint32_t seq, int64_t place, int64_t* nearest,
                         int64_t* at) noexcept nogil:
    cdef int32_t ahead = <int32_t>(seq - <uint32_t>(all.base + <uint32_t>place))
    cdef int64_t distance = -<int64_t>ahead if ahead < 0 else ahead
    if nearest[0] < 0 or distance < nearest[0]:
        nearest[0] = distance
        at[0] = place + ahead


cdef bint is_start(const Starts* all, uint32_t seq) noexcept nogil:
    """Whether a start stands at this sequence number."""
    cdef int i
    cdef int64_t at = offset_in(all, seq)
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE and all.items[i].at == at:
            return True
    return False


cdef bint is_far_from_all(const Starts* all, uint32_t seq) noexcept nogil:
    # From every stream that is being read.
    cdef int64_t at = offset_in(all, seq)
    cdef int i
    for i in range(MAX_STARTS):
        if (all.items[i].kind != START_FREE and at >= all.items[i].at - LATE_REACH
                and at <= all.items[i].frontier + <int64_t>MAX_AHEAD):
            return False
    return True


cdef bint is_between_messages(const Start* s) noexcept nogil:
    cdef const Reading* r = s.readings
    while r != NULL:
        if r.kind != READ_ANY and not r.again and not lost(r):
            return False
        r = r.next
    return not s.unread


cdef bint some_goes_on(const Starts* all) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if is_active(&all.items[i]) or all.items[i].again:
            return True
    return False


cdef bint some_is_message(const Starts* all) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if all.items[i].message:
            return True
    return False


cdef bint all_are_lost(const Starts* all) noexcept nogil:
    cdef int i
    for i in range(MAX_STARTS):
        if is_live(&all.items[i]):
            return False
    return True


cdef bint is_left_behind(const Starts* all, const Start* s, uint32_t moved) noexcept nogil:
    # Of one that may come upon these bytes, ahead or sent again, they stay.
    cdef const Start* other
    cdef bint left = False
    cdef int i
    if s.kind != START_SYN or not s.message or not is_between_messages(s):
        return False
    for i in range(MAX_STARTS):
        other = &all.items[i]
        if other == s or other.kind == START_FREE:
            continue
        if other.at <= s.frontier and s.at <= other.frontier + MAX_AHEAD:
            return False
        left = left or moved >> i & 1
    return left


cdef uint32_t begun_before(const Starts* all, uint32_t seq, uint32_t* out) noexcept nogil:
    cdef int64_t at = offset_in(all, seq)
    cdef uint32_t count = 0
    cdef int i
    for i in range(min(<int>all.given_up, <int>MAX_GIVEN_UP)):
        if 0 <= at - all.given_up_at[i] < <int64_t>MAX_AHEAD:
            out[count] = all.base + <uint32_t>all.given_up_at[i]
            count += 1
    for i in range(MAX_STARTS):
        if all.items[i].kind == START_SYN and 0 <= at - all.items[i].at < <int64_t>MAX_AHEAD:
            out[count] = all.base + <uint32_t>all.items[i].at
            count += 1
    return count


# ---- places


cdef bint note_syn(Starts* all, uint32_t seq, int64_t* at) noexcept nogil:
    cdef int i
    at[0] = offset_in(all, seq)
    for i in range(MAX_STARTS):
        if all.syn_count == 0:
            # What was kept from before the SYN (a stray segment) stays, on the SYN's scale.
            if all.items[i].kind == START_LOWEST:
                free_start(all, &all.items[i])
        elif all.items[i].kind == START_SYN and all.items[i].at == at[0]:
            return False
    if all.syn_count < 255:
        all.syn_count += 1
    return True


cdef void note_lost(Starts* all, uint32_t seq, uint32_t size, Placed* out) noexcept nogil:
    """A stream behind a SYN of which the first bytes, `size` of them, are not known any more.

    It is one that was given up. What comes of it is read behind those bytes; or from their beginning, where it is
    another copy of them. These are two places, for what stands between them may never come.
    """
    cdef int i
    cdef int64_t at = offset_in(all, seq)
    cdef Start gone
    memset(&gone, 0, sizeof(Start))
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE and all.items[i].at == at:
            if all.items[i].kind != START_SYN or not all.items[i].unread:
                return                      # it is being read
            free_start(all, &all.items[i])
            move_up(all)
            break
    gone.kind = START_SYN
    gone.at = at
    gone.frontier = at + <int64_t>size
    give_up(all, &gone, out)
    gone.at = gone.frontier
    give_up(all, &gone, out)


cdef bint place_start(Starts* all, uint8_t kind, int64_t at, Placed* out) noexcept nogil:
    """A start in a free place, else in that of one which has come to nothing. False if there is none.

    Behind a SYN one more must be found: that of a connection which was read to its end (ports are used again) goes
    first. If all are still being read, somebody crowds them out, and that is an overflow. Late bytes take the place
    of others that have not come to a message; if all have, the same holds. Once a SYN's start had to go, any bytes
    may be those of its stream, and a place for them must be found like one for a SYN.
    """
    cdef int i, place = -1
    cdef bint taken_back = False
    for i in range(MAX_STARTS):
        if all.items[i].kind != START_FREE and all.items[i].at == at and all.items[i].checkpoint == NULL:
            if kind == START_SYN:
                all.items[i].kind = kind
            return True
    for i in range(MAX_STARTS):
        if all.items[i].kind == START_FREE:
            place = i
            break
    if place < 0:
        for i in range(MAX_STARTS - 1, 0, -1):
            if not is_live(&all.items[i]) and not all.items[i].message:
                place = i
                break
    if place < 0 and (kind == START_SYN or kind == START_LOWEST and all.given_up):
        place = MAX_STARTS - 1
        for i in range(MAX_STARTS - 1, -1, -1):
            if (is_between_messages(&all.items[i]) and all.items[i].message
                    and not (kind == START_LOWEST and _reaches(&all.items[i], at))):
                place = i
        if not is_between_messages(&all.items[place]) or kind == START_LOWEST and _reaches(&all.items[place], at):
            place = -1
            for i in range(MAX_STARTS):
                if kind == START_LOWEST and _is_taken_back(all, &all.items[i], at):
                    taken_back = True
                elif _is_guess(all, &all.items[i]) and (place < 0 or _reaches(&all.items[place], at)):
                    place = i
            if place < 0 and taken_back:
                return False                # these bytes are read again from there
            if place < 0:
                place = MAX_STARTS - 1
                out.crowded = 1
    if place < 0 and kind == START_LATE:
        for i in range(1, MAX_STARTS):
            if all.items[i].kind >= START_LOOKS and not all.items[i].message:
                place = i
                break
        if place < 0:
            out.crowded = 1
    if place < 0:
        return False
    give_up(all, &all.items[place], out)
    free_start(all, &all.items[place])
    all.items[place].kind = kind
    all.items[place].at = at
    all.items[place].frontier = at
    all.items[place].unread = 1
    out.start = &all.items[place]
    return True


cdef inline bint _reaches(const Start* s, int64_t at) noexcept nogil:
    # These may be bytes of that stream: what is guessed of them is no reason to give it up.
    return s.at <= at and at <= s.frontier


cdef bint _is_guess(const Starts* all, const Start* s) noexcept nogil:
    # Taken back (take_back), and come to nothing yet. It may go: it is taken back again, or anything is read from.
    cdef uint32_t i
    if s.kind != START_LOWEST or s.message:
        return False
    if all.given_up > <uint32_t>MAX_GIVEN_UP:
        return True
    for i in range(all.given_up):
        if s.unread and (s.at == all.given_up_at[i] or s.at == all.given_up_to[i]):
            return True
    return False


cdef bint _is_taken_back(const Starts* all, const Start* s, int64_t at) noexcept nogil:
    # A stream that was given up behind these bytes, which will be read from its beginning again.
    cdef uint32_t i
    if s.kind != START_LOWEST or not s.unread:
        return False
    for i in range(min(all.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.at == all.given_up_at[i] and s.at <= at and at < all.given_up_to[i]:
            return True
    return False


cdef void move_up(Starts* all) noexcept nogil:
    # The first place tells where the stream stands.
    cdef int i
    for i in range(1, MAX_STARTS):
        if all.items[0].kind == START_FREE and all.items[i].kind != START_FREE:
            all.items[0] = all.items[i]
            memset(&all.items[i], 0, sizeof(Start))


# ---- streams that had to go


cdef void give_up(Starts* all, const Start* s, Placed* out) noexcept nogil:
    # Remembers a SYN's start that has to go; or how far it was read, of one that was taken back meanwhile.
    cdef uint32_t i
    for i in range(min(all.given_up, <uint32_t>MAX_GIVEN_UP)):
        if s.kind != START_FREE and (s.at == all.given_up_at[i] or s.at == all.given_up_to[i]):
            all.given_up_to[i] = max(all.given_up_to[i], s.frontier)
            if s.at == all.given_up_at[i]:
                return
    if s.kind == START_SYN:
        i = all.given_up % <uint32_t>MAX_GIVEN_UP
        if all.given_up >= <uint32_t>MAX_GIVEN_UP:
            _end_stream(all, i, out)
        all.given_up_at[i] = s.at
        all.given_up_to[i] = s.frontier
        all.given_up += 1


cdef void _end_stream(Starts* all, uint32_t which, Placed* out) noexcept nogil:
    # The oldest that was given up: its bytes are not kept any more, unless they may be another's, too.
    cdef int64_t at = all.given_up_at[which], end = all.given_up_to[which]
    cdef uint32_t i
    if at == end:
        return
    for i in range(<uint32_t>MAX_STARTS):
        if all.items[i].kind != START_FREE and all.items[i].at <= end and at <= all.items[i].frontier + MAX_AHEAD:
            return
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if i != which and all.given_up_at[i] <= end and at <= all.given_up_to[i] + MAX_AHEAD:
            return
    if note_over(all, at, end, False):
        out.begin[out.ended] = at
        out.end[out.ended] = end
        out.ended += 1


cdef bint note_over(Starts* all, int64_t at, int64_t end, uint32_t goes_on) noexcept nogil:
    cdef Over* last
    cdef uint32_t seq = all.base + <uint32_t>at
    if all.over == NULL:
        all.over = <Over*>malloc(MAX_OVER * sizeof(Over))
        if all.over == NULL:
            return False
        all.held += <uint32_t>(MAX_OVER * sizeof(Over))
    if all.over_count:
        last = &all.over[(all.over_count - 1) % <uint32_t>MAX_OVER]
        if last.goes_on == goes_on and last.seq + last.size == seq and last.size < 1 << 30:
            last.size += <uint32_t>(end - at)
            return True
    last = &all.over[all.over_count % <uint32_t>MAX_OVER]
    last.seq, last.size, last.goes_on = seq, <uint32_t>(end - at), goes_on
    all.over_count += 1
    return True


cdef bint has_come(const Starts* all, int64_t at) noexcept nogil:
    # Whether the byte there has come, for all that is known, and is not kept.
    cdef uint32_t i
    for i in range(min(all.over_count, <uint32_t>MAX_OVER)):
        if all.base + <uint32_t>at - all.over[i].seq < all.over[i].size:
            return True
    return False


cdef bint may_be_over(const Starts* all, int64_t at, size_t size) noexcept nogil:
    # Whether these may be other copies of bytes that are not kept any more.
    cdef uint32_t seq = all.base + <uint32_t>at
    cdef uint32_t i
    for i in range(min(all.over_count, <uint32_t>MAX_OVER)):
        if not all.over[i].goes_on and (seq - all.over[i].seq < all.over[i].size or all.over[i].seq - seq < size):
            return True
    if all.over_count <= <uint32_t>MAX_OVER:
        return False
    for i in range(<uint32_t>MAX_STARTS):
        if all.items[i].kind != START_FREE and all.items[i].at <= at and at <= all.items[i].frontier + MAX_AHEAD:
            return False
    for i in range(<uint32_t>MAX_GIVEN_UP):
        if all.given_up_at[i] <= at and at <= all.given_up_to[i] + MAX_AHEAD:
            return False
    return True
