"""GTE v1.5 and multilingual (Zhang et al. 2024), Snowflake arctic-embed v2: BERT's block, rotary and gated.

Files of the code beside the weights say model_type "new", or "gte" as transformers does.
"""

from __future__ import annotations

from collections.abc import Mapping

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Tensors, classifier, filler, refuse_foreign, tagger
from onepass.model.families.recipes import part, query_key_value
from onepass.model.families.rotary import read_rope
from onepass.model.spec import EncoderSpec, NormSpec
from onepass.model.weights import OneOf, Source


def _family(model_type: str, vocab: int, theta: float, pad_id: int) -> Family:
    def spec(config: Config) -> EncoderSpec:
        return _read(config, vocab, theta)

    return Family(
        model_type,
        spec,
        prefixes=("new.", "gte."),
        tensors=_tensors,
        pad_id=pad_id,
        types=True,
        heads={
            "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
            "tag": tagger(),
            # exact GELU whatever hidden_act says
            "fill": filler(
                "lm_head.dense",
                OneOf(("lm_head.norm", "lm_head.layer_norm")),
                "lm_head.decoder.bias",
                activation="gelu",
                untied="lm_head.decoder.weight",
            ),
        },
    )


def _read(config: Config, vocab: int, theta: float) -> EncoderSpec:
    refuse_foreign(config, positions="rope", own_code=True)
    config.only("logn_attention_scale", False)
    config.only("layer_norm_type", "layer_norm", "rms_norm")
    width = config.integer("hidden_size", 768, least=1)
    heads = config.integer("num_attention_heads", 12, least=1)
    longest = config.integer("max_position_embeddings", 8192, least=1)
    rms = config.text("layer_norm_type", "layer_norm") == "rms_norm"
    return bert_layout.post_norm_encoder(
        config,
        width=width,
        norm=NormSpec("rms" if rms else "layer", config.number("layer_norm_eps", 1e-12)),
        positions=None,
        heads=heads,
        layers=config.integer("num_hidden_layers", 12, least=1, most=bert_layout.MOST_LAYERS),
        inner=config.integer("intermediate_size", 3072, least=1),
        activation=config.activation("hidden_act", "gelu"),
        vocab=config.integer("vocab_size", vocab, least=1),
        types=config.integer("type_vocab_size", 1),
        embedding=width,
        kind="gated",
        rope=read_rope(config, bert_layout.head_size(config, width, heads), theta=theta, max_positions=longest),
        max_tokens=longest,
    )


def _tensors(config: Config) -> Tensors:
    attention = "encoder.layer.{}.attention"
    apart: Mapping[str, Source] = {
        f"layers.{{}}.attention.{name}.?": f"{attention}.{name[0]}_proj.?" for name in ("query", "key", "value")
    }
    return {
        "embed.word": bert_layout.EMBEDDINGS["embed.word"],
        "embed.type": bert_layout.EMBEDDINGS["embed.type"],
        "embed.norm.?": "embeddings.LayerNorm.?",
        **(
            query_key_value("layers.{}.attention", f"{attention}.qkv_proj.?")
            if config.flag("pack_qkv", True)
            else apart
        ),
        "layers.{}.attention.output.?": f"{attention}.o_proj.?",
        "layers.{}.norm1.?": "encoder.layer.{}.attn_ln.?",
        "layers.{}.ff.up.?": part("encoder.layer.{}.mlp.up_gate_proj.?", 0, of=2),
        "layers.{}.ff.gate.?": part("encoder.layer.{}.mlp.up_gate_proj.?", 1, of=2),
        "layers.{}.ff.down.?": "encoder.layer.{}.mlp.down_proj.?",
        "layers.{}.norm2.?": "encoder.layer.{}.mlp_ln.?",
    }


GTE = _family("gte", vocab=250048, theta=160_000.0, pad_id=1)
NEW = _family("new", vocab=30528, theta=10_000.0, pad_id=0)
