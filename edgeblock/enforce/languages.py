"""Which of a few languages a client would rather read: Accept-Language (RFC 9110, 12.5.4) of a request.

In: the payload of the packet that is answered, from anybody, and the languages that there are. Out: one of these. No
byte of the request goes further than here, and no more than SEARCHED of it are looked at.
"""

import re
from collections.abc import Sequence

SEARCHED = 8192         # bytes of a packet: browsers send the line in the first two thousand
RANGES_MAX = 32         # that are looked at; browsers send a handful
HEADER = re.compile(rb"\naccept-language[ \t]*:([^\r\n]{0,1000})", re.IGNORECASE)
RANGE = re.compile(r"[ \t]*(\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,7})"
                   r"[ \t]*(?:;[ \t]*q[ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?", re.IGNORECASE)


def ranges_in(request: bytes) -> list[tuple[str, float]]:
    """The language ranges that a request asks for, in lower case with their weights, the most wanted first."""
    found = HEADER.search(request, 0, SEARCHED)
    if found is None:
        return []
    words = found[1].decode("latin-1").split(",", RANGES_MAX)[:RANGES_MAX]
    ranges = [(one[1].lower(), float(one[2] or 1)) for one in map(RANGE.fullmatch, words) if one]
    return sorted(ranges, key=lambda one: -one[1])


def choose(ranges: list[tuple[str, float]], languages: Sequence[str]) -> str:
    """The one of `languages` that is wanted most, or the first of them, where nobody has refused it with q=0."""
    refused = {one for wanted, weight in ranges if not weight and wanted != "*" for one in languages
               if covers(wanted, one)}
    for wanted, weight in ranges:
        if not weight:
            break
        if wanted == "*":       # what no other range is about
            if rest := [one for one in languages if not any(covers(other, one) for other, _ in ranges)]:
                return rest[0]
        elif (best := look_up(wanted, languages)) is not None and best not in refused:
            return best
    return next((one for one in languages if one not in refused), languages[0])


def covers(wanted: str, language: str) -> bool:
    """Whether the range is that language, or one that it is a kind of (RFC 4647, 3.3.1)."""
    return f"{language.lower()}-".startswith(f"{wanted}-")


def look_up(wanted: str, languages: Sequence[str]) -> str | None:
    """The language nearest to a range: itself, what it is a kind of (RFC 4647, 3.4), or else a kind of it."""
    whole = wanted
    while wanted:
        for one in languages:
            if one.lower() == wanted:
                return one
        wanted = wanted.rpartition("-")[0]
    return next((one for one in languages if covers(whole, one)), None)
