"""ALBERT (Lan et al. 2020): BERT whose layers share weights in groups, over word vectors narrower than the model."""

from __future__ import annotations

from dataclasses import replace

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Tensors, answerer, classifier, filler, tagger
from onepass.model.spec import EncoderSpec

LAYER = {
    "attention.query.*": "attention.query.*",
    "attention.key.*": "attention.key.*",
    "attention.value.*": "attention.value.*",
    "attention.output.*": "attention.dense.*",
    "norm1.*": "attention.LayerNorm.*",
    "ff.up.*": "ffn.*",
    "ff.down.*": "ffn_output.*",
    "norm2.*": "full_layer_layer_norm.*",
}


def _spec(config: Config) -> EncoderSpec:
    spec = bert_layout.read_spec(
        config,
        "arange",
        vocab=30000,
        width=4096,
        heads=64,
        inner=16384,
        embedding=128,
        activation="gelu_new",
    )
    layers, (groups, inner) = len(spec.layers), _groups(config)
    if groups > layers or layers * inner > bert_layout.MOST_LAYERS:
        raise BadCheckpoint(
            f"{config.source} has {layers} layers in {groups} groups of {inner}, which do not fit one another"
        )
    repeated = (
        replace(layer, weights=int(index / (layers / groups)) * inner + link)
        for index, layer in enumerate(spec.layers)
        for link in range(inner)
    )
    # there is a projection even where the widths are the same
    return replace(spec, embed=replace(spec.embed, project="after"), layers=tuple(repeated))


def _groups(config: Config) -> tuple[int, int]:
    """(groups, layers of each): all of a group's layers run wherever the group does."""
    return config.integer("num_hidden_groups", 1, least=1), config.integer("inner_group_num", 1, least=1)


def _tensors(config: Config) -> Tensors:
    groups, inner = _groups(config)
    return {
        **bert_layout.EMBEDDINGS,
        "embed.project.*": "encoder.embedding_hidden_mapping_in.*",
        **{
            f"layers.{group * inner + link}.{ours}": f"encoder.albert_layer_groups.{group}.albert_layers.{link}.{file}"
            for group in range(groups)
            for link in range(inner)
            for ours, file in LAYER.items()
        },
    }


ALBERT = Family(
    "albert",
    _spec,
    prefixes=("albert.",),
    tensors=_tensors,
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": filler(
            "predictions.dense",
            "predictions.LayerNorm",
            "predictions.decoder.bias",
            "predictions.bias",
            default_activation="gelu_new",
            untied="predictions.decoder.weight",
        ),
    },
)
