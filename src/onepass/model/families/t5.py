"""The encoders of T5 (Raffel et al. 2020), mT5 and UMT5: Sentence-T5, GTR, and the encoders of translation models.

Root-mean-square norms before, scores not scaled, a learned bias per bucket of distance: one table for all layers, in
UMT5 one for each.
"""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families.bert_layout import MOST_LAYERS
from onepass.model.families.family import Family, Tensors, refuse_foreign, tagger
from onepass.model.spec import (
    ActivationKind,
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    T5Buckets,
)
from onepass.model.weights import OneOf

NEEDS_DECODER = "it reads the decoder's states, and only the encoder runs here"


def _feed_forward(config: Config, default: str) -> tuple[bool, ActivationKind]:
    """Whether it is gated, and its activation. "gated-gelu" has always meant the tanh form, "gelu" the exact one."""
    name = config.text("feed_forward_proj", default)
    plain = "gelu_new" if name == "gated-gelu" else name.removeprefix("gated-")
    return name.startswith("gated-"), Config({"feed_forward_proj": plain}, config.source).activation(
        "feed_forward_proj", plain
    )


def _tensors(gated: bool) -> Tensors:
    block = "encoder.block.{}.layer"
    distance = f"{block}.0.SelfAttention.relative_attention_bias.weight"
    return {
        "embed.word": OneOf(("shared.weight", "encoder.embed_tokens.weight")),
        "layers.{}.norm1.weight": f"{block}.0.layer_norm.weight",
        "layers.{}.attention.query.weight": f"{block}.0.SelfAttention.q.weight",
        "layers.{}.attention.key.weight": f"{block}.0.SelfAttention.k.weight",
        "layers.{}.attention.value.weight": f"{block}.0.SelfAttention.v.weight",
        "layers.{}.attention.output.weight": f"{block}.0.SelfAttention.o.weight",
        "layers.{}.attention.distance": distance,
        "relative.distance": distance.replace("{}", "0"),
        "layers.{}.norm2.weight": f"{block}.1.layer_norm.weight",
        "layers.{}.ff.gate.weight": f"{block}.1.DenseReluDense.wi_0.weight",
        "layers.{}.ff.up.weight": f"{block}.1.DenseReluDense.{'wi_1' if gated else 'wi'}.weight",
        "layers.{}.ff.down.weight": f"{block}.1.DenseReluDense.wo.weight",
        "final_norm.weight": "encoder.final_layer_norm.weight",
    }


def _family(
    model_type: str,
    *,
    vocab: int,
    inner: int,
    layers: int,
    heads: int,
    feed_forward: str,
    per_layer: bool = False,
) -> Family:
    """The numbers are the class's defaults where config.json lacks a key."""

    def spec(config: Config) -> EncoderSpec:
        refuse_foreign(config)
        width = config.integer("d_model", 512, least=1)
        norm = NormSpec("rms", config.number("layer_norm_epsilon", 1e-6))
        count = config.integer("num_heads", heads, least=1)
        attention = AttentionSpec(count, config.integer("d_kv", 64, least=1), scale=1.0, kv_heads=count)
        gated, activation = _feed_forward(config, feed_forward)
        hidden = FeedForwardSpec("gated" if gated else "plain", config.integer("d_ff", inner, least=1), activation)
        return EncoderSpec(
            width=width,
            embed=EmbedSpec(config.integer("vocab_size", vocab, least=1), width, norm=None),
            layers=tuple(
                LayerSpec(index, "pre", norm, attention, hidden)
                for index in range(config.integer("num_layers", layers, least=1, most=MOST_LAYERS))
            ),
            relative=T5Buckets(
                config.integer("relative_attention_num_buckets", 32, least=4),
                config.integer("relative_attention_max_distance", 128, least=2),
                per_layer,
            ),
            final_norm=norm,
        )

    return Family(
        model_type,
        spec,
        prefixes=("transformer.",),
        tensors=lambda config: _tensors(_feed_forward(config, feed_forward)[0]),
        pad_id=0,
        types=False,
        heads={"classify": NEEDS_DECODER, "tag": tagger(), "answer": NEEDS_DECODER},
    )


T5 = _family("t5", vocab=32128, inner=2048, layers=6, heads=8, feed_forward="relu")
MT5 = _family("mt5", vocab=250112, inner=1024, layers=8, heads=6, feed_forward="gated-gelu")
UMT5 = _family("umt5", vocab=250112, inner=1024, layers=8, heads=6, feed_forward="gated-gelu", per_layer=True)
