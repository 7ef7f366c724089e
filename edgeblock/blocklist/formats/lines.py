"""What every reader of a list file shares: its items, its limits, and what is said about a line that is no text.

Never here: what a line means, an exception for what a file says.
"""

import re
from typing import NamedTuple

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.terms import Terms, read_terms

LINE_MAX = 16 * 1024    # a URL of 4096 canonical bytes is at most three times as long with every byte escaped
HOPELESS = 1024 * 1024  # bytes without a line end after which nobody reads on: a picture, not a list
SHOWN_MAX = 80          # characters of a line that a message repeats

BLANKS = b" \t\r\n\v\f"
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# A byte that was no character, as `encoded` lets it out.
ESCAPED = re.compile(rb"\xed([\xb2\xb3][\x80-\xbf])")

# How files begin that are packed in a way that is not read, or twice.
PACKED = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"),
          (b"PK\3\4", "zip"), (b"7z\xbc\xaf\x27\x1c", "7z"))


Attributes = tuple[tuple[str, str], ...]    # name and value, by name


class Entry(NamedTuple):
    """One rule of a list.

    `key` is what is compared: a canonical host; host, path and query of a canonical URL; what `network_key` makes of
    an address; or a host with that behind it, for a host at an address. `depth` is the number of path segments of a
    DIRECTORY entry. `attributes` are what the list says about it beside, of the names that its settings declare or
    that act.
    """

    line: int
    kind: Kind
    key: bytes
    exception: bool = False
    depth: int = 0
    attributes: Attributes = ()

    @property
    def terms(self) -> Terms | None:
        """What those of its attributes mean that act; None where there are none."""
        return read_terms(self.attributes) if self.attributes else None


class Problem(NamedTuple):
    """One line that cannot be used, and why, as a sentence without a final stop.

    `whole`: nothing of the file can be used, and nothing follows. `plain` is the reason without a word of the file,
    "" where nobody has made one.
    """

    line: int
    why: str
    whole: bool = False
    plain: str = ""


class Passed(NamedTuple):
    """A well-formed line that is nothing for this filter, and of what sort: ends "12 lines passed over: ...".

    `exception`: it would have lifted a block, so leaving it out may block somebody; `text` is the line, shortened.
    """

    line: int
    why: str
    exception: bool = False
    text: str = ""


class Remark(NamedTuple):
    """Something that a list manager should know of how a file is read: a column that was guessed, and why.
    `warning`: it is probably a mistake."""

    line: int
    why: str
    warning: bool = False


class Asked(NamedTuple):
    """An item of an order begins: what follows, up to the next, is of it.

    `number` counts from 1; `id` and `kind` are as the order has them, "" where they cannot be; `why` is why it cannot
    be used, without a word of the order, as the end of a sentence. Number 0 is the order itself, before all items:
    its `id` is what it is called.
    """

    line: int
    number: int
    id: str
    kind: str
    why: str = ""


class BadEntry(Exception):
    """Why a line is no entry: the end of a sentence that begins with the line. Never leaves the readers."""


class BadFile(Exception):
    """Why nothing of a file can be used: the end of a sentence that begins with "the file"; `plain` is the same
    without a word of the file, "" where nobody has made one. Stays in the readers."""

    def __init__(self, why: str, plain: str = "") -> None:
        super().__init__(why)
        self.plain = plain


Item = Entry | Problem | Passed | Remark | Asked


def no_text(number: int, line: bytes, raw: bool = False) -> Problem | None:
    """Why a line is no text; with `raw`, bytes that are no UTF-8 are."""
    if found := CONTROL.search(line):
        return Problem(number, f"the line has a control character (0x{found[0][0]:02x})")
    if not raw and not line.isascii():
        try:
            line.decode()
        except UnicodeDecodeError as error:
            if found := ESCAPED.match(line, error.start):
                byte = 0x80 + (found[1][0] - 0xb2 << 6) + (found[1][1] & 63)
                return Problem(number, f"the line has a byte (0x{byte:02x}) that is no character of the encoding "
                                       "that the settings of this list state")
            return Problem(number, f"the line is not UTF-8 (0x{line[error.start]:02x}); save it as UTF-8, or state "
                                   "its encoding in the settings of this list")
    return None


def shown(text: bytes) -> str:
    """A line as a message repeats it: printable, and not longer than a message bears."""
    whole = text.decode("utf-8", "backslashreplace")
    return repr(whole if len(whole) <= SHOWN_MAX else whole[:SHOWN_MAX] + "...")
