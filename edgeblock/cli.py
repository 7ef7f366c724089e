"""The `edgeblock` command: arguments in, one exit status out.

Each command is one function of its own; what it needs is imported when it runs, so that `edgeblock version` is quick.
An EdgeblockError is one line on standard error and status 2. Never here: work. Every function calls one other part.
"""

import argparse
import dataclasses
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

import edgeblock
from edgeblock import config
from edgeblock.errors import ConfigError, EdgeblockError, SystemProblem, printable

INTERRUPTED = 130       # what a shell says of a program that Ctrl-C ended
CANARY_SECONDS = 20.0   # that a round of probes may take: two, where one is under way already
PIPE_CLOSED = 141       # and of one whose reader had gone
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)     # of a file that output was sent to


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


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
        chosen = make_parser().parse_args(arguments)
        try:
            status = chosen.command(chosen)
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
        if problem.errno not in FULL or problem.filename is not None:
            raise
        close_output()
        print(f"edgeblock: standard output: cannot be written: {problem.strerror}", file=sys.stderr)
        return 2


def complain(problem: EdgeblockError) -> None:
    print("edgeblock: " + printable(" ".join(str(problem).splitlines())), file=sys.stderr)


def close_output() -> None:
    """Keeps the interpreter from complaining once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> Parser:
    parser = Parser(prog="edgeblock", allow_abbrev=False, description="An inline blocklist filter for Linux NFQUEUE.",
                    epilog="`edgeblock COMMAND --help` explains a command, with an example.")
    parser.add_argument("--version", action="version", version=f"edgeblock {edgeblock.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(does: Callable[[argparse.Namespace], int], name: str, summary: str, examples: str,
                configured: bool = True) -> Parser:
        made = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".",
                                   epilog="examples:\n" + examples, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
        made.set_defaults(command=does)
        if configured:
            made.add_argument("--config", metavar="FILE",
                              help=f"the configuration (default: {config.DEFAULT_FILE} where there is one)")
        return made

    made = command(run, "run", "filter live traffic until stopped", """\
  edgeblock run --config /etc/edgeblock/edgeblock.toml
  edgeblock run --check --config /etc/edgeblock/edgeblock.toml.new
Exit status: 0 after SIGTERM or Ctrl-C; 1 if this machine does not let it run, now; 2 if the configuration is wrong.
SIGHUP loads the lists anew. The log goes to standard output.""")
    made.add_argument("--check", action="store_true", help="only say whether the configuration can be used")

    made = command(replay, "replay", "judge the packets of a capture as the daemon would", """\
  edgeblock replay morning.pcap --rules /etc/edgeblock/rules
  edgeblock replay morning.pcapng.gz --rules rules --json > verdicts.jsonl
  edgeblock replay morning.pcapng.gz --rules rules --expect verdicts.jsonl
  ssh box tcpdump -i eth0 -s 0 -w - | edgeblock replay - --rules rules --checksums verify
Exit status: 0; 1 if --expect finds a difference; 2 if the capture or the rules cannot be read.""")
    made.add_argument("capture", metavar="CAPTURE",
                      help="a pcap or pcapng file, also compressed with gzip; - is standard input")
    made.add_argument("--rules", metavar="DIR",
                      help="the lists, or a snapshot of them (default: those of the configuration)")
    made.add_argument("--json", action="store_true", help="one JSON object a line, for each name observed")
    made.add_argument("--write", metavar="OUT", help="save what would have left the box, answers included")
    made.add_argument("--expect", metavar="FILE", help="compare with the saved output of --json")
    made.add_argument("--checksums", choices=("auto", "verify", "ignore"), default="auto",
                      help="which wrong checksums make a packet junk: auto spares what hardware would have filled in")

    made = command(check, "check", "say whether names would be blocked, by which list and why", """\
  edgeblock check www.example.com
  edgeblock check --rules rules --json http://example.com/a/b '[2001:db8::1]:443'
  edgeblock check --live www.example.com
  edgeblock check --rules rules --from names.txt
  edgeblock check - < names.txt
  edgeblock check --rule 9f3c21aa
With --rule, the id that log, page and replay show leads back to list, file and line; run it with the box's key.
With --live the running daemon answers from the rules that are in force, which have no line numbers.
Exit status: 0 if all are allowed, 1 if something is blocked, 2 if a name or the rules cannot be used.""")
    made.add_argument("names", metavar="NAME_OR_URL", nargs="*",
                      help="a host, a URL or an address; - takes them from standard input, one a line")
    made.add_argument("--from", dest="file", metavar="FILE", help="more of them, one a line")
    either = made.add_mutually_exclusive_group()
    either.add_argument("--rules", metavar="DIR",
                        help="the lists, or a snapshot of them (default: those of the configuration)")
    either.add_argument("--live", action="store_true", help="ask the running daemon")
    made.add_argument("--rule", metavar="ID", help="say which entry has this rule id")
    made.add_argument("--json", action="store_true", help="one JSON object a line, for each name")

    made = command(lint, "lint", "find everything wrong with a directory of lists", """\
  edgeblock lint /etc/edgeblock/rules
  edgeblock lint --all /etc/edgeblock/rules
Errors refuse a list; warnings are what looks like a mistake; notes are worth knowing. Where a list has many findings
of one sort, the first is told, with their number and where the first of them stand.
Exit status: 0 without errors and warnings, 1 with some, 2 if the directory cannot be read.""")
    made.add_argument("directory", metavar="DIR")
    made.add_argument("--all", action="store_true", help="every finding, line by line")

    made = command(compile_rules, "compile", "make one snapshot file of a directory of lists", """\
  edgeblock compile --rules /etc/edgeblock/rules --output rules.snapshot
  edgeblock check --rules rules.snapshot www.example.com
The key is that of the configuration; it is made where there is none. Lists are taken or refused as the daemon would.
Exit status: 0; 2 if a list is refused or something cannot be read or written, and then no file is made.""")
    made.add_argument("--rules", metavar="DIR", help="the lists (default: those of the configuration)")
    made.add_argument("--output", metavar="FILE", required=True, help="the snapshot")
    made.add_argument("--key", metavar="FILE", help="the key (default: that of the configuration)")

    made = command(hash_list, "hash-list", "make a list without plain text of one, for boxes with the same key", """\
  edgeblock hash-list court.list court.hashed --key /etc/edgeblock/court.key
  edgeblock hash-list export.csv court.hashed --format csv
A box reads court.hashed when [rules] key is a copy of this key. A list that breaks a guard rail is not written.
Exit status: 0 if it was written, 1 if not, 2 if the list or the key cannot be read.""")
    made.add_argument("list", metavar="IN", help="the list; its settings are in NAME.toml beside it")
    made.add_argument("out", metavar="OUT", help="the hashed list, such as court.hashed")
    made.add_argument("--key", metavar="FILE", help="16 bytes, made where there is none (default: [rules] key)")
    made.add_argument("--format", metavar="FORMAT", help="how IN is written (default: what its settings or name say)")

    made = command(ruleset, "ruleset", "show, apply or remove the kernel rules that queue packets", """\
  edgeblock ruleset print --backend nft
  edgeblock ruleset apply
  edgeblock ruleset remove
`edgeblock run` applies and removes them by itself unless the configuration says install = false.""")
    made.add_argument("action", choices=("print", "apply", "remove"),
                      help="remove takes away those of both back ends")
    made.add_argument("--backend", choices=("nft", "iptables"), help="instead of the configuration's")

    made = command(status, "status", "show what the running daemon has counted", """\
  edgeblock status
  edgeblock status --json | jq .vigil
Exit status: 0 while the box filters, 1 while it does not, 2 if no daemon answers.""")
    made.add_argument("--json", action="store_true", help="one JSON object")

    made = command(canary, "canary", "have the running daemon ask its own box for a listed name, now", """\
  edgeblock canary
  edgeblock canary --quiet && birdc enable upstream
Exit status: 0 if a listed name is blocked and another passes, 1 if not, 2 if no daemon answers.""")
    made.add_argument("--quiet", action="store_true", help="print nothing, for other programs' checks")

    command(top, "top", "watch the running daemon: rates, queues, verdicts, latency, workers", """\
  edgeblock top
Ends with Ctrl-C. Where standard output is no terminal it prints one picture.""")

    command(doctor, "doctor", "say what this machine has and lacks, and how to fix it", """\
  edgeblock doctor
Exit status: 0 if edgeblock can run here, 1 if something is missing.""")

    command(demo, "demo", "filter between a client and a server in namespaces of their own, and show it", """\
  sudo edgeblock demo
Exit status: 0 if every line is as expected.""", configured=False)

    command(version, "version", "print the version", "  edgeblock version", configured=False)
    return parser


def run(chosen: argparse.Namespace) -> int:
    if chosen.check:
        return check_configuration(chosen.config)
    from edgeblock.daemon.notify import kept_files

    kept = kept_files()     # first, so that no mistake in the settings leaves packets to wait for nobody
    settings = config.load(chosen.config)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)    # the lists are loaded soon anyway
    from edgeblock.daemon import supervisor

    try:
        return supervisor.run(settings, kept=kept)
    except SystemProblem as problem:
        complain(problem)
        return 1        # systemd tries again, as it must not after a mistake in the configuration


def check_configuration(path: str | None) -> int:
    settings = config.load(path)
    from edgeblock.daemon import checks

    for warning in checks.check(settings):
        print(f"edgeblock: warning: {warning}", file=sys.stderr)
    where = path or (config.DEFAULT_FILE if config.DEFAULT_FILE.exists() else "the defaults")
    print(f"{where}: the configuration can be used")
    return 0


def replay(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    from edgeblock.replay import run

    return run(chosen.capture, chosen.rules or settings.rules.directory, json_output=chosen.json,
               write=chosen.write, expect=chosen.expect, checksums=chosen.checksums, config=settings,
               out=sys.stdout, err=sys.stderr)


def asked_names(chosen: argparse.Namespace) -> list[str]:
    """Those of the command line, of standard input for "-", and of --from: there one a line, # begins a comment."""
    def lines(text: TextIO) -> list[str]:
        text.reconfigure(errors="surrogateescape")      # type: ignore[attr-defined]
        return [line.strip() for line in text if line.strip() and not line.startswith("#")]

    names: list[str] = []
    for name in chosen.names:
        names += lines(sys.stdin) if name == "-" else [name]
    if chosen.file:
        try:
            with open(chosen.file, encoding="utf-8") as file:
                names += lines(file)
        except OSError as problem:
            raise ConfigError(f"--from {chosen.file}: cannot be read: {problem.strerror}") from None
    if not names:
        raise ConfigError("no name to check; give one, or --from FILE, or - for standard input; see check --help")
    return names


def check(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    settings = whole.rules
    from edgeblock.blocklist import rules

    if chosen.rule is not None:
        return check_rule(chosen, settings)
    names = asked_names(chosen)
    if chosen.live:
        records = [rules.record_of(ask_daemon(whole, f"check {json.dumps(name)}")) for name in names]
    else:
        loaded = rules.load(chosen.rules or settings.directory, settings, key=key_of_box(settings), tolerant=True)
        for warning in loaded.warnings:
            print(f"edgeblock: warning: {warning}", file=sys.stderr)
        records = rules.explain(loaded, names)
    for record in records:
        if chosen.json:
            print(json.dumps(record.as_dict()))
        elif record.canonical is not None:
            print(record.as_text())
        else:
            print(f"edgeblock: {record.as_text()}", file=sys.stderr)
    if any(record.canonical is None for record in records):
        return 2
    return 1 if any(record.blocked for record in records) else 0


def check_rule(chosen: argparse.Namespace, settings: config.Rules) -> int:
    from edgeblock.blocklist import rules

    if chosen.live or chosen.names or chosen.file:
        raise ConfigError("--rule ID looks into the lists by itself: leave out --live and names")
    if not re.fullmatch(r"[0-9a-fA-F]{8}", chosen.rule):
        raise ConfigError(f"--rule {chosen.rule}: a rule id is eight hex digits, such as 9f3c21aa")
    key = key_of_box(settings)
    directory = chosen.rules or settings.directory
    found = rules.find_rule(rules.load(directory, settings, key=key, tolerant=True), chosen.rule)
    for place in found:
        print(json.dumps(place._asdict()) if chosen.json else place.as_text())
    if not found:
        why = ("the list may have changed since" if key else
               f"without the box's key, {settings.key}, ids differ: run this as root on the box")
        print(f"edgeblock: {directory}: no entry has the rule id {chosen.rule}; {why}", file=sys.stderr)
    return 0 if found else 1


def ask_daemon(settings: config.Config, question: str, **more: float) -> Any:
    """What the running daemon answers; its complaint is an error. `more` as for control.ask."""
    from edgeblock.daemon import control
    from edgeblock.errors import SystemProblem

    answer = control.ask(settings.daemon.control, question, **more)
    if "error" in answer:
        raise SystemProblem(f"the running daemon says: {answer['error']}")
    return answer


def lint(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config).rules
    from edgeblock.blocklist import lint

    report = lint.lint(chosen.directory, settings, key=key_of_box(settings), everything=chosen.all)
    for finding in report.findings if chosen.all else lint.grouped(report.findings):
        print(finding)
    for note in report.notes if chosen.all else lint.grouped(report.notes):
        print(f"note: {note}")
    print(report.summary(), file=sys.stderr)
    return 1 if report.findings else 0


def key_of_box(settings: config.Rules) -> bytes | memoryview | None:
    """The key for hashed lists; None where there is none or it may not be read."""
    from edgeblock.blocklist.store import read_key

    try:
        return read_key(settings.key)
    except EdgeblockError:
        return None


def hash_list(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config).rules
    from edgeblock.blocklist.hashing import hash_file

    made = hash_file(chosen.list, chosen.out, settings, chosen.key, chosen.format)
    for finding in made.findings:
        print(finding, file=sys.stderr)
    if made.refused:
        print(f"edgeblock: {chosen.out}: not written; mend the list, or its settings", file=sys.stderr)
        return 1
    print(made.summary())
    return 0


def compile_rules(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config).rules
    from edgeblock import compile

    settings = dataclasses.replace(settings, directory=Path(chosen.rules or settings.directory),
                                   key=Path(chosen.key or settings.key))
    return compile.run(settings, Path(chosen.output), sys.stdout, sys.stderr)


def ruleset(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    from edgeblock.netfilter import ruleset

    if chosen.backend:
        chosen_backend = dataclasses.replace(settings.ruleset, backend=chosen.backend)
        settings = dataclasses.replace(settings, ruleset=chosen_backend)
    if chosen.action == "print":
        sys.stdout.write(ruleset.text(settings))
    elif chosen.action == "apply":
        print(f"applied, with {ruleset.apply(settings)}")
    else:
        ruleset.remove()
    return 0


def status(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    from edgeblock.daemon import control

    answer = control.ask(settings.daemon.control, "status")
    filtering = answer.get("vigil", {}).get("filtering", True)
    if chosen.json:
        print(json.dumps(answer))
    else:
        if "vigil" in answer:
            print("filtering" if filtering else "NOT FILTERING: " + "; ".join(answer["vigil"]["causes"]))
        lines = list(flat(answer))
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print(f"{name:{width}}  {value}")
    return 0 if filtering else 1


def canary(chosen: argparse.Namespace) -> int:
    answer = ask_daemon(config.load(chosen.config), "canary", patience=CANARY_SECONDS)
    if not chosen.quiet:
        for one in answer["probes"]:
            print(f"{one['family']} {one['protocol']:5} {'ok' if not one['wrong'] else 'FAILED: ' + one['wrong']}")
        for family, why in answer["lacking"].items():
            print(f"{family} not asked: {why}")
        if answer["off"] or answer["state"] == "waiting":
            print(f"not asked: {answer['off'] or 'no round is over yet'}")
    return 0 if answer["state"] == "ok" else 1


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as lines: names joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value, 1):
            yield from flat(inner, f"{name}.{number}")
    else:
        yield name, value


def top(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    from edgeblock.daemon import top

    return top.run(settings.daemon.control)


def doctor(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    from edgeblock.doctor import examine, report

    return report(examine(settings), sys.stdout)


def demo(_chosen: argparse.Namespace) -> int:
    from edgeblock import demo

    return demo.run()


def version(_chosen: argparse.Namespace) -> int:
    print(f"edgeblock {edgeblock.__version__}")
    return 0
