"""Who may read the metrics: other machines only where the configuration says so, over TLS and with a token where it
names them.

In: the [metrics] settings. Out: a Door with a TLS context and a token, either of them None; a ConfigError with a
line that names the key for each mistake. The certificate is read once, at the start. Never here: a connection.
"""

import hmac
import ipaddress
import re
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

from edgeblock.config import Metrics
from edgeblock.errors import ConfigError

TOKEN_MAX = 1024        # bytes
BEARER = re.compile(rb"(?im)^authorization:[ \t]*bearer[ \t]+([!-~]+)[ \t]*\r?$")     # RFC 6750, 2.1


@dataclass(frozen=True)
class Door:
    """`context` is None without TLS; `token` is None where none is asked for."""

    context: ssl.SSLContext | None = None
    token: bytes | None = field(default=None, repr=False)

    def admits(self, head: bytes) -> bool:
        """Whether the head of a request has the token."""
        if self.token is None:
            return True
        found = BEARER.search(head)
        return found is not None and hmac.compare_digest(found[1], self.token)


OPEN = Door()


def prepare(metrics: Metrics) -> Door:
    """Raises ConfigError where the settings do not fit each other or a file cannot be used."""
    found: list[str] = []
    context = token = None
    if not _is_of_this_machine(metrics.listen) and not metrics.other_machines:
        found.append(f'[metrics] listen = "{metrics.listen}" lets other machines ask; add other_machines = true '
                          "if that is meant, or listen on 127.0.0.1")
    if bool(metrics.certificate) != bool(metrics.certificate_key):
        missing = "certificate_key" if metrics.certificate else "certificate"
        found.append(f"[metrics] certificate and certificate_key go together; set {missing}, too")
    try:
        context = _context(metrics)
    except ConfigError as problem:
        found += problem.args
    try:
        token = _token(metrics.token_file) if metrics.token_file else None
    except ConfigError as problem:
        found += problem.args
    if found:
        raise ConfigError(*found)
    return Door(context, token)


def _is_of_this_machine(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    return listen == "" or listen.startswith("/") or host == "localhost" or ipaddress.ip_address(host).is_loopback


def _context(metrics: Metrics) -> ssl.SSLContext | None:
    if not metrics.certificate or not metrics.certificate_key:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _read(metrics.certificate, "certificate")
    _read(metrics.certificate_key, "certificate_key")
    _must_be_private(metrics.certificate_key, "certificate_key")
    try:
        # A key with a pass phrase would wait for one at a terminal.
        context.load_cert_chain(metrics.certificate, metrics.certificate_key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as problem:
        why = getattr(problem, "reason", None) or problem
        raise ConfigError(f'[metrics] certificate = "{metrics.certificate}" and its key cannot be used: {why}; both '
                          "must be PEM, without a pass phrase") from None
    return context


def _token(path: Path) -> bytes:
    token = _read(path, "token_file").strip()
    if not token or len(token) > TOKEN_MAX or not re.fullmatch(rb"[!-~]+", token):
        raise ConfigError(f'[metrics] token_file = "{path}" must hold one line of visible ASCII, at most {TOKEN_MAX} '
                          "bytes")
    _must_be_private(path, "token_file")
    return token


def _must_be_private(path: Path, key: str) -> None:
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f'[metrics] {key} = "{path}" can be read by everybody; chmod 0640 it')


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ConfigError(f'[metrics] {key} = "{path}" cannot be read: {problem.strerror}') from None
