"""The page Prometheus reads: parsed by Prometheus' own client, never by eye."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from bot.core.copying import Copying, CopyPhase
from bot.core.forecast import Growth
from bot.core.incident import Incident
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
    Sample,
)
from bot.core.readings import READINGS, Unit
from bot.core.rule import Severity
from bot.i18n import Translator
from bot.services.activity import Activity, Keeping
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.command_stats import CommandStats
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.host_probe import HostProbe
from bot.services.kuma_inbox import Ledger
from bot.services.loop_lag import LoopLag
from bot.services.parts import Choices, Parts
from bot.services.recorder import Recorder
from bot.services.sampler import Sampler, SampleSources
from bot.services.ticker import TaskHealth, Tasks
from bot.storage.store import KnownMonitor, StoreError
from bot.web.exposition import ROWS, Exposition
from bot.web.monitor_text import MonitorText

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UP, DOWN = MonitorStatus.UP, MonitorStatus.DOWN


class Clock:
    """A wall clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at

    def step(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Sink:
    """A store that takes every snapshot, or refuses with `error`, or hangs."""

    def __init__(self) -> None:
        self.error: StoreError | None = None
        self.hangs = False

    async def save_sample(self, sample: Sample) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


def make_parts(
    *, sink: Sink | None = None, clock: Clock | None = None, has_discord: bool = False
) -> Parts:
    now: Callable[[], datetime] = clock or Clock()
    store = cast(Any, sink or Sink())
    recorder, fleet = Recorder(store), Fleet(uuid4)
    audience = Audience((), has_only_webhook=False)
    delivery = Delivery(recorder, audience, cast(Any, None), now, uuid4)
    tasks, commands = Tasks(), CommandStats()

    async def ignore(*_: object) -> None: ...

    sources = SampleSources(
        HostProbe(Path(".")), LoopLag(), commands, fleet, recorder, delivery, tasks
    )
    return Parts(
        choices=Choices("primary", "en", UTC, 10.0, 60.0, (), has_discord),
        translator=Translator("en"),
        store=store,
        recorder=recorder,
        fleet=fleet,
        audience=audience,
        delivery=delivery,
        alerting=Alerting(recorder, audience, delivery, lambda i: i.message, now, uuid4),
        sampler=Sampler(
            "primary", 10.0, sources, cast(Callable[..., Awaitable[None]], ignore), now
        ),
        tasks=tasks,
        commands=commands,
        started_at=START,
        now=now,
        new_id=uuid4,
    )


def reading(
    number: int,
    name: str = "",
    status: MonitorStatus = UP,
    response_time_ms: float | None = 120.0,
    cert_days: float | None = None,
    instance: str = "main",
) -> MonitorReading:
    identity = MonitorIdentity(f"{instance}:{number}", name or f"monitor {number}")
    return MonitorReading(identity, status, response_time_ms, cert_days)


def poll(fleet: Fleet, readings: Iterable[MonitorReading], instance: str = "main") -> None:
    if instance not in fleet.sources:
        fleet.add_source(instance, 60.0, START)
    fleet.apply(KumaReport(instance, tuple(readings), version="2.5.3"), START)


Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(body: bytes) -> Series:
    """Every sample of a page; fails on one that is there twice, unnamed by us, or NaN."""
    found: Series = {}
    for family in parse_text(body.decode("utf-8")):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            assert sample.name.startswith("comet_")
            assert math.isfinite(sample.value)
            found[key] = sample.value
    return found


def values(body: bytes, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name, by their label values in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(labels)): value
        for (found, labels), value in series(body).items()
        if found == name
    }


def page(parts: Parts) -> bytes:
    body, content_type = Exposition(parts).render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return body


def monitors(fleet: Fleet, text: MonitorText | None = None) -> bytes:
    return b"".join((text or MonitorText()).render(fleet))


# -- readings --------------------------------------------------------------------------------


def test_every_reading_has_a_series_in_base_units() -> None:
    parts = make_parts()
    numbers = {spec.name: 10.0 * i for i, spec in enumerate(READINGS, start=1)}
    parts.sampler.latest = Sample(START, "primary", numbers)
    found = series(page(parts))
    expected = {
        Unit.PERCENT: ("_ratio", 0.01),
        Unit.MEGABYTES: ("_bytes", 1_048_576.0),
        Unit.BYTES: ("_bytes", 1.0),
        Unit.MILLISECONDS: ("_seconds", 0.001),
        Unit.SECONDS: ("_seconds", 1.0),
        Unit.COUNT: ("", 1.0),
        Unit.RATIO: ("_ratio", 1.0),
    }
    for spec in READINGS:
        suffix, factor = expected[spec.unit]
        if spec.name.startswith("load_average"):
            suffix = ""
        value = found[f"comet_{spec.name}{suffix}", frozenset()]
        assert value == pytest.approx(numbers[spec.name] * factor)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_missing_reading_is_an_absent_series_and_a_zero_is_a_zero(missing: float | None) -> None:
    parts = make_parts()
    parts.sampler.latest = Sample(START, "primary", {"cpu_usage": missing, "disk_usage": 0.0})
    body = page(parts)
    assert values(body, "comet_cpu_usage_ratio") == {}
    assert b"comet_cpu_usage" not in body
    assert values(body, "comet_disk_usage_ratio") == {(): 0.0}


def test_before_the_first_snapshot_there_are_no_readings_and_no_age() -> None:
    body = page(make_parts())
    assert b"comet_cpu_usage" not in body
    assert b"comet_sample_age_seconds" not in body


def test_readings_of_a_hung_sampler_go_away_and_their_age_stays() -> None:
    clock = Clock()
    parts = make_parts(clock=clock)
    parts.sampler.latest = Sample(START, "primary", {"cpu_usage": 50.0})
    clock.step(29)
    assert values(page(parts), "comet_cpu_usage_ratio") == {(): 0.5}
    clock.step(1)
    body = page(parts)
    assert values(body, "comet_cpu_usage_ratio") == {}
    assert values(body, "comet_sample_age_seconds") == {(): 30.0}


def test_shards_have_a_series_of_their_own() -> None:
    parts = make_parts()
    labelled = (("ping_gateway", {"shard": "1"}, 250.0), ("task_lateness", {"task": "x"}, 2.0))
    parts.sampler.latest = Sample(START, "primary", {}, labelled=labelled)
    assert values(page(parts), "comet_shard_ping_seconds") == {("1",): 0.25}


# -- the process ---------------------------------------------------------------------------


def test_commands_tasks_store_and_delivery_are_told() -> None:
    parts = make_parts()
    parts.commands.note("status_dashboard", 20.0, ok=True)
    parts.commands.note("chart", 20.0, ok=False)
    parts.tasks.health["sampler"] = TaskHealth("sampler", 10.0, 0.0, 95.0, 9, 2, 1)
    parts.tasks.health["new"] = TaskHealth("new", 5.0, 99.0)
    parts.recorder.dropped, parts.recorder.last_write_s = 3, 97.0
    parts.delivery.counts.delivered = 7
    parts.delivery.counts.failed_attempts = 2
    parts.delivery.counts.dropped = 1
    body, _ = Exposition(parts, "1.2.3", monotonic=lambda: 100.0).render()
    assert values(body, "comet_commands_total") == {(): 2.0}
    assert values(body, "comet_commands_failed_total") == {(): 1.0}
    assert values(body, "comet_command_runs_total") == {
        ("status_dashboard",): 1.0,
        ("chart",): 1.0,
    }
    assert values(body, "comet_command_failures_total")["chart",] == 1.0
    assert values(body, "comet_task_last_success_age_seconds") == {("sampler",): 5.0}
    assert values(body, "comet_task_runs_total") == {("sampler",): 9.0, ("new",): 0.0}
    assert values(body, "comet_task_errors_total")["sampler",] == 2.0
    assert values(body, "comet_task_missed_total")["sampler",] == 1.0
    assert values(body, "comet_store_waiting") == {(): 0.0}
    assert values(body, "comet_store_dropped_total") == {(): 3.0}
    assert values(body, "comet_store_last_write_age_seconds") == {(): 3.0}
    assert values(body, "comet_delivery_queued") == {(): 0.0}
    assert values(body, "comet_delivery_delivered_total") == {(): 7.0}
    assert values(body, "comet_delivery_failed_attempts_total") == {(): 2.0}
    assert values(body, "comet_delivery_dropped_total") == {(): 1.0}
    assert ("comet_build_info", "1.2.3") in {
        (name, dict(labels).get("version")) for name, labels in series(body)
    }


def test_alerts_are_counted_by_severity() -> None:
    parts = make_parts()
    for severity in (Severity.CRITICAL, Severity.CRITICAL, Severity.INFO):
        incident = Incident(uuid4(), "R", "", severity, "host", "operator", "m", 1.0, START)
        parts.alerting.open[incident.incident_id] = incident
    assert values(page(parts), "comet_alerts_firing") == {
        ("critical",): 2.0,
        ("warning",): 0.0,
        ("info",): 1.0,
    }


def test_a_source_is_told_with_its_age_and_version() -> None:
    clock = Clock()
    parts = make_parts(clock=clock)
    parts.fleet.add_source("new", 60.0, START)
    poll(parts.fleet, [reading(1)])
    poll(parts.fleet, [reading(1, instance="sick")], "sick")
    parts.fleet.fail("sick", PollProblem.TIMEOUT, "", START)
    clock.step(42)
    body = page(parts)
    assert values(body, "comet_kuma_source_up") == {("main",): 1.0, ("sick",): 0.0}
    assert values(body, "comet_kuma_source_age_seconds") == {("main",): 42.0, ("sick",): 42.0}
    assert values(body, "comet_kuma_source_info")["main", "2.5.3"] == 1.0
    assert values(body, "comet_kuma_source_failures_total")["sick",] == 1.0
    assert values(body, "comet_kuma_source_polls_total")["new",] == 0.0


def test_no_two_families_share_a_name() -> None:
    # OpenMetrics takes the suffix off, so "x" and "x_total" are the same family there.
    names = [row.name.removesuffix("_total").removesuffix("_info") for row in ROWS]
    assert len(names) == len(set(names))
    assert all(name.startswith("comet_") for name in names)


def test_a_text_that_is_not_unicode_hides_nothing() -> None:
    parts = make_parts()
    parts.commands.note("odd \ud83d", 1.0, ok=True)
    poll(parts.fleet, [reading(1, "half \ud83d"), reading(2, "whole")])
    body = page(parts)
    assert ("odd ?",) in values(body, "comet_command_runs_total")
    assert ("1", "main", "half ?") in values(body, "comet_monitor_up")
    assert ("2", "main", "whole") in values(body, "comet_monitor_up")


class Naive(Collector):
    """The same rows and monitors through prometheus_client, every sample an object."""

    def __init__(self, exposition: Exposition, fleet: Fleet) -> None:
        self._exposition = exposition
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        look = self._exposition.look()
        for row in ROWS:
            kinds = {"_total": "counter", "_info": "info"}
            suffix = next((s for s in kinds if row.name.endswith(s)), "")
            family = Metric(row.name.removesuffix(suffix), row.about, kinds.get(suffix, "gauge"))
            for labels, value in row.read(look):
                if value is not None:
                    family.add_sample(row.name, dict(zip(row.labels, labels, strict=True)), value)
            if family.samples:
                yield family
        reads: dict[str, Callable[[MonitorReading], float | None]] = {
            "comet_monitor_status": lambda r: 1.0 if r.status is UP else 0.0,
            "comet_monitor_up": lambda r: 1.0 if r.status is UP else 0.0,
            "comet_monitor_response_time_seconds": lambda r: (r.response_time_ms or 0.0) / 1000,
            "comet_monitor_cert_days_remaining": lambda r: r.cert_days_remaining,
        }
        for name, read in reads.items():
            family = GaugeMetricFamily(name, "x", labels=("kuma", "id", "name"))
            for key, monitor in self._fleet.monitors.items():
                assert monitor.reading is not None
                labels = ["main", key.removeprefix("main:"), monitor.identity.name]
                value = read(monitor.reading)
                if value is not None:
                    family.add_metric(labels, value)
            yield family


def lines(body: bytes) -> list[str]:
    """The page without its help, with numbers as Python reads them."""
    found = []
    for line in body.decode("utf-8").splitlines():
        if line.startswith("# HELP"):
            continue
        head, _, value = line.rpartition(" ")
        found.append(line if line.startswith("#") else f"{head} {float(value)}")
    return found


def fullest() -> Parts:
    """Parts with something to tell in every row, and names that need escaping."""
    parts = make_parts()
    values = {spec.name: 1.0 + i / 7 for i, spec in enumerate(READINGS)}
    labelled = (("ping_gateway", {"shard": "0"}, 1.0),)
    parts.sampler.latest = Sample(START, "primary", values, labelled=labelled)
    parts.commands.note('odd "\\\n', 1.0, ok=False)
    parts.tasks.health["a"] = TaskHealth("a", 10.0, 0.0, 95.0, 9, 2, 1)
    parts.recorder.last_write_s = 1.0
    parts.copying = lambda: Copying(
        "postgresql", CopyPhase.COPYING, 7, 700, 12.5, 0.0, None, 2, 3, 900, START
    )
    parts.growth = lambda: Growth(1e6, 2e4, 3e9, 4.5)
    parts.backups = cast(Any, SimpleNamespace(last_ok_at=START, count=4, failed=1))
    keeping = Keeping("full", "off")
    parts.activity = Activity(parts.recorder, keeping, parts.now, uuid4)
    ledger = Ledger(9, 1, 2, 3, 4, 5, START)
    parts.webhooks = cast(Any, SimpleNamespace(ledgers={"main": ledger}))
    poll(parts.fleet, [reading(i, f'"{i}" 😀', (UP, DOWN)[i % 2], 1.5 * i, i) for i in range(9)])
    return parts


def test_both_dialects_are_what_prometheus_client_would_have_written() -> None:
    parts = fullest()
    exposition = Exposition(parts, "1.0", monotonic=lambda: 100.0)
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(Naive(exposition, parts.fleet))
    # It sorts labels by name; ours stand in the order that reads best.
    text, _ = exposition.render()
    assert series(text) == series(generate_latest(collectors))
    types = [line for line in lines(text) if line.startswith("#")]
    assert types == [line for line in lines(generate_latest(collectors)) if line.startswith("#")]
    openmetrics, _ = exposition.render("application/openmetrics-text")
    theirs = generate_openmetrics(collectors)
    types = [line for line in lines(openmetrics) if line.startswith("#")]
    assert types == [line for line in lines(theirs) if line.startswith("#")]
    told = {row.name for row in ROWS}
    assert told <= {name for name, _ in series(text)}, "a row has nothing to tell here"


def test_openmetrics_is_there_for_who_asks() -> None:
    exposition = Exposition(fullest(), monotonic=lambda: 100.0)
    body, content_type = exposition.render(
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    )
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"\n# EOF\n")
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(body.decode("utf-8"))
        for sample in family.samples
    }
    assert found == series(exposition.render()[0])


def test_help_needs_no_escaping() -> None:
    assert not [row.about for row in ROWS if set(row.about) & set('\\\n"')]


# -- monitors ------------------------------------------------------------------------------


def test_a_status_is_a_number_and_up_is_there_only_when_it_is_known() -> None:
    fleet = Fleet(uuid4)
    order = (UP, DOWN, MonitorStatus.PENDING, MonitorStatus.MAINTENANCE, MonitorStatus.UNKNOWN)
    poll(fleet, [reading(i, f"m{i}", status) for i, status in enumerate(order)])
    body = monitors(fleet)
    by_id = {labels[0]: value for labels, value in values(body, "comet_monitor_status").items()}
    assert by_id == {"0": 1.0, "1": 0.0, "2": 2.0, "3": 3.0, "4": 4.0}
    by_id = {labels[0]: value for labels, value in values(body, "comet_monitor_up").items()}
    assert by_id == {"0": 1.0, "1": 0.0}


def test_response_time_is_in_seconds_and_absent_when_nothing_answered() -> None:
    fleet = Fleet(uuid4)
    poll(
        fleet,
        [
            reading(1, response_time_ms=123.0, cert_days=14.0),
            reading(2, response_time_ms=None, cert_days=-3.0),
            reading(3, response_time_ms=math.nan, cert_days=math.nan),
            reading(4, response_time_ms=math.inf, cert_days=math.inf),
            reading(5, response_time_ms=0.0),
        ],
    )
    body = monitors(fleet)
    times = values(body, "comet_monitor_response_time_seconds")
    assert {labels[0]: value for labels, value in times.items()} == {"1": 0.123, "5": 0.0}
    days = values(body, "comet_monitor_cert_days_remaining")
    assert {labels[0]: value for labels, value in days.items()} == {"1": 14.0, "2": -3.0}
    assert len(values(body, "comet_monitor_status")) == 5


def test_a_family_without_series_is_not_mentioned() -> None:
    fleet = Fleet(uuid4)
    assert monitors(fleet) == b""
    poll(fleet, [reading(1, cert_days=None)])
    assert b"cert_days" not in monitors(fleet)


def test_what_an_earlier_run_knew_is_unknown_until_its_kuma_has_spoken() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("main", 60.0, START)
    text = MonitorText()
    known = [KnownMonitor(reading(i).identity, UP, START, START) for i in (1, 2)]
    fleet.restore(known)
    body = monitors(fleet, text)
    assert set(values(body, "comet_monitor_status").values()) == {4.0}
    assert values(body, "comet_monitor_up") == {}
    poll(fleet, [reading(1)])
    by_id = {k[0]: v for k, v in values(monitors(fleet, text), "comet_monitor_status").items()}
    assert by_id == {"1": 1.0, "2": 4.0}


def test_monitors_of_a_lost_kuma_are_unknown() -> None:
    fleet, text = Fleet(uuid4), MonitorText()
    poll(fleet, [reading(1, cert_days=3.0)])
    assert values(monitors(fleet, text), "comet_monitor_up") != {}
    for second in (60, 240, 600):
        at = START + timedelta(seconds=second)
        fleet.fail("main", PollProblem.UNREACHABLE, "", at)
    body = monitors(fleet, text)
    assert list(values(body, "comet_monitor_status").values()) == [4.0]
    assert values(body, "comet_monitor_up") == {}
    assert values(body, "comet_monitor_response_time_seconds") == {}
    assert values(body, "comet_monitor_cert_days_remaining") == {}


def test_being_lost_shows_even_if_nobody_raised_the_revision() -> None:
    fleet, text = Fleet(uuid4), MonitorText()
    poll(fleet, [reading(1)])
    fleet.fail("main", PollProblem.UNREACHABLE, "", START)
    monitors(fleet, text)
    fleet.note_lost("main", START + timedelta(hours=1))
    assert list(values(monitors(fleet, text), "comet_monitor_status").values()) == [4.0]


def test_nothing_is_written_anew_until_the_fleet_changes() -> None:
    fleet, text = Fleet(uuid4), MonitorText()
    poll(fleet, [reading(1)])
    first = text.render(fleet)
    assert text.render(fleet) is first
    poll(fleet, [reading(1, status=DOWN)])
    assert list(values(monitors(fleet, text), "comet_monitor_up").values()) == [0.0]


def test_coming_going_and_renaming_show_at_once() -> None:
    fleet, text = Fleet(uuid4), MonitorText()
    poll(fleet, [reading(1, "a"), reading(2, "b")])
    monitors(fleet, text)
    poll(fleet, [reading(1, "a"), reading(2, "renamed"), reading(3, "c")])
    assert {k[2] for k in values(monitors(fleet, text), "comet_monitor_status")} == {
        "a",
        "renamed",
        "c",
    }
    fleet.forget("main:1")
    body = monitors(fleet, text)
    assert {k[2] for k in values(body, "comet_monitor_status")} == {"renamed", "c"}
    assert body == monitors(fleet)


def test_equal_ids_in_two_kumas_are_two_monitors() -> None:
    fleet = Fleet(uuid4)
    poll(fleet, [reading(1, "web")])
    poll(fleet, [reading(1, "web", DOWN, instance="other")], "other")
    assert values(monitors(fleet), "comet_monitor_up") == {
        ("1", "main", "web"): 1.0,
        ("1", "other", "web"): 0.0,
    }


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
@example(['say "hi"', "back\\slash", "new\nline", "\\n", 'end\\"', "😀 日本語", "a,b={}#"])
@example(["\r", "\x00", "\x85", "\u2028", " lead", "trail ", "# HELP x", '"} 1', "\\"])
def test_any_name_comes_back_as_it_was(names: list[str]) -> None:
    fleet = Fleet(uuid4)
    poll(fleet, [reading(i, name or "-") for i, name in enumerate(names)])
    found = {k[0]: k[2] for k in values(monitors(fleet), "comet_monitor_status")}
    assert found == {str(i): name or "-" for i, name in enumerate(names)}
