"""How good scores, spans and labels are. numpy only; all but counts are between 0 and 1."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def ranks(scores: Array, right: Array) -> Array:
    """Of each row the place, from 1, of column right[row]; what scores the same counts as half before it."""
    own = scores[np.arange(len(scores)), right][:, None]
    return 1 + (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def mean_reciprocal_rank(places: Array, limit: int = 10) -> float:
    """MRR@limit: what is found further behind counts 0."""
    return float(np.where(places <= limit, 1 / places, 0).mean())


def recall(places: Array, limit: int = 1) -> float:
    return float((places <= limit).mean())


def average_precision(scores: Array, right: Array) -> float:
    """The mean over all right ones of the share of right ones among those that score at least as high."""
    order = np.argsort(-scores, kind="stable")
    found = right[order].astype(float)
    return float((np.cumsum(found) / np.arange(1, len(found) + 1) * found).sum() / found.sum())


def area(scores: Array, right: Array) -> float:
    """Area under the ROC curve: how often a right one scores higher than a wrong one."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # ranks, equal scores sharing theirs
    positive = int(right.sum())
    negative = len(right) - positive
    return float((middle[right.astype(bool)].sum() - positive * (positive + 1) / 2) / (positive * negative))


def accuracy(found: Sequence[Any] | Array, right: Sequence[Any] | Array) -> float:
    return float(np.mean([a == b for a, b in zip(found, right, strict=True)]))


def f1(found: Sequence[Sequence[Any]], right: Sequence[Sequence[Any]]) -> float:
    """Of sets of spans, over all texts: the harmonic mean of precision and recall."""
    hits = sum(len(set(a) & set(b)) for a, b in zip(found, right, strict=True))
    total = sum(map(len, found)) + sum(map(len, right))
    return 2 * hits / total if total else 0.0


def binary_f1(found: Array, right: Array) -> float:
    hits = float((found & right).sum())
    return 2 * hits / float(found.sum() + right.sum()) if found.sum() + right.sum() else 0.0


def exact_match(found: str, right: str) -> float:
    return float(_words(found) == _words(right))


def overlap_f1(found: str, right: str) -> float:
    """SQuAD's F1 of the words of two answers."""
    a, b = _words(found), _words(right)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles, as SQuAD compares answers."""
    return [word for word in re.sub(r"[^\w\s]", "", text.lower()).split() if word not in ("a", "an", "the")]
