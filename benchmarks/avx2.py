"""Processors without AVX-512: onepass with its AVX2 kernels beside torch limited to AVX2, both float32, on rerank200.

What they may use is read from the environment at their start, so each lives in a process of its own; this one lets
them run in turns, every second round in reverse order. torch gets batches sorted by length, of the size that is fastest
on a part of the workload. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import click
from facts import machine
from models import MODELS, folder_of
from quiet import Turn, counted, facts, watched
from rounds import REST, call, tuned
from workloads import workloads

from onepass.engines.native import compute_threads

ENVIRONMENT = {
    "onepass": {"ONEPASS_ISA": "avx2"},
    "torch": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
TUNING_SECONDS = 30.0


class Worker:
    """A runtime in a process of its own: says what it runs on when it is ready, then one time per line it is sent."""

    def __init__(self, name: str, model: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--model", model, "--worker", name],
            env=os.environ | ENVIRONMENT[name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.runs_on = self.answer()

    def turn(self) -> Turn:
        assert self.process.stdin
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return Turn(*self.answer())

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or sys.exit("a worker ended early"))

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="minilm-l6")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--worker", choices=ENVIRONMENT, help="used by the program itself")
    arguments = parser.parse_args()
    if arguments.worker:
        work_for_parent(arguments.worker, arguments.model)
    else:
        compare(arguments.model, arguments.rounds)


def compare(model: str, rounds: int) -> None:
    folder_of(model)
    workers = {name: Worker(name, model) for name in ENVIRONMENT}
    turns: dict[str, list[Turn]] = {name: [] for name in workers}
    for number in range(rounds):
        for name in workers if number % 2 == 0 else reversed(workers):
            time.sleep(REST)
            turns[name].append(workers[name].turn())
    for worker in workers.values():
        worker.close()
    results = {name: result(workers[name].runs_on, found) for name, found in turns.items()}
    for name, row in results.items():
        times = f"{row['median_ms']:>8,.0f} ms, {row['fastest_ms']:,.0f} to {row['slowest_ms']:,.0f}"
        quiet = f"{row['quiet_rounds']} of {row['rounds']} rounds quiet, others used {row['others']:.0%}"
        click.echo(f"{name:<8} {times} ({row['runs_on']}; {quiet})")
    ratio = results["torch"]["median_ms"] / results["onepass"]["median_ms"]
    click.echo(f"onepass is {ratio:.2f} times as fast as torch limited to AVX2")
    document = {"benchmark": "avx2", "model": model, "machine": machine(compute_threads())}
    click.echo(json.dumps(document | {"ratio": round(ratio, 3), "results": results}))


def result(runs_on: str, turns: list[Turn]) -> dict[str, Any]:
    milliseconds = [seconds * 1e3 for seconds in counted(turns)]
    return {
        "runs_on": runs_on,
        "median_ms": round(statistics.median(milliseconds), 1),
        "fastest_ms": round(min(milliseconds), 1),
        "slowest_ms": round(max(milliseconds), 1),
        **facts(turns),
    }


def work_for_parent(name: str, model: str) -> None:
    from rivals import RIVALS, Onepass

    folder = folder_of(model)
    work = workloads(folder)["rerank200"]
    rival = RIVALS["onepass fp32" if name == "onepass" else "sentence-transformers fp32"](folder, compute_threads())
    setting = tuned(rival, work, TUNING_SECONDS)
    call(rival, work, "ids", setting)
    if isinstance(rival, Onepass):
        runs_on = str(rival.encoder.engine.info()["instruction_set"])
    else:
        import torch

        runs_on = f"{torch.backends.cpu.get_cpu_capability()}, {setting.rows} a batch"
    print(json.dumps(runs_on), flush=True)  # noqa: T201 - to the parent
    for _ in sys.stdin:
        turn = watched(lambda: call(rival, work, "ids", setting))
        print(json.dumps([turn.seconds, turn.others]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
