"""The likeliest labels in which no name changes its kind, beside all sequences tried one by one."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from onepass.tasks.viterbi import best_path, kind_of

SCHEMES = [("O", "PER", "LOC"), ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"), ("B-PER", "O", "LOC", "in-between")]


def follows(before: str, label: str) -> bool:
    return kind_of(before) == kind_of(label) or "O" in (before, label) or label.startswith("B-")


@pytest.mark.parametrize("labels", SCHEMES)
@pytest.mark.parametrize("words", [1, 2, 5])
def test_no_sequence_is_likelier(labels: tuple[str, ...], words: int) -> None:
    draw = np.random.default_rng(words)
    plain = 0
    for _ in range(30):
        chances = draw.dirichlet(np.ones(len(labels)), words).astype(np.float32)
        path = best_path(chances, labels)
        every = [
            chosen
            for chosen in product(range(len(labels)), repeat=words)
            if all(follows(labels[a], labels[b]) for a, b in pairwise(chosen))
        ]
        best = max(np.log(chances[np.arange(words), chosen], dtype=np.float64).sum() for chosen in every)
        assert tuple(path) in every
        assert np.log(chances[np.arange(words), path], dtype=np.float64).sum() == pytest.approx(best, abs=1e-9)
        plain += bool((path == chances.argmax(axis=1)).all())
    assert plain == 30 if words == 1 else plain < 30


def test_a_chance_of_nothing_is_still_the_least_of_all() -> None:
    chances = np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    assert best_path(chances, ("O", "PER", "LOC")).tolist() in ([1, 1], [2, 2], [0, 2], [1, 0])
