"""What Uptime Kuma says, turned into observations: `/metrics` text and public status pages.

Nothing here reads a clock or a socket; whoever wants to be interrupted now and then hands in
a clock. Facts about Kuma come from its source and from recorded output of 1.23.16, 2.0 and
2.5.3 (`tests/recorded/`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeAlias

from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)

Text: TypeAlias = str | bytes | bytearray
Clock: TypeAlias = Callable[[], float]

# One piece is what a slice does between two looks at the clock: about 30 lines of Kuma,
# 0.03 ms when the label blocks are known and 0.3 ms when all of them are new.
_PIECE_BYTES: Final = 8 * 1024
_SLICE_S: Final = 0.0015
_LONGEST_LINE_BYTES: Final = 1024 * 1024

_STATUS: Final[Mapping[float, MonitorStatus]] = {
    0.0: MonitorStatus.DOWN,
    1.0: MonitorStatus.UP,
    2.0: MonitorStatus.PENDING,
    3.0: MonitorStatus.MAINTENANCE,
}

_USUAL_STATUS: Final[Mapping[bytes, MonitorStatus]] = {
    f" {number:.0f}".encode(): status for number, status in _STATUS.items()
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

_RESERVED_LABELS: Final = frozenset(
    {
        "monitor_id",
        "monitor_name",
        "monitor_type",
        "monitor_url",
        "monitor_hostname",
        "monitor_port",
    }
)
# Names are taken as they come: one strange tag must not hide its monitor.
_LABEL: Final = re.compile(
    r'\s*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s=,"{}]*))\s*='
    r'\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*(,|}|\Z)',
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r'\\([\\n"])')
_NAME_START: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:#")
_MARKUP: Final = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<", re.ASCII)


class KumaTextError(Exception):
    """This is not a whole answer of Kuma; `problem` says what it is instead."""

    def __init__(self, problem: PollProblem, detail: str) -> None:
        super().__init__(f"{problem.value}: {detail}")
        self.problem = problem
        self.detail = detail


class _Series:
    """What one label block means; kept from scan to scan.

    `seen` is the number of the last scan that met it, `status` what that scan read; stored
    here because two thousand short-lived tuples a poll would call for the garbage collector.
    """

    __slots__ = ("identity", "key", "seen", "status", "window")

    def __init__(self, key: str, identity: MonitorIdentity, window: str | None) -> None:
        self.key = key
        self.identity = identity
        self.window = window
        self.seen = 0
        self.status = MonitorStatus.UNKNOWN


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
        self.status: dict[str, _Series] = {}
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
        self._known: dict[bytes, _Series] = {}
        self._readings: dict[str, MonitorReading] = {}
        self._scans = 0

    @property
    def remembered(self) -> int:
        """How many label blocks are cached."""
        return len(self._known)

    def scan(self, text: Text, instance: str) -> KumaReport:
        """The whole text at once. Does not ask whether it is complete: see `check_complete`."""
        return _run(self.scan_slices(text, instance, clock=lambda: 0.0))

    def scan_slices(
        self, text: Text, instance: str, clock: Clock, slice_s: float = _SLICE_S
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
        parsed = _labels(rest)
        series = None if parsed is None or not parsed[1] else self._identify(parsed[0])
        if parsed is None or series is None:
            tally.skipped += 1
        elif family != _FAMILY_UPTIME or series.window == "1d":
            self._note(family, series, rest[parsed[2] :].encode("utf-8", "replace"), tally)

    @staticmethod
    def _read_version(line: bytes, tally: _Tally) -> None:
        name, brace, rest = line.decode("utf-8", "replace").partition("{")
        if brace and name.strip() == "app_version":
            parsed = _labels(rest)
            if parsed is None:
                tally.skipped += 1
            else:
                tally.version = parsed[0].get("version") or None

    @staticmethod
    def _note(family: int, series: _Series, raw: bytes, tally: _Tally) -> None:
        """Write one value down."""
        try:
            value = float(raw)
        except ValueError:
            value_or_none = _value(raw)
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
            series.status = _STATUS.get(value, MonitorStatus.UNKNOWN)
            tally.status[key] = series
        elif family == _FAMILY_RESPONSE_TIME:
            tally.response_time[key] = _response_time_ms(value)
        elif family == _FAMILY_UPTIME:
            tally.uptime[key] = _ratio(value)
        elif family == _FAMILY_CERT_DAYS:
            tally.cert_days[key] = value if math.isfinite(value) else None
        else:
            tally.cert_valid[key] = {1.0: True, 0.0: False}.get(value)

    def _reading(self, series: _Series, tally: _Tally) -> MonitorReading:
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

    def _series(self, block: str) -> _Series | None:
        """What a block (between the braces) means; None when it is not well-formed."""
        parsed = _labels(block)
        if parsed is None or parsed[1]:
            return None
        return self._identify(parsed[0])

    def _identify(self, labels: Mapping[str, str]) -> _Series | None:
        """Whose series this is; None when there is neither an id nor a name."""
        number = _told(labels.get("monitor_id"))
        if number is None and "monitor_name" not in labels:
            return None
        name = labels.get("monitor_name", "")
        kind = _told(labels.get("monitor_type"))
        url = _told(labels.get("monitor_url"))
        hostname = _told(labels.get("monitor_hostname"))
        port = _told(labels.get("monitor_port"))
        if number is not None:
            key = f"{self._instance}:{number}"
        else:
            parts = (name, kind or "", url or "", hostname or "", port or "")
            spelled = "".join(f"{len(part)}:{part}" for part in parts)
            digest = hashlib.sha256(spelled.encode("utf-8", "replace")).hexdigest()
            key = f"{self._instance}:~{digest[:12]}"
        url = display_url(url)
        identity = MonitorIdentity(
            key=key,
            name=_name(name, number, url, hostname),
            monitor_type=sys.intern(kind) if kind is not None else None,
            url=url,
            hostname=hostname,
            port=port,
            tags={tag: value for tag, value in labels.items() if tag not in _RESERVED_LABELS},
        )
        return _Series(key, identity, labels.get("window"))


def _run(slices: Generator[None, None, KumaReport]) -> KumaReport:
    """All slices, one after the other."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            report: KumaReport = done.value
            return report


def _labels(text: str) -> tuple[dict[str, str], bool, int] | None:
    """Labels up to "}" or the end: (labels, whether "}" ended them, where); None if malformed."""
    labels: dict[str, str] = {}
    position, size = 0, len(text)
    if text.startswith(","):  # allowed by prometheus_client, written by nobody
        position = 1
    while True:
        while position < size and text[position].isspace():
            position += 1
        if position == size:
            return labels, False, position
        if text[position] == "}":
            return labels, True, position + 1
        match = _LABEL.match(text, position)
        if match is None:
            return None
        quoted, plain, value, separator = match.groups()
        labels[plain if quoted is None else _unescape(quoted)] = _unescape(value)
        position = match.end()
        if separator == "}":
            return labels, True, position


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def _value(raw: bytes) -> float | None:
    """The number in what follows the labels, perhaps with a timestamp after it."""
    words = raw.split()
    if not words or b"_" in raw:
        return None
    try:
        float(words[-1])
        return float(words[0])
    except ValueError:
        return None


def _told(value: str | None) -> str | None:
    """None for the several ways in which Kuma writes nothing."""
    if value is None or value in ("", "null", "undefined", "https://", "http://"):
        return None
    return value


def _name(name: str, number: str | None, url: str | None, hostname: str | None) -> str:
    """Something to show: Kuma allows names of spaces, Discord does not."""
    if name.strip():
        return name
    return f"#{number}" if number is not None else url or hostname or "?"


def _response_time_ms(value: float) -> float | None:
    """None for Kuma's -1 (nothing answered) and for what is no time at all."""
    return value if 0.0 <= value < math.inf else None


def _ratio(value: float) -> float | None:
    return value if 0.0 <= value <= 1.0 else None


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


# --- public status pages ---------------------------------------------------------------

_BEATS_KEPT: Final = 10
_DECODER: Final = json.JSONDecoder()
_JSON_SPACE: Final = re.compile(r"[ \t\r\n]*")


def parse_status_page(page: object, heartbeats: object, instance: str) -> KumaReport:
    """What a public status page tells: each published monitor once, in the page's order.

    `page` is the JSON of `/api/status-page/<slug>`, `heartbeats` that of
    `/api/status-page/heartbeat/<slug>`. A monitor without beats is UNKNOWN. So is one
    whose last beat lies far behind the newest on the page, measured by its own pace: Kuma
    goes on showing the last state of a monitor that was paused.

    Raises KumaTextError when one of the two is no status page at all; anything odd inside
    is counted in `skipped`.
    """
    return _run(status_page_slices(page, heartbeats, instance, clock=lambda: 0.0))


def status_page_slices(
    page: object, heartbeats: object, instance: str, clock: Clock, slice_s: float = _SLICE_S
) -> Generator[None, None, KumaReport]:
    """`parse_status_page` in slices of about `slice_s`."""
    groups = page.get("publicGroupList") if isinstance(page, Mapping) else None
    if not isinstance(groups, list):
        raise KumaTextError(PollProblem.NOT_KUMA, "no status page: publicGroupList is missing")
    beats = heartbeats.get("heartbeatList") if isinstance(heartbeats, Mapping) else None
    if not isinstance(heartbeats, Mapping) or not isinstance(beats, Mapping):
        raise KumaTextError(PollProblem.NOT_KUMA, "no heartbeats: heartbeatList is missing")
    ratios = heartbeats.get("uptimeList")
    if not isinstance(ratios, Mapping):
        ratios = {}

    deadline = clock() + slice_s
    newest: datetime | None = None
    for rows in beats.values():
        for at in _beat_times(rows, 1):
            newest = at if newest is None else max(newest, at)
        if clock() >= deadline:
            yield
            deadline = clock() + slice_s

    skipped = 0
    readings: dict[str, MonitorReading] = {}
    for group in groups:
        rows = group.get("monitorList") if isinstance(group, Mapping) else None
        if not isinstance(rows, list):
            skipped += 1
            continue
        for row in rows:
            number = _whole(row.get("id")) if isinstance(row, Mapping) else None
            if number is None:
                skipped += 1
                continue
            key = f"{instance}:{number}"
            if key in readings:  # published in two groups
                continue
            status, ping = _last_beat(beats.get(str(number)), newest)
            days, valid = _certificate(row)
            ratio = _number(ratios.get(f"{number}_24"))
            readings[key] = MonitorReading(
                identity=_published(row, key, number),
                status=status,
                response_time_ms=ping,
                cert_days_remaining=days,
                cert_is_valid=valid,
                uptime_ratio_1d=None if ratio is None else _ratio(ratio),
            )
            if clock() >= deadline:
                yield
                deadline = clock() + slice_s
    return KumaReport(instance, tuple(readings.values()), None, skipped)


def _published(row: Mapping[str, object], key: str, number: int) -> MonitorIdentity:
    kind = row.get("type")
    raw_url = row.get("url")
    url = display_url(_told(raw_url)) if isinstance(raw_url, str) else None
    raw_name = row.get("name")
    tags: dict[str, str] = {}
    raw_tags = row.get("tags")
    for tag in raw_tags if isinstance(raw_tags, list) else ():
        if isinstance(tag, Mapping) and isinstance(tag.get("name"), str):
            label = _label_of_tag(tag["name"])
            value = tag.get("value")
            if label:
                tags[label] = _label_of_tag(value) if isinstance(value, str) else ""
    return MonitorIdentity(
        key=key,
        name=_name(raw_name if isinstance(raw_name, str) else "", str(number), url, None),
        monitor_type=sys.intern(kind) if isinstance(kind, str) and kind else None,
        url=url,
        tags=tags,
    )


def _label_of_tag(text: str) -> str:
    """A tag as Kuma's `/metrics` spells it (2.1 and later), so that both sources agree."""
    return re.sub(r"^[^a-zA-Z_]+", "", re.sub(r"[^a-zA-Z0-9_]", "", text))


def _last_beat(rows: object, newest: datetime | None) -> tuple[MonitorStatus, float | None]:
    last = rows[-1] if isinstance(rows, list) and rows else None
    if not isinstance(last, Mapping):
        return MonitorStatus.UNKNOWN, None
    number = _number(last.get("status"))
    status = MonitorStatus.UNKNOWN if number is None else _STATUS.get(number)
    times = _beat_times(rows, _BEATS_KEPT)
    if newest is not None and len(times) > 1:
        pace_s = max(abs((b - a).total_seconds()) for a, b in pairwise(times))
        # Two minutes: the server caches this answer for one.
        if (newest - times[-1]).total_seconds() > 3 * pace_s + 120:
            return MonitorStatus.UNKNOWN, None
    ping = _number(last.get("ping"))
    return status or MonitorStatus.UNKNOWN, None if ping is None else _response_time_ms(ping)


def _beat_times(rows: object, last: int) -> list[datetime]:
    """When the last few beats came; UTC without a zone, as Kuma writes it."""
    times: list[datetime] = []
    for row in rows[-last:] if isinstance(rows, list) else ():
        at = row.get("time") if isinstance(row, Mapping) else None
        if isinstance(at, str):
            try:
                times.append(datetime.fromisoformat(at).replace(tzinfo=None))
            except ValueError:
                continue
    return times


def _certificate(row: Mapping[str, object]) -> tuple[float | None, bool | None]:
    """Days left and validity.

    2.5 writes "" and false for every monitor without a certificate, so false means
    something only beside a number of days.
    """
    days = _number(row.get("certExpiryDaysRemaining"))
    valid = row.get("validCert")
    if not isinstance(valid, bool) or (days is None and not valid):
        return days, None
    return days, valid


def _number(value: object) -> float | None:
    """A finite JSON number; JSON's true is not 1 here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def decode_heartbeats(
    text: str, clock: Clock, slice_s: float = _SLICE_S
) -> Generator[None, None, object]:
    """`json.loads` for a heartbeat answer, in slices, keeping only each monitor's last beats.

    2,000 monitors with 100 beats are 16 MB: decoded at once they would hold the event loop
    for a fifth of a second. Raises ValueError when the text is no JSON.
    """
    deadline = clock() + slice_s
    answer: dict[str, object] = {}
    at, end = _enter(text, _skip(text, 0))
    while at is not None:
        name, at = _member(text, at)
        if name == "heartbeatList" and text.startswith("{", at):
            beats: dict[str, object] = {}
            inner, end = _enter(text, at)
            while inner is not None:
                monitor, inner = _member(text, inner)
                rows, end = _DECODER.raw_decode(text, inner)
                beats[monitor] = rows[-_BEATS_KEPT:] if isinstance(rows, list) else rows
                inner, end = _next_member(text, end)
                if clock() >= deadline:
                    yield
                    deadline = clock() + slice_s
            answer[name] = beats
        else:
            answer[name], end = _DECODER.raw_decode(text, at)
        at, end = _next_member(text, end)
    if _skip(text, end) != len(text):
        raise ValueError("something follows the JSON object")
    return answer


def _skip(text: str, position: int) -> int:
    match = _JSON_SPACE.match(text, position)
    return match.end() if match else position


def _enter(text: str, position: int) -> tuple[int | None, int]:
    """Where an object's first member begins, or None and where the empty object ends."""
    if not text.startswith("{", position):
        raise ValueError("a JSON object was expected")
    position = _skip(text, position + 1)
    return (None, position + 1) if text.startswith("}", position) else (position, position)


def _member(text: str, position: int) -> tuple[str, int]:
    """A member's name and where its value begins."""
    name, position = _DECODER.raw_decode(text, position)
    position = _skip(text, position)
    if not isinstance(name, str) or not text.startswith(":", position):
        raise ValueError("a JSON member was expected")
    return name, _skip(text, position + 1)


def _next_member(text: str, position: int) -> tuple[int | None, int]:
    """Where the next member begins, or None and where the object ends."""
    position = _skip(text, position)
    if text.startswith(",", position):
        return _skip(text, position + 1), position
    if not text.startswith("}", position):
        raise ValueError("the JSON object is not closed")
    return None, position + 1


# --- addresses -------------------------------------------------------------------------

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*")
_ONE_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:@;=,\[\]]+)(?::\d+)?"
_HOST: Final = re.compile(f"{_ONE_HOST}(?:,{_ONE_HOST})*")


def display_url(url: str | None) -> str | None:
    """A monitored address without its secrets: scheme, host, port, path.

    User name and password, query and fragment go. None when it cannot be told for sure
    where a password ends.
    """
    text = (url or "").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    elif not _SCHEME.fullmatch(scheme):
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    _user, at, host = authority.rpartition("@")
    # An "@" further on is innocent in https://host/@name. With a colon before it, it may
    # end a password that holds an unescaped "/" or "?", and what looks like the host is none.
    if "@" in tail and (at or ":" in authority or ":" in tail.rpartition("@")[0]):
        return None
    if not _HOST.fullmatch(host):
        return None
    path = re.split(r"[?#]", tail, maxsplit=1)[0]
    return f"{scheme}{separator}{host}{path}"
