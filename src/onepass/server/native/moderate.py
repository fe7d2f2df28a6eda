"""/onepass/v1/moderate"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.moderate import THRESHOLD, Moderated, moderate
from onepass.tasks.windows import Long


class Category(msgspec.Struct, forbid_unknown_fields=True):
    """`threshold`: the least score that is flagged."""

    labels: list[str]
    threshold: float = THRESHOLD


class Moderate(OfHead, kw_only=True):
    """`texts`: a text, or a list of them.  `categories`: labels by category; left out, those of the server's settings.

    `long`: what becomes of texts that are longer than a row: read in windows, of which the worst counts, or cut.
    """

    texts: str | list[str]
    categories: dict[str, list[str] | Category] | None = None
    long: Long = "windows"
    window: int | None = None
    overlap: int | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: Moderate) -> Answer:
    texts = many(body.texts)
    found = await moderate(
        call.open(body.model, len(texts)),
        texts,
        categories=msgspec.to_builtins(body.categories),
        long=body.long,
        window=body.window,
        overlap=body.overlap,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    return results(call, found, step=128)


OPERATION = operation(
    "moderate", "predict", Moderate, Moderated, answer, "Which texts are flagged, and for which categories."
)
