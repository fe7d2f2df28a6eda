"""/onepass/v1/similarity"""

from __future__ import annotations

from msgspec import UNSET

from onepass.errors import EmptyInput, TooLarge
from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.similarity import similarity

MOST_COSINES = 4_194_304


class Similarity(OfHead, kw_only=True):
    """Each of `a` beside each of `b`."""

    a: str | list[str | list[int]]
    b: str | list[str | list[int]]
    truncate: Side = UNSET


async def answer(call: Call, body: Similarity) -> Answer:
    a, b = many(body.a), many(body.b)
    for name, texts in (("a", a), ("b", b)):
        if not texts:
            raise EmptyInput(f"`{name}` is an empty list; send at least one text")
    if len(a) * len(b) > MOST_COSINES:
        raise TooLarge(f"{len(a)} texts with {len(b)} are more than {MOST_COSINES} cosines; send fewer texts at once")
    job = call.open(body.model, len(a) + len(b))
    cosines = await similarity(job, a, b, truncate=truncation(call, body.truncate), head=body.head)
    return results(call, cosines, step=max(1, 32_768 // len(b)))


OPERATION = operation(
    "similarity", "embed", Similarity, list[float], answer, "Cosines of each text of `a` with each of `b`."
)
