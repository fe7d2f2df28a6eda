"""XLM-RoBERTa XL and XXL (Goyal et al. 2021): XLM-RoBERTa with its norms before attention and feed-forward."""

from __future__ import annotations

from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import bert_layout, roberta
from onepass.model.families.family import Family, Head
from onepass.model.spec import EncoderSpec

EPS = 1e-5


def _spec(config: Config) -> EncoderSpec:
    spec = bert_layout.read_spec(
        config,
        "after_pad",
        vocab=250880,
        width=2560,
        heads=32,
        layers=36,
        inner=10240,
        pad_id=roberta.PAD,
        positions=514,
        types=1,
        eps=EPS,
    )
    return replace(
        spec,
        embed=replace(spec.embed, norm=None),
        layers=tuple(replace(layer, place="pre") for layer in spec.layers),
        final_norm=spec.embed.norm,
    )


def _fill(config: Config) -> Head:
    return roberta.fill(config, EPS)


XLM_ROBERTA_XL = Family(
    "xlm-roberta-xl",
    _spec,
    prefixes=("roberta.",),
    tensors={
        **bert_layout.TENSORS,
        "layers.{}.norm1.*": "encoder.layer.{}.attention.self_attn_layer_norm.*",
        "layers.{}.norm2.*": "encoder.layer.{}.LayerNorm.*",
        "final_norm.*": "encoder.LayerNorm.*",
    },
    pad_id=roberta.PAD,
    types=False,
    heads={**roberta.HEADS, "fill": _fill},
)
