"""Asks every server that is here for every spelling, on loopback, and keeps the answers.

In: the tables. Out: served.json, which docs/evasion.md's table is made of.

    python -m tests.matrix.record [SERVER...]
"""

import json
import socket
import sys
import tempfile
from pathlib import Path

from tests.matrix.asking import ask, is_served, sent, spellings
from tests.matrix.servers import LISTED, OTHER, SERVERS, Server, started
from tests.matrix.spellings import ROWS

KEPT = Path(__file__).with_name("served.json")
DOCS = Path(__file__).parents[2] / "docs" / "evasion.md"
BEGIN, END = "<!-- served: made by tests/matrix/record.py -->\n", "<!-- end of served -->\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(server: Server, home: Path) -> list[str]:
    """The names of the spellings for which it serves the listed site."""
    port = free_port()
    with started(server, home, "127.0.0.1", port):
        return [spelling.name for spelling in spellings(server)
                if is_served(server, ask(server, lambda: connected(server, "127.0.0.1", port),
                                         sent(server, spelling, LISTED.encode(), OTHER.encode())))]


def connected(server: Server, address: str, port: int) -> socket.socket:
    if server.kind != "quic":
        return socket.create_connection((address, port), 3)
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.connect((address, port))
    return made


def kept() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(KEPT.read_text())
    return found


def table(answers: dict[str, list[str]]) -> str:
    """The lines of docs/evasion.md: each server, then each spelling with the servers that take it."""
    servers = [server for server in SERVERS if server.name in answers]
    lines = ["| server | takes for the host | spellings of the listed host it serves |", "|---|---|---|"]
    for server in servers:
        reads = server.reads.replace("|", "\\|")
        lines.append(f"| {server.name} | {reads} | {len(answers[server.name])} of {len(spellings(server))} |")
    lines += ["", "| spelling | served as the listed host by |", "|---|---|"]
    for kind, rows in ROWS.items():
        asked = [server for server in servers if server.kind == kind]
        for spelling in rows if asked else ():
            takers = [server.name for server in asked if spelling.name in answers[server.name]]
            told = "nobody" if not takers else "all" if len(takers) == len(asked) else (
                f"{len(takers)} of {len(asked)}" if len(takers) > 8 else ", ".join(takers))
            lines.append(f"| {spelling.name} | {told} |")
    return "\n".join(lines) + "\n"


def in_docs() -> str:
    return DOCS.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    wanted = sys.argv[1:]
    answers = kept() if KEPT.exists() else {}
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        for number, server in enumerate(SERVERS):
            if server.there and (not wanted or server.name in wanted):
                answers[server.name] = served(server, Path(home, str(number)))
                print(server.name, len(answers[server.name]), flush=True)
    answers = {server.name: answers[server.name] for server in SERVERS if server.name in answers}
    KEPT.write_text(json.dumps(answers, indent=1) + "\n")
    before, _, rest = DOCS.read_text().partition(BEGIN)
    DOCS.write_text(before + BEGIN + table(answers) + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
