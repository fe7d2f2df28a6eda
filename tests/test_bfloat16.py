"""bfloat16 beside float32, family by family: pooled vectors point the same way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import STATES, run
from test_parity import random_rows
from tiny import KINDS, Family, tiny_checkpoint

from onepass.engines.native import Native, instruction_sets
from onepass.engines.reference import Reference
from onepass.model.checkpoint import load_checkpoint

SETS = [isa for isa, obstacle in instruction_sets().items() if not obstacle]


@pytest.mark.parametrize("family", list(KINDS))
def test_pooled_cosine(tmp_path: Path, family: Family) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path, family, "trunk"))
    # drawn queries make scores of +-14 where nothing scales them (T5), and a softmax that hangs on one rounding
    weights = {
        name: tensor / np.float32(4) if ".attention.query." in name else tensor
        for name, tensor in checkpoint.weights.items()
    }
    checkpoint = replace(checkpoint, weights=weights)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    heads = {STATES.kind: STATES}
    expected = run(Reference(checkpoint.spec, heads, weights), STATES.kind, rows, types)
    for isa in SETS:
        ours = run(Native(checkpoint.spec, heads, weights, "bfloat16", isa=isa), STATES.kind, rows, types)
        for a, b in zip(ours, expected, strict=True):
            x, y = a.mean(axis=0), b.mean(axis=0)
            assert x @ y >= 0.999 * np.linalg.norm(x) * np.linalg.norm(y), f"{isa}, {len(a)} tokens"
            assert not np.array_equal(a, b)
