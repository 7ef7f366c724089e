"""Orders: NAME.order.json, what somebody asks to have blocked, from when until when, each item with an id.

In: a file opened for reading bytes. Out: for each item an Asked, with why it is refused where it cannot be used, and
behind it its entries, or a Problem that says the same with the words of the order. An item that cannot be used is
refused alone, for whoever asked is answered item by item; a file that is no order, or none of this version, is
refused whole. What an order says of all its items may stand behind them, so items are held until the end, at most
ITEMS_MAX of them and HELD_MAX bytes. Source: schemas/order-1.json, which says the same for other programs.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, cast

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.attributes import VALUE_MAX, with_terms
from edgeblock.blocklist.formats.entries import read_entry
from edgeblock.blocklist.formats.feeds import read_events
from edgeblock.blocklist.formats.lines import (
    LINE_MAX,
    Asked,
    Attributes,
    BadEntry,
    BadFile,
    Entry,
    Item,
    Problem,
    no_text,
    shown,
)
from edgeblock.blocklist.terms import ORDER as DATA
from edgeblock.blocklist.terms import WEEKLY_MAX, BadTerm, Window, read_terms

VERSION = 1
ITEMS_MAX = 250_000     # of one order: as many addresses as the kernel is given; a country's platform has 33 000
HELD_MAX = 64 << 20     # bytes of items: 250 for each
DEPTH_MAX = 16          # of brackets; an order has three
ID_MAX = 128            # characters: a UUID has 36, an address of a ticket some more

WINDOW = ("from", "until", "weekly")
OF_ALL = ("version", *DATA, *WINDOW, "items")
OF_ONE = ("id", "kind", "value", *WINDOW, "reference", "ech")
# What an item may be: how its value becomes an entry in the grammar of .list, and what that has to be.
KINDS: dict[str, tuple[bytes, bytes, tuple[Kind, ...]]] = {
    "host": (b"", b"", (Kind.HOST, Kind.HOST_AT)),
    "host-only": (b"=", b"", (Kind.HOST_ONLY, Kind.HOST_ONLY_AT)),
    "subdomains": (b"*.", b"", (Kind.SUBDOMAINS, Kind.SUBDOMAINS_AT)),
    "url": (b"", b"", (Kind.URL, Kind.URL_WITH_QUERY)),
    "directory": (b"", b"/*", (Kind.DIRECTORY,)),
    "address": (b"", b"", (Kind.NETWORK,)),
    "endpoint": (b"", b"", (Kind.ENDPOINT,)),
}
NAMED = {one: name for name, (_, _, kinds) in KINDS.items() for one in kinds}
# What others call a kind.
SAME = {"domain": "host", "fqdn": "host", "hostname": "host", "ip": "address", "ipv4": "address", "ipv6": "address",
        "network": "address", "prefix": "address", "cidr": "address", "range": "address"}
BRACKETS = ("start_map", "start_array")
# Any escape in JSON: a character of two halves, half of one, or another one's begin.
HALF = rb"\\u[dD][%s][0-9a-fA-F]{2}"
ESCAPE = re.compile(rb"%s%s|%s|\\.?" % (HALF % b"89abAB", HALF % b"c-fC-F", HALF % b"89a-fA-F"), re.DOTALL)
ESCAPE_MAX = 12         # bytes of one


def read_order(file: BinaryIO) -> Iterator[Item]:
    """The items of an order."""
    order = Order()
    try:
        for number, event, value in read_events(cast(BinaryIO, Halved(file))):
            order.take(number, event, value)
        yield from order.items()
    except BadFile as error:
        if called := order.called():
            yield Asked(order.line, 0, called, "")
        yield Problem(order.line, f"the file {error}", True, error.plain and f"the file {error.plain}")


class Halved:
    """A file with `\\u0000`, which no text may have, in the place of each half of a character that stands alone: the
    parser would make of it, and of what is behind it, another character than anybody has asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = b""        # the begin of an escape whose end is still to be read

    def readline(self, most: int) -> bytes:
        data = self._left + self._file.readline(most)
        self._left = b""
        if b"\\" not in data:
            return data
        if not data.endswith(b"\n"):
            whole = len(data) - ESCAPE_MAX
            cut = next((one.start() for one in ESCAPE.finditer(data) if one.start() > whole), 0)
            if cut > 0:
                data, self._left = data[:cut], data[cut:]
        return ESCAPE.sub(lambda one: one[0] if len(one[0]) != ESCAPE_MAX // 2 else b"\\u0000", data)


class BadOrder(BadFile):
    """The same of an order. It is told to whoever asked, so it is `plain` where it says nothing else."""

    def __init__(self, why: str, plain: str = "") -> None:
        super().__init__(why, plain or why)


class Refusal(Exception):
    """Why an item is refused: words without any of the order's, and those with them. Never leaves this module."""

    def __init__(self, why: str, whole: str = "") -> None:
        super().__init__(why)
        self.why, self.whole = why, whole or why


def unknown(key: str, known: Iterable[str]) -> str:
    """What is to be written in the place of a word that there is none of."""
    near = difflib.get_close_matches(key[:ID_MAX], known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


class Order:
    """What has been read of one order: where it is in the file, what it says of all items, and the items."""

    def __init__(self) -> None:
        self.line = 1
        self.of_all: dict[str, Any] = {}
        self.count = 0
        self._held: list[bytes] = []        # each item as JSON: its line, what it says, why it is refused
        self._size = 0
        self._depth = 0                     # of brackets; 1 in the order, 2 between items, 3 in one
        self._key = ""                      # of the order, and of the item
        self._item: dict[str, Any] | None = None
        self._fault = ["", ""]              # of the item, without words of the order and with them
        self._texts: list[Any] | None = None            # of a window that repeats
        self._skipped = 0                   # brackets open in an item where none belong
        self._done = False

    def take(self, number: int, event: str, value: Any) -> None:
        """One event of the parser. Raises BadFile."""
        self.line = number
        if self._done:
            raise BadOrder("has something behind the end of its order; drop one order a file")
        opens, closes = event in BRACKETS, event.startswith("end_")
        if opens and self._depth + self._skipped == DEPTH_MAX:
            raise BadOrder(f"has more than {DEPTH_MAX} brackets inside one another")
        if self._skipped:
            self._skipped += opens - closes
        elif self._texts is not None:
            self._take_text(event, value, opens)
        elif self._item is not None:
            self._take_of_item(event, value, opens)
        elif self._depth == 2:
            self._take_between(event, value)
        else:
            self._take_of_all(event, value, opens)

    def _take_of_all(self, event: str, value: Any, opens: bool) -> None:
        if self._depth == 0:
            if event != "start_map":
                raise BadOrder("is no order, which is an object in JSON")
            self._depth = 1
        elif event == "map_key":
            self._key = value
            if value not in OF_ALL:
                hint = unknown(value, OF_ALL)
                raise BadOrder(f"has the unknown key {shown(value.encode('utf-8', 'replace'))}; {hint}",
                               f"has an unknown key; {hint}")
            if value in self.of_all:
                raise BadOrder(f"has the key {value!r} twice")
        elif event == "end_map":
            self._done = True
        elif event == "start_array" and self._key == "items":
            self.of_all["items"] = True
            self._depth = 2
        elif event == "start_array" and self._key == "weekly":
            self._texts = self.of_all["weekly"] = []
        elif opens or self._key == "items":
            raise BadOrder(f"has a key of another type than it is: {self._key!r}")
        else:
            self.of_all[self._key] = value

    def _take_between(self, event: str, value: Any) -> None:
        """Between the items of an order."""
        if event == "end_array":
            self._depth = 1
            return
        self._item, self._fault = {}, ["", ""]
        if event != "start_map":
            self._refuse("is no object in JSON")
            self._skipped = event == "start_array"
            self._finish_item()

    def _take_of_item(self, event: str, value: Any, opens: bool) -> None:
        assert self._item is not None
        if event == "end_map":
            self._finish_item()
        elif event == "map_key":
            self._key = value
            if value not in OF_ONE:
                hint = unknown(value, OF_ONE)
                self._refuse(f"has an unknown key; {hint}",
                             f"has the unknown key {shown(value.encode('utf-8', 'replace'))}; {hint}")
            elif value in self._item:
                self._refuse(f"has the key {value!r} twice")
        elif event == "start_array" and self._key == "weekly":
            self._texts = self._item["weekly"] = []
        elif opens:
            self._refuse(f"has {self._key!r}, which is no text" if self._key in OF_ONE else "has an unknown key")
            self._skipped = 1
        elif self._key in OF_ONE:
            self._item[self._key] = value

    def _take_text(self, event: str, value: Any, opens: bool) -> None:
        assert self._texts is not None
        if event == "end_array":
            self._texts = None
            return
        if opens:
            self._skipped = 1
        if len(self._texts) <= WEEKLY_MAX:
            self._texts.append(None if opens else value)

    def _refuse(self, why: str, whole: str = "") -> None:
        if not self._fault[0]:
            self._fault = [why, whole or why]

    def _finish_item(self) -> None:
        held = json.dumps([self.line, self._item, *self._fault]).encode()
        self._item = None
        self._size += len(held)
        self._held.append(held)
        if len(self._held) > ITEMS_MAX:
            raise BadOrder(f"has more than {ITEMS_MAX} items; make it several orders")
        if self._size > HELD_MAX:
            raise BadOrder(f"has more than {HELD_MAX} bytes of items; make it several orders")

    # ---- when all is read

    def called(self) -> str:
        """What the order is called, as far as it has been read; "" where it does not say."""
        try:
            return texts_of(self.of_all, ("order",)).get("order", "")
        except Refusal:
            return ""

    def items(self) -> Iterator[Item]:
        """Each item, with what the order says of all. Raises BadFile."""
        if not self._done:
            raise BadOrder("is empty; an order is an object in JSON")
        said = self._said_of_all()
        yield Asked(self.line, 0, said["order"], "")
        ids: set[str] = set()
        for number, held in enumerate(self._held, 1):
            line, item, why, whole = json.loads(held)
            name = item.get("id")
            name = name if isinstance(name, str) and not why_no_id(name) else ""
            kind = item.get("kind")
            kind = kind if isinstance(kind, str) and kind in KINDS else ""
            try:
                if why:
                    raise Refusal(why, whole)
                if why := why_no_id(item.get("id")):
                    raise Refusal(why)
                if name in ids:
                    raise Refusal("has the id of an item before it")
                entries = list(self._entries(line, item, said))
            except Refusal as refusal:
                yield Asked(line, number, name, kind, refusal.why)
                called = f"{number} ({shown(name.encode())[1:-1]})" if name else str(number)
                yield Problem(line, f"item {called} {refusal.whole}")
            else:
                yield Asked(line, number, name, kind)
                yield from entries
            ids.add(name)

    def _said_of_all(self) -> dict[str, str]:
        """What holds for every item that says nothing else, as attributes."""
        every = self.of_all
        version = every.get("version")
        if version == str(VERSION):
            raise BadOrder(f'has the text "{VERSION}" as its version; write {VERSION} without quotes')
        if isinstance(version, bool) or version != VERSION:
            raise BadOrder(f"says no version; this edgeblock reads orders with \"version\": {VERSION}"
                           if version is None else
                           f"is an order of another version; this edgeblock reads \"version\": {VERSION}")
        if "order" not in every:
            raise BadOrder('has no "order", the name of the order, such as "order": "No. 12/2026"')
        if "items" not in every:
            raise BadOrder('has no "items"; an order that asks for nothing has "items": []')
        try:
            said = texts_of(every, (*DATA, *WINDOW))
            why_never(tuple(sorted(said.items())))
        except Refusal as refusal:
            raise BadOrder(refusal.whole, refusal.why) from None
        return said

    def _entries(self, line: int, item: dict[str, Any], said: dict[str, str]) -> Iterator[Entry]:
        """Raises Refusal."""
        kind, value = item.get("kind"), item.get("value")
        if kind not in KINDS:
            word = kind.lower() if isinstance(kind, str) else ""
            near = unknown(SAME.get(word, word), KINDS)
            hint = f"; {near}" if near.startswith("did") else ""
            raise Refusal(f"has no kind that is known, which are {', '.join(KINDS)}{hint}")
        if not isinstance(value, str) or not value.strip():
            raise Refusal("has no value, or one that is no text")
        text = value.strip().encode("utf-8", "replace")
        told = said | texts_of(item, (*WINDOW, "reference"))
        if "ech" in item:
            if item["ech"] != "only":
                raise Refusal("has 'ech', which can only be \"only\"")
            told["ech"] = "only"
        attributes: Attributes = tuple(sorted(told.items()))
        before, behind, wanted = KINDS[kind]
        if behind:
            text = text.removesuffix(b"*").rstrip(b"/")
        try:
            if len(text) > LINE_MAX or no_text(line, text):
                raise BadEntry("is too long or has a control character")
            if text[:1] in (b"=", b"*", b"@"):
                raise BadEntry(f"is written as an entry of a list, and an item says by its kind, {kind}, what it is")
            found = read_entry(before + text + behind)
            for one, _, _ in found:
                if one not in wanted:
                    raise BadEntry(f"is one of the kind {NAMED[one]}" if one in NAMED else "is of no kind")
        except BadEntry as error:
            raise Refusal(f"has a value that is none of the kind {kind}; `edgeblock lint` says why",
                          f"has a value that is none of the kind {kind}: {shown(text)} {error}") from None
        why_never(attributes)
        for one, key, depth in found:
            try:
                yield with_terms(Entry(line, one, key, False, depth, attributes))
            except BadEntry as error:
                raise unusable(str(error)) from None


def why_never(attributes: Attributes) -> None:
    """Raises Refusal where the window of these cannot be read, or never opens."""
    try:
        terms = read_terms(attributes)
    except BadTerm as error:
        raise unusable(str(error)) from None
    if terms and terms.window.begins >= terms.window.ends:
        raise Refusal("never holds: from is not before until")
    if terms and not opens(terms.window):
        raise Refusal("never holds: no weekly window opens from its begin until its end")


@lru_cache(maxsize=4096)
def opens(window: Window) -> bool:
    return window.opens()


def unusable(why: str) -> Refusal:
    """Of a sentence about an attribute: "has until=x, which ..."."""
    key = why.removeprefix("has ").partition("=")[0]
    return Refusal(f"has {key!r}, which cannot be used; `edgeblock lint` says why", why)


def why_no_id(name: object) -> str:
    if not isinstance(name, str) or not name:
        return "has no id, or one that is no text"
    if len(name) > ID_MAX or not name.isprintable():
        return f"has an id of more than {ID_MAX} characters, or with some that cannot be printed"
    return ""


def texts_of(said: dict[str, Any], keys: tuple[str, ...]) -> dict[str, str]:
    """Those of these keys that are there, as attributes. Raises Refusal."""
    made = {}
    for key in keys:
        if key not in said:
            continue
        value = said[key]
        texts = value if isinstance(value, list) and key == "weekly" else [value]
        if not texts or len(texts) > WEEKLY_MAX:
            raise Refusal(f"has no or more than {WEEKLY_MAX} texts in {key!r}")
        made[key] = "; ".join(text_of(key, one) for one in texts)
    return made


def text_of(key: str, value: object) -> str:
    """One text, with single blanks. Raises Refusal."""
    if not isinstance(value, str) or not value.strip():
        raise Refusal(f"has {key!r}, which is no text, or an empty one")
    text = " ".join(value.split())
    if len(text) > VALUE_MAX or '"' in text or not text.isprintable():
        raise Refusal(f"has {key!r} with more than {VALUE_MAX} characters, a quote, or what cannot be printed")
    return text
