"""Messages that a filter misreads: what a client says first, with a name where one server or another finds it.

In: a host, and what follows it. Out: a ClientHello in records, a request, or what comes before either on the same
connection. OTHERS are the hosts that stand beside it. Never here: a packet.
"""

from collections.abc import Callable

from edgeblock.disguises import packets as s

OTHERS = (b"other.example", b"first.example", b"no.example", b"a.example")

# ---- how a handshake message is put into records

RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "one-byte-records": lambda m: s.records(m, *range(1, len(m))),
    "sixteen-byte-records": lambda m: s.records(m, *range(16, len(m), 16)),
    "first-record-4": lambda m: s.records(m, 4),
    "empty-first": lambda m: s.record(b"") + s.record(m),
    "empty-between": lambda m: s.record(m[:9]) + s.record(b"") * 3 + s.record(m[9:]),
    "alert-first": lambda m: s.record(b"\1\0", 21) + s.record(m),
    "ccs-first": lambda m: s.record(b"\1", 20) + s.record(m),
    "version-0300": lambda m: s.record(m, version=b"\3\0"),
    "version-0304": lambda m: s.record(m, version=b"\3\4"),
    "version-03ff": lambda m: s.record(m, version=b"\3\xff"),
}

# ---- a ClientHello, by the host that it asks for

HELLOS: dict[str, Callable[[bytes], bytes]] = {
    "hello": s.hello,
    "upper-case": lambda host: s.hello(host.upper()),
    "mixed-case": lambda host: s.hello(host.title()),
    "final-dot": lambda host: s.hello(host + b"."),
    "ech-beside-it": lambda host: s.hello(host, before=s.ECH),
    "post-quantum": lambda host: s.hello(host, before=s.key_share(1216)),
    "many-extensions": lambda host: s.hello(host, before=b"".join(s.extension(0x5000 + i, bytes(i % 5))
                                                                  for i in range(100))),
    "second-name": lambda host: s.hello(b"other.example", host),
    "second-hello": lambda host: s.hello(b"other.example") + s.record(b"\1", 20) + s.hello(host),
    "in-a-tunnel": lambda host: s.request(b"a.example:443", b"a.example:443", b"CONNECT") + s.hello(host),
    "behind-a-proxy-header": lambda host: b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n" + s.hello(host),
    "behind-starttls": lambda host: b"EHLO first.example\r\nSTARTTLS\r\n" + s.hello(host),
}
FULL_HEADERS = (b"User-Agent: somebody", b"Accept: */*")

# ---- the head of a request: NAME is the host, TARGET what is asked for

HEADS = {
    "hostcase": b"GET TARGET HTTP/1.1\r\nhoSt: NAME\r\n\r\n",
    "no-space": b"GET TARGET HTTP/1.1\r\nHost:NAME\r\nUser-Agent:  x\r\n\r\n",
    "tabs": b"GET TARGET HTTP/1.1\r\nHost:\t \tNAME\t \r\n\r\n",
    "final-dot": b"GET TARGET HTTP/1.1\r\nHost: NAME.\r\n\r\n",
    "port": b"GET TARGET HTTP/1.1\r\nHost: NAME:80\r\n\r\n",
    "dot-and-port": b"GET TARGET HTTP/1.1\r\nHost: NAME.:80\r\n\r\n",
    "version-1.0": b"GET TARGET HTTP/1.0\r\nHost: NAME\r\n\r\n",
    "version-1.9": b"GET TARGET HTTP/1.9\r\nHost: NAME\r\n\r\n",
    "many-spaces": b"GET    TARGET    HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "tab-behind-method": b"GET\tTARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "blank-lines": b"\r\n\n\r\n\nGET TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "bare-lf": b"GET TARGET HTTP/1.1\nHost: NAME\n\n",
    "mixed-ends": b"GET TARGET HTTP/1.1\nHost: NAME\r\n\n",
    "folded": b"GET TARGET HTTP/1.1\r\nHost:\r\n NAME\r\n\r\n",
    "folded-tab": b"GET TARGET HTTP/1.1\r\nHost: \r\n\tNAME\r\n\r\n",
    "space-before-colon": b"GET TARGET HTTP/1.1\r\nHost : NAME\r\n\r\n",
    "absolute": b"GET http://NAMETARGET HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "absolute-upper": b"GET HTTP://NAME:80TARGET HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "absolute-elsewhere": b"GET http://other.example/ HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "two-hosts-first": b"GET TARGET HTTP/1.1\r\nHost: NAME\r\nHost: other.example\r\n\r\n",
    "two-hosts-last": b"GET TARGET HTTP/1.1\r\nHost: other.example\r\nHost: NAME\r\n\r\n",
    "twenty-hosts-last": b"GET TARGET HTTP/1.1\r\n" + b"Host: other.example\r\n" * 20 + b"Host: NAME\r\n\r\n",
    "fake-host-in-query": b"GET /?Host:+other.example HTTP/1.1\r\nX-Host: other.example\r\nHost: NAME\r\n\r\n",
    "behind-a-bare-cr": b"GET TARGET HTTP/1.1\r\nX: y\rHost: NAME\r\n\r\n",
    "propfind": b"PROPFIND TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "odd-method": b"FOO!BAR TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "head": b"HEAD TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "post": b"POST TARGET HTTP/1.1\r\nContent-Length: 3\r\nHost: NAME\r\n\r\nabc",
    "long-method": b"M" * 40 + b" TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "no-version": b"PUT TARGET\r\nHost: NAME\r\n\r\n",
    "space-first": b" GET TARGET HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "control-bytes": b"GET /?\x01\x7f HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "odd-blanks": b"GET\x0bTARGET\x1cHTTP/1.1\r\nHost: NAME\r\n\r\n",
    "preface-of-http1": b"PRI * HTTP/1.1\r\nHost: NAME\r\n\r\n",
    "padded-1k": b"GET TARGET HTTP/1.1\r\nX-Padding: " + b"p" * 1024 + b"\r\nHost: NAME\r\n\r\n",
    "padded-60k": b"GET TARGET HTTP/1.1\r\nX-Padding: " + b"p" * 60_000 + b"\r\nHost: NAME\r\n\r\n",
    "sixty-fields": b"GET TARGET HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 900) for i in range(60))
                    + b"Host: NAME\r\n\r\n",
    "long-uri": b"GET /" + b"u" * 6000 + b" HTTP/1.1\r\nHost: NAME\r\n\r\n",
}


def head(shape: str, host: bytes, target: bytes = b"/") -> bytes:
    """A head of HEADS."""
    return HEADS[shape].replace(b"NAME", host).replace(b"TARGET", target)


# What may stand before the request on the same connection.
BEFORE = {
    "one-request": s.request(b"first.example"),
    "three-requests": s.request(b"first.example") * 3,
    "post-with-a-request-inside": s.request(b"first.example", b"/", b"POST", s.request(b"no.example")),
    "chunked": s.chunked(b"first.example", b"abc", b"0\r\n\r\n", s.request(b"no.example")),
    "both-framings": b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
                     b"\r\n0\r\n\r\n",
    "length-and-chunked-by-length": b"POST / HTTP/1.1\r\nHost: first.example\r\nTransfer-Encoding: chunked\r\n"
                                    b"Content-Length: 4\r\n\r\nabcd",
    "two-lengths": b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nabcd",
    "dressed-up-chunked": b"POST / HTTP/1.1\r\nHost: first.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "trailer": s.chunked(b"first.example", b"abc")[:-2] + b"Trailer: x\r\n\r\n",
    "chunk-extension": b"POST / HTTP/1.1\r\nHost: first.example\r\nTransfer-Encoding: chunked\r\n\r\n"
                       b"3;a=b\r\nabc\r\n0;c\r\n\r\n",
    "websocket-refused": s.request(b"first.example", b"/", b"GET", b"", b"Upgrade: websocket",
                                   b"Connection: upgrade"),
    "blank-lines": s.request(b"first.example") + b"\r\n\r\n",
    "long-method": b"M" * 40 + b" / HTTP/1.1\r\nHost: first.example\r\n\r\n",
    "pri": b"PRI * HTTP/1.1\r\nHost: first.example\r\n\r\n",
    "no-request": b"what is this\r\n\r\n",
    "get-with-body": s.request(b"first.example", b"/", b"GET", b"x=1"),
    "get-without-its-body": b"GET / HTTP/1.1\r\nHost: first.example\r\nContent-Length: 500\r\n\r\n",
    "connect-with-body": s.request(b"a.example:1", b"a.example:1", b"CONNECT", b"x=1"),
    "connect-without-its-body": b"CONNECT a.example:1 HTTP/1.1\r\nContent-Length: 500\r\n\r\n",
    "folded-length": b"POST / HTTP/1.1\r\nHost: first.example\r\nX: a\r\n Content-Length: 500\r\n\r\n",
    "folded-length-that-counts": b"POST / HTTP/1.1\r\nHost: first.example\r\nX: a\r\n Content-Length: 3\r\n\r\nx=1",
    "folded-encoding": b"POST / HTTP/1.1\r\nHost: first.example\r\nX: a\r\n\tTransfer-Encoding: chunked\r\n\r\n",
    "chunked-in-1.0": b"POST / HTTP/1.0\r\nHost: first.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    "space-before-the-colon": b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length : 500\r\n\r\n",
    "behind-no-field": b"POST / HTTP/1.1\r\nHost: first.example\r\nno field\r\nContent-Length: 500\r\n\r\n",
    "odd-length": b"POST / HTTP/1.1\r\nHost: first.example\r\nContent-Length: 0x500\r\n\r\n",
    "odd-chunk": b"POST / HTTP/1.1\r\nHost: first.example\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"0x3\r\nabc\r\n0\r\n\r\n",
    "unended-trailer": b"POST / HTTP/1.1\r\nHost: first.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
}


def prior_knowledge(host: bytes, target: bytes = b"/") -> bytes:
    """A request in HTTP/2 without TLS, the second of its connection."""
    return (s.H2_PREFACE + s.h2_frame(4, 0, 0, b"") + s.h2_request(b"first.example")
            + s.h2_request(host, target, 3))
