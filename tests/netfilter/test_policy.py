"""The rules as data and as text. In: settings. Out: the plan and both back ends' text, and what must be in them."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeblock.config import Config, Queue, Ruleset
from edgeblock.core.connections import Reader
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.netfilter import checks, iptables, nft, pins, ruleset, tools
from edgeblock.netfilter.policy import QUIC_VERSIONS, Do, plan

DEFAULT = Config()


def settings(workers: int = 1, number: int = 0, **changes) -> Config:
    return Config(queue=Queue(number=number, workers=workers), ruleset=replace(DEFAULT.ruleset, **changes))


SETTINGS = [
    settings(),
    settings(hooks=("output",)),
    settings(hooks=("input",)),
    settings(hooks=("forward", "input", "output"), tcp_ports="all", udp_ports="all"),
    settings(absent="closed", workers=4, number=10),
    settings(tcp_ports=tuple(range(1, 40))),
    settings(udp_ports=()),
    settings(tcp_ports=(), udp_ports="all"),
    settings(mark_mask=0x3, inject_mark=0x4),
    settings(clients=("eth1", "eth1.7", "ppp*"), servers=("eth0",), exempt_clients=("192.0.2.0/24", "2001:db8::/32"),
             exempt_servers=("198.51.100.1", "2001:db8:1::1/128")),
    settings(clients=("br0",), hooks=("forward", "input", "output"), tcp_ports="all", udp_ports="all",
             exempt_clients=("0.0.0.0/0", "::/0")),
]


def named_rules(text: str) -> list[tuple[str, str, list[str]]]:
    """Chain, name and words of each rule, as a dump with counters names them."""
    lines = [line for line in text.splitlines() if line.startswith("-A EDGEBLOCK_")]
    rules = [line for line in lines if not line.startswith(f"-A {iptables.NOTES} ")]
    names = [name for name, _, _ in iptables.counted("\n".join(f"[1:2] {line}" for line in lines))]
    assert len(names) == len(rules)
    return [(line.split()[1].removeprefix("EDGEBLOCK_"), name, shlex.split(line))
            for line, name in zip(rules, names, strict=True)]


@pytest.mark.parametrize("config", SETTINGS, ids=range(len(SETTINGS)))
def test_what_nearly_every_packet_meets_has_no_comment_to_be_asked(config):
    """It cost 3 % of a bulk transfer."""
    for chain, name, words in named_rules(iptables.text(config)):
        leads_on = "-g" in words or words[-2:] == ["-j", "RETURN"]
        assert ("--comment" in words) != leads_on, (chain, name)
    assert "comment" not in iptables.jump_line("FORWARD")


@pytest.mark.parametrize("config", SETTINGS, ids=range(len(SETTINGS)))
def test_both_back_ends_carry_every_rule_of_the_plan_in_its_order(config):
    chains = plan(config)
    for chain in chains:
        named = [rule.name for rule in chain.rules]
        for family in (4, 6):
            written = [name for of, name, _ in named_rules(iptables.transaction(config, family, iptables.Installed()))
                       if of == chain.name.upper()]
            assert list(dict.fromkeys(written)) == named
        block = nft.text(config).split(f"chain {chain.name} {{")[1].split("\n    }")[0]
        assert list(dict.fromkeys(re.findall(r'comment "(\w+)"', block))) == named


@pytest.mark.parametrize("config", SETTINGS, ids=range(len(SETTINGS)))
def test_every_nft_rule_counts(config):
    for line in nft.text(config).splitlines():
        assert ("comment" in line) == ("counter" in line)


def test_open_bypasses_and_closed_does_not_but_a_blocked_flow_never_does():
    for text, bypass in ((nft.text(settings()), " bypass"), (iptables.text(settings()), " --queue-bypass")):
        for line in text.splitlines():
            if "queue num" in line or "NFQUEUE" in line:
                assert (bypass in line) == ("blocked" not in line), line
    for text in (nft.text(settings(absent="closed")), iptables.text(settings(absent="closed"))):
        assert "bypass" not in text


def test_interfaces_stand_where_the_hook_knows_them():
    both = settings(clients=("eth1", "ppp*"), servers=("eth0",), udp_ports=(), tcp_ports=(443,),
                    hooks=("forward", "input", "output"))
    text = nft.text(both)

    def lines(hook: str, target: str) -> list[str]:
        block = text.split(f"chain {hook} {{")[1].split("\n    }")[0]
        return [line.strip().split(" counter")[0] for line in block.splitlines() if f"goto {target}" in line]

    assert lines("forward", "tcp_client") == ['iifname { "eth1" } oifname { "eth0" } tcp dport { 443 }',
                                              'iifname "ppp*" oifname { "eth0" } tcp dport { 443 }',
                                              'iifname { "edgeblock-c" } oifname { "edgeblock-s" } tcp dport { 443 }']
    assert lines("forward", "tcp_server") == ['iifname { "eth0" } oifname { "eth1" } tcp sport { 443 }',
                                              'iifname { "eth0" } oifname "ppp*" tcp sport { 443 }',
                                              'iifname { "edgeblock-s" } oifname { "edgeblock-c" } tcp sport { 443 }']
    assert lines("input", "tcp_client") == ['iifname { "eth1" } tcp dport { 443 }',
                                            'iifname "ppp*" tcp dport { 443 }']
    assert lines("input", "tcp_server") == ['iifname { "eth0" } tcp sport { 443 }']
    assert lines("output", "tcp_client") == ['oifname { "eth0" } tcp dport { 443 }']
    assert lines("output", "tcp_server") == ['oifname { "eth1" } tcp sport { 443 }',
                                             'oifname "ppp*" tcp sport { 443 }']
    assert "-i ppp+ -o eth0 -p tcp -m multiport --dports 443 " in iptables.text(both)
    assert "edgeblock-c" not in nft.text(replace(both, canary=replace(both.canary, enabled=False)))
    assert "edgeblock-c" not in nft.text(settings())      # every interface is any


@pytest.mark.parametrize("name", ["eth0;drop", "a b", "*", "longer-than-15-x", 'eth0"', "eth+", "e*0"])
def test_what_is_no_interface_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="ruleset.servers: .* no name of an interface"):
        plan(settings(servers=(name,)))


def test_too_many_pairs_of_interfaces_are_refused():
    many = tuple(f"eth1.{number}" for number in range(600))
    plan(settings(clients=many, servers=("eth0",)))
    with pytest.raises(ConfigError, match=r'1200 pairs of interfaces, at most 1024; name many at once'):
        plan(settings(clients=many, servers=("eth0", "eth2")))


def test_several_workers_share_a_range_of_queues():
    assert "queue num 3-6 bypass" in nft.text(settings(workers=4, number=3))
    assert "--queue-balance 3:6 --queue-bypass" in iptables.text(settings(workers=4, number=3))


def test_more_ports_than_one_match_takes():
    text = iptables.text(settings(tcp_ports=tuple(range(1, 41))))
    lines = [line for line in text.splitlines() if "--dports" in line]
    found = [line.split("--dports ")[1].split()[0].split(",") for line in lines if "-p tcp" in line]
    assert [len(one) for one in found] == [15, 15, 10] * 2          # IPv4 and IPv6
    assert [int(port) for one in found[:3] for port in one] == list(range(1, 41))


def test_the_mark_of_our_replies_is_not_asked_for_where_they_cannot_be():
    names = {chain.name: [rule.name for rule in chain.rules] for chain in plan(settings(hooks=("forward", "output")))}
    assert "ours" not in names["forward"]
    assert names["output"][0] == names["input"][0] == "ours"


def test_the_answers_of_a_hook_come_by_the_other_hook():
    """A box that is the client sends by output and hears by input."""
    chains = {chain.name: {rule.do for rule in chain.rules} for chain in plan(settings(hooks=("output",)))}
    assert Do.TCP_CLIENT in chains["output"] and Do.TCP_SERVER not in chains["output"]
    assert Do.TCP_SERVER in chains["input"] and Do.TCP_CLIENT not in chains["input"]
    assert "forward" not in chains


def test_between_two_listed_ports_the_destination_decides():
    order = [rule.do for rule in next(chain for chain in plan(DEFAULT) if chain.name == "forward").rules]
    assert order.index(Do.TCP_CLIENT) < order.index(Do.TCP_SERVER)
    assert order.index(Do.UDP_CLIENT) < order.index(Do.UDP_SERVER)


@pytest.mark.parametrize(("change", "line"), [
    ({"mark_mask": 0x50}, "ruleset.mark_mask"),
    ({"inject_mark": 0x10000000}, "ruleset.inject_mark"),
    ({"inject_mark": 0}, "ruleset.inject_mark"),
    ({"hooks": ()}, "ruleset.hooks"),
    ({"hooks": ("prerouting",)}, "ruleset.hooks: prerouting"),
    ({"tcp_ports": (0,)}, "ruleset.tcp_ports"),
    ({"tcp_ports": "some"}, "ruleset.tcp_ports"),
    ({"udp_ports": (65536,)}, "ruleset.udp_ports"),
    ({"udp_ports": (), "tcp_ports": ()}, "both empty"),
    ({"absent": "ajar"}, "ruleset.absent"),
    ({"workers": 0}, "queue.number"),
    ({"workers": 2, "number": 65535}, "queue.number"),
])
def test_settings_that_no_rule_can_express_are_refused_by_name(change, line):
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        plan(settings(**change))
    assert "\n" not in str(caught.value)


UNTRACKED = settings(kernel="marks", hooks=("forward", "input", "output"))
PINNED = Path("/sys/fs/bpf/edgeblock-1-0")


@pytest.mark.parametrize("family", [4, 6])
def test_without_conntrack_no_rule_asks_it(family):
    lines = iptables.transaction(UNTRACKED, family, iptables.Installed(), (), PINNED).splitlines()
    with_conntrack = replace(UNTRACKED, ruleset=replace(UNTRACKED.ruleset, kernel="judge"))
    usual = iptables.transaction(with_conntrack, family, iptables.Installed(), (), PINNED).splitlines()
    assert not any(word in line.lower() for line in lines for word in ("connmark", "conntrack", "ctstate", "ctdir"))

    def rest(said: list[str]) -> list[str]:
        marking = (r"-m connmark --mark \S+|-j CONNMARK --set-xmark \S+|-m conntrack (?:! )?--ctstatus ASSURED|"
                   r"-m bpf --object-pinned \S+-[a-z]+(?= |$)")
        return [" ".join(re.sub(marking, "", line).split()) for line in said
                if "DEFRAGMENT" not in line and iptables.NOTES not in line and "tcp_accepted" not in line]
    # The same rules in the same order, but for the marks, and for SYNs: the program for done flows sees the server's.
    assert [line.replace("SYN,ACK SYN -j RETURN", "SYN SYN -j RETURN") for line in rest(lines)] == rest(usual)


def test_without_conntrack_each_mark_is_a_programs():
    lines = iptables.transaction(UNTRACKED, 4, iptables.Installed(), (), PINNED).splitlines()
    asked = {}
    for _, name, words in named_rules("\n".join(lines)):
        asked[name] = [word.removeprefix(str(PINNED)).lstrip("-") for word in words if word.startswith(str(PINNED))]
        # What sets a mark is asked last, when all else is so, and has no target: the packet goes on.
        if {"answered", "reopened"} & set(asked[name]):
            assert words[-1].startswith(str(PINNED)) and "-j" not in words and "-g" not in words
    assert {name: found for name, found in asked.items() if found} == {
        "tcp_done": ["done"], "udp_done": ["done"], "tcp_reopened": ["reopened"], "tcp_blocked": ["blocked"],
        "tcp_blocked_proven": ["proven"], "tcp_syn_cleared": [""],
        "tcp_cleared": ["proven", ""], "tcp_proven": ["proven"], "tcp_server_blocked": ["blocked"],
        "tcp_answered": ["answered"], "udp_blocked": ["blocked"],
        "udp_blocked_long": ["blocked"], "udp_server_blocked": ["blocked"], "udp_answered": ["answered"]}


def test_without_conntrack_fragments_are_put_together_by_a_rule_that_no_packet_meets():
    for family in (4, 6):
        text = iptables.transaction(UNTRACKED, family, iptables.Installed(), (), PINNED)
        assert "-A EDGEBLOCK_DEFRAGMENT -m socket -j RETURN\n" in text
        assert text.count("EDGEBLOCK_DEFRAGMENT") == 2          # its declaration, and that rule
    assert "DEFRAGMENT" not in iptables.text(DEFAULT)


@pytest.mark.parametrize(("change", "line"), [
    ({"backend": "nft"}, "iptables, as nftables cannot ask the first stage"),
    ({"install": False}, "the daemon to apply the kernel rules"),
    ({"tcp_ports": "all"}, "a list in ruleset.tcp_ports"),
    ({"udp_ports": "all"}, "a list in ruleset.udp_ports"),
])
def test_what_cannot_be_without_conntrack_is_refused_by_name(change, line):
    with pytest.raises(ConfigError, match=re.escape(f'ruleset.kernel: "marks" needs {line}')) as caught:
        plan(settings(kernel="marks", **change))
    assert "\n" not in str(caught.value)
    plan(settings(**change))


SHORTCUT = {"kernel": "carry", "clients": ("eth1", "eth2"), "servers": ("eth0",)}


@pytest.mark.parametrize(("change", "line"), [
    ({"hooks": ("input", "output")}, '"forward" in ruleset.hooks'),
    ({"clients": ()}, "the interfaces of both sides"),
    ({"servers": ()}, "the interfaces of both sides"),
    ({"clients": ("ppp*",)}, "each by its whole name"),
    ({"servers": ("eth0", "eth2")}, "one side only: eth2 is in"),
])
def test_what_cannot_be_carried_past_the_rules_is_refused_by_name(change, line):
    said = re.escape('ruleset.kernel: "carry" needs ') + ".*" + re.escape(line)
    with pytest.raises(ConfigError, match=said) as caught:
        plan(settings(**SHORTCUT | change))
    assert "\n" not in str(caught.value)
    plan(settings(**SHORTCUT))
    plan(settings(**SHORTCUT | {"kernel": "marks"} | change))


def test_the_shortcut_is_printed_with_the_rules():
    lines = ruleset.text(settings(**SHORTCUT, backend="iptables")).splitlines()
    said = [line for line in lines if line.startswith("# tc ")]
    assert [line.split(" dev ")[1].split()[0] for line in said] == ["eth1", "eth2", "eth0"]
    assert all(f"object-pinned {pins.pin_path(0)}-shortcut" in line for line in said)


def test_the_rules_without_conntrack_are_printed_and_only_the_daemon_applies_them(monkeypatch):
    text = ruleset.text(replace(UNTRACKED, ruleset=replace(UNTRACKED.ruleset, backend="iptables")))
    assert f"--object-pinned {pins.pin_path(0)}-done" in text
    with pytest.raises(ConfigError, match="only edgeblock run applies them"):
        iptables.transaction(UNTRACKED, 4, iptables.Installed())
    monkeypatch.setattr(tools, "need_permission", lambda: None)
    monkeypatch.setattr(ruleset, "choose", lambda config, stage1: "nft")
    with pytest.raises(SystemProblem, match="needs iptables, which is not installed"):
        ruleset.apply(UNTRACKED, PINNED)


def test_an_unknown_back_end_is_refused_by_name():
    with pytest.raises(ConfigError, match='ruleset.backend: \'pf\': use "auto", "nft" or "iptables"'):
        ruleset.text(Config(ruleset=Ruleset(backend="pf")))


SAVED = """*mangle
:FORWARD ACCEPT [1:2]
:EDGEBLOCK_FORWARD - [0:0]
:EDGEBLOCK_NOTES - [0:0]
:EDGEBLOCK_OLD - [0:0]
:OPERATOR - [0:0]
-A FORWARD -p tcp -j TCPMSS --clamp-mss-to-pmtu
-A FORWARD -j EDGEBLOCK_FORWARD
-A FORWARD -j EDGEBLOCK_FORWARD
-A OPERATOR -j EDGEBLOCK_OLD
-A EDGEBLOCK_FORWARD -g EDGEBLOCK_OLD
-A EDGEBLOCK_NOTES -m comment --comment "made FORWARD"
-A EDGEBLOCK_NOTES -m comment --comment "made INPUT"
COMMIT
"""


def test_what_is_there_is_read_from_a_dump():
    now = iptables.read(SAVED)
    assert now.chains == {"EDGEBLOCK_FORWARD", "EDGEBLOCK_NOTES", "EDGEBLOCK_OLD"}
    assert now.jumps == ("-A FORWARD -j EDGEBLOCK_FORWARD",) * 2 + ("-A OPERATOR -j EDGEBLOCK_OLD",)
    assert now.made == {"FORWARD", "INPUT"}


def test_a_transaction_keeps_one_jump_and_clears_what_is_stale():
    lines = iptables.transaction(DEFAULT, 4, iptables.read(SAVED)).splitlines()
    assert lines.count("-D FORWARD -j EDGEBLOCK_FORWARD") == 1
    assert "-D OPERATOR -j EDGEBLOCK_OLD" in lines and lines[-2] == "-X EDGEBLOCK_OLD"
    assert not any(line.startswith("-A FORWARD") for line in lines)
    # What was made is remembered for as long as rules are there; and more is added to it.
    everywhere = settings(hooks=("forward", "output"))
    lines = iptables.transaction(everywhere, 4, iptables.read(SAVED), ["OUTPUT"]).splitlines()
    assert [line.split('"')[1] for line in lines if "made" in line] == ["made FORWARD", "made INPUT", "made OUTPUT"]


def test_a_rule_whose_note_is_gone_counts_under_its_chain():
    assert list(iptables.counted("[7:9] -A EDGEBLOCK_FORWARD -p tcp -j RETURN\n")) == [("forward", 7, 9)]


def test_removal_touches_nothing_that_is_not_ours():
    for line in iptables.removal(iptables.read(SAVED)).splitlines()[1:-1]:
        assert "EDGEBLOCK_" in line and "TCPMSS" not in line


@pytest.mark.parametrize(("complaint", "line"), [
    ("iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
     "not permitted; run this as root"),
    ("Warning: Extension NFQUEUE revision 0 not supported, missing kernel module?\niptables-restore: line 9 failed",
     "this kernel lacks NFQUEUE; load it (modprobe xt_NFQUEUE)"),
    ("/dev/stdin:4:9-40: Error: Could not process rule: No such file or directory\n  queue num 0 bypass\n",
     "lacks the nft queue statement"),
    ("Error: TC classifier not found.\nWe have an error talking to the kernel\n", "modprobe sch_ingress cls_bpf"),
    ("something else\nand more", "something else"),
    ("", "failed with status 4"),
])
def test_complaints_of_the_programs_become_one_line_with_the_way_out(complaint, line):
    explained = tools.explain(complaint, 4)
    assert line in explained and "\n" not in explained


def test_a_missing_program_is_one_line_with_the_package(monkeypatch):
    monkeypatch.setattr(tools, "PATH", "/nowhere")
    with pytest.raises(SystemProblem, match="iptables-restore: not installed; install the package iptables"):
        tools.run(["iptables-restore"])


def test_a_program_that_cannot_be_started_is_one_line(monkeypatch):
    def no_process(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(tools.subprocess, "run", no_process)
    with pytest.raises(SystemProblem, match="^sh: cannot be started: Resource temporarily unavailable$"):
        tools.run(["sh"])


def test_what_is_queued_on_every_port_is_what_the_core_reads():
    reader = Reader()
    near = {(version + step) % 2**32 for version in (0, *QUIC_VERSIONS) for step in range(-256, 257)}
    read = {version for version in near if "unknown" not in reader.read(b"\xc0" + version.to_bytes(4) + bytes(50))[0]}
    assert read == set(QUIC_VERSIONS)


def test_the_rules_need_nothing_but_pythons_own_library():
    """So a machine that has no more, as in tests/vm/boot.py, can have them."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); import edgeblock.netfilter.ruleset"
    subprocess.run([sys.executable, "-S", "-I", "-c", code], check=True)


@pytest.mark.parametrize(("clients", "servers", "apart"), [
    ("eth1", "eth0", True), ("eth1 ppp*", "eth0 eth2", True), ("eth1.*", "eth1", True), ("eth1.*", "eth10*", True),
    ("eth1", "eth0 eth1", False), ("eth*", "eth0", False), ("eth0", "eth*", False), ("eth*", "eth1.*", False),
    ("eth1.*", "eth*", False), ("*", "eth0", False), ("", "eth0", False), ("eth1", "", False), ("", "", False)])
def test_sides_are_apart_where_no_interface_can_be_on_both(clients, servers, apart):
    ruleset = Ruleset(clients=tuple(clients.split()), servers=tuple(servers.split()))
    assert checks.are_apart(ruleset) is apart
