"""Mistral (Jiang et al. 2023): E5-mistral, SFR-Embedding, Linq. Llama with a window in every layer."""

from __future__ import annotations

from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import decoder_layout as layout
from onepass.model.families.decoder_layout import Sizes
from onepass.model.families.family import Family
from onepass.model.families.rotary import read_rope
from onepass.model.spec import EncoderSpec

DEFAULT = Sizes(vocab=32000, width=4096, inner=14336, layers=32, heads=32, kv_heads=8, positions=4096 * 32)
WINDOW = 4096


def _spec(config: Config) -> EncoderSpec:
    layout.refuse(config)
    sizes = layout.read_sizes(config, DEFAULT)
    causal, window = layout.read_causal(config), layout.read_window(config, WINDOW)
    attention = layout.attention(sizes, causal=causal)
    if window is not None:
        attention = replace(attention, radius=layout.radius(window, causal))
    return layout.stack(
        sizes,
        [attention] * sizes.layers,
        read_rope(config, sizes.head_size, max_positions=sizes.positions),
        activation=config.activation("hidden_act", "silu"),
    )


MISTRAL = Family("mistral", _spec, layout.PREFIXES, layout.TENSORS, pad_id=0, types=False, heads=layout.heads())
