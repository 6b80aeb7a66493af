"""The commands against a strict Discord: a real bot, a real store, a fabricated fleet."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from discord import app_commands
from discord.ext import commands

from bot.core.alert import FlipKind
from bot.core.incident import OutboxItem
from bot.core.observation import KumaReport, MonitorStatus, PollProblem
from bot.services.fleet import Fleet
from bot.storage.store import (
    CheckRow,
    Decision,
    Poll,
    ServiceStats,
    StatusChange,
    StoreUnavailable,
)
from tests.cogs_world import (
    LONG,
    NOW,
    ODD_NAMES,
    House,
    host_incident,
    incident,
    make_fleet,
    many,
    reading,
    sample,
)
from tests.peers.discord import (
    Channel,
    DiscordPeer,
    Guild,
    InteractionResult,
    NotRegistered,
    User,
)

JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
COMMANDS: dict[str, dict[str, Any]] = {
    "monitoring_setup": {"channel": "alerts"},
    "status_dashboard": {},
    "service_details": {"service_name": "shop"},
    "monitoring_stats": {},
    "performance": {},
    "alerts active": {},
}


class Stage:
    """A server with an admin and a member, and the bot in it."""

    def __init__(self, peer: DiscordPeer, house: House, guild: Guild) -> None:
        self.peer = peer
        self.house = house
        self.guild = guild
        self.talk: Channel = guild.add_channel("talk")
        self.alerts: Channel = guild.add_channel("alerts")
        self.admin: User = guild.add_user("admin", permissions=["manage_guild"])
        self.member: User = guild.add_user("member")

    async def run(
        self, name: str, user: User | None = None, *, locale: str = "ja", **options: Any
    ) -> InteractionResult:
        result = await self.peer.command(
            self.guild, self.talk, user or self.member, name, options, locale=locale
        )
        assert result.answered, self.peer.dump()
        assert not result.pending
        assert not result.refusals, result.refusals
        return result


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    fleet = make_fleet(
        [
            reading("kuma:1", "Shop", url="https://shop.example/", monitor_type="http"),
            reading("kuma:2", "ブログ", MonitorStatus.DOWN, None),
        ]
    )
    async with DiscordPeer() as peer:
        guild = peer.add_guild("home")
        house = House(tmp_path / "monitoring.db", operators=[str(guild.id)], fleet=fleet)
        await house.store.open()
        scene = Stage(peer, house, guild)
        house.sampler.latest = sample(cpu_usage=23.4, memory_rss=52.5)
        try:
            await house.start_bot(peer)
            yield scene
        finally:
            await house.close()


def first_embed(result: InteractionResult) -> dict[str, Any]:
    assert len(result.embeds) == 1, result
    return result.embeds[0]


def fields(result: InteractionResult) -> dict[str, str]:
    return {item["name"]: item["value"] for item in first_embed(result).get("fields", [])}


# What holds for every command


@pytest.mark.parametrize("name", COMMANDS)
async def test_each_command_answers_in_the_persons_language(stage: Stage, name: str) -> None:
    options = dict(COMMANDS[name])
    if "channel" in options:
        options["channel"] = stage.alerts
    japanese = await stage.run(name, stage.admin, locale="ja", **options)
    assert JAPANESE.search(first_embed(japanese)["title"])
    for locale in ("en-US", "fr"):
        english = await stage.run(name, stage.admin, locale=locale, **options)
        said = english.text.replace("ブログ", "")
        assert not JAPANESE.search(said), said


async def test_every_cog_is_documented_and_every_command_localised(stage: Stage) -> None:
    bot = stage.house.bot
    assert bot is not None
    for cog in bot.cogs.values():
        assert inspect.getdoc(type(cog)), cog
        assert sys_doc(cog), cog
    wanted = {name.split()[0] for name in COMMANDS}
    registered = {c["name"]: c for c in stage.peer.commands.all(None)}
    assert wanted <= set(registered)
    for command in registered.values():
        assert command["dm_permission"] is False or command["contexts"] == [0], command["name"]
        for item in [command, *walk(command)]:
            local = item.get("description_localizations") or {}
            assert {"ja"} <= set(local), item["name"]
            assert {"en-US", "en-GB"} <= set(local), item["name"]
            assert JAPANESE.search(local["ja"]), item["name"]
            assert not JAPANESE.search(local["en-US"]), item["name"]
            assert not item.get("name_localizations"), "names stay as written"
            for choice in item.get("choices", []):
                assert {"ja", "en-US"} <= set(choice.get("name_localizations") or {}), choice


def walk(command: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for option in command.get("options", []):
        found += [option, *walk(option)]
    return found


def sys_doc(cog: commands.Cog) -> str | None:
    return inspect.getdoc(inspect.getmodule(type(cog)))


async def test_the_readme_lists_every_command_with_its_options_and_no_other(
    stage: Stage, root: Path
) -> None:
    said = set(re.findall(r"^\| `/([^`]+)` \|", (root / "README.md").read_text("utf-8"), re.M))
    registered = set()
    for command in stage.peer.commands.all(None):
        subcommands = [o for o in command.get("options", []) if o["type"] == 1]
        for one in subcommands or [command]:
            name = one["name"] if one is command else f"{command['name']} {one['name']}"
            options = [o["name"] for o in one.get("options", [])]
            registered.add(" ".join([name, *options]))
    paths = {"ping`、`/health", "ready", "api/v1/health", "metrics"}
    assert {line for line in said if line not in paths} == registered


async def test_commands_that_change_things_are_hidden_from_members(stage: Stage) -> None:
    registered = {c["name"]: c for c in stage.peer.commands.all(None)}
    manage_guild = 1 << 5
    assert int(registered["monitoring_setup"]["default_member_permissions"]) == manage_guild
    with pytest.raises(PermissionError):
        await stage.run("monitoring_setup", stage.member, channel=stage.alerts)
    for name in ("status_dashboard", "service_details", "monitoring_stats", "performance"):
        assert registered[name]["default_member_permissions"] is None


async def test_commands_keep_answering_within_the_deadline_while_the_store_is_slow(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: Any) -> Any:
        await asyncio.sleep(1.0)
        raise StoreUnavailable("locked")

    monkeypatch.setattr(stage.house.store, "service_stats", slow)
    stage.peer.interactions.first_response_s = 0.6
    for name in ("monitoring_stats", "service_details"):
        result = await stage.run(name, **COMMANDS[name])
        assert result.deferred
        assert "ロックしています" in result.text
        assert "Shop" in result.text or "稼働中サービス" in result.text


async def test_a_store_that_never_answers_ends_in_words_and_not_in_thinking(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr("cogs.answers.READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(stage.house.store, "service_stats", hang)
    result = await stage.run("service_details", service_name="Shop")
    assert "履歴は表示できません" in result.text


# /monitoring_setup


async def test_setup_saves_the_channel_with_the_servers_language(stage: Stage) -> None:
    result = await stage.run("monitoring_setup", stage.admin, locale="en-US", channel=stage.alerts)
    assert result.ephemeral
    embed = first_embed(result)
    assert embed["color"] == 0x00FF00
    assert stage.alerts.mention in result.text
    assert "https://kuma.example/" in result.text
    [config] = await stage.house.store.guild_configs()
    assert config.guild_id == str(stage.guild.id)
    assert config.alert_channel_id == str(stage.alerts.id)
    assert config.locale == "ja"
    assert stage.house.audience.configs == {config.guild_id: config}
    assert stage.peer.messages(stage.alerts) == []
    stage.house.now = NOW + timedelta(hours=1)
    await stage.run("monitoring_setup", stage.admin, channel=stage.talk)
    [again] = await stage.house.store.guild_configs()
    assert (again.created_at, again.updated_at) == (NOW, stage.house.now)
    assert stage.house.audience.configs == {again.guild_id: again}
    assert again.alert_channel_id == str(stage.talk.id)


@pytest.mark.parametrize(
    ("denied", "ja", "en"),
    [
        ("view_channel", "チャンネルを見る", "View Channel"),
        ("send_messages", "メッセージを送信", "Send Messages"),
        ("embed_links", "埋め込みリンク", "Embed Links"),
        ("read_message_history", "メッセージ履歴を読む", "Read Message History"),
    ],
)
async def test_setup_names_a_missing_permission_and_saves_nothing(
    stage: Stage, denied: str, ja: str, en: str
) -> None:
    stage.peer.set_bot_permissions(stage.alerts, deny=[denied])
    await asyncio.sleep(0.05)
    for locale, word in (("ja", ja), ("en-US", en)):
        result = await stage.run(
            "monitoring_setup", stage.admin, locale=locale, channel=stage.alerts
        )
        assert result.ephemeral
        assert re.findall(r"• (.+)", result.content) == [word]
    assert await stage.house.store.guild_configs() == []
    assert stage.house.audience.configs == {}


async def test_setup_goes_on_without_what_only_charts_and_threads_need(stage: Stage) -> None:
    stage.peer.set_bot_permissions(stage.alerts, deny=["attach_files", "create_public_threads"])
    await asyncio.sleep(0.05)
    result = await stage.run("monitoring_setup", stage.admin, locale="en-US", channel=stage.alerts)
    assert "Attach Files, Create Public Threads" in result.text
    assert len(await stage.house.store.guild_configs()) == 1


@pytest.mark.parametrize(
    ("guild_locale", "own_locale", "expected"),
    [("ja", "en-US", "ja"), ("fr", "ja", "en"), ("en-US", "ja", "ja"), ("en-US", "en-GB", "en")],
)
async def test_a_guild_that_cannot_choose_a_language_speaks_its_admins(
    stage: Stage, guild_locale: str, own_locale: str, expected: str
) -> None:
    await stage.peer.command(
        stage.guild,
        stage.talk,
        stage.admin,
        "monitoring_setup",
        {"channel": stage.alerts},
        locale=own_locale,
        guild_locale=guild_locale,
    )
    [config] = await stage.house.store.guild_configs()
    assert config.locale == expected


async def test_setup_refuses_who_may_not_manage_the_server_even_if_discord_lets_them(
    stage: Stage,
) -> None:
    result = await stage.peer.command(
        stage.guild,
        stage.talk,
        stage.member,
        "monitoring_setup",
        {"channel": stage.alerts},
        locale="ja",
        force=True,
    )
    assert result.ephemeral
    assert "権限がありません" in result.content
    assert await stage.house.store.guild_configs() == []


async def test_setup_tells_open_incidents_and_moves_what_waits(stage: Stage) -> None:
    house = stage.house
    mine = incident("kuma:2", detail={"name": "ブログ", "status": "down"})
    other = incident("kuma:1", detail={"name": "Shop", "status": "down"})
    waiting = OutboxItem(
        uuid4(), uuid4(), other.incident_id, FlipKind.FIRED, str(stage.guild.id), "999", NOW
    )
    await house.store.record_decision(Decision(incidents=(mine, other), outbox=(waiting,)))
    house.alerting.open = {i.incident_id: i for i in (mine, other)}
    house.delivery.restore((mine, other), (), (waiting,))
    await stage.run("monitoring_setup", stage.admin, channel=stage.alerts)
    await stage.peer.wait_for(lambda: len(stage.peer.messages(stage.alerts)) == 2, 10)
    told = "\n".join(m.text for m in stage.peer.messages(stage.alerts))
    assert "ブログ" in told
    assert "Shop" in told
    async with asyncio.timeout(10):
        while (await house.store.load_alerting()).outbox:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not house.delivery.queued


async def test_setup_works_without_kuma_and_says_what_is_missing(tmp_path: Path) -> None:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("other", locale="en-US")
        peer.add_guild("second")
        house = House(tmp_path / "monitoring.db", fleet=Fleet(uuid4))
        house.parts.choices = replace(house.parts.choices, kuma_urls=())
        await house.store.open()
        scene = Stage(peer, house, guild)
        try:
            await house.start_bot(peer)
            result = await scene.run("monitoring_setup", scene.admin, channel=scene.alerts)
            assert "UPTIME_KUMA_URL" in result.text
            assert "OPERATOR_GUILD_IDS" in result.text
            [config] = await house.store.guild_configs()
            assert config.locale == "ja"
        finally:
            await house.close()


async def test_setup_is_in_force_although_the_store_cannot_be_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise StoreUnavailable("full")

    monkeypatch.setattr(stage.house.store, "save_guild_config", refuse)
    result = await stage.run("monitoring_setup", stage.admin, channel=stage.alerts)
    assert "まだ書き込めていません" in result.text
    assert str(stage.guild.id) in stage.house.audience.configs
    assert stage.house.recorder.waiting == 1


# /status_dashboard


def refill(stage: Stage, count: int, names: tuple[str, ...] = ()) -> None:
    fleet = stage.house.fleet
    fleet.monitors.clear()
    fleet.apply(KumaReport("kuma", tuple(many(count, names)), "2.1.0"), NOW)


async def test_the_dashboard_pages_through_two_thousand_and_survives_a_restart(
    stage: Stage,
) -> None:
    refill(stage, 2000, ODD_NAMES)
    result = await stage.run("status_dashboard")
    assert not result.ephemeral
    assert [b["label"] for b in result.buttons] == ["最初", "前へ", "更新", "次へ", "最後"]
    assert [b.get("disabled", False) for b in result.buttons] == [True, True, False, False, False]
    assert "1 / 134 ページ" in first_embed(result)["footer"]["text"]
    message = result.message
    assert message is not None
    await stage.peer.press(message, "次へ", stage.member, locale="ja")
    assert "2 / 134 ページ" in message.embeds[0]["footer"]["text"]
    await stage.house.restart_bot(stage.peer)
    result.expire_token()
    pressed = await stage.peer.press(message, "最後", stage.member, locale="ja")
    assert pressed.response_type == 7
    assert "134 / 134 ページ" in message.embeds[0]["footer"]["text"]
    refill(stage, 20)
    await stage.peer.press(message, "前へ", stage.member, locale="ja")
    assert "2 / 2 ページ" in message.embeds[0]["footer"]["text"]


async def test_a_refresh_shows_what_is_true_now(stage: Stage) -> None:
    result = await stage.run("status_dashboard", locale="en-US")
    assert "Up: 1/2" in result.text
    row = reading("kuma:2", "ブログ", MonitorStatus.UP, 50.0)
    stage.house.fleet.apply(KumaReport("kuma", (row,)), NOW)
    await stage.peer.press(result, "Refresh", stage.member, locale="en-US")
    assert "❔ unknown: 1" in result.text


async def test_others_get_a_copy_of_their_own_instead_of_turning_ones_page(stage: Stage) -> None:
    refill(stage, 100)
    result = await stage.run("status_dashboard")
    before = first_embed(result)
    pressed = await stage.peer.press(result, "次へ", stage.admin, locale="en-US")
    assert pressed.ephemeral
    assert "Page 2 of 7" in pressed.embeds[0]["footer"]["text"]
    assert first_embed(result) == before
    turned = await stage.peer.press(pressed, "Next", stage.admin, locale="en-US")
    assert turned.response_type == 7
    assert "Page 3 of 7" in turned.embeds[0]["footer"]["text"]


async def test_buttons_leave_nothing_in_the_clients_memory(stage: Stage) -> None:
    assert stage.house.bot is not None
    for _ in range(3):
        result = await stage.run("status_dashboard")
        await stage.peer.press(result, "更新", stage.member, locale="ja")
    store = stage.house.bot._connection._view_store
    assert not store._synced_message_views
    assert not store._views


async def test_a_mishap_behind_a_button_is_said_and_not_left_thinking(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = await stage.run("status_dashboard")
    # Loading an extension imports it anew, past what this file has imported.
    monkeypatch.setattr(sys.modules["cogs.uptimekuma.dashboard"], "dashboard_page", None)
    pressed = await stage.peer.press(result, "更新", stage.member, locale="en-US")
    assert pressed.ephemeral
    assert "did not work" in pressed.content
    assert "TypeError" in caplog.text


async def test_nobody_is_pinged_whatever_a_monitor_is_called(stage: Stage) -> None:
    member = stage.member
    names = ("@everyone", "@here", member.mention, f"<@&{stage.guild.id}>")
    refill(stage, 8, names)
    results = [await stage.run("status_dashboard")]
    for name in names:
        results.append(await stage.run("service_details", service_name=name))
    for result in results:
        assert result.message is not None
        assert not result.message.pings
        assert result.message.allowed_mentions == {"parse": []}


async def test_the_dashboard_says_when_the_data_is_stale(stage: Stage) -> None:
    stage.house.fleet.fail("kuma", PollProblem.TIMEOUT, "", NOW)
    result = await stage.run("status_dashboard")
    assert "時間内に返事がありません" in result.text
    assert "12秒前" in result.text


# /service_details


async def test_details_with_history_from_the_store(stage: Stage) -> None:
    store, monitor = stage.house.store, stage.house.fleet.monitors["kuma:1"].identity
    for minutes in range(120, 0, -1):
        status = MonitorStatus.DOWN if minutes > 108 else MonitorStatus.UP
        time_ms = None if status is MonitorStatus.DOWN else 100.0
        changes = []
        if minutes in (120, 108):
            at = NOW - timedelta(minutes=minutes)
            changes = [StatusChange(uuid4(), monitor, status, at, time_ms)]
        check = CheckRow("kuma:1", status, time_ms)
        at = NOW - timedelta(minutes=minutes)
        await store.save_poll(Poll(at, "kuma", 120, (check,), changes))
    result = await stage.run("service_details", service_name="shop")
    assert not result.ephemeral
    assert first_embed(result)["title"] == "🔍 Shop - 詳細情報"
    shown = fields(result)
    assert shown["稼働率 (24時間)"] == "90% (不明 22時間)"
    assert "24時間の平均: 100 ms" in shown["応答時間"]
    assert shown["最近の変化"].splitlines()[0].startswith("🟢")
    assert shown["最近の変化"].splitlines()[1].startswith("🔴")
    assert "shop.example" not in result.text


async def test_managers_see_the_address_and_only_they(stage: Stage) -> None:
    result = await stage.run("service_details", stage.admin, service_name="Shop")
    assert "https://shop.example/" in result.text
    assert result.ephemeral


async def test_autocomplete_offers_what_contains_the_text(stage: Stage) -> None:
    refill(stage, 500)
    peer, guild, talk, member = stage.peer, stage.guild, stage.talk, stage.member
    ask = ("service_details", "service_name")
    found = await peer.autocomplete(guild, talk, member, *ask, "サービス 04")
    assert len(found) == 25
    assert all("サービス 04" in choice["name"] for choice in found)
    assert await peer.autocomplete(guild, talk, member, *ask, "nothing") == []
    worst = await peer.autocomplete(guild, talk, member, *ask, "")
    assert all(choice["name"].startswith("🔴") for choice in worst)
    result = await stage.run("service_details", service_name=found[0]["value"])
    assert "サービス 04" in first_embed(result)["title"]


async def test_autocomplete_fits_for_long_and_odd_names(stage: Stage) -> None:
    refill(stage, 28, ODD_NAMES)
    for typed in ("", LONG[:50], "*"):
        await stage.peer.autocomplete(
            stage.guild, stage.talk, stage.member, "service_details", "service_name", typed
        )


async def test_twins_are_offered_and_the_choice_works_after_a_restart(stage: Stage) -> None:
    rows = (
        reading("kuma:1", "Web", monitor_type="http"),
        reading("kuma:2", "web", MonitorStatus.DOWN, None, monitor_type="ping"),
    )
    stage.house.fleet.apply(KumaReport("kuma", rows), NOW)
    result = await stage.run("service_details", service_name="WEB")
    assert result.ephemeral
    assert "2 件あります" in result.content
    await stage.house.restart_bot(stage.peer)
    chosen = await stage.peer.select(result, "comet:monitor", "kuma:2", stage.member, locale="ja")
    assert "ping" in fields(chosen)["タイプ"]


async def test_an_unknown_name_gets_look_alikes_ephemerally(stage: Stage) -> None:
    result = await stage.run("service_details", service_name="Shopp `@everyone`")
    assert result.ephemeral
    assert "見つかりません" in result.content
    assert "@everyone" not in result.content.replace("@everyone\u200b", "")
    chosen = await stage.peer.select(result, "comet:monitor", "kuma:1", stage.member)
    assert "Shop" in first_embed(chosen)["title"]
    nothing = await stage.run("service_details", service_name="zzzzz")
    assert nothing.ephemeral
    assert "/status_dashboard" in nothing.content
    assert not nothing.components


async def test_a_monitor_chosen_too_late_is_said_to_be_gone(stage: Stage) -> None:
    result = await stage.run("service_details", service_name="Shopp")
    stage.house.fleet.forget("kuma:1")
    chosen = await stage.peer.select(
        result, "comet:monitor", "kuma:1", stage.member, locale="en-US"
    )
    assert chosen.ephemeral
    assert "no service" in chosen.content


# /monitoring_stats, /performance, /alerts active


async def test_statistics_come_from_the_store(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        await stage.house.store.save_sample(sample(NOW - timedelta(seconds=10 * n), uptime=1.0))
    over = incident(detail={"name": "ブログ"}, fired_at=NOW - timedelta(hours=1), resolved_at=NOW)
    await stage.house.store.record_decision(Decision(incidents=(over,)))

    async def stats(*_: Any) -> ServiceStats:
        return ServiceStats(None, 2880, 990.0, 10.0, 0.0, 0.0, 42.0)

    monkeypatch.setattr(stage.house.store, "service_stats", stats)
    shown = fields(await stage.run("monitoring_stats"))
    assert shown["総監視サービス数"] == "2"
    assert shown["総チェック回数"] == "2,880"
    assert shown["全体稼働率"] == "99%"
    assert "ブログ" in shown["最近のインシデント"]
    assert "1時間" in shown["最近のインシデント"]
    assert "24時間に保存した観測: 3" in shown["🩺 監視自身の健全性"]


async def test_performance_is_whole_for_operators_and_little_for_others(stage: Stage) -> None:
    assert "23.4%" in (await stage.run("performance")).text
    other = Stage(stage.peer, stage.house, stage.peer.add_guild("other"))
    await asyncio.sleep(0.1)
    said = (await other.run("performance")).text
    assert "23.4%" not in said
    assert "運営サーバー" in said


async def test_alerts_show_each_server_its_own_and_page(stage: Stage) -> None:
    rows = [incident(f"kuma:{n}", detail={"name": f"s{n}"}) for n in range(15)]
    rows.append(host_incident())
    stage.house.alerting.open = {i.incident_id: i for i in rows}
    result = await stage.run("alerts active", locale="en-US")
    assert "Open alerts: 16" in result.text
    await stage.house.restart_bot(stage.peer)
    await stage.peer.press(result, "Next", stage.member, locale="en-US")
    assert len(fields(result)) == 6
    other = Stage(stage.peer, stage.house, stage.peer.add_guild("other"))
    await asyncio.sleep(0.1)
    assert "Open alerts: 15" in (await other.run("alerts active", locale="en-US")).text


async def test_the_group_itself_cannot_be_called(stage: Stage) -> None:
    with pytest.raises(NotRegistered):
        await stage.run("alerts")


async def test_cogs_can_be_unloaded_and_take_their_buttons_along(stage: Stage) -> None:
    bot = stage.house.bot
    assert bot is not None
    patterns = set(bot._connection._view_store._dynamic_items)
    for name in ("cogs.uptimekuma", "cogs.performance", "cogs.alerts"):
        await bot.unload_extension(name)
    left = {p.pattern for p in bot._connection._view_store._dynamic_items}
    assert not any("comet:page" in pattern or pattern == "comet:monitor" for pattern in left)
    for name in ("cogs.uptimekuma", "cogs.performance", "cogs.alerts"):
        await bot.load_extension(name)
    again = {p.pattern for p in bot._connection._view_store._dynamic_items}
    assert again == {p.pattern for p in patterns}
    assert isinstance(bot.tree.get_command("alerts"), app_commands.Group)
