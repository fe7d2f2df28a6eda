"""The machine's own peak: what its arithmetic units do on registers alone (peak.cpp), the yardstick of cpu_engines.py.

A figure counts only if it reaches COUNTS of what the unit can do per cycle; one that does not means a busy machine. The
last line is JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from onepass.engines.native import compute_threads

SOURCE = Path(__file__).with_suffix(".cpp")
PROGRAM = Path(__file__).parents[1] / "build" / "benchmarks" / "peak"
COUNTS = 0.9


@dataclass(frozen=True, slots=True)
class Peak:
    """gflops: of one core and of all; per_cycle: operations of one core, found and what the unit can do."""

    unit: str
    dtype: str
    gflops_core: float
    gflops: float
    per_cycle: float
    per_cycle_limit: float

    @property
    def counts(self) -> bool:
        return self.per_cycle >= COUNTS * self.per_cycle_limit


def peaks(cores: int) -> list[Peak]:
    """Every unit this machine has, best last for its type. Compiles the program if it is older than its source."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("c++") or shutil.which("g++") or sys.exit("peak.cpp needs a C++ compiler: install g++")
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-std=c++17", "-pthread", "-o", str(PROGRAM), str(SOURCE)]
        subprocess.run(command, check=True)
    lines = subprocess.run([PROGRAM, str(cores)], check=True, capture_output=True, text=True).stdout.splitlines()
    return [peak(*line.split("\t")) for line in lines]


def peak(unit: str, dtype: str, core: str, together: str, found: str, limit: str) -> Peak:
    return Peak(unit, dtype, float(core) / 1e9, float(together) / 1e9, float(found), float(limit))


def best(found: list[Peak]) -> dict[str, Peak]:
    """The fastest unit that counts, by type: "fp32", "bf16", "int8"; a type without a unit of its own is absent."""
    return {unit.dtype: unit for unit in sorted(found, key=lambda unit: unit.gflops) if unit.counts}


def report(found: list[Peak]) -> None:
    click.echo(f"{'unit':<20} {'type':<5} {'GFLOP/s a core':>15} {'all cores':>10} {'per cycle':>10} {'of':>6}")
    for unit in found:
        note = "" if unit.counts else f"  does not count: under {COUNTS:.0%}, the machine is busy"
        click.echo(
            f"{unit.unit:<20} {unit.dtype:<5} {unit.gflops_core:>15,.0f} {unit.gflops:>10,.0f} "
            f"{unit.per_cycle:>10,.1f} {unit.per_cycle_limit:>6,.0f}{note}"
        )


def main() -> None:
    found = peaks(compute_threads())
    report(found)
    click.echo(json.dumps({"benchmark": "peak", "cores": compute_threads(), "units": [asdict(unit) for unit in found]}))


if __name__ == "__main__":
    main()
