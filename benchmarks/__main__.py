"""`python -m benchmarks [name…]`: runs `run()` of each `bench_*.py` and prints one table.

`run()` returns rows with the keys name, value, unit, baseline, ratio, budget; the last three may
be None. A budget is a number (the value may not exceed it), or text: "<= 3 ms" is about the value
in its own unit, ">= 20 x faster" about the ratio. Figures belong to this machine; ratios travel.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

HERE = Path(__file__).resolve().parent
BUDGET = re.compile(r"(?P<sign><=|>=|[≤≥<>])\s*(?P<limit>[\d.,]+)\s*(?P<times>[x×]\b|×)?")
COLUMNS = ("name", "value", "unit", "baseline", "ratio", "budget", "")


class Row(TypedDict):
    """One measurement; numbers are in `unit`."""

    name: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    budget: float | str | None


def available() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def within(row: Row) -> bool | None:
    """Whether the row keeps its budget; None when it has none. Raises ValueError for odd text."""
    budget = row["budget"]
    if budget is None:
        return None
    if not isinstance(budget, str):
        return row["value"] <= budget
    found = BUDGET.match(budget)
    if found is None:
        raise ValueError(f"{row['name']}: a budget like {budget!r} cannot be checked")
    measured = row["ratio"] if found["times"] else row["value"]
    limit = float(found["limit"].replace(",", ""))
    if measured is None:
        raise ValueError(f"{row['name']}: its budget is about a ratio, but it has none")
    return measured <= limit if found["sign"] in ("<=", "<", "≤") else measured >= limit


def render(rows: Sequence[Row]) -> str:
    """One aligned table, numbers to the right."""
    verdicts = {None: "", True: "✔", False: "✖"}
    cells = [list(COLUMNS)]
    for row in rows:
        line = [_text(row.get(column)) for column in COLUMNS[:-1]]
        cells.append([*line, verdicts[within(row)]])
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, 2) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def main(arguments: Sequence[str]) -> int:
    """0 when everything ran and kept its budget, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(available()) or None)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead")
    asked = parser.parse_args(arguments)
    unknown = set(asked.names) - set(available())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    failed = []
    for name in asked.names or available():
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            module: Any = importlib.import_module(f"benchmarks.bench_{name}")
            rows += module.run()
        except Exception:
            traceback.print_exc()
            failed.append(name)
    print(json.dumps(rows, ensure_ascii=False, indent=1) if asked.json else render(rows))
    if failed:
        print(f"did not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or any(within(row) is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
