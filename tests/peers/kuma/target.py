"""Something for a Kuma to watch: an HTTP service with a switch."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from aiohttp import web


class Target:
    """An async context manager; answers 200 at `url` until it is told otherwise."""

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.asked_at: list[float] = []
        self._status = 200
        self._delay_s = 0.0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def on(self) -> None:
        """Fine again, and at once."""
        self._status, self._delay_s = 200, 0.0

    def off(self, status: int = 503) -> None:
        """Broken: the port answers, the service does not."""
        self._status = status

    def slow(self, delay_s: float) -> None:
        """Fine, but late."""
        self._status, self._delay_s = 200, delay_s

    async def __aenter__(self) -> Target:
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
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Close the port; `start()` opens the same one again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked_at.append(time.monotonic())
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return web.Response(text="here I am\n", status=self._status)
