"""Static routes of BIRD 2.

In: prefixes. Out: a file for `include`: a table and a static protocol for each family. In a table of their own routes
reach the kernel or a peer only where the configuration around them says so. Never here: a peer.
"""

from collections.abc import Iterator

from edgeblock.fleet.export.gather import Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.routes import routes


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    yield f"# {sources.about}\n"
    for family, prefixes in routes(sources, options):
        table = f"edgeblock_routes{family}"
        yield (f"ipv{family} table {table};\nprotocol static edgeblock{family} {{\n    ipv{family} {{\n"
               f"        table {table};\n")
        yield "        import filter {\n"
        for high, low in options.communities:
            yield f"            bgp_community.add(({high},{low}));\n"
        if (hop := options.next_hop(family)) is not None:
            yield f"            bgp_next_hop = {hop};\n"
        yield "            accept;\n        };\n    };\n"
        for one in prefixes:
            yield f"    route {one} {'unreachable' if options.divert else 'blackhole'};\n"
        yield "}\n"
