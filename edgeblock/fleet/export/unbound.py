"""Local zones of Unbound.

In: nodes. Out: a file for `include:`. A local zone is of a name and all below it, and the closest one counts. A name
alone is a transparent zone with data of another type in it: NODATA for every question but that. What is only below a
name cannot be said, and is left out; RPZ can (rpz.py), and Unbound reads that too. Never here: another zone's data.
"""

from collections.abc import Iterator

from edgeblock.fleet.export.gather import ADDRESSES, AT, ENDPOINTS, URL, Sources
from edgeblock.fleet.export.options import Options

BELOW = "names of which only what is below is listed, or a name alone excepted (Unbound's RPZ can: --format rpz)"


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.refuse_hashed()
    sources.leave(URL, AT, ADDRESSES, ENDPOINTS)
    yield f"# {sources.about}\nserver:\n"
    for node in sources.nodes():
        if node.own and node.below:
            # Also within another: that may be one which cannot be said.
            yield f'    local-zone: "{node.name}." always_nxdomain\n'
        elif node.own:
            yield (f'    local-zone: "{node.name}." transparent\n'
                   f'    local-data: "{node.name}. 60 IN TXT blocked"\n')
        elif node.inherited:
            sources.left[BELOW] += node.below
            yield f'    local-zone: "{node.name}." always_transparent\n'
        elif node.below:
            sources.left[BELOW] += 1
