"""The webhook notifier against the Discord peer: what happened is told apart, nothing leaks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from bot.core.message import DeliveryError, DeliveryProblem, OutgoingMessage
from bot.services.audience import WEBHOOK_CHANNEL, Destination
from bot.webhook import WebhookNotifier
from tests.peers.discord import Channel, DiscordPeer, Webhook

PLACE = Destination(None, WEBHOOK_CHANNEL)
CARD = OutgoingMessage(embeds=({"title": "🔴 down", "description": "@everyone <@1>"},))


@dataclass
class Stage:
    discord: DiscordPeer
    channel: Channel
    hook: Webhook
    notifier: WebhookNotifier
    session: aiohttp.ClientSession


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    async with DiscordPeer() as discord, aiohttp.ClientSession() as session:
        channel = discord.add_guild("HFS").add_channel("fallback")
        hook = discord.create_webhook(channel)
        yield Stage(discord, channel, hook, WebhookNotifier(session, hook.url), session)


async def problem_of(stage: Stage, *, edit: str | None = None) -> DeliveryProblem:
    with pytest.raises(DeliveryError) as caught:
        if edit is None:
            await stage.notifier.post(PLACE, CARD)
        else:
            await stage.notifier.edit(PLACE, edit, CARD)
    error = caught.value
    assert stage.hook.token not in f"{error!s} {error!r} {error.__cause__} {error.__context__}"
    return error.problem


async def test_it_posts_and_edits_without_pinging(stage: Stage) -> None:
    guild = stage.channel.guild
    assert guild is not None
    loud = OutgoingMessage(content=f"@everyone <@{guild.owner.id}>", embeds=CARD.embeds)
    message_id = await stage.notifier.post(PLACE, loud)
    (message,) = stage.discord.messages(stage.channel)
    assert str(message.id) == message_id
    assert not message.pings
    assert not message.flags & 4096
    await stage.notifier.edit(PLACE, message_id, OutgoingMessage(embeds=({"title": "✅ up"},)))
    assert message.embeds == [{"title": "✅ up"}]
    assert message.content == "", "what the edit does not name goes"
    assert not message.pings


async def test_a_silent_message_makes_no_noise_and_a_reply_comes_as_a_message(
    stage: Stage,
) -> None:
    reply = OutgoingMessage(content="✅ back", is_silent=True, reply_to="123456789012345678")
    await stage.notifier.post(PLACE, reply)
    (message,) = stage.discord.messages(stage.channel)
    assert message.flags & 4096
    assert message.reply_to is None


async def test_a_short_rate_limit_is_waited_for(stage: Stage) -> None:
    stage.discord.fail(
        "POST", "/webhooks/", status=429, times=2, body={"retry_after": 0.2, "global": False}
    )
    began_s = time.monotonic()
    await stage.notifier.post(PLACE, CARD)
    assert time.monotonic() - began_s >= 0.4
    assert len(stage.discord.messages(stage.channel)) == 1


@pytest.mark.parametrize("where", ["body", "header"])
async def test_a_long_rate_limit_is_left_to_the_outbox(stage: Stage, where: str) -> None:
    stage.discord.fail(
        "POST",
        "/webhooks/",
        status=429,
        body={"retry_after": 600.0} if where == "body" else "slow down",
        headers={"Retry-After": "600"},
    )
    async with asyncio.timeout(2):
        assert await problem_of(stage) is DeliveryProblem.TRANSIENT


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (400, DeliveryProblem.REJECTED),
        (401, DeliveryProblem.CHANNEL_GONE),
        (403, DeliveryProblem.FORBIDDEN),
        (404, DeliveryProblem.CHANNEL_GONE),
        (500, DeliveryProblem.UNCERTAIN),
        (502, DeliveryProblem.UNCERTAIN),
        (302, DeliveryProblem.TRANSIENT),
    ],
)
async def test_each_refusal_has_its_problem(
    stage: Stage, status: int, problem: DeliveryProblem
) -> None:
    stage.discord.fail("POST", "/webhooks/", status=status, headers={"Location": "/elsewhere"})
    assert await problem_of(stage) is problem


async def test_a_deleted_message_is_told_from_a_deleted_webhook(stage: Stage) -> None:
    message_id = await stage.notifier.post(PLACE, CARD)
    stage.discord.delete_message(stage.discord.messages(stage.channel)[0])
    assert await problem_of(stage, edit=message_id) is DeliveryProblem.MESSAGE_GONE
    stage.discord.delete_channel(stage.channel)
    assert await problem_of(stage, edit=message_id) is DeliveryProblem.CHANNEL_GONE
    assert await problem_of(stage) is DeliveryProblem.CHANNEL_GONE


async def test_what_discord_never_takes_is_rejected(stage: Stage) -> None:
    with pytest.raises(DeliveryError) as caught:
        await stage.notifier.post(PLACE, OutgoingMessage(content="x" * 2001))
    assert caught.value.problem is DeliveryProblem.REJECTED
    assert "50035" in caught.value.detail


async def test_a_lost_answer_is_uncertain_and_a_closed_port_is_not(stage: Stage) -> None:
    stage.discord.lose_answer("POST", "/webhooks/", times=1)
    assert await problem_of(stage) is DeliveryProblem.UNCERTAIN
    assert len(stage.discord.messages(stage.channel)) == 1
    await stage.discord.stop()
    assert await problem_of(stage) is DeliveryProblem.TRANSIENT


async def test_no_answer_in_time_is_uncertain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.webhook.TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    stage.discord.hang("POST", "/webhooks/")
    assert await problem_of(stage) is DeliveryProblem.UNCERTAIN


async def test_when_old_messages_take_no_more_edits_the_old_card_goes(stage: Stage) -> None:
    message_id = await stage.notifier.post(PLACE, CARD)
    body = {"message": "Maximum number of edits", "code": 30046, "retry_after": 1.0}
    stage.discord.fail("PATCH", "/messages/", status=429, body=body)
    assert await problem_of(stage, edit=message_id) is DeliveryProblem.MESSAGE_GONE
    assert not stage.discord.messages(stage.channel)


async def test_a_page_that_is_not_discord_is_no_receipt(stage: Stage) -> None:
    stage.discord.fail("POST", "/webhooks/", status=200, body="<html>welcome</html>")
    assert await problem_of(stage) is DeliveryProblem.TRANSIENT


async def test_the_thread_of_the_address_stays_and_the_token_is_never_shown(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        notifier = WebhookNotifier(stage.session, f"{stage.hook.url}?thread_id=5&wait=false")
        with pytest.raises(DeliveryError) as caught:
            await notifier.post(PLACE, CARD)
    assert caught.value.problem is DeliveryProblem.CHANNEL_GONE
    (request,) = stage.discord.requests_to("POST", "/webhooks/")
    assert stage.hook.token not in caplog.text + repr(notifier)
    assert request.status == 404
    assert await stage.notifier.find_card(PLACE, "ABCD1234") is None
    assert await stage.notifier.find_reply(PLACE, "1", "✅") is None
