# The board: what a reader has counted, in memory that outlives its process.
#
# In: counts and times of one reader. Out: 64-bit words for whoever has mapped the board. Never here: what is counted.
# The first word is CLOCK_MONOTONIC in nanoseconds when packets were last asked for: the heartbeat. `hand` changes
# with every packet, so that a long batch is no silence. Counters go on from what a reader before has left there. They
# are written before the answers leave, so a killed reader takes none of its verdicts with it.

from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from edgeblock.core.engine cimport COUNTERS
from edgeblock.source.inhand cimport HAND_WORDS

cdef enum:
    HEARTBEAT = 0
    QUEUE_COUNTS = 1
    QUEUE_COUNTERS = 14
    BUCKETS = 24           # of a histogram: up to 256 ns, 512 ns, ... 2.1 s; the last takes all that is longer
    SMALLEST = 8           # the first bucket ends at 2 ** SMALLEST nanoseconds
    JUDGE_TIMES = QUEUE_COUNTS + QUEUE_COUNTERS          # buckets, then the sum in nanoseconds
    LOOKUP_TIMES = JUDGE_TIMES + BUCKETS + 1
    VERDICT_TIMES = LOOKUP_TIMES + BUCKETS + 1
    ENGINE_COUNTS = VERDICT_TIMES + BUCKETS + 1
    HAND = ENGINE_COUNTS + COUNTERS                      # struct Hand
    BOARD_WORDS = HAND + HAND_WORDS
    SAMPLE = 63            # one packet in 64 is timed


cdef inline uint64_t nanoseconds() noexcept nogil:
    cdef timespec clock
    clock_gettime(CLOCK_MONOTONIC, &clock)
    return <uint64_t>clock.tv_sec * 1000000000 + <uint64_t>clock.tv_nsec


cdef inline void note_time(uint64_t* histogram, uint64_t taken) noexcept nogil:
    cdef uint64_t rest = (taken - 1) >> SMALLEST if taken else 0
    cdef int bucket = 0
    while rest and bucket < BUCKETS - 1:
        rest >>= 1
        bucket += 1
    histogram[bucket] += 1
    histogram[BUCKETS] += taken
