"""An own block page: which files it is, and what can be one.

In: names of files and their contents, from anybody. Out: HTML by language, or why it is none. A page may have the
same in other languages beside it: court.html, court.de.html, court.pt-BR.html. Never here: a file, or HTML read
beyond its language.
"""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from edgeblock import config

PAGE_MAX = 32 * 1024    # bytes: it is sent in one burst, without waiting for acknowledgements, as 64 segments
GAPS_MAX = 200          # places of a page that are filled in, the reference too: some tenths of a millisecond
SUFFIX = ".html"
FILLED = ("reason", "contact", "provider", "authority", "order")     # what stands behind a $ and is filled in
WORD = re.compile(r"\$(?!reference)([A-Za-z_]\w*)")
GAPS = re.compile(rf"\$({'|'.join(FILLED)})\b")     # of an own page, besides the reference
REFERENCE = "$reference"
LANG = re.compile(r"<html\b[^>]{0,500}?\blang\s*=\s*[\"']?([A-Za-z0-9-]{2,20})", re.IGNORECASE)


def variants(names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Of a directory's names, those of pages in other languages, by the name of the page: language and name each."""
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in names:
        if name.endswith(SUFFIX):
            stem, _, language = name.removesuffix(SUFFIX).rpartition(".")
            if stem and config.LANGUAGE.fullmatch(language):
                found[stem + SUFFIX].append((config.read_language(language), name))
    return found


def by_language(bodies: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Pages by their languages, the first, which is for whoever asks for no other, by what its <html lang> says.

    Raises:
        ValueError: one cannot be used; its number, and why, as the end of a sentence.
    """
    made: dict[str, str] = {}
    for number, (language, body) in enumerate(bodies):
        if len(body) > PAGE_MAX:
            raise ValueError(number, f"larger than {PAGE_MAX // 1024} kB; a block page must be short")
        if not body.strip():
            raise ValueError(number, "empty; leave the key out to get the page that ships")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise ValueError(number, f"not UTF-8 at byte {problem.start}") from None
        if len(GAPS.findall(text)) + text.count(REFERENCE) > GAPS_MAX:
            raise ValueError(number, f"no page: it has more than {GAPS_MAX} places that are filled in, such as "
                             f"{REFERENCE}; have fewer")
        made[language or language_of(text)] = text
    return made


def unknown_words(page: str) -> list[str]:
    """What looks as if it were filled in, and is not."""
    return sorted({word for word in WORD.findall(page) if word not in FILLED})


def size_with(page: str, values: Mapping[str, str]) -> int:
    """Bytes of a page with these values in its gaps, before anybody builds it: a short page may ask for a long word
    thousands of times. Other gaps count as they stand."""
    asked = Counter(GAPS.findall(page))
    return len(page.encode()) + sum(
        asked[gap] * (len(html.escape(value).encode()) - len(gap) - 1) for gap, value in values.items())


def language_of(page: str) -> str:
    """What a page says that it is written in; "" where it says nothing."""
    found = LANG.search(page, 0, 4096)
    try:
        return config.read_language(found[1]) if found else ""
    except ValueError:
        return ""
