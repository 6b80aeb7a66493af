"""Databases that exist already: no row is lost, nothing of somebody else's breaks unsaid."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from bot.storage.kinds import KINDS
from bot.storage.postgres import PostgresStore
from tests.older_tables import COGS, DASHBOARD, METRICS
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.world import make_world, migrate, migrations
from tests.test_copier import Clock, copier_of, opened, settle
from tests.test_store_contract import NOW
from tests.test_travel import everything, live_a_little, without

OLDER = {"dashboard": DASHBOARD, "metrics": METRICS, "cogs": COGS, "both": DASHBOARD + METRICS}
_ALL = "".join(file.read_text(encoding="utf-8") for file in migrations())


@pytest.fixture
def older(
    request: pytest.FixtureRequest, any_postgres: PostgresServer
) -> Iterator[tuple[PostgresServer, str]]:
    """A database of every major with the tables named."""
    name = any_postgres.create_database()
    make_world(any_postgres, name)
    any_postgres.execute(OLDER[request.param], database=name)
    yield any_postgres, name
    any_postgres.drop_database(name)


def counts(server: PostgresServer, name: str) -> dict[str, int]:
    relations = server.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'v', 'm')",
        database=name,
    )
    return {
        relation: server.fetch(f'SELECT count(*) FROM "{relation}"', database=name)[0][0]
        for (relation,) in relations
    }


@pytest.mark.parametrize("older", OLDER, indirect=True)
@pytest.mark.parametrize("way", ["files", "pasted"])
async def test_what_was_there_stays_and_the_bot_can_work(
    older: tuple[PostgresServer, str], way: str, tmp_path: Path
) -> None:
    server, name = older
    before = counts(server, name)
    for _ in range(2):
        if way == "files":
            migrate(server, name)
        else:
            server.execute(_ALL, database=name)
    after = counts(server, name)
    ours = {"active_alerts", "latest_metrics", "metrics_last_24h", "system_metrics"}
    for relation, count in before.items():
        assert after[relation] == count or relation in ours, relation
    for relation in ours & before.keys():
        # What was neither resolved nor not is open now.
        more = relation == "active_alerts"
        assert after[f"{relation}_before_comet"] == before[relation] + more, relation
    remote = PostgresStore(server.dsn(name), timeout_s=5)
    async with opened(tmp_path / "a.db", Clock()) as local:
        await live_a_little(local)
        copier = copier_of(local, remote, Clock())
        await settle(copier)
        assert copier.status.refused == 0
        for kind in KINDS:
            drop = (*kind.unverified, "revision")
            there = without(drop, await everything(remote, kind.name, 200))
            for row in without(drop, await everything(local, kind.name, 200)):
                assert row in there, kind.name
    long = "長" * 300
    server.execute(
        f"INSERT INTO system_metrics (metric_name, metric_value) VALUES ('{long}', 1); "
        "SELECT refresh_metrics_views(); SELECT * FROM cleanup_old_metrics(3000); "
        "SELECT * FROM get_metric_stats('cpu_usage', 24); SELECT comet_housekeeping('{}');",
        database=name,
    )
    await remote.close()


@pytest.mark.parametrize("older", ["both"], indirect=True)
def test_views_of_somebody_else_are_as_they_were(older: tuple[PostgresServer, str]) -> None:
    server, name = older
    look = (
        "SELECT c.relname, c.relkind::text, c.reloptions::text, pg_get_userbyid(c.relowner)::text, "
        "obj_description(c.oid, 'pg_class'), (SELECT string_agg(a::text, ' ' ORDER BY a::text) "
        "FROM unnest(c.relacl) AS a), (SELECT string_agg(indexdef, ' ') FROM pg_indexes "
        "WHERE tablename = c.relname), (SELECT string_agg(rulename, ' ' ORDER BY rulename) "
        "FROM pg_rewrite AS r WHERE r.ev_class = c.oid) FROM pg_class AS c WHERE c.relname IN "
        "('recent_stats', 'grave', 'grave_names', 'alert_counts', 'raw_ids', 'hours') ORDER BY 1"
    )
    before = server.fetch(look, database=name)
    for _ in range(2):
        migrate(server, name)
    assert server.fetch(look, database=name) == before
    assert server.fetch("SELECT rule_name FROM grave_names", database=name) == [("X",)]
    server.execute("INSERT INTO alert_history (rule_name, severity) VALUES ('new', 'critical')",
                   database=name)  # fmt: skip
    assert len(server.fetch("SELECT * FROM grave_names", database=name)) == 2
    assert len(server.fetch("SELECT cpu_usage FROM recent_stats", database=name)) == 51
    found = server.fetch(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'cpu_usage' "
        "AND attrelid = 'system_stats'::regclass",
        database=name,
    )
    assert found == [("double precision",)]


@pytest.mark.parametrize("older", ["cogs"], indirect=True)
async def test_what_older_cogs_wrote_can_be_read(older: tuple[PostgresServer, str]) -> None:
    server, name = older
    migrate(server, name)
    remote = PostgresStore(server.dsn(name))
    await remote.open()
    found = {one.rule_name: one for one in await remote.incidents(NOW - timedelta(days=365), 10)}
    assert {rule: one.severity.value for rule, one in found.items()} == {
        "high_cpu_usage": "warning",
        "service_down": "critical",
        "slow": "info",
    }
    assert found["service_down"].resolved_at is not None
    assert found["slow"].resolved_at is None
    assert len(await remote.open_incidents()) == 2
    rows = await everything(remote, "incidents")
    assert [row["metrics_snapshot"] for row in rows] == [{"cpu": 90}, "no json", None]
    assert rows[1]["timestamp"] == "2026-01-01 01:00:00.000000", "times without a zone are UTC"
    configs = {one.guild_id: one.alert_channel_id for one in await remote.guild_configs()}
    assert configs == {"900719925474099312": "1", "2": "3"}
    changes = await everything(remote, "changes")
    assert [(row["service_id"], row["status"], row["response_time"]) for row in changes] == [
        ("1", "up", 12),
        ("1", "down", None),
    ]
    metrics = {
        row["metric_name"]: row["metric_value"] for row in await everything(remote, "metrics")
    }
    assert metrics == {"memory_usage": 55.5, "loop": 1.25}
    assert server.fetch("SELECT count(triggered_at) FROM loud", database=name) == [(3,)]
    await remote.close()


@pytest.mark.parametrize("older", ["both"], indirect=True)
def test_nobody_reads_by_a_side_door(older: tuple[PostgresServer, str]) -> None:
    """What was moved aside keeps no rights that no table of ours gives."""
    server, name = older
    migrate(server, name)
    aside = server.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_roles AS r ON r.rolname IN "
        "('anon', 'authenticated') WHERE c.relname LIKE '%before_comet%' "
        "AND c.relkind IN ('r', 'v', 'm') AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT')",
        database=name,
    )
    assert aside == []
    functions = server.fetch(
        "SELECT p.proname FROM pg_proc AS p JOIN pg_roles AS r ON r.rolname IN "
        "('anon', 'authenticated') WHERE p.proname LIKE '%before_comet%' "
        "AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
        database=name,
    )
    assert functions == []
    rights = server.fetch(
        "SELECT t, r, p FROM unnest('{system_stats,conversation_logs,alert_history,system_metrics}'"
        "::text[]) AS t, unnest('{anon,authenticated}'::text[]) AS r, "
        "unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS p "
        "WHERE has_table_privilege(r, t::regclass, p)",
        database=name,
    )
    assert rights == []


# What cannot be adopted is said, and nothing is touched


def refusal(server: PostgresServer, name: str) -> str:
    with pytest.raises(asyncpg.PostgresError) as error:
        migrate(server, name)
    return f"{error.value} {getattr(error.value, 'hint', '')} {error.value.__notes__}"


@pytest.fixture
def empty(postgres: PostgresServer, empty_database: str) -> tuple[PostgresServer, str]:
    return postgres, urlsplit(empty_database).path.strip("/")


def test_a_table_that_others_point_at_is_left_alone(empty: tuple[PostgresServer, str]) -> None:
    server, name = empty
    server.execute(
        METRICS + "CREATE TABLE notes (alert BIGINT REFERENCES alert_history (id)); "
        "INSERT INTO notes VALUES (1);",
        database=name,
    )
    said = refusal(server, name)
    assert "alert_history" in said and "Rename" in said and "0003" in said
    assert server.fetch("SELECT id, rule_name FROM alert_history ORDER BY 1", database=name)[0] == (
        1,
        "HighCPU",
    )
    assert server.fetch("SELECT count(*) FROM grave", database=name) == [(1,)]


def test_a_view_that_would_no_longer_work_is_named(empty: tuple[PostgresServer, str]) -> None:
    server, name = empty
    server.execute(METRICS + "CREATE VIEW odd AS SELECT id + 1 AS next FROM alert_history",
                   database=name)  # fmt: skip
    said = refusal(server, name)
    assert "public.odd" in said
    assert server.fetch("SELECT max(next) FROM odd", database=name) == [(4,)]


def test_rows_that_do_not_fit_are_not_repeated_in_the_error(
    empty: tuple[PostgresServer, str],
) -> None:
    server, name = empty
    server.execute(
        "CREATE TABLE conversation_logs (id TEXT PRIMARY KEY, user_id TEXT, user_name TEXT, "
        "prompt TEXT, response TEXT, timestamp TEXT); "
        "INSERT INTO conversation_logs VALUES ('geheim', '1', 'a', 'b', 'c', 'secret')",
        database=name,
    )
    said = refusal(server, name)
    assert "conversation_logs" in said and "secret" not in said and "geheim" not in said


@pytest.mark.parametrize(
    "table", ["monitors", "rosters", "cards", "outbox", "flips", "custom_metrics", "copy_streams"]
)
def test_a_table_of_another_program_is_not_taken_over(
    empty: tuple[PostgresServer, str], table: str
) -> None:
    server, name = empty
    server.execute(
        f"CREATE TABLE {table} (id SERIAL PRIMARY KEY, name TEXT); GRANT ALL ON {table} TO anon",
        database=name,
    )
    assert f"public.{table}" in refusal(server, name)
    look = f"SELECT relrowsecurity, has_table_privilege('anon', oid, 'INSERT') FROM pg_class WHERE relname = '{table}'"  # noqa: E501
    assert server.fetch(look, database=name) == [(False, True)]


def test_a_table_that_lacks_what_matters_is_named(empty: tuple[PostgresServer, str]) -> None:
    server, name = empty
    server.execute("CREATE TABLE music_logs (id UUID, track TEXT)", database=name)
    said = refusal(server, name)
    assert "public.music_logs" in said and "guild_id" in said


def test_closing_what_is_none_of_ours_is_an_error(database: str, postgres: PostgresServer) -> None:
    """A slip of the pen must not leave a table open."""
    name = urlsplit(database).path.strip("/")
    with pytest.raises(asyncpg.RaiseError):
        postgres.execute("SELECT comet_close('system_stat')", database=name)
    postgres.execute("SELECT comet_close('system_stats')", database=name)
