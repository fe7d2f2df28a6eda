"""Norms, activations and softmaxes in numpy, as their papers write them; the last axis is a vector's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats
from onepass.model.spec import NormSpec

_erf = np.frompyfunc(math.erf, 1, 1)


def norm(spec: NormSpec, x: Floats, weight: Floats, bias: Floats | None) -> Floats:
    eps = np.float32(spec.eps)
    match spec.kind:
        case "layer":
            centred = x - x.mean(axis=-1, keepdims=True)
            y = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps) * weight
        case "rms":
            y = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * weight
        case "rms1":
            y = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * (1 + weight)
        case "affine":
            y = x * weight
    return y if bias is None else y + bias


def softmax(x: Floats, seen: NDArray[np.bool_] | None = None) -> Floats:
    """Over what is `seen`, or over all; a vector of which nothing is seen becomes zeros."""
    if seen is not None:
        x = np.where(seen, x, -np.inf)
    e = np.exp(x - np.maximum(x.max(axis=-1, keepdims=True), np.finfo(np.float32).min))
    return e / np.maximum(e.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def sigmoid(x: Floats) -> Floats:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(x, -80, 80)))


def unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))


def gelu(x: Floats) -> Floats:
    return np.float32(0.5) * x * (1 + _erf(x / np.float32(math.sqrt(2))).astype(x.dtype))


def gelu_tanh(x: Floats) -> Floats:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * sigmoid(np.float32(1.702) * x),
    "gelu_clipped": lambda x: np.clip(gelu(x), -10, 10),
    "silu": lambda x: x * sigmoid(x),
    "relu": relu,
    "relu2": lambda x: np.square(relu(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu_log1p": lambda x: np.log1p(relu(x)),
}

FINISHES: dict[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "l2": unit,
    "softmax": softmax,
    "sigmoid": sigmoid,
}
