"""What the daemon of this box says of itself, as far as a rollout has to know it.

In: its control socket. Out: a Health. Whoever asks is a member of the group that [daemon] control_group names. Never
here: what follows from it (rings.py, repository.py).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeblock.asking import have_answered
from edgeblock.errors import SystemProblem


@dataclass(frozen=True)
class Health:
    """`absent` is why the daemon did not answer, "" where it did; `wrong` what is wrong with the box, "" where
    nothing is; `refused` has, by list, why its newest version is not in force."""

    absent: str = ""
    wrong: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def why_not(self) -> str:
        """Why this box takes nothing new; "" where it does. A daemon that does not answer is no reason to believe
        that all is well: what a release does on this box, nobody could see."""
        return f"the daemon does not answer: {self.absent}" if self.absent else self.wrong


def health_of(told: Any) -> Health:
    """The same out of the answer to "status"."""
    if not isinstance(told, dict) or "error" in told:
        return Health(absent="it says something else")
    canary, selfcheck, lists = (told.get(name) or {} for name in ("canary", "selfcheck", "lists"))
    wrong = ""
    if canary.get("state") == "failed":
        wrong = "the canary is red: " + "; ".join(sorted({one["wrong"] for one in canary.get("probes", ())
                                                          if one.get("wrong")}))
    elif selfcheck.get("state") == "failed":
        wrong = f"the self-check failed: {selfcheck.get('problem', '')}"
    return Health(wrong=wrong, refused={name: one["refused"] for name, one in lists.items() if one.get("refused")})


async def ask_health(control: Path) -> Health:
    """Asks the daemon; never raises for what it says."""
    try:
        return health_of(await asyncio.to_thread(have_answered, control, "status"))
    except SystemProblem as problem:
        return Health(absent=str(problem))
    except (AttributeError, TypeError, KeyError):
        return Health(absent="it says something else")
