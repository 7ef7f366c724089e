"""The rules as chains EDGEBLOCK_* of iptables and ip6tables, table mangle. In: settings. Out: text for
iptables-restore, and counters.

Each family is changed in one transaction. Rules and chains of others are neither moved nor rewritten: one jump to our
chain is appended to each hook, but before the first rule of others that may take packets away (order.py), and stays
where it is when the rules are applied again, unless such a rule has come before it.

A comment is a match that the kernel evaluates. What nearly every packet would meet, the jumps and the rules that
let by or lead on, have none; their names stand in a chain of its own, where no packet comes.
"""

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edgeblock.config import Config
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.netfilter import bytecode, netlink, order, tools
from edgeblock.netfilter.checks import queues
from edgeblock.netfilter.marks import marks
from edgeblock.netfilter.pair import CLIENTS, SERVERS
from edgeblock.netfilter.pins import program_path
from edgeblock.netfilter.policy import Do, Is, Rule, by_family, plan
from edgeblock.netfilter.standing import Place, Standing, StandingText, is_dormant, wake

PREFIX = "EDGEBLOCK_"
TABLE = "mangle"
FAMILIES = {4: "iptables", 6: "ip6tables"}
OPTIONS = ("--noflush", "--wait", "5")     # keep what is not ours; wait some seconds for another program's lock
PORTS_A_RULE = 15     # what one `multiport` match takes

# Notes, as comments in a chain that nothing leads to: which rules have which name, and which hooks' chains were not
# there before us, so that `remove` can leave things as they were.
NOTES = PREFIX + "NOTES"
NAMED = re.compile(r"named (\w+) (\d+)-(\d+) (\w+)")     # chain, rules counted from 1, name
MADE = "made "

# What nearly every packet comes to.
UNNAMED = frozenset({Do.RETURN, Do.TCP_BLOCKED, Do.TCP_CLIENT, Do.TCP_SERVER, Do.UDP_CLIENT, Do.UDP_SERVER})


class Installed(NamedTuple):
    """What of ours one family holds: chains by name, the lines of other chains that lead to them, and the hooks whose
    chain is there because of us.

    `place` is, of a hook with rules of others that may take packets away, how many rules of others stand before the
    first of them; `passed` are those of them that stand before our jump.
    """

    chains: frozenset[str] = frozenset()
    jumps: tuple[str, ...] = ()
    made: frozenset[str] = frozenset()
    place: tuple[tuple[str, int], ...] = ()
    passed: tuple[str, ...] = ()


def text(config: Config, stage1: Path | None = None) -> str:
    """What `apply` gives to iptables-restore and ip6tables-restore on a machine without rules of ours."""
    return "".join(f"# {tool}-restore --noflush\n{transaction(config, family, Installed(), (), stage1)}"
                   for family, tool in FAMILIES.items())


def transaction(config: Config, family: int, now: Installed, made: Iterable[str] = (),
                stage1: Path | None = None) -> str:
    """The lines that lead from `now` to the rules of these settings.

    `made` are the hooks (as mangle spells them) whose chain does not exist yet; `stage1` is the pinned program.
    """
    planned = {PREFIX + chain.name.upper(): chain for chain in plan(config, stage1 is not None)}
    stale = sorted(now.chains - planned.keys() - {NOTES})
    wanted = {chain.hook.upper(): name for name, chain in planned.items() if chain.hook}
    # Declaring a chain makes it, or empties it.
    declared = [f":{name} - [0:0]" for name in [*planned, *stale, NOTES]]
    kept, surplus = set(), []
    late = {line.split()[1] for line in now.passed}
    for jump in now.jumps:
        hook = jump.split()[1]
        if hook not in kept and hook in wanted and jump == jump_line(hook) and hook not in late:
            kept.add(hook)
        elif hook in wanted or jump.split()[-1] in stale:
            surplus.append("-D" + jump[2:])
    hooks = [hook for hook in wanted if hook not in kept]
    rules, notes = [], [MADE + hook for hook in sorted(now.made.union(set(made).intersection(hooks)))]
    for name, chain in planned.items():
        number = 0
        for rule in chain.rules:
            lines = [f"-A {name} {line}" for line in specifications(rule, config, family, stage1)]
            if rule.do in UNNAMED and lines:
                notes.append(f"named {name.removeprefix(PREFIX)} {number + 1}-{number + len(lines)} {rule.name}")
            number += len(lines)
            rules += lines
    rules += [f'-A {NOTES} -m comment --comment "{note}"' for note in notes]
    place = dict(now.place)
    jumps = [jump_line(hook, place.get(hook, -1) + 1) for hook in hooks]
    return commands([*declared, *surplus, *rules, *jumps, *(f"-X {name}" for name in stale)])


def removal(now: Installed) -> str:
    """The lines that take everything of ours away."""
    names = sorted(now.chains)
    return commands([*(f":{name} - [0:0]" for name in names), *("-D" + jump[2:] for jump in now.jumps),
                     *(f"-X {name}" for name in names)])


def commands(lines: list[str]) -> str:
    return "\n".join([f"*{TABLE}", *lines, "COMMIT"]) + "\n"


def jump_line(hook: str, number: int = 0) -> str:
    """As iptables-save prints it, so that it is recognised; with a number, what makes it that rule of the chain."""
    return f"-I {hook} {number} -j {PREFIX}{hook}" if number else f"-A {hook} -j {PREFIX}{hook}"


def specifications(rule: Rule, config: Config, family: int, stage1: Path | None = None) -> Iterator[str]:
    """The rule's text after the chain's name: one for each combination of the alternatives of its conditions."""
    table = conditions(config, family, stage1)
    when = rule.when
    if marks_kept_by(config, stage1) and rule.do in (Do.MARK_DONE, Do.MARK_UNDECIDED):
        when = tuple(one for one in when if one not in (Is.UNDECIDED, Is.DONE, Is.ASSURED, Is.NOT_ASSURED))
    for parts in itertools.product(*(table[one] for one in when)):
        name = () if rule.do in UNNAMED else (f"-m comment --comment {rule.name}",)
        yield " ".join([*parts, *name, target(rule.do, config, stage1)])


def conditions(config: Config, family: int, stage1: Path | None = None) -> dict[Is, tuple[str, ...]]:
    """Each condition as iptables says it; several texts are alternatives."""
    bits = marks(config.ruleset.mark_mask)
    without_conntrack = marks_kept_by(config, stage1)
    ours = f"-m mark --mark {config.ruleset.inject_mark:#x}/{config.ruleset.inject_mark:#x}"

    def marked(value: int, program: str) -> tuple[str, ...]:
        if without_conntrack is not None:
            return (pinned(program_path(without_conntrack, program)),)
        return (f"-m connmark --mark {value:#x}/{bits.mask:#x}",)

    def ports(match: str, listed: tuple[int, ...] | str) -> tuple[str, ...]:
        if isinstance(listed, str):
            return ()
        groups = (listed[i:i + PORTS_A_RULE] for i in range(0, len(listed), PORTS_A_RULE))
        return tuple(f"{match} {','.join(map(str, group))}" for group in groups)

    def program(code: str) -> tuple[str, ...]:
        return (f'-m bpf --bytecode "{code}"',)

    def interfaces(option: str, listed: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{option} {name.replace('*', '+')}" for name in listed)

    def networks(option: str, listed: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{option} {one}" for one in by_family(listed, family))

    if without_conntrack is not None:
        proof = pinned(program_path(without_conntrack, "proven"))
    else:
        proof = "-m conntrack --ctstatus ASSURED"
    return {
        Is.FROM_CLIENTS: interfaces("-i", config.ruleset.clients),
        Is.TO_CLIENTS: interfaces("-o", config.ruleset.clients),
        Is.FROM_SERVERS: interfaces("-i", config.ruleset.servers),
        Is.TO_SERVERS: interfaces("-o", config.ruleset.servers),
        Is.FROM_PROBE_CLIENTS: interfaces("-i", (CLIENTS,)),
        Is.TO_PROBE_SERVERS: interfaces("-o", (SERVERS,)),
        Is.FROM_PROBE_SERVERS: interfaces("-i", (SERVERS,)),
        Is.TO_PROBE_CLIENTS: interfaces("-o", (CLIENTS,)),
        Is.EXEMPT_CLIENT: networks("-s", config.ruleset.exempt_clients),
        Is.EXEMPT_SERVER: networks("-d", config.ruleset.exempt_servers),
        Is.TCP_TO_PORT: ports("-p tcp -m multiport --dports", config.ruleset.tcp_ports),
        Is.TCP_FROM_PORT: ports("-p tcp -m multiport --sports", config.ruleset.tcp_ports),
        Is.UDP_TO_PORT: ports("-p udp -m multiport --dports", config.ruleset.udp_ports),
        Is.UDP_FROM_PORT: ports("-p udp -m multiport --sports", config.ruleset.udp_ports),
        Is.TCP: ("-p tcp",),
        Is.UDP: ("-p udp",),
        Is.ORIGINAL: ("-m conntrack --ctdir ORIGINAL",),
        Is.REPLY: ("-m conntrack --ctdir REPLY",),
        Is.STATELESS: ("-m conntrack --ctstate INVALID,UNTRACKED",),
        Is.ASSURED: ("-m conntrack --ctstatus ASSURED",),
        Is.NOT_ASSURED: ("-m conntrack ! --ctstatus ASSURED",),
        Is.PROVEN: (f"-p tcp -m tcp --tcp-flags SYN,RST,ACK ACK {proof}",),
        Is.OURS: (ours,),
        Is.OURS_LOOPED: (f"-i lo {ours}",),
        Is.UNDECIDED: (f"-m connmark --mark {bits.undecided:#x}/{bits.mask:#x}",),
        Is.DONE: marked(bits.done, "done"),
        Is.BLOCKED: marked(bits.blocked, "blocked"),
        Is.SYN: ("-p tcp -m tcp --tcp-flags SYN,ACK SYN",),
        Is.NO_SYN: ("-m tcp ! --tcp-flags SYN SYN",),
        Is.NO_OPENING: ("-m tcp ! --tcp-flags SYN,ACK SYN",),
        Is.SYN_ACK: ("-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK",),
        Is.BARE: program(bytecode.bare(family)),
        Is.ANSWER: program(bytecode.answer(family)),
        Is.SHORT: program(bytecode.short(family)),
        Is.INITIAL: program(bytecode.initial(family)),
        Is.CLEARED: (pinned(stage1),) if stage1 is not None else (),
        Is.SOCKET: ("-m socket",),
    }


def marks_kept_by(config: Config, stage1: Path | None) -> Path | None:
    """The first stage, where its programs keep the marks; None where conntrack does."""
    if config.ruleset.tracking == "conntrack":
        return None
    if stage1 is None:
        raise ConfigError(f'ruleset.kernel: "{config.ruleset.kernel}": these rules ask programs of the daemon, so '
                          'only edgeblock run applies them')
    return stage1


def pinned(program: Path) -> str:
    return f"-m bpf --object-pinned {program}"


def target(do: Do, config: Config, stage1: Path | None = None) -> str:
    """What a rule does, as iptables says it."""
    without_conntrack = marks_kept_by(config, stage1)
    if without_conntrack is not None and do in (Do.MARK_DONE, Do.MARK_UNDECIDED):
        # The last match of a rule without a target: it does what there is to do.
        return pinned(program_path(without_conntrack, "answered" if do is Do.MARK_DONE else "reopened"))
    bits = marks(config.ruleset.mark_mask)
    first, last = queues(config)
    queue = f"-j NFQUEUE --queue-num {first}" if first == last else f"-j NFQUEUE --queue-balance {first}:{last}"
    return {
        Do.QUEUE: f"{queue} --queue-bypass" if config.ruleset.absent == "open" else queue,
        Do.QUEUE_OR_DROP: queue,
        Do.DROP: "-j DROP",
        Do.RETURN: "-j RETURN",
        Do.MARK_DONE: f"-j CONNMARK --set-xmark {bits.done:#x}/{bits.mask:#x}",
        Do.MARK_UNDECIDED: f"-j CONNMARK --set-xmark {bits.undecided:#x}/{bits.mask:#x}",
        Do.MARK_PROVEN: f"-j MARK --set-xmark {config.ruleset.proof_mark:#x}/{config.ruleset.proof_mark:#x}",
    }.get(do) or f"-g {PREFIX}{do.name}"


def apply(config: Config, stage1: Path | None = None) -> None:
    """Put the chains in force for both families. If the second refuses a first installation, the first is undone."""
    plan(config)
    before = {family: installed(family) for family in FAMILIES}
    try:
        for family in FAMILIES:
            apply_to(family, config, stage1, before[family])
    except SystemProblem:
        if not any(rules.chains for rules in before.values()):
            remove()
        raise


def apply_to(family: int, config: Config, stage1: Path | None = None, now: Installed | None = None) -> None:
    """Put the chains in force for one family, whatever the other has."""
    tool = FAMILIES[family]
    lines = transaction(config, family, now or installed(family), missing(family), stage1)
    tools.run([f"{tool}-restore", *OPTIONS], lines)
    if is_native() and is_dormant(family, TABLE):
        wake(family, TABLE)


def restore(config: Config, stage1: Path | None = None) -> None:
    """The same for both, after somebody has taken rules away: one family is filtered even if the other refuses."""
    problems = []
    for family in FAMILIES:
        try:
            apply_to(family, config, stage1)
        except SystemProblem as problem:
            problems.append(str(problem))
    if problems:
        raise SystemProblem("; ".join(problems))


def standing(config: Config, stage1: Path | None = None) -> Standing | StandingText:
    """What of ours has to stand in the kernel with these settings."""
    if not is_native():
        return StandingText(ours_as_text)
    return Standing(tuple(places(config, stage1)))


def places(config: Config, stage1: Path | None = None) -> Iterator[Place]:
    """Both families' table mangle."""
    hooks = {chain.hook.upper(): PREFIX + chain.name.upper() for chain in plan(config, stage1 is not None)
             if chain.hook}
    for family in FAMILIES:
        lines = transaction(config, family, Installed(), (), stage1).splitlines()
        counts = {line.split()[0][1:]: 0 for line in lines if line.startswith(":")}
        for line in lines:
            if line.startswith(f"-A {PREFIX}"):
                counts[line.split()[1]] += 1
        del counts[NOTES]           # which hooks' chains were there before us is no rule that a packet meets
        yield Place(family, TABLE, counts, hooks)


def is_native() -> bool:
    """Whether iptables speaks to nf_tables, and not to a table of its own in the kernel (iptables-legacy)."""
    program = tools.find(f"{FAMILIES[4]}-restore")
    return speaks_to_nftables(os.path.realpath(program) if program else "")


@cache
def speaks_to_nftables(_program: str) -> bool:
    """Asked once of each: which it is that the name leads to, update-alternatives(1) may change at any time."""
    return "nf_tables" in tools.run([f"{FAMILIES[4]}-restore", "--version"])


def ours_as_text() -> tuple[str, ...]:
    """Every line of both families that is ours, and of hooks' chains those before our jump."""
    return tuple(line for tool in FAMILIES.values()
                 for line in ours_in(tools.run([f"{tool}-save", "-t", TABLE])))


def ours_in(saved: str) -> Iterator[str]:
    chains = order.chains_of(saved)
    for name, lines in sorted(chains.items()):
        if name.startswith(PREFIX):
            yield f":{name}"
            yield from lines
        elif (at := order.place_of(chains, name, jump_line(name))) >= 0:
            yield from lines[:at + 1]


def passed_by() -> dict[int, tuple[str, ...]]:
    """The rules of others, by family, that stand before a jump of ours and may take packets away from it."""
    return {family: installed(family).passed for family, tool in FAMILIES.items() if tools.find(f"{tool}-save")}


def behind() -> list[str]:
    """The rules of others behind our jumps that do more than let packets go on: what was queued misses them."""
    found = []
    for tool in FAMILIES.values():
        chains = order.chains_of(tools.run([f"{tool}-save", "-t", TABLE]))
        for hook in chains:
            at = order.place_of(chains, hook, jump_line(hook))
            found += [f"{tool} -t {TABLE} {line}" for line in (chains[hook][at + 1:] if at >= 0 else ())
                      if order.target_of(line)[1] not in ("", "ACCEPT", "RETURN")]
    return found


def missing(family: int) -> list[str]:
    """The hooks whose chain in mangle does not exist yet. iptables-legacy has them all, always."""
    if not is_native():
        return []
    return [hook for hook in ("FORWARD", "INPUT", "OUTPUT") if not netlink.chain_exists(family, TABLE, hook)]


def installed(family: int) -> Installed:
    """What of ours this family holds now."""
    return read(tools.run([f"{FAMILIES[family]}-save", "-t", TABLE]))


def read(saved: str) -> Installed:
    """The same, from what iptables-save printed."""
    chains, jumps, made = set(), [], set()
    for line in saved.splitlines():
        words = line.split()
        if line.startswith(f":{PREFIX}"):
            chains.add(words[0][1:])
        elif line.startswith("-A ") and not words[1].startswith(PREFIX) and words[-1].startswith(PREFIX) \
                and words[-2] in ("-j", "-g"):
            jumps.append(line)
        elif line.startswith(f"-A {NOTES} ") and words[-2].strip('"') == MADE.strip():
            made.add(words[-1].strip('"'))
    return Installed(frozenset(chains), tuple(jumps), frozenset(made), *taken_before(saved))


def taken_before(saved: str) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """`place` and `passed` of Installed."""
    chains = order.chains_of(saved)
    place, passed = [], []
    for hook in ("FORWARD", "INPUT", "OUTPUT"):
        found = order.taking(chains, hook, PREFIX)
        if found:
            place.append((hook, found[0][0]))
        at = order.place_of(chains, hook, jump_line(hook))
        passed += [line for number, line in found if at >= 0 and number < at]
    return tuple(place), tuple(passed)


def present() -> bool:
    """Whether either family holds anything of ours."""
    return any(tools.find(f"{tool}-save") and installed(family) != Installed() for family, tool in FAMILIES.items())


def remove() -> None:
    """Take everything of ours away from both families, and the chains of mangle that exist only because of us."""
    for family, tool in FAMILIES.items():
        if not tools.find(f"{tool}-save"):
            continue
        now = installed(family)
        if now == Installed():
            continue
        tools.run([f"{tool}-restore", *OPTIONS], removal(now))
        if now.made:
            left = tools.run([f"{tool}-save", "-t", TABLE])
            for hook in sorted(now.made):
                # An operator's rule or policy may have come to the chain meanwhile; then it is theirs.
                if f":{hook} ACCEPT " in left and f"\n-A {hook} " not in left:
                    tools.run([f"{tool}-restore", *OPTIONS], commands([f"-X {hook}"]))
            netlink.delete_table_if_empty(family, TABLE)


def counters() -> Iterator[tuple[str, int, int]]:
    """(rule name, packets, bytes) of every rule in force; a name occurs once for each family and alternative."""
    for tool in FAMILIES.values():
        yield from counted(tools.run([f"{tool}-save", "--counters", "-t", TABLE]))


def counted(saved: str) -> Iterator[tuple[str, int, int]]:
    """The same, from what iptables-save printed."""
    seen: dict[str, list[tuple[str, int, int]]] = {}
    names: dict[tuple[str, int], str] = {}
    for line in saved.splitlines():
        found = re.match(rf"\[(\d+):(\d+)\] -A {PREFIX}(\w+)", line)
        if not found:
            continue
        words = shlex.split(line)
        comment = words[words.index("--comment") + 1] if "--comment" in words else ""
        if PREFIX + found[3] != NOTES:
            seen.setdefault(found[3], []).append((comment, int(found[1]), int(found[2])))
        elif note := NAMED.fullmatch(comment):
            names |= {(note[1], number): note[4] for number in range(int(note[2]), int(note[3]) + 1)}
    for chain, rules in seen.items():
        for number, (comment, packets, size) in enumerate(rules, 1):
            yield comment or names.get((chain, number), chain.lower()), packets, size
