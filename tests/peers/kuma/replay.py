"""A Kuma without Node: recorded and made-up output behind Kuma's real HTTP manners.

What it imitates was seen on 1.23.16 and 2.5.3 (`tests/recorded/*/http-answers.json`): 401
with an empty body, 200 with a web page for every unknown path, a status page of 1.23 that
never answers for an unknown slug. What it adds are faults, one request or many at a time.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import functools
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from aiohttp import web

from bot.core.observation import MonitorStatus

Dialect = Literal["1.23", "2.0", "2.5"]

RECORDED = Path(__file__).resolve().parents[2] / "recorded"
VERSIONS: Mapping[str, str] = {"1.23": "1.23.16", "2.0": "2.0.2", "2.5": "2.5.3"}
WEB_PAGE = "<!DOCTYPE html><html><head><title>Uptime Kuma</title></head><body></body></html>\n"

_NUMBERS = {
    MonitorStatus.DOWN: 0,
    MonitorStatus.UP: 1,
    MonitorStatus.PENDING: 2,
    MonitorStatus.MAINTENANCE: 3,
    MonitorStatus.UNKNOWN: 7,  # a number no Kuma has used so far
}
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HELP = {
    "monitor_cert_days_remaining": "The number of days remaining until the certificate expires",
    "monitor_cert_is_valid": "Is the certificate still valid? (1 = Yes, 0= No)",
    "monitor_uptime_ratio": (
        "Uptime ratio calculated over sliding window specified by the 'window' label. (0.0 - 1.0)"
    ),
    "monitor_response_time_seconds": (
        "Average response time in seconds calculated over sliding window specified by the "
        "'window' label"
    ),
    "monitor_response_time": "Monitor Response Time (ms)",
    "monitor_status": "Monitor Status (1 = UP, 0= DOWN, 2= PENDING, 3= MAINTENANCE)",
}
_WINDOWS = ("1d", "30d", "365d")


class Fault(Enum):
    """What may go wrong between a Kuma and its reader."""

    HTML = "html"  # 200 and a web page: a proxy's login, or the wrong path
    ERROR = "500"
    UNAUTHORIZED = "401"
    NOT_FOUND = "404"
    EMPTY = "empty"  # 200 without a body
    HALF = "half"  # the declared length, half of the body, connection closed
    HALF_CHUNKED = "half_chunked"
    HALF_TEXT = "half_text"  # a well-formed answer with half of the text in it
    NOTHING = "nothing"  # the connection closed without a word
    RESET = "reset"  # the same, rudely
    HANG = "hang"  # no answer, ever
    SLOW = "slow"  # everything right, after `slow_s`
    TRICKLE = "trickle"  # begins at once, never ends
    GARBAGE = "garbage"  # what answers is no HTTP
    REDIRECT = "redirect"  # to `redirect_to`


@dataclass
class ReplayMonitor:
    """One monitor as this Kuma tells of it."""

    id: int
    name: str
    type: str = "http"
    url: str | None = "http://127.0.0.1:8080/"
    hostname: str | None = None
    port: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    status: MonitorStatus = MonitorStatus.UP
    response_time_ms: float | None = 12
    cert_days: float | None = None
    cert_valid: bool = True
    uptime_1d: float | None = 1
    beats: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """A request this Kuma got; `at` is `time.monotonic()`, `status` None when unanswered."""

    at: float
    method: str
    path: str
    status: int | None


class ReplayKuma:
    """An async context manager: a Kuma at `base_url` that says what the test tells it to.

    Either `set_metrics(text)` gives the text, or it is made from `monitors` (see
    `make_fleet`, `add_monitor`, `set_status`, `vanish`). The rendered text is kept until
    something changes, so a poll costs this side next to nothing.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str | None = "uk1_replayed-key",
        dialect: Dialect = "2.5",
        slug: str = "public",
        prefix: str = "",
        control: bool = False,
    ) -> None:
        self.api_key = api_key
        self.dialect: Dialect = dialect
        self.slug = slug
        self.prefix = prefix.rstrip("/")
        self.port = port
        self.requests: list[Seen] = []
        self.monitors: dict[int, ReplayMonitor] = {}
        self.vanished: set[int] = set()
        self.slow_s = 0.5
        self.redirect_to = "https://login.example.org/"
        self._control = control
        self._fixed: bytes | None = None
        self._rendered: bytes | None = None
        self._fault: Fault | None = None
        self._fault_left: int | None = None
        self._fault_path = ""
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()

    # life

    async def __aenter__(self) -> ReplayKuma:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; again on the same port after `stop()`."""
        if self._runner is not None:
            return
        self._released = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Refuse connections, as a Kuma that is not running does."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._released.set()
            await runner.cleanup()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    # what it says

    def set_metrics(self, text: str | bytes | None) -> None:
        """Say exactly this on `/metrics`; None goes back to the monitors."""
        self._fixed = text.encode("utf-8", "replace") if isinstance(text, str) else text

    def metrics_text(self) -> str:
        """What `/metrics` says now."""
        return self._body().decode("utf-8", "replace")

    def add_monitor(self, monitor: ReplayMonitor) -> ReplayMonitor:
        self.monitors[monitor.id] = monitor
        if not monitor.beats:
            for age in (120, 60, 0):
                self._beat(monitor, age_s=age)
        self._rendered = None
        return monitor

    def make_fleet(
        self,
        n: int,
        dialect: Dialect | None = None,
        name_factory: Callable[[int], str] | None = None,
    ) -> None:
        """Replace all monitors by `n` believable ones, ids 1 to n, every tenth with TLS."""
        if dialect is not None:
            self.dialect = dialect
        self._fixed = None
        self.monitors.clear()
        self.vanished.clear()
        for number in range(1, n + 1):
            name = f"service {number:04d}" if name_factory is None else name_factory(number)
            tls = number % 10 == 0
            tcp = number % 10 == 5
            self.add_monitor(
                ReplayMonitor(
                    id=number,
                    name=name,
                    type="port" if tcp else "http",
                    url=(
                        "https://"
                        if tcp
                        else f"http{'s' if tls else ''}://10.0.{number >> 8}.{number & 255}/health"
                    ),
                    hostname=f"10.0.{number >> 8}.{number & 255}" if tcp else None,
                    port=5432 if tcp else None,
                    tags={"env": "prod"} if number % 4 == 0 else {},
                    response_time_ms=5 + number * 7 % 90,
                    cert_days=30 + number % 60 if tls else None,
                    uptime_1d=1 if number % 3 else 0.9986111111111111,
                )
            )

    def find(self, which: str | int) -> ReplayMonitor:
        """By id, or by name (the first with that name)."""
        if isinstance(which, int):
            return self.monitors[which]
        for monitor in self.monitors.values():
            if monitor.name == which:
                return monitor
        raise KeyError(which)

    def set_status(
        self,
        which: str | int,
        status: MonitorStatus,
        *,
        response_time_ms: float | None = None,
    ) -> None:
        """The monitor's next beat. Without a time an UP monitor keeps its last one."""
        monitor = self.find(which)
        monitor.status = status
        if response_time_ms is not None:
            monitor.response_time_ms = response_time_ms
        elif status is not MonitorStatus.UP:
            monitor.response_time_ms = None
        elif monitor.response_time_ms is None:
            monitor.response_time_ms = 12
        self._beat(monitor, age_s=0)
        self._rendered = None

    def vanish(self, which: str | int) -> None:
        """Leave the monitor's live series out, as for a paused one (window series stay)."""
        self.vanished.add(self.find(which).id)
        self._rendered = None

    def appear(self, which: str | int) -> None:
        self.vanished.discard(self.find(which).id)
        self._rendered = None

    def remove(self, which: str | int) -> None:
        """As if it had been deleted: nothing of it is left."""
        del self.monitors[self.find(which).id]
        self._rendered = None

    def fail(self, fault: Fault | str | None, *, times: int | None = None, path: str = "") -> None:
        """From now on do this wrong, `times` times or until `fail(None)`.

        `path` limits it to requests whose path contains that text. Mind that aiohttp's
        client repeats a GET once by itself when the connection closes without a word.
        """
        self._fault = Fault(fault) if isinstance(fault, str) else fault
        self._fault_left = times
        self._fault_path = path

    # rendering

    def _body(self) -> bytes:
        if self._fixed is not None:
            return self._fixed
        if self._rendered is None:
            self._rendered = render(
                self.monitors.values(), dialect=self.dialect, vanished=self.vanished
            ).encode("utf-8", "replace")
        return self._rendered

    @staticmethod
    def _beat(monitor: ReplayMonitor, *, age_s: float) -> None:
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        monitor.beats.append(
            {
                "status": _NUMBERS[monitor.status],
                "time": f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}",
                "msg": "",
                "ping": monitor.response_time_ms,
            }
        )
        del monitor.beats[:-100]

    def _page(self) -> dict[str, Any]:
        rows = [
            {
                "id": monitor.id,
                "name": monitor.name,
                "sendUrl": 0,
                "type": monitor.type,
                "tags": [
                    {"id": 1, "monitor_id": monitor.id, "tag_id": 1, "name": name, "value": value}
                    for name, value in monitor.tags.items()
                ],
                "certExpiryDaysRemaining": "" if monitor.cert_days is None else monitor.cert_days,
                "validCert": monitor.cert_days is not None and monitor.cert_valid,
            }
            for monitor in self.monitors.values()
        ]
        groups = [{"id": 1, "name": "Services", "weight": 1, "monitorList": rows}]
        incidents: dict[str, Any] = (
            {"incident": None} if self.dialect == "1.23" else {"incidents": []}
        )
        config = {"slug": self.slug, "title": "Status", "published": True, "theme": "auto"}
        return {
            "config": config,
            **incidents,
            "publicGroupList": groups,
            "maintenanceList": [],
        }

    def _heartbeats(self, slug: str) -> dict[str, Any]:
        monitors = self.monitors.values() if slug == self.slug else ()
        return {
            "heartbeatList": {str(monitor.id): monitor.beats for monitor in monitors},
            "uptimeList": {f"{monitor.id}_24": monitor.uptime_1d for monitor in monitors},
        }

    # answering

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        at = time.monotonic()
        status: int | None = None
        try:
            response = await self._respond(request)
            status = None if response is None else response.status
        finally:
            self.requests.append(Seen(at, request.method, request.path, status))
        if response is None:
            if request.transport is not None:
                request.transport.close()
            return web.Response()
        return response

    async def _respond(self, request: web.Request) -> web.StreamResponse | None:
        path = request.path
        if self._control and path == "/__replay__":
            return await self._controlled(request)
        if not path.startswith(self.prefix + "/"):
            return web.Response(status=404)
        path = path.removeprefix(self.prefix)
        fault = self._next_fault(path)
        if fault is Fault.SLOW:
            await self._wait(self.slow_s)
        elif fault is not None:
            return await self._misbehave(fault, request, self._good(request, path))
        good = self._good(request, path)
        if good is None:
            await self._wait(None)
        return good

    def _good(self, request: web.Request, path: str) -> web.Response | None:
        """What Kuma answers when nothing is wrong; None is "nothing, ever"."""
        if path == "/metrics":
            if not self._authorized(request):
                return _html("", status=401, headers={"WWW-Authenticate": "Basic"})
            return web.Response(body=self._body(), headers={"Content-Type": _CONTENT_TYPE})
        if match := re.fullmatch(r"/api/status-page/heartbeat/([^/]+)", path):
            return _json(self._heartbeats(match[1]))
        if match := re.fullmatch(r"/api/status-page/([^/]+)", path):
            if match[1] == self.slug:
                return _json(self._page())
            if self.dialect == "1.23":
                return None
            return _json({"status": "fail", "msg": "Status Page Not Found"}, status=404)
        if path == "/":
            return web.Response(status=302, headers={"Location": f"{self.prefix}/dashboard"})
        return _html(WEB_PAGE)

    def _authorized(self, request: web.Request) -> bool:
        """HTTP Basic with the key as password; the user name is not looked at."""
        if self.api_key is None:
            return True
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            pair = base64.b64decode(token, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and pair.partition(":")[2] == self.api_key

    def _next_fault(self, path: str) -> Fault | None:
        if self._fault is None or self._fault_path not in path or self._fault_left == 0:
            return None
        if self._fault_left is not None:
            self._fault_left -= 1
        return self._fault

    async def _wait(self, seconds: float | None) -> None:
        """Wait, but no longer than this Kuma runs."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    async def _misbehave(
        self, fault: Fault, request: web.Request, good: web.Response | None
    ) -> web.StreamResponse | None:
        body = good.body if good is not None and isinstance(good.body, bytes) else b""
        half = body[: len(body) // 2]
        content_type = _CONTENT_TYPE if good is None else good.headers["Content-Type"]
        if fault is Fault.HTML:
            return _html(WEB_PAGE)
        if fault is Fault.ERROR:
            return _html("<h1>Internal Server Error</h1>", status=500)
        if fault is Fault.UNAUTHORIZED:
            return _html("", status=401, headers={"WWW-Authenticate": "Basic"})
        if fault is Fault.NOT_FOUND:
            return _html("Cannot GET", status=404)
        if fault is Fault.EMPTY:
            return web.Response(body=b"", headers={"Content-Type": content_type})
        if fault is Fault.HALF_TEXT:
            return web.Response(body=half, headers={"Content-Type": content_type})
        if fault is Fault.REDIRECT:
            return web.Response(status=302, headers={"Location": self.redirect_to})
        if fault is Fault.HANG:
            await self._wait(None)
            return None
        if fault in (Fault.HALF, Fault.HALF_CHUNKED, Fault.TRICKLE):
            response = web.StreamResponse(headers={"Content-Type": content_type})
            if fault is Fault.HALF_CHUNKED:
                response.enable_chunked_encoding()
            else:
                response.content_length = len(body)
            await response.prepare(request)
            await response.write(half)
            if fault is Fault.TRICKLE:
                await self._wait(None)
            if request.transport is not None:
                request.transport.close()
            return response
        transport = request.transport
        if transport is not None and fault is Fault.GARBAGE:
            transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        elif transport is not None and fault is Fault.RESET:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return None

    async def _controlled(self, request: web.Request) -> web.Response:
        """`POST /__replay__`: the same levers for a Kuma in another process.

        JSON, each member optional: {"status": {"<id or name>": "down"}, "vanish": [id],
        "appear": [id], "fault": "html" or null, "times": 3, "fleet": 100,
        "dialect": "2.5", "metrics": "text" or null}
        """
        orders = await request.json()
        if "fleet" in orders:
            self.make_fleet(int(orders["fleet"]), orders.get("dialect"))
        for which, status in orders.get("status", {}).items():
            known: str | int = int(which) if which.isdigit() else which
            self.set_status(known, MonitorStatus(status))
        for which in orders.get("vanish", []):
            self.vanish(which)
        for which in orders.get("appear", []):
            self.appear(which)
        if "metrics" in orders:
            self.set_metrics(orders["metrics"])
        if "fault" in orders:
            self.fail(orders["fault"], times=orders.get("times"))
        return _json({"ok": True, "requests": len(self.requests)})


def _html(
    text: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers=headers
    )


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(value, ensure_ascii=False),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers={"Cache-Control": "no-cache"},
    )


def escape(value: object) -> str:
    """A label value as prom-client writes it.

    A backslash before an "n" stays single there, so the name `C:\\new` reads back with a
    line break: that is Kuma's doing, and readers see what Kuma says.
    """
    if value is None:
        return "null"
    text = str(value).replace("\n", "\\n")
    return re.sub(r"\\(?!n)", r"\\\\", text).replace('"', '\\"')


def _js(number: float) -> str:
    """A number as JavaScript prints it."""
    return str(int(number)) if number == int(number) else repr(float(number))


def labels(monitor: ReplayMonitor, dialect: Dialect) -> str:
    """A monitor's label block in the words of that Kuma."""
    pairs: dict[str, object] = {}
    if dialect == "2.5":
        pairs.update(monitor.tags)
    if dialect != "1.23":
        pairs["monitor_id"] = monitor.id
    pairs |= {
        "monitor_name": monitor.name,
        "monitor_type": monitor.type,
        "monitor_url": monitor.url,
        "monitor_hostname": monitor.hostname,
        "monitor_port": monitor.port,
    }
    return ",".join(f'{name}="{escape(value)}"' for name, value in pairs.items())


def render(
    monitors: Iterable[ReplayMonitor],
    *,
    dialect: Dialect = "2.5",
    vanished: frozenset[int] | set[int] = frozenset(),
) -> str:
    """The whole `/metrics` text, families in Kuma's order, the end taken from a recording."""
    blocks = [(monitor, labels(monitor, dialect)) for monitor in monitors]
    live = {block: monitor for monitor, block in blocks if monitor.id not in vanished}
    families: dict[str, list[str]] = {name: [] for name in _HELP}
    for block, monitor in live.items():
        if monitor.cert_days is not None:
            families["monitor_cert_days_remaining"].append(f"{{{block}}} {_js(monitor.cert_days)}")
            families["monitor_cert_is_valid"].append(f"{{{block}}} {int(monitor.cert_valid)}")
        ping = -1 if monitor.response_time_ms is None else monitor.response_time_ms
        families["monitor_response_time"].append(f"{{{block}}} {_js(ping)}")
        families["monitor_status"].append(f"{{{block}}} {_NUMBERS[monitor.status]}")
    if dialect == "2.5":
        for monitor, block in blocks:
            seconds = (monitor.response_time_ms or 0) / 1000
            for window in _WINDOWS:
                families["monitor_response_time_seconds"].append(
                    f'{{{block},window="{window}"}} {_js(seconds)}'
                )
                if monitor.uptime_1d is not None:
                    families["monitor_uptime_ratio"].append(
                        f'{{{block},window="{window}"}} {_js(monitor.uptime_1d)}'
                    )
    else:
        del families["monitor_uptime_ratio"], families["monitor_response_time_seconds"]
    text = []
    for name, lines in families.items():
        text.append(f"# HELP {name} {_HELP[name]}\n# TYPE {name} gauge\n")
        text.extend(f"{name}{line}\n" for line in lines)
        text.append("\n")
    return "".join(text) + _ending(dialect)


@functools.cache
def _ending(dialect: Dialect) -> str:
    """All that Kuma prints after its monitors."""
    recorded = "1.23.16" if dialect == "1.23" else "2.5.3"
    path = RECORDED / f"kuma-{recorded}" / "metrics-empty.txt"
    text = path.read_text(encoding="utf-8")
    ending = text[text.index("# HELP process_cpu_user_seconds_total") :]
    version = VERSIONS[dialect]
    major, minor, patch = version.split(".")
    return re.sub(
        r"(?m)^app_version\{.*$",
        f'app_version{{version="{version}",major="{major}",minor="{minor}",patch="{patch}"}} 1',
        ending,
    )
