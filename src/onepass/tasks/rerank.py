"""How well each document answers a query, by a cross-encoder: one pass over query and document together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import starmap

from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import EncodeOptions
from onepass.tasks.heads import head_of, is_reranker

Ranking = list[tuple[int, float]]


async def rerank(
    job: Job,
    query: str,
    documents: Iterable[str],
    *,
    top_n: int | None = None,
    raw_scores: bool = False,
    truncate: Truncate = "right",
    document_tokens: int | None = None,
    head: str | None = None,
) -> Ranking:
    """(index of the document, score), best first; equal scores keep the documents' order.

    Scores are what the checkpoint's activation makes of the logit; raw_scores leaves the logit.
    document_tokens: cut each document to that many tokens before it is put beside the query.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, _ = head_of(job, "classify", "rerank", head, is_reranker)
    for limit, value in (("top_n", top_n), ("document_tokens", document_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{limit} is {value}; ask for at least 1, or leave it out")
    if not isinstance(query, str):
        raise InvalidInput(f"the query is a {type(query).__name__}; send a string")
    if not query:
        raise EmptyInput("the query is empty; send some text")
    numbered = enumerate(documents)
    pairs = starmap(lambda index, document: (query, _checked(document, index)), numbered)
    inputs = list(pairs) if isinstance(documents, list) else pairs
    ask = Ask(name, finish="none" if raw_scores else None)
    outputs = await job.run(inputs, ask, options=EncodeOptions(truncate=truncate, second_tokens=document_tokens))
    scores = [float(scores[0, 0]) for (scores,) in outputs]
    best = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return best[:top_n]


def _checked(document: object, index: int) -> str:
    if not isinstance(document, str):
        raise InvalidInput(f"document {index} is a {type(document).__name__}; send a string")
    return document
