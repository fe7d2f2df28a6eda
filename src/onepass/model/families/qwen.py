"""Qwen2 and Qwen3 (Yang et al. 2024, 2025): gte-Qwen2, Qwen3-Embedding, Qwen3-Reranker.

Qwen2 has biases on queries, keys and values; Qwen3 has none and normalises each head of queries and keys.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families import decoder_layout as layout
from onepass.model.families.decoder_layout import Sizes
from onepass.model.families.family import Family
from onepass.model.families.rotary import read_rope
from onepass.model.spec import EncoderSpec

DEFAULT = Sizes(vocab=151936, width=4096, inner=22016, layers=32, heads=32, kv_heads=32, positions=32768)
WINDOW = 4096
FULL_LAYERS = 28  # max_window_layers: where windows are used, the layers from here on have one


def _family(model_type: str, default: Sizes, qk_norm: Literal["head"] | None = None) -> Family:
    def spec(config: Config) -> EncoderSpec:
        # gte-Qwen2 brings code whose only news is that is_causal counts
        layout.refuse(config, own_code=model_type == "qwen2" and "is_causal" in config.values)
        sizes = layout.read_sizes(config, default)
        causal = layout.read_causal(config)
        full = replace(layout.attention(sizes, causal=causal), qk_norm=qk_norm)
        window = layout.read_window(config, WINDOW) if config.flag("use_sliding_window", False) else None
        first = config.integer("max_window_layers", FULL_LAYERS)
        sliding = layout.sliding_layers(config, sizes.layers, lambda index: window is not None and index >= first)
        if window is None and any(sliding):
            raise BadCheckpoint(f"{config.source} has sliding layers in layer_types, but no sliding_window in use")
        local = full if window is None else replace(full, radius=layout.radius(window, causal))
        return layout.stack(
            sizes,
            [local if slides else full for slides in sliding],
            read_rope(config, sizes.head_size, max_positions=sizes.positions),
            activation=config.activation("hidden_act", "silu"),
        )

    return Family(model_type, spec, layout.PREFIXES, layout.TENSORS, pad_id=0, types=False, heads=layout.heads())


QWEN2 = _family("qwen2", DEFAULT)
QWEN3 = _family("qwen3", replace(DEFAULT, head_size=128), "head")
