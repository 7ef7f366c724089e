"""Lists over HTTPS: what an honest server's answers become, and that no other server gets more than a bounded time,
bounded bytes and one line. In: a server on loopback that does anything. Out: what lies in the drop directory, and
what is said.
"""

import asyncio
import gzip
import hashlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeblock.errors import ConfigError
from edgeblock.fleet.feed import Feed, Shared
from edgeblock.fleet.source import SourceError
from edgeblock.fleet.sources import FetchSettings, SourceSettings
from edgeblock.fleet.visit import Bounds, Secrets, Visit, made_context, place_of
from edgeblock.fleet.web import Settings, Web, wait_of
from tests.blocklist.test_signature import ONE, TWO
from tests.fleet.serving import Connection, Server, serving

QUICK = Bounds(head=0.5, silence=0.5, total=1.5, window=0.5, rate=4096)
MOST = 1 << 20          # bytes of a file here
ENDED = 2.5             # seconds in which every fetch here is over
GOOD = b"good.example\n" * 100
PATH = "/court.list"


@dataclass
class Place:
    """A drop directory with a source, and the server that it asks."""

    home: Path
    server: Server

    @property
    def drop(self) -> Path:
        return self.home / "drop"

    def settings(self, **more: object) -> Settings:
        return Settings(**{"url": self.server.url(PATH), "file": "court.list",
                           "ca_file": self.home / "server.pem" if self.server.context else None, **more})

    def shared(self) -> Shared:
        fetch = FetchSettings(directory=self.drop, state=self.home / "state", status=self.home / "status.json",
                              file_megabytes=MOST >> 20)
        self.drop.mkdir(exist_ok=True)
        self.said: list[dict[str, object]] = []
        made = Shared(fetch, lambda level, event, **say: self.said.append({"event": event, **say}), lambda: None)
        made.prepare()
        return made

    def feed(self, bounds: Bounds = QUICK, **more: object) -> Feed:
        shared = self.shared()
        settings = self.settings(**more)
        return Feed(SourceSettings("court", "https", own=settings), Web("court", settings, shared.fetch, bounds),
                    shared)

    def ask(self, feed: Feed) -> float:
        return asyncio.run(feed.ask())

    def there(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.drop.iterdir()}


@pytest.fixture
def place(tmp_path):
    with serving(tmp_path) as server:
        server.answers[PATH] = lambda one: one.answer(200, GOOD, ETag='"1"')
        yield Place(tmp_path, server)


def page(one: Connection) -> None:
    one.answer(200, b"<!DOCTYPE html><title>502</title>", Content_Type="text/plain")


def typed(one: Connection) -> None:
    one.answer(200, GOOD, Content_Type="text/html; charset=utf-8")


def endless(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\n\r\n")
    one.forever(b"x.example\n" * 1000)


def endless_pieces(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    one.forever(b"1000\r\n" + b"x" * 4096 + b"\r\n")


def small_pieces(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    one.forever(b"1\r\nx\r\n", 0.02)


def drip(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    one.forever(b"x", 0.02)


def stopping(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx.example\n")
    one.wait()


def dripping_head(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    one.forever(b"x", 0.02)


def go_on(one: Connection) -> None:
    one.forever(b"HTTP/1.1 100 Continue\r\n\r\n")


def early(one: Connection) -> None:
    for number in itertools.count():
        one.send(b"HTTP/1.1 103 Early Hints\r\nLink: <%d>\r\n\r\n" % number)


def flood(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        one.send(b"X-%d: %s\r\n" % (number, b"y" * 1000))


def long_line(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nX: ")
    one.forever(b"y" * 10_000)


def long_size(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
    one.forever(b"y" * 10_000)


def truncated(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + GOOD)


def truncated_pieces(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + GOOD[:100])


def announced(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n")
    one.wait()


def number_of_many_digits(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx\n")


def negative(one: Connection) -> None:
    one.send(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n<html>")


def around(one: Connection) -> None:
    one.answer(302, Location=PATH)


def to(where: str, status: int = 301):
    return lambda one: one.answer(status, Location=where)


HOSTILE = {
    "a body without end": (endless, "is longer than 1048576 bytes"),
    "pieces without end": (endless_pieces, "is longer than 1048576 bytes"),
    "pieces of a byte": (small_pieces, "sends less than 4096 bytes a second"),
    "a body that drips": (drip, "sends less than 4096 bytes a second"),
    "a body that stops": (stopping, "does not answer|sends less than"),
    "a body that is announced too long": (announced, "has more than 1 MiB"),
    "a length of five thousand digits": (number_of_many_digits, ""),
    "a negative length": (negative, "is no list: it is an HTML"),
    "a head that drips": (dripping_head, "does not answer within 0.5 s"),
    "go on, without end": (go_on, "can be read (TooManyHints)"),
    "hints without end": (early, "can be read (TooManyHints)"),
    "headers without end": (flood, "speaks no HTTP that can be read"),
    "a header without end": (long_line, "speaks no HTTP that can be read"),
    "the size of a piece without end": (long_size, ""),
    "nothing": (lambda one: one.wait(), "does not answer"),
    "an end at once": (lambda one: None, ""),
    "no HTTP": (lambda one: one.send(b"SSH-2.0-x\r\n" * 10), "speaks no HTTP that can be read"),
    "a body that ends early": (truncated, "ended before all of it had come"),
    "pieces that end early": (truncated_pieces, "ended before all of it had come"),
    "redirects in a circle": (around, "is redirected more than 5 times"),
    "a redirect to http": (to("http://localhost/court.list"), "is not over TLS"),
    "a redirect to a file": (to("file:///etc/passwd"), "is not over TLS"),
    "a redirect to what is no URL": (to("https://[x/"), "is redirected to what is no URL"),
    "a redirect to a port that is none": (to("https://localhost:99999999/"), "is redirected to what is no URL"),
    "a redirect to nothing": (to(""), "is redirected to what is no URL"),
    "a page": (page, "is no list: it is an HTML or XML page"),
    "a page by its type": (typed, "is sent as a web page (text/html)"),
    "a packed page": (lambda one: one.answer(200, gzip.compress(b"<html>" + b" " * 99), Content_Encoding="gzip"),
                      "is no list: it is an HTML or XML page"),
    "a packing that is not read": (lambda one: one.answer(200, GOOD, Content_Encoding="br"),
                                   "is sent packed as 'br'"),
    "what is called packed twice": (lambda one: one.answer(200, GOOD, Content_Encoding="gzip, gzip"),
                                    "is sent packed"),
    "a PDF": (lambda one: one.answer(200, b"%PDF-1.7 x"), "is no list: it is a PDF"),
    "an empty body": (lambda one: one.answer(200), "is empty"),
    "not changed, unasked": (lambda one: one.answer(304), "HTTP 304|says that it has not changed, though"),
    "a part of it": (lambda one: one.answer(206, GOOD), "cannot be had (HTTP 206)"),
    "not there": (lambda one: one.answer(404, b"x" * 5000), "is not there; is the URL right? (HTTP 404)"),
    "gone": (lambda one: one.answer(410), "is gone for good"),
    "not for us": (lambda one: one.answer(403), "see user, password_file and token_file (HTTP 403)"),
    "out of order": (lambda one: one.answer(503), "cannot be had now, says the server (HTTP 503)"),
    "a status that is none": (lambda one: one.send(b"HTTP/1.1 999999 x\r\n\r\n"), ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_server_gets_a_bounded_time_and_one_line_and_what_was_there_stays(place, case):
    answer, words = HOSTILE[case]
    feed = place.feed()
    place.ask(feed)
    assert place.there() == {"court.list": GOOD} and feed.error == ""
    feed.record.known.pop("etag")       # so that all is asked for
    place.server.answers[PATH] = answer
    began = time.monotonic()
    wait = place.ask(feed)
    assert time.monotonic() - began < ENDED
    assert feed.error and "\n" not in feed.error and len(feed.error) <= 400 and feed.error.isprintable()
    assert any(part in feed.error for part in words.split("|")), feed.error
    assert place_of(place.server.url(PATH)) in feed.error or "redirect" in case
    assert "fault of edgeblock" not in feed.error
    assert place.there() == {"court.list": GOOD} and feed.record.version == '"1"'
    assert list((place.home / "state" / "fetching").iterdir()) == []
    assert feed.failures == 1 and wait > 10
    place.server.answers[PATH] = lambda one: one.answer(200, GOOD + b"more.example\n")
    place.ask(feed)
    assert place.there() == {"court.list": GOOD + b"more.example\n"} and (feed.error, feed.failures) == ("", 0)


def test_a_server_that_is_silent_in_the_handshake_is_left(tmp_path):
    with serving(tmp_path, silent=True) as server:
        where = Place(tmp_path, server)
        feed = where.feed()
        began = time.monotonic()
        where.ask(feed)
        assert time.monotonic() - began < ENDED
        assert "does not answer" in feed.error and where.there() == {}


def test_all_of_a_fetch_has_a_bound_however_many_parts_it_has(place):
    def slowly(one):
        if one.wait(0.4):
            one.answer(302, Location=PATH)

    place.server.answers[PATH] = slowly
    feed = place.feed(Bounds(head=9, silence=9, total=0.6, window=9))
    began = time.monotonic()
    place.ask(feed)
    assert time.monotonic() - began < ENDED and "has taken longer than 0.6 s" in feed.error


def test_a_fetch_that_is_given_up_ends_at_once(place):
    place.server.answers[PATH] = lambda one: one.wait()
    feed = place.feed(Bounds())

    async def give_up():
        task = asyncio.ensure_future(feed.ask())
        while not place.server.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    began = time.monotonic()
    assert asyncio.run(give_up()) and time.monotonic() - began < ENDED
    assert list((place.home / "state" / "fetching").iterdir()) == []


def test_a_server_that_is_not_the_one_is_not_believed(place, tmp_path):
    feed = place.feed(ca_file=None)
    place.ask(feed)
    assert "the certificate of the server is not believed" in feed.error and place.there() == {}
    other = place.feed(url=place.server.url(PATH).replace("localhost", "127.0.0.1"))
    place.ask(other)
    assert "the certificate of the server is not believed" in other.error and place.there() == {}


def test_what_has_not_changed_costs_a_request_and_nothing_else(place):
    def honest(one):
        if one.headers.get("if-none-match") == '"1"':
            one.answer(304, ETag='"1"')
        else:
            one.answer(200, GOOD, ETag='"1"')

    place.server.answers[PATH] = honest
    feed = place.feed()
    place.ask(feed)
    before = (place.drop / "court.list").stat(), (place.home / "state/sources/court.json").read_bytes()
    asked = feed.record.asked
    place.ask(feed)
    assert "if-none-match" in place.server.asked[1].headers and feed.error == ""
    assert before == ((place.drop / "court.list").stat(), (place.home / "state/sources/court.json").read_bytes())
    assert feed.record.asked > asked and feed.row()["version"] == '"1"'
    again = place.feed()        # after a restart, too
    assert abs(again.record.asked - feed.record.asked) < 0.01
    place.ask(again)
    assert "if-none-match" in place.server.asked[2].headers


def test_it_is_the_content_that_counts_whatever_its_tag_says(place):
    feed = place.feed()
    place.ask(feed)
    before = (place.drop / "court.list").stat()
    place.server.answers[PATH] = lambda one: one.answer(200, GOOD, ETag='"2"')          # another tag, the same list
    place.ask(feed)
    assert (place.drop / "court.list").stat() == before and feed.record.version == '"2"'
    place.server.answers[PATH] = lambda one: one.answer(200, GOOD * 2, ETag='"2"')      # the same tag, another list
    place.ask(feed)
    assert place.there() == {"court.list": GOOD * 2}


def test_not_changed_is_believed_for_a_week(place):
    place.server.answers[PATH] = lambda one: one.answer(304 if "if-none-match" in one.headers else 200, GOOD,
                                                        ETag='"1"')
    feed = place.feed()
    place.ask(feed)
    for number, when in ((1, time.time() - 8 * 86400), (2, time.time() + 86400)):
        feed.record.known["full"] = when
        place.ask(feed)
        assert "if-none-match" not in place.server.asked[number].headers and feed.error == ""
    place.ask(feed)
    assert "if-none-match" in place.server.asked[3].headers and feed.error == ""


def test_a_list_that_somebody_has_taken_away_is_asked_for_as_a_whole(place):
    feed = place.feed()
    place.ask(feed)
    (place.drop / "court.list").unlink()
    place.ask(feed)
    assert "if-none-match" not in place.server.asked[1].headers and place.there() == {"court.list": GOOD}


def test_a_packed_list_stays_as_it_came_and_a_bomb_is_never_unpacked(place):
    packed = gzip.compress(b"\0" * (16 << 20), 1)
    place.server.answers[PATH] = lambda one: one.answer(200, packed, Content_Encoding="gzip")
    feed = place.feed()
    place.ask(feed)
    assert place.there() == {"court.list": packed} and place.server.asked[0].headers["accept-encoding"] == "identity"


def test_a_header_that_no_honest_server_sends_is_not_sent_back(place):
    place.server.answers[PATH] = lambda one: one.answer(200, GOOD, ETag='"' + "x" * 5000 + '"')
    feed = place.feed()
    place.ask(feed)
    place.ask(feed)
    assert "if-none-match" not in place.server.asked[1].headers and len(feed.record.version) == 16


SHA = hashlib.sha256(GOOD).hexdigest()


def test_hints_before_an_answer_are_passed_over_as_long_as_they_are_few(place):
    def hints(count, status):
        def answer(one: Connection) -> None:
            one.send(f"HTTP/1.1 {status} Early\r\nLink: </style.css>\r\n\r\n".encode() * count)
            one.answer(200, GOOD)
        return answer

    feed = place.feed()
    for status in (100, 102, 103):
        place.server.answers[PATH] = hints(3, status)
        place.ask(feed)
        assert not feed.failures, feed.error
        place.server.answers[PATH] = hints(5000, status)
        place.ask(feed)
        assert feed.error.endswith("the server speaks no HTTP that can be read (TooManyHints)")
    assert place.there() == {"court.list": GOOD}


def test_connections_that_are_over_are_let_go(place):
    """Or a server that closes each has us have a descriptor for each file of a release."""
    place.server.answers["/hop"] = lambda one: one.answer(302, Location=PATH)
    visit = Visit(QUICK, "")
    visit.secrets = Secrets(ca_file=place.home / "server.pem")
    for path in ["/hop", PATH] * 5:
        assert visit.read(visit.ask(place.server.url(path), {}, False), MOST) == GOOD
        assert len(visit._held) <= 1
    visit.close()


def test_the_authorities_are_read_once_as_long_as_their_files_are_the_same(place, tmp_path):
    made_context.cache_clear()
    feed = place.feed()
    for _ in range(3):
        place.ask(feed)
    assert not feed.failures and made_context.cache_info().misses == 1
    content = (tmp_path / "server.pem").read_bytes()
    (tmp_path / "server.pem").write_bytes(b"")
    place.ask(feed)
    assert "cannot be used as a certificate" in feed.error
    (tmp_path / "server.pem").write_bytes(content)
    place.ask(feed)
    assert not feed.failures and made_context.cache_info().currsize == 2
    with serving(None) as plain:
        plain.answers[PATH] = lambda one: one.answer(200, GOOD)
        before = made_context.cache_info()
        place.ask(place.feed(url=plain.url(PATH), sha256=hashlib.sha256(GOOD).hexdigest()))
        assert plain.asked and made_context.cache_info() == before


def test_the_checksum_that_is_configured_has_to_fit(place):
    feed = place.feed(sha256=SHA)
    place.ask(feed)
    assert place.there() == {"court.list": GOOD}
    place.ask(feed)
    assert len(place.server.asked) == 1         # it is what it is to be: nobody has to be asked
    other = place.feed(sha256="0" * 64)
    place.ask(other)
    assert "0000 is wanted" in other.error and other.grave and place.there() == {"court.list": GOOD}


def test_not_changed_is_no_answer_where_another_checksum_is_wanted(place):
    place.server.answers[PATH] = lambda one: one.answer(304 if "if-none-match" in one.headers else 200, GOOD,
                                                        ETag='"1"')
    place.ask(place.feed(sha256=SHA))
    other = place.feed(sha256="0" * 64)
    place.ask(other)
    assert "0000 is wanted" in other.error and other.grave and place.there() == {"court.list": GOOD}


@pytest.mark.parametrize("text", [f"{SHA}  court.list\n{'1' * 64}  other.list\n", f"{SHA} *court.list\n", SHA,
                                  f"SHA256 (court.list) = {SHA.upper()}\n", f"{SHA}  ./lists/court.list"])
def test_the_checksum_of_a_url_says_whether_all_of_it_is_to_come(place, text):
    place.server.answers["/SHA256SUMS"] = lambda one: one.answer(200, text.encode())
    feed = place.feed(sha256_url=place.server.url("/SHA256SUMS"))
    place.ask(feed)
    place.ask(feed)
    assert feed.error == "" and place.server.paths() == ["/SHA256SUMS", PATH, "/SHA256SUMS"]


def test_a_file_of_checksums_that_says_another_or_nothing_refuses(place):
    feed = place.feed(sha256_url=place.server.url("/SHA256SUMS"))
    for body, words in ((b"1" * 64, "111 is wanted"), (b"nothing", "has no SHA-256 of court.list"),
                        (f"{'1' * 64}  court.list\n{SHA}  court.list\n".encode(), "has more than one SHA-256"),
                        (b"x" * (2 << 20), "is longer than 1048576 bytes")):
        place.server.answers["/SHA256SUMS"] = lambda one, body=body: one.answer(200, body)
        place.ask(feed)
        assert words in feed.error and place.there() == {}, feed.error


def signed(place, text=GOOD, stamp=1000, signer=ONE):
    place.server.answers["/court.list.minisig"] = lambda one: one.answer(
        200, signer.sign(text, f"timestamp:{stamp}\tfile:court.list\thashed"))
    (place.home / "one.pub").write_text(f"untrusted comment: minisign public key\n{ONE.public}\n")
    return {"signature_url": place.server.url("/court.list.minisig"), "signer_file": place.home / "one.pub"}


def test_a_signed_list_lands_with_its_signature_and_never_an_older_one(place):
    feed = place.feed(**signed(place, stamp=2000))
    place.ask(feed)
    assert feed.error == "" and place.there().keys() == {"court.list", "court.list.minisig"}
    place.server.answers[PATH] = lambda one: one.answer(200, b"old.example\n")
    signed(place, b"old.example\n", 1999)
    place.ask(feed)
    assert "is older than the version in force" in feed.error and feed.grave
    assert place.there()["court.list"] == GOOD
    signed(place, b"old.example\n", 2001)
    place.ask(feed)
    assert feed.error == "" and place.there()["court.list"] == b"old.example\n"


def test_a_signature_of_somebody_else_or_of_another_list_is_none(place):
    feed = place.feed(**signed(place))
    place.ask(feed)
    for text, signer in ((GOOD, TWO), (b"other", ONE)):
        signed(place, text, 3000, signer)
        place.ask(feed)
        assert feed.grave and "\n" not in feed.error and place.there()["court.list"] == GOOD, feed.error


def test_a_list_without_tls_needs_something_that_says_it_is_genuine(tmp_path):
    with serving(None) as server:
        where = Place(tmp_path, server)
        server.answers[PATH] = lambda one: one.answer(200, GOOD)
        with pytest.raises(ConfigError, match="is not over TLS: that needs sha256"):
            where.settings()
        with pytest.raises(ConfigError, match="would show everybody the password"):
            where.settings(sha256=SHA, token_file=tmp_path / "token")
        feed = where.feed(sha256=SHA)
        where.ask(feed)
        assert feed.error == "" and where.there() == {"court.list": GOOD}


def test_a_mirror_is_asked_where_the_first_has_it_not_and_a_forgery_is_told_of(place):
    place.server.answers["/mirror/court.list"] = lambda one: one.answer(200, GOOD)
    place.server.answers[PATH] = lambda one: one.answer(503, Retry_After="120")
    mirrors = (place.server.url("/mirror/court.list"),)
    feed = place.feed(mirrors=mirrors)
    place.ask(feed)
    assert feed.error == "" and place.there() == {"court.list": GOOD}
    place.server.answers["/mirror/court.list"] = lambda one: one.answer(404)
    feed.record.known.clear()
    assert place.ask(feed) == 120.0 and "(and 1 mirrors failed, too)" in feed.error
    place.server.answers["/mirror/court.list"] = lambda one: one.answer(410)        # it does not say when we ask
    assert place.ask(feed) == 120.0
    place.server.answers[PATH] = lambda one: one.answer(500)
    assert place.ask(feed) < 1000


def test_a_mirror_is_asked_where_what_the_first_sends_is_no_list_or_breaks_off(place):
    place.server.answers["/mirror/court.list"] = lambda one: one.answer(200, GOOD)
    feed = place.feed(mirrors=(place.server.url("/mirror/court.list"),))
    for number, bad in enumerate((page, lambda one: one.answer(200, b"half", Content_Length="99"))):
        place.server.answers[PATH] = bad
        place.ask(feed)
        assert not feed.failures, feed.error
        assert place.there() == {"court.list": GOOD}
        assert len(place.server.asked) == 2 * number + 2


def test_a_password_goes_to_its_server_and_is_nowhere_else(place):
    (place.home / "secret").write_text("hush-hush\n")
    with serving(place.home) as other:
        other.answers["/court.list"] = lambda one: one.answer(200, GOOD)
        place.server.answers[PATH] = lambda one: one.answer(302, Location=other.url(f"{PATH}"))
        for more, sent in (({"token_file": place.home / "secret"}, "Bearer hush-hush"),
                           ({"user": "box", "password_file": place.home / "secret"}, "Basic Ym94Omh1c2gtaHVzaA==")):
            feed = place.feed(**more)
            place.ask(feed)
            assert feed.error == "" and place.there() == {"court.list": GOOD}
            assert place.server.asked[-1].headers["authorization"] == sent
            assert "authorization" not in other.asked[-1].headers
            assert "hush" not in repr((feed.row(), place.said)) and "Ym94" not in repr((feed.row(), place.said))
            assert "hush" not in (place.home / "state/sources/court.json").read_text()


def test_what_may_be_a_password_in_a_url_is_not_told(place):
    query = f"{PATH}?token=hush-hush"
    place.server.answers[query] = lambda one: one.answer(404)
    feed = place.feed(url=place.server.url(query))
    place.ask(feed)
    assert feed.error.startswith(place.server.url(PATH)) and "hush" not in repr((feed.row(), place.said))
    place.server.answers[query] = lambda one: one.answer(302, Location="ftp://box:hush-hush@localhost/x?hush")
    place.ask(feed)
    assert "hush" not in feed.error


def test_a_certificate_of_ours_goes_to_its_server_alone(place):
    import ssl

    place.server.context.verify_mode = ssl.CERT_REQUIRED
    place.server.context.load_verify_locations(place.home / "server.pem")
    feed = place.feed()
    place.ask(feed)
    assert feed.error
    feed = place.feed(certificate=place.home / "server.pem", certificate_key=place.home / "server.key")
    place.ask(feed)
    assert feed.error == "" and place.there() == {"court.list": GOOD}
    feed = place.feed(certificate=place.home / "none.pem")
    place.ask(feed)
    assert "none.pem: cannot be used as a certificate in PEM" in feed.error


def test_a_proxy_is_asked_for_a_way_and_its_refusal_is_told(place):
    with serving(None) as proxy:
        proxy.answers[place.server.url("").removeprefix("https://")] = lambda one: one.answer(407)
        feed = place.feed(proxy=proxy.url(""))
        place.ask(feed)
        assert proxy.paths() and "proxy" in feed.error and place.there() == {}


def test_no_room_on_the_disk_is_told_and_what_was_there_stays(place):
    feed = place.feed()
    place.ask(feed)
    place.server.answers[PATH] = lambda one: one.answer(200, GOOD * 3)

    class Full(type(feed._shared.landing)):
        def _prepare(self, *arguments):
            raise OSError(28, os.strerror(28), str(self.directory))

    feed._shared.landing.__class__ = Full
    place.ask(feed)
    assert "No space left on device; make room, what landed before stays" in feed.error
    assert place.there() == {"court.list": GOOD}


@pytest.mark.parametrize(("said", "seconds"), [
    ("120", 120), ("0", 30), ("1", 30), ("99999999999999", 86400), ("Wed, 21 Oct 2015 07:28:00 GMT", 30), ("", None),
    ("soon", None), ("-5", None), ("Fri, 31 Dec 9999 23:59:59 GMT", 86400), ("Fri, 31 Dec 99999 23:59:59 GMT", None)])
def test_a_server_may_have_us_wait_within_bounds(said, seconds):
    assert wait_of(said) == seconds


@pytest.mark.parametrize(("more", "words"), [
    ({"url": ""}, "has no url"), ({"file": ""}, "has no file"), ({"file": "../x.list"}, "is no file name"),
    ({"file": "x.toml"}, "is of settings"), ({"file": "x.list.minisig"}, "is the name of a signature"),
    ({"signature_url": "https://a.example/x"}, "signature_url needs signer_file"),
    ({"signer_file": Path("x")}, "signer_file needs signature_url"), ({"user": "x"}, "user needs password_file"),
    ({"sha256": SHA, "sha256_url": "https://a.example/x"}, "leave one out"),
    ({"url": "http://a.example/x", "sha256_url": "http://a.example/y"}, "is not over TLS")])
def test_each_mistake_is_a_line_of_its_own(more, words):
    with pytest.raises(ConfigError) as refused:
        Settings(**{"url": "https://a.example/x", "file": "x.list", **more})
    assert any(words in line for line in refused.value.args), refused.value.args


def test_a_fetch_by_itself_raises_one_line(place):
    place.server.answers[PATH] = page
    web = Web("court", place.settings(), FetchSettings(), QUICK)
    with pytest.raises(SourceError) as refused:
        asyncio.run(web.fetch({}, place.home))
    assert "\n" not in str(refused.value)
