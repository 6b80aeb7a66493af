"""The gateway in front of a project: checks the `apikey`, hands on to PostgREST, or fails.

Answers in Supabase's words (its self-hosted Kong and documentation). It runs in a thread with a
loop of its own, so it serves a test's own loop and a bot in another process alike, and goes on
while the test blocks.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from tests.peers.postgres.faults import Fault, Faults

PREFIX = "/rest/v1"
_SB = "sb_"
_MAX_BODY = 100 * 2**20
# Hop by hop, or made anew by the next hop.
_OWN_HEADERS = frozenset(
    ("host", "connection", "transfer-encoding", "content-length", "content-encoding", "date",
     "server", "apikey", "authorization", "accept-encoding")
)  # fmt: skip
_PAGE = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One that reached the gateway; `status` is None where it was cut or never answered."""

    method: str
    path: str
    body: bytes
    fault: Fault | None
    forwarded: bool
    status: int | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


class _Refused(Exception):
    def __init__(self, message: str, hint: str) -> None:
        self.answer = _as_json(401, {"message": message, "hint": hint})


class Gateway:
    """`keys` maps every accepted `apikey` to the JWT it stands for (itself, where it is one)."""

    def __init__(self, target_port: Callable[[], int], keys: Mapping[str, str]) -> None:
        self.port = 0
        self.faults = Faults()
        self.requests: list[Request] = []
        self._target = target_port
        self._keys = keys
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Listen on the port of the last time, a free one at first."""
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="supabase-gateway", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            self._thread = None
            raise

    def stop(self) -> None:
        """Cut all connections and stop listening."""
        if self._thread is None:
            return
        self.faults.clear()
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = None

    async def _serve(self, started: Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            try:
                await runner.setup()
                site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
                await site.start()
                self.port = runner.addresses[0][1]
            except BaseException as error:
                started.set_exception(error)
            else:
                started.set_result(None)
                await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self.faults.draw(request.path)
        answer: _Answer | None = None
        forwarded = False
        try:
            if fault is Fault.HANG:
                await self._hang(request)
            elif fault in _CANNED:
                answer = _CANNED[fault]
            elif fault is not Fault.DROPPED:
                if fault is Fault.SLOW:
                    await asyncio.sleep(self.faults.slow_s)
                try:
                    token = self._token(request)
                except _Refused as refused:
                    answer = refused.answer
                else:
                    forwarded = True
                    answer = await self._forward(request, token, body)
            if answer is None or fault is Fault.ANSWER_LOST:
                return self._cut(request)
            if fault in (Fault.RESET_IN_BODY, Fault.TRUNCATED):
                return await self._half(request, answer, reset=fault is Fault.RESET_IN_BODY)
            return web.Response(
                status=answer.status, body=answer.body or None, headers=answer.headers
            )
        finally:
            cut = fault in (Fault.ANSWER_LOST, Fault.RESET_IN_BODY, Fault.TRUNCATED)
            status = None if answer is None or cut else answer.status
            self.requests.append(
                Request(request.method, request.path_qs, body, fault, forwarded, status)
            )

    def _token(self, request: web.Request) -> str:
        """What PostgREST is shown as Authorization; _Refused without a known key.

        A JWT as `apikey` alone does not make anybody's role: PostgREST looks at Authorization
        only. The new `sb_` keys are no JWTs, so for them the gateway puts one there, except
        where the caller brings a user's.
        """
        key = request.headers.get("apikey") or request.query.get("apikey")
        if not key:
            raise _Refused(
                "No API key found in request", "No `apikey` request header or url param was found."
            )
        if key not in self._keys:
            raise _Refused(
                "Invalid API key",
                "Double check your Supabase `anon` or `service_role` API key.",
            )
        brought = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if brought.startswith(_SB) or (not brought and key.startswith(_SB)):
            if brought and brought != key:
                raise _Refused("Invalid API key", "Authorization does not match the apikey.")
            return self._keys[key]
        return brought

    async def _forward(self, request: web.Request, token: str, body: bytes) -> _Answer:
        if not request.path.startswith(f"{PREFIX}/"):
            return _as_json(404, {"message": "no Route matched with those values"})
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _OWN_HEADERS
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = URL(
            f"http://127.0.0.1:{self._target()}{request.raw_path.removeprefix(PREFIX)}",
            encoded=True,
        )
        assert self._session is not None
        try:
            async with self._session.request(
                request.method,
                url,
                headers=headers,
                # aiohttp warns of a megabyte of bare bytes.
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as response:
                answer = _Answer(
                    response.status,
                    await response.read(),
                    {n: v for n, v in response.headers.items() if n.lower() not in _OWN_HEADERS},
                )
        except (aiohttp.ClientError, OSError):
            answer = _as_json(503, {"message": "name resolution failed"})
        return answer

    async def _hang(self, request: web.Request) -> None:
        """Until the faults are cleared or the caller has gone."""
        epoch = self.faults.epoch
        while self.faults.epoch == epoch and request.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _half(
        self, request: web.Request, answer: _Answer, *, reset: bool
    ) -> web.StreamResponse:
        """The head in full, a body that breaks off; a promised length even where there was none."""
        if answer.status == 204:  # has no body that could break off
            return self._cut(request)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body) + 16
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        transport = request.transport
        if transport is not None:
            if reset:
                raw = transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await asyncio.sleep(0.02)  # a reset overtakes what is still on its way
                transport.abort()
            else:
                transport.close()
        return response


def _as_json(status: int, body: object, **headers: str) -> _Answer:
    return _Answer(
        status,
        json.dumps(body).encode(),
        {"Content-Type": "application/json; charset=utf-8", **headers},
    )


def _as_page(status: int, title: str) -> _Answer:
    return _Answer(
        status, _PAGE.format(title).encode(), {"Content-Type": "text/html; charset=UTF-8"}
    )


def _as_postgrest(status: int, code: str, message: str) -> _Answer:
    return _as_json(status, {"code": code, "details": None, "hint": None, "message": message})


_CANNED: dict[Fault | None, _Answer] = {
    Fault.BUSY_503: _as_postgrest(
        503, "PGRST002", "Could not query the database for the schema cache. Retrying."
    ),
    Fault.POOL_504: _as_postgrest(
        504, "PGRST003", "Timed out acquiring connection from connection pool."
    ),
    Fault.UNREACHABLE_522: _as_page(522, "Connection timed out"),
    Fault.PAUSED_540: _as_json(540, {"message": "Project paused"}),
    Fault.HTML_200: _as_page(200, "Be right back"),
    Fault.EMPTY_CODE_400: _as_postgrest(400, "", "server closed the connection unexpectedly"),
    Fault.UNAUTHORIZED_401: _as_json(401, {"message": "Invalid API key"}),
    Fault.TOO_MANY_429: _Answer(
        429, b'{"message":"Too many requests"}',
        {"Content-Type": "application/json", "Retry-After": "1"},
    ),
}  # fmt: skip
