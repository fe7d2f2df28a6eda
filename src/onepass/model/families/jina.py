"""Jina Embeddings v2 (Günther et al. 2023) and v3 (Sturua et al. 2024), whose code lies beside their weights.

Their files call themselves by another's model_type: v2 is a "bert" with linear biases (ALiBi) for positions and gated
feed-forwards, v3 an "xlm-roberta" with rotary positions and low-rank adapters, one for each task. Reranker v2 and
ColBERT v2 share v3's code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from onepass.errors import UnsupportedOption
from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Tensors, answerer, classifier, refuse_foreign, tagger
from onepass.model.families.recipes import part, query_key_value
from onepass.model.families.roberta import ROBERTA
from onepass.model.families.rotary import read_rope
from onepass.model.spec import ActivationKind, Alibi, EncoderSpec, NormSpec, PositionSpec

GATED: dict[str, ActivationKind] = {"geglu": "gelu", "reglu": "relu"}


def _names_code(config: Config, code: str) -> bool:
    return code in str(config.get("auto_map")) or code in str(config.get("_name_or_path"))


def is_v2(config: Config) -> bool:
    return config.get("position_embedding_type") == "alibi"


def is_v3(config: Config) -> bool:
    return _names_code(config, "xlm-roberta-flash-implementation") or config.get("position_embedding_type") == "rotary"


# v2


def _spec_v2(config: Config) -> EncoderSpec:
    refuse_foreign(config, positions="alibi", own_code=True)
    if _names_code(config, "qk-post-norm"):
        raise UnsupportedOption("config.json names the code jina-bert-v2-qk-post-norm, which is not implemented")
    width = config.integer("hidden_size", 768, least=1)
    kind = _feed_forward(config)
    spec = bert_layout.post_norm_encoder(
        config,
        width=width,
        norm=NormSpec("layer", config.number("layer_norm_eps", 1e-12)),
        positions=None,
        heads=config.integer("num_attention_heads", 12, least=1),
        layers=config.integer("num_hidden_layers", 12, least=1, most=bert_layout.MOST_LAYERS),
        inner=config.integer("intermediate_size", 3072, least=1),
        activation=GATED[config.text("feed_forward_type", "")]
        if kind == "gated"
        else config.activation("hidden_act", "gelu"),
        vocab=config.integer("vocab_size", 30522, least=1),
        types=config.integer("type_vocab_size", 2),
        embedding=width,
        kind=kind,
    )
    return replace(spec, relative=Alibi())


def _feed_forward(config: Config) -> Literal["plain", "gated"]:
    config.only("feed_forward_type", "original", *GATED)
    return "gated" if config.text("feed_forward_type", "original") in GATED else "plain"


def _tensors_v2(config: Config) -> Tensors:
    if _feed_forward(config) == "plain":
        return bert_layout.TENSORS
    mlp = "encoder.layer.{}.mlp"
    return {
        **bert_layout.TENSORS,
        "layers.{}.ff.gate.?": part(f"{mlp}.gated_layers.?", 0, of=2),
        "layers.{}.ff.up.?": part(f"{mlp}.gated_layers.?", 1, of=2),
        "layers.{}.ff.down.?": f"{mlp}.wo.?",
        "layers.{}.norm2.*": f"{mlp}.layernorm.*",
    }


JINA_V2 = Family(
    "jina_bert_v2",
    _spec_v2,
    prefixes=("bert.",),
    tensors=_tensors_v2,
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
    },
)

# v3


def _spec_v3(config: Config) -> EncoderSpec:
    absolute = config.text("position_embedding_type", "rotary") == "absolute"
    refuse_foreign(config, positions="absolute" if absolute else "rotary", own_code=True)
    width = config.integer("hidden_size", 1024, least=1)
    heads = config.integer("num_attention_heads", 16, least=1)
    longest = config.integer("max_position_embeddings", 8194, least=1)
    rope = read_rope(
        config,
        bert_layout.head_size(config, width, heads),
        theta=20_000.0,
        theta_key=config.first("rope_theta", "rotary_emb_base"),
        max_positions=longest,
    )
    return bert_layout.post_norm_encoder(
        config,
        width=width,
        norm=NormSpec("layer", config.number("layer_norm_eps", 1e-5)),
        positions=PositionSpec("after_pad", config.integer("pad_token_id", PAD), longest) if absolute else None,
        heads=heads,
        layers=config.integer("num_hidden_layers", 24, least=1, most=bert_layout.MOST_LAYERS),
        inner=config.integer("intermediate_size", 4096, least=1),
        activation=config.activation("hidden_act", "gelu"),
        vocab=config.integer("vocab_size", 250002, least=1),
        types=config.integer("type_vocab_size", 1),
        embedding=width,
        rope=None if absolute else rope,
        max_tokens=longest,
    )


PAD = 1
LAYER = "encoder.layers.{}"

JINA_V3 = Family(
    "jina_embeddings_v3",
    _spec_v3,
    prefixes=("roberta.",),
    tensors={
        **bert_layout.EMBEDDINGS,
        "embed.norm.*": "emb_ln.*",
        **query_key_value("layers.{}.attention", f"{LAYER}.mixer.Wqkv.?"),
        "layers.{}.attention.output.*": f"{LAYER}.mixer.out_proj.*",
        "layers.{}.norm1.*": f"{LAYER}.norm1.*",
        "layers.{}.ff.up.*": f"{LAYER}.mlp.fc1.*",
        "layers.{}.ff.down.*": f"{LAYER}.mlp.fc2.*",
        "layers.{}.norm2.*": f"{LAYER}.norm2.*",
    },
    pad_id=PAD,
    types=True,
    heads=ROBERTA.heads,
    unread=(".lora_A", ".lora_B"),
)
