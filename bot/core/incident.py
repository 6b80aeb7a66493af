"""Incidents, the cards that tell them, and the outbox between deciding and telling."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from uuid import UUID

from bot.core.alert import Detail, Ending, FlipKind
from bot.core.rule import Severity


@dataclass(frozen=True, slots=True)
class Incident:
    """One row of `alert_history`, from firing to its end; `message` is text for SQL readers."""

    incident_id: UUID
    rule_name: str
    subject: str
    severity: Severity
    category: str
    scope: str
    metric: str
    level: float
    fired_at: datetime
    value: float | None = None
    status: str = ""
    message: str = ""
    resolved_at: datetime | None = None
    ending: Ending | None = None
    unknown_s: float = 0.0
    silent: bool = False
    detail: Detail = field(default_factory=dict)
    version: int = 1


class OutboxStatus(Enum):
    """QUEUED waits; DELIVERED was accepted by Discord; DROPPED can never be (reason kept)."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One flip that one destination must be told of.

    `guild_id` is None for the fallback webhook. `attempted_at` is set before the first send of
    its *own* message (a reply), so that a crash in between is known of.
    """

    outbox_id: UUID
    flip_id: UUID
    incident_id: UUID
    kind: FlipKind
    guild_id: str | None
    channel_id: str
    created_at: datetime
    status: OutboxStatus = OutboxStatus.QUEUED
    card_id: UUID | None = None
    attempted_at: datetime | None = None
    attempts: int = 0
    last_error: str | None = None
    delivered_at: datetime | None = None
    reply_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One message in one channel that tells one incident, or the many of a storm.

    `message_id` is None until Discord has accepted it; with `attempted_at` set it may be there
    already: look before sending again. `marker` is short, unique and visible in the footer.
    """

    card_id: UUID
    marker: str
    guild_id: str | None
    channel_id: str
    opened_at: datetime
    incident_ids: tuple[UUID, ...]
    is_storm: bool = False
    message_id: str | None = None
    attempted_at: datetime | None = None
    folded_at: datetime | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GuildConfig:
    """What one guild chose with /monitoring_setup."""

    guild_id: str
    alert_channel_id: str
    created_at: datetime
    updated_at: datetime
    locale: str | None = None
