"""A list that was compiled elsewhere: taken where nothing speaks against it, and else as if it were not there."""

import io
import os
import random
import sys
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeblock.blocklist import compiler, intake, precompiled, refresh
from edgeblock.blocklist.commitments import SIZE
from edgeblock.blocklist.committed import root_of
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.directory import TooSlow, find_lists
from edgeblock.blocklist.explain import explain_alone
from edgeblock.blocklist.fingerprint import Kind, Rows
from edgeblock.blocklist.formats import Entry
from edgeblock.blocklist.intake import make_terms
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.snapshot import open_snapshot, pack, write
from edgeblock.blocklist.store import Store, nameless
from edgeblock.commands import compile

from .making import KEY
from .test_overlay import LINES, NAMES
from .test_refresh import NOW, Box
from .test_signature import Signer

SIGNER, OTHER = Signer(7), Signer(8)
TEXT = "a.example\n=b.example\n@@c.example\nd.example/x?q=1\nd.example/dir/*\n192.0.2.1\n198.51.100.7:443\n" \
       "2001:db8:7::1\ne.example @ 192.0.2.9\n"


class Boxes(Box):
    """A box, and a place with the same key where lists are compiled for it."""

    def __init__(self, home):
        super().__init__(home)
        self.store.prepare()
        (home / "state" / "key").write_bytes(KEY)
        (home / "state" / "key").chmod(0o600)
        self.rules = replace(self.rules, compiled_signers=(SIGNER.public,))

    def compile(self, rules=None, commits=False):
        """NAME.compiled beside each list, unsigned; what is said on standard error."""
        said = io.StringIO()
        assert compile.run_parts(rules or self.rules, self.folder, commits, io.StringIO(), said) == 0, said.getvalue()
        return said.getvalue()

    def sign(self, name="court", signer=SIGNER, comment="timestamp:{}\tfile:{}\thashed", at=NOW, **more):
        path = self.folder / f"{name}.compiled"
        path.with_name(f"{path.name}.minisig").write_bytes(
            signer.sign(path.read_bytes(), comment.format(at, path.name), **more))

    def offer(self, text=TEXT, toml=""):
        """court.list with all that is to be beside it; it is not in force yet."""
        if toml:
            self.write(court_toml=toml)
        self.write(court_list=text)
        self.compile(replace(self.rules, signers=(), require_signatures=False))
        self.sign()

    def court(self):
        return self.store.parts()[0]["court"].parts

    def doubt(self):
        """Why it was not taken; what is in force is the list all the same."""
        self.refresh()
        assert self.outcome.refused == {} and self.court().lists[0].compiled_by == ""
        [warning] = self.outcome.warnings
        assert warning.startswith("court.compiled: is not taken") and "example" not in warning
        assert self.refresh().warnings == [warning]         # for as long as that version is in force
        return warning.partition("the list is read: ")[2]


@pytest.fixture
def box(tmp_path):
    return Boxes(tmp_path)


# Taken -------------------------------------------------------------------------------------------------------

def test_it_is_taken_and_nothing_of_the_list_is_compiled(box, monkeypatch):
    box.offer()
    monkeypatch.setattr(refresh, "take", Mock(side_effect=AssertionError("the list was read")))
    assert box.refresh().warnings == [] and box.changes() == [("taken", "court")]
    [change] = box.outcome.changes
    assert (change["entries"], change["file"], change["uid"]) == (9, "court.list", os.getuid())
    assert change["compiled_by"] == str(SIGNER.key) == box.court().lists[0].compiled_by
    assert box.action("www.a.example") == "court" and box.action("z.example") is None
    assert box.refresh().changes == []


def same(one, two):
    """Two parts of a list are the same in all that anybody asks of them."""
    for name in ("bitmap", "rows", "ipv4", "addresses"):
        assert bytes(getattr(one, name)) == bytes(getattr(two, name)), name
    for name in ("labels", "depths", "ipv4_lengths", "ipv6_lengths", "at_ipv4", "at_ipv6", "url_max",
                 "directory_max", "client_sets", "windows", "terms"):
        assert getattr(one, name) == getattr(two, name), name
    assert vars(two.lists[0]) == vars(replace(one.lists[0], compiled_by="", part=two.lists[0].part))


versions = st.tuples(
    st.lists(st.sampled_from((*LINES, "not a host", "e.example @ 192.0.2.0/24", "xn--e1afmkfd.example")), max_size=9),
    st.sampled_from(("", 'action = "drop"\nmandatory = true', 'https = "host"\nguarded = "skip"',
                     'clients = ["192.0.2.0/24"]\nuntil = 2030-01-01', "expires = 2030-01-01", 'category = "x"')))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(("court", "b", "c")), versions, min_size=1), st.booleans())
def test_what_is_in_force_is_what_the_lists_would_have_come_to(tmp_path_factory, lists, commits):
    """Rows, bounds, counts, answers with their rule ids, commitments, changes, digest of the content."""
    every = [Boxes(tmp_path_factory.mktemp("boxes")) for _ in range(2)]
    for name, (lines, toml) in lists.items():
        for box in every:
            box.write(**{f"{name}_list": "".join(f"{line}\n" for line in lines),
                         f"{name}_toml": f"{toml}\nmax_unparsable = 1\nallow_addresses = true\nallow_shared = true\n"
                                         "widest_ipv6 = 0\nmax_shrink = 1\nallow_protected = true\n"})
    with_it, without = every
    without.compile(commits=True)           # the same settings, so as to make it there
    for path in sorted(without.folder.glob("*.compiled")):
        path.rename(with_it.folder / path.name)
        with_it.sign(path.stem)
    for box in every:
        box.store.commits = commits
        box.refresh()
    one, two = (box.outcome for box in every)
    assert one.warnings == two.warnings and one.content == two.content and one.refused.keys() == two.refused.keys()
    for made, wanted in zip(one.changes, two.changes, strict=True):
        assert made.pop("compiled_by") == str(SIGNER.key)
        assert made == wanted
    parts = [box.store.parts()[0] for box in every]
    assert parts[0].keys() == parts[1].keys()
    for name in parts[0]:
        made, wanted = (some[name].parts for some in parts)
        made.lists[0].origin = wanted.lists[0].origin       # it has the file's inode
        same(made, wanted)
    if parts[0]:
        matchers = [ListMatcher(box.store.in_force()) for box in every]
        for name in NAMES:
            assert explain_alone(matchers[0], name) == explain_alone(matchers[1], name)


def test_signed_lists_need_their_signature_all_the_same(box):
    box.offer()
    box.rules = replace(box.rules, signers=(OTHER.public,), require_signatures=True)
    box.refresh()
    assert "needs a signature" in box.reason("court")[0] and not box.store.parts()[0]
    box.write(**{"court_list_minisig": OTHER.sign(TEXT.encode(), f"timestamp:{NOW}\tfile:court.list")})
    box.refresh()
    assert box.court().lists[0].signed == NOW and box.court().lists[0].compiled_by
    text = "a.example\n"
    box.offer(text)
    box.write(**{"court_list_minisig": OTHER.sign(text.encode(), f"timestamp:{NOW - 1}\tfile:court.list")})
    box.refresh()                       # an older one comes in by this way as little
    assert "is older than the version in force" in box.reason("court")[0]


def test_growth_and_loss_are_judged_here(box):
    box.write(court_list="".join(f"h{number}.example\n" for number in range(2000)))
    box.refresh()
    box.offer("".join(f"h{number}.example\n" for number in range(900)))
    box.refresh()
    assert "shrank from 2000 entries to 900" in box.reason("court")[0] and box.court().lists[0].entries == 2000
    box.offer("".join(f"h{number}.example\n" for number in range(9000)))
    box.refresh()
    assert "grew from 2000 entries to 9000" in box.reason("court")[0]


def test_what_was_left_out_is_counted_and_named_by_lint(box):
    box.offer("co.uk\na.example\nnot a host\n", 'guarded = "skip"\nmax_unparsable = 1\n')
    box.refresh()
    record = box.court().lists[0]
    assert (record.guarded, record.unusable, record.compiled_by) == (1, 1, str(SIGNER.key))
    assert "2 entries or lines; it was compiled elsewhere" in (box.folder / "court.skipped").read_text()


def test_commitments_are_those_of_where_it_was_compiled(box):
    """What proves an entry comes with them, in a file of its own, or is not kept here."""
    box.write(court_list=TEXT)
    box.compile(commits=True)
    box.sign()
    box.store.commits = True
    box.refresh()
    record, beside = box.court().lists[0], box.folder / "court.commitments"
    proof = beside.read_bytes()
    assert record.compiled_by and record.root == root_of(proof) and record.leaves == 9 and len(proof) == 9 * SIZE
    kept = box.store.proofs / record.root
    assert kept.read_bytes() == proof and box.outcome.warnings == []
    for wrong in (proof[:-1], proof + b"x", proof[:-1] + bytes([proof[-1] ^ 1]), b""):
        kept.unlink(missing_ok=True)
        beside.write_bytes(wrong)
        box.write(court_list=TEXT)
        box.refresh()
        assert box.court().lists[0].compiled_by and not kept.exists()
        assert box.outcome.warnings[0].startswith("court.commitments: ")
    beside.unlink()
    box.write(court_list=TEXT)
    assert box.refresh().warnings == [] and box.court().lists[0].root == record.root and not kept.exists()


def test_without_commitments_it_is_read_where_there_is_a_ledger(box):
    box.offer()
    box.store.commits = True
    assert box.doubt().startswith("is not committed to") and box.court().lists[0].leaves == 9


# Doubts ------------------------------------------------------------------------------------------------------

def test_without_a_key_that_may_sign_none_is_taken(box):
    box.offer()
    for signers in ((), (f"other={SIGNER.public}",)):
        box.rules = replace(box.rules, compiled_signers=signers)
        box.write(court_list=TEXT)
        assert box.doubt() == "[rules] compiled_signers names no key for this list"


@pytest.mark.parametrize("signers", ((), (f"other={SIGNER.public}",), (SIGNER.public, f"court={OTHER.public}")))
def test_what_a_key_has_signed_goes_with_the_key(box, signers):
    box.offer()
    assert box.refresh().changes and box.court().lists[0].compiled_by == str(SIGNER.key)
    box.rules = replace(box.rules, compiled_signers=(OTHER.public, SIGNER.public))
    assert box.refresh().changes == [] and box.court().lists[0].compiled_by
    box.rules = replace(box.rules, compiled_signers=signers)
    box.refresh()
    assert box.court().lists[0].compiled_by == "" and box.action("www.a.example") == "court"
    assert box.outcome.warnings[0].startswith("court.compiled: is not taken")
    assert box.refresh().refused == {}


def test_a_key_that_is_none_is_a_mistake_of_the_configuration(box):
    box.offer()
    box.rules = replace(box.rules, compiled_signers=("RWxyz",))
    assert "[rules] compiled_signers = 'RWxyz' is no minisign public key" in box.refresh().problem


def test_only_who_may_sign_for_that_list_is_believed(box):
    box.offer()
    box.sign(signer=OTHER)
    assert box.doubt().startswith("is signed with the key")


def test_a_key_may_be_for_one_list(box):
    box.offer()
    box.rules = replace(box.rules, compiled_signers=(SIGNER.public, f"court={OTHER.public}"))
    assert box.doubt().startswith("is signed with the key")


@pytest.mark.parametrize("comment", ("timestamp:{}\tfile:other.compiled", "timestamp:{}\tfile:court.list", "hello",
                                     "timestamp:9{}"))
def test_a_signature_is_of_that_file_and_has_a_time(box, comment):
    box.offer()
    box.sign(comment=comment)
    assert box.doubt()


def test_a_signature_of_something_else_or_none(box):
    box.offer()
    path = box.folder / "court.compiled.minisig"
    path.write_bytes(SIGNER.sign(b"else", f"timestamp:{NOW}"))
    assert box.doubt()
    path.unlink()
    box.write(court_list=TEXT + "\n")
    assert box.doubt().startswith("has no signature")


def spoilt(data, chance):
    """Each region cut and with a bit turned: header, table, bitmap, rows, sums, and places by chance."""
    parts = open_snapshot(data, KEY).parts
    for at in (0, 8, 10, 12, 20, 40, 100, 200, 250, 280, 300, data.index(b'"court"'), len(data) - 40, len(data) - 1,
               *(data.index(bytes(section[:8])) for section in (parts.rows, parts.bitmap, parts.addresses)),
               *(chance.randrange(len(data)) for _ in range(30))):
        yield data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1:]
        yield data[:at]
    yield data + b"x"
    yield b""


def test_whoever_may_sign_what_is_damaged_is_still_not_believed(box):
    """Cut, longer, or with a bit turned anywhere: a valid signature over it helps nothing."""
    box.offer()
    path = box.folder / "court.compiled"
    terms = make_terms(box.rules, KEY)
    [source], _, _ = find_lists(box.folder, terms.defaults)
    assert precompiled.take(source, terms, None, NOW, partial(nameless, box.store.lists))
    for data in spoilt(path.read_bytes(), random.Random(5)):
        path.write_bytes(data)
        box.sign()
        with pytest.raises(precompiled.Doubt):
            precompiled.take(source, terms, None, NOW, partial(nameless, box.store.lists))
    assert box.doubt()


def test_a_file_that_was_changed_after_it_was_signed(box):
    box.offer()
    path = box.folder / "court.compiled"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "signature" in box.doubt()


def altered(box, change, sign=True):
    """court.compiled made and signed by who has the key and may sign, with something wrong in it."""
    path = box.folder / "court.compiled"
    parts = open_snapshot(path.read_bytes(), KEY).parts
    parts = change(parts) or parts
    with open(path, "wb") as file:
        write(file, parts, KEY, NOW)
    box.sign()


def rows_of(key, value=Kind.HOST):
    rows = Rows(KEY)
    rows.add(key, value)
    rows.finish()
    return bytes(rows)


@pytest.mark.parametrize("change", (
    lambda parts: replace(parts, rows=rows_of(b"other.example")),                       # lacks what the list says
    lambda parts: replace(parts, rows=bytes(parts.rows)[20:] + bytes(parts.rows)[:20]),  # not sorted
    lambda parts: replace(parts, rows=bytes(parts.rows) + bytes(parts.rows)[-20:]),     # one twice
    lambda parts: replace(parts, rows=rows_of(b"x.example", value=1 << 16 | Kind.HOST)),    # of another list
    lambda parts: replace(parts, rows=rows_of(b"x.example", value=0x200 | Kind.HOST)),  # with terms
    lambda parts: replace(parts, rows=rows_of(b"x.example", value=15)),
    lambda parts: replace(parts, rows=rows_of(b"x.example", value=0)),
    lambda parts: replace(parts, addresses=bytes(parts.addresses)[24:]),
    lambda parts: replace(parts, addresses=bytes(16) + b"\x81\x01" + bytes(6)),         # 129 bits
    lambda parts: replace(parts, addresses=b"\x7f" + bytes(15) + b"\x08\x00" + bytes(6)),
    lambda parts: replace(parts, url_max=3),
    lambda parts: replace(parts, directory_max=0),
    lambda parts: replace(parts, labels=0),
    lambda parts: replace(parts, depths=0),
    lambda parts: replace(parts, at_ipv4=0),
    lambda parts: replace(parts, ipv4_lengths=0),
    lambda parts: replace(parts, lists=[replace(parts.lists[0], name="other")]),
    lambda parts: replace(parts, lists=parts.lists * 2),
    lambda parts: replace(parts, lists=[replace(parts.lists[0], made_of="0" * 64)]),
    lambda parts: replace(parts, lists=[replace(parts.lists[0], made_of=7)]),
    lambda parts: replace(parts, lists=[replace(parts.lists[0], duplicates=-1)]),
    lambda parts: replace(parts, lists=[replace(parts.lists[0], unusable="many")]),
    lambda parts: replace(parts, base="0" * 64, below=[0])))
def test_who_may_sign_cannot_have_what_can_be_found_out_here(box, change):
    box.offer()
    altered(box, change)
    assert box.doubt()


def test_guard_rails_of_fingerprints_and_addresses_hold_whoever_has_signed(box):
    """A protected name, a public suffix and an address that nobody may list, in a part that says it is of it."""
    for entry in (Entry(1, Kind.HOST, b"co.uk", False), Entry(1, Kind.HOST, b"time.windows.com", False),
                  Entry(1, Kind.NETWORK, b"\0\x08\x7f\0\0\0", False)):
        box.offer()

        def with_it(parts, entry=entry):
            made = Compiler(KEY)
            made.add_list("court", intake.ListSettings())
            for line in (*TEXT.split("\n"),):
                for one in intake.formats.read_domains(io.BytesIO(line.encode())):
                    made.add(0, one)
            made.add(0, entry)
            return replace(made.finish(), lists=parts.lists)

        altered(box, with_it)
        assert box.doubt().startswith("a guard rail of this box refuses"), entry
        box.write(court_list="a.example\n")
        box.refresh()


def test_what_counts_is_never_more_than_the_bitmap_and_ranges_of_its_own_rows(box):
    """Those in the file are not used: wrong ones change nothing."""
    box.offer()
    altered(box, lambda parts: replace(parts, bitmap=b"garbage", ipv4=b"garbage"))
    box.refresh()
    assert box.outcome.warnings == [] and box.court().lists[0].compiled_by
    assert box.action("a.example") == "court"


def test_another_key(box):
    box.offer()
    path = box.folder / "court.compiled"
    parts = open_snapshot(path.read_bytes(), KEY).parts
    path.write_bytes(pack(parts, bytes(16), NOW))
    box.sign()
    assert "another key" in box.doubt()


def test_another_list_another_version_other_settings_other_guard_rails(box, tmp_path, monkeypatch):
    box.offer()
    wrong = "is not of this list, these settings, these guard rails and this version of edgeblock"
    older = (box.folder / "court.compiled").read_bytes()
    box.refresh()
    assert box.court().lists[0].compiled_by
    box.write(court_list=TEXT + "f.example\n")              # the list is newer than what stands beside it
    assert box.doubt() == wrong
    box.write(court_list=TEXT, court_toml='https = "host"\n')
    assert box.doubt() == wrong
    (box.folder / "court.toml").unlink()
    box.write(court_list=TEXT)
    own = tmp_path / "protected"
    own.write_text("bank.example\n")
    box.rules = replace(box.rules, protected=own)
    assert box.doubt() == wrong
    box.rules = replace(box.rules, protected=None, widest_ipv4=21)
    assert box.doubt() == wrong
    box.rules = replace(box.rules, widest_ipv4=20)
    with monkeypatch.context() as patch:
        patch.setattr("edgeblock.__version__", "0.0.1")
        assert box.doubt() == wrong
    assert (box.folder / "court.compiled").read_bytes() == older
    box.refresh()
    assert box.outcome.warnings == [] and box.court().lists[0].compiled_by      # all is as it was made of


def test_an_older_list_with_its_part_is_an_older_list(box):
    """Where lists are signed it is refused; where they are not, it is what whoever may write there can have."""
    box.write(court_list="a.example\nb.example\n")
    box.refresh()
    box.offer("a.example\n")
    box.refresh()
    assert box.court().lists[0].entries == 1 and box.action("b.example") is None


@pytest.mark.parametrize("toml, text, why", (
    ("drop_past_days = 3\n", "a.example\n", "drop_past_days"),
    ("", "a.example until=2030-01-01\n", "windows or orders of their own")))
def test_there_is_none_of_what_depends_on_day_or_box(box, toml, text, why):
    box.write(court_list=text)
    if toml:
        box.write(court_toml=toml)
    assert why in box.compile() and not list(box.folder.glob("*.compiled"))


def test_an_entry_with_a_window_is_read_here_whoever_has_signed(box):
    box.offer("a.example\n")
    settings = intake.ListSettings()
    made = Compiler(KEY)
    made.add_list("court", settings)
    for one in intake.formats.reader_of("domains", settings)(io.BytesIO(b"a.example\nb.example until=2030-01-01\n")):
        made.add(0, one)
    altered(box, lambda parts: replace(made.finish(), lists=parts.lists))
    assert "windows" in box.doubt()


def test_links_pipes_and_directories_are_not_opened(box, tmp_path):
    box.offer()
    path, away = box.folder / "court.compiled", tmp_path / "away"
    path.rename(away)
    path.symlink_to(away)
    assert "link that leads out" in box.doubt()
    for make in (os.mkfifo, os.mkdir):
        path.unlink()
        make(path)
        box.write(court_list=TEXT)
        assert "not a file" in box.doubt()
        if path.is_dir():
            path.rmdir()


def test_it_may_be_no_longer_than_the_list_can_come_to(box, monkeypatch):
    box.offer()
    monkeypatch.setattr(precompiled, "MORE", 10)
    monkeypatch.setattr(precompiled, "RATIO", 2)
    assert "has more than" in box.doubt()


def test_it_is_copied_before_it_is_looked_at(box, monkeypatch):
    """What its writer does to it afterwards changes nothing, and never ends this process."""
    box.offer()
    path, real = box.folder / "court.compiled", precompiled.snapshot.open_snapshot

    def cut(*arguments, **more):
        os.truncate(path, 0)
        return real(*arguments, **more)

    monkeypatch.setattr(precompiled.snapshot, "open_snapshot", cut)
    box.refresh()
    assert box.outcome.warnings == [] and box.court().lists[0].compiled_by and path.stat().st_size == 0


def test_a_file_that_grows_while_it_is_read(box, monkeypatch):
    box.offer()
    path = box.folder / "court.compiled"
    monkeypatch.setattr(precompiled, "MORE", 0)
    monkeypatch.setattr(precompiled, "RATIO", path.stat().st_size // len(TEXT) + 1)
    real = precompiled.Hashed

    def grown(*arguments):
        with open(path, "ab") as file:
            file.write(bytes(1 << 16))
        return real(*arguments)

    monkeypatch.setattr(precompiled, "Hashed", grown)
    assert box.doubt() == "has grown while it was read"


def test_a_list_that_changes_while_it_is_read_is_neither_taken_nor_refused(box, monkeypatch):
    box.offer()
    real = precompiled.read_notice

    def change(source):
        with open(box.folder / "court.list", "a") as file:
            file.write("later.example\n")
        return real(source)

    with monkeypatch.context() as patch:
        patch.setattr(precompiled, "read_notice", change)
        box.refresh()
    assert box.outcome.again and box.outcome.refused == {} and box.store.parts()[0] == {}
    box.doubt()
    assert box.action("later.example") == "court"


@pytest.mark.parametrize("fault", (MemoryError, RuntimeError, TooSlow, OSError(28, "No space left on device")))
def test_no_fault_of_it_refuses_the_list(box, monkeypatch, fault):
    box.offer()
    monkeypatch.setattr(precompiled, "rows_of", Mock(side_effect=fault))
    assert box.doubt()


def test_a_list_with_which_the_process_has_ended_is_read(box):
    box.offer()
    terms = make_terms(box.rules, KEY)
    [source], _, _ = find_lists(box.folder, terms.defaults)
    box.store.begin("court", intake.origin_of(source, terms), 0)
    box.refresh(died=True)
    assert "the process before has ended" in box.outcome.warnings[0] and box.outcome.refused == {}
    assert box.action("a.example") == "court"


def test_no_guard_rail_of_the_list_is_forgotten(box):
    """It refuses as it does without, with the same words."""
    box.offer()
    box.write(court_list=TEXT + "co.uk\n")
    box.refresh()
    assert "is a public suffix" in box.reason("court")[0]


def test_what_stands_beside_is_no_list(box):
    box.offer()
    (box.folder / "court.list").unlink()
    box.refresh()
    assert box.outcome.lists == [] and box.outcome.refused == {} and box.outcome.warnings == []


def test_the_list_waits_while_it_is_being_written(box):
    box.offer()
    assert box.refresh(busy={"court.compiled"}).lists == []
    assert box.refresh(busy={"court.compiled.minisig"}).lists == []
    assert box.refresh().lists[0]["name"] == "court"


# One long list beside short ones ---------------------------------------------------------------------------------

def test_the_part_of_a_long_list_is_what_the_others_lie_over(box, monkeypatch):
    """It is in force without being copied, and every answer is that of all lists together."""
    monkeypatch.setattr(compiler, "LAYERED_FROM", 1000)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    box.write(z_list="z.example\n@@h7.example\n")
    box.refresh()
    box.offer("".join(f"h{number}.example\n" for number in range(1500)))
    monkeypatch.setattr(refresh, "merge", Mock(side_effect=AssertionError("all were merged")))
    box.refresh()
    part = box.store.lists / "court.part"
    assert box.store.snapshot.samefile(part) and box.changes() == [("taken", "court")]
    top = box.store.in_force()
    assert top.base.digest == box.store.parts()[0]["court"].digest and len(top.parts.rows) == 40
    matcher = ListMatcher(top)
    assert [matcher.look_up("tls", name).action for name in (b"h8.example", b"h7.example", b"z.example")] == [
        "reset", "accept", "reset"]
    box.write(z_list="y.example\n")             # laid over the same again
    box.refresh(held=top.base.digest)
    assert box.store.snapshot.samefile(part) and box.store.in_force().base.digest == top.base.digest
    box.offer("".join(f"i{number}.example\n" for number in range(1500)))
    box.refresh(held=top.base.digest)
    assert box.store.snapshot.samefile(part) and box.store.in_force().base.digest != top.base.digest
    assert ListMatcher(box.store.in_force()).look_up("tls", b"i8.example").list == "court"
    assert box.refresh().changes == [] and not list(box.store.directory.glob(".rules*"))


def test_a_crash_between_the_two_leaves_the_snapshot_before(box, monkeypatch):
    monkeypatch.setattr(compiler, "LAYERED_FROM", 1000)
    box.write(z_list="z.example\n")
    box.refresh()
    box.write(court_list="".join(f"h{number}.example\n" for number in range(1500)))
    real = os.rename

    def crash(source, target):
        if str(target).endswith("rules.snapshot"):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            box.refresh()
    assert [record.name for record in box.store.in_force().parts.lists] == ["z"]
    store = Store(box.store.directory, KEY)
    refresh.refresh(box.rules, store, NOW)
    assert [record.name for record in store.in_force().parts.lists] == ["court", "z"]
    assert not list(store.directory.glob(".rules*"))


@pytest.mark.parametrize("fault", (OSError(18, "Invalid cross-device link"), None))
def test_where_it_cannot_be_linked_all_are_merged(box, monkeypatch, fault):
    """Also where another process has kept another version meanwhile."""
    monkeypatch.setattr(compiler, "LAYERED_FROM", 1000)
    box.write(z_list="z.example\n", court_list="".join(f"h{number}.example\n" for number in range(1500)))

    def link(source, target):
        if fault:
            raise fault
        target.write_bytes(pack(Compiler(KEY).finish(), KEY, NOW))

    monkeypatch.setattr(os, "link", link)
    box.refresh()
    top = box.store.in_force()
    assert top.base is None and len(top.parts.rows) == 1501 * 20
    assert sys.getrefcount(top) and ListMatcher(top).look_up("tls", b"h8.example").list == "court"


def test_where_what_is_new_does_not_hold_it_lies_over_nothing_that_is_not_there(box, monkeypatch):
    """The part of the long list is put below once more for the rest, and for nothing else."""
    monkeypatch.setattr(compiler, "LAYERED_FROM", 1000)
    box.write(z_list="z.example\n")
    box.refresh()
    box.write(z_list="y.example\n", court_list="".join(f"h{number}.example\n" for number in range(1500)))
    trial = Mock(samples={}, unsure=set(), culprit="z")
    trial.try_out.side_effect = ["lets y.example through", ""]
    box.refresh(trial=trial)
    assert list(box.outcome.refused) == ["z"] and box.changes() == [("taken", "court")]
    matcher = ListMatcher(box.store.in_force())
    assert [bool(matcher.look_up("tls", name)) for name in (b"h8.example", b"z.example", b"y.example")] == [
        True, True, False]
    trial.try_out.side_effect = ["lets h8.example through"] * 9
    trial.culprit = ""
    box.write(court_list="".join(f"i{number}.example\n" for number in range(1500)))
    box.refresh(trial=trial)
    assert "the rules in force stay" in box.outcome.problem
    assert ListMatcher(box.store.in_force()).look_up("tls", b"h8.example").list == "court"
    assert not list(box.store.directory.glob(".rules*"))
