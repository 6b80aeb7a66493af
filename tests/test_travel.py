"""Rows that travel: out of one store and into another, whole and unchanged."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, uuid4, uuid5

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.alert import Ending
from bot.core.incident import GuildConfig, OutboxStatus
from bot.core.observation import Sample
from bot.storage.kinds import KINDS
from bot.storage.pg_store import PgStore
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.sqlite_packed import roster_id
from bot.storage.store import (
    Conversation,
    Decision,
    LogLine,
    Receipt,
    Song,
    Store,
    StoreError,
)
from bot.storage.supabase import SupabaseStore
from tests.peers.postgres.supabase import Supabase
from tests.test_store_contract import (
    DOWN,
    HOUR,
    MAINTENANCE,
    MINUTE,
    NOW,
    SECOND,
    UNKNOWN,
    UP,
    card_of,
    change,
    flip_of,
    incident,
    outbox_of,
    poll,
    sample,
    state_of,
)

Rows = list[dict[str, object]]


def config_of(guild_id: str, **changes: object) -> GuildConfig:
    made = GuildConfig(guild_id, "20", NOW, NOW + timedelta(microseconds=5))
    return replace(made, **changes)  # type: ignore[arg-type]


async def live_a_little(store: Store, bot_id: str = "primary", hours: int = 2) -> None:
    """Something of every kind."""
    await store.save_guild_config(config_of("10"))
    await store.save_guild_config(config_of("9", locale="en"))
    # Numbers are given as monitors appear; their keys are in another order.
    names = ("main:z", "main:ä", "main:a", "main:𝄞")
    for number in range(hours * 12):
        at = NOW + number * 5 * MINUTE
        statuses = {
            name: (UP, DOWN, MAINTENANCE, UNKNOWN)[(number + i) % 4] for i, name in enumerate(names)
        }
        if number % 5 == 0:
            statuses.pop("main:z")
        changes = tuple(change(name, status, at) for name, status in statuses.items())
        times = {name: 1.1 * number + i for i, name in enumerate(names) if i % 2}
        await store.save_poll(poll(at, statuses, times=times, changes=changes))
        extra = Sample(at, bot_id, {"cpu_usage": 0.07 * number, "network_rx": 10.0**9, "new": 0.1})
        await store.save_sample(extra)
        await store.save_sample(sample(at, bot_id, cpu_usage=1.5, ram_usage=None))
        await store.save_metric(
            uuid4(), f"songs{number % 3}", 0.1 + number, {"b": "1", "a": "é"}, at
        )
    await store.forget_monitor("main:a")
    for hour in range(hours):
        await store.save_hourly(NOW + hour * HOUR)
    open_one = incident()
    done = incident(
        NOW + SECOND, resolved_at=NOW + MINUTE, ending=Ending.CLEARED, version=3, value=1 / 3
    )
    for told in (open_one, done):
        await store.record_decision(
            Decision(
                states=[state_of(told, value=0.1 + 0.2, subject=str(told.version))],
                flips=[flip_of(told)],
                incidents=[told],
                outbox=[outbox_of(told), outbox_of(told, status=OutboxStatus.DELIVERED)],
                metrics_snapshot={"cpu_usage": 0.1, "nothing": None},
            )
        )
        await store.record_receipt(Receipt(cards=[card_of(open_one, done)]))
    await store.save_raw(uuid4(), "llm", {"b": [1, 0.1, None], "a": {"é": "x"}}, NOW)
    await store.save_conversation(Conversation(uuid4(), "1", "あ", "p", "r", NOW))
    await store.save_song(Song(uuid4(), "10", "A song", "B", "2", NOW))
    await store.save_log_lines([LogLine(uuid4(), "ERROR", "x", "boom", {"n": 1}, NOW)])
    await store.save_daily_summary(date(2026, 1, 9), {"alerts": 3, "ratio": 0.1})


async def everything(store: Store, kind: str, limit: int = 7) -> Rows:
    """All rows of a kind, in small pages, as they come out of JSON."""
    rows: Rows = []
    cursor = None
    while True:
        page = await store.export_rows(kind, cursor, limit)
        assert len(page.rows) <= limit
        rows += json.loads(json.dumps(page.rows))
        if page.next is None:
            return rows
        cursor = json.loads(json.dumps(page.next))


def without(columns: tuple[str, ...], rows: Rows) -> Rows:
    return [{n: value for n, value in row.items() if n not in columns} for row in rows]


async def move(source: Store, target: Store, limit: int = 7) -> None:
    for kind in KINDS:
        rows = await everything(source, kind.name, limit)
        for start in range(0, len(rows), limit):
            await target.import_rows(kind.name, rows[start : start + limit])


@pytest_asyncio.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    made = [SqliteStore(tmp_path / f"{number}.db") for number in range(2)]
    for store in made:
        await store.open()
    yield made
    for store in made:
        await store.close()


async def test_every_kind_comes_whole_into_an_empty_store(stores: list[SqliteStore]) -> None:
    source, target = stores
    await live_a_little(source)
    await move(source, target)
    for kind in KINDS:
        there, here = await everything(target, kind.name, 100), await everything(source, kind.name)
        assert here, kind.name
        assert there == here, kind.name
        for store in stores:
            assert await store.count_rows(kind.name) == len(here)
        assert set(here[0]) == set(kind.columns)
    assert await target.load_alerting() == await source.load_alerting()
    assert await target.load_monitors() == await source.load_monitors()
    assert await target.guild_configs() == await source.guild_configs()
    window = (NOW, NOW + 2 * HOUR)
    for key in ("main:z", "main:ä", None):
        assert await target.service_stats(*window, key) == await source.service_stats(*window, key)
    assert await target.latest_metrics() == await source.latest_metrics()


async def test_importing_twice_adds_nothing(stores: list[SqliteStore]) -> None:
    source, target = stores
    await live_a_little(source)
    await move(source, target)
    for kind in KINDS:
        rows = await everything(source, kind.name)
        assert await target.import_rows(kind.name, rows) == 0, kind.name
        assert await everything(target, kind.name) == rows, kind.name


async def test_pages_have_no_seam_whatever_their_size(stores: list[SqliteStore]) -> None:
    source, _ = stores
    await live_a_little(source, hours=1)
    for number in range(9):
        for bot in ("zeta", "alpha", "mid"):
            await source.save_sample(sample(NOW + number * SECOND, bot, cpu_usage=1.0))
            await source.save_metric(uuid4(), "songs1", 1.0, {}, NOW)
    for kind in KINDS:
        whole = await everything(source, kind.name, 1000)
        for limit in (1, 2, 3, 5):
            assert await everything(source, kind.name, limit) == whole, (kind.name, limit)
        order = [tuple(row[c] for c in kind.order if c in row) for row in whole]
        if kind.name != "outbox":
            assert order == sorted(order), kind.name


async def test_a_page_can_leave_out_the_old_and_other_bots(stores: list[SqliteStore]) -> None:
    source, _ = stores
    await live_a_little(source)
    await source.save_sample(sample(NOW + HOUR, "other", cpu_usage=1.0))
    since = NOW + HOUR
    for kind in KINDS:
        whole = await everything(source, kind.name)
        page = await source.export_rows(kind.name, None, 1000, since_at=since)
        text = since.isoformat(" ", "microseconds")[:26]
        expected = [row for row in whole if kind.at is None or str(row[kind.at]) >= text]
        assert json.loads(json.dumps(page.rows)) == expected, kind.name
        mine = await source.export_rows(kind.name, None, 1000, bot_id="primary")
        assert len(mine.rows) == len(whole) - (kind.name == "samples")
        assert await source.count_rows(kind.name, bot_id="primary") == len(mine.rows)
        theirs = await source.export_rows(kind.name, None, 1000, bot_id="other")
        assert len(theirs.rows) == (kind.name == "samples") or kind.name == "daily_summaries"


async def test_an_older_row_never_replaces_a_newer_one(stores: list[SqliteStore]) -> None:
    source, target = stores
    await live_a_little(source)
    before = {kind.name: await everything(source, kind.name) for kind in KINDS}
    (open_one,) = await source.open_incidents()
    ended = incident(
        open_one.fired_at, incident_id=open_one.incident_id, version=2, resolved_at=NOW
    )
    state = (await source.load_alerting()).states[0]
    later = state_of(
        ended, rule_name=state.rule_name, subject=state.subject, evaluated_at=NOW + HOUR
    )
    items = (await source.load_alerting()).outbox
    await source.record_decision(Decision(incidents=[ended], states=[later]))
    await source.record_receipt(
        Receipt(outbox=[replace(i, status=OutboxStatus.DELIVERED) for i in items])
    )
    await source.save_guild_config(config_of("10", updated_at=NOW + HOUR, alert_channel_id="77"))
    await source.save_status_changes([change("main:a", DOWN, NOW + 9 * HOUR)])
    await move(source, target)
    for kind in KINDS:
        await target.import_rows(kind.name, before[kind.name])
        assert await everything(target, kind.name) == await everything(source, kind.name), kind.name


async def test_two_snapshots_of_one_millisecond_both_stay(stores: list[SqliteStore]) -> None:
    source, target = stores
    rows: Rows = []
    for number in range(3):
        rows.append(
            {
                "bot_id": "primary",
                "id": str(uuid4()),
                "timestamp": "2026-01-10 12:00:00.0005" + str(number),
                "status": "online",
                "cpu_usage": float(number),
            }
        )
    for _ in range(2):
        for store in stores:
            await store.import_rows("samples", rows)
    for store in (source, target):
        found = await everything(store, "samples")
        assert [(row["id"], row["cpu_usage"]) for row in found] == [
            (row["id"], row["cpu_usage"]) for row in rows
        ]


async def test_what_can_never_be_stored_is_refused_whole(stores: list[SqliteStore]) -> None:
    source, target = stores
    await live_a_little(source)
    await target.import_rows("rosters", await everything(source, "rosters"))
    faults: list[tuple[str, dict[str, object]]] = [
        ("samples", {"timestamp": "yesterday"}),
        ("metrics", {"metric_value": "NaN"}),
        ("incidents", {"rule_name": None}),
        ("incidents", {"bot_id": "another"}),
        ("polls", {"roster_id": str(uuid4())}),
        ("polls", {"statuses": [1]}),
        ("rosters", {"keys": None, "roster_id": "new"}),
        ("daily_summaries", {"summary_data": [1]}),
    ]
    for kind, fault in faults:
        rows = await everything(source, kind)
        with pytest.raises(StoreError) as caught:
            await target.import_rows(kind, [*rows[:-1], {**rows[-1], **fault}])
        assert not caught.value.retriable
        if kind != "rosters":
            assert await target.count_rows(kind) == 0, kind
    with pytest.raises(StoreError):
        await target.export_rows("everything", None, 1)


async def test_rows_written_by_hand_travel_too(stores: list[SqliteStore]) -> None:
    source, target = stores
    with closing(sqlite3.connect(source.path)) as db, db:
        db.execute("INSERT INTO system_stats (bot_id, cpu_usage) VALUES ('by hand', 12.34)")
        db.execute(
            "INSERT INTO alert_history (rule_name, timestamp) VALUES ('r', '2026-01-01T00:00:00Z')"
        )
        db.execute("INSERT INTO system_metrics (metric_name, metric_value) VALUES ('m', 1.5)")
        db.execute(
            "INSERT INTO music_logs VALUES "
            "('x', '1', 's', 'n', '2', '2026-01-01 00:00:00.123456', '')"
        )
    await move(source, target)
    for kind in ("samples", "metrics", "music"):
        assert await everything(target, kind) == await everything(source, kind)
    (row,) = await everything(target, "incidents")
    assert row["timestamp"] == "2026-01-01 00:00:00.000000"


def test_the_name_of_a_roster_does_not_depend_on_numbers() -> None:
    assert roster_id("main", ["a", "b"]) == str(uuid5(NAMESPACE_URL, "main\na\nb"))


@pytest.mark.parametrize("way", ["postgresql", "supabase"])
async def test_every_kind_goes_to_postgresql_and_comes_back_unchanged(
    way: str, database: str, supabase: Supabase, stores: list[SqliteStore]
) -> None:
    source, target = stores
    await live_a_little(source)
    remote: PgStore = PostgresStore(database)
    if way == "supabase":
        remote = SupabaseStore(supabase.url, supabase.secret_key)
    await remote.open()
    try:
        await move(source, remote, 50)
        for kind in KINDS:
            here = await everything(source, kind.name, 50)
            for limit in (3, 50):
                there = await everything(remote, kind.name, limit)
                for row in there:
                    if kind.is_changing:
                        assert isinstance(row.pop("revision"), int)
                drop = kind.unverified
                assert without(drop, there) == without(drop, here), (kind.name, limit)
            assert await remote.count_rows(kind.name) == len(here)
            assert await remote.count_rows(kind.name, bot_id="primary") == len(here)
            assert await remote.count_rows(kind.name, bot_id="nobody") == 0
            if not kind.is_changing and kind.name not in ("metrics_hourly", "service_hours"):
                assert await remote.import_rows(kind.name, here) == 0, kind.name
        await move(remote, target, 50)
        for kind in KINDS:
            drop = kind.unverified
            found = without(drop, await everything(target, kind.name, 50))
            assert found == without(drop, await everything(source, kind.name)), kind.name
        assert await target.load_alerting() == await source.load_alerting()
        with pytest.raises(StoreError):
            await remote.export_rows("everything", None, 1)
    finally:
        await remote.close()


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
jsons = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.integers(-(2**63), 2**63 - 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
moments = st.integers(0, 4 * 10**15).map(
    lambda us: (NOW.replace(year=1990) + timedelta(microseconds=us)).isoformat(" ", "microseconds")[
        :26
    ]
)


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "id": st.uuids().map(str),
                "timestamp": moments,
                "rule_name": texts,
                "severity": texts,
                "category": texts,
                "message": texts,
                "metrics_snapshot": jsons,
                "resolved": st.booleans(),
                "resolved_at": st.none() | moments,
                "subject": texts,
                "scope": texts,
                "metric": texts,
                "level": numbers,
                "value": st.none() | numbers,
                "status": texts,
                "ending": st.none() | texts,
                "unknown_s": numbers,
                "silent": st.booleans(),
                "detail": st.dictionaries(texts, jsons, max_size=3),
                "version": st.integers(0, 2**31),
            }
        ),
        max_size=5,
        unique_by=lambda row: row["id"],
    )
)
async def test_whatever_an_incident_says_comes_back_exactly(rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = SqliteStore(Path(place) / "m.db")
        await store.open()
        try:
            await store.import_rows("incidents", rows)
            found = {row["id"]: row for row in await everything(store, "incidents")}
        finally:
            await store.close()
    assert found == {row["id"]: {"bot_id": "primary", **row} for row in rows}
