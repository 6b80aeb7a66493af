"""Who is told: the channel each guild chose, and which guilds are the operators'."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bot.core.incident import GuildConfig
from bot.core.rule import Scope

WEBHOOK_CHANNEL = "webhook"


@dataclass(frozen=True, slots=True)
class Destination:
    """One channel of one guild; `guild_id` None is the fallback webhook."""

    guild_id: str | None
    channel_id: str


class Audience:
    """Guild choices in memory, and the rule that host alerts go to operators only."""

    def __init__(self, operator_guild_ids: Iterable[str], *, has_only_webhook: bool) -> None:
        self._named_operators = frozenset(operator_guild_ids)
        self._has_only_webhook = has_only_webhook
        self.configs: dict[str, GuildConfig] = {}
        self.joined_guild_ids: frozenset[str] | None = None

    @property
    def operator_guild_ids(self) -> frozenset[str]:
        """Named ones; else the one guild the bot is in; else none, until that is known."""
        if self._named_operators:
            return self._named_operators
        joined = self.joined_guild_ids
        return joined if joined is not None and len(joined) == 1 else frozenset()

    def is_operator(self, guild_id: str) -> bool:
        return guild_id in self.operator_guild_ids

    def destinations(self, scope: str) -> list[Destination]:
        if self._has_only_webhook:
            return [Destination(None, WEBHOOK_CHANNEL)]
        operators = self.operator_guild_ids
        return [
            Destination(guild_id, config.alert_channel_id)
            for guild_id, config in self.configs.items()
            if scope == Scope.SERVICE.value or guild_id in operators
        ]

    def locale_of(self, guild_id: str | None) -> str | None:
        config = self.configs.get(guild_id) if guild_id is not None else None
        return None if config is None else config.locale
