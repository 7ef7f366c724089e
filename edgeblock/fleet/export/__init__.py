"""Exports: what this box blocks, for resolvers and routers that stand beside it.

In: a rules directory. Out: a file in the form of another plane, one module a form, and what that plane cannot have.
Never here: a plane that blocks what the box would not.
"""

from collections.abc import Callable, Iterator

from edgeblock.fleet.export import as_json, bird, dnsdist, exabgp, ipset, nft, rpz, unbound
from edgeblock.fleet.export.gather import Sources
from edgeblock.fleet.export.options import Options

FORMATS: dict[str, Callable[[Sources, Options], Iterator[str]]] = {
    "rpz": rpz.write, "unbound": unbound.write, "dnsdist": dnsdist.write, "nft": nft.write, "ipset": ipset.write,
    "bird": bird.write, "exabgp": exabgp.write, "json": as_json.write,
}
ROUTES = ("bird", "exabgp")
