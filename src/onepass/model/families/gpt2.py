"""GPT-2 (Radford et al. 2019): causal, norms before, learned positions; its matrices are stored [in, out]."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families.bert_layout import MOST_LAYERS
from onepass.model.families.decoder_layout import LM_HEAD, read_causal, scorer
from onepass.model.families.family import Family, Tensors, answerer, predictor, refuse_foreign, tagger
from onepass.model.families.recipes import part, transposed
from onepass.model.spec import (
    AttentionSpec,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
)
from onepass.model.weights import Made


def _spec(config: Config) -> EncoderSpec:
    refuse_foreign(config)
    width = config.integer("n_embd", 768, least=1)
    heads = config.integer("n_head", 12, least=1)
    if width % heads:
        raise BadCheckpoint(f"{config.source} divides a width of {width} among {heads} heads; that leaves a rest")
    size, causal = width // heads, read_causal(config)
    scale = 1 / math.sqrt(size) if config.flag("scale_attn_weights", True) else 1.0
    fading = config.flag("scale_attn_by_inverse_layer_idx", False)
    norm = NormSpec("layer", config.number("layer_norm_epsilon", 1e-5))
    positions = PositionSpec("arange", 0, config.integer("n_positions", 1024, least=1))
    feed_forward = FeedForwardSpec(
        "plain",
        config.integer("n_inner", 4 * width, least=1),
        config.activation("activation_function", "gelu_new"),
    )

    def layer(index: int) -> LayerSpec:
        own = scale / (index + 1) if fading else scale
        return LayerSpec(index, "pre", norm, AttentionSpec(heads, size, own, heads, causal=causal), feed_forward)

    return EncoderSpec(
        width=width,
        embed=EmbedSpec(config.integer("vocab_size", 50257, least=1), width, norm=None, positions=positions),
        layers=tuple(map(layer, range(config.integer("n_layer", 12, least=1, most=MOST_LAYERS)))),
        final_norm=norm,
        max_tokens=positions.usable,
    )


def _turned(ours: str, file: str) -> Tensors:
    return {f"{ours}.weight": transposed(f"{file}.weight"), f"{ours}.bias": f"{file}.bias"}


def _turned_third(ours: str, file: str, index: int) -> Tensors:
    """One of three matrices that lie side by side."""

    def cut(spec: EncoderSpec, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.split(matrix, 3, axis=1)[index].T

    return {f"{ours}.weight": Made((f"{file}.weight",), cut), f"{ours}.bias": part(f"{file}.bias", index, 3)}


GPT2 = Family(
    "gpt2",
    _spec,
    prefixes=("transformer.",),
    tensors={
        "embed.word": "wte.weight",
        "embed.position": "wpe.weight",
        "layers.{}.norm1.*": "h.{}.ln_1.*",
        **_turned_third("layers.{}.attention.query", "h.{}.attn.c_attn", 0),
        **_turned_third("layers.{}.attention.key", "h.{}.attn.c_attn", 1),
        **_turned_third("layers.{}.attention.value", "h.{}.attn.c_attn", 2),
        **_turned("layers.{}.attention.output", "h.{}.attn.c_proj"),
        "layers.{}.norm2.*": "h.{}.ln_2.*",
        **_turned("layers.{}.ff.up", "h.{}.mlp.c_fc"),
        **_turned("layers.{}.ff.down", "h.{}.mlp.c_proj"),
        "final_norm.*": "ln_f.*",
    },
    pad_id=0,
    types=False,
    heads={
        "classify": scorer(),
        "tag": tagger(),
        "answer": answerer(),
        "next": predictor(LM_HEAD, "wte.weight", tied=True),
    },
)
