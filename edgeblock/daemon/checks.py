"""Whether the daemon could run with a configuration, asked before anything of the box is touched.

In: a Config. Out: warnings, one line each; a ConfigError with a line for each thing that can never work. Never here:
what only this machine lacks today (a program, a permission, a queue that somebody has): that may be gone tomorrow.
"""

import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from edgeblock.blocklist.directory import NOWHERE, find_lists
from edgeblock.blocklist.intake import make_terms
from edgeblock.config import Config
from edgeblock.daemon import door
from edgeblock.enforce.answers import Answers
from edgeblock.errors import ConfigError, ListError
from edgeblock.ledger.place import directory_of
from edgeblock.netfilter import checks


def check(config: Config) -> list[str]:
    """What is worth a warning. Raises ConfigError, naming each key, where the daemon must not start."""
    if found := mistakes(config):
        raise ConfigError(*found)
    opened = door.prepare(config.metrics)
    warnings = [*missing_interfaces(config), *missing_directory(config.rules.directory)]
    if config.metrics.other_machines and (opened.context is None or opened.token is None):
        warnings.append("[metrics] other_machines: whoever reaches this address can read the metrics"
                        f"{'' if opened.context else ' on their way, as there is no certificate'}"
                        f"{'' if opened.token else '; token_file would ask for a token'}")
    if config.policies.ech == "block":
        warnings.append('[policies] ech = "block": browsers send that extension in every hello, with a meaning or '
                        "without (GREASE), so this BLOCKS EVERYTHING that they ask for; an entry with ech=only "
                        "blocks it for one name")
    if not config.rules.self_check:
        warnings.append("[rules] self_check = 0: new rules come into force untried")
    state, ledger = config.rules.key.parent.absolute(), directory_of(config).absolute()
    if (config.ledger.enabled or config.report.enabled) and state in (ledger, *ledger.parents):
        warnings.append(f"[ledger] directory: {ledger} is in the state directory, all of which the process that "
                        f"reads lists may write, the ledger's key and the counts too; name another, such as "
                        f"{state}-ledger")
    return warnings


def mistakes(config: Config, wrong: Iterable[str] = ()) -> list[str]:
    """What can never work, a line each. `wrong` are keys that have a mistake already, as "section.key": what their
    defaults lead to is not told."""
    found: list[str] = []
    parts: tuple[Callable[[], object], ...] = (
        lambda: checks.check(config), lambda: Answers(config.reply), lambda: door.prepare(config.metrics),
        lambda: make_terms(config.rules, bytes(16)))
    for part in parts:
        try:
            part()
        except (ConfigError, ListError) as problem:
            found += map(str, problem.args)
    if config.rules.action == "redirect" and not config.reply.redirect:
        found.append('[rules] action = "redirect" needs a URL in [reply] redirect')
    if config.rules.require_signatures and not config.rules.signers:
        found.append("[rules] require_signatures = true refuses every list, as [rules] signers has no key; add "
                     "one, or take require_signatures out")
    names = {key.rpartition(".")[2] for key in wrong}
    return [line for line in found if not names & set(re.findall(r"\w+", line))]


def redirects_nowhere(config: Config) -> list[str]:
    """The lists whose action leads nowhere. A warning, not a mistake: who drops a list must not stop the box."""
    if config.reply.redirect or not config.rules.directory.is_dir():
        return []
    try:
        warnings = find_lists(config.rules.directory, make_terms(config.rules, bytes(16)).defaults,
                              redirects=False)[2]
    except ListError as problem:
        return [str(problem)]
    return [str(one) for one in warnings if one.why == NOWHERE]


def missing_interfaces(config: Config) -> list[str]:
    """Those named that are not there now. They may come later: a tunnel, a subscriber's ppp."""
    there = {name for _, name in socket.if_nameindex()}
    return [f"[ruleset] {key}: no interface {name!r} is there now; nothing of it is filtered until there is one"
            for key in ("clients", "servers") for name in getattr(config.ruleset, key)
            if not (any(one.startswith(name[:-1]) for one in there) if name.endswith("*") else name in there)]


def missing_directory(directory: Path) -> list[str]:
    if directory.is_dir():
        return []
    return [f"[rules] directory: {directory} is no directory; make it, or nothing is blocked"]
