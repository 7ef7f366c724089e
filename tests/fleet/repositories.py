"""What the tests of a signed repository share: one that is published, a web server for it, boxes with a clock.

In: a folder. Out: a repository made with the command, as a person would; a server on loopback that can be made to
misbehave; boxes that land files as edgeblock-fetch does, without its waits.
"""

import asyncio
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from edgeblock.commands import publish as command
from edgeblock.fleet import visit
from edgeblock.fleet.health import Health
from edgeblock.fleet.landing import Landing
from edgeblock.fleet.record import Record
from edgeblock.fleet.repository import Repository, Settings
from edgeblock.fleet.sources import FetchSettings

NOW = 1_800_000_000.0
DAY = 86_400.0


class Served(SimpleHTTPRequestHandler):
    """Serves a folder; `instead` of the server answers in its place for the paths that it has."""

    def do_GET(self):
        self.server.asked.append(self.path)
        for end, answer in self.server.instead.items():
            if self.path.endswith(end):
                return answer(self)
        return super().do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """The URL of a server of this folder, and the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder)))
    server.daemon_threads = True
    server.asked, server.instead = [], {}
    thread = threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ring_times(**times):
    """For --rings: such as canary=0, all=1h."""
    return ",".join(f"{name}={time}" for name, time in times.items())


class Place:
    """A repository with its keys and its rules, published by the command. `now` is the publisher's clock."""

    def __init__(self, folder, monkeypatch):
        self.rules, self.site, self.keys = folder / "rules", folder / "site", folder / "keys"
        self.rules.mkdir(parents=True)
        self.now = NOW
        monkeypatch.setattr(command, "now", lambda: self.now)
        # All of it is over plain HTTP, and certificate authorities take longer to be read than all the rest.
        monkeypatch.setattr(visit, "context_of", lambda *_: None)

    def run(self, *words):
        from edgeblock.cli import main

        words = [str(word) for word in words]
        options = ["--keys", str(self.keys)] if "--keys" not in words else []
        return main(["publish", *words, *options])

    def init(self, *more):
        assert self.run("init", self.site, *more) == 0

    def publish(self, *more, rings="all=0"):
        return self.run(self.site, "--from", self.rules, "--rings", rings, *more)

    def write(self, name, *lines):
        (self.rules / name).write_text("".join(f"{line}\n" for line in lines))

    @property
    def root(self):
        return self.site / "metadata" / "1.root.json"


class Box:
    """One box: its own state, drop directory, clock and daemon."""

    def __init__(self, folder, url, root, ring="all", name="", **settings):
        self.drop, self.now, self.health = folder / "drop", NOW, Health()
        self.drop.mkdir(parents=True)
        self.folder, self.own_root = folder, folder / "root.json"
        shutil.copyfile(root, self.own_root)
        urls = (url,) if isinstance(url, str) else url
        self.fetch = FetchSettings(directory=self.drop, state=folder / "state", box=name or folder.name, ring=ring)
        self.settings = Settings(tuple(f"{one}/metadata/" for one in urls), root=self.own_root,
                                 **{"trial": 0.0, **settings})
        self.record, self.told = Record(), {}
        self.start()

    def start(self):
        """As a process that begins: nothing but files is remembered."""
        self.source = Repository("own", self.settings, self.fetch, lambda: self.now, self._health)

    async def _health(self):
        return self.health

    async def ask(self):
        """One fetch, and what came of it landed."""
        folder = self.folder / "fetched"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        fetched = await self.source.fetch(self.record.known, folder)
        if fetched.files is not None:
            Landing(self.drop, 1 << 30).land(fetched.files, self.record, self.folder / "record.json", True)
        self.record.known = fetched.known
        self.told = fetched.told
        return fetched

    def once(self, after=0.0):
        self.now += after
        return asyncio.run(self.ask())

    def has(self):
        return {path.name: path.read_text() for path in sorted(self.drop.iterdir())}

    @property
    def taken(self):
        return self.told["taken"]
