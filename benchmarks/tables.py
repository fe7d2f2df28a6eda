"""The tables of docs/cpu.md in Markdown, from the same lines as its picture (plot.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

RESULTS = Path(__file__).parents[1] / "docs" / "cpu.json"


def main() -> None:
    rows = [row for line in RESULTS.read_text().splitlines() for row in json.loads(line)["results"]]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        workloads = list(dict.fromkeys(row["workload"] for row in mine))
        columns = [f"{model}, ms", *workloads, "GFLOP/s, share of peak on rerank200", "smallest cosine"]
        click.echo(f"\n| {' | '.join(columns)} |")
        click.echo(f"|---|{'--:|' * (len(workloads) + 2)}")
        for engine in dict.fromkeys(row["engine"] for row in mine):
            by_workload = {row["workload"]: row for row in mine if row["engine"] == engine}
            cells = [milliseconds(by_workload.get(workload)) for workload in workloads]
            name = f"**{engine}**" if engine.startswith("onepass") else engine
            cells += [rate(by_workload.get("rerank200")), cosine(by_workload)]
            click.echo(f"| {name} | {' | '.join(cells)} |")


def milliseconds(row: dict[str, Any] | None) -> str:
    """The median; a star where no turn was quiet."""
    if row is None:
        return "-"
    middle = row["milliseconds"]["median"]
    return (f"{middle:,.0f}" if middle >= 100 else f"{middle:.3g}") + ("" if row["quiet_rounds"] else "\\*")


def rate(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['gflops']:,.0f}, {row['share_of_peak']:.0%}"


def cosine(rows: dict[str, dict[str, Any]]) -> str:
    return f"{min(row['smallest_cosine'] for row in rows.values()):.5f}"


if __name__ == "__main__":
    main()
