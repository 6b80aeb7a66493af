"""The verbs backup and restore."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bot.i18n import Translator
from bot.progress import ProgressLine
from bot.settings import Settings
from bot.storage.store import StoreError

if TYPE_CHECKING:
    from bot.storage.backup import Contents, Report

_FOLDER: Final = "backups"
"""Beside the database, where neither --to nor BACKUP_DIR says otherwise."""


def add_parsers(verbs: Any, translator: Translator) -> None:
    """Tell argparse about both verbs."""
    t = translator.t
    backup = verbs.add_parser("backup", help=t("backup.about"), description=t("backup.about_long"))
    what = backup.add_mutually_exclusive_group()
    what.add_argument("--verify", type=Path, metavar="FILE", help=t("backup.verify"))
    what.add_argument("--list", action="store_true", help=t("backup.list"))
    backup.add_argument("--to", type=Path, metavar="DIR|FILE", help=t("backup.to"))
    backup.add_argument("--keep", type=_count, metavar="N", help=t("backup.keep"))
    backup.add_argument(
        "--recipient",
        action="append",
        default=[],
        metavar="age1…|FILE",
        help=t("backup.recipient"),
    )
    backup.add_argument("--identity", type=Path, metavar="FILE", help=t("backup.identity"))
    restore = verbs.add_parser(
        "restore", help=t("backup.restore"), description=t("backup.restore_long")
    )
    restore.add_argument("file", type=Path, metavar="FILE", help=t("backup.restore_file"))
    restore.add_argument("--to", type=Path, metavar="PATH", help=t("backup.restore_to"))
    restore.add_argument("--identity", type=Path, metavar="FILE", help=t("backup.identity"))
    restore.add_argument("--force", action="store_true", help=t("backup.force"))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked; the exit code: 0 done (or proven whole), 1 not."""
    work = _Work(asked, settings)
    try:
        if asked.verb == "restore":
            return work.restore()
        if asked.verify is not None:
            return work.verify()
        return work.list() if asked.list else work.make()
    except StoreError as error:
        work.progress.clear()
        print(f"✖ {work.said(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        work.progress.clear()
        print(f"✖ {work.t('backup.stopped')}", file=sys.stderr)
    return 1


class _Work:
    def __init__(self, asked: argparse.Namespace, settings: Settings) -> None:
        self.asked = asked
        self.settings = settings
        self.translator = Translator(settings.comet_locale)
        self.t = self.translator.t
        self.progress = ProgressLine(sys.stderr)
        self.path: Path = settings.sqlite_db_path
        self.now = datetime.now(UTC)

    def said(self, error: StoreError) -> str:
        key = f"backup.fault.{error.reason}"
        if not self.translator.has(key):
            key = f"store.{error.reason}"
        return self.t(key, path=self.path, detail=error.detail)

    def report(self) -> Report:
        def show(step: str, part: float | None) -> None:
            name = self.t(f"backup.step.{step}")
            self.progress.show(lambda: name if part is None else f"{name} {part:.0%}")

        return show

    def folder(self) -> Path:
        beside = self.settings.sqlite_db_path.parent / _FOLDER
        return self.asked.to or self.settings.backup_dir or beside

    def make(self) -> int:
        from bot.storage.backup import make
        from bot.storage.backup_folder import prune
        from bot.storage.sealed import recipients_of

        setting = self.settings.backup_age_recipient
        given = self.asked.recipient or ([setting] if setting else [])
        keep: int | None = self.asked.keep
        if keep is None and self.asked.to is None and self.settings.backup_dir is not None:
            keep = self.settings.backup_keep
        recipients = recipients_of(given)
        made = make(self.path, self.folder(), self.now, recipients, self.report())
        self.progress.clear()
        size = self.translator.format_bytes(made.stat().st_size)
        print(self.t("backup.made_sealed" if recipients else "backup.made", path=made, size=size))
        if keep is not None:
            for gone in prune(made.parent, keep, made):
                print(self.t("backup.deleted", name=gone.name))
        return 0

    def list(self) -> int:
        from bot.storage.backup_folder import backups

        folder = self.folder()
        found = backups(folder)
        for one in found:
            size = self.translator.format_bytes(one.size_bytes)
            print(f"{self._time(one.made_at)}  {size:>9}  {one.path}")
        if not found:
            print(self.t("backup.none", folder=folder))
        return 0

    def verify(self) -> int:
        from bot.storage.backup import verify
        from bot.storage.sealed import identities_of

        self.path = self.asked.verify
        identities = identities_of(self.asked.identity)
        place = Path(tempfile.gettempdir())
        contents = verify(self.path, identities, self.report(), work=place)
        self.progress.clear()
        print(self.t("backup.whole", path=self.path))
        self._show(contents)
        return 0

    def restore(self) -> int:
        from bot.storage.backup import restore
        from bot.storage.sealed import identities_of

        self.path = self.asked.file
        target: Path = self.asked.to or self.settings.sqlite_db_path
        done = restore(
            self.path,
            target,
            self.now,
            identities_of(self.asked.identity),
            self.report(),
            is_forced=self.asked.force,
        )
        self.progress.clear()
        if done.aside is not None:
            print(self.t("backup.aside", path=done.aside))
        if done.was_schema_number < done.contents.schema_number:
            numbers = {"old": done.was_schema_number, "new": done.contents.schema_number}
            print(self.t("backup.brought_up", **numbers))
        print(self.t("backup.restored", path=target))
        self._show(done.contents)
        return 0

    def _show(self, contents: Contents) -> None:
        """What is in it: schema, newest snapshot, rows by kind."""
        newest = contents.newest_sample_at
        said = self.translator.unknown() if newest is None else self._time(newest)
        size = self.translator.format_bytes(contents.size_bytes)
        number = contents.schema_number
        print(f"  {self.t('backup.holds', number=number, size=size, newest=said)}")
        for kind, count in contents.counts.items():
            if count:
                print(f"  {kind:<16}{count:>12,}")

    def _time(self, at: datetime) -> str:
        return at.astimezone(self.settings.timezone).strftime("%Y-%m-%d %H:%M:%S %Z")
