"""Jina's routes. It has no client of its own: bodies are as in its API description, clients in test_frameworks.py."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import Live, listening, load

from onepass.encoder import Encoder
from onepass.settings import ServerSettings
from onepass.tasks.vectors import Precision, quantize

TYPES: tuple[Precision, ...] = ("binary", "ubinary")
TEXTS = ["A cat sits on the mat.", "The stock market fell.", "猫が好きです"]


@pytest.fixture(scope="module")
def encoders(tiny_prompted: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("prompted", tiny_prompted), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders, ServerSettings(max_inputs=8)) as live:
        yield live


def embeddings(live: Live, **body: Any) -> dict[str, Any]:
    response = live.http.post("/v1/embeddings", json={"model": "prompted", "input": TEXTS} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert set(answer) == {"model", "object", "usage", "data"}
    assert [row["index"] for row in answer["data"]] == list(range(len(answer["data"])))
    return answer


def vectors(answer: dict[str, Any]) -> Any:
    return np.array([row["embedding"] for row in answer["data"]])


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("retrieval.query", {"input_type": "query"}),
        ("retrieval.passage", {"input_type": "document"}),
        ("clustering", {"prompt": "clustering"}),
        ("text-matching", {}),
    ],
)
def test_a_task_is_a_prompt(live: Live, encoders: dict[str, Encoder], task: str, options: Any) -> None:
    answer = embeddings(live, task=task)
    assert np.allclose(vectors(answer), encoders["prompted"].embed(TEXTS, **options), atol=1e-6)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


def test_texts_alone_and_in_objects(live: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["prompted"].embed(TEXTS)
    objects = [{"text": text} for text in TEXTS]
    assert np.allclose(vectors(embeddings(live, input=objects, normalized=True)), expected, atol=1e-6)
    for one in (TEXTS[0], objects[0]):
        assert np.allclose(vectors(embeddings(live, input=one, truncate=True)), expected[:1], atol=1e-6)


def test_types(live: Live, encoders: dict[str, Encoder]) -> None:
    expected: Any = encoders["prompted"].embed(TEXTS, dimensions=16)
    for name in ("embedding_type", "encoding_type"):
        for type in TYPES:
            found = vectors(embeddings(live, dimensions=16, **{name: [type]}))
            assert np.array_equal(found, quantize(expected, type))
    coded = embeddings(live, dimensions=16, embedding_type="base64")["data"]
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in coded]
    assert np.allclose(decoded, expected, atol=1e-6)


def test_vectors_that_are_not_normalised(live: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["prompted"].embed(TEXTS, normalize=False)
    assert np.allclose(vectors(embeddings(live, normalized=False)), expected, atol=1e-5)


def test_late_chunking_reads_the_inputs_as_one_text(live: Live, encoders: dict[str, Encoder]) -> None:
    (expected,) = encoders["prompted"].embed_chunks([TEXTS], input_type="document", normalize=True)
    answer = embeddings(live, late_chunking=True, task="retrieval.passage")
    assert np.allclose(vectors(answer), expected, atol=1e-6)
    assert not np.allclose(vectors(answer), encoders["prompted"].embed(TEXTS, input_type="document"), atol=1e-3)
    together = len(encoders["prompted"].tokenizer.tokens("text: " + "".join(TEXTS)))
    assert answer["usage"]["total_tokens"] == together


def test_without_its_fields_a_body_is_openais(live: Live) -> None:
    wrong = {"model": "prompted", "input": []}
    assert set(live.http.post("/v1/embeddings", json=wrong).json()) == {"error"}
    assert set(live.http.post("/v1/embeddings", json=wrong | {"task": None}).json()) == {"detail", "code"}


@pytest.mark.parametrize(
    ("call", "status", "code", "said"),
    [
        ({"model": "jina-embeddings-v3"}, 404, "unknown_model", "is not served here"),
        ({"model": "reranker"}, 422, "wrong_task", "this model cannot embed"),
        ({"input": []}, 400, "empty_input", "`input` is an empty list"),
        ({"input": ["a", ""]}, 400, "empty_input", "input 1 is empty"),
        ({"input": [{"image": "https://example.com/a.png"}]}, 422, "invalid_input", "input 0 has no text"),
        ({"input": [1]}, 422, "invalid_input", "$.input[0]"),
        ({"input": ["a"] * 9}, 413, "too_large", "batch size 9"),
        ({"task": "translation"}, 422, "invalid_input", "$.task"),
        ({"dimensions": 0}, 422, "invalid_input", "dimensions is 0"),
        ({"dimensions": 33}, 422, "invalid_input", "dimensions is 33"),
        ({"embedding_type": "int8"}, 422, "invalid_input", "$.embedding_type"),
        ({"embedding_type": ["float", "binary"]}, 422, "invalid_input", "`embedding_type` holds 2 types"),
        ({"embedding_type": []}, 422, "invalid_input", "`embedding_type` holds 0 types"),
        ({"input": "cat " * 99, "truncate": False}, 422, "input_too_long", "turn truncation on"),
        ({"input": ["cat " * 99], "late_chunking": True}, 422, "input_too_long", "chunk 0 of input 0"),
        ({"normalized": "yes"}, 422, "invalid_input", "$.normalized"),
        ({"return_multivector": True}, 422, "invalid_input", "/onepass/v1/multivector"),
    ],
)
def test_mistakes(live: Live, call: dict[str, Any], status: int, code: str, said: str) -> None:
    right = {"model": "prompted", "input": TEXTS, "task": "retrieval.query", "unknown": 1}
    response = live.http.post("/v1/embeddings", json=right | call)
    answer = response.json()
    assert (response.status_code, set(answer), answer["code"]) == (status, {"detail", "code"}, code)
    assert said in answer["detail"]
    assert live.http.post("/v1/embeddings", json=right).status_code == 200


def test_a_cut_text_is_reported_in_a_header(live: Live) -> None:
    response = live.http.post("/v1/embeddings", json={"model": "prompted", "input": "cat " * 99, "truncate": True})
    assert (response.status_code, response.headers["x-onepass-truncated"]) == (200, "1")


def test_rerank_returns_documents_unless_told_not_to(live: Live, encoders: dict[str, Encoder]) -> None:
    body = {"model": "reranker", "query": "cat", "documents": ["dogs", {"text": "a cat"}], "top_n": None}
    answer = live.http.post("/v1/rerank", json=body).json()
    expected = encoders["reranker"].rerank("cat", ["dogs", "a cat"])
    assert [row["index"] for row in answer["results"]] == [one.index for one in expected]
    assert [row["document"] for row in answer["results"]] == [
        {"text": ["dogs", "a cat"][one.index]} for one in expected
    ]
    assert (answer["model"], answer["object"]) == ("reranker", "list")
    assert answer["usage"]["total_tokens"] > 0
    silent = live.http.post("/v1/rerank", json=body | {"return_documents": False}).json()
    assert all("document" not in row for row in silent["results"])


def test_rerank_cuts_documents_where_asked_to(live: Live, encoders: dict[str, Encoder]) -> None:
    body = {"model": "reranker", "query": "cat", "documents": ["a cat on the mat"], "max_doc_length": 2}
    (row,) = live.http.post("/v1/rerank", json=body).json()["results"]
    (expected,) = encoders["reranker"].rerank("cat", ["a cat on the mat"], document_tokens=2)
    assert np.isclose(row["relevance_score"], expected.score, atol=1e-6)
    long = body | {"documents": ["cat " * 99], "max_doc_length": None}
    assert live.http.post("/v1/rerank", json=long).headers["x-onepass-truncated"] == "1"
    refused = live.http.post("/v1/rerank", json=long | {"truncation": False})
    assert (refused.status_code, set(refused.json())) == (422, {"message", "detail"})
    asked = live.http.post("/v1/rerank", json=body | {"return_embeddings": True})
    assert (asked.status_code, "scores only" in asked.json()["detail"]) == (422, True)
