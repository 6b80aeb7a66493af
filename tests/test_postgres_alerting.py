"""Alerts, settings and logs in PostgreSQL: rows that travel, several bots, older tables, rights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from bot.core.alert import Ending
from bot.core.incident import GuildConfig, OutboxStatus
from bot.storage.postgres import PostgresStore
from bot.storage.store import Conversation, Decision, LogLine, Receipt, Song, StoreError
from tests.peers.postgres.server import PostgresServer
from tests.peers.postgres.supabase import Supabase
from tests.peers.postgres.world import migrate, migrations
from tests.test_store_contract import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    card_of,
    flip_of,
    incident,
    outbox_of,
    state_of,
)

Row = dict[str, Any]
OURS = [file for file in migrations() if file.name[:4] in ("0003", "0004", "0005")]


@pytest_asyncio.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database)
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def other(database: str) -> AsyncIterator[PostgresStore]:
    """Another bot in the same database."""
    store = PostgresStore(database, bot_id="other")
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def rows_of(store: PostgresStore, kind: str) -> list[Row]:
    page = await store.export_rows(kind, None, 1000)
    assert page.next is None
    return page.rows


def songs(count: int, title: str, guild_id: str = "1", member: str = "7") -> list[Song]:
    return [Song(uuid4(), guild_id, title, "みこ", member, NOW) for _ in range(count)]


def conversation(member: str, name: str, minutes: float = 0) -> Conversation:
    return Conversation(uuid4(), member, name, "q", "a", NOW + minutes * MINUTE)


# Rows that travel


async def test_fired_and_resolved_may_come_in_one_batch_and_never_go_back(
    store: PostgresStore,
) -> None:
    told = incident()
    await store.record_decision(Decision(incidents=[told], metrics_snapshot={"cpu_usage": 91.5}))
    (fired,) = await rows_of(store, "incidents")
    assert fired["metrics_snapshot"] == {"cpu_usage": 91.5}
    await store.record_decision(Decision(incidents=[replace(told, version=2, message="later")]))
    (row,) = await rows_of(store, "incidents")
    assert (row["message"], row["metrics_snapshot"]) == ("later", {"cpu_usage": 91.5})

    def version(number: int, revision: int, resolved: bool) -> Row:
        return {**fired, "version": number, "revision": revision, "resolved": resolved}

    top = row["revision"]
    batch = [version(3, top + 1, False), version(4, top + 2, True)]
    assert await store.import_rows("incidents", batch) == 1
    assert await store.import_rows("incidents", batch) == 0
    for late in (version(3, top + 9, False), version(4, top + 1, False)):
        assert await store.import_rows("incidents", [late]) == 0
    (row,) = await rows_of(store, "incidents")
    assert (row["version"], row["resolved"], row["revision"]) == (4, True, top + 2)
    new = [{**version(1, 1, False), "id": str(uuid4())} for _ in range(2)]
    assert await store.import_rows("incidents", [*batch, *new, *new]) == 2


async def test_a_change_made_now_stands_though_its_clock_is_behind(store: PostgresStore) -> None:
    state = state_of(incident())
    await store.record_decision(Decision(states=[state]))
    (row,) = await rows_of(store, "states")
    far = row["revision"] + 10**15
    assert await store.import_rows("states", [{**row, "status": "far", "revision": far}]) == 1
    assert await store.import_rows("states", [{**row, "status": "old"}]) == 0
    before = [{**row, "status": "b", "revision": far}, {**row, "status": "a", "revision": far - 1}]
    await store.import_rows("states", before)
    assert (await rows_of(store, "states"))[0]["status"] == "b"
    await store.record_decision(Decision(states=[replace(state, status="now")]))
    (row,) = await rows_of(store, "states")
    assert (row["status"], row["revision"]) == ("now", far)
    again = [{**row, "status": "again"}]
    await store.import_rows("states", again)
    assert (await rows_of(store, "states"))[0]["status"] == "again"


async def test_items_keep_their_place_and_never_return_to_the_queue(store: PostgresStore) -> None:
    told = [incident(NOW - number * MINUTE) for number in range(3)]
    items = [outbox_of(one) for one in told]
    await store.record_decision(Decision(outbox=items))
    first, second, third = await rows_of(store, "outbox")
    fresh = {**first, "outbox_id": str(uuid4()), "revision": 5}
    newer = {**fresh, "outbox_id": str(uuid4())}
    done = {"status": "delivered", "revision": 6}
    batch = [fresh, newer, {**first, **done}, {**fresh, **done}, {**fresh, "revision": 7}]
    assert await store.import_rows("outbox", batch) == 3
    found = await rows_of(store, "outbox")
    assert [row["outbox_id"] for row in found] == [
        row["outbox_id"] for row in (first, second, third, fresh, newer)
    ]
    statuses = ["delivered", "queued", "queued", "delivered", "queued"]
    assert [row["status"] for row in found] == statuses
    assert await store.import_rows("outbox", [{**first, "revision": 99}]) == 0
    await store.record_receipt(Receipt(outbox=[items[0]]))
    waiting = [item.outbox_id for item in (await store.load_alerting()).outbox]
    assert [str(outbox_id) for outbox_id in waiting] == [
        row["outbox_id"] for row in (second, third, newer)
    ]
    tried = replace(items[1], attempts=3)
    await store.record_receipt(Receipt(outbox=[tried]))
    await store.record_decision(Decision(outbox=items))
    assert (await store.load_alerting()).outbox[0] == tried


async def test_pages_have_no_seam_where_many_rows_share_their_time(store: PostgresStore) -> None:
    told = [incident(NOW + (number // 7) * MINUTE) for number in range(40)]
    await store.record_decision(
        Decision(
            incidents=told,
            flips=[flip_of(one) for one in told],
            outbox=[outbox_of(one) for one in told],
            states=[state_of(one, rule_name=f"規則{n}") for n, one in enumerate(told)],
        )
    )
    await store.record_receipt(Receipt(cards=[card_of(one) for one in told]))
    for kind in ("incidents", "flips", "outbox", "states", "cards"):
        whole = await rows_of(store, kind)
        assert len(whole) == 40
        for limit in (1, 7, 39, 40, 41):
            found, after = [], None
            while True:
                page = await store.export_rows(kind, after, limit)
                found += page.rows
                after = page.next and json.loads(json.dumps(page.next))
                if after is None:
                    break
            assert found == whole, (kind, limit)
    page = await store.export_rows("flips", None, 100, since_at=NOW + 3 * MINUTE)
    assert len(page.rows) == 19
    assert (await store.export_rows("flips", None, 100, bot_id="nobody")).rows == []
    (*_, last) = await rows_of(store, "states")
    assert last["since_at"] == "2026-01-10 12:00:00.123456"


async def test_numbers_may_stand_for_yes_and_no_and_times_need_no_zone(
    store: PostgresStore,
) -> None:
    await store.record_decision(Decision(incidents=[incident()]))
    (row,) = await rows_of(store, "incidents")
    odd = {
        **row,
        "id": str(uuid4()),
        "resolved": 1,
        "silent": 0,
        "resolved_at": "2026-01-10 15:00:00.5",
        "timestamp": "2026-01-10T21:00:00+09:00",
    }
    del odd["bot_id"]
    assert await store.import_rows("incidents", [odd]) == 1
    found = await store.incidents(NOW, 10)
    (told,) = [one for one in found if one.resolved_at]
    assert told.resolved_at == NOW + 3 * HOUR + timedelta(seconds=0.5)
    assert (told.fired_at, told.silent) == (NOW, False)


async def test_a_row_that_lacks_what_it_needs_is_refused_with_all_others(
    store: PostgresStore,
) -> None:
    await store.record_decision(Decision(incidents=[incident()]))
    (row,) = await rows_of(store, "incidents")
    for fault in ({"rule_name": None}, {"severity": "mild"}, {"level": "high"}, {"id": "7"}):
        good = {**row, "id": str(uuid4())}
        with pytest.raises(StoreError) as caught:
            await store.import_rows("incidents", [good, {**good, "id": str(uuid4()), **fault}])
        assert not caught.value.retriable
    assert await store.count_rows("incidents") == 1


# Several bots


async def test_bots_that_share_a_database_keep_their_alerts_apart(
    store: PostgresStore, other: PostgresStore
) -> None:
    ours, theirs = incident(), incident()
    for side, told in ((store, ours), (other, theirs)):
        await side.record_decision(
            Decision(states=[state_of(told)], incidents=[told], outbox=[outbox_of(told)])
        )
        await side.record_receipt(Receipt(cards=[card_of(told)]))
        await side.save_guild_config(GuildConfig("1", "2", NOW, NOW))
    await store.record_decision(Decision(forgotten=[("HighCPU", "")]))
    await store.remove_guild_config("1")
    assert (await store.load_alerting()).states == []
    assert await store.guild_configs() == []
    loaded = await other.load_alerting()
    assert [state.incident_id for state in loaded.states] == [theirs.incident_id]
    assert list(loaded.incidents) == await other.open_incidents() == [theirs]
    assert await other.incidents(NOW, 10) == [theirs]
    assert len(loaded.cards) == len(loaded.outbox) == len(await other.guild_configs()) == 1


async def test_a_member_is_forgotten_by_the_bot_that_was_asked(
    store: PostgresStore, other: PostgresStore
) -> None:
    for side in (store, other):
        for minutes in (0, 1, 2):
            await side.save_conversation(conversation("7", "みこ", minutes))
        for song in (*songs(2, "Ahoy"), *songs(1, "Ahoy", member="")):
            await side.save_song(song)
    assert await store.delete_member_data("", NOW + DAY) == 0
    assert await store.delete_member_data("7", NOW + MINUTE) == 4
    left = await store.member_data("7")
    assert [one.at for one in left.conversations] == [NOW + 2 * MINUTE]
    assert left.songs == []
    assert len((await other.member_data("7")).conversations) == 3
    removed = {"user_id": "7", "at": "2026-01-10 12:00:00.000000"}
    assert await other.import_rows("member_removed", [removed, {**removed, "user_id": ""}]) == 3
    assert await store.popular_songs(NOW, 9) == [("Ahoy", 1)]


async def test_the_most_played_and_the_most_active(
    store: PostgresStore, other: PostgresStore
) -> None:
    for song in (
        *songs(2, "b"),
        *songs(2, "B"),
        *songs(3, "曲"),
        *songs(9, ""),
        *songs(1, "z", "2"),
    ):
        await store.save_song(song)
        await other.save_song(song)
    assert await store.popular_songs(NOW, 3) == [("曲", 3), ("B", 2), ("b", 2)]
    assert await store.popular_songs(NOW, 3, "2") == [("z", 1)]
    assert await store.popular_songs(NOW + DAY, 3) == []
    for member, name, minutes in (("7", "a", 0), ("7", "b", 5), ("8", "x", 1), ("9", "y", 1)):
        await store.save_conversation(conversation(member, name, minutes))
    assert await store.most_active(NOW, 2) == [("7", "b", 2), ("8", "x", 1)]


# By hand, and tables that were there before


async def test_rows_written_by_hand_need_only_what_they_say(db: asyncpg.Connection[Any]) -> None:
    await db.execute(
        "INSERT INTO alert_history (rule_name, severity, category, message, metrics_snapshot) "
        "VALUES ('Disk', 'critical', 'system', 'full', '{\"disk\": 99}')"
    )
    row = await db.fetchrow(
        "SELECT *, age_seconds FROM alert_history JOIN active_alerts USING (id)"
    )
    assert row is not None
    assert row["triggered_at"] == row["timestamp"]
    assert json.loads(row["metrics_data"]) == {"disk": 99}
    assert 0 <= row["age_seconds"] < 60
    assert (row["bot_id"], row["resolved"]) == ("primary", False)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("INSERT INTO alert_history (rule_name, severity) VALUES ('x', 'mild')")
    await db.execute("INSERT INTO bot_logs (level, message) VALUES ('WARNING', 'careful')")
    await db.execute("INSERT INTO monitoring_config (guild_id, alert_channel_id) VALUES ('1', '2')")


OLDER = """
CREATE TABLE alert_history (
    id BIGSERIAL PRIMARY KEY,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    rule_name VARCHAR(100) NOT NULL,
    severity VARCHAR(20) NOT NULL,
    category VARCHAR(50),
    message TEXT,
    metrics_snapshot JSONB,
    resolved BOOLEAN DEFAULT FALSE,
    resolved_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO alert_history (timestamp, rule_name, severity, category, message, resolved) VALUES
    ('2025-11-21 12:00:00+00', 'HighCPU', 'warning', 'system', 'CPU 91 %', TRUE),
    ('2025-11-21 13:00:00+00', 'Disk', 'fatal', NULL, NULL, NULL);
CREATE VIEW active_alerts AS
    SELECT id, rule_name, severity, message, EXTRACT(EPOCH FROM NOW() - timestamp) AS age_seconds,
        timestamp FROM alert_history WHERE resolved = FALSE;
CREATE TABLE conversation_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    prompt TEXT NOT NULL,
    response TEXT NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
CREATE INDEX idx_conversation_logs_timestamp ON conversation_logs(timestamp DESC);
INSERT INTO conversation_logs (user_id, user_name, prompt, response, timestamp)
    VALUES ('7', 'みこ', 'q', 'a', NULL);
CREATE TABLE music_logs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    guild_id TEXT NOT NULL,
    song_title TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    requested_by_id TEXT NOT NULL,
    timestamp TIMESTAMPTZ DEFAULT NOW(),
    created_at TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id)
    VALUES ('1', 'Ahoy', 'みこ', '7');
CREATE TABLE bot_logs (
    id BIGSERIAL PRIMARY KEY, level TEXT NOT NULL, message TEXT NOT NULL, logger TEXT,
    context JSONB, timestamp TIMESTAMPTZ DEFAULT NOW()
);
INSERT INTO bot_logs (level, message) VALUES ('INFO', 'started');
"""


async def test_older_tables_are_adopted_with_their_rows(
    postgres: PostgresServer, empty_database: str
) -> None:
    name = urlsplit(empty_database).path.strip("/")
    postgres.execute(OLDER, database=name)
    for _ in range(2):
        migrate(postgres, name)
    store = PostgresStore(empty_database)
    await store.open()
    (old,) = await store.incidents(NOW - 99 * DAY, 10)
    assert (old.rule_name, old.message) == ("HighCPU", "CPU 91 %")
    kept = postgres.fetch(
        "SELECT right(id::text, 12), severity, category, message, resolved FROM alert_history "
        "ORDER BY id",
        database=name,
    )
    assert kept == [
        ("000000000001", "warning", "system", "CPU 91 %", True),
        ("000000000002", "fatal", "system", "", False),
    ]
    told = incident(rule_name="規則" * 200, category="c" * 90)
    await store.record_decision(Decision(incidents=[told]))
    await store.record_decision(
        Decision(incidents=[replace(told, version=2, resolved_at=NOW, ending=Ending.CLEARED)])
    )
    assert await store.open_incidents() == []
    seen = "SELECT rule_name, severity FROM {} ORDER BY timestamp"
    assert postgres.fetch(seen.format("active_alerts"), database=name) == [("Disk", "fatal")]
    assert postgres.fetch(seen.format("active_alerts_before_comet"), database=name) == [
        ("Disk", "fatal")
    ]
    postgres.execute(
        "INSERT INTO alert_history (rule_name, severity) VALUES ('x', 'info')", database=name
    )
    assert len((await store.member_data("7")).conversations) == 1
    assert await store.popular_songs(NOW - 999 * DAY, 5) == [("Ahoy", 1)]
    await store.save_log_lines([LogLine(uuid4(), "ERROR", "bot", "boom", {"n": 1}, NOW)])
    assert [row["message"] for row in await rows_of(store, "bot_logs")] == ["boom", "started"]
    await store.close()


# Who may read


AUDIENCES = {
    "viewer": ("alert_history", "active_alerts", "service_status_history"),
    "admin": (
        "conversation_logs",
        "music_logs",
        "popular_songs",
        "bot_logs",
        "monitoring_config",
        "monitors",
        "service_polls",
        "service_hourly",
    ),
    "service": ("alert_states", "flips", "outbox", "cards", "rosters"),
}


async def readable(db: asyncpg.Connection[Any], table: str, role: str, claim: str) -> bool:
    """Whether rows of a table come back; False also where the grant is missing."""
    claims = json.dumps({"role": role, "app_metadata": {"comet_role": claim}})
    async with db.transaction():
        await db.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        await db.execute(f"SET LOCAL ROLE {role}")
        try:
            async with db.transaction():
                return bool(await db.fetchval(f"SELECT count(*) FROM {table}"))
        except asyncpg.InsufficientPrivilegeError:
            return False


async def test_alerts_are_for_viewers_words_of_people_for_admins_and_the_rest_for_the_bot(
    store: PostgresStore, db: asyncpg.Connection[Any]
) -> None:
    told = incident()
    await store.record_decision(
        Decision(
            states=[state_of(told)],
            flips=[flip_of(told)],
            incidents=[told],
            outbox=[outbox_of(told)],
        )
    )
    await store.record_receipt(Receipt(cards=[card_of(told)]))
    await store.save_guild_config(GuildConfig("1", "2", NOW, NOW))
    await store.save_conversation(conversation("7", "みこ"))
    await store.save_song(songs(1, "Ahoy")[0])
    await store.save_log_lines([LogLine(uuid4(), "ERROR", "bot", "boom", {}, NOW)])
    await db.execute(
        "INSERT INTO service_status_history (service_id, service_name, status) "
        "VALUES ('a:1', 'API', 'up')"
    )
    await store.import_rows(
        "rosters", [{"roster_id": str(uuid4()), "instance": "a", "keys": ["a:1"]}]
    )
    (roster,) = await rows_of(store, "rosters")
    packed = {"instance": "a", "roster_id": roster["roster_id"]}
    at = "2026-01-10 12:00:00"
    await store.import_rows(
        "polls", [{**packed, "at": at, "valid_s": 9, "statuses": [1], "times": [1]}]
    )
    await store.save_hourly(NOW)
    for audience, tables in AUDIENCES.items():
        for table in tables:
            assert await readable(db, table, "service_role", ""), table
            assert not await readable(db, table, "anon", "admin"), table
            assert not await readable(db, table, "authenticated", "other"), table
            is_admins = audience in ("viewer", "admin")
            assert await readable(db, table, "authenticated", "admin") is is_admins, table
            is_viewers = audience == "viewer"
            assert await readable(db, table, "authenticated", "viewer") is is_viewers, table
    for table in AUDIENCES["admin"] + AUDIENCES["service"]:
        with pytest.raises(asyncpg.PostgresError):
            await db.execute("SELECT comet_open($1)", table)
    await db.execute("SELECT comet_open('alert_history')")
    assert await readable(db, "active_alerts", "anon", "")


async def test_the_ranking_of_songs_answers_supabase_js(supabase: Supabase) -> None:
    """Where `select('song_title, count')` would be refused on the table itself."""
    supabase.execute(
        "INSERT INTO music_logs (guild_id, song_title, requested_by, requested_by_id) VALUES "
        "('1', 'Ahoy', 'みこ', '7'), ('1', 'Stellar', 'みこ', '7'), ('2', 'Stellar', 'みこ', '7')"
    )
    url = f"{supabase.url}/rest/v1/popular_songs"
    asked = {"select": "song_title,count", "order": "count.desc", "limit": "10"}
    admin = supabase.user_key({"app_metadata": {"comet_role": "admin"}})
    async with aiohttp.ClientSession() as session:
        for headers, expected in (
            (supabase.headers(supabase.secret_key), 2),
            (supabase.headers(supabase.publishable_key, admin), 2),
            (supabase.headers(supabase.publishable_key, supabase.user_key()), 0),
        ):
            async with session.get(url, params=asked, headers=headers) as answer:
                assert answer.status == 200
                found = await answer.json()
            best = [{"song_title": "Stellar", "count": 2}, {"song_title": "Ahoy", "count": 1}]
            assert found == best[:expected]


async def test_every_verb_answers_on_every_version_of_postgresql(any_database: str) -> None:
    store = PostgresStore(any_database)
    await store.open()
    told = incident()
    await store.record_decision(
        Decision(
            states=[state_of(told)],
            flips=[flip_of(told)],
            incidents=[told],
            outbox=[outbox_of(told, status=OutboxStatus.QUEUED)],
        )
    )
    await store.record_receipt(Receipt(cards=[card_of(told)]))
    loaded = await store.load_alerting()
    assert list(loaded.incidents) == await store.open_incidents() == [told]
    assert len(loaded.cards) == len(loaded.outbox) == len(loaded.states) == 1
    connection = await asyncpg.connect(any_database)
    for file in OURS:
        await connection.execute(file.read_text(encoding="utf-8"))
    await connection.close()
    assert await store.incidents(NOW, 10) == [told]
    await store.close()
