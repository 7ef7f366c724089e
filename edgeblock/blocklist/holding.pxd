# Whether the terms of a row hold: when, and in which hello. The part of a matcher that has a clock.
#
# In: a row that would apply (its fingerprint, value and list), and the moment. Out: whether it holds, and by which
# order. Nothing here is asked, and no clock read, for a name that no list has.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from edgeblock.core.matcher cimport Match, Matcher

cdef enum:
    SHIFTS_MAX = 16         # of a zone's clocks in 460 days: they are set twice a year
    STEPS_MAX = 32_768      # of one look-up, some 0.1 ms: beyond it no more terms hold but those of mandatory lists
    STEPS_SHIFT = 4         # so many steps weigh as much as a look-up of where a name leads

cdef struct Clock:          # a zone's clocks near now
    uint32_t count
    int32_t ahead           # seconds before UTC's, before the first shift
    int64_t at[SHIFTS_MAX]  # Unix seconds at which they are set,
    int32_t before[SHIFTS_MAX]
    int32_t after[SHIFTS_MAX]

cdef struct Weeks:          # weekly windows: SPANs of timetable.py
    const uint8_t* spans
    uint32_t count
    const uint16_t* zones   # for each zone of theirs its place in Holder.clocks
    uint32_t zone_count

cdef struct Timetable:      # the terms of a list's entries, as timetable.py lays them out, and its own
    const uint8_t* records
    size_t count
    const uint8_t* starts
    uint32_t set_count
    Weeks weeks
    bint bounded            # the list has a window
    int64_t begins
    int64_t ends
    Weeks whole

cdef struct Moment:         # of one look-up
    bint ech                # the hello has an Encrypted ClientHello
    bint of_ech             # a row was passed over for want of one
    bint has_now
    int64_t now             # Unix seconds, once they were asked for
    uint32_t steps          # records and weekly spans that were looked at

cdef class Holder(Matcher):
    cdef uint32_t list_count
    cdef list listed                # what the snapshot says of each list
    cdef Timetable* tables          # for each list
    cdef list held                  # what they point into
    cdef dict zones                 # each zone in them by name: its number in `clocks`
    cdef Clock* clocks
    cdef int64_t clocks_from, clocks_to     # when these are right
    cdef public bint anyhow         # terms hold always: for the trial of lists
    cdef bint has_asked
    cdef int64_t asked              # the moment that is asked about, where it is not now
    cdef dict layouts               # the terms of each list that has some, and where things are in them

    cdef int open_terms(self, snapshot) except -1
    cdef int set_weeks(self, Weeks* weeks, spans, names) except -1
    cdef int64_t now(self, Moment* moment) noexcept nogil
    cdef bint is_open(self, Moment* moment, const Weeks* weeks, uint32_t first, uint32_t behind) noexcept nogil
    # `said` is told whether it is only in a hello with an Encrypted ClientHello, and by which order.
    cdef bint holds(self, Moment* moment, const uint8_t* print, uint32_t value, uint32_t index,
                    Match* said) noexcept nogil
