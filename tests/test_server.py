"""What the routes answer: the numbers of the library in the shape of each wire format."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import Live, listening, load

from onepass.encoder import Encoder

TASKS = {
    "embed",
    "embed_chunks",
    "similarity",
    "rerank",
    "classify",
    "tag",
    "fill",
    "answer",
    "log_probs",
    "multivector",
}
TASKS |= {"sparse", "run", "moderate"}
TEXTS = ["A cat sits on the mat.", "Die Börse fällt", "猫が好きです", "one"]


@pytest.fixture(scope="module")
def encoders(minilm: Path, tiny_classifier: Path, tiny_multilabel: Path, tiny_reranker: Path) -> dict[str, Encoder]:
    return load(
        ("minilm", minilm),
        ("classifier", tiny_classifier),
        ("multilabel", tiny_multilabel),
        ("reranker", tiny_reranker),
    )


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


def post(live: Live, path: str, **body: Any) -> Any:
    response = live.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def close(a: Any, b: Any) -> bool:
    return np.allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=1e-6)


def test_embed_gives_the_librarys_vectors(live: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["minilm"].embed(TEXTS)
    assert close(post(live, "/embed", inputs=TEXTS, model="minilm"), expected)
    assert close(post(live, "/embed", inputs=TEXTS[0], model="minilm"), expected[:1])


def test_embed_cuts_dimensions_and_normalises_again(live: Live, encoders: dict[str, Encoder]) -> None:
    (vector,) = post(live, "/embed", inputs="one", model="minilm", dimensions=16)
    whole = encoders["minilm"].embed("one")[:16]
    assert len(vector) == 16
    assert close(vector, whole / np.linalg.norm(whole))
    (raw,) = post(live, "/embed", inputs="one", model="minilm", normalize=False)
    assert not math.isclose(float(np.linalg.norm(raw)), 1, abs_tol=1e-3)


def test_embed_takes_ids_with_their_special_tokens_as_they_are(live: Live, encoders: dict[str, Encoder]) -> None:
    (tokens,) = post(live, "/tokenize", inputs=TEXTS[0], model="minilm")
    ids = [token["id"] for token in tokens]
    expected = encoders["minilm"].embed(TEXTS[0])
    assert close(post(live, "/embed", inputs=ids, model="minilm"), [expected])
    assert close(post(live, "/embed", inputs=[ids, TEXTS[0]], model="minilm"), [expected, expected])


def test_openai_floats_base64_and_ids_agree(live: Live, encoders: dict[str, Encoder]) -> None:
    floats = post(live, "/v1/embeddings", input=TEXTS, model="minilm")
    coded = post(live, "/embeddings", input=TEXTS, model="minilm", encoding_format="base64")
    expected = encoders["minilm"].embed(TEXTS)
    assert close([row["embedding"] for row in floats["data"]], expected)
    assert close([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in coded["data"]], expected)
    assert [row["index"] for row in floats["data"]] == [0, 1, 2, 3]
    ids = [token.id for token in encoders["minilm"].tokenizer.tokens(TEXTS[0], special=False)]
    one = post(live, "/v1/embeddings", input=ids, model="minilm")
    many = post(live, "/v1/embeddings", input=[ids, ids], model="minilm")
    assert close([one["data"][0]["embedding"]], expected[:1])
    assert close([row["embedding"] for row in many["data"]], expected[[0, 0]])


def test_openai_counts_the_tokens_computed(live: Live, encoders: dict[str, Encoder]) -> None:
    answer = post(live, "/v1/embeddings", input=TEXTS, model="minilm")
    tokens = sum(len(encoders["minilm"].tokenizer.tokens(text)) for text in TEXTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer["object"], answer["model"]) == ("list", "minilm")


def test_a_long_answer_comes_in_pieces_and_is_the_same(live: Live, encoders: dict[str, Encoder]) -> None:
    texts = [f"text {number}" for number in range(300)]
    expected = encoders["minilm"].embed(texts)
    assert close(post(live, "/embed", inputs=texts, model="minilm"), expected)
    rows = post(live, "/v1/embeddings", input=texts, model="minilm")["data"]
    assert [row["index"] for row in rows] == list(range(300))
    assert close([row["embedding"] for row in rows], expected)


def test_predict_one_text_one_pair_and_a_batch(live: Live, encoders: dict[str, Encoder]) -> None:
    def expected(item: Any) -> list[dict[str, Any]]:
        (labels,) = encoders["classifier"].classify([item])
        return [{"score": pytest.approx(score, abs=1e-6), "label": label} for label, score in labels]

    assert post(live, "/predict", inputs="good", model="classifier") == expected("good")
    assert post(live, "/predict", inputs=["good"], model="classifier") == expected("good")
    assert post(live, "/predict", inputs=["good", "bad"], model="classifier") == expected(("good", "bad"))
    batch = post(live, "/predict", inputs=[["good"], ["good", "bad"]], model="classifier")
    assert batch == [expected("good"), expected(("good", "bad"))]
    assert sum(row["score"] for row in batch[0]) == pytest.approx(1)


def test_predict_raw_scores_and_multilabel(live: Live) -> None:
    scores = {row["label"]: row["score"] for row in post(live, "/predict", inputs="good", model="multilabel")}
    logits = post(live, "/predict", inputs="good", model="multilabel", raw_scores=True)
    assert len(scores) == 4
    for row in logits:
        assert scores[row["label"]] == pytest.approx(1 / (1 + math.exp(-row["score"])), abs=1e-6)


def test_rerank_in_three_dialects(live: Live, encoders: dict[str, Encoder]) -> None:
    documents = ["cats are animals", "the stock market fell", "a dog"]
    expected = encoders["reranker"].rerank("what is a cat", documents)
    order = [one.index for one in expected]
    tei = post(live, "/rerank", query="what is a cat", texts=documents, model="reranker", return_text=True)
    assert [row["index"] for row in tei] == order
    assert [row["text"] for row in tei] == [documents[index] for index in order]
    assert close([row["score"] for row in tei], [one.score for one in expected])
    v1 = post(live, "/v1/rerank", query="what is a cat", documents=documents, model="reranker")
    assert [row["index"] for row in v1["results"]] == order
    assert v1["results"][0]["document"] == {"text": documents[order[0]]}
    assert v1["usage"]["total_tokens"] == v1["meta"]["tokens"]["input_tokens"] > 0
    v2 = post(live, "/v2/rerank", query="what is a cat", documents=documents, model="reranker", top_n=2)
    assert [row["index"] for row in v2["results"]] == order[:2]
    assert set(v2["results"][0]) == {"index", "relevance_score"}
    assert all(0 <= row["relevance_score"] <= 1 for row in v1["results"] + v2["results"])


def test_an_embedder_reranks_by_cosines_from_0_to_1(live: Live, encoders: dict[str, Encoder]) -> None:
    documents = ["cats are animals", "the stock market fell", "a dog"]
    expected = encoders["minilm"].rerank("what is a cat", documents)
    unit = [(1 + one.score) / 2 for one in expected]
    tei = post(live, "/rerank", query="what is a cat", texts=documents, model="minilm")
    raw = post(live, "/rerank", query="what is a cat", texts=documents, model="minilm", raw_scores=True)
    v2 = post(live, "/v2/rerank", query="what is a cat", documents=documents, model="minilm")
    for rows in (tei, raw, v2["results"]):
        assert [row["index"] for row in rows] == [one.index for one in expected]
    assert close([row["score"] for row in tei], unit)
    assert close([row["relevance_score"] for row in v2["results"]], unit)
    assert close([row["score"] for row in raw], [one.score for one in expected])


def test_rerank_reads_the_fields_asked_for(live: Live, encoders: dict[str, Encoder]) -> None:
    documents = [{"title": "cats", "text": "are animals", "year": 3}, {"title": "dogs", "text": "bark"}]
    v1 = post(live, "/v1/rerank", query="cat", documents=documents, model="reranker", rank_fields=["title", "text"])
    expected = encoders["reranker"].rerank("cat", ["cats\nare animals", "dogs\nbark"])
    assert close([row["relevance_score"] for row in v1["results"]], [one.score for one in expected])
    assert v1["results"][0]["document"] == documents[expected[0].index]
    silent = post(live, "/v1/rerank", query="cat", documents=documents, model="reranker", return_documents=False)
    assert "document" not in silent["results"][0]
    by_text = encoders["reranker"].rerank("cat", ["are animals", "bark"])
    assert close([row["relevance_score"] for row in silent["results"]], [one.score for one in by_text])


def test_max_tokens_per_doc_cuts_documents_and_says_so(live: Live) -> None:
    long, short = "cats are small animals that like milk", "cats are"
    cut = post(live, "/v2/rerank", query="cat", documents=[long], model="reranker", max_tokens_per_doc=2)
    whole = post(live, "/v2/rerank", query="cat", documents=[short], model="reranker")
    (tokens,) = post(live, "/tokenize", inputs=short, model="reranker", add_special_tokens=False)
    same = post(live, "/v2/rerank", query="cat", documents=[long], model="reranker", max_tokens_per_doc=len(tokens))
    assert same["results"] == whole["results"]
    assert cut["results"] != post(live, "/v2/rerank", query="cat", documents=[long], model="reranker")["results"]
    assert cut["meta"]["warnings"] == ["1 of the texts were cut because they are longer than allowed"]


def test_similarity_is_the_cosine(live: Live, encoders: dict[str, Encoder]) -> None:
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    expected = encoders["minilm"].similarity(TEXTS[0], TEXTS[1:])[0]
    assert close(post(live, "/similarity", inputs=inputs, model="minilm"), expected)


def test_tokenize_gives_byte_offsets_and_decode_gives_text_back(live: Live) -> None:
    (tokens,) = post(live, "/tokenize", inputs="héllo you", model="minilm")
    assert tokens == [
        {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
        {"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 6},
        {"id": 2017, "text": "you", "special": False, "start": 7, "stop": 10},
        {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
    ]
    plain = post(live, "/tokenize", inputs=["hello", "you"], model="minilm", add_special_tokens=False)
    assert [[token["id"] for token in row] for row in plain] == [[7592], [2017]]
    assert post(live, "/decode", ids=[101, 7592, 2017, 102], model="minilm") == ["hello you"]
    assert post(live, "/decode", ids=[[101, 7592], [2017]], model="minilm", skip_special_tokens=False) == [
        "[CLS] hello",
        "you",
    ]


def test_the_root_does_what_the_model_is_for(live: Live) -> None:
    def same(path: str, **body: Any) -> bool:
        return bool(post(live, "/", **body) == post(live, path, **body))

    assert same("/embed", inputs=TEXTS, model="minilm")
    assert same("/similarity", inputs={"source_sentence": "a", "sentences": ["b"]}, model="minilm")
    assert same("/predict", inputs="good", model="classifier")
    assert same("/rerank", query="a", texts=["b", "c"], model="reranker")


def test_timings_truncation_and_dtype_travel_in_headers(live: Live, encoders: dict[str, Encoder]) -> None:
    response = live.http.post("/embed", json={"inputs": ["cat " * 600, "dog"], "model": "minilm"})
    engine = encoders["minilm"].engine
    headers = response.headers
    assert headers["x-onepass-truncated"] == "1"
    assert headers["x-compute-tokens"] == str(encoders["minilm"].checkpoint.max_length + 3)
    assert headers["x-compute-characters"] == "2403"
    assert (headers["x-onepass-engine"], headers["x-onepass-dtype"]) == (engine.name, engine.dtype)
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert headers[f"x-{name}-time"].isdecimal()
    spans = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
    assert set(spans) == {"total", "tokenization", "queue", "inference"}
    assert float(spans["total"]) >= float(spans["inference"]) > 0
    assert "x-onepass-truncated" not in live.http.post("/embed", json={"inputs": "dog", "model": "minilm"}).headers


def test_truncation_takes_the_side_asked_for(live: Live) -> None:
    many = " ".join(["cat"] * 300 + ["dog"] * 300)
    right = post(live, "/embed", inputs=many, model="minilm", truncate=True)
    left = post(live, "/embed", inputs=many, model="minilm", truncate=True, truncation_direction="Left")
    assert close(right, post(live, "/embed", inputs=" ".join(["cat"] * 254), model="minilm"))
    assert close(left, post(live, "/embed", inputs=" ".join(["dog"] * 254), model="minilm"))


def test_info_and_models(live: Live, encoders: dict[str, Encoder]) -> None:
    info = live.http.get("/info", params={"model": "minilm"}).json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["served_model_name"], info["max_input_length"]) == ("minilm", encoders["minilm"].checkpoint.max_length)
    assert info["model_dtype"] == encoders["minilm"].engine.dtype
    ranker = live.http.get("/info", params={"model": "reranker"}).json()["model_type"]["reranker"]
    assert list(ranker["label2id"].values()) == [0]
    models = live.http.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == list(encoders)
    assert {model["object"] for model in models["data"]} == {"model"}


def test_probes_of_a_ready_server(live: Live) -> None:
    for path in ("/health", "/ping", "/"):
        response = live.http.get(path)
        assert (response.status_code, response.content) == (200, b"")
    assert live.http.get("/readyz").status_code == live.http.get("/livez").status_code == 200


def test_the_openapi_document_describes_every_route(live: Live) -> None:
    document = live.http.get("/openapi.json").json()
    routes = {"/embed", "/predict", "/rerank", "/similarity", "/tokenize", "/decode", "/"}
    routes |= {"/v1/embeddings", "/embeddings", "/v1/rerank", "/v2/rerank", "/v1/embed", "/v2/embed"}
    routes |= {"/v1/moderations"}
    routes |= {"/embed_all", "/embed_sparse", "/invocations", "/vertex"}
    routes |= {"/api/embed", "/api/embeddings", "/api/show"}
    routes |= {f"/onepass/v1/{task}" for task in TASKS}
    routes |= {"/models/{model}", "/models/{model}/pipeline/{task}", "/pipeline/{task}/{model}", "/predict_tokens"}
    routes |= {"/classify", "/score", "/v1/score", "/pooling", "/detokenize"}
    assert {path for path, methods in document["paths"].items() if "post" in methods} == routes
    schemas = document["components"]["schemas"]
    references = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document))
    assert references
    assert set(references) <= set(schemas)
    embed = document["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert set(schemas[embed.rpartition("/")[2]]["properties"]) >= {"inputs", "normalize", "dimensions", "truncate"}


def test_the_docs_page_needs_nothing_from_elsewhere(live: Live) -> None:
    page = live.http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "/v1/embeddings" in page.text
    assert not re.search(r"<script|<link|<img|src=|https?://", page.text)


def test_one_model_needs_no_name(encoders: dict[str, Encoder]) -> None:
    with listening(lambda: {"only": encoders["minilm"]}) as live:
        unnamed = post(live, "/embed", inputs="one")
        assert (
            unnamed == post(live, "/embed", inputs="one", model="") == post(live, "/embed", inputs="one", model="only")
        )
        assert post(live, "/v1/embeddings", input="one")["model"] == "only"
        assert live.http.get("/info").json()["served_model_name"] == "only"
        wrong = live.http.post("/embed", json={"inputs": "one", "model": "other"})
        assert wrong.status_code == 404
        assert wrong.json()["error"] == "the model 'other' is not served here; `model` may be 'only'"
