"""onepass's own routes: what Encoder's methods give, with what it cost, and errors by their code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from live import Live, listening, load
from tiny import TEXT

from onepass.encoder import Encoder
from onepass.server.native.similarity import MOST_COSINES
from onepass.settings import ServerSettings

NAMES = [
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
]
AWKWARD = "Anna 👩‍👩‍👧 met שלום cafe\u0301 at\r\nZürich."
LONG = " ".join(TEXT)


@pytest.fixture(scope="module")
def encoders(request: pytest.FixtureRequest) -> dict[str, Encoder]:
    paths: list[Path] = [request.getfixturevalue(f"tiny_{name}") for name in NAMES]
    return load(*zip(NAMES, paths, strict=True))


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


def post(live: Live, task: str, **body: Any) -> httpx.Response:
    return live.http.post(f"/onepass/v1/{task}", json=body)


def answered(live: Live, task: str, **body: Any) -> dict[str, Any]:
    response = post(live, task, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert list(answer) == ["model", "results", "usage"]
    assert response.headers["x-compute-tokens"] == str(answer["usage"]["tokens"])
    return answer


def results(live: Live, task: str, **body: Any) -> Any:
    return answered(live, task, **body)["results"]


def close(a: Any, b: Any) -> bool:
    return np.allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=1e-6)


def rounded(found: Any) -> Any:
    """Without the last digits of scores, which depend on nothing but are not worth a comparison."""
    if isinstance(found, float):
        return pytest.approx(found, abs=1e-6)
    if isinstance(found, dict):
        return {name: rounded(value) for name, value in found.items()}
    return [rounded(one) for one in found] if isinstance(found, list | tuple) else found


def test_embed_takes_what_the_method_takes(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["embedder"]
    texts = ["cats sleep", "who wrote the letter?"]
    assert close(results(live, "embed", model="embedder", texts=texts), encoder.embed(texts))
    assert close(results(live, "embed", model="embedder", texts="cats"), [encoder.embed("cats")])
    packed = results(live, "embed", model="embedder", texts=texts, precision="binary", dimensions=16)
    assert packed == encoder.embed(texts, precision="binary", dimensions=16).tolist()
    ids = [token.id for token in encoder.tokenizer.tokens("cats", special=False)]
    assert close(results(live, "embed", model="embedder", texts=[ids]), [encoder.embed("cats")])


def test_embed_chunks_takes_texts_and_characters(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["embedder"]
    chunks = [f"{sentence} " for sentence in TEXT]
    documents = [chunks, {"text": AWKWARD, "chunks": [[0, 4], [5, 22]]}]
    answer = answered(live, "embed_chunks", model="embedder", documents=documents, overlap=3)
    expected = encoder.embed_chunks([chunks, (AWKWARD, [(0, 4), (5, 22)])], overlap=3)
    assert [len(one) for one in answer["results"]] == [len(chunks), 2]
    assert all(map(close, answer["results"], expected))
    assert answer["usage"]["windows"] >= 2
    ranges = [[-0.5] * 32, [0.5] * 32]
    found = results(live, "embed_chunks", model="embedder", documents=[chunks[:2]], precision="uint8", ranges=ranges)
    assert found == [encoder.embed_chunks([chunks[:2]], precision="uint8", ranges=ranges)[0].tolist()]


def test_similarity_is_a_row_for_each_of_a(live: Live, encoders: dict[str, Encoder]) -> None:
    a, b = ["cats", "dogs"], ["cats sleep", "dogs sleep", "bread"]
    assert close(results(live, "similarity", model="embedder", a=a, b=b), encoders["embedder"].similarity(a, b))


def test_rerank_and_classify(live: Live, encoders: dict[str, Encoder]) -> None:
    ranking = encoders["reranker"].rerank("cats", TEXT, top_n=3)
    found = results(live, "rerank", model="reranker", query="cats", documents=TEXT, top_n=3)
    assert found == rounded([{"index": one.index, "score": one.score} for one in ranking])
    texts: list[Any] = ["I loved this film.", ("I hated", "this film")]
    labels = results(live, "classify", model="classifier", texts=texts)
    expected = encoders["classifier"].classify(texts)
    assert labels == rounded([[{"label": label, "score": score} for label, score in row] for row in expected])


def test_tag_fill_and_answer(live: Live, encoders: dict[str, Encoder]) -> None:
    for options in ({}, {"aggregation": "none", "ignore_labels": []}, {"aggregation": "max", "window": 12}):
        tagged = encoders["tagger"].tag([AWKWARD, LONG], **options)
        found = results(live, "tag", model="tagger", texts=[AWKWARD, LONG], **options)
        assert found == rounded([[asdict(entity) for entity in entities] for entities in tagged])
    filled = encoders["filler"].fill("The [MASK] to the [MASK]", top_k=3, candidates=["train", "coast", "cats"])
    found = results(
        live, "fill", model="filler", texts="The [MASK] to the [MASK]", top_k=3, candidates=["train", "coast", "cats"]
    )
    assert found == rounded([[[asdict(filling) for filling in mask] for mask in filled]])
    answers = encoders["answerer"].answer("Who counts sacks?", [AWKWARD, LONG], top_k=3, no_answer=True)
    found = results(
        live, "answer", model="answerer", question="Who counts sacks?", context=[AWKWARD, LONG], top_k=3, no_answer=True
    )
    assert found == rounded([[asdict(answer) for answer in one] for one in answers])


def test_labels_of_the_callers_own_and_log_probs(live: Live, encoders: dict[str, Encoder]) -> None:
    options: dict[str, Any] = {"labels": ["trains", "cats"], "template": "Of {}.", "multi_label": True, "long": "mean"}
    expected = encoders["entailer"].classify([AWKWARD, LONG], **options)
    found = results(live, "classify", model="entailer", texts=[AWKWARD, LONG], **options)
    assert found == rounded([[{"label": label, "score": score} for label, score in row] for row in expected])
    for model in ("decoder", "filler"):
        tokens = encoders[model].log_probs([AWKWARD, "cats sleep"])
        found = results(live, "log_probs", model=model, texts=[AWKWARD, "cats sleep"])
        assert found == rounded([[asdict(token) for token in text] for text in tokens])


def test_multivector_is_a_list_of_vectors_for_each_text(live: Live, encoders: dict[str, Encoder]) -> None:
    for options in ({}, {"input_type": "query"}, {"dimensions": 5}):
        found = results(live, "multivector", model="colbert", texts=[AWKWARD, "cats"], **options)
        assert all(map(close, found, encoders["colbert"].multivector([AWKWARD, "cats"], **options)))
    cut = answered(live, "multivector", model="colbert", texts=LONG)
    assert cut["usage"] == {"tokens": 40, "truncated": 1, "windows": 0}


def test_run_and_heads_by_name(live: Live, encoders: dict[str, Encoder]) -> None:
    texts, heads = [AWKWARD, "cats sleep"], ["embed", "mood", "entities", "harm"]
    found = results(live, "run", model="heads", texts=texts, heads=heads)
    for answers, expected in zip(found, encoders["heads"].run(texts, heads), strict=True):
        assert list(answers) == heads
        assert close(answers["embed"], expected["embed"])
        for name in ("mood", "harm"):
            assert answers[name] == rounded([{"label": label, "score": score} for label, score in expected[name]])
        assert answers["entities"] == rounded([asdict(entity) for entity in expected["entities"]])
    labels = results(live, "classify", model="heads", texts="cats sleep", head="mood")
    assert labels == rounded([found[1]["mood"]])
    described = live.http.get("/info", params={"model": "heads"}).json()
    assert described["heads"]["mood"] == {"kind": "classify", "labels": ["negative", "neutral", "positive"]}
    assert described["model_type"] == {"embedding": {"pooling": "mean"}}


def test_sparse_vectors_are_written_as_weights(live: Live, encoders: dict[str, Encoder]) -> None:
    texts = [AWKWARD, LONG, *TEXT]
    for options in ({"input_type": "query", "threshold": 0.5}, {"top_k": 300}):
        vectors = encoders["splade"].sparse(texts, **options)
        found = results(live, "sparse", model="splade", texts=texts, **options)
        assert found == rounded([[asdict(weight) for weight in vector] for vector in vectors])


def test_what_was_cut_and_what_was_read_in_windows_is_said(live: Live) -> None:
    cut = post(live, "embed", model="embedder", texts=[LONG, "cats"])
    assert cut.json()["usage"] == {"tokens": 64 + 3, "truncated": 1, "windows": 0}
    assert cut.headers["x-onepass-truncated"] == "1"
    assert "x-onepass-windows" not in cut.headers
    windows = post(live, "tag", model="tagger", texts=LONG, overlap=0)
    assert windows.json()["usage"]["windows"] == int(windows.headers["x-onepass-windows"]) > 3
    assert windows.json()["usage"]["truncated"] == 0


def test_truncate_is_the_requests_and_else_the_servers(live: Live, encoders: dict[str, Encoder]) -> None:
    left = results(live, "embed", model="embedder", texts=LONG, truncate="left")
    assert close(left, [encoders["embedder"].embed(LONG, truncate="left")])
    assert post(live, "embed", model="embedder", texts=LONG, truncate=None).json()["error"]["code"] == "input_too_long"
    with listening(lambda: encoders, ServerSettings(auto_truncate=False)) as strict:
        assert post(strict, "embed", model="embedder", texts=LONG).json()["error"]["code"] == "input_too_long"
        assert post(strict, "embed", model="embedder", texts=LONG, truncate="right").status_code == 200


@pytest.mark.parametrize(
    ("task", "body", "status", "code", "words"),
    [
        ("tag", {"model": "filler", "texts": "a"}, 422, "wrong_task", "this model cannot tag"),
        ("tag", {"model": "tagger", "texts": []}, 400, "empty_input", "send at least one"),
        ("tag", {"model": "tagger", "texts": "a", "agregation": "max"}, 422, "invalid_input", "agregation"),
        ("tag", {"model": "tagger", "texts": "a", "overlap": 64}, 422, "invalid_input", "overlap is 64 tokens"),
        ("fill", {"model": "filler", "texts": "no mask"}, 422, "invalid_input", "holds no [MASK]"),
        ("fill", {"model": "filler", "texts": "[MASK]", "top_k": 1001}, 422, "invalid_input", "1000"),
        (
            "answer",
            {"model": "answerer", "question": ["a", "b"], "context": ["c"]},
            422,
            "invalid_input",
            "2 questions",
        ),
        ("classify", {"model": "classifier", "texts": [["a", "b", "c"]]}, 422, "invalid_input", "texts"),
        ("rerank", {"model": "reranker", "query": "a", "documents": []}, 400, "empty_input", "send at least one"),
        ("similarity", {"model": "embedder", "a": [], "b": "c"}, 400, "empty_input", "`a` is an empty list"),
        ("similarity", {"model": "embedder", "a": ["c"] * 2049, "b": ["c"] * 2048}, 413, "too_large", "2049"),
        ("embed", {"model": "nobody", "texts": "a"}, 404, "unknown_model", "'nobody'"),
        ("embed", {"model": "embedder"}, 422, "invalid_input", "texts"),
    ],
)
def test_errors_have_a_code_and_one_sentence(
    live: Live, task: str, body: dict[str, Any], status: int, code: str, words: str
) -> None:
    assert MOST_COSINES == 2048**2
    response = post(live, task, **body)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert response.json()["error"]["code"] == code
    assert words in response.json()["error"]["message"]


def test_every_task_counts_as_a_request(live: Live) -> None:
    before = live.metric('te_request_success{method="batch",model="tagger"}')
    results(live, "tag", model="tagger", texts=["a", "b"])
    assert live.metric('te_request_success{method="batch",model="tagger"}') == before + 1
