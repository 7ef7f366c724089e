# What Python sees of counters.pyx, for type checkers.

BOARD: dict[str, int]
BOARD_NAMES: tuple[str, ...]
BUCKET_SECONDS: tuple[float, ...]
