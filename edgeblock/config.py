"""One TOML file into frozen records. In: a path or nothing. Out: a Config; every default is here, nowhere else.

Unknown keys are refused with the nearest known name; a wrong value names the key, the value and what is allowed.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Rules:
    """[rules]: where lists are and what a listed name gets when its list does not say."""

    directory: Path = Path("/etc/edgeblock/rules")
    action: str = "reset"          # drop | reset | page | redirect | observe
    https: str = "ignore"          # what a URL rule does on TLS and QUIC: ignore | host
    key: Path = Path("/var/lib/edgeblock/key")


@dataclass(frozen=True)
class Queue:
    """[queue]: the NFQUEUE that packets arrive on."""

    number: int = 0
    workers: int = 1
    length: int = 8192             # packets the kernel holds for us
    buffer: int = 8 * 1024 * 1024  # bytes of socket receive buffer
    overload: str = "open"         # full queue: open passes packets unseen (counted), closed drops them


@dataclass(frozen=True)
class Ruleset:
    """[ruleset]: which packets the kernel queues."""

    install: bool = True           # `run` applies it at start and removes it at stop
    backend: str = "auto"          # auto | nft | iptables
    hooks: tuple[str, ...] = ("forward",)          # of forward, input, output
    tcp_ports: tuple[int, ...] | str = (80, 443, 8080, 8443)   # or "all"
    udp_ports: tuple[int, ...] | str = (443,)      # or "all"
    mark_mask: int = 0x30000000    # two adjacent bits of the conntrack mark
    inject_mark: int = 0x40000000  # packet mark of our own replies, so that they are never queued
    absent: str = "open"           # no daemon on the queue: open passes packets, closed drops them


@dataclass(frozen=True)
class Limits:
    """[limits]: what a worker may remember. See docs/limits.md for each limit, its policy and its counter."""

    flows: int = 262_144           # flows remembered by one worker
    memory: int = 256 * 1024 * 1024    # bytes of stream window in one worker
    flow_bytes: int = 160 * 1024   # bytes of stream window in one flow
    idle: float = 120.0            # seconds without a packet after which an undecided flow is forgotten
    settle_packets: int = 64       # client packets with payload after which a settled flow is done without a reply


@dataclass(frozen=True)
class Policies:
    """[policies]: pass or drop, for what cannot be read."""

    unparsable: str = "pass"       # the stream is no protocol we know
    midstream: str = "pass"        # the flow was first seen after its start, and its bytes start no message
    memory: str = "pass"           # a limit was reached without conflicting bytes
    conflict: str = "drop"         # a limit was reached and the bytes conflict: somebody is hiding
    no_sni: str = "pass"           # a hello without a name
    ech: str = "accept"            # accept | block | block-listed-addresses


@dataclass(frozen=True)
class Reply:
    """[reply]: what a blocked client receives."""

    tls: str = "alert"             # alert: fatal alert and FIN; rst: a bare RST
    status: int = 451              # of the block page: 403 or 451
    page: Path | None = None       # an HTML file; None is the page that ships
    contact: str = ""              # how to complain about a wrong block: shown on the page that ships
    provider: str = ""             # who blocks: shown on the page that ships
    redirect: str = ""             # the URL of a redirect


@dataclass(frozen=True)
class Privacy:
    """[privacy]: off by default; on, log lines name the plain name or the subscriber."""

    names: bool = False
    clients: bool = False


@dataclass(frozen=True)
class Config:
    rules: Rules = field(default_factory=Rules)
    queue: Queue = field(default_factory=Queue)
    ruleset: Ruleset = field(default_factory=Ruleset)
    limits: Limits = field(default_factory=Limits)
    policies: Policies = field(default_factory=Policies)
    reply: Reply = field(default_factory=Reply)
    privacy: Privacy = field(default_factory=Privacy)
