"""OpenAI's routes: /v1/embeddings (also without /v1), /v1/moderations and /v1/models."""

from __future__ import annotations

import base64
import uuid
from typing import Any, Literal

import msgspec

from onepass.errors import EmptyInput, InvalidInput, OnepassError, TokenOutOfRange
from onepass.server.answer import Answer, dumps, listing
from onepass.server.inputs import TextsOrIds, texts_or_ids
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call, Service
from onepass.tasks.embed import embed
from onepass.tasks.moderate import Moderated, moderate

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class Problem(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class Failure(msgspec.Struct):
    error: Problem


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """`input`: a text, a list of texts, one list of token ids, or a list of such lists."""

    input: TextsOrIds
    model: str | None = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class TextPart(msgspec.Struct, kw_only=True, tag_field="type", tag="text"):
    text: str


class ImagePart(msgspec.Struct, kw_only=True, tag_field="type", tag="image_url"):
    image_url: dict[str, Any]


class ModerationsRequest(msgspec.Struct, kw_only=True):
    """`input`: a text, a list of texts, or the parts of one input."""

    input: str | list[str | TextPart | ImagePart]
    model: str | None = None


class Moderation(msgspec.Struct):
    """OpenAI's categories and the model's own; those the model does not score are false and 0 and apply to nothing."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationsResponse(msgspec.Struct):
    id: str
    model: str
    results: list[Moderation]


class Model(msgspec.Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsResponse(msgspec.Struct):
    object: Literal["list"]
    data: list[Model]


async def answer_embeddings(call: Call, body: EmbeddingsRequest) -> Answer:
    if body.input == []:
        raise EmptyInput("`input` is an empty list; send at least one text")
    inputs, batch = texts_or_ids("input", body.input)
    job = call.open(body.model, len(inputs), batch=batch)
    try:
        vectors = await embed(job, inputs, dimensions=body.dimensions, normalize=True, truncate=call.cut(None))
    except TokenOutOfRange as error:
        raise TokenOutOfRange(
            f"{error} (LangChain's OpenAIEmbeddings sends ids of another model's vocabulary; "
            "give it check_embedding_ctx_length=False and it sends text)"
        ) from None

    def as_base64(start: int, stop: int) -> list[dict[str, Any]]:
        little_endian = vectors[start:stop].astype("<f4", copy=False)
        return [
            {
                "object": "embedding",
                "index": start + row,
                "embedding": base64.b64encode(vector.tobytes()).decode("ascii"),
            }
            for row, vector in enumerate(little_endian)
        ]

    def as_floats(start: int, stop: int) -> list[dict[str, Any]]:
        return [
            {"object": "embedding", "index": start + row, "embedding": vector}
            for row, vector in enumerate(vectors[start:stop])
        ]

    usage = {"prompt_tokens": job.usage.tokens, "total_tokens": job.usage.tokens}
    return listing(
        len(vectors),
        as_base64 if body.encoding_format == "base64" else as_floats,
        step=max(1, 32_768 // vectors.shape[1]),
        before=b'{"object":"list","data":[',
        after=b'],"model":' + dumps(call.model) + b',"usage":' + dumps(usage) + b"}",
    )


async def answer_moderations(call: Call, body: ModerationsRequest) -> Answer:
    texts = moderated_texts(body.input)
    job = call.open(body.model, len(texts), batch=not isinstance(body.input, str))
    found = await moderate(job, texts, truncate=call.cut(None))
    return listing(
        len(found),
        lambda start, stop: [moderation(one) for one in found[start:stop]],
        step=32,
        before=dumps({"id": f"modr-{uuid.uuid4().hex}", "model": call.model})[:-1] + b',"results":[',
        after=b"]}",
    )


def moderated_texts(given: str | list[str | TextPart | ImagePart]) -> list[str]:
    """One text per result; those of parts are joined by line breaks. Raises InvalidInput, EmptyInput."""
    items = [given] if isinstance(given, str) else given
    if not items:
        raise EmptyInput("`input` is an empty list; send at least one text")
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) == len(items):
        return texts
    parts = [item.text for item in items if isinstance(item, TextPart)]
    if texts:
        raise InvalidInput("`input` mixes texts with parts; send a list of texts, or the parts of one input")
    if len(parts) < len(items):
        raise InvalidInput("there are images in `input`; this server reads texts only")
    return ["\n".join(parts)]


def moderation(one: Moderated) -> dict[str, Any]:
    names = dict.fromkeys([*CATEGORIES, *one.scores])
    return {
        "flagged": one.flagged,
        "categories": {name: one.categories.get(name, False) for name in names},
        "category_scores": {name: one.scores.get(name, 0.0) for name in names},
        "category_applied_input_types": {name: ["text"] if name in one.scores else [] for name in names},
    }


def models(service: Service) -> dict[str, Any]:
    """What GET /v1/models answers: the served models and since when."""
    service.check_ready()
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": service.ready_since, "owned_by": "onepass"}
            for name in service.encoders
        ],
    }


def error_body(error: OnepassError, status: int) -> dict[str, Any]:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    if status >= 500:
        kind = "server_error"
    param = "model" if error.code == "unknown_model" else None
    code = "model_not_found" if error.code == "unknown_model" else error.code
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}


# Whatever is wrong with a request is a 400, which the client raises as BadRequestError.
WRONG = ("invalid_input", "input_too_long", "token_out_of_range", "wrong_task", "too_large")
OPENAI = Dialect("openai", error_body, Failure, dict.fromkeys(WRONG, 400))

OPERATIONS = (
    *(
        Operation(
            path, "embed", OPENAI, EmbeddingsRequest, EmbeddingsResponse, answer_embeddings, "One vector per input."
        )
        for path in ("/v1/embeddings", "/embeddings")
    ),
    Operation(
        "/v1/moderations",
        "predict",
        OPENAI,
        ModerationsRequest,
        ModerationsResponse,
        answer_moderations,
        "Which texts are flagged, and for which categories.",
    ),
)
