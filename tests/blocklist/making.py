"""Makes matchers for tests from lines, without files."""

import io

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
