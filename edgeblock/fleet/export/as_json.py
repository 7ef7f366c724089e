"""All of it as one JSON object, for planes that nobody has written a format for (export-1.schema.json).

In: nodes, addresses, and what only a finer plane can do. Out: one object, an element a line, in the order of the
schema. Names are decided by the closest node, so whoever reads it needs no rule of precedence. Never here: a field
that the schema has not.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from edgeblock.addresses import BITS
from edgeblock.fleet.export.gather import Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.prefixes import address_text

VERSION = 1


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.refuse_hashed()
    there = sources.addresses()
    lists = [{"name": name, "action": one.action, "mandatory": one.mandatory, "category": one.category,
              "sha256": one.sha256} for name, one in sorted(sources.records.items())
             if name in sources.chosen and not one.clients]
    yield (f'{{"edgeblock": "export", "version": {VERSION}, "until": {json.dumps(sources.until)},\n'
           f'"lists": {json.dumps(lists)}')
    yield from field("names", (
        {"name": one.name, "own": one.own, "below": one.below, "list": one.list, "action": one.action}
        for one in sources.nodes() if not one.own == one.below == one.inherited))
    yield from field("addresses", (
        {"first": address_text(one.first, family), "last": address_text(one.last, family), "list": one.owner,
         "action": one.what.name.lower()}
        for family in BITS for one in there.spans[family] if one.what))
    yield from field("ports", (
        {"address": address_text(one.address, family), "port": one.port, "list": one.owner,
         "action": one.what.name.lower()}
        for family in BITS for one in there.endpoints[family]))
    yield from field("others", (
        {"entry": one.text, "kind": one.kind, "list": one.list, "action": one.action}
        for one in sources.specials()))
    yield "}\n"


def field(name: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield f',\n"{name}": ['
    between = "\n"
    for one in items:
        yield between + json.dumps(one)
        between = ",\n"
    yield "]"
