"""What stands between matrix products in torch: sums and norms, activations and gates, rotations.

Each is one Triton kernel (torch_kernels.py) where `fused`, else plain torch. Arithmetic is float32, results are rounded
once, when they are handed to the next product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from onepass.engines.torch_weights import Linear, Norm
from onepass.model.spec import ActivationKind

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_clipped": lambda x: functional.gelu(x).clamp(-10, 10),
    "silu": functional.silu,
    "relu": torch.relu,
    "relu2": lambda x: torch.relu(x).square(),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu_log1p": lambda x: torch.log1p(torch.relu(x)),
}
AT_ONCE = {"gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid"}
"""One kernel of torch each, which computes in float32 whatever it is given."""
GATES = {"gelu", "gelu_tanh", "silu"}
"""Of which a fused gate is made."""


def activate(kind: ActivationKind, x: Tensor) -> Tensor:
    """In x's dtype, computed in float32."""
    if kind in AT_ONCE:
        return ACTIVATIONS[kind](x)
    return ACTIVATIONS[kind](x.float()).to(x.dtype)


def activated(kind: ActivationKind, up: Linear, x: Tensor) -> Tensor:
    """act(W x + b) in x's dtype.

    GELU of bfloat16 on CUDA is done by cuBLASLt while the product's sums are still float32. It knows the approximation
    by tanh only, at most 5e-4 off. Over normal inputs of deviation 1 the result is 1.7e-3 off, as the exact one rounded
    once is; an exact GELU afterwards reads sums that were rounded to bfloat16 before and is 2.6e-3 off.
    """
    if kind in ("gelu", "gelu_tanh") and x.is_cuda and x.dtype == torch.bfloat16 and up.bias is not None:
        made: Tensor = torch._addmm_activation(up.bias, x, up.weight.T, use_gelu=True)
        return made
    return activate(kind, up(x))


def gated(kind: ActivationKind, both: Tensor, fused: bool) -> Tensor:
    """act(gate) * up, where both: [n, 2 width] holds gate and up side by side -> [n, width]."""
    if fused and kind in GATES:
        from onepass.engines.torch_kernels import gate

        return gate(both, kind)
    gate_half, up = both.float().chunk(2, dim=-1)
    return (ACTIVATIONS[kind](gate_half) * up).to(both.dtype)


def add_norm(
    x: Tensor, update: Tensor | None, bias: Tensor | None, norm: Norm, dtype: torch.dtype, keep_sum: bool, fused: bool
) -> tuple[Tensor, Tensor]:
    """(the stream, float32; its norm in `dtype`): s = x + update + bias, and the stream is s or norm(s).

    x: float32 [n, width].  update: [n, width], of any dtype.  bias: float32 [width].
    """
    if fused:
        from onepass.engines.torch_kernels import add_norm as kernel

        return kernel(x, update, bias, norm, dtype, keep_sum)
    s = added(x, update, bias)
    normed = norm(s)
    return (s if keep_sum else normed), normed.to(dtype)


def added(x: Tensor, update: Tensor | None, bias: Tensor | None) -> Tensor:
    """x + update + bias, float32."""
    s = x if update is None else x + update
    return s if bias is None else s + bias


def rotated(x: Tensor, cosines: Tensor, sines: Tensor, starts: Tensor, fused: bool) -> Tensor:
    """x: [tokens, heads, head_size]; pairs (k, k + half) of its first 2 half numbers are turned, the rest stay.

    cosines, sines: float32 [n, half]; token t reads their row starts[t]. Where fused, x itself is changed.
    """
    if fused:
        from onepass.engines.torch_kernels import rotate_

        return rotate_(x, cosines, sines, starts)
    half = cosines.shape[1]
    c, s = cosines[starts].unsqueeze(1), sines[starts].unsqueeze(1)
    a, b, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
    return torch.cat([(a * c - b * s).to(x.dtype), (b * c + a * s).to(x.dtype), rest], dim=-1)


def unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)


FINISHES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "l2": unit,
    "softmax": lambda x: torch.softmax(x, dim=-1),
    "sigmoid": torch.sigmoid,
}
