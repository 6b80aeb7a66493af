"""A folder for one piece of work, gone afterwards; what a killed process left is swept away."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = ".comet-work-"
_LOCK: Final = "lock"
_NEW_S: Final = 60.0
"""A folder younger than this may not have its lock yet."""


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new folder in `parent` that only we can read. Raises OSError.

    A lock is held in it for as long as its process lives, so that a folder without one is litter.
    """
    sweep(parent)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        lock = os.open(place / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield place
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the folders of processes that are no more."""
    for place in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - place.stat().st_mtime < _NEW_S:
                continue
            lock = os.open(place / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)
