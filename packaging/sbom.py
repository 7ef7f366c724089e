"""What is in the package, as a CycloneDX 1.5 bill of materials: sbom.py LOCK SITE VERSION TIME DEPENDS

In: the lock of what it depends on, the folder that has it installed, edgeblock's version, a time in Unix seconds, and
the Depends line of the Debian package. Out: JSON on standard output, the same for the same input. Never: the network.
"""

import json
import re
import sys
import uuid
from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

LOCKED = re.compile(r"(?m)^([a-z0-9-]+)==(\S+)(.*(?:\n    --hash=.*)+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAMESPACE = uuid.UUID("5bb2a3f3-4f0c-5d0e-9a55-6d2f1c1f2a5e")     # ours, for serial numbers


def normal(name: str) -> str:
    """A Python package's name as all spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, dict[str, list[str]]]:
    """Of each package in a lock the versions, each for some Pythons, with the hashes of their files."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, version, hashes in LOCKED.findall(text):
        found.setdefault(normal(name), {})[version] = HASH.findall(hashes)
    return found


def licence(metadata: Message) -> list[dict[str, Any]]:
    said = metadata.get("License-Expression") or metadata.get("License") or ""
    if not said or "\n" in said:        # some have the whole text there
        said = "; ".join(word.rpartition(" :: ")[2] for word in metadata.get_all("Classifier", [])
                         if word.startswith("License ::"))
    return [{"license": {"name": said}}] if said else []


def python_parts(lock: str, site: Path) -> list[dict[str, Any]]:
    """What is installed from the lock. SystemExit where it is not what the lock says."""
    known, parts = locked(lock), []
    for one in distributions(path=[str(site)]):
        name, version = normal(one.metadata["Name"]), one.version
        if name == "edgeblock":
            continue
        if version not in known.get(name, {}):
            raise SystemExit(f"sbom: {name} {version} is installed, and the lock has "
                             f"{', '.join(known.get(name, {})) or 'none'}")
        purl = f"pkg:pypi/{name}@{version}"
        # Any of these files may be what was installed: the one that fits the machine.
        files = [{"type": "distribution", "url": purl, "hashes": [{"alg": "SHA-256", "content": content}]}
                 for content in known[name][version]]
        parts.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                      "licenses": licence(one.metadata), "externalReferences": files})
    return sorted(parts, key=lambda part: part["name"])


def debian_parts(depends: str) -> list[dict[str, Any]]:
    """What the system has to have, of which the package names no version but Python's."""
    names = sorted({re.split(r"[ (|]", word.strip())[0] for word in depends.split(",") if word.strip()})
    return [{"type": "library", "bom-ref": f"pkg:deb/debian/{name}", "name": name, "purl": f"pkg:deb/debian/{name}"}
            for name in names]


def bill(lock: str, site: Path, version: str, at: int, depends: str) -> dict[str, Any]:
    parts = python_parts(lock, site) + debian_parts(depends)
    root = f"pkg:generic/edgeblock@{version}"
    made: dict[str, Any] = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "component": {"type": "application", "bom-ref": root, "name": "edgeblock", "version": version,
                          "licenses": [{"license": {"id": "GPL-2.0-or-later"}}]}},
        "components": parts,
        "dependencies": [{"ref": root, "dependsOn": [part["bom-ref"] for part in parts]}]}
    made["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(made, sort_keys=True))}"
    return made


if __name__ == "__main__":
    lock, site, version, at, depends = sys.argv[1:]
    print(json.dumps(bill(Path(lock).read_text(), Path(site), version, int(at), depends), indent=1, sort_keys=True))
