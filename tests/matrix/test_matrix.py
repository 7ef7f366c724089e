"""What real servers serve for the listed host, the engine blocks; what is innocent passes. On loopback, offline.

Every server of the table that is installed here is asked every spelling; `live.py` plays the same through a box.
"""

import pytest

from tests.core import samples as s
from tests.core.playing import engine, play
from tests.matrix import record
from tests.matrix.asking import hello, spellings
from tests.matrix.servers import LISTED, OTHER, SERVERS, Server
from tests.matrix.spellings import HTTP, SPLITS, TLS, Spelling, pieces

KEPT = record.kept()
PLAIN = b"another.example"
SPELLINGS = [(tls, spelling) for tls, rows in ((False, HTTP), (True, TLS)) for spelling in rows]


def is_blocked(spelling: Spelling, tls: bool, listed: bytes, how: str = "whole", six: bool = False) -> bool:
    """Whether the engine, with the listed host on its list, blocks a client that sends this."""
    data = spelling.filled(listed, OTHER.encode())
    port, seq = (443 if tls else 80), 1000
    make = s.tcp6 if six else s.tcp
    packets = [make(seq - 1, flags=s.SYN, dport=port)]
    for piece in pieces(hello(data) if tls else data, how):
        packets.append(make(seq, piece, dport=port))
        seq += len(piece)
    return play(engine(LISTED), packets).blocked


def takers(spelling: Spelling, tls: bool) -> list[str]:
    return [server.name for server in SERVERS
            if server.tls == tls and spelling.name in KEPT.get(server.name, ())]


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize(("tls", "spelling"), SPELLINGS, ids=lambda one: getattr(one, "name", ""))
def test_what_a_server_serves_is_blocked_and_nothing_else(tls: bool, spelling: Spelling, how: str, six: bool):
    if spelling.innocent:
        assert not is_blocked(spelling, tls, LISTED.encode(), how, six)
    elif takers(spelling, tls):
        assert is_blocked(spelling, tls, LISTED.encode(), how, six), takers(spelling, tls)
    if LISTED.encode() not in spelling.filled(PLAIN, PLAIN) and b"example" not in spelling.text.replace(b"{", b""):
        assert not is_blocked(spelling, tls, PLAIN, how, six)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_what_a_server_here_serves_is_blocked(server: Server, tmp_path):
    """A version may take more than the recorded one did; then that has to be blocked, too."""
    if not server.there:
        assert server.program not in ("python:http.server", "python:ssl")
        return
    tmp_path.chmod(0o755)
    found = record.served(server, tmp_path / "server")
    rows = {spelling.name: spelling for spelling in spellings(server)}
    assert len(found) >= len(KEPT[server.name]) // 2
    assert not [name for name in found if not is_blocked(rows[name], server.tls, LISTED.encode())]
    assert not [name for name in found if rows[name].innocent], "an innocent spelling is none"


def test_the_tables_are_large_enough():
    assert len(KEPT) >= 20 and len({server.name for server in SERVERS}) == len(SERVERS)
    assert len({spelling.name for spelling in HTTP}) == len(HTTP) > 100


def test_the_documentation_has_the_record():
    assert record.in_docs() == record.table(KEPT), "run python -m tests.matrix.record"
