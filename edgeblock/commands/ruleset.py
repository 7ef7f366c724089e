"""`edgeblock ruleset`: the kernel rules that queue packets, shown, applied or removed without the daemon.

In: the configuration. Out: their text on standard output, or the kernel changed. Never here: what the rules are.
"""

import argparse
import dataclasses
import sys

from edgeblock import config
from edgeblock.addresses import EMPTY
from edgeblock.commands import add_config
from edgeblock.daemon import claim
from edgeblock.errors import ConfigError, SystemProblem
from edgeblock.netfilter import addresses, ruleset

EXAMPLES = """\
  edgeblock ruleset print --backend nft
  edgeblock ruleset apply
  edgeblock ruleset remove
A daemon that runs puts its rules back: stop it before remove, or add --force to see them go for a moment.
`edgeblock run` applies and removes them by itself unless the configuration says install = false."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("action", choices=("print", "apply", "remove"), metavar="print|apply|remove",
                        help="remove takes away those of both back ends")
    parser.add_argument("--force", action="store_true", help="remove them although a daemon runs that puts them back")
    parser.add_argument("--backend", choices=("nft", "iptables"), help="instead of the configuration's")


def main(chosen: argparse.Namespace) -> int:
    settings = config.load(chosen.config)
    if chosen.force and chosen.action != "remove":
        raise ConfigError("--force: only with remove")
    if chosen.backend and chosen.action == "remove":
        raise ConfigError("--backend: not with remove, which takes away the rules of both back ends")
    if chosen.backend:
        chosen_backend = dataclasses.replace(settings.ruleset, backend=chosen.backend)
        settings = dataclasses.replace(settings, ruleset=chosen_backend)
    if chosen.action == "print":
        sys.stdout.write(ruleset.text(settings) + address_rules(settings))
    elif chosen.action == "apply":
        print(f"applied, with {ruleset.apply(settings)}")
    else:
        remove(chosen.force)
    return 0


def address_rules(settings: config.Config) -> str:
    """The table of listed addresses without its entries, which come and go with the lists; as a comment where the
    rules beside it are for another program."""
    if not (settings.ruleset.addresses and settings.ruleset.install):
        return ""
    head = ("# Beside these, where a list has addresses, the daemon has nft put this table there; its sets and maps "
            "get what is listed.\n")
    text = addresses.text(settings, EMPTY, settings.rules.nat64)
    if settings.ruleset.backend == "nft":
        return f"{head}{text}"
    return head + "".join(f"# {line}\n" for line in text.splitlines())


def remove(force: bool) -> None:
    daemon = claim.owner()
    if daemon and not force:
        raise SystemProblem(f"ruleset remove: the rules are those of a daemon that runs (process {daemon}) and puts "
                            "them back; stop it (systemctl stop edgeblock), or add --force")
    ruleset.remove()
    if daemon:
        print(f"removed; the daemon (process {daemon}) puts its rules back within a second or two")
