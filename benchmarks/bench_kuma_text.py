"""Kuma's text of 1,000 monitors: our scanner against prometheus_client's parser.

`python -m benchmarks.bench_kuma_text` prints a table; `run()` gives the rows. Both parsers
read the same text in the same run, medians of seven; slices are measured at 2,000 monitors.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bot.core.kuma import MetricsScanner, check_complete
from bot.core.observation import MonitorStatus
from tests.peers.kuma.replay import ReplayMonitor, render

ROUNDS = 7
_STATUSES = (MonitorStatus.UP, MonitorStatus.UP, MonitorStatus.UP, MonitorStatus.DOWN)


def text_of(n: int, *, seed: int = 0) -> str:
    """A believable 2.5.3 text; `seed` moves statuses and times, as between two polls."""
    return render(
        ReplayMonitor(
            id=number,
            name=f"監視 service {number:04d}" if number % 5 == 0 else f"service {number:04d}",
            url=f"https://service-{number:04d}.example.org/health",
            tags={"env": "prod", "team": "core"} if number % 3 == 0 else {},
            status=_STATUSES[(number + seed) % 4],
            response_time_ms=20 + (number * 7 + seed * 13) % 400,
            cert_days=30 + number % 60 if number % 2 else None,
            uptime_1d=0.9986111111111111 if number % 4 else 1,
        )
        for number in range(1, n + 1)
    )


def milliseconds(work: Callable[[], object]) -> float:
    """One run, with the garbage of the one before already gone."""
    gc.collect()
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def reference(text: str) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(text))


def slices_ms(scanner: MetricsScanner, data: bytes) -> list[float]:
    """How long each slice of one scan held the loop."""
    took = []
    slices = scanner.scan_slices(data, "main", time.perf_counter)
    while True:
        started = time.perf_counter()
        try:
            next(slices)
        except StopIteration:
            return took
        finally:
            took.append((time.perf_counter() - started) * 1000)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(
    name: str,
    value: float,
    *,
    unit: str = "ms",
    baseline: float | None = None,
    ratio: float | None = None,
    budget: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 3),
        "ratio": None if ratio is None else round(ratio, 1),
        "budget": budget,
    }


def run() -> list[dict[str, Any]]:
    polls = [text_of(1000, seed=seed) for seed in range(ROUNDS + 1)]
    data = [poll.encode() for poll in polls]
    warm_scanner = MetricsScanner()
    warm_scanner.scan(data[-1], "main")
    cold, warm, whole, complete = [], [], [], []
    for text, body in zip(polls[:ROUNDS], data[:ROUNDS], strict=True):
        # Turn by turn, so that a busy moment of the machine meets all of them.
        whole.append(milliseconds(lambda text=text: reference(text)))
        warm.append(milliseconds(lambda body=body: warm_scanner.scan(body, "main")))
        cold.append(milliseconds(lambda body=body: MetricsScanner().scan(body, "main")))
        complete.append(milliseconds(lambda body=body: check_complete(body)))
    baseline = statistics.median(whole)

    big = [text_of(2000, seed=seed).encode() for seed in range(ROUNDS)]
    # As the bot does after its start: else a full collection, which has nothing to do with
    # us, walks through everything imported and shows up as our longest slice.
    gc.collect()
    gc.freeze()
    scanner = MetricsScanner()
    cold_slices, warm_slices = slices_ms(scanner, big[0]), []
    for _ in range(5):
        for body in big:
            warm_slices += slices_ms(scanner, body)
    gc.unfreeze()

    size = f"{len(data[0]) / 1000:.0f} kB"
    return [
        row(
            f"kuma text, 1,000 monitors ({size}), known labels",
            statistics.median(warm),
            baseline=baseline,
            ratio=baseline / statistics.median(warm),
            budget=">= 20 x faster",
        ),
        row(
            "kuma text, 1,000 monitors, first time",
            statistics.median(cold),
            baseline=baseline,
            ratio=baseline / statistics.median(cold),
        ),
        row("kuma text, completeness check", statistics.median(complete)),
        row("kuma text, 2,000 monitors, slice p99", quantile(warm_slices, 0.99), budget="<= 3 ms"),
        row("kuma text, 2,000 monitors, slice max", max(warm_slices), budget="<= 10 ms"),
        row("kuma text, 2,000 monitors, first time, slice p99", quantile(cold_slices, 0.99)),
        row("kuma text, 2,000 monitors, first time, slice max", max(cold_slices)),
        row("kuma text, 2,000 monitors, slices per scan", len(warm_slices) / 35, unit="slices"),
    ]


def main() -> None:
    for line in run():
        ratio = "" if line["ratio"] is None else f"{line['ratio']:>8} x"
        baseline = "" if line["baseline"] is None else f"(baseline {line['baseline']} ms)"
        print(
            f"{line['name']:<56}{line['value']:>10} {line['unit']:<7}{ratio} "
            f"{line['budget'] or ''} {baseline}".rstrip()
        )


if __name__ == "__main__":
    main()
