"""Whatever is given to a method of Encoder: a result of the right shape, with exact spans, or a typed error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from live import load
from tiny import SEVERAL

from onepass.encoder import Encoder
from onepass.errors import OnepassError
from onepass.tasks.tag import AGGREGATIONS

MODELS = [
    "embedder",
    "classifier",
    "reranker",
    "tagger",
    "filler",
    "answerer",
    "entailer",
    "decoder",
    "colbert",
    "heads",
    "splade",
    "bge_m3",
    "asked",
    "multilabel",
]
PIECES = ["cats", "The train", "Zürich", "e\u0301", "👩‍👩‍👧", "𝔘𝔫𝔦", "שלום", "مرحبا", "\r\n", "\t", "\u00a0", "\u202e"]
ODD = ["", " ", "\x00", "\ud800", "a" * 500, "[MASK]", "[SEP]"]

words = st.text(max_size=20) | st.sampled_from([*PIECES, *ODD])
good = st.lists(st.sampled_from(PIECES) | st.text(min_size=1, max_size=10), min_size=1, max_size=60).map(" ".join)
texts = good | good | words
anything = st.none() | st.integers() | st.floats() | st.binary(max_size=3) | st.lists(texts | st.integers(), max_size=3)
batches = good | st.lists(good, min_size=1, max_size=3) | st.lists(texts | anything, max_size=3)
masked = st.lists(st.sampled_from(["[MASK]", *PIECES]), max_size=30).map(lambda parts: " ".join(["[MASK]", *parts]))
numbers = st.integers(-1, 80) | st.integers()
truncate = {"truncate": st.sampled_from(["left", "right", None])}
windows = {"window": st.none() | numbers, "overlap": st.none() | numbers}


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> dict[str, Encoder]:
    paths: list[Path] = [request.getfixturevalue(f"tiny_{name}") for name in MODELS]
    return load(*zip(MODELS, paths, strict=True))


def answered(ask: Callable[[], Any]) -> Any:
    """What it gives, or None where it refuses with one sentence."""
    refusal: OnepassError | None = None
    found = None
    try:
        found = ask()
    except OnepassError as error:
        refusal = error
    event(refusal.code if refusal else "answered")
    assert refusal is None or re.fullmatch(r".+", str(refusal))
    return found


def each(given: Any, found: Any) -> list[tuple[Any, Any]]:
    """Every text with its answer."""
    return [(given, found)] if isinstance(given, str) else list(zip(given, found, strict=True))


wild = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@wild
@given(
    batches,
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": texts,
            "input_type": st.sampled_from(["query", "document", "passage", None]),
            "ranges": st.none() | st.just(np.array([[-1], [1]]) * np.ones(32)) | st.lists(anything, max_size=3),
            "dimensions": numbers,
            "normalize": st.booleans(),
            "precision": st.sampled_from(["float32", "int8", "uint8", "binary", "ubinary", "int4"]),
            **truncate,
        },
    ),
)
def test_embed(encoders: dict[str, Encoder], given: Any, options: dict[str, Any]) -> None:
    vectors = answered(lambda: encoders["embedder"].embed(given, **options))
    if vectors is not None:
        assert np.isfinite(vectors).all()
        assert vectors.ndim == (1 if isinstance(given, str) else 2)


@wild
@given(batches, batches)
def test_similarity(encoders: dict[str, Encoder], a: Any, b: Any) -> None:
    cosines = answered(lambda: encoders["embedder"].similarity(a, b))
    if cosines is not None:
        assert cosines.shape == tuple(1 if isinstance(given, str) else len(given) for given in (a, b))
        assert (abs(cosines) <= 1 + 1e-5).all()


@wild
@given(
    st.sampled_from(["reranker", "embedder", "colbert", "asked"]),
    good | words,
    st.lists(good, min_size=1) | st.lists(texts | anything, max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "top_n": st.none() | numbers,
            "return_documents": st.booleans(),
            "prompt": st.none() | words,
            "document_tokens": st.none() | numbers,
            "long": st.sampled_from(["cut", "windows", "mean"]),
            "raw_scores": st.booleans(),
            **windows,
            **truncate,
        },
    ),
)
def test_rerank(
    encoders: dict[str, Encoder], model: str, query: Any, documents: list[Any], options: dict[str, Any]
) -> None:
    ranking = answered(lambda: encoders[model].rerank(query, documents, **options))
    if ranking is not None:
        top_n, echo = options.get("top_n"), options.get("return_documents")
        assert all(one.document == (documents[one.index] if echo else None) for one in ranking)
        assert len(ranking) == min(top_n or len(documents), len(documents))
        assert [one.score for one in ranking] == sorted((one.score for one in ranking), reverse=True)


labels = st.sampled_from(["joy", "anger", "fear", "surprise"])
tables = st.dictionaries(
    words | st.just("harm"),
    st.lists(labels | words, max_size=3)
    | st.fixed_dictionaries({"labels": st.lists(labels, min_size=1)}, optional={"threshold": numbers | st.floats()})
    | anything,
    max_size=3,
)


@wild
@given(
    batches,
    st.dictionaries(words, st.lists(labels, min_size=1), min_size=1, max_size=3) | tables | anything,
    st.fixed_dictionaries({}, optional={"long": st.sampled_from(["cut", "windows", "max"]), **windows, **truncate}),
)
def test_moderate(encoders: dict[str, Encoder], given: Any, table: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["multilabel"].moderate(given, categories=table, **options))
    for _, one in each(given, found) if found is not None else []:
        assert one.scores.keys() == one.categories.keys() == table.keys()
        assert one.flagged == any(one.categories.values())
        assert all(0 <= score <= 1 for score in one.scores.values())


@wild
@given(
    batches | st.lists(st.tuples(texts, texts), max_size=2),
    st.fixed_dictionaries({}, optional={"long": st.sampled_from(["cut", "mean", "max", "half"]), **truncate}),
)
def test_classify(encoders: dict[str, Encoder], given: Any, options: dict[str, Any]) -> None:
    scores = answered(lambda: encoders["classifier"].classify(given, **options))
    for _, labels in each(given, scores) if scores is not None else []:
        assert sum(score for _, score in labels) == pytest.approx(1, abs=1e-5)


@wild
@given(
    st.sampled_from(["entailer", "filler", "decoder", "classifier"]),
    good | batches,
    st.lists(st.sampled_from(["train", "cats", "bread", "שלום", "to bake"]) | words, max_size=4) | words | anything,
    st.fixed_dictionaries(
        {},
        optional={
            "template": st.sampled_from(["{}", "a {}", "{} [MASK]", "[MASK]: {}", "{} {}", "{}\nIt is "]) | words,
            "multi_label": st.sampled_from([None, True, False]),
            "long": st.sampled_from(["cut", "mean", "max"]),
            **truncate,
        },
    ),
)
def test_labels_of_the_callers_own(
    encoders: dict[str, Encoder], model: str, given: Any, labels: Any, options: dict[str, Any]
) -> None:
    found = answered(lambda: encoders[model].classify(given, labels=labels, **options))
    for _, scores in each(given, found) if found is not None else []:
        alone = options.get("multi_label") or len(labels or scores) == 1
        assert alone or sum(score for _, score in scores) == pytest.approx(1, abs=1e-5)
        assert labels is None or sorted(label for label, _ in scores) == sorted(labels)


@wild
@given(
    batches,
    st.fixed_dictionaries(
        {},
        optional={
            "aggregation": st.sampled_from([*AGGREGATIONS, "sum"]),
            "ignore_labels": st.lists(st.sampled_from(["O", "PER", "B-LOC"]) | words, max_size=2) | words,
            **windows,
        },
    ),
)
def test_tag(encoders: dict[str, Encoder], given: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["tagger"].tag(given, **options))
    for text, entities in each(given, found) if found is not None else []:
        assert all(entity.text == text[entity.start : entity.stop] for entity in entities)
        assert [entity.start for entity in entities] == sorted(entity.start for entity in entities)


@wild
@given(
    masked | st.lists(masked, min_size=1, max_size=3) | batches,
    st.fixed_dictionaries(
        {},
        optional={
            "top_k": numbers,
            "candidates": st.none() | words | st.lists(words | anything, max_size=3),
            **truncate,
        },
    ),
)
def test_fill(encoders: dict[str, Encoder], given: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["filler"].fill(given, **options))
    for text, masks in each(given, found) if found is not None else []:
        assert 1 <= len(masks) <= text.count("[MASK]")
        for fillings in masks:
            assert 1 <= len(fillings) <= options.get("top_k", 5)
            assert [filling.score for filling in fillings] == sorted((one.score for one in fillings), reverse=True)


@wild
@given(
    st.sampled_from(["filler", "decoder"]),
    batches,
    st.fixed_dictionaries({}, optional={"truncate": st.sampled_from(["right", "left", None])}),
)
def test_log_probs(encoders: dict[str, Encoder], model: str, given: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders[model].log_probs(given, **options))
    for text, tokens in each(given, found) if found is not None else []:
        assert tokens
        assert all(token.text == text[token.start : token.stop] and token.log_prob <= 1e-5 for token in tokens)


@wild
@given(
    batches,
    batches,
    st.fixed_dictionaries(
        {}, optional={"dimensions": numbers, "input_type": st.sampled_from(["query", "document", "both"]), **truncate}
    ),
)
def test_multivector(encoders: dict[str, Encoder], given: Any, query: Any, options: dict[str, Any]) -> None:
    encoder = encoders["colbert"]
    found = answered(lambda: encoder.multivector(given, **options))
    asked = answered(lambda: encoder.multivector(query, input_type="query"))
    every = [vectors for _, vectors in each(given, found)] if found is not None else []
    for vectors in every:
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    scores = answered(lambda: encoder.max_similarity(asked, every))
    assert scores is None or all(abs(score) <= len(asked) + 1e-3 for score in scores)


@wild
@given(
    st.sampled_from(["filler", "splade", "bge_m3"]),
    batches,
    st.fixed_dictionaries(
        {},
        optional={
            "input_type": st.sampled_from(["query", "document", "passage"]),
            "top_k": st.none() | numbers,
            "threshold": st.floats(),
            "prompt": texts,
            **truncate,
        },
    ),
)
def test_sparse(encoders: dict[str, Encoder], model: str, given: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders[model].sparse(given, **options))
    for _, vector in each(given, found) if found is not None else []:
        weights = vector.weights.tolist()
        assert weights == sorted(weights, reverse=True)
        assert all(weight > options.get("threshold", 0) for weight in weights)
        assert len(vector) <= (options.get("top_k") or len(vector))
        assert len({token.token for token in vector}) == len(vector)


@wild
@given(
    texts | st.lists(texts | anything, max_size=2),
    texts | st.lists(texts | anything, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "top_k": numbers,
            "no_answer": st.booleans(),
            "answer_tokens": numbers,
            "align_to_words": st.booleans(),
            **windows,
        },
    ),
)
def test_answer(encoders: dict[str, Encoder], question: Any, context: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["answerer"].answer(question, context, **options))
    if found is None:
        return
    one = isinstance(question, str) and isinstance(context, str)
    contexts = [context] * len(found) if isinstance(context, str) else context
    for text, answers in zip(contexts, [found] if one else found, strict=False):
        assert all(answer.text == text[answer.start : answer.stop] for answer in answers)


@wild
@given(
    masked | st.lists(masked, min_size=1, max_size=3) | batches,
    st.lists(st.sampled_from([*SEVERAL]), max_size=4) | st.lists(words | anything, max_size=2) | words,
    st.fixed_dictionaries({}, optional={"prompt": st.none() | texts, **truncate}),
)
def test_run(encoders: dict[str, Encoder], given: Any, heads: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["heads"].run(given, heads, **options))
    for text, answers in each(given, found) if found is not None else []:
        assert list(answers) == heads
        assert all(entity.text == text[entity.start : entity.stop] for entity in answers.get("entities", []))
        assert all(len(answers[name]) == len(SEVERAL[name].labels) for name in {"mood", "harm"} & {*heads})


@wild
@given(batches, st.sampled_from(["classify", "tag", "embed", "fill", "log_probs"]), words | st.sampled_from([*SEVERAL]))
def test_heads_by_name(encoders: dict[str, Encoder], given: Any, task: str, head: str) -> None:
    found = answered(lambda: getattr(encoders["heads"], task)(given, head=head))
    assert found is None or SEVERAL[head].kind == ("fill" if task == "log_probs" else task)


chunks = st.lists(texts, min_size=1, max_size=4)
spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)) | anything, max_size=3)


@wild
@given(
    st.lists(chunks | st.tuples(texts, spans) | anything, max_size=3) | st.lists(chunks, min_size=1, max_size=3),
    st.fixed_dictionaries({}, optional={"overlap": st.none() | numbers, "dimensions": numbers, "prompt": texts}),
)
def test_embed_chunks(encoders: dict[str, Encoder], given: Any, options: dict[str, Any]) -> None:
    found = answered(lambda: encoders["embedder"].embed_chunks(given, **options))
    for document, rows in zip(given, found, strict=True) if found is not None else []:
        assert len(rows) == len(document[1] if isinstance(document, tuple) else document)
        assert np.isfinite(rows).all()
