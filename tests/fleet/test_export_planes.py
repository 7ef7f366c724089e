"""Every plane is asked about the same names and addresses, and says what `edgeblock check` says.

Or docs/export.md says why not: its table of differences is what this test allows, and each of them has to be seen.
"""

import ipaddress
import json
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeblock import config
from edgeblock.blocklist.explain import explain
from edgeblock.blocklist.load import load
from edgeblock.cli import main
from edgeblock.lab import search_path, until
from tests.fleet import planes

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
NAMES = ("BIND", "Unbound RPZ", "PowerDNS", "Unbound", "dnsdist", "JSON")
PLACES = ("nftables", "ipset", "BIRD", "JSON")
ENOUGH = 1000

HOST_OF_URL = 'the host of a URL of a list with `https = "host"`'
EXCEPT_CLIENTS = "a name that lists block or pass for some clients only"
SPARED = "a name with an exception for one of its URLs, or at one address"
BELOW = "a name below one that is itself not blocked (`*.name`, or an exception for that one alone)"
LEADS = "an IPv6 address that leads to a listed IPv4 one"
PORT = "an address with a port that is listed"
OTHER_PORT = "a listed address of which a port is excepted, on another port"

LISTS = {
    "a.list": """
example.com
=exact.example
*.below.example
bücher.example
UPPER.Example.
under_score.example
lifted.example
http://url.example/path
place.example @ 203.0.113.9
192.0.2.0/24
198.51.100.7:443
198.51.100.128-198.51.100.131
2001:db8::/64
[2001:db8:7::1]:8443
2001:db8:1::80
deep.example
spared.example
aspared.example
both.example
=both.example
later.example from=2099-01-01
over.example until=2020-01-01
echo.example ech=only
one.two.three.four.five.six.seven.eight.nine.ten.example
""",
    "b.list": """
sub.example.com
=other.example
*.other.example
bad.ok.example.com
inner.deep.example
=below.example
*.twice.example
twice.example
""",
    "exceptions.list": """
@@ok.example.com
@@=only.example.com
@@*.starred.example.com
@@far.away.from.example.com
@@lifted.example
@@nothing.is.listed.example
@@192.0.2.7
@@192.0.2.9:443
@@192.0.2.192/28
@@2001:db8::5
@@=deep.example
@@http://spared.example/path
@@aspared.example @ 203.0.113.77
""",
    "court.list": "must.ok.example.com\nmust.lifted.example\n192.0.2.200\n",
    "court.toml": "mandatory = true\n",
    "seen.list": "observed.example\n203.0.113.200\n",
    "seen.toml": 'action = "observe"\n',
    "some.list": "forsome.example\n@@spare.example.com\n203.0.113.210\n",
    "some.toml": 'clients = ["192.0.2.0/28"]\n',
    "but.list": "forothers.example\n",
    "but.toml": 'clients_except = ["192.0.2.0/28"]\n',
    "hosts.list": "http://hosted.example/x\n",
    "hosts.toml": 'https = "host"\n',
}


class Asked(NamedTuple):
    """A question; `differs` is the row of the table that it belongs to."""

    name: str
    differs: str = ""
    port: int = 0


def differences() -> dict[str, dict[str, str]]:
    """The table in the docs: of each row what each plane does."""
    text = DOCS.read_text().partition("## Where a plane differs")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("|")]
    head = rows[0]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows[2:]}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("export")
    (home / "rules").mkdir()
    for name, text in LISTS.items():
        (home / "rules" / name).write_text(text)
    chance = random.Random(26)
    with (home / "rules" / "many.list").open("w") as file:
        for number in range(120):
            mark = chance.choice(("", "", "=", "*."))
            file.write(f"{mark}{made_up(chance, number)}\n")
    (home / "edgeblock.toml").write_text(f'[rules]\ndirectory = "{home}/rules"\nkey = "{home}/key"\nlocked = []\n')
    return home


def made_up(chance: random.Random, number: int) -> str:
    """A name that is below another one now and then."""
    parents = ("many.example", "n7.many.example", "n11.n7.many.example")
    return f"n{number}.{chance.choice(parents)}"


def exported(box: Path, format: str, *more: str) -> Path:
    path = box / f"{format}.out"
    assert main(["export", "--config", str(box / "edgeblock.toml"), "--format", format, "--output", str(path),
                 *more]) == 0
    return path


def listed_hosts(box: Path, mark: str = "") -> list[str]:
    """The hosts of the lists, those of which the line begins with that mark."""
    found = []
    for path in sorted((box / "rules").glob("*.list")):
        for line in path.read_text().splitlines():
            host = re.sub(r"^(@@)?(=|\*\.|http://)?", "", line).partition(" ")[0].partition("/")[0]
            if line.startswith(mark) and re.search("[a-z]", host) and ":" not in host:
                found.append(host.lower().rstrip("."))
    return found


def names_asked(box: Path) -> list[Asked]:
    """A thousand: all that are listed, what is around them, and some by chance."""
    alone = {*listed_hosts(box, "*."), *listed_hosts(box, "@@="), *listed_hosts(box, "@@http:")}
    rows = dict.fromkeys(("hosted.example",), HOST_OF_URL)
    rows |= dict.fromkeys(("forothers.example", "www.forothers.example", "a.b.forothers.example",
                           "q.forothers.example"), EXCEPT_CLIENTS)
    made: dict[str, Asked] = {}

    def add(name: str) -> None:
        plain = name.lower().rstrip(".")
        labels = plain.split(".")
        parents = {".".join(labels[at:]) for at in range(len(labels))}
        row = rows.get(plain, "")
        if plain == "spared.example" or parents & {"aspared.example"}:
            row = SPARED
        elif parents & {"spare.example.com"}:
            row = EXCEPT_CLIENTS
        elif not row and (parents - {plain}) & alone:
            row = BELOW
        made.setdefault(name, Asked(name, row))

    for host in listed_hosts(box):
        for name in around(host):
            add(name)
    chance = random.Random(27)
    while len(made) < ENOUGH:
        add(".".join(chance.choice(("a", "example", "com", "many", "n7", "n11", "ok", "www", "deep"))
                     for _ in range(chance.randint(2, 5))))
    return list(made.values())


def around(host: str) -> Iterator[str]:
    """A name, what is below it, beside it and above it, in other spellings."""
    yield from (host, f"www.{host}", f"a.b.{host}", f"not{host}", f"{host.upper()}", f"{host}.", f"{host}.org",
                f"q.{host.partition('.')[2] or host}")


def on_the_wire(name: str) -> str:
    return name.encode("idna").decode() if not name.isascii() else name


def blocked_by_check(box: Path, asked: list[Asked]) -> list[bool]:
    rules = config.load(str(box / "edgeblock.toml")).rules
    loaded = load(rules.directory, rules)

    def text(one: Asked) -> str:
        return f"[{one.name}]:{one.port}" if one.port and ":" in one.name else \
            f"{one.name}:{one.port}" if one.port else one.name

    records = explain(loaded, [text(one) for one in asked])
    assert all(record.canonical is not None for record in records), [one for one in records if one.problem][:3]
    return [record.blocked for record in records]


def compare(plane: str, asked: list[Asked], check: list[bool], said: list[bool]) -> None:
    """Each answer is that of check, or of a row that has this plane pass; no plane ever blocks more."""
    table = differences()
    seen = set()
    wrong = []
    for one, box_blocks, plane_blocks in zip(asked, check, said, strict=True):
        if plane_blocks == box_blocks:
            continue
        if box_blocks and one.differs and table[one.differs][plane] == "passes":
            seen.add(one.differs)
        else:
            wrong.append((one, f"check: {box_blocks}", f"{plane}: {plane_blocks}"))
    assert wrong == []
    # A row that nobody sees says what is not so.
    asked_about = {one.differs for one in asked}
    assert {row for row, cells in table.items() if cells[plane] == "passes" and row in asked_about} == seen


# Names -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def questions(box: Path) -> tuple[list[Asked], list[bool]]:
    asked = names_asked(box)
    assert len(asked) >= ENOUGH
    return asked, blocked_by_check(box, asked)


@pytest.mark.live
@pytest.mark.parametrize("plane", [one for one in NAMES if one != "JSON"])
def test_resolvers_say_what_check_says(plane: str, box: Path, questions: tuple[list[Asked], list[bool]],
                                       tmp_path: Path):
    asked, check = questions
    behind = planes.Everything()
    behind.start()
    if plane in ("Unbound", "dnsdist"):
        made = planes.unbound(tmp_path, behind.port, include=exported(box, "unbound")) if plane == "Unbound" else \
            planes.dnsdist(tmp_path, exported(box, "dnsdist"), behind.port)
    else:
        zone = exported(box, "rpz", "--zone", "rpz.example")
        made = {"BIND": lambda: planes.bind(tmp_path, zone, behind.port),
                "Unbound RPZ": lambda: planes.unbound(tmp_path, behind.port, zone=zone),
                "PowerDNS": lambda: planes.recursor(tmp_path, behind.port, zone=zone)}[plane]()
    with ExitStack() as stack:
        port = planes.start(stack, tmp_path, made)
        answers = planes.ask(port, [on_the_wire(one.name) for one in asked])
    compare(plane, asked, check, [not planes.passes(answers[on_the_wire(one.name)]) for one in asked])


def test_json_says_what_check_says(box: Path, questions: tuple[list[Asked], list[bool]]):
    asked, check = questions
    nodes = {one["name"]: one for one in json.loads(exported(box, "json").read_text())["names"]}

    def blocks(name: str) -> bool:
        name = on_the_wire(name).lower().rstrip(".")
        if name in nodes:
            return bool(nodes[name]["own"])
        while name := name.partition(".")[2]:
            if name in nodes:
                return bool(nodes[name]["below"])
        return False

    compare("JSON", asked, check, [blocks(one.name) for one in asked])


# Addresses ---------------------------------------------------------------------------------------------------

def places_asked() -> list[Asked]:
    made: dict[tuple[str, int], Asked] = {}

    def add(address: object, differs: str = "", port: int = 0) -> None:
        made.setdefault((str(address), port), Asked(str(address), differs, port))

    add("198.51.100.7", PORT, 443)
    add("2001:db8:7::1", PORT, 8443)
    add("192.0.2.9", OTHER_PORT)
    add("192.0.2.9", OTHER_PORT, 80)
    add("192.0.2.9", "", 443)
    for address in ("64:ff9b::c000:201", "::ffff:192.0.2.1", "2002:c000:201::1"):
        add(ipaddress.ip_address(address), LEADS)
    edges = [ipaddress.ip_network(one) for one in (
        "192.0.2.0/24", "192.0.2.7", "192.0.2.192/28", "192.0.2.200", "198.51.100.7", "198.51.100.128/30",
        "203.0.113.200", "203.0.113.210", "203.0.113.9", "2001:db8::/64", "2001:db8::5", "2001:db8:1::80",
        "2001:db8:7::1")]
    for network in edges:
        for number in (int(network[0]) - 1, int(network[0]), int(network[-1]), int(network[-1]) + 1):
            add(type(network[0])(number))
            add(type(network[0])(number), "", 80)
    chance = random.Random(26)
    for _ in range(100):
        add(ipaddress.ip_address(f"192.0.2.{chance.randrange(256)}"), "")
        add(ipaddress.ip_address(f"2001:db8::{chance.randrange(1 << 16):x}"), "")
    return [one for key, one in made.items() if key[0] != "192.0.2.9" or one.differs or one.port == 443]


@pytest.fixture(scope="module")
def places(box: Path) -> tuple[list[Asked], list[bool]]:
    asked = places_asked()
    return asked, blocked_by_check(box, asked)


def test_json_says_what_check_says_of_addresses(box: Path, places: tuple[list[Asked], list[bool]]):
    asked, check = places
    told = json.loads(exported(box, "json").read_text())
    ports = {(ipaddress.ip_address(one["address"]), one["port"]): one["action"] for one in told["ports"]}
    spans = [(ipaddress.ip_address(one["first"]), ipaddress.ip_address(one["last"]), one["action"])
             for one in told["addresses"]]

    def blocks(one: Asked) -> bool:
        address = ipaddress.ip_address(one.name)
        action = ports.get((address, one.port)) or next(
            (what for first, last, what in spans
             if first.version == address.version and first <= address <= last), "")
        return action in ("drop", "reset")

    compare("JSON", asked, check, [blocks(one) for one in asked])


def in_namespace(script: str) -> list[str]:
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False,
                          env={"PATH": search_path()}, timeout=120)
    assert not done.stderr, done.stderr[:2000]
    return done.stdout.splitlines()


@pytest.mark.live
def test_nftables_says_what_check_says(box: Path, places: tuple[list[Asked], list[bool]]):
    asked, check = places
    path = exported(box, "nft")

    def get(set_name: str, element: str) -> str:
        return f"nft get element inet edgeblock_export {set_name} '{{ {element} }}' >/dev/null 2>&1"

    lines = [f"nft -f {path}", f"nft -f {path}"]        # it replaces itself
    for one in asked:
        family = 6 if ":" in one.name else 4
        verdict = f"if {get(f'listed{family}', one.name)}; then echo drop; else echo pass; fi"
        if one.port:
            with_port = f"{one.name} . {one.port}"
            verdict = (f"if {get(f'passed{family}_ports', with_port)}; then echo pass; "
                       f"elif {get(f'listed{family}_ports', with_port)}; then echo drop; else {verdict}; fi")
        lines.append(verdict)
    compare("nftables", asked, check, [one == "drop" for one in in_namespace("\n".join(lines))])


@pytest.mark.live
def test_ipset_says_what_check_says(box: Path, places: tuple[list[Asked], list[bool]]):
    asked, check = places
    path = exported(box, "ipset")
    lines = [f"ipset restore < {path}", f"ipset restore < {path}"]
    for one in asked:
        family = 6 if ":" in one.name else 4
        verdict = f"if ipset -q test edgeblock{family} {one.name}; then echo drop; else echo pass; fi"
        if one.port:
            with_port = f"{one.name},tcp:{one.port}"
            verdict = (f"if ipset -q test edgeblock{family}-passed {with_port}; then echo pass; elif ipset -q test "
                       f"edgeblock{family}-ports {with_port}; then echo drop; else {verdict}; fi")
        lines.append(verdict)
    compare("ipset", asked, check, [one == "drop" for one in in_namespace("\n".join(lines))])


def birdc(socket: Path, *commands: str) -> str:
    return subprocess.run(["birdc", "-s", str(socket)], input="\n".join(commands) + "\n", capture_output=True,
                          text=True, check=True, env={"PATH": search_path()}).stdout


@pytest.mark.live
def test_bird_says_what_check_says(box: Path, places: tuple[list[Asked], list[bool]], tmp_path: Path):
    asked, check = places
    routes = exported(box, "bird", "--route", "blackhole")
    settings, socket = tmp_path / "bird.conf", tmp_path / "bird.ctl"
    settings.write_text(f'router id 192.0.2.1;\ninclude "{routes}";\n')
    subprocess.run(["bird", "-p", "-c", str(settings)], check=True, env={"PATH": search_path()})
    command = ["bird", "-f", "-c", str(settings), "-s", str(socket), "-P", str(tmp_path / "pid")]
    with planes.running(command, tmp_path):
        assert until(socket.exists, 10)
        told = birdc(socket, *(f"show route for {one.name} table edgeblock_routes{6 if ':' in one.name else 4}"
                               for one in asked))
        shown = birdc(socket, "show route for 192.0.2.1 all table edgeblock_routes4")
    assert "(65535,65281) (65535,666)" in shown or "(65535,666) (65535,65281)" in shown, shown
    answers = [line for line in told.splitlines() if "blackhole" in line or "Network not found" in line]
    assert len(answers) == len(asked), told[:2000]
    compare("BIRD", asked, check, ["blackhole" in line for line in answers])


def test_exabgp_announces_the_routes_that_bird_has(box: Path):
    for more in (["--route", "blackhole"], ["--next-hop", "192.0.2.1", "--next-hop", "2001:db8::1"]):
        bird = re.findall(r"route (\S+) ", exported(box, "bird", *more).read_text())
        exabgp = re.findall(r"announce route (\S+) ", exported(box, "exabgp", *more).read_text())
        assert bird == exabgp and len(bird) > 5
