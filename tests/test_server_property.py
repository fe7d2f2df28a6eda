"""Whatever is thrown at any route and method: a result or a typed error, never a 500, and the next one is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from live import Live, listening, load
from tiny import LABELS, SEVERAL

from onepass.encoder import Encoder
from onepass.server import cohere, jina, native, ollama, openai
from onepass.server.native import form
from onepass.tasks.tag import AGGREGATIONS

POST = ["/embed", "/predict", "/rerank", "/similarity", "/tokenize", "/decode", "/"]
POST += ["/v1/embeddings", "/embeddings", "/v1/rerank", "/v2/rerank", "/v1/embed", "/v2/embed"]
POST += ["/v1/moderations"]
POST += ["/embed_all", "/embed_sparse", "/invocations", "/vertex"]
POST += ["/api/embed", "/api/embeddings", "/api/show"]
POST += [operation.path for operation in native.OPERATIONS]
GET = ["/health", "/info", "/metrics", "/ping", "/livez", "/readyz", "/v1/models", "/openapi.json", "/docs"]
GET += ["/api/tags", "/api/ps", "/api/version"]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
FIELDS = ["inputs", "input", "texts", "query", "documents", "ids", "model", "dimensions", "truncate", "normalize"]
FIELDS += ["encoding_format", "raw_scores", "return_text", "top_n", "rank_fields", "return_documents", "parameters"]
FIELDS += ["truncation_direction", "prompt_name", "source_sentence", "sentences", "max_tokens_per_doc", "text"]
FIELDS += ["a", "b", "aggregation", "ignore_labels", "window", "overlap", "top_k", "candidates", "question", "context"]
MODELS = ["embedder", "classifier", "multilabel", "reranker", "tagger", "filler", "answerer", "entailer", "decoder"]
MODELS += ["colbert", "heads", "splade", "bge_m3", "asked"]

texts = st.text(st.characters(), max_size=40) | st.sampled_from(["", "\x00", "\ufffe", "a" * 500, "\u202e", "🏳️‍🌈"])
numbers = st.integers() | st.integers(0, 200) | st.sampled_from([2**31, 2**63, 10**40, -1]) | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | texts, inner, max_size=4),
    max_leaves=8,
)
words = st.text(min_size=1, max_size=40)
ids = st.lists(st.integers(0, 60) | st.integers(), min_size=1, max_size=5)
RIGHT: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "/embed": {"model": st.just("embedder"), "inputs": words | ids | st.lists(words | ids, max_size=4)},
    "/embed_all": {"model": st.just("embedder"), "inputs": words | ids | st.lists(words | ids, max_size=4)},
    "/embed_sparse": {
        "model": st.sampled_from(["filler", "splade", "bge_m3"]),
        "inputs": words | ids | st.lists(words | ids, max_size=3),
    },
    "/predict": {
        "model": st.sampled_from(["classifier", "multilabel"]),
        "inputs": words | st.lists(st.lists(words, min_size=1, max_size=2), min_size=1, max_size=3),
    },
    "/rerank": {"model": st.just("reranker"), "query": words, "texts": st.lists(words, max_size=4)},
    "/similarity": {
        "model": st.just("embedder"),
        "inputs": st.fixed_dictionaries({"source_sentence": words, "sentences": st.lists(words, max_size=4)}),
    },
    "/tokenize": {"model": st.sampled_from(MODELS), "inputs": words | st.lists(words, max_size=4)},
    "/decode": {"model": st.sampled_from(MODELS), "ids": ids | st.lists(ids, max_size=3)},
    "/v1/embeddings": {"model": st.just("embedder"), "input": words | ids | st.lists(words, max_size=4)},
    "/v1/moderations": {
        "model": st.just("moderator"),
        "input": words
        | st.lists(words | st.fixed_dictionaries({"type": st.just("text"), "text": words}), min_size=1, max_size=3),
    },
    "/v1/rerank": {
        "model": st.just("reranker"),
        "query": words,
        "documents": st.lists(words | st.dictionaries(st.just("text"), words, min_size=1), min_size=1, max_size=4),
    },
    "/v1/embed": {"model": st.just("embedder"), "texts": st.lists(words, max_size=4)},
    "/v2/embed": {"model": st.just("embedder"), "texts": st.lists(words, max_size=4)},
    "/api/embed": {"model": st.just("embedder"), "input": words | st.lists(words, max_size=4)},
    "/api/embeddings": {"model": st.just("embedder"), "prompt": words},
    "/api/show": {"model": st.sampled_from(MODELS)},
    "/v2/rerank": {"model": st.just("reranker"), "query": words, "documents": st.lists(words, max_size=4)},
}
long_words = words | st.lists(words, min_size=30, max_size=60).map(" ".join)
masked = st.lists(words | st.just("[MASK]"), min_size=1, max_size=5).map(lambda parts: " ".join(["[MASK]", *parts]))
NATIVE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "embed": {"model": st.just("embedder"), "texts": words | st.lists(words | ids, max_size=4)},
    "embed_chunks": {
        "model": st.just("embedder"),
        "documents": st.lists(
            st.lists(words, max_size=4)
            | st.fixed_dictionaries(
                {"text": words, "chunks": st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), max_size=3)}
            ),
            max_size=3,
        ),
    },
    "similarity": {"model": st.just("embedder"), "a": words, "b": words | st.lists(words | ids, max_size=4)},
    "rerank": {
        "model": st.sampled_from(["reranker", "embedder", "colbert", "asked"]),
        "query": words,
        "documents": st.lists(words | long_words, max_size=4),
    },
    "moderate": {
        "model": st.just("multilabel"),
        "texts": long_words | st.lists(long_words, max_size=3),
        "categories": st.dictionaries(words, st.lists(st.sampled_from(LABELS["multilabel"]) | words, max_size=2)),
    },
    "classify": {
        "model": st.sampled_from(["classifier", "multilabel", "entailer", "filler", "decoder"]),
        "texts": words | st.lists(words | st.tuples(words, words), max_size=3),
    },
    "tag": {"model": st.just("tagger"), "texts": long_words | st.lists(long_words, max_size=3)},
    "fill": {"model": st.just("filler"), "texts": masked | st.lists(masked | words, max_size=3)},
    "log_probs": {"model": st.sampled_from(["filler", "decoder"]), "texts": words | st.lists(words, max_size=3)},
    "multivector": {"model": st.just("colbert"), "texts": words | st.lists(words, max_size=3)},
    "run": {
        "model": st.just("heads"),
        "texts": words | st.lists(words, max_size=3),
        "heads": st.lists(st.sampled_from([*SEVERAL]), min_size=1, max_size=3, unique=True),
    },
    "sparse": {"model": st.sampled_from(["filler", "splade", "bge_m3"]), "texts": words | st.lists(words, max_size=3)},
    "answer": {
        "model": st.just("answerer"),
        "question": words,
        "context": long_words | st.lists(long_words, max_size=3),
    },
}
RIGHT |= {form.ROOT + task: fields for task, fields in NATIVE.items()}
RIGHT |= {"/": RIGHT["/embed"], "/invocations": RIGHT["/embed_sparse"]}
instance = st.sampled_from(["/embed", "/predict", "/rerank", "/similarity"]).flatmap(
    lambda path: st.fixed_dictionaries(RIGHT[path])
)
RIGHT["/vertex"] = {"instances": st.lists(instance | values, max_size=3)}
RIGHT |= {"/embeddings": RIGHT["/v1/embeddings"]}
parameters = st.fixed_dictionaries(
    {},
    optional={
        "top_k": numbers,
        "function_to_apply": st.sampled_from(["softmax", "none"]) | texts,
        "aggregation_strategy": st.sampled_from([*AGGREGATIONS, "sum"]),
        "stride": numbers,
        "max_seq_len": numbers,
        "max_question_len": numbers,
        "max_answer_len": numbers,
        "hypothesis_template": st.sampled_from(["{}", "a {}"]) | texts,
    },
)
labelled = parameters.flatmap(
    lambda given: st.lists(words, max_size=3).map(lambda labels: {**given, "candidate_labels": labels})
)
question = st.fixed_dictionaries({"question": words, "context": long_words})
HUGGING_FACE: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "/models/embedder": {"inputs": words | st.lists(words, max_size=3)},
    "/models/classifier": {"inputs": words | st.lists(words, max_size=3), "parameters": parameters},
    "/models/entailer/pipeline/zero-shot-classification": {"inputs": words, "parameters": labelled},
    "/pipeline/token-classification/tagger": {"inputs": long_words, "parameters": parameters},
    "/models/filler": {"inputs": masked | st.lists(masked, max_size=2), "parameters": parameters},
    "/models/answerer": {"inputs": question, "parameters": parameters},
    "/models/reranker": {"query": words, "texts": st.lists(words, max_size=3)},
}
RIGHT |= HUGGING_FACE
POST += [*HUGGING_FACE, "/models/a/pipeline/b", "/predict_tokens"]
pooled = {"input": words | ids | st.lists(words, max_size=3) | st.lists(ids, max_size=3)}
sides = {"queries": words | st.lists(words, min_size=1, max_size=2), "documents": words | st.lists(words, max_size=3)}
scorers = st.sampled_from(["reranker", "embedder", "colbert"])
VLLM: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "/classify": {"model": st.sampled_from(["classifier", "multilabel", "reranker"]), **pooled},
    "/pooling": {"model": st.sampled_from(MODELS), **pooled},
    "/score": {"model": scorers, **sides},
    "/v1/score": {"model": scorers, **sides},
    "/detokenize": {"model": st.sampled_from(MODELS), "tokens": ids},
}
RIGHT |= VLLM
POST += [*VLLM]
RIGHT["/tokenize"]["prompt"] = RIGHT["/rerank"]["documents"] = words  # two dialects on one path
RIGHT["/models/a/pipeline/b"] = {"inputs": words}
RIGHT["/predict_tokens"] = {"model": st.just("tagger"), "inputs": st.lists(words | st.tuples(words), max_size=3)}
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "dimensions": st.integers(1, 32) | numbers | st.none(),
    "top_n": st.integers(1, 4) | numbers | st.none(),
    "max_tokens_per_doc": st.integers(1, 4) | numbers,
    "truncate": st.booleans() | values,
    "truncation_direction": st.sampled_from(["Left", "Right", "left", "up"]),
    "encoding_format": st.sampled_from(["float", "base64", "int"]),
    "raw_scores": st.booleans(),
    "return_text": st.booleans(),
    "add_special_tokens": st.booleans(),
    "prompt_name": st.none() | texts,
    "rank_fields": st.just(["text"]) | st.lists(texts, max_size=2),
    "aggregation_strategy": st.sampled_from([*AGGREGATIONS, "sum"]),
    "parameters": parameters | st.none(),
}
for option in ("window", "overlap", "top_k", "answer_tokens", "document_tokens"):
    OPTIONAL[option] = st.integers(1, 64) | numbers | st.none()
OPTIONAL |= {
    "aggregation": st.sampled_from([*AGGREGATIONS, "sum"]),
    "ignore_labels": st.lists(st.sampled_from(["O", "PER", "B-LOC"]) | texts, max_size=2),
    "labels": st.lists(words | texts, max_size=3) | values,
    "template": st.sampled_from(["{}", "{} [MASK]", "{} {}"]) | texts,
    "multi_label": st.booleans() | st.none() | values,
    "long": st.sampled_from(["cut", "mean", "max", "half", "windows"]),
    "candidates": st.lists(words | texts, max_size=3) | values,
    "no_answer": st.booleans(),
    "return_documents": st.booleans(),
    "input_type": st.sampled_from(["query", "document", "passage"]) | values,
    "align_to_words": st.booleans(),
    "prompt": st.none() | texts,
    "threshold": st.floats(0, 5) | numbers,
    "ranges": st.lists(st.lists(numbers, min_size=31, max_size=32), max_size=3) | values,
    "head": st.sampled_from([None, *SEVERAL]) | texts,
    "precision": st.sampled_from(["int8", "uint8", "binary", "ubinary", "int4"]),
    "task": st.sampled_from(["retrieval.query", "retrieval.passage", "text-matching"]) | texts,
    "late_chunking": st.booleans() | values,
    "normalized": st.booleans() | values,
    "embedding_type": st.sampled_from(["float", "base64", "ubinary", "int8"]) | values,
    "embedding_types": st.lists(st.sampled_from(["float", "int8", "uint8", "binary", "base64", "int4"]), max_size=3),
    "output_dimension": st.integers(1, 32) | numbers | st.none(),
    "max_tokens": st.integers(1, 64) | numbers | st.none(),
    "max_chunks_per_doc": st.integers(1, 4) | numbers | st.none(),
    "images": st.lists(texts, max_size=2) | values,
    "options": st.dictionaries(texts, scalars, max_size=2) | values,
    "keep_alive": numbers | texts,
}
OPTIONAL |= {
    "truncate_prompt_tokens": st.integers(-1, 20) | numbers,
    "max_tokens_per_query": st.integers(0, 5) | numbers,
    "use_activation": st.booleans() | st.none(),
    "task": st.sampled_from(["embed", "classify", "token_embed", "token_classify", "plugin"]),
    "embed_dtype": st.sampled_from(["float16", "float64"]),
    "normalize": st.booleans() | values,
}
OPTIONAL["unknown"] = values
OPTIONS: dict[str, set[str]] = {}
for operation in (*openai.OPERATIONS, *jina.OPERATIONS, *cohere.OPERATIONS, *ollama.OPERATIONS, *native.OPERATIONS):
    fields = {*operation.request.__struct_fields__} & {*OPTIONAL} | {"unknown"}
    OPTIONS[operation.path] = OPTIONS.get(operation.path, set()) | fields


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[str, bytes]:
    """A route and a body for it in which at most two things are out of the ordinary."""
    path = draw(st.sampled_from(POST))
    body = {name: draw(strategy) for name, strategy in RIGHT[path].items()}
    for name in draw(st.lists(st.sampled_from(sorted(OPTIONS.get(path, OPTIONAL))), max_size=2)):
        body[name] = draw(OPTIONAL[name])
    if draw(st.integers(0, 3)) == 0:
        body[draw(st.sampled_from(sorted(body)))] = draw(values)
    return path, json.dumps(body).encode()


jsons = values.map(lambda value: json.dumps(value).encode())
bodies = (
    jsons | st.binary(max_size=60) | jsons.flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end]))
)
# A header with control characters is no HTTP; the parser refuses it before there is a request.
headers = st.just("application/json") | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).map(
    str.strip
)


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    paths: list[Path] = [request.getfixturevalue(f"tiny_{name}") for name in MODELS]
    loaded = load(*zip(MODELS, paths, strict=True))
    labels = loaded["multilabel"].checkpoint.heads["classify"].labels
    path, device = paths[MODELS.index("multilabel")], loaded["multilabel"].device
    with Encoder(path, moderation={"hate": labels[:2]}, device=device) as moderator:
        encoders = loaded | {"moderator": moderator}
        with listening(lambda: encoders) as live:
            yield live


def check_answered(live: Live, method: str, path: str, body: bytes, content_type: str = "application/json") -> None:
    response = live.http.request(method, path, content=body, headers={"content-type": content_type}, timeout=20)
    event(str(response.status_code))
    assert response.status_code < 500, response.text
    if response.status_code >= 400 and method != "HEAD":
        assert set(response.json()) & {"error", "message", "detail"}, response.text
    follow_up = live.http.post("/embed", json={"inputs": "next", "model": "embedder"}, timeout=20)
    assert follow_up.status_code == 200


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=nearly_right())
def test_bodies_that_are_nearly_right(live: Live, request: tuple[str, bytes]) -> None:
    check_answered(live, "POST", *request)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(POST), body=bodies)
def test_any_body_on_any_route(live: Live, path: str, body: bytes) -> None:
    check_answered(live, "POST", path, body)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(method=st.sampled_from(METHODS), path=st.sampled_from(POST + GET), body=st.just(b"") | bodies, media=headers)
def test_any_method_on_any_route(live: Live, method: str, path: str, body: bytes, media: str) -> None:
    check_answered(live, method, path, body, media)


@settings(max_examples=100, deadline=None)
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?"), max_size=30))
def test_any_path(live: Live, path: str) -> None:
    check_answered(live, "POST", "/" + path.lstrip("/"), b"{}")


@settings(max_examples=50, deadline=None)
@given(query=st.dictionaries(st.sampled_from(["model", "x"]), st.text(), max_size=2))
def test_any_query_of_info(live: Live, query: dict[str, Any]) -> None:
    assert live.http.get("/info", params=query).status_code in (200, 404)
