"""Which packets the kernel queues, drops or passes: written once, for every back end.

In: the settings. Out: chains of rules as data, which nft.py and iptables.py turn into text. A rule is a name (its
counter), conditions that must all hold, and one thing to do. No rule asks whether a packet has payload: each asks
whether it is certain that it has none. So whatever cannot be read certainly goes to the queue, never past it.

Listed addresses are not here: addresses.py. docs/ruleset.md argues each rule.
"""

from enum import Enum, auto
from typing import NamedTuple

from edgeblock.config import Config
from edgeblock.netfilter.checks import ANSWERS, check

# A server's packet of at least this many bytes, IP header included, may be an answer. With the largest IPv4 and TCP
# headers (60 + 60) it carries at least 128 bytes of payload. What must not settle a flow is smaller, or begins in a
# way that tells it: bare ACKs with options, keep-alives (1 byte), TLS alerts (7).
#
# The payload's first bytes decide, as docs/ruleset.md argues. TLS is an answer, but for the HelloRetryRequest, after
# which the client says its name again: 99 bytes, and 219 with a cookie (NSS, and OpenSSL where it keeps no state). It
# is a ServerHello with one certain random (RFC 8446, 4.1.3), of which four bytes are compared. Text is none: a server
# that speaks first says who it is or what to do next (SMTP, FTP, SSH), and an interim answer of HTTP (100, 103) comes
# before the request is whole. What is neither is an answer if a small message and a HelloRetryRequest behind it, such
# as those of a tunnel, cannot be as long.
ANSWER_BYTES = 248
ANSWER_OTHER_BYTES = 768
TLS_HANDSHAKE, TLS_SERVER_HELLO = 0x1603, 2             # the first two bytes of a record, and of a message in it
TLS_ANSWERS = (0x1403, 0x1703)                          # records that come behind a ServerHello
TLS_TYPE_AT, TLS_RANDOM_AT, RETRY_RANDOM = 5, 11, 0xCF21AD74
# First bytes that are neither text (9 to 13, 32 to 126) nor like TLS (20 to 23).
NEITHER = ((0x00, 0x08), (0x0E, 0x13), (0x18, 0x1F), (0x7F, 0xFF))

# A UDP packet of more bytes, IP header included, may be several datagrams that an interface has merged (GRO with
# rx-udp-gro-forwarding, or a virtual one), of which the rules see the first one's bytes only; the queue has each by
# itself. Shorter ones cannot hide an Initial: they are as long as the first, and a server wants 1200 bytes (RFC 9000,
# 14.1).
UNMERGED_BYTES = 1500

# The QUIC versions whose Initials the engine can open; a test holds this to core/quic.pyx. Version 1 (RFC 9000),
# version 2 (RFC 9369), drafts 23 to 34, and those of Meta's mvfst.
QUIC_VERSIONS = (0x00000001, 0x6B3343CF, *range(0xFF000017, 0xFF000023), 0xFACEB002, *range(0xFACEB00E, 0xFACEB014))

# First bytes of DTLS datagrams that may hold a ClientHello (RFC 6347, 4.1): change_cipher_spec, alert, handshake. The
# byte after them is the same in all versions. QUIC's short headers begin so only where the fixed bit is greased.
DTLS_FIRST, DTLS_LAST, DTLS_MAJOR = 20, 22, 0xFE


class Is(Enum):
    """What a rule can ask of a packet. The marks UNDECIDED, DONE and BLOCKED are false without a conntrack entry.

    With `kernel = "marks"` there are no entries, and who has no mark is undecided.
    """

    TCP_TO_PORT = auto()      # TCP whose destination port is listed
    TCP_FROM_PORT = auto()
    UDP_TO_PORT = auto()
    UDP_FROM_PORT = auto()
    TCP = auto()
    UDP = auto()
    ORIGINAL = auto()         # travels in the direction of its connection's first packet
    REPLY = auto()
    STATELESS = auto()        # no conntrack entry: state INVALID or UNTRACKED
    FROM_CLIENTS = auto()     # came in by an interface of `ruleset.clients`
    TO_CLIENTS = auto()       # goes out by one
    FROM_SERVERS = auto()     # the same for `ruleset.servers`
    TO_SERVERS = auto()
    FROM_PROBE_CLIENTS = auto()     # the same for the two interfaces by which the daemon asks its own box
    TO_PROBE_CLIENTS = auto()
    FROM_PROBE_SERVERS = auto()
    TO_PROBE_SERVERS = auto()
    EXEMPT_CLIENT = auto()    # its source is in `ruleset.exempt_clients`
    EXEMPT_SERVER = auto()    # its destination is in `ruleset.exempt_servers`
    ASSURED = auto()          # of a connection whose handshake is over, or of whose beginning nothing is known
    NOT_ASSURED = auto()
    PROVEN = auto()           # TCP data in its connection's window, behind the client's acknowledgement of a SYN-ACK
    OURS = auto()             # made on this box and marked as our own reply
    OURS_LOOPED = auto()      # the same, arriving over loopback
    UNDECIDED = auto()
    DONE = auto()
    BLOCKED = auto()
    SYN = auto()              # SYN without ACK, whatever other flags say
    NO_SYN = auto()           # of TCP: no SYN at all, with or without ACK
    NO_OPENING = auto()       # of TCP: no SYN without ACK
    SYN_ACK = auto()
    BARE = auto()             # TCP, certainly without payload and without an urgent pointer
    ANSWER = auto()           # TCP, certainly with payload, and what a server says to a name; see ANSWER_BYTES
    SHORT = auto()            # UDP, certainly one datagram, first byte below 0x80 (no QUIC long header), not in DTLS
    INITIAL = auto()          # UDP, perhaps a QUIC long header of a version in QUIC_VERSIONS, or a DTLS handshake
    CLEARED = auto()          # TCP that the first stage lets by; asked once for a packet, for it remembers
    SOCKET = auto()           # asks for nothing of use: see DEFRAGMENT


class Do(Enum):
    """What a rule does. Marks are set within the mask only, and the packet goes on to the next rule.

    With `kernel = "marks"` a program of the first stage sets them, and asks for the mark itself.
    """

    QUEUE = auto()            # to the daemon; with none there, as `ruleset.absent` says
    QUEUE_OR_DROP = auto()    # to the daemon; with none there, dropped
    DROP = auto()
    RETURN = auto()           # out of our rules
    MARK_DONE = auto()
    MARK_UNDECIDED = auto()
    MARK_PROVEN = auto()      # the packet, not the flow: `ruleset.proof_mark`
    TCP_CLIENT = auto()       # continue in that chain, and do not come back
    TCP_BLOCKED = auto()
    TCP_SERVER = auto()
    UDP_CLIENT = auto()
    UDP_SERVER = auto()


class Rule(NamedTuple):
    name: str
    when: tuple[Is, ...]
    do: Do


class Chain(NamedTuple):
    """Rules in order; what falls through the end leaves our rules. `hook` is None for a chain that rules lead to."""

    name: str
    hook: str | None
    rules: tuple[Rule, ...]


# After the rules for done flows, so that bulk data is not compared with a long list of addresses, and after those for
# blocked ones: what has been judged stays judged. `plan` leaves out what the settings do not name.
EXEMPT = (
    Rule("exempt_clients", (Is.EXEMPT_CLIENT,), Do.RETURN),
    Rule("exempt_servers", (Is.EXEMPT_SERVER,), Do.RETURN),
)

# First of all and for both directions, since this is nearly all that a box forwards: it is compared with no port.
TCP_DONE = Rule("tcp_done", (Is.TCP, Is.DONE, Is.NO_SYN), Do.RETURN)
# Where programs keep the marks, the one for done flows says no to every SYN, but has to see the server's.
TCP_DONE_BY_PROGRAM = Rule("tcp_done", (Is.TCP, Is.NO_OPENING, Is.DONE), Do.RETURN)
UDP_DONE = Rule("udp_done", (Is.UDP, Is.DONE, Is.SHORT), Do.RETURN)

# The client's packets of a blocked flow, which every other packet is asked about once.
TCP_BLOCKED = (
    # A SYN on the entry of a blocked connection: whether that begins a new one is the engine's to say. The packet's
    # mark tells it what the entry says, so that what it lets by does not wait for an entry of its own.
    Rule("tcp_blocked_syn", (Is.SYN,), Do.MARK_PROVEN),
    Rule("tcp_blocked_bare", (Is.TCP, Is.NO_SYN, Is.BARE), Do.DROP),
    Rule("tcp_blocked_proven", (Is.PROVEN,), Do.MARK_PROVEN),
    Rule("tcp_blocked_data", (), Do.QUEUE_OR_DROP),
)

TCP_CLIENT = (
    # A SYN may open a new connection on the entry of an old one (conntrack keeps the entry, and its mark, when it
    # missed the old one's end), so "done" does not outlive it. Where the server is heard its answer says that it does
    # (tcp_accepted), for anybody can send a SYN.
    Rule("tcp_reopened", (Is.SYN, Is.DONE, Is.NOT_ASSURED), Do.MARK_UNDECIDED),
    Rule("tcp_blocked", (Is.BLOCKED,), Do.TCP_BLOCKED),
    *EXEMPT,
    Rule("tcp_syn", (Is.SYN,), Do.QUEUE),
    Rule("tcp_bare", (Is.BARE,), Do.RETURN),
    Rule("tcp_proven", (Is.PROVEN,), Do.MARK_PROVEN),
    Rule("tcp_data", (), Do.QUEUE),
)

# The same with the first stage. It is asked last, and only what may be a hello or request, or the SYN before it.
CLEARED = {"tcp_syn": Rule("tcp_syn_cleared", (Is.SYN, Is.CLEARED), Do.RETURN),
           "tcp_proven": Rule("tcp_cleared", (Is.PROVEN, Is.CLEARED), Do.RETURN)}
TCP_CLIENT_STAGE1 = tuple(one for rule in TCP_CLIENT for one in (CLEARED.get(rule.name), rule) if one)

TCP_SERVER = (
    Rule("tcp_server_blocked", (Is.BLOCKED,), Do.DROP),
    # In a connection that lives, a server answers a SYN without one of its own. Programs that keep the marks see to
    # that in the rule for done flows.
    Rule("tcp_accepted", (Is.SYN_ACK, Is.DONE), Do.MARK_UNDECIDED),
    # Behind a SYN conntrack counts what is still on its way of the connection before on the same ports as the new
    # one's. So an answer counts only when the handshake is over.
    Rule("tcp_answered", (Is.UNDECIDED, Is.ASSURED, Is.ANSWER), Do.MARK_DONE),
)

UDP_CLIENT = (
    Rule("udp_blocked", (Is.BLOCKED, Is.SHORT), Do.DROP),
    Rule("udp_blocked_long", (Is.BLOCKED,), Do.QUEUE_OR_DROP),
    *EXEMPT,
    Rule("udp_data", (), Do.QUEUE),
)

UDP_SERVER = (
    Rule("udp_server_blocked", (Is.BLOCKED,), Do.DROP),
    Rule("udp_answered", (Is.UNDECIDED,), Do.MARK_DONE),
)

# On all ports only what may be a QUIC Initial is queued: every game and every call would be otherwise. Nothing then
# asks whether a flow is done, so nothing marks it.
UDP_CLIENT_ALL = (
    Rule("udp_blocked_long", (Is.BLOCKED, Is.INITIAL), Do.QUEUE_OR_DROP),
    Rule("udp_blocked", (Is.BLOCKED,), Do.DROP),
    *EXEMPT,
    Rule("udp_data", (Is.INITIAL,), Do.QUEUE),
)

UDP_SERVER_ALL = UDP_SERVER[:1]

# No packet comes here. While the match for sockets is in any rule of a network namespace, the kernel puts fragments
# together before it asks rules, which conntrack does where it keeps the marks.
DEFRAGMENT = Chain("defragment", None, (Rule("defragment", (Is.SOCKET,), Do.RETURN),))


def plan(config: Config, stage1: bool = False) -> tuple[Chain, ...]:
    """The chains for these settings, those that rules lead to first. ConfigError names a setting that cannot be.

    `stage1` puts the first stage before the queue.
    """
    ruleset = config.ruleset
    check(config)
    clients = set(ruleset.hooks)
    servers = {ANSWERS[hook] for hook in ruleset.hooks}
    tcp, udp = bool(ruleset.tcp_ports), bool(ruleset.udp_ports)
    programs = ruleset.tracking == "stage1"
    chains = [DEFRAGMENT] if programs else []
    if tcp:
        client = TCP_CLIENT_STAGE1 if stage1 else TCP_CLIENT
        if config.reply.unproven == "answer":      # nobody can prove anything
            client = tuple(rule._replace(when=tuple(one for one in rule.when if one is not Is.PROVEN))
                           if rule.name == "tcp_cleared" else rule for rule in client)
        server = tuple(rule for rule in TCP_SERVER if not (programs and rule.name == "tcp_accepted"))
        chains += [Chain("tcp_blocked", None, TCP_BLOCKED), Chain("tcp_client", None, named(config, client)),
                   Chain("tcp_server", None, server)]
    if udp:
        every = ruleset.udp_ports == "all"
        chains += [Chain("udp_client", None, named(config, UDP_CLIENT_ALL if every else UDP_CLIENT)),
                   Chain("udp_server", None, UDP_SERVER_ALL if every else UDP_SERVER)]
    for hook in ("forward", "input", "output"):
        if hook not in clients | servers:
            continue
        rules = []
        # Our replies are made on this box, so they never cross forward. There the mark is not asked for: an operator
        # who saves packet marks into conntrack and restores them would lend it to the client.
        if hook == "output":
            rules.append(Rule("ours", (Is.OURS,), Do.RETURN))
        elif hook == "input":
            rules.append(Rule("ours", (Is.OURS_LOOPED,), Do.RETURN))
        rules += [TCP_DONE_BY_PROGRAM if programs else TCP_DONE] if tcp else []
        rules += [UDP_DONE] if udp and ruleset.udp_ports != "all" else []
        if hook in clients:
            way = interfaces(config, (Is.FROM_CLIENTS, hook != "output"), (Is.TO_SERVERS, hook != "input"))
            rules += to_client(ruleset.tcp_ports, way, Is.TCP, Is.TCP_TO_PORT, Do.TCP_CLIENT) if tcp else []
            rules += to_client(ruleset.udp_ports, way, Is.UDP, Is.UDP_TO_PORT, Do.UDP_CLIENT) if udp else []
        if hook in servers:
            way = interfaces(config, (Is.FROM_SERVERS, hook != "output"), (Is.TO_CLIENTS, hook != "input"))
            rules += to_server(ruleset.tcp_ports, way, Is.TCP, Is.TCP_FROM_PORT, Do.TCP_SERVER) if tcp else []
            rules += to_server(ruleset.udp_ports, way, Is.UDP, Is.UDP_FROM_PORT, Do.UDP_SERVER) if udp else []
        if hook == "forward" and hook in clients:
            rules += probed(config)
        chains.append(Chain(hook, hook, tuple(rules)))
    return tuple(chains)


def named(config: Config, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Without the rules for addresses that the settings do not name."""
    listed = {Is.EXEMPT_CLIENT: config.ruleset.exempt_clients, Is.EXEMPT_SERVER: config.ruleset.exempt_servers}
    return tuple(rule for rule in rules if all(listed.get(one, True) for one in rule.when))


def interfaces(config: Config, *ways: tuple[Is, bool]) -> tuple[Is, ...]:
    """Of these conditions, each with whether its hook knows that interface, those that the settings name one for."""
    sides = {Is.FROM_CLIENTS: config.ruleset.clients, Is.TO_CLIENTS: config.ruleset.clients,
             Is.FROM_SERVERS: config.ruleset.servers, Is.TO_SERVERS: config.ruleset.servers}
    return tuple(one for one, known in ways if known and sides[one])


def probed(config: Config) -> list[Rule]:
    """Between the interfaces by which the daemon asks its own box, where the settings name others."""
    ruleset = config.ruleset
    rules: list[Rule] = []
    if not config.canary.enabled or not (ruleset.clients or ruleset.servers):
        return []
    there, back = (Is.FROM_PROBE_CLIENTS, Is.TO_PROBE_SERVERS), (Is.FROM_PROBE_SERVERS, Is.TO_PROBE_CLIENTS)
    if ruleset.tcp_ports:
        rules += to_client(ruleset.tcp_ports, there, Is.TCP, Is.TCP_TO_PORT, Do.TCP_CLIENT)
        rules += to_server(ruleset.tcp_ports, back, Is.TCP, Is.TCP_FROM_PORT, Do.TCP_SERVER)
    if ruleset.udp_ports:
        rules += to_client(ruleset.udp_ports, there, Is.UDP, Is.UDP_TO_PORT, Do.UDP_CLIENT)
        rules += to_server(ruleset.udp_ports, back, Is.UDP, Is.UDP_FROM_PORT, Do.UDP_SERVER)
    return [rule._replace(name=f"probe_{rule.name}") for rule in rules]


def by_family(networks: tuple[str, ...], family: int) -> list[str]:
    """Those of IPv4, or of IPv6."""
    return [one for one in networks if (":" in one) == (family == 6)]


def to_client(ports: tuple[int, ...] | str, way: tuple[Is, ...], protocol: Is, to_port: Is, chain: Do) -> list[Rule]:
    """What counts as client to server: the destination port, or with all ports the connection's own direction.

    Without a conntrack entry there is no direction, so such a packet counts as the client's.
    """
    name = chain.name.lower()
    if ports == "all":
        return [Rule(name, (*way, protocol, Is.ORIGINAL), chain),
                Rule(f"{name}_stateless", (*way, protocol, Is.STATELESS), chain)]
    return [Rule(name, (*way, to_port), chain)]


def to_server(ports: tuple[int, ...] | str, way: tuple[Is, ...], protocol: Is, from_port: Is,
              chain: Do) -> list[Rule]:
    """What counts as server to client. These rules come after the client's, which win between two listed ports."""
    return [Rule(chain.name.lower(), (*way, protocol, Is.REPLY) if ports == "all" else (*way, from_port), chain)]
