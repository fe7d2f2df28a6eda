"""The types can say every family and every read we mean to serve, and engines refuse by name what they do not run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onepass.engines.batch import Engine, Output, PackedBatch, Read
from onepass.engines.native import Native
from onepass.engines.reference import Reference
from onepass.errors import UnsupportedOption
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, Pool, PoolKind, Vocabulary
from onepass.model.spec import (
    AttentionSpec,
    BottleneckSpec,
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


def attention(heads: int, size: int, **more: object) -> AttentionSpec:
    return replace(AttentionSpec(heads, size, scale=size**-0.5, kv_heads=heads), **more)  # type: ignore[arg-type]


def bert() -> EncoderSpec:
    norm = NormSpec("layer", 1e-12)
    layer = LayerSpec(0, "post", norm, attention(12, 64), FeedForwardSpec("plain", 3072, "gelu"))
    embed = EmbedSpec(30522, 768, norm, PositionSpec("arange", 0, 512), types=2)
    return EncoderSpec(768, embed, tuple(replace(layer, weights=i) for i in range(12)), max_tokens=512)


def modernbert() -> EncoderSpec:
    norm = NormSpec("layer", 1e-5)
    feed_forward = FeedForwardSpec("gated", 1152, "gelu")
    glob = LayerSpec(0, "pre", norm, attention(12, 64, rope=0), feed_forward)
    local = replace(glob, attention=attention(12, 64, rope=1, radius=64))
    layers = tuple(replace(local if i % 3 else glob, weights=i, first_norm=i > 0) for i in range(22))
    ropes = (RopeSpec(64, 160_000.0), RopeSpec(64, 10_000.0))
    return EncoderSpec(768, EmbedSpec(50368, 768, norm), layers, ropes, final_norm=norm, max_tokens=8192)


def deberta_v3() -> EncoderSpec:
    norm = NormSpec("layer", 1e-7)
    layer = LayerSpec(
        0, "post", norm, attention(12, 64, scale=(64 * 3) ** -0.5), FeedForwardSpec("plain", 3072, "gelu")
    )
    relative = Disentangled(256, 512, 256, content_to_position=True, position_to_content=True, norm=norm)
    layers = tuple(replace(layer, weights=i) for i in range(12))
    return EncoderSpec(768, EmbedSpec(128100, 768, norm), layers, relative=relative)


def mobilebert() -> EncoderSpec:
    norm = NormSpec("affine", 1e-12)
    layer = LayerSpec(
        0,
        "bottleneck",
        norm,
        attention(4, 32),
        FeedForwardSpec("plain", 512, "relu", chain=4),
        bottleneck=BottleneckSpec(128, "query_key"),
    )
    embed = EmbedSpec(30522, 128, norm, PositionSpec("arange", 0, 512), types=2, ngram=3, project="word")
    return EncoderSpec(512, embed, tuple(replace(layer, weights=i) for i in range(24)), max_tokens=512)


def t5() -> EncoderSpec:
    norm = NormSpec("rms", 1e-6)
    layer = LayerSpec(0, "pre", norm, attention(12, 64, scale=1.0), FeedForwardSpec("gated", 2048, "gelu_tanh"))
    layers = tuple(replace(layer, weights=i) for i in range(12))
    return EncoderSpec(768, EmbedSpec(32128, 768, None), layers, relative=T5Buckets(32, 128), final_norm=norm)


def qwen3() -> EncoderSpec:
    norm = NormSpec("rms", 1e-6)
    grouped = attention(16, 128, kv_heads=8, causal=True, rope=0, qk_norm="head")
    layer = LayerSpec(0, "pre", norm, grouped, FeedForwardSpec("gated", 3072, "silu"))
    layers = tuple(replace(layer, weights=i) for i in range(28))
    return EncoderSpec(1024, EmbedSpec(151669, 1024, None), layers, (RopeSpec(128, 1e6),), final_norm=norm)


SPECS = {spec.__name__: spec for spec in (bert, modernbert, deberta_v3, mobilebert, t5, qwen3)}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_is_a_value_that_prints_as_json(name: str) -> None:
    spec = SPECS[name]()
    assert spec == SPECS[name]()
    assert hash(spec) == hash(SPECS[name]())
    assert spec != replace(spec, width=spec.width + 1)
    plain = json.loads(spec.as_json())
    assert plain["width"] == spec.width
    assert len(plain["layers"]) == len(spec.layers)
    with pytest.raises(AttributeError):
        spec.width = 1  # type: ignore[misc]


def with_layers(spec: EncoderSpec, **changes: object) -> EncoderSpec:
    return replace(spec, layers=tuple(replace(layer, **changes) for layer in spec.layers))  # type: ignore[arg-type]


MEANINGLESS = {
    "embed.ngram=3 with embed.project=after": replace(mobilebert(), embed=replace(mobilebert().embed, project="after")),
    "layer.place=post with layer.bottleneck=BottleneckSpec": with_layers(mobilebert(), place="post"),
    "layer.place=bottleneck with layer.bottleneck=None": with_layers(bert(), place="bottleneck"),
    "attention.heads=12 with attention.kv_heads=5": with_layers(bert(), attention=attention(12, 64, kv_heads=5)),
    "attention.rope=0 with 0 ropes": replace(qwen3(), ropes=()),
    "rope.size=130 with attention.head_size=128": replace(qwen3(), ropes=(RopeSpec(130, 1e6),)),
    "ropes.0, which no layer names": replace(bert(), ropes=(RopeSpec(64, 1e4),)),
    "rope.scaling=linear with options none": replace(qwen3(), ropes=(RopeSpec(128, 1e6, "linear"),)),
    "rope.size=128 with 3 numbers of short_factor": replace(
        qwen3(), ropes=(RopeSpec(128, 1e6, "longrope", options=(("short_factor", (1.0, 2.0, 3.0)),)),)
    ),
    "relative.buckets=2 with relative.max_distance=128": replace(t5(), relative=T5Buckets(2, 128)),
    "relative.max_distance=512 with relative.span=256 and no buckets": replace(
        deberta_v3(), relative=Disentangled(256, 512, 0, content_to_position=True, position_to_content=True)
    ),
    "different layers over the same layer.weights": replace(
        bert(), layers=(bert().layers[0], replace(bert().layers[0], norm=NormSpec("layer", 1e-5)))
    ),
    "feed_forward.kind=plain with 4 experts, top 2": with_layers(
        bert(), feed_forward=FeedForwardSpec("plain", 64, "gelu", experts=4, top=2)
    ),
    "feed_forward.kind=experts with 4 experts, top 5": with_layers(
        bert(), feed_forward=FeedForwardSpec("experts", 64, "gelu", experts=4, top=5)
    ),
    "feed_forward.chain=4 with layer.place=pre": with_layers(mobilebert(), place="pre", bottleneck=None),
}


@pytest.mark.parametrize("refused", MEANINGLESS)
@pytest.mark.parametrize("engine", [Reference, Native])
def test_engines_refuse_options_that_say_nothing_beside_each_other(engine: type[Engine], refused: str) -> None:
    with pytest.raises(UnsupportedOption, match=refused):
        engine(MEANINGLESS[refused], {}, {})  # type: ignore[call-arg]


def test_engines_refuse_by_name_what_they_do_not_run() -> None:
    convolving = with_layers(bert(), attention=attention(12, 64, conv_kernel=9))
    with pytest.raises(UnsupportedOption, match=r"the reference engine does not run attention\.conv_kernel; serve"):
        Reference(convolving, {}, {})


def test_bert_layers_are_told_apart_only_by_their_weights() -> None:
    assert {replace(layer, weights=0) for layer in bert().layers} == {bert().layers[0]}


NORM = Norm(NormSpec("layer", 1e-12), "h.norm.weight", "h.norm.bias")
TRANSFORM = (Linear("h.0.weight", "h.0.bias"), Activation("gelu"), NORM)

HEADS = {
    "splade": HeadSpec(
        "splade", Pool(("max",)), per_token=(*TRANSFORM, Vocabulary(bias="h.bias"), Activation("relu_log1p"))
    ),
    "colbert": HeadSpec("colbert", Pool(("tokens",)), per_token=(Linear("h.weight"), L2())),
    "answer": HeadSpec("answer", Pool(("tokens",)), per_token=(Linear("h.weight", "h.bias"),), labels=("start", "end")),
    "m3_dense": HeadSpec("m3_dense", Pool(("first",)), finish="l2"),
    "m3_lexical": HeadSpec(
        "m3_lexical", Pool(("max_by_token",)), per_token=(Linear("s.weight", "s.bias"), Activation("relu"))
    ),
    "m3_colbert": HeadSpec("m3_colbert", Pool(("tokens",)), per_token=(Linear("c.weight", "c.bias"), L2())),
    "label_words": HeadSpec(
        "label_words", Pool(("last_not_pad",), pad_id=0), per_row=(Vocabulary(),), finish="softmax"
    ),
}


def test_one_call_carries_every_kind_of_read() -> None:
    rows = np.array([0, 1], np.int32)
    batch = PackedBatch(
        ids=np.array([101, 5, 102, 101, 6, 7, 103, 103], np.int32),
        types=np.zeros(8, np.int32),
        offsets=np.array([0, 3, 8], np.int32),
        visible=np.array([3, 3], np.int32),  # ColBERT's expansion tokens ask but are not seen
    )
    reads = [
        Read("splade", rows),
        Read("colbert", rows),
        Read("answer", rows[1:]),
        Read("m3_dense", rows),
        Read("m3_lexical", rows),
        Read("m3_colbert", rows, positions=np.array([1, 1, 2], np.int32), offsets=np.array([0, 1, 3], np.int32)),
        Read("label_words", rows, vocabulary=np.array([2748, 2053], np.int32)),
        Read("spans", rows, spans=np.array([[0, 1], [1, 2]], np.int32), offsets=np.array([0, 1, 2], np.int32)),
    ]
    assert batch.rows == 2
    assert batch.tokens == 8
    assert {read.head for read in reads} - {"spans"} == set(HEADS)
    late_chunks = HeadSpec("spans", Pool(("spans",)), finish="l2")
    assert hash(late_chunks) != hash(replace(late_chunks, finish="none"))


@pytest.mark.parametrize("kinds", [("tokens", "mean"), ("max_by_token", "first"), ("spans", "spans")])
def test_poolings_of_many_rows_stand_alone(kinds: tuple[PoolKind, ...]) -> None:
    with pytest.raises(UnsupportedOption, match=f"head pooling {kinds[0]} beside another"):
        Reference(bert(), {"h": HeadSpec("h", Pool(kinds))}, {})


def test_an_output_is_cut_by_its_offsets() -> None:
    output = Output(np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 6], np.int32))
    assert output.row(0).tolist() == [[0, 1]]
    assert output.row(1).shape == (5, 2)
