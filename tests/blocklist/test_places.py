"""`host @ address`: a name that is blocked only where it leads to an address, from the line to the verdict."""

import hashlib
import io
import ipaddress
import time
import timeit

import pytest
from core import samples as s

from edgeblock.blocklist import guard
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.explain import explain, explain_alone, find_rule
from edgeblock.blocklist.fingerprint import fingerprint
from edgeblock.blocklist.formats import Entry, key_text, network_key, read_domains, read_hashed_list
from edgeblock.blocklist.hashing import Hashing, hash_list
from edgeblock.blocklist.keys import key_id
from edgeblock.blocklist.lint import lint
from edgeblock.blocklist.load import load
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.core.engine import Engine
from edgeblock.netfilter.stage1 import sieve

from .making import KEY, compiled, matcher, matcher_of

HERE, THERE = "192.0.2.1", "192.0.2.2"
SIX = "2001:db8::1"


def at(rules, host, address, proto="tls", target=None):
    found = rules.look_up(proto, host.encode(), target, ipaddress.ip_address(address).packed if address else b"")
    return found and found.action


def read(line):
    [entry] = read_domains(io.BytesIO(line.encode()))
    return entry


@pytest.mark.parametrize(("line", "blocked", "passed"), [
    (f"example.com @ {HERE}", ["example.com", "www.example.com", "EXAMPLE.com."], ["example.org", "com"]),
    (f"=example.com @ {HERE}", ["example.com"], ["www.example.com"]),
    (f"*.example.com @ {HERE}", ["www.example.com", "a.b.example.com"], ["example.com"]),
    (f"bücher.example\t@\t{HERE}", ["xn--bcher-kva.example"], ["example"]),
    ("example.com @ 192.0.2.0-192.0.2.1", ["example.com"], ["example.org"]),
    ("example.com @ 192.0.2.0/31", ["example.com"], ["example.org"]),
    ("example.com @192.0.2.1  # a case", ["example.com"], []),
])
def test_it_is_blocked_there_and_nowhere_else(line, blocked, passed):
    rules = matcher(line)
    for proto, target in (("tls", None), ("quic", None), ("http", b"/page?q")):
        assert {at(rules, host, HERE, proto, target) for host in blocked} == {"reset"}
        assert not [host for host in blocked if at(rules, host, THERE, proto, target)]
        assert not [host for host in blocked if at(rules, host, None, proto, target)]
        assert not [host for host in passed if at(rules, host, HERE, proto, target)]


def test_six_and_what_leads_to_four():
    rules = matcher(f"six.example @ {SIX}", "wide.example @ 2001:db8::/33", f"four.example @ {HERE}")
    assert at(rules, "six.example", SIX) == at(rules, "wide.example", "2001:db8:7fff::1") == "reset"
    assert not at(rules, "six.example", "2001:db8::2") and not at(rules, "wide.example", "2001:db8:8000::")
    for leads in (f"64:ff9b::{HERE}", f"::ffff:{HERE}", "2002:c000:201::1"):
        assert at(rules, "four.example", leads) == "reset"
    assert not at(rules, "four.example", f"64:ff9b::{THERE}")


@pytest.mark.parametrize(("lists", "action", "name"), [
    ([("a", None, [f"example.com @ {HERE}", "@@example.com"])], "accept", "a"),
    ([("a", None, ["example.com", f"@@example.com @ {HERE}"])], "accept", "a"),
    ([("a", ListSettings(mandatory=True), [f"example.com @ {HERE}"]), ("b", None, ["@@example.com"])], "reset", "a"),
    ([("a", ListSettings(action="observe"), [f"example.com @ {HERE}"])], "observe", "a"),
    ([("a", None, ["example.com"]), ("b", ListSettings(action="drop"), [f"example.com @ {HERE}"])], "drop", "b"),
    ([("a", None, [f"example.com @ {HERE}"]), ("b", ListSettings(action="drop"), ["www.example.com"])], "drop", "b"),
])
def test_precedence(lists, action, name):
    found = matcher_of(*lists).look_up("tls", b"www.example.com", None, ipaddress.ip_address(HERE).packed)
    assert (found.action, found.list) == (action, name)


def test_the_engine_asks_where_the_connection_leads():
    server = s.SERVER
    for rules, accepted in ((matcher(f"listed.example @ {server}"), False), (matcher("listed.example @ 198.51.100.1"),
                                                                             True)):
        engine = Engine(rules)
        assert engine.judge(s.tcp(1000, flags=s.SYN), 1.0).accept
        assert engine.judge(s.tcp(1001, s.hello(b"www.listed.example")), 1.1).accept is accepted
        engine = Engine(rules)
        assert engine.judge(s.tcp(1000, flags=s.SYN), 1.0).accept
        assert engine.judge(s.tcp(1001, b"GET / HTTP/1.1\r\nHost: listed.example\r\n\r\n"), 1.1).accept is accepted
        engine = Engine(rules)
        assert engine.judge(s.tcp(1000, flags=s.SYN), 1.0).accept
        assert engine.judge(s.tcp(1001, s.hello(b"other.example")), 1.1).accept


def test_the_first_stage_gives_the_host_to_the_engine():
    """Whatever it leads to: that is the engine's to see."""
    rows = memoryview(compiled(("a", None, [f"listed.example @ {HERE}", f"@@free.example @ {HERE}"])).rows)
    blocks = bytearray(64 * sieve.blocks_for(rows))
    words = memoryview(blocks).cast("Q")
    sieve.fill(words, rows)
    assert sieve.holds(words, fingerprint(KEY, b"listed.example"))
    assert not sieve.holds(words, fingerprint(KEY, b"free.example"))


def test_guard_rails_look_at_the_host():
    protected = guard.parse_protected(b"bank.example\n", "own")
    one = guard.Guard(ListSettings(), protected)
    assert "protected" in one.refuses(read(f"bank.example @ {HERE}"))
    assert "public suffix" in one.refuses(read(f"co.uk @ {HERE}"))
    assert "public suffix" in one.refuses(read(f"*.com @ {HERE}"))
    assert one.refuses(read("shop.example @ 104.16.0.1")) is None      # a shared address is what it is for
    assert guard.Guard(ListSettings(allow_protected=("bank.example",)), protected).refuses(
        read(f"bank.example @ {HERE}")) is None


def test_a_hashed_one_too():
    protected = guard.parse_protected(b"bank.example\n", "own")
    out = io.BytesIO()
    made = Hashing("a", key_id(KEY))
    free = guard.Guard(ListSettings(), guard.Protected())
    hash_list([read(f"bank.example @ {HERE}")], ListSettings(), free, KEY, out, made)
    assert not made.refused and made.entries == 1 and b"bank" not in out.getvalue()
    head, *lines, end = out.getvalue().splitlines()
    assert head.startswith(b"edgeblock-hashed 2 ") and head.endswith(b" at_ipv4=100000000 at_ipv6=0")
    assert end.startswith(b"end 1 ")
    said = [guard.Guard(ListSettings(), protected, KEY).refuses(item)
            for item in read_hashed_list(io.BytesIO(out.getvalue()))]
    assert [bool(why) for why in said].count(True) == 1


def test_check_says_where(tmp_path):
    (tmp_path / "court.list").write_text(f"example.com @ {HERE}\n=example.org\n")
    rules = load(tmp_path)
    asked = ["example.com", f"example.com @ {HERE}", f"https://www.example.com/x @ {HERE}",
             f"example.com @ {THERE}", f"example.com @ [{SIX}]", "example.com @ nowhere"]
    bare, here, page, there, six, wrong = explain(rules, asked)
    assert not bare.blocked and "listed at certain addresses" in bare.as_text()
    assert here.blocked and f"example.com @ {HERE}" in here.as_text() and "court.list:1" in here.as_text()
    assert page.blocked
    for other in (there, six):
        assert not other.blocked and "listed at other addresses" in other.as_text()
    assert wrong.canonical is None and "'nowhere'" in wrong.problem
    alone = explain_alone(rules.matcher, f"example.com @ {HERE}")
    [rule] = {verdict.rule for verdict in alone.verdicts if verdict.rule}
    [place] = find_rule(rules, rule)
    assert place.entry == f"example.com @ {HERE}" and place.line == 1


def test_lint_compares_them(tmp_path):
    (tmp_path / "a.list").write_text(f"example.com @ {HERE}\nwww.example.com @ {HERE}\nexample.com @ 192.0.2.0/24\n"
                                     f"example.com @ {HERE}\nexample.org\n=example.org @ {HERE}\n")
    said = [(one.line, one.why) for one in lint(tmp_path).warnings]
    assert (4, f"'example.com @ {HERE}' is listed already, in line 1") in said
    assert (1, f"'example.com @ {HERE}' is covered by 'example.com @ 192.0.2.0/24', in line 3") in said
    assert (6, f"'=example.org @ {HERE}' is covered by 'example.org', in line 5") in said
    assert any(line == 2 and "is covered by" in why for line, why in said)


@pytest.mark.parametrize("line", [f"example.com @ {HERE}", f"=a.b @ {SIX}", f"@@*.a.b @ {HERE}"])
def test_it_is_told_as_it_is_written(line):
    entry = read(line)
    assert isinstance(entry, Entry) and key_text(entry.key) == line.lstrip("@").lstrip("=*.")


def test_the_dearest_name_stays_cheap():
    """Eight labels, each of them with entries, at prefixes of every length: what a hostile list can make."""
    names = [".".join("abcdefgh"[i:]) for i in range(8)]
    lines = [f"{name} @ 2001:db8::/{length}" for name in names for length in range(0, 129)
             if int(ipaddress.ip_address("2001:db8::")) & ((1 << 128 - length) - 1) == 0]
    lines += [f"{names[0]} @ ::/{length}" for length in range(0, 32)]
    rules = matcher(*lines)
    host, to = b"x." * 60 + names[0].encode(), ipaddress.ip_address(SIX).packed
    assert rules.look_up("tls", host, None, to)
    took = min(timeit.repeat(lambda: rules.look_up("tls", host, None, to), number=10, repeat=20)) / 10
    assert took < 1e-3, f"{took * 1e6:.0f} µs"
    assert "labels" in read(f"a.{names[0]} @ {HERE}").why


@pytest.mark.parametrize("line", [b"a" + b" " * 16_000 + b"b", b"a" + b" @" * 8_000, b"@ " * 8_000,
                                  b"a @" + b"@" * 16_000, b" " * 8_000 + b"@" + b" " * 8_000])
def test_no_line_is_slow(line):
    began = time.process_time()
    assert [type(item).__name__ for item in read_domains(io.BytesIO(line))] in (["Problem"], [])
    explain_alone(matcher("a.example"), line.decode())
    assert time.process_time() - began < 0.2


def test_a_hashed_head_cannot_make_every_name_dear():
    for bounds in ("at_ipv4=200000000 at_ipv6=0", "at_ipv4=0 at_ipv6=" + "f" * 33):
        head = f"edgeblock-hashed 2 key={'0' * 16} labels=4 depths=0 url_max=0 directory_max=0 {bounds}\n"
        [problem] = read_hashed_list(io.BytesIO(head.encode()))
        assert problem.whole and "is no hashed list" in problem.why


def hashed_items(*lines):
    """Lines of a hashed list that a holder of the key has made by hand, with prints in place of @texts."""
    head = (f"edgeblock-hashed 2 key={key_id(KEY).hex()} labels=fff depths=0 url_max=0 directory_max=0 "
            "at_ipv4=1ffffffff at_ipv6=0")
    body = "\n".join([head, *lines]).encode() + b"\n"
    entries = sum(not line.endswith("addresses-of") for line in lines)
    end = f"end {entries} {hashlib.blake2b(body, digest_size=32).hexdigest()}\n".encode()
    return list(read_hashed_list(io.BytesIO(body + end)))


def test_a_block_needs_a_mark_that_guard_rails_have_judged():
    """An exception's mark opens exceptions only: no hashed list blocks a protected name behind it."""
    host, everywhere = b"bank.example", network_key(bytes(4), 0)
    block = f"{fingerprint(KEY, host + everywhere).hex()} host-at"
    for marks in ([f"@@{fingerprint(KEY, host).hex()} addresses-of"], []):
        compiler = Compiler(KEY)
        compiler.add_list("hashed", ListSettings())
        for item in hashed_items(*marks, block):
            compiler.add(0, item)
        compiler.add_list("plain", ListSettings())
        compiler.add(1, read(f"@@bank.example @ {HERE}"))
        rules = ListMatcher(open_snapshot(pack(compiler.finish(), KEY, 0), KEY))
        assert at(rules, "bank.example", HERE) == "accept" and at(rules, "bank.example", THERE) is None
    protected = guard.parse_protected(b"bank.example\n", "own")
    one = guard.Guard(ListSettings(), protected, KEY)
    told = [one.refuses(item) for item in hashed_items(f"{fingerprint(KEY, host).hex()} addresses-of", block)]
    assert any(told)


def test_one_packet_asks_a_bounded_number_of_places():
    """A client who names hosts that a hostile list has made dear is refused, not served slowly."""
    names = [".".join("abcdefgh"[i:]) for i in range(8)]
    rules = matcher(*(f"{name} @ 2001:db8::/{length}" for name in names for length in range(33, 129)))
    engine = Engine(rules)
    six = {"source": s.CLIENT6, "destination": "2001:db9::1"}
    engine.judge(s.tcp(1000, flags=s.SYN, **six), 1.0)
    text = b"".join(b"GET / HTTP/1.1\r\nHost: %s.%s\r\n\r\n" % (b"xy"[turn % 2:turn % 2 + 1], names[0].encode())
                    for turn in range(60))
    began = time.process_time()
    made = engine.judge(s.tcp(1001, text, **six), 1.1)
    assert time.process_time() - began < 0.002
    assert not made.accept and engine.counters()["overworked"] == 1
    engine = Engine(rules)
    engine.judge(s.tcp(1000, flags=s.SYN, **six), 1.0)
    few = b"GET / HTTP/1.1\r\nHost: x.%s\r\n\r\n" % names[0].encode()
    assert engine.judge(s.tcp(1001, few, **six), 1.1).accept
