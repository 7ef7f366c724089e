"""`edgeblock publish`: a signed repository of lists, made and kept for many boxes.

In: an action, a directory that is served, keys. Out: metadata and files there, and what has become of them. Asks for
a passphrase on a terminal alone, so that it runs in a pipeline. Never here: what is signed (fleet/publish.py), what
is wrong with a list (blocklist/lint.py).
"""

import argparse
import getpass
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeblock import config
from edgeblock.blocklist.lint import grouped
from edgeblock.commands import add_config
from edgeblock.errors import ConfigError, EdgeblockError, printable
from edgeblock.fleet import publish, release, watch
from edgeblock.fleet.publish import NotSigned, Publisher, PublishError
from edgeblock.fleet.releases import HOLDS, OWN, path_of, read_rings
from edgeblock.fleet.signing import Keys, read_public

EXAMPLES = """\
  edgeblock publish init /srv/lists --keys /root/keys
  edgeblock publish /srv/lists --from /etc/edgeblock/rules --dry-run
  edgeblock publish /srv/lists --from rules --rings canary=0,early=1h,all=4h..12h
  edgeblock publish refresh /srv/lists
  edgeblock publish hold /srv/lists 17 --why "shop.example is blocked"
  edgeblock publish rollback /srv/lists 16
  edgeblock publish watch /srv/lists --prometheus http://prometheus:9090
Actions: init, update (the default), refresh, sign, hold, withdraw, rollback, delegate, rotate, status, watch; each is
in docs/publish.md. A release has the version of the metadata that brought it; `status` shows them.
Keys are in --keys, in the directory that EDGEBLOCK_KEYS names, or in DIR.keys; the passphrase of encrypted ones is in
--passphrase-file or in the file that EDGEBLOCK_PASSPHRASE_FILE names, or is asked for on a terminal.
Exit status: 0 if it is published, or nothing had to be; 1 if a guard rail refuses a list, or signatures are missing;
2 if it cannot be done."""

RINGS = "canary=0,early=1h,all=4h"
STAGED = ".staged-"


def now() -> float:
    """Unix seconds."""
    return time.time()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("words", metavar="[ACTION] DIR [WHAT]", nargs="+",
                        help="the repository, after what is to be done there; WHAT: a version, an authority, a role")
    parser.add_argument("--keys", metavar="DIR", help="where the keys are, never beneath the repository")
    parser.add_argument("--passphrase-file", metavar="FILE", help="its first line opens encrypted keys")
    parser.add_argument("--from", dest="source", metavar="RULES", help="the rules directory that is published")
    parser.add_argument("--role", metavar="NAME", default=OWN, help="the authority whose release it is")
    parser.add_argument("--rings", metavar="TIMES", default=RINGS,
                        help=f"when each ring may take it, after now (default: {RINGS})")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    parser.add_argument("--show", action="store_true", help="show the entries that come and go, too")
    parser.add_argument("--force", action="store_true", help="publish what guard rails refuse")
    parser.add_argument("--threshold", metavar="N", type=int, help="how many keys have to sign (root and targets: "
                                                                   "default 1)")
    parser.add_argument("--days", metavar="ROLE=N", action="append", default=[],
                        help="init: how long what a role signs is good for")
    parser.add_argument("--public", metavar="FILE", action="append", default=[],
                        help="delegate: the public key of the authority (default: a key is made)")
    parser.add_argument("--why", metavar="TEXT", default="", help="the reason, which boxes show")
    parser.add_argument("--off", action="store_true", help="hold: no longer")
    parser.add_argument("--prometheus", metavar="URL", help="watch: the Prometheus that all boxes are in")
    parser.add_argument("--metrics", metavar="FILE", help="watch: a file of metrics instead")
    parser.add_argument("--every", metavar="SECONDS", type=float,
                        help="watch: again and again (default: once, as for cron)")
    parser.add_argument("--json", action="store_true", help="status: one JSON object")


def main(chosen: argparse.Namespace) -> int:
    action, place, what = read_words(chosen.words)
    if action == "init":
        return init(place, chosen)
    keys = keys_of(place, chosen)
    with publish.locked(place):
        for path in place.glob(f"{STAGED}*"):       # of one that was killed
            shutil.rmtree(path, ignore_errors=True)
        if action == "watch":
            pass
        else:
            try:
                return ACTIONS[action](Publisher(place, keys, now), what, chosen)
            except NotSigned as problem:
                print(f"edgeblock: {printable(str(problem))}", file=sys.stderr)
                return 1
    return watch_boxes(place, keys, chosen)


def read_words(words: list[str]) -> tuple[str, Path, list[str]]:
    """The action, the repository, and what it is about."""
    known = ("init", *ACTIONS, "watch")
    action = words[0] if words[0] in known else ""
    rest = words[1:] if action else words
    action = action or "update"
    if not rest:
        raise ConfigError(f"publish {action}: names no directory; a repository is one that a web server serves, such "
                          "as /srv/lists")
    place, what = Path(rest[0]), rest[1:]
    if len(words) > 1 and action == "update" and words[0] != "update":
        raise ConfigError(f"publish {words[0]}: is no action, and only one repository is published at a time; "
                          f"actions are {', '.join(known)}")
    wants = {"hold": 1, "rollback": 1, "delegate": 1, "rotate": 1}.get(action, 0)
    if action == "withdraw" and not what or action != "withdraw" and len(what) != wants:
        shown = {"delegate": "one authority", "rotate": "one role"}.get(action, "a version, as `status` shows them")
        raise ConfigError(f"publish {action} {place}: needs {shown} behind it" if wants or action == "withdraw" else
                          f"publish {action} {place}: {' '.join(what)}: nothing more is known")
    return action, place, what


def versions_of(what: list[str]) -> list[int]:
    if bad := next((one for one in what if not one.isdecimal() or len(one) > 15), None):
        raise ConfigError(f"{bad}: is no version of a release; `edgeblock publish status DIR` shows them")
    return [int(one) for one in what]


# Keys ----------------------------------------------------------------------------------------------------------

def keys_of(place: Path, chosen: argparse.Namespace) -> Keys:
    named = chosen.keys or os.environ.get("EDGEBLOCK_KEYS")
    directory = Path(named) if named else place.with_name(place.name + ".keys")
    if directory.absolute() == place.absolute() or place.absolute() in directory.absolute().parents:
        raise ConfigError(f"--keys {directory}: is beneath {place}, which everybody can read; name another")
    return Keys(directory, lambda: passphrase(chosen, False))


def passphrase(chosen: argparse.Namespace, new: bool) -> bytes | None:
    """None where none is given. A new one is asked for twice."""
    file = chosen.passphrase_file or os.environ.get("EDGEBLOCK_PASSPHRASE_FILE")
    if file:
        try:
            with open(file, "rb") as opened:
                secret = opened.readline(4096).rstrip(b"\r\n")
        except OSError as problem:
            raise ConfigError(f"{file}: the passphrase cannot be read: {problem.strerror}") from None
        if not secret:
            raise ConfigError(f"{file}: its first line, which is the passphrase, is empty")
        return secret
    if not sys.stdin.isatty():
        return None
    told = getpass.getpass("passphrase of the offline keys" + (" (none: not encrypted): " if new else ": "))
    if new and told and getpass.getpass("once more: ") != told:
        raise ConfigError("the two passphrases differ; begin again")
    return told.encode() or None


def init(place: Path, chosen: argparse.Namespace) -> int:
    threshold = chosen.threshold or 1
    if not 1 <= threshold <= 16:
        raise ConfigError(f"--threshold {threshold}: must be 1 to 16")
    keys = keys_of(place, chosen)
    keys = Keys(keys.directory, lambda: passphrase(chosen, True))
    made = publish.create(place, keys, threshold, now, read_days(chosen.days))
    root = place / publish.METADATA / "1.root.json"
    print(f"{place}: a repository; let a web server serve it")
    print(f"{root}: every box gets a copy, as /etc/edgeblock/root.json")
    for role in publish.OFFLINE:
        state = "encrypted" if keys.passphrase() else "NOT encrypted"
        print(f"into the safe ({state}; {threshold} of {len(made[role])} sign): {', '.join(made[role])}")
    print(f"stay here, for cron and hold (not encrypted): "
          f"{', '.join(path for role in ('snapshot', 'timestamp', HOLDS) for path in made[role])}")
    print(f"`edgeblock publish {place} --from RULES` needs those of {OWN}; `edgeblock publish rotate {place} ROLE` "
          "those of root")
    return 0


def read_days(stated: list[str]) -> dict[str, int]:
    days = {}
    for one in stated:
        role, _, number = one.partition("=")
        if role not in publish.DAYS or not number.isdecimal() or not 1 <= int(number) <= 3650:
            raise ConfigError(f"--days {one}: write ROLE=N with one of {', '.join(publish.DAYS)} and 1 to 3650 days")
        days[role] = int(number)
    return days


# Releases ------------------------------------------------------------------------------------------------------

@contextmanager
def folder_for(place: Path, dry: bool) -> Iterator[Path]:
    """Where files are copied before they are judged; of a dry run outside of the repository."""
    try:
        with tempfile.TemporaryDirectory(prefix=STAGED, dir=None if dry else place) as folder:
            yield Path(folder)
    except PermissionError as problem:
        raise PublishError(f"{place}: cannot be written: {problem.strerror}") from None


def update(publisher: Publisher, _: list[str], chosen: argparse.Namespace) -> int:
    if not chosen.source:
        raise ConfigError(f"publish {publisher.place}: names nothing to publish; give --from RULES")
    role, rings = chosen.role, read_rings(chosen.rings)
    table = publisher.table(role)
    whole = config.load(chosen.config)
    with folder_for(publisher.place, chosen.dry_run) as folder:
        new, old = folder / "new", folder / "old"
        new.mkdir()
        old.mkdir()
        files, left = release.gather(Path(chosen.source), new)
        for name, why in left.items():
            print(printable(f"edgeblock: {name}: is not published: {why}"), file=sys.stderr)
        report = release.judge(new, whole.rules, whole.reply.redirect)
        for finding in grouped(report.errors):
            print(finding.marked("error: "), file=sys.stderr)
        before = table.newest
        if before is not None:
            release.lay_out(before.files, lambda name, digest: publisher.file_of(
                path_of(role, name), digest), old)
        for change in release.compare(old, new, whole.rules, chosen.show):
            print(change)
            for line in change.shown:
                print(printable(f"  {line}"))
        if report.errors and not chosen.force:
            print(f"edgeblock: {len(report.errors)} errors: boxes would refuse this, and nothing is published; fix "
                  "them, or publish all the same with --force", file=sys.stderr)
            return 1
        if before is not None and dict(before.files) == files:
            print(f"{role}: nothing has changed since release {before.version}")
            if not chosen.dry_run:
                publisher.refresh()
            return 0
        if chosen.dry_run:
            print("dry run: nothing was written")
            return 0
        version = publisher.release(role, new, files, rings)
        publisher.commit()
    publish.tidy(publisher)
    print(f"{role}: release {version} is published, for {chosen.rings}")
    return 0


def refresh(publisher: Publisher, _: list[str], chosen: argparse.Namespace) -> int:
    if chosen.dry_run:
        print("\n".join(f"{role}: waits" for role in publisher.pending()) or "a new timestamp")
        return 0
    changed = publisher.refresh()
    publish.tidy(publisher)
    print(f"timestamp {publisher.timestamp.signed.version}" + (f", with {', '.join(changed)}" if changed else ""))
    return 0


def sign(publisher: Publisher, _: list[str], chosen: argparse.Namespace) -> int:
    waiting = publisher.take_up()
    if not waiting:
        print("nothing waits for signatures")
        return 0
    publisher.commit()
    print(f"signed and published: {', '.join(waiting)}")
    return 0


def hold(publisher: Publisher, what: list[str], chosen: argparse.Namespace) -> int:
    [version] = versions_of(what)
    publisher.hold(chosen.role, version, chosen.why, chosen.off)
    state = "no longer held" if chosen.off else "held"
    return done(publisher, chosen, f"{chosen.role}: release {version} is {state}")


def withdraw(publisher: Publisher, what: list[str], chosen: argparse.Namespace) -> int:
    versions = versions_of(what)
    to = publisher.withdraw(chosen.role, versions, chosen.why)
    return done(publisher, chosen, f"{chosen.role}: withdrawn {', '.join(what)}; boxes go to release {to}")


def rollback(publisher: Publisher, what: list[str], chosen: argparse.Namespace) -> int:
    [version] = versions_of(what)
    table = publisher.table(chosen.role)
    back = table.of(version)
    if back is None or back.withdrawn:
        known = ", ".join(str(one.version) for one in table.releases if not one.withdrawn)
        raise PublishError(f"{version}: is {'withdrawn' if back else 'no release that is still there'}; boxes can go "
                           f"back to {known}")
    newer = [one.version for one in table.releases if one.version > version and not one.withdrawn]
    if not newer:
        print(f"{chosen.role}: release {version} is the newest already")
        return 0
    to = publisher.withdraw(chosen.role, newer, chosen.why or f"rolled back to {version}")
    return done(publisher, chosen, f"{chosen.role}: withdrawn {', '.join(map(str, newer))}; boxes go to release {to}")


def delegate(publisher: Publisher, what: list[str], chosen: argparse.Namespace) -> int:
    [authority] = what
    keys = [read_public(Path(path)) for path in chosen.public]
    if not keys and not chosen.dry_run:
        keys = [publisher.keys.make(authority, False)]
        print(f"{publisher.keys.file_of(keys[0].keyid)}: is the key of {authority}; hand it over, and keep no copy")
    publisher.delegate(authority, keys, min(chosen.threshold or 1, max(len(keys), 1)))
    return done(publisher, chosen, f"{authority}: may publish {authority}/*, and nothing else")


def rotate(publisher: Publisher, what: list[str], chosen: argparse.Namespace) -> int:
    [role] = what
    publisher.keys_of(role)
    if chosen.dry_run:
        print(f"dry run: {role} would get another key")
        return 0
    file, gone = publish.rotate(publisher, role, chosen.threshold)
    where = "into the safe" if role in publish.OFFLINE else "stays where its work is done"
    print(f"{file}: the new key of {role}, {where}")
    for keyid in gone:
        print(f"{publisher.keys.file_of(keyid) or keyid}: signs for {role} no more; take it away")
    return 0


def done(publisher: Publisher, chosen: argparse.Namespace, what: str) -> int:
    if chosen.dry_run:
        print(f"dry run: {what}")
        return 0
    publisher.commit()
    print(what)
    return 0


# What is there -------------------------------------------------------------------------------------------------

def status(publisher: Publisher, _: list[str], chosen: argparse.Namespace) -> int:
    told = as_told(publisher)
    if chosen.json:
        print(json.dumps(told))
        return 0
    for role, one in told["roles"].items():
        over = " EXPIRED" if one["expires"] <= publisher.now() else ""
        print(f"{role} {one['version']}: until {when(one['expires'])}{over}; {one['keys_here']} of "
              f"{one['threshold']} keys here")
    for authority, releases in told["releases"].items():
        for one in releases:
            state = f"withdrawn ({one['withdrawn']})" if one["withdrawn"] else \
                f"held ({one['held']})" if one["held"] else "for " + ", ".join(
                    f"{name} from {when(first)}" + (f" to {when(last)}" if last > first else "")
                    for name, (first, last) in one["rings"].items())
            print(printable(f"{authority} release {one['version']}: {len(one['files'])} files, {state}"))
    for role in told["pending"]:
        print(f"{role}: a newer version waits for signatures, or for `edgeblock publish refresh`")
    return 0


def as_told(publisher: Publisher) -> dict[str, Any]:
    signed: dict[str, Any] = {"root": publisher.root.signed, "timestamp": publisher.timestamp.signed,
                              "snapshot": publisher.snapshot.signed,
                              **{role: one.signed for role, one in publisher.roles.items()}}
    roles = {}
    for role, one in signed.items():
        keyids, threshold = publisher.keys_of(role)
        roles[role] = {"version": one.version, "expires": one.expires.timestamp(), "threshold": threshold,
                       "keys_here": sum(map(publisher.keys.has, keyids))}
    held = publisher.held()
    releases = {authority: [{"version": one.version, "made": one.made, "rings": dict(one.rings),
                             "withdrawn": one.withdrawn, "held": held.of(authority).get(one.version, ""),
                             "files": sorted(one.files)} for one in publisher.table(authority).releases]
                for authority in publisher.authorities()}
    return {"roles": roles, "releases": releases, "pending": sorted(publisher.pending())}


def when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


# Boxes ---------------------------------------------------------------------------------------------------------

def watch_boxes(place: Path, keys: Keys, chosen: argparse.Namespace) -> int:
    """Holds what a box has found bad. Again and again, one failure ends nothing: it is told."""
    if bool(chosen.prometheus) == bool(chosen.metrics):
        raise ConfigError("publish watch: needs --prometheus URL or --metrics FILE, one of them")
    while True:
        try:
            bad = watch.from_prometheus(chosen.prometheus) if chosen.prometheus else \
                watch.from_file(Path(chosen.metrics))
            with publish.locked(place):
                for line in watch.hold_all(Publisher(place, keys, now), bad, chosen.dry_run):
                    print(printable(line), flush=True)
        except EdgeblockError as problem:
            if not chosen.every:
                raise
            print(f"edgeblock: {printable(str(problem))}", file=sys.stderr, flush=True)
        if not chosen.every:
            return 0
        threading.Event().wait(chosen.every)


ACTIONS = {"update": update, "refresh": refresh, "sign": sign, "hold": hold, "withdraw": withdraw,
           "rollback": rollback, "delegate": delegate, "rotate": rotate, "status": status}
