"""How long a person waits for the first answer: `onepass embed "hello"` from process start to its end, the embedded
model loaded in between, beside `python -c "import sentence_transformers"`, which has then not loaded a model yet.

The commands take turns, in an order that changes. Byte code is there before the first turn that counts, as pip leaves
it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click
from facts import machine
from models import BUILD

from onepass.engines.native import compute_threads
from onepass.settings import DEFAULT_MODEL

OURS, THEIRS, EMPTY = 'onepass embed "hello"', 'python -c "import sentence_transformers"', 'python -c "pass"'


class Turn(NamedTuple):
    """elapsed: from start to end.  busy: of processors, the system's share included.  Both in seconds."""

    elapsed: float
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    onepass = str(Path(sys.executable).with_name("onepass"))
    commands = {
        OURS: [onepass, "embed", "--model", arguments.model, "hello"],
        THEIRS: [sys.executable, "-c", "import sentence_transformers"],
        EMPTY: [sys.executable, "-c", "pass"],
    }
    turns: dict[str, list[Turn]] = {name: [] for name in commands}
    for number in range(arguments.rounds + 1):
        for name in list(commands)[:: 1 if number % 2 else -1]:
            found = timed(commands[name])
            turns[name] += [found] if number else []
    results = {name: summed_up(found) for name, found in turns.items()}
    times = [theirs.elapsed / ours.elapsed for ours, theirs in zip(turns[OURS], turns[THEIRS], strict=True)]
    for name, facts in results.items():
        click.echo(f"{name:<44} {facts['median']:.3f} s ({facts['least']:.3f} to {facts['most']:.3f})")
    click.echo(f"{statistics.median(times):.1f} times faster")
    facts = {
        "benchmark": "startup",
        "machine": machine(compute_threads()),
        "model": arguments.model,
        "seconds": results,
        "times_faster": {
            "median": round(statistics.median(times), 2),
            "least": round(min(times), 2),
            "most": round(max(times), 2),
        },
    }
    click.echo(json.dumps(facts))


def timed(command: list[str]) -> Turn:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(BUILD / "bytecode")
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ)
    _, status, used = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Turn(elapsed, used.ru_utime + used.ru_stime)


def summed_up(turns: list[Turn]) -> dict[str, float]:
    elapsed = sorted(turn.elapsed for turn in turns)
    return {
        "median": round(statistics.median(elapsed), 4),
        "least": round(elapsed[0], 4),
        "most": round(elapsed[-1], 4),
        "median_busy": round(statistics.median(turn.busy for turn in turns), 4),
    }


if __name__ == "__main__":
    main()
