"""Gemma, Gemma 2 and the text model of Gemma 3 (Google DeepMind 2024, 2025): EmbeddingGemma, bge-reranker-v2-gemma.

Norms multiply by 1 + w, word vectors by the square root of the width. Gemma 2 puts norms around attention and
feed-forward, has a window in every second layer and caps scores; Gemma 3 normalises queries and keys instead, has
windows in five layers of six with rotary positions of their own, and may look both ways (EmbeddingGemma).
"""

from __future__ import annotations

import math
from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import decoder_layout as layout
from onepass.model.families.decoder_layout import Sizes
from onepass.model.families.family import Family, Head, HeadReader, Tensors, predictor, tagger
from onepass.model.families.rotary import read_rope
from onepass.model.spec import EncoderSpec, RopeSpec

PAD = 0
WINDOW = 4096
QUERY_SCALAR = 256.0
ONE = Sizes(vocab=256000, width=3072, inner=24576, layers=28, heads=16, kv_heads=16, head_size=256, positions=8192)
TWO = replace(ONE, width=2304, inner=9216, layers=26, heads=8, kv_heads=4)
THREE = replace(TWO, vocab=262208, positions=131072)
GLOBAL_THETA, LOCAL_THETA = 1_000_000.0, 10_000.0

SANDWICH: Tensors = {
    **layout.TENSORS,
    "layers.{}.norm1_after.weight": "layers.{}.post_attention_layernorm.weight",
    "layers.{}.norm2.weight": "layers.{}.pre_feedforward_layernorm.weight",
    "layers.{}.norm2_after.weight": "layers.{}.post_feedforward_layernorm.weight",
}


def _one(config: Config) -> EncoderSpec:
    layout.refuse(config)
    config.only("use_bidirectional_attention", False)
    sizes = layout.read_sizes(config, ONE)
    named = config.activation("hidden_act", "gelu_pytorch_tanh")
    return layout.stack(
        sizes,
        [layout.attention(sizes, causal=layout.read_causal(config))] * sizes.layers,
        read_rope(config, sizes.head_size, max_positions=sizes.positions),
        activation="gelu_tanh" if named == "gelu" else named,  # the first files said gelu and meant the tanh form
        norm="rms1",
        scale=math.sqrt(sizes.width),
    )


def _two(config: Config) -> EncoderSpec:
    layout.refuse(config)
    config.only("use_bidirectional_attention", False)
    sizes = layout.read_sizes(config, TWO)
    causal = layout.read_causal(config)
    scale = config.number("query_pre_attn_scalar", QUERY_SCALAR) ** -0.5
    full = layout.attention(sizes, causal=causal, scale=scale)
    if not config.is_null("attn_logit_softcapping"):
        full = replace(full, softcap=config.number("attn_logit_softcapping", 50.0))
    window = layout.read_window(config, WINDOW)
    local = full if window is None else replace(full, radius=layout.radius(window, causal))
    sliding = layout.sliding_layers(config, sizes.layers, lambda index: index % 2 == 0)
    return layout.stack(
        sizes,
        [local if slides else full for slides in sliding],
        read_rope(config, sizes.head_size, max_positions=sizes.positions),
        activation=config.activation("hidden_activation", "gelu_pytorch_tanh"),
        norm="rms1",
        place="sandwich",
        scale=math.sqrt(sizes.width),
    )


def _three(config: Config) -> EncoderSpec:
    layout.refuse(config)
    sizes = layout.read_sizes(config, THREE)
    causal, both_ways = layout.read_causal(config), config.flag("use_bidirectional_attention", False)
    # attn_logit_softcapping is in its files, but transformers does not apply it
    scale = config.number("query_pre_attn_scalar", QUERY_SCALAR) ** -0.5
    full = replace(layout.attention(sizes, causal=causal and not both_ways, scale=scale), qk_norm="head")
    window = config.integer("sliding_window", WINDOW, least=1)
    # where it looks both ways, the file holds the tokens that a window spans on both sides together
    reach = window // 2 if both_ways else layout.radius(window, causal)
    pattern = config.integer("sliding_window_pattern", 6, least=1)
    sliding = layout.sliding_layers(config, sizes.layers, lambda index: (index + 1) % pattern != 0)
    return layout.stack(
        sizes,
        [replace(full, radius=reach, rope=1) if slides else full for slides in sliding],
        *_two_ropes(config, sizes),
        activation=config.activation("hidden_activation", "gelu_pytorch_tanh"),
        norm="rms1",
        place="sandwich",
        scale=math.sqrt(sizes.width),
    )


def _two_ropes(config: Config, sizes: Sizes) -> tuple[RopeSpec, RopeSpec]:
    """Of full layers and of sliding ones; a plain rope_scaling is for full layers only."""
    size, positions = sizes.head_size, sizes.positions
    full = read_rope(config, size, theta=GLOBAL_THETA, max_positions=positions, layer_type="full_attention")
    local = read_rope(
        config.without("rope_scaling"),
        size,
        theta=LOCAL_THETA,
        theta_key="rope_local_base_freq",
        max_positions=positions,
        layer_type="sliding_attention",
    )
    return full, local


def _heads(*names: str) -> dict[str, HeadReader | str]:
    readers: dict[str, HeadReader | str] = {
        "classify": layout.scorer(PAD),
        "tag": tagger(("score", None)),
        "next": _uncapped,
    }
    return {name: readers[name] for name in names}


def _uncapped(config: Config) -> Head:
    config.only("final_logit_softcapping")
    return predictor(layout.LM_HEAD, "embed_tokens.weight", tied=True)(config)


GEMMA = Family(
    "gemma", _one, layout.PREFIXES, layout.TENSORS, pad_id=PAD, types=False, heads=_heads("classify", "tag", "next")
)
GEMMA2 = Family(
    "gemma2",
    _two,
    layout.PREFIXES,
    SANDWICH,
    pad_id=PAD,
    types=False,
    heads={
        **_heads("classify", "tag"),
        "next": "its logits are capped (final_logit_softcapping), which is not done here",
    },
)
GEMMA3_TEXT = Family(
    "gemma3_text", _three, layout.PREFIXES, SANDWICH, pad_id=PAD, types=False, heads=_heads("classify", "next")
)
