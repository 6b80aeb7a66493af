"""Servers for tests: started when first asked for, one of each kind for a test process.

Every test gets a database of its own, copied from a migrated one, which takes some 50 ms, and
where it asks for Supabase a PostgREST of its own, 100 ms more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.postgres.install import MAJORS, cron_major
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import add_cron, make_world, migrate

MIGRATED = "migrated"
EMPTY = "empty"
KEPT: set[Path] = set()
"""Directories of servers that live as long as the session; their processes are no leaks."""


class Pool:
    """The servers of this session by major, and their templates."""

    def __init__(self) -> None:
        self._servers: dict[int, PostgresServer] = {}
        self._templates: set[tuple[int, str]] = set()

    def server(self, major: int) -> PostgresServer:
        """Running and not paused, whatever an earlier test did to it."""
        server = self._servers.get(major)
        if server is None:
            server = self._servers[major] = PostgresServer(major).__enter__()
            KEPT.add(server.directory)
        server.resume()
        server.start()
        return server

    def template(self, server: PostgresServer, kind: str) -> str:
        """A database to copy: Supabase's world, MIGRATED or EMPTY."""
        if (server.major, kind) not in self._templates:
            server.drop_database(kind)
            server.create_database(kind)
            make_world(server, kind)
            if kind == MIGRATED:
                migrate(server, kind)
            self._templates.add((server.major, kind))
        return kind

    def close(self) -> None:
        for server in self._servers.values():
            KEPT.discard(server.directory)
            server.close()
        self._servers.clear()


@pytest.fixture(scope="session")
def postgres_pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def postgres(postgres_pool: Pool) -> PostgresServer:
    """PostgreSQL 17, the session's own; it runs again for the next test if killed."""
    return postgres_pool.server(17)


@pytest.fixture(params=MAJORS)
def any_postgres(request: pytest.FixtureRequest, postgres_pool: Pool) -> PostgresServer:
    """The same for every major there is."""
    return postgres_pool.server(request.param)


def _copy(pool: Pool, server: PostgresServer, kind: str) -> Iterator[str]:
    name = server.create_database(template=pool.template(server, kind))
    try:
        yield name
    finally:
        server.resume()
        server.start()
        server.drop_database(name)


@pytest.fixture
def database(postgres: PostgresServer, postgres_pool: Pool) -> Iterator[str]:
    """dsn of a fresh database with all migrations."""
    for name in _copy(postgres_pool, postgres, MIGRATED):
        yield postgres.dsn(name)


@pytest.fixture
def any_database(any_postgres: PostgresServer, postgres_pool: Pool) -> Iterator[str]:
    """The same for every major there is."""
    for name in _copy(postgres_pool, any_postgres, MIGRATED):
        yield any_postgres.dsn(name)


@pytest.fixture
def empty_database(postgres: PostgresServer, postgres_pool: Pool) -> Iterator[str]:
    """dsn of a fresh database with nothing of ours in it, only Supabase's world."""
    for name in _copy(postgres_pool, postgres, EMPTY):
        yield postgres.dsn(name)


@pytest.fixture
def cron_server() -> Iterator[PostgresServer]:
    """One that lives for this test, with Supabase's world, pg_cron and our migrations in `cron`.

    Whether that pg_cron is real or noting jobs only, see `install.cron_major`.
    """
    with PostgresServer(cron_major() or 17, cron=True) as server:
        server.create_database("cron")
        make_world(server, "cron")
        add_cron(server, "cron")
        migrate(server, "cron")
        yield server


@pytest.fixture
def supabase(postgres: PostgresServer, postgres_pool: Pool) -> Iterator[Supabase]:
    """A fresh, migrated project with a gateway."""
    for name in _copy(postgres_pool, postgres, MIGRATED):
        with Supabase(postgres, name) as project:
            yield project
