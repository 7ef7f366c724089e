"""A small internet on one machine: client, box and server, each a network namespace, for demo, tests, benchmarks.

In: what the lab should look like. Out: commands, processes and sockets in its namespaces, and pages fetched by a
real client (curl) from a real server (nginx, TLS and HTTP, IPv4 and IPv6) through a box that forwards. Never: an
interface, an address, a rule or a process outside these namespaces, or anything left behind. A lab is removed when
its `with` block ends, by whatever exception or signal; what a killed process (SIGKILL) leaves, the next lab removes.

    client 192.0.2.2 ---- 192.0.2.1 box 203.0.113.1 ---------------------------- 203.0.113.80 server
    with extra_hop:                 box 198.51.100.1 -- 198.51.100.2 hop 203.0.113.1 -- .80   server
    IPv6 the same way:  2001:db8:1::2    2001:db8:1::1        2001:db8:80::1     2001:db8:80::80
"""

import atexit
import contextlib
import ctypes
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from edgeblock.errors import SystemProblem

CLIENT = {4: "192.0.2.2", 6: "2001:db8:1::2"}
SERVER = {4: "203.0.113.80", 6: "2001:db8:80::80"}
# Routed to the client but known to no kernel: a test speaks TCP from here itself and nothing resets it.
RAW_CLIENT = {4: "192.0.2.99", 6: "2001:db8:1::99"}

HTTP_PORTS = (80, 8080)
TLS_PORTS = (443, 8443)

# The certificate is good for these; nginx answers for every name.
NAMES = tuple(
    name
    for site in ("example.com", "notexample.com", "example.net", "example.org", "listed.example", "open.example")
    for name in (site, f"*.{site}")
)

PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "sysctl": "procps", "ethtool": "ethtool",
            "nginx": "nginx-light", "curl": "curl", "iptables": "iptables"}

# Addresses are good at once (no duplicate address detection); the server takes data in a SYN with a cookie.
SYSCTLS = ["net.ipv6.conf.default.disable_ipv6=0", "net.ipv6.conf.default.accept_dad=0",
           "net.ipv6.conf.default.accept_ra=0", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
           "net.ipv4.tcp_fastopen=3"]
# A bpf file system of the daemon's own, where the kernel has one: the first stage is pinned there, and gone with it.
WITH_BPF = ["unshare", "--mount", "sh", "-c", 'mount -t bpf bpf /sys/fs/bpf 2>/dev/null; exec "$@"', "sh"]
OFFLOADS = ("tso", "gso", "gro", "tx")

NETNS = Path("/run/netns")
OWNER = re.compile(r"edgeblock-lab-(\d+)-(\d+)-")
CLONE_NEWNET = 0x40000000
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

NGINX = """
user root;
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    large_client_header_buffers 8 128k;
    client_max_body_size 64m;
    keepalive_requests 10000000;
    server {{
        {listen}
        ssl_certificate {home}/server.pem;
        ssl_certificate_key {home}/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ return 200 "{page}"; }}
        location /files/ {{ alias {home}/files/; }}
    }}
}}
"""
PAGE = "This is {host}{target}, served by the lab.\n"


@dataclass(frozen=True)
class Seen:
    """What the client saw of one request: `error` is curl's message, empty when all went well; `seconds` the whole
    transfer; `headers` in lower case; `local_port` the client's port, to find the flow in a capture or in conntrack.
    """

    status: int
    body: bytes
    headers: dict[str, str]
    error: str
    exit: int
    seconds: float
    local_port: int


@dataclass
class Daemon:
    """The edgeblock daemon in the box."""

    process: subprocess.Popen[bytes]
    config: Path
    log: Path

    def stop(self, number: int = signal.SIGTERM, *, within: float = 10.0) -> int:
        """Sends the signal and returns the exit status; raises TimeoutExpired after `within` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within)

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for the message of whoever found it dead."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def obstacle() -> str | None:
    """Why no lab can be built here, as one line with the way out; None when one can."""
    if os.geteuid() != 0:
        return "the lab needs root (network namespaces): run it with sudo"
    missing = [program for program in PROGRAMS if shutil.which(program, path=search_path()) is None]
    if missing:
        packages = " ".join(sorted({PROGRAMS[program] for program in missing}))
        return f"the lab lacks {', '.join(missing)}: apt-get install {packages}"
    if not Path("/proc/sys/net/ipv6").exists():
        return "the lab needs IPv6 in the kernel: boot without ipv6.disable=1"
    trial = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        return f"no network namespace can be made here ({trial.stderr.strip()}): use a machine, not a plain container"
    return None


def search_path() -> str:
    """PATH with the administrator's folders, which a plain user's shell leaves out."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def page(host: str, target: str = "/") -> bytes:
    """The body that the server answers with for this host and request target."""
    return PAGE.format(host=host, target=target).encode()


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Asks again and again, with a short pause between, until the condition holds; False after so many seconds."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(0.01)
    return True


@dataclass
class Lab:
    """One lab; use it as `with Lab() as lab`. Raises SystemProblem with one line where none can be built.

    `extra_hop` puts a router behind the box, so that packets with a TTL of 2 pass the box and reach no server.
    `offload=False` makes every segment on the way a real one of at most 1500 bytes with a true checksum, as on a
    wire; with it the kernel hands merged segments of up to 64 kB from namespace to namespace.
    `names` are what the certificate is good for.
    """

    extra_hop: bool = False
    offload: bool = False
    names: Sequence[str] = NAMES
    home: Path = field(init=False)
    places: tuple[str, ...] = field(init=False)
    _prefix: str = field(init=False)
    _processes: list[subprocess.Popen[bytes]] = field(init=False, default_factory=list)
    _handlers: dict[int, Any] = field(init=False, default_factory=dict)
    _count = itertools.count()

    def __post_init__(self) -> None:
        self.places = ("client", "box", "hop", "server") if self.extra_hop else ("client", "box", "server")
        self._prefix = f"edgeblock-lab-{os.getpid()}-{started(os.getpid())}-{next(Lab._count)}"

    # ---- being there, and being gone

    def __enter__(self) -> Self:
        if problem := obstacle():
            raise SystemProblem(problem)
        sweep()
        self.home = Path(tempfile.mkdtemp(prefix=f"{self._prefix}-"))
        atexit.register(self.close)
        self._end_on_signals()
        try:
            self._build_network()
            self._start_server()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes everything; a second call does nothing. A signal that arrives meanwhile waits for the end."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        try:
            atexit.unregister(self.close)
            for process in self._processes:
                if process.poll() is None:
                    process.terminate()
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2.0)
            remove([self.namespace(place) for place in self.places])
            for process in self._processes:
                process.wait()
            self._processes.clear()
            shutil.rmtree(self.home, ignore_errors=True)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._handlers.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _end_on_signals(self) -> None:
        # SIGINT already raises; the other two would end Python before any `with` block or atexit is heard.
        def end(number: int, _frame: object) -> None:
            raise SystemExit(128 + number)

        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, end)

    # ---- the network

    def _build_network(self) -> None:
        for place in self.places:
            call(["ip", "netns", "add", self.namespace(place)])
            forwards = int(place in ("box", "hop"))
            self.run_in(place, ["sysctl", "-qw", f"net.ipv4.ip_forward={forwards}",
                                f"net.ipv6.conf.all.forwarding={forwards}", *SYSCTLS])
        links = list(itertools.pairwise(self.places))
        ends = [end for left, right in links for end in ((left, f"to-{right}"), (right, f"to-{left}"))]
        for left, right in links:
            call(["ip", "link", "add", f"to-{right}", "netns", self.namespace(left), "type", "veth",
                  "peer", "name", f"to-{left}", "netns", self.namespace(right)])
        for place, lines in self._addresses().items():
            up = ["link set lo up", *(f"link set {device} up" for at, device in ends if at == place)]
            call(self.command(place, ["ip", "-batch", "-"]), input="\n".join(up + lines))
        if not self.offload:
            for place, device in ends:
                self.run_in(place, ["ethtool", "-K", device, *(word for what in OFFLOADS for word in (what, "off"))])

    def _addresses(self) -> dict[str, list[str]]:
        behind = "hop" if self.extra_hop else "box"
        lines = {
            "client": [f"addr add {CLIENT[4]}/24 dev to-box", f"addr add {CLIENT[6]}/64 dev to-box nodad",
                       "route add default via 192.0.2.1", "route add default via 2001:db8:1::1"],
            "box": ["addr add 192.0.2.1/24 dev to-client", "addr add 2001:db8:1::1/64 dev to-client nodad",
                    f"route add {RAW_CLIENT[4]} via {CLIENT[4]}", f"route add {RAW_CLIENT[6]} via {CLIENT[6]}"],
            "hop": [],
            "server": [f"addr add {SERVER[4]}/24 dev to-{behind}", f"addr add {SERVER[6]}/64 dev to-{behind} nodad",
                       "route add default via 203.0.113.1", "route add default via 2001:db8:80::1"],
        }
        lines[behind] += ["addr add 203.0.113.1/24 dev to-server", "addr add 2001:db8:80::1/64 dev to-server nodad"]
        if self.extra_hop:
            lines["box"] += ["addr add 198.51.100.1/24 dev to-hop", "addr add 2001:db8:2::1/64 dev to-hop nodad",
                             "route add default via 198.51.100.2", "route add default via 2001:db8:2::2"]
            lines["hop"] += ["addr add 198.51.100.2/24 dev to-box", "addr add 2001:db8:2::2/64 dev to-box nodad",
                             "route add default via 198.51.100.1", "route add default via 2001:db8:2::1"]
        return {place: lines[place] for place in self.places}

    # ---- the server

    def _start_server(self) -> None:
        (self.home / "files").mkdir()
        self._make_certificates()
        listen = [f"listen {at}{port}{tls} fastopen=64;"
                  for ports, tls in ((HTTP_PORTS, ""), (TLS_PORTS, " ssl http2"))
                  for port in ports for at in ("", "[::]:")]
        settings = self.home / "nginx.conf"
        settings.write_text(NGINX.format(
            home=self.home, listen="\n        ".join(listen),
            page=PAGE.format(host="$host", target="$request_uri").replace("\n", "\\n")))
        log = self.home / "nginx.log"
        with log.open("wb") as output:
            nginx = self.popen_in("server", ["nginx", "-e", str(log), "-c", str(settings)],
                                  stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        # It writes its process id when every port is open.
        opened = until(lambda: (self.home / "nginx.pid").exists() or nginx.poll() is not None, 10.0)
        if not opened or nginx.poll() is not None:
            raise SystemProblem(f"nginx does not start: {log.read_text(errors='replace').strip()}")

    def _make_certificates(self) -> None:
        """An authority of our own (ca.pem) and a certificate for `names` (server.pem, server.key) in `home`."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

        def certificate(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
            return (x509.CertificateBuilder().subject_name(named(subject)).issuer_name(named("edgeblock lab"))
                    .public_key(key.public_key()).serial_number(x509.random_serial_number())
                    .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30)))

        ca = certificate("edgeblock lab", authority).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(authority, hashes.SHA256())
        leaf = certificate("edgeblock lab server", server).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names]), critical=False
        ).sign(authority, hashes.SHA256())
        pem = serialization.Encoding.PEM
        (self.home / "ca.pem").write_bytes(ca.public_bytes(pem))
        (self.home / "server.pem").write_bytes(leaf.public_bytes(pem) + ca.public_bytes(pem))
        (self.home / "server.key").write_bytes(server.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    def publish(self, name: str, content: bytes) -> str:
        """Makes `content` a file on the server; returns its path on every host."""
        (self.home / "files" / name).write_bytes(content)
        return f"/files/{name}"

    # ---- doing things in a namespace

    def namespace(self, place: str) -> str:
        """The name that `ip netns` knows "client", "box", "hop" or "server" by."""
        return f"{self._prefix}-{place}"

    def command(self, place: str, argv: Sequence[str]) -> list[str]:
        """`argv` as it has to be started to run in that place; the process id stays that of the program."""
        return ["nsenter", f"--net={NETNS / self.namespace(place)}", "--", *argv]

    def run_in(self, place: str, argv: Sequence[str], *, check: bool = True,
               timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; SystemProblem with its last words when `check` and it fails."""
        return call(self.command(place, argv), check=check, timeout=timeout)

    def popen_in(self, place: str, argv: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
        """Starts a command that ends with the lab at the latest. `more` as for subprocess.Popen."""
        environment = more.pop("env", os.environ) | {"PATH": search_path()}
        process = subprocess.Popen(self.command(place, argv), env=environment, **more)
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def entered(self, place: str) -> Iterator[None]:
        """This thread is in that namespace meanwhile: a socket made inside stays there, whoever uses it later."""
        with open("/proc/thread-self/ns/net") as home, open(NETNS / self.namespace(place)) as away:
            enter(away.fileno())
            try:
                yield
            finally:
                enter(home.fileno())

    def connect(self, port: int, *, version: int = 4, timeout: float = 5.0) -> socket.socket:
        """A TCP connection of the client's kernel to the server."""
        with self.entered("client"):
            return socket.create_connection((SERVER[version], port), timeout)

    def fetch(self, url: str, *, version: int = 4, timeout: float = 5.0, options: Sequence[str] = ()) -> Seen:
        """The client fetches `url` with curl from the lab's server, whatever its host; `options` go to curl.

        The certificate is checked against the lab's authority. A transfer that takes longer than `timeout` seconds
        ends with curl's error.
        """
        address = f"[{SERVER[6]}]" if version == 6 else SERVER[4]
        with tempfile.NamedTemporaryFile(dir=self.home) as head:
            argv = ["curl", "--silent", "--noproxy", "*", "--cacert", str(self.home / "ca.pem"),
                    "--connect-to", f"::{address}:", "--max-time", str(timeout), "--dump-header", head.name,
                    "--write-out", "%{stderr}%{json}", *options, url]
            process = subprocess.run(self.command("client", argv), capture_output=True, check=False,
                                     stdin=subprocess.DEVNULL, timeout=timeout + 10)
            lines = Path(head.name).read_text("latin-1").splitlines()
        facts = json.loads(process.stderr)
        headers = dict(line.split(":", 1) for line in lines if ":" in line)
        return Seen(
            status=facts["http_code"],
            body=process.stdout,
            headers={name.lower(): value.strip() for name, value in headers.items()},
            error=facts["errormsg"] or "",
            exit=process.returncode,
            seconds=facts["time_total"],
            local_port=facts["local_port"],
        )

    def start_daemon(self, config: str, *, within: float = 20.0) -> Daemon:
        """`edgeblock run` in the box with this TOML text; returns when it says that it is ready.

        It says so as a service does, to the socket in NOTIFY_SOCKET (sd_notify(3)). A daemon that ends instead, or
        says nothing for `within` seconds, is a SystemProblem with the end of its log.
        """
        place = Path(tempfile.mkdtemp(dir=self.home, prefix="daemon-"))
        settings, log = place / "edgeblock.toml", place / "log"
        # Several labs may run at once, each with a daemon: none takes the one control socket of the machine.
        own = "" if "[daemon]" in config else f'\n[daemon]\ncontrol = "{place}/control.sock"\n'
        # What tests count is what they have sent.
        own += "" if "[canary]" in config else "\n[canary]\nenabled = false\n"
        settings.write_text(config + own)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, log.open("wb") as output:
            notify.bind(str(place / "notify"))
            process = self.popen_in(
                "box", [*WITH_BPF, sys.executable, "-m", "edgeblock", "run", "--config", str(settings)],
                env=os.environ | {"NOTIFY_SOCKET": str(place / "notify")},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            daemon = Daemon(process, settings, log)
            ended = os.pidfd_open(process.pid)
            try:
                deadline = time.monotonic() + within
                while True:
                    left = max(0.0, deadline - time.monotonic())
                    ready = select.select([notify.fileno(), ended], [], [], left)[0]
                    if notify.fileno() in ready:
                        if b"READY=1" in notify.recv(65536).split(b"\n"):
                            return daemon
                    elif ended in ready:
                        raise SystemProblem(f"the daemon ended with {process.wait()}:\n{daemon.last_words()}")
                    else:
                        raise SystemProblem(f"the daemon was not ready in {within} s:\n{daemon.last_words()}")
            finally:
                os.close(ended)

    def counters(self, daemon: Daemon) -> dict[str, int]:
        """What the daemon has counted so far: `edgeblock status --json`, nested names joined by dots."""
        answer = self.run_in("box", [sys.executable, "-m", "edgeblock", "status", "--json",
                                     "--config", str(daemon.config)])

        def flat(prefix: str, value: object) -> Iterator[tuple[str, int]]:
            if isinstance(value, dict):
                for name, inner in value.items():
                    yield from flat(f"{prefix}.{name}" if prefix else str(name), inner)
            elif isinstance(value, int):
                yield prefix, value

        return dict(flat("", json.loads(answer.stdout)))

    def queued(self, number: int = 0) -> int:
        """How many packets the kernel has put into that queue of the box so far, by its own count."""
        for line in self.run_in("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.splitlines():
            # queue, port id, waiting, copy mode, copy range, dropped, dropped for the reader, id of the last packet
            fields = [int(word) for word in line.split()]
            if fields[0] == number:
                return fields[7]
        raise SystemProblem(f"nothing listens on queue {number} in the box")


# ---- namespaces and the processes in them


def call(argv: Sequence[str], *, input: str | None = None, check: bool = True,
         timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, input=input, stdin=None if input is not None else subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=timeout,
                          env=os.environ | {"PATH": search_path(), "LC_ALL": "C"})
    if check and done.returncode != 0:
        words = " ".join(argv)
        words = words.partition(" -- ")[2] or words     # how the namespace was entered helps nobody
        raise SystemProblem(f"{words}: status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def enter(namespace: int) -> None:
    """Moves this thread into the network namespace of an open file (os.setns is in Python 3.12 and later only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot, so that a reused id is no longer the same; None: no such."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def remove(namespaces: Sequence[str]) -> None:
    """Kills what runs in these namespaces, waits until it is gone, and removes them."""
    found = {}
    for name in namespaces:
        with contextlib.suppress(FileNotFoundError):
            found[(NETNS / name).stat().st_ino] = name
    pids = [pid for pid in living() if network_of(pid) in found and pid != os.getpid()] if found else []
    with contextlib.ExitStack() as stack:
        dying = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                dying.append(os.pidfd_open(pid))
                stack.callback(os.close, dying[-1])
                signal.pidfd_send_signal(dying[-1], signal.SIGKILL)
        for descriptor in dying:
            select.select([descriptor], [], [], 5.0)
    for name in found.values():
        call(["ip", "netns", "delete", name], check=False)


def living() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def network_of(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def sweep() -> None:
    """Removes what labs of processes that are no longer there have left."""
    def abandoned(directory: Path) -> list[Path]:
        return [path for path in (directory.iterdir() if directory.is_dir() else ())
                if (owner := OWNER.match(path.name)) and started(int(owner[1])) != int(owner[2])]

    remove([path.name for path in abandoned(NETNS)])
    for path in abandoned(Path(tempfile.gettempdir())):
        shutil.rmtree(path, ignore_errors=True)
