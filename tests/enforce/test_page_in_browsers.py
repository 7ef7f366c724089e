"""The block pages in Chromium and Firefox, light and dark, wide and on a phone: axe-core finds nothing."""

import pytest
from browser_audit import PHONE, Visit, audit, visit

from edgeblock.blocklist.parts import ListRecord
from edgeblock.config import SHIPPED_LANGUAGES, Reply
from edgeblock.enforce import page
from edgeblock.enforce.answers import Answers

BROWSERS = pytest.mark.parametrize("browser", [
    pytest.param("chromium", marks=pytest.mark.chromium), pytest.param("firefox", marks=pytest.mark.firefox)])
SHEETS = {False: "rgb(255, 255, 255)", True: "rgb(27, 33, 42)"}


def pages():
    """The page that ships in each language, and that of a list with its reason in another."""
    plain = page.load(Reply(provider="Example Networks", contact="abuse@example.net"))
    court = plain.over({"reason": {"de": "Das Gericht hat die Sperrung angeordnet."},
                        "contact": "https://isp.example/" + "appeal/" * 20})
    for words in (plain, court):
        for language in SHIPPED_LANGUAGES:
            yield language, page.make(words, language).with_reference(b"7K3MQ-2XD9T")


@BROWSERS
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_read_it(browser, dark, tmp_path):
    asked = list(pages())
    found = audit(browser, [body for _, body in asked], tmp_path / "home", dark)
    assert len(found) == 2 * len(asked)
    for number, seen in enumerate(found):
        language = asked[number // 2][0]
        assert seen["violations"] == [] and seen["passes"] > 10, (language, seen)
        assert (seen["dark"], seen["colour"]) == (dark, SHEETS[dark])
        assert (seen["lang"], seen["direction"]) == (language, "rtl" if language == "ar" else "ltr")
        assert seen["wide"] <= seen["room"] and (seen["room"] == PHONE) == number % 2, seen     # nothing is cut off


@BROWSERS
def test_axe_would_have_said_so(browser, tmp_path):
    bad = b"<!doctype html><html><body><main><img src=x><p style='color:#999;background:#fff'>Pale</p></main></body>"
    seen = audit(browser, [bad], tmp_path / "home", False)[0]
    assert {one.partition(":")[0] for one in seen["violations"]} >= {"document-title", "html-has-lang", "image-alt",
                                                                     "color-contrast"}


RUNS = """<html lang=en><title>t</title><p onclick=ask('/ran')>$reference
<script>function ask(path) { new Image().src = path }
ask('/ran?' + document.cookie)</script><img alt='' src=data:image/gif;base64,R0lGODlhAQABAAAAACw= onload=ask('/ran')>
<link rel=stylesheet href=/seen>"""


@BROWSERS
@pytest.mark.parametrize("whose", ["operator", "list"])
def test_the_page_of_a_list_runs_no_script(browser, whose, tmp_path):
    (tmp_path / "own.html").write_text(RUNS)
    made = Answers(Reply(page=tmp_path / "own.html"))
    if whose == "list":
        made.renew([ListRecord("court", "page", notice={"pages": {"": RUNS}})])
    answer = b"".join(made.find("court", "page", b"", "9f3c21aa", 1.8e9))
    asked = visit(browser, answer, tmp_path / "home", until=("/late",) if whose == "list" else ("/late", "/ran"))
    assert Visit("/", "") in asked
    assert any(one.path == "/ran" for one in asked) == (whose == "operator")
    assert all(one.referrer == "" for one in asked if one.path != "/late")      # whose referrer is the style's matter
