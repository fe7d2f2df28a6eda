"""/onepass/v1/rerank"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.rerank import rerank
from onepass.tasks.windows import Long


class Rerank(OfHead, kw_only=True):
    """`long`: what becomes of documents that are longer than a row: cut, or read in windows of which the best counts.

    `document_tokens`: leave out what comes after so many tokens.  `prompt`: a name or a text.
    """

    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool = False
    prompt: str | None = None
    document_tokens: int | None = None
    long: Long = "cut"
    window: int | None = None
    overlap: int | None = None
    raw_scores: bool = False
    truncate: Side = UNSET


class Ranked(msgspec.Struct, omit_defaults=True):
    """`document`: where it was asked for."""

    index: int
    score: float
    document: str | None = None


async def answer(call: Call, body: Rerank) -> Answer:
    ranking = await rerank(
        call.open(body.model, len(body.documents)),
        body.query,
        body.documents,
        top_n=body.top_n,
        return_documents=body.return_documents,
        prompt=body.prompt,
        document_tokens=body.document_tokens,
        long=body.long,
        window=body.window,
        overlap=body.overlap,
        raw_scores=body.raw_scores,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    rows: list[dict[str, Any]] = [{"index": one.index, "score": one.score} for one in ranking]
    if body.return_documents:
        for row, one in zip(rows, ranking, strict=True):
            row["document"] = one.document
    return results(call, rows, step=256 if body.return_documents else 1_024)


OPERATION = operation("rerank", "predict", Rerank, Ranked, answer, "Documents by relevance to a query, best first.")
