"""`edgeblock guard`: the networks that many sites share, shown, and renewed from what their owners publish.

In: the configuration; files that the operator has fetched. Out: a table, or the operator's own file of shared
networks written anew, whole or not at all. Never here: the network; what a file may look like (published.py).
"""

import argparse
import os
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist.published import Published, Updated, counted, read_day, read_published, renew, sections_of
from edgeblock.blocklist.shared import (
    BYTES_MAX,
    NOTHING,
    TEXT_MAX,
    Section,
    Shared,
    in_force,
    old_data,
    read_shared,
    write_shared,
)
from edgeblock.blocklist.store import write_file
from edgeblock.commands import add_config
from edgeblock.errors import ConfigError, ListError

EXAMPLES = """\
  edgeblock guard
  edgeblock guard --update ips-v4 ips-v6
  edgeblock guard --update ip-ranges.json --output /etc/edgeblock/shared.networks
  edgeblock guard --update prefixes.txt --name "Our mirror" --kind updates --source https://mirror.example/ranges
Without --update each owner is shown, with where he publishes. A file is recognised by its name there, or is --name's.
What is written stands in [rules] shared of the configuration, over what edgeblock ships; the daemon takes it with the
next reload.
Exit status: 0 if it was written, 2 if a file cannot be used; then nothing is changed."""

HEAD = """\
# Networks that many sites share, over those that edgeblock ships: a section here stands in place of theirs with the
# same name. Written by `edgeblock guard --update`; docs/guard-rails.md explains it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--update", metavar="FILE", nargs="+", help="take what an owner publishes, as it came")
    parser.add_argument("--name", metavar="OWNER", help="whose networks these are (default: by the files' names)")
    parser.add_argument("--kind", metavar="TEXT", help="what is there, of a new owner, such as \"delivery network\"")
    parser.add_argument("--source", metavar="TEXT", help="where that is published, of a new owner")
    parser.add_argument("--date", metavar="DAY", help="as of when (default: as the file says, or its own date)")
    parser.add_argument("--fewer", action="store_true", help="take less than half as many networks as were known")
    parser.add_argument("--output", metavar="FILE", help="what is written (default: [rules] shared)")


def main(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config).rules
    refuse_idle(chosen)
    if not chosen.update:
        return show(in_force(settings.shared))
    if not (chosen.output or settings.shared):
        raise ConfigError("[rules] shared names no file to write; set it, or give --output FILE")
    output = Path(chosen.output or str(settings.shared)).absolute()     # as it has to stand in the configuration
    key = "--output" if chosen.output else "[rules] shared"
    own = read_shared(str(output), key)[0] if output.exists() else NOTHING
    updated = update(in_force(None).joined(own), chosen)
    made = own.joined(Shared(tuple(one.section for one in updated)))
    text = write_shared(made, HEAD).encode()
    try:
        write_file(output, lambda file: file.write(text), mode=0o644)
    except OSError as error:
        raise ListError(f"{output}: cannot be written: {error.strerror}") from None
    for section, before in updated:
        was = f", before {len(before.rows)} as of {before.date}" if before else ""
        print(f"{section.name}: {counted(section.rows)} as of {section.date}{was}")
    place = "" if settings.shared and output == settings.shared.absolute() else \
        f"; put shared = \"{output}\" into [rules] of the configuration, then"
    print(f"written to {output}{place or ';'} reload the daemon (systemctl reload edgeblock)")
    return 0


def refuse_idle(chosen: argparse.Namespace) -> None:
    """Raises ConfigError for an option that would do nothing."""
    def given(*names: str) -> str:
        return ", ".join(f"--{name}" for name in names if getattr(chosen, name))

    if not chosen.update and (idle := given("name", "kind", "source", "date", "fewer", "output")):
        raise ConfigError(f"{idle}: only with --update FILE, which says what to write; without it networks are shown")
    if chosen.name is None and (idle := given("kind", "source")):
        raise ConfigError(f"{idle}: only with --name OWNER, whose networks these are")


def show(shared: Shared) -> int:
    for section in shared.sections:
        narrow = ", narrow entries may lie there" if section.widest else ""
        files = f" ({', '.join(section.files)})" if section.files else ""
        print(f"{section.name}: {section.kind}, {counted(section.rows)} as of {section.date}{narrow}; "
              f"{section.source}{files}")
    if old := old_data(shared, time.time()):
        print(f"warning: {old}")
    return 0


def update(shared: Shared, chosen: argparse.Namespace) -> list[Updated]:
    """What changes. Raises ListError where a file cannot be used."""
    read = {path: read_file(path, chosen.date) for path in chosen.update}
    for option in ("name", "kind", "source"):
        if (said := getattr(chosen, option)) is not None and not (said.isprintable() and 0 < len(said) <= TEXT_MAX):
            raise ConfigError(f"--{option}: is no text of at most {TEXT_MAX} characters in one line")
    if chosen.name is None:
        before = sections_of(shared, read)
    else:
        known = [section for section in shared.sections if section.name == chosen.name]
        if not known and not (chosen.kind and chosen.source):
            raise ListError(f"--name {chosen.name}: is no owner that is known (`edgeblock guard` shows them); "
                            "to add one, say what it does and where it publishes, with --kind and --source")
        before = known or [Section(chosen.name, chosen.kind, chosen.source, date.min)]
        before = [replace(section, kind=chosen.kind or section.kind, source=chosen.source or section.source)
                  for section in before]
    return renew(shared, before, read, datetime.now(UTC).date(), named=chosen.name is not None, fewer=chosen.fewer)


def read_file(path: str, stated: str | None) -> Published:
    """What it says, as of the day that is stated, or that it names, or when it was written."""
    try:
        with open(path, "rb") as file:
            text = file.read(4 * BYTES_MAX + 1)
            written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC).date()
    except OSError as error:
        raise ListError(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > 4 * BYTES_MAX:
        raise ListError(f"{path}: is longer than {4 * BYTES_MAX} bytes; give the file that the owner publishes")
    published = read_published(text, path)
    return published._replace(day=read_day(stated, "--date") if stated else published.day or written)
