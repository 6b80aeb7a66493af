"""A Supabase project on loopback: its roles and keys, PostgREST, and the gateway in front."""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jwt

from tests.peers.postgres.faults import Faults
from tests.peers.postgres.gateway import Gateway, Request
from tests.peers.postgres.postgrest import Postgrest
from tests.peers.postgres.server import ADMIN, PostgresServer

_TEN_YEARS_S = 10 * 365 * 86_400


class Supabase:
    """A context manager around one database that has Supabase's world (`world.make_world`).

    `secret_key` and `publishable_key` are the new keys, `service_key` and `anon_key` the JWTs of
    old; `expired_key` is a service_role JWT that was good until an hour ago.
    """

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self._jwt_secret = secrets.token_urlsafe(32)
        now = int(time.time())
        self.service_key = self.mint({"role": "service_role"}, now, now + _TEN_YEARS_S)
        self.anon_key = self.mint({"role": "anon"}, now, now + _TEN_YEARS_S)
        self.expired_key = self.mint({"role": "service_role"}, now - 7200, now - 3600)
        self.secret_key = f"sb_secret_{_random(22)}_{_random(8)}"
        self.publishable_key = f"sb_publishable_{_random(22)}_{_random(8)}"
        self.postgrest = Postgrest(server, database, self._jwt_secret)
        self.gateway = Gateway(
            lambda: self.postgrest.port,
            {
                self.service_key: self.service_key,
                self.anon_key: self.anon_key,
                self.expired_key: self.expired_key,
                self.secret_key: self.service_key,
                self.publishable_key: self.anon_key,
            },
        )

    def __enter__(self) -> Supabase:
        try:
            self.postgrest.start()
            self.gateway.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.gateway.stop()
        self.postgrest.close()

    @property
    def url(self) -> str:
        """What SUPABASE_URL is set to."""
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def dsn(self) -> str:
        """The same database without PostgREST, as `postgres`."""
        return self.server.dsn(self.database)

    @property
    def faults(self) -> Faults:
        return self.gateway.faults

    @property
    def requests(self) -> list[Request]:
        """All that reached the gateway, oldest first; clear it as you like."""
        return self.gateway.requests

    # keys

    def mint(self, claims: Mapping[str, Any], issued: int, expires: int) -> str:
        """A JWT signed with the project's own secret."""
        payload = {"iss": "supabase", "ref": "loopback", **claims, "iat": issued, "exp": expires}
        return jwt.encode(payload, self._jwt_secret, algorithm="HS256")

    def user_key(self, claims: Mapping[str, Any] | None = None) -> str:
        """A signed-in user's token for Authorization, beside an `apikey`.

        `claims` are laid over the usual ones, such as `{"app_metadata": {"comet_role": "viewer"}}`.
        """
        now = int(time.time())
        usual = {"role": "authenticated", "aud": "authenticated", "sub": str(uuid.uuid4())}
        return self.mint({**usual, **(claims or {})}, now, now + 3600)

    def headers(self, key: str, user: str | None = None) -> dict[str, str]:
        """What supabase-py sends with this key."""
        return {"apikey": key, "Authorization": f"Bearer {user or key}"}

    # database

    def execute(self, script: str, *, user: str = "postgres") -> None:
        self.server.execute(script, database=self.database, user=user)

    def fetch(self, query: str, *values: object, user: str = "postgres") -> list[tuple[Any, ...]]:
        return self.server.fetch(query, *values, database=self.database, user=user)

    def reload_schema(self) -> None:
        """PostgREST knows every table and function as they are now."""
        self.postgrest.reload_schema()

    @contextlib.contextmanager
    def stale_cache(self) -> Iterator[None]:
        """Inside, PostgREST hears of no changes: new tables and functions are unknown to it."""
        triggers = ("pgrst_ddl_watch", "pgrst_drop_watch")
        self.execute("".join(f"alter event trigger {t} disable;" for t in triggers), user=ADMIN)
        try:
            yield
        finally:
            self.execute("".join(f"alter event trigger {t} enable;" for t in triggers), user=ADMIN)


def _random(length: int) -> str:
    return secrets.token_urlsafe(length)[:length].replace("-", "x").replace("_", "y")
