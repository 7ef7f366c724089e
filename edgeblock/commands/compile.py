"""`edgeblock compile`: a rules directory into one snapshot file, or into a file of each list, with a table of them.

In: the [rules] settings, a directory, where the files shall be. Out: each file, whole or not at all, and a table;
while it works a progress bar, where somebody looks at a terminal. A list that is refused leaves no file: who asked
for a snapshot of all lists is not given one of some. Never here: a rule of its own; the daemon takes lists the same
way.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edgeblock import config
from edgeblock.blocklist import taking
from edgeblock.blocklist.compiler import merge
from edgeblock.blocklist.directory import COMMITMENTS, COMPILED, Finding, ListFile, find_lists
from edgeblock.blocklist.intake import Terms, make_terms
from edgeblock.blocklist.keys import Key
from edgeblock.blocklist.parts import Compiled
from edgeblock.blocklist.precompiled import Doubt, part_of
from edgeblock.blocklist.snapshot import write
from edgeblock.blocklist.store import open_file, read_key, write_file
from edgeblock.commands import add_config
from edgeblock.errors import ListError

EXAMPLES = """\
  edgeblock compile --rules /etc/edgeblock/rules --output rules.snapshot
  edgeblock check --rules rules.snapshot www.example.com
  edgeblock compile --rules lists --parts lists && minisign -S -m lists/*.compiled
With --parts each list is a file of its own, NAME.compiled, which boxes with the same key take instead of reading it
(docs/compiled.md). The key is that of the configuration; it is made where there is none. Lists are taken or refused
as the daemon would.
Exit status: 0; 2 if a list is refused or something cannot be read or written, and then no file is made."""

WIDTH = 160             # columns where no terminal says how many it has


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--rules", metavar="DIR", help="the lists (default: those of the configuration)")
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--output", metavar="FILE", help="the snapshot of all lists")
    made.add_argument("--parts", metavar="DIR", help="where NAME.compiled of each list is written")
    parser.add_argument("--key", metavar="FILE", help="the key (default: that of the configuration)")


def main(chosen: argparse.Namespace) -> int:
    whole = config.load(chosen.config)
    settings = replace(whole.rules, directory=Path(chosen.rules or whole.rules.directory),
                       key=Path(chosen.key or whole.rules.key))
    if chosen.parts is not None:
        return run_parts(settings, Path(chosen.parts), whole.ledger.enabled, sys.stdout, sys.stderr,
                         bool(whole.reply.redirect))
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
    taken = compile_all(rules, terms, now, output, err, redirects)
    if taken is None:
        return 2
    parts = [made for _, made in taken]
    merged = merge(parts, rules.nat64)
    digests: list[str] = []
    try:
        write_file(output, lambda file: digests.append(write(file, merged, key, int(now))))
    except OSError as error:
        raise ListError(f"{output}: cannot be written: {error.strerror}") from None
    if open_file(output, key).digest != digests[0]:
        raise ListError(f"{output}: is not what was written; is the disk sound?")
    console = Console(file=out, highlight=False, width=None if out.isatty() else WIDTH)
    show(parts, console)
    console.print(summary(parts, output, output.stat().st_size, time.perf_counter() - began)
                  + f", digest {digests[0][:16]}", soft_wrap=True)
    return 0


def run_parts(rules: config.Rules, folder: Path, commits: bool, out: TextIO, err: TextIO,
              redirects: bool = True) -> int:
    """The same into NAME.compiled of each list in `folder`; with `commits` also what proves their entries, as
    NAME.commitments. A list of which there can be none is named, and is no fault.

    Raises:
        ListError: the directory cannot be read, or a file not be written.
    """
    began = time.perf_counter()
    now = time.time()
    key = read_key(rules.key, create=True)
    terms = make_terms(rules, key, commits)
    taken = compile_all(rules, terms, now, folder, err, redirects)
    if taken is None:
        return 2
    parts, size = [], 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, made in taken:
            path = folder / f"{source.name}{COMPILED}"
            try:
                part = part_of(made, source, terms)
            except Doubt as why:
                print(Finding(source.path.name, 0, f"is left to each box: {why}").marked("note: "), file=err)
                continue
            write_file(path, partial(write_part, part, key, int(now)), mode=0o640)
            if commits:
                write_file(folder / f"{source.name}{COMMITMENTS}", partial(write_bytes, made.commitments), mode=0o640)
            parts.append(made)
            size += path.stat().st_size
    except OSError as error:
        raise ListError(f"{folder}: cannot be written: {error.strerror}") from None
    console = Console(file=out, highlight=False, width=None if out.isatty() else WIDTH)
    show(parts, console)
    console.print(summary(parts, folder, size, time.perf_counter() - began)
                  + f"; now sign each: minisign -S -m {folder}/*{COMPILED}", soft_wrap=True)
    return 0


def write_part(part: Compiled, key: Key, now: int, file: BinaryIO) -> None:
    write(file, part, key, now)


def write_bytes(data: bytes | memoryview, file: BinaryIO) -> None:
    file.write(data)


def compile_all(rules: config.Rules, terms: Terms, now: float, output: Path, err: TextIO,
                redirects: bool) -> list[tuple[ListFile, Compiled]] | None:
    """All lists, or None where one is refused, and all that is wrong is said."""
    files, errors, warnings = find_lists(rules.directory, terms.defaults, redirects=redirects)
    taken, refused = take_all(files, terms, now, Console(file=err))
    for mark, findings in (("error: ", [*errors, *refused]), ("warning: ", warnings)):
        for finding in findings:
            print(finding.marked(mark), file=err)
    if count := len(errors) + len({finding.file for finding in refused}):
        print(f"edgeblock: {rules.directory}: {count} of {len(files) + len(errors)} lists refused; {output} is not "
              "written", file=err)
        return None
    return taken


def take_all(files: list[ListFile], terms: Terms, now: float,
             console: Console) -> tuple[list[tuple[ListFile, Compiled]], list[Finding]]:
    """As `taking.take_all`, with a bar."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
                   console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=sum(source.state.st_size for source in files if source.state))

        def tell(name: str, size: int) -> None:
            bar.update(task, description=escape(name), advance=size)

        return taking.take_all(files, terms, now, tell)


def show(parts: list[Compiled], console: Console) -> None:
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


def summary(parts: list[Compiled], output: Path, size: int, seconds: float) -> str:
    entries = sum(part.lists[0].entries for part in parts if not part.lists[0].expired)
    each = f", {size / entries:.1f} an entry" if entries else ""
    return f"{output}: {entries:,} entries, {size:,} bytes{each}, {seconds:.1f} s"
