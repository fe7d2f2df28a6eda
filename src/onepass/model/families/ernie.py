"""ERNIE (Sun et al. 2019, 2020): BERT, from version 2 on with a table of tasks, of which row 0 is added."""

from __future__ import annotations

from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, answerer, classifier, tagger
from onepass.model.spec import EncoderSpec


def _spec(config: Config) -> EncoderSpec:
    spec = bert_layout.read_spec(config, "arange")
    tasks = config.integer("task_type_vocab_size", 3, least=1) if config.flag("use_task_id", False) else 0
    return replace(spec, embed=replace(spec.embed, tasks=tasks))


ERNIE = Family(
    "ernie",
    _spec,
    prefixes=("ernie.",),
    tensors={**bert_layout.TENSORS, "embed.task": "embeddings.task_type_embeddings.weight"},
    pad_id=0,
    types=True,
    heads={
        "classify": classifier(("pooler.dense", "tanh"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": bert_layout.FILL,
    },
)
