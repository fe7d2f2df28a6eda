"""A vector for each chunk of a document that knows of the whole document: late chunking.

The document is read whole, and each chunk's tokens are pooled afterwards (Günther et al. 2024); one longer than a row
is read in windows that overlap, and every chunk is taken from a window that holds all of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypedDict

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InputTooLong, InvalidInput, WrongTask
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Encoded, check_unicode
from onepass.schedule.row import Ask
from onepass.tasks.prompts import InputType, prompt_or_type
from onepass.tasks.vectors import Form, Precision, Ranges, Vectors, form

Spans = Sequence[tuple[int, int]]
Document = Sequence[str] | tuple[str, Spans]

OF_TOKENS = {"mean", "sum", "max", "mean_sqrt", "weighted_mean"}
"""Poolings that ask all tokens; the first or the last token alone says nothing of a chunk."""


class ChunkOptions(TypedDict, total=False):
    """The options of `embed_chunks`."""

    prompt: str | None
    input_type: InputType | None
    dimensions: int | None
    normalize: bool | None
    precision: Precision
    ranges: Ranges | None
    overlap: int | None
    head: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """A row of a document.

    ids: without special tokens.  chunks: those it holds, as numbers of the document and of its chunk.  places: their
    first and last tokens in the row, special tokens included.
    """

    ids: list[int]
    chunks: Sequence[tuple[int, int]]
    places: tuple[tuple[int, int], ...]


async def embed_chunks(
    job: Job,
    documents: Iterable[Document],
    *,
    prompt: str | None = None,
    input_type: InputType | None = None,
    dimensions: int | None = None,
    normalize: bool | None = None,
    precision: Precision = "float32",
    ranges: Ranges | None = None,
    overlap: int | None = None,
    head: str | None = None,
) -> list[Vectors]:
    """For each document an array of one row for each chunk, in their order; dtypes and options as for `embed`.

    documents: each a list of its chunks, which put together are the document; or its text with (start, stop) for each
    chunk, in characters, which may overlap and leave something out.
    A chunk's vector is pooled from the tokens that end in it, without special tokens and without the prompt, which
    stands before each row.
    overlap: at least so many tokens stand before a chunk in its window, as far as there is room and the document has
    them; None: a quarter of a row.
    Raises WrongTask, InputTooLong for a chunk longer than a row, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    wanted = form(job, dimensions, normalize, precision, ranges, head)
    pools = job.served.checkpoint.heads[wanted.head].pool.kinds
    if not OF_TOKENS.issuperset(pools):
        raise WrongTask(f"this model pools {' and '.join(pools)}; chunks need one that pools all tokens, as mean does")
    cutter = _Cutter(job, prompt_or_type(job, prompt, input_type), overlap)
    windows: list[Window] = []
    counts: list[int] = []

    def rows() -> Iterator[list[int]]:
        for number, document in enumerate(documents):
            text, spans = _checked(document, number)
            counts.append(len(spans))
            job.usage.characters += len(text)
            for window in cutter.windows(number, text, spans):
                windows.append(window)
                yield window.ids

    def asks(row: Encoded) -> tuple[Ask, ...]:
        return (Ask(wanted.head, finish=wanted.finish, spans=windows[row.input].places),)

    source = rows() if job.wait else await job.off_loop(lambda: list(rows()))
    found = await job.outputs(source, asks, options=EncodeOptions(truncate=None))
    job.usage.inputs, job.usage.windows = len(counts), len(windows) - len(counts)
    return await job.off_loop(lambda: _by_document(wanted, counts, windows, [one.values for (one,) in found]))


def _by_document(
    wanted: Form, counts: Sequence[int], windows: Sequence[Window], rows: Sequence[Floats]
) -> list[Vectors]:
    """The chunks' vectors, put from windows into the order of the documents."""
    starts = [*accumulate(counts, initial=0)]
    order = [starts[document] + chunk for window in windows for document, chunk in window.chunks]
    found = wanted.of(np.concatenate(rows))
    vectors = np.empty_like(found)
    vectors[order] = found
    return [vectors[start:stop] for start, stop in pairwise(starts)]


class _Cutter:
    """Makes windows of documents."""

    def __init__(self, job: Job, prompt: str, overlap: int | None) -> None:
        self.tokenizer = job.served.tokenizer
        self.prompt = prompt
        self.limit = limit = self.tokenizer.max_length - self.tokenizer.special_tokens()
        self.overlap = limit // 4 if overlap is None else overlap
        if not 0 <= self.overlap < limit:
            raise InvalidInput(
                f"overlap is {overlap} tokens, a row here has {limit}; choose 0 or more and less than a row"
            )

    def windows(self, number: int, text: str, spans: Spans) -> Iterator[Window]:
        """Raises InputTooLong, EmptyInput."""
        check_unicode(text, f"input {number}")
        (pieces,) = self.tokenizer.pieces([self.prompt + text], aligned=True)
        stops = np.array([stop for _, stop in pieces.offsets], np.int64) - len(self.prompt)
        before = int(np.searchsorted(stops, 0, side="right")) if self.prompt else 0
        prompt, tokens = pieces.ids[:before], pieces.ids[before:]
        room = self.limit - before
        ends = np.searchsorted(stops[before:], np.array(spans), side="right").tolist()
        for chunk, (first, end) in enumerate(ends):
            if first == end:
                raise EmptyInput(f"chunk {chunk} of input {number} has no tokens; leave it out, or give it some text")
            if end - first > room:
                raise InputTooLong(
                    f"chunk {chunk} of input {number} has {end - first} tokens, a row has room for {max(room, 0)}; "
                    "make chunks smaller",
                    end - first,
                    max(room, 0),
                )
        leading = self.tokenizer.around()[0] + before
        waiting = sorted(range(len(ends)), key=ends.__getitem__)
        while waiting:
            first, end = ends[waiting[0]]
            context = min(self.overlap, room - (end - first))
            start = max(min(first - context, len(tokens) - room), 0)
            stop = start + room
            near = bisect_left(waiting, stop, key=lambda chunk: ends[chunk][0])
            held = [chunk for chunk in waiting[:near] if ends[chunk][1] <= stop]
            waiting = [chunk for chunk in waiting[:near] if ends[chunk][1] > stop] + waiting[near:]
            shift = leading - start
            places = tuple((ends[chunk][0] + shift, ends[chunk][1] - 1 + shift) for chunk in held)
            yield Window([*prompt, *tokens[start:stop]], [(number, chunk) for chunk in held], places)


def _checked(document: Any, number: int) -> tuple[str, Spans]:
    """The text and its chunks' characters. Raises InvalidInput, EmptyInput."""
    if isinstance(document, str) or not isinstance(document, Sequence):
        raise InvalidInput(
            f"input {number} is a {type(document).__name__}; send a list of chunks, or a text and (start, stop) of each"
        )
    if isinstance(document, tuple) and len(document) == 2 and not isinstance(document[1], str):
        text, spans = document
        if not isinstance(text, str):
            raise InvalidInput(f"the text of input {number} is a {type(text).__name__}; send a string")
        return text, _checked_spans(spans, len(text), number)
    for chunk, text in enumerate(document):
        if not isinstance(text, str):
            raise InvalidInput(f"chunk {chunk} of input {number} is a {type(text).__name__}; send a string")
    ends = [*accumulate(map(len, document), initial=0)]
    return "".join(document), _checked_spans([*pairwise(ends)], ends[-1], number)


def _checked_spans(spans: Any, size: int, number: int) -> Spans:
    if not isinstance(spans, Sequence) or isinstance(spans, str):
        raise InvalidInput(f"the chunks of input {number} are a {type(spans).__name__}; send (start, stop) for each")
    if not spans:
        raise EmptyInput(f"input {number} has no chunks; send at least one")
    for chunk, span in enumerate(spans):
        whole = isinstance(span, Sequence) and len(span) == 2 and all(hasattr(end, "__index__") for end in span)
        if not whole or not 0 <= span[0] <= span[1] <= size:
            raise InvalidInput(
                f"chunk {chunk} of input {number} is {span!r}; send (start, stop) in characters of a text of {size}"
            )
    return spans
