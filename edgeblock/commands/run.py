"""`edgeblock run`: the daemon, or only whether it could run.

In: the configuration; files that the service manager has kept. Out: the daemon's exit status. Never here: its work.
The daemon is imported late: until a SIGHUP is ignored it would end the process.
"""

import argparse
import signal
import sys
from collections.abc import Mapping

from edgeblock import config
from edgeblock.commands import add_config, complain
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.notify import kept_files

EXAMPLES = """\
  edgeblock run --config /etc/edgeblock/edgeblock.toml
  edgeblock run --check --config /etc/edgeblock/edgeblock.toml.new
Exit status: 0 after SIGTERM or Ctrl-C; 1 if this machine does not let it run, now; 2 if the configuration is wrong.
SIGHUP loads the lists anew. The log goes to standard output."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--check", action="store_true", help="only say whether the configuration can be used")


def main(chosen: argparse.Namespace) -> int:
    if chosen.check:
        return check_configuration(chosen.config)
    kept = kept_files()     # first, so that no mistake in the settings leaves packets to wait for nobody
    signal.signal(signal.SIGHUP, signal.SIG_IGN)    # the lists are loaded soon anyway
    settings, wrong = config.read(chosen.config)
    if wrong:
        refuse(chosen.config, settings, wrong)
    from edgeblock.daemon import begin

    try:
        return begin.run(settings, lambda: refuse(chosen.config, settings), kept=kept)
    except SystemProblem as problem:
        complain(problem)
        return 1        # systemd tries again, as it must not after a mistake in the configuration


def check_configuration(path: str | None) -> int:
    settings, wrong = config.read(path)
    refuse(path, settings, wrong)
    from edgeblock.daemon import checks

    for warning in [*checks.check(settings), *checks.redirects_nowhere(settings)]:
        print(f"edgeblock: warning: {warning}", file=sys.stderr)
    print(f"{place_of(path)}: the configuration can be used")
    return 0


def refuse(path: str | None, settings: config.Config, wrong: Mapping[str, str] | None = None) -> None:
    """ConfigError with a line for each mistake in the configuration, if there is one. `wrong` are those by key."""
    wrong = wrong or {}
    from edgeblock.daemon import checks

    found = [*wrong.values(), *(f"{place_of(path)}: {line}" for line in checks.mistakes(settings, wrong))]
    if found:
        raise ConfigError(*found)


def place_of(path: str | None) -> str:
    return path or (str(config.DEFAULT_FILE) if config.DEFAULT_FILE.exists() else "the defaults")
