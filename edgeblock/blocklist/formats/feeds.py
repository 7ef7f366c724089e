"""Feeds of indicators in JSON: events and warning lists of MISP, bundles of STIX 2, arrays of entries.

In: a file opened for reading bytes. Out: items in the order of the file, with the number of the line that each ends
in. It is read as it comes, whatever its length; one object of it is held, and of a warning list its values, up to
HELD_MAX bytes (what they are is said behind them).

    MISP event     each attribute, also of its objects, that is for detection (to_ids), by its type: domain -> the
                   name and all below it; hostname -> that name only; url; ip-dst, ip-src; domain|ip, ip-dst|port,
                   hostname|port -> the first of the two, with the port where it is an address
    warning list   type hostname -> the names and all below them; cidr -> destinations; string -> what each is, a name
                   alone. Such a list names what is known to be harmless, which is said in a Remark
    STIX bundle    each indicator whose pattern names values for this filter (stix.py), unless it is revoked, or of
                   what is benign
    array          of texts: entries in the grammar of .list; of objects: as the rows of a table (table.py)

What is of another sort is passed over. Several values one after the other, as in JSON lines, are read alike.
Source: MISP core format, MISP warning lists; STIX 2.1, sections 4.7 and 9.
"""

import codecs
import re
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.attributes import checked, with_terms
from edgeblock.blocklist.formats.entries import (
    OTHER_SCHEME,
    OtherScheme,
    read_address,
    read_entry,
    read_host_entry,
    read_url_entry,
)
from edgeblock.blocklist.formats.lines import (
    HOPELESS,
    LINE_MAX,
    Attributes,
    BadEntry,
    BadFile,
    Entry,
    Item,
    Passed,
    Problem,
    Remark,
    no_text,
    shown,
)
from edgeblock.blocklist.formats.stix import NotOurs, read_pattern
from edgeblock.blocklist.formats.table import (
    Columns,
    NoColumn,
    find_columns,
    place_of,
    read_cells,
    undeclared,
    with_done,
)

READ = 1 << 14
TYPES = ("indicator_types", "labels")       # STIX 2.1, 10.8, and 2.0, where these were labels
VALIDITY = ("valid_from", "valid_until")    # STIX 2.1, 4.7
WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?", re.ASCII)
DEPTH_MAX = 64          # of brackets: an event has a dozen
KEYS_MAX = 256          # values of one object that are kept; an attribute has twenty
HELD_MAX = 64 << 20     # bytes of a warning list's values

OPENING, CLOSING = ("start_map", "start_array"), ("end_map", "end_array")
NAMES = ("domain", "domain|ip")
ATTRIBUTES = {"domain": "domain", "hostname": "hostname", "url": "url", "uri": "url", "ip-dst": "ip", "ip-src": "ip",
              "domain|ip": "domain", "hostname|port": "hostname", "ip-dst|port": "ip|port",
              "ip-src|port": "ip|port"}
OURS = frozenset((*ATTRIBUTES, "domain-ip", "host", "fqdn", "Host"))
MANY = "others"
TYPES_NAMED = 40        # sorts of attributes that are named apart
UNKNOWN = ("is JSON of no sort that is read, which are MISP events and warning lists, STIX bundles, and arrays of "
           "entries; save its entries one a line")


def read_feed(file: BinaryIO, subdomains: bool = False, attributes: tuple[str, ...] = ()) -> Iterator[Item]:
    """`attributes` are the keys, in any case, of what an object of a feed says about its entry, as in valid_until."""
    feed = Feed(subdomains, attributes)
    try:
        for number, event, value in read_events(file):
            yield from feed.take(number, event, value)
        yield from feed.finish()
    except BadFile as error:
        yield Problem(feed.line, f"the file {error}", whole=True)


def read_events(file: BinaryIO) -> Iterator[tuple[int, str, Any]]:
    """Line, event and value of everything in the file.

    Raises:
        BadFile: it is no JSON, or has a text that is longer than any of a list.
    """
    events = ijson.sendable_list()
    parser = ijson.basic_parse_coro(events, use_float=True, multiple_values=True)
    number, size = 1, 0
    is_empty = True
    try:
        while data := file.readline(READ):
            if is_empty:
                data = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
                is_empty = not data.strip()
                if is_empty:
                    number += data[-1:] == b"\n"
                    continue
            size += len(data)
            parser.send(data)
            if events:
                size = 0
                for event, value in events:
                    yield number, event, value
                events.clear()
            elif size > HOPELESS:
                raise BadFile(*[f"has a text longer than {HOPELESS} bytes"] * 2)
            number += data[-1:] == b"\n"
        if is_empty:
            return
        parser.close()
        for event, value in events:
            yield number, event, value
    except (ijson.JSONError, ValueError, ArithmeticError) as error:
        said = str(error).partition("\n")[0].partition(".")[0]      # below the first line the parser draws an arrow
        why = " ".join("".join(one if one.isprintable() else " " for one in said).split())[:60]
        raise BadFile(f"is no JSON from line {number} on ({why}); is it whole?",
                      f"is no JSON from line {number} on; is it whole?") from None


class Feed:
    """What has been read so far: where it is in the file, the object that is open, what is known of the whole."""

    def __init__(self, subdomains: bool, attributes: tuple[str, ...]) -> None:
        self.subdomains = subdomains
        self.attributes = attributes
        self.line = 1
        self.keys: list[str | None] = []        # of each bracket that is open: the key it stands behind, if in a map
        self.maps: list[bool] = []              # and whether it is one of a map
        self.key: str | None = None
        self.record: dict[str, Any] | None = None
        self.depth = 0                          # of the record
        self.is_flat = True                     # the outermost map has no bracket in it
        self.top: dict[str, Any] = {}           # plain values of the outermost map
        self.is_known = self.is_begun = False
        self.is_benign = False                  # the object that is open says so
        self.held: list[bytes] = []             # of "list" in the outermost map, and where each stands
        self.lines = array("Q")
        self.matching: set[str] = set()
        self.size = 0
        self.columns: dict[tuple[str, ...], Columns | None] = {}
        self.told = False
        self.timed = 0
        self.sorts: set[str] = set()

    def take(self, number: int, event: str, value: Any) -> Iterator[Item]:
        self.line, self.is_begun = number, True
        if event == "map_key":
            self.key = value
        elif event in OPENING:
            self.keys.append(self.key)
            self.maps.append(event == "start_map")
            self.key = None
            if len(self.keys) > DEPTH_MAX:
                raise BadFile(f"has more than {DEPTH_MAX} brackets inside one another")
            self.is_flat = self.is_flat and len(self.keys) == 1
            if event == "start_map" and self._is_record():
                self.record, self.depth, self.is_benign = {}, len(self.keys), False
        elif event in CLOSING:
            if self.record is not None and len(self.keys) == self.depth:
                record, self.record = self.record, None
                yield from self._finish_record(number, record)
            self.keys.pop()
            self.maps.pop()
            self.key = None
            if not self.keys:
                yield from self._finish_top()
        else:
            yield from self._take_value(number, value)

    def _is_record(self) -> bool:
        """Whether the map that begins here is one thing of a feed: an element of an array of such, or of the
        outermost one, and then there may be an event inside."""
        if len(self.keys) == 1 or self.maps[-2]:
            return False
        is_row = len(self.keys) == 2
        return is_row or self.keys[-2] in ("Attribute", "objects") and (self.record is None or self.depth == 2)

    def _take_value(self, number: int, value: Any) -> Iterator[Item]:
        depth = len(self.keys)
        if value == "benign" and depth and self.keys[-1] in TYPES:
            self.is_benign = True
        if self.record is not None:
            if depth == self.depth and len(self.record) < KEYS_MAX:
                self.record[self.key or ""] = value
        elif depth == 1 and self.maps[0]:
            if len(self.top) < KEYS_MAX:
                self.top[self.key or ""] = value
        elif depth == 2 and self.maps[0] and not self.maps[1] and self.keys[1] == "list":
            text = str(value).encode("utf-8", "replace")
            self.size += len(text) + 50
            if self.size > HELD_MAX:
                raise BadFile(f"has more than {HELD_MAX} bytes of values before it says what they are; put its "
                              '"type" in front of its "list"')
            self.held.append(text)
            self.lines.append(number)
        elif depth == 2 and self.maps[0] and not self.maps[1] and self.keys[1] == "matching_attributes":
            if len(self.matching) < KEYS_MAX:
                self.matching.add(str(value))
        elif depth == 1 and not self.maps[0] and isinstance(value, str):
            self.is_known = True
            yield from read_text(number, value)

    # One thing of a feed

    def _finish_record(self, number: int, record: dict[str, Any]) -> Iterator[Item]:
        within = self.keys[-2]
        if within == "Attribute":
            self.is_known = True
            yield from self._read_attribute(number, record)
        elif within == "objects" or record.get("type") == "indicator" and "pattern" in record:
            self.is_known = True
            yield from self._read_object(number, record)
        elif len(self.keys) == 2 and not self.maps[0] and record:
            yield from self._read_row(number, record)

    def _read_attribute(self, number: int, record: dict[str, Any]) -> Iterator[Item]:
        kind, text = str(record.get("type", "")), str(record.get("value", "")).strip()
        what = ATTRIBUTES.get(kind)
        if what is None:
            yield Passed(number, f"attributes of other types ({self._sort(kind)})")
        elif record.get("deleted") in (True, "1", 1):
            yield Passed(number, "attributes that are deleted")
        elif record.get("to_ids") in (False, "0", 0):
            yield Passed(number, "attributes that are not for detection (to_ids is false)")
        else:
            try:
                told = self._told(record)
                for entry in attribute_entries(what, text.encode("utf-8", "replace"), self.subdomains):
                    yield with_terms(Entry(number, entry[0], entry[1], False, entry[2], told))
            except OtherScheme:
                yield Passed(number, OTHER_SCHEME)
            except BadEntry as error:
                yield Problem(number, f"{shown(text.encode('utf-8', 'replace'))} {error}")

    def _told(self, record: dict[str, Any]) -> Attributes:
        """What an object says about its entry, of what the list declares or the standard defines."""
        wanted = (*self.attributes, *VALIDITY)
        return checked([(key.casefold(), str(value)) for key, value in record.items()
                        if key.casefold() in wanted and value not in (None, "")], wanted)

    def _sort(self, word: str) -> str:
        """A word of the file in the name of a sort; the sorts are not as many as somebody likes."""
        if word not in self.sorts and (len(self.sorts) == TYPES_NAMED or not word.isprintable() or len(word) > 40):
            return MANY
        self.sorts.add(word)
        return word

    def _read_object(self, number: int, record: dict[str, Any]) -> Iterator[Item]:
        if record.get("type") != "indicator":
            yield Passed(number, "objects that are no indicators")
        elif record.get("revoked") is True:
            yield Passed(number, "indicators that are revoked")
        elif self.is_benign:
            yield Passed(number, "indicators of what is benign", True, shown(str(record.get("pattern", "")).encode(
                "utf-8", "replace")))
        elif record.get("pattern_type", "stix") != "stix":
            yield Passed(number, f"indicators in other languages ({self._sort(str(record['pattern_type']))})")
        else:
            self.timed += "valid_until" in record
            pattern = str(record.get("pattern", ""))
            try:
                without = [key for key in VALIDITY if WITHOUT_ZONE.fullmatch(str(record.get(key)))]
                told = self._told(record | {key: f"{record[key]}Z" for key in without})    # all of STIX is UTC
                # All of a pattern or nothing of it.
                for item in list(read_pattern(pattern, self.subdomains)):
                    yield Passed(number, str(item)) if isinstance(item, NotOurs) else \
                        with_terms(Entry(number, item[0], item[1], False, item[2], told))
            except NotOurs as sort:
                yield Passed(number, str(sort))
            except BadEntry as error:
                yield Problem(number, f"{shown(pattern.encode('utf-8', 'replace'))} {error}")

    def _read_row(self, number: int, record: dict[str, Any]) -> Iterator[Item]:
        heads = tuple(record)
        is_new = heads not in self.columns
        if is_new:
            if len(self.columns) == KEYS_MAX:
                raise BadFile("has objects of too many sorts")
            try:
                folded = [head.casefold() for head in heads]
                self.columns[heads] = with_done(find_columns(list(heads), None), folded)._replace(attributes=tuple(
                    (name, place) for name in self.attributes if (place := place_of(name, heads)) is not None))
            except NoColumn:
                self.columns[heads] = None
        columns = self.columns[heads]
        if columns is None:
            yield Passed(number, "objects without a URL, a host or an address")
            return
        self.is_known = True
        if is_new and not self.told:
            remarks = [Remark(number, columns.remark)] if columns.remark else []
            remarks += undeclared(number, heads, columns)
            self.told = bool(remarks)
            yield from remarks
        yield from read_cells(number, ["" if value is None else str(value) for value in record.values()], columns)

    # The whole

    def _finish_top(self) -> Iterator[Item]:
        if self.held or self.matching:
            yield from self._read_warning_list()
        elif self.top.get("type") == "indicator" and "pattern" in self.top:
            self.is_known = True
            yield from self._read_object(self.line, self.top)
        elif self.top.get("type") == "bundle":
            self.is_known = True        # one without objects is one all the same
        elif self.top and self.is_flat:
            yield from self._read_row(self.line, self.top)      # one of JSON lines
        self.top, self.is_flat = {}, True
        self.held, self.lines, self.matching, self.size = [], array("Q"), set(), 0

    def _read_warning_list(self) -> Iterator[Item]:
        kind = self.top.get("type", "string")
        if kind not in ("string", "hostname", "cidr", "substring", "regex"):
            raise BadFile(UNKNOWN)
        self.is_known = True
        name = str(self.top.get("name", ""))[:80]
        yield Remark(1, f"the file is a warning list of MISP ({name!r}): such lists name what is known to be "
                     "harmless, and here its entries are blocked")
        foreign = bool(self.matching) and not self.matching & OURS and kind != "cidr"
        for number, text in zip(self.lines, self.held, strict=True):
            if foreign:
                yield Passed(number, "values of attributes that are no names, URLs or addresses")
            elif kind in ("substring", "regex"):
                yield Passed(number, f"patterns ({kind})")
            else:
                yield from read_harmless(number, kind, text)

    def finish(self) -> Iterator[Item]:
        if not self.is_known and self.is_begun:
            raise BadFile(UNKNOWN)
        if self.timed:
            some = f"{self.timed} indicators have" if self.timed > 1 else "1 indicator has"
            yield Remark(1, f"{some} a valid_until, and no effect from then on")


def attribute_entries(what: str, text: bytes, subdomains: bool) -> list[tuple[Kind, bytes, int]]:
    """What an attribute of MISP stands for; raises BadEntry for what is none."""
    if len(text) > LINE_MAX or no_text(1, text):
        raise BadEntry("is too long or has a control character")
    if what == "url":
        return [read_url_entry(text)]
    first, _, second = text.partition(b"|")
    if what == "ip|port":
        text = first if not second else b"[%b]:%b" % (first, second) if b":" in first else first + b":" + second
    else:
        text = first
    if what in ("ip", "ip|port"):
        networks = read_address(text)
        if not networks:
            raise BadEntry("is no address")
        return [(kind, key, 0) for kind, key in networks]
    kind, key = read_host_entry(text)
    if kind is not Kind.HOST:
        raise BadEntry("is no name")
    return [(Kind.HOST if what == "domain" or subdomains else Kind.HOST_ONLY, key, 0)]


def read_harmless(number: int, kind: str, text: bytes) -> Iterator[Item]:
    """A value of a warning list."""
    text = text.strip()
    try:
        if len(text) > LINE_MAX or no_text(number, text):
            raise BadEntry("is too long or has a control character")
        if kind == "hostname":
            yield Entry(number, Kind.HOST, read_host_entry(text.removeprefix(b"."))[1])
        elif kind == "cidr":
            networks = read_address(text)
            if not networks:
                raise BadEntry("is no address")
            yield from (Entry(number, found, key) for found, key in networks)
        elif text[:1] == b".":
            yield Passed(number, "values with a dot in front, which no attribute has")
        else:
            for found, key, depth in read_entry(text):
                yield Entry(number, Kind.HOST_ONLY if found is Kind.HOST else found, key, False, depth)
    except BadEntry as error:
        yield Problem(number, f"{shown(text)} {error}")


def read_text(number: int, value: str) -> Iterator[Item]:
    """An entry in an array."""
    text = value.strip().encode("utf-8", "replace")
    exception = text[:2] == b"@@"
    try:
        if not text or len(text) > LINE_MAX or no_text(number, text):
            raise BadEntry("is empty, too long, or has a control character")
        for kind, key, depth in read_entry(text[2:].lstrip() if exception else text):
            yield Entry(number, kind, key, exception, depth)
    except BadEntry as error:
        yield Problem(number, f"{shown(text)} {error}")
