"""Reranking as Cohere (v1, v2) and Jina spell it; their /v1/rerank requests agree, so one route answers both."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from onepass.errors import EmptyInput, InvalidInput, OnepassError
from onepass.server.answer import Answer, dumps, listing, unit_scores
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call, listed
from onepass.tasks.rerank import Ranking, rerank


class CohereFailure(msgspec.Struct):
    message: str


class Failure(msgspec.Struct):
    """`message` is Cohere's field, `detail` is Jina's."""

    message: str
    detail: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """`documents`: texts, or objects of which `rank_fields` (default: "text") are read, in that order."""

    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None


class CohereRequest(msgspec.Struct, kw_only=True):
    """`max_tokens_per_doc`: longer documents are cut there; the model's own limit holds as well."""

    query: str
    documents: list[str]
    model: str | None = None
    top_n: int | None = None
    max_tokens_per_doc: int = 4_096
    priority: int = 0


class Usage(msgspec.Struct):
    total_tokens: int
    prompt_tokens: int


class Meta(msgspec.Struct, omit_defaults=True):
    api_version: dict[str, str]
    tokens: dict[str, int]
    warnings: list[str] | None = None


class Result(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankResponse(msgspec.Struct):
    id: str
    model: str
    object: str
    results: list[Result]
    usage: Usage
    meta: Meta


class CohereResponse(msgspec.Struct):
    id: str
    results: list[Result]
    meta: Meta


async def answer_v1(call: Call, body: RerankRequest) -> Answer:
    texts = [document_text(number, given, body.rank_fields) for number, given in enumerate(body.documents)]
    ranks = await ranked(call, body.model, body.query, texts, body.top_n)
    if body.max_chunks_per_doc is not None and body.max_chunks_per_doc < 1:
        raise InvalidInput(f"`max_chunks_per_doc` is {body.max_chunks_per_doc}, it must be at least 1")
    # Jina returns documents unless told not to, Cohere only where asked; a field too many harms neither's clients.
    echo = body.return_documents is not False

    def rows(start: int, stop: int) -> list[dict[str, Any]]:
        if not echo:
            return [{"index": one.index, "relevance_score": one.score} for one in ranks[start:stop]]
        return [
            {"index": one.index, "relevance_score": one.score, "document": as_object(body.documents[one.index])}
            for one in ranks[start:stop]
        ]

    tokens = call.job.usage.tokens if call.job else 0
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    head = dumps({"id": str(uuid.uuid4()), "model": call.model, "object": "list"})
    return listing(
        len(ranks),
        rows,
        step=512,
        before=head[:-1] + b',"results":[',
        after=b'],"usage":' + dumps(usage) + b',"meta":' + dumps(meta(call, "1")) + b"}",
    )


async def answer_v2(call: Call, body: CohereRequest) -> Answer:
    ranks = await ranked(call, body.model, body.query, body.documents, body.top_n, body.max_tokens_per_doc)
    return listing(
        len(ranks),
        lambda start, stop: [{"index": one.index, "relevance_score": one.score} for one in ranks[start:stop]],
        step=1_024,
        before=b'{"id":' + dumps(str(uuid.uuid4())) + b',"results":[',
        after=b'],"meta":' + dumps(meta(call, "2")) + b"}",
    )


async def ranked(
    call: Call,
    model: str | None,
    query: str,
    documents: list[str],
    top_n: int | None,
    document_tokens: int | None = None,
) -> Ranking:
    """Best first, at most top_n of them."""
    job = call.open(model, len(documents))
    if not documents:
        raise EmptyInput("`documents` is an empty list; send at least one document")
    ranks = await rerank(job, query, documents, top_n=top_n, document_tokens=document_tokens, truncate=call.cut(None))
    return unit_scores(call, ranks)


def document_text(number: int, document: str | dict[str, Any], fields: list[str] | None) -> str:
    """The text to rank. Raises InvalidInput for an object without any of the fields."""
    if isinstance(document, str):
        return document
    wanted = fields or ["text"]
    found = [document[field] for field in wanted if field in document]
    if not found or not all(isinstance(value, str) for value in found):
        raise InvalidInput(
            f"document {number} must have text in one of the fields {listed(wanted)}, it has {listed(list(document))}; "
            "name others in `rank_fields`"
        )
    return "\n".join(found)


def as_object(document: str | dict[str, Any]) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document


def meta(call: Call, version: str) -> dict[str, Any]:
    assert call.job is not None
    usage = call.job.usage
    known: dict[str, Any] = {"api_version": {"version": version}, "tokens": {"input_tokens": usage.tokens}}
    if usage.truncated:
        known["warnings"] = [f"{usage.truncated} of the documents were cut because they are longer than allowed"]
    return known


def cohere_error(error: OnepassError, status: int) -> dict[str, str]:
    return {"message": str(error)}


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    return {"message": str(error), "detail": str(error)}


COHERE = Dialect("cohere", cohere_error, CohereFailure)
COHERE_JINA = Dialect("cohere_jina", error_body, Failure)

OPERATIONS = (
    Operation("/v1/rerank", "predict", COHERE_JINA, RerankRequest, RerankResponse, answer_v1, "Cohere v1 and Jina."),
    Operation("/v2/rerank", "predict", COHERE, CohereRequest, CohereResponse, answer_v2, "Cohere v2."),
)
