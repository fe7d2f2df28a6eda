"""OpenAI's routes: /v1/embeddings (also without /v1) and /v1/models."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec

from onepass.errors import EmptyInput, OnepassError, TokenOutOfRange
from onepass.server.answer import Answer, dumps, listing
from onepass.server.inputs import TextsOrIds, texts_or_ids
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call, Service
from onepass.tasks.embed import embed


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

OPERATIONS = tuple(
    Operation(path, "embed", OPENAI, EmbeddingsRequest, EmbeddingsResponse, answer_embeddings, "One vector per input.")
    for path in ("/v1/embeddings", "/embeddings")
)
