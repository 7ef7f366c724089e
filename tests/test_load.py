"""The load generator of the benchmarks and its server: what came of each question is counted, once, as it was."""

import json
import socket
import struct
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent.parent / "benchmarks" / "native"
ANSWER = b"x" * 1200
REQUEST = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
CLIENT = {"127.0.0.1": "127.1.0.1", "::1": "::1"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("native")
    for name in ("ask", "answer"):
        words = ["cc", "-O2", "-Wall", "-Werror", "-o", str(folder / name), str(NATIVE / f"{name}.c")]
        subprocess.run(words, check=True)
    return {name: folder / name for name in ("ask", "answer")}


@pytest.fixture(scope="module")
def ports(programs):
    """Those of a running server, by what it speaks there."""
    with ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        numbers = [one.getsockname()[1] for one in free]
    server = subprocess.Popen([str(programs["answer"]), *map(str, numbers)], stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    yield dict(zip(("tls", "http", "bulk", "quic"), numbers, strict=True))
    server.kill()
    server.wait()
    server.stdout.close()


@contextmanager
def asking(program: Path, folder: Path, server: str, port: int, mode: str, plain: bytes, listed: bytes, *,
           open_: int = 4, every: int = 0):
    """Gives a function that orders so many questions and returns what the client says of them."""
    for name, text in (("plain", plain), ("listed", listed)):
        (folder / name).write_bytes(text)
    client = CLIENT[server]
    words = [str(program), server, "1", client, "1" if ":" in client else "8", str(port), mode, str(open_),
             str(every), str(folder / "plain"), str(folder / "listed")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == '"ready"\n'

        def order(count: int) -> dict[str, float]:
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield order
        process.stdin.close()


def hello(size: int) -> bytes:
    return b"\x16\x03\x01" + struct.pack(">H", size - 5) + b"\x01" + bytes(size - 6)


def datagrams(*each: bytes) -> bytes:
    return struct.pack("=I", len(each)) + b"".join(struct.pack("=I", len(one)) + one for one in each)


@pytest.mark.parametrize("server", CLIENT)
@pytest.mark.parametrize(("mode", "speaks", "question", "answers"), [
    ("tls", "tls", hello(517), 1), ("tls", "tls", hello(40_000), 1),
    ("http", "http", REQUEST % b"host00000000.test", 1), ("kept", "http", REQUEST % b"host00000000.test", 1),
    ("quic", "quic", datagrams(b"\xc0" * 1250), 1),
    ("quic", "quic", datagrams(b"\xc0" * 1250, b"\xc1" * 1250), 2)])
def test_every_question_is_answered_once(programs, ports, tmp_path, server, mode, speaks, question, answers):
    with asking(programs["ask"], tmp_path, server, ports[speaks], mode, question, question, every=10) as order:
        for _ in range(2):          # the second order goes on with what the first has left open
            said = order(40)
            assert (said["answered"], said["listed_answered"]) == (36, 4)
            assert said["failed"] == said["listed_blocked"] == 0
            assert said["octets"] == 40 * (1200 * answers + (120 if mode == "quic" else 0))
            assert 0 < said["p50_us"] <= said["p99_us"]


@pytest.mark.parametrize("server", CLIENT)
def test_bulk_is_as_many_whole_records_as_were_asked_for(programs, ports, tmp_path, server):
    with asking(programs["ask"], tmp_path, server, ports["bulk"], "bulk", hello(517), b"") as order:
        assert order(1)["octets"] == 1200 + 16389
        assert order(10_000_000)["octets"] == -(-10_000_000 // 16389) * 16389


def serve(listener: socket.socket, silent: int) -> None:
    """Answers each piece that arrives, on all connections but the first `silent`."""
    def talk(one: socket.socket, answers: bool) -> None:
        with one:
            while one.recv(65536):
                if answers:
                    one.sendall(ANSWER)

    number = 0
    while True:
        try:
            one, _ = listener.accept()
        except OSError:
            return                  # it was shut down
        threading.Thread(target=talk, args=(one, number >= silent), daemon=True).start()
        number += 1


@pytest.mark.parametrize("silent", [0, 1])
def test_a_question_without_an_answer_is_one_failure(programs, tmp_path, silent):
    question = REQUEST % b"host00000000.example"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, silent))
        server.start()
        with asking(programs["ask"], tmp_path, "127.0.0.1", listener.getsockname()[1], "kept", question,
                    question) as order:
            said = order(100)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    assert (said["begun"], said["answered"], said["failed"]) == (100, 100 - silent, silent)
    assert said["listed_answered"] == said["listed_blocked"] == 0
    assert (said["seconds"] > 2.0) == bool(silent)      # it was waited for


def test_a_listed_question_that_is_cut_off_is_blocked(programs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def cut() -> None:
            for _ in range(5):
                one, _ = listener.accept()
                with one:
                    data = one.recv(65536)
                    if b"listed" not in data:
                        one.sendall(ANSWER)
        server = threading.Thread(target=cut)
        server.start()
        with asking(programs["ask"], tmp_path, "127.0.0.1", listener.getsockname()[1], "tls", b"plain", b"listed",
                    every=5) as order:
            said = order(5)
        server.join()
    assert (said["answered"], said["failed"], said["listed_answered"], said["listed_blocked"]) == (4, 0, 0, 1)


def test_the_answer_is_a_server_hello_in_valid_records(ports):
    """RFC 8446, 4.1.3 and 5: what a peer that follows the records reads of it."""
    with socket.create_connection(("127.0.0.1", ports["tls"])) as one:
        one.sendall(hello(517))
        data = b"".join(iter(lambda: one.recv(65536), b""))
    assert len(data) == 1200
    records = []
    while data:
        kind, size = data[0], int.from_bytes(data[3:5], "big")
        assert data[1:3] == b"\x03\x03"
        assert len(data) >= 5 + size
        records.append((kind, data[5:5 + size]))
        data = data[5 + size:]
    assert [kind for kind, _ in records] == [22, 20, 23]        # a handshake, ChangeCipherSpec, encrypted
    message = records[0][1]
    assert message[0] == 2
    assert int.from_bytes(message[1:4], "big") == len(message) - 4
    body = message[4:]
    assert body[:2] == b"\x03\x03"
    assert body[34] == 0                                        # no session id
    assert body[35:38] == b"\x13\x01\x00"                       # TLS_AES_128_GCM_SHA256, no compression
    extensions, found = body[40:], {}
    assert int.from_bytes(body[38:40], "big") == len(extensions)
    while extensions:
        kind, size = struct.unpack(">HH", extensions[:4])
        found[kind] = extensions[4:4 + size]
        extensions = extensions[4 + size:]
    assert found[43] == b"\x03\x04"
    assert found[51][:4] == b"\x00\x1d\x00\x20"
    assert len(found[51]) == 36
