"""What a newcomer sees: no settings at all, and settings that are wrong."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest

from tests.peers.bot_process import BotProcess
from tests.peers.discord import DiscordPeer


async def test_with_nothing_configured_it_samples_within_seconds_and_says_what_to_do(
    tmp_path: Path,
) -> None:
    bot = BotProcess(tmp_path, {"COMET_LOCALE": "ja", "SAMPLE_INTERVAL_S": "10"})
    async with bot:
        rows = await bot.wait_rows("SELECT timestamp, ram_usage, status FROM system_stats")
        assert time.monotonic() - bot.started_s < 5
        assert 0 < rows[0][1] <= 100
        assert rows[0][2] == "online"
        await bot.wait_log("DISCORD_TOKEN が未設定")
        await bot.wait_log("UPTIME_KUMA_URL")
        code, took_s = await bot.stop()
        assert code == 0
        assert took_s < 5
    assert bot.db_path.stat().st_mode & 0o777 == 0o640
    assert sum("DISCORD_TOKEN が未設定" in line for line in bot.log) == 1
    assert not any("Traceback" in line for line in bot.log)


async def test_one_snapshot_per_beat_and_the_views_answer(tmp_path: Path) -> None:
    async with BotProcess(tmp_path) as bot:
        await bot.wait_rows("SELECT count(*) FROM system_stats HAVING count(*) >= 5")
        values = dict(bot.query("SELECT metric_name, metric_value FROM latest_metrics"))
        assert {"cpu_usage", "memory_usage", "disk_usage", "load_average_1m"} <= set(values)
        assert "ping_gateway" not in values
        (gap,) = bot.query(
            "SELECT max(gap) FROM (SELECT (julianday(timestamp) - julianday(lag(timestamp) OVER"
            " (ORDER BY timestamp))) * 86400 AS gap FROM system_stats)"
        )[0]
        assert 0.5 < gap < 3


async def test_health_and_readiness_answer_over_http(tmp_path: Path) -> None:
    async with BotProcess(tmp_path) as bot:
        url = await bot.web_url()
        await bot.wait_rows("SELECT 1 FROM system_stats")

        def get(path: str) -> tuple[int, str]:
            with urllib.request.urlopen(url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()

        assert get("/ping")[0] == 200
        assert get("/health")[0] == 200
        status, body = get("/ready")
        assert status == 200
        assert json.loads(body)
        series = [line for line in get("/metrics")[1].splitlines() if not line.startswith("#")]
        assert series
        assert all(line.startswith("comet_") for line in series)


async def test_every_wrong_setting_is_named_at_once_and_no_secret_is_shown(tmp_path: Path) -> None:
    secret = "hush-hush-" + "x" * 30
    bot = BotProcess(
        tmp_path,
        {
            "SAMPLE_INTERVAL_S": "zero",
            "WEB_HOST": "0.0.0.0",
            "COMET_TIMEZONE": "Mars/Olympus",
            "DISCORD_TOKEN": f"Bot {secret}",
        },
    )
    await bot.start()
    assert await bot.wait_exit() == 2
    said = "\n".join(bot.log)
    for name in ("SAMPLE_INTERVAL_S", "WEB_HOST", "WEB_TOKEN", "COMET_TIMEZONE", "DISCORD_TOKEN"):
        assert name in said
    assert secret not in said
    assert not bot.db_path.exists()


async def test_a_wrong_token_ends_with_a_plain_sentence(tmp_path: Path) -> None:
    async with DiscordPeer() as discord:
        wrong = "wrong.token.value-that-nobody-gave"
        bot = BotProcess(tmp_path, {**discord.env(), "DISCORD_TOKEN": wrong})
        await bot.start()
        assert await bot.wait_exit() == 2
        assert any("Discord refused DISCORD_TOKEN" in line for line in bot.log)
        assert not any("Traceback" in line or wrong in line for line in bot.log)


@pytest.mark.parametrize("verb", ["--help", "check", "migrate"])
async def test_every_verb_answers(tmp_path: Path, verb: str) -> None:
    bot = BotProcess(tmp_path)
    await bot.start(verb)
    assert await bot.wait_exit() == 0, bot.log
    assert bot.log


async def test_a_taken_web_port_does_not_stop_the_watch(tmp_path: Path, free_port: object) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with BotProcess(tmp_path, {"WEB_PORT": str(port)}) as bot:
            await bot.wait_log("WEB_PORT")
            await bot.wait_rows("SELECT count(*) FROM system_stats HAVING count(*) >= 2")
