"""The servers of the matrix: how each is started, and how it tells its sites apart.

In: a folder, an address and a port. Out: a process that serves LISTED_PAGE for the listed host and OTHER_PAGE for
every other, each by its own means: virtual hosts where the server has them, else the way its users take. Never: a
service of the system, a file outside the folder.

A new server is one row of SERVERS.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.matrix.certificates import write_certificates

LISTED, OTHER = "listed.example", "open.example"
LISTED_PAGE, OTHER_PAGE = b"this is the listed page", b"this is the other page"
SITES = Path(__file__).with_name("sites.py")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/lib/node/bin"
WAIT = 20.0


@dataclass(frozen=True)
class Server:
    """One server: `program` is what has to be there, `write` makes its files and says how it is started."""

    name: str
    program: str
    reads: str                  # what it takes for the host of a request, in the words of docs/evasion.md
    write: Callable[[Path, str, int], list[str]]
    tls: bool = False           # the site is chosen by the server name of the hello, and the certificate tells
    dual: bool = False          # it listens on all addresses, whatever it is told
    http2: bool = False         # asked over HTTP/2 without TLS, by prior knowledge
    quic: bool = False          # asked over QUIC; it listens on TCP as well, which tells that it is up

    @property
    def kind(self) -> str:
        return "quic" if self.quic else "tls" if self.tls else "http2" if self.http2 else "http"

    @property
    def there(self) -> bool:
        if self.program.startswith("python:"):
            return subprocess.run([sys.executable, "-c", f"import {self.program[7:]}"],
                                  capture_output=True).returncode == 0
        return shutil.which(self.program, path=PATH) is not None


def authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def pages(home: Path) -> None:
    for folder, page in (("listed", LISTED_PAGE), ("other", OTHER_PAGE)):
        (home / folder).mkdir(exist_ok=True)
        for name in ("index.html", "a"):
            (home / folder / name).write_bytes(page)
        home.chmod(0o755)


def nginx(home: Path, address: str, port: int, tls: bool = False, how: str = "") -> list[str]:
    own = "ssl_certificate {0}/{1}.pem; ssl_certificate_key {0}/{1}.key;" if tls else ""
    listen = f"listen {authority(address, port)}{' ssl' if tls else ''}{how}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {home}/{kind};" for kind in kinds)
    (home / "nginx.conf").write_text(f"""
daemon off; pid {home}/pid; error_log {home}/log; worker_processes 1; events {{ worker_connections 128; }}
http {{ access_log off; {temporary} default_type text/plain; large_client_header_buffers 4 128k;
  server {{ {listen} default_server; {own.format(home, 'other')}
            server_name {OTHER}; location / {{ return 200 "{OTHER_PAGE.decode()}"; }} }}
  server {{ {listen}; {own.format(home, 'listed')} server_name {LISTED};
            location / {{ return 200 "{LISTED_PAGE.decode()}"; }} }}
}}
""")
    return ["nginx", "-e", f"{home}/log", "-c", f"{home}/nginx.conf"]


def apache(home: Path, address: str, port: int, tls: bool = False, options: str = "") -> list[str]:
    pages(home)
    modules = ["mpm_event", "authz_core", "dir"] + ["socache_shmcb", "ssl"] * tls + ["http2"] * ("h2c" in options)
    own = "SSLEngine on\nSSLCertificateFile {0}/{1}.pem\nSSLCertificateKeyFile {0}/{1}.key\n" if tls else ""
    hosts = "".join(
        f"<VirtualHost *:{port}>\nServerName {name}\nDocumentRoot {home}/{folder}\nFallbackResource /index.html\n"
        f"{own.format(home, folder)}</VirtualHost>\n" for name, folder in ((OTHER, "other"), (LISTED, "listed")))
    (home / "apache.conf").write_text(
        f"ServerRoot {home}\nPidFile {home}/pid\nErrorLog {home}/log\nDefaultRuntimeDir {home}\nServerName {OTHER}\n"
        + "DirectoryIndex index.html\n" + "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
        + f"Listen {authority(address, port)}\n"
        + f"<Directory {home}>\nRequire all granted\n</Directory>\n{options}{hosts}")
    return ["apache2", "-d", str(home), "-f", f"{home}/apache.conf", "-DFOREGROUND"]


def lighttpd(home: Path, address: str, port: int, options: str = "") -> list[str]:
    pages(home)
    bind = f"[{address}]" if ":" in address else address
    (home / "lighttpd.conf").write_text(f"""
server.document-root = "{home}/other"
server.port = {port}
server.bind = "{bind}"
server.errorlog = "{home}/log"
index-file.names = ("index.html")
server.error-handler-404 = "/index.html"
{options}
$HTTP["host"] == "{LISTED}" {{ server.document-root = "{home}/listed" }}
""")
    return ["lighttpd", "-D", "-f", f"{home}/lighttpd.conf"]


def haproxy(home: Path, address: str, port: int, tls: bool = False, how: str = "") -> list[str]:
    if tls:
        for name in ("other", "listed"):
            both = [(home / f"{name}.{kind}").read_bytes() for kind in ("pem", "key")]
            (home / f"{name}.both").write_bytes(b"".join(both))
    own = f" ssl crt {home}/other.both crt {home}/listed.both" if tls else ""
    (home / "haproxy.cfg").write_text(f"""
global
    maxconn 200
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
frontend sites
    bind {authority(address, port)}{own}{how}
    acl listed hdr(host),field(1,:) -i {LISTED}
    http-request return status 200 content-type text/plain string "{LISTED_PAGE.decode()}" if listed
    http-request return status 200 content-type text/plain string "{OTHER_PAGE.decode()}"
""")
    return ["haproxy", "-db", "-f", f"{home}/haproxy.cfg"]


def caddy(home: Path, address: str, port: int, tls: bool = False, how: str = "") -> list[str]:
    def site(name: str, folder: str, page: bytes) -> str:
        own = f"tls {home}/{folder}.pem {home}/{folder}.key\n" if tls else ""
        scheme = "https" if tls else "http"
        return f"{scheme}://{name}:{port} {{\nbind {address}\n{own}respond \"{page.decode()}\"\n}}\n"

    (home / "Caddyfile").write_text(
        f"{{\nadmin off\nauto_https disable_redirects\nstorage file_system {home}/store\ndefault_sni {OTHER}\n"
        f"{how}}}\n"
        + site(LISTED, "listed", LISTED_PAGE) + site(OTHER, "other", OTHER_PAGE) + site("", "other", OTHER_PAGE))
    return ["env", f"HOME={home}", f"XDG_CONFIG_HOME={home}", f"XDG_DATA_HOME={home}",
            "caddy", "run", "--config", f"{home}/Caddyfile", "--adapter", "caddyfile"]


def varnish(home: Path, address: str, port: int, *how: str) -> list[str]:
    (home / "sites.vcl").write_text(f"""
vcl 4.1;
backend none none;
sub vcl_recv {{
    if (regsub(req.http.host, ":.*", "") == "{LISTED}") {{ return (synth(200, "{LISTED_PAGE.decode()}")); }}
    return (synth(200, "{OTHER_PAGE.decode()}"));
}}
""")
    return ["varnishd", "-F", "-n", f"{home}/work", "-a", authority(address, port), "-f", f"{home}/sites.vcl",
            "-s", "malloc,10m", "-j", "none", "-p", "http_req_hdr_len=65536", "-p", "http_req_size=131072",
            "-p", "workspace_client=256k", *how]


NODE = """
const http = require("http"), http2 = require("http2"), https = require("https"), fs = require("fs");
const [home, address, port, how] = process.argv.slice(2);
function site(request) {
    const host = request.headers[":authority"] || request.headers.host || "";
    if (how.includes("url")) return new URL(request.url, "http://" + host).hostname;
    const from = host[0] === "[" ? host.indexOf("]") + 1 : 0, end = host.indexOf(":", from);
    return (end === -1 ? host : host.substring(0, end)).toLowerCase();
}
function answer(request, response) {
    let page = "OTHER";
    try { if (site(request) === "HOST") page = "LISTED"; } catch (error) { response.statusCode = 400; }
    response.end(page);
}
if (how === "tls") {
    const read = file => fs.readFileSync(`${home}/${file}`);
    const pair = name => ({cert: read(`${name}.pem`), key: read(`${name}.key`)});
    const server = https.createServer(pair("other"), answer);
    server.addContext("HOST", pair("listed"));
    server.listen(+port, address);
} else if (how.includes("http2")) {
    http2.createServer(answer).listen(+port, address);
} else {
    http.createServer({insecureHTTPParser: how.includes("lenient"), requireHostHeader: false}, answer)
        .listen(+port, address);
}
"""


def node(home: Path, address: str, port: int, how: str) -> list[str]:
    text = NODE.replace('"OTHER"', repr(OTHER_PAGE.decode())).replace('"LISTED"', repr(LISTED_PAGE.decode()))
    (home / "site.js").write_text(text.replace('"HOST"', f'"{LISTED}"'))
    return ["node", f"{home}/site.js", str(home), address, str(port), how]


def python(kind: str) -> Callable[[Path, str, int], list[str]]:
    def write(home: Path, address: str, port: int) -> list[str]:
        pages(home)
        return [sys.executable, str(SITES), kind, str(home), address, str(port)]
    return write


def openssl(home: Path, address: str, port: int) -> list[str]:
    return ["openssl", "s_server", "-accept", authority(address, port), "-cert", f"{home}/other.pem",
            "-key", f"{home}/other.key", "-servername", LISTED, "-cert2", f"{home}/listed.pem",
            "-key2", f"{home}/listed.key", "-www", "-quiet"]


def selfserv(home: Path, address: str, port: int, other: str = OTHER) -> list[str]:
    store = f"sql:{home}/nss"
    (home / "nss").mkdir(exist_ok=True)
    run = partial(subprocess.run, check=True, capture_output=True)
    run(["certutil", "-N", "-d", store, "--empty-password"])
    for name, host in (("listed", LISTED), ("other", other)):
        run(["openssl", "pkcs12", "-export", "-in", f"{home}/{name}.pem", "-inkey", f"{home}/{name}.key",
             "-name", host, "-out", f"{home}/{name}.p12", "-passout", "pass:x"])
        run(["pk12util", "-i", f"{home}/{name}.p12", "-d", store, "-W", "x", "-K", ""])
    # It listens on IPv6 and IPv4 alike.
    return ["selfserv", "-d", store, "-p", str(port), "-n", other, "-a", LISTED, "-V", "tls1.2:tls1.3"]


STRICT = "header-strict", "host-strict", "host-normalize"
LOOSE = f'server.http-parseopts = ({", ".join(f""""{name}" => "disable" """ for name in STRICT)})'

SERVERS = (
    Server("nginx", "nginx", "the front, to the first colon", nginx),
    Server("Apache", "apache2", "the front, to the port", apache),
    Server("Apache, tolerant", "apache2", "the same, `HttpProtocolOptions Unsafe`",
           lambda *at: apache(*at, options="HttpProtocolOptions Unsafe\n")),
    Server("lighttpd", "lighttpd", "the front, to the port", lighttpd),
    Server("lighttpd, tolerant", "lighttpd", "the same, `host-strict` and more off",
           lambda *at: lighttpd(*at, LOOSE)),
    Server("HAProxy", "haproxy", "`hdr(host),field(1,:)`", haproxy),
    Server("Caddy", "caddy", "Go's SplitHostPort, brackets trimmed", caddy),
    Server("Varnish", "varnishd", "`req.http.host` to the first colon", varnish),
    Server("Node", "node", "as Express: the front, to the first colon", lambda *at: node(*at, "strict")),
    Server("Node, lenient", "node", "the same, `insecureHTTPParser`", lambda *at: node(*at, "lenient")),
    Server("Node, URL", "node", '`new URL(url, "http://" + host)`', lambda *at: node(*at, "url")),
    Server("Node, lenient, URL", "node", "the same, `insecureHTTPParser`", lambda *at: node(*at, "url lenient")),
    Server("http.server", "python:http.server", "`urlsplit` of the Host", python("http.server")),
    Server("aiohttp", "python:aiohttp", "`request.url.host`", python("aiohttp")),
    Server("Tornado", "python:tornado", "its host patterns", python("tornado")),
    Server("uvicorn, h11", "python:uvicorn,h11,starlette", "Starlette's Host", python("uvicorn-h11")),
    Server("uvicorn, httptools", "python:uvicorn,httptools,starlette", "Starlette's Host",
           python("uvicorn-httptools")),
    Server("Hypercorn", "python:hypercorn,starlette", "Starlette's `request.url`", python("hypercorn")),
    Server("waitress", "python:waitress,werkzeug", "Werkzeug's `request.host`", python("waitress")),
    Server("gunicorn", "python:gunicorn", "`urlsplit` of HTTP_HOST", python("gunicorn")),
    Server("cheroot", "python:cheroot", "`urlsplit` of HTTP_HOST", python("cheroot")),
    Server("Twisted", "python:twisted", "its NameVirtualHost", python("twisted")),
    Server("nginx, h2c", "nginx", "the front, to the first colon", lambda *at: nginx(*at, how=" http2"), http2=True),
    Server("Apache, h2c", "apache2", "the front, to the port",
           lambda *at: apache(*at, options="Protocols h2c http/1.1\n"), http2=True),
    Server("lighttpd, h2c", "lighttpd", "the front, to the port",
           lambda *at: lighttpd(*at, 'server.feature-flags = ("server.h2c" => "enable")'), http2=True),
    Server("HAProxy, h2c", "haproxy", "`hdr(host),field(1,:)`", lambda *at: haproxy(*at, how=" proto h2"),
           http2=True),
    Server("Caddy, h2c", "caddy", "Go's SplitHostPort, brackets trimmed",
           lambda *at: caddy(*at, how="servers {\nprotocols h1 h2 h2c\n}\n"), http2=True),
    Server("Varnish, h2c", "varnishd", "`req.http.host` to the first colon",
           lambda *at: varnish(*at, "-p", "feature=+http2"), http2=True),
    Server("Node, h2c", "node", "`:authority`, to the first colon", lambda *at: node(*at, "http2"), http2=True),
    Server("Node, h2c, URL", "node", '`new URL(url, "http://" + authority)`', lambda *at: node(*at, "http2 url"),
           http2=True),
    Server("Hypercorn, h2c", "python:hypercorn,starlette", "Starlette's `request.url`", python("hypercorn"),
           http2=True),
    Server("nginx, TLS", "nginx", "the front, to the first colon", lambda *at: nginx(*at, True), True),
    Server("Apache, TLS", "apache2", "the whole name", lambda *at: apache(*at, True), True),
    Server("HAProxy, TLS", "haproxy", "the whole name", lambda *at: haproxy(*at, True), True),
    Server("Caddy, TLS", "caddy", "the whole name", lambda *at: caddy(*at, True), True),
    Server("Caddy, QUIC", "caddy", "the whole name", lambda *at: caddy(*at, True), quic=True),
    Server("Node, TLS", "node", "the whole name", lambda *at: node(*at, "tls"), True),
    Server("Python's ssl", "python:ssl", "`sni_callback`, final dots cut", python("ssl"), True),
    Server("openssl s_server", "openssl", "the whole name", openssl, True),
    Server("NSS selfserv", "selfserv", "the whole name", selfserv, True, True),
)


def is_open(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0


@contextmanager
def started(server: Server, home: Path, address: str, port: int, popen: Callable = subprocess.Popen,
            opened: Callable[[str, int], bool] = is_open) -> Iterator[None]:
    """The server while the block runs; `popen` and `opened` may be those of a namespace."""
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    write_certificates(home, {"listed": LISTED, "other": OTHER})
    argv = server.write(home, address, port)
    with (home / "output").open("wb") as output:
        process = popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                        env=os.environ | {"PATH": PATH, "PYTHONPATH": str(Path(__file__).parents[2])},
                        start_new_session=True)
    try:
        deadline = time.monotonic() + WAIT
        while not opened(address, port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (home / "output").read_text(errors="replace")[-800:]
                raise RuntimeError(f"{server.name} does not start: {said}")
            select.select([], [], [], 0.02)     # another process's socket: nothing tells when it opens
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
