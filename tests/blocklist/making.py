"""Makes matchers for tests from lines, without files."""

import io
from dataclasses import replace

from edgeblock.blocklist.clients import give, set_of
from edgeblock.blocklist.compiler import Compiler
from edgeblock.blocklist.formats import Entry, read_domains
from edgeblock.blocklist.matcher import ListMatcher
from edgeblock.blocklist.settings import ListSettings
from edgeblock.blocklist.snapshot import open_snapshot, pack

KEY = bytes(range(16))


def compiled(*lists, key=KEY):
    """Compiled parts of lists given as (name, ListSettings or None, lines)."""
    compiler = Compiler(key)
    for name, settings, lines in lists:
        index = compiler.add_list(name, settings or ListSettings())
        for entry in read_domains(io.BytesIO("\n".join(lines).encode())):
            assert isinstance(entry, Entry), entry
            compiler.add(index, entry)
    return compiler.finish()


def snapshot_of(*lists, key=KEY):
    return pack(compiled(*lists, key=key), key, 1_700_000_000)


def matcher_of(*lists, key=KEY):
    return ListMatcher(open_snapshot(snapshot_of(*lists, key=key), key))


def matcher(*lines, **settings):
    """A matcher of one list."""
    return matcher_of(("list", ListSettings(**settings), lines))


def matcher_for(clients, *lines, mode="only", key=KEY):
    """A matcher of one list for some clients: those in the text of a clients file, or with "except" all but these."""
    made = compiled(("list", None, lines), key=key)
    one = set_of(clients.encode(), key)
    made.lists[0].clients = mode
    give(made.lists[0], one)
    return ListMatcher(open_snapshot(pack(replace(made, client_sets=[one]), key, 1_700_000_000), key))
