"""Ollama's routes, through its own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest
from live import Live, listening, load

from onepass.encoder import Encoder
from onepass.settings import ServerSettings

TEXTS = ["A cat sits on the mat.", "The stock market fell.", "猫が好きです"]


@pytest.fixture(scope="module")
def encoders(tiny_embedder: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("embedder", tiny_embedder), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders, ServerSettings(max_inputs=8)) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[ollama.Client]:
    with ollama.Client(host=live.url) as client:
        yield client


def test_embed(client: ollama.Client, encoders: dict[str, Encoder]) -> None:
    expected = encoders["embedder"].embed(TEXTS)
    many = client.embed("embedder", TEXTS, keep_alive="5m", options={"num_ctx": 64})
    assert np.allclose(many.embeddings, expected, atol=1e-6)
    assert many.prompt_eval_count == sum(len(encoders["embedder"].tokenizer.tokens(text)) for text in TEXTS)
    assert many.total_duration is not None
    assert many.total_duration > 0
    one = client.embed("embedder:latest", TEXTS[0])
    assert one.model == "embedder:latest"
    assert np.allclose(one.embeddings, expected[:1], atol=1e-6)
    short = client.embed("embedder", TEXTS, dimensions=8)
    assert np.allclose(short.embeddings, encoders["embedder"].embed(TEXTS, dimensions=8), atol=1e-6)
    assert client.embed("embedder", TEXTS[0], dimensions=0).embeddings == one.embeddings


async def test_embed_awaited(live: Live, encoders: dict[str, Encoder]) -> None:
    async with ollama.AsyncClient(host=live.url) as client:
        answer = await client.embed("embedder", TEXTS)
    assert np.allclose(answer.embeddings, encoders["embedder"].embed(TEXTS), atol=1e-6)


def test_embeddings_are_as_the_model_leaves_them(client: ollama.Client, encoders: dict[str, Encoder]) -> None:
    answer = client.embeddings("embedder", TEXTS[0])
    assert np.allclose(answer.embedding, encoders["embedder"].embed(TEXTS[0], normalize=False), atol=1e-6)
    assert not np.isclose(np.linalg.norm(answer.embedding), 1)


def test_nothing_to_embed_is_no_mistake(client: ollama.Client) -> None:
    nothing: str | list[str]
    for nothing in ("", []):
        assert client.embed("embedder", nothing).embeddings == []
    assert client.embeddings("embedder", "").embedding == []
    with pytest.raises(ollama.ResponseError, match="not served here"):
        client.embed("llama", "")


def test_what_is_served(client: ollama.Client, encoders: dict[str, Encoder], live: Live) -> None:
    listed, running = client.list().models, client.ps().models
    assert [model.model for model in listed] == [model.model for model in running] == list(encoders)
    for models in (listed, running):
        assert all(model["size"] > 10_000 and model["details"]["family"] == "bert" for model in models)
    assert running[0].context_length == encoders["embedder"].checkpoint.max_length
    shown = client.show("embedder")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["bert.embedding_length"] == 32
    assert set(live.http.get("/api/version").json()) == {"version"}


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        ({"model": "llama", "input": "a"}, 404, "the model 'llama' is not served here"),
        ({"model": "reranker", "input": "a"}, 400, "this model cannot embed"),
        ({"model": "embedder", "input": ["a", ""]}, 400, "input 1 is empty"),
        ({"model": "embedder", "input": "a", "dimensions": 33}, 400, "dimensions is 33, this model gives 1 to 32"),
        ({"model": "embedder", "input": "a", "dimensions": -1}, 400, "dimensions is -1"),
        ({"model": "embedder", "input": "cat " * 99, "truncate": False}, 400, "the model takes 64"),
        ({"model": "embedder", "input": ["a"] * 9}, 400, "batch size 9 > maximum allowed batch size 8"),
    ],
)
def test_mistakes(client: ollama.Client, call: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        client.embed(**call)
    assert error.value.status_code == status
    assert said in error.value.error


@pytest.mark.parametrize("field", ["input", "model", "truncate", "dimensions", "keep_alive", "options"])
def test_a_field_of_another_type(live: Live, field: str) -> None:
    wrong = live.http.post("/api/embed", json={"model": "embedder", "input": "a", field: [1]})
    assert (wrong.status_code, set(wrong.json())) == (400, {"error"})
    assert f"$.{field}" in wrong.json()["error"]
    missing = live.http.post("/api/embed", json={"model": "embedder", "input": "a", field: None, "surprise": 1})
    assert missing.status_code == (404 if field == "model" else 200)


def test_a_cut_text_is_reported_in_a_header(live: Live) -> None:
    for path, field in (("/api/embed", "input"), ("/api/embeddings", "prompt")):
        answer = live.http.post(path, json={"model": "embedder", field: "cat " * 99})
        assert (answer.status_code, answer.headers["x-onepass-truncated"]) == (200, "1")
