"""Llama (Touvron et al. 2023), causal, or looking both ways: `is_causal: false`, or NVIDIA's llama_bidirec."""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import decoder_layout as layout
from onepass.model.families.decoder_layout import Sizes
from onepass.model.families.family import Family
from onepass.model.families.rotary import read_rope
from onepass.model.spec import EncoderSpec

DEFAULT = Sizes(vocab=32000, width=4096, inner=11008, layers=32, heads=32, positions=2048)


def _spec(config: Config) -> EncoderSpec:
    layout.refuse(config)
    return _stack(config, causal=layout.read_causal(config))


def _both_ways(config: Config) -> EncoderSpec:
    layout.refuse(config, own_code=True)  # which is Llama's with a full mask
    return _stack(config, causal=False)


def _stack(config: Config, *, causal: bool) -> EncoderSpec:
    sizes = layout.read_sizes(config, DEFAULT)
    return layout.stack(
        sizes,
        [layout.attention(sizes, causal=causal)] * sizes.layers,
        read_rope(config, sizes.head_size, max_positions=sizes.positions),
        activation=config.activation("hidden_act", "silu"),
    )


LLAMA = Family("llama", _spec, layout.PREFIXES, layout.TENSORS, pad_id=0, types=False, heads=layout.heads())

LLAMA_BIDIREC = Family(
    "llama_bidirec",
    _both_ways,
    layout.PREFIXES,
    layout.TENSORS,
    pad_id=0,
    types=False,
    heads={"classify": "its classifier pools as code beside the weights says, which is never run"},
)
