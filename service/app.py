"""The application: what it answers, and how it stops."""

import socket
from dataclasses import dataclass

from aiohttp import web

KEEPALIVE_S = 120
"""Longer than the sidecar keeps an idle connection, so that the sidecar is always the one that closes it."""

SHUTDOWN_S = 15
"""How long a stop waits for requests that are being answered; less than systemd's patience."""


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
    """Return the server: the service's own path and the health check; anything else is a 404."""
    body = greeting(settings, socket.gethostname())

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html", charset="utf-8")

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get(settings.path, hello), web.get(settings.health_path, health)])
    return app


def serve(app: web.Application, port: int) -> None:
    """Serve on the loopback until SIGTERM; then take no new connection and finish what is being answered."""
    web.run_app(
        app,
        host="127.0.0.1",
        port=port,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        access_log=None,  # the sidecar logs every request
        print=None,
    )
