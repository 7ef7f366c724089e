"""`edgeblock replay`: a capture file through the same engine that sits behind the live queue.

In: a capture and a rules directory. Out: one line for each name observed, as JSON (DESIGN 5.2) or for people; a
summary on standard error, and before it how far it has come, where that takes a while; on request a capture of what
would have left the box, and a comparison with an earlier run. Never here: a clock other than the capture's, a socket,
a verdict of its own.

Names and paths come from the network and may hold anything: JSON escapes what is not ASCII, and the lines for
people what is not printable, so that no capture can write to a terminal what it likes.
"""

import argparse
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from edgeblock import config as configuration
from edgeblock import wire
from edgeblock.blocklist.directory import Finding
from edgeblock.blocklist.load import load
from edgeblock.commands import add_config, moment_of
from edgeblock.config import Config
from edgeblock.core.decision import Decision, Name, carried_out
from edgeblock.enforce import replies
from edgeblock.enforce.answers import Answers
from edgeblock.engine import make_engine
from edgeblock.errors import CaptureError, ConfigError, EdgeblockError
from edgeblock.progress import Reading
from edgeblock.source.capture import STDIN, Capture, CaptureWriter, Record, reframe
from edgeblock.source.checksums import MODES, Survey
from edgeblock.source.defragment import Defragmenter
from edgeblock.source.handshakes import Handshakes

EXAMPLES = """\
  edgeblock replay morning.pcap --rules /etc/edgeblock/rules
  edgeblock replay morning.pcapng.gz --rules rules --json > verdicts.jsonl
  edgeblock replay morning.pcapng.gz --rules rules --expect verdicts.jsonl
  ssh box tcpdump -i eth0 -s 0 -w - | edgeblock replay - --rules rules --checksums verify
Exit status: 0; 1 if --expect finds a difference; 2 if the capture or the rules cannot be read."""

SHORT_DIFFERENCE = 20           # lines of each kind that --expect prints
MAX_BLOCKED = 262_144           # blocked flows whose answers are kept out of --write, as many as a worker remembers

_HEADING = f"{'frame':>8}  {'time':<17}  {'proto':<5}  {'verdict':<8}  client > server  name  [list rule]"


# An IP packet to be judged: the record that completed it, its bytes, and the records of all its fragments.
Packet = tuple[Record, bytes, tuple[Record, ...]]
Row = tuple[Record, wire.Header, bytes, Name]

# Next header values behind which an IPv6 fragment header may stand; any other spares the walk.
_BEFORE_FRAGMENT = frozenset((wire.HOP_BY_HOP, wire.ROUTING, wire.FRAGMENT, wire.AUTHENTICATION, wire.DESTINATION))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("capture", metavar="CAPTURE",
                        help="a pcap or pcapng file, also compressed with gzip; - is standard input")
    parser.add_argument("--rules", metavar="DIR",
                        help="the lists, or a snapshot of them (default: those of the configuration)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for each name observed")
    parser.add_argument("--write", metavar="OUT", help="save what would have left the box, answers included")
    parser.add_argument("--expect", metavar="FILE", help="compare with the saved output of --json")
    parser.add_argument("--at", metavar="TIME", help="with what holds of the lists at that time, instead of now")
    parser.add_argument("--checksums", choices=("auto", "verify", "ignore"), default="auto",
                        help="which wrong checksums make a packet junk: auto spares what hardware would have "
                             "filled in")


def main(chosen: argparse.Namespace) -> int:
    settings = configuration.load(chosen.config)
    return run(chosen.capture, chosen.rules or settings.rules.directory, json_output=chosen.json,
               write=chosen.write, expect=chosen.expect, checksums=chosen.checksums, config=settings,
               at=moment_of(chosen.at), out=sys.stdout, err=sys.stderr)


def run(capture: str | os.PathLike[str], rules_dir: str | os.PathLike[str], *, json_output: bool = False,
        write: str | os.PathLike[str] | None = None, expect: str | os.PathLike[str] | None = None,
        checksums: str = "auto", config: Config | None = None, out: TextIO, err: TextIO,
        engine: Any = None, at: float | None = None) -> int:
    """Replays `capture` with the lists in `rules_dir`.

    Args:
        json_output: JSON lines instead of lines for people.
        write: save here, as pcap or pcapng like the capture, what would have left the box.
        expect: compare with this file, the saved output of an earlier run with `json_output`.
        checksums: "auto", "verify" or "ignore": which TCP and UDP checksums make a packet junk (source.checksums).
        at: Unix seconds at which lists and entries have to hold; None: now.
        engine: what judges, instead of a new Engine with the rules of `rules_dir`.

    Returns the exit status: 0, or 1 if the output is not what was expected.

    Raises an EdgeblockError if capture, rules or another file cannot be used; for a capture that is cut or damaged
    in the middle after its whole part was judged and reported.
    """
    if checksums not in MODES:
        raise ConfigError(f"--checksums: '{checksums}' is not one of {', '.join(MODES)}")
    config = config or Config()
    expected = None if expect is None else _Expected(expect)
    answers = Answers(config.reply)
    warnings: tuple[Finding, ...] = ()
    if engine is None:
        loaded = load(Path(rules_dir), config.rules, redirects=bool(config.reply.redirect), now=at)
        loaded.matcher.at = at
        warnings = loaded.warnings
        answers.renew(loaded.matcher.snapshot.parts.lists)
        engine = make_engine(config, loaded.matcher, report=True)
    if write is not None and os.path.exists(write) and os.path.exists(capture) and os.path.samefile(write, capture):
        raise CaptureError(f"{os.fspath(write)}: is the capture itself; write to another file")
    survey = _survey(capture, checksums, err)
    counts: Counter[str] = Counter()
    fragments = Defragmenter()
    with Capture(capture) as source:
        box = None if write is None else _Box(CaptureWriter(write, source.pcapng, source.link), answers)
        # Where the lines go to a terminal they show how far it is, and a bar would stand in their way.
        told = Reading(None if out.isatty() else err, f"{source.path}: judging", source.size(), source.read)
        rows = _judge(source, engine, survey, fragments, box, counts, told, answers)
        try:
            heading = not json_output and expected is None
            with told:
                for row in rows:
                    line = _as_json(row)
                    if expected is not None:
                        expected.see(line)
                    if json_output:
                        out.write(line + "\n")
                    elif expected is None:
                        if heading:
                            out.write(_HEADING + "\n")
                            heading = False
                        out.write(_as_text(row) + "\n")
        finally:
            if box is not None:
                box.writer.close()
    different = expected is not None and expected.report(err if json_output else out)
    out.flush()
    if expected is not None:
        err.write(f"{expected.path}: {expected.compared()}\n")
    err.writelines(f"edgeblock: warning: {warning}\n" for warning in warnings)
    _summarize(err, source, fragments, survey, engine, counts)
    if source.trouble:
        raise CaptureError(f"{source.path}: {source.trouble}")
    return 1 if different else 0


def _survey(capture: str | os.PathLike[str], checksums: str, err: TextIO) -> Survey:
    survey = Survey(checksums)
    if checksums == "auto":
        if os.fspath(capture) == STDIN:
            raise ConfigError("--checksums: \"auto\" reads a capture twice, and standard input can be read once; say "
                              "--checksums verify, or ignore where it comes from the host that sent it")
        with Capture(capture) as source, Reading(err, f"{source.path}: looking at checksums", source.size(),
                                                 source.read) as told:
            for record, data, _ in _packets(source, Defragmenter(), None):
                told.step()
                if not record.cut:
                    survey.add(data)
    survey.close()
    return survey


def _packets(source: Capture, fragments: Defragmenter, box: "_Box | None") -> Iterator[Packet]:
    # Every whole packet, at the frame that completed it. What carries no packet at all passes the box unseen.
    now = 0.0
    for record in source:
        data = record.packet
        if not data:
            if box is not None and record.start < 0 <= record.link:
                box.pass_on((record,))
            yield record, b"", ()
            continue
        version = data[0] >> 4
        if (data[6] & 0x3F or data[7]) if version == 4 else data[6] in _BEFORE_FRAGMENT:
            header = wire.find_transport(data)
            if header is not None and header.fragment:
                now = max(now, record.time)
                whole = fragments.push(data, now, record)
                if whole is not None:
                    yield record, whole.packet, whole.parts
                continue
        yield record, data, (record,)


def _judge(source: Capture, engine: Any, survey: Survey, fragments: Defragmenter, box: "_Box | None",
           counts: Counter[str], told: Reading, answers: Answers) -> Iterator[Row]:
    judge, flag, proof = engine.judge, survey.flag, Handshakes().flag
    for record, data, parts in _packets(source, fragments, box):
        told.step()
        if not data:
            counts["not IP" if record.start < 0 else "unreadable"] += 1
            continue
        decision: Decision = judge(data, record.time, flag(data, record.cut) | proof(data))
        counts["judged"] += 1
        if not decision.accept:
            counts["dropped"] += 1
        if decision.names:
            header = wire.find_transport(data)
            if header is not None:
                for listed in decision.names:
                    name = listed._replace(action=carried_out(listed.action, listed.proto,
                                                              answers.redirects(listed.list)))
                    counts["verdict " + name.action] += 1
                    yield record, header, data, name
        if box is not None:
            box.apply(record, data, parts, decision)


class _Box:
    """What would have left: accepted packets as they came, our replies in the same framing."""

    def __init__(self, writer: CaptureWriter, answers: Answers) -> None:
        self.writer = writer
        self.answers = answers
        self._blocked: dict[bytes, None] = {}   # flows whose mark makes the kernel drop both directions, oldest first

    def pass_on(self, records: tuple[Record, ...]) -> None:
        for record in records:
            self.writer.write(record.time, record.link, record.frame, record.wire_size)

    def apply(self, record: Record, data: bytes, parts: tuple[Record, ...], decision: Decision) -> None:
        if decision.mark == "blocked" or self._blocked:
            header = wire.find_transport(data)
            if header is not None and header.end - header.at >= 4:
                here, there = data[header.at:header.at + 2], data[header.at + 2:header.at + 4]
                proto = bytes((header.proto,))
                flow = proto + header.src + header.dst + here + there
                if decision.mark == "blocked":
                    self._blocked[flow] = None
                    if len(self._blocked) > MAX_BLOCKED:
                        del self._blocked[next(iter(self._blocked))]
                elif decision.accept:
                    self._blocked.pop(flow, None)
                    if proto + header.dst + header.src + there + here in self._blocked:
                        return
        if decision.accept:
            self.pass_on(parts)
            return
        made = replies.build(data, decision, self.answers, record.time)
        for packet in made.to_client:
            self.writer.write(record.time, record.link, reframe(record, packet, turned=True))
        for packet in made.to_server:
            self.writer.write(record.time, record.link, reframe(record, packet, turned=False))


# -- lines -------------------------------------------------------------------------------------------------------

def _ends(header: wire.Header, data: bytes) -> tuple[str, int, str, int]:
    family = socket.AF_INET if header.version == 4 else socket.AF_INET6
    ports = data[header.at:header.at + 4] if header.proto in (wire.TCP, wire.UDP) else b""
    return (socket.inet_ntop(family, header.src), int.from_bytes(ports[0:2], "big"),
            socket.inet_ntop(family, header.dst), int.from_bytes(ports[2:4], "big"))


def _as_json(row: Row) -> str:
    record, header, data, name = row
    src, sport, dst, dport = _ends(header, data)
    rest = {"proto": name.proto, "src": src, "sport": sport, "dst": dst, "dport": dport, "host": name.host,
            "path": name.path, "verdict": name.action, "list": name.list, "rule": name.rule}
    if name.policy is not None:
        rest["policy"] = name.policy
    if name.order:
        rest["order"] = name.order
    # By hand up to the time, so that it always has its six digits.
    return f'{{"frame": {record.number}, "time": {record.time:.6f}, {json.dumps(rest)[1:]}'


def _as_text(row: Row) -> str:
    record, header, data, name = row
    src, sport, dst, dport = _ends(header, data)
    if header.version == 6:
        src, dst = f"[{src}]", f"[{dst}]"
    what = "(no name)" if name.host is None else _printable(name.host)
    if name.path is not None:
        what += " " + _printable(name.path)
    rule = "" if name.list is None else f"  [{_printable(name.list)} {name.rule}]"
    if name.policy is not None:
        rule = f"  [policies.{name.policy}]"
    return (f"{record.number:>8}  {record.time:<17.6f}  {name.proto or '-':<5}  {name.action:<8}  "
            f"{src}:{sport} > {dst}:{dport}  {what}{rule}")


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _summarize(err: TextIO, source: Capture, fragments: Defragmenter, survey: Survey, engine: Any,
               counts: Counter[str]) -> None:
    verdicts = {key[8:]: count for key, count in counts.items() if key.startswith("verdict ")}
    kinds = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    blocked = sum(count for verdict, count in verdicts.items() if verdict not in ("accept", "observe"))
    counters = engine.counters()
    unreadable = counts["unreadable"] + counters.get("unreadable", 0)
    lines = [f"{source.path}: {source.frames} frames: {counts['judged']} packets judged, {counts['not IP']} not IP, "
             f"{unreadable} unreadable, {fragments.fragments} fragments"]
    if fragments.fragments:
        lines.append(f"fragments: {fragments.whole} packets put together, {fragments.overlapped} thrown away for "
                     f"overlaps, {fragments.incomplete + fragments.expired + fragments.evicted} never complete, "
                     f"{fragments.malformed} malformed")
    if survey.sources:
        lines.append(f"checksums: {survey.sources} sources left them to hardware, so theirs were not looked at")
    lines.append(f"names: {sum(verdicts.values())}" + (f" ({kinds})" if kinds else "") +
                 f"; blocked: {blocked}; packets dropped: {counts['dropped']}")
    err.write("\n".join(lines) + "\n")


# -- expect ------------------------------------------------------------------------------------------------------

class _Expected:
    """The lines of an earlier run, ticked off as they come again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lines: list[str] = []
        self._seen: list[str] = []
        self._shown: dict[str, str] = {}    # a line whose keys are sorted -> as it is shown
        try:
            with open(self.path, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._lines.append(self._take(line, number))
        except OSError as problem:
            raise EdgeblockError(f"{self.path}: cannot be read: {problem.strerror}") from None
        except UnicodeDecodeError:
            raise EdgeblockError(f"{self.path}: not the output of replay --json: not UTF-8") from None

    def _take(self, line: str, number: int) -> str:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise EdgeblockError(f"{self.path}:{number}: not a JSON object; expected the output of replay --json")
        key = json.dumps(value, sort_keys=True)
        self._shown[key] = json.dumps(value)
        return key

    def see(self, line: str) -> None:
        """A line of this run."""
        self._seen.append(self._take(line, len(self._seen) + 1))

    def report(self, to: TextIO) -> bool:
        """Writes the difference, shortened; returns whether there is one."""
        if self._lines == self._seen:
            return False
        was, now = Counter(self._lines), Counter(self._seen)
        for sign, lines in (("-", was - now), ("+", now - was)):
            shown = sorted(lines.elements(), key=_frame)
            to.writelines(f"{sign} {self._shown[line]}\n" for line in shown[:SHORT_DIFFERENCE])
            if len(shown) > SHORT_DIFFERENCE:
                to.write(f"{sign} ... and {len(shown) - SHORT_DIFFERENCE} more\n")
        return True

    def compared(self) -> str:
        """What the comparison came to, for a person."""
        was, now = Counter(self._lines), Counter(self._seen)
        if was == now:
            order = "" if self._lines == self._seen else ", in another order"
            return f"names as expected{order}: {len(self._seen)}"
        return f"names expected and not seen (-): {(was - now).total()}; not expected (+): {(now - was).total()}"


def _frame(line: str) -> int:
    frame = json.loads(line).get("frame")
    return frame if isinstance(frame, int) else 0
