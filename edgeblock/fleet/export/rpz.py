"""A response policy zone (draft-vixie-dnsop-dns-rpz): BIND, Unbound, PowerDNS Recursor, Knot Resolver.

In: nodes. Out: a zone file: QNAME triggers alone. Of the triggers that match, resolvers take the exact name before
the closest wildcard; BIND and Unbound as DNS has wildcards, so that around an exception more has to be said. Never
here: a trigger for addresses in answers, which would block a name with one listed address among several.
"""

from collections.abc import Iterator

from edgeblock.errors import ListError
from edgeblock.fleet.export.gather import ADDRESSES, AT, ENDPOINTS, FRESH_SIZE, HOST_MAX, NO_NAME, URL, Sources
from edgeblock.fleet.export.options import Options

TTL = 60                # seconds that a resolver's clients keep an answer
REFRESH, RETRY, EXPIRE = 300, 60, 30 * 86400    # of secondaries; longer than a primary is ever away
PASS = "CNAME rpz-passthru."
# What stands below these is no name to a resolver: 32.1.2.0.192.rpz-client-ip would refuse a client every answer.
TRIGGERS = ("rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname")


def write(sources: Sources, options: Options) -> Iterator[str]:
    """The lines of the file, each with its end.

    Raises:
        ListError: there is no room for an exception, so what it passes would be blocked; or names lead to one that
            is blocked itself.
    """
    sources.refuse_hashed()
    if options.page and sources.said(options.page).own:
        raise ListError(f"--page {options.page}: is listed itself, so nobody would come there; take an exception "
                        "into a list, or name another host")
    sources.leave(URL, AT, ADDRESSES, ENDPOINTS)
    block = f"CNAME {options.page}." if options.page else "CNAME ."
    room = HOST_MAX - len(options.zone) - len("*..")
    yield f"; {sources.about}\n$ORIGIN {options.zone}.\n$TTL {TTL}\n"
    yield f"@ SOA localhost. nobody.invalid. {options.serial} {REFRESH} {RETRY} {EXPIRE} {TTL}\n"
    yield "@ NS localhost.\n"
    told: set[str] = set()
    for node in sources.nodes():
        if node.own and node.below and node.inherited:
            continue
        if node.name.rpartition(".")[2] in TRIGGERS:
            sources.left[NO_NAME] += 1
        elif len(node.name) > room and node.inherited and not (
                node.own and (node.below or len(node.name) + FRESH_SIZE >= HOST_MAX)):
            raise ListError(f"--zone {options.zone}: has no room for the exception {node.name}, and what it passes "
                            "would be blocked; give a shorter name")
        elif len(node.name) > room:
            sources.left[NO_NAME] += 1
        elif node.inherited:
            yield from excepted(sources, node.name, told, block)
        else:
            if node.own:
                yield f"{node.name} {block}\n"
            if node.below:
                yield f"*.{node.name} {block}\n"


def excepted(sources: Sources, name: str, told: set[str], block: str) -> Iterator[str]:
    """A name in the midst of what is blocked, and those on the way to it: a wildcard does not cover what is below a
    name that the zone has, be it only for another below that (RFC 4592, 2.2.2 and 3.3.1)."""
    while name not in told and (said := sources.said(name)).inherited:
        told.add(name)
        yield f"{name} {block if said.own else PASS}\n*.{name} {block if said.below else PASS}\n"
        name = name.partition(".")[2]
