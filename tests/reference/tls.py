"""A slow reader of ClientHellos, written from RFC 8446 (4.1.2, 5.1) and RFC 6066 (3) without a look at the core.

All bytes in, ("need_more" | "done" | "not_mine", names, ech) out. Records are joined first, then the message is
taken apart from the outside in, every vector as a slice of its own.
"""


class Short(Exception):
    """The bytes end before the structure does."""


class Bad(Exception):
    """No ClientHello."""


class Reader:
    """Bytes that are there, and a limit that the enclosing structure sets."""

    def __init__(self, data: bytes, at: int, limit: int):
        self.data, self.at, self.limit = data, at, limit

    def need(self, size: int) -> None:
        if self.at + size > self.limit:
            raise Bad

    def take(self, size: int) -> bytes:
        self.need(size)
        if self.at + size > len(self.data):
            raise Short
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def inside(self, size: int) -> "Reader":
        self.need(size)
        child = Reader(self.data, self.at, self.at + size)
        self.at += size
        return child

    def left(self) -> int:
        return self.limit - self.at


def join_records(data: bytes) -> tuple[bytes, bool]:
    """The handshake bytes of the leading records, and whether something that is no such record ends them."""
    joined = b""
    at = 0
    while at < len(data):
        kind = data[at]
        if kind not in (20, 21, 22) or (kind != 22 and joined):
            return joined, True
        if at + 1 < len(data) and data[at + 1] != 3:
            return joined, True
        if at + 5 > len(data):
            return joined, False
        size = int.from_bytes(data[at + 3:at + 5], "big")
        if kind == 22:
            joined += data[at + 5:at + 5 + size]
        at += 5 + size
    return joined, False


def read_message(message: bytes, names: list[bytes], seen: set[int]) -> None:
    """Adds what it finds to `names` and `seen` (extension types); raises Short or Bad where it stops."""
    outer = Reader(message, 0, 1 << 32)
    if outer.number(1) != 1:
        raise Bad
    size = outer.number(3)
    if size > 131396:
        raise Bad
    body = outer.inside(size)
    body.need(2 + 32 + 1)
    body.inside(34)
    session = body.number(1)
    body.need(session + 2)
    body.inside(session)
    suites = body.number(2)
    body.need(suites + 1)
    body.inside(suites)
    body.inside(body.number(1))
    if body.left():
        body.need(2)
        extensions = body.inside(body.number(2))
        while extensions.left():
            extensions.need(4)
            kind = extensions.number(2)
            seen.add(kind)
            one = extensions.inside(extensions.number(2))
            if kind == 0 and one.left() >= 2:
                read_names(one.inside(one.number(2)), names)
    if body.limit > len(message):
        raise Short


def read_names(entries: Reader, names: list[bytes]) -> None:
    while entries.left():
        entries.need(3)
        kind = entries.number(1)
        size = entries.number(2)
        entries.need(size)
        if kind == 0 and 0 < size <= 256 and len(names) < 4:       # servers take one, or none of several
            names.append(entries.take(size))
        else:
            entries.inside(size)


def read(data: bytes) -> tuple[str, list[bytes], bool]:
    joined, broken = join_records(data)
    names: list[bytes] = []
    seen: set[int] = set()
    try:
        read_message(joined, names, seen)
        outcome = "done"
    except Bad:
        outcome = "not_mine"
    except Short:
        outcome = "not_mine" if broken else "need_more"
    return outcome, names, 0xFE0D in seen


def compare(data: bytes) -> None:
    """Insists that the compiled reader says the same of `data`, whole and byte by byte."""
    from edgeblock.core import tls
    slow = read(data)
    for pieces in ([data], [data[i:i + 1] for i in range(len(data))]):
        fast = tls.feed(pieces)[:3]
        names = [name for name in fast[1] if name]      # an empty name is no name
        outcome = fast[0]
        if slow[0] == "not_mine" and outcome == "need_more":
            outcome = tls.feed([*pieces, b"\0"])[0]     # what stands behind a name is looked at with the next byte
        assert (outcome, names, fast[2]) == slow, (fast, slow, data.hex())
