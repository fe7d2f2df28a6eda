"""Matrices stored as int8: a row is 8-bit integers and one scale, and stands for their products.

In a file the integers are the tensor `name`, I8 [out, ...], and the scales are `name + ".scale"`, F32 [out]. This is a
way to store, not to compute: engines get float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint

SCALE = ".scale"


def quantize(tensor: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(int8 of the same shape, float32 [rows]) of a tensor of at least one axis, symmetric, rounded to nearest.

    A row's scale is its largest magnitude / 127, so that no value is off by more than half a scale; rows too small for
    that, of zeros most of all, become zeros with a scale of 1. Raises BadCheckpoint for NaN or infinity.
    """
    if not np.isfinite(tensor).all():
        raise BadCheckpoint("a tensor that holds NaN or infinity cannot be stored as int8")
    scale = np.abs(tensor).reshape(len(tensor), -1).max(axis=1, initial=0).astype(np.float32) / np.float32(127)
    scale[scale < np.finfo(np.float32).tiny] = 1
    return np.rint(tensor / _along_rows(scale, tensor.ndim)).astype(np.int8), scale


def dequantize(integers: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 of the shape of `integers`: each times the scale of its row."""
    tensor = integers.astype(np.float32)
    tensor *= _along_rows(scale, tensor.ndim)
    return tensor


def quantized(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """What a file holds of `tensors`: matrices as int8 with their scales, vectors as they are."""
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            stored[name] = tensor
        else:
            stored[name], stored[name + SCALE] = quantize(tensor)
    return stored


def _along_rows(scale: NDArray[np.float32], axes: int) -> NDArray[np.float32]:
    return scale.reshape(-1, *[1] * (axes - 1))
