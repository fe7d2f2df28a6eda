"""/v1/rerank, on which Jina's requests agree with Cohere's, and /v2/rerank."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from onepass.errors import EmptyInput, InvalidInput, OnepassError
from onepass.server.answer import Answer, dumps, listing, unit_scores
from onepass.server.cohere.form import COHERE, Billed, Meta, meta
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call, listed
from onepass.tasks.rerank import Ranking, rerank
from onepass.tasks.windows import Long


class RerankRequest(msgspec.Struct, kw_only=True):
    """`documents`: texts, or objects of which `rank_fields` (default: "text") are read, in that order.

    `max_chunks_per_doc` (Cohere): above 1, long documents are read in windows, of which the best counts.
    `max_doc_length`, `truncation` (Jina): most tokens of a document; false refuses what is longer than the model takes.
    """

    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None
    max_doc_length: int | None = None
    truncation: bool | None = None
    return_embeddings: bool | None = None


class RelevantSpans(msgspec.Struct, kw_only=True):
    mode: str
    threshold: float | None = None
    max_spans: int | None = None


class RerankRequestV2(msgspec.Struct, kw_only=True):
    """`max_tokens_per_doc`: longer documents are cut there; the model's own limit holds as well."""

    query: str
    documents: list[str]
    model: str | None = None
    top_n: int | None = None
    max_tokens_per_doc: int | None = 4_096
    priority: int | None = None
    relevant_spans: RelevantSpans | None = None


class Usage(msgspec.Struct):
    total_tokens: int
    prompt_tokens: int


class Result(msgspec.Struct, omit_defaults=True):
    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class RerankResponse(msgspec.Struct):
    """Cohere reads `id` and `meta`, Jina `model`, `object` and `usage`."""

    id: str
    model: str
    object: str
    results: list[Result]
    usage: Usage
    meta: Meta


class RerankResponseV2(msgspec.Struct):
    id: str
    results: list[Result]
    meta: Meta


class Failure(msgspec.Struct):
    """`message` is Cohere's field, `detail` is Jina's."""

    message: str
    detail: str


async def answer_v1(call: Call, body: RerankRequest) -> Answer:
    if body.return_embeddings:
        raise InvalidInput("`return_embeddings` is true, this server gives scores only; ask /v1/embeddings for vectors")
    if body.max_chunks_per_doc is not None and body.max_chunks_per_doc < 1:
        raise InvalidInput(f"`max_chunks_per_doc` is {body.max_chunks_per_doc}, it must be at least 1")
    texts = [document_text(number, given, body.rank_fields) for number, given in enumerate(body.documents)]
    ranks = await ranked(
        call,
        body.model,
        body.query,
        texts,
        body.top_n,
        document_tokens=body.max_doc_length,
        long="windows" if (body.max_chunks_per_doc or 1) > 1 else "cut",
        truncate=body.truncation,
    )
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
        after=b'],"usage":' + dumps(usage) + b',"meta":' + dumps(meta(call, "1", searched(texts))) + b"}",
    )


async def answer_v2(call: Call, body: RerankRequestV2) -> Answer:
    if body.relevant_spans is not None and body.relevant_spans.mode != "disabled":
        raise InvalidInput("`relevant_spans` is asked for, this server ranks whole documents; leave it out")
    ranks = await ranked(
        call, body.model, body.query, body.documents, body.top_n, document_tokens=body.max_tokens_per_doc
    )
    return listing(
        len(ranks),
        lambda start, stop: [{"index": one.index, "relevance_score": one.score} for one in ranks[start:stop]],
        step=1_024,
        before=b'{"id":' + dumps(str(uuid.uuid4())) + b',"results":[',
        after=b'],"meta":' + dumps(meta(call, "2", searched(body.documents))) + b"}",
    )


async def ranked(
    call: Call,
    model: str | None,
    query: str,
    documents: list[str],
    top_n: int | None,
    *,
    document_tokens: int | None,
    long: Long = "cut",
    truncate: bool | None = None,
) -> Ranking:
    """Best first, at most top_n of them."""
    job = call.open(model, len(documents))
    if not documents:
        raise EmptyInput("`documents` is an empty list; send at least one document")
    ranks = await rerank(
        job,
        query,
        documents,
        top_n=top_n,
        document_tokens=document_tokens,
        long=long,
        truncate=call.cut(truncate),
    )
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


def searched(documents: list[str]) -> Billed:
    return Billed(search_units=-(-len(documents) // 100))


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    return {"message": str(error), "detail": str(error)}


COHERE_JINA = Dialect("cohere_jina", error_body, Failure)

OPERATIONS = (
    Operation("/v1/rerank", "predict", COHERE_JINA, RerankRequest, RerankResponse, answer_v1, "Cohere v1 and Jina."),
    Operation("/v2/rerank", "predict", COHERE, RerankRequestV2, RerankResponseV2, answer_v2, "Cohere v2."),
)
