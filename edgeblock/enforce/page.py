"""The block page: the one that ships, filled in, or an own file, of the operator or of a list.

In: what is told (Words). Out: an HTML document in UTF-8, made once for each language and never per client, with gaps
for the reference. Every value is escaped; no value of a client ever reaches the page. A page of the operator's that
cannot be used is a ConfigError of one line.
"""

import html
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from edgeblock.blocklist.pages import GAPS, REFERENCE, by_language, size_with, variants
from edgeblock.blocklist.pages import PAGE_MAX as MAX_PAGE
from edgeblock.blocklist.parts import Notice
from edgeblock.config import LANGUAGE, SHIPPED_LANGUAGES, Reply
from edgeblock.enforce.languages import look_up
from edgeblock.enforce.reference import SIZE
from edgeblock.errors import ConfigError

# Neutral, free of charge, and not tied to one kind of list or one country: which text, and where it is.
HELP = (("help_any", "https://findahelpline.com/"), ("help_young", "https://childhelplineinternational.org/"),
        ("help_self", "https://www.stopitnow.org.uk/"))


_LINK = re.compile(r"https?://(\S+?)/?", re.IGNORECASE)     # what is shown of it fits on a phone
_MAIL = re.compile(r"[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+")


@cache
def texts() -> dict[str, dict[str, str]]:
    """What the page that ships says, by language."""
    return tomllib.loads(Path(__file__).with_name("texts.toml").read_text("utf-8"))


@cache
def frame() -> str:
    return Path(__file__).with_name("page.html").read_text("utf-8")


@dataclass(frozen=True)
class Page:
    """A page but for the reference: what stands before, between and behind the places where that belongs. `language`
    is "" where nobody has said it."""

    language: str
    pieces: tuple[bytes, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces)) + SIZE * (len(self.pieces) - 1)

    def with_reference(self, code: bytes) -> bytes:
        """The document; `code` is as reference.code_of makes it, so that `size` holds."""
        return code.join(self.pieces)


@dataclass(frozen=True)
class Words:
    """What is told. `pages` are own pages by language, {} is the page that ships; of them and of `reason` the first
    is for whoever asks for no other language. `help` are pairs of a text and a URL, mail address or telephone number,
    () those that ship. `authority` and `order` say by whose order, on own pages that ask for it."""

    pages: Mapping[str, str] = field(default_factory=dict)
    reason: Mapping[str, str] = field(default_factory=dict)
    contact: str = ""
    provider: str = ""
    help: Sequence[tuple[str, str]] = ()
    language: str = "en"
    authority: str = ""
    order: str = ""

    @property
    def languages(self) -> list[str]:
        if self.pages:
            return list(self.pages)
        return [self.language, *(one for one in SHIPPED_LANGUAGES if one != self.language)]

    def over(self, notice: Notice) -> "Words":
        """The same with what a list says for itself."""
        own: dict[str, Any] = {key: notice.get(key) or getattr(self, key)
                               for key in ("contact", "authority", "order")}
        for key in ("pages", "reason"):
            own[key] = {one: text for one, text in notice.get(key, {}).items() if not one or LANGUAGE.fullmatch(one)
                        } or getattr(self, key)
        return replace(self, **own)


def load(reply: Reply) -> Words:
    """What [reply] says.

    Raises:
        ConfigError: its page is missing, empty, larger than MAX_PAGE or not UTF-8.
    """
    return Words(read_own(Path(reply.page)) if reply.page else {}, dict(reply.reason), reply.contact, reply.provider,
                 reply.help, reply.language)


def read_own(path: Path) -> dict[str, str]:
    """The operator's page, and the same in other languages beside it."""
    try:
        beside = variants(one.name for one in path.parent.iterdir()).get(path.name, [])
        paths = [path, *(path.with_name(name) for _, name in sorted(beside))]
        bodies = []
        for language, one in zip(["", *(language for language, _ in sorted(beside))], paths, strict=True):
            path = one
            with open(path, "rb") as file:
                bodies.append((language, file.read(MAX_PAGE + 1)))
    except OSError as problem:
        raise ConfigError(f"reply.page: {path}: cannot be read: {problem.strerror}") from None
    try:
        return by_language(bodies)
    except ValueError as problem:
        number, why = problem.args
        raise ConfigError(f"reply.page: {paths[number]}: {why}") from None


def make(words: Words, language: str) -> Page | None:
    """The page in one of `words.languages`; None where it is longer than MAX_PAGE."""
    made = own(words, language) if words.pages else shipped(words, language)
    page = Page(language, tuple(piece.encode("utf-8") for piece in made))
    return page if made and page.size <= MAX_PAGE else None


def own(words: Words, language: str) -> list[str]:
    """[] where it would be longer than MAX_PAGE."""
    values = {"reason": reason_in(words, language)[0], "contact": words.contact, "provider": words.provider,
              "authority": words.authority, "order": words.order}
    body = words.pages[language]
    if size_with(body, values) + body.count(REFERENCE) * (SIZE - len(REFERENCE)) > MAX_PAGE:
        return []
    escaped = {gap: html.escape(value) for gap, value in values.items()}
    return [filled(piece, escaped) for piece in body.split(REFERENCE)]


def filled(piece: str, escaped: Mapping[str, str]) -> str:
    parts = GAPS.split(piece)       # text, gap, text, and so on
    parts[1::2] = [escaped[gap] for gap in parts[1::2]]
    return "".join(parts)


def shipped(words: Words, language: str) -> list[str]:
    said = texts()[language]
    reason, spoken = reason_in(words, language)
    told = f"<p{spoken}>{html.escape(reason)}</p>"
    maker = Template(said["made_by"]).substitute(provider=_apart(words.provider)) if words.provider else said["made"]
    report = Template(said["report"]).substitute(contact=_linked(words.contact)) if words.contact else said["service"]
    helps = [(f'<span dir="auto">{html.escape(text)}</span>', where) for text, where in words.help] or [
        (html.escape(said[key]), where) for key, where in HELP]
    values: dict[str, Any] = {
        **said, "lang": language, "reason": told, "maker": maker, "report": report,
        "helps": "\n".join(f"<li>{text}: {_linked(where)}</li>" for text, where in helps)}
    return [Template(piece).substitute(values) for piece in frame().split(REFERENCE)]


def reason_in(words: Words, language: str) -> tuple[str, str]:
    """Why, in a language or the nearest there is, and what an element has to say of its language where that is
    another than the page's."""
    if not words.reason:
        return texts().get(language, texts()[words.language])["reason"], ""
    near = look_up(language.lower(), list(words.reason)) if language else None
    if near is not None:
        return words.reason[near], ""
    first, text = next(iter(words.reason.items()))
    return text, f' lang="{first}" dir="auto"' if first else ' dir="auto"'


def _apart(text: str) -> str:
    # Latin words in an Arabic sentence keep their own direction.
    return f"<bdi>{html.escape(text)}</bdi>"


def _linked(where: str) -> str:
    # Only what is plainly a web or mail address becomes a link, so that no other scheme ever does.
    if found := _LINK.fullmatch(where):
        return f'<a href="{html.escape(where)}">{_apart(found[1])}</a>'
    text = _apart(where)
    if _MAIL.fullmatch(where):
        return f'<a href="mailto:{html.escape(where)}">{text}</a>'
    return text
