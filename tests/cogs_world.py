"""A fabricated fleet and the parts around it, for the tests of the cogs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import discord
import pytz

from bot.cards import CardRenderer
from bot.client import CometBot, make_bot, run_bot
from bot.core.alert import Ending
from bot.core.incident import Incident
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    Sample,
)
from bot.core.rule import Severity
from bot.i18n import Translator
from bot.services.activity import Activity, Keeping
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.command_stats import CommandStats
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.host_probe import HostProbe
from bot.services.loop_lag import LoopLag
from bot.services.parts import Choices, Parts
from bot.services.recorder import Recorder
from bot.services.sampler import Sampler, SampleSources
from bot.services.ticker import Tasks
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Store
from cogs.embeds import Speech, Viewer
from cogs.notifier import ChannelNotifier
from tests.peers.discord import DiscordPeer
from tests.peers.discord.errors import FormErrors
from tests.peers.discord.limits import check_embeds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ZONE = pytz.timezone("Asia/Tokyo")
LONG = "長" * 200
ODD_NAMES = (
    "@everyone",
    "<@&123456789012345678>",
    "`code` **bold** __u__ ~~s~~ ||spoiler||",
    "line\nbreak\r\n\ttab",
    "[click](https://evil.example)",
    "絵文字 👨‍👩‍👧‍👦🟢🔴",
    "# heading",
    "",
    "   ",
    "\u200b\u200b",
    "\\" * 300,
    "*" * 300,
    "👍" * 300,
    LONG,
)


def speech(locale: Any = "ja") -> Speech:
    return Speech(Translator(), locale, ZONE)


def viewer(
    locale: Any = "ja", *, guild_id: str = "1", is_operator: bool = False, may_manage: bool = False
) -> Viewer:
    return Viewer(locale, guild_id, is_operator, may_manage)


def reading(
    key: str,
    name: str,
    status: MonitorStatus = MonitorStatus.UP,
    time_ms: float | None = 123.0,
    **more: Any,
) -> MonitorReading:
    about = {k: more.pop(k) for k in ("monitor_type", "url", "tags") if k in more}
    return MonitorReading(MonitorIdentity(key, name, **about), status, time_ms, **more)


def make_fleet(
    readings: Sequence[MonitorReading] = (),
    *,
    at: datetime = NOW - timedelta(seconds=12),
    instance: str = "kuma",
    version: str | None = "2.1.0",
) -> Fleet:
    """A fleet whose one Kuma answered at `at`."""
    fleet = Fleet(uuid4)
    fleet.add_source(instance, 60, at)
    fleet.apply(KumaReport(instance, tuple(readings), version), at)
    return fleet


def many(count: int, names: Iterable[str] = ()) -> list[MonitorReading]:
    """Every status in turn, odd names among them."""
    wanted = list(names)
    statuses = list(MonitorStatus)
    return [
        reading(
            f"kuma:{n}",
            wanted[n % len(wanted)] if wanted else f"サービス {n:04}",
            statuses[n % len(statuses)],
            None if statuses[n % len(statuses)] is MonitorStatus.UNKNOWN else float(n),
        )
        for n in range(count)
    ]


def incident(
    subject: str = "kuma:1",
    *,
    scope: str = "service",
    rule_name: str = "service_down",
    metric: str = "monitor_down",
    severity: Severity = Severity.CRITICAL,
    fired_at: datetime = NOW - timedelta(minutes=5),
    value: float | None = 1.0,
    level: float = 1.0,
    status: str = "down",
    detail: dict[str, Any] | None = None,
    resolved_at: datetime | None = None,
    incident_id: UUID | None = None,
) -> Incident:
    return Incident(
        incident_id=incident_id or uuid4(),
        rule_name=rule_name,
        subject=subject,
        severity=severity,
        category="service",
        scope=scope,
        metric=metric,
        level=level,
        fired_at=fired_at,
        value=value,
        status=status,
        resolved_at=resolved_at,
        ending=Ending.CLEARED if resolved_at else None,
        detail={"name": "Shop"} if detail is None else detail,
    )


def host_incident(**more: Any) -> Incident:
    given: dict[str, Any] = {
        "subject": "",
        "scope": "operator",
        "rule_name": "HighCPU",
        "metric": "cpu_usage",
        "severity": Severity.WARNING,
        "value": 93.14,
        "level": 80.0,
        "status": "",
        "detail": {},
    }
    return incident(**{**given, **more})


def sample(at: datetime = NOW - timedelta(seconds=4), **values: float | None) -> Sample:
    return Sample(at, "primary", values)


def assert_fits(embed: discord.Embed) -> None:
    """Discord's limits, counted as strictly as its users have ever seen them counted."""
    shown = embed.to_dict()
    faults = FormErrors()
    check_embeds(faults, [shown])
    faults.raise_if_any()
    texts = [
        shown.get("title") or "",
        shown.get("description") or "",
        (shown.get("footer") or {}).get("text") or "",
    ]
    for item in shown.get("fields", []):
        texts += [item["name"], item["value"]]
    total = sum(len(text.encode("utf-16-le")) // 2 for text in texts)
    assert total <= 6000, total


def text_of(embed: discord.Embed) -> str:
    """Everything a person reads."""
    lines = [embed.title or "", embed.description or ""]
    for item in embed.fields:
        lines += [item.name or "", item.value or ""]
    return "\n".join([*lines, embed.footer.text or ""])


def field_of(embed: discord.Embed, name: str) -> str:
    found = [item.value or "" for item in embed.fields if item.name == name]
    assert len(found) == 1, (name, [item.name for item in embed.fields])
    return found[0]


class House:
    """Real parts on a real SQLite file, and a real bot for a Discord peer."""

    def __init__(self, path: Path, *, operators: Iterable[str] = (), fleet: Fleet | None = None):
        self.now = NOW
        self.store: Store = SqliteStore(path)
        clock = self._clock
        translator = Translator()
        renderer = CardRenderer(translator, ZONE)
        self.fleet = make_fleet() if fleet is None else fleet
        self.recorder = Recorder(self.store)
        self.audience = Audience(operators, has_only_webhook=False)
        self.delivery = Delivery(self.recorder, self.audience, renderer, clock, uuid4)
        self.alerting = Alerting(
            self.recorder, self.audience, self.delivery, renderer.describe, clock, uuid4
        )
        self.tasks = Tasks()
        self.commands = CommandStats()
        self.activity = Activity(self.recorder, Keeping(), clock, uuid4)
        sources = SampleSources(
            host=HostProbe(path.parent),
            lag=LoopLag(),
            commands=self.commands,
            fleet=self.fleet,
            recorder=self.recorder,
            delivery=self.delivery,
            tasks=self.tasks,
        )
        self.sampler = Sampler("primary", 10, sources, self.alerting.observe, clock)
        self.parts = Parts(
            choices=Choices(
                bot_id="primary",
                default_locale="ja",
                timezone=ZONE,
                sample_interval_s=10,
                check_interval_s=60,
                kuma_urls=("https://kuma.example/",),
                has_discord=True,
            ),
            translator=translator,
            store=self.store,
            recorder=self.recorder,
            fleet=self.fleet,
            audience=self.audience,
            delivery=self.delivery,
            alerting=self.alerting,
            sampler=self.sampler,
            tasks=self.tasks,
            commands=self.commands,
            started_at=NOW,
            now=clock,
            new_id=uuid4,
            activity=self.activity,
        )
        self.bot: CometBot | None = None
        self._talk: asyncio.Task[None] | None = None

    def _clock(self) -> datetime:
        return self.now

    async def start_bot(self, peer: DiscordPeer) -> None:
        """Connect, load the cogs, register the commands."""
        self.bot = make_bot(
            self.parts, api_base_url=peer.api_url, gateway_url=peer.gateway_url, sync_guild_ids=()
        )
        # Nobody here joins late: no need to wait for more guilds.
        self.bot._connection.guild_ready_timeout = 0.05
        self.delivery.use(ChannelNotifier(self.bot), is_webhook=False)
        self._talk = asyncio.create_task(run_bot(self.bot, peer.token))
        await peer.wait_for(lambda: self._is_ready() and peer.commands.all(None), 10)

    def _is_ready(self) -> bool:
        assert self.bot is not None and self._talk is not None
        if self._talk.done():
            self._talk.result()
        return self.bot.is_ready()

    async def stop_bot(self) -> None:
        if self.bot is not None and self._talk is not None:
            await self.bot.close()
            self._talk.cancel()
            await asyncio.gather(self._talk, return_exceptions=True)
            self.bot = self._talk = None

    async def restart_bot(self, peer: DiscordPeer) -> None:
        await self.stop_bot()
        await self.start_bot(peer)

    async def close(self) -> None:
        await self.delivery.stop(1.0)
        await self.stop_bot()
        await self.store.close()
