"""Who may ask: a token where there is one, else only this machine, asked for by its own name.

Without a token the server listens on loopback only. That alone does not keep a web page out: a
page of a stranger's domain that resolves to 127.0.0.1 (DNS rebinding) runs in a browser on this
machine. Its requests carry the stranger's name in `Host`, so that is what is looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from aiohttp import web

logger = logging.getLogger(__name__)

COOKIE_NAME: Final = "comet_session"
WINDOW_S: Final = 60.0
FAILURE_LIMIT: Final = 10
MAX_ADDRESSES: Final = 1_024


def is_loopback(host: str) -> bool:
    """True when `host`, a name or an address without port, can only mean this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_own_host(header: str) -> bool:
    """Does a `Host` header ("name", "name:port", "[::1]:port") name this machine?

    Where there is no token, the configured host is such a name as well.
    """
    value = header.strip()
    if value.startswith("["):
        name, _, rest = value.partition("]")
        return rest[:1] in ("", ":") and is_loopback(name[1:])
    return is_loopback(value.partition(":")[0])


class AuthFailures:
    """Wrong tokens of the last minute: how many, and which addresses must wait.

    Memory is bounded: past `max_addresses` the address whose last failure is oldest is let go.
    An IPv6 /64 counts as one address, because whoever has one address there has them all.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        limit: int = FAILURE_LIMIT,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._max_addresses = max_addresses
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._seconds: deque[tuple[int, int]] = deque()

    def note(self, address: str) -> None:
        """One wrong token from `address`."""
        now_s = self._monotonic()
        self.note_refused()
        group = _group(address)
        times = self._by_address.setdefault(group, deque(maxlen=self._limit))
        times.append(now_s)
        self._by_address.move_to_end(group)
        while self._by_address:
            oldest, its_times = next(iter(self._by_address.items()))
            is_over = its_times[-1] <= now_s - WINDOW_S
            if not is_over and len(self._by_address) <= self._max_addresses:
                break
            del self._by_address[oldest]
        if self.wait_s(address) is not None:
            logger.warning(
                "web: %d wrong tokens within a minute from %s; it has to wait",
                self._limit,
                group,
            )

    def note_refused(self) -> None:
        """A wrong token from an address that has to wait anyway: counted, but its wait stays."""
        second = int(self._monotonic())
        if self._seconds and self._seconds[-1][0] == second:
            second, count = self._seconds.pop()
            self._seconds.append((second, count + 1))
        else:
            self._seconds.append((second, 1))
        self._trim()

    def wait_s(self, address: str) -> int | None:
        """Whole seconds until `address` may try again; None when it may now."""
        times = self._by_address.get(_group(address))
        if times is None or len(times) < self._limit:
            return None
        left_s = times[0] + WINDOW_S - self._monotonic()
        return max(1, math.ceil(left_s)) if left_s > 0 else None

    def count_1m(self) -> float:
        """Wrong tokens of the last minute from anywhere, those of waiting addresses included."""
        self._trim()
        return float(sum(count for _, count in self._seconds))

    def _trim(self) -> None:
        begin = int(self._monotonic() - WINDOW_S)
        while self._seconds and self._seconds[0][0] <= begin:
            self._seconds.popleft()


class TokenCheck:
    """Asks for one token. Only its digest is kept, and digests are compared in constant time.

    A request without any credentials is sent away but is no failure: nobody guessed. While an
    address has to wait, even the right token is refused, or guessing could go on meanwhile.
    """

    def __init__(self, token: str, failures: AuthFailures) -> None:
        if not token:
            raise ValueError("an empty token protects nothing")
        self._digest = _digest(token)
        self._failures = failures
        self.is_good_cookie: Callable[[str], bool] | None = None
        """Set by whoever hands out the cookie; without it cookies mean nothing."""

    def refuse(self, request: web.Request) -> web.Response | None:
        """The answer to send instead of the page; None when the caller may see it."""
        return refusal(self._judge(request), request.remote or "", self._failures)

    def is_right(self, given: str) -> bool:
        """Is `given`, as a header or form brought it (any bytes), the token?"""
        return hmac.compare_digest(_digest(given), self._digest)

    def _judge(self, request: web.Request) -> bool | None:
        """True: proven. False: tried and failed. None: nothing was shown."""
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, given = header.partition(" ")
            return scheme.lower() == "bearer" and self.is_right(given.strip(" \t"))
        if self.is_good_cookie is not None:
            cookie = request.cookies.get(COOKIE_NAME)
            if cookie is not None:
                return self.is_good_cookie(cookie)
        return None


def refusal(verdict: bool | None, address: str, failures: AuthFailures) -> web.Response | None:
    """The answer to whom a look at a token did not let in; None for who may pass.

    True: proven. False: tried and failed, which is counted. None: nothing was shown.
    """
    wait_s = failures.wait_s(address)
    if wait_s is not None:
        if verdict is False:
            failures.note_refused()
        return web.json_response(
            {"error": "too many wrong tokens", "retry_after_s": wait_s},
            status=429,
            headers={"Retry-After": str(wait_s)},
        )
    if verdict is True:
        return None
    if verdict is False:
        failures.note(address)
    return web.json_response(
        {"error": "wrong token" if verdict is False else "token needed"},
        status=401,
        headers={"WWW-Authenticate": "Bearer"},
    )


def _digest(text: str) -> bytes:
    # Headers and environment alike keep bytes that are no UTF-8 as lone surrogates: equal bytes
    # are equal text, and no text fails to encode.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _group(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
