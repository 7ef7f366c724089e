"""`tcp_ports = "all"`: content decides, on ports that nobody has heard of, and nothing else is touched there."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from running import Running, start

from edgeblock.lab import Lab, until

pytestmark = pytest.mark.live

PORT, DEAF = 9876, 22022        # an HTTP server's, and that of one that speaks first and something else
SPEAKS = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"220 ready\\r\\n")
    connection.sendall(connection.recv(1000).upper())
    connection.close()
"""


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The daemon on all TCP ports, and two servers on odd ones."""
    home = tmp_path_factory.mktemp("everywhere")
    (home / "page").write_text("The page.\n")
    with Lab() as lab, contextlib.ExitStack() as stack:
        commands = (["python3", "-m", "http.server", "--bind", "::", "--directory", str(home), str(PORT)],
                    ["python3", "-c", SPEAKS, str(DEAF)])
        for command in commands:
            process = lab.popen_in("server", command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        running = start(lab, home, '\n[ruleset]\ntcp_ports = "all"\n')
        assert until(lambda: lab.fetch(f"http://open.example:{PORT}/page").status == 200, 15.0)
        yield running
        assert running.daemon.stop() == 0, running.daemon.last_words()


@pytest.mark.parametrize("version", [4, 6])
def test_a_request_on_an_odd_port(everywhere: Running, version: int):
    assert everywhere.lab.fetch(f"http://open.example:{PORT}/page", version=version).body == b"The page.\n"
    refused = everywhere.lab.fetch(f"http://listed.example:{PORT}/page", version=version)
    assert (refused.exit, refused.body) == (56, b"")


@pytest.mark.parametrize("version", [4, 6])
def test_a_hello_on_an_odd_port(everywhere: Running, version: int):
    # The server there speaks no TLS; what counts is what the box made of the name.
    def blocked() -> int:
        return everywhere.lab.counters(everywhere.daemon)["engine.blocked_reset"]

    before = blocked()
    everywhere.lab.fetch(f"https://open.example:{PORT}/", version=version)
    assert blocked() == before
    assert everywhere.lab.fetch(f"https://listed.example:{PORT}/", version=version).exit in (35, 56)
    assert blocked() == before + 1


@pytest.mark.parametrize("version", [4, 6])
def test_another_protocol_passes(everywhere: Running, version: int):
    with everywhere.lab.connect(DEAF, version=version) as connection:
        assert connection.recv(100) == b"220 ready\r\n"
        connection.sendall(b"ehlo listed.example\r\n")
        assert connection.recv(100) == b"EHLO LISTED.EXAMPLE\r\n"


def test_the_usual_ports_are_among_all(everywhere: Running):
    for scheme in ("http", "https"):
        assert everywhere.lab.fetch(f"{scheme}://open.example/").status == 200
        assert everywhere.lab.fetch(f"{scheme}://listed.example/").status == 0
