"""Copying to real remote stores: in order, exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from bot.core.alert import Ending, FlipKind, Phase
from bot.core.incident import Incident, OutboxStatus
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.delivery import Delivery
from bot.services.recorder import Recorder
from bot.storage import copier as copier_module
from bot.storage.copier import Copier
from bot.storage.kinds import KINDS, FactGroup
from bot.storage.pg_store import PgStore
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Conversation, Decision, LogLine, Receipt, Song, StoreError
from bot.storage.supabase import SupabaseStore
from tests.peers.postgres.faults import PASSING, Fault
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.test_alerting import describe
from tests.test_delivery import Plain
from tests.test_store_contract import (
    DOWN,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    UP,
    card_of,
    flip_of,
    incident,
    outbox_of,
    poll,
    sample,
    state_of,
)
from tests.test_travel import config_of, everything, live_a_little, without


class Clock:
    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


class Hasty(random.Random):
    """Tries again at once."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """Lets every call of something through until its hour has come."""

    def __init__(self, inner: object, hour: Hour) -> None:
        self._inner, self._hour = inner, hour

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(inner):
            return inner

        async def call(*args: object, **named: object) -> object:
            self._hour.strike()
            answer = await inner(*args, **named)
            self._hour.strike()
            return answer

        return call


class Hour:
    def __init__(self, strokes: int) -> None:
        self.left = strokes

    def strike(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@asynccontextmanager
async def opened(path: Path, clock: Clock, bot_id: str = "primary") -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, bot_id=bot_id)
    await store.open()
    await store.start_journal(clock)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def local(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path / "local.db", clock) as store:
        yield store


@pytest_asyncio.fixture
async def remote(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database, timeout_s=5)
    yield store
    await store.close()


def copier_of(local: object, remote: object, clock: Clock, bot_id: str = "primary") -> Copier:
    return Copier(local, remote, bot_id, clock, rng=Hasty())  # type: ignore[arg-type]


async def settle(copier: Copier, ticks: int = 400) -> None:
    """Beat until nothing waits and nothing is left to walk or to fetch."""
    for _ in range(ticks):
        await copier.tick()
        await copier._measure(is_due=True)
        status = copier.status
        if status.depth == 0 and status.phase.value == "copying" and status.reason is None:
            return
    raise AssertionError(copier.status)


def alerting_of(local: SqliteStore, clock: Clock) -> Alerting:
    recorder, audience = Recorder(local), Audience(["9"], has_only_webhook=False)
    delivery = Delivery(recorder, audience, Plain(), clock, uuid4)
    return Alerting(recorder, audience, delivery, describe, clock, uuid4)


async def same(local: SqliteStore, remote: PgStore, *, but: tuple[str, ...] = ()) -> None:
    """Every row is in both, and is the same."""
    await remote.open()
    for kind in KINDS:
        if kind.name not in but:
            drop = (*kind.unverified, "revision")
            here = without(drop, await everything(local, kind.name, 500))
            assert without(drop, await everything(remote, kind.name, 500)) == here, kind.name


async def decide(store: SqliteStore, at: datetime, number: int) -> Incident:
    """An alert fires, is told, and is resolved."""
    told = incident(at, rule_name=f"rule {number}")
    item = outbox_of(told)
    await store.record_decision(
        Decision(
            states=[state_of(told, rule_name=told.rule_name)],
            flips=[flip_of(told)],
            incidents=[told],
            outbox=[item],
        )
    )
    card = card_of(told)
    await store.record_receipt(
        Receipt(cards=[card], outbox=[replace(item, status=OutboxStatus.DELIVERED)])
    )
    done = replace(told, version=2, resolved_at=at + SECOND, ending=Ending.CLEARED)
    await store.record_decision(
        Decision(forgotten=[(told.rule_name, told.subject)], incidents=[done])
    )
    await store.record_receipt(Receipt(cards=[replace(card, closed_at=at + SECOND)]))
    return done


# The usual way


async def test_what_happens_is_copied_and_the_journal_is_empty_afterwards(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    assert await copier.fill()
    await live_a_little(local)
    waiting = await local.journal_size()
    assert waiting.depth > 200
    await settle(copier)
    await same(local, remote)
    status = copier.status
    assert (status.depth, status.refused, status.given_up) == (0, 0, 0)
    assert status.copied_total >= waiting.depth
    assert status.away_s == 0.0
    assert status.last_copied_at == clock()
    await local.save_guild_config(config_of("10", alert_channel_id="5", updated_at=NOW + HOUR))
    await local.remove_guild_config("9")
    await local.forget_monitor("main:z")
    await settle(copier)
    await same(local, remote)
    assert len(await local._read(lambda db: db.execute("SELECT * FROM journal").fetchall())) <= 1


async def test_without_a_remote_nothing_is_noted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "alone.db")
    await store.open()
    await live_a_little(store, hours=1)
    assert (await store.journal_size()).depth == 0
    assert await store.copy_state() == {}
    await store.close()


async def test_what_was_there_before_is_walked_through_once(
    tmp_path: Path, remote: PostgresStore, clock: Clock
) -> None:
    alone = SqliteStore(tmp_path / "local.db")
    await alone.open()
    await live_a_little(alone)
    await alone.close()
    async with opened(tmp_path / "local.db", clock) as local:
        copier = copier_of(local, remote, clock)
        assert await copier.fill()
        assert copier.status.phase.value == "catching_up"
        await local.save_sample(sample(NOW + 9 * HOUR, cpu_usage=3.0))
        await settle(copier)
        await same(local, remote)
        assert copier.status.copied_total == 1


async def test_what_was_written_without_a_journal_is_walked_through_later(
    tmp_path: Path, remote: PostgresStore, clock: Clock
) -> None:
    async with opened(tmp_path / "local.db", clock) as local:
        await live_a_little(local)
        await settle(copier_of(local, remote, clock))
    async with _plain(tmp_path / "local.db") as alone:
        assert (await alone.copy_state())["walk"] == "done"
        state = (await alone.load_alerting()).states[0]
        await alone.save_sample(sample(NOW + 8 * HOUR, cpu_usage=8.0))
        await alone.record_decision(Decision(forgotten=[(state.rule_name, state.subject)]))
        await alone.remove_guild_config("10")
    async with opened(tmp_path / "local.db", clock) as local:
        await settle(copier_of(local, remote, clock))
        await same(local, remote)


@asynccontextmanager
async def _plain(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


async def test_two_bots_share_a_database(tmp_path: Path, database: str, clock: Clock) -> None:
    for bot_id in ("alpha", "beta"):
        remote = PostgresStore(database, bot_id=bot_id)
        async with opened(tmp_path / f"{bot_id}.db", clock, bot_id) as local:
            await live_a_little(local, bot_id, hours=1)
            await settle(copier_of(local, remote, clock, bot_id))
            for kind in KINDS:
                here = await everything(local, kind.name, 500)
                page = await remote.export_rows(kind.name, None, 1000, bot_id=bot_id)
                if kind.name != "daily_summaries":
                    assert len(page.rows) == len(here) > 0, kind.name
        await remote.close()


# Bad days


async def test_an_hour_through_a_failing_gateway_arrives_exactly_once_and_in_order(
    local: SqliteStore, supabase: Supabase, clock: Clock
) -> None:
    remote = SupabaseStore(supabase.url, supabase.secret_key, timeout_s=2)
    copier = copier_of(local, remote, clock)
    assert await copier.fill()
    supabase.faults.randomly(seed=7, rate=0.4)
    sent: list[tuple[int, int]] = []
    inner = remote.copy

    async def copy(stream: UUID, after: int, last: int, facts: Any) -> int:
        sent.append((after, last))
        return await inner(stream, after, last, facts)

    remote.copy = copy  # type: ignore[method-assign]
    for number in range(360):
        at = NOW + number * 10 * SECOND
        clock.at = at
        await local.save_sample(sample(at, cpu_usage=float(number)))
        if number % 6 == 0:
            await local.save_poll(poll(at, {"main:1": UP, "main:2": DOWN}))
        if number % 20 == 0:
            await decide(local, at, number)
        if number % 4 == 0:
            await copier.tick()
        if number == 180:
            supabase.faults.next(Fault.HANG)
    supabase.faults.next(Fault.ANSWER_LOST, None, Fault.ANSWER_LOST, Fault.TRUNCATED)
    await settle(copier)
    seen = supabase.faults.seen
    supabase.faults.clear()
    assert set(PASSING) <= set(seen)
    await same(local, remote)
    known = [after for after, _ in sent]
    assert known == sorted(known)
    assert copier.status.given_up == copier.status.refused == 0
    rows = supabase.fetch("SELECT count(*), count(DISTINCT id) FROM public.system_stats")
    assert rows == [(360, 360)]
    order = supabase.fetch("SELECT resolved, version FROM public.alert_history")
    assert order == [(True, 2)] * 18
    await remote.close()


async def test_a_kill_at_any_point_loses_and_doubles_nothing(
    tmp_path: Path, database: str, clock: Clock
) -> None:
    path = tmp_path / "local.db"
    async with _plain(path) as alone:
        await live_a_little(alone, hours=1)
    kills, strokes = 0, 1
    while True:
        remote = PostgresStore(database)
        async with opened(path, clock) as local:
            clock.at += MINUTE
            await local.save_sample(sample(clock.at, cpu_usage=1.0))
            await decide(local, clock.at, kills)
            hour = Hour(strokes)
            copier = copier_of(Mortal(local, hour), Mortal(remote, hour), clock)
            try:
                await copier.fill()
                await settle(copier)
            except Killed:
                kills += 1
                strokes = strokes + 1 if strokes < 30 else strokes + 7
            else:
                assert copier.status.given_up == copier.status.refused == 0
                await same(local, remote)
                await remote.close()
                break
        await remote.close()
    assert kills > 25


async def test_a_killed_database_is_waited_for(
    local: SqliteStore, postgres: PostgresServer, clock: Clock
) -> None:
    with PostgresServer(15) as server:
        from tests.peers.postgres.world import make_world, migrate

        name = server.create_database()
        make_world(server, name)
        migrate(server, name)
        remote = PostgresStore(server.dsn(name), timeout_s=5)
        copier = copier_of(local, remote, clock)
        await live_a_little(local, hours=1)
        await copier.tick()
        server.kill()
        await decide(local, NOW, 1)
        await copier.tick()
        await copier.tick()
        status = copier.status
        assert status.reason == "away" and status.away_s > 0
        assert status.depth or await local.journal_page(1)
        server.start()
        await settle(copier)
        await same(local, remote)
        await remote.close()


async def test_a_fired_alert_never_replaces_a_resolved_one(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    told = incident()
    await local.record_decision(Decision(incidents=[told], states=[state_of(told)]))
    fired = await local.journal_page(10)
    await settle(copier)
    clock.at -= HOUR
    done = replace(told, version=2, resolved_at=NOW, ending=Ending.CLEARED)
    waiting = state_of(told, phase=Phase.PENDING)
    await local.record_decision(Decision(incidents=[done], states=[waiting]))
    await settle(copier)
    for position, kind, row in fired:
        assert row is not None and row["revision"] == position
        await remote.import_rows(kind, [row])
    await same(local, remote)
    (stored,) = await remote.incidents(NOW - HOUR, 9)
    assert stored == done


async def test_positions_only_rise_while_the_clock_steps_back(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    positions = []
    for step in (0 * SECOND, -HOUR, 5 * SECOND, -2 * HOUR):
        clock.at = NOW + step
        await decide(local, NOW + step, 1)
        positions += [noted.position for noted in await local.journal_page(99)]
        await settle(copier)
    assert positions == sorted(set(positions))
    await same(local, remote)
    assert copier.status.refused == 0


async def test_a_poisoned_row_is_set_aside_and_the_rest_arrives(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    lines = [LogLine(uuid4(), "ERROR", "x", f"line {n}", {}, NOW) for n in range(40)]
    await local.save_log_lines(lines[:23])
    statement = "INSERT INTO bot_logs (id, level, message) VALUES ('no uuid', 'ERROR', 'poison')"
    await local._write(lambda db: db.execute(statement).rowcount)
    await local.save_log_lines(lines[23:])
    await settle(copier)
    assert await remote.count_rows("bot_logs") == 40
    assert (copier.status.refused, copier.status.copied_total) == (1, 40)
    query = "SELECT kind, json_extract(body, '$.message'), reason FROM copy_refused"
    ((kind, message, reason),) = await local._read(lambda db: db.execute(query).fetchall())
    assert (kind, message) == ("bot_logs", "poison")
    assert "22P02" in reason
    assert "no uuid" not in reason


async def test_a_poisoned_row_of_the_past_is_set_aside_too(
    tmp_path: Path, remote: PostgresStore, clock: Clock
) -> None:
    async with _plain(tmp_path / "local.db") as alone:
        await alone.save_log_lines(
            [LogLine(uuid4(), "ERROR", "x", f"line {n}", {}, NOW) for n in range(20)]
        )
        statement = "INSERT INTO bot_logs (id, level, message) VALUES ('no uuid', 'ERROR', 'x')"
        await alone._write(lambda db: db.execute(statement).rowcount)
        await alone.save_sample(sample(NOW, cpu_usage=1.0))
    async with opened(tmp_path / "local.db", clock) as local:
        copier = copier_of(local, remote, clock)
        await settle(copier)
        assert await remote.count_rows("bot_logs") == 20
        assert await remote.count_rows("samples") == 1
        assert copier.status.refused == 1


async def test_too_much_that_waits_costs_the_oldest_samples_and_no_alert(
    local: SqliteStore, remote: PostgresStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copier_module, "MAX_ROWS", 100)
    monkeypatch.setattr(copier_module, "GIVE_UP_ROWS", 30)
    copier = copier_of(local, remote, clock)
    for number in range(200):
        await local.save_sample(sample(NOW + number * SECOND, cpu_usage=1.0))
        if number % 10 == 0:
            await decide(local, NOW, number)
    before = await local.journal_size()
    await copier._measure(is_due=True)
    after = await local.journal_size()
    assert 70 < after.depth <= max(100, before.depth - 199)
    assert copier.status.given_up == before.depth - after.depth
    await settle(copier)
    assert await remote.count_rows("incidents") == 20
    newest = [row["timestamp"] for row in await everything(remote, "samples", 500)]
    kept = [row["timestamp"] for row in await everything(local, "samples", 500)]
    assert newest == kept[len(kept) - len(newest) :]


async def test_rows_that_expire_before_they_were_sent_count_as_given_up(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    for number in range(10):
        await local.save_sample(sample(NOW + number * MINUTE, cpu_usage=1.0))
    await local.delete_expired({"samples": NOW + 4 * MINUTE}, 100)
    await settle(copier)
    assert (copier.status.given_up, copier.status.copied_total) == (4, 6)
    await same(local, remote)


@pytest.mark.parametrize(
    ("fault", "reason"), [(Fault.UNAUTHORIZED_401, "key"), (Fault.PAUSED_540, "away")]
)
async def test_trouble_keeps_everything_and_says_why(
    local: SqliteStore,
    supabase: Supabase,
    clock: Clock,
    fault: Fault,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote = SupabaseStore(supabase.url, supabase.secret_key, timeout_s=2)
    copier = copier_of(local, remote, clock)
    assert copier.status.away_s == 0
    await decide(local, NOW, 1)
    supabase.faults.always(fault)
    for _ in range(4):
        await copier.tick()
        copier._next_try_s = min(copier._next_try_s, 0.0) if reason == "away" else 0.0
    await copier._measure(is_due=True)
    status = copier.status
    assert status.reason == reason
    assert status.away_s >= 0
    assert status.depth == len(await local.journal_page(99)) > 5
    said = [record for record in caplog.records if "cannot be had" in record.message]
    assert len(said) == (reason == "key")
    supabase.faults.clear()
    await settle(copier)
    await same(local, remote)
    await remote.close()


async def test_a_remote_whose_migrations_are_behind_gets_nothing_until_they_are_there(
    local: SqliteStore, supabase: Supabase, clock: Clock
) -> None:
    remote = SupabaseStore(supabase.url, supabase.secret_key)
    copier = copier_of(local, remote, clock)
    await settle(copier)
    supabase.execute("UPDATE public.comet_migrations SET number = -number WHERE number > 5")
    await decide(local, NOW, 1)
    copier._next_try_s = 0.0
    await copier.tick()
    assert copier.status.reason == "schema"
    assert copier._next_try_s > 50
    supabase.execute("UPDATE public.comet_migrations SET number = -number WHERE number < 0")
    copier._next_try_s = 0.0
    await settle(copier)
    await same(local, remote)
    await remote.close()


async def test_unexpected_trouble_is_said_once_and_outlived(
    local: SqliteStore,
    remote: PostgresStore,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copier = copier_of(local, remote, clock)
    await decide(local, NOW, 1)

    async def broken(*_: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(remote, "copy", broken)
        for _ in range(3):
            copier._next_try_s = 0.0
            await copier.tick()
    assert len([r for r in caplog.records if "unexpectedly" in r.message]) == 1
    copier._next_try_s = 0.0
    await settle(copier)
    await same(local, remote)


# Lives that cross


async def test_a_remote_restored_from_a_backup_gets_again_what_it_lost(
    local: SqliteStore,
    postgres: PostgresServer,
    database: str,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = database.rsplit("/", 1)[1].split("?")[0]
    first = PostgresStore(database)
    await live_a_little(local, hours=1)
    talk = Conversation(uuid4(), "77", "name", "prompt", "response", NOW)
    await local.save_conversation(talk)
    clock.at += timedelta(days=3)
    await settle(copier_of(local, first, clock))
    await first.close()
    backup = postgres.create_database(template=name)
    clock.at += timedelta(days=1)
    first = PostgresStore(database)
    (was_open,) = await local.open_incidents()
    state = (await local.load_alerting()).states[0]
    await local.record_decision(
        Decision(
            forgotten=[(state.rule_name, state.subject)],
            incidents=[replace(was_open, version=5, resolved_at=NOW, ending=Ending.CLEARED)],
        )
    )
    await local.save_sample(sample(clock.at, cpu_usage=9.0))
    await local.remove_guild_config("10")
    await local.delete_member_data("77", clock.at)
    copier = copier_of(local, first, clock)
    await settle(copier)
    await same(local, first)
    await first.close()

    restored = PostgresStore(postgres.dsn(backup))
    await restored.open()
    assert len((await restored.member_data("77")).conversations) == 1
    copier._remote = copier._link.remote = restored
    copier._looked_s = None
    await settle(copier)
    await same(local, restored)
    assert (await restored.member_data("77")).conversations == []
    assert len([r for r in caplog.records if "lacks what it had" in r.message]) == 1
    await local.save_sample(sample(clock.at + SECOND, cpu_usage=9.0))
    await settle(copier)
    await same(local, restored)
    await restored.close()


async def test_a_remote_swapped_for_its_backup_between_two_batches_is_noticed(
    local: SqliteStore, postgres: PostgresServer, database: str, clock: Clock
) -> None:
    name = database.rsplit("/", 1)[1].split("?")[0]
    first = PostgresStore(database)
    await live_a_little(local)
    copier = copier_of(local, first, clock)
    await settle(copier)
    await first.close()
    backup = postgres.create_database(template=name)
    first = copier._remote = copier._link.remote = PostgresStore(database)
    await first.open()
    clock.at += HOUR
    await decide(local, clock.at, 1)
    await settle(copier)
    await first.close()
    restored = copier._remote = copier._link.remote = PostgresStore(postgres.dsn(backup))
    # No call of ours came in between: whoever restores well is done within a beat.
    await restored.open()
    await local.save_sample(sample(clock.at, cpu_usage=9.0))
    await settle(copier)
    await same(local, restored)
    await restored.close()


async def test_a_local_file_restored_from_a_backup_loses_nothing_new(
    tmp_path: Path, database: str, clock: Clock
) -> None:
    path, backup = tmp_path / "local.db", tmp_path / "backup.db"
    remote = PostgresStore(database)
    async with opened(path, clock) as local:
        await settle(copier_of(local, remote, clock))
        await local.save_sample(sample(NOW, cpu_usage=1.0))
    shutil.copy(path, backup)
    async with opened(path, clock) as local:
        clock.at += HOUR
        await local.save_sample(sample(NOW + SECOND, cpu_usage=2.0))
        await settle(copier_of(local, remote, clock))
    clock.at -= HOUR
    async with opened(backup, clock) as local:
        copier = copier_of(local, remote, clock)
        await local.save_sample(sample(NOW + MINUTE, cpu_usage=3.0))
        await settle(copier)
        clock.at -= HOUR
        await local.save_sample(sample(NOW + HOUR, cpu_usage=4.0))
        await settle(copier)
    rows = await everything(remote, "samples")
    assert [row["cpu_usage"] for row in rows] == [1.0, 2.0, 3.0, 4.0]
    await remote.close()


async def test_two_living_copies_of_one_file_do_not_skip_each_others_rows(
    tmp_path: Path, database: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    remotes = [PostgresStore(database) for _ in range(2)]
    async with opened(tmp_path / "one.db", clock) as one:
        await one.save_guild_config(config_of("10"))
        await settle(copier_of(one, remotes[0], clock))
    shutil.copy(tmp_path / "one.db", tmp_path / "two.db")
    later = Clock(clock.at + HOUR)
    async with (
        opened(tmp_path / "one.db", clock) as one,
        opened(tmp_path / "two.db", later) as two,
    ):
        copiers = [copier_of(one, remotes[0], clock), copier_of(two, remotes[1], later)]
        for copier in copiers:
            await settle(copier)
        for number in range(3):
            # The second is an hour ahead: what the first says lies before its position.
            await two.save_sample(sample(NOW + (10 + number) * SECOND, cpu_usage=2.0))
            await settle(copiers[1])
            await one.save_sample(sample(NOW + number * SECOND, cpu_usage=1.0))
            await settle(copiers[0])
        await same(one, remotes[0], but=("samples",))
        assert await remotes[0].count_rows("samples") == 6
    assert len([r for r in caplog.records if "another copy of this file" in r.message]) == 1
    for remote in remotes:
        await remote.close()


async def test_two_processes_with_one_name_are_told_apart_once(
    tmp_path: Path, database: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    remotes = [PostgresStore(database) for _ in range(2)]
    async with (
        opened(tmp_path / "one.db", clock) as one,
        opened(tmp_path / "two.db", clock) as two,
    ):
        copiers = [
            copier_of(store, remote, clock)
            for store, remote in zip((one, two), remotes, strict=True)
        ]
        for number in range(4):
            for store, copier in zip((one, two), copiers, strict=True):
                await store.save_sample(sample(NOW + number * SECOND, cpu_usage=float(number)))
                copier._looked_s = None
                await settle(copier)
        said = [r for r in caplog.records if "same BOT_ID" in r.message]
        assert len(said) == 2
        assert await remotes[0].count_rows("samples") == 4
    for remote in remotes:
        await remote.close()


async def test_a_member_to_be_forgotten_is_forgotten_everywhere(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    await local.save_conversation(Conversation(uuid4(), "77", "n", "there", "r", NOW))
    await local.save_conversation(Conversation(uuid4(), "78", "n", "other", "r", NOW))
    await settle(copier)
    await local.save_conversation(Conversation(uuid4(), "77", "n", "waiting", "r", NOW))
    await local.save_song(Song(uuid4(), "1", "song", "n", "77", NOW))
    statement = (
        "INSERT INTO conversation_logs (id, user_id, user_name, prompt, response) "
        "VALUES ('no uuid', '77', 'n', 'poison', '')"
    )
    await local._write(lambda db: db.execute(statement).rowcount)
    await local.refuse(None, "music", {"requested_by_id": "77", "song_title": "x"}, "22000")
    assert await local.delete_member_data("77", NOW + timedelta(days=9999)) == 4
    assert [noted.kind for noted in await local.journal_page(99)] == ["member_removed"]
    await settle(copier)
    await same(local, remote)
    assert copier.status.given_up == 0
    count = "SELECT count(*) FROM copy_refused"
    assert await local._read(lambda db: db.execute(count).fetchone()) == (0,)


# An empty disk


async def test_an_empty_disk_is_filled_before_anything_runs(
    tmp_path: Path, database: str, clock: Clock
) -> None:
    remote = PostgresStore(database)
    clock.at = NOW + 2 * HOUR
    async with opened(tmp_path / "old.db", clock) as old:
        await live_a_little(old)
        long_ago = incident(NOW - timedelta(days=20))
        await old.record_decision(Decision(incidents=[long_ago], states=[state_of(long_ago)]))
        for days in (3, 9, 25):
            at = NOW - timedelta(days=days)
            await old.save_sample(sample(at, cpu_usage=float(days)))
            await old.save_conversation(Conversation(uuid4(), "1", "n", "p", "r", at))
        await settle(copier_of(old, remote, clock))
        async with opened(tmp_path / "new.db", clock) as new:
            copier = copier_of(new, remote, clock)
            assert await copier.fill()
            assert copier.status.phase.value == "filling"
            assert await new.load_alerting() == await old.load_alerting()
            assert await new.load_monitors() == await old.load_monitors()
            assert await new.guild_configs() == await old.guild_configs()
            assert await new.count_rows("samples") == 48
            await settle(copier)
            for kind in KINDS:
                if kind.name not in ("cards", "outbox"):
                    rows = await everything(old, kind.name, 100)
                    assert await everything(new, kind.name, 100) == rows, kind.name
            assert copier.status.copied_total == 0
            # A new write of the new life is newer than all of the old, also with a slow clock.
            clock.at -= HOUR
            await new.save_guild_config(
                config_of("10", alert_channel_id="1", updated_at=NOW + HOUR)
            )
            await settle(copier)
            configs = {row["guild_id"]: row for row in await everything(remote, "guild_configs")}
            assert configs["10"]["alert_channel_id"] == "1"
    await remote.close()


async def test_a_start_does_not_wait_for_ever_and_catches_up_without_clashing(
    tmp_path: Path, supabase: Supabase, clock: Clock
) -> None:
    remote = SupabaseStore(supabase.url, supabase.secret_key, timeout_s=2)
    clock.at = NOW + 2 * HOUR
    async with opened(tmp_path / "old.db", clock) as old:
        await live_a_little(old)
        await settle(copier_of(old, remote, clock))
        was_open = [one.incident_id for one in await old.open_incidents()]
    await remote.close()
    remote = SupabaseStore(supabase.url, supabase.secret_key, timeout_s=2)
    supabase.faults.always(Fault.UNREACHABLE_522)
    async with opened(tmp_path / "new.db", clock) as new:
        copier = copier_of(new, remote, clock)
        assert not await copier.fill(patience_s=0.3)
        alerting = alerting_of(new, clock)
        audience, delivery = alerting._audience, alerting._delivery
        copier.tell_late(alerting.take_up)
        clock.at += MINUTE
        chosen = config_of("10", alert_channel_id="55")
        audience.configs["10"] = chosen
        await new.save_guild_config(chosen)
        await new.save_sample(sample(clock.at, cpu_usage=5.0))
        fresh = incident(clock.at)
        await new.record_decision(Decision(incidents=[fresh], states=[state_of(fresh)]))
        alerting.states = {state.key: state for state in (await new.load_alerting()).states}
        alerting.open = {fresh.incident_id: fresh}
        await copier.tick()
        supabase.faults.clear()
        await settle(copier)
        configs = {config.guild_id: config for config in await new.guild_configs()}
        assert configs["9"].locale == "en"
        assert configs["10"].alert_channel_id == "55"
        open_now = [one.incident_id for one in await remote.open_incidents()]
        assert open_now == [fresh.incident_id]
        assert [one.incident_id for one in await new.open_incidents()] == open_now
        ended = {one.incident_id: one for one in await new.incidents(NOW - HOUR, 99)}
        assert {ended[one].ending for one in was_open} == {None}
        left = await remote.load_alerting()
        assert [state.incident_id for state in left.states] == [fresh.incident_id]
        assert audience.configs == configs, "in force at once"
        told = {(item.incident_id, item.kind) for item in delivery.queued.values()}
        assert told >= {(one, FlipKind.RESOLVED) for one in was_open}, "on the cards they have"
        assert (fresh.incident_id, FlipKind.FIRED) in told
        assert {item.outbox_id for item in left.outbox} == delivery.queued.keys()
        assert len(left.cards) == 2
        await same(new, remote)
        assert await new.count_rows("samples") == 49
        assert await remote.count_rows("samples") == 49
    await remote.close()


async def test_a_fill_cut_off_anywhere_goes_on_at_the_next_start(
    tmp_path: Path, database: str, clock: Clock
) -> None:
    remote = PostgresStore(database)
    async with opened(tmp_path / "old.db", clock) as old:
        await live_a_little(old)
        await settle(copier_of(old, remote, clock))
        strokes = 2
        while True:
            async with opened(tmp_path / "new.db", clock) as new:
                hour = Hour(strokes)
                copier = copier_of(Mortal(new, hour), Mortal(remote, hour), clock)
                try:
                    await copier.fill()
                    await settle(copier)
                except Killed:
                    strokes += 5
                    continue
                for kind in KINDS:
                    if kind.name not in ("cards", "outbox"):
                        rows = await everything(old, kind.name, 100)
                        assert await everything(new, kind.name, 100) == rows, kind.name
                break
        assert strokes > 60
    await remote.close()


async def test_a_fresh_file_in_the_middle_of_a_life_is_copied_under_its_own_name(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    copier = copier_of(local, remote, clock)
    await decide(local, NOW, 1)
    await settle(copier)
    await local.set_aside(NOW)
    await local.open()
    clock.at += MINUTE
    await decide(local, NOW + MINUTE, 2)
    copier._looked_s = None
    await settle(copier)
    assert await remote.count_rows("incidents") == 2
    assert (await local.journal_size()).depth == 0


async def test_waiting_rows_do_not_hold_up_anybody(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    """A tick gives up after some seconds of work, and does nothing while nothing waits."""
    copier = copier_of(local, remote, clock)
    await settle(copier)
    started = asyncio.get_running_loop().time()
    for _ in range(50):
        await copier.tick()
    assert asyncio.get_running_loop().time() - started < 2.0


@pytest.mark.parametrize("way", ["postgresql", "supabase"])
async def test_what_lies_before_the_position_is_not_written_again(
    way: str, database: str, supabase: Supabase
) -> None:
    remote: PgStore = PostgresStore(database)
    if way == "supabase":
        remote = SupabaseStore(supabase.url, supabase.secret_key)
    await remote.open()
    stream, other = uuid4(), uuid4()

    def lines(*texts: str) -> list[FactGroup]:
        rows = [
            {"id": str(uuid4()), "level": "ERROR", "message": text, "timestamp": str(NOW)[:19]}
            for text in texts
        ]
        return [FactGroup("bot_logs", rows)]  # type: ignore[list-item]

    assert (await remote.remote_state(stream)).position == 0
    assert await remote.copy(stream, 0, 20, lines("a")) == 20
    assert await remote.copy(stream, 0, 20, lines("again")) == 20
    assert await remote.copy(stream, 0, 15, lines("older")) == 20
    assert await remote.copy(stream, 15, 25, lines("half new")) == 25
    assert await remote.copy(other, 0, 20, lines("another stream")) == 20
    assert await remote.copy(stream, 26, 30, lines("after what is not here")) == 25
    found = {row["message"] for row in await everything(remote, "bot_logs")}
    assert found == {"a", "half new", "another stream"}
    state = await remote.remote_state(stream)
    assert (state.position, state.highest_position, state.last_stream) == (25, 25, other)
    assert state.last_at is not None
    poison = [*lines("good"), FactGroup("bot_logs", [{"id": "no uuid"}])]
    with pytest.raises(StoreError) as caught:
        await remote.copy(stream, 25, 40, poison)
    assert not caught.value.retriable
    with pytest.raises(StoreError):
        await remote.copy(stream, 25, 40, [FactGroup("comet_open", [])])
    assert (await remote.remote_state(stream)).position == 25
    assert await remote.count_rows("bot_logs") == 3
    await remote.close()


async def test_rows_that_came_by_a_clock_ahead_of_ours_do_not_shut_us_out(
    local: SqliteStore, remote: PostgresStore, clock: Clock
) -> None:
    await remote.open()
    told = incident()
    await remote.record_decision(Decision(incidents=[told], states=[state_of(told)]))
    clock.at = NOW - timedelta(days=1)
    done = replace(told, version=2, resolved_at=NOW, ending=Ending.CLEARED)
    copier = copier_of(local, remote, clock)
    await copier.tick()
    await local.record_decision(Decision(incidents=[done], states=[state_of(done, value=5.0)]))
    await settle(copier)
    await same(local, remote)
