"""A vector per token, as late interaction (ColBERT) compares them, and the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice, takewhile
from typing import get_args

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.model.heads import HeadSpec
from onepass.model.multivector import Side
from onepass.schedule.fit import PLAIN, EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Encoded, Truncate
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_of
from onepass.tasks.prompts import InputType
from onepass.tasks.reading import Reading, read
from onepass.tasks.texts import strings
from onepass.tasks.vectors import cut

DOCUMENTS_AT_ONCE = 32
"""Laid end to end to be compared: few enough that their copy does not count."""


async def multivector(
    job: Job,
    texts: Iterable[str],
    *,
    input_type: InputType = "document",
    dimensions: int | None = None,
    truncate: Truncate = "right",
    head: str | None = None,
) -> list[Floats]:
    """For each text float32 [tokens, width], a vector for each token that the checkpoint compares.

    input_type: "query" or "document", which differ in marker and length; most checkpoints fill queries up with mask
    tokens, and leave punctuation out of documents.
    dimensions: keep that many leading values, and make the length 1 again where the vectors are normalised.
    truncate: "right" cuts over-long texts; None refuses them.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, found = head_of(job, "multivector", "multivector", head)
    side = _side(job, input_type)
    reading = token_vectors(job, name, found, side, dimensions)
    if truncate == "left":
        raise InvalidInput("truncate is 'left', but the marker of a query or document is there; cut on the right")
    options = EncodeOptions(prompt=side.prompt, truncate=truncate, window=side.length, expansion=side.expansion)
    return await read(job, strings(texts), reading, options)


def token_vectors(job: Job, head: str, spec: HeadSpec, side: Side, dimensions: int | None = None) -> Reading[Floats]:
    """The vectors of one side's tokens. Raises InvalidInput."""
    width = job.served.checkpoint.widths[head]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidInput(f"dimensions is {dimensions}, this model gives 1 to {width}; ask for a number between")

    def answer(text: str, rows: Sequence[Answered]) -> Floats:
        (one,) = rows
        return cut(one.outputs[0].values, dimensions or width, unit=spec.finish == "l2")

    return Reading(lambda text, row: _ask(head, side, row), answer)


def beside_others(job: Job, head: str, spec: HeadSpec) -> Reading[Floats]:
    """The vectors of documents from rows that other heads read, too. Raises WrongTask where they need their own."""
    side = _side(job, "document")
    if side.prompt or side.length != job.served.checkpoint.max_length:
        raise WrongTask(
            f"head {head!r} reads documents behind a marker, or of a length of their own; ask the task multivector"
        )
    return token_vectors(job, head, spec, side)


async def late_interaction(
    job: Job,
    query: str,
    documents: Iterable[str],
    *,
    options: EncodeOptions = PLAIN,
    mean: bool | None = None,
    head: str | None = None,
) -> list[float]:
    """How well each document answers the query: `max_similarity` of their vectors.

    options: how documents are cut, or read in windows, each with its marker, of which the best one counts.
    mean: as `max_similarity` has it.
    Raises what `multivector` raises.
    """
    name, _ = head_of(job, "multivector", "multivector", head)
    side = _side(job, "document")
    window = side.length if options.window is None else min(options.window, side.length or options.window)
    options = replace(options, before=_marker(job, side), window=window)
    cut_query: Truncate = None if options.truncate is None else "right"
    (asked,) = await multivector(job, [query], input_type="query", truncate=cut_query, head=name)
    found = await job.rows(strings(documents, "document"), lambda row: (_ask(name, side, row),), options=options)
    scores = await max_similarity(job, asked, [row.outputs[0].values for rows in found for row in rows], mean=mean)
    scored = iter(scores)
    return [max(islice(scored, len(rows))) for rows in found]


async def max_similarity(
    job: Job, query: Floats, documents: Sequence[Floats], *, mean: bool | None = None
) -> list[float]:
    """For each document the sum over the query's vectors of their largest product with one of its own (MaxSim).

    query: float32 [q, width].  documents: float32 [tokens, width] each.
    mean: the mean instead of the sum (MeanMaxSim); None: where the checkpoint was trained so.
    Raises InvalidInput for what cannot be compared.
    """
    query = _vectors(query, "the query")
    documents = [_vectors(document, f"document {index}", query.shape[1]) for index, document in enumerate(documents)]
    engine = job.served.device.engine(job.served.model)
    sides = job.served.checkpoint.multivector
    mean = sides is not None and sides.mean if mean is None else mean
    share = 1 / len(query) if mean else 1.0

    def scores(some: Sequence[Floats]) -> list[float]:
        offsets = np.array([*accumulate(map(len, some), initial=0)], np.int32)
        return [score * share for score in engine.max_similarity(query, np.concatenate(some), offsets).tolist()]

    found: list[float] = []
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
        found += await job.off_loop(partial(scores, documents[start : start + DOCUMENTS_AT_ONCE]))
    return found


def _side(job: Job, input_type: InputType) -> Side:
    if input_type not in get_args(InputType):
        raise InvalidInput(f"input_type {input_type!r} is unknown; choose {', '.join(get_args(InputType))}")
    sides = job.served.checkpoint.multivector
    assert sides is not None, "a multivector head has them"
    return sides.query if input_type == "query" else sides.document


def _marker(job: Job, side: Side) -> tuple[int, ...]:
    """The tokens of the side's prompt that are the same before any text."""
    texts = (side.prompt, side.prompt + "a")
    alone, before = ([token.id for token in job.served.tokenizer.tokens(text, special=False)] for text in texts)
    return tuple(one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(alone, before, strict=False)))


def _ask(head: str, side: Side, row: Encoded) -> Ask:
    """The vectors of the tokens that are compared."""
    places = tuple(place for place, id in enumerate(row.ids) if place >= side.start and id not in side.without)
    if not places:
        raise EmptyInput(f"input {row.input} has only tokens that this model leaves out; send more text")
    return Ask(head) if len(places) == len(row.ids) else Ask(head, positions=places)


def _vectors(given: object, name: str, width: int | None = None) -> Floats:
    """float32 [m, width], without a copy where it is that already."""
    try:
        vectors = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} is not an array of numbers; send what multivector gives") from None
    if vectors.ndim != 2 or not vectors.size or width not in (None, vectors.shape[1]):
        wanted = "any" if width is None else width
        raise InvalidInput(f"{name} has the shape {list(vectors.shape)}; send [1 or more vectors, {wanted} values]")
    return vectors
