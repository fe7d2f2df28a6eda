"""RemBERT (Chung et al. 2021): BERT with narrow input vectors and a vocabulary matrix of its own, wider, for output."""

from __future__ import annotations

from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, answerer, classifier, filler, tagger
from onepass.model.spec import EncoderSpec


def _spec(config: Config) -> EncoderSpec:
    spec = bert_layout.read_spec(config, "arange", vocab=250300, width=1152, heads=18, layers=32, inner=4608)
    embedding = config.integer("input_embedding_size", 256, least=1)
    return replace(spec, embed=replace(spec.embed, width=embedding, project="after"))


REMBERT = Family(
    "rembert",
    _spec,
    prefixes=("rembert.",),
    tensors={**bert_layout.TENSORS, "embed.project.*": "encoder.embedding_hidden_mapping_in.*"},
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": filler(
            "cls.predictions.dense",
            "cls.predictions.LayerNorm",
            "cls.predictions.decoder.bias",
            matrix="cls.predictions.decoder.weight",
        ),
    },
)
