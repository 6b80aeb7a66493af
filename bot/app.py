"""The one place that builds, starts and stops the parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Awaitable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import aiohttp
import pytz

from bot import __version__
from bot.cards import CardRenderer
from bot.core.alert import Observation
from bot.i18n import Translator
from bot.memory import Memory
from bot.redaction import Redactor
from bot.services.activity import Activity, Keeping
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.clock import Clock
from bot.services.command_stats import CommandStats
from bot.services.delivery import Delivery
from bot.services.fleet import MONITOR_METRICS, Fleet
from bot.services.host_probe import HostProbe
from bot.services.janitor import PERIOD_S as JANITOR_PERIOD_S
from bot.services.kuma_client import KumaClient
from bot.services.kuma_inbox import KumaInbox
from bot.services.kuma_poller import KumaPoller
from bot.services.loop_lag import LoopLag
from bot.services.parts import Choices, Parts
from bot.services.recorder import Fact, FactKind
from bot.services.rules_file import CHECK_PERIOD_S, RulesFile
from bot.services.sampler import TASK_NAME, Sampler, SampleSources
from bot.services.ticker import Tasks
from bot.settings import Settings
from bot.storage.salvage import salvage_configs
from bot.storage.store import Receipt, ServiceStats, Store, StoreError
from bot.web.server import WebCannotListen, WebServer
from bot.web.webhook import KumaWebhook
from bot.webhook import WebhookNotifier

if TYPE_CHECKING:
    from bot.client import CometBot

logger = logging.getLogger(__name__)

EXIT_FINE = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2

WEB_RETRY_S = 30.0
DISCORD_RETRY_S = 30.0
UPKEEP_S = 2.0

SWITCH_INTERVAL_S = 0.001
DELIVERY_GRACE_S = 2.5


class App:
    """Everything between `start` and `stop`. Settings end here: parts receive values."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._translator = Translator(settings.comet_locale)
        self._clock = Clock()
        self.memory = Memory(settings, self._translator, self._clock.now, self._rescue)
        self._store = self.memory.store
        self.recorder = self.memory.recorder
        self._exit = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._is_refused = False
        self._is_web_problem_said = False
        self._bot: CometBot | None = None
        self._web: WebServer | None = None
        self._pollers: list[KumaPoller] = []
        self._build()
        self._sources.host.prime()

    # -- building -----------------------------------------------------------------------

    def _build(self) -> None:
        settings, now = self._settings, self._clock.now
        has_token = settings.discord_token is not None
        zone = pytz.timezone(settings.comet_timezone)
        self.fleet = Fleet(uuid4)
        self._clock.on_step.append(self.fleet.shift)
        self.audience = Audience(
            map(str, settings.operator_guild_ids),
            has_only_webhook=not has_token and settings.discord_fallback_webhook_url is not None,
        )
        renderer = CardRenderer(self._translator, zone)
        self.delivery = Delivery(self.recorder, self.audience, renderer, now, uuid4)
        self.alerting = Alerting(
            self.recorder,
            self.audience,
            self.delivery,
            renderer.describe,
            now,
            uuid4,
            stats_24h=self._stats_24h,
        )
        self.inbox = KumaInbox(self.fleet, self.recorder, self.alerting.observe, now)
        self.tasks = Tasks()
        self.lag = LoopLag()
        self.commands = CommandStats()
        self._sources = SampleSources(
            host=HostProbe(settings.sqlite_db_path.absolute().parent),
            lag=self.lag,
            commands=self.commands,
            fleet=self.fleet,
            recorder=self.recorder,
            delivery=self.delivery,
            tasks=self.tasks,
            copying=self.memory.copying,
            set_aside=self.memory.file.recently_set_aside,
        )
        self.sampler = Sampler(
            settings.bot_id, settings.sample_interval_s, self._sources, self._observe, now
        )
        self.rules_file = RulesFile(settings.alert_rules_file, self.alerting.set_rules)
        self.janitor = self.memory.make_janitor(self.fleet, self.alerting, zone)
        self._activity = Activity(self.recorder, self._kept(), now, uuid4)
        self.parts = Parts(
            choices=Choices(
                bot_id=settings.bot_id,
                default_locale=settings.comet_locale,
                timezone=zone,
                sample_interval_s=settings.sample_interval_s,
                check_interval_s=min(
                    (k.check_interval_s for k in settings.kuma_instances), default=60
                ),
                kuma_urls=tuple(k.url for k in settings.kuma_instances),
                has_discord=has_token,
            ),
            translator=self._translator,
            store=self._store,
            recorder=self.recorder,
            fleet=self.fleet,
            audience=self.audience,
            delivery=self.delivery,
            alerting=self.alerting,
            sampler=self.sampler,
            tasks=self.tasks,
            commands=self.commands,
            started_at=now(),
            now=now,
            new_id=uuid4,
            copying=self.memory.copying,
            activity=self._activity,
            remote=self.memory.remote,
            backups=self.memory.backups,
            webhooks=self.inbox,
            growth=self.janitor.growth,
        )

    def _kept(self) -> Keeping:
        settings = self._settings
        return Keeping(
            settings.conversation_log_mode,
            settings.music_log_mode,
            settings.conversation_retention_days,
            settings.music_retention_days,
        )

    async def _observe(self, observation: Observation, max_gap_s: float) -> None:
        await self.alerting.observe(observation, max_gap_s)

    async def _stats_24h(self, service_id: str) -> ServiceStats:
        now = self._clock.now()
        return await self._store.service_stats(now - timedelta(hours=24), now, service_id)

    # -- starting -----------------------------------------------------------------------

    async def start(self) -> None:
        """1. store, 2. what was known, 3. the first snapshot, 4. Discord, web and all beats.

        Raises StoreError when the store cannot be used at all.
        """
        await self.memory.open()
        session = await self._exit.enter_async_context(aiohttp.ClientSession())
        self._build_pollers(session)
        await self._load()
        await self._start_sampler()
        url = self._settings.discord_fallback_webhook_url
        if url is not None:
            self.delivery.use(WebhookNotifier(session, url.reveal()), is_webhook=True)
        if self._settings.discord_token is not None:
            self._build_bot()
        await self._start_web()
        self._start_beats()
        self.delivery.wake()
        # What has been built stays: spare every full collection the walk through it.
        gc.collect()
        gc.freeze()
        # The store's threads must not keep the loop waiting for the interpreter lock.
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def _build_pollers(self, session: aiohttp.ClientSession) -> None:
        for kuma in self._settings.kuma_instances:
            api_key = None if kuma.api_key is None else kuma.api_key.reveal()
            client = KumaClient(
                session,
                kuma.login_url.reveal(),
                kuma.key,
                api_key=api_key,
                # The page tells less: it is for those who have no key.
                status_page=kuma.status_page if api_key is None else None,
            )
            self._pollers.append(
                KumaPoller(
                    kuma.key,
                    kuma.check_interval_s,
                    client,
                    self.fleet,
                    self.recorder,
                    self._observe,
                    self._clock.now,
                )
            )

    async def _load(self) -> None:
        """Take up configuration, monitors and alerts where the last process stopped."""
        now = self._clock.now()
        for config in await self._store.guild_configs():
            self.audience.configs[config.guild_id] = config
        known = await self._store.load_monitors()
        self.fleet.restore(m for m in known if _instance(m.identity.key) in self.fleet.sources)
        seeds = await self._store.response_times(now - timedelta(hours=24), now, every=10)
        self.fleet.restore_baselines(seeds, now)
        await self.alerting.load(await self._store.load_alerting(), await self.rules_file.load())
        await self._retire_strangers()

    async def _retire_strangers(self) -> None:
        """Alerts about a Kuma that is no longer configured have nobody left to end them."""
        for rule_name, subject in list(self.alerting.states):
            rule = next((r for r in self.alerting.rules if r.name == rule_name), None)
            if rule is None:
                continue
            of_monitor = rule.metric in MONITOR_METRICS
            of_source = rule.metric == "kuma_staleness"
            if (of_monitor or of_source) and _instance(subject) not in self.fleet.sources:
                await self.alerting.retire(subject)

    def _build_bot(self) -> None:
        # Imported here so that a process without a token does without discord.py's memory.
        from bot.client import make_bot
        from cogs.notifier import ChannelNotifier

        settings = self._settings
        self._bot = make_bot(
            self.parts,
            api_base_url=settings.discord_api_base_url,
            gateway_url=settings.discord_gateway_url,
            sync_guild_ids=settings.discord_guild_ids,
        )
        self._sources.discord = self._bot
        self.delivery.use(ChannelNotifier(self._bot), is_webhook=False)

    async def _start_web(self) -> None:
        settings = self._settings
        web = self._web = WebServer(
            self.parts,
            settings.web_host,
            settings.web_port,
            None if settings.web_token is None else settings.web_token.reveal(),
            self._bot,
            version=__version__,
            redact=Redactor(settings.secrets()).redact,
        )
        web.add(*KumaWebhook(self.inbox, settings.webhook_tokens(), web.failures).routes())
        self._sources.auth_failures_1m = web.auth_failures_1m
        await self._try_web(web)
        if not web.is_running:
            self.tasks.start("web", WEB_RETRY_S, partial(self._try_web, web))

    async def _try_web(self, web: WebServer) -> None:
        """A taken port must not keep the bot from watching: say so, try again."""
        if web.is_running:
            return
        try:
            await web.start()
        except WebCannotListen as error:
            if not self._is_web_problem_said:
                logger.error("%s", self._t("app.web_port_taken", address=str(error)))
                self._is_web_problem_said = True
        else:
            logger.info("%s", self._t("app.web", url=web.url))

    async def _start_sampler(self) -> None:
        """The first snapshot is on disk before anything that takes time to load."""
        self.lag.start()
        await self.sampler.tick()
        interval_s = self._settings.sample_interval_s
        self.tasks.start(TASK_NAME, interval_s, self.sampler.tick, is_first_done=True)

    async def _upkeep(self) -> None:
        """What waits, in memory for the store and in the store for Discord, is tried again."""
        self._activity.beat()
        await self.recorder.drain()
        await self.delivery.beat()

    def _start_beats(self) -> None:
        tasks = self.tasks
        tasks.start("upkeep", UPKEEP_S, self._upkeep)
        for poller in self._pollers:
            tasks.start(f"kuma:{poller.instance}", poller.tick_s, poller.tick)
        tasks.start("rules", CHECK_PERIOD_S, self.rules_file.check)
        self.memory.start_beats(tasks, self.alerting)
        tasks.start("janitor", JANITOR_PERIOD_S, self.janitor.tick)

    async def _rescue(self, aside: Path) -> list[Fact]:
        """What is still known after the file broke: from memory, or else from the damaged file."""
        configs = list(self.audience.configs.values())
        decision = self.alerting.facts()
        receipt = Receipt(cards=tuple(self.delivery.cards.values()))

        async def write(store: Store) -> None:
            for config in configs or await salvage_configs(aside):
                await store.save_guild_config(config)
            await store.record_decision(decision)
            await store.record_receipt(receipt)

        return [Fact(FactKind.KEEP, "what was known before the file broke", write)]

    # -- running ------------------------------------------------------------------------

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until Discord refuses the token."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stopping.set)
        starting = asyncio.create_task(self.start(), name="start")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        talk: asyncio.Task[None] | None = None
        try:
            # A start can wait a minute for a locked file; a signal must not.
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._say_what_runs()
                talk = asyncio.create_task(self._talk_to_discord(), name="discord")
                await stopping
        except StoreError as error:
            path = self._settings.sqlite_db_path
            said = self._t(f"store.{error.reason}", path=path, detail=error.detail)
            logger.critical("%s", said)
            return EXIT_FAILED
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            logger.info("%s", self._t("app.stopping"))
            await self.stop(talk)
        logger.info("%s", self._t("app.stopped"))
        return EXIT_REFUSED if self._is_refused else EXIT_FINE

    async def _talk_to_discord(self) -> None:
        """A token that never worked ends the process; one that stops working ends Discord only."""
        token = self._settings.discord_token
        if self._bot is None or token is None:
            return
        from bot.client import TokenRefused, run_bot

        while True:
            try:
                await run_bot(self._bot, token.reveal())
            except TokenRefused:
                logger.critical("%s", self._t("app.token_refused"))
                if self.audience.joined_guild_ids is None:
                    self._is_refused = True
                    self._stopping.set()
                return
            except Exception:
                logger.exception("the Discord side ended unexpectedly; it is started again")
                await asyncio.sleep(DISCORD_RETRY_S)
            else:
                return

    def _say_what_runs(self) -> None:
        """In plain words: what this process does now, and what to set next."""
        settings = self._settings
        path, interval_s = settings.sqlite_db_path, settings.sample_interval_s
        lines = [self._t("app.samples", interval_s=interval_s, path=path)]
        remote = self.memory.remote
        if remote is not None:
            backend = self._t(f"backend.{settings.monitoring_db}")
            lines.append(self._t("app.copies", backend=backend, name=remote.name))
        if settings.discord_token is None:
            webhook = settings.discord_fallback_webhook_url is not None
            lines.append(self._t("app.no_discord_webhook" if webhook else "app.no_discord"))
        if not self._pollers:
            lines.append(self._t("app.no_kuma"))
        for kuma in settings.kuma_instances:
            lines.append(
                self._t("app.kuma", name=kuma.key, url=kuma.url, interval_s=kuma.check_interval_s)
            )
        for line in lines:
            logger.info("%s", line)

    async def stop(self, talk: asyncio.Task[None] | None = None) -> None:
        """Graceful, under five seconds: what is being sent finishes, what waits stays stored."""
        self.lag.stop()
        closing = [self.tasks.stop()]
        if self._web is not None:
            closing.append(self._web.stop())
        await asyncio.gather(self.delivery.stop(DELIVERY_GRACE_S), *closing)
        if self._bot is not None:
            await _within(1.0, self._bot.close())
        if talk is not None:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
        await _within(0.7, self._put_away())
        await self._exit.aclose()
        await _within(0.7, self.memory.close())

    async def _put_away(self) -> None:
        await self.inbox.stop()
        await self.alerting.flush()
        await self.memory.put_away()

    def _t(self, key: str, **params: object) -> str:
        return self._translator.t(key, None, **params)


async def _within(seconds: float, ending: Awaitable[None]) -> None:
    """Whatever ends badly or late must not keep the rest from ending well."""
    try:
        async with asyncio.timeout(seconds):
            await ending
    except Exception as error:
        logger.warning("while stopping: %s", str(error) or type(error).__name__)


def _instance(key: str) -> str:
    return key.partition(":")[0]


async def run(settings: Settings) -> int:
    """Run the product until it is told to stop; the process's exit code."""
    return await App(settings).run()
