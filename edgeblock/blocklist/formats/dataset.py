"""Data sets of Suricata: one base64 text a line, of type string, or a host, URL or address each.

In: a file opened for reading bytes. Out: items in the order of the lines. A name begins with a dot where the rule
that uses the set has `dotprefix`: then it is the name and all below it, as a bare one is here.
Source: Suricata's documentation of datasets (type string, ip, ipv4); RFC 4648, section 4.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import BinaryIO

from edgeblock.blocklist.formats.entries import read_entry
from edgeblock.blocklist.formats.lines import BadEntry, Entry, Item, Problem, no_text, shown
from edgeblock.blocklist.formats.scan import read_lines


def read_dataset(file: BinaryIO) -> Iterator[Item]:
    for number, line in read_lines(file):
        if isinstance(line, Problem):
            yield line
            continue
        word = line.partition(b",")[0].strip()      # a reputation may stand behind it
        try:
            text = base64.b64decode(word, validate=True)
        except binascii.Error:
            text = word if b"." in word or b":" in word else b""        # sets of addresses are plain
        if not text or no_text(number, text):
            yield Problem(number, f"{shown(line)} is no base64 of a name")
            continue
        try:
            for kind, key, depth in read_entry(text.removeprefix(b".")):
                yield Entry(number, kind, key, False, depth)
        except BadEntry as error:
            yield Problem(number, f"{shown(text)} {error}")
