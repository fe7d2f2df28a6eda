"""The torch engine's Triton kernels beside plain torch; without a GPU in Triton's interpreter (conftest.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_models import batch_of
from torch import Tensor

from onepass.engines import torch_kernels
from onepass.engines.torch_attention import grouped
from onepass.engines.torch_batch import Rows, as_tensor
from onepass.engines.torch_disentangled import query_block, query_blocks
from onepass.engines.torch_packed_kernel import run
from onepass.engines.torch_steps import add_norm, gated, rotated
from onepass.engines.torch_weights import Norm
from onepass.model.spec import ActivationKind, AttentionSpec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALVES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = pytest.mark.parametrize("dtype", HALVES, ids=str)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def near(ours: Tensor, theirs: Tensor) -> bool:
    """To the rounding of their dtype."""
    return torch.allclose(ours.float(), theirs.float(), atol=1e-5, rtol=max(torch.finfo(ours.dtype).eps, 1e-5))


@dtypes
@pytest.mark.parametrize("kind", ["layer", "rms", "affine"])
@pytest.mark.parametrize("keep_sum", [False, True])
@pytest.mark.parametrize("width", [37, 256])
def test_sums_and_norms(width: int, keep_sum: bool, kind: str, dtype: torch.dtype) -> None:
    for parts in ("update, bias, shift", "update, shift", "update", "shift", ""):
        x = drawn(5, width) * 3 + 1
        update = drawn(5, width, dtype=dtype) if "update" in parts else None
        bias = drawn(width) if "bias" in parts else None
        norm = Norm(kind, 1e-3, drawn(width, seed=1), drawn(width, seed=2) if "shift" in parts else None)
        expected = add_norm(x, update, bias, norm, dtype, keep_sum, fused=False)
        ours = torch_kernels.add_norm(x, update, bias, norm, dtype, keep_sum)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == b.dtype
            assert near(a, b), parts


@dtypes
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_embeddings(kind: str, dtype: torch.dtype) -> None:
    width = 37
    word, position, types = drawn(50, width), drawn(9, width), drawn(2, width)
    ids, places, rows = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([0, 49, 7], [8, 0, 3], [1, 0, 1]))
    norm = Norm(kind, 1e-3, drawn(width, seed=1), drawn(width, seed=2))
    for with_position, with_types in ((True, True), (True, False), (False, True), (False, False)):
        x = 1.5 * word[ids]
        x = x + position[places] if with_position else x
        x = x + types[rows] if with_types else x
        ours = torch_kernels.embed(
            word,
            ids,
            (position, places) if with_position else None,
            (types, rows) if with_types else None,
            1.5,
            norm,
            dtype,
        )
        for a, b in zip(ours, (norm(x), norm(x).to(dtype)), strict=True):
            assert a.dtype == b.dtype
            assert near(a, b)


@dtypes
@pytest.mark.parametrize("width", [24, 600, 1024])
@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
def test_gates(kind: ActivationKind, width: int, dtype: torch.dtype) -> None:
    both = drawn(7, 2 * width, dtype=dtype) * 3
    assert near(torch_kernels.gate(both, kind), gated(kind, both, fused=False))


@dtypes
@pytest.mark.parametrize(("heads", "size", "half"), [(3, 24, 12), (4, 16, 5)])
def test_rotations(heads: int, size: int, half: int, dtype: torch.dtype) -> None:
    x = drawn(9, 2 * heads * size, dtype=dtype)[:, heads * size :].unflatten(1, (heads, size))
    cosines, sines = drawn(20, half), drawn(20, half, seed=1)
    starts = torch.tensor([0, 1, 2, 3, 19, 0, 1, 2, 7], dtype=torch.int32, device=DEVICE)
    expected = rotated(x, cosines, sines, starts, fused=False)
    assert near(torch_kernels.rotate_(x, cosines, sines, starts), expected)


LENGTHS = (1, 2, 17, 70)
ATTENTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped heads": {"kv_heads": 1},
    "causal": {"causal": True},
    "window": {"radius": 20},
    "causal window": {"radius": 20, "causal": True},
    "capped": {"softcap": 2.0},
    "head of 20": {"head_size": 20},
}


@pytest.mark.parametrize("width", [1, 37, 200])
@pytest.mark.parametrize("how", ["sum", "max", "mean", "mean_sqrt"])
def test_segments(how: str, width: int) -> None:
    x = drawn(130, width)
    bounds = torch.tensor([0, 1, 3, 70, 130], dtype=torch.int32, device=DEVICE)
    kind, root = how.partition("_")[::2]
    expected = torch.segment_reduce(x, kind, offsets=bounds.long(), axis=0, unsafe=True)
    if root:
        expected *= bounds.diff().sqrt().unsqueeze(1)
    assert near(torch_kernels.segments(how, x, bounds), expected)
    x[2, 0] = float("nan")
    assert torch_kernels.segments(how, x, bounds).isnan().nonzero().tolist() == [[1, 0]]


MULTIPLIED = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
"""The interpreter multiplies no bfloat16."""


@pytest.mark.parametrize("dtype", MULTIPLIED, ids=str)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name: str, biased: bool, dtype: torch.dtype) -> None:
    attention = AttentionSpec(**{"heads": 2, "head_size": 16, "scale": 0.3, "kv_heads": 2} | ATTENTIONS[name])
    batch = batch_of(LENGTHS, visible=(1, 1, 17, 66))
    heads = attention.heads + 2 * attention.kv_heads
    whole = drawn(batch.tokens, heads, attention.head_size, dtype=dtype) * 1.5
    q, k, v = whole.split([attention.heads, attention.kv_heads, attention.kv_heads], dim=1)
    bias = drawn(attention.heads, 2 * 160 + 1) if biased else None
    offsets, visible = (as_tensor(array).to(DEVICE) for array in (batch.offsets, batch.visible))
    ids = as_tensor(batch.ids).to(DEVICE)
    rows = Rows(ids, ids, ids, ids, ids, [], offsets, visible, max(LENGTHS), False, [], [], batch)
    expected = grouped(q, k, v, rows, attention, bias)
    queries = query_block(attention.head_size, dtype)
    ours = run(q, k, v, offsets, visible, query_blocks(offsets, batch.tokens, queries), bias, attention, queries)
    assert ours.dtype == dtype
    error = (ours.float() - expected.float()).abs().max() / expected.float().abs().max()
    assert error < max(4 * torch.finfo(dtype).eps, 2e-6)
    assert np.isfinite(ours.float().cpu().numpy()).all()
