"""Bytes of a URL for the TUF client, within bounds that no server can stretch.

In: a URL, the most bytes, an end of time. Out: a file with the bytes, or a DownloadError of python-tuf's. Requests
are those of visit.py; a thread beside each looks at the clock. Never here: whether the bytes are genuine.
"""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tuf.api.exceptions import DownloadError, DownloadHTTPError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from edgeblock.fleet.source import SourceError
from edgeblock.fleet.visit import Bounds, Visit

BASE = 20.0                 # seconds that the shortest file may take
SLOWEST = 50_000            # bytes a second that a longer one has to come with


class Bounded(FetcherInterface):
    """`size` counts what has come; all of it is over after `total` seconds."""

    def __init__(self, proxy: str = "", total: float = 900.0) -> None:
        self.proxy = proxy
        self.size = 0
        self._until = time.monotonic() + total
        self._visit: Visit | None = None
        self._ended = False

    def end(self) -> None:
        """Cuts what a thread may still wait for, and lets it begin nothing more."""
        self._ended = True
        if (visit := self._visit) is not None:
            visit.cut("it was ended")
            visit.close()

    def close(self) -> None:
        """Lets go of connections."""
        if self._visit is not None:
            self._visit.close()
            self._visit = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise DownloadError(f"{url}: is asked without a bound")     # download_file has one

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As FetcherInterface has it."""
        with tempfile.TemporaryFile() as file:
            self._save(url, max_length, file)
            file.seek(0)
            yield file

    def _save(self, url: str, most: int, file: IO[bytes]) -> None:
        left = self._until - time.monotonic()
        seconds = min(left, BASE + most / SLOWEST)
        if seconds <= 0:
            raise SlowRetrievalError(f"{url}: the time for all of it is up ([fetch] total_seconds)")
        visit = self._visit = self._visit or Visit(Bounds(total=left), self.proxy)
        before = visit.got
        try:
            if self._ended:         # looked at when the visit is there to be cut
                raise SourceError(f"{url}: it was ended")
            with watched(visit, seconds):
                answer = visit.ask(url, {}, plain=True)
                if answer.status != 200:
                    answer.body.close()
                    raise DownloadHTTPError(f"{answer.place}: the server says {answer.status}", answer.status)
                visit.save(answer, file, most)      # type: ignore[arg-type]
        except SourceError as problem:
            self.close()                            # what was cut makes no more connections
            if visit.got - before > most:
                raise DownloadLengthMismatchError(f"{url}: has more than {most} bytes") from None
            if visit.why:
                raise SlowRetrievalError(str(problem)) from None
            raise DownloadError(str(problem)) from None
        finally:
            self.size += visit.got - before


@contextmanager
def watched(visit: Visit, seconds: float) -> Iterator[None]:
    """Cuts a visit that is not over after so many seconds, or comes too slowly before."""
    ended = threading.Event()

    def look() -> None:
        until = time.monotonic() + seconds
        while not ended.wait(min(1.0, seconds / 4)):
            now = time.monotonic()
            if now > until:
                visit.cut(f"has not come within {seconds:.1f} s")
            if visit.look(now):
                return

    thread = threading.Thread(target=look, name="watch of a download", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
