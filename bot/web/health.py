"""How every part is doing, as plain data for `/ready` and `/api/v1/health`.

`ok` is true, false, or null where nobody can know yet. `why` is one word for machines, null
while all is well. Ages are seconds since the part last did its work; null when it never did.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from bot.core.rule import Severity
from bot.redaction import Redactor
from bot.services.parts import Parts
from bot.services.sampler import TASK_NAME, DiscordLink
from bot.services.source import Source
from bot.services.ticker import TaskHealth

Part = dict[str, object]

DEAD_PERIODS = 3
STORE_SILENCE_MIN_S = 10.0


class Health:
    """Looks at the parts, never touches them. `now_s` is time.monotonic()."""

    def __init__(
        self,
        parts: Parts,
        discord: DiscordLink | None,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        self._parts = parts
        self._discord = discord
        self._redact = Redactor().redact if redact is None else redact

    def readiness(self, now: datetime, now_s: float) -> tuple[bool, dict[str, object]]:
        """Ready means: samples are taken and stored, and Discord is there if there is a token.

        Kuma is told of as information: a bot is no less ready because what it watches is ill.
        """
        needed = {"sampler": self.sampler(now_s), "store": self.store(now_s)}
        discord = self.discord()
        if discord is not None:
            needed["discord"] = discord
        is_ready = all(part["ok"] is True for part in needed.values())
        sources = {
            name: _pick(self.source(source, now), "ok", "age_s", "why")
            for name, source in self._parts.fleet.sources.items()
        }
        return is_ready, {
            "ready": is_ready,
            "parts": {name: _pick(part, "ok", "age_s", "why") for name, part in needed.items()},
            "sources": sources,
        }

    def everything(self, now: datetime, now_s: float) -> dict[str, object]:
        """Every part with its age. Holds no address of a service and no secret."""
        parts = self._parts
        is_ready, _ = self.readiness(now, now_s)
        tasks = {name: self.task(health, now_s) for name, health in parts.tasks.health.items()}
        sources = {name: self.source(s, now) for name, s in parts.fleet.sources.items()}
        single = {
            "sampler": self.sampler(now_s),
            "store": self.store(now_s),
            "remote": self.remote(now),
            "backups": self.backups(now),
            "delivery": self.delivery(now),
            "discord": self.discord(),
        }
        judged = [*single.values(), *tasks.values(), *sources.values()]
        is_well = is_ready and all(part is None or part["ok"] is not False for part in judged)
        return {
            "status": "ok" if is_well else "degraded",
            "ready": is_ready,
            "at": now.isoformat(),
            "bot_id": parts.choices.bot_id,
            "uptime_s": round(max(0.0, (now - parts.started_at).total_seconds()), 1),
            **single,
            "tasks": tasks,
            "sources": sources,
            "alerts": firing(parts),
        }

    def sampler(self, now_s: float) -> Part:
        parts = self._parts
        health = parts.tasks.health.get(TASK_NAME)
        if health is None:
            return _part(None, "not_started")
        if parts.sampler.latest is None or health.last_success_s is None:
            return _part(None, "hung" if _is_dead(health, now_s) else "no_sample_yet")
        return _part(health.age_s(now_s), "hung" if _is_dead(health, now_s) else None)

    def store(self, now_s: float) -> Part:
        """Every snapshot is a write, so a store that is silent for three periods is not well."""
        recorder = self._parts.recorder
        silence_s = max(STORE_SILENCE_MIN_S, DEAD_PERIODS * self._parts.choices.sample_interval_s)
        age_s = None if recorder.last_write_s is None else max(0.0, now_s - recorder.last_write_s)
        if recorder.problem is not None:
            why: str | None = recorder.problem.reason
        elif age_s is None:
            why = "nothing_stored_yet"
        else:
            why = "silent" if age_s >= silence_s else None
        return _part(
            age_s,
            why,
            queue=recorder.waiting,
            dropped=recorder.dropped,
            refused=recorder.refused,
            failing_s=round(recorder.failing_s, 1),
        )

    def remote(self, now: datetime) -> Part | None:
        """None without a remote store. The age is that of the oldest row still to be copied."""
        copying = self._parts.copying()
        if copying is None:
            return None
        last_at = copying.last_copied_at
        return _part(
            copying.oldest_age_s,
            copying.reason,
            backend=copying.backend,
            phase=copying.phase.value,
            depth=copying.depth,
            waiting_bytes=copying.waiting_bytes,
            away_s=round(copying.away_s, 1),
            copied=copying.copied_total,
            refused=copying.refused,
            given_up=copying.given_up,
            last_copied_age_s=None
            if last_at is None
            else round(max(0.0, (now - last_at).total_seconds()), 1),
        )

    def backups(self, now: datetime) -> Part | None:
        """None without scheduled ones. The age is that of the newest; null when there is none."""
        backups = self._parts.backups
        if backups is None:
            return None
        last_at = backups.last_ok_at
        return _part(
            None if last_at is None else max(0.0, (now - last_at).total_seconds()),
            None if backups.last_error is None else "failing",
            unknown=None if backups.next_at is not None else "not_looked_yet",
            made=backups.count,
            failed=backups.failed,
        )

    def discord(self) -> Part | None:
        """None without a token: then there is nothing to be ready. The age is since it left."""
        if self._discord is None:
            return _part(None, "not_started") if self._parts.choices.has_discord else None
        look = self._discord.look()
        away_s = _finite(look.away_s)
        why = "not_connected_yet" if away_s is None else "away" if away_s > 0 else None
        return _part(
            away_s,
            why,
            gateway_ping_ms=_finite(look.gateway_ping_ms),
            reconnects=_finite(look.reconnects),
            guilds=_finite(look.guilds),
        )

    def delivery(self, now: datetime) -> Part:
        """The age is that of the oldest message still waiting; null when none waits."""
        delivery = self._parts.delivery
        problems = Counter(
            health.problem.value
            for health in delivery.health.values()
            if health.problem is not None
        )
        return _part(
            delivery.oldest_queued_age_s(now),
            next(iter(problems), None),
            queued=len(delivery.queued),
            delivered=delivery.counts.delivered,
            failed_attempts=delivery.counts.failed_attempts,
            dropped=delivery.counts.dropped,
            by_fallback=delivery.counts.by_fallback,
            failing_channels=dict(problems),
        )

    def task(self, health: TaskHealth, now_s: float) -> Part:
        has_run = health.last_success_s is not None
        why = "failing" if health.last_error is not None else "late"
        return _part(
            health.age_s(now_s) if has_run else None,
            why if _is_dead(health, now_s) else None,
            unknown=None if has_run else "not_run_yet",
            period_s=health.period_s,
            runs=health.runs,
            errors=health.errors,
            missed=health.missed,
            last_error=None if health.last_error is None else self._redact(health.last_error),
        )

    def source(self, source: Source, now: datetime) -> Part:
        if source.failing_since_at is None:
            why = None
        else:
            why = "failing" if source.problem is None else source.problem.value
        return _part(
            source.age_s(now),
            why,
            unknown="not_asked_yet" if source.last_try_at is None else None,
            detail=self._redact(source.problem_detail) or None,
            lost=source.is_lost,
            version=source.version,
            polls=source.polls,
            failures=source.failures,
            skipped=source.skipped,
        )


def firing(parts: Parts) -> dict[str, int]:
    """Open incidents by severity, each severity named."""
    counts = {severity.value: 0 for severity in Severity}
    for incident in parts.alerting.open.values():
        counts[incident.severity.value] += 1
    return counts


def _is_dead(health: TaskHealth, now_s: float) -> bool:
    return health.lateness(now_s) >= DEAD_PERIODS


def _part(
    age_s: float | None, why: str | None, *, unknown: str | None = None, **more: object
) -> Part:
    """`why` makes it not ok; else `unknown` makes it neither."""
    ok = False if why is not None else None if unknown is not None else True
    rounded = None if age_s is None else round(age_s, 1)
    return {"ok": ok, "age_s": rounded, "why": why or unknown, **more}


def _pick(part: Part, *names: str) -> Part:
    return {name: part[name] for name in names}


def _finite(value: float | None) -> float | None:
    """JSON knows neither NaN nor infinity, and discord.py's latency may be either."""
    return value if value is not None and math.isfinite(value) else None
