"""One model, all runtimes: tune each, see that all agree, then time them in interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import click
import numpy as np
from batches import Setting
from quiet import QUIET, Turn, counted, watched
from rivals import Rival
from workloads import Workload

CALLS = {"single": 100, "tokens512": 5}  # per turn, of which the median counts; others once
REST = 0.2  # seconds between two runtimes: their threads go on spinning for a while
PATIENCE = 3.0
TUNING_SEQUENCES = 40
COSINE = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.9}  # of every vector to the first float32 runtime's


class Disagreement(Exception):
    pass


@dataclass(slots=True)
class Runs:
    """One runtime on one workload, of so many sequences. cosine: see `agreement`."""

    model: str
    workload: str
    sequences: int
    input: str
    engine: str
    setting: Setting
    cosine: float
    turns: list[Turn] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return counted(self.turns)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def dtype(self) -> str:
        return self.engine.rpartition(" ")[2]


def measured(
    model: str, rivals: dict[str, Rival], works: Sequence[Workload], inputs: Sequence[str], rounds: int, tuning: float
) -> list[Runs]:
    """Every runtime on every workload, `rounds` times, every second round in reverse order."""
    runs: list[Runs] = []
    for work in works:
        chosen = {name: tuned(rival, work, tuning) for name, rival in rivals.items()}
        for name, setting in chosen.items():
            if len(rivals[name].settings) > 1:
                click.echo(
                    f"{model} {work.name}: {name} is fastest with {setting.rows} a batch, {setting.streams} at once"
                )
        cosines = agreement(rivals, work, chosen)
        runs += [
            Runs(model, work.name, len(work.ids), kind, name, chosen[name], cosines[name])
            for kind in inputs
            for name in rivals
        ]
    for number in range(rounds):
        for work in works:
            mine = [run for run in runs if run.workload == work.name]
            for run in mine if number % 2 == 0 else reversed(mine):
                time.sleep(REST)
                run.turns.append(timed(rivals[run.engine], work, run))
        click.echo(f"{model}: round {number + 1} of {rounds} done")
    return runs


def tuned(rival: Rival, work: Workload, limit: float) -> Setting:
    """The fastest of the runtime's settings on a part of the workload, among those there is time to try."""
    part = work.first(TUNING_SEQUENCES)
    candidates = dict.fromkeys(replace(setting, rows=min(setting.rows, len(part.ids))) for setting in rival.settings)
    if len(candidates) == 1:
        return next(iter(candidates))
    seconds: dict[Setting, float] = {}
    started = time.perf_counter()
    for setting in candidates:
        if seconds and time.perf_counter() - started > limit:
            break
        rival.ids(part.ids, setting)  # compiles for these shapes
        seconds[setting] = min(call(rival, part, "ids", setting) for _ in range(30 if len(part.ids) == 1 else 2))
    return min(seconds, key=lambda setting: seconds[setting])


def agreement(rivals: dict[str, Rival], work: Workload, chosen: dict[str, Setting]) -> dict[str, float]:
    """The smallest cosine of any vector to the first float32 runtime's; warms everything up, too.

    Raises Disagreement where it is too small: a wrong answer has no speed.
    """
    vectors = {name: rival.ids(work.ids, chosen[name]).astype(np.float64) for name, rival in rivals.items()}
    exact = next((name for name in vectors if name.endswith("fp32")), next(iter(vectors)))
    found = {name: float((mine * vectors[exact]).sum(1).min()) for name, mine in vectors.items()}
    for name, cosine in found.items():
        if not cosine >= COSINE[name.rpartition(" ")[2]]:
            raise Disagreement(f"{name} has cosine {cosine:.5f} to {exact} on {work.name}")
    return found


def timed(rival: Rival, work: Workload, run: Runs) -> Turn:
    """One turn; again while others use the machine, for at most PATIENCE seconds."""
    calls = range(CALLS.get(work.name, 1))
    limit = time.perf_counter() + PATIENCE
    while True:
        turn = watched(lambda: statistics.median(call(rival, work, run.input, run.setting) for _ in calls))
        if turn.others <= QUIET or time.perf_counter() > limit:
            return turn
        time.sleep(REST)


def call(rival: Rival, work: Workload, kind: str, setting: Setting) -> float:
    started = time.perf_counter()
    if kind == "ids":
        rival.ids(work.ids, setting)
    else:
        rival.texts(work.texts, setting)
    return time.perf_counter() - started
