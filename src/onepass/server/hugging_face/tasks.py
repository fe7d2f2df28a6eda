"""Which task a request is for, and the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from onepass.errors import InvalidInput
from onepass.server.answer import Answer
from onepass.server.body import parse_as
from onepass.server.hugging_face.classification import (
    Labelled,
    TextClassification,
    ZeroShotClassification,
    classify_by_labels,
    classify_texts,
)
from onepass.server.hugging_face.fill_mask import FillMask, fill_masks
from onepass.server.hugging_face.question_answering import QuestionAnswering, answer_question
from onepass.server.hugging_face.token_classification import TokenClassification, classify_tokens
from onepass.server.operation import Operation
from onepass.server.service import Call, listed
from onepass.server.tei.embed import (
    EmbedRequest,
    EmbedSparseRequest,
    SimilarityRequest,
    answer_embed,
    answer_embed_sparse,
    answer_similarity,
)
from onepass.server.tei.form import TEI
from onepass.server.tei.predict import PredictRequest, RerankRequest, answer_predict, answer_rerank


@dataclass(frozen=True, slots=True)
class Task:
    """kind: as `Operation.kind`."""

    kind: str
    request: type[msgspec.Struct]
    answer: Callable[[Call, Any], Awaitable[Answer]]


TASKS = {
    "feature-extraction": Task("embed", EmbedRequest, answer_embed),
    "sentence-similarity": Task("embed", SimilarityRequest, answer_similarity),
    "text-ranking": Task("predict", RerankRequest, answer_rerank),
    "text-classification": Task("predict", TextClassification, classify_texts),
    "zero-shot-classification": Task("predict", ZeroShotClassification, classify_by_labels),
    "token-classification": Task("tag", TokenClassification, classify_tokens),
    "question-answering": Task("answer", QuestionAnswering, answer_question),
    "fill-mask": Task("fill", FillMask, fill_masks),
}
PREDICT = Task("predict", PredictRequest, answer_predict)
EMBED_SPARSE = Task("embed", EmbedSparseRequest, answer_embed_sparse)

# What a model is for, by the first of these heads that it has. Embeddings are never asked for with `parameters`.
TASK_OF_HEAD = {
    "classify": "text-classification",
    "tag": "token-classification",
    "answer": "question-answering",
    "fill": "fill-mask",
}
# What a request is for, whatever the model, by a field of the body, of its `inputs` or of its `parameters`.
TASK_OF_FIELD = {
    "query": "text-ranking",
    "source_sentence": "sentence-similarity",
    "question": "question-answering",
    "candidate_labels": "zero-shot-classification",
}


class Request(msgspec.Struct, kw_only=True):
    """`inputs`, or `query` and `texts`; `parameters` of the task; path, body and model say which."""

    inputs: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()
    query: msgspec.Raw = msgspec.Raw()
    model: str | None = None


async def answer_task(call: Call, body: msgspec.Raw) -> Answer:
    task = task_of(call, await parse_as(Request, body))
    call.kind = task.kind
    return await task.answer(call, await parse_as(task.request, body))


def task_of(call: Call, request: Request) -> Task:
    """Raises InvalidInput for a task that is none of these."""
    name = call.named.get("task")
    if name is not None:
        if name not in TASKS:
            raise InvalidInput(f"the task {name[:80]!r} is unknown here; it may be {listed(list(TASKS))}")
        return TASKS[name]
    asked = {"query"} if request.query else fields_of(request.inputs) | fields_of(request.parameters)
    by_field = next((task for field, task in TASK_OF_FIELD.items() if field in asked), None)
    if by_field is not None:
        return TASKS[by_field]
    heads = {head.kind for head in call.choose(request.model).checkpoint.heads.values()}
    found = next((task for head, task in TASK_OF_HEAD.items() if head in heads), "feature-extraction")
    if heads == {"sparse"}:
        return EMBED_SPARSE
    if "embed" in heads and not request.parameters:
        return TASKS["feature-extraction"]
    # Where TEI and the pipelines differ, who sends `parameters`, or names the model in the path, speaks to a pipeline.
    if found == "text-classification" and not request.parameters and "model" not in call.named:
        return PREDICT
    return TASKS[found]


def fields_of(value: msgspec.Raw) -> set[str]:
    """Of an object; anything else has none."""
    return set(FIELDS.decode(value)) if bytes(value)[:1] == b"{" else set()


FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

OPERATIONS = (
    *(
        Operation(path, "embed", TEI, msgspec.Raw, Any, answer_task, summary)
        for path, summary in (
            ("/", "What the model is for, or the body asks."),
            ("/invocations", "The same, where SageMaker asks for it."),
            ("/models/{model:path}/pipeline/{task}", "A task of a model, as Hugging Face's clients ask for it."),
            ("/pipeline/{task}/{model:path}", "A task of a model, as older clients ask for it."),
            ("/models/{model:path}", "What the model is for, or the body asks."),
        )
    ),
    Operation(
        "/predict",
        "predict",
        TEI,
        TextClassification,
        list[list[Labelled]],
        classify_texts,
        "Labels with scores, as the pipelines give them.",
        frozenset({"parameters"}),
    ),
)
