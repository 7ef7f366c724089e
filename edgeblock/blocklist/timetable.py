"""The terms of a list's entries as bytes, and back: what the matcher asks, only of a row that says it has terms.

    head        the counts and sizes of what follows
    records     RECORD, sorted: the row (its fingerprint, and its value without the list), begin and end in Unix
                seconds, which weekly windows, which order data. A row with several applies if any of them holds
    starts      where the spans of each set of weekly windows begin, and where the last ends
    spans       SPAN: a weekly window in minutes since Monday 00:00, of the clocks of a zone
    order at    where the order data of each number begin, and where the last ends; then these, as JSON
    texts       JSON: the names of the zones, the weekly windows as people write them

Of addresses, whose kernel rules know no fingerprint, there is a table of its own: WINDOW for each ADDRESS that has
terms, in their order, then the same texts. In: Terms. Out: bytes; or what stands in them. Both are of one list; in
a snapshot those of all lists stand one behind the other (`joined`). Never here: a clock, an entry.
"""

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from edgeblock.blocklist.fingerprint import Kind, sort_records
from edgeblock.blocklist.terms import ALWAYS, NEVER, BadTerm, Order, Terms, Weekly, Window, parse_weekly
from edgeblock.errors import ListError

HEAD = struct.Struct("<6I")             # of: records, sets, spans, order data; bytes of order data, of texts
RECORD = struct.Struct("<16sIqqHHI")    # fingerprint, value, begin, end, set or NO_SET, flags, order or NO_ORDER
SPAN = struct.Struct("<HHII")           # zone, nothing, begin, end
WINDOW_HEAD = struct.Struct("<II")      # of: windows; bytes of texts
WINDOW = struct.Struct("<qqI4x")        # begin, end, set or NO_WINDOW_SET
PLACE = struct.Struct("<IIQQ")          # list, nothing, where its bytes begin, how many there are
PRINT_SIZE = 16
ASKED = PRINT_SIZE + 4                  # bytes of a record that it is looked for by
NO_SET, NO_WINDOW_SET, NO_ORDER = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
ONLY_ECH = 1                            # a flag of a record
SETS_MAX = 256          # different sets of weekly windows in a list: all are looked at when it comes into force
ORDERS_MAX = 250_000    # different order data in a list: 200 MB while it is compiled
SAME_MAX = 64           # terms of one entry, or not twice as many: each is looked at whenever somebody asks for it
GONE = Weekly((), 0, 1, "UTC")

Blob = bytes | bytearray | memoryview


class Builder:
    """Gathers the terms of one list: `add` for each row, `add_window` for each address, then `entries`, `windows`."""

    def __init__(self) -> None:
        self._records = bytearray()
        self._windows = bytearray()
        self._sets: dict[tuple[Weekly, ...], int] = {}
        self._orders: dict[Order, int] = {}
        self.timed = 0          # rows of entries that have nothing but windows, once `entries` was called

    def add(self, print: bytes, value: int, terms: Terms) -> None:
        """A row. Raises ListError where a list cannot have as many different terms."""
        window = terms.window
        order = NO_ORDER
        if terms.order:
            order = self._orders.setdefault(terms.order, len(self._orders))
            if order >= ORDERS_MAX:
                raise ListError(f"has more than {ORDERS_MAX} different orders and references; split it")
        self._records += RECORD.pack(print, value, window.begins, window.ends, self._set_of(window, NO_SET),
                                     ONLY_ECH if terms.ech else 0, order)

    def add_window(self, window: Window) -> None:
        """Of the address entry with terms that comes next."""
        self._windows += WINDOW.pack(window.begins, window.ends, self._set_of(window, NO_WINDOW_SET))

    @property
    def sets(self) -> int:
        """How many different sets of weekly windows there are."""
        return len(self._sets)

    def _set_of(self, window: Window, none: int) -> int:
        if not window.weekly:
            return none
        number = self._sets.setdefault(window.weekly, len(self._sets))
        if number >= SETS_MAX:
            raise ListError(f"has more than {SETS_MAX} different weekly windows; split it")
        return number

    def entries(self, name: str = "", is_plain: Callable[[bytes, int], bool] = lambda *_: False) -> bytes:
        """The terms of all rows of the list of that name; b"" where there are none. `is_plain` says whether a row is
        there without terms as well.

        Raises:
            ListError: more of one row than anybody may look at for a packet.
        """
        if not self._records:
            return b""
        zones: dict[str, int] = {}
        spans, starts = bytearray(), [0]
        for weekly in self._sets:
            for zone, begin, end in spans_of(weekly):
                spans += SPAN.pack(zones.setdefault(zone, len(zones)), 0, begin, end)
            starts.append(len(spans) // SPAN.size)
        orders, order_at = bytearray(), [0]
        for order in self._orders:
            orders += json.dumps(dict(order), separators=(",", ":")).encode()
            order_at.append(len(orders))
        texts = json.dumps({"zones": list(zones), "weekly": self._texts()}).encode()
        size = sort_records(self._records, RECORD.size)
        del self._records[size:]
        apart = SAME_MAX * RECORD.size
        for at in range(0, size - apart, apart):
            if self._records[at:at + ASKED] == self._records[at + apart:at + apart + ASKED]:
                raise ListError(f"{name}: has an entry more than {SAME_MAX} times, each with another window or "
                                "order; give it weekly windows, or one from its first moment to its last")
        timed: set[tuple[bytes, int]] = set()
        lasting: set[tuple[bytes, int]] = set()
        for print, value, begins, ends, which, _, _ in RECORD.iter_unpack(self._records):
            if value & 0xFF != Kind.HOST_OF_URL:
                (lasting if (begins, ends, which) == (ALWAYS, NEVER, NO_SET) else timed).add((print, value))
        self.timed = sum(not is_plain(*row) for row in timed - lasting)
        return b"".join((
            HEAD.pack(size // RECORD.size, len(self._sets), len(spans) // SPAN.size, len(self._orders), len(orders),
                      len(texts)),
            self._records, words(starts), spans, words(order_at), orders, texts))

    def windows(self) -> bytes:
        """Those of the address entries with terms, in the order in which they came; b"" where there are none."""
        if not self._windows:
            return b""
        texts = json.dumps({"weekly": self._texts()}).encode()
        return WINDOW_HEAD.pack(len(self._windows) // WINDOW.size, len(texts)) + self._windows + texts

    def _texts(self) -> list[list[str]]:
        return [list(map(str, weekly)) for weekly in self._sets]


def words(numbers: list[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def spans_of(weekly: tuple[Weekly, ...]) -> Iterator[tuple[str, int, int]]:
    """Zone, begin and end of each, in minutes since Monday 00:00 of its clocks."""
    for one in weekly:
        for day in one.days:
            begin = day * 1440 + one.begin
            yield one.zone, begin, begin + one.minutes


class Held(NamedTuple):
    """What one record says."""

    window: Window
    ech: bool
    order: dict[str, str]


class Layout(NamedTuple):
    """Where things stand in the terms of a list: offsets, and how many there are."""

    records: int
    record_count: int
    starts: int
    set_count: int
    spans: int
    span_count: int
    order_at: int
    order_count: int
    orders: int
    orders_size: int
    texts: int


def layout_of(blob: Blob) -> Layout:
    """Raises ListError where what the head says is not there."""
    if len(blob) < HEAD.size:
        raise damaged()
    records, sets, spans, orders, orders_size, texts_size = HEAD.unpack_from(blob)
    at = [HEAD.size]
    for size in (records * RECORD.size, (sets + 1) * 4, spans * SPAN.size, (orders + 1) * 4, orders_size):
        at.append(at[-1] + size)
    if at[-1] + texts_size != len(blob):
        raise damaged()
    return Layout(at[0], records, at[1], sets, at[2], spans, at[3], orders, at[4], orders_size, at[5])


def texts_of(blob: Blob, at: int) -> tuple[list[str], list[list[str]]]:
    """The names of zones, and the weekly windows of each set. Raises ListError."""
    try:
        said = json.loads(bytes(blob[at:]))
        zones, weekly = said.get("zones", []), said["weekly"]
        if not all(isinstance(one, str) for one in zones) or not all(
                isinstance(one, str) for texts in weekly for one in texts):
            raise ValueError
        return zones, weekly
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged() from None


def order_text(blob: Blob, layout: Layout, number: int) -> dict[str, str]:
    """Order data by their number; {} where there are none."""
    if number >= layout.order_count:
        return {}
    begin, end = struct.unpack_from("<2I", blob, layout.order_at + 4 * number)
    try:
        said = json.loads(bytes(blob[layout.orders + begin:layout.orders + end]))
        return {str(name): str(value) for name, value in said.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


class Table:
    """The terms of one list, read."""

    def __init__(self, blob: Blob) -> None:
        self.blob, self.layout = memoryview(blob), layout_of(blob)
        self._texts = texts_of(blob, self.layout.texts)[1]

    def find(self, print: bytes, value: int) -> list[Held]:
        """What the records of a row say; `value` is the row's, whatever its list."""
        asked = print + (value & 0xFFFF).to_bytes(4, "little")
        low, high = 0, self.layout.record_count
        while low < high:
            middle = (low + high) // 2
            if self._asked_at(middle) < asked:
                low = middle + 1
            else:
                high = middle
        found = []
        while low < self.layout.record_count and self._asked_at(low) == asked:
            found.append(self._held(low))
            low += 1
        return found

    def _asked_at(self, number: int) -> bytes:
        at = self.layout.records + number * RECORD.size
        return bytes(self.blob[at:at + ASKED])

    def _held(self, number: int) -> Held:
        _, _, begins, ends, which, flags, order = RECORD.unpack_from(
            self.blob, self.layout.records + number * RECORD.size)
        weekly = () if which == NO_SET else weekly_of(self._texts, which)
        return Held(Window(begins, ends, weekly), bool(flags & ONLY_ECH),
                    order_text(self.blob, self.layout, order))

    def every(self) -> Iterator[Held]:
        """What all records say."""
        return map(self._held, range(self.layout.record_count))

    def windows(self) -> Counter[Window]:
        """How many entries have each window, without those that always hold."""
        begin = self.layout.records
        counts = Counter((begins, ends, which) for _, value, begins, ends, which, _, _ in RECORD.iter_unpack(
            self.blob[begin:begin + self.layout.record_count * RECORD.size]) if value & 0xFF != Kind.HOST_OF_URL)
        del counts[ALWAYS, NEVER, NO_SET]
        return Counter({Window(begins, ends, () if which == NO_SET else weekly_of(self._texts, which)): count
                        for (begins, ends, which), count in counts.items()})


def weekly_of(texts: list[list[str]], which: int) -> tuple[Weekly, ...]:
    """The windows of a set."""
    if which >= len(texts):
        raise damaged()
    return tuple(map(known_weekly, texts[which]))


def known_weekly(text: str) -> Weekly:
    """A weekly window; where its zone has gone from this system since, one that never holds."""
    try:
        return parse_weekly(text)
    except BadTerm:
        return GONE


def windows_of(blob: Blob) -> tuple[list[tuple[int, int, int]], list[tuple[Weekly, ...]]]:
    """Begin, end and set of each address entry with terms, and the weekly windows of each set. ListError."""
    if len(blob) < WINDOW_HEAD.size:
        raise damaged()
    count, texts_size = WINDOW_HEAD.unpack_from(blob)
    end = WINDOW_HEAD.size + count * WINDOW.size
    if end + texts_size != len(blob):
        raise damaged()
    texts = texts_of(blob, end)[1]
    return list(WINDOW.iter_unpack(blob[WINDOW_HEAD.size:end])), [weekly_of(texts, i) for i in range(len(texts))]


# Those of several lists ----------------------------------------------------------------------------------------

def joined(blobs: Mapping[int, Blob]) -> Iterator[Blob]:
    """Those of several lists, by index, as one: in pieces, one behind the other."""
    if not blobs:
        return
    at = 4 + len(blobs) * PLACE.size
    places = [len(blobs).to_bytes(4, "little")]
    for index, blob in sorted(blobs.items()):
        places.append(PLACE.pack(index, 0, at, len(blob)))
        at += len(blob)
    yield b"".join(places)
    for _, blob in sorted(blobs.items()):
        yield blob


def parted(section: memoryview) -> dict[int, memoryview]:
    """What `joined` has made one of. ListError."""
    if not section:
        return {}
    count = int.from_bytes(section[:4], "little")
    end = 4 + count * PLACE.size
    if end > len(section):
        raise damaged()
    made = {}
    for index, _, at, size in PLACE.iter_unpack(section[4:end]):
        if at < end or at > len(section) or size > len(section) - at:
            raise damaged()
        made[index] = section[at:at + size]
    return made


def damaged() -> ListError:
    return ListError("snapshot: has terms that cannot be read; build it again")
