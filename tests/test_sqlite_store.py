"""What is true of SQLite alone: the file, its schema, its troubles."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from bot.core.observation import MonitorStatus, Sample
from bot.core.readings import READINGS
from bot.storage import migrations, poll_codec, sqlite_metrics
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_rows import clean, from_ms, json_text, to_ms
from bot.storage.store import (
    CheckRow,
    Poll,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreTooNew,
    StoreUnavailable,
)

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)


def sample(number: int = 0, **values: float | None) -> Sample:
    return Sample(NOW + timedelta(seconds=10 * number), "primary", values or {"cpu_usage": 42.5})


def poll(number: int, keys: int = 3, valid_s: float = 120) -> Poll:
    checks = [CheckRow(f"a:{n}", MonitorStatus.UP, 10.0 * n) for n in range(keys)]
    return Poll(NOW + timedelta(minutes=number), "a", valid_s, checks)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "monitoring.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, busy_timeout_s=0.05)
    await store.open()
    yield store
    await store.close()


async def fill(path: Path, samples: int = 8) -> None:
    store = SqliteStore(path)
    await store.open()
    for number in range(samples):
        await store.save_sample(sample(number))
        await store.save_poll(poll(number))
    await store.close()


def query(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Rows of the last statement, by a connection that knows nothing of ours."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = db.execute(statement).fetchall()
        return rows


async def pragma(store: SqliteStore, name: str, connection: str = "_writer") -> object:
    thread = getattr(store, connection)
    return await thread.run(lambda db: db.execute(f"PRAGMA {name}").fetchone()[0])


def prints(directory: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.iterdir())
    }


def in_child(job: Callable[[], Coroutine[None, None, None]], *, as_nobody: bool = False) -> str:
    """What the job raised, as text, "" for nothing. As nobody, permission bits bind root too."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "died"
        try:
            if as_nobody and os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            asyncio.run(job())
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__} {getattr(error, 'reason', error)}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory any user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="comet-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
        directory.chmod(0o755)


# The file


async def test_the_file_is_durable_and_shrinkable(store: SqliteStore) -> None:
    assert await pragma(store, "journal_mode") == "wal"
    assert await pragma(store, "synchronous") == 2
    assert await pragma(store, "foreign_keys") == 1
    assert await pragma(store, "auto_vacuum") == 2
    assert await pragma(store, "busy_timeout") == 50
    assert await pragma(store, "query_only", "_reader") == 1


@pytest.mark.parametrize("umask", [0o000, 0o022])
async def test_directory_and_files_are_made_with_mode_640(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = SqliteStore(path)
        await store.open()
        await store.save_sample(sample())
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("monitoring.db", "monitoring.db-wal", "monitoring.db-shm"), 0o640
    )


@pytest.mark.parametrize(("was", "becomes"), [(0o666, 0o640), (0o600, 0o600)])
async def test_a_file_too_open_is_closed_and_a_stricter_one_left(
    path: Path, was: int, becomes: int
) -> None:
    await fill(path, 1)
    path.chmod(was)
    await fill(path, 1)
    assert path.stat().st_mode & 0o777 == becomes


async def test_a_strange_path_is_no_uri(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41 日本" / "x.db"
    await fill(path, 1)
    assert query(path, "SELECT count(*) FROM samples") == [(1,)]


async def test_relative_paths_start_at_the_working_directory() -> None:
    await fill(Path("here.db"), 1)
    assert Path("here.db").is_file()
    Path("here.db").unlink()


# The schema


async def test_every_reading_with_a_column_has_one_in_table_and_views(store: SqliteStore) -> None:
    columns = {str(row[1]) for row in query(store.path, "PRAGMA table_info(samples)")}
    assert columns == {"sample_key", "id", *sqlite_metrics.SAMPLE_COLUMNS}
    values = {s.name: 3 + n * s.quantum for n, s in enumerate(READINGS) if s.column is not None}
    await store.save_sample(Sample(NOW, "primary", {**values, "ping_lavalink": 9.25}, "offline"))
    with closing(sqlite3.connect(store.path)) as db:
        db.row_factory = sqlite3.Row
        row = dict(db.execute("SELECT * FROM system_stats").fetchone())
        by_name = dict(db.execute("SELECT metric_name, metric_value FROM system_metrics"))
        latest = dict(db.execute("SELECT metric_name, metric_value FROM latest_metrics"))
    for spec in READINGS:
        if spec.column is not None:
            assert row[spec.column] == pytest.approx(values[spec.name]), spec.name
    assert by_name == pytest.approx({**values, "ping_lavalink": 9.25})
    assert latest == pytest.approx(by_name)
    assert row["server_count"] == row["guild_count"]
    assert (row["status"], row["bot_id"]) == ("offline", "primary")
    assert row["timestamp"] == row["created_at"] == row["updated_at"] == "2026-01-10 12:00:00.000"
    assert row["id"] == str(sqlite_metrics.sample_id(NOW, "primary"))


def test_migrations_are_numbered_and_say_why() -> None:
    found = migrations.available()
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    for migration in found:
        assert migration.path.read_text(encoding="utf-8").startswith("-- Why: "), migration.name


async def test_applied_migrations_are_on_record(store: SqliteStore) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        applied = migrations.applied(db)
        assert migrations.pending(db) == []
    assert [(n, name) for n, name, _ in applied] == [
        (migration.number, migration.name) for migration in migrations.available()
    ]
    assert await store.schema_version() == migrations.latest_number()


async def test_two_that_start_together_migrate_once(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.save_sample(sample())
        await store.close()
    ((count,),) = query(path, "SELECT count(*) FROM schema_migrations")
    assert count == migrations.latest_number()


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path, 1)
    directory = tmp_path / "migrations" / "sqlite"
    shutil.copytree(migrations.MIGRATIONS_ROOT / "sqlite", directory)
    number = migrations.latest_number() + 1
    following = directory / f"{number:04d}_next.sql"
    following.write_text("-- Why: test\nCREATE TABLE half (a);\nCREATE TABLE half (a);\n")
    monkeypatch.setattr(migrations, "MIGRATIONS_ROOT", tmp_path / "migrations")
    store = SqliteStore(path)
    with pytest.raises(StoreError):
        await store.open()
    assert query(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    following.write_text(
        "-- Why: test\nCREATE TABLE half (a);\nCREATE TRIGGER t AFTER INSERT ON half BEGIN\n"
        "    SELECT 1; -- inner;\n    SELECT ';';\nEND;\nCREATE TABLE whole (a);\n"
    )
    await store.open()
    assert await store.schema_version() == number
    await store.close()
    assert len(query(path, "SELECT 1 FROM sqlite_master WHERE name IN ('half', 't', 'whole')")) == 3


# Files that are not ours to touch


async def test_a_newer_file_is_refused_and_left_as_it_was(path: Path) -> None:
    await fill(path)
    query(path, "PRAGMA user_version = 999", "PRAGMA wal_checkpoint(TRUNCATE)")
    before = prints(path.parent)
    store = SqliteStore(path)
    with pytest.raises(StoreTooNew) as caught:
        await store.open()
    assert (caught.value.found, caught.value.known) == (999, migrations.latest_number())
    assert not caught.value.retriable
    assert prints(path.parent) == before


async def test_a_newer_file_is_refused_even_if_only_its_wal_says_so(path: Path) -> None:
    await fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA wal_autocheckpoint = 0")
        holder.execute("PRAGMA user_version = 999")
        with pytest.raises(StoreTooNew):
            await SqliteStore(path).open()


async def test_somebody_elses_database_is_refused_and_left_as_it_was(path: Path) -> None:
    path.parent.mkdir()
    query(path, "CREATE TABLE recipes (a)", "INSERT INTO recipes VALUES (1)")
    before = prints(path.parent)
    with pytest.raises(StoreForeign) as caught:
        await SqliteStore(path).open()
    assert caught.value.reason == "foreign"
    assert prints(path.parent) == before


async def test_an_empty_file_becomes_ours(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    await fill(path, 1)
    assert query(path, "PRAGMA application_id") == [(migrations.APPLICATION_ID,)]


# Damage


def garbage(content: bytes) -> bytes:
    return random.Random(1).randbytes(len(content))


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def short_of_a_header(content: bytes) -> bytes:
    return content[:50]


def zeroes_inside(content: bytes) -> bytes:
    return content[:4096] + bytes(8192) + content[4096 + 8192 :]


def cut_short_though_large(content: bytes) -> bytes:
    """Too large to be checked page by page, so that only its length can tell."""
    pages = 4000
    header = bytearray(content[:4096])
    header[28:32] = pages.to_bytes(4, "big")
    return bytes(header) + content[4096:] + bytes(4096 * (pages - 1) - len(content))


def a_text(content: bytes) -> bytes:
    return b"This is not a database.\n" * 100


@pytest.mark.parametrize(
    "damage", [garbage, cut_short, cut_short_though_large, short_of_a_header, zeroes_inside, a_text]
)
async def test_a_damaged_file_is_set_aside_and_work_goes_on(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await fill(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    store = SqliteStore(path)
    with pytest.raises(StoreCorrupt) as caught:
        await store.open()
    assert not caught.value.retriable
    aside = [await store.set_aside(NOW)]
    assert aside[0].name == "monitoring.db.corrupt-20260110T120000Z"
    assert aside[0].read_bytes() == damaged
    assert not path.exists()
    await store.open()
    await store.save_sample(sample())
    aside.append(await store.set_aside(NOW))
    assert aside[1].name == "monitoring.db.corrupt-20260110T120000Z-2"
    assert all(file.exists() for file in aside)


async def test_damage_found_while_running_is_told_as_damage(path: Path) -> None:
    await fill(path, 1)
    store = SqliteStore(path)
    await store.open()
    await store.close()
    content = path.read_bytes()
    await store.open()
    # Behind the first pages lie the tables; none of them is in the reader's cache yet.
    with path.open("r+b") as file:
        file.seek(4096 * 10)
        file.write(bytes(len(content) - 4096 * 10))
    with pytest.raises(StoreCorrupt) as caught:
        await store.service_stats(NOW, NOW + timedelta(days=1))
        await store.latest_metrics()
    assert not caught.value.retriable
    await store.close()


# Trouble that passes


async def test_a_full_disk_is_told_and_space_is_used_again(store: SqliteStore) -> None:
    await store.save_sample(sample())
    pages = await pragma(store, "page_count")
    await pragma(store, f"max_page_count = {pages}")
    saved = 0
    with pytest.raises(StoreUnavailable) as caught:
        for number in range(1, 2000):
            await store.save_poll(poll(number, keys=200))
            saved = number
    assert (caught.value.reason, caught.value.retriable) == ("full", True)
    assert len(await store.latest_metrics()) == 1
    await pragma(store, "max_page_count = 100000")
    await store.save_poll(poll(saved + 1, keys=200))
    stats = await store.service_stats(NOW, NOW + timedelta(days=9), "a:1")
    assert stats.checks == saved + 1


async def test_a_locked_file_is_told_and_used_again(store: SqliteStore) -> None:
    await store.save_sample(sample())
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for job in (store.save_sample(sample(1)), store.save_poll(poll(1))):
            with pytest.raises(StoreUnavailable) as caught:
                await job
            assert (caught.value.reason, caught.value.retriable) == ("locked", True)
        assert len(await store.latest_metrics()) == 1
        with pytest.raises(StoreUnavailable):
            await SqliteStore(store.path, busy_timeout_s=0.05).open()
        other.execute("ROLLBACK")
    await store.save_sample(sample(1))
    await store.save_poll(poll(1))
    assert len(await store.load_monitors()) == 3


async def test_a_file_that_was_read_only_for_a_while_is_written_again(store: SqliteStore) -> None:
    assert store._writer is not None
    await store._writer.run(lambda db: db.execute("PRAGMA query_only = ON"))
    with pytest.raises(StoreUnavailable) as caught:
        await store.save_sample(sample())
    assert (caught.value.reason, caught.value.retriable) == ("readonly", True)
    await store.save_sample(sample())
    assert len(await store.latest_metrics()) == 1


def test_a_file_we_may_only_read_is_told_at_once(open_directory: Path) -> None:
    path = open_directory / "m.db"
    assert in_child(lambda: fill(path)) == ""
    path.chmod(0o444)
    open_directory.chmod(0o555)
    said = in_child(lambda: fill(path), as_nobody=True)
    assert said in ("StoreUnavailable readonly", "StoreUnavailable cantopen")


def test_a_directory_we_may_not_write_is_told_at_once(open_directory: Path) -> None:
    open_directory.chmod(0o555)
    for name in ("m.db", "below/m.db"):
        path = open_directory / name
        assert in_child(lambda p=path: fill(p), as_nobody=True) == "StoreUnavailable cantopen"  # type: ignore[misc]


async def test_a_path_that_can_be_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "m.db"):
        with pytest.raises(StoreUnavailable) as caught:
            await SqliteStore(path).open()
        assert caught.value.reason == "cantopen"


def test_a_write_that_fails_in_the_system_is_told_and_tried_again(tmp_path: Path) -> None:
    """A limit on the size of files stands for any error of the disk: EFBIG is nobody's lock."""

    async def job() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = SqliteStore(tmp_path / "m.db")
        await store.open()
        await store.save_poll(poll(0))
        wal = (tmp_path / "m.db-wal").stat().st_size
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 5000, hard))
        failures = []
        for number in range(1, 9):
            try:
                await store.save_poll(poll(number, keys=2000))
            except StoreUnavailable as error:
                failures.append(error.reason)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert set(failures) == {"io"}, failures
        await store.save_poll(poll(10))
        stats = await store.service_stats(NOW, NOW + timedelta(hours=1), "a:1")
        assert stats.checks == 10 - len(failures)
        await store.close()

    assert in_child(job) == ""


async def test_numbers_given_in_a_failed_transaction_are_given_again(store: SqliteStore) -> None:
    for _ in range(2):
        with pytest.raises(StoreError):
            await store.save_poll(poll(0, keys=5, valid_s=1e30))
        assert await store.load_monitors() == []
    await store.save_poll(poll(0, keys=5))
    assert len(await store.load_monitors()) == 5
    with pytest.raises(StoreError):
        await store._write(_break_after_new_metric(store))
    await store.save_metric(uuid4(), "songs", 1.0, {}, NOW)
    assert [metric.metric_name for metric in await store.latest_metrics()] == ["songs"]


def _break_after_new_metric(store: SqliteStore) -> Callable[[sqlite3.Connection], None]:
    def job(db: sqlite3.Connection) -> None:
        store._numbers.metric(db, "songs")
        db.execute("INSERT INTO nowhere VALUES (1)")

    return job


async def test_a_cancelled_caller_leaves_a_working_store(store: SqliteStore) -> None:
    for number in range(30):
        task = asyncio.create_task(store.save_sample(sample(number)))
        await asyncio.sleep(0 if number % 2 else 0.0003)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await store.save_sample(sample(99))
    assert (await store.metric_stats("cpu_usage", 1, NOW + timedelta(hours=1))).count >= 1


async def test_writes_do_not_wait_for_a_long_read(store: SqliteStore) -> None:
    long_query = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) "
        "SELECT count(*) FROM n, samples"
    )
    await store.save_sample(sample())
    reading = asyncio.create_task(store._read(lambda db: db.execute(long_query).fetchone()))
    await asyncio.sleep(0.05)
    for number in range(1, 6):
        await store.save_sample(sample(number))
    assert not reading.done()
    assert await reading == (3_000_000,)


async def test_a_read_sees_one_state_however_many_queries_it_takes(store: SqliteStore) -> None:
    await store.save_sample(sample())
    count = "SELECT count(*) FROM samples"
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read_twice(db: sqlite3.Connection) -> tuple[int, int]:
        before = db.execute(count).fetchone()[0]
        loop.call_soon_threadsafe(seen.set)
        time.sleep(0.1)
        return before, db.execute(count).fetchone()[0]

    reading = asyncio.create_task(store._read(read_twice))
    await seen.wait()
    await store.save_sample(sample(1))
    assert await reading == (1, 1)


# Killed


_WRITER = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from bot.core.observation import MonitorStatus, Sample
from bot.storage.sqlite import SqliteStore
from bot.storage.store import CheckRow, Poll

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    now = datetime(2026, 1, 10, 12, tzinfo=UTC)
    for number in range(100_000):
        at = now + timedelta(seconds=number)
        await store.save_sample(Sample(at, "primary", {"cpu_usage": 1.0}))
        checks = [CheckRow(f"a:{n}", MonitorStatus.UP, 1.0) for n in range(50)]
        await store.save_poll(Poll(at, "a", 2, checks))
        print(number, flush=True)

asyncio.run(main())
"""


def kill_in_the_middle(path: Path, root: Path, after: int) -> int:
    """How many facts of each kind a writer was told to be safe before it was killed."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)],
        stdout=subprocess.PIPE,
        cwd=root,
        text=True,
    )
    assert writer.stdout is not None
    for _ in range(after):
        writer.stdout.readline()
    writer.kill()
    acknowledged = after + len(writer.stdout.readlines())
    writer.stdout.close()
    writer.wait()
    return acknowledged


@pytest.mark.parametrize("after", [3, 60])
async def test_everything_acknowledged_survives_kill_9(path: Path, root: Path, after: int) -> None:
    acknowledged = kill_in_the_middle(path, root, after)
    store = SqliteStore(path)
    await store.open()
    stats = await store.metric_stats("cpu_usage", 99, NOW + timedelta(hours=50))
    services = await store.service_stats(NOW, NOW + timedelta(hours=50), "a:1")
    assert acknowledged <= services.checks <= stats.count <= acknowledged + 1
    await store.save_sample(sample(99_999))
    await store.close()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


# What it costs


def realistic(number: int, rng: random.Random) -> Sample:
    values: dict[str, float | None] = {
        "cpu_usage": rng.uniform(2, 98),
        "memory_usage": rng.gauss(62, 3),
        "swap_usage": rng.uniform(0, 9),
        "disk_usage": 71 + number / 1e5,
        "network_rx": rng.expovariate(1 / 300_000),
        "network_tx": rng.expovariate(1 / 200_000),
        "load_average_1m": rng.uniform(0, 4),
        "load_average_5m": rng.uniform(0, 4),
        "load_average_15m": rng.uniform(0, 4),
        "process_cpu": rng.uniform(0, 9),
        "memory_rss": rng.gauss(95, 2),
        "memory_heap": rng.gauss(60, 2),
        "threads": 9,
        "open_files": rng.randint(30, 40),
        "uptime": number * 10,
        "loop_lag_p99": rng.uniform(0, 4),
        "loop_lag_max": rng.uniform(0, 15),
        "missed_ticks": 0,
        "task_lateness_max": rng.uniform(0, 1),
        "ping_gateway": rng.uniform(40, 220),
        "discord_away": 0,
        "gateway_reconnects": number // 4000,
        "guild_count": 12,
        "user_count": 4200 + number // 500,
        "channel_count": 300,
        "command_count": number // 20,
        "command_errors": number // 900,
        "command_error_rate": rng.uniform(0, 4),
        "command_latency_p50": rng.uniform(100, 300),
        "command_latency_p95": rng.uniform(300, 900),
        "command_latency_p99": rng.uniform(900, 1500),
        "kuma_age": rng.uniform(0, 60),
        "monitors_up": rng.randint(95, 100),
        "monitors_down": rng.randint(0, 3),
        "monitors_unknown": 0,
        "store_failing": 0,
        "store_queue": 0,
        "remote_away": 0,
        "outbox_queued": 0,
        "outbox_age": 0,
        "web_auth_failures": 0,
    }
    at = NOW + timedelta(milliseconds=number * 10_000 + rng.randint(-5, 5))
    return Sample(at, "primary", values)


async def test_thirty_days_of_snapshots_fit_into_the_budget(path: Path) -> None:
    """A tenth of the 259,200 snapshots of thirty days; every page of the file counts."""
    rng = random.Random(7)
    store = SqliteStore(path)
    await store.open()
    empty = await store.size_bytes()

    def bulk(db: sqlite3.Connection) -> None:
        bot = store._numbers.bot(db, "primary")
        for number in range(25_920):
            made = realistic(number, rng)
            sqlite_metrics.insert_sample(db, bot, to_ms(made.at), sqlite_metrics.sample_row(made))

    await store._write(bulk)
    for hour in range(72):
        await store.save_hourly(NOW + timedelta(hours=hour))
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert empty < 700_000
    assert (path.stat().st_size - 300_000) * 10 < 40_000_000


async def test_deleted_space_is_given_back_in_small_steps(store: SqliteStore) -> None:
    filler = "INSERT INTO metrics_raw (timestamp, metric_type, data) VALUES (?, 'x', ?)"
    rows = [("2025-01-01 00:00:00.000", f'"{"x" * 4000}"')] * 1600
    await store._write(lambda db: db.executemany(filler, rows).rowcount)
    full = await pragma(store, "page_count")
    for _ in range(10):
        await store.delete_expired({"metrics_raw": NOW}, 400)
    left = await pragma(store, "page_count")
    assert isinstance(full, int) and isinstance(left, int)
    assert left < full - 500


async def test_a_deletion_lets_writes_in_between(store: SqliteStore) -> None:
    def bulk(db: sqlite3.Connection) -> None:
        bot = store._numbers.bot(db, "primary")
        row = sqlite_metrics.sample_row(sample())
        for number in range(20_000):
            sqlite_metrics.insert_sample(db, bot, to_ms(NOW) + number, row)

    await store._write(bulk)
    deleting = asyncio.create_task(
        store.delete_expired({"samples": NOW + timedelta(days=1)}, 30_000)
    )
    await asyncio.sleep(0)
    waits = []
    while not deleting.done():
        started = time.perf_counter()
        await store.save_sample(sample(10_000 + len(waits)))
        waits.append(time.perf_counter() - started)
    assert (await deleting)["samples"] >= 20_000
    assert len(waits) >= 5


# SQL readers


VIEWS = (
    "system_stats",
    "system_metrics",
    "performance_metrics",
    "latest_metrics",
    "metrics_last_24h",
    "metrics_hourly",
    "active_alerts",
    "popular_songs",
)


async def test_any_sqlite3_shell_reads_the_views(store: SqliteStore) -> None:
    await store.save_sample(Sample(NOW, "primary", {"cpu_usage": 1.0}, "online", (("x", {}, 2.0),)))
    await store.save_hourly(NOW)
    for view in VIEWS:
        query(store.path, f"SELECT * FROM {view}")
    # The shell is another build of the library than Python's; where there is one, ask it too.
    shell = shutil.which("sqlite3")
    for view in VIEWS if shell is not None else ():
        assert ask_shell(shell, store.path, f"SELECT * FROM {view}") == (0, ""), view


def ask_shell(shell: str, path: Path, statement: str) -> tuple[int, str]:
    done = subprocess.run(
        [shell, "-readonly", str(path), statement], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


async def test_an_insert_or_replace_through_a_view_gives_no_bot_a_new_number(
    store: SqliteStore,
) -> None:
    await store.save_sample(sample())
    insert = (
        "INSERT OR REPLACE INTO metrics_hourly "
        "(hour, metric_name, avg_value, min_value, max_value, count) "
        "VALUES ('2026-01-10 12:00:00', 'cpu_usage', {}, 0, 9, 3)"
    )
    query(store.path, insert.format(1), insert.format(2))
    assert query(store.path, "SELECT avg_value FROM metrics_hourly") == [(2.0,)]
    assert query(store.path, "SELECT bot, bot_id FROM bots") == [(1, "primary")]
    await store.save_sample(sample(1))
    assert len(query(store.path, "SELECT * FROM system_stats")) == 2


async def test_deleting_a_metric_by_name_spares_the_rest_of_its_snapshot(
    store: SqliteStore,
) -> None:
    labelled = (("shard_ping", {"shard": "0"}, 3.0), ("shard_ping", {"shard": "1"}, 4.0))
    await store.save_sample(
        Sample(NOW, "primary", {"cpu_usage": 1.0, "memory_usage": 2.0}, "online", labelled)
    )
    await store.save_metric(uuid4(), "cpu_usage", 7.0, {"by": "cog"}, NOW)
    query(
        store.path,
        "DELETE FROM system_metrics WHERE metric_name = 'cpu_usage' AND labels = '{}'",
        'DELETE FROM system_metrics WHERE labels = \'{"shard":"0"}\'',
    )
    left = query(store.path, "SELECT metric_name, metric_value FROM system_metrics ORDER BY 2")
    assert left == [("memory_usage", 2.0), ("shard_ping", 4.0), ("cpu_usage", 7.0)]
    assert query(store.path, "SELECT cpu_usage, ram_usage FROM system_stats") == [(None, 2.0)]
    query(store.path, "DELETE FROM performance_metrics WHERE recorded_at < '2026-01-11'")
    assert query(store.path, "SELECT * FROM system_metrics") == []
    assert query(store.path, "SELECT * FROM system_stats") == []


async def test_rows_inserted_by_others_keep_their_id_and_are_refused_without_a_time(
    store: SqliteStore,
) -> None:
    row_id = "11111111-2222-4333-8444-555555555555"
    insert = (
        "INSERT INTO system_stats (id, cpu_usage, server_count, status, timestamp) "
        f"VALUES ('{row_id}', 9e999, 7, 'napping', '2026-01-10T21:00:00.5+09:00')"
    )
    query(store.path, insert, insert)
    assert query(
        store.path, "SELECT id, cpu_usage, guild_count, status, timestamp FROM system_stats"
    ) == [(row_id, None, 7, "napping", "2026-01-10 12:00:00.500")]
    for table, column in (("system_stats", "cpu_usage"), ("system_metrics", "metric_value")):
        with pytest.raises(sqlite3.IntegrityError):
            query(store.path, f"INSERT INTO {table} ({column}, timestamp) VALUES (1, 'soon')")
    for value in ("NULL", "9e999", "'much'"):
        with pytest.raises(sqlite3.IntegrityError):
            query(
                store.path,
                f"INSERT INTO system_metrics (metric_name, metric_value) VALUES ('x', {value})",
            )


async def test_alert_rows_of_others_do_not_disturb_ours(store: SqliteStore) -> None:
    query(
        store.path,
        "INSERT INTO alert_history (rule_name, severity, message) VALUES ('r', 'warning', 'm')",
        "INSERT INTO alert_history (rule_name, severity) VALUES ('r', 'dreadful')",
        "INSERT INTO alert_history (id, rule_name) VALUES ('7', 'r')",
        "INSERT INTO alert_history (timestamp, rule_name) VALUES ('yesterday', 'r')",
    )
    (told,) = await store.open_incidents()
    assert (told.rule_name, told.message, told.version) == ("r", "m", 1)
    assert len((await store.load_alerting()).incidents) == 1
    assert len(query(store.path, "SELECT * FROM active_alerts")) == 4


async def test_a_setting_written_by_the_sample_code_is_read(store: SqliteStore) -> None:
    with closing(sqlite3.connect(store.path)) as db:
        db.execute(
            "INSERT OR REPLACE INTO monitoring_config (guild_id, alert_channel_id, "
            "check_interval, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            (1099999999999999999, 5, 60, "2026-01-10T12:00:00.123456", "2026-01-10T12:00:00"),
        )
        db.commit()
    (config,) = await store.guild_configs()
    assert (config.guild_id, config.alert_channel_id) == ("1099999999999999999", "5")
    assert config.updated_at == NOW


# Packed polls and times


@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_columns_come_back_as_they_went_in(values: list[int]) -> None:
    assert list(poll_codec.unpack(poll_codec.pack(values))) == values
    columns = [values, values[::-1]]
    found = poll_codec.unpack_columns(poll_codec.pack_columns(columns), 2)
    assert [list(column) for column in found] == columns


def test_columns_are_little_endian_whatever_the_machine() -> None:
    assert poll_codec.pack([1, -1]) == b"\x01\0\0\0\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="multiple"):
        poll_codec.unpack(b"123")


@pytest.mark.parametrize(
    ("milliseconds", "kept"),
    [
        (None, -1),
        (float("nan"), -1),
        (float("inf"), -1),
        (-1, -1),
        (1e12, -1),
        (0, 0),
        (0.04, 0),
        (12.34, 123),
        (214748364.7, 2**31 - 1),
    ],
)
def test_times_no_clock_can_measure_are_no_answer(milliseconds: float | None, kept: int) -> None:
    assert poll_codec.tenths(milliseconds) == kept


@given(st.sets(st.integers(1, 99)), st.integers(0, 100))
def test_a_monitor_is_found_in_its_roster(numbers: set[int], number: int) -> None:
    ordered = sorted(numbers)
    expected = ordered.index(number) if number in numbers else None
    assert poll_codec.place_of(ordered, number) == expected


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_are_exact(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    with closing(sqlite3.connect(":memory:")) as db:
        text = from_ms(ms).isoformat(" ", "milliseconds")[:23]
        back = "CAST(round(julianday(?) * 86400000.0) AS INTEGER) - 210866760000000"
        shown = "strftime('%Y-%m-%d %H:%M:%f', ? / 1000.0, 'unixepoch')"
        assert db.execute(f"SELECT {back}, {shown}", (text, ms)).fetchone() == (ms, text)


@given(st.text(st.characters(codec=None)), st.floats() | st.integers())
def test_any_text_and_number_can_be_stored(text: str, number: float) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        stored = db.execute(
            "SELECT ?, json_valid(?)", (clean(text), json_text({text: number}))
        ).fetchone()
    assert stored == (clean(text), 1)
