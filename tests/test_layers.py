"""Calls go down and values come back: an import or cimport that points up, sideways in a circle or out of core fails.

In: the import lines of the package, compiled modules included. Out: each arrow that breaks the order of LAYERS.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import edgeblock

PACKAGE = Path(edgeblock.__file__).parent

# Lowest first; one line is one layer. A module belongs to the longest entry that begins its name. What is in one
# layer may import its neighbours, in no circle.
LAYERS = (
    ("edgeblock",),                                    # __init__: the version and nothing else
    ("core.cursor", "core.decision", "core.matcher", "core.text", "core.crypto"),
    ("core.packet", "core.hpack", "core.blocked", "core.dtls", "core.findings"),
    ("core.sketch",),
    ("core.tally",),
    ("core.reader",),
    ("core.framing", "core.prefix"),
    ("core",),                                         # the other protocol readers: what of core has no row here
    ("core.readers",),
    ("core.reading", "core.segments"),
    ("core.follow", "core.starts"),
    ("core.window",),
    ("core.quic",),
    ("core.flow",),
    ("core.connections",),
    ("core.engine",),
    ("errors", "ledger.merkle", "toml"),
    ("asking", "config", "addresses", "wire", "progress", "notify", "disguises.packets"),
    ("disguises.streams", "disguises.messages", "disguises"),
    ("blocklist.international", "blocklist.international_tables"),
    ("blocklist.apart", "blocklist.bitmap", "blocklist.flatten", "blocklist.leads", "blocklist.siphash",
     "blocklist.canonical", "blocklist.encodings", "blocklist.keys", "blocklist.prefixes", "blocklist.settings",
     "blocklist.ranges", "blocklist.signature", "blocklist.terms"),
    ("blocklist.shared",),
    ("blocklist.published", "blocklist.impact"),
    ("blocklist.fingerprint",),
    ("blocklist.formats.lines",),
    ("blocklist.formats.scan",),
    ("blocklist.formats.entries",),
    ("blocklist.formats",),
    ("blocklist.timetable",),
    ("blocklist.parts",),
    ("blocklist.commitments",),
    ("blocklist.committed",),
    ("blocklist.guard",),
    ("blocklist.compiler",),
    ("blocklist.addresses",),
    ("blocklist.snapshot",),
    ("blocklist.holding", "blocklist.met"),
    ("blocklist.matcher",),
    ("blocklist",),
    ("enforce", "netfilter", "engine", "ledger.records", "ledger.kinds", "ledger.place"),
    ("disguises.table",),
    ("source",),
    ("ledger.segments",),
    ("ledger",),
    ("report.pending",),
    ("report",),
    ("fleet.source",),
    ("fleet.sources", "fleet.record", "fleet.landing", "fleet.threads"),
    ("fleet.releases", "fleet.signing", "fleet.visit", "fleet.health", "fleet.trial"),
    ("fleet.download", "fleet.publish", "fleet.rings"),
    ("fleet.export.gather", "fleet.export.options", "fleet.export.prefixes"),
    ("fleet.export.routes",),
    ("fleet.export.bird", "fleet.export.exabgp", "fleet.export.rpz", "fleet.export.unbound", "fleet.export.dnsdist",
     "fleet.export.nft", "fleet.export.ipset", "fleet.export.as_json"),
    ("fleet.export",),
    ("fleet",),
    ("daemon",),
    ("lab",),
    ("commands",),
    ("cli",),
    ("fleet.cli",),
    ("__main__",),
)
LINE = re.compile(r"^\s*(?:from\s+(?P<base>edgeblock[\w.]*)\s+c?import\s+(?P<names>\(?[\w\s,]+)"
                  r"|c?import\s+(?P<whole>edgeblock[\w.]*))", re.MULTILINE)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") if parts != ("__init__",) else "edgeblock"


SOURCES = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".pyx", ".pxd")]
MODULES = {name_of(path) for path in SOURCES}


def layer(module: str) -> int:
    ranks = {entry: rank for rank, entries in enumerate(LAYERS) for entry in entries}
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if ".".join(parts[:size]) in ranks:
            return ranks[".".join(parts[:size])]
    raise AssertionError(f"edgeblock.{module} has no place in LAYERS: say where it belongs")


def imported(path: Path) -> set[str]:
    """The modules of edgeblock that this file names, without the package's own name in front."""
    pairs = []
    text = path.read_text()
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                pairs += [(node.module or "", alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                pairs += [(alias.name, "") for alias in node.names]
    else:
        for match in LINE.finditer(text):
            names = re.findall(r"\w+", match["names"] or "")
            pairs += [(match["base"] or match["whole"], name) for name in names or [""]]
    found = set()
    for base, name in pairs:
        if base.split(".")[0] == "edgeblock":
            short = base.removeprefix("edgeblock").removeprefix(".")
            inner = f"{short}.{name}".strip(".")
            found.add(inner if inner in MODULES else short or "edgeblock")
    return found


ARROWS = {(name_of(path), target) for path in SOURCES for target in imported(path) if target != name_of(path)}


def test_the_check_sees_arrows():
    assert ("core.engine", "core.matcher") in ARROWS
    assert ("__main__", "cli") in ARROWS


def test_no_arrow_points_up():
    assert [f"{a} -> {b}" for a, b in sorted(ARROWS) if b in MODULES and layer(b) > layer(a)] == []


def test_core_imports_nothing_outside_core():
    assert [f"{a} -> {b}" for a, b in sorted(ARROWS) if a.startswith("core") and not b.startswith("core")] == []


def test_every_module_has_its_layer():
    assert all(layer(module) >= 0 for module in MODULES)


def test_no_circle():
    graph: dict[str, set[str]] = {}
    for a, b in ARROWS:
        graph.setdefault(a, set()).add(b)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as problem:
        raise AssertionError(" -> ".join(problem.args[1])) from None
