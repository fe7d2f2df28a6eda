"""/onepass/v1/tag"""

from __future__ import annotations

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, many, operation, results
from onepass.server.service import Call
from onepass.tasks.tag import Aggregation, Entity, tag


class Tag(OfHead, kw_only=True):
    """`texts`: a text, or a list of them; long ones are read in windows.  `aggregation`: null: what the model says."""

    texts: str | list[str]
    aggregation: Aggregation | None = None
    ignore_labels: tuple[str, ...] = ("O",)
    window: int | None = None
    overlap: int | None = None


async def answer(call: Call, body: Tag) -> Answer:
    texts = many(body.texts)
    found = await tag(
        call.open(body.model, len(texts)),
        texts,
        aggregation=body.aggregation,
        ignore_labels=body.ignore_labels,
        window=body.window,
        overlap=body.overlap,
        head=body.head,
    )
    return results(call, found, step=32)


OPERATION = operation("tag", "tag", Tag, list[Entity], answer, "Labelled stretches of each text, in order.")
