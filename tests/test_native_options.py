"""Every option of a spec in the native engine: the reference's numbers, and a row's own bits in any company."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import NORM, batch_of, double, draw, read_all, row_of, worst

from onepass.engines.batch import Floats, PackedBatch, Read
from onepass.engines.native import Native, instruction_sets
from onepass.engines.reference import Reference
from onepass.model.heads import HeadSpec, Pool
from onepass.model.spec import (
    Alibi,
    AttentionSpec,
    BottleneckSpec,
    ConvSpec,
    Disentangled,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
    RopeSpec,
    T5Buckets,
)

ISAS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(obstacle), reason=f"{name}: {obstacle}"))
    for name, obstacle in instruction_sets().items()
]
HEADS = {"mean": HeadSpec("mean", Pool(("mean",))), "tokens": HeadSpec("tokens", Pool(("tokens",)))}
LENGTHS = [1, 2, 3, 17, 64, 5, 130, 33]
VISIBLE = [1, 1, 3, 9, 64, 5, 100, 33]
RMS, RMS1, AFFINE = NormSpec("rms", 1e-6), NormSpec("rms1", 1e-6), NormSpec("affine", 0.0)
POSITIONS = PositionSpec("arange", 0, 200)
EMBED = EmbedSpec(100, 64, NORM, POSITIONS, types=2)
ATTENTION = AttentionSpec(4, 16, 0.25, 4)
PLAIN = FeedForwardSpec("plain", 96, "gelu")
GATED = FeedForwardSpec("gated", 90, "silu")
EXPERTS = FeedForwardSpec("experts", 40, "gelu", experts=5, top=2)
LAYER = LayerSpec(0, "post", NORM, ATTENTION, PLAIN)
PRE = replace(LAYER, place="pre")
NARROW = replace(ATTENTION, heads=2, kv_heads=2, head_size=12)
ROPE = RopeSpec(16, 10_000.0)


def encoder(*layers: LayerSpec, embed: EmbedSpec = EMBED, **more: Any) -> EncoderSpec:
    """Two layers of one kind, or those given, each with its own weights."""
    every = layers if len(layers) > 1 else layers * 2
    return EncoderSpec(64, embed, tuple(replace(layer, weights=i) for i, layer in enumerate(every)), **more)


def attending(**options: Any) -> EncoderSpec:
    return encoder(replace(LAYER, attention=replace(ATTENTION, **options)))


def roped(scaling: Any = "none", size: int = 16, times: float = 1.0, **options: Any) -> EncoderSpec:
    rope = RopeSpec(size, 500.0, scaling, times, tuple(options.items()))
    return encoder(replace(PRE, attention=replace(ATTENTION, rope=0)), ropes=(rope,))


def bottleneck(shares: Any, **more: Any) -> EncoderSpec:
    feed_forward = replace(PLAIN, width=50, activation="relu", chain=3)
    narrow = BottleneckSpec(24, shares)
    return encoder(
        replace(LAYER, place="bottleneck", attention=NARROW, feed_forward=feed_forward, bottleneck=narrow, **more)
    )


def deberta(
    c2p: bool = True, p2c: bool = True, span: int = 8, buckets: int = 8, far: int = 40, **more: Any
) -> EncoderSpec:
    return encoder(LAYER, relative=Disentangled(span, far, buckets, c2p, p2c, NORM), **more)


# `HYPOTHESIS_PROFILE=deep` draws batches as large as a server's.
DEEP = settings().max_examples > 100
EXAMPLES = 300 if DEEP else 8
LONGEST, MOST_ROWS, LARGEST = (8192, 4096, 2**27) if DEEP else (500, 40, 2**20)

OLD = 20  # tokens that a scaled rotary table was trained on
SPECS: dict[str, EncoderSpec] = {
    "a table of tasks": encoder(LAYER, embed=replace(EMBED, tasks=3)),
    "sinusoids": encoder(LAYER, embed=replace(EMBED, positions=PositionSpec("after_pad", 1, 200, sinusoid=True))),
    "embedding widened at once": encoder(LAYER, embed=replace(EMBED, width=40, project="word")),
    "embedding widened before its norm": encoder(LAYER, embed=replace(EMBED, width=40, project="sum")),
    "embedding widened after its norm": encoder(LAYER, embed=replace(EMBED, width=40, project="after", scale=3.0)),
    "trigrams": encoder(LAYER, embed=replace(EMBED, width=20, project="word", ngram=3)),
    "no positions, types or norm": encoder(LAYER, embed=EmbedSpec(100, 64, None)),
    "norm of the embedding: rms": encoder(LAYER, embed=replace(EMBED, norm=RMS)),
    "norms rms": encoder(replace(LAYER, norm=RMS), final_norm=RMS),
    "norms rms1": encoder(replace(LAYER, norm=RMS1), final_norm=RMS1),
    "norms affine": encoder(replace(LAYER, norm=AFFINE)),
    "norms differ by layer": encoder(LAYER, replace(PRE, norm=RMS), replace(LAYER, norm=NormSpec("layer", 1e-2))),
    "norm before": encoder(PRE, final_norm=NORM),
    "norm before, not in the first layer": encoder(replace(PRE, first_norm=False), PRE, final_norm=NORM),
    "norm after, without the first": encoder(replace(LAYER, first_norm=False)),
    "sandwich": encoder(replace(LAYER, place="sandwich", norm=RMS1, feed_forward=GATED), final_norm=RMS1),
    "bottleneck shared by all": bottleneck("all"),
    "bottleneck shared by queries and keys": bottleneck("query_key", norm=AFFINE),
    "bottleneck not shared": bottleneck("none"),
    "bottleneck with norms of queries and keys": encoder(
        replace(bottleneck("query_key").layers[0], attention=replace(NARROW, qk_norm="head", rope=0)),
        ropes=(replace(ROPE, size=8),),
    ),
    "chain after a norm": encoder(replace(LAYER, feed_forward=replace(PLAIN, chain=2))),
    "weights shared by layers": EncoderSpec(64, EMBED, (LAYER, replace(LAYER, weights=1), LAYER, LAYER)),
    "layers of different heads": encoder(LAYER, replace(PRE, attention=NARROW), LAYER),
    "two queries to a key": attending(kv_heads=2),
    "one key for all queries, heads of 24": attending(kv_heads=1, head_size=24),
    "a scale of one": attending(scale=1.0, head_size=7),
    "causal": attending(causal=True),
    "causal, one key for all": encoder(replace(PRE, attention=replace(ATTENTION, causal=True, kv_heads=1))),
    "windows": attending(radius=9),
    "a window of one": attending(radius=0),
    "causal windows": attending(causal=True, radius=20),
    "windows in some layers": encoder(LAYER, replace(LAYER, attention=replace(ATTENTION, radius=4)), LAYER),
    "softcap": attending(softcap=1.5),
    "norm of each query and key": encoder(
        replace(PRE, norm=RMS, attention=replace(ATTENTION, kv_heads=2, qk_norm="head", rope=0)), ropes=(ROPE,)
    ),
    "norm of all queries and keys": attending(qk_norm="flat", kv_heads=2),
    "rotary": roped(),
    "rotary in part of a head": roped(size=6),
    "rotary, two bases by layer": encoder(
        *(replace(PRE, attention=replace(ATTENTION, rope=rope)) for rope in (0, 1, 0)),
        ropes=(ROPE, replace(ROPE, theta=30.0, size=8)),
    ),
    "rotary linear": roped("linear", factor=4.0),
    "rotary longrope": roped(
        "longrope",
        times=1.2,
        short_factor=(1.0,) * 8,
        long_factor=(1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
        original_max_position_embeddings=OLD,
    ),
    "rotary dynamic": roped("dynamic", factor=2.0, trained=OLD),
    "distances in buckets": encoder(PRE, relative=T5Buckets(8, 20)),
    "distances in buckets by layer": encoder(PRE, relative=T5Buckets(32, 128, per_layer=True)),
    "distances in buckets, windows": encoder(
        replace(LAYER, attention=replace(ATTENTION, radius=7)), relative=T5Buckets(8, 20)
    ),
    "ALiBi": encoder(LAYER, relative=Alibi()),
    "ALiBi with 3 heads": encoder(replace(LAYER, attention=replace(ATTENTION, heads=3, kv_heads=3)), relative=Alibi()),
    "disentangled": deberta(),
    "disentangled by content alone": deberta(p2c=False),
    "disentangled by position alone": deberta(c2p=False),
    "disentangled, plain distances": deberta(span=150, buckets=0, far=150),
    "disentangled, few distances": deberta(span=5, buckets=0, far=5),
    "disentangled, heads of 20, causal": encoder(
        replace(LAYER, attention=replace(ATTENTION, head_size=20, causal=True, radius=50)),
        relative=Disentangled(8, 40, 8, True, True),
    ),
    "convolution": replace(deberta(), conv=ConvSpec(3, 1, "tanh", NORM)),
    "grouped convolution over 5": encoder(LAYER, conv=ConvSpec(5, 4, "gelu", NORM)),
    "gated": encoder(replace(LAYER, feed_forward=GATED)),
    "gated before, gelu": encoder(replace(PRE, feed_forward=replace(GATED, activation="gelu", width=33))),
    "experts": encoder(LAYER, replace(LAYER, feed_forward=EXPERTS)),
    "experts before, all of them": encoder(replace(PRE, feed_forward=replace(EXPERTS, top=5))),
    "experts in a sandwich": encoder(replace(LAYER, place="sandwich", feed_forward=EXPERTS)),
    "no layers but a final norm": replace(encoder(LAYER), layers=(), final_norm=RMS),
}  # fmt: skip
specs = pytest.mark.parametrize("name", SPECS)
isas = pytest.mark.parametrize("isa", ISAS)


@cache
def weights_of(name: str) -> dict[str, Floats]:
    """Queries are halved: softmaxes so sharp that they magnify rounding would test nothing else."""
    weights = draw(SPECS[name], biases="rms" not in name)
    for tensor in weights:
        if ".query." in tensor:
            weights[tensor] *= np.float32(0.5)
        if "norm" in tensor and tensor.endswith(".weight"):
            if SPECS[name].layers and SPECS[name].layers[0].norm.kind == "rms1":
                weights[tensor] -= 1
            if "affine" in name:
                weights[tensor] *= np.float32(0.5)
    return weights


@cache
def expected(name: str) -> tuple[PackedBatch, list[Read], list[Floats]]:
    batch = batch_of(LENGTHS, visible=VISIBLE)
    reads = [read_all(batch, head) for head in HEADS]
    outputs = Reference(SPECS[name], HEADS, double(weights_of(name))).run(batch, reads)
    return batch, reads, [output.values for output in outputs]


@isas
@specs
def test_float32_agrees_with_the_reference(name: str, isa: str) -> None:
    batch, reads, values = expected(name)
    engine = Native(SPECS[name], HEADS, weights_of(name), isa=isa)
    for cores in (1, 2):
        for output, wanted in zip(engine.run(batch, reads, cores), values, strict=True):
            assert worst(output.values, wanted) < 1e-5


@isas
@specs
def test_bfloat16_is_near_the_reference(name: str, isa: str) -> None:
    batch, reads, values = expected(name)
    engine = Native(SPECS[name], HEADS, weights_of(name), "bfloat16", isa=isa)
    ours, wanted = engine.run(batch, reads)[0].values, values[0]
    cosines = (ours * wanted).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(wanted, axis=1)
    # rounding may make the router choose another expert
    assert cosines.min() > (0.99 if "experts" in name else 0.999), cosines


@isas
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@specs
def test_a_row_is_the_same_bits_in_any_company(name: str, dtype: str, isa: str) -> None:
    batch, reads, _ = expected(name)
    engine = Native(SPECS[name], HEADS, weights_of(name), dtype, isa=isa)
    together = engine.run(batch, reads, 1)
    for a, b in zip(engine.run(batch, reads, 3), together, strict=True):
        assert np.array_equal(a.values, b.values)
    for row in range(batch.rows):
        lone = row_of(batch, row)
        for a, b in zip(engine.run(lone, [read_all(lone, head) for head in HEADS]), together, strict=True):
            assert np.array_equal(a.values, b.row(row))


DRAWN = ["windows in some layers", "disentangled", "rotary dynamic", "bottleneck shared by all", "experts"]
LENGTHS_DRAWN = st.lists(st.integers(1, 20) | st.integers(1, LONGEST), min_size=1, max_size=MOST_ROWS).filter(
    lambda lengths: sum(length**2 for length in lengths) <= LARGEST
)


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=EXAMPLES)
@given(lengths=LENGTHS_DRAWN, cores=st.integers(1, 4), dtype=st.sampled_from(["float32", "bfloat16"]), data=st.data())
def test_any_batch_comes_out_whole(name: str, lengths: list[int], cores: int, dtype: str, data: st.DataObject) -> None:
    engine = fuzzed(name, dtype)
    visible = [data.draw(st.integers(1, length)) if length < 50 else length for length in lengths[:20]]
    batch = batch_of(lengths, visible=visible + lengths[20:])
    mean, tokens = engine.run(batch, [read_all(batch, head) for head in HEADS], cores)
    assert mean.values.shape == (len(lengths), 64)
    assert tokens.values.shape == (sum(lengths), 64)
    assert np.all(np.isfinite(tokens.values))
    row = data.draw(st.integers(0, len(lengths) - 1))
    lone = row_of(batch, row)
    assert np.array_equal(engine.run(lone, [read_all(lone, "mean")])[0].values[0], mean.values[row])


@cache
def fuzzed(name: str, dtype: str) -> Native:
    """With positions enough for the longest row."""
    spec = SPECS[name]
    spec = replace(spec, embed=replace(spec.embed, positions=replace(POSITIONS, rows=LONGEST)))
    return Native(spec, HEADS, draw(spec), dtype)
