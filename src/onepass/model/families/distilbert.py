"""DistilBERT (Sanh et al. 2019): BERT's block under names of its own, without token types."""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Head, answerer, classifier, filler, refuse_foreign, tagger
from onepass.model.spec import EncoderSpec, NormSpec, PositionSpec

EPS = 1e-12  # fixed in the model's code, no config key


def _spec(config: Config) -> EncoderSpec:
    refuse_foreign(config)
    width = config.integer("dim", 768, least=1)
    return bert_layout.post_norm_encoder(
        config,
        width=width,
        norm=NormSpec("layer", EPS),
        # sinusoidal_pos_embds changes nothing here: that table is stored like a learned one
        positions=PositionSpec("arange", 0, config.integer("max_position_embeddings", 512, least=1)),
        heads=config.integer("n_heads", 12, least=1),
        layers=config.integer("n_layers", 6, least=1, most=bert_layout.MOST_LAYERS),
        inner=config.integer("hidden_dim", 3072, least=1),
        activation=config.activation("activation", "gelu"),
        vocab=config.integer("vocab_size", 30522, least=1),
        types=0,
        embedding=width,
    )


def _fill(config: Config) -> Head:
    activation = config.activation("activation", "gelu")
    projector = "vocab_projector"
    return filler(
        "vocab_transform",
        "vocab_layer_norm",
        f"{projector}.bias",
        activation=activation,
        eps=EPS,
        untied=f"{projector}.weight",
    )(config)


DISTILBERT = Family(
    "distilbert",
    _spec,
    prefixes=("distilbert.",),
    tensors={
        **bert_layout.EMBEDDINGS,
        "layers.{}.attention.query.*": "transformer.layer.{}.attention.q_lin.*",
        "layers.{}.attention.key.*": "transformer.layer.{}.attention.k_lin.*",
        "layers.{}.attention.value.*": "transformer.layer.{}.attention.v_lin.*",
        "layers.{}.attention.output.*": "transformer.layer.{}.attention.out_lin.*",
        "layers.{}.norm1.*": "transformer.layer.{}.sa_layer_norm.*",
        "layers.{}.ff.up.*": "transformer.layer.{}.ffn.lin1.*",
        "layers.{}.ff.down.*": "transformer.layer.{}.ffn.lin2.*",
        "layers.{}.norm2.*": "transformer.layer.{}.output_layer_norm.*",
    },
    pad_id=0,
    types=False,
    heads={
        "classify": classifier(("pre_classifier", "relu"), ("classifier", None)),
        "tag": tagger(),
        "answer": answerer(),
        "fill": _fill,
    },
)
