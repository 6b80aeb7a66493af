"""The real CometBot in this process against the strict Discord peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import discord
import pytest
import pytest_asyncio
import yarl
from discord import app_commands
from discord.ext import commands

from bot.client import CometBot, TokenRefused, make_bot, run_bot
from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.i18n import Translator, texts
from bot.services.audience import Audience, Destination
from bot.services.command_stats import CommandStats
from bot.services.parts import Parts
from cogs import gateway
from cogs.command_tree import Commands, same
from cogs.localisation import said, with_default
from cogs.notifier import ChannelNotifier
from tests.peers.discord import Channel, DiscordPeer, Guild, StoredMessage, User

CARD = OutgoingMessage(
    embeds=(
        {
            "title": "🔴 down",
            "description": "@everyone <@1>",
            "fields": [{"name": "a", "value": "b", "inline": True}],
            "footer": {"text": "C.O.M.E.T. · #ABCD1234"},
            "timestamp": "2026-11-20T12:00:00+00:00",
        },
    ),
    nonce="0123456789abcdef012345678",
)
POST = r"/channels/\d+/messages$"
PATCH = r"/channels/\d+/messages/\d+$"


@dataclass
class Heard:
    """What the bot told the parts it was given."""

    wakes: list[bool] = field(default_factory=list)
    newcomers: int = 0

    def wake(self, *, at_once: bool = False) -> None:
        self.wakes.append(at_once)

    async def tell_newcomers(self) -> None:
        self.newcomers += 1


class Tricks(commands.Cog):
    """One command of each kind of ending."""

    @app_commands.command(name="fine", description=said("command.performance.description"))
    async def fine(self, interaction: discord.Interaction) -> None:
        await asyncio.sleep(0.05)
        await interaction.response.send_message("fine")

    @app_commands.command(name="broken", description="breaks")
    async def broken(self, interaction: discord.Interaction) -> None:
        raise ValueError("hush-hush detail")

    @app_commands.command(name="late_broken", description="breaks after it has deferred")
    async def late_broken(self, interaction: discord.Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        raise ValueError("hush-hush detail")

    @app_commands.command(name="theirs", description="for managers")
    @app_commands.checks.has_permissions(manage_guild=True)
    async def theirs(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message("yours")


@dataclass
class Stage:
    discord: DiscordPeer
    guild: Guild
    channel: Channel
    bot: CometBot
    parts: Any
    heard: Heard
    running: asyncio.Task[None]
    notifier: ChannelNotifier

    @property
    def place(self) -> Destination:
        return Destination(str(self.guild.id), str(self.channel.id))

    async def connected(self) -> None:
        await self.discord.wait_for(lambda: self.bot.look().away_s == 0, 10)

    async def ask(self, user: User, name: str, locale: str = "en-US") -> Any:
        return await self.discord.command(self.guild, self.channel, user, name, locale=locale)

    async def problem(self, message: OutgoingMessage = CARD, edit: str | None = None) -> Any:
        with pytest.raises(DeliveryError) as caught:
            if edit is None:
                await self.notifier.post(self.place, message)
            else:
                await self.notifier.edit(self.place, edit, message)
        return caught.value.problem


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, only our own commands, and discord.py's address as it was afterwards."""
    monkeypatch.setattr("bot.client.EXTENSIONS", ())
    monkeypatch.setattr(gateway, "IDENTIFY_SPACING_S", 0.0)
    monkeypatch.setattr(gateway, "BACKOFF_MIN_S", 0.1)
    base = discord.http.Route.BASE
    yield
    discord.http.Route.BASE = base


def make_parts(heard: Heard, default: str = "ja") -> Parts:
    made = SimpleNamespace(
        translator=Translator(default),  # type: ignore[arg-type]
        commands=CommandStats(),
        audience=Audience((), has_only_webhook=False),
        delivery=heard,
        alerting=heard,
    )
    return cast(Parts, made)


@contextlib.asynccontextmanager
async def started(
    peer: DiscordPeer, guild: Guild, channel: Channel, **options: Any
) -> AsyncIterator[Stage]:
    heard = Heard()
    parts = make_parts(heard)
    bot = make_bot(parts, api_base_url=peer.api_url, gateway_url=peer.gateway_url, **options)
    await bot.add_cog(Tricks())
    running = asyncio.create_task(run_bot(bot, peer.token))
    try:
        yield Stage(peer, guild, channel, bot, parts, heard, running, ChannelNotifier(bot))
    finally:
        began_s = time.monotonic()
        await bot.close()
        assert time.monotonic() - began_s < 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS", member_count=120)
        channel = guild.add_channel("alerts")
        async with started(peer, guild, channel) as made:
            await made.connected()
            await peer.wait_for(lambda: peer.stats.command_syncs)
            yield made


# -- connecting -------------------------------------------------------------------------------


async def test_it_asks_for_nothing_privileged_and_wakes_what_waits(stage: Stage) -> None:
    (identify,) = stage.discord.stats.identify_payloads
    assert identify["intents"] == 1
    assert stage.heard.wakes == [True]
    assert stage.heard.newcomers == 1
    assert stage.parts.audience.operator_guild_ids == {str(stage.guild.id)}
    nobody = stage.bot.allowed_mentions
    assert nobody is not None
    assert nobody.to_dict() == {"parse": []}


async def test_it_tells_how_discord_is_doing(stage: Stage) -> None:
    await stage.discord.wait_for(lambda: stage.bot.look().gateway_ping_ms is not None)
    look = stage.bot.look()
    assert look.gateway_ping_ms is not None and 0 < look.gateway_ping_ms < 5000
    assert look.away_s == 0
    assert look.degradation == 0
    assert look.reconnects == 0
    assert (look.guilds, look.users, look.channels) == (1, 120, len(stage.guild.channels))
    assert look.shard_ping_ms == ((0, look.gateway_ping_ms),)


async def test_before_it_is_connected_nothing_is_known_but_for_how_long() -> None:
    bot = make_bot(make_parts(Heard()))
    await asyncio.sleep(0.05)
    look = bot.look()
    assert look.away_s is not None and look.away_s >= 0.05
    assert look.degradation == pytest.approx(look.away_s / 60)
    assert look.gateway_ping_ms is None
    assert look.guilds is None
    assert math.isnan(bot.latency)
    notifier = ChannelNotifier(bot)
    with pytest.raises(DeliveryError) as caught:
        await notifier.post(Destination("1", "2"), CARD)
    assert caught.value.problem is DeliveryProblem.TRANSIENT
    await bot.close()


async def test_a_slow_ping_counts_as_degradation(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.bot._shards, "pings_s", lambda: {0: 1.5})
    stage.bot.look()
    assert stage.bot._slow_since_s is not None
    stage.bot._slow_since_s -= 150
    assert stage.bot.look().degradation == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(stage.bot._shards, "pings_s", lambda: {0: math.inf, 1: math.nan})
    look = stage.bot.look()
    assert look.gateway_ping_ms is None
    assert look.degradation == 0


async def test_a_dropped_connection_resumes_on_the_proxy_it_was_given(stage: Stage) -> None:
    await asyncio.sleep(0.2)
    await stage.discord.drop_gateway(4000)
    await stage.discord.wait_for(lambda: stage.discord.stats.resumed)
    await stage.connected()
    assert stage.discord.stats.resume_url_used == 0
    assert stage.discord.stats.identifies == 1
    assert stage.bot.look().reconnects == 1
    await stage.discord.wait_for(lambda: stage.heard.wakes == [True, True])
    answer = await stage.ask(stage.guild.owner, "fine")
    assert answer.text == "fine"


async def test_without_a_proxy_it_resumes_where_discord_says() -> None:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS")
        default = gateway.DiscordWebSocket.DEFAULT_GATEWAY
        gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(peer.gateway_url)
        try:
            heard = Heard()
            bot = make_bot(make_parts(heard), api_base_url=peer.api_url)
            running = asyncio.create_task(run_bot(bot, peer.token))
            await peer.wait_for(lambda: bot.look().away_s == 0)
            await peer.drop_gateway(4000)
            await peer.wait_for(lambda: peer.stats.resumed)
            assert peer.stats.resume_url_used == 1
            await bot.close()
            await running
        finally:
            gateway.DiscordWebSocket.DEFAULT_GATEWAY = default
        assert guild.id


@pytest.mark.parametrize("how", ["forgotten", "invalidated", "asked", "cut"])
async def test_every_way_to_lose_the_connection_ends_well(stage: Stage, how: str) -> None:
    match how:
        case "forgotten":
            await stage.discord.drop_gateway(4000, resumable=False)
        case "invalidated":
            await stage.discord.invalidate_sessions()
        case "asked":
            await stage.discord.ask_to_reconnect()
        case _:
            await stage.discord.drop_gateway()
    await stage.discord.wait_for(lambda: stage.bot.look().reconnects == 1)
    await stage.connected()
    assert (await stage.ask(stage.guild.owner, "fine")).text == "fine"


async def test_discord_away_is_said_once_and_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await stage.discord.stop()
        await stage.discord.wait_until(lambda: (stage.bot.look().away_s or 0) > 0.9, 10)
        assert stage.bot.look().gateway_ping_ms is None
        assert (await stage.problem()) is DeliveryProblem.TRANSIENT
        await stage.discord.start()
        await stage.connected()
    said_lines = [r.getMessage() for r in caplog.records if r.name == "cogs.gateway"]
    assert len(said_lines) == 2, said_lines
    assert "is back" in said_lines[1]
    assert "Traceback" not in caplog.text


async def test_a_connection_whose_heartbeats_are_not_answered_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "ZOMBIE_LOOK_S", 0.05)
    stage.discord.gateway.heartbeat_interval_s = 0.2
    await stage.discord.drop_gateway(4000)
    await stage.discord.wait_for(lambda: stage.bot.look().reconnects == 1)
    await stage.connected()
    watch = asyncio.create_task(stage.bot._shards._bury_zombies())
    await asyncio.sleep(0.6)
    assert stage.bot.look().reconnects == 1, "a living one is left alone"
    stage.discord.gateway.ack_heartbeats = False
    await asyncio.sleep(0.3)
    assert (stage.bot.look().gateway_ping_ms or 0) > 50, "a missing answer shows as a slow one"
    await stage.discord.wait_for(lambda: stage.bot.look().reconnects >= 2)
    stage.discord.gateway.ack_heartbeats = True
    watch.cancel()


async def test_a_wrong_token_is_refused_at_once() -> None:
    async with DiscordPeer() as peer:
        bot = make_bot(make_parts(Heard()), api_base_url=peer.api_url, gateway_url=peer.gateway_url)
        with pytest.raises(TokenRefused):
            await run_bot(bot, "wrong.token.value")
        assert len(list(peer.requests_to("GET", "/users/@me"))) == 1
        await bot.close()


async def test_a_token_reset_later_is_refused_too(stage: Stage) -> None:
    stage.discord.token = "another"
    await stage.discord.drop_gateway(4000, resumable=False)
    with pytest.raises(TokenRefused):
        async with asyncio.timeout(10):
            await stage.running


async def test_discord_away_at_the_start_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS")
        channel = guild.add_channel("alerts")
        await peer.stop()
        async with started(peer, guild, channel) as made:
            await asyncio.sleep(0.5)
            assert not made.bot.is_logged_in
            await peer.start()
            await peer.gateway_down()
            await peer.wait_for(lambda: made.bot.is_logged_in)
            await asyncio.sleep(0.3)
            await made.notifier.post(made.place, CARD)
            await peer.gateway_up()
            await made.connected()
        assert len(peer.messages(channel)) == 1
    assert sum("cannot be reached" in r.getMessage() for r in caplog.records) == 2


async def test_a_peer_that_knows_no_shards_gets_one_and_one_that_wants_two_gets_two() -> None:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS")
        channel = guild.add_channel("alerts")
        peer.fail("GET", "/gateway/bot", status=404, body="no such thing")
        async with started(peer, guild, channel) as made:
            await made.connected()
            assert peer.stats.identifies == 1
    async with DiscordPeer() as peer:
        guilds = [peer.add_guild(f"g{n}") for n in range(4)]
        channel = guilds[0].add_channel("alerts")
        peer.recommended_shards = 2
        async with started(peer, guilds[0], channel) as made:
            await made.connected()
            await peer.wait_for(lambda: made.bot.look().guilds == 4)
            await peer.wait_for(lambda: len(made.bot.look().shard_ping_ms) == 2)
            await made.notifier.post(made.place, CARD)
            joined = made.parts.audience.joined_guild_ids
            assert joined == {str(guild.id) for guild in guilds}


async def test_discord_demanding_shards_gets_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS")
        channel = guild.add_channel("alerts")
        identify = peer.gateway._identify

        async def demanding(connection: Any, data: Any) -> None:
            if data["shard"][1] < 2:
                await connection.close(4011)
            else:
                await identify(connection, data)

        monkeypatch.setattr(peer.gateway, "_identify", demanding)
        async with started(peer, guild, channel) as made:
            await peer.wait_for(lambda: len(made.bot.look().shard_ping_ms) == 2)
            await made.connected()


async def test_guilds_come_and_go(stage: Stage) -> None:
    audience = stage.parts.audience
    other = stage.discord.add_guild("second")
    both = {str(stage.guild.id), str(other.id)}
    await stage.discord.wait_for(lambda: audience.joined_guild_ids == both)
    assert not audience.operator_guild_ids
    assert stage.heard.newcomers == 2
    stage.discord.remove_guild(other, unavailable=True)
    await asyncio.sleep(0.1)
    assert audience.joined_guild_ids == both, "an outage is no farewell"
    stage.discord.remove_guild(other)
    await stage.discord.wait_for(lambda: audience.joined_guild_ids == {str(stage.guild.id)})
    third = stage.discord.add_guild("third")
    await stage.discord.wait_for(lambda: len(audience.joined_guild_ids) == 2)
    await stage.discord.stop()
    stage.discord.gateway.sessions.clear()
    del stage.discord.world.guilds[third.id]
    await stage.discord.start()
    await stage.discord.wait_for(lambda: audience.joined_guild_ids == {str(stage.guild.id)})
    assert stage.bot.look().guilds == 1, "left while the connection was down"


# -- commands ---------------------------------------------------------------------------------


def registered(stage: Stage, scope: int | None = None) -> dict[str, Any]:
    return {command["name"]: command for command in stage.discord.commands.all(scope)}


async def test_commands_are_known_by_name_and_described_in_both_languages(stage: Stage) -> None:
    command = registered(stage)["fine"]
    key = "command.performance.description"
    assert command["description"] == texts("ja")[key]
    assert command["description_localizations"] == {
        "ja": texts("ja")[key],
        "en-US": texts("en")[key],
        "en-GB": texts("en")[key],
    }
    assert not command["name_localizations"]


async def test_an_unchanged_list_is_not_sent_again(stage: Stage) -> None:
    assert stage.discord.stats.command_syncs == 1
    async with started(stage.discord, stage.guild, stage.channel) as again:
        await again.connected()
        await asyncio.sleep(0.2)
        assert stage.discord.stats.command_syncs == 1
    stage.discord.commands.all(None)[0]["description"] = "something else"
    async with started(stage.discord, stage.guild, stage.channel):
        await stage.discord.wait_for(lambda: stage.discord.stats.command_syncs == 2)


async def test_with_guilds_named_commands_live_there_and_only_there(stage: Stage) -> None:
    assert registered(stage)
    ids = [stage.guild.id]
    async with started(stage.discord, stage.guild, stage.channel, sync_guild_ids=ids) as named:
        await stage.discord.wait_for(lambda: not registered(stage))
        assert set(registered(stage, stage.guild.id)) >= {"fine", "broken"}
        await named.connected()


async def test_a_sync_that_fails_is_tried_again_and_nothing_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cogs.command_tree.SYNC_RETRY_MIN_S", 0.2)
    async with DiscordPeer() as peer:
        guild = peer.add_guild("HFS")
        channel = guild.add_channel("alerts")
        peer.fail("GET", "/commands", status=503)
        async with started(peer, guild, channel) as made:
            await made.connected()
            assert not peer.stats.command_syncs
            peer.clear_faults()
            await peer.wait_for(lambda: peer.stats.command_syncs)


async def test_commands_reach_a_guild_as_soon_as_it_is_joined() -> None:
    async with DiscordPeer() as peer:
        home, later = peer.add_guild("HFS"), peer.add_guild("later")
        channel = home.add_channel("alerts")
        peer.remove_guild(later)
        async with started(peer, home, channel, sync_guild_ids=[later.id]) as made:
            await made.connected()
            await peer.wait_for(lambda: list(peer.requests_to("GET", "/commands")))
            await asyncio.sleep(0.2)
            assert not peer.stats.command_syncs
            peer.world.guilds[later.id] = later
            peer.gateway.guild_create(later)
            await peer.wait_for(lambda: peer.stats.command_syncs, 3)


async def test_commands_are_measured_from_receipt_to_completion(stage: Stage) -> None:
    await stage.ask(stage.guild.owner, "fine")
    await stage.discord.wait_for(lambda: stage.parts.commands.count == 1)
    look = stage.parts.commands.look()
    assert 50 <= look.p50_ms < 2000
    assert look.error_percent == 0
    assert stage.parts.commands.by_name == {"fine": (1, 0)}


@pytest.mark.parametrize("name", ["broken", "late_broken"])
async def test_a_fault_of_ours_gives_a_number_and_one_line_in_the_log(
    stage: Stage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await stage.ask(stage.guild.owner, name)
    assert answer.ephemeral
    shown = answer.text
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    error_id = record.getMessage().split("[")[1].rstrip("]")
    assert error_id in shown
    assert "hush-hush" not in shown and "Traceback" not in shown
    assert record.exc_info and "hush-hush" in str(record.exc_info[1])
    assert stage.parts.commands.by_name == {name: (1, 1)}


async def test_a_refusal_is_told_in_the_users_language_and_is_no_error(stage: Stage) -> None:
    somebody = stage.guild.add_user("somebody")
    english = await stage.ask(somebody, "theirs", "en-GB")
    japanese = await stage.ask(somebody, "theirs", "ja")
    assert english.ephemeral
    assert english.text == "You may not do that. Needed: `manage guild`"
    assert "権限がありません" in japanese.text
    assert stage.parts.commands.by_name == {"theirs": (2, 0)}


async def test_a_command_that_is_gone_says_so(stage: Stage) -> None:
    stage.bot.tree.remove_command("fine")
    answer = await stage.ask(stage.guild.owner, "fine", "ja")
    assert answer.text == texts("ja")["client.stale"]
    assert stage.parts.commands.errors == 0


def test_texts_without_a_language_are_those_of_the_default() -> None:
    payload = {
        "name": "x",
        "description": "ja",
        "description_localizations": {"ja": "ja", "en-US": "en"},
        "options": [
            {
                "name": "o",
                "description": "ja",
                "description_localizations": {"en-US": "en"},
                "choices": [
                    {"name": "ja", "value": 1, "name_localizations": {"en-US": "en", "ja": "ja"}}
                ],
            }
        ],
    }
    english = with_default(payload, "en")
    assert english["description"] == "en"
    assert english["options"][0]["description"] == "en"
    assert english["options"][0]["choices"][0]["name"] == "en"
    assert with_default(payload, "ja") == payload


def test_what_discord_adds_makes_no_difference() -> None:
    ours = {"name": "x", "description": "d", "type": 1, "options": [], "nsfw": False}
    theirs = {**ours, "id": "1", "version": "2", "contexts": None, "dm_permission": True}
    assert same([ours], [theirs])
    assert not same([ours], [])
    assert not same([{**ours, "description": "e"}], [theirs])
    assert not same([{**ours, "default_member_permissions": 32}], [theirs])
    assert same(
        [{**ours, "default_member_permissions": 32}],
        [{**theirs, "default_member_permissions": "32"}],
    )


# -- the channel notifier ---------------------------------------------------------------------


def messages(stage: Stage) -> list[StoredMessage]:
    return stage.discord.messages(stage.channel)


async def test_it_posts_edits_and_finds_a_card(stage: Stage) -> None:
    message_id = await stage.notifier.post(stage.place, CARD)
    (card,) = messages(stage)
    assert str(card.id) == message_id
    assert not card.pings
    assert card.embeds[0]["title"] == "🔴 down"
    assert await stage.notifier.find_card(stage.place, "ABCD1234") == message_id
    assert await stage.notifier.find_card(stage.place, "FFFF0000") is None
    changed = OutgoingMessage(embeds=({"title": "✅ up"},))
    await stage.notifier.edit(stage.place, message_id, changed)
    assert card.embeds[0]["title"] == "✅ up"
    reply = OutgoingMessage(content="✅ @everyone", reply_to=message_id, is_silent=True)
    assert await stage.notifier.find_reply(stage.place, message_id, "✅") is None
    reply_id = await stage.notifier.post(stage.place, reply)
    answer = messages(stage)[1]
    assert answer.reply_to == card.id
    assert answer.flags & 4096
    assert not answer.pings
    assert await stage.notifier.find_reply(stage.place, message_id, "✅") == reply_id
    assert await stage.notifier.find_reply(stage.place, message_id, "🚨") is None


async def test_others_cannot_pass_for_the_bot(stage: Stage) -> None:
    stage.discord.say(stage.channel, stage.guild.owner, "C.O.M.E.T. · #ABCD1234")
    assert await stage.notifier.find_card(stage.place, "ABCD1234") is None


async def test_the_same_nonce_twice_is_one_message(stage: Stage) -> None:
    first = await stage.notifier.post(stage.place, CARD)
    assert await stage.notifier.post(stage.place, CARD) == first
    assert len(messages(stage)) == 1


async def test_a_lost_answer_is_uncertain_and_the_card_is_found(stage: Stage) -> None:
    stage.discord.lose_answer("POST", POST, times=1)
    assert await stage.problem() is DeliveryProblem.UNCERTAIN
    assert await stage.notifier.find_card(stage.place, "ABCD1234") == str(messages(stage)[0].id)


async def test_a_reply_to_a_deleted_card_is_still_said(stage: Stage) -> None:
    message_id = await stage.notifier.post(stage.place, CARD)
    stage.discord.delete_message(messages(stage)[0])
    await stage.notifier.post(stage.place, OutgoingMessage(content="✅", reply_to=message_id))
    assert messages(stage)[0].content == "✅"
    assert await stage.problem(edit=message_id) is DeliveryProblem.MESSAGE_GONE


async def test_each_refusal_has_its_problem(stage: Stage) -> None:
    stage.discord.set_bot_permissions(stage.channel, deny=["send_messages"])
    assert await stage.problem() is DeliveryProblem.FORBIDDEN
    stage.discord.set_bot_permissions(stage.channel, deny=["view_channel"])
    assert await stage.problem() is DeliveryProblem.FORBIDDEN
    stage.discord.set_bot_permissions(stage.channel)
    stage.discord.fail("POST", POST, status=503, times=1)
    assert await stage.problem() is DeliveryProblem.UNCERTAIN
    too_long = OutgoingMessage(content="x" * 2001)
    assert await stage.problem(too_long) is DeliveryProblem.REJECTED
    stage.discord.delete_channel(stage.channel)
    assert await stage.problem() is DeliveryProblem.CHANNEL_GONE
    assert await stage.problem(edit="123456789012345678") is DeliveryProblem.CHANNEL_GONE


@pytest.mark.parametrize("why", ["refused", "no embeds"])
async def test_an_alert_that_may_not_have_looks_comes_plain(stage: Stage, why: str) -> None:
    message = CARD
    if why == "refused":
        broken = {**CARD.embeds[0], "url": "http://uptime-kuma:3001"}
        message = OutgoingMessage(embeds=(broken,), nonce=CARD.nonce)
    else:
        stage.discord.set_bot_permissions(stage.channel, deny=["embed_links"])
    message_id = await stage.notifier.post(stage.place, message)
    (plain,) = messages(stage)
    assert plain.content.startswith("🔴 down\n")
    assert not plain.embeds and not plain.pings
    assert await stage.notifier.find_card(stage.place, "ABCD1234") == message_id
    stage.discord.set_bot_permissions(stage.channel)
    await stage.notifier.edit(stage.place, message_id, CARD)
    assert plain.embeds and not plain.content


async def test_when_old_messages_take_no_more_edits_the_old_card_goes(stage: Stage) -> None:
    message_id = await stage.notifier.post(stage.place, CARD)
    body = {"message": "Maximum number of edits", "code": 30046, "retry_after": 0.01}
    stage.discord.fail("PATCH", PATCH, status=429, body=body)
    assert await stage.problem(edit=message_id) is DeliveryProblem.MESSAGE_GONE
    assert not messages(stage)


async def test_a_tree_of_commands_is_ours(stage: Stage) -> None:
    assert isinstance(stage.bot.tree, Commands)
