"""What a blocked client is told over HTTP: by the list that blocks, in its language, with nothing of the client."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.blocklist.pages import size_with
from edgeblock.blocklist.parts import ListRecord
from edgeblock.config import Reply
from edgeblock.enforce import page
from edgeblock.enforce.answers import MADE_MAX, Answers
from edgeblock.enforce.reference import day_of, read_code
from edgeblock.errors import ConfigError

NOW = 1_796_083_200.0
RULE = "9f3c21aa"
COURT = {"pages": {"en": "<p>$reason: $contact, $provider ($reference)", "de": "<p>Gericht ($reference)"},
         "reason": {"en": "By order"}, "contact": "court@isp.example", "status": 403}


def answers(reply=None, **notices):
    made = Answers(reply or Reply())
    made.renew([ListRecord(name, "page", notice=notice) for name, notice in notices.items()])
    return made


def asked(made, name="court", language="", action="page", more=b""):
    request = b"GET / HTTP/1.1\r\nHost: a.example\r\n" + (
        f"Accept-Language: {language}\r\n".encode() if language else b"") + more + b"\r\n"
    head, body = made.find(name, action, request, RULE, NOW)
    status, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines) and fields["Content-Length"] == str(len(body))
    assert fields["Cache-Control"] == "no-store" and fields["Referrer-Policy"] == "no-referrer"
    assert read_code(fields["Block-Reference"], day_of(NOW)) == (RULE, day_of(NOW))
    return status, fields, body.decode()


def test_two_lists_two_pages():
    made = answers(court=COURT, abuse={"reason": {"de": "Missbrauch", "en": "Abuse"}})
    code = asked(made)[1]["Block-Reference"]
    status, fields, body = asked(made, language="fr")
    assert status == "HTTP/1.1 403 Forbidden" and fields["Content-Language"] == "en"
    assert body == f"<p>By order: court@isp.example,  ({code})"
    assert asked(made, language="de-AT, en;q=0.5")[2] == f"<p>Gericht ({code})"
    status, fields, body = asked(made, "abuse", "de")
    assert status == "HTTP/1.1 451 Unavailable For Legal Reasons" and fields["Content-Language"] == "de"
    assert "Missbrauch" in body and page.texts()["de"]["title"] in body and f">{code}<" in body
    for name in ("else", None):
        status, fields, body = asked(made, name, "ar")
        assert page.texts()["ar"]["reason"] in body and fields["Content-Language"] == "ar"
        assert fields["Vary"] == "Accept-Language" and '<html lang="ar" dir="rtl">' in body


def test_new_rules_drop_what_the_old_ones_told():
    made = answers(court=COURT)
    assert "By order" in asked(made)[2]
    made.renew([ListRecord("court", "page", notice={"reason": {"en": "On appeal"}})])
    assert "On appeal" in asked(made)[2]
    made.renew([ListRecord("court", "page")])
    assert page.texts()["en"]["reason"] in asked(made)[2]


def test_the_default_language_is_the_operators():
    made = answers(Reply(language="es"))
    assert asked(made)[1]["Content-Language"] == "es" and asked(made, language="en")[1]["Content-Language"] == "en"


def test_who_blocks_is_said_with_451_alone():
    link = '<https://isp.example/blocks>; rel="blocked-by"'
    for reply in (Reply(blocked_by="https://isp.example/blocks"), Reply(provider="https://isp.example/blocks"),
                  Reply(blocked_by="https://isp.example/blocks", provider="https://other.example/")):
        made = answers(reply, court=COURT)
        assert asked(made, "else")[1]["Link"] == link and "Link" not in asked(made)[1]
    assert "Link" not in asked(answers(Reply(provider="Example Net")), "else")[1]


def test_a_redirect_of_a_list_and_of_the_operator():
    made = answers(court={"redirect": "https://isp.example/court?r=$reference"})
    status, fields, body = asked(made, action="redirect")
    code = fields["Block-Reference"]
    assert status == "HTTP/1.1 302 Found" and fields["Location"] == f"https://isp.example/court?r={code}"
    assert f'href="https://isp.example/court?r={code}"' in body
    assert made.redirects("court") and not made.redirects("else") and not made.redirects(None)
    assert asked(made, "else", action="redirect")[0].startswith("HTTP/1.1 451")
    made = answers(Reply(redirect="https://isp.example/all"), court={"redirect": "https://isp.example/court"})
    assert asked(made, "else", action="redirect")[1]["Location"] == "https://isp.example/all" and made.redirects(None)
    assert asked(made, action="page")[0].startswith("HTTP/1.1 451")


def test_what_a_list_says_ends_no_header_line():
    evil = {"status": 302, "redirect": "https://x/\r\nSet-Cookie: a=b",
            "pages": {"de\r\nSet-Cookie: a=b": "<p>x", "": "<p>$reference"}, "contact": "\r\nX: y"}
    made = answers(court=evil)
    assert not made.redirects("court")
    status, fields, body = asked(made, action="redirect", language="de")
    assert status.startswith("HTTP/1.1 451") and "Set-Cookie" not in fields and "Content-Language" not in fields
    assert body == f"<p>{fields['Block-Reference']}"


def test_a_page_of_a_list_runs_no_script_and_the_operators_may():
    policy = "Content-Security-Policy"
    made = answers(court=COURT, abuse={"reason": {"": "x"}})
    assert asked(made)[1][policy].startswith("sandbox ") and "allow-scripts" not in asked(made)[1][policy]
    assert "allow-same-origin" not in asked(made)[1][policy]
    assert asked(made, "abuse")[1][policy] == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_operators_page_with_the_words_of_a_list(tmp_path):
    (tmp_path / "own.html").write_text("<p>$reason ($contact) $reference")
    made = answers(Reply(page=tmp_path / "own.html", contact="a@isp.example"), abuse={"reason": {"": "Abuse <3"}})
    _, fields, body = asked(made, "abuse")
    assert body == f"<p>Abuse &lt;3 (a@isp.example) {fields['Block-Reference']}"
    assert "Content-Security-Policy" not in fields and "Content-Language" not in fields


def test_by_whose_order_is_told_where_a_page_asks_for_it():
    order = {"order": "14 O 12/26 <", "authority": "Landgericht Köln", "approved_by": "Nobody's business",
             "reference": "other", "status": "500", "redirect": "no"}
    made = Answers(Reply())
    made.renew([ListRecord("court", "page", order=order, notice={"pages": {"": "$authority: $order ($reference)"}}),
                ListRecord("else", "page", order=order)])
    status, fields, body = asked(made)
    assert body == f"Landgericht Köln: 14 O 12/26 &lt; ({fields['Block-Reference']})" and " 451 " in status
    assert "Köln" not in asked(made, "else")[2] and "business" not in asked(made, "else")[2]
    assert not made.redirects("else")


def test_no_answer_is_longer_than_a_page_may_be():
    reason = "&" * 1000
    made = answers(court={"pages": {"": "$reason" * 40}, "reason": {"": reason}})
    _, _, body = asked(made)
    assert len(body) <= page.MAX_PAGE and page.texts()["en"]["title"] in body      # the one that ships, instead
    with pytest.raises(ConfigError, match="reply: the page is longer than 32 kB"):
        Answers(Reply(help=(("&" * 10_000, "1"),)))


@pytest.mark.parametrize("gap", ["$reason", "$contact", "$order", "$reference"])
def test_what_would_be_too_long_is_not_built(monkeypatch, gap):
    def fail(*_):
        raise AssertionError("built")

    made = answers(court={"pages": {"": gap * (page.MAX_PAGE // len(gap))}, "reason": {"": "&" * 9},
                          "contact": "&" * 9, "order": "&" * 9})
    made.notices["court"]["order"] = "&" * 9
    monkeypatch.setattr(page, "filled", fail)
    assert page.texts()["en"]["title"] in asked(made)[2]


def test_a_page_is_as_long_as_was_reckoned():
    body = "<p>ä$reason $reasons $contact$order $authority$provider $else $reference$reference"
    notice = {"pages": {"": body}, "reason": {"": "ö&"}, "contact": "<a@b>"}
    made = answers(Reply(provider="é"), court=notice)
    _, fields, told = asked(made)
    code = fields["Block-Reference"]
    assert told == f"<p>äö&amp; $reasons &lt;a@b&gt; é $else {code}{code}"
    values = {"reason": "ö&", "contact": "<a@b>", "provider": "é", "order": "", "authority": ""}
    assert size_with(body, values) + 2 * (len(code) - len("$reference")) == len(told.encode())


def test_a_page_is_made_once_for_a_list_and_a_language():
    names = [f"l{number}" for number in range(2 * MADE_MAX)]
    made = answers(**{name: {"reason": {"": name}} for name in names})
    for language in ("de", "de-AT", "de;q=0.3", "en, de;q=0.1") * 3:
        asked(made, "l0", language)
    assert made._made.cache_info()[:2] == (10, 2)
    for name in names:
        assert name in asked(made, name)[2]
    assert made._made.cache_info().currsize == MADE_MAX
    for _ in range(10):
        asked(made, None), asked(made, "of another")
    assert made._made.cache_info().misses == 2 + len(names)


@given(st.binary(max_size=60), st.sampled_from(["court", "abuse", None]), st.sampled_from(["page", "redirect"]))
def test_nothing_of_a_client_is_in_an_answer(evil, name, action):
    plain = MADE.find(name, action, b"", RULE, NOW)
    ways = {MADE.find(name, action, b"\r\nAccept-Language: " + one + b"\r\n\r\n", RULE, NOW)
            for one in (b"en", b"de", b"fr", b"es", b"ar")} | {plain}
    assert MADE.find(name, action, evil, RULE, NOW) == plain
    assert MADE.find(name, action, b"\r\nAccept-Language: " + evil + b"\r\n\r\n", RULE, NOW) in ways


MADE = answers(court=COURT, abuse={"reason": {"de": "Missbrauch"}, "redirect": "https://isp.example/"})


def test_lines_of_a_head_are_all_there_is_of_it():
    for name in ("court", "abuse", None):
        for action in ("page", "redirect"):
            head, _ = MADE.find(name, action, b"", RULE, NOW)
            assert re.fullmatch(rb"HTTP/1\.1 \d{3} [\w ]+\r\n(?:[A-Za-z-]+: [ -~]+\r\n)+\r\n", head)
