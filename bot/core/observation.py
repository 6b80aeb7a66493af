"""What was seen: monitors, their status, and where a look came from.

Everything here is a value. Nothing reads a clock, a file or a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class MonitorStatus(Enum):
    """How a monitor stands. UNKNOWN is a state of its own, never "up" and never "down"."""

    UP = "up"
    DOWN = "down"
    PENDING = "pending"
    MAINTENANCE = "maintenance"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MonitorIdentity:
    """Who a monitor is; equal between polls, so parsers may share one object for many polls.

    `key` is distinct per monitor and stable: "<instance>:<id>" when Kuma gives an id
    (2.0.0-beta.4 and later, status pages), else "<instance>:~<12 hex digits>" made from
    name, type, url, hostname and port (1.23 has no id, so twins with equal labels are one).
    `url`, `hostname` and `port` are None where Kuma writes "null", "" or a bare "https://".
    `tags` maps tag name (as Kuma's label says it) to value, "" for a tag without value.
    """

    key: str
    name: str
    monitor_type: str | None = None
    url: str | None = None
    hostname: str | None = None
    port: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonitorReading:
    """One look at one monitor. None is "not told", never zero.

    `response_time_ms` is None when nothing answered (Kuma writes -1).
    `uptime_ratio_1d` is Kuma's own figure, 0 to 1 (2.1 and later).
    """

    identity: MonitorIdentity
    status: MonitorStatus
    response_time_ms: float | None = None
    cert_days_remaining: float | None = None
    cert_is_valid: bool | None = None
    uptime_ratio_1d: float | None = None


@dataclass(frozen=True, slots=True)
class KumaReport:
    """One complete look at one Kuma: every monitor it told of, in its order.

    `version` is None where the source does not say (the public status page).
    `skipped` counts series that made no sense and were left out; the rest stand.
    """

    instance: str
    monitors: tuple[MonitorReading, ...]
    version: str | None = None
    skipped: int = 0


class PollProblem(Enum):
    """Why a poll of Kuma gave nothing; each has one plain sentence in the locale tables."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    NOT_KUMA = "not_kuma"
    SERVER_ERROR = "server_error"
    INCOMPLETE = "incomplete"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at machine and bot.

    `values` maps reading names (see `readings.READINGS`) to numbers; a reading that could
    not be taken is None. `labelled` holds readings that need a label, e.g. per shard.
    """

    at: datetime
    bot_id: str
    values: Mapping[str, float | None]
    status: str = "online"
    labelled: tuple[tuple[str, Mapping[str, str], float], ...] = ()
