"""Whether the daemon could run with a configuration, asked before anything of the box is touched.

In: a Config. Out: warnings, one line each; an EdgeblockError, one line, for what can never work. Never here: what
only this machine lacks today (a program, a permission, a queue that somebody has), since that may be gone tomorrow.
"""

import socket
from pathlib import Path

from edgeblock.blocklist.intake import make_terms
from edgeblock.config import Config
from edgeblock.daemon import door
from edgeblock.enforce import replies
from edgeblock.errors import ConfigError, ListError
from edgeblock.netfilter import checks


def check(config: Config) -> list[str]:
    """What is worth a warning. Raises ConfigError, naming the key, where the daemon must not start."""
    checks.check(config)
    replies.prepare(config.reply)
    opened = door.prepare(config.metrics)
    if config.rules.action == "redirect" and not config.reply.redirect:
        raise ConfigError('[rules] action = "redirect" needs a URL in [reply] redirect')
    try:
        make_terms(config.rules, bytes(16))
    except ListError as problem:
        raise ConfigError(str(problem)) from None
    if config.rules.require_signatures and not config.rules.signers:
        raise ConfigError("[rules] require_signatures = true refuses every list, as [rules] signers has no key; add "
                          "one, or take require_signatures out")
    warnings = [*missing_interfaces(config), *missing_directory(config.rules.directory)]
    if config.metrics.other_machines and (opened.context is None or opened.token is None):
        warnings.append("[metrics] other_machines: whoever reaches this address can read the metrics"
                        f"{'' if opened.context else ' on their way, as there is no certificate'}"
                        f"{'' if opened.token else '; token_file would ask for a token'}")
    if not config.rules.self_check:
        warnings.append("[rules] self_check = 0: new rules come into force untried")
    return warnings


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
