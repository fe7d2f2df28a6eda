"""In bfloat16 the fast engines' vectors point where transformers' do in float32, family by family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import run
from test_parity import random_rows, reference, trunk
from tiny import KINDS, tiny_checkpoint

from onepass.engines import build_engine
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import HeadSpec, Pool

COSINE = 0.999
# Here random weights make scores so large that rounding one of them changes which token is seen: MobileBERT has no norm
# that would bound its states, T5 does not scale its scores.
SCALES = {"mobilebert": 0.7, "t5": 0.8, "mt5": 0.8, "umt5": 0.8}
MEAN = HeadSpec("mean", Pool(("mean",)))


@pytest.mark.parametrize("family", list(KINDS))
def test_pooled_vectors(tmp_path: Path, family: str) -> None:
    folder = tiny_checkpoint(tmp_path, family, "trunk", scale=SCALES.get(family, 1.0))
    checkpoint = replace(load_checkpoint(folder), heads={MEAN.kind: MEAN})
    model = trunk(folder)
    rows, types = random_rows(family, checkpoint.spec.embed.vocab)
    theirs = [
        reference(model, ids, kinds).last_hidden_state[0].mean(0).numpy()
        for ids, kinds in zip(rows, types, strict=True)
    ]
    for engine in ("native", "torch"):
        vectors = run(build_engine(checkpoint, engine, "bfloat16")[0], MEAN.kind, rows, types)
        for (ours,), vector in zip(vectors, theirs, strict=True):
            assert ours @ vector / np.linalg.norm(ours) / np.linalg.norm(vector) >= COSINE, engine
