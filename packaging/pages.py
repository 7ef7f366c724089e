"""Makes what a package has besides the program: edgeblock(8), edgeblock.toml(5), edgeblock.lists(5), completions.

In: the arguments as cli.py declares them, the settings as edgeblock.toml explains them, docs/lists.md. Out: files
below a folder. Nothing is said here that is not said there.

    packaging/pages.py FOLDER
"""

import argparse
import re
import sys
from pathlib import Path

import edgeblock
from edgeblock.cli import make_parser

# Beside this file: it is run as a program, from a checkout.
sys.path.insert(0, str(Path(__file__).parent))
from completions import arguments, bash, commands, fish, zsh
from markdown import escaped, to_roff

FILES = (
    ("/etc/edgeblock/edgeblock.toml", "the configuration, see edgeblock.toml(5)"),
    ("/etc/edgeblock/rules", "the lists"),
    ("/run/edgeblock/control.sock", "where edgeblock status asks"),
    ("/var/lib/edgeblock", "what the daemon keeps: the key of its fingerprints, and the last good lists"),
    ("/var/lib/edgeblock-ledger", "the record of what was in force, the key that signs it, and the counts"),
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


def manual() -> str:
    """edgeblock(8)."""
    lines = [*head("edgeblock", 8, "an inline blocklist filter for Linux NFQUEUE"), ".SH SYNOPSIS"]
    every = list(commands())
    for name, _, parser in every:
        lines += [f".B edgeblock {name}", *(escaped(usage(one)) for one in arguments(parser)), ".br"]
    lines += [".SH DESCRIPTION", escaped(make_parser().description or ""),
              escaped("It reads the name that a connection asks for (TLS, QUIC, HTTP), looks it up in the operator's "
                      "lists, and lets the connection pass or drops, resets, redirects it or answers with a page."),
              ".SH COMMANDS"]
    for name, summary, parser in every:
        lines += [f".SS {name}", escaped(summary[0].upper() + summary[1:] + ".")]
        for one in arguments(parser):
            lines += [".TP", f"\\fB{escaped(usage(one).strip('[]'))}\\fR", escaped(one.help or "")]
        lines += [".PP", ".nf", escaped((parser.epilog or "").strip("\n")), ".fi"]
    for title, table in (("FILES", FILES), ("SIGNALS", SIGNALS)):
        lines += [f".SH {title}"]
        for word, text in table:
            lines += [".TP", f"\\fB{escaped(word)}\\fR", escaped(text)]
    lines += [".SH EXIT STATUS",
              escaped("0, or as said above; 2 after a mistake, which one line on standard error names."),
              ".SH SEE ALSO", ".BR edgeblock.toml (5),", ".BR edgeblock.lists (5),", ".BR nft (8),",
              ".BR iptables (8)",
              ".PP", escaped("The guides are in /usr/share/doc/edgeblock.")]
    return "\n".join(lines) + "\n"


def settings() -> str:
    """edgeblock.toml(5), from the comments of the file itself."""
    text = (Path(edgeblock.__file__).parent / "edgeblock.toml").read_text()
    lines = [*head("edgeblock.toml", 5, "the configuration of edgeblock"), ".SH DESCRIPTION"]
    said: list[str] = []
    keys: list[str] = []

    def flush() -> None:
        # What stands above several keys is about all of them.
        tags = [part for number, key in enumerate(keys) for part in (".TQ" if number else ".TP", key)]
        lines.extend([*tags, *paragraph(said, "")] if keys else paragraph(said))
        said.clear()
        keys.clear()

    for line in text.splitlines():
        if found := re.fullmatch(r"#?\[(\w+)\]", line):
            flush()
            lines.append(f".SH [{found[1]}]")
        elif found := re.fullmatch(r"#?([a-z_0-9]+) = (.*)", line):
            keys.append(f"\\fB{escaped(f'{found[1]} = {found[2]}')}\\fR")
        elif line.startswith("#"):
            if keys:
                flush()
            said.append(line.lstrip("# "))
        elif not keys:
            flush()
    flush()
    return "\n".join([*lines, ".SH SEE ALSO", ".BR edgeblock (8),", ".BR edgeblock.lists (5)"]) + "\n"


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
