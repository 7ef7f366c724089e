"""What a record of the ledger may say: its kinds, and the fields of each.

In: a kind and fields. Out: None, or why that is no record. Fields are text, whole numbers, true, false, null, and
lists and tables of these; a moment is RFC 3339 in UTC with microseconds, a duration whole milliseconds (`..._ms`).
Names of lists and of their files are in it, as in `edgeblock status`. Never here: an entry of a list, a URL, an
address, a subscriber, or a text that somebody else has written (of a refusal only its code).
"""

from typing import Any

# Kind: what it says; then its fields, each with what it is. A field that ends in ? may be missing.
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    # ---- the daemon
    "start": ("the daemon has begun", {
        "version": "of edgeblock",
        "config": "SHA-256 of the configuration in force, as canonical JSON",
        "clean": "whether the daemon before has written `stop`; null where there was none",
        "last?": "when the record before was made, where that daemon was killed",
        "policy": "what is done where nobody filters: {overload, absent}, each open or closed",
        "run": "eight hexadecimal digits that tell this run of the daemon from others",
    }),
    "stop": ("the daemon ends as it was told to", {
        "handing_over": "whether another takes over at once",
        "run": "as of `start`",
        "in_force": "as of `pulse`",
        "sums": "as of `pulse`, since the last one",
    }),
    "pulse": ("the daemon is there: every ten minutes, so that a daemon that was killed is missed", {
        "run": "as of `start`",
        "in_force": "`number` of the `in force` record of this run that still holds; 0 where there was none yet, or "
                    "others were given and not everybody has them",
        "filtering": "whether the box filters",
        "sums": "what was counted since the pulse before, or the start: see SUMS",
    }),
    "day": ("the sums of a day (UTC) that is over, by this daemon: first record of the next segment", {
        "day": "YYYY-MM-DD",
        "sums": "as of `pulse`",
    }),
    # ---- lists
    "seen": ("while the daemon runs, a file in the rules directory is complete, or has gone; lists are read", {
        "file": "its name",
        "renamed": "when it came there (its ctime); null where it has gone",
        "size": "bytes, or null",
    }),
    "taken": ("a version of a list is accepted and compiled", {
        "list": "its name",
        "file": "its file",
        "entries": "distinct ones",
        "root": "what its entries are committed to, or \"\" (docs/ledger.md)",
        "leaves": "how many are in that",
        "digest": "keyed digest of the file",
        "action": "of the list",
        "window?": "when the whole list holds, as JSON, where that is not always",
        "clients?": "only or except, where the list is not for every subscriber",
        "entries_before": "of the version before, or null",
        "duplicates": "entries that are there twice",
        "unusable": "lines left out",
        "guarded": "entries that a guard rail left out",
        "exceptions_lost": "exceptions that could not be taken",
        "signed": "Unix seconds of its signature, or null",
        "renamed": "as of `seen`; null where nobody saw it",
    }),
    "refused": ("a file is refused; the version before stays", {
        "list": "its name",
        "file": "its file",
        "code": "why: see CODES",
        "in_force": "whether a version before is",
        "digest": "SHA-256 of the file where it is an order, or \"\"",
        "renamed": "as of `seen`",
    }),
    "removed": ("a list is not in force any more", {
        "list": "its name",
        "why": "removed, expired",
        "entries_before": "or null",
    }),
    "clients": ("whom a list is for has changed; its entries are the same", {
        "list": "its name",
        "prefixes": "how many",
    }),
    "withdrawn": ("a refused file is gone", {
        "list": "its name",
    }),
    "rules kept": ("the lists could not be looked at, or no new rules be made: all stays", {
        "code": "why: see CODES",
    }),
    "lists": ("what lists are in force, all of them: at the first `in force` of a run, and each day", {
        "part": "1, 2 ...",
        "of": "how many such records belong together",
        "lists": "each as its name, root, action, window and clients, as in `taken`, \"\" where missing",
    }),
    "in force": ("every worker, and the kernel, have the rules; where that takes long, once before, with false; "
                 "again behind a `clock` record", {
        "run": "as of `start`",
        "number": "of these records in this run: 1, 2 ...; each holds until the next",
        "content": "digest of what is listed, to compare boxes",
        "table": "what lists are in force, as a Merkle root (docs/ledger.md)",
        "lists": "how many",
        "entries": "of all",
        "workers": "whether every worker has them",
        "kernel": "whether the kernel has every address that it is to have",
        "compiled": "when they were compiled, and kernel and workers began to be given them: until then those before "
                    "held",
        "changed": "lists that are new in it: each {list, delay_ms from the rename of its file, or null}; at most "
                   "1000",
        "more": "how many are left out there",
    }),
    "windows": ("windows of entries have opened or closed", {
        "list": "its name",
        "opened": "entries",
        "closed": "entries",
        "whole": "1: the list's own has opened, -1: closed",
    }),
    "source": ("how a source of lists is has changed, or it has brought a version, as edgeblock-fetch says", {
        "source": "its name; \"\" for edgeblock-fetch itself",
        "kind": "https, zone, tuf, or \"\"",
        "code": "see CODES; \"\" where it answers",
        "files": "how many it has in the rules directory",
        "bytes": "of them",
        "changed": "when its last version landed; null for never",
    }),
    "unrecorded": ("there were more of such records than are made of a day", {
        "kind": "seen, refused or source",
        "count": "how many more, since the last such record",
    }),
    # ---- whether the box filters
    "not filtering": ("the box does not filter, wholly or in part", {
        "who": "what has seen it",
        "code": "see CODES",
    }),
    "filtering": ("that is over", {
        "who": "what had seen it",
        "after_ms": "how long it was",
    }),
    "canary": ("what the box's own probes show has changed", {
        "family": "ipv4 or ipv6",
        "protocol": "http, tls, quic or address",
        "ok": "whether they show that it filters",
        "code": "see CODES; \"\" where ok",
    }),
    "unread": ("packets went by unread, or were lost; at most once a minute", {
        "sums": "as of `pulse`, those counts alone",
    }),
    "worker": ("a worker has ended and was replaced", {
        "queue": "which",
        "restarts": "since the start",
    }),
    "bypass": ("a way past the kernel rules was found, or is gone", {
        "kind": "which",
        "count": "how many there are now",
    }),
    # ---- the ledger itself
    "key": ("a key was made, which signs from here on", {
        "public": "the minisign public key",
        "id": "its id",
    }),
    "clock": ("the clock was set", {
        "step_ms": "by so much, forwards where positive",
    }),
    "gap": ("records could not be written when they were made", {
        "from": "when the first of them was made",
        "to": "when the last was",
        "late": "records that follow it, each with its own time",
        "lost": "records that nobody has",
        "code": "see CODES",
    }),
    "recovered": ("an unfinished record at the end was cut off at a start", {
        "segment": "which",
        "bytes": "how many",
        "sha256": "of them",
    }),
    "damaged": ("a segment is not as it was written; it stays as it is, and this follows on its last good record", {
        "segment": "which",
        "records": "how many are good",
    }),
    "dropped": ("old segments were removed, as the settings say; their heads stay", {
        "first": "segment",
        "last": "segment",
        "code": "age, or size",
    }),
}

# Of `sums`: what was counted in a span of time, all of it whole numbers.
SUMS = {
    "span_ms": "how long",
    "filtering_ms": "for how much of it the box filtered",
    "canary_rounds": "rounds of the box's own probes",
    "canary_ok": "rounds of those in which every probe showed that it filters",
    "proven_ms": "for how much of it two rounds one after the other both did",
    "lost": "packets that the kernel could not hand over (NFQUEUE), passed or dropped as `policy` of `start` says",
    "full": "packets that met a full queue, the same",
}

# Why: of `refused`, `rules kept`, `not filtering`, `canary`, `gap`, `source`.
CODES = {
    "signature": "it is missing, wrong, of another or an older one",
    "settings": "NAME.toml, or who may set what",
    "encoding": "no text that can be read",
    "format": "another format, or none",
    "unparsable": "too many lines that say nothing",
    "guard rail": "an entry that no list may have",
    "size": "too long, too many entries, or too slow to read",
    "change": "grew or shrank by more than it may",
    "removal": "it was removed, and with it more than may go at once",
    "untrue": "the new rules did not do what the list says when they were tried",
    "disk": "it could not be kept or written",
    "unreadable": "the file or directory cannot be read",
    "other": "anything else; the log has the words",
    "rules": "kernel rules are gone or not as they were applied",
    "queues": "nobody works a queue",
    "addresses": "the kernel does not have the addresses",
    "shortcut": "another's program is in the shortcut's place",
    "canary": "a listed name or address passes",
    "blocked": "a name that is not listed is blocked",
    "silent": "no answer came",
    "fetch": "it could not be had; what came before stays",
    "forged": "what came cannot be genuine; what came before stays",
    "gone": "it is not asked any more",
    "full": "the disk is full",
    "fault": "a fault of edgeblock's own: what was no record is lost; the log has the words",
    "backlog": "more records than are kept while the disk takes none",
}


def why_wrong(kind: str, fields: dict[str, Any]) -> str | None:
    """Why these are no fields of that kind; None where they are."""
    if kind not in KINDS:
        return f"{kind!r} is no kind of record"
    known = KINDS[kind][1]
    needed = {name for name in known if not name.endswith("?")}
    allowed = {name.removesuffix("?") for name in known}
    if lacking := needed - fields.keys():
        return f"{kind}: {', '.join(sorted(lacking))} is missing"
    if foreign := fields.keys() - allowed:
        return f"{kind}: {', '.join(sorted(foreign))} is no field of it"
    return None
