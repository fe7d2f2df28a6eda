"""EuroBERT (Boizard et al. 2025): Llama's block with a full mask, trained as an encoder."""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import decoder_layout as layout
from onepass.model.families.decoder_layout import Sizes
from onepass.model.families.family import Family, Head, bare_vocabulary, linears, refuse_foreign, tagger
from onepass.model.families.rotary import read_rope
from onepass.model.heads import HeadSpec, Pool
from onepass.model.spec import EncoderSpec

PAD = 128001
DEFAULT = Sizes(vocab=128256, width=768, inner=3072, layers=12, heads=12, positions=8192, eps=1e-5)


def _spec(config: Config) -> EncoderSpec:
    refuse_foreign(config, own_code=True)  # it lay beside the weights before transformers had it
    sizes = layout.read_sizes(config, DEFAULT)
    return layout.stack(
        sizes,
        [layout.attention(sizes, causal=False)] * sizes.layers,
        read_rope(config, sizes.head_size, max_positions=sizes.positions),
        activation=config.activation("hidden_act", "silu"),
    )


def _classify(config: Config) -> Head:
    config.only("classifier_pooling", "bos", "mean", "late")
    pooling = config.text("classifier_pooling", "late")
    steps, tensors = linears("classify", (("dense", "gelu"), ("classifier", None)))
    if pooling == "late":  # every token has logits, and their mean counts
        return HeadSpec("classify", Pool(("mean",)), per_token=steps), tensors
    return HeadSpec("classify", Pool(("first" if pooling == "bos" else "mean",)), per_row=steps), tensors


def _fill(config: Config) -> Head:
    step, tensors = bare_vocabulary(config, "fill", layout.LM_HEAD, "embed_tokens.weight", tied=False)
    return HeadSpec("fill", Pool(("tokens",)), per_token=(step,)), tensors


EUROBERT = Family(
    "eurobert",
    _spec,
    layout.PREFIXES,
    layout.TENSORS,
    pad_id=PAD,
    types=False,
    heads={"classify": _classify, "tag": tagger(), "fill": _fill},
)
