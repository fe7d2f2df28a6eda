"""What a head is asked about a text and what becomes of its answer: the half of a task that can share a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Encoded
from onepass.schedule.row import Ask

ANSWERED_AT_ONCE = 32  # inputs, then others get their turn to be tokenised
TOKENS_AT_ONCE = 128  # answers about so few are made sooner than another thread could begin with them

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """ask: what is asked of a row of an input; it may refuse the row with a typed error.
    answer: of an input, from its rows, of which each has this reading's output alone.
    points: whether the answer says where in the text something stands.
    """

    ask: Callable[[Any, Encoded], Ask]
    answer: Callable[[Any, Sequence[Answered]], T]
    points: bool = False


async def read(job: Job, inputs: Iterable[Any], reading: Reading[T], options: EncodeOptions) -> list[T]:
    """The answer about each input."""
    return [answer for (answer,) in await read_all(job, inputs, [reading], options)]


async def read_all(
    job: Job, inputs: Iterable[Any], readings: Sequence[Reading[Any]], options: EncodeOptions
) -> list[list[Any]]:
    """For each input the answers of all readings, from one pass over its rows. Raises what `Job.run` raises."""
    seen: list[Any] = []

    def noted() -> Iterator[Any]:
        for item in inputs:
            seen.append(item)
            yield item

    def asks(row: Encoded) -> tuple[Ask, ...]:
        return tuple(reading.ask(seen[row.input], row) for reading in readings)

    rows = await job.rows(list(noted()) if isinstance(inputs, list) else noted(), asks, options=options)

    def answers(item: Any, pieces: Sequence[Answered]) -> list[Any]:
        return [
            reading.answer(item, [Answered(piece.row, (piece.outputs[index],)) for piece in pieces])
            for index, reading in enumerate(readings)
        ]

    drawn = map(answers, seen, rows)
    if job.usage.tokens <= TOKENS_AT_ONCE:
        return list(drawn)
    found: list[list[Any]] = []
    for _ in range(0, len(rows), ANSWERED_AT_ONCE):
        found += await job.off_loop(lambda: list(islice(drawn, ANSWERED_AT_ONCE)))
    return found
