"""/predict, /rerank: labels with scores, and texts by relevance."""

from __future__ import annotations

from typing import Any

import msgspec

from onepass.errors import EmptyInput
from onepass.server.answer import Answer, dumps, listing, unit_scores
from onepass.server.inputs import texts_or_pairs
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.tei.form import TEI, Cut
from onepass.tasks.classify import classify
from onepass.tasks.rerank import rerank


class PredictRequest(Cut, kw_only=True):
    """`inputs`: a text, a pair of texts, or a list of one-text and two-text lists."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False


class RerankRequest(Cut, kw_only=True):
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class Prediction(msgspec.Struct):
    score: float
    label: str


class Rank(msgspec.Struct, omit_defaults=True):
    index: int
    score: float
    text: str | None = None


async def answer_predict(call: Call, body: PredictRequest) -> Answer:
    if not body.inputs:
        raise EmptyInput("`inputs` cannot be empty")
    inputs, batch = texts_or_pairs("inputs", body.inputs)
    job = call.open(body.model, len(inputs), batch=batch)
    if any(not "".join(item) for item in inputs):
        raise EmptyInput("`inputs` cannot be empty")
    labels = await classify(
        job,
        inputs,
        raw_scores=body.raw_scores,
        truncate=body.side(call),
    )
    rows = [[{"score": score, "label": label} for label, score in row] for row in labels]
    if not batch:
        return Answer(dumps(rows[0]))
    step = max(1, 2_048 // max(len(rows[0]), 1))
    return listing(len(rows), lambda start, stop: rows[start:stop], step=step)


async def answer_rerank(call: Call, body: RerankRequest) -> Answer:
    job = call.open(body.model, len(body.texts))
    if not body.texts:
        raise EmptyInput("`texts` cannot be empty")
    ranks = await rerank(
        job,
        body.query,
        body.texts,
        raw_scores=body.raw_scores,
        truncate=body.side(call),
    )
    if not body.raw_scores:
        ranks = unit_scores(call, ranks)

    def rows(start: int, stop: int) -> list[dict[str, Any]]:
        if body.return_text:
            return [
                {"index": one.index, "text": body.texts[one.index], "score": one.score} for one in ranks[start:stop]
            ]
        return [{"index": one.index, "score": one.score} for one in ranks[start:stop]]

    return listing(len(ranks), rows, step=1_024)


OPERATIONS = (
    Operation(
        "/predict",
        "predict",
        TEI,
        PredictRequest,
        list[Prediction | list[Prediction]],
        answer_predict,
        "Labels with scores, best first, per input.",
    ),
    Operation("/rerank", "predict", TEI, RerankRequest, list[Rank], answer_rerank, "Texts by relevance to a query."),
)
