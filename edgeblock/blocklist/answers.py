"""What is known of each item of an order that was taken, for whoever answers it.

In: the items of an order on their way in (intake.py). Out: Answers as bytes, and back. They are kept in the state
directory (orders/NAME.json) and hold no text of an entry: ids as whoever asked has given them, rule ids, a mark that
is the same as long as the item is, windows in Unix seconds. Never here: a clock, a file.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import Asked, Entry
from edgeblock.blocklist.keys import Key, keyed_sum
from edgeblock.blocklist.parts import rule_number
from edgeblock.blocklist.settings import GUARD_KEYS
from edgeblock.blocklist.terms import OPEN, BadTerm, Window, parse_weekly
from edgeblock.errors import ListError

MARK = b'{"edgeblock": "outcome"'        # how an answer to an order begins; a file that does not is another's
ANSWERS_MAX = 128 << 20     # bytes of what is kept of one order: 500 for each item that it may have
HEAD, ROW = 8192, 160       # of these what stands before the items, and an item without its id and why
RULES_MAX = 4               # rule ids of one item that are told; a range of IPv4 addresses is up to 62 prefixes
MARK_SIZE = 12              # bytes
OVERRIDE = re.compile(rf"; if that is meant, put ({'|'.join(GUARD_KEYS)}) = ")     # in a refusal by a guard rail


class Answer(NamedTuple):
    """Of one item. `rules` are those that it became, none where it is refused; `why` is why it is, or a part of it,
    in words that are none of the order's, "" where it is taken; `window` is the index of its window, -1 where it has
    none; `in_kernel`: it has an address, which the kernel is to have, too; `more` rules than those it became."""

    number: int
    id: str
    why: str
    mark: str
    rules: list[str]
    window: int
    in_kernel: bool
    more: int = 0


TYPES = [int, str, str, str, list, int, bool, int]      # of an Answer


@dataclass
class Answers:
    """Of one order: its file, that one's digest, and the origin that its ListRecord has; what it is called; its
    items; their windows, and that of its list."""

    file: str
    sha256: str
    origin: str
    order: str
    items: list[Answer] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    window: Window = OPEN


class Gathered:
    """The items of one order on their way in: `begin`, then `add` or `refuse` for what is of it, then `finish`.
    `order` is what it is called, as soon as that is known. Raises ListError where there is more than can be kept."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self.order = ""
        self._size = HEAD
        self._rows: list[Answer] = []
        self._windows: dict[Window, int] = {}
        self._seen: list[object] = []       # of the item that is open
        self._begun: Asked | None = None
        self._rules: list[str] = []
        self._more = 0
        self._why, self._window, self._in_kernel = "", -1, False

    def begin(self, asked: Asked) -> None:
        self._end()
        if asked.number == 0:
            self.order = asked.id
            return
        self._begun, self._why, self._seen = asked, asked.why, [asked.id]
        self._rules, self._window, self._in_kernel, self._more = [], -1, False, 0
        self._hold(ROW, asked.id, asked.why)

    def _hold(self, size: int, *texts: object) -> None:
        """It is not taken what could not be answered."""
        self._size += size + sum(len(json.dumps(text)) for text in texts)
        if self._size > ANSWERS_MAX:
            raise ListError(f"has more than {ANSWERS_MAX} bytes to be answered; make it several orders")

    def add(self, entry: Entry) -> None:
        """An entry of the item is taken."""
        if len(self._rules) < RULES_MAX:
            self._rules.append(f"{rule_number(fingerprint(self._key, entry.key), entry.kind):08x}")
        else:
            self._more += 1
        if len(self._seen) == 1:
            terms = entry.terms
            if terms is not None and terms.window:
                if terms.window not in self._windows:
                    self._hold(0, plain(terms.window))
                self._window = self._windows.setdefault(terms.window, len(self._windows))
            self._seen += [terms and terms.window, terms and terms.ech]
        self._in_kernel |= entry.kind in (Kind.NETWORK, Kind.ENDPOINT)
        self._seen += [int(entry.kind), entry.key]

    def refuse(self, why: str) -> None:
        """An entry of the item is not taken, for the reason of a guard rail."""
        found = OVERRIDE.search(why)
        if self._why:
            return
        self._why = f"guard rail{f' {found[1]}' if found else ''}; `edgeblock lint` says why"
        self._hold(0, self._why)

    def _end(self) -> None:
        if self._begun is None:
            return
        mark = keyed_sum(repr(self._seen).encode(), self._key, MARK_SIZE).hex() if self._rules else ""
        self._rows.append(Answer(self._begun.number, self._begun.id, self._why, mark, self._rules, self._window,
                                 self._in_kernel, self._more))
        self._begun = None

    def finish(self, file: str, sha256: str, origin: str, window: Window) -> Answers:
        self._end()
        return Answers(file, sha256, origin, self.order, self._rows, list(self._windows), window)


def to_bytes(answers: Answers) -> bytes:
    """As JSON."""
    return json.dumps(vars(answers) | {
        "windows": [plain(one) for one in answers.windows], "window": plain(answers.window)}).encode()


def plain(window: Window) -> list[Any]:
    """A window as JSON has it."""
    return [window.begins, window.ends, [str(one) for one in window.weekly]]


def from_bytes(data: bytes) -> Answers | None:
    """What `to_bytes` has made; None where it is something else: whoever has written it may have been taken over."""
    try:
        told = json.loads(data)
        items = [Answer(*one) for one in told["items"] if [type(value) for value in one] == TYPES]
        windows = [windowed(one) for one in told["windows"]]
        window = windowed(told["window"])
        file, sha256, origin, order = (told[key] for key in ("file", "sha256", "origin", "order"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadTerm):
        return None
    texts = [file, sha256, origin, order, *(rule for one in items for rule in one.rules)]
    if len(items) != len(told["items"]) or not all(isinstance(one, str) for one in texts) or not all(
            -1 <= one.window < len(windows) for one in items):
        return None
    return Answers(file, sha256, origin, order, items, windows, window)


def windowed(told: Any) -> Window:
    """A window out of what `plain` has made of it. ValueError where it is something else."""
    begins, ends, texts = told
    if type(begins) is not int or type(ends) is not int:
        raise ValueError
    return Window(begins, ends, tuple(map(parse_weekly, texts)))
