"""A slow reader of HTTP/1.x requests, written from RFC 9112 and docs/evasion.md without a look at the core.

All bytes in, a list of heads out, one for each complete request head, and how reading ended. A head is
(hosts, target, framings). Line by line, with regular expressions, the way the core does not do it.
"""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
SPACE = b" \t\n\v\f\r"
PARTS = SPACE + b"\x1c\x1d\x1e\x1f\x85\xa0"
P = rb"[\s\x1c-\x1f\x85\xa0]"
N = rb"[^\s\x1c-\x1f\x85\xa0]"


class Unspecified(Exception):
    """A length beyond all sizes: what it comes to is nobody's business."""


class Incomplete(Exception):
    """More bytes have to come."""


class Lost(Exception):
    """No reader could follow beyond this offset."""

    def __init__(self, at: int):
        self.at = at


Head = tuple[list[bytes], bytes, list[tuple[str, int]]]


def read(data: bytes) -> tuple[list[Head], str]:
    """(heads, how it ended): "need_more", "lost" where the next request is looked for, "http2". Of several ways to
    frame a body the first is followed."""
    heads: list[Head] = []
    states: list[tuple[int, bool]] = [(0, False)]
    ended = ""
    while states and not ended:
        more, states, ended = step(data, *states[0])
        heads += more
    return heads, ended


def every_host(data: bytes) -> set[bytes]:
    """The hosts of every way to frame the bodies."""
    hosts: set[bytes] = set()
    known: set[tuple[int, bool]] = set()
    states = [(0, False)]
    while states:
        state = states.pop()
        if state not in known:
            known.add(state)
            heads, following, _ = step(data, *state)
            hosts.update(host for found, _, _ in heads for host in found)
            states += following
    return hosts


def step(data: bytes, at: int, seeking: bool) -> tuple[list[Head], list[tuple[int, bool]], str]:
    """One line that is no request, or one request: its heads, where reading may go on, and how it ended if
    nowhere."""
    while data[at:at + 1] in (b"\r", b"\n"):
        at += 1
    end = data.find(b"\n", at)
    if lone := re.compile(rb"[^\n]*? HTTP/[0-9]\.[0-9](\r)(?=[^\r\n])", re.S).match(data, at):
        end = lone.start(1)                     # a line end to Node's lenient reader
    whole = data[at:end + (lone is not None) if end >= 0 else len(data)].lstrip(PARTS)
    line = holed(whole)
    if end < 0:
        early = not seeking and re.match(rb"%s%s+/" % (TOKEN, P), whole.partition(b"\0")[0])
        odd = seeking or b"\0" in whole or is_odd(line)     # nothing behind a NUL makes it a request before its end
        return [], [], "lost" if odd and not early else "need_more"
    request = read_request_line(line, seeking)
    if request is None:
        return [], [(end + 1, not line.startswith(b"PROXY ") and (seeking or line != b""))], ""
    method, target, version = request
    hosts = hosts_of_target(method, target)
    heads: list[Head] = []
    odd = not version or not re.search(rb"[ \t]http/%s*\Z" % N, line.rstrip(SPACE), re.I)
    if odd:                                     # HTTP/0.9 ends here; a lenient server goes on to the fields
        heads.append((hosts[:], target, []))
    try:
        early = emptied(data, end + 1)
        if early is not None:           # to Node's lenient reader the head is over there
            ways, more = read_fields(early, False, method, version, settle=False)
            heads.append((at_most_16(hosts + more), target, ways))
        lines, at, doubled = read_lines(data, end + 1)
        framings, more = read_fields(lines, doubled, method, version)
        hosts += more
        heads.append((at_most_16(hosts), target, framings))
        if method == b"PRI" and target == b"*" and version == b"HTTP/2.0" and not lines:
            same = next((k for k in range(6) if data[at + k:at + k + 1] != b"SM\r\n\r\n"[k:k + 1]), 6)
            if same == 6:
                return heads, [], "http2"
            if at + same == len(data):
                raise Incomplete
            return heads, [(at + same if same > 2 else at, same > 2)], ""
    except Incomplete:
        return heads, [], "need_more"
    following, ended = [], ""
    for number, framing in enumerate(framings or [("none", 0)]):
        try:
            following += [(place, False) for place in skip_body(data, at, *framing)]
        except Lost as lost:
            following.append((lost.at, True))
        except Incomplete:
            if number == 0:
                ended = "need_more"
    return heads, following, ended


def at_most_16(hosts: list[bytes]) -> list[bytes]:
    return hosts[:15] + hosts[-1:] if len(hosts) > 16 else hosts


def emptied(data: bytes, at: int) -> list[tuple[bytes, bool]] | None:
    """The lines before the first empty one that ends with CRs alone, where that comes before the one that counts."""
    lines, lone = [], False
    for match in re.compile(rb"([^\r\n]*)(\r*\n|\r+(?!\r|\n|\Z))").finditer(data, at):
        if not match[1]:
            return None if match[2].endswith(b"\n") else lines
        lines.append((match[1], lone))
        lone = not match[2].endswith(b"\n")
    return None


def holed(line: bytes) -> bytes:
    """Behind a NUL only the end of a line counts."""
    first = line.find(b"\0")
    return line if first < 0 else line[:first] + (bytes(32) + line[first:])[-32:]


def is_odd(line: bytes) -> bool:
    """Before the line ends: it looks like no request."""
    return bool(re.search(rb"[\0-\x08\x0e-\x1f\x7f\xff]", line)
                or not re.match(rb"(?:%s)?(?:%s|\Z)" % (TOKEN, P), line))


def read_request_line(line: bytes, seeking: bool) -> tuple[bytes, bytes, bytes] | None:
    """Method (in capitals, where it is one that matters), target, version (empty where there is none)."""
    match = re.fullmatch(rb"(%s+)%s+(%s.*)" % (N, P, N), line.rstrip(SPACE), re.S)
    if not match:
        return None
    word, rest = match[1], match[2]
    odd = seeking or not re.fullmatch(TOKEN, word)
    method = next((name for name in (b"GET", b"HEAD", b"CONNECT", b"PRI")
                   if (word[-len(name):] if odd else word).upper() == name), word)
    versioned = re.fullmatch(rb"(.*?)[\s\x1c-\x1f]*%s(http/%s*)" % (P, N), rest, re.S | re.I)
    if versioned:
        return method, versioned[1], versioned[2]
    if seeking or not (method in (b"GET", b"HEAD", b"CONNECT") or re.fullmatch(rb"[A-Z-]+", word)):
        return None
    if (rest[:1] == b"/" or re.match(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,32}://", rest) or method == b"CONNECT"
            or word == b"GET" and re.fullmatch(rb"%s+" % N, rest)):
        return method, rest, b""
    return None


def read_lines(data: bytes, at: int) -> tuple[list[tuple[bytes, bool]], int, bool]:
    """The lines of a head up to the empty one, where what follows begins, and whether CRs stood side by side.

    Any number of CRs before LF, and any number of CRs alone, end a line; only LF ends the head. With each line:
    whether it stands behind a lone CR.
    """
    lines = []
    lone = doubled = False
    for match in re.compile(rb"([^\r\n]*)(\r*\n|\r+(?!\r|\n|\Z))").finditer(data, at):
        doubled |= match[2].startswith(b"\r\r")
        if not match[1] and match[2].endswith(b"\n"):
            return lines, match.end(), doubled
        lines.append((match[1], lone))
        lone = not match[2].endswith(b"\n")
    raise Incomplete


SPECIAL = (b"host", b"content-length", b"transfer-encoding")


def thinned(lines: list[bytes]) -> list[bytes]:
    """A value's lines, behind its first 256 bytes without blanks in a row: nobody has names with so many."""
    raw = b"\n".join(lines).lstrip(b" \t")
    tail = re.sub(rb"(?<=[ \t])[ \t]+", b"", raw[255:])[1:] if len(raw) > 256 else b""
    return (raw[:256] + tail).split(b"\n")


def plain(name: bytes) -> bytes:
    return name.replace(b" ", b"").replace(b"\t", b"").lower()


def read_fields(lines: list[tuple[bytes, bool]], doubled: bool, method: bytes, version: bytes, settle: bool = True
                ) -> tuple[list[tuple[str, int]], list[bytes]]:
    """Every way a server may frame the body, the first as RFC 9112, 6.3 says; and every host. `settle`: as it is when
    the head is whole.

    Lines that begin with a blank belong to the field before (5.2), or are fields themselves.
    """
    fields: list[tuple[bytes, list[bytes], bool]] = []      # name, the value's lines, some servers do not see it
    unsure = doubled or any(lone for _, lone in lines)
    for line, lone in lines:
        folded = line[:1] in (b" ", b"\t") and not lone
        if folded and fields and fields[-1][0] in SPECIAL:
            fields[-1][1].append(line[1:])
            continue
        name, colon, value = line.partition(b":")
        if not folded and not (colon and re.fullmatch(rb"[!-9;-~]*", name)):
            unsure = True                       # to Python's http.server the head ends there
        fields.append((plain(name) if colon else b"", [value], lone or plain(name) != name.lower()))
    hosts: list[bytes] = []
    framings = Framings()
    for name, values, odd in fields:
        if name not in SPECIAL:
            continue
        values = thinned(values)
        while len(values) > 1 and not values[-1].strip(SPACE):
            values.pop()
        said = [(name, values[0], odd or len(values) > 1)]
        if len(values) > 1:
            for line in values[1:]:
                inner, colon, value = line.partition(b":")
                said.append((plain(inner) if colon else b"", value, True))
            said.append((name, b" ".join(values), True))
        for one, value, doubtful in said:
            value = value.strip(SPACE)
            if one == b"host" and value:
                hosts.append(value)
            elif one == b"content-length":
                framings.lengths(value)
                unsure |= doubtful
            elif one == b"transfer-encoding":
                framings.encoding(value)
                unsure |= doubtful
    framings.unsure |= unsure
    return framings.settled(method, version) if settle else framings.ways, hosts


class Framings:
    def __init__(self) -> None:
        self.ways: list[tuple[str, int]] = []
        self.unsure = False

    def add(self, way: tuple[str, int], first: bool = False) -> None:
        if way in self.ways or way == ("none", 0) and ("length", 0) in self.ways:
            return
        self.ways = [way, *self.ways[:3]] if first else [*self.ways, way][:4]

    def lengths(self, value: bytes) -> None:
        parts = value.split(b",")
        self.unsure |= len(parts) > 1
        for part in parts:
            part = part.strip(SPACE)
            if not re.fullmatch(rb"[0-9]*", part):
                self.unsure = True
            match = re.match(rb"[\s+_]*([0-9][0-9\s_]*)", part)
            if not match:
                continue
            joined = re.sub(rb"[\s_]", b"", match[1])
            if len(joined) > 17:
                raise Unspecified
            self.add(("length", int(re.match(rb"[0-9]+", match[1])[0])))
            self.add(("length", int(joined)))
            if re.match(rb"0[xX]", part) and 2 < len(part) < 18:
                self.add(("length", int(re.match(rb"[0-9A-Fa-f]*", part[2:])[0] or b"0", 16)))

    def encoding(self, value: bytes) -> None:
        if b"chunked" in value.lower():
            self.add(("chunked", 0), first=True)
        self.unsure |= value.lower() != b"chunked"

    def settled(self, method: bytes, version: bytes) -> list[tuple[str, int]]:
        if self.ways and method == b"CONNECT":
            self.add(("none", 0), first=True)
        elif self.ways and (method in (b"GET", b"HEAD") or self.unsure
                            or version != b"HTTP/1.1" and self.ways[0] == ("chunked", 0)):
            self.add(("none", 0))
        return self.ways


def hosts_of_target(method: bytes, target: bytes) -> list[bytes]:
    if method == b"CONNECT" and target[:1] != b"/":
        return [target.strip(SPACE)]
    match = re.match(rb"[!#$%%&'*+\-.^_`|~0-9A-Za-z]{1,32}://[/\\]*([^/?#\\]*)", target, re.S)
    return [match[1].strip(SPACE)] if match and match[1].strip(SPACE) else []


def skip_body(data: bytes, at: int, kind: str, length: int) -> list[int]:
    """Where the next request may begin: more than one place where a chunk's size or a trailer leave a choice."""
    if kind == "none":
        return [at]
    if kind == "length":
        if at + length > len(data):
            raise Incomplete
        return [at + length]
    end = data.find(b"\n", at)
    line = data[at:end if end >= 0 else len(data)]
    match = re.match(rb"[ \t\v\f\r+]*([0-9A-Fa-f]*)(?:(?:_|(?<=[0-9A-Fa-f])[xX])([0-9A-Fa-f]*))?", line)
    digits = match[1]
    sizes = [digits]
    if digits and match[2] is not None and (b"_" in match[0] or int(digits, 16) == 0):
        sizes = [digits + match[2], digits]
    value = 0
    for i, digit in enumerate(sizes[0]):
        if value >> 56:                         # beyond all sizes
            raise Lost(at + match.start(1) + i + (i >= len(digits)))
        value = value * 16 + int(chr(digit), 16)
    if not digits and (match.end(1) < len(line) or end >= 0):
        raise Lost(at + match.end(1))
    if end < 0:
        raise Incomplete
    places: list[int] = []
    for number, size in enumerate(dict.fromkeys(int(size, 16) for size in sizes)):
        try:
            places += behind_chunk(data, end + 1, size)
        except (Incomplete, Lost):
            if number == 0:
                raise
    return places


def behind_chunk(data: bytes, at: int, size: int) -> list[int]:
    if size:
        at += size
        if at >= len(data):
            raise Incomplete
        at += re.match(rb"\r*\n?", data[at:]).end()
        if at >= len(data):
            raise Incomplete
        return skip_body(data, at, "chunked", 0)
    if at >= len(data):
        raise Incomplete
    choice = [] if data[at:at + 1] in (b"\r", b"\n") else [at]
    while True:                                 # the trailer
        end = data.find(b"\n", at)
        if end < 0:
            raise Incomplete
        line, at = data[at:end], end + 1
        if not line.strip(b"\r"):
            return [at, *choice]


KINDS = ("none", "length", "chunked")


def compare(data: bytes) -> None:
    """Insists that the compiled reader finds the same heads in `data`, whole and byte by byte.

    Sizes near the core's caps are its own business: samples here are shorter.
    """
    from edgeblock.core import http
    try:
        slow, ended = read(data)
    except Unspecified:
        return
    for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
        outcome, heads, *_ = http.feed(pieces)
        fast = [(hosts, target, [(KINDS[kind], length) for kind, length in framings])
                for hosts, target, _, _, framings in heads]
        assert fast == slow, (fast, slow, data)
        assert outcome == ended, (outcome, ended, data)
