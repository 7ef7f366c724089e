"""A response policy zone (draft-vixie-dnsop-dns-rpz): BIND, Unbound, PowerDNS Recursor, Knot Resolver.

In: nodes. Out: a zone file: QNAME triggers alone. Of the triggers that match, resolvers take the exact name before the
closest wildcard, so each node stands there with what is other than around it. Never here: a trigger for addresses in
answers, which would block a name with one listed address among several.
"""

from collections.abc import Iterator

from edgeblock.fleet.export.gather import ADDRESSES, AT, ENDPOINTS, HOST_MAX, NO_NAME, URL, Sources
from edgeblock.fleet.export.options import Options

TTL = 60                # seconds that a resolver's clients keep an answer
REFRESH, RETRY, EXPIRE = 300, 60, 30 * 86400    # of secondaries; longer than a primary is ever away
PASS = "CNAME rpz-passthru."


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end."""
    sources.refuse_hashed()
    sources.leave(URL, AT, ADDRESSES, ENDPOINTS)
    block = f"CNAME {options.page}." if options.page else "CNAME ."
    room = HOST_MAX - len(options.zone) - len("*..")
    yield f"; {sources.about}\n$ORIGIN {options.zone}.\n$TTL {TTL}\n"
    yield f"@ SOA localhost. nobody.invalid. {options.serial} {REFRESH} {RETRY} {EXPIRE} {TTL}\n"
    yield "@ NS localhost.\n"
    for node in sources.nodes():
        if len(node.name) > room:
            sources.left[NO_NAME] += 1
            continue
        if node.own != node.inherited:
            yield f"{node.name} {block if node.own else PASS}\n"
        if node.below != node.inherited:
            yield f"*.{node.name} {block if node.below else PASS}\n"
