"""Answers to questions, cut out of a context.

Spans are scored and put together as the question-answering pipeline of transformers does it, up to 5.0, the last that
has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Alignment
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_of
from onepass.tasks.windows import windows

MOST_WINDOW = 384
MOST_ANSWER_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` of the context from character `start` to before `stop`; empty, 0 and 0 where there is no answer.

    score: the probability that the answer starts there times that it ends there; summed over the places and windows
    where the same words are found, so that it may pass 1.
    """

    text: str
    score: float
    start: int
    stop: int


class AnswerOptions(TypedDict, total=False):
    """The options of `answer`."""

    top_k: int
    no_answer: bool
    answer_tokens: int
    align_to_words: bool
    window: int | None
    overlap: int | None
    head: str | None


async def answer(
    job: Job,
    pairs: Iterable[tuple[str, str]],
    *,
    top_k: int = 1,
    no_answer: bool = False,
    answer_tokens: int = 15,
    align_to_words: bool = True,
    window: int | None = None,
    overlap: int | None = None,
    head: str | None = None,
) -> list[list[Answer]]:
    """For each (question, context) its best answers, at most top_k, best first; none for a context without tokens.

    no_answer: one of the answers may be that there is none, the empty text; its score is the lowest that any window
    gives to that.  answer_tokens: most tokens of an answer.  align_to_words: an answer begins and ends with a word, as
    the tokenizer splits words; turn it off for languages without spaces.
    window, overlap: tokens of a row, the question's included, and how many tokens of the context it shares with the row
    before (see `tasks.windows`); a window is at most 384 tokens unless another size is given.
    head: name of the head to read, of a checkpoint that has several for this.
    Probabilities are softmax over the context's tokens of one window and the first special token. Answers that differ
    only in case count as one, and stand where the first of them was found.
    Raises WrongTask, InputTooLong (a question that leaves no room for the context), InvalidInput and its kinds,
    Overloaded, EngineFailure.
    """
    name, _ = head_of(job, "answer", "answer", head)
    if top_k < 1:
        raise InvalidInput(f"top_k is {top_k}; ask for at least 1")
    if not 1 <= answer_tokens <= MOST_ANSWER_TOKENS:
        raise InvalidInput(f"answer_tokens is {answer_tokens}; choose 1 to {MOST_ANSWER_TOKENS}")
    seen: list[str] = []
    options = windows(job, window, overlap, most=MOST_WINDOW)
    rows = await job.rows(_checked_all(pairs, seen), lambda _: (Ask(name, finish="none"),), options=options)
    finder = _Finder(top_k, no_answer, answer_tokens, align_to_words)
    threads = job.served.device.threads
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: list(map(finder.answers, seen, rows)))


@dataclass(frozen=True, slots=True)
class _Finder:
    top_k: int
    no_answer: bool
    answer_tokens: int
    align_to_words: bool

    def answers(self, context: str, pieces: Sequence[Answered]) -> list[Answer]:
        """In a context that was read in one row or several windows."""
        found: dict[str, Answer] = {}
        nothing = float("inf")
        # aligning to words makes one answer of several
        count = 2 * self.top_k + 10 if self.align_to_words else self.top_k
        for piece in pieces:
            alignment, scores = piece.row.alignment, piece.outputs[0].values
            assert alignment is not None
            context_tokens = np.array(alignment.texts) == 1
            starting, ending = _chances(scores, context_tokens | _no_answer_token(alignment))
            nothing = min(nothing, float(starting[0] * ending[0]))
            starting[0] = ending[0] = 0
            words = _word_ends(alignment) if self.align_to_words else {}
            for first, last, score in _best(starting, ending, self.answer_tokens, count):
                start = words.get(alignment.words[first], (alignment.starts[first], 0))[0]
                stop = words.get(alignment.words[last], (0, alignment.stops[last]))[1]
                text = context[start:stop]
                known = found.get(text.lower(), Answer(text, 0, start, stop))
                found[text.lower()] = replace(known, score=known.score + score)
        answers = [*found.values(), Answer("", nothing, 0, 0)] if self.no_answer else found.values()
        return sorted(answers, key=lambda answer: -answer.score)[: self.top_k]


def _no_answer_token(alignment: Alignment) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The special token before the question, where models that know no answer point to."""
    places = np.zeros(len(alignment.texts), np.bool_)
    places[0] = alignment.texts[0] == -1
    return places


def _chances(scores: Floats, allowed: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[Floats, Floats]:
    """Probability of each token to be the first, and to be the last, of the answer."""
    masked = np.where(allowed[:, None], scores, np.float32(-10000))
    raised = np.exp(masked - masked.max(axis=0))
    starting, ending = (raised / raised.sum(axis=0)).T
    return starting.copy(), ending.copy()


def _best(starting: Floats, ending: Floats, most: int, count: int) -> Iterator[tuple[int, int, float]]:
    """(first token, last token, score) of the likeliest spans of 1 to `most` tokens; impossible ones do not count."""
    most = min(most, len(ending))
    followed = np.concatenate([ending, np.zeros(most - 1, np.float32)])
    products = starting[:, None] * np.lib.stride_tricks.sliding_window_view(followed, most)  # [tokens, most]
    flat = products.ravel()
    for index in np.argsort(-flat, kind="stable")[:count].tolist():
        if flat[index] == 0:
            return
        first, more = divmod(index, most)
        yield first, first + more, float(flat[index])


def _word_ends(alignment: Alignment) -> dict[int, tuple[int, int]]:
    """First character of each word of the context, and the one after its last, as far as the row shows it."""
    ends: dict[int, tuple[int, int]] = {}
    for text, word, start, stop in zip(
        alignment.texts, alignment.words, alignment.starts, alignment.stops, strict=True
    ):
        if text == 1:
            ends[word] = ends.get(word, (start, stop))[0], stop
    return ends


def paired(question: str | Sequence[str], context: str | Sequence[str]) -> list[tuple[str, str]]:
    """One question for each context; a str goes with each of the others. Raises InvalidInput."""
    if isinstance(question, str) and isinstance(context, str):
        return [(question, context)]
    if isinstance(question, str):
        return [(question, one) for one in context]
    if isinstance(context, str):
        return [(one, context) for one in question]
    if len(question) != len(context):
        raise InvalidInput(
            f"there are {len(question)} questions and {len(context)} contexts; send as many of one as of the other, "
            "or a string for one of them"
        )
    return list(zip(question, context, strict=True))


def _checked_all(pairs: Iterable[tuple[str, str]], seen: list[str]) -> Iterable[tuple[str, str]]:
    """The pairs as they come, each context put into `seen`, too; a list stays one."""

    def checked() -> Iterator[tuple[str, str]]:
        for index, (question, context) in enumerate(pairs):
            for name, text in (("question", question), ("context", context)):
                if not isinstance(text, str):
                    raise InvalidInput(f"{name} {index} is a {type(text).__name__}; send a string")
                if not text:
                    raise EmptyInput(f"{name} {index} is empty; send some text")
            seen.append(context)
            yield question, context

    return list(checked()) if isinstance(pairs, list) else checked()
