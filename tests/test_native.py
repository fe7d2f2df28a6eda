"""The native engine's numbers: against the reference, and against itself in other company."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from random_models import MEAN, NORM, Model, Shape, batch_of, build, double, read_all, row_of, worst

from onepass.engines.batch import Floats, Ints, PackedBatch, Read
from onepass.engines.native import Native, instruction_sets
from onepass.engines.reference import Reference
from onepass.engines.torch import Torch
from onepass.errors import BadCheckpoint, BadSetting, EngineFailure, MissingTensor, UnsupportedOption
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import (
    L2,
    Activation,
    Finish,
    HeadSpec,
    Linear,
    Norm,
    Pool,
    PoolKind,
    Step,
    Truncate,
    Vocabulary,
)
from onepass.model.spec import ActivationKind, NormSpec

ISAS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(obstacle), reason=f"{name}: {obstacle}"))
    for name, obstacle in instruction_sets().items()
]
ACTIVATIONS: tuple[ActivationKind, ...] = get_args(ActivationKind)
RAGGED = [1, 2, 3, 17, 64, 5, 33, 128, 31, 1, 16, 15, 14, 13, 90]

SHAPES = {
    "as it comes": Shape(),
    "one head of 8": Shape(heads=1, head_size=8, width=8, inner=24),
    "head of 20, width 40": Shape(heads=2, head_size=20, width=40, inner=70),
    "head of 40": Shape(heads=3, head_size=40, width=72, inner=50),
    "heads of 128, narrower model": Shape(heads=2, head_size=128, width=96, inner=33),
    "width 37, nothing even": Shape(heads=3, head_size=11, width=37, inner=41, layers=1),
    "MiniLM's": Shape(heads=12, head_size=32, width=384, inner=1536, layers=1),
    "positions after the pad id": Shape(after_pad=True, types=3),
    "narrow embedding": Shape(embed_width=48, scale=3.0),
    "no biases, no types": Shape(biases=False, types=0),
    "no norm of the embedding": Shape(norm=False),
    "one group of weights for all layers": Shape(shared=True, layers=4),
    "no layers": Shape(layers=0),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_agrees_with_the_reference(shape: Shape, isa: str) -> None:
    model = build(shape)
    heads = {"mean": MEAN, "tokens": HeadSpec("tokens", Pool(("tokens",)))}
    batch = batch_of([1, 2, 3, 17, 64, 200], visible=[1, 1, 3, 9, 64, 123])
    reads = [read_all(batch, "mean"), read_all(batch, "tokens")]
    expected = Reference(model.spec, heads, double(model.weights)).run(batch, reads)
    got = Native(model.spec, heads, model.weights, isa=isa).run(batch, reads)
    for a, b in zip(got, expected, strict=True):
        assert worst(a.values, b.values) < 1e-5
        assert np.array_equal(a.offsets, b.offsets)


@pytest.mark.parametrize("isa", ISAS)
def test_agrees_with_the_reference_at_512_tokens(isa: str) -> None:
    model = build(Shape(heads=2, head_size=32))
    batch = batch_of([512, 1], visible=[400, 1])
    read = read_all(batch, "mean")
    expected = Reference(model.spec, {"mean": MEAN}, double(model.weights)).run(batch, [read])[0]
    assert (
        worst(Native(model.spec, {"mean": MEAN}, model.weights, isa=isa).run(batch, [read])[0].values, expected.values)
        < 1e-5
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_bfloat16_is_near_the_reference(shape: Shape, isa: str) -> None:
    model = build(shape)
    heads = {"mean": MEAN, "tokens": HeadSpec("tokens", Pool(("tokens",)))}
    batch = batch_of([1, 2, 3, 17, 64, 200], visible=[1, 1, 3, 9, 64, 123])
    reads = [read_all(batch, "mean"), read_all(batch, "tokens")]
    expected = Reference(model.spec, heads, double(model.weights)).run(batch, reads)
    got = Native(model.spec, heads, model.weights, "bfloat16", isa=isa).run(batch, reads)
    for a, b in zip(got, expected, strict=True):
        cosines = (
            (a.values * b.values).sum(axis=1) / np.linalg.norm(a.values, axis=1) / np.linalg.norm(b.values, axis=1)
        )
        assert cosines.min() > 0.99


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_in_bfloat16(kind: ActivationKind, isa: str) -> None:
    model = build(Shape(activation=kind, inner=50))
    batch = batch_of(RAGGED)
    read = read_all(batch, "mean")
    expected = Reference(model.spec, {"mean": MEAN}, double(model.weights)).run(batch, [read])[0]
    got = Native(model.spec, {"mean": MEAN}, model.weights, "bfloat16", isa=isa).run(batch, [read])[0]
    assert worst(got.values, expected.values) < 0.05


@pytest.fixture(scope="module")
def long() -> tuple[Model, PackedBatch, Floats]:
    """A row of 8,192 tokens beside a short one, and what the reference makes of them."""
    model = build(Shape(heads=1, head_size=32, layers=1, rows=8192))
    batch = batch_of([8192, 3], visible=[8000, 3])
    return (
        model,
        batch,
        Reference(model.spec, {"mean": MEAN}, model.weights).run(batch, [read_all(batch, "mean")])[0].values,
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("bfloat16", 0.02)])
def test_8192_tokens(long: tuple[Model, PackedBatch, Floats], dtype: str, limit: float, isa: str) -> None:
    model, batch, expected = long
    engine = Native(model.spec, {"mean": MEAN}, model.weights, dtype, isa=isa)
    assert worst(engine.run(batch, [read_all(batch, "mean")], 2)[0].values, expected) < limit


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_in_the_trunk(kind: ActivationKind, isa: str) -> None:
    model = build(Shape(activation=kind, inner=50))
    batch = batch_of(RAGGED)
    read = read_all(batch, "mean")
    expected = Reference(model.spec, {"mean": MEAN}, double(model.weights)).run(batch, [read])[0]
    assert (
        worst(Native(model.spec, {"mean": MEAN}, model.weights, isa=isa).run(batch, [read])[0].values, expected.values)
        < 1e-5
    )


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int32)


def numbers_through(steps: tuple[Step, ...], numbers: Floats, isa: str, **more: Floats) -> Floats:
    """float32 [rows, width] through a head's steps: a trunk without layers or norm hands its word table through."""
    model = build(Shape(layers=0, norm=False, types=0, width=numbers.shape[1], vocab=len(numbers), rows=len(numbers)))
    weights = model.weights | {"embed.word": numbers, "embed.position": np.zeros_like(numbers)} | more
    head = HeadSpec("steps", Pool(("tokens",)), per_token=steps)
    batch = batch_of([len(numbers)])
    batch = dataclasses.replace(batch, ids=np.arange(len(numbers), dtype=np.int32))
    return Native(model.spec, {"steps": head}, weights, isa=isa).run(batch, [read_all(batch, "steps")])[0].values


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def gelu(x: float) -> float:
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


EXACT: dict[ActivationKind, Callable[[float], float]] = {
    "gelu": gelu,
    "gelu_clipped": lambda x: max(-10.0, min(10.0, gelu(x))),
    "gelu_tanh": lambda x: x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    "quick_gelu": lambda x: x * logistic(1.702 * x),
    "silu": lambda x: x * logistic(x),
    "sigmoid": logistic,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "relu2": lambda x: max(x, 0.0) ** 2,
    "relu_log1p": lambda x: math.log1p(max(x, 0.0)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_as_good_as_float32(kind: ActivationKind, isa: str) -> None:
    dense = np.linspace(-12, 12, 20_000)
    wide = np.concatenate([np.logspace(-30, 4, 2000), [0.0]])
    numbers = np.concatenate([dense, wide, -wide]).astype(np.float32).reshape(-1, 1)
    numbers = numbers[: len(numbers) // 37 * 37].reshape(-1, 37)  # 37: whole vectors and a rest
    got = numbers_through((Activation(kind),), numbers, isa)
    wanted = np.array([EXACT[kind](float(x)) for x in numbers.ravel()]).reshape(numbers.shape)
    # of x Phi(x) float32 keeps what it keeps of Phi, times x; near zero all of them keep their relative precision
    assert np.all(np.abs(got - wanted) <= 3e-7 * np.maximum(np.abs(wanted), np.minimum(np.abs(numbers), 1)) + 1e-37)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_not_a_number_stays_one(kind: ActivationKind, isa: str) -> None:
    numbers = np.full((1, 20), np.nan, dtype=np.float32)
    assert np.all(np.isnan(numbers_through((Activation(kind),), numbers, isa)))


STEPS: dict[str, tuple[Step, ...]] = {
    "none": (),
    "linear": (Linear("h.0.weight", "h.0.bias"),),
    "linear without bias": (Linear("h.0.weight"),),
    "linear with an activation": (Linear("h.0.weight", "h.0.bias", activation="tanh"),),
    "linear plus its input": (Linear("h.square.weight", "h.square.bias", residual=True, activation="gelu"),),
    "linear plus a narrower input": (Linear("h.0.weight", "h.0.bias", residual="h.1.weight", activation="relu"),),
    "norm": (Norm(NORM, "h.norm.weight", "h.norm.bias"),),
    "norm without bias": (Norm(NORM, "h.norm.weight"),),
    "norm rms": (Norm(NormSpec("rms", 1e-5), "h.norm.weight"),),
    "norm rms1": (Norm(NormSpec("rms1", 1e-5), "h.norm.weight"),),
    "norm affine": (Norm(NormSpec("affine", 0.0), "h.norm.weight", "h.norm.bias"),),
    "vocabulary": (Vocabulary("h.0.weight", "h.0.bias"), Activation("relu_log1p")),
    "vocabulary without bias": (Vocabulary("h.0.weight"),),
    "L2": (L2(),),
    "truncate": (Truncate(10), L2()),
    "truncate beyond": (Truncate(1000),),
    "a classifier's": (
        Linear("h.square.weight", "h.square.bias"),
        Activation("tanh"),
        Linear("h.0.weight", "h.0.bias"),
    ),
}
POOLS: dict[str, Pool] = {kind: Pool((kind,), pad_id=7) for kind in get_args(PoolKind) if kind != "spans"} | {
    "several": Pool(("first", "mean", "max")),
    "mean without prompt": Pool(("mean",), skip_prompt=True),
}


def head_weights(width: int, outputs: int) -> dict[str, Floats]:
    rng = np.random.default_rng(5)

    def normal(*shape: int) -> Floats:
        return (rng.standard_normal(shape) * 2 / math.sqrt(width)).astype(np.float32)

    return {
        "h.0.weight": normal(outputs, width),
        "h.0.bias": normal(outputs),
        "h.1.weight": normal(outputs, width),
        "h.square.weight": normal(width, width),
        "h.square.bias": normal(width),
        "h.norm.weight": 1 + normal(width),
        "h.norm.bias": normal(width),
    }


def compare_head(head: HeadSpec, read: Read, batch: PackedBatch, isa: str, weights: dict[str, Floats]) -> None:
    model = build(Shape(layers=1))
    heads = {head.kind: head}
    expected = Reference(model.spec, heads, double(model.weights | weights)).run(batch, [read])[0]
    native = Native(model.spec, heads, model.weights | weights, isa=isa)
    for cores in (1, 2):
        got = native.run(batch, [read], cores)[0]
        assert worst(got.values, expected.values) < 1e-5
        assert np.array_equal(got.offsets, expected.offsets)
        assert (None if got.ids is None else got.ids.tolist()) == (
            None if expected.ids is None else expected.ids.tolist()
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("place", ["per_token", "per_row"])
def test_every_step(steps: tuple[Step, ...], place: str, isa: str) -> None:
    pool = Pool(("mean",))
    head = HeadSpec("h", pool, per_token=steps) if place == "per_token" else HeadSpec("h", pool, per_row=steps)
    batch = batch_of(RAGGED)
    compare_head(head, read_all(batch, "h"), batch, isa, head_weights(64, 19))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("finish", get_args(Finish))
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
def test_every_pooling_and_finish(pool: Pool, finish: Finish, isa: str) -> None:
    batch = batch_of([9, 1, 30, 4], vocab=9)
    read = Read("h", ints(2, 0, 3, 2), skip=ints(3, 1, 0, 29))
    steps = (Linear("h.0.weight", "h.0.bias"),)
    weights = head_weights(64 * len(pool.kinds), 19)
    compare_head(HeadSpec("h", pool, per_row=steps, finish=finish), read, batch, isa, weights)
    asked = dataclasses.replace(read, finish=finish)
    compare_head(HeadSpec("h", pool, per_row=steps), asked, batch, isa, weights)


@pytest.mark.parametrize("isa", ISAS)
def test_tokens_at_positions(isa: str) -> None:
    batch = batch_of([9, 1, 30])
    read = Read("h", ints(2, 0, 1), positions=ints(29, 0, 0, 0), offsets=ints(0, 2, 2, 4))
    head = HeadSpec("h", Pool(("tokens",)), per_token=STEPS["a classifier's"], finish="softmax")
    compare_head(head, read, batch, isa, head_weights(64, 5))


@pytest.mark.parametrize("isa", ISAS)
def test_spans(isa: str) -> None:
    batch = batch_of([9, 1, 30])
    spans = np.array([[29, 29], [3, 20], [0, 0], [0, 0]], np.int32)
    read = Read("h", ints(2, 0, 1, 1), spans=spans, offsets=ints(0, 2, 2, 3, 4))
    head = HeadSpec("h", Pool(("spans",)), per_token=STEPS["linear"], per_row=(Linear("h.span.weight"),))
    span = np.random.default_rng(6).standard_normal((7, 10)).astype(np.float32)
    compare_head(head, read, batch, isa, head_weights(64, 5) | {"h.span.weight": span})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", ["per_token", "per_row"])
def test_scores_of_chosen_ids(place: str, isa: str) -> None:
    batch = batch_of([9, 1, 30])
    steps: dict[str, Any] = {place: STEPS["vocabulary"]}
    head = HeadSpec("h", Pool(("last",)), finish="softmax", **steps)
    for chosen in (ints(18), ints(3, 0, 3, 17), ints(*range(19))):
        compare_head(head, Read("h", ints(1, 2), vocabulary=chosen), batch, isa, head_weights(64, 19))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_the_same_bits_for_some_tokens_and_some_ids(dtype: str, isa: str) -> None:
    model = build(Shape(vocab=1000))
    head = HeadSpec("h", Pool(("tokens",)), per_token=(*STEPS["linear plus its input"], Vocabulary()))
    engine = Native(model.spec, {"h": head}, model.weights | head_weights(64, 19), dtype, isa=isa)
    batch = batch_of([40, 3, 200])
    everything = engine.run(batch, [read_all(batch, "h")], 2)[0]
    assert everything.values.shape == (243, 1000)
    some = Read("h", ints(2, 0), positions=ints(199, 7, 3), offsets=ints(0, 2, 3), vocabulary=ints(999, 0, 5))
    got = engine.run(batch, [some])[0].values
    assert np.array_equal(got, everything.values[[242, 50, 3]][:, [999, 0, 5]])


def test_bfloat16_scores_are_near_the_reference() -> None:
    model = build(Shape(vocab=1000))
    head = HeadSpec("h", Pool(("tokens",)), per_token=(Vocabulary(),))
    batch = batch_of([40, 3, 64])
    read = read_all(batch, "h")
    expected = Reference(model.spec, {"h": head}, double(model.weights)).run(batch, [read])[0]
    half = Native(model.spec, {"h": head}, model.weights, "bfloat16")
    assert worst(half.run(batch, [read])[0].values, expected.values) < 0.05
    whole = Native(model.spec, {"h": head}, model.weights)
    bare = Native(model.spec, {}, model.weights, "bfloat16")
    matrix = model.weights["embed.word"].nbytes
    assert half.info()["weight_bytes"] - bare.info()["weight_bytes"] < 0.6 * matrix
    assert whole.info()["weight_bytes"] > half.info()["weight_bytes"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [Shape(heads=3, head_size=20, width=72, inner=200), Shape(width=384, inner=1536)])
def test_a_row_is_the_same_bits_in_any_company(shape: Shape, dtype: str, isa: str) -> None:
    model = build(shape)
    heads = {
        "mean": MEAN,
        "labels": HeadSpec("labels", Pool(("first",)), per_token=STEPS["linear"], finish="softmax"),
    }
    weights = model.weights | head_weights(shape.width, 3)
    engine = Native(model.spec, heads, weights, dtype, isa=isa)
    rng = np.random.default_rng(3)
    for lengths in (RAGGED, RAGGED[::-1], [12], [40, 3], list(rng.integers(1, 60, 20))):
        batch = batch_of(lengths, seed=len(lengths))
        reads = [read_all(batch, name) for name in heads]
        together = engine.run(batch, reads, 1)
        for cores in (2, 3):
            for a, b in zip(engine.run(batch, reads, cores), together, strict=True):
                assert np.array_equal(a.values, b.values)
        for row in range(batch.rows):
            lone = row_of(batch, row)
            for a, b in zip(engine.run(lone, [read_all(lone, n) for n in heads], row % 2 + 1), together, strict=True):
                assert np.array_equal(a.values[0], b.values[row])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_calls_from_several_threads_do_not_meet(dtype: str) -> None:
    model = build(Shape(width=96, heads=6))
    engine = Native(model.spec, {"mean": MEAN}, model.weights, dtype)
    batches = [batch_of(lengths, seed=i) for i, lengths in enumerate([RAGGED, [300], [1], [17, 18, 19] * 5] * 4)]
    alone = [engine.run(batch, [read_all(batch, "mean")])[0].values for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for cores in (1, 2):
            together = threads.map(lambda b, c=cores: engine.run(b, [read_all(b, "mean")], c)[0].values, batches)
            for a, b in zip(together, alone, strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16_on_the_real_model(minilm: Path, isa: str) -> None:
    checkpoint = load_checkpoint(minilm)
    tokenizer = checkpoint.tokenizer.library
    text = Path(__file__).read_text(encoding="utf-8")
    ids = [tokenizer.encode(text[at : at + 30 * 2 ** (at // 100 % 6)]).ids[:512] for at in range(0, 3000, 100)]
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    flat = np.concatenate([np.array(row, np.int32) for row in ids])
    batch = PackedBatch(flat, np.zeros_like(flat), offsets, np.diff(offsets))
    single, half = (
        Native(checkpoint.spec, checkpoint.heads, checkpoint.weights, dtype, isa=isa)
        .run(batch, [read_all(batch, "embed")])[0]
        .values
        for dtype in ("float32", "bfloat16")
    )
    cosines = (single * half).sum(axis=1) / np.linalg.norm(single, axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() >= 0.9999
    assert not np.array_equal(single, half)


def test_bfloat16_holds_half_the_bytes() -> None:
    model = build(Shape(vocab=2, rows=4, width=256, inner=512, heads=8, head_size=32))
    sizes = {
        dtype: Native(model.spec, {"mean": MEAN}, model.weights, dtype).info()["weight_bytes"]
        for dtype in ("float32", "bfloat16")
    }
    assert 0.5 < sizes["bfloat16"] / sizes["float32"] < 0.52


def changed(batch: PackedBatch, **fields: object) -> PackedBatch:
    arrays = {name: np.asarray(value, dtype=np.int32) for name, value in fields.items()}
    return dataclasses.replace(batch, **arrays)


GOOD = batch_of([3, 2])
BAD_BATCHES = {
    "token id 100 is outside the vocabulary of 100": changed(GOOD, ids=[1, 2, 100, 4, 5]),
    "token id -1 is outside the vocabulary of 100": changed(GOOD, ids=[1, 2, 3, -1, 5]),
    "token type 2 is outside the 2 types": changed(GOOD, types=[0, 0, 0, 2, 0]),
    "offsets must run from 0 to the number of tokens, 5": changed(GOOD, offsets=[0, 3, 6]),
    "row 1 of the batch has no tokens": changed(batch_of([3, 2, 1]), offsets=[0, 5, 5, 6]),
    "row 0 shows 4 of its 3 tokens": changed(GOOD, visible=[4, 2]),
    "row 1 shows 0 of its 2 tokens": changed(GOOD, visible=[3, 0]),
    "one more offset than rows": changed(GOOD, visible=[3]),
    "as many types as ids": changed(GOOD, types=[0]),
    "needs position 10, the table has 10 rows": batch_of([11]),
    "offsets must run from 0": changed(GOOD, ids=[], types=[], offsets=[0], visible=[]),
}


either = pytest.mark.parametrize("make", [Native, Torch])


@either
@pytest.mark.parametrize(("words", "batch"), BAD_BATCHES.items(), ids=BAD_BATCHES.keys())
def test_a_bad_batch_is_refused_in_words(words: str, batch: PackedBatch, make: type[Native] | type[Torch]) -> None:
    model = build(Shape(rows=10))
    engine = make(model.spec, {"mean": MEAN}, model.weights)
    with pytest.raises(EngineFailure, match=words):
        engine.run(batch, [Read("mean", ints(0))])
    assert len(engine.run(GOOD, [read_all(GOOD, "mean")])[0].values) == 2


BAD_READS = {
    "no head 'other'; it has tokens, mean, spans, scores": Read("other", ints(0)),
    "asks for row 2 of a batch of 2": Read("mean", ints(2)),
    "asks for row -1": Read("mean", ints(-1)),
    "a prompt of 3 tokens leaves nothing": Read("mean", ints(0), skip=ints(3)),
    "skip needs one number per row": Read("mean", ints(0), skip=ints(0, 0)),
    "asks for position 3 of a row of 3": Read("tokens", ints(0), positions=ints(3), offsets=ints(0, 1)),
    "needs offsets, one more": Read("tokens", ints(0), positions=ints(1), offsets=ints(0)),
    "a read that names them": Read("spans", ints(0)),
    "asks for span position 3 of a row of 3": Read(
        "spans", ints(0), spans=np.array([[0, 3]], np.int32), offsets=ints(0, 1)
    ),
    "asks for token id 100 of a vocabulary of 100": Read("scores", ints(0), vocabulary=ints(5, 100)),
    "asks for token id -1": Read("scores", ints(0), vocabulary=ints(-1)),
    "offsets must rise from 0 to its 1 positions": Read("tokens", ints(0), positions=ints(1), offsets=ints(0, 2)),
}


@either
@pytest.mark.parametrize(("words", "read"), BAD_READS.items(), ids=BAD_READS.keys())
def test_a_bad_read_is_refused_in_words(words: str, read: Read, make: type[Native] | type[Torch]) -> None:
    model = build(Shape())
    heads = {
        "tokens": HeadSpec("tokens", Pool(("tokens",))),
        "mean": HeadSpec("mean", Pool(("mean",), skip_prompt=True)),
        "spans": HeadSpec("spans", Pool(("spans",))),
        "scores": HeadSpec("scores", Pool(("first",)), per_row=(Vocabulary(),)),
    }
    with pytest.raises(EngineFailure, match=words):
        make(model.spec, heads, model.weights).run(GOOD, [read])


def test_what_does_not_fit_is_refused_when_built() -> None:
    model = build(Shape())
    head = HeadSpec("h", Pool(("mean",)), per_row=(Linear("h.0.weight", "h.0.bias"),))
    with pytest.raises(MissingTensor, match=r"'layers\.1\.ff\.up\.weight'"):
        Native(model.spec, {}, {k: v for k, v in model.weights.items() if k != "layers.1.ff.up.weight"})
    with pytest.raises(BadCheckpoint, match=r"'embed\.word' has shape \(3, 4\), the config says \(100, 64\)"):
        Native(model.spec, {}, model.weights | {"embed.word": np.zeros((3, 4), np.float32)})
    with pytest.raises(BadCheckpoint, match="linear step takes 63 numbers and gets 64"):
        Native(model.spec, {"h": head}, model.weights | head_weights(63, 2))
    with pytest.raises(MissingTensor, match=r"'h\.0\.weight'"):
        Native(model.spec, {"h": head}, model.weights)
    attention = dataclasses.replace(model.spec.layers[0].attention, conv_kernel=9)
    layers = tuple(dataclasses.replace(layer, attention=attention) for layer in model.spec.layers)
    with pytest.raises(UnsupportedOption, match=r"the native engine does not run attention\.conv_kernel"):
        Native(dataclasses.replace(model.spec, layers=layers), {}, model.weights)
    with pytest.raises(BadSetting, match="dtype 'int8' is unknown"):
        Native(model.spec, {}, model.weights, "int8")
