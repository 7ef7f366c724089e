"""Which releases boxes have found bad, out of their metrics; and these held, so that later rings never take them.

In: a Prometheus that all boxes are in, or a file of metrics. Out: authority and version of what is bad, and a hold
for each that was not held. Never here: a release withdrawn or changed, for which a person decides.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from prometheus_client.parser import text_string_to_metric_families
from tuf.api.exceptions import DownloadError

from edgeblock.fleet.download import Bounded
from edgeblock.fleet.publish import Publisher, PublishError
from edgeblock.fleet.releases import OWN

METRIC = "edgeblock_fetch_release_bad"      # 1 for each release that a box has given up; labels authority, version
ANSWER_MAX = 16 << 20                       # bytes of an answer: a thousand boxes with ten such releases are 4 MB
NAMED_MAX = 5                               # boxes that a reason names

Bad = dict[tuple[str, int], set[str]]       # authority and version: the boxes that say so


def from_prometheus(url: str) -> Bad:
    """Raises PublishError where it does not answer so."""
    fetcher = Bounded()
    asked = f"{url.rstrip('/')}/api/v1/query?query={quote(METRIC + ' == 1')}"
    try:
        told = json.loads(fetcher.download_bytes(asked, ANSWER_MAX))
        if told["status"] != "success":
            raise ValueError(told.get("error", "no success"))
        return gathered((one["metric"], 1.0) for one in told["data"]["result"])
    except DownloadError as problem:
        raise PublishError(f"{url}: cannot be asked: {problem}; nothing is held") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise PublishError(f"{url}: is no answer of a Prometheus: {problem}; nothing is held") from None
    finally:
        fetcher.close()


def from_file(path: Path) -> Bad:
    """The same of metrics in their text form. Raises PublishError."""
    try:
        with open(path, "rb") as file:
            text = file.read(ANSWER_MAX).decode()
        return gathered((sample.labels, sample.value) for family in text_string_to_metric_families(text)
                        for sample in family.samples if sample.name == METRIC)
    except OSError as problem:
        raise PublishError(f"{path}: cannot be read: {problem.strerror}; nothing is held") from None
    except ValueError as problem:
        raise PublishError(f"{path}: is no file of metrics: {problem}; nothing is held") from None


def gathered(samples: Iterator[tuple[dict[str, str], float]]) -> Bad:
    found: Bad = {}
    for labels, value in samples:
        version = str(labels.get("version", ""))
        if value == 1 and version.isdecimal() and len(version) < 16:
            box = str(labels.get("instance") or labels.get("box") or "a box")
            found.setdefault((str(labels.get("authority") or OWN), int(version)), set()).add(box)
    return found


def hold_all(publisher: Publisher, bad: Bad, dry_run: bool = False) -> Iterator[str]:
    """Holds what is bad, is there and is neither held nor withdrawn; a line for each.

    Raises:
        PublishError, KeyProblem: it cannot be signed.
    """
    held = publisher.held()
    told = []
    for (authority, version), boxes in sorted(bad.items()):
        if authority not in publisher.authorities():
            continue
        release = publisher.table(authority).of(version)
        if release is None or release.withdrawn or version in held.of(authority):
            continue
        named = ", ".join(sorted(boxes)[:NAMED_MAX]) + (f" and {len(boxes) - NAMED_MAX} more"
                                                        if len(boxes) > NAMED_MAX else "")
        publisher.hold(authority, version, f"bad on {named}")
        told.append(f"{authority}: release {version} is held: bad on {named}")
    if told and not dry_run:
        publisher.commit()
    yield from told
