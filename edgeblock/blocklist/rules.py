"""A rules directory, and what people ask about it: load, check (`explain`) and lint.

In: a directory of lists (docs/lists.md). Out: Rules with a matcher, a Record that explains one name, or Findings.
A directory is loaded whole or not at all. What never happens here: a name judged by anything but the matcher that
the engine uses.
"""

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeblock.blocklist import formats
from edgeblock.blocklist.canonical import (
    canonical_host,
    canonical_url,
    host_address,
    why_not_host,
    why_not_url,
)
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.fingerprint import Kind, fingerprint
from edgeblock.blocklist.keys import KEY_SIZE
from edgeblock.blocklist.matcher import Candidate, Found, ListMatcher
from edgeblock.blocklist.settings import ListSettings, parse_settings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.errors import ListError

SETTINGS_MAX = 64 * 1024    # bytes of a NAME.toml; a real one has a few hundred
SHARED_KEY = b"edgeblock-replay"    # for rules that stay in this process: the same rule ids every time
KIND_NAMES = {
    Kind.HOST: "host and subdomains", Kind.HOST_ONLY: "host only", Kind.SUBDOMAINS: "subdomains only",
    Kind.URL_WITH_QUERY: "URL with this query", Kind.URL: "URL", Kind.DIRECTORY: "every URL below",
    Kind.NETWORK: "address", Kind.ENDPOINT: "address and port", Kind.HOST_OF_URL: "host of a URL (https = \"host\")",
}


class Finding(NamedTuple):
    """Something wrong with a rules directory. `line` is 0 when it is about the whole file."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}" if self.line else f"{self.file}: {self.why}"


@dataclass(frozen=True)
class ListFile:
    """One list on disk and its settings."""

    name: str
    path: Path
    reader: formats.Reader
    settings: ListSettings

    def expired(self, now: float) -> bool:
        return self.settings.expires is not None and self.settings.expires.timestamp() <= now


@dataclass(frozen=True)
class ListInfo:
    """One list as loaded. `entries` are distinct, `duplicates` the others; an expired list has no entries."""

    name: str
    file: str
    action: str
    category: str
    https: str
    mandatory: bool
    expires: datetime | None
    expired: bool
    entries: int
    duplicates: int


@dataclass(frozen=True)
class Rules:
    """A loaded directory: the matcher, the snapshot bytes it answers from, and a row for each list."""

    directory: Path
    matcher: ListMatcher
    snapshot: bytes
    lists: tuple[ListInfo, ...]
    warnings: tuple[Finding, ...]
    files: tuple[ListFile, ...] = field(repr=False)
    now: float = 0.0


# Finding the lists -------------------------------------------------------------------------------------------

def open_regular(path: Path) -> BinaryIO:
    """A regular file for reading; never waits on a pipe.

    Raises:
        ListError: there is none, it is something else, or may not be read.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        if error.errno is not None and stat_kind(path) not in ("", "file"):
            raise ListError(f"{path.name}: is a {stat_kind(path)}, not a file") from None
        raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ListError(f"{path.name}: is a {stat_kind(path)}, not a file")
    return file


def stat_kind(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return ("file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode)
            else "pipe" if stat.S_ISFIFO(mode) else "special file")


def read_settings(path: Path, defaults: ListSettings) -> ListSettings:
    with open_regular(path) as file:
        text = file.read(SETTINGS_MAX + 1)
    if len(text) > SETTINGS_MAX:
        raise ListError(f"{path.name}: is longer than {SETTINGS_MAX} bytes; is it really the settings of a list?")
    return parse_settings(text, path.name, defaults, tuple(formats.READERS))


def find_lists(directory: Path, defaults: ListSettings) -> tuple[list[ListFile], list[Finding], list[Finding]]:
    """The lists of a directory by name, what cannot be used, and what looks like a mistake.

    Raises:
        ListError: the directory does not exist or may not be read.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        raise ListError(f"{directory}: there is no such rules directory") from None
    except NotADirectoryError:
        raise ListError(f"{directory}: is no directory; give the directory that the lists are in") from None
    except OSError as error:
        raise ListError(f"{directory}: cannot be read: {error.strerror}") from None
    paths = [directory / name for name in names if not name.startswith(".")]
    stated = {path.stem: path for path in paths if path.suffix == ".toml"}
    lists: list[ListFile] = []
    errors: list[Finding] = []
    warnings: list[Finding] = []
    seen: dict[str, str] = {}
    for path in paths:
        if path.suffix in (".toml", ".rejected"):
            continue
        own = stated.get(path.stem)
        if path.suffix in formats.PACKED:
            errors.append(Finding(ascii(path.name)[1:-1], 0, "is packed; unpack it and drop what is inside"))
            continue
        known = formats.find_format(path.name, path.suffix)
        if known is None and own is None:
            warnings.append(Finding(path.name, 0, f"is not read: {path.suffix or 'no extension'} is not one of "
                                    f"{', '.join(formats.EXTENSIONS)}, and no {path.stem}.toml states a format"))
            continue
        if not path.stem.isprintable():
            errors.append(Finding(ascii(path.name), 0, "has a character in its name that cannot be printed"))
            continue
        if path.stem in seen:
            errors.append(Finding(path.name, 0, f"has the same list name as {seen[path.stem]}; rename one"))
            continue
        seen[path.stem] = path.name
        try:
            settings = read_settings(own, defaults) if own else defaults
            with open_regular(path):
                pass
        except ListError as error:
            file, _, why = str(error).partition(": ")
            errors.append(Finding(file, 0, why))
            continue
        chosen = settings.format or known
        if chosen is None:
            errors.append(Finding(path.name, 0, f"has no known extension; state its format in {path.stem}.toml"))
            continue
        lists.append(ListFile(path.stem, path, formats.reader_of(chosen, settings), settings))
    for stem, path in stated.items():
        if stem not in seen:
            warnings.append(Finding(path.name, 0, f"has no list beside it, such as {stem}.list"))
    return lists, errors, warnings


def read_list(source: ListFile) -> Iterator[formats.Entry | formats.HashedEntry | Finding]:
    """Entries of one list, and a Finding for every line that cannot be used.

    Raises:
        ListError: the file cannot be read, or nothing of it can be used.
    """
    with open_regular(source.path) as file:
        try:
            for item in source.reader(file):
                if isinstance(item, formats.Problem):
                    if item.whole:
                        raise ListError(f"{source.path.name}:{item.line}: {item.why}")
                    yield Finding(source.path.name, item.line, item.why)
                elif not isinstance(item, formats.Passed):
                    yield item
        except OSError as error:
            raise ListError(f"{source.path.name}: cannot be read: {error.strerror}") from None


# Loading -----------------------------------------------------------------------------------------------------

def load(directory: Path | str, *, action: str = "reset", https: str = "ignore", key: bytes | None = None,
         key_file: Path | None = None, now: float | None = None) -> Rules:
    """All lists of `directory` as one matcher.

    Args:
        action, https: what a list without settings of its own does.
        key: 16 bytes, the key of this deployment; None for rules that do not leave this process.
        key_file: where that key is, for hashed lists, which no other key can read.
        now: Unix seconds, against which lists expire; None asks the clock.

    Raises:
        ListError: the directory or a list cannot be used; the message names the first place and how many more.
    """
    directory = Path(directory)
    now = time.time() if now is None else now
    files, errors, warnings = find_lists(directory, ListSettings(action=action, https=https))
    if key is None:
        hashed = key_file is not None and any(source.reader is formats.read_hashed for source in files)
        key = read_key(key_file) if hashed else SHARED_KEY      # type: ignore[arg-type]
    compiler = Compiler(key)
    totals = []
    for source in files:
        index = compiler.add_list(source.name, source.settings)
        total = 0
        if source.expired(now):
            warnings.append(Finding(source.path.name, 0, f"expired on {source.settings.expires:%Y-%m-%d %H:%M %Z}; "
                                    "it is not in force"))
        else:
            try:
                for item in read_list(source):
                    if isinstance(item, Finding):
                        errors.append(item)
                    elif not errors:
                        compiler.add(index, item)
                        total += 1
            except ListError as error:
                errors.append(finding_of(source, error))
        totals.append(total)
    if errors:
        more = f" (and {len(errors) - 1} more; `edgeblock lint {directory}` lists all)" if len(errors) > 1 else ""
        raise ListError(f"{errors[0]}{more}")
    snapshot = pack(compiler.finish(), key, int(now))
    matcher = ListMatcher(open_snapshot(snapshot, key))
    infos = tuple(
        ListInfo(source.name, source.path.name, source.settings.action, source.settings.category,
                 source.settings.https, source.settings.mandatory, source.settings.expires, source.expired(now),
                 record.entries, max(0, total - record.entries))
        for source, record, total in zip(files, compiler.lists, totals, strict=True))
    return Rules(directory, matcher, snapshot, infos, tuple(warnings), tuple(files), now)


def finding_of(source: ListFile, error: ListError) -> Finding:
    """What is wrong with a list as a whole; the error may name the file and the line, or neither."""
    found = re.match(r"(?:[^:]*:(\d+)|[^:]*): ", str(error)) if str(error).startswith(source.path.name) else None
    return Finding(source.path.name, int(found[1] or 0) if found else 0, str(error)[found.end() if found else 0:])


def read_key(path: Path | str, create: bool = False) -> bytes:
    """The 16 bytes of a key file; with `create`, a new random one of mode 0600 where there is none.

    Raises:
        ListError: the file cannot be read, written or is no key.
    """
    path = Path(path)
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(KEY_SIZE))
        key = path.read_bytes()
    except OSError as error:
        raise ListError(f"{path}: the key cannot be used: {error.strerror}") from None
    if len(key) != KEY_SIZE:
        raise ListError(f"{path}: is no key of {KEY_SIZE} bytes; remove it and a new one is made")
    return key


def lint(directory: Path | str, *, action: str = "reset", https: str = "ignore",
         now: float | None = None) -> list[Finding]:
    """Everything wrong with a directory, by file and line.

    Raises:
        ListError: the directory does not exist or may not be read.
    """
    now = time.time() if now is None else now
    files, errors, warnings = find_lists(Path(directory), ListSettings(action=action, https=https))
    findings = errors + warnings
    for source in files:
        entries = 0
        try:
            for item in read_list(source):
                if isinstance(item, Finding):
                    findings.append(item)
                entries += 1
        except ListError as error:
            findings.append(finding_of(source, error))
            continue
        if not entries:
            findings.append(Finding(source.path.name, 0, "has no entries"))
        if source.expired(now):
            findings.append(Finding(source.path.name, 0,
                                    f"expired on {source.settings.expires:%Y-%m-%d %H:%M %Z}; it is not in force"))
    return sorted(findings)


# Explaining --------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Rule:
    """A rule that a candidate led to; `line` is None when its file no longer has it."""

    list: str
    file: str
    line: int | None
    rule: str
    entry: str              # what kind of entry it is
    exception: bool
    mandatory: bool
    action: str
    applies: bool
    in_force: bool


@dataclass(frozen=True)
class Tried:
    """One canonical form that was looked up."""

    text: str
    in_bitmap: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Verdict:
    """What one protocol gets: `proto` is tls (QUIC is the same), http or ip; `precedence` says in words why.

    `asked` is false for the protocol that a URL does not name.
    """

    proto: str
    asked: bool
    verdict: str
    list: str | None
    rule: str | None
    precedence: str
    tried: tuple[Tried, ...]


@dataclass(frozen=True)
class Record:
    """Everything about one name. `canonical` is None when `problem` says why it is no name."""

    name: str
    canonical: str | None
    problem: str
    verdicts: tuple[Verdict, ...]

    @property
    def blocked(self) -> bool:
        """Whether any protocol that was asked about is stopped (drop, reset, page or redirect)."""
        return any(verdict.asked and verdict.verdict not in ("accept", "observe") for verdict in self.verdicts)

    def as_dict(self) -> dict[str, object]:
        """The record as JSON-able values."""
        return {**asdict(self), "blocked": self.blocked}

    def as_text(self) -> str:
        """The record for a person at a terminal, without a final line end."""
        if self.canonical is None:
            return f"{self.name}: {self.problem}"
        lines = [f"{self.name}" + (f"  (compared as {self.canonical})" if self.canonical != self.name else "")]
        for verdict in self.verdicts:
            proto = verdict.proto if verdict.asked else f"({verdict.proto})"
            lines.append(f"  {proto:<7} {verdict.verdict}: {verdict.precedence}")
            for tried in verdict.tried:
                lines.append(f"        {tried.text:<40} " + ("" if tried.rules else "not listed"))
                for rule in tried.rules:
                    place = f"{rule.file}:{rule.line}" if rule.line else rule.file
                    marks = [rule.entry, "exception" if rule.exception else rule.action]
                    marks += ["mandatory"] if rule.mandatory else []
                    marks += ["in force"] if rule.in_force else [] if rule.applies else ["does not apply here"]
                    lines.append(f"          {place}  rule {rule.rule}  {', '.join(marks)}")
        return "\n".join(line.rstrip() for line in lines)


def explain(rules: Rules, names: Iterable[str]) -> list[Record]:
    """A Record for each name: a host, a URL, or an address with or without a port.

    A host is judged in TLS and as the front page over HTTP; a URL in the protocol it names (without one: HTTP), and
    for information in the other: in TLS only the host of a URL is visible.
    """
    asked = [(name, *judge(rules.matcher, name)) for name in names]
    lines = find_lines(rules, [judged.tried for *_, verdicts in asked for judged in verdicts])
    return [
        Record(name, canonical, problem, tuple(describe(rules, lines, judged) for judged in verdicts))
        for name, canonical, problem, verdicts in asked]


class Judged(NamedTuple):
    """What the matcher said for one protocol."""

    proto: str
    asked: bool
    found: Found | None
    tried: list[Candidate]
    has_urls: bool          # the host has URL entries


URL_PARTS = re.compile(r"(?:(https?):[/\\\\]*)?([^/\\\\?#]*)", re.IGNORECASE)
PORT = re.compile(r".*(?:\]|^[^:]*):(\d{1,5})")


def judge(matcher: ListMatcher, name: str) -> tuple[str | None, str, list[Judged]]:
    """Canonical form, problem, and what the matcher says for each protocol."""
    text = name.strip()
    scheme, authority = URL_PARTS.match(text).groups()      # type: ignore[union-attr]
    if scheme or authority != text:
        canonical, why = canonical_url(text), why_not_url(text)
        asked = {"tls"} if scheme and scheme.lower() == "https" else {"http"}
    else:
        canonical, why = canonical_host(text), why_not_host(text)
        asked = {"tls", "http"}
    if canonical is None:
        return None, why, []
    host, slash, target = canonical.partition(b"/")
    verdicts = []
    if (address := host_address(host)) is not None:
        port = PORT.fullmatch(authority)
        usual = {"https": 443, "http": 80}.get((scheme or "").lower(), 0)
        verdicts.append(Judged("ip", True, *matcher.trace_address(address, int(port[1]) if port else usual)))
    for proto in sorted(("tls", "http"), key=lambda proto: (proto not in asked, proto == "http")):
        seen = (slash + target or b"/") if proto == "http" else None
        verdicts.append(Judged(proto, proto in asked, *matcher.trace_name(proto, host, seen)))
    return canonical.decode("utf-8", "backslashreplace"), "", verdicts


def find_lines(rules: Rules, tried: list[list[Candidate]]) -> dict[tuple[str, Kind, bytes, bool], int]:
    """Where the rules that were found stand, by reading their lists again: nothing keeps ten million lines."""
    wanted: dict[str, set[bytes]] = {}
    for candidates in tried:
        for candidate in candidates:
            for row in candidate.rows:
                wanted.setdefault(row.list, set()).add(candidate.text)
    found: dict[tuple[str, Kind, bytes, bool], int] = {}
    for source in rules.files:
        keys = wanted.get(source.name)
        if not keys:
            continue
        prints = {fingerprint(rules.matcher.snapshot.key, key): key for key in keys}
        for item in read_list(source):
            if isinstance(item, Finding):
                continue
            if isinstance(item, formats.HashedEntry):
                if key := prints.get(item.print):
                    kind = Kind.HOST_OF_URL if item.kind == Kind.URL_MARK else item.kind
                    found.setdefault((source.name, kind, key, item.exception), item.line)
                continue
            if item.key in keys:
                found.setdefault((source.name, item.kind, item.key, item.exception), item.line)
            elif Kind.SUBDOMAINS < item.kind <= Kind.DIRECTORY and (host := item.key.partition(b"/")[0]) in keys:
                found.setdefault((source.name, Kind.HOST_OF_URL, host, item.exception), item.line)
    return found


def describe(rules: Rules, lines: dict[tuple[str, Kind, bytes, bool], int], judged: Judged) -> Verdict:
    lists = {info.name: info for info in rules.lists}
    seen: set[bytes] = set()
    tried: list[Tried] = []
    best: Rule | None = None
    applying = 0
    for candidate in judged.tried:
        if candidate.text in seen:
            continue
        seen.add(candidate.text)
        explained = []
        for row in candidate.rows:
            info = lists[row.list]
            rule = Rule(row.list, info.file, lines.get((row.list, row.kind, candidate.text, row.exception)), row.rule,
                        KIND_NAMES[row.kind], row.exception, info.mandatory, info.action, row.applies, row.in_force)
            explained.append(rule)
            applying += row.applies
            best = rule if row.in_force else best
        text = formats.network_text(candidate.text) if candidate.text[:1] == b"\0" else candidate.text.decode(
            "utf-8", "backslashreplace")
        tried.append(Tried(text, candidate.in_bitmap, tuple(explained)))
    found = judged.found
    return Verdict(judged.proto, judged.asked, found.action if found else "accept", found.list if found else None,
                   found.rule if found else None, reason(best, applying, judged.has_urls), tuple(tried))


def reason(best: Rule | None, applying: int, has_urls: bool) -> str:
    """Why this rule, in words."""
    if best is None:
        return "nothing listed applies" + ("; other URLs of this host are listed" if has_urls else "")
    place = f"{best.file}:{best.line}" if best.line else best.file
    if best.exception:
        why = "an exception" + (" outranks every block that is not mandatory" if applying > 1 else "")
    elif best.mandatory:
        why = "a mandatory block" + (" outranks exceptions and other blocks" if applying > 1 else "")
    elif best.action == "observe":
        why = "listed, to be reported only"
    else:
        why = "a block" + (", the most specific of those that apply" if applying > 1 else "")
    return f"{why} ({place}, {best.entry})"
