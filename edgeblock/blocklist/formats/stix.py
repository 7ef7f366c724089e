"""Patterns of STIX indicators: which names, URLs and addresses one stands for by itself.

In: the text of a pattern. Out: entries, or the sort of what it asks for instead. Taken are comparisons with a value
(`=`, `IN`, `ISSUBSET` of an address, and `LIKE '%.name'`), alone or with OR between them: then each of them is
enough. What several observations or properties together say (AND, FOLLOWEDBY), what must not be (NOT, !=), and what
holds for a time only (WITHIN, REPEATS, START) is narrower than any of its values, so nothing of it is taken.
Source: STIX 2.1, section 9 (its grammar for patterns); 6.4, 6.7, 6.8 and 6.17 for what the values are.
"""

import re
from collections.abc import Iterator

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.entries import (
    OTHER_SCHEME,
    OtherScheme,
    read_address,
    read_host_entry,
    read_url_entry,
)
from edgeblock.blocklist.formats.lines import BadEntry

# A text, a sign, or a word: a step of a path may be a text as well, as in file:hashes.'SHA-256'.
TOKEN = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|([\[\](),]|!=|<=|>=|[=<>])|"
                   r"((?:[^\s\[\](),=<>!']|\[[^\]'\s]*\]|(?<=\.)'(?:[^'\\]|\\.)*')+))", re.DOTALL)
NARROWING = frozenset(("AND", "FOLLOWEDBY", "WITHIN", "REPEATS", "START", "STOP", "NOT", "!=", "EXISTS"))
PLACES = {"domain-name:value": "name", "hostname:value": "name", "url:value": "url", "ipv4-addr:value": "address",
          "ipv6-addr:value": "address"}
OBJECTS = frozenset((
    "artifact", "autonomous-system", "directory", "email-addr", "email-message", "file", "mac-addr", "mutex",
    "network-traffic", "process", "software", "user-account", "windows-registry-key", "x509-certificate"))
NO_PATTERN = "is no pattern of STIX such as [domain-name:value = 'example.com']"
UNDER = "indicators that hold under conditions (AND, FOLLOWEDBY, NOT, a time)"
VAGUE = "indicators with patterns (LIKE, MATCHES)"

Found = tuple[Kind, bytes, int]


class NotOurs(Exception):
    """What sort of indicator it is that names nothing for this filter."""


def read_pattern(text: str, subdomains: bool) -> Iterator[Found | NotOurs]:
    """Kind, key and depth of each value, and a NotOurs for each comparison with what is none for this filter.

    Raises:
        NotOurs: nothing of the pattern can be taken.
        BadEntry: it is no pattern, or a value is no name, URL or address.
    """
    words = list(tokens(text))
    if any(word in NARROWING for word, quoted in words if not quoted):
        raise NotOurs(UNDER)
    words = [(word, quoted) for word, quoted in words if quoted or word not in ("[", "]", "OR")]
    if not words:
        raise BadEntry(NO_PATTERN)
    at = 0
    while at < len(words):
        path, quoted = words[at]
        if path in ("(", ")") and not quoted:
            at += 1
            continue
        operator = words[at + 1][0] if at + 1 < len(words) else ""
        values, at = read_values(words, at + 2)
        if quoted or ":" not in path or not values:
            raise BadEntry(NO_PATTERN)
        place = PLACES.get(path)
        if place is None:
            what = path.partition(":")[0]
            yield NotOurs(f"indicators of other sorts ({what if what in OBJECTS else 'other objects'})")
            continue
        for value in values:
            yield from read_value(place, operator, value, subdomains)


def tokens(text: str) -> Iterator[tuple[str, bool]]:
    """The words of a pattern, and whether each is a text in quotes."""
    at = 0
    text = text.strip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if not found:
            raise BadEntry("is no pattern of STIX: it has a quote without its other half or a sign that none has")
        at = found.end()
        if found[1] is not None:
            yield re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL), True
        else:
            yield found[2] or found[3], False


def read_values(words: list[tuple[str, bool]], at: int) -> tuple[list[str], int]:
    """The value at a place, or those of a set in parentheses; and the place behind."""
    if at < len(words) and words[at] == ("(", False):
        values = []
        at += 1
        while at < len(words) and words[at] != (")", False):
            if words[at] != (",", False):
                values.append(words[at][0])
            at += 1
        return values, at + 1
    return [words[at][0]] if at < len(words) else [], at + 1


def read_value(place: str, operator: str, value: str, subdomains: bool) -> Iterator[Found | NotOurs]:
    text = value.encode()
    if operator == "LIKE" and place == "name" and value.startswith("%.") and not re.search("[%_]", value[1:]):
        yield Kind.SUBDOMAINS, read_host_entry(text[2:])[1], 0
        return
    if operator not in ("=", "IN", "ISSUBSET"):
        yield NotOurs(VAGUE)
        return
    if place == "url":
        try:
            yield read_url_entry(text)
        except OtherScheme:
            yield NotOurs(OTHER_SCHEME)
        return
    networks = read_address(text)
    if place == "address" and not networks:
        raise BadEntry("is no address")
    if networks:
        yield from ((kind, key, 0) for kind, key in networks)
        return
    kind, key = read_host_entry(text)
    if kind is not Kind.HOST:
        raise BadEntry("is no name")
    yield Kind.HOST if subdomains else Kind.HOST_ONLY, key, 0
