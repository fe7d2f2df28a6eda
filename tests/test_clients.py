"""Unmodified clients against the running server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import langchain_openai
import numpy as np
import openai
import pydantic
import pytest
import tiktoken
import tiktoken.registry
from live import Live, listening, load

from onepass.encoder import Encoder

TEXTS = ["A cat sits on the mat.", "The stock market fell.", "猫が好きです"]
KEY = pydantic.SecretStr("none")


@pytest.fixture(scope="module")
def encoders(minilm: Path, tiny_classifier: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("minilm", minilm), ("classifier", tiny_classifier), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


@pytest.fixture(scope="module")
def single(encoders: dict[str, Encoder]) -> Iterator[Live]:
    """A server of one model."""
    with listening(lambda: {"minilm": encoders["minilm"]}) as live:
        yield live


def test_openai_embeddings(live: Live, encoders: dict[str, Encoder]) -> None:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="minilm", input=TEXTS)
        assert np.allclose([row.embedding for row in answer.data], encoders["minilm"].embed(TEXTS), atol=1e-6)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
        floats = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float", dimensions=8)
        expected = encoders["minilm"].embed(TEXTS, dimensions=8)
        assert np.allclose([row.embedding for row in floats.data], expected, atol=1e-6)
        assert [model.id for model in client.models.list()] == ["minilm", "classifier", "reranker"]


def test_openai_errors(live: Live) -> None:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="text-embedding-3-small", input="a")
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as empty:
            client.embeddings.create(model="minilm", input=[""])
        assert empty.value.code == "empty_input"
        with pytest.raises(openai.BadRequestError) as ids:
            client.embeddings.create(model="minilm", input=[99_999])
        assert ids.value.code == "token_out_of_range"


async def test_openai_async(live: Live, encoders: dict[str, Encoder]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        answer = await client.embeddings.create(model="minilm", input="a cat")
    assert np.allclose(answer.data[0].embedding, encoders["minilm"].embed("a cat"), atol=1e-6)


def test_huggingface_feature_extraction(live: Live, single: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["minilm"].embed(TEXTS[0])
    for url in (f"{single.url}/embed", single.url):
        client = huggingface_hub.InferenceClient(model=url)
        assert np.allclose(client.feature_extraction(TEXTS[0]), [expected], atol=1e-6)
        raw = client.feature_extraction(TEXTS[0], normalize=False, truncate=True, truncation_direction="left")
        assert not math.isclose(float(np.linalg.norm(raw)), 1, abs_tol=1e-3)


def test_huggingface_sentence_similarity(single: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["minilm"].similarity(TEXTS[0], TEXTS[1:])[0]
    for url in (f"{single.url}/similarity", single.url):
        client = huggingface_hub.InferenceClient(model=url)
        assert np.allclose(client.sentence_similarity(TEXTS[0], TEXTS[1:]), expected, atol=1e-6)


def test_huggingface_text_classification(encoders: dict[str, Encoder]) -> None:
    (expected,) = encoders["classifier"].classify(["good"])
    with listening(lambda: {"classifier": encoders["classifier"]}) as live:
        for url in (f"{live.url}/predict", live.url):
            client = huggingface_hub.InferenceClient(model=url)
            found = client.text_classification("good")
            assert [row.label for row in found] == [label for label, _ in expected]
            assert np.allclose([row.score for row in found], [score for _, score in expected], atol=1e-6)
            assert len(client.text_classification("good", top_k=1)) == 1


def test_huggingface_errors_reach_the_caller(single: Live) -> None:
    client = huggingface_hub.InferenceClient(model=f"{single.url}/embed")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="dimensions is 999"):
        client.feature_extraction("a", dimensions=999)


@pytest.fixture
def foreign_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken downloads its vocabularies; this one has ids as high as those of cl100k_base, from nowhere."""
    ranks = {bytes([byte]): 60_000 + byte for byte in range(256)}
    encoding = tiktoken.Encoding("cl100k_base", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", encoding)


@pytest.mark.usefixtures("foreign_vocabulary")
def test_langchain_by_default_sends_foreign_ids_and_is_told_the_switch(single: Live) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="minilm", base_url=f"{single.url}/v1", api_key=KEY, max_retries=0
    )
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_query("a cat")


def test_langchain_with_the_switch(single: Live, encoders: dict[str, Encoder]) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="minilm", base_url=f"{single.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    assert np.allclose(embeddings.embed_query(TEXTS[0]), encoders["minilm"].embed(TEXTS[0]), atol=1e-6)
    assert np.allclose(embeddings.embed_documents(TEXTS), encoders["minilm"].embed(TEXTS), atol=1e-6)
