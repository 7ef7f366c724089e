# What Python sees of matcher.pyx, for type checkers.

class Matcher:
    @property
    def list_names(self) -> tuple[str, ...]: ...
