"""Whether our kernel rules still stand as they were applied, asked of nf_tables by netlink.

In: which chains we have, how many rules each has, and which chains of others jump to them. Out: what is no longer so,
in words. A look compares the numbers that the kernel gives to tables, chains and rules, and what our rules say; where
nf_tables has had no transaction since the last look it compares one number. Never here: a rule changed, or a program
run.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edgeblock.netfilter import netlink
from edgeblock.netfilter.netlink import DONE, DUMP, attributes, messages

# linux/netfilter/nf_tables.h
NEW_TABLE, GET_TABLE, NEW_CHAIN, GET_CHAIN, GET_RULE, GET_GENERATION = 0, 1, 3, 4, 7, 16
# NEW and DEL of table, chain, rule and flow table, DEL of sets and of what is in them
CHANGES = frozenset((0, 2, 3, 5, 6, 8, 11, 14, 22, 24))
TABLE_NAME, TABLE_FLAGS, TABLE_HANDLE = 1, 2, 4
DORMANT = 1
CHAIN_TABLE, CHAIN_HANDLE, CHAIN_NAME, CHAIN_HOOK = 1, 2, 3, 4
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS = 1, 2, 3, 4
EXPRESSION_NAME = 1
COUNTS = (b"counter\0",)                                 # expressions that say something else with every packet
GENERATION = 1                                           # NFTA_GEN_ID

GROUPS = 1 << 6                                          # NFNLGRP_NFTABLES, the seventh
FAMILIES = netlink.FAMILIES
NAMES = {4: "ip", 6: "ip6", 0: "inet"}
TRIES = 5                                                # until no transaction comes between the parts of a look


class Place(NamedTuple):
    """What one table has of ours. `family` is 4, 6, or 0 for nft's "inet".

    `chains` says how many rules each chain of ours has; `jumps`, by the chain of a hook, to which of ours it jumps:
    "" where it is ours itself.
    """

    family: int
    table: str
    chains: dict[str, int]
    jumps: dict[str, str]


class Seen(NamedTuple):
    """One look at a place. `numbers` are those of all that is ours, with what our rules say; `before`, of each hook,
    the numbers of the rules that stand before our jump; `wrong` is what is not as planned, in words."""

    numbers: tuple[object, ...]
    before: dict[str, tuple[int, ...]]
    wrong: tuple[str, ...]


@dataclass
class Standing:
    """Our rules in these places, from `take` on. OSError from any method: the kernel does not answer."""

    places: tuple[Place, ...]
    _seen: tuple[Seen, ...] = ()
    _generation: int = -1

    def take(self) -> list[str]:
        """Remembers what is there now; what of it is not as planned."""
        self._seen, self._generation = look(self.places)
        return self._wrong()

    def _wrong(self) -> list[str]:
        return [wrong for seen in self._seen for wrong in seen.wrong]

    def lost(self) -> list[str]:
        """What is no longer as `take` saw it; empty where nothing is lost."""
        if len(self._seen) != len(self.places):
            return ["what stands has not been looked at yet"]
        with netlink.opened() as link:
            if generation(link) == self._generation:
                return self._wrong()
        now, number = look(self.places)
        lost = [wrong for seen in now for wrong in seen.wrong]
        for place, was, seen in zip(self.places, self._seen, now, strict=True):
            if was.numbers != seen.numbers and not seen.wrong:
                lost.append(f"rules replaced in {NAMES[place.family]} {place.table}")
        if not lost:
            self._seen, self._generation = now, number
        return lost

    def before(self) -> tuple[object, ...]:
        """What stands before our jumps, as numbers to compare: of the last look that found nothing lost."""
        return tuple(sorted((place.family, hook, numbers) for place, seen in zip(self.places, self._seen, strict=True)
                            for hook, numbers in seen.before.items()))


@dataclass
class StandingText:
    """The same where nf_tables is not asked (iptables-legacy): `read` gives the lines, in order, that are ours and
    those before them. Each look runs programs. SystemProblem where they fail."""

    read: Callable[[], tuple[str, ...]]
    _seen: tuple[str, ...] = ()

    def take(self) -> list[str]:
        self._seen = self.read()
        return [] if self._seen else ["no rules of ours are there"]

    def lost(self) -> list[str]:
        return [] if self.read() == self._seen else ["rules of ours, or those before them, have changed"]

    def before(self) -> tuple[object, ...]:
        return ()               # `lost` has looked at them


def look(places: tuple[Place, ...]) -> tuple[tuple[Seen, ...], int]:
    """All places at one moment, and the number of nf_tables' last transaction before that."""
    with netlink.opened() as link:
        for _ in range(TRIES):
            number = generation(link)
            seen = tuple(look_at(link, place) for place in places)
            if generation(link) == number:
                return seen, number
    return seen, -1         # somebody changes rules all the time: the next look begins anew


def look_at(link: socket.socket, place: Place) -> Seen:
    """What one table has of ours now."""
    where = f"{NAMES[place.family]} {place.table}"
    table = first(link, place.family, GET_TABLE, netlink.name(TABLE_NAME, place.table))
    if table is None:
        return Seen((), {}, (f"table {where} is gone",))
    numbers: list[object] = [table.get(TABLE_HANDLE, b"")]
    wrong = [f"table {where} is dormant"] if number_of(table, TABLE_FLAGS) & DORMANT else []
    for chain, planned in place.chains.items():
        rules = [(handle, says(body)) for handle, body in rules_of(link, place, chain)]
        if len(rules) != planned:
            wrong.append(f"chain {chain} in {where} has {len(rules)} rules, not {planned}")
        numbers.append((chain, *rules))
    before = {}
    for hook, target in place.jumps.items():
        chain_now = first(link, place.family, GET_CHAIN,
                          netlink.name(CHAIN_TABLE, place.table) + netlink.name(CHAIN_NAME, hook))
        if chain_now is None or CHAIN_HOOK not in chain_now:
            wrong.append(f"chain {hook} in {where} is gone")
            continue
        numbers.append((hook, chain_now.get(CHAIN_HANDLE), chain_now[CHAIN_HOOK]))
        if target:
            handles = rules_of(link, place, hook)
            wanted = target.encode() + b"\0"
            at = next((i for i, (_, body) in enumerate(handles) if wanted in body), -1)
            if at < 0:
                wrong.append(f"the jump from {hook} to {target} in {where} is gone")
            else:
                numbers.append((hook, handles[at][0], says(handles[at][1])))
                before[hook] = tuple(handle for handle, _ in handles[:at])
    return Seen(tuple(numbers), before, tuple(wrong))


def says(rule: bytes) -> bytes:
    """What a rule asks and does, without what it has counted: one that takes another's place may have its number."""
    parts = []
    for body in each(attributes(rule).get(RULE_EXPRESSIONS, b"")):
        if attributes(body, 0).get(EXPRESSION_NAME) not in COUNTS:
            parts.append(body)
    return b"".join(parts)


def rules_of(link: socket.socket, place: Place, chain: str) -> list[tuple[int, bytes]]:
    """Each rule's number and bytes, in order."""
    wanted = netlink.name(RULE_TABLE, place.table) + netlink.name(RULE_CHAIN, chain)
    found = []
    for body in ask(link, GET_RULE, DUMP, place.family, wanted):
        told = attributes(body)
        if told.get(RULE_CHAIN) == chain.encode() + b"\0":
            found.append((number_of(told, RULE_HANDLE), body))
    return found


def generation(link: socket.socket) -> int:
    """The number of nf_tables' last transaction in this network namespace."""
    told = first(link, 4, GET_GENERATION, b"")
    return number_of(told, GENERATION) if told else -1


def current() -> int:
    """The same, asked alone."""
    with netlink.opened() as link:
        return generation(link)


def wake(family: int, table: str) -> bool:
    """Take the flag "dormant" from a table, with which none of its rules is asked. Whether the kernel has done so."""
    body = netlink.name(TABLE_NAME, table) + netlink.attribute(TABLE_FLAGS, struct.pack("!I", 0))
    batch = netlink.message(0, netlink.BATCH_BEGIN, 0, socket.AF_UNSPEC, netlink.NFTABLES) \
        + netlink.message(netlink.NFTABLES, NEW_TABLE, netlink.ACK, FAMILIES[family], 0, body) \
        + netlink.message(0, netlink.BATCH_END, 0, socket.AF_UNSPEC, netlink.NFTABLES)
    return netlink.ask(batch) == 0


def is_dormant(family: int, table: str) -> bool:
    with netlink.opened() as link:
        told = first(link, family, GET_TABLE, netlink.name(TABLE_NAME, table))
    return told is not None and bool(number_of(told, TABLE_FLAGS) & DORMANT)


def listen() -> socket.socket:
    """A socket that the kernel tells each change of nf_tables to, in this network namespace. Never blocks.

    Raises:
        OSError: not permitted, or a kernel without nf_tables.
    """
    return netlink.listening(netlink.NETLINK_NETFILTER, GROUPS)


def heard(link: socket.socket) -> bool:
    """Reads what `listen` was told; whether tables, chains, rules or flow tables may have changed."""
    return netlink.heard(link, lambda kind: kind >> 8 == netlink.NFTABLES and kind & 0xFF in CHANGES)


# ---- netlink

def first(link: socket.socket, family: int, kind: int, wanted: bytes) -> dict[int, bytes] | None:
    """The attributes of the one thing that is asked for; None where it is not there."""
    return next((attributes(body) for body in ask(link, kind, 0, family, wanted)), None)


def ask(link: socket.socket, kind: int, flags: int, family: int, wanted: bytes) -> Iterator[bytes]:
    """The answers to one request, each without netlink's header.

    Raises:
        OSError: the kernel refuses, but for what is not there, which is no answer.
    """
    link.sendto(netlink.message(netlink.NFTABLES, kind, flags, FAMILIES[family], 0, wanted), (0, 0))
    while True:
        for answer, body in messages(link.recv(1 << 17)):
            if answer == DONE:
                return
            if answer == netlink.ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number in (0, errno.ENOENT):
                    return
                raise OSError(number, os.strerror(number))
            yield body
            if not flags:
                return


def each(body: bytes) -> Iterator[bytes]:
    """Of a list the elements."""
    return (value for _, value in netlink.walk(body))


def number_of(told: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(told.get(kind, b""), "big")
