"""Accept-Language: what a client would rather read, whatever it sends."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.enforce.languages import choose, ranges_in

THERE = ["en", "de", "fr", "es", "ar", "pt-BR"]


def chosen(value, there=THERE):
    return choose(ranges_in(b"GET / HTTP/1.1\r\nHost: a.example\r\nAccept-Language: " + value + b"\r\n\r\n"), there)


@pytest.mark.parametrize(("value", "language"), [
    (b"de", "de"),
    (b"DE-at", "de"),
    (b"de-Latn-AT-1996,en;q=0.5", "de"),
    (b"en-GB,en;q=0.9,de;q=0.8", "en"),                        # Chromium
    (b"fr;q=0.3, es ; q = 0.7 , nl", "es"),
    (b"nl, fr;q=0.1", "fr"),
    (b"ar-EG, *;q=0.1", "ar"),
    (b"pt", "pt-BR"), (b"pt-br", "pt-BR"), (b"pt-PT", "en"),
    (b"*", "en"), (b"*, en;q=0.1", "de"), (b"en;q=0, *", "de"), (b"nl, *;q=0", "en"),
    (b"en;q=0", "de"), (b"en;q=0.000, de;q=0", "fr"),
    (b"de;q=0, de-AT", "en"),
    (b"", "en"), (b",,,", "en"), (b"de;q=2, fr;q=0.5", "fr"), (b"de;q=0.1234, fr;q=0.1", "fr"), (b"d" * 9, "en"),
    (b"de;q=nan", "en"), (b"de_AT, es", "es"), (b"\xff, es", "es"), (b"<script>, es", "es"),
    (b"fr" + b" " * 990 + b", de", "fr"),                      # what is cut off is not looked at
    (b"x," * 31 + b"de", "de"), (b"x," * 32 + b"de", "en"),
])
def test_the_choice(value, language):
    assert chosen(value) == language


def test_the_first_is_the_default():
    assert chosen(b"nl", ["fr", "en"]) == "fr" and chosen(b"de", [""]) == "" and chosen(b"de;q=0", ["de"]) == "de"
    assert choose(ranges_in(b""), ["", "de"]) == "" and chosen(b"de", ["", "de"]) == "de"


@pytest.mark.parametrize(("request_", "language"), [
    (b"GET / HTTP/1.1\naccept-LANGUAGE:de\n", "de"),
    (b"GET / HTTP/1.1\r\nAccept-Language : de\r\n", "de"),
    (b"GET / HTTP/1.1\r\nAccept-Language: de", "de"),          # the rest comes in another packet
    (b"GET / HTTP/1.1\r\nX-Accept-Language: de\r\n", "en"),
    (b"GET /?Accept-Language: de HTTP/1.1\r\n", "en"),
    (b"\n" * 8192 + b"Accept-Language: de\r\n", "en"),
    (b"ge: de\r\n\r\n", "en"),
])
def test_where_it_is_found(request_, language):
    assert choose(ranges_in(request_), THERE) == language


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_in_a_language_that_there_is(value):
    assert chosen(value) in THERE


def test_it_takes_no_longer_for_the_worst():
    began = time.process_time()
    for worst in (b"\n" * 65_000, b"\naccept-language" * 4_000, b"\naccept-language:" + b"a-" * 30_000,
                  b"\naccept-language:" + b"de;q=" * 12_000, b"\naccept-language:" + b" " * 60_000):
        for _ in range(100):
            choose(ranges_in(worst), THERE)
    assert time.process_time() - began < 1
