"""`edgeblock hash-list`: a list without plain text of one, for boxes with the same key.

In: a list, a key. Out: the hashed list, or why it is not written. Never here: a hash computed (blocklist/hashing.py).
"""

import argparse
import sys

from edgeblock import config
from edgeblock.blocklist.hashing import hash_file
from edgeblock.commands import add_config

EXAMPLES = """\
  edgeblock hash-list court.list court.hashed --key /etc/edgeblock/court.key
  edgeblock hash-list export.csv court.hashed --format csv
A box reads court.hashed when [rules] key is a copy of this key. What the settings beside IN say has to
stand beside OUT on the box, as court.toml. A list that breaks a guard rail is not written.
Exit status: 0 if it was written, 1 if not, 2 if the list or the key cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("list", metavar="IN", help="the list; its settings are in NAME.toml beside it")
    parser.add_argument("out", metavar="OUT", help="the hashed list, such as court.hashed")
    parser.add_argument("--key", metavar="FILE", help="16 bytes, made where there is none (default: [rules] key)")
    parser.add_argument("--format", metavar="FORMAT",
                        help="how IN is written (default: what its settings or name say)")


def main(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config).rules
    made = hash_file(chosen.list, chosen.out, settings, chosen.key, chosen.format)
    for finding in made.findings:
        print(finding, file=sys.stderr)
    if made.refused:
        print(f"edgeblock: {chosen.out}: not written; fix the list, or its settings", file=sys.stderr)
        return 1
    print(made.summary())
    for note in made.notes:
        print(f"edgeblock: note: {note}", file=sys.stderr)
    return 0
