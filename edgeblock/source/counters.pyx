"""The board's places, histograms and names for Python; counters.pxd says what it is."""

BOARD = {"heartbeat": HEARTBEAT, "queue": QUEUE_COUNTS, "judge": JUDGE_TIMES, "lookup": LOOKUP_TIMES,
         "verdict": VERDICT_TIMES, "engine": ENGINE_COUNTS, "engine_counters": COUNTERS, "hand": HAND,
         "words": BOARD_WORDS}
BOARD_NAMES = ("packets", "bytes", "passed", "dropped", "marked", "decisions", "failures", "unreadable", "cut",
               "refused", "unmarked", "overruns", "condemned", "condemned_packets")
BUCKET_SECONDS = tuple(2.0 ** (SMALLEST + i) * 1e-9 for i in range(BUCKETS - 1))
