"""The running parts that commands and pages may ask. Built in one place: `bot/app.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from uuid import UUID

from bot.core.copying import Copying
from bot.core.forecast import Growth
from bot.i18n import Translator
from bot.services.activity import Activity
from bot.services.alerting import Alerting
from bot.services.audience import Audience
from bot.services.backups import Backups
from bot.services.command_stats import CommandStats
from bot.services.delivery import Delivery
from bot.services.fleet import Fleet
from bot.services.kuma_inbox import KumaInbox
from bot.services.recorder import Recorder
from bot.services.sampler import Sampler
from bot.services.ticker import Tasks
from bot.storage.store import Store


@dataclass(frozen=True, slots=True)
class Choices:
    """What the settings say that people are shown. No secret, no address with a password."""

    bot_id: str
    default_locale: str
    timezone: tzinfo
    sample_interval_s: float
    check_interval_s: float
    kuma_urls: tuple[str, ...]
    has_discord: bool


@dataclass(slots=True)
class Parts:
    """Reads go to `store`; writes go through `recorder`.

    `copying` gives None where no remote store is set up. `remote` is that store, open, and for
    reading only. `backups` is None without scheduled ones. `webhooks` has a
    ledger for each Kuma that may send some.
    """

    choices: Choices
    translator: Translator
    store: Store
    recorder: Recorder
    fleet: Fleet
    audience: Audience
    delivery: Delivery
    alerting: Alerting
    sampler: Sampler
    tasks: Tasks
    commands: CommandStats
    started_at: datetime
    now: Callable[[], datetime]
    new_id: Callable[[], UUID]
    copying: Callable[[], Copying | None] = field(default=lambda: None)
    activity: Activity | None = None
    remote: Store | None = None
    backups: Backups | None = None
    webhooks: KumaInbox | None = None
    growth: Callable[[], Growth] = field(default=Growth)
