"""`check` and `replay` agree: whatever the tables of canonical forms hold, what people are told is what traffic gets.

Each sample is sent as a client would send it, in one capture, and asked about, with lists that hold every second one.
And all who read a directory of lists agree about it.
"""

import io
import json
import re
import struct
from pathlib import Path

import pytest

from edgeblock import config
from edgeblock.blocklist import lint
from edgeblock.blocklist.canonical import host_address
from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.load import load
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.commands import compile, replay
from edgeblock.core.decision import ANSWERED
from edgeblock.errors import ListError
from tests.blocklist.canonical_cases import HOSTS, URLS
from tests.core import samples as s

RAW_IP = 101            # the link type of packets without a frame around them
STOPPED = {"drop", *ANSWERED}


def raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def told(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


def capture(path: Path, payloads: list[bytes], port: int) -> None:
    """A connection for each payload; the client's port is 1024 and the payload's place in the list."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, RAW_IP))
        for place, payload in enumerate(payloads):
            settings = {"sport": 1024 + place, "dport": port}
            for packet in (s.tcp(99, b"", s.SYN, **settings), s.tcp(100, payload, **settings)):
                file.write(struct.pack("<IIII", place, 0, len(packet), len(packet)) + packet)


def replayed(tmp_path: Path, lists: Path, payloads: list[bytes], port: int) -> dict[int, set[str]]:
    """What each payload's connection was given, by its place; nothing where no name was read."""
    capture(tmp_path / "made.pcap", payloads, port)
    out = io.StringIO()
    assert replay.run(tmp_path / "made.pcap", lists, json_output=True, out=out, err=io.StringIO()) == 0
    found: dict[int, set[str]] = {}
    for row in map(json.loads, out.getvalue().splitlines()):
        found.setdefault(row["sport"] - 1024, set()).add(row["verdict"])
    return found


def asked(lists: Path, names: list[str], proto: str) -> list[bool]:
    """Whether `check` says that this protocol is stopped. Punctuation that is in no list is none of a name."""
    records = explain(load(lists), names)
    assert all(record.canonical is not None or "in its host, which no" in record.problem for record in records)
    return [any(verdict.verdict in STOPPED for verdict in record.verdicts if verdict.proto == proto)
            for record in records]


def every_second(tmp_path: Path, forms: list[bytes], before: str) -> Path:
    lists = tmp_path / "rules"
    lists.mkdir()
    entries = sorted({form.decode() for form in forms})[::2]
    (lists / "one.list").write_text("".join(f"{before * (host_address(entry.encode()) is None)}{entry}\n"
                                            for entry in entries))
    return lists


@pytest.mark.parametrize("proto", ["tls", "http"])
def test_hosts(proto: str, tmp_path: Path):
    # A Host line ends at CR and LF, and a name in TLS has no port: what a client cannot send so is left out; and
    # user@, which `check` refuses.
    cases = [(told(text), raw(text), form) for text, form, _ in HOSTS
             if form is not None and not re.search(rb"[\r\n@]", raw(text)) and len(raw(text)) < 1000]
    # A list can name what a host can be called.
    lists = every_second(tmp_path, [form for *_, form in cases if re.fullmatch(rb"[a-z0-9._-]+|\[.*", form)], "=")
    payloads = [s.hello(data) if proto == "tls" else s.request(data) for _, data, _ in cases]
    found = replayed(tmp_path, lists, payloads, 443 if proto == "tls" else 80)
    answers = asked(lists, [name for name, *_ in cases], proto)
    assert True in answers and False in answers
    assert [(name, bool(found[place] & STOPPED)) for place, (name, *_) in enumerate(cases)] == [
        (name, answer) for (name, *_), answer in zip(cases, answers, strict=True)]


def test_urls(tmp_path: Path):
    # Absolute-form where the sample is one; a browser cuts the fragment, but other clients send it.
    cases = [(told(text), raw(text), form) for text, form, _ in URLS
             if form is not None and re.fullmatch(rb"(?i)http://[^\s/\\?#][^\r\n\0]*", raw(text))]
    lists = every_second(tmp_path, [form for *_, form in cases], "http://")
    found = replayed(tmp_path, lists, [b"GET " + data + b" HTTP/1.1\r\n\r\n" for _, data, _ in cases], 80)
    answers = asked(lists, [name for name, *_ in cases], "http")
    assert True in answers and False in answers
    assert [(name, bool(found[place] & STOPPED)) for place, (name, *_) in enumerate(cases)] == [
        (name, answer) for (name, *_), answer in zip(cases, answers, strict=True)]


def test_hosts_that_no_list_can_name_stop_nothing(tmp_path: Path):
    names = [(told(text), raw(text)) for text, form, _ in HOSTS if form is None and len(raw(text)) < 1000]
    lists = every_second(tmp_path, [b"example.org"], "")
    assert not any(record.blocked for record in explain(load(lists), [name for name, _ in names]))
    found = replayed(tmp_path, lists, [s.hello(data) for _, data in names], 443)
    assert set().union(*found.values()) == {"accept"}


def test_a_listed_host_and_its_look_alikes(tmp_path: Path):
    lists = every_second(tmp_path, [b"example.com"], "")
    names = {"example.com": True, "www.example.com": True, "a.b.example.com": True, "notexample.com": False,
             "example.com.evil.net": False, "xn--exmple-cua.com": False, "exаmple.com": False, "example.co": False,
             "example.comm": False, "example-com.net": False, "com": False}
    for proto, port in (("tls", 443), ("http", 80)):
        payloads = [s.hello(name.encode()) if proto == "tls" else s.request(name.encode()) for name in names]
        found = replayed(tmp_path, lists, payloads, port)
        assert {name: bool(found[place] & STOPPED) for place, name in enumerate(names)} == names
        assert dict(zip(names, asked(lists, list(names), proto), strict=True)) == names


SIGNER = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
LONG = "".join(f"h{number}.example\n" for number in range(50))
DIRECTORIES = {      # what is in it -> whether its list is taken, and whether check and replay can use it
    "two names": ({"a.list": "blocked.example.com\nvk.com\n"}, True, True),
    "addresses": ({"a.list": "192.0.2.0/24\n2001:db8::1\n"}, True, True),
    "nothing": ({}, True, True),
    "a public suffix": ({"a.list": "co.uk\n"}, False, True),
    "a protected name": ({"a.list": "facebook.com\n"}, False, True),
    "a private address": ({"a.list": "10.98.3.10\n"}, True, True),
    "an address of the box itself": ({"a.list": "127.0.0.1\n"}, False, True),
    "everything": ({"a.list": "0.0.0.0/0\n"}, False, True),
    "a bad line of fifty": ({"a.list": LONG + "b..c\n"}, True, True),
    "a bad line of two": ({"a.list": "a.example\nb..c\n"}, False, False),
    "a bad line that is allowed": ({"a.list": "a.example\nb..c\n", "a.toml": "max_unparsable = 0.5"}, True, True),
    "two files of one name": ({"a.list": "a.example\n", "a.txt": "b.example\n"}, False, False),
    "bad settings": ({"a.list": "a.example\n", "a.toml": "action = 'explode'"}, False, False),
    "no signature": ({"a.list": "a.example\n", "a.toml": f"signer = '{SIGNER}'"}, False, True),
    "a packed file": ({"a.list.gz": "\x1f\x8b"}, False, False),
    "an expired list": ({"a.list": "a.example\n", "a.toml": "expires = 2020-01-01"}, True, True),
    "backups and halves": ({"a.list": "a.example\n", "a.list~": "co.uk", ".a.list.swp": "\0", "a.list.tmp": "!",
                            ".a.list.Xy12": "half", "a.list.bak": "co.uk"}, True, True),
}


@pytest.mark.parametrize("what", DIRECTORIES)
def test_all_who_read_a_directory_agree_about_it(what: str, tmp_path: Path):
    """The daemon, lint and compile refuse the same; check and replay use whatever can be read, and warn."""
    files, taken, usable = DIRECTORIES[what]
    settings = config.Rules(directory=tmp_path / "rules", key=tmp_path / "key")
    settings.directory.mkdir()
    for name, text in files.items():
        (settings.directory / name).write_bytes(text.encode("latin-1"))
    report = lint.lint(settings.directory, settings)
    assert (report.errors == []) == taken
    assert compile.run(settings, tmp_path / "out", io.StringIO(), io.StringIO()) == (0 if taken else 2)
    outcome = refresh(settings, Store(tmp_path / "state", read_key(settings.key)), 1.8e9)
    assert (outcome.refused == {}) == taken
    if not usable:
        with pytest.raises(ListError):
            load(settings.directory, settings)
        return
    loaded = load(settings.directory, settings)
    assert any(str(warning).endswith("; the daemon refuses this list") for warning in loaded.warnings) == (not taken)
    if taken:
        assert [info.entries for info in loaded.lists] == [
            0 if one["expired"] else one["entries"] for one in outcome.lists]
