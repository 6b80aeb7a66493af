"""Rows that travel, and copying, on PostgreSQL: calls of what 0006_copying.sql and the tables'
own migrations define."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from uuid import UUID

from bot.storage.kinds import BY_NAME, REMOVALS, Cursor, FactGroup, RowPage, WireRow
from bot.storage.migrations import latest_number
from bot.storage.pg_call import Calls
from bot.storage.sqlite_rows import exact_time, maybe_time
from bot.storage.store import RemoteState, StoreError


class TravelVerbs(Calls):
    """See `store.RemoteStore` for the promises."""

    async def export_rows(
        self,
        kind: str,
        after: Cursor | None,
        limit: int,
        *,
        since_at: datetime | None = None,
        bot_id: str | None = None,
    ) -> RowPage:
        answer = await self.call(
            f"export_{_known(kind)}",
            after=after,
            limit=max(1, limit),
            since=None if since_at is None else exact_time(since_at),
            only_bot=bot_id,
        )
        return RowPage(answer["rows"], answer["next"])

    async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
        answer = await self.call(f"import_{_known(kind)}", rows=list(rows))
        return int(answer["taken"])

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int:
        return int(await self.call("count", kind=_known(kind), only_bot=bot_id))

    async def remote_state(self, stream: UUID) -> RemoteState:
        answer = await self.call("remote_state", stream=str(stream))
        last = answer["last_stream"]
        return RemoteState(
            schema_number=int(answer["schema_number"]),
            position=int(answer["position"]),
            last_stream=None if last is None else UUID(last),
            last_at=maybe_time(answer["last_at"]),
            highest_position=int(answer["highest_position"]),
        )

    async def copy(self, stream: UUID, after: int, last: int, facts: Sequence[FactGroup]) -> int:
        answer = await self.call(
            "copy",
            stream=str(stream),
            after=after,
            last=last,
            schema=_schema(),
            facts=[{"kind": fact.kind, "rows": fact.rows} for fact in facts],
        )
        return int(answer["position"])


@cache
def _schema() -> int:
    return latest_number("postgres")


def _known(kind: str) -> str:
    if kind not in BY_NAME and kind not in REMOVALS:
        raise StoreError("refused", f"unknown kind: {kind}", retriable=False)
    return kind
