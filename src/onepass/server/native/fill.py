"""/onepass/v1/fill"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.fill import Filling, fill


class Fill(OfHead, kw_only=True):
    """`texts`: a text, or a list of them, with the mask token where one is missing."""

    texts: str | list[str]
    top_k: Annotated[int, Meta(le=1_000)] = 5
    candidates: list[str] | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: Fill) -> Answer:
    texts = many(body.texts)
    fillings = await fill(
        call.open(body.model, len(texts)),
        texts,
        top_k=body.top_k,
        candidates=body.candidates,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    return results(call, fillings, step=32)


OPERATION = operation(
    "fill", "fill", Fill, list[list[Filling]], answer, "The likeliest tokens for each mask of each text, best first."
)
