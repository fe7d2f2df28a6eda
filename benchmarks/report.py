"""From seconds to what is printed: a table, shares of the machine's peak, and the ratios that onepass is judged by."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
import quiet
from peak import Peak
from rounds import Runs


def result(run: Runs, operations: float, peaks: dict[str, Peak]) -> dict[str, Any]:
    """share_of_peak: of the machine's fastest unit for the engine's type, None if it has none."""
    low, middle, high = np.percentile(run.seconds, [25, 50, 75]) * 1e3
    rate = operations / run.median / 1e9
    unit = peaks.get(run.dtype)
    return {
        "model": run.model,
        "workload": run.workload,
        "sequences": run.sequences,
        "input": run.input,
        "engine": run.engine,
        "milliseconds": {
            "min": round(min(run.seconds) * 1e3, 3),
            "quarter": round(low, 3),
            "median": round(middle, 3),
            "three_quarters": round(high, 3),
        },
        "gflops": round(rate, 1),
        "share_of_peak": round(rate / unit.gflops, 4) if unit else None,
        **quiet.facts(run.turns),
        "batch": run.setting.rows,
        "streams": run.setting.streams,
        "smallest_cosine": round(run.cosine, 7),
    }


def table(results: list[dict[str, Any]]) -> None:
    click.echo(
        f"\n{'model':<10} {'workload':<10} {'input':<6} {'engine':<27} {'median ms':>11} {'quartiles':>23} "
        f"{'GFLOP/s':>8} {'of peak':>8} {'1 - cosine':>10} {'quiet':>7} {'others':>7}"
    )
    for row in results:
        times = row["milliseconds"]
        quartiles = f"{times['quarter']:,.2f}..{times['three_quarters']:,.2f}"
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        click.echo(
            f"{row['model']:<10} {row['workload']:<10} {row['input']:<6} {row['engine']:<27} {times['median']:>11,.2f} "
            f"{quartiles:>23} {row['gflops']:>8,.0f} {share:>8} {1 - row['smallest_cosine']:>10.1e} "
            f"{row['quiet_rounds']:>3} of {row['rounds']} {row['others']:>7.0%}"
        )


def ratios(runs: list[Runs], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """onepass at its best over OpenVINO at its best and over the fastest of all others, per model and workload."""
    found = []
    click.echo("\nonepass is so many times as fast as others (medians), from ids:")
    for model, workload in dict.fromkeys((run.model, run.workload) for run in runs):
        mine = [run for run in runs if (run.model, run.workload, run.input) == (model, workload, "ids")]
        ours = fastest(mine, "onepass")
        others = {
            "OpenVINO": fastest(mine, "OpenVINO"),
            "others": fastest([run for run in mine if not run.engine.startswith("onepass")], ""),
        }
        if ours is None:
            continue
        share = next(
            row["share_of_peak"]
            for row in results
            if (row["model"], row["workload"], row["input"], row["engine"]) == (model, workload, "ids", ours.engine)
        )
        row: dict[str, Any] = {"model": model, "workload": workload, "onepass": ours.engine, "share_of_peak": share}
        words = []
        for label, other in others.items():
            if other is not None:
                ratio = other.median / ours.median
                row[label] = {"engine": other.engine, "ratio": round(ratio, 3)}
                words.append(f"{ratio:.2f} over {other.engine}")
        found.append(row)
        peak = "" if share is None else f"; {share:.1%} of the peak"
        click.echo(f"{model:<10} {workload:<10} {ours.engine}: {', '.join(dict.fromkeys(words))}{peak}")
    return found


def fastest(runs: list[Runs], prefix: str) -> Runs | None:
    return min((run for run in runs if run.engine.startswith(prefix)), key=lambda run: run.median, default=None)


def gflops(unit: Peak) -> float:
    return round(unit.gflops, 1)
