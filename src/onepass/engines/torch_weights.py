"""The torch engine's tensors: looked up by the names of model/weights.py, checked, and moved to the device once.

Matrices of products are held in the products' dtype, all else in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onepass.engines.batch import Floats
from onepass.engines.torch_batch import as_tensor
from onepass.errors import BadCheckpoint, MissingTensor
from onepass.model.spec import EncoderSpec, NormSpec
from onepass.model.weights import Weights, shapes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Linear:
    """weight: [out, in].  bias: [out] of the same dtype, or None.  late_bias: float32, for who adds it afterwards."""

    weight: Tensor
    bias: Tensor | None = None
    late_bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [n, in] of the weight's dtype."""
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Norm:
    """kind: layer, rms or affine, as `NormSpec`; rms1 is rms with 1 + weight.  weight, bias: float32."""

    kind: str
    eps: float
    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """x: float32 [..., width]."""
        match self.kind:
            case "layer":
                return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
            case "rms":
                y = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight
            case _:
                y = x * self.weight
        return y if self.bias is None else y + self.bias


class Tensors:
    """Raises MissingTensor, and BadCheckpoint for tensors that do not fit the spec.

    What several layers share is moved once. `bytes`: of everything moved so far.
    """

    def __init__(self, spec: EncoderSpec, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.bytes = 0
        self._weights = weights
        self._shapes = shapes(spec)
        self._made: dict[tuple[Any, ...], Any] = {}

    # To the device.

    def linear(self, *names: str, late: bool = False) -> Linear:
        """Linear layers of equal inputs as one product, their outputs side by side. late: the bias is added later."""

        def make() -> Linear:
            matrix = self.moved([self.array(f"{name}.weight") for name in names], self.dtype)
            biases = [self.optional(f"{name}.bias") for name in names]
            if all(bias is None for bias in biases):
                return Linear(matrix)
            rows = [len(self.array(f"{name}.weight")) for name in names]
            filled = [
                np.zeros(count, np.float32) if bias is None else bias for bias, count in zip(biases, rows, strict=True)
            ]
            if late:
                return Linear(matrix, None, self.moved(filled, torch.float32))
            return Linear(matrix, self.moved(filled, self.dtype))

        return self.once(("linear", late, *names), make)

    def norm(self, name: str, spec: NormSpec) -> Norm:
        bias = f"{name}.bias"
        return self.norm_of(spec, f"{name}.weight", bias if bias in self._weights else None)

    def norm_of(self, spec: NormSpec, weight: str, bias: str | None) -> Norm:
        def make() -> Norm:
            gain = self.array(weight) + np.float32(1) if spec.kind == "rms1" else self.array(weight)
            kind = "rms" if spec.kind == "rms1" else spec.kind
            shift = None if bias is None else self.table(bias)
            return Norm(kind, spec.eps, self.moved([gain], torch.float32), shift)

        return self.once(("norm", spec, weight, bias), make)

    def table(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.once(("table", name, dtype), lambda: self.moved([self.array(name)], dtype))

    def moved(self, arrays: Sequence[Floats], dtype: torch.dtype) -> Tensor:
        """The arrays end to end along their first axis."""
        parts = [as_tensor(array) for array in arrays]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        moved = whole.to(self.device, dtype, copy=True)
        self.bytes += moved.nbytes
        return moved

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    # Arrays by name.

    def array(self, name: str) -> Floats:
        if name not in self._weights:
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs")
        array = self._weights[name]
        shape = self._shapes.get(name, array.shape)
        if array.shape != shape:
            raise BadCheckpoint(f"tensor {name!r} has shape {array.shape}, the config says {shape}")
        return array

    def optional(self, name: str) -> Floats | None:
        return self.array(name) if name in self._weights else None
