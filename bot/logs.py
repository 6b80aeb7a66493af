"""Log lines for people on a terminal and for machines elsewhere; no secret in either.

Writing happens where the record is made; a full log file is compressed in a thread, because
gzip needs a quarter of a second for 10 MB and the event loop may not wait for it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, TextIO

from bot.redaction import Redactor
from bot.settings import Settings

FILE_BYTES: Final = 10_000_000
FILE_COUNT: Final = 7
FILE_MODE: Final = 0o640

# Chatty neighbours: their warnings matter, their daily business does not.
_QUIETER: Final = {
    "discord": logging.INFO,
    "discord.client": logging.WARNING,
    "discord.gateway": logging.INFO,
    "discord.http": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "aiosqlite": logging.WARNING,
    "asyncio": logging.WARNING,
    "PIL": logging.WARNING,
}

_BUILT_IN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS: Final = frozenset(("_is_clean", "_told"))


class RedactingFilter(logging.Filter):
    """Rewrites a record for good: message, arguments, traceback, extras. Hang it on handlers.

    The record then holds only finished, clean text, so that handlers after it see no secret.
    `record._told` is what a short account of it needs: the extras, and `exception` with the
    type and first line, without the traceback.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "_is_clean", None) is self._redactor:
            return True
        redact = self._redactor.redact
        record.msg = redact(_message(record))
        record.args = None
        told: dict[str, object] = {}
        if record.exc_info and record.exc_info[0] is not None:
            told["exception"] = redact(_headline(record.exc_info[0], record.exc_info[1]))
        elif (before := getattr(record, "_told", {}).get("exception")) is not None:
            told["exception"] = redact(before)
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name, value in extras(record).items():
            told[name] = self._clean(value)
            setattr(record, name, told[name])
        record._told = told
        record._is_clean = self._redactor
        return True

    def _clean(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self._redactor.redact(str(k)): self._clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(item) for item in value]
        return self._redactor.redact(str(value))


def _message(record: logging.LogRecord) -> str:
    """A log call with wrong arguments still says what it can."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args!r}"


def _headline(kind: type[BaseException], error: BaseException | None) -> str:
    try:
        text = str(error)
    except Exception:
        text = ""
    first = text.strip().partition("\n")[0]
    return f"{kind.__name__}: {first}" if first else kind.__name__


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra=`."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _BUILT_IN and name not in _OURS
    }


class TextFormatter(logging.Formatter):
    """`2026-11-20 12:34:56.789Z WARNING bot.app: message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_time(record, ' ')} {record.levelname} {record.name}: {_message(record)}"
        parts = [head, *(f"{name}={value}" for name, value in extras(record).items())]
        tail = [text for text in (record.exc_text, record.stack_info) if text]
        return "\n".join([" ".join(parts), *tail])


class JsonFormatter(logging.Formatter):
    """One object a line: ts (UTC, milliseconds), level, logger, message, then the extras."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _time(record, "T"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        line.update({k: v for k, v in extras(record).items() if k not in line})
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, ensure_ascii=False, default=str)


def _time(record: logging.LogRecord, joint: str) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(joint, "milliseconds").replace("+00:00", "Z")


class CompressingFileHandler(RotatingFileHandler):
    """`comet.log`, `comet.log.1.gz` … `comet.log.7.gz`, all of mode 640.

    1. the full file is renamed to `.rotating`, 2. a thread compresses that to `.1.gz`,
    3. and removes it. What a crash left half done is finished at the next start.
    """

    def __init__(self, path: Path, max_bytes: int = FILE_BYTES, count: int = FILE_COUNT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rotating = Path(f"{os.path.abspath(path)}.rotating")
        self._thread: threading.Thread | None = None
        self.lost = 0
        super().__init__(path, maxBytes=max_bytes, backupCount=count, encoding="utf-8")
        self.namer = lambda name: f"{name}.gz"
        self.rotator = self._rotate
        newest = Path(f"{self.baseFilename}.1.gz")
        if self._rotating.exists():
            if newest.exists():
                self._rotating.unlink()
            else:
                self._compress(newest)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_open_private)

    def _rotate(self, source: str, dest: str) -> None:
        self._wait()
        if os.path.exists(source):
            os.replace(source, self._rotating)
            self._thread = threading.Thread(
                target=self._compress, args=(Path(dest),), name="log-compression"
            )
            self._thread.start()

    def doRollover(self) -> None:
        # The newest generation must be there before its number is shifted up.
        self._wait()
        super().doRollover()

    def _compress(self, dest: Path) -> None:
        part = Path(f"{dest}.part")
        try:
            with (
                self._rotating.open("rb") as source,
                open(part, "wb", opener=_open_private) as file,
                gzip.GzipFile(fileobj=file, mode="wb") as packed,
            ):
                shutil.copyfileobj(source, packed)
            os.replace(part, dest)
            self._rotating.unlink()
        except OSError as error:
            part.unlink(missing_ok=True)
            print(f"log file not compressed: {error}", file=sys.stderr)

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def handleError(self, record: logging.LogRecord) -> None:
        """Disk full, most likely: say so once, count the rest; the other handlers go on."""
        if self.lost == 0:
            print(f"log file cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
        self.lost += 1
        self._drop_stream()

    def _drop_stream(self) -> None:
        """The next record opens the file anew: a stream that failed once may stay unusable."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def close(self) -> None:
        self._drop_stream()
        super().close()
        self._wait()


def _open_private(path: str, flags: int) -> int:
    found = os.open(path, flags, FILE_MODE)
    os.fchmod(found, FILE_MODE)
    return found


class Logging:
    """What `configure_logging` set up; `close()` takes it down again and flushes."""

    def __init__(self, handlers: list[logging.Handler], levels: Mapping[str, int]) -> None:
        self.handlers = handlers
        self._levels = levels

    def close(self) -> None:
        for handler in self.handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()
        for name, level in self._levels.items():
            logging.getLogger(name or None).setLevel(level)
        logging.captureWarnings(False)


def configure_logging(
    settings: Settings, redactor: Redactor, stream: TextIO | None = None
) -> Logging:
    """Log to `stream` (standard error if None), and to LOG_FILE when there is one.

    A log file that cannot be opened is reported on the stream; the process goes on without.
    """
    stream = stream if stream is not None else sys.stderr
    form = settings.log_format or ("text" if stream.isatty() else "json")
    root = logging.getLogger()
    own_level = logging.getLevelNamesMapping()[settings.log_level]
    wanted = {"": own_level} | {
        name: max(level, own_level) if own_level > logging.DEBUG else level
        for name, level in _QUIETER.items()
    }
    before = {name: logging.getLogger(name or None).level for name in wanted}
    for name, level in wanted.items():
        logging.getLogger(name or None).setLevel(level)

    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    problem: OSError | None = None
    if settings.log_file is not None:
        try:
            handlers.append(CompressingFileHandler(settings.log_file))
        except OSError as error:
            problem = error
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
        handler.addFilter(RedactingFilter(redactor))
        root.addHandler(handler)
    logging.captureWarnings(True)
    if problem is not None:
        logging.getLogger(__name__).error("LOG_FILE cannot be used: %s", problem)
    return Logging(handlers, before)


@contextlib.contextmanager
def attached(handler: logging.Handler, redactor: Redactor) -> Iterator[None]:
    """Let one more handler see every record, as clean as the others do, until the block ends."""
    handler.addFilter(RedactingFilter(redactor))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
