"""Keeping house in PostgreSQL, by way of its functions: roll-ups, retention, rounds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from bot.storage.pg_call import Calls
from bot.storage.sqlite_rows import exact_time, to_time


class HousekeepingVerbs(Calls):
    """What `store.Store` promises about hours and retention, and what only a remote store has."""

    async def due_hours(self, before: datetime, limit: int) -> list[datetime]:
        found = await self.call("due_hours", before=exact_time(before), limit=limit)
        return [to_time(hour) for hour in found]

    async def save_hourly(self, hour_at: datetime) -> None:
        await self.call("save_hourly", hour=exact_time(hour_at))

    async def delete_expired(self, cutoffs: Mapping[str, datetime], limit: int) -> dict[str, int]:
        """Of all bots that share the database."""
        times = {kind: exact_time(cutoff) for kind, cutoff in cutoffs.items()}
        found = await self.call("delete_expired", cutoffs=times, limit=limit)
        return {str(kind): int(count) for kind, count in found.items()}

    async def set_retention(self, keep: Mapping[str, timedelta]) -> None:
        """How long this bot wants rows kept; of several bots' wishes the longest counts."""
        wishes = {kind: span.total_seconds() for kind, span in keep.items()}
        await self.call("set_retention", keep=wishes)

    async def housekeeping(self) -> bool:
        """One round of some seconds at most, unless pg_cron or another bot keeps house.

        Whether there is more to do at once.
        """
        done = await self.call("housekeeping", by="bot")
        return bool(done.get("more", False))
