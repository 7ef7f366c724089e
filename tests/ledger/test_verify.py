"""A ledger that somebody has changed: every change is found, and where. In: a ledger, a change. Out: what verify
says."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.errors import SystemProblem
from edgeblock.ledger.book import Book
from edgeblock.ledger.heads import parse_signed, read_key
from edgeblock.ledger.segments import segments
from edgeblock.ledger.verify import heads_in, kept_heads, public_keys, verify
from tests.ledger.books import DAYS, PER_DAY, fill, moment_of


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Three days of records, the last still open, and the heads as they were when each day was over."""
    place = tmp_path_factory.mktemp("ledger")
    fill(place / "ledger")
    return place / "ledger"


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    return tmp_path / "copy"


def problems(directory: Path, kept=()) -> list[str]:
    keys, _ = public_keys(directory, ())
    return verify(directory, keys, kept).problems


def files(directory: Path, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"*.{suffix}"))


def test_what_is_as_it_was_written_holds(written):
    keys, said = public_keys(written, ())
    made = verify(written, keys, kept_heads([written]))
    assert made.problems == [] and made.records == DAYS * PER_DAY + 1 and made.segments == DAYS and made.heads == DAYS
    assert "--public" in said


def change(directory: Path, day: int, at: int, how) -> int:
    """`how` is given the lines of a day; the first seq of that day."""
    path = files(directory, "records")[day]
    found = path.read_bytes().splitlines(keepends=True)
    how(found, at % len(found))
    path.write_bytes(b"".join(found))
    return 1 if day == 0 else 2 + PER_DAY * day


places = given(day=st.integers(0, DAYS - 1), at=st.integers(0, 10_000), bit=st.integers(0, 7),
               byte=st.integers(0, 10_000))


def tried(written, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("tried") / "copy"
    shutil.copytree(written, place)
    return place


@places
def test_a_flipped_bit_is_found_and_located(written, tmp_path_factory, day, at, bit, byte):
    directory = tried(written, tmp_path_factory)
    line = []

    def flip(found, index):
        one = bytearray(found[index])
        one[byte % (len(one) - 1)] ^= 1 << bit
        found[index] = bytes(one)
        line.append(index)

    first = change(directory, day, at, flip)
    said = problems(directory)
    where = files(directory, "records")[day].name.removesuffix(".records")
    assert any(where in one and re.search(rf"record {first + line[0]}\b|line {line[0] + 1}\b|records {first} to", one)
               for one in said), said


@places
def test_a_removed_record_is_found_and_located(written, tmp_path_factory, day, at, bit, byte):
    directory = tried(written, tmp_path_factory)
    gone = []

    def remove(found, index):
        gone.append((index, len(found)))
        del found[index]

    first = change(directory, day, at, remove)
    index, count = gone[0]
    said = problems(directory)
    wanted = "the end was cut off" if index == count - 1 else rf"record {first + index} was removed"
    if index == 0 and day > 0:
        wanted = rf"record {first} was removed"
    assert any(re.search(wanted, one) for one in said), (index, said)


@places
def test_two_records_in_each_others_place_are_found_and_located(written, tmp_path_factory, day, at, bit, byte):
    directory = tried(written, tmp_path_factory)
    line = []

    def swap(found, index):
        index = min(index, len(found) - 2)
        found[index:index + 2] = reversed(found[index:index + 2])
        line.append(index)

    first = change(directory, day, at, swap)
    said = problems(directory)
    assert any(f"record {first + line[0] + 1} (line {line[0] + 1}): is out of its order" in one for one in said), said


@places
def test_a_cut_end_is_found_and_located(written, tmp_path_factory, day, at, bit, byte):
    directory = tried(written, tmp_path_factory)
    path = files(directory, "records")[day]
    data = path.read_bytes()
    path.write_bytes(data[:byte * 7 % len(data)])
    assert any(path.stem in one and "cut off" in one for one in problems(directory)), problems(directory)


def test_a_head_that_was_altered_is_found(copy):
    for path in files(copy, "head"):
        text = path.read_bytes()
        for at in (3, len(text) // 3, text.index(b"RUQ") + 30 if b"RUQ" in text else len(text) // 2, len(text) - 5):
            path.write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1:])
            assert any(path.stem in one and "head" in one for one in problems(copy)), (path, at)
        path.write_bytes(text)
    assert problems(copy) == []


def test_what_is_missing_is_found(copy):
    records, heads = files(copy, "records"), files(copy, "head")
    for path in records[1:]:
        kept = path.read_bytes()
        path.unlink()
        assert any(path.stem in one and "missing" in one for one in problems(copy)), path
        path.write_bytes(kept)
    records[1].unlink()
    heads[1].unlink()
    assert problems(copy) == ["segment 2 is missing"]


def test_the_newest_head_is_missed_by_who_has_it_alone(copy, written):
    head, records = files(copy, "head")[-1], files(copy, "records")[-1]
    head.unlink()
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:3]))
    keys, _ = public_keys(copy, ())
    made = verify(copy, keys)
    assert made.problems == [] and [note for note in made.notes if records.stem in note and "has no head" in note]
    assert verify(written, keys).notes == []
    [said] = problems(copy, kept_heads([written]))
    assert "says that there are 12 records, and there are 3" in said


def test_last_week_s_ledger_is_found_by_a_head_that_was_kept(written, tmp_path):
    """Root can put back last week's disk, which is whole: only who has a later head can tell."""
    old = tmp_path / "old"
    fill(old, days=2)
    shutil.rmtree(old / "key", ignore_errors=True)
    kept = kept_heads([written])
    for left in (*files(written, "records")[2:], *files(written, "head")[2:]):
        assert left.exists()
    directory = tmp_path / "restored"
    shutil.copytree(written, directory)
    files(directory, "records")[2].unlink()
    files(directory, "head")[2].unlink()
    assert problems(directory) == []                   # nothing on the box says so
    [said] = problems(directory, kept)
    assert said.startswith("segment 3 of ") and "is not there" in said


def test_a_ledger_written_anew_with_the_box_s_own_key_is_found_by_a_head_that_was_kept(written, tmp_path):
    kept = kept_heads([written])
    forged = tmp_path / "forged"
    forged.mkdir()
    shutil.copy(written / "key", forged / "key")
    fill(forged, other=True)
    assert problems(forged) == []
    said = problems(forged, kept)
    assert len(said) == DAYS and all("that was kept" in one for one in said)
    assert sum("something among records" in one for one in said) == DAYS - 1 and "there are 12" in said[0]


def test_heads_of_another_key_count_for_nothing(copy, tmp_path):
    fill(tmp_path / "foreign")
    [key], _ = public_keys(tmp_path / "foreign", ())
    said = verify(copy, [key]).problems
    assert any("is signed with the key" in one for one in said)
    assert any("is signed with the key" in one for one in problems(copy, kept_heads([tmp_path / "foreign"])))


def test_old_segments_that_were_dropped_are_no_fault(tmp_path):
    directory = tmp_path / "ledger"
    fill(directory, days=6, keep_days=2)
    assert len(files(directory, "records")) == 3 and len(files(directory, "head")) == 6
    assert problems(directory, kept_heads([directory])) == []
    files(directory, "records")[0].unlink()            # which the settings have not done
    assert problems(directory) == ["segment 4: its records are missing"]


def test_a_head_that_cannot_be_compared_is_not_said_to_fit(tmp_path):
    """Of a segment whose records were dropped a head from the middle of the day says nothing any more."""
    directory, kept = tmp_path / "ledger", []
    book = Book(directory, keep_days=1)
    book.open()
    for day in range(4):
        for second in range(2):
            book.write(moment_of(day, second), "withdrawn", {"list": "a"})
            kept.append(book.sign(moment_of(day, second)))
    book.close()
    [key], _ = public_keys(directory, ())
    made = verify(directory, [key], kept)
    assert made.problems == [] and made.heads == 6 - 2
    assert sum("cannot be compared" in note for note in made.notes) == 4


@pytest.mark.parametrize("field", ["previous", "first", "last", "day"])
def test_a_head_that_says_another_past_does_not_fit(written, field):
    """Whoever has the key can sign the same records behind another past."""
    signed = parse_signed(files(written, "head")[1].read_bytes())
    box, _ = read_key(written)
    other = {"previous": "ab" * 32, "first": 7, "last": "ab" * 32, "day": "2020-01-01"}[field]
    said = problems(written, [box.sign(signed.head._replace(**{field: other}), 1)])
    assert len(said) == 1 and f"another `{field}`" in said[0]


def test_a_number_in_other_digits_is_no_segment(copy):
    (copy / "٠٠٠٠٠٠٠٩.2026-09-21.records").write_text("x")
    assert problems(copy) == [] and len(segments(copy)) == DAYS


def test_heads_are_read_from_a_log(written, tmp_path):
    import json

    log = tmp_path / "log"
    lines = [json.dumps({"event": "ledger head", "signed": path.read_text()}) for path in files(written, "head")]
    log.write_text("\n".join(["Dec 01 12:00:00 box edgeblock[1]: " + lines[0], "something else", *lines[1:]]))
    signed = [parse_signed(path.read_bytes()).head for path in files(written, "head")]
    assert [one.head for one in heads_in(log)] == signed


def test_what_is_no_ledger_is_said(tmp_path):
    with pytest.raises(SystemProblem, match="no ledger"):
        verify(tmp_path, [])
    with pytest.raises(SystemProblem, match="no ledger can be read"):
        verify(tmp_path / "nowhere", [])
    (tmp_path / "x.head").write_text("nothing")
    with pytest.raises(SystemProblem, match="has no head"):
        kept_heads([tmp_path])


def test_a_book_goes_on_after_damage_and_says_so(copy):
    path = files(copy, "records")[-1]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"12:00:02", b"12:00:03", 1))
    book = Book(copy)
    book.open()
    assert [kind for kind, _ in book.notes] == ["damaged"]
    for kind, fields in book.notes:
        book.write(moment_of(DAYS, 1), kind, fields)
    book.sign(moment_of(DAYS, 2))
    book.close()
    assert len(said := problems(copy)) == 2, said
    altered, told = said
    assert f"{path.stem}: record 28: was altered" in altered
    assert "segment 3 was found not as it was written, with 3" in told
