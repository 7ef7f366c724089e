"""The corpora that lie beside the repository. In: the environment. Out: their folders and what they hold.

Both are optional: on a machine without them the tests over them have no cases, and pytest says so.
"""

import json
import os
from pathlib import Path

BESIDE = Path(__file__).parent.parent.parent / "shared"
CORPUS = Path(os.environ.get("EDGEBLOCK_CORPUS") or BESIDE / "corpus")


def corpus() -> list[dict]:
    """One object a capture, as names.jsonl of the corpus describes it; empty if there is no corpus here."""
    index = CORPUS / "names.jsonl"
    if not index.is_file():
        return []
    return [json.loads(line) for line in index.read_text().splitlines()]
