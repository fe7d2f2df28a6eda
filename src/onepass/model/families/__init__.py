"""The families, by model_type: a new one is a file here and a line in this table."""

from __future__ import annotations

from onepass.errors import UnknownFamily
from onepass.model.config import Config
from onepass.model.families.albert import ALBERT
from onepass.model.families.bart import BART, M2M_100, MBART
from onepass.model.families.bert import BERT
from onepass.model.families.deberta import DEBERTA, DEBERTA_V2
from onepass.model.families.distilbert import DISTILBERT
from onepass.model.families.electra import ELECTRA
from onepass.model.families.ernie import ERNIE
from onepass.model.families.eurobert import EUROBERT
from onepass.model.families.family import Family
from onepass.model.families.gemma import GEMMA, GEMMA2, GEMMA3_TEXT
from onepass.model.families.gpt2 import GPT2
from onepass.model.families.gte import GTE, NEW
from onepass.model.families.jina import JINA_V2, JINA_V3, is_v2, is_v3
from onepass.model.families.llama import LLAMA, LLAMA_BIDIREC
from onepass.model.families.mistral import MISTRAL
from onepass.model.families.mobilebert import MOBILEBERT
from onepass.model.families.modernbert import MODERNBERT
from onepass.model.families.mpnet import MPNET
from onepass.model.families.nomic import NOMIC_BERT
from onepass.model.families.qwen import QWEN2, QWEN3
from onepass.model.families.rembert import REMBERT
from onepass.model.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from onepass.model.families.t5 import MT5, T5, UMT5
from onepass.model.families.xlm_roberta_xl import XLM_ROBERTA_XL

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        *(BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA, ERNIE),
        *(ALBERT, REMBERT, XLM_ROBERTA_XL, EUROBERT),
        *(LLAMA, LLAMA_BIDIREC, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3_TEXT, GPT2),
        *(T5, MT5, UMT5, BART, MBART, M2M_100),
        *(MPNET, MODERNBERT, DEBERTA, DEBERTA_V2, NOMIC_BERT, GTE, NEW, MOBILEBERT, JINA_V2, JINA_V3),
    )
}


def family_of(config: Config) -> Family:
    """By model_type, except that Jina's files call themselves by another's. Raises UnknownFamily."""
    model_type = config.text("model_type", "")
    if model_type == "bert" and is_v2(config):
        return JINA_V2
    if model_type == "xlm-roberta" and is_v3(config):
        return JINA_V3
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnknownFamily(f"{config.source} names the model_type {model_type!r}, but the families here are {known}")
    return FAMILIES[model_type]
