"""The transport over asyncpg and the migrations, against a real PostgreSQL on bad days."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio

from bot.storage import migrations, pg_errors, pg_migrations
from bot.storage.migrations import available, latest_number
from bot.storage.postgres import PostgresStore, address_of, connect, is_pooled
from bot.storage.store import StoreError, StoreUnavailable
from tests.peers.postgres.server import PASSWORD, PostgresServer

PRIVATE = "what-a-member-wrote"

TOOLS = """
create or replace function public.comet_echo(p jsonb) returns jsonb language sql as $$ select p $$;
create or replace function public.comet_sleep(p jsonb) returns jsonb language sql as
    $$ select to_jsonb(pg_sleep((p ->> 'seconds')::float8)::text) $$;
create or replace function public.comet_fail(p jsonb) returns jsonb language plpgsql as $$
begin
    raise exception '%', p ->> 'message' using errcode = p ->> 'code', detail = p ->> 'message';
end $$;
create or replace function public.comet_cast(p jsonb) returns jsonb language sql as
    $$ select to_jsonb((p ->> 'text')::uuid) $$;
create or replace function public.comet_statements(p jsonb) returns jsonb language sql as
    $$ select to_jsonb(count(*)) from pg_catalog.pg_prepared_statements $$;
create or replace function public.comet_busy(p jsonb) returns jsonb language sql as
    $$ select to_jsonb(count(*)) from pg_catalog.pg_stat_activity
    where state = 'active' and query like '%comet_sleep%' and datname = current_database() $$;
create sequence if not exists public.calls;
create or replace function public.comet_die_once(p jsonb) returns jsonb language plpgsql as $$
declare n bigint := nextval('public.calls');
begin
    if n = 1 then
        perform pg_terminate_backend(pg_backend_pid());
        perform pg_sleep(5);
    end if;
    return to_jsonb(n);
end $$;
create or replace function public.comet_export_die_once(p jsonb) returns jsonb language sql as
    $$ select public.comet_die_once(p) $$;
"""
"""Verbs made for these tests: they show what comes through, and fail as they are told."""


@contextmanager
def refusal(reason: str, error: type[StoreError] = StoreUnavailable) -> Iterator[list[StoreError]]:
    """The block raises just this; nothing it says repeats a secret or a row."""
    said: list[StoreError] = []
    with pytest.raises(error) as caught:
        yield said
    said.append(caught.value)
    assert caught.value.reason == reason, caught.value
    assert caught.value.retriable == (reason not in ("refused", "migration"))
    for secret in (PASSWORD, quote(PASSWORD, ""), PRIVATE):
        assert secret not in str(caught.value)


async def run(dsn: str, script: str) -> None:
    """As committed as can be: a killed server still has it."""
    async with connect(dsn) as connection:
        await connection.execute("set synchronous_commit = on")
        await connection.execute(script)


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    await run(database, TOOLS)
    store = PostgresStore(database, bot_id="echo", timeout_s=5)
    await store.open()
    yield store
    await store.close()


# --- what travels ------------------------------------------------------------------------------


async def test_arguments_and_answers_travel_whole(store: PostgresStore) -> None:
    odd = {"text": "監視 🔴 \u2028 'quoted' \\ $1", "n": 2**62, "x": 0.1, "none": None, "b": True}
    said = await store.call("echo", odd=odd, rows=[odd] * 500)
    assert said == {"bot": "echo", "odd": odd, "rows": [odd] * 500}


async def test_what_no_database_takes_is_replaced_on_the_way(store: PostgresStore) -> None:
    said = await store.call(
        "echo",
        numbers=[math.nan, math.inf, -math.inf, 10**40],
        texts=["a\0b", "\ud83d", "\udc00x", {"key\0": "v"}],
    )
    assert said["numbers"] == [None, None, None, str(10**40)]
    assert said["texts"] == ["a\ufffdb", "\ufffd", "\ufffdx", {"key\ufffd": "v"}]


async def test_a_megabyte_of_text_is_nothing_special(store: PostgresStore) -> None:
    text = "長い" * 500_000
    assert (await store.call("echo", text=text))["text"] == text


async def test_many_calls_at_once_all_get_their_own_answer(store: PostgresStore) -> None:
    said = await asyncio.gather(*(store.call("echo", n=n) for n in range(40)))
    assert [one["n"] for one in said] == list(range(40))


async def test_a_closed_store_says_so_until_it_is_opened_again(store: PostgresStore) -> None:
    await store.close()
    with refusal("closed"):
        await store.call("echo")
    with refusal("closed"):
        await store.schema_version()
    await store.open()
    assert await store.call("echo")


async def test_the_server_tells_its_time(store: PostgresStore) -> None:
    at = await store.server_time()
    assert at is not None and abs(at.timestamp() - time.time()) < 5


# --- the way in --------------------------------------------------------------------------------


async def test_a_wrong_password_or_database_is_told_apart_from_a_server_that_is_away(
    postgres: PostgresServer, database: str, free_port: Callable[[], int]
) -> None:
    with refusal("key"):
        await PostgresStore(postgres.dsn("postgres", password="wrong")).open()
    with refusal("key"):
        await PostgresStore(postgres.dsn("nowhere")).open()
    with refusal("key"):
        await PostgresStore(postgres.dsn("postgres", user="nobody")).open()
    with refusal("away"):
        await PostgresStore(
            f"postgresql://u:{PASSWORD.split('/')[0]}@127.0.0.1:{free_port()}/x"
        ).open()
    with refusal("away") as said:
        await PostgresStore("postgresql://u:p@no-such-host.invalid/x").open()
    assert "known" in str(said[0]) or "resol" in str(said[0])


async def test_a_server_that_accepts_and_says_nothing_is_away_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        store = PostgresStore(
            f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.5
        )
        with refusal("away"):
            await store.open()
        assert time.monotonic() - started < 3


async def test_something_else_that_answers_is_no_database() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with refusal("away"):
            await PostgresStore(f"postgresql://u:p@127.0.0.1:{port}/x", timeout_s=2).open()


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_without_tls_is_refused_when_tls_is_asked_for(
    mode: str, database: str
) -> None:
    with refusal("away"):
        await PostgresStore(f"{database}?sslmode={mode}").open()


async def test_tls_is_checked_as_far_as_the_address_asks(tmp_path: Path) -> None:
    with PostgresServer(17) as server:
        certificate = _with_tls(server, tmp_path)
        for query, is_fine in (
            ("sslmode=disable", True),
            ("sslmode=require", True),
            (f"sslmode=verify-ca&sslrootcert={certificate}", True),
            (f"sslmode=verify-full&sslrootcert={certificate}", True),
            ("sslmode=verify-full&sslrootcert=/nowhere/root.crt", False),
            (f"sslmode=verify-full&sslrootcert={_certificate(tmp_path, 'other')}", False),
        ):
            try:
                async with connect(f"{server.dsn()}?{query}") as connection:
                    used = await connection.fetchval(
                        "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
                    )
                    assert is_fine and used == ("disable" not in query)
            except StoreUnavailable as error:
                assert not is_fine and error.reason == "away", query


def _certificate(folder: Path, name: str) -> Path:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key",
         "-out", folder / f"{name}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / f"{name}.crt"


def _with_tls(server: PostgresServer, folder: Path) -> Path:
    certificate = _certificate(folder, "server")
    data = server.directory / "data"
    for name in ("server.crt", "server.key"):
        (data / name).write_bytes((folder / name).read_bytes())
        (data / name).chmod(0o600)
        owner = data.stat()
        if owner.st_uid != (data / name).stat().st_uid:
            os.chown(data / name, owner.st_uid, owner.st_gid)
    with (data / "postgresql.conf").open("a") as file:
        file.write("ssl = on\n")
    server.restart()
    return certificate


# --- poolers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@db.example.jp:5432/x", False),
        ("postgresql://u:p@db.abc.supabase.co:6543/postgres", True),
        ("postgresql://u:p@aws-0-ap-northeast-1.pooler.supabase.com:5432/postgres", True),
        ("postgresql://u:p@db.example.jp/x?pgbouncer=true", True),
        ("postgresql://pooler:pgbouncer@db.example.jp/pooler", False),
    ],
)
def test_a_pooler_is_known_by_its_address(dsn: str, expected: bool) -> None:
    assert is_pooled(dsn) is expected


async def test_behind_a_pooler_no_statement_stays_prepared(
    store: PostgresStore, database: str
) -> None:
    assert await store.call("statements") > 0
    pooled = PostgresStore(f"{database}?pgbouncer=true&connection_limit=1&connect_timeout=3")
    await pooled.open()
    for _ in range(3):
        assert await pooled.call("statements") == 0
    await pooled.close()


def test_an_address_is_named_without_its_secrets() -> None:
    assert address_of("postgresql://u:p%40ss@db.example.jp:5432/x?password=s") == (
        "db.example.jp:5432/x"
    )


# --- the server dies ---------------------------------------------------------------------------


async def test_a_server_that_hangs_holds_up_nobody_who_is_told_to_stop(
    store: PostgresStore, postgres: PostgresServer
) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    await store.call("echo")
    await asyncio.to_thread(postgres.pause)
    try:
        running = asyncio.create_task(store.call("sleep", seconds=30))
        await asyncio.sleep(0.2)
        began_s = time.monotonic()
        running.cancel()
        await asyncio.wait((running,), timeout=20)
        assert running.cancelled(), "being told to stop is not swallowed"
        assert time.monotonic() - began_s < 1.5
    finally:
        await asyncio.to_thread(postgres.resume)
    assert await store.call("echo")
    assert not complaints


async def test_a_statement_that_nobody_waits_for_is_called_off(store: PostgresStore) -> None:
    running = asyncio.create_task(store.call("sleep", seconds=30))
    await asyncio.sleep(0.2)
    running.cancel()
    await asyncio.wait((running,), timeout=5)
    assert running.cancelled()
    said = await store.call("busy")
    assert said == 0


async def test_a_killed_server_is_away_and_the_same_store_finds_it_again(
    postgres: PostgresServer, store: PostgresStore
) -> None:
    await asyncio.gather(*(store.call("echo") for _ in range(8)))
    running = asyncio.create_task(store.call("sleep", seconds=30))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(postgres.kill)
    with refusal("away"):
        await running
    with refusal("away"):
        await store.call("echo")
    await asyncio.to_thread(postgres.start)
    for n in range(8):
        assert (await store.call("echo", n=n))["n"] == n


async def test_a_server_that_hangs_is_away_in_time_and_comes_back(
    postgres: PostgresServer, database: str, store: PostgresStore
) -> None:
    hasty = PostgresStore(database, timeout_s=0.5)
    await hasty.open()
    await asyncio.to_thread(postgres.pause)
    try:
        started = time.monotonic()
        for _ in range(2):
            with refusal("away"):
                await hasty.call("echo")
        assert time.monotonic() - started < 6
    finally:
        await asyncio.to_thread(postgres.resume)
    assert await hasty.call("echo", n=1) == {"bot": "primary", "n": 1}
    await hasty.close()


async def test_a_hanging_server_does_not_hold_up_the_end(
    postgres: PostgresServer, database: str
) -> None:
    store = PostgresStore(database)
    await store.open()
    await asyncio.to_thread(postgres.pause)
    try:
        started = time.monotonic()
        await store.close()
        assert time.monotonic() - started < 3
    finally:
        await asyncio.to_thread(postgres.resume)


async def test_a_cancelled_call_leaves_the_store_usable(store: PostgresStore) -> None:
    for _ in range(6):
        running = asyncio.create_task(store.call("sleep", seconds=30))
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert await store.call("echo")


async def test_a_read_whose_connection_drops_is_made_once_more_and_a_write_is_not(
    store: PostgresStore, database: str
) -> None:
    assert await store.call("export_die_once") == 2
    await run(database, "alter sequence public.calls restart")
    with refusal("away"):
        await store.call("die_once")
    assert await store.call("die_once") == 2


# --- what errors mean --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("08006", "away"),
        ("40001", "away"),
        ("40P01", "away"),
        ("53100", "full"),
        ("53300", "away"),
        ("55P03", "away"),
        ("57014", "away"),
        ("57P03", "away"),
        ("XX000", "away"),
        ("25006", "readonly"),
        ("28000", "key"),
        ("28P01", "key"),
        ("42501", "rights"),
        ("3F000", "schema"),
        ("42P01", "schema"),
        ("42703", "schema"),
        ("42883", "schema"),
        ("42P05", "odd"),
        ("26000", "odd"),
        ("P0001", "odd"),
        ("22P02", "refused"),
        ("22003", "refused"),
        ("22P05", "refused"),
        ("23502", "refused"),
        ("23514", "refused"),
        ("54000", "refused"),
    ],
)
async def test_each_kind_of_error_has_its_reason(
    code: str, reason: str, store: PostgresStore
) -> None:
    with refusal(reason, StoreError) as said:
        await store.call("fail", code=code, message="no harm")
    assert (code in said[0].detail) or reason == "away"


@pytest.mark.parametrize("code", ["22P02", "22007", "P0001", "XX000", "54000"])
async def test_what_stands_in_a_row_is_not_repeated(code: str, store: PostgresStore) -> None:
    with refusal(pg_errors.from_sqlstate(code, "").reason, StoreError):
        await store.call("fail", code=code, message=f'invalid input: "{PRIVATE}"')
    with refusal("refused", StoreError) as said:
        await store.call("cast", text=PRIVATE)
    assert said[0].detail == "22P02 invalid input syntax for type uuid"


async def test_a_missing_function_table_or_column_is_a_matter_of_migrations(
    store: PostgresStore, database: str
) -> None:
    with refusal("schema"):
        await store.call("never_made")
    await run(
        database,
        """
        create table public.here (a int);
        create function public.comet_no_column(p jsonb) returns jsonb language plpgsql as
            $$ begin return (select to_jsonb(b) from public.here); end $$;
        create function public.comet_no_table(p jsonb) returns jsonb language plpgsql as
            $$ begin return (select to_jsonb(b) from public.gone); end $$;
        """,
    )
    for verb in ("no_column", "no_table"):
        with refusal("schema"):
            await store.call(verb)


async def test_a_role_without_rights_is_told_so(
    postgres: PostgresServer, database: str, store: PostgresStore
) -> None:
    await run(
        database,
        "do $$ begin create role guest login password 'guest'; "
        "exception when duplicate_object then null; end $$;"
        "revoke all on function public.comet_echo(jsonb) from public;",
    )
    guest = PostgresStore(postgres.dsn(database.rpartition("/")[2], "guest", "guest"))
    guest._is_open = True
    await guest._connect()
    with refusal("rights"):
        await guest.call("echo")
    await guest.close()


async def test_a_read_only_server_is_told_so(store: PostgresStore, database: str) -> None:
    await run(
        database,
        "create table public.here (a int);"
        "create function public.comet_import_x(p jsonb) returns jsonb language sql as "
        "$$ insert into public.here values (1) returning to_jsonb(a) $$ ;"
        "alter function public.comet_import_x(jsonb) set default_transaction_read_only = on;",
    )
    await run(database, f"alter database {database.rpartition('/')[2]} "
                        "set default_transaction_read_only = on")  # fmt: skip
    late = PostgresStore(database)
    await late.open()
    with refusal("readonly"):
        await late.call("import_x")
    await late.close()


# --- migrations --------------------------------------------------------------------------------


async def numbers(dsn: str) -> list[int]:
    async with connect(dsn) as connection:
        rows = await connection.fetch("select number from public.comet_migrations order by 1")
        return [row["number"] for row in rows]


async def test_every_migration_is_applied_once_and_in_order(empty_database: str) -> None:
    said: list[int] = []
    async with connect(empty_database) as connection:
        assert await pg_migrations.number(connection) == 0
        todo = await pg_migrations.pending(connection)
        assert todo == available("postgres")
        done = await pg_migrations.migrate(connection, lambda one: said.append(one.number))
        assert done == todo and said == [one.number for one in todo]
        assert await pg_migrations.migrate(connection) == []
        assert await pg_migrations.number(connection) == latest_number("postgres")
    assert await numbers(empty_database) == said


async def test_both_dialects_have_the_same_numbers_and_names() -> None:
    names = [[(one.number, one.name) for one in available(d)] for d in ("sqlite", "postgres")]
    assert names[0] == names[1]


async def test_two_that_start_at_once_apply_each_file_once(empty_database: str) -> None:
    stores = [PostgresStore(empty_database, migrate=True) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await numbers(empty_database) == [one.number for one in available("postgres")]
    for store in stores:
        assert await store.schema_version() == latest_number("postgres")
        await store.close()


async def test_a_pooler_carries_migrations_too(empty_database: str) -> None:
    store = PostgresStore(f"{empty_database}?pgbouncer=true", migrate=True)
    await store.open()
    await store.close()
    assert len(await numbers(empty_database)) == latest_number("postgres")


async def test_a_database_that_is_behind_is_not_used_and_a_newer_one_is(database: str) -> None:
    latest = latest_number("postgres")
    await run(database, "insert into public.comet_migrations (number, name) values (9999, 'new')")
    newer = PostgresStore(database)
    await newer.open()
    assert await newer.schema_version() == 9999
    await newer.close()
    await run(database, f"delete from public.comet_migrations where number >= {latest}")
    with refusal("schema") as said:
        await newer.open()
    assert said[0].detail == f"{latest - 1} < {latest}"
    with refusal("closed"):
        await newer.call("echo")


async def test_an_empty_database_is_behind(empty_database: str) -> None:
    with refusal("schema"):
        await PostgresStore(empty_database).open()


@pytest.fixture
def house_of_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, str]], None]:
    def write(files: dict[str, str]) -> None:
        folder = tmp_path / "postgres"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        monkeypatch.setattr(migrations, "MIGRATIONS_ROOT", tmp_path)

    return write


FIRST = """
create table public.comet_migrations (number int primary key, name text not null);
insert into public.comet_migrations values (1, 'first');
"""


async def test_a_file_that_fails_leaves_nothing_of_itself_behind(
    empty_database: str, house_of_migrations: Callable[[dict[str, str]], None]
) -> None:
    house_of_migrations(
        {
            "0001_first.sql": FIRST,
            "0002_bad.sql": "create table public.half (a int); select 1 / 0;"
            "insert into public.comet_migrations values (2, 'bad');",
        }
    )
    async with connect(empty_database) as connection:
        with refusal("migration", StoreError) as said:
            await pg_migrations.migrate(connection)
        assert said[0].detail == "0002_bad.sql: 22012 division by zero"
        assert await connection.fetchval("select to_regclass('public.half')") is None
        assert await pg_migrations.number(connection) == 1


async def test_a_file_that_does_not_note_its_number_is_a_fault_of_ours(
    empty_database: str, house_of_migrations: Callable[[dict[str, str]], None]
) -> None:
    house_of_migrations({"0001_first.sql": FIRST, "0002_mute.sql": "create table public.x (a int)"})
    async with connect(empty_database) as connection:
        with refusal("migration", StoreError):
            await pg_migrations.migrate(connection)
        assert await connection.fetchval("select to_regclass('public.x')") is None


# --- the house ---------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["asyncpg", "supabase", "httpx", "postgrest"])
def test_nothing_loads_the_drivers_until_they_are_chosen(package: str, root: Path) -> None:
    source = (
        "import sys, bot.cli, bot.check, bot.storage.postgres, bot.storage.supabase\n"
        f"sys.exit({package!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=root, timeout=60, check=False)
    assert done.returncode == 0
