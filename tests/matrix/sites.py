"""Python's servers of the matrix, each with two sites. In: KIND HOME ADDRESS PORT. Out: a server until it is killed.

Each tells its sites apart by its own means where it has some; a handler of ours takes the host as urllib does.
"""

import asyncio
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.matrix.servers import LISTED, LISTED_PAGE, OTHER_PAGE


def page(host: str | None) -> bytes:
    return LISTED_PAGE if (host or "").lower().rstrip(".") == LISTED else OTHER_PAGE


def split(host: str) -> str | None:
    try:
        return urlsplit("//" + host).hostname
    except ValueError:
        return None


def listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.create_server((address, port), family=family, backlog=64)
    made.setblocking(False)
    return made


def http_server(address: str, port: int) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            target = urlsplit(self.path)
            body = page(target.hostname if target.scheme else split(self.headers.get("Host", "")))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = answer
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Here(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    Here((address, port), Handler).serve_forever()


def aiohttp_site(address: str, port: int) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=page(request.url.host))

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    web.run_app(app, sock=listening(address, port), print=None)


def tornado_site(address: str, port: int) -> None:
    from tornado import httpserver, web
    from tornado.routing import HostMatches, Rule, RuleRouter

    def site(body: bytes) -> web.Application:
        class Handler(web.RequestHandler):
            def prepare(self) -> None:
                self.finish(body)

        return web.Application([(r".*", Handler)], default_handler_class=Handler)

    async def main() -> None:
        router = RuleRouter([Rule(HostMatches(LISTED.replace(".", r"\.")), site(LISTED_PAGE)),
                             Rule(HostMatches(".*"), site(OTHER_PAGE))])
        httpserver.HTTPServer(router).add_sockets([listening(address, port)])
        await asyncio.Event().wait()

    asyncio.run(main())


def starlette_hosts() -> object:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Host

    return Starlette(routes=[Host(LISTED, Response(LISTED_PAGE)), Host("{any:path}", Response(OTHER_PAGE))])


async def starlette_url(scope: dict, receive: object, send: object) -> None:
    from starlette.requests import Request
    from starlette.responses import Response

    if scope["type"] == "http":
        try:
            host = Request(scope).url.hostname
        except ValueError:
            host = None
        await Response(page(host))(scope, receive, send)


def uvicorn_site(http: str, address: str, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(starlette_hosts(), http=http, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    asyncio.run(server.serve(sockets=[listening(address, port)]))


def hypercorn_site(address: str, port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
    asyncio.run(serve(starlette_url, config))


def wsgi(environ: dict, start_response: object) -> list[bytes]:
    body = page(split(environ.get("HTTP_HOST", "")))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def waitress_site(address: str, port: int) -> None:
    import waitress
    from werkzeug.wrappers import Request, Response

    def answer(environ: dict, start_response: object) -> object:
        host = Request(environ).host.partition(":")[0]
        return Response(page(host))(environ, start_response)

    waitress.serve(answer, sockets=[listening(address, port)])


def gunicorn_site(address: str, port: int) -> None:
    from gunicorn.app.base import BaseApplication

    class Site(BaseApplication):
        def load_config(self) -> None:
            self.cfg.set("bind", f"[{address}]:{port}" if ":" in address else f"{address}:{port}")

        def load(self) -> object:
            return wsgi

    Site().run()


def cheroot_site(address: str, port: int) -> None:
    from cheroot.wsgi import Server

    Server((address, port), wsgi).start()


def twisted_site(address: str, port: int) -> None:
    from twisted.internet import reactor
    from twisted.web import server, static, vhost

    root = vhost.NameVirtualHost()
    for name, body in ((LISTED, LISTED_PAGE), (None, OTHER_PAGE)):
        leaf = static.Data(body, "text/plain")
        leaf.isLeaf = True
        if name:
            root.addHost(name.encode(), leaf)
        else:
            root.default = leaf
    reactor.listenTCP(port, server.Site(root), interface=address)
    reactor.run()


def ssl_site(home: Path, address: str, port: int) -> None:
    sites = {}
    for name in ("listed", "other"):
        sites[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        sites[name].load_cert_chain(home / f"{name}.pem", home / f"{name}.key")

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if page(name) == LISTED_PAGE:
            connection.context = sites["listed"]

    sites["other"].sni_callback = choose

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, sock=listening(address, port), ssl=sites["other"])
        await server.serve_forever()

    asyncio.run(main())


def main() -> None:
    kind, home, address, port = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if kind.startswith("uvicorn-"):
        uvicorn_site(kind.partition("-")[2], address, port)
    elif kind == "ssl":
        ssl_site(home, address, port)
    else:
        {"http.server": http_server, "aiohttp": aiohttp_site, "tornado": tornado_site, "hypercorn": hypercorn_site,
         "waitress": waitress_site, "gunicorn": gunicorn_site, "cheroot": cheroot_site,
         "twisted": twisted_site}[kind](address, port)


if __name__ == "__main__":
    main()
