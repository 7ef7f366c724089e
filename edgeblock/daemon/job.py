"""One job of the process that compiles lists: what has changed in a directory into a snapshot in memory.

In: a job as compiler.py pickles it, and open files. Out: a line of JSON on standard output, a sealed file in memory;
or one on standard error, and status 2. Before it reads what others have written it gives up all that it does not
need (confine.py). What is to come into force is tried here (selfcheck.py), for some seconds more when the rest has
been said. Never here: the text of a listed name in what is said.
"""

import fcntl
import json
import os
import pickle
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from edgeblock.blocklist.guard import public_suffixes, shipped_protected
from edgeblock.blocklist.keys import Key, random_key
from edgeblock.blocklist.refresh import refresh, refresh_one
from edgeblock.blocklist.sample import HANDED_MAX, Handed, Trial, from_bytes, to_bytes
from edgeblock.blocklist.store import MemoryStore, Store, read_key
from edgeblock.config import Rules
from edgeblock.daemon.confine import confine
from edgeblock.daemon.itself import give_way
from edgeblock.daemon.mapping import SEALS
from edgeblock.daemon.memory import write_all
from edgeblock.daemon.selfcheck import SelfCheck
from edgeblock.errors import EdgeblockError, ListError, printable

PIECE = 1 << 20
SECONDS = 900           # of processor time for all short lists and the snapshot: 50 times what ten million take
SECONDS_ALONE = 36_000  # the same for one long list, whose own time is up sooner
MEMORY_SHARE = 2        # it may have the machine's memory divided by this,
MEMORY_LEAST = 1 << 30  # and this much in any case


def work(rules: Rules, busy: list[str], digest: str, afresh: bool, lane: dict[str, dict[str, Any]], died: bool,
         held: str, files: list[int], trial: Trial, handed: dict[str, Handed], redirects: bool,
         commits: bool = False) -> dict[str, Any]:
    """The job: what `Loaded` has but for its files. Of `files` the first holds the snapshot afterwards unless it has
    that `digest`, the second the one that it lies over unless that is `held`, the third the key."""
    key: Key = b""
    key_fd = files[2]
    try:
        key = read_key(rules.key, create=True, file=key_fd)
        store = Store(rules.key.parent, key, commits=commits)
        outcome = refresh(rules, store, time.time(), busy, afresh, hurry=not digest, lane=lane, died=died,
                          probed=True, held=held, trial=trial, handed=handed, redirects=redirects)
    except (ListError, OSError) as problem:
        if digest:
            raise
        # Nothing is in force, and nothing can be kept: what the lists say now is better than nothing.
        key = key or key_in_memory(rules, key_fd)
        store = MemoryStore(rules.key.parent, key, commits)
        outcome = refresh(rules, store, time.time(), busy, hurry=True, probed=True, trial=trial,
                          redirects=redirects)
        outcome.problem = f"degraded: {printable(str(problem))}; lists are in force, but no version of them is kept"
    said = asdict(outcome)
    said["digest"], said["base"] = store.digests()
    if said["digest"] != digest:
        hand_over(store, files[0], bool(said["base"]))
        if said["base"] and said["base"] != held:
            hand_over(store, files[1], False)
    return said


def hand_over(store: Store, fd: int, overlay: bool) -> None:
    with store.open(overlay) as source, open(os.dup(fd), "wb") as target:
        shutil.copyfileobj(source, target, PIECE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)


def drop_proofs(rules: Rules, most: int) -> None:
    """No more than so many bytes of what proves entries of versions before."""
    with suppress(ListError, OSError):
        Store(rules.key.parent, read_key(rules.key)).drop_proofs(most)


def samples_in(files: dict[str, int]) -> dict[str, Handed]:
    """What the processes that have read long lists alone have left of them, by the names of these lists."""
    found = {name: from_bytes(os.pread(file, HANDED_MAX, 0)) for name, file in files.items()}
    return {name: one for name, one in found.items() if one is not None}


def key_in_memory(rules: Rules, file: int) -> Key:
    """The key of the box where it can be read, else one that nobody has."""
    try:
        return read_key(rules.key, file=file)
    except ListError:
        if os.path.lexists(rules.key):
            raise
        return random_key(file)


def give_up(rules: Rules, alone: bool) -> list[str]:
    """What this process needs no more; what could not be given up, in words."""
    state = rules.key.parent
    with suppress(OSError):
        state.mkdir(parents=True, exist_ok=True)
    memory = max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_SHARE, MEMORY_LEAST)
    readable = [path for path in (rules.protected, rules.shared) if path is not None]
    return confine(readable, [rules.directory, state], memory, SECONDS_ALONE if alone else SECONDS)


def prepare() -> None:
    """What every job needs, made before there is one."""
    public_suffixes()
    shipped_protected()


def do(job: bytes, files: list[int]) -> int:
    """The exit status. `files` are for the snapshot, the one below and the key, and those with samples of long lists;
    or, for one long list, one for its sample."""
    config, name, busy, digest, afresh, lane, died, held, sampled = pickle.loads(job)
    rules, trial = config.rules, SelfCheck(config)
    if digest or name:      # else nothing is in force yet, and nobody to give way to
        give_way()
    try:
        left = give_up(rules, bool(name))
        if name:
            store = Store(rules.key.parent, read_key(rules.key), slow=True, commits=config.ledger.enabled)
            said = refresh_one(rules, store, time.time(), name, died,
                               (lambda handed: write_all(files[0], to_bytes(handed))) if rules.self_check else None)
        else:
            handed = samples_in(dict(zip(sampled, files[3:], strict=True)))
            said = work(rules, busy, digest, afresh, lane, died, held, files, trial, handed,
                        bool(config.reply.redirect), config.ledger.enabled)
            said["warnings"] += left
            said["trial"] = trial.told()
    except EdgeblockError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:      # memory and disks run full anywhere
        print(f"{problem.filename or 'the snapshot in memory'}: {problem.strerror}", file=sys.stderr)
        return 2
    print(json.dumps(said), flush=True)
    if not name and said["digest"] != digest:
        if not digest:
            give_way()
        if config.ledger.enabled:       # now, for with the last word this process is ended
            drop_proofs(rules, config.ledger.proof_megabytes * 1_000_000)
        trial.rest()
        print(json.dumps(trial.told()), flush=True)
    return 0

