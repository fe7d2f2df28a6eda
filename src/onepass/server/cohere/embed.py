"""/v1/embed and /v2/embed: the vectors of some texts in any number of types."""

from __future__ import annotations

import base64
import uuid
from typing import Any, Literal

import msgspec
import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.pieces import Truncate
from onepass.server.answer import Answer, dumps, joined, listing
from onepass.server.cohere.form import COHERE, Billed, Meta, meta
from onepass.server.inputs import prompt_or_type
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.tasks.embed import embed
from onepass.tasks.prompts import InputType
from onepass.tasks.vectors import quantize

Purpose = Literal["search_document", "search_query", "classification", "clustering", "image"]
Type = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
Cut = Literal["NONE", "START", "END"]
INPUT_TYPES: dict[str, InputType] = {"search_query": "query", "search_document": "document"}


class EmbedRequest(msgspec.Struct, kw_only=True):
    """`truncate`: the end that an over-long text loses; NONE refuses it."""

    texts: list[str] | None = None
    images: list[str] | None = None
    model: str | None = None
    input_type: Purpose | None = None
    embedding_types: list[Type] | None = None
    truncate: Cut | None = None


class TextPart(msgspec.Struct, kw_only=True, tag_field="type", tag="text"):
    text: str


class ImagePart(msgspec.Struct, kw_only=True, tag_field="type", tag="image_url"):
    image_url: dict[str, Any]


class Content(msgspec.Struct, kw_only=True):
    content: list[TextPart | ImagePart]


class EmbedRequestV2(EmbedRequest, kw_only=True):
    """`inputs`: instead of `texts`; the texts of one input are joined by line breaks.

    `max_tokens`: longer texts are cut there; the model's own limit holds as well.
    """

    inputs: list[Content] | None = None
    output_dimension: int | None = None
    max_tokens: int | None = None
    priority: int | None = None


class Embeddings(msgspec.Struct, omit_defaults=True):
    floats: list[list[float]] | None = msgspec.field(default=None, name="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class EmbedResponse(msgspec.Struct):
    """`embeddings`: rows of floats with `embeddings_floats`, which /v1/embed answers where no type is named."""

    id: str
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    embeddings: Embeddings | list[list[float]]
    texts: list[str]
    meta: Meta


async def answer_v1(call: Call, body: EmbedRequest) -> Answer:
    texts = given(body.texts, body.images)
    vectors = await embedded(call, body, texts)
    if body.embedding_types is None:
        return answer(call, "1", "embeddings_floats", rows(vectors, "float"), texts)
    return answer(call, "1", "embeddings_by_type", by_type(vectors, body.embedding_types), texts)


async def answer_v2(call: Call, body: EmbedRequestV2) -> Answer:
    texts = given(body.texts, body.images, body.inputs)
    vectors = await embedded(call, body, texts, dimensions=body.output_dimension, tokens=body.max_tokens)
    return answer(call, "2", "embeddings_by_type", by_type(vectors, body.embedding_types or ["float"]), texts)


def given(texts: list[str] | None, images: list[str] | None, inputs: list[Content] | None = None) -> list[str]:
    """The texts to embed. Raises InvalidInput where several fields hold some, or one an image; EmptyInput for none."""
    if images or any(isinstance(part, ImagePart) for item in inputs or () for part in item.content):
        raise InvalidInput("there are images in this request; this server reads texts only")
    if texts and inputs:
        raise InvalidInput("there are both `texts` and `inputs` in this request; send one of them")
    found = texts or [
        "\n".join(part.text for part in item.content if isinstance(part, TextPart)) for item in inputs or ()
    ]
    if not found:
        raise EmptyInput("there are no texts in this request; send at least one in `texts`")
    return found


async def embedded(
    call: Call, body: EmbedRequest, texts: list[str], *, dimensions: int | None = None, tokens: int | None = None
) -> Floats:
    if body.input_type == "image":
        raise InvalidInput("`input_type` is 'image'; this server reads texts only")
    job = call.open(body.model, len(texts))
    prompt, input_type = prompt_or_type(call, body.input_type, INPUT_TYPES.get(body.input_type or ""))
    vectors = await embed(
        job,
        texts,
        prompt=prompt,
        input_type=input_type,
        dimensions=dimensions,
        normalize=True,
        max_tokens=tokens,
        truncate=cut(call, body.truncate),
    )
    return np.asarray(vectors, np.float32)


def cut(call: Call, side: Cut | None) -> Truncate:
    return call.cut(side != "NONE" if side else None, "left" if side == "START" else "right")


def by_type(vectors: Floats, types: list[Type]) -> Answer:
    """An object with the rows of each type."""
    parts: list[bytes | Answer] = []
    for type in dict.fromkeys(types):
        parts += [b"," if parts else b"{", dumps(type) + b":", rows(vectors, type)]
    return joined(*parts, b"}")


def rows(vectors: Floats, type: Type) -> Answer:
    def some(start: int, stop: int) -> Any:
        piece = vectors[start:stop]
        if type == "base64":
            return [base64.b64encode(row.tobytes()).decode() for row in piece.astype("<f4", copy=False)]
        return piece if type == "float" else quantize(piece, type)

    return listing(len(vectors), some, step=max(1, 32_768 // vectors.shape[1]))


def answer(call: Call, version: str, kind: str, embeddings: Answer, texts: list[str]) -> Answer:
    assert call.job is not None
    billed = Billed(input_tokens=call.job.usage.tokens)
    return joined(
        dumps({"id": str(uuid.uuid4()), "response_type": kind})[:-1] + b',"embeddings":',
        embeddings,
        b',"texts":',
        listing(len(texts), lambda start, stop: texts[start:stop], step=512),
        b',"meta":' + dumps(meta(call, version, billed)) + b"}",
    )


OPERATIONS = (
    Operation("/v1/embed", "embed", COHERE, EmbedRequest, EmbedResponse, answer_v1, "Cohere v1: vectors of texts."),
    Operation("/v2/embed", "embed", COHERE, EmbedRequestV2, EmbedResponse, answer_v2, "Cohere v2: vectors by type."),
)
