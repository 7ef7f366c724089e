"""What a person can get wrong, as one line each that names the file, line or key and the way out.

Several mistakes at once are one error with a line each. `cli.main` prints the lines on standard error and exits with
status 2; nothing else in edgeblock catches these except where a last good state stays in force. Programming errors
stay Python's own exceptions.
"""


def printable(text: str) -> str:
    """The text with everything escaped that a terminal, a log or a person could take for something else: control
    characters, line ends, changes of writing direction, bytes of a file name that are no UTF-8."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


class EdgeblockError(Exception):
    """A problem whose message is meant for the person at the terminal: one line for each mistake, no traceback."""

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class ConfigError(EdgeblockError):
    """The configuration file or a command-line setting cannot be used."""


class ListError(EdgeblockError):
    """A list or a rules directory cannot be used."""


class CaptureError(EdgeblockError):
    """A capture file cannot be read."""


class SystemProblem(EdgeblockError):
    """This machine lacks something: a permission, a kernel feature, a program."""


class ReportError(EdgeblockError):
    """There is nothing to report from, or not of these days."""
