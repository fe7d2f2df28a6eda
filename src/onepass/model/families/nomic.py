"""Nomic Embed (Nussbaum et al. 2024), rotary and gated, and its second version's mixture of experts.

Its config.json is spelled as GPT-2's by the code beside the weights, as BERT's by transformers, and some say both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Head, Tensors, classifier, filler, refuse_foreign, tagger
from onepass.model.families.recipes import query_key_value, transposed
from onepass.model.families.rotary import read_rope
from onepass.model.spec import ActivationKind, EncoderSpec, FeedForwardSpec, NormSpec, RopeSpec
from onepass.model.weights import Source

SPELLINGS = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "hidden_act": "activation_function",
    "layer_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
    "rope_parameters": "rotary_emb_base",
}
GATED: dict[str, ActivationKind] = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}


def _of_its_code(config: Config) -> Config:
    """Where both spellings are, those of the code that has experts, if there are any: transformers has none."""
    for ours, theirs in SPELLINGS.items():
        if config.integer("num_experts", 0) and config.get(theirs) is not None:
            config = config.without(ours)
    return config


def _spec(config: Config) -> EncoderSpec:
    _refuse(config)
    config = _of_its_code(config)
    width = config.integer(config.first("hidden_size", "n_embd"), 768, least=1)
    heads = config.integer(config.first("num_attention_heads", "n_head"), 12, least=1)
    size = bert_layout.head_size(config, width, heads)
    config.only("head_dim", size)
    kind, activation = _feed_forward(config)
    spec = bert_layout.post_norm_encoder(
        config,
        width=width,
        norm=_norm(config),
        positions=None,
        heads=heads,
        layers=_layers(config),
        inner=config.integer(config.first("intermediate_size", "n_inner"), 3072, least=1),
        activation=activation,
        vocab=config.integer("vocab_size", 30528, least=1),
        types=config.integer("type_vocab_size", 2),
        embedding=width,
        kind=kind,
        rope=_rope(config, size),
        max_tokens=config.integer(
            config.first("n_positions", "max_position_embeddings", "max_trained_positions"), 2048, least=1
        ),
    )
    mixed = _mixed(config)
    if not mixed:
        return spec
    experts = config.integer("num_experts", 0)
    top = config.integer("moe_top_k", 1, least=1, most=experts)
    plain = spec.layers[0].feed_forward
    mixture = FeedForwardSpec("experts", plain.width, plain.activation, experts=experts, top=top)
    layers = (replace(layer, feed_forward=mixture) if layer.weights in mixed else layer for layer in spec.layers)
    return replace(spec, layers=tuple(layers))


def _refuse(config: Config) -> None:
    refuse_foreign(config, own_code=True)
    for key in ("prenorm", "use_rms_norm", "parallel_block", "causal", "rotary_emb_interleaved"):
        config.only(key, False)
    for key in ("moe_normalize_expert_weights", "expert_choice_router"):
        config.only(key, False)
    config.only("num_shared_experts", 0)
    config.only("rotary_emb_fraction", 1)
    config.only("rotary_emb_scale_base", None)


def _layers(config: Config) -> int:
    return config.integer(config.first("num_hidden_layers", "n_layer"), 12, least=1, most=bert_layout.MOST_LAYERS)


def _mixed(config: Config) -> range:
    """The layers with experts: every so many, from the second on."""
    every = config.integer("moe_every_n_layers", 0)
    return range(1, _layers(config), every) if config.integer("num_experts", 0) and every > 1 else range(0)


def _feed_forward(config: Config) -> tuple[Literal["plain", "gated"], ActivationKind]:
    if config.get("hidden_act") is not None or config.get("activation_function") is None:
        return "gated", config.activation("hidden_act", "silu")
    named = config.text("activation_function", "")
    return ("gated", GATED[named]) if named in GATED else ("plain", config.activation("activation_function", ""))


def _rope(config: Config, size: int) -> RopeSpec:
    trained = config.integer(config.first("max_trained_positions", "max_position_embeddings"), 2048, least=1)
    key = config.first("rope_theta", "rotary_emb_base")
    rope = read_rope(config, size, theta=1000.0, theta_key=key, max_positions=trained)
    stretch = config.number("rotary_scaling_factor", 0)
    if not stretch:
        return rope
    return replace(rope, scaling="dynamic", options=(("factor", stretch), ("trained", float(trained))))


def _norm(config: Config) -> NormSpec:
    return NormSpec("layer", config.number(config.first("layer_norm_eps", "layer_norm_epsilon"), 1e-12))


def _tensors(config: Config) -> Tensors:
    config = _of_its_code(config)
    layer = "encoder.layers.{}"
    tensors: dict[str, Source] = {
        "embed.word": bert_layout.EMBEDDINGS["embed.word"],
        "embed.type": bert_layout.EMBEDDINGS["embed.type"],
        "embed.norm.*": "emb_ln.*",
        **query_key_value("layers.{}.attention", f"{layer}.attn.Wqkv.?"),
        "layers.{}.attention.output.?": f"{layer}.attn.out_proj.?",
        "layers.{}.norm1.*": f"{layer}.norm1.*",
        "layers.{}.ff.down.?": f"{layer}.mlp.fc2.?",
        "layers.{}.norm2.*": f"{layer}.norm2.*",
    }
    if _feed_forward(config)[0] == "gated":
        tensors |= {"layers.{}.ff.up.?": f"{layer}.mlp.fc11.?", "layers.{}.ff.gate.?": f"{layer}.mlp.fc12.?"}
    else:
        tensors |= {"layers.{}.ff.up.?": f"{layer}.mlp.fc1.?"}
    for index in _mixed(config):
        ours, mlp = f"layers.{index}.ff", f"encoder.layers.{index}.mlp"
        tensors |= {
            f"{ours}.router.weight": f"{mlp}.router.layer.weight",
            f"{ours}.up.weight": f"{mlp}.experts.mlp.w1",
            f"{ours}.down.weight": transposed(f"{mlp}.experts.mlp.w2"),
            f"{ours}.down.bias": f"{mlp}.experts.bias",
        }
    return tensors


def _fill(config: Config) -> Head:
    config = _of_its_code(config)
    head = "cls.predictions"
    return filler(
        f"{head}.transform.dense",
        f"{head}.transform.layer_norm",
        f"{head}.bias",
        f"{head}.decoder.bias",
        activation=_feed_forward(config)[1],
        eps=_norm(config).eps,
        untied=f"{head}.decoder.weight",
    )(config)


NOMIC_BERT = Family(
    "nomic_bert",
    _spec,
    prefixes=("nomic_bert.", "bert."),
    tensors=_tensors,
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "fill": _fill,
    },
)
