"""A slow reader of HTTP/1.x requests, written from RFC 9112 and docs/evasion.md without a look at the core.

All bytes in, a list of heads out, one for each complete request head, and how reading ended. A head is
(hosts, target, framings). Line by line, with regular expressions, the way the core does not do it.
"""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}"
SPACE = b" \t\n\v\f\r"


class Refused(Exception):
    """No server would go on reading."""


class Unspecified(Exception):
    """A length beyond all sizes: what it comes to is nobody's business."""


def read(data: bytes) -> tuple[list[tuple[list[bytes], bytes, list[tuple[str, int]]]], bool]:
    """(heads, refused): `refused` is false where more bytes could follow."""
    heads: list[tuple[list[bytes], bytes, list[tuple[str, int]]]] = []
    at = 0
    try:
        while True:
            at = behind_blank_lines(data, at)
            end = data.find(b"\n", at)
            method, target, versioned = read_request_line(data[at:end if end >= 0 else len(data)], end >= 0)
            if end < 0:
                return heads, False
            hosts = hosts_of_target(method, target)
            if not versioned:                   # HTTP/0.9 ends here; a lenient server goes on to the fields
                heads.append((hosts[:], target, []))
            lines, at, whole = read_lines(data, end + 1)
            if not whole:
                return heads, False
            fields = [line.partition(b":") for line in unfold(lines)]
            framings = read_framings(fields)
            hosts += [value.strip(SPACE) for name, colon, value in fields
                      if colon and plain(name) == b"host" and value.strip(SPACE)]
            heads.append((hosts[:15] + hosts[-1:] if len(hosts) > 16 else hosts, target, framings))
            if method == b"PRI" and target == b"*":
                return heads, False
            if method.lower() == b"connect":
                continue
            after = skip_body(data, at, framings)
            if after is None:
                return heads, False
            at = after
    except Refused:
        return heads, True


def behind_blank_lines(data: bytes, at: int) -> int:
    while data[at:at + 1] in (b"\r", b"\n"):
        at += 1
    return at


def read_request_line(line: bytes, whole: bool) -> tuple[bytes, bytes, bool]:
    """Method, target, whether a version is there. Refuses a line, even unfinished, that no request begins with."""
    match = re.match(rb"(%s)(?:([ \t])|$)" % TOKEN, line)
    if line and not match:
        raise Refused
    if match is None or match[2] is None:
        if whole:
            raise Refused
        return b"", b"", True
    rest = line[match.end():].lstrip(b" \t")
    if rest and (rest[0] < 0x21 or rest[0] == 0x7F) and rest != b"\r":
        raise Refused
    if not whole:
        return match[1], b"", True
    if re.search(rb"[^\t-\r -~\x80-\xff]", rest):
        raise Refused
    rest = rest.rstrip(SPACE)
    versioned = re.match(rb"(?is)(?:(.*?)[%s]+)?(http/[^%s]*)\Z" % (SPACE, SPACE), rest)
    if versioned:
        target = versioned[1] or b""
    else:
        target = rest
        if not (target[:1] == b"/" or re.match(rb"%s://" % TOKEN, target)
                or match[1].lower() == b"connect" and target):
            raise Refused
    if not target:
        raise Refused
    return match[1], target, versioned is not None


def read_lines(data: bytes, at: int) -> tuple[list[tuple[bytes, bool]], int, bool]:
    """The lines of a head up to the empty one, where what follows begins, and whether it is all there.

    Any number of CRs before LF, and any number of CRs alone, end a line; only LF ends the head. With each line:
    whether it may be folded into the one before, which it is not behind a lone CR.
    """
    lines = []
    folds = True
    for match in re.compile(rb"([^\r\n]*)(\r*\n|\r+(?!\r|\n|\Z))").finditer(data, at):
        if not match[1] and match[2].endswith(b"\n"):
            return lines, match.end(), True
        lines.append((match[1], folds))
        folds = match[2].endswith(b"\n")
    return lines, len(data), False


SPECIAL = (b"host", b"content-length", b"transfer-encoding", b"upgrade")


def unfold(lines: list[tuple[bytes, bool]]) -> list[bytes]:
    """Lines that begin with a blank belong to the field before (RFC 9112, 5.2), or are fields themselves."""
    fields: list[bytes] = []
    for line, folds in lines:
        name, colon, _ = fields[-1].partition(b":") if fields else (b"", b"", b"")
        if folds and line[:1] in (b" ", b"\t") and colon and plain(name) in SPECIAL:
            fields[-1] += b" " + line[1:]
        else:
            fields.append(line)
    return fields


def plain(name: bytes) -> bytes:
    return name.replace(b" ", b"").replace(b"\t", b"").lower()


def hosts_of_target(method: bytes, target: bytes) -> list[bytes]:
    if method.lower() == b"connect" and target[:1] != b"/":
        return [target.strip(SPACE)]
    match = re.match(rb"%s://([^/?#\\]*)" % TOKEN, target, re.S)
    return [match[1].strip(SPACE)] if match and match[1].strip(SPACE) else []


def read_framings(fields) -> list[tuple[str, int]]:
    """Every way a server may frame the body; the first is what RFC 9112, 6.3 says."""
    found: list[tuple[str, int]] = []
    for name, colon, value in fields:
        if not colon:
            continue
        value = value.strip(SPACE)
        if plain(name) == b"content-length":
            for part in value.split(b","):
                digits, end = read_length(part)
                if digits and ("length", int(digits)) not in found:
                    found.append(("length", int(digits)))
                if not end:
                    break
        elif plain(name) == b"transfer-encoding" and b"chunked" in value.lower():
            if ("chunked", 0) not in found:
                found.insert(0, ("chunked", 0))
            if not re.search(rb"(?i)(?:^|[%s,])chunked\Z" % SPACE, value) and ("none", 0) not in found:
                found.append(("none", 0))
    return found[:4]


def read_length(part: bytes) -> tuple[bytes, bool]:
    """The digits of one item of Content-Length, and whether nothing stands behind them."""
    match = re.match(rb"[%s+]*([%s0-9]*)" % (SPACE, SPACE), part)
    digits = re.sub(rb"[%s]" % SPACE, b"", match[1])
    if digits and int(digits) >= 1 << 59:
        raise Unspecified
    return digits, match.end() == len(part)


def skip_body(data: bytes, at: int, framings: list[tuple[str, int]]) -> int | None:
    """Where the next request begins; None where the body is not all there."""
    kind, length = framings[0] if framings else ("none", 0)
    if kind == "none":
        return at
    if kind == "length":
        return at + length if at + length <= len(data) else None
    while True:
        end = data.find(b"\n", at)
        line = data[at:end if end >= 0 else len(data)]
        match = re.match(rb"[%s]*([0-9A-Fa-f]+)?" % SPACE, line)
        if match[1] is None:
            if end >= 0 or match.end() < len(line):
                raise Refused
            return None
        if len(match[1].lstrip(b"0")) > 15:     # beyond all sizes
            raise Refused
        if end < 0:
            return None
        at, size = end + 1, int(match[1], 16)
        if size == 0:
            break
        at += size
        match = re.match(rb"\r*(\n)?", data[at:])
        if at >= len(data):
            return None
        if match[1] is None:
            if at + match.end() < len(data):
                raise Refused
            return None
        at += match.end()
    while True:                                 # the trailer
        end = data.find(b"\n", at)
        if end < 0:
            return None
        line, at = data[at:end], end + 1
        if not line.strip(b"\r"):
            return at


KINDS = ("none", "length", "chunked")


def compare(data: bytes) -> None:
    """Insists that the compiled reader finds the same heads in `data`, whole and byte by byte.

    Sizes near the core's caps are its own business: samples here are shorter.
    """
    from edgeblock.core import http
    try:
        slow, refused = read(data)
    except Unspecified:
        return
    for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
        outcome, heads, _ = http.feed(pieces)
        fast = [(hosts, target, [(KINDS[kind], length) for kind, length in framings])
                for hosts, target, _, _, framings in heads]
        if b"PRI" in data and slow and slow[-1][1] == b"*" and fast[:len(slow)] == slow:
            continue                            # HTTP/2 from here on
        assert fast == slow, (fast, slow, data)
        assert (outcome == "not_mine") == refused, (outcome, refused, data)
