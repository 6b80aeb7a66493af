"""Lists longer than a message: pages with buttons that outlive a restart.

A button's custom_id carries the page it leads to, so nothing has to be remembered. Whoever asked
turns the page in place; anybody else who presses gets a copy of their own that only they see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import discord

from cogs.answers import NOBODY, Ask, mishaps_told, speech_of, viewer_of

if TYPE_CHECKING:
    from bot.services.parts import Parts
    from cogs.embeds import Speech, Viewer

Button = discord.ui.Button[discord.ui.View]

TURNS = {"first": "⏮️", "back": "◀️", "again": "🔄", "next": "▶️", "last": "⏭️"}


@dataclass(frozen=True, slots=True)
class Page:
    """One page as drawn: `number` counts from 0 and is within `count`, which is at least 1."""

    embed: discord.Embed
    number: int
    count: int


def page_count(items: int, per_page: int) -> int:
    """At least 1: an empty list is a page too."""
    return max(1, -(-items // per_page))


def within(number: int, count: int) -> int:
    """The nearest page there is: a list may have shrunk since the button was drawn."""
    return min(max(0, number), count - 1)


def template(name: str) -> re.Pattern[str]:
    return re.compile(rf"comet:page:{name}:(?P<turn>{'|'.join(TURNS)}):(?P<number>[0-9]{{1,6}})")


class PageButton(discord.ui.DynamicItem[Button], template=template("none")):
    """One button under a paged list. A list is a subclass that says how a page is drawn."""

    list_name: ClassVar[str] = "none"

    def __init__(self, turn: str, number: int, label: str = "", *, disabled: bool = False) -> None:
        super().__init__(
            discord.ui.Button(
                label=label or None,
                emoji=TURNS[turn],
                style=discord.ButtonStyle.secondary,
                custom_id=f"comet:page:{self.list_name}:{turn}:{number}",
                disabled=disabled,
            )
        )
        self.number = number

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: discord.ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(match["turn"], int(match["number"]))

    @classmethod
    def draw(cls, parts: Parts, viewer: Viewer, number: int) -> Page:
        """The page `number`, or the nearest there is."""
        raise NotImplementedError

    @classmethod
    def buttons(cls, page: Page, speech: Speech) -> discord.ui.View:
        """The buttons under `page`; a single page has but the one that draws it anew."""
        last = page.count - 1
        goals = {
            "first": 0,
            "back": max(0, page.number - 1),
            "again": page.number,
            "next": min(last, page.number + 1),
            "last": last,
        }
        shown = goals if page.count > 1 else {"again": page.number}
        view = discord.ui.View(timeout=None)
        for turn, number in shown.items():
            leads_nowhere = turn != "again" and number == page.number
            view.add_item(cls(turn, number, speech(f"dashboard.{turn}"), disabled=leads_nowhere))
        # A stopped view is not remembered by the client: it answers by custom_id alone, and a
        # view of its own for every answer would stay in memory for good.
        view.stop()
        return view

    @classmethod
    async def answer(cls, interaction: Ask, *, ephemeral: bool = False, number: int = 0) -> None:
        """Send a page as the first response."""
        speech = speech_of(interaction)
        page = cls.draw(interaction.client.parts, viewer_of(interaction), number)
        await interaction.response.send_message(
            embed=page.embed,
            view=cls.buttons(page, speech),
            ephemeral=ephemeral,
            allowed_mentions=NOBODY,
        )

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        async with mishaps_told(interaction):
            if _is_own(interaction):
                await self._turn(interaction)
            else:
                await self.answer(interaction, ephemeral=True, number=self.number)

    async def _turn(self, interaction: Ask) -> None:
        page = self.draw(interaction.client.parts, viewer_of(interaction), self.number)
        await interaction.response.edit_message(
            embed=page.embed,
            view=self.buttons(page, speech_of(interaction)),
            allowed_mentions=NOBODY,
        )


def _is_own(interaction: Ask) -> bool:
    """Whether the presser is who asked for the message; where nobody can tell, anybody is."""
    message = interaction.message
    asked = None if message is None else message.interaction_metadata
    return asked is None or asked.user.id == interaction.user.id
