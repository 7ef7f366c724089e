"""What a newcomer reads and types first: the hooks are parts of `make lint`, the pages name what there is."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def test_the_hooks_are_the_parts_of_make_lint():
    [line] = re.findall(r"^lint:([^#\n]*)", MAKEFILE, re.MULTILINE)
    hooks = re.findall(r"^ +entry: make (\S+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert hooks == line.split()


def test_contributing_names_targets_and_files_that_exist():
    targets = set(re.findall(r"\bmake ([a-z-]+)", CONTRIBUTING))
    assert targets >= {"build", "test", "lint", "fuzz", "matrix"}
    assert targets <= set(re.findall(r"^([a-z-]+)(?: [a-z -]+)?:", MAKEFILE, re.MULTILINE))
    named = re.findall(r"`((?:edgeblock|tests|docs|rules|benchmarks|packaging|\.ci)/[^`*<> ]*)`", CONTRIBUTING)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_changelog_has_the_version_and_plain_dates():
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", CHANGELOG, re.MULTILINE)
    assert settings["metadata"]["version"] in [version for version, _ in headings]
    assert all(re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", date) for _, date in headings)
    assert {kind for kind in re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)} <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_decision_takes_five_lines_at_most():
    paragraphs = (ROOT / "docs" / "decisions.md").read_text().split("\n\n")
    entries = [text for text in paragraphs if not text.startswith("#")][1:]
    assert len(entries) > 60
    for text in entries:
        lines = text.strip("\n").split("\n")
        assert text.startswith("**") and len(lines) <= 5 and max(map(len, lines)) <= 118, lines[0]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path):
    """Each row is one line with as many cells as its heading."""
    broken, cells = [], None
    for number, line in enumerate(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL).split("\n"), 1):
        if cells is None and line.startswith("| "):
            cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        elif cells is not None and line.startswith("|"):
            if len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) != cells:
                broken.append(f"{number}: {line[:60]}")
        elif cells is not None:
            if line and not line.startswith("<!--"):
                broken.append(f"{number}: {line[:60]}")
            cells = None
    assert broken == []
