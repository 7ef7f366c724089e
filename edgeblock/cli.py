"""The `edgeblock` command: arguments in, one exit status out.

In: arguments. Out: the exit status of the command that they name (commands/), of which only the file is imported that
is to run, so that `edgeblock version` is quick. An EdgeblockError is one line on standard error and status 2. Never
here: work.
"""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TextIO

import edgeblock
from edgeblock.commands import COMMANDS, complain
from edgeblock.errors import EdgeblockError, SystemProblem

INTERRUPTED = 130       # what a shell says of a program that Ctrl-C ended
PIPE_CLOSED = 141       # and of one whose reader had gone
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)     # of a file that output was sent to


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    @property
    def options(self) -> list[str]:
        return [word for action in self._actions for word in action.option_strings]

    def refuse(self, extra: list[str]) -> NoReturn:
        """Arguments that are none of this command."""
        option = next((word for word in extra if word.startswith("-")), "")
        known = self.options
        near = get_close_matches(option.partition("=")[0], known, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        if not option and "--config" in known and extra[0].endswith(".toml"):
            hint = "; a configuration is named with --config FILE"
        self.error(f"unknown: {' '.join(extra)}{hint}")


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    # Closed by whoever started us: then nobody wants to hear. What is opened later is not to have these numbers.
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")      # type: ignore[union-attr]
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        name = next((argument for argument in arguments if not argument.startswith("-")), "")
        chosen = parsed(make_parser(name), arguments)
        try:
            status: int = chosen.command(chosen)
        except SystemExit as ending:
            if ending.code != 1:
                raise               # a signal that the lab had to clean up after
            raise BrokenPipeError from None     # how rich ends where nobody reads its tables
        sys.stdout.flush()
        return status
    except EdgeblockError as problem:
        complain(problem)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        close_output()
        return PIPE_CLOSED
    except OSError as problem:
        if isinstance(problem, PermissionError) and problem.filename is not None:
            complain(SystemProblem(f"{os.fsdecode(problem.filename)}: cannot be used: {problem.strerror}; run this "
                                   "as root, or as a user who may read it"))
            return 2
        if problem.errno in (errno.ENAMETOOLONG, errno.ELOOP) and problem.filename is not None:
            complain(SystemProblem(f"{os.fsdecode(problem.filename)}: is no file: {problem.strerror}"))
            return 2
        if problem.errno not in FULL or problem.filename is not None:
            raise
        close_output()
        print(f"edgeblock: standard output: cannot be written: {problem.strerror}", file=sys.stderr)
        return 2


def parsed(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """What is chosen. What no command has is refused by the one that it was said to, which knows what is meant."""
    first = arguments[0].partition("=")[0] if arguments else ""
    if first.startswith("-") and first not in parser.options:
        parser.error(f"{first}: stands behind a command, such as `{parser.prog} status {first}`")
    chosen, extra = parser.parse_known_args(arguments)
    if extra:
        chosen.parser.refuse(extra)
    return chosen


def close_output() -> None:
    """Keeps the interpreter from complaining once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command_of(name: str) -> Any:
    """The file of a command. SystemProblem where our compiled modules are not those of these sources."""
    try:
        return importlib.import_module(f"edgeblock.commands.{name.replace('-', '_')}")
    except ImportError as problem:
        if not (problem.name or "").startswith("edgeblock."):
            raise
        raise SystemProblem(f"{problem.name}: the compiled core is missing or of other sources than these; run "
                            "`make build` in the checkout, or install the package again") from None


def make_parser(only: str | None = None) -> Parser:
    """The parser of all commands; with `only`, the others have no arguments, and their files are not imported."""
    parser = Parser(prog="edgeblock", allow_abbrev=False, description="An inline blocklist filter for Linux NFQUEUE.",
                    epilog="`edgeblock COMMAND --help` explains a command, with an example.")
    parser.add_argument("--version", action="version", version=f"edgeblock {edgeblock.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, summary in COMMANDS.items():
        made = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                   allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        if only in (None, name):
            command = command_of(name)
            made.epilog = "examples:\n" + command.EXAMPLES
            made.set_defaults(command=command.main, parser=made)
            command.add_arguments(made)
    return parser
