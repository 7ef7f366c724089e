"""The rules as one native nftables table, `inet edgeblock`. In: settings. Out: text for `nft -f`, and its counters.

Every change is one transaction. Nothing outside the table is read or written.
"""

import itertools
import json
from collections.abc import Iterator

from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import netlink, tools
from edgeblock.netfilter.checks import queues
from edgeblock.netfilter.marks import marks
from edgeblock.netfilter.pair import CLIENTS, SERVERS
from edgeblock.netfilter.policy import (
    ANSWER_BYTES,
    ANSWER_OTHER_BYTES,
    DTLS_FIRST,
    DTLS_LAST,
    DTLS_MAJOR,
    NEITHER,
    QUIC_VERSIONS,
    RETRY_RANDOM,
    TLS_ANSWERS,
    TLS_HANDSHAKE,
    TLS_RANDOM_AT,
    TLS_SERVER_HELLO,
    TLS_TYPE_AT,
    UNMERGED_BYTES,
    Do,
    Is,
    Rule,
    by_family,
    plan,
)
from edgeblock.netfilter.standing import Place, Standing

TABLE = "inet edgeblock"

# "table" twice around "delete": the first makes sure that there is one to delete, so the text replaces and removes
# in one transaction whether or not the table was there.
CLEAR = f"table {TABLE}\ndelete table {TABLE}\n"

# Header lengths are counted in words of 4 bytes; 5 to 15 are possible. A packet is bare when its length is exactly
# that of its headers: nftables cannot add, so the combinations are listed.
WORDS = range(5, 16)
SETS = {
    "bare4": ("typeof ip hdrlength . ip length . tcp doff",
              [f"{ip} . {4 * (ip + tcp)} . {tcp}" for ip in WORDS for tcp in WORDS]),
    "bare6": ("typeof ip6 length . tcp doff", [f"{4 * tcp} . {tcp}" for tcp in WORDS]),
}

PROBE = """table inet edgeblock_probe {
    chain forward {
        type filter hook forward priority mangle; policy accept;
        ct mark 0 tcp dport 443 @ih,0,16 0x1603 queue num 0 bypass
    }
}
"""


def text(config: Config) -> str:
    """The whole table, as `nft -f` takes it: it replaces what is in force at once."""
    chains = plan(config)
    lines = [f"table {TABLE} {{"]
    if config.ruleset.tcp_ports:
        for name, (kind, elements) in SETS.items():
            lines += [f"    set {name} {{", f"        {kind}", "        elements = {"]
            lines += [f"            {', '.join(elements[i:i + 11])}," for i in range(0, len(elements), 11)]
            lines += ["        }", "    }"]
    for chain in chains:
        lines += [f"    chain {chain.name} {{"]
        if chain.hook:
            lines += [f"        type filter hook {chain.hook} priority mangle; policy accept;"]
        lines += [f"        {line}" for rule in chain.rules for line in statements(rule, config)]
        lines += ["    }"]
    return CLEAR + "\n".join(lines) + "\n}\n"


def statements(rule: Rule, config: Config) -> Iterator[str]:
    """The lines for one rule: one for each combination of the alternatives of its conditions."""
    table = conditions(config)
    for parts in itertools.product(*(table[one] for one in rule.when)):
        words = [*parts, "counter", action(rule.do, config), f'comment "{rule.name}"']
        yield " ".join(word for word in words if word)


def conditions(config: Config) -> dict[Is, tuple[str, ...]]:
    """Each condition as nftables says it; several texts are alternatives."""
    bits = marks(config.ruleset.mark_mask)
    ours = f"meta mark & {config.ruleset.inject_mark:#010x} == {config.ruleset.inject_mark:#010x}"

    def marked(value: int) -> tuple[str, ...]:
        return (f"ct mark & {bits.mask:#010x} == {value:#010x}",)

    def ports(field: str, listed: tuple[int, ...] | str) -> tuple[str, ...]:
        return () if isinstance(listed, str) else (f"{field} {{ {', '.join(map(str, listed))} }}",)

    def interfaces(field: str, listed: tuple[str, ...]) -> tuple[str, ...]:
        whole = [f'"{name}"' for name in listed if not name.endswith("*")]
        begun = [f'{field} "{name}"' for name in listed if name.endswith("*")]
        return (*((f"{field} {{ {', '.join(whole)} }}",) if whole else ()), *begun)

    def networks(field: str, listed: tuple[str, ...]) -> tuple[str, ...]:
        parts = (("ip", by_family(listed, 4)), ("ip6", by_family(listed, 6)))
        return tuple(f"{family} {field} {{ {', '.join(some)} }}" for family, some in parts if some)

    return {
        Is.FROM_CLIENTS: interfaces("iifname", config.ruleset.clients),
        Is.TO_CLIENTS: interfaces("oifname", config.ruleset.clients),
        Is.FROM_SERVERS: interfaces("iifname", config.ruleset.servers),
        Is.TO_SERVERS: interfaces("oifname", config.ruleset.servers),
        Is.FROM_PROBE_CLIENTS: interfaces("iifname", (CLIENTS,)),
        Is.TO_PROBE_SERVERS: interfaces("oifname", (SERVERS,)),
        Is.FROM_PROBE_SERVERS: interfaces("iifname", (SERVERS,)),
        Is.TO_PROBE_CLIENTS: interfaces("oifname", (CLIENTS,)),
        Is.EXEMPT_CLIENT: networks("saddr", config.ruleset.exempt_clients),
        Is.EXEMPT_SERVER: networks("daddr", config.ruleset.exempt_servers),
        Is.TCP_TO_PORT: ports("tcp dport", config.ruleset.tcp_ports),
        Is.TCP_FROM_PORT: ports("tcp sport", config.ruleset.tcp_ports),
        Is.UDP_TO_PORT: ports("udp dport", config.ruleset.udp_ports),
        Is.UDP_FROM_PORT: ports("udp sport", config.ruleset.udp_ports),
        Is.TCP: ("meta l4proto tcp",),
        Is.UDP: ("meta l4proto udp",),
        Is.ORIGINAL: ("ct direction original",),
        Is.REPLY: ("ct direction reply",),
        Is.STATELESS: ("ct state invalid,untracked",),
        Is.ASSURED: ("ct status assured",),
        Is.NOT_ASSURED: ("ct status & assured == 0",),
        Is.PROVEN: ("tcp flags & (syn | rst | ack) == ack ct status assured",),
        Is.OURS: (ours,),
        Is.OURS_LOOPED: (f'iifname "lo" {ours}',),
        Is.UNDECIDED: marked(bits.undecided),
        Is.DONE: marked(bits.done),
        Is.BLOCKED: marked(bits.blocked),
        Is.SYN: ("tcp flags & (syn | ack) == syn",),
        Is.NO_SYN: ("tcp flags & syn == 0",),
        Is.NO_OPENING: ("tcp flags & (syn | ack) != syn",),
        Is.SYN_ACK: ("tcp flags & (syn | ack) == (syn | ack)",),
        Is.BARE: ("tcp flags & urg == 0 ip hdrlength . ip length . tcp doff @bare4",
                  "tcp flags & urg == 0 ip6 nexthdr tcp ip6 length . tcp doff @bare6"),
        Is.ANSWER: tuple(f"{family} meta length >= {least} {beginning}"
                         for family in ("meta nfproto ipv4", "ip6 nexthdr tcp")
                         for least, beginning in beginnings_of_answers()),
        # @th,64,8: the byte after the UDP header.
        Is.SHORT: tuple(f"{family} meta length <= {UNMERGED_BYTES} @th,64,8 & 0x80 == 0 "
                        f"@th,64,8 != {DTLS_FIRST}-{DTLS_LAST}"
                        for family in ("meta nfproto ipv4", "ip6 nexthdr udp")),
        Is.INITIAL: (f"@th,64,8 & 0x80 == 0x80 @th,72,32 {{ {', '.join(f'{v:#010x}' for v in QUIC_VERSIONS)} }}",
                     f"@th,64,8 {DTLS_FIRST}-{DTLS_LAST} @th,72,8 {DTLS_MAJOR}",
                     f"meta length > {UNMERGED_BYTES}"),
    }


def beginnings_of_answers() -> tuple[tuple[int, str], ...]:
    """The least length, and what has to be at the beginning of the payload (@ih: behind the TCP header)."""
    handshake = f"@ih,0,16 {TLS_HANDSHAKE:#06x} @ih,{8 * TLS_TYPE_AT},8"
    return ((ANSWER_BYTES, f"{handshake} != {TLS_SERVER_HELLO}"),
            (ANSWER_BYTES, f"{handshake} {TLS_SERVER_HELLO} @ih,{8 * TLS_RANDOM_AT},32 != {RETRY_RANDOM:#010x}"),
            (ANSWER_BYTES, f"@ih,0,16 {{ {', '.join(f'{one:#06x}' for one in TLS_ANSWERS)} }}"),
            (ANSWER_OTHER_BYTES, f"@ih,0,8 {{ {', '.join(f'{a:#04x}-{b:#04x}' for a, b in NEITHER)} }}"))


def action(do: Do, config: Config) -> str:
    """What a rule does, as nftables says it."""
    bits = marks(config.ruleset.mark_mask)
    first, last = queues(config)
    queue = f"queue num {first}" if first == last else f"queue num {first}-{last}"
    keep = f"ct mark set ct mark & {~bits.mask & 0xFFFFFFFF:#010x}"
    return {
        Do.QUEUE: f"{queue} bypass" if config.ruleset.absent == "open" else queue,
        Do.QUEUE_OR_DROP: queue,
        Do.DROP: "drop",
        Do.RETURN: "return",
        Do.MARK_DONE: f"{keep} | {bits.done:#010x}",
        Do.MARK_UNDECIDED: keep,
        Do.MARK_PROVEN: f"meta mark set meta mark | {config.ruleset.proof_mark:#010x}",
    }.get(do) or f"goto {do.name.lower()}"


def probe() -> None:
    """SystemProblem unless this kernel takes a queue statement. The kernel checks the rules and throws them away."""
    tools.run(["nft", "--check", "--file", "-"], PROBE)


def apply(config: Config) -> None:
    """Put the table in force, in place of the one that may be there."""
    tools.run(["nft", "--file", "-"], text(config))


def standing(config: Config) -> Standing:
    """What of ours has to stand in the kernel with these settings."""
    counts: dict[str, int] = {}
    chain = ""
    for line in text(config).splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
            counts[chain] = 0
        elif " counter" in line and chain:
            counts[chain] += 1
    hooks = {chain.name: "" for chain in plan(config) if chain.hook}
    return Standing((Place(0, TABLE.split()[1], counts, hooks),))


def present() -> bool:
    """Whether the table is there."""
    return netlink.table_exists(0, TABLE.split()[1])       # nft reads everything that any table holds


def remove() -> None:
    """Take the table away, if it is there."""
    if present():
        tools.run(["nft", "--file", "-"], CLEAR)


def counters() -> Iterator[tuple[str, int, int]]:
    """(rule name, packets, bytes) of every rule in force; a name occurs once for each alternative."""
    answer = tools.run(["nft", "--json", "list", "table", *TABLE.split()])
    try:
        objects = json.loads(answer)["nftables"]
    except (ValueError, KeyError):
        raise SystemProblem("nft: its JSON cannot be read; is it built with JSON support?") from None
    for one in objects:
        rule = one.get("rule", {})
        for expression in rule.get("expr", ()):
            if "counter" in expression and "comment" in rule:
                yield rule["comment"], expression["counter"]["packets"], expression["counter"]["bytes"]

