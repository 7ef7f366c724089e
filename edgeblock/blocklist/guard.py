"""Guard rails: what refuses a list although every line of it can be read.

In: the settings of a list, protected names, shared networks, what the box has seen behind addresses (impact.py), then
its entries one by one and its counts. Out: None, or the reason with the key that overrides it, ready to stand behind
"file:line: " or "file: ". What never happens here: a clock; a file but those that ship with packages (the Public
Suffix List, the protected names). What is refused refuses the whole list, or is left out where its settings say
guarded = "skip": who calls decides by `skips`.

`Guard.refuses` runs for every entry of ten million, so it asks two sets first and thinks only about the few that
are in one of them.
"""

import ipaddress
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from publicsuffixlist import PSLFILE, PublicSuffixList

from edgeblock.addresses import Translated
from edgeblock.blocklist.apart import Apart
from edgeblock.blocklist.canonical import canonical_host, host_address, why_not_host
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.formats import Entry, HashedEntry, network_text
from edgeblock.blocklist.impact import Figures, Impact, Summing, ranges_of
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.ranges import Network, Range, Ranges, last_of, range_of
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.shared import NOTHING, Found, Shared, shipped_shared
from edgeblock.errors import ListError

# Numbers below which the factor of growth and the share of shrinking mean nothing: a list of 3 may become one of 30.
GROWTH_FLOOR = 1000     # entries more than before
SHRINK_FLOOR = 100      # entries fewer than before; none left at all is never small
ALSO_MAX = 8            # allowances of its own that a list is told again beside the one it lacks
SLASH = ord("/")
HOST, HOST_ONLY, SUBDOMAINS, DIRECTORY = Kind.HOST, Kind.HOST_ONLY, Kind.SUBDOMAINS, Kind.DIRECTORY
HOST_AT = Kind.HOST_AT
WELL_KNOWN = "64:ff9b::/96"     # of NAT64 everywhere (RFC 6052, 2.1)

# RFC 6890 and its successors. The documentation ranges are left out, as nothing is there that a block could hurt; and
# the private ones: labs and hosted networks list them on purpose. A provider's own go into [rules] protected.
SPECIAL = {
    "0.0.0.0/8": "this network", "127.0.0.0/8": "loopback", "169.254.0.0/16": "link-local",
    "192.0.0.0/24": "protocol", "198.18.0.0/15": "benchmarking", "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved and broadcast", "::/127": "loopback and unspecified", "::ffff:0:0/96": "IPv4-mapped",
    "fe80::/10": "link-local", "ff00::/8": "multicast",
}

# Protected names ---------------------------------------------------------------------------------------------

class Protected(NamedTuple):
    """What no list may block: hosts, hosts with everything below them, addresses; and networks that many share.

    `impact` is what the box has seen behind addresses; None where nobody knows.
    `words` are who it is, where the file says that: pairs of a name, a tree or a network and its word. `nat64` are
    prefixes behind which IPv4 addresses are, besides WELL_KNOWN.
    """

    names: frozenset[bytes] = frozenset()
    trees: frozenset[bytes] = frozenset()
    networks: frozenset[Network] = frozenset()
    words: frozenset[tuple[bytes | Network, str]] = frozenset()
    shared: Shared = NOTHING
    nat64: tuple[str, ...] = ()
    impact: Impact | None = None

    def joined(self, other: "Protected") -> "Protected":
        return Protected(self.names | other.names, self.trees | other.trees, self.networks | other.networks,
                         self.words | other.words, self.shared.joined(other.shared), self.nat64 + other.nat64,
                         self.impact or other.impact)


def parse_protected(text: bytes, source: str) -> Protected:
    """Protected names of the file named `source`: `NAME` (and www.NAME), `*.NAME` (and NAME), an address or range;
    behind each, in brackets, who that is.

    Raises:
        ListError: a line is none of these.
    """
    names: set[bytes] = set()
    trees: set[bytes] = set()
    networks: set[Network] = set()
    words: set[tuple[bytes | Network, str]] = set()
    for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        line = raw.split(b"#")[0].strip()
        if not line:
            continue
        who = ""
        if line.endswith(b")") and b" (" in line:
            line, _, said = line.partition(b" (")
            line, who = line.rstrip(), text_of(said[:-1])
        made: set[bytes | Network]
        try:
            network = ipaddress.ip_network(line.decode())
        except ValueError:
            tree = line[:2] == b"*."
            name = canonical_host(line[2:] if tree else line)
            if name is None or b"/" in line or b"*" in name or host_address(name) is not None:
                why = why_not_host(line) or "is neither a host, '*.' and a host, nor an address"
                raise ListError(f"{source}:{number}: {text_of(line)[:80]!r} {why}") from None
            if tree:
                trees.add(name)
                made = {name}
            else:
                names.update((name, b"www." + name))
                made = {name, b"www." + name}
        else:
            networks.add(network)
            made = {network}
            if network.num_addresses == 1 and (host := canonical_host(bracketed(network))):
                names.add(host)         # http://192.0.2.1/* is all that this address serves
                made.add(host)
        if who:
            words.update((key, f" ({who})") for key in made)
    return Protected(frozenset(names), frozenset(trees), frozenset(networks), frozenset(words))


def bracketed(network: Network) -> str:
    return str(network.network_address) if network.version == 4 else f"[{network.network_address}]"


@cache
def shipped_protected() -> Protected:
    """The protected names and the shared networks that edgeblock ships."""
    file = Path(__file__).with_name("protected.names")
    return parse_protected(file.read_bytes(), "protected.names")._replace(shared=shipped_shared())


# Public suffixes ---------------------------------------------------------------------------------------------

class Suffixes(NamedTuple):
    """The Public Suffix List: its own judgement, and sets that say quickly when there is nothing to judge."""

    judge: PublicSuffixList
    close: frozenset[bytes]             # every name in a rule
    wild: frozenset[bytes]              # names whose every direct child is a suffix
    below: dict[bytes, bytes]           # what is above a suffix and none itself -> that suffix


@cache
def public_suffixes() -> Suffixes:
    """The list that ships with the package publicsuffixlist, ICANN's part and the private one."""
    with open(PSLFILE, "rb") as file:
        text = file.read()
    close, wild = set(), set()
    below: dict[bytes, bytes] = {}
    rules: list[bytes] = []
    for line in text.splitlines():
        rule = line.split(b" ")[0].strip()
        mark = rule[:2] if rule[:2] == b"*." else rule[:1] if rule[:1] == b"!" else b""
        if not rule or rule.startswith(b"//") or not (name := canonical_host(rule.removeprefix(mark))):
            continue
        rules.append(mark + name)
        if mark == b"!":
            continue
        if mark:
            wild.add(name)
        close.add(name)
        parent = name.partition(b".")[2]
        while b"." in parent:
            below.setdefault(parent, name)
            parent = parent.partition(b".")[2]
    # What it is asked for is canonical, so it need not know the same rules in another form as well.
    judge = PublicSuffixList(b"\n".join(rules), accept_encoded_idn=False)
    return Suffixes(judge, frozenset(close), frozenset(wild),
                    {name: suffix for name, suffix in below.items() if not judge.is_public(name.decode())})


# Words -------------------------------------------------------------------------------------------------------

def text_of(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def unless(why: str, settings: ListSettings, key: str, override: str) -> str:
    """A refusal with the line that overrides it, and where that line counts."""
    return f"{why}; if that is meant, put {override} into {place_for(settings, key)}"


def place_for(settings: ListSettings, key: str) -> str:
    return "[rules] of the main configuration, as no settings of a list may say it (locked)" \
        if key in settings.locked else "the settings of this list"


def also(allowed: bool | tuple[str, ...], text: str) -> str:
    """The value of an allowance that keeps what it allows and allows this too."""
    kept = allowed if isinstance(allowed, tuple) else ()
    words = [*kept[:ALSO_MAX], *(["..."] if kept[ALSO_MAX:] else []), text]
    return "[" + ", ".join(f"\"{word}\"" for word in words) + "]"


# What is near a protected name --------------------------------------------------------------------------------

class Near(NamedTuple):
    """What every list is looked at by, made of the protected names and the public suffixes."""

    above: dict[bytes, bytes]           # what is above a protected name -> that name
    close: frozenset[bytes]             # every name that is to be looked at closely
    parents: frozenset[bytes]           # and those below which every name is
    special: Ranges[str]
    protected: Ranges[str]
    words: dict[bytes | Network, str]   # of a protected name or network: who that is


@lru_cache(maxsize=2)
def near_names(protected: Protected) -> Near:
    """The same for every list of a box: it takes milliseconds, and there may be ten thousand lists."""
    suffixes = public_suffixes()
    above: dict[bytes, bytes] = {}
    for name in sorted(protected.names | protected.trees):
        parent = name.partition(b".")[2]
        while parent:
            above.setdefault(parent, name)
            parent = parent.partition(b".")[2]
    words = dict(protected.words)
    return Near(above, protected.names | protected.trees | suffixes.close | above.keys() | suffixes.below.keys(),
                protected.trees | suffixes.wild,
                Ranges(range_of(ipaddress.ip_network(text), word) for text, word in SPECIAL.items()),
                Ranges(range_of(network, words.get(network, "")) for network in protected.networks), words)


def why_shared(found: Found, length: int) -> str:
    widest = found.section.widest
    if widest is not None:
        return f"is wider than /{widest[len(found.row.first) == 16]} and has customers' addresses in {found}"
    if found.row.length > length:
        return f"has a network in it that many share, {found}"
    return f"is in a network that many share, {found}"


def why_collateral(found: Figures, most: int) -> str:
    return (f"would take down {found.shared} names that more than one subscriber asks for, more than "
            f"max_collateral = {most}: the box has seen {found}")


@lru_cache(maxsize=2)
def near_networks(protected: Protected, ways: tuple[Translated, ...]) -> Ranges[None]:
    """All that an address may not be in, or that leads elsewhere, so that one look clears nearly every one. Made when
    the first address asks: lists of names alone pay nothing for it."""
    near = near_names(protected)
    rows = chain(near.special.rows(), near.protected.rows())
    return Ranges(chain((Range(row.first, row.length, None) for row in rows),
                        (Range(row.first, row.length, None) for row in protected.shared.whole),
                        (range_of(one.prefix, None) for one in ways)))


@lru_cache(maxsize=2)
def prints_of(protected: Protected, key: Key) -> dict[bytes, bytes]:
    """The fingerprint of each name that is looked at closely, and of its front page -> that text."""
    names = near_names(protected).close | {b"www." + tree for tree in protected.trees}
    return {fingerprint(key, text): text for name in names for text in (name, name + b"/")}


# The guard ---------------------------------------------------------------------------------------------------

class Seen(NamedTuple):
    """Counts of one list: lines with something in them, entries, lines that cannot be used."""

    lines: int
    entries: int
    unparsable: int


class Before(NamedTuple):
    """What the last accepted version had: entries, how many of them with a window of their own, entries left out as
    they ended long ago; and whether it had a window as a whole."""

    entries: int
    timed: int = 0
    past: int = 0
    windowed: bool = False


def unusable_lines(settings: ListSettings, seen: Seen) -> str | None:
    """Why a list with so many lines that cannot be used is refused, or None."""
    if settings.max_unparsable < 1 and seen.unparsable > settings.max_unparsable * seen.lines:
        return unless(f"{seen.unparsable} of {seen.lines} lines cannot be used, more than a share of "
                      f"{settings.max_unparsable:.4g}: fix them", settings, "max_unparsable",
                      "a higher max_unparsable")
    return None


def guarded_entries(settings: ListSettings, skipped: int, taken: int) -> str | None:
    """Why a list of which so many entries are left out is refused after all, or None."""
    if skipped > settings.max_guarded * (skipped + taken):
        return unless(f"guard rails refuse {skipped} of {skipped + taken} entries, more than a share of "
                      f"{settings.max_guarded:.4g}", settings, "max_guarded", "a higher max_guarded")
    return None


def left_out(settings: ListSettings, guarded: bool = False) -> str:
    """What becomes of a line that cannot be used, or that has an entry which a guard rail refuses alone."""
    if settings.format == "order":
        return "this item is refused"
    return 'left out (guarded = "skip")' if guarded else "this line is left out"


def skip_instead(settings: ListSettings, count: int) -> str:
    """The way out for a list that is refused for so many of its entries."""
    some = "this entry" if count == 1 else f"these {count} entries"
    return f"guarded = \"skip\" in {place_for(settings, 'guarded')} takes it without {some}"


class Guard:
    """The guard rails of one list; `key` is that of a hashed list, if it may be one."""

    def __init__(self, settings: ListSettings, protected: Protected, key: Key | None = None) -> None:
        self._settings = settings
        self._key = key
        self._suffixes = public_suffixes()
        self._names, self._trees = protected.names, protected.trees
        near = near_names(protected)
        self._above, self._close, self._parents = near.above, near.close, near.parents
        self._special, self._protected, self._words = near.special, near.protected, near.words
        self._shared, self._all = protected.shared, protected
        networks = (ipaddress.IPv6Network(text) for text in (WELL_KNOWN, *protected.nat64))
        ways = [Translated(network, network.prefixlen) for network in networks]
        self._behind = tuple((way, *way.ends) for way in ways)
        self._urls_are_hosts = settings.https == "host"
        self.skips = settings.guarded == "skip"
        # How many address entries there were, and what is behind those that are taken; None: nobody looks.
        self.addresses = 0
        self.behind = Summing(protected.impact) if protected.impact else None

    # One entry

    def refuses(self, entry: Entry | HashedEntry) -> str | None:
        """Why this entry refuses its list, or None."""
        if isinstance(entry, HashedEntry):
            return self._refuses_hashed(entry)
        kind, key = entry.kind, entry.key
        if kind <= SUBDOMAINS:
            if key in self._close:
                return self._refuses_host(entry, key)
            dot = key.find(b".")
            if dot < 0:
                return self._refuses_host(entry, key)
            while dot >= 0:
                if key[dot + 1:] in self._parents:
                    return self._refuses_host(entry, key)
                dot = key.find(b".", dot + 1)
            return None
        if key[0] == 0:
            refused = None if self._apart.clears(key) else self._refuses_network(entry)
            return refused or (None if entry.exception else self._refuses_collateral(key))
        if kind >= HOST_AT:             # wherever it leads
            host = key.partition(b"\0")[0]
            return self.refuses(Entry(entry.line, Kind(kind - HOST_AT + HOST), host, entry.exception))
        if self._urls_are_hosts or key[-1] == SLASH:
            return self._refuses_url(entry)
        return None

    def _refuses_hashed(self, entry: HashedEntry) -> str | None:
        # Only what can be hashed here can be known: suffixes, protected names and what is above one; the name and the
        # "www." below it of a whole protected tree, not all that is below.
        text = self.known_prints.get(entry.print)
        if text is None:
            return None
        if entry.kind == Kind.URL_MARK:
            return self._refuses_url(Entry(entry.line, Kind.URL, text + b"/-", entry.exception)) \
                if self._urls_are_hosts else None
        return self.refuses(Entry(entry.line, HOST if entry.kind == Kind.AT_MARK else entry.kind, text,
                                  entry.exception))

    @property
    def known_prints(self) -> dict[bytes, bytes]:
        """What a hashed list has for each name that is looked at closely, and for its front page and every page of
        it."""
        return {} if self._key is None else prints_of(self._all, self._key)

    def _refuses_host(self, entry: Entry, key: bytes) -> str | None:
        shown = repr(text_of(key))
        if self._suffixes.judge.is_public(text_of(key)):
            who = self._words.get(key, "")
            return self._unless_allowed("allow_public_suffixes", key, f"{shown} is a public suffix{who}")
        if entry.exception:
            return None                 # an exception that lifts a block of a protected name does no harm
        covers = entry.kind is not HOST_ONLY
        if covers and (suffix := self._suffixes.below.get(key)) and (refused := self._unless_allowed(
                "allow_public_suffixes", key, f"{shown} covers the public suffix {text_of(suffix)!r}")):
            return refused
        return self._refuses_protected(key, shown, covers, entry.kind is not SUBDOMAINS)

    def _refuses_protected(self, key: bytes, shown: str, covers: bool, itself: bool) -> str | None:
        name = self._tree_of(key)
        if name is None and itself and key in self._names:
            name = key
        if name is None and covers:
            name = self._above.get(key)
        if name is None:
            return None
        who = self._words.get(name, "")
        is_it = f"is protected{who}" if name == key else f"would take the protected {text_of(name)!r}{who} with it" \
            if name.endswith(b"." + key) else f"is below the protected {'*.' + text_of(name)!r}{who}"
        return self._unless_allowed("allow_protected", key, f"{shown} {is_it}")

    def _tree_of(self, key: bytes) -> bytes | None:
        while key:
            if key in self._trees:
                return key
            key = key.partition(b".")[2]
        return None

    def _refuses_url(self, entry: Entry) -> str | None:
        if entry.exception:
            return None
        host, _, target = entry.key.partition(b"/")
        shown = repr(text_of(host))
        whole = entry.kind is DIRECTORY and not target
        if whole or self._urls_are_hosts:
            how = f"every page of {shown}" if whole else f"with https = \"host\" the whole of {shown}"
            if host_address(host) is None and self._suffixes.judge.is_public(text_of(host)):
                return self._unless_allowed("allow_public_suffixes", host, f"{how}: the host is a public suffix")
        else:
            how = f"the front page of {shown}"
        if found := host if host in self._names else self._tree_of(host):
            return self._unless_allowed("allow_protected", host,
                                        f"{how}: the host is protected{self._words.get(found, '')}")
        address = host_address(host)
        if address is not None and (network := self._protected.touched(address, address)):
            return self._unless_allowed("allow_protected", host, f"{how}: the address is protected{network.word}")
        return None

    def _unless_allowed(self, setting: str, key: bytes, why: str) -> str | None:
        allowed: bool | tuple[str, ...] = getattr(self._settings, setting)
        text = text_of(key).strip("[]")      # of an IPv6 address
        if allowed is True or (allowed and text in allowed):
            return None
        return unless(why, self._settings, setting, f"{setting} = {also(allowed, text)}")

    def _refuses_network(self, entry: Entry) -> str | None:
        key, settings = entry.key, self._settings
        length = key[1]
        if len(key) < 16:
            version, first, widest = 4, key[2:6], settings.widest_ipv4
        else:
            version, first, widest = 6, key[2:18], settings.widest_ipv6
        if length < widest:
            name = f"widest_ipv{version}"
            return unless(f"{network_text(key)} is wider than /{widest}", settings, name, f"{name} = {length}")
        last = last_of(first, length)
        behind = [way for way, begin, end in self._behind if version == 6 and first <= end and begin <= last]
        for one in behind:
            if (inner := one.ipv4_length(length)) < settings.widest_ipv4:
                return unless(f"{network_text(key)} stands for IPv4 addresses (NAT64) and is wider than "
                              f"/{settings.widest_ipv4} of them", settings, "widest_ipv4", f"widest_ipv4 = {inner}")
        if found := self._special.touched(first, last):
            what = f"has addresses of {found.network} ({found.word})"
            if refused := self._unless_network("allow_addresses", key, what):
                return refused
        if entry.exception:
            return None
        refused = self._refuses_others(key, first, last, length)
        for one in behind:
            if refused is None and length >= one.at:            # where it leads
                refused = self._refuses_others(key, one.ipv4(first), one.ipv4(last), one.ipv4_length(length))
        return refused

    @cached_property
    def _used(self) -> list[Translated]:
        return self.behind.impact.used(way for way, _, _ in self._behind) if self.behind else []

    @cached_property
    def _apart(self) -> Apart:
        """Only max_collateral says anything of what it clears: it is narrow, and in nothing that others name."""
        settings, narrow = self._settings, self._shared.narrow
        return Apart(*near_networks(self._all, tuple(one for one, _, _ in self._behind)).edges(),
                     max(settings.widest_ipv4, narrow[0]), max(settings.widest_ipv6, narrow[1]))

    def _refuses_others(self, key: bytes, first: bytes, last: bytes, length: int) -> str | None:
        if found := self._protected.touched(first, last):
            inside = found.length > length
            what = f"has the protected {found.network}{found.word} in it" if inside else f"is protected{found.word}"
            refused = self._unless_network("allow_protected", key, what)
            if refused or not inside:
                return refused              # who may block what is protected need not say it twice
        if shared := self._shared.touched(first, last, length):
            return self._unless_network("allow_shared", key, why_shared(shared, length))
        return None

    def _refuses_collateral(self, key: bytes) -> str | None:
        self.addresses += 1
        if self.behind is None or not self.behind.impact.periods:
            return None
        ranges = ranges_of(key, self._used)
        if self.behind.impact.is_silent(ranges):
            self.behind.entries += 1
            return None
        found, most = self.behind.impact.of(ranges), self._settings.max_collateral
        if found.shared > most and (refused := self._unless_network("allow_collateral", key, why_collateral(
                found, most))):
            return refused
        self.behind.add(ranges)
        return None

    def _unless_network(self, setting: str, key: bytes, what: str) -> str | None:
        settings = self._settings
        allowed: bool | tuple[str, ...] = getattr(settings, setting)
        if allowed is True:
            return None
        size = 4 if len(key) < 16 else 16
        network = ipaddress.ip_network((key[2:2 + size], key[1]))
        for text in allowed or ():
            try:
                wider = ipaddress.ip_network(text)
            except ValueError:
                continue                # a host
            if wider.version == network.version and network.subnet_of(wider):    # type: ignore[arg-type]
                return None
        return unless(f"{network_text(key)} {what}", settings, setting,
                      f"{setting} = {also(allowed, str(network))}")

    # The whole list

    def refuses_list(self, seen: Seen, previous: Before | None, now: float) -> str | None:
        """Why a list of these counts is refused, or None.

        Args:
            previous: None when there is none.
            now: Unix seconds. An expired list has left force by order, so it may be of any length. One with a window
                may be empty before and after, if it had one before: else whoever may not set max_shrink would set
                a window. An order has said what it asks for, and comes in pieces.
        """
        settings = self._settings
        if why := unusable_lines(settings, seen):
            return why
        if previous is None or settings.format == "order" or (
                settings.expires is not None and settings.expires.timestamp() <= now):
            return None
        comes_and_goes = settings.window and previous.windowed
        had = previous.entries + previous.past
        # Nothing is no multiple of nothing: an empty list grows as one of a single entry.
        if seen.entries - had > GROWTH_FLOOR and seen.entries > settings.max_growth * max(had, 1) and (
                had or not comes_and_goes):
            return unless(f"grew from {had} entries to {seen.entries}, more than {settings.max_growth:.4g} "
                          "times as many", settings, "max_growth", "a higher max_growth")
        lasting = previous.entries - previous.timed
        fewer = lasting - seen.entries
        if settings.max_shrink < 1 and not comes_and_goes and fewer > settings.max_shrink * lasting and (
                fewer > SHRINK_FLOOR or not seen.entries):
            return unless(f"shrank from {lasting} entries to {seen.entries}, by more than a share of "
                          f"{settings.max_shrink:.4g}", settings, "max_shrink", "max_shrink = 1")
        return None
