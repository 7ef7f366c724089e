"""`edgeblock lint`: everything wrong with a directory of lists.

In: a directory. Out: findings, one a line, and a summary on standard error. Never here: what counts as wrong
(blocklist/lint.py).
"""

import argparse
import sys

from edgeblock import config
from edgeblock.blocklist import lint
from edgeblock.blocklist.store import readable_key
from edgeblock.commands import add_config

EXAMPLES = """\
  edgeblock lint /etc/edgeblock/rules
  edgeblock lint --all /etc/edgeblock/rules
Errors refuse a list; warnings are what looks like a mistake; notes are worth knowing: in this order, each line says
which it is. Where a list has many findings of one sort, the first is told, with their number and where the first of
them stand.
Exit status: 0 without errors and warnings, 1 with some, 2 if the directory cannot be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--all", action="store_true", help="every finding, line by line")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    settings = whole.rules
    report = lint.lint(chosen.directory, settings, key=readable_key(settings.key), everything=chosen.all,
                       redirect=whole.reply.redirect)
    for mark, findings in (("error: ", report.errors), ("warning: ", report.warnings), ("note: ", report.notes)):
        for finding in findings if chosen.all else lint.grouped(findings):
            print(finding.marked(mark))
    print(report.summary(), file=sys.stderr)
    return 1 if report.findings else 0
