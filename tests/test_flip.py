"""Every field of a spec and of a head counts: flip one, and either the numbers leave transformers' or it is refused.

A field whose flip nothing notices would be untested. Norms' eps are flipped on a checkpoint of small activations, where
they weigh something.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import transformers
from running import ENGINES, STATES, error, run, start
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st
from tiny import TEXT, USABLE, Family, redraw, tiny_checkpoint

from onepass.engines.batch import Engine
from onepass.errors import OnepassError
from onepass.model.checkpoint import Checkpoint, load_checkpoint
from onepass.model.heads import Activation, HeadSpec
from onepass.model.spec import (
    BottleneckSpec,
    ConvSpec,
    EncoderSpec,
    NormSpec,
    PositionSpec,
    RopeSpec,
    T5Buckets,
)
from onepass.model.weights import check

LIMIT = 1e-4
auto: Any = transformers
engines = pytest.mark.parametrize("engine", ENGINES)

NORM = NormSpec("layer", 1e-5)
SAMPLES: dict[Any, Any] = {
    NormSpec: NORM,
    PositionSpec: PositionSpec("arange", 0, USABLE),
    BottleneckSpec: BottleneckSpec(16, "all"),
    ConvSpec: ConvSpec(3, 1, "tanh", NORM),
    T5Buckets: T5Buckets(32, 128),
    RopeSpec: RopeSpec(8, 10_000.0),
    Activation: Activation("tanh"),
    int: 3,
    float: 1.5,
    str: "embed.word",
}
"""What a field becomes that was None."""

REASONS = {
    "name": "the key under which a read finds the head",
    "pad_id": "read by the pooling last_not_pad alone, which none of these families has",
}
"""Fields of a head whose flip no comparison can notice."""


def flips(value: Any, hint: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path of one field, the value with that field changed), for every field inside; kinds become each other kind."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        yield path, _sample(next(option for option in options if option is not type(None)))
        return
    if type(None) in options:
        yield path, None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            for name, changed in flips(inner, hints[field.name], f"{path}.{field.name}".lstrip(".")):
                yield name, replace(value, **{field.name: changed})
    elif isinstance(value, tuple):
        yield from _tuple_flips(value, get_args(hint)[0], path)
    else:
        literals = [option for option in options if get_origin(option) is Literal]
        yield from ((path, changed) for changed in _others(value, get_args(literals[0]) if literals else ()))


def _tuple_flips(value: tuple[Any, ...], hint: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value[:-1] if len(value) > 1 else (value or (_sample(hint),)) * 2
    if len(set(value)) > 1:
        yield path, value[::-1]
    for index, item in enumerate(value):
        for name, changed in flips(item, hint if not dataclasses.is_dataclass(item) else type(item), f"{path}.{index}"):
            yield name, (*value[:index], changed, *value[index + 1 :])


def _others(value: Any, literals: tuple[Any, ...]) -> list[Any]:
    if literals:
        return [other for other in literals if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [value + "x"]
    return [value + 1] if isinstance(value, int) else [value * 2]


def _sample(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    options = get_args(hint) or (hint,)
    return next(SAMPLES[option] for option in options if option in SAMPLES)


@dataclass
class Case:
    """A loaded checkpoint and a verdict over a changed copy of it: whether something is wrong with that."""

    checkpoint: Checkpoint
    wrong: Callable[[Checkpoint, Engine], bool]
    engine: str

    def noticed(self, **changes: Any) -> bool:
        try:
            changed = replace(self.checkpoint, **changes)
            check(changed.spec, changed.heads, changed.weights)
            return self.wrong(changed, start(self.engine, changed))
        except OnepassError:
            return True

    def unnoticed(self, found: Iterator[tuple[str, dict[str, Any]]]) -> list[str]:
        assert not self.noticed(), "the unchanged checkpoint must agree"
        return [path for path, changes in found if not self.noticed(**changes)]


def trunk_case(folder: Path, family: Family, engine: str, size: float = 1.0, **config: Any) -> Case:
    tiny_checkpoint(folder, family, "trunk", **config)
    model = auto.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    redraw(model, 1, size)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.intermediate.dense.weight *= 0.6
            layer.intermediate.dense.weight[:8] *= 8  # some values are large enough for gelu_10 to clip
            layer.output.dense.weight *= 3  # and the feed-forward outweighs the rest
            layer.output.dense.weight[:, :8] *= 0.2
    model.save_pretrained(folder)
    draw = np.random.default_rng(0)
    pad = model.config.pad_token_id
    rows = [[int(token) for token in draw.integers(5, 200, length)] for length in (2, 17, USABLE)]
    rows[1][8] = pad  # what RoBERTa's positions look at
    kinds = [[int(kind) for kind in draw.integers(0, model.config.type_vocab_size, len(row))] for row in rows]
    expected = [states(model, row, kind) for row, kind in zip(rows, kinds, strict=True)]
    longest = max(length for length in range(USABLE - 3, USABLE + 4) if runs(model, length))

    def wrong(changed: Checkpoint, engine: Engine) -> bool:
        ours = run(engine, STATES.name, rows, kinds)
        far = any(not error(a, b) < LIMIT for a, b in zip(ours, expected, strict=True))
        return far or changed.spec.max_tokens != longest

    checkpoint = load_checkpoint(folder)
    return Case(replace(checkpoint, heads={}), wrong, engine)


def states(model: Any, row: list[int], kinds: list[int]) -> Any:
    inputs = {"input_ids": torch.tensor([row]), "token_type_ids": torch.tensor([kinds])}
    with torch.inference_mode():
        return model(**inputs, attention_mask=torch.ones(1, len(row), dtype=torch.long)).last_hidden_state[0].numpy()


def runs(model: Any, length: int) -> bool:
    try:
        states(model, [7] * length, [0] * length)
    except (IndexError, RuntimeError):
        return False
    return True


def spec_flips(spec: EncoderSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, changed in flips(spec, EncoderSpec):
        yield path, {"spec": changed}


TRUNKS: list[tuple[Family, dict[str, Any]]] = [("bert", {}), ("roberta", {}), ("electra", {"embedding_size": 24})]


@engines
@pytest.mark.parametrize(("family", "config"), TRUNKS, ids=[family for family, _ in TRUNKS])
def test_every_field_of_the_spec_counts(tmp_path: Path, family: Family, config: dict[str, Any], engine: str) -> None:
    case = trunk_case(tmp_path / "usual", family, engine, **config)
    small = trunk_case(tmp_path / "small", family, engine, size=0.01, layer_norm_eps=1e-5, **config)
    found = list(spec_flips(case.checkpoint.spec))
    assert {path.split(".")[0] for path, _ in found} == {field.name for field in dataclasses.fields(EncoderSpec)}
    assert case.unnoticed(item for item in found if not item[0].endswith(".eps")) == []
    eps = [item for item in spec_flips(small.checkpoint.spec) if item[0].endswith(".eps")]
    assert len(eps) == 3
    assert small.unnoticed(iter(eps)) == []


def head_flips(head: HeadSpec) -> Iterator[tuple[str, dict[str, Any]]]:
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
    case = Case(checkpoint, wrong, engine)
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
    assert Case(checkpoint, wrong, engine).unnoticed(head_flips(head)) == []
