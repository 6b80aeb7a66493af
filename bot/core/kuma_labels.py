"""What both of Kuma's public voices share: label blocks, status numbers, identities.

Facts about Kuma come from its source and from recorded output of 1.23.16, 2.0 and 2.5.3
(`tests/recorded/`).
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Final, TypeAlias

from bot.core.display_url import display_url
from bot.core.observation import KumaReport, MonitorIdentity, MonitorStatus, PollProblem

Clock: TypeAlias = Callable[[], float]

SLICE_S: Final = 0.0015
"""How long one slice of reading may hold the event loop."""

STATUS_BY_NUMBER: Final[Mapping[float, MonitorStatus]] = {
    0.0: MonitorStatus.DOWN,
    1.0: MonitorStatus.UP,
    2.0: MonitorStatus.PENDING,
    3.0: MonitorStatus.MAINTENANCE,
}

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


class KumaTextError(Exception):
    """This is not a whole answer of Kuma; `problem` says what it is instead."""

    def __init__(self, problem: PollProblem, detail: str) -> None:
        super().__init__(f"{problem.value}: {detail}")
        self.problem = problem
        self.detail = detail


class Series:
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


def identify(labels: Mapping[str, str], instance: str) -> Series | None:
    """Whose series this is; None when there is neither an id nor a name."""
    number = told(labels.get("monitor_id"))
    if number is None and "monitor_name" not in labels:
        return None
    name = labels.get("monitor_name", "")
    kind = told(labels.get("monitor_type"))
    url = told(labels.get("monitor_url"))
    hostname = told(labels.get("monitor_hostname"))
    port = told(labels.get("monitor_port"))
    if number is not None:
        key = f"{instance}:{number}"
    else:
        parts = (name, kind or "", url or "", hostname or "", port or "")
        spelled = "".join(f"{len(part)}:{part}" for part in parts)
        digest = hashlib.sha256(spelled.encode("utf-8", "replace")).hexdigest()
        key = f"{instance}:~{digest[:12]}"
    url = display_url(url)
    identity = MonitorIdentity(
        key=key,
        name=shown_name(name, number, url, hostname),
        monitor_type=sys.intern(kind) if kind is not None else None,
        url=url,
        hostname=hostname,
        port=port,
        tags={tag: value for tag, value in labels.items() if tag not in _RESERVED_LABELS},
    )
    return Series(key, identity, labels.get("window"))


def run_slices(slices: Generator[None, None, KumaReport]) -> KumaReport:
    """All slices, one after the other."""
    while True:
        try:
            next(slices)
        except StopIteration as done:
            report: KumaReport = done.value
            return report


def read_labels(text: str) -> tuple[dict[str, str], bool, int] | None:
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


def read_value(raw: bytes) -> float | None:
    """The number in what follows the labels, perhaps with a timestamp after it."""
    words = raw.split()
    if not words or b"_" in raw:
        return None
    try:
        float(words[-1])
        return float(words[0])
    except ValueError:
        return None


def told(value: str | None) -> str | None:
    """None for the several ways in which Kuma writes nothing."""
    if value is None or value in ("", "null", "undefined", "https://", "http://"):
        return None
    return value


def shown_name(name: str, number: str | None, url: str | None, hostname: str | None) -> str:
    """Something to show: Kuma allows names of spaces, Discord does not."""
    if name.strip():
        return name
    return f"#{number}" if number is not None else url or hostname or "?"


def response_time_ms_of(value: float) -> float | None:
    """None for Kuma's -1 (nothing answered) and for what is no time at all."""
    return value if 0.0 <= value < math.inf else None


def ratio_of(value: float) -> float | None:
    """None for what is no share of 0 to 1."""
    return value if 0.0 <= value <= 1.0 else None
