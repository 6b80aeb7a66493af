"""Looks at the machine and at this process through psutil. What cannot be read is None."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from bot.core.readings import HostLook, ProcessLook

T = TypeVar("T")


class HostProbe:
    """One look costs about 0.3 ms. CPU and network are differences to the look before.

    psutil's first cpu_percent is a meaningless 0.0 (no difference yet), so the first look has
    None there; likewise the first network look.
    """

    def __init__(self, disk_path: Path) -> None:
        self._disk_path = disk_path
        self._process = psutil.Process()
        self._started_s = time.monotonic()
        self._has_host = self._has_process = False
        self._network: tuple[int, int] | None = None

    def prime(self) -> None:
        """Take the base for the differences, so that the first look a second later is real."""
        _try(lambda: psutil.cpu_percent(None))
        _try(lambda: self._process.cpu_percent(None))
        self._network = self._read_network()
        self._has_host = self._has_process = True

    def host(self) -> HostLook:
        cpu = _try(lambda: psutil.cpu_percent(None))
        cpu = cpu if self._has_host else None
        self._has_host = True
        load_1m, load_5m, load_15m = _try(psutil.getloadavg) or (None, None, None)
        rx, tx = self._network_since()
        memory = _try(lambda: psutil.virtual_memory().percent)
        swap = _try(_swap_percent)
        disk = _try(lambda: psutil.disk_usage(str(self._disk_path)))
        used, free = (None, None) if disk is None else (disk.percent, float(disk.free))
        return HostLook(cpu, memory, swap, used, rx, tx, load_1m, load_5m, load_15m, free)

    def process(self) -> ProcessLook:
        process = self._process
        with process.oneshot():
            rss = _try(lambda: float(process.memory_info().rss))
            cpu = _try(lambda: process.cpu_percent(None))
            cpu = cpu if self._has_process else None
            threads = _try(lambda: float(process.num_threads()))
        files = _try(lambda: float(process.num_fds()))
        self._has_process = True
        return ProcessLook(
            cpu_percent=cpu,
            rss_bytes=rss,
            heap_bytes=_try(_anonymous_bytes),
            threads=threads,
            open_files=files,
            uptime_s=time.monotonic() - self._started_s,
        )

    def _read_network(self) -> tuple[int, int] | None:
        counters = _try(lambda: psutil.net_io_counters(nowrap=True))
        return None if counters is None else (counters.bytes_recv, counters.bytes_sent)

    def _network_since(self) -> tuple[float | None, float | None]:
        before, now = self._network, self._read_network()
        self._network = now
        if before is None or now is None or now[0] < before[0] or now[1] < before[1]:
            return None, None
        return float(now[0] - before[0]), float(now[1] - before[1])


def _swap_percent() -> float | None:
    swap = psutil.swap_memory()
    return swap.percent if swap.total else None


def _anonymous_bytes() -> float | None:
    """Resident anonymous memory, the nearest Linux has to a heap size (RssAnon, in kB)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return float(line.split()[1]) * 1024
    return None


def _try(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (OSError, psutil.Error, AttributeError, NotImplementedError, RuntimeError):
        return None
