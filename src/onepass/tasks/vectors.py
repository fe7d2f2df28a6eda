"""Vectors as a caller wants them: how many values, of which length, as which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput
from onepass.model.heads import Finish
from onepass.schedule.job import Job
from onepass.tasks.heads import head_of

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "uint8", "binary", "ubinary")

Vectors = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]
Ranges = Sequence[Sequence[float]] | Floats


@dataclass(frozen=True, slots=True)
class Form:
    """head: its name.  unit: whether vectors have length 1."""

    head: str
    unit: bool
    dimensions: int
    precision: Precision
    ranges: Floats | None

    @property
    def finish(self) -> Finish:
        return "l2" if self.unit else "none"

    def of(self, vectors: Floats) -> Vectors:
        """vectors: float32 [n, width] as the head gives them, already of length 1 where they shall be."""
        return quantize(cut(vectors, self.dimensions, unit=self.unit), self.precision, self.ranges)


def form(
    job: Job,
    dimensions: int | None,
    normalize: bool | None,
    precision: Precision,
    ranges: Ranges | None,
    head: str | None,
) -> Form:
    """What `embed` says of these options, checked. Raises WrongTask, InvalidInput."""
    name, found = head_of(job, "embed", "embed", head)
    width = job.served.checkpoint.widths[name]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidInput(f"dimensions is {dimensions}, this model gives 1 to {width}; ask for a number between")
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision {precision!r} is unknown; choose {', '.join(PRECISIONS)}")
    unit = found.finish == "l2" if normalize is None else normalize
    if precision.endswith("int8") and ranges is None and not unit:
        raise InvalidInput(
            f"precision {precision} needs vectors of length 1, or ranges; leave normalize on, or give them"
        )
    if ranges is not None and not precision.endswith("int8"):
        raise InvalidInput(f"ranges are for the precisions int8 and uint8, not for {precision}; leave them out")
    kept = dimensions or width
    return Form(name, unit, kept, precision, None if ranges is None else _checked(ranges, kept))


def _checked(ranges: Ranges, width: int) -> Floats:
    try:
        table = np.asarray(ranges, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(
            "ranges is no array of numbers; send the lowest and the highest value of each dimension"
        ) from None
    if table.shape != (2, width):
        raise InvalidInput(
            f"ranges has the shape {list(table.shape)}, the vectors need [2, {width}]: lowest and highest values"
        )
    if not (np.isfinite(table).all() and (table[0] <= table[1]).all()):
        raise InvalidInput("ranges must hold finite numbers, in the first row none above the second; check their order")
    return table


def cut(vectors: Floats, dimensions: int, *, unit: bool) -> Floats:
    """The leading values of each row, scaled to length 1 again if they were (Matryoshka)."""
    if dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    if unit:
        kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.float32(1e-12))
    return np.ascontiguousarray(kept)


def quantize(vectors: Floats, precision: Precision, ranges: Floats | None = None) -> Vectors:
    """As sentence-transformers' quantize_embeddings, but without ranges int8 does not look at the other vectors.

    Then the values of a unit vector, -1 to 1, become -127 to 127, and 128 more as uint8.
    """
    match precision:
        case "binary":
            return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).astype(np.int8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)
        case "int8" | "uint8":
            if ranges is None:
                levels = np.clip(np.rint(vectors * 127), -127, 127) + 128
            else:
                steps = (ranges[1] - ranges[0]) / 255
                levels = np.clip(np.floor((vectors - ranges[0]) / np.where(steps == 0, 1, steps)), 0, 255)
            return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)
    return vectors
