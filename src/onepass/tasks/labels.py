"""Labels of the caller's own, their template, and the windows of a long text put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput
from onepass.model.heads import Finish
from onepass.schedule.pieces import check_unicode

Long = Literal["cut", "mean", "max"]
LONG: tuple[Long, ...] = ("cut", "mean", "max")

SLOT = "{}"


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Raises InvalidInput for what is no list of different labels, EmptyInput for an empty one."""
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InvalidInput(f"labels is a {type(labels).__name__}; send a list of strings")
    if not labels:
        raise EmptyInput("labels is an empty list; send at least one")
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise InvalidInput(f"label {index} is a {type(label).__name__}; send a string")
        if not label.strip():
            raise EmptyInput(f"label {index} is empty; send some text")
        if label in labels[:index]:
            raise InvalidInput(f"label {index} is {label!r} like an earlier one; send each label once")
        check_unicode(label, f"label {index}")
    return tuple(labels)


def around_slot(template: str) -> tuple[str, str]:
    """What stands before the slot and behind it. Raises InvalidInput where there is not one slot."""
    if not isinstance(template, str):
        raise InvalidInput(f"template is a {type(template).__name__}; send a string")
    if (count := template.count(SLOT)) != 1:
        raise InvalidInput(f"template {template!r} has {count} slots {SLOT}; it needs one")
    check_unicode(template, "the template")
    before, _, after = template.partition(SLOT)
    return before, after


def finish_of(multi_label: bool, labels: int) -> Finish:
    """One label has no others to be weighed against."""
    return "sigmoid" if multi_label or labels == 1 else "softmax"


def merged(windows: Sequence[Floats], long: Long) -> Floats:
    """The logits of a text, float32 [labels], from those of its windows; there is one if it was not long."""
    together = np.stack(windows)
    return together.max(axis=0) if long == "max" else together.mean(axis=0)


def labelled(scores: Sequence[tuple[str, float]]) -> list[dict[str, str | float]]:
    """Labels with their scores as JSON has them."""
    return [{"label": label, "score": score} for label, score in scores]
