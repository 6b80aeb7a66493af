"""Keeps log records of WARNING and worse in the store, for dashboards that read `bot_logs`.

Any thread may log: records wait in bounded memory until a beat hands them to the recorder.
A record said again and again is one row a minute with a count. What the store says of its own
troubles stays out: a store that fails must not be given the news that it fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from bot.core.kept_text import DETAIL_LIMIT, MESSAGE_LIMIT, kept
from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import LogLine, Store

logger = logging.getLogger(__name__)

WAITING_LIMIT: Final = 300
"""Different records in memory."""

REPEAT_S: Final = 60.0
"""How long a record is counted before it is kept again."""

AT_ONCE: Final = 200.0
PER_S: Final = 0.5
"""Rows: so many at once, so many a second after that (43,200 a day at the very worst)."""

CONTEXT_LIMIT: Final = 10
LEFT_OUT: Final = ("bot.storage", "bot.services.recorder", __name__, "aiosqlite")


@dataclass(slots=True)
class _Heard:
    """One record, and how often it came since it was last kept."""

    level: str
    logger: str
    message: str
    context: Mapping[str, object]
    at_s: float
    count: int = 1
    last_s: float = field(default=0.0)


class LogKeeper(logging.Handler):
    """Hang it on the root logger with `logs.attached`, whose filter has no secret pass.

    The filter leaves `record._told`: what is worth keeping beside the message. `dropped` counts
    records that found no room.
    """

    def __init__(
        self,
        recorder: Recorder,
        new_id: Callable[[], UUID],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.WARNING)
        self._recorder = recorder
        self._new_id = new_id
        self._monotonic = monotonic
        self._waiting: dict[tuple[str, str, str], _Heard] = {}
        self._kept_s: dict[tuple[str, str, str], float] = {}
        self._left = AT_ONCE
        self._looked_s = monotonic()
        self._is_said = False
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Remember; the handler's own lock is held. Raises nothing."""
        try:
            if not _is_wanted(record.name):
                return
            message = kept(record.getMessage(), MESSAGE_LIMIT)
            key = (record.levelname, record.name, message)
            known = self._waiting.get(key)
            if known is not None:
                known.count += 1
                known.last_s = record.created
            elif len(self._waiting) >= WAITING_LIMIT:
                self.dropped += 1
            else:
                self._waiting[key] = _Heard(*key, _bounded(record), record.created)
        except Exception:
            self.dropped += 1

    async def drain(self, *, is_last: bool = False) -> None:
        """Hand over what is due, in one fact; `is_last` takes everything. Called on a beat."""
        lines = self._due(is_last=is_last)
        if self.dropped and not self._is_said:
            self._is_said = True
            logger.warning("log records come too fast for the store; some are not kept there")
        if not lines:
            return

        async def write(store: Store) -> None:
            await store.save_log_lines(lines)

        await self._recorder.put(Fact(FactKind.SAMPLE, "log lines", write))

    def _due(self, *, is_last: bool) -> list[LogLine]:
        now_s = self._monotonic()
        self._left = min(AT_ONCE, self._left + (now_s - self._looked_s) * PER_S)
        self._looked_s = now_s
        lines = []
        assert self.lock is not None
        with self.lock:
            self._kept_s = {k: s for k, s in self._kept_s.items() if now_s - s < REPEAT_S}
            for key, heard in list(self._waiting.items()):
                if not is_last and (key in self._kept_s or self._left < 1):
                    continue
                self._left -= 1
                self._kept_s[key] = now_s
                del self._waiting[key]
                lines.append(self._line(heard))
        return lines

    def _line(self, heard: _Heard) -> LogLine:
        context = dict(heard.context)
        if heard.count > 1:
            context |= {"count": heard.count, "last_at": _time(heard.last_s).isoformat()}
        return LogLine(
            line_id=self._new_id(),
            level=heard.level,
            logger=heard.logger,
            message=heard.message,
            context=context,
            at=_time(heard.at_s),
        )


def _is_wanted(name: str) -> bool:
    return not any(name == one or name.startswith(f"{one}.") for one in LEFT_OUT)


def _bounded(record: logging.LogRecord) -> dict[str, object]:
    told: Mapping[str, object] = getattr(record, "_told", {})
    return {
        key: value if isinstance(value, bool | int | float) else kept(str(value), DETAIL_LIMIT)
        for key, value in list(told.items())[:CONTEXT_LIMIT]
        if value is not None
    }


def _time(seconds: float) -> datetime:
    at = datetime.fromtimestamp(seconds, UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
