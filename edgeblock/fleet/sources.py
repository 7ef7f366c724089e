"""/etc/edgeblock/sources.toml into frozen records: where lists come from, and how often it is asked there.

In: a path. Out: Sources; every mistake of the file is told at once, a line each with the key and the way out. A kind
of source is one row of KINDS: a module with a frozen dataclass `Settings`, whose fields are the keys that a source of
this kind has beside the common ones, and a class that is made of a name, these settings and [fetch], and is a Source.
A field says by its type what it holds, or by a reader of toml.py; without a default it has to be there;
`__post_init__` may raise ConfigError with a line for each mistake, without file and section. Never here: a protocol,
or a look at the machine.
"""

import importlib
import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, cast, get_type_hints

from edgeblock import toml
from edgeblock.errors import ConfigError
from edgeblock.fleet.source import Source
from edgeblock.toml import flag, nearest, number, path, read_table, readers, seconds, setting, shown, text, whole

DEFAULT_FILE = Path("/etc/edgeblock/sources.toml")
KINDS = {
    "https": ("edgeblock.fleet.web", "Web"),
    "zone": ("edgeblock.fleet.zone", "Zone"),
    "tuf": ("edgeblock.fleet.repository", "Repository"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SOURCES_MAX = 1000          # of one file: each is a task, and a folder of state
TEXT_MAX = 1 << 20          # bytes of the file


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a whole number")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e18:
        raise ValueError("a number")
    return float(value)


TYPES: dict[Any, Callable[[Any], Any]] = {
    str: text().metadata["read"], bool: flag(False).metadata["read"], Path: path(".").metadata["read"],
    int: _integer, float: _real,
    Path | None: path(None).metadata["read"], tuple[str, ...]: toml.words().metadata["read"],
}


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("letters, digits, '-' and '_' in quotes, at most 64, such as \"court\"")
    return value


def _proxy(value: Any) -> str:
    if value != "" and not (isinstance(value, str) and re.fullmatch(r"https?://[^\s/@?#]+/?", value)):
        raise ValueError('the URL of a proxy without a password, such as "http://proxy.example.net:3128", or ""')
    return str(value)


@dataclass(frozen=True)
class FetchSettings:
    """[fetch]: what holds for all sources."""

    directory: Path = path("/etc/edgeblock/rules")             # the drop directory
    state: Path = path("/var/lib/edgeblock-fetch")             # what is known of each source
    status: Path = path("/run/edgeblock-fetch/status.json")    # read by the daemon and by `edgeblock-fetch status`
    box: str = text()                                          # who this box is; "": its host name
    ring: str = text("all")                                    # which ring of a rollout it is in
    proxy: str = setting("", _proxy)                           # for HTTP and HTTPS; "": none
    at_once: int = whole(4, 1, 64)                             # sources that are asked at the same time
    file_megabytes: int = whole(1024, 1, 4096)                 # of one file; the daemon takes no list beyond 4 GiB
    total_seconds: float = seconds(900, 1, 86_400)             # one fetch of one source, from first to last byte

    @property
    def max_bytes(self) -> int:
        """Bytes of one file."""
        return self.file_megabytes << 20


@dataclass(frozen=True)
class SourceSettings:
    """[[source]]: one source. `own` are the Settings of its kind."""

    name: str = setting("", _name)
    kind: str = setting("", lambda value: _kind(value))
    every: float = seconds(3600, 1, 2_592_000)      # between two fetches
    jitter: float = number(0.1, 0, 1)               # share of a wait by which it is longer, at random
    settings: bool = flag(False)                    # whether it may bring settings of lists, pages and clients files
    own: Any = field(default=None, metadata={"read": None})


@dataclass(frozen=True)
class Sources:
    """The whole file."""

    fetch: FetchSettings = field(default_factory=FetchSettings)
    sources: tuple[SourceSettings, ...] = ()


def _kind(value: Any) -> str:
    if not isinstance(value, str) or value not in KINDS:
        raise ValueError("one of " + ", ".join(f'"{kind}"' for kind in KINDS))
    return value


def make(one: SourceSettings, fetch: FetchSettings) -> Source:
    """The source that the settings are of."""
    module, name = KINDS[one.kind]
    return cast(Source, getattr(importlib.import_module(module), name)(one.name, one.own, fetch))


def load(path: Path | str = DEFAULT_FILE) -> Sources:
    """The sources that a file names.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds keys or values that are not allowed.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(TEXT_MAX + 1)
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from None
    if len(data) > TEXT_MAX:
        raise ConfigError(f"{path}: is longer than {TEXT_MAX} bytes; is it really the file of sources?")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: not UTF-8 at byte {problem.start}") from None
    return parse(content, str(path), Path(path).absolute().parent)


def parse(content: str, source: str, folder: Path) -> Sources:
    """The sources in a TOML text. `source` names it in errors; relative paths are taken from `folder`."""
    try:
        tables = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as problem:
        raise ConfigError(f"{source}: not TOML: {toml.why_no_toml(problem)}") from None
    mistakes: dict[str, str] = {}
    for name, table in tables.items():
        wanted, form = (dict, "[fetch]") if name == "fetch" else (list, "[[source]]")
        if name not in ("fetch", "source"):
            hint = nearest(name, ("fetch", "source"), "{}")
            mistakes[name] = f"{source}: unknown {'section' if isinstance(table, dict) else 'key'} {name!r}; {hint}"
        elif not isinstance(table, wanted):
            mistakes[name] = f"{source}: {name} = {shown(table)} must be a section: {form}"
    general = tables.get("fetch", {})
    fetch = FetchSettings(**read_table(readers(FetchSettings), general if isinstance(general, dict) else {}, source,
                                       "[fetch]", folder, mistakes))
    rows = tables.get("source", [])
    made = [_source(row, number, source, folder, mistakes)
            for number, row in enumerate(rows if isinstance(rows, list) else [], 1)]
    if len(made) > SOURCES_MAX:
        mistakes["many"] = f"{source}: has {len(made)} sources, and {SOURCES_MAX} are the most"
    seen: set[str] = set()
    for one in made:
        if one is not None and one.name in seen:
            mistakes[f"twice.{one.name}"] = f"{source}: [[source]] {one.name} is there twice; give one another name"
        seen |= {one.name} if one is not None else set()
    owners: dict[str, str] = {}
    for one in made:
        file = getattr(one.own, "file", "") if one is not None else ""
        if one is not None and file and (other := owners.setdefault(file, one.name)) != one.name:
            mistakes[f"file.{one.name}"] = (f"{source}: [[source]] {one.name} file = {file!r} is that of {other}, "
                                            "too; give it another name")
    if mistakes:
        raise ConfigError(*mistakes.values())
    return Sources(fetch, tuple(one for one in made if one is not None))


def _source(row: Any, number: int, source: str, folder: Path, mistakes: dict[str, str]) -> SourceSettings | None:
    """One [[source]]; None where something of it is wrong."""
    if not isinstance(row, dict):
        mistakes[f"source.{number}"] = f"{source}: source = {shown(row)} must be a section: [[source]]"
        return None
    name = row.get("name")
    place = f"[[source]] {name}" if isinstance(name, str) and NAME.fullmatch(name) else f"[[source]] number {number}"
    before = len(mistakes)
    for key, example in (("name", 'such as name = "court"'), ("kind", f"one of {', '.join(KINDS)}")):
        if key not in row:
            mistakes[f"{number}.{key}"] = f"{source}: {place} has no {key}; write one, {example}"
    common = {key.name: key.metadata["read"] for key in fields(SourceSettings) if key.name != "own"}
    record, known = _settings_of(row.get("kind"))
    values = read_table(common | known, row, source, place, folder, mistakes) if record else read_table(
        common, {key: value for key, value in row.items() if key in common}, source, place, folder, mistakes)
    missing = [key.name for key in fields(record) if key.default is MISSING and key.default_factory is MISSING
               and key.name not in row] if record else []
    for key in missing:
        mistakes[f"{place}.{key}"] = f"{source}: {place} has no {key}, which kind = \"{row['kind']}\" needs"
    if record is None or len(mistakes) > before:
        return None
    try:
        own = record(**{key: value for key, value in values.items() if key in known})
    except ConfigError as problem:
        for line in problem.args:
            mistakes[f"{place}.{line}"] = f"{source}: {place} {line}"
        return None
    return SourceSettings(own=own, **{key: value for key, value in values.items() if key in common})


def _settings_of(kind: Any) -> tuple[Any, dict[str, Callable[[Any], Any]]]:
    """The Settings of a kind, and how each of its keys is read; None of what is no kind."""
    if not isinstance(kind, str) or kind not in KINDS:
        return None, {}
    record = importlib.import_module(KINDS[kind][0]).Settings
    types = get_type_hints(record)
    return record, {key.name: key.metadata.get("read") or TYPES[types[key.name]] for key in fields(record)}
