"""Every field of a head counts: flip one, and either the numbers leave the library's or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from flips import Flip, Trial, flips
from running import ENGINES, error, run
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import TEXT, redraw, tiny_checkpoint

from onepass.engines.batch import Engine
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.heads import Activation, HeadSpec

LIMIT = 1e-4
auto: Any = transformers
engines = pytest.mark.parametrize("engine", ENGINES)

REASONS = {
    "name": "the key under which a read finds the head",
    "pad_id": "read by the pooling last_not_pad alone",
}
"""Fields whose flip no comparison can notice."""


def head_flips(head: HeadSpec) -> Iterator[Flip]:
    for path, changed in flips(head, HeadSpec):
        if path.split(".")[-1] not in REASONS:
            yield path, {"heads": {head.name: changed}}


@engines
def test_every_field_of_a_classifier_counts(tmp_path: Path, engine: str) -> None:
    folder = tiny_checkpoint(tmp_path, "bert", "classify")
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [[int(token) for token in np.random.default_rng(0).integers(5, 200, 12)]]
    with torch.inference_mode():
        expected = torch.softmax(model(input_ids=torch.tensor(rows)).logits, -1).numpy()

    def wrong(changed: Checkpoint, engine: Engine) -> bool:
        head = changed.heads["classify"]
        named = head.labels == tuple(model.config.id2label[index] for index in range(3))
        (ours,) = run(engine, "classify", rows, skip=2)
        return not named or ours.shape != expected.shape or not error(ours, expected) < LIMIT

    checkpoint = load_checkpoint(folder)
    case = Trial(checkpoint, wrong, engine)
    assert case.unnoticed(head_flips(checkpoint.heads["classify"])) == []


@engines
def test_every_field_of_an_embedding_head_counts(tmp_path: Path, engine: str) -> None:
    trunk = tiny_checkpoint(tmp_path / "trunk", "bert", "trunk")
    chain: list[Any] = [
        st.Dense(32, 40, module_input_name="token_embeddings"),
        st.Pooling(40, ("max", "mean")),
        st.Dense(80, 80, use_residual=True),
        st.Dense(80, 48, use_residual=True),
        st.Dense(48, 48, activation_function=torch.nn.Identity()),
        st.LayerNorm(48),
        st.Normalize(),
        st.Dense(48, 16, activation_function=torch.nn.Identity()),
    ]
    for seed, module in enumerate(chain):
        redraw(module, seed, 0.01 if seed == 4 else 1)  # small where LayerNorm reads, so that its eps weighs something
    model = SentenceTransformer(modules=[st.Transformer(str(trunk)), *chain], truncate_dim=12)
    model.save(str(tmp_path / "saved"))
    expected = model.encode(TEXT[0][:60])[None]
    ids = [model.tokenizer(TEXT[0][:60])["input_ids"]]

    def wrong(changed: Checkpoint, engine: Engine) -> bool:
        (ours,) = run(engine, "embed", ids, skip=2)
        return ours.shape != expected.shape or not error(ours, expected) < LIMIT

    checkpoint = load_checkpoint(tmp_path / "saved")
    head = checkpoint.heads["embed"]
    assert {type(step).__name__ for step in (*head.per_token, *head.per_row)} >= {"Linear", "Norm", "L2", "Truncate"}
    assert any(isinstance(step, Activation) for step in head.per_token)
    assert Trial(checkpoint, wrong, engine).unnoticed(head_flips(head)) == []
