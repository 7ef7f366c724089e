"""HTTP requests that end, whatever the other side does.

In: a URL and bounds. Out: a response whose body is read within them, or a SourceError of one line. The requests are
made in a thread; `look` and `cut` are for another one, which keeps the time: they shut connections down, and whoever
waits on one is woken. Redirects are few, never from TLS to none, and take a password nowhere else. Never here: what a
body means, or a body unpacked.
"""

import functools
import hashlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

import edgeblock
from edgeblock.errors import printable
from edgeblock.fleet.source import SourceError

REDIRECTS = (301, 302, 303, 307, 308)
PIECE = 8192                # bytes read at a time: at the lowest rate less than a window
URL_MAX = 4000              # characters of the URL of a redirect
EARLY_MAX = 16              # answers that are none yet (RFC 9110, 15.2), such as Early Hints, before one that is
CONTEXTS_MAX = 16           # contexts of TLS that are kept: each has read all authorities, which takes 0.4 s
SHOWN_MAX = 200             # characters of a URL, or of what a library says, in a message
AGENT = f"edgeblock-fetch/{edgeblock.__version__}"


class Bounds(NamedTuple):
    """In seconds, bytes a second and redirects: `head` until an answer begins, redirects not included; `silence`
    without a byte; `total` for everything; `rate` on average over `window`, while a body comes."""

    head: float = 60.0
    silence: float = 30.0
    total: float = 900.0
    window: float = 30.0
    rate: int = 1024
    redirects: int = 5

    @property
    def tick(self) -> float:
        """How often to look."""
        return min(1.0, self.window / 4, self.head / 4, self.total / 4)


BOUNDS = Bounds()


class Secrets(NamedTuple):
    """What only the servers of one origin are given, and by which authorities servers are believed."""

    origin: str = ""
    authorization: str = ""
    ca_file: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None


class Answer(NamedTuple):
    """What came of a request: `place` is whose it is, as it is told, after all redirects."""

    place: str
    status: int
    headers: Any
    body: urllib3.BaseHTTPResponse


class Visit:
    """The requests of one fetch. `why` is there once they were cut, `got` are the bytes of bodies so far."""

    def __init__(self, bounds: Bounds, proxy: str) -> None:
        self.bounds, self.proxy = bounds, proxy
        self.secrets = Secrets()
        self.why = ""
        self.got = 0
        self._began = time.monotonic()
        self._asked: float | None = None        # since when an answer is awaited
        self._reading = False                   # whether a body comes
        self._since, self._had = self._began, 0     # when the window began, and `got` at that moment
        self._lock = threading.Lock()
        self._held: list[tuple[HTTPConnection, socket.socket]] = []
        self._managers: dict[tuple[bool, bool], urllib3.PoolManager] = {}

    # ---- for whoever keeps the time

    def look(self, now: float) -> bool:
        """Cuts everything if it is time; whether it was. `now` is of time.monotonic."""
        bounds, asked = self.bounds, self._asked
        if now > self._began + bounds.total:
            self.cut(f"has taken longer than {bounds.total:g} s, which is all that [fetch] total_seconds allows")
        elif asked is not None and now > asked + bounds.head:
            self.cut(f"does not answer within {bounds.head:g} s")
        elif not self._reading:
            self._since, self._had = now, self.got
        elif now > self._since + bounds.window:
            if self.got - self._had < bounds.rate * bounds.window:
                self.cut(f"sends less than {bounds.rate} bytes a second")
            self._since, self._had = now, self.got
        return bool(self.why)

    def cut(self, why: str) -> None:
        """Ends all connections, and lets none be made."""
        with self._lock:
            self.why = self.why or why
            for _, one in self._held:
                with suppress(OSError):         # it has ended
                    one.shutdown(socket.SHUT_RDWR)

    # ---- in the thread

    def ask(self, url: str, headers: dict[str, str], plain: bool) -> Answer:
        """The answer to a GET, whatever its status is, unless that is a redirect; its body is still to be read.
        `plain`: it need not be over TLS.

        Raises:
            SourceError: no answer came, or redirects that are not followed.
        """
        first = url
        for _ in range(self.bounds.redirects + 1):
            response = self._ask_once(url, headers)
            if response.status not in REDIRECTS:
                return Answer(place_of(url), response.status, response.headers, response)
            where = response.headers.get("Location", "")
            response.close()
            before, url = url, joined(url, where)
            if not url:
                raise SourceError(f"{place_of(before)}: is redirected to what is no URL")
            scheme = urlsplit(url).scheme
            if scheme != "https" and (scheme != "http" or urlsplit(before).scheme == "https" or not plain):
                raise SourceError(f"{place_of(before)}: is redirected to {place_of(url)}, which is not over TLS; "
                                  "that is not followed")
        raise SourceError(f"{place_of(first)}: is redirected more than {self.bounds.redirects} times")

    def read(self, answer: Answer, limit: int) -> bytes:
        """A body of so many bytes at most. Raises SourceError."""
        made = bytearray()
        for piece in self._pieces(answer, limit):
            made += piece
        return bytes(made)

    def save(self, answer: Answer, file: BinaryIO, limit: int) -> str:
        """Writes a body to a file; its SHA-256. Raises SourceError, and OSError where the disk is full."""
        digest = hashlib.sha256()
        for piece in self._pieces(answer, limit):
            digest.update(piece)
            file.write(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Lets go of everything."""
        for manager in self._managers.values():
            manager.clear()
        with self._lock:
            self.why = self.why or "it was ended"
            for _, one in self._held:
                one.close()
            self._held.clear()

    def _pieces(self, answer: Answer, limit: int) -> Iterator[bytes]:
        place, response = answer.place, answer.body
        size = 0
        self._reading = True
        try:
            while piece := response.read(PIECE, decode_content=False):
                size += len(piece)
                self.got += len(piece)
                if size > limit:
                    raise SourceError(f"{place}: is longer than {limit} bytes, which is all that is taken of it (see "
                                      "max_megabytes and [fetch] file_megabytes)")
                yield piece
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as problem:
            raise SourceError(f"{place}: {self.why or why(problem)}") from None
        finally:
            self._reading = False
            response.close()
        if self.why:                    # a body without a length ends where the connection does
            raise SourceError(f"{place}: {self.why}")

    def _ask_once(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        own = origin(url) == self.secrets.origin
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        if own and self.secrets.authorization:
            sent["Authorization"] = self.secrets.authorization
        self._forget()
        self._asked = time.monotonic()
        try:
            return self._manager(own, urlsplit(url).scheme == "https").request(
                "GET", url, headers=sent, redirect=False, retries=False, preload_content=False, decode_content=False,
                timeout=urllib3.Timeout(connect=self.bounds.silence, read=self.bounds.silence))
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as problem:
            raise SourceError(f"{place_of(url)}: {self.why or why(problem)}") from None
        finally:
            self._asked = None

    def _manager(self, own: bool, tls: bool) -> urllib3.PoolManager:
        """Who makes connections; those to the servers that are meant may have our certificate."""
        if (own, tls) not in self._managers:
            context = context_of(self.secrets, own) if tls else None
            made = urllib3.ProxyManager(self.proxy, ssl_context=context) if self.proxy else \
                urllib3.PoolManager(ssl_context=context)
            made.pool_classes_by_scheme = pools(self._hold)
            self._managers[own, tls] = made
        return self._managers[own, tls]

    def _hold(self, connection: HTTPConnection, made: socket.socket) -> socket.socket:
        """Keeps a second descriptor of a connection: that is there whatever TLS makes of the first."""
        with self._lock:
            if self.why:
                made.close()
                raise ConnectionAbortedError(self.why)
            self._held.append((connection, made.dup()))
        return made

    def _forget(self) -> None:
        """Lets go of connections that are closed; between two requests, when no body comes over one any more."""
        with self._lock:
            for held in [one for one in self._held if one[0].sock is None]:
                held[1].close()
                self._held.remove(held)


class TooManyHints(http.client.HTTPException):
    """EARLY_MAX answers that are none yet, and no end."""


class Final(http.client.HTTPResponse):
    """The answer behind those that are none yet; the library passes over 100 alone, and over any number of them."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(EARLY_MAX + 1):
            version, status, reason = super()._read_status()        # type: ignore[misc]
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise TooManyHints


def pools(hold: Any) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections that are held from their beginning on: a server may be silent in the TLS handshake."""
    class Plain(HTTPConnection):
        response_class = Final

        def _new_conn(self) -> socket.socket:
            return hold(self, super()._new_conn())      # type: ignore[no-any-return]

    class Secure(HTTPSConnection):
        response_class = Final

        def _new_conn(self) -> socket.socket:
            return hold(self, super()._new_conn())      # type: ignore[no-any-return]

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain                       # type: ignore[assignment]

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure                      # type: ignore[assignment]

    return {"http": PlainPool, "https": SecurePool}


def context_of(secrets: Secrets, own: bool) -> ssl.SSLContext:
    """TLS 1.2 or later, and a server whose name its certificate has: one for all who believe and show the same, as
    long as the files are the same. Raises SourceError."""
    shown = (secrets.certificate, secrets.certificate_key) if own and secrets.certificate else (None, None)
    usual = ssl.get_default_verify_paths()
    files = (secrets.ca_file, *shown) if secrets.ca_file else (usual.cafile, usual.capath, *shown)
    return made_context(secrets.ca_file, *shown, tuple(stamp_of(file) for file in files))


def stamp_of(file: Path | str | None) -> tuple[int, ...]:
    """What changes with a file, or with what is in a directory; () where none is there."""
    try:
        seen = os.stat(file) if file else None
    except OSError:
        return ()
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns) if seen else ()


@functools.lru_cache(maxsize=CONTEXTS_MAX)
def made_context(ca_file: Path | None, certificate: Path | None, key: Path | None,
                 _stamps: tuple[tuple[int, ...], ...]) -> ssl.SSLContext:
    """Raises SourceError, which is not kept."""
    where = ca_file
    try:
        made = ssl.create_default_context(cafile=str(where) if where else None)
        if certificate:
            where = certificate
            # An encrypted key would have OpenSSL ask at a terminal.
            made.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", None) or getattr(problem, "strerror", None) or problem
        raise SourceError(f"{where}: cannot be used as a certificate in PEM: {reason}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def joined(url: str, where: str) -> str:
    """Where a redirect leads; "" where that is no URL."""
    try:
        made = urljoin(url, where)
        parts = urlsplit(made)
        fine = parts.port != 0 and made.isascii() and made.isprintable() and " " not in made and len(made) <= URL_MAX
    except ValueError:
        return ""
    return made if where and fine else ""


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port
    return f"{parts.scheme}://{parts.hostname}:{port or {'http': 80, 'https': 443}.get(parts.scheme, 0)}"


def place_of(url: str) -> str:
    """A URL as it is told: without its query, which may have a password in it, as a name before the host may."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{host}{parts.path}")[:SHOWN_MAX]


def why(problem: Exception) -> str:
    """What went wrong with a connection, in words."""
    found = urllib3.exceptions
    if isinstance(problem, found.ProxyError) and problem.original_error is not None:
        return f"by the proxy: {why(problem.original_error)}"
    if isinstance(problem, found.NameResolutionError):
        return "the name of the server is not found"
    if isinstance(problem, found.NewConnectionError):
        return f"no connection: {printable(str(problem).rpartition('] ')[2])[:SHOWN_MAX]}"
    if isinstance(problem, found.TimeoutError | TimeoutError):
        return "the server does not answer"
    if isinstance(problem, found.IncompleteRead | http.client.IncompleteRead):
        return "the connection ended before all of it had come"
    said = [problem, *(one for one in problem.args if isinstance(one, Exception))]
    for one in said:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate of the server is not believed: {printable(one.verify_message)[:SHOWN_MAX]}"
        if isinstance(one, http.client.IncompleteRead):
            return "the connection ended before all of it had come"
    for one in said:
        if isinstance(one, ssl.SSLError) and one.reason:
            return f"TLS failed: {printable(one.reason)[:SHOWN_MAX]}"
    for one in said:
        if isinstance(one, http.client.HTTPException):
            return f"the server speaks no HTTP that can be read ({type(one).__name__})"
    for one in said:
        if isinstance(one, OSError) and one.strerror:
            return f"no connection: {one.strerror}"
    return f"{printable(str(problem))[:SHOWN_MAX] or type(problem).__name__}"
