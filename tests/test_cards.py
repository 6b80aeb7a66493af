"""Cards say what is so, begin with their state, fit Discord's limits and can ping nobody."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import discord_text as text
from bot.cards import DARK_RED, GREEN, GREY, ORANGE, RED, CardRenderer
from bot.core.alert import Ending, FlipKind
from bot.core.incident import Card, Incident
from bot.core.message import OutgoingMessage
from bot.core.observation import PollProblem
from bot.core.rule import Severity
from bot.core.rule_text import load_rules
from bot.i18n import Translator, supported, texts
from tests.conftest import ROOT
from tests.peers.discord.errors import FormErrors
from tests.peers.discord.limits import check_content, check_embeds

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
JST = timezone(timedelta(hours=9), "JST")
RENDERER = CardRenderer(Translator("ja"), JST)
BUILT_IN = load_rules((ROOT / "bot" / "rules.toml").read_text("utf-8"))
SYMBOLS = ("🔴", "✅", "⚠️", "🚨", "❔", "🟡", "🔧")


def incident(**changes: Any) -> Incident:
    """service_down of a shop, open since two minutes."""
    base = Incident(
        incident_id=UUID(int=1),
        rule_name="service_down",
        subject="main:1",
        severity=Severity.CRITICAL,
        category="service",
        scope="service",
        metric="monitor_down",
        level=1.0,
        fired_at=NOW - timedelta(seconds=125),
        value=1.0,
        status="down",
        detail={"name": "shop", "status": "down", "url": "https://shop.example/x", "type": "http"},
    )
    return replace(base, **changes)


def cpu(**changes: Any) -> Incident:
    """HighCPU at 93.2 %."""
    base = {
        "rule_name": "HighCPU",
        "subject": "",
        "severity": Severity.WARNING,
        "category": "system",
        "scope": "operator",
        "metric": "cpu_usage",
        "level": 80.0,
        "value": 93.2,
        "status": "",
        "detail": {"file": None, "problem": None},
    }
    return incident(**{**base, **changes})


def slow(**changes: Any) -> Incident:
    base = {
        "rule_name": "service_slow",
        "severity": Severity.WARNING,
        "metric": "monitor_slowness",
        "value": 1.4,
        "status": "up",
    }
    return incident(**{**base, **changes})


def kuma(**changes: Any) -> Incident:
    base = {
        "rule_name": "KumaUnreachable",
        "subject": "main",
        "metric": "kuma_staleness",
        "value": 1.2,
        "status": "",
        "detail": {
            "name": "main",
            "problem": "unauthorized",
            "last_good_at": (NOW - timedelta(minutes=3)).isoformat(),
            "monitors": 42,
        },
    }
    return incident(**{**base, **changes})


def ended(one: Incident, ending: Ending | None = Ending.CLEARED, **changes: Any) -> Incident:
    return replace(one, **{"resolved_at": NOW, "ending": ending, **changes})


def card_of(*incidents: Incident, is_storm: bool = False, **changes: Any) -> Card:
    base = Card(
        card_id=UUID(int=2),
        marker="ABCD1234",
        guild_id="1",
        channel_id="2",
        opened_at=NOW,
        incident_ids=tuple(one.incident_id for one in incidents),
        is_storm=is_storm,
        attempted_at=min((one.fired_at for one in incidents), default=NOW),
    )
    return replace(base, **changes)


def draw(*incidents: Incident, locale: str | None = "en", **changes: Any) -> dict[str, Any]:
    changes.setdefault("is_storm", len(incidents) > 1)
    message = RENDERER.card(card_of(*incidents, **changes), incidents, locale, NOW)
    (embed,) = message.embeds
    check(message)
    return dict(embed)


def said(embed: dict[str, Any]) -> str:
    fields = [f"{field['name']}: {field['value']}" for field in embed.get("fields", ())]
    return "\n".join([embed["title"], embed["description"], *fields])


def reply(*incidents: Incident, kind: FlipKind = FlipKind.RESOLVED, locale: str = "en") -> str:
    card = card_of(*incidents, is_storm=len(incidents) > 1)
    message = RENDERER.reply(card, incidents, kind, locale, NOW)
    check(message)
    assert message.content is not None
    return message.content


def check(message: OutgoingMessage) -> None:
    """Every limit the strict peer knows, counted in UTF-16 units besides; nothing can ping."""
    faults = FormErrors()
    embeds = json.loads(json.dumps([dict(embed) for embed in message.embeds]))
    check_embeds(faults, embeds)
    check_content(faults, message.content)
    faults.raise_if_any()
    assert message.content or embeds
    assert text.units(message.content or "") <= text.CONTENT_LIMIT
    assert sum(map(text.embed_size, embeds)) <= text.EMBEDS_LIMIT
    assert "\n" not in (message.content or "")
    headline = message.content or embeds[0]["title"]
    assert headline.startswith(SYMBOLS)
    shown = "\n".join([message.content or "", *map(said, embeds)])
    shown.encode()
    assert not re.search(r"@(everyone|here)|<@[!&]?\d|<#\d", shown, re.IGNORECASE)
    for embed in embeds:
        assert text.units(embed["title"]) <= text.TITLE_LIMIT
        assert text.units(embed["description"]) <= text.DESCRIPTION_LIMIT
        for field in embed.get("fields", ()):
            assert 0 < text.units(field["name"]) <= text.FIELD_NAME_LIMIT
            assert 0 < text.units(field["value"]) <= text.FIELD_VALUE_LIMIT


# -- one incident -----------------------------------------------------------------------------


def test_a_service_down_looks_as_it_was_wished() -> None:
    embed = draw(incident(detail={"name": "shop", "reason": "timeout"}), locale="ja")
    assert embed["title"] == "🔴 サービスダウン検出"
    assert embed["description"].startswith("**shop** がダウンしています。")
    assert embed["color"] == RED
    assert "エラー: timeout" in said(embed)
    assert embed["footer"]["text"] == "C.O.M.E.T. · #ABCD1234"
    assert datetime.fromisoformat(embed["timestamp"]) == NOW - timedelta(seconds=125)
    seconds = int((NOW - timedelta(seconds=125)).timestamp())
    assert f"<t:{seconds}:F> (<t:{seconds}:R>)" in said(embed)


def test_a_recovery_says_how_long_and_how_much_of_it_nobody_saw() -> None:
    over = ended(
        incident(unknown_s=65.0, detail={"name": "shop", "uptime_24h": 0.99999}), status="up"
    )
    embed = draw(over, locale="ja")
    assert embed["title"] == "✅ サービス復旧"
    assert embed["color"] == GREEN
    assert "ダウン時間: 2分5秒、うち 1分5秒 は不明" in said(embed)
    assert "99.99%" in said(embed), "an outage in it is never rounded away"
    assert reply(over, locale="ja") == (
        "✅ **shop** は復旧しました（ダウン時間 2分5秒、うち 1分5秒 は不明）"
    )
    assert (
        reply(over) == "✅ **shop** has recovered (downtime 2 min 5 s, of which 1 min 5 s unknown)"
    )


@pytest.mark.parametrize("ending", [Ending.RULE_CHANGED, Ending.RETIRED, None])
@pytest.mark.parametrize("one", [incident(), cpu(), slow(), kuma()])
def test_only_a_value_seen_to_be_good_is_a_recovery(one: Incident, ending: Ending | None) -> None:
    over = ended(one, ending)
    embed = draw(over)
    assert embed["title"].startswith("❔")
    assert embed["color"] == GREY
    for shown in (said(embed), reply(over), RENDERER.describe(over)):
        assert "✅" not in shown
    if ending is not None:
        assert "not a recovery" in said(embed)
        assert "復旧ではありません" in RENDERER.describe(over)


@pytest.mark.parametrize(
    ("status", "symbol", "colour"),
    [
        ("down", "🔴", RED),
        ("", "🔴", RED),
        ("unknown", "❔", GREY),
        ("pending", "🟡", ORANGE),
        ("maintenance", "🔧", ORANGE),
        ("up", "🟡", ORANGE),
    ],
)
def test_an_open_outage_shows_the_state_of_its_monitor(
    status: str, symbol: str, colour: int
) -> None:
    embed = draw(incident(status=status))
    assert embed["title"].startswith(symbol)
    assert embed["color"] == colour
    assert "shop" in embed["description"]


@pytest.mark.parametrize(
    ("rule_name", "severity", "word", "colour"),
    [
        ("CriticalCPU", Severity.CRITICAL, "CRITICAL", DARK_RED),
        ("HighCPU", Severity.WARNING, "MEDIUM", ORANGE),
        ("HighMemory", Severity.WARNING, "HIGH", RED),
        ("MyRule", Severity.INFO, "LOW", GREY),
    ],
)
def test_a_rule_alert_carries_its_severity(
    rule_name: str, severity: Severity, word: str, colour: int
) -> None:
    embed = draw(cpu(rule_name=rule_name, severity=severity), locale="ja")
    assert embed["title"] == f"🚨 {word} アラート"
    assert embed["color"] == colour
    assert "93.2% > 80%" in said(embed)
    assert rule_name in said(embed)


def test_value_and_level_never_look_equal_when_they_are_not() -> None:
    assert "80.04% > 80%" in said(draw(cpu(value=80.04)))
    assert "Value: 80.5% > 80%" in said(draw(cpu(value=80.5)))


def test_an_alert_without_data_is_unknown_not_fine() -> None:
    embed = draw(cpu(status="unknown"))
    assert embed["title"].startswith("❔")
    assert "Last value" in said(embed)
    assert "not known" in said(embed)


def test_warnings_about_services() -> None:
    embed = draw(slow(), locale="ja")
    assert embed["title"] == "⚠️ サービス警告"
    assert "**shop** で問題が検出されました。" in embed["description"]
    assert "応答時間が遅延しています" in embed["description"]
    assert embed["color"] == ORANGE
    certificate = slow(
        rule_name="certificate_expiring",
        metric="monitor_cert_days_remaining",
        value=2.5,
        level=3.0,
    )
    assert draw(certificate)["title"].startswith("⚠️")
    worse = replace(certificate, severity=Severity.CRITICAL)
    assert draw(worse)["title"] == "🚨 CRITICAL alert"
    assert "2.5 d < 3 d" in said(draw(worse))
    assert reply(worse, kind=FlipKind.ESCALATED) == (
        "🚨 **shop** is CRITICAL now (Certificate expires soon · 2.5 d < 3 d)"
    )


def test_kuma_away_says_that_services_are_unknown_and_why() -> None:
    embed = draw(kuma(), locale="ja")
    assert embed["title"] == "❔ Uptime Kuma に接続できません"
    assert "状態は不明" in embed["description"]
    assert texts("ja")["problem.unauthorized"] in embed["description"]
    assert f"<t:{int((NOW - timedelta(minutes=3)).timestamp())}:R>" in said(embed)
    assert "42" in said(embed)
    never = kuma(detail={"name": "main", "problem": "timeout", "last_good_at": None})
    assert "never yet" in said(draw(never))
    assert draw(ended(kuma()))["title"].startswith("✅")
    assert reply(ended(kuma())).startswith("✅")


def test_a_store_that_refuses_names_the_remedy() -> None:
    failing = cpu(
        rule_name="LocalStoreFailing",
        metric="store_failing",
        severity=Severity.CRITICAL,
        value=30.0,
        level=10.0,
        detail={"problem": "full"},
    )
    assert texts("en")["problem.store.full"] in said(draw(failing))
    assert "30 s > 10 s" in said(draw(failing))
    aside = replace(
        failing,
        rule_name="StoreSetAside",
        metric="store_set_aside",
        detail={"file": "monitoring.db.corrupt-1", "problem": None},
    )
    assert "`monitoring.db.corrupt-1`" in said(draw(aside))


def test_a_remote_store_that_is_away_names_why_while_it_is() -> None:
    away = cpu(
        rule_name="DatabaseConnectionLost",
        metric="remote_away",
        severity=Severity.CRITICAL,
        value=45.0,
        level=30.0,
        detail={"problem": None, "remote": "supabase", "remote_problem": "key"},
    )
    assert texts("en")["problem.remote.key"] in said(draw(away))
    assert texts("en")["problem.remote.key"] not in said(draw(ended(away)))
    strange = replace(away, detail={"remote_problem": "strange"})
    assert "strange" in said(draw(strange))


def test_a_dead_task_is_named() -> None:
    dead = cpu(
        rule_name="TaskDead", subject="sampler", metric="task_lateness", value=3.2, level=3.0
    )
    assert "**sampler**" in draw(dead)["description"]
    assert "3.2 periods > 3 periods" in said(draw(dead))
    assert "sampler" in reply(ended(dead))


def test_a_card_that_came_late_says_so() -> None:
    fired_at = NOW - timedelta(minutes=14)
    on_time = incident(fired_at=fired_at)
    assert "Late" not in said(draw(on_time, attempted_at=fired_at + timedelta(seconds=29)))
    late = draw(on_time, attempted_at=NOW)
    assert "Delivered 14 min after it began" in said(late)
    assert "Delivered 14 min" in said(draw(on_time, attempted_at=None)), "the first drawing too"


def test_addresses_are_links_only_where_discord_takes_them() -> None:
    def shown(url: str) -> str:
        return said(draw(incident(detail={"name": "x", "url": url})))

    assert "URL: https://shop.example/x" in shown("https://shop.example/x")
    assert "URL: `http://uptime-kuma:3001`" in shown("http://uptime-kuma:3001")
    assert "URL: `https://shop.example/(x)`" in shown("https://shop.example/(x)")


@pytest.mark.parametrize(
    ("one", "kind", "is_silent"),
    [
        (incident(), None, False),
        (incident(silent=True), None, True),
        (cpu(severity=Severity.INFO), None, True),
        (ended(incident()), FlipKind.RESOLVED, True),
        (slow(severity=Severity.CRITICAL), FlipKind.ESCALATED, False),
        (slow(severity=Severity.CRITICAL, silent=True), FlipKind.ESCALATED, True),
    ],
)
def test_who_is_woken(one: Incident, kind: FlipKind | None, is_silent: bool) -> None:
    if kind is None:
        message = RENDERER.card(card_of(one), [one], None, NOW)
    else:
        message = RENDERER.reply(card_of(one), [one], kind, None, NOW)
    assert message.is_silent is is_silent


def test_every_built_in_rule_has_title_and_advice_in_both_languages() -> None:
    rules = BUILT_IN.rules
    assert len(rules) >= 20
    for locale in supported:
        for rule in rules:
            for part in ("title", "advice"):
                assert f"alert.rule.{rule.name}.{part}" in texts(locale)
        for problem in PollProblem:
            assert f"problem.{problem.value}" in texts(locale)


@pytest.mark.parametrize("tag", [None, "fr", "ja", "en-US"])
def test_every_built_in_rule_can_be_told_in_every_state(tag: str | None) -> None:
    for rule in BUILT_IN.rules:
        one = incident(
            rule_name=rule.name,
            metric=rule.metric,
            severity=rule.severity,
            scope=rule.scope.value,
            level=rule.level,
            value=rule.level,
        )
        for status in ("", "up", "down", "pending", "maintenance", "unknown"):
            draw(replace(one, status=status), locale=tag)
            for ending in (*Ending, None):
                over = ended(one, ending, status=status)
                draw(over, locale=tag)
                reply(over)
                assert RENDERER.describe(over)


def test_a_rule_of_ones_own_shows_its_name() -> None:
    embed = draw(cpu(rule_name="Queue_Growing", metric="my_queue", value=51.0, level=50.0))
    assert r"Queue\_Growing" in said(embed)
    assert "51 > 50" in said(embed)
    assert RENDERER.describe(cpu(rule_name="Queue_Growing")).startswith("Queue_Growing")


def test_the_plain_sentence_names_monitor_value_level_and_duration() -> None:
    assert RENDERER.describe(incident()) == "サービスダウン: shop"
    assert "93.2% > 80%" in RENDERER.describe(cpu())
    assert RENDERER.describe(ended(incident())) == "サービスダウン: shop — 復旧（2分5秒）"
    assert "メンテナンス中" in RENDERER.describe(incident(status="maintenance"))
    assert "HTTP 500" in RENDERER.describe(incident(detail={"name": "s", "reason": "HTTP\n500"}))
    assert "API" in RENDERER.describe(kuma())
    assert "main:1" in RENDERER.describe(incident(detail={})), "a key is better than no name"


# -- storms -----------------------------------------------------------------------------------


def fleet(count: int, name: str = "service") -> list[Incident]:
    return [
        incident(incident_id=UUID(int=n + 1), subject=f"main:{n}", detail={"name": f"{name} {n}"})
        for n in range(count)
    ]


def test_a_storm_counts_down_to_its_recovery() -> None:
    many = fleet(37)
    assert draw(*many, locale="ja")["title"] == "🔴 37 サービスがダウン"
    partly = [ended(one) if n >= 12 else one for n, one in enumerate(many)]
    embed = draw(*partly, locale="ja")
    assert embed["title"] == "🔴 12/37 まだダウン"
    assert embed["color"] == RED
    assert embed["description"].startswith("🔴 12 · ✅ 25\n🔴 service 0\n")
    over = [ended(one) for one in many]
    embed = draw(*over, locale="ja")
    assert embed["title"] == "✅ 37 サービス復旧"
    assert embed["color"] == GREEN
    assert reply(*over, locale="ja") == "✅ **37 サービス復旧**（最長 2分5秒）"


def test_a_storm_that_did_not_recover_does_not_say_so() -> None:
    over = [ended(one, Ending.RETIRED) for one in fleet(5)]
    assert draw(*over)["title"].startswith("❔ 5 no longer watched")
    mixed = [ended(fleet(5)[0]), *over[1:]]
    assert draw(*mixed)["title"] == "✅ 1/5 services recovered"
    unknown = [replace(one, status="unknown") for one in fleet(5)]
    assert draw(*unknown)["title"] == "❔ 5 services unknown"
    assert draw(*[replace(one, status="pending") for one in fleet(4)])["title"].startswith("🟡 4")
    assert draw(*[replace(one, status="maintenance") for one in fleet(4)])["title"].startswith("🔧")


@pytest.mark.parametrize("count", [3, 40, 500, 2000])
def test_a_storm_of_long_japanese_names_fits_and_says_what_is_missing(count: int) -> None:
    many = fleet(count, "監視" * 100)
    embed = draw(*many, locale="ja")
    lines = embed["description"].split("\n")
    shown = sum(1 for line in lines[1:] if line.startswith("🔴"))
    left_out = re.search(r"ほか (\d+) 件.*/alerts active", embed["description"])
    assert shown + (int(left_out.group(1)) if left_out else 0) == count
    assert all(line.endswith("…") for line in lines[1 : shown + 1])
    over = [ended(one) for one in many]
    embed = draw(*over, locale="ja")
    assert count < 500 or "/alerts history" in embed["description"]
    check(RENDERER.fallback(many, None, NOW))


def test_drawing_a_storm_of_2000_does_not_stall_the_loop() -> None:
    many = fleet(2000, "監視" * 100)
    card = card_of(*many, is_storm=True)
    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        RENDERER.card(card, many, "ja", NOW)
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.03


def test_other_storms_name_their_rule() -> None:
    many = [replace(one, rule_name="service_slow", metric="monitor_slowness") for one in fleet(4)]
    many = [replace(one, severity=Severity.WARNING, value=2.0) for one in many]
    assert draw(*many)["title"] == "⚠️ 4: Slow response"
    assert draw(*map(ended, many))["title"] == "✅ 4 cleared: Slow response"
    assert reply(*map(ended, many)).startswith("✅")
    kumas = [kuma(incident_id=UUID(int=n), subject=f"k{n}") for n in range(3)]
    assert draw(*kumas)["title"].startswith("❔ 3 Uptime Kumas")


def test_a_card_whose_incidents_are_gone_can_still_be_drawn() -> None:
    check(RENDERER.card(card_of(), [], None, NOW))
    check(RENDERER.reply(card_of(), [], FlipKind.RESOLVED, None, NOW))
    check(RENDERER.fallback([], None, NOW))


def test_the_fallback_puts_the_worst_first() -> None:
    message = RENDERER.fallback([ended(slow()), cpu(), incident()], "en", NOW)
    check(message)
    embed = dict(message.embeds[0])
    assert str(embed["title"]).startswith("🔴 ")
    lines = str(embed["description"]).split("\n")
    assert lines[1].startswith("🔴 shop <t:")
    assert lines[-1].startswith("✅")


# -- anything at all --------------------------------------------------------------------------

NASTY = st.sampled_from(
    [
        "@everyone",
        "@HERE",
        "<@123456789012345678>",
        "<@&123456789012345678>",
        "<#123456789012345678>",
        "[x](https://evil.example)",
        "```",
        "`",
        "\\",
        "\\" * 999,
        "*" * 2000,
        "\u202e",
        "\u200b" * 50,
        "👨‍👩‍👧‍👦" * 200,
        "{n}",
        "{",
        "\ud800",
        "\0",
        "監" * 3000,
        "<t:0:R>",
        "e\u0301" * 3000,
        "# title",
        "",
        " ",
        "\u3164",
    ]
)
ANY_TEXT = st.lists(st.one_of(NASTY, st.text(max_size=40)), max_size=4).map("".join)
NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-(10**18), 10**18).map(float))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
METRICS = st.sampled_from(
    [
        "monitor_down",
        "monitor_missing",
        "monitor_slowness",
        "monitor_cert_days_remaining",
        "kuma_staleness",
        "task_lateness",
        "store_failing",
        "store_set_aside",
        "cpu_usage",
        "memory_rss",
        "network_rx",
        "loop_lag_p99",
        "of_my_own",
    ]
)
VALUES = st.one_of(ANY_TEXT, NUMBERS, st.booleans(), st.none())
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "url": VALUES,
        "type": VALUES,
        "reason": VALUES,
        "problem": st.one_of(VALUES, st.sampled_from(PollProblem).map(lambda p: p.value)),
        "last_good_at": st.one_of(VALUES, MOMENTS.map(datetime.isoformat)),
        "monitors": VALUES,
        "file": VALUES,
        "response_time_ms": VALUES,
        "uptime_24h": VALUES,
    },
)
INCIDENTS = st.builds(
    Incident,
    incident_id=st.uuids(),
    rule_name=st.one_of(st.sampled_from([r.name for r in BUILT_IN.rules]), ANY_TEXT),
    subject=ANY_TEXT,
    severity=st.sampled_from(Severity),
    category=ANY_TEXT,
    scope=st.sampled_from(["service", "operator"]),
    metric=METRICS,
    level=st.floats(),
    fired_at=MOMENTS,
    value=NUMBERS,
    status=st.sampled_from(["", "up", "down", "pending", "maintenance", "unknown", "odd"]),
    resolved_at=st.one_of(st.none(), MOMENTS),
    ending=st.one_of(st.none(), st.sampled_from(Ending)),
    unknown_s=st.floats(0, 1e12),
    silent=st.booleans(),
    detail=DETAILS,
)


@given(
    st.lists(INCIDENTS, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from(FlipKind),
    st.sampled_from(["ja", "en", None]),
)
def test_whatever_is_in_an_incident_its_messages_fit_and_are_harmless(
    incidents: Sequence[Incident], is_storm: bool, kind: FlipKind, locale: str | None
) -> None:
    card = card_of(*incidents, is_storm=is_storm)
    check(RENDERER.card(card, incidents, locale, NOW))
    check(RENDERER.reply(card, incidents, kind, locale, NOW))
    check(RENDERER.fallback(incidents, locale, NOW))
    for one in incidents:
        plain = RENDERER.describe(one)
        assert plain.strip()
        assert "\n" not in plain
        assert text.units(plain) <= 500
        plain.encode()
        is_recovery = one.resolved_at is not None and one.ending is Ending.CLEARED
        drawn = RENDERER.card(card_of(one), [one], locale, NOW).embeds[0]
        assert str(drawn["title"]).startswith("✅") is is_recovery


# -- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("plain name 1", "plain name 1"),
        ("a\nb\tc", "a b c"),
        ("*bold* _it_ ~~s~~ ||sp||", r"\*bold\* \_it\_ \~\~s\~\~ \|\|sp\|\|"),
        ("[x](https://evil.example)", r"\[x\](https\://evil.example)"),
        ("@everyone", "@\u200beveryone"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("> quote", r"\> quote"),
        ("1. item", r"1\. item"),
        ("10.0.0.1", r"10\.0.0.1"),
        ("a-b #5", "a-b #5"),
        ("a\u202eb\u200bc\ufeff", "abc"),
        ("👨‍👩‍👧", "👨‍👩‍👧"),
        ("\u200d", ""),
        ("\u3164 \u2800", ""),
        ("mail@example.org", "mail@example.org"),
    ],
)
def test_names_are_made_harmless(given_text: str, expected: str) -> None:
    assert text.escape(given_text) == expected


def test_cutting_is_visible_and_leaves_nothing_half() -> None:
    assert text.clip("abc", 3) == "abc"
    assert text.clip("abcd", 3) == "ab…"
    assert text.clip("🚀🚀", 3) == "🚀…"
    assert text.clip(r"ab\*", 4) == r"ab\*"
    assert text.clip(r"ab\*cd", 4) == "ab…"
    assert text.clip("e\u0301" * 3, 4) == "e\u0301…"
    assert text.clip("x", 0) == ""
    assert text.shown_name("\u200b" * 500 + "x") == "…", "what is left out is never silent"
    assert text.shown_name("\u200b") == "—"


@given(ANY_TEXT, st.integers(0, 60))
def test_a_cut_text_always_fits(given_text: str, limit: int) -> None:
    cut = text.clip(text.escape(given_text), limit)
    assert text.units(cut) <= limit
    assert cut == text.escape(given_text) or not cut or cut.endswith("…")


@pytest.mark.parametrize(
    ("url", "showable"),
    [
        ("https://shop.example/x", True),
        ("http://10.0.0.1:8080", True),
        ("http://[::1]:3001/", True),
        ("http://uptime-kuma:3001", False),
        ("http://localhost", False),
        ("ftp://shop.example", False),
        ("https://", False),
        ("https://a b.example", False),
        ("https://shop.example:99999/", False),
        ("https://.example", False),
        ("https://shop.example/" + "x" * 2048, False),
        ("shop.example", False),
        ("javascript://shop.example", False),
        ("http://[broken", False),
    ],
)
def test_links_discord_would_refuse_are_known(url: str, showable: bool) -> None:
    assert text.is_showable_url(url) is showable


def test_a_machine_has_no_name_to_show_when_its_rule_was_changed() -> None:
    ended = Incident(
        incident_id=uuid4(),
        rule_name="HighCPU",
        subject="",
        severity=Severity.WARNING,
        category="system",
        scope="operator",
        metric="cpu_usage",
        level=80.0,
        fired_at=NOW,
        resolved_at=NOW,
        ending=Ending.RULE_CHANGED,
    )
    card = Card(uuid4(), "MARK", "1", "2", NOW, (ended.incident_id,))
    embed = RENDERER.card(card, [ended], "ja", NOW).embeds[0]
    assert "—" not in str(embed["description"])
