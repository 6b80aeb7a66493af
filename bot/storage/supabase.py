"""Store in Supabase over PostgREST; the only place that knows the supabase package, loaded when
chosen.

Its client hides the HTTP status and takes a login page for success (seen with 2.34.1), so it
gets an HTTP client of ours that looks at every answer first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bot.storage import pg_errors
from bot.storage.pg_store import TIMEOUT_S, PgStore, from_json
from bot.storage.store import StoreError, StoreUnavailable

if TYPE_CHECKING:
    import httpx
    import supabase

CONNECT_TIMEOUT_S: Final = 5.0
_PATIENCE: Final = 3.0
"""An answer may come in pieces, each of them in time; all of it gets so many times as long."""


class SupabaseStore(PgStore):
    """See `pg_store.PgStore`. `key` is a secret (`sb_secret_…`) or a service_role key."""

    def __init__(
        self, url: str, key: str, *, bot_id: str = "primary", timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__(urlsplit(url).netloc, bot_id)
        self._url = url
        self._key = key
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None
        self._client: supabase.AsyncClient | None = None
        self._date: str | None = None

    async def server_time(self) -> datetime | None:
        """By the Date header of a fresh answer: to the second."""
        await self._schema_number()
        try:
            return parsedate_to_datetime(self._date or "").astimezone(UTC)
        except ValueError:
            return None

    async def _connect(self) -> None:
        with _translated():
            self._http = await asyncio.to_thread(self._load)
            import supabase

            options = supabase.AsyncClientOptions(
                httpx_client=self._http,
                auto_refresh_token=False,
                persist_session=False,
                postgrest_client_retry=False,
            )
            self._client = await supabase.acreate_client(self._url, self._key, options)

    def _load(self) -> httpx.AsyncClient:
        """In a thread: importing and reading certificates takes a quarter of a second."""
        import httpx
        import supabase  # noqa: F401

        timeout = httpx.Timeout(self._timeout_s, connect=min(CONNECT_TIMEOUT_S, self._timeout_s))
        return httpx.AsyncClient(timeout=timeout, event_hooks={"response": [self._look]})

    async def _disconnect(self) -> None:
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.aclose()

    async def _send(self, verb: str, arguments: str) -> Any:
        # The client's own `rpc` makes and reads JSON on the loop: 25 ms for a batch of the copier.
        api = self._ready().postgrest
        with _translated():
            async with asyncio.timeout(self._timeout_s * _PATIENCE):
                answer = await api.session.post(
                    str(api.base_url.joinpath("rpc", f"comet_{verb}")),
                    content=f'{{"p":{arguments}}}'.encode(),
                    headers={**api.headers, "Content-Type": "application/json"},
                )
                try:
                    found = await from_json(answer.text)
                except ValueError as error:
                    raise StoreUnavailable("odd", "no JSON") from error
        if isinstance(found, str):
            raise StoreUnavailable("odd", "a mere text, as no verb answers")
        return found

    async def _schema_number(self) -> int:
        table = self._ready().table("comet_migrations")
        query = table.select("number").order("number", desc=True).limit(1)
        try:
            with _translated():
                async with asyncio.timeout(self._timeout_s * _PATIENCE):
                    rows: Any = (await query.execute()).data
            return int(rows[0]["number"]) if rows else 0
        except StoreUnavailable as error:
            if error.reason == "schema":
                return 0
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise StoreUnavailable("odd", "no number of a migration") from error

    def _ready(self) -> supabase.AsyncClient:
        if self._client is None:
            raise StoreUnavailable("closed")
        return self._client

    async def _look(self, answer: httpx.Response) -> None:
        """Raise StoreError for whatever is not PostgREST's own good answer."""
        await answer.aread()
        self._date = answer.headers.get("date")
        is_json = "json" in answer.headers.get("content-type", "")
        if answer.status_code == 200 and is_json:
            return
        if answer.is_success:
            raise StoreUnavailable("odd", f"HTTP {answer.status_code}, no JSON")
        code, message = None, ""
        if is_json:
            try:
                body = answer.json()
                code, message = body.get("code"), str(body.get("message", ""))
            except (ValueError, AttributeError):
                is_json = False
        known = code if isinstance(code, str) else None
        raise pg_errors.from_http(answer.status_code, known, message, is_json=is_json)


@contextmanager
def _translated() -> Iterator[None]:
    """Every error of the client's as a StoreError."""
    try:
        yield
    except StoreError:
        raise
    except (TimeoutError, ImportError) as error:
        raise pg_errors.away(error) from error
    except Exception as error:
        # httpx, postgrest and supabase are not imported here, so they are known by their names.
        package = type(error).__module__.partition(".")[0]
        if package == "httpx" and "Timeout" in type(error).__name__:
            raise pg_errors.away(error) from error
        if package in ("httpx", "httpcore"):
            raise pg_errors.Dropped(error) from error
        if package in ("postgrest", "supabase"):
            raise StoreUnavailable("odd", type(error).__name__) from error
        raise
