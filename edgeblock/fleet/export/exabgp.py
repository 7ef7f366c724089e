"""Announcements for ExaBGP's processes.

In: prefixes. Out: a line each, as ExaBGP takes them from a process; `edgeblock health --exabgp FILE` says them while
the box filters, and takes them back when it does not. Never here: a peer.
"""

from collections.abc import Iterator

from edgeblock.fleet.export.gather import Sources
from edgeblock.fleet.export.options import Options
from edgeblock.fleet.export.routes import routes

ANNOUNCE = "announce route "


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    yield f"# {sources.about}\n"
    told = " ".join(f"{high}:{low}" for high, low in options.communities)
    for family, prefixes in routes(sources, options):
        rest = f" next-hop {options.next_hop(family) or 'self'}" + (f" community [{told}]" if told else "")
        for one in prefixes:
            yield f"{ANNOUNCE}{one}{rest}\n"
