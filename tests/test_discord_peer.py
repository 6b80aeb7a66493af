"""Proof that the Discord peer behaves like Discord towards a real discord.py client."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import discord
import pytest
import yarl
from discord import app_commands

from tests.peers.discord import BadOptions, Channel, DiscordPeer, Guild, NoAnswer, NotRegistered

pytestmark = pytest.mark.asyncio


class Bot(discord.Client):
    """A client with one of everything that the peer's interactions can do."""

    def __init__(self) -> None:
        # discord.py waits that long for a further guild before it calls itself ready.
        super().__init__(intents=discord.Intents.default(), guild_ready_timeout=0.05)
        self.tree = app_commands.CommandTree(self)
        self.resumes = self.readies = 0
        self.seen_ready = asyncio.Event()
        add_commands(self.tree)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """Skip the five seconds discord.py waits before it identifies again."""

    async def on_ready(self) -> None:
        self.readies += 1
        self.seen_ready.set()

    async def on_resumed(self) -> None:
        self.resumes += 1


class Buttons(discord.ui.View):
    @discord.ui.button(label="Acknowledge", custom_id="ack")
    async def ack(self, interaction: discord.Interaction, button: Any) -> None:
        await interaction.response.edit_message(content=f"by {interaction.user.name}", view=None)

    @discord.ui.button(label="Comment", custom_id="comment")
    async def comment(self, interaction: discord.Interaction, button: Any) -> None:
        await interaction.response.send_modal(Comment())

    @discord.ui.select(
        custom_id="how_long",
        options=[discord.SelectOption(label="an hour", value="3600")],
    )
    async def how_long(self, interaction: discord.Interaction, select: Any) -> None:
        await interaction.response.send_message(select.values[0], ephemeral=True)


class Comment(discord.ui.Modal, title="Comment"):
    text: discord.ui.TextInput[Any] = discord.ui.TextInput(label="Text", max_length=20)

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"noted: {self.text.value}")


def add_commands(tree: app_commands.CommandTree[Any]) -> None:
    @tree.command(description="Answers at once")
    @app_commands.describe(word="What to say", where="A channel", who="A member")
    async def say(
        interaction: discord.Interaction,
        word: app_commands.Range[str, 1, 20],
        where: discord.TextChannel | None = None,
        who: discord.Member | None = None,
    ) -> None:
        shown = [word, where.name if where else "-", who.name if who else "-"]
        shown += [str(interaction.locale), str(interaction.guild_locale)]
        shown.append(str(interaction.permissions.manage_guild))
        await interaction.response.send_message(" ".join(shown), ephemeral=True)

    @say.autocomplete("word")
    async def words(
        interaction: discord.Interaction, current: str
    ) -> list[app_commands.Choice[str]]:
        name = "x" * 101 if current == "too long" else f"{current}!"
        return [app_commands.Choice(name=name, value=current)]

    @tree.command(description="Defers, then answers and follows up")
    async def slowly(interaction: discord.Interaction) -> None:
        await interaction.response.defer(ephemeral=True)
        await asyncio.sleep(0.1)
        await interaction.edit_original_response(content="done")
        await interaction.followup.send("and more")

    @tree.command(description="Defers, then follows up only")
    async def followup_only(interaction: discord.Interaction) -> None:
        await interaction.response.defer()
        await interaction.followup.send("secret", ephemeral=True)

    @tree.command(description="Answers too late")
    async def too_late(interaction: discord.Interaction) -> None:
        await asyncio.sleep(0.6)
        with contextlib.suppress(discord.NotFound):
            await interaction.response.send_message("late")

    @tree.command(description="Has a button whose message changes later")
    async def later(interaction: discord.Interaction) -> None:
        view = discord.ui.View(timeout=None)
        button: discord.ui.Button[Any] = discord.ui.Button(label="Go")

        async def callback(pressed: discord.Interaction) -> None:
            await pressed.response.defer()
            await pressed.edit_original_response(content="gone", view=None)
            view.stop()  # discord.py gives an ephemeral view 15 minutes, and a task that waits

        button.callback = callback  # type: ignore[method-assign]
        view.add_item(button)
        await interaction.response.send_message("here", view=view, ephemeral=True)

    @tree.context_menu(name="Who is it")
    async def who_is_it(interaction: discord.Interaction, member: discord.Member) -> None:
        await interaction.response.send_message(member.name)

    @tree.command(description="Shows buttons")
    async def buttons(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("choose", view=Buttons(timeout=None))

    rules = app_commands.Group(
        name="rules",
        description="Rules",
        default_permissions=discord.Permissions(manage_guild=True),
    )

    @rules.command(description="Adds a rule")
    async def add(interaction: discord.Interaction, limit: int) -> None:
        await interaction.response.send_message(f"limit {limit}")

    tree.add_command(rules)


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordPeer]:
    async with DiscordPeer() as found:
        monkeypatch.setattr(discord.http.Route, "BASE", found.api_url)
        gateway = yarl.URL(found.gateway_url)
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", gateway)
        yield found


@pytest.fixture
async def guild(peer: DiscordPeer) -> Guild:
    return peer.add_guild("home", member_count=1234)


@pytest.fixture
async def channel(guild: Guild) -> Channel:
    return guild.add_channel("alerts")


@contextlib.asynccontextmanager
async def running(peer: DiscordPeer, *, sync: bool = False) -> AsyncIterator[Bot]:
    """A bot that is ready, in this loop; gone without a trace afterwards."""
    bot = Bot()
    task = asyncio.create_task(bot.start(peer.token))
    try:
        ready = asyncio.create_task(bot.seen_ready.wait())
        await asyncio.wait([task, ready], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        await ready
        if sync:
            await bot.tree.sync()
        yield bot
    finally:
        await bot.close()
        await asyncio.gather(task, return_exceptions=True)
        handlers = [t for t in asyncio.all_tasks() if t.get_name().startswith("discord.py")]
        await asyncio.gather(*handlers, return_exceptions=True)


@pytest.fixture
async def bot(peer: DiscordPeer, channel: Channel) -> AsyncIterator[Bot]:
    async with running(peer) as found:
        yield found


@pytest.fixture
async def synced(peer: DiscordPeer, channel: Channel) -> AsyncIterator[Bot]:
    async with running(peer, sync=True) as found:
        yield found


def room(bot: Bot, channel: Channel) -> discord.TextChannel:
    found = bot.get_channel(channel.id)
    assert isinstance(found, discord.TextChannel)
    return found


async def refused(call: Any, *, status: int, code: int) -> discord.HTTPException:
    with pytest.raises(discord.HTTPException) as caught:
        await call
    assert (caught.value.status, caught.value.code) == (status, code), caught.value
    return caught.value


# Login and gateway


async def test_a_client_logs_in_and_sees_the_guild_with_its_channel(
    bot: Bot, guild: Guild, channel: Channel
) -> None:
    found = bot.get_guild(guild.id)
    assert found is not None and found.member_count == 1234
    assert str(found.preferred_locale) == "ja"
    assert room(bot, channel).permissions_for(found.me).embed_links
    assert not room(bot, channel).permissions_for(found.me).administrator


async def test_a_wrong_token_is_refused_at_login(peer: DiscordPeer) -> None:
    client = Bot()
    with pytest.raises(discord.LoginFailure):
        await client.login("wrong")
    await client.close()
    assert peer.stats.invalid_requests == 1


async def test_privileged_intents_are_disallowed_unless_granted(peer: DiscordPeer) -> None:
    intents = discord.Intents.default()
    intents.message_content = True
    client = discord.Client(intents=intents)
    with pytest.raises(discord.PrivilegedIntentsRequired):
        await client.start(peer.token)
    await client.close()


async def test_a_cut_connection_is_resumed_with_what_was_missed(
    peer: DiscordPeer, bot: Bot, guild: Guild, channel: Channel
) -> None:
    heard: list[int] = []

    async def on_message(message: discord.Message) -> None:
        heard.append(message.id)

    bot.on_message = on_message  # type: ignore[attr-defined]
    await peer.gateway_down()
    missed = peer.say(channel, guild.owner, "while you were away")
    await peer.gateway_up()
    await peer.wait_for(lambda: peer.stats.resumed == 1, 10)
    await peer.wait_for(lambda: heard == [missed.id], 5)
    assert peer.stats.identifies == 1
    assert peer.stats.resume_url_used >= 1
    assert bot.resumes == 1


async def test_an_invalid_session_leads_to_a_new_identify(peer: DiscordPeer, bot: Bot) -> None:
    await peer.invalidate_sessions(resumable=False)
    await peer.wait_for(lambda: peer.stats.identifies == 2, 10)
    await peer.wait_for(lambda: bot.readies == 2, 5)
    assert peer.stats.resumes == 0


async def test_a_resume_of_a_forgotten_session_is_refused(peer: DiscordPeer, bot: Bot) -> None:
    await peer.drop_gateway(4000, resumable=False)
    await peer.wait_for(lambda: peer.stats.identifies == 2, 10)
    assert peer.stats.resumes == 1 and peer.stats.resumed == 0
    await peer.wait_for(lambda: bot.readies == 2, 5)


async def test_reconnect_requests_are_followed(peer: DiscordPeer, bot: Bot) -> None:
    await peer.ask_to_reconnect()
    await peer.wait_for(lambda: peer.stats.resumed == 1, 10)


async def test_discord_can_go_away_and_return_on_the_same_port(
    peer: DiscordPeer, bot: Bot, channel: Channel
) -> None:
    port = peer.port
    await peer.stop()
    with pytest.raises(aiohttp.ClientError):
        await room(bot, channel).send("nobody hears this")
    await peer.start()
    assert peer.port == port
    await peer.wait_for(lambda: peer.connections == 1, 20)
    await room(bot, channel).send("back")
    assert [item.content for item in peer.messages(channel)] == ["back"]


async def test_heartbeats_are_acknowledged_until_told_otherwise(peer: DiscordPeer) -> None:
    peer.gateway.heartbeat_interval_s = 0.1
    async with running(peer) as bot:
        await peer.wait_for(lambda: peer.stats.heartbeats > 3, 5)
        assert bot.latency < 1
        peer.gateway.ack_heartbeats = False
        await asyncio.sleep(0.05)
        before = bot.ws._keep_alive._last_ack
        seen = peer.stats.heartbeats
        await peer.wait_for(lambda: peer.stats.heartbeats > seen + 2, 5)
        assert bot.ws._keep_alive._last_ack == before


async def test_channels_come_and_go_at_run_time(
    peer: DiscordPeer, bot: Bot, guild: Guild, channel: Channel
) -> None:
    later = guild.add_channel("later")
    await peer.wait_for(lambda: bot.get_channel(later.id) is not None)
    peer.delete_channel(later)
    await peer.wait_for(lambda: bot.get_channel(later.id) is None)
    second = peer.add_guild("second")
    await peer.wait_for(lambda: bot.get_guild(second.id) is not None)
    peer.remove_guild(second)
    await peer.wait_for(lambda: bot.get_guild(second.id) is None)


async def test_close_codes_tell_what_a_client_did_wrong(peer: DiscordPeer) -> None:
    identify = {"token": peer.token, "intents": 1, "properties": {}}
    resume = {"token": peer.token, "session_id": "nothing", "seq": 1}
    wrong: list[tuple[int, list[Any]]] = [
        (4001, [{"op": 99, "d": None}]),
        (4002, ["no json"]),
        (4002, [{"op": 1, "d": "x" * 5000}]),
        (4003, [{"op": 3, "d": {}}]),
        (4004, [{"op": 2, "d": {**identify, "token": "wrong"}}]),
        (4005, [{"op": 2, "d": identify}, {"op": 2, "d": identify}]),
        (4010, [{"op": 2, "d": {**identify, "shard": [1, 1]}}]),
        (4013, [{"op": 2, "d": {**identify, "intents": 1 << 30}}]),
        (4014, [{"op": 2, "d": {**identify, "intents": 1 << 15}}]),
        (4008, [{"op": 1, "d": None}] * 121),
    ]
    async with aiohttp.ClientSession() as session:
        for code, payloads in wrong:
            async with session.ws_connect(f"{peer.gateway_url}?v=10&encoding=json") as socket:
                for payload in payloads:
                    text = payload if isinstance(payload, str) else json.dumps(payload)
                    await socket.send_str(text)
                frames = [frame async for frame in socket]
                assert json.loads(frames[0].data)["op"] == 10
                assert socket.close_code == code, payloads[0]
        async with session.ws_connect(f"{peer.gateway_url}?v=6&encoding=json") as socket:
            await socket.receive()
            assert socket.close_code == 4012
        async with session.ws_connect(f"{peer.gateway_url}?v=10") as socket:
            await socket.receive_json()
            await socket.send_json({"op": 6, "d": resume})
            assert (await socket.receive_json())["op"] == 9


async def test_sharded_clients_are_served_by_shard(
    peer: DiscordPeer, guild: Guild, channel: Channel
) -> None:
    client = discord.AutoShardedClient(
        intents=discord.Intents.default(), shard_count=1, guild_ready_timeout=0.05
    )
    task = asyncio.create_task(client.start(peer.token))
    try:
        await peer.wait_for(lambda: client.get_guild(guild.id), 10)
        assert peer.stats.identify_payloads[0]["shard"] == [0, 1]
        assert not peer.requests_to("GET", "/gateway/bot")
        await client.wait_until_ready()
    finally:
        await client.close()
        await asyncio.gather(task, return_exceptions=True)


# Commands and interactions


async def test_commands_are_registered_and_answered(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    user = guild.add_user("haru", locale="de")
    options = {"word": "hello", "where": channel, "who": user}
    result = await peer.command(guild, channel, user, "say", options)
    assert result.content == "hello alerts haru de ja False"
    assert result.ephemeral and not result.timed_out and not result.deferred
    assert result.responded_after_s is not None and result.responded_after_s < 1
    assert peer.messages(channel) == []


async def test_what_a_person_could_not_send_is_not_sent(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    user = guild.add_user("haru")
    admin = guild.add_user("root", permissions=["administrator"])
    with pytest.raises(NotRegistered):
        await peer.command(guild, channel, user, "nothing")
    with pytest.raises(NotRegistered):
        await peer.command(guild, channel, admin, "rules")
    with pytest.raises(BadOptions):
        await peer.command(guild, channel, user, "say")
    with pytest.raises(BadOptions):
        await peer.command(guild, channel, user, "say", {"word": "x" * 21})
    with pytest.raises(BadOptions):
        await peer.command(guild, channel, admin, "rules add", {"limit": "five"})
    with pytest.raises(PermissionError):
        await peer.command(guild, channel, user, "rules add", {"limit": 5})
    allowed = await peer.command(guild, channel, admin, "rules add", {"limit": 5})
    assert allowed.content == "limit 5"
    forced = await peer.command(guild, channel, user, "rules add", {"limit": 6}, force=True)
    assert forced.content == "limit 6"
    assert [item.content for item in peer.messages(channel)] == ["limit 5", "limit 6"]


async def test_a_deferred_answer_is_filled_in_and_followed_up(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    result = await peer.command(guild, channel, guild.owner, "slowly")
    assert result.response_type == 5 and result.deferred
    assert result.content == "done" and result.ephemeral
    assert len(result.edits) == 1
    await peer.wait_for(lambda: result.followups, 5)
    assert [item.content for item in result.followups] == ["and more"]


async def test_a_followup_keeps_the_visibility_of_the_deferral(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    result = await peer.command(guild, channel, guild.owner, "followup_only")
    assert result.content == "secret"
    assert not result.ephemeral and result.followups == []


async def test_an_answer_after_the_deadline_is_refused(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    peer.interactions.first_response_s = 0.3
    result = await peer.command(guild, channel, guild.owner, "too_late")
    assert result.timed_out and not result.answered
    await peer.wait_for(lambda: result.refusals, 5)
    assert (result.refusals[0].status, result.refusals[0].code) == (404, 10062)


async def test_a_second_answer_and_an_early_followup_are_refused(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    result = await peer.command(guild, channel, guild.owner, "say", {"word": "x"})
    url = f"{peer.api_url}/interactions/{result.id}/{result.token}/callback"
    hook = f"{peer.api_url}/webhooks/{peer.world.application_id}/{result.token}"
    unanswered = f"{peer.api_url}/webhooks/{peer.world.application_id}/nothing"
    async with aiohttp.ClientSession() as session:
        assert await code_of(session, url, {"type": 4, "data": {"content": "x"}}) == 40060
        assert await code_of(session, unanswered, {"content": "x"}) == 10015
        result.expire_token()
        assert await code_of(session, hook, {"content": "x"}) == 50027


async def code_of(session: aiohttp.ClientSession, url: str, body: Any) -> int:
    async with session.post(url, json=body) as answer:
        return int((await answer.json())["code"])


async def test_autocomplete_offers_choices_within_limits(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    peer.interactions.first_response_s = 0.5
    offered = await peer.autocomplete(guild, channel, guild.owner, "say", "word", "ab")
    assert offered == [{"name": "ab!", "value": "ab"}]
    with pytest.raises(NoAnswer, match="50035"):
        await peer.autocomplete(guild, channel, guild.owner, "say", "word", "too long")
    with pytest.raises(BadOptions):
        await peer.autocomplete(guild, channel, guild.owner, "say", "where", "x")


async def test_buttons_selects_and_forms_work(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    user = guild.add_user("haru")
    shown = await peer.command(guild, channel, user, "buttons")
    chosen = await peer.select(shown, "how_long", ["an hour"], user)
    assert chosen.content == "3600" and chosen.ephemeral
    form = await peer.press(shown, "Comment", user)
    assert form.response_type == 9
    with pytest.raises(ValueError):
        await peer.submit_modal(form, {form.modal_field("Text"): "x" * 21})
    sent = await peer.submit_modal(form, {form.modal_field("Text"): "seen"})
    assert sent.content == "noted: seen"
    pressed = await peer.press(shown, "ack", user)
    assert pressed.response_type == 7
    assert shown.content == "by haru" and shown.components == []
    with pytest.raises(LookupError):
        await peer.press(shown, "ack", user)


async def test_a_deferred_update_changes_the_message_only_for_whom_it_was(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    user, other = guild.add_user("haru"), guild.add_user("aki")
    shown = await peer.command(guild, channel, user, "later")
    with pytest.raises(PermissionError):
        await peer.press(shown, "Go", other)
    pressed = await peer.press(shown, "Go", user)
    assert pressed.response_type == 6
    await peer.wait_for(lambda: shown.content == "gone", 5)
    assert pressed.message is shown.message and shown.edits


async def test_context_menus_resolve_their_target(
    peer: DiscordPeer, synced: Bot, guild: Guild, channel: Channel
) -> None:
    user = guild.add_user("haru")
    result = await peer.context_menu(guild, channel, guild.owner, "Who is it", user)
    assert result.content == "haru"
    with pytest.raises(NotRegistered):
        message = peer.say(channel, user, "hello")
        await peer.context_menu(guild, channel, user, "Who is it", message)


# What Discord refuses


LONG_EMBEDS: list[tuple[str, Callable[[], discord.Embed]]] = [
    ("title", lambda: discord.Embed(title="x" * 257)),
    ("description", lambda: discord.Embed(description="x" * 4097)),
    ("field name", lambda: discord.Embed().add_field(name="x" * 257, value="x")),
    ("field value", lambda: discord.Embed().add_field(name="x", value="x" * 1025)),
    ("empty field name", lambda: discord.Embed().add_field(name="", value="x")),
    ("empty field value", lambda: discord.Embed().add_field(name="x", value=" ")),
    ("footer", lambda: discord.Embed(title="x").set_footer(text="x" * 2049)),
    ("author", lambda: discord.Embed(title="x").set_author(name="x" * 257)),
    ("url without a dot", lambda: discord.Embed(title="x", url="http://uptime-kuma:3001")),
    ("url of another kind", lambda: discord.Embed(title="x", url="ftp://a.example/")),
    ("icon", lambda: discord.Embed(title="x").set_footer(text="x", icon_url="http://kuma/i.png")),
    ("nothing", discord.Embed),
]


@pytest.mark.parametrize("make", [make for _, make in LONG_EMBEDS], ids=[n for n, _ in LONG_EMBEDS])
async def test_embeds_outside_the_limits_are_refused(
    peer: DiscordPeer, bot: Bot, channel: Channel, make: Callable[[], discord.Embed]
) -> None:
    error = await refused(room(bot, channel).send(embed=make()), status=400, code=50035)
    assert "embeds" in error.text
    assert peer.messages(channel) == []


async def test_embeds_within_the_limits_are_kept(
    peer: DiscordPeer, bot: Bot, channel: Channel
) -> None:
    embed = discord.Embed(
        title="x" * 256,
        description="y" * 4096,
        url="https://status.example.org/a",
        colour=0xFFFFFF,
        timestamp=discord.utils.utcnow(),
    )
    for index in range(25):
        embed.add_field(name=f"n{index}", value="v")
    await room(bot, channel).send(embed=embed)
    [stored] = peer.messages(channel)
    assert len(stored.embeds[0]["fields"]) == 25
    together = [discord.Embed(description="x" * 3001), discord.Embed(description="x" * 3000)]
    await refused(room(bot, channel).send(embeds=together), status=400, code=50035)
    many = discord.Embed.from_dict({"fields": [{"name": "n", "value": "v"}] * 26})
    await refused(room(bot, channel).send(embed=many), status=400, code=50035)


async def test_content_components_and_emptiness_are_checked(
    peer: DiscordPeer, bot: Bot, channel: Channel
) -> None:
    await refused(room(bot, channel).send("x" * 2001), status=400, code=50035)
    await refused(room(bot, channel).send("  "), status=400, code=50006)
    view = discord.ui.View()
    view.add_item(discord.ui.Button(label="open", url="http://uptime-kuma:3001/dashboard/1"))
    await refused(room(bot, channel).send("x", view=view), status=400, code=50035)
    twins = discord.ui.View()
    for _ in range(2):
        twins.add_item(discord.ui.Button(label="x", custom_id="same"))
    await refused(room(bot, channel).send("x", view=twins), status=400, code=50035)
    assert peer.messages(channel) == []


async def test_raw_bodies_that_discord_py_would_never_send_are_refused(
    peer: DiscordPeer, channel: Channel
) -> None:
    peer.limits.set("message.create", 1000, 5)
    button = {"type": 2, "style": 1, "label": "x", "custom_id": "c"}
    row = {"type": 1, "components": [button]}
    select = {"type": 3, "custom_id": "s", "options": [{"label": "x", "value": "x"}]}
    six_rows = [in_row({**button, "custom_id": f"c{index}"})[0] for index in range(6)]
    bad: list[dict[str, Any]] = [
        {"embeds": [{"title": "x", "color": 0x1000000}]},
        {"embeds": [{"title": "x", "timestamp": "yesterday"}]},
        {"embeds": [{"title": 5}]},
        {"embeds": [{"title": "x"}] * 11},
        {"content": "x", "components": six_rows},
        {"content": "x", "components": [{"type": 1, "components": [button] * 6}]},
        {"content": "x", "components": [{"type": 1, "components": [button, select]}]},
        {"content": "x", "components": in_row({**button, "label": "x" * 81})},
        {"content": "x", "components": in_row({**button, "custom_id": ""})},
        {"content": "x", "components": in_row({**select, "options": []})},
        {"content": "x", "components": [{"type": 10, "content": "v2 without its flag"}]},
        {"content": "x", "flags": 32768, "components": [{"type": 10, "content": "v2"}]},
        {"content": "x", "nonce": str(uuid.uuid4())},
        {"content": "x", "allowed_mentions": {"parse": ["users"], "users": ["1"]}},
        {"content": "x", "allowed_mentions": {"parse": ["nobody"]}},
        {"content": "x", "attachments": [{"id": 0}]},
        {"content": "x", "message_reference": {"message_id": "5"}},
    ]
    url = f"{peer.api_url}/channels/{channel.id}/messages"
    headers = {"Authorization": f"Bot {peer.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for body in bad:
            async with session.post(url, json=body) as answer:
                shown = await answer.json()
                assert (answer.status, shown["code"]) == (400, 50035), body
                assert "errors" in shown
        good = {"flags": 32768, "components": [{"type": 10, "content": "v2"}, row]}
        async with session.post(url, json=good) as answer:
            assert answer.status == 200


def in_row(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": 1, "components": list(items)}]


async def test_layouts_are_counted_to_forty(peer: DiscordPeer, bot: Bot, channel: Channel) -> None:
    def layout(texts: int) -> discord.ui.LayoutView:
        view = discord.ui.LayoutView()
        inner = [discord.ui.TextDisplay(f"line {index}") for index in range(texts)]
        view.add_item(discord.ui.Container(*inner))
        return view

    await room(bot, channel).send(view=layout(39))
    [stored] = peer.messages(channel)
    assert "line 38" in stored.text
    raw = {"flags": 32768, "components": layout(39).to_components()}
    raw["components"][0]["components"].append({"type": 10, "content": "one too many"})
    url = f"{peer.api_url}/channels/{channel.id}/messages"
    headers = {"Authorization": f"Bot {peer.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        assert await code_of(session, url, raw) == 50035


BAD_COMMANDS: dict[str, dict[str, Any]] = {
    "upper case": {"name": "Alerts", "description": "x"},
    "space": {"name": "a b", "description": "x"},
    "too long": {"name": "a" * 33, "description": "x"},
    "no description": {"name": "a", "description": ""},
    "long description": {"name": "a", "description": "x" * 101},
    "unknown locale": {"name": "a", "description": "x", "name_localizations": {"jp": "a"}},
    "localised upper case": {"name": "a", "description": "x", "name_localizations": {"de": "A"}},
    "long localised description": {
        "name": "a",
        "description": "x",
        "description_localizations": {"ja": "あ" * 101},
    },
    "required after optional": {
        "name": "a",
        "description": "x",
        "options": [
            {"type": 3, "name": "b", "description": "x"},
            {"type": 3, "name": "c", "description": "x", "required": True},
        ],
    },
    "twice the same option": {
        "name": "a",
        "description": "x",
        "options": [{"type": 3, "name": "b", "description": "x"}] * 2,
    },
    "26 options": {
        "name": "a",
        "description": "x",
        "options": [{"type": 3, "name": f"b{i}", "description": "x"} for i in range(26)],
    },
    "group in a group": {
        "name": "a",
        "description": "x",
        "options": [
            {
                "type": 2,
                "name": "b",
                "description": "x",
                "options": [
                    {
                        "type": 2,
                        "name": "c",
                        "description": "x",
                        "options": [{"type": 1, "name": "d", "description": "x"}],
                    }
                ],
            }
        ],
    },
    "value beside subcommand": {
        "name": "a",
        "description": "x",
        "options": [
            {"type": 1, "name": "b", "description": "x"},
            {"type": 3, "name": "c", "description": "x"},
        ],
    },
    "long choice": {
        "name": "a",
        "description": "x",
        "options": [
            {
                "type": 3,
                "name": "b",
                "description": "x",
                "choices": [{"name": "x" * 101, "value": "x"}],
            }
        ],
    },
    "more than 8000": {
        "name": "a",
        "description": "x",
        "options": [
            {
                "type": 3,
                "name": f"b{i}",
                "description": "x",
                "choices": [{"name": f"{c:02}" * 25, "value": "x" * 100} for c in range(25)],
            }
            for i in range(3)
        ],
    },
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
async def test_commands_outside_the_limits_are_refused(peer: DiscordPeer, name: str) -> None:
    url = f"{peer.api_url}/applications/{peer.world.application_id}/commands"
    headers = {"Authorization": f"Bot {peer.token}"}
    good = {
        "name": "状態",
        "description": "x",
        "name_localizations": {"th": "สถานะ", "de": "zustände"},
    }
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.put(url, json=[good]) as answer:
            assert answer.status == 200, await answer.text()
        async with session.put(url, json=[BAD_COMMANDS[name]]) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 50035)
        async with session.put(url, json=[good, good]) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 50035)


async def test_a_nonce_is_taken_once_within_minutes(
    peer: DiscordPeer, bot: Bot, channel: Channel
) -> None:
    first = await room(bot, channel).send("one", nonce="flip-1")
    again = await room(bot, channel).send("one", nonce="flip-1")
    assert first.id == again.id and len(peer.messages(channel)) == 1
    peer.forget_nonces()
    await room(bot, channel).send("one", nonce="flip-1")
    assert len(peer.messages(channel)) == 2
    await refused(room(bot, channel).send("x", nonce="n" * 26), status=400, code=50035)


async def test_missing_permissions_are_told_apart(
    peer: DiscordPeer, bot: Bot, guild: Guild, channel: Channel
) -> None:
    peer.limits.set("message.create", 100, 5)
    there = room(bot, channel)
    said = peer.say(channel, guild.owner, "hello")
    embed = discord.Embed(title="x")
    peer.set_bot_permissions(channel, deny=["embed_links", "attach_files"])
    await refused(there.send(embed=embed), status=403, code=50013)
    await refused(there.send(file=file()), status=403, code=50013)
    await there.send("with words", embed=embed)
    assert peer.messages(channel)[-1].dropped_embeds
    peer.set_bot_permissions(channel, deny=["read_message_history"])
    reply = there.get_partial_message(said.id).reply("x")
    await refused(reply, status=403, code=160002)
    assert [item async for item in there.history()] == []
    peer.set_bot_permissions(channel, deny=["send_messages"])
    await refused(there.send("x"), status=403, code=50013)
    peer.set_bot_permissions(channel, deny=["view_channel"])
    await refused(there.send("x"), status=403, code=50001)
    peer.set_bot_permissions(channel)
    await refused(there.get_partial_message(said.id).edit(content="x"), status=403, code=50005)
    await there.send("fine")
    peer.delete_channel(channel)
    await refused(there.send("x"), status=404, code=10003)
    assert peer.stats.invalid_requests == 6


def file(name: str = "chart.png") -> discord.File:
    return discord.File(io.BytesIO(b"picture"), filename=name)


async def test_files_replies_history_threads_and_dms_work(
    peer: DiscordPeer, bot: Bot, guild: Guild, channel: Channel
) -> None:
    peer.limits.set("message.create", 100, 5)
    there = room(bot, channel)
    embed = discord.Embed(title="chart").set_image(url="attachment://chart.png")
    sent = await there.send(embed=embed, file=file(), silent=True)
    [stored] = peer.messages(channel)
    assert stored.files == {"chart.png": b"picture"} and stored.flags == 4096
    assert sent.embeds[0].image.url is not None
    assert sent.embeds[0].image.url.startswith("https://cdn")
    await sent.edit(attachments=[file("new.png")], embed=None)
    assert list(stored.files) == ["new.png"] and len(stored.edits) == 1
    answer = await sent.reply("seen")
    assert peer.messages(channel)[-1].reply_to == sent.id and answer.type.value == 19
    numbered = [await there.send(str(index)) for index in range(5)]
    after = [m.id async for m in there.history(after=numbered[1], limit=2)]
    assert after == [numbered[2].id, numbered[3].id]
    before = [m.id async for m in there.history(before=numbered[1], limit=1)]
    assert before == [numbered[0].id]
    around = [m.id async for m in there.history(around=numbered[2], limit=3)]
    assert sorted(around) == [m.id for m in numbered[1:4]]
    thread = await sent.create_thread(name="incident 1")
    await thread.send("in the thread")
    assert peer.world.channels[thread.id].messages[0].content == "in the thread"
    await refused(sent.create_thread(name="again"), status=400, code=160004)
    await numbered[0].delete()
    await refused(there.fetch_message(numbered[0].id), status=404, code=10008)
    person = await bot.fetch_user(guild.add_user("haru").id)
    await person.send("direct")
    peer.world.users[person.id].accepts_dms = False
    await refused(person.send("closed"), status=403, code=50007)


async def test_pings_are_what_allowed_mentions_lets_through(
    peer: DiscordPeer, bot: Bot, guild: Guild, channel: Channel
) -> None:
    peer.limits.set("message.create", 100, 5)
    user = guild.add_user("haru")
    role = guild.add_role("on-call", mentionable=True)
    hidden = guild.add_role("hidden")
    text = f"@everyone {user.mention} {role.mention} {hidden.mention} `<@{guild.owner_id}>`"
    there = room(bot, channel)
    await there.send(text)
    await there.send(text, allowed_mentions=discord.AllowedMentions.none())
    only_role = discord.AllowedMentions(
        everyone=False, users=False, roles=[discord.Object(role.id)]
    )
    sent = await there.send(text, allowed_mentions=only_role)
    await there.send(embed=discord.Embed(description=text))
    open_, none, narrow, embedded = [item.pings for item in peer.messages(channel)]
    assert (open_.users, open_.roles, open_.everyone) == ({user.id}, {role.id}, False)
    assert not none and not embedded
    assert (narrow.users, narrow.roles) == (set(), {role.id})
    plain = await there.send("nothing yet", allowed_mentions=discord.AllowedMentions.none())
    await plain.edit(content=text, allowed_mentions=discord.AllowedMentions.all())
    assert not peer.messages(channel)[-1].pings
    assert sent.role_mentions


async def test_old_messages_take_few_edits(peer: DiscordPeer, bot: Bot, channel: Channel) -> None:
    sent = await room(bot, channel).send("x")
    peer.limit_old_edits(1, older_than_s=0)
    await sent.edit(content="y")
    bot.http.max_ratelimit_timeout = 0.5  # give up instead of trying five times
    with pytest.raises(discord.RateLimited):
        await sent.edit(content="z")
    assert peer.messages(channel)[0].content == "y"


# Rate limits and misfortune


async def test_rate_limits_are_obeyed_by_the_client(
    peer: DiscordPeer, bot: Bot, channel: Channel
) -> None:
    peer.limits.set("message.create", 2, 0.4)
    started = time.monotonic()
    for index in range(6):
        await room(bot, channel).send(str(index))
    assert time.monotonic() - started > 0.75
    assert peer.stats.rate_limited == 0
    assert [item.content for item in peer.messages(channel)] == list("012345")


async def test_rate_limits_are_enforced_on_those_who_do_not_obey(
    peer: DiscordPeer, channel: Channel
) -> None:
    url = f"{peer.api_url}/channels/{channel.id}/messages"
    headers = {"Authorization": f"Bot {peer.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        statuses = []
        for _ in range(7):
            async with session.post(url, json={"content": "x"}) as answer:
                statuses.append(answer.status)
                body = await answer.json()
        assert statuses == [200] * 5 + [429] * 2
        assert body["global"] is False and 0 < body["retry_after"] <= 5
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert int(answer.headers["Retry-After"]) >= 1
        assert peer.stats.rate_limited == peer.stats.invalid_requests == 2
        peer.limits.ban_after_invalid = None
        peer.limits.reset()
        many = [session.get(f"{peer.api_url}/users/@me") for _ in range(60)]
        answers = await asyncio.gather(*many)
        limited = [a for a in answers if a.headers.get("X-RateLimit-Scope") == "global"]
        assert limited and (await limited[0].json())["global"] is True
        for item in answers:
            item.release()


async def test_faults_strike_as_asked(peer: DiscordPeer, bot: Bot, channel: Channel) -> None:
    there = room(bot, channel)
    fault = peer.fail("POST", "/messages$", status=503, times=1)
    await refused(there.send("a"), status=503, code=0)
    await there.send("b")
    assert fault.hits == 1
    lost = peer.lose_answer("POST", "/messages$", times=1)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await there.send("c")
    peer.reset("POST", "/messages$", times=1)
    with pytest.raises((aiohttp.ClientError, OSError)):
        await there.send("d")
    assert lost.hits == 1
    assert [item.content for item in peer.messages(channel)] == ["b", "c"]
    hung = peer.hang("POST", "/messages$")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(there.send("e"), 0.2)
    hung.clear()
    peer.slow("POST", "/messages$", 0.2, times=1)
    started = time.monotonic()
    await there.send("f")
    assert time.monotonic() - started >= 0.2


async def test_webhooks_post_edit_and_refuse(peer: DiscordPeer, channel: Channel) -> None:
    hook = peer.create_webhook(channel)
    async with aiohttp.ClientSession() as session:
        async with session.post(hook.url, json={"content": "quiet"}) as answer:
            assert answer.status == 204
        async with session.post(f"{hook.url}?wait=true", json={"content": "@everyone"}) as answer:
            assert answer.status == 200
            sent = await answer.json()
        edited = f"{hook.url}/messages/{sent['id']}"
        async with session.patch(edited, json={"content": "changed"}) as answer:
            assert answer.status == 200
        async with session.post(hook.url, json={}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 50006)
        async with session.post(hook.url[:-1], json={"content": "x"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, 50027)
    quiet, changed = peer.messages(channel)
    assert quiet.content == "quiet" and changed.content == "changed" and not changed.pings


async def test_waiting_in_vain_shows_the_world(
    peer: DiscordPeer, guild: Guild, channel: Channel
) -> None:
    peer.say(channel, guild.owner, "hello out there")
    with pytest.raises(AssertionError, match="hello out there"):
        await peer.wait_for(lambda: False, 0.05)


async def test_it_runs_alone_and_says_how_to_reach_it() -> None:
    command = [sys.executable, "-m", "tests.peers.discord"]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    try:
        lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
        env = dict(line.split("=", 1) for line in lines)
        headers = {"Authorization": f"Bot {env['DISCORD_TOKEN']}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{env['DISCORD_API_BASE_URL']}/gateway/bot") as answer,
        ):
            assert (await answer.json())["url"] == env["DISCORD_GATEWAY_URL"]
    finally:
        process.terminate()
        await process.communicate()
