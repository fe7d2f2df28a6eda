"""The seam: what goes into an engine, what comes out, and the one call between.

Sequences travel packed: one flat array of token ids and the offsets where rows begin. The trunk runs once for all reads
of a batch. A row's output does not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onepass.errors import EngineFailure
from onepass.model.heads import Finish

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of tokens, end to end.

    ids, types: int32 [tokens].  offsets: int32 [rows + 1], row r is offsets[r]:offsets[r + 1], never empty.
    visible: int32 [rows], how many leading tokens of the row are seen as keys; all of them are queries (ColBERT's
    expansion tokens ask but are not seen).
    """

    ids: Ints
    types: Ints
    offsets: Ints
    visible: Ints

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """int32 [rows]."""
        return self.offsets[1:] - self.offsets[:-1]


@dataclass(frozen=True, slots=True)
class Read:
    """One head over some rows of the batch, with its arguments.

    rows: int32 [n], indices of batch rows, in output order.
    positions: int32 [m] token positions inside their rows, or spans: int32 [m, 2] first and last position, inclusive;
    offsets: int32 [n + 1], which of them belong to which row.
    With spans, a pooling other than "tokens" and "spans" pools each span by itself, as if it were a row without a
    prompt: one output row each.
    vocabulary: int32 [v], score only these ids.  skip: int32 [n], leading tokens that pooling leaves out.
    targets: int32 [m], one vocabulary id per position, for a head that scores a vocabulary token by token: the output
    is that id's log-probability among all, [m, 1], whatever the finish.
    finish: replaces the head's own ("none" gives raw scores).
    """

    head: str
    rows: Ints
    positions: Ints | None = None
    spans: Ints | None = None
    offsets: Ints | None = None
    vocabulary: Ints | None = None
    skip: Ints | None = None
    targets: Ints | None = None
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """values: float32 [m, width]; offsets: int32 [n + 1], row r of the read is values[offsets[r]:offsets[r + 1]].

    ids: int32 [m], the vocabulary id of each value where the head is sparse or pools by token id, else None.
    """

    values: Floats
    offsets: Ints
    ids: Ints | None = None

    def row(self, index: int) -> Floats:
        return self.values[self.offsets[index] : self.offsets[index + 1]]


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class RowOutput:
    """What one row gave to one ask: float32 [m, width], and int32 [m] where the values belong to vocabulary ids.

    Where the ask chose among the columns: ids are int32 [m, width], the column that each value stood in.
    """

    values: Floats
    ids: Ints | None = None

    def strongest(self, top: int | None, above: float) -> RowOutput:
        """Of values [m, 1] that belong to ids those above `above` in size, largest first, at most `top`.

        Of equal ones the first come first; what is not a number is kept.
        """
        assert self.ids is not None
        sizes = np.abs(self.values[:, 0])
        kept = np.flatnonzero(~(sizes <= np.float64(above)))
        order = kept[np.argsort(-sizes[kept], kind="stable")][:top]
        return RowOutput(self.values[order], self.ids[order])


class Engine(Protocol):
    """Runs one encoder. Re-entrant; `cores` is how many of the process's compute threads the call may use."""

    name: str
    dtype: str

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        """One output per read, in order. Raises EngineFailure."""
        ...

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        """ColBERT's MaxSim: float32 [n], for each document the sum over the query's vectors of the largest product.

        query: float32 [q, width], never empty.  documents: float32 [t, width], the vectors of all documents end to
        end.  offsets: int32 [n + 1], document d is documents[offsets[d]:offsets[d + 1]], never empty.
        Raises EngineFailure for what does not fit together.
        """
        ...

    def info(self) -> Mapping[str, Any]: ...


def check_similarity(query: Floats, documents: Floats, offsets: Ints) -> None:
    """Raises EngineFailure for what `max_similarity` cannot compare."""
    if query.ndim != 2 or documents.ndim != 2 or query.shape[1] != documents.shape[1] or not query.size:
        raise EngineFailure(f"vectors of shapes {query.shape} and {documents.shape} cannot be compared")
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(documents) or (np.diff(offsets) < 1).any():
        raise EngineFailure(f"offsets must rise from 0 to the number of vectors, {len(documents)}, by 1 at least")
