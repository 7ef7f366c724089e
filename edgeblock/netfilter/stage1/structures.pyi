# What Python sees of structures.pyx, for type checkers.

LAYOUT: tuple[int, ...]
SIZES: dict[str, tuple[int, int]]
