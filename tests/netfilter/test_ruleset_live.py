"""Each sentence of docs/ruleset.md, shown with real packets through a real box, on both back ends.

Most need no daemon: with `absent = "open"` the kernel counts what it would queue and lets it go on. A kernel without
nft's queue statement runs the nft rules with `queue` replaced by what it does without a daemon: accept with bypass,
drop without. What reads the queue itself is run for the back ends whose queue the kernel has: tests/vm/ has both.
"""

import socket
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN, fragment6
from scapy.packet import Raw
from test_bytecode import ANSWERS
from triple import CLIENT, GHOST, SERVER, Ghost, Queue, inside, mac, tls_like, until

from edgeblock.config import Config
from edgeblock.config import Queue as QueueSettings
from edgeblock.errors import SystemProblem
from edgeblock.netfilter import iptables, nft, ruleset
from edgeblock.netfilter.policy import QUIC_VERSIONS

pytestmark = pytest.mark.live

# The operator's own rules: they stand for the daemon where a test needs a flow marked, and must survive everything.
OPERATOR = """*mangle
:MINE - [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A POSTROUTING -m string --string "MARK-HTTP" --algo bm -j CONNMARK --set-xmark 0x20000000/0x30000000
-A POSTROUTING -m string --string "MARK-BLOCKED" --algo bm -j CONNMARK --set-xmark 0x30000000/0x30000000
-A POSTROUTING -m string --string "MARK-MINE" --algo bm -j CONNMARK --set-xmark 0x7/0xf
-A POSTROUTING -m connmark --mark 0x10000007 -m comment --comment kept -j MINE
-A PREROUTING -m conntrack --ctstate INVALID -m comment --comment invalid -j MINE
COMMIT
"""


class Box:
    """The rules in force in the box, and what they have counted."""

    def __init__(self, triple, backend: str) -> None:
        self.triple, self.backend = triple, backend
        self.real = backend == "iptables" or inside(triple.box, has_nft_queue)

    def apply(self, workers: int = 1, **changes) -> None:
        config = Config()
        self.config = Config(queue=QueueSettings(number=0, workers=workers),
                             ruleset=replace(config.ruleset, backend=self.backend, **changes))
        if self.real:
            inside(self.triple.box, lambda: ruleset.apply(self.config))
        else:
            inside(self.triple.box, self.pretend)

    def pretend(self) -> None:
        text = nft.text(self.config)
        for queue in ("queue num 0-1", "queue num 0"):
            text = text.replace(f"{queue} bypass", "accept").replace(queue, "drop")
        assert "queue" not in text
        ruleset.tools.run(["nft", "--file", "-"], text)

    def remove(self) -> None:
        inside(self.triple.box, ruleset.remove)

    def count(self, *names: str) -> int:
        """Packets in those rules. Asks one back end only: ruleset.counters looks at both first."""
        seen = inside(self.triple.box, lambda: list(ruleset.BACKENDS[self.backend].counters()))
        assert {name for name, _, _ in seen} >= set(names)
        return sum(packets for name, packets, _ in seen if name in names)

    def settled(self, name: str, packets: int) -> None:
        """Wait until that rule has counted so many, no more."""
        until(lambda: self.count(name) >= packets, f"{packets} packets in {name}")
        assert self.count(name) == packets, inside(self.triple.box, ruleset.counters)


def has_nft_queue() -> bool:
    try:
        nft.probe()
    except SystemProblem:
        return False
    return True


# The back ends whose queue this kernel has. Asking leaves no trace.
QUEUEING = ["iptables", *(["nft"] if has_nft_queue() else [])]
queueing = pytest.mark.parametrize("box", QUEUEING, indirect=True)


@pytest.fixture(scope="module")
def operator(triple):
    for tool in ("iptables", "ip6tables"):
        triple.run(f"{tool}-restore", "--noflush", text=OPERATOR)
    return triple


@pytest.fixture(params=["iptables", "nft"])
def box(operator, request):
    one = Box(operator, request.param)
    one.apply()
    try:
        yield one
    finally:
        operator.hang_up()
        one.remove()


@pytest.fixture
def queue(box):
    """Opens stand-ins of the daemon on queues, where the kernel has them."""
    opened = []

    def start(number: int = 0, accept: bool = True) -> Queue:
        opened.append(Queue(box.triple, number, accept))
        return opened[-1]
    assert box.real
    try:
        yield start
    finally:
        for one in opened:
            one.close()


def operators_count(triple, comment: str) -> int:
    for line in triple.run("iptables-save", "-c", "-t", "mangle").splitlines():
        if f"--comment {comment}" in line:
            return int(line[1:].split(":")[0])
    raise AssertionError("the operator's rule is gone")


def ask(connection: socket.socket, size: int, text: str = "") -> None:
    """Send a request of one segment, and read its whole answer."""
    connection.sendall(f"reply {size} {text}".encode())
    left = size
    while left:
        left -= len(connection.recv(min(left, 65536)))


def stray(sport: int, flags: str, data: bytes = b"", dport: int = 443, seq: int = 5, ack: int = 5):
    """A segment of no connection that anybody knows."""
    header = IP(src=GHOST[4], dst=SERVER[4])
    return header / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack) / Raw(data)


# ---- what is queued ----

@pytest.mark.parametrize("family", [4, 6])
def test_syn_and_payload_are_queued_and_bare_segments_are_not(box, family):
    ghost = Ghost(box.triple, family)
    box.settled("tcp_syn", 1)
    box.settled("tcp_bare", 1)
    ghost.segment("PA", b"hello")
    box.settled("tcp_data", 1)
    ghost.segment("A")
    ghost.segment("FA")
    ghost.segment("R")
    box.settled("tcp_bare", 4)
    assert (box.count("tcp_data"), box.count("tcp_syn")) == (1, 1)


@pytest.mark.parametrize("family", [4, 6])
def test_an_urgent_pointer_is_queued_without_payload(box, family):
    # It tells the server to leave out a byte of what comes next.
    ghost = Ghost(box.triple, family)
    ghost.segment("AU")
    box.settled("tcp_data", 1)


@pytest.mark.parametrize("family", [4, 6])
def test_a_syn_that_carries_data_is_queued(box, family):
    Ghost(box.triple, family, syn=b"\x16\x03\x01early")
    box.settled("tcp_syn", 1)


def test_other_ports_are_left_alone(box):
    connection = box.triple.connect(port=9000)
    ask(connection, 5000)
    assert all(seen.packets == 0 for seen in inside(box.triple.box, ruleset.counters).values())


def test_payload_is_told_exactly_whatever_the_options(box):
    """All lengths of both headers, with 0, 1 and 4 bytes of payload: 121 header pairs, 40 at most in one packet."""
    for ip_words in range(0, 11, 2):
        for tcp_words in range(11):
            for payload in (b"", b"x", b"xxxx"):
                header = IP(src=GHOST[4], dst=SERVER[4], options=[IPOption(b"\x01")] * (4 * ip_words))
                box.triple.send(header / TCP(sport=19999, dport=443, flags="A", seq=1, ack=1,
                                             options=[("NOP", None)] * (4 * tcp_words)) / Raw(payload))
    box.settled("tcp_bare", 66)
    box.settled("tcp_data", 132)


def test_payload_is_told_exactly_in_ipv6(box):
    for tcp_words in range(11):
        for payload in (b"", b"x", b"xxxx"):
            box.triple.send(IPv6(src=GHOST[6], dst=SERVER[6]) / TCP(
                sport=19999, dport=443, flags="A", seq=1, ack=1, options=[("NOP", None)] * (4 * tcp_words))
                / Raw(payload))
    box.settled("tcp_bare", 11)
    box.settled("tcp_data", 22)


@pytest.mark.parametrize("between", [
    IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
    IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]),
    IPv6ExtHdrFragment(),
    IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(),
], ids=["hop-by-hop", "destination", "atomic-fragment", "all"])
def test_payload_behind_ipv6_extension_headers_is_queued(box, between):
    ghost = Ghost(box.triple, 6)
    ghost.segment("PA", b"hello", between=between.copy())
    box.settled("tcp_data", 1)
    until(lambda: b"hello" in box.triple.heard[443], "the data at the server")
    box.triple.send(IPv6(src=GHOST[6], dst=SERVER[6]) / between.copy() / UDP(sport=3000, dport=443) / b"\x40data")
    box.settled("udp_data", 1)


def test_a_wrong_checksum_is_queued_for_the_engine_to_judge(box):
    ghost = Ghost(box.triple)
    ghost.segment("PA", b"decoy", chksum=1)
    box.settled("tcp_data", 1)


def test_byte_by_byte_stays_queued(box):
    """Hundreds of bare ACKs come back, with options: none of them is an answer."""
    ghost = Ghost(box.triple)
    for value in range(100):
        ghost.segment("PA", bytes([value]))
    for _ in range(100):           # an old byte is acknowledged at once
        ghost.segment("PA", b"x", seq=ghost.seq - 100)
    box.settled("tcp_data", 200)
    until(lambda: box.count("tcp_server") > 100, "the server's ACKs")
    assert box.count("tcp_answered") == 0


# ---- done ----

@pytest.mark.parametrize("family", [4, 6])
def test_the_servers_answer_ends_it(box, family):
    connection = box.triple.connect(family)
    ask(connection, 3000)
    box.settled("tcp_answered", 1)
    before = box.count("tcp_data")
    ask(connection, 10, "second request")
    assert box.count("tcp_data") == before == 1
    assert box.count("tcp_done") >= 1


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("size", "answered"), [(1, 0), (7, 0), (111, 0), (208, 1)])
def test_an_answer_is_more_than_an_alert_or_a_hello_retry_request(box, family, size, answered):
    """208 bytes with the timestamps option make 260 in IPv4 and 280 in IPv6."""
    connection = box.triple.connect(family)
    ask(connection, size)
    ask(connection, 1)
    assert box.count("tcp_answered") == answered
    assert box.count("tcp_data") == 2 - answered


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("what", [what for what, (_, answer) in ANSWERS.items() if answer != "long"])
def test_what_a_server_says_ends_it_if_it_answers_a_name(box, family, what):
    data, answer = ANSWERS[what]
    data = data.ljust(300, b"x")
    connection = box.triple.connect(family)
    for _ in range(2):
        connection.sendall(b"say " + data.hex().encode())
        left = len(data)
        while left:
            left -= len(connection.recv(left))
    assert box.count("tcp_answered") == bool(answer)
    assert box.count("tcp_data") == 2 - bool(answer)


def test_a_bulk_transfer_leaves_the_queue(box):
    connection = box.triple.connect()
    ask(connection, 8_000_000)
    connection.sendall(b"U" * 4_000_000)
    until(lambda: box.count("tcp_done") > 100, "the upload in the rule for done flows")
    assert box.count("tcp_syn", "tcp_data") == 2
    # Compared with ports: SYN, the ACK of the handshake and the request; SYN with ACK, a bare ACK and the answer.
    assert box.count("tcp_client") == 3 and box.count("tcp_server") <= 3


def test_the_operators_bits_of_the_mark_stay(box):
    before = operators_count(box.triple, "kept")
    connection = box.triple.connect()
    ask(connection, 1, "MARK-MINE")
    ask(connection, 3000)
    until(lambda: operators_count(box.triple, "kept") > before, "a packet with mark 0x10000007")


def test_done_does_not_outlive_a_new_connection_on_the_same_entry(box):
    """Conntrack missed the first connection's end, so the SYN of the next one finds the entry with its mark."""
    ghost = Ghost(box.triple)
    ghost.segment("PA", b"reply 300 ")
    box.settled("tcp_answered", 1)
    ghost.ack += 300               # so that the server has nothing to send again
    ghost.segment("PA", b"more")
    box.settled("tcp_done", 2)     # that, and what the server says to it
    # The server's end comes by unseen: a reset that nobody tracks.
    untracked = ("-p", "tcp", "--sport", str(ghost.source), "--tcp-flags", "RST", "RST", "-j", "CT", "--notrack")
    box.triple.run("iptables", "-t", "raw", "-A", "PREROUTING", *untracked)
    try:
        ghost.segment("R")
        ghost.isn = ghost.seq + 1_000_000
        ghost.segment("S", seq=ghost.isn, ack=0)
        box.settled("tcp_syn", 2)
    finally:
        box.triple.run("iptables", "-t", "raw", "-D", "PREROUTING", *untracked)
    reply = box.triple.receive(lambda f: TCP in f and f[TCP].dport == ghost.source and f[TCP].flags == "SA"
                               and f[TCP].ack == ghost.isn + 1)
    box.settled("tcp_accepted", 1)
    ghost.seq, ghost.ack = ghost.isn + 1, reply[TCP].seq + 1
    ghost.segment("A")
    ghost.segment("PA", b"hello again")
    box.settled("tcp_data", 2)
    box.settled("tcp_proven", 2)


def test_a_strangers_syn_does_not_undo_what_is_done(box):
    ghost = Ghost(box.triple)
    ghost.segment("PA", b"reply 300 ")
    box.settled("tcp_answered", 1)
    ghost.ack += 300
    for isn in (1_000_000, 300_000_000, 3_000_000_000):
        ghost.segment("S", seq=(ghost.seq + isn) % (1 << 32), ack=0)
    box.settled("tcp_syn", 4)
    ghost.segment("PA", b"more")
    ghost.segment("PA", b"and more")
    until(lambda: box.count("tcp_done") >= 2, "what follows in the rule for done flows")
    assert box.count("tcp_data") == 1 and box.count("tcp_reopened", "tcp_accepted") == 0


def test_only_who_hears_the_server_is_proven(box):
    """Conntrack takes what is out of its window for INVALID."""
    ghost = Ghost(box.triple)
    ghost.segment("PA", b"x")
    box.settled("tcp_proven", 1)
    ghost.segment("PA", b"y", ack=(ghost.ack + 1_000_000_000) % (1 << 32), seq=ghost.seq)
    ghost.segment("PA", b"y", seq=(ghost.seq + 1_000_000_000) % (1 << 32))
    ghost.segment("S", b"y", seq=ghost.seq)
    ghost.segment("PAR", b"y", seq=(ghost.seq + 1_000_000_000) % (1 << 32))
    box.triple.send(stray(6003, "PA", b"x"))
    box.settled("tcp_data", 5)
    box.settled("tcp_syn", 2)
    assert box.count("tcp_proven") == 1


# ---- http ----

@pytest.mark.parametrize("family", [4, 6])
def test_http_stays_queued_whatever_the_server_answers(box, family):
    connection = box.triple.connect(family, port=80)
    for _ in range(3):
        ask(connection, 5000, "MARK-HTTP")
    assert box.count("tcp_data") == 3
    assert box.count("tcp_answered") == box.count("tcp_done") == 0
    assert box.count("tcp_bare") > 0


# ---- blocked ----

@pytest.mark.parametrize("family", [4, 6])
def test_blocked_is_dropped_both_ways_in_the_kernel(box, family):
    ghost = Ghost(box.triple, family)
    ghost.segment("PA", b"reply 500 MARK-BLOCKED")
    until(lambda: box.count("tcp_server_blocked") > 0, "the server's answer dropped")
    ghost.segment("A")
    box.settled("tcp_blocked_bare", 1)
    ghost.segment("PA", b"SECRET-AFTER-BLOCK")
    box.settled("tcp_blocked_data", 1)
    ghost.segment("R")
    box.settled("tcp_blocked_bare", 2)
    assert b"SECRET-AFTER-BLOCK" not in box.triple.heard[443]      # though absent is open


@pytest.mark.parametrize("family", [4, 6])
def test_a_syn_on_the_entry_of_a_blocked_flow_is_the_daemons_to_judge(box, family):
    # The entry lives on where nobody has reset the connection, and the ports may come round again.
    ghost = Ghost(box.triple, family)
    ghost.segment("PA", b"reply 500 MARK-BLOCKED")
    until(lambda: box.count("tcp_server_blocked") > 0, "the server's answer dropped")
    ghost.segment("S")
    box.settled("tcp_blocked_syn", 1)
    box.settled("tcp_blocked_data", 1)
    assert box.count("tcp_blocked_bare") == 0


@queueing
def test_payload_of_a_blocked_flow_still_reaches_the_daemon(box, queue):
    reader = queue()
    ghost = Ghost(box.triple)
    ghost.segment("PA", b"MARK-BLOCKED")
    until(lambda: b"MARK-BLOCKED" in reader.payloads(), "the first request in the queue")
    ghost.segment("PA", b"again")
    until(lambda: b"again" in reader.payloads(), "the repeated request in the queue")
    assert len(reader.packets) == 3


# ---- conntrack that was fooled ----

@pytest.mark.parametrize("family", [4, 6])
def test_payload_after_a_forged_reset_is_queued(box, family):
    """The RST dies at the box (hop limit 1), but conntrack has believed it by then."""
    ghost = Ghost(box.triple, family)
    ghost.segment("R", ttl=1)
    ghost.segment("PA", b"after the reset")
    box.settled("tcp_data", 1)
    until(lambda: b"after the reset" in box.triple.heard[443], "the data at the server")


def test_payload_without_any_conntrack_entry_is_queued(box):
    """State INVALID: the entry is dead and conntrack may not pick the connection up in the middle."""
    box.triple.write("net/netfilter/nf_conntrack_tcp_loose", "0")
    try:
        before = operators_count(box.triple, "invalid")
        box.triple.send(stray(17000, "PA", b"midstream"))
        box.settled("tcp_data", 1)
        assert operators_count(box.triple, "invalid") > before
        box.triple.send(stray(17001, "A"))
        box.settled("tcp_bare", 1)
    finally:
        box.triple.write("net/netfilter/nf_conntrack_tcp_loose", "1")


def test_a_connection_picked_up_from_the_servers_side_is_queued(box):
    """Its conntrack entry runs from server to client; the destination port still tells who is who."""
    server_says = IP(src=SERVER[4], dst=GHOST[4]) / TCP(sport=443, dport=16000, flags="A", seq=9, ack=9) / b"x"
    inside(box.triple.server, lambda: raw_send(server_says))
    until(lambda: box.count("tcp_server") >= 1, "the server's packet")
    box.triple.send(stray(16000, "PA", b"hello", seq=9, ack=10))
    box.settled("tcp_data", 1)


def raw_send(packet) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
        one.sendto(bytes(packet), (packet.dst, 0))


# ---- a forged answer ----

def test_a_client_cannot_forge_the_servers_answer_where_source_addresses_are_checked(box):
    ghost = Ghost(box.triple)
    forged = IP(src=SERVER[4], dst=GHOST[4]) / TCP(sport=443, dport=ghost.source, flags="PA", seq=ghost.ack,
                                                   ack=ghost.seq) / tls_like(1000)
    box.triple.write("net/ipv4/conf/c0/rp_filter", "1")
    box.triple.send(forged)
    ghost.segment("PA", b"hello")
    box.settled("tcp_data", 1)
    assert box.count("tcp_answered") == 0
    box.triple.write("net/ipv4/conf/c0/rp_filter", "0")
    box.triple.send(forged)
    box.settled("tcp_answered", 1)             # the limit that docs/ruleset.md and doctor speak of


# ---- fragments ----

@queueing
def test_fragments_arrive_whole_at_the_queue(box, queue):
    reader = queue()
    body = b"\xc0" + bytes(range(256)) * 12
    for piece in fragment(IP(src=GHOST[4], dst=SERVER[4], id=77) / UDP(sport=3001, dport=443) / body, fragsize=600):
        box.triple.send(piece)
    until(lambda: body in reader.payloads(), "the datagram in one piece")
    assert len(reader.packets) == 1

    ghost = Ghost(box.triple)
    # 8 bytes at a time cut the TCP header itself.
    for piece in fragment(ghost.header() / ghost.build("PA", b"F" * 200), fragsize=8):
        box.triple.send(piece)
    until(lambda: b"F" * 200 in reader.payloads(), "the segment in one piece")
    assert len(reader.packets) == 3          # the datagram, the SYN, the segment


@queueing
def test_ipv6_fragments_arrive_whole_at_the_queue(box, queue):
    reader = queue()
    body = b"\xc0" + bytes(range(256)) * 12
    whole = IPv6(src=GHOST[6], dst=SERVER[6]) / IPv6ExtHdrFragment(id=99) / UDP(sport=3002, dport=443) / body
    pieces = fragment6(whole, 1280)
    assert len(pieces) > 1
    for piece in pieces:
        box.triple.send(piece)
    until(lambda: body in reader.payloads(), "the datagram in one piece")
    assert len(reader.packets) == 1


# ---- UDP ----

LONG = b"\xc0\x00\x00\x00\x01"


@pytest.mark.parametrize("family", [4, 6])
def test_udp_is_queued_until_the_server_answers_and_long_headers_always(box, family):
    client = box.triple.udp(family)
    client.sendto(b"\x40junk", (SERVER[family], 443))
    client.sendto(LONG + b" reply 30 ", (SERVER[family], 443))
    client.recv(100)
    box.settled("udp_data", 2)
    box.settled("udp_answered", 1)
    client.sendto(b"\x40short", (SERVER[family], 443))
    box.settled("udp_done", 1)
    client.sendto(LONG + b"new connection", (SERVER[family], 443))
    client.sendto(b"\x80fixed bit greased", (SERVER[family], 443))
    box.settled("udp_data", 4)


@pytest.mark.parametrize("family", [4, 6])
def test_blocked_udp_is_dropped_both_ways_but_for_long_headers(box, family):
    client = box.triple.udp(family)
    client.sendto(LONG + b"MARK-BLOCKED reply 30 ", (SERVER[family], 443))
    box.settled("udp_server_blocked", 1)
    client.sendto(b"\x40short", (SERVER[family], 443))
    box.settled("udp_blocked", 1)
    client.sendto(LONG + b"SECRET-UDP", (SERVER[family], 443))
    box.settled("udp_blocked_long", 1)
    assert b"SECRET-UDP" not in box.triple.heard[443]


# ---- all ports ----

def test_all_tcp_ports_by_the_direction_of_the_connection(box):
    box.apply(tcp_ports="all", udp_ports="all")
    connection = box.triple.connect(port=9000)
    ask(connection, 3000)
    box.settled("tcp_syn", 1)
    box.settled("tcp_data", 1)
    box.settled("tcp_answered", 1)
    box.triple.write("net/netfilter/nf_conntrack_tcp_loose", "0")
    try:
        box.triple.send(stray(15000, "PA", b"lost", dport=9000))
        # Without an entry there is no direction: the server's RST is taken for the client's, and is bare.
        box.settled("tcp_client_stateless", 2)
        box.settled("tcp_data", 2)
    finally:
        box.triple.write("net/netfilter/nf_conntrack_tcp_loose", "1")


@pytest.mark.parametrize("family", [4, 6])
def test_all_udp_ports_queue_only_what_may_be_an_initial(box, family):
    box.apply(tcp_ports="all", udp_ports="all")
    client = box.triple.udp(family)
    for data in (b"\x40short", b"\x80\x60RTP or so", b"\xc0\x00\x00\x00\x05other version", b"\xc0", b""):
        client.sendto(data, (SERVER[family], 9000))
    for version in QUIC_VERSIONS:
        client.sendto(b"\xc3" + version.to_bytes(4) + b"rest", (SERVER[family], 9000))
    box.settled("udp_client", 5 + len(QUIC_VERSIONS))
    box.settled("udp_data", len(QUIC_VERSIONS))
    client.sendto(LONG + b"MARK-BLOCKED reply 10 ", (SERVER[family], 9000))
    box.settled("udp_server_blocked", 1)
    client.sendto(b"\x40short", (SERVER[family], 9000))
    box.settled("udp_blocked", 1)


# ---- hooks ----

def test_output_the_box_is_the_client(box):
    box.apply(hooks=("output",))
    connection = box.triple.connect(place=box.triple.box)
    ask(connection, 3000)
    box.settled("tcp_syn", 1)
    box.settled("tcp_answered", 1)
    ask(box.triple.connect(), 10)
    box.settled("tcp_syn", 1)                  # forwarded connections are not its business


def test_our_own_replies_are_skipped(box):
    box.apply(hooks=("output",))
    connection = box.triple.connect(place=box.triple.box, mark=box.config.ruleset.inject_mark)
    ask(connection, 10)
    assert box.count("ours") > 2
    assert box.count("tcp_syn", "tcp_data", "tcp_bare") == 0


def test_input_the_box_is_the_server(box):
    box.apply(hooks=("input",))
    listener = inside(box.triple.box, lambda: socket.create_server(("10.201.1.1", 443)))
    try:
        def connect() -> socket.socket:
            return socket.create_connection(("10.201.1.1", 443), timeout=10)
        client = inside(box.triple.client, connect)
        served = listener.accept()[0]
        client.sendall(b"hello")
        served.sendall(tls_like(3000))
        assert client.recv(10)
        box.settled("tcp_syn", 1)
        box.settled("tcp_data", 1)
        box.settled("tcp_answered", 1)
        client.close()
        served.close()
    finally:
        listener.close()


# ---- interfaces and exemptions ----

@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ports", [(443,), "all"], ids=["listed", "all"])
def test_only_what_comes_from_the_clients_side_and_goes_to_the_servers_is_queued(box, family, ports):
    box.apply(clients=("c0",), servers=("s*",), tcp_ports=ports, udp_ports=ports)
    ask(box.triple.connect(family), 3000)
    assert box.count("tcp_syn") >= 1                         # again where a neighbour has to be found first
    box.settled("tcp_data", 1)
    box.settled("tcp_answered", 1)
    client = box.triple.udp(family)
    client.sendto(LONG + b" reply 30 ", (SERVER[family], 443))
    client.recv(100)
    box.settled("udp_data", 1)
    # The other way round nothing is looked at, though it is the same port.
    box.apply(clients=("s0",), servers=("c0",), tcp_ports=ports, udp_ports=ports)
    ask(box.triple.connect(family), 3000)
    client = box.triple.udp(family)
    client.sendto(LONG + b" reply 30 ", (SERVER[family], 443))
    client.recv(100)
    assert all(seen.packets == 0 for seen in inside(box.triple.box, ruleset.counters).values())


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ports", [(443,), "all"], ids=["listed", "all"])
@pytest.mark.parametrize("side", ["exempt_clients", "exempt_servers"])
def test_exempt_addresses_are_never_queued(box, family, ports, side):
    where = CLIENT if side == "exempt_clients" else SERVER
    others = ("192.0.2.0/24", "2001:db8::/32")
    box.apply(tcp_ports=ports, udp_ports=ports, **{side: (*others, where[4], f"{where[6]}/126")})
    ask(box.triple.connect(family), 3000)
    client = box.triple.udp(family)
    client.sendto(LONG + b" reply 30 ", (SERVER[family], 443))
    client.recv(100)
    assert box.count("tcp_syn", "tcp_data", "udp_data") == 0
    assert box.count(side) >= 2
    ghost = Ghost(box.triple, family)                        # a neighbour of the exempt client
    if side == "exempt_clients" and family == 4:
        ghost.segment("PA", b"hello")
        box.settled("tcp_data", 1)
    box.apply(tcp_ports=ports, udp_ports=ports, **{side: others})
    ask(box.triple.connect(family), 10)
    box.settled("tcp_data", 1)


# ---- one way only ----

@pytest.mark.parametrize("family", [4, 6])
def test_client_packets_are_queued_when_the_answers_take_another_way(box, family):
    """The server answers over a cable that does not pass the box: every request is queued, none is marked done."""
    with second_cable(box.triple, family):
        connection = box.triple.connect(family)
        for _ in range(4):
            ask(connection, 3000)
        assert box.count("tcp_syn") >= 1
        box.settled("tcp_data", 4)
        assert box.count("tcp_server") == box.count("tcp_answered") == 0


@contextmanager
def second_cable(triple, family: int):
    """From the server straight to the client."""
    wide = "/32" if family == 4 else "/128"
    triple.ip("-n", triple.server, "link", "add", "back", "type", "veth",
              "peer", "name", "back", "netns", triple.client)
    for place in (triple.server, triple.client):
        triple.ip("-n", place, "link", "set", "back", "up")
    address = inside(triple.client, lambda: mac("back"))
    gate = "10.201.9.9" if family == 4 else "fd00:201:9::9"
    triple.ip("-n", triple.server, "neighbour", "add", gate, "lladdr", address, "dev", "back")
    triple.ip("-n", triple.server, "route", "add", CLIENT[family] + wide, "via", gate, "dev", "back", "onlink")
    try:
        yield
    finally:
        triple.ip("-n", triple.server, "link", "delete", "back")


# ---- absent, workers ----

@queueing
def test_closed_lets_nothing_pass_without_a_daemon(box):
    box.apply(absent="closed")
    client = box.triple.udp()
    client.sendto(LONG + b"CLOSED-UDP", (SERVER[4], 443))
    box.settled("udp_data", 1)
    box.triple.send(stray(14000, "PA", b"CLOSED-TCP"))
    box.settled("tcp_data", 1)
    client.sendto(LONG + b"PASSES", (SERVER[4], 9000))
    until(lambda: b"PASSES" in box.triple.heard[9000], "what is not filtered")
    assert b"CLOSED" not in box.triple.heard[443]


@queueing
def test_a_flow_stays_on_one_queue(box, queue):
    box.apply(workers=2)
    readers = [queue(0), queue(1)]
    for host in range(60, 76):
        for part in range(3):
            box.triple.send(IP(src=f"10.201.1.{host}", dst=SERVER[4]) / UDP(sport=5000 + part, dport=443) / LONG)
    until(lambda: sum(len(reader.packets) for reader in readers) == 48, "48 packets")
    homes = [{IP(data).src for data in reader.packets} for reader in readers]
    assert not homes[0] & homes[1] and all(homes)


# ---- applied, applied again, removed ----

def dump(triple) -> list[str]:
    """Everything about rules in the box, without counts and dates."""
    text = triple.run("nft", "--stateless", "list", "ruleset")
    for tool in ("iptables-save", "ip6tables-save"):
        text += triple.run(tool)
    return [line.split(" [")[0] for line in text.splitlines() if line and not line.startswith("#")]


def test_twice_is_once(box):
    once = dump(box.triple)
    box.apply()
    assert dump(box.triple) == once
    joined = "\n".join(once)
    if box.backend == "iptables":
        assert joined.count("-j EDGEBLOCK_FORWARD") == 2          # one for each family
    else:
        assert joined.count("table inet edgeblock") == 1


def test_other_settings_replace_the_rules_whole(box):
    def rules() -> list[str]:
        """In the order that counts: within each chain. Chains that come back are listed last, and what was made for
        us stays noted until it is removed."""
        return sorted((line for line in dump(box.triple)
                       if " -j " in line or " -g " in line or "comment" in line and '"made ' not in line),
                      key=lambda line: line.split()[:2])
    once = rules()
    box.apply(hooks=("forward", "input", "output"), tcp_ports="all", udp_ports=())
    assert rules() != once
    box.apply()
    assert rules() == once


def test_removing_leaves_nothing_and_the_operators_rules_are_as_they_were(box):
    box.remove()
    before = dump(box.triple)
    assert not any("edgeblock" in line.lower() for line in before)
    assert any("TCPMSS" in line for line in before) and any("MINE" in line for line in before)
    box.apply(hooks=("forward", "input", "output"))
    assert dump(box.triple) != before
    box.remove()
    assert dump(box.triple) == before
    box.remove()
    assert dump(box.triple) == before


def test_half_of_it_and_both_back_ends_are_removed(box):
    box.remove()
    before = dump(box.triple)
    box.triple.run("iptables-restore", "--noflush",
                   text=iptables.transaction(box.config, 4, iptables.Installed(), ["INPUT"]))
    box.triple.run("ip6tables", "-t", "mangle", "-N", "EDGEBLOCK_ORPHAN")
    box.triple.run("iptables", "-t", "mangle", "-A", "MINE", "-j", "EDGEBLOCK_TCP_CLIENT")
    box.triple.run("nft", "add", "table", "inet", "edgeblock")
    box.remove()
    assert dump(box.triple) == before


def test_a_jump_that_was_doubled_or_lost_is_repaired(box):
    if box.backend == "iptables":
        once = dump(box.triple)
        jump = iptables.jump_line("FORWARD")
        box.triple.run("iptables-restore", "--noflush", text=iptables.commands([jump]))
        box.apply()
        assert dump(box.triple) == once
        box.triple.run("iptables-restore", "--noflush", text=iptables.commands(["-D" + jump[2:]]))
        box.apply()
        assert dump(box.triple) == once
    else:
        once = dump(box.triple)
        box.triple.run("nft", "flush", "chain", "inet", "edgeblock", "tcp_client")
        box.apply()
        assert dump(box.triple) == once


def test_changing_the_back_end_leaves_one(box):
    """Whatever was there of either: the other's rules whole, or half of them."""
    if box.backend == "nft":
        whole = iptables.transaction(box.config, 4, iptables.Installed())
        box.triple.run("iptables-restore", "--noflush", text=whole)
    else:
        box.triple.run("nft", "add", "table", "inet", "edgeblock")
    assert inside(box.triple.box, ruleset.in_force) == ("nft", "iptables")
    if box.real:
        box.apply()
        assert inside(box.triple.box, ruleset.in_force) == (box.backend,)
    box.remove()
    assert inside(box.triple.box, ruleset.in_force) == ()


def test_nothing_is_left_on_a_box_that_had_no_rules_at_all(box):
    """Not even the empty chains and tables that iptables makes on its way."""
    box.remove()
    saved = {tool: box.triple.run(f"{tool}-save") for tool in ("iptables", "ip6tables")}
    box.triple.run("nft", "flush", "ruleset")
    try:
        box.apply(hooks=("forward", "input"))
        box.remove()
        assert box.triple.run("nft", "list", "ruleset") == ""
    finally:
        for tool, text in saved.items():
            box.triple.run(f"{tool}-restore", text=text)


def test_probing_leaves_no_trace(operator):
    before = dump(operator)
    assert inside(operator.box, ruleset.detect_backend) in ("nft", "iptables")
    assert dump(operator) == before


def test_without_permission_it_is_one_line(monkeypatch):
    monkeypatch.setattr(ruleset.tools, "capable", lambda bit: False)
    for door in (ruleset.remove, ruleset.detect_backend, ruleset.in_force, lambda: ruleset.apply(Config())):
        with pytest.raises(SystemProblem, match="not permitted; run this as root or with CAP_NET_ADMIN"):
            door()
    assert "table inet edgeblock" in ruleset.text(Config(ruleset=replace(Config().ruleset, backend="nft")))


def test_clients_of_the_kernel_still_get_their_answers(box):
    """The rules in force, no daemon: an ordinary connection works, IPv4 and IPv6."""
    start = time.monotonic()
    for family in (4, 6):
        assert CLIENT[family] != GHOST[family]
        ask(box.triple.connect(family), 100_000)
    assert time.monotonic() - start < 5
