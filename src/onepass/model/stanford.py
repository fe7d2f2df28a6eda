"""Stanford's ColBERT (Khattab and Zaharia 2020; Santhanam et al. 2022), as its own code saves it.

The projection lies beside the trunk's tensors, and artifact.metadata says how queries and documents become rows.
"""

from __future__ import annotations

import string
from pathlib import Path

from onepass.model.config import Config
from onepass.model.families.family import Head
from onepass.model.heads import HeadSpec, Linear, Pool
from onepass.model.multivector import Said, fixed, length_of
from onepass.model.sentence_transformers import Modules

ARCHITECTURES = ["HF_ColBERT"]


def read_stanford(folder: Path) -> Modules | None:
    """None where the folder is none of these. Raises BadCheckpoint, UnsupportedOption."""
    if Config.read_if_there(folder / "config.json", "config.json").get("architectures") != ARCHITECTURES:
        return None
    said = Config.read_if_there(folder / "artifact.metadata", "artifact.metadata")
    said.only("similarity", "cosine")
    query, document = said.text("query_token_id", "[unused0]") + " ", said.text("doc_token_id", "[unused1]") + " "
    late = Said(
        prompts={"query": query, "document": document},
        lengths={"document": length_of(said, "doc_maxlen")},
        expansion=fixed(length_of(said, "query_maxlen"), said.flag("attend_to_mask_tokens", False), said.source),
        skipped=tuple(string.punctuation) if said.flag("mask_punctuation", True) else (),
        markers=(query, document),
    )
    return Modules(late=late)


def stanford_head(config: Config) -> Head:
    head = HeadSpec("multivector", Pool(("tokens",)), per_row=(Linear("multivector.weight"),), finish="l2")
    return head, {"multivector.weight": "linear.weight"}
