"""python -m training.data FOLDER: how many rows of each kind there are, and one of each."""

# ruff: noqa: T201

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from training import data

PARTED: list[Callable[[Path, data.Split], Iterable[Any]]] = [
    data.title_pairs,
    data.tldr_pairs,
    data.medquad_pairs,
    data.nl2bash_pairs,
    data.disfl_pairs,
    data.rqe_pairs,
    data.sentiment,
    data.toxicity,
    data.entities,
    data.nli,
    data.answers,
]


def main(folder: Path) -> None:
    show("passages", data.passages(folder))
    show("section_pairs train", data.section_pairs(folder))
    for reader in PARTED:
        show(f"{reader.__name__} train", reader(folder, "train"))
        show(f"{reader.__name__} held", reader(folder, "held"))
    for name in ("banking77", "clinc150", "hwu64", "snips"):
        show(f"intents {name}", data.intents(folder, name))


def show(name: str, rows: Iterable[Any]) -> None:
    found = list(rows)
    print(f"{name}: {len(found):,}\n    {Random(1).choice(found)!r:.300}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
