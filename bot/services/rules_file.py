"""Built-in rules with the operator's file laid over them; read again when the file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

from bot.core.readings import READINGS
from bot.core.rule import Rule, RuleSet
from bot.core.rule_text import RuleError, load_rules

logger = logging.getLogger(__name__)

CHECK_PERIOD_S = 5.0
BUILT_IN_FILE = Path(__file__).resolve().parent.parent / "rules.toml"

KNOWN_METRICS: Collection[str] = (
    *(spec.name for spec in READINGS),
    "task_lateness",
    "store_set_aside",
    "monitor_down",
    "monitor_missing",
    "monitor_slowness",
    "monitor_cert_days_remaining",
)


class RulesFile:
    """`load` at start, `check` on a beat. A bad file keeps the old rules and says why, once."""

    def __init__(self, path: Path, use: Callable[[Iterable[Rule]], Awaitable[None]]) -> None:
        self._path = path
        self._use = use
        self._stamp: tuple[int, int] | None = None
        self.problem: str | None = None

    async def load(self) -> RuleSet:
        """The rules to start with: built-in ones alone if the file is bad."""
        self._stamp = self._read_stamp()
        try:
            rules = await asyncio.to_thread(self._read)
        except (RuleError, OSError, UnicodeDecodeError) as error:
            self._refuse(error)
            return load_rules(BUILT_IN_FILE.read_text("utf-8"), None)
        return rules

    async def check(self) -> None:
        """Take over a changed file."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            rules = await asyncio.to_thread(self._read)
        except (RuleError, OSError, UnicodeDecodeError) as error:
            self._refuse(error)
            return
        self.problem = None
        await self._use(rules.rules)
        logger.info("rules taken over from %s", self._path)

    def _read(self) -> RuleSet:
        overlay = self._path.read_text("utf-8") if self._path.exists() else None
        return load_rules(
            BUILT_IN_FILE.read_text("utf-8"),
            overlay,
            str(self._path),
            known_metrics=KNOWN_METRICS,
        )

    def _refuse(self, error: Exception) -> None:
        self.problem = str(error)
        logger.error("%s is refused, the rules in force stay: %s", self._path, error)

    def _read_stamp(self) -> tuple[int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size)
