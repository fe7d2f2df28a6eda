"""The tasks of Hugging Face's inference API: huggingface_hub's client against the server, answers of the pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import transformers
from live import Live, listening, load

from onepass.encoder import Encoder

MODELS = ["embedder", "classifier", "multilabel", "reranker", "tagger", "filler", "answerer", "entailer"]
TEXT = "A cat sits on the mat of Maria in Lisbon."
TEXTS = [TEXT, "The stock market fell."]
CONTEXT = "The miller grinds the corn at the river. " * 12


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


@pytest.fixture
def client(live: Live) -> Callable[[str], huggingface_hub.InferenceClient]:
    """A client of one of the models."""
    return lambda name: huggingface_hub.InferenceClient(f"{live.url}/models/{name}")


def pipeline(task: str, folder: Path) -> Any:
    return transformers.pipeline(task, model=str(folder), device="cpu")  # type: ignore[call-overload]


def close(found: Any, expected: Any, name: str = "score") -> None:
    """Alike in all fields that are expected, in the score to 1e-5."""
    found = [{field: one[field] for field in expected[0]} for one in found]
    assert [{**one, name: 0} for one in found] == [{**one, name: 0} for one in expected]
    assert np.allclose([one[name] for one in found], [one[name] for one in expected], atol=1e-5)


def sent(live: Live, path: str, **body: Any) -> Any:
    response = live.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_feature_extraction(client: Any, live: Live, encoders: dict[str, Encoder]) -> None:
    expected = encoders["embedder"].embed(TEXTS)
    assert np.allclose(client("embedder").feature_extraction(TEXTS), expected, atol=1e-6)
    named = huggingface_hub.InferenceClient(base_url=f"{live.url}/models/embedder/pipeline/feature-extraction")
    assert np.allclose(named.feature_extraction(TEXT), expected[:1], atol=1e-6)
    raw = client("embedder").feature_extraction(TEXT, normalize=False, dimensions=8)
    assert np.allclose(raw, encoders["embedder"].embed([TEXT], normalize=False, dimensions=8), atol=1e-6)


async def test_feature_extraction_awaited(live: Live, encoders: dict[str, Encoder]) -> None:
    client = huggingface_hub.AsyncInferenceClient(f"{live.url}/models/embedder")
    assert np.allclose(await client.feature_extraction(TEXTS), encoders["embedder"].embed(TEXTS), atol=1e-6)


def test_sentence_similarity(client: Any, encoders: dict[str, Encoder]) -> None:
    found = client("embedder").sentence_similarity(TEXT, TEXTS)
    assert np.allclose(found, encoders["embedder"].similarity(TEXT, TEXTS)[0], atol=1e-6)


@pytest.mark.parametrize("name", ["classifier", "multilabel", "reranker"])
@pytest.mark.parametrize("function", [None, "sigmoid", "softmax", "none"])
def test_text_classification(client: Any, folders: dict[str, Path], name: str, function: Any) -> None:
    found = client(name).text_classification(TEXT, function_to_apply=function)
    close(found, pipeline("text-classification", folders[name])(TEXT, function_to_apply=function, top_k=None))
    assert found[:1] == client(name).text_classification(TEXT, function_to_apply=function, top_k=1)


def test_text_classification_of_several(live: Live, encoders: dict[str, Encoder]) -> None:
    expected = [[label for label, _ in row] for row in encoders["classifier"].classify(TEXTS)]
    found = sent(live, "/models/classifier", inputs=TEXTS)
    assert [[one["label"] for one in row] for row in found] == expected
    assert sent(live, "/pipeline/text-classification/classifier", inputs=TEXTS) == found
    assert sent(live, "/predict", inputs=TEXTS, model="classifier", parameters={}) == found
    pair = sent(live, "/", inputs=TEXTS, model="classifier")  # in TEI's words, two texts are a pair
    assert pair == sent(live, "/predict", inputs=TEXTS, model="classifier")
    assert len(pair) == 3


@pytest.mark.parametrize("multi", [False, True])
def test_zero_shot_classification(client: Any, folders: dict[str, Path], multi: bool) -> None:
    labels = ["animals", "trade", "rivers"]
    options: dict[str, Any] = {"multi_label": multi, "hypothesis_template": "It is about {}."}
    found = client("entailer").zero_shot_classification(TEXT, labels, **options)
    expected = pipeline("zero-shot-classification", folders["entailer"])(TEXT, labels, **options)
    assert [one.label for one in found] == expected["labels"]
    assert np.allclose([one.score for one in found], expected["scores"], atol=1e-5)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification(client: Any, live: Live, folders: dict[str, Path], strategy: Any) -> None:
    reference = pipeline("token-classification", folders["tagger"])
    expected = reference(TEXT, aggregation_strategy=strategy)
    found = sent(live, "/models/tagger", inputs=TEXT, parameters={"aggregation_strategy": strategy})
    if strategy != "none":  # words stand as in the text, where the pipeline spells them from tokens
        assert [one["word"] for one in found] == [TEXT[one["start"] : one["end"]] for one in found]
        for one in (*found, *expected):
            one["word"] = ""
    close(found, expected)
    parsed = client("tagger").token_classification(TEXT, aggregation_strategy=strategy)
    assert [one.start for one in parsed] == [one["start"] for one in expected]
    for ignored in [], [expected[0].get("entity_group", expected[0].get("entity"))]:
        parsed = client("tagger").token_classification(TEXT, aggregation_strategy=strategy, ignore_labels=ignored)
        rest = reference(TEXT, aggregation_strategy=strategy, ignore_labels=ignored)
        assert [(one.start, one.end) for one in parsed] == [(one["start"], one["end"]) for one in rest]


def test_a_long_text_is_tagged_to_its_end(live: Live) -> None:
    text = " ".join(TEXTS * 12)
    response = live.http.post("/models/tagger", json={"inputs": text, "parameters": {"ignore_labels": [], "stride": 8}})
    assert int(response.headers["x-onepass-windows"]) > 0
    assert response.json()[-1]["end"] == len(text)
    tokens = sent(live, "/models/tagger", inputs=text, parameters={"ignore_labels": [], "aggregation_strategy": "none"})
    assert [one["index"] for one in tokens] == list(range(1, len(tokens) + 1))
    assert sent(live, "/models/tagger", inputs=[text]) == [sent(live, "/models/tagger", inputs=text)]


def test_fill_mask(client: Any, folders: dict[str, Path]) -> None:
    reference = pipeline("fill-mask", folders["filler"])
    text = "The miller [MASK] the corn."
    close(client("filler").fill_mask(text), reference(text))
    targets = [one["token_str"] for one in reference(text, top_k=3)]
    close(client("filler").fill_mask(text, targets=targets, top_k=2), reference(text, targets=targets, top_k=2))
    two = "The [MASK] grinds the [MASK]."
    for found, expected in zip(client("filler").fill_mask(two), reference(two), strict=True):
        close(found, expected)


def test_question_answering(client: Any, encoders: dict[str, Encoder]) -> None:
    expected = encoders["answerer"].answer("Who grinds?", CONTEXT, top_k=3)
    best = client("answerer").question_answering("Who grinds?", CONTEXT)
    (same,) = encoders["answerer"].answer("Who grinds?", CONTEXT)
    assert (best.answer, best.start, best.end, best.score) == (same.text, same.start, same.stop, same.score)
    three = client("answerer").question_answering("Who grinds?", CONTEXT, top_k=3)
    assert [one.answer for one in three] == [one.text for one in expected]
    options: dict[str, Any] = {"max_seq_len": 48, "doc_stride": 8, "max_answer_len": 3, "align_to_words": False}
    found = client("answerer").question_answering("Who?", CONTEXT, handle_impossible_answer=True, **options)
    (same, *_) = encoders["answerer"].answer(
        "Who?", CONTEXT, window=48, overlap=8, answer_tokens=3, align_to_words=False, no_answer=True
    )
    assert (found.answer, found.score) == (same.text, pytest.approx(same.score))


def test_a_long_question_is_cut_where_asked_and_it_is_said(live: Live, encoders: dict[str, Encoder]) -> None:
    question = "corn and more " * 40
    inputs = {"question": question, "context": CONTEXT}
    assert live.http.post("/models/answerer", json={"inputs": inputs}).status_code == 422
    response = live.http.post("/models/answerer", json={"inputs": inputs, "parameters": {"max_question_len": 4}})
    assert response.headers["x-onepass-truncated"] == "1"
    tokens = encoders["answerer"].tokenizer.tokens(question, special=False)
    (expected, *_) = encoders["answerer"].answer(question[: tokens[3].stop], CONTEXT)
    assert response.json()["answer"] == expected.text


def test_text_ranking(live: Live) -> None:
    expected = sent(live, "/rerank", query="cat", texts=TEXTS, model="reranker")
    assert sent(live, "/models/reranker", query="cat", texts=TEXTS) == expected
    assert sent(live, "/models/reranker/pipeline/text-ranking", query="cat", texts=TEXTS) == expected


def test_one_model_needs_no_name(encoders: dict[str, Encoder]) -> None:
    with listening(lambda: {"org/tagger": encoders["tagger"]}) as live:
        root = huggingface_hub.InferenceClient(base_url=live.url, provider="hf-inference")
        named = huggingface_hub.InferenceClient(f"{live.url}/models/org/tagger", provider="hf-inference")
        assert root.token_classification(TEXT) == named.token_classification(TEXT) != []
        assert root.health_check()
        assert named.health_check()
        assert named.get_endpoint_info()["served_model_name"] == "org/tagger"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/models/other", {"inputs": "a"}, 404, "the model 'other' is not served here"),
        ("/models/embedder/pipeline/translation", {"inputs": "a"}, 422, "the task 'translation' is unknown here"),
        ("/models/embedder/pipeline/fill-mask", {"inputs": "a"}, 424, "this model cannot fill"),
        ("/models/tagger", {"inputs": ""}, 400, "`inputs` cannot be empty"),
        ("/models/tagger", {"inputs": []}, 400, "`inputs` cannot be empty"),
        ("/models/tagger", {"inputs": ["a", ""]}, 400, "input 1 is empty"),
        ("/models/tagger", {}, 422, "missing required field `inputs`"),
        ("/models/tagger", {"inputs": 7}, 422, "Expected `str | array`, got `int` - at `$.inputs`"),
        ("/models/tagger", {"inputs": "a", "parameters": None}, 422, "Expected `object`, got `null`"),
        ("/models/tagger", {"inputs": "a", "parameters": {"stride": 900}}, 422, "overlap is 900 tokens"),
        ("/models/tagger", {"inputs": "a", "parameters": {"aggregation_strategy": "b"}}, 422, "Invalid enum value 'b'"),
        ("/models/filler", {"inputs": "a", "parameters": {}}, 422, "holds no [MASK]"),
        ("/models/filler", {"inputs": "[MASK]", "parameters": {"top_k": 0}}, 422, "Expected `int` >= 1"),
        ("/models/classifier", {"inputs": "a", "parameters": {"function_to_apply": "tanh"}}, 422, "'tanh'"),
        ("/models/entailer", {"inputs": "a", "parameters": {"candidate_labels": []}}, 400, "labels is an empty list"),
        ("/models/answerer", {"inputs": "a"}, 422, "Expected `object`, got `str` - at `$.inputs`"),
        ("/models/answerer", {"inputs": {"question": "a"}}, 422, "missing required field `context`"),
        ("/models/answerer", {"inputs": {"question": "a", "context": ""}}, 400, "context 0 is empty"),
    ],
)
def test_mistakes(live: Live, path: str, body: Any, status: int, said: str) -> None:
    response = live.http.post(path, json=body)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "error_type"}
    assert said in response.json()["error"]


def test_a_mistake_reaches_the_caller(client: Any) -> None:
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="holds no"):
        client("filler").fill_mask("nothing to fill")


def test_fields_of_others_are_ignored(live: Live) -> None:
    plain = sent(live, "/models/tagger", inputs=TEXT)
    assert plain == sent(live, "/models/tagger", inputs=TEXT, options={"wait_for_model": True}, parameters={"x": 1})


def entities(live: Live, **body: Any) -> Any:
    return sent(live, "/predict_tokens", model="tagger", **body)


def test_bei_labels_each_token(live: Live, encoders: dict[str, Encoder]) -> None:
    (found,) = entities(live, inputs=[[TEXT]])
    expected = encoders["tagger"].tag(TEXT, aggregation="none", ignore_labels=())
    assert [(one["start"], one["end"], one["results"]) for one in found] == [
        (one.start, one.stop, {one.label: pytest.approx(one.score)}) for one in expected
    ]
    tokens = encoders["tagger"].tokenizer.tokens(TEXT, special=False)
    assert [(one["token"], one["token_id"]) for one in found] == [
        (TEXT[token.start : token.stop], token.id) for token in tokens
    ]
    (raw,) = entities(live, inputs=[TEXT], raw_scores=True)
    labels = encoders["tagger"].checkpoint.heads["tag"].labels
    for one, best in zip(raw, expected, strict=True):
        chances = np.exp([*one["results"].values()])
        assert tuple(one["results"]) == labels
        assert chances.max() / chances.sum() == pytest.approx(best.score, rel=1e-4)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_bei_puts_entities_together(live: Live, encoders: dict[str, Encoder], strategy: Any) -> None:
    found = entities(live, inputs=TEXTS, aggregation_strategy=strategy, truncate=True, truncation_direction="Right")
    assert found == [
        [
            {"token": one.text, "token_id": 0, "start": one.start, "end": one.stop, "results": {one.label: one.score}}
            for one in row
        ]
        for row in encoders["tagger"].tag(TEXTS, aggregation=strategy)
    ]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"inputs": []}, 400, "`inputs` cannot be empty"),
        ({"inputs": [[TEXT, TEXT]]}, 422, "`inputs` number 0 is a list of 2 texts; put each text into its own"),
        ({"inputs": [[]]}, 422, "`inputs` number 0 is a list of 0 texts"),
        ({"inputs": TEXT}, 422, "Expected `array`, got `str` - at `$.inputs`"),
        ({"inputs": None}, 422, "Expected `array`, got `null`"),
        ({}, 422, "missing required field `inputs`"),
        ({"inputs": [TEXT], "aggregation_strategy": "sum"}, 422, "Invalid enum value 'sum'"),
        (
            {"inputs": [TEXT], "aggregation_strategy": "max", "raw_scores": True},
            422,
            "`raw_scores` are those of single",
        ),
        ({"inputs": [TEXT], "model": "embedder"}, 424, "this model cannot tag"),
    ],
)
def test_mistakes_to_bei(live: Live, body: Any, status: int, said: str) -> None:
    response = live.http.post("/predict_tokens", json={"model": "tagger", **body})
    assert (response.status_code, set(response.json())) == (status, {"error", "error_type"})
    assert said in response.json()["error"]
