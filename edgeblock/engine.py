"""The engine that a configuration asks for, the same for the live queue and for captures.

In: a Config and a matcher. Out: an Engine. Never here: a limit or a policy that is not a key of the configuration.
"""

from dataclasses import asdict

from edgeblock.config import Config
from edgeblock.core.engine import Engine
from edgeblock.core.matcher import Matcher


def make_engine(config: Config, matcher: Matcher, report: bool = False) -> Engine:
    """An engine with the limits and policies of `config`; with `report` it tells of unlisted names, too."""
    policies = asdict(config.policies)
    policies["unproven"] = config.reply.unproven
    policies["memory_full"] = policies.pop("memory")       # beside limits.memory, which is a number of bytes
    return Engine(matcher, **asdict(config.limits), **policies, report=report)
