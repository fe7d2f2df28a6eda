"""One sequence on its way to the engine: plain data, no future and no callback; it can cross a process border."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from onepass.model.heads import Finish


@dataclass(frozen=True, slots=True)
class Ask:
    """What a row wants read from it; one `engines.batch.Read` gathers the like asks of a micro-batch.

    columns: of the finished values only these.  top: of each output row only the so many largest, best first.
    With either, `RowOutput.ids` says which columns the values stood in.
    above: of values that belong to vocabulary ids only those above it in size, largest first, at most `top`.
    """

    head: str
    finish: Finish | None = None
    positions: tuple[int, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    vocabulary: tuple[int, ...] | None = None
    targets: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
    top: int | None = None
    above: float | None = None


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class Row:
    """ids, types: arrays of 32 bits each, special tokens included, equally long, never empty.

    request, index: whose row this is, and which of its rows.  visible: how many leading tokens are keys; None: all.
    skip: leading prompt tokens that pooling leaves out where the head says so.
    model: equal (model, adapter) rows may share a micro-batch.
    """

    model: str
    request: int
    index: int
    ids: array[int]
    types: array[int]
    asks: tuple[Ask, ...]
    visible: int | None = None
    skip: int = 0

    def __len__(self) -> int:
        return len(self.ids)
