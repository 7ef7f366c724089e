"""The pictures of the README, made of what there is: the demo as it runs, and the block page in a browser.

    sudo .venv/bin/python packaging/pictures.py [FOLDER]        docs/pictures where none is given

In: root, the lab's programs and Chromium. Out: demo.svg and block-page.png. Each can be told to be old
(tests/packaging/test_pictures.py): the demo's lines stand in its picture, the page's picture says what page it is of.
"""

import argparse
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from edgeblock.commands import demo
from edgeblock.config import Reply
from edgeblock.enforce import page

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
PAGE = Reply(provider="Example Networks", contact="abuse@example.net")
CODE = b"7K3MQ-2XD9T"           # as a reference looks
WIDTH, HEIGHT = 900, 770        # pixels of the browser's window
COLUMNS = 92
SHADES = 32                     # of text on two grounds; the file is a quarter as long as with all
# rich's own frame asks a server for a font; a picture asks nobody.
FRAME = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "font-family: Fira Code, monospace", "font-family: monospace")


def block_page() -> bytes:
    return page.make(page.load(PAGE), "en").with_reference(CODE)


def draw_demo(folder: Path) -> None:
    """The demo's table as a terminal shows it, without the counters behind it."""
    console = Console(file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True, color_system="truecolor",
                      force_interactive=False)
    demo.print_counters = lambda *_: None
    if demo.run(console):
        sys.exit("packaging/pictures.py: the demo does not show what it should; no picture of that")
    (folder / "demo.svg").write_text(console.export_svg(title="edgeblock demo", theme=MONOKAI, code_format=FRAME,
                                                        unique_id="demo"))


def draw_page(folder: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("packaging/pictures.py: no browser: apt install chromium")
    with tempfile.TemporaryDirectory(prefix="edgeblock-pictures-") as home:
        shown, made = Path(home, "page.html"), Path(home, "page.png")
        shown.write_bytes(block_page())
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--user-data-dir={home}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={made}",
                        shown.as_uri()], check=True, capture_output=True, timeout=120)
        told = PngInfo()
        told.add_text("Source", hashlib.sha256(block_page()).hexdigest())
        Image.open(made).convert("RGB").quantize(SHADES).save(folder / "block-page.png", optimize=True, pnginfo=told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The pictures of the README.")
    parser.add_argument("folder", nargs="?", type=Path, default=PICTURES)
    place = parser.parse_args().folder
    place.mkdir(parents=True, exist_ok=True)
    draw_page(place)
    draw_demo(place)
