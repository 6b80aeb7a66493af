"""How the copying of local facts to a remote store stands, for people, pages and rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class CopyPhase(Enum):
    """FILLING an empty local store, CATCHING_UP with history or a backlog, COPYING as it comes."""

    FILLING = "filling"
    CATCHING_UP = "catching_up"
    COPYING = "copying"


@dataclass(frozen=True, slots=True)
class Copying:
    """Depth is rows that wait, `waiting_bytes` about how much they are.

    `oldest_age_s` is None when nothing waits. `away_s` is seconds since the remote store last
    answered while it should have: 0 while all is well, counted from the start if it never did.
    `reason` is that of the StoreError it is away for, None while it is there. `refused` rows can
    never be stored there and were set aside; `given_up` ones were too many or too old to wait.
    """

    backend: str
    phase: CopyPhase
    depth: int
    waiting_bytes: int
    oldest_age_s: float | None
    away_s: float
    reason: str | None
    refused: int
    given_up: int
    copied_total: int
    last_copied_at: datetime | None
