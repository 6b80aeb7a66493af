"""Keeping house in a shared database: nothing lost, nothing done twice, whoever does it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from bot.core.observation import MonitorStatus
from bot.services.janitor import retention
from bot.services.remote_janitor import BETWEEN_S, RemoteJanitor
from bot.storage.postgres import PostgresStore
from bot.storage.store import StoreError, StoreUnavailable
from bot.storage.supabase import SupabaseStore
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import MIGRATIONS
from tests.test_store_contract import poll, sample

SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
NOW = datetime.now(UTC).replace(microsecond=0)
THIS_HOUR = NOW.replace(minute=0, second=0)
KEEP = retention(metrics_days=30, hourly_days=400, conversation_days=90, music_days=90, log_days=30)
DOWN, UP = MonitorStatus.DOWN, MonitorStatus.UP


@asynccontextmanager
async def opened(dsn: str, bot_id: str = "primary") -> AsyncIterator[PostgresStore]:
    store = PostgresStore(dsn, bot_id=bot_id)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest_asyncio.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def keep_house(db: asyncpg.Connection[asyncpg.Record], by: str = "bot") -> Mapping[str, Any]:
    text = await db.fetchval(
        "select public.comet_housekeeping(jsonb_build_object('by', $1::text))", by
    )
    done: dict[str, Any] = json.loads(text)
    return done


async def hourly(
    db: asyncpg.Connection[asyncpg.Record], hour: datetime, name: str = "cpu_usage"
) -> dict[str, float]:
    rows = await db.fetch(
        "select bot_id, avg_value from metrics_hourly where hour = $1 and metric_name = $2",
        hour,
        name,
    )
    return {row["bot_id"]: row["avg_value"] for row in rows}


# Roll-ups


async def test_late_rows_of_every_bot_get_into_their_hours(any_database: str) -> None:
    hour = THIS_HOUR - 5 * HOUR
    db = await asyncpg.connect(any_database)
    async with opened(any_database, "a") as a, opened(any_database, "b") as b:
        await a.save_sample(sample(hour, "a", cpu_usage=20.0))
        await b.save_sample(sample(hour, "b", cpu_usage=50.0))
        done = await keep_house(db)
        assert (done["rolled_up"], done["more"]) == (2, False)
        assert await hourly(db, hour) == {"a": 20.0, "b": 50.0}
        assert (await keep_house(db))["rolled_up"] == 0
        await b.save_sample(sample(hour + MINUTE, "b", cpu_usage=70.0))
        await a.save_metric(uuid4(), "songs", 3.0, {}, hour + HOUR)
        assert (await keep_house(db))["rolled_up"] == 2
        assert await hourly(db, hour) == {"a": 20.0, "b": 60.0}
        assert await hourly(db, hour + HOUR, "songs") == {"a": 3.0}
    await db.close()


async def test_rows_written_by_hand_count_too(db: asyncpg.Connection[asyncpg.Record]) -> None:
    hour = THIS_HOUR - 5 * HOUR
    await db.execute(
        "insert into system_metrics (timestamp, metric_name, metric_value) "
        "values ($1::timestamptz, 'recipes', 3)".replace("$1", f"'{hour.isoformat()}'")
    )
    await keep_house(db)
    assert await hourly(db, hour, "recipes") == {"primary": 3.0}


async def test_the_running_hour_and_the_one_just_over_are_left_alone(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database) as store:
        await store.save_sample(sample(datetime.now(UTC), cpu_usage=20.0))
        assert (await keep_house(db))["rolled_up"] == 0
        await db.execute("update comet_due_hours set hour = now() - interval '61 minutes'")
        assert (await keep_house(db))["rolled_up"] == 0
        await db.execute("update comet_due_hours set hour = now() - interval '63 minutes'")
        assert (await keep_house(db))["rolled_up"] == 1


async def test_an_hour_that_somebody_is_writing_to_waits_and_nothing_is_missed(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    hour = THIS_HOUR - 5 * HOUR
    async with opened(database) as store:
        await store.save_sample(sample(hour, cpu_usage=20.0))
        other = await asyncpg.connect(database)
        writing = other.transaction()
        await writing.start()
        await other.execute(
            "insert into system_stats (timestamp, cpu_usage) values ($1, 40)", hour + MINUTE
        )
        # Not seen yet, so the hour is not rolled up over its head.
        assert (await keep_house(db))["rolled_up"] == 0
        await writing.commit()
        await other.close()
        assert (await keep_house(db))["rolled_up"] == 1
        assert await hourly(db, hour) == {"primary": 30.0}


async def test_a_row_that_comes_during_a_roll_up_notes_its_hour_anew(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    hour = THIS_HOUR - 5 * HOUR
    async with opened(database) as store:
        await store.save_sample(sample(hour, cpu_usage=20.0))
        rolling = db.transaction()
        await rolling.start()
        assert (await keep_house(db))["rolled_up"] == 1
        late = asyncio.create_task(store.save_sample(sample(hour + MINUTE, cpu_usage=40.0)))
        await asyncio.sleep(0.2)
        assert not late.done()
        await rolling.commit()
        await late
        assert await store.due_hours(NOW, 10) == [hour]
        await keep_house(db)
        assert await hourly(db, hour) == {"primary": 30.0}


async def test_hours_are_whole_in_utc_whatever_the_session_thinks(
    db: asyncpg.Connection[asyncpg.Record],
) -> None:
    await db.execute("set timezone = 'Asia/Kolkata'")
    await db.execute(
        "insert into system_stats (timestamp, cpu_usage) values ('2026-01-01 10:45:00+00', 20)"
    )
    await keep_house(db)
    assert await hourly(db, datetime(2026, 1, 1, 10, tzinfo=UTC)) == {"primary": 20.0}


async def test_somebody_who_may_only_insert_metrics_still_can(
    db: asyncpg.Connection[asyncpg.Record],
) -> None:
    role = f"writer_{uuid4().hex[:8]}"
    await db.execute(f"create role {role}; grant {role} to current_user")
    try:
        await db.execute(f"grant insert on custom_metrics to {role}")
        await db.execute(f"create policy writers on custom_metrics to {role} with check (true)")
        await db.execute(f"grant usage on schema public to {role}")
        await db.execute(f"set role {role}")
        await db.execute(
            "insert into public.custom_metrics (metric_name, metric_value) values ('x', 1)"
        )
        await db.execute("reset role")
        assert await db.fetchval("select count(*) from comet_due_hours") == 1
    finally:
        await db.execute(f"reset role; drop owned by {role}; drop role {role}")


async def test_what_was_there_before_is_rolled_up_once(
    postgres: PostgresServer, empty_database: str
) -> None:
    scripts = [path.read_text() for path in sorted(MIGRATIONS.glob("*.sql"))]
    db = await asyncpg.connect(empty_database)
    for script in scripts[:6]:
        await db.execute(script)
    hour = THIS_HOUR - 5 * HOUR
    await db.execute("insert into system_stats (timestamp, cpu_usage) values ($1, 20)", hour)
    for _ in range(2):
        await db.execute(scripts[6])
    assert await db.fetchval("select count(*) from comet_due_hours") == 1
    await keep_house(db)
    assert await hourly(db, hour) == {"primary": 20.0}
    await db.execute(scripts[6])
    assert await db.fetchval("select count(*) from comet_due_hours") == 0
    await db.close()


# Retention


async def test_of_several_wishes_the_longest_counts(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async def days(kind: str) -> float:
        cutoffs = json.loads(await db.fetchval("select public.comet_cutoffs()"))
        age = datetime.now(UTC) - datetime.fromisoformat(cutoffs[kind])
        return round(age / DAY, 2)

    assert await days("samples") == 30
    assert await days("polls") == 2
    async with opened(database, "a") as a, opened(database, "b") as b:
        await a.set_retention({**KEEP, "samples": 7 * DAY})
        assert await days("samples") == 7
        await b.set_retention({**KEEP, "samples": 60 * DAY})
        assert await days("samples") == 60
        await b.set_retention({**KEEP, "samples": 3 * DAY})
        assert await days("samples") == 7
        assert await days("bot_logs") == 30
        with pytest.raises(StoreError):
            await a.set_retention({"everything": DAY})


async def test_housekeeping_deletes_by_the_wishes_and_rolls_up_first(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    old = THIS_HOUR - 10 * DAY
    async with opened(database) as store:
        await store.set_retention({**KEEP, "samples": 7 * DAY})
        for n in range(20):
            await store.save_sample(sample(old + n * MINUTE, cpu_usage=20.0))
        await store.save_sample(sample(NOW - 6 * DAY, cpu_usage=20.0))
        await store.save_poll(poll(NOW - 3 * DAY, {"main:1": UP}))
        await store.save_poll(poll(NOW - 3 * DAY + MINUTE, {"main:1": UP}))
    done = await keep_house(db)
    assert done["deleted"]["samples"] == 20
    assert done["deleted"]["polls"] == 1
    assert await hourly(db, old) == {"primary": 20.0}
    assert await db.fetchval("select count(*) from system_stats") == 1


async def test_each_bot_keeps_its_newest_poll(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database, "a") as a, opened(database, "b") as b:
        for store, days in ((a, 9), (b, 8)):
            for minute in range(3):
                await store.save_poll(poll(NOW - days * DAY + minute * MINUTE, {"main:1": UP}))
        assert await a.delete_expired({"polls": NOW}, 100) == {"polls": 4}
        assert len(await a.load_monitors()) == len(await b.load_monitors()) == 1


async def test_rosters_go_only_long_after_the_last_that_speaks_of_them(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database) as store:
        await store.save_poll(poll(NOW - 9 * DAY, {"main:1": UP}))
        await store.save_poll(poll(NOW - 8 * DAY, {"main:1": UP, "main:2": DOWN}))
        await store.delete_expired({"polls": NOW}, 100)
    assert await db.fetchval("select public.comet_delete_rosters()") == 0
    await db.execute("update rosters set created_at = now() - interval '401 days'")
    assert await db.fetchval("select public.comet_delete_rosters()") == 1
    assert await db.fetchval("select cardinality(keys) from rosters") == 2


async def test_rows_that_somebody_is_at_do_not_hold_the_deletion_up(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database) as store:
        for n in range(5):
            await store.save_sample(sample(NOW - 50 * DAY + n * MINUTE, cpu_usage=20.0))
        other = await asyncpg.connect(database)
        reading = other.transaction()
        await reading.start()
        await other.execute(
            "select from system_stats where timestamp = $1 for update", NOW - 50 * DAY
        )
        async with asyncio.timeout(5):
            assert await store.delete_expired({"samples": NOW}, 100) == {"samples": 4}
        await reading.rollback()
        await other.close()
        assert await store.delete_expired({"samples": NOW}, 100) == {"samples": 1}


# Never two at once


async def test_two_bots_at_once_are_one_round(database: str) -> None:
    async with opened(database, "a") as a, opened(database, "b") as b:
        for n in range(40):
            await a.save_sample(sample(THIS_HOUR - (n + 2) * HOUR, "a", cpu_usage=20.0))
        answers = await asyncio.gather(*(s.call("housekeeping", by="bot") for s in (a, b) * 3))
        rounds = [answer for answer in answers if "skipped" not in answer]
        assert sum(done["rolled_up"] for done in rounds) == 40
        held = await asyncpg.connect(database)
        holding = held.transaction()
        await holding.start()
        await keep_house(held)
        assert await a.call("housekeeping", by="bot") == {"skipped": "busy"}
        assert await b.housekeeping() is False
        await holding.rollback()
        await held.close()
        assert "skipped" not in await a.call("housekeeping", by="bot")


async def test_with_pg_cron_the_bots_stand_back(cron_server: PostgresServer) -> None:
    """Against the real pg_cron where there is one, else against what stands in for it."""
    dsn = cron_server.dsn("cron")
    db = await asyncpg.connect(dsn)
    assert await db.fetchval("select public.comet_schedule()") == "pg_cron keeps house"
    await db.fetchval("select public.comet_schedule()")
    jobs = await db.fetch("select jobid, jobname, schedule, command, active from cron.job")
    assert [(job["jobname"], job["schedule"]) for job in jobs] == [
        ("comet-housekeeping", "*/5 * * * *")
    ]
    async with opened(dsn) as store:
        await store.save_sample(sample(THIS_HOUR - 5 * HOUR, cpu_usage=20.0))
        assert await store.call("housekeeping", by="bot") == {"skipped": "pg_cron"}
        # What service_role sees of cron's tables is nothing; it must be told all the same.
        await db.execute("set role service_role")
        assert await keep_house(db) == {"skipped": "pg_cron"}
        await db.execute("reset role")
        done = json.loads(await db.fetchval(jobs[0]["command"]))
        assert done["rolled_up"] == 1
        # A job that does not come any more, was switched off or taken away keeps no house.
        await db.execute(
            "update comet_chores set done_at = now() - interval '2 hours' where chore = 'pg_cron'"
        )
        assert "skipped" not in await store.call("housekeeping", by="bot")
        await db.fetchval(jobs[0]["command"])
        assert await store.call("housekeeping", by="bot") == {"skipped": "pg_cron"}
        await db.fetchval("select cron.unschedule('comet-housekeeping')")
        assert "skipped" not in await store.call("housekeeping", by="bot")
    await db.close()


async def test_without_pg_cron_scheduling_is_harmless(
    db: asyncpg.Connection[asyncpg.Record],
) -> None:
    said = await db.fetchval("select public.comet_schedule()")
    assert said == "pg_cron is not there: the bots keep house"


# As Supabase has it


async def test_a_bot_keeps_house_through_the_gateway(supabase: Supabase) -> None:
    store = SupabaseStore(supabase.url, supabase.secret_key)
    await store.open()
    try:
        await store.set_retention(KEEP)
        await store.save_sample(sample(NOW - 50 * DAY, cpu_usage=20.0))
        assert await store.housekeeping() is False
        assert supabase.fetch("select count(*) from system_stats") == [(0,)]
        assert supabase.fetch("select avg_value from metrics_hourly") == [(20.0,)]
    finally:
        await store.close()


async def test_only_the_service_may_keep_house(db: asyncpg.Connection[asyncpg.Record]) -> None:
    for role in ("anon", "authenticated"):
        await db.execute(f"set role {role}")
        for query in (
            "select public.comet_housekeeping('{}')",
            "select public.comet_cron_keeps_house()",
            "select * from public.comet_retention",
            "select * from public.comet_due_hours",
            "select * from public.comet_chores",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute(query)
        await db.execute("reset role")


async def test_a_view_that_takes_too_long_undoes_nothing(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database) as store:
        await store.save_sample(sample(NOW - 50 * DAY, cpu_usage=20.0))
    await db.execute(
        "create or replace function public.refresh_metrics_views() returns void "
        "language sql security definer as 'select pg_sleep(9)'"
    )
    await db.execute("set statement_timeout = '700ms'")
    done = await keep_house(db)
    assert (done["refreshed"], done["rolled_up"], done["deleted"]["samples"]) == (False, 1, 1)
    assert await db.fetchval("select count(*) from system_stats") == 0


async def test_the_view_is_refreshed_now_and_then(
    database: str, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    async with opened(database) as store:
        await store.save_sample(sample(NOW - MINUTE, cpu_usage=20.0))
    assert (await keep_house(db))["refreshed"] is True
    assert await db.fetchval("select avg_value from metrics_last_24h") == 20.0
    assert (await keep_house(db))["refreshed"] is False
    await db.execute("update comet_chores set done_at = now() - interval '11 minutes'")
    assert (await keep_house(db))["refreshed"] is True


# The service that asks


class Remote:
    """A remote store that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.more = False
        self.error: StoreError | None = None

    async def set_retention(self, keep: Mapping[str, timedelta]) -> None:
        await self._answer("set_retention")

    async def housekeeping(self) -> bool:
        await self._answer("housekeeping")
        return self.more

    async def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error


async def test_the_bot_asks_every_few_minutes_and_at_once_while_there_is_more() -> None:
    remote, clock = Remote(), [0.0]
    janitor = RemoteJanitor(remote, KEEP, lambda: clock[0])

    async def run(minutes: int, tick: Callable[[], Awaitable[None]]) -> int:
        before = remote.asked.count("housekeeping")
        for _ in range(minutes):
            clock[0] += 60
            await tick()
        return remote.asked.count("housekeeping") - before

    assert 8 <= await run(60, janitor.tick) <= 15
    assert remote.asked.count("set_retention") == 1
    remote.more = True
    assert await run(20, janitor.tick) >= 20 - BETWEEN_S[1] / 60


async def test_trouble_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    remote, clock = Remote(), [0.0]
    janitor = RemoteJanitor(remote, KEEP, lambda: clock[0])
    for error in (StoreUnavailable("away"), StoreError("refused", "no", retriable=False)):
        remote.error = error
        for _ in range(60):
            clock[0] += 60
            await janitor.tick()
    assert remote.asked.count("housekeeping") == 0
    assert remote.asked.count("set_retention") > 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    remote.error = None
    for _ in range(10):
        clock[0] += 60
        await janitor.tick()
    assert remote.asked.count("housekeeping") >= 1
