"""What goes past the rules: of nft's listing the flow tables that matter, of bridges and interfaces those meant."""

from dataclasses import replace

import pytest

from edgeblock.config import Config
from edgeblock.netfilter import bypass

TABLE = """table inet mine {
\tflowtable fast {
\t\thook ingress priority filter
\t\tdevices = { eth0, eth1 }%s
\t}

\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;%s
\t}
}
"""
DONE = "ct mark & 0x30000000 == 0x10000000"


def found(flags: str, *rules: str) -> list[str]:
    listed = TABLE % (flags, "".join(f"\n\t\t{rule}" for rule in rules))
    return list(bypass.offloading(listed, 0x30000000, 0x10000000))


@pytest.mark.parametrize(("rules", "told"), [
    ((), [", which no rule fills yet"]),
    (("meta l4proto tcp flow add @fast",), [": meta l4proto tcp flow add @fast"]),
    (("ct state established flow offload @fast",), [": ct state established flow offload @fast"]),
    ((f"{DONE} flow add @fast",), []),
    ((f"{DONE.replace('&', 'and')} flow add @fast",), []),
    ((f"{DONE} flow add @fast", "flow add @fast"), [": flow add @fast"]),
    (("ct mark & 0x30000000 == 0x00000000 flow add @fast",),
     [": ct mark & 0x30000000 == 0x00000000 flow add @fast"]),
])
def test_flow_tables_that_take_what_is_not_done(rules, told):
    assert found("", *rules) == [f"flow table inet mine fast{rest}" for rest in told]


def test_one_in_hardware_is_told_as_such():
    assert found("\n\t\tflags offload", "flow add @fast") == [
        "flow table inet mine fast (in hardware): flow add @fast"]


def test_what_iptables_offloads_is_told():
    listed = 'table ip filter {\n\tchain FORWARD {\n\t\tcounter xt target "FLOWOFFLOAD"\n\t}\n}'
    [told] = bypass.offloading(listed, 1, 1)
    assert told == 'table ip filter: counter xt target "FLOWOFFLOAD"'


def test_interfaces_that_are_not_there():
    config = replace(Config(), ruleset=replace(Config().ruleset, clients=("lo", "none1"), servers=("ppp*", "gone0")))
    assert [(one.kind, one.found.partition(": there")[0]) for one in bypass.interfaces(config)] == [
        ("interface", "ruleset.clients: none1"), ("interface", "ruleset.servers: gone0")]


def test_a_bridge_that_is_not_shown_to_us(tmp_path, monkeypatch):
    network, sysctl = tmp_path / "class", tmp_path / "sys"
    for port in ("eth1", "eth2"):
        (network / "br0" / "brif" / port).mkdir(parents=True)
    (network / "br0" / "bridge").mkdir()
    (network / "docker0" / "bridge").mkdir(parents=True)
    (sysctl / "bridge").mkdir(parents=True)
    monkeypatch.setattr(bypass, "NETWORK", network)
    monkeypatch.setattr(bypass, "SYSCTL", sysctl)

    def named(*clients):
        return [one.found for one in bypass.bridges(
            replace(Config(), ruleset=replace(Config().ruleset, clients=clients)))]

    [told] = named()
    assert told == "what bridge br0 forwards is not seen: call-iptables, call-ip6tables is not 1"
    assert named("eth2") == named("br*") == [told] and named("eth3") == []
    for name in ("call-iptables", "call-ip6tables"):
        (sysctl / "bridge" / f"bridge-nf-{name}").write_text("1\n")
    assert named() == []
    (network / "br0" / "bridge" / "vlan_filtering").write_text("1\n")
    assert named() == ["what bridge br0 forwards is not seen: filter-vlan-tagged is not 1"]
