"""What real servers serve for the listed host, the engine blocks; what is innocent passes. On loopback, offline.

Every server of the table that is installed here is asked every spelling; `live.py` plays the same through a box.
"""

import struct

import pytest

from tests.core import samples as s
from tests.core.playing import engine, play
from tests.matrix import record
from tests.matrix.asking import hello, quic_client, spellings
from tests.matrix.servers import LISTED, OTHER, SERVERS, Server
from tests.matrix.spellings import ROWS, SPLITS, Spelling, pieces

KEPT = record.kept()
PLAIN = b"another.example"
UNSUMMED = 1                # flag of a packet whose checksum is left to hardware
SPELLINGS = [(kind, spelling) for kind, rows in ROWS.items() for spelling in rows]


def is_blocked(spelling: Spelling, kind: str, listed: bytes, how: str = "whole", six: bool = False) -> bool:
    """Whether the engine, with the listed host on its list, blocks a client that sends this."""
    data = spelling.filled(listed, OTHER.encode())
    if kind == "quic":
        ends = (s.CLIENT6, s.SERVER6) if six else (s.CLIENT, s.SERVER)
        judge = engine(LISTED)
        return any(not judge.judge(s.ip_packet(17, datagram, *ends), 0.0, UNSUMMED).accept
                   for datagram in quic(data))
    tls = kind == "tls"
    port, seq = (443 if tls else 80), 1000
    make = s.tcp6 if six else s.tcp
    packets = [make(seq - 1, flags=s.SYN, dport=port)]
    for piece in pieces(hello(data) if tls else data, how):
        packets.append(make(seq, piece, dport=port))
        seq += len(piece)
    return play(engine(LISTED), packets).blocked


def quic(name: bytes) -> list[bytes]:
    """The first datagrams of a client, with UDP's header and no checksum."""
    sent = [datagram for datagram, _ in quic_client(name).datagrams_to_send(0.0)]
    return [struct.pack("!HHHH", 50_000, 443, 8 + len(datagram), 0) + datagram for datagram in sent]


def takers(spelling: Spelling, kind: str) -> list[str]:
    return [server.name for server in SERVERS
            if server.kind == kind and spelling.name in KEPT.get(server.name, ())]


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize(("kind", "spelling"), SPELLINGS, ids=lambda one: getattr(one, "name", ""))
def test_what_a_server_serves_is_blocked_and_nothing_else(kind: str, spelling: Spelling, how: str, six: bool):
    if spelling.innocent:
        assert not is_blocked(spelling, kind, LISTED.encode(), how, six)
    elif takers(spelling, kind):
        assert is_blocked(spelling, kind, LISTED.encode(), how, six), takers(spelling, kind)
    if LISTED.encode() not in spelling.filled(PLAIN, PLAIN) and b"example" not in spelling.text.replace(b"{", b""):
        assert not is_blocked(spelling, kind, PLAIN, how, six)


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
    assert not [name for name in found if not is_blocked(rows[name], server.kind, LISTED.encode())]
    assert not [name for name in found if rows[name].innocent], "an innocent spelling is none"


def test_the_tables_are_large_enough():
    assert len(KEPT) >= 20 and len({server.name for server in SERVERS}) == len(SERVERS)
    assert len(ROWS["http"]) > 100
    assert all(len({spelling.name for spelling in rows}) == len(rows) for rows in ROWS.values())


def test_the_documentation_has_the_record():
    assert record.in_docs() == record.table(KEPT), "run python -m tests.matrix.record"
