"""What families make of tensors that files hold otherwise than we do. A file's name may end in `*` or `?`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.model.spec import EncoderSpec
from onepass.model.weights import Made

Floats = NDArray[np.float32]


def part(file: str, index: int, of: int) -> Made:
    """The rows of one of `of` equally tall matrices that lie one above the other; of vectors likewise."""

    def cut(spec: EncoderSpec, stacked: Floats) -> Floats:
        return np.split(stacked, of)[index]

    return Made((file,), cut)


def query_key_value(ours: str, file: str) -> dict[str, Any]:
    """Sources of `ours`'s query, key and value from one matrix with one above the other."""
    return {f"{ours}.{name}": part(file, index, 3) for index, name in enumerate(("query.?", "key.?", "value.?"))}


def transposed(file: str) -> Made:
    return Made((file,), lambda spec, matrix: matrix.T)
