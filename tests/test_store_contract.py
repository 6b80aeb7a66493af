"""The same scenarios for every Store; a further backend only registers itself in BACKENDS."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from bot.core.alert import AlertState, Ending, Flip, FlipKind, Phase
from bot.core.incident import Card, GuildConfig, Incident, OutboxItem, OutboxStatus
from bot.core.kept_text import TEXT_LIMIT, TITLE_LIMIT
from bot.core.observation import MonitorIdentity, MonitorStatus, Sample
from bot.core.readings import READINGS
from bot.core.rule import Severity
from bot.storage.postgres import PostgresStore
from bot.storage.sqlite import SqliteStore
from bot.storage.store import (
    CheckRow,
    Conversation,
    Decision,
    LogLine,
    MemberData,
    MetricPoint,
    Poll,
    Receipt,
    Song,
    StatusChange,
    Store,
    StoreError,
    StoreUnavailable,
)
from bot.storage.supabase import SupabaseStore
from tests.peers.postgres.supabase import Supabase

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days")
)
UP, DOWN = MonitorStatus.UP, MonitorStatus.DOWN
PENDING, MAINTENANCE, UNKNOWN = (
    MonitorStatus.PENDING,
    MonitorStatus.MAINTENANCE,
    MonitorStatus.UNKNOWN,
)


@dataclass
class Backend:
    """One place to keep things: `connect` gives a new, closed Store on it."""

    connect: Callable[[], Store]


def sqlite(request: pytest.FixtureRequest) -> Backend:
    directory: Path = request.getfixturevalue("tmp_path")
    return Backend(lambda: SqliteStore(directory / "monitoring.db"))


def postgresql(request: pytest.FixtureRequest) -> Backend:
    dsn: str = request.getfixturevalue("database")
    return Backend(lambda: PostgresStore(dsn))


def supabase(request: pytest.FixtureRequest) -> Backend:
    project: Supabase = request.getfixturevalue("supabase")
    return Backend(lambda: SupabaseStore(project.url, project.secret_key))


BACKENDS: list[Callable[[pytest.FixtureRequest], Backend]] = [sqlite, postgresql, supabase]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def backend(request: pytest.FixtureRequest) -> Backend:
    made: Backend = request.param(request)
    return made


@pytest_asyncio.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    store = backend.connect()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def reopened(backend: Backend, store: Store) -> Callable[[], Reopened]:
    return lambda: Reopened(backend, store)


class Reopened:
    """The same data after the process ended and another began."""

    def __init__(self, backend: Backend, before: Store) -> None:
        self._before, self._after = before, backend.connect()

    async def __aenter__(self) -> Store:
        await self._before.close()
        await self._after.open()
        return self._after

    async def __aexit__(self, *_: object) -> None:
        await self._after.close()


def sample(at: datetime, bot_id: str = "primary", **values: float | None) -> Sample:
    return Sample(at, bot_id, values)


def incident(fired_at: datetime = NOW, **changes: object) -> Incident:
    made = Incident(
        incident_id=uuid4(),
        rule_name="HighCPU",
        subject="",
        severity=Severity.WARNING,
        category="system",
        scope="operator",
        metric="cpu_usage",
        level=80.0,
        fired_at=fired_at,
        value=91.5,
        message="CPU at 91.5 %",
        detail={"host": "alpha", "n": 3, "ratio": 0.5, "ok": True, "none": None},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def flip_of(told: Incident, kind: FlipKind = FlipKind.FIRED) -> Flip:
    return Flip(
        flip_id=uuid4(),
        incident_id=told.incident_id,
        rule_name=told.rule_name,
        subject=told.subject,
        kind=kind,
        at=told.fired_at,
        fired_at=told.fired_at,
        severity=told.severity,
        category=told.category,
        scope=told.scope,
        value=told.value,
        level=told.level,
        metric=told.metric,
    )


def outbox_of(told: Incident, **changes: object) -> OutboxItem:
    made = OutboxItem(
        outbox_id=uuid4(),
        flip_id=uuid4(),
        incident_id=told.incident_id,
        kind=FlipKind.FIRED,
        guild_id="10",
        channel_id="20",
        created_at=told.fired_at,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def card_of(*told: Incident, **changes: object) -> Card:
    made = Card(
        card_id=uuid4(),
        marker="K7Q2",
        guild_id="10",
        channel_id="20",
        opened_at=told[0].fired_at,
        incident_ids=tuple(one.incident_id for one in told),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def state_of(told: Incident, **changes: object) -> AlertState:
    made = AlertState(
        rule_name=told.rule_name,
        subject=told.subject,
        fingerprint="f1",
        phase=Phase.FIRING,
        since_at=NOW + timedelta(microseconds=123456),
        evaluated_at=NOW + timedelta(microseconds=654321),
        severity=told.severity,
        incident_id=told.incident_id,
        value=told.value,
        status="down",
        data_at=NOW,
        clear_since_at=NOW,
        unknown_s=1.5,
        detail={"name": "API"},
        hold_since_at=NOW,
        terms={"metric": "monitor_down", "level": 1.0, "silent": False},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def monitor(key: str, **changes: object) -> MonitorIdentity:
    made = MonitorIdentity(
        key, f"name of {key}", "http", "https://example.org", "example.org", "443", {"team": "web"}
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def change(
    key: str, status: MonitorStatus, at: datetime, change_id: UUID | None = None
) -> StatusChange:
    return StatusChange(change_id or uuid4(), monitor(key), status, at, 12.5, "timeout")


def poll(
    at: datetime,
    statuses: dict[str, MonitorStatus],
    *,
    valid_s: float = 120,
    times: dict[str, float | None] | None = None,
    instance: str = "main",
    changes: tuple[StatusChange, ...] = (),
) -> Poll:
    times = times or {}
    checks = [CheckRow(key, status, times.get(key)) for key, status in statuses.items()]
    return Poll(at, instance, valid_s, checks, changes)


def reference_percentile(values: list[float], share: float) -> float:
    """percentile_cont, written down the plain way."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# Opening and closing


async def test_opening_and_closing_twice_is_harmless(store: Store) -> None:
    await store.open()
    assert await store.schema_version() >= 1
    await store.close()
    await store.close()
    await store.open()
    assert await store.latest_metrics() == []


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable) as caught:
        await store.save_sample(sample(NOW, cpu_usage=1.0))
    assert caught.value.reason == "closed"
    with pytest.raises(StoreUnavailable):
        await store.latest_metrics()


# Snapshots and metrics


async def test_a_snapshot_comes_back_by_name_after_a_restart(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    values: dict[str, float | None] = {}
    for number, spec in enumerate(READINGS):
        values[spec.name] = 7 + number * spec.quantum
    await store.save_sample(Sample(NOW, "primary", values, "degraded"))
    async with reopened() as store:
        found = {metric.metric_name: metric for metric in await store.latest_metrics()}
    expected = {spec.name: spec for spec in READINGS if not spec.is_derived}
    assert found.keys() == expected.keys()
    for name, metric in found.items():
        assert metric.metric_value == pytest.approx(values[name], abs=expected[name].quantum / 2)
        assert (metric.at, metric.labels) == (NOW, {})


async def test_saving_a_snapshot_twice_stores_it_once(store: Store) -> None:
    for _ in range(2):
        await store.save_sample(sample(NOW, cpu_usage=40.0))
        await store.save_sample(sample(NOW, "second", cpu_usage=60.0))
    assert (await store.metric_stats("cpu_usage", 1, NOW)).count == 2


async def test_a_clock_that_steps_back_loses_no_snapshot(store: Store) -> None:
    for value in (10.0, 20.0, 30.0):
        for _ in range(2):
            await store.save_sample(sample(NOW, cpu_usage=value))
    stats = await store.metric_stats("cpu_usage", 1, NOW + SECOND)
    assert (stats.count, stats.avg_value) == (3, 20.0)


async def test_values_no_database_takes_are_missing_not_wrong(store: Store) -> None:
    await store.save_sample(
        Sample(
            NOW,
            "prim\0ary\ud800",
            {
                "cpu_usage": math.nan,
                "memory_usage": math.inf,
                "disk_usage": 10**400,
                "uptime": 1e300,
                "network_rx": 2**62,
                "load_average_1m": None,
                "unheard_of": 5.0,
            },
            "on\0line\udfff",
            (("shard_ping", {"sh\0ard": "\ud800"}, 3.5), ("shard_ping", {}, math.nan)),
        )
    )
    found = {metric.metric_name: metric for metric in await store.latest_metrics()}
    assert found.keys() == {"network_rx", "unheard_of", "shard_ping"}
    assert found["network_rx"].metric_value == 2**62
    assert found["unheard_of"].metric_value == 5.0
    assert found["shard_ping"].labels == {"sh\ufffdard": "\ufffd"}


async def test_the_latest_value_is_the_newest_by_time_wherever_it_came_from(store: Store) -> None:
    await store.save_sample(sample(NOW, cpu_usage=10.0, memory_usage=50.0))
    await store.save_sample(sample(NOW + SECOND, cpu_usage=None, memory_usage=51.0))
    await store.save_metric(uuid4(), "songs", 1.0, {"guild": "1"}, NOW + MINUTE)
    await store.save_metric(uuid4(), "songs", 2.0, {"guild": "2"}, NOW)
    await store.save_metric(uuid4(), "memory_usage", 99.0, {"by": "cog"}, NOW - MINUTE)
    found = {m.metric_name: (m.metric_value, m.labels, m.at) for m in await store.latest_metrics()}
    assert found == {
        "cpu_usage": (10.0, {}, NOW),
        "memory_usage": (51.0, {}, NOW + SECOND),
        "songs": (1.0, {"guild": "1"}, NOW + MINUTE),
    }
    await store.save_sample(sample(NOW + 2 * SECOND, ping_gateway=80.0))
    names = [metric.metric_name for metric in await store.latest_metrics()]
    assert names == ["cpu_usage", "memory_usage", "ping_gateway", "songs"]


async def test_a_reported_metric_is_kept_exactly_and_once(store: Store) -> None:
    metric_id = uuid4()
    for _ in range(2):
        await store.save_metric(metric_id, "曲/play's", 0.1 + 0.2, {"a": 'x"y\0'}, NOW)
    stats = await store.metric_stats("曲/play's", 1, NOW)
    assert (stats.count, stats.avg_value) == (1, 0.1 + 0.2)
    (metric,) = await store.latest_metrics()
    assert metric.labels == {"a": 'x"y\ufffd'}
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(StoreError) as caught:
            await store.save_metric(uuid4(), "bad", bad, {}, NOW)
        assert not caught.value.retriable


async def test_series_average_equal_slots_and_leave_gaps_out(store: Store) -> None:
    for offset, value in ((0, 10.0), (5, 20.0), (10, 30.0), (35, 40.0), (40, 99.0)):
        await store.save_sample(sample(NOW + offset * SECOND, cpu_usage=value))
    points = await store.metric_series("cpu_usage", NOW, NOW + 40 * SECOND, 4)
    assert points == [
        MetricPoint(NOW, 15.0),
        MetricPoint(NOW + 10 * SECOND, 30.0),
        MetricPoint(NOW + 30 * SECOND, 40.0),
    ]
    thirds = await store.metric_series("cpu_usage", NOW, NOW + 40 * SECOND, 3)
    assert [point.at - NOW for point in thirds] == [
        timedelta(milliseconds=ms) for ms in (0, 26_666)
    ]
    assert await store.metric_series("cpu_usage", NOW, NOW, 4) == []
    assert await store.metric_series("cpu_usage", NOW, NOW + HOUR, 0) == []
    assert await store.metric_series("nobody_reports_it", NOW, NOW + HOUR, 4) == []


async def test_series_mix_snapshots_labelled_readings_and_reports_in_order(store: Store) -> None:
    await store.save_metric(uuid4(), "cpu_usage", 7.0, {"by": "cog"}, NOW + 5 * SECOND)
    await store.save_sample(sample(NOW, cpu_usage=1.0))
    await store.save_sample(sample(NOW + 10 * SECOND, cpu_usage=2.0))
    points = await store.metric_series("cpu_usage", NOW, NOW + 20 * SECOND, 4)
    assert [point.value for point in points] == [1.0, 7.0, 2.0]
    labelled = (("shard_ping", {"shard": "0"}, 30.0), ("shard_ping", {"shard": "1"}, 50.0))
    await store.save_sample(Sample(NOW + MINUTE, "primary", {}, "online", labelled))
    points = await store.metric_series("shard_ping", NOW, NOW + HOUR, 60)
    assert points == [MetricPoint(NOW + MINUTE, 40.0)]


async def test_a_long_series_is_the_same_with_and_without_rolled_up_hours(store: Store) -> None:
    start = NOW - 20 * DAY
    rng = random.Random(5)
    hours = sorted(rng.sample(range(480), 60))
    for hour in hours:
        for minute in (1, 20, 50):
            at = start + hour * HOUR + minute * MINUTE
            await store.save_sample(sample(at, cpu_usage=round(rng.uniform(0, 100), 2)))
    raw = await store.metric_series("cpu_usage", start, NOW, 240)
    assert 0 < len(raw) <= 240
    for hour in hours[:-5:2]:
        for _ in range(2):
            await store.save_hourly(start + hour * HOUR)
    mixed = await store.metric_series("cpu_usage", start, NOW, 240)
    assert [point.at for point in mixed] == [point.at for point in raw]
    assert [p.value for p in mixed] == pytest.approx([p.value for p in raw])
    for hour in hours:
        await store.save_hourly(start + hour * HOUR)
    await store.delete_expired({"samples": NOW}, 10_000)
    kept = await store.metric_series("cpu_usage", start, NOW, 240)
    assert [p.value for p in kept] == pytest.approx([p.value for p in raw])


async def test_hours_roll_up_reports_and_labelled_readings_too(store: Store) -> None:
    await store.save_metric(uuid4(), "songs", 4.0, {}, NOW)
    await store.save_metric(uuid4(), "songs", 8.0, {}, NOW + 59 * MINUTE)
    await store.save_metric(uuid4(), "songs", 100.0, {}, NOW + HOUR)
    await store.save_sample(Sample(NOW, "primary", {}, "online", (("shard_ping", {}, 30.0),)))
    for _ in range(2):
        await store.save_hourly(NOW)
    await store.delete_expired({"samples": NOW + DAY, "metrics": NOW + HOUR}, 100)
    assert await store.metric_series("songs", NOW, NOW + DAY, 24) == [
        MetricPoint(NOW, 6.0),
        MetricPoint(NOW + HOUR, 100.0),
    ]
    assert await store.metric_series("shard_ping", NOW, NOW + DAY, 24) == [MetricPoint(NOW, 30.0)]


async def test_rolling_up_again_after_the_rows_went_keeps_the_hour(store: Store) -> None:
    await store.save_sample(sample(NOW, cpu_usage=50.0))
    await store.save_hourly(NOW)
    await store.delete_expired({"samples": NOW + DAY}, 100)
    await store.save_hourly(NOW)
    assert await store.metric_series("cpu_usage", NOW, NOW + DAY, 24) == [MetricPoint(NOW, 50.0)]


async def test_an_hour_is_due_until_it_is_rolled_up_and_again_when_a_row_comes_late(
    store: Store,
) -> None:
    hour = NOW - 5 * HOUR
    await store.save_sample(sample(hour, cpu_usage=20.0))
    await store.save_metric(uuid4(), "songs", 1.0, {}, hour + 2 * HOUR)
    await store.save_poll(poll(hour + 3 * HOUR, {"a:1": UP}))
    await store.save_sample(sample(NOW, cpu_usage=20.0))
    hours = [hour, hour + 2 * HOUR, hour + 3 * HOUR]
    assert await store.due_hours(NOW + 59 * MINUTE, 10) == hours
    assert await store.due_hours(NOW + 59 * MINUTE, 2) == hours[:2]
    assert await store.due_hours(NOW + HOUR, 10) == [*hours, NOW]
    for due in hours:
        await store.save_hourly(due)
    assert await store.due_hours(NOW, 10) == []
    late = sample(hour + 30 * MINUTE, cpu_usage=40.0)
    await store.save_sample(late)
    assert await store.due_hours(NOW, 10) == [hour]
    await store.save_hourly(hour)
    assert await store.due_hours(NOW, 10) == []
    await store.delete_expired({"samples": NOW}, 100)
    points = await store.metric_series("cpu_usage", hour, hour + DAY, 24)
    assert points[0] == MetricPoint(hour, 30.0)


async def test_rows_that_travelled_here_make_their_hours_due(
    backend: Backend, store: Store, tmp_path: Path
) -> None:
    hour = NOW - 50 * HOUR
    elsewhere = SqliteStore(tmp_path / "elsewhere.db")
    await elsewhere.open()
    await elsewhere.save_sample(sample(hour, cpu_usage=20.0))
    await elsewhere.save_metric(uuid4(), "songs", 7.0, {}, hour + HOUR)
    await elsewhere.save_poll(poll(hour + 2 * HOUR, {"a:1": UP}))
    for kind in ("monitors", "rosters", "samples", "metrics", "polls"):
        page = await elsewhere.export_rows(kind, None, 100)
        await store.import_rows(kind, page.rows)
    await elsewhere.close()
    hours = [hour, hour + HOUR, hour + 2 * HOUR]
    assert await store.due_hours(NOW, 10) == hours
    for due in hours:
        await store.save_hourly(due)
    assert await store.due_hours(NOW, 10) == []
    await store.delete_expired({"samples": NOW, "metrics": NOW}, 100)
    found = await store.metric_series("songs", hour, hour + DAY, 24)
    assert found == [MetricPoint(hour + HOUR, 7.0)]


async def test_fewer_rows_than_were_rolled_up_do_not_replace_them(store: Store) -> None:
    hour = NOW - 5 * HOUR
    for minute in (1, 2, 3, 50):
        await store.save_sample(sample(hour + minute * MINUTE, cpu_usage=20.0))
    await store.save_hourly(hour)
    await store.delete_expired({"samples": hour + 10 * MINUTE}, 100)
    await store.save_sample(sample(hour + 55 * MINUTE, cpu_usage=90.0))
    await store.save_hourly(hour)
    await store.delete_expired({"samples": NOW}, 100)
    assert await store.metric_series("cpu_usage", hour, NOW, 5) == [MetricPoint(hour, 20.0)]


@pytest.mark.parametrize("count", [1, 2, 3, 100, 257])
async def test_percentiles_equal_the_reference(store: Store, count: int) -> None:
    rng = random.Random(count)
    values = [round(rng.gauss(50, 20), 2) for _ in range(count)]
    for number, value in enumerate(values):
        await store.save_sample(sample(NOW - number * SECOND, cpu_usage=value))
    await store.save_sample(sample(NOW - 2 * HOUR, cpu_usage=9999.0))
    await store.save_sample(sample(NOW + SECOND, cpu_usage=9999.0))
    stats = await store.metric_stats("cpu_usage", 1, NOW)
    assert (stats.count, stats.min_value, stats.max_value) == (count, min(values), max(values))
    assert stats.avg_value == pytest.approx(sum(values) / count)
    for found, share in ((stats.p50, 0.5), (stats.p95, 0.95), (stats.p99, 0.99)):
        assert found == pytest.approx(reference_percentile(values, share))


async def test_statistics_of_nothing_are_nothing(store: Store) -> None:
    stats = await store.metric_stats("cpu_usage", 24, NOW)
    assert stats.count == 0
    assert stats.avg_value is stats.p50 is stats.p99 is stats.max_value is None


async def test_a_daily_summary_can_be_saved_again(store: Store) -> None:
    for summary in ({"a": 1.5, "b": [1, math.nan]}, {"a": 2}, {"a": 2}):
        await store.save_daily_summary(date(2026, 1, 9), summary)


# Alerting


async def test_a_decision_survives_a_restart(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    told = incident()
    state, item = state_of(told), outbox_of(told)
    decision = Decision(
        states=[state],
        flips=[flip_of(told)],
        incidents=[told],
        outbox=[item],
        metrics_snapshot={"cpu_usage": 91.5, "odd": math.nan},
    )
    for _ in range(2):
        await store.record_decision(decision)
    async with reopened() as store:
        loaded = await store.load_alerting()
    assert list(loaded.states) == [state]
    assert list(loaded.incidents) == [told]
    assert list(loaded.outbox) == [item]
    assert list(loaded.cards) == []


async def test_states_change_and_are_forgotten(store: Store) -> None:
    first, second = incident(), incident(subject="main:1")
    await store.record_decision(Decision(states=[state_of(first), state_of(second)]))
    later = state_of(first, phase=Phase.COOLING, value=None, incident_id=None, data_at=None)
    for _ in range(2):
        await store.record_decision(Decision(states=[later], forgotten=[("HighCPU", "main:1")]))
    assert list((await store.load_alerting()).states) == [later]


async def test_an_older_version_never_overwrites_a_newer(store: Store) -> None:
    told = incident()
    resolved = replace(
        told, version=3, resolved_at=NOW + HOUR, ending=Ending.CLEARED, unknown_s=2.0, silent=True
    )
    await store.record_decision(Decision(incidents=[told]))
    await store.record_decision(Decision(incidents=[resolved]))
    await store.record_decision(Decision(incidents=[replace(told, version=2, message="late")]))
    assert await store.incidents(NOW - DAY, 10) == [resolved]
    assert await store.open_incidents() == []


async def test_incidents_are_found_newest_first_and_by_service(store: Store) -> None:
    told = [incident(NOW + n * MINUTE, subject=f"main:{n % 2}") for n in range(5)]
    await store.record_decision(Decision(incidents=told))
    assert await store.incidents(NOW, 3) == [told[4], told[3], told[2]]
    assert await store.incidents(NOW + MINUTE, 10, "main:0") == [told[4], told[2]]
    assert await store.incidents(NOW + HOUR, 10) == []
    assert await store.open_incidents() == told[::-1]


async def test_receipts_move_cards_and_outbox_on(store: Store) -> None:
    told = incident()
    item, card = outbox_of(told), card_of(told)
    await store.record_decision(Decision(incidents=[told], outbox=[item]))
    attempted = replace(item, card_id=card.card_id, attempts=1, attempted_at=NOW)
    for _ in range(2):
        await store.record_receipt(Receipt(cards=[card], outbox=[attempted]))
    loaded = await store.load_alerting()
    assert (list(loaded.cards), list(loaded.outbox)) == ([card], [attempted])
    shown = replace(card, message_id="999", folded_at=NOW, is_storm=True)
    delivered = replace(
        attempted, status=OutboxStatus.DELIVERED, delivered_at=NOW, reply_message_id="7"
    )
    for _ in range(2):
        await store.record_receipt(Receipt(cards=[shown], outbox=[delivered]))
    await store.record_decision(Decision(outbox=[item]))
    loaded = await store.load_alerting()
    assert (list(loaded.cards), list(loaded.outbox)) == ([shown], [])
    await store.record_receipt(Receipt(outbox=[attempted]))
    assert list((await store.load_alerting()).outbox) == []


async def test_the_outbox_keeps_the_order_of_decisions(store: Store) -> None:
    told = [incident(NOW - n * MINUTE) for n in range(20)]
    items = [outbox_of(one, last_error="429\0") for one in told]
    for one, item in zip(told, items, strict=True):
        await store.record_decision(Decision(incidents=[one], outbox=[item]))
    loaded = await store.load_alerting()
    assert [item.outbox_id for item in loaded.outbox] == [item.outbox_id for item in items]
    assert loaded.outbox[0].last_error == "429\ufffd"


async def test_loading_brings_all_that_unfinished_cards_and_items_speak_of(store: Store) -> None:
    gone = {"resolved_at": NOW, "ending": Ending.CLEARED}
    done, queued, on_card, in_queue_only = (incident(**gone) for _ in range(4))
    closed = card_of(done, closed_at=NOW)
    open_card = card_of(on_card, opened_at=NOW + SECOND)
    touched = card_of(done, closed_at=NOW)
    shared = card_of(done, in_queue_only, closed_at=NOW, opened_at=NOW + 2 * SECOND)
    await store.record_decision(
        Decision(
            incidents=[done, queued, on_card, in_queue_only],
            outbox=[outbox_of(queued, card_id=touched.card_id), outbox_of(in_queue_only)],
        )
    )
    await store.record_receipt(Receipt(cards=[closed, open_card, touched, shared]))
    loaded = await store.load_alerting()
    assert list(loaded.cards) == [touched, open_card, shared]
    found = {one.incident_id for one in loaded.incidents}
    assert found >= {queued.incident_id, on_card.incident_id, in_queue_only.incident_id}


async def test_odd_text_and_numbers_in_alerts_are_kept_as_far_as_possible(store: Store) -> None:
    told = incident(
        subject="main:\0\ud800",
        message="落ちた \ud83d",
        value=math.nan,
        detail={"n\0": "\udc00", "inf": math.inf, "big": 10**30, "text": "x" * 10_000},
    )
    await store.record_decision(Decision(incidents=[told], states=[state_of(told)]))
    (found,) = await store.open_incidents()
    assert found.subject == "main:\ufffd\ufffd"
    assert found.message == "落ちた \ufffd"
    assert found.value is None
    assert found.detail == {
        "n\ufffd": "\ufffd",
        "inf": None,
        "big": str(10**30),
        "text": "x" * 10_000,
    }
    assert len((await store.load_alerting()).states) == 1
    await store.record_decision(Decision(forgotten=[(told.rule_name, told.subject)]))
    assert list((await store.load_alerting()).states) == []


async def test_a_decision_is_stored_whole_or_not_at_all(store: Store) -> None:
    told = incident()
    broken = replace(outbox_of(told), attempts=2**70)
    with pytest.raises(StoreError):
        await store.record_decision(
            Decision(states=[state_of(told)], incidents=[told], outbox=[broken])
        )
    loaded = await store.load_alerting()
    assert not (loaded.states or loaded.incidents or loaded.outbox)
    await store.record_decision(Decision(incidents=[told]))
    assert await store.open_incidents() == [told]


# Guilds


async def test_guild_settings_are_kept_changed_and_removed(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    config = GuildConfig("1099999999999999999", "1088888888888888888", NOW, NOW)
    other = GuildConfig("2", "3", NOW, NOW, "en")
    for _ in range(2):
        await store.save_guild_config(config)
        await store.save_guild_config(other)
    assert await store.guild_configs() == [config, other]
    changed = replace(config, alert_channel_id="5", updated_at=NOW + HOUR, locale="ja")
    await store.save_guild_config(replace(changed, created_at=NOW + HOUR))
    for _ in range(2):
        await store.remove_guild_config("2")
    async with reopened() as store:
        assert await store.guild_configs() == [changed]


# Services


async def test_first_sight_and_changes_make_history(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    first, second = change("main:1", UP, NOW), change("main:1", DOWN, NOW + MINUTE)
    for _ in range(2):
        await store.save_poll(poll(NOW, {"main:1": UP}, changes=(first,)))
        await store.save_status_changes([second])
    async with reopened() as store:
        assert await store.service_history("main:1", NOW, 10) == [second, first]
        assert await store.service_history("main:1", NOW, 1) == [second]
        assert await store.service_history("main:1", NOW + SECOND, 10) == [second]
        assert await store.service_history("main:2", NOW, 10) == []
        (known,) = await store.load_monitors()
    assert known.identity == monitor("main:1")
    assert (known.status, known.changed_at, known.last_seen_at) == (
        DOWN,
        NOW + MINUTE,
        NOW + MINUTE,
    )


async def test_a_late_change_makes_history_but_does_not_turn_the_monitor_back(store: Store) -> None:
    await store.save_status_changes([change("main:1", DOWN, NOW + MINUTE)])
    await store.save_status_changes([change("main:1", UP, NOW)])
    (known,) = await store.load_monitors()
    assert (known.status, known.changed_at) == (DOWN, NOW + MINUTE)
    assert len(await store.service_history("main:1", NOW, 10)) == 2


async def minutes_seen(store: Store) -> dict[str, float]:
    return {m.identity.key: (m.last_seen_at - NOW) / MINUTE for m in await store.load_monitors()}


async def test_last_seen_is_the_last_poll_that_spoke_of_it(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    await store.save_poll(
        poll(NOW, {"a:1": UP, "a:2": UP}, changes=(change("a:1", UP, NOW), change("a:2", UP, NOW)))
    )
    await store.save_poll(poll(NOW + MINUTE, {"a:1": UP, "a:2": UP}))
    await store.save_poll(poll(NOW + 2 * MINUTE, {"a:1": UP, "a:3": UP}))
    await store.save_poll(poll(NOW + 3 * MINUTE, {"a:1": UP, "a:3": UNKNOWN}))
    await store.save_poll(poll(NOW + MINUTE / 2, {"a:1": UP}))
    await store.save_poll(poll(NOW + 9 * MINUTE, {"b:1": UP}, instance="b"))
    async with reopened() as store:
        seen = {
            m.identity.key: (m.last_seen_at - NOW) / MINUTE for m in await store.load_monitors()
        }
        assert seen == {"a:1": 3, "a:2": 1, "a:3": 2, "b:1": 9}
        await store.save_poll(poll(NOW + 4 * MINUTE, {"a:2": UP}))
        seen = {
            m.identity.key: (m.last_seen_at - NOW) / MINUTE for m in await store.load_monitors()
        }
        assert seen == {"a:1": 3, "a:2": 4, "a:3": 3, "b:1": 9} or seen["a:1"] == 3


async def test_a_forgotten_monitor_stays_away_until_it_is_seen_again(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    first = change("a:1", UP, NOW)
    await store.save_poll(poll(NOW, {"a:1": UP, "a:2": UP}, changes=(first,)))
    for _ in range(2):
        await store.forget_monitor("a:1")
    await store.forget_monitor("nobody")
    assert [m.identity.key for m in await store.load_monitors()] == ["a:2"]
    assert len(await store.service_history("a:1", NOW, 10)) == 1
    await store.save_poll(poll(NOW, {"a:1": UP, "a:2": UP}, changes=(first,)))
    async with reopened() as store:
        assert [m.identity.key for m in await store.load_monitors()] == ["a:2"]
        await store.save_poll(poll(NOW + MINUTE, {"a:1": UNKNOWN, "a:2": UP}))
        await store.save_status_changes([change("a:1", UNKNOWN, NOW + MINUTE)])
        assert [m.identity.key for m in await store.load_monitors()] == ["a:2"]
        await store.save_poll(poll(NOW + 2 * MINUTE, {"a:1": UP, "a:2": UP}))
        assert [m.identity.key for m in await store.load_monitors()] == ["a:1", "a:2"]


async def test_uptime_leaves_gaps_and_unknown_out(store: Store) -> None:
    """Ten polls a minute apart, a gap of ten minutes, then five more."""
    statuses = [UP, UP, DOWN, UP, PENDING, MAINTENANCE, UNKNOWN, UP, UP, UP]
    for number, status in enumerate(statuses):
        await store.save_poll(poll(NOW + number * MINUTE, {"a:1": status}, times={"a:1": 100.0}))
    for number in range(20, 25):
        await store.save_poll(poll(NOW + number * MINUTE, {"a:1": UP}, times={"a:1": None}))
    stats = await store.service_stats(NOW, NOW + 25 * MINUTE, "a:1")
    assert stats.service_id == "a:1"
    assert stats.checks == 15
    assert (stats.up_s, stats.down_s, stats.other_s) == ((6 + 1 + 5) * 60, 60, 120)
    assert stats.unknown_s == 25 * 60 - (12 + 1 + 2) * 60
    assert stats.uptime_ratio == pytest.approx(12 / 13)
    assert stats.mean_response_time_ms == 100.0


async def test_a_window_begins_and_ends_in_the_middle_of_polls(store: Store) -> None:
    for number, status in enumerate((UP, DOWN, UP)):
        await store.save_poll(poll(NOW + number * MINUTE, {"a:1": status}, times={"a:1": 50.0}))
    stats = await store.service_stats(NOW + 30 * SECOND, NOW + 90 * SECOND, "a:1")
    assert (stats.checks, stats.up_s, stats.down_s, stats.unknown_s) == (1, 30, 30, 0)
    after = await store.service_stats(NOW + HOUR, NOW + 2 * HOUR, "a:1")
    assert (after.checks, after.up_s, after.unknown_s, after.uptime_ratio) == (0, 0, 3600, None)
    assert after.mean_response_time_ms is None


async def test_all_monitors_together_are_the_sum_of_each(store: Store) -> None:
    rng = random.Random(3)
    keys = [f"{instance}:{n}" for instance in "ab" for n in range(7)]
    for number in range(40):
        for instance in "ab":
            at = NOW + number * MINUTE + (20 * SECOND if instance == "b" else 0 * SECOND)
            there = [k for k in keys if k[0] == instance and rng.random() < 0.9]
            statuses = {key: rng.choice(list(MonitorStatus)) for key in there}
            times = {key: rng.choice([None, rng.uniform(0, 9000)]) for key in there}
            await store.save_poll(
                poll(at, statuses, times=times, instance=instance, valid_s=rng.choice([30, 120]))
            )
    window = (NOW + 5 * MINUTE, NOW + 35 * MINUTE)
    total = await store.service_stats(*window)
    each = [await store.service_stats(*window, key) for key in keys]
    assert total.service_id is None
    for field in ("checks", "up_s", "down_s", "other_s", "unknown_s"):
        assert getattr(total, field) == pytest.approx(sum(getattr(one, field) for one in each))
    assert total.up_s > 0 and total.unknown_s > 0


async def test_the_same_poll_again_counts_once_and_another_of_that_moment_is_kept(
    store: Store,
) -> None:
    same = poll(NOW, {"a:1": UP, "a:2": DOWN}, times={"a:1": 10.0})
    for _ in range(2):
        await store.save_poll(same)
        await store.save_poll(poll(NOW, {"a:1": UP, "a:2": DOWN}, times={"a:1": 30.0}))
    stats = await store.service_stats(NOW, NOW + MINUTE, "a:1")
    assert (stats.checks, stats.mean_response_time_ms) == (2, 20.0)


async def test_an_empty_poll_is_a_poll(store: Store) -> None:
    await store.save_poll(poll(NOW, {}))
    await store.save_poll(poll(NOW + MINUTE, {}))
    assert (await store.service_stats(NOW, NOW + HOUR)).checks == 0
    assert await store.response_times(NOW, NOW + HOUR, 1) == {}


async def test_response_times_come_oldest_first_from_each_nth_poll(store: Store) -> None:
    for number in range(10):
        times = {"a:1": float(number), "a:2": None if number % 2 else 0.1, "a:3": math.nan}
        there = {"a:1": UP, "a:2": UP, "a:3": DOWN} if number != 4 else {"a:1": UP}
        await store.save_poll(poll(NOW + number * MINUTE, there, times=times))
    assert await store.response_times(NOW, NOW + HOUR, 1) == {
        "a:1": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        "a:2": [0.1] * 4,
    }
    found = await store.response_times(NOW, NOW + 9 * MINUTE, 3)
    assert found == {"a:1": [0.0, 3.0, 6.0], "a:2": [0.1, 0.1]}


async def test_uptime_outlives_the_polls_it_came_from(store: Store) -> None:
    start = NOW - 5 * HOUR
    for number in range(0, 240, 2):
        statuses = {"a:1": DOWN if number == 60 else UP, "a:2": UP}
        if number == 100:
            del statuses["a:2"]
        await store.save_poll(
            poll(
                start + number * MINUTE,
                statuses,
                times={"a:1": float(number), "a:2": None if number % 3 else 40.0},
            )
        )
    window = (start, start + 4 * HOUR)
    before = [await store.service_stats(*window, key) for key in ("a:1", "a:2", None)]
    for hour in range(4):
        for _ in range(2):
            await store.save_hourly(start + hour * HOUR)
    deleted = await store.delete_expired({"polls": start + 150 * MINUTE}, 1000)
    assert deleted == {"polls": 75}
    after = [await store.service_stats(*window, key) for key in ("a:1", "a:2", None)]
    for was, now in zip(before, after, strict=True):
        assert now.checks == was.checks
        for field in ("up_s", "down_s", "other_s", "unknown_s"):
            assert getattr(now, field) == pytest.approx(getattr(was, field))
        assert now.mean_response_time_ms == pytest.approx(was.mean_response_time_ms)


# Retention


async def test_expiry_deletes_the_old_in_bounded_portions(store: Store) -> None:
    for number in range(30):
        at = NOW - number * HOUR
        await store.save_sample(sample(at, cpu_usage=float(number)))
        await store.save_metric(uuid4(), f"m{number % 3}", 1.0, {}, at)
        await store.save_poll(poll(at, {"a:1": UP}))
        await store.save_status_changes([change("a:1", UP, at)])
        await store.save_hourly(at)
    cutoff = NOW - 10 * HOUR
    kinds = dict.fromkeys(("samples", "metrics", "polls", "services"), cutoff)
    first = await store.delete_expired(kinds, 12)
    assert first == dict.fromkeys(kinds, 12)
    second = await store.delete_expired(kinds, 12)
    assert second == dict.fromkeys(kinds, 7)
    assert await store.delete_expired(kinds, 12) == dict.fromkeys(kinds, 0)
    assert (await store.metric_stats("cpu_usage", 100, NOW)).count == 11
    assert len(await store.service_history("a:1", NOW - DAY * 9, 99)) == 11
    hourly = await store.delete_expired({"metrics_hourly": NOW + DAY}, 1000)
    assert hourly["metrics_hourly"] > 30


async def test_expiry_spares_what_is_still_open(store: Store) -> None:
    gone = {"resolved_at": NOW - 10 * DAY, "ending": Ending.CLEARED}
    old = NOW - 20 * DAY
    still_open, waiting, done = incident(old), incident(old, **gone), incident(old, **gone)
    lately = incident(old, resolved_at=NOW, ending=Ending.CLEARED)
    items = [
        outbox_of(waiting),
        outbox_of(done, status=OutboxStatus.DELIVERED),
        outbox_of(done, status=OutboxStatus.DROPPED),
    ]
    cards = [card_of(still_open), card_of(done, closed_at=NOW - 10 * DAY)]
    everything = [still_open, waiting, done, lately]
    await store.record_decision(
        Decision(incidents=everything, flips=[flip_of(one) for one in everything], outbox=items)
    )
    await store.record_receipt(Receipt(cards=cards))
    for _ in range(2):
        await store.delete_expired({"alerts": NOW - DAY}, 100)
    found = {one.incident_id for one in await store.incidents(NOW - 99 * DAY, 99)}
    assert found == {one.incident_id for one in (still_open, waiting, lately)}
    loaded = await store.load_alerting()
    assert [item.outbox_id for item in loaded.outbox] == [items[0].outbox_id]
    assert [card.card_id for card in loaded.cards] == [cards[0].card_id]


async def test_the_newest_poll_stays_and_says_when_monitors_were_seen(store: Store) -> None:
    await store.save_poll(poll(NOW, {"a:1": UP}))
    await store.save_poll(poll(NOW + MINUTE, {"a:1": UP}))
    assert await store.delete_expired({"polls": NOW + DAY}, 100) == {"polls": 1}
    (known,) = await store.load_monitors()
    assert known.last_seen_at == NOW + MINUTE


async def test_every_kind_can_expire_and_no_other(store: Store) -> None:
    kinds = [
        "samples",
        "metrics",
        "metrics_raw",
        "metrics_hourly",
        "alerts",
        "services",
        "polls",
        "conversations",
        "music",
        "bot_logs",
    ]
    cutoffs = dict.fromkeys(kinds, NOW)
    assert await store.delete_expired(cutoffs, 10) == dict.fromkeys(kinds, 0)
    with pytest.raises(StoreError):
        await store.delete_expired({"everything": NOW}, 10)


async def test_the_size_is_told(store: Store) -> None:
    assert await store.size_bytes() > 1000


# What other cogs report


def conversation(user_id: str = "42", at: datetime = NOW, **changes: object) -> Conversation:
    made = Conversation(uuid4(), user_id, "Aya", "何時?", "3時です", at)
    return replace(made, **changes)  # type: ignore[arg-type]


def song(title: str = "夜に駆ける", at: datetime = NOW, **changes: object) -> Song:
    made = Song(uuid4(), "7", title, "Aya", "42", at)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_what_is_kept_about_a_member_comes_back_oldest_first(
    store: Store, reopened: Callable[[], Reopened]
) -> None:
    told = [conversation(at=NOW - n * MINUTE) for n in range(3)]
    played = [song(f"song {n}", NOW - n * MINUTE) for n in range(3)]
    for one in (*told, conversation("43")):
        await store.save_conversation(one)
    for other in (*played, song(requested_by_id="43"), song(requested_by="", requested_by_id="")):
        await store.save_song(other)
    async with reopened() as store:
        data = await store.member_data("42")
    assert list(data.conversations) == told[::-1]
    assert list(data.songs) == played[::-1]


async def test_reporting_the_same_twice_keeps_it_once(store: Store) -> None:
    told, played = conversation(), song()
    line = LogLine(uuid4(), "ERROR", "bot.x", "oh", {}, NOW)
    raw_id = uuid4()
    for _ in range(2):
        await store.save_conversation(told)
        await store.save_song(played)
        await store.save_log_lines([line, line])
        await store.save_raw(raw_id, "look", {"a": 1}, NOW)
    data = await store.member_data("42")
    assert (len(data.conversations), len(data.songs)) == (1, 1)
    assert await store.popular_songs(NOW - HOUR, 9) == [("夜に駆ける", 1)]
    gone = await store.delete_expired(
        dict.fromkeys(("conversations", "music", "bot_logs", "metrics_raw"), NOW + HOUR), 10
    )
    assert set(gone.values()) == {1}


async def test_odd_and_endless_texts_are_kept_as_far_as_possible(store: Store) -> None:
    odd = "\0a\ud800b\U0001f600"
    await store.save_conversation(conversation(user_name=odd, prompt="x" * 1_000_000, response=odd))
    await store.save_song(song("s" * 10_000, requested_by=odd))
    context = {"odd": odd, "nan": math.nan, "n": 3, "deep": {"list": [1, None, True]}}
    line = LogLine(uuid4(), "WARNING", "bot.x", "m" * 10_000 + odd, context, NOW)
    await store.save_log_lines([line])
    await store.save_raw(uuid4(), odd, context, NOW)
    (told,) = (await store.member_data("42")).conversations
    assert told.user_name == told.response == "\ufffda\ufffdb\U0001f600"
    assert len(told.prompt) == TEXT_LIMIT
    assert told.prompt.endswith("x…(+980010)")
    (played,) = (await store.member_data("42")).songs
    assert len(played.song_title) == TITLE_LIMIT


async def test_popular_songs_are_counted_by_server_and_time(store: Store) -> None:
    for title, guild_id, age in (
        ("b", "7", 1), ("b", "7", 2), ("a", "7", 1), ("c", "7", 1),
        ("c", "8", 1), ("c", "8", 2), ("B", "8", 1), ("", "7", 1),
        ("old", "7", 50), ("old", "7", 51), ("old", "7", 52), ("old", "7", 53),
    ):  # fmt: skip
        await store.save_song(song(title, NOW - age * HOUR, guild_id=guild_id))
    since = NOW - DAY
    assert await store.popular_songs(since, 9, "7") == [("b", 2), ("a", 1), ("c", 1)]
    assert await store.popular_songs(since, 9) == [("c", 3), ("b", 2), ("B", 1), ("a", 1)]
    assert await store.popular_songs(since, 2) == [("c", 3), ("b", 2)]
    assert (await store.popular_songs(NOW - 9 * DAY, 1)) == [("old", 4)]
    assert await store.popular_songs(since, 9, "9") == []


async def test_the_most_active_carry_their_newest_name(store: Store) -> None:
    for user_id, name, age in (
        ("2", "new", 1), ("2", "old", 3), ("2", "older", 5),
        ("9", "w", 1), ("10", "x", 2), ("1", "y", 2), ("1", "z", 1), ("3", "gone", 50),
    ):  # fmt: skip
        await store.save_conversation(conversation(user_id, NOW - age * HOUR, user_name=name))
    since = NOW - DAY
    most = [("2", "new", 3), ("1", "z", 2), ("10", "x", 1), ("9", "w", 1)]
    assert await store.most_active(since, 9) == most
    assert await store.most_active(since, 1) == [("2", "new", 3)]


async def test_a_members_data_goes_up_to_the_moment_of_the_wish(store: Store) -> None:
    second = timedelta(seconds=1)
    for at in (NOW - DAY, NOW, NOW + second):
        await store.save_conversation(conversation(at=at))
        await store.save_song(song(at=at))
    await store.save_conversation(conversation("43"))
    await store.save_song(song(requested_by="", requested_by_id=""))
    assert await store.delete_member_data("42", NOW) == 4
    assert await store.delete_member_data("42", NOW) == 0
    data = await store.member_data("42")
    assert [one.at for one in data.conversations] == [NOW + second]
    assert [one.at for one in data.songs] == [NOW + second]
    assert len((await store.member_data("43")).conversations) == 1
    assert await store.delete_member_data("", NOW + DAY) == 0
    assert (await store.member_data("nobody")) == MemberData([], [])


async def test_reports_and_log_lines_expire(store: Store) -> None:
    for age in range(6):
        at = NOW - age * DAY
        await store.save_conversation(conversation(at=at))
        await store.save_song(song(at=at))
        await store.save_raw(uuid4(), "look", {}, at)
        await store.save_log_lines([LogLine(uuid4(), "ERROR", "bot", "x", {}, at)])
    kinds = ("conversations", "music", "metrics_raw", "bot_logs")
    gone = await store.delete_expired(dict.fromkeys(kinds, NOW - 2 * DAY), 100)
    assert gone == dict.fromkeys(kinds, 3)
    data = await store.member_data("42")
    assert (len(data.conversations), len(data.songs)) == (3, 3)
