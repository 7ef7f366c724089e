"""The `edgeblock-fetch` command: fetches lists from where sources.toml says, and puts them into the drop directory.

In: arguments. Out: the exit status of one of `run`, `once`, `check` and `status`; a mistake is one line on standard
error and status 2. Never here: work.
"""

import argparse
import asyncio
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edgeblock
from edgeblock.cli import INTERRUPTED, PIPE_CLOSED, Parser, close_output, parsed
from edgeblock.commands import spell
from edgeblock.errors import ConfigError, EdgeblockError, SystemProblem, printable
from edgeblock.fleet.sources import DEFAULT_FILE, Sources, load, make

COMMANDS = {
    "run": "fetch from all sources until stopped",
    "once": "ask some sources, or all, once, and say what came",
    "check": "say whether the file of sources can be used",
    "status": "show how the running fetcher's sources are",
}
EXAMPLES = {
    "run": """\
  edgeblock-fetch run --config /etc/edgeblock/sources.toml
SIGHUP reads the file of sources again; what is not changed goes on undisturbed.
Exit status: 0 after SIGTERM or Ctrl-C; 1 if this machine does not let it run, now; 2 if the configuration is
wrong.""",
    "once": """\
  edgeblock-fetch once
  edgeblock-fetch once court registry --config sources.toml
Exit status: 0 if all of them answered, 1 if one failed, 2 if the configuration is wrong, or there is no
such source.""",
    "check": """\
  edgeblock-fetch check --config /etc/edgeblock/sources.toml.new
Exit status: 0 if it can be used, 2 if not; nothing is asked.""",
    "status": """\
  edgeblock-fetch status
  edgeblock-fetch status --json | jq '.sources[] | select(.failures > 0)'
Exit status: 0 while all sources answer, 1 while one fails, 2 if there is no fetcher.""",
}
STATUS_MAX = 16 << 20       # bytes of the status file
WORDS, NUMBERS = ("name", "kind", "version", "error"), ("count", "bytes", "changed", "checked", "failures", "since")
NUMBER_MAX = 1 << 60
DEAD = 60.0                 # seconds without a sign of it after which nobody writes the status any more


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")      # type: ignore[union-attr]
    try:
        chosen = parsed(make_parser(), sys.argv[1:] if arguments is None else arguments)
        status: int = chosen.command(chosen)
        sys.stdout.flush()
        return status
    except EdgeblockError as problem:
        for line in problem.args:
            print("edgeblock-fetch: " + printable(" ".join(str(line).splitlines())), file=sys.stderr)
        return 1 if isinstance(problem, SystemProblem) and chosen.command is run else 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        close_output()
        return PIPE_CLOSED


def make_parser() -> Parser:
    parser = Parser(prog="edgeblock-fetch", allow_abbrev=False, description="Fetches lists for edgeblock: over "
                    "HTTPS, by zone transfer, or from a signed repository.",
                    epilog="`edgeblock-fetch COMMAND --help` explains a command, with an example.")
    parser.add_argument("--version", action="version", version=f"edgeblock-fetch {edgeblock.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for (name, summary), command in zip(COMMANDS.items(), (run, once, check, status), strict=True):
        made = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                   allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                                   epilog="examples:\n" + EXAMPLES[name])
        made.set_defaults(command=command, parser=made)
        made.add_argument("--config", metavar="FILE", type=Path, default=DEFAULT_FILE,
                          help=f"the file of sources (default: {DEFAULT_FILE})")
        if name == "once":
            made.add_argument("names", metavar="NAME", nargs="*", help="a source; all where none is named")
        if name == "status":
            made.add_argument("--json", action="store_true", help="all of it as one JSON object")
    return parser


def run(chosen: argparse.Namespace) -> int:
    from edgeblock.fleet import fetch  # who only asks for the status needs none of it

    return fetch.serve(chosen.config)


def once(chosen: argparse.Namespace) -> int:
    from edgeblock.fleet import fetch

    sources = load(chosen.config)
    known = {one.name for one in sources.sources}
    if lacking := [name for name in chosen.names if name not in known]:
        raise ConfigError(f"{chosen.config}: has no source {', '.join(lacking)}; known are "
                          f"{', '.join(sorted(known)) or 'none'}")
    rows = asyncio.run(fetch.once(sources, chosen.names, fetch.Log(sys.stderr)))
    for line in table(rows, time.time()):
        print(line)
    return 1 if any(row["failures"] for row in rows) else 0


def check(chosen: argparse.Namespace) -> int:
    sources = load(chosen.config)
    for one in sources.sources:
        make(one, sources.fetch)
    if not sources.sources:
        print(f"edgeblock-fetch: warning: {chosen.config}: has no source", file=sys.stderr)
    print(f"{chosen.config}: the configuration can be used")
    return 0


def status(chosen: argparse.Namespace) -> int:
    said, age = read_status(load(chosen.config))
    rows = said["sources"]
    failing = any(row["failures"] for row in rows)
    if chosen.json:
        print(json.dumps(said))
    else:
        if age > DEAD:
            print(f"NOT RUNNING: nobody has written this for {spell(age)}")
        for line in table(rows, time.time()):
            print(line)
    return 2 if age > DEAD else 1 if failing else 0


def read_status(sources: Sources) -> tuple[dict[str, Any], float]:
    """The status file, and how many seconds old its last sign of life is. Raises SystemProblem where there is
    none."""
    path = sources.fetch.status
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            state = os.fstat(file.fileno())
            said: Any = json.loads(file.read(STATUS_MAX)) if stat.S_ISREG(state.st_mode) else None
            age = time.time() - state.st_mtime
            if not isinstance(said, dict) or not is_status(said):
                raise ValueError
    except OSError as problem:
        raise SystemProblem(f"{path}: cannot be read: {problem.strerror}; is edgeblock-fetch running? (systemctl "
                            "status edgeblock-fetch)") from None
    except (ValueError, RecursionError):
        raise SystemProblem(f"{path}: is no status of edgeblock-fetch") from None
    return said, age


def is_status(said: dict[str, Any]) -> bool:
    """Whether it has what is shown; whoever asks may be root, and whoever writes it is not."""
    rows = said.get("sources")
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(row.get(key), str) for key in WORDS)
        and all(type(row.get(key)) in (int, float) and 0 <= row[key] < NUMBER_MAX for key in NUMBERS) for row in rows)


def table(rows: list[dict[str, Any]], now: float) -> list[str]:
    """A line for each source, and one for each that fails or waits, that says why."""
    lines = [("source", "kind", "files", "bytes", "changed", "asked", "version")]
    lines += [(printable(row["name"]), printable(row["kind"]), str(row["count"]), f"{row['bytes']:,}",
               ago(row["changed"], now), ago(row["checked"], now), printable(row["version"]) or "-") for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    made = []
    for line, row in zip(lines, [None, *rows], strict=True):
        made.append("  ".join(f"{word:{width}}" for word, width in zip(line, widths, strict=True)).rstrip())
        if row is not None and row["error"]:
            word = "NOT GENUINE" if row.get("grave") else "FAILS"
            made.append(f"  {word} since {spell(max(0, now - row['since']))}, {row['failures']} times: "
                        f"{printable(row['error'])}")
        told = (row or {}).get("told", {})
        if told.get("waiting"):
            due = f", due in {spell(max(0, told['until'] - now))}" if told["until"] else ""
            made.append(f"  release {told['wanted']} waits ({told['waiting']}): {printable(told['why'])}{due}")
    return made


def ago(then: float, now: float) -> str:
    return f"{spell(max(0, now - then))} ago" if then else "never"


if __name__ == "__main__":
    sys.exit(main())
