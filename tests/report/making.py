"""A state directory as a daemon leaves it: lists in force, counts of some days, a ledger. In: a folder."""

import time
from pathlib import Path

from edgeblock import config
from edgeblock.blocklist.load import load
from edgeblock.blocklist.refresh import refresh
from edgeblock.blocklist.store import Store, read_key
from edgeblock.ledger.book import Book
from edgeblock.ledger.kinds import why_wrong
from edgeblock.ledger.records import moment
from edgeblock.report.pending import Batch, Pending
from edgeblock.report.period import DAY
from edgeblock.report.store import Writer

LISTS = {
    "court.list": "listed.example\nnever.example\npast.example until=2020-01-01\n@@fine.listed.example\n",
    "court.toml": 'order = "No. 12/2026"\nauthority = "District Court"\nreceived = 2026-10-30T09:00:00Z\n'
                  'category = "copyright"\n',
    "watch.list": "watched.example\n", "watch.toml": 'action = "observe"\n',
}
NAMES = ("listed.example", "never.example", "past.example", "watched.example", "fine.listed.example")
TODAY = int(time.time() // DAY)


def rules_of(home: Path) -> config.Rules:
    return config.Rules(directory=home / "rules", key=home / "state" / "key")


def rule_of(home: Path, name: str, proto: str = "tls") -> str:
    """The id of the rule that a name meets."""
    rules = load(home / "rules", rules_of(home), key=read_key(home / "state" / "key"), tolerant=True)
    return rules.matcher.look_up(proto, name.encode()).rule


def make(home: Path, lists: dict[str, str] | None = None) -> Path:
    """Lists in force; the configuration."""
    (home / "rules").mkdir(parents=True)
    (home / "state").mkdir()
    for name, text in (LISTS if lists is None else lists).items():
        (home / "rules" / name).write_text(text)
    rules = rules_of(home)
    refresh(rules, Store(rules.key.parent, read_key(rules.key, create=True)), time.time())
    settings = home / "edgeblock.toml"
    settings.write_text(f'[rules]\ndirectory = "{rules.directory}"\nkey = "{rules.key}"\n')
    return settings


def count(home: Path, day: int, blocks: dict[tuple[str, str, str, str], tuple[int, int]],
          rules: tuple[tuple[str, str], ...] = (), clean: bool = True, began: float | None = None,
          **figures: float) -> None:
    """What a daemon counted on one day."""
    one = Batch(Pending(1000, 1000))
    for key, (tries, visits) in blocks.items():
        one.pending.add(key, tries, visits)
    for name, rule in rules:
        one.pending.hit(name, rule)
    for what, value in (figures or {"running": 86_400, "filtering": 86_400, "proven": 43_200}).items():
        one.add(what, value)
    one.kernel["court"] = 5
    one.canary["ipv4", "tls"] = [100, 99]
    writer = Writer(home / "state-ledger", 400, day * DAY + 1.0 if began is None else began)
    writer.write({day: one}, day * DAY + 86_000.0, clean)
    writer.close()


def write_down(home: Path, day: int) -> None:
    """A ledger of one day: three versions, one of which is refused; 100, 300 ms."""
    book = Book(home / "state-ledger")
    book.open()
    at = (day * DAY + 3600) * 1_000_000
    common = {"list": "court", "file": "court.list", "renamed": moment(at)}
    taken = common | {"entries": 3, "root": "", "leaves": 0, "digest": "0" * 32, "action": "reset",
                      "entries_before": None, "duplicates": 0, "unusable": 0, "guarded": 0, "exceptions_lost": 0,
                      "signed": None}
    force = {"run": "0" * 8, "number": 1, "content": "", "table": "", "lists": 1, "entries": 3, "workers": True,
             "kernel": True, "compiled": moment(at), "more": 0}
    for number, (kind, fields) in enumerate([
            ("start", {"version": "1", "config": "", "clean": None, "policy": {}, "run": "0" * 8}),
            ("taken", taken), ("in force", force | {"changed": [{"list": "court", "delay_ms": 100}]}),
            ("refused", common | {"code": "signature", "in_force": True, "digest": ""}),
            ("taken", taken), ("in force", force | {"changed": [{"list": "court", "delay_ms": 300}]}),
            ("in force", force | {"kernel": False, "changed": [{"list": "court", "delay_ms": 9}]}),
            ("not filtering", {"who": "queues", "code": "queues"}),
            ("filtering", {"who": "queues", "after_ms": 2500}),
            ("not filtering", {"who": "rules", "code": "rules"})]):
        assert why_wrong(kind, fields) is None
        book.write(at + number * 1_000_000, kind, fields)
    book.sync()
    book.close()
