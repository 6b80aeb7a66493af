"""Misfortunes on request: errors, silence, resets, lost answers, slowness.

None of this is Discord's documented behaviour; all of it happens on a network to it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web


class FaultKind(Enum):
    STATUS = "status"  # answered with an error, nothing done
    HANG = "hang"  # never answered, nothing done
    RESET = "reset"  # connection reset, nothing done
    LOST_ANSWER = "lost answer"  # done, then connection reset
    SLOW = "slow"  # done after a wait


@dataclass(eq=False)
class Fault:
    """One misfortune; `hits` counts how often it struck, `times=None` means until cleared."""

    kind: FaultKind
    method: str
    path: re.Pattern[str]
    times: int | None
    status: int = 500
    body: dict[str, Any] | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def clear(self) -> None:
        """Strike no more and let go of what hangs."""
        self.times = self.hits
        self.released.set()

    def matches(self, method: str, path: str) -> bool:
        if self.times is not None and self.hits >= self.times:
            return False
        return self.method in ("*", method) and self.path.search(path) is not None


class Faults:
    """The misfortunes in force; the first that matches a request strikes."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(
        self, kind: FaultKind, method: str, path_regex: str, times: int | None, **more: Any
    ) -> Fault:
        fault = Fault(kind, method.upper(), re.compile(path_regex), times, **more)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        for fault in self._faults:
            fault.clear()
        self._faults.clear()

    def release(self) -> None:
        """Let go of what hangs, as the peer stops; faults stay in force."""
        for fault in self._faults:
            fault.released.set()
            fault.released = asyncio.Event()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that hits this request, already counted; None for good luck."""
        for fault in self._faults:
            if fault.matches(method, path):
                fault.hits += 1
                return fault
        return None


def reset_connection(request: web.Request) -> None:
    """Cut the TCP connection with a RST, so that the client sees «connection reset»."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
