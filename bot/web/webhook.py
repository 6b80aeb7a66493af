"""`/webhooks/uptime-kuma`: where Uptime Kuma tells of a change the moment it sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from bot.services.kuma_inbox import KumaInbox
from bot.web.access import AuthFailures, TokenCheck, refusal
from bot.web.server import Access, Route

PATH: Final = "/webhooks/uptime-kuma"
TOKEN_HEADER: Final = "X-Webhook-Token"
MAX_BODY_BYTES: Final = 256 * 1024
BODY_TIMEOUT_S: Final = 10.0


class KumaWebhook:
    """Answers before any work. The token, each Kuma's own, tells which Kuma it is."""

    def __init__(self, inbox: KumaInbox, tokens: Mapping[str, str], failures: AuthFailures) -> None:
        self._inbox = inbox
        inbox.expect(tokens)
        self._checks = {name: TokenCheck(token, failures) for name, token in tokens.items()}
        self._failures = failures

    def routes(self) -> tuple[Route, ...]:
        """Empty where no Kuma has a token."""
        if not self._checks:
            return ()
        paths = (PATH, f"{PATH}/{{token}}")
        return (
            *(Route("POST", path, self._take, Access.OPEN) for path in paths),
            *(Route("GET", path, self._explain, Access.OPEN) for path in paths),
        )

    async def _take(self, request: web.Request) -> web.Response:
        instance, verdict = self._judge(request)
        refused = refusal(verdict, request.remote or "", self._failures)
        if refused is not None:
            return refused
        assert instance is not None
        body = await _body(request)
        if body is None:
            return _said(413, f"more than {MAX_BODY_BYTES // 1024} KB")
        if not self._inbox.offer(instance, body):
            return _said(503, "too many at once", **{"Retry-After": "5"})
        return web.json_response({"status": "accepted"}, status=202)

    async def _explain(self, request: web.Request) -> web.Response:
        """Whoever looks with a browser, and a Kuma (2.1 and later) set to GET: no success, or its
        test would look fine while nothing ever arrived. Says the same with any token."""
        words = "this is where Uptime Kuma sends its webhook notifications: set its method to POST"
        return _said(405, words, Allow="POST")

    def _judge(self, request: web.Request) -> tuple[str | None, bool | None]:
        """Whose token this is, and the verdict on it: right, wrong, or None for none at all."""
        given = _token(request)
        if given is None:
            return None, None
        # All are compared, so that the time taken does not tell which one came near.
        right = [name for name, check in self._checks.items() if check.is_right(given)]
        return (right[0], True) if right else (None, False)


def _token(request: web.Request) -> str | None:
    """What was shown; a proxy may have left credentials of its own in `Authorization`."""
    given = request.match_info.get("token") or request.headers.get(TOKEN_HEADER)
    header = request.headers.get(hdrs.AUTHORIZATION)
    if given or header is None:
        return given
    scheme, _, rest = header.partition(" ")
    return rest.strip(" \t") if scheme.lower() == "bearer" else header


async def _body(request: web.Request) -> bytes | None:
    """None when it is too long. Raises HTTPRequestTimeout for one that does not end."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return None
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return bytes(body)


def _said(status: int, error: str, **headers: str) -> web.Response:
    return web.Response(
        text=json.dumps({"error": error}),
        status=status,
        content_type="application/json",
        headers=headers,
    )
