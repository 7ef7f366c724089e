"""What the engine decided, as Python records: read by replay, enforce and the daemon, never on the fast path."""

from typing import NamedTuple

# The words for what the core's numbers say, in the order of Action and Proto (core/matcher.pxd), Mark and Policy
# (core/engine.pxd).
ACTIONS = ("accept", "drop", "reset", "page", "redirect", "observe")
PROTOCOLS = (None, "tls", "http", "quic", "ip")
MARKS = ("keep", "done", "http", "blocked")
POLICIES = (None, "unparsable", "midstream", "memory", "conflict", "no_sni", "ech", "headers", "work")

LIST_ACTIONS = ACTIONS[1:]                          # what a list may ask for
ANSWERED = ("reset", "page", "redirect")            # of these the client hears something


def carried_out(action: str, proto: str | None, redirects: bool = True) -> str:
    """What is done where a list asks for `action`: a page can be shown in HTTP alone, and a redirect that has no URL
    (`redirects` is false) shows the page."""
    if action not in ("page", "redirect"):
        return action
    if proto != "http":
        return "reset"
    return action if redirects else "page"


class Name(NamedTuple):
    """One name that a packet completed.

    `proto` is "tls", "quic", "http" or "ip"; `host` is as compared (lower case, no port) and None for a hello
    without a name; `path` is the request target as sent, None where no path is visible; `action` is "accept",
    "drop", "reset", "page", "redirect" or "observe"; `list` and `rule` are None when nothing matched. `policy` is the
    key of [policies] by which something was stopped that no list names ("headers": the bound on extension headers);
    there is no name then, and `proto` is None where it is not known. `order` is the number of the order by which it
    is listed, "" where none is known.
    """

    proto: str | None
    host: str | None
    path: str | None
    action: str
    list: str | None
    rule: str | None
    ech: bool = False
    policy: str | None = None
    order: str = ""


class Decision(NamedTuple):
    """The verdict on one packet.

    `accept` tells the queue what to do; `mark` is "keep", "done", "http" or "blocked"; `action` is the action in
    force, "accept" for most. When `reply` is true an answer is due: `client_seq` and `client_ack` are the TCP
    sequence and acknowledgement numbers of its first segment towards the client, `reset_seqs` those of the RSTs
    towards the server (one each) and `reset_ack` what they acknowledge. `head` says that the request was HEAD.
    `quic_id` is the connection id whose keys protect the answer to a QUIC client. Only where `proven` is true has the
    sender shown that he is where he says; to any other nothing is sent that is larger than his packet.
    """

    accept: bool
    mark: str = "keep"
    action: str = "accept"
    proto: str | None = None
    names: tuple[Name, ...] = ()
    reply: bool = False
    head: bool = False
    client_seq: int = 0
    client_ack: int = 0
    reset_seqs: tuple[int, ...] = ()
    reset_ack: int = 0
    list: str | None = None
    rule: str | None = None
    quic_id: bytes = b""
    proven: bool = True
