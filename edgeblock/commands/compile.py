"""`edgeblock compile`: a rules directory into one snapshot file, with a table of what is in it.

In: the [rules] settings, a directory, where the file shall be. Out: the file, whole or not at all, and a table; while
it works a progress bar, where somebody looks at a terminal. A list that is refused leaves no file: who asked for a
snapshot of all lists is not given one of some. Never here: a rule of its own; the daemon takes lists the same way.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgeblock import config
from edgeblock.blocklist import taking
from edgeblock.blocklist.compiler import merge
from edgeblock.blocklist.directory import Finding, ListFile, find_lists
from edgeblock.blocklist.intake import Terms, make_terms
from edgeblock.blocklist.parts import Compiled
from edgeblock.blocklist.snapshot import write
from edgeblock.blocklist.store import open_file, read_key, write_file
from edgeblock.commands import add_config
from edgeblock.errors import ListError

EXAMPLES = """\
  edgeblock compile --rules /etc/edgeblock/rules --output rules.snapshot
  edgeblock check --rules rules.snapshot www.example.com
The key is that of the configuration; it is made where there is none. Lists are taken or refused as the daemon would.
Exit status: 0; 2 if a list is refused or something cannot be read or written, and then no file is made."""

WIDTH = 160             # columns where no terminal says how many it has


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--rules", metavar="DIR", help="the lists (default: those of the configuration)")
    parser.add_argument("--output", metavar="FILE", required=True, help="the snapshot")
    parser.add_argument("--key", metavar="FILE", help="the key (default: that of the configuration)")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    settings = replace(whole.rules, directory=Path(chosen.rules or whole.rules.directory),
                       key=Path(chosen.key or whole.rules.key))
    return run(settings, Path(chosen.output), sys.stdout, sys.stderr, bool(whole.reply.redirect))


def run(rules: config.Rules, output: Path, out: TextIO, err: TextIO, redirects: bool = True) -> int:
    """Compiles `rules.directory` into `output`; the exit status: 0, or 2 where a list is refused. `redirects` as
    `find_lists` has it.

    Raises:
        ListError: the directory cannot be read, or the file not be written.
    """
    began = time.perf_counter()
    now = time.time()
    key = read_key(rules.key, create=True)
    terms = make_terms(rules, key)
    files, errors, warnings = find_lists(rules.directory, terms.defaults, redirects=redirects)
    parts, refused = take_all(files, terms, now, Console(file=err))
    for mark, findings in (("error: ", [*errors, *refused]), ("warning: ", warnings)):
        for finding in findings:
            print(finding.marked(mark), file=err)
    if count := len(errors) + len({finding.file for finding in refused}):
        print(f"edgeblock: {rules.directory}: {count} of {len(files) + len(errors)} lists refused; {output} is not "
              "written", file=err)
        return 2
    merged = merge(parts, rules.nat64)
    digests: list[str] = []
    try:
        write_file(output, lambda file: digests.append(write(file, merged, key, int(now))))
    except OSError as error:
        raise ListError(f"{output}: cannot be written: {error.strerror}") from None
    if open_file(output, key).digest != digests[0]:
        raise ListError(f"{output}: is not what was written; is the disk sound?")
    console = Console(file=out, highlight=False, width=None if out.isatty() else WIDTH)
    show(parts, output, time.perf_counter() - began, digests[0], console)
    return 0


def take_all(files: list[ListFile], terms: Terms, now: float,
             console: Console) -> tuple[list[Compiled], list[Finding]]:
    """As `taking.take_all`, with a bar."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
                   console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=sum(source.state.st_size for source in files if source.state))

        def tell(name: str, size: int) -> None:
            bar.update(task, description=escape(name), advance=size)

        return taking.take_all(files, terms, now, tell)


def show(parts: list[Compiled], output: Path, seconds: float, digest: str, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("list", "file", "action"):
        table.add_column(head)
    for head in ("entries", "duplicates", "left out", "bytes"):
        table.add_column(head, justify="right")
    for part in parts:
        [record] = part.lists
        size = sum(memoryview(section).nbytes for section in (part.rows, part.bitmap, part.ipv4))  # type: ignore
        table.add_row(escape(record.name), escape(record.file), "expired" if record.expired else record.action,
                      f"{record.entries:,}", f"{record.duplicates:,}", f"{record.unusable:,}", f"{size:,}")
    console.print(table)
    entries = sum(part.lists[0].entries for part in parts if not part.lists[0].expired)
    size = output.stat().st_size
    each = f", {size / entries:.1f} an entry" if entries else ""
    console.print(f"{output}: {entries:,} entries, {size:,} bytes{each}, {seconds:.1f} s, digest {digest[:16]}",
                  soft_wrap=True)
