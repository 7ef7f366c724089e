"""NAME.toml beside a list into a frozen record.

In: the text of the file and the defaults. Out: ListSettings. Unknown keys are refused with the nearest known name;
a wrong value names the key, the value and what is allowed.
"""

import difflib
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time

from edgeblock.errors import ListError

ACTIONS = ("drop", "reset", "page", "redirect", "observe")
HTTPS = ("ignore", "host")


@dataclass(frozen=True)
class ListSettings:
    """What one list does.

    `action` is what a listed name gets; `category` is free text for reports; `format` is a name from
    `formats.READERS`, or None for what the extension says; `https` says what a URL entry does on TLS and QUIC,
    where the path is invisible; no exception lifts a `mandatory` list; from `expires` on the list is not in force.
    """

    action: str = "reset"
    category: str = ""
    format: str | None = None
    https: str = "ignore"
    mandatory: bool = False
    expires: datetime | None = None


def parse_settings(text: bytes, source: str, defaults: ListSettings, formats: tuple[str, ...]) -> ListSettings:
    """Settings from the TOML `text` of the file named `source`.

    Raises:
        ListError: no TOML, an unknown key, or a value that is not allowed.
    """
    try:
        table = tomllib.loads(text.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ListError(f"{source}: not readable as TOML: {' '.join(str(error).split())}") from None
    choices = {"action": ACTIONS, "https": HTTPS, "format": formats}
    known = (*choices, "category", "mandatory", "expires")
    changes: dict[str, object] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ListError(f"{source}: unknown key {key!r}; {hint}")
        if key in choices and value not in choices[key]:
            raise ListError(f"{source}: {key} = {value!r} is not one of {', '.join(choices[key])}")
        if key == "category" and not isinstance(value, str):
            raise ListError(f"{source}: category = {value!r} is no text in quotes")
        if key == "mandatory" and not isinstance(value, bool):
            raise ListError(f"{source}: mandatory = {value!r} is neither true nor false")
        changes[key] = read_expiry(value, source) if key == "expires" else value
    settings = replace(defaults, **changes)     # type: ignore[arg-type]
    if settings.mandatory and settings.action == "observe":
        raise ListError(f"{source}: mandatory = true needs an action that blocks, and observe does not")
    return settings


def read_expiry(value: object, source: str) -> datetime:
    """An instant from a TOML date (its first moment) or date-time; without an offset it is UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise ListError(f"{source}: expires = {value!r} is no date such as 2030-12-31 without quotes")
