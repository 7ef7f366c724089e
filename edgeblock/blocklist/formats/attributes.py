"""What a list says about an entry beside it: until=2030-12-31 order="No. 12".

In: a line, or the cells of a row, and the names that the settings of the list declare. Out: the entry's text and its
attributes in one form: by name, each name once, values with single blanks and no others around them. A name that is
not declared is refused, so that nothing which somebody relies on is left out unseen. What an attribute means is not
known here.
"""

import re

from edgeblock.blocklist.formats.lines import Attributes, BadEntry

VALUE_MAX = 256         # characters of a value: a number of an order, a date, a reference
ENTRY = re.compile(rb"(?:@@[ \t]*)?[^ \t]+")
ONE = re.compile(rb"[ \t]+([A-Za-z][A-Za-z0-9_-]*)=(?:\"([^\"]*)\"|([^\s\"]*))")
PLAIN = re.compile(r"[^\s\"#;]+")


def split_attributes(line: bytes, declared: tuple[str, ...]) -> tuple[bytes, Attributes]:
    """The text of the entry, and its attributes. Raises BadEntry for a name that is not declared."""
    found = ENTRY.match(line)
    if not found:
        return line, ()
    entry, at = found[0], found.end()
    pairs = []
    while one := ONE.match(line, at):
        at = one.end()
        pairs.append((one[1].decode().lower(), (one[3] if one[2] is None else one[2]).decode()))
    rest = line[at:].lstrip(b" \t")
    if not pairs or rest and (rest[:1] not in (b"#", b";") or line[at:at + 1] not in (b" ", b"\t")):
        return line, ()         # whatever it is, these are none
    return entry, checked(pairs, declared)


def checked(pairs: list[tuple[str, str]], declared: tuple[str, ...]) -> Attributes:
    """Attributes in their one form."""
    made: dict[str, str] = {}
    for name, value in pairs:
        if name not in declared:
            every = ", ".join(f'"{one}"' for one in (*declared, name))
            raise BadEntry(f"has the attribute {name}, which this list does not declare; put attributes = [{every}] "
                           "into its settings if that is meant")
        if name in made:
            raise BadEntry(f"has the attribute {name} twice")
        value = " ".join(value.split())
        if not value:
            raise BadEntry(f"has the attribute {name} without a value")
        if len(value) > VALUE_MAX:
            raise BadEntry(f"has more than {VALUE_MAX} characters in its attribute {name}")
        if '"' in value:
            raise BadEntry(f"has a quote in its attribute {name}")
        made[name] = value
    return tuple(sorted(made.items()))


def attributes_text(attributes: Attributes) -> str:
    """Attributes as a line has them, a blank in front of each."""
    return "".join(f" {name}={value}" if PLAIN.fullmatch(value) else f' {name}="{value}"'
                   for name, value in attributes)
