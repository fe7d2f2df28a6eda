"""docs/cpu.svg from docs/cpu.json, which holds the last lines of the runs of cpu_engines.py that docs/cpu.md shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found,unused-ignore]
from matplotlib import pyplot

PAGE = Path(__file__).parents[1] / "docs" / "cpu.md"
PANELS = (
    ("single", "one text of 12 tokens", "milliseconds, shorter is better"),
    ("rerank200", "texts of 90 tokens (median)", "GFLOP/s on real tokens, longer is better"),
)
OURS, OTHERS = "#c2410c", "#94a3b8"


def main() -> None:
    documents = [json.loads(line) for line in PAGE.with_suffix(".json").read_text().splitlines()]
    results = [row for document in documents for row in document["results"]]
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "onepass",
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    draw(results, documents[0]["peak_gflops"])


def draw(results: list[dict[str, Any]], peaks: dict[str, dict[str, Any]]) -> None:
    models = list(dict.fromkeys(row["model"] for row in results))
    figure, axes = pyplot.subplots(
        len(models), len(PANELS), figsize=(10, 2.6 * len(models)), squeeze=False, layout="constrained"
    )
    for line, model in zip(axes, models, strict=True):
        for axis, (workload, title, unit) in zip(line, PANELS, strict=True):
            rows = [row for row in results if (row["model"], row["workload"], row["input"]) == (model, workload, "ids")]
            bars(axis, rows, peaks if workload == "rerank200" else {})
            axis.set_title(f"{model}: {title}", loc="left", fontsize=10)
            axis.set_xlabel(unit)
    figure.savefig(PAGE.with_suffix(".svg"), metadata={"Date": None})


def bars(axis: Any, rows: list[dict[str, Any]], peaks: dict[str, dict[str, Any]]) -> None:
    """One bar per engine, the best on top, and how far the machine itself goes in each type."""
    rate = bool(peaks)
    rows = sorted(rows, key=lambda row: value(row, rate), reverse=not rate)
    names = [row["engine"] for row in rows]
    colours = [OURS if name.startswith("onepass") else OTHERS for name in names]
    axis.barh(names, [value(row, rate) for row in rows], color=colours)
    for place, row in enumerate(rows):
        axis.annotate(f" {value(row, rate):,.3g}", (value(row, rate), place), va="center", fontsize=8, zorder=3)
    for dtype, unit in peaks.items():
        if dtype != "int8":
            axis.axvline(unit["gflops"], color="#475569", linestyle=":", linewidth=1, zorder=0)
            axis.annotate(f"{dtype} peak ", (unit["gflops"], -0.4), ha="right", fontsize=8, color="#475569")
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.tick_params(axis="y", length=0)


def value(row: dict[str, Any], rate: bool) -> float:
    return float(row["gflops"] if rate else row["milliseconds"]["median"])


if __name__ == "__main__":
    main()
