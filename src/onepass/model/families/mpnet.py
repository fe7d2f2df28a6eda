"""MPNet (Song et al. 2020): RoBERTa's positions, and a learned bias by distance that all layers share."""

from __future__ import annotations

from dataclasses import replace

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, answerer, classifier, filler, tagger
from onepass.model.spec import EncoderSpec, T5Buckets

# Both are fixed in the model's code.
PAD = 1
DISTANCES = T5Buckets(buckets=32, max_distance=128)


def _spec(config: Config) -> EncoderSpec:
    config.only("pad_token_id", PAD)
    config.only("relative_attention_num_buckets", DISTANCES.buckets)
    spec = bert_layout.read_spec(config, "after_pad", vocab=30527, pad_id=PAD, types=None)
    return replace(spec, relative=DISTANCES)


MPNET = Family(
    "mpnet",
    _spec,
    prefixes=("mpnet.",),
    tensors={
        **bert_layout.EMBEDDINGS,
        **bert_layout.AFTER_ATTENTION,
        "layers.{}.attention.query.*": "encoder.layer.{}.attention.attn.q.*",
        "layers.{}.attention.key.*": "encoder.layer.{}.attention.attn.k.*",
        "layers.{}.attention.value.*": "encoder.layer.{}.attention.attn.v.*",
        "layers.{}.attention.output.*": "encoder.layer.{}.attention.attn.o.*",
        "layers.{}.norm1.*": "encoder.layer.{}.attention.LayerNorm.*",
        "relative.distance": "encoder.relative_attention_bias.weight",
    },
    pad_id=PAD,
    types=False,
    heads={
        "classify": classifier(("classifier.dense", "tanh"), ("classifier.out_proj", None)),
        "tag": tagger(),
        "answer": answerer(),
        # exact GELU whatever hidden_act says
        "fill": filler(
            "lm_head.dense",
            "lm_head.layer_norm",
            "lm_head.decoder.bias",
            "lm_head.bias",
            activation="gelu",
            untied="lm_head.decoder.weight",
        ),
    },
)
