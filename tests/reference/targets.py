"""What servers make of a request target with dot segments, one kind of server after the other: the slow way.

In: a target as sent. Out: the canonical form of each reading. It shares only `canonical_target` with the matcher,
which finds all readings at once.
"""

from edgeblock.blocklist.canonical import canonical_target

LONGEST = 8192          # WAYS_TARGET_MAX of blocklist/canonical.pxd
DECODED, SLASH, KEEP, WAYS = 1, 2, 4, 8         # there, too


def ends(text: bytes, at: int) -> bool:
    return at == len(text) or text[at] in b"?#"


def resolve_dots(text: bytes, way: int) -> bytes:
    """The target with the dot segments of its path resolved as one kind of server does, else as it stands."""
    kept: list[bytes] = []
    at = 0
    while not ends(text, at):
        start, plain, width = at, b"", 0
        while not ends(text, at):
            byte, width = text[at:at + 1], 1
            digits = text[at + 1:at + 3]
            if byte == b"%" and len(digits) == 2 and all(digit in b"0123456789abcdefABCDEF" for digit in digits):
                decoded = bytes.fromhex(digits.decode())
                # Browsers' parsers decode nothing here, but "%2e" is a dot to them.
                if way & DECODED or decoded == b".":
                    byte, width = decoded, 3
            if byte == b"/" or byte == b"\\" and not way & SLASH:
                break
            plain += byte
            at += width
            width = 0                       # of what ended the segment
        if at == start:
            if way & KEEP and start:
                kept.append(b"")
        elif plain == b"..":
            del kept[-1:]
        elif plain != b".":
            kept.append(text[start:at])
        at += width
    return b"".join(b"/" + segment for segment in kept) + text[at:] if kept else b"/" + text[at:]


def target_forms(text: bytes) -> set[bytes]:
    """The canonical form of each way that servers read the target's path, with and without path parameters."""
    made = {text}
    if len(text) <= LONGEST:
        made |= {resolve_dots(text, way) for way in range(WAYS)}
    return {canonical_target(one, bare) for one in made for bare in (False, True)}
