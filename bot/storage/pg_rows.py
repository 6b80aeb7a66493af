"""Between rows as SQLite keeps them and rows that travel to PostgreSQL's functions and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from bot.storage.pg_call import Calls
from bot.storage.sqlite_rows import Row

_JSON = frozenset(("detail", "terms", "incident_ids"))

Rows = list[dict[str, object]]


async def write(calls: Calls, **groups: Rows) -> None:
    """Store rows by kind, in the order given, all of them or nothing."""
    facts = [{"kind": kind, "rows": rows} for kind, rows in groups.items() if rows]
    if facts:
        await calls.call("write", facts=facts)


def wire(columns: Sequence[str], rows: Iterable[Row]) -> Rows:
    """Rows of alerting by column, with JSON as values instead of text."""
    return [
        {
            column: json.loads(str(value)) if column in _JSON else value
            for column, value in zip(columns, row, strict=True)
        }
        for row in rows
    ]


def values(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> list[list[object]]:
    """Rows that came back, ready for the readers of `sqlite_rows`."""
    return [[row[column] for column in columns] for row in rows]
