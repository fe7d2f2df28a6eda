"""Rows to a packed batch and its reads, outputs back to rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read, RowOutput
from onepass.schedule.row import Ask, Row

Member = tuple[int, int, Ask]
"""A row's place in the batch, which of its asks this is, and the ask."""


def pack(rows: Sequence[Row]) -> tuple[PackedBatch, list[Read]]:
    """One read for the asks of the rows that are alike but for their positions, spans and targets."""
    lengths = [len(row.ids) for row in rows]
    batch = PackedBatch(
        ids=np.frombuffer(b"".join([row.ids for row in rows]), np.int32),
        types=np.frombuffer(b"".join([row.types for row in rows]), np.int32),
        offsets=np.array([*accumulate(lengths, initial=0)], np.int32),
        visible=np.array([len(row.ids) if row.visible is None else row.visible for row in rows], np.int32),
    )
    return batch, [_read(members, rows) for members in _groups(rows)]


def unpack(rows: Sequence[Row], outputs: Sequence[Output]) -> list[tuple[RowOutput, ...]]:
    """Per row, one output for each of its asks, in their order; none holds the memory of the others."""
    found: dict[tuple[int, int], RowOutput] = {}
    for members, output in zip(_groups(rows), outputs, strict=True):
        ends = output.offsets.tolist()
        for (index, place, ask), begin, end in zip(members, ends[:-1], ends[1:], strict=True):
            ids = None if output.ids is None else output.ids[begin:end]
            found[index, place] = _chosen(output.values[begin:end], ids, ask)
    return [tuple([found[index, place] for place in range(len(row.asks))]) for index, row in enumerate(rows)]


def _groups(rows: Sequence[Row]) -> list[list[Member]]:
    """Which asks share a read, in order of first appearance."""
    groups: dict[Hashable, list[Member]] = {}
    met: dict[int, list[Member]] = {}  # by the ask's identity: most rows share one, and to hash its fields takes long
    for index, row in enumerate(rows):
        for place, ask in enumerate(row.asks):
            if (members := met.get(id(ask))) is None:
                own = (ask.positions is None, ask.spans is None, ask.targets is None)
                members = met[id(ask)] = groups.setdefault((ask.head, ask.finish, ask.vocabulary, own), [])
            members.append((index, place, ask))
    return list(groups.values())


def _read(members: Sequence[Member], rows: Sequence[Row]) -> Read:
    indices = [index for index, _, _ in members]
    asks = [ask for _, _, ask in members]
    alike = asks[0]
    chosen = alike.positions is not None or alike.spans is not None
    counts = [len(ask.positions or ask.spans or ()) for ask in asks] if chosen else []
    return Read(
        head=alike.head,
        rows=np.array(indices, np.int32),
        positions=None if alike.positions is None else _joined(ask.positions or () for ask in asks),
        spans=None if alike.spans is None else _joined(chain(*(ask.spans or ())) for ask in asks).reshape(-1, 2),
        offsets=np.array([*accumulate(counts, initial=0)], np.int32) if chosen else None,
        vocabulary=None if alike.vocabulary is None else np.array(alike.vocabulary, np.int32),
        targets=None if alike.targets is None else _joined(ask.targets or () for ask in asks),
        skip=np.array([rows[index].skip for index in indices], np.int32),
        finish=alike.finish,
    )


def _joined(numbers: Iterable[Iterable[int]]) -> Ints:
    return np.fromiter(chain.from_iterable(numbers), np.int32)


def _chosen(values: Floats, ids: Ints | None, ask: Ask) -> RowOutput:
    """What answers one ask, on its own: all of a row's values, or the columns or ids chosen."""
    if ask.above is not None:
        return RowOutput(values, ids).strongest(ask.top, ask.above)
    if ask.columns is None and ask.top is None:
        return RowOutput(values.copy(), None if ids is None else ids.copy())
    columns = np.arange(values.shape[1], dtype=np.int32) if ask.columns is None else np.array(ask.columns, np.int32)
    values = values[:, columns] if ask.columns is not None else values
    if ask.top is None:
        return RowOutput(values, np.tile(columns, (len(values), 1)))
    best = _largest(values, min(ask.top, len(columns)))
    return RowOutput(np.take_along_axis(values, best, axis=1), columns[best])


def _largest(values: Floats, count: int) -> NDArray[np.intp]:
    """Columns of the `count` largest values of each row, best first: [rows, count]."""
    best = np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
