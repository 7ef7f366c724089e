"""Replies that leave through the kernel, and what a real client's TCP makes of them.

A server's kernel answers the handshake and never sees the request: the firewall eats it. What the client reads
after that is ours alone.
"""

import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest

from edgeblock import wire
from edgeblock.config import Reply
from edgeblock.core.decision import Decision
from edgeblock.enforce import replies
from edgeblock.enforce.answers import Answers
from edgeblock.enforce.inject import Injector
from tests.box import Pair, inside, run

MARK = 0x40000000
CLIENT, BOX = {4: "10.9.0.1", 6: "fd09::1"}, {4: "10.9.0.2", 6: "fd09::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = 8080
pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def pair():
    with Pair() as both:
        for tables in ("iptables", "ip6tables"):
            run(both.box, tables, "-A", "INPUT", "-i", "up0", "-p", "tcp", "--dport", PORT, "--tcp-flags", "PSH",
                "PSH", "-j", "DROP")
        yield both


@contextmanager
def server(pair, version, action, proto, **settings):
    """Listens in the box; blocks the first request of each connection. Gives what the server's socket met."""
    met = []
    with inside(pair.box):
        listener = socket.create_server((BOX[version], PORT), family=FAMILY[version])
        wiretap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800 if version == 4 else 0x86DD))
        wiretap.bind(("up0", 0x0800 if version == 4 else 0x86DD))
        injector = Injector(MARK)
    answers = Answers(Reply(**settings))

    def block():
        while True:
            packet = wiretap.recv(65535)[14:]
            header = wire.find_transport(packet)
            if header is not None and header.proto == wire.TCP and packet[header.at + 13] & 0x08:
                break
        seq, ack = struct.unpack_from(">II", packet, header.at + 4)
        end = seq + header.end - header.at - (packet[header.at + 12] >> 4) * 4
        made = replies.build(packet, Decision(accept=False, action=action, proto=proto, reply=True, client_seq=ack,
                                              client_ack=end, reset_seqs=(seq,), reset_ack=ack), answers, time.time())
        injector.send(made.to_client + made.to_server)

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            try:
                met.append(connection.recv(100))
            except OSError as problem:
                met.append(type(problem))

    threads = [threading.Thread(target=target) for target in (block, serve)]
    for thread in threads:
        thread.start()
    with closing(listener), closing(wiretap), closing(injector):
        yield met, injector
        for thread in threads:
            thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def connect(pair, version):
    with inside(pair.client):
        return socket.create_connection((BOX[version], PORT), timeout=10)


def read_all(client):
    data = b""
    while part := client.recv(65536):
        data += part
    return data


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_reads_the_whole_page_and_its_end_and_the_server_is_reset(pair, version):
    with (server(pair, version, "page", "http", provider="An ISP") as (met, injector),
          connect(pair, version) as client):
        client.sendall(b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n")
        data = read_all(client)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 451 ") and f"Content-Length: {len(body)}".encode() in head
    assert body.endswith(b"</html>\n") and b"An ISP" in body
    assert met == [ConnectionResetError]
    assert (injector.sent, injector.failed) == ({4: 7, 6: 4}[version], 0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_tls_client_reads_the_alert(pair, version):
    with (server(pair, version, "reset", "tls") as (met, _), connect(pair, version) as client,
          pytest.raises(ssl.SSLError, match="(?i)access.denied")):
        ssl.create_default_context().wrap_socket(client, server_hostname="listed.example")
    assert met == [ConnectionResetError]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("proto", "settings"), [("http", {}), ("tls", {"tls": "rst"})])
def test_a_client_is_reset(pair, version, proto, settings):
    with (server(pair, version, "reset", proto, **settings) as (met, _), connect(pair, version) as client,
          pytest.raises(ConnectionResetError)):
        client.sendall(b"hello")
        read_all(client)
    assert met == [ConnectionResetError]


def test_replies_carry_the_mark(pair):
    run(pair.box, "iptables", "-A", "OUTPUT", "-m", "mark", "--mark", f"{MARK}/{MARK}", "-p", "tcp", "--sport", "7")
    with inside(pair.box), Injector(MARK) as injector:
        injector.send([segment("10.9.0.2", "10.9.0.1")] * 3)
        assert (injector.sent, injector.failed) == (3, 0)
    rules = run(pair.box, "iptables", "-vxnL", "OUTPUT")
    assert [line.split()[0] for line in rules.splitlines()[2:]] == ["3"]


def segment(src, dst):
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    sender = replies._Sender(6 if ":" in src else 4, socket.inet_pton(family, src), socket.inet_pton(family, dst),
                             struct.pack(">HH", 7, 9), 1)
    return sender.segment(1, 1, replies.RST | replies.ACK, 0, b"", b"")


def test_what_cannot_be_sent_is_counted_and_never_raised(pair):
    whole = segment("10.9.0.2", "10.9.0.1")
    hopeless = [b"", b"\x45", b"\x60" * 30, whole[:19], whole[:16] + bytes([198, 51, 100, 1]) + whole[20:],
                segment("fd09::2", "2001:db8::1"), whole[:16] + b"\xff" * 4 + whole[20:], whole + bytes(9000),
                b"\x10"]
    with inside(pair.box), Injector(MARK) as injector:
        injector.send([*hopeless, whole])
        assert (injector.sent, injector.failed) == (1, len(hopeless))
    injector.send([whole])
    assert injector.failed == len(hopeless) + 1, "after it was closed"


def test_without_the_permission_it_says_so_in_one_line():
    bare = ["setpriv", "--bounding-set", "-net_raw,-net_admin", "--inh-caps", "-net_raw,-net_admin"]
    program = """
from edgeblock.enforce.inject import Injector
from edgeblock.errors import SystemProblem
try:
    Injector(1)
except SystemProblem as problem:
    print(problem)
"""
    done = subprocess.run([*bare, sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CAP_NET_RAW" in done.stdout and done.stdout.count("\n") == 1
