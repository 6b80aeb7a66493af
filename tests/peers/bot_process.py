"""The product as a user starts it: `python -m bot run` in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent

QUIET = {
    "COMET_LOCALE": "en",
    "WEB_PORT": "0",
    "SAMPLE_INTERVAL_S": "1",
    "LOG_FORMAT": "text",
    "LOG_LEVEL": "INFO",
}
"""Settings of most tests: a free web port, and one sample a second so that nobody waits long."""


class BotProcess:
    """Start it, read its log, ask its database, pull its plug.

    Only what is needed of the outer environment is passed on, so that no variable of the
    developer's shell decides a test.
    """

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.env = {**QUIET, **(env or {})}
        self.log: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.started_s = 0.0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()
        if kind is not None:
            print(f"--- log of the bot in {self.home}\n" + "\n".join(self.log[-120:]))

    @property
    def db_path(self) -> Path:
        return self.home / self.env.get("SQLITE_DB_PATH", "data/monitoring.db")

    async def start(self, *arguments: str) -> None:
        """Start (again); returns at once."""
        self.home.mkdir(parents=True, exist_ok=True)
        passed = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        self.started_s = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot",
            *(arguments or ("run",)),
            cwd=self.home,
            env={**passed, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **self.env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._readers.append(asyncio.create_task(self._read(self.process.stdout)))

    async def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self.process is None:
            return
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await self._gone()

    async def stop(self, timeout_s: float = 10.0) -> tuple[int, float]:
        """SIGTERM; the exit code and how many seconds it took."""
        assert self.process is not None
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await self.wait_exit(timeout_s)
        return code, time.monotonic() - began_s

    async def wait_exit(self, timeout_s: float = 20.0) -> int:
        assert self.process is not None
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
        await self._gone()
        return code

    async def restart(self) -> None:
        """kill -9 and start anew."""
        await self.kill()
        await self.start()

    async def wait_log(self, pattern: str, timeout_s: float = 20.0, *, since: int = 0) -> str:
        """The first line from index `since` on that matches; fails with the log's end."""
        expression = re.compile(pattern)
        deadline_s = time.monotonic() + timeout_s
        while True:
            for line in self.log[since:]:
                if expression.search(line):
                    return line
            self._changed.clear()
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self.log[-60:]))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining_s, 1.0)):
                    await self._changed.wait()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database file as any sqlite3 would, from outside."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.db_path}?mode=ro", uri=True, timeout=5)
        ) as db:
            return db.execute(sql, values).fetchall()

    async def wait_rows(self, sql: str, *values: Any, timeout_s: float = 20.0) -> list[Any]:
        """The rows of a query, once there are any."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(sqlite3.OperationalError):
                if rows := self.query(sql, *values):
                    return rows
            if time.monotonic() > deadline_s:
                raise AssertionError(f"no rows for {sql}; log:\n" + "\n".join(self.log[-60:]))
            await asyncio.sleep(0.05)

    async def web_url(self, timeout_s: float = 20.0) -> str:
        """Where the web side listens, as the log says."""
        line = await self.wait_log(r"listens on (http://\S+)", timeout_s)
        match = re.search(r"listens on (http://[^\s/]+)", line)
        assert match is not None
        return match.group(1)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.log.append(line.decode("utf-8", "replace").rstrip("\n"))
            self._changed.set()

    async def _gone(self) -> None:
        assert self.process is not None
        await self.process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._readers.clear()
