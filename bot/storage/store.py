"""What every store promises: whole facts in, whole answers out.

No SQL and no transaction leaves `bot/storage`. Identifiers are chosen by the caller before the
first attempt, so that saving the same fact twice stores it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from bot.core.alert import AlertKey, AlertState, Flip
from bot.core.incident import Card, GuildConfig, Incident, OutboxItem
from bot.core.observation import MonitorIdentity, MonitorStatus, Sample
from bot.storage.kinds import Cursor, FactGroup, RowPage, WireRow


class StoreError(Exception):
    """A store could not do what it was asked; `reason` is a key of the locale tables.

    `retriable` tells whether the same call may succeed later without anybody's help.
    """

    def __init__(self, reason: str, detail: str = "", *, retriable: bool) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retriable = retriable


class StoreUnavailable(StoreError):
    """Locked, full, read-only, away: keep the fact and try again.

    reason: locked, full, readonly, cantopen, io, closed; of a remote store also: away (no
    connection, time-out, 5xx, paused project), key (401: key wrong or expired), rights (403,
    42501), schema (a table, column or function is missing: its migrations are behind), odd
    (an answer that is not of the service we know).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail, retriable=True)


class StoreCorrupt(StoreError):
    """The file is damaged or not a database."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("corrupt", detail, retriable=False)


class StoreForeign(StoreError):
    """A database of somebody else's: not empty, and not ours. Nothing was written to it."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("foreign", detail, retriable=False)


class StoreTooNew(StoreError):
    """A newer version of the program wrote this database; this one must not touch it."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__("too_new", f"{found} > {known}", retriable=False)
        self.found = found
        self.known = known


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One row of `service_status_history`: first sight of a monitor, or a change of its status."""

    change_id: UUID
    identity: MonitorIdentity
    status: MonitorStatus
    at: datetime
    response_time_ms: float | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One monitor in one poll, as kept compactly for 48 hours."""

    service_id: str
    status: MonitorStatus
    response_time_ms: float | None


@dataclass(frozen=True, slots=True)
class Poll:
    """One good poll: every monitor seen, and what changed since the poll before.

    `valid_s` is how long this look may be trusted at most (two poll periods); time not covered
    by any poll is unknown time.
    """

    at: datetime
    instance: str
    valid_s: float
    checks: Sequence[CheckRow]
    changes: Sequence[StatusChange] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Flips with the states they lead to and the outbox rows they ask for: stored in one step."""

    states: Sequence[AlertState] = ()
    forgotten: Sequence[AlertKey] = ()
    flips: Sequence[Flip] = ()
    incidents: Sequence[Incident] = ()
    outbox: Sequence[OutboxItem] = ()
    metrics_snapshot: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What delivery has come to: cards as they stand now, outbox items with their new status."""

    cards: Sequence[Card] = ()
    outbox: Sequence[OutboxItem] = ()


@dataclass(frozen=True, slots=True)
class AlertingState:
    """Everything alerting needs to go on after a restart.

    `incidents`: the open ones and those an unfinished card or outbox item still speaks of.
    """

    states: Sequence[AlertState]
    incidents: Sequence[Incident]
    cards: Sequence[Card]
    outbox: Sequence[OutboxItem]


@dataclass(frozen=True, slots=True)
class KnownMonitor:
    """A monitor as last stored, for a process that starts."""

    identity: MonitorIdentity
    status: MonitorStatus
    changed_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Conversation:
    """One question and answer that another cog reported; texts are empty in mode `metadata`."""

    conversation_id: UUID
    user_id: str
    user_name: str
    prompt: str
    response: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Song:
    """One song that another cog played; in mode `metadata` nobody's name stands in it."""

    song_id: UUID
    guild_id: str
    song_title: str
    requested_by: str
    requested_by_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log record of WARNING or worse, redacted. `context` is JSON-able."""

    line_id: UUID
    level: str
    logger: str
    message: str
    context: Mapping[str, object]
    at: datetime


@dataclass(frozen=True, slots=True)
class MemberData:
    """Everything kept about one member, oldest first."""

    conversations: Sequence[Conversation]
    songs: Sequence[Song]


class MetricPoint(NamedTuple):
    """One point of a chart; a plain tuple, for charts make many of them."""

    at: datetime
    value: float


@dataclass(frozen=True, slots=True)
class LatestMetric:
    metric_name: str
    metric_value: float
    labels: Mapping[str, str]
    at: datetime


@dataclass(frozen=True, slots=True)
class MetricStats:
    """Percentiles interpolated as PostgreSQL's percentile_cont does; all None when count is 0."""

    avg_value: float | None
    min_value: float | None
    max_value: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    count: int


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """A monitor (or all, `service_id` None) over a window.

    Uptime is up_s / (up_s + down_s): unknown, pending and maintenance time is left out; None
    when neither was seen. Pending counts as neither. `mean_response_time_ms` is over answered
    checks only; None when there were none.
    """

    service_id: str | None
    checks: int
    up_s: float
    down_s: float
    other_s: float
    unknown_s: float
    mean_response_time_ms: float | None

    @property
    def uptime_ratio(self) -> float | None:
        known_s = self.up_s + self.down_s
        return self.up_s / known_s if known_s > 0 else None


class Store(Protocol):
    """One store. Every method raises StoreError (its subclasses) and nothing else of its own."""

    async def open(self) -> None:
        """Connect and bring the schema up to date. Harmless when repeated."""

    async def close(self) -> None: ...

    async def schema_version(self) -> int: ...

    async def save_sample(self, sample: Sample) -> None:
        """One snapshot; the same bot_id and time again is the same snapshot."""

    async def save_metric(
        self, metric_id: UUID, name: str, value: float, labels: Mapping[str, str], at: datetime
    ) -> None: ...

    async def save_poll(self, poll: Poll) -> None: ...

    async def save_status_changes(self, changes: Sequence[StatusChange]) -> None: ...

    async def record_decision(self, decision: Decision) -> None: ...

    async def record_receipt(self, receipt: Receipt) -> None: ...

    async def load_alerting(self) -> AlertingState: ...

    async def load_monitors(self) -> list[KnownMonitor]: ...

    async def forget_monitor(self, service_id: str) -> None:
        """Leave a monitor out of `load_monitors` until it is seen again; its history stays."""

    async def guild_configs(self) -> list[GuildConfig]: ...

    async def save_guild_config(self, config: GuildConfig) -> None: ...

    async def remove_guild_config(self, guild_id: str) -> None: ...

    async def latest_metrics(self) -> list[LatestMetric]: ...

    async def metric_series(
        self, name: str, start_at: datetime, end_at: datetime, points: int
    ) -> list[MetricPoint]:
        """At most `points` averages over equal slots of [start_at, end_at), oldest first.

        A point carries the start of its slot; slots without data are left out.
        """

    async def metric_stats(self, name: str, hours: float, now: datetime) -> MetricStats: ...

    async def incidents(
        self, since_at: datetime, limit: int, service_id: str | None = None
    ) -> list[Incident]:
        """Newest first."""

    async def open_incidents(self) -> list[Incident]: ...

    async def service_history(
        self, service_id: str, since_at: datetime, limit: int
    ) -> list[StatusChange]: ...

    async def service_stats(
        self, start_at: datetime, end_at: datetime, service_id: str | None = None
    ) -> ServiceStats: ...

    async def response_times(
        self, start_at: datetime, end_at: datetime, every: int
    ) -> dict[str, list[float]]:
        """Answered response times (ms) by service id, of each `every`-th poll, oldest first."""

    async def delete_expired(self, cutoffs: Mapping[str, datetime], limit: int) -> dict[str, int]:
        """Delete at most `limit` rows per kind older than its cut-off; how many went, by kind.

        Kinds: samples, metrics, metrics_raw, metrics_hourly, alerts, services, polls,
        conversations, music, bot_logs. Open incidents and queued outbox items always stay, and
        so does the newest poll of each instance, which says when its monitors were last seen.
        """

    async def due_hours(self, before: datetime, limit: int) -> list[datetime]:
        """Hours that ended by `before` and have rows their roll-up lacks, oldest first.

        That is every hour with rows until it is rolled up, and again when a row of it comes in
        late, whichever way.
        """

    async def save_hourly(self, hour_at: datetime) -> None:
        """Roll one full hour up into `metrics_hourly`; repeating it gives the same rows.

        Once rows of it have expired, what was rolled up while they were there stays.
        """

    async def save_daily_summary(self, day: date, summary: Mapping[str, object]) -> None:
        """This bot's summary of a local day, beside those of other bots; the last one stands."""

    async def size_bytes(self) -> int: ...

    # What other cogs report

    async def save_raw(
        self, raw_id: UUID, metric_type: str, data: Mapping[str, object], at: datetime
    ) -> None: ...

    async def save_conversation(self, conversation: Conversation) -> None: ...

    async def save_song(self, song: Song) -> None: ...

    async def save_log_lines(self, lines: Sequence[LogLine]) -> None: ...

    async def popular_songs(
        self, since_at: datetime, limit: int, guild_id: str | None = None
    ) -> list[tuple[str, int]]:
        """(song title, times played), most played first, then by title."""

    async def most_active(self, since_at: datetime, limit: int) -> list[tuple[str, str, int]]:
        """(user id, newest user name, conversations), most first, then by user id."""

    async def member_data(self, user_id: str) -> MemberData: ...

    async def delete_member_data(self, user_id: str, up_to: datetime) -> int:
        """Delete what is kept about a member up to a time; how many rows went."""

    # Rows that travel between stores

    async def export_rows(
        self,
        kind: str,
        after: Cursor | None,
        limit: int,
        *,
        since_at: datetime | None = None,
        bot_id: str | None = None,
    ) -> RowPage:
        """A page of wire rows (see `kinds`) in the kind's order, behind `after`.

        `since_at` leaves out rows older than that (kinds without a time are always whole);
        `bot_id` those of other bots.
        """

    async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
        """Take rows in, in one step; how many were new or newer than what was there.

        A row that is there already stays as it is, a changing one gives way to a higher
        revision. Raises StoreError with retriable=False when one of them can never be stored.
        """

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int: ...


@dataclass(frozen=True, slots=True)
class RemoteState:
    """What a remote store says of itself, and of this bot's streams in it.

    `position` is the last one of the stream asked for that is safely there, 0 if none; nothing of
    the bot, no stream and no revision, is above `highest_position`. `last_stream` is the one among
    the others that copied last, and `last_at` when that was.
    """

    schema_number: int
    position: int
    last_stream: UUID | None
    last_at: datetime | None
    highest_position: int = 0


class RemoteStore(Store, Protocol):
    """A store to which another one is copied."""

    async def remote_state(self, stream: UUID) -> RemoteState: ...

    async def copy(self, stream: UUID, after: int, last: int, facts: Sequence[FactGroup]) -> int:
        """Store what happened up to position `last`, all of it or nothing.

        The position that is there afterwards: `last`, unless somebody else was further already.
        Positions that are there are not written again, so that repeating is harmless. A store
        that has not got as far as `after`, which it said it had, takes nothing.
        """
