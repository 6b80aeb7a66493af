"""Every row arrives, whatever happens on the way, and what is said about it is true."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.cli import main
from bot.storage import transfer as transfer_module
from bot.storage.kinds import BY_NAME, KINDS, Cursor, RowPage, WireRow
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.store import StoreError, StoreUnavailable
from bot.storage.supabase import SupabaseStore
from bot.storage.transfer import Outcome, Side, Transfer
from bot.storage.transfer_check import Comparison, Meaning, Pages, Times
from bot.storage.transfer_state import TransferState
from tests.peers.postgres.supabase import Supabase
from tests.transfer_rows import END, FEW, MANY, Rows, text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOTAL = sum(FEW.values())


@pytest.fixture
def place(tmp_path: Path, leave_nothing_behind: None) -> Path:
    return tmp_path


async def fill(store: Side, counts: dict[str, int], bot: str = "primary") -> None:
    rows = Rows(bot)
    for kind in KINDS:
        every = list(rows.many(kind.name, counts.get(kind.name, 0)))
        for start in range(0, len(every), 500):
            await store.import_rows(kind.name, every[start : start + 500])


@asynccontextmanager
async def sqlite(path: Path, bot: str = "primary") -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, bot_id=bot)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def postgresql(dsn: str, bot: str = "primary") -> AsyncIterator[PostgresStore]:
    store = PostgresStore(dsn, bot_id=bot)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def make_file(path: Path, counts: dict[str, int] = FEW, bot: str = "primary") -> Path:
    async with sqlite(path, bot) as store:
        await fill(store, counts, bot)
    return path


class Quiet:
    """A watcher that counts."""

    def __init__(self) -> None:
        self.rows = self.read = self.waits = 0

    def moved(self, kind: str, rows: int) -> None:
        self.rows += rows

    def checked(self, kind: str, rows: int) -> None:
        self.read += rows

    def waiting(self, error: StoreError) -> None:
        self.waits += 1


async def no_wait(seconds: float) -> None:
    await asyncio.sleep(0)


async def moved(
    source: Side,
    target: Side,
    place: Path,
    *,
    watcher: Quiet | None = None,
    only_own: bool = False,
    is_coarse: bool = False,
    batch: int = 500,
    now: datetime = NOW,
) -> list[Outcome]:
    state = TransferState.load(place, "test", "a > b", now)
    transfer = Transfer(
        source,
        target,
        state,
        watcher or Quiet(),
        now=now,
        bot_id="primary",
        only_own=only_own,
        is_coarse=is_coarse,
        batch=batch,
        sleep=no_wait,
    )
    await transfer.count()
    await transfer.move()
    return await transfer.check()


def faults(outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {one.kind.name: one for one in outcomes if not one.is_fine}


def same(outcomes: Sequence[Outcome]) -> int:
    return sum(one.found.same for one in outcomes)


def odd(outcomes: Sequence[Outcome]) -> int:
    """Rows that a first transfer to a fresh store has no excuse for."""
    return sum(one.found.newer + one.found.before + one.found.late for one in outcomes)


def environ(**given: object) -> dict[str, str]:
    return {"COMET_LOCALE": "en", **{name: str(value) for name, value in given.items()}}


def command(settings: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bot", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def said(settings: dict[str, str], *arguments: object) -> tuple[int, str, str]:
    with command(settings, *arguments) as child:
        out, complaint = child.communicate(timeout=110)
    return child.returncode, out, complaint


def at_supabase(peer: Supabase) -> dict[str, str]:
    return {"SUPABASE_URL": peer.url, "SUPABASE_KEY": peer.secret_key}


# --- arriving ----------------------------------------------------------------------------------


async def test_every_row_arrives_in_postgresql_and_comes_back_the_same(
    place: Path, database: str
) -> None:
    path = await make_file(place / "first.db")
    async with sqlite(path) as first, postgresql(database) as remote:
        outcomes = await moved(first, remote, place)
        assert not faults(outcomes) and same(outcomes) == TOTAL and not odd(outcomes)
        async with sqlite(place / "back.db") as back:
            outcomes = await moved(remote, back, place, only_own=True, is_coarse=True)
            assert not faults(outcomes) and same(outcomes) == TOTAL and not odd(outcomes)
            outcomes = await moved(first, back, place)
            assert same(outcomes) == TOTAL and not faults(outcomes)
    assert not list(place.glob("*.json"))


async def test_every_row_arrives_at_supabase(place: Path, supabase: Supabase) -> None:
    path = await make_file(place / "first.db")
    settings = environ(SQLITE_DB_PATH=path, **at_supabase(supabase))
    code, out, complaint = await asyncio.to_thread(
        said, settings, "transfer", "--from", "sqlite", "--to", "supabase"
    )
    assert code == 0, out + complaint
    assert f"All {TOTAL:,} rows are there" in out and supabase.secret_key not in out + complaint
    settings["SQLITE_DB_PATH"] = str(place / "back.db")
    code, out, _ = await asyncio.to_thread(
        said, settings, "transfer", "--from", "supabase", "--to", "sqlite"
    )
    assert code == 0 and f"All {TOTAL:,} rows are there" in out
    async with sqlite(path) as first, sqlite(place / "back.db") as back:
        outcomes = await moved(first, back, place)
    assert not faults(outcomes) and same(outcomes) == TOTAL


@pytest.mark.slow
@pytest.mark.parametrize("target", ["postgresql", "supabase"])
async def test_fifty_thousand_rows_survive_a_kill_in_the_middle(
    target: str, place: Path, request: pytest.FixtureRequest
) -> None:
    if target == "supabase":
        settings = environ(**at_supabase(request.getfixturevalue("supabase")))
    else:
        settings = environ(DATABASE_URL=request.getfixturevalue("database"))
    settings["SQLITE_DB_PATH"] = str(await make_file(place / "many.db", MANY))
    total = sum(MANY.values())
    arguments = ("transfer", "--from", "sqlite", "--to", target)
    await asyncio.to_thread(kill_when, settings, arguments, place, 8000)
    [left] = place.glob("*.json")
    assert 8000 <= sent_so_far(left) < total
    code, out, complaint = await asyncio.to_thread(said, settings, *arguments)
    assert code == 0 and f"All {total:,} rows are there" in out, out + complaint
    assert "Going on where it stopped" in out and not list(place.glob("*.json"))


def sent_so_far(path: Path) -> int:
    try:
        kinds = json.loads(path.read_text())["kinds"]
    except (OSError, ValueError):
        return 0
    return sum(kind["sent"] for kind in kinds.values())


def kill_when(
    settings: dict[str, str], arguments: Sequence[object], place: Path, rows: int
) -> None:
    """Start a transfer and kill it with SIGKILL once it has sent so many rows."""
    with command(settings, *arguments) as child:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None:
            if any(sent_so_far(left) >= rows for left in place.glob("*.json")):
                break
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        out, complaint = child.communicate(timeout=20)
        assert child.returncode == -signal.SIGKILL, out + complaint


async def test_a_gateway_that_fails_at_random_costs_time_and_no_row(
    place: Path, supabase: Supabase
) -> None:
    path = await make_file(place / "first.db")
    store = SupabaseStore(supabase.url, supabase.secret_key, timeout_s=1.0)
    await store.open()
    watcher = Quiet()
    try:
        supabase.faults.randomly(seed=3, rate=0.3)
        async with sqlite(path) as first:
            outcomes = await moved(first, store, place, watcher=watcher, batch=100)
    finally:
        supabase.faults.clear()
        await store.close()
    assert watcher.waits > 5
    assert not faults(outcomes) and same(outcomes) == TOTAL and not odd(outcomes)


# --- what goes wrong ---------------------------------------------------------------------------


class Wrapped:
    """A store with something the matter."""

    def __init__(self, store: Side) -> None:
        self._store = store

    async def export_rows(
        self,
        kind: str,
        after: Cursor | None,
        limit: int,
        *,
        since_at: datetime | None = None,
        bot_id: str | None = None,
    ) -> RowPage:
        return await self._store.export_rows(kind, after, limit, since_at=since_at, bot_id=bot_id)

    async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
        return await self._store.import_rows(kind, rows)

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int:
        return await self._store.count_rows(kind, bot_id=bot_id)


class Crash(Exception):
    pass


async def test_it_may_stop_between_any_two_steps(place: Path) -> None:
    """Each run dies at a random call, before or after it was done."""

    class Dying(Wrapped):
        left = 0
        chance = random.Random(5)

        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            self.left -= 1
            if self.left == 0 and self.chance.random() < 0.5:
                raise Crash
            taken = await super().import_rows(kind, rows)
            if self.left == 0:
                raise Crash
            return taken

    path = await make_file(place / "first.db")
    runs = 0
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        target = Dying(second)
        while True:
            runs += 1
            target.left = 1 + target.chance.randrange(12)
            try:
                outcomes = await moved(first, target, place, batch=40)
                break
            except Crash:
                continue
    assert runs > 3 and not faults(outcomes) and same(outcomes) == TOTAL and not odd(outcomes)
    assert not sum(one.repaired for one in outcomes)


async def test_a_row_that_can_never_be_stored_is_named_and_the_others_arrive(place: Path) -> None:
    rows = list(Rows().many("flips", 80))
    bad = {str(rows[n]["flip_id"]) for n in (0, 17, 79)}

    class Picky(Wrapped):
        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            if any(row.get("flip_id") in bad for row in rows):
                raise StoreError("refused", "22P05", retriable=False)
            return await super().import_rows(kind, rows)

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        outcomes = await moved(first, Picky(second), place)
        wrong = faults(outcomes)
        assert list(wrong) == ["flips"] and same(outcomes) == TOTAL - 3
        [flips] = [one for one in outcomes if one.kind.name == "flips"]
        assert flips.refused == dict.fromkeys(bad, "22P05") and not flips.found.missing
        # Once the target takes them the same command brings them over.
        outcomes = await moved(first, second, place)
        assert not faults(outcomes) and same(outcomes) == TOTAL


@pytest.mark.parametrize("kind", ["samples", "outbox", "daily_summaries", "metrics"])
async def test_a_row_lost_or_changed_on_the_way_is_sent_again_or_reported(
    kind: str, place: Path
) -> None:
    class Losing(Wrapped):
        is_stubborn = False
        seen = 0

        async def import_rows(self, name: str, rows: Sequence[WireRow]) -> int:
            self.seen += name == kind
            if name == kind and (self.seen == 1 or self.is_stubborn):
                rows = rows[1:]
            return await super().import_rows(name, rows) if rows else 0

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        outcomes = await moved(first, Losing(second), place)
        assert not faults(outcomes) and sum(one.repaired for one in outcomes) == 1
    async with sqlite(path) as first, sqlite(place / "third.db") as third:
        target = Losing(third)
        target.is_stubborn = True
        outcomes = await moved(first, target, place)
        [outcome] = [one for one in outcomes if not one.is_fine]
        assert outcome.kind.name == kind and len(outcome.found.missing) >= 1


async def test_comparing_what_has_no_common_order_does_not_fetch_one_side_first() -> None:
    rows = list(Rows().many("outbox", 1000))
    turns = {"ours": 0, "theirs": 0}
    apart = 0

    def pages(side: str) -> Pages:
        async def read(cursor: Cursor | None) -> RowPage:
            nonlocal apart
            turns[side] += 1
            apart = max(apart, abs(turns["ours"] - turns["theirs"]))
            start = int(str(cursor[0])) if cursor else 0
            end = start + 100
            return RowPage(rows[start:end], [end] if end < len(rows) else None)

        return read

    async def wrong(row: WireRow) -> None:
        raise AssertionError(row)

    comparison = Comparison(
        Meaning(BY_NAME["outbox"], False),
        Times(NOW, NOW),
        had_rows=False,
        refused=set(),
        on_wrong=wrong,
        on_read=lambda rows: None,
    )
    found = await comparison.walk(pages("ours"), pages("theirs"))
    assert (found.same, found.is_fine) == (1000, True)
    assert apart <= 2


async def test_other_contents_under_the_same_key_are_told(place: Path) -> None:
    path = await make_file(place / "first.db")
    other = await make_file(place / "second.db")
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("UPDATE flips SET value = 1.5 WHERE rowid = 3")
        db.execute(
            "UPDATE samples SET cpu_usage = 7 WHERE rowid IN (SELECT rowid FROM samples LIMIT 1)"
        )
    async with sqlite(path) as first, sqlite(other) as second:
        outcomes = await moved(first, second, place)
    assert {one.kind.name: len(one.found.different) for one in outcomes if not one.is_fine} == {
        "flips": 1,
        "samples": 1,
    }


async def test_a_changing_row_spoilt_on_the_way_is_not_taken_for_a_newer_one(
    place: Path, database: str
) -> None:
    spoils = {"incidents": "message", "monitors": "name", "states": "status"}

    class Spoiling(Wrapped):
        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            if (column := spoils.pop(kind, None)) is not None:
                rows = [{**rows[0], column: "spoilt"}, *rows[1:]]
            return await super().import_rows(kind, rows)

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, postgresql(database) as remote:
        outcomes = await moved(first, Spoiling(remote), place)
    assert not faults(outcomes) and same(outcomes) == TOTAL and not odd(outcomes)
    assert {one.kind.name: one.repaired for one in outcomes if one.repaired} == {
        "monitors": 1,
        "incidents": 1,
        "states": 1,
    }


async def test_a_source_that_gives_less_than_it_counts_is_not_believed(place: Path) -> None:
    class Short(Wrapped):
        async def export_rows(self, kind: str, *given: object, **named: object) -> RowPage:
            page = await super().export_rows(kind, *given, **named)  # type: ignore[arg-type]
            return RowPage(page.rows, None) if kind == "samples" else page

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        outcomes = await moved(Short(first), second, place)
        [outcome] = [one for one in outcomes if not one.is_fine]
        assert (
            outcome.kind.name == "samples" and outcome.unread == FEW["samples"] - outcome.found.read
        )
        outcomes = await moved(first, second, place)
        assert not faults(outcomes) and same(outcomes) == TOTAL


async def test_it_waits_for_a_store_that_is_away_and_not_for_a_wrong_key(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(Wrapped):
        reason = "away"
        calls = 0

        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            self.calls += 1
            if self.calls % 3:
                raise StoreUnavailable(self.reason)
            return await super().import_rows(kind, rows)

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        watcher = Quiet()
        outcomes = await moved(first, Away(second), place, watcher=watcher)
        assert not faults(outcomes) and watcher.waits > 10
        wrong = Away(second)
        wrong.reason = "key"
        with pytest.raises(StoreUnavailable):
            await moved(first, wrong, place)
        assert wrong.calls == 1
        monkeypatch.setattr(transfer_module, "PATIENCE_S", -1.0)
        with pytest.raises(StoreUnavailable):
            await moved(first, Away(second), place)


async def test_a_batch_too_large_for_the_target_is_halved(place: Path) -> None:
    class Small(Wrapped):
        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            if len(rows) > 30:
                raise StoreUnavailable("away", "time-out")
            return await super().import_rows(kind, rows)

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        outcomes = await moved(first, Small(second), place)
    assert not faults(outcomes) and same(outcomes) == TOTAL


# --- stores in use -----------------------------------------------------------------------------


async def test_what_a_running_target_makes_meanwhile_is_counted_and_stays(
    place: Path, database: str
) -> None:
    path = await make_file(place / "first.db")
    late = text(NOW + timedelta(minutes=1))
    rows = Rows("primary", seed=2)
    async with sqlite(path) as first, postgresql(database) as remote:
        assert not faults(await moved(first, remote, place))
        young = {**next(rows.many("flips", 1)), "at": late, "fired_at": late}
        await remote.import_rows("flips", [young])
        # An incident that was open in the source is over on the target.
        opened = next(one for one in Rows().many("incidents", 1))
        [opened] = (await first.export_rows("incidents", None, 500)).rows[-1:]
        for row in (await first.export_rows("incidents", None, 500)).rows:
            if not row["resolved"]:
                opened = row
        over = {**opened, "resolved": True, "resolved_at": late, "version": 7}
        await remote.import_rows("incidents", [over])
        outcomes = await moved(first, remote, place)
        assert not faults(outcomes) and same(outcomes) == TOTAL - 1
        assert {one.kind.name: one.found.newer for one in outcomes if one.found.newer} == {
            "flips": 1,
            "incidents": 1,
        }
        kept = (await remote.export_rows("incidents", None, 500)).rows
        assert [row["resolved"] for row in kept if row["id"] == opened["id"]] == [True]


async def test_an_old_setting_does_not_undo_a_newer_one_of_the_target(
    place: Path, database: str
) -> None:
    path = await make_file(place / "first.db")
    async with sqlite(path) as first, postgresql(database) as remote:
        [row] = (await first.export_rows("guild_configs", None, 1)).rows
        now = text(END + timedelta(minutes=1))
        revision = int((END + timedelta(minutes=1)).timestamp() * 1_000_000)
        newer = {**row, "alert_channel_id": "1", "updated_at": now, "revision": revision}
        await remote.import_rows("guild_configs", [newer])
        outcomes = await moved(first, remote, place)
        assert not faults(outcomes)
        assert sum(one.found.newer for one in outcomes) == 1
        configs = (await remote.export_rows("guild_configs", None, 50)).rows
    assert [one["alert_channel_id"] for one in configs if one["guild_id"] == row["guild_id"]] == [
        "1"
    ]


async def test_a_long_memory_on_the_target_stays_and_is_not_read_through(
    place: Path, database: str
) -> None:
    """Rows older than anything the source has; other bots' rows beside them."""

    class Counting(Wrapped):
        flips = 0

        async def export_rows(self, kind: str, *given: object, **named: object) -> RowPage:
            page = await super().export_rows(kind, *given, **named)  # type: ignore[arg-type]
            self.flips += len(page.rows) if kind == "flips" else 0
            return page

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, postgresql(database) as remote:
        for bot in ("primary", "second"):
            rows = list(Rows(bot, seed=9).many("flips", 50))
            for n, row in enumerate(rows):
                row["at"] = text(END - timedelta(days=300, minutes=n))
            await remote.import_rows("flips", rows)
        target = Counting(remote)
        outcomes = await moved(first, target, place)
        assert not faults(outcomes) and same(outcomes) == TOTAL
        assert target.flips == FEW["flips"]
        assert await remote.count_rows("flips") == 100 + FEW["flips"]


async def test_a_file_takes_only_its_own_bots_rows_and_the_others_are_counted(
    place: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with postgresql(database) as remote:
        for bot in ("primary", "second"):
            await fill(remote, FEW, bot)
    arguments = ["transfer", "--from", "postgresql", "--to", str(place / "x.db")]
    settings = environ(DATABASE_URL=database)
    assert await asyncio.to_thread(main, [*arguments, "--dry-run"], settings) == 0
    out = capsys.readouterr().out
    assert not (place / "x.db").exists() and f"{TOTAL:,} rows would be moved" in out
    assert await asyncio.to_thread(main, arguments, settings) == 0
    out = capsys.readouterr().out
    assert f"All {TOTAL:,} rows" in out
    others = TOTAL - FEW["daily_summaries"]
    assert f"{others:,} rows of other bots" in out or f"{TOTAL:,} rows of other bots" in out


async def test_the_source_is_not_changed_even_while_a_bot_writes_to_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await make_file(place / "a" / "first.db")
    with closing(sqlite3.connect(path)) as db:
        before = list(db.iterdump())
    arguments = ["transfer", "--from", str(path), "--to", str(place / "b" / "second.db")]
    async with sqlite(path) as running:
        at = text(datetime.now(UTC) + timedelta(hours=1))
        work = asyncio.create_task(asyncio.to_thread(main, arguments, environ()))
        await running.import_rows("flips", [{**next(Rows(seed=4).many("flips", 1)), "at": at}])
        assert await work == 0, capsys.readouterr()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("DELETE FROM flips WHERE at = ?", (at,))
            db.execute("DELETE FROM journal")
    with closing(sqlite3.connect(path)) as db:
        after = list(db.iterdump())
    assert [line for line in after if "journal" not in line] == [
        line for line in before if "journal" not in line
    ]
    assert sorted(one.name for one in path.parent.iterdir()) == ["first.db"]


async def test_a_target_made_anew_between_two_runs_gets_everything(place: Path) -> None:
    class Dying(Wrapped):
        async def import_rows(self, kind: str, rows: Sequence[WireRow]) -> int:
            if kind == "polls":
                raise Crash
            return await super().import_rows(kind, rows)

    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        with pytest.raises(Crash):
            await moved(first, Dying(second), place)
    watcher = Quiet()
    async with sqlite(path) as first, sqlite(place / "third.db") as third:
        outcomes = await moved(first, third, place, watcher=watcher)
    assert not faults(outcomes) and same(outcomes) == TOTAL and watcher.rows == TOTAL
    assert not sum(one.repaired for one in outcomes)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 1', '{"version": 1, "pair": 1}'])
async def test_a_damaged_state_file_only_costs_a_fresh_start(content: str, place: Path) -> None:
    state = TransferState.load(place, "test", "a > b", NOW)
    state.path.write_text(content)
    path = await make_file(place / "first.db")
    async with sqlite(path) as first, sqlite(place / "second.db") as second:
        outcomes = await moved(first, second, place)
    assert not faults(outcomes) and same(outcomes) == TOTAL


# --- as people call it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "part"),
    [
        ("x.db", "./x.db", "same"),
        ("sqlite", "data/monitoring.db", "same"),
        ("postgresql", "postgres://other:pw@localhost/db", "same"),
        ("postgresql", "supabase", "same"),
        ("x.db", "mysql://host/x", "no place"),
        ("x.db", ".", "no place"),
        ("x.db", "postgresql://host:port/x", "no place"),
    ],
)
def test_ends_that_make_no_sense_are_refused(
    source: str, target: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = "abcdefghijklmnopqrst"
    address = "postgresql://u:pw@127.0.0.1:5432/db"
    if target == "supabase":
        address = f"postgresql://postgres:pw@db.{project}.supabase.co/postgres"
    settings = environ(
        DATABASE_URL=address,
        SUPABASE_URL=f"https://{project}.supabase.co",
        SUPABASE_KEY="sb_secret_0123456789abcdefghij_01234567",
    )
    assert main(["transfer", "--from", source, "--to", target], settings) == 2
    out, complaint = capsys.readouterr()
    assert not out and part in complaint and "pw" not in complaint


@pytest.mark.parametrize("end", ["postgresql", "supabase"])
def test_an_end_without_its_settings_names_them(
    end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transfer", "--from", "x.db", "--to", end], environ()) == 2
    assert ("DATABASE_URL" if end == "postgresql" else "SUPABASE_KEY") in capsys.readouterr().err


def test_a_missing_file_and_a_missing_server_are_told_in_one_sentence(
    place: Path, free_port: object, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(place / "missing.db")
    assert main(["transfer", "--from", missing, "--to", str(place / "y.db")], environ()) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("✖ ") and complaint.count("\n") == 1
    assert not list(place.iterdir())


async def test_a_password_on_the_command_line_is_remarked_on_and_not_repeated(
    place: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "s3cret" in database
    path = await make_file(place / "first.db", {"flips": 3})
    arguments = ["transfer", "--from", str(path), "--to", database]
    assert await asyncio.to_thread(main, arguments, environ()) == 0
    out, complaint = capsys.readouterr()
    assert "visible to everyone" in complaint and "s3cret" not in out + complaint
    assert "3 rows are there" in out


async def test_an_empty_postgresql_gets_its_tables_first(
    place: Path, empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await make_file(place / "first.db", {"flips": 3, "samples": 5})
    arguments = ["transfer", "--from", str(path), "--to", "postgresql"]
    code = await asyncio.to_thread(main, arguments, environ(DATABASE_URL=empty_database))
    assert code == 0, capsys.readouterr()


async def test_what_is_wrong_is_listed_by_key_without_its_contents(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = await make_file(place / "first.db", {"conversations": 20})
    other = await make_file(place / "second.db", {"conversations": 20})
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("UPDATE conversation_logs SET prompt = 'their words'")
    arguments = ["transfer", "--from", str(path), "--to", str(other)]
    assert await asyncio.to_thread(main, arguments, environ()) == 1
    out, complaint = capsys.readouterr()
    assert "20 rows differ" in out and "…" in out and complaint.startswith("✖ 0 rows")
    assert "words" not in out + complaint and "ユーザー" not in out
