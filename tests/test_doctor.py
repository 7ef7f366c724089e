"""What doctor finds. In: settings, and a machine arranged for the test. Out: findings, the table and its status."""

import io
import os
import socket
import struct
from dataclasses import replace

import pytest

from edgeblock import doctor
from edgeblock.config import Config, Rules
from edgeblock.doctor import MISSING, OK, WARNING, Finding
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
        assert one.found and "\n" not in one.found + one.mend, one
        assert one.mend or one.state != MISSING, one


def test_the_rules_directory(lists, tmp_path):
    assert next(doctor.rules_directory(lists)) == Finding("rules directory", OK, f"{tmp_path}: 1 file(s)")
    gone = Config(rules=Rules(directory=tmp_path / "gone"))
    assert next(doctor.rules_directory(gone)).state == MISSING
    (tmp_path / "empty").mkdir()
    assert next(doctor.rules_directory(Config(rules=Rules(directory=tmp_path / "empty")))).state == WARNING


def test_a_missing_module_is_named_with_its_package(lists, monkeypatch):
    monkeypatch.setitem(doctor.MODULES, "no_such_module", "NoSuchPackage")
    found = next(doctor.python(lists))
    assert (found.state, found.mend) == (MISSING, "pip install NoSuchPackage")


def test_missing_programs_are_missing_only_where_nothing_replaces_them(lists, monkeypatch):
    monkeypatch.setattr(tools, "find", lambda program: None)
    findings = list(doctor.programs(lists))
    assert find(findings, "nft").state == find(findings, "iptables").state == MISSING
    assert find(findings, "nft").mend == "apt install nftables"
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
    assert found.state == WARNING and "ct mark & 0x30000000 == 0x10000000 flow add" in found.mend
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
    assert before.state == WARNING and before.mend == "edgeblock ruleset apply"
    assert (after.state, after.found) == (OK, "in force (iptables)")


@pytest.mark.live
def test_a_box_that_does_not_forward_is_told_how(lists):
    findings = doctor.in_new_namespace(lambda: list(doctor.forwarding(lists)))
    assert findings[0].mend.startswith("sysctl -w net.ipv4.ip_forward=1")
    only_output = replace(lists, ruleset=replace(lists.ruleset, hooks=("output",)))
    assert list(doctor.forwarding(only_output)) == []
