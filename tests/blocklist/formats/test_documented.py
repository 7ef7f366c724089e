"""Each row of the tables in docs/formats.md, by the readers."""

import io
import re
from pathlib import Path

import pytest

from edgeblock.blocklist.formats import READERS, Entry, Passed, Problem, plain_reader_of, reader_of
from edgeblock.blocklist.formats.told import foreign
from edgeblock.blocklist.lint import line_of
from edgeblock.blocklist.settings import ListSettings

DOCS = Path(__file__).parents[3] / "docs" / "formats.md"


def rows(columns):
    made = []
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == columns and cells[0].startswith("`"):
            made.append(cells)
    return made


def plain(cell):
    return cell[1:-1].replace(" ⏎ ", "\n").encode()


LINES, FILES = rows(4), rows(2)


def test_the_tables_are_there_and_show_every_format():
    assert {cells[0].strip("`") for cells in LINES} == set(READERS) - {"urls", "hashed"}
    assert len(LINES) > 110 and len(FILES) > 20


@pytest.mark.parametrize(("name", "line", "becomes", "source"), LINES)
def test_what_becomes_of_a_line(name, line, becomes, source):
    items = list(plain_reader_of(name.strip("`"), ListSettings())(io.BytesIO(plain(line))))
    told = [item for item in items if isinstance(item, Entry | Passed | Problem)]
    wanted = [] if becomes == "nothing" else becomes.split(" · ")
    assert len(told) == len(wanted) and source
    for item, one in zip(told, wanted, strict=True):
        if isinstance(item, Entry):
            assert one == f"`{line_of(item)}`"
        elif isinstance(item, Passed):
            assert one == f"passed over{', as an exception' if item.exception else ''}: {item.why}"
        else:
            assert one.startswith("refused: ") and item.why.endswith(one.removeprefix("refused: "))


@pytest.mark.parametrize(("begins", "said"), FILES)
def test_what_a_file_is_told_as(begins, said):
    data = plain(begins)
    assert said in foreign(data, "urls")
    problems = list(reader_of("urls", ListSettings())(io.BytesIO(data)))
    assert all(isinstance(item, Problem) for item in problems) and problems[-1].whole
