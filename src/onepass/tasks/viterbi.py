"""The likeliest labels of a text's words where a name is of one kind throughout.

Labels chosen word by word cut names to pieces: "Bank" an organisation, "of England" a place. Here the kind changes only
over "O" or where a B- begins a name, and of all sequences in which it does, the most probable one is taken (Viterbi
1967; Forney 1973).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats

OUTSIDE = "O"
LEAST = 1e-12  # a probability that rounding made 0


def best_path(chances: Floats, labels: tuple[str, ...]) -> NDArray[np.intp]:
    """The label of each word, [words]; chances: probabilities [words, labels]; labels: with "O" among them."""
    allowed = _may_follow(labels)
    surest = chances.argmax(axis=1)
    if allowed[surest[:-1], surest[1:]].all():
        return surest
    barred = np.where(allowed, 0.0, -np.inf)
    logs = np.log(np.maximum(chances, LEAST, dtype=np.float64))
    likeliest, sources = logs[0], []
    for own in logs[1:]:
        ways = likeliest[:, None] + barred  # [label before, label]
        sources.append(ways.argmax(axis=0))
        likeliest = ways.max(axis=0) + own
    path = [likeliest.argmax()]
    for source in reversed(sources):
        path.append(source[path[-1]])
    return np.array(path[::-1])


@cache
def _may_follow(labels: tuple[str, ...]) -> NDArray[np.bool_]:
    """[label before, label]: whether the one may stand behind the other."""
    kinds = np.array([kind_of(label) for label in labels])
    outside = kinds == OUTSIDE
    begins = np.array([label.startswith("B-") for label in labels])
    return (kinds[:, None] == kinds) | outside[:, None] | outside | begins


def kind_of(label: str) -> str:
    """Without B- or I-."""
    return label[2:] if label.startswith(("B-", "I-")) else label
