"""What tasks ask of heads, in both engines: spans pooled one by one, sparse rows, log-probabilities, MaxSim."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from random_models import NORM, Shape, batch_of, build, double, read_all, row_of, worst

from onepass.engines.batch import Engine, Floats, Ints, Output, PackedBatch, Read
from onepass.engines.native import Native, instruction_sets
from onepass.engines.reference import Reference
from onepass.engines.torch import Torch
from onepass.errors import EngineFailure, UnsupportedOption
from onepass.model.heads import Activation, HeadSpec, Linear, Norm, Pool, PoolKind, Vocabulary

TORCH = "torch"  # beside instruction sets: the torch engine
ISAS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(obstacle), reason=f"{name}: {obstacle}"))
    for name, obstacle in instruction_sets().items()
]
isas = pytest.mark.parametrize("isa", ISAS)
fast = pytest.mark.parametrize("isa", [*ISAS, TORCH])
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
WORDS = 4133  # several blocks of a vocabulary, the last not whole
SEVERAL = ("tokens", "spans", "max_by_token")

rng = np.random.default_rng(0)
MODEL = build(Shape(layers=1))
WEIGHTS: dict[str, Floats] = MODEL.weights | {
    name: (rng.standard_normal(shape) * 0.2).astype(np.float32)
    for name, shape in {
        "h.dense.weight": (48, 64),
        "h.dense.bias": (48,),
        "h.norm.weight": (48,),
        "h.norm.bias": (48,),
        "h.words": (WORDS, 48),
        "h.words.bias": (WORDS,),
        "h.one.weight": (1, 64),
        "h.one.bias": (1,),
    }.items()
}
TRANSFORM = (
    Linear("h.dense.weight", "h.dense.bias", activation="gelu"),
    Norm(NORM, "h.norm.weight", "h.norm.bias"),
    Vocabulary("h.words", "h.words.bias"),
)
SATURATED = (*TRANSFORM, Activation("relu_log1p"))
LEXICAL = HeadSpec("h", Pool(("max_by_token",)), per_token=(Linear("h.one.weight", "h.one.bias", activation="relu"),))


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int32)


Make = Callable[[HeadSpec], Engine]


def native(head: HeadSpec, isa: str | None = None, dtype: str = "float32") -> Native | Torch:
    if isa == TORCH:
        return torch(head, dtype)
    return Native(MODEL.spec, {head.kind: head}, WEIGHTS, dtype, isa=isa)


def torch(head: HeadSpec, dtype: str = "float32") -> Torch:
    return Torch(MODEL.spec, {head.kind: head}, WEIGHTS, dtype)


def reference(head: HeadSpec) -> Reference:
    return Reference(MODEL.spec, {head.kind: head}, double(WEIGHTS))


def scattered(output: Output, width: int) -> NDArray[np.float64]:
    """A sparse output's rows, zeros and all."""
    rows = np.zeros((len(output.offsets) - 1, width))
    assert output.ids is not None
    for row, (begin, end) in enumerate(pairwise(output.offsets)):
        rows[row, output.ids[begin:end]] = output.values[begin:end, 0]
    return rows


def same(a: Output, b: Output) -> bool:
    ids = a.ids is b.ids or np.array_equal(a.ids, b.ids)  # type: ignore[arg-type]
    return ids and np.array_equal(a.values, b.values) and np.array_equal(a.offsets, b.offsets)


def in_any_company(engine: Engine, batch: PackedBatch, read: Read) -> None:
    """The read's rows are the same bits on more cores, and alone."""
    together = engine.run(batch, [read])[0]
    for cores in (2, 3):
        assert same(engine.run(batch, [read], cores)[0], together)
    for index, row in enumerate(read.rows):
        alone = replace(read, rows=ints(0), skip=None if read.skip is None else read.skip[index : index + 1])
        if read.offsets is not None:
            begin, end = read.offsets[index : index + 2]
            own = {name: getattr(read, name) for name in ("positions", "spans", "targets")}
            own = {name: None if value is None else value[begin:end] for name, value in own.items()}
            alone = replace(alone, offsets=ints(0, end - begin), **own)
        lone = engine.run(row_of(batch, row), [alone])[0]
        begin, end = together.offsets[index : index + 2]
        assert np.array_equal(lone.values, together.values[begin:end])
        assert lone.ids is None or np.array_equal(lone.ids, together.ids[begin:end])  # type: ignore[index]


# Spans pooled one by one

BATCH = batch_of([9, 1, 30, 4], vocab=9)
SPANS = Read(
    "h",
    ints(2, 0, 3, 2),
    spans=np.array([[0, 29], [3, 3], [5, 20], [0, 8], [2, 4], [1, 3], [28, 29]], np.int32),
    offsets=ints(0, 3, 5, 6, 7),
    skip=ints(3, 1, 0, 29),
)
SINGLE: list[PoolKind] = [kind for kind in get_args(PoolKind) if kind not in SEVERAL]


@fast
@pytest.mark.parametrize("kinds", [*((kind,) for kind in SINGLE), ("first", "mean", "weighted_mean")])
@pytest.mark.parametrize("stepped", [False, True])
def test_each_span_is_pooled_as_if_it_were_a_row(kinds: tuple[PoolKind, ...], stepped: bool, isa: str) -> None:
    steps = (Linear("h.dense.weight", "h.dense.bias"),) if stepped else ()
    head = HeadSpec("h", Pool(kinds, pad_id=7, skip_prompt=True), per_token=steps, finish="l2")
    expected = reference(head).run(BATCH, [SPANS])[0]
    assert expected.values.shape == (7, (48 if stepped else 64) * len(kinds))
    assert expected.offsets.tolist() == [0, 3, 5, 6, 7]
    for cores in (1, 2):
        got = native(head, isa).run(BATCH, [SPANS], cores)[0]
        assert worst(got.values, expected.values) < 1e-5
        assert np.array_equal(got.offsets, expected.offsets)


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("make", [reference, native, torch])
def test_a_span_over_the_whole_row_is_the_row(kind: PoolKind, make: Make) -> None:
    head = HeadSpec("h", Pool((kind,), pad_id=7))
    engine = make(head)
    whole = np.array([[0, length - 1] for length in np.diff(BATCH.offsets)], np.int32)
    spanned = engine.run(BATCH, [replace(read_all(BATCH, "h"), spans=whole, offsets=ints(0, 1, 2, 3, 4))])[0]
    assert np.array_equal(spanned.values, engine.run(BATCH, [read_all(BATCH, "h")])[0].values)


def test_weights_are_counted_from_the_spans_start() -> None:
    states, pooled = (HeadSpec(kind, Pool((kind,))) for kind in ("tokens", "weighted_mean"))
    engine = Native(MODEL.spec, {"tokens": states, "weighted_mean": pooled}, WEIGHTS)
    read = Read("weighted_mean", ints(2), spans=np.array([[5, 7]], np.int32), offsets=ints(0, 1))
    tokens, weighted = engine.run(BATCH, [Read("tokens", ints(2)), read])
    expected = np.array([1, 2, 3]) @ tokens.values[5:8] / 6
    assert worst(weighted.values, expected[None]) < 1e-5


@isas
@dtypes
def test_spans_are_the_same_bits_in_any_company(dtype: str, isa: str) -> None:
    head = HeadSpec("h", Pool(("mean", "max", "sum")), per_token=(Linear("h.dense.weight"),))
    in_any_company(native(head, isa, dtype), BATCH, SPANS)


@pytest.mark.parametrize("make", [reference, native, torch])
def test_a_row_without_spans_gives_nothing(make: Make) -> None:
    engine = make(HeadSpec("h", Pool(("mean",))))
    none = Read("h", ints(0, 2), spans=np.zeros((0, 2), np.int32), offsets=ints(0, 0, 0))
    (output,) = engine.run(BATCH, [none])
    assert output.values.shape == (0, 64)
    assert output.offsets.tolist() == [0, 0, 0]


# Sparse rows

SPLADE = {
    "max": HeadSpec("h", Pool(("max",)), per_token=SATURATED, sparse=True),
    "sum": HeadSpec("h", Pool(("sum",)), per_token=SATURATED, sparse=True),
    "saturated twice": HeadSpec(
        "h", Pool(("max",)), per_token=(*SATURATED, Activation("relu_log1p")), sparse=True
    ),
    "mean without the prompt": HeadSpec(
        "h", Pool(("mean",), skip_prompt=True), per_token=(*TRANSFORM, Activation("tanh")), sparse=True
    ),
    "max of what turns back": HeadSpec("h", Pool(("max",)), per_token=(*TRANSFORM, Activation("gelu")), sparse=True),
    "bare scores": HeadSpec("h", Pool(("weighted_mean",)), per_token=TRANSFORM[:1] + TRANSFORM[2:], sparse=True),
    "first token": HeadSpec("h", Pool(("first",)), per_token=TRANSFORM, sparse=True),
    "two poolings": HeadSpec("h", Pool(("max", "mean")), per_token=SATURATED, sparse=True),
    "after the pooling": HeadSpec("h", Pool(("mean",)), per_row=SATURATED, sparse=True),
    "without a vocabulary": HeadSpec("h", Pool(("mean",)), sparse=True, finish="l2"),
}  # fmt: skip
LONG = batch_of([70, 1, 3, 130, 64])
ALL = replace(read_all(LONG, "h"), skip=ints(0, 0, 1, 30, 63))


@fast
@pytest.mark.parametrize("name", SPLADE)
def test_sparse_rows_are_what_is_above_0_of_the_dense_ones(name: str, isa: str) -> None:
    head = SPLADE[name]
    width = 64 if name == "without a vocabulary" else WORDS * len(head.pool.kinds)
    (dense,) = reference(replace(head, sparse=False)).run(LONG, [ALL])
    (expected,) = reference(head).run(LONG, [ALL])
    assert np.array_equal(scattered(expected, width), np.maximum(dense.values, 0))
    assert 0 < len(expected.values) < dense.values.size
    for cores in (1, 2):
        (got,) = native(head, isa).run(LONG, [ALL], cores)
        assert got.ids is not None
        assert got.values.shape == (len(got.ids), 1)
        assert got.values.min() > 0
        assert all((np.diff(got.ids[begin:end]) > 0).all() for begin, end in pairwise(got.offsets))
        assert worst(scattered(got, width), scattered(expected, width)) < 1e-5


@isas
@dtypes
@pytest.mark.parametrize("name", ["max", "sum", "first token"])
def test_sparse_rows_are_the_same_bits_in_any_company(name: str, dtype: str, isa: str) -> None:
    in_any_company(native(SPLADE[name], isa, dtype), LONG, ALL)


@fast
@pytest.mark.parametrize("name", ["max", "sum"])
def test_sparse_rows_in_bfloat16_are_near(name: str, isa: str) -> None:
    (expected,) = reference(SPLADE[name]).run(LONG, [ALL])
    (got,) = native(SPLADE[name], isa, "bfloat16").run(LONG, [ALL])
    assert worst(scattered(got, WORDS), scattered(expected, WORDS)) < 0.05


@pytest.mark.parametrize("make", [reference, native, torch])
def test_of_a_reads_vocabulary_the_ids_come_back(make: Make) -> None:
    engine, chosen = make(SPLADE["max"]), ints(4000, 7, 8, 300, 12)
    (whole,), (some,) = engine.run(LONG, [ALL]), engine.run(LONG, [replace(ALL, vocabulary=chosen)])
    dense = scattered(whole, WORDS)
    left_out = np.setdiff1d(np.arange(WORDS), chosen)
    dense[:, left_out] = 0
    assert worst(scattered(some, WORDS), dense) < 1e-6
    assert set(some.ids.tolist()) <= set(chosen.tolist())  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [Reference, Native, Torch])
def test_what_is_not_a_number_is_not_lost(make: type[Reference] | type[Native] | type[Torch]) -> None:
    broken = WEIGHTS | {"h.words.bias": np.full(WORDS, np.nan, np.float32)}
    engine = make(MODEL.spec, {"h": SPLADE["max"]}, broken)
    assert np.isnan(engine.run(BATCH, [read_all(BATCH, "h")])[0].values).all()
    assert len(engine.run(BATCH, [read_all(BATCH, "h")])[0].values) == BATCH.rows * WORDS


# Weights of words


@fast
def test_ids_are_left_out_of_the_weights_of_words(isa: str) -> None:
    read = Read("h", ints(2, 0, 1), skip=ints(2, 0, 0))
    every = reference(LEXICAL).run(BATCH, [read])[0]
    assert every.ids is not None
    head = replace(LEXICAL, pool=replace(LEXICAL.pool, without=(3, 8, 77)))
    for engine in (reference(head), native(head, isa)):
        got = engine.run(BATCH, [read])[0]
        kept = ~np.isin(every.ids, [3, 8])
        assert got.ids is not None
        assert got.ids.tolist() == every.ids[kept].tolist()
        assert np.abs(got.values - every.values[kept]).max() < 1e-5
        assert np.diff(got.offsets).sum() == kept.sum() < len(kept)
    everything = replace(LEXICAL, pool=replace(LEXICAL.pool, without=tuple(range(100))))
    for engine in (reference(everything), native(everything, isa)):
        assert engine.run(BATCH, [read])[0].values.shape == (0, 1)


# Log-probabilities

FILL = HeadSpec("h", Pool(("tokens",)), per_token=TRANSFORM)
TARGETS = Read(
    "h",
    ints(3, 0, 3),
    positions=ints(129, 0, 7, 69, 3, 3),
    offsets=ints(0, 3, 4, 6),
    targets=ints(0, WORDS - 1, 2048, 17, 5, 4000),
)


@fast
@pytest.mark.parametrize("split", [0, 1, 3])
def test_log_probabilities_are_those_of_the_softmax(split: int, isa: str) -> None:
    head = HeadSpec("h", Pool(("tokens",)), TRANSFORM[:split], TRANSFORM[split:], finish="sigmoid")
    softmax = replace(TARGETS, targets=None, finish="softmax")
    shares = reference(head).run(LONG, [softmax])[0].values
    expected = np.log(shares[np.arange(6), TARGETS.targets])
    for engine in (reference(head), native(head, isa)):
        for cores in (1, 2):
            (got,) = engine.run(LONG, [TARGETS], cores)
            assert got.values.shape == (6, 1)
            assert got.ids is None
            assert got.offsets.tolist() == [0, 3, 4, 6]
            assert np.abs(got.values[:, 0] - expected).max() < 2e-5


def test_log_probabilities_of_activated_scores() -> None:
    head = replace(FILL, per_token=(*TRANSFORM, Activation("tanh")))
    (expected,), (got,) = reference(head).run(LONG, [TARGETS]), native(head).run(LONG, [TARGETS])
    assert np.abs(got.values - expected.values).max() < 1e-5
    assert not np.allclose(got.values, native(FILL).run(LONG, [TARGETS])[0].values)


def test_every_token_is_asked_where_no_position_is_named() -> None:
    targets = rng.integers(0, WORDS, 73).astype(np.int32)
    read = Read("h", ints(0, 2), targets=targets)
    (expected,), (got,) = reference(FILL).run(LONG, [read]), native(FILL).run(LONG, [read])
    assert got.offsets.tolist() == expected.offsets.tolist() == [0, 70, 73]
    assert np.abs(got.values - expected.values).max() < 2e-5


def test_scores_far_apart_do_not_overflow() -> None:
    weights = WEIGHTS | {"h.words.bias": np.linspace(-3e4, 3e4, WORDS).astype(np.float32)}
    for make in (Reference, Native, Torch):
        values = make(MODEL.spec, {"h": FILL}, weights).run(LONG, [TARGETS])[0].values
        assert np.isfinite(values).all()
        assert values.min() < -5e4


@isas
@dtypes
def test_log_probabilities_are_the_same_bits_in_any_company(dtype: str, isa: str) -> None:
    in_any_company(native(FILL, isa, dtype), LONG, TARGETS)


@fast
def test_log_probabilities_in_bfloat16_are_near(isa: str) -> None:
    (expected,), (got,) = reference(FILL).run(LONG, [TARGETS]), native(FILL, isa, "bfloat16").run(LONG, [TARGETS])
    assert np.abs(got.values - expected.values).max() < 0.05


# MaxSim

DOCUMENTS = [1, 5, 300, 2, 17, 64, 1, 900, 33]


def vectors(count: int, width: int, seed: int = 0) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@fast
@pytest.mark.parametrize("width", [1, 37, 128])
@pytest.mark.parametrize("queries", [1, 32, 41, 2000])
def test_similarity_is_the_sum_of_the_largest_products(queries: int, width: int, isa: str) -> None:
    query, documents = vectors(queries, width, 1), vectors(sum(DOCUMENTS), width)
    offsets = np.cumsum([0, *DOCUMENTS], dtype=np.int32)
    expected = reference(FILL).max_similarity(query.astype(float), documents.astype(float), offsets)
    assert expected[2] == pytest.approx(sum(max(documents[6:306] @ vector) for vector in query), rel=1e-5, abs=1e-5)
    engine = native(FILL, isa)
    for cores in (1, 2):
        got = engine.max_similarity(query, documents, offsets, cores)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < 1e-5 * max(np.abs(expected).max(), 1)


@isas
def test_a_documents_similarity_is_the_same_bits_in_any_company(isa: str) -> None:
    engine, query, documents = native(FILL, isa), vectors(32, 96, 1), vectors(sum(DOCUMENTS), 96)
    offsets = np.cumsum([0, *DOCUMENTS], dtype=np.int32)
    together = engine.max_similarity(query, documents, offsets)
    assert np.array_equal(engine.max_similarity(query, documents, offsets, 3), together)
    for document, (begin, end) in enumerate(pairwise(offsets)):
        alone = engine.max_similarity(query, documents[begin:end], ints(0, end - begin))
        assert np.array_equal(alone, together[document : document + 1])


@pytest.mark.parametrize("make", [reference, native, torch])
def test_similarity_of_nothing_and_of_what_is_no_number(make: Make) -> None:
    engine = make(FILL)
    assert engine.max_similarity(vectors(3, 8), vectors(0, 8), ints(0)).shape == (0,)
    broken = vectors(5, 8)
    broken[1, 2] = np.nan
    scores = engine.max_similarity(vectors(3, 8), broken, ints(0, 3, 5))
    assert np.isnan(scores).tolist() == [True, False]


@pytest.mark.parametrize("make", [reference, native, torch])
@pytest.mark.parametrize(
    ("query", "offsets"),
    [
        (vectors(3, 9), ints(0, 5)),
        (vectors(3, 8)[0], ints(0, 5)),
        (vectors(0, 8), ints(0, 5)),
        (vectors(3, 8), ints(0, 5, 5)),
        (vectors(3, 8), ints(0, 3)),
        (vectors(3, 8), ints(1, 5)),
        (vectors(3, 8), ints()),
        (vectors(3, 8), ints(0, 4, 2, 5)),
    ],
)
def test_what_cannot_be_compared_is_refused(query: Floats, offsets: Ints, make: Make) -> None:
    with pytest.raises(EngineFailure, match="cannot be compared|offsets must rise from 0 to the number of vectors, 5"):
        make(FILL).max_similarity(query, vectors(5, 8), offsets)


# Memory


def peak_mb() -> float:
    """The most that was resident since the last call, in MB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    Path("/proc/self/clear_refs").write_text("5")
    assert found
    return int(found[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what was resident at most")
def test_what_reads_take_in_memory() -> None:
    """It depends neither on the vocabulary nor on the number of pairs; test_torch.py asks the same of that engine."""
    words = 200_000
    weights = WEIGHTS | {
        "h.words": np.random.default_rng(0).standard_normal((words, 48), np.float32),
        "h.words.bias": np.full(words, -30, np.float32),
    }
    heads = {"splade": replace(SPLADE["sum"], kind="splade"), "fill": replace(FILL, kind="fill")}
    engine = Native(MODEL.spec, heads, weights)
    batch = batch_of([128] * 4)
    read = read_all(batch, "splade"), replace(read_all(batch, "fill"), targets=np.arange(512, dtype=np.int32))
    documents, offsets = np.ones((10_000, 16), np.float32), np.arange(10_001, dtype=np.int32)
    query = np.ones((1000, 16), np.float32)
    peak_mb()
    before = peak_mb()  # what is resident now
    engine.run(batch, read, 2)
    assert peak_mb() - before < 20  # MB; tokens x vocabulary would be 410
    engine.max_similarity(query, documents, offsets, 2)
    assert peak_mb() - before < 20  # MB; all products would be 40


# What is refused

SPANNED = Read("h", ints(0), spans=np.array([[0, 1]], np.int32), offsets=ints(0, 1))
REFUSED = {
    "a span backwards": (HeadSpec("h", Pool(("mean",))), replace(SPANNED, spans=np.array([[3, 2]], np.int32))),
    "a span beyond the row": (HeadSpec("h", Pool(("mean",))), replace(SPANNED, spans=np.array([[3, 9]], np.int32))),
    "spans of a sparse head": (SPLADE["max"], SPANNED),
    "spans of weights of words": (LEXICAL, SPANNED),
    "targets of a head without a vocabulary": (
        HeadSpec("h", Pool(("tokens",))),
        Read("h", ints(1), targets=ints(0)),
    ),
    "targets of a pooled head": (SPLADE["max"], Read("h", ints(1), targets=ints(0))),
    "targets among some of the vocabulary": (FILL, Read("h", ints(1), targets=ints(0), vocabulary=ints(0, 1))),
    "too few targets": (FILL, Read("h", ints(0), targets=ints(0))),
    "a target that is no id": (FILL, Read("h", ints(1), targets=ints(WORDS))),
    "a target below 0": (FILL, Read("h", ints(1), targets=ints(-1))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("make", [reference, native, torch])
def test_a_read_that_says_nothing_is_refused(name: str, make: Make) -> None:
    head, read = REFUSED[name]
    with pytest.raises(EngineFailure):
        make(head).run(BATCH, [read])


@pytest.mark.parametrize("make", [reference, native, torch])
@pytest.mark.parametrize(
    ("head", "words"),
    [
        (replace(LEXICAL, sparse=True), "head pooling max_by_token and sparse"),
        (HeadSpec("h", Pool(("tokens",)), sparse=True), "head pooling tokens and sparse"),
        (replace(LEXICAL, pool=Pool(("max_by_token",), without=(4, 3))), "without ids that do not rise"),
        (HeadSpec("h", Pool(("mean", "max"), without=(3, 4))), "head pooling mean and max without 2 ids"),
    ],
)
def test_a_head_that_says_nothing_is_refused(head: HeadSpec, words: str, make: Make) -> None:
    with pytest.raises(UnsupportedOption, match=words):
        make(head)
