"""Losses over time, a picture of one or several runs behind each other.

python -m training.plot out/mini/log.jsonl docs/embedded-model-losses.svg
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from matplotlib.figure import Figure

OTHER = ("step", "seconds", "stage")


def plot(logs: list[Path], out: Path) -> None:
    """A panel for each objective; a dashed line where a run ends. No picture where no run came to a line of its log."""
    points: dict[str, list[tuple[int, float]]] = {}
    ends, before = [], 0
    for log in logs:
        if not (lines := [json.loads(line) for line in log.read_text().splitlines()]):
            continue
        for line in lines:
            for name, loss in line.items():
                if name not in OTHER:
                    points.setdefault(name, []).append((before + line["step"], loss))
        before += lines[-1]["step"]
        ends.append(before)
    if not points:
        return
    columns = 5
    figure = Figure(figsize=(15, 3 * math.ceil(len(points) / columns)), layout="constrained")
    for number, (name, losses) in enumerate(points.items()):
        axes = figure.add_subplot(math.ceil(len(points) / columns), columns, number + 1)
        axes.plot(*zip(*losses, strict=True), color="#2563eb", linewidth=1)
        for end in ends[:-1]:
            axes.axvline(end, color="#9ca3af", linestyle="--", linewidth=0.8)
        axes.set_title(name, fontsize=10)
        axes.set_xlim(0, before)
        if max(loss for _, loss in losses) > 8 * min(loss for _, loss in losses):
            axes.set_yscale("log")
        axes.tick_params(labelsize=8)
    figure.savefig(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    plot(options.logs, options.out)


if __name__ == "__main__":
    main()
