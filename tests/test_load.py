"""The load generator of the benchmarks counts what came of its questions, and what did not come costs no rate."""

import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "benchmarks" / "native" / "ask.c"
ANSWER = b"x" * 1200


@pytest.fixture(scope="module")
def ask(tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("native") / "ask"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


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
def test_a_question_without_an_answer_is_one_failure_and_no_lower_rate(ask: Path, tmp_path: Path, silent: int):
    question = tmp_path / "question"
    question.write_bytes(b"GET / HTTP/1.1\r\nHost: host00000000.example\r\n\r\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener, silent))
        server.start()
        words = [str(ask), "127.0.0.1", str(listener.getsockname()[1]), "kept", "0.5", "4", "200", "0",
                 str(question), str(question)]
        said = json.loads(subprocess.run(words, capture_output=True, check=True, timeout=20).stdout)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    assert said["failed"] == silent
    assert said["answered"] == said["begun"] - silent > 0
    assert 0.5 <= said["seconds"] < 1.5         # the question without an answer was waited for until 2 s
