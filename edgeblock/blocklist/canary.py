"""The name that is always listed, so that a daemon can ask its own box for it: no list has it, nobody knows it.

In: the key of the box. Out: that name, one beside it that is not listed, and the first as a part of a snapshot. Both
end in .invalid, which is in no name server (RFC 6761, 6.4). Never here: a file, a clock, or a list of anybody.
"""

from collections.abc import Iterable

from edgeblock.blocklist.keys import Key, keyed_sum
from edgeblock.blocklist.parts import Compiled, ListRecord

LIST = "/canary"        # no file has a name with a slash
SIZE = 20               # bytes of what nobody can guess in each name


def control_name(key: Key) -> str:
    """What is listed."""
    return name(key, b"listed")


def neighbour_name(key: Key) -> str:
    """What is not."""
    return name(key, b"neighbour")


def name(key: Key, which: bytes) -> str:
    return keyed_sum(b"edgeblock canary, " + which, key, SIZE).hex() + ".invalid"


def lists_of_people(records: Iterable[ListRecord] | None) -> list[ListRecord]:
    """Without the one that nobody has written."""
    return [record for record in records or () if record.name != LIST]


def part(key: Key) -> Compiled:
    """The list that has the control name and nothing else, to be merged with the others."""
    from edgeblock.blocklist.compiler import Compiler  # who only asks for names needs no reader of lists
    from edgeblock.blocklist.fingerprint import Kind
    from edgeblock.blocklist.formats import Entry
    from edgeblock.blocklist.settings import ListSettings

    compiler = Compiler(key)
    compiler.add(compiler.add_list(LIST, ListSettings(action="reset", mandatory=True)),
                 Entry(0, Kind.HOST, control_name(key).encode()))
    made = compiler.finish()
    made.lists[0].part = LIST       # always the same for one key
    return made
