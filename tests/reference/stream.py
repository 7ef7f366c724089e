"""A slow reader of streams with conflicting bytes, written from the rule itself: try everything.

Segments (offset, bytes) in, every name out that some server could read: one that, wherever segments overlap, keeps
any of the copies it got. Segment edges cut the stream into intervals; for each interval one copy is chosen, all
choices are tried, and each outcome is read whole by the slow readers. Only for streams of few bytes.
"""

from itertools import product

from tests.reference import http, tls


def copies(segments: list[tuple[int, bytes]]) -> list[list[bytes]]:
    """For each interval from offset 0 to the first hole, the distinct copies of its bytes."""
    edges = sorted({edge for at, data in segments for edge in (at, at + len(data)) if edge >= 0} | {0})
    intervals = []
    for a, b in zip(edges, edges[1:], strict=False):
        versions = {data[a - at:b - at] for at, data in segments if at <= a and b <= at + len(data)}
        if not versions:
            break
        intervals.append(sorted(versions))
    return intervals


def names_of(stream: bytes) -> set[bytes]:
    """The names of the messages of one client, TLS or HTTP, one after the other."""
    stream = stream.lstrip(b"\r\n")
    if not stream:
        return set()
    if stream[0] in (20, 21, 22):
        return {name for name in tls.read(stream)[1]}
    return http.every_host(stream)


def names(segments: list[tuple[int, bytes]], most: int) -> set[bytes] | None:
    """Every name of every reading; None where there are more than `most` readings."""
    intervals = copies(segments)
    count = 1
    for versions in intervals:
        count *= len(versions)
    if count > most:
        return None
    return {name for choice in product(*intervals) for name in names_of(b"".join(choice))}
