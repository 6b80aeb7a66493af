"""Rows of every kind as they travel, as many as wanted, the same for the same arguments."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from bot.core.readings import READINGS
from bot.storage.kinds import SAMPLE_READINGS
from bot.storage.sqlite_metrics import sample_id

END = datetime(2026, 11, 20, tzinfo=UTC)
"""Every time in a row is before this."""

Row = dict[str, object]
_QUANTA = {reading.column: reading.quantum for reading in READINGS if reading.column}


def text(at: datetime) -> str:
    return at.isoformat(" ", "microseconds")[:26]


class Rows:
    """`bot` is whose rows they are; `n` in each method is which one."""

    def __init__(self, bot: str = "primary", seed: int = 1) -> None:
        self.bot = bot
        self._seed = seed
        self.keys = sorted(f"kuma:{n}é" if n % 3 else f"Kuma:{n}" for n in range(7))
        self.roster = str(uuid5(NAMESPACE_URL, "\n".join(("kuma", *self.keys))))

    def _id(self) -> str:
        return str(UUID(int=self._chance.getrandbits(128), version=4))

    def many(self, kind: str, count: int) -> Iterator[Row]:
        make: Callable[[int], Row] = getattr(self, kind)
        self._chance = random.Random(f"{self.bot} {self._seed} {kind}")
        for n in range(count):
            yield {"bot_id": self.bot, **make(n)}

    def guild_configs(self, n: int) -> Row:
        at = text(END - timedelta(days=9, microseconds=n))
        return {
            "guild_id": str(10**17 + n),
            "alert_channel_id": str(2 * 10**17 + n),
            "locale": ("ja", "en", None)[n % 3],
            "created_at": at,
            "updated_at": at,
        }

    def monitors(self, n: int) -> Row:
        return {
            "key": self.keys[n],
            "name": f"監視 {n} \N{PARTY POPPER}",
            "type": "http",
            "url": None if n % 2 else "https://example.org/?q='%27",
            "hostname": None,
            "port": None,
            "tags": [] if n % 2 else ["a", "本番"],
            "status": "up",
            "changed_at": text(END - timedelta(hours=n + 1)),
            "last_seen_at": text(END - timedelta(minutes=1)),
            "forgotten": n == 3,
        }

    def rosters(self, n: int) -> Row:
        keys = self.keys[: n + 1] if n else self.keys
        name = str(uuid5(NAMESPACE_URL, "\n".join(("kuma", *keys))))
        return {"roster_id": name, "instance": "kuma", "keys": keys}

    def incidents(self, n: int) -> Row:
        at = END - timedelta(minutes=7 * (n + 3))
        is_over = n % 4 != 0
        return {
            "id": self._id(),
            "timestamp": text(at),
            "rule_name": "service_down",
            "severity": ("critical", "warning", "info")[n % 3],
            "category": "service",
            "message": f"「{n}」 is down: \\ \" ' %s\n{{}}",
            "metrics_snapshot": {"cpu_usage": 1.25, "x": None} if n % 2 else {},
            "resolved": is_over,
            "resolved_at": text(at + timedelta(minutes=2)) if is_over else None,
            "subject": self.keys[n % 7],
            "scope": "service",
            "metric": "status",
            "level": 0.1 * n,
            "value": None if n % 5 else -1e-7,
            "status": "down",
            "ending": "clear" if is_over else None,
            "unknown_s": 0.5,
            "silent": n % 6 == 0,
            "detail": {"name": "é", "n": n, "b": True},
            "version": 1 + is_over,
        }

    def states(self, n: int) -> Row:
        at = text(END - timedelta(seconds=n, microseconds=123))
        return {
            "rule_name": f"Rule{n % 9}",
            "subject": f"host {n}",
            "fingerprint": "f" * 16,
            "phase": "firing",
            "since_at": at,
            "evaluated_at": at,
            "severity": "warning",
            "incident_id": self._id(),
            "value": 91.5 + n,
            "status": "",
            "data_at": at,
            "clear_since_at": None,
            "unknown_s": 0.0,
            "detail": {},
            "hold_since_at": None,
            "terms": {"level": 90},
        }

    def flips(self, n: int) -> Row:
        at = END - timedelta(minutes=3 * n + 1, microseconds=7)
        return {
            "flip_id": self._id(),
            "incident_id": self._id(),
            "rule_name": "HighCPU",
            "subject": "host",
            "kind": "fired",
            "at": text(at),
            "fired_at": text(at),
            "severity": "warning",
            "category": "host",
            "scope": "host",
            "metric": "cpu_usage",
            "level": 80.0,
            "value": 93.25,
            "status": "",
            "ending": None,
            "duration_s": None,
            "unknown_s": 0.0,
            "silent": False,
            "detail": {"n": n},
        }

    def cards(self, n: int) -> Row:
        at = END - timedelta(hours=n + 1, microseconds=1)
        return {
            "card_id": self._id(),
            "marker": f"m{self.bot}{n}",
            "guild_id": str(10**17),
            "channel_id": str(2 * 10**17),
            "opened_at": text(at),
            "incident_ids": [self._id(), self._id()],
            "is_storm": n % 2 == 0,
            "message_id": str(3 * 10**17 + n),
            "attempted_at": text(at),
            "folded_at": None,
            "closed_at": text(at + timedelta(minutes=5)) if n % 2 else None,
        }

    def outbox(self, n: int) -> Row:
        at = text(END - timedelta(hours=1 + n % 50, microseconds=n))
        is_queued = n % 10 == 0
        return {
            "outbox_id": self._id(),
            "flip_id": self._id(),
            "incident_id": self._id(),
            "kind": "fired",
            "guild_id": str(10**17),
            "channel_id": str(2 * 10**17 + n),
            "created_at": at,
            "status": "queued" if is_queued else "delivered",
            "card_id": None,
            "attempted_at": None if is_queued else at,
            "attempts": 0 if is_queued else 1,
            "last_error": None,
            "delivered_at": None if is_queued else at,
            "reply_message_id": None,
        }

    def changes(self, n: int) -> Row:
        return {
            "id": self._id(),
            "service_id": self.keys[n % 7],
            "service_name": f"監視 {n % 7}",
            "status": ("up", "down", "unknown")[n % 3],
            "response_time": None if n % 3 else 12.3 + n,
            "error_message": None if n % 3 else "timeout of 48000ms exceeded",
            "checked_at": text(END - timedelta(minutes=2 * n, milliseconds=n % 1000)),
        }

    def samples(self, n: int) -> Row:
        at = END - timedelta(seconds=10 * (n + 1), milliseconds=n % 7)
        values: Row = {}
        for place, column in enumerate(SAMPLE_READINGS):
            quantum = _QUANTA.get(column, 0.01)
            scale = round(1 / quantum)
            is_known = (n + place) % 11 != 0
            quanta = self._chance.randrange(100 * scale)
            values[column] = (quanta / scale if scale > 1 else quanta) if is_known else None
        return {
            "id": str(sample_id(at, self.bot)),
            "timestamp": text(at),
            "status": ("online", "degraded", "offline")[n % 3],
            **values,
            "extra": [["disk_usage", {"mount": "/データ"}, 12.5 + n]] if n % 20 == 0 else None,
        }

    def metrics(self, n: int) -> Row:
        return {
            "id": self._id(),
            "metric_name": f"songs.{'aBé'[n % 3]}",
            "timestamp": text(END - timedelta(seconds=n * 3, milliseconds=n % 1000)),
            "metric_value": self._chance.choice([0.1, -1e300, 3.0, 1 / 3, 5e-324]) * (n % 97 + 1),
            "labels": {"guild": "é", "n": str(n % 5)} if n % 2 else {},
        }

    def metrics_raw(self, n: int) -> Row:
        return {
            "id": self._id(),
            "timestamp": text(END - timedelta(minutes=n + 1)),
            "metric_type": "queue",
            "data": {"depth": n, "list": [1, 2.5, None, "é"], "o": {"k": []}},
        }

    def metrics_hourly(self, n: int) -> Row:
        return {
            "metric_name": ("cpu_usage", "memory_usage")[n % 2],
            "hour": text(END - timedelta(hours=n // 2 + 1)),
            "avg_value": 1 / 3 + n,
            "min_value": 0.01,
            "max_value": 99.99,
            "count": 360,
        }

    def daily_summaries(self, n: int) -> Row:
        day = (END - timedelta(days=n + 1)).date().isoformat()
        return {"date": day, "summary_data": {self.bot: {"uptime": 0.999, "alerts": n, "x": None}}}

    def polls(self, n: int) -> Row:
        return {
            "instance": "kuma",
            "at": text(END - timedelta(seconds=60 * (n + 1))),
            "valid_s": 120.0,
            "roster_id": self.roster,
            "statuses": [(n + k) % 5 for k in range(7)],
            "times": [self._chance.randrange(-1, 90_000) for _ in range(7)],
        }

    def service_hours(self, n: int) -> Row:
        return {
            "instance": "kuma",
            "hour": text(END - timedelta(hours=n + 1)),
            "roster_id": self.roster,
            "checks": [60] * 7,
            "up_ms": [3_500_000 + n] * 7,
            "down_ms": [100_000 - n] * 7,
            "other_ms": [0] * 7,
            "answered": [59] * 7,
            "mean_tenths": [123 + k for k in range(7)],
        }

    def conversations(self, n: int) -> Row:
        return {
            "id": self._id(),
            "user_id": str(4 * 10**17 + n % 9),
            "user_name": f"ユーザー{n % 9}",
            "prompt": "なぜ?\n\t\\u0000" * 3,
            "response": "\U0001f600" * (n % 40),
            "timestamp": text(END - timedelta(seconds=30 * n, milliseconds=5)),
        }

    def music(self, n: int) -> Row:
        return {
            "id": self._id(),
            "guild_id": str(10**17),
            "song_title": f"曲 {n % 30}",
            "requested_by": "誰か",
            "requested_by_id": str(4 * 10**17 + n % 9),
            "timestamp": text(END - timedelta(seconds=200 * n, milliseconds=5)),
        }

    def bot_logs(self, n: int) -> Row:
        return {
            "id": self._id(),
            "level": "WARNING",
            "logger": "bot.services.ticker",
            "message": f"task {n} failed: …",
            "context": {"line": n} if n % 2 else {},
            "timestamp": text(END - timedelta(seconds=97 * n, milliseconds=6)),
        }


FEW = {
    "guild_configs": 5, "monitors": 7, "rosters": 6, "incidents": 40, "states": 30, "flips": 80,
    "cards": 20, "outbox": 60, "changes": 90, "samples": 700, "metrics": 150, "metrics_raw": 20,
    "metrics_hourly": 100, "daily_summaries": 8, "polls": 130, "service_hours": 30,
    "conversations": 60, "music": 50, "bot_logs": 40,
}  # fmt: skip
"""How many of each kind; more than a page of some, so that pages are turned."""

MANY = {
    **FEW, "incidents": 800, "states": 400, "flips": 1600, "cards": 500, "outbox": 1600,
    "changes": 2000, "samples": 28_000, "metrics": 5000, "metrics_hourly": 2000, "polls": 4500,
    "service_hours": 700, "conversations": 1500, "music": 1200, "bot_logs": 800,
}  # fmt: skip
"""Some fifty thousand."""
