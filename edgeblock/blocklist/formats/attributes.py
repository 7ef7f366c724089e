"""What a list says about an entry beside it: until=2030-12-31 order="No. 12".

In: a line, or the cells of a row, and the names that the settings of the list declare. Out: the entry's text and its
attributes in one form: by name, each name once, values with single blanks and no others around them. A name that is
neither declared nor known is refused, so that nothing which somebody relies on is left out unseen. What those mean
that are known is for terms.py.
"""

import re

from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats.lines import Attributes, BadEntry, Entry
from edgeblock.blocklist.terms import KNOWN, BadTerm, meant_by

VALUE_MAX = 256         # characters of a value: a number of an order, a date, a reference
# One word, or a host, an "@" and an address.
ENTRY = re.compile(rb"(?:@@[ \t]*)?[^ \t]+(?:[ \t]+@(?!@)[ \t]*[^ \t]+|(?<=[^@]@)[ \t]+[^ \t]+)?")
ONE = re.compile(rb"[ \t]+([A-Za-z][A-Za-z0-9_-]*)=(?:\"([^\"]*)\"|([^\s\"]*))")
PLAIN = re.compile(r"[^\s\"#;]+")
NEARLY = re.compile(rb"(?:(?<=[ \t])|\A)([A-Za-z][A-Za-z0-9_-]*)[ \t]*=[ \t]*")      # one that is not well written
ALONE = re.compile(rb"[^ \t]+[ \t]+([A-Za-z_]+)(?:[ \t]+[#;].*)?", re.DOTALL)


def split_attributes(line: bytes, declared: tuple[str, ...]) -> tuple[bytes, Attributes]:
    """The text of the entry, and its attributes. Raises BadEntry for a name that is neither declared nor known."""
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
        if why := why_none(line[found.end():].strip(b" \t"), declared):
            raise BadEntry(why)
        return line, ()         # whatever it is, these are none
    if quoted := next((name for name, value in pairs if name in KNOWN and value[:1] == value[-1:] == "'"), ""):
        value = dict(pairs)[quoted].strip("'")
        raise BadEntry(f'has single quotes around the value of {quoted}; use double quotes: {quoted}="{value}"')
    return entry, checked(pairs, declared, KNOWN)


def why_none(text: bytes, declared: tuple[str, ...]) -> str:
    """What is wrong with what stands behind an entry, where it was to be attributes; "" where it was not."""
    text = re.split(rb"[ \t][#;]", text)[0]
    starts = list(NEARLY.finditer(text))
    if not starts or starts[0].start():
        return ""
    for at, start in enumerate(starts):
        name = start[1].decode().lower()
        said = text[start.start():starts[at + 1].start() if at + 1 < len(starts) else len(text)].strip(b" \t")
        value = said[start.end() - start.start():].decode()
        if ONE.fullmatch(b" " + said):
            continue
        if name not in declared and name not in KNOWN and not meant_by(name):
            return ""
        right = f'{name}="{" ".join(value.strip(chr(34) + chr(39)).split())}"'
        if value[:1] == '"' and value.count('"') == 1:
            return f"has a quote that is not closed in the value of {name}; write {right}"
        if '"' in value[1:-1]:
            return f"has a quote in the value of {name}; put quotes around the whole of it: {right}"
        if value[:1] == "'":
            return f"has single quotes around the value of {name}; use double quotes: {right}"
        if any(blank in value for blank in " \t"):
            return f"has a blank in the value of {name}; put it in quotes: {right}"
        return f"has a blank beside the '=' of {name}; leave it out: {right}"
    return ""


def refuse_alone(line: bytes) -> None:
    """Raises BadEntry for an entry with the name of an attribute behind it, and no value."""
    if (found := ALONE.fullmatch(line)) and (name := found[1].decode().lower()) in KNOWN:
        raise BadEntry(f"has {name} without a value; write " + ("ech=only" if name == "ech" else f'{name}="..."'))


def checked(pairs: list[tuple[str, str]], declared: tuple[str, ...], known: tuple[str, ...] = ()) -> Attributes:
    """Attributes in their one form; `known` ones need no declaration."""
    made: dict[str, str] = {}
    for name, value in pairs:
        if name not in declared and name not in known:
            if meant := meant_by(name):
                said = attributes_text(((name, " ".join(value.split())),)).lstrip()
                raise BadEntry(f"has {said}; did you mean {meant}? (from, until and weekly say when an entry holds)")
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


def with_terms(entry: Entry) -> Entry:
    """The entry, whose attributes say what they can. Raises BadEntry where one does not."""
    if entry.attributes:
        try:
            terms = entry.terms
        except BadTerm as problem:
            raise BadEntry(str(problem)) from None
        if terms and terms.ech and (entry.exception or Kind.SUBDOMAINS < entry.kind < Kind.HOST_AT):
            raise BadEntry("has ech=only, which is for blocks of hosts: nothing else comes in a hello")
    return entry


def attributes_text(attributes: Attributes) -> str:
    """Attributes as a line has them, a blank in front of each."""
    return "".join(f" {name}={value}" if PLAIN.fullmatch(value) else f' {name}="{value}"'
                   for name, value in attributes)
