"""What Uptime Kuma's webhook notification says. Never raises, whatever the body is.

Kuma posts `{heartbeat, monitor, msg}` as JSON, as form data with that JSON in the field `data`, or
in whatever shape an admin's own template gives it. Content types are not asked: templates are
sent with wrong ones. Seen on 1.23.16, 2.0 and 2.5.3 (`tests/recorded/*/webhook-*.json`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from bot.core.kuma_labels import STATUS_BY_NUMBER, identify, response_time_ms_of
from bot.core.observation import MonitorIdentity, MonitorStatus

LONGEST_MESSAGE: Final = 500
_LONGEST_TEXT: Final = 4000
_DEPTH: Final = 4
_MOST_FIELDS: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FAR: Final = datetime(2200, 1, 1, tzinfo=UTC)

_FIELD_NAME: Final = re.compile(rb';\s*name="?([^";\r\n]{0,200})')
_NESTED: Final = re.compile(r"(heartbeat|monitor)\[(\w{1,60})\]")
_EXPIRES: Final = re.compile(r"will (?:be expired|expire) in (-?\d{1,6}) days?")
_LOGIN: Final = re.compile(r"(://)[^\s/?#'\"]*@")
_SPACE: Final = re.compile(r"\s+")
_WORDS: Final[Mapping[str, float]] = {"down": 0.0, "up": 1.0, "pending": 2.0, "maintenance": 3.0}


class NoticeKind(Enum):
    """A message of Kuma that is about no heartbeat."""

    TEST = "test"
    CERTIFICATE = "certificate"
    DOMAIN = "domain"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Notice:
    """`days` are those left, where the message tells of an expiry. `text` holds no login."""

    kind: NoticeKind
    text: str
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """One check of one monitor, as Kuma told it.

    `at` is Kuma's own clock: compare it with other beats only. `message` is one line without
    logins, "" when nothing was said. `speaks_of_ids` is a sign of 2.x, whose `/metrics` has ids.
    """

    number: str | None
    name: str | None
    status: MonitorStatus
    message: str = ""
    at: datetime | None = None
    response_time_ms: float | None = None
    is_important: bool = True
    monitor_type: str | None = None
    url: str | None = field(default=None, repr=False)
    hostname: str | None = None
    port: str | None = None
    speaks_of_ids: bool = False

    def by_number(self, instance: str) -> MonitorIdentity | None:
        """Whom a Kuma with ids in its `/metrics` means."""
        return None if self.number is None else self._identity(instance, self.number)

    def by_labels(self, instance: str) -> MonitorIdentity | None:
        """Whom 1.23 means, which has only name, type, address and port to tell monitors apart."""
        return None if self.name is None else self._identity(instance, "null")

    def _identity(self, instance: str, number: str) -> MonitorIdentity | None:
        labels = {
            "monitor_id": number,
            "monitor_name": self.name or "",
            "monitor_type": self.monitor_type or "null",
            "monitor_url": self.url or "null",
            "monitor_hostname": self.hostname or "null",
            "monitor_port": self.port or "null",
        }
        series = identify(labels, instance)
        return None if series is None else series.identity


Told: TypeAlias = Beat | Notice


def read_webhook(body: bytes) -> Told | None:
    """A beat, a notice, or None: nothing we know."""
    for value in _values(body):
        told = _told(value)
        if told is not None:
            return told
    return None


def _values(body: bytes) -> list[object]:
    """What the body may hold, decoded; most likely first."""
    text = body.decode("utf-8-sig", "replace").strip()
    if text.startswith(("{", "[")):
        return [_json(text)]
    fields = _multipart(body) if text.startswith("--") else _urlencoded(text)
    return [_json(fields["data"]), _nested(fields)] if "data" in fields else [_nested(fields)]


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _multipart(body: bytes) -> dict[str, str]:
    """Fields of form data, whose first line is its boundary. Files are fields as well."""
    boundary, _, rest = body.lstrip().partition(b"\n")
    boundary = boundary.strip()
    fields: dict[str, str] = {}
    if len(boundary) < 3:
        return fields
    for part in rest.split(b"\n" + boundary, _MOST_FIELDS):
        head, gap, value = part.partition(b"\r\n\r\n")
        if not gap:
            head, _, value = part.partition(b"\n\n")
        name = _FIELD_NAME.search(head[:2000])
        if name is not None:
            fields[name[1].decode("utf-8", "replace")] = value.decode("utf-8", "replace").strip()
    return fields


def _urlencoded(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, max_num_fields=_MOST_FIELDS, errors="replace"))
    except ValueError:
        return {}


def _nested(fields: Mapping[str, str]) -> dict[str, object]:
    """`heartbeat[status]=0` is how a form spells an object within an object."""
    found: dict[str, object] = dict(fields)
    inner: dict[str, dict[str, object]] = {}
    for name, value in fields.items():
        match = _NESTED.fullmatch(name)
        if match is not None:
            inner.setdefault(match[1], {})[match[2]] = value
    return {**found, **inner}


def _told(value: object) -> Told | None:
    holder = _holder(value, _DEPTH)
    if holder is None:
        return None
    heartbeat, monitor = _part(holder, "heartbeat"), _part(holder, "monitor")
    if heartbeat is not None:
        return _beat(heartbeat, monitor or {})
    message = holder.get("msg")
    if monitor is None and isinstance(message, str) and message.strip():
        return _notice(_one_line(message))
    return None


def _holder(value: object, depth: int) -> Mapping[str, object] | None:
    """The object that holds a heartbeat, or at least a message: a template may wrap it."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _json(value)
    if not isinstance(value, dict):
        return None
    if _part(value, "heartbeat") is not None:
        return value
    if depth:
        for inner in list(value.values())[:_MOST_FIELDS]:
            found = _holder(inner, depth - 1)
            if found is not None and _part(found, "heartbeat") is not None:
                return found
    return value if "msg" in value else None


def _part(holder: Mapping[str, object], name: str) -> Mapping[str, object] | None:
    for key in (name, f"{name}JSON"):
        value = holder.get(key)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _json(value)
        if isinstance(value, dict):
            return value
    return None


def _beat(heartbeat: Mapping[str, object], monitor: Mapping[str, object]) -> Beat | None:
    status = _status(heartbeat.get("status"))
    number = _first_number(
        heartbeat.get("monitorID"), heartbeat.get("monitor_id"), monitor.get("id")
    )
    name = _text(monitor.get("name"))
    if status is None or (number is None and name is None):
        return None
    message = heartbeat.get("msg")
    ping = _number(heartbeat.get("ping"))
    return Beat(
        number=number,
        name=name,
        status=status,
        message=_one_line(message) if isinstance(message, str) else "",
        at=_moment(heartbeat.get("time")),
        response_time_ms=None if ping is None else response_time_ms_of(ping),
        is_important=heartbeat.get("important") not in (False, "false", 0, "0"),
        monitor_type=_text(monitor.get("type")),
        url=_text(monitor.get("url")),
        hostname=_text(monitor.get("hostname")),
        port=_first_number(monitor.get("port")),
        speaks_of_ids="retries" in heartbeat,
    )


def _notice(text: str) -> Notice:
    expires = _EXPIRES.search(text)
    if expires is not None:
        is_certificate = "certificate" in text.casefold()
        kind = NoticeKind.CERTIFICATE if is_certificate else NoticeKind.DOMAIN
        return Notice(kind, text, int(expires[1]))
    return Notice(NoticeKind.TEST if text.endswith("Testing") else NoticeKind.OTHER, text)


def _status(value: object) -> MonitorStatus | None:
    if isinstance(value, str) and value.strip().casefold() in _WORDS:
        return STATUS_BY_NUMBER[_WORDS[value.strip().casefold()]]
    number = _number(value)
    return None if number is None else STATUS_BY_NUMBER.get(number)


def _number(value: object) -> float | None:
    """A finite number, also one that a form or a template made a text of."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first_number(*values: object) -> str | None:
    """The first whole number that is none below zero, as `/metrics` spells it."""
    for value in values:
        number = _number(value)
        if number is not None and number == int(number) and 0 <= number < 2**53:
            return str(int(number))
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT else None


def _moment(value: object) -> datetime | None:
    """Kuma writes UTC without saying so."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if _EPOCH <= at < _FAR else None


def _one_line(text: str) -> str:
    """Cut first, so that a long text costs no more than a short one."""
    line = _SPACE.sub(" ", text[: 2 * LONGEST_MESSAGE]).strip()
    return _LOGIN.sub(r"\1", line)[:LONGEST_MESSAGE]
