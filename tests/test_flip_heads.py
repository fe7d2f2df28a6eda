"""Every field of a head counts: flip one, and either the numbers leave the library's or it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from flips import Flip, Trial, flips, kinds, used
from running import ENGINES, error, pack, run, start
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import TEXT, redraw, tiny_checkpoint

from onepass.engines.batch import Engine, Floats, Read
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.heads import Activation, HeadSpec, Linear, Norm, Pool, Step, Vocabulary
from onepass.model.spec import NormSpec

LIMIT = 1e-4
auto: Any = transformers
engines = pytest.mark.parametrize("engine", ENGINES)

REASONS = {
    "kind": "says which tasks read the head, not what it computes",
    "pairs": "says which tasks read the head, too",
    "aggregation": "says what a task makes of a tagger's tokens, not what is computed",
    "pad_id": "read by the pooling last_not_pad alone",
    "skip_prompt": "where a read names its tokens, or the last one counts, a prompt before them does not",
}
"""Fields whose flip no comparison can notice, but for the heads that read them."""


def head_flips(head: HeadSpec, *read: str) -> Iterator[Flip]:
    for path, changed in flips(head, HeadSpec):
        field = path.split(".")[-1]
        if field not in REASONS or field in read:
            yield path, {"heads": {head.kind: changed}}


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
    assert case.unnoticed(head_flips(checkpoint.heads["classify"], "skip_prompt")) == []


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
    assert Trial(checkpoint, wrong, engine).unnoticed(head_flips(head, "skip_prompt")) == []


def weights_of(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, Floats]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes}


MADE = {
    "a token's logits": HeadSpec(
        "made",
        Pool(("tokens",)),
        per_token=(Linear("made.0.weight", residual="made.residual"), Vocabulary("made.words", "made.bias")),
        finish="softmax",
    ),
    "the last token that is no pad": HeadSpec("made", Pool(("last_not_pad",), pad_id=7)),
    "spans": HeadSpec("made", Pool(("spans",)), per_row=(Norm(NormSpec("rms", 0.1), "made.norm"),)),
    "words": HeadSpec(
        "made", Pool(("max_by_token",), without=(6, 8)), per_token=(Linear("made.0.weight"), Activation("relu"))
    ),
    "sparse": HeadSpec(
        "made",
        Pool(("sum",)),
        per_token=(Vocabulary("made.words", "made.bias"), Activation("relu_log1p")),
        sparse=True,
    ),
}


@engines
@pytest.mark.parametrize("name", MADE)
def test_every_field_of_other_heads_counts(tmp_path: Path, name: str, engine: str) -> None:
    """Held against what the unflipped head gives."""
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path, "bert", "trunk"))
    words = checkpoint.spec.embed.vocab
    steps = ("made.0.weight", (32, 32)), ("made.residual", (32, 32)), ("made.norm", (64,))
    made = weights_of(*steps, ("made.words", (words, 32)), ("made.bias", (words,)))
    used = {text for step in (*MADE[name].per_token, *MADE[name].per_row) for text in vars_of(step)}
    weights = {**checkpoint.weights, **{tensor: made[tensor] for tensor in made if tensor in used}}
    ids = [9, 8, 8, 6, 5, 7, 7]
    read = Read(
        "made",
        np.zeros(1, np.int32),
        positions=np.array([1, 4], np.int32) if "tokens" in MADE[name].pool.kinds else None,
        spans=np.array([[1, 2], [0, 5]], np.int32) if "spans" in MADE[name].pool.kinds else None,
        offsets=np.array([0, 2], np.int32) if {"tokens", "spans"} & {*MADE[name].pool.kinds} else None,
        skip=np.array([1], np.int32),
    )
    checkpoint = replace(checkpoint, heads={"made": MADE[name]}, weights=weights)
    (expected,) = start(engine, checkpoint).run(pack([ids]), [read])

    def wrong(changed: Checkpoint, engine: Engine) -> bool:
        (ours,) = engine.run(pack([ids]), [read])
        moved = ours.values.shape != expected.values.shape or not error(ours.values, expected.values) < LIMIT
        return moved or not np.array_equal(ours.ids, expected.ids)  # type: ignore[arg-type]

    reads = {"words": "skip_prompt", "the last token that is no pad": "pad_id"}
    assert Trial(checkpoint, wrong, engine).unnoticed(head_flips(MADE[name], reads.get(name, ""))) == []


def vars_of(step: Step) -> list[Any]:
    return [getattr(step, part.name) for part in dataclasses.fields(step)]


def test_every_field_of_a_head_is_that_of_some_case() -> None:
    """The classifier and the embedding head above have the steps that are not made here."""
    found = set().union(*map(used, MADE.values()))
    assert {field for field in kinds(HeadSpec) - found if "=" not in field} == {
        "HeadSpec.labels",
        "HeadSpec.pairs",
        "Linear.activation",
        "Linear.bias",
        "Norm.bias",
        "Pool.skip_prompt",
        "Truncate.width",
    }
