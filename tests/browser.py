"""Chromium in a lab. In: a host. Out: the page it shows and what its network stack recorded on the way.

Never: a host name that leaves the lab, or a profile that stays.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgeblock.lab import SERVER, Lab

# Debian's own binary first: what lies in the PATH there is a script around it.
CHROMIUM = next((path for path in ("/usr/lib/chromium/chromium", *map(shutil.which, ("chromium", "google-chrome")))
                 if path and os.path.exists(path)), None)


@dataclass
class Browsed:
    """What Chromium made of one address: the page, and its own log of events as (milliseconds, name, parameters)."""

    page: str
    events: list[tuple[int, str, dict]]

    def times(self, name: str) -> list[int]:
        return [at for at, event, _ in self.events if event == name]

    def errors(self) -> set[int]:
        """The codes of the CONNECTION_CLOSE frames that servers sent."""
        return {more["quic_wire_error"] for _, event, more in self.events
                if event == "QUIC_SESSION_CONNECTION_CLOSE_FRAME_RECEIVED"}


# What a profile holds once a host has said over TCP that it can be had over QUIC (RFC 7838).
TOLD = {"net": {"http_server_properties": {"version": 5, "servers": [{
    "server": "https://HOST", "anonymization": [], "alternative_service": [
        {"protocol_str": "quic", "advertised_alpns": ["h3"], "port": 443, "expiration": "13600000000000000"}]}]}}}


def browse(lab: Lab, home: Path, host: str, version: int, way: str = "quic") -> Browsed:
    """Chromium loads https://host/, in a profile in `home`.

    `way`: "quic" is over HTTP/3 and nothing else, "tcp" without it, "told" as a browser does that knows the host from
    earlier: QUIC first, then TCP.
    """
    profile = home / "profile" / "Default"
    profile.mkdir(parents=True)
    ways = {"quic": ["--enable-quic", f"--origin-to-force-quic-on={host}:443"], "tcp": ["--disable-quic"],
            "told": ["--enable-quic", "--disable-features=PartitionConnectionsByNetworkIsolationKey"]}
    if way == "told":
        (profile / "Network Persistent State").write_text(json.dumps(TOLD).replace("HOST", host))
    certificate = x509.load_pem_x509_certificate((lab.home / "server.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    address = f"[{SERVER[6]}]" if version == 6 else SERVER[4]
    log = home / "events.json"
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}/profile",
        "--disable-background-networking",
        # No other host resolves: Chromium calls some of its maker's, and takes their connection to this address for
        # every host that their certificate is good for.
        f"--host-resolver-rules=MAP {host} {address}, MAP * ~NOTFOUND",
        f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(key).digest()).decode()}",
        *ways[way], f"--log-net-log={log}", "--dump-dom", f"https://{host}/"]
    done = subprocess.run(lab.command("client", command), capture_output=True, text=True, timeout=60, check=False)
    record = json.loads(log.read_text())
    names = {number: name for name, number in record["constants"]["logEventTypes"].items()}
    return Browsed(done.stdout, [(int(event["time"]), names[event["type"]], event.get("params", {}))
                                 for event in record["events"]])
