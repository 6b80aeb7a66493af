"""The command line as people use it: all faults at once, and a check that changes nothing."""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.check import check
from bot.cli import main
from bot.core.observation import Sample
from bot.settings import load_settings
from bot.settings_table import SPECS
from bot.storage.migrations import available, latest_number
from bot.storage.postgres import PostgresStore, address_of
from bot.storage.sqlite import SqliteStore
from tests.peers.discord import DiscordPeer
from tests.peers.kuma.replay import Fault, ReplayKuma
from tests.peers.postgres.faults import Fault as GatewayFault
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase

SECRET = "do-not-show-this-0123456789"


@pytest.fixture
def home(tmp_path: Path, leave_nothing_behind: None) -> Iterator[Path]:
    """A working directory that may be written to."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


async def report(environ: dict[str, str], free_port: Callable[[], int]) -> tuple[bool, str]:
    out = io.StringIO()
    is_fine = await check(
        load_settings({"COMET_LOCALE": "en", "WEB_PORT": str(free_port()), **environ}), out
    )
    return is_fine, out.getvalue()


def run_module(root: Path, home: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        cwd=home,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root), **environ},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", ["ja", "en"])
def test_without_a_verb_it_lists_the_verbs(locale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {"COMET_LOCALE": locale}) == 0
    said = capsys.readouterr().out
    for verb in ("run", "check", "migrate", "settings-table"):
        assert f"    {verb}" in said
    assert ("works with no settings" in said) == (locale == "en")


def test_the_language_may_stand_in_the_dotenv_file(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".env").write_text("COMET_LOCALE=en\nWEB_PORT=x\n")
    assert main([], {}) == 0
    assert "works with no settings" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["run", "check", "migrate"])
def test_every_fault_is_told_before_anything_starts(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {
        "COMET_LOCALE": "en",
        "WEB_PORT": "many",
        "SAMPLE_INTERVAL_S": "0",
        "DISCORD_TOKEN": f"Bot {SECRET}",
    }
    assert main([verb], environ) == 2
    out, said = capsys.readouterr()
    assert not out
    for name in ("WEB_PORT", "SAMPLE_INTERVAL_S", "DISCORD_TOKEN"):
        assert f"✖ {name}: " in said and f"{name}=" in said
    assert SECRET not in said


def test_a_wrong_language_is_told_in_the_default_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"], {"COMET_LOCALE": "fr"}) == 2
    assert "COMET_LOCALE: ja, en のどれか" in capsys.readouterr().err


def test_the_table_is_printed_and_written(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings-table", "--locale", "en"], {}) == 0
    table = capsys.readouterr().out
    assert all(f"| `{spec.name}` |" in table for spec in SPECS)
    assert main(["settings-table", "--env"], {}) == 0
    assert f"#{SPECS[0].name}=" in capsys.readouterr().out

    page = home / "README.md"
    page.write_text("a\n<!-- settings:begin -->\n<!-- settings:end -->\nb\n")
    assert main(["settings-table", "--locale", "en", "--write", str(page)], {}) == 0
    assert table in page.read_text("utf-8")
    page.write_text("no markers")
    assert main(["settings-table", "--write", str(page)], {}) == 1
    assert "settings:begin" in capsys.readouterr().err
    assert page.read_text() == "no markers"


def test_it_runs_from_any_directory_and_speaks_to_any_terminal(root: Path, tmp_path: Path) -> None:
    code, out, _ = run_module(root, tmp_path, "--help", PYTHONIOENCODING="ascii")
    assert code == 0 and "settings-table" in out and "\\u" in out
    code, _, said = run_module(root, tmp_path, "fly")
    assert code == 2 and "fly" in said
    assert not list(tmp_path.iterdir())


def test_a_reader_that_stops_reading_earns_no_traceback(root: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m bot migrate --print | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr


# --- migrate -----------------------------------------------------------------------------------


def test_migrate_prints_sql_that_sqlite_takes_and_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", "--print"], {}) == 0
    assert not list(home.iterdir())
    with sqlite3.connect(":memory:") as db:
        db.executescript(capsys.readouterr().out)
        assert db.execute("SELECT count(*) FROM system_stats").fetchone() == (0,)
    db.close()


def test_migrate_brings_a_file_up_to_date_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"COMET_LOCALE": "en", "SQLITE_DB_PATH": "deep/er/comet.db"}
    assert main(["migrate"], environ) == 0
    assert "applied: 0001_" in capsys.readouterr().out
    assert main(["migrate"], environ) == 0
    assert "deep/er/comet.db is up to date" in capsys.readouterr().out
    assert main(["migrate", "--print"], environ) == 0
    assert capsys.readouterr().out == ""


def test_migrate_leaves_a_foreign_file_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    assert main(["migrate"], {"COMET_LOCALE": "en", "SQLITE_DB_PATH": str(path)}) == 1
    assert "✖" in capsys.readouterr().err
    assert path.read_bytes() == before and [p.name for p in home.iterdir()] == ["other.db"]


def remote_environ(**more: str) -> dict[str, str]:
    return {"COMET_LOCALE": "en", **more}


def test_migrate_brings_the_file_and_postgresql_up_to_date_once(
    home: Path, empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = remote_environ(MONITORING_DB="postgresql", DATABASE_URL=empty_database)
    name = address_of(empty_database)
    assert main(["migrate", "--print"], environ) == 0
    assert not list(home.iterdir())
    printed = capsys.readouterr().out
    assert all(f"-- {one.path.name}\n" in printed for one in available("postgres"))
    assert "PRAGMA" not in printed
    assert main(["migrate"], environ) == 0
    said = capsys.readouterr().out
    assert "applied: 0001_snapshots.sql\n" in said
    assert all(f"applied: {name}: {one.path.name}\n" in said for one in available("postgres"))
    assert main(["migrate"], environ) == 0
    assert f"{name} is up to date" in capsys.readouterr().out
    assert main(["migrate", "--print"], environ) == 0
    assert capsys.readouterr().out == ""


def test_what_migrate_prints_can_be_pasted_twice(
    home: Path,
    postgres: PostgresServer,
    empty_database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = remote_environ(
        MONITORING_DB="supabase", SUPABASE_URL="https://x.supabase.co", SUPABASE_KEY="sb_secret_x"
    )
    assert main(["migrate", "--print"], environ) == 0
    printed = capsys.readouterr().out
    name = empty_database.rpartition("/")[2]
    for _ in range(2):
        postgres.execute(printed, database=name)
    numbers = postgres.fetch("select number from public.comet_migrations order by 1", database=name)
    assert numbers == [(one.number,) for one in available("postgres")]


def test_migrate_goes_through_the_database_address_of_a_supabase_project(
    home: Path, supabase: Supabase, capsys: pytest.CaptureFixture[str]
) -> None:
    latest = latest_number("postgres")
    supabase.execute(f"delete from public.comet_migrations where number = {latest}")
    environ = remote_environ(SUPABASE_URL=supabase.url, SUPABASE_KEY=supabase.secret_key)
    assert main(["migrate"], environ) == 1
    said = capsys.readouterr().out
    assert "DATABASE_URL" in said and "SQL editor" in said and "supabase db push" in said
    assert main(["migrate"], {**environ, "DATABASE_URL": supabase.dsn}) == 0
    assert f": {available('postgres')[-1].path.name}\n" in capsys.readouterr().out
    assert main(["migrate"], environ) == 0
    assert f"{supabase.url.partition('//')[2]} is up to date" in capsys.readouterr().out
    assert main(["migrate"], {**environ, "SUPABASE_KEY": "sb_secret_wrong_12345678"}) == 1
    err = capsys.readouterr().err
    assert "refuses the login" in err and "sb_secret_wrong" not in err


def test_migrate_says_why_it_cannot_and_shows_no_password(
    home: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"MONITORING_DB": "postgresql", "DATABASE_URL": postgres.dsn("x", password=SECRET)}
    for arguments in (["migrate"], ["migrate", "--print"]):
        assert main(arguments, remote_environ(**wrong)) == 1
        out, err = capsys.readouterr()
        assert "refuses the login" in err and SECRET not in out + err


# --- check -------------------------------------------------------------------------------------


async def test_with_nothing_configured_the_check_is_fine_and_makes_no_file(
    home: Path, free_port: Callable[[], int]
) -> None:
    is_fine, said = await report({}, free_port)
    assert is_fine and "✖" not in said
    assert "does not exist yet" in said and "DISCORD_TOKEN is not set" in said
    assert all(f"  {s.name} = " in said for s in SPECS if "KUMA" not in s.name)
    assert not list(home.iterdir())


async def test_it_tells_how_the_copy_in_postgresql_stands(
    home: Path, postgres: PostgresServer, database: str, free_port: Callable[[], int]
) -> None:
    environ = {"MONITORING_DB": "postgresql", "DATABASE_URL": database}
    latest = latest_number("postgres")
    is_fine, said = await report(environ, free_port)
    assert is_fine, said
    assert f"✔ Copy (PostgreSQL): {address_of(database)} (schema {latest}, up to date" in said
    assert "pooler" not in said and "not encrypted" not in said
    _, said = await report({**environ, "DATABASE_URL": f"{database}?pgbouncer=true"}, free_port)
    assert "is a pooler" in said
    name = database.rpartition("/")[2]
    await asyncio.to_thread(
        postgres.execute,
        f"delete from public.comet_migrations where number = {latest}",
        database=name,
    )
    is_fine, said = await report(environ, free_port)
    assert not is_fine and f"stands at schema {latest - 1}, but this version needs {latest}" in said
    for wrong in (postgres.dsn(name, password=SECRET), postgres.dsn("nowhere", password=SECRET)):
        is_fine, said = await report({**environ, "DATABASE_URL": wrong}, free_port)
        assert not is_fine and "refuses the login" in said and SECRET not in said
    nobody = f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x"
    is_fine, said = await report({**environ, "DATABASE_URL": nobody}, free_port)
    assert not is_fine and "does not answer" in said and SECRET not in said


async def test_it_tells_how_the_copy_in_supabase_stands(
    root: Path, home: Path, supabase: Supabase, free_port: Callable[[], int]
) -> None:
    environ = {"SUPABASE_URL": supabase.url, "SUPABASE_KEY": supabase.secret_key}
    latest = latest_number("postgres")
    is_fine, said = await report({**environ, "DATABASE_URL": supabase.dsn}, free_port)
    assert is_fine, said
    name = supabase.url.partition("//")[2]
    assert f"✔ Copy (Supabase): {name} (schema {latest}, up to date" in said
    assert f"✔ DATABASE_URL: {address_of(supabase.dsn)} (schema {latest})" in said
    for key, what in (
        (f"sb_secret_{SECRET}", "refuses the login"),
        (supabase.expired_key, "refuses the login"),
    ):
        is_fine, said = await report({**environ, "SUPABASE_KEY": key}, free_port)
        assert not is_fine and what in said and key not in said
    for fault, what in (
        (GatewayFault.PAUSED_540, "project paused"),
        (GatewayFault.HTML_200, "not as expected"),
        (GatewayFault.BUSY_503, "does not answer"),
    ):
        supabase.faults.always(fault)
        is_fine, said = await report(environ, free_port)
        assert not is_fine and what in said and supabase.secret_key not in said
        supabase.faults.clear()
    wrong = {**environ, "DATABASE_URL": f"postgresql://u:{SECRET}@127.0.0.1:{free_port()}/x"}
    is_fine, said = await report(wrong, free_port)
    assert not is_fine and "✖ DATABASE_URL: " in said and SECRET not in said
    await asyncio.to_thread(
        supabase.execute, "revoke execute on function public.comet_guild_configs from service_role"
    )
    is_fine, said = await report(environ, free_port)
    assert not is_fine and "denies the rights" in said
    code, out, _ = await asyncio.to_thread(
        run_module,
        root,
        home,
        "migrate",
        **{**environ, "DATABASE_URL": supabase.dsn, "COMET_LOCALE": "en"},
    )
    assert code == 0 and "is up to date" in out
    is_fine, said = await report(environ, free_port)
    assert is_fine, said


async def test_the_check_tells_how_much_waits_to_be_copied(
    home: Path, database: str, free_port: Callable[[], int]
) -> None:
    store = SqliteStore(home / "data" / "monitoring.db")
    await store.open()
    await store.start_journal()
    for second in range(3):
        at = datetime.now(UTC) + timedelta(seconds=second)
        await store.save_sample(Sample(at, "primary", {"cpu_usage": 1.0}))
    await store.close()
    environ = {"MONITORING_DB": "postgresql", "DATABASE_URL": database}
    is_fine, said = await report(environ, free_port)
    assert is_fine, said
    assert "Waiting to be copied: 3 rows" in said


async def test_a_clock_that_goes_wrong_is_told(
    home: Path,
    database: str,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def late(self: PostgresStore) -> datetime:
        return datetime.now(UTC) - timedelta(minutes=3)

    monkeypatch.setattr(PostgresStore, "server_time", late)
    environ = {"MONITORING_DB": "postgresql", "DATABASE_URL": database}
    is_fine, said = await report(environ, free_port)
    assert not is_fine and "clocks of" in said
    assert re.search(r"differ by (2 min 59|3 min)", said), said


async def test_it_asks_kuma_and_discord_once_and_shows_no_secret(
    home: Path, free_port: Callable[[], int]
) -> None:
    async with DiscordPeer() as discord, ReplayKuma() as kuma:
        kuma.make_fleet(12)
        is_fine, said = await report(
            {
                **discord.env(),
                "UPTIME_KUMA_URL": kuma.base_url,
                "UPTIME_KUMA_API_KEY": kuma.api_key,
                "WEB_TOKEN": SECRET,
            },
            free_port,
        )
        assert is_fine, said
        assert "12 monitors" in said and "the bot is comet" in said
        assert [request.path for request in discord.requests] == ["/users/@me"]
        assert discord.stats.identifies == 0
        for secret in (discord.token, kuma.api_key, SECRET):
            assert secret not in said


@pytest.mark.parametrize("fault", [Fault.HTML, Fault.ERROR, Fault.UNAUTHORIZED, Fault.EMPTY])
async def test_it_says_what_is_wrong_with_kuma(
    fault: Fault, home: Path, free_port: Callable[[], int]
) -> None:
    async with ReplayKuma() as kuma:
        kuma.make_fleet(1)
        kuma.fail(fault)
        kuma_settings = {"UPTIME_KUMA_URL": kuma.base_url, "UPTIME_KUMA_API_KEY": kuma.api_key}
        is_fine, said = await report(kuma_settings, free_port)
    assert not is_fine
    assert said.count("✖") == 1 and f"✖ Uptime Kuma kuma ({kuma.base_url}): " in said


async def test_it_says_that_kuma_is_away(home: Path, free_port: Callable[[], int]) -> None:
    environ = {
        "UPTIME_KUMA_URL": f"http://127.0.0.1:{free_port()}",
        "UPTIME_KUMA_STATUS_PAGE": "fans",
    }
    is_fine, said = await report(environ, free_port)
    assert not is_fine and "cannot be reached. Check UPTIME_KUMA_URL" in said


async def test_it_says_that_discord_refuses_the_token_or_is_away(
    home: Path, free_port: Callable[[], int]
) -> None:
    async with DiscordPeer() as discord:
        environ = {**discord.env(), "DISCORD_TOKEN": SECRET}
        is_fine, said = await report(environ, free_port)
        assert not is_fine and "the token was refused" in said and SECRET not in said
        away = discord.env()
    is_fine, said = await report(away, free_port)
    assert not is_fine and "cannot be reached" in said


async def test_it_says_that_the_port_is_taken(home: Path, free_port: Callable[[], int]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        is_fine, said = await report({"WEB_PORT": str(other.getsockname()[1])}, free_port)
    assert not is_fine and "change WEB_PORT or stop" in said
    is_fine, said = await report(
        {"WEB_HOST": "192.0.2.1", "WEB_TOKEN": SECRET, "WEB_PORT": "0"}, free_port
    )
    assert not is_fine and "cannot listen on 192.0.2.1:0" in said


async def test_it_tells_the_state_of_the_database(home: Path, free_port: Callable[[], int]) -> None:
    assert await asyncio.to_thread(main, ["migrate"], {}) == 0
    is_fine, said = await report({}, free_port)
    assert is_fine and "up to date" in said
    (home / "broken.db").write_bytes(b"no database at all, but long enough" * 9)
    is_fine, said = await report({"SQLITE_DB_PATH": "broken.db"}, free_port)
    assert not is_fine and "✖ Database: " in said
    is_fine, said = await report({"SQLITE_DB_PATH": "broken.db/x.db"}, free_port)
    assert not is_fine and "broken.db cannot be written" in said


async def test_a_secret_in_an_odd_place_is_not_shown_either(
    home: Path, free_port: Callable[[], int]
) -> None:
    path = str(home / f"{SECRET}.db")
    _, said = await report({"WEB_TOKEN": SECRET, "SQLITE_DB_PATH": path}, free_port)
    assert "***.db does not exist yet" in said and SECRET not in said


def test_check_and_its_exit_code(
    home: Path, capsys: pytest.CaptureFixture[str], free_port: Callable[[], int]
) -> None:
    environ = {"WEB_PORT": str(free_port())}
    assert main(["check"], environ) == 0
    assert "✔" in capsys.readouterr().out
    (home / "file").touch()
    assert main(["check"], {**environ, "SQLITE_DB_PATH": "file/x.db"}) == 1
