"""A box under traffic to which everything happens that may happen in a week, while its canary is watched.

In: how long, in which mode (running.py), or how many reloads, restarts and flushes. Out: a line every ten seconds,
one line of JSON, and exit status 1 where a listed page came, an innocent one did not, the canary failed while a
daemon was there, or something has grown. `make soak` runs it; a daemon is replaced as systemd does it (manager.py).

    tests/live/soak.py --seconds 600 --mode on
    tests/live/soak.py --week --reloads 10000 --restarts 200 --flushes 50
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import traces
from load import AtWork, Load, add_sources
from manager import Manager
from running import CONFIG, CONTACT, HOP_SHORTCUT, LISTS, REDIRECT, UNTRACKED, children, track_nothing

from edgeblock.asking import ask
from edgeblock.errors import SystemProblem
from edgeblock.lab import Lab, page, until

MODES = {"on": '[ruleset]\nkernel = "judge"\n', "off": '[ruleset]\nkernel = "off"\n', "untracked": UNTRACKED,
         "shortcut": HOP_SHORTCUT}
MORE = '[queue]\nworkers = 2\n[canary]\nperiod = {period}\n[daemon]\nhang = 5.0\ncontrol = "{home}/control.sock"\n'
PERIOD = 1.0            # seconds between two rounds: ten times as often as it ships
PROGRESS = 10.0         # seconds between two lines
LOOK = 0.2              # seconds between two questions for the status
FETCH = 20.0            # seconds that a page may take: packets wait for the next daemon
READY = 30.0            # seconds that a daemon may take to start
# What happens, and how many seconds pass between two of it on average. Each comes early in a short run.
EVENTS = {"list": 0.7, "sighup": 4.0, "worker": 9.0, "restart": 25.0, "killed": 60.0}
# A request that a worker was about to let pass when it was killed is lost, with its connection. A connection whose
# packet a worker had in hand at two of its ends is refused (docs/daemon.md). Here workers are killed again and again.
REFUSED = "connection refused: its packet has ended a worker"
FAMILY = 5              # processes of a daemon at rest with two workers
SETTLE = 30.0           # seconds in which a daemon comes to rest
LISTS_CHANGED = 7       # that change, one after the other
LONGER = 90.0           # seconds more that a soak takes until everything has happened once
APART = 4.0             # seconds between two flushes: again and again is another case (vigil.py)
AFTER = 6.0             # seconds after a flush in which the canary may be red: rules are gone, and come back
FEW_FLOWS = 4096        # that an engine remembers in a week: its memory is touched as flows come, and then all of it
MEASURED = 30           # rounds that are asked for one after the other, to measure what one costs


class Box:
    """A daemon in a lab, replaced again and again, and what it has said since the first."""

    def __init__(self, lab: Lab, home: Path, mode: str, period: float = PERIOD, more: str = "",
                 limits: str = "") -> None:
        self.lab, self.home, self.rules = lab, home, home / "rules"
        self.rules.mkdir()
        for name, text in LISTS.items():
            (self.rules / name).write_text(text)
        settings = home / "edgeblock.toml"
        settings.write_text(CONFIG.format(home=home, contact=CONTACT, redirect=REDIRECT, sample=0.0).replace(
            "[rules]\n", f"[rules]\n{more}") + MODES[mode] + limits
                            + MORE.format(period=period, home=home))
        self.manager = Manager(lab, home, settings)
        self.said = home / "log"
        self.ready = threading.Event()
        self.flushed: list[float] = []      # when
        self.done = threading.Event()
        self.listener = threading.Thread(target=self._listen)
        self.listener.start()

    def _listen(self) -> None:
        while not self.done.is_set():
            if self.manager.hear():
                self.ready.set()

    def start(self) -> float:
        """In how many seconds it was ready."""
        began = time.monotonic()
        self.ready.clear()
        self.manager.start()
        if not self.ready.wait(READY):
            raise SystemExit(f"the daemon is not ready after {READY} s: {self.last_words()}")
        return time.monotonic() - began

    def end(self, number: signal.Signals, hand_over: bool = False) -> None:
        process = self.manager.process
        if hand_over:
            process.send_signal(signal.SIGUSR2)
        process.send_signal(number)
        process.wait(READY)
        self.listen_out()

    def listen_out(self) -> None:
        """What the daemon before has said is heard before the next one begins."""
        threading.Event().wait(0.2)

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = ask(self.home / "control.sock", "status", 20.0)
        return told

    def drop(self, name: str, text: str) -> None:
        new = self.rules / f".{name}.new"
        new.write_text(text)
        new.rename(self.rules / name)

    def kill_worker(self) -> None:
        pids = [one["pid"] for one in self.status()["workers"].values() if one["pid"]]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)

    def flush(self) -> None:
        for tool in ("iptables", "ip6tables"):
            self.lab.run_in("box", [tool, "-t", "mangle", "-F"])

    def at_rest(self) -> dict[str, int]:
        """What there is of it, once that is the same three times in a row."""
        last: list[dict[str, int]] = []

        def same() -> bool:
            # A spare worker, and a process that waits to compile; nobody who still tries the rules.
            if not until(lambda: len(children(self.manager.process.pid, "edgeblock.daemon.worker")) == 3
                         and len(children(self.manager.process.pid, "edgeblock.daemon.compiling")) == 1, SETTLE):
                return False
            threading.Event().wait(0.5)
            last.append(traces.take(self.manager, self.home))
            steady = [{name: value for name, value in one.items() if "memory" not in name} for one in last[-3:]]
            return len(steady) == 3 and steady[0] == steady[1] == steady[2] and steady[0]["processes"] == FAMILY

        if not until(same, SETTLE):
            print("it does not come to rest:", traces.growth(last[-2], last[-1]) if last[1:] else "its processes",
                  file=sys.stderr)
        return last[-1] if last else traces.take(self.manager, self.home)

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of its log, of all daemons."""
        for line in self.said.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                yield json.loads(line)

    def last_words(self) -> str:
        return "\n".join(self.said.read_text(errors="replace").splitlines()[-8:])

    def close(self) -> None:
        self.manager.process.send_signal(signal.SIGTERM)
        try:
            self.manager.process.wait(READY)
        finally:
            self.done.set()
            self.listener.join()
            if self.manager.process.poll() is None:
                self.manager.process.kill()
                self.manager.process.wait()
            self.manager.close()


@contextmanager
def box_of(mode: str, more: str = "", period: float = PERIOD, limits: str = "") -> Iterator[Box]:
    with Lab(extra_hop=True) as lab, tempfile.TemporaryDirectory(prefix="soak-") as home:
        add_sources(lab)
        if mode in ("untracked", "shortcut"):
            track_nothing(lab)
        inside = Path(home, "box")         # the ledger stands beside it
        inside.mkdir()
        box = Box(lab, inside, mode, period, more, limits)
        try:
            box.start()
            yield box
        finally:
            box.close()


class Watch(AtWork):
    """Looks at the canary all the time, in a thread of its own, and fetches pages by TLS beside Load."""

    patience = 2 * FETCH

    def __init__(self, box: Box) -> None:
        self.box = box
        self.done = threading.Event()
        self.rounds = 0                     # of all daemons
        self.red: list[dict[str, Any]] = []             # looks at which it was not green: when, what
        self.silent: list[float] = []       # when nobody answered
        self.passed: list[str] = []
        self.harmed: list[str] = []
        self.fetched: Counter[str] = Counter()
        self.slowest = 0.0
        self.threads = [threading.Thread(target=self._look)] + [
            threading.Thread(target=self._fetch, args=(version,)) for version in (4, 6)]

    def _look(self) -> None:
        last = self.box.status()["canary"]["rounds"]
        before = -last
        while not self.done.wait(LOOK):
            began = time.time()
            try:
                status = self.box.status()
            except SystemProblem:           # no daemon, or none that answers yet
                self.silent.append(began)
                continue
            canary, vigil = status["canary"], status["vigil"]
            if canary["rounds"] < last:
                before += last
            last = canary["rounds"]
            self.rounds = before + last
            wrong = {f"{one['protocol']}/{one['family']}": one["wrong"] for one in canary["probes"] if one["wrong"]}
            if wrong or vigil and not vigil["filtering"]:
                self.red.append({"at": began, "probes": wrong, "causes": vigil.get("causes", [])})

    def _fetch(self, version: int) -> None:
        while not self.done.is_set():
            seen = self.box.lab.fetch("https://open.example/", version=version, timeout=FETCH)
            self.slowest = max(self.slowest, seen.seconds)
            if (seen.exit, seen.body) != (0, page("open.example")):
                self.harmed.append(f"https over IPv{version}: {seen.error} after {seen.seconds:.2f} s")
            seen = self.box.lab.fetch("https://listed.example/", version=version, timeout=2.0)
            if seen.body:
                self.passed.append(f"https over IPv{version} at {time.time():.3f}")
            self.fetched["listed"] += 1
            self.fetched["open"] += 1
            self.done.wait(0.05)


class Happening:
    """What is done to the box, when, and for how long no daemon was there."""

    def __init__(self, box: Box, chance: random.Random) -> None:
        self.box, self.chance = box, chance
        self.count: Counter[str] = Counter()
        self.absences: list[dict[str, Any]] = []        # how a daemon ended, when, and when the next was ready
        self.number = 0
        self.kills: list[float] = []        # when workers were killed

    def list(self) -> None:
        self.number += 1
        self.box.drop(f"more{self.number % LISTS_CHANGED}.list",
                      "".join(f"host{self.chance.randrange(10**9)}.example\n" for _ in range(20)))

    def sighup(self) -> None:
        self.box.manager.process.send_signal(signal.SIGHUP)

    def worker(self) -> None:
        self.kills.append(time.monotonic())
        with suppress(OSError, ValueError, KeyError):
            self.box.kill_worker()

    def restart(self) -> None:
        self._replace("restart", signal.SIGTERM, True)

    def killed(self) -> None:
        self._replace("killed", signal.SIGKILL, False)

    def _replace(self, how: str, number: signal.Signals, hand_over: bool) -> None:
        began = time.time()
        self.box.end(number, hand_over)
        ended = time.time()
        self.box.start()
        self.absences.append({"how": how, "began": began, "ended": ended, "ready": time.time()})

    def due(self, began: float, often: float) -> Iterator[tuple[float, str]]:
        """When what happens next, without end; so many times as often as EVENTS says."""
        times = {what: began + every / often * self.chance.uniform(0.3, 0.8) for what, every in EVENTS.items()}
        while True:
            what = min(times, key=lambda one: times[one])
            yield times[what], what
            times[what] = max(times[what], time.monotonic()) + EVENTS[what] / often * self.chance.uniform(0.5, 1.5)


def canary_cost(box: Box) -> dict[str, float]:
    """Milliseconds of processor time that a round takes, of supervisor and workers, at rest; and its share of a core
    where it asks as often as it ships."""
    def spent(work: Callable[[], None]) -> tuple[float, float]:
        family = [box.manager.process.pid, *children(box.manager.process.pid, "edgeblock.daemon.worker")]
        began, before = time.monotonic(), traces.processor_seconds(family)
        work()
        return traces.processor_seconds(family) - before, time.monotonic() - began

    def rounds() -> None:
        for _ in range(MEASURED):
            ask(box.home / "control.sock", "canary", 20.0)

    idle, seconds = spent(lambda: bool(threading.Event().wait(10.0)) and None)
    busy, took = spent(rounds)
    each = max(0.0, busy - idle / seconds * took) / MEASURED
    return {"round_ms": round(1000 * each, 2), "share_of_a_core_percent": round(100 * each / 10.0, 4),
            "idle_percent": round(100 * idle / seconds, 2)}


def failures(box: Box) -> list[dict[str, Any]]:
    """Times at which the box said that it did not filter, or that a probe failed, with the cause and how long."""
    found: list[dict[str, Any]] = []
    open_: dict[str, dict[str, Any]] = {}
    for one in box.records():
        event, at = one.get("event", ""), datetime.fromisoformat(one["time"]).timestamp() if "time" in one else 0.0
        which = f"canary {one.get('protocol')} {one.get('family')}" if event.startswith("canary") else "vigil"
        if event in ("canary failed", "not filtering"):
            cause = one.get("problem") or one.get("cause")
            if which not in open_:
                open_[which] = {"what": which, "at": at, "cause": cause, "seconds": None}
                found.append(open_[which])
        elif event in ("canary succeeded", "filtering again") and which in open_:
            began = open_.pop(which)
            began["seconds"] = round(at - began["at"], 3)
        elif event == "started":            # another daemon: what the one before has said ends with it
            open_.clear()
    return found


def soak(seconds: float, mode: str, seed: int, often: float = 1.0) -> dict[str, Any]:
    chance = random.Random(seed)
    with box_of(mode) as box:
        assert until(lambda: box.status()["canary"]["state"] == "ok", 20), box.last_words()
        cost = canary_cost(box)
        happening = Happening(box, chance)

        def is_over(passed: float) -> bool:
            """Each has to have happened: on a slow machine that takes longer."""
            return passed >= seconds and (all(happening.count[what] for what in EVENTS) or passed > seconds + LONGER)

        with Load(box.lab) as load, Watch(box) as watch:
            assert until(lambda: len(load.blocked) > 20, 20) and not load.passed
            began = time.monotonic()
            progress = began + PROGRESS
            for at, what in happening.due(began, often):
                while (now := time.monotonic()) < at:
                    if now >= progress:
                        progress += PROGRESS
                        print(f"{now - began:4.0f} s  rounds {watch.rounds}  red looks {len(watch.red)}  "
                              f"blocked {len(load.blocked)}  passed {len(load.passed) + len(watch.passed)}  "
                              f"answers {load.answers}  harmed {len(load.cut) + len(watch.harmed)}  "
                              f"{dict(happening.count)}", flush=True)
                    if is_over(now - began):
                        break
                    watch.done.wait(min(0.1, at - now))
                if is_over(time.monotonic() - began):
                    break
                happening.count[what] += 1
                getattr(happening, what)()
            # It ends in peace: the last round is of a daemon that nothing happens to.
            rounds = watch.rounds
            calm = until(lambda: watch.rounds > rounds + 2 and box.status()["canary"]["state"] == "ok", 30)
        red = failures(box)
        counters, events = box.status(), Counter(one.get("event") for one in box.records())
        return {
            "mode": mode, "seconds": round(time.monotonic() - began), "seed": seed, "happened": dict(happening.count),
            "canary_rounds": watch.rounds, "red": red, "red_looks": len(watch.red), "calm_at_the_end": calm,
            "looks_without_a_daemon": len(watch.silent), "absences": absences_of(happening, box),
            "listed_asked": len(load.blocked) + len(load.passed) + watch.fetched["listed"],
            "listed_passed": len(load.passed) + len(watch.passed), "passed": watch.passed[:5],
            "innocent_answers": load.answers + watch.fetched["open"],
            "innocent_harmed": len(load.cut) + len(watch.harmed), "harmed": [*load.cut, *watch.harmed][:10],
            "lost_with_a_worker": sum(any(at - 1 < sent < at + 1 for at in happening.kills)
                                      for sent in load.unanswered),
            "refused_as_worker_enders": events[REFUSED],
            "slowest_page_s": round(watch.slowest, 2), "canary_cost": cost,
            "hangs": sum(one["hangs"] for one in counters["workers"].values()),
        }


def absences_of(happening: Happening, box: Box) -> dict[str, Any]:
    """For how long no daemon was ready, by how the one before ended; and from there to the canary's first success."""
    greens = [datetime.fromisoformat(one["time"]).timestamp() for one in box.records()
              if one.get("event") == "canary succeeded"]
    told: dict[str, Any] = {}
    for how in ("restart", "killed"):
        those = [one for one in happening.absences if one["how"] == how]
        if those:
            gone = sorted(one["ready"] - one["began"] for one in those)
            green = sorted(min((at for at in greens if at >= one["ended"]), default=0.0) - one["began"]
                           for one in those)
            told[how] = {"times": len(those), "not_ready_s": spread(gone), "until_green_s": spread(green)}
    return told


def spread(values: list[float]) -> list[float]:
    """The least, the middle and the most."""
    return [round(one, 2) for one in (values[0], values[len(values) // 2], values[-1])]


def wrong_with(told: dict[str, Any]) -> list[str]:
    """Why a soak has failed; none where it has not."""
    said = []
    if told["listed_passed"]:
        said.append(f"{told['listed_passed']} listed pages passed")
    if told["innocent_harmed"] > told["refused_as_worker_enders"] + told["lost_with_a_worker"]:
        said.append(f"{told['innocent_harmed']} innocent connections were harmed")
    if told["red"] or told["red_looks"]:
        said.append(f"the canary or the vigil was red {len(told['red'])} times, at {told['red_looks']} looks")
    if not told["calm_at_the_end"]:
        said.append("the canary is not green at the end")
    return said


# ---- the week


def week(reloads: int, restarts: int, flushes: int, mode: str, limit: float,
         more: str = "") -> dict[str, Any]:
    """Reloads and flushes of one daemon, then restarts; measured at the start, after a tenth and at the end."""
    told: dict[str, Any] = {"mode": mode, "wanted": {"reloads": reloads, "restarts": restarts, "flushes": flushes}}
    # Commitments to versions before those in force are kept up to a bound that nothing here would reach: none.
    with box_of(mode, more, limits=f"[limits]\nflows = {FEW_FLOWS}\n[ledger]\nproof_megabytes = 0\n") as box:
        began = time.monotonic()
        for number in range(LISTS_CHANGED):
            box.drop(f"more{number}.list", f"host.example\nother{number}.example\n")    # one proof each, as later
        reload_once(box)
        marks = {"reloads": [box.at_rest()]}
        done = flushed = 0
        progress, rate = began + PROGRESS, 0.0
        while done < reloads and time.monotonic() - began < limit:
            box.drop(f"more{done % LISTS_CHANGED}.list", f"host{done}.example\nother{done}.example\n")
            reload_once(box)
            done += 1
            if flushes and done % max(1, reloads // flushes) == 0 and flushed < flushes:
                flushed += flush_once(box)
            if time.monotonic() >= progress:
                progress += PROGRESS
                rate = done / (time.monotonic() - began)
                print(f"{time.monotonic() - began:4.0f} s  reloads {done} ({rate:.1f}/s)  flushes {flushed}  "
                      f"memory {traces.memory(box.manager.process.pid)} kB  "
                      f"descriptors {len(traces.descriptors(box.manager.process.pid))}", flush=True)
            if done == max(1, reloads // 10):
                marks["reloads"].append(box.at_rest())
        while flushed < flushes:
            flushed += flush_once(box)
        marks["reloads"].append(box.at_rest())
        told["kinds"] = dict(traces.kinds(box.manager.process.pid))
        told["reload_seconds"] = round(time.monotonic() - began)
        began = time.monotonic()
        marks["restarts"] = [marks["reloads"][-1]]
        for number in range(1, restarts + 1):
            killed = number % 10 == 0
            box.end(signal.SIGKILL if killed else signal.SIGTERM, not killed)
            box.start()
            if number == max(1, restarts // 10):
                marks["restarts"].append(box.at_rest())
            if number % 10 == 0:
                print(f"{time.monotonic() - began:4.0f} s  restarts {number}", flush=True)
        marks["restarts"].append(box.at_rest())
        red = [one | {"at_a_flush": any(at - 1 < one["at"] < at + AFTER for at in box.flushed)}
               for one in failures(box)]
        told |= {"done": {"reloads": done, "restarts": restarts, "flushes": flushed},
                 "restart_seconds": round(time.monotonic() - began), "marks": marks,
                 "red": [one for one in red if not one["at_a_flush"]],
                 "red_at_flushes": [one["seconds"] for one in red if one["at_a_flush"]],
                 "grown": {what: traces.growth(rows[1 if len(rows) > 2 else 0], rows[-1])
                           for what, rows in marks.items() if len(rows) > 1}}
        box.end(signal.SIGTERM)
        told["left"] = traces.left(box.manager)
    return told


def reload_once(box: Box) -> None:
    """By SIGHUP, until the rules are in force."""
    before = box.said.stat().st_size
    box.manager.process.send_signal(signal.SIGHUP)

    def is_done() -> bool:
        with box.said.open("rb") as log:
            log.seek(before)
            return b'"event": "rules loaded"' in log.read()

    if not until(is_done, READY):
        raise SystemExit(f"no reload in {READY} s: {box.last_words()}")


def flush_once(box: Box) -> int:
    """All rules of the mangle table are taken away, and are back; 1."""
    box.flushed.append(time.time())
    before = box.status()["vigil"]["restored"]["rules"]
    box.flush()
    if not until(lambda: box.status()["vigil"]["restored"]["rules"] > before, 10):
        raise SystemExit(f"the rules are not back after 10 s: {box.last_words()}")
    threading.Event().wait(APART)
    return 1


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="everything that may happen in a week, under traffic")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--mode", choices=MODES, default="on")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--week", action="store_true", help="reloads, restarts and flushes, and what has grown")
    parser.add_argument("--reloads", type=int, default=10_000)
    parser.add_argument("--restarts", type=int, default=200)
    parser.add_argument("--flushes", type=int, default=50)
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for the reloads")
    parser.add_argument("--untried", action="store_true", help="without trying the rules")
    asked = parser.parse_args(words)
    if asked.week:
        told = week(asked.reloads, asked.restarts, asked.flushes, asked.mode, asked.limit,
                    "self_check = 0\n" if asked.untried else "")
        wrong = [f"{what}: {rows}" for what, rows in told["grown"].items() if rows]
        wrong += [f"left in the kernel: {one}" for one in told["left"]]
        wrong += [f"red, and no flush: {one}" for one in told["red"]]
    else:
        told = soak(asked.seconds, asked.mode, random.randrange(1000) if asked.seed is None else asked.seed)
        wrong = wrong_with(told)
    print(json.dumps(told))
    for one in wrong:
        print(f"soak: {one}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
