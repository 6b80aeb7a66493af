"""A backup is whole or it is not there; what comes back is what was."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyrage
import pytest

from bot.cli import main
from bot.core.observation import Sample
from bot.progress import ProgressLine
from bot.services.backups import RETRY, Backups
from bot.storage import backup as backup_module
from bot.storage import migrations
from bot.storage.backup import BackupError, make, restore, verify
from bot.storage.backup_folder import BackupFolder, backups, prune
from bot.storage.scratch import PREFIX, scratch
from bot.storage.sealed import SealError, identities_of, recipients_of
from bot.storage.sqlite import SqliteStore
from bot.storage.store import StoreCorrupt, StoreError, StoreForeign, StoreTooNew, StoreUnavailable

NOW = datetime(2026, 11, 20, 3, 4, 5, tzinfo=UTC)
NAME = "comet-20261120T030405Z.db.gz"


@pytest.fixture
def place(tmp_path: Path, leave_nothing_behind: None) -> Path:
    return tmp_path


def fill(path: Path, rows: int = 200) -> None:
    """A database of ours with snapshots in it, made without a running bot."""

    async def write() -> None:
        store = SqliteStore(path)
        await store.open()
        try:
            await store.save_sample(Sample(at=NOW, bot_id="primary", values={"cpu_usage": 12.5}))
        finally:
            await store.close()

    asyncio.run(write())
    start_ms = int(NOW.timestamp() * 1000)
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "INSERT INTO samples (sample_key, cpu_usage, ram_usage) VALUES (?, ?, ?)",
            [((start_ms - 10_000 * n) << 8 | 1, n % 997, n % 89) for n in range(1, rows)],
        )


@pytest.fixture
def database(place: Path) -> Path:
    path = place / "data" / "comet.db"
    fill(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def samples(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM samples").fetchone()[0])


def said(environ: dict[str, str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output, complaints of one call in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bot", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- making ------------------------------------------------------------------------------------


def test_a_backup_is_a_gzipped_database_with_the_time_in_its_name(
    place: Path, database: Path
) -> None:
    made = make(database, place / "kept", NOW)
    assert made == place / "kept" / NAME
    assert names(place / "kept") == [NAME] and names(database.parent) == ["comet.db"]
    plain = place / "plain.db"
    plain.write_bytes(gzip.decompress(made.read_bytes()))
    assert samples(plain) == 200


def test_nobody_else_can_read_it(place: Path, database: Path) -> None:
    before = os.umask(0)
    try:
        made = make(database, place / "kept", NOW)
        assert stat.S_IMODE(made.stat().st_mode) == 0o640
        assert stat.S_IMODE((place / "kept").stat().st_mode) == 0o750
        database.chmod(0o600)
        made = make(database, place / "kept", NOW)
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_second_one_in_the_same_second_takes_another_name(place: Path, database: Path) -> None:
    first, second = make(database, place, NOW), make(database, place, NOW)
    assert second.name == "comet-20261120T030405Z-2.db.gz"
    assert [one.path for one in backups(place)] == [second, first]


def test_a_name_of_ones_own_must_tell_what_is_inside(place: Path, database: Path) -> None:
    assert make(database, place / "x.db.gz", NOW) == place / "x.db.gz"
    key = pyrage.x25519.Identity.generate().to_public()
    for name, recipients, reason in (
        ("x.db.gz", [], "taken"),
        ("y.db", [], "suffix"),
        ("y.db.gz", [key], "suffix"),
        ("y.db.gz.age", [], "suffix"),
    ):
        with pytest.raises(BackupError) as caught:
            make(database, place / name, NOW, recipients)
        assert caught.value.reason == reason
    assert names(place) == ["data", "x.db.gz"]


async def test_it_holds_what_was_there_at_one_moment_while_the_bot_writes(place: Path) -> None:
    path = place / "comet.db"
    await asyncio.to_thread(fill, path, 20_000)
    store = SqliteStore(path)
    await store.open()
    work = asyncio.create_task(asyncio.to_thread(make, path, place / "kept", NOW))
    written = 0
    try:
        while not work.done():
            at = NOW + timedelta(seconds=written + 1)
            await store.save_sample(Sample(at=at, bot_id="primary", values={"cpu_usage": 1.0}))
            written += 1
            await asyncio.sleep(0.001)
        made = await work
    finally:
        await work
        await store.close()
    assert written > 3
    contents = await asyncio.to_thread(verify, made, work=place)
    assert 20_000 <= contents.counts["samples"] <= 20_000 + written


@pytest.mark.parametrize("broken", ["missing", "foreign", "new", "damaged", "empty"])
def test_what_cannot_be_backed_up_leaves_nothing(broken: str, place: Path, database: Path) -> None:
    if broken == "missing":
        database.unlink()
    elif broken == "empty":
        database.write_bytes(b"")
    elif broken == "damaged":
        with database.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(os.urandom(4096 * 20))
    else:
        with closing(sqlite3.connect(database)) as db:
            db.execute(f"PRAGMA {'application_id' if broken == 'foreign' else 'user_version'} = 99")
    with pytest.raises(StoreError):
        make(database, place / "kept", NOW)
    assert not (place / "kept").exists() or not names(place / "kept")


def test_a_full_disk_leaves_nothing_and_says_so(
    place: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once seen beforehand, once hit in the middle (a limit on file size stands for the disk)."""
    with monkeypatch.context() as patch:
        usage = SimpleNamespace(free=1000)
        patch.setattr(backup_module.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(StoreUnavailable) as caught:
            make(database, place / "kept", NOW)
    assert caught.value.reason == "full" and not names(place / "kept")

    for limit in (database.stat().st_size // 2, 4096):
        code = (
            "import resource, signal, sys; from bot.cli import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "backup", "--to", str(place / "kept")],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(sys.path),
                "SQLITE_DB_PATH": str(database),
                "COMET_LOCALE": "en",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1 and done.stderr.startswith("✖ ") and not done.stdout
        assert not names(place / "kept")


def test_what_a_killed_backup_left_is_swept_away(place: Path, database: Path) -> None:
    kept = place / "kept"
    code = (
        "import sys, time; from pathlib import Path; from datetime import datetime, UTC\n"
        "from bot.storage.backup import make\n"
        "def wait(step, part):\n"
        "    if step == 'pack': print('here', flush=True); time.sleep(60)\n"
        f"make(Path({str(database)!r}), Path({str(kept)!r}), datetime.now(UTC), (), wait)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    # While it lives nobody touches its folder, whatever its age.
    [work] = kept.iterdir()
    os.utime(work, (0, 0))
    make(database, kept, NOW)
    assert work.exists()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert work.exists() and not list(kept.glob("comet-2026*.part"))
    make(database, kept, NOW)
    assert not work.exists() and len(names(kept)) == 2


# --- keeping -----------------------------------------------------------------------------------


def test_only_our_own_files_are_deleted_and_never_the_newest(place: Path) -> None:
    ours = [place / f"comet-2026112{n}T000000Z.db.gz{'.age' * (n % 2)}" for n in range(6)]
    theirs = [
        place / name
        for name in (
            "comet-latest.db.gz",
            "comet-20261120T000000Z.db.gz.gpg",
            "comet-20269920T000000Z.db.gz",
            "my-comet-20261120T000000Z.db.gz",
            "comet-20261120T000000Z.db.gz.part",
        )
    ]
    for path in ours + theirs:
        path.write_bytes(b"x")
    assert prune(place, 2, ours[-1]) == [ours[n] for n in (3, 2, 1, 0)]
    assert names(place) == sorted(path.name for path in [*theirs, *ours[-2:]])
    # The one just proven stays, even where an older clock makes it look like the oldest.
    assert prune(place, 1, ours[-2]) == [ours[-1]]
    assert prune(place, 0, ours[-2]) == []


# --- encrypting --------------------------------------------------------------------------------


@pytest.fixture
def keys(place: Path) -> Iterator[SimpleNamespace]:
    """Two age keys and an ssh key, in files as their owners have them."""
    found = SimpleNamespace()
    for name in ("alice", "bob"):
        secret = pyrage.x25519.Identity.generate()
        path = place / f"{name}.txt"
        path.write_text(f"# created: today\n# public key: {secret.to_public()}\n{secret}\n")
        setattr(found, name, path)
        setattr(found, f"{name}_public", str(secret.to_public()))
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a, b #c", "-f", place / "ssh"]
    subprocess.run(command, check=True)
    found.ssh = place / "ssh"
    found.ssh_public = (place / "ssh.pub").read_text().strip()
    yield found


def test_every_recipient_and_nobody_else_can_open_it(
    place: Path, database: Path, keys: SimpleNamespace
) -> None:
    listed = place / "recipients"
    listed.write_text(f"# for the night shift\n{keys.ssh_public}\n\n")
    made = make(database, place / "kept", NOW, recipients_of([keys.alice_public, str(listed)]))
    assert made.name == f"{NAME}.age" and made.read_bytes().startswith(b"age-encryption.org/v1")
    for path in (keys.alice, keys.ssh):
        assert verify(made, identities_of(path), work=place).counts["samples"] == 200
    with pytest.raises(SealError) as caught:
        verify(made, identities_of(keys.bob), work=place)
    assert caught.value.reason == "wrong_key"
    with pytest.raises(SealError) as caught:
        verify(made, work=place)
    assert caught.value.reason == "needs_key"


def test_a_bad_key_is_refused_and_not_repeated(place: Path, keys: SimpleNamespace) -> None:
    secret = keys.alice.read_text().splitlines()[-1]
    for given in (secret, "age1nonsense", "no/such/file", str(keys.alice), "ssh-ed25519 AAAA"):
        with pytest.raises(SealError) as caught:
            recipients_of([given])
        assert caught.value.reason == "bad_recipient" and secret not in str(caught.value)
    (place / "empty").touch()
    (place / "wrong").write_text("AGE-SECRET-KEY-1WRONG\n")
    for name in ("empty", "wrong", "missing", "recipients", "ssh.pub"):
        with pytest.raises(SealError) as caught:
            identities_of(place / name)
        assert caught.value.reason == "bad_identity" and "WRONG" not in str(caught.value)


def test_without_pyrage_it_says_what_to_install(
    place: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(SealError) as caught:
        recipients_of(["age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"])
    assert caught.value.reason == "no_pyrage"
    assert verify(make(database, place, NOW), work=place).counts["samples"] == 200


# --- verifying ---------------------------------------------------------------------------------


def test_it_says_what_a_backup_holds(place: Path, database: Path) -> None:
    contents = verify(make(database, place, NOW), work=place)
    assert contents.schema_number == migrations.latest_number()
    assert contents.newest_sample_at == NOW
    assert contents.counts["samples"] == 200 and contents.counts["flips"] == 0
    assert not list(place.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_changed_or_shortened_backup_is_never_taken_for_whole(
    is_sealed: bool, place: Path, database: Path, keys: SimpleNamespace
) -> None:
    recipients = recipients_of([keys.alice_public]) if is_sealed else []
    identities = identities_of(keys.alice)
    whole = make(database, place / "kept", NOW, recipients).read_bytes()
    chance = random.Random(7)
    path = place / "x"
    for _ in range(60):
        at = chance.choice([chance.randrange(200), chance.randrange(len(whole))])
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chance.randrange(8)
        for content in (bytes(flipped), whole[:at]):
            path.write_bytes(content)
            try:
                contents = verify(path, identities, work=place)
            except StoreError as error:
                assert error.reason in ("damaged", "not_backup", "wrong_key", "no_pyrage")
            else:
                # Some bits of a gzip file change nothing that comes out of it.
                assert not is_sealed and gzip.decompress(content) == gzip.decompress(whole)
                assert contents.counts["samples"] == 200
    path.write_bytes(whole + b"x")
    with pytest.raises(SealError):
        verify(path, identities, work=place)
    assert not list(place.glob(f"{PREFIX}*"))


def test_what_is_no_backup_is_named_as_such(place: Path) -> None:
    path = place / "x"
    foreign = place / "foreign.db"
    with closing(sqlite3.connect(foreign)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    for content, error in (
        (b"", BackupError),
        (b"hello", BackupError),
        (gzip.compress(b"hello"), BackupError),
        (gzip.compress(b""), StoreError),
        (gzip.compress(b"SQLite format 3\0" + b"\0" * 5000), StoreError),
        (gzip.compress(foreign.read_bytes()), StoreForeign),
        (foreign.read_bytes(), StoreForeign),
    ):
        path.write_bytes(content)
        with pytest.raises(error):
            verify(path, work=place)
    with pytest.raises(StoreUnavailable):
        verify(place / "missing", work=place)
    assert names(place) == ["foreign.db", "x"]


def test_damage_inside_the_database_is_found(place: Path, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096 * 30 : 4096 * 60] = os.urandom(4096 * 30)
    path = place / "x.db.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(StoreCorrupt):
        verify(path, work=place)


# --- restoring ---------------------------------------------------------------------------------


def test_what_was_there_is_moved_aside_and_never_deleted(place: Path, database: Path) -> None:
    made = make(database, place / "kept", NOW)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("DELETE FROM samples")
    with pytest.raises(BackupError) as caught:
        restore(made, database, NOW)
    assert caught.value.reason == "exists" and samples(database) == 0

    done = restore(made, database, NOW, is_forced=True)
    assert done.contents.newest_sample_at == NOW and samples(database) == 200
    assert done.aside == database.with_name("comet.db.before-restore-20261120T030405Z")
    assert samples(done.aside) == 0
    assert stat.S_IMODE(database.stat().st_mode) == 0o640
    assert restore(made, place / "new" / "x.db", NOW).aside is None
    assert names(place / "new") == ["x.db"]


def test_a_wal_without_its_database_is_moved_aside_too(place: Path, database: Path) -> None:
    """Left in place it would be taken for the restored database's own."""
    made = make(database, place / "kept", NOW)
    target = place / "new.db"
    (place / "new.db-wal").write_bytes(b"old")
    with pytest.raises(BackupError):
        restore(made, target, NOW)
    restore(made, target, NOW, is_forced=True)
    assert not (place / "new.db-wal").exists() and samples(target) == 200
    assert (place / "new.db.before-restore-20261120T030405Z-wal").read_bytes() == b"old"


async def test_it_refuses_while_a_bot_has_the_database_open(place: Path, database: Path) -> None:
    made = await asyncio.to_thread(make, database, place / "kept", NOW)
    store = SqliteStore(database)
    await store.open()
    try:
        # An idle one: nothing was written for a while.
        with pytest.raises(BackupError) as caught:
            await asyncio.to_thread(restore, made, database, NOW, is_forced=True)
        assert caught.value.reason == "in_use"
    finally:
        await store.close()
    assert samples(database) == 200 and names(database.parent) == ["comet.db"]
    await asyncio.to_thread(restore, made, database, NOW, is_forced=True)


def test_a_bot_started_in_the_middle_of_a_restore_keeps_its_file(
    place: Path, database: Path
) -> None:
    made = make(database, place / "kept", NOW)
    others: list[sqlite3.Connection] = []

    def start_bot(step: str, part: float | None) -> None:
        if step == "migrate":
            db = sqlite3.connect(database)
            db.execute("SELECT count(*) FROM samples").fetchone()
            others.append(db)

    with pytest.raises(BackupError) as caught:
        restore(made, database, NOW, report=start_bot, is_forced=True)
    others[0].close()
    assert caught.value.reason == "in_use" and samples(database) == 200
    assert [one for one in names(database.parent) if "restore" in one or PREFIX in one] == []


def test_the_wal_of_a_killed_bot_is_no_bot(place: Path, database: Path) -> None:
    made = make(database, place / "kept", NOW)
    code = (
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('INSERT INTO samples (sample_key) VALUES (1)')\n"
        "print('here', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, database], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    assert database.with_name("comet.db-wal").stat().st_size
    done = restore(made, database, NOW, is_forced=True)
    assert done.aside is not None and samples(done.aside) == 201 and samples(database) == 200


def test_an_older_schema_is_brought_up_and_a_newer_one_refused(
    place: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = place / "old.db"
    everything = migrations.available()
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "available", lambda dialect="sqlite": everything[:3])
        with closing(sqlite3.connect(old, isolation_level=None)) as db:
            migrations.migrate(db)
        made = make(old, place / "kept", NOW)
    contents = verify(made, work=place)
    assert contents.schema_number == 3 and "monitors" not in contents.counts
    done = restore(made, place / "x.db", NOW)
    assert (done.was_schema_number, done.contents.schema_number) == (3, len(everything))

    made = make(database, place / "kept", NOW)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "available", lambda dialect="sqlite": everything[:3])
        with pytest.raises(StoreTooNew):
            restore(made, place / "y.db", NOW)
    assert not (place / "y.db").exists()


def test_a_bad_backup_leaves_the_database_where_it_is(place: Path, database: Path) -> None:
    made = make(database, place / "kept", NOW)
    made.write_bytes(made.read_bytes()[:-100])
    for path in (made, place / "missing", database):
        with pytest.raises(StoreError):
            restore(path, database, NOW, is_forced=True)
    assert samples(database) == 200 and names(database.parent) == ["comet.db"]


def test_a_bare_file_is_restored_with_what_stands_only_in_its_wal(
    place: Path, database: Path
) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("INSERT INTO samples (sample_key) VALUES (1)")
        restore(database, place / "x.db", NOW)
    assert samples(place / "x.db") == 201


# --- the schedule ------------------------------------------------------------------------------


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


async def test_one_is_made_when_the_newest_is_too_old_also_after_a_restart(
    place: Path, database: Path
) -> None:
    clock = Time()
    folder = BackupFolder(database, place / "kept", keep=2)
    schedule = Backups(folder, 24, clock)
    await schedule.tick()
    assert (schedule.count, schedule.last_ok_at) == (1, NOW)
    assert schedule.next_at == NOW + timedelta(hours=24)
    clock.at += timedelta(hours=23, minutes=59)
    await schedule.tick()
    again = Backups(folder, 24, clock)
    await again.tick()
    assert (schedule.count, again.count, again.last_ok_at) == (1, 0, NOW)
    for _ in range(3):
        clock.at += timedelta(hours=25)
        await again.tick()
    assert again.count == 3 and len(names(place / "kept")) == 2


async def test_trouble_is_logged_once_and_seen_until_it_is_over(
    place: Path, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Time()
    (place / "kept").write_bytes(b"a file where the folder ought to be")
    schedule = Backups(BackupFolder(database, place / "kept", keep=2), 24, clock)
    for _ in range(4):
        await schedule.tick()
        clock.at += RETRY
    assert schedule.failed == 4 and schedule.last_error and schedule.last_ok_at is None
    await schedule.tick()
    clock.at += RETRY / 2
    await schedule.tick()
    assert schedule.failed == 5, "it waits a while after a failure"
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
    (place / "kept").unlink()
    clock.at += RETRY
    await schedule.tick()
    assert (schedule.count, schedule.last_error) == (1, None)
    await schedule.tick()
    assert schedule.count == 1


async def test_a_backup_of_the_future_does_not_keep_new_ones_from_being_made(
    place: Path, database: Path
) -> None:
    clock = Time()
    clock.at += timedelta(days=900)
    folder = BackupFolder(database, place / "kept", keep=1)
    await Backups(folder, 24, clock).tick()
    clock.at = NOW
    schedule = Backups(folder, 24, clock)
    await schedule.tick()
    assert schedule.count == 1 and names(place / "kept") == [NAME]


async def test_a_clock_set_back_after_a_failure_delays_nothing(place: Path, database: Path) -> None:
    clock = Time()
    clock.at += timedelta(days=900)
    (place / "kept").touch()
    schedule = Backups(BackupFolder(database, place / "kept", keep=2), 24, clock)
    await schedule.tick()
    assert schedule.failed == 1
    (place / "kept").unlink()
    clock.at = NOW
    await schedule.tick()
    assert schedule.count == 1


async def test_a_process_that_ends_does_not_wait_for_its_backup(
    place: Path, database: Path
) -> None:
    begun, let_go = threading.Event(), threading.Event()

    class Slow(BackupFolder):
        def make(self, now: datetime, is_stopped: Callable[[], bool]) -> tuple[str, int]:
            begun.set()
            let_go.wait(10)
            return super().make(now, is_stopped)

    schedule = Backups(Slow(database, place / "kept", keep=2), 24, lambda: NOW)
    task = asyncio.create_task(schedule.tick())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    let_go.set()
    deadline = time.monotonic() + 5
    while list(place.glob("kept/*")) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not list(place.glob("kept/*"))


# --- as people call it -------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["ja", "en"])
def test_from_making_to_restoring_on_the_command_line(
    locale: str, place: Path, database: Path, keys: SimpleNamespace
) -> None:
    environ = {
        "COMET_LOCALE": locale,
        "SQLITE_DB_PATH": str(database),
        "BACKUP_DIR": str(place / "kept"),
        "BACKUP_KEEP": "1",
    }
    assert said(environ, "backup", "--list")[0] == 0
    for _ in range(2):
        code, out, _ = said(environ, "backup", "--recipient", keys.alice_public)
        assert code == 0 and ".db.gz.age" in out
    [one] = (place / "kept").iterdir()
    assert one.name in said(environ, "backup", "--list")[1]
    code, out, complaint = said(environ, "backup", "--verify", one)
    assert code == 1 and not out and "--identity" in complaint
    code, out, _ = said(environ, "backup", "--verify", one, "--identity", keys.alice)
    assert code == 0 and "samples" in out and "2026-11-20 12:04:05 JST" in out
    code, _, complaint = said(environ, "restore", one, "--identity", keys.alice)
    assert code == 1 and "--force" in complaint
    code, out, _ = said(environ, "restore", one, "--identity", keys.alice, "--force")
    assert code == 0 and "before-restore" in out and samples(database) == 200
    assert said(environ, "backup", "--keep", "0")[0] == 2
    assert said(environ, "backup", "--list", "--verify", "x")[0] == 2


def test_every_fault_has_a_sentence_in_both_languages(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (
        ("empty", b""),
        ("text", b"hello"),
        ("cut.db.gz", gzip.compress(b"SQLite format 3\0" * 400)[:-5]),
        ("zip.db.gz", gzip.compress(b"hello")),
    ):
        (place / name).write_bytes(content)
        for locale in ("ja", "en"):
            assert main(["backup", "--verify", str(place / name)], {"COMET_LOCALE": locale}) == 1
            out, complaint = capsys.readouterr()
            assert not out and complaint.startswith("✖ ") and complaint.count("\n") == 1
            assert name in complaint
    assert main(["backup", "--verify", "no/such"], {"COMET_LOCALE": "en"}) == 1
    assert "No such file" in capsys.readouterr().err


def test_progress_is_one_line_on_a_terminal_and_few_lines_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = SimpleNamespace(s=0.0)
    line = ProgressLine(sys.stdout, lambda: clock.s)
    for second in range(12):
        clock.s = float(second)
        line.show(lambda: f"at {clock.s:.0f}")
    line.clear()
    assert capsys.readouterr().out == "at 5\nat 10\n"
    with scratch(Path.cwd()) as work:
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
