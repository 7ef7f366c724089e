"""BIND and Knot as primaries, two boxes as their secondaries, each with a daemon that filters; and what goes wrong.

The configurations of the primaries are those of docs/zone-transfer.md, with this machine's addresses and paths.
"""

import asyncio
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from edgeblock.fleet.sources import FetchSettings
from edgeblock.fleet.zone import Settings, Zone
from edgeblock.lab import SERVER, Daemon, Lab, call, page, search_path, until
from tests.fleet.primary import SECRET, ZONE, Primary, certificates, free_port
from tests.fleet.secondary import Secondary

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
WAY = ("10.53.0.1", "10.53.0.2")        # from the primary to the second box
BOXES = ("203.0.113.1", WAY[1])
SOON = 40.0
PROMISED = 2.0                          # seconds from NOTIFY until it is in force, where a processor is free
CHANGES = 5
OTHER = "b3RoZXIgc2VjcmV0IG90aGVyIHNlY3JldA=="

BIND = """options {{
    directory "{home}"; pid-file none; session-keyfile "{home}/session"; lock-file none;
    listen-on {{ any; }}; listen-on-v6 {{ any; }}; recursion no; dnssec-validation no;
    notify-rate 1000;
}};
controls {{ }};
"""
KNOT = """server:
    rundir: {home}
    user: root
    listen: [ 0.0.0.0@53, "::@53" ]
    pidfile: {home}/pid
database:
    storage: {home}
log:
  - target: stderr
    any: info
"""


def block(language: str) -> str:
    """The text of a program's configuration in the documentation."""
    text = (ROOT / "docs/zone-transfer.md").read_text()
    found = re.findall(rf"^```{re.escape(language)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0].replace("192.0.2.10", BOXES[0]).replace("192.0.2.11", BOXES[1])


@dataclass
class NameServer:
    """BIND or Knot in the server's namespace of a lab."""

    lab: Lab
    kind: str
    home: Path
    refresh: int = 3600             # the SOA's, and its retry: without NOTIFY nobody asks in a test's time
    process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        self.home.mkdir()
        general = {"bind": BIND, "knot": KNOT}[self.kind].format(home=self.home)
        text = block({"bind": "named.conf", "knot": "knot.conf"}[self.kind])
        for path in ("/etc/bind", "/var/lib/bind", "/var/lib/knot"):
            text = text.replace(path, str(self.home))
        (self.home / "conf").write_text(general + text.replace('"SECRET"', f'"{SECRET}"'))
        (self.home / "transfer.key").write_text(
            f'key "transfer" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n')

    def write(self, serial: int, hosts: list[str]) -> None:
        name = {"bind": "rpz.example.db", "knot": "rpz.example.zone"}[self.kind]
        lines = "".join(f"{host} CNAME .\n*.{host} CNAME .\n" for host in hosts)
        new = self.home / "new"
        new.write_text("$ORIGIN rpz.example.\n$TTL 300\n"
                       f"@ SOA ns.example. host.example. {serial} {self.refresh} {self.refresh} 86400 300\n"
                       f"@ NS ns.example.\n{lines}")
        new.rename(self.home / name)

    def start(self) -> None:
        argv = {"bind": ["named", "-g", "-c"], "knot": ["knotd", "-c"]}[self.kind]
        with (self.home / "log").open("ab") as log:
            self.process = self.lab.popen_in("server", [*argv, str(self.home / "conf")], stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log)
        assert until(self.answers, SOON), (self.home / "log").read_text()

    def answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.home / "log").read_text()
        asked = self.lab.run_in("server", ["dig", "+norec", "+short", "+time=1", "+tries=1", "@127.0.0.1",
                                           "rpz.example", "SOA"], check=False)
        return asked.returncode == 0 and "host.example." in asked.stdout

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(SOON)

    def forget(self) -> None:
        """Away with its journal, as after a restore from a copy."""
        for path in self.home.iterdir():
            if path.name.endswith((".jnl", ".mdb")) or path.name in ("journal", "timers", "keys"):
                shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):
                    path.unlink()


@dataclass
class Box:
    """A lab whose box is a secondary and filters."""

    lab: Lab
    home: Path
    secondary: Secondary | None = None
    daemon: Daemon | None = None
    rules: Path = field(init=False)

    def start(self, primary: str) -> None:
        self.rules = self.home / "rules"
        self.rules.mkdir(parents=True)
        self.daemon = self.lab.start_daemon(f'[rules]\ndirectory = "{self.rules}"\nkey = "{self.home}/key"\n')
        self.write_key(SECRET)
        self.secondary = Secondary(self.lab, self.home, self.rules, f"""
            zone = "rpz.example"
            primaries = ["{primary}"]
            key_file = "{self.home}/transfer.key"
            listen = ["0.0.0.0:5300"]
            min_refresh = 1
            min_retry = 1
            """)
        self.secondary.start()

    def write_key(self, secret: str) -> None:
        path = self.home / "transfer.key"
        path.touch(mode=0o600)
        path.write_text(f"hmac-sha256:transfer:{secret}\n")

    def landed(self) -> bytes:
        return (self.rules / "feed.rpz").read_bytes()

    def loaded(self) -> int:
        """How often the daemon has said that new rules are in force."""
        assert self.daemon is not None
        return self.daemon.log.read_text().count('"rules loaded"')

    def blocks(self, host: str) -> bool:
        return self.lab.fetch(f"https://{host}/", options=["--insecure"]).exit in (35, 56)

    def passes(self, host: str) -> bool:
        return self.lab.fetch(f"https://{host}/", options=["--insecure"]).body == page(host)


def all_have(boxes: list[Box], name: str) -> bool:
    """Whether the files of all boxes have a name."""
    return all(f"\n{name} CNAME .\n".encode() in box.landed() for box in boxes)


def all_loaded(boxes: list[Box], before: list[int]) -> bool:
    return all(box.loaded() > count for box, count in zip(boxes, before, strict=True))


@dataclass
class Fleet:
    server: NameServer
    boxes: list[Box]
    serial: int = 1

    def publish(self, *hosts: str) -> float:
        self.serial += 1
        self.server.write(self.serial, list(hosts))
        at = time.monotonic()
        self.server.reload()
        return at


def without_processor(box: Box) -> float:
    """For how many seconds the process that made a box's rules could have run, and others did (schedstat)."""
    assert box.daemon is not None
    waited = []
    for line in subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True,
                               check=True).stdout.splitlines():
        process, parent, *args = line.split()
        if int(parent) == box.daemon.process.pid and "edgeblock.daemon.compiling" in args:
            with suppress(OSError):
                ran, waiting, _ = map(int, Path(f"/proc/{process}/schedstat").read_text().split())
                waited.append((ran, waiting / 1e9))
    return max(waited)[1]       # the other one has only started, and waits for the next change


@pytest.fixture(params=["bind", "knot"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        one, other = stack.enter_context(Lab()), stack.enter_context(Lab())
        call(["ip", "link", "add", "to-second", "netns", one.namespace("server"), "type", "veth",
              "peer", "name", "to-primary", "netns", other.namespace("box")])
        for lab, place, device, address in ((one, "server", "to-second", WAY[0]),
                                            (other, "box", "to-primary", WAY[1])):
            lab.run_in(place, ["ip", "addr", "add", f"{address}/30", "dev", device])
            lab.run_in(place, ["ip", "link", "set", device, "up"])
        server = NameServer(one, request.param, one.home / "primary")
        server.configure()
        server.write(1, ["listed.example"])
        server.start()
        boxes = [Box(one, tmp_path / "first"), Box(other, tmp_path / "second")]
        for box, primary in zip(boxes, (SERVER[4], WAY[0]), strict=True):
            box.home.mkdir()
            box.start(primary)
        for box in boxes:
            assert until(lambda box=box: box.blocks("listed.example"), SOON)
        yield Fleet(server, boxes)
        for box in boxes:
            assert box.secondary is not None
            box.secondary.stop()
        server.stop()


@pytest.mark.alone
def test_a_change_is_in_force_within_two_seconds_of_notify(fleet: Fleet):
    """By IXFR, and only after NOTIFY: the SOA's refresh is an hour. On both boxes, each time; new rules are tried for
    as long as a daemon does by itself (self_check). Both share this machine with whatever else runs: for how long the
    process that makes the rules could not run, the kernel counts; that is printed, and is not part of the promise."""
    landed, in_force, waited = [], [], []
    for number in range(CHANGES):
        name = f"new-{number}.example.net"
        assert all(box.passes(name) for box in fleet.boxes)
        before = [box.secondary.status()["notifies"] for box in fleet.boxes]
        loaded = [box.loaded() for box in fleet.boxes]
        at = fleet.publish("listed.example", *(f"new-{one}.example.net" for one in range(number + 1)))
        assert until(partial(all_have, fleet.boxes, name), SOON), fleet.boxes[0].secondary.log()
        landed.append(time.monotonic() - at)
        assert until(partial(all_loaded, fleet.boxes, loaded), SOON)
        in_force.append(time.monotonic() - at)
        waited.append(max(map(without_processor, fleet.boxes)))
        for box, notifies in zip(fleet.boxes, before, strict=True):
            assert box.blocks(name) and box.blocks("listed.example")
            status = box.secondary.status()
            assert (status["transfer"], status["serial"]) == ("increment", fleet.serial)
            assert status["notifies"] > notifies
        assert fleet.boxes[0].landed() == fleet.boxes[1].landed()
    print("".join(f"\n{fleet.server.kind}, seconds on both boxes: {what} {min(of):.2f} to {max(of):.2f}"
                  for what, of in (("from the primary's reload to the file", landed),
                                   ("until it is in force", in_force), ("of them without a processor", waited))))
    assert max(took - away for took, away in zip(in_force, waited, strict=True)) < PROMISED


def test_what_goes_wrong_leaves_the_last_good_in_force(fleet: Fleet):
    box = fleet.boxes[0]
    fleet.server.refresh = 1
    fleet.publish("listed.example")
    assert until(lambda: box.secondary.row()["version"] == "2", SOON), box.secondary.log()

    def refuses(*words: str, name: str = "new.example.net") -> None:
        """It says so, what was in force is, and what was published is not."""
        assert until(lambda: any(word in box.secondary.problem() for word in words), SOON), box.secondary.log()
        assert box.blocks("listed.example") and box.passes(name)
        assert SECRET not in box.secondary.log()

    box.write_key(OTHER)
    fleet.publish("listed.example", "new.example.net")
    refuses("BADSIG")
    box.write_key(SECRET)
    assert until(lambda: box.blocks("new.example.net"), SOON), box.secondary.log()

    fleet.server.stop()
    refuses("cannot be reached", "does not answer", name="other.example.net")
    assert box.blocks("new.example.net")

    fleet.server.forget()
    fleet.server.write(1, ["elsewhere.example"])
    fleet.server.start()
    refuses(f"its serial went back from {fleet.serial} to 1", name="elsewhere.example")

    fleet.server.stop()
    fleet.server.forget()
    many = [f"host-{number}.example" for number in range(5000)]
    fleet.serial += 1
    fleet.server.write(fleet.serial, ["listed.example", "other.example.net", *many])
    cut = ["INPUT", "-p", "tcp", "--dport", "53", "-m", "connbytes", "--connbytes", "30000:", "--connbytes-dir",
           "reply", "--connbytes-mode", "bytes", "-j", "REJECT", "--reject-with", "tcp-reset"]
    fleet.server.lab.run_in("server", ["iptables", "-A", *cut])
    fleet.server.start()
    refuses("cut off", name="other.example.net")
    fleet.server.lab.run_in("server", ["iptables", "-D", *cut])
    assert until(lambda: b"\nother.example.net CNAME .\n" in box.landed(), SOON), box.secondary.log()

    # So many new entries at once are the daemon's to refuse. It does, until fewer are published.
    rejected = box.rules / "feed.rejected"
    assert until(lambda: rejected.exists() and "max_growth" in rejected.read_text(), SOON)
    assert f" to {2 * len(many) + 4}, more than 3 times as many" in rejected.read_text()
    assert box.blocks("listed.example") and box.passes("other.example.net")
    fleet.publish("listed.example", "other.example.net", *many[:400])
    assert until(lambda: box.blocks("other.example.net"), SOON), box.secondary.log()
    assert until(lambda: not rejected.exists(), SOON) and box.blocks(many[399])


def test_bind_sends_the_zone_in_tls(tmp_path: Path):
    """RFC 9103, as BIND has it: nothing but TLS 1.3, and transfers only in it."""
    certificates(tmp_path)
    port = free_port()
    zone = tmp_path / "rpz.example.db"
    zone.write_text("$TTL 300\n@ SOA ns.example. host.example. 1 60 60 86400 300\n@ NS ns.example.\n"
                    "bad.example CNAME .\n")
    (tmp_path / "conf").write_text(f"""
        tls own {{ cert-file "{tmp_path}/ca.pem"; key-file "{tmp_path}/key.pem"; protocols {{ TLSv1.3; }}; }};
        options {{ directory "{tmp_path}"; pid-file none; session-keyfile "{tmp_path}/session"; lock-file none;
                   listen-on port {port} tls own {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; }};
        controls {{ }};
        key "transfer" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
        zone "rpz.example" {{ type primary; file "{zone}"; allow-transfer transport tls {{ key "transfer"; }}; }};""")
    (tmp_path / "transfer.key").touch(mode=0o600)
    (tmp_path / "transfer.key").write_text(f"hmac-sha256:transfer:{SECRET}\n")
    (tmp_path / "folder").mkdir()
    settings = Settings("rpz.example", (f"127.0.0.1:{port}",), tmp_path / "transfer.key", tls=True,
                        tls_ca=tmp_path / "ca.pem", tls_name="ns.example")
    source = Zone("feed", settings, FetchSettings(directory=tmp_path))
    argv = [program("named"), "-g", "-c", str(tmp_path / "conf")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log,
                                                                stderr=log) as server:
        try:
            assert until(lambda: " running\n" in (tmp_path / "log").read_text(), SOON), (tmp_path / "log").read_text()
            fetched = asyncio.run(source.fetch({}, tmp_path / "folder"))
        finally:
            server.terminate()
    assert fetched.files is not None and b"\nbad.example CNAME .\n" in fetched.files["feed.rpz"].read_bytes()


def program(name: str) -> str:
    found = shutil.which(name, path=search_path())
    assert found, f"{name} is not installed: .ci/setup lab test"
    return found


def test_what_lands_is_a_zone_for_name_servers_too(tmp_path: Path):
    lines = ["@ 300 NS ns.example.", "bad.example 300 CNAME .", "*.bad.example 60 CNAME *.",
             "a.example 300 A 192.0.2.1", "fine.example 300 CNAME rpz-passthru.",
             'said.example 300 TXT "two words; \\"quoted\\"" "more"',
             "a\\032b\\046c.example 300 CNAME .", "odd.example 300 TYPE65280 \\# 2 abcd"]

    async def fetch() -> None:
        async with Primary({1: lines}).running() as primary:
            source = Zone("feed", Settings(ZONE, (f"127.0.0.1:{primary.port}",)), FetchSettings(directory=tmp_path))
            await source.fetch({}, tmp_path)

    asyncio.run(fetch())
    done = subprocess.run([program("named-checkzone"), "rpz.example", str(tmp_path / "feed.rpz")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
