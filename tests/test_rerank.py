"""Reranking by pairs and by vectors: cut, in windows, with prompts, and what the answer holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from tiny import TEXT, USABLE, Family, change_json, colbert_checkpoint, tiny_checkpoint, write_json

from onepass import Encoder
from onepass.errors import InputTooLong, InvalidInput, WrongTask
from onepass.tasks.rerank import Ranked, Ranking, rerank

QUERY = "When does the train leave?"
LONG = " ".join(TEXT)


@pytest.fixture(scope="module")
def crossing(tiny_reranker: Path) -> Iterator[Encoder]:
    with Encoder(tiny_reranker, dtype="float32") as encoder:
        yield encoder


@pytest.fixture(scope="module")
def embedding(tiny_embedder: Path) -> Iterator[Encoder]:
    with Encoder(tiny_embedder, dtype="float32") as encoder:
        yield encoder


def scores(ranking: Ranking) -> list[float]:
    """By document."""
    return [one.score for one in sorted(ranking, key=lambda one: one.index)]


# What the answer holds.


def test_the_documents_are_given_back_where_they_are_asked_for(crossing: Encoder, embedding: Encoder) -> None:
    for encoder in (crossing, embedding):
        plain = encoder.rerank(QUERY, TEXT, top_n=3)
        assert [one.document for one in plain] == [None] * 3
        asked = encoder.rerank(QUERY, iter(TEXT), top_n=3, return_documents=True)
        assert asked == [Ranked(one.index, one.score, TEXT[one.index]) for one in plain]


def test_raw_scores_are_logits(crossing: Encoder) -> None:
    raw = np.array(scores(crossing.rerank(QUERY, TEXT, raw_scores=True)))
    assert scores(crossing.rerank(QUERY, TEXT)) == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-6)


# Long documents.


def library_rows(folder: Path, document: str, overlap: int) -> Any:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(
        QUERY,
        document,
        truncation="only_second",
        max_length=USABLE,
        stride=overlap,
        return_overflowing_tokens=True,
        padding=True,
        return_tensors="pt",
    )


@pytest.mark.parametrize("overlap", [0, 7, None])
def test_the_best_window_s_score_is_the_document_s(tiny_reranker: Path, crossing: Encoder, overlap: int | None) -> None:
    documents = [TEXT[2], " ".join([LONG] * (1 if overlap is None else 70)), LONG]
    job = crossing.job()
    ours = asyncio.run(rerank(job, QUERY, documents, long="windows", overlap=overlap, raw_scores=True))
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_reranker).eval()
    want, rows = [], 0
    for document in documents:
        given = library_rows(tiny_reranker, document, USABLE // 2 if overlap is None else overlap)
        given.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            want.append(float(model(**given).logits.max()))
        rows += len(given["input_ids"])
    assert overlap is None or len(crossing.tokenizer.tokens(documents[1])) > 20_000
    assert scores(ours) == pytest.approx(want, abs=1e-4)
    assert (job.usage.truncated, job.usage.windows) == (0, rows - len(documents))


def test_windows_of_vectors(embedding: Encoder) -> None:
    job = embedding.job()
    ours = asyncio.run(rerank(job, QUERY, [LONG, "Bread."], long="windows", window=20, overlap=4))
    ids = [token.id for token in embedding.tokenizer.tokens(LONG, special=False)]
    pieces = [ids[start : start + 18] for start in range(0, len(ids) - 4, 14)]
    assert job.usage.windows == len(pieces) - 1
    assert job.usage.truncated == 0
    cosines = embedding.similarity(QUERY, [*pieces, "Bread."])[0]
    assert scores(ours) == pytest.approx([float(cosines[:-1].max()), float(cosines[-1])], abs=1e-6)


@pytest.mark.parametrize("vocabulary", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("include", [True, False])
def test_every_window_has_the_prompt(tmp_path: Path, vocabulary: Family, include: bool) -> None:
    folder = tiny_checkpoint(tmp_path, vocabulary, "embed")
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"document": "in short: "}})
    change_json(folder / "1_Pooling" / "config.json", include_prompt=include)
    with Encoder(folder, dtype="float32") as encoder:
        (short,) = encoder.rerank(QUERY, ["Bread."], long="windows")
        assert [short] == encoder.rerank(QUERY, ["Bread."])
        ids = [token.id for token in encoder.tokenizer.tokens("in short:", special=False)]
        text = [token.id for token in encoder.tokenizer.tokens(f"in short: {LONG}", special=False)][len(ids) :]
        job = encoder.job()
        (ours,) = asyncio.run(rerank(job, QUERY, [LONG], long="windows", window=len(ids) + 22, overlap=5))
        pieces = [[*ids, *text[start : start + 20]] for start in range(0, len(text) - 5, 15)]
        assert job.usage.windows == len(pieces) - 1
        if include:
            assert ours.score == pytest.approx(encoder.similarity(QUERY, pieces).max(), abs=1e-6)


def test_tokens_are_compared_by_their_mean_or_as_in_training(tmp_path: Path) -> None:
    with Encoder(colbert_checkpoint(tmp_path), dtype="float32") as encoder:
        query = encoder.multivector(QUERY, input_type="query")
        vectors = encoder.multivector(TEXT)
        sums = [float((query @ one.T).max(axis=1).sum()) for one in vectors]
        assert scores(encoder.rerank(QUERY, TEXT, raw_scores=True)) == pytest.approx(sums, rel=1e-5)
        means = [one / len(query) for one in sums]
        assert scores(encoder.rerank(QUERY, TEXT)) == pytest.approx(means, rel=1e-5)
        job = encoder.job()
        (windowed,) = asyncio.run(rerank(job, QUERY, [LONG], long="windows"))
        assert (job.usage.truncated, job.usage.windows > 0) == (0, True)
        assert windowed.score > encoder.rerank(QUERY, [LONG])[0].score - 1e-6
        with pytest.raises(InvalidInput, match="^this model marks queries and documents by itself"):
            encoder.rerank(QUERY, TEXT, prompt="find: ")


def test_cutting_is_reported_or_refused(crossing: Encoder, embedding: Encoder) -> None:
    for encoder in (crossing, embedding):
        job = encoder.job()
        asyncio.run(rerank(job, QUERY, [LONG, "Bread.", LONG]))
        assert (job.usage.truncated, job.usage.windows) == (2, 0)
        with pytest.raises(InputTooLong, match=r"^input 1 has \d+ tokens, the model takes 64; shorten it or turn "):
            encoder.rerank(QUERY, ["Bread.", LONG], truncate=None)
        with pytest.raises(InputTooLong):
            encoder.rerank(LONG, ["Bread."], long="windows")


@pytest.mark.parametrize("long", ["cut", "windows"])
def test_document_tokens_leaves_out_what_comes_after(crossing: Encoder, embedding: Encoder, long: Any) -> None:
    first = "The train to the coast"
    for encoder in (crossing, embedding):
        kept = len(encoder.tokenizer.tokens(first, special=False))
        job = encoder.job()
        ours = asyncio.run(rerank(job, QUERY, [f"{first} leaves at seven"], document_tokens=kept, long=long))
        assert job.usage.truncated == 1
        assert scores(ours) == pytest.approx(scores(encoder.rerank(QUERY, [first])), abs=1e-6)


# Prompts.


def test_a_cross_encoder_s_prompt_stands_before_the_query(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "trunk", "roberta", "rerank")
    CrossEncoder(str(folder), prompts={"web": "find: ", "law": "law: "}, default_prompt_name="web").save(
        str(tmp_path / "saved")
    )
    theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    with Encoder(tmp_path / "saved", dtype="float32") as encoder:
        for prompt, text in ((None, None), ("law", "law: "), ("any text ", "any text ")):
            want = theirs.rank(QUERY, TEXT, prompt=text)
            ours = encoder.rerank(QUERY, TEXT, prompt=prompt)
            assert [one.index for one in ours] == [one["corpus_id"] for one in want]
            assert [one.score for one in ours] == pytest.approx([one["score"] for one in want], abs=1e-5)


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"query": "ask: ", "document": "say: "},
        {"query": "ask: ", "passage": "tell: "},
        {"web": "find: "},
    ],
)
def test_embedders_rank_by_cosine(tmp_path: Path, prompts: dict[str, str]) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "embed")
    saved = {"prompts": prompts, "default_prompt_name": "web" if "web" in prompts else None}
    (folder / "config_sentence_transformers.json").write_text("{}")
    change_json(folder / "config_sentence_transformers.json", **saved)
    model = SentenceTransformer(str(folder), device="cpu")
    named = next((name for name in ("document", "passage") if name in prompts), None)
    documents = model.encode(TEXT, prompt_name=named, prompt=None if named else "")
    want = model.similarity(model.encode_query(QUERY), documents)[0].tolist()
    with Encoder(folder, dtype="float32") as encoder:
        assert encoder.tasks == ["embed", "similarity", "rerank"]
        assert scores(encoder.rerank(QUERY, TEXT)) == pytest.approx(want, abs=1e-5)


# What is refused.


def test_plain_states_of_a_language_model_do_not_rank(tiny_filler: Path) -> None:
    with Encoder(tiny_filler) as encoder, pytest.raises(WrongTask) as caught:
        encoder.rerank(QUERY, TEXT)
    assert str(caught.value).startswith("this model cannot rerank; it can embed, similarity, ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_n": 0}, "top_n is 0; ask for at least 1, or leave it out"),
        ({"document_tokens": 0}, "document_tokens is 0; ask for at least 1, or leave it out"),
        ({"long": "mean"}, "long is 'mean'; choose cut or windows"),
        ({"window": 20}, "window is 20, but long texts are cut; ask for long='windows', or leave it out"),
        ({"overlap": 2}, "overlap is 2, but long texts are cut; ask for long='windows', or leave it out"),
        (
            {"long": "windows", "window": 65},
            "window is 65 tokens, this model takes rows of 1 to 64; choose",
        ),
        ({"prompt": "law"}, "prompt 'law' is not a prompt name of this model, which has none"),
        ({"head": "tag"}, "this model has no head 'tag' that can rerank; those that can are classify"),
    ],
)
def test_options_that_are_refused(crossing: Encoder, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises((InvalidInput, WrongTask)) as caught:
        crossing.rerank(QUERY, TEXT, **options)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("query", "documents", "sentence"),
    [
        ("", ["a"], "the query is empty; send some text"),
        (7, ["a"], "the query is a int; send a string"),
        ("a", ["b", 7], "document 1 is a int; send a string"),
        ("a", [], "the input is an empty list; send at least one text"),
    ],
)
def test_texts_that_are_refused(crossing: Encoder, query: Any, documents: Sequence[Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        crossing.rerank(query, documents)
    assert str(caught.value) == sentence
