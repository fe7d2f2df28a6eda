"""Rows to a packed batch and its reads, outputs back to rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onepass.engines.batch import Output, PackedBatch, Read, RowOutput
from onepass.schedule.row import Ask, Row


def pack(rows: Sequence[Row]) -> tuple[PackedBatch, list[Read]]:
    """One read for the equal asks of the rows; asks with positions, spans or a vocabulary of their own get theirs."""
    lengths = np.fromiter(map(len, rows), np.int32, len(rows))
    batch = PackedBatch(
        ids=np.concatenate([np.frombuffer(row.ids, np.int32) for row in rows]),
        types=np.concatenate([np.frombuffer(row.types, np.int32) for row in rows]),
        offsets=np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)]),
        visible=np.array([len(row) if row.visible is None else row.visible for row in rows], np.int32),
    )
    return batch, [_read(ask, rows, members) for ask, members in _groups(rows).items()]


def unpack(rows: Sequence[Row], outputs: Sequence[Output]) -> list[tuple[RowOutput, ...]]:
    """Per row, one output for each of its asks, in their order."""
    slices: dict[tuple[int, Ask], RowOutput] = {}
    for (ask, members), output in zip(_groups(rows).items(), outputs, strict=True):
        for place, row in enumerate(members):
            slices[row, ask] = output.copied(place)
    return [tuple(slices[index, ask] for ask in row.asks) for index, row in enumerate(rows)]


def _groups(rows: Sequence[Row]) -> dict[Ask, list[int]]:
    """Which rows share an ask, in order of first appearance."""
    groups: dict[Ask, list[int]] = {}
    for index, row in enumerate(rows):
        for ask in row.asks:
            groups.setdefault(ask, []).append(index)
    return groups


def _read(ask: Ask, rows: Sequence[Row], members: Sequence[int]) -> Read:
    chosen = ask.positions if ask.positions is not None else ask.spans
    return Read(
        head=ask.head,
        rows=np.array(members, np.int32),
        positions=None if ask.positions is None else np.tile(np.array(ask.positions, np.int32), len(members)),
        spans=None if ask.spans is None else np.tile(np.array(ask.spans, np.int32), (len(members), 1)),
        offsets=None if chosen is None else np.arange(len(members) + 1, dtype=np.int32) * np.int32(len(chosen)),
        vocabulary=None if ask.vocabulary is None else np.array(ask.vocabulary, np.int32),
        targets=None if ask.targets is None else np.tile(np.array(ask.targets, np.int32), len(members)),
        skip=np.array([rows[index].skip for index in members], np.int32),
        finish=ask.finish,
    )
