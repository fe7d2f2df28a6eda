"""Jina's embeddings: OpenAI's request with more fields, by which it is known. Its rerank is in cohere/rerank.py."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec

from onepass.errors import EmptyInput, InvalidInput, OnepassError
from onepass.server.answer import Answer, dumps, listing
from onepass.server.inputs import prompt_or_type
from onepass.server.openai import Embedding, Usage
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call
from onepass.tasks.embed import embed
from onepass.tasks.embed_chunks import embed_chunks
from onepass.tasks.prompts import InputType
from onepass.tasks.vectors import Precision, Vectors

Type = Literal["float", "base64", "binary", "ubinary"]
Task = Literal[
    "retrieval.query",
    "retrieval.passage",
    "text-matching",
    "classification",
    "separation",
    "clustering",
    "code.query",
    "code.passage",
]


INPUT_TYPES: dict[str, InputType] = {
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "code.query": "query",
    "code.passage": "document",
}
MARKS = frozenset(
    {"task", "normalized", "late_chunking", "truncate", "embedding_type", "encoding_type", "return_multivector"}
)


class Failure(msgspec.Struct):
    detail: str
    code: str


class TextDoc(msgspec.Struct, kw_only=True):
    text: str | None = None
    image: str | None = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """`task`: what the vectors are for; the model's prompt of that name, or for queries or documents, if it has one.

    `normalized`: to length 1, unless it is false.  `late_chunking`: the inputs are chunks of one text, read whole.
    `embedding_type`: one, or several in a list; `encoding_type` is what older clients call it.
    """

    input: str | TextDoc | list[str | TextDoc]
    model: str | None = None
    task: Task | None = None
    dimensions: int | None = None
    normalized: bool | None = None
    late_chunking: bool | None = None
    truncate: bool | None = None
    embedding_type: Type | list[Type] | None = None
    encoding_type: Type | list[Type] | None = None
    input_type: Literal["query", "document"] | None = None
    return_multivector: bool | None = None


class EmbeddingsResponse(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


async def answer_embeddings(call: Call, body: EmbeddingsRequest) -> Answer:
    if body.return_multivector:
        raise InvalidInput("`return_multivector` is true; ask /onepass/v1/multivector for a vector per token")
    given = body.input if isinstance(body.input, list) else [body.input]
    texts = [item if isinstance(item, str) else text_of(index, item) for index, item in enumerate(given)]
    if not texts:
        raise EmptyInput("`input` is an empty list; send at least one text")
    type = one_type(body.encoding_type if body.embedding_type is None else body.embedding_type)
    job = call.open(body.model, len(texts), batch=isinstance(body.input, list))
    check_adapter(call, body.task)
    prompt, input_type = prompt_or_type(call, body.task, body.input_type or INPUT_TYPES.get(body.task or ""))
    unit = body.normalized is not False
    precision: Precision = "float32" if type == "float" or type == "base64" else type
    if body.late_chunking:
        (vectors,) = await embed_chunks(
            job,
            [texts],
            prompt=prompt,
            input_type=input_type,
            dimensions=body.dimensions,
            normalize=unit,
            precision=precision,
        )
    else:
        vectors = await embed(
            job,
            texts,
            prompt=prompt,
            input_type=input_type,
            dimensions=body.dimensions,
            normalize=unit,
            precision=precision,
            truncate=call.cut(body.truncate),
        )
    usage = {"prompt_tokens": job.usage.tokens, "total_tokens": job.usage.tokens}
    return listing(
        len(vectors),
        lambda start, stop: rows(vectors[start:stop], start, type),
        step=max(1, 32_768 // vectors.shape[1]),
        before=b'{"model":' + dumps(call.model) + b',"object":"list","usage":' + dumps(usage) + b',"data":[',
        after=b"]}",
    )


def check_adapter(call: Call, task: Task | None) -> None:
    """Raises InvalidInput where the model is served with the adapter for another task."""
    assert call.encoder is not None
    served = call.encoder.checkpoint.adapter
    if task is not None and served is not None and task != served:
        raise InvalidInput(
            f"`task` is {task!r}, this model is served with its adapter for {served!r}; ask for that, or serve the "
            f"model under a second name with --adapter NAME={task}"
        )


def text_of(index: int, document: TextDoc) -> str:
    if document.text is None:
        raise InvalidInput(f"input {index} has no text; this server reads texts only")
    return document.text


def one_type(types: Type | list[Type] | None) -> Type:
    if types is None or isinstance(types, str):
        return types or "float"
    several = list(dict.fromkeys(types))
    if len(several) != 1:
        raise InvalidInput(f"`embedding_type` holds {len(several)} types, an answer has room for one; send one of them")
    return several[0]


def rows(vectors: Vectors, first: int, type: Type) -> list[dict[str, Any]]:
    values: Any = vectors
    if type == "base64":
        values = [base64.b64encode(vector.tobytes()).decode("ascii") for vector in vectors.astype("<f4", copy=False)]
    return [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(values, start=first)
    ]


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    return {"detail": str(error), "code": error.code}


JINA = Dialect("jina", error_body, Failure)

OPERATIONS = tuple(
    Operation(
        path,
        "embed",
        JINA,
        EmbeddingsRequest,
        EmbeddingsResponse,
        answer_embeddings,
        "With one of Jina's fields: one vector per input, for a task, in one of four types.",
        marks=MARKS,
    )
    for path in ("/v1/embeddings", "/embeddings")
)
