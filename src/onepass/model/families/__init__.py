"""The families, by model_type: a new one is a file here and a line in this table."""

from __future__ import annotations

from onepass.model.families.bert import BERT
from onepass.model.families.distilbert import DISTILBERT
from onepass.model.families.electra import ELECTRA
from onepass.model.families.family import Family
from onepass.model.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (BERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, DISTILBERT, ELECTRA)
}
