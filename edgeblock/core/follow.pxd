# One reading through bytes: it finds names, forks where servers go different ways, and is kept with those that go on.
#
# In: a reading, a piece of the stream, and what may be spent. Out: the readings at the end of the piece, each once,
# and what came of it. Never here: which bytes, and what is read next.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from edgeblock.core.cursor cimport Cursor
from edgeblock.core.findings cimport Findings
from edgeblock.core.reading cimport Reading

cdef enum:
    MAX_WAYS = 16              # readings where no bytes conflict: they part where servers frame a body differently
    MAX_READINGS = 64          # a name whose every byte has two copies has 2**n readings: more is an overflow
    FORK_COST = 128            # work of one more reading, besides its memory
    FORK_SHARE = 16 * 1024     # so much more than its share where readings part: beyond it, an overflow

cdef struct Kept:              # readings that have come to the end of a piece
    int32_t share              # what may still be spent
    uint8_t text               # the stream is certain to be text: no reading of it is given up unseen
    uint8_t cut_up             # not all urgent bytes are known: what is found may not be all
    uint8_t most               # readings that are kept: MAX_WAYS or MAX_READINGS
    uint8_t overflow           # what came of it: not all readings were followed,
    uint8_t message            # some is certain to be of a protocol we know,
    uint8_t again              # one has read a message behind which the server may ask for another, which
    int64_t began              # began here;
    uint8_t stopped            # alone, it has spent its share, and stopped
    int64_t stopped_at         # here;
    uint32_t cut               # so many names are not whole
    uint32_t count
    uint32_t idle
    bint digested              # one that stays alone needs no digest
    uint64_t digests[MAX_READINGS]
    Reading* readings[MAX_READINGS]

cdef void keep(Kept* after, Reading* r) noexcept nogil
# `at` is the offset of the bytes; `alone` where there is no other reading and no other copy of them.
cdef void follow(Kept* after, Reading* r, Cursor c, int64_t at, bint alone, Findings* out) noexcept nogil
