"""Which texts fall into categories that a table makes of a classifier's labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onepass.engines.arithmetic import FINISHES
from onepass.engines.batch import Floats
from onepass.errors import BadCheckpoint, BadSetting, EmptyInput, InvalidInput, WrongTask
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import HeadSpec
from onepass.model.own_heads import FILE
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_in, head_of
from onepass.tasks.reading import Reading, read
from onepass.tasks.texts import strings
from onepass.tasks.windows import Long, cut_or_windows

Table = Mapping[str, Sequence[str] | Mapping[str, Any]]
"""By category the labels that make it up; or an object of `labels` and the `threshold` at which it is flagged."""

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Moderated:
    """categories: which apply.  flagged: whether one does.  scores: of each, as the classifier makes them."""

    flagged: bool
    categories: dict[str, bool]
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class Category:
    """columns: of its labels.  threshold: the least score that is flagged."""

    name: str
    columns: tuple[int, ...]
    threshold: float


async def moderate(
    job: Job,
    texts: Iterable[str],
    *,
    categories: Table | None = None,
    long: Long = "windows",
    window: int | None = None,
    overlap: int | None = None,
    truncate: Truncate = "right",
    head: str | None = None,
) -> list[Moderated]:
    """Whether each text is flagged, and for what.

    categories: labels of the checkpoint by category, e.g. {"harassment": ["toxic", "insult"], "violence": {"labels":
    ["threat"], "threshold": 0.3}}; None: the table that the model was loaded with, or else its own. A category's score
    is the sum of its labels' where one label holds (softmax), else the largest. It applies from its threshold on, 0.5
    if it names none.
    long: "windows" reads texts longer than a row in windows (`tasks.windows`) and takes each category's largest score;
    "cut" cuts them as `truncate` says.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, found = head_of(job, "classify", "moderate", head)
    table = job.served.moderation if categories is None else categories
    if table is None:
        raise InvalidInput(
            f"nothing says which of this model's labels ({', '.join(found.labels[:20])}) make up which category; give "
            "categories, or load it with a table moderation"
        )
    reading = moderating(name, found, read_table(table, found.labels))
    return await read(job, strings(texts), reading, cut_or_windows(job, long, window, overlap, truncate))


def moderating(name: str, head: HeadSpec, categories: Sequence[Category]) -> Reading[Moderated]:
    ask = Ask(name, finish="none")  # as classify asks, so that both give the same scores
    together = sum if head.finish == "softmax" else max

    def answer(item: str, rows: Sequence[Answered]) -> Moderated:
        found: Floats = FINISHES[head.finish](np.stack([row.outputs[0].values[0] for row in rows]))
        scores = {one.name: max(float(together(values[list(one.columns)])) for values in found) for one in categories}
        applies = {one.name: scores[one.name] >= one.threshold for one in categories}
        return Moderated(any(applies.values()), applies, scores)

    return Reading(lambda item, row: ask, answer)


def check_table(checkpoint: Checkpoint, table: Table) -> None:
    """Raises BadSetting for a table that does not fit the checkpoint, BadCheckpoint where it is the checkpoint's."""
    try:
        _, head = head_in(checkpoint, "classify", "moderate")
        read_table(table, head.labels)
    except (InvalidInput, WrongTask) as error:
        if checkpoint.own is not None and table is checkpoint.own.moderation:
            raise BadCheckpoint(f"{FILE}: moderation: {error}") from None
        raise BadSetting(f"moderation: {error}") from None


def read_table(table: object, labels: Sequence[str]) -> tuple[Category, ...]:
    """Raises InvalidInput, and EmptyInput for a table or a category of nothing."""
    if not isinstance(table, Mapping):
        raise InvalidInput(f"categories is a {type(table).__name__}; send an object of lists of labels")
    if not table:
        raise EmptyInput("categories is empty; name at least one")
    return tuple(_category(name, entry, labels) for name, entry in table.items())


def _category(name: object, entry: Any, labels: Sequence[str]) -> Category:
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"category {name!r} is no name; send some text")
    threshold: object = THRESHOLD
    if isinstance(entry, Mapping):
        if unknown := [key for key in entry if key not in ("labels", "threshold")]:
            raise InvalidInput(f"category {name!r} has the key {unknown[0]!r}; it takes labels and threshold")
        entry, threshold = entry.get("labels"), entry.get("threshold", THRESHOLD)
    if not isinstance(threshold, int | float) or isinstance(threshold, bool) or not math.isfinite(threshold):
        raise InvalidInput(f"category {name!r} has the threshold {threshold!r}; it must be a number")
    if isinstance(entry, str) or not isinstance(entry, Sequence):
        raise InvalidInput(f"category {name!r} is a {type(entry).__name__}; send a list of labels")
    if not entry:
        raise EmptyInput(f"category {name!r} has no labels; name at least one")
    for label in entry:
        if label not in labels:
            known = ", ".join(labels[:20])
            raise InvalidInput(f"category {name!r} has the label {label!r}, which this model has not; it has {known}")
    return Category(name, tuple(sorted({labels.index(label) for label in entry})), float(threshold))
