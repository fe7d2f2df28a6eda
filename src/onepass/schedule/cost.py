"""What a micro-batch costs: measured at warm-up, corrected while serving."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onepass.engines.batch import Engine, PackedBatch
from onepass.engines.place import CPU, Place

# As many tokens as make the fixed part this share of the whole: of a full micro-batch, and of one while little waits.
FULL_OVERHEAD, SMALL_OVERHEAD = 0.1, 0.2
LEAST_SMALL = 32  # tokens; for what is not measured: packing, handing out, tiles of a kernel that rows leave half empty


@dataclass(slots=True)
class Cost:
    """Seconds of a micro-batch on one core: correction x (fixed + per_token * tokens + per_square * sum of n^2).

    least, most: limits of the budget, in tokens, which is a multiple of `step`.
    """

    fixed: float
    per_token: float
    per_square: float
    correction: float = 1.0
    least: int = CPU.least
    most: int = CPU.most
    step: int = CPU.step

    @classmethod
    def fit(cls, lengths: Sequence[Sequence[int]], seconds: Sequence[float], place: Place = CPU) -> Cost:
        """Least squares over measured micro-batches, relative to each measurement, no coefficient below zero."""
        rows = np.array([[1.0, sum(batch), sum(n * n for n in batch)] for batch in lengths])
        measured = np.maximum(np.array(seconds), 1e-9)
        columns = [0, 1, 2]
        while True:
            found, *_ = np.linalg.lstsq(rows[:, columns] / measured[:, None], np.ones(len(measured)), rcond=None)
            if (found >= 0).all() or len(columns) == 1:
                break
            columns.pop(int(found.argmin()))
        values = dict(zip(columns, np.maximum(found, 0.0).tolist(), strict=True))
        fixed, per_token, per_square = (values.get(column, 0.0) for column in range(3))
        return cls(fixed, max(per_token, 1e-9), per_square, least=place.least, most=place.most, step=place.step)

    def seconds(self, lengths: Sequence[int]) -> float:
        squares = sum(n * n for n in lengths)
        return self.correction * (self.fixed + self.per_token * sum(lengths) + self.per_square * squares)

    def observe(self, lengths: Sequence[int], seconds: float) -> None:
        """Follow a machine that became slower or faster than at warm-up, a twentieth of the way each time."""
        predicted = self.seconds(lengths)
        self.correction *= 1 + 0.05 * (min(max(seconds / predicted, 0.2), 5.0) - 1)

    @property
    def tokens_per_second(self) -> float:
        """Of one core, in rows of 64 tokens."""
        return 1 / (self.correction * (self.per_token + 64 * self.per_square + self.fixed / self.budget))

    @property
    def budget(self) -> int:
        """Tokens of a full micro-batch at the knee: below it time is flat, above it linear."""
        knee = self.fixed / (FULL_OVERHEAD * self.per_token)
        return int(min(max(round(knee / self.step) * self.step, self.least), self.most))

    @property
    def small(self) -> int:
        """Tokens of the smallest micro-batches into which a short queue is cut."""
        return int(min(max(self.fixed / (SMALL_OVERHEAD * self.per_token), LEAST_SMALL), self.budget))


def measure(engine: Engine, max_length: int, place: Place = CPU) -> Cost:
    """Time the engine, on one core or on the GPU, at the place's sizes within about its seconds, and fit its cost."""
    lengths: list[tuple[int, ...]] = []
    seconds: list[float] = []
    limit = time.monotonic() + place.seconds
    for rows in place.sizes:
        batch = warm_up_batch([min(n, max_length) for n in rows])
        best = min(_timed(engine, batch) for _ in range(place.runs))
        lengths.append(tuple(np.diff(batch.offsets).tolist()))
        seconds.append(best)
        if time.monotonic() > limit:
            break
    return Cost.fit(lengths, seconds, place)


def warm_up_batch(lengths: Sequence[int]) -> PackedBatch:
    tokens = sum(lengths)
    return PackedBatch(
        ids=np.zeros(tokens, np.int32),
        types=np.zeros(tokens, np.int32),
        offsets=np.cumsum([0, *lengths], dtype=np.int32),
        visible=np.array(lengths, np.int32),
    )


def _timed(engine: Engine, batch: PackedBatch) -> float:
    started = time.perf_counter()
    engine.run(batch, [], 1)
    return time.perf_counter() - started
