"""Warnings and worse are kept for dashboards: bounded, clean, and never about the store itself."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from bot.core.kept_text import MESSAGE_LIMIT
from bot.logs import attached, configure_logging
from bot.redaction import MASK, Redactor
from bot.services.log_keeper import AT_ONCE, WAITING_LIMIT, LogKeeper
from bot.services.recorder import Recorder
from bot.settings import load_settings
from bot.storage.sqlite import SqliteStore
from bot.storage.store import StoreError, StoreUnavailable

PASSWORD = "correct-horse"
log = logging.getLogger("bot.test")


@dataclass(frozen=True)
class Row:
    level: str
    logger: str
    message: str
    context: dict[str, Any]


class Desk:
    """A keeper on the root logger, a real store below it, and a clock that stands still."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.recorder = Recorder(self.store)
        self.clock_s = 0.0
        self.keeper = LogKeeper(self.recorder, uuid4, monotonic=lambda: self.clock_s)

    def rows(self) -> list[Row]:
        db = sqlite3.connect(self.path)
        try:
            query = "SELECT level, logger, message, context FROM bot_logs ORDER BY rowid"
            return [Row(*row[:3], json.loads(row[3])) for row in db.execute(query)]
        finally:
            db.close()


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "monitoring.db")
    await desk.store.open()
    with attached(desk.keeper, Redactor([PASSWORD])):
        yield desk
    await desk.store.close()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Info is let through by the root, so that the keeper itself must leave it out."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(before)


async def test_warnings_and_worse_are_kept_and_the_rest_is_not(desk: Desk, quiet: None) -> None:
    before_s = time.time()
    log.info("all is well")
    log.warning("it is %s", "odd", extra={"rule": "HighCPU", "n": 3})
    logging.getLogger("somebody.else").critical("gone")
    await desk.keeper.drain()
    assert desk.rows() == [
        Row("WARNING", "bot.test", "it is odd", {"rule": "HighCPU", "n": 3}),
        Row("CRITICAL", "somebody.else", "gone", {}),
    ]
    db = sqlite3.connect(desk.path)
    (at_s,) = db.execute(
        "SELECT (julianday(timestamp) - 2440587.5) * 86400 FROM bot_logs"
    ).fetchone()
    db.close()
    assert before_s - 0.1 <= at_s <= time.time() + 0.1


async def test_an_exception_is_its_type_and_first_line_and_no_secret_gets_in(desk: Desk) -> None:
    try:
        raise ValueError(f"cannot log in with {PASSWORD}\nDETAIL: row ({PASSWORD})")
    except ValueError:
        log.exception("refused %s", PASSWORD, extra={"body": {"pass": [PASSWORD]}})
    await desk.keeper.drain()
    (row,) = desk.rows()
    assert row.message == f"refused {MASK}"
    assert row.context["exception"] == f"ValueError: cannot log in with {MASK}"
    assert "Traceback" not in str(row)
    assert PASSWORD not in str(row)


async def test_it_agrees_with_the_handlers_before_it(desk: Desk, tmp_path: Path) -> None:
    """The log on the terminal redacts first, with a redactor of its own, and drops exc_info."""
    logging.getLogger().removeHandler(desk.keeper)
    with (tmp_path / "out").open("w") as stream:
        logs = configure_logging(load_settings({}), Redactor([PASSWORD]), stream)
        logging.getLogger().addHandler(desk.keeper)
        try:
            raise KeyError(PASSWORD)
        except KeyError:
            log.exception("oh")
        logs.close()
    await desk.keeper.drain()
    (row,) = desk.rows()
    assert row.context == {"exception": f"KeyError: '{MASK}'"}
    written = (tmp_path / "out").read_text()
    assert "Traceback" in written and "_told" not in written


async def test_the_same_again_and_again_is_one_row_a_minute_with_a_count(desk: Desk) -> None:
    for _ in range(1000):
        log.error("it failed")
    await desk.keeper.drain()
    for _ in range(500):
        log.error("it failed")
    log.error("another")
    await desk.keeper.drain()
    assert [(row.message, row.context.get("count")) for row in desk.rows()] == [
        ("it failed", 1000),
        ("another", None),
    ]
    desk.clock_s = 61.0
    await desk.keeper.drain()
    assert desk.rows()[-1].context["count"] == 500
    assert "last_at" in desk.rows()[-1].context


async def test_a_flood_of_different_records_is_bounded_counted_and_said_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        log.error("number %d", number)
    assert desk.keeper.dropped == 1000 - WAITING_LIMIT
    await desk.keeper.drain()
    assert len(desk.rows()) == AT_ONCE
    desk.clock_s = 20.0
    await desk.keeper.drain()
    assert len(desk.rows()) == AT_ONCE + 10
    for number in range(1000):
        log.error("again %d", number)
    await desk.keeper.drain()
    said = [r for r in caplog.records if r.name == "bot.services.log_keeper"]
    assert len(said) == 1
    await desk.keeper.drain(is_last=True)
    kept = len(desk.rows())
    assert kept + desk.keeper.dropped == 2000


async def test_the_stores_own_troubles_never_come_back_to_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def refuse(*_: Any) -> None:
        nonlocal tries
        tries += 1
        raise StoreError("refused", "for good", retriable=False)

    monkeypatch.setattr(desk.store, "save_log_lines", refuse)
    log.error("it failed")
    for _ in range(5):
        desk.clock_s += 100
        await desk.keeper.drain()
    assert tries == 1
    logging.getLogger("bot.storage.copier").error("away")
    logging.getLogger("bot.storage").error("away")
    await desk.keeper.drain()
    assert tries == 1


async def test_a_store_that_is_away_gets_the_lines_when_it_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> None:
        raise StoreUnavailable("full")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "save_log_lines", refuse)
        for number in range(3):
            log.error("number %d", number)
            await desk.keeper.drain()
    assert desk.rows() == []
    desk.recorder._next_try_s = 0
    await desk.recorder.drain()
    assert [row.message for row in desk.rows()] == ["number 0", "number 1", "number 2"]


async def test_any_thread_may_log_while_the_keeper_drains(desk: Desk) -> None:
    def shout(name: str) -> None:
        for number in range(400):
            log.error("%s %d", name, number % 20)

    threads = [threading.Thread(target=shout, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await desk.keeper.drain()
    for thread in threads:
        thread.join()
    await desk.keeper.drain(is_last=True)
    rows = desk.rows()
    assert len({row.message for row in rows}) == 80
    assert sum(row.context.get("count", 1) for row in rows) == 1600
    assert desk.keeper.dropped == 0


async def test_endless_and_odd_records_are_cut_and_cleaned(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps what is logged for its report, which no half of a surrogate pair may be in.
    monkeypatch.setattr(logging.getLogger(), "handlers", [desk.keeper])
    log.error("x" * 1_000_000, extra={f"e{n}": "y" * 10_000 for n in range(50)})
    log.error("a\0b\ud800c", extra={"nan": float("nan"), "none": None})
    log.error("%d apples", "many")
    await desk.keeper.drain()
    long, odd, wrong = desk.rows()
    assert len(long.message) == MESSAGE_LIMIT
    assert len(json.dumps(long.context)) < 10_000
    assert odd.message == "a\ufffdb\ufffdc"
    assert odd.context == {"nan": None}
    assert "%d apples" in wrong.message


async def test_an_attached_handler_goes_when_its_block_ends() -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    handler = logging.NullHandler()
    with attached(handler, Redactor()):
        assert handler in root.handlers
    assert root.handlers == before
