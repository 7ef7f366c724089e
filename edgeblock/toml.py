"""A TOML table into a frozen record: what a key may hold, and how a mistake is told.

In: a table as tomllib has it, and a dataclass whose fields say how their values are read. Out: the record, and a line
for each key that is unknown or wrong, with the way out. Never here: a file opened, or a key of anybody's.
"""

import re
from collections.abc import Callable
from dataclasses import field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

# What a key may hold: each returns a field with a function that makes the record's value of a TOML value, or raises
# ValueError with what is allowed, to follow "must be".

def setting(default: Any, read: Callable[[Any], Any]) -> Any:
    return field(default=default, metadata={"read": read})


def choice(default: str, *allowed: str) -> Any:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError("one of " + ", ".join(f'"{word}"' for word in allowed))
        return value
    return setting(default, read)


def whole(default: int, low: int, high: int) -> Any:
    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}" if low < high else str(low))
        return value
    return setting(default, read)


def seconds(default: float, low: float, high: float) -> Any:
    def read(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"seconds, from {low:g} to {high:g}")
        return float(value)
    return setting(default, read)


def flag(default: bool) -> Any:
    def read(value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError("true or false")
        return value
    return setting(default, read)


def text(default: str = "") -> Any:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not (value.isprintable()):
            raise ValueError("one line of text in quotes")
        return value
    return setting(default, read)


def path(default: str | None) -> Any:
    def read(value: Any) -> Path | None:
        if value == "" and default is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError("a path in quotes")
        return Path(value)
    return setting(None if default is None else Path(default), read)


def number(default: float, low: float, high: float) -> Any:
    def read(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)
    return setting(default, read)


def words() -> Any:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or any(not isinstance(word, str) or not word.isprintable() or not word
                                              for word in value):
            raise ValueError("a list of texts in quotes")
        return tuple(dict.fromkeys(value))
    return setting((), read)


def why_no_toml(problem: Exception) -> str:
    """What the parser says, on one line, and what is meant where it says that a value is none."""
    said = " ".join(str(problem).split())
    return said + ("; text stands in quotes, only numbers, dates, true and false without"
                   if said.startswith("Invalid value") else "")


def nearest(name: str, known: Any, form: str) -> str:
    near = get_close_matches(name, known, 1, 0.5)
    return f"did you mean {form.format(near[0])}?" if near else f"known are {', '.join(map(form.format, known))}"


def shown(value: Any) -> str:
    # As TOML spells it, near enough, on one line; without a password in a URL, as mistakes go to logs.
    text = str(value).lower() if isinstance(value, bool) else re.sub(r"(?<=://)[^/@\s]*@", "...@", f"{value!r}")
    return text if len(text) <= 60 else text[:57] + "..."


def readers(record: Any) -> dict[str, Callable[[Any], Any]]:
    """How the value of each key of a record is read."""
    return {key.name: key.metadata["read"] for key in fields(record)}


def read_table(keys: dict[str, Callable[[Any], Any]], table: dict[str, Any], source: str, place: str, folder: Path,
               mistakes: dict[str, str]) -> dict[str, Any]:
    """The values of the keys of one table. Those that are unknown or wrong are told in `mistakes`, by `place` (such
    as "[rules]") and key, and left out; relative paths are taken from `folder`. `source` names the file."""
    values = {}
    for key, value in table.items():
        if key not in keys:
            mistakes[f"{place.strip('[]')}.{key}"] = (f"{source}: unknown key {key!r} in {place}; "
                                                      f"{nearest(key, keys, '{}')}")
            continue
        try:
            made = keys[key](value)
        except ValueError as allowed:
            mistakes[f"{place.strip('[]')}.{key}"] = f"{source}: {place} {key} = {shown(value)} must be {allowed}"
            continue
        values[key] = folder / made if isinstance(made, Path) else made
    return values
