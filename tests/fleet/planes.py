"""Resolvers and routers as tests ask them: started on ports of their own, asked, ended.

In: an exported file. Out: of each name whether the plane lets it through: an answer with the address that the server
behind it gives for everything. Never here: a service of this machine.
"""

import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from edgeblock.lab import search_path, until

HOST = "127.0.0.1"
# Resolvers share a port with others that reuse it, and whoever is asked then is chance: each process that runs tests
# has a thousand of its own, none of which the kernel gives to anybody, and takes one after the other.
PORTS = itertools.count(20_000 + 1000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
ADDRESS = {"A": "198.18.0.1", "AAAA": "2001:2::1"}
# An ECHConfigList (RFC 9849, 4) of one configuration: X25519, HKDF-SHA256, AES-128-GCM, a public name.
CONTENTS = b"\x01\x00\x20\x00\x20" + bytes(range(32)) + b"\x00\x04\x00\x01\x00\x01\x00\x11cover.example.com\x00\x00"
ECH = (len(CONTENTS) + 4).to_bytes(2) + b"\xfe\x0d" + len(CONTENTS).to_bytes(2) + CONTENTS
HTTPS = f'1 . alpn="h3,h2" ipv4hint="198.18.0.1" ech="{b64encode(ECH).decode()}"'
BATCH = 40              # questions on their way at a time


def there(*programs: str) -> str:
    """Which of these is not installed; "" where all are."""
    return next((one for one in programs if shutil.which(one, path=search_path()) is None), "")


class Everything(threading.Thread):
    """A server that has every name."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.port: int = self.socket.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                data, asker = self.socket.recvfrom(4096)
            except OSError:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query, recursion_available=True)
            [question] = query.question
            kind = dns.rdatatype.to_text(question.rdtype)
            value = ADDRESS.get(kind) or (HTTPS if kind == "HTTPS" else None)
            if value:
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, value))
            self.socket.sendto(answer.to_wire(), asker)


def free_port() -> int:
    """One that nobody has, for UDP and TCP."""
    for port in PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as other, suppress(OSError):
            one.bind((HOST, port))
            other.bind((HOST, port))
            return port
    raise AssertionError


def ask(port: int, names: Sequence[str], kind: str = "A") -> dict[str, dns.message.Message]:
    """The answer to each name; RuntimeError where one stays out."""
    asked: dict[str, dns.message.Message] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(3.0)
        link.connect((HOST, port))
        for at in range(0, len(names), BATCH):
            waiting = {}
            for number, name in enumerate(names[at:at + BATCH], at):
                query = dns.message.make_query(name, kind, use_edns=False)
                query.id = number & 0xFFFF
                waiting[query.id] = name
                link.send(query.to_wire())
            while waiting:
                data = link.recv(4096)
                name = waiting.pop(struct.unpack_from("!H", data)[0], None)
                if name is not None:
                    asked[name] = dns.message.from_wire(data)
    return asked


def passes(answer: dns.message.Message, kind: str = "A") -> bool:
    """Whether the answer is that of the server behind."""
    assert answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN), answer.to_text()
    return any(str(one) == ADDRESS[kind] for rrset in answer.answer for one in rrset)


@contextmanager
def running(argv: Sequence[str], home: Path, port: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A program that answers at that port, until the block ends."""
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=home,
                                   env=os.environ | {"PATH": search_path()})
    try:
        if port:
            # BIND answers before it has read its policy zones.
            loaded = "reload done: success" if argv[0] == "named" else ""
            assert until(lambda: process.poll() is not None or answers(port) and loaded in log.read_text(), 20), \
                log.read_text()[-2000:]
            assert process.poll() is None, log.read_text()[-2000:]
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    query = dns.message.make_query("is.it.there.invalid.example", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(0.3)
        link.connect((HOST, port))
        try:
            link.send(query)
            return dns.message.from_wire(link.recv(4096)).rcode() == dns.rcode.NOERROR
        except OSError:
            return False


def bind(home: Path, zone: Path, behind: int) -> tuple[list[str], int]:
    """The command and the port of a BIND with this policy zone."""
    port = free_port()
    (home / "named.conf").write_text(f'''
options {{
    directory "{home}"; pid-file none; session-keyfile none; listen-on port {port} {{ {HOST}; }};
    listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }}; dnssec-validation no;
    managed-keys-directory "{home}";
    forward only; forwarders {{ {HOST} port {behind}; }};
    response-policy {{ zone "rpz.example"; }} qname-wait-recurse no;
}};
controls {{ }};
zone "rpz.example" {{ type primary; file "{zone}"; allow-query {{ none; }}; }};
''')
    return ["named", "-g", "-n", "1", "-c", str(home / "named.conf")], port


def unbound(home: Path, behind: int, *, zone: Path | None = None,
            include: Path | None = None) -> tuple[list[str], int]:
    """The same of an Unbound with a policy zone, or local zones."""
    port = free_port()
    rpz = f'rpz:\n    name: rpz.example\n    zonefile: "{zone}"\n' if zone else ""
    (home / "unbound.conf").write_text(f'''
server:
    directory: "{home}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: {HOST}
    port: {port}
    do-not-query-localhost: no
    do-ip6: no
    access-control: 127.0.0.0/8 allow
    local-zone: "example." nodefault
    module-config: "{'respip ' if zone else ''}iterator"
{f'include: "{include}"' if include else ""}
forward-zone:
    name: "."
    forward-addr: {HOST}@{behind}
remote-control:
    control-enable: no
{rpz}''')
    return ["unbound", "-d", "-p", "-c", str(home / "unbound.conf")], port


def recursor(home: Path, behind: int, *, zone: Path | None = None,
             script: Path | None = None) -> tuple[list[str], int]:
    """The same of a PowerDNS Recursor with a policy zone, or a Lua script."""
    port = free_port()
    (home / "rpz.lua").write_text(f'rpzFile("{zone}", {{policyName="edgeblock"}})\n' if zone else "")
    (home / "recursor.conf").write_text(f'''
local-address={HOST}
local-port={port}
socket-dir=.
dnssec=off
forward-zones-recurse=.={HOST}:{behind}
lua-config-file={home}/rpz.lua
allow-from=127.0.0.0/8
dont-query=
threads=1
quiet=yes
daemon=no
write-pid=no
security-poll-suffix=
{f"lua-dns-script={script}" if script else ""}
''')
    return ["pdns_recursor", f"--config-dir={home}"], port


def dnsdist(home: Path, lua: Path, behind: int) -> tuple[list[str], int]:
    """The same of a dnsdist with the exported rule."""
    port = free_port()
    (home / "dnsdist.conf").write_text(f'''
setLocal("{HOST}:{port}")
setSecurityPollSuffix("")
newServer({{address="{HOST}:{behind}", healthCheckMode="up"}})
dofile("{lua}")
addAction(edgeblock_listed(), RCodeAction(DNSRCode.NXDOMAIN))
''')
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", str(home / "dnsdist.conf")], port


def start(stack: ExitStack, home: Path, made: tuple[list[str], int]) -> int:
    """Starts what one of these has made; its port."""
    command, port = made
    stack.enter_context(running(command, home, port))
    return port
