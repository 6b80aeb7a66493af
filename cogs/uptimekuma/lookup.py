"""From what a person typed to the monitor they mean."""

from __future__ import annotations

import asyncio
from collections import Counter

from bot.discord_text import clip, one_line, units
from bot.services.fleet import Fleet, FleetMonitor
from cogs.embeds import STATUS_SYMBOLS, worst_first

CHOICES = 25
CHOICE_VALUE = 100
CHOICE_LABEL = 100
NEAR = 5
NEAR_LEAST = 0.25
PIECE = 200


def by_text(fleet: Fleet, typed: str) -> list[FleetMonitor]:
    """Monitors meant by a key or a full name; several when names are equal."""
    return fleet.find(typed) or fleet.find(typed.strip())


def offers(fleet: Fleet, typed: str) -> list[FleetMonitor]:
    """At most 25 for autocomplete: names that contain what was typed, else the worst off."""
    wanted = typed.strip().casefold()
    if not wanted:
        return worst_first(fleet, fleet.monitors.values())[:CHOICES]
    hits = fleet.search(wanted)
    hits.sort(key=lambda m: not m.identity.name.casefold().startswith(wanted))
    return hits[:CHOICES]


def labels(fleet: Fleet, monitors: list[FleetMonitor], typed: str = "") -> list[tuple[str, str]]:
    """(what is shown, what is sent) for a choice or select; every value is unique.

    The key is sent, because a name may belong to several; a key too long for Discord's 100
    characters gives way to the name, if that fits.
    """
    names = Counter(m.identity.name.casefold() for m in fleet.monitors.values())
    rows: dict[str, str] = {}
    for monitor in monitors:
        name = monitor.identity.name
        value = next((v for v in (monitor.key, name) if 0 < len(v) <= CHOICE_VALUE), None)
        if value is not None and value not in rows:
            is_twin = names[name.casefold()] > 1
            rows[value] = choice_label(fleet, monitor, is_twin, typed)
    return [(label, value) for value, label in rows.items()]


def choice_label(fleet: Fleet, monitor: FleetMonitor, is_twin: bool, typed: str = "") -> str:
    """At most 100 characters that hold what was typed; twins are told apart by type and key."""
    symbol = STATUS_SYMBOLS[fleet.status_of(monitor)]
    identity = monitor.identity
    tail = clip(f" · {identity.monitor_type or '?'} · {monitor.key}", 40) if is_twin else ""
    room = CHOICE_LABEL - units(symbol) - 1 - units(tail)
    name = one_line(identity.name) or one_line(monitor.key)
    return f"{symbol} {_window(name, room, typed)}{tail}"


def _window(name: str, room: int, typed: str) -> str:
    """`name` cut to `room`, from a little before what was typed if that is far inside."""
    wanted = one_line(typed).casefold()
    found = name.casefold().find(wanted)
    if found > 0 and units(name[: found + len(wanted)]) >= room:
        name = f"…{name[max(0, found - 5) :]}"
    return clip(name, room)


async def near(fleet: Fleet, typed: str) -> list[FleetMonitor]:
    """The likeliest monitors for a name that fits none: those that contain it, then look-alikes.

    Looks at 200 names at a time, so that 2,000 long ones do not hold up the event loop.
    """
    typed = typed.strip()
    found = fleet.search(typed)[:NEAR] if typed else []
    if len(found) == NEAR:
        return found
    wanted = _pairs(typed)
    scored: list[tuple[float, str, FleetMonitor]] = []
    for position, monitor in enumerate(list(fleet.monitors.values()), start=1):
        pairs = _pairs(monitor.identity.name)
        score = 2 * len(wanted & pairs) / max(1, len(wanted) + len(pairs))
        if score >= NEAR_LEAST:
            scored.append((-score, monitor.key, monitor))
        if position % PIECE == 0:
            await asyncio.sleep(0)
    known = {monitor.key for monitor in found}
    scored.sort(key=lambda row: row[:2])
    found.extend(monitor for *_, monitor in scored if monitor.key not in known)
    return found[:NEAR]


def _pairs(text: str) -> set[str]:
    """Neighbouring characters; works for Japanese, which has no spaces, as for English."""
    folded = f" {text.casefold()} "
    return {folded[i : i + 2] for i in range(len(folded) - 1)}
