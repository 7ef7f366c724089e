"""What a blocked HTTP client is told: the page or the redirect of [reply], or of the list that blocks.

In: the [reply] settings, the lists in force, and for each answer the list, the rule, the day and the request. Out:
head and body of an HTTP response. A page is made when it is first needed in a language, and MADE_MAX of them are
kept; only the reference is put in for each answer. Of the request nothing but the wish for a language is read, and no
byte of it goes into an answer. Never here: a packet, a clock.
"""

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus

from edgeblock.blocklist.parts import ListRecord, Notice
from edgeblock.config import STATUSES, URL, Reply
from edgeblock.enforce import page
from edgeblock.enforce.languages import choose, ranges_in
from edgeblock.enforce.reference import code_of, day_of
from edgeblock.errors import ConfigError

MADE_MAX = 128          # pages that a worker keeps made: 4 MB at most
URI = re.compile(r"https?://[!#-;=?-~]+", re.IGNORECASE)       # a URL that can stand between < and >
# A page of the operator's may do what it likes. The one that ships needs nothing from anywhere. That of who writes a
# list runs no script and reads nothing that the listed site has stored, for browsers take it for a page of that.
OURS = "default-src 'none'; style-src 'unsafe-inline'"
LISTS = "sandbox allow-forms allow-popups allow-popups-to-escape-sandbox"
COMMON = "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n"
GAP = page.REFERENCE

Answer = tuple[bytes, bytes]


@dataclass(frozen=True)
class Told:
    """What one list tells, or [reply]: words, status, URL of a redirect, and what a browser lets the page do."""

    words: page.Words
    status: int
    redirect: str
    policy: str

    def over(self, notice: Notice) -> "Told":
        """The same with what a list says for itself. A value that its settings would not have taken is left out."""
        status, redirect = notice.get("status"), notice.get("redirect", "")
        return Told(self.words.over(notice), status if status in STATUSES else self.status,
                    redirect if URL.fullmatch(redirect) else self.redirect,
                    LISTS if notice.get("pages") else self.policy)


class Answers:
    """What `replies.build` sends.

    `alert`: TLS gets an alert.

    Raises:
        ConfigError: the [reply] settings cannot be used.
    """

    def __init__(self, reply: Reply, notices: Mapping[str, Notice] | None = None) -> None:
        self.alert = reply.tls == "alert"
        self.reply = reply
        found = list(mistakes(reply))
        try:
            words = page.load(reply)
        except ConfigError as problem:
            raise ConfigError(*found, *problem.args) from None
        self.blocked_by = reply.blocked_by or (reply.provider if URI.fullmatch(reply.provider) else "")
        self.told = Told(words, reply.status, reply.redirect, "" if words.pages else OURS)
        self.notices = notices or {}
        self._made = lru_cache(MADE_MAX)(self._make)
        if not found:
            found += [f"reply: the page is longer than {page.MAX_PAGE // 1024} kB ({one or 'as it is'}); shorten "
                      "reason and help" for one in words.languages if page.make(words, one) is None]
        if found:
            raise ConfigError(*found)

    def renew(self, lists: Iterable[ListRecord]) -> None:
        """These lists are in force from now on."""
        self.notices = {one.name: {**one.order, **one.notice} for one in lists if one.notice or one.order}
        self._made.cache_clear()

    def redirects(self, name: str | None) -> bool:
        """Whether there is a URL for the action "redirect" of a list."""
        return bool(self._told(name).redirect)

    def find(self, name: str | None, action: str, request: bytes, rule: str | None, now: float) -> Answer:
        """Head and body for who is blocked by the list of that name, with "page" or "redirect".

        Args:
            request: what the packet carries that is answered.
            rule: its id, eight hex digits.
            now: Unix seconds.
        """
        told = self._told(name)
        code = code_of(rule, day_of(now))
        if action == "redirect" and told.redirect:
            return redirect(told.redirect.replace(GAP, code), code)
        language = choose(ranges_in(request), told.words.languages)
        head, made = self._made(name if name in self.notices else None, language)
        return head.replace(GAP.encode(), code.encode()), made.with_reference(code.encode())

    def _told(self, name: str | None) -> Told:
        notice = self.notices.get(name) if name is not None else None
        return self.told.over(notice) if notice else self.told

    def _make(self, name: str | None, language: str) -> tuple[bytes, page.Page]:
        told = self._told(name)
        made = page.make(told.words, language)
        if made is None:        # what stands in [reply], put into a list's page many times
            told = replace(told, words=self.told.words, policy=self.told.policy)
            made = page.make(told.words, choose([(language.lower(), 1.0)], told.words.languages))
            assert made is not None, "all of [reply] were tried at the start"
        lines = [f"HTTP/1.1 {told.status} {HTTPStatus(told.status).phrase}"]
        if told.status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS and self.blocked_by:
            lines.append(f'Link: <{self.blocked_by}>; rel="blocked-by"')
        lines += ["Content-Type: text/html; charset=utf-8", f"Content-Length: {made.size}"]
        lines += [f"Content-Language: {made.language}"] if made.language else []
        lines += ["Vary: Accept-Language", f"Block-Reference: {GAP}"]
        lines += [f"Content-Security-Policy: {told.policy}"] if told.policy else []
        return ("\r\n".join(lines) + "\r\n" + COMMON).encode("ascii"), made


def redirect(url: str, code: str) -> Answer:
    shown = html.escape(url)
    body = f'<!DOCTYPE html><title>Moved</title><p>See <a href="{shown}">{shown}</a>.</p>\n'.encode()
    head = (f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Type: text/html; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nBlock-Reference: {code}\r\n{COMMON}")
    return head.encode("ascii"), body


def mistakes(reply: Reply) -> Iterable[str]:
    """What is wrong with [reply] beyond its page, each as the message of a ConfigError."""
    if reply.tls not in ("alert", "rst"):
        yield f"reply.tls: '{reply.tls}' is not one of alert, rst"
    if reply.status not in STATUSES:
        yield f"reply.status: {reply.status} is not one of {', '.join(map(str, STATUSES))}"
    if reply.redirect and not URL.fullmatch(reply.redirect):
        yield f"reply.redirect: {reply.redirect!r} is not an http or https URL in ASCII"
    if reply.blocked_by and not URI.fullmatch(reply.blocked_by):
        yield f"reply.blocked_by: {reply.blocked_by!r} is not an http or https URL in ASCII without < and >"
