"""What other cogs report is checked, bounded and remembered; whatever they send, they stay well."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from discord.ext import commands
from hypothesis import given
from hypothesis import strategies as st

from bot.core import report
from bot.core.kept_text import TEXT_LIMIT, TITLE_LIMIT, kept
from bot.services import activity as activity_module
from bot.services.activity import NAMES_LIMIT, SERIES_LIMIT, Activity, Keeping
from bot.services.recorder import Recorder
from bot.storage.sqlite import SqliteStore
from bot.storage.store import Conversation, MemberData, Song, StoreUnavailable
from tests.cogs_world import NOW, ODD_NAMES, House
from tests.peers.discord import DiscordPeer
from tests.test_cogs import Stage, first_embed

SAID = {"user_id": 42, "user_name": "Aya", "prompt": "何時?", "response": "3時です"}
PLAYED = {"guild_id": 7, "song_title": "夜に駆ける", "requested_by": "Aya", "requested_by_id": 42}


@dataclass
class Person:
    """What discord.py's users and members look like to us."""

    id: int
    display_name: str


class Desk:
    """An Activity on a real store, with a clock that stands still."""

    def __init__(self, store: SqliteStore, keeping: Keeping | None = None) -> None:
        self.store = store
        self.recorder = Recorder(store)
        self.clock_s = 0.0
        self.activity = Activity(
            self.recorder,
            keeping or Keeping(),
            lambda: NOW,
            uuid4,
            monotonic=lambda: self.clock_s,
        )

    async def member(self, user_id: str = "42") -> MemberData:
        return await self.store.member_data(user_id)

    async def conversation(self) -> Conversation:
        (found,) = (await self.member()).conversations
        return found

    async def metrics(self) -> dict[str, float]:
        return {m.metric_name: m.metric_value for m in await self.store.latest_metrics()}


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "monitoring.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def desk(store: SqliteStore) -> Desk:
    return Desk(store)


# Conversations and songs


async def test_a_conversation_is_kept_as_it_was_reported(desk: Desk) -> None:
    assert await desk.activity.report_conversation(**SAID)
    assert await desk.activity.save_conversation_log(
        user_id="42", user_name="Aya", prompt="b", response="", timestamp=NOW - timedelta(hours=1)
    )
    older, newer = (await desk.member()).conversations
    assert (older.prompt, older.response, older.at) == ("b", "", NOW - timedelta(hours=1))
    assert newer == Conversation(newer.conversation_id, "42", "Aya", "何時?", "3時です", NOW)
    assert desk.activity.tallies["conversations"].kept == 2


async def test_a_song_is_kept_as_it_was_reported(desk: Desk) -> None:
    assert await desk.activity.save_music_log(**PLAYED)
    (song,) = (await desk.member()).songs
    assert song == Song(song.song_id, "7", "夜に駆ける", "Aya", "42", NOW)


async def test_discord_objects_serve_as_ids_and_names(desk: Desk) -> None:
    aya = Person(42, "彩")

    class Track:
        title = " 夜に駆ける "

    assert await desk.activity.report_conversation(user_id=aya, prompt="a", response="b")
    assert await desk.activity.report_song(
        guild_id=Person(7, ""), song_title=Track(), requested_by_id=aya
    )
    found = await desk.member()
    assert found.conversations[0].user_name == found.songs[0].requested_by == "彩"
    assert found.songs[0].song_title == "夜に駆ける"
    assert found.songs[0].guild_id == "7"


async def test_metadata_keeps_who_talked_but_not_what_and_what_played_but_not_for_whom(
    store: SqliteStore,
) -> None:
    desk = Desk(store, Keeping("metadata", "metadata"))
    assert await desk.activity.report_conversation(**SAID)
    assert await desk.activity.report_song(**PLAYED)
    told = await desk.conversation()
    assert (told.user_id, told.user_name, told.prompt, told.response) == ("42", "Aya", "", "")
    assert (await desk.member()).songs == []
    (song,) = (await desk.member("")).songs
    assert (song.requested_by, song.requested_by_id) == ("", "")
    assert await store.popular_songs(NOW - timedelta(days=1), 9, "7") == [("夜に駆ける", 1)]


async def test_off_keeps_nothing_and_looks_at_nothing(store: SqliteStore) -> None:
    desk = Desk(store, Keeping("off", "off"))
    assert not await desk.activity.report_conversation(**SAID)
    assert not await desk.activity.report_song(**PLAYED)
    assert not await desk.activity.report_conversation(user_id="nobody")
    assert await desk.member() == MemberData([], [])
    assert all(not (t.kept or t.refused) for t in desk.activity.tallies.values())


async def test_a_song_nobody_asked_for_is_kept_and_a_name_nobody_could_delete_is_not(
    desk: Desk,
) -> None:
    assert await desk.activity.report_song(guild_id=7, song_title="autoplay")
    assert not await desk.activity.report_song(guild_id=7, song_title="x", requested_by="Aya")
    assert await desk.store.popular_songs(NOW - timedelta(days=1), 9) == [("autoplay", 1)]


async def test_a_megabyte_is_cut_and_says_so(desk: Desk) -> None:
    assert await desk.activity.report_conversation(**{**SAID, "prompt": "長" * 1_000_000})
    prompt = (await desk.conversation()).prompt
    assert len(prompt) == TEXT_LIMIT == 20_000
    assert prompt.endswith("長…(+980010)")


async def test_nul_and_half_surrogates_do_not_keep_a_conversation_away(desk: Desk) -> None:
    assert await desk.activity.report_conversation(**{**SAID, "prompt": "a\0b\ud800c"})
    assert (await desk.conversation()).prompt == "a\ufffdb\ufffdc"


@given(st.text(min_size=0, max_size=300), st.integers(20, 120))
def test_a_cut_text_fits_says_what_is_missing_and_is_not_cut_again(text: str, limit: int) -> None:
    cut = kept(text, limit)
    assert len(cut) <= limit
    assert kept(cut, limit) == cut
    if len(text) > limit:
        head, _, missing = cut.rpartition("…(+")
        assert text.startswith(head)
        assert len(head) + int(missing.rstrip(")")) == len(text)
    else:
        assert cut == text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": None}, "user_id is missing"),
        ({"user_id": "someone"}, "user_id must be a Discord id: digits only"),
        ({"user_id": -1}, "user_id must be a Discord id: digits only"),
        ({"user_id": True}, "user_id must be a Discord id, not bool"),
        ({"user_id": 1.5}, "user_id must be a Discord id, not float"),
        ({"user_name": 12}, "user_name must be a name, not int"),
        ({"prompt": None}, "prompt is missing"),
        ({"response": b"x"}, "response must be text, not bytes"),
        ({"timestamp": "soon"}, "timestamp cannot be read as a time"),
        ({"timestamp": math.inf}, "timestamp cannot be read as a time"),
        ({"timestamp": math.nan}, "timestamp cannot be read as a time"),
        ({"timestamp": 1e300}, "timestamp cannot be read as a time"),
        ({"timestamp": True}, "timestamp must be a time, not bool"),
        ({"timestamp": datetime.min}, "timestamp lies before 2015"),
        ({"timestamp": datetime.max}, "timestamp lies in the future"),
        ({"timestamp": NOW + timedelta(days=2)}, "timestamp lies in the future"),
    ],
)
async def test_bad_input_is_refused_in_the_log_with_its_reason(
    desk: Desk, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    assert not await desk.activity.report_conversation(**{**SAID, **changes})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"a report (conversations) is refused: {reason}"
    assert SAID["prompt"] not in caplog.text
    assert await desk.member() == MemberData([], [])
    assert desk.activity.tallies["conversations"].refused == 1


async def test_an_object_that_bites_is_refused_too(desk: Desk) -> None:
    class Trap:
        @property
        def id(self) -> int:
            raise RuntimeError("no")

    assert not await desk.activity.report_conversation(**{**SAID, "user_id": Trap()})
    assert desk.activity.tallies["conversations"].refused == 1


@pytest.mark.parametrize(
    ("given_at", "kept_at"),
    [
        (None, NOW),
        (NOW + timedelta(minutes=3), NOW),
        (datetime(2026, 1, 1, 9, tzinfo=UTC), datetime(2026, 1, 1, 9, tzinfo=UTC)),
        (datetime(2026, 1, 1, 9, 0, 0, 123456), datetime(2026, 1, 1, 9, 0, 0, 123000, UTC)),
        ("2026-01-01T18:00:00+09:00", datetime(2026, 1, 1, 9, tzinfo=UTC)),
        (1767258000, datetime(2026, 1, 1, 9, tzinfo=UTC)),
    ],
)
async def test_times_come_in_many_shapes_and_never_from_the_future(
    desk: Desk, given_at: object, kept_at: datetime
) -> None:
    assert await desk.activity.report_conversation(**SAID, timestamp=given_at)
    assert (await desk.conversation()).at == kept_at


# Metrics


async def test_a_metric_is_kept_exactly_with_its_labels_and_remembered(desk: Desk) -> None:
    assert await desk.activity.report_metric("recipes_served", 0.1, {"kitchen": "北", "n": 3})
    assert await desk.activity.report_metric(name="tokens", value=Decimal("1.5"))
    assert await desk.metrics() == {"recipes_served": 0.1, "tokens": 1.5}
    (labels,) = (m.labels for m in await desk.store.latest_metrics() if m.labels)
    assert labels == {"kitchen": "北", "n": "3"}
    assert desk.activity.latest == {
        ("recipes_served", (("kitchen", "北"), ("n", "3"))): (0.1, NOW),
        ("tokens", ()): (1.5, NOW),
    }


@pytest.mark.parametrize(
    ("name", "value", "labels", "reason"),
    [
        ("", 1, None, "name must be letters"),
        ("9lives", 1, None, "name must be letters"),
        ("a b", 1, None, "name must be letters"),
        ("料理", 1, None, "name must be letters"),
        ("a" * 101, 1, None, "name must be letters"),
        (None, 1, None, "name must be letters"),
        ("cpu_usage", 1, None, "one of the bot's own readings"),
        ("x", math.nan, None, "must be finite"),
        ("x", -math.inf, None, "must be finite"),
        ("x", 10**400, None, "cannot be made a number"),
        ("x", "12", None, "must be a number, not str"),
        ("x", None, None, "must be a number, not NoneType"),
        ("x", 1, ["a"], "labels must be a mapping"),
        ("x", 1, {str(n): n for n in range(11)}, "10 labels at most"),
        ("x", 1, {"a-b": "c"}, "label's name"),
        ("x", 1, {3: "c"}, "label's name"),
        ("x", 1, {"a": None}, "text or a number, not NoneType"),
        ("x", 1, {"a": "v" * 201}, "200 characters at most"),
    ],
)
async def test_a_metric_that_makes_no_sense_is_refused(
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
    name: object,
    value: object,
    labels: object,
    reason: str,
) -> None:
    assert not await desk.activity.report_metric(name, value, labels)
    assert reason in caplog.text
    assert await desk.metrics() == {}
    assert not desk.activity.latest


async def test_metric_names_and_remembered_series_are_bounded(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(NAMES_LIMIT + 5):
        desk.clock_s += 1
        await desk.activity.report_metric(f"m{number}", number)
    assert len(await desk.metrics()) == NAMES_LIMIT
    assert "500 metric names already" in caplog.text
    for number in range(SERIES_LIMIT):
        desk.clock_s += 1
        assert await desk.activity.report_metric("m0", number, {"n": number})
    assert len(desk.activity.latest) == SERIES_LIMIT
    assert ("m1", ()) not in desk.activity.latest


# Floods and bad days


async def test_a_flood_is_bounded_counted_and_said_once_a_minute(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    sent = [await desk.activity.report_metric("x", n) for n in range(700)]
    assert sent == [True] * 500 + [False] * 200
    desk.clock_s = 1.0
    sent = [await desk.activity.report_metric("x", n) for n in range(60)]
    assert sent == [True] * 50 + [False] * 10
    assert desk.activity.tallies["metrics"].flooded == 210
    assert [r.getMessage() for r in caplog.records] == [
        "reports (metrics) come faster than 50 a second; not kept"
    ]
    desk.activity.beat()
    assert len(caplog.records) == 1
    desk.clock_s = 61.0
    desk.activity.beat()
    desk.activity.beat()
    assert [r.getMessage() for r in caplog.records][1:] == [
        "reports (metrics) come faster than 50 a second; not kept (209 more meanwhile)"
    ]
    desk.clock_s = 122.0
    desk.activity.beat()
    assert len(caplog.records) == 2


async def test_a_broken_cog_does_not_fill_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(150):
        await desk.activity.report_conversation(user_id=f"x{number}")
    assert len(caplog.records) == 1
    assert desk.activity.tallies["conversations"].refused == 150


class Away:
    """A store that cannot be written until it can."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.is_away = True

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            raise StoreUnavailable("full")
        return getattr(self._store, name)


async def test_reports_wait_for_a_store_that_is_away_within_bounded_memory(
    store: SqliteStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_module, "HELD_BYTES", 100_000)
    desk, away = Desk(store), Away(store)
    desk.recorder._store = away  # type: ignore[assignment]
    for number in range(20):
        await desk.activity.report_conversation(**{**SAID, "prompt": f"{number}" + "x" * 9_000})
    tally = desk.activity.tallies["conversations"]
    assert (tally.kept, tally.flooded) == (9, 11)
    assert desk.recorder.waiting == 9
    assert "wait for the store" in caplog.text
    away.is_away = False
    desk.recorder._next_try_s = 0
    await desk.recorder.drain()
    assert [c.prompt[0] for c in (await desk.member()).conversations] == list("012345678")
    # pytest still shows the first refusal's traceback, and so its one report.
    assert desk.activity._held_bytes < 11_000
    assert await desk.activity.report_conversation(**SAID)


async def test_reporting_does_not_hold_up_the_loop(desk: Desk) -> None:
    """20 conversations of a megabyte each, at once; the loop is never held for long."""
    worst = 0.0
    is_done = False

    async def watch() -> None:
        nonlocal worst
        loop = asyncio.get_running_loop()
        while not is_done:
            began = loop.time()
            await asyncio.sleep(0)
            worst = max(worst, loop.time() - began)

    watching = asyncio.create_task(watch())
    big = {**SAID, "prompt": "長" * 1_000_000, "response": "x" * 1_000_000}
    await asyncio.gather(*(desk.activity.report_conversation(**big) for _ in range(20)))
    is_done = True
    await watching
    assert worst < 0.1
    assert len((await desk.member()).conversations) == 20


# A second cog in the same bot


class Sender(commands.Cog):
    """What somebody else's cog does: it dispatches and forgets."""

    def __init__(self, bot: commands.Bot) -> None:
        self.bot = bot

    def talk(self, **changes: Any) -> None:
        self.bot.dispatch("comet_conversation", **{**SAID, **changes})

    def play(self, *values: Any, **fields: Any) -> None:
        self.bot.dispatch("comet_music_play", *values, **fields)

    def measure(self, *values: Any, **fields: Any) -> None:
        self.bot.dispatch("comet_metric", *values, **fields)


@dataclass
class Scene:
    stage: Stage
    sender: Sender

    @property
    def activity(self) -> Activity:
        return self.stage.house.activity

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with DiscordPeer() as peer:
        guild = peer.add_guild("home")
        house = House(tmp_path / "monitoring.db", operators=[str(guild.id)])
        await house.store.open()
        try:
            await house.start_bot(peer)
            assert house.bot is not None
            sender = Sender(house.bot)
            await house.bot.add_cog(sender)
            yield Scene(Stage(peer, house, guild), sender)
        finally:
            await house.close()


async def test_another_cogs_events_arrive_in_the_store(scene: Scene) -> None:
    guild_id = scene.stage.guild.id
    scene.sender.talk(user_id=scene.stage.member.id, future_field="ignored")
    scene.sender.play(**{**PLAYED, "guild_id": guild_id})
    scene.sender.play({**PLAYED, "guild_id": str(guild_id)})
    scene.sender.play(guild_id, "積み木", "Aya", 42)
    scene.sender.measure("recipes_served", 12, {"kitchen": "north"})
    scene.sender.measure(name="recipes_served", value=13, labels={"kitchen": "south"})
    tallies = scene.activity.tallies
    await scene.until(lambda: sum(tally.kept for tally in tallies.values()) == 6)
    store = scene.stage.house.store
    # What is with the recorder is written before the next question is answered.
    await scene.stage.house.recorder.drain()
    data = await store.member_data(str(scene.stage.member.id))
    assert [c.prompt for c in data.conversations] == ["何時?"]
    songs = await store.popular_songs(NOW - timedelta(days=1), 9, str(guild_id))
    assert songs == [("夜に駆ける", 2), ("積み木", 1)]
    assert [m.metric_value for m in await store.latest_metrics()] in ([12.0], [13.0])


async def test_whatever_another_cog_sends_no_exception_comes_of_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        scene.sender.play(1, 2, 3, 4, 5, 6, 7)
        scene.sender.play(7, guild_id=7)
        scene.sender.play(None)
        scene.sender.play({1: 2})
        scene.sender.talk(user_id=object())
        scene.sender.measure()
        scene.sender.measure(object(), object(), object(), object())
        tallies = scene.activity.tallies
        await scene.until(lambda: sum(tally.refused for tally in tallies.values()) == 7)
    assert {r.name for r in caplog.records} == {"bot.services.activity"}
    assert not any(r.exc_info for r in caplog.records)
    assert all(tally.kept == 0 for tally in tallies.values())


async def test_a_cog_may_ask_whether_its_report_was_kept(scene: Scene) -> None:
    bot = scene.stage.house.bot
    assert bot is not None
    assert await bot.comet.report_song(**PLAYED)
    assert not await bot.comet.report_metric("cpu_usage", 1)


# /activity


async def songs(scene: Scene, guild_id: int, *titles: str, days: float = 0) -> None:
    for title in titles:
        assert await scene.activity.report_song(
            guild_id=guild_id, song_title=title, timestamp=NOW - timedelta(days=days)
        )


async def test_members_see_the_songs_of_their_own_server_only(scene: Scene) -> None:
    stage = scene.stage
    other = stage.peer.add_guild("other")
    await songs(scene, stage.guild.id, "A", "A", "B", "**[x](https://evil.example)** @everyone")
    await songs(scene, stage.guild.id, "old", days=31)
    await songs(scene, other.id, "secret")
    shown = first_embed(await stage.run("activity songs", locale="en-US"))
    lines = shown["description"].splitlines()
    assert lines[:1] == ["1. **A** · 2×"]
    assert len(lines) == 3
    assert "secret" not in shown["description"]
    assert "\\*\\*\\[x\\](https\\://evil.example)\\*\\* @\u200beveryone" in shown["description"]
    assert shown["footer"]["text"] == "The last 30 days"
    more = first_embed(await stage.run("activity songs", days=60))
    assert "old" in more["description"]
    assert more["footer"]["text"] == "過去 60 日間"


async def test_more_days_than_are_kept_are_not_promised(scene: Scene) -> None:
    shown = first_embed(await scene.stage.run("activity songs", days=400, locale="en-US"))
    assert shown["footer"]["text"] == "The last 90 days"
    assert shown["description"] == "Nothing has been recorded in this time."


async def test_odd_and_endless_titles_fit(scene: Scene) -> None:
    titles = [name for name in ODD_NAMES if name.strip()]
    await songs(scene, scene.stage.guild.id, *titles, *(f"{n}" + "*" * 499 for n in range(20)))
    result = await scene.stage.run("activity songs")
    assert len(first_embed(result)["description"].splitlines()) <= 20


async def test_what_is_switched_off_says_so(scene: Scene) -> None:
    scene.activity.keeping = replace(scene.activity.keeping, music_mode="off")
    shown = first_embed(await scene.stage.run("activity songs"))
    assert "記録していません" in shown["description"]


async def test_only_managers_of_the_operators_server_see_who_talks_most(scene: Scene) -> None:
    stage = scene.stage
    for number, user_id in enumerate((1, 2, 2, 3, 3, 3)):
        assert await scene.activity.report_conversation(
            user_id=user_id,
            user_name=f"@everyone <@{user_id}> {number}" if user_id != 1 else "",
            prompt="秘密",
            response="秘密",
            timestamp=NOW - timedelta(minutes=10 - number),
        )
    shown = await stage.run("activity members", stage.admin, locale="en-US")
    assert shown.ephemeral
    lines = first_embed(shown)["description"].splitlines()
    assert lines[0].endswith("** · 3 conversations")
    assert "5**" in lines[0], "the newest name"
    assert "@everyone" not in lines[0]
    assert lines[2] == "3. **1** · 1 conversations"
    assert "秘密" not in shown.text
    refused = await stage.run("activity members", stage.member, locale="en-US")
    assert refused.ephemeral
    assert "Manage Server" in refused.content
    elsewhere = Stage(stage.peer, stage.house, stage.peer.add_guild("other"))
    await asyncio.sleep(0.1)
    refused = await elsewhere.run("activity members", elsewhere.admin, locale="en-US")
    assert refused.ephemeral
    assert "operators' server" in refused.content


async def test_a_store_that_cannot_be_read_is_said_in_words(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> Any:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(scene.stage.house.store, "popular_songs", refuse)
    assert "ロックしています" in (await scene.stage.run("activity songs")).text


# The pure part


@given(st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.binary(), st.booleans()))
def test_ids_are_digits_or_refused(value: object) -> None:
    try:
        found = report.snowflake("user_id", value)
    except report.Refused as refusal:
        assert str(refusal).startswith("user_id ")
    else:
        assert found.isascii() and found.isdigit() and len(found) <= 20


def test_titles_are_cut_once() -> None:
    assert report.title("song_title", "x" * 1000).endswith(f"…(+{1000 - TITLE_LIMIT + 7})")
