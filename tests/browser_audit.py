"""Pages in a real browser, asked by axe-core whether everybody can read them.

In: pages as bytes, a browser. Out: for each page, in a window and in a phone's width, what axe-core found, how wide
the page became and which colours it has. A server on loopback hands out one page after the other; each tells it what
was found and goes on to the next, so that no driver is needed and one start of a browser does for all.
"""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from browser import CHROMIUM

FIREFOX = next((path for path in map(shutil.which, ("firefox-esr", "firefox")) if path), None)
PHONE = 375             # CSS pixels
WAIT = 60.0             # seconds for all pages; eleven were measured, on a busy machine
RUN = """
axe.run(document, {resultTypes: ["violations", "incomplete"]}).then(found => fetch("/found", {
  method: "POST",
  body: JSON.stringify({
    violations: [...found.violations, ...found.incomplete].map(one => one.id + ": " + one.nodes.map(n => n.html)),
    passes: found.passes.length, wide: document.documentElement.scrollWidth, room: window.innerWidth,
    colour: getComputedStyle(document.querySelector("main") || document.body).backgroundColor,
    dark: matchMedia("(prefers-color-scheme: dark)").matches, lang: document.documentElement.lang,
    direction: getComputedStyle(document.body).direction, title: document.title})
})).then(answer => answer.text()).then(next => { top.location = next; });
"""
PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False, "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False, "network.captive-portal-service.enabled": False, "extensions.update.enabled": False,
    "network.connectivity-service.enabled": False, "services.settings.server": "data:,",
    "toolkit.telemetry.server": "", "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.aboutwelcome.enabled": False,
}


def axe() -> bytes:
    """axe-core, out of the package that carries it."""
    spec = find_spec("axe_playwright_python")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "axe.min.js").read_bytes()


class Server(ThreadingHTTPServer):
    """Serves each page twice, and keeps what it is told."""

    def __init__(self, pages: Sequence[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages
        self.found: list[dict[str, Any]] = []
        self.done = threading.Event()

    def path(self) -> str:
        """Of the page that is next: whole, then in a phone's width."""
        number, narrow = divmod(len(self.found), 2)
        if number == len(self.pages):
            self.done.set()
            return "/done"
        return f"/phone/{number}" if narrow else f"/page/{number}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        _, kind, number = (*self.path.split("/"), "", "")[:3]
        if kind == "page":
            page = self.server.pages[int(number)]
            head, tag, tail = page.rpartition(b"</body>")
            scripts = b'<script src="/axe"></script><script src="/run"></script>'
            self.answer((head or tail) + scripts + (tag + tail if head else b""), "text/html; charset=utf-8")
        elif kind == "phone":
            self.answer(f'<!doctype html><meta name="color-scheme" content="light dark"><title>phone</title>'
                        f'<iframe src="/page/{number}" width="{PHONE}" height="900" style="border:0">'.encode(),
                        "text/html")
        elif kind in ("axe", "run"):
            self.answer(axe() if kind == "axe" else RUN.encode(), "text/javascript")
        else:
            self.answer(b"", "text/plain")

    def do_POST(self) -> None:
        self.server.found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(self.server.path().encode(), "text/plain")

    def answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def command(browser: str, home: Path, dark: bool) -> list[str]:
    """Without its last word, the address."""
    if browser == "chromium":
        return [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}/profile",
                "--disable-background-networking", "--window-size=1000,900", "--remote-debugging-port=0",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    profile = home / "profile"
    profile.mkdir()
    wanted = PREFERENCES | {"layout.css.prefers-color-scheme.content-override": 0 if dark else 1}
    (profile / "user.js").write_text("".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                                             for name, value in wanted.items()))
    return [str(FIREFOX), "--headless", "--no-remote", "--profile", str(profile)]


@contextmanager
def browsing(browser: str, home: Path, dark: bool, address: str) -> Iterator[Path]:
    """The browser at that address; its log."""
    home.mkdir(exist_ok=True)
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command(browser, home, dark), address], stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, env=os.environ | {"HOME": str(home)})
        try:
            yield log
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def serving(pages: Sequence[bytes]) -> Iterator[Server]:
    with Server(pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def audit(browser: str, pages: Sequence[bytes], home: Path, dark: bool) -> list[dict[str, Any]]:
    """What was found of each page, as a window and on a phone, one after the other."""
    with serving(pages) as server, browsing(
            browser, home, dark, f"http://127.0.0.1:{server.server_address[1]}/page/0") as log:
        assert server.done.wait(WAIT), (server.found, log.read_text()[-2000:])
    return server.found


class Visit(NamedTuple):
    """A request of a browser: its path without the query, and its Referer."""

    path: str
    referrer: str


def visit(browser: str, answer: bytes, home: Path, until: Collection[str]) -> list[Visit]:
    """What a browser asks for that gets this answer, head and body, at "/", until it has asked for all these paths.

    "/seen" is a style that imports "/late", which is asked for when what stands before the style has been done.
    """
    visits: list[Visit] = []
    done = threading.Event()

    class Site(Handler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/":
                self.wfile.write(answer)
                self.close_connection = True
            else:
                self.answer(b'@import "/late";' if path == "/seen" else b"", "text/css")
            visits.append(Visit(path, self.headers.get("Referer", "")))
            if {*until} <= {one.path for one in visits}:
                done.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with browsing(browser, home, False, f"http://127.0.0.1:{server.server_address[1]}/") as log:
            assert done.wait(WAIT), (visits, log.read_text()[-2000:])
        server.shutdown()
        thread.join()
    return visits
