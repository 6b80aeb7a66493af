"""The table of readings: name, unit, how to read, how it is kept and shown.

A new reading is one row here, one key per language (`reading.<name>`) and one test. A row with
a `column` has a column of its own in `system_stats`; a row without one travels in the snapshot's
extras, unless it `is_derived` from others and so is made for the rules only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """Units as people read them; the locale tables hold their spelling."""

    PERCENT = "percent"
    MEGABYTES = "megabytes"
    BYTES = "bytes"
    MILLISECONDS = "milliseconds"
    SECONDS = "seconds"
    COUNT = "count"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class HostLook:
    """The machine. Percent 0 to 100; byte counts since the previous look; None = not read."""

    cpu_percent: float | None = None
    memory_percent: float | None = None
    swap_percent: float | None = None
    disk_percent: float | None = None
    network_rx_bytes: float | None = None
    network_tx_bytes: float | None = None
    load_1m: float | None = None
    load_5m: float | None = None
    load_15m: float | None = None
    disk_free_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class ProcessLook:
    """This process. `cpu_percent` is of one core; bytes resident and resident-anonymous."""

    cpu_percent: float | None = None
    rss_bytes: float | None = None
    heap_bytes: float | None = None
    threads: float | None = None
    open_files: float | None = None
    uptime_s: float | None = None
    loop_lag_p99_ms: float | None = None
    loop_lag_max_ms: float | None = None
    missed_ticks: float | None = None
    task_lateness_max: float | None = None


@dataclass(frozen=True, slots=True)
class DiscordLook:
    """The Discord side; every field None without a token. `gateway_ping_ms` is the worst shard."""

    gateway_ping_ms: float | None = None
    away_s: float | None = None
    degradation: float | None = None
    reconnects: float | None = None
    guilds: float | None = None
    users: float | None = None
    channels: float | None = None
    shard_ping_ms: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class CommandLook:
    """Slash commands: totals since start; rate and latencies over the last five minutes."""

    count: float | None = None
    errors: float | None = None
    error_percent: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceLook:
    """Sources, stores and delivery. `kuma_staleness` is age over its limit: 1 is unreachable."""

    kuma_age_s: float | None = None
    kuma_staleness: float | None = None
    monitors_up: float | None = None
    monitors_down: float | None = None
    monitors_unknown: float | None = None
    store_failing_s: float | None = None
    store_queue: float | None = None
    remote_away_s: float | None = None
    outbox_queued: float | None = None
    outbox_age_s: float | None = None
    web_auth_failures_1m: float | None = None


@dataclass(frozen=True, slots=True)
class Looks:
    """Everything one snapshot is made of."""

    host: HostLook = HostLook()
    process: ProcessLook = ProcessLook()
    discord: DiscordLook = DiscordLook()
    commands: CommandLook = CommandLook()
    services: ServiceLook = ServiceLook()


@dataclass(frozen=True, slots=True)
class ReadingSpec:
    """One row: `name` in rules and `system_metrics`, `column` in `system_stats`.

    `quantum` is the finest step kept on disk, in `unit`.
    """

    name: str
    unit: Unit
    column: str | None
    quantum: float
    read: Callable[[Looks], float | None]
    is_derived: bool = False


_MB = 1024 * 1024


def _megabytes(value: float | None) -> float | None:
    return None if value is None else value / _MB


READINGS: tuple[ReadingSpec, ...] = (
    ReadingSpec("cpu_usage", Unit.PERCENT, "cpu_usage", 0.01, lambda s: s.host.cpu_percent),
    ReadingSpec("memory_usage", Unit.PERCENT, "ram_usage", 0.01, lambda s: s.host.memory_percent),
    ReadingSpec("swap_usage", Unit.PERCENT, "swap_usage", 0.01, lambda s: s.host.swap_percent),
    ReadingSpec("disk_usage", Unit.PERCENT, "disk_usage", 0.01, lambda s: s.host.disk_percent),
    ReadingSpec(
        "disk_free",
        Unit.BYTES,
        None,
        1,
        lambda s: s.host.disk_free_bytes,
        is_derived=True,
    ),
    ReadingSpec("network_rx", Unit.BYTES, "network_rx", 1, lambda s: s.host.network_rx_bytes),
    ReadingSpec("network_tx", Unit.BYTES, "network_tx", 1, lambda s: s.host.network_tx_bytes),
    ReadingSpec("load_average_1m", Unit.RATIO, "load_average_1m", 0.01, lambda s: s.host.load_1m),
    ReadingSpec("load_average_5m", Unit.RATIO, "load_average_5m", 0.01, lambda s: s.host.load_5m),
    ReadingSpec(
        "load_average_15m", Unit.RATIO, "load_average_15m", 0.01, lambda s: s.host.load_15m
    ),
    ReadingSpec("process_cpu", Unit.PERCENT, "process_cpu", 0.01, lambda s: s.process.cpu_percent),
    ReadingSpec(
        "memory_rss",
        Unit.MEGABYTES,
        "memory_rss",
        0.01,
        lambda s: _megabytes(s.process.rss_bytes),
    ),
    ReadingSpec(
        "memory_heap",
        Unit.MEGABYTES,
        "memory_heap",
        0.01,
        lambda s: _megabytes(s.process.heap_bytes),
    ),
    ReadingSpec("threads", Unit.COUNT, "threads", 1, lambda s: s.process.threads),
    ReadingSpec("open_files", Unit.COUNT, "open_files", 1, lambda s: s.process.open_files),
    ReadingSpec("uptime", Unit.SECONDS, "uptime", 1, lambda s: s.process.uptime_s),
    ReadingSpec(
        "loop_lag_p99", Unit.MILLISECONDS, "loop_lag_p99", 0.01, lambda s: s.process.loop_lag_p99_ms
    ),
    ReadingSpec(
        "loop_lag_max", Unit.MILLISECONDS, "loop_lag_max", 0.01, lambda s: s.process.loop_lag_max_ms
    ),
    ReadingSpec("missed_ticks", Unit.COUNT, "missed_ticks", 1, lambda s: s.process.missed_ticks),
    ReadingSpec(
        "task_lateness_max",
        Unit.RATIO,
        "task_lateness_max",
        0.01,
        lambda s: s.process.task_lateness_max,
    ),
    ReadingSpec(
        "ping_gateway", Unit.MILLISECONDS, "ping_gateway", 0.01, lambda s: s.discord.gateway_ping_ms
    ),
    ReadingSpec("discord_away", Unit.SECONDS, "discord_away", 0.1, lambda s: s.discord.away_s),
    ReadingSpec(
        "discord_degradation",
        Unit.RATIO,
        None,
        0.01,
        lambda s: s.discord.degradation,
        is_derived=True,
    ),
    ReadingSpec(
        "gateway_reconnects", Unit.COUNT, "gateway_reconnects", 1, lambda s: s.discord.reconnects
    ),
    ReadingSpec("guild_count", Unit.COUNT, "guild_count", 1, lambda s: s.discord.guilds),
    ReadingSpec("user_count", Unit.COUNT, "user_count", 1, lambda s: s.discord.users),
    ReadingSpec("channel_count", Unit.COUNT, "channel_count", 1, lambda s: s.discord.channels),
    ReadingSpec("command_count", Unit.COUNT, "command_count", 1, lambda s: s.commands.count),
    ReadingSpec("command_errors", Unit.COUNT, "command_errors", 1, lambda s: s.commands.errors),
    ReadingSpec(
        "command_error_rate",
        Unit.PERCENT,
        "command_error_rate",
        0.01,
        lambda s: s.commands.error_percent,
    ),
    ReadingSpec(
        "command_latency_p50",
        Unit.MILLISECONDS,
        "command_latency_p50",
        0.01,
        lambda s: s.commands.p50_ms,
    ),
    ReadingSpec(
        "command_latency_p95",
        Unit.MILLISECONDS,
        "command_latency_p95",
        0.01,
        lambda s: s.commands.p95_ms,
    ),
    ReadingSpec(
        "command_latency_p99",
        Unit.MILLISECONDS,
        "command_latency_p99",
        0.01,
        lambda s: s.commands.p99_ms,
    ),
    ReadingSpec("kuma_age", Unit.SECONDS, "kuma_age", 0.1, lambda s: s.services.kuma_age_s),
    ReadingSpec(
        "kuma_staleness",
        Unit.RATIO,
        None,
        0.01,
        lambda s: s.services.kuma_staleness,
        is_derived=True,
    ),
    ReadingSpec("monitors_up", Unit.COUNT, "monitors_up", 1, lambda s: s.services.monitors_up),
    ReadingSpec(
        "monitors_down", Unit.COUNT, "monitors_down", 1, lambda s: s.services.monitors_down
    ),
    ReadingSpec(
        "monitors_unknown", Unit.COUNT, "monitors_unknown", 1, lambda s: s.services.monitors_unknown
    ),
    ReadingSpec(
        "store_failing", Unit.SECONDS, "store_failing", 0.1, lambda s: s.services.store_failing_s
    ),
    ReadingSpec("store_queue", Unit.COUNT, "store_queue", 1, lambda s: s.services.store_queue),
    ReadingSpec(
        "remote_away", Unit.SECONDS, "remote_away", 0.1, lambda s: s.services.remote_away_s
    ),
    ReadingSpec(
        "outbox_queued", Unit.COUNT, "outbox_queued", 1, lambda s: s.services.outbox_queued
    ),
    ReadingSpec("outbox_age", Unit.SECONDS, "outbox_age", 0.1, lambda s: s.services.outbox_age_s),
    ReadingSpec(
        "web_auth_failures",
        Unit.COUNT,
        "web_auth_failures",
        1,
        lambda s: s.services.web_auth_failures_1m,
    ),
)

READING_BY_NAME = {spec.name: spec for spec in READINGS}


def take(looks: Looks) -> dict[str, float | None]:
    """Every reading by name; NaN and infinities (a `latency` may be either) become None."""
    values: dict[str, float | None] = {}
    for spec in READINGS:
        value = spec.read(looks)
        values[spec.name] = value if value is not None and math.isfinite(value) else None
    return values
