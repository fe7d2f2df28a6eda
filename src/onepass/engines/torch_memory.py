"""A batch that does not fit into memory, in two halves: rows, and the reads of them, apart and together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onepass.engines.batch import Ints, Output, PackedBatch, Read


def halves(batch: PackedBatch) -> list[slice]:
    """Two parts of the rows, of about as many tokens each; of one row only that."""
    if batch.rows == 1:
        return [slice(0, 1)]
    middle = int(np.abs(batch.offsets[1:-1] - batch.tokens / 2).argmin()) + 1
    return [slice(0, middle), slice(middle, batch.rows)]


def rows_of(batch: PackedBatch, part: slice) -> PackedBatch:
    begin, end = batch.offsets[part.start], batch.offsets[part.stop]
    return PackedBatch(
        batch.ids[begin:end],
        batch.types[begin:end],
        batch.offsets[part.start : part.stop + 1] - begin,
        batch.visible[part],
    )


def reads_of(reads: Sequence[Read], batch: PackedBatch, part: slice) -> list[Read]:
    """Each read of the rows in `part`, as rows of that part alone."""
    return [_read_of(read, batch, part) for read in reads]


def _members(read: Read, part: slice) -> Ints:
    """Which of the read's rows lie in the part."""
    return np.flatnonzero((read.rows >= part.start) & (read.rows < part.stop)).astype(np.int32)


def _read_of(read: Read, batch: PackedBatch, part: slice) -> Read:
    mine = _members(read, part)
    changes: dict[str, Any] = {"rows": read.rows[mine] - np.int32(part.start)}
    if read.skip is not None:
        changes["skip"] = read.skip[mine]
    bounds = read.offsets
    if bounds is None and read.targets is not None:  # one target for each token
        bounds = np.concatenate([[0], np.cumsum(batch.lengths[read.rows])])
    if bounds is not None:
        chosen = np.concatenate([np.arange(bounds[index], bounds[index + 1]) for index in mine] or [mine])
        if read.offsets is not None:
            changes["offsets"] = np.concatenate([[0], np.cumsum(np.diff(bounds)[mine])]).astype(np.int32)
        for name in ("positions", "spans", "targets"):
            if (value := getattr(read, name)) is not None:
                changes[name] = value[chosen]
    return replace(read, **changes)


def merged(reads: Sequence[Read], parts: Sequence[slice], outputs: Sequence[Sequence[Output]]) -> list[Output]:
    """Of each part's outputs those of the whole batch. Reads are those of the whole."""
    return [_merged(read, parts, [own[index] for own in outputs]) for index, read in enumerate(reads)]


def _merged(read: Read, parts: Sequence[slice], outputs: Sequence[Output]) -> Output:
    places = [_members(read, part) for part in parts]
    owner = np.zeros(len(read.rows), np.int32)
    index = np.zeros(len(read.rows), np.int32)
    for number, mine in enumerate(places):
        owner[mine], index[mine] = number, np.arange(len(mine))
    rows = [outputs[a].row(b) for a, b in zip(owner.tolist(), index.tolist(), strict=True)]
    wide = next((output.values for output in outputs if len(output.offsets) > 1), outputs[0].values)
    values = np.concatenate([wide[:0], *rows])
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    if outputs[0].ids is None:
        return Output(values, offsets)
    ids = []
    for a, b in zip(owner.tolist(), index.tolist(), strict=True):
        own = outputs[a].ids
        assert own is not None
        ids.append(own[outputs[a].offsets[b] : outputs[a].offsets[b + 1]])
    return Output(values, offsets, np.concatenate([*ids, np.zeros(0, np.int32)]))
