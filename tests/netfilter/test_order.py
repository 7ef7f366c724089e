"""Which rules may take packets away before our jump: by their targets, through chains, and where the jump goes."""

import pytest

from edgeblock.config import Config
from edgeblock.netfilter import iptables, order

HEAD = """*mangle
:FORWARD ACCEPT [0:0]
:EDGEBLOCK_FORWARD - [0:0]
:TAKES - [0:0]
:HARMLESS - [0:0]
:DEEP - [0:0]
-A TAKES -p udp -j LOG
-A TAKES -s 192.0.2.0/24 -j ACCEPT
-A HARMLESS -j MARK --set-xmark 0x1/0xffffffff
-A HARMLESS -j RETURN
-A HARMLESS -j DROP
-A DEEP -j HARMLESS
-A DEEP -j TAKES
"""
JUMP = "-A FORWARD -j EDGEBLOCK_FORWARD"


def passed(*lines: str) -> tuple[str, ...]:
    return iptables.read(HEAD + "\n".join([*lines, JUMP, "COMMIT"])).passed


@pytest.mark.parametrize(("rule", "takes"), [
    ("-j ACCEPT", True), ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", True), ("-j RETURN", True),
    ("-j NFQUEUE --queue-num 9", True), ("-j TAKES", True), ("-j DEEP", True), ("-g HARMLESS", True),
    ("-g DEEP", True), ("-j SOMETHINGNEW", True),
    ("-p tcp", False), ("-j DROP", False), ("-j REJECT --reject-with icmp-port-unreachable", False),
    ("-j HARMLESS", False), ("-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", False),
    ('-m comment --comment "for -j ACCEPT" -j LOG', False), ("-j CONNMARK --restore-mark", False),
])
def test_what_a_rule_takes_away(rule, takes):
    line = f"-A FORWARD {rule}"
    assert passed(line) == ((line,) if takes else ())


def test_a_rule_behind_the_jump_takes_nothing():
    assert iptables.read(HEAD + f"{JUMP}\n-A FORWARD -j ACCEPT\n").passed == ()


def test_the_jump_goes_before_the_first_that_takes_and_behind_what_does_not():
    saved = HEAD + "-A FORWARD -j LOG\n-A FORWARD -j ACCEPT\n-A FORWARD -j TAKES\n"
    lines = iptables.transaction(Config(), 4, iptables.read(saved + JUMP)).splitlines()
    assert "-D FORWARD -j EDGEBLOCK_FORWARD" in lines and "-I FORWARD 2 -j EDGEBLOCK_FORWARD" in lines
    lines = iptables.transaction(Config(), 4, iptables.read(saved)).splitlines()
    assert "-I FORWARD 2 -j EDGEBLOCK_FORWARD" in lines and not any(line.startswith("-D") for line in lines)
    lines = iptables.transaction(Config(), 4, iptables.read(HEAD + "-A FORWARD -j LOG\n")).splitlines()
    assert JUMP in lines


def test_a_circle_and_an_open_quote_end():
    chains = order.chains_of("-A A -j B\n-A B -j A\n-A FORWARD -j A\n-A FORWARD -m comment --comment \"open -j LOG\n")
    assert [line for _, line in order.taking(chains, "FORWARD", "EDGEBLOCK_")] == ["-A FORWARD -j A"]
