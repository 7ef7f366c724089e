"""A zone source against a primary on loopback that lies, stops, is slow and goes back; and against its own file."""

import asyncio
import hashlib
import inspect
import io
import os
import random
import re
import shutil
import socket
import ssl
import struct
from dataclasses import fields
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import Entry, Problem
from edgeblock.blocklist.formats.zone import read_zone
from edgeblock.errors import ConfigError
from edgeblock.fleet import zone as zone_source
from edgeblock.fleet import zone_notify, zone_store, zone_transfer
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings
from edgeblock.fleet.zone import Settings, Zone
from edgeblock.fleet.zone_wire import BadMessage, Message, is_newer
from tests.fleet.primary import SECRET, ZONE, Primary, certificates, free_port, key

LINES = ["@ 300 NS ns.example.", "bad.example 300 CNAME .", "*.bad.example 300 CNAME .",
         "fine.bad.example 300 CNAME rpz-passthru.", "24.0.2.0.192.rpz-ip 300 CNAME .",
         "48.zz.db8.2001.rpz-ip 300 CNAME rpz-drop.", "page.example 60 A 192.0.2.80",
         "page.example 60 AAAA 2001:db8::80", 'said.example 300 TXT "two words; \\"quoted\\"" "more"',
         "WwW.Upper.Example 300 CNAME *.", "mail.example 300 MX 10 Mail.Example.",
         "odd.example 300 TYPE65280 \\# 2 abcd"]
FIRST = {1: LINES}


class Box:
    """A source and what stands around it: its state, its drop directory, its clock."""

    def __init__(self, home: Path, *primaries: Primary, **settings: object) -> None:
        self.rules, self.folder = home / "rules", home / "folder"
        self.rules.mkdir(exist_ok=True)
        self.clock = 1e9
        self.known: dict = {}
        self.primaries, self.settings = primaries, settings
        self.zone: Zone | None = None

    def source(self) -> Zone:
        settings = {"zone": ZONE, "primaries": tuple(f"127.0.0.1:{one.port}" for one in self.primaries)}
        settings |= self.settings
        fetch = FetchSettings(directory=self.rules, file_megabytes=int(self.settings.get("megabytes", 64)),
                              total_seconds=float(self.settings.get("total", 30)))
        return Zone("feed", Settings(**{name: value for name, value in settings.items()
                                        if name not in ("megabytes", "total")}), fetch, lambda: self.clock)

    async def fetch(self) -> Fetched:
        """As the program does: the files land, and then what is known is kept."""
        self.zone = self.zone or self.source()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        fetched = await self.zone.fetch(self.known, self.folder)
        if fetched.files is not None:
            for name in {path.name for path in self.rules.iterdir()} - set(fetched.files):
                (self.rules / name).unlink()
            for name, path in fetched.files.items():
                path.rename(self.rules / name)
        self.known = fetched.known
        return fetched

    async def refuses(self, *words: str) -> SourceError:
        """A fetch fails, says these words, and changes nothing."""
        before = self.content(), dict(self.known)
        with pytest.raises(SourceError) as caught:
            await self.fetch()
        assert (self.content(), self.known) == before
        for word in words:
            assert word in str(caught.value)
        assert SECRET not in str(caught.value)
        return caught.value

    def content(self) -> bytes:
        path = self.rules / "feed.rpz"
        return path.read_bytes() if path.exists() else b""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f'// of the primary\nkey "transfer" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n')
    path.chmod(0o640)
    return path


def alone(test):
    """A test that is a coroutine."""
    def run(*arguments, **more):
        return asyncio.run(test(*arguments, **more))
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__signature__ = inspect.signature(test)
    return run


def entries(text: bytes) -> set[tuple[Kind, bytes, bool]]:
    """What our reader of zones makes of a file, which has no problem."""
    items = list(read_zone(io.BytesIO(text)))
    assert not [item for item in items if isinstance(item, Problem)]
    return {(item.kind, item.key, item.exception) for item in items if isinstance(item, Entry)}


# What lands ------------------------------------------------------------------------------------------------------

@alone
async def test_a_whole_zone_lands_as_the_reader_reads_it(tmp_path: Path):
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary)
        fetched = await box.fetch()
    text = box.content()
    assert text.startswith(b"$ORIGIN rpz.example.\n$TTL 300\n@ SOA ns.rpz.example. hostmaster.rpz.example. 1 3600 6")
    assert b"\npage.example 60 A 192.0.2.80\n" in text and b"\nbad.example CNAME .\n" in text
    assert text.splitlines()[3:] == sorted(text.splitlines()[3:])
    by_hand = "\n".join([f"$ORIGIN {ZONE}", "@ 300 SOA a. b. 1 1 1 1 1", *LINES])
    ours = entries(text)
    assert ours == entries(by_hand.encode()) and len(ours) == 11
    assert (Kind.HOST_ONLY, b"fine.bad.example", True) in ours
    assert (fetched.version, fetched.wait, fetched.told["records"]) == ("1", 3600, len(LINES))
    assert fetched.told["transfer"] == "whole zone"


@alone
async def test_what_landed_is_what_another_reads_of_it(tmp_path: Path):
    """dnspython reads our file as a master file, and has the records that the primary had."""
    import dns.zone
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        ours = dns.zone.from_text(box.content().decode(), origin=ZONE)
        theirs = dns.zone.from_text("\n".join([primary.soa(1).to_text(), *LINES]), origin=ZONE)
    assert ours == theirs


@alone
async def test_an_increment_makes_the_bytes_that_the_whole_zone_makes(tmp_path: Path):
    dice = random.Random(1)
    (tmp_path / "whole").mkdir()
    names = [f"n{number}.example" for number in range(400)]
    versions = {serial: [f"{name} {dice.choice((60, 300))} A 192.0.2.{dice.randrange(4)}" for name in
                         dice.sample(names, 200)] for serial in range(1, 8)}
    async with Primary({1: versions[1]}).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        for serial in (2, 4, 7):
            primary.versions = {one: versions[one] for one in range(1, serial + 1)}
            fetched = await box.fetch()
            assert fetched.told["transfer"] == "increment" and "problems" not in fetched.told
            fresh = Box(tmp_path / "whole", primary)
            other = await fresh.fetch()
            assert box.content() == fresh.content()
            assert box.known["records"] == fresh.known["records"] == 200 == other.told["records"]
            assert box.known["digest"] == hashlib.sha256(box.content()).hexdigest()


@alone
async def test_only_the_increment_comes_over_the_network(tmp_path: Path):
    many = [f"n{number}.example 300 CNAME ." for number in range(3000)]
    async with Primary({1: many}, per_message=500).running() as primary:
        box = Box(tmp_path, primary)
        whole = await box.fetch()
        primary.versions[2] = [*many, "more.example 300 CNAME ."]
        increment = await box.fetch()
    assert whole.size > 50_000 and increment.size < 500
    assert primary.asked[-1] == "IXFR tcp"


@alone
async def test_nothing_changed_costs_one_datagram(tmp_path: Path):
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        primary.asked.clear()
        box.clock += 100
        box.zone = None             # a new process: all it has is what was known, and the file
        fetched = await box.fetch()
        assert fetched.files is None and primary.asked == ["SOA udp"]
        assert box.known["checked"] == box.clock - 100      # so nothing is written either
        assert fetched.told["expires"] == box.clock + 86_400
        box.clock += 86_400 * 0.05
        await box.fetch()
        assert box.known["checked"] == box.clock


@pytest.mark.parametrize("spoil", ["changed", "gone", "cut", "longer"])
def test_a_file_that_is_not_what_was_written_is_replaced_by_the_whole_zone(tmp_path: Path, spoil: str):
    async def run() -> None:
        async with Primary(FIRST).running() as primary:
            box = Box(tmp_path, primary)
            await box.fetch()
            path = box.rules / "feed.rpz"
            text = box.content()
            if spoil == "gone":
                path.unlink()
            else:
                path.write_bytes({"changed": text.replace(b"bad.example", b"bat.example", 1), "cut": text[:-5],
                                  "longer": text + b"z"}[spoil])
            primary.versions = FIRST | {2: [*LINES, "more.example 300 CNAME ."]}
            fetched = await box.fetch()
            assert fetched.told["transfer"] == "whole zone"
            assert b"more.example" in box.content() and b"bat.example" not in box.content()
    asyncio.run(run())


@alone
async def test_a_file_that_is_gone_comes_again_although_nothing_changed(tmp_path: Path):
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        before = box.content()
        (box.rules / "feed.rpz").unlink()
        await box.fetch()
        assert box.content() == before


# Increments that do not do ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("fault", ["notimp", "whole instead", "goes, but is not there", "comes, but is there",
                                   "begins elsewhere", "ttl"])
def test_an_increment_that_does_not_do_becomes_the_whole_zone(tmp_path: Path, fault: str):
    async def run() -> None:
        async with Primary(FIRST).running() as primary:
            box = Box(tmp_path, primary)
            await box.fetch()
            primary.versions = FIRST | {2: [*LINES[:-1], "more.example 300 CNAME ."]}
            if fault == "notimp":
                primary.ixfr_rcode = dns.rcode.NOTIMP
            elif fault == "whole instead":
                primary.increments = False
            elif fault == "ttl":
                primary.soa = lambda serial, of=primary.soa: with_ttl(of(serial), 60 if serial == 2 else 300)
            else:
                wanted = primary.records
                primary.records = lambda query: broken(wanted(query), fault, query, primary)
            fetched = await box.fetch()
            assert fetched.told["transfer"] == "whole zone"
            assert ("problems" in fetched.told) is (fault != "whole instead")
            (tmp_path / "new").mkdir()
            fresh = Box(tmp_path / "new", primary)
            await fresh.fetch()
            assert fresh.content() == box.content()
    asyncio.run(run())


def with_ttl(rrset, ttl: int):
    rrset.ttl = ttl
    return rrset


def broken(records: list, fault: str, query, primary: Primary) -> list:
    from tests.fleet.primary import record
    if query.question[0].rdtype != dns.rdatatype.IXFR:
        return records
    if fault.startswith("goes"):
        return [*records[:2], record("nobody.example 300 CNAME ."), *records[2:]]
    if fault.startswith("comes"):
        return [*records[:-1], record("bad.example 300 CNAME ."), records[-1]]
    return [records[0], primary.soa(0), *records[2:]]


# Primaries that fail ----------------------------------------------------------------------------------------------

def cut(wires: list[bytes]) -> list[bytes]:
    return wires[:-1]


def cut_in_a_message(wires: list[bytes]) -> list[bytes]:
    return [*wires[:-1], wires[-1][:-20]]


def endless(wires: list[bytes]) -> list[bytes]:
    return [*wires[:-1], *wires[1:2] * 100_000]


FAULTS = {
    "cut off": ({"spoil": cut}, "cut off in the middle"),
    "cut in a record": ({"spoil": cut_in_a_message}, "in the middle"),
    "endless records": ({"spoil": endless, "max_records": 1000}, "more than 1000 records"),
    "endless bytes": ({"spoil": endless, "megabytes": 1}, "more than 1048576 bytes"),
    "stands still": ({"spoil": cut, "then_stays": True, "quiet": 0.2}, "nothing has come"),
    "drips": ({"pauses": [0.05], "per_message": 1, "grace": 0.2, "min_rate": 10_000}, "slower than 10000 bytes"),
    "takes for ever": ({"pauses": [0.1], "per_message": 1, "total": 1}, "longer than 1 s"),
    "another SOA at the end": ({"final_soa": lambda soa: with_serial(soa, 7)}, "differ"),
    "another zone": ({"answer_zone": "other.example."}, "zone"),
    "refused": ({"rcode": dns.rcode.REFUSED}, "REFUSED"),
    "no messages": ({"spoil": lambda wires: []}, "cut off"),
    "empty messages": ({"spoil": lambda wires: [wires[0], *[empty(wires[0])] * 50]}, "no record"),
    "another id": ({"spoil": lambda wires: [b"\0\0" + wires[0][2:]]}, "no answer to the question"),
    "a question": ({"spoil": lambda wires: [wires[0][:2] + b"\0\0" + wires[0][4:]]}, "no answer"),
    "noise": ({"spoil": lambda wires: [b"\xff" * 100]}, ""),
    "more behind the end": ({"spoil": lambda wires: [*wires[:-1], added(wires[-1])]}, "behind the SOA"),
}
HERE = {"max_records", "min_rate", "megabytes", "total"}


def with_serial(soa, serial: int):
    from tests.fleet.primary import record
    return record(f"@ 300 SOA ns.{ZONE} hostmaster.{ZONE} {serial} 3600 600 86400 300")


def empty(wire: bytes) -> bytes:
    message = dns.message.from_wire(wire)
    message.answer = []
    return message.to_wire()


def added(wire: bytes) -> bytes:
    from tests.fleet.primary import record
    message = dns.message.from_wire(wire, one_rr_per_rrset=True)
    message.answer.append(record("late.example 300 CNAME ."))
    return message.to_wire()


@pytest.mark.parametrize("fault", FAULTS)
def test_last_good_stays_when_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    async def run() -> None:
        options, words = FAULTS[fault]
        for name in ("quiet", "grace"):
            if name in options:
                monkeypatch.setattr(zone_transfer, name.upper(), options[name])
        async with Primary(FIRST).running() as primary:
            box = Box(tmp_path, primary, **{name: value for name, value in options.items() if name in HERE})
            primary.per_message = 5
            await box.fetch()
            primary.versions = FIRST | {2: [*LINES, "more.example 300 CNAME ."]}
            primary.increments = False
            for name, value in options.items():
                if name not in {*HERE, "quiet", "grace"}:
                    setattr(primary, name, value)
            problem = await box.refuses(words, "rpz.example.")
            assert not problem.grave
            assert "\n" not in str(problem)
            await primary_is_well(primary, box)
    asyncio.run(run())


async def primary_is_well(primary: Primary, box: Box) -> None:
    well = Primary(primary.versions)
    for name in ("spoil", "pauses", "then_stays", "final_soa", "answer_zone", "rcode"):
        setattr(primary, name, getattr(well, name))
    box.zone = None
    await box.fetch()
    assert b"more.example" in box.content()


@alone
async def test_a_primary_that_is_down_gives_way_to_the_next(tmp_path: Path):
    async with Primary(FIRST).running() as primary:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            down = Primary(FIRST, port=closed.getsockname()[1])
            box = Box(tmp_path, down, primary)
            fetched = await box.fetch()
    assert b"bad.example" in box.content()
    assert f"127.0.0.1:{down.port}: cannot be reached" in fetched.told["problems"]


@alone
async def test_a_primary_that_is_behind_gives_way_to_one_that_is_not(tmp_path: Path):
    async with Primary(FIRST).running() as behind, Primary(FIRST | {2: LINES[:5]}).running() as ahead:
        box = Box(tmp_path, behind, ahead)
        await box.fetch()
        assert box.known["soa"].split()[2] == "1"
        assert (await box.fetch()).version == "2"
        assert (await box.fetch()).files is None


@alone
async def test_who_said_notify_is_asked_first(tmp_path: Path):
    async with Primary(FIRST).running() as first, Primary(FIRST).running() as second:
        box = Box(tmp_path, first, second)
        await box.fetch()
        box.zone.addresses = [("127.0.0.1", first.port), ("127.0.0.2", second.port)]
        assert [one.port for one in box.zone._primaries("")] == [first.port, second.port]
        assert [one.port for one in box.zone._primaries("127.0.0.2")] == [second.port, first.port]


@alone
async def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path):
    async with Primary(FIRST).running() as primary:
        with pytest.raises(SourceError, match="cannot be read or written: No such file or directory"):
            await Box(tmp_path, primary).source().fetch({}, tmp_path / "none")


@alone
async def test_soa_is_asked_by_tcp_where_udp_is_short_or_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zone_source, "ASK", (0.1, 0.1))
    async with Primary(FIRST, truncate=True).running() as primary:
        await Box(tmp_path, primary).fetch()
        assert primary.asked == ["SOA udp", "SOA tcp", "AXFR tcp"]
        primary.asked.clear()
        primary.truncate, primary.deaf = False, True
        await Box(tmp_path, primary).fetch()
        assert primary.asked == ["SOA udp", "SOA udp", "SOA tcp", "AXFR tcp"]


# Serials ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("serial, than, newer", [
    (1, 0, True), (0, 1, False), (5, 5, False), (0, 0xffffffff, True), (0xffffffff, 0, False),
    (1 << 31, 0, False), ((1 << 31) - 1, 0, True), (0, 1 << 31, False), (10, 0xfffffff0, True)])
def test_serials_are_compared_as_rfc_1982_says(serial: int, than: int, newer: bool):
    assert is_newer(serial, than) is newer


@pytest.mark.parametrize("signed", [False, True])
def test_a_serial_that_goes_back_is_not_taken(tmp_path: Path, key_file: Path, signed: bool):
    async def run() -> None:
        async with Primary({5: LINES}, key() if signed else None).running() as primary:
            box = Box(tmp_path, primary, key_file=key_file if signed else None)
            await box.fetch()
            primary.versions = {4: LINES[:3]}
            problem = await box.refuses("its serial went back from 5 to 4", "raise it there above 5")
            assert problem.grave is signed
            primary.soa_serial = 6          # what it says at first is no proof of what it sends
            assert (await box.refuses("its serial went back from 5 to 4")).grave is signed
            (box.rules / "feed.rpz").unlink()
            await box.refuses("its serial went back from 5 to 4")
            primary.soa_serial, primary.versions = None, {3_000_000_000: LINES}
            await box.refuses("went back")
    asyncio.run(run())


@alone
async def test_a_serial_goes_round(tmp_path: Path):
    async with Primary({0xffffffff: LINES}).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        primary.versions[0] = LINES[:-1]
        fetched = await box.fetch()
        assert (fetched.version, fetched.told["transfer"]) == ("0", "increment")


# Signatures -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-sha384", "hmac-sha512"])
@pytest.mark.parametrize("sign_each", [1, 4])
def test_a_signed_transfer(tmp_path: Path, algorithm: str, sign_each: int):
    async def run() -> None:
        path = tmp_path / "key"
        path.write_text(f"{algorithm}:transfer:{SECRET}\n")
        path.chmod(0o600)
        made = key(algorithm=algorithm)
        async with Primary(FIRST, made, per_message=1, sign_each=sign_each).running() as primary:
            box = Box(tmp_path, primary, key_file=path)
            await box.fetch()
            primary.versions = FIRST | {2: LINES[:-1]}
            assert (await box.fetch()).told["transfer"] == "increment"
    asyncio.run(run())


def unsigned(wires: list[bytes]) -> list[bytes]:
    found = []
    for wire in wires:
        message = dns.message.from_wire(wire, keyring=False, one_rr_per_rrset=True)
        message.tsig = None
        found.append(message.to_wire())
    return found


def another_record(wires: list[bytes]) -> list[bytes]:
    return [wire.replace(b"\x04page\x07example", b"\x04pagf\x07example") for wire in wires]


SIGNED = {
    "nothing is signed": (unsigned, "not signed", True),
    "the last is not signed": (lambda wires: [*wires[:-1], *unsigned(wires[-1:])], "last message of the", True),
    "the first is not signed": (lambda wires: [*unsigned(wires[:1]), *wires[1:]], "not signed", True),
    "a record was changed": (another_record, "BADSIG", True),
    "a message is missing": (lambda wires: [*wires[:1], *wires[2:]], "BADSIG", True),
    "two messages are exchanged": (lambda wires: [wires[0], wires[2], wires[1], *wires[3:]], "BADSIG", True),
}


@pytest.mark.parametrize("fault", SIGNED)
def test_last_good_stays_when(tmp_path: Path, key_file: Path, fault: str):
    async def run() -> None:
        spoil, words, grave = SIGNED[fault]
        async with Primary(FIRST, key()).running() as primary:
            box = Box(tmp_path, primary, key_file=key_file)
            await box.fetch()
            primary.versions, primary.spoil = FIRST | {2: LINES[:-1]}, spoil
            primary.increments = False
            assert (await box.refuses(words)).grave is grave
    asyncio.run(run())


@alone
async def test_a_hundred_messages_without_a_signature_are_too_many(tmp_path: Path, key_file: Path):
    """RFC 8945, 5.3.1."""
    many = [f"n{number}.example 300 CNAME ." for number in range(150)]
    async with Primary({1: many}, key(), per_message=1, sign_each=101).running() as primary:
        box = Box(tmp_path, primary, key_file=key_file)
        await box.fetch()
        primary.versions[2], primary.sign_each, primary.increments = many[1:], 102, False
        assert (await box.refuses("more than 99 messages in a row are not signed")).grave


class Peer(Primary):
    """One that answers a question for the SOA record as another server would."""

    def asked_in(self, wire: bytes, by: str) -> dns.message.Message:
        query = dns.message.from_wire(wire, keyring=False)
        self.asked.append(f"{dns.rdatatype.to_text(query.question[0].rdtype)} {by}")
        return query


@pytest.mark.parametrize("other, words", [
    (key(secret="b3RoZXIgc2VjcmV0IG90aGVyIHNlY3JldA=="), "BADSIG"), (key(name="other"), "BADKEY"),
    (key(algorithm="hmac-sha512"), "another algorithm"), (None, "not signed")])
def test_answers_that_are_signed_otherwise_are_refused_and_named(tmp_path: Path, key_file: Path, other, words: str):
    async def run() -> None:
        async with Peer(FIRST, other).running() as primary:
            box = Box(tmp_path, primary, key_file=key_file)
            await box.refuses(words)
            primary.soa = lambda serial: pytest.fail("never asked for more")
    asyncio.run(run())


@pytest.mark.parametrize("error, words", [(dns.rcode.BADKEY, "does not know the key (BADKEY)"),
                                          (dns.rcode.BADSIG, "our signature is wrong (BADSIG)"),
                                          (dns.rcode.BADTIME, "our clock is wrong (BADTIME)")])
def test_what_the_primary_says_of_our_signature_is_told(tmp_path: Path, key_file: Path, error: int, words: str):
    async def run() -> None:
        class Refusing(Peer):
            def answers(self, query: dns.message.Message) -> list[bytes]:
                answer = dns.message.make_response(query)
                answer.set_rcode(dns.rcode.NOTAUTH)
                answer.use_tsig(key(), tsig_error=error)
                answer.request_mac = query.mac
                return [answer.to_wire()]
        async with Refusing(FIRST).running() as primary:
            assert not (await Box(tmp_path, primary, key_file=key_file).refuses(words)).grave
    asyncio.run(run())


@alone
async def test_a_clock_that_is_wrong_is_named(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch):
    async with Primary(FIRST, key()).running() as primary:
        box = Box(tmp_path, primary, key_file=key_file)
        import time
        ours = time.time
        wires = primary.answers
        def late(query):
            monkeypatch.setattr(dns.message.time, "time", lambda: ours() - 3600)
            try:
                return wires(query)
            finally:
                monkeypatch.undo()
        primary.answers = late
        await box.refuses("BADTIME", "clocks")


@alone
async def test_an_answer_that_is_signed_to_an_unsigned_question_is_refused(tmp_path: Path):
    async with Peer(FIRST, key()).running() as primary:
        await Box(tmp_path, primary).refuses("key_file")


# TLS --------------------------------------------------------------------------------------------------------------

@alone
async def test_a_transfer_in_tls(tmp_path: Path, key_file: Path):
    """RFC 9103."""
    async with Primary(FIRST, key(), tls=certificates(tmp_path)).running() as primary:
        primary.asked.clear()
        box = Box(tmp_path, primary, key_file=key_file, tls=True, tls_ca=tmp_path / "ca.pem", tls_name="ns.example")
        await box.fetch()
        primary.versions = FIRST | {2: LINES[:-1]}
        assert (await box.fetch()).told["transfer"] == "increment"
        assert primary.asked == ["SOA tcp", "AXFR tcp", "SOA tcp", "IXFR tcp"]


@pytest.mark.parametrize("change, words, grave", [
    ({"tls_name": "other.example"}, "TLS does not work", True), ({"tls_name": ""}, "TLS does not work", True),
    ({"tls_ca": None}, "TLS does not work", True), ({"tls_ca": Path("/nowhere")}, "no file of certificates", False)])
def test_tls_with_somebody_else_is_refused(tmp_path: Path, change: dict, words: str, grave: bool):
    async def run() -> None:
        async with Primary(FIRST, tls=certificates(tmp_path)).running() as primary:
            settings = {"tls": True, "tls_ca": tmp_path / "ca.pem", "tls_name": "ns.example"} | change
            assert (await Box(tmp_path, primary, **settings).refuses(words)).grave is grave
    asyncio.run(run())


@alone
async def test_a_primary_without_tls_and_one_of_an_old_version(tmp_path: Path):
    settings = {"tls": True, "tls_name": "ns.example"}
    async with Primary(FIRST).running() as primary:
        old = certificates(tmp_path)
        await Box(tmp_path, primary, tls_ca=tmp_path / "ca.pem", **settings).refuses("127.0.0.1")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with Primary(FIRST, tls=old).running() as other:
            said = str(await Box(tmp_path, other, tls_ca=tmp_path / "ca.pem", **settings).refuses())
            assert "TLS does not work" in said or "closes the connection" in said


# Keys -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("content, mode, words", [
    (f"hmac-md5:transfer:{SECRET}", 0o600, "hmac-sha256, hmac-sha384, hmac-sha512"),
    (f"hmac-sha1:transfer:{SECRET}", 0o600, "algorithm must be"),
    (f'key "transfer" {{ algorithm hmac-md5; secret "{SECRET}"; }};', 0o600, "algorithm must be"),
    (f"hmac-sha256:transfer:{SECRET}", 0o644, "chmod 640"),
    (f"hmac-sha256:transfer:{SECRET}", 0o660, "chmod 640"),
    ("hmac-sha256:transfer:c2hvcnQ=", 0o600, "fewer than 16 bytes"),
    ("hmac-sha256:transfer:***", 0o600, "no base64"),
    (f'key "a" {{ secret "{SECRET}"; }};', 0o600, "algorithm"),
    (f'key "a" {{ algorithm hmac-sha256; secret "{SECRET}"; }}; key "b" {{ }};', 0o600, "more than one key"),
    (f'key "a" {{ algorithm hmac-sha256; secret "{SECRET}', 0o600, "quote"),
    ("", 0o600, "ALGORITHM:NAME:SECRET"), ("{" * 20_000, 0o600, "larger"), ("x" * 20_000, 0o600, "larger"),
    (None, 0o600, "cannot be read"), ("fifo", 0o600, "no regular file")])
def test_a_key_that_does_not_do_is_named_and_not_shown(tmp_path: Path, content: str | None, mode: int, words: str):
    path = tmp_path / "key"
    if content == "fifo":
        os.mkfifo(path, mode)
    elif content is not None:
        path.write_text(content)
        path.chmod(mode)
    from edgeblock.fleet.zone_key import read_key
    with pytest.raises(ConfigError) as caught:
        read_key(path)
    assert words in str(caught.value) and SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_in_the_words_of_bind(key_file: Path):
    from edgeblock.fleet.zone_key import read_key
    assert read_key(key_file) == key()
    key_file.write_text(f'/* one */ key transfer. {{ # two\n secret "{SECRET}"; algorithm HMAC-SHA256; }};')
    assert read_key(key_file) == key()


# Expiry and timers ------------------------------------------------------------------------------------------------

@alone
async def test_an_expired_zone_stays_in_force_and_says_so(tmp_path: Path):
    async with Primary(FIRST, timers="600 60 86400 300").running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        primary.rcode = dns.rcode.REFUSED
        box.clock += 86_399
        assert "expired" not in str(await box.refuses("REFUSED"))
        box.clock += 2
        await box.refuses("expired since 2001-09-10 01:46 UTC", "stays in force", "REFUSED")


@alone
async def test_an_expired_zone_goes_where_that_is_wanted_and_comes_back(tmp_path: Path):
    async with Primary({5: LINES}, timers="600 60 86400 300").running() as primary:
        box = Box(tmp_path, primary, on_expire="remove")
        await box.fetch()
        primary.rcode = dns.rcode.REFUSED
        box.clock += 86_401
        fetched = await box.fetch()
        assert fetched.files == {} and "removed" in fetched.told["expired"] and fetched.wait == 60
        await box.refuses("expired since", "removed")
        primary.rcode, primary.versions = 0, {4: LINES}
        await box.refuses("went back from 5 to 4")
        primary.versions = {5: LINES}
        await box.fetch()
        assert b"bad.example" in box.content()


@pytest.mark.parametrize("timers, wait", [("0 0 0 0", 60), ("4294967295 1 4294967295 0", 86_400), ("900 1 1 1", 900)])
def test_the_timers_have_bounds(tmp_path: Path, timers: str, wait: float):
    async def run() -> None:
        async with Primary(FIRST, timers=timers).running() as primary:
            box = Box(tmp_path, primary)
            fetched = await box.fetch()
            assert fetched.wait == wait
            assert box.clock + wait < fetched.told["expires"] <= box.clock + 2_592_000
            primary.rcode = dns.rcode.SERVFAIL
            assert 15 <= (await box.refuses("SERVFAIL")).wait <= 3600
    asyncio.run(run())


@pytest.mark.parametrize("change, words", [
    ({"zone": "a..b"}, "zone"), ({"zone": "ü..b"}, "zone"), ({"zone": "."}, "zone"), ({"primaries": ()}, "primaries"),
    ({"primaries": ("ns.example",)}, "must be an address"),
    ({"primaries": ("192.0.2.1:99999",)}, "must be an address"),
    ({"listen": ("[::1",)}, "listen"), ({"tls_name": "ns.example"}, "tls = true"),
    ({"min_refresh": 100.0, "max_refresh": 10.0}, "min_refresh")])
def test_settings_that_do_not_do(change: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        Settings(**({"zone": ZONE, "primaries": ("192.0.2.1",)} | change))


def test_the_page_has_every_key():
    page = (Path(__file__).parents[2] / "docs/zone-transfer.md").read_text()
    rows = {name for line in page.splitlines() if line.startswith("| `") for name in
            re.findall(r"`(\w+)`", line.split("|")[1])}
    assert {one.name for one in fields(Settings)} <= rows


# Hostile messages -------------------------------------------------------------------------------------------------

def everything(wire: bytes) -> None:
    message = Message(wire)
    list(message.records(b"rpz.example."))
    message.signature_at()


def test_no_bytes_make_the_reader_of_messages_raise_anything_else():
    """For any bytes a message is read, or is a BadMessage."""
    primary = Primary(FIRST, key(), per_message=100)
    query = dns.message.make_query(ZONE, "AXFR")
    query.use_tsig(key())
    query.to_wire()
    sample = primary.answers(query)[0]
    everything(sample)
    dice = random.Random(3)
    for _ in range(20_000):
        wire = bytearray(sample)
        for _ in range(dice.randrange(1, 4)):
            wire[dice.randrange(len(wire))] = dice.randrange(256)
        try:
            everything(bytes(wire[:dice.randrange(len(wire) + 1)] if dice.random() < 0.3 else wire))
        except BadMessage:
            continue


def test_names_that_go_round_or_are_too_long_are_refused():
    head = struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0)
    for name in (b"\xc0\x0c", b"\x01a\xc0\x0c", b"\xc0\x20", b"\x3f" + b"a" * 63 + b"\xc0\x0c", b"\x80a",
                 (b"\x3f" + b"a" * 63) * 4 + b"\0"):
        with pytest.raises(BadMessage):
            Message(head + name + b"\0\x06\0\x01")


def test_a_name_with_a_dot_in_a_label_is_not_of_the_zone():
    """`x.rpz` as one label in front of `example` ends like the zone's name and is none below it."""
    head = struct.pack("!HHHHHH", 1, 0x8000, 0, 1, 0, 0)
    record = b"\x05x.rpz\x07example\0" + struct.pack("!HHIH", 5, 1, 300, 1) + b"\0"
    assert [one.owner for one in Message(head + record).records(b"rpz.example.")] == [None]


def test_names_are_escaped_so_that_each_is_one_word(tmp_path: Path):
    head = struct.pack("!HHHHHH", 1, 0x8000, 0, 1, 0, 0)
    for label in (b"a b", b"a\nb", b'a"b', b"a;b", b"@", b"$origin", b"a\\b", b"(", b"\xff"):
        owner = bytes([len(label)]) + label + b"\x03rpz\x07example\0"
        record = owner + struct.pack("!HHIH", 5, 1, 300, 1) + b"\0"
        found = next(iter(Message(head + record).records(b"rpz.example."))).owner
        text = b"$ORIGIN rpz.example.\n" + found + b" 300 IN CNAME .\n"
        import dns.zone
        read = dns.zone.from_text(text.decode(), origin=ZONE, check_origin=False)
        assert [name.labels for name in read.nodes] == [(label,)]


@alone
async def test_records_of_other_zones_are_passed_over_and_counted(tmp_path: Path):
    async with Primary({1: [*LINES, "outside.example. 300 A 192.0.2.1"]}).running() as primary:
        box = Box(tmp_path, primary)
        fetched = await box.fetch()
        assert fetched.told["outside"] == 1 and b"outside" not in box.content()


def test_a_whole_zone_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zone_store, "RUN", 50)
    monkeypatch.setattr(zone_store, "BLOCK", 256)
    many = [f"n{number * 7919 % 1000}.example 300 CNAME ." for number in range(1000)]

    async def run() -> None:
        async with Primary({1: many}, per_message=60).running() as primary:
            box = Box(tmp_path, primary)
            await box.fetch()
            lines = box.content().splitlines()[3:]
            assert lines == sorted(lines) and len(lines) == 1000 == box.known["records"]
            assert list(box.folder.iterdir()) == []
            primary.versions[2] = [line for line in many if "9" not in line] + [
                f"{name}.example 300 CNAME ." for name in ("0first", "zlast", "n500-more")]
            await box.fetch()
            lines = box.content().splitlines()[3:]
            assert lines == sorted(lines) and {line.split()[0].decode() for line in lines} == {
                line.split()[0] for line in primary.versions[2]}
    asyncio.run(run())


@alone
async def test_long_records_are_sorted_on_disk_before_they_fill_the_memory(tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zone_store, "RUN_BYTES", 5000)
    monkeypatch.setattr(zone_store, "BATCH", 2000)
    most = []
    spill = zone_store.Whole.spill
    monkeypatch.setattr(zone_store.Whole, "spill", lambda one: (most.append(sum(map(len, one.lines))), spill(one)))
    long = [f'n{number:03}.example 300 TXT "{"x" * 200}"' for number in range(300)]
    async with Primary({1: long}, per_message=5).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
    assert len(most) > 10 and max(most) < 7000
    assert len(box.content().splitlines()) == 303 == 3 + box.known["records"]


@alone
async def test_a_zone_that_is_small_on_the_wire_and_large_on_the_disk_is_refused(tmp_path: Path):
    """Of a name that was there before a message has two bytes, and a line all of it."""
    name = ".".join(["x" * 60] * 3)
    long = [f"{name}.example 300 MX {number} {name}.{name[:40]}." for number in range(4000)]
    async with Primary({1: long}, per_message=200).running() as primary:
        await Box(tmp_path, primary, megabytes=1).refuses("more than 1048576 bytes as text")


@alone
async def test_an_increment_of_long_records_becomes_the_whole_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zone_transfer, "CHANGES_BYTES", 1000)
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        primary.versions[2] = [*LINES, *(f'n{number}.example 300 TXT "{"x" * 200}"' for number in range(10))]
        fetched = await box.fetch()
        assert fetched.told["transfer"] == "whole zone" and "the increment has more than" in fetched.told["problems"]


@alone
async def test_an_increment_into_a_name_with_very_many_records_becomes_the_whole_zone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zone_store, "BLOCK", 256)
    monkeypatch.setattr(zone_store, "OWNER_MAX", 2000)
    many = [f'n.example 300 TXT "{number}"' for number in range(300)]
    async with Primary({1: many}).running() as primary:
        box = Box(tmp_path, primary)
        await box.fetch()
        primary.versions[2] = [*many, "more.example 300 CNAME ."]
        fetched = await box.fetch()
        assert fetched.told["transfer"] == "whole zone" and "records of one name" in fetched.told["problems"]


# NOTIFY -----------------------------------------------------------------------------------------------------------

def notify(zone: str = ZONE, signed: dns.tsig.Key | None = None, kind: str = "SOA") -> bytes:
    message = dns.message.make_query(zone, kind, use_edns=False)
    message.flags = dns.flags.AA
    message.set_opcode(dns.opcode.NOTIFY)
    if signed is not None:
        message.use_tsig(signed)
    return message.to_wire()


def listener(*primaries: str, has: dns.tsig.Key | None = None) -> tuple[zone_notify.Listener, list[str]]:
    heard: list[str] = []
    made = zone_notify.Listener(("127.0.0.1", 0))
    made.audiences[ZONE.encode()] = [zone_notify.Audience(frozenset(primaries), has, heard.append)]
    return made, heard


NOTIFIES = {
    "a primary": (lambda: notify(), "192.0.2.1", True, dns.rcode.NOERROR),
    "a primary, mapped": (lambda: notify(), "::ffff:192.0.2.1", True, dns.rcode.NOERROR),
    "a stranger": (lambda: notify(), "192.0.2.9", False, dns.rcode.REFUSED),
    "who has the key": (lambda: notify(signed=key()), "192.0.2.9", True, dns.rcode.NOERROR),
    "another secret": (lambda: notify(signed=key(secret="b3RoZXIgc2VjcmV0IG90aGVyIHNlY3JldA==")), "192.0.2.1", False,
                       dns.rcode.NOTAUTH),
    "another key": (lambda: notify(signed=key(name="other")), "192.0.2.1", False, dns.rcode.NOTAUTH),
    "another zone": (lambda: notify("other.example."), "192.0.2.1", False, dns.rcode.NOTAUTH),
    "another type": (lambda: notify(kind="A"), "192.0.2.1", False, dns.rcode.NOTAUTH),
    "another case": (lambda: notify("RPZ.Example."), "192.0.2.1", True, dns.rcode.NOERROR),
}


@pytest.mark.parametrize("who", NOTIFIES)
def test_who_may_say_notify(who: str):
    make, sender, heard, rcode = NOTIFIES[who]
    wire = make()               # now, for a signature holds five minutes
    made, told = listener("192.0.2.1", has=key())
    answer = dns.message.from_wire(made.hear(wire, sender, 1.0), keyring=False)
    assert answer.had_tsig is (heard and b"transfer" in wire)
    assert bool(told) is heard
    assert answer.rcode() == rcode and answer.id == int.from_bytes(wire[:2]) and answer.opcode() == dns.opcode.NOTIFY
    assert heard or len(answer.to_wire()) <= len(wire)


SILENCE = {
    "nothing": b"", "a few bytes": b"x" * 5, "half of one": notify()[:20], "noise": b"\xff" * 500,
    "one byte more": notify() + b"x", "a question": dns.message.make_query(ZONE, "SOA").to_wire(),
    "an answer": dns.message.make_response(dns.message.from_wire(notify())).to_wire(),
}


@pytest.mark.parametrize("what", SILENCE)
def test_what_is_no_notify_has_no_answer(what: str):
    wire = SILENCE[what]
    made, told = listener("192.0.2.1", has=key())
    assert made.hear(wire, "192.0.2.1", 1.0) is None and told == []


def test_strangers_take_nothing_from_primaries():
    made, told = listener("192.0.2.1", has=key())
    answered = sum(made.hear(notify(), "192.0.2.9", 1.0) is not None for _ in range(10_000))
    assert answered == 2 * zone_notify.STRANGERS_RATE and made.lost == 10_000 - answered
    assert made.hear(notify(), "192.0.2.1", 1.0) is not None and told == ["192.0.2.1"]
    answered = sum(made.hear(notify(), "192.0.2.1", 1.0) is not None for _ in range(1000))
    assert answered == 2 * zone_notify.PRIMARIES_RATE - 1


@pytest.mark.parametrize("by", ["udp", "tcp"])
def test_a_notify_ends_the_wait(tmp_path: Path, by: str):
    async def run() -> None:
        place = f"127.0.0.1:{free_port()}"
        async with Primary(FIRST).running() as primary:
            box = Box(tmp_path, primary, listen=(place,))
            await box.fetch()
            waiting = asyncio.create_task(box.zone.wait(3600))
            await asyncio.to_thread(say, place, by)
            await asyncio.wait_for(waiting, 5)
            primary.versions = FIRST | {2: LINES[:-1]}
            assert (await box.fetch()).version == "2"
            await box.zone.close()
    asyncio.run(run())


def say(place: str, by: str) -> bytes:
    host, port = place.split(":")
    with socket.socket(type=socket.SOCK_DGRAM if by == "udp" else socket.SOCK_STREAM) as one:
        one.settimeout(5)
        one.connect((host, int(port)))
        wire = notify()
        one.send(wire if by == "udp" else struct.pack("!H", len(wire)) + wire)
        answer = one.recv(4096)
        return answer if by == "udp" else answer[2:]


@alone
async def test_a_flood_of_notify_costs_one_refresh_at_a_time(tmp_path: Path):
    place = f"127.0.0.1:{free_port()}"
    async with Primary(FIRST).running() as primary:
        box = Box(tmp_path, primary, listen=(place,))
        await box.fetch()
        primary.asked.clear()

        async def refresh() -> None:
            while True:
                await box.zone.wait(3600)
                await box.fetch()

        refreshing, wire = asyncio.create_task(refresh()), notify()
        begun = asyncio.get_running_loop().time()
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.connect(("127.0.0.1", int(place.split(":")[1])))
            while asyncio.get_running_loop().time() < begun + 1.2:
                for _ in range(20):
                    one.send(wire)
                await asyncio.sleep(0)
        refreshing.cancel()
        assert 1 <= len(primary.asked) <= 4
        assert box.zone.notifies > 100
        await box.zone.close()


@alone
async def test_a_flood_of_notify_does_not_take_the_wait_after_failures_away(tmp_path: Path):
    async with Primary(FIRST, rcode=dns.rcode.REFUSED).running() as primary:
        box = Box(tmp_path, primary, min_retry=4.0)
        loop = asyncio.get_running_loop()
        for wait in (1.0, 2.0, 4.0, 4.0):
            await box.refuses("REFUSED")
            box.zone._heard("127.0.0.1")
            waited = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(zone_source.asyncio, "sleep", gathering(waited))
                await box.zone.wait(600)
            assert wait - 0.5 < waited[0] + loop.time() - box.zone.asked < wait + 0.5
        primary.rcode = 0
        await box.fetch()
        assert box.zone.failed == 0


def gathering(waited: list[float]):
    async def sleep(seconds: float) -> None:
        waited.append(seconds)
    return sleep


@alone
async def test_two_zones_share_a_port_and_the_last_one_closes_it(tmp_path: Path):
    place = f"127.0.0.1:{free_port()}"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with Primary(FIRST).running() as one, Primary(FIRST, zone="two.example.").running() as two:
        first = Box(tmp_path / "a", one, listen=(place,))
        second = Box(tmp_path / "b", two, listen=(place,), zone="two.example.")
        await asyncio.gather(first.fetch(), second.fetch())
        assert first.zone.deaf == second.zone.deaf == ""
        await first.zone.close()
        waiting = asyncio.create_task(second.zone.wait(3600))
        assert dns.message.from_wire(await asyncio.to_thread(say, place, "udp")).rcode() == dns.rcode.NOTAUTH
        assert not waiting.done()
        waiting.cancel()
        await second.zone.close()
        with pytest.raises(OSError):
            await asyncio.to_thread(say, place, "tcp")


@alone
async def test_a_port_that_is_taken_is_said_and_timers_still_work(tmp_path: Path):
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        async with Primary(FIRST).running() as primary:
            box = Box(tmp_path, primary, listen=(f"127.0.0.1:{taken.getsockname()[1]}",))
            fetched = await box.fetch()
            assert "cannot listen on 127.0.0.1" in fetched.told["notify"] and box.content()
            await box.zone.close()


@alone
async def test_after_a_failure_it_is_asked_again_when_the_zone_says(tmp_path: Path):
    async with Primary(FIRST, timers="3600 120 86400 300").running() as primary:
        box = Box(tmp_path, primary)
        primary.rcode = dns.rcode.SERVFAIL
        assert (await box.refuses("SERVFAIL")).wait is None
        primary.rcode = 0
        await box.fetch()
        primary.rcode = dns.rcode.SERVFAIL
        assert (await box.refuses("SERVFAIL")).wait == 120
