"""/onepass/v1/multivector"""

from __future__ import annotations

from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.multivector import multivector
from onepass.tasks.prompts import InputType


class MultiVectors(OfHead, kw_only=True):
    """`texts`: a text, or a list of them.  `truncate`: "right", or null to refuse."""

    texts: str | list[str]
    input_type: InputType = "document"
    dimensions: int | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: MultiVectors) -> Answer:
    texts = many(body.texts)
    vectors = await multivector(
        call.open(body.model, len(texts)),
        texts,
        input_type=body.input_type,
        dimensions=body.dimensions,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    return results(call, vectors, step=max(1, 32_768 // max(text.size for text in vectors)))


OPERATION = operation(
    "multivector", "multivector", MultiVectors, list[list[float]], answer, "A vector for each token of each text."
)
