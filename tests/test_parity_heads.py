"""Heads that read tokens give the logits of transformers, family by family: tag, answer, fill and next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from running import ENGINES, error, run
from test_parity import LIMIT, random_rows, reference, start
from tiny import AUTO, KINDS, Family, Head, tiny_checkpoint

from onepass.model.checkpoint import load_checkpoint
from onepass.model.families import FAMILIES

auto: Any = transformers  # whose from_pretrained carries no types
engines = pytest.mark.parametrize("engine", ENGINES)


def readers(*heads: Head) -> pytest.MarkDecorator:
    """Every family that has one of these heads, with it."""
    pairs = [(family, head) for family in KINDS for head in heads if callable(FAMILIES[family].heads.get(head))]
    return pytest.mark.parametrize(("family", "head"), pairs, ids=["-".join(pair) for pair in pairs])


def logits(output: Any) -> np.ndarray[Any, Any]:
    """[tokens, columns] of one row."""
    if "start_logits" in output:
        return torch.stack([output.start_logits[0], output.end_logits[0]], -1).numpy()
    return np.asarray(output.logits[0].numpy())


@engines
@readers("tag", "answer", "fill", "next")
def test_logits(tmp_path: Path, family: Family, head: Head, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, family, head)
    checkpoint = load_checkpoint(folder)
    model = getattr(auto, AUTO[head]).from_pretrained(folder, dtype=torch.float32).eval()
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    ours = run(start(engine, checkpoint), head, rows, types, finish="none")
    theirs = [logits(reference(model, ids, kinds)) for ids, kinds in zip(rows, types, strict=True)]
    if head == "answer":  # two columns: one of a pair may happen to be near 0
        assert error(np.concatenate(ours).T, np.concatenate(theirs).T) < LIMIT
    else:
        assert max(map(error, ours, theirs)) < LIMIT
