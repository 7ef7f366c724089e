"""A response policy zone by zone transfer, as a secondary name server has it (RFC 1034, 4.3.5; RFC 1995, 1996, 5936).

In: primaries, a key, what was known of the zone, the file that landed. Out: a file NAME.rpz, new or as it was, and
until when it holds. The file in the drop directory is the zone, there is no other copy: an increment goes into it,
and where it is not as it was written the whole zone comes again. A serial never goes back. Never here: a record
looked at for what it blocks, or a wait longer than the SOA record says.
"""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig

from edgeblock.errors import ConfigError
from edgeblock.fleet import zone_notify
from edgeblock.fleet.source import Fetched, SourceError
from edgeblock.fleet.sources import FetchSettings
from edgeblock.fleet.zone_key import WORDS, read_key
from edgeblock.fleet.zone_store import Unfit, Written, increment
from edgeblock.fleet.zone_transfer import Arrived, Bounds, Failed, Primary, WentBack, transfer, unreachable
from edgeblock.fleet.zone_wire import SOA, BadMessage, Message, Soa, is_newer, zone_text
from edgeblock.toml import choice, seconds, text, whole

ASK = (2.0, 3.0)            # seconds for an answer to the question for the SOA record, on UDP, each time
ASK_STREAM = 10.0           # the same on TCP and TLS
PAUSE = 0.5                 # seconds between two fetches, however many NOTIFY come; twice as many after each failure
KEPT_SHARE = 0.05           # of the SOA's expire: what is kept of the last answer is no older
DNS_PORT, TLS_PORT = 53, 853


@dataclass(frozen=True)
class Settings:
    """The keys of a [[source]] with kind = "zone". Times are seconds; the bounds are those of the SOA's timers."""

    zone: str
    primaries: tuple[str, ...]
    key_file: Path | None = None            # the TSIG key; None: nothing is signed, and nothing need be
    tls: bool = False                       # RFC 9103
    tls_ca: Path | None = None              # None: the authorities of the system
    tls_name: str = text()                  # whose certificate; "": the address
    listen: tuple[str, ...] = ()            # where NOTIFY is heard
    min_refresh: float = seconds(60, 1, 2_592_000)
    max_refresh: float = seconds(86_400, 1, 2_592_000)
    min_retry: float = seconds(15, 1, 2_592_000)
    max_retry: float = seconds(3600, 1, 2_592_000)
    max_expire: float = seconds(2_592_000, 60, 31_536_000)
    on_expire: str = choice("keep", "keep", "remove")
    max_records: int = whole(10_000_000, 1, 100_000_000)
    min_rate: int = whole(1024, 1, 1 << 30)         # bytes a second

    def __post_init__(self) -> None:
        mistakes = []
        try:
            if zone_name(self.zone) == dns.name.root:
                mistakes.append('zone = "." must be the name of a response policy zone')
        except (dns.exception.DNSException, UnicodeError) as problem:
            mistakes.append(f"zone = {self.zone!r} must be the name of a zone, such as \"rpz.example\": {problem}")
        if not self.primaries:
            mistakes.append('primaries must have an address, such as ["192.0.2.1"] or ["[2001:db8::1]:5353"]')
        for key, addresses in (("primaries", self.primaries), ("listen", self.listen)):
            for one in addresses:
                try:
                    place(one, DNS_PORT)
                except ValueError:
                    mistakes.append(f"{key}: {one!r} must be an address, with a port where it is another, such as "
                                    '"192.0.2.1", "192.0.2.1:5353" or "[2001:db8::1]:5353"')
        for low, high in (("min_refresh", "max_refresh"), ("min_retry", "max_retry")):
            if getattr(self, low) > getattr(self, high):
                mistakes.append(f"{low} must not be above {high}")
        if (self.tls_ca or self.tls_name) and not self.tls:
            mistakes.append("tls_ca and tls_name need tls = true")
        if mistakes:
            raise ConfigError(*mistakes)


def zone_name(zone: str) -> dns.name.Name:
    return dns.name.from_text(zone.encode("idna").decode() if not zone.isascii() else zone).canonicalize()


def place(text: str, port: int) -> tuple[str, int]:
    """Address and port of "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"; raises ValueError."""
    host, colon, behind = text, "", ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        colon, behind = rest[:1], rest[1:]
        if not closed or colon not in ("", ":"):
            raise ValueError
    elif text.count(":") == 1:
        host, colon, behind = text.partition(":")
    if colon and not (behind.isascii() and behind.isdigit() and 0 < int(behind) < 65536):
        raise ValueError
    return str(ipaddress.ip_address(host)), int(behind) if colon else port


@dataclass(frozen=True)
class Known:
    """What is kept of a zone between two fetches: its SOA record, its file as it was written, and when a primary last
    said that this is the newest (Unix seconds). `removed`: it expired, and the file went."""

    zone: str
    soa: Soa
    file: Written
    checked: float
    removed: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"zone": self.zone, "soa": self.soa.data.decode(), "ttl": self.soa.ttl, "digest": self.file.digest,
                "records": self.file.records, "size": self.file.size, "checked": self.checked,
                "removed": self.removed}

    @classmethod
    def of(cls, known: dict[str, Any], zone: str) -> "Known | None":
        """None where nothing is known, or of another zone."""
        try:
            if known["zone"] != zone:
                return None
            file = Written(str(known["digest"]), int(known["records"]), int(known["size"]))
            return cls(zone, Soa.of(int(known["ttl"]), known["soa"].encode()), file, float(known["checked"]),
                       bool(known["removed"]))
        except (KeyError, ValueError, TypeError, AttributeError):
            return None


class Zone:
    """A Source (source.py): one zone. `now` is the clock, Unix seconds."""

    kind = "zone"

    def __init__(self, name: str, settings: Settings, fetch: FetchSettings,
                 now: Callable[[], float] = time.time) -> None:
        self.name = name
        self.settings = settings
        self.now = now
        self.zone = zone_name(settings.zone)
        self.text = zone_text(self.zone).decode()
        self.landed = fetch.directory / f"{name}.rpz"
        self.bounds = Bounds(fetch.max_bytes, settings.max_records, fetch.total_seconds, settings.min_rate)
        self.addresses = [place(one, TLS_PORT if settings.tls else DNS_PORT) for one in settings.primaries]
        self.notified = asyncio.Event()
        self.notifier = ""          # the address of who last said NOTIFY
        self.notifies = 0
        self.checked = 0.0          # when a primary last said that we have the newest; what is kept of it is older
        self.asked = 0.0            # when the last fetch ended, by the loop's clock
        self.listeners: dict[str, tuple[zone_notify.Listener, zone_notify.Audience]] = {}
        self.failed = 0             # fetches in a row
        self.deaf = ""              # why NOTIFY is not heard

    # ---- fetching

    async def fetch(self, known: dict[str, Any], folder: Path) -> Fetched:
        """See Source. What was there stays in force on every error; `on_expire` says what becomes of it after the
        SOA's expire without a primary."""
        self.notified.clear()
        first, self.notifier = self.notifier, ""
        before = Known.of(known, self.text)
        try:
            key = read_key(self.settings.key_file) if self.settings.key_file else None
            primaries = self._primaries(first)
            await self._listen(key)
            self.failed += 1
            fetched = await self._ask_all(primaries, key, before, folder)
            self.failed = 0
            return fetched
        except ConfigError as problem:
            raise SourceError(f"{problem}") from None
        except SourceError as problem:
            if before is None:
                raise
            return self._without_primary(before, problem)
        except OSError as problem:
            where = problem.filename or folder
            raise SourceError(f"{where}: cannot be read or written: {problem.strerror}") from None
        finally:
            self.asked = asyncio.get_running_loop().time()

    def _primaries(self, first: str) -> list[Primary]:
        """In their order, but who has said NOTIFY first: the others may not have the change yet."""
        context = None
        if self.settings.tls:
            try:
                context = ssl.create_default_context(cafile=self.settings.tls_ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{self.settings.tls_ca}: is no file of certificates "
                                  f"({getattr(error, 'strerror', None) or error})") from None
            context.minimum_version = ssl.TLSVersion.TLSv1_3        # RFC 9103, 8.1
            context.set_alpn_protocols(["dot"])
        made = [Primary(address, port, context, self.settings.tls_name) for address, port in self.addresses]
        return sorted(made, key=lambda one: one.address != first)

    async def _ask_all(self, primaries: list[Primary], key: dns.tsig.Key | None, before: Known | None,
                       folder: Path) -> Fetched:
        """The first primary that has something newer; the others may be behind, or down."""
        problems: list[str] = []
        grave, is_newest = False, False
        base = before if before is not None and self._is_there(before) else None
        for primary in primaries:
            try:
                soa = await ask_soa(primary, self.zone, key)
                if before is not None and soa.serial != before.soa.serial and not is_newer(
                        soa.serial, before.soa.serial):
                    raise WentBack(soa.serial, before.soa.serial, grave=key is not None)
                if base is not None and soa.serial == base.soa.serial:
                    is_newest = True
                    continue
                return await self._bring(primary, key, before, base, folder, problems)
            except Failed as problem:
                problems.append(f"{primary}: {problem}")
                grave |= problem.grave
        if is_newest and base is not None:
            return self._unchanged(base, 0, problems)
        raise SourceError(f"{self.text} " + "; ".join(problems), grave)

    def _is_there(self, known: Known) -> bool:
        try:
            return not known.removed and self.landed.stat().st_size == known.file.size
        except OSError:
            return False

    async def _bring(self, primary: Primary, key: dns.tsig.Key | None, before: Known | None, base: Known | None,
                     folder: Path, problems: list[str]) -> Fetched:
        """The increment from this primary, and the whole zone where that does not do."""
        least = before.soa.serial if before is not None else None
        size, made = 0, folder / self.landed.name
        arrived = None
        if base is not None:
            try:
                arrived = await transfer(primary, self.zone, base.soa.serial, least, key, self.bounds, folder)
                size = arrived.size
                if arrived.whole is None and arrived.changes is None:
                    return self._unchanged(base, size, problems)
                if arrived.changes is not None:
                    written = await asyncio.to_thread(increment, self.landed, base.file.digest, base.file.records,
                                                      arrived.changes, arrived.soa, made, self.text.encode())
                    return self._arrived(arrived, written, size, made, problems)
            except Unfit as problem:
                problems.append(f"{primary}: {problem}, so the whole zone was asked for")
                arrived = None
        if arrived is None:
            try:
                arrived = await transfer(primary, self.zone, None, least, key, self.bounds, folder)
            except Unfit as problem:
                raise Failed(str(problem)) from None
            size += arrived.size
        whole = arrived.whole
        assert whole is not None
        try:
            written = await asyncio.to_thread(whole.write, made, self.text.encode())
        finally:
            whole.close()
        return self._arrived(arrived, written, size, made, problems)

    def _arrived(self, arrived: Arrived, written: Written, size: int, made: Path, problems: list[str]) -> Fetched:
        how = "increment" if arrived.changes is not None else "whole zone"
        return self._fetched({self.landed.name: made}, Known(self.text, arrived.soa, written, self.now()), size,
                             problems, {"transfer": how, "outside": arrived.outside})

    def _unchanged(self, base: Known, size: int, problems: list[str]) -> Fetched:
        """What is kept says when that was, but not to the second: nothing is written for it each time."""
        now = self.now()
        kept = base.checked if 0 <= now - base.checked < self._expire(base.soa) * KEPT_SHARE else now
        return self._fetched(None, Known(base.zone, base.soa, base.file, kept), size, problems)

    def _fetched(self, files: dict[str, Path] | None, known: Known, size: int, problems: list[str],
                 more: dict[str, Any] | None = None) -> Fetched:
        refresh = clamped(known.soa.refresh, self.settings.min_refresh, self.settings.max_refresh)
        if not known.removed:
            self.checked = self.now()
        told = {"zone": self.text, "serial": known.soa.serial, "records": known.file.records,
                "expires": round(self.checked + self._expire(known.soa)), "notifies": self.notifies, **(more or {})}
        if problems:
            told["problems"] = "; ".join(problems)
        if self.deaf:
            told["notify"] = self.deaf
        return Fetched(files, known.as_json(), str(known.soa.serial), size, refresh, told)

    # ---- expiry

    def _expire(self, soa: Soa) -> float:
        """Seconds for which the zone holds without a primary: the SOA's, but no less than one refresh and retry."""
        settings = self.settings
        return max(min(soa.expire, settings.max_expire),
                   clamped(soa.refresh, settings.min_refresh, settings.max_refresh)
                   + clamped(soa.retry, settings.min_retry, settings.max_retry))

    def _without_primary(self, before: Known, problem: SourceError) -> Fetched:
        """Raises the problem, with what it means for a zone that is there; or takes an expired zone away."""
        retry = clamped(before.soa.retry, self.settings.min_retry, self.settings.max_retry)
        end = max(self.checked, before.checked) + self._expire(before.soa)
        if self.now() <= end:
            raise SourceError(str(problem), problem.grave, retry)
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
        if before.removed:
            raise SourceError(f"expired since {when}, and removed (on_expire); {problem}", problem.grave, retry)
        if self.settings.on_expire == "keep":
            raise SourceError(f"expired since {when}: the list stays in force as it was (on_expire); {problem}",
                              problem.grave, retry)
        known = Known(before.zone, before.soa, before.file, before.checked, removed=True)
        fetched = self._fetched({}, known, 0, [str(problem)], {"expired": f"since {when}, removed (on_expire)"})
        return replace(fetched, wait=retry)

    # ---- waiting

    async def wait(self, seconds: float) -> None:
        """See Source. After NOTIFY it ends at once, but for a short pause; anybody can forge a primary's address, so
        what fails is not asked for again and again."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await self.notified.wait()
        except TimeoutError:
            return
        pause = min(PAUSE * 2 ** min(self.failed, 16), self.settings.min_retry)
        await asyncio.sleep(max(0.0, self.asked + pause - loop.time()))

    def _heard(self, sender: str) -> None:
        self.notifies += 1
        self.notifier = sender
        self.notified.set()

    async def _listen(self, key: dns.tsig.Key | None) -> None:
        """Joins where it does not listen yet; where nothing can, the SOA's timers still work."""
        problems = []
        for one in self.settings.listen:
            held = self.listeners.get(one)
            if held is not None and held[1].key != key:
                await self._deafen(one)
            if one in self.listeners:
                continue
            audience = zone_notify.Audience(frozenset(address for address, _ in self.addresses), key, self._heard)
            try:
                listener = await zone_notify.join(place(one, DNS_PORT), self.text.encode(), audience)
                self.listeners[one] = listener, audience
            except OSError as error:
                hint = "; take a port above 1023" if isinstance(error, PermissionError) else ""
                problems.append(f"cannot listen on {one}: {error.strerror}{hint}")
        self.deaf = "; ".join(problems)

    async def _deafen(self, one: str) -> None:
        listener, audience = self.listeners.pop(one)
        await zone_notify.leave(listener, self.text.encode(), audience)

    async def close(self) -> None:
        for one in list(self.listeners):
            await self._deafen(one)


def clamped(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


async def ask_soa(primary: Primary, zone: dns.name.Name, key: dns.tsig.Key | None) -> Soa:
    """The SOA record that a primary has: by UDP, where that is not whole by TCP, or by TLS.

    Raises:
        Failed: it does not answer, or with something else, or not signed as it must be.
    """
    query = dns.message.make_query(zone, dns.rdatatype.SOA, use_edns=False)
    query.flags = dns.flags.Flag(0)
    if key is not None:
        query.use_tsig(key)
    try:
        answer = await answer_of(primary, query)
        message = Message(answer.wire or b"")
        found = [record for record in message.records(zone_text(zone)) if record.type == SOA and record.owner == b"@"]
    except tuple(WORDS) as error:
        raise Failed(WORDS[type(error)], isinstance(error, dns.tsig.BadSignature)) from None
    except (dns.exception.Timeout, TimeoutError):
        raise Failed("does not answer") from None
    except dns.message.UnknownTSIGKey:
        raise Failed("it signs, and not with the key that is configured here (key_file)") from None
    except OSError as error:
        raise unreachable(error) from None
    except (dns.exception.DNSException, BadMessage, EOFError, ValueError) as error:
        if key is not None and "requires a TSIG" in str(error):     # newer releases of dnspython look themselves
            raise unsigned() from None
        raise Failed(f"answers with something that is no answer ({error or type(error).__name__})") from None
    if key is not None and not answer.had_tsig:
        raise unsigned()
    if message.rcode:
        raise Failed(f"answers {dns.rcode.to_text(answer.rcode())}; does it have the zone, and may this box ask?")
    if len(found) != 1:
        raise Failed("answers without a SOA record of the zone; does it have the zone?")
    return Soa.of(found[0].ttl, found[0].data)


def unsigned() -> Failed:
    return Failed("its answer is not signed, and a key is configured (key_file)", grave=True)


async def answer_of(primary: Primary, query: dns.message.Message) -> dns.message.Message:
    if primary.tls is not None:
        return await dns.asyncquery.tls(query, primary.address, ASK_STREAM, primary.port, ssl_context=primary.tls,
                                        server_hostname=primary.tls_name or primary.address)
    for number, patience in enumerate(ASK, 1):
        try:
            return await dns.asyncquery.udp(query, primary.address, patience, primary.port, ignore_unexpected=True,
                                            raise_on_truncation=True)
        except (dns.message.Truncated, dns.query.BadResponse):
            break
        except dns.exception.Timeout:
            if number == len(ASK):      # UDP may be filtered on the way
                break
    return await dns.asyncquery.tcp(query, primary.address, ASK_STREAM, primary.port)
