"""Decisions, receipts and incidents in SQLite. Everything here runs in a database thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from bot.core.incident import Incident
from bot.storage.sqlite_rows import (
    CARD_COLUMNS,
    FLIP_COLUMNS,
    INCIDENT_COLUMNS,
    OUTBOX_COLUMNS,
    STATE_COLUMNS,
    card_row,
    clean,
    flip_row,
    incident_row,
    insert,
    json_text,
    outbox_row,
    overwrite,
    state_row,
    to_card,
    to_incident,
    to_outbox,
    to_state,
)
from bot.storage.store import AlertingState, Decision, Receipt

_UPSERT_STATE = insert(
    "alert_states",
    STATE_COLUMNS,
    "rule_name, subject",
    overwrite(STATE_COLUMNS, "rule_name", "subject"),
)
_INSERT_FLIP = insert("flips", FLIP_COLUMNS, "flip_id")
_UPSERT_INCIDENT = (
    insert(
        "alert_history",
        (*INCIDENT_COLUMNS, "metrics_snapshot"),
        "id",
        overwrite(INCIDENT_COLUMNS, "id"),
    )
    + " WHERE excluded.version >= alert_history.version"
)
_INSERT_OUTBOX = insert("outbox", OUTBOX_COLUMNS, "outbox_id")
# What was delivered or dropped never goes back into the queue.
_UPSERT_OUTBOX = (
    insert("outbox", OUTBOX_COLUMNS, "outbox_id", overwrite(OUTBOX_COLUMNS, "outbox_id"))
    + " WHERE outbox.status = 'queued' OR excluded.status <> 'queued'"
)
_UPSERT_CARD = insert("cards", CARD_COLUMNS, "card_id", overwrite(CARD_COLUMNS, "card_id"))

_SELECT_INCIDENTS = f"SELECT {', '.join(INCIDENT_COLUMNS)} FROM alert_history "
_SELECT_CARDS = f"SELECT {', '.join(CARD_COLUMNS)} FROM cards "
_SELECT_OUTBOX = f"SELECT {', '.join(OUTBOX_COLUMNS)} FROM outbox "

_UNFINISHED_CARDS = """
closed_at IS NULL
OR card_id IN (SELECT card_id FROM outbox WHERE status = 'queued')
OR (EXISTS (SELECT 1 FROM outbox WHERE status = 'queued') AND EXISTS (
    SELECT 1 FROM json_each(cards.incident_ids) AS e
    WHERE e.value IN (SELECT incident_id FROM outbox WHERE status = 'queued')))
"""


def record_decision(db: sqlite3.Connection, decision: Decision) -> None:
    db.executemany(
        "DELETE FROM alert_states WHERE rule_name = ? AND subject = ?",
        [(clean(rule_name), clean(subject)) for rule_name, subject in decision.forgotten],
    )
    db.executemany(_UPSERT_STATE, map(state_row, decision.states))
    db.executemany(_INSERT_FLIP, map(flip_row, decision.flips))
    if decision.incidents:
        snapshot = json_text(decision.metrics_snapshot)
        rows = ((*incident_row(incident), snapshot) for incident in decision.incidents)
        db.executemany(_UPSERT_INCIDENT, rows)
    db.executemany(_INSERT_OUTBOX, map(outbox_row, decision.outbox))


def record_receipt(db: sqlite3.Connection, receipt: Receipt) -> None:
    db.executemany(_UPSERT_CARD, map(card_row, receipt.cards))
    db.executemany(_UPSERT_OUTBOX, map(outbox_row, receipt.outbox))


def load(db: sqlite3.Connection) -> AlertingState:
    """Needs an unchanging view of the database: four queries that belong together."""
    states = db.execute(
        f"SELECT {', '.join(STATE_COLUMNS)} FROM alert_states ORDER BY rule_name, subject"
    )
    queued = db.execute(_SELECT_OUTBOX + "WHERE status = 'queued' ORDER BY position")
    cards = db.execute(_SELECT_CARDS + f"WHERE {_UNFINISHED_CARDS} ORDER BY opened_at, card_id")
    spoken_of = _SELECT_INCIDENTS + (
        "WHERE resolved = 0 "
        "OR id IN (SELECT incident_id FROM outbox WHERE status = 'queued') "
        "OR id IN (SELECT e.value FROM cards, json_each(cards.incident_ids) AS e "
        f"WHERE {_UNFINISHED_CARDS}) ORDER BY timestamp, rowid"
    )
    return AlertingState(
        states=[to_state(row) for row in states],
        incidents=_incidents(db.execute(spoken_of)),
        cards=[to_card(row) for row in cards],
        outbox=[to_outbox(row) for row in queued],
    )


def open_incidents(db: sqlite3.Connection) -> list[Incident]:
    query = _SELECT_INCIDENTS + "WHERE resolved = 0 ORDER BY timestamp DESC, rowid DESC"
    return _incidents(db.execute(query))


def incidents(
    db: sqlite3.Connection, since: str, limit: int, subject: str | None
) -> list[Incident]:
    only = "" if subject is None else "AND subject = ? "
    parameters = (since, limit) if subject is None else (since, clean(subject), limit)
    query = f"WHERE timestamp >= ? {only}ORDER BY timestamp DESC, rowid DESC LIMIT ?"
    return _incidents(db.execute(_SELECT_INCIDENTS + query, parameters))


def _incidents(rows: Iterable[tuple[object, ...]]) -> list[Incident]:
    return [incident for row in rows if (incident := to_incident(row)) is not None]
