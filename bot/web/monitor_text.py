"""The monitors' series as text, kept until the fleet has changed.

Label blocks are kept per monitor, so that a poll costs formatting its values only. The lines are
the same in Prometheus' text format and in OpenMetrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import add
from typing import Final

from bot.core.observation import MonitorIdentity, MonitorStatus
from bot.services.fleet import Fleet, FleetMonitor

# Not "instance": Prometheus gives every series it scrapes a label of that name for the process
# it scraped, and would rename ours to "exported_instance".
KUMA: Final = "kuma"

_INFINITY = float("inf")

_UP, _DOWN, _UNKNOWN = b"1", b"0", b"4"
_STATUS_VALUES = {
    MonitorStatus.DOWN: _DOWN,
    MonitorStatus.UP: _UP,
    MonitorStatus.PENDING: b"2",
    MonitorStatus.MAINTENANCE: b"3",
    MonitorStatus.UNKNOWN: _UNKNOWN,
}
_FAMILIES = {
    b"comet_monitor_status": (
        b"how the monitor stands: 0 down, 1 up, 2 pending, 3 maintenance (as in Kuma), 4 unknown"
    ),
    b"comet_monitor_up": (
        b"1 up, 0 down; absent while unknown, pending or in maintenance, so that its average"
        b" over time is the uptime"
    ),
    b"comet_monitor_response_time_seconds": b"absent when nothing answered",
    b"comet_monitor_cert_days_remaining": b"days until the certificate expires",
}


class _Numbers(dict[float, bytes]):
    """Numbers as text, remembered: most response times come back with the next poll."""

    def __init__(self, divisor: float) -> None:
        self._divisor = divisor

    def __missing__(self, number: float) -> bytes:
        if len(self) >= 4096:
            self.clear()
        text = self[number] = repr(number / self._divisor).encode("ascii")
        return text


class MonitorText:
    """The monitors' half of the page, kept until the fleet has changed.

    Label blocks are kept for as long as a monitor's identity stays the same, so that a poll
    costs formatting its values only.
    """

    def __init__(self) -> None:
        self._seen: object = None
        self._chunks: tuple[bytes, ...] = ()
        self._identities: list[MonitorIdentity] = []
        self._blocks: list[bytes] = []
        self._seconds = _Numbers(1000)
        self._days = _Numbers(1)

    def render(self, fleet: Fleet) -> tuple[bytes, ...]:
        """Chunks to be joined: whole lines, the same in Prometheus' text and in OpenMetrics."""
        # What the revision may not tell: a source added or lost between two polls.
        seen = (
            fleet.revision,
            len(fleet.monitors),
            tuple((s.is_lost, s.last_good_at is None) for s in fleet.sources.values()),
        )
        if seen != self._seen:
            self._chunks = self._write(fleet)
            self._seen = seen
        return self._chunks

    def _write(self, fleet: Fleet) -> tuple[bytes, ...]:
        monitors = list(fleet.monitors.values())
        blocks = self._label_blocks(monitors)
        # Until a Kuma has spoken in this run, what an earlier run stored is not known to hold.
        heard = {s.instance for s in fleet.sources.values() if s.last_good_at is not None}
        if {monitor.instance for monitor in monitors} <= heard:
            up = MonitorStatus.UP
            values = [_UP if m.status is up else _STATUS_VALUES[m.status] for m in monitors]
        else:
            values = [
                _STATUS_VALUES[m.status] if m.instance in heard else _UNKNOWN for m in monitors
            ]
        statuses = list(map(add, blocks, values))
        ups = [
            line
            for line, value in zip(statuses, values, strict=True)
            if value is _UP or value is _DOWN
        ]
        seconds, days = self._seconds, self._days
        times = [
            block + seconds[value]
            for block, monitor in zip(blocks, monitors, strict=True)
            if (reading := monitor.reading) is not None
            and (value := reading.response_time_ms) is not None
            and 0 <= value < _INFINITY
        ]
        certificates = [
            block + days[value]
            for block, monitor in zip(blocks, monitors, strict=True)
            if (reading := monitor.reading) is not None
            and (value := reading.cert_days_remaining) is not None
            and -_INFINITY < value < _INFINITY
        ]
        columns = zip(_FAMILIES, (statuses, ups, times, certificates), strict=True)
        return tuple(chunk for name, lines in columns for chunk in _lines(name, lines))

    def _label_blocks(self, monitors: list[FleetMonitor]) -> list[bytes]:
        """One block per monitor, in the same order; kept ones where nobody came, went or changed.

        Parsers share identities between polls, so comparing the lists is comparing pointers.
        """
        identities = [monitor.identity for monitor in monitors]
        if identities != self._identities:
            kept = {i.key: (i.name, b) for i, b in zip(self._identities, self._blocks, strict=True)}
            blocks = []
            for monitor in monitors:
                name, block = kept.get(monitor.key, (None, b""))
                blocks.append(block if name == monitor.identity.name else _monitor_block(monitor))
            self._identities, self._blocks = identities, blocks
        return self._blocks


def _monitor_block(monitor: FleetMonitor) -> bytes:
    monitor_id = monitor.key.removeprefix(f"{monitor.instance}:")
    labels = ((KUMA, monitor.instance), ("id", monitor_id), ("name", monitor.identity.name))
    return encode(label_block(labels) + " ")


def _lines(name: bytes, lines: list[bytes]) -> tuple[bytes, ...]:
    """One family. The name is what joins the lines, which is cheaper than putting it into each."""
    if not lines:
        return ()
    head = b"# HELP %b %b\n# TYPE %b gauge\n%b" % (name, _FAMILIES[name], name, name)
    return (head, (b"\n" + name).join(lines), b"\n")


def label_block(labels: Iterable[tuple[str, str]]) -> str:
    """`{name="value",…}`. Values may be any text, names are ours."""
    return "{" + ",".join([f'{name}="{_escape(value)}"' for name, value in labels]) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def encode(text: str) -> bytes:
    """Half a surrogate pair, which JSON lets through, must not make the page unwritable."""
    return text.encode("utf-8", "replace")
