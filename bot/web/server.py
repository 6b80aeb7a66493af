"""The web side: routes, who may see them, and an end within two seconds.

A new route is one line: `server.add(Route("GET", "/path", handler, Access.TOKEN))`.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_request import BaseRequest

from bot.services.parts import Parts
from bot.services.sampler import DiscordLink
from bot.web.access import AuthFailures, TokenCheck, is_loopback, is_own_host
from bot.web.exposition import Exposition
from bot.web.health import Health

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HANDLER_GRACE_S = 0.4
"""What a request in progress gets at the end, twice: to finish, then to take its cancellation."""

MAX_CONNECTIONS = 256
KEEPALIVE_S = 75.0

# A page that needs more says so itself: what a handler has set stays.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class WebCannotListen(Exception):
    """The address cannot be listened on. The text is the address and, but for a taken port, why."""


class WebPortTaken(WebCannotListen):
    """Another program listens there. It may end, so trying again can help."""


class InsecureBinding(ValueError):
    """Without a token only loopback may be listened on."""

    def __init__(self, host: str) -> None:
        super().__init__(f"without a token the web side listens on loopback only, not on {host!r}")


class Access(Enum):
    """OPEN: anybody, or the handler asks itself (with a TokenCheck of its own). TOKEN: whoever
    shows the token; where none is set, whoever is on this machine."""

    OPEN = "open"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Route:
    """A GET route answers HEAD too."""

    method: str
    path: str
    handler: Handler
    access: Access = Access.TOKEN


class WebServer:
    """Listens from `start` to `stop`; after a failed start it may be started again."""

    def __init__(
        self,
        parts: Parts,
        host: str,
        port: int,
        token: str | None,
        discord: DiscordLink | None,
        *,
        version: str = "",
        redact: Callable[[str], str] | None = None,
    ) -> None:
        """Raises InsecureBinding. `redact` cleans error texts; by default of what looks secret."""
        if not token and not is_loopback(host):
            raise InsecureBinding(host)
        self._parts = parts
        self._host = host
        self._wanted_port = port
        self.failures = AuthFailures()
        self.token_check = TokenCheck(token, self.failures) if token else None
        self._health = Health(parts, discord, redact)
        self._exposition = Exposition(parts, version)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._routes: list[Route] = []
        self.add(
            Route("GET", "/ping", self._ping, Access.OPEN),
            Route("GET", "/health", self._alive, Access.OPEN),
            Route("GET", "/ready", self._ready),
            Route("GET", "/api/v1/health", self._everything),
            Route("GET", "/metrics", self._metrics),
        )

    def add(self, *routes: Route) -> None:
        """Before `start` only."""
        self._routes.extend(routes)

    @property
    def is_running(self) -> bool:
        return self._server is not None

    @property
    def port(self) -> int:
        """The port listened on; before `start`, the one wished for."""
        if self._server is None:
            return self._wanted_port
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{self._address}"

    @property
    def _address(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    def auth_failures_1m(self) -> float:
        return self.failures.count_1m()

    # -- starting and stopping ----------------------------------------------------------

    async def start(self) -> None:
        """Raises WebPortTaken, WebCannotListen, InsecureBinding; then nothing is left open."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(self._application(), shutdown_timeout=HANDLER_GRACE_S)
        await runner.setup()
        try:
            server = await self._listen(loop, runner)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._server = runner, server

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, runner: web.AppRunner
    ) -> asyncio.Server:
        manager = runner.server
        assert manager is not None
        # What strangers send that is not HTTP is answered 400; it is no error of ours to log.
        quiet = logging.getLogger(f"{__name__}.protocol")
        quiet.setLevel(logging.CRITICAL)
        options: dict[str, Any] = {
            "loop": loop,
            "keepalive_timeout": KEEPALIVE_S,
            "access_log": None,
            "logger": quiet,
        }
        try:
            server = await loop.create_server(
                lambda: _Protocol(manager, **options),
                self._host,
                self._wanted_port,
                start_serving=False,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise WebPortTaken(self._address) from None
            raise WebCannotListen(f"{self._address}: {error.strerror or error}") from None
        try:
            if self.token_check is None:
                # A name means what the resolver says; only the socket says where it listens.
                for socket in server.sockets:
                    bound = str(socket.getsockname()[0])
                    if not ipaddress.ip_address(bound.partition("%")[0]).is_loopback:
                        raise InsecureBinding(bound)
            await server.start_serving()
        except BaseException:
            server.close()
            raise
        return server

    async def stop(self) -> None:
        """In less than a second, whatever is open: 1. no new connections, 2. idle ones are
        closed, 3. the others get a moment, then are cut."""
        server, runner = self._server, self._runner
        self._server = self._runner = None
        if server is not None:
            server.close()
        if runner is not None:
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._outermost])
        app.on_response_prepare.append(_set_headers)
        for route in self._routes:
            handler = self._guarded(route)
            if route.method == hdrs.METH_GET:
                app.router.add_get(route.path, handler, allow_head=True)
            else:
                app.router.add_route(route.method, route.path, handler)
        return app

    # -- what every request goes through ------------------------------------------------

    def _guarded(self, route: Route) -> Handler:
        check = self.token_check
        if check is None or route.access is Access.OPEN:
            return route.handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = check.refuse(request)
            return await route.handler(request) if refusal is None else refusal

        return guarded

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """1. without a token, only those who ask for this machine by its own name, 2. faults
        are small JSON."""
        if self.token_check is None:
            # A browser always sends Host; a probe that speaks HTTP/1.0 need not.
            for name in request.headers.getall(hdrs.HOST, ()):
                if not is_own_host(name):
                    return _json({"error": "this Host is not served here; set a token"}, 403)
        try:
            return await handler(request)
        except web.HTTPException as answer:
            if answer.status < 400:
                raise
            response = _json({"error": (answer.reason or "refused").lower()}, answer.status)
            if hdrs.ALLOW in answer.headers:
                response.headers[hdrs.ALLOW] = answer.headers[hdrs.ALLOW]
            return response
        except Exception:
            # The route, not the path: a path may hold a webhook's token.
            resource = request.match_info.route.resource
            where = "?" if resource is None else resource.canonical
            logger.exception("web: %s %s failed", request.method, where)
            return _json({"error": "internal server error"}, 500)

    # -- routes -------------------------------------------------------------------------

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="pong")

    async def _alive(self, request: web.Request) -> web.Response:
        """The loop turns and answers; no more is said, for anybody may ask."""
        return _json({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        is_ready, report = self._health.readiness(self._parts.now(), time.monotonic())
        return _json(report, 200 if is_ready else 503)

    async def _everything(self, request: web.Request) -> web.Response:
        return _json(self._health.everything(self._parts.now(), time.monotonic()))

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._exposition.render(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


class _Protocol(web.RequestHandler):
    """One connection of MAX_CONNECTIONS at most; tells no version to whoever sends rubbish."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        manager = self._manager
        if manager is not None and len(manager.connections) > MAX_CONNECTIONS:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)
        response = _json({"error": "not HTTP" if status < 500 else "internal server error"}, status)
        response.headers.update(HEADERS)
        # aiohttp would put its name and version here, and this answer passes no signal.
        response.headers[hdrs.SERVER] = "comet"
        response.force_close()
        return response


async def _set_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.popall(hdrs.SERVER, None)


def _json(data: object, status: int = 200) -> web.Response:
    # ASCII only, so that half a surrogate pair in a name cannot make an answer unwritable.
    return web.Response(
        text=json.dumps(data, allow_nan=False), status=status, content_type="application/json"
    )
