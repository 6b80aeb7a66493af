"""How far a transfer has come, in a small file, so that it can be interrupted anywhere.

The file may lag behind what was done, never run ahead of it: doing a batch again is harmless.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from bot.storage.kinds import KINDS, Cursor
from bot.storage.sqlite_rows import exact_time, to_time

_VERSION = 1


@dataclass(slots=True)
class KindState:
    """One kind: where its reader stands, how many rows went, which can never go.

    `before`: rows of the kind on the target before anything was moved.
    """

    cursor: Cursor | None = None
    is_moved: bool = False
    sent: int = 0
    before: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TransferState:
    """Of one pair of stores. `is_resumed`: an earlier run had begun it."""

    path: Path
    pair: str
    started_at: datetime
    kinds: dict[str, KindState]
    is_counted: bool = False
    is_resumed: bool = False

    @classmethod
    def load(cls, folder: Path, stem: str, pair: str, now: datetime) -> TransferState:
        """What an earlier run of this very pair left; a fresh start if there is nothing usable."""
        digest = hashlib.sha256(pair.encode()).hexdigest()[:8]
        path = folder / f"{stem}.transfer-{digest}.json"
        fresh = cls(path, pair, now, {kind.name: KindState() for kind in KINDS})
        try:
            saved = json.loads(path.read_text("utf-8"))
            if (saved["version"], saved["pair"]) != (_VERSION, pair):
                return fresh
            for name, state in saved["kinds"].items():
                if name in fresh.kinds:
                    fresh.kinds[name] = KindState(**state)
            fresh.started_at = to_time(saved["started_at"])
            fresh.is_counted = bool(saved["is_counted"])
            fresh.is_resumed = True
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return cls(path, pair, now, {kind.name: KindState() for kind in KINDS})
        return fresh

    def save(self) -> None:
        """Whole or not at all. Raises OSError."""
        content = {
            "version": _VERSION,
            "pair": self.pair,
            "started_at": exact_time(self.started_at),
            "is_counted": self.is_counted,
            "kinds": {name: asdict(state) for name, state in self.kinds.items()},
        }
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(content), "utf-8")
        os.replace(part, self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
