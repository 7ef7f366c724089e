"""Asks the clients that are here what they say to a server, and keeps it as shapes.json.

    unshare --net sh -c 'ip link set lo up && .venv/bin/python -m tests.innocent.record [PYTHON [NAME...]]'

In: the clients of the table below; PYTHON is another interpreter, with requests, httpx, urllib3, niquests and pycurl;
NAME is how those clients begin that are asked.
Out: of each client, what it said over HTTP/1.1, HTTP/2 without TLS, and the ClientHellos over TCP and QUIC, with
{host} where the host stood. A client that is not here keeps what it said when it was. Never: traffic beyond loopback.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from edgeblock.core.connections import Reader

SHAPES = Path(__file__).with_name("shapes.json")
PATIENCE = 25.0            # seconds for one client; a browser starts slowly on a busy machine
PAGE = b"""<!doctype html><title>a</title><link rel=stylesheet href=/a.css><img src=/a.png?x=1>
<form id=f method=post action=/form enctype=multipart/form-data><input name=a value=b></form>
<script type=module>
document.cookie = "session=0123456789abcdef; path=/";
const quiet = promise => promise.catch(() => 0);
await quiet(fetch("/api?q=a%20b", {headers: {"X-Requested-With": "a"}}));
await quiet(fetch("/api", {method: "POST", body: JSON.stringify({a: [1, 2]}),
                           headers: {"Content-Type": "application/json"}}));
await quiet(fetch("/api", {method: "POST", body: new URLSearchParams({a: "b c"})}));
await quiet(fetch("/api/1", {method: "PUT", body: "x".repeat(3000)}));
await quiet(fetch("/api/1", {method: "DELETE"}));
await quiet(fetch("/api/1", {method: "PATCH", body: new Blob(["a\\0b"])}));
await quiet(fetch("/a.bin", {headers: {Range: "bytes=0-99"}}));
await quiet(fetch("/a", {method: "HEAD"}));
const form = new FormData(); form.append("a", new Blob(["file"]), "a.txt");
await quiet(fetch("/upload", {method: "POST", body: form}));
navigator.sendBeacon("/beacon", "seen");
new WebSocket(location.origin.replace("http", "ws") + "/socket");
new EventSource("/events");
setTimeout(() => document.getElementById("f").submit(), 300);
</script>
"""


class Sink:
    """A server on one port that answers everything and keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[bytearray] = []
        self.fields: list[list[tuple[str, str]]] = []       # of each request over HTTP/2
        self.datagrams: dict[tuple, list[bytes]] = {}

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = bytearray()
        self.heard.append(heard)
        at = 0
        with contextlib.suppress(OSError):
            while more := await reader.read(65536):
                heard += more
                if heard[:1] == b"\x16":
                    break
                if heard.startswith(b"PRI * HTTP/2.0"):
                    return await self.speak_2(bytes(heard), reader, writer)
                while (end := heard.find(b"\r\n\r\n", at)) >= 0:
                    head = bytes(heard[at:end + 4])
                    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                    if b"expect" in fields:
                        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    if fields.get(b"transfer-encoding") == b"chunked":
                        while b"0\r\n\r\n" not in heard[end + 4:]:
                            heard += await reader.read(65536)
                        at = heard.index(b"0\r\n\r\n", end + 4) + 5
                    else:
                        at = end + 4 + int(fields.get(b"content-length", 0))
                        while len(heard) < at:
                            heard += await reader.read(65536)
                    writer.write(self.answer(head))
        writer.close()

    def answer(self, head: bytes) -> bytes:
        body = b"" if head.startswith(b"HEAD") else PAGE if head.startswith(b"GET / ") else b"{}"
        kind = b"text/html" if body == PAGE else b"application/json"
        return (b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nContent-Length: " + str(len(body)).encode()
                + b"\r\n\r\n" + body)

    async def speak_2(self, more: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        server.initiate_connection()
        while True:
            for event in server.receive_data(more):
                if isinstance(event, h2.events.RequestReceived):
                    self.fields.append([(str(name), str(value)) for name, value in event.headers])
                    server.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            writer.write(server.data_to_send())
            more = await reader.read(65536)
            if not more:
                return


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, sink: Sink):
        self.sink = sink

    def datagram_received(self, data: bytes, address: tuple) -> None:
        self.sink.datagrams.setdefault(address, []).append(data)


def hello_of(datagrams: list[bytes]) -> bytes:
    """The ClientHello in a client's first datagrams; empty where there is none."""
    reader, pieces = Reader(), dict[int, bytes]()
    for datagram in datagrams:
        for offset, data in ((offset, data) for _, offset, data in reader.read(datagram)[1]):
            pieces.setdefault(offset, data)
    whole = b""
    for offset, data in sorted(pieces.items()):
        if offset <= len(whole):
            whole = whole[:offset] + data
    size = 4 + int.from_bytes(whole[1:4])
    return whole[:size] if whole[:1] == b"\1" and len(whole) >= size else b""


async def listen_to(argv: list[str], env: dict[str, str]) -> dict[str, list]:
    """What this client says; PORT in its arguments is the server's."""
    sink = Sink()
    server = await asyncio.start_server(sink.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Datagrams(sink), local_addr=("127.0.0.1", port))
    process = await asyncio.create_subprocess_exec(
        *(word.replace("PORT", str(port)) for word in argv), env=env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
    server.close()
    transport.close()
    said: dict[str, list] = {}
    for heard in map(bytes, sink.heard):
        if heard[:1] == b"\x16" and len(heard) >= 5 + int.from_bytes(heard[3:5]):
            add(said, "tls", base64.b64encode(heard).decode())
        elif heard and not heard.startswith(b"PRI "):
            for host in (b"127.0.0.1:%d" % port, b"localhost:%d" % port, b"127.0.0.1"):
                heard = heard.replace(host, b"{host}")
            add(said, "http", heard.decode("latin-1"))
    for fields in sink.fields:
        add(said, "http2", [[name, value.replace(f"127.0.0.1:{port}", "{host}")] for name, value in fields])
    for datagrams in sink.datagrams.values():
        if hello := hello_of(datagrams):
            add(said, "quic", base64.b64encode(hello).decode())
    return said


def add(said: dict[str, list], kind: str, what: object) -> None:
    if what not in said.setdefault(kind, []):
        said[kind].append(what)


# ---- the clients


HTTP, HTTPS = "http://127.0.0.1:PORT/", "https://localhost:PORT/"
PYTHON = {
    "http.client": "import http.client as h; c = h.HTTPConnection('127.0.0.1', PORT); c.request('GET', '/a?b=c'); "
                   "c.getresponse().read(); c.request('POST', '/a', b'{}', {'Content-Type': 'application/json'}); "
                   "c.getresponse().read(); c.request('PUT', '/a', iter([b'abc', b'defg']), encode_chunked=True, "
                   "headers={'Transfer-Encoding': 'chunked'}); c.getresponse().read()",
    "urllib": "import urllib.request as u; u.urlopen('HTTP').read(); u.urlopen('HTTPa', b'a=b').read()",
    "urllib, TLS": "import urllib.request as u; u.urlopen('HTTPS')",
    "requests": "import requests as r; s = r.Session(); s.get('HTTP', params={'a': 'b c'}); "
                "s.post('HTTPp', json={}); s.post('HTTPp', files={'a': b'x' * 5000}); "
                "s.put('HTTPp', data=iter([b'ab', b'cd'])); s.head('HTTP'); "
                "s.options('HTTP'); s.get('HTTPc', cookies={'a': 'b'}, auth=('a', 'b'))",
    "requests, TLS": "import requests; requests.get('HTTPS')",
    "httpx": "import httpx as h; c = h.Client(); c.get('HTTP'); c.post('HTTPp', json={'a': 1}); "
             "c.post('HTTPp', data={'a': 'b'}); c.delete('HTTPp'); c.post('HTTPp', content=iter([b'a']))",
    "httpx, HTTP/2": "import httpx; c = httpx.Client(http1=False, http2=True); c.get('HTTP'); "
                     "c.post('HTTPp', json={})",
    "httpx, TLS": "import httpx; httpx.Client(http2=True).get('HTTPS')",
    "urllib3": "import urllib3 as u; p = u.PoolManager(); p.request('GET', 'HTTP'); p.request('POST', 'HTTPp', "
               "fields={'a': 'b'}); p.request('POST', 'HTTPp', json={})",
    "niquests": "import niquests as n; s = n.Session(); s.get('HTTP'); s.post('HTTPp', json={})",
    "niquests, TLS": "import niquests; niquests.get('HTTPS')",
    "pycurl": "import pycurl; c = pycurl.Curl(); c.setopt(c.URL, 'HTTP'); c.perform()",
    "aiohttp": "import aiohttp, asyncio\nasync def main():\n async with aiohttp.ClientSession() as s:\n  for m in "
               "('get', 'post', 'put', 'patch', 'delete', 'head', 'options'):\n   async with getattr(s, m)('HTTPa', "
               "**({'json': {'a': 1}} if m[0] == 'p' else {})) as r: await r.read()\n"
               "  async with s.ws_connect('HTTPw'): pass\nasyncio.run(main())",
    "aiohttp, TLS": "import aiohttp, asyncio\nasync def main():\n async with aiohttp.ClientSession() as s:\n"
                    "  await s.get('HTTPS')\nasyncio.run(main())",
    "tornado": "from tornado.httpclient import HTTPClient as H; H().fetch('HTTP'); H().fetch('HTTPp', method='POST', "
               "body='a=b')",
    "twisted": "from twisted.internet import reactor as r, task; from twisted.web.client import Agent; task.react("
               "lambda _: Agent(r).request(b'GET', b'HTTP'))",
    "aioquic": "import asyncio, aioquic.asyncio as a\nfrom aioquic.quic.configuration import QuicConfiguration as Q\n"
               "async def main():\n async with a.connect('localhost', PORT, configuration=Q(alpn_protocols=['h3'], "
               "idle_timeout=2)): pass\nasyncio.run(main())",
}
NODE = {
    "Node's http": "const h = require('http'), a = new h.Agent({keepAlive: true, maxSockets: 1}); h.get('HTTP', "
                   "{agent: a}, r => r.resume()); const q = h.request('HTTPp', {agent: a, method: 'POST'}, r => "
                   "r.resume().on('end', () => process.exit())); q.write('abc'); q.end('def')",
    "Node's fetch": "(async () => { await (await fetch('HTTP')).text(); await (await fetch('HTTPp', {method: 'POST', "
                    "body: JSON.stringify({})})).text(); process.exit() })()",
    "Node's http2": "const c = require('http2').connect('HTTP'); c.request({':path': '/a'}).on('response', () => "
                    "process.exit()).end()",
    "Node's https": "require('https').get('HTTPS')", "Node's fetch, TLS": "fetch('HTTPS')",
}
PROGRAMS = {
    "curl": ["curl", HTTP, HTTP + "a", "-d", "a=b"], "curl, more": [
        "curl", HTTP + "up", "-F", "a=b", "--next", HTTP, "-I", "--next", HTTP, "-T", "/etc/hostname", "--next", HTTP,
        "-r",
        "0-9", "-e", "http://other.example/", "-b", "a=b", "-u", "a:b", "--compressed"],
    "curl, HTTP/1.0": ["curl", "-0", HTTP], "curl, HTTP/2": ["curl", "--http2-prior-knowledge", HTTP, HTTP + "a"],
    "curl, upgrade to HTTP/2": ["curl", "--http2", HTTP], "curl, TLS": ["curl", "-k", HTTPS],
    "curl, TLS 1.2": ["curl", "-k", "--tls-max", "1.2", "--http1.1", HTTPS],
    "wget": ["wget", "-qO-", "-t1", HTTP, HTTP + "a"], "wget, TLS": ["wget", "-qO-", "-t1", HTTPS],
    "wget, posting": ["wget", "-qO-", "-t1", "--post-data=a=b", HTTP],
    "busybox wget": ["busybox", "wget", "-qO-", HTTP], "git": ["git", "ls-remote", HTTP + "a.git"],
    "git, TLS": ["git", "ls-remote", HTTPS + "a.git"], "ab": ["ab", "-q", "-n", "2", "-k", HTTP],
    "HTTP::Tiny": ["perl", "-MHTTP::Tiny", "-e", f"my $h = HTTP::Tiny->new; $h->get('{HTTP}'); "
                   f"$h->post_form('{HTTP}p', {{a => 'b'}})"],
    "apt": ["/usr/lib/apt/apt-helper", "-o", "Acquire::Retries=0", "download-file", HTTP + "a.deb", "/dev/null"],
    "openssl": ["openssl", "s_client", "-connect", "127.0.0.1:PORT", "-servername", "localhost"],
    "gnutls": ["gnutls-cli", "localhost:PORT"],
}
CHROMIUM = ["/usr/lib/chromium/chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
            "--disable-background-networking", "--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, "
            "EXCLUDE 127.0.0.1", "--virtual-time-budget=10000", "--dump-dom", "--user-data-dir=HOME"]
QUIC = ["--enable-quic", "--origin-to-force-quic-on=localhost:PORT", HTTPS]


def clients(other: str) -> dict[str, list[str]]:
    """Every client as the command that runs it."""
    def told(text: str) -> str:
        return text.replace("HTTPS", HTTPS).replace("'HTTP", f"'{HTTP}")

    from curl_cffi.requests import BrowserType

    found = {name: [other if name.partition(",")[0] in ("requests", "httpx", "urllib3", "niquests", "pycurl")
                    else sys.executable, "-c", told(code)] for name, code in PYTHON.items()}
    found |= {name: ["node", "-e", told(code)] for name, code in NODE.items()} | PROGRAMS
    found |= {f"curl_cffi as {browser.value}": [
        sys.executable, "-c", "import contextlib, curl_cffi.requests as r\nfor u in "
        f"({HTTP!r}, {HTTPS!r}):\n with contextlib.suppress(Exception): r.get(u, impersonate={browser.value!r}, "
        "verify=False, timeout=2)"] for browser in BrowserType}
    found |= {"Chromium": [*CHROMIUM, HTTP], "Chromium, TLS": [*CHROMIUM, HTTPS],
              "Chromium, QUIC": [*CHROMIUM, *QUIC]}
    return found


def main() -> None:
    shapes = json.loads(SHAPES.read_text()) if SHAPES.exists() else {}
    for name, argv in clients(sys.argv[1] if len(sys.argv) > 1 else sys.executable).items():
        if not shutil.which(argv[0]) or not name.startswith(tuple(sys.argv[2:]) or ""):
            continue
        with tempfile.TemporaryDirectory() as home:
            argv = [word.replace("HOME", home) for word in argv]
            said = asyncio.run(listen_to(argv, os.environ | {"HOME": home, "no_proxy": "*"}))
        if said:
            shapes[name] = said
        print(name, {kind: len(some) for kind, some in said.items()}, flush=True)
    SHAPES.write_text(json.dumps(dict(sorted(shapes.items())), indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
