"""The house rules that a machine can check: in: the text of every source file; out: file:line of each breach."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("edgeblock", "tests", "benchmarks", "docs", "rules", "systemd", ".ci")
CODE = (".py", ".pyx", ".pxd")
BUILT = re.compile(r"__pycache__|\.egg-info|\.c$|\.so$|^edgeblock/.*\.html\.c$")
LONGEST = 118

# What no line of code may hold, and where it may all the same. Spelt in pieces, so that this file passes itself.
FORBIDDEN = {
    "unfinished work": (rf"\b(TO{''}DO|FIX{''}ME|XX{''}X)\b|for n{''}ow\b(?! in)", ()),
    "a path of one machine": (rf"[\"'= (]/(t{''}mp|wo{''}rk|ho{''}me)/", ()),
    "a catch-all": (rf"except( Exc{''}eption| Base{''}Exception)?( as \w+)?:\s*$",
                    ("edgeblock/source/", "edgeblock/lab.py")),
    "waiting by the clock": (rf"\btime\.sl{''}eep\(", ()),
    "a test that is not run": (rf"pytest\.(mark\.)?(sk{''}ip|xf{''}ail)|unittest\.sk{''}ip", ("tests/conftest.py",)),
}


def files(*suffixes: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file() and not BUILT.search(path.relative_to(ROOT).as_posix()):
                yield path


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_no_line_holds(rule: str):
    pattern, allowed = FORBIDDEN[rule]
    assert [f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in files(*CODE) if not path.relative_to(ROOT).as_posix().startswith(tuple(allowed) or ("\0",))
            for number, line in enumerate(path.read_text().splitlines(), 1) if re.search(pattern, line)] == []


def test_lines_are_short_enough():
    assert [f"{path.relative_to(ROOT)}:{number}" for path in files(*CODE)
            for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > LONGEST] == []


def test_every_file_says_first_what_it_is():
    def silent(text: str) -> bool:
        return bool(text.strip()) and not re.match(r'(#!.*\n)?(r?"""\S|# ?\S|\n)', text)

    assert [path.relative_to(ROOT).as_posix() for path in files(*CODE) if silent(path.read_text())] == []
