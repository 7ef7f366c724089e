"""A list from a web server, over HTTPS; over HTTP only where a checksum or a signature says that it is genuine.

In: a URL, what is known of the last fetch, and a folder. Out: the list, and its signature, in the folder, or that
nothing has changed. Whatever the server does, a fetch is bounded in bytes and in time: a thread waits for the server,
and visit.py cuts its connections when the time is up or too little comes. Nothing is unpacked here: a list that comes
packed stays so, and is bounded by whoever reads it. Never here: a page where a list is expected, or a password in
what is said.
"""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeblock.blocklist import formats
from edgeblock.blocklist.signature import MINISIG_MAX, PublicKey, parse_key, refuses_replay, verify
from edgeblock.errors import ConfigError, ListError, printable
from edgeblock.fleet.landing import why_not
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings
from edgeblock.fleet.threads import in_thread
from edgeblock.fleet.visit import BOUNDS, Answer, Bounds, Secrets, Visit, origin, place_of
from edgeblock.toml import setting, whole

CHECKSUMS_MAX = 1 << 20         # bytes of a file of checksums: of ten thousand files
KEY_FILE_MAX = 4096             # bytes of a file with a key
WORD_MAX = 200                  # characters of an ETag or a date that is kept and shown
UNASKED = 7 * 86400.0           # seconds for which "not changed" is believed; then all of it is asked for again
RETRY_LEAST, RETRY_MOST = 30.0, 86_400.0    # seconds that a server may have us wait
ENDING = 5.0                    # seconds that a thread may take whose connections were cut
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
PAGES = ("text/html", "application/xhtml+xml")
KEPT_PACKED = ("gzip", "x-gzip", "zstd")        # content codings in which a list stays as it came
WHY = {
    401: "wants a user and a password, or others; see user, password_file and token_file",
    403: "may not be had by us; see user, password_file and token_file",
    404: "is not there; is the URL right?",
    407: "is refused by the proxy, which wants a password",
    410: "is gone for good, says the server; take the source out, or give it another URL",
    429: "is asked for too often, says the server",
}


def _digest(value: Any) -> str:
    if value != "" and not (isinstance(value, str) and DIGEST.fullmatch(value)):
        raise ValueError("a SHA-256 of 64 hexadecimal digits in quotes")
    return str(value).lower()


def _url(value: Any) -> str:
    if why := why_no_url(value):
        raise ValueError(why)
    return str(value)


def why_no_url(value: Any) -> str | None:
    """What is allowed, where a text is no URL that can be asked."""
    said = 'an https URL in ASCII and in quotes, such as "https://lists.example.net/court.list"'
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]{1,2000}", value):
        return said
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return said
    if parts.username is not None or parts.password is not None:
        return f"{said}; a password is not for this file: see user and password_file"
    return said if not parts.hostname or port == 0 else None


def _urls(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or any(why_no_url(one) for one in value):
        raise ValueError("a list of https URLs in ASCII, each in quotes")
    return tuple(dict.fromkeys(value))


def _optional(value: Any) -> str:
    return "" if value == "" else _url(value)


def _proxy(value: Any) -> str:
    if value not in ("", "none") and not (isinstance(value, str) and re.fullmatch(r"https?://[^\s/@?#]+/?", value)):
        raise ValueError('the URL of a proxy without a password, "none", or "" for that of [fetch]')
    return str(value)


@dataclass(frozen=True)
class Settings:
    """The keys of a source of kind "https"."""

    url: str = setting("", _url)
    file: str = ""
    mirrors: tuple[str, ...] = setting((), _urls)
    max_megabytes: int = whole(0, 0, 4096)
    sha256: str = setting("", _digest)
    sha256_url: str = setting("", _optional)
    signature_url: str = setting("", _optional)
    signer_file: Path | None = None
    ca_file: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    proxy: str = setting("", _proxy)

    def __post_init__(self) -> None:
        """Raises ConfigError with a line for each mistake."""
        found = []
        if not self.url:
            found.append('has no url, which kind = "https" needs')
        if not self.file:
            found.append('has no file: the name by which the list lands, such as file = "court.list"')
        elif why := why_not(self.file, False):
            found.append(f"file = {self.file!r} {why}")
        elif self.file.endswith(".minisig"):
            found.append(f"file = {self.file!r} is the name of a signature; that of the list is meant")
        for one, other in (("signature_url", "signer_file"), ("certificate_key", "certificate"),
                           ("password_file", "user"), ("user", "password_file")):
            if getattr(self, one) and not getattr(self, other):
                found.append(f"{one} needs {other} beside it")
        if self.signer_file and not self.signature_url:
            found.append("signer_file needs signature_url beside it")
        if self.user and self.token_file:
            found.append("user and token_file are both there; leave one out")
        if self.sha256 and self.sha256_url:
            found.append("sha256 and sha256_url are both there; leave one out")
        genuine = self.sha256 or self.signature_url or self.sha256_url.startswith("https:")
        for url in (self.url, *self.mirrors):
            if url.startswith("http:") and not genuine:
                found.append(f"{printable(place_of(url))} is not over TLS: that needs sha256, signature_url with "
                             "signer_file, or an https sha256_url")
            if url.startswith("http:") and (self.user or self.token_file):
                found.append(f"{printable(place_of(url))} is not over TLS, and would show everybody the password")
        if found:
            raise ConfigError(*found)

    @property
    def plain(self) -> bool:
        """Whether what comes need not come over TLS, as something else says that it is genuine."""
        return bool(self.sha256 or self.signature_url or self.sha256_url.startswith("https:"))


class Web:
    """A Source. Everything of a fetch is in a Fetching, in a thread."""

    kind = "https"

    def __init__(self, name: str, settings: Settings, fetch: FetchSettings, bounds: Bounds = BOUNDS) -> None:
        self.name, self._settings, self._fetch, self._bounds = name, settings, fetch, bounds

    async def fetch(self, known: dict[str, Any], folder: Path) -> Fetched:
        """Raises SourceError."""
        bounds = self._bounds._replace(total=min(self._bounds.total, self._fetch.total_seconds))
        proxy = self._settings.proxy or self._fetch.proxy
        visit = Visit(bounds, "" if proxy == "none" else proxy)
        fetching = Fetching(self._settings, self._fetch.max_bytes, visit, known, folder)
        try:
            work = in_thread(fetching.run, f"fetch {self.name}")
        except OSError as problem:
            raise SourceError(str(problem)) from None
        try:
            ended = time.monotonic()
            while not work.done():
                await asyncio.wait({work}, timeout=bounds.tick)
                if not visit.look(time.monotonic()):
                    ended = time.monotonic()
                elif time.monotonic() > ended + ENDING and not work.done():      # in a name server's hands
                    raise SourceError(f"{place_of(self._settings.url)}: {visit.why}")
            return work.result()
        except OSError as problem:
            raise SourceError(f"{folder}: cannot be used: {problem.strerror or problem}") from None
        finally:
            visit.cut("it was ended")
            work.cancel()               # so that nobody misses what it says from here on

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Nothing is open between two fetches."""


class Fetching:
    """One fetch, in a thread: `run`."""

    def __init__(self, settings: Settings, max_bytes: int, visit: Visit, known: dict[str, Any], folder: Path) -> None:
        self._settings, self._visit, self._known, self._folder = settings, visit, known, folder
        own = settings.max_megabytes << 20
        self._max_bytes = min(own, max_bytes) if own else max_bytes

    def run(self) -> Fetched:
        """Asks the URL, and where that fails its mirrors.

        Raises:
            SourceError: nobody has it. It is that of the last one, unless what came from one cannot be genuine.
        """
        said: list[SourceError] = []
        try:
            self._secrets()
            for url in (self._settings.url, *self._settings.mirrors):
                try:
                    return self._ask(url)
                except SourceError as problem:
                    said.append(problem)
                    if self._visit.why:         # the time is up
                        break
        finally:
            self._visit.close()
        first = next((one for one in said if one.grave), said[0])
        more = f" (and {len(said) - 1} mirrors failed, too)" if len(said) > 1 else ""
        # A mirror does not say when the URL is asked.
        raise SourceError(f"{first}{more}", first.grave, said[0].wait)

    def _secrets(self) -> None:
        """Reads what may change at any time, so that nobody has to be told: passwords, certificates."""
        settings = self._settings
        authorization = ""
        if settings.token_file:
            authorization = f"Bearer {read_line(settings.token_file)}"
        elif settings.user and settings.password_file:
            from urllib3.util import make_headers

            authorization = make_headers(basic_auth=f"{settings.user}:{read_line(settings.password_file)}"
                                         )["authorization"]
        self._visit.secrets = Secrets(origin(settings.url), authorization, settings.ca_file, settings.certificate,
                                      settings.certificate_key)

    def _ask(self, url: str) -> Fetched:
        settings, known = self._settings, self._known
        signature = self._small(settings.signature_url, MINISIG_MAX) if settings.signature_url else b""
        wanted = settings.sha256 or (self._checksum(url) if settings.sha256_url else "")
        signed_as = hashlib.sha256(signature).hexdigest() if signature else ""
        same = known.get("url") == url and known.get("signature", "") == signed_as and bool(known.get("digest"))
        recent = 0 <= time.time() - float(known.get("full", 0)) < UNASKED       # the clock may have been put back
        if same and recent and wanted and wanted == known["digest"]:
            return Fetched(None, known, str(known.get("version", "")), self._visit.got, told=self._told(url))
        asked = {header: known[key] for key, header in (("etag", "If-None-Match"), ("modified", "If-Modified-Since"))
                 if known.get(key)} if same and recent and not wanted else {}     # another is wanted than is here
        answer = self._visit.ask(url, asked, settings.plain)
        place = answer.place
        if answer.status == 304 and asked:
            return Fetched(None, known, str(known.get("version", "")), self._visit.got, told=self._told(url))
        if answer.status != 200:
            raise refused(answer)
        self._check_type(place, answer.headers)
        target = self._folder / settings.file
        target.unlink(missing_ok=True)      # what another mirror has sent before
        with open(target, "xb") as file:
            digest = self._visit.save(answer, file, self._max_bytes)
        self._check(place, target, digest, wanted)
        made = {"url": url, "digest": digest, "signature": signed_as, "full": time.time(),
                "etag": word(answer.headers.get("ETag", "")),
                "modified": word(answer.headers.get("Last-Modified", ""))}
        made["version"] = made["etag"] or made["modified"] or digest[:16]
        files = {settings.file: target}
        if signature:
            made["signed"] = self._check_signature(target, signature, url)
            beside = self._folder / f"{settings.file}.minisig"
            beside.write_bytes(signature)
            files[beside.name] = beside
        return Fetched(files, made, str(made["version"]), self._visit.got, told=self._told(url))

    def _told(self, url: str) -> dict[str, Any]:
        return {"from": urlsplit(url).hostname or ""}

    def _small(self, url: str, limit: int) -> bytes:
        """What a small file beside the list holds."""
        answer = self._visit.ask(url, {}, url.startswith("http:") and self._settings.plain)
        if answer.status != 200:
            raise refused(answer)
        return self._visit.read(answer, limit)

    def _checksum(self, url: str) -> str:
        """The SHA-256 that the file of checksums has for the list."""
        place = place_of(self._settings.sha256_url)
        text = self._small(self._settings.sha256_url, CHECKSUMS_MAX).decode("utf-8", "replace")
        names = {urlsplit(url).path.rpartition("/")[2], self._settings.file}
        found = [(digest, name) for line in text.splitlines() for digest, name in checksum_of(line)]
        own = {digest for digest, name in found if name in names} or (
            {found[0][0]} if len(found) == 1 and not found[0][1] else set())
        if len(own) != 1:
            raise SourceError(f"{place}: has {'no' if not own else 'more than one'} SHA-256 of "
                              f"{' or '.join(sorted(names))}; is sha256_url right?")
        return own.pop()

    def _check_type(self, place: str, headers: Any) -> None:
        """Raises SourceError where the headers say that what comes is no list."""
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in PAGES:
            raise SourceError(f"{place}: is sent as a web page ({kind}), perhaps an error page or a login; if it is "
                              "a list, have the server send it as text/plain")
        coding = headers.get("Content-Encoding", "").strip().lower()
        if coding not in ("", "identity", *KEPT_PACKED):
            raise SourceError(f"{place}: is sent packed as {printable(coding)[:40]!r}, which we have not asked for; "
                              "have the server send it as it is, or packed with gzip or zstd")
        length = headers.get("Content-Length", "")
        if length.isascii() and length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise too_large(place, self._max_bytes)

    def _check(self, place: str, target: Path, digest: str, wanted: str) -> None:
        """Raises SourceError where what came is not what was wanted, or no list."""
        if target.stat().st_size == 0:
            raise SourceError(f"{place}: is empty; what came before stays")
        with target.open("rb") as file:
            if what := formats.never_a_list(file):
                raise SourceError(f"{place}: is no list: {what}")
        if wanted and digest != wanted:
            raise SourceError(f"{place}: has the SHA-256 {digest}, and {wanted} is wanted; it was altered on its "
                              "way, or is another version", grave=bool(self._settings.sha256))

    def _check_signature(self, target: Path, signature: bytes, url: str) -> int:
        """When it was signed, in Unix seconds. Raises SourceError where it was not by the signer, or long ago."""
        settings = self._settings
        assert settings.signer_file is not None
        place = place_of(settings.signature_url)
        key = read_key(settings.signer_file)
        try:
            with target.open("rb") as file:
                signed = verify(file, signature, [key], urlsplit(url).path.rpartition("/")[2])
        except ListError as problem:
            raise SourceError(f"{place}: {problem}", grave=True) from None
        before = self._known.get("signed")
        if why := refuses_replay(signed, before if isinstance(before, int) else None, time.time()):
            raise SourceError(f"{place_of(url)}: {why}", grave=True)
        return signed.timestamp


def refused(answer: Answer) -> SourceError:
    """What is said of a status that is neither 200 nor an answer to what was asked."""
    place, status = answer.place, answer.status
    if status == 304:
        return SourceError(f"{place}: the server says that it has not changed, though it was asked for all of it")
    why = WHY.get(status) or ("cannot be had now, says the server" if status >= 500 else "cannot be had")
    return SourceError(f"{place}: {why} (HTTP {status})", wait=RETRY_MOST if status == 410 else
                       wait_of(answer.headers.get("Retry-After", "")))


def wait_of(retry: str) -> float | None:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3), within bounds; None where it says nothing."""
    try:
        seconds = float(retry[:10]) if retry.strip().isdecimal() else \
            parsedate_to_datetime(retry[:64]).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, RETRY_LEAST), RETRY_MOST)


def too_large(place: str, limit: int) -> SourceError:
    return SourceError(f"{place}: has more than {limit >> 20} MiB, the most that max_megabytes and [fetch] "
                       "file_megabytes allow")


def word(text: str) -> str:
    """A header as it is kept and sent back; "" for one that no honest server sends."""
    return text if len(text) <= WORD_MAX and text.isascii() and text.isprintable() else ""


def checksum_of(line: str) -> list[tuple[str, str]]:
    """Digest and file name of a line of sha256sum, of BSD's sha256, or of a digest alone; none of another line."""
    if found := re.fullmatch(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})", line.strip()):
        return [(found[2].lower(), found[1].rpartition("/")[2])]
    digest, _, name = line.strip().partition(" ")
    return [(digest.lower(), name.strip().removeprefix("*").rpartition("/")[2])] if DIGEST.fullmatch(digest) else []


def read_line(path: Path) -> str:
    """The only line of a file with a secret.

    Raises:
        SourceError: it cannot be read, or is not one line.
    """
    try:
        with path.open("rb") as file:
            text = file.read(KEY_FILE_MAX).decode("ascii").strip()
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read: {problem.strerror}; it has to be readable to edgeblock-fetch"
                          ) from None
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise SourceError(f"{path}: is not one line of ASCII")
    return text


def read_key(path: Path) -> PublicKey:
    """The key in a minisign .pub file. Raises SourceError."""
    try:
        with path.open("rb") as file:
            lines = file.read(KEY_FILE_MAX).decode("ascii", "replace").split("\n")
        return parse_key(next((line.strip() for line in lines if line.startswith("RW")), ""), str(path))
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read: {problem.strerror}") from None
    except ListError as problem:
        raise SourceError(str(problem)) from None
