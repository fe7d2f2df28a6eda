"""ELECTRA (Clark et al. 2020): BERT whose word vectors may be narrower than the model, and no pooler."""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, answerer, classifier, filler, tagger
from onepass.model.spec import EncoderSpec


def _spec(config: Config) -> EncoderSpec:
    return bert_layout.read_spec(config, "arange", width=256, heads=4, inner=1024, embedding=128)


ELECTRA = Family(
    "electra",
    _spec,
    prefixes=("electra.",),
    tensors=bert_layout.TENSORS,
    pad_id=0,
    types=True,
    heads={
        # exact GELU in both, whatever hidden_act says
        "classify": classifier(("classifier.dense", "gelu"), ("classifier.out_proj", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": filler(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head.bias",
            activation="gelu",
            untied="generator_lm_head.weight",
        ),
    },
)
