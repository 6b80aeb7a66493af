"""What Uptime Kuma says on `/metrics`, turned into observations.

Nothing here reads a clock or a socket; whoever wants to be interrupted now and then hands in
a clock. Facts about Kuma come from its source and from recorded output of 1.23.16, 2.0 and
2.5.3 (`tests/recorded/`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping
from typing import Final, TypeAlias

from bot.core.display_url import display_url
from bot.core.kuma_labels import (
    SLICE_S,
    STATUS_BY_NUMBER,
    Clock,
    KumaTextError,
    Series,
    identify,
    ratio_of,
    read_labels,
    read_value,
    response_time_ms_of,
    run_slices,
)
from bot.core.kuma_page import decode_heartbeats, parse_status_page, status_page_slices
from bot.core.observation import KumaReport, MonitorReading, MonitorStatus, PollProblem

__all__ = [
    "KumaTextError",
    "MetricsScanner",
    "check_complete",
    "decode_heartbeats",
    "display_url",
    "looks_complete",
    "parse_status_page",
    "status_page_slices",
]

Text: TypeAlias = str | bytes | bytearray

# One piece is what a slice does between two looks at the clock: about 30 lines of Kuma,
# 0.03 ms when the label blocks are known and 0.3 ms when all of them are new.
_PIECE_BYTES: Final = 8 * 1024
_LONGEST_LINE_BYTES: Final = 1024 * 1024

_USUAL_STATUS: Final[Mapping[bytes, MonitorStatus]] = {
    f" {number:.0f}".encode(): status for number, status in STATUS_BY_NUMBER.items()
}

_FAMILY_STATUS: Final = 0
_FAMILY_RESPONSE_TIME: Final = 1
_FAMILY_CERT_DAYS: Final = 2
_FAMILY_CERT_VALID: Final = 3
_FAMILY_UPTIME: Final = 4
_FAMILIES_OF_EVERY_MONITOR: Final = (_FAMILY_RESPONSE_TIME, _FAMILY_UPTIME)
_FAMILIES: Final[Mapping[bytes, int]] = {
    b"monitor_status": _FAMILY_STATUS,
    b"monitor_response_time": _FAMILY_RESPONSE_TIME,
    b"monitor_cert_days_remaining": _FAMILY_CERT_DAYS,
    b"monitor_cert_is_valid": _FAMILY_CERT_VALID,
    b"monitor_uptime_ratio": _FAMILY_UPTIME,
}
# Three lines in nine of 2.1 and later are of no use here: out with them first.
_UNWANTED: Final = b"monitor_response_time_seconds{"
# Kuma writes `window` last, so an uptime series is its monitor's block and this.
_WINDOW_WANTED: Final = b',window="1d"'
_WINDOWS_UNWANTED: Final = (b',window="30d"', b',window="365d"')

_NAME_START: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:#")
_MARKUP: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<", re.ASCII)


class _Tally:
    """What one scan has gathered so far, by monitor key."""

    __slots__ = (
        "cert_days",
        "cert_valid",
        "response_time",
        "skipped",
        "status",
        "touched",
        "uptime",
        "version",
    )

    def __init__(self) -> None:
        self.status: dict[str, Series] = {}
        self.response_time: dict[str, float | None] = {}
        self.cert_days: dict[str, float | None] = {}
        self.cert_valid: dict[str, bool | None] = {}
        self.uptime: dict[str, float | None] = {}
        self.version: str | None = None
        self.skipped = 0
        self.touched = 0


class MetricsScanner:
    """Reads one Kuma's `/metrics` text again and again, fast, and never raises on any text.

    It remembers label blocks between scans, so use one scanner per Kuma and one scan at a
    time. Memory is bounded by the last text: what it did not contain is forgotten.

    What it makes of odd text:
    - A line of ours that cannot be read is counted in `skipped`; all others stand.
    - A monitor with other series but no `monitor_status` is not live (2.1 to 2.2 keep the
      window series of paused monitors) and is left out without being counted.
    - A status number Kuma has not got today is UNKNOWN; the monitor stays.
    - Two status series with one identity: the later one counts (a monitor edited during a
      check leaves its old series behind, and prom-client prints in order of creation); the
      earlier is counted in `skipped`.
    - A label given twice: the later one counts, because Kuma writes its own labels after
      the tags; so no tag can pass for a monitor's name or id.
    """

    def __init__(self) -> None:
        self._instance: str | None = None
        self._known: dict[bytes, Series] = {}
        self._readings: dict[str, MonitorReading] = {}
        self._scans = 0

    @property
    def remembered(self) -> int:
        """How many label blocks are cached."""
        return len(self._known)

    def scan(self, text: Text, instance: str) -> KumaReport:
        """The whole text at once. Does not ask whether it is complete: see `check_complete`."""
        return run_slices(self.scan_slices(text, instance, clock=lambda: 0.0))

    def scan_slices(
        self, text: Text, instance: str, clock: Clock, slice_s: float = SLICE_S
    ) -> Generator[None, None, KumaReport]:
        """The same in slices of about `slice_s`; the report is the generator's return value.

        Bytes are better than str here: only blocks never seen before get decoded.
        `clock` tells seconds, e.g. `time.perf_counter`.
        """
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        if instance != self._instance:
            self._known, self._readings, self._instance = {}, {}, instance
        self._scans += 1
        tally = _Tally()
        finished = False
        try:
            deadline = clock() + slice_s
            position, size = 0, len(data)
            while position < size:
                end = self._piece_end(data, position, size)
                if end - position > _LONGEST_LINE_BYTES:
                    tally.skipped += 1
                else:
                    self._read(bytes(data[position:end]), tally)
                position = end + 1
                if clock() >= deadline:
                    yield
                    deadline = clock() + slice_s

            readings: list[MonitorReading] = []
            kept: dict[str, MonitorReading] = {}
            for number, (key, series) in enumerate(tally.status.items()):
                reading = self._reading(series, tally)
                readings.append(reading)
                kept[key] = reading
                if number % 64 == 63 and clock() >= deadline:
                    yield
                    deadline = clock() + slice_s
            if tally.touched != len(self._known):
                self._known = {
                    block: known
                    for block, known in self._known.items()
                    if known.seen == self._scans
                }
            self._readings = kept
            finished = True
            return KumaReport(instance, tuple(readings), tally.version, tally.skipped)
        finally:
            if not finished:  # abandoned half way: what was learned may never be seen again
                self._known = {}

    @staticmethod
    def _piece_end(data: bytes | bytearray, position: int, size: int) -> int:
        """Where this piece's last line ends: at a newline, or at the end of the text."""
        if size - position <= _PIECE_BYTES:
            return size
        # Only "\n" ends a line: names may hold a bare "\r" or U+2028, which splitlines()
        # would take for a line's end.
        end = data.rfind(b"\n", position, position + _PIECE_BYTES)
        if end < 0:
            end = data.find(b"\n", position + _PIECE_BYTES)
        return size if end < 0 else end

    def _read(self, piece: bytes, tally: _Tally) -> None:
        """Some whole lines. The hot path: what is usual is done here, without a call."""
        known, scan, families = self._known, self._scans, _FAMILIES
        statuses, response_times, uptimes = tally.status, tally.response_time, tally.uptime
        for line in piece.split(b"\n"):
            if line.startswith(_UNWANTED):
                continue
            if not line.startswith(b"monitor_"):
                if line and line[0] not in _NAME_START:
                    self._read_odd(line, tally)
                elif line.startswith(b"app_version"):
                    self._read_version(line, tally)
                continue
            start = line.find(b"{")
            family = families.get(line[:start])
            if family is None:
                if start < 0 or line[start - 1 : start] in (b" ", b"\t"):
                    self._read_slowly(line, tally)
                continue
            end = line.rfind(b"}")
            block = line[start + 1 : end]
            if family == _FAMILY_UPTIME:
                if block.endswith(_WINDOW_WANTED):
                    block = block[: -len(_WINDOW_WANTED)]
                elif block.endswith(_WINDOWS_UNWANTED):
                    continue
                else:  # a tag called "window" moves the label to the front
                    self._read_slowly(line, tally)
                    continue
            series = known.get(block)
            if series is None:
                series = self._series(block.decode("utf-8", "replace")) if end > start else None
                if series is None:
                    self._read_slowly(line, tally)
                    continue
                known[block] = series
            if series.seen != scan:
                series.seen = scan
                tally.touched += 1
            raw = line[end + 1 :]
            if family == _FAMILY_STATUS:
                status = _USUAL_STATUS.get(raw)
                if status is not None and series.key not in statuses:
                    series.status = status
                    statuses[series.key] = series
                    continue
            elif family in _FAMILIES_OF_EVERY_MONITOR:
                try:
                    value = float(raw)
                except ValueError:
                    value = -1.0
                if value >= 0.0 and b"_" not in raw:
                    if family == _FAMILY_UPTIME:
                        uptimes[series.key] = value if value <= 1.0 else None
                    elif value < math.inf:
                        response_times[series.key] = value
                    continue
            self._note(family, series, raw, tally)

    def _read_odd(self, line: bytes, tally: _Tally) -> None:
        """A line that begins with neither a name nor "#": indented, blank, or garbage."""
        stripped = line.decode("utf-8", "replace").strip().encode("utf-8", "replace")
        if stripped.startswith((b"monitor_", b"app_version")):
            self._read(stripped, tally)
        elif stripped and stripped[0] not in _NAME_START:
            tally.skipped += 1

    def _read_slowly(self, line: bytes, tally: _Tally) -> None:
        """A line of which the quick look made nothing: read label by label, or count it."""
        text = line.decode("utf-8", "replace").strip()
        name, brace, rest = text.partition("{")
        family = _FAMILIES.get(name.strip().encode())
        if family is None:
            if not brace and _FAMILIES.get(name.split(maxsplit=1)[0].encode()) is not None:
                tally.skipped += 1  # one of ours without labels: whose it is nobody knows
            return
        parsed = read_labels(rest)
        series = (
            None if parsed is None or not parsed[1] else identify(parsed[0], self._instance or "")
        )
        if parsed is None or series is None:
            tally.skipped += 1
        elif family != _FAMILY_UPTIME or series.window == "1d":
            self._note(family, series, rest[parsed[2] :].encode("utf-8", "replace"), tally)

    @staticmethod
    def _read_version(line: bytes, tally: _Tally) -> None:
        name, brace, rest = line.decode("utf-8", "replace").partition("{")
        if brace and name.strip() == "app_version":
            parsed = read_labels(rest)
            if parsed is None:
                tally.skipped += 1
            else:
                tally.version = parsed[0].get("version") or None

    @staticmethod
    def _note(family: int, series: Series, raw: bytes, tally: _Tally) -> None:
        """Write one value down."""
        try:
            value = float(raw)
        except ValueError:
            value_or_none = read_value(raw)
            if value_or_none is None:
                tally.skipped += 1
                return
            value = value_or_none
        else:
            if b"_" in raw:  # Python reads 1_0 as ten; Prometheus does not
                tally.skipped += 1
                return
        key = series.key
        if family == _FAMILY_STATUS:
            if key in tally.status:
                tally.skipped += 1
            series.status = STATUS_BY_NUMBER.get(value, MonitorStatus.UNKNOWN)
            tally.status[key] = series
        elif family == _FAMILY_RESPONSE_TIME:
            tally.response_time[key] = response_time_ms_of(value)
        elif family == _FAMILY_UPTIME:
            tally.uptime[key] = ratio_of(value)
        elif family == _FAMILY_CERT_DAYS:
            tally.cert_days[key] = value if math.isfinite(value) else None
        else:
            tally.cert_valid[key] = {1.0: True, 0.0: False}.get(value)

    def _reading(self, series: Series, tally: _Tally) -> MonitorReading:
        """The reading, and the very object of the last scan if nothing moved."""
        key, identity, status = series.key, series.identity, series.status
        response_time = tally.response_time.get(key)
        cert_days = tally.cert_days.get(key)
        cert_valid = tally.cert_valid.get(key)
        uptime = tally.uptime.get(key)
        last = self._readings.get(key)
        if (
            last is not None
            and last.identity is identity
            and last.status is status
            and last.response_time_ms == response_time
            and last.uptime_ratio_1d == uptime
            and last.cert_days_remaining == cert_days
            and last.cert_is_valid is cert_valid
        ):
            return last
        return MonitorReading(identity, status, response_time, cert_days, cert_valid, uptime)

    def _series(self, block: str) -> Series | None:
        """What a block (between the braces) means; None when it is not well-formed."""
        parsed = read_labels(block)
        if parsed is None or parsed[1]:
            return None
        return identify(parsed[0], self._instance or "")


def check_complete(text: Text) -> None:
    """Raise `KumaTextError` unless this is a whole `/metrics` answer of Kuma.

    Kuma prints the monitors' families first, empty or not, then the process, then
    `app_version`, always; a text without that end was cut.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if not data[:1024].strip() and not data.strip():
        raise KumaTextError(PollProblem.EMPTY, "the answer was empty")
    if _MARKUP.match(data[:1024]):
        raise KumaTextError(PollProblem.NOT_KUMA, "a web page instead of metrics")
    head = bytes(data[:14])
    # From the end: that is where it stands, and the text may be long.
    ours = data.rfind(b"# HELP monitor_status") >= 0 or data.rfind(b"\nmonitor_status{") >= 0
    if not ours and head != b"# HELP monitor_"[: len(head)]:
        raise KumaTextError(PollProblem.NOT_KUMA, "text, but without monitor_status")
    if not data.endswith(b"\n"):
        raise KumaTextError(PollProblem.INCOMPLETE, "the text ends inside a line")
    if data.rfind(b"\napp_version{") < 0:
        raise KumaTextError(PollProblem.INCOMPLETE, "the text ends before app_version")


def looks_complete(text: Text) -> bool:
    """Whether `check_complete` is content."""
    try:
        check_complete(text)
    except KumaTextError:
        return False
    return True
