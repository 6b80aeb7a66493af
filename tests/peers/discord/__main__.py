"""A demo Discord for trying the bot by hand: `python -m tests.peers.discord --port 9999`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from .peer import DiscordPeer
from .world import Channel


async def main() -> None:
    parser = argparse.ArgumentParser(description="A strict Discord on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    port = parser.parse_args().port
    async with DiscordPeer(port=port) as peer:
        guild = peer.add_guild("demo", locale="ja")
        channels = [guild.add_channel(name) for name in ("alerts", "status")]
        guild.add_user("admin", permissions=["administrator"])
        guild.add_user("visitor", locale="en-US")
        for key, value in peer.env().items():
            print(f"{key}={value}")
        print(f"# guild {guild.id}; " + ", ".join(f"#{c.name} {c.id}" for c in channels))
        await _follow(peer, channels)


async def _follow(peer: DiscordPeer, channels: list[Channel]) -> None:
    """Print what happens until interrupted."""
    seen: set[tuple[int, int]] = set()
    answered = 0
    while True:
        for channel in channels:
            for message in peer.messages(channel):
                version = (message.id, len(message.edits))
                if version not in seen:
                    seen.add(version)
                    print(f"#{channel.name} {message.author.name}: {message.text}", flush=True)
        for record in peer.requests[answered:]:
            if record.error:
                print(f"{record.method} {record.path} {record.error}", flush=True)
        answered = len(peer.requests)
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
