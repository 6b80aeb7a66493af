"""One gateway socket: framing, transport compression, order of sending, the client's pace.

`compress=zlib-stream` and `zstd-stream` are streams over the whole connection, each message
flushed ("Transport Compression" on the gateway page). Limits from the same page: payloads of
4096 bytes, 120 events in 60 s, heartbeats in time.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import WSMsgType, web

from .faults import reset_connection

PAYLOAD_LIMIT_BYTES = 4096
EVENTS_PER_MINUTE = 120


class UnsupportedCompression(ValueError):
    """The client asked for a compression this peer cannot speak."""


def _packer(kind: str | None) -> Callable[[bytes], bytes] | None:
    if kind is None:
        return None
    if kind == "zlib-stream":
        stream = zlib.compressobj()
        return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    if kind == "zstd-stream":
        try:
            zstandard = importlib.import_module("zstandard")
        except ImportError:
            raise UnsupportedCompression("zstd-stream needs the zstandard package here") from None
        packer = zstandard.ZstdCompressor().compressobj()
        return lambda data: packer.compress(data) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    raise UnsupportedCompression(f"unknown compression {kind!r}")


class Connection:
    """A websocket to one client. `client_close_code` is set once the client has closed."""

    def __init__(self, request: web.Request, heartbeat_interval_s: float) -> None:
        self.socket = web.WebSocketResponse(autoclose=True, max_msg_size=0, compress=False)
        self.client_close_code: int | None = None
        self._request = request
        self._pack = _packer(request.query.get("compress"))
        self._outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._patience_s = heartbeat_interval_s * 2 + 5
        self._last_heartbeat = time.monotonic()
        self._events: deque[float] = deque()
        self._closing = False

    async def open(self) -> None:
        await self.socket.prepare(self._request)
        self._writer = asyncio.create_task(self._write())

    def send(self, op: int, data: Any, *, seq: int | None = None, event: str | None = None) -> None:
        """Queue one payload; payloads leave in the order of these calls."""
        text = json.dumps({"t": event, "s": seq, "op": op, "d": data})
        self._outbox.put_nowait(text.encode())

    async def _write(self) -> None:
        while True:
            data = await self._outbox.get()
            if data is None:
                return
            try:
                if self._pack is None:
                    await self.socket.send_str(data.decode())
                else:
                    await self.socket.send_bytes(self._pack(data))
            except ConnectionError:
                return

    async def messages(self) -> AsyncIterator[tuple[Any, Any]]:
        """(op, d) of each payload until the socket ends; bad payloads close it."""
        while not self.socket.closed:
            left_s = self._last_heartbeat + self._patience_s - time.monotonic()
            try:
                frame = await self.socket.receive(timeout=max(left_s, 0.01))
            except TimeoutError:
                await self.close(4009)
                return
            if frame.type is WSMsgType.CLOSE:
                self.client_close_code = None if self._closing else frame.data
                return
            if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            payload = self._decode(frame.data)
            if payload is None:
                await self.close(4002)
                return
            if payload.get("op") == 1:
                self._last_heartbeat = time.monotonic()
            if self._too_many():
                await self.close(4008)
                return
            yield payload.get("op"), payload.get("d")

    def _decode(self, data: str | bytes) -> dict[str, Any] | None:
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > PAYLOAD_LIMIT_BYTES:
            return None
        try:
            payload = json.loads(raw)
        except ValueError:
            return None
        return payload if isinstance(payload, dict) else None

    def _too_many(self) -> bool:
        now = time.monotonic()
        self._events.append(now)
        while self._events[0] < now - 60:
            self._events.popleft()
        return len(self._events) > EVENTS_PER_MINUTE

    async def close(self, code: int) -> None:
        """Close with a code, after what is queued."""
        self._closing = True
        await self._stop_writer()
        await self.socket.close(code=code)

    def cut(self) -> None:
        """Drop the TCP connection without a close frame."""
        self._closing = True
        reset_connection(self._request)

    async def finish(self) -> None:
        """Leave no task behind."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _stop_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._outbox.put_nowait(None)
            await asyncio.wait([self._writer], timeout=1.0)
