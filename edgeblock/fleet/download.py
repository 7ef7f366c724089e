"""Bytes of a URL for the TUF client, within bounds that no server can stretch.

In: a URL, the most bytes, an end of time. Out: the bytes as they come, or a DownloadError. Beyond what a server may
do to a socket's own timeout (a byte now and then, for ever, in its body or in its headers), a watchdog shuts the
connection down when the time is up. Nothing is unpacked, so nothing grows; few redirects, and none from HTTPS to
HTTP. Never here: whether the bytes are genuine, a file.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

import edgeblock

PATIENCE = 10.0             # seconds without a byte
BASE = 20.0                 # seconds that the shortest file may take
SLOWEST = 50_000            # bytes a second that a longer one has to come with
REDIRECTS_MAX = 3
PART = 1 << 16
PORTS = {"http": 80, "https": 443}


class Bounded(FetcherInterface):
    """`size` counts what has come. `until`: when all of it has to be over, in seconds of `clock`."""

    def __init__(self, proxy: str = "", until: float = float("inf"),
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.proxy, self.until, self.clock = proxy, until, clock
        self.size = 0
        self._end = until

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As FetcherInterface has it; the time depends on the length."""
        self._end = min(self.until, self.clock() + BASE + max_length / SLOWEST)
        with super().download_file(url, max_length) as file:
            yield file

    def _fetch(self, url: str) -> Iterator[bytes]:
        left = self._end - self.clock()
        if left <= 0:
            raise SlowRetrievalError(f"{url}: the time for all of it is up")
        for _ in range(REDIRECTS_MAX + 1):
            exchange = Exchange(url, self.proxy, self._end - self.clock())
            try:
                response = exchange.ask()
                to = response.getheader("Location") if response.status in (301, 302, 303, 307, 308) else None
                if to is None:
                    return self._body(exchange, response, url)
                exchange.close()
            except (OSError, http.client.HTTPException, ValueError) as problem:
                exchange.close()
                if exchange.is_over or isinstance(problem, TimeoutError):
                    raise SlowRetrievalError(f"{url}: no answer in time") from None
                raise DownloadError(f"{url}: {why(problem)}") from None
            after = urljoin(url, to)
            if urlsplit(after).scheme not in (("https",) if urlsplit(url).scheme == "https" else PORTS):
                raise DownloadError(f"{url}: leads to {after[:200]}, which is not followed")
            url = after
        raise DownloadError(f"{url}: more than {REDIRECTS_MAX} redirects")

    def _body(self, exchange: "Exchange", response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
        if response.status != 200:
            exchange.close()
            raise DownloadHTTPError(f"{url}: the server says {response.status}", response.status)
        return self._parts(exchange, response, url)

    def _parts(self, exchange: "Exchange", response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
        try:
            while part := response.read1(PART):
                self.size += len(part)
                yield part
            if exchange.is_over:
                raise SlowRetrievalError(f"{url}: came too slowly")
            if response.length:
                raise DownloadError(f"{url}: ended {response.length} bytes early")
        except (OSError, http.client.HTTPException) as problem:
            if exchange.is_over or isinstance(problem, TimeoutError):
                raise SlowRetrievalError(f"{url}: came too slowly") from None
            raise DownloadError(f"{url}: {why(problem)}") from None
        finally:
            exchange.close()


def why(problem: Exception) -> str:
    return str(getattr(problem, "strerror", None) or problem or type(problem).__name__)


class Exchange:
    """One request over a connection of its own, which is shut down after so many seconds."""

    def __init__(self, url: str, proxy: str, seconds: float) -> None:
        self.url, self.proxy = urlsplit(url), urlsplit(proxy) if proxy else None
        self.is_over = False
        self._open: list[Any] = []
        self._watchdog = threading.Timer(max(seconds, 0.001), self._cut)
        self._watchdog.daemon = True

    def ask(self) -> http.client.HTTPResponse:
        """Raises OSError, HTTPException, ValueError (no URL that this can ask)."""
        scheme, host = self.url.scheme, self.url.hostname
        if scheme not in PORTS or not host:
            raise ValueError("is no URL of HTTP or HTTPS")
        port = self.url.port or PORTS[scheme]
        via = self.proxy
        if via is not None and via.scheme != "http":
            raise ValueError("a proxy is asked by HTTP: write [fetch] proxy = \"http://...\"")
        wire = socket.create_connection((via.hostname or "", via.port or 80) if via else (host, port), PATIENCE)
        self._open.append(wire)
        self._open.append(socket.socket(fileno=wire.dup().detach()))       # stays ours when TLS takes the other
        self._watchdog.start()
        if scheme == "https":
            if via:
                tunnel(wire, host, port)
            wire = ssl.create_default_context().wrap_socket(wire, server_hostname=host)
            self._open.append(wire)
        target = (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")
        if via and scheme == "http":
            target = f"http://{self.url.netloc}{target}"
        connection = http.client.HTTPConnection(host, port)
        connection.sock = wire
        connection.request("GET", target, headers={"Accept-Encoding": "identity", "Connection": "close",
                                                   "User-Agent": f"edgeblock/{edgeblock.__version__}"})
        response = connection.getresponse()
        self._open.append(response)
        return response

    def _cut(self) -> None:
        self.is_over = True
        with suppress(OSError, IndexError):
            self._open[1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._watchdog.cancel()
        for one in reversed(self._open):
            with suppress(OSError):
                one.close()


def tunnel(wire: socket.socket, host: str, port: int) -> None:
    """Has a proxy connect. Raises OSError where it does not."""
    there = f"[{host}]" if ":" in host else host
    wire.sendall(f"CONNECT {there}:{port} HTTP/1.1\r\nHost: {there}:{port}\r\n\r\n".encode())
    answer = http.client.HTTPResponse(wire, method="CONNECT")
    answer.begin()
    if answer.status != 200:
        raise OSError(f"the proxy says {answer.status}")
