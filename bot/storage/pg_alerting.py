"""Decisions, receipts and incidents in PostgreSQL, by way of its functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from bot.core.incident import Incident
from bot.storage.pg_call import Calls
from bot.storage.pg_rows import values, wire, write
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
    outbox_row,
    public_time,
    state_row,
    to_card,
    to_incident,
    to_outbox,
    to_state,
)
from bot.storage.store import AlertingState, Decision, Receipt


class AlertingVerbs(Calls):
    """What `store.Store` promises about alerts."""

    async def record_decision(self, decision: Decision) -> None:
        incidents = wire(INCIDENT_COLUMNS, map(incident_row, decision.incidents))
        items = wire(OUTBOX_COLUMNS, map(outbox_row, decision.outbox))
        for row in incidents:
            row["metrics_snapshot"] = decision.metrics_snapshot
        for row in items:
            # Older than whatever delivery has noted: a decision told again changes no item.
            row["revision"] = 0
        await write(
            self,
            states_removed=[
                {"rule_name": clean(rule_name), "subject": clean(subject)}
                for rule_name, subject in decision.forgotten
            ],
            states=wire(STATE_COLUMNS, map(state_row, decision.states)),
            flips=wire(FLIP_COLUMNS, map(flip_row, decision.flips)),
            incidents=incidents,
            outbox=items,
        )

    async def record_receipt(self, receipt: Receipt) -> None:
        await write(
            self,
            cards=wire(CARD_COLUMNS, map(card_row, receipt.cards)),
            outbox=wire(OUTBOX_COLUMNS, map(outbox_row, receipt.outbox)),
        )

    async def load_alerting(self) -> AlertingState:
        found = await self.call("load_alerting")
        return AlertingState(
            states=[to_state(row) for row in values(STATE_COLUMNS, found["states"])],
            incidents=_incidents(found["incidents"]),
            cards=[to_card(row) for row in values(CARD_COLUMNS, found["cards"])],
            outbox=[to_outbox(row) for row in values(OUTBOX_COLUMNS, found["outbox"])],
        )

    async def incidents(
        self, since_at: datetime, limit: int, service_id: str | None = None
    ) -> list[Incident]:
        subject = None if service_id is None else clean(service_id)
        since = public_time(since_at)
        return _incidents(await self.call("incidents", since=since, limit=limit, subject=subject))

    async def open_incidents(self) -> list[Incident]:
        return _incidents(await self.call("open_incidents"))


def _incidents(rows: Iterable[Mapping[str, object]]) -> list[Incident]:
    found = (to_incident(row) for row in values(INCIDENT_COLUMNS, rows))
    return [incident for incident in found if incident is not None]
