"""Rows to a packed batch and its reads, outputs back to rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read, RowOutput
from onepass.schedule.row import Ask, Row

Member = tuple[int, Ask]
"""A row's place in the batch, and one of its asks."""


def pack(rows: Sequence[Row]) -> tuple[PackedBatch, list[Read]]:
    """One read for the asks of the rows that are alike but for their positions, spans and targets."""
    lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    batch = PackedBatch(
        ids=np.concatenate([np.frombuffer(row.ids, np.int32) for row in rows]),
        types=np.concatenate([np.frombuffer(row.types, np.int32) for row in rows]),
        offsets=np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)]),
        visible=np.array([len(row) if row.visible is None else row.visible for row in rows], np.int32),
    )
    return batch, [_read(members, rows) for members in _groups(rows)]


def unpack(rows: Sequence[Row], outputs: Sequence[Output]) -> list[tuple[RowOutput, ...]]:
    """Per row, one output for each of its asks, in their order."""
    slices: dict[Member, RowOutput] = {}
    for members, output in zip(_groups(rows), outputs, strict=True):
        for place, (index, ask) in enumerate(members):
            slices[index, ask] = _chosen(output, place, ask)
    return [tuple(slices[index, ask] for ask in row.asks) for index, row in enumerate(rows)]


def _groups(rows: Sequence[Row]) -> list[list[Member]]:
    """Which asks share a read, in order of first appearance."""
    groups: dict[Hashable, list[Member]] = {}
    for index, row in enumerate(rows):
        for ask in dict.fromkeys(row.asks):
            own = (ask.positions is None, ask.spans is None, ask.targets is None)
            groups.setdefault((ask.head, ask.finish, ask.vocabulary, own), []).append((index, ask))
    return list(groups.values())


def _read(members: Sequence[Member], rows: Sequence[Row]) -> Read:
    asks = [ask for _, ask in members]
    alike = asks[0]
    counts = [len(ask.positions or ask.spans or ()) for ask in asks]
    chosen = alike.positions is not None or alike.spans is not None
    return Read(
        head=alike.head,
        rows=np.array([index for index, _ in members], np.int32),
        positions=None if alike.positions is None else _joined(ask.positions or () for ask in asks),
        spans=None if alike.spans is None else _joined(chain(*(ask.spans or ())) for ask in asks).reshape(-1, 2),
        offsets=np.array([*accumulate(counts, initial=0)], np.int32) if chosen else None,
        vocabulary=None if alike.vocabulary is None else np.array(alike.vocabulary, np.int32),
        targets=None if alike.targets is None else _joined(ask.targets or () for ask in asks),
        skip=np.array([rows[index].skip for index, _ in members], np.int32),
        finish=alike.finish,
    )


def _joined(numbers: Iterable[Iterable[int]]) -> Ints:
    return np.fromiter(chain.from_iterable(numbers), np.int32)


def _chosen(output: Output, place: int, ask: Ask) -> RowOutput:
    """The part of an output that answers one ask: all of a row, or the columns or ids chosen."""
    if ask.above is not None:
        return output.copied(place).strongest(ask.top, ask.above)
    if ask.columns is None and ask.top is None:
        return output.copied(place)
    values = output.row(place)
    ids = np.arange(values.shape[1], dtype=np.int32) if ask.columns is None else np.array(ask.columns, np.int32)
    values = values[:, ids] if ask.columns is not None else values
    if ask.top is None:
        return RowOutput(values, np.tile(ids, (len(values), 1)))
    best = _largest(values, min(ask.top, len(ids)))
    return RowOutput(np.take_along_axis(values, best, axis=1), ids[best])


def _largest(values: Floats, count: int) -> NDArray[np.intp]:
    """Columns of the `count` largest values of each row, best first: [rows, count]."""
    best = np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
