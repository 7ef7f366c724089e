"""Whether the terms of a row hold: when, and in which hello (see the .pxd).

The wall clock alone says when: a window is one of calendars and wall clocks, so a step of the clock is a step into or
out of windows, at once. Of a clock in a zone only the shifts near now have to be known, which `keep_time` has.
"""

import time

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from edgeblock.blocklist.bitmap cimport load_u32
from edgeblock.blocklist.fingerprint cimport PRINT_SIZE, TERMS
from edgeblock.blocklist.terms import BadTerm, offset_at, shifts, zone_of
from edgeblock.blocklist.timetable import RECORD, SPAN, layout_of, order_text, spans_of, texts_of
from edgeblock.core.matcher cimport NO_ORDER

cdef enum:
    RECORD_SIZE = 44        # timetable.RECORD, and where things are in it
    ASKED = 20
    BEGINS_AT = 20
    ENDS_AT = 28
    SET_AT = 36             # and behind it the flags
    ORDER_AT = 40
    ONLY_ECH = 1
    NO_SET = 0xFFFF
    SPAN_SIZE = 12
    WEEK = 7 * 86400
    MONDAY = 3 * 86400      # seconds from the Monday before 1970 to it
    CLOCKS_BEFORE = 60 * 86400
    CLOCKS_AHEAD = 400 * 86400

assert RECORD.size == RECORD_SIZE and SPAN.size == SPAN_SIZE


cdef inline int64_t load_i64(const uint8_t* at) noexcept nogil:
    return <int64_t>(<uint64_t>load_u32(at) | <uint64_t>load_u32(at + 4) << 32)


cdef class Holder(Matcher):
    """A matcher that knows the terms of its rows. `anyhow`: they hold always, for the trial of lists."""

    def __cinit__(self):
        self.tables = NULL
        self.clocks = NULL

    def __dealloc__(self):
        free(self.tables)
        free(self.clocks)

    cdef int open_terms(self, snapshot) except -1:
        """The terms of all lists of a snapshot."""
        cdef const uint8_t[::1] blob
        cdef Timetable* table
        cdef size_t i
        self.listed = snapshot.parts.lists
        self.list_count = <uint32_t>len(self.listed)
        self.held, self.zones, self.layouts = [], {}, {}
        self.tables = <Timetable*>calloc(self.list_count + 1, sizeof(Timetable))
        if self.tables == NULL:
            raise MemoryError
        for i, record in enumerate(self.listed):
            window = record.window
            table = &self.tables[i]
            table.bounded = bool(window)
            table.begins, table.ends = window.begins, window.ends
            if window.weekly:
                spans, names = bytearray(), []
                for zone, begin, end in spans_of(window.weekly):
                    if zone not in names:
                        names.append(zone)
                    spans += SPAN.pack(names.index(zone), 0, begin, end)
                self.set_weeks(&table.whole, bytes(spans), names)
        for index, terms in snapshot.terms.items():
            if index >= self.list_count:
                continue
            layout = layout_of(terms)
            blob = terms
            self.held.append(terms)
            self.layouts[index] = terms, layout
            table = &self.tables[<size_t>index]
            table.records = &blob[0] + <size_t>layout.records
            table.count = layout.record_count
            table.starts = &blob[0] + <size_t>layout.starts
            table.set_count = layout.set_count
            if layout.set_count:
                self.set_weeks(&table.weeks, terms[layout.spans:layout.spans + layout.span_count * SPAN_SIZE],
                               texts_of(terms, layout.texts)[0])
        self.clocks = <Clock*>calloc(len(self.zones) + 1, sizeof(Clock))
        if self.clocks == NULL:
            raise MemoryError
        self.keep_time(time.time())
        return 0

    cdef int set_weeks(self, Weeks* weeks, spans, names) except -1:
        cdef const uint8_t[::1] view = spans
        cdef const uint8_t[::1] places
        numbers = bytearray()
        for name in names:
            numbers += (<int>self.zones.setdefault(name, len(self.zones))).to_bytes(2, "little")
        zones = bytes(numbers) + bytes(2)       # there is one byte at least
        places = zones
        self.held += [spans, zones]
        weeks.spans = &view[0] if view.shape[0] else NULL
        weeks.count = <uint32_t>(len(spans) // SPAN_SIZE)
        weeks.zones = <const uint16_t*>&places[0]
        weeks.zone_count = <uint32_t>len(names)
        return 0

    def keep_time(self, double now):
        """Has the shifts of clocks that are near `now` (Unix seconds); to be called every now and then. It looks by
        itself whether there is anything to do, which is once in some months, or when the clock was set by as much."""
        cdef int64_t at = <int64_t>max(min(now, 2e11), -5e10)       # years 0386 to 8307: what a datetime can be
        cdef Clock* clock
        if self.clocks_from <= at < self.clocks_to:
            return
        for name, i in self.zones.items():
            clock = &self.clocks[<size_t>i]
            clock.count = 0
            try:
                clock.ahead = offset_at(at - CLOCKS_BEFORE, zone_of(name))
                for shift in shifts(name, at - CLOCKS_BEFORE, at + CLOCKS_AHEAD)[:SHIFTS_MAX]:
                    clock.at[clock.count] = shift.at
                    clock.before[clock.count] = shift.before
                    clock.after[clock.count] = shift.after
                    clock.count += 1
            except BadTerm:             # the zone has gone from this system
                clock.count = SHIFTS_MAX + 1
        self.clocks_from = at - CLOCKS_BEFORE // 2
        self.clocks_to = at + CLOCKS_AHEAD // 2

    @property
    def at(self):
        """The moment that is asked about, in Unix seconds; None: now."""
        return self.asked if self.has_asked else None

    @at.setter
    def at(self, moment):
        self.has_asked = moment is not None
        if moment is not None:
            self.asked = <int64_t>max(min(moment // 1, 9e18), -9e18)
            self.keep_time(moment)
        else:
            self.keep_time(time.time())

    cdef bint is_open(self, Moment* moment, const Weeks* weeks, uint32_t first, uint32_t behind) noexcept nogil:
        # Whether one of these weekly windows holds: the clock has reached its begin, and is yet to reach its end for
        # the last time (terms.py has what that means where clocks are set).
        cdef uint32_t i, k, zone, known = SHIFTS_MAX + 1
        cdef int64_t reached = 0, ahead = 0, begin, end, passed, now = moment.now
        cdef const Clock* clock
        cdef const uint8_t* span
        for i in range(first, min(behind, weeks.count)):
            moment.steps += 1
            span = weeks.spans + i * SPAN_SIZE
            zone = <uint32_t>span[0] | <uint32_t>span[1] << 8
            if zone >= weeks.zone_count:
                continue
            clock = &self.clocks[weeks.zones[zone]]
            if clock.count > SHIFTS_MAX:
                continue
            if i == first or zone != known:
                known = zone
                ahead = now + clock.ahead
                for k in range(clock.count):
                    if clock.at[k] <= now:
                        ahead = now + clock.after[k]
                reached = ahead
                for k in range(clock.count):
                    if clock.at[k] <= now:
                        reached = max(reached, clock.at[k] - 1 + clock.before[k])
                    else:
                        ahead = min(ahead, clock.at[k] + clock.after[k] - 1)    # it shows that once more, then
                reached += MONDAY
                ahead += MONDAY
            begin = <int64_t>load_u32(span + 4) * 60
            end = <int64_t>load_u32(span + 8) * 60
            passed = (reached - begin) % WEEK           # since it began last
            if passed < 0:
                passed += WEEK
            if reached - passed - begin + end > ahead:
                return True
        return False

    cdef int64_t now(self, Moment* moment) noexcept nogil:
        cdef timespec clock
        if not moment.has_now:
            moment.has_now = True
            moment.now = self.asked
            if not self.has_asked:
                clock_gettime(CLOCK_REALTIME, &clock)
                moment.now = clock.tv_sec
        return moment.now

    cdef bint holds(self, Moment* moment, const uint8_t* print, uint32_t value, uint32_t index,
                    Match* said) noexcept nogil:
        # Whether a row's terms and its list's hold now.
        cdef const Timetable* table = &self.tables[index]
        cdef const uint8_t* record
        cdef uint8_t asked[ASKED]
        cdef size_t low = 0, high = table.count, middle
        cdef uint32_t which, flags, order
        cdef bint found = False
        cdef int64_t now = self.now(moment)
        said.of_ech = 0
        said.order = NO_ORDER
        if table.bounded and not self.anyhow and (
                now < table.begins or now >= table.ends
                or (table.whole.count and not self.is_open(moment, &table.whole, 0, table.whole.count))):
            return False
        if not value & TERMS:
            return True
        memcpy(asked, print, PRINT_SIZE)
        asked[16], asked[17], asked[18], asked[19] = <uint8_t>value, <uint8_t>(value >> 8), 0, 0
        while low < high:
            middle = (low + high) >> 1
            if memcmp(table.records + middle * RECORD_SIZE, asked, ASKED) < 0:
                low = middle + 1
            else:
                high = middle
        while low < table.count:
            record = table.records + low * RECORD_SIZE
            low += 1
            moment.steps += 1
            if memcmp(record, asked, ASKED) != 0:
                break
            flags = load_u32(record + SET_AT)
            which = flags & 0xFFFF
            flags >>= 16
            order = load_u32(record + ORDER_AT)
            if not self.anyhow and (now < load_i64(record + BEGINS_AT) or now >= load_i64(record + ENDS_AT)):
                continue
            if not self.anyhow and which != NO_SET and (which >= table.set_count or not self.is_open(
                    moment, &table.weeks, load_u32(table.starts + 4 * which),
                    load_u32(table.starts + 4 * which + 4))):
                continue
            if flags & ONLY_ECH and not self.anyhow and not moment.ech:
                moment.of_ech = True
                continue
            # Of several the one that needs no Encrypted ClientHello, and then the first.
            if not found or said.of_ech and not flags & ONLY_ECH:
                said.of_ech = flags & ONLY_ECH
                said.order = order
            found = True
        return found

    cpdef str order_of(self, uint32_t list_index, uint32_t order):
        """The number of the order of an entry, or else of its list; "" where neither has one."""
        if list_index >= self.list_count:
            return ""
        terms = self.layouts.get(list_index)
        said = order_text(*terms, order) if order != NO_ORDER and terms else {}
        return said.get("order") or self.listed[list_index].order.get("order", "")
