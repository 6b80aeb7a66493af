"""Uptime and response times out of packed polls. Everything here runs in a database thread."""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

from bot.storage.poll_codec import (
    DOWN,
    NO_ANSWER,
    UNKNOWN,
    UP,
    pack_columns,
    place_of,
    unpack,
    unpack_columns,
)
from bot.storage.sqlite_rows import HOUR_MS, clean, from_ms, insert, json_text, public_time
from bot.storage.sqlite_services import Roster, newest_looks
from bot.storage.store import ServiceStats

_UPSERT_HOUR = insert(
    "service_hourly",
    (
        "instance",
        "hour",
        "roster",
        "checks",
        "up_ms",
        "down_ms",
        "other_ms",
        "answered",
        "times_sum",
        "body",
    ),
    "instance, hour",
    "UPDATE SET roster = excluded.roster, checks = excluded.checks, up_ms = excluded.up_ms, "
    "down_ms = excluded.down_ms, other_ms = excluded.other_ms, answered = excluded.answered, "
    "times_sum = excluded.times_sum, body = excluded.body "
    # What was made after some of the hour's polls had expired knows less.
    "WHERE excluded.checks >= checks",
)

_LONGEST_TRUST_MS = 4 * HOUR_MS
"""How far before a window a poll may begin that still speaks for its start."""


def _covered(columns: str, source: str = "polls") -> str:
    """Polls with the time each speaks for: until the next one, as long as it may be trusted.

    Only `columns` travel through the window function: with the packed ones it is ten times slower.
    """
    return f"""
SELECT *, max(0, min(at_ms + valid_ms, next_ms, :end) - max(at_ms, :start)) AS cover,
    at_ms >= :start AS is_inside
FROM (
    SELECT {columns}, at_ms, valid_ms, lead(at_ms, 1, :end) OVER (ORDER BY at_ms) AS next_ms
    FROM {source} WHERE instance = :instance AND at_ms >= :start - :trust AND at_ms < :end
)
"""


_SUMS = f"""
SELECT sum(is_inside * (up + down + other + unknown)), sum(cover * up), sum(cover * down),
    sum(cover * other), sum(is_inside * answered), sum(is_inside * times_sum)
FROM ({_covered("up, down, other, unknown, answered, times_sum")})
"""
_CUT_OUT = """
polls LEFT JOIN (
    SELECT json_extract(value, '$[0]') AS at_roster, json_extract(value, '$[1]') AS place
    FROM json_each(:places)
) ON at_roster = roster
"""
_ONE_MONITOR = f"""
SELECT status, sum(cover), sum(is_inside), group_concat(CASE WHEN is_inside THEN hex(time) END, '')
FROM ({
    _covered(
        "substr(statuses, place + 1, 1) AS status, substr(times, place * 4 + 1, 4) AS time",
        _CUT_OUT,
    )
}) WHERE status IS NOT NULL GROUP BY status
"""
_HOUR_OF_POLLS = f"""
SELECT roster, cover, is_inside, statuses, times
FROM ({_covered("roster, statuses, times")}) WHERE cover > 0
"""


class Pause:
    """Lets other threads run: sleeps for a moment whenever a millisecond of work is done.

    Giving the interpreter lock up is not enough: without sleep this thread often has it back
    before the event loop has woken up.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since > 0.001:
            time.sleep(0.0003)
            self._since = time.perf_counter()


@dataclass(slots=True)
class _Tally:
    """Sums over a window, in milliseconds and tenths of a millisecond."""

    checks: int = 0
    up_ms: float = 0
    down_ms: float = 0
    other_ms: float = 0
    answered: int = 0
    times_sum: float = 0
    monitors: int = 0

    def add(self, share: float, columns: Sequence[int]) -> None:
        checks, up_ms, down_ms, other_ms, answered, times_sum = columns
        self.checks += round(checks * share)
        self.up_ms += up_ms * share
        self.down_ms += down_ms * share
        self.other_ms += other_ms * share
        self.answered += answered
        self.times_sum += times_sum

    def stats(self, service_id: str | None, window_ms: int) -> ServiceStats:
        known_ms = self.up_ms + self.down_ms + self.other_ms
        mean = self.times_sum / self.answered / 10 if self.answered else None
        return ServiceStats(
            service_id=service_id,
            checks=self.checks,
            up_s=self.up_ms / 1000,
            down_s=self.down_ms / 1000,
            other_s=self.other_ms / 1000,
            unknown_s=max(0.0, self.monitors * window_ms - known_ms) / 1000,
            mean_response_time_ms=mean,
        )


def stats_of_all(db: sqlite3.Connection, start_ms: int, end_ms: int) -> ServiceStats:
    """Sums over all monitors, without unpacking a single poll.

    Unknown time counts for every monitor that was seen in the window or later.
    """
    tally = _Tally()
    tally.monitors = _seen_since(db, start_ms)
    for (instance,) in db.execute("SELECT DISTINCT instance FROM rosters").fetchall():
        raw_ms = _raw_from(db, instance, start_ms, end_ms)
        for hour, *columns in db.execute(
            "SELECT hour, checks, up_ms, down_ms, other_ms, answered, times_sum "
            "FROM service_hourly WHERE instance = ? AND hour >= ? AND hour < ?",
            (instance, start_ms // HOUR_MS, -(-raw_ms // HOUR_MS)),
        ):
            tally.add(_share(hour, start_ms, raw_ms), columns)
        row = db.execute(_SUMS, _window(instance, raw_ms, end_ms)).fetchone()
        if row[0] is not None:
            tally.add(1, row)
    return tally.stats(None, end_ms - start_ms)


def stats_of_one(db: sqlite3.Connection, key: str, start_ms: int, end_ms: int) -> ServiceStats:
    tally = _Tally(monitors=1)
    row = db.execute("SELECT number FROM monitors WHERE key = ?", (clean(key),)).fetchone()
    if row is None:
        return tally.stats(key, end_ms - start_ms)
    number = int(row[0])
    places: dict[str, dict[int, int]] = {}
    for instance, roster, numbers in db.execute("SELECT instance, roster, numbers FROM rosters"):
        place = place_of(unpack(numbers), number)
        if place is not None:
            places.setdefault(instance, {})[roster] = place
    pause = Pause()
    for instance, by_roster in places.items():
        raw_ms = _raw_from(db, instance, start_ms, end_ms)
        for hour, roster, body in db.execute(
            "SELECT hour, roster, body FROM service_hourly "
            "WHERE instance = ? AND hour >= ? AND hour < ?",
            (instance, start_ms // HOUR_MS, -(-raw_ms // HOUR_MS)),
        ):
            if roster in by_roster:
                columns = [column[by_roster[roster]] for column in unpack_columns(body, 6)]
                columns[5] *= columns[4]
                tally.add(_share(hour, start_ms, raw_ms), columns)
            pause()
        _tally_polls(db, tally, _window(instance, raw_ms, end_ms), by_roster)
    return tally.stats(key, end_ms - start_ms)


def _tally_polls(
    db: sqlite3.Connection, tally: _Tally, window: dict[str, object], by_roster: dict[int, int]
) -> None:
    """SQLite cuts this monitor's bytes out of each poll, so that no poll is unpacked here."""
    places = json_text(list(by_roster.items()))
    rows = db.execute(_ONE_MONITOR, {**window, "places": places})
    for status, cover, inside, times in rows:
        code = status[0]
        values = unpack(bytes.fromhex(times or ""))
        silent = values.count(NO_ANSWER)
        known = (cover * (code == UP), cover * (code == DOWN), cover * (code not in _NEITHER))
        answered = len(values) - silent
        tally.add(1, (inside, *known, answered, sum(values) - silent * NO_ANSWER))


_NEITHER = frozenset((UP, DOWN, UNKNOWN))


def response_times(
    db: sqlite3.Connection, start_ms: int, end_ms: int, every: int
) -> dict[str, list[float]]:
    """Column by column wherever polls in a row speak of the same monitors: nearly always."""
    found: dict[int, list[float]] = {}
    pause = Pause()
    rows = db.execute(
        "SELECT instance, roster, times FROM (SELECT instance, roster, times, at_ms, "
        "row_number() OVER (PARTITION BY instance ORDER BY at_ms) - 1 AS place "
        "FROM polls WHERE at_ms >= ? AND at_ms < ?) WHERE place % ? = 0 ORDER BY instance, at_ms",
        (start_ms, end_ms, max(1, every)),
    )
    rosters: dict[int, array[int]] = {}
    current, columns = -1, array("i")

    def flush() -> None:
        numbers = rosters.get(current)
        for place, number in enumerate(numbers or ()):
            column = columns[place :: len(numbers or ())]
            found.setdefault(number, []).extend([t / 10 for t in column if t >= 0])
            pause()

    for _, roster, times in rows:
        if roster != current:
            flush()
            current, columns = roster, array("i")
            if roster not in rosters:
                query = "SELECT numbers FROM rosters WHERE roster = ?"
                rosters[roster] = unpack(db.execute(query, (roster,)).fetchone()[0])
        columns.extend(unpack(times))
    flush()
    keys = dict(db.execute("SELECT number, key FROM monitors"))
    return {keys[number]: values for number, values in found.items() if values}


@dataclass(slots=True)
class HourOfServices:
    """One instance's hour, ready to be stored: the sums, and the six columns by monitor."""

    instance: str
    numbers: list[int]
    sums: tuple[int, ...]
    body: bytes


@dataclass(slots=True)
class _Looks:
    covers: list[int] = field(default_factory=list)
    inside: list[int] = field(default_factory=list)
    statuses: list[bytes] = field(default_factory=list)
    times: list[bytes] = field(default_factory=list)


def roll_up(db: sqlite3.Connection, hour: int) -> list[HourOfServices]:
    """Every instance's hour, from its polls. An hour without polls gives nothing."""
    found = []
    pause = Pause()
    for (instance,) in db.execute("SELECT DISTINCT instance FROM rosters").fetchall():
        groups: dict[int, _Looks] = {}
        window = _window(instance, hour * HOUR_MS, (hour + 1) * HOUR_MS)
        for roster, cover, inside, statuses, times in db.execute(_HOUR_OF_POLLS, window):
            looks = groups.setdefault(roster, _Looks())
            looks.covers.append(cover)
            looks.inside.append(inside)
            looks.statuses.append(statuses)
            looks.times.append(times)
        rows: dict[int, list[int]] = {}
        for roster, looks in groups.items():
            query = "SELECT numbers FROM rosters WHERE roster = ?"
            numbers = unpack(db.execute(query, (roster,)).fetchone()[0])
            statuses, times = b"".join(looks.statuses), unpack(b"".join(looks.times))
            for place, number in enumerate(numbers):
                _add_hour(
                    rows.setdefault(number, [0] * 6),
                    looks,
                    statuses[place :: len(numbers)],
                    times[place :: len(numbers)],
                )
                pause()
        if not rows:
            continue
        order = sorted(rows)
        columns = [[rows[number][column] for number in order] for column in range(6)]
        sums = tuple(sum(column) for column in columns)
        means = [round(t / n) if n else 0 for t, n in zip(columns[5], columns[4], strict=True)]
        found.append(HourOfServices(instance, order, sums, pack_columns((*columns[:5], means))))
    return found


_IS_UP = bytes(code == UP for code in range(256))
_IS_DOWN = bytes(code == DOWN for code in range(256))
_IS_OTHER = bytes(code not in _NEITHER for code in range(256))


def _add_hour(sums: list[int], looks: _Looks, statuses: bytes, times: array[int]) -> None:
    inside = looks.inside
    sums[0] += sum(inside)
    for column, table in ((1, _IS_UP), (2, _IS_DOWN), (3, _IS_OTHER)):
        chosen = statuses.translate(table)
        if 1 in chosen:
            sums[column] += sum(compress(looks.covers, chosen))
    answers = [t for t, is_inside in zip(times, inside, strict=True) if is_inside and t >= 0]
    sums[4] += len(answers)
    sums[5] += sum(answers)


def save_roll_up(
    db: sqlite3.Connection, roster: Roster, hour: int, rows: list[HourOfServices]
) -> None:
    for row in rows:
        number = roster.roster(db, row.instance, row.numbers)
        db.execute(_UPSERT_HOUR, (row.instance, hour, number, *row.sums, row.body))


def _seen_since(db: sqlite3.Connection, start_ms: int) -> int:
    """How many monitors, those forgotten apart, were seen at a time or later."""
    polled = {number for number, at_ms in newest_looks(db).items() if at_ms >= start_ms}
    rows = db.execute(
        "SELECT number, last_seen_at >= ? FROM monitors WHERE forgotten = 0",
        (public_time(from_ms(start_ms)),),
    )
    return sum(bool(is_seen) or number in polled for number, is_seen in rows)


def _raw_from(db: sqlite3.Connection, instance: str, start_ms: int, end_ms: int) -> int:
    """From when on polls answer for a window; before that, whole hours do.

    The hour in which the oldest poll lies has lost some of its polls already if it was rolled
    up; if it was not, its polls are all there ever were.
    """
    query = "SELECT min(at_ms) FROM polls WHERE instance = ?"
    first: int | None = db.execute(query, (instance,)).fetchone()[0]
    if first is None:
        return end_ms
    if first > start_ms:
        query = "SELECT 1 FROM service_hourly WHERE instance = ? AND hour = ?"
        if db.execute(query, (instance, first // HOUR_MS)).fetchone() is not None:
            first = (first // HOUR_MS + 1) * HOUR_MS
    return min(end_ms, max(start_ms, first))


def _share(hour: int, start_ms: int, end_ms: int) -> float:
    """How much of an hour lies in a window, 0 to 1."""
    overlap = min((hour + 1) * HOUR_MS, end_ms) - max(hour * HOUR_MS, start_ms)
    return max(0, overlap) / HOUR_MS


def _window(instance: str, start_ms: int, end_ms: int) -> dict[str, object]:
    return {
        "instance": instance,
        "start": start_ms,
        "end": end_ms,
        "trust": _LONGEST_TRUST_MS,
    }
