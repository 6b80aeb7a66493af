"""The second route: what a channel has not taken for a minute goes to the webhook too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

from bot.core.alert import FlipKind
from bot.core.incident import Incident, OutboxItem
from bot.core.message import DeliveryError
from bot.services.audience import WEBHOOK_CHANNEL, Destination
from bot.services.notifier import Notifier, Renderer, bounded

logger = logging.getLogger(__name__)

DELAY_S = 60.0


class Fallback:
    """Tells by webhook at least once: a crash right after telling may tell again."""

    def __init__(self, renderer: Renderer, now: Callable[[], datetime]) -> None:
        self._renderer = renderer
        self._now = now
        self._done: set[UUID] = set()
        self.told = 0

    async def tell(
        self,
        notifiers: Mapping[bool, Notifier],
        queued: Mapping[UUID, OutboxItem],
        incidents: Mapping[UUID, Incident],
    ) -> None:
        """`notifiers` by whether they are the webhook; without a bot it is no second route."""
        webhook = notifiers.get(True)
        if webhook is None or False not in notifiers:
            return
        now = self._now()
        self._done &= {item.flip_id for item in queued.values()}
        late = [
            item
            for item in queued.values()
            if item.guild_id is not None
            and item.flip_id not in self._done
            and item.kind in (FlipKind.FIRED, FlipKind.RESOLVED)
            and abs((now - item.created_at).total_seconds()) >= DELAY_S
        ]
        told = {i.incident_id: i for item in late if (i := incidents.get(item.incident_id))}
        if not told:
            return
        message = self._renderer.fallback(list(told.values()), None, now)
        try:
            await bounded(webhook.post(Destination(None, WEBHOOK_CHANNEL), message))
        except DeliveryError as error:
            logger.warning("the fallback webhook fails too: %s", error)
            return
        self._done.update(item.flip_id for item in late)
        self.told += len(told)
