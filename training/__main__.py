"""The whole recipe: data folder -> checkpoint.

    python -m training ../shared/data out/mini --seconds 600     # or --steps; what train.py takes goes behind

Each stage leaves its result in the folder: what is there already is not made again, and training goes on where it was
stopped. A fifth of the time goes to the tagger, from which the student learns names.
The checkpoint is in out/mini/checkpoint, the losses are in out/mini/losses.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import export, plot, prepare, train

TAGGER = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with permissive/ and tokenizers/")
    parser.add_argument("out", type=Path)
    options, rest = parser.parse_known_args()
    if not (options.out / "store.npz").exists():
        prepare.prepare(options.data, options.out)
    if not (options.out / "tagger" / "weights").exists():
        train.main([str(options.out), *part(rest, TAGGER), "--tagger", "--rate=4e-4"])
    train.main([str(options.out), *part(rest, 1 - TAGGER)])
    export.export(options.out, options.out / "checkpoint")
    plot.plot([options.out / "log.jsonl"], options.out / "losses.svg")


def part(given: list[str], share: float) -> list[str]:
    """Options of train.py, with so much of the steps or seconds they name."""
    options = train.parsed([".", *given])
    return [*given, f"--steps={round(share * options.steps)}", f"--seconds={share * options.seconds}"]


if __name__ == "__main__":
    main()
