"""The pictures of the README are of what there is now. When one is not: sudo make pictures."""

import hashlib
import html
import re
from pathlib import Path

from edgeblock.commands import demo
from edgeblock.config import Reply
from edgeblock.enforce import page

ROOT = Path(__file__).parent.parent.parent
PICTURES = ROOT / "docs" / "pictures"
LATER = "sudo make pictures"


def text_of(svg: str) -> str:
    """What the picture of a terminal says, line after line, without blanks: words may be drawn one by one."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for x, y, words in re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        rows.setdefault(float(y), []).append((float(x), html.unescape(words)))
    said = ("".join(words for _, words in sorted(row)) for _, row in sorted(rows.items()))
    return re.sub(r"\s", "", "".join(said))


def test_the_picture_of_the_demo_has_its_lines_in_their_order():
    svg = (PICTURES / "demo.svg").read_text()
    frame = re.sub(r"<!--.*?-->|<text .*?</text>|xmlns=\S+", "", svg, flags=re.DOTALL)
    assert "http" not in frame      # it asks nobody
    said, at = text_of(svg), 0
    for line in demo.LINES * 2:
        for words in (line.what, line.expected, line.url):
            found = said.find(words.replace(" ", ""), at)
            assert found >= 0, f"{words}: {LATER}"
            at = found if words == line.url else at
    assert said.endswith("Everylineisasexpected."), LATER
    assert all(text.splitlines()[-1].replace(" ", "") in said for text in demo.LISTS.values()), LATER


def test_the_picture_of_the_block_page_is_of_the_page_that_ships():
    source = (ROOT / "packaging" / "pictures.py").read_text()
    [settings] = re.findall(r"^PAGE = (Reply\(.*\))$", source, re.MULTILINE)
    [code] = re.findall(r'^CODE = b"(.*?)"', source, re.MULTILINE)
    made = page.make(page.load(eval(settings, {"Reply": Reply})), "en").with_reference(code.encode())
    shown = hashlib.sha256(made).hexdigest()
    assert b"tEXtSource\0" + shown.encode() in (PICTURES / "block-page.png").read_bytes(), LATER


def test_pictures_are_small():
    assert sum(path.stat().st_size for path in PICTURES.iterdir()) < 200_000
