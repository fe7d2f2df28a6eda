"""/score and /rerank: pairs by a cross-encoder, by the cosine of their vectors or by MaxSim, as the model is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.server.answer import Answer, dumps, listing
from onepass.server.inputs import leading
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.vllm.form import VLLM, Asked, Usage, heading, reading, usage
from onepass.tasks.heads import reranker_of
from onepass.tasks.multivector import max_similarity, multivector
from onepass.tasks.pool import pool
from onepass.tasks.rerank import instruction

Texts = str | list[str]
Most = Annotated[int, Meta(ge=0)]

# Names under which the two sides of the pairs may be given.
SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class AskedOfPairs(Asked, kw_only=True):
    """`max_tokens_per_query`, `max_tokens_per_doc`: what a text has beyond them is left out; 0: nothing.

    `instruction`: to a language model that is asked in words.
    """

    max_tokens_per_query: Most = 0
    max_tokens_per_doc: Most = 0
    instruction: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ScoreRequest(AskedOfPairs, kw_only=True):
    """The two sides by any of four pairs of names: one text with one or many, or as many with as many."""

    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None


class RerankRequest(AskedOfPairs, kw_only=True):
    """`top_n`: 0: all."""

    query: str
    documents: Texts
    top_n: Most = 0


class Score(msgspec.Struct):
    index: int
    object: Literal["score"]
    score: float


class ScoreResponse(msgspec.Struct):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class Document(msgspec.Struct):
    text: str
    multi_modal: None


class Result(msgspec.Struct):
    index: int
    document: Document
    relevance_score: float


class RerankUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class RerankResponse(msgspec.Struct):
    id: str
    model: str
    usage: RerankUsage
    results: list[Result]


async def answer_score(call: Call, body: ScoreRequest) -> Answer:
    first, second = sides(body)
    scores = await scored(call, body, first, second)
    assert call.job is not None
    return listing(
        len(scores),
        lambda start, stop: [
            {"index": start + place, "object": "score", "score": score}
            for place, score in enumerate(scores[start:stop])
        ],
        step=1_024,
        before=dumps(heading(call, "score", body.request_id))[:-1] + b',"data":[',
        after=b'],"usage":' + dumps(usage(call.job)) + b"}",
    )


async def answer_rerank(call: Call, body: RerankRequest) -> Answer:
    documents = many(body.documents)
    scores = await scored(call, body, [body.query], documents)
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n or None]
    assert call.job is not None
    tokens = call.job.usage.tokens
    head = {
        "id": heading(call, "score", body.request_id)["id"],
        "model": call.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return listing(
        len(best),
        lambda start, stop: [
            {
                "index": index,
                "document": {"text": documents[index], "multi_modal": None},
                "relevance_score": scores[index],
            }
            for index in best[start:stop]
        ],
        step=512,
        before=dumps(head)[:-1] + b',"results":[',
        after=b"]}",
    )


def sides(body: ScoreRequest) -> tuple[list[str], list[str]]:
    """Raises InvalidInput where no pair of fields is given."""
    for names in SIDES:
        first, second = (getattr(body, name) for name in names)
        if first is not None and second is not None:
            return many(first), many(second)
    pairs = ", or ".join(f"`{first}` and `{second}`" for first, second in SIDES)
    raise InvalidInput(f"the texts to compare are missing; send {pairs}")


def many(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


async def scored(call: Call, body: AskedOfPairs, first: list[str], second: list[str]) -> list[float]:
    """One score for each pair. Raises InvalidInput for lists that do not make pairs."""
    job = call.open(body.model, max(len(first), len(second)))
    options = reading(call, body)
    _, head = reranker_of(job)
    if body.instruction is not None and (head.kind != "classify" or job.served.tokenizer.pairs is None):
        raise InvalidInput("`instruction` is for language models that are asked in words; leave it out")
    if body.chat_template_kwargs:
        raise InvalidInput("`chat_template_kwargs` cannot be given; what may change of a template is `instruction`")
    if not first or not second:
        raise EmptyInput("there are no texts on one side; send at least one")
    if len(first) not in (1, len(second)):
        raise InvalidInput(f"{len(first)} texts do not pair with {len(second)}; send 1 and any, or as many of both")
    first = [await cut(call, text, body.max_tokens_per_query, "max_tokens_per_query") for text in first]
    second = [await cut(call, text, body.max_tokens_per_doc, "max_tokens_per_doc") for text in second]
    if head.kind == "multivector":
        return await late(job, first, second, options)
    if head.kind == "embed":
        vectors = await pool(job, [*first, *second], "embed", raw=False, options=options)
        return await job.off_loop(lambda: cosines(np.stack(vectors[: len(first)]), np.stack(vectors[len(first) :])))
    pairs = list(zip(first * (len(second) // len(first)), second, strict=True))
    options = replace(options, prompt=instruction(job, body.instruction))
    raw = body.use_activation is False
    return [float(score[0]) for score in await pool(job, pairs, "classify", raw=raw, options=options)]


async def cut(call: Call, text: str, most: int, name: str) -> str:
    """Raises InvalidInput."""
    assert call.encoder is not None
    if most >= call.encoder.checkpoint.max_length:
        raise InvalidInput(f"`{name}` is {most}; choose less than the model's {call.encoder.checkpoint.max_length}")
    return await leading(call, text, most) if most else text


def cosines(first: Any, second: Any) -> list[float]:
    return [float(score) for score in np.einsum("ij,ij->i", np.broadcast_to(first, second.shape), second)]


async def late(job: Job, first: list[str], second: list[str], options: EncodeOptions) -> list[float]:
    if options.window is not None:
        raise InvalidInput("`truncate_prompt_tokens` can only be -1 for a model whose queries and documents differ")
    queries = await multivector(job, first, input_type="query", truncate=options.truncate)
    documents = await multivector(job, second, truncate=options.truncate)
    if len(queries) == 1:
        return await max_similarity(job, queries[0], documents)
    return [(await max_similarity(job, *pair))[0] for pair in zip(queries, ([one] for one in documents), strict=True)]


ONLY_HERE = frozenset(
    {
        "truncate_prompt_tokens",
        "truncation_side",
        "use_activation",
        "request_id",
        "max_tokens_per_query",
        "instruction",
        "chat_template_kwargs",
        "cache_salt",
    }
)
RANK = "Documents by relevance to a query."

OPERATIONS = (
    *(
        Operation(path, "predict", VLLM, ScoreRequest, ScoreResponse, answer_score, "A score for each pair of texts.")
        for path in ("/score", "/v1/score")
    ),
    Operation("/rerank", "predict", VLLM, RerankRequest, RerankResponse, answer_rerank, RANK, frozenset({"documents"})),
    *(
        Operation(path, "predict", VLLM, RerankRequest, RerankResponse, answer_rerank, RANK, ONLY_HERE)
        for path in ("/v1/rerank", "/v2/rerank")
    ),
)
