"""Families about Kuma's webhooks; nothing where no webhook is set up."""

from __future__ import annotations

from collections.abc import Callable

from bot.web.monitor_text import KUMA
from bot.web.rows import Look, Row, Values


def _counts(field: str) -> Callable[[Look], Values]:
    def read(look: Look) -> Values:
        inbox = look.parts.webhooks
        for name, ledger in () if inbox is None else inbox.ledgers.items():
            yield (name,), getattr(ledger, field)

    return read


def _ages(look: Look) -> Values:
    inbox = look.parts.webhooks
    for name, ledger in () if inbox is None else inbox.ledgers.items():
        if ledger.last_at is not None:
            yield (name,), max(0.0, (look.now - ledger.last_at).total_seconds())


WEBHOOK_ROWS: tuple[Row, ...] = (
    Row(
        "comet_kuma_webhook_age_seconds",
        "since this Kuma's newest webhook; absent before the first",
        (KUMA,),
        _ages,
    ),
    *(
        Row(f"comet_kuma_webhooks_{field}_total", about, (KUMA,), _counts(field))
        for field, about in (
            ("received", "webhooks taken in"),
            ("refused", "webhooks refused because too many came at once"),
            ("repeated", "webhooks that told nothing new"),
            ("unmatched", "webhooks about a monitor nobody knows"),
            ("notices", "webhooks about no monitor: tests, expiring certificates"),
            ("strange", "webhooks that said nothing we know"),
        )
    ),
)
