"""Bad input over HTTP: each mistake by name, with the exact answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Live, listening, load

from onepass.settings import ServerSettings

LIMIT = 1_000_000


@pytest.fixture(scope="module")
def live(minilm: Path, tiny_classifier: Path, tiny_reranker: Path) -> Iterator[Live]:
    encoders = load(("minilm", minilm), ("classifier", tiny_classifier), ("reranker", tiny_reranker))
    with listening(lambda: encoders, ServerSettings(max_body=LIMIT, max_inputs=8)) as live:
        yield live


def tei(error: str, error_type: str = "Validation") -> dict[str, str]:
    return {"error": error, "error_type": error_type}


def openai(message: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def cohere(message: str) -> dict[str, str]:
    return {"message": message}


def refused(live: Live, path: str, status: int, expected: Any, **body: Any) -> None:
    response = live.http.post(path, json=body)
    assert (response.status_code, response.json()) == (status, expected)
    assert live.http.post("/embed", json={"inputs": "next", "model": "minilm"}).status_code == 200


def test_empty_list(live: Live) -> None:
    refused(
        live, "/embed", 400, tei("Input validation error: `inputs` cannot be empty", "Empty"), inputs=[], model="minilm"
    )
    refused(
        live,
        "/v1/embeddings",
        400,
        openai("`input` is an empty list; send at least one text", "empty_input"),
        input=[],
        model="minilm",
    )
    refused(
        live,
        "/rerank",
        400,
        tei("Input validation error: `texts` cannot be empty", "Empty"),
        query="a",
        texts=[],
        model="reranker",
    )
    empty = "`documents` is an empty list; send at least one document"
    refused(live, "/v2/rerank", 400, cohere(empty), query="a", documents=[], model="reranker")
    refused(live, "/v1/rerank", 400, {"message": empty, "detail": empty}, query="a", documents=[], model="reranker")
    empty_inputs = tei("Input validation error: `inputs` cannot be empty", "Empty")
    refused(live, "/predict", 400, empty_inputs, inputs=[], model="classifier")
    refused(live, "/tokenize", 400, empty_inputs, inputs=[], model="minilm")
    refused(live, "/decode", 400, tei("Input validation error: `ids` cannot be empty", "Empty"), ids=[], model="minilm")
    sentences = tei("Input validation error: `inputs.sentences` cannot be empty", "Empty")
    refused(live, "/similarity", 400, sentences, inputs={"source_sentence": "a", "sentences": []}, model="minilm")


def test_empty_string(live: Live) -> None:
    empty = tei("Input validation error: `inputs` cannot be empty", "Empty")
    refused(live, "/embed", 400, empty, inputs="", model="minilm")
    refused(live, "/embed", 400, empty, inputs=["a", ""], model="minilm")
    refused(live, "/predict", 400, empty, inputs="", model="classifier")
    refused(
        live,
        "/v1/embeddings",
        400,
        openai("input 1 is empty; send some text", "empty_input"),
        input=["a", ""],
        model="minilm",
    )
    refused(
        live,
        "/v2/rerank",
        400,
        cohere("the query is empty; send some text"),
        query="",
        documents=["a"],
        model="reranker",
    )


@pytest.mark.parametrize(
    ("escape", "said"),
    [
        (rb"\ud800", r"\ud800 at byte 12 is half of a surrogate pair, not a character"),
        (rb"\udc00", r"\udc00 at byte 12 is half of a surrogate pair, not a character"),
        (rb"\ud800 tail", r"\ud800 at byte 12 is half of a surrogate pair, not a character"),
    ],
)
def test_lone_surrogates(live: Live, escape: bytes, said: str) -> None:
    response = live.http.post(
        "/embed",
        content=b'{"inputs": "' + escape + b'", "model": "minilm"}',
        headers={"content-type": "application/json"},
    )
    assert (response.status_code, response.json()) == (400, tei(f"the body is not valid JSON: {said}", "BadJson"))


def test_a_whole_surrogate_pair_is_a_character(live: Live) -> None:
    body = rb'{"inputs": "\ud83d\ude00", "model": "minilm"}'
    escaped = live.http.post("/embed", content=body, headers={"content-type": "application/json"})
    assert escaped.json() == live.http.post("/embed", json={"inputs": "😀", "model": "minilm"}).json()


def test_nul_bytes(live: Live) -> None:
    escaped = live.http.post("/embed", json={"inputs": "a\x00b", "model": "minilm"})
    assert escaped.status_code == 200
    raw = live.http.post("/embed", content=b'{"inputs":"a\x00b"}', headers={"content-type": "application/json"})
    expected = tei("the body is not valid JSON: JSON is malformed: invalid character (byte 12)", "BadJson")
    assert (raw.status_code, raw.json()) == (400, expected)


def test_one_word_of_a_megabyte(live: Live) -> None:
    word = "x" * (LIMIT - 100)
    cut = live.http.post("/embed", json={"inputs": word, "model": "minilm"})
    assert (cut.status_code, cut.headers["x-onepass-truncated"]) == (200, "1")
    characters = 250 * 256
    refused(
        live,
        "/embed",
        422,
        tei(f"Input validation error: `inputs` must have less than {characters} characters. Given: {len(word)}"),
        inputs=word,
        model="minilm",
        truncate=False,
    )
    refused(
        live,
        "/tokenize",
        422,
        tei(f"`inputs` number 0 has {len(word)} characters, this route takes {characters}; split it"),
        inputs=word,
        model="minilm",
    )


@pytest.mark.parametrize("id", [30_522, -1, 2**31, 2**40, 10**30])
def test_token_ids_out_of_range(live: Live, id: int) -> None:
    said = (
        f"token id {id} of input 1 is outside this model's vocabulary of 30522 ids; "
        "send text, or ids from this model's own tokenizer"
    )
    switch = (
        " (LangChain's OpenAIEmbeddings sends ids of another model's vocabulary; "
        "give it check_embedding_ctx_length=False and it sends text)"
    )
    expected = openai(said + switch, "token_out_of_range")
    refused(live, "/v1/embeddings", 400, expected, input=[[7592], [id]], model="minilm")
    refused(live, "/embed", 422, tei(f"Input validation error: {said}"), inputs=[[7592], [id]], model="minilm")
    refused(
        live,
        "/decode",
        422,
        tei(f"Input validation error: {said.replace('input 1', 'input 0')}"),
        ids=[id],
        model="minilm",
    )


def test_over_long_input_with_truncate_false(live: Live) -> None:
    too_long = tei("Input validation error: `inputs` must have less than 256 tokens. Given: 602")
    refused(live, "/embed", 422, too_long, inputs="cat " * 600, model="minilm", truncate=False)
    refused(live, "/embed", 422, too_long, inputs=["cat", "cat " * 600], model="minilm", truncate=False)
    inputs = {"source_sentence": "a", "sentences": ["cat " * 600]}
    refused(live, "/similarity", 422, too_long, inputs=inputs, parameters={"truncate": False}, model="minilm")


def test_over_long_input_with_truncate_true(live: Live) -> None:
    body = {"inputs": "cat " * 600, "model": "minilm", "truncate": True}
    response = live.http.post("/embed", json=body)
    assert (response.status_code, response.headers["x-onepass-truncated"]) == (200, "1")


def test_the_setting_decides_where_the_request_does_not_say(minilm: Path) -> None:
    encoders = load(("minilm", minilm))
    with listening(lambda: encoders, ServerSettings(auto_truncate=False)) as live:
        response = live.http.post("/v1/embeddings", json={"input": "cat " * 600})
        said = "input 0 has 602 tokens, the model takes 256; shorten it or turn truncation on"
        assert (response.status_code, response.json()) == (400, openai(said, "input_too_long"))
        assert live.http.post("/embed", json={"inputs": "cat " * 600, "truncate": True}).status_code == 200


@pytest.mark.parametrize("dimensions", [0, -1, 385, 10**30])
def test_dimensions_that_the_model_does_not_have(live: Live, dimensions: int) -> None:
    said = f"dimensions is {dimensions}, this model gives 1 to 384; ask for a number between"
    refused(
        live, "/v1/embeddings", 400, openai(said, "invalid_input"), input="a", dimensions=dimensions, model="minilm"
    )
    expected = tei(f"Input validation error: {said}")
    refused(live, "/embed", 422, expected, inputs="a", dimensions=dimensions, model="minilm")


def test_unknown_model(live: Live) -> None:
    said = "the model 'gpt-4' is not served here; `model` may be 'minilm', 'classifier', 'reranker'"
    refused(live, "/v1/embeddings", 404, openai(said, "model_not_found", "model"), input="a", model="gpt-4")
    refused(live, "/embed", 404, tei(said), inputs="a", model="gpt-4")
    refused(live, "/v2/rerank", 404, cohere(said), query="a", documents=["b"], model="gpt-4")
    said = "several models are served and `model` names none of them; it may be 'minilm', 'classifier', 'reranker'"
    refused(live, "/embed", 404, tei(said), inputs="a")
    response = live.http.get("/info")
    assert (response.status_code, response.json()) == (404, tei(said))


def test_a_task_that_the_model_cannot_do(live: Live, minilm: Path, tiny_classifier: Path) -> None:
    cannot_embed = "this model cannot embed; it can classify"
    refused(live, "/embed", 424, tei(cannot_embed, "Backend"), inputs="a", model="classifier")
    refused(live, "/v1/embeddings", 400, openai(cannot_embed, "wrong_task"), input="a", model="classifier")
    three = "this model cannot rerank; it can classify"
    refused(live, "/rerank", 424, tei(three, "Backend"), query="a", texts=["b"], model="classifier")
    refused(live, "/v2/rerank", 422, cohere(three), query="a", documents=["b"], model="classifier")
    cannot_classify = "this model cannot classify; it can embed, similarity, rerank"
    refused(live, "/predict", 424, tei(cannot_classify, "Backend"), inputs="a", model="minilm")


def test_too_many_inputs(live: Live) -> None:
    said = "batch size 9 > maximum allowed batch size 8"
    refused(live, "/embed", 422, tei(said), inputs=["a"] * 9, model="minilm")
    refused(live, "/v1/embeddings", 400, openai(said, "too_large"), input=["a"] * 9, model="minilm")
    refused(live, "/v2/rerank", 413, cohere(said), query="a", documents=["a"] * 9, model="reranker")
    refused(live, "/tokenize", 422, tei(said), inputs=["a"] * 9, model="minilm")


def test_oversized_body_with_its_length(live: Live) -> None:
    body = b'{"inputs":"' + b"x" * LIMIT + b'"}'
    response = live.http.post("/embed", content=body, headers={"content-type": "application/json"})
    said = (
        f"the body has {len(body):,} bytes and this server reads at most 1,000,000; "
        "send less per request, or raise --max-body"
    )
    assert (response.status_code, response.json()) == (413, tei(said, "PayloadTooLarge"))


def test_oversized_body_without_a_length_is_noticed_while_reading(live: Live) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"inputs":"'
        for _ in range(40):
            yield b"x" * 65_536

    response = live.http.post("/embed", content=endless(), headers={"content-type": "application/json"})
    said = (
        "the body has more than 1,000,000 bytes and this server reads at most 1,000,000; "
        "send less per request, or raise --max-body"
    )
    assert (response.status_code, response.json()) == (413, tei(said, "PayloadTooLarge"))
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            {"content-type": "text/plain"},
            "the content type is 'text/plain'; send JSON with Content-Type: application/json",
        ),
        ({}, "the content type is ''; send JSON with Content-Type: application/json"),
        (
            {"content-type": "application/json", "content-encoding": "gzip"},
            "the content encoding is 'gzip'; send the body uncompressed",
        ),
    ],
)
def test_media_that_is_not_plain_json(live: Live, headers: dict[str, str], said: str) -> None:
    response = live.http.post("/embed", content=b'{"inputs":"a","model":"minilm"}', headers=headers)
    assert (response.status_code, response.json()) == (415, tei(said, "UnsupportedMediaType"))


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "the body is not valid JSON: Input data was truncated"),
        (b'{"inputs":NaN}', 400, "the body is not valid JSON: JSON is malformed: invalid character (byte 10)"),
        (b'{"inputs":"\xff"}', 400, "the body is not valid UTF-8: invalid start byte"),
        (
            b'{"inputs":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            400,
            "the body is not valid JSON for this server: it is nested too deeply",
        ),
        (b"{}", 422, "the body does not have the expected form: Object missing required field `inputs`"),
        (b"[]", 422, "the body does not have the expected form: Expected `object`, got `array`"),
        (
            b'{"inputs":[1.5]}',
            422,
            "the body does not have the expected form: Expected `int | str | array`, got `float` - at `$.inputs[0]`",
        ),
        (
            b'{"inputs":["a",1]}',
            422,
            "`inputs` mixes token ids with texts; put the ids of each input into a list of their own",
        ),
    ],
)
def test_json_that_is_none_or_has_another_form(live: Live, body: bytes, status: int, said: str) -> None:
    response = live.http.post("/embed", content=body, headers={"content-type": "application/json"})
    if status == 422:
        said = f"Input validation error: {said}"
    assert (response.status_code, response.json()["error"]) == (status, said)


def test_unknown_fields_are_ignored_as_the_vendors_do(live: Live) -> None:
    body = {"inputs": "a", "model": "minilm", "surprise": {"deep": [1, None]}}
    assert live.http.post("/embed", json=body).status_code == 200


def test_unknown_prompt_name(live: Live) -> None:
    said = "Input validation error: the prompt 'query' is not this model's; it has none"
    refused(live, "/embed", 422, tei(said), inputs="a", prompt_name="query", model="minilm")


def test_documents_without_the_field(live: Live) -> None:
    said = "document 1 must have text in one of the fields 'text', it has 'title'; name others in `rank_fields`"
    documents = ["a", {"title": "b"}]
    refused(
        live, "/v1/rerank", 422, {"message": said, "detail": said}, query="a", documents=documents, model="reranker"
    )


def test_top_n_and_max_tokens_per_doc_below_one(live: Live) -> None:
    said = "top_n is 0; ask for at least 1, or leave it out"
    refused(live, "/v2/rerank", 422, cohere(said), query="a", documents=["b"], top_n=0, model="reranker")
    said = "document_tokens is 0; ask for at least 1, or leave it out"
    refused(live, "/v2/rerank", 422, cohere(said), query="a", documents=["b"], max_tokens_per_doc=0, model="reranker")


def test_no_such_route_and_no_such_method(live: Live) -> None:
    response = live.http.post("/embed_everything", json={})
    expected = tei("POST /embed_everything is no route of this server; GET /docs lists them", "NotFound")
    assert (response.status_code, response.json()) == (404, expected)
    response = live.http.get("/embed")
    expected = tei("GET /embed is not possible, that route takes POST", "MethodNotAllowed")
    assert (response.status_code, response.json()) == (405, expected)
    assert response.headers["allow"] == "POST"
