"""The commands, one file each: what it takes (`add_arguments`), its examples, and what it does (`main`).

In: arguments as cli.py has parsed them. Out: output, and an exit status; an EdgeblockError for what a person can
fix. A command is added as a file, with a row in COMMANDS. Never here: another command's work.
"""

import argparse
import sys

from edgeblock import config
from edgeblock.blocklist.terms import BadTerm, parse_time
from edgeblock.errors import ConfigError, EdgeblockError, printable

# In the order of `edgeblock --help`; a file has the command's name, with _ for -.
COMMANDS = {
    "run": "filter live traffic until stopped",
    "replay": "judge the packets of a capture as the daemon would",
    "check": "say whether names would be blocked, by which list and why",
    "lint": "find everything wrong with a directory of lists",
    "compile": "make one snapshot file of a directory of lists",
    "hash-list": "make a list without plain text of one, for boxes with the same key",
    "export": "write what the lists block in the form of a resolver or a router",
    "impact": "show what the addresses of a list would take down with them",
    "guard": "show or renew the networks that many sites share, which lists may not block",
    "publish": "make and keep a signed repository of lists for many boxes",
    "ruleset": "show, apply or remove the kernel rules that queue packets",
    "ledger": "verify, prove or export the record of what was in force, and when",
    "report": "make a page of what was blocked, how fast, and whether the box filtered",
    "review": "find entries that nobody met, or whose time is over",
    "status": "show what the running daemon has counted",
    "canary": "have the running daemon ask its own box for a listed name, now",
    "health": "have routes lead to this box while it filters, and not when it does not",
    "top": "watch the running daemon: rates, queues, verdicts, latency, workers",
    "doctor": "say what this machine has and lacks, and how to fix it",
    "demo": "filter between a client and a server in namespaces of their own, and show it",
    "version": "print the version",
}


def add_config(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that reads the configuration."""
    parser.add_argument("--config", metavar="FILE",
                        help=f"the configuration (default: {config.DEFAULT_FILE} where there is one)")


def moment_of(text: str | None) -> float | None:
    """Unix seconds of what stands behind --at; None where nothing does.

    Raises:
        ConfigError: it is no time.
    """
    try:
        return None if text is None else float(parse_time(" ".join(text.split())))
    except BadTerm as problem:
        raise ConfigError(f"--at {text}: {problem}") from None


def complain(problem: EdgeblockError) -> None:
    """One line on standard error for each mistake."""
    for line in problem.args:
        print("edgeblock: " + printable(" ".join(str(line).splitlines())), file=sys.stderr)


def spell(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = int(seconds)
    for unit, size, smaller, least in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // least} {smaller}"
    return f"{whole} s"
