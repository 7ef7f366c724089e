"""What a list is committed to: the text of an entry, and the Merkle root of all of them.

In: entries as the compiler has them; sorted commitments (commitments.pyx). Out: the one line of text that stands for
an entry and what it holds under; the root of a tree whose leaves are each CHUNK commitments, one after the other:
whoever is shown such a leaf sees those beside the one in question, and they tell nothing. Never here: a key, a file.
"""

import json
from typing import Any

from edgeblock.blocklist.commitments import SIZE
from edgeblock.blocklist.fingerprint import Kind
from edgeblock.blocklist.formats import key_text
from edgeblock.blocklist.terms import ALWAYS, NEVER, Terms, Window, parse_weeklies
from edgeblock.ledger.merkle import Tree

CHUNK = 64                  # commitments that make a leaf
LEAF = CHUNK * SIZE         # bytes
WORDS = {Kind.HOST: "host", Kind.HOST_ONLY: "host-only", Kind.SUBDOMAINS: "subdomains",
         Kind.URL_WITH_QUERY: "url-with-query", Kind.URL: "url", Kind.DIRECTORY: "directory", Kind.NETWORK: "address",
         Kind.ENDPOINT: "endpoint", Kind.HOST_AT: "host-at", Kind.HOST_ONLY_AT: "host-only-at",
         Kind.SUBDOMAINS_AT: "subdomains-at"}
BLOCKS = {int(kind): f"{word} ".encode() for kind, word in WORDS.items()}
PASSES = {int(kind): f"exception {word} ".encode() for kind, word in WORDS.items()}


def text_of(kind: int, key: bytes, exception: bool, terms: Terms | None = None) -> bytes:
    """The line that stands for an entry."""
    made = (PASSES if exception else BLOCKS)[kind]
    made += key_text(key).encode() if kind in (Kind.NETWORK, Kind.ENDPOINT) or kind >= Kind.HOST_AT else key
    return made + terms_text(terms) if terms else made


def hashed_text(kind: int, mark: bytes, exception: bool) -> bytes:
    """The same of an entry of which only the fingerprint is known."""
    return b"hashed " + (PASSES if exception else BLOCKS)[kind] + mark.hex().encode()


def window_said(window: Window) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if window.begins != ALWAYS:
        said["from"] = window.begins
    if window.ends != NEVER:
        said["until"] = window.ends
    if window.weekly:
        said["weekly"] = list(map(str, window.weekly))
    return said


def window_text(window: Window) -> str:
    """When a list holds, as the ledger has it; "" for always."""
    return json.dumps(window_said(window), sort_keys=True, separators=(",", ":")) if window else ""


def window_of(text: str) -> Window:
    """And back. ValueError, BadTerm where it is none."""
    said = json.loads(text) if text else {}
    return Window(said.get("from", ALWAYS), said.get("until", NEVER), parse_weeklies(said.get("weekly", [])))


def terms_text(terms: Terms) -> bytes:
    said = window_said(terms.window)
    if terms.ech:
        said["ech"] = "only"
    if terms.order:
        said["order"] = dict(terms.order)
    return b" " + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def leaves_of(commitments: Any) -> list[bytes]:
    """The leaves of a list's tree."""
    view = memoryview(commitments)
    return [bytes(view[at:at + LEAF]) for at in range(0, len(view), LEAF)]


def root_of(commitments: Any) -> str:
    """The root of sorted commitments."""
    view = memoryview(commitments)
    return Tree(view[at:at + LEAF] for at in range(0, len(view), LEAF)).root().hex()
