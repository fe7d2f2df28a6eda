"""DeBERTa (He et al. 2021), and DeBERTa v2, which v3 and mDeBERTa share: attention to content and to distance apart."""

from __future__ import annotations

import math
from dataclasses import replace

from onepass.errors import BadCheckpoint, UnsupportedOption
from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Head, Tensors, answerer, classifier, filler, refuse_foreign, tagger
from onepass.model.families.recipes import Floats
from onepass.model.spec import (
    AttentionSpec,
    ConvSpec,
    Disentangled,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
)
from onepass.model.weights import Made

EPS = 1e-7
WAYS = ("c2p", "p2c")


def _spec(config: Config) -> EncoderSpec:
    """DeBERTa v1."""
    config.only("talking_head", False)
    ways = _ways(config)
    return _read(
        config,
        shape=(768, 12, 12, 3072, 50265),
        terms=1 + len(ways),
        relative=_relative(config, ways, buckets=0),
    )


def _spec_v2(config: Config) -> EncoderSpec:
    ways = _ways(config)
    spec = _read(
        config,
        shape=(1536, 24, 24, 6144, 128100),
        terms=1 + len(set(ways)),
        relative=_relative(config, ways, buckets=max(config.integer("position_buckets", -1, least=-1), 0)),
    )
    config.only("attention_head_size", spec.layers[0].attention.head_size)
    normed = "layer_norm" in _split(config.text("norm_rel_ebd", "none"))
    if spec.relative is not None and normed:
        assert isinstance(spec.relative, Disentangled)
        spec = replace(spec, relative=replace(spec.relative, norm=_norm(config)))
    kernel = config.integer("conv_kernel_size", 0)
    if not kernel:
        return spec
    if kernel % 2 == 0:
        raise BadCheckpoint(f"config.json sets conv_kernel_size to {kernel}, but it must be odd to keep a row's length")
    conv = ConvSpec(
        kernel, config.integer("conv_groups", 1, least=1), config.activation("conv_act", "tanh"), _norm(config)
    )
    if spec.width % conv.groups:
        raise BadCheckpoint(
            f"config.json divides a width of {spec.width} into {conv.groups} conv_groups; a rest is left"
        )
    return replace(spec, conv=conv)


def _read(
    config: Config, *, shape: tuple[int, int, int, int, int], terms: int, relative: Disentangled | None
) -> EncoderSpec:
    """shape: defaults of width, layers, heads, feed-forward, vocabulary.  terms: of a score, which share its scale."""
    refuse_foreign(config)
    width = config.integer("hidden_size", shape[0], least=1)
    layers = config.integer("num_hidden_layers", shape[1], least=1, most=bert_layout.MOST_LAYERS)
    heads = config.integer("num_attention_heads", shape[2], least=1)
    size = bert_layout.head_size(config, width, heads)
    embedding = config.integer("embedding_size", width, least=1)
    longest = config.integer("max_position_embeddings", 512, least=1)
    positions = PositionSpec("arange", 0, longest) if config.flag("position_biased_input", True) else None
    attention = AttentionSpec(heads, size, 1 / math.sqrt(size * terms), heads)
    feed_forward = FeedForwardSpec(
        "plain", config.integer("intermediate_size", shape[3], least=1), config.activation("hidden_act", "gelu")
    )
    embed = EmbedSpec(
        config.integer("vocab_size", shape[4], least=1),
        embedding,
        _norm(config),
        positions,
        config.integer("type_vocab_size", 0),
        project=None if embedding == width else "sum",
    )
    return EncoderSpec(
        width=width,
        embed=embed,
        layers=tuple(LayerSpec(index, "post", _norm(config), attention, feed_forward) for index in range(layers)),
        relative=relative,
        max_tokens=None if positions is None else longest,
    )


def _relative(config: Config, ways: list[str], buckets: int) -> Disentangled | None:
    if not config.flag("relative_attention", False):
        return None
    farthest = config.integer("max_relative_positions", -1, least=-1)
    if farthest < 1:
        farthest = config.integer("max_position_embeddings", 512, least=1)
    return Disentangled(buckets or farthest, farthest, buckets, "c2p" in ways, "p2c" in ways)


def _ways(config: Config) -> list[str]:
    ways = config.get("pos_att_type") or []
    ways = _split(ways) if isinstance(ways, str) else ways
    if not isinstance(ways, list) or not all(way in WAYS for way in ways):
        raise UnsupportedOption(
            f"config.json sets pos_att_type to {ways!r}, of which only {' and '.join(WAYS)} are known"
        )
    return ways


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.lower().split("|")]


def _norm(config: Config) -> NormSpec:
    return NormSpec("layer", config.number("layer_norm_eps", EPS))


def _classify(config: Config) -> Head:
    activation = config.activation("pooler_hidden_act", "gelu")
    return classifier(("pooler.dense", activation), ("classifier", None))(config)


def _fill(config: Config) -> Head:
    eps = config.number("layer_norm_eps", EPS)
    if config.flag("legacy", True):
        dense, norm = "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"
        return filler(
            dense,
            norm,
            "cls.predictions.bias",
            "cls.predictions.decoder.bias",
            eps=eps,
            untied="cls.predictions.decoder.weight",
        )(config)
    head = "lm_predictions.lm_head"
    return filler(f"{head}.dense", f"{head}.LayerNorm", f"{head}.bias", eps=eps)(config)


HEADS = {"classify": _classify, "tag": tagger(), "answer": answerer(), "fill": _fill}


def _of_heads(file: str, index: int) -> Made:
    """The rows of queries (0), keys (1) or values (2) of v1's matrix, where each head has its three together."""

    def cut(spec: EncoderSpec, stacked: Floats) -> Floats:
        heads = spec.layers[0].attention.heads
        return stacked.reshape(heads, 3, -1, stacked.shape[1])[:, index].reshape(-1, stacked.shape[1])

    return Made((file,), cut)


SELF = "encoder.layer.{}.attention.self"
SHARED: Tensors = {
    **bert_layout.EMBEDDINGS,
    **bert_layout.AFTER_ATTENTION,
    "embed.project.weight": "embeddings.embed_proj.weight",
    "relative.table": "encoder.rel_embeddings.weight",
}


def _tensors_v2(config: Config) -> Tensors:
    shared = config.flag("share_att_key", False)
    return {
        **SHARED,
        **{f"layers.{{}}.attention.{name}.*": f"{SELF}.{name}_proj.*" for name in ("query", "key", "value")},
        "layers.{}.attention.position_key.*": f"{SELF}.{'key' if shared else 'pos_key'}_proj.*",
        "layers.{}.attention.position_query.*": f"{SELF}.{'query' if shared else 'pos_query'}_proj.*",
        "relative.norm.*": "encoder.LayerNorm.*",
        "conv.*": "encoder.conv.conv.*",
        "conv.norm.*": "encoder.conv.LayerNorm.*",
    }


UNREAD = ("embeddings.position_embeddings.",)  # which files have although position_biased_input is false

DEBERTA = Family(
    "deberta",
    _spec,
    prefixes=("deberta.",),
    tensors={
        **SHARED,
        "layers.{}.attention.query.weight": _of_heads(f"{SELF}.in_proj.weight", 0),
        "layers.{}.attention.query.bias": f"{SELF}.q_bias",
        "layers.{}.attention.key.weight": _of_heads(f"{SELF}.in_proj.weight", 1),
        "layers.{}.attention.value.weight": _of_heads(f"{SELF}.in_proj.weight", 2),
        "layers.{}.attention.value.bias": f"{SELF}.v_bias",
        "layers.{}.attention.position_key.weight": f"{SELF}.pos_proj.weight",
        "layers.{}.attention.position_query.*": f"{SELF}.pos_q_proj.*",
    },
    pad_id=0,
    types=True,
    heads=HEADS,
    unread=UNREAD,
)

DEBERTA_V2 = Family(
    "deberta-v2",
    _spec_v2,
    prefixes=("deberta.",),
    tensors=_tensors_v2,
    pad_id=0,
    types=True,
    heads=HEADS,
    unread=UNREAD,
)
