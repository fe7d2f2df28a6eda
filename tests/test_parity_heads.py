"""Heads that read tokens give the logits of transformers, family by family: tag, answer, fill and next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from running import ENGINES, encode, error, every_engine, pack, run, start
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer import modules as st
from test_parity import LIMIT, PAIRS, random_rows, reference
from tiny import AUTO, KINDS, Family, Head, change_json, tiny_checkpoint

from onepass.engines.batch import Read
from onepass.errors import BadCheckpoint
from onepass.model.checkpoint import load_checkpoint
from onepass.model.families import FAMILIES

auto: Any = transformers  # whose from_pretrained carries no types
engines = pytest.mark.parametrize("engine", ENGINES)


def readers(*heads: Head) -> pytest.MarkDecorator:
    """Every family that has one of these heads, with it."""
    pairs = [(family, head) for family in KINDS for head in heads if callable(FAMILIES[family].heads.get(head))]
    return pytest.mark.parametrize(("family", "head"), pairs, ids=["-".join(pair) for pair in pairs])


def logits(output: Any) -> np.ndarray[Any, Any]:
    """[tokens, columns] of one row."""
    if "start_logits" in output:
        return torch.stack([output.start_logits[0], output.end_logits[0]], -1).numpy()
    return np.atleast_2d(output.logits[0].numpy())


@readers("tag", "answer", "fill", "next")
def test_logits(tmp_path: Path, family: Family, head: Head, **config: Any) -> None:
    folder = tiny_checkpoint(tmp_path, family, head, **config)
    checkpoint = load_checkpoint(folder)
    loader = getattr(auto, AUTO.get(head, "AutoModelForSequenceClassification"))
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    theirs = [logits(reference(model, ids, kinds)) for ids, kinds in zip(rows, types, strict=True)]
    for name, engine in every_engine(checkpoint):
        ours = run(engine, head, rows, types, finish="none")
        if head in ("answer", "classify"):  # so few columns that a whole row may happen to be near 0
            assert error(np.concatenate(ours).T, np.concatenate(theirs).T) < LIMIT, name
        else:
            assert max(map(error, ours, theirs)) < LIMIT, name


UNUSUAL: dict[str, tuple[Family, Head, dict[str, Any]]] = {
    "llama, tied": ("llama", "next", {"tie_word_embeddings": True}),
    "gemma, untied": ("gemma", "next", {"tie_word_embeddings": False}),
    "gpt2, untied": ("gpt2", "next", {"tie_word_embeddings": False}),
    "eurobert, tied": ("eurobert", "fill", {"tie_word_embeddings": True}),
    "eurobert, first token": ("eurobert", "classify", {"classifier_pooling": "bos"}),
    "eurobert, mean": ("eurobert", "classify", {"classifier_pooling": "mean"}),
    "albert, relu": ("albert", "fill", {"hidden_act": "relu"}),
    "rembert, narrow": ("rembert", "fill", {"output_embedding_size": 16}),
    "xlm-roberta-xl, tanh": ("xlm-roberta-xl", "fill", {"hidden_act": "tanh"}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_heads(tmp_path: Path, name: str) -> None:
    family, head, config = UNUSUAL[name]
    test_logits(tmp_path, family, head, **config)


@engines
@pytest.mark.parametrize("pad", [1, None])
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_a_decoder_classifies_by_the_last_token_that_is_not_the_pad_token(
    tmp_path: Path, family: Family, pad: int | None, engine: str
) -> None:
    folder = tiny_checkpoint(tmp_path, family, "classify", pad_token_id=pad)
    checkpoint = load_checkpoint(folder)
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [[7, 8, 9, 1, 1], [7, 1, 8], [7, 8, 9, 10]]
    ours = run(start(engine, checkpoint), "classify", rows, finish="none")
    theirs = [reference(model, row, []).logits for row in rows]
    assert error(np.concatenate(ours).T, np.concatenate(theirs).T) < LIMIT


@engines
def test_few_words_of_the_vocabulary(tmp_path: Path, engine: str) -> None:
    """As label words are read: the scores of a few tokens after the last one."""
    folder = tiny_checkpoint(tmp_path, "qwen3", "next")
    checkpoint = load_checkpoint(folder)
    built = start(engine, checkpoint)
    rows = [[7, 8, 9], [10, 11]]
    words = np.array([40, 12, 300], np.int32)
    last, each = np.array([2, 1], np.int32), np.arange(3, dtype=np.int32)
    (output,) = built.run(pack(rows), [Read("next", each[:2], positions=last, offsets=each, vocabulary=words)])
    every = np.stack([row[-1] for row in run(built, "next", rows)])
    assert error(output.values, every[:, words]) < 1e-6


def reranker(folder: Path, family: Family, *tokens: Any) -> None:
    trunk = tiny_checkpoint(folder / "trunk", family, "next")
    modules = [st.Transformer(str(trunk), transformer_task="text-generation"), LogitScore(*tokens)]
    CrossEncoder(modules=modules).save(str(folder / "saved"))


SCORED = {"yes over no": (40, 12), "yes alone": (40, None)}


@engines
@pytest.mark.parametrize("tokens", SCORED)
@pytest.mark.parametrize("family", ["qwen3", "gemma"])  # with a matrix of its own, and with the word table
def test_logit_score(tmp_path: Path, family: Family, tokens: str, engine: str) -> None:
    reranker(tmp_path, family, *SCORED[tokens])
    checkpoint = load_checkpoint(tmp_path / "saved")
    assert set(checkpoint.heads) == {"classify"}
    assert checkpoint.weights["classify.0.weight"].shape == (1, 32)
    ours = np.concatenate(run(start(engine, checkpoint), "classify", *encode(checkpoint, PAIRS)))[:, 0]
    assert error(ours, CrossEncoder(str(tmp_path / "saved")).predict(PAIRS)) < LIMIT


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"1_LogitScore/config.json": {"true_token_id": 9000}},
            "modules.json's LogitScore reads token 9000, but the vocabulary has 501 tokens",
        ),
        (
            {"sentence_bert_config.json": {"modality_config": {"text": {}, "message": {}}}},
            "the model's texts go through a chat template, but its tokenizer has none",
        ),
        (
            {"config.json": {"architectures": ["Qwen3Model"]}},
            "modules.json's LogitScore needs a language model, but config.json names the architecture 'Qwen3Model'",
        ),
    ],
)
def test_logit_scores_that_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    reranker(tmp_path, "qwen3", 40, 12)
    for file, change in changes.items():
        change_json(tmp_path / "saved" / file, **change)
    with pytest.raises(BadCheckpoint) as caught:
        load_checkpoint(tmp_path / "saved")
    assert str(caught.value) == sentence


def test_without_its_matrix_a_language_model_scores_by_the_word_table(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "llama", "next", tie_word_embeddings=True)
    change_json(folder / "config.json", tie_word_embeddings=False)
    weights = load_checkpoint(folder).weights
    assert np.array_equal(weights["next.vocabulary.weight"], weights["embed.word"])
