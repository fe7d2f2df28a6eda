"""Random encoders without a checkpoint: specs, heads, weights and packed batches for tests of engines.

Matrices have standard deviation 2 / sqrt(fan-in), gains and biases are shifted by N(0, 0.3), so that mistakes show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats, PackedBatch, Read
from onepass.model.heads import HeadSpec, Pool
from onepass.model.spec import (
    ActivationKind,
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
)
from onepass.model.weights import shapes

MEAN = HeadSpec("mean", Pool(("mean",)))
NORM = NormSpec("layer", 1e-5)


@dataclass(frozen=True)
class Shape:
    """What differs between the random encoders."""

    heads: int = 4
    head_size: int = 16
    width: int = 64
    inner: int = 96
    layers: int = 2
    vocab: int = 100
    rows: int = 600
    embed_width: int = 0
    activation: ActivationKind = "gelu"
    after_pad: bool = False
    types: int = 2
    biases: bool = True
    norm: bool = True
    scale: float = 1.0
    shared: bool = False


@dataclass
class Model:
    spec: EncoderSpec
    weights: dict[str, Floats] = field(default_factory=dict)


def double(weights: Mapping[str, Floats]) -> Any:
    """The weights in float64: then the reference computes in it too, and rounding is the other engine's alone."""
    return {name: tensor.astype(np.float64) for name, tensor in weights.items()}


def spec_of(shape: Shape) -> EncoderSpec:
    positions = PositionSpec("after_pad", 1, shape.rows) if shape.after_pad else PositionSpec("arange", 0, shape.rows)
    embed = EmbedSpec(
        vocab=shape.vocab,
        width=shape.embed_width or shape.width,
        norm=NORM if shape.norm else None,
        positions=positions,
        types=shape.types,
        scale=shape.scale,
        project="after" if shape.embed_width else None,
    )
    attention = AttentionSpec(shape.heads, shape.head_size, shape.head_size**-0.5, shape.heads)
    feed_forward = FeedForwardSpec("plain", shape.inner, shape.activation)
    layers = tuple(
        LayerSpec(0 if shape.shared else index, "post", NORM, attention, feed_forward) for index in range(shape.layers)
    )
    return EncoderSpec(shape.width, embed, layers, max_tokens=positions.usable)


def draw(spec: EncoderSpec, seed: int = 0, biases: bool = True) -> dict[str, Floats]:
    """Every tensor that a trunk of `spec` can have."""
    rng = np.random.default_rng(seed)
    return {name: _tensor(rng, name, shape) for name, shape in shapes(spec).items() if biases or name[-5:] != ".bias"}


def _tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Floats:
    noise = rng.standard_normal(shape).astype(np.float32)
    if name.endswith(".bias"):
        return np.float32(0.3) * noise
    if "norm" in name:
        return 1 + np.float32(0.3) * noise
    if name.endswith(".weight"):
        return np.float32(2 / np.sqrt(np.prod(shape[1:]))) * noise
    return noise  # a table


def build(shape: Shape, seed: int = 0) -> Model:
    spec = spec_of(shape)
    return Model(spec, draw(spec, seed, shape.biases))


def batch_of(
    lengths: Sequence[int], vocab: int = 100, seed: int = 1, visible: Sequence[int] | None = None
) -> PackedBatch:
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths], dtype=np.int32)
    tokens = int(offsets[-1])
    return PackedBatch(
        rng.integers(0, vocab, tokens).astype(np.int32),
        rng.integers(0, 2, tokens).astype(np.int32),
        offsets,
        np.array(lengths if visible is None else visible, dtype=np.int32),
    )


def row_of(batch: PackedBatch, row: int) -> PackedBatch:
    """The row alone."""
    begin, end = batch.offsets[row], batch.offsets[row + 1]
    return PackedBatch(
        batch.ids[begin:end],
        batch.types[begin:end],
        np.array([0, end - begin], dtype=np.int32),
        batch.visible[row : row + 1],
    )


def read_all(batch: PackedBatch, head: str) -> Read:
    return Read(head, np.arange(batch.rows, dtype=np.int32))


def worst(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The largest difference of any row, relative to the largest number in that row of b."""
    assert a.shape == b.shape
    return float(np.max(np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1))) if len(b) else 0.0
