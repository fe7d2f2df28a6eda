"""Interleaved rounds of a few runtimes on one workload: sizes of batches tried out, agreement checked, then timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from workloads import Workload

TURN = 0.02
"""Seconds that a turn takes at least, of whose calls the median counts."""
COSINE = 0.99
"""Of every vector to the first runtime's, both in bfloat16; a wrong answer has no speed."""


@dataclass
class Runs:
    """One runtime on one workload. cosine: the smallest of any vector to the first runtime's."""

    engine: str
    input: str
    size: int
    call: Callable[[], Any]
    calls: int = 1
    cosine: float = 1.0
    seconds: list[float] = field(default_factory=list)

    def turn(self) -> None:
        self.seconds.append(float(np.median([timed(self.call) for _ in range(self.calls)])))

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def measured(rivals: Sequence[Any], work: Workload, kind: str, *, seconds: float, rounds: int) -> list[Runs]:
    """Every runtime that takes `kind` ("ids" or "texts"), at most `rounds` times, every second round in reverse order.

    seconds: after which no further round begins; three are made at least.
    """
    inputs = work.ids if kind == "ids" else work.texts
    runs = [tuned(rival, inputs, kind) for rival in rivals if hasattr(rival, kind)]
    vectors = [run.call() for run in runs]
    for run, mine in zip(runs, vectors, strict=True):
        run.cosine = smallest_cosine(mine, vectors[0])
        run.calls = int(np.clip(TURN / max(timed(run.call), 1e-6), 1, 50))
    started = time.perf_counter()
    for number in range(rounds):
        if number >= min(3, rounds) and time.perf_counter() - started > seconds:
            break
        for run in runs if number % 2 == 0 else reversed(runs):
            run.turn()
    return runs


def tuned(rival: Any, inputs: list[Any], kind: str) -> Runs:
    """At the fastest of the runtime's sizes of batches."""
    run = getattr(rival, kind)
    rows = len(inputs)
    sizes = list(dict.fromkeys(size if size > 1000 else min(size, rows) for size in rival.sizes))
    if rows == 1:
        sizes = sizes[:1]
    best, least = sizes[0], float("inf")
    run(inputs, sizes[0])  # kernels are chosen and compiled
    for size in sizes if len(sizes) > 1 else []:
        run(inputs, size)
        if (taken := timed(lambda size=size: run(inputs, size))) < least:
            best, least = size, taken
    return Runs(rival.name, kind, best, lambda: run(inputs, best))


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def smallest_cosine(ours: Any, theirs: Any) -> float:
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))).min())


def result(run: Runs, model: str, work: Workload, operations: float, peak: float | None) -> dict[str, Any]:
    """peak: operations per second of the device's bfloat16 matrix products."""
    low, middle, high = np.percentile(run.seconds, [25, 50, 75]) * 1e3
    rate = operations / run.median
    return {
        "model": model,
        "workload": work.name,
        "sequences": len(work.ids),
        "tokens": work.tokens,
        "input": run.input,
        "engine": run.engine,
        "batch": run.size,
        "milliseconds": {
            "min": round(min(run.seconds) * 1e3, 4),
            "quarter": round(low, 4),
            "median": round(middle, 4),
            "three_quarters": round(high, 4),
        },
        "rounds": len(run.seconds),
        "calls_a_round": run.calls,
        "tokens_per_second": round(work.tokens / run.median),
        "share_of_peak": None if peak is None else round(rate / peak, 4),
        "smallest_cosine": round(run.cosine, 6),
        "agrees": run.cosine >= COSINE,
    }
