"""The report in Chromium and Firefox, light and dark, wide and on a phone, and on paper: axe-core finds nothing."""

import subprocess

import pytest
from browser import CHROMIUM
from browser_audit import PHONE, audit

from edgeblock.cli import main
from tests.report.making import TODAY, count, make, rule_of, write_down

BROWSERS = pytest.mark.parametrize("browser", [
    pytest.param("chromium", marks=pytest.mark.chromium), pytest.param("firefox", marks=pytest.mark.firefox)])
SHEETS = {False: "rgb(255, 255, 255)", True: "rgb(27, 33, 42)"}


@pytest.fixture
def pages(tmp_path):
    """The report with everything that it can show, an empty one, and the views."""
    home = tmp_path / "box"
    make(home)
    for back in range(40):
        count(home, TODAY - back, {
            ("court", "No. 12/2026", "tls", "reset"): (9 * back, 3 * back),
            ("court", "other", "http", "page"): (2, 1), ("watch", "", "tls", "observe"): (3, 3),
            ("court", "", "tls", "accept"): (7, 6),
            ("", "no_sni", "tls", "drop"): (5, 5), ("a-list-with-a-long-name" * 6, "", "quic", "reset"): (1, 1)},
            rules=(("court", rule_of(home, "listed.example")),), clean=back != 7)
    write_down(home, TODAY - 3)
    made = []
    for words in ([], ["--list", "watch"], ["--view", "dsa"], ["--view", "iwf"]):
        file = tmp_path / "page.html"
        assert main(["report", "--state", str(home / "state"), "--output", str(file), *words]) == 0
        made.append(file.read_bytes())
    return made


@BROWSERS
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_read_it(browser, dark, pages, tmp_path):
    found = audit(browser, pages, tmp_path / "home", dark)
    assert len(found) == 2 * len(pages)
    for number, seen in enumerate(found):
        assert seen["violations"] == [] and seen["passes"] > 10, seen
        assert (seen["dark"], seen["colour"], seen["lang"]) == (dark, SHEETS[dark], "en")
        assert seen["wide"] <= seen["room"] and (seen["room"] == PHONE) == number % 2, seen     # nothing is cut off


@pytest.mark.chromium
def test_it_prints(pages, tmp_path):
    (tmp_path / "page.html").write_bytes(pages[0])
    out = tmp_path / "page.pdf"
    subprocess.run([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/home",
                    "--no-pdf-header-footer", f"--print-to-pdf={out}", (tmp_path / "page.html").as_uri()],
                   check=True, capture_output=True, timeout=60)
    printed = out.read_bytes()
    sheets = printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page/")
    assert printed.startswith(b"%PDF") and 2 <= sheets <= 8
