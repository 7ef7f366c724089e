"""Forty addresses whose ports come round again within milliseconds, one connection of twenty for something listed.

Of a new connection on the ports of a blocked one the sequence numbers are close behind those. It opens all the same,
and what is listed stays blocked. EDGEBLOCK_NEIGHBOURS is how many connections there are.
"""

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running

from edgeblock.lab import SERVER, Lab

pytestmark = pytest.mark.live

COUNT = int(os.environ.get("EDGEBLOCK_NEIGHBOURS", "2000"))
ADDRESSES = {4: [f"192.0.2.{number}" for number in range(100, 140)],
             6: [f"2001:db8:1::{number}" for number in range(100, 140)]}
PORTS = [20_000, 20_001]


@pytest.fixture(scope="module")
def crowd(lab: Lab) -> Iterator[Lab]:
    """The lab whose client has all of ADDRESSES."""
    for what in ("add", "del"):
        for version, addresses in ADDRESSES.items():
            more = ("nodad",) if version == 6 and what == "add" else ()
            for address in addresses:
                lab.run_in("client", ["ip", "addr", what, f"{address}/{32 if version == 4 else 128}", "dev", "to-box",
                                      *more])
        if what == "add":
            yield lab


def hello(lab: Lab, host: str) -> bytes:
    out = ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=str(lab.home / "ca.pem"))
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host).do_handshake()
    return out.read()


def messages(lab: Lab) -> Iterator[dict]:
    """What is asked for, each with its share of a hundred."""
    for host, target, weight, listed in (
            ("open.example", "/", 47, False), ("listed.example", "/", 1, True),
            ("silent.example.org", "/", 0.2, True), ("example.com", "/bad/page.html", 1, True),
            ("example.com", "/old/x", 0.3, True)):
        yield {"port": 80, "data": f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode().hex(),
               "answer": b"HTTP/1.1 200".hex(), "listed": listed, "weight": weight}
    for host, weight, listed in (("open.example", 48, False), ("listed.example", 2.3, True),
                                 ("silent.example.org", 0.2, True)):
        yield {"port": 443, "data": hello(lab, host).hex(), "answer": "1603", "listed": listed, "weight": weight}


@pytest.mark.parametrize("version", [4, 6])
def test_ports_that_come_round_fast(crowd: Lab, running: Running, version: int):
    asked = {"seed": version, "addresses": ADDRESSES[version], "ports": PORTS, "server": SERVER[version],
             "count": COUNT, "messages": list(messages(crowd))}
    process = crowd.popen_in("client", ["python3", str(Path(__file__).with_name("crowd.py"))],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    found = json.loads(process.communicate(json.dumps(asked).encode(), 60 + COUNT / 20)[0])
    print(found)
    innocent = {kind for kind in found if kind.startswith("innocent")}
    listed = sum(count for kind, count in found.items() if kind.startswith("listed"))
    assert innocent == {"innocent served"}, found
    assert "listed served" not in found and listed > COUNT / 50, found
