"""How well names are found that are held out, while training: quality.py's measure, on words instead of characters."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from onepass.tasks.viterbi import best_path
from training.metrics import f1
from training.model import TAGS, Mini, Tagger
from training.objectives import by_word
from training.store import Ints, Layout, Store


@torch.no_grad()
def names_found(model: Mini | Tagger, store: Store, device: str) -> float:
    """F1 of exact spans and types on wikigold."""
    rows = [store.texts[text] for text in store.tasks["entities.held"]]
    reader = "teacher_" if isinstance(model, Tagger) else ""
    laid = Layout(store, reader).lay(rows, "teacher" if reader else "cased", 512)
    ids, lengths, words = (torch.from_numpy(array).to(device) for array in (laid.ids, laid.lengths, laid.words))
    shapes = None if laid.shapes is None else torch.from_numpy(laid.shapes).to(device)
    with torch.autocast(device.partition(":")[0], torch.bfloat16):
        states = model.trunk(ids, lengths, None, 0.0, shapes)
        chances = by_word(model.entities(states).softmax(-1), words, sum(map(len, rows))).cpu().numpy()
    marked = [store.tags[len(store.tasks["entities"]) + number] for number in range(len(rows))]
    found = [best_path(own, TAGS) for own in np.split(chances, np.cumsum([len(row) for row in rows])[:-1])]
    return round(f1([spans(own) for own in found], [spans(own) for own in marked]), 4)


def spans(tags: Ints) -> list[tuple[int, int, int]]:
    """First word, word behind the last, and tag of each run of one tag."""
    edges = np.flatnonzero(np.diff(tags, prepend=-1, append=-1))
    return [(int(a), int(b), int(tags[a])) for a, b in pairwise(edges) if tags[a]]
