"""An engine, a window or a compiler that is broken on purpose is caught before its rules are in force, no right one.

In: lists, and engines with a fault each. Out: what the trial of a snapshot says of them.
"""

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeblock import config
from edgeblock.blocklist import canary
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import Entry, read_domains
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack
from edgeblock.blocklist.store import Store
from edgeblock.config import Config, Limits, Policies, Ruleset
from edgeblock.core.decision import Decision
from edgeblock.daemon.selfcheck import SelfCheck
from edgeblock.engine import make_engine

KEY = bytes(range(16))
LISTS = {
    "court": (ListSettings(), ["listed.example", "=only.example.net", "*.below.example.org", "@@fine.listed.example",
                               "@@lifted.listed.example", "xn--80ak6aa92e.com", "a.b"]),
    "pages": (ListSettings(action="page", https="host"), ["example.com/bad/page.html", "example.com/dir/*",
                                                          "paths.example/f?a=b&c=d", "192.0.2.9/x/y",
                                                          "root.example/"]),
    "watched": (ListSettings(action="observe"), ["watched.example.net"]),
    "orders": (ListSettings(mandatory=True), ["fine.listed.example"]),
    "places": (ListSettings(), ["there.example @ 198.51.101.0/24", "=there.example.net @ 2001:db8:6::7",
                                "*.there.example.org @ 198.51.102.1"]),
    "addresses": (ListSettings(), ["198.51.100.0/24", "203.0.113.8:443", "2001:db8:5::/48", "[2001:db8:7::1]:8443"]),
}


def made(lists=LISTS, keep=lambda name, entry: True):
    """(snapshot, entries by list); `keep` says which entries get into the snapshot."""
    compiler, samples = Compiler(KEY), {}
    for name, (terms, lines) in lists.items():
        index = compiler.add_list(name, terms)
        samples[name] = [one for one in read_domains(io.BytesIO("\n".join(lines).encode())) if isinstance(one, Entry)]
        for entry in samples[name]:
            if keep(name, entry):
                compiler.add(index, entry)
    compiler.add(compiler.add_list(canary.LIST, ListSettings(mandatory=True)),
                 Entry(0, Kind.HOST, canary.control_name(KEY).encode()))
    return open_snapshot(pack(compiler.finish(), KEY, 0), KEY), samples


def tried(make=make_engine, config=Config(), lists=LISTS, seconds=30.0, seed=1, **more):    # noqa: B008
    snapshot, samples = made(lists, **more)
    one = SelfCheck(replace(config, rules=replace(config.rules, self_check=seconds)), make, seed)
    one.samples = samples
    return one.try_out(snapshot), one


def test_right_rules_hold_in_every_disguise_and_kind_of_entry():
    said, one = tried()
    assert (said, one.problem, one.fault) == ("", "", "")
    one.rest()
    told = one.told()
    assert (told["problem"], told["fault"], told["refused"]) == ("", "", False)
    assert set(told["lists"]) == {*LISTS, canary.LIST}
    for tries, held, beside, over_blocked in told["lists"].values():
        assert tries == held > 0 and beside > 0 and over_blocked == 0
    assert told["lists"]["court"][0] > 3000
    assert one.told()["lists"] == {}


class Broken:
    """An engine with one fault; `change` makes another decision of each."""

    def __init__(self, config, matcher, change):
        self.real, self.change = make_engine(config, matcher), change
        self.counters = self.real.counters

    def judge(self, packet, now, flags=0):
        return self.change(packet, self.real.judge(packet, now, flags))


def broken(change):
    return lambda config, matcher: Broken(config, matcher, change)


ACCEPTED = Decision(True)


def deaf_to(what):
    return broken(lambda packet, made: ACCEPTED if what(packet) else made)


def payload_of(packet):
    head = 40 if packet[0] >> 4 == 6 else 20
    return packet[head + (packet[head + 12] >> 4) * 4:] if packet[9 if head == 20 else 6] == 6 else b""


FAULTS = {
    "passes everything": deaf_to(lambda packet: True),
    "knows no IPv6": deaf_to(lambda packet: packet[0] >> 4 == 6),
    "reads no QUIC": deaf_to(lambda packet: packet[9 if packet[0] >> 4 == 4 else 6] == 17),
    "reads what is whole alone": deaf_to(lambda packet: payload_of(packet)[:1] not in (b"\x16", b"G")),
    "blocks everything": broken(lambda packet, made: made._replace(accept=False, action="reset")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_engine_is_caught_and_no_name_is_told(fault):
    said, one = tried(FAULTS[fault])
    assert said.startswith("the rules were tried and do not hold: ") and one.refused
    assert not any(word in said for word in ("example", "a.b", "xn--", ".com", "192.0.2", "2001:db8"))
    assert "\n" not in said and ("IPv4" in said or "IPv6" in said)
    one.rest()                              # nothing more is tried of what is refused
    assert one.told()["problem"] in said


class Forgetful:
    """A window that keeps the first copy of each byte and no other: the one fault that decoys are made for."""

    def __init__(self, config, matcher):
        self.real, self.seen = make_engine(config, matcher), {}
        self.counters = self.real.counters

    def judge(self, packet, now, flags=0):
        head = 40 if packet[0] >> 4 == 6 else 20
        if packet[9 if head == 20 else 6] != 6:
            return self.real.judge(packet, now, flags)
        data, at = payload_of(packet), int.from_bytes(packet[head + 4:head + 8], "big")
        known = self.seen.setdefault(packet[head:head + 4] + packet[12 if head == 20 else 8:head], {})
        if data and not packet[head + 13] & 0x26 and any(known.setdefault(at + i, byte) != byte
                                                         for i, byte in enumerate(data)):
            return ACCEPTED
        return self.real.judge(packet, now, flags)


def test_a_window_that_forgets_later_copies_is_caught():
    said, _ = tried(Forgetful, lists={name: LISTS[name] for name in ("court", "pages")})
    assert "passes (" in said


class Blind:
    """A matcher that answers for one protocol as if nothing were listed."""

    def __init__(self, name):
        self.name = name

    def __call__(self, config, matcher):
        empty, _ = made({"other": (ListSettings(), ["other.test"])})
        return make_engine(config, ListMatcher(empty))


def test_a_matcher_that_finds_nothing_is_caught():
    assert " passes (" in tried(Blind("tls"))[0] or " is not reported (" in tried(Blind("tls"))[0]


@pytest.mark.parametrize("lost", ["court", "pages", "watched", "addresses"])
def test_entries_that_were_lost_on_the_way_are_caught(lost):
    said, _ = tried(keep=lambda name, entry: name != lost)
    assert said.endswith(f"of the list {lost} is not in the rules that were made")


def test_an_engine_of_other_rules_blocks_what_is_not_listed():
    every = {**LISTS, "more": (ListSettings(), ["com", "org", "net", "example"])}

    def wrong(config, matcher):
        return make_engine(config, ListMatcher(made(every)[0]))

    said, one = tried(wrong)
    assert "a neighbour, which is not listed, of " in said and " is blocked (" in said
    assert sum(counts[3] for counts in one.told()["lists"].values()) == 1


@pytest.mark.parametrize("lines", [
    ["host.example/dir/*", "host.example/dir/page.html"], ["host.example/dir/*", "host.example/dir/sub/*"],
    ["host.example/*", "host.example/dir/*"], ["foo.example.com", "example.com @ ::/0", "example.com @ 0.0.0.0/0"],
    ["example.com", "@@example.com @ 198.18.0.0/15", "@@example.com @ 2001:2::/32"],
    ["host.example/a/b/c/*", "host.example/a/*", "host.example/a/b/x?q=1"]])
def test_directories_inside_each_other_hold(lines):
    said, one = tried(lists={"first": (ListSettings(), lines[:1]), "second": (ListSettings(), lines[1:])})
    assert (said, one.problem) == ("", "")
    assert all(counts.held == counts.tried for counts in one.counts.values()) and one.counts["first"].tried


def test_a_matcher_that_forgets_what_is_below_a_directory_is_caught():
    lists = {"pages": (ListSettings(), ["host.example/dir/*"])}
    wrong = made({"pages": (ListSettings(), ["host.example/dir"])})[0]
    said, _ = tried(lambda config, matcher: make_engine(config, ListMatcher(wrong)), lists=lists)
    assert "passes" in said and "pages" in said


@pytest.mark.parametrize(("others", "why"), [(["there.example"], "a neighbour, which is not listed"),
                                             (["there.example @ 203.0.113.0/24"], "passes")])
def test_a_matcher_that_does_not_look_where_a_name_leads_is_caught(others, why):
    lists = {"places": (ListSettings(), ["there.example @ 198.51.101.0/24"])}
    wrong = made({"places": (ListSettings(), others)})[0]
    said, _ = tried(lambda config, matcher: make_engine(config, ListMatcher(wrong)), lists=lists)
    assert why in said and "places" in said


def test_a_fault_of_the_trial_refuses_nothing():
    def none(config, matcher):
        raise RuntimeError("listed.example")

    said, one = tried(none)
    assert said == "" and not one.refused
    assert "RuntimeError at " in one.told()["fault"] and "listed" not in one.told()["fault"]


CONFIGS = {
    "policies that pass": Config(policies=Policies(conflict="pass", work="pass", memory="pass")),
    "policies that drop": Config(policies=Policies(unparsable="drop", midstream="drop", memory="drop", no_sni="drop",
                                                   ech="block")),
    "tight limits": Config(limits=Limits(flows=16, memory=1 << 20, flow_bytes=4096, quic_derivations=1)),
    "one port": Config(ruleset=Ruleset(tcp_ports=(8443,), udp_ports=())),
    "every port": Config(ruleset=Ruleset(tcp_ports="all", udp_ports="all")),
    "QUIC alone": Config(ruleset=Ruleset(tcp_ports=())),
}


@pytest.mark.parametrize("which", CONFIGS)
def test_what_the_operator_has_chosen_is_no_failure(which):
    few = {name: LISTS[name] for name in ("court", "pages", "addresses")}
    said, one = tried(config=CONFIGS[which], seconds=1.0, lists=few)
    one.rest()
    assert (said, one.problem, one.fault) == ("", "", "")
    assert one.counts["court"].held > 0


def test_its_time_is_bounded_and_goes_on_where_it_ended():
    said, one = tried(seconds=0.05)
    first = one.told()["lists"]
    assert said == "" and 0 < sum(counts[0] for counts in first.values()) < 400
    one.rest()
    assert sum(counts[0] for counts in one.told()["lists"].values()) > 0        # how many is up to the machine


def test_off_is_off():
    said, one = tried(FAULTS["passes everything"], seconds=0)
    one.rest()
    assert said == "" and one.told() == {"lists": {}, "problem": "", "fault": "", "refused": False}


def test_every_disguise_and_every_entry_has_its_turn_before_rules_are_in_force():
    seen = set()

    class Counting(SelfCheck):
        def _play(self, name, entry, row):
            seen.add(row.name)
            seen.add((name, entry))

    snapshot, samples = made()
    one = Counting(replace(Config(), rules=replace(Config().rules, self_check=30.0)))
    one.samples = samples
    assert one.try_out(snapshot) == ""
    from edgeblock.disguises.table import ADDRESSES, DISGUISES
    assert {row.name for row in (*DISGUISES, *ADDRESSES)} <= seen
    assert {(name, entry) for name, entries in samples.items() for entry in entries} <= seen


LONG = ".".join(["a" * 63] * 3 + ["b" * 57])       # with *. before it and a name in its place 256 bytes and more


def test_addresses_alone_do_not_wait_for_the_disguises_of_names():
    judged = []

    def make(config, matcher):
        return Broken(config, matcher, lambda packet, made: judged.append(packet) or made)

    said, one = tried(make, lists={"addresses": LISTS["addresses"]})
    before = len(judged)
    assert said == "" and 0 < before < 500
    told = one.told()["lists"]
    assert told["addresses"][0] >= 4 and 2 <= told[canary.LIST][0] < 20
    one.rest()
    assert one.told()["lists"][canary.LIST][0] > 500 and one.problem == ""


def test_a_list_of_addresses_that_goes_does_not_wait_for_the_disguises_of_names(tmp_path):
    """Whether no name comes or goes is what the round says of all lists that change."""
    rules, store = tmp_path / "rules", Store(tmp_path / "state", KEY)
    rules.mkdir()
    settings = config.Rules(directory=rules, key=tmp_path / "state" / "key")
    (rules / "names.list").write_text("listed.example\n")
    steps = [("", "", False), ("places.list", "192.0.2.1\n", True), ("places.list", None, True),
             ("urls.list", "a.example/b\n", False), ("urls.list", None, False),
             ("names.list", "other.example\n", False)]
    for number, (file, text, same) in enumerate(steps):
        if text is None:
            (rules / file).unlink()
        elif file:
            (rules / file).write_text(text)
        trial = SelfCheck(Config(), seed=1)
        outcome = refresh(settings, store, 1_700_000_000 + number, probed=True, trial=trial)
        assert not outcome.refused and not outcome.problem and trial.same_names is same, file
        if same and text is None:
            assert trial.told()["lists"][canary.LIST][0] < 20


@pytest.mark.parametrize("lines", [
    [f"*.{LONG}"], [LONG], [f"={LONG}"], [f"{LONG}/x/*"], [f"*.{LONG[:-20]}"],
    ["2001:2::/48", "2001:db8::/32", "198.18.0.0/15", "10.0.0.0/8"],
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    ["fd00::/8", "2001:db8::/32", "2001:2::/48"]], ids=lambda lines: lines[0][:20])
def test_neither_long_names_nor_its_own_addresses_make_a_list_fail(lines):
    for seed in range(3):
        said, one = tried(lists={"odd": (ListSettings(), lines), **LISTS}, seed=seed, seconds=4.0)
        assert (said, one.problem, one.fault) == ("", "", "")


EVIL = [
    (["first.example/*"], {}), (["other.example//*"], {}), (["a.example/x"], {"https": "host"}),
    (["first.example", "other.example", "a.example", "no.example"], {}), (["listed.example//*"], {}),
    (["example.com//*", "example.com/bad//*"], {}), (["example.com/x"], {"https": "host"}),
    (["paths.example//*", "only.example.net//*", "root.example//*"], {"https": "host"})]


@pytest.mark.parametrize("number", range(len(EVIL)))
def test_what_disguises_are_made_of_may_be_listed(number):
    """Else whoever lists a decoy's name would keep all others from renewing their lists."""
    lines, more = EVIL[number]
    for seed in range(2):
        said, one = tried(lists={**LISTS, "evil": (ListSettings(**more), lines)}, seed=seed)
        assert (said, one.problem, one.fault) == ("", "", "")


def test_of_a_blocked_neighbour_the_list_that_blocks_it_is_to_blame():
    def wrong(config, matcher):
        return make_engine(config, ListMatcher(made({**LISTS, "evil": (ListSettings(), ["example"])})[0]))

    said, one = tried(wrong, lists={**LISTS, "evil": (ListSettings(), ["evil.test"])})
    assert "a neighbour, which is not listed, of " in said and one.culprit == "evil"


def test_a_start_goes_on_where_nothing_can_be_tried():
    def none(config, matcher):
        raise MemoryError

    snapshot, _ = made()
    for seconds in (0, 1.0):
        one = SelfCheck(replace(Config(), rules=replace(Config().rules, self_check=seconds)), none)
        one.hold(snapshot)
        one.rest()
        assert bool(one.told()["fault"]) == bool(seconds)


LABEL = st.text("abc019-", min_size=1, max_size=12).map(lambda text: text.strip("-") or "x")
HOST = st.lists(LABEL, min_size=1, max_size=4).map(lambda labels: ".".join(labels) + ".test")
PATH = st.lists(st.text("abC019-._~!$'()*+,=:@%&;", max_size=20), min_size=1, max_size=3).map("/".join)
LINE = st.one_of(HOST, HOST.map("={}".format), HOST.map("*.{}".format), HOST.map("@@{}".format),
                 st.tuples(HOST, PATH).map("/".join), st.tuples(HOST, PATH).map(lambda both: "/".join(both) + "/*"),
                 st.tuples(HOST, PATH).map(lambda both: "@@" + "/".join(both)))
TERMS = st.builds(ListSettings, action=st.sampled_from(["reset", "observe", "page"]),
                  https=st.sampled_from(["ignore", "host"]), mandatory=st.booleans())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TERMS, st.lists(LINE, min_size=1, max_size=4)), min_size=1, max_size=3), st.integers())
def test_no_list_whatever_is_in_it_fails_by_itself(lists, seed):
    """Else whoever writes one could keep all others from being renewed."""
    named = {f"list{number}": one for number, one in enumerate(lists)}
    said, one = tried(lists=named, seed=seed)
    assert (said, one.fault) == ("", "")
