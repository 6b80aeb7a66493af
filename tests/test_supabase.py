"""The transport over PostgREST, against a real one behind a gateway on its bad days."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio

from bot.storage import pg_errors, pg_migrations
from bot.storage.postgres import connect
from bot.storage.store import StoreError, StoreUnavailable
from bot.storage.supabase import SupabaseStore
from tests.peers.postgres.faults import AFTER_THE_FACT, Fault
from tests.peers.postgres.supabase import Supabase
from tests.test_postgres import PRIVATE, TOOLS

GRANTED = """
do $$
declare f regprocedure;
begin
    for f in
        select p.oid from pg_proc p where proname ~ (
            '^comet_(echo|export_echo|sleep|fail|cast|import_keep|keep|many|text)$'
        )
    loop
        execute format('revoke all on function %s from public', f);
        execute format('grant execute on function %s to service_role', f);
    end loop;
end $$;
grant usage on sequence public.calls to service_role;
"""
KEEP = """
create table public.kept (id int primary key, at timestamptz default clock_timestamp());
grant all on public.kept to service_role;
create function public.comet_keep(p jsonb) returns jsonb language sql as $$
    insert into public.kept (id) values ((p ->> 'id')::int) on conflict do nothing;
    select to_jsonb(count(*)) from public.kept
$$;
create function public.comet_import_keep(p jsonb) returns jsonb language sql as
    $$ select public.comet_keep(p) $$;
create function public.comet_export_echo(p jsonb) returns jsonb language sql as $$ select p $$;
create function public.comet_many(p jsonb) returns jsonb language sql as $$
    select jsonb_agg(n) from generate_series(1, (p ->> 'n')::int) n
$$;
create function public.comet_text(p jsonb) returns text language sql as $$ select 'welcome' $$;
"""


@contextmanager
def refusal(
    project: Supabase, reason: str, error: type[StoreError] = StoreUnavailable
) -> Iterator[list[StoreError]]:
    """The block raises just this; nothing it says repeats a key or a row."""
    said: list[StoreError] = []
    with pytest.raises(error) as caught:
        yield said
    said.append(caught.value)
    assert caught.value.reason == reason, caught.value
    assert caught.value.retriable == (reason != "refused")
    keys = (project.secret_key, project.service_key, project.anon_key, project.expired_key)
    for secret in (*keys, project.publishable_key, PRIVATE):
        assert secret not in str(caught.value)


@pytest_asyncio.fixture
async def project(supabase: Supabase) -> Supabase:
    script = f"set synchronous_commit = on; {TOOLS} {KEEP} {GRANTED}"
    await asyncio.to_thread(supabase.execute, script)
    await asyncio.to_thread(supabase.reload_schema)
    return supabase


@pytest_asyncio.fixture
async def store(project: Supabase) -> AsyncIterator[SupabaseStore]:
    store = SupabaseStore(project.url, project.secret_key, bot_id="echo", timeout_s=3)
    await store.open()
    yield store
    await store.close()


async def opened(project: Supabase, key: str) -> None:
    store = SupabaseStore(project.url, key)
    try:
        await store.open()
        await store.call("echo")
    finally:
        await store.close()


# --- what travels ------------------------------------------------------------------------------


async def test_arguments_and_answers_travel_whole(store: SupabaseStore) -> None:
    odd = {"text": "監視 🔴 \u2028 'quoted' \\ $1", "n": 2**62, "x": 0.1, "none": None, "b": True}
    said = await store.call("echo", odd=odd, rows=[odd] * 500)
    assert said == {"bot": "echo", "odd": odd, "rows": [odd] * 500}


async def test_what_no_database_takes_is_replaced_on_the_way(store: SupabaseStore) -> None:
    said = await store.call(
        "echo",
        numbers=[math.nan, math.inf, -math.inf, 10**40],
        texts=["a\0b", "\ud83d", "\udc00x", {"key\0": "v"}],
    )
    assert said["numbers"] == [None, None, None, str(10**40)]
    assert said["texts"] == ["a\ufffdb", "\ufffd", "\ufffdx", {"key\ufffd": "v"}]


async def test_a_megabyte_of_text_is_nothing_special(store: SupabaseStore) -> None:
    text = "長い" * 500_000
    assert (await store.call("echo", text=text))["text"] == text


async def test_answers_do_not_end_at_the_thousandth_row(store: SupabaseStore) -> None:
    assert await store.call("many", n=2500) == list(range(1, 2501))


async def test_many_calls_at_once_all_get_their_own_answer(store: SupabaseStore) -> None:
    said = await asyncio.gather(*(store.call("echo", n=n) for n in range(40)))
    assert [one["n"] for one in said] == list(range(40))


async def test_the_server_tells_its_time(store: SupabaseStore) -> None:
    at = await store.server_time()
    assert at is not None and abs(at.timestamp() - time.time()) < 5


async def test_a_closed_store_says_so_until_it_is_opened_again(
    project: Supabase, store: SupabaseStore
) -> None:
    await store.close()
    with refusal(project, "closed"):
        await store.call("echo")
    await store.open()
    assert await store.call("echo")


async def test_opening_and_calling_stall_the_loop_for_no_time_worth_naming(
    project: Supabase,
) -> None:
    """The package alone takes a quarter of a second to import, a thousand rows some to write."""
    worst, stop = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal worst
        while not stop.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - before)

    watching = asyncio.create_task(watch())
    store = SupabaseStore(project.url, project.secret_key)
    await store.open()
    rows = [{f"column_{n}": 0.5 for n in range(30)} for _ in range(500)]
    await store.call("echo", rows=rows)
    stop.set()
    await watching
    await store.close()
    assert worst < 0.2


# --- keys --------------------------------------------------------------------------------------


async def test_both_kinds_of_secret_key_are_taken(project: Supabase) -> None:
    await opened(project, project.secret_key)
    await opened(project, project.service_key)


async def test_a_wrong_or_expired_key_is_told(project: Supabase) -> None:
    for key in ("sb_secret_wrong", project.expired_key, project.service_key[:-4]):
        with refusal(project, "key"):
            await opened(project, key)


async def test_a_key_for_browsers_gets_nowhere(project: Supabase) -> None:
    for key in (project.publishable_key, project.anon_key):
        with refusal(project, "rights"):
            await opened(project, key)


async def test_a_key_that_is_withdrawn_at_run_time_is_told(
    project: Supabase, store: SupabaseStore
) -> None:
    project.faults.next(Fault.UNAUTHORIZED_401)
    with refusal(project, "key"):
        await store.call("echo")
    assert await store.call("echo")


# --- the gateway's bad days --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.DROPPED, "away"),
        (Fault.BUSY_503, "away"),
        (Fault.POOL_504, "away"),
        (Fault.UNREACHABLE_522, "away"),
        (Fault.PAUSED_540, "away"),
        (Fault.HTML_200, "odd"),
        (Fault.EMPTY_CODE_400, "away"),
        (Fault.UNAUTHORIZED_401, "key"),
        (Fault.TOO_MANY_429, "away"),
        (Fault.HANG, "away"),
        (Fault.ANSWER_LOST, "away"),
        (Fault.RESET_IN_BODY, "away"),
        (Fault.TRUNCATED, "away"),
    ],
)
async def test_each_bad_answer_has_its_reason_and_the_next_good_one_is_taken(
    fault: Fault, reason: str, project: Supabase
) -> None:
    store = SupabaseStore(project.url, project.secret_key, timeout_s=0.5)
    await store.open()
    project.faults.always(fault)
    started = time.monotonic()
    with refusal(project, reason):
        await store.call("import_keep", id=1)
    with refusal(project, reason):
        await store.call("echo")
    with refusal(project, reason):
        await store.schema_version()
    assert time.monotonic() - started < 5
    project.faults.clear()
    assert await store.call("echo", n=1) == {"bot": "primary", "n": 1}
    await store.close()


async def test_every_fault_of_the_gateway_is_among_these() -> None:
    mark = test_each_bad_answer_has_its_reason_and_the_next_good_one_is_taken.pytestmark[0]
    assert {fault for fault, _ in mark.args[1]} == set(Fault) - {Fault.SLOW}


async def test_a_paused_project_is_named(project: Supabase, store: SupabaseStore) -> None:
    project.faults.always(Fault.PAUSED_540)
    with refusal(project, "away") as said:
        await store.call("echo")
    assert "540" in said[0].detail and "paused" in said[0].detail


async def test_a_slow_answer_is_an_answer(project: Supabase, store: SupabaseStore) -> None:
    project.faults.slow_s = 1.0
    project.faults.next(Fault.SLOW)
    assert await store.call("echo")


@pytest.mark.parametrize("fault", AFTER_THE_FACT)
async def test_an_answer_lost_after_the_commit_makes_repeating_harmless(
    fault: Fault, project: Supabase, store: SupabaseStore
) -> None:
    project.faults.next(fault)
    with refusal(project, "away"):
        await store.call("import_keep", id=7)
    assert project.fetch("select count(*) from public.kept") == [(1,)]
    assert await store.call("import_keep", id=7) == 1


async def test_a_read_whose_connection_drops_is_made_once_more_and_a_write_is_not(
    project: Supabase, store: SupabaseStore
) -> None:
    project.faults.next(Fault.DROPPED)
    assert await store.call("export_echo")
    project.requests.clear()
    project.faults.next(Fault.DROPPED)
    with refusal(project, "away"):
        await store.call("import_keep", id=1)
    assert len(project.requests) == 1


async def test_an_answer_in_drops_does_not_hold_a_call_forever(project: Supabase) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except (OSError, asyncio.CancelledError):
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started = time.monotonic()
        with refusal(project, "away"):
            await SupabaseStore(url, project.secret_key, timeout_s=0.3).open()
        assert time.monotonic() - started < 3


async def test_json_that_is_not_our_answer_is_odd(project: Supabase, store: SupabaseStore) -> None:
    with refusal(project, "odd"):
        await store.call("text")


async def test_what_does_not_call_itself_json_is_odd_however_it_looks(project: Supabase) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n"
            b'Connection: close\r\n\r\n[{"number": 999999}]'
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with refusal(project, "odd"):
            await SupabaseStore(url, project.secret_key).open()


async def test_nobody_there_is_away(project: Supabase, free_port: Callable[[], int]) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid"):
        with refusal(project, "away"):
            await SupabaseStore(url, project.secret_key).open()


async def test_an_address_that_leads_beside_the_project_is_told(project: Supabase) -> None:
    with refusal(project, "schema"):
        await SupabaseStore(f"{project.url}/elsewhere", project.secret_key).open()


# --- what stands behind the gateway dies -------------------------------------------------------


async def test_a_killed_postgrest_is_away_and_found_again(
    project: Supabase, store: SupabaseStore
) -> None:
    await asyncio.to_thread(project.postgrest.kill)
    with refusal(project, "away"):
        await store.call("import_keep", id=1)
    await asyncio.to_thread(project.postgrest.start)
    assert await store.call("import_keep", id=1) == 1


async def test_a_killed_database_is_away_and_found_again(
    project: Supabase, store: SupabaseStore
) -> None:
    assert await store.call("import_keep", id=1) == 1
    running = asyncio.create_task(store.call("sleep", seconds=30))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(project.server.kill)
    with refusal(project, "away"):
        await running
    with refusal(project, "away"):
        await store.call("import_keep", id=2)
    await asyncio.to_thread(project.server.start)
    deadline = time.monotonic() + 40
    while True:
        try:
            assert await store.call("import_keep", id=2) in (1, 2)
            break
        except StoreUnavailable as error:
            assert error.reason == "away" and time.monotonic() < deadline, error
            await asyncio.sleep(0.2)


async def test_a_hanging_database_is_away_in_time(project: Supabase) -> None:
    store = SupabaseStore(project.url, project.secret_key, timeout_s=0.5)
    await store.open()
    await asyncio.to_thread(project.server.pause)
    try:
        started = time.monotonic()
        with refusal(project, "away"):
            await store.call("echo")
        await store.close()
        assert time.monotonic() - started < 3
    finally:
        await asyncio.to_thread(project.server.resume)


async def test_a_cancelled_call_leaves_the_store_usable(store: SupabaseStore) -> None:
    for _ in range(6):
        running = asyncio.create_task(store.call("sleep", seconds=1))
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert await store.call("echo")


# --- what PostgreSQL and PostgREST refuse ------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("40001", "away"),
        ("40P01", "away"),
        ("53100", "full"),
        ("53300", "away"),
        ("57014", "away"),
        ("25006", "readonly"),
        ("42501", "rights"),
        ("42P01", "schema"),
        ("42703", "schema"),
        ("42883", "schema"),
        ("P0001", "odd"),
        ("22P02", "refused"),
        ("22P05", "refused"),
        ("23502", "refused"),
        ("23514", "refused"),
        ("54000", "refused"),
    ],
)
async def test_each_kind_of_error_has_the_reason_it_has_without_postgrest(
    code: str, reason: str, project: Supabase, store: SupabaseStore
) -> None:
    with refusal(project, reason, StoreError):
        await store.call("fail", code=code, message="no harm")


async def test_what_stands_in_a_row_is_not_repeated(
    project: Supabase, store: SupabaseStore
) -> None:
    for code in ("22P02", "P0001", "XX000"):
        with refusal(project, pg_errors.from_sqlstate(code, "").reason, StoreError):
            await store.call("fail", code=code, message=f'invalid input: "{PRIVATE}"')
    with refusal(project, "refused", StoreError) as said:
        await store.call("cast", text=PRIVATE)
    assert said[0].detail == "22P02 invalid input syntax for type uuid"


async def test_a_missing_function_table_or_column_is_a_matter_of_migrations(
    project: Supabase, store: SupabaseStore
) -> None:
    with refusal(project, "schema"):
        await store.call("never_made")
    await asyncio.to_thread(
        project.execute,
        """
        create table public.here (a int);
        grant all on public.here to service_role;
        create function public.comet_no_column(p jsonb) returns jsonb language plpgsql as
            $$ begin return (select to_jsonb(b) from public.here); end $$;
        create function public.comet_no_table(p jsonb) returns jsonb language plpgsql as
            $$ begin return (select to_jsonb(b) from public.gone); end $$;
        grant execute on function public.comet_no_column, public.comet_no_table to service_role;
        """,
    )
    await asyncio.to_thread(project.reload_schema)
    for verb in ("no_column", "no_table"):
        with refusal(project, "schema"):
            await store.call(verb)


async def test_a_project_without_migrations_is_behind(project: Supabase) -> None:
    await asyncio.to_thread(project.execute, "drop table public.comet_migrations cascade")
    await asyncio.to_thread(project.reload_schema)
    with refusal(project, "schema"):
        await SupabaseStore(project.url, project.secret_key).open()


async def test_a_table_or_function_that_is_not_granted_is_a_matter_of_rights(
    project: Supabase, store: SupabaseStore
) -> None:
    await asyncio.to_thread(
        project.execute,
        "revoke execute on function public.comet_echo from service_role;"
        "revoke all on public.kept from service_role;"
        "revoke all on public.comet_migrations from service_role;",
    )
    for verb in ("echo", "import_keep"):
        with refusal(project, "rights"):
            await store.call(verb)
    with refusal(project, "rights"):
        await store.schema_version()


async def test_row_level_security_that_refuses_is_a_matter_of_rights(
    project: Supabase, store: SupabaseStore
) -> None:
    """service_role passes by it, but a policy of the operator's may stand for another role."""
    await asyncio.to_thread(
        project.execute,
        "alter table public.kept enable row level security;"
        "grant all on public.kept to authenticated;"
        "grant execute on function public.comet_keep to authenticated;",
    )
    user = SupabaseStore(project.url, project.anon_key)
    await user._connect()
    assert user._client is not None
    user._client.postgrest.auth(project.user_key())
    with refusal(project, "rights") as said:
        await user._send("keep", '{"id": 1}')
    assert "42501" in said[0].detail
    await user.close()


async def test_a_stale_schema_cache_is_mended_by_migrate(project: Supabase) -> None:
    with project.stale_cache():
        await asyncio.to_thread(
            project.execute,
            "create function public.comet_late(p jsonb) returns jsonb language sql as "
            "$$ select p $$; grant execute on function public.comet_late to service_role;",
        )
        store = SupabaseStore(project.url, project.secret_key)
        await store.open()
        with refusal(project, "schema"):
            await store.call("late")
        async with connect(project.dsn) as connection:
            assert await pg_migrations.migrate(connection) == []
        deadline = time.monotonic() + 10
        while True:
            try:
                assert await store.call("late") == {"bot": "primary"}
                break
            except StoreUnavailable as error:
                assert error.reason in ("schema", "away") and time.monotonic() < deadline
                await asyncio.sleep(0.05)
        await store.close()
