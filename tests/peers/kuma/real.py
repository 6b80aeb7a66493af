"""The real Uptime Kuma as a child process on loopback, alone in a fresh data directory.

Put it in place with `install.py` first; `ready()` there tells whether it is. The release is
2.0.0-dev.0 from npm, which speaks 1.23's dialect of `/metrics`.

Rows it reads anew each time (keys, status pages, notifications) are written straight into
its SQLite file; monitors, which it keeps in memory, are started and paused the way its web
page does it, over socket.io. Only the file lets a test set intervals below 20 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from tests.peers.kuma.install import HERE, KUMA

START_TIMEOUT_S = 60.0
_CALL_TIMEOUT_S = 10.0
_USER = "admin"


class KumaDidNotStart(Exception):
    """The message ends with the last lines of Kuma's own log."""


class RealKuma:
    """An async context manager; inside it Kuma runs at `base_url` and takes `api_key`."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port or _free_port()
        self.api_key = ""
        self.start_s = 0.0
        self._directory = Path(tempfile.mkdtemp(prefix="comet-kuma-"))
        self._data = self._directory / "data"
        self._log = self._directory / "kuma.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._admin: _Admin | None = None
        self._webhooks: list[int] = []

    # life

    async def __aenter__(self) -> RealKuma:
        try:
            self._prepare()
            await self.start()
            self.api_key = self.add_key()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run, on the same port and data as before; KumaDidNotStart after 60 seconds.

        Monitors of an earlier run come back one by one, 0.3 to 1 s apart: Kuma's own way.
        """
        if self._process is not None:
            return
        started = time.monotonic()
        process = self._process = self._spawn()
        self._session = aiohttp.ClientSession()
        while not await self._answers():
            waited = time.monotonic() - started
            code = process.poll()
            # Kuma lives on when its port is taken, deaf.
            deaf = "EADDRINUSE" in self.log_tail(8)
            if code is not None or deaf or waited > START_TIMEOUT_S:
                end = "still running" if code is None else f"ended with {code}"
                await self.stop()
                raise KumaDidNotStart(f"after {waited:.0f} s, {end}; its log:\n{self.log_tail()}")
            await asyncio.sleep(0.05)
        self.start_s = time.monotonic() - started

    def _spawn(self) -> subprocess.Popen[bytes]:
        with open(self._log, "ab") as log:
            return subprocess.Popen(
                [_node(), "--require", str(HERE / "leash.cjs"), "server/server.js"],
                cwd=KUMA,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(self._directory),
                    "TZ": "UTC",
                    "NODE_ENV": "production",
                    "DATA_DIR": f"{self._data}/",
                    "UPTIME_KUMA_HOST": "127.0.0.1",
                    "UPTIME_KUMA_PORT": str(self.port),
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def stop(self) -> None:
        """Kill it, as a power cut would (an orderly end takes it four seconds)."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        while process.poll() is None:  # noqa: ASYNC110 (nobody tells us)
            await asyncio.sleep(0.01)
        if process.stdin is not None:
            process.stdin.close()

    def log_tail(self, lines: int = 40) -> str:
        """The end of what Kuma printed."""
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join(text.splitlines()[-lines:])

    async def _answers(self) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(
                f"{self.base_url}/api/entry-page", timeout=aiohttp.ClientTimeout(total=1)
            ) as response:
                return response.content_type == "application/json"
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    # keys

    def add_key(self) -> str:
        """A new API key."""
        clear = secrets.token_urlsafe(30)
        number = self._insert(
            "api_key", key=_hashes(clear)[0], name="test", user_id=1, active=1,
            expires="2999-01-01 00:00:00",
        )  # fmt: skip
        return f"uk{number}_{clear}"

    def revoke_key(self, key: str | None = None) -> None:
        """Switch a key off (the first one without an argument)."""
        number = (key or self.api_key).removeprefix("uk").partition("_")[0]
        self._execute("UPDATE api_key SET active = 0 WHERE id = ?", int(number))

    # monitors

    async def add_monitor(self, name: str, kind: str, **columns: object) -> int:
        """A running monitor; `columns` as in Kuma's table `monitor`. Returns its id."""
        row: dict[str, object] = {
            "name": name, "type": kind, "user_id": 1, "active": 0, "interval": 1,
            "retry_interval": 1, "maxretries": 0, "timeout": 5, "url": "https://",
        } | columns  # fmt: skip
        number = self._insert("monitor", **row)
        for webhook in self._webhooks:
            self._insert("monitor_notification", monitor_id=number, notification_id=webhook)
        await self.resume_monitor(number)
        return number

    async def add_http_monitor(
        self, name: str, url: str, interval_s: int = 1, max_retries: int = 0
    ) -> int:
        return await self.add_monitor(
            name,
            "http",
            url=url,
            interval=interval_s,
            retry_interval=interval_s,
            maxretries=max_retries,
        )

    async def add_port_monitor(
        self, name: str, port: int, hostname: str = "127.0.0.1", interval_s: int = 1
    ) -> int:
        return await self.add_monitor(
            name, "port", hostname=hostname, port=port, interval=interval_s
        )

    async def add_group(self, name: str, children: list[int], interval_s: int = 1) -> int:
        number = await self.add_monitor(name, "group", interval=interval_s)
        for child in children:
            self._execute("UPDATE monitor SET parent = ? WHERE id = ?", number, child)
        return number

    async def pause_monitor(self, number: int) -> None:
        await self._call("pauseMonitor", number)

    async def resume_monitor(self, number: int) -> None:
        await self._call("resumeMonitor", number)

    async def delete_monitor(self, number: int) -> None:
        await self._call("deleteMonitor", number)

    # other rows

    def add_status_page(self, slug: str, monitors: list[int], title: str = "Status") -> None:
        """A published page. Kuma keeps its answers up to five minutes: add it before asking."""
        page = self._insert(
            "status_page", slug=slug, title=title, icon="/icon.svg", theme="auto", published=1
        )
        group = self._insert("group", name="Services", public=1, status_page_id=page)
        for weight, number in enumerate(monitors):
            self._insert("monitor_group", monitor_id=number, group_id=group, weight=weight)

    def add_webhook(self, url: str, token: str | None = None) -> None:
        """Tell `url` about each monitor added from now on, with `token` as Bearer."""
        config: dict[str, object] = {
            "name": "webhook", "type": "webhook", "webhookURL": url, "webhookContentType": "json",
        }  # fmt: skip
        if token is not None:
            config["webhookAdditionalHeaders"] = json.dumps({"Authorization": f"Bearer {token}"})
        self._webhooks.append(
            self._insert("notification", name="webhook", user_id=1, config=json.dumps(config))
        )

    # underneath

    def _prepare(self) -> None:
        """The database Kuma ships, with a user and settings in it; it migrates it itself."""
        self._data.mkdir()
        (self._data / "db-config.json").write_text('{"type": "sqlite"}', encoding="utf-8")
        shutil.copyfile(KUMA / "db" / "kuma.db", self._data / "kuma.db")
        self._insert("user", username=_USER, password=_hashes(_admin_password())[0], active=1)
        # Settings are read once a minute, so these must be there from the start.
        self._insert("setting", key="checkUpdate", value="false")
        self._insert("setting", key="apiKeysEnabled", value="true")

    def _insert(self, table: str, **row: object) -> int:
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join("?" for _ in row)
        return self._execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', *row.values())

    def _execute(self, statement: str, *values: object) -> int:
        database = sqlite3.connect(self._data / "kuma.db", timeout=10)
        with contextlib.closing(database), database:
            return database.execute(statement, values).lastrowid or 0

    async def _call(self, event: str, *arguments: object) -> None:
        assert self._session is not None, "Kuma is not running"
        if self._admin is None:
            self._admin = _Admin(self._session, self.base_url)
            await self._admin.open()
        await self._admin.call(event, *arguments)


class _Admin:
    """The few words of socket.io it takes to be Kuma's web page."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/socket.io/?EIO=4&transport=websocket"
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._greeted = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
        self._reader = asyncio.create_task(self._read(self._socket))
        await self._socket.send_str("40")
        # What is sent before Kuma's first event is lost.
        await asyncio.wait_for(self._greeted.wait(), _CALL_TIMEOUT_S)
        await self.call("login", {"username": _USER, "password": _admin_password(), "token": ""})

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._socket is not None:
            await self._socket.close()

    async def call(self, event: str, *arguments: object) -> None:
        """Emit and wait for Kuma's `{ok: true}`."""
        assert self._socket is not None
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(f"42{number}{json.dumps([event, *arguments])}")
        try:
            (result,) = await asyncio.wait_for(answer, _CALL_TIMEOUT_S)
        finally:
            del self._waiting[number]
        if not result.get("ok"):
            raise RuntimeError(f"Kuma refused {event}: {result.get('msg')}")

    async def _read(self, incoming: aiohttp.ClientWebSocketResponse) -> None:
        async for message in incoming:
            text = message.data
            if not isinstance(text, str):
                continue
            if text == "2":
                await incoming.send_str("3")
            elif text.startswith("43"):
                digits = "".join(itertools.takewhile(str.isdigit, text[2:]))
                waiting = self._waiting.get(int(digits))
                if waiting is not None and not waiting.done():
                    waiting.set_result(json.loads(text[2 + len(digits) :]))
            elif text.startswith("42"):
                self._greeted.set()


async def wait_until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Look every 20 ms; TimeoutError when it never comes true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@functools.cache
def _admin_password() -> str:
    return secrets.token_urlsafe(12)


@functools.cache
def _hashes(*clear: str) -> list[str]:
    """bcrypt hashes, made by Kuma's own library."""
    script = (
        "const bcrypt = require('bcryptjs');"
        "for (const text of process.argv.slice(1)) console.log(bcrypt.hashSync(text, 10));"
    )
    done = subprocess.run(
        [_node(), "-e", script, "--", *clear], cwd=KUMA, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        raise KumaDidNotStart("node is not installed")
    return node


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
