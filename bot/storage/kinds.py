"""The kinds of rows that travel between stores, and what they look like on the way.

A wire row is a JSON-able mapping: uuids and snowflakes as text, times as UTC text
`YYYY-MM-DD HH:MM:SS.ffffff` (a missing zone is UTC), JSON columns as real JSON values. The names
of its columns are those of the PostgreSQL tables, and every row names its `bot_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from bot.core.readings import READINGS

WireRow: TypeAlias = Mapping[str, object]
Cursor: TypeAlias = list[object]
"""Where a reader of rows stands: the ordering values of the last row it got. JSON-able."""


class RowPage(NamedTuple):
    """Some rows of one kind in the order of `Kind.order`; `next` is None after the last."""

    rows: list[dict[str, object]]
    next: Cursor | None


class FactGroup(NamedTuple):
    """Consecutive facts of one kind, in the order in which they happened."""

    kind: str
    rows: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of row.

    `key` identifies a row; `order` is how pages walk through them (texts by code point, times
    by time), and it ends with what makes it unique. `at` is the column that tells how old a row
    is, None for what is kept whatever its age. A changing kind carries `revision`: of two
    writes the one with the higher revision stands. `unverified` columns may rightly differ
    between two stores that hold the same row.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    order: tuple[str, ...]
    at: str | None = None
    is_changing: bool = False
    unverified: tuple[str, ...] = ()


SAMPLE_READINGS: Final = (
    *(reading.column for reading in READINGS if reading.column is not None),
    "ping_lavalink",
)
"""Columns of `system_stats` that hold a number, in the order of the table of readings."""

KINDS: Final[tuple[Kind, ...]] = (
    Kind(
        "guild_configs",
        "monitoring_config",
        ("bot_id", "guild_id", "alert_channel_id", "locale", "created_at", "updated_at"),
        ("bot_id", "guild_id"),
        ("bot_id", "guild_id"),
        is_changing=True,
    ),
    Kind(
        "monitors",
        "monitors",
        (
            "bot_id",
            "key",
            "name",
            "type",
            "url",
            "hostname",
            "port",
            "tags",
            "status",
            "changed_at",
            "last_seen_at",
            "forgotten",
        ),
        ("bot_id", "key"),
        ("bot_id", "key"),
        is_changing=True,
        unverified=("last_seen_at",),
    ),
    Kind(
        "rosters",
        "rosters",
        ("bot_id", "roster_id", "instance", "keys"),
        ("bot_id", "roster_id"),
        ("bot_id", "roster_id"),
    ),
    Kind(
        "incidents",
        "alert_history",
        (
            "bot_id",
            "id",
            "timestamp",
            "rule_name",
            "severity",
            "category",
            "message",
            "metrics_snapshot",
            "resolved",
            "resolved_at",
            "subject",
            "scope",
            "metric",
            "level",
            "value",
            "status",
            "ending",
            "unknown_s",
            "silent",
            "detail",
            "version",
        ),
        ("id",),
        ("timestamp", "id"),
        at="timestamp",
        is_changing=True,
    ),
    Kind(
        "states",
        "alert_states",
        (
            "bot_id",
            "rule_name",
            "subject",
            "fingerprint",
            "phase",
            "since_at",
            "evaluated_at",
            "severity",
            "incident_id",
            "value",
            "status",
            "data_at",
            "clear_since_at",
            "unknown_s",
            "detail",
            "hold_since_at",
            "terms",
        ),
        ("bot_id", "rule_name", "subject"),
        ("bot_id", "rule_name", "subject"),
        is_changing=True,
    ),
    Kind(
        "flips",
        "flips",
        (
            "bot_id",
            "flip_id",
            "incident_id",
            "rule_name",
            "subject",
            "kind",
            "at",
            "fired_at",
            "severity",
            "category",
            "scope",
            "metric",
            "level",
            "value",
            "status",
            "ending",
            "duration_s",
            "unknown_s",
            "silent",
            "detail",
        ),
        ("flip_id",),
        ("at", "flip_id"),
        at="at",
    ),
    Kind(
        "cards",
        "cards",
        (
            "bot_id",
            "card_id",
            "marker",
            "guild_id",
            "channel_id",
            "opened_at",
            "incident_ids",
            "is_storm",
            "message_id",
            "attempted_at",
            "folded_at",
            "closed_at",
        ),
        ("card_id",),
        ("opened_at", "card_id"),
        at="opened_at",
        is_changing=True,
    ),
    Kind(
        "outbox",
        "outbox",
        (
            "bot_id",
            "outbox_id",
            "flip_id",
            "incident_id",
            "kind",
            "guild_id",
            "channel_id",
            "created_at",
            "status",
            "card_id",
            "attempted_at",
            "attempts",
            "last_error",
            "delivered_at",
            "reply_message_id",
        ),
        ("outbox_id",),
        ("position",),
        at="created_at",
        is_changing=True,
    ),
    Kind(
        "changes",
        "service_status_history",
        (
            "bot_id",
            "id",
            "service_id",
            "service_name",
            "status",
            "response_time",
            "error_message",
            "checked_at",
        ),
        ("id",),
        ("checked_at", "id"),
        at="checked_at",
    ),
    Kind(
        "samples",
        "system_stats",
        ("bot_id", "id", "timestamp", "status", *SAMPLE_READINGS, "extra"),
        ("id",),
        ("timestamp", "bot_id"),
        at="timestamp",
    ),
    Kind(
        "metrics",
        "custom_metrics",
        ("bot_id", "id", "metric_name", "timestamp", "metric_value", "labels"),
        ("id",),
        ("metric_name", "timestamp", "id"),
        at="timestamp",
    ),
    Kind(
        "metrics_raw",
        "metrics_raw",
        ("bot_id", "id", "timestamp", "metric_type", "data"),
        ("id",),
        ("timestamp", "id"),
        at="timestamp",
    ),
    Kind(
        "metrics_hourly",
        "metrics_hourly",
        ("bot_id", "metric_name", "hour", "avg_value", "min_value", "max_value", "count"),
        ("bot_id", "metric_name", "hour"),
        ("metric_name", "hour", "bot_id"),
        at="hour",
    ),
    Kind(
        "daily_summaries",
        "daily_summaries",
        ("bot_id", "date", "summary_data"),
        ("date",),
        ("date",),
    ),
    Kind(
        "polls",
        "service_polls",
        ("bot_id", "instance", "at", "valid_s", "roster_id", "statuses", "times"),
        ("bot_id", "instance", "at"),
        ("instance", "at", "bot_id"),
        at="at",
    ),
    Kind(
        "service_hours",
        "service_hourly",
        (
            "bot_id",
            "instance",
            "hour",
            "roster_id",
            "checks",
            "up_ms",
            "down_ms",
            "other_ms",
            "answered",
            "mean_tenths",
        ),
        ("bot_id", "instance", "hour"),
        ("instance", "hour", "bot_id"),
        at="hour",
    ),
    Kind(
        "conversations",
        "conversation_logs",
        ("bot_id", "id", "user_id", "user_name", "prompt", "response", "timestamp"),
        ("id",),
        ("timestamp", "id"),
        at="timestamp",
    ),
    Kind(
        "music",
        "music_logs",
        (
            "bot_id",
            "id",
            "guild_id",
            "song_title",
            "requested_by",
            "requested_by_id",
            "timestamp",
        ),
        ("id",),
        ("timestamp", "id"),
        at="timestamp",
    ),
    Kind(
        "bot_logs",
        "bot_logs",
        ("bot_id", "id", "level", "logger", "message", "context", "timestamp"),
        ("id",),
        ("timestamp", "id"),
        at="timestamp",
    ),
)
"""In the order in which they travel: what others speak of comes first."""

BY_NAME: Final = {kind.name: kind for kind in KINDS}

REMOVALS: Final = ("states_removed", "guild_configs_removed", "member_removed")
"""Facts that take rows away; they are copied like rows but never read back.

states_removed: {bot_id, rule_name, subject}. guild_configs_removed: {bot_id, guild_id}.
member_removed: {user_id, at}: conversations and songs of that member up to that time.
"""
