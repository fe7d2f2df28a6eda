"""ModernBERT (Warner et al. 2024): rotary positions, norms before, gated feed-forwards, mostly local attention."""

from __future__ import annotations

import math

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Head, Tensors, parts, refuse_foreign, vocabulary_matrix
from onepass.model.families.recipes import part, query_key_value
from onepass.model.families.rotary import LayerType, read_rope
from onepass.model.heads import Activation, HeadSpec, Linear, Norm, Pool, Step, Vocabulary
from onepass.model.spec import AttentionSpec, EmbedSpec, EncoderSpec, FeedForwardSpec, LayerSpec, NormSpec
from onepass.model.weights import IfThere

FULL: LayerType = "full_attention"
SLIDING: LayerType = "sliding_attention"
THETA = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}


def _spec(config: Config) -> EncoderSpec:
    refuse_foreign(config)
    width = config.integer("hidden_size", 768, least=1)
    heads = config.integer("num_attention_heads", 12, least=1)
    size = bert_layout.head_size(config, width, heads)
    longest = config.integer("max_position_embeddings", 8192, least=1)
    types = _layer_types(config, config.integer("num_hidden_layers", 22, least=1, most=bert_layout.MOST_LAYERS))
    used = [kind for kind in (FULL, SLIDING) if kind in types]
    radius = {FULL: None, SLIDING: config.integer("local_attention", 128) // 2}
    norm = NormSpec("layer", config.number("norm_eps", 1e-5))
    feed_forward = FeedForwardSpec(
        "gated",
        config.integer("intermediate_size", 1152, least=1),
        config.activation("hidden_activation", "gelu"),
    )

    def layer(index: int, kind: LayerType) -> LayerSpec:
        attention = AttentionSpec(heads, size, 1 / math.sqrt(size), heads, radius=radius[kind], rope=used.index(kind))
        return LayerSpec(index, "pre", norm, attention, feed_forward, first_norm=index > 0)

    return EncoderSpec(
        width=width,
        embed=EmbedSpec(config.integer("vocab_size", 50368, least=1), width, norm),
        layers=tuple(layer(index, kind) for index, kind in enumerate(types)),
        ropes=tuple(
            read_rope(
                config,
                size,
                theta=THETA[kind][1],
                theta_key=THETA[kind][0],
                max_positions=longest,
                layer_type=kind,
            )
            for kind in used
        ),
        final_norm=norm,
        max_tokens=longest,
    )


def _layer_types(config: Config, layers: int) -> list[LayerType]:
    types = config.get("layer_types")
    if types is None:
        every = config.integer("global_attn_every_n_layers", 3, least=1)
        return [SLIDING if index % every else FULL for index in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not all(kind in (FULL, SLIDING) for kind in types):
        raise config.wrong("layer_types", f"a list of {layers} times {FULL!r} or {SLIDING!r}")
    return types


def _steps(config: Config, name: str, *last: Step) -> tuple[tuple[Step, ...], Tensors]:
    """The transform that all of ModernBERT's heads begin with, then `last`."""
    steps = (
        Linear(f"{name}.dense.weight", f"{name}.dense.bias"),
        Activation(config.activation("classifier_activation", "gelu")),
        Norm(NormSpec("layer", config.number("norm_eps", 1e-5)), f"{name}.norm.weight", f"{name}.norm.bias"),
    )
    return (*steps, *last), dict([*parts(f"{name}.dense.?", "head.dense.?"), *parts(f"{name}.norm.?", "head.norm.?")])


def _labelled(config: Config, name: str) -> tuple[tuple[Step, ...], Tensors]:
    steps, tensors = _steps(config, name, Linear(f"{name}.out.weight", f"{name}.out.bias"))
    return steps, {**tensors, **dict(parts(f"{name}.out.*", "classifier.*"))}


def _classify(config: Config) -> Head:
    config.only("classifier_pooling", "cls", "mean")
    steps, tensors = _labelled(config, "classify")
    pool = Pool(("mean" if config.text("classifier_pooling", "cls") == "mean" else "first",))
    return HeadSpec("classify", pool, per_row=steps), tensors


def _tag(config: Config) -> Head:
    steps, tensors = _labelled(config, "tag")
    return HeadSpec("tag", Pool(("tokens",)), per_token=steps, finish="softmax"), tensors


def _answer(config: Config) -> Head:
    steps, tensors = _labelled(config, "answer")
    return HeadSpec("answer", Pool(("tokens",)), per_token=steps, labels=("start", "end")), tensors


def _fill(config: Config) -> Head:
    weight, matrix = vocabulary_matrix(config, "fill", "decoder.weight")
    steps, tensors = _steps(config, "fill", Vocabulary(weight, "fill.vocabulary.bias"))
    bias = {"fill.vocabulary.bias": IfThere("decoder.bias")}
    return HeadSpec("fill", Pool(("tokens",)), per_token=steps), {**tensors, **matrix, **bias}


MODERNBERT = Family(
    "modernbert",
    _spec,
    prefixes=("model.",),
    tensors={
        "embed.word": "embeddings.tok_embeddings.weight",
        "embed.norm.?": "embeddings.norm.?",
        "layers.{}.norm1.?": "layers.{}.attn_norm.?",
        **query_key_value("layers.{}.attention", "layers.{}.attn.Wqkv.?"),
        "layers.{}.attention.output.?": "layers.{}.attn.Wo.?",
        "layers.{}.norm2.?": "layers.{}.mlp_norm.?",
        "layers.{}.ff.gate.?": part("layers.{}.mlp.Wi.?", 0, of=2),
        "layers.{}.ff.up.?": part("layers.{}.mlp.Wi.?", 1, of=2),
        "layers.{}.ff.down.?": "layers.{}.mlp.Wo.?",
        "final_norm.?": "final_norm.?",
    },
    pad_id=50283,
    types=False,
    heads={"classify": _classify, "tag": _tag, "answer": _answer, "fill": _fill},
)
