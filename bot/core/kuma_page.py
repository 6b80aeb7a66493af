"""Public status pages of Kuma, which need no secret and tell less than `/metrics`."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Generator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Final

from bot.core.display_url import display_url
from bot.core.kuma_labels import (
    SLICE_S,
    STATUS_BY_NUMBER,
    Clock,
    KumaTextError,
    ratio_of,
    response_time_ms_of,
    run_slices,
    shown_name,
    told,
)
from bot.core.observation import (
    KumaReport,
    MonitorIdentity,
    MonitorReading,
    MonitorStatus,
    PollProblem,
)

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
    return run_slices(status_page_slices(page, heartbeats, instance, clock=lambda: 0.0))


def status_page_slices(
    page: object, heartbeats: object, instance: str, clock: Clock, slice_s: float = SLICE_S
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
                uptime_ratio_1d=None if ratio is None else ratio_of(ratio),
            )
            if clock() >= deadline:
                yield
                deadline = clock() + slice_s
    return KumaReport(instance, tuple(readings.values()), None, skipped)


def _published(row: Mapping[str, object], key: str, number: int) -> MonitorIdentity:
    kind = row.get("type")
    raw_url = row.get("url")
    url = display_url(told(raw_url)) if isinstance(raw_url, str) else None
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
        name=shown_name(raw_name if isinstance(raw_name, str) else "", str(number), url, None),
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
    status = MonitorStatus.UNKNOWN if number is None else STATUS_BY_NUMBER.get(number)
    times = _beat_times(rows, _BEATS_KEPT)
    if newest is not None and len(times) > 1:
        pace_s = max(abs((b - a).total_seconds()) for a, b in pairwise(times))
        # Two minutes: the server caches this answer for one.
        if (newest - times[-1]).total_seconds() > 3 * pace_s + 120:
            return MonitorStatus.UNKNOWN, None
    ping = _number(last.get("ping"))
    return status or MonitorStatus.UNKNOWN, None if ping is None else response_time_ms_of(ping)


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
    text: str, clock: Clock, slice_s: float = SLICE_S
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
