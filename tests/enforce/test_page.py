"""The block page: whole, self-contained, readable by everybody, and with nothing in it that somebody smuggled in."""

import re
from html.parser import HTMLParser

import pytest

from edgeblock.config import SHIPPED_LANGUAGES, Reply
from edgeblock.enforce import page
from edgeblock.enforce.page import Words
from edgeblock.errors import ConfigError

CODE = b"7K3MQ-2XD9T"


class Tags(HTMLParser):
    """Elements of a page with their attributes, its text, and whether every element was closed."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, body):
        super().__init__()
        self.seen, self.open, self.text = [], [], ""
        self.feed(body.decode())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def shown(words=None, language="en"):
    made = page.make(words or Words(), language)
    body = made.with_reference(CODE)
    assert made.size == len(body) <= page.MAX_PAGE
    return body


def test_the_page_that_ships():
    body = shown(page.load(Reply(provider="Example Net", contact="abuse@isp.example")))
    tags = Tags(body)
    assert body.startswith(b"<!DOCTYPE html>\n") and len(body) < 4096
    assert tags.named("html") == [{"lang": "en", "dir": "ltr"}]
    assert len(tags.named("title")) == len(tags.named("h1")) == len(tags.named("main")) == 1
    assert len(tags.named("h2")) == 2 and tags.named("code") == [{"dir": "ltr"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.named("meta")
    assert "prefers-color-scheme: dark" in tags.text and "$" not in body.decode()
    for words in ("blocked", "Example Net", "Where to get help", "If this block is a mistake", CODE.decode(),
                  page.texts()["en"]["reason"]):
        assert words in tags.text
    assert {"href": "mailto:abuse@isp.example"} in tags.named("a")


@pytest.mark.parametrize("language", SHIPPED_LANGUAGES)
def test_every_language_says_the_same(language):
    said = page.texts()[language]
    assert said.keys() == page.texts()["en"].keys() and page.texts().keys() == set(SHIPPED_LANGUAGES)
    tags = Tags(shown(Words(provider="Example Net", contact="abuse@isp.example"), language))
    assert tags.named("html") == [{"lang": language, "dir": "rtl" if language == "ar" else "ltr"}]
    assert [attributes["href"] for attributes in tags.named("a")] == [
        *(where for _, where in page.HELP), "mailto:abuse@isp.example"]
    assert all(text in tags.text for key, text in said.items()
               if key not in ("dir", "made_by", "made", "report", "service"))
    assert "Example Net" in tags.text and said["made"] not in tags.text and said["service"] not in tags.text
    plain = Tags(shown(Words(), language)).text
    assert said["made"] in plain and said["service"] in plain


def test_it_needs_nothing_from_elsewhere():
    body = shown()
    tags = Tags(body)
    assert not {"script", "img", "link", "iframe", "form"} & {tag for tag, _ in tags.seen}
    assert not re.search(rb"url\(|@import|src=|\bon\w+=", body)


def luminance(colour):
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_both_schemes():
    schemes = re.findall(r"--ink: (#\w+); --paper: #\w+; --sheet: (#\w+); --line: #\w+; --link: (#\w+)",
                         shown().decode())
    assert len(schemes) == 2
    for ink, sheet, link in schemes:
        for colour in (ink, link):
            light, dark = sorted((luminance(colour), luminance(sheet)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 7      # WCAG 2.2, level AAA


def test_everything_is_configurable():
    tags = Tags(shown(Words(provider="P", contact="https://isp.example/wrong?a&b", reason={"": "R" * 5},
                            help=[("Call", "116 111"), ("Write", "help@help.example")])))
    links = [attributes["href"] for attributes in tags.named("a")]
    assert links == ["mailto:help@help.example", "https://isp.example/wrong?a&b"]
    assert "116 111" in tags.text and "RRRRR" in tags.text


@pytest.mark.parametrize("evil", ['<script>alert(1)</script>', '"><img src=x>', "javascript:alert(1)",
                                  'https://x/"onclick="a', "$reason", 'a"b@c.d'])
def test_values_are_escaped(evil):
    words = Words(provider=evil, contact=evil, reason={"": evil}, help=[(evil, evil)])
    tags = Tags(shown(words))
    assert not {"script", "img"} & {tag for tag, _ in tags.seen}
    assert all(set(attributes) == {"href"} and re.match(r"https?://|mailto:", attributes["href"])
               for attributes in tags.named("a"))
    assert tags.text.count(evil.removeprefix("https://")) == 5
    own = Tags(shown(words.over({"pages": {"": '<p title="$contact">$reason $provider</p>'}}), ""))
    assert own.seen == [("p", {"title": evil})] and own.text == f"{evil} {evil}"


def test_without_contact_and_provider():
    text = Tags(shown(page.load(Reply()))).text
    assert "Write to the customer service of your internet provider." in text
    assert "made by your internet provider" in text


def test_a_reason_is_told_in_the_page_s_language_or_says_which_it_is_in():
    words = Words(reason={"de": "Der Grund", "fr-CA": "La raison"})
    assert "Der Grund" in Tags(shown(words, "de")).text and {"lang": "de", "dir": "auto"} not in Tags(
        shown(words, "de")).named("p")
    assert "La raison" in Tags(shown(words, "fr")).text
    for language in ("en", "ar"):
        tags = Tags(shown(words, language))
        assert "Der Grund" in tags.text and {"lang": "de", "dir": "auto"} in tags.named("p")
    assert {"dir": "auto"} in Tags(shown(Words(reason={"": "Why"}), "ar")).named("p")


def test_what_a_list_says_stands_over_what_the_operator_says():
    reply = Words(contact="a@isp.example", provider="P", reason={"en": "All"}, language="fr")
    made = reply.over({"reason": {"en": "Court", "e\r\nvil": "x"}, "contact": ""})
    assert (made.reason, made.contact, made.provider, made.pages) == ({"en": "Court"}, "a@isp.example", "P", {})
    assert made.languages == ["fr", "en", "de", "es", "ar"]
    made = reply.over({"pages": {"de": "<p>", "\r\n": "<p>"}, "contact": "b@isp.example"})
    assert (made.languages, made.contact, made.reason) == (["de"], "b@isp.example", {"en": "All"})


def test_an_own_page_has_what_it_asks_for_and_else_is_as_it_is(tmp_path):
    path = tmp_path / "own.html"
    path.write_bytes("<p>Gesperrt für $5 von $provider: $reason ($reference, $reference) $contacts ".encode())
    words = page.load(Reply(page=path, provider="Ä & B", reason=(("", "Court"),)))
    assert shown(words, "").decode() == (
        f"<p>Gesperrt für $5 von Ä &amp; B: Court ({CODE.decode()}, {CODE.decode()}) $contacts ")
    path.write_bytes(b"x" * page.MAX_PAGE)
    assert len(shown(page.load(Reply(page=path)), "")) == page.MAX_PAGE


def test_an_own_page_in_several_languages(tmp_path):
    for name, text in (("own.html", '<!doctype html><html class=a lang="nl">1'), ("own.de.html", "2"),
                       ("own.pt-br.html", "3"), ("own.bak.txt", "4"), ("other.de.html", "5"), (".de.html", "6")):
        (tmp_path / name).write_text(text)
    words = page.load(Reply(page=tmp_path / "own.html"))
    assert words.languages == ["nl", "de", "pt-BR"] and words.pages["pt-BR"] == "3"


@pytest.mark.parametrize(("content", "words"), [
    (b"x" * (32 * 1024 + 1), "larger than 32 kB"),
    (b" \n", "empty"),
    (b"caf\xe9", "not UTF-8 at byte 3"),
    (None, "cannot be read: No such file"),
])
def test_an_own_page_that_cannot_be_used(tmp_path, content, words):
    path = tmp_path / "own.html"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        page.load(Reply(page=path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_settings_reach_the_page():
    words = page.load(Reply(reason=(("", "By order of the court."),), help=(("Call us", "+44 20 7946 0000"),)))
    text = shown(words).decode()
    assert "By order of the court." in text and page.texts()["en"]["reason"] not in text
    assert "Call us" in text and "findahelpline" not in text
