"""The application: what it answers, and how it stops."""

import asyncio
import socket
from dataclasses import dataclass

from aiohttp import web

KEEPALIVE_S = 120
"""Longer than the sidecar keeps an idle connection, so that the sidecar is always the one that closes it."""

SHUTDOWN_S = 15
"""How long a stop waits for requests that are being answered; less than systemd's patience."""


STREAM_LINES, STREAM_S = 10, 5.0
"""A streamed answer: how many lines, and how long all of it takes."""


@dataclass(frozen=True)
class Settings:
    """Which service this is: its path and its health check's, and the host's mesh address."""

    path: str
    health_path: str
    address: str


def greeting(settings: Settings, hostname: str) -> str:
    """Return the answer's body: who answered, as the sandbox's guide shows it."""
    number = settings.path.rsplit("/", 1)[-1]
    return f"Hello from behind Envoy (service {number})! hostname: {hostname} resolvedhostname: {settings.address}\n"


def application(settings: Settings) -> web.Application:
    """Return the server: the service's own path and the health check; anything else is a 404.

    Below its path are a long answer and an upload: with these one sees that what takes its time is not cut off.
    """
    body = greeting(settings, socket.gethostname())

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html", charset="utf-8")

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes(
        [
            web.get(settings.path, hello),
            web.get(f"{settings.path}/stream", stream),
            web.post(f"{settings.path}/upload", upload),
            web.get(settings.health_path, health),
        ]
    )
    return app


async def stream(request: web.Request) -> web.StreamResponse:
    """Answer line by line."""
    response = web.StreamResponse(headers={"content-type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    for number in range(1, STREAM_LINES + 1):
        await asyncio.sleep(STREAM_S / STREAM_LINES)
        await response.write(f"line {number} of {STREAM_LINES}\n".encode())
    return response


async def upload(request: web.Request) -> web.Response:
    """Take an upload, however long and slow; answer how many bytes it had."""
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
    return web.Response(text=f"{size}\n")


def serve(app: web.Application, listen: str, port: int) -> None:
    """Serve on the loopback until SIGTERM; then take no new connection and finish what is being answered."""
    web.run_app(
        app,
        host=listen,
        port=port,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        access_log=None,  # the front logs every request
        print=None,
    )
