"""Monitors, their changes and their polls in PostgreSQL, by way of its functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from bot.core.observation import MonitorIdentity, MonitorStatus
from bot.storage.pg_call import Calls
from bot.storage.pg_rows import Rows, write
from bot.storage.poll_codec import STATUS_CODES, tenths
from bot.storage.sqlite_packed import roster_id
from bot.storage.sqlite_rows import (
    clean,
    finite,
    labels_of,
    maybe_clean,
    public_time,
    to_time,
)
from bot.storage.store import KnownMonitor, Poll, ServiceStats, StatusChange


class ServicesVerbs(Calls):
    """What `store.Store` promises about monitors."""

    async def save_poll(self, poll: Poll) -> None:
        instance = clean(poll.instance)
        checks = {clean(check.service_id): check for check in poll.checks}
        # Python and the "C" collation both order texts by code point.
        keys = sorted(checks)
        roster = roster_id(instance, keys)
        await write(
            self,
            changes=_change_rows(poll.changes),
            rosters=[{"roster_id": roster, "instance": instance, "keys": keys}],
            polls=[
                {
                    "instance": instance,
                    "at": public_time(poll.at),
                    "valid_s": round(poll.valid_s * 1000) / 1000,
                    "roster_id": roster,
                    "statuses": [STATUS_CODES[checks[key].status] for key in keys],
                    "times": [tenths(checks[key].response_time_ms) for key in keys],
                    "is_live": True,
                }
            ],
        )

    async def save_status_changes(self, changes: Sequence[StatusChange]) -> None:
        await write(self, changes=_change_rows(changes))

    async def load_monitors(self) -> list[KnownMonitor]:
        return [
            KnownMonitor(
                _identity(row["key"], row["name"], row),
                MonitorStatus(row["status"]),
                to_time(row["changed_at"]),
                to_time(row["last_seen_at"]),
            )
            for row in await self.call("load_monitors")
        ]

    async def forget_monitor(self, service_id: str) -> None:
        await self.call("forget_monitor", key=clean(service_id))

    async def service_history(
        self, service_id: str, since_at: datetime, limit: int
    ) -> list[StatusChange]:
        """Newest first. Rows written by others in words we do not know are left out."""
        key = clean(service_id)
        found = await self.call(
            "service_history", key=key, since=public_time(since_at), limit=limit
        )
        changes = []
        for row in found["changes"]:
            try:
                status, at = MonitorStatus(row["status"]), to_time(row["checked_at"])
            except ValueError:
                continue
            changes.append(
                StatusChange(
                    UUID(row["id"]),
                    _identity(key, row["service_name"], found["monitor"] or {}),
                    status,
                    at,
                    finite(row["response_time"]),
                    row["error_message"],
                )
            )
        return changes

    async def service_stats(
        self, start_at: datetime, end_at: datetime, service_id: str | None = None
    ) -> ServiceStats:
        key = None if service_id is None else clean(service_id)
        start, end = public_time(start_at), public_time(end_at)
        found = await self.call("service_stats", key=key, start=start, end=end)
        up_s, down_s, other_s = (found[name] / 1000 for name in ("up_ms", "down_ms", "other_ms"))
        window_s = (to_time(end) - to_time(start)).total_seconds()
        answered = found["answered"]
        return ServiceStats(
            service_id=service_id,
            checks=int(found["checks"]),
            up_s=up_s,
            down_s=down_s,
            other_s=other_s,
            unknown_s=max(0.0, found["monitors"] * window_s - up_s - down_s - other_s),
            mean_response_time_ms=found["times_sum"] / answered / 10 if answered else None,
        )

    async def response_times(
        self, start_at: datetime, end_at: datetime, every: int
    ) -> dict[str, list[float]]:
        start, end = public_time(start_at), public_time(end_at)
        found = await self.call("response_times", start=start, end=end, every=every)
        return {key: [time / 10 for time in times] for key, times in found.items()}


def _change_rows(changes: Sequence[StatusChange]) -> Rows:
    """Rows that also say who the monitor is: they bring it up to date."""
    return [
        {
            "id": str(change.change_id),
            "service_id": clean(change.identity.key),
            "service_name": clean(change.identity.name),
            "status": change.status.value,
            "response_time": finite(change.response_time_ms),
            "error_message": maybe_clean(change.error_message),
            "checked_at": public_time(change.at),
            "monitor": {
                "type": change.identity.monitor_type,
                "url": change.identity.url,
                "hostname": change.identity.hostname,
                "port": change.identity.port,
                "tags": change.identity.tags,
            },
        }
        for change in changes
    ]


def _identity(key: str, name: str, row: Mapping[str, Any]) -> MonitorIdentity:
    return MonitorIdentity(
        key,
        name,
        row.get("type"),
        row.get("url"),
        row.get("hostname"),
        row.get("port"),
        labels_of(row.get("tags")),
    )
