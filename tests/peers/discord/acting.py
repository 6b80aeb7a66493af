"""What people do in Discord: type commands, press buttons, choose, fill in forms.

A person's client refuses much before Discord hears of it (unknown commands, options that do
not fit, disabled buttons, others' ephemeral messages); so does this, with exceptions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from . import commands, interactions
from .commands import CommandStore
from .components import SELECTS, STRING_SELECT
from .interactions import (
    AUTOCOMPLETE,
    COMMAND,
    COMPONENT,
    MODAL_SUBMIT,
    InteractionResult,
    Interactions,
)
from .world import Channel, Guild, StoredMessage, User, World

Target = StoredMessage | InteractionResult


class NoAnswer(AssertionError):
    """The bot gave no answer Discord could show."""


class Acting:
    """The people's half of `DiscordPeer`."""

    world: World
    commands: CommandStore
    interactions: Interactions

    async def wait_until(self, predicate: Callable[[], Any], timeout_s: float) -> Any:
        """The peer's; see there."""
        raise NotImplementedError

    async def command(
        self,
        guild: Guild | None,
        channel: Channel,
        user: User,
        name: str,
        options: dict[str, Any] | None = None,
        *,
        locale: str | None = None,
        guild_locale: str | None = None,
        force: bool = False,
        finish_s: float = 10.0,
    ) -> InteractionResult:
        """Type a slash command such as "alerts rules add".

        Returns after the first response, or if that was a deferral after it was filled in, at
        most `finish_s` later (0 returns at once; `result.pending` tells). Raises NotRegistered,
        BadOptions, or PermissionError where the person would not be offered the command.
        """
        invocation = commands.invoke(
            self.commands, self.world, guild, user, name, dict(options or {})
        )
        if not force:
            commands.refuse_forbidden(invocation.command, guild, user)
        result = await self.interactions.invoke(
            invocation,
            COMMAND,
            guild=guild,
            channel=channel,
            user=user,
            locale=locale,
            guild_locale=guild_locale,
        )
        return await self._filled_in(result, finish_s)

    async def context_menu(
        self,
        guild: Guild | None,
        channel: Channel,
        user: User,
        name: str,
        target: User | StoredMessage,
        *,
        locale: str | None = None,
        force: bool = False,
        finish_s: float = 10.0,
    ) -> InteractionResult:
        """Choose a context menu command on a user or message."""
        invocation = commands.invoke_menu(self.commands, self.world, guild, name, target)
        if not force:
            commands.refuse_forbidden(invocation.command, guild, user)
        result = await self.interactions.invoke(
            invocation,
            COMMAND,
            guild=guild,
            channel=channel,
            user=user,
            locale=locale,
            guild_locale=None,
        )
        return await self._filled_in(result, finish_s)

    async def autocomplete(
        self,
        guild: Guild | None,
        channel: Channel,
        user: User,
        name: str,
        option: str,
        typed: str = "",
        others: dict[str, Any] | None = None,
        *,
        locale: str | None = None,
        guild_locale: str | None = None,
    ) -> list[dict[str, Any]]:
        """The choices offered while typing; NoAnswer if none came in time or they were refused."""
        kind = commands.focused_option(self.commands, guild, name, option)
        given = {**(others or {}), option: typed}
        invocation = commands.invoke(
            self.commands, self.world, guild, user, name, given, focused=option
        )
        result = await self.interactions.invoke(
            invocation,
            AUTOCOMPLETE,
            guild=guild,
            channel=channel,
            user=user,
            locale=locale,
            guild_locale=guild_locale,
            focused_type=kind,
        )
        if result.choices is None:
            raise NoAnswer(f"no choices for /{name} {option}={typed!r}: {result.refusals}")
        return result.choices

    async def press(
        self,
        target: Target,
        wanted: str,
        user: User,
        *,
        locale: str | None = None,
        force: bool = False,
        finish_s: float = 10.0,
    ) -> InteractionResult:
        """Press the button with this custom_id or label. `force` presses others' ephemerals."""
        message = self._shown(target, user, force=force)
        item = interactions.find_component(message, wanted, (2,))
        data = interactions.component_data(item)
        return await self._component(message, user, data, wanted, locale, finish_s)

    async def select(
        self,
        target: Target,
        wanted: str,
        values: str | Iterable[Any],
        user: User,
        *,
        locale: str | None = None,
        force: bool = False,
        finish_s: float = 10.0,
    ) -> InteractionResult:
        """Choose values (or labels of a string select; objects for user, role, channel selects)."""
        message = self._shown(target, user, force=force)
        item = interactions.find_component(message, wanted, SELECTS)
        chosen = [values] if isinstance(values, str) else list(values)
        if not item.get("min_values", 1) <= len(chosen) <= item.get("max_values", 1):
            raise ValueError(f"{wanted!r} does not take {len(chosen)} values")
        if item["type"] == STRING_SELECT:
            data = interactions.component_data(item, _option_values(item, chosen))
        else:
            resolver = commands.Resolver(self.world, message.channel.guild)
            ids = [resolver.any(item["type"], value, user.id) for value in chosen]
            data = interactions.component_data(item, ids)
            data["resolved"] = resolver.resolved
        return await self._component(message, user, data, wanted, locale, finish_s)

    async def submit_modal(
        self,
        result: InteractionResult,
        values: dict[str, Any],
        *,
        locale: str | None = None,
        finish_s: float = 10.0,
    ) -> InteractionResult:
        """Fill in and send the form that `result` opened."""
        if result.modal is None:
            raise ValueError(f"{result.name} opened no form")
        data = interactions.modal_data(result.modal, values)
        sent = await self.interactions.send(
            MODAL_SUBMIT,
            data,
            guild=result.guild,
            channel=result.channel,
            user=result.user,
            name=f"form {data['custom_id']}",
            locale=locale,
            message=result.source,
        )
        return await self._filled_in(sent, finish_s)

    async def _component(
        self,
        message: StoredMessage,
        user: User,
        data: dict[str, Any],
        name: str,
        locale: str | None,
        finish_s: float,
    ) -> InteractionResult:
        result = await self.interactions.send(
            COMPONENT,
            data,
            guild=message.channel.guild,
            channel=message.channel,
            user=user,
            name=f"component {name}",
            locale=locale,
            message=message,
        )
        return await self._filled_in(result, finish_s)

    async def _filled_in(
        self,
        result: InteractionResult,
        finish_s: float,
    ) -> InteractionResult:
        if result.pending and finish_s > 0:
            with contextlib.suppress(TimeoutError):
                await self.wait_until(lambda: not result.pending, finish_s)
        return result

    def _shown(self, target: Target, user: User, *, force: bool) -> StoredMessage:
        message = target.message if isinstance(target, InteractionResult) else target
        if message is None:
            raise ValueError(f"{target} has no message to press anything on")
        if message.deleted:
            raise ValueError("that message is deleted")
        if message.ephemeral and message.interaction_user is not user and not force:
            raise PermissionError("only the person it was for can see that message")
        return message


def _option_values(item: dict[str, Any], chosen: list[Any]) -> list[str]:
    found = []
    for wanted in chosen:
        for option in item["options"]:
            if wanted in (option["value"], option["label"]):
                found.append(option["value"])
                break
        else:
            raise LookupError(f"no option {wanted!r} among {item['options']}")
    return found
