"""BERT (Devlin et al. 2018): MiniLM, BGE, E5, GTE v1, mxbai and most English encoders."""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, answerer, classifier, tagger
from onepass.model.spec import EncoderSpec


def _spec(config: Config) -> EncoderSpec:
    return bert_layout.read_spec(config, "arange")


BERT = Family(
    "bert",
    _spec,
    prefixes=("bert.",),
    tensors=bert_layout.TENSORS,
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": bert_layout.FILL,
    },
)
