"""Asks one Uptime Kuma once, and either brings a whole report or says plainly why not."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Coroutine, Generator
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from bot.core.kuma import (
    KumaTextError,
    MetricsScanner,
    check_complete,
    decode_heartbeats,
    status_page_slices,
)
from bot.core.observation import KumaReport, PollProblem

T = TypeVar("T")

DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_MAX_BODY_BYTES: Final = 64 * 1024 * 1024

_MAX_REDIRECTS: Final = 3
_LONGEST_DETAIL: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MARKUP_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})
# What people copy from the browser's address line instead of the base address.
_PAGES: Final = ("/metrics", "/dashboard")


class KumaPollError(Exception):
    """This poll gave nothing; `problem` says why, `detail` adds what a log line needs.

    `detail` never holds the API key, a password or a user name.
    """

    def __init__(self, problem: PollProblem, detail: str) -> None:
        super().__init__(f"{problem.value}: {detail}")
        self.problem = problem
        self.detail = detail


class KumaClient:
    """Reads one Kuma over a session that somebody else opens and closes.

    With `status_page` it reads that public page, which needs no secret and tells less;
    otherwise `/metrics`, with `api_key` as the password of HTTP Basic. A user name and
    password inside `base_url` are used when there is no key (Kuma takes its own user until
    the first key exists) and are never shown. `base_url` may carry a path prefix.

    Raises ValueError at once for an address that can never work.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        instance: str,
        *,
        api_key: str | None = None,
        status_page: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        self._session = session
        self._instance = instance
        self._status_page = status_page
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._scanner = MetricsScanner()

        url = _parse_base(base_url)
        secrets = [api_key, url.user, url.password, url.raw_user, url.raw_password]
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        user, password = ("", api_key.strip()) if api_key else (url.user, url.password)
        self._authorization: str | None = None
        if user or password:
            pair = base64.b64encode(f"{user or ''}:{password or ''}".encode()).decode()
            self._authorization = f"Basic {pair}"
            self._secrets.insert(0, pair)
        self._base = url.with_user(None)

    def __repr__(self) -> str:
        return f"KumaClient({self._instance!r}, {str(self._base)!r})"

    @property
    def address(self) -> str:
        """The base address, safe to show."""
        return str(self._base)

    async def fetch(self) -> KumaReport:
        """One look, whole or not at all. Raises KumaPollError.

        The time-out counts until the last byte has come. Reading the text happens here on
        the event loop, in slices of one and a half milliseconds.
        """
        if self._status_page is not None:
            return await self._fetch_status_page(self._status_page)
        body = await self._bounded(self._get("metrics"))
        try:
            check_complete(body)
        except KumaTextError as error:
            raise KumaPollError(error.problem, error.detail) from None
        return await _in_slices(self._scanner.scan_slices(body, self._instance, time.perf_counter))

    async def _fetch_status_page(self, slug: str) -> KumaReport:
        name = quote(slug, safe="")

        async def both() -> tuple[bytearray, bytearray]:
            page = await self._get(f"api/status-page/{name}", as_json=True)
            return page, await self._get(f"api/status-page/heartbeat/{name}", as_json=True)

        page_body, beats_body = await self._bounded(both())
        try:
            page = json.loads(page_body)
            beats = await _in_slices(
                decode_heartbeats(beats_body.decode("utf-8", "replace"), time.perf_counter)
            )
        except (ValueError, RecursionError):
            # Its length was right, or the transport had complained: nothing was cut.
            raise KumaPollError(PollProblem.NOT_KUMA, "the answer is no JSON") from None
        try:
            return await _in_slices(
                status_page_slices(page, beats, self._instance, time.perf_counter)
            )
        except KumaTextError as error:
            raise KumaPollError(error.problem, error.detail) from None

    async def _bounded(self, work: Coroutine[None, None, T]) -> T:
        """Everything that waits for the network, under one time-out and one set of words."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work
        except TimeoutError:
            raise KumaPollError(
                PollProblem.TIMEOUT, f"no whole answer within {self._timeout_s:g} s"
            ) from None
        except aiohttp.ClientResponseError as error:
            # Somebody answers, but what comes is no HTTP.
            raise self._problem(PollProblem.NOT_KUMA, error) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._problem(PollProblem.UNREACHABLE, error) from None

    async def _get(self, path: str, *, as_json: bool = False) -> bytearray:
        """The body of one good answer; raises KumaPollError or what the transport raises."""
        url = self._base.joinpath(*path.split("/"), encoded=True)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._session.get(
                url,
                headers=self._headers(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response, as_json=as_json)
                url = self._follow(response)
        raise KumaPollError(PollProblem.NOT_KUMA, "redirected in a circle")

    def _headers(self) -> dict[str, str]:
        return {} if self._authorization is None else {"Authorization": self._authorization}

    def _follow(self, response: aiohttp.ClientResponse) -> URL:
        """Where a redirect leads, as long as our key may go there: same host, no less safe."""
        here = response.url
        try:
            there = here.join(URL(response.headers.get("Location", "")))
        except ValueError:
            raise KumaPollError(PollProblem.NOT_KUMA, "redirected to no address") from None
        same_place = there.host == here.host and (
            (there.scheme, there.port) == (here.scheme, here.port)
            or (here.scheme, there.scheme) == ("http", "https")
        )
        if not same_place:
            shown = f"{there.scheme}://{there.host}"
            raise KumaPollError(
                PollProblem.NOT_KUMA, self._clean(f"redirected to another place, {shown}")
            )
        return there.with_user(None)

    async def _body(self, response: aiohttp.ClientResponse, *, as_json: bool) -> bytearray:
        status = response.status
        if status in (401, 403):
            raise KumaPollError(PollProblem.UNAUTHORIZED, f"HTTP {status}")
        if status == 404:
            raise KumaPollError(PollProblem.NOT_FOUND, "HTTP 404")
        if status >= 500 or status in (408, 429):
            raise KumaPollError(PollProblem.SERVER_ERROR, f"HTTP {status}")
        if not 200 <= status < 300:
            raise KumaPollError(PollProblem.NOT_KUMA, f"HTTP {status}")

        body = bytearray()
        markup = response.content_type in _MARKUP_TYPES
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if markup:  # one byte proves that it is not just an empty answer
                    break
                if len(body) > self._max_body_bytes:
                    raise KumaPollError(
                        PollProblem.NOT_KUMA, f"more than {self._max_body_bytes} bytes"
                    )
        except (aiohttp.ClientError, ConnectionError) as error:
            raise self._problem(PollProblem.INCOMPLETE, error) from None
        if not body:
            raise KumaPollError(PollProblem.EMPTY, f"HTTP {status} without a body")
        if markup:
            raise KumaPollError(PollProblem.NOT_KUMA, "a web page instead of data")
        if as_json != (response.content_type == "application/json"):
            raise KumaPollError(PollProblem.NOT_KUMA, f"content type {response.content_type}")
        return body

    def _problem(self, problem: PollProblem, error: BaseException) -> KumaPollError:
        words = " ".join(str(error).split())[:_LONGEST_DETAIL]
        name = type(error).__name__
        return KumaPollError(problem, self._clean(f"{name}: {words}" if words else name))

    def _clean(self, text: str) -> str:
        """`text` without anything secret that may have found its way into it."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _parse_base(base_url: str) -> URL:
    """The address to build paths on: no query, no final slash, no page of Kuma's web side."""
    try:
        url = URL(base_url.strip())
    except ValueError:
        raise ValueError("the address of Uptime Kuma cannot be read as a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("the address of Uptime Kuma must begin with http:// or https://")
    path = url.raw_path.rstrip("/")
    for page in _PAGES:
        path = path.removesuffix(page)
    return url.with_path(path or "/", encoded=True)


async def _in_slices(work: Generator[None, None, T]) -> T:
    """Run a generator to its end, letting everything else run between its slices."""
    try:
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: T = done.value
                return result
            await asyncio.sleep(0)
    finally:
        work.close()
