"""DeBERTa's attention in torch: the plain loop beside the reference engine, and the Triton kernel beside the loop.

Without a GPU the kernel runs in Triton's interpreter (conftest.py): the same source, one program after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from random_models import NORM, draw
from torch import Tensor

from onepass.engines.batch import Floats
from onepass.engines.reference_trunk import Row, Trunk
from onepass.engines.torch_disentangled import (
    disentangled_attention,
    plain,
    query_block,
    query_blocks,
    reach,
)
from onepass.model.positions import relative_indices
from onepass.model.spec import (
    AttentionSpec,
    Disentangled,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
)

LENGTHS = (1, 2, 3, 17, 64, 130)
SPANS = {
    "distances": Disentangled(40, 40, 0, True, True),
    "buckets": Disentangled(16, 100, 16, True, True),
    "from queries": Disentangled(40, 40, 0, True, False),
    "from keys": Disentangled(16, 100, 16, False, True),
    "neither": Disentangled(40, 40, 0, False, False),
}


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def asked(causal: bool = False, radius: int | None = None, cap: float | None = None, size: int = 24) -> AttentionSpec:
    return AttentionSpec(2, size, 1 / (3 * size) ** 0.5, 2, causal=causal, radius=radius, softcap=cap)


def drawn(attention: AttentionSpec, tokens: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Query, key and value as views of one projection, of a size at which shares differ."""
    whole = torch.randn(tokens, 3, attention.heads, attention.head_size, generator=torch.Generator().manual_seed(1))
    return (whole * 1.5).to(DEVICE, dtype).unbind(1)


def tables(spec: Disentangled, attention: AttentionSpec, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """position_key and position_query."""
    shape = 2, attention.heads, 2 * spec.span, attention.head_size
    key, query = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(DEVICE, dtype)
    return key if spec.content_to_position else None, query if spec.position_to_content else None


def packed(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """offsets, and `visible`: of every second row all tokens, of the others some."""
    offsets = torch.tensor(np.cumsum([0, *lengths], dtype=np.int32))
    visible = [length if row % 2 else max(1, length * 2 // 3) for row, length in enumerate(lengths)]
    return offsets, torch.tensor(visible, dtype=torch.int32)


OPTIONS = {
    "all": asked(),
    "causal": asked(causal=True),
    "window": asked(radius=9),
    "causal window": asked(causal=True, radius=70),
    "capped": asked(cap=2.0),
}


@pytest.mark.parametrize("attention", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("spec", SPANS.values(), ids=SPANS)
def test_the_loop_is_the_reference(spec: Disentangled, attention: AttentionSpec) -> None:
    heads, size, width = attention.heads, attention.head_size, attention.heads * attention.head_size
    layer = LayerSpec(0, "post", NORM, attention, FeedForwardSpec("plain", 8, "gelu"))
    encoder = EncoderSpec(width, EmbedSpec(10, width, NORM), (layer,), max_tokens=500, relative=spec)
    weights = draw(encoder)
    name = "layers.0.attention"
    weights |= {
        f"{name}.output.weight": np.eye(width, dtype=np.float32),
        f"{name}.output.bias": np.zeros(width, np.float32),
    }
    trunk = Trunk(encoder, weights)
    offsets, visible = packed(LENGTHS)
    states = np.random.default_rng(3).standard_normal((int(offsets[-1]), width)).astype(np.float32)

    def by_head(part: str, x: Floats) -> Tensor:
        return torch.from_numpy(trunk.linear(f"{name}.{part}", x)).view(-1, heads, size)

    table = weights["relative.table"]
    ours = disentangled_attention(
        by_head("query", states),
        by_head("key", states),
        by_head("value", states),
        offsets,
        visible,
        reach(spec, max(LENGTHS), torch.device("cpu")),
        by_head("position_key", table).transpose(0, 1) if spec.content_to_position else None,
        by_head("position_query", table).transpose(0, 1) if spec.position_to_content else None,
        attention,
    )
    for begin, length, keys in zip(offsets.tolist(), LENGTHS, visible.tolist(), strict=False):
        x = states[begin : begin + length]
        theirs = trunk.attention(attention, name, NORM, x, x, Row(length, keys, []))
        np.testing.assert_allclose(ours[begin : begin + length].flatten(1).numpy(), theirs, rtol=1e-4, atol=2e-5)


def by_kernel(
    spec: Disentangled, attention: AttentionSpec, lengths: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What the kernel gives, and the loop from the same numbers."""
    kernel = pytest.importorskip("onepass.engines.torch_disentangled_kernel", reason="no Triton", exc_type=ImportError)
    offsets, visible = (x.to(DEVICE) for x in packed(lengths))
    query, key, value = drawn(attention, int(offsets[-1]), dtype)
    position_key, position_query = tables(spec, attention, dtype)
    within = reach(spec, max(lengths), DEVICE)
    ours = kernel.run(
        query,
        key,
        value,
        offsets,
        visible,
        within,
        position_key,
        position_query,
        attention,
        query_blocks(offsets, len(query), query_block(attention.head_size, dtype)),
    )
    return ours, plain(query, key, value, offsets, visible, within, position_key, position_query, attention)


CASES = {name: (spec, asked()) for name, spec in SPANS.items()}
CASES |= {name: (SPANS["buckets"], attention) for name, attention in OPTIONS.items() if name != "all"}


@pytest.mark.parametrize(("spec", "attention"), CASES.values(), ids=CASES)
def test_the_kernel_is_the_loop(spec: Disentangled, attention: AttentionSpec) -> None:
    ours, theirs = by_kernel(spec, attention, LENGTHS, torch.float32)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE.type == "cuda" else [])]
"""The interpreter multiplies no bfloat16."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [8, 64, 80, 128])
def test_sizes_of_heads(size: int, dtype: torch.dtype) -> None:
    ours, theirs = by_kernel(SPANS["buckets"], asked(size=size), (70, 3), dtype)
    error = {torch.bfloat16: 0.05, torch.float16: 0.006, torch.float32: 1e-5}[dtype]  # of numbers up to about 5
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=error)


def test_neighbours_change_nothing() -> None:
    spec, attention = SPANS["distances"], asked()
    together, _ = by_kernel(spec, attention, (64, 20, 70), torch.float32)
    alone, _ = by_kernel(spec, attention, (64,), torch.float32)
    torch.testing.assert_close(together[:64], alone, rtol=1e-6, atol=1e-6)


def test_who_sees_nothing_gets_zeros() -> None:
    """And only they do: scores that are no numbers are seen."""
    spec, attention = SPANS["distances"], asked(radius=2)
    offsets, visible = torch.tensor([0, 9], dtype=torch.int32), torch.tensor([4], dtype=torch.int32)
    query, key, value = (x.cpu().clone() for x in drawn(attention, 9, torch.float32))
    query[1] = float("nan")
    within = reach(spec, 9, torch.device("cpu"))
    found = plain(query, key, value, offsets, visible, within, None, None, attention)
    assert (found[6:] == 0).all()
    assert found[1].isnan().all()
    assert found[[0, 2, 3, 4, 5]].isfinite().all()


def test_blocks() -> None:
    offsets, _ = packed((3, 4, 9, 1))
    blocks = query_blocks(offsets, 17, 4).tolist()
    assert blocks[:6] == [[0, 0], [1, 3], [2, 7], [2, 11], [2, 15], [3, 16]]
    assert len(blocks) == 17 // 4 + 4
    assert all(first == 1 << 30 for _, first in blocks[6:])


@pytest.mark.parametrize("spec", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize("longest", [1, 17, 500])
def test_reach(spec: Disentangled, longest: int) -> None:
    """The table's rows by distance, cut where nothing changes any more."""
    found = reach(spec, longest, torch.device("cpu"))
    assert found.longest >= longest
    far = found.far
    assert (found.places.numpy() == relative_indices(spec, far)).all()
    beyond = relative_indices(spec, found.longest - 1)
    assert (beyond[: found.longest - far] == beyond[0]).all()
    assert (beyond[found.longest - 1 + far :] == beyond[-1]).all()
