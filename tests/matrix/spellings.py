"""The spellings of the matrix: bytes in which some server may find the listed host.

In: nothing. Out: HTTP heads and server names, each as a template with `{listed}` and `{open}` in it. What a server
makes of each is asked of it, never written down here. A new spelling is one row.
"""

from dataclasses import dataclass

from tests.core.samples import H2_PREFACE, h2_frame, h2_literals

CLOSE = b"\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Spelling:
    """`text`: an HTTP request, or a server name, as a template of two hosts. `innocent`: nobody may take it for one
    of the listed host, and no filter may touch it."""

    name: str
    text: bytes
    innocent: bool = False

    def filled(self, listed: bytes, other: bytes) -> bytes:
        return fill(self.text, listed, other)


def fill(text: bytes, listed: bytes, other: bytes) -> bytes:
    return text.replace(b"{LISTED}", listed.upper()).replace(b"{listed}", listed).replace(b"{open}", other)


@dataclass(frozen=True)
class Fields(Spelling):
    """A request of HTTP/2 by prior knowledge: its fields, in literals (RFC 7541, 6.2.2)."""

    fields: tuple[tuple[bytes, bytes], ...] = ()

    def filled(self, listed: bytes, other: bytes) -> bytes:
        block = h2_literals(*((name, fill(value, listed, other)) for name, value in self.fields))
        return H2_PREFACE + h2_frame(4, 0, 0, b"") + h2_frame(1, 5, 1, block)


def fields(name: str, *more: tuple[bytes, bytes], path: bytes = b"/a", innocent: bool = False) -> Fields:
    return Fields(f"HTTP/2, {name}", b" ".join(value for _, value in more) + b" " + path, innocent,
                  ((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), *more))


def host(name: str, value: bytes, innocent: bool = False) -> Spelling:
    return Spelling(f"Host: {name}", b"GET /a HTTP/1.1\r\nHost: " + value + CLOSE, innocent)


def target(name: str, value: bytes, value_of_host: bytes = b"{open}", innocent: bool = False) -> Spelling:
    return Spelling(f"target: {name}", b"GET " + value + b" HTTP/1.1\r\nHost: " + value_of_host + CLOSE, innocent)


def head(name: str, text: bytes, innocent: bool = False) -> Spelling:
    return Spelling(f"head: {name}", text, innocent)


# What is put between and around the names of a Host line, and in a server name.
NAMES = (
    ("plain", b"{listed}"), ("upper case", b"{LISTED}"), ("final dot", b"{listed}."),
    ("two final dots", b"{listed}.."), ("dot first", b".{listed}"), ("port", b"{listed}:80"),
    ("dot and port", b"{listed}.:80"), ("empty port", b"{listed}:"), ("port of letters", b"{listed}:http"),
    ("port of 99999", b"{listed}:99999"), ("two ports", b"{listed}:80:80"), ("port, dot", b"{listed}:80."),
    ("colon and another", b"{listed}:x@{open}"), ("another, colon", b"{open}:x@{listed}"),
    ("user", b"user@{listed}"), ("user and secret", b"user:secret@{listed}"), ("two users", b"a@b@{listed}"),
    ("as the user", b"{listed}@{open}"), ("as the second user", b"x@{listed}@{open}"),
    ("as the second user, colon", b"x@{listed}:80@{open}"), ("brackets", b"[{listed}]"),
    ("brackets and port", b"[{listed}]:80"), ("bracket open", b"[{listed}"), ("bracket closed", b"{listed}]"),
    ("another in brackets", b"[{open}]{listed}"), ("slash", b"{listed}/"),
    ("slash and another", b"{listed}/{open}"), ("slash, at", b"{open}/@{listed}"),
    ("question mark", b"{listed}?{open}"), ("hash", b"{listed}#{open}"), ("backslash", b"{listed}\\{open}"),
    ("scheme", b"http://{listed}/"), ("slashes first", b"//{listed}"), ("comma", b"{listed}, {open}"),
    ("another, comma", b"{open}, {listed}"), ("comma, no blank", b"{listed},{open}"),
    ("semicolon", b"{listed};{open}"), ("blank and another", b"{listed} {open}"),
    ("another, blank", b"{open} {listed}"), ("tab and another", b"{listed}\t{open}"),
    ("blanks around", b" \t {listed} \t "), ("blank, port", b"{listed} :80"), ("tab inside", b"lis\tted.example"),
    ("NUL behind", b"{listed}\0"), ("NUL and another", b"{listed}\0.{open}"),
    ("another, NUL", b"{open}\0.{listed}"), ("vertical tab first", b"\x0b{listed}"),
    ("form feed behind", b"{listed}\x0c"), ("no-break space behind", b"{listed}\xa0"),
    ("next line first", b"\x85{listed}"), ("0x1f behind", b"{listed}\x1f"), ("DEL behind", b"{listed}\x7f"),
    ("quotes", b'"{listed}"'), ("escaped letter", b"%6cisted.example"), ("escaped twice", b"%256cisted.example"),
    ("escaped dot", b"listed%2eexample"), ("escaped colon", b"{listed}%3a80"),
    ("escaped slash", b"{listed}%2f{open}"), ("escaped NUL", b"{listed}%00{open}"),
    ("escaped at", b"user%40{listed}"), ("%u", b"%u006cisted.example"), ("soft hyphen", b"lis\xc2\xadted.example"),
    ("full-width", "ｌｉｓｔｅｄ.example".encode()), ("ideographic dot", "listed。example".encode()),
    ("long label before", b"a" * 80 + b".{listed}"), ("empty label", b"listed..example"),
)
INNOCENT_NAMES = (
    ("longer at the end", b"{listed}.other.example"), ("longer label", b"not{listed}"),
    ("longer label, colon", b"not{listed}:x@{open}"), ("longer at the end, port", b"{listed}.other.example:80"),
    ("longer at the end, user", b"user@{listed}.other.example"), ("another", b"{open}"),
    ("another, port", b"{open}:80"), ("longer, dash", b"{listed}-other.example"),
)

HTTP = (
    *(host(name, value) for name, value in NAMES),
    *(host(name, value, True) for name, value in INNOCENT_NAMES),
    target("absolute", b"http://{listed}/a"), target("absolute, upper case", b"HTTP://{LISTED}/a"),
    target("absolute, user", b"http://user@{listed}/a"),
    target("absolute, user and secret", b"http://u:p@{listed}/a"),
    target("absolute, colon and another", b"http://{listed}:x@{open}/a"),
    target("absolute, port", b"http://{listed}:80/a"), target("absolute, empty port", b"http://{listed}:/a"),
    target("absolute, brackets", b"http://[{listed}]/a"), target("absolute, no path", b"http://{listed}"),
    target("absolute, query", b"http://{listed}?a"), target("absolute, hash", b"http://{listed}#a"),
    target("absolute, backslash", b"http://{listed}\\a"), target("absolute, dot", b"http://{listed}./a"),
    target("absolute, https", b"https://{listed}/a"), target("absolute, ftp", b"ftp://{listed}/a"),
    target("absolute, scheme of our own", b"x+y.z-1://{listed}/a"),
    target("absolute, escaped", b"http://%6cisted.example/a"), target("absolute, comma", b"http://{listed},{open}/a"),
    target("absolute, other Host", b"http://{open}/a", b"{listed}"),
    target("one slash", b"http:/{listed}/a"), target("three slashes", b"http:///{listed}/a"),
    target("four slashes", b"http:////{listed}/a"), target("no slash", b"http:{listed}/a"),
    target("backslashes", b"http:\\\\{listed}\\a"), target("scheme-relative", b"//{listed}/a"),
    target("scheme-relative, backslash", b"/\\{listed}/a"), target("scheme-relative, both", b"\\\\{listed}/a"),
    target("scheme-relative, three", b"///{listed}/a"), target("https, one slash", b"https:/{listed}/a"),
    target("https, no slash", b"https:{listed}/a"), target("scheme-relative, user", b"//user@{listed}/a"),
    target("scheme-relative, colon and another", b"//{listed}:x@{open}/a"),
    target("absolute, one backslash", b"https:\\{listed}/a"),
    target("colon only", b"://{listed}/a"), target("authority", b"{listed}:80"), target("bare host", b"{listed}/a"),
    target("star", b"*", b"{listed}"), target("not a path", b"a", b"{listed}"),
    target("query only", b"?a", b"{listed}"),
    target("at in the query", b"/?u=http://x@{listed}/", innocent=True),
    target("host in the path", b"/a/{listed}/b", innocent=True),
    target("host in the hash", b"/#http://{listed}/", innocent=True),
    target("URL in the path", b"/http://{listed}/", innocent=True),
    head("two Hosts", b"GET /a HTTP/1.1\r\nHost: {listed}\r\nHost: {open}\r\nConnection: close\r\n\r\n"),
    head("two Hosts, second", b"GET /a HTTP/1.1\r\nHost: {open}\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("folded", b"GET /a HTTP/1.1\r\nHost:\r\n {listed}\r\nConnection: close\r\n\r\n"),
    head("blank before the colon", b"GET /a HTTP/1.1\r\nHost : {listed}\r\nConnection: close\r\n\r\n"),
    head("blank before the name", b"GET /a HTTP/1.1\r\n Host: {listed}\r\nConnection: close\r\n\r\n"),
    head("no blank", b"GET /a HTTP/1.1\r\nHost:{listed}\r\nConnection: close\r\n\r\n"),
    head("odd case", b"GET /a HTTP/1.1\r\nhOSt: {listed}\r\nConnection: close\r\n\r\n"),
    head("bare LF", b"GET /a HTTP/1.1\nHost: {listed}\nConnection: close\n\n"),
    head("HTTP/1.0", b"GET /a HTTP/1.0\r\nHost: {listed}\r\n\r\n"),
    head("no version", b"GET /a\r\nHost: {listed}\r\n\r\n"),
    head("no version, no path", b"GET a\r\nHost: {listed}\r\n\r\n"),
    head("CR behind the version", b"GET /a HTTP/1.1\rHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("CR behind the head", b"GET /a HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\rGET"),
    head("two CRs before each LF", b"POST /a HTTP/1.1\r\r\nHost: {open}\r\r\nTransfer-Encoding: chunked\r\r\n\r\r\n"
         b"2d\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: {listed}\r\n\r\n\r\n0\r\n\r\n"),
    head("HTTP/1.9", b"GET /a HTTP/1.9\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("small http", b"GET /a http/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("blank lines first", b"\r\n\r\nGET /a HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("blank first", b" GET /a HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("tabs between", b"GET\t/a\tHTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("two blanks between", b"GET  /a  HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("method of 33 letters", b"A" * 33 + b" /a HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("DEL in the target", b"GET /a?\x7f HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("NUL in a field", b"GET /a HTTP/1.1\r\nX: \0\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("second of two", b"GET /a HTTP/1.1\r\nHost: {open}\r\n\r\nGET /a HTTP/1.1\r\nHost: {listed}\r\n"
         b"Connection: close\r\n\r\n"),
    head("behind a body", b"POST /a HTTP/1.1\r\nHost: {open}\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\n"
         b"Host: {listed}\r\nConnection: close\r\n\r\n"),
    head("behind chunks", b"POST /a HTTP/1.1\r\nHost: {open}\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"3\r\nabc\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: {listed}\r\nConnection: close\r\n\r\n"),
    head("a body that looks like one", b"POST /a HTTP/1.1\r\nHost: {open}\r\nContent-Length: 46\r\nConnection: close"
         b"\r\n\r\nGET /a HTTP/1.1\r\nHost: {listed}\r\nX: 123456\r\n", innocent=True),
    head("in another field", b"GET /a HTTP/1.1\r\nHost: {open}\r\nX-Host: {listed}\r\nReferer: http://{listed}/\r\n"
         b"Connection: close\r\n\r\n", innocent=True),
)

TLS = (
    *(Spelling(f"name: {name}", value) for name, value in NAMES),
    *(Spelling(f"name: {name}", value, True) for name, value in INNOCENT_NAMES),
)

AUTHORITY, HOST = b":authority", b"host"
HTTP2 = (
    *(fields(f":authority: {name}", (AUTHORITY, value)) for name, value in NAMES),
    *(fields(f":authority: {name}", (AUTHORITY, value), innocent=True) for name, value in INNOCENT_NAMES),
    *(fields(f"host: {name}", (HOST, value)) for name, value in NAMES[:30]),
    fields("both, the first listed", (AUTHORITY, b"{listed}"), (HOST, b"{open}")),
    fields("both, the second listed", (AUTHORITY, b"{open}"), (HOST, b"{listed}")),
    fields("host first", (HOST, b"{listed}"), (AUTHORITY, b"{open}")),
    fields("two hosts", (HOST, b"{listed}"), (HOST, b"{open}")),
    fields("two hosts, second", (HOST, b"{open}"), (HOST, b"{listed}")),
    fields("two authorities", (AUTHORITY, b"{listed}"), (AUTHORITY, b"{open}")),
    fields("two authorities, second", (AUTHORITY, b"{open}"), (AUTHORITY, b"{listed}")),
    fields("empty authority", (AUTHORITY, b""), (HOST, b"{listed}")),
    fields("absolute path", (AUTHORITY, b"{open}"), path=b"http://{listed}/a"),
    fields("path of two slashes", (AUTHORITY, b"{open}"), path=b"//{listed}/a"),
    fields("path of three slashes", (AUTHORITY, b"{open}"), path=b"///{listed}/a"),
    fields("path with a backslash", (AUTHORITY, b"{open}"), path=b"/\\{listed}/a"),
    fields("in another field", (AUTHORITY, b"{open}"), (b"x-host", b"{listed}"), (b"referer", b"http://{listed}/"),
           innocent=True),
    fields("host in the path", (AUTHORITY, b"{open}"), path=b"/a/{listed}/b", innocent=True),
    fields("at in the query", (AUTHORITY, b"{open}"), path=b"/?u=http://x@{listed}/", innocent=True),
)
QUIC = (
    *(Spelling(f"QUIC name: {name}", value) for name, value in NAMES),
    *(Spelling(f"QUIC name: {name}", value, True) for name, value in INNOCENT_NAMES),
)
ROWS = {"http": HTTP, "http2": HTTP2, "tls": TLS, "quic": QUIC}       # by the kind of a server

# How the client's bytes are put on the wire: where they are cut.
SPLITS = {"whole": (), "first byte": (1,), "name": (-1,), "bytes": tuple(range(1, 40))}


def pieces(data: bytes, how: str) -> list[bytes]:
    """The bytes in the segments of one way to cut them; "name" is inside the host, wherever it is."""
    place = max(data.lower().find(b"isted"), 1) + 2
    cuts = [place if cut < 0 else cut for cut in SPLITS[how] if cut < len(data)]
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
