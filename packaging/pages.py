"""Makes what a package has besides the programs: edgeblock(8), edgeblock-fetch(8), edgeblock.toml(5),
edgeblock.sources(5), edgeblock.lists(5), completions.

In: the arguments as the two cli.py declare them, the settings as edgeblock.toml and sources.toml explain them,
docs/lists.md. Out: files
below a folder. Nothing is said here that is not said there.

    packaging/pages.py FOLDER
"""

import argparse
import re
import sys
from functools import partial
from pathlib import Path

import edgeblock

# Beside this file: it is run as a program, from a checkout.
sys.path.insert(0, str(Path(__file__).parent))
from completions import PROGRAMS, arguments, bash, commands, fish, zsh
from markdown import escaped, to_roff

FILES = (
    ("/etc/edgeblock/edgeblock.toml", "the configuration, see edgeblock.toml(5)"),
    ("/etc/edgeblock/rules", "the lists"),
    ("/run/edgeblock/control.sock", "where edgeblock status asks"),
    ("/var/lib/edgeblock", "what the daemon keeps: the key of its fingerprints, and the last good lists"),
    ("/var/lib/edgeblock-ledger", "the record of what was in force, the key that signs it, and the counts"),
)
FETCH_FILES = (
    ("/etc/edgeblock/sources.toml", "where lists come from, see edgeblock.sources(5)"),
    ("/etc/edgeblock/rules", "where they land"),
    ("/run/edgeblock-fetch/status.json", "how the sources are"),
    ("/var/lib/edgeblock-fetch", "what is known of each source"),
)
FETCH_SIGNALS = (
    ("SIGHUP", "edgeblock-fetch run reads the file of sources again"),
    ("SIGTERM, SIGINT", "it ends; what has landed stays"),
)
SIGNALS = (
    ("SIGHUP", "the daemon loads the lists anew"),
    ("SIGTERM, SIGINT", "it takes its kernel rules away, answers what is queued, and ends"),
    ("SIGUSR2", "the SIGTERM that follows is the first half of a restart: the kernel rules stay"),
)


def head(name: str, section: int, summary: str) -> list[str]:
    return [f'.TH {name.upper()} {section} "" "edgeblock {edgeblock.__version__}" "edgeblock"', ".SH NAME",
            f"{escaped(name)} \\- {escaped(summary)}"]


def usage(action: argparse.Action) -> str:
    """An argument as it is typed."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    words = "|".join(action.option_strings)
    if action.nargs != 0:
        words = f"{words} {value}".strip() + (" ..." if action.nargs in ("+", "*") else "")
    return f"[{words}]" if action.option_strings and not action.required or action.nargs == "*" else words


FILTER = ("an inline blocklist filter for Linux NFQUEUE",
          "It reads the name that a connection asks for (TLS, QUIC, HTTP), looks it up in the operator's lists, and "
          "lets the connection pass or drops, resets, redirects it or answers with a page.", FILES, SIGNALS,
          (".BR edgeblock.toml (5),", ".BR edgeblock.lists (5),", ".BR edgeblock-fetch (8),", ".BR nft (8),",
           ".BR iptables (8)"))
FETCH = ("fetches lists for edgeblock",
         "Each source is asked at its own times, and what it has lands in the rules directory of edgeblock, whole or "
         "not at all. What a source has brought stays while it fails.", FETCH_FILES, FETCH_SIGNALS,
         (".BR edgeblock (8),", ".BR edgeblock.sources (5),", ".BR edgeblock.lists (5)"))


def manual(program: str = "edgeblock") -> str:
    """edgeblock(8), or edgeblock-fetch(8)."""
    summary, text, files, signals, more = FILTER if program == "edgeblock" else FETCH
    lines = [*head(program, 8, summary), ".SH SYNOPSIS"]
    every = list(commands(program))
    for name, _, parser in every:
        lines += [f".B {escaped(program)} {name}", *(escaped(usage(one)) for one in arguments(parser)), ".br"]
    lines += [".SH DESCRIPTION", escaped(PROGRAMS[program]().description or ""), escaped(text), ".SH COMMANDS"]
    for name, what, parser in every:
        lines += [f".SS {name}", escaped(what[0].upper() + what[1:] + ".")]
        for one in arguments(parser):
            lines += [".TP", f"\\fB{escaped(usage(one).strip('[]'))}\\fR", escaped(one.help or "")]
        lines += [".PP", ".nf", escaped((parser.epilog or "").strip("\n")), ".fi"]
    for title, table in (("FILES", files), ("SIGNALS", signals)):
        lines += [f".SH {title}"]
        for word, what in table:
            lines += [".TP", f"\\fB{escaped(word)}\\fR", escaped(what)]
    lines += [".SH EXIT STATUS",
              escaped("0, or as said above; 2 after a mistake, which one line on standard error names."),
              ".SH SEE ALSO", *more,
              ".PP", escaped("The guides are in /usr/share/doc/edgeblock.")]
    return "\n".join(lines) + "\n"


def settings(file: str = "edgeblock.toml", page: str = "edgeblock.toml",
             summary: str = "the configuration of edgeblock", program: str = "edgeblock") -> str:
    """edgeblock.toml(5), or edgeblock.sources(5), from the comments of the file itself."""
    text = (Path(edgeblock.__file__).parent / file).read_text()
    lines = [*head(page, 5, summary), ".SH DESCRIPTION"]
    said: list[str] = []
    keys: list[str] = []

    def flush() -> None:
        # What stands above several keys is about all of them.
        tags = [part for number, key in enumerate(keys) for part in (".TQ" if number else ".TP", key)]
        lines.extend([*tags, *paragraph(said, "")] if keys else paragraph(said))
        said.clear()
        keys.clear()

    for line in text.splitlines():
        if found := re.fullmatch(r"#?(\[+\w+\]+)", line):
            flush()
            lines.append(f".SH {found[1]}")
        elif found := re.fullmatch(r"#?([a-z_0-9]+) = (.*)", line):
            keys.append(f"\\fB{escaped(f'{found[1]} = {found[2]}')}\\fR")
        elif line.startswith("#"):
            if keys:
                flush()
            said.append(line.lstrip("# "))
        elif not keys:
            flush()
    flush()
    return "\n".join([*lines, ".SH SEE ALSO", f".BR {escaped(program)} (8),", ".BR edgeblock.lists (5)"]) + "\n"


def sources() -> str:
    """edgeblock.sources(5)."""
    return settings("sources.toml", "edgeblock.sources", "where edgeblock-fetch has lists from", "edgeblock-fetch")


def paragraph(said: list[str], begin: str = ".PP") -> list[str]:
    return [*([begin] if begin else []), escaped(" ".join(said))] if said else []


def lists() -> str:
    """edgeblock.lists(5), which is docs/lists.md."""
    text = (Path(__file__).parent.parent / "docs" / "lists.md").read_text()
    return "\n".join([*head("edgeblock.lists", 5, "lists of what edgeblock blocks, and their settings"),
                      ".SH DESCRIPTION", *to_roff(text), ".SH SEE ALSO",
                      ".BR edgeblock (8),", ".BR edgeblock.toml (5)"]) + "\n"


FILES_MADE = {
    "share/man/man8/edgeblock.8": manual,
    "share/man/man5/edgeblock.toml.5": settings,
    "share/man/man5/edgeblock.lists.5": lists,
    "share/man/man8/edgeblock-fetch.8": partial(manual, "edgeblock-fetch"),
    "share/man/man5/edgeblock.sources.5": sources,
    "share/bash-completion/completions/edgeblock-fetch": partial(bash, "edgeblock-fetch"),
    "share/zsh/vendor-completions/_edgeblock-fetch": partial(zsh, "edgeblock-fetch"),
    "share/fish/vendor_completions.d/edgeblock-fetch.fish": partial(fish, "edgeblock-fetch"),
    "share/bash-completion/completions/edgeblock": bash,
    "share/zsh/vendor-completions/_edgeblock": zsh,
    "share/fish/vendor_completions.d/edgeblock.fish": fish,
}


def main(folder: str) -> None:
    for name, text in FILES_MADE.items():
        place = Path(folder) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text())


if __name__ == "__main__":
    main(sys.argv[1])
