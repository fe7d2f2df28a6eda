"""The layout that BERT's kin share: names of tensors, and a spec from the keys that their configs have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families.family import filler, refuse_foreign
from onepass.model.spec import (
    ActivationKind,
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
    RopeSpec,
)

MOST_LAYERS = 1000  # a spec is built before the file is read, and must not be built without end

EMBEDDINGS: Mapping[str, str] = {
    "embed.word": "embeddings.word_embeddings.weight",
    "embed.position": "embeddings.position_embeddings.weight",
    "embed.type": "embeddings.token_type_embeddings.weight",
    "embed.norm.*": "embeddings.LayerNorm.*",
}

AFTER_ATTENTION: Mapping[str, str] = {
    "layers.{}.attention.output.*": "encoder.layer.{}.attention.output.dense.*",
    "layers.{}.norm1.*": "encoder.layer.{}.attention.output.LayerNorm.*",
    "layers.{}.ff.up.*": "encoder.layer.{}.intermediate.dense.*",
    "layers.{}.ff.down.*": "encoder.layer.{}.output.dense.*",
    "layers.{}.norm2.*": "encoder.layer.{}.output.LayerNorm.*",
}

TENSORS: Mapping[str, str] = {
    **EMBEDDINGS,
    "embed.project.*": "embeddings_project.*",
    "layers.{}.attention.query.*": "encoder.layer.{}.attention.self.query.*",
    "layers.{}.attention.key.*": "encoder.layer.{}.attention.self.key.*",
    "layers.{}.attention.value.*": "encoder.layer.{}.attention.self.value.*",
    **AFTER_ATTENTION,
}

FILL = filler(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    # untied, a file has both, and this one is added
    "cls.predictions.decoder.bias",
    "cls.predictions.bias",
    untied="cls.predictions.decoder.weight",
)


def read_spec(
    config: Config,
    rule: Literal["arange", "after_pad"],
    *,
    vocab: int = 30522,
    width: int = 768,
    heads: int = 12,
    layers: int = 12,
    inner: int = 3072,
    embedding: int | None = None,
    pad_id: int = 0,
    positions: int = 512,
    types: int | None = 2,
    activation: str = "gelu",
    eps: float = 1e-12,
) -> EncoderSpec:
    """The numbers are the class's defaults where config.json lacks a key.

    embedding None: as wide as the model.  types None: the family has no token types, whatever config.json says.
    """
    refuse_foreign(config)
    width = config.integer("hidden_size", width, least=1)
    embedding = width if embedding is None else config.integer("embedding_size", embedding, least=1)
    rows = config.integer("max_position_embeddings", positions, least=1)
    start = config.integer("pad_token_id", pad_id) if rule == "after_pad" else 0
    norm = NormSpec("layer", config.number("layer_norm_eps", eps))
    return post_norm_encoder(
        config,
        width=width,
        norm=norm,
        positions=PositionSpec(rule, start, rows),
        heads=config.integer("num_attention_heads", heads, least=1),
        layers=config.integer("num_hidden_layers", layers, least=1, most=MOST_LAYERS),
        inner=config.integer("intermediate_size", inner, least=1),
        activation=config.activation("hidden_act", activation),
        vocab=config.integer("vocab_size", vocab, least=1),
        types=0 if types is None else config.integer("type_vocab_size", types),
        embedding=embedding,
    )


def post_norm_encoder(
    config: Config,
    *,
    width: int,
    norm: NormSpec,
    positions: PositionSpec | None,
    heads: int,
    layers: int,
    inner: int,
    activation: ActivationKind,
    vocab: int,
    types: int,
    embedding: int,
    kind: Literal["plain", "gated"] = "plain",
    rope: RopeSpec | None = None,
    max_tokens: int | None = None,
) -> EncoderSpec:
    """Equal layers with full attention, one norm everywhere. Raises BadCheckpoint for sizes that cannot be.

    max_tokens: where there is no table of positions, which would say it.
    """
    if positions is not None and positions.usable < 1:
        raise BadCheckpoint(f"{config.source} sets max_position_embeddings to {positions.rows}, in which no token fits")
    size = head_size(config, width, heads)
    rotated = None if rope is None else 0
    attention = AttentionSpec(heads, size, scale=1 / math.sqrt(size), kv_heads=heads, rope=rotated)
    feed_forward = FeedForwardSpec(kind, inner, activation)
    return EncoderSpec(
        width=width,
        embed=EmbedSpec(vocab, embedding, norm, positions, types, project=None if embedding == width else "after"),
        layers=tuple(LayerSpec(index, "post", norm, attention, feed_forward) for index in range(layers)),
        ropes=() if rope is None else (rope,),
        max_tokens=max_tokens if positions is None else positions.usable,
    )


def head_size(config: Config, width: int, heads: int) -> int:
    if width % heads:
        raise BadCheckpoint(
            f"{config.source} divides a width of {width} among {heads} attention heads; that leaves a rest"
        )
    return width // heads
