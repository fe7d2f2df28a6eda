"""vLLM's pooling routes: the numbers of the library in the bytes that its server sends."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from live import Live, listening, load

from onepass.encoder import Encoder

MODELS = ["embedder", "classifier", "multilabel", "reranker", "tagger", "filler", "colbert", "asked"]
TEXTS = ["A cat sits on the mat.", "The stock market fell."]
SIDES = [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
LONG = "the miller grinds corn " * 40


@pytest.fixture(scope="module")
def folders(request: pytest.FixtureRequest) -> dict[str, Path]:
    return {name: request.getfixturevalue(f"tiny_{name}") for name in MODELS}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> dict[str, Encoder]:
    return load(*folders.items(), dtype="float32")


@pytest.fixture(scope="module")
def live(encoders: dict[str, Encoder]) -> Iterator[Live]:
    with listening(lambda: encoders) as live:
        yield live


def sent(live: Live, path: str, **body: Any) -> Any:
    response = live.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def tokens_of(encoder: Encoder, *texts: str) -> int:
    return sum(len(encoder.tokenizer.tokens(text)) for text in texts)


def ids_of(encoder: Encoder, text: str, *, special: bool = True) -> list[int]:
    return [token.id for token in encoder.tokenizer.tokens(text, special=special)]


def used(tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


def framed(answer: Any, kind: str, model: str, tokens: int) -> Any:
    """The data of an answer whose other fields are as they should be."""
    assert list(answer) == ["id", "object", "created", "model", "data", "usage"]
    assert re.fullmatch(kind + "-[0-9a-f]{32}", answer["id"])
    assert (answer["object"], answer["model"], answer["usage"]) == ("list", model, used(tokens))
    assert isinstance(answer["created"], int)
    assert [row["index"] for row in answer["data"]] == list(range(len(answer["data"])))
    return answer["data"]


def reference(kind: Any, folder: Path, *texts: Any) -> torch.Tensor:
    """Logits of a text or a pair by transformers."""
    model = kind.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(*texts, return_tensors="pt", truncation=True)).logits[0]


@pytest.mark.parametrize("name", ["classifier", "multilabel", "reranker"])
def test_classify(live: Live, encoders: dict[str, Encoder], folders: dict[str, Path], name: str) -> None:
    data = framed(sent(live, "/classify", model=name, input=TEXTS), "classify", name, tokens_of(encoders[name], *TEXTS))
    (head,) = [head for head in encoders[name].checkpoint.heads.values() if head.kind == "classify"]
    raw = sent(live, "/classify", model=name, input=TEXTS, use_activation=False)["data"]
    for text, row, logits in zip(TEXTS, data, raw, strict=True):
        expected = reference(transformers.AutoModelForSequenceClassification, folders[name], text)
        assert np.allclose(logits["probs"], expected, atol=1e-5)
        chances = expected.softmax(-1) if head.finish == "softmax" else expected.sigmoid()
        assert np.allclose(row["probs"], chances, atol=1e-5)
        assert row["num_classes"] == len(head.labels) == len(row["probs"])
        assert row["label"] == head.labels[int(chances.argmax())]
        assert list(row) == ["index", "label", "probs", "num_classes"]


def test_ids_are_taken_as_they_are(live: Live, encoders: dict[str, Encoder]) -> None:
    whole = ids_of(encoders["classifier"], TEXTS[0])
    expected = sent(live, "/classify", model="classifier", input=TEXTS[0])["data"]
    assert sent(live, "/classify", model="classifier", input=whole)["data"] == expected
    assert sent(live, "/classify", model="classifier", input=[whole])["data"] == expected
    bare = ids_of(encoders["classifier"], TEXTS[0], special=False)
    without = sent(live, "/classify", model="classifier", input=TEXTS[0], add_special_tokens=False)
    assert without["data"] == sent(live, "/classify", model="classifier", input=bare)["data"] != expected
    assert without["usage"] == used(len(bare))


def test_the_id_of_a_request_is_kept(live: Live) -> None:
    assert sent(live, "/classify", model="classifier", input="a", request_id="mine")["id"] == "classify-mine"


@pytest.mark.parametrize("side", ["left", "right"])
def test_cut_where_asked(live: Live, encoders: dict[str, Encoder], side: Any) -> None:
    limit = encoders["embedder"].checkpoint.max_length
    body = {"model": "embedder", "input": LONG, "truncation_side": side}
    for path in ("/pooling", "/classify"):
        refused = live.http.post(path, json={**body, "model": "embedder" if path == "/pooling" else "classifier"})
        assert refused.status_code == 400
        assert "shorten it or turn truncation on" in refused.json()["error"]["message"]
    response = live.http.post("/pooling", json={**body, "truncate_prompt_tokens": -1})
    assert response.headers["x-onepass-truncated"] == "1"
    assert response.json()["usage"] == used(limit)
    assert np.allclose(response.json()["data"][0]["data"], encoders["embedder"].embed(LONG, truncate=side), atol=1e-6)
    short = sent(live, "/pooling", **body, truncate_prompt_tokens=7)
    ids = ids_of(encoders["embedder"], LONG)
    kept = [ids[0], *(ids[1:6] if side == "right" else ids[-6:-1]), ids[-1]]
    assert short["data"] == sent(live, "/pooling", model="embedder", input=kept)["data"]
    assert short["usage"] == used(7)


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
def test_score_by_any_names(live: Live, encoders: dict[str, Encoder], folders: dict[str, Path], names: Any) -> None:
    kind = transformers.AutoModelForSequenceClassification
    expected = [reference(kind, folders["reranker"], "cat", text).sigmoid().item() for text in TEXTS]
    for path in ("/score", "/v1/score"):
        answer = sent(live, path, model="reranker", **dict(zip(names, ("cat", TEXTS), strict=True)))
        tokens = sum(
            len(transformers.AutoTokenizer.from_pretrained(folders["reranker"])("cat", text).input_ids)
            for text in TEXTS
        )
        data = framed(answer, "score", "reranker", tokens)
        assert np.allclose([row["score"] for row in data], expected, atol=1e-5)
        assert [list(row) for row in data] == [["index", "object", "score"]] * 2
        assert {row["object"] for row in data} == {"score"}


def test_score_of_as_many_with_as_many(live: Live, folders: dict[str, Path]) -> None:
    kind = transformers.AutoModelForSequenceClassification
    answer = sent(live, "/score", model="reranker", queries=["cat", "stock"], documents=TEXTS, use_activation=False)
    expected = [
        reference(kind, folders["reranker"], *pair).item() for pair in zip(["cat", "stock"], TEXTS, strict=True)
    ]
    assert np.allclose([row["score"] for row in answer["data"]], expected, atol=1e-5)
    alone = sent(live, "/score", model="reranker", queries="cat", documents=TEXTS[0])
    assert len(alone["data"]) == 1


def test_score_by_vectors(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["embedder"]
    cosines = encoder.similarity(TEXTS, TEXTS)
    found = sent(live, "/score", model="embedder", queries=TEXTS[0], documents=TEXTS)
    assert np.allclose([row["score"] for row in found["data"]], cosines[0], atol=1e-6)
    assert found["usage"] == used(tokens_of(encoder, TEXTS[0], *TEXTS))
    zipped = sent(live, "/score", model="embedder", queries=TEXTS, documents=TEXTS[::-1])
    assert np.allclose([row["score"] for row in zipped["data"]], cosines[0, 1], atol=1e-6)


def test_score_by_vectors_of_tokens(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["colbert"]
    queries = encoder.multivector(TEXTS, input_type="query")
    documents = encoder.multivector(TEXTS)
    expected = [[float((query @ document.T).max(axis=1).sum()) for document in documents] for query in queries]
    found = sent(live, "/score", model="colbert", queries=TEXTS[0], documents=TEXTS)
    assert np.allclose([row["score"] for row in found["data"]], expected[0], atol=1e-4)
    zipped = sent(live, "/score", model="colbert", queries=TEXTS, documents=TEXTS)
    assert np.allclose([row["score"] for row in zipped["data"]], np.diag(expected), atol=1e-4)


def test_score_by_a_model_that_is_asked(live: Live, encoders: dict[str, Encoder]) -> None:
    expected = {one.index: one.score for one in encoders["asked"].rerank("cat", TEXTS)}
    found = sent(live, "/score", model="asked", queries="cat", documents=TEXTS)
    assert [row["score"] for row in found["data"]] == pytest.approx([expected[0], expected[1]], abs=1e-6)
    told = sent(live, "/score", model="asked", queries="cat", documents=TEXTS, instruction="Find what purrs.")
    expected = {one.index: one.score for one in encoders["asked"].rerank("cat", TEXTS, prompt="Find what purrs.")}
    assert [row["score"] for row in told["data"]] == pytest.approx([expected[0], expected[1]], abs=1e-6)
    assert told["data"] != found["data"]


def test_rerank(live: Live) -> None:
    documents = [*TEXTS, "cats"]
    scores = sent(live, "/score", model="reranker", queries="cat", documents=documents)
    answer = sent(live, "/rerank", model="reranker", query="cat", documents=documents)
    assert list(answer) == ["id", "model", "usage", "results"]
    tokens = scores["usage"]["prompt_tokens"]
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    best = sorted(scores["data"], key=lambda row: -row["score"])
    assert answer["results"] == [
        {
            "index": row["index"],
            "document": {"text": documents[row["index"]], "multi_modal": None},
            "relevance_score": row["score"],
        }
        for row in best
    ]
    two = sent(live, "/rerank", model="reranker", query="cat", documents=documents, top_n=2)
    assert two["results"] == answer["results"][:2]
    for path in ("/v1/rerank", "/v2/rerank"):  # whose bodies are Cohere's or Jina's unless a field is only vLLM's
        same = sent(live, path, model="reranker", query="cat", documents=documents, use_activation=True, top_n=0)
        assert same["results"] == answer["results"]
        assert list(sent(live, path, model="reranker", query="cat", documents=documents)) != list(answer)


def test_tokens_of_queries_and_documents_are_limited(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["reranker"]
    cut = [TEXTS[0][: encoder.tokenizer.tokens(TEXTS[0], special=False)[2].stop]]
    response = live.http.post(
        "/score", json={"model": "reranker", "queries": "cat", "documents": TEXTS[:1], "max_tokens_per_doc": 3}
    )
    assert response.headers["x-onepass-truncated"] == "1"
    assert response.json()["data"] == sent(live, "/score", model="reranker", queries="cat", documents=cut)["data"]
    query = sent(live, "/score", model="reranker", queries=TEXTS[0], documents="mat", max_tokens_per_query=3)
    assert query["data"] == sent(live, "/score", model="reranker", queries=cut, documents="mat")["data"]


def test_pooling_of_texts(live: Live, encoders: dict[str, Encoder]) -> None:
    tokens = tokens_of(encoders["embedder"], *TEXTS)
    data = framed(sent(live, "/pooling", model="embedder", input=TEXTS), "pooling", "embedder", tokens)
    assert np.allclose([row["data"] for row in data], encoders["embedder"].embed(TEXTS), atol=1e-6)
    assert [list(row) for row in data] == [["index", "object", "data"]] * 2
    assert {row["object"] for row in data} == {"pooling"}
    raw = sent(live, "/pooling", model="embedder", input=TEXTS, task="embed", use_activation=False)["data"]
    assert np.allclose([row["data"] for row in raw], encoders["embedder"].embed(TEXTS, normalize=False), atol=1e-5)
    scores = sent(live, "/pooling", model="classifier", input=TEXTS, task="classify")["data"]
    expected = [row["probs"] for row in sent(live, "/classify", model="classifier", input=TEXTS)["data"]]
    assert [row["data"] for row in scores] == expected


def test_pooling_of_tokens(live: Live, encoders: dict[str, Encoder], folders: dict[str, Path]) -> None:
    kind = transformers.AutoModelForTokenClassification
    for text, row in zip(TEXTS, sent(live, "/pooling", model="tagger", input=TEXTS)["data"], strict=True):
        assert np.allclose(row["data"], reference(kind, folders["tagger"], text).softmax(-1), atol=1e-5)
    raw = sent(live, "/pooling", model="tagger", input=TEXTS[0], task="token_classify", use_activation=False)
    assert np.allclose(raw["data"][0]["data"], reference(kind, folders["tagger"], TEXTS[0]), atol=1e-4)

    vectors = np.array(sent(live, "/pooling", model="embedder", input=TEXTS[0], task="token_embed")["data"][0]["data"])
    model = transformers.AutoModel.from_pretrained(folders["embedder"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["embedder"])
    with torch.no_grad():
        states = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    assert np.allclose(vectors, torch.nn.functional.normalize(states, dim=-1), atol=1e-5)
    colbert = np.array(sent(live, "/pooling", model="colbert", input=TEXTS[0])["data"][0]["data"])
    assert len(colbert) == tokens_of(encoders["colbert"], TEXTS[0])
    assert np.allclose(np.linalg.norm(colbert, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "f4"), ("float16", "f2")])
@pytest.mark.parametrize(("endianness", "order"), [("little", "<"), ("big", ">"), ("native", "=")])
def test_numbers_as_bytes(live: Live, dtype: str, kind: str, endianness: str, order: str) -> None:
    body: dict[str, Any] = {"model": "tagger", "input": TEXTS}
    floats = [np.array(row["data"], np.float32) for row in sent(live, "/pooling", **body)["data"]]
    body |= {"embed_dtype": dtype, "endianness": endianness}
    expected = [row.astype(order + kind).tobytes() for row in floats]
    encoded = sent(live, "/pooling", **body, encoding_format="base64")["data"]
    assert [base64.b64decode(row["data"]) for row in encoded] == expected
    response = live.http.post("/pooling", json={**body, "encoding_format": "bytes"})
    assert (response.content, response.headers["content-type"]) == (b"".join(expected), "application/octet-stream")
    known = json.loads(response.headers["metadata"])
    assert set(known) == {"id", "created", "model", "data", "usage"}
    for row, piece, values in zip(known["data"], expected, floats, strict=True):
        assert response.content[row["start"] : row["end"]] == piece
        assert (tuple(row["shape"]), row["embed_dtype"], row["endianness"]) == (values.shape, dtype, endianness)
    only = live.http.post("/pooling", json={**body, "encoding_format": "bytes_only"})
    assert only.content == response.content
    assert "metadata" not in only.headers


def test_tokenize(live: Live, encoders: dict[str, Encoder]) -> None:
    encoder = encoders["embedder"]
    ids = ids_of(encoder, TEXTS[0])
    answer = sent(live, "/tokenize", model="embedder", prompt=TEXTS[0])
    length = encoder.checkpoint.max_length
    assert answer == {"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": None}
    bare = sent(live, "/tokenize", model="embedder", prompt="A cat", add_special_tokens=False, return_token_strs=True)
    assert bare["token_strs"] == [encoder.tokenizer.spelling(id) for id in bare["tokens"]]
    assert sent(live, "/tokenize", model="embedder", inputs=TEXTS[0])[0][0]["id"] == ids[0]  # TEI's


def test_detokenize(live: Live, encoders: dict[str, Encoder]) -> None:
    ids = ids_of(encoders["embedder"], TEXTS[0])
    assert sent(live, "/detokenize", model="embedder", tokens=ids) == {
        "prompt": encoders["embedder"].tokenizer.decode(ids, skip_special=False)
    }


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/classify", {}, "missing required field `input`"),
        ("/classify", {"input": None}, "Expected `str | array`, got `null`"),
        ("/classify", {"input": ""}, "input 0 is empty"),
        ("/classify", {"input": []}, "`input` is an empty list"),
        ("/classify", {"input": [[]]}, "input 0 is empty"),
        ("/classify", {"input": ["a", ""]}, "input 1 is empty"),
        ("/classify", {"input": ["a", 7]}, "`input` mixes token ids with texts"),
        ("/classify", {"input": [10**7]}, "token id 10000000 of input 0 is outside"),
        ("/classify", {"input": "a", "model": "embedder"}, "this model cannot classify"),
        ("/classify", {"input": "a", "normalize": True}, "use `use_activation`"),
        ("/classify", {"input": "a", "use_activation": "yes"}, "Expected `bool | null`, got `str`"),
        ("/classify", {"input": "a", "priority": 3}, "`priority` is 3"),
        ("/classify", {"input": "a", "padding": "max_length"}, "Invalid enum value 'max_length'"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": -2}, "Expected `int` >= -1"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": 0}, "`truncate_prompt_tokens` is 0; choose 1 to"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": 9_999}, "`truncate_prompt_tokens` is 9999"),
        ("/classify", {"input": "a", "truncate_prompt_tokens": 1}, "tokens stand around input 0"),
        ("/classify", {"input": "a", "truncation_side": "up"}, "Invalid enum value 'up'"),
        ("/score", {"queries": "a"}, "send `queries` and `documents`, or `queries` and `items`, or"),
        ("/score", {"queries": [], "documents": "a"}, "no texts on one side"),
        ("/score", {"queries": ["a", "b"], "documents": "a"}, "2 texts do not pair with 1"),
        ("/score", {"queries": "", "documents": [""]}, "input 0 is empty"),
        ("/score", {"queries": 7, "documents": "a"}, "got `int` - at `$.queries`"),
        ("/score", {"queries": "a", "documents": "a", "model": "classifier"}, "this model cannot rerank"),
        ("/score", {"queries": "a", "documents": "a", "instruction": "b"}, "asked in words"),
        (
            "/score",
            {"queries": "a", "documents": "a", "chat_template_kwargs": {"a": 1}},
            "`chat_template_kwargs` cannot",
        ),
        ("/score", {"queries": "a", "documents": "a", "max_tokens_per_doc": 9_999}, "`max_tokens_per_doc` is 9999"),
        ("/score", {"queries": "a", "documents": "a", "max_tokens_per_query": -1}, "Expected `int` >= 0"),
        ("/score", {"queries": LONG, "documents": LONG}, "shorten it or turn truncation on"),
        ("/score", {"queries": "a", "documents": LONG, "model": "colbert"}, "shorten it or turn truncation on"),
        ("/score", {"queries": "a", "documents": "a", "model": "colbert", "truncate_prompt_tokens": 4}, "only be -1"),
        ("/rerank", {"query": "a", "documents": []}, "no texts on one side"),
        ("/rerank", {"documents": ["a"]}, "missing required field `query`"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "Expected `int` >= 0"),
        ("/rerank", {"query": "a", "documents": [{"text": "a"}]}, "Expected `str`, got `object`"),
        (
            "/v1/rerank",
            {"query": "a", "documents": ["a"], "truncate_prompt_tokens": 0},
            "`truncate_prompt_tokens` is 0",
        ),
        ("/pooling", {"input": "a", "dimensions": 4}, "`dimensions` cannot be chosen"),
        ("/pooling", {"input": "a", "task": "plugin"}, "Invalid enum value 'plugin'"),
        ("/pooling", {"input": "a", "task": "embed", "model": "classifier"}, "this model cannot embed"),
        ("/pooling", {"input": "a", "task": "token_embed", "model": "classifier"}, "give vectors of tokens"),
        ("/pooling", {"input": "a", "encoding_format": "hex"}, "Invalid enum value 'hex'"),
        ("/tokenize", {"prompt": 7}, "Expected `str`, got `int` - at `$.prompt`"),
        ("/tokenize", {"messages": []}, "missing required field `prompt`"),
        ("/tokenize", {"prompt": "a" * 100_000}, "`prompt` number 0 has 100000 characters"),
        ("/detokenize", {}, "missing required field `tokens`"),
        ("/detokenize", {"tokens": [-1]}, "token id -1"),
        ("/detokenize", {"tokens": "a"}, "Expected `array`, got `str`"),
    ],
)
def test_mistakes(live: Live, path: str, body: Any, said: str) -> None:
    model = {"/classify": "classifier", "/pooling": "embedder"}.get(path, "reranker")
    response = live.http.post(path, json={"model": model, **body})
    assert response.status_code == 400, response.text
    (problem,) = response.json().values()
    assert said in problem.pop("message")
    assert problem == {"type": "BadRequestError", "param": None, "code": 400}


def test_an_unknown_model(live: Live) -> None:
    response = live.http.post("/classify", json={"model": "other", "input": "a"})
    assert (response.status_code, list(response.json())) == (404, ["error"])
    problem = response.json()["error"]
    assert (problem["type"], problem["param"], problem["code"]) == ("NotFoundError", "model", 404)


@pytest.mark.parametrize("path", ["/tokenize", "/rerank"])
def test_on_a_shared_path_what_nobody_sends_is_refused_in_teis_words(live: Live, path: str) -> None:
    for content in (b"{}", b"[]", b"{"):
        response = live.http.post(path, content=content, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422)
        assert set(response.json()) == {"error", "error_type"}


def test_unknown_fields_are_ignored(live: Live) -> None:
    body = {"model": "classifier", "input": "a"}
    extra = {"user": "me", "cache_salt": "salt", "mm_processor_kwargs": {}, "new": [1], "padding": "do_not_pad"}
    assert sent(live, "/classify", **body, **extra)["data"] == sent(live, "/classify", **body)["data"]
