"""text-embeddings-inference: vectors of tokens, sparse vectors, what a model is for, the statuses of version 1.9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from live import Live, listening, load
from tiny import redraw

from onepass.encoder import Encoder
from onepass.settings import ServerSettings

MODELS = ["embedder", "classifier", "reranker", "filler", "splade", "bge_m3"]
TEXTS = ["A cat sits on the mat.", "the stock market fell", "one"]


@pytest.fixture(scope="module")
def narrowed(tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its vectors go through a Dense module, and it has a prompt."""
    trunk = sentence_transformers.SentenceTransformer(str(tiny_embedder), device="cpu")[0]
    dense = sentence_transformers.models.Dense(32, 12)  # type: ignore[attr-defined]
    pooling = sentence_transformers.models.Pooling(32)  # type: ignore[attr-defined]
    redraw(dense, 3)
    model = sentence_transformers.SentenceTransformer(
        modules=[trunk, pooling, dense], prompts={"query": "the cat "}, device="cpu"
    )
    folder = tmp_path_factory.mktemp("narrowed")
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest, narrowed: Path) -> dict[str, Encoder]:
    paths = [(name, request.getfixturevalue(f"tiny_{name}")) for name in MODELS]
    return load(*paths, ("narrowed", narrowed), dtype="float32")


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders, ServerSettings(max_inputs=12)) as live:
        yield live


def post(live: Live, path: str, **body: Any) -> Any:
    response = live.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(live: Live, path: str, status: int, error_type: str, **body: Any) -> str:
    """The error's words."""
    response = live.http.post(path, json=body)
    answer = response.json()
    assert (response.status_code, answer.get("error_type")) == (status, error_type), response.text
    assert set(answer) == {"error", "error_type"}
    return str(answer["error"])


@pytest.mark.parametrize("name", ["embedder", "narrowed"])
def test_embed_all_is_what_follows_the_transformer(live: Live, encoders: dict[str, Encoder], name: str) -> None:
    model = sentence_transformers.SentenceTransformer(str(encoders[name].checkpoint.path), device="cpu")
    expected: Any = model.encode(TEXTS, output_value="token_embeddings")
    found = post(live, "/embed_all", inputs=TEXTS, model=name)
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert np.shape(one) == other.shape
        assert np.allclose(one, other.numpy(), atol=1e-5)
    assert post(live, "/embed_all", inputs=TEXTS[0], model=name) == found[:1]
    assert len(post(live, "/embed", inputs=TEXTS[0], model="narrowed")[0]) == 12


def test_embed_all_of_ids_and_behind_a_prompt(live: Live, encoders: dict[str, Encoder]) -> None:
    tokens = [token.id for token in encoders["narrowed"].tokenizer.tokens("the cat " + TEXTS[0])]
    found = post(live, "/embed_all", inputs=[TEXTS[0]], prompt_name="query", model="narrowed")
    same = post(live, "/embed_all", inputs=[tokens, TEXTS[2]], model="narrowed")
    assert np.allclose(found[0], same[0], atol=1e-6)
    words = refused(live, "/embed_all", 422, "Validation", inputs="a", prompt_name="passage", model="narrowed")
    assert words == "Input validation error: the prompt 'passage' is not this model's; it has 'document', 'query'"


def test_embed_all_of_long_texts(live: Live, encoders: dict[str, Encoder]) -> None:
    long, limit = "cat dog " * 300, encoders["embedder"].checkpoint.max_length
    dog = len(encoders["embedder"].tokenizer.tokens("dog"))
    response = live.http.post("/embed_all", json={"inputs": [long, "dog"], "model": "embedder"})
    assert [len(rows) for rows in response.json()] == [limit, dog]
    assert response.headers["x-onepass-truncated"] == "1"
    words = refused(live, "/embed_all", 422, "Validation", inputs=long, truncate=False, model="embedder")
    assert words.startswith(f"Input validation error: `inputs` must have less than {limit} tokens. Given: ")


@pytest.mark.parametrize("name", ["splade", "bge_m3", "filler"])
def test_embed_sparse_by_rising_index(live: Live, encoders: dict[str, Encoder], name: str) -> None:
    expected = encoders[name].sparse(TEXTS)
    found = post(live, "/embed_sparse", inputs=TEXTS, model=name)
    assert any(found)
    for rows, vector in zip(found, expected, strict=True):
        assert all(set(row) == {"index", "value"} for row in rows)
        assert [row["index"] for row in rows] == sorted(vector.ids.tolist())
        weights = dict(zip(vector.ids.tolist(), vector.weights.tolist(), strict=True))
        assert all(row["value"] == pytest.approx(weights[row["index"]], abs=1e-6) for row in rows)
    ids = [token.id for token in encoders[name].tokenizer.tokens(TEXTS[0])]
    assert post(live, "/embed_sparse", inputs=ids, model=name) == found[:1]
    assert post(live, "/embed_sparse", inputs=[ids, TEXTS[1]], model=name) == found[:2]


def test_embed_sparse_is_sentence_transformers(live: Live, encoders: dict[str, Encoder]) -> None:
    model = sentence_transformers.SparseEncoder(str(encoders["splade"].checkpoint.path), device="cpu")
    with torch.no_grad():
        expected = model.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    for rows, row in zip(post(live, "/embed_sparse", inputs=TEXTS, model="splade"), expected, strict=True):
        dense = np.zeros_like(row)
        dense[[one["index"] for one in rows]] = [one["value"] for one in rows]
        assert np.allclose(dense, row, atol=1e-5)


@pytest.mark.parametrize("alias", ["/", "/invocations"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("embedder", "/embed"),
        ("filler", "/embed"),
        ("bge_m3", "/embed"),
        ("splade", "/embed_sparse"),
        ("classifier", "/predict"),
        ("reranker", "/predict"),
    ],
)
def test_a_model_answers_by_itself_what_it_is_for(live: Live, alias: str, name: str, path: str) -> None:
    for inputs in (TEXTS[0], [[TEXTS[0]], [TEXTS[1]]] if path == "/predict" else TEXTS):
        assert post(live, alias, inputs=inputs, model=name) == post(live, path, inputs=inputs, model=name)


@pytest.mark.parametrize("alias", ["/", "/invocations"])
def test_a_reranker_reranks_by_itself(live: Live, alias: str) -> None:
    body = {"query": "cat", "texts": TEXTS, "return_text": True, "model": "reranker"}
    assert post(live, alias, **body) == post(live, "/rerank", **body)


def test_vertex_answers_each_instance_as_the_root_does(live: Live) -> None:
    instances = [
        {"inputs": TEXTS, "model": "embedder"},
        {"inputs": "good", "model": "classifier"},
        {"inputs": [["good"], ["good", "bad"]], "model": "classifier"},
        {"query": "cat", "texts": TEXTS, "model": "reranker"},
        {"inputs": TEXTS[0], "model": "splade"},
    ]
    answers = [live.http.post("/", json=instance) for instance in instances]
    together = live.http.post("/vertex", json={"instances": instances, "parameters": None})
    assert together.json() == {"predictions": [answer.json() for answer in answers]}
    tokens = sum(int(answer.headers["x-compute-tokens"]) for answer in answers)
    assert together.headers["x-compute-tokens"] == str(tokens)
    assert post(live, "/vertex", instances=[]) == {"predictions": []}


def test_vertex_counts_what_was_cut_and_its_inputs(live: Live) -> None:
    line = 'te_embed_success{model="embedder"}'
    before = live.metric(line)
    body = {"inputs": ["cat " * 300, "dog"], "model": "embedder"}
    response = live.http.post("/vertex", json={"instances": [body, body]})
    assert response.headers["x-onepass-truncated"] == "2"
    assert live.metric(line) == before + 4


def test_vertex_fails_as_its_first_bad_instance(live: Live) -> None:
    good = {"inputs": TEXTS, "model": "embedder"}
    refused(live, "/vertex", 400, "Empty", instances=[good, {"inputs": "", "model": "embedder"}])
    refused(live, "/vertex", 422, "Validation", instances=[good, {"input": "a", "model": "embedder"}])
    refused(live, "/vertex", 422, "Validation", instances=[good, 5])
    refused(live, "/vertex", 422, "Validation", instances="a")
    refused(live, "/vertex", 422, "Validation", instance=[good])
    words = refused(live, "/vertex", 422, "Validation", instances=[good] * 13)
    assert words == "batch size 13 > maximum allowed batch size 12"
    words = refused(live, "/vertex", 422, "Validation", instances=[good] * 5)
    assert words == "batch size 15 > maximum allowed batch size 12"
    assert post(live, "/vertex", instances=[good]) == {"predictions": [post(live, "/embed", **good)]}


@pytest.mark.parametrize("path", ["/embed_all", "/embed_sparse"])
@pytest.mark.parametrize(
    ("status", "error_type", "body"),
    [
        (400, "Empty", {"inputs": []}),
        (400, "Empty", {"inputs": ""}),
        (400, "Empty", {"inputs": ["a", ""]}),
        (400, "Empty", {"inputs": [[], "a"]}),
        (422, "Validation", {}),
        (422, "Validation", {"inputs": None}),
        (422, "Validation", {"inputs": 5}),
        (422, "Validation", {"inputs": ["a", None]}),
        (422, "Validation", {"inputs": ["a", 5]}),
        (422, "Validation", {"inputs": [-1]}),
        (422, "Validation", {"inputs": [10**9]}),
        (422, "Validation", {"inputs": ["a"] * 13}),
        (422, "Validation", {"inputs": "a", "truncate": "yes"}),
        (422, "Validation", {"inputs": "a", "truncation_direction": "up"}),
        (422, "Validation", {"inputs": "a", "truncation_direction": None}),
        (422, "Validation", {"inputs": "a", "prompt_name": 5}),
        (422, "Validation", {"inputs": "a", "prompt_name": "query"}),
    ],
)
def test_bad_input(live: Live, path: str, status: int, error_type: str, body: dict[str, Any]) -> None:
    refused(live, path, status, error_type, **body, model="bge_m3")


def test_null_and_unknown_fields_are_as_if_left_out(live: Live) -> None:
    for path in ("/embed_all", "/embed_sparse"):
        plain = post(live, path, inputs="a", model="bge_m3")
        assert post(live, path, inputs="a", truncate=None, prompt_name=None, surprise=1, model="bge_m3") == plain


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/embed", "splade"),
        ("/embed_all", "classifier"),
        ("/embed_all", "splade"),
        ("/embed_sparse", "embedder"),
        ("/predict", "embedder"),
        ("/rerank", "classifier"),
    ],
)
def test_what_the_model_cannot_do_is_424(live: Live, path: str, name: str) -> None:
    body: dict[str, Any] = {"query": "a", "texts": ["b"]} if path == "/rerank" else {"inputs": "a"}
    assert "cannot" in refused(live, path, 424, "Backend", **body, model=name)
