"""Uptime Kuma in Discord: how the monitors stand, and where alerts go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cogs.uptimekuma.setup import Setup
from cogs.uptimekuma.status import Status

if TYPE_CHECKING:
    from bot.client import CometBot


async def setup(bot: CometBot) -> None:
    await bot.add_cog(Setup(bot))
    await bot.add_cog(Status(bot))
