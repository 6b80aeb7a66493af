"""`check`: looks at every outside thing once and says what stands and what to do about the rest.

Changes nothing and starts nothing: no file is made, no bot logs in.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

import aiohttp

from bot.i18n import Translator
from bot.redaction import Redactor
from bot.services.kuma_client import KumaClient, KumaPollError
from bot.settings import KumaSettings, Settings
from bot.settings_table import DISCORD_API
from bot.storage import pg_migrations
from bot.storage.database import connect, from_sqlite_error, inspect_file
from bot.storage.migrations import Migration, available, latest_number, pending
from bot.storage.pg_store import PgStore
from bot.storage.postgres import address_of, is_pooled
from bot.storage.postgres import connect as connect_to_postgres
from bot.storage.remote import remote_store
from bot.storage.sqlite_journal import measure, time_of
from bot.storage.store import StoreError

DISCORD_TIMEOUT_S: Final = 10.0
DATABASE_TIMEOUT_S: Final = 10.0
WORST_SKEW_S: Final = 10.0
_BUSY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `is_fine` is None for what is simply not set up."""

    is_fine: bool | None
    text: str

    def __str__(self) -> str:
        mark = {True: "✔", False: "✖", None: "-"}[self.is_fine]
        return f"{mark} {self.text}"


async def check(settings: Settings, out: TextIO) -> bool:
    """Print the settings and every finding as it comes; True when nothing is wrong."""
    redactor = Redactor(settings.secrets())
    translator = Translator(settings.comet_locale)
    for line in settings_lines(settings, translator):
        print(redactor.redact(line), file=out)
    is_fine = True
    async for finding in findings(settings, translator):
        is_fine = is_fine and finding.is_fine is not False
        print(redactor.redact(str(finding)), file=out, flush=True)
    return is_fine


def settings_lines(settings: Settings, translator: Translator) -> list[str]:
    """Every setting with its value; secrets only as given or not."""
    lines = []
    for field in fields(settings):
        if field.name in ("kuma_instances", "warnings", "notices"):
            continue
        value = getattr(settings, field.name)
        if isinstance(value, tuple):
            value = ", ".join(map(str, value))
        if value in (None, ""):
            words = f"settings.default.{field.name}"
            value = translator.t(words if translator.has(words) else "settings.table.none")
        lines.append(f"  {field.name.upper()} = {value}")
    for kuma in settings.kuma_instances:
        given = ", ".join(
            f"{field.name}={getattr(kuma, field.name)}"
            for field in fields(kuma)
            if field.name not in ("key", "url") and getattr(kuma, field.name) is not None
        )
        lines.append(f"  UPTIME_KUMA[{kuma.key}] = {kuma.url} ({given})")
    lines += [f"! {remark.text(translator)}" for remark in settings.warnings]
    lines += [f"- {remark.text(translator)}" for remark in settings.notices]
    return lines


async def findings(settings: Settings, translator: Translator) -> AsyncIterator[Finding]:
    """1. database, 2. its remote copy, 3. each Kuma, 4. Discord, 5. the web side's port."""
    yield await asyncio.to_thread(_database, settings.sqlite_db_path, translator)
    async for finding in _remote(settings, translator):
        yield finding
    async with aiohttp.ClientSession() as session:
        if not settings.kuma_instances:
            yield Finding(None, translator.t("check.no_kuma"))
        for kuma in settings.kuma_instances:
            yield await _kuma(session, kuma, translator)
        yield await _discord(session, settings, translator)
    yield _web(settings, translator)


def pending_migrations(path: Path) -> list[Migration]:
    """What opening the store would apply; everything for a file that is not there yet.

    Raises StoreError when the file cannot be read, is not ours, damaged or too new.
    """
    if not os.path.exists(path):
        return available()
    inspect_file(path)
    try:
        with closing(connect(path, busy_timeout_s=_BUSY_S, is_writer=False)) as db:
            return pending(db)
    except sqlite3.Error as error:
        raise from_sqlite_error(error, path) from error


def _database(path: Path, translator: Translator) -> Finding:
    t = translator.t
    try:
        todo = pending_migrations(path)
    except StoreError as error:
        said = t(f"store.{error.reason}", path=path, detail=error.detail)
        return Finding(False, t("check.database", said=said))
    if not os.path.exists(path):
        place = next(folder for folder in path.absolute().parents if os.path.exists(folder))
        is_usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
        key = "check.database_new" if is_usable else "check.no_place"
        return Finding(is_usable, t(key, path=path, folder=place))
    if not os.access(path, os.W_OK):
        return Finding(False, t("check.database", said=t("store.readonly", path=path, detail="")))
    number = len(available()) - len(todo)
    if todo:
        return Finding(True, t("check.database_pending", path=path, number=number, n=len(todo)))
    return Finding(True, t("check.database_fine", path=path, number=number))


async def _remote(settings: Settings, translator: Translator) -> AsyncIterator[Finding]:
    """The database that rows are copied to, and DATABASE_URL where it is not that one itself."""
    t = translator.t
    dsn = None if settings.database_url is None else settings.database_url.reveal()
    backend = settings.monitoring_db
    key = settings.supabase_key
    store = remote_store(
        backend,
        database_url=dsn,
        supabase_url=settings.supabase_url,
        supabase_key=None if key is None else key.reveal(),
        bot_id=settings.bot_id,
    )
    if store is None:
        yield Finding(None, t("check.no_remote"))
        return
    yield await _copy(store, backend, translator)
    waiting = await asyncio.to_thread(_waiting, settings.sqlite_db_path, translator)
    if waiting is not None:
        yield waiting
    if dsn is None:
        return
    name = address_of(dsn)
    try:
        async with connect_to_postgres(dsn, timeout_s=DATABASE_TIMEOUT_S) as connection:
            if backend != "postgresql":
                number = await pg_migrations.number(connection)
                yield Finding(True, t("check.database_url", path=name, number=number))
            if is_pooled(dsn):
                yield Finding(None, t("check.remote_pooler", path=name))
            elif not await pg_migrations.is_encrypted(connection):
                yield Finding(None, t("check.remote_plain", path=name))
    except StoreError as error:
        if backend != "postgresql":
            said = t(f"store.{error.reason}", path=name, detail=error.detail)
            yield Finding(False, f"DATABASE_URL: {said}")
        if error.reason == "away" and re.match(r"db\.\w+\.supabase\.co\b", name):
            yield Finding(None, t("check.remote_ipv6"))


def _waiting(path: Path, translator: Translator) -> Finding | None:
    """How much still has to be copied; None for a file that cannot say (see `_database`)."""
    if not os.path.exists(path):
        return None
    try:
        inspect_file(path)
        with closing(connect(path, busy_timeout_s=_BUSY_S, is_writer=False)) as db:
            size = measure(db)
    except (sqlite3.Error, StoreError):
        return None
    age_s = 0.0
    if size.oldest is not None:
        age_s = max(0.0, (datetime.now(UTC) - time_of(size.oldest)).total_seconds())
    age = translator.format_duration(age_s)
    return Finding(None, translator.t("check.remote_waiting", n=size.depth, age=age))


async def _copy(store: PgStore, backend: str, translator: Translator) -> Finding:
    """Connect, read the number of its schema, call one of our functions, ask for the time."""
    t = translator.t
    here = {"backend": t(f"backend.{backend}"), "path": store.name}
    wanted = latest_number("postgres")
    try:
        number = await store.look()
        if number < wanted:
            return Finding(False, t("check.remote_behind", **here, number=number, wanted=wanted))
        await store.open()
        await store.guild_configs()
        before = datetime.now(UTC)
        there = await store.server_time()
        now = before + (datetime.now(UTC) - before) / 2
    except StoreError as error:
        said = t(f"store.{error.reason}", path=store.name, detail=error.detail)
        return Finding(False, t("check.remote", **here, said=said))
    finally:
        await store.close()
    skew_s = None if there is None else abs((there - now).total_seconds())
    skew = translator.format_duration(skew_s)
    if skew_s is not None and skew_s > WORST_SKEW_S:
        return Finding(False, t("check.remote_clock", **here, skew=skew))
    return Finding(True, t("check.remote_fine", **here, number=number, skew=skew))


async def _kuma(
    session: aiohttp.ClientSession, kuma: KumaSettings, translator: Translator
) -> Finding:
    t = translator.t
    client = KumaClient(
        session,
        kuma.login_url.reveal(),
        kuma.key,
        api_key=None if kuma.api_key is None else kuma.api_key.reveal(),
        status_page=kuma.status_page,
    )
    name = f"{kuma.key} ({kuma.url})"
    try:
        report = await client.fetch()
    except KumaPollError as error:
        advice = t(f"check.kuma.{error.problem.value}")
        return Finding(False, t("check.kuma_bad", name=name, detail=error.detail, advice=advice))
    version = report.version or translator.unknown()
    return Finding(True, t("check.kuma_fine", name=name, n=len(report.monitors), version=version))


async def _discord(
    session: aiohttp.ClientSession, settings: Settings, translator: Translator
) -> Finding:
    """One GET with the token; the bot stays offline."""
    t = translator.t
    if settings.discord_token is None:
        return Finding(None, t("check.no_discord"))
    base = settings.discord_api_base_url or DISCORD_API
    headers = {"Authorization": f"Bot {settings.discord_token.reveal()}"}
    timeout = aiohttp.ClientTimeout(total=DISCORD_TIMEOUT_S)
    try:
        async with session.get(f"{base}/users/@me", headers=headers, timeout=timeout) as answer:
            if answer.status == 401:
                return Finding(False, t("check.discord_refused"))
            if answer.status != 200:
                return Finding(False, t("check.discord_odd", url=base, status=answer.status))
            person = await answer.json()
            return Finding(True, t("check.discord_fine", name=person["username"]))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        detail = str(error) or type(error).__name__
        return Finding(False, t("check.discord_away", url=base, detail=detail))
    except (ValueError, LookupError, TypeError):
        return Finding(False, t("check.discord_odd", url=base, status=200))


def _web(settings: Settings, translator: Translator) -> Finding:
    """Whether the web side could listen: bind and let go."""
    t = translator.t
    host, port = settings.web_host, settings.web_port
    where = f"{host}:{port}"
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(False, t("check.web_taken", where=where))
        return Finding(False, t("check.web_bad", where=where, detail=error.strerror or error))
    return Finding(True, t("check.web_fine", where=where))
