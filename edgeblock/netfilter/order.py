"""Which rules of an iptables table take packets away before a jump of ours is reached.

In: what iptables-save has printed. Out: the rules of a chain, and which of them may end a packet's way through that
chain without dropping it. A rule that accepts in another table or another base chain takes nothing away: the kernel
goes on with the next one at the same hook.
"""

import shlex

# Targets behind which the next rule is asked, or behind which no packet is left to be filtered. Whatever else a rule
# does may take packets away: ACCEPT, RETURN from the chain of a hook, another program's queue, what is unknown here.
HARMLESS = frozenset((
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DROP", "DSCP", "ECN", "FLOWOFFLOAD", "HL",
    "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "REJECT", "SECMARK", "SET", "TCPMSS",
    "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"))
DEEPEST = 32            # chains that lead to chains; the kernel allows no circle


def chains_of(saved: str) -> dict[str, list[str]]:
    """The rules of each chain, in order, as iptables-save prints them, without counters."""
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            chains.setdefault(line.split()[1], []).append(line)
    return chains


def taking(chains: dict[str, list[str]], hook: str, ours: str) -> list[tuple[int, str]]:
    """The rules of a hook's chain that may take packets away: how many rules of others stand before each, and its
    text. Jumps to our chains, which begin with `ours`, are no rules of others."""
    others = [line for line in chains.get(hook, ()) if not target_of(line)[1].startswith(ours)]
    return [(number, line) for number, line in enumerate(others) if takes(chains, line, True)]


def place_of(chains: dict[str, list[str]], hook: str, jump: str) -> int:
    """How many rules stand before the first line that says `jump`; -1 without one."""
    lines = chains.get(hook, [])
    return lines.index(jump) if jump in lines else -1


def takes(chains: dict[str, list[str]], line: str, base: bool, depth: int = 0) -> bool:
    """Whether a packet that this rule matches may never come to the rules behind it, and is not dropped.

    `base` is true in the chain of a hook, where RETURN ends the way.
    """
    way, target = target_of(line)
    if not target or target in HARMLESS:
        return False
    if target == "RETURN":
        return base
    if target not in chains or depth >= DEEPEST:
        return True
    if way == "-g":
        return base or any(takes(chains, inner, False, depth + 1) for inner in chains[target])
    return any(takes(chains, inner, False, depth + 1) for inner in chains[target])


def target_of(line: str) -> tuple[str, str]:
    """How a rule leads on ("-j" or "-g"), and where to; "" where it only counts."""
    words = words_of(line)
    for i in range(len(words) - 1, 1, -1):
        if words[i - 1] in ("-j", "-g"):
            return words[i - 1], words[i]
    return "", ""


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:          # a quote in a comment that is not closed
        return line.split()

