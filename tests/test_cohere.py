"""Cohere's routes, through its own client, and what is wrong with their bodies."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import numpy as np
import pytest
from cohere.types import EmbedByTypeResponseEmbeddings
from live import Live, listening, load

from onepass.encoder import Encoder
from onepass.settings import ServerSettings
from onepass.tasks.prompts import InputType
from onepass.tasks.vectors import Precision, quantize

TEXTS = ["A cat sits on the mat.", "The stock market fell.", "猫が好きです"]
PACKED: tuple[Precision, ...] = ("int8", "uint8", "binary", "ubinary")
TYPES = ["float", *PACKED, "base64"]
DOCUMENTS = ["a cat is an animal", "the market is closed", "dogs bark"]


@pytest.fixture(scope="module")
def encoders(tiny_prompted: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(("prompted", tiny_prompted), ("reranker", tiny_reranker))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders, ServerSettings(max_inputs=100)) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=live.url, max_retries=0)


@pytest.fixture(scope="module")
def old(live: Live) -> cohere.Client:
    return cohere.Client(api_key="none", base_url=live.url, max_retries=0)


def floats(answer: cohere.EmbedByTypeResponse) -> Any:
    return answer.embeddings.float_


def check_types(found: EmbedByTypeResponseEmbeddings, vectors: Any) -> None:
    rows: Any = found.float_
    assert np.allclose(rows, vectors, atol=1e-6)
    for type in PACKED:
        rows = np.array(getattr(found, type))
        if type.endswith("int8"):
            assert np.abs(rows - quantize(vectors, type).astype(int)).max() <= 1
        else:
            assert np.array_equal(rows, quantize(vectors, type))
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.base64 or []]
    assert np.allclose(decoded, vectors, atol=1e-6)


def test_v2_embed_in_all_types(client: cohere.ClientV2, encoders: dict[str, Encoder]) -> None:
    purposes: dict[str, InputType] = {"search_document": "document", "search_query": "query"}
    for purpose, input_type in purposes.items():
        answer = client.embed(
            model="prompted", input_type=purpose, texts=TEXTS, embedding_types=[*TYPES, "float"], output_dimension=16
        )
        vectors = encoders["prompted"].embed(TEXTS, input_type=input_type, dimensions=16)
        check_types(answer.embeddings, vectors)
        assert answer.texts == TEXTS
        assert answer.response_type == "embeddings_by_type"
        assert answer.meta is not None
        assert answer.meta.tokens is not None
        assert answer.meta.billed_units is not None
        assert answer.meta.tokens.input_tokens == answer.meta.billed_units.input_tokens
        assert answer.meta.warnings is None


def test_v2_embed_gives_floats_where_no_type_is_named(client: cohere.ClientV2, encoders: dict[str, Encoder]) -> None:
    answer = client.embed(model="prompted", input_type="clustering", texts=TEXTS)
    assert np.allclose(floats(answer), encoders["prompted"].embed(TEXTS, prompt="clustering"), atol=1e-6)
    assert answer.embeddings.int8 is None
    answer = client.embed(model="prompted", input_type="classification", texts=TEXTS)  # which has no prompt
    assert np.allclose(floats(answer), encoders["prompted"].embed(TEXTS), atol=1e-6)


def test_v2_embed_counts_the_tokens_computed(client: cohere.ClientV2, encoders: dict[str, Encoder]) -> None:
    answer = client.embed(model="prompted", input_type="classification", texts=TEXTS)
    assert answer.meta is not None
    assert answer.meta.tokens is not None
    tokens = sum(len(encoders["prompted"].tokenizer.tokens(text)) for text in TEXTS)
    assert answer.meta.tokens.input_tokens == tokens


def test_v2_embed_reads_inputs_of_several_parts(client: cohere.ClientV2, encoders: dict[str, Encoder]) -> None:
    def part(text: str) -> cohere.TextEmbedContent:
        return cohere.TextEmbedContent(text=text)

    inputs = [cohere.EmbedInput(content=[part("a cat"), part("on the mat")]), cohere.EmbedInput(content=[part("dogs")])]
    answer = client.embed(model="prompted", input_type="search_document", inputs=inputs)
    expected = encoders["prompted"].embed(["a cat\non the mat", "dogs"], input_type="document")
    assert np.allclose(floats(answer), expected, atol=1e-6)


@pytest.mark.parametrize(("truncate", "side"), [("START", "left"), ("END", "right")])
def test_v2_embed_cuts_the_end_asked_for_and_says_so(
    client: cohere.ClientV2, encoders: dict[str, Encoder], truncate: str, side: Any
) -> None:
    text = "a cat " + "on the mat " * 40 + "dogs bark"
    answer = client.embed(model="prompted", input_type="classification", texts=[text, "a"], truncate=truncate)
    assert np.allclose(floats(answer), encoders["prompted"].embed([text, "a"], truncate=side), atol=1e-6)
    assert answer.meta is not None
    assert answer.meta.warnings == ["1 of the texts were cut because they are longer than allowed"]
    few = client.embed(model="prompted", input_type="classification", texts=[text], truncate=truncate, max_tokens=6)
    assert few.meta is not None
    assert few.meta.tokens is not None
    assert few.meta.tokens.input_tokens == 6
    with pytest.raises(cohere.UnprocessableEntityError, match="turn truncation on"):
        client.embed(model="prompted", input_type="classification", texts=[text], truncate="NONE")


def test_v1_embed(old: cohere.Client, encoders: dict[str, Encoder]) -> None:
    """The client sends batches of 96 at once and merges the answers."""
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]
    answer = old.embed(texts=texts, model="prompted", input_type="search_query")
    assert isinstance(answer, cohere.EmbeddingsFloatsEmbedResponse)
    vectors = encoders["prompted"].embed(texts, input_type="query")
    assert np.allclose(answer.embeddings, vectors, atol=1e-6)
    assert answer.texts == texts
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert (answer.meta.billed_units.input_tokens or 0) > len(texts)
    typed = old.embed(texts=texts, model="prompted", input_type="search_query", embedding_types=TYPES)
    assert isinstance(typed, cohere.EmbeddingsByTypeEmbedResponse)
    check_types(typed.embeddings, vectors)


def test_v1_embed_without_a_purpose(old: cohere.Client, encoders: dict[str, Encoder]) -> None:
    answer = old.embed(texts=TEXTS, model="prompted")
    assert np.allclose(answer.embeddings, encoders["prompted"].embed(TEXTS), atol=1e-6)  # type: ignore[arg-type]


def test_v2_rerank(client: cohere.ClientV2, encoders: dict[str, Encoder]) -> None:
    answer = client.rerank(model="reranker", query="what is a cat", documents=DOCUMENTS, top_n=2, priority=3)
    expected = encoders["reranker"].rerank("what is a cat", DOCUMENTS, top_n=2)
    assert [row.index for row in answer.results] == [one.index for one in expected]
    assert np.allclose([row.relevance_score for row in answer.results], [one.score for one in expected], atol=1e-6)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    assert answer.meta.tokens is not None
    assert (answer.meta.tokens.input_tokens or 0) > 0


def test_v1_rerank(old: cohere.Client, encoders: dict[str, Encoder]) -> None:
    documents = [{"text": text} for text in DOCUMENTS]
    answer = old.rerank(model="reranker", query="cat", documents=documents, return_documents=True)
    expected = encoders["reranker"].rerank("cat", DOCUMENTS)
    assert [row.index for row in answer.results] == [one.index for one in expected]
    assert answer.results[0].document is not None
    assert answer.results[0].document.text == DOCUMENTS[expected[0].index]
    silent = old.rerank(model="reranker", query="cat", documents=DOCUMENTS, return_documents=False)
    assert all(row.document is None for row in silent.results)


def test_v1_rerank_reads_long_documents_in_chunks(old: cohere.Client, encoders: dict[str, Encoder]) -> None:
    long = "the market is closed " * 30 + "a cat"
    answer = old.rerank(model="reranker", query="cat", documents=[long, "dogs"], max_chunks_per_doc=10)
    expected = encoders["reranker"].rerank("cat", [long, "dogs"], long="windows")
    assert [row.index for row in answer.results] == [one.index for one in expected]
    assert np.allclose([row.relevance_score for row in answer.results], [one.score for one in expected], atol=1e-6)
    assert answer.meta is not None
    assert answer.meta.warnings is not None
    assert answer.meta.warnings[0].startswith("long texts were read in windows")


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        ({"model": "embed-v4"}, 404, "the model 'embed-v4' is not served here"),
        ({"model": "reranker"}, 422, "this model cannot embed"),
        ({"texts": []}, 400, "there are no texts"),
        ({"texts": ["a", ""]}, 400, "input 1 is empty"),
        ({"texts": ["a"] * 101}, 413, "batch size 101 > maximum allowed batch size 100"),
        ({"output_dimension": 33}, 422, "dimensions is 33, this model gives 1 to 32"),
        ({"output_dimension": 0}, 422, "dimensions is 0"),
        ({"max_tokens": 0}, 422, "max_tokens is 0"),
        ({"embedding_types": ["float", "int4"]}, 422, "$.embedding_types[1]"),
        ({"input_type": "search"}, 422, "$.input_type"),
        ({"input_type": "image"}, 422, "reads texts only"),
        ({"texts": None, "images": ["data:image/png;base64,AAAA"]}, 422, "there are images"),
        ({"truncate": "MIDDLE"}, 422, "$.truncate"),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}]}]}, 422, "both `texts` and `inputs`"),
        ({"texts": None, "inputs": [{"content": [{"type": "video"}]}]}, 422, "$.inputs[0].content[0].type"),
        ({"priority": "high"}, 422, "$.priority"),
    ],
)
def test_mistakes_in_embed(live: Live, call: dict[str, Any], status: int, said: str) -> None:
    right = {"model": "prompted", "input_type": "search_query", "texts": ["a"], "unknown": 1}
    response = live.http.post("/v2/embed", json=right | call)
    assert (response.status_code, set(response.json())) == (status, {"message"})
    assert said in response.json()["message"]
    assert live.http.post("/v2/embed", json=right).status_code == 200


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        ({"model": "rerank-v4"}, 404, "is not served here"),
        ({"query": ""}, 400, "the query is empty"),
        ({"documents": []}, 400, "`documents` is an empty list"),
        ({"documents": "a"}, 422, "$.documents"),
        ({"documents": [1]}, 422, "$.documents[0]"),
        ({"top_n": 0}, 422, "top_n is 0"),
        ({"max_tokens_per_doc": 0}, 422, "document_tokens is 0"),
        ({"relevant_spans": {"mode": "enabled"}}, 422, "ranks whole documents"),
        ({"relevant_spans": {}}, 422, "$.relevant_spans"),
    ],
)
def test_mistakes_in_rerank(live: Live, call: dict[str, Any], status: int, said: str) -> None:
    right = {"model": "reranker", "query": "cat", "documents": ["a"], "unknown": 1}
    response = live.http.post("/v2/rerank", json=right | call)
    assert (response.status_code, set(response.json())) == (status, {"message"})
    assert said in response.json()["message"]


def test_errors_reach_the_caller(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.NotFoundError) as unknown:
        client.rerank(model="rerank-v4", query="a", documents=["b"])
    assert unknown.value.body == {
        "message": "the model 'rerank-v4' is not served here; `model` may be 'prompted', 'reranker'"
    }
