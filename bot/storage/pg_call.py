"""How the two stores on PostgreSQL speak to it: one function, one JSON argument, one JSON answer.

Every verb is a function `public.comet_<verb>(p jsonb) returns jsonb`, because PostgREST gives
one transaction per request; asyncpg calls the very same functions.
"""

from __future__ import annotations

from typing import Any, Protocol


class Calls(Protocol):
    """A connection that can call our functions. `bot_id` is whose rows are meant."""

    bot_id: str

    async def call(self, verb: str, /, **arguments: object) -> Any:
        """The answer of `comet_<verb>`; `bot` is added to the arguments.

        Arguments are made JSON as `sqlite_rows.json_text` does it (NaN is null, no NUL, no
        half of a surrogate pair). Raises StoreUnavailable or StoreError, nothing else.
        """
