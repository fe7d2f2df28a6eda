"""Labels for texts: a model's own, or the caller's."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from onepass.engines.arithmetic import FINISHES
from onepass.server.answer import Answer, listing
from onepass.server.hugging_face.form import Asked, Texts, TopK, each, many
from onepass.server.service import Call
from onepass.tasks.classify import Scores, classify


class ClassificationParameters(msgspec.Struct, kw_only=True):
    top_k: TopK | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class TextClassification(Asked, kw_only=True):
    """`parameters`: of all labels the `top_k` best; the function makes scores of logits, if not the model's own."""

    inputs: Texts
    parameters: ClassificationParameters = msgspec.field(default_factory=ClassificationParameters)


class ZeroShotParameters(msgspec.Struct, kw_only=True):
    candidate_labels: list[str]
    hypothesis_template: str | None = None
    multi_label: bool = False


class ZeroShotClassification(Asked, kw_only=True):
    inputs: Texts
    parameters: ZeroShotParameters


class Labelled(msgspec.Struct):
    label: str
    score: float


async def classify_texts(call: Call, body: TextClassification) -> Answer:
    """A list of labels for each text, also for one."""
    texts, wanted = many(body.inputs), body.parameters
    job = call.open(body.model, len(texts), batch=isinstance(body.inputs, list))
    function = wanted.function_to_apply
    rows = await classify(job, texts, raw_scores=function is not None, truncate=call.cut(None))
    if function is not None:
        rows = [applied(function, row) for row in rows]
    return listing(len(rows), lambda start, stop: [labelled(row[: wanted.top_k]) for row in rows[start:stop]], step=256)


def applied(function: Literal["sigmoid", "softmax", "none"], row: Scores) -> Scores:
    scores = FINISHES[function](np.array([score for _, score in row], np.float32))
    return [(label, score) for (label, _), score in zip(row, scores.tolist(), strict=True)]


def labelled(row: Scores) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in row]


async def classify_by_labels(call: Call, body: ZeroShotClassification) -> Answer:
    texts, wanted = many(body.inputs), body.parameters
    rows = await classify(
        call.open(body.model, len(texts) * max(len(wanted.candidate_labels), 1)),
        texts,
        labels=wanted.candidate_labels,
        multi_label=wanted.multi_label,
        template=wanted.hypothesis_template,
        truncate=call.cut(None),
    )
    return each(body.inputs, [labelled(row) for row in rows])
