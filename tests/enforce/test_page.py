"""The block page: whole, self-contained, readable by everybody, and with nothing in it that somebody smuggled in."""

import re
from html.parser import HTMLParser

import pytest

from edgeblock.config import Reply
from edgeblock.enforce import page
from edgeblock.errors import ConfigError


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


def test_the_page_that_ships():
    body = page.load(Reply(provider="Example Net", contact="abuse@isp.example"))
    tags = Tags(body)
    assert body.startswith(b"<!DOCTYPE html>\n") and len(body) < 4096
    assert tags.named("html") == [{"lang": "en"}] and len(tags.named("title")) == len(tags.named("h1")) == 1
    assert len(tags.named("h2")) == 2 and len(tags.named("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.named("meta")
    assert "prefers-color-scheme: dark" in tags.text and "$" not in body.decode()
    for words in ("blocked", "Example Net", "Where to get help", "If this block is a mistake", page.REASON[:40]):
        assert words in tags.text
    assert {"href": "mailto:abuse@isp.example"} in tags.named("a")


def test_it_needs_nothing_from_elsewhere():
    body = page.render()
    tags = Tags(body)
    assert not {"script", "img", "link", "iframe", "form"} & {tag for tag, _ in tags.seen}
    assert not re.search(rb"url\(|@import|src=|\bon\w+=", body)


def luminance(colour):
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_in_both_schemes():
    schemes = re.findall(r"--ink: (#\w+); --paper: #\w+; --sheet: (#\w+); --line: #\w+; --link: (#\w+)",
                         page.render().decode())
    assert len(schemes) == 2
    for ink, sheet, link in schemes:
        for colour in (ink, link):
            light, dark = sorted((luminance(colour), luminance(sheet)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 7      # WCAG 2.2, level AAA


def test_everything_is_configurable():
    tags = Tags(page.render(provider="P", contact="https://isp.example/wrong?a&b", reason="R" * 5,
                            help_links=[("Call", "116 111"), ("Write", "help@help.example")]))
    links = [attributes["href"] for attributes in tags.named("a")]
    assert links == ["mailto:help@help.example", "https://isp.example/wrong?a&b"]
    assert "116 111" in tags.text and "RRRRR" in tags.text


@pytest.mark.parametrize("evil", ['<script>alert(1)</script>', '"><img src=x>', "javascript:alert(1)",
                                  'https://x/"onclick="a', "$reason", 'a"b@c.d'])
def test_values_are_escaped(evil):
    tags = Tags(page.render(provider=evil, contact=evil, reason=evil, help_links=[(evil, evil)]))
    assert not {"script", "img"} & {tag for tag, _ in tags.seen}
    assert all(set(attributes) == {"href"} and re.match(r"https?://|mailto:", attributes["href"])
               for attributes in tags.named("a"))
    assert tags.text.count(evil) == 5


def test_without_contact_and_provider():
    text = Tags(page.load(Reply())).text
    assert "Write to the customer service of your internet provider." in text
    assert "made by your internet provider" in text


def test_an_own_page_is_sent_as_it_is(tmp_path):
    path = tmp_path / "own.html"
    path.write_bytes("<p>Gesperrt für $provider".encode() + b" " * 100)
    assert page.load(Reply(page=path)) == path.read_bytes()
    path.write_bytes(b"x" * page.MAX_PAGE)
    assert len(page.load(Reply(page=path))) == page.MAX_PAGE


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
