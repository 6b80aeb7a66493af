"""The verb migrate: the local file and the remote database brought up to date, or the SQL shown."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bot.i18n import Translator
from bot.redaction import Redactor
from bot.settings import Settings
from bot.storage.migrations import Migration, available, latest_number
from bot.storage.store import StoreError


def add_parser(verbs: Any, translator: Translator) -> None:
    """Tell argparse about the verb."""
    t = translator.t
    verb = verbs.add_parser("migrate", help=t("cli.migrate"), description=t("cli.migrate_long"))
    verb.add_argument("--print", action="store_true", help=t("cli.migrate_print"))


def run(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked; 0: everything is up to date, 1: something is not."""
    return asyncio.run(_Work(settings).run(is_dry=asked.print))


class _Work:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.t = Translator(settings.comet_locale).t
        self.redact = Redactor(settings.secrets()).redact
        self.where: object = settings.sqlite_db_path
        """What an error is about."""

    async def run(self, *, is_dry: bool) -> int:
        has_remote = self.settings.monitoring_db != "sqlite"
        try:
            if is_dry:
                todo = await self.pending_there() if has_remote else self.pending_here()
                for migration in todo:
                    text = migration.path.read_text("utf-8")
                    sys.stdout.write(f"-- {migration.path.name}\n{text}\n")
                return 0
            await self.migrate_file(self.settings.sqlite_db_path)
            return await self.migrate_remote() if has_remote else 0
        except StoreError as error:
            said = self.t(f"store.{error.reason}", path=self.where, detail=error.detail)
            print(self.redact(f"✖ {said}"), file=sys.stderr)
            return 1

    def pending_here(self) -> list[Migration]:
        from bot.check import pending_migrations

        return pending_migrations(self.settings.sqlite_db_path)

    async def pending_there(self) -> list[Migration]:
        """Everything where nobody can be asked: each file does no harm when it comes twice."""
        dsn = self.settings.database_url
        if dsn is None:
            return available("postgres")
        from bot.storage import pg_migrations, postgres

        self.where = postgres.address_of(dsn.reveal())
        async with postgres.connect(dsn.reveal()) as connection:
            return await pg_migrations.pending(connection)

    async def migrate_file(self, path: Path) -> None:
        """Opening the store is what applies migrations."""
        from bot.storage.sqlite import SqliteStore

        todo = self.pending_here()
        store = SqliteStore(path)
        try:
            await store.open()
        finally:
            await store.close()
        self.say_done(todo)
        if not todo:
            self.say("cli.nothing_pending", path=path)

    async def migrate_remote(self) -> int:
        dsn = self.settings.database_url
        if dsn is None:
            return await self.explain_supabase()
        from bot.storage import pg_migrations, postgres

        self.where = postgres.address_of(dsn.reveal())
        async with postgres.connect(dsn.reveal()) as connection:
            done = await pg_migrations.migrate(connection, lambda one: self.say_done([one]))
            await pg_migrations.grant_again(connection)
        if not done:
            self.say("cli.nothing_pending", path=self.where)
        return 0

    async def explain_supabase(self) -> int:
        """With a key alone no table can be made; it can tell whether that is needed at all."""
        from bot.storage.supabase import SupabaseStore

        url, key = self.settings.supabase_url, self.settings.supabase_key
        assert url is not None and key is not None, "MONITORING_DB=supabase demands both"
        store = SupabaseStore(url, key.reveal())
        self.where = store.name
        try:
            await store.open()
            self.say("cli.nothing_pending", path=self.where)
            return 0
        except StoreError as error:
            if error.reason != "schema":
                raise
        finally:
            await store.close()
        self.say("cli.migrate_supabase", path=self.where, number=latest_number("postgres"))
        return 1

    def say_done(self, migrations: Iterable[Migration]) -> None:
        for migration in migrations:
            dialect = "" if migration.path.parent.name == "sqlite" else f"{self.where}: "
            self.say("cli.migrated", name=f"{dialect}{migration.path.name}")

    def say(self, key: str, /, **params: object) -> None:
        print(self.redact(self.t(key, **params)), flush=True)
