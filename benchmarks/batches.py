"""How a runtime that takes rectangles is fed: sequences of like length padded to the longest of their batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ids = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Setting:
    """rows: sequences per batch.  streams: batches at once, which share the threads."""

    rows: int = 32
    streams: int = 1


def settings(rows: Sequence[int], streams: Sequence[int]) -> list[Setting]:
    return [Setting(count, at_once) for at_once in streams for count in rows]


def padded(batch: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, [sequences, longest]."""
    shape = len(batch), max(map(len, batch))
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def by_length(rows: Ids, setting: Setting, embed: Callable[[Ids], Vectors]) -> Vectors:
    """Batches of like length, longest first, `setting.streams` of them at once; results in the order of `rows`."""
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    batches = [
        [rows[row] for row in order[start : start + setting.rows]] for start in range(0, len(order), setting.rows)
    ]
    if setting.streams == 1 or len(batches) == 1:
        parts = list(map(embed, batches))
    else:
        with ThreadPoolExecutor(setting.streams) as threads:
            parts = list(threads.map(embed, batches))
    vectors = np.concatenate(parts)
    restored = np.empty_like(vectors)
    restored[order] = vectors
    return restored
