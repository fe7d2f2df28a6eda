"""/onepass/v1/rerank"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import Asked, Side, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.rerank import rerank


class Rerank(Asked, kw_only=True):
    query: str
    documents: list[str]
    top_n: int | None = None
    raw_scores: bool = False
    truncate: Side = UNSET


class Ranked(msgspec.Struct):
    index: int
    score: float


async def answer(call: Call, body: Rerank) -> Answer:
    ranking = await rerank(
        call.open(body.model, len(body.documents)),
        body.query,
        body.documents,
        top_n=body.top_n,
        raw_scores=body.raw_scores,
        truncate=truncation(call, body.truncate),
    )
    return results(call, [{"index": index, "score": score} for index, score in ranking], step=1_024)


OPERATION = operation("rerank", "predict", Rerank, Ranked, answer, "Documents by relevance to a query, best first.")
