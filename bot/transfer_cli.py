"""The verb transfer: every row of one store into another, proven afterwards."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bot.i18n import Translator
from bot.progress import ProgressLine
from bot.settings import Settings
from bot.storage.store import StoreError

if TYPE_CHECKING:
    from bot.storage.transfer import Count, Outcome, Side

_SHOWN: Final = 5
"""So many keys of a kind of trouble are shown; more help nobody."""

_LOCAL: Final = frozenset(("localhost", "::1", "127.0.0.1"))


class Refused(Exception):
    """The arguments cannot be followed; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a transfer. `name` shows it without any secret; `address` tells it from others.

    `path`: of a SQLite file; None for a server. `dsn`: of a PostgreSQL server.
    """

    name: str
    address: str
    path: Path | None = None
    dsn: str | None = None


def add_parser(verbs: Any, translator: Translator) -> None:
    """Tell argparse about the verb."""
    t = translator.t
    verb = verbs.add_parser(
        "transfer",
        help=t("transfer.about"),
        description=t("transfer.about_long"),
        epilog=t("transfer.places"),
    )
    verb.add_argument("--from", dest="source", required=True, metavar="X", help=t("transfer.from"))
    verb.add_argument("--to", dest="target", required=True, metavar="Y", help=t("transfer.to"))
    verb.add_argument("--batch", type=_batch, metavar="N", default=500, help=t("transfer.batch"))
    verb.add_argument("--dry-run", action="store_true", help=t("transfer.dry_run"))


def _batch(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise ValueError(text)
    return number


def run(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked; 0: every row is there, 1: not (yet), 2: the arguments are refused."""
    work = _Work(asked, settings)
    try:
        return asyncio.run(work.run())
    except Refused as error:
        print(f"✖ {error}", file=sys.stderr)
        return 2
    except StoreError as error:
        work.show.line.clear()
        print(f"✖ {work.said(error)}", file=sys.stderr)
    except OSError as error:
        work.show.line.clear()
        print(f"✖ {error}", file=sys.stderr)
    except KeyboardInterrupt:
        work.show.line.clear()
        print(f"✖ {work.t('transfer.stopped')}", file=sys.stderr)
        return 1
    if work.is_begun:
        print(work.t("transfer.go_on"), file=sys.stderr)
    return 1


class _Work:
    def __init__(self, asked: argparse.Namespace, settings: Settings) -> None:
        self.asked = asked
        self.settings = settings
        self.translator = Translator(settings.comet_locale)
        self.t = self.translator.t
        self.show = _Show(self.translator)
        self.now = datetime.now(UTC)
        self.at_fault = ""
        self.is_begun = False

    def said(self, error: StoreError) -> str:
        key = f"transfer.fault.{error.reason}"
        if not self.translator.has(key):
            key = f"store.{error.reason}"
        return self.t(key, path=self.at_fault, detail=error.detail)

    async def run(self) -> int:
        """1. find out what is meant, 2. open both, 3. count, 4. move, 5. check, 6. say."""
        source, target = self.place(self.asked.source), self.place(self.asked.target)
        self.refuse_same(source, target)
        from bot.storage.transfer import Transfer
        from bot.storage.transfer_state import TransferState

        home = target.path or source.path
        pair = f"{source.address} > {target.address} as {self.settings.bot_id}"
        state = TransferState.load(
            home.parent if home else Path.cwd(), home.name if home else "comet", pair, self.now
        )
        async with AsyncExitStack() as stack:
            self.at_fault = source.name
            reader = await stack.enter_async_context(self.opened_source(source))
            self.at_fault = target.name
            if self.asked.dry_run:
                writer = await stack.enter_async_context(
                    self.opened_source(target, is_new_fine=True)
                )
            else:
                writer = await stack.enter_async_context(self.opened_target(target))
            self.at_fault = f"{source.name} → {target.name}"
            transfer = Transfer(
                reader,
                writer,
                state,
                self.show,
                now=self.now,
                bot_id=self.settings.bot_id,
                only_own=target.path is not None,
                is_coarse=target.path is not None,
                batch=self.asked.batch,
            )
            print(self.t("transfer.head", source=source.name, target=target.name))
            counts = await transfer.count()
            if self.asked.dry_run:
                self.show_counts(counts)
                return 0
            self.is_begun = True
            if state.is_resumed:
                print(self.t("transfer.resumed", n=f"{transfer.already_moved():,}"))
            total = sum(count.rows for count in counts)
            self.show.begin("transfer.moving", total, transfer.already_moved())
            await transfer.move()
            self.show.end("transfer.moving_done")
            self.show.begin("transfer.checking", total, 0)
            outcomes = await transfer.check()
            self.show.end("transfer.checking_done")
        return 0 if self.report(outcomes) else 1

    # The two ends

    def place(self, text: str) -> Place:
        """What an argument means. Raises Refused."""
        settings = self.settings
        if text in ("postgresql", "postgres"):
            if settings.database_url is None:
                raise Refused(self.t("transfer.needs", name="DATABASE_URL", place=text))
            return self._server(settings.database_url.reveal())
        if text.startswith(("postgresql://", "postgres://")):
            if urlsplit(text).password:
                print(f"! {self.t('transfer.visible')}", file=sys.stderr)
            return self._server(text)
        if text == "supabase":
            if settings.supabase_url is None or settings.supabase_key is None:
                raise Refused(
                    self.t("transfer.needs", name="SUPABASE_URL, SUPABASE_KEY", place=text)
                )
            host = urlsplit(settings.supabase_url).netloc
            return Place(f"Supabase {host}", f"supabase:{host}")
        if text == "sqlite":
            path = settings.sqlite_db_path
        else:
            path = Path(text.removeprefix("sqlite:")).expanduser()
        if "://" in text or path.is_dir():
            raise Refused(self.t("transfer.unknown_place", place=text.partition("://")[0]))
        return Place(str(path), f"sqlite:{path.resolve()}", path=path)

    def _server(self, dsn: str) -> Place:
        try:
            parts = urlsplit(dsn)
            host, port = parts.hostname or "localhost", parts.port or 5432
        except ValueError as error:
            raise Refused(self.t("transfer.unknown_place", place="postgresql")) from error
        shown = f"{host}:{port}{parts.path}"
        host = "localhost" if host in _LOCAL else host
        return Place(f"PostgreSQL {shown}", f"postgresql:{host}:{port}{parts.path}", dsn=dsn)

    def refuse_same(self, source: Place, target: Place) -> None:
        """Raises Refused. A Supabase project and its own database are the same place."""
        same = source.address == target.address
        if source.path and target.path and source.path.exists() and target.path.exists():
            same = same or source.path.samefile(target.path)
        ends = {place.address.partition(":")[0] for place in (source, target)}
        if ends == {"supabase", "postgresql"}:
            project = urlsplit(self.settings.supabase_url or "").netloc.partition(".")[0]
            parts = urlsplit(source.dsn or target.dsn or "")
            names = (parts.username or "").split(".") + (parts.hostname or "").split(".")
            same = len(project) > 15 and project in names
        if same:
            raise Refused(self.t("transfer.same", place=source.name))

    @asynccontextmanager
    async def opened_source(
        self, place: Place, *, is_new_fine: bool = False
    ) -> AsyncIterator[Side]:
        """Never changed, and unchanging: of a SQLite file a copy of one moment is read.

        So a bot may go on writing to it, and an older schema is brought up in the copy only.
        """
        if place.path is None:
            async with self._opened_server(place, migrate=False) as store:
                yield store
            return
        from bot.storage.backup import copy_database
        from bot.storage.scratch import scratch
        from bot.storage.sqlite import SqliteStore

        if is_new_fine and not place.path.exists():
            yield _Empty()
            return
        with scratch(place.path.parent) as work:
            copy = work / "copy.db"
            await asyncio.to_thread(copy_database, place.path, copy, _quiet)
            store = SqliteStore(copy, bot_id=self.settings.bot_id)
            await store.open()
            try:
                yield store
            finally:
                await store.close()

    @asynccontextmanager
    async def opened_target(self, place: Place) -> AsyncIterator[Side]:
        if place.path is None:
            async with self._opened_server(place, migrate=True) as store:
                yield store
            return
        from bot.storage.sqlite import SqliteStore

        store = SqliteStore(place.path, bot_id=self.settings.bot_id)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def _opened_server(self, place: Place, *, migrate: bool) -> AsyncIterator[Side]:
        bot_id = self.settings.bot_id
        if place.dsn is not None:
            from bot.storage.postgres import PostgresStore

            store: Any = PostgresStore(place.dsn, bot_id=bot_id, migrate=migrate)
        else:
            from bot.storage.supabase import SupabaseStore

            url, key = self.settings.supabase_url, self.settings.supabase_key
            assert url is not None and key is not None
            store = SupabaseStore(url, key.reveal(), bot_id=bot_id)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    # What people see

    def show_counts(self, counts: Sequence[Count]) -> None:
        heads = [self.t(f"transfer.column.{name}") for name in ("source", "target")]
        print(f"  {'':<16}{heads[0]:>12}{heads[1]:>12}")
        for count in counts:
            print(f"  {count.kind.name:<16}{count.rows:>12,}{count.target:>12,}")
        self._say_others(sum(count.others for count in counts))
        print(self.t("transfer.dry", n=f"{sum(count.rows for count in counts):,}"))

    def report(self, outcomes: Sequence[Outcome]) -> bool:
        """Each kind that has rows, then what is wrong with any; True when nothing is."""
        for outcome in outcomes:
            found, kind = outcome.found, outcome.kind.name
            if outcome.is_fine and not (outcome.rows or found.newer):
                continue
            notes = [
                self.t(f"transfer.note.{name}", n=f"{number:,}")
                for name, number in (
                    ("newer", found.newer),
                    ("before", found.before),
                    ("late", found.late),
                    ("repaired", outcome.repaired),
                )
                if number
            ]
            mark = "✔" if outcome.is_fine else "✖"
            tail = f"  ({', '.join(notes)})" if notes else ""
            print(f"{mark} {kind:<16}{found.same:>12,}{tail}")
            for name, keys in (
                ("missing", found.missing),
                ("different", found.different),
                ("unexpected", found.unexpected),
            ):
                self._complain(f"transfer.wrong.{name}", keys)
            if outcome.unread:
                print(f"    {self.t('transfer.wrong.unread', n=f'{outcome.unread:,}')}")
            reasons = [f"{key} ({reason})" for key, reason in outcome.refused.items()]
            self._complain("transfer.wrong.refused", reasons)
        self._say_others(sum(outcome.others for outcome in outcomes))
        is_fine = all(outcome.is_fine for outcome in outcomes)
        same = f"{sum(outcome.found.same for outcome in outcomes):,}"
        if is_fine:
            print(self.t("transfer.done", n=same))
        else:
            print(f"✖ {self.t('transfer.not_done', n=same)}", file=sys.stderr)
        return is_fine

    def _complain(self, key: str, keys: Sequence[str]) -> None:
        if not keys:
            return
        print(f"    {self.t(key, n=f'{len(keys):,}')}")
        for one in keys[:_SHOWN]:
            print(f"      {one}")
        if len(keys) > _SHOWN:
            print("      …")

    def _say_others(self, number: int) -> None:
        if number:
            print(self.t("transfer.others", n=f"{number:,}", bot=self.settings.bot_id))


class _Show:
    """The transfer's watcher: one line with rate and remaining time."""

    def __init__(self, translator: Translator) -> None:
        self.line = ProgressLine(sys.stderr)
        self._translator = translator
        self._key = ""
        self._total = self._done = self._begun_with = 0
        self._begun_s = 0.0

    def begin(self, key: str, total: int, done: int) -> None:
        self._key, self._total, self._done, self._begun_with = key, total, done, done
        self._begun_s = time.monotonic()

    def end(self, key: str) -> None:
        """Leave the result of the phase behind, with its rate."""
        self.line.clear()
        rows, took_s = self._done - self._begun_with, time.monotonic() - self._begun_s
        print(
            self._translator.t(
                key,
                n=f"{rows:,}",
                took=self._translator.format_duration(took_s),
                rate=f"{rows / max(took_s, 0.001):,.0f}",
            )
        )

    def moved(self, kind: str, rows: int) -> None:
        self._advance(kind, rows)

    def checked(self, kind: str, rows: int) -> None:
        self._advance(kind, rows)

    def _advance(self, kind: str, rows: int) -> None:
        self._done += rows
        self.line.show(lambda: self._text(kind))

    def waiting(self, error: StoreError) -> None:
        self.line.show(lambda: self._translator.t("transfer.waiting", detail=error.detail))

    def _text(self, kind: str) -> str:
        took_s = max(time.monotonic() - self._begun_s, 0.001)
        rate = (self._done - self._begun_with) / took_s
        part = min(1.0, self._done / max(self._total, 1))
        left_s = max(0, self._total - self._done) / rate if rate else None
        bar = "" if self.line.is_plain else f"[{'#' * round(part * 20):<20}] "
        return bar + self._translator.t(
            self._key,
            percent=f"{part:.0%}",
            done=f"{self._done:,}",
            total=f"{self._total:,}",
            rate=f"{rate:,.0f}",
            left=self._translator.format_duration(left_s),
            kind=kind,
        )


class _Empty:
    """A file that does not exist yet, as a dry run sees it."""

    async def export_rows(self, *given: object, **named: object) -> Any:
        raise NotImplementedError

    async def import_rows(self, *given: object) -> int:
        raise NotImplementedError

    async def count_rows(self, kind: str, *, bot_id: str | None = None) -> int:
        return 0


def _quiet(step: str, part: float | None) -> None:
    return
