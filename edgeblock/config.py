"""One TOML file into frozen records. In: a path or nothing. Out: a Config; every default is here, nowhere else.

Unknown keys are refused with the nearest known name; a wrong value names the key, the value and what is allowed. All
mistakes of a file are told at once.
edgeblock.toml beside this file is the same, for people: a test compares the two. Never here: a look at the machine.
"""

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeblock.core.decision import LIST_ACTIONS
from edgeblock.errors import ConfigError
from edgeblock.toml import (
    choice,
    flag,
    nearest,
    number,
    path,
    read_table,
    readers,
    seconds,
    setting,
    shown,
    text,
    whole,
    why_no_toml,
    words,
)

DEFAULT_FILE = Path("/etc/edgeblock/edgeblock.toml")
NAT64_LENGTHS = (32, 40, 48, 56, 64, 96)    # RFC 6052, 2.2
NAT64_MAX = 16                              # blocklist/matcher.pxd has room for so many
SHIPPED_LANGUAGES = ("en", "de", "fr", "es", "ar")      # of the block page
STATUSES = (200, 403, 404, 410, 451)        # of the block page: those that a server may send with one (RFC 9110, 15)
URL = re.compile(r"https?://[!-~]+", re.IGNORECASE)     # nothing in it ends a header line
URL_MAX = 2000                              # characters; what browsers and proxies take
TEXT_MAX = 1000                             # of a text on the block page, in one language
PAGE_NAME = re.compile(r"[^./\0][^/\0]{0,150}\.html")
LANGUAGES_MAX = 16                          # that one list speaks
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,2}")      # RFC 5646, those that pages are written in


# What a key may hold besides what toml.py has.

def _workers(default: int) -> Any:
    def read(value: Any) -> int | str:
        if value == "auto":
            return "auto"
        if type(value) is not int or not 1 <= value <= 1024:
            raise ValueError('a whole number from 1 to 1024, or "auto"')
        return value
    return setting(default, read)


def _listen() -> Any:
    def read(value: Any) -> str:
        host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if value == "" or isinstance(value, str) and value.startswith("/") and "\0" not in value:
            return value
        try:
            if host[:1] == "[" and host[-1:] == "]":
                ipaddress.IPv6Address(host[1:-1])
            elif host != "localhost":
                ipaddress.IPv4Address(host)
            if not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError
        except ValueError:
            raise ValueError('an address and a port, such as "127.0.0.1:9477" or "[::1]:9477", an absolute path of a '
                             'socket, or ""') from None
        return value
    return setting("", read)


def _mark(default: int) -> Any:
    def read(value: Any) -> int:
        if type(value) is not int or not 0 < value <= 0xFFFFFFFF:
            raise ValueError(f"bits of 32, such as {default:#x}")
        return value
    return setting(default, read)


def _several(default: tuple[str, ...], *allowed: str) -> Any:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or any(word not in allowed for word in value):
            raise ValueError("a list of " + ", ".join(f'"{word}"' for word in allowed))
        return tuple(dict.fromkeys(value))
    return setting(default, read)


def _allowed() -> Any:
    def read(value: Any) -> bool | tuple[str, ...]:
        if type(value) is bool:
            return value
        if not isinstance(value, list) or any(not isinstance(word, str) or not word.isprintable() or not word
                                              for word in value):
            raise ValueError("true, false, or a list of what is allowed, each in quotes")
        return tuple(dict.fromkeys(value))
    return setting(False, read)


def read_language(value: str) -> str:
    """A language tag as it is usually written (RFC 5646, 2.1.1). ValueError if it is none."""
    if not LANGUAGE.fullmatch(value):
        raise ValueError(f"{value!r} is no language such as en or pt-BR")
    first, *more = value.split("-")
    return "-".join([first.lower(), *(one.upper() if len(one) == 2 else one.title() if len(one) == 4 else one.lower()
                                      for one in more)])


def read_texts(value: Any) -> tuple[tuple[str, str], ...]:
    """A text, or one for each language, as pairs of language and text; "" is the language of a text that says none.
    ValueError with what is allowed."""
    what = f'one line of text of at most {TEXT_MAX} characters in quotes, or one for each language: {{en = "..."}}'
    given = {"": value} if isinstance(value, str) else value
    if not isinstance(given, dict) or len(given) > LANGUAGES_MAX or not all(
            isinstance(text, str) and text.isprintable() and len(text) <= TEXT_MAX for text in given.values()):
        raise ValueError(what)
    try:
        return tuple((read_language(language) if language else "", text) for language, text in given.items() if text)
    except ValueError as problem:
        raise ValueError(f"{what}; {problem}") from None


def read_url(value: Any) -> str:
    """The URL of a redirect, "" for none. ValueError with what is allowed."""
    if value != "" and not (isinstance(value, str) and len(value) <= URL_MAX and URL.fullmatch(value)):
        raise ValueError(f"an http or https URL in ASCII of at most {URL_MAX} characters, in quotes")
    return str(value)


def read_contact(value: Any) -> str:
    """Where to complain. ValueError with what is allowed."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > TEXT_MAX:
        raise ValueError(f"one line of text of at most {TEXT_MAX} characters in quotes")
    return value


def read_page_name(value: Any) -> str:
    """The name of a page beside a list, "" for none. ValueError with what is allowed."""
    if value != "" and not (isinstance(value, str) and PAGE_NAME.fullmatch(value) and value.isprintable()):
        raise ValueError('the name of a file beside the list that ends in .html, in quotes, such as "court.html"')
    return str(value)


def _texts() -> Any:
    return setting((), read_texts)


def _links() -> Any:
    def read(value: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, list) or any(
                not isinstance(pair, list) or len(pair) != 2
                or any(not isinstance(word, str) or not word or not word.isprintable() for word in pair)
                for pair in value):
            raise ValueError('a list of ["what it is", "where it is"] pairs')
        return tuple((text, where) for text, where in value)
    return setting((), read)


def _ports(default: tuple[int, ...]) -> Any:
    def read(value: Any) -> tuple[int, ...] | str:
        if value == "all":
            return "all"
        if not isinstance(value, list) or any(type(port) is not int or not 0 < port < 65536 for port in value):
            raise ValueError('a list of ports from 1 to 65535, or "all"')
        return tuple(dict.fromkeys(value))
    return setting(default, read)


def _interfaces() -> Any:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(not isinstance(name, str) or not name or name.isspace()
                                              for name in value):
            raise ValueError('a list of interfaces, such as ["eth1", "ppp*"]')
        return tuple(dict.fromkeys(value))
    return setting((), read)


def _networks() -> Any:
    def read(value: Any) -> tuple[str, ...]:
        try:
            found = [ipaddress.ip_network(one) for one in value if isinstance(one, str)]
        except (TypeError, ValueError):
            found = []
        if not isinstance(value, list) or len(found) != len(value):
            raise ValueError('a list of addresses and networks, such as ["192.0.2.0/24", "2001:db8::/32"]')
        # nftables refuses one range inside another, so they are merged here.
        merged = [*ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv4Network)),
                  *ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv6Network))]
        return tuple(map(str, merged))
    return setting((), read)


def _network(default: str, family: int) -> Any:
    def read(value: Any) -> str:
        if value == "":
            return ""
        try:
            found = ipaddress.ip_network(value if isinstance(value, str) else "")
        except ValueError:
            found = None
        if found is None or found.version != family or found.num_addresses < 8:
            raise ValueError(f'a network of 8 addresses or more, such as "{default}", or ""')
        return str(found)
    return setting(default, read)


def _nat64() -> Any:
    what = f"a list of at most {NAT64_MAX} IPv6 prefixes"

    def network(value: Any) -> str:
        try:
            found = ipaddress.IPv6Network(value if isinstance(value, str) else "")
        except ValueError as problem:
            why = ", as it has bits beyond its prefix" if "host bits" in str(problem) else ""
            raise ValueError(f'{what} such as "2001:db8:64::/96"; {value!r} is none{why}') from None
        if found.prefixlen not in NAT64_LENGTHS:
            lengths = ", ".join(map(str, NAT64_LENGTHS))
            raise ValueError(f"{what} of {lengths} bits (RFC 6052); {value!r} has {found.prefixlen}")
        return str(found)

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > NAT64_MAX:
            raise ValueError(f'{what}, such as ["2001:db8:64::/96"]')
        return tuple(dict.fromkeys(map(network, value)))
    return setting((), read)


# What a NAME.toml may say, now or in a version to come, and [rules] locked may keep for the operator. (`from` is
# `begins` inside, and means the same.)
LOCKABLE = (
    "action", "category", "format", "https", "mandatory", "expires", "signer", "column", "delimiter", "subdomains",
    "allow_public_suffixes", "allow_protected", "allow_addresses", "allow_shared", "allow_collateral", "widest_ipv4",
    "widest_ipv6", "max_collateral", "max_growth", "max_shrink", "max_unparsable", "guarded", "max_guarded", "zone",
    "encoding", "attributes", "clients", "clients_except", "from", "begins", "until", "weekly", "order", "authority",
    "received", "approved_by", "reference", "drop_past_days", "redirect", "status", "page", "contact", "provider",
    "reason", "help")


def _locks() -> Any:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(word not in LOCKABLE for word in value):
            raise ValueError("a list of settings of lists: " + ", ".join(LOCKABLE))
        return tuple(dict.fromkeys(value))
    return setting((), read)


def _exceptions() -> Any:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(
                not isinstance(word, str) or not word.isprintable() or not word.partition("=")[0]
                or "=" in word and word.rpartition("=")[2] not in LOCKABLE for word in value):
            raise ValueError('a list of "NAME" or "NAME=SETTING", such as "court=mandatory"')
        return tuple(dict.fromkeys(value))
    return setting((), read)


@dataclass(frozen=True)
class Rules:
    """[rules]: where lists are, who may sign them, and what holds for a list that does not say otherwise."""

    directory: Path = path("/etc/edgeblock/rules")
    action: str = choice("reset", *LIST_ACTIONS)
    https: str = choice("ignore", "ignore", "host")   # what a URL rule does on TLS and QUIC
    key: Path = path("/var/lib/edgeblock/key")
    protected: Path | None = path(None)               # the operator's own protected names, besides the shipped ones
    shared: Path | None = path(None)                  # the operator's own shared networks, over the shipped ones
    require_signatures: bool = flag(False)            # every list needs the signature of one of `signers`
    signers: tuple[str, ...] = words()                # minisign keys: "KEY" for all lists, "NAME=KEY" for that list
    compiled_signers: tuple[str, ...] = words()       # and who may sign what was compiled elsewhere; () takes none
    allow_public_suffixes: bool | tuple[str, ...] = _allowed()
    allow_protected: bool | tuple[str, ...] = _allowed()
    allow_addresses: bool | tuple[str, ...] = _allowed()    # loopback, multicast and such
    allow_shared: bool | tuple[str, ...] = _allowed()  # addresses that serve many sites
    allow_collateral: bool | tuple[str, ...] = _allowed()   # addresses with more names behind them than this:
    max_collateral: int = whole(100, 0, 1_000_000_000)     # that several subscribers ask for; docs/impact.md
    widest_ipv4: int = whole(20, 0, 32)               # prefix length of the widest range that a list may have
    widest_ipv6: int = whole(32, 0, 128)
    max_growth: float = number(3.0, 1, 1e9)           # times the entries of the last accepted version
    max_shrink: float = number(0.5, 0, 1)             # share of the last accepted version's entries that may go
    max_unparsable: float = number(0.05, 0, 1)        # share of the lines that may be unusable
    guarded: str = choice("refuse", "refuse", "skip")  # a list with entries that a guard rail refuses, or these
    max_guarded: float = number(0.9, 0, 1)            # share of the entries that may be left out so
    nat64: tuple[str, ...] = _nat64()                  # prefixes of NAT64 here, besides 64:ff9b::/96
    locked: tuple[str, ...] = _locks()                 # settings that no NAME.toml may change
    self_check: float = seconds(1.0, 0, 600)          # new rules are tried for so long before they are in force
    unlocked: tuple[str, ...] = _exceptions()          # "NAME" or "NAME=SETTING": those lists' may, all or this one


@dataclass(frozen=True)
class Queue:
    """[queue]: the NFQUEUE that packets arrive on."""

    number: int = whole(0, 0, 65535)
    workers: int | str = _workers(1)          # processes, each with a queue and a CPU of its own; "auto": one a CPU
    length: int = whole(8192, 1, 1_000_000)                         # packets the kernel holds for us, when closed
    buffer: int = whole(8 * 1024 * 1024, 65536, 1024 * 1024 * 1024)    # bytes of socket receive buffer
    overload: str = choice("open", "open", "closed")                # full queue: pass packets unseen, or drop them


@dataclass(frozen=True)
class Ruleset:
    """[ruleset]: which packets the kernel queues."""

    install: bool = flag(True)               # `run` applies it at start and removes it at stop
    backend: str = choice("auto", "auto", "nft", "iptables")
    kernel: str = choice("auto", "auto", "off", "judge", "marks", "carry")    # what it does itself; docs/stage1.md
    marks: int = whole(1_048_576, 1024, 100_000_000)      # flows whose marks our programs keep
    addresses: bool = flag(True)             # address entries are rules too, for every port; docs/addresses.md
    hooks: tuple[str, ...] = _several(("forward",), "forward", "input", "output")
    clients: tuple[str, ...] = _interfaces()  # towards the clients; () is any
    servers: tuple[str, ...] = _interfaces()  # towards the servers; () is any
    exempt_clients: tuple[str, ...] = _networks()      # never queued, whatever they ask for
    exempt_servers: tuple[str, ...] = _networks()      # never queued, whoever asks
    tcp_ports: tuple[int, ...] | str = _ports((80, 443, 8080, 8443))
    udp_ports: tuple[int, ...] | str = _ports((443,))
    mark_mask: int = _mark(0x30000000)        # two adjacent bits of the conntrack mark
    inject_mark: int = _mark(0x40000000)      # packet mark of our own replies, so that they are never queued
    proof_mark: int = _mark(0x80000000)       # packet mark, from rule to queue: who sends has proved his address
    absent: str = choice("open", "open", "closed")    # no daemon on the queue: packets pass, or are dropped

    @property
    def stage1(self) -> str:
        """Whether ClientHellos are judged in the kernel: "on", "off", or "auto": where it can."""
        return self.kernel if self.kernel in ("auto", "off") else "on"

    @property
    def tracking(self) -> str:
        """Who keeps flow marks: "conntrack", or "stage1", the programs of the first stage."""
        return "stage1" if self.kernel in ("marks", "carry") else "conntrack"

    @property
    def shortcut(self) -> bool:
        """Whether packets are carried past the stack."""
        return self.kernel == "carry"


# What `kernel` was before it was one key. Files that say it so are still read.
OLDER = {"stage1": choice("auto", "auto", "on", "off"), "tracking": choice("conntrack", "conntrack", "stage1"),
         "shortcut": flag(False)}


@dataclass(frozen=True)
class Limits:
    """[limits]: what a worker may remember. See docs/limits.md for each limit, its policy and its counter."""

    flows: int = whole(262_144, 16, 100_000_000)      # flows remembered by one worker
    memory: int = whole(256 * 1024 * 1024, 1024 * 1024, 1 << 40)    # bytes of stream window in one worker
    flow_bytes: int = whole(160 * 1024, 4096, 64 * 1024 * 1024)     # bytes of stream window in one flow
    idle: float = seconds(120.0, 1, 86_400)   # without a packet for so long, a flow is forgotten
    hold: float = seconds(7440.0, 1, 604_800)  # the same for one in the middle of a message
    settle_packets: int = whole(512, 0, 1_000_000)    # one-way routing: client packets after which a flow is done
    quic_connections: int = whole(8, 1, 1000)         # QUIC connections whose keys are tried on any foreign packet
    quic_derivations: int = whole(16, 1, 1_000_000)   # QUIC keys derived for one datagram
    quic_failures: int = whole(100_000, 1, 100_000_000)   # tries of more connections' keys, of a worker in 1 s
    quic_worker_derivations: int = whole(1_000_000, 1, 100_000_000)     # QUIC keys derived by a worker in 1 s
    worker_rereading: int = whole(1 << 25, 65_536, 1 << 31)     # bytes read again in 1 s, where copies conflict


@dataclass(frozen=True)
class Policies:
    """[policies]: pass or drop, for what cannot be read."""

    unparsable: str = choice("pass", "pass", "drop")  # the stream is no protocol we know
    midstream: str = choice("pass", "pass", "drop")   # the flow was first seen after its start, inside a message
    memory: str = choice("pass", "pass", "drop")      # a limit was reached without conflicting bytes
    conflict: str = choice("drop", "pass", "drop")    # a limit was reached and the bytes conflict: somebody hides
    work: str = choice("drop", "pass", "drop")        # a packet costs too much: it alone, and it is sent again
    no_sni: str = choice("pass", "pass", "drop")      # a hello without a name
    crash: str = choice("drop", "pass", "drop")       # its packet has ended a worker, or its beginning went with one
    ech: str = choice("accept", "accept", "block", "block-listed-addresses")


@dataclass(frozen=True)
class Reply:
    """[reply]: what a blocked client receives."""

    tls: str = choice("alert", "alert", "rst")        # alert: fatal alert and FIN; rst: a bare RST
    unproven: str = choice("drop", "drop", "answer")  # who has not acknowledged a SYN-ACK that the box has seen
    status: int = setting(451, lambda value: read_status(value))    # of the block page
    blocked_by: str = text()                          # URL of who blocks, sent with 451 (RFC 7725, 4)
    language: str = choice("en", *SHIPPED_LANGUAGES)  # where the client asks for none that there is
    page: Path | None = path(None)                    # an HTML file; None is the page that ships
    contact: str = text()                             # how to complain about a wrong block
    provider: str = text()                            # who blocks
    reason: tuple[tuple[str, str], ...] = _texts()     # why, by language; () is the wording of the page that ships
    help: tuple[tuple[str, str], ...] = _links()       # where to get help, on the page that ships; () is its own
    redirect: str = text()                            # the URL of a redirect


def read_status(value: Any) -> int:
    """A status of the block page. ValueError with what is allowed."""
    if type(value) is not int or value not in STATUSES:
        raise ValueError(f"one of {', '.join(map(str, STATUSES))}")
    return value


@dataclass(frozen=True)
class Privacy:
    """[privacy]: off by default; on, log lines name the plain name or the subscriber."""

    names: bool = flag(False)
    clients: bool = flag(False)


@dataclass(frozen=True)
class Daemon:
    """[daemon]: how it is watched."""

    control: Path = path("/run/edgeblock/control.sock")     # where `edgeblock status` asks
    control_group: str = text("edgeblock-lists")           # whose members may ask `status` and `check` there
    log_blocks: int = whole(20, 0, 100_000)   # log lines a second about blocks; the rest are counted in one line
    log_megabytes: int = whole(100, 0, 1_000_000)     # of lines about blocks in a day (UTC); the same
    hang: float = seconds(0.7, 0.2, 60)       # a worker whose packet path is silent for so long is replaced


@dataclass(frozen=True)
class Canary:
    """[canary]: the daemon asks its own box for a listed name and for another."""

    enabled: bool = flag(True)
    period: float = seconds(10.0, 1, 3600)    # between two rounds
    ipv4: str = _network("198.18.0.0/29", 4)   # of the two interfaces that it asks by; "": not over IPv4
    ipv6: str = _network("2001:2::/125", 6)


@dataclass(frozen=True)
class Impact:
    """[impact]: what is kept of who would be hit by address entries. docs/impact.md."""

    enabled: bool = flag(True)
    destinations: int = whole(262_144, 256, 1 << 26)  # addresses that a worker remembers; rounded up to a power of 2
    sample: float = number(0.01, 0, 1)        # share of connections that the first stage queues to learn from


@dataclass(frozen=True)
class Ledger:
    """[ledger]: a record that shows afterwards what was in force, and when. docs/ledger.md."""

    enabled: bool = flag(True)
    directory: Path | None = path(None)       # None: beside that of [rules] key, with -ledger behind its name
    keep_days: int = whole(400, 1, 36_500)    # records of days before are removed; what was signed of them stays
    max_megabytes: int = whole(256, 64, 1_000_000)     # of records; the oldest go first
    proof_megabytes: int = whole(1024, 0, 1_000_000)   # of what proves entries of versions of lists before; the same


@dataclass(frozen=True)
class Report:
    """[report]: counts by day that outlive the daemon. docs/report.md."""

    enabled: bool = flag(True)
    keep_days: int = whole(400, 1, 4000)      # days with counts that are kept; a year, and time to report on it


@dataclass(frozen=True)
class Fetch:
    """[fetch]: what edgeblock-fetch says of the sources of lists. docs/fetch.md."""

    status: Path = path("/run/edgeblock-fetch/status.json")    # where it says so
    required: bool = flag(False)               # whether it is a fault that nobody fetches


@dataclass(frozen=True)
class Metrics:
    """[metrics]: where Prometheus asks."""

    listen: str = _listen()                    # "127.0.0.1:9477", or the path of a UNIX socket; empty: nowhere
    other_machines: bool = flag(False)        # whether `listen` may be an address that others can reach
    certificate: Path | None = path(None)     # PEM, with its chain: then over TLS
    certificate_key: Path | None = path(None)
    token_file: Path | None = path(None)      # what a request must bring (Authorization: Bearer)


@dataclass(frozen=True)
class Config:
    rules: Rules = field(default_factory=Rules)
    queue: Queue = field(default_factory=Queue)
    ruleset: Ruleset = field(default_factory=Ruleset)
    limits: Limits = field(default_factory=Limits)
    policies: Policies = field(default_factory=Policies)
    reply: Reply = field(default_factory=Reply)
    privacy: Privacy = field(default_factory=Privacy)
    daemon: Daemon = field(default_factory=Daemon)
    canary: Canary = field(default_factory=Canary)
    impact: Impact = field(default_factory=Impact)
    ledger: Ledger = field(default_factory=Ledger)
    report: Report = field(default_factory=Report)
    fetch: Fetch = field(default_factory=Fetch)
    metrics: Metrics = field(default_factory=Metrics)


def load(path: Path | str | None = None) -> Config:
    """The configuration in a file; None is DEFAULT_FILE where that exists, and else the defaults.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds keys or values that are not allowed.
    """
    made, mistakes = read(path)
    if mistakes:
        raise ConfigError(*mistakes.values())
    return made


def read(path: Path | str | None = None) -> tuple[Config, dict[str, str]]:
    """The same with the defaults for what is wrong, and what that is: a line for each key.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    given, path = path, path or DEFAULT_FILE
    try:
        if given is None and not DEFAULT_FILE.exists():
            return Config(), {}
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: not UTF-8 at byte {problem.start}") from None
    return _read_text(text, str(path), Path(path).absolute().parent)


def parse(text: str, source: str, folder: Path) -> Config:
    """The configuration in a TOML text. `source` names it in errors; relative paths are taken from `folder`."""
    made, mistakes = _read_text(text, source, folder)
    if mistakes:
        raise ConfigError(*mistakes.values())
    return made


def _read_text(text: str, source: str, folder: Path) -> tuple[Config, dict[str, str]]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{source}: not TOML: {why_no_toml(problem)}") from None
    sections = {section.name: section.default_factory for section in fields(Config)}
    values = {}
    mistakes: dict[str, str] = {}
    for name, table in tables.items():
        if name not in sections:
            homes = [section for section, record in sections.items() if name in readers(record)]
            hint = f"it belongs under [{homes[0]}]" if homes else nearest(name, sections, "[{}]")
            mistakes[name] = f"{source}: unknown {'section' if isinstance(table, dict) else 'key'} {name!r}; {hint}"
        elif not isinstance(table, dict):
            mistakes[name] = f"{source}: {name} = {shown(table)} must be a section: [{name}]"
        else:
            values[name] = _record(sections[name], name, table, source, folder, mistakes)
    return Config(**values), mistakes


def _record(record: Any, section: str, table: dict[str, Any], source: str, folder: Path,
            mistakes: dict[str, str]) -> Any:
    if record is Ruleset:
        table = _without_older(table, source, mistakes)
    return record(**read_table(readers(record), table, source, f"[{section}]", folder, mistakes))


def _without_older(table: dict[str, Any], source: str, mistakes: dict[str, str]) -> dict[str, Any]:
    """The table of [ruleset] with `kernel` in place of the three keys that it had for this."""
    older = {key: table[key] for key in OLDER if key in table}
    newer = {key: value for key, value in table.items() if key not in OLDER}
    if not older:
        return table
    wrong = len(mistakes)
    for key, value in older.items():
        try:
            OLDER[key].metadata["read"](value)
        except ValueError as allowed:
            mistakes[f"ruleset.{key}"] = f"{source}: [ruleset] {key} = {shown(value)} must be {allowed}"
    if len(mistakes) > wrong:
        return newer
    stage1, marks, carry = older.get("stage1", "auto"), older.get("tracking") == "stage1", older.get("shortcut")
    said = " and ".join(f"{key} = {shown(value)}" for key, value in older.items())
    if "kernel" in newer:
        mistakes["ruleset.kernel"] = f"{source}: [ruleset] kernel says what {' and '.join(older)} said; take that out"
    elif carry and not marks:
        mistakes["ruleset.shortcut"] = f'{source}: [ruleset] {said}: ruleset.shortcut needs ruleset.tracking = ' \
                                       f'"stage1"; say kernel = "carry" for both'
    elif marks and stage1 == "off":
        mistakes["ruleset.tracking"] = f'{source}: [ruleset] {said}: ruleset.tracking: "stage1" needs the first ' \
                                       f'stage; say kernel = "marks" for both'
    else:
        newer["kernel"] = "carry" if carry else "marks" if marks else {"on": "judge"}.get(stage1, stage1)
    return newer
