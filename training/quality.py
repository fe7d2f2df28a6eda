"""What is measured on what is held out, of whatever answers: each function takes the answering as a callable.

So a run of training asks its torch model, and `training.evaluate` a checkpoint through onepass. numpy only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training import data, metrics

T = TypeVar("T")
Array = NDArray[Any]
Vectors = Callable[[list[str]], Array]  # texts to rows of length 1
Scores = Callable[[list[str], list[str]], Array]  # queries and texts to [queries, texts]

MOST = 2000  # texts of a set
CANDIDATES = 20  # texts that are ranked again
NEGATIVES = 10  # for each pair that belongs together
EXAMPLES = 8  # labelled ones of each intent


def few(rows: list[T], most: int) -> list[T]:
    """At most `most` of the rows, the same ones each time."""
    return rows if len(rows) <= most else Random(most).sample(rows, most)


def pair_sets(folder: Path, most: int = MOST) -> dict[str, list[data.Pair]]:
    """The held-out pairs for retrieval: what a command is for and its tasks, a task and its command's page, medical
    questions and their answers, titles and their pages."""
    tldr = list(data.tldr_pairs(folder, "held"))
    return {
        "tldr": few([pair for pair in tldr if pair.source == "tldr"], most),
        "tldr-tasks": few([pair for pair in tldr if pair.source == "tldr-tasks"], most),
        "medquad": few(list(data.medquad_pairs(folder, "held")), most),
        "titles": few(list(data.title_pairs(folder, "held")), most),
    }


def cosines(vectors_of: Vectors) -> Scores:
    return lambda queries, texts: vectors_of(queries) @ vectors_of(texts).T


def retrieval(scores: Array) -> dict[str, float]:
    """scores: [queries, texts]; text k answers query k, all others do not."""
    places = metrics.ranks(scores, np.arange(len(scores)))
    return {"mrr@10": metrics.mean_reciprocal_rank(places), "recall@1": metrics.recall(places)}


def similarity(scores: Array, pairs: list[data.Pair]) -> float:
    """Average precision of pairs that belong together among ten times as many that do not."""
    rng, size = np.random.default_rng(1), len(pairs)
    others = (np.arange(size)[:, None] + rng.integers(1, size, (size, NEGATIVES))) % size
    taken = np.concatenate([scores.diagonal()[:, None], np.take_along_axis(scores, others, 1)], 1)
    groups = np.array([pair.group for pair in pairs])
    right = np.zeros(taken.shape, bool)
    right[:, 0] = True
    fair = np.concatenate([right[:, :1], groups[others] != groups[:, None]], 1)
    return metrics.average_precision(taken[fair], right[fair])


def candidates(scores: Array, most: int = CANDIDATES) -> Array:
    """[queries, most]: the numbers of the texts that score best."""
    return np.argsort(-scores, 1, kind="stable")[:, :most]


def reranked(
    pairs: list[data.Pair], scores: Array, ranked: Callable[[str, list[str]], Sequence[float]], queries: int
) -> tuple[float, float]:
    """MRR@10 of the best twenty in the order of `scores`, and as `ranked` orders them, over the first `queries`."""
    best = candidates(scores[:queries])
    before: list[float] = []
    after: list[float] = []
    for query, chosen in enumerate(best):
        right = chosen == query
        again = np.asarray(ranked(pairs[query].query, [pairs[text].text for text in chosen]), float)
        for places, order in ((before, np.arange(len(chosen))), (after, np.argsort(-again, kind="stable"))):
            hits = np.flatnonzero(right[order])
            places.append(1 + hits[0] if len(hits) else np.inf)
    return metrics.mean_reciprocal_rank(np.array(before)), metrics.mean_reciprocal_rank(np.array(after))


class Draw(NamedTuple):
    texts: list[str]
    labels: list[str]


def drawn(rows: list[data.Intent], seed: int, each: int = EXAMPLES) -> Draw:
    """`each` labelled training examples of each intent."""
    rng, by_label = Random(seed), dict[str, list[str]]()
    for row in rows:
        if row.split == "train":
            by_label.setdefault(row.label, []).append(row.text)
    chosen = [(text, label) for label, texts in sorted(by_label.items()) for text in rng.sample(texts, each)]
    return Draw([text for text, _ in chosen], [label for _, label in chosen])


def nearest(vectors_of: Vectors, rows: list[data.Intent], seeds: int, most: int = MOST) -> dict[str, float]:
    """Accuracy of the label of the nearest of EXAMPLES vectors of each intent, and of their nearest mean."""
    tested = few([row for row in rows if row.split == "held"], most)
    right = np.array([row.label for row in tested])
    asked = vectors_of([row.text for row in tested])
    found: dict[str, list[float]] = {"nearest": [], "mean": []}
    for seed in range(seeds):
        draw = drawn(rows, seed)
        known, labels = vectors_of(draw.texts), np.array(draw.labels)
        found["nearest"].append(metrics.accuracy(labels[(asked @ known.T).argmax(1)], right))
        means = known.reshape(-1, EXAMPLES, known.shape[1]).mean(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        found["mean"].append(metrics.accuracy(labels[::EXAMPLES][(asked @ means.T).argmax(1)], right))
    return {name: float(np.mean(values)) for name, values in found.items()}


def sentiment(probabilities: Array, rows: list[data.Labelled]) -> float:
    """Accuracy; of reviews that are never neutral the likelier of negative and positive counts.

    probabilities: [texts, 3], of negative, neutral and positive.
    """
    right = np.array([row.label for row in rows])
    if 1 not in right:
        return metrics.accuracy(np.where(probabilities[:, 2] > probabilities[:, 0], 2, 0), right)
    return metrics.accuracy(probabilities.argmax(1), right)


def toxicity(probabilities: Array, rows: list[data.Labelled]) -> dict[str, float]:
    """probabilities: [texts], of being toxic."""
    right = np.array([row.label for row in rows], bool)
    return {
        "accuracy": metrics.accuracy(probabilities > 0.5, right),
        "f1": metrics.binary_f1(probabilities > 0.5, right),
        "auc": metrics.area(probabilities, right),
    }


Span = tuple[int, int, str]


def names(found: list[list[Span]], right: list[list[Span]]) -> dict[str, float]:
    """F1 of exact spans, with their types and whatever their types."""
    untyped = [[[span[:2] for span in spans] for spans in both] for both in (found, right)]
    return {"f1": metrics.f1(found, right), "f1 untyped": metrics.f1(*untyped)}


def answering(found: list[str], asked: list[data.Answered]) -> dict[str, float]:
    pairs = [(text, one.answer) for text, one in zip(found, asked, strict=True)]
    return {
        "exact": float(np.mean([metrics.exact_match(*pair) for pair in pairs])),
        "f1": float(np.mean([metrics.overlap_f1(*pair) for pair in pairs])),
    }
