"""Real HTTP servers on loopback, each of which says whom it serves.

In: names of the table below and a folder. Out: the port of each that this machine has; every page it serves says
"SERVED <host>", by which Host or authority it was asked. Never here: a server that listens beyond loopback, or one
that is left running.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LISTED = "listed.example"
STARTS: dict[str, Callable[[Path, int], list[str] | None]] = {}
PATIENCE = 20.0            # seconds until a server listens, on a busy machine


def server(function: Callable[[Path, int], list[str] | None]) -> Callable[[Path, int], list[str] | None]:
    """Registers a way to start a server: its command, or None where the machine has none."""
    STARTS[function.__name__.rstrip("_").replace("_", "-")] = function
    return function


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def python(folder: Path, name: str, module: str, text: str) -> list[str] | None:
    """A server that is a Python program, where the module is there."""
    if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode:
        return None
    return [sys.executable, "-B", script(folder, f"{name}.py", text)]


@server
def nginx(folder: Path, port: int) -> list[str] | None:
    if not shutil.which("nginx"):
        return None
    (folder / "logs").mkdir(exist_ok=True)
    path = script(folder, "nginx.conf", f"""
        daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null crit;
        events {{ worker_connections 512; }}
        http {{
            access_log off; keepalive_requests 100000; default_type text/plain;
            client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
            uwsgi_temp_path {folder}; scgi_temp_path {folder};
            server {{ listen 127.0.0.1:{port} default_server; return 200 "SERVED other\\n"; }}
            server {{ listen 127.0.0.1:{port}; server_name {LISTED}; return 200 "SERVED {LISTED}\\n"; }}
        }}
        """)
    return ["nginx", "-p", str(folder), "-c", path]


def apache(folder: Path, port: int, more: str) -> list[str] | None:
    modules = Path("/usr/lib/apache2/modules")
    if not shutil.which("apache2") or not modules.exists():
        return None
    for site in ("listed", "other"):
        (folder / site).mkdir(exist_ok=True)
        (folder / site / "index.html").write_text(f"SERVED {LISTED if site == 'listed' else 'other'}\n")
    path = script(folder, "apache.conf", f"""
        ServerRoot {folder}
        ServerName other.example
        PidFile {folder}/apache.pid
        Listen 127.0.0.1:{port}
        LoadModule mpm_event_module {modules}/mod_mpm_event.so
        LoadModule authz_core_module {modules}/mod_authz_core.so
        LoadModule dir_module {modules}/mod_dir.so
        ErrorLog /dev/null
        KeepAlive On
        MaxKeepAliveRequests 0
        DirectoryIndex index.html
        ErrorDocument 404 "SERVED other"
        {more}
        <VirtualHost *:{port}>
            ServerName other.example
            DocumentRoot {folder}/other
        </VirtualHost>
        <VirtualHost *:{port}>
            ServerName {LISTED}
            DocumentRoot {folder}/listed
            ErrorDocument 404 "SERVED {LISTED}"
        </VirtualHost>
        """)
    return ["apache2", "-f", path, "-DFOREGROUND"]


@server
def apache_strict(folder: Path, port: int) -> list[str] | None:
    return apache(folder, port, "")


@server
def apache_unsafe(folder: Path, port: int) -> list[str] | None:
    return apache(folder, port, "HttpProtocolOptions Unsafe LenientMethods Allow0.9")


@server
def lighttpd(folder: Path, port: int) -> list[str] | None:
    if not shutil.which("lighttpd"):
        return None
    for site in ("listed", "other"):
        (folder / f"l-{site}").mkdir(exist_ok=True)
        (folder / f"l-{site}" / "index.html").write_text(f"SERVED {LISTED if site == 'listed' else 'other'}\n")
    path = script(folder, "lighttpd.conf", f"""
        server.port = {port}
        server.bind = "127.0.0.1"
        server.document-root = "{folder}/l-other"
        index-file.names = ("index.html")
        server.max-keep-alive-requests = 100000
        $HTTP["host"] =~ "^{LISTED}" {{ server.document-root = "{folder}/l-listed" }}
        """)
    return ["lighttpd", "-D", "-f", path]


@server
def haproxy(folder: Path, port: int) -> list[str] | None:
    if not shutil.which("haproxy"):
        return None
    path = script(folder, "haproxy.cfg", f"""
        global
            maxconn 500
        defaults
            mode http
            timeout client 5s
            timeout server 5s
            timeout connect 5s
        frontend f
            bind 127.0.0.1:{port}
            http-request return status 200 content-type text/plain lf-string "SERVED %[req.hdr(host)]\\n"
        """)
    return ["haproxy", "-db", "-f", path]


NODE = """
    const page = q => 'SERVED ' + q.headers.host + '\\n';
    require('http').createServer((q, s) => {{ q.resume(); q.on('end', () => s.end(page(q))); }})
        .listen({port}, '127.0.0.1');
    """


@server
def node(folder: Path, port: int) -> list[str] | None:
    return ["node", script(folder, "node.js", NODE.format(port=port))] if shutil.which("node") else None


@server
def node_lenient(folder: Path, port: int) -> list[str] | None:
    found = node(folder, port)
    return found and [found[0], "--insecure-http-parser", found[1]]


@server
def go(folder: Path, port: int) -> list[str] | None:
    found = next((path for path in (shutil.which("go"), *map(str, Path("/usr/lib").glob("go-1*/bin/go"))) if path),
                 None)
    if not found:
        return None
    path = script(folder, "main.go", f"""
        package main
        import ("fmt"; "net/http")
        func main() {{
            http.ListenAndServe("127.0.0.1:{port}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {{
                fmt.Fprintf(w, "SERVED %s\\n", r.Host)
            }}))
        }}
        """)
    binary = str(folder / "go-server")
    done = subprocess.run([found, "build", "-o", binary, path], capture_output=True, cwd=folder,
                          env={**os.environ, "HOME": str(folder), "GO111MODULE": "off", "CGO_ENABLED": "0"})
    return [binary] if done.returncode == 0 else None


@server
def caddy(folder: Path, port: int) -> list[str] | None:
    if not shutil.which("caddy"):
        return None
    path = script(folder, "Caddyfile", f"""
        {{
            admin off
            auto_https off
            storage file_system {folder}/store
        }}
        http://:{port} {{
            bind 127.0.0.1
            respond "SERVED {{http.request.host}}"
        }}
        """)
    return ["env", f"HOME={folder}", f"XDG_CONFIG_HOME={folder}", f"XDG_DATA_HOME={folder}",
            "caddy", "run", "--config", path, "--adapter", "caddyfile"]


@server
def http_server(folder: Path, port: int) -> list[str] | None:
    return python(folder, "http_server", "http.server", f"""
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):                   # like SimpleHTTPRequestHandler: no look at a body
                page = f"SERVED {{self.headers.get('Host')}}\\n".encode("latin-1", "replace")
                self.send_response(200)
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)
            do_HEAD = do_GET
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.do_GET()
            def log_message(self, *words):
                pass
        class Server(ThreadingHTTPServer):
            request_queue_size = 200
            def handle_error(self, *words):
                pass
        Server(("127.0.0.1", {port}), Handler).serve_forever()
        """)


@server
def aiohttp(folder: Path, port: int) -> list[str] | None:
    return python(folder, "aio", "aiohttp", f"""
        from aiohttp import web
        async def page(request):
            return web.Response(text=f"SERVED {{request.headers.get('Host')}}\\n")
        import asyncio
        async def main():
            runner = web.ServerRunner(web.Server(page))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", {port}).start()
            await asyncio.Event().wait()
        asyncio.run(main())
        """)


@server
def tornado(folder: Path, port: int) -> list[str] | None:
    return python(folder, "tor", "tornado", f"""
        import asyncio, logging
        from tornado.httpserver import HTTPServer
        from tornado import httputil
        logging.disable(logging.CRITICAL)
        def page(request):
            text = f"SERVED {{request.host}}\\n".encode("utf-8", "replace")
            request.connection.write_headers(httputil.ResponseStartLine("", 200, "OK"),
                                             httputil.HTTPHeaders({{"Content-Length": str(len(text))}}))
            request.connection.write(text)
            request.connection.finish()
        async def main():
            HTTPServer(page).listen({port}, "127.0.0.1")
            await asyncio.Event().wait()
        asyncio.run(main())
        """)


ASGI = """
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        host = b",".join(value for name, value in scope["headers"] if name == b"host")
        page = b"SERVED " + host + b"\\n"
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(page)).encode())]})
        await send({"type": "http.response.body", "body": page})
    """
WSGI = """
    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError:
            pass
        page = ("SERVED " + str(environ.get("HTTP_HOST")) + "\\n").encode("latin-1", "replace")
        start_response("200 OK", [("Content-Length", str(len(page)))])
        return [page]
    """


def uvicorn(folder: Path, port: int, reader: str) -> list[str] | None:
    (folder / "asgi.py").write_text(textwrap.dedent(ASGI))
    return python(folder, f"uvicorn_{reader}", f"uvicorn, {reader}", f"""
        import sys, uvicorn
        sys.path.insert(0, {str(folder)!r})
        uvicorn.run("asgi:app", host="127.0.0.1", port={port}, http={reader!r}, log_level="critical")
        """)


@server
def uvicorn_h11(folder: Path, port: int) -> list[str] | None:
    return uvicorn(folder, port, "h11")


@server
def uvicorn_httptools(folder: Path, port: int) -> list[str] | None:
    return uvicorn(folder, port, "httptools")


@server
def hypercorn(folder: Path, port: int) -> list[str] | None:
    (folder / "asgi.py").write_text(textwrap.dedent(ASGI))
    return python(folder, "hyper", "hypercorn", f"""
        import asyncio, sys
        sys.path.insert(0, {str(folder)!r})
        from asgi import app
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
        config = Config()
        config.bind = ["127.0.0.1:{port}"]
        config.loglevel = "CRITICAL"
        asyncio.run(serve(app, config))
        """)


@server
def waitress(folder: Path, port: int) -> list[str] | None:
    return python(folder, "wait", "waitress", f"""
        import sys
        from waitress import serve
        {textwrap.indent(textwrap.dedent(WSGI), "        ").strip()}
        serve(app, host="127.0.0.1", port={port}, threads=24, _quiet=True)
        """)


@server
def gunicorn(folder: Path, port: int) -> list[str] | None:
    (folder / "wsgi.py").write_text(textwrap.dedent(WSGI))
    return python(folder, "guni", "gunicorn", f"""
        import os, sys
        os.chdir({str(folder)!r})
        sys.argv = ["gunicorn", "-b", "127.0.0.1:{port}", "-k", "gthread", "--threads", "24", "--log-level",
                    "critical",
                    "wsgi:app"]
        from gunicorn.app.wsgiapp import run
        run()
        """)


@server
def cheroot(folder: Path, port: int) -> list[str] | None:
    return python(folder, "cher", "cheroot", f"""
        from cheroot.wsgi import Server
        {textwrap.indent(textwrap.dedent(WSGI), "        ").strip()}
        served = Server(("127.0.0.1", {port}), app, numthreads=24, request_queue_size=200)
        served.error_log = lambda *words, **more: None
        served.start()
        """)


@server
def twisted(folder: Path, port: int) -> list[str] | None:
    return python(folder, "twist", "twisted.web", f"""
        from twisted.internet import reactor
        from twisted.web import resource, server
        class Page(resource.Resource):
            isLeaf = True
            def render(self, request):
                return b"SERVED " + (request.getHeader(b"host") or b"") + b"\\n"
        reactor.listenTCP({port}, server.Site(Page()), interface="127.0.0.1")
        reactor.run(installSignalHandlers=False)
        """)


@contextlib.contextmanager
def running(folder: Path, names: list[str] | None = None) -> Iterator[dict[str, int]]:
    """Starts those of the servers that the machine has; gives their ports."""
    started: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
    try:
        for name in names or STARTS:
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            port = free_port()
            command = STARTS[name](place, port)
            if command:
                started[name] = port, subprocess.Popen(command, cwd=place, stdin=subprocess.DEVNULL,
                                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield {name: port for name, (port, process) in started.items() if listens(port, process)}
    finally:
        for _, process in started.values():
            process.terminate()
        for _, process in started.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    return False
