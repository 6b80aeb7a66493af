"""A folder of backups: which files in it are ours, how many are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bot.storage.backup import STAMP, make
from bot.storage.sealed import recipients_of
from bot.storage.store import StoreUnavailable

_NAME: Final = re.compile(r"comet-(\d{8}T\d{6}Z)(?:-(\d+))?\.db\.gz(?:\.age)?")


@dataclass(frozen=True, slots=True)
class Backup:
    """A file that has a name of ours."""

    path: Path
    made_at: datetime
    size_bytes: int


def backups(folder: Path) -> list[Backup]:
    """Our own files in a folder, newest first; none when there is no such folder."""
    found: list[tuple[int, Backup]] = []
    for path in folder.glob("comet-*.db.gz*"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            made_at = datetime.strptime(match[1], STAMP).replace(tzinfo=UTC)
            backup = Backup(path, made_at, path.stat().st_size)
        except (ValueError, FileNotFoundError):
            continue
        found.append((int(match[2] or 1), backup))
    found.sort(key=lambda one: (one[1].made_at, one[0]), reverse=True)
    return [backup for _, backup in found]


def prune(folder: Path, keep: int, proven: Path) -> list[Path]:
    """Delete all but the `keep` newest of our own files; what went. `proven` always stays."""
    others = [one.path for one in backups(folder) if one.path != proven]
    gone = others[max(1, keep) - 1 :]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


@dataclass(slots=True)
class BackupFolder:
    """Where scheduled backups of one database go. Everything here blocks: call it in a thread.

    `recipients`: as `sealed.recipients_of` takes them; none leaves backups readable.
    """

    database: Path
    folder: Path
    keep: int
    recipients: Sequence[str] = ()

    def newest_at(self, now: datetime) -> datetime | None:
        """When the newest backup was begun; one that claims to be of the future does not count."""
        return next((one.made_at for one in backups(self.folder) if one.made_at <= now), None)

    def make(self, now: datetime, is_stopped: Callable[[], bool]) -> tuple[str, int]:
        """Make one, then delete what is too many; (name, bytes). Raises StoreError.

        When `is_stopped` says so it ends early, with StoreUnavailable("closed").
        """

        def report(step: str, part: float | None) -> None:
            if is_stopped():
                raise StoreUnavailable("closed", "stopped")

        made = make(self.database, self.folder, now, recipients_of(self.recipients), report)
        prune(self.folder, self.keep, made)
        return made.name, made.stat().st_size
