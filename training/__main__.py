"""The whole recipe: data folder -> checkpoint.

    python -m training ../shared/data out/mini --seconds 600     # or --steps; what train.py takes goes behind

Each stage leaves its result in the folder: what is there already is not made again, and training goes on where it was
stopped. First some taggers are trained, from whose average the student learns names.
The checkpoint is in out/mini/checkpoint, the losses are in out/mini/losses.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import export, plot, prepare, train

TAGGERS = 4
TAGGER = ("--steps=1000", "--tokens=2048", "--rate=4e-4")  # names are few: longer, and they are learned by heart


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with permissive/ and tokenizers/")
    parser.add_argument("out", type=Path)
    options, rest = parser.parse_known_args()
    if not (options.out / "store.npz").exists():
        prepare.prepare(options.data, options.out)
    for number in range(1, TAGGERS + 1):
        if not (options.out / f"tagger-{number}" / "weights").exists():
            train.main([str(options.out), *rest, *TAGGER, f"--tagger={number}"])
    train.main([str(options.out), *rest])
    export.export(options.out, options.out / "checkpoint")
    plot.plot([options.out / "log.jsonl"], options.out / "losses.svg")


if __name__ == "__main__":
    main()
