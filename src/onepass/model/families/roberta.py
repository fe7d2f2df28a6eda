"""RoBERTa (Liu et al. 2019) and the two that share its code: XLM-RoBERTa and CamemBERT.

BERT's block; positions are counted from the pad id on, and the classifier does not use the pooler.
"""

from __future__ import annotations

from onepass.model.config import Config
from onepass.model.families import bert_layout
from onepass.model.families.family import Family, Head, HeadReader, answerer, classifier, filler, tagger
from onepass.model.spec import EncoderSpec

PAD = 1


def fill(config: Config, eps: float = 1e-12) -> Head:
    """Exact GELU whatever hidden_act says.  eps: the class's default of layer_norm_eps."""
    names = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.bias", "lm_head.bias")
    eps = config.number("layer_norm_eps", eps)
    return filler(*names, activation="gelu", eps=eps, untied="lm_head.decoder.weight")(config)


HEADS: dict[str, HeadReader] = {
    "classify": classifier(("classifier.dense", "tanh"), ("classifier.out_proj", None)),
    "tag": tagger(),
    "answer": answerer(),
    "fill": fill,
}


def _family(model_type: str, vocab: int, *prefixes: str) -> Family:
    def spec(config: Config) -> EncoderSpec:
        return bert_layout.read_spec(config, "after_pad", vocab=vocab, pad_id=PAD)

    return Family(
        model_type,
        spec,
        prefixes=("roberta.", *prefixes),
        tensors=bert_layout.TENSORS,
        pad_id=PAD,
        types=False,
        heads=HEADS,
    )


ROBERTA = _family("roberta", 50265)
XLM_ROBERTA = _family("xlm-roberta", 30522, "xlm-roberta.")
CAMEMBERT = _family("camembert", 30522, "camembert.")
