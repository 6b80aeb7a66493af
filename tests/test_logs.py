"""No secret reaches a log line, and log files stay readable, private and few."""

from __future__ import annotations

import gzip
import io
import json
import logging
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.logs import CompressingFileHandler, Logging, configure_logging
from bot.redaction import MASK, Redactor, Secret
from bot.settings import Settings, load_settings

PASSWORD = 'pä$$ "word"/1'
KUMA_KEY = "uk1_0123456789abcdefghij"
BOT_TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAx.GabcdE.abcdefghijklmnopqrstuvwxyz0123456789AB"
WEBHOOK = "https://discord.com/api/webhooks/123456789012345678/AbC-dEf_gHi"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def settings() -> Settings:
    return load_settings({})


@pytest.fixture
def opened() -> Iterator[list[Logging]]:
    found: list[Logging] = []
    yield found
    for logs in found:
        logs.close()


def start(
    opened: list[Logging], settings: Settings, stream: io.StringIO, *known: str
) -> logging.Logger:
    opened.append(configure_logging(settings, Redactor(known), stream))
    return logging.getLogger("bot.test")


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {KUMA_KEY}",
        "{'Authorization': 'Basic OnVrMV8wMTIzNDU2Nzg5'}",
        "authorization: Bot abcdefgh.ijk",
        "{'apikey': 'abcdefgh1234'}",
        f"bad key {KUMA_KEY}",
        f"token {BOT_TOKEN} refused",
        f"POST {WEBHOOK}?wait=true",
        "http://admin:hunter22@kuma:3001/metrics",
        "redis://sometoken@cache",
        "GET /?token=abcdefgh&x=1",
        "POST /webhooks/uptime-kuma/AbCdEfGh12",
        "http://kuma/api/push/AbCdEfGh12?status=up",
        "eyJhbGciOiJIUzI1.eyJyb2xlIjoic2.c2lnbmF0dXJl",
        "sb_secret_0123456789abc",
    ],
)
def test_it_masks_what_looks_secret(text: str) -> None:
    cleaned = Redactor().redact(text)
    assert MASK in cleaned
    for part in ("0123456789", "OnVr", "abcdefgh", "hunter22", "sometoken", "AbC", "eyJ"):
        assert part not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "Bot started with 3 guilds",
        "http://kuma:3001/metrics answered 200",
        "monitor web.example.jp is down",
        "2026-11-20T12:34:56.789Z",
        "3f2b9c1e-8f0a-4d67-9b1a-1f0e2d3c4b5a",
        "the user admin@example.jp",
    ],
)
def test_it_leaves_ordinary_text_alone(text: str) -> None:
    assert Redactor(["other-secret"]).redact(text) == text


@given(
    secret=st.text(st.characters(exclude_characters="*", codec="utf-8"), min_size=4),
    before=st.text(),
    after=st.text(),
)
def test_no_known_secret_survives_however_it_is_spelled(
    secret: str, before: str, after: str
) -> None:
    redactor = Redactor([secret])
    assert secret not in redactor.redact(before + secret + after)
    assert json.dumps(secret)[1:-1] not in redactor.redact(json.dumps([secret]))
    assert repr(secret)[1:-1] not in redactor.redact(repr({"key": secret}))


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    assert Redactor(["abcd", "abcdefgh"]).redact("it is abcdefgh") == f"it is {MASK}"


def test_every_part_of_a_record_is_redacted(settings: Settings, opened: list[Logging]) -> None:
    for form in ("text", "json"):
        stream = io.StringIO()
        log = start(opened, replace(settings, log_format=form), stream, PASSWORD)
        try:
            raise ValueError(f"cannot log in with {PASSWORD}")
        except ValueError:
            log.exception(
                "refused %s",
                PASSWORD,
                extra={"body": {"pass": [PASSWORD]}, "token": Secret(PASSWORD), "tries": 3},
                stack_info=True,
            )
        opened.pop().close()
        written = stream.getvalue()
        assert MASK in written and "ValueError" in written and "3" in written
        for spelled in (PASSWORD, json.dumps(PASSWORD)[1:-1], repr(PASSWORD)[1:-1]):
            assert spelled not in written


def test_a_handler_added_later_sees_only_clean_records(
    settings: Settings, opened: list[Logging]
) -> None:
    seen: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    log = start(opened, settings, io.StringIO(), PASSWORD)
    collector = Collector()
    logging.getLogger().addHandler(collector)
    try:
        log.warning("it is %s", PASSWORD)
    finally:
        logging.getLogger().removeHandler(collector)
    assert seen[0].getMessage() == f"it is {MASK}"
    assert not seen[0].args


def test_json_lines_carry_time_level_logger_message_and_extras(
    settings: Settings, opened: list[Logging]
) -> None:
    stream = io.StringIO()
    start(opened, settings, stream).info("監視 %d", 3, extra={"monitor": "web", "level": "x"})
    line = json.loads(stream.getvalue())
    assert line["message"] == "監視 3"
    assert (line["level"], line["logger"], line["monitor"]) == ("INFO", "bot.test", "web")
    assert line["ts"].endswith("Z") and len(line["ts"]) == len("2026-11-20T12:34:56.789Z")


def test_it_writes_text_on_a_terminal_and_json_elsewhere(
    settings: Settings, opened: list[Logging]
) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    start(opened, settings, terminal).info("hello")
    opened.pop().close()
    start(opened, settings, pipe).info("hello")
    assert terminal.getvalue().endswith("INFO bot.test: hello\n")
    assert json.loads(pipe.getvalue())["message"] == "hello"


def test_a_wrong_log_call_still_says_what_it_can(settings: Settings, opened: list[Logging]) -> None:
    stream = io.StringIO()
    start(opened, settings, stream)
    wrong = {"name": "bot", "levelname": "INFO", "msg": "%d apples", "args": ("many",)}
    opened[0].handlers[0].handle(logging.makeLogRecord(wrong))
    assert "%d apples" in stream.getvalue() and "many" in stream.getvalue()


def test_it_keeps_seven_compressed_private_generations(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "comet.log"
    handler = CompressingFileHandler(path, max_bytes=200)
    for number in range(100):
        handler.emit(logging.makeLogRecord({"msg": f"line {number} {'x' * 60}"}))
    handler.close()
    kept = sorted(found.name for found in path.parent.iterdir())
    assert kept == ["comet.log", *(f"comet.log.{n}.gz" for n in range(1, 8))]
    for found in path.parent.iterdir():
        assert stat.S_IMODE(found.stat().st_mode) == 0o640
    newest = gzip.decompress((path.parent / "comet.log.1.gz").read_bytes()).decode()
    oldest = gzip.decompress((path.parent / "comet.log.7.gz").read_bytes()).decode()
    lines = (oldest + newest + path.read_text()).split("\n")
    numbers = [int(line.split()[1]) for line in lines if line]
    assert numbers == sorted(numbers) and numbers[-1] == 99


def test_it_finishes_a_compression_that_a_crash_cut_short(tmp_path: Path) -> None:
    (tmp_path / "comet.log.rotating").write_text("old lines\n")
    CompressingFileHandler(tmp_path / "comet.log").close()
    assert gzip.decompress((tmp_path / "comet.log.1.gz").read_bytes()) == b"old lines\n"
    assert not (tmp_path / "comet.log.rotating").exists()


def test_a_full_disk_is_said_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    handler = CompressingFileHandler(Path("/dev/full"))
    for _ in range(3):
        handler.emit(logging.makeLogRecord({"msg": "x"}))
    assert handler.lost == 3
    assert capsys.readouterr().err.count("cannot be written") == 1
    handler.close()


def test_it_writes_again_once_the_disk_has_room(tmp_path: Path) -> None:
    handler = CompressingFileHandler(tmp_path / "comet.log")
    with open("/dev/full", "w") as full:
        handler.stream.close()
        handler.stream = full
        handler.emit(logging.makeLogRecord({"msg": "lost"}))
    handler.emit(logging.makeLogRecord({"msg": "kept"}))
    handler.close()
    assert (tmp_path / "comet.log").read_text() == "kept\n"


def test_a_log_file_that_cannot_be_opened_is_reported_and_survived(
    settings: Settings, opened: list[Logging], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    stream = io.StringIO()
    unusable = replace(settings, log_file=tmp_path / "file" / "comet.log")
    start(opened, unusable, stream).info("still here")
    assert "LOG_FILE cannot be used" in stream.getvalue()
    assert "still here" in stream.getvalue()


def test_closing_gives_the_loggers_back_as_they_were(settings: Settings) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("discord").level)
    configure_logging(settings, Redactor(), sys.stderr).close()
    assert (list(root.handlers), root.level, logging.getLogger("discord").level) == before
