"""How well each document answers a query, by whatever the checkpoint is.

A cross-encoder, or a language model that is asked in words, reads query and document together; vectors of tokens are
compared by MaxSim, vectors of texts by their cosine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.tasks.heads import reranker_of
from onepass.tasks.multivector import late_interaction
from onepass.tasks.prompts import prompt_for, prompt_text
from onepass.tasks.windows import Long, cut_or_windows


@dataclass(frozen=True, slots=True)
class Ranked:
    """index: of the document among those given.  document: its text, where it was asked for."""

    index: int
    score: float
    document: str | None = None


Ranking = list[Ranked]


async def rerank(
    job: Job,
    query: str,
    documents: Iterable[str],
    *,
    top_n: int | None = None,
    return_documents: bool = False,
    prompt: str | None = None,
    document_tokens: int | None = None,
    long: Long = "cut",
    window: int | None = None,
    overlap: int | None = None,
    raw_scores: bool = False,
    truncate: Truncate = "right",
    head: str | None = None,
) -> Ranking:
    """The documents, best first; equal scores keep their order.

    Scores are what the checkpoint's activation makes of the logit; of vectors of tokens, the mean over the query's of
    their best cosine with one of the document's; of vectors of texts, the cosine.
    return_documents: give the texts back, too.
    prompt: a prompt name of the checkpoint, or the text itself if it holds a space or colon: the instruction of a model
    that is asked in words, else put before the query. None: the default prompt; where vectors are compared, the prompts
    named "query" and "document", "passage" or "corpus", if there are any.
    document_tokens: leave out of each document what comes after so many tokens.
    long: "cut" cuts what is longer than a row as `truncate` says. "windows" reads such documents in windows of `window`
    tokens, query and special tokens included (None: the model's limit), each sharing `overlap` tokens with the one
    before (None: half a window, at most 128); the best window's score is the document's.
    raw_scores: the logits; of vectors of tokens, MaxSim as the checkpoint was trained with it, most often the sum.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, found = reranker_of(job, head)
    for limit, value in (("top_n", top_n), ("document_tokens", document_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{limit} is {value}; ask for at least 1, or leave it out")
    if not isinstance(query, str):
        raise InvalidInput(f"the query is a {type(query).__name__}; send a string")
    if not query:
        raise EmptyInput("the query is empty; send some text")
    seen: list[str] | None = [] if return_documents else None
    texts = (_checked(document, index, seen) for index, document in enumerate(documents))
    given = list(texts) if isinstance(documents, list) else texts
    options = replace(cut_or_windows(job, long, window, overlap, truncate), second_tokens=document_tokens)
    if found.kind == "classify":
        ask = Ask(name, finish="none" if raw_scores else None)
        scores = await _together(job, query, given, ask, prompt, options)
    elif found.kind == "multivector":
        if prompt is not None:
            raise InvalidInput("this model marks queries and documents by itself; leave the prompt out")
        mean = None if raw_scores else True
        scores = await late_interaction(job, query, given, options=options, mean=mean, head=name)
    else:
        scores = await _cosines(job, query, given, Ask(name, finish="l2"), prompt, options)
    best = sorted(enumerate(scores), key=lambda pair: -pair[1])[:top_n]
    return [Ranked(index, score, None if seen is None else seen[index]) for index, score in best]


async def _together(
    job: Job, query: str, documents: Iterable[str], ask: Ask, prompt: str | None, options: EncodeOptions
) -> list[float]:
    """Query and document in one row; the query gives way only where nothing else is left."""
    pairs = ((query, document) for document in documents)
    found = await job.rows(
        list(pairs) if isinstance(documents, list) else pairs,
        lambda _: (ask,),
        options=replace(options, prompt=instruction(job, prompt)),
    )
    return [max(float(row.outputs[0].values[0, 0]) for row in rows) for rows in found]


async def _cosines(
    job: Job, query: str, documents: Iterable[str], ask: Ask, prompt: str | None, options: EncodeOptions
) -> list[float]:
    """Of the query's vector with each document's."""
    asked, kept = prompt_for(job, "query", prompt), prompt_for(job, "document", None)
    (((vector,),),) = await job.run([query], ask, options=EncodeOptions(asked, options.truncate))
    before = ""
    if options.overlap is not None:  # each window has the prompt; white space at its end is the text's
        before = kept.rstrip()
        ids = tuple(token.id for token in job.served.tokenizer.tokens(before, special=False))
        options = replace(options, before=ids)
    options = replace(options, prompt=kept[len(before) :])
    found = await job.rows(documents, lambda _: (ask,), options=options)

    def cosine(row: Answered) -> float:
        return float(row.outputs[0].values[0] @ vector)

    return [max(map(cosine, rows)) for rows in found]


def instruction(job: Job, prompt: str | None) -> str:
    """What is put beside query and document; no default prompt where the template has no place for it."""
    pairs = job.served.tokenizer.pairs
    if prompt is None and pairs is not None and pairs.instructed is None:
        return ""
    return prompt_text(job, prompt)


def _checked(document: object, index: int, seen: list[str] | None) -> str:
    """The document, noted in `seen`. Raises InvalidInput."""
    if not isinstance(document, str):
        raise InvalidInput(f"document {index} is a {type(document).__name__}; send a string")
    if seen is not None:
        seen.append(document)
    return document
