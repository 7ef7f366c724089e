"""The program: sources beside each other, configuration anew, its status, its end.

In: sources that do anything, and a real process. Out: that each goes on whatever another does, and what is said.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeblock.fleet import cli, feed, fetch, sources
from edgeblock.fleet.feed import Feed, Shared, back_off
from edgeblock.fleet.fetch import Fetcher, Log
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings, SourceSettings, load
from tests.fleet import fakes
from tests.fleet.serving import serving
from tests.fleet.test_web import GOOD, PATH

SOON = 20.0         # seconds in which everything here has happened, on a machine that does much else


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(sources.KINDS, "fake", fakes.KIND)
    monkeypatch.setattr(fakes, "VERSIONS", {})
    monkeypatch.setattr(fakes, "DOES", {})
    monkeypatch.setattr(feed, "SPREAD", 0.01)


class Running:
    """A Fetcher in this process, without its signals."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said: list[dict[str, object]] = []
        (home / "drop").mkdir(exist_ok=True)
        self.fetcher = Fetcher(home / "sources.toml", self.log)        # type: ignore[arg-type]

    def log(self, level: str, event: str, **more: object) -> None:
        self.said.append({"level": level, "event": event, **more})

    def write(self, *rows: str, fetch: str = "") -> None:
        text = f'[fetch]\ndirectory = "drop"\nstate = "state"\nstatus = "status.json"\n{fetch}\n'
        (self.home / "sources.toml").write_text(text + "".join(f"[[source]]\n{row}\n" for row in rows))

    def apply(self) -> None:
        self.fetcher._apply(load(self.home / "sources.toml"))

    def feed(self, name: str) -> Feed:
        return self.fetcher._feeds[name]

    def there(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.home / "drop").iterdir()}

    async def until(self, what) -> None:
        async with asyncio.timeout(SOON):
            while not what():
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        await self.fetcher._end()


def row(name: str, number: int = 0, every: float = 3600) -> str:
    return f'name = "{name}"\nkind = "fake"\nnumber = {number}\nevery = {every}\n'


async def fail(*_):
    raise RuntimeError("a fault with a\nline end")


async def hang(*_):
    await asyncio.Event().wait()


def asked_by(feed: Feed) -> bool:
    """Whether it has asked, and waits an hour now."""
    return feed._next > time.time() + 600


def test_a_fault_of_one_source_touches_no_other(tmp_path):
    one = Running(tmp_path)
    names = [f"bad{number}" for number in range(8)]
    one.write(*(row(name) for name in names), row("good"), fetch="at_once = 1")

    async def play():
        fakes.VERSIONS["good"] = {"good.list": b"x.example\n"}
        fakes.DOES.update(dict.fromkeys(names, fail))
        one.apply()
        await one.until(lambda: one.there() and all(one.feed(name).failures for name in names))
        await one.end()

    asyncio.run(play())
    assert one.there() == {"good.list": b"x.example\n"} and one.feed("good").error == ""
    error = one.feed("bad0").error
    assert error == ("a fault of edgeblock's own (RuntimeError: a fault with a line end); please report it")
    assert all(one.feed(name)._source.closed for name in [*names, "good"])


def test_sources_that_hang_keep_only_each_other_waiting(tmp_path):
    """Those that failed or were slow have slots of their own, so that none of them takes one that others need."""
    one = Running(tmp_path)
    names = [f"bad{number}" for number in range(4)]
    one.write(*(row(name, every=1) for name in names), row("good", every=1), fetch="at_once = 1")

    async def play():
        fakes.DOES.update(dict.fromkeys(names, fail))
        fakes.VERSIONS["good"] = {"good.list": b"1.example\n"}
        one.apply()
        await one.until(lambda: one.there() and all(one.feed(name).failures for name in names))
        fakes.DOES.update(dict.fromkeys(names, hang))
        asked = [len(one.feed(name)._source.asked) for name in names]
        await one.until(lambda: [len(one.feed(name)._source.asked) for name in names] != asked)
        fakes.VERSIONS["good"] = {"good.list": b"2.example\n"}
        await one.until(lambda: one.there() == {"good.list": b"2.example\n"})
        await one.end()

    asyncio.run(play())


def test_configuration_anew_disturbs_only_what_has_changed(tmp_path):
    one = Running(tmp_path)

    async def play():
        for name in "abc":
            fakes.VERSIONS[name] = {f"{name}.list": b"x.example\n"}
        one.write(row("a"), row("b"), row("c"))
        one.apply()
        await one.until(lambda: all(asked_by(one.feed(name)) for name in "abc"))
        a, b, c = map(one.feed, "abc")
        one.write(row("a"), row("b", number=7), row("d"))
        fakes.VERSIONS["d"] = {"d.list": b"y.example\n"}
        one.fetcher._reload()
        await one.until(lambda: len(one.there()) == 4)
        await one.until(lambda: b._source.closed and c._source.closed)
        assert one.feed("a") is a and not a._source.closed and len(a._source.asked) == 1
        assert one.feed("b") is not b and one.feed("b").settings.own.number == 7
        await one.until(lambda: one.feed("b")._source.asked)
        assert one.feed("b")._source.asked[0]          # what was known of it goes on
        assert any(line.get("source") == "c" and line.get("files") == ["c.list"] for line in one.said)
        (one.home / "sources.toml").write_text("[fetc]\n")
        one.fetcher._reload()
        assert [line for line in one.said if line["event"] == "the sources stay as they were"]
        assert one.feed("a") is a and one.feed("d")
        await one.end()

    asyncio.run(play())


def test_sources_that_hang_the_first_time_keep_the_others_waiting_for_a_moment_only(tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "SLOW", 0.1)
    monkeypatch.setattr(feed, "SPREAD", 0.0)
    one = Running(tmp_path)
    names = [f"bad{number}" for number in range(4)]
    one.write(*(row(name) for name in names), row("good"), fetch="at_once = 1")

    async def play():
        fakes.DOES.update(dict.fromkeys(names, hang))
        fakes.VERSIONS["good"] = {"good.list": b"1.example\n"}
        one.apply()
        await one.until(lambda: asked_by(one.feed("good")))
        assert all(one.feed(name)._source.asked for name in names)
        await one.end()
        lane = one.fetcher._shared.lanes[False]
        assert not lane.locked() and lane._value == 1
        for _ in range(3):
            async with one.fetcher._shared.place(False):
                assert lane.locked()
            assert lane._value == 1

    asyncio.run(play())
    assert one.there() == {"good.list": b"1.example\n"}


@pytest.mark.parametrize("between", ["another number", "gone", "the end"])
def test_whoever_takes_a_source_s_place_waits_until_its_files_have_landed(tmp_path, between):
    """Its landing cannot be stopped, and two times over the configuration is another one meanwhile."""
    one = Running(tmp_path)
    landing, go = threading.Event(), threading.Event()

    async def play():
        fakes.VERSIONS["a"] = {"a.list": b"1.example\n"}
        one.write(row("a"), row("b"))
        one.apply()
        await one.until(lambda: asked_by(one.feed("a")))
        shared = one.fetcher._shared
        land = shared.landing.land

        def slow(*arguments):
            landing.set()
            assert go.wait(SOON)
            return land(*arguments)

        shared.landing.land = slow
        fakes.VERSIONS["a"] = {"a.list": b"2.example\n"}
        first = one.feed("a")
        again = asyncio.ensure_future(first.ask())
        one.fetcher._tasks["a"].cancel()
        one.fetcher._tasks["a"] = again
        await one.until(landing.is_set)
        if between != "the end":
            one.write(*([row("a", number=1)] if between == "another number" else []), row("b"))
            one.fetcher._reload()
            await asyncio.sleep(0)
        one.write(row("a", number=2), row("b"))
        one.fetcher._reload()
        await asyncio.sleep(0.05)
        assert not one.feed("a")._source.asked and not again.done()
        if between == "the end":
            ending = asyncio.ensure_future(one.end())
            await asyncio.sleep(0.05)
            assert not ending.done()
            go.set()
            await ending
        go.set()
        shared.landing.land = land
        if between != "the end":
            await one.until(lambda: asked_by(one.feed("a")))
        assert one.there() == {"a.list": b"2.example\n"} and again.done() and not one.feed("a").failures
        await one.end()

    asyncio.run(play())


def test_another_directory_is_filled_at_once(tmp_path):
    one = Running(tmp_path)
    (tmp_path / "other").mkdir()

    async def play():
        fakes.VERSIONS["a"] = {"a.list": b"x.example\n"}
        one.write(row("a"))
        one.apply()
        await one.until(one.there)
        text = (tmp_path / "sources.toml").read_text()
        (tmp_path / "sources.toml").write_text(text.replace('"drop"', '"other"'))
        one.fetcher._reload()
        await one.until(lambda: (tmp_path / "other" / "a.list").exists())
        await one.end()

    asyncio.run(play())


def test_the_status_says_how_each_is_and_nothing_that_is_no_json(tmp_path):
    one = Running(tmp_path)

    async def told(*_):
        return Fetched({}, {}, "v\x1b[31m" + "x" * 500, told={"serial": 7, "nan": float("nan"), "text": "a\nb"})

    async def play():
        fakes.VERSIONS["a"] = {"a.list": b"x.example\n"}
        fakes.DOES["c"] = told
        one.write(row("a"), row("b"), row("c"))
        one.apply()
        await one.until(lambda: one.feed("a")._told and one.feed("b").failures and one.feed("c")._told)
        one.fetcher._write()
        await one.end()

    asyncio.run(play())
    text = (tmp_path / "status.json").read_text()
    said = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    a, b, c = said["sources"]
    assert (said["format"], said["ring"], said["box"]) == (1, "all", socket.gethostname())
    assert (a["name"], a["kind"], a["bytes"], a["files"], a["count"], a["failures"]) == (
        "a", "fake", 10, ["a.list"], 1, 0)
    assert a["checked"] and a["changed"] and a["told"] == {"serial": 1} and a["next"] > time.time() + 3000
    assert b["error"] == "b: has nothing" and b["failures"] == 1 and b["checked"] == 0
    assert len(c["version"]) == 100 and c["version"].isprintable() and c["told"] == {
        "serial": 7, "nan": "nan", "text": "a\\nb"}
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644


def ask(tmp_path, does, **more) -> tuple[Feed, list[dict[str, object]]]:
    said: list[dict[str, object]] = []
    (tmp_path / "drop").mkdir(exist_ok=True)
    shared = Shared(FetchSettings(directory=tmp_path / "drop", state=tmp_path / "state"),
                    lambda level, event, **say: said.append({"level": level, **say}), lambda: None)
    shared.prepare()
    fakes.DOES["a"] = does
    settings = SourceSettings("a", "fake", own=fakes.Settings(1), **more)
    return Feed(settings, fakes.Fake("a", settings.own, shared.fetch), shared), said


def test_waits_grow_and_end_with_a_success(tmp_path):
    async def fails(*_):
        raise SourceError("it fails")

    async def answers(source, known, folder):
        return Fetched({}, {}, "1")

    one, said = ask(tmp_path, fails)
    waits = [asyncio.run(one.ask()) for _ in range(9)]
    for number, wait in enumerate(waits):
        usual = min(30.0 * 2 ** number, 3600)
        assert 0.75 * usual <= wait <= 1.25 * usual
    assert one.failures == 9 and len(said) == 1         # the same failure again is no news
    fakes.DOES["a"] = answers
    assert 3600 <= asyncio.run(one.ask()) <= 3960 and one.failures == 0
    assert len({back_off(3, 3600) for _ in range(20)}) > 10         # not all boxes at one moment
    assert all(back_off(20, 1) <= 1.25 for _ in range(20))


def test_a_source_s_own_waits_are_kept(tmp_path):
    async def later(*_):
        raise SourceError("later", wait=77)

    async def timed(*_):
        return Fetched({}, {}, "1", wait=10)

    one, _ = ask(tmp_path, later)
    assert asyncio.run(one.ask()) == 77
    fakes.DOES["a"] = timed
    assert 10 <= asyncio.run(one.ask()) <= 11


def test_what_cannot_be_genuine_is_an_error_in_the_log(tmp_path):
    async def forged(*_):
        raise SourceError("forged", grave=True)

    one, said = ask(tmp_path, forged)
    asyncio.run(one.ask())
    assert one.row()["grave"] and said[0]["level"] == "error"


def test_settings_come_only_from_a_source_that_may_bring_them(tmp_path):
    async def brings(_, known, folder):
        (folder / "a.toml").write_bytes(b'action = "drop"\n')
        return Fetched({"a.toml": folder / "a.toml"}, {}, "1")

    one, _ = ask(tmp_path, brings)
    asyncio.run(one.ask())
    assert "no settings = true" in one.error and not list((tmp_path / "drop").iterdir())
    other, _ = ask(tmp_path, brings, settings=True)
    asyncio.run(other.ask())
    assert other.error == "" and (tmp_path / "drop" / "a.toml").exists()


def test_what_is_known_is_kept_only_when_it_has_landed(tmp_path):
    async def brings(_, known, folder):
        (folder / "a.list").write_bytes(b"a.example\n")
        return Fetched({"a.list": folder / "a.list"}, {"serial": len(known) + 1}, "1")

    one, _ = ask(tmp_path, brings)
    (tmp_path / "drop" / "a.list").write_bytes(b"person.example\n")
    asyncio.run(one.ask())
    assert one.record.known == {} and "was put there by somebody else" in one.error
    (tmp_path / "drop" / "a.list").unlink()
    asyncio.run(one.ask())
    assert one.record.known == {"serial": 1} and one.error == ""


def test_twenty_boxes_have_a_version_soon_after_it_is_there(tmp_path):
    """In one process, each with its state and its directory. Measured: docs/fetch.md."""
    with serving(tmp_path) as server:
        content = {"now": GOOD}

        def honest(one):
            tag = f'"{hash(content["now"])}"'
            if one.headers.get("if-none-match") == tag:
                one.answer(304)
            else:
                one.answer(200, content["now"], ETag=tag)

        server.answers[PATH] = honest
        boxes = []
        for number in range(20):
            box = Running(tmp_path / str(number)) if (tmp_path / str(number)).mkdir() is None else None
            assert box is not None
            box.write(f'name = "court"\nkind = "https"\nurl = "{server.url(PATH)}"\nfile = "court.list"\nevery = 2\n'
                      f'ca_file = "{tmp_path}/server.pem"\n')
            boxes.append(box)

        async def converged() -> float:
            began = time.monotonic()
            async with asyncio.timeout(60):
                while not all(box.there() == {"court.list": content["now"]} for box in boxes):
                    await asyncio.sleep(0.02)
            return time.monotonic() - began

        async def play() -> list[float]:
            for box in boxes:
                box.apply()
            times = [await converged()]
            content["now"] = GOOD + b"more.example\n"
            times.append(await converged())
            for box in boxes:
                await box.end()
            return times

        times = asyncio.run(play())
        print("20 boxes, seconds until all have it:", *(f"{one:.2f}" for one in times))
        assert max(times) < 60


# ---- as a process

def process(home: Path, *arguments: str, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "edgeblock.fleet.cli", *arguments, "--config",
                             str(home / "sources.toml")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            **more)


def test_it_tells_the_service_manager_and_ends_at_once_though_a_server_hangs(tmp_path):
    (tmp_path / "drop").mkdir()
    with serving(tmp_path) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        server.answers[PATH] = lambda one: one.wait()
        one = Running(tmp_path)
        one.write(f'name = "court"\nkind = "https"\nurl = "{server.url(PATH)}"\nfile = "court.list"\n'
                  f'ca_file = "{tmp_path}/server.pem"\n')
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SOON)
        running = process(tmp_path, "run", env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"),
                                                "WATCHDOG_USEC": "3000000", "PYTHONPATH": os.getcwd()})
        try:
            heard = ""
            while not ("READY=1" in heard and "WATCHDOG=1" in heard and server.asked):
                heard += manager.recv(4096).decode() + "\n"
            second = process(tmp_path, "run")
            said = second.communicate(timeout=SOON)[1]
            assert second.returncode == 1 and "another edgeblock-fetch is at work there" in said
            running.send_signal(signal.SIGHUP)
            while "RELOADING=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            began = time.monotonic()
            running.send_signal(signal.SIGTERM)
            out, err = running.communicate(timeout=SOON)
            assert (running.returncode, err) == (0, "") and time.monotonic() - began < 5
        finally:
            running.kill()
            running.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["event"] == "stopped" and lines[0]["event"] == "sources"


def test_it_is_killed_and_the_next_goes_on(tmp_path):
    """While it lands, again and again; tests/fleet/test_landing.py does so at every line."""
    with serving(tmp_path) as server:
        content = [b"%d.example\n" % number * 100_000 for number in range(2)]
        server.answers[PATH] = lambda one: one.answer(200, content[len(server.asked) % 2])
        one = Running(tmp_path)
        one.write(f'name = "court"\nkind = "https"\nurl = "{server.url(PATH)}"\nfile = "court.list"\n'
                  f'every = 1\njitter = 0\nca_file = "{tmp_path}/server.pem"\n')
        for _ in range(3):
            before = len(server.asked)
            running = process(tmp_path, "run")
            try:
                deadline = time.monotonic() + SOON
                while len(server.asked) == before and time.monotonic() < deadline:
                    server.ended.wait(0.005)
            finally:
                running.kill()
                running.communicate()
            assert all(data in content for name, data in one.there().items() if not name.startswith("."))
        assert process(tmp_path, "once").communicate(timeout=SOON)[0]
        assert list(one.there()) == ["court.list"] and one.there()["court.list"] in content
        assert not list((tmp_path / "state" / "fetching").iterdir())


# ---- the command

@pytest.fixture
def home(tmp_path):
    one = Running(tmp_path)
    one.write(row("a"), row("b"))
    fakes.VERSIONS["a"] = {"a.list": b"x.example\n"}
    return tmp_path


def command(home: Path, *arguments: str) -> int:
    return cli.main([*arguments, "--config", str(home / "sources.toml")])


def test_once_says_what_came_and_whether_one_failed(home, capsys):
    assert command(home, "once") == 1
    out = capsys.readouterr().out
    assert "a       fake  1      10" in out
    assert re.search(r"FAILS since \d+ s, 1 times: b: has nothing$", out, re.MULTILINE)      # to the second
    assert command(home, "once", "a") == 0 and "has nothing" not in capsys.readouterr().out
    assert command(home, "once", "x") == 2 and "has no source x; known are a, b" in capsys.readouterr().err


def test_check_says_whether_it_can_be_used(home, capsys):
    assert command(home, "check") == 0 and "the configuration can be used" in capsys.readouterr().out
    (home / "sources.toml").write_text("[fetc]\n[[source]]\n")
    assert command(home, "check") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(line.startswith(f"edgeblock-fetch: {home}/sources.toml: ") for line in said)


def test_status_says_whether_all_is_well_and_whether_anybody_is_there(home, capsys):
    assert command(home, "status") == 2 and "is edgeblock-fetch running?" in capsys.readouterr().err
    settings = load(home / "sources.toml").fetch
    good = {"name": "a", "kind": "fake", "version": "1", "bytes": 10, "files": [], "count": 1, "checked": 1,
            "changed": 1, "error": "", "grave": False, "since": 1, "failures": 0}
    fetch.write_status(settings, [good], 1)
    assert command(home, "status") == 0 and "a       fake" in capsys.readouterr().out
    fetch.write_status(settings, [{**good, "error": "no\x1b", "failures": 3, "grave": True}], 1)
    assert command(home, "status") == 1 and "NOT GENUINE since" in capsys.readouterr().out
    waits = {"waiting": "health", "why": "the daemon\x1b does not answer", "until": 0, "wanted": 3}
    fetch.write_status(settings, [{**good, "told": waits}], 1)
    assert command(home, "status") == 0
    assert "  release 3 waits (health): the daemon\\x1b does not answer\n" in capsys.readouterr().out
    fetch.write_status(settings, [{**good, "told": {**waits, "waiting": "ring", "until": time.time() + 7000}}], 1)
    assert command(home, "status") == 0 and ", due in 1 h 56 m\n" in capsys.readouterr().out
    fetch.write_status(settings, [{**good, "error": "no\x1b", "failures": 3, "grave": True}], 1)
    assert command(home, "status", "--json") == 1 and json.loads(capsys.readouterr().out)["sources"]
    os.utime(settings.status, (1, 1))
    assert command(home, "status") == 2 and "NOT RUNNING" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "{}", '{"sources": 1}', '{"sources": [1]}', '{"sources": [{}]}',
                                  "[" * 100_000, "\xff", None])
def test_a_status_that_somebody_else_has_written_is_one_line(home, capsys, text):
    path = home / "status.json"
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text, encoding="latin-1")
    assert cli.main(["status", "--config", str(home / "sources.toml")]) == 2
    assert capsys.readouterr().err == f"edgeblock-fetch: {path}: is no status of edgeblock-fetch\n"


def test_a_status_says_nothing_to_the_terminal(home, capsys):
    row = {"count": 1, "bytes": 1, "changed": 1, "checked": 1, "failures": 1, "since": 1}
    words = {name: "\x1b[2J\n" + name for name in ("name", "kind", "version", "error")}
    (home / "status.json").write_text(json.dumps({"sources": [row | words]}))
    assert cli.main(["status", "--config", str(home / "sources.toml")]) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said and len(said.splitlines()) == 3 and "\\x1b[2J" in said


def test_help_has_an_example_for_each_command(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0 and f"edgeblock-fetch {name}" in capsys.readouterr().out.split("examples:")[1]


def test_a_state_directory_that_cannot_be_had_is_a_line(tmp_path, capsys):
    (tmp_path / "state").write_text("")
    Running(tmp_path).write(row("a"))
    assert command(tmp_path, "run") == 1 and "state: cannot be used" in capsys.readouterr().err
    assert command(tmp_path, "once") == 2


def test_a_log_that_nobody_reads_stops_nothing(tmp_path):
    with (tmp_path / "log").open("w") as file:
        log = Log(file)
    log("info", "nobody hears this")
