"""A record of the ledger as one line of canonical JSON, and back.

In: number, time, kind, fields, and the digest of the record before. Out: ASCII bytes without their line end: keys
sorted, no blanks, so that one record has one spelling. `prev` is the SHA-256 of the line before, of its bytes; that
of the very first is NOTHING. Never here: a file or a clock.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

NOTHING = "0" * 64          # `prev` of the first record
LINE_MAX = 1 << 20          # bytes of a record: `in force` names a thousand lists at most
KEYS = {"fields", "kind", "prev", "seq", "time"}
MOMENT = "%Y-%m-%dT%H:%M:%S.%fZ"


class BadRecord(ValueError):
    """Why a line is no record."""


class Record(NamedTuple):
    """One record. `at` is Unix seconds in whole microseconds; `line` its bytes."""

    seq: int
    at: int
    kind: str
    fields: dict[str, Any]
    prev: str
    line: bytes

    @property
    def time(self) -> str:
        return moment(self.at)

    @property
    def digest(self) -> str:
        return sha256(self.line).hexdigest()


def moment(at: int) -> str:
    """RFC 3339 of Unix microseconds."""
    seconds, micro = divmod(at, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micro).strftime(MOMENT)


def microseconds(text: str) -> int:
    """And back. ValueError where it is no such moment."""
    told = datetime.strptime(text, MOMENT).replace(tzinfo=UTC)
    whole = int(told.replace(microsecond=0).timestamp())
    if moment(whole * 1_000_000 + told.microsecond) != text:
        raise ValueError(f"{text!r} is no moment as it is written here")
    return whole * 1_000_000 + told.microsecond


def canonical(said: Any) -> bytes:
    """The one spelling. ValueError for what has none (floating point numbers)."""
    refuse_fractions(said)
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def refuse_fractions(said: Any) -> None:
    if isinstance(said, float):
        raise ValueError("a record has whole numbers only")
    if isinstance(said, dict):
        for value in said.values():
            refuse_fractions(value)
    elif isinstance(said, list | tuple):
        for value in said:
            refuse_fractions(value)


def spell(seq: int, at: int, kind: str, fields: dict[str, Any], prev: str) -> Record:
    """A new record."""
    line = canonical({"seq": seq, "time": moment(at), "kind": kind, "fields": fields, "prev": prev})
    if len(line) > LINE_MAX:
        raise ValueError(f"a record of {len(line)} bytes")
    return Record(seq, at, kind, fields, prev, line)


def parse(line: bytes) -> Record:
    """The record of a line.

    Raises:
        BadRecord: it is none, or spelt in another way.
    """
    if len(line) > LINE_MAX:
        raise BadRecord("is longer than a record may be")
    try:
        said = json.loads(line)
        if not isinstance(said, dict) or said.keys() != KEYS or canonical(said) != line:
            raise BadRecord("is not spelt as records are")
        seq, kind, fields, prev = said["seq"], said["kind"], said["fields"], said["prev"]
        at = microseconds(said["time"])
    except BadRecord:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, OSError):
        raise BadRecord("is no record") from None
    if type(seq) is not int or seq < 1 or not isinstance(kind, str) or not isinstance(fields, dict) \
            or not isinstance(prev, str) or len(prev) != 64:
        raise BadRecord("is no record")
    return Record(seq, at, kind, fields, prev, line)
