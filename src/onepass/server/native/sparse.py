"""/onepass/v1/sparse"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.prompts import InputType
from onepass.tasks.sparse import TokenWeight, sparse


class Sparse(OfHead, kw_only=True):
    """`texts`: a text, or a list of them."""

    texts: str | list[str]
    input_type: InputType = "document"
    top_k: int | None = None
    threshold: Annotated[float, Meta(ge=0)] = 0.0
    prompt: str | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: Sparse) -> Answer:
    texts = many(body.texts)
    vectors = await sparse(
        call.open(body.model, len(texts)),
        texts,
        input_type=body.input_type,
        top_k=body.top_k,
        threshold=body.threshold,
        prompt=body.prompt,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    longest = max(map(len, vectors))
    return results(call, vectors, step=1 + 1_000 // max(longest, 1), shown=list)


OPERATION = operation(
    "sparse", "sparse", Sparse, list[TokenWeight], answer, "The weighted tokens of each text, best first."
)
