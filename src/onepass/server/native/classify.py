"""/onepass/v1/classify"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.classify import classify
from onepass.tasks.labels import Long, labelled


class Classify(OfHead, kw_only=True):
    """`texts`: a text, or a list of texts and of pairs of texts.

    `labels`: of your own, for single texts.  `template`: where they stand.  `multi_label`: each is scored by itself.
    `long`: what becomes of texts that are longer than a row.
    """

    texts: str | list[str | tuple[str, str]]
    labels: list[str] | None = None
    multi_label: bool | None = None
    template: str | None = None
    long: Long = "cut"
    raw_scores: bool = False
    truncate: Side = UNSET


class Label(msgspec.Struct):
    label: str
    score: float


async def answer(call: Call, body: Classify) -> Answer:
    texts = many(body.texts)
    rows = await classify(
        call.open(body.model, len(texts)),
        texts,
        labels=body.labels,
        multi_label=body.multi_label,
        template=body.template,
        long=body.long,
        raw_scores=body.raw_scores,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    return results(call, list(map(labelled, rows)), step=max(1, 2_048 // max(len(rows[0]), 1)))


OPERATION = operation(
    "classify", "predict", Classify, list[Label], answer, "Labels with scores, best first, per text or pair."
)
