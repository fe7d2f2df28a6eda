"""How well each document answers a query, by a cross-encoder: one pass over query and document together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import starmap

from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import EncodeOptions
from onepass.tasks.heads import head_of, tasks_of

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
) -> Ranking:
    """(index of the document, score), best first; equal scores keep the documents' order.

    Scores are what the checkpoint's activation makes of the logit; raw_scores leaves the logit.
    document_tokens: cut each document to that many tokens before it is put beside the query.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    head = head_of(job, "classify", "rerank")
    if len(head.labels) != 1:
        checkpoint = job.served.checkpoint
        raise WrongTask(
            f"this model cannot rerank: it has {len(head.labels)} labels, a reranker has one; "
            f"it can {', '.join(tasks_of(checkpoint))}"
        )
    for name, value in (("top_n", top_n), ("document_tokens", document_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is {value}; ask for at least 1, or leave it out")
    if not isinstance(query, str):
        raise InvalidInput(f"the query is a {type(query).__name__}; send a string")
    if not query:
        raise EmptyInput("the query is empty; send some text")
    numbered = enumerate(documents)
    pairs = starmap(lambda index, document: (query, _checked(document, index)), numbered)
    inputs = list(pairs) if isinstance(documents, list) else pairs
    ask = Ask("classify", finish="none" if raw_scores else None)
    outputs = await job.run(inputs, ask, options=EncodeOptions(truncate=truncate, second_tokens=document_tokens))
    scores = [float(scores[0, 0]) for (scores,) in outputs]
    best = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return best[:top_n]


def _checked(document: object, index: int) -> str:
    if not isinstance(document, str):
        raise InvalidInput(f"document {index} is a {type(document).__name__}; send a string")
    return document
