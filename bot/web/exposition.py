"""`/metrics` for Prometheus. Every series begins with `comet_`; what is not known is not there.

Two halves: what the process knows of itself, a hundred series or so, is a table of rows; what is
known of the monitors, thousands of series, is kept as text (monitor_text.py).

A missing reading is an absent series, never 0 and never NaN. Units are base units: percent
becomes a ratio of 0 to 1, milliseconds become seconds, megabytes bytes.

Written by hand: prometheus_client takes 17 ms for 1,000 monitors, which would hold the loop, and
three times as long as this for the table alone. The tests read every page with its parser.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from typing import Final

from bot.core.copying import Copying
from bot.core.readings import READINGS, ReadingSpec, Unit
from bot.services.backups import Backups
from bot.services.parts import Parts
from bot.web.health import DEAD_PERIODS, firing
from bot.web.monitor_text import KUMA, MonitorText, encode, label_block
from bot.web.rows import Look, Row, Values
from bot.web.webhook_rows import WEBHOOK_ROWS

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_UNITS: dict[Unit, tuple[str, float, str]] = {
    Unit.PERCENT: ("_ratio", 100, "0 to 1"),
    Unit.MEGABYTES: ("_bytes", 1 / (1024 * 1024), "bytes"),
    Unit.BYTES: ("_bytes", 1, "bytes since the snapshot before"),
    Unit.MILLISECONDS: ("_seconds", 1000, "seconds"),
    Unit.SECONDS: ("_seconds", 1, "seconds"),
    Unit.COUNT: ("", 1, "a number"),
    Unit.RATIO: ("_ratio", 1, "1 is the limit"),
}
_LOAD_UNIT = ("", 1.0, "tasks running or waiting")


# -- what the process knows of itself ------------------------------------------------------


def reading_series(spec: ReadingSpec) -> tuple[str, float, str]:
    """A reading's series name, what to divide its value by, and its unit in words."""
    is_load = spec.name.startswith("load_average")
    suffix, divisor, unit = _LOAD_UNIT if is_load else _UNITS[spec.unit]
    return f"comet_{spec.name}{suffix}", divisor, unit


def _of_reading(spec: ReadingSpec) -> Row:
    name, divisor, unit = reading_series(spec)

    def read(look: Look) -> Values:
        value = None if look.sample is None else look.sample.values.get(spec.name)
        return (((), None if value is None else value / divisor),)

    return Row(name, f"{spec.name.replace('_', ' ')} of the newest snapshot: {unit}", (), read)


def _one(read: Callable[[Look], float | None]) -> Callable[[Look], Values]:
    return lambda look: (((), read(look)),)


def _shards(look: Look) -> Values:
    for name, labels, value in () if look.sample is None else look.sample.labelled:
        if name == "ping_gateway" and "shard" in labels:
            yield (labels["shard"],), value / 1000


def _task_ages(look: Look) -> Values:
    for name, health in look.parts.tasks.health.items():
        last_s = health.last_success_s
        yield (name,), None if last_s is None else max(0.0, look.now_s - last_s)


def _tasks(field: str) -> Callable[[Look], Values]:
    return lambda look: (
        ((name,), getattr(health, field)) for name, health in look.parts.tasks.health.items()
    )


def _sources(field: str) -> Callable[[Look], Values]:
    return lambda look: (
        ((name,), getattr(source, field)) for name, source in look.parts.fleet.sources.items()
    )


def _source_up(look: Look) -> Values:
    for name, source in look.parts.fleet.sources.items():
        if source.last_try_at is not None:
            yield (name,), float(source.failing_since_at is None)


def _source_ages(look: Look) -> Values:
    for name, source in look.parts.fleet.sources.items():
        yield (name,), source.age_s(look.now)


def _versions(look: Look) -> Values:
    for name, source in look.parts.fleet.sources.items():
        if source.version is not None:
            yield (name, source.version), 1.0


def _command_runs(position: int) -> Callable[[Look], Values]:
    return lambda look: (
        ((name,), counts[position]) for name, counts in look.parts.commands.by_name.items()
    )


def _sample_age(look: Look) -> float | None:
    latest = look.parts.sampler.latest
    return None if latest is None else max(0.0, (look.now - latest.at).total_seconds())


def _write_age(look: Look) -> float | None:
    last_s = look.parts.recorder.last_write_s
    return None if last_s is None else max(0.0, look.now_s - last_s)


def _copying(read: Callable[[Copying], float | None]) -> Callable[[Look], Values]:
    """Nothing at all where no remote store is set up."""

    def values(look: Look) -> Values:
        copying = look.parts.copying()
        return () if copying is None else (((), read(copying)),)

    return values


def _backups(read: Callable[[Backups], float | None]) -> Callable[[Look], Values]:
    """Nothing at all without scheduled backups."""

    def values(look: Look) -> Values:
        backups = look.parts.backups
        return () if backups is None else (((), read(backups)),)

    return values


def _backed_up_at(backups: Backups) -> float | None:
    at = backups.last_ok_at
    return None if at is None else at.timestamp()


def _reports(look: Look) -> Values:
    activity = look.parts.activity
    for kind, tally in () if activity is None else activity.tallies.items():
        for outcome in ("kept", "refused", "flooded"):
            yield (kind, outcome), getattr(tally, outcome)


def _copied_at(copying: Copying) -> float | None:
    at = copying.last_copied_at
    return None if at is None else at.timestamp()


ROWS: tuple[Row, ...] = (
    Row(
        "comet_build_info",
        "what runs here",
        ("version", "python", "bot_id"),
        lambda s: (((s.version, platform.python_version(), s.parts.choices.bot_id), 1.0),),
    ),
    Row(
        "comet_start_time_seconds",
        "when the process started, Unix time",
        (),
        _one(lambda s: s.parts.started_at.timestamp()),
    ),
    *map(_of_reading, READINGS),
    Row(
        "comet_sample_age_seconds",
        "age of the newest snapshot; past three periods its readings are left out",
        (),
        _one(_sample_age),
    ),
    Row("comet_shard_ping_seconds", "gateway ping by shard", ("shard",), _shards),
    Row("comet_commands_total", "slash commands run", (), _one(lambda s: s.parts.commands.count)),
    Row(
        "comet_commands_failed_total",
        "slash commands that failed",
        (),
        _one(lambda s: s.parts.commands.errors),
    ),
    Row("comet_command_runs_total", "slash commands by name", ("command",), _command_runs(0)),
    Row(
        "comet_command_failures_total",
        "slash commands that failed, by name",
        ("command",),
        _command_runs(1),
    ),
    Row(
        "comet_task_last_success_age_seconds",
        "since a background task last did its work; absent before the first time",
        ("task",),
        _task_ages,
    ),
    Row("comet_task_period_seconds", "how often it should", ("task",), _tasks("period_s")),
    Row("comet_task_runs_total", "times it ran", ("task",), _tasks("runs")),
    Row("comet_task_errors_total", "times it failed", ("task",), _tasks("errors")),
    Row("comet_task_missed_total", "beats it missed", ("task",), _tasks("missed")),
    Row(
        "comet_store_waiting",
        "facts that wait in memory because the store refuses them",
        (),
        _one(lambda s: s.parts.recorder.waiting),
    ),
    Row(
        "comet_store_dropped_total",
        "facts given up because memory for waiting ones was full",
        (),
        _one(lambda s: s.parts.recorder.dropped),
    ),
    Row(
        "comet_store_refused_total",
        "facts the store will never take",
        (),
        _one(lambda s: s.parts.recorder.refused),
    ),
    Row("comet_store_last_write_age_seconds", "since the last good write", (), _one(_write_age)),
    Row(
        "comet_copy_waiting",
        "rows that wait to be copied to the remote store",
        (),
        _copying(lambda c: c.depth),
    ),
    Row("comet_copy_waiting_bytes", "about how much", (), _copying(lambda c: c.waiting_bytes)),
    Row(
        "comet_copy_oldest_age_seconds",
        "age of the oldest of them; absent when none waits",
        (),
        _copying(lambda c: c.oldest_age_s),
    ),
    Row(
        "comet_copy_last_success_time_seconds",
        "when something was last copied, Unix time",
        (),
        _copying(_copied_at),
    ),
    Row("comet_copied_total", "rows copied", (), _copying(lambda c: c.copied_total)),
    Row(
        "comet_copy_refused_total",
        "rows the remote store will never take; they are set aside",
        (),
        _copying(lambda c: c.refused),
    ),
    Row(
        "comet_copy_given_up_total",
        "rows given up because too many waited, or for too long",
        (),
        _copying(lambda c: c.given_up),
    ),
    Row("comet_store_size_bytes", "the database", (), _one(lambda s: s.parts.growth().size_bytes)),
    Row(
        "comet_store_growth_bytes_per_day",
        "trend of its size; absent until a day is known",
        (),
        _one(lambda s: s.parts.growth().per_day_bytes),
    ),
    Row(
        "comet_store_full_in_days",
        "when the disk will be full at this rate; absent while that is not to be expected",
        (),
        _one(lambda s: s.parts.growth().full_in_days),
    ),
    Row(
        "comet_backup_last_success_time_seconds",
        "when the newest backup was begun, Unix time",
        (),
        _backups(_backed_up_at),
    ),
    Row("comet_backups_total", "backups made", (), _backups(lambda b: b.count)),
    Row("comet_backups_failed_total", "attempts that failed", (), _backups(lambda b: b.failed)),
    Row(
        "comet_reports_total",
        "what other cogs reported, by kind and by what became of it",
        ("kind", "outcome"),
        _reports,
    ),
    Row(
        "comet_delivery_queued",
        "messages that wait for Discord",
        (),
        _one(lambda s: len(s.parts.delivery.queued)),
    ),
    Row(
        "comet_delivery_delivered_total",
        "messages Discord has accepted",
        (),
        _one(lambda s: s.parts.delivery.counts.delivered),
    ),
    Row(
        "comet_delivery_failed_attempts_total",
        "attempts that failed and are tried again",
        (),
        _one(lambda s: s.parts.delivery.counts.failed_attempts),
    ),
    Row(
        "comet_delivery_dropped_total",
        "messages that can never be delivered",
        (),
        _one(lambda s: s.parts.delivery.counts.dropped),
    ),
    Row(
        "comet_delivery_fallback_total",
        "incidents told through the fallback webhook",
        (),
        _one(lambda s: s.parts.delivery.counts.by_fallback),
    ),
    Row(
        "comet_alerts_firing",
        "open incidents by severity",
        ("severity",),
        lambda s: (((severity,), count) for severity, count in firing(s.parts).items()),
    ),
    Row(
        "comet_kuma_source_up",
        "1 if this Kuma gave a good answer last time, 0 if not; absent before the first try",
        (KUMA,),
        _source_up,
    ),
    Row(
        "comet_kuma_source_age_seconds",
        "since its last good answer; absent before the first",
        (KUMA,),
        _source_ages,
    ),
    Row("comet_kuma_source_polls_total", "times it was asked", (KUMA,), _sources("polls")),
    Row(
        "comet_kuma_source_failures_total",
        "times it gave no good answer",
        (KUMA,),
        _sources("failures"),
    ),
    Row(
        "comet_kuma_source_skipped",
        "series of its last answer that made no sense",
        (KUMA,),
        _sources("skipped"),
    ),
    Row("comet_kuma_source_info", "its version", (KUMA, "version"), _versions),
    *WEBHOOK_ROWS,
)


class RowText:
    """ROWS as text, in either dialect."""

    def __init__(self) -> None:
        self._rows = [(row, _head(row, False), _head(row, True)) for row in ROWS]

    def render(self, look: Look, *, openmetrics: bool) -> str:
        """Whole lines. A family without a value is not mentioned."""
        text: list[str] = []
        for row, head, openmetrics_head in self._rows:
            before = len(text)
            text.append(openmetrics_head if openmetrics else head)
            name = row.name
            for labels, value in row.read(look):
                if value is None or not math.isfinite(value):
                    continue
                block = label_block(zip(row.labels, labels, strict=True)) if labels else ""
                text.append(f"{name}{block} {value!r}\n")
            if len(text) == before + 1:
                text.pop()
        return "".join(text)


def _head(row: Row, openmetrics: bool) -> str:
    """OpenMetrics names the family without the suffix, and knows info; Prometheus does neither."""
    name, kind = row.name, "gauge"
    if name.endswith("_total"):
        name, kind = name.removesuffix("_total") if openmetrics else name, "counter"
    elif name.endswith("_info") and openmetrics:
        name, kind = name.removesuffix("_info"), "info"
    return f"# HELP {name} {row.about}\n# TYPE {name} {kind}\n"


# -- the page ------------------------------------------------------------------------------


class Exposition:
    """The whole page. `version` is what comet_build_info says; "" where nobody knows."""

    def __init__(
        self,
        parts: Parts,
        version: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._version = version
        self._monotonic = monotonic
        self._rows = RowText()
        self._monitors = MonitorText()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics for who asks for it, else text 0.0.4."""
        openmetrics = "application/openmetrics-text" in accept
        own = encode(self._rows.render(self.look(), openmetrics=openmetrics))
        monitors = self._monitors.render(self._parts.fleet)
        if openmetrics:
            return b"".join((own, *monitors, b"# EOF\n")), OPENMETRICS_TYPE
        return b"".join((own, *monitors)), TEXT_TYPE

    def look(self) -> Look:
        """What the rows are read from, now."""
        parts = self._parts
        now = parts.now()
        sample = parts.sampler.latest
        if sample is not None:
            age_s = abs((now - sample.at).total_seconds())
            if age_s >= DEAD_PERIODS * max(1.0, parts.choices.sample_interval_s):
                sample = None
        return Look(parts, now, self._monotonic(), sample, self._version)
