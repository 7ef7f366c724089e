"""NAME.toml beside a list into a frozen record.

In: the text of the file and the defaults. Out: ListSettings. Unknown keys are refused with the nearest known name;
a wrong value names the key, the value and what is allowed. A new key: a field, `known`, its check, config.LOCKABLE.
"""

import difflib
import ipaddress
import re
import tomllib
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from edgeblock import config
from edgeblock.blocklist.canonical import canonical_host, why_not_host
from edgeblock.blocklist.encodings import find_encoding
from edgeblock.blocklist.prefixes import BadLine, read_ranges
from edgeblock.blocklist.signature import parse_key
from edgeblock.blocklist.terms import (
    ALWAYS,
    NEVER,
    ORDER,
    VALUE_MAX,
    WEEKLY_MAX,
    BadTerm,
    Order,
    Weekly,
    Window,
    parse_time,
    parse_weeklies,
)
from edgeblock.core.decision import LIST_ACTIONS
from edgeblock.errors import ListError, printable
from edgeblock.toml import why_no_toml

HTTPS = ("ignore", "host")
SHOWN_MAX = 80          # characters of a value that a message repeats
SAID_MAX = 200          # characters of what the TOML parser says
ATTRIBUTES_MAX = 16
CLIENTS = ".clients"    # how the name of a file with the prefixes of clients ends
CLIENTS_NAME_MAX = 200  # bytes of such a name: a file name has 255, and ours are made of it
ATTRIBUTE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
FIELDS = {"from": "begins"}     # the field of a key that no field can be called
PAST_DAYS_MAX = 36_500
ALLOWANCES = ("allow_public_suffixes", "allow_protected", "allow_addresses", "allow_shared", "allow_collateral")

# The guard rails have the same keys in [rules] of the main configuration, which says what each may hold.
GUARD_KEYS = {key.name: key.metadata["read"] for key in fields(config.Rules)
              if key.name.startswith(("allow_", "widest_", "max_")) or key.name == "guarded"}

# What a list tells those whom it blocks; config.py says what each may hold.
TOLD_KEYS = {"page": config.read_page_name, "reason": config.read_texts, "contact": config.read_contact,
             "status": config.read_status, "redirect": config.read_url}

OF_REPLY = {one.name for one in fields(config.Reply)} - TOLD_KEYS.keys()


@dataclass(frozen=True)
class ListSettings:
    """What one list does.

    `action` is what a listed name gets; `category` is free text for reports; `format` is a name from
    `formats.READERS`, or None for what the file name says; `https` says what a URL entry does on TLS and QUIC, where
    the path is invisible; no exception lifts a `mandatory` list; from `expires` on the list is not in force;
    `signer` is the minisign key that has to sign it; `column` (head or number) and `delimiter` are those of a csv
    file, None for what its first row says; `encoding` is what the file is written in, None for UTF-8; `zone` is
    the name of a response policy zone, None for what the file says;
    `attributes` are the names of what may stand beside an entry, as until=2030-12-31;
    from `begins` on, before `until` (Unix seconds) and within `weekly` it holds, and the entries that are in it stay
    known; `order` to `reference` say by whose order; entries that ended `drop_past_days` ago are left out;
    `subdomains` is whether a name in a format that has names alone covers those below it, None for what is usual
    there. `clients` says to whom alone the list applies, `clients_except` to whom it does not: the name of a clients
    file beside it, or prefixes; None: to everybody. `page` (a file beside the list), `reason` (by language),
    `contact`, `status` and `redirect` are what those hear who are blocked; empty is what [reply] says. `locked` are
    the keys that a NAME.toml may not change, and
    `unlocked` the exceptions, which no list has in its own settings. The rest are the guard rails (guard.py): True
    allows all, a tuple these.
    """

    action: str = "reset"
    category: str = ""
    format: str | None = None
    https: str = "ignore"
    mandatory: bool = False
    expires: datetime | None = None
    signer: str = ""
    column: str | int | None = None
    delimiter: str | None = None
    encoding: str | None = None
    zone: str | None = None
    attributes: tuple[str, ...] = ()
    subdomains: bool | None = None
    begins: int | None = None
    until: int | None = None
    weekly: tuple[Weekly, ...] = ()
    order: str = ""
    authority: str = ""
    received: str = ""
    approved_by: str = ""
    reference: str = ""
    drop_past_days: int | None = None
    clients: str | tuple[str, ...] | None = None
    clients_except: str | tuple[str, ...] | None = None
    allow_public_suffixes: bool | tuple[str, ...] = False
    allow_protected: bool | tuple[str, ...] = False
    allow_addresses: bool | tuple[str, ...] = False
    allow_shared: bool | tuple[str, ...] = False
    allow_collateral: bool | tuple[str, ...] = False
    max_collateral: int = config.Rules.max_collateral
    widest_ipv4: int = config.Rules.widest_ipv4
    widest_ipv6: int = config.Rules.widest_ipv6
    max_growth: float = config.Rules.max_growth
    max_shrink: float = config.Rules.max_shrink
    max_unparsable: float = config.Rules.max_unparsable
    guarded: str = config.Rules.guarded
    max_guarded: float = config.Rules.max_guarded
    page: str = ""
    reason: tuple[tuple[str, str], ...] = ()
    contact: str = ""
    status: int | None = None
    redirect: str = ""
    locked: tuple[str, ...] = ()
    unlocked: tuple[str, ...] = ()

    @property
    def window(self) -> Window:
        """When the list holds."""
        return Window(ALWAYS if self.begins is None else self.begins, NEVER if self.until is None else self.until,
                      self.weekly)

    @property
    def order_data(self) -> Order:
        """By whose order it holds: name and value of each piece that there is."""
        return tuple((name, value) for name in ORDER if (value := getattr(self, name)))

    @property
    def whom(self) -> str | tuple[str, ...] | None:
        """Which of the two has it."""
        return self.clients if self.clients is not None else self.clients_except

    @property
    def clients_file(self) -> str:
        """The clients file beside the list, "" where there is none."""
        return self.whom if isinstance(self.whom, str) else ""


def default_settings(rules: config.Rules) -> ListSettings:
    """What holds for a list without settings of its own.

    Raises:
        ListError: an allowance names what is neither a host nor an address, or a signer is no key.
    """
    found: list[str] = []
    for setting in ("signers", "compiled_signers"):
        for word in getattr(rules, setting):
            try:
                parse_key(word.rpartition("=")[2], f"[rules] {setting}")
            except ListError as problem:
                found += problem.args
    guards: dict[str, Any] = {}
    for key in GUARD_KEYS:
        try:
            guards[key] = (read_allowance(getattr(rules, key), f"[rules] {key}") if key in ALLOWANCES
                           else getattr(rules, key))
        except ListError as problem:
            found += problem.args
    if found:
        raise ListError(*found)
    return ListSettings(action=rules.action, https=rules.https, locked=rules.locked, unlocked=rules.unlocked,
                        **guards)


def locked_for(name: str, defaults: ListSettings) -> tuple[str, ...]:
    """The keys that the settings of the list `name` may not change."""
    if name in defaults.unlocked:
        return ()
    return tuple(key for key in defaults.locked if f"{name}={key}" not in defaults.unlocked)


def why_locked(name: str, settings: ListSettings, defaults: ListSettings) -> str | None:
    """Why the settings of the list `name` are not its own to make, or None. `defaults` are those of this list."""
    for key in defaults.locked:
        field = FIELDS.get(key, key)
        if getattr(settings, field, None) != getattr(defaults, field, None):
            return (f"{key} is locked: [rules] locked in the main configuration has it, and there only the operator "
                    f"can allow it, with unlocked = [\"{name}={key}\"]")
    return None


def quoted(value: object) -> str:
    """A value as a message repeats it, however large or deep it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):        # a number of more digits than Python prints; tables in tables
        return "..."
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def parse_settings(text: bytes, source: str, defaults: ListSettings, formats: tuple[str, ...]) -> ListSettings:
    """Settings from the TOML `text` of the file named `source`.

    Raises:
        ListError: no TOML, or, each in a line of its own, unknown keys and values that are not allowed.
    """
    try:
        table = tomllib.loads(text.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ListError(f"{source}: not readable as TOML: {why_no_toml(error)[:SAID_MAX]}") from None
    except RecursionError:
        raise ListError(f"{source}: not readable as TOML: brackets or names are nested too deeply") from None
    except ValueError:          # from int(), which says no more than that
        raise ListError(f"{source}: not readable as TOML: has a number of too many digits") from None
    choices = {"action": LIST_ACTIONS, "https": HTTPS, "format": formats}
    known = (*choices, "attributes", "category", "clients", "clients_except", "column", "delimiter", "drop_past_days",
             "encoding", "mandatory", "expires", "signer", "subdomains", "zone", *FIELDS, "until", "weekly", *ORDER,
             *GUARD_KEYS, *TOLD_KEYS)
    changes: dict[str, object] = {}
    mistakes: list[str] = []
    for key, value in table.items():
        if isinstance(value, dict) and key != "reason":
            mistakes.append(f"{source}: [{printable(key)[:SHOWN_MAX]}] is a section, and the settings of a list have "
                            "none; write their keys without it")
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            if key in OF_REPLY:
                hint = "it is one of [reply] in the main configuration, for all lists"
            mistakes.append(f"{source}: unknown key {quoted(key)}; {hint}")
            continue
        try:
            changes[FIELDS.get(key, key)] = read_setting(key, value, source, choices)
        except ListError as problem:
            mistakes += problem.args
    settings = replace(defaults, **changes)     # type: ignore[arg-type]
    if settings.mandatory and settings.action == "observe":
        mistakes.append(f"{source}: mandatory = true needs an action that blocks, and observe does not")
    if not mistakes and settings.begins is not None and settings.window.begins >= settings.window.ends:
        mistakes.append(f"{source}: from is not before until, so the list would never be in force")
    if settings.clients is not None and settings.clients_except is not None:
        mistakes.append(f"{source}: clients and clients_except are both there; leave one out: the list applies to "
                        "these alone, or to all but these")
    if mistakes:
        raise ListError(*mistakes)
    return settings


def read_setting(key: str, value: Any, source: str, choices: dict[str, tuple[str, ...]]) -> object:
    """What a list's settings hold of the value of one key. ListError where it is not allowed."""
    if key in choices and value not in choices[key]:
        raise ListError(f"{source}: {key} = {quoted(value)} is not one of {', '.join(choices[key])}")
    if key == "category" and not (isinstance(value, str) and value.isprintable()):
        raise ListError(f"{source}: category = {quoted(value)} is no text in quotes")
    if key in ("mandatory", "subdomains") and not isinstance(value, bool):
        raise ListError(f"{source}: {key} = {quoted(value)} is neither true nor false")
    if key == "column" and (isinstance(value, bool) or not isinstance(value, str | int) or not value
                            or (isinstance(value, int) and value < 1)):
        raise ListError(f"{source}: column = {quoted(value)} is neither the head of a column in quotes nor a "
                        "number from 1 on")
    if key == "delimiter" and (not isinstance(value, str) or len(value) != 1 or value in '"\r\n'):
        raise ListError(f"{source}: delimiter = {quoted(value)} is no single character in quotes, such as \";\" "
                        "or \"\\t\"")
    if key == "zone" and (not isinstance(value, str) or canonical_host(value.encode()) is None):
        raise ListError(f"{source}: zone = {quoted(value)} is no name in quotes such as \"rpz.example.net\"")
    if key == "encoding":
        if not isinstance(value, str) or (found := find_encoding(value)) is None:
            raise ListError(f"{source}: encoding = {quoted(value)} is no encoding in quotes that lists are read "
                            "in, such as \"cp1251\", \"koi8-r\", \"iso-8859-1\", \"gb18030\" or \"utf-16\"")
        value = found
    if key == "attributes":
        if not isinstance(value, list) or not all(isinstance(word, str) and ATTRIBUTE.fullmatch(word)
                                                  for word in value) or len(value) > ATTRIBUTES_MAX:
            raise ListError(f"{source}: attributes = {quoted(value)} is no list of at most {ATTRIBUTES_MAX} "
                            "names in lower case, such as [\"until\", \"order\"]")
        value = tuple(dict.fromkeys(value))
    if key in ("clients", "clients_except"):
        value = read_whom(value, f"{source}: {key}")
    if key == "signer":
        if not isinstance(value, str):
            raise ListError(f"{source}: signer = {quoted(value)} is no minisign public key in quotes")
        parse_key(value, f"{source}: signer")
    if key in GUARD_KEYS or key in TOLD_KEYS:
        try:
            value = (GUARD_KEYS | TOLD_KEYS)[key](value)
        except ValueError as allowed:
            raise ListError(f"{source}: {key} = {quoted(value)} must be {allowed}") from None
        value = read_allowance(value, f"{source}: {key}") if key in ALLOWANCES else value
    if key in ("from", "until"):
        return read_moment(key, value, source)
    if key == "weekly":
        return read_weekly(value, source)
    if key in ORDER:
        return read_order(key, value, source)
    if key == "drop_past_days" and (type(value) is not int or not 0 <= value <= PAST_DAYS_MAX):
        raise ListError(f"{source}: drop_past_days = {quoted(value)} is no number of days from 0 to {PAST_DAYS_MAX}")
    return read_expiry(value, source) if key == "expires" else value


def read_moment(key: str, value: object, source: str) -> int:
    """Unix seconds of a TOML date or date-time (without an offset it is UTC), or of a text."""
    if isinstance(value, str):
        try:
            return parse_time(value.strip(), last=key == "until")
        except BadTerm as problem:
            raise ListError(f"{source}: {key} = {quoted(value)} {problem}") from None
    if not isinstance(value, date):
        raise ListError(f"{source}: {key} = {quoted(value)} is no time such as 2026-12-31T18:00:00Z without quotes, "
                        'or "2026-12-31 18:00 Europe/London" with them')
    moment = read_expiry(value, source)
    at = moment.replace(tzinfo=None) - datetime(1970, 1, 1)         # an offset may lead out of what a datetime can be
    offset = moment.utcoffset() or timedelta()
    return at.days * 86400 + at.seconds - offset.days * 86400 - offset.seconds


def read_weekly(value: object, source: str) -> tuple[Weekly, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise ListError(f'{source}: weekly = {quoted(value)} is no text such as "sat 14:45-17:30 Europe/London", and '
                        "no list of such")
    made: tuple[Weekly, ...] = ()
    for text in texts:
        try:
            made = tuple(dict.fromkeys(made + parse_weeklies(text)))
        except BadTerm as problem:
            raise ListError(f"{source}: weekly = {quoted(text)} {problem}") from None
        if len(made) > WEEKLY_MAX:
            raise ListError(f"{source}: weekly has more than {WEEKLY_MAX} windows")
    return made


def read_order(key: str, value: object, source: str) -> str:
    """A piece of order data. ListError where it is no text of one line, or too long."""
    text = value.isoformat() if key == "received" and isinstance(value, date) else value
    text = " ".join(text.split()) if isinstance(text, str) else ""
    if not text or len(text) > VALUE_MAX or not text.isprintable():
        raise ListError(f"{source}: {key} = {quoted(value)} is no text in quotes of at most {VALUE_MAX} characters")
    return text


def read_expiry(value: object, source: str) -> datetime:
    """An instant from a TOML date (its first moment) or date-time; without an offset it is UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise ListError(f"{source}: expires = {quoted(value)} is no date such as 2030-12-31 without quotes")


def read_whom(value: object, place: str) -> str | tuple[str, ...]:
    """The name of a clients file, or prefixes as they stand there. ListError where it is neither."""
    if isinstance(value, str):
        if not value.endswith(CLIENTS) or value.startswith(".") or "/" in value or not value.isprintable() \
                or len(value.encode()) > CLIENTS_NAME_MAX:
            raise ListError(f"{place} = {quoted(value)} is no name of a file beside the list that ends in {CLIENTS}, "
                            f"such as \"family{CLIENTS}\"; prefixes stand in a list, such as [\"192.0.2.0/24\"]"
                            + ("; a file of another name is read as a list, which blocks these addresses: if it is "
                               "there, rename it now" if "." in value and "/" not in value
                               and not value.endswith(CLIENTS) else ""))
        return value
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ListError(f"{place} = {quoted(value)} is neither a file such as \"family{CLIENTS}\" nor a list of "
                        "prefixes such as [\"192.0.2.0/24\", \"2001:db8::/32\"]")
    for word in value:
        try:
            if read_ranges(word.encode(), 1)[2] != 1:
                raise BadLine(1, "is no prefix, address or range", 0)
        except BadLine as error:
            raise ListError(f"{place}: {quoted(word)} {error.why}") from None
    return tuple(dict.fromkeys(value))


def read_allowance(value: bool | tuple[str, ...], place: str) -> bool | tuple[str, ...]:
    """Names in canonical form, addresses and ranges as networks; True and False stay what they are."""
    if isinstance(value, bool):
        return value
    made = []
    for word in value:
        try:
            network = ipaddress.ip_network(word)
            made.append(str(network if network.num_addresses > 1 else network.network_address))
            continue
        except ValueError as error:
            if "/" in word:
                raise ListError(f"{place}: {' '.join(str(error).split())[:SAID_MAX]}") from None
            host = canonical_host(word.encode())
        if host is None:
            raise ListError(f"{place}: {quoted(word)} {why_not_host(word.encode())}")
        made.append(host.decode())
    return tuple(made)
