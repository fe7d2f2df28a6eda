"""/onepass/v1/embed"""

from __future__ import annotations

from msgspec import UNSET

from onepass.server.answer import Answer
from onepass.server.native.form import OfHead, Side, many, operation, results, truncation
from onepass.server.service import Call
from onepass.tasks.embed import embed
from onepass.tasks.prompts import InputType
from onepass.tasks.vectors import Precision


class Embed(OfHead, kw_only=True):
    """`texts`: a text, or a list of texts and of lists of token ids."""

    texts: str | list[str | list[int]]
    prompt: str | None = None
    input_type: InputType | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    precision: Precision = "float32"
    ranges: tuple[list[float], list[float]] | None = None
    max_tokens: int | None = None
    truncate: Side = UNSET


async def answer(call: Call, body: Embed) -> Answer:
    texts = many(body.texts)
    vectors = await embed(
        call.open(body.model, len(texts)),
        texts,
        prompt=body.prompt,
        input_type=body.input_type,
        dimensions=body.dimensions,
        normalize=body.normalize,
        precision=body.precision,
        ranges=body.ranges,
        max_tokens=body.max_tokens,
        truncate=truncation(call, body.truncate),
        head=body.head,
    )
    return results(call, vectors, step=max(1, 32_768 // vectors.shape[1]))


OPERATION = operation("embed", "embed", Embed, list[float], answer, "One vector per text.")
