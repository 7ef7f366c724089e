"""`edgeblock status`: what the running daemon has counted, and whether the box filters.

In: the daemon's answer. Out: lines of names joined by dots, or one JSON object. Never here: a figure of its own.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from edgeblock import config
from edgeblock.commands import add_config
from edgeblock.daemon import control

EXAMPLES = """\
  edgeblock status
  edgeblock status --json | jq .vigil
Exit status: 0 while the box filters, 1 while it does not, 2 if no daemon answers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def main(chosen: argparse.Namespace) -> int:
    answer = control.ask(config.load(chosen.config).daemon.control, "status")
    filtering = answer.get("vigil", {}).get("filtering", True)
    if chosen.json:
        print(json.dumps(answer))
    else:
        if "vigil" in answer:
            print("filtering" if filtering else "NOT FILTERING: " + "; ".join(answer["vigil"]["causes"]))
        lines = list(flat(answer))
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print(f"{name:{width}}  {value}")
    return 0 if filtering else 1


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as lines: names joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value, 1):
            yield from flat(inner, f"{name}.{number}")
    else:
        yield name, value
