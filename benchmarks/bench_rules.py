"""What deciding costs: many rules on one host, many rules on many monitors.

The baseline is the bare comparison of every value with every level, without states, holds or
flips: what a rule engine that looks at everything would pay before it does anything. All
figures are CPU time, so that a busy machine does not blur them.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from bot.core.alert import (
    AlertKey,
    AlertState,
    Observation,
    Step,
)
from bot.core.bound import BoundRules, bind
from bot.core.engine import (
    evaluate,
    evaluate_slices,
)
from bot.core.rule import Comparison, Rule, Severity

RUNS = 7
START = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=10)

Columns = dict[str, dict[str, float | None]]


def run() -> list[dict[str, Any]]:
    """Rows of name, value, unit, baseline, ratio (value to baseline) and budget."""
    rows = _host_rules()
    for share, name in ((0.0, "calm"), (0.001, "0.1 % firing"), (0.01, "1 % firing")):
        rows += _many_subjects(share, name)
    return [*rows, *_storm()]


def _row(name: str, value: float, unit: str, budget: float | None = None) -> dict[str, Any]:
    """A figure that has its budget in its own unit."""
    row = {"name": name, "value": round(value, 4), "unit": unit}
    return {**row, "baseline": None, "ratio": None, "budget": budget}


def _against_comparing(name: str, value: float, baseline: float) -> dict[str, Any]:
    row = _row(f"{name}, against bare comparing", value, "ms CPU")
    return {**row, "baseline": round(baseline, 4), "ratio": round(value / baseline, 3)}


def _host_rules() -> list[dict[str, Any]]:
    """1,000 rules over 40 host metrics, one look, with few and with all of them firing."""
    rows: list[dict[str, Any]] = []
    metrics = [f"metric_{number}" for number in range(40)]
    values: Columns = {metric: {"": 50.0} for metric in metrics}
    for firing, budget in ((2, 1.0), (100, 1.0), (1000, None)):
        rules = [
            _rule(f"r{n}", metrics[n % 40], 40.0 if n < firing else 80.0 + n % 17)
            for n in range(1000)
        ]
        ours = _look_ms(bind(rules), values)
        name = f"rules.host_1000 ({firing} firing)"
        rows.append(_row(name, ours, "ms CPU", budget))
        if firing == 2:
            rows.append(_against_comparing(name, ours, _compare_ms(rules, values)))
    return rows


def _many_subjects(share: float, name: str) -> list[dict[str, Any]]:
    """1,000 rules on one column of 1,000 subjects, of which pairs `share` keep firing."""
    rules = [_rule(f"r{n}", "m", 1000.0 + n / 1000) for n in range(1000)]
    calm = random.Random(7)
    values: dict[str, float | None] = {f"s{n}": calm.uniform(0, 999) for n in range(1000)}
    for subject in range(round(1000 * share)):
        values[f"s{subject}"] = 2000.0
    columns = {"m": values}
    bound = bind(rules)
    cpu_ms, longest_ms = _sliced(bound, _settled(bound, columns), columns)
    name = f"rules.1000x1000 ({name})"
    return [
        _row(f"{name}", cpu_ms, "ms CPU", 100.0),
        _row(f"{name}, longest piece", longest_ms, "ms CPU", 10.0),
        _against_comparing(name, cpu_ms, _compare_ms(rules, columns)),
    ]


def _storm() -> list[dict[str, Any]]:
    """10,000 pairs that fire all at once: the dearest thing an alert can do."""
    rules = bind(_rule(f"r{n}", "m", 50.0) for n in range(10))
    columns: Columns = {"m": {f"s{n}": 60.0 for n in range(1000)}}
    cpu_ms, longest_ms = _sliced(rules, {}, columns)
    return [
        _row("rules.10000 firing at once", cpu_ms, "ms CPU"),
        _row("rules.10000 firing at once, longest piece", longest_ms, "ms CPU", 10.0),
    ]


def _rule(name: str, metric: str, level: float, hold_s: float = 0.0) -> Rule:
    return Rule(name, metric, Comparison.GT, level, level - 5, Severity.WARNING, hold_s=hold_s)


def _ids() -> Callable[[], UUID]:
    chance = random.Random(1)
    return lambda: UUID(int=chance.getrandbits(128))


def _settled(rules: BoundRules, values: Columns) -> dict[AlertKey, AlertState]:
    states: dict[AlertKey, AlertState] = {}
    evaluate(rules, states, Observation(START, values), START, _ids()).apply(states)
    return states


def _look_ms(rules: BoundRules, values: Columns) -> float:
    """Median of one look among many, states carried along."""
    states = _settled(rules, values)
    new_id = _ids()
    took: list[float] = []
    now = START
    for _ in range(RUNS * 20):
        now += TICK
        seen = Observation(now, values)
        began = time.process_time()
        step = evaluate(rules, states, seen, now, new_id)
        took.append((time.process_time() - began) * 1000)
        step.apply(states)
    return statistics.median(took)


def _sliced(
    rules: BoundRules,
    states: dict[AlertKey, AlertState],
    values: Columns,
) -> tuple[float, float]:
    """Medians of a whole look and of its longest piece, in milliseconds."""
    whole: list[float] = []
    longest: list[float] = []
    for number in range(1, RUNS + 1):
        now = START + TICK * number
        pieces = evaluate_slices(rules, states, Observation(now, values), now, _ids())
        total = worst = 0.0
        step: Step | None = None
        while step is None:
            began = time.process_time()
            try:
                next(pieces)
            except StopIteration as done:
                step = done.value
            took = time.process_time() - began
            total, worst = total + took, max(worst, took)
        whole.append(total * 1000)
        longest.append(worst * 1000)
        if states:
            step.apply(states)
    return statistics.median(whole), statistics.median(longest)


def _compare_ms(rules: list[Rule], values: Columns) -> float:
    took: list[float] = []
    for _ in range(RUNS):
        began = time.process_time()
        hits = 0
        for rule in rules:
            is_beyond, level = rule.comparison.holds, rule.level
            for value in values[rule.metric].values():
                if value is not None and is_beyond(value, level):
                    hits += 1
        took.append((time.process_time() - began) * 1000)
    return statistics.median(took)


if __name__ == "__main__":
    for row in run():
        print(json.dumps(row))
