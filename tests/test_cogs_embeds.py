"""What the answers say, drawn from values alone: no Discord, no store."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from bot.core.alert import FlipKind
from bot.core.copying import Copying, CopyPhase
from bot.core.forecast import Growth
from bot.core.incident import GuildConfig, OutboxItem
from bot.core.message import DeliveryProblem
from bot.core.observation import KumaReport, MonitorStatus, PollProblem, Sample
from bot.core.readings import READINGS
from bot.i18n import supported, texts
from bot.services.audience import Destination
from bot.services.channel_health import ChannelHealth
from bot.services.fleet import Fleet
from bot.services.sampler import TASK_NAME
from bot.services.ticker import TaskHealth, Tasks
from bot.storage.store import ServiceStats, StatusChange, StoreUnavailable
from cogs.alerts import active_page
from cogs.embeds import STATUS_SYMBOLS, worst_first
from cogs.incidents import headline
from cogs.performance import GROUPS, PUBLIC, performance_embed
from cogs.uptimekuma.dashboard import PER_PAGE, dashboard_page
from cogs.uptimekuma.details import Past, details_embed
from cogs.uptimekuma.lookup import by_text, labels, near, offers
from cogs.uptimekuma.setup import SetUp, setup_embed
from cogs.uptimekuma.stats import Day, stats_embed
from tests.cogs_world import (
    LONG,
    NOW,
    ODD_NAMES,
    assert_fits,
    field_of,
    host_incident,
    incident,
    make_fleet,
    many,
    reading,
    sample,
    speech,
    text_of,
    viewer,
)

UP, DOWN = MonitorStatus.UP, MonitorStatus.DOWN
NOTHING = ServiceStats(None, 0, 0, 0, 0, 0, None)


def ago(seconds: float) -> str:
    return f"<t:{int((NOW - timedelta(seconds=seconds)).timestamp())}:R>"


# The dashboard


@pytest.mark.parametrize("count", [0, 1, 11, 500, 2000])
def test_every_monitor_is_on_exactly_one_page_within_discords_limits(count: int) -> None:
    fleet = make_fleet(many(count, ODD_NAMES))
    said = speech()
    pages = [dashboard_page(fleet, said, NOW, 0)]
    pages += [dashboard_page(fleet, said, NOW, n) for n in range(1, pages[0].count)]
    shown = 0
    for number, page in enumerate(pages):
        assert_fits(page.embed)
        assert (page.number, page.count) == (number, math.ceil(count / PER_PAGE) or 1)
        shown += len(page.embed.fields) - (1 if count else 0)
        if count:
            assert f"/{count:,}" in field_of(page.embed, said("dashboard.summary"))
    assert shown == count


@pytest.mark.parametrize("locale", supported)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_page_full_of_the_worst_of_names_fits(name: str, locale: str) -> None:
    rows = [reading(f"kuma:{n}", name, DOWN, 12345.6) for n in range(PER_PAGE)]
    fleet = make_fleet(rows)
    for number in range(20):
        fleet.add_source(f"{LONG}{number}", 60, NOW)
        fleet.fail(f"{LONG}{number}", PollProblem.UNAUTHORIZED, "", NOW)
    assert_fits(dashboard_page(fleet, speech(locale), NOW, 0).embed)


def test_a_page_that_is_gone_shows_the_last_one_there_is() -> None:
    fleet = make_fleet(many(20))
    assert dashboard_page(fleet, speech(), NOW, 99).number == 1
    assert dashboard_page(fleet, speech(), NOW, -1).number == 0


def test_the_worst_come_first_and_equals_go_by_name() -> None:
    rows = [
        reading("kuma:1", "b", UP),
        reading("kuma:2", "a", UP),
        reading("kuma:3", "z", MonitorStatus.MAINTENANCE),
        reading("kuma:4", "z", MonitorStatus.PENDING),
        reading("kuma:5", "z", MonitorStatus.UNKNOWN),
        reading("kuma:6", "z", DOWN),
    ]
    fleet = make_fleet(rows)
    order = [m.key for m in worst_first(fleet, fleet.monitors.values())]
    assert order == [f"kuma:{n}" for n in (6, 5, 4, 3, 2, 1)]
    fields = dashboard_page(fleet, speech(), NOW, 0).embed.fields
    assert [(f.value or "")[0] for f in fields[:6]] == list("🔴❔🟡🔧🟢🟢")


def test_names_cannot_ping_nor_break_out_of_their_place() -> None:
    fleet = make_fleet(many(len(ODD_NAMES), ODD_NAMES))
    said = text_of(dashboard_page(fleet, speech(), NOW, 0).embed)
    assert "@everyone" not in said
    assert "<@&" not in said
    assert "[click]" not in said
    assert "https://" not in said
    assert "**bold**" not in said
    assert all(field.name for field in dashboard_page(fleet, speech(), NOW, 0).embed.fields)


def test_unknown_is_neither_down_nor_zero_percent() -> None:
    fleet = make_fleet([reading("kuma:1", "a"), reading("kuma:2", "b")])
    for seconds in (0, 60, 130):
        fleet.fail("kuma", PollProblem.UNREACHABLE, "", NOW + timedelta(seconds=seconds))
    page = dashboard_page(fleet, speech("en"), NOW + timedelta(seconds=130), 0)
    summary = field_of(page.embed, "📈 Summary")
    assert "Up: unknown/2" in summary
    assert "unknown: 2" in summary
    assert "%" not in summary
    assert "DOWN" not in summary
    assert "cannot be reached" in (page.embed.description or "")
    assert "(123" not in text_of(page.embed)


def test_a_partly_unknown_fleet_gets_counts_but_no_share() -> None:
    rows = [reading("kuma:1", "a"), reading("kuma:2", "b", MonitorStatus.UNKNOWN, None)]
    summary = field_of(dashboard_page(make_fleet(rows), speech(), NOW, 0).embed, "📈 サマリー")
    assert "稼働中: 1/2" in summary
    assert "❔ 不明: 1" in summary
    assert "%" not in summary


def test_a_known_fleet_gets_its_share_cut_and_not_rounded_up() -> None:
    rows = [reading(f"kuma:{n}", f"s{n}") for n in range(1999)]
    rows.append(reading("kuma:down", "d", DOWN, None))
    summary = field_of(dashboard_page(make_fleet(rows), speech(), NOW, 0).embed, "📈 サマリー")
    assert "稼働中: 1,999/2,000 (99.95%)" in summary
    assert "🔴 ダウン: 1" in summary


def test_the_age_of_the_data_is_said() -> None:
    page = dashboard_page(make_fleet(many(3)), speech(), NOW, 0)
    assert f"データは{ago(12)}のものです" in (page.embed.description or "")
    assert "2026-01-02 12:03:53 JST (表示時点で12秒前)" in (page.embed.footer.text or "")
    english = dashboard_page(make_fleet(many(3)), speech("en"), NOW, 0)
    assert "12 s ago when shown" in (english.embed.footer.text or "")


def test_a_failed_poll_is_told_in_words_with_the_age_of_what_is_shown() -> None:
    fleet = make_fleet(many(3), at=NOW - timedelta(seconds=75))
    fleet.fail("kuma", PollProblem.UNAUTHORIZED, "401", NOW)
    page = dashboard_page(fleet, speech(), NOW, 0)
    said = page.embed.description or ""
    assert "API キーが受け付けられません" in said
    assert ago(75) in said
    assert said.count("⚠️") == 1


def test_data_that_nobody_renews_is_called_stale_even_without_a_failure() -> None:
    page = dashboard_page(make_fleet(many(3), at=NOW - timedelta(minutes=5)), speech(), NOW, 0)
    assert "⚠️ データが更新されていません" in (page.embed.description or "")


def test_before_the_first_poll_known_monitors_are_unknown() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("kuma", 60, NOW)
    page = dashboard_page(fleet, speech(), NOW, 0)
    assert_fits(page.embed)
    assert "最初の応答を待っています" in (page.embed.description or "")
    assert "最終チェック: 不明" in (page.embed.footer.text or "")
    assert "0" not in text_of(page.embed)


def test_a_kuma_never_reached_says_so_and_why() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("kuma", 60, NOW)
    fleet.fail("kuma", PollProblem.NOT_KUMA, "", NOW)
    said = text_of(dashboard_page(fleet, speech(), NOW, 0).embed)
    assert "まだ一度もデータを取得できていません" in said
    assert "返事が Uptime Kuma のものではありません" in said


def test_without_any_kuma_the_dashboard_says_that_it_is_not_configured() -> None:
    page = dashboard_page(Fleet(uuid4), speech(), NOW, 0)
    assert_fits(page.embed)
    assert "設定されていない" in (page.embed.description or "")


def test_each_of_several_kumas_has_its_own_trouble_told_by_name() -> None:
    fleet = make_fleet(many(3))
    for number in range(30):
        fleet.add_source(f"lab{number}", 60, NOW)
        fleet.fail(f"lab{number}", PollProblem.TIMEOUT, "", NOW)
    page = dashboard_page(fleet, speech(), NOW, 0)
    assert_fits(page.embed)
    assert "lab0: " in (page.embed.description or "")
    assert "…ほか" in (page.embed.description or "")
    assert "最終チェック: 不明" in (page.embed.footer.text or "")


def test_a_response_time_of_zero_is_a_value() -> None:
    fleet = make_fleet([reading("kuma:1", "a", time_ms=0.0), reading("kuma:2", "b", time_ms=None)])
    first, second = dashboard_page(fleet, speech(), NOW, 0).embed.fields[:2]
    assert first.value == "🟢 稼働中 (0 ms)"
    assert second.value == "🟢 稼働中"


def test_a_page_of_two_thousand_costs_a_few_milliseconds() -> None:
    fleet = make_fleet(many(2000, [LONG + str(n) for n in range(50)]))
    took = []
    for _ in range(5):
        began = time.thread_time()
        dashboard_page(fleet, speech(), NOW, 60)
        took.append(time.thread_time() - began)
    assert min(took) < 0.03


# Details


def details(
    fleet: Fleet,
    key: str = "kuma:1",
    past: Past | StoreUnavailable | None = None,
    *,
    incidents: tuple[object, ...] = (),
    locale: str = "ja",
    may_manage: bool = False,
) -> object:
    embed = details_embed(
        fleet,
        fleet.monitors[key],
        Past(NOTHING, ()) if past is None else past,
        incidents,  # type: ignore[arg-type]
        speech(locale),
        viewer(locale, may_manage=may_manage),
        NOW,
    )
    assert_fits(embed)
    return embed


FULL = reading(
    "kuma:1",
    "Shop",
    UP,
    123.4,
    monitor_type="http",
    url="https://user:pw@shop.example/x?token=1",
    tags={"env": "prod", "team": ""},
    cert_days_remaining=12.0,
    cert_is_valid=True,
    uptime_ratio_1d=0.99996,
)


def past_of(**more: float | None) -> Past:
    given: dict[str, object] = {
        "checks": 1440,
        "up_s": 82_000.0,
        "down_s": 620.0,
        "other_s": 0.0,
        "unknown_s": 3780.0,
        "mean_response_time_ms": 150.0,
    }
    stats = ServiceStats("kuma:1", **{**given, **more})  # type: ignore[arg-type]
    monitor = FULL.identity
    changes = [
        StatusChange(uuid4(), monitor, DOWN, NOW - timedelta(hours=2)),
        StatusChange(uuid4(), monitor, UP, NOW - timedelta(hours=1), 88.0),
    ]
    return Past(stats, changes)


def test_details_tell_everything_that_is_known() -> None:
    fleet = make_fleet([FULL])
    open_one = incident()
    other = incident("kuma:2", detail={"name": "Other"})
    embed = details(fleet, past=past_of(), incidents=(open_one, other))
    assert embed.title == "🔍 Shop - 詳細情報"
    assert embed.color.value == 0x0099FF
    assert field_of(embed, "タイプ") == "http"
    assert "不明" in field_of(embed, "間隔")
    assert "🟢 稼働中" in field_of(embed, "現在の状態")
    times = field_of(embed, "応答時間")
    assert "現在: 123 ms" in times
    assert "24時間の平均: 150 ms" in times
    assert "24時間の中央値: 不明" in times
    uptime = field_of(embed, "稼働率 (24時間)")
    assert "99.24% (不明 1時間3分)" in uptime
    assert "Kuma の値: 99.99%" in uptime
    assert field_of(embed, "証明書") == "残り 12 日"
    assert "env: prod" in field_of(embed, "タグ")
    assert "🔴 ダウン" in field_of(embed, "最近の変化")
    assert "🔴 Shop · サービスダウン" in field_of(embed, "未解決のインシデント")
    assert "Other" not in text_of(embed)
    assert "12秒前" in (embed.footer.text or "")


def test_the_address_is_for_managers_and_never_holds_its_password() -> None:
    fleet = make_fleet([FULL])
    assert "shop.example" not in text_of(details(fleet))
    shown = text_of(details(fleet, may_manage=True))
    assert "`https://shop.example/x`" in shown
    assert "pw" not in shown
    assert "token" not in shown


def test_what_is_not_known_of_a_monitor_is_unknown() -> None:
    fleet = make_fleet(
        [reading("kuma:1", "a", MonitorStatus.UNKNOWN, None, url="https://a.example")]
    )
    embed = details(fleet, locale="en")
    assert field_of(embed, "Type") == "unknown"
    assert field_of(embed, "Uptime (24 hours)") == "unknown"
    assert field_of(embed, "Certificate") == "unknown"
    assert "now: unknown" in field_of(embed, "Response time")
    assert "0" not in field_of(embed, "Response time")


def test_an_invalid_certificate_is_called_so_and_where_none_can_be_none_is_asked_for() -> None:
    broken = reading("kuma:1", "a", cert_days_remaining=90.0, cert_is_valid=False)
    assert field_of(details(make_fleet([broken])), "証明書") == "⚠️ 無効"
    ping = reading("kuma:1", "a", monitor_type="ping")
    assert "証明書" not in text_of(details(make_fleet([ping])))


def test_an_uptime_that_never_went_unseen_says_nothing_of_unknown() -> None:
    embed = details(make_fleet([FULL]), past=past_of(unknown_s=0.0, down_s=0.0, up_s=86400.0))
    assert field_of(embed, "稼働率 (24時間)").splitlines()[0] == "100%"


def test_a_store_that_cannot_be_read_leaves_what_is_in_memory() -> None:
    embed = details(make_fleet([FULL]), past=StoreUnavailable("full"))
    said = embed.description or ""
    assert "ディスクがいっぱいです" in said
    assert "現在の状態は表示しています" in said
    assert "現在: 123 ms" in field_of(embed, "応答時間")
    assert field_of(embed, "稼働率 (24時間)").startswith("不明")


def test_a_status_not_yet_confirmed_after_a_start_has_no_age() -> None:
    fleet = make_fleet([FULL])
    source = fleet.sources["kuma"]
    source.last_good_at = None
    fleet.monitors["kuma:1"].reading = None
    embed = details(fleet)
    assert field_of(embed, "現在の状態") == "❔ 不明"
    assert "⚠️" in (embed.description or "")


def test_a_monitor_that_vanished_is_not_called_deleted() -> None:
    fleet = make_fleet([FULL])
    fleet.apply(KumaReport("kuma", (reading("kuma:2", "b"),)), NOW)
    embed = details(fleet)
    assert "報告しなくなりました" in (embed.description or "")
    assert "❔ 不明" in field_of(embed, "現在の状態")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_details_of_any_name_fit(name: str) -> None:
    tags = {f"tag{n}{LONG}": LONG for n in range(30)}
    row = reading("kuma:1", name, tags=tags, url="https://a.example/" + "x" * 3000)
    changes = [StatusChange(uuid4(), row.identity, DOWN, NOW) for _ in range(5)]
    mine = tuple(incident(detail={"name": name}) for _ in range(30))
    details(make_fleet([row]), past=Past(NOTHING, changes), incidents=mine, may_manage=True)


# Looking a monitor up


def test_a_name_is_found_whatever_its_case_and_a_key_exactly() -> None:
    fleet = make_fleet([reading("kuma:1", "Shop"), reading("kuma:2", "shop2")])
    assert [m.key for m in by_text(fleet, "sHOP")] == ["kuma:1"]
    assert [m.key for m in by_text(fleet, " shop ")] == ["kuma:1"]
    assert [m.key for m in by_text(fleet, "kuma:2")] == ["kuma:2"]
    assert by_text(fleet, "sho") == []


def test_offers_contain_what_was_typed_and_are_at_most_25() -> None:
    fleet = make_fleet(many(500))
    found = labels(fleet, offers(fleet, "サービス 00"), "サービス 00")
    assert len(found) == 25
    assert all("サービス 00" in label for label, _ in found)
    assert offers(fleet, "nothing like it") == []


def test_nothing_typed_offers_the_worst_off() -> None:
    fleet = make_fleet(many(500))
    statuses = {fleet.status_of(m) for m in offers(fleet, "")}
    assert statuses == {DOWN}


def test_names_that_begin_with_what_was_typed_come_first() -> None:
    fleet = make_fleet([reading("kuma:1", "a web"), reading("kuma:2", "web b")])
    assert [m.key for m in offers(fleet, "WEB")] == ["kuma:2", "kuma:1"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_choices_of_any_name_fit_in_100_characters(name: str) -> None:
    fleet = make_fleet([reading("kuma:1", name), reading("k" * 150, name)])
    found = labels(fleet, list(fleet.monitors.values()))
    assert found
    for label, value in found:
        assert 1 <= len(label.strip()) <= 100
        assert len(label.encode("utf-16-le")) // 2 <= 100
        assert 1 <= len(value) <= 100


def test_twins_are_told_apart() -> None:
    rows = [reading("kuma:1", "Web", monitor_type="http"), reading("kuma:2", "Web")]
    fleet = make_fleet(rows)
    found = labels(fleet, offers(fleet, "web"), "web")
    assert len({label for label, _ in found}) == 2
    assert {value for _, value in found} == {"kuma:1", "kuma:2"}


def test_a_long_names_choice_shows_the_part_that_was_typed() -> None:
    fleet = make_fleet([reading("kuma:1", LONG + "needle" + LONG)])
    [(label, _)] = labels(fleet, offers(fleet, "NEEDLE"), "NEEDLE")
    assert "needle" in label
    assert len(label) <= 100


async def test_a_mistyped_name_gives_look_alikes() -> None:
    fleet = make_fleet([*many(500), reading("kuma:x", "ショッピングサイト")])
    assert [m.key for m in await near(fleet, "ショピングサイト")][:1] == ["kuma:x"]
    assert await near(fleet, "zzzzzz") == []


# Statistics


def stats(parts: object, day: object, locale: str = "ja", *, is_operator: bool = False) -> object:
    embed = stats_embed(
        parts,  # type: ignore[arg-type]
        day,  # type: ignore[arg-type]
        speech(locale),
        viewer(locale, is_operator=is_operator),
        NOW,
    )
    assert_fits(embed)
    return embed


class FakeParts:
    """The few parts that statistics look at."""

    def __init__(self, fleet: Fleet) -> None:
        from bot.services.audience import Audience
        from bot.services.delivery import Delivery
        from bot.services.recorder import Recorder

        self.fleet = fleet
        self.tasks = Tasks()
        self.copying: Callable[[], Copying | None] = lambda: None
        self.growth: Callable[[], Growth] = Growth
        self.backups: object = None
        self.webhooks: object = None
        self.recorder = Recorder(None)  # type: ignore[arg-type]
        self.audience = Audience((), has_only_webhook=False)
        self.delivery = Delivery(
            self.recorder,
            self.audience,
            None,  # type: ignore[arg-type]
            lambda: NOW,
            uuid4,
        )


def test_statistics_without_data_say_unknown_and_never_zero() -> None:
    fleet = Fleet(uuid4)
    fleet.add_source("kuma", 60, NOW)
    embed = stats(FakeParts(fleet), Day(NOTHING, (), 0))
    for name in ("総監視サービス数", "稼働中サービス", "ダウンサービス", "不明サービス"):
        assert field_of(embed, name) == "不明"
    for name in ("総チェック回数", "平均応答時間", "全体稼働率"):
        assert field_of(embed, name) == "不明"
    assert "バックグラウンドタスクの状態: 不明" in text_of(embed)


def test_statistics_leave_unknown_time_out_and_say_how_much() -> None:
    day = Day(ServiceStats(None, 5760, 900.0, 100.0, 0.0, 1000.0, 152.44), (), 8640)
    embed = stats(FakeParts(make_fleet(many(11))), day)
    assert field_of(embed, "総監視サービス数") == "11"
    assert field_of(embed, "稼働中サービス") == "3"
    assert field_of(embed, "ダウンサービス") == "2"
    assert field_of(embed, "不明サービス") == "2"
    assert field_of(embed, "総チェック回数") == "5,760"
    assert field_of(embed, "平均応答時間") == "152 ms"
    assert field_of(embed, "全体稼働率") == "90%\n(不明だった時間 50% を除く)"
    assert "8,640" in text_of(embed)


def copying(**changes: object) -> Copying:
    calm = Copying("supabase", CopyPhase.COPYING, 0, 0, None, 0.0, None, 0, 0, 9, NOW)
    return replace(calm, **changes)  # type: ignore[arg-type]


def test_statistics_tell_how_the_copy_in_the_remote_store_stands() -> None:
    parts = FakeParts(make_fleet(many(1)))
    day = Day(NOTHING, (), 1)
    assert "Supabase" not in text_of(stats(parts, day))
    parts.copying = copying
    assert "Supabase へのコピー待ち: 0 行 (最も古いもの: なし)" in text_of(stats(parts, day))
    parts.copying = lambda: copying(
        depth=1234, oldest_age_s=3600.0, away_s=120.0, reason="away", refused=2, given_up=5
    )
    seen = text_of(stats(parts, day, "en"))
    assert "Rows to be copied to Supabase: 1,234 (oldest: 1 h)" in seen
    assert "refused and set aside: 2 / rows given up: 5" in seen
    assert "has been away for 2 min. It cannot be reached" in seen


def test_statistics_tell_how_the_database_grows_and_of_backups() -> None:
    parts = FakeParts(make_fleet(many(1)))
    day = Day(NOTHING, (), 1)
    assert "データベースの大きさ: 不明" in text_of(stats(parts, day))
    parts.growth = lambda: Growth(30e6, 1e6, 2e9, 1970.0)
    parts.backups = SimpleNamespace(last_ok_at=NOW, last_error="full", failed=3)
    seen = text_of(stats(parts, day, "en"))
    assert re.search(r"Size of the database: \S+ MB \(\S+ (MB|KB) a day\)", seen), seen
    assert "full in 1,970 days" in seen
    assert "Last backup: <t:" in seen
    assert "Backups have failed 3 times" in seen


def test_statistics_show_five_incidents_that_this_server_may_see() -> None:
    rows = [host_incident()] * 20 + [
        incident(
            detail={"name": f"s{n}"},
            resolved_at=NOW,
            fired_at=NOW - timedelta(minutes=5),
        )
        for n in range(7)
    ]
    parts = FakeParts(make_fleet(many(1)))
    seen = field_of(stats(parts, Day(NOTHING, rows, 1)), "最近のインシデント")
    assert "CPU" not in seen
    assert seen.count("•") == 5
    assert "✅ s0" in seen
    assert "5分" in seen
    operators = stats(parts, Day(NOTHING, rows, 1), is_operator=True)
    assert "CPU" in field_of(operators, "最近のインシデント")


def test_statistics_name_the_reason_of_this_servers_failing_channel_only() -> None:
    parts = FakeParts(make_fleet(many(1)))
    for guild in ("1", "2"):
        parts.audience.configs[guild] = GuildConfig(guild, f"9{guild}", NOW, NOW, "ja")
        parts.delivery.health[Destination(guild, f"9{guild}")] = ChannelHealth(
            problem=DeliveryProblem.FORBIDDEN, failing_since_at=NOW
        )
    item = OutboxItem(uuid4(), uuid4(), uuid4(), FlipKind.FIRED, "1", "91", NOW)
    parts.delivery.queued[item.outbox_id] = item
    parts.delivery.counts.dropped = 3
    said = field_of(stats(parts, Day(NOTHING, (), 1)), "📨 アラートの配信")
    assert "<#91>" in said
    assert "権限がありません" in said
    assert "<#92>" not in said
    assert "配信待ち: 1" in said
    assert "破棄: 3" in said
    assert "未設定" not in said


def test_statistics_name_late_tasks_and_store_trouble() -> None:
    parts = FakeParts(make_fleet(many(1)))
    parts.tasks.health["kuma:main"] = TaskHealth("kuma:main", 10, time.monotonic() - 95)
    parts.recorder.problem = StoreUnavailable("full")
    embed = stats(parts, StoreUnavailable("locked"), "en")
    said = text_of(embed)
    assert f"Task kuma:main: last success {ago(96)}" in said
    assert "The disk is full" in said
    assert "Another program" in said
    assert "Snapshots stored in 24 hours: unknown" in said


def test_statistics_tell_the_age_and_version_of_each_source() -> None:
    said = field_of(stats(FakeParts(make_fleet(many(1))), Day(NOTHING, (), 1)), "データの取得元")
    assert said == f"Uptime Kuma kuma `2.1.0`: {ago(12)}"


def test_statistics_of_the_worst_day_fit() -> None:
    fleet = make_fleet(many(2000, ODD_NAMES), version=LONG)
    for number in range(40):
        fleet.add_source(f"{LONG}{number}", 60, NOW)
        fleet.fail(f"{LONG}{number}", PollProblem.NOT_KUMA, "", NOW)
    parts = FakeParts(fleet)
    for number in range(40):
        name = f"{LONG}{number}"
        parts.tasks.health[name] = TaskHealth(name, 1, time.monotonic() - 9999)
        parts.delivery.health[Destination("1", f"{number}" * 9)] = ChannelHealth(
            problem=DeliveryProblem.CHANNEL_GONE, failing_since_at=NOW
        )
    rows = [incident(detail={"name": name}) for name in ODD_NAMES]
    for locale in supported:
        stats(parts, Day(NOTHING, rows, 1), locale)


# Performance


def performance(
    taken: Sample | None,
    locale: str = "ja",
    *,
    is_operator: bool = True,
    has_operators: bool = True,
) -> object:
    embed = performance_embed(
        taken, 10, has_operators, speech(locale), viewer(locale, is_operator=is_operator), NOW
    )
    assert_fits(embed)
    return embed


def test_performance_shows_host_in_percent_and_bot_in_megabytes() -> None:
    values = {spec.name: 12.345 for spec in READINGS}
    embed = performance(sample(**{**values, "memory_rss": 52.46, "network_rx": 2048.0}))
    host = field_of(embed, "🖥️ マシン")
    assert "CPU使用率: **12.3%**" in host
    assert "**2 KB**" in host
    assert "**52.5 MB**" in field_of(embed, "🤖 ボット")
    assert ago(4) in (embed.description or "")
    assert "4秒前" in (embed.footer.text or "")
    assert "⚠️" not in (embed.description or "")


@pytest.mark.parametrize("broken", [None, math.nan, math.inf])
def test_readings_that_could_not_be_taken_are_unknown(broken: float | None) -> None:
    embed = performance(sample(cpu_usage=broken, ping_gateway=broken, memory_rss=broken), "en")
    assert "Bot memory (RSS): **unknown**" in field_of(embed, "🤖 Bot")
    assert "CPU usage: **unknown**" in field_of(embed, "🖥️ Machine")
    assert "Gateway latency: **unknown**" in field_of(embed, "💬 Discord")
    assert "nan" not in text_of(embed).lower()


def test_before_the_first_sample_performance_says_so() -> None:
    embed = performance(None)
    assert "まだ観測がありません" in (embed.description or "")
    assert "0" not in text_of(embed).replace("p50", "").replace("p95", "").replace("p99", "")


def test_an_old_sample_is_called_old() -> None:
    embed = performance(sample(at=NOW - timedelta(minutes=2), cpu_usage=1.0))
    assert (embed.description or "").startswith("⚠️")
    assert ago(120) in (embed.description or "")


def test_other_servers_see_latency_and_uptime_only() -> None:
    taken = sample(cpu_usage=55.5, memory_rss=99.9, ping_gateway=42.0, uptime=3661.0)
    embed = performance(taken, is_operator=False)
    said = text_of(embed)
    assert "42 ms" in said
    assert "1時間1分" in said
    assert "55.5" not in said
    assert "99.9" not in said
    assert "運営サーバーでだけ" in said
    assert "OPERATOR_GUILD_IDS" in text_of(
        performance(taken, is_operator=False, has_operators=False)
    )


def test_every_shard_is_named_and_many_still_fit() -> None:
    shards = tuple(("ping_gateway", {"shard": str(n)}, float(n + 100)) for n in range(200))
    taken = replace(sample(ping_gateway=299.0), labelled=shards)
    said = field_of(performance(taken), "💬 Discord")
    assert "シャード 0: **100 ms**" in said
    assert "…ほか" in said


def test_performance_names_only_readings_there_are() -> None:
    known = {spec.name for spec in READINGS}
    assert {name for names in GROUPS.values() for name in names} <= known
    assert set(PUBLIC) <= known


@pytest.mark.parametrize("locale", supported)
def test_every_reading_has_a_label(locale: str) -> None:
    table = texts(locale)  # type: ignore[arg-type]
    for name in [*(spec.name for spec in READINGS), "task_lateness"]:
        assert table[f"reading.{name}"].strip()


# Alerts


def ran(seconds_ago: float | None = 3) -> Tasks:
    tasks = Tasks()
    now_s = time.monotonic()
    tasks.health[TASK_NAME] = TaskHealth(
        TASK_NAME, 10, now_s - 60, None if seconds_ago is None else now_s - seconds_ago
    )
    return tasks


def active(
    incidents: list[object],
    locale: str = "ja",
    *,
    is_operator: bool = False,
    tasks: Tasks | None = None,
    number: int = 0,
) -> object:
    page = active_page(
        incidents,  # type: ignore[arg-type]
        make_fleet(many(1)),
        tasks or ran(),
        speech(locale),
        viewer(locale, is_operator=is_operator),
        NOW,
        number,
    )
    assert_fits(page.embed)
    return page


def test_no_alerts_are_told_with_when_the_rules_last_looked() -> None:
    said = active([]).embed.description
    assert "未解決のアラートはありません" in said
    assert re.search(r"ルールの最終評価: <t:\d+:R>", said)
    assert ago(12) in said
    assert "⚠️" not in said


def test_silence_without_evaluation_is_not_called_health() -> None:
    assert "⚠️ ルールはまだ一度も" in active([], tasks=Tasks()).embed.description
    assert "⚠️ ルールの最終評価" in active([], tasks=ran(45)).embed.description


def test_alerts_are_newest_first_and_operators_own_stay_theirs() -> None:
    rows = [
        incident(detail={"name": "old"}, fired_at=NOW - timedelta(hours=2)),
        host_incident(),
        incident(detail={"name": "new"}, fired_at=NOW - timedelta(minutes=1)),
        incident(detail={"name": "over"}, resolved_at=NOW),
    ]
    names = [field.name for field in active(rows).embed.fields]
    assert [name.split()[1] for name in names] == ["new", "old"]
    operators = active(rows, "en", is_operator=True).embed
    assert len(operators.fields) == 3
    assert "93.1% (threshold 80%)" in field_of(operators, "🚨 High CPU usage")
    assert f"<t:{int((NOW - timedelta(minutes=5)).timestamp())}:R>" in text_of(operators)


def test_alerts_of_a_storm_are_paged_within_limits() -> None:
    rows: list[object] = [
        incident(f"kuma:{n}", detail={"name": ODD_NAMES[n % len(ODD_NAMES)] + LONG})
        for n in range(500)
    ]
    first = active(rows)
    assert (first.number, first.count) == (0, 50)
    assert sum(len(active(rows, number=n).embed.fields) for n in range(50)) == 500


def test_a_headline_begins_with_the_state_and_holds_no_markdown() -> None:
    assert headline(incident(), speech("en")).startswith("🔴 Shop · ")
    assert headline(incident(status="unknown"), speech()).startswith("❔ Shop")
    assert headline(host_incident(rule_name="My_*Own*"), speech()) == "🚨 My\\_\\*Own\\*"


# Setting up

DONE = SetUp("<#1>", 60, ("https://kuma.example/", "http://kuma:3001"), True, True, True)


def test_setup_tells_channel_interval_and_address_to_operators() -> None:
    embed = setup_embed(DONE, speech(), viewer(is_operator=True))
    assert_fits(embed)
    assert embed.title == "✅ 監視システム設定完了"
    assert embed.color is not None and embed.color.value == 0x00FF00
    assert field_of(embed, "アラートチャンネル") == "<#1>"
    assert field_of(embed, "チェック間隔") == "60秒"
    assert "https://kuma.example/" in field_of(embed, "UptimeKuma URL")
    assert len(embed.fields) == 3


def test_setup_hides_the_address_from_others_and_passwords_from_all() -> None:
    assert "kuma.example" not in text_of(setup_embed(DONE, speech(), viewer()))
    secret = replace(DONE, kuma_urls=("https://me:pw@kuma.example/",))
    assert "pw" not in text_of(setup_embed(secret, speech(), viewer(is_operator=True)))


def test_setup_says_what_is_not_configured_yet() -> None:
    bare = SetUp("<#1>", 60, (), False, False, False)
    said = field_of(setup_embed(bare, speech(), viewer()), "まだ設定されていないもの")
    assert "UPTIME_KUMA_URL" in said
    assert "OPERATOR_GUILD_IDS" in said
    assert "まだ書き込めていません" in said


# Words


@pytest.mark.parametrize("locale", supported)
def test_every_problem_has_its_sentence(locale: str) -> None:
    table = texts(locale)  # type: ignore[arg-type]
    wanted = [f"problem.{p.value}" for p in PollProblem]
    wanted += [f"error.delivery.{p.value}" for p in DeliveryProblem]
    wanted += [f"status.{s.value}" for s in STATUS_SYMBOLS]
    assert [key for key in wanted if not table.get(key)] == []
    assert len(STATUS_SYMBOLS) == len(MonitorStatus)
