"""Polls packed into columns: four bytes a monitor for its time, one for its status.

All multi-byte numbers are little endian, whatever the machine. A roster is the ascending list of
monitor numbers; statuses and times are columns in the order of their roster.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from bot.core.observation import MonitorStatus

STATUS_CODES: dict[MonitorStatus, int] = {
    MonitorStatus.DOWN: 0,
    MonitorStatus.UP: 1,
    MonitorStatus.PENDING: 2,
    MonitorStatus.MAINTENANCE: 3,
    MonitorStatus.UNKNOWN: 4,
}
"""Kuma's own numbers, and one for what Kuma does not know."""

DOWN, UP, PENDING, MAINTENANCE, UNKNOWN = range(5)

NO_ANSWER = -1
_LARGEST = 2**31 - 1


def tenths(milliseconds: float | None) -> int:
    """Response time as it is kept; NO_ANSWER for None, NaN and what no clock can have measured."""
    if milliseconds is None or not 0 <= milliseconds <= _LARGEST / 10:
        return NO_ANSWER
    return round(milliseconds * 10)


def pack(values: Iterable[int]) -> bytes:
    return _ordered(array("i", values)).tobytes()


def unpack(column: bytes) -> array[int]:
    """Numbers of a column. Raises ValueError when its length is not a multiple of four."""
    values = array("i")
    values.frombytes(column)
    return _ordered(values)


def place_of(numbers: Sequence[int], number: int) -> int | None:
    """Where a monitor stands in a roster; None when it is not in it."""
    place = bisect_left(numbers, number)
    return place if place < len(numbers) and numbers[place] == number else None


def pack_columns(columns: Iterable[Iterable[int]]) -> bytes:
    """Several columns of equal length, compressed."""
    return zlib.compress(b"".join(pack(column) for column in columns), 6)


def unpack_columns(body: bytes, count: int) -> list[array[int]]:
    values = unpack(zlib.decompress(body))
    length = len(values) // count
    return [values[place * length : (place + 1) * length] for place in range(count)]


def _ordered(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
