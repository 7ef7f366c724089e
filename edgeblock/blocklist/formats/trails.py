"""Trails of maltrail, a detector of malicious traffic: what a machine that is taken over asks for.

In: a file opened for reading bytes. Out: items in the order of the lines. A name is the name and all below it, an
address with or without a port is that, a name with a path is that URL. A path without a name means that path of any
host, and what has a class of characters in it is a regular expression: both are passed over.
Source: the trails that maltrail ships, and its README.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.formats.entries import read_entry
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Passed, Problem, shown
from edgeblock.blocklist.formats.plain import without_comment
from edgeblock.blocklist.formats.scan import read_lines

PATTERN = re.compile(rb"\[[^\[\]]*\]|\\.|\(\?|\.[*+]|\$$")


def read_trails(file: BinaryIO) -> Iterator[Item]:
    for number, line in read_lines(file, comments=b"#"):
        if isinstance(line, Problem):
            yield line
            continue
        line = without_comment(line)
        if line[:2] == b"//":
            continue
        if line[:1] == b"/":
            yield Passed(number, "paths of any host")
            continue
        if PATTERN.search(line) and line[:1] != b"[":
            yield Passed(number, "regular expressions")
            continue
        try:
            for kind, key, depth in read_entry(line):
                yield Entry(number, kind, key, False, depth)
        except BadEntry as error:
            yield Problem(number, f"{shown(line)} {error}")
