"""The second route to Discord: a channel's webhook, without discord.py.

Only aiohttp is needed, so a process without a bot token does without discord.py's memory;
besides, its Webhook accepts Discord's own hosts only, and a proxy or a test is none of them.
The address holds the token and is a secret: it is in no error, no log line and no repr.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.services.audience import Destination

TIMEOUT: Final = aiohttp.ClientTimeout(total=20, sock_connect=10)
PATIENCE_S: Final = 15.0
"""A rate limit that ends within this is waited for; a longer one is left to the outbox."""

SILENT_FLAG: Final = 1 << 12
UNKNOWN_MESSAGE: Final = 10008
EDITS_RATIONED: Final = 30046
ANSWER_LIMIT: Final = 64 * 1024

# Raised before anything was sent: surely not accepted.
_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _EditsRationed(Exception):
    """Discord takes no more edits of messages older than an hour for now."""


class WebhookNotifier:
    """A Notifier for one webhook. It cannot reply: a reply arrives as a message of its own.

    Nor can it read its channel, so after an uncertain send nothing is found and the message
    is sent again: at least once, never lost.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        parts = urlsplit(url.strip())
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        # A webhook of a thread names it in the query: that part must stay.
        self._base = URL(base)
        self._query = dict(URL(url.strip()).query)
        self._query.pop("wait", None)
        self._session = session

    def __repr__(self) -> str:
        return "WebhookNotifier(***)"

    async def post(self, destination: Destination, message: OutgoingMessage) -> str:
        body = _body(message)
        if message.is_silent:
            body["flags"] = SILENT_FLAG
        answer = await self._send("POST", self._base, {**self._query, "wait": "true"}, body)
        message_id = answer.get("id")
        if not isinstance(message_id, str) or not message_id:
            # 200 of something that is not Discord, e.g. a proxy's own page.
            raise DeliveryError(DeliveryProblem.TRANSIENT, "the answer names no message")
        return message_id

    async def edit(
        self, destination: Destination, message_id: str, message: OutgoingMessage
    ) -> None:
        # Discord takes content and embeds as given; absent means unchanged, so name both.
        body = {"content": "", "embeds": [], **_body(message)}
        place = self._base / "messages" / message_id
        try:
            await self._send("PATCH", place, self._query, body)
        except _EditsRationed:
            # Edits of messages older than an hour are rationed; only a new one helps, and the
            # old one must not stand there with what is no longer true.
            with contextlib.suppress(DeliveryError):
                await self._send("DELETE", place, self._query, None)
            raise DeliveryError(DeliveryProblem.MESSAGE_GONE, "too many edits") from None

    async def find_card(self, destination: Destination, marker: str) -> str | None:
        return None

    async def find_reply(
        self, destination: Destination, message_id: str, symbol: str
    ) -> str | None:
        return None

    async def _send(
        self, method: str, url: URL, query: Mapping[str, str], body: Mapping[str, object] | None
    ) -> Mapping[str, Any]:
        """The JSON of an accepted request; waits out short rate limits."""
        waited_s = 0.0
        while True:
            status, retry_after_s, answer = await self._once(method, url, query, body)
            if 200 <= status < 300:
                return answer
            if status != 429:
                raise _refusal(status, answer)
            if answer.get("code") == EDITS_RATIONED:
                raise _EditsRationed
            if waited_s + retry_after_s > PATIENCE_S:
                raise DeliveryError(
                    DeliveryProblem.TRANSIENT,
                    f"429, {retry_after_s:.0f} s",
                    retry_after_s=retry_after_s,
                )
            await asyncio.sleep(retry_after_s)
            waited_s += retry_after_s

    async def _once(
        self, method: str, url: URL, query: Mapping[str, str], body: Mapping[str, object] | None
    ) -> tuple[int, float, Mapping[str, Any]]:
        try:
            async with self._session.request(
                method, url, params=query, json=body, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                text = await response.content.read(ANSWER_LIMIT)
                answer = _object_in(text)
                header = response.headers.get("Retry-After")
                return response.status, _retry_after_s(answer, header), answer
        except _NOT_SENT as error:
            problem, what = DeliveryProblem.TRANSIENT, type(error).__name__
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # It may have arrived although the answer did not.
            problem, what = DeliveryProblem.UNCERTAIN, type(error).__name__
        # Outside the handler and without a cause: aiohttp's errors show the address.
        raise DeliveryError(problem, what)


def _body(message: OutgoingMessage) -> dict[str, object]:
    body: dict[str, object] = {"allowed_mentions": {"parse": []}}
    if message.content is not None:
        body["content"] = message.content
    if message.embeds:
        body["embeds"] = [dict(embed) for embed in message.embeds]
    return body


def _object_in(text: bytes) -> Mapping[str, Any]:
    """The answer if it is a JSON object, else an empty one."""
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _retry_after_s(answer: Mapping[str, Any], header: str | None) -> float:
    """Discord says it in the body and in the header, both in seconds; a proxy perhaps not."""
    for said in (answer.get("retry_after"), header):
        try:
            seconds = float(said)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return max(0.05, seconds)
    return 1.0


def _refusal(status: int, answer: Mapping[str, Any]) -> DeliveryError:
    code = answer.get("code")
    detail = f"HTTP {status}" + (f", code {code}" if isinstance(code, int) and code else "")
    if status == 404 and code == UNKNOWN_MESSAGE:
        return DeliveryError(DeliveryProblem.MESSAGE_GONE, detail)
    if status in (401, 404):
        return DeliveryError(DeliveryProblem.CHANNEL_GONE, detail)
    if status == 403:
        return DeliveryError(DeliveryProblem.FORBIDDEN, detail)
    if status in (400, 413):
        return DeliveryError(DeliveryProblem.REJECTED, detail)
    if status == 408 or status >= 500:
        return DeliveryError(DeliveryProblem.UNCERTAIN, detail)
    return DeliveryError(DeliveryProblem.TRANSIENT, detail)
