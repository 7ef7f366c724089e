"""A rule of dnsdist, as Lua.

In: nodes. Out: a file for `dofile`, which gives the global function `edgeblock_listed()`: a rule that matches what is
blocked. dnsdist has trees that match a name and all below it, but none that tells which of several is the closest. So
there is a tree for each turn from blocked to passed and back on the way down: what is below an exception below a
listed name is in the second. Names for themselves are in two sets, and come first. Never here: what is done with a
match.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import IO

from edgeblock.fleet.export.gather import ADDRESSES, AT, ENDPOINTS, URL, Sources
from edgeblock.fleet.export.options import Options

FILL = """\
local function fill(set, text)
    for name in text:gmatch("%S+") do
        set:add(newDNSName(name))
    end
end
"""


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.refuse_hashed()
    sources.leave(URL, AT, ADDRESSES, ENDPOINTS)
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {}
        deepest = 0

        def put(where: str, name: str) -> None:
            if where not in files:
                files[where] = stack.enter_context(TemporaryFile("w+", encoding="ascii"))
            files[where].write(f"{name}.\n")

        for node in sources.nodes():
            if node.own != node.below:
                put("blocked" if node.own else "passed", node.name)
            if node.below != node.inherited:
                level = sources.levels(node.name)
                deepest = max(deepest, level)
                put(f"tree{level}", node.name)
        yield f"-- {sources.about}\n{FILL}"
        for where in ("blocked", "passed", *(f"tree{level}" for level in range(1, deepest + 1))):
            yield f"local {where} = {'newSuffixMatchNode' if where.startswith('tree') else 'newDNSNameSet'}()\n"
            if where in files:
                yield f"fill({where}, [[\n"
                files[where].seek(0)
                yield from files[where]
                yield "]])\n"
    yield "function edgeblock_listed()\n"
    yield f"    local below = {nested(deepest)}\n"
    yield "    return OrRule({QNameSetRule(blocked), AndRule({NotRule(QNameSetRule(passed)), below})})\nend\n"


def nested(deepest: int) -> str:
    """Whether the deepest tree that has a name is one of blocked names."""
    rule = ""
    for level in range(deepest, 0, -1):
        tree = f"SuffixMatchNodeRule(tree{level})"
        rule = f"AndRule({{{tree}, NotRule({rule})}})" if rule else tree
    return rule or "NotRule(AllRule())"
