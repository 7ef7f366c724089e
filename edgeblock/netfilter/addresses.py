"""Address entries as kernel rules: one nftables table, asked before all others, whatever the back end of those.

In: settings, and what is done with each address (edgeblock/addresses.py). Out: the table, put there whole or changed
entry by entry, each in one transaction; what its entries have counted. It is asked for every packet of every
protocol, in both directions, between the interfaces that are filtered. Never here: why an address is listed.

The table is written as text for `nft`, which reads all there is at every call: seconds for a hundred thousand
entries, however few change. So everything else is asked by netlink (linux/netfilter/nf_tables.h), and a table that a
daemon before has left is taken on where only its entries differ: a chain without rules is named by a sum of the rest.
"""

import errno
import ipaddress
import os
import socket
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator

from edgeblock.addresses import (
    BITS,
    HALVES4,
    PROVIDERS6,
    SITES4,
    SITES6,
    Addresses,
    Endpoint,
    Near,
    Span,
    Translated,
    What,
    translated,
)
from edgeblock.config import Config
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import netlink, pair, tools
from edgeblock.netfilter.checks import ANSWERS
from edgeblock.netfilter.netlink import attribute, message, name
from edgeblock.netfilter.policy import by_family
from edgeblock.netfilter.standing import Place, Standing

TABLE = "edgeblock_addresses"
CLEAR = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
PRIORITY = "mangle - 5"         # before the rules that queue, and those of others that let by
# What nearly every packet is asked: whether its address is near a listed one. Only then the ranges are searched, and
# those that are too wide to have all their neighbourhoods in a hash are few. The kernel is quick (nft_hash_fast) with
# whole words at whole words of the header, in sets of a size that is said before. So IPv4 is asked by a word with its
# last byte masked, and IPv6 by its first word, and only then by what is near: in "first6" are also the first words of
# what leads to IPv4, with 6to4 (RFC 3056) those of the listed IPv4 addresses.
NEARBY = {4: "near4", 6: "near6"}
FIRST = "first6"
KEYS = {NEARBY[4]: ("@nh,128,32", 4), NEARBY[6]: ("@nh,192,48", 6), FIRST: ("@nh,192,32", 4)}    # and bytes of a key
SITES = {4: SITES4, 6: SITES6}
MASK4 = 0xFFFFFF00
SIX_TO_FOUR = 0x2002
SIZE_LEAST = 1 << 16        # that a set of neighbourhoods has room for; or twice as many as there are at first
SPANS = {4: "address4", 6: "address6"}
WIDE = {4: "wide4", 6: "wide6"}
ENDPOINTS = {4: "endpoint4", 6: "endpoint6"}
CHAINS = {What.PASS: "address_passed", What.OBSERVE: "address_observe", What.DROP: "address_drop",
          What.RESET: "address_reset"}
SIDES = (("to_server", "saddr", "daddr"), ("from_server", "daddr", "saddr"))      # chain, client's and server's side
LEADS_TO = {name.encode() + b"\0": what for what, name in CHAINS.items()}
PORTS = "meta l4proto { tcp, udp, dccp, sctp, udplite }"        # protocols that begin with their ports

# An answer to who has not proved his address is never more than what came: a RST is as long as the shortest packet.
# An ICMP error has the packet that it is about in it, so it is for few. The rest is dropped.
RESETS_A_SECOND, ERRORS_A_SECOND = 1000, 5

# linux/netfilter/nf_tables.h
INET = 1                        # NFPROTO_INET
NEW_ELEMENT, GET_ELEMENT, DELETE_ELEMENT = 12, 13, 14
LIST_TABLE, LIST_SET, LIST_ELEMENTS, LIST_ELEMENT = 1, 2, 3, 1
KEY, DATA, FLAGS, EXPRESSION, EXPRESSIONS = 1, 2, 3, 7, 11
DATA_VALUE, DATA_VERDICT, VERDICT_CODE, VERDICT_CHAIN = 1, 2, 1, 2
EXPRESSION_DATA, COUNTER_BYTES, COUNTER_PACKETS = 2, 1, 2
INTERVAL_END = 1
JUMP, GOTO = -3, -4
CREATE, NESTED = 0x400, 0x8000
LIST_BYTES = 60_000             # of the elements in one message; an attribute has 65 535 at most
BATCH_BYTES = 1 << 28           # of what is sent at once, which the socket has to have room for
SO_SNDBUFFORCE = 32


# The table as text -------------------------------------------------------------------------------------------

def text(config: Config, addresses: Addresses, nat64: tuple[str, ...] = ()) -> str:
    """The whole table, as `nft -f` takes it: it replaces what is in force at once."""
    lines = [CLEAR + f"table inet {TABLE} {{"]
    for set_name, keys in near_keys(addresses, nat64).items():
        lines += declared("set", set_name, f"typeof {KEYS[set_name][0]}; size {max(SIZE_LEAST, 2 * len(keys))}",
                          [f"{key:#x}" for key in sorted(keys)])
    for family, key in ((4, "@nh,128,32"), (6, "ip6 daddr")):
        wide = [one for one in addresses.spans[family] if SITES[family].is_wide(one.first, one.last)]
        narrow = [one for one in addresses.spans[family] if not SITES[family].is_wide(one.first, one.last)]
        for map_name, spans in ((SPANS[family], narrow), (WIDE[family], wide)):
            lines += declared("map", map_name, f"typeof {key} : verdict; flags interval; counter",
                              [span_text(span, family) for span in spans])
        lines += declared("map", ENDPOINTS[family], f"typeof {key} . th dport : verdict; counter",
                          [endpoint_text(one, family) for one in addresses.endpoints[family]])
    planned = chains(config, nat64, addresses.wide)
    for chain, rules in {**planned, stamp(planned): []}.items():
        lines += [f"    chain {chain} {{", *(f"        {rule}" for rule in rules), "    }"]
    return "\n".join(lines) + "\n}\n"


def near_keys(addresses: Addresses, nat64: tuple[str, ...] = ()) -> dict[str, set[int]]:
    """What each of the sets has that nearly every packet is asked for."""
    return {NEARBY[4]: {top << 8 for top in addresses.near(SITES4)}, NEARBY[6]: addresses.near(SITES6),
            FIRST: addresses.near(PROVIDERS6) | first_words(nat64) | {
                SIX_TO_FOUR << 16 | top for top in addresses.near(HALVES4)}}


def first_words(nat64: tuple[str, ...]) -> set[int]:
    """The first 32 bits of what leads to an IPv4 address that does not stand in them."""
    return {int(way.prefix.network_address) >> 96 for way in translated(nat64) if way.prefix.prefixlen >= 32}


def is_needed(addresses: Addresses, set_name: str, key: int, nat64: tuple[str, ...]) -> bool:
    """Whether that is in `near_keys`."""
    if set_name == NEARBY[4]:
        return addresses.is_near(SITES4, key >> 8)
    if set_name == NEARBY[6]:
        return addresses.is_near(SITES6, key)
    return addresses.is_near(PROVIDERS6, key) or key in first_words(nat64) or (
        key >> 16 == SIX_TO_FOUR and addresses.is_near(HALVES4, key & 0xFFFF))


def stamp(planned: dict[str, list[str]]) -> str:
    """The name of the chain that says what the others are."""
    return f"made_{zlib.crc32(repr(planned).encode()):08x}"


def declared(what: str, called: str, kind: str, elements: list[str]) -> list[str]:
    lines = [f"    {what} {called} {{", *(f"        {one}" for one in kind.split("; "))]
    if elements:
        lines += ["        elements = {", *(f"            {one}," for one in elements), "        }"]
    return [*lines, "    }"]


def span_text(span: Span, family: int) -> str:
    first, last = written(span.first, family), written(span.last, family)
    return f"{first if first == last else f'{first}-{last}'} : {leads(span.what)}"


def endpoint_text(one: Endpoint, family: int) -> str:
    return f"{written(one.address, family)} . {one.port} : {leads(one.what)}"


def leads(what: What) -> str:
    """What is only watched comes back, to be asked whatever else there is to ask."""
    return f"{'jump' if what is What.OBSERVE else 'goto'} {CHAINS[what]}"


def written(address: int, family: int) -> str:
    """As the type of the map's key has it: for IPv4 bytes of the header, as IPv6 has them in its addresses."""
    return f"{address:#010x}" if family == 4 else str(ipaddress.IPv6Address(address))


def chains(config: Config, nat64: tuple[str, ...] = (), wide: Collection[Near] = ()) -> dict[str, list[str]]:
    """The rules of each chain; one that names a hook is where packets come in. `wide` is of what there are wide
    ranges: every packet is asked for those, so there is no rule for none."""
    ways, back = translated(nat64), config.ruleset.proof_mark
    made = {
        CHAINS[What.DROP]: ['counter drop comment "address_drop"'],
        CHAINS[What.OBSERVE]: ['counter return comment "address_observe"'],
        CHAINS[What.PASS]: [f'{back_mark(config, False)} counter accept comment "address_passed"'],
        CHAINS[What.RESET]: [       # who is listed gets no answer
            f'meta mark & {back:#010x} == {back:#010x} counter drop comment "address_reset_back"',
            f"meta l4proto tcp limit rate {RESETS_A_SECOND}/second burst {RESETS_A_SECOND} packets counter "
            'reject with tcp reset comment "address_reset"',
            f"meta l4proto != tcp limit rate {ERRORS_A_SECOND}/second burst {ERRORS_A_SECOND} packets counter "
            'reject with icmpx admin-prohibited comment "address_reset_error"',
            'counter drop comment "address_reset_silent"']}
    for chain, client, server in SIDES:
        made[chain] = [*exempt(config, client, server), f"meta nfproto ipv6 goto {chain}_first",
                       *asked(chain, 4, wide)]
        made[f"{chain}_first"] = [f"jump {chain}6" if PROVIDERS6 in wide else
                                  f"@nh,{first_bit(chain, 6)},32 @{FIRST} jump {chain}6"]
        made[f"{chain}6"] = [*asked(chain, 6, wide), asked_whether_leading(ways, chain)]
        made[f"{chain}_leads"] = [asked_leading(ways, chain)]
        told: dict[str, Iterable[str]] = {f"{chain}_inside": asked_inside(ways, chain, wide)}
        for family in BITS:
            told[f"{chain}_near{family}"] = asked_near(*key_of_side(chain, family), family)
            if SITES[family] in wide:
                told[f"{chain}_wide{family}"] = [f"{key_of_side(chain, family)[0]} vmap @{WIDE[family]}"]
        for inner, lines in told.items():
            made[inner] = [*lines] if chain == "to_server" else [
                back_mark(config, True), *lines, back_mark(config, False)]
    clients = set(config.ruleset.hooks)
    servers = {ANSWERS[hook] for hook in config.ruleset.hooks}
    for hook in ("forward", "input", "output"):
        if hook not in clients | servers:
            continue
        rules = [f"type filter hook {hook} priority {PRIORITY}; policy accept;"]
        if hook == "output":        # answers of ours and of these rules have the server's address
            rules.append('fib saddr type != local counter return comment "address_ours"')
        elif hook == "input":
            rules.append('iifname "lo" counter return comment "address_ours"')
        there = [("to_server", "clients", "servers")] if hook in clients else []
        there += [("from_server", "servers", "clients")] if hook in servers else []
        leading = [line for chain, here, other in there for line in jumps(config, hook, here, other, chain)]
        if leading == [f"jump {chain}" for chain, _, _ in there] and not any(
                [*exempt(config, client, server)] for _, client, server in SIDES):
            # Nothing else is asked, so all of it is asked here: each rule on the way costs every packet.
            rules.append(f"meta nfproto ipv6 goto {hook}6")
            rules += [line for chain, _, _ in there for line in made[chain][1:]]
            made[f"{hook}6"] = [line for chain, _, _ in there for line in made[f"{chain}_first"]]
            made[hook] = rules
        else:
            made[hook] = rules + leading
    return reached(made)


def reached(planned: dict[str, list[str]]) -> dict[str, list[str]]:
    """The chains that a hook, an entry or another one of these leads to."""
    wanted = {chain for chain, rules in planned.items() if rules[0].startswith("type ")} | set(CHAINS.values())
    more = wanted
    while more:
        more = {rule.split()[-1] for chain in more for rule in planned[chain]} & planned.keys() - wanted
        wanted |= more
    return {chain: rules for chain, rules in planned.items() if chain in wanted}


def back_mark(config: Config, on: bool) -> str:
    """While a packet from a server is looked at it has the mark that other rules give to packets of clients."""
    mark = config.ruleset.proof_mark
    return f"meta mark set meta mark {f'| {mark:#010x}' if on else f'& {~mark & 0xFFFFFFFF:#010x}'}"


def asked(chain: str, family: int, wide: Collection[Near]) -> Iterator[str]:
    """The look-ups of an address of a packet."""
    key = f"{first_bit(chain, 4)},32 & {MASK4:#x}" if family == 4 else f"{first_bit(chain, 6)},48"
    yield f"@nh,{key} @{NEARBY[family]} jump {chain}_near{family}"
    if SITES[family] in wide:
        yield f"jump {chain}_wide{family}"


def asked_whether_leading(ways: Iterable[Translated], chain: str) -> str:
    """The same by the first two bytes, in a third of the time."""
    begins = sorted({int(way.prefix.network_address) >> 112 for way in ways})
    return f"@nh,{first_bit(chain, 6)},16 {{ {', '.join(f'{one:#06x}' for one in begins)} }} jump {chain}_leads"


def asked_leading(ways: Iterable[Translated], chain: str) -> str:
    """Whether an IPv6 address leads to an IPv4 one."""
    prefixes = ", ".join(str(way.prefix) for way in ways if way.bit is not None)
    return f"{key_of_side(chain, 6)[0]} {{ {prefixes} }} jump {chain}_inside"


def asked_inside(ways: Iterable[Translated], chain: str, wide: Collection[Near]) -> Iterator[str]:
    """The look-ups of an IPv4 address inside one of IPv6."""
    for way in ways:
        if way.bit is not None:
            at = first_bit(chain, 6) + way.bit
            below, key = f"{key_of_side(chain, 6)[0]} {way.prefix}", f"@nh,{at},32" + " ^ 0xffffffff" * way.flipped
            top = f"@nh,{at},32 & {MASK4:#x}" + f" ^ {MASK4:#x}" * way.flipped
            for rule in asked_near(key, key_of_side(chain, 6)[1], 4):
                yield f"{below} {top} @{NEARBY[4]} {rule}"
            if SITES4 in wide:
                yield f"{below} {key} vmap @{WIDE[4]}"


def asked_near(key: str, port: str, family: int) -> Iterator[str]:
    """The look-ups of an address that something is said of nearby: with its port first."""
    yield f"{PORTS} {key} . {port} vmap @{ENDPOINTS[family]}"
    yield f"{key} vmap @{SPANS[family]}"


def first_bit(chain: str, family: int) -> int:
    """Where the server's address begins in the header."""
    if chain == "to_server":
        return 128 if family == 4 else 192
    return 96 if family == 4 else 64


def key_of_side(chain: str, family: int) -> tuple[str, str]:
    """The server's address and port, as rules say them."""
    side, port = ("daddr", "th dport") if chain == "to_server" else ("saddr", "th sport")
    return (f"@nh,{first_bit(chain, 4)},32" if family == 4 else f"ip6 {side}"), port


def exempt(config: Config, client: str, server: str) -> Iterator[str]:
    """Addresses that are not looked at, as the settings name them."""
    for side, networks in ((client, config.ruleset.exempt_clients), (server, config.ruleset.exempt_servers)):
        for family, word in ((4, "ip"), (6, "ip6")):
            if some := by_family(networks, family):
                yield f'{word} {side} {{ {", ".join(some)} }} counter return comment "address_exempt"'


def jumps(config: Config, hook: str, here: str, there: str, chain: str) -> Iterator[str]:
    """What leads packets that come from one side and go to the other into a chain."""
    came = interfaces("iifname", on_side(config, here)) if hook != "output" else [""]
    goes = interfaces("oifname", on_side(config, there)) if hook != "input" else [""]
    for one in came:
        for other in goes:
            yield " ".join(word for word in (one, other, f"jump {chain}") if word)


def on_side(config: Config, side: str) -> tuple[str, ...]:
    """The interfaces on one side, those by which the daemon asks its own box among them; () is any."""
    listed: tuple[str, ...] = getattr(config.ruleset, side)
    ours = {"clients": pair.CLIENTS, "servers": pair.SERVERS}
    return (*listed, ours[side]) if listed and config.canary.enabled else listed


def interfaces(field: str, listed: tuple[str, ...]) -> list[str]:
    """A condition for all that are named whole, and one for each that names a beginning; [""] where any will do."""
    whole = [f'"{one}"' for one in listed if not one.endswith("*")]
    begun = [f'{field} "{one}"' for one in listed if one.endswith("*")]
    return [*([f"{field} {{ {', '.join(whole)} }}"] if whole else []), *begun] or [""]


# The table in the kernel -------------------------------------------------------------------------------------

def apply(config: Config, addresses: Addresses, nat64: tuple[str, ...] = ()) -> bool:
    """Put the table in force, in place of the one that may be there. At no moment is there none where there was one.
    Whether it is new, with all its counters at zero."""
    planned = chains(config, nat64, addresses.wide)
    if netlink.chain_exists(0, TABLE, stamp(planned)) and not standing(config, addresses, nat64).take():
        try:
            found = read()
            if read_near() == near_keys(found, nat64):
                change(found, addresses, nat64)
                return False
        except (OSError, SystemProblem):        # somebody has changed it
            pass
    tools.run(["nft", "--file", "-"], text(config, addresses, nat64))
    return True


def change(old: Addresses, new: Addresses, nat64: tuple[str, ...] = ()) -> None:
    """What is different, in one transaction; where `wide` is the same of both.

    Raises:
        SystemProblem: the table is not as it was with `old`; nothing has changed.
    """
    gone, come = old.without(new), new.without(old)
    send([*changes(DELETE_ELEMENT, gone, new, nat64), *changes(NEW_ELEMENT, come, old, nat64)])


def changes(kind: int, these: Addresses, others: Addresses, nat64: tuple[str, ...] = ()) -> Iterator[bytes]:
    """Messages about entries that go, or come; `others` are all that there are then, or were before."""
    for set_name, keys in near_keys(these, nat64).items():
        some = sorted(key for key in keys if not is_needed(others, set_name, key, nat64))
        yield from packed(kind, set_name, (element(key.to_bytes(KEYS[set_name][1])) for key in some))
    for family in BITS:
        for map_name, is_of_it in ((SPANS[family], False), (WIDE[family], True)):
            spans = (one for one in these.spans[family] if SITES[family].is_wide(one.first, one.last) is is_of_it)
            yield from packed(kind, map_name, span_elements(kind, spans, family))
        yield from packed(kind, ENDPOINTS[family], endpoint_elements(kind, these.endpoints[family], family))


def span_elements(kind: int, spans: Iterable[Span], family: int) -> Iterator[bytes]:
    """Each as its first address, and the first one behind it where there is one."""
    size = BITS[family] // 8
    for first, last, what, _ in spans:
        yield element(first.to_bytes(size), what if kind == NEW_ELEMENT else None)
        if last + 1 < 1 << BITS[family]:
            key = attribute(KEY | NESTED, attribute(DATA_VALUE, (last + 1).to_bytes(size)))
            yield attribute(LIST_ELEMENT | NESTED, key + attribute(FLAGS, struct.pack("!I", INTERVAL_END)))


def endpoint_elements(kind: int, endpoints: Iterable[Endpoint], family: int) -> Iterator[bytes]:
    for address, port, what, _ in endpoints:        # each part of a key fills whole words
        key = address.to_bytes(BITS[family] // 8) + port.to_bytes(2) + bytes(2)
        yield element(key, what if kind == NEW_ELEMENT else None)


def element(key: bytes, what: What | None = None) -> bytes:
    told = attribute(KEY | NESTED, attribute(DATA_VALUE, key))
    if what is not None:
        code = struct.pack("!i", JUMP if what is What.OBSERVE else GOTO)
        verdict = attribute(VERDICT_CODE, code) + name(VERDICT_CHAIN, CHAINS[what])
        told += attribute(DATA | NESTED, attribute(DATA_VERDICT | NESTED, verdict))
    return attribute(LIST_ELEMENT | NESTED, told)


def packed(kind: int, map_name: str, elements: Iterable[bytes]) -> Iterator[bytes]:
    """Messages with so many elements each as one has room for."""
    held: list[bytes] = []
    size = 0
    for one in elements:
        if size + len(one) > LIST_BYTES:
            yield about(kind, map_name, b"".join(held))
            held, size = [], 0
        held.append(one)
        size += len(one)
    if held:
        yield about(kind, map_name, b"".join(held))


def about(kind: int, map_name: str, elements: bytes, flags: int = CREATE) -> bytes:
    body = name(LIST_TABLE, TABLE) + name(LIST_SET, map_name)
    if elements:
        body += attribute(LIST_ELEMENTS | NESTED, elements)
    return message(netlink.NFTABLES, kind, flags, INET, 0, body)


def send(messages: list[bytes]) -> None:
    """One transaction; SystemProblem where the kernel refuses, and nothing has changed."""
    if not messages:
        return
    last = bytearray(messages[-1])
    struct.pack_into("=H", last, 6, struct.unpack_from("=H", last, 6)[0] | netlink.ACK)
    batch = b"".join([message(0, netlink.BATCH_BEGIN, 0, socket.AF_UNSPEC, netlink.NFTABLES), *messages[:-1], last,
                      message(0, netlink.BATCH_END, 0, socket.AF_UNSPEC, netlink.NFTABLES)])
    try:
        with netlink.opened() as link:
            link.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, min(2 * len(batch), BATCH_BYTES))
            number = netlink.answer(link, batch)
    except OSError as problem:
        raise SystemProblem(f"address rules: {problem.strerror or problem}") from None
    if number:
        raise SystemProblem(f"address rules: {os.strerror(number)}")


def remove() -> None:
    """Take the table away, if it is there."""
    gone = message(netlink.NFTABLES, netlink.DELETE_TABLE, 0, INET, 0, name(netlink.TABLE_NAME, TABLE))
    if present():
        send([gone])


def present() -> bool:
    """Whether the table is there. A failure to answer counts as no."""
    return netlink.table_exists(0, TABLE)


def standing(config: Config, addresses: Addresses, nat64: tuple[str, ...] = ()) -> Standing:
    """What has to stand in the kernel, but for the entries."""
    planned = chains(config, nat64, addresses.wide)
    hooks = {chain: "" for chain, rules in planned.items() if rules[0].startswith("type ")}
    counts = {chain: len(rules) - (chain in hooks) for chain, rules in planned.items()} | {stamp(planned): 0}
    return Standing((Place(0, TABLE, counts, hooks),))


Spot = tuple[int, bool, int]       # family, whether it is an endpoint, key: of a range its first address


def elements() -> Iterator[tuple[Spot, int, What, int]]:
    """Every entry that is there, as spot, last key, what is done there, and packets counted.

    Raises:
        OSError: the table is not there, or the kernel does not answer.
    """
    with netlink.opened() as link:
        for family, bits in BITS.items():
            for told in elements_of(link, ENDPOINTS[family]):
                key = int.from_bytes(key_of(told)) >> 16
                yield (family, True, key), key, what_of(told), packets_of(told)
            for map_name in (SPANS[family], WIDE[family]):
                begins, ends = [], []
                for told in elements_of(link, map_name):
                    if told.get(FLAGS, b"\0\0\0\0")[3] & INTERVAL_END:
                        ends.append(int.from_bytes(key_of(told)))
                    else:
                        begins.append((int.from_bytes(key_of(told)), what_of(told), packets_of(told)))
                ends = [*sorted(ends), 1 << bits]
                for first, what, packets in begins:
                    yield (family, False, first), ends[bisect_right(ends, first)] - 1, what, packets


def read() -> Addresses:
    """The entries that are there, of no list; what is near them is not read. OSError where the table is not there."""
    spans: dict[int, list[Span]] = {4: [], 6: []}
    endpoints: dict[int, list[Endpoint]] = {4: [], 6: []}
    for (family, is_endpoint, key), last, what, _ in elements():
        if is_endpoint:
            endpoints[family].append(Endpoint(key >> 16, key & 0xFFFF, what, ""))
        else:
            spans[family].append(Span(key, last, what, ""))
    return Addresses({family: tuple(sorted(some)) for family, some in spans.items()},
                     {family: tuple(sorted(some)) for family, some in endpoints.items()})


def is_there(wanted: Addresses, nat64: tuple[str, ...] = ()) -> bool:
    """Whether the table has these entries and no others. OSError where it is not there."""
    found = read()
    return (wanted.ranges, wanted.ports) == (found.ranges, found.ports) and near_keys(wanted, nat64) == read_near()


def read_near() -> dict[str, set[int]]:
    """What is near the entries, as the table has it. OSError where it is not there."""
    with netlink.opened() as link:
        return {set_name: {int.from_bytes(key_of(told)) for told in elements_of(link, set_name)} for set_name in KEYS}


def counted() -> Iterator[tuple[Spot, int]]:
    """Packets that met each entry, since it is there. OSError where the table is not there."""
    return ((spot, packets) for spot, _, _, packets in elements())


def spots(addresses: Addresses) -> dict[Spot, str]:
    """The list of each entry."""
    made = {(family, False, one.first): one.owner for family in BITS for one in addresses.spans[family]}
    return made | {(family, True, one.address << 16 | one.port): one.owner
                   for family in BITS for one in addresses.endpoints[family]}


class Foreign(OSError):
    """There is an entry that is none of ours."""


def key_of(told: dict[int, bytes]) -> bytes:
    key = netlink.attributes(told.get(KEY, b""), 0).get(DATA_VALUE)
    if key is None:
        raise Foreign(errno.EINVAL, "an entry of another program")
    return key


def what_of(told: dict[int, bytes]) -> What:
    """By the chain that it leads to."""
    verdict = netlink.attributes(netlink.attributes(told.get(DATA, b""), 0).get(DATA_VERDICT, b""), 0)
    if (what := LEADS_TO.get(verdict.get(VERDICT_CHAIN, b""))) is None:
        raise Foreign(errno.EINVAL, "an entry of another program")
    return what


def packets_of(told: dict[int, bytes]) -> int:
    expression = told.get(EXPRESSION)
    if expression is None:
        expression = next((body for _, body in netlink.walk(told.get(EXPRESSIONS, b""))), b"")
    data = netlink.attributes(expression, 0).get(EXPRESSION_DATA, b"")
    return int.from_bytes(netlink.attributes(data, 0).get(COUNTER_PACKETS, b""))


def elements_of(link: socket.socket, map_name: str) -> Iterator[dict[int, bytes]]:
    """The attributes of each element of a map."""
    link.sendto(about(GET_ELEMENT, map_name, b"", netlink.DUMP), (0, 0))
    while True:
        for kind, body in netlink.messages(link.recv(1 << 17)):
            if kind == netlink.DONE:
                return
            if kind == netlink.ERROR:
                number = -struct.unpack_from("=i", body)[0] or errno.EIO
                raise OSError(number, os.strerror(number))
            for _, one in netlink.walk(netlink.attributes(body).get(LIST_ELEMENTS, b"")):
                yield netlink.attributes(one, 0)
