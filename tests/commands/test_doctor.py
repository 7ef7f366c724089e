"""What doctor finds. In: settings, and a machine arranged for the test. Out: findings, the table and its status."""

import io
import os
import socket
import struct
from dataclasses import replace

import pytest

from edgeblock.commands import doctor
from edgeblock.commands.doctor import MISSING, OK, WARNING, Finding
from edgeblock.config import Config, Rules
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import netlink, ruleset, tools


def find(findings: list[Finding], name: str) -> Finding:
    return next(one for one in findings if one.name == name)


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "court.list").write_text("example.com\n")
    return Config(rules=Rules(directory=tmp_path))


def test_every_finding_that_is_not_ok_says_what_to_do(lists):
    findings = doctor.examine(lists)
    assert {one.state for one in findings} <= {OK, WARNING, MISSING}
    for one in findings:
        assert one.found and "\n" not in one.found + one.fix, one
        assert one.fix or one.state != MISSING, one


def test_the_rules_directory(lists, tmp_path):
    assert next(doctor.rules_directory(lists)) == Finding("rules directory", OK, f"{tmp_path}: 1 file(s)")
    gone = Config(rules=Rules(directory=tmp_path / "gone"))
    assert next(doctor.rules_directory(gone)).state == MISSING
    (tmp_path / "empty").mkdir()
    assert next(doctor.rules_directory(Config(rules=Rules(directory=tmp_path / "empty")))).state == WARNING


def test_shared_networks_are_there_and_not_too_old(lists, tmp_path):
    [found] = doctor.shared_networks(lists)
    assert (found.name, found.state) == ("shared networks", OK) and " owners, as of 2025-" in found.found
    own = tmp_path / "own.networks"
    own.write_text("[Apple]\nkind = x\nsource = y\ndate = 2019-01-01\n17.0.0.0/8\n")
    settings = replace(lists, rules=replace(lists.rules, shared=own))
    [found] = doctor.shared_networks(settings)
    assert found.state == WARNING and "Apple (2019-01-01)" in found.found
    assert found.fix.startswith("get what their owners publish")
    own.write_text("rubbish\n")
    [found] = doctor.shared_networks(settings)
    assert found.state == MISSING and found.found.startswith(f"{own}:1: 'rubbish' is neither ")


def test_a_missing_module_is_named_with_its_package(lists, monkeypatch):
    monkeypatch.setitem(doctor.MODULES, "no_such_module", "NoSuchPackage")
    found = next(doctor.python(lists))
    assert (found.state, found.fix) == (MISSING, "pip install NoSuchPackage")


def test_missing_programs_are_missing_only_where_nothing_replaces_them(lists, monkeypatch):
    monkeypatch.setattr(tools, "find", lambda program: None)
    findings = list(doctor.programs(lists))
    assert find(findings, "nft").state == find(findings, "iptables").state == MISSING
    assert find(findings, "nft").fix == "apt install nftables"
    assert find(findings, "nginx").state == WARNING
    monkeypatch.setattr(tools, "find", lambda program: None if program == "nft" else "/bin/true")
    assert find(list(doctor.programs(lists)), "nft").state == WARNING
    wanted = replace(lists, ruleset=replace(lists.ruleset, backend="nft"))
    assert find(list(doctor.programs(wanted)), "nft").state == MISSING


def test_without_capabilities_it_says_so_and_does_not_fail(lists, monkeypatch):
    monkeypatch.setattr(tools, "capable", lambda bit: False)
    findings = doctor.examine(lists)
    assert find(findings, "CAP_NET_ADMIN").state == find(findings, "CAP_NET_RAW").state == MISSING
    assert find(findings, "kernel features").state == WARNING
    assert doctor.report(findings, io.StringIO()) == 1


def test_the_table_and_its_status():
    out = io.StringIO()
    assert doctor.report([Finding("a", OK, "here"), Finding("b", WARNING, "[odd]", "look")], out) == 0
    assert "[odd]" in out.getvalue() and "look" in out.getvalue()
    assert doctor.report([Finding("c", MISSING, "gone", "get it")], io.StringIO()) == 1


@pytest.mark.live
def test_this_machine_can_run_the_live_tests(lists):
    findings = doctor.examine(lists)
    for name in ("CAP_NET_ADMIN", "NFQUEUE", "fail-open queue", "back end"):
        assert find(findings, name).state == OK, find(findings, name)


@pytest.mark.live
def test_examining_leaves_no_trace(lists):
    def everything() -> str:
        return tools.run(["nft", "list", "ruleset"]) + tools.run(["ip", "netns", "list"])

    def twice() -> tuple[str, str]:
        before = everything()
        doctor.examine(lists)
        return before, everything()
    before, after = doctor.in_new_namespace(twice)
    assert before == after


@pytest.mark.live
def test_another_program_on_the_queue_is_named(lists):
    def held() -> Finding:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink.NETLINK_NETFILTER) as link:
            bind = netlink.attribute(netlink.COMMAND, struct.pack("!BBH", netlink.BIND, 0, 0))
            request = netlink.message(netlink.QUEUE, netlink.QUEUE_CONFIG, netlink.ACK, 0, 0, bind)
            assert netlink.answer(link, request) == 0
            return next(doctor.queue_owner(lists))
    found = doctor.in_new_namespace(held)
    assert "held by" in found.found and str(os.getpid()) in found.found
    assert doctor.in_new_namespace(lambda: next(doctor.queue_owner(lists))).found == "free"


@pytest.mark.parametrize("running", [True, False])
def test_a_queue_that_a_worker_before_has_bound(lists, monkeypatch, running):
    """The kernel still names that worker, by a process id that is gone."""
    there = {"/proc/thread-self/net/netfilter/nfnetlink_queue": "0 4194305 0 2 65531 0 0 1 1\n"}
    ours = f"/proc/{os.getpid()}/cmdline"
    monkeypatch.setattr(doctor, "read", lambda path: there.get(str(path), "edgeblock run" * running
                                                               if str(path) == ours else ""))
    found = next(doctor.queue_owner(lists))
    assert (found.state, found.fix == "") == ((OK, True) if running else (WARNING, False))


# As nft 1.0.6 prints it; the kernel of a test machine may lack flowtables.
FLOWTABLES = """table inet mine {
\tflowtable fast {
\t\thook ingress priority filter
\t\tdevices = { eth0, eth1 }
\t}
}
"""


def test_a_flowtable_is_pointed_out_with_the_condition_to_add(lists, monkeypatch):
    monkeypatch.setattr(tools, "capable", lambda bit: True)
    monkeypatch.setattr(tools, "find", lambda program: program)
    monkeypatch.setattr(tools, "run", lambda command: FLOWTABLES)
    found = next(doctor.offloading(lists))
    assert found.state == WARNING and "ct mark & 0x30000000 == 0x10000000 flow add" in found.fix
    monkeypatch.setattr(tools, "run", lambda command: "table inet edgeblock {\n}\n")
    assert next(doctor.offloading(lists)).state == OK


@pytest.mark.live
def test_rules_in_force_are_seen(lists):
    config = replace(lists, ruleset=replace(lists.ruleset, backend="iptables", install=False))

    def applied() -> tuple[Finding, Finding]:
        before = next(doctor.rules_in_force(config))
        ruleset.apply(config)
        return before, next(doctor.rules_in_force(config))
    before, after = doctor.in_new_namespace(applied)
    assert before.state == WARNING and before.fix == "edgeblock ruleset apply"
    assert (after.state, after.found) == (OK, "in force (iptables)")


@pytest.mark.live
@pytest.mark.parametrize(("ruin", "told"), [
    (["iptables", "-t", "mangle", "-D", "EDGEBLOCK_FORWARD", "3"], "FORWARD in ip mangle has 5 rules, not 6"),
    (["ip6tables", "-t", "mangle", "-F", "EDGEBLOCK_TCP_CLIENT"], "EDGEBLOCK_TCP_CLIENT in ip6 mangle has 0 rules"),
    (["iptables", "-t", "mangle", "-D", "FORWARD", "-j", "EDGEBLOCK_FORWARD"], "the jump from FORWARD to"),
    (["iptables", "-t", "mangle", "-R", "EDGEBLOCK_TCP_CLIENT", "5", "-p", "tcp", "-j", "ACCEPT"],
     "not ours: -A EDGEBLOCK_TCP_CLIENT -p tcp -j ACCEPT"),
    (["nft", "delete", "table", "ip", "mangle"], "table ip mangle is gone"),
    (["nft", "add", "table", "ip", "mangle", "{ flags dormant; }"], "table ip mangle is dormant"),
])
def test_each_rule_and_each_jump_is_looked_at(lists, ruin, told):
    config = replace(lists, ruleset=replace(lists.ruleset, backend="iptables", kernel="off"))

    def look() -> list[Finding]:
        ruleset.apply(config)
        sound = next(doctor.rules_in_force(config))
        tools.run(ruin)
        return [sound, next(doctor.rules_in_force(config))]
    sound, found = doctor.in_new_namespace(look)
    assert (sound.state, sound.found) == (OK, "in force (iptables)")
    assert found.state == MISSING and told in found.found


@pytest.mark.live
def test_rules_before_ours_and_behind_are_told_with_their_text(lists):
    config = replace(lists, ruleset=replace(lists.ruleset, backend="iptables", kernel="off"))

    def look() -> list[Finding]:
        ruleset.apply(config)
        tools.run(["iptables", "-t", "mangle", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED",
                   "-j", "ACCEPT"])
        tools.run(["ip6tables", "-t", "mangle", "-A", "FORWARD", "-j", "MARK", "--set-mark", "1"])
        found = list(doctor.past_us(config))
        ruleset.apply(config)
        return [*found, *doctor.past_us(config)]
    before, behind, behind_again = doctor.in_new_namespace(look)
    assert (before.name, before.state) == ("rules before ours", MISSING)
    assert "iptables -t mangle -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT" in before.found
    assert behind == behind_again and behind.state == WARNING
    assert "ip6tables -t mangle -A FORWARD -j MARK" in behind.found


@pytest.mark.live
def test_without_a_daemon_it_says_that_nothing_is_filtered(lists):
    config = replace(lists, daemon=replace(lists.daemon, control=lists.rules.directory / "none"))
    [found] = doctor.in_new_namespace(lambda: list(doctor.daemon(config)))
    assert found.state == WARNING and found.found == "none runs in this network namespace: nothing is filtered"


@pytest.mark.live
def test_a_box_that_does_not_forward_is_told_how(lists):
    findings = doctor.in_new_namespace(lambda: list(doctor.forwarding(lists)))
    assert findings[0].fix.startswith("sysctl -w net.ipv4.ip_forward=1")
    only_output = replace(lists, ruleset=replace(lists.ruleset, hooks=("output",)))
    assert list(doctor.forwarding(only_output)) == []


# ---- what a box may have wrong ----

@pytest.fixture
def network(tmp_path, monkeypatch):
    """A machine with these interfaces; br0 is a bridge."""
    for name in ("eth0", "eth1.7", "eth1.8", "br0"):
        (tmp_path / "net" / name).mkdir(parents=True)
    (tmp_path / "net" / "br0" / "bridge").mkdir()
    (tmp_path / "bridge").mkdir()
    monkeypatch.setattr(doctor, "NETWORK", tmp_path / "net")
    monkeypatch.setattr(doctor, "BRIDGE", tmp_path / "bridge")
    return tmp_path


def test_interfaces_that_are_not_there_are_named(lists, network):
    config = replace(lists, ruleset=replace(lists.ruleset, clients=("eth1.*",), servers=("eth0", "eth9")))
    found = list(doctor.interfaces(config))
    assert [(one.name, one.state) for one in found] == [("ruleset.clients", OK), ("ruleset.servers", OK),
                                                        ("ruleset.servers", WARNING)]
    assert found[0].found == "eth1.*: eth1.7, eth1.8" and "eth9" in found[2].found


def test_a_bridge_that_hides_its_packets_is_told_how(lists, network):
    def bridge() -> Finding:
        return next(doctor.bridges(lists))
    assert bridge().state == WARNING
    assert "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1" in bridge().fix
    for name in ("call-iptables", "call-ip6tables"):
        (network / "bridge" / f"bridge-nf-{name}").write_text("1\n")
    assert bridge().state == OK
    (network / "net" / "br0" / "bridge" / "vlan_filtering").write_text("1\n")
    assert bridge().fix.endswith("sysctl -w net.bridge.bridge-nf-filter-vlan-tagged=1")
    only_output = replace(lists, ruleset=replace(lists.ruleset, hooks=("output",)))
    assert list(doctor.bridges(only_output)) == []


def test_all_ports_and_connections_picked_up_midway(lists, monkeypatch):
    monkeypatch.setattr(doctor, "read", lambda path: "1\n")
    assert list(doctor.midstream(lists)) == []
    assert next(doctor.windows(lists)).fix.endswith("be_liberal=0")
    every = replace(lists, ruleset=replace(lists.ruleset, tcp_ports="all"))
    assert next(doctor.midstream(every)).state == WARNING


@pytest.mark.parametrize("text", ["#!/usr/sbin/nft -f\n\nflush ruleset\n", "table inet mine\n"])
def test_a_service_that_flushes_every_ruleset_is_pointed_out(lists, monkeypatch, tmp_path, text):
    (tmp_path / "nftables.conf").write_text(text)
    monkeypatch.setattr(doctor, "FLUSHING", {"nftables": (str(tmp_path / "nftables.conf"), "flush ruleset")})
    monkeypatch.setattr(doctor.Path, "glob", lambda self, pattern: iter([self / "sysinit.target.wants"]))
    found = list(doctor.others_rules(lists))
    assert bool(found) == ("flush" in text)
    assert not found or "systemctl restart edgeblock" in found[0].fix
    monkeypatch.setattr(doctor.Path, "glob", lambda self, pattern: iter([]))
    assert list(doctor.others_rules(lists)) == []


def test_settings_larger_than_the_machine(lists):
    config = replace(lists, queue=replace(lists.queue, workers=1000), limits=replace(lists.limits, memory=1 << 40))
    findings = list(doctor.capacity(config))
    assert find(findings, "workers").fix == 'set queue.workers = "auto"'
    assert find(findings, "memory").state == WARNING
    assert find(list(doctor.capacity(lists)), "workers").state == OK


def test_too_few_open_files(lists, monkeypatch):
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda kind: (64, 64))
    assert "ulimit -n" in find(list(doctor.capacity(lists)), "open files").fix


def test_a_clock_of_long_ago(lists, monkeypatch):
    monkeypatch.setattr(doctor.time, "time", lambda: 1000.0)
    found = next(doctor.clock(lists))
    assert found.state == WARNING and "1970" not in found.fix
    monkeypatch.undo()
    assert next(doctor.clock(lists)).found


def test_a_key_that_others_may_read(lists, tmp_path):
    config = replace(lists, rules=replace(lists.rules, key=tmp_path / "key"))
    assert next(doctor.key_file(config)).found.endswith("made on first use")
    (tmp_path / "key").write_bytes(b"k" * 16)
    (tmp_path / "key").chmod(0o640)
    assert next(doctor.key_file(config)) == Finding(
        "key", MISSING, f"{tmp_path}/key: others may read it (mode 0640)", f"chmod 600 {tmp_path}/key")
    (tmp_path / "key").chmod(0o600)
    assert next(doctor.key_file(config)).state == OK


def test_lists_that_everybody_may_change(lists, tmp_path):
    (tmp_path / "court.list").chmod(0o666)
    tmp_path.chmod(0o777)
    found = list(doctor.rules_directory(lists))
    assert [one.state for one in found] == [WARNING, WARNING, OK]
    assert found[0].fix == f"chmod o-w {tmp_path}" and "court.list" in found[1].found


def test_flow_marks_without_conntrack(lists, monkeypatch):
    wanted = replace(lists, ruleset=replace(lists.ruleset, kernel="marks"))
    assert find(list(doctor.conntrack_table(wanted)), "flow marks").state == OK
    never = replace(lists, ruleset=replace(wanted.ruleset, tcp_ports="all"))
    (one,) = doctor.first_stage(never)
    assert (one.name, one.state) == ("flow marks", MISSING) and "a list in ruleset.tcp_ports" in one.found

    def refuse(*arguments, **settings):
        raise SystemProblem("first stage: not permitted")
    monkeypatch.setattr(doctor, "Stage", refuse)
    one = find(list(doctor.first_stage(wanted)), "first stage")
    assert one.state == MISSING and 'ruleset.kernel = "auto"' in one.fix


def test_the_shortcut(lists, monkeypatch):
    assert not list(doctor.past_the_rules(lists))
    wanted = replace(lists, ruleset=replace(lists.ruleset, kernel="carry"))
    (one,) = doctor.past_the_rules(wanted)
    assert one.state == MISSING and "needs the interfaces of both sides" in one.found
    wanted = replace(wanted, ruleset=replace(wanted.ruleset, clients=("lo",), servers=("none0",)))
    monkeypatch.setattr(doctor.shortcut, "with_filters", set)
    monkeypatch.setattr(doctor.shortcut, "need_no_ipsec", lambda: None)
    (one,) = doctor.past_the_rules(wanted)
    assert one.state == MISSING and "interface lo: is no Ethernet" in one.found
    monkeypatch.setattr(doctor.shortcut, "need_ethernet", lambda device: None)
    for tracked, state in ((0, OK), (7, WARNING)):
        monkeypatch.setattr(doctor.shortcut, "tracked", lambda tracked=tracked: tracked)
        (one,) = doctor.past_the_rules(wanted)
        assert one.state == state


@pytest.mark.live
def test_a_kernel_without_conntrack_will_do_where_it_is_not_to_keep_the_marks(lists, monkeypatch):
    for name in doctor.OF_CONNTRACK:
        monkeypatch.setitem(doctor.FEATURES, name, "-m no_such_match")
    monkeypatch.setattr(doctor.nft, "probe", lambda: None)
    only = replace(lists.ruleset, backend="iptables")
    assert find(list(doctor.kernel(replace(lists, ruleset=only))), "back end").state == MISSING
    wanted = replace(only, kernel="marks")
    assert find(list(doctor.kernel(replace(lists, ruleset=wanted))), "back end").state == OK


@pytest.mark.live
def test_fragments_without_conntrack(lists, monkeypatch):
    wanted = replace(lists, ruleset=replace(lists.ruleset, kernel="marks"))
    assert find(list(doctor.first_stage(wanted)), "fragments").state == OK
    assert "the kernel takes" in find(list(doctor.first_stage(wanted)), "first stage").found
    monkeypatch.setattr(doctor, "FRAGMENTS", "-m no_such_match")
    assert find(list(doctor.first_stage(wanted)), "fragments").state == MISSING


PROOF = {"state": "ok", "tried": 9, "held": 9, "beside": 8, "over_blocked": 0, "lists": 2, "of": 3, "problem": "",
         "refused": 0}


@pytest.mark.parametrize("told,state,words", [
    (PROOF, OK, "ok: 9 of 9 tries held, 0 of 8 neighbours blocked, 2 of 3 lists"),
    (PROOF | {"refused": 2}, WARNING, "new rules refused 2 times"),
    (PROOF | {"state": "failed", "held": 8, "problem": "rule 7 passes"}, MISSING, "rule 7 passes; 8 of 9 tries held"),
    (PROOF | {"state": "off"}, WARNING, "off: new rules come into force untried")])
def test_what_the_trial_of_the_rules_has_found_is_shown(told, state, words):
    [found] = doctor.shown_of_rules(told)
    assert found.state == state and words in found.found
    assert list(doctor.shown_of_rules({})) == []
