"""MobileBERT (Sun et al. 2020): a narrow block inside a wide one, several feed-forwards, norms without statistics."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import (
    Family,
    Head,
    Layer,
    Tensors,
    answerer,
    classifier,
    filler,
    refuse_foreign,
    tagger,
)
from onepass.model.families.recipes import Floats
from onepass.model.spec import (
    AttentionSpec,
    BottleneckSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
)
from onepass.model.weights import Made

AFFINE = NormSpec("affine", 0.0)
CHAIN = 4  # feed-forwards in a layer, where config.json says nothing


def _spec(config: Config) -> EncoderSpec:
    refuse_foreign(config)
    config.only("normalization_type", "no_norm")
    width = config.integer("hidden_size", 512, least=1)
    heads = config.integer("num_attention_heads", 4, least=1)
    bottleneck = _bottleneck(config)
    size = bert_layout.head_size(config, width if bottleneck is None else bottleneck.width, heads)
    embedding = config.integer("embedding_size", 128, least=1)
    trigram = config.flag("trigram_input", True)
    longest = config.integer("max_position_embeddings", 512, least=1)
    attention = AttentionSpec(heads, size, 1 / math.sqrt(size), heads)
    feed_forward = FeedForwardSpec(
        "plain",
        config.integer("intermediate_size", 512, least=1),
        config.activation("hidden_act", "relu"),
        chain=config.integer("num_feedforward_networks", CHAIN, least=1),
    )
    place: Literal["post", "bottleneck"] = "post" if bottleneck is None else "bottleneck"
    layers = config.integer("num_hidden_layers", 24, least=1, most=bert_layout.MOST_LAYERS)
    return EncoderSpec(
        width=width,
        embed=EmbedSpec(
            config.integer("vocab_size", 30522, least=1),
            embedding,
            AFFINE,
            PositionSpec("arange", 0, longest),
            types=config.integer("type_vocab_size", 2),
            ngram=3 if trigram else 1,
            project="word" if trigram or embedding != width else None,
        ),
        layers=tuple(
            LayerSpec(index, place, AFFINE, attention, feed_forward, bottleneck=bottleneck) for index in range(layers)
        ),
        max_tokens=longest,
    )


def _bottleneck(config: Config) -> BottleneckSpec | None:
    if not config.flag("use_bottleneck", True):
        return None
    width = config.integer("intra_bottleneck_size", 128, least=1)
    if config.flag("use_bottleneck_attention", False):
        return BottleneckSpec(width, "all")
    if config.flag("key_query_shared_bottleneck", True):
        return BottleneckSpec(width, "query_key")
    return BottleneckSpec(width, "none")


def _tensors(config: Config) -> Tensors:
    layer = "encoder.layer.{}"
    tensors = {**bert_layout.TENSORS, "embed.project.*": "embeddings.embedding_transformation.*"}
    for link in range(config.integer("num_feedforward_networks", CHAIN, least=1) - 1):
        tensors |= {
            f"layers.{{}}.chain.{link}.up.*": f"{layer}.ffn.{link}.intermediate.dense.*",
            f"layers.{{}}.chain.{link}.down.*": f"{layer}.ffn.{link}.output.dense.*",
            f"layers.{{}}.chain.{link}.norm.*": f"{layer}.ffn.{link}.output.LayerNorm.*",
        }
    for ours, theirs in (
        ("input", "bottleneck.input"),
        ("shared", "bottleneck.attention"),
        ("output", "output.bottleneck"),
    ):
        tensors |= {
            f"layers.{{}}.bottleneck.{ours}.*": f"{layer}.{theirs}.dense.*",
            f"layers.{{}}.bottleneck.{ours}_norm.*": f"{layer}.{theirs}.LayerNorm.*",
        }
    return tensors


def _classify(config: Config) -> Head:
    pooler: tuple[Layer, ...] = (("pooler.dense", "tanh"),) if config.flag("classifier_activation", True) else ()
    return classifier(*pooler, ("classifier", None))(config)


def _fill(config: Config) -> Head:
    """Its last norm is one, and the word table is filled up to the model's width by a matrix of the head's own."""
    head = "cls.predictions"
    config.only("tie_word_embeddings", True)
    return filler(
        f"{head}.transform.dense",
        f"{head}.transform.LayerNorm",
        f"{head}.bias",
        f"{head}.decoder.bias",
        activation=config.activation("hidden_act", "relu"),
        matrix=Made((bert_layout.EMBEDDINGS["embed.word"], f"{head}.dense.weight"), _side_by_side),
    )(config)


def _side_by_side(spec: EncoderSpec, words: Floats, rest: Floats) -> Floats:
    return np.concatenate([words, rest.T], axis=1)


MOBILEBERT = Family(
    "mobilebert",
    _spec,
    prefixes=("mobilebert.",),
    tensors=_tensors,
    pad_id=0,
    types=True,
    heads={"classify": _classify, "tag": tagger(), "answer": answerer(), "fill": _fill},
    # of options that are off
    unread=(".bottleneck.attention.", "embeddings.embedding_transformation."),
)
