"""`edgeblock canary`: the running daemon asks its own box for a listed name, now.

In: the daemon's answer. Out: a line for each family and protocol. Never here: a packet (daemon/canary.py).
"""

import argparse

from edgeblock import asking, config
from edgeblock.commands import add_config

SECONDS = 20.0          # that a round of probes may take: two, where one is under way already

EXAMPLES = """\
  edgeblock canary
  edgeblock canary --quiet && birdc enable upstream
Exit status: 0 if a listed name is blocked and another passes, 1 if not, 2 if no daemon answers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--quiet", action="store_true",
                        help="print nothing but why no daemon answers, for other programs' checks")


def main(chosen: argparse.Namespace) -> int:
    answer = asking.have_answered(config.load(chosen.config).daemon.control, "canary", patience=SECONDS)
    if not chosen.quiet:
        for one in answer["probes"]:
            print(f"{one['family']} {one['protocol']:5} {'ok' if not one['wrong'] else 'FAILED: ' + one['wrong']}")
        for family, why in answer["lacking"].items():
            print(f"{family} not asked: {why}")
        if answer["off"] or answer["state"] == "waiting":
            print(f"not asked: {answer['off'] or 'no round is over yet'}")
    return 0 if answer["state"] == "ok" else 1
