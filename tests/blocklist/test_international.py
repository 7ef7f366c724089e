"""International names as the wire has them: against the library, and what a hostile one costs."""

import random
import time
import unicodedata
from pathlib import Path

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeblock
from edgeblock.blocklist.canonical import canonical_host, wire_hosts

from .making import matcher

# Characters that NFC turns about: bases, marks of several classes, Hangul, mapped and refused ones.
MIXED = st.text(st.sampled_from(
    "aAeo\u0301\u0302\u0308\u0323\u0327\u0345\u0653ͅαΑωᾳ한ᄒ\u1161\u11abㅎé\u1e69ﬁ\u00ad\u200dßſK\ufffdꙮ①\U0001d15e"),
                min_size=1, max_size=12)
PACKET = 1400


def slow(label: str) -> bytes | None:
    """The label as the library maps it and Python's codec writes it; None where the library refuses it."""
    try:
        mapped = idna.uts46_remap(label, std3_rules=False)
    except UnicodeError:
        return None
    return mapped.encode() if mapped.isascii() else b"xn--" + mapped.encode("punycode")


def check(label: str) -> None:
    expected = slow(label)
    assert label.isascii() or expected is None or not canonical_host(label + ".com") or (
        canonical_host(label + ".com") == expected + b".com"), label
    if expected is None:
        assert canonical_host(label + ".com") is None
    elif expected and len(expected) <= 63 and b"." not in expected and not expected.startswith(b"xn--xn--"):
        ends_early = any(c in b"@:/\\?#[], %" for c in expected)
        assert ends_early or expected + b".com" in wire_hosts(label + ".com"), label


def test_every_character_against_the_library():
    for code in range(0x80, 0x110000):
        if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs") or not code % 97:
            check("a" + chr(code) + "b")


@given(MIXED)
@settings(max_examples=2000)
def test_mixtures_against_the_library(label):
    check(label)


@given(st.text(min_size=1, max_size=40))
@settings(max_examples=500)
def test_any_text_against_the_library(label):
    if not set(label) & set("@:/\\?#[],% \t\r\n.\u3002\uff0e\uff61") and label.strip() and not label.isascii():
        check("a" + label + "b")


def cut(text: str) -> bytes:
    return text.encode()[:PACKET].decode(errors="ignore").encode()


random.seed(1)
HOSTILE = {
    "umlauts in labels": cut("ü." * PACKET), "one endless label": cut("ü" * PACKET),
    "labels that just fit": cut((("\u00fc" * 28 + "\u00df\u00e4") + ".") * 40),
    "Chinese at random": cut("".join(
        chr(random.randrange(0x4E00, 0x9FA5)) + "." * (i % 15 == 0) for i in range(700))),
    "joiners": cut("a\u200d" * PACKET), "soft hyphens": cut("\u00ad" * PACKET),
    "marks in the wrong order": cut(("a" + "\u0308\u0323" * 15 + ".") * PACKET),
    "marks and marks": cut("\u0308\u0323" * PACKET), "what maps to eighteen": cut("\ufdfa." * PACKET),
    "Hangul in pieces": cut("\u1112\u1161\u11ab." * PACKET), "mixed scripts": cut("aяü中가." * PACKET),
    "Latin-1": b"\xfc" * PACKET, "no UTF-8 in many labels": b"\xff\xfe." * (PACKET // 3),
    "distinct letters that just fit": cut(("".join(chr(0x430 + i) for i in range(32)) + ".") * 40),
    "many readings": cut("ü:ü@ü,ü@" * PACKET), "a plain name of 127 labels": b"a." * 126 + b"b",
    "127 labels, all readings": b"x@" + b"a." * 125 + b"b,c:d@e:f",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_packet_of_it_costs_microseconds(shape):
    """1 to 12, twice that beside a busy neighbour; the library took 300, and the interpreter's lock."""
    rules = matcher("listed.example", "=bücher.example", "a.b", "http://a.example/b/*")
    best = min(_seconds(rules, HOSTILE[shape]) for _ in range(15))
    assert best < 60e-6, f"{best * 1e6:.1f} us"


def _seconds(rules, wire: bytes) -> float:
    start = time.thread_time()
    for _ in range(50):
        rules.look_up("tls", wire)
    return (time.thread_time() - start) / 50


@pytest.mark.parametrize("shape", HOSTILE)
def test_cost_is_linear(shape):
    rules = matcher("listed.example", "=bücher.example")
    part = HOSTILE[shape][:len(HOSTILE[shape]) // 4]
    once, whole = (min(_seconds(rules, wire) for _ in range(15)) for wire in (part, HOSTILE[shape]))
    assert whole < 8 * once + 5e-6


def test_no_look_up_needs_the_interpreter():
    """What a look-up calls says `nogil`, so that Cython refuses Python in it, and nothing takes the lock again."""
    folder = Path(edgeblock.__file__).with_name("blocklist")
    for name in ("canonical", "international", "matcher", "bitmap", "fingerprint"):
        text = (folder / f"{name}.pyx").read_text()
        assert "with gil" not in text
    assert "import idna" not in (folder / "canonical.pyx").read_text()
