"""The database peers themselves: they start, refuse, fail and recover as the real ones do.

They must be installed (`make install-peers`); without them these tests fail.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
import pytest
import pytest_asyncio
from supabase import acreate_client

from tests.peers.postgres import install
from tests.peers.postgres.faults import AFTER_THE_FACT, HARMLESS_TO_DATA, PASSING, Fault, Faults
from tests.peers.postgres.server import PASSWORD, PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import migrations, unsafe_statements

WORLD = """
create table public.things (id int primary key, name text);
grant all on public.things to service_role;
create table public.ungranted (id int);
create table public.hidden (id int);
alter table public.hidden enable row level security;
grant select on public.hidden to anon, authenticated, service_role;
insert into public.hidden values (1);
create function public.who() returns text language sql as 'select current_user::text';
create function public.setting(name text) returns text language sql
    as 'select current_setting(name)';
create function public.viewer() returns text language sql
    as $$ select auth.jwt() -> 'app_metadata' ->> 'comet_role' $$;
"""


class Client:
    """Plain requests to one project, nothing retried."""

    def __init__(self, project: Supabase, session: aiohttp.ClientSession) -> None:
        self.project = project
        self._session = session

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and body (parsed where it is JSON), as service_role unless told otherwise."""
        if headers is None:
            headers = self.project.headers(self.project.secret_key)
        async with self._session.request(
            method,
            f"{self.project.url}/rest/v1/{path}",
            json=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=10),
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(text) if is_json and text else text

    async def add(self, number: int) -> int:
        """The status of an insert."""
        headers = self.project.headers(self.project.secret_key) | {"Prefer": "return=minimal"}
        status, _ = await self.ask("POST", "things", {"id": number}, headers)
        return status

    def stored(self) -> set[int]:
        """What is in the table, asked behind PostgREST's back."""
        return {number for (number,) in self.project.fetch("select id from public.things")}


@pytest_asyncio.fixture
async def client(supabase: Supabase) -> AsyncIterator[Client]:
    supabase.execute(WORLD)
    supabase.reload_schema()
    async with aiohttp.ClientSession() as session:
        yield Client(supabase, session)


# PostgreSQL


async def test_every_major_runs_and_its_postgres_is_no_superuser(
    any_postgres: PostgresServer,
) -> None:
    [row] = any_postgres.fetch(
        "select current_setting('server_version_num')::int / 10000, rolsuper, rolcreaterole,"
        " rolbypassrls from pg_roles where rolname = current_user"
    )
    assert row == (any_postgres.major, False, True, True)


async def test_a_wrong_password_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.dsn(password="wrong"))


async def test_a_killed_server_cuts_its_sessions_and_comes_back_with_what_was_committed(
    postgres: PostgresServer, empty_database: str
) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute("create table kept (n int); insert into kept values (1)")
    await connection.execute("begin; insert into kept values (2)")
    postgres.kill()
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("select 1")
    connection.terminate()
    with pytest.raises(OSError):
        await asyncpg.connect(empty_database)
    postgres.start()
    connection = await asyncpg.connect(empty_database)
    assert [n for (n,) in await connection.fetch("select n from kept")] == [1]
    await connection.close()


async def test_a_restarted_server_has_the_same_address(
    postgres: PostgresServer, empty_database: str
) -> None:
    [(before,)] = postgres.fetch("select pg_postmaster_start_time()")
    postgres.restart()
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("select pg_postmaster_start_time()") > before
    await connection.close()


async def test_a_paused_server_says_nothing_until_it_is_resumed(
    postgres: PostgresServer, empty_database: str
) -> None:
    connection = await asyncpg.connect(empty_database)
    postgres.pause()
    question = asyncio.create_task(connection.fetchval("select 1"))
    done, _ = await asyncio.wait([question], timeout=0.3)
    assert not done
    postgres.resume()
    assert await question == 1
    await connection.close()


async def test_with_tls_only_encrypted_connections_are_taken() -> None:
    with PostgresServer(17, tls=True) as server:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(server.dsn() + "?sslmode=disable")
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(server.dsn(), ssl=ssl.create_default_context())
        connection = await asyncpg.connect(
            server.dsn() + f"?sslmode=verify-full&sslrootcert={server.certificate}"
        )
        query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        assert await connection.fetchval(query) is True
        await connection.close()


def test_closing_leaves_no_process_and_no_file() -> None:
    with PostgresServer(17) as server:
        where = server.directory
        assert _working_in(where)
    assert not _working_in(where)
    assert not where.exists()


def test_whatever_kills_the_test_the_servers_go_too() -> None:
    script = "from tests.peers.postgres.__main__ import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "--empty"],
        cwd=Path(install.__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("dsn"):
        assert process.poll() is None
    places = {Path(child.cwd()) for child in psutil.Process(process.pid).children()}
    top = min(places, key=lambda place: len(place.parts))
    assert all(place.is_relative_to(top) for place in places) and len(places) == 3
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 5
    while (top.exists() or _working_in(top)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not top.exists()
    assert not _working_in(top)


async def test_jobs_can_be_scheduled_with_pg_cron(cron_server: PostgresServer) -> None:
    connection = await asyncpg.connect(cron_server.dsn("cron"))
    schedule = "select cron.schedule('job', $1, 'select 1')"
    number = await connection.fetchval(schedule, "*/5 3 * * 1-5")
    assert await connection.fetchval(schedule, "0 4 * * *") == number
    jobs = await connection.fetch("select jobname, schedule, username from cron.job")
    assert [tuple(job) for job in jobs if job[0] == "job"] == [("job", "0 4 * * *", "postgres")]
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await connection.fetchval(schedule, "often")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("delete from cron.job")
    assert await connection.fetchval("select cron.unschedule('job')") is True
    with pytest.raises(asyncpg.PostgresError, match="could not find valid entry"):
        await connection.fetchval("select cron.unschedule('job')")
    await connection.close()


# roles and keys


async def test_each_key_makes_its_role(client: Client) -> None:
    project = client.project
    user = project.user_key()
    expected = {
        "service_role": [project.headers(project.secret_key), project.headers(project.service_key),
                         {"apikey": project.secret_key}],
        "anon": [project.headers(project.publishable_key), project.headers(project.anon_key),
                 {"apikey": project.publishable_key},
                 # As `apikey` alone a JWT opens the gateway and makes nobody's role.
                 {"apikey": project.service_key}],
        "authenticated": [project.headers(project.publishable_key, user),
                          project.headers(project.anon_key, user),
                          project.headers(project.secret_key, user)],
    }  # fmt: skip
    for role, choices in expected.items():
        for headers in choices:
            assert await client.ask("POST", "rpc/who", {}, headers) == (200, role)


async def test_without_a_known_key_the_gateway_itself_refuses(client: Client) -> None:
    project = client.project
    project.requests.clear()
    for headers, message in (
        ({}, "No API key found in request"),
        ({"Authorization": f"Bearer {project.service_key}"}, "No API key found in request"),
        (project.headers("sb_secret_of_another_project"), "Invalid API key"),
        (project.headers(project.user_key()), "Invalid API key"),
    ):
        status, body = await client.ask("GET", "things", headers=headers)
        assert (status, body["message"]) == (401, message)
        assert set(body) == {"message", "hint"}
    assert not any(request.forwarded for request in project.requests)


async def test_an_expired_key_is_refused_by_postgrest(client: Client) -> None:
    headers = client.project.headers(client.project.expired_key)
    status, body = await client.ask("GET", "things", headers=headers)
    assert (status, body["code"], body["message"]) == (401, "PGRST301", "JWT expired")


async def test_a_users_claims_reach_sql(client: Client) -> None:
    project = client.project
    user = project.user_key({"app_metadata": {"comet_role": "viewer"}})
    headers = project.headers(project.publishable_key, user)
    assert await client.ask("POST", "rpc/viewer", {}, headers) == (200, "viewer")


async def test_a_table_without_grants_is_closed_even_to_service_role(client: Client) -> None:
    project = client.project
    for headers, expected in (
        (project.headers(project.secret_key), 403),
        (project.headers(project.publishable_key, project.user_key()), 403),
        (project.headers(project.publishable_key), 401),
    ):
        status, body = await client.ask("GET", "ungranted", headers=headers)
        assert (status, body["code"]) == (expected, "42501")


async def test_row_level_security_hides_rows_and_service_role_passes_it(client: Client) -> None:
    project = client.project
    for headers, expected in (
        (project.headers(project.secret_key), [{"id": 1}]),
        (project.headers(project.publishable_key, project.user_key()), []),
        (project.headers(project.publishable_key), []),
    ):
        assert await client.ask("GET", "hidden", headers=headers) == (200, expected)


async def test_roles_have_supabases_statement_timeouts(client: Client) -> None:
    project = client.project
    for headers, expected in (
        (project.headers(project.secret_key), "8s"),
        (project.headers(project.publishable_key, project.user_key()), "8s"),
        (project.headers(project.publishable_key), "3s"),
    ):
        body = {"name": "statement_timeout"}
        assert await client.ask("POST", "rpc/setting", body, headers) == (200, expected)


async def test_postgres_may_add_tables_to_the_realtime_publication(client: Client) -> None:
    client.project.execute("alter publication supabase_realtime add table public.things")
    assert ("things",) in client.project.fetch(
        "select tablename::text from pg_publication_tables where pubname = 'supabase_realtime'"
    )


@pytest.mark.filterwarnings("ignore:The '(timeout|verify)' parameter:DeprecationWarning")
async def test_the_client_library_of_supabase_works_here(client: Client) -> None:
    project = client.project
    for key in (project.secret_key, project.service_key):
        library = await acreate_client(project.url, key)
        table = library.table("things")
        await table.upsert({"id": 1, "name": "a"}).execute()
        assert (await table.select("*").execute()).data == [{"id": 1, "name": "a"}]
        await library.postgrest.aclose()


def test_no_migration_changes_a_whole_table_which_supabase_refuses() -> None:
    found = {file.name: unsafe_statements(file.read_text("utf-8")) for file in migrations()}
    assert not {name: statements for name, statements in found.items() if statements}


def test_statements_without_where_are_found_wherever_they_hide() -> None:
    sql = """
    create function f() returns void language plpgsql as $$
    begin
        delete from public.a; -- where
        delete from public.a where true;
        update public.b as x set note = ' where ; ' from (select 1 where true) y;
        with gone as (delete from public.c returning *) insert into d select * from gone where true;
        insert into e values (1) on conflict (id) do update set n = 2;
        update e set n = (select 1) where n = 2;
        perform 1 from e for update;
    end $$;
    """
    assert unsafe_statements(sql) == [
        "delete from public.a",
        "update public.b as x set note = from y",
        "delete from public.c returning *",
    ]


# PostgREST


async def test_reads_stop_silently_at_a_thousand_rows(client: Client) -> None:
    client.project.execute("insert into public.things select generate_series(1, 1500)")
    status, rows = await client.ask("GET", "things")
    assert (status, len(rows)) == (200, 1000)


LATE = "create function public.late() returns int language sql as 'select 1'"


async def test_new_functions_become_known_by_themselves(client: Client) -> None:
    client.project.execute(LATE)
    async with asyncio.timeout(10):
        while (await client.ask("POST", "rpc/late", {}))[0] == 404:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await client.ask("POST", "rpc/late", {}) == (200, 1)


async def test_with_a_stale_cache_they_are_unknown_until_it_is_reloaded(client: Client) -> None:
    with client.project.stale_cache():
        client.project.execute(LATE)
        await asyncio.sleep(1)
        status, body = await client.ask("POST", "rpc/late", {})
        assert (status, body["code"]) == (404, "PGRST202")
    client.project.reload_schema()
    assert await client.ask("POST", "rpc/late", {}) == (200, 1)


async def test_postgrest_killed_is_a_503_until_it_is_started(client: Client) -> None:
    client.project.postgrest.kill()
    status, _ = await client.ask("GET", "things")
    assert status == 503
    client.project.postgrest.start()
    assert await client.ask("GET", "things") == (200, [])


async def test_a_paused_postgrest_keeps_the_caller_waiting(client: Client) -> None:
    client.project.postgrest.pause()
    question = asyncio.create_task(client.ask("GET", "things"))
    done, _ = await asyncio.wait([question], timeout=0.3)
    assert not done
    client.project.postgrest.resume()
    assert await question == (200, [])


async def test_a_crash_of_the_database_shows_and_passes(client: Client) -> None:
    assert await client.add(1) == 201
    client.project.server.kill()
    status, body = await client.ask("GET", "things")
    assert status in (400, 503, 504), body
    client.project.server.start()
    seen = []
    async with asyncio.timeout(40):
        while (status := await client.add(2)) != 201:
            seen.append(status)
            await asyncio.sleep(0.1)
    assert set(seen) <= {400, 503, 504}
    assert client.stored() == {1, 2}


async def test_a_stopped_gateway_refuses_and_returns_at_the_same_address(client: Client) -> None:
    client.project.gateway.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.ask("GET", "things")
    client.project.gateway.start()
    assert await client.ask("GET", "things") == (200, [])


# faults


async def _suffer(client: Client, fault: Fault) -> int | None:
    """The status of an insert of 1 under this fault; None where the connection broke."""
    client.project.faults.next(fault)
    try:
        return await client.add(1)
    except (aiohttp.ClientError, OSError):
        return None


@pytest.mark.parametrize("fault", HARMLESS_TO_DATA)
async def test_nothing_is_stored_when_a_request_never_arrives(client: Client, fault: Fault) -> None:
    statuses = {
        Fault.DROPPED: None, Fault.BUSY_503: 503, Fault.POOL_504: 504, Fault.PAUSED_540: 540,
        Fault.UNREACHABLE_522: 522, Fault.HTML_200: 200, Fault.EMPTY_CODE_400: 400,
    }  # fmt: skip
    assert await _suffer(client, fault) == statuses[fault]
    assert client.stored() == set()
    assert client.project.faults.seen == {fault: 1}
    assert await client.add(1) == 201


@pytest.mark.parametrize("fault", AFTER_THE_FACT)
async def test_the_row_is_stored_when_only_the_answer_is_lost(client: Client, fault: Fault) -> None:
    assert await _suffer(client, fault) is None
    assert client.stored() == {1}
    assert client.project.requests[-1].forwarded
    assert await client.add(1) == 409
    assert await client.add(2) == 201


@pytest.mark.parametrize("fault", (Fault.RESET_IN_BODY, Fault.TRUNCATED))
async def test_a_broken_answer_has_a_good_head_and_half_a_body(
    client: Client, fault: Fault
) -> None:
    await client.add(1)
    client.project.faults.next(fault)
    async with aiohttp.ClientSession() as session:
        response = await session.get(
            f"{client.project.url}/rest/v1/things",
            headers=client.project.headers(client.project.secret_key),
        )
        assert response.status == 200
        with pytest.raises((aiohttp.ClientError, OSError)):
            await response.json()
        response.close()


async def test_refusals_and_limits_are_answered_without_a_look_at_the_key(client: Client) -> None:
    assert await _suffer(client, Fault.UNAUTHORIZED_401) == 401
    assert await _suffer(client, Fault.TOO_MANY_429) == 429
    assert client.stored() == set()


async def test_a_slow_gateway_answers_late_and_a_hanging_one_not_at_all(client: Client) -> None:
    faults = client.project.faults
    faults.slow_s = 0.3
    faults.next(Fault.SLOW, Fault.HANG)
    started = time.monotonic()
    assert await client.add(1) == 201
    assert time.monotonic() - started >= 0.3
    hanging = asyncio.create_task(client.add(2))
    done, _ = await asyncio.wait([hanging], timeout=0.3)
    assert not done
    faults.clear()
    with pytest.raises(aiohttp.ClientError):
        await hanging
    assert client.stored() == {1}


async def test_a_fault_that_stays_ends_with_clear_and_spares_other_paths(client: Client) -> None:
    faults = client.project.faults
    faults.always(Fault.BUSY_503)
    faults.only = "/rpc/"
    assert await client.add(1) == 201
    assert (await client.ask("POST", "rpc/who", {}))[0] == 503
    assert (await client.ask("POST", "rpc/who", {}))[0] == 503
    faults.clear()
    assert (await client.ask("POST", "rpc/who", {}))[0] == 200


def test_chance_is_the_same_for_the_same_seed_and_near_its_rate() -> None:
    def drawn(seed: int) -> list[Fault | None]:
        faults = Faults()
        faults.randomly(seed, 0.3)
        return [faults.draw("/rest/v1/things") for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    struck = [fault for fault in drawn(1) if fault]
    assert 250 < len(struck) < 350
    assert set(struck) == set(PASSING)


def _working_in(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_the_password_needs_quoting_in_an_address() -> None:
    assert set("/:@") <= set(PASSWORD)
