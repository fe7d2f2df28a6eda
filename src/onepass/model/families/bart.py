"""The encoders of BART (Lewis et al. 2020), mBART, and M2M-100 with NLLB, as embedders.

BART's block is BERT's; mBART and M2M-100 have their norms before. M2M-100 computes its positions (sinusoids).
"""

from __future__ import annotations

import math

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families.bert_layout import MOST_LAYERS
from onepass.model.families.family import Family, Tensors, refuse_foreign
from onepass.model.families.t5 import NEEDS_DECODER
from onepass.model.spec import (
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
)
from onepass.model.weights import OneOf

PAD = 1
START = 2  # rows of the position table that no token reads
NORM = NormSpec("layer", 1e-5)  # fixed in the model's code

TENSORS: Tensors = {
    "embed.word": OneOf(("shared.weight", "embed_tokens.weight")),
    "embed.position": "embed_positions.weight",
    "embed.norm.*": "layernorm_embedding.*",
    "layers.{}.attention.query.*": "layers.{}.self_attn.q_proj.*",
    "layers.{}.attention.key.*": "layers.{}.self_attn.k_proj.*",
    "layers.{}.attention.value.*": "layers.{}.self_attn.v_proj.*",
    "layers.{}.attention.output.*": "layers.{}.self_attn.out_proj.*",
    "layers.{}.norm1.*": "layers.{}.self_attn_layer_norm.*",
    "layers.{}.ff.up.*": "layers.{}.fc1.*",
    "layers.{}.ff.down.*": "layers.{}.fc2.*",
    "layers.{}.norm2.*": "layers.{}.final_layer_norm.*",  # the layer's, despite its name
    "final_norm.*": "layer_norm.*",
}


def _family(model_type: str, *unlike: str, before: bool, sinusoid: bool = False) -> Family:
    """before: norms before attention and feed-forward.  sinusoid: positions are computed, and there is no norm.

    unlike: "embed" where sentence-transformers runs the decoder, too.
    """

    def spec(config: Config) -> EncoderSpec:
        refuse_foreign(config)
        width = config.integer("d_model", 1024, least=1)
        heads = config.integer("encoder_attention_heads", 16, least=1)
        if width % heads:
            raise BadCheckpoint(f"{config.source} divides a width of {width} among {heads} heads; that leaves a rest")
        rows = config.integer("max_position_embeddings", 1024, least=1) + START
        positions = PositionSpec("arange", START, rows)
        if sinusoid:
            positions = PositionSpec("after_pad", config.integer("pad_token_id", PAD), rows, sinusoid=True)
        size = width // heads
        attention = AttentionSpec(heads, size, 1 / math.sqrt(size), heads)
        feed_forward = FeedForwardSpec(
            "plain",
            config.integer("encoder_ffn_dim", 4096, least=1),
            config.activation("activation_function", "relu" if sinusoid else "gelu"),
        )
        return EncoderSpec(
            width=width,
            embed=EmbedSpec(
                config.integer("vocab_size", 128112 if sinusoid else 50265, least=1),
                width,
                norm=None if sinusoid else NORM,
                positions=positions,
                scale=math.sqrt(width) if config.flag("scale_embedding", sinusoid) else 1.0,
            ),
            layers=tuple(
                LayerSpec(index, "pre" if before else "post", NORM, attention, feed_forward)
                for index in range(config.integer("encoder_layers", 12, least=1, most=MOST_LAYERS))
            ),
            final_norm=NORM if before else None,
            max_tokens=positions.usable,
        )

    return Family(
        model_type,
        spec,
        prefixes=("model.encoder.", "encoder.", "model."),
        tensors=TENSORS,
        pad_id=PAD,
        types=False,
        heads=dict.fromkeys(("classify", "answer", "next", *unlike), NEEDS_DECODER),
    )


BART = _family("bart", "embed", before=False)
MBART = _family("mbart", "embed", before=True)
M2M_100 = _family("m2m_100", before=True, sinusoid=True)
