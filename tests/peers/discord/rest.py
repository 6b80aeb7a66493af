"""The HTTP side: finds the route, checks the token, the limits and the faults, shapes answers.

Routes live in the rest_* modules, each a table of `Route`. From Discord's reference: 401 for
a wrong token, 404 code 0 for an unknown path, JSON as `application/json` without a charset, and
a `Via` header (which discord.py takes as proof that a 429 is not an address ban).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

from . import errors
from .errors import ApiError
from .faults import Fault, FaultKind, reset_connection
from .ratelimit import Verdict

if TYPE_CHECKING:
    from .peer import DiscordPeer

API_PREFIX = re.compile(r"^/api(?:/v(\d+))?(/.*)$")
REQUEST_LIMIT_BYTES = 25 * 1024 * 1024


@dataclass
class Upload:
    """One `files[n]` part of a multipart body."""

    index: int
    filename: str
    data: bytes
    content_type: str


@dataclass
class ApiRequest:
    """A request as handlers see it."""

    method: str
    path: str
    params: dict[str, str]
    query: dict[str, str]
    body: Any = None
    files: list[Upload] = field(default_factory=list)

    def id(self, name: str) -> int:
        return int(self.params[name])

    @property
    def fields(self) -> dict[str, Any]:
        """The body, which must be an object."""
        if not isinstance(self.body, dict):
            raise errors.invalid_form(
                (), "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType"
            )
        return self.body


Answer = tuple[int, Any]
Handler = Callable[["DiscordPeer", ApiRequest], Awaitable[Answer] | Answer]


@dataclass(frozen=True)
class Route:
    """One path. `bucket` names its rate limit; {channel_id} and the like are digits."""

    method: str
    template: str
    handler: Handler
    bucket: str
    token_needed: bool = True
    counts_globally: bool = True

    @property
    def pattern(self) -> re.Pattern[str]:
        def group(match: re.Match[str]) -> str:
            name = match.group(1)
            kind = r"\d+" if name.endswith("_id") else r"[^/]+"
            return f"(?P<{name}>{kind})"

        return re.compile("^" + re.sub(r"\{(\w+)\}", group, self.template) + "$")

    def major(self, params: dict[str, str]) -> str:
        """The part of the path that has a bucket of its own."""
        if "webhook_id" in params or "token" in params:
            return f"{params.get('webhook_id', '')}/{params.get('token', '')}"
        return params.get("channel_id") or params.get("guild_id") or ""


@dataclass
class RequestRecord:
    """One line of the request log. `status` is 0 while unanswered or when the answer was lost."""

    time: float
    method: str
    path: str
    body: Any = None
    status: int = 0
    error: str | None = None
    code: int | None = None


class RestApi:
    """Serves `/api/v10/…` for one peer."""

    def __init__(self, peer: DiscordPeer, routes: list[Route]) -> None:
        self._peer = peer
        self._routes = [(route, route.pattern) for route in routes]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        found = API_PREFIX.match(request.path)
        if found is None:
            return self._respond(404, errors.not_found_route().body(), {})
        path = found.group(2)
        record = RequestRecord(time.time(), request.method, path)
        self._peer.requests.append(record)
        fault = self._peer.faults.strike(request.method, path)
        headers: dict[str, str] = {}
        if fault is not None:
            early = await self._suffer(fault, request)
            if early is not None:
                record.status = early.status
                self._count(record)
                return early
        try:
            if found.group(1) not in ("9", "10"):
                raise ApiError(400, 50041, "Invalid API version")
            status, body = await self._answer(request, path, record, headers)
        except ApiError as error:
            status, body = error.status, error.body()
            record.error, record.code = str(error), error.code
            if error.errors is not None:
                record.error += " " + json.dumps(error.errors, ensure_ascii=False)
            if status == 429:
                headers["Retry-After"] = str(int(error.extra.get("retry_after", 1)) + 1)
        except _Limited as limited:
            status, body = 429, limited.body
        except Exception as mistake:
            self._peer.mistakes.append(mistake)
            status, body = 500, {"message": "500: Internal Server Error", "code": 0}
            record.error = "".join(traceback.format_exception(mistake))
        record.status = status
        self._count(record)
        if fault is not None and fault.kind is FaultKind.LOST_ANSWER:
            record.status = 0
            return self._cut(request)
        return self._respond(status, body, headers)

    async def _answer(
        self, request: web.Request, path: str, record: RequestRecord, headers: dict[str, str]
    ) -> Answer:
        limiter = self._peer.limits
        if limiter.is_banned():
            raise _Limited("error code: 1015")
        route, params = self._find(request.method, path)
        if route.token_needed:
            self._check_token(request)
        verdict = limiter.check(
            route.bucket, route.major(params), counts_globally=route.counts_globally
        )
        headers.update(verdict.headers)
        if verdict.retry_after_s is not None:
            raise _Limited(verdict)
        call = ApiRequest(request.method, path, params, dict(request.query))
        await _read_body(request, call)
        record.body = call.body
        result = route.handler(self._peer, call)
        return await result if isinstance(result, Awaitable) else result

    def _find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        other_method = False
        for route, pattern in self._routes:
            match = pattern.match(path)
            if match is None:
                continue
            if route.method == method:
                return route, match.groupdict()
            other_method = True
        raise errors.method_not_allowed() if other_method else errors.not_found_route()

    def _check_token(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bot {self._peer.token}":
            raise errors.unauthorized()

    async def _suffer(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        """The answer of a fault that comes before any work; None when the work goes on."""
        if fault.kind is FaultKind.STATUS:
            body = fault.body
            if body is None:
                body = {"message": f"{fault.status}: injected", "code": 0}
            return self._respond(fault.status, body, fault.headers)
        if fault.kind is FaultKind.RESET:
            return self._cut(request)
        if fault.kind is FaultKind.HANG:
            await fault.released.wait()
            return self._cut(request)
        if fault.kind is FaultKind.SLOW:
            await asyncio.sleep(fault.delay_s)
        return None

    def _cut(self, request: web.Request) -> web.Response:
        reset_connection(request)
        return web.Response(status=500)  # never arrives; aiohttp wants something

    def _count(self, record: RequestRecord) -> None:
        stats = self._peer.stats
        if record.status == 429:
            stats.rate_limited += 1
        if record.status == 400:
            stats.bad_requests += 1
        if record.status in (401, 403, 429):
            stats.invalid_requests += 1
            self._peer.limits.note_invalid()
        self._peer.changed()

    def _respond(self, status: int, body: Any, headers: dict[str, str]) -> web.Response:
        headers = {"Via": "1.1 google", "Server": "cloudflare", **headers}
        if status == 204:
            return web.Response(status=204, headers=headers)
        if isinstance(body, str):
            headers.pop("Via")
            return web.Response(status=status, text=body, headers=headers)
        return web.Response(
            status=status,
            body=json.dumps(body).encode(),
            headers={**headers, "Content-Type": "application/json"},
        )


class _Limited(Exception):
    """429, with the limiter's body or, for a banned address, plain text."""

    def __init__(self, verdict: Verdict | str) -> None:
        self.body: Any = verdict if isinstance(verdict, str) else verdict.body()


async def _read_body(request: web.Request, call: ApiRequest) -> None:
    """Fill in `body` and `files` from JSON or from multipart with `payload_json`."""
    if not request.body_exists:
        return
    if request.content_type == "application/json":
        call.body = _json(await request.read())
    elif request.content_type == "multipart/form-data":
        total = 0
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            data = bytes(await part.read())
            total += len(data)
            if total > REQUEST_LIMIT_BYTES:
                raise ApiError(413, 40005, "Request entity too large")
            if part.name == "payload_json":
                call.body = _json(data)
            else:
                index = re.fullmatch(r"files\[(\d+)\]", part.name or "")
                kind = part.headers.get("Content-Type", "application/octet-stream")
                if index is not None:
                    name = part.filename or "unknown"
                    call.files.append(Upload(int(index.group(1)), name, data, kind))
        call.body = call.body if call.body is not None else {}
    elif await request.read():
        raise errors.invalid_form(
            (),
            "CONTENT_TYPE_INVALID",
            'Expected "Content-Type" header to be one of '
            "{'application/json', 'multipart/form-data'}.",
        )


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ApiError(400, 50109, "The request body contains invalid JSON.") from None
