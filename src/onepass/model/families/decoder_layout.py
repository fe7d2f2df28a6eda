"""The layout that decoders share (Llama, Touvron et al. 2023), read as encoders: one pass, every token's state kept.

Names of tensors, the sizes that their configs have in common, and heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families.bert_layout import MOST_LAYERS
from onepass.model.families.family import (
    Head,
    HeadReader,
    Tensors,
    answerer,
    linears,
    predictor,
    refuse_foreign,
    tagger,
)
from onepass.model.heads import HeadSpec, Pool
from onepass.model.spec import (
    ActivationKind,
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    RopeSpec,
)

PREFIXES = ("model.", "transformer.")

TENSORS: Tensors = {
    "embed.word": "embed_tokens.weight",
    "layers.{}.norm1.weight": "layers.{}.input_layernorm.weight",
    "layers.{}.attention.query.?": "layers.{}.self_attn.q_proj.?",
    "layers.{}.attention.key.?": "layers.{}.self_attn.k_proj.?",
    "layers.{}.attention.value.?": "layers.{}.self_attn.v_proj.?",
    "layers.{}.attention.output.?": "layers.{}.self_attn.o_proj.?",
    "layers.{}.attention.query_norm.weight": "layers.{}.self_attn.q_norm.weight",
    "layers.{}.attention.key_norm.weight": "layers.{}.self_attn.k_norm.weight",
    "layers.{}.norm2.weight": "layers.{}.post_attention_layernorm.weight",
    "layers.{}.ff.gate.?": "layers.{}.mlp.gate_proj.?",
    "layers.{}.ff.up.?": "layers.{}.mlp.up_proj.?",
    "layers.{}.ff.down.?": "layers.{}.mlp.down_proj.?",
    "final_norm.weight": "norm.weight",
}

LM_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of one model; as defaults, those of a family's configuration class.

    kv_heads 0: as many as heads.  head_size 0: width / heads.  positions: max_position_embeddings.
    """

    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    positions: int
    kv_heads: int = 0
    head_size: int = 0
    eps: float = 1e-6


def read_sizes(config: Config, default: Sizes) -> Sizes:
    """Raises BadCheckpoint for sizes that cannot be."""
    width = config.integer("hidden_size", default.width, least=1)
    heads = config.integer("num_attention_heads", default.heads, least=1)
    kv_heads = config.integer("num_key_value_heads", default.kv_heads or heads, least=1)
    if config.is_null("num_key_value_heads"):
        kv_heads = heads
    if heads % kv_heads:
        raise BadCheckpoint(f"{config.source} divides {heads} heads among {kv_heads} key heads; that leaves a rest")
    return Sizes(
        vocab=config.integer("vocab_size", default.vocab, least=1),
        width=width,
        inner=config.integer("intermediate_size", default.inner, least=1),
        layers=config.integer("num_hidden_layers", default.layers, least=1, most=MOST_LAYERS),
        heads=heads,
        positions=config.integer("max_position_embeddings", default.positions, least=1),
        kv_heads=kv_heads,
        head_size=config.integer("head_dim", default.head_size or width // heads, least=1),
        eps=config.number("rms_norm_eps", default.eps),
    )


def attention(sizes: Sizes, *, causal: bool, scale: float | None = None) -> AttentionSpec:
    """Grouped heads with rotary positions; scale None: 1 / sqrt(head_size)."""
    usual = 1 / math.sqrt(sizes.head_size)
    return AttentionSpec(
        sizes.heads, sizes.head_size, usual if scale is None else scale, sizes.kv_heads, causal=causal, rope=0
    )


def stack(
    sizes: Sizes,
    attentions: Sequence[AttentionSpec],
    *ropes: RopeSpec,
    activation: ActivationKind,
    norm: Literal["rms", "rms1"] = "rms",
    place: Literal["pre", "sandwich"] = "pre",
    scale: float = 1.0,
) -> EncoderSpec:
    """Layers that differ in their attention only, with gated feed-forwards.  scale: of the word vectors."""
    norm_spec = NormSpec(norm, sizes.eps)
    feed_forward = FeedForwardSpec("gated", sizes.inner, activation)
    return EncoderSpec(
        width=sizes.width,
        embed=EmbedSpec(sizes.vocab, sizes.width, norm=None, scale=scale),
        layers=tuple(LayerSpec(i, place, norm_spec, each, feed_forward) for i, each in enumerate(attentions)),
        ropes=ropes,
        final_norm=norm_spec,
        max_tokens=sizes.positions,
    )


def refuse(config: Config, *, own_code: bool = False) -> None:
    refuse_foreign(config, own_code=own_code)
    config.only("partial_rotary_factor", 1)


def read_causal(config: Config) -> bool:
    return config.flag("is_causal", True)


# Windows: which layers see how far.


def read_window(config: Config, default: int) -> int | None:
    """sliding_window, where null means none and a missing key the class's default."""
    return None if config.is_null("sliding_window") else config.integer("sliding_window", default, least=1)


def radius(window: int, causal: bool) -> int:
    """transformers counts the token itself in a causal window, and not in one that looks both ways."""
    return window - 1 if causal else window


def sliding_layers(config: Config, layers: int, otherwise: Callable[[int], bool]) -> list[bool]:
    """Whether each layer sees a window only: as layer_types says, else as `otherwise` says of the layer's index."""
    kinds = config.get("layer_types")
    if kinds is None:
        return [otherwise(index) for index in range(layers)]
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in known for kind in kinds):
        raise config.wrong("layer_types", f"a list of {layers} names, each {' or '.join(known)}")
    return [kind == "sliding_attention" for kind in kinds]


# Heads.


def scorer(pad: int | None = None) -> HeadReader:
    """ForSequenceClassification: `score` on the last token that is not the pad token.  pad: the class's default."""

    def read(config: Config) -> Head:
        pad_id = pad if config.get("pad_token_id") is None else config.integer("pad_token_id", 0)
        pool = Pool(("last",)) if pad_id is None or config.is_null("pad_token_id") else Pool(("last_not_pad",), pad_id)
        steps, tensors = linears("classify", (("score?", None),))
        return HeadSpec("classify", pool, per_row=steps), tensors

    return read


def heads(*, tied: bool = False, pad: int | None = None) -> dict[str, HeadReader]:
    """tied, pad: the class's defaults of tie_word_embeddings and pad_token_id."""
    return {
        "classify": scorer(pad),
        "tag": tagger(("score", None)),
        "answer": answerer(),
        "next": predictor(LM_HEAD, "embed_tokens.weight", tied=tied),
    }
