"""OpenAI's routes, through its own client, and what is wrong with their bodies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from live import Live, listening

from onepass.encoder import Encoder
from onepass.server.openai import CATEGORIES
from onepass.settings import ServerSettings
from onepass.tasks.moderate import Table

TEXTS = ["A cat sits on the mat.", "The stock market fell.", "猫が好きです"]


@pytest.fixture(scope="module")
def moderator(tiny_multilabel: Path) -> Iterator[Encoder]:
    """Four labels, of which two make up categories of OpenAI's and one a category of its own."""
    with Encoder(tiny_multilabel) as plain:
        labels = [label for label, _ in plain.classify(TEXTS[0])]
    table: Table = {"harassment": labels[:1], "violence": {"labels": labels[1:3], "threshold": 0.0}, "spam": labels[3:]}
    with Encoder(tiny_multilabel, moderation=table) as encoder:
        yield encoder


@pytest.fixture(scope="module")
def live(moderator: Encoder, tiny_embedder: Path) -> Iterator[Live]:
    with Encoder(tiny_embedder) as embedder:
        encoders = {"moderator": moderator, "embedder": embedder}
        with listening(lambda: encoders, ServerSettings(max_inputs=8)) as live:
            yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_moderations(client: openai.OpenAI, moderator: Encoder) -> None:
    answer = client.moderations.create(model="moderator", input=TEXTS)
    assert answer.id.startswith("modr-")
    assert answer.model == "moderator"
    for one, expected in zip(answer.results, moderator.moderate(TEXTS), strict=True):
        assert one.flagged is expected.flagged is True
        scores = one.category_scores.model_dump(by_alias=True)
        flags = one.categories.model_dump(by_alias=True)
        applied = one.category_applied_input_types.model_dump(by_alias=True)
        names = {*CATEGORIES, "spam"}
        assert {*scores} == {*flags} == {*applied} == names
        assert np.allclose([scores[name] for name in expected.scores], [*expected.scores.values()], atol=1e-6)
        assert {name: flags[name] for name in expected.categories} == expected.categories
        for name in names:
            assert applied[name] == (["text"] if name in expected.scores else [])
            assert name in expected.scores or (scores[name], flags[name]) == (0, False)


async def test_moderations_of_one_text_and_of_parts(live: Live, moderator: Encoder) -> None:
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        one = await client.moderations.create(model="moderator", input=TEXTS[0])
        parts: Any = [{"type": "text", "text": text} for text in TEXTS[:2]]
        together = await client.moderations.create(model="moderator", input=parts)
    for answer, text in ((one, TEXTS[0]), (together, "\n".join(TEXTS[:2]))):
        (found,) = answer.results
        expected = moderator.moderate(text)
        assert np.isclose(found.category_scores.violence, expected.scores["violence"], atol=1e-6)


def test_long_texts_are_read_whole(live: Live, moderator: Encoder) -> None:
    long = "cat " * 200
    response = live.http.post("/v1/moderations", json={"model": "moderator", "input": long})
    assert int(response.headers["x-onepass-windows"]) > 0
    scores = response.json()["results"][0]["category_scores"]
    assert np.isclose(scores["violence"], moderator.moderate(long).scores["violence"], atol=1e-6)


@pytest.mark.parametrize(
    ("path", "call", "status", "said"),
    [
        ("moderations", {"model": "omni-moderation-latest"}, 404, "is not served here"),
        ("moderations", {"model": "embedder"}, 400, "this model cannot moderate"),
        ("moderations", {"input": []}, 400, "`input` is an empty list"),
        ("moderations", {"input": ["a", ""]}, 400, "input 1 is empty"),
        ("moderations", {"input": None}, 400, "$.input"),
        ("moderations", {"input": [["a"]]}, 400, "$.input[0]"),
        ("moderations", {"input": ["a"] * 9}, 400, "batch size 9"),
        ("moderations", {"input": ["a", {"type": "text", "text": "b"}]}, 400, "mixes texts with parts"),
        ("moderations", {"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, 400, "there are images"),
        ("moderations", {"input": [{"type": "video"}]}, 400, "$.input[0].type"),
        ("embeddings", {"input": None}, 400, "$.input"),
        ("embeddings", {"input": [["a"]]}, 400, "$.input[0][0]"),
        ("embeddings", {"input": [1, "a"]}, 400, "mixes token ids with texts"),
        ("embeddings", {"input": [[]]}, 400, "input 0 is empty"),
        ("embeddings", {"dimensions": "8"}, 400, "$.dimensions"),
        ("embeddings", {"encoding_format": "int8"}, 400, "$.encoding_format"),
        ("embeddings", {"user": 5}, 400, "$.user"),
    ],
)
def test_mistakes(live: Live, path: str, call: dict[str, Any], status: int, said: str) -> None:
    model = "moderator" if path == "moderations" else "embedder"
    right = {"model": model, "input": "a", "unknown": 1}
    response = live.http.post(f"/v1/{path}", json=right | call)
    assert (response.status_code, set(response.json())) == (status, {"error"})
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert said in error["message"]
    assert live.http.post(f"/v1/{path}", json=right).status_code == 200


def test_a_classifier_without_a_table(tiny_multilabel: Path) -> None:
    with Encoder(tiny_multilabel) as plain, listening(lambda: {"plain": plain}) as live:
        response = live.http.post("/v1/moderations", json={"input": "a"})
    assert response.status_code == 400
    assert "nothing says which of this model's labels" in response.json()["error"]["message"]
