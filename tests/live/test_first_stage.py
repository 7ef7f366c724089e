"""The first stage in a box: what never reaches the queue, and rules that change under it. That verdicts are the same
with it and without is the business of the other live tests, which run both ways."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import Running, start

from edgeblock.errors import SystemProblem
from edgeblock.lab import SERVER, Lab, until

pytestmark = pytest.mark.live


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Running]:
    with Lab() as lab:
        running = start(lab, tmp_path, '[ruleset]\nkernel = "judge"\n')
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


def greets(lab: Lab, host: str, version: int = 4) -> bool:
    """Whether a TLS client of the client's kernel gets through to the server with this name."""
    settings = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
    try:
        with (lab.connect(443, version=version) as connection,
              settings.wrap_socket(connection, server_hostname=host) as wrapped):
            return wrapped.version() is not None
    except OSError:     # reset, an alert, or silence on a port that was blocked a moment ago
        return False


def test_clean_hellos_never_reach_the_queue(box: Running):
    before, counted = box.lab.queued(), box.lab.counters(box.daemon)
    assert all(greets(box.lab, "open.example", version) for version in (4, 6) for _ in range(100))
    assert box.lab.queued() == before
    after = box.lab.counters(box.daemon)
    assert after["stage1.passed_hello"] - counted["stage1.passed_hello"] == 200


def in_pieces(lab: Lab, host: str, version: int, *cuts: int) -> bool:
    """The same with a hello that comes in several packets."""
    settings = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
    settings.set_alpn_protocols(["http/1.1", *(f"{number}" * 200 for number in range(6))])   # large, as a browser's
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    wrapped = settings.wrap_bio(arrived, leaving, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        wrapped.do_handshake()
    hello = leaving.read()
    try:
        with lab.connect(443, version=version) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for a, b in zip([0, *cuts], [*cuts, len(hello)], strict=True):
                connection.sendall(hello[a:b])
            return connection.recv(1) == b"\x16"      # a greeting; what the filter sends is an alert
    except OSError:
        return False


@pytest.mark.parametrize("version", [4, 6])
def test_hellos_in_pieces_never_reach_the_queue(box: Running, version: int):
    before, counted = box.lab.queued(), box.lab.counters(box.daemon)
    for cuts in ((1400,), (9, 700), (500, 1000), (300, 600, 900)):      # no rest is longer than a packet
        assert all(in_pieces(box.lab, "open.example", version, *cuts) for _ in range(10)), cuts
    assert box.lab.queued() == before
    after = box.lab.counters(box.daemon)
    assert after["stage1.passed_hello"] - counted["stage1.passed_hello"] == 40
    assert after["stage1.passed_piece"] - counted["stage1.passed_piece"] == 10 * (1 + 2 + 2 + 3)
    for cuts in ((1400,), (9,), (500, 1000), (300, 600, 900), (100, 101)):
        assert not in_pieces(box.lab, "listed.example", version, *cuts), cuts


def test_no_listed_name_passes_while_rules_change(box: Running):
    results: list[bool] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            results.append(greets(box.lab, "listed.example"))
            done.wait(0.02)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(1, 11):
            box.drop("more.list", f"other{turn}.example\nopen.example\n" if turn % 2 else f"other{turn}.example\n")
            assert until(lambda turn=turn: greets(box.lab, "open.example") != bool(turn % 2), 10)
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert len(results) > 10 and not any(results)


def test_asked_for_with_a_back_end_that_cannot_it_is_one_line(tmp_path: Path):
    with Lab() as lab, pytest.raises(SystemProblem, match='use backend = "iptables" or "auto"'):
        start(lab, tmp_path, '[ruleset]\nkernel = "judge"\nbackend = "nft"\n')


@pytest.mark.parametrize("stage1", ["on", "off"])
def test_one_client_with_few_ports(tmp_path: Path, stage1: str):
    # Thirty connections on each pair of addresses and ports within seconds, two of them for a listed name; a tenth of
    # a second apart, so that their sequence numbers are, too.
    settings = ssl.create_default_context()
    settings.check_hostname, settings.verify_mode = False, ssl.CERT_NONE
    harmed, passed, pause = [], [], threading.Event()
    with Lab() as lab:
        running = start(lab, tmp_path, f'[ruleset]\nstage1 = "{stage1}"\n')
        for turn in range(30):
            due = time.monotonic() + 0.1
            for port in range(40_000, 40_008):
                listed = turn in (14, 24)
                with lab.entered("client"):
                    connection = socket.create_connection((SERVER[4], 443), 5, ("", port))
                # Closed with RST, so that the port is free at once.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                try:
                    with connection, settings.wrap_socket(
                            connection, server_hostname="listed.example" if listed else "open.example") as wrapped:
                        answered = wrapped.version() is not None
                except OSError:
                    answered = False
                if answered == listed:
                    (passed if listed else harmed).append((turn, port))
            pause.wait(max(0.0, due - time.monotonic()))
        counted = lab.counters(running.daemon)
        assert running.daemon.stop() == 0, running.daemon.last_words()
    assert (harmed, passed) == ([], [])
    if stage1 == "on":      # up to twelve of each are the kernel's
        assert counted["stage1.passed_hello"] >= 8
