"""The queue against the real kernel: an iptables rule, real sockets, and an engine that does what a packet says."""

import faulthandler
import importlib.util
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from setuptools import Distribution, Extension

from edgeblock.core.matcher import Matcher
from edgeblock.daemon.board import Board
from edgeblock.errors import SystemProblem
from edgeblock.source import nfqueue
from edgeblock.source import queue as kernel_queue
from tests.box import Pair, inside, run
from tests.core import samples as s
from tests.daemon.scarce import descriptors_left

pytestmark = pytest.mark.live

QUEUE = 7
PORT = 9000
KEEP, DONE, HTTP, BLOCKED = range(4)
MASK = 0x30000000
MARKS = (MASK, 0x10000000, 0x20000000, 0x30000000)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """The class of tests/source/scripted.pyx."""
    from Cython.Build import cythonize

    folder = tmp_path_factory.mktemp("scripted")
    source = folder / "scripted.pyx"
    source.write_text(Path(__file__).with_name("scripted.pyx").read_text())
    modules = cythonize([Extension("scripted", [str(source)])], language_level=3, quiet=True)
    build = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    build.build_lib = build.build_temp = str(folder)
    build.ensure_finalized()
    build.run()
    spec = importlib.util.spec_from_file_location("scripted", next(folder.glob("scripted*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Scripted


@pytest.fixture
def pair():
    with Pair() as both:
        for tables in ("iptables", "ip6tables"):
            # Connections are tracked in a namespace only where a rule asks for it.
            run(both.box, tables, "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
            run(both.box, tables, "-A", "INPUT", "-p", "udp", "--dport", PORT, "-j", "NFQUEUE",
                "--queue-num", QUEUE, "--queue-bypass")
        yield both


@pytest.fixture
def reader(pair, scripted):
    """Makes readers on the queue of `pair.box`; `told` of each collects what its callback heard."""
    made = []

    def make(on_decision=None, **settings):
        told = []
        with inside(pair.box):
            queue = nfqueue.QueueReader(QUEUE, scripted(Matcher()), on_decision or (lambda *it: told.append(it)),
                                        marks=MARKS, **settings)
        made.append(queue)
        return queue, told

    yield make
    for queue in made:
        queue.close()


@contextmanager
def udp(pair, address="127.0.0.1", sender=None):
    """A connected sender, by default in the box itself, and a receiver with room for every test."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(pair.box):
        server = socket.socket(family, socket.SOCK_DGRAM)
    with inside(sender or pair.box):
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.setsockopt(socket.SOL_SOCKET, kernel_queue.SO_RCVBUFFORCE, 64 << 20)
        server.bind((address, PORT))
        server.setblocking(False)
        client.connect((address, PORT))
        yield client, server


def script(accept=1, mark=KEEP, tell=0, more=b""):
    return bytes((accept, mark, tell)) + more


def arrived(server):
    packets = []
    while True:
        try:
            packets.append(server.recv(70_000))
        except BlockingIOError:
            return packets


def connection_mark(pair, family="ipv4"):
    [mark] = re.findall(r"mark=(\d+)", run(pair.box, "conntrack", "-L", "-p", "udp", "-f", family))
    return int(mark)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_every_packet_is_answered(pair, reader, address):
    queue, told = reader()
    with udp(pair, address) as (client, server):
        for number in range(3000):
            client.send(script(more=str(number).encode()))
            if number % 97 == 0:
                queue.drain()
        while queue.drain():
            pass
        assert [int(packet[3:]) for packet in arrived(server)] == list(range(3000))
    with inside(pair.box):
        counters = queue.counters()
    assert counters["packets"] == counters["passed"] == 3000
    assert counters["waiting"] == counters["lost"] == counters["unreadable"] == counters["refused"] == 0
    assert not told


def test_one_packet_needs_no_second(pair, reader):
    queue, _ = reader()
    with udp(pair) as (client, server):
        client.send(script())
        assert queue.drain() == 1
        assert arrived(server) == [script()]


@pytest.mark.parametrize("seed", range(5))
def test_any_mix_of_verdicts_keeps_order_and_drops_only_the_dropped(pair, reader, seed):
    dice = random.Random(seed)
    queue, told = reader()
    sent = [script(dice.random() < 0.7, dice.choice((KEEP, KEEP, KEEP, DONE, BLOCKED)), dice.random() < 0.05,
                   number.to_bytes(2, "big")) for number in range(1500)]
    with udp(pair) as (client, server):
        for packet in sent:
            client.send(packet)
            if dice.random() < 0.02:
                queue.drain()
        while queue.drain():
            pass
        assert arrived(server) == [packet for packet in sent if packet[0]]
    with inside(pair.box):
        counters = queue.counters()
    assert counters["passed"] == sum(packet[0] for packet in sent)
    assert counters["passed"] + counters["dropped"] == len(sent)
    assert counters["marked"] == sum(packet[1] != KEEP for packet in sent)
    assert counters["waiting"] == 0
    assert [packet[28:] for packet, _ in told] == [packet for packet in sent if packet[2]]


@pytest.mark.parametrize("tell", [0, 1])
@pytest.mark.parametrize("address, tables, family", [("127.0.0.1", "iptables", "ipv4"), ("::1", "ip6tables", "ipv6")])
def test_a_mark_changes_its_own_bits_only(pair, reader, tell, address, tables, family):
    run(pair.box, tables, "-t", "mangle", "-A", "INPUT", "-p", "udp", "-m", "connmark", "--mark", "0",
        "-j", "CONNMARK", "--set-mark", "0x4000abcd")
    queue, _ = reader()
    with udp(pair, address) as (client, _server):
        for mark, bits in ((KEEP, 0), (BLOCKED, 0x30000000), (HTTP, 0x20000000), (KEEP, 0x20000000),
                           (DONE, 0x10000000)):
            client.send(script(1, mark, tell))
            queue.drain()
            assert connection_mark(pair, family) == 0x4000abcd | bits


def test_the_first_packet_of_a_flow_can_be_marked_unless_it_is_dropped(pair, reader):
    queue, _ = reader()
    with udp(pair, "10.9.0.2", pair.client) as (client, _server):
        client.send(script(0, BLOCKED))
        queue.drain()
        assert "mark=" not in run(pair.box, "conntrack", "-L", "-p", "udp")
        client.send(script(1, DONE))
        queue.drain()
        assert connection_mark(pair) == 0x10000000
        queue.drain()
    with inside(pair.box):
        assert queue.counters()["unmarked"] == (0 if queue.marks_by_verdict else 1)


def test_a_mark_comes_with_a_drop_and_the_kernel_acts_on_it(pair, reader):
    run(pair.box, "iptables", "-I", "INPUT", "-m", "connmark", "--mark", f"{MASK:#x}/{MASK:#x}", "-j", "DROP")
    queue, _ = reader()
    with udp(pair) as (client, server):
        client.send(script())
        queue.drain()
        client.send(script(0, BLOCKED))
        queue.drain()
        client.send(script(more=b"never queued"))
        assert queue.drain() == 0
        assert arrived(server) == [script()]


@pytest.mark.parametrize("size", [1473, 8900, 60_000, 65_500])
def test_large_packets_come_whole(pair, reader, size):
    queue, told = reader()
    body = os.urandom(size)
    with udp(pair) as (client, server):
        client.send(script(1, KEEP, 1, body))
        queue.drain()
        assert arrived(server) == [script(1, KEEP, 1, body)]
    assert told[0][0][28 + 3:] == body
    with inside(pair.box):
        assert queue.counters()["cut"] == 0


def test_only_the_last_bytes_of_the_largest_packet_are_missed(pair, reader):
    queue, told = reader()
    whole = script(1, KEEP, 1, os.urandom(65_507 - 3))
    with udp(pair) as (client, server):
        client.send(whole)
        queue.drain()
        assert arrived(server) == [whole]
    assert whole.startswith(told[0][0][28:]) and len(told[0][0]) == 65_531
    with inside(pair.box):
        assert queue.counters()["cut"] == 1


def ones_sum(data):
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("size", [10, 1200, 8000])
def test_checksums_left_to_the_hardware_are_completed_before_we_look(pair, reader, size):
    queue, told = reader()
    with udp(pair, "10.9.0.2", pair.client) as (client, _server):
        client.send(script(1, KEEP, 1, os.urandom(size)))
        queue.drain()
    [(packet, _)] = told
    pseudo = packet[12:20] + struct.pack(">HH", 17, len(packet) - 20)
    assert packet[26:28] != bytes(2)
    assert ones_sum(pseudo + packet[20:]) == 0xFFFF


def test_merged_tcp_segments_pass_unharmed(pair, reader):
    run(pair.box, "iptables", "-A", "INPUT", "-p", "tcp", "-j", "NFQUEUE", "--queue-num", QUEUE)
    queue, _ = reader()
    body = os.urandom(3_000_000)
    with inside(pair.box), socket.create_server(("10.9.0.2", 80)) as server:
        def serve():
            with server.accept()[0] as peer:
                peer.sendall(body)
                peer.shutdown(socket.SHUT_WR)
                echoed.append(b"".join(iter(lambda: peer.recv(1 << 16), b"")))

        def ask():
            with inside(pair.client), socket.create_connection(("10.9.0.2", 80), 20) as peer:
                got = b"".join(iter(lambda: peer.recv(1 << 16), b""))
                peer.sendall(got)
            done.set()

        echoed, done = [], threading.Event()
        threads = [threading.Thread(target=work, daemon=True) for work in (serve, ask)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            queue.drain()
        assert done.is_set() and echoed == [body]
        assert queue.counters()["unreadable"] == 0


def flood(pair, queue, count):
    with udp(pair) as (client, server):
        for number in range(count):
            client.send(script(more=number.to_bytes(4, "big")))
        unseen = len(arrived(server))
        while queue.drain():
            pass
        seen = len(arrived(server))
    with inside(pair.box):
        return unseen, seen, queue.counters()


def test_a_flood_passes_when_open_and_every_packet_is_accounted_for(pair, reader):
    queue, _ = reader(buffer=100_000, length=10)
    unseen, seen, counters = flood(pair, queue, 4000)
    assert unseen > 1000 and unseen + seen == 4000
    assert (counters["lost"], counters["packets"]) == (unseen, seen)
    unseen, seen, counters = flood(pair, queue, 10)          # and it goes on as before
    assert (unseen, seen) == (0, 10)


def test_a_flood_leaks_nothing_when_closed(pair, reader):
    queue, _ = reader(buffer=100_000, fail_open=False)
    unseen, seen, counters = flood(pair, queue, 4000)
    assert unseen == 0 and 0 < seen < 3000
    assert (counters["packets"], counters["lost"]) == (seen, 4000 - seen)
    assert flood(pair, queue, 10)[1] == 10


def test_the_length_bounds_a_closed_queue(pair, reader):
    queue, _ = reader(length=10, fail_open=False)
    unseen, seen, counters = flood(pair, queue, 100)
    assert (unseen, seen, counters["full"], counters["lost"]) == (0, 10, 90, 0)


def test_what_answers_a_packet_leaves_when_its_mark_is_there(pair, reader):
    # The client acknowledges an answer at once, and what it says must meet the mark.
    found = []

    def decide(packet, decision):
        found.append(("asked", connection_mark(pair)))
        return lambda: found.append(("sent", connection_mark(pair)))

    queue, _ = reader(decide)
    with udp(pair) as (client, server):
        client.send(script(1, KEEP))
        queue.drain()
        client.send(script(0, BLOCKED, 1))
        queue.drain()
        assert arrived(server) == [script(1, KEEP)]
    assert found == [("asked", 0), ("sent", MARKS[BLOCKED])]


def test_an_exception_in_sending_changes_no_verdict(pair, reader):
    def fail():
        raise LookupError("no route")

    queue, _ = reader(lambda *_: fail, fail_open=True)
    with udp(pair) as (client, server):
        for packet in (script(0, BLOCKED, 1), script(1, KEEP, 0, b"after")):
            client.send(packet)
        queue.drain()
        assert arrived(server) == [script(1, KEEP, 0, b"after")]
    with inside(pair.box):
        assert (queue.counters()["failures"], queue.failure) == (1, "LookupError: no route")


def test_behind_an_urgent_packet_the_reader_pauses_some_times_in_a_second(pair, reader):
    run(pair.box, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", PORT, "-j", "NFQUEUE", "--queue-num", QUEUE)
    queue, _ = reader()
    with inside(pair.box), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(250):
            raw.sendto(s.tcp(1, b"x", s.ACK | s.URG, source="127.0.0.1", destination="127.0.0.1", dport=PORT,
                             sport=20_000 + number, urgent=1), ("127.0.0.1", 0))
    turns = 0
    while queue.drain() and queue.paused:
        turns += 1
    with inside(pair.box):
        assert queue.counters()["packets"] == 250 and queue.counters()["waiting"] == 0
    assert 200 <= turns <= 250, "200 in a second, and this may have taken more than one"


@pytest.mark.parametrize("fail_open", [True, False])
def test_an_exception_becomes_the_configured_verdict(pair, reader, fail_open):
    def fail(packet, decision):
        raise LookupError("no such page")

    queue, _ = reader(fail, fail_open=fail_open)
    with udp(pair) as (client, server):
        for packet in (script(1, KEEP), script(0, BLOCKED, 1), script(1, KEEP, 0, b"after")):
            client.send(packet)
        queue.drain()
        expected = [script(1, KEEP), script(0, BLOCKED, 1), script(1, KEEP, 0, b"after")]
        assert arrived(server) == (expected if fail_open else expected[::2])
    assert connection_mark(pair) == 0
    with inside(pair.box):
        counters = queue.counters()
    assert (counters["failures"], counters["waiting"]) == (1, 0)
    assert queue.failure == "LookupError: no such page"


def test_an_interrupt_comes_through_and_no_packet_is_forgotten(pair, reader):
    def interrupt(packet, decision):
        raise KeyboardInterrupt

    queue, _ = reader(interrupt)
    with udp(pair) as (client, server):
        for packet in (script(), script(0, BLOCKED, 1), script(more=b"after")):
            client.send(packet)
        with pytest.raises(KeyboardInterrupt):
            queue.drain()
        assert arrived(server) == [script(), script(0, BLOCKED, 1)]
        queue.drain()
        assert arrived(server) == [script(more=b"after")]


def test_a_packet_whose_interface_is_gone_is_counted_and_nothing_breaks(pair, reader):
    queue, _ = reader()
    with udp(pair, "10.9.0.2", pair.client) as (client, _server):
        client.send(script())
        run(pair.box, "ip", "link", "set", "up0", "down")
        queue.drain()
        queue.drain()
    with udp(pair) as (client, server):
        client.send(script(1, DONE))
        queue.drain()
        assert arrived(server) == [script(1, DONE)]
    with inside(pair.box):
        assert queue.counters()["refused"] == 1


def test_no_message_whatsoever_breaks_the_reader(pair, reader):
    """For any netlink message, drain() neither raises nor stops, and real packets are answered after it."""
    dice = random.Random(1)
    queue, _ = reader()
    with inside(pair.box), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as forger, \
            udp(pair) as (client, server):
        with socket.socket(fileno=os.dup(queue.fileno())) as ours:
            port = ours.getsockname()[0]
        # Attributes of a real message: an id that the kernel never gives in this test, a checksum note, a payload.
        def attribute(kind, value):
            return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        payload = bytes((0x45,)) + bytes(27) + script()
        body = (struct.pack(">BBH", 2, 0, QUEUE) + attribute(1, struct.pack(">IHB", 0x7F000000, 0x800, 1))
                + attribute(14, struct.pack(">I", 1)) + attribute(13, struct.pack(">I", 40)) + attribute(10, payload))
        real = struct.pack("=IHHII", 16 + len(body), 3 << 8, 0, 0, 0) + body
        for _ in range(3000):
            forged = bytearray(real * dice.choice((1, 1, 3)))
            for _ in range(dice.randrange(6)):
                forged[dice.choice((0, 4, 20, 22, 32, 36, dice.randrange(len(forged))))] = dice.randrange(256)
            forger.sendto(bytes(forged[:dice.randrange(1, len(forged) + 1)]), (port, 0))
            queue.drain()
        assert queue.counters()["unreadable"] > 500
        # Ids are compared modulo 2**32, so a forged one may have answered nothing yet delivered; now real ones.
        client.send(script(more=b"alive"))
        while not (packets := arrived(server)):
            queue.drain()
        assert packets == [script(more=b"alive")]


def test_closing_answers_what_was_delivered_and_frees_the_queue(pair, reader):
    queue, _ = reader()
    with udp(pair) as (client, server):
        for accept in (1, 0, 1):
            client.send(script(accept))
        queue.close()
        assert arrived(server) == [script(), script()]
        client.send(script(more=b"bypass"))
        assert arrived(server) == [script(more=b"bypass")]
    with inside(pair.box):
        assert kernel_queue.kernel_queues() == {}
        assert queue.counters()["packets"] == 3
    queue.close()
    with pytest.raises(ValueError):
        queue.drain()
    reader()


def test_a_killed_reader_leaves_no_packet_hanging(pair):
    code = ("from edgeblock.core.engine import Engine; from edgeblock.core.matcher import Matcher; import sys\n"
            "from edgeblock.source.nfqueue import QueueReader\n"
            f"queue = QueueReader({QUEUE}, Engine(Matcher()), print); print('bound', flush=True); sys.stdin.read()")
    command = ["ip", "netns", "exec", pair.box, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process, \
            udp(pair) as (client, server):
        assert process.stdout.readline() == "bound\n"
        client.send(b"held by a process that never looks")
        assert arrived(server) == []
        with inside(pair.box):
            assert kernel_queue.kernel_queues()[QUEUE]["waiting"] == 1
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        client.send(b"bypass")
        assert arrived(server) == [b"bypass"]


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_queue_whose_socket_is_held_goes_on_with_another_reader(pair, reader, fail_open):
    """The first has received two packets, answers none and dies; what came after them waits."""
    code = ("import os, socket, sys\nfrom edgeblock.core.engine import Engine\n"
            "from edgeblock.core.matcher import Matcher; from edgeblock.source.nfqueue import QueueReader\n"
            f"queue = QueueReader({QUEUE}, Engine(Matcher()), print, fail_open={fail_open})\n"
            "socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b'held'], [queue.fileno()])\n"
            "sys.stdin.readline(); [os.read(queue.fileno(), 70000) for _ in range(2)]; os.abort()")
    ours, theirs = socket.socketpair()
    command = ["ip", "netns", "exec", pair.box, sys.executable, "-c", code, str(theirs.fileno())]
    with ours, theirs, udp(pair) as (client, server), \
            subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]) as process:
        _, [held], _, _ = socket.recv_fds(ours, 100, 1)
        for _ in range(2):
            client.send(script(more=b"taken with it"))
        process.communicate(b"\n", timeout=10)
        for number in range(3):
            client.send(script(more=str(number).encode()))
        with inside(pair.box):
            assert kernel_queue.losses(held, QUEUE) == (0, 0)
            assert kernel_queue.losses(held, QUEUE + 1) is None
            assert kernel_queue.losses(server.fileno(), QUEUE) is None
            assert kernel_queue.kernel_queues()[QUEUE]["waiting"] == 5
        queue, _ = reader(held=held, fail_open=fail_open)
        while queue.drain():
            pass
        assert [packet[3:] for packet in arrived(server)] == [b"0", b"1", b"2"]
        for _ in range(2):
            client.send(script(more=b"and on"))
            queue.drain()
        assert len(arrived(server)) == 2
        with inside(pair.box):
            counters = queue.counters()
        assert counters["packets"] == 5 and counters["waiting"] == counters["refused"] == counters["lost"] == 0
        queue.close()
        client.send(script(more=b"bypass"))
        assert len(arrived(server)) == 1


@pytest.mark.parametrize("end", ["crash", "kill"])
def test_what_a_reader_had_in_hand_is_refused_by_the_next(pair, reader, scripted, end):
    """The first crashes over a packet, with others around it; or is killed with none in hand."""
    board = Board(1)
    ours, theirs = socket.socketpair()
    with inside(pair.box):
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ours, theirs, other, udp(pair) as (client, server):
        other.connect(server.getsockname())
        child = os.fork()
        if not child:
            faulthandler.disable()
            with inside(pair.box):
                queue = nfqueue.QueueReader(QUEUE, scripted(Matcher()), print, board=board.rows[0])
            socket.send_fds(theirs, [b"held"], [queue.fileno()])
            theirs.recv(1)
            queue.drain()
            theirs.send(b"drained")
            signal.pause()
        _, [held], _, _ = socket.recv_fds(ours, 100, 1)
        for number in range(3):
            other.send(script(more=str(number).encode()))
        if end == "crash":
            client.send(script(255))
        for number in range(3, 6):
            other.send(script(more=str(number).encode()))
        ours.send(b"x")
        if end == "kill":
            assert ours.recv(10) == b"drained"
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == (signal.SIGABRT if end == "crash" else signal.SIGKILL)
        before = len(arrived(server))
        client.send(script(255 if end == "crash" else 1))
        other.send(script(more=b"and on"))
        queue, _ = reader(held=held, board=board.rows[0], blame="certain" if end == "crash" else "suspected")
        while queue.drain():
            pass
        counters = queue.counters()
        if end == "crash":
            assert before == 0 and arrived(server) == [script(more=b"and on")]
            assert (counters["condemned"], counters["condemned_packets"]) == (1, 1)
        else:
            assert before == 6 and arrived(server) == [script(), script(more=b"and on")]
            assert (counters["condemned"], counters["condemned_packets"]) == (0, 0)


def test_the_kernels_counts_go_on_where_the_reader_before_has_left_them(pair, reader):
    queue, _ = reader(fail_open=False, length=10)
    with udp(pair) as (client, _):
        for _ in range(30):
            client.send(script())
        with inside(pair.box):
            assert queue.counters()["full"] == 20
        held = os.dup(queue.fileno())
        queue.close()
        again, _ = reader(held=held, fail_open=False, length=10, held_counts=(0, 15))
        with inside(pair.box):
            assert again.counters()["full"] == 5             # those that nobody has counted
        for _ in range(30):
            client.send(script())
        with inside(pair.box):
            assert again.counters()["full"] == 25


def test_a_taken_queue_is_refused_by_name(pair, reader):
    reader()
    words = rf"queue {QUEUE} is in use by (process {os.getpid()} \(|another process)"
    with pytest.raises(SystemProblem, match=words):
        reader()


def test_without_permission_it_says_so(pair):
    code = ("from edgeblock.core.engine import Engine; from edgeblock.core.matcher import Matcher\n"
            "from edgeblock.source.nfqueue import QueueReader; from edgeblock.errors import SystemProblem\n"
            "try: QueueReader(0, Engine(Matcher()), print)\n"
            "except SystemProblem as problem: print(problem)")
    assert "no permission; run as root" in run(pair.box, "setpriv", "--bounding-set", "-net_admin", "--inh-caps",
                                               "-net_admin", sys.executable, "-c", code)


def test_without_roots_rights_the_table_of_queues_is_read_where_it_was_opened_for_us(pair, reader):
    """As the unit does: root opens it as standard input, and another user reads it."""
    reader()
    code = "from edgeblock.source.queue import kernel_queues; print([*kernel_queues()], [*kernel_queues()])"
    table = "/proc/net/netfilter/nfnetlink_queue"
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    for given, told in ((f"<{table}", f"[{QUEUE}] [{QUEUE}]"), ("</dev/null", "[] []")):
        shell = f'PYTHONPATH={":".join(filter(None, sys.path))} {user} {sys.executable} -c "{code}" {given}'
        assert run(pair.box, "sh", "-c", shell).strip() == told


def test_a_kernel_without_nfqueue_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_queue, "TABLE", tmp_path / "absent")
    assert "this kernel has no NFQUEUE" in kernel_queue.explain(0, OSError(22, "Invalid argument"))
    assert kernel_queue.kernel_queues() == {}


def test_losses_are_counted_where_no_descriptor_is_left():
    """A worker's heartbeat stopped with it, and it was killed as one that hangs."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        with descriptors_left(0):
            assert kernel_queue.lost_messages(netlink.fileno()) == 0
        assert netlink.getsockname()        # and the socket is still open
