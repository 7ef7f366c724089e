"""The words of docs/glossary.md: pages avoid those it forbids, and the code has the names that it translates.

In: the glossary's tables, README.md, the pages under docs/, the sources. Out: each forbidden phrase, its line,
each name that no source has.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md",
         *sorted((ROOT / "docs").glob("*.md"))]


def rows(heading: str) -> list[list[str]]:
    section = GLOSSARY.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


PHRASES = [phrase.strip() for row in rows("Words that documentation does not use") for phrase in row[0].split(",")]


def breaches(text: str) -> list[str]:
    """The phrases in a text, wherever its lines end, with their lines; what is quoted as code or by a rule counts."""
    found = []
    for phrase in PHRASES:
        pattern = r"\b" + r"\s+".join(map(re.escape, phrase.split())) + r"\b"
        found += [f"{text.count(chr(10), 0, match.start()) + 1}: {phrase}"
                  for match in re.finditer(pattern, text, re.IGNORECASE)]
    return found


def test_the_forbidden_words_are_found():
    assert len(PHRASES) > 10
    assert breaches("a\nit is to be\nhad, and he Mends it") == ["2: to be had", "3: mends"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_none_of_them(page: Path):
    text = page.read_text()
    if page == GLOSSARY:
        text = text.split("## Words that documentation does not use")[0].replace('comments say "let by"', "")
    assert breaches(text) == []


def test_the_code_has_the_names():
    """Outside of comments: a name that is changed in the code has to be changed in the glossary."""
    texts = [path.read_text() for folder in ("edgeblock", "tests") for path in (ROOT / folder).rglob("*")
             if path.suffix in (".py", ".pyx", ".pxd", ".h", ".toml") or path.name == "program.c"]
    sources = "\n".join(re.sub(r"#[^\n]*", "", re.sub(r'"{3}.*?"{3}', "", text, flags=re.DOTALL)) for text in texts)
    names = [name for heading in ("Words", "Names that mean several things") for row in rows(heading)
             for name in re.findall(r"`([^`]+)`", row[2])]
    assert len(names) > 60
    assert [name for name in names if not re.search(rf"\b{re.escape(name.split('.')[-1])}\b", sources)] == []


def test_each_word_stands_once():
    words = [word.strip() for row in rows("Words") for word in row[0].split(",")]
    assert len(words) > 30 and len(words) == len(set(words))
    assert all(len(row) == 3 and all(row) for row in rows("Words"))
