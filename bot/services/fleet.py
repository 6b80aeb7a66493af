"""Every monitor as it is known now, and how fresh that knowledge is.

Polls and Kuma's own words come in, status changes and observations go out. Nothing here waits
for anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from bot.core.alert import Detail, Observation
from bot.core.kuma import display_url
from bot.core.kuma_webhook import Beat
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)
from bot.services.baseline import BASELINE_WINDOW_S, Baseline
from bot.services.source import Source
from bot.services.words import Words
from bot.storage.store import KnownMonitor, StatusChange

SLOW_FACTOR = 3.0
SLOW_FLOOR_MS = 1000.0
FORGET_AFTER = timedelta(hours=24)

MONITOR_METRICS = (
    "monitor_down",
    "monitor_missing",
    "monitor_slowness",
    "monitor_cert_days_remaining",
)

# DOWN must hold an alert open through Kuma's own "pending" and "maintenance": half way between.
_DOWN_VALUE = {
    MonitorStatus.UP: 0.0,
    MonitorStatus.DOWN: 1.0,
    MonitorStatus.PENDING: 0.5,
    MonitorStatus.MAINTENANCE: 0.5,
}


@dataclass(slots=True)
class FleetMonitor:
    """One monitor. `status` is UNKNOWN while its source is lost or no longer speaks of it.

    `reason` is why Kuma called it down, where Kuma itself has told.
    """

    identity: MonitorIdentity
    instance: str
    status: MonitorStatus
    since_at: datetime
    seen_at: datetime
    reading: MonitorReading | None = None
    missing_since_at: datetime | None = None
    reason: str | None = None
    baseline: Baseline = field(default_factory=Baseline)

    @property
    def key(self) -> str:
        return self.identity.key

    def slowness(self) -> float | None:
        """Response time over what is slow for this monitor: above 1 is slow.

        Slow is more than 1,000 ms and more than three times the 24-hour median. Below the floor
        no median is needed; above it, None without one.
        """
        reading = self.reading
        if reading is None or reading.response_time_ms is None:
            return None
        value_ms = reading.response_time_ms
        if value_ms <= SLOW_FLOOR_MS:
            return value_ms / SLOW_FLOOR_MS
        median_ms = self.baseline.median_ms()
        if median_ms is None:
            return None
        return value_ms / max(SLOW_FLOOR_MS, SLOW_FACTOR * median_ms)


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of a word: about whom (None: nobody known), whether it was news, what changed."""

    key: str | None
    is_news: bool = False
    changes: Sequence[StatusChange] = ()


class _Details(Mapping[str, Detail]):
    """Details of monitors, made when somebody asks: rules ask for few of thousands."""

    def __init__(
        self, fleet: Fleet, keys: Mapping[str, object], sources: Mapping[str, Detail]
    ) -> None:
        self._fleet = fleet
        self._keys = keys
        self._sources = sources

    def __getitem__(self, key: str) -> Detail:
        if key in self._sources:
            return self._sources[key]
        if key not in self._keys:
            raise KeyError(key)
        return self._fleet.detail(self._fleet.monitors[key])

    def __iter__(self) -> Iterator[str]:
        return chain(self._sources, self._keys)

    def __len__(self) -> int:
        return len(self._sources) + len(self._keys)


class Fleet:
    """All monitors of all Kumas. `new_id` makes the identifiers of status changes."""

    def __init__(self, new_id: Callable[[], UUID]) -> None:
        self._new_id = new_id
        self.monitors: dict[str, FleetMonitor] = {}
        self.sources: dict[str, Source] = {}
        self.words = Words()
        self.revision = 0

    def add_source(self, instance: str, period_s: float, now: datetime) -> Source:
        source = Source(instance, period_s, now)
        self.sources[instance] = source
        return source

    def restore(self, known: Iterable[KnownMonitor]) -> None:
        """Take up the monitors of an earlier run; how they are now the first poll will say."""
        for monitor in known:
            instance = monitor.identity.key.partition(":")[0]
            self.monitors[monitor.identity.key] = FleetMonitor(
                identity=monitor.identity,
                instance=instance,
                status=monitor.status,
                since_at=monitor.changed_at,
                seen_at=monitor.last_seen_at,
            )

    def restore_baselines(self, response_times: dict[str, list[float]], now: datetime) -> None:
        """Seed the medians with yesterday's values, oldest first, spread over the day."""
        for key, values in response_times.items():
            monitor = self.monitors.get(key)
            if monitor is None or not values:
                continue
            step_s = BASELINE_WINDOW_S // (len(values) + 1)
            begin_s = int(now.timestamp()) - BASELINE_WINDOW_S
            for position, value in enumerate(values, start=1):
                monitor.baseline.add(begin_s + position * step_s, value)

    def apply(
        self, report: KumaReport, now: datetime, began_at: datetime | None = None
    ) -> list[StatusChange]:
        """A complete look at one Kuma, asked for at `began_at`.

        Returns first sights and changes; absent is unknown. A look that contradicts what Kuma has
        just told about a monitor is not believed yet.
        """
        source = self.sources[report.instance]
        source.polls += 1
        source.last_try_at = source.last_good_at = now
        source.failing_since_at = source.problem = None
        source.problem_detail = ""
        source.is_lost = False
        source.version = report.version or source.version
        source.skipped = report.skipped
        self.revision += 1
        changes: list[StatusChange] = []
        seen: set[str] = set()
        now_s = int(now.timestamp())
        for reading in report.monitors:
            key = reading.identity.key
            seen.add(key)
            monitor = self.monitors.get(key)
            told = self.words.against(key, reading.status, began_at or now, now)
            if told is not None:
                reading = replace(reading, status=told, response_time_ms=None)
            if monitor is None:
                monitor = FleetMonitor(reading.identity, report.instance, reading.status, now, now)
                self.monitors[key] = monitor
                changes.append(self._change(monitor, reading.status, now, reading))
            elif monitor.status is not reading.status:
                changes.append(self._change(monitor, reading.status, now, reading))
            monitor.identity = reading.identity
            monitor.reading = reading
            monitor.seen_at = now
            monitor.missing_since_at = None
            if reading.response_time_ms is not None:
                monitor.baseline.add(now_s, reading.response_time_ms)
        for monitor in self.monitors.values():
            if monitor.instance == report.instance and monitor.key not in seen:
                if monitor.missing_since_at is None:
                    monitor.missing_since_at = now
                if self.words.holds(monitor.key, now):
                    continue
                monitor.reading = None
                if monitor.status is not MonitorStatus.UNKNOWN:
                    changes.append(self._change(monitor, MonitorStatus.UNKNOWN, now, None))
        return changes

    def fail(
        self, instance: str, problem: PollProblem, detail: str, now: datetime
    ) -> list[StatusChange]:
        """A poll that gave nothing. Once the source counts as lost, its monitors are unknown."""
        source = self.sources[instance]
        source.polls += 1
        source.failures += 1
        source.last_try_at = now
        source.problem = problem
        source.problem_detail = detail
        if source.failing_since_at is None:
            source.failing_since_at = now
        self.revision += 1
        return self.note_lost(instance, now)

    def note_lost(self, instance: str, now: datetime) -> list[StatusChange]:
        source = self.sources[instance]
        staleness = source.staleness(now)
        if staleness is None or staleness < 1:
            return []
        source.is_lost = True
        changes = []
        for monitor in self.monitors.values():
            if monitor.instance == instance and not self.words.holds(monitor.key, now):
                monitor.reading = None
                if monitor.status is not MonitorStatus.UNKNOWN:
                    changes.append(self._change(monitor, MonitorStatus.UNKNOWN, now, None))
        return changes

    def long_gone(self, now: datetime) -> list[str]:
        """Monitors a working source has not spoken of for a day: no longer part of the fleet."""
        return [
            key
            for key, monitor in self.monitors.items()
            if monitor.missing_since_at is not None
            and now - monitor.missing_since_at >= FORGET_AFTER
        ]

    def forget(self, key: str) -> None:
        self.monitors.pop(key, None)
        self.words.forget(key)
        self.revision += 1

    def shift(self, step: timedelta) -> None:
        """The clock was set: move what ages are counted from, so that ages stay true."""
        self.words.shift(step)
        for source in self.sources.values():
            source.started_at += step
            if source.last_good_at is not None:
                source.last_good_at += step
            if source.last_try_at is not None:
                source.last_try_at += step
            if source.failing_since_at is not None:
                source.failing_since_at += step
        for monitor in self.monitors.values():
            monitor.since_at += step
            monitor.seen_at += step
            if monitor.missing_since_at is not None:
                monitor.missing_since_at += step

    def hear(self, instance: str, beat: Beat, now: datetime) -> Heard:
        """Kuma's own word about one monitor; it counts at once, whatever polls say or do not say.

        A monitor that nobody knows yet begins with its outage; any other word about it can wait
        for the poll that shows it.
        """
        identity = self._who(instance, beat)
        if identity is None:
            return Heard(None)
        monitor = self.monitors.get(identity.key)
        if monitor is None and beat.status is not MonitorStatus.DOWN:
            return Heard(None)
        if not self.words.take(identity.key, beat, self.sources[instance], now):
            return Heard(identity.key)
        self.revision += 1
        is_new = monitor is None
        if monitor is None:
            monitor = FleetMonitor(identity, instance, beat.status, now, now)
            self.monitors[identity.key] = monitor
        is_down = beat.status is MonitorStatus.DOWN
        reason = beat.message or None if is_down else None
        before = monitor.reading or MonitorReading(monitor.identity, beat.status)
        monitor.reading = replace(
            before, status=beat.status, response_time_ms=beat.response_time_ms
        )
        if monitor.missing_since_at is not None:
            monitor.missing_since_at = now
        changes = []
        if is_new or monitor.status is not beat.status:
            changes.append(self._change(monitor, beat.status, now, monitor.reading, reason))
        monitor.reason = reason
        return Heard(identity.key, True, changes)

    def _who(self, instance: str, beat: Beat) -> MonitorIdentity | None:
        """Whom a word means, in the terms of this Kuma's polls: by id, or on 1.23 by its labels."""
        by_number, by_labels = beat.by_number(instance), beat.by_labels(instance)
        for identity in (by_number, by_labels):
            if identity is not None and identity.key in self.monitors:
                return identity
        live = (
            m.key
            for m in self.monitors.values()
            if m.instance == instance and m.missing_since_at is None
        )
        known = next(live, None)
        has_ids = beat.speaks_of_ids if known is None else not known.startswith(f"{instance}:~")
        return by_number or by_labels if has_ids else by_labels or by_number

    def observe_some(self, keys: Iterable[str], now: datetime) -> Observation:
        """Up or down of these monitors alone: what a word can tell."""
        known = {key: monitor for key in keys if (monitor := self.monitors.get(key)) is not None}
        down = {key: _DOWN_VALUE.get(monitor.status) for key, monitor in known.items()}
        return Observation(now, {"monitor_down": down}, _Details(self, known, {}))

    def observe(self, now: datetime) -> Observation:
        """What the rules see. A monitor whose source did not answer last time has no data."""
        down: dict[str, float | None] = {}
        missing: dict[str, float | None] = {}
        slowness: dict[str, float | None] = {}
        cert_days: dict[str, float | None] = {}
        for key, monitor in self.monitors.items():
            source = self.sources.get(monitor.instance)
            if source is None:
                continue
            is_silent = source.failing_since_at is not None or source.polls == 0
            if is_silent and not self.words.holds(key, now):
                continue
            reading = monitor.reading
            missing[key] = 0.0 if monitor.missing_since_at is None else 1.0
            if reading is None:
                continue
            value = _DOWN_VALUE.get(reading.status)
            if value is not None:
                down[key] = value
            if reading.status is MonitorStatus.UP:
                slowness[key] = monitor.slowness()
            if reading.cert_days_remaining is not None:
                cert_days[key] = reading.cert_days_remaining
        columns = (down, missing, slowness, cert_days)
        values: dict[str, dict[str, float | None]] = dict(
            zip(MONITOR_METRICS, columns, strict=True)
        )
        # Loss and return of a Kuma are told with the very poll that shows them.
        values["kuma_staleness"] = {
            instance: source.staleness(now) for instance, source in self.sources.items()
        }
        return Observation(now, values, _Details(self, missing, self.source_details(now)))

    def detail(self, monitor: FleetMonitor) -> Detail:
        identity, reading = monitor.identity, monitor.reading
        why = {} if monitor.reason is None else {"reason": monitor.reason}
        return {
            **why,
            "name": identity.name,
            "status": monitor.status.value,
            "url": display_url(identity.url),
            "type": identity.monitor_type,
            "response_time_ms": None if reading is None else reading.response_time_ms,
        }

    def source_details(self, now: datetime) -> dict[str, Detail]:
        """By instance: why it is silent and when it last answered."""
        return {
            instance: {
                "name": instance,
                "problem": None if source.problem is None else source.problem.value,
                "last_good_at": None
                if source.last_good_at is None
                else source.last_good_at.isoformat(),
                "monitors": sum(1 for m in self.monitors.values() if m.instance == instance),
            }
            for instance, source in self.sources.items()
        }

    def status_of(self, monitor: FleetMonitor) -> MonitorStatus:
        """What may be said of it now: after a start, nothing until its Kuma has spoken once."""
        source = self.sources.get(monitor.instance)
        is_heard = monitor.key in self.words
        if source is None or (source.last_good_at is None and not is_heard):
            return MonitorStatus.UNKNOWN
        return monitor.status

    def counts(self) -> Counter[MonitorStatus]:
        """How many monitors stand how; a status nobody has counts 0."""
        return Counter(self.status_of(monitor) for monitor in self.monitors.values())

    def find(self, text: str) -> list[FleetMonitor]:
        """Monitors whose key or name is exactly `text` (case ignored for names)."""
        exact = self.monitors.get(text)
        if exact is not None:
            return [exact]
        folded = text.casefold()
        return [m for m in self.monitors.values() if m.identity.name.casefold() == folded]

    def search(self, text: str) -> list[FleetMonitor]:
        """Monitors whose name contains `text`, by name."""
        folded = text.casefold()
        hits = [m for m in self.monitors.values() if folded in m.identity.name.casefold()]
        return sorted(hits, key=lambda m: (m.identity.name.casefold(), m.key))

    def _change(
        self,
        monitor: FleetMonitor,
        status: MonitorStatus,
        now: datetime,
        reading: MonitorReading | None,
        reason: str | None = None,
    ) -> StatusChange:
        monitor.status = status
        monitor.since_at = now
        monitor.reason = reason
        return StatusChange(
            change_id=self._new_id(),
            identity=monitor.identity if reading is None else reading.identity,
            status=status,
            at=now,
            response_time_ms=None if reading is None else reading.response_time_ms,
            error_message=reason,
        )
