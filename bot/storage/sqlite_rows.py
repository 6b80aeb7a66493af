"""Between Python values and what SQLite keeps: times, texts, JSON, rows of alerting."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from bot.core.alert import AlertState, Detail, Ending, Flip, FlipKind, Phase
from bot.core.incident import Card, GuildConfig, Incident, OutboxItem, OutboxStatus
from bot.core.rule import Severity
from bot.storage.kinds import BY_NAME

Row = tuple[object, ...]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_MS = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MILLISECOND
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MILLISECOND
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def to_ms(at: datetime) -> int:
    """Whole milliseconds since 1970, rounded down; exact, unlike `timestamp() * 1000`."""
    return (at - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """What lies before the year 1 (SQLite has a year 0) or behind 9999 is the nearest in them."""
    return EPOCH + timedelta(milliseconds=max(_FIRST_MS, min(ms, _LAST_MS)))


def public_time(at: datetime) -> str:
    """`YYYY-MM-DD HH:MM:SS.SSS` in UTC, as every public table has it."""
    return at.astimezone(UTC).isoformat(" ", "milliseconds")[:23]


def exact_time(at: datetime) -> str:
    """The same to the microsecond, for what must come back exactly as it went in."""
    return at.astimezone(UTC).isoformat(" ", "microseconds")[:26]


def maybe_exact(at: datetime | None) -> str | None:
    return None if at is None else exact_time(at)


def to_time(text: object) -> datetime:
    """Any ISO time, as other programs may have written it; without a zone it is UTC.

    Raises ValueError for what is none, also where its zone leads out of the years there are.
    """
    at = datetime.fromisoformat(str(text))
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time beyond all years") from error


def maybe_time(text: object) -> datetime | None:
    return None if text is None else to_time(text)


def clean(text: str) -> str:
    """Text that every database takes: no NUL, no half of a surrogate pair."""
    return _UNSTORABLE.sub("\ufffd", text)


def maybe_clean(text: str | None) -> str | None:
    return None if text is None else clean(text)


def finite(value: object) -> float | None:
    """A number that can be stored; None for NaN, infinities and numbers beyond a float."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def json_text(value: object) -> str:
    """Compact JSON that any reader accepts: NaN becomes null, odd characters are replaced."""
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int):
        # Beyond 64 bits other readers of the JSON lose digits or fail.
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return clean(str(value))


def json_map(text: object) -> dict[str, object]:
    """A JSON object, as text or read already; empty when it is missing or no object."""
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def labels_of(text: object) -> dict[str, str]:
    return {key: str(value) for key, value in json_map(text).items()}


def detail_of(text: object) -> Detail:
    return {
        key: value if value is None or isinstance(value, str | float | int | bool) else str(value)
        for key, value in json_map(text).items()
    }


def insert(table: str, columns: Sequence[str], key: str, on_conflict: str = "") -> str:
    """INSERT of all columns; without `on_conflict` a row whose key is there already stays."""
    marks = ", ".join("?" * len(columns))
    action = on_conflict or "NOTHING"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) "
        f"ON CONFLICT ({key}) DO {action}"
    )


def overwrite(columns: Sequence[str], *keep: str) -> str:
    return "UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in columns if c not in keep)


def _own(kind: str) -> tuple[str, ...]:
    """The columns of a kind in a table that is all this bot's."""
    return tuple(column for column in BY_NAME[kind].columns if column != "bot_id")


INCIDENT_COLUMNS = tuple(c for c in _own("incidents") if c != "metrics_snapshot")


def incident_row(incident: Incident) -> Row:
    return (
        str(incident.incident_id),
        public_time(incident.fired_at),
        clean(incident.rule_name),
        incident.severity.value,
        clean(incident.category),
        clean(incident.message),
        incident.resolved_at is not None,
        None if incident.resolved_at is None else public_time(incident.resolved_at),
        clean(incident.subject),
        clean(incident.scope),
        clean(incident.metric),
        finite(incident.level) or 0.0,
        finite(incident.value),
        clean(incident.status),
        None if incident.ending is None else incident.ending.value,
        finite(incident.unknown_s) or 0.0,
        incident.silent,
        json_text(incident.detail),
        incident.version,
    )


def to_incident(row: Sequence[object]) -> Incident | None:
    """An incident; None for a row that somebody else wrote in words we do not know.

    Such a row stays visible to SQL readers, but no card can be kept for it.
    """
    try:
        return Incident(
            incident_id=UUID(str(row[0])),
            fired_at=to_time(row[1]),
            rule_name=str(row[2]),
            severity=Severity(str(row[3])),
            category=str(row[4]),
            message=str(row[5]),
            resolved_at=(to_time(row[7] or row[1]) if row[6] else None),
            subject=str(row[8]),
            scope=str(row[9]),
            metric=str(row[10]),
            level=_float(row[11]),
            value=finite(row[12]),
            status=str(row[13]),
            ending=None if row[14] is None else Ending(row[14]),
            unknown_s=_float(row[15]),
            silent=bool(row[16]),
            detail=detail_of(row[17]),
            version=int(_float(row[18])),
        )
    except ValueError:
        return None


STATE_COLUMNS = _own("states")


def state_row(state: AlertState) -> Row:
    return (
        clean(state.rule_name),
        clean(state.subject),
        state.fingerprint,
        state.phase.value,
        exact_time(state.since_at),
        exact_time(state.evaluated_at),
        state.severity.value,
        _maybe_id(state.incident_id),
        finite(state.value),
        clean(state.status),
        maybe_exact(state.data_at),
        maybe_exact(state.clear_since_at),
        finite(state.unknown_s) or 0.0,
        json_text(state.detail),
        maybe_exact(state.hold_since_at),
        json_text(state.terms),
    )


def to_state(row: Sequence[object]) -> AlertState:
    return AlertState(
        rule_name=str(row[0]),
        subject=str(row[1]),
        fingerprint=str(row[2]),
        phase=Phase(row[3]),
        since_at=to_time(row[4]),
        evaluated_at=to_time(row[5]),
        severity=Severity(row[6]),
        incident_id=_maybe_uuid(row[7]),
        value=finite(row[8]),
        status=str(row[9]),
        data_at=maybe_time(row[10]),
        clear_since_at=maybe_time(row[11]),
        unknown_s=_float(row[12]),
        detail=detail_of(row[13]),
        hold_since_at=maybe_time(row[14]),
        terms=detail_of(row[15]),
    )


FLIP_COLUMNS = _own("flips")


def flip_row(flip: Flip) -> Row:
    return (
        str(flip.flip_id),
        str(flip.incident_id),
        clean(flip.rule_name),
        clean(flip.subject),
        flip.kind.value,
        exact_time(flip.at),
        exact_time(flip.fired_at),
        flip.severity.value,
        clean(flip.category),
        clean(flip.scope),
        clean(flip.metric),
        finite(flip.level) or 0.0,
        finite(flip.value),
        clean(flip.status),
        None if flip.ending is None else flip.ending.value,
        finite(flip.duration_s),
        finite(flip.unknown_s) or 0.0,
        flip.silent,
        json_text(flip.detail),
    )


OUTBOX_COLUMNS = _own("outbox")


def outbox_row(item: OutboxItem) -> Row:
    return (
        str(item.outbox_id),
        str(item.flip_id),
        str(item.incident_id),
        item.kind.value,
        item.guild_id,
        item.channel_id,
        exact_time(item.created_at),
        item.status.value,
        _maybe_id(item.card_id),
        maybe_exact(item.attempted_at),
        item.attempts,
        maybe_clean(item.last_error),
        maybe_exact(item.delivered_at),
        item.reply_message_id,
    )


def to_outbox(row: Sequence[object]) -> OutboxItem:
    return OutboxItem(
        outbox_id=UUID(str(row[0])),
        flip_id=UUID(str(row[1])),
        incident_id=UUID(str(row[2])),
        kind=FlipKind(row[3]),
        guild_id=_maybe_str(row[4]),
        channel_id=str(row[5]),
        created_at=to_time(row[6]),
        status=OutboxStatus(row[7]),
        card_id=_maybe_uuid(row[8]),
        attempted_at=maybe_time(row[9]),
        attempts=int(_float(row[10])),
        last_error=_maybe_str(row[11]),
        delivered_at=maybe_time(row[12]),
        reply_message_id=_maybe_str(row[13]),
    )


CARD_COLUMNS = _own("cards")


def card_row(card: Card) -> Row:
    return (
        str(card.card_id),
        card.marker,
        card.guild_id,
        card.channel_id,
        exact_time(card.opened_at),
        json.dumps([str(incident_id) for incident_id in card.incident_ids]),
        card.is_storm,
        card.message_id,
        maybe_exact(card.attempted_at),
        maybe_exact(card.folded_at),
        maybe_exact(card.closed_at),
    )


def to_card(row: Sequence[object]) -> Card:
    return Card(
        card_id=UUID(str(row[0])),
        marker=str(row[1]),
        guild_id=_maybe_str(row[2]),
        channel_id=str(row[3]),
        opened_at=to_time(row[4]),
        incident_ids=tuple(UUID(str(text)) for text in _json_list(row[5])),
        is_storm=bool(row[6]),
        message_id=_maybe_str(row[7]),
        attempted_at=maybe_time(row[8]),
        folded_at=maybe_time(row[9]),
        closed_at=maybe_time(row[10]),
    )


def to_guild_config(row: Sequence[object]) -> GuildConfig:
    return GuildConfig(
        guild_id=str(row[0]),
        alert_channel_id=str(row[1]),
        created_at=to_time(row[2]),
        updated_at=to_time(row[3]),
        locale=_maybe_str(row[4]),
    )


def _json_list(value: object) -> list[object]:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, list):
        raise ValueError(f"no list: {found!r}")
    return found


def _float(value: object) -> float:
    number = finite(value)
    if number is None:
        raise ValueError(f"no number: {value!r}")
    return number


def _maybe_str(value: object) -> str | None:
    return None if value is None else str(value)


def _maybe_id(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _maybe_uuid(value: object) -> UUID | None:
    return None if value is None else UUID(str(value))
