"""The torch engine by itself: memory that runs out, batches filled up to buckets, threads, and where it computes.

Its numbers are held against transformers and the reference by the tests of all engines.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_models import MEAN, NORM, Model, Shape, batch_of, build, draw, read_all, row_of, spec_of, worst
from torch.utils._python_dispatch import TorchDispatchMode

from onepass import Encoder
from onepass.engines import build_engine, torch_heads, torch_layer, torch_trunk
from onepass.engines.batch import Output, PackedBatch, Read
from onepass.engines.place import CPU, find_place, gpu
from onepass.engines.torch import Torch
from onepass.engines.torch_batch import Bucket, Layout, Upload
from onepass.engines.torch_graphs import HALVED_AFTER, SMALL_TOKENS, Met, bucket_of, in_eighths
from onepass.engines.torch_heads import BLOCK, BLOCKS
from onepass.errors import BadSetting, EngineFailure, MissingExtra
from onepass.model.checkpoint import load_checkpoint
from onepass.model.heads import Activation, HeadSpec, Linear, Pool, Vocabulary
from onepass.model.spec import (
    ConvSpec,
    Disentangled,
    EncoderSpec,
    FeedForwardSpec,
    NormSpec,
    RopeSpec,
    T5Buckets,
)

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
LENGTHS = [5, 1, 9, 17, 3, 33, 2]


def ints(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, dtype=np.int32)


# Memory

HEADS = {
    "mean": MEAN,
    "tokens": HeadSpec("tokens", Pool(("tokens",))),
    "spans": HeadSpec("spans", Pool(("spans",))),
    "words": HeadSpec("words", Pool(("max_by_token",), without=(3,)), per_token=(Linear("h.weight"),)),
    "sparse": HeadSpec(
        "sparse", Pool(("max",)), per_token=(Vocabulary(), Activation("relu_log1p")), sparse=True
    ),
    "next": HeadSpec("next", Pool(("tokens",)), per_token=(Vocabulary(),)),
    "skipping": HeadSpec("skipping", Pool(("weighted_mean",), skip_prompt=True)),
}  # fmt: skip
BATCH = batch_of(LENGTHS, vocab=30)
EVERY = np.arange(len(LENGTHS), dtype=np.int32)
READS = [
    *(read_all(BATCH, name) for name in ("mean", "tokens", "words", "sparse")),
    Read("mean", EVERY[::-1].copy()),
    Read("tokens", ints(5, 0, 3), positions=ints(32, 0, 4, 16, 2), offsets=ints(0, 2, 3, 5)),
    Read("tokens", ints(2)),
    Read("spans", ints(0, 6, 3), spans=np.array([[0, 4], [1, 1], [2, 9]], np.int32), offsets=ints(0, 1, 2, 3)),
    Read("mean", ints(3, 5), spans=np.array([[0, 4], [1, 1], [2, 9]], np.int32), offsets=ints(0, 1, 3)),
    Read("next", ints(5, 1), targets=np.arange(34, dtype=np.int32)),
    Read("next", ints(4, 0), positions=ints(2, 0, 1), offsets=ints(0, 1, 3), targets=ints(7, 8, 9)),
    Read("skipping", ints(5, 2, 0), skip=ints(30, 8, 0)),
    Read("sparse", ints(6, 0), vocabulary=ints(5, 3, 17)),
]


class Small(Torch):
    """Out of memory where a batch has more than `room` tokens."""

    room = 0
    runs: list[int]

    def _computed(self, batch: PackedBatch, reads: Sequence[Read]) -> list[Output]:
        self.runs.append(batch.tokens)
        if batch.tokens > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._computed(batch, reads)


def small(model: Model, room: int) -> Small:
    weights = model.weights | {"h.weight": np.ones((2, 64), np.float32)}
    engine = Small(model.spec, HEADS, weights, device=DEVICE)
    engine.room, engine.runs = room, []
    return engine


@pytest.mark.parametrize("room", [33, 40, 60])
def test_what_does_not_fit_into_memory_is_halved(room: int) -> None:
    model = build(Shape(vocab=40))
    whole = small(model, 1000).run(BATCH, READS)
    engine = small(model, room)
    halved = engine.run(BATCH, READS)
    assert max(engine.runs[1:]) <= BATCH.tokens // 2 + 33 < BATCH.tokens
    for ours, expected in zip(halved, whole, strict=True):
        assert ours.offsets.tolist() == expected.offsets.tolist()
        assert ours.values.shape == expected.values.shape
        assert np.abs(ours.values - expected.values).max() < 1e-5
        assert (ours.ids is None) == (expected.ids is None)
        assert ours.ids is None or np.array_equal(ours.ids, expected.ids)  # type: ignore[arg-type]


def test_what_fits_into_memory_is_remembered() -> None:
    engine = small(build(Shape(vocab=40)), 40)
    engine.run(BATCH, READS)
    tried = len(engine.runs)
    assert engine.info()["most_tokens"] <= 40
    engine.run(BATCH, READS)
    assert max(engine.runs[tried:]) <= 40  # nothing fails a second time


def test_only_a_row_that_does_not_fit_alone_fails() -> None:
    engine = small(build(Shape(vocab=40)), 20)
    with pytest.raises(EngineFailure, match=r"^no memory on \w+ for a row of 33 tokens; send shorter texts$"):
        engine.run(BATCH, READS)
    assert len(engine.run(row_of(BATCH, 3), [])) == 0


# Buckets, in which a CUDA graph finds its batches


def special(**changes: Any) -> EncoderSpec:
    """What looks at neighbours or places: a convolution, rotations, biases."""
    spec = spec_of(Shape(vocab=40))
    rope = 0 if "ropes" in changes else None
    layers = tuple(replace(layer, attention=replace(layer.attention, rope=rope)) for layer in spec.layers)
    return replace(spec, layers=layers, **changes)


SPECS = {
    "plain": special(),
    "after the pad id": spec_of(Shape(vocab=40, after_pad=True)),
    "convolution": special(conv=ConvSpec(5, 2, "tanh", NORM)),
    "rotations": special(ropes=(RopeSpec(16, 1e4),)),
    "biases": special(relative=T5Buckets(8, 20)),
    "disentangled": special(relative=Disentangled(16, 40, 16, True, True)),
}


@pytest.mark.parametrize("name", SPECS)
def test_what_fills_up_a_bucket_changes_nothing(name: str) -> None:
    spec = SPECS[name]
    engine = Torch(spec, {}, draw(spec))
    (expected,) = Torch(spec, HEADS_OF_STATES, draw(spec)).run(BATCH, [read_all(BATCH, "tokens")])
    upload = Upload()
    rotaries, biases = engine._tables.of(BATCH, 128)
    bucket = Bucket(96, 16, 128)
    layout = Layout(spec, BATCH, [starts for _, _, starts in rotaries], upload, bucket)
    with torch.inference_mode():
        rows = layout.rows(upload.send(torch.device("cpu")), *engine._tables_on_device(rotaries, biases))
        rows.on_host = BATCH  # which attention row by row asks, unlike kernels
        states = engine._trunk.run(rows)
    assert states.shape == (96, 64)
    assert worst(states[: BATCH.tokens].numpy(), expected.values) < 1e-6


HEADS_OF_STATES = {"tokens": HEADS["tokens"]}


def other(**changes: Any) -> EncoderSpec:
    """Each layer changed."""
    spec = spec_of(Shape(vocab=40))
    return replace(spec, layers=tuple(replace(layer, **changes) for layer in spec.layers))


ATTENTION = SPECS["plain"].layers[0].attention
FUSED = {
    **SPECS,
    "before": other(place="pre", norm=NormSpec("rms", 1e-5)),
    "gated": other(place="pre", first_norm=False, feed_forward=FeedForwardSpec("gated", 40, "silu")),
    "gated without a kernel": other(feed_forward=FeedForwardSpec("gated", 40, "relu2")),
    "sandwich": other(place="sandwich"),
    "capped, causal, in a window": other(
        attention=replace(ATTENTION, kv_heads=2, softcap=3.0, causal=True, radius=5)
    ),
    "normalised heads": other(attention=replace(ATTENTION, qk_norm="head")),
    "normalised rows": other(attention=replace(ATTENTION, qk_norm="flat")),
    "no norm of the embedding": spec_of(Shape(vocab=40, norm=False, types=0)),
}  # fmt: skip


@pytest.mark.skipif(CUDA, reason="with a CUDA device all other tests run the kernels")
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float16", 0.02)])
@pytest.mark.parametrize("name", FUSED)
def test_with_kernels_all_is_as_without(name: str, dtype: str, limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels in its interpreter, in the places where a GPU runs them."""
    spec, reads = FUSED[name], [read_all(SOME, "tokens"), read_all(SOME, "mean")]
    heads = {**HEADS_OF_STATES, "mean": MEAN}
    expected = Torch(spec, heads, draw(spec), dtype).run(SOME, reads)
    for module in (torch_trunk, torch_layer, torch_heads):
        monkeypatch.setattr(module, "kernels_can", lambda device: True)
    engine = Torch(spec, heads, draw(spec), dtype)
    assert engine._trunk.on_device
    for ours, theirs in zip(engine.run(SOME, reads), expected, strict=True):
        assert worst(ours.values, theirs.values) < limit


SOME = batch_of([5, 1, 9], vocab=30, visible=[5, 1, 7])


@pytest.mark.skipif(not CUDA, reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SPECS)
def test_a_graph_gives_what_launches_give(name: str, dtype: str) -> None:
    spec = SPECS[name]
    engine = Torch(spec, HEADS_OF_STATES, draw(spec), dtype, device="cuda")
    batches = [batch_of(lengths, vocab=30, seed=len(lengths)) for lengths in (LENGTHS, LENGTHS[::-1], [60, 9])]
    launched = [engine.run(batch, [read_all(batch, "tokens")])[0].values for batch in batches]
    for _ in range(3):
        for batch, expected in zip(batches, launched, strict=True):
            assert worst(engine.run(batch, [read_all(batch, "tokens")])[0].values, expected) < 1e-5
    assert engine.info()["graphs"] == 2


@pytest.mark.skipif(not CUDA, reason="CUDA graphs need a CUDA device")
def test_large_batches_are_graphs_too_and_all_give_their_memory_back() -> None:
    model = build(Shape(vocab=40))
    engine = Torch(model.spec, HEADS_OF_STATES, model.weights, "bfloat16", device="cuda")
    batch = batch_of([60, 9, 33] * 60, vocab=30)
    launched, *graphs = [engine.run(batch, [read_all(batch, "tokens")])[0].values for _ in range(4)]
    assert engine.info()["graphs"] == 1
    engine._forget()
    assert engine.info()["graphs"] == 0
    again = engine.run(batch, [read_all(batch, "tokens")])[0].values
    assert all(worst(values, launched) < 1e-5 for values in (*graphs, again))


def test_sizes_of_buckets() -> None:
    for n in range(1, 5000):
        assert n <= in_eighths(n) <= max(n * 9 / 8, n + 7)
        assert in_eighths(in_eighths(n)) == in_eighths(n)
        small, large = bucket_of(SMALL_TOKENS, n, n), bucket_of(SMALL_TOKENS + 1, n, n)
        assert n <= small.rows < 4 * n
        assert n <= large.rows < 2 * n
        assert n <= small.longest < max(4 * n, 33)
        assert n <= large.longest < max(2 * n, 33)
    assert len({in_eighths(n) for n in range(1, 4097)}) < 64


def test_a_bucket_takes_anothers_place_only_when_it_is_met_more_often() -> None:
    met, often, seldom, new = Met(), Bucket(8, 1, 32), Bucket(16, 1, 32), Bucket(24, 1, 32)
    for bucket in (often, often, often, seldom, seldom, new):
        met.count(bucket)
    assert met.deserves(seldom, [often], 2)
    assert not met.deserves(new, [], 2)  # once only
    met.count(new)
    assert met.least([often, seldom]) == seldom
    assert not met.deserves(new, [often, seldom], 2)  # as often
    met.count(new)
    assert met.deserves(new, [often, seldom], 2)


def test_what_was_met_long_ago_counts_less() -> None:
    met, before, now = Met(), Bucket(8, 1, 32), Bucket(16, 1, 32)
    for _ in range(HALVED_AFTER):
        met.count(before)
    assert not met.deserves(now, [before], 1)
    for _ in range(2 * HALVED_AFTER):
        met.count(now)
    assert met.deserves(now, [before], 1)


# Threads


def test_calls_from_several_threads_do_not_meet() -> None:
    model = build(Shape(width=96, heads=6))
    engine = Torch(model.spec, {"mean": MEAN}, model.weights, device=DEVICE)
    batches = [batch_of(lengths, seed=i) for i, lengths in enumerate([LENGTHS, [300], [1], [17, 18, 19] * 5] * 4)]
    alone = [engine.run(batch, [read_all(batch, "mean")])[0].values for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for cores in (1, 2):
            together = threads.map(lambda b, c=cores: engine.run(b, [read_all(b, "mean")], c)[0].values, batches)
            for a, b in zip(together, alone, strict=True):
                assert np.abs(a - b).max() < 1e-5


def test_torchs_threads_are_as_before_a_call() -> None:
    model = build(Shape(layers=1))
    engine = Torch(model.spec, {"mean": MEAN}, model.weights)
    before = torch.get_num_threads()
    for cores in (1, before + 1):
        engine.run(BATCH, [read_all(BATCH, "mean")], cores)
        assert torch.get_num_threads() == before


# Half precision


@pytest.mark.parametrize(("dtype", "cosine"), [("bfloat16", 0.9999), ("float16", 0.99999)])
def test_half_precision_on_the_real_model(minilm: Path, dtype: str, cosine: float) -> None:
    checkpoint = load_checkpoint(minilm)
    text = Path(__file__).read_text(encoding="utf-8")
    rows = [checkpoint.tokenizer.library.encode(text[at : at + 40 + at // 4]).ids[:256] for at in range(0, 3000, 200)]
    ids = np.concatenate([np.array(row, np.int32) for row in rows])
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    batch = PackedBatch(ids, np.zeros_like(ids), offsets, np.diff(offsets))
    single, half = (
        Torch(checkpoint.spec, checkpoint.heads, checkpoint.weights, kind, device=DEVICE)
        .run(batch, [read_all(batch, "embed")])[0]
        .values
        for kind in ("float32", dtype)
    )
    assert (single * half).sum(axis=1).min() >= cosine
    assert not np.array_equal(single, half)


def test_half_precision_holds_half_the_bytes() -> None:
    model = build(Shape(vocab=2, rows=4, width=256, inner=512, heads=8, head_size=32))
    sizes = {
        dtype: Torch(model.spec, {"mean": MEAN}, model.weights, dtype).info()["weight_bytes"]
        for dtype in ("float32", "bfloat16", "float16")
    }
    assert sizes["bfloat16"] == sizes["float16"]
    assert 0.5 < sizes["bfloat16"] / sizes["float32"] < 0.52


def test_scores_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Shape(vocab=3000))
    several = replace(HEADS["sparse"], pool=Pool(("max", "mean")))
    raw = replace(HEADS["sparse"], sparse=False, per_row=(Activation("tanh"),))
    heads = {"sparse": HEADS["sparse"], "several": several, "raw": raw, "next": HEADS["next"]}
    engine = Torch(model.spec, heads, model.weights, device=DEVICE)
    reads = [read_all(BATCH, name) for name in ("sparse", "several", "raw")]
    reads.append(replace(read_all(BATCH, "next"), targets=np.arange(BATCH.tokens, dtype=np.int32)))
    whole = engine.run(BATCH, reads)
    monkeypatch.setitem(BLOCKS, DEVICE, 1 << 12)
    for ours, expected in zip(engine.run(BATCH, reads), whole, strict=True):
        assert ours.offsets.tolist() == expected.offsets.tolist()
        assert (ours.ids is None) == (expected.ids is None)
        assert ours.ids is None or np.array_equal(ours.ids, expected.ids)  # type: ignore[arg-type]
        assert np.abs(ours.values - expected.values).max() < 1e-5


class Largest(TorchDispatchMode):
    """The most numbers of any tensor that an operation gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


def test_scores_are_never_held_whole() -> None:
    """Of tokens and a vocabulary, and of the vectors of a query and documents."""
    model = build(Shape(vocab=70_000, width=16, heads=2, head_size=8, inner=16, layers=0))
    engine = Torch(model.spec, {name: HEADS[name] for name in ("sparse", "next")}, model.weights, device=DEVICE)
    batch = batch_of([128] * 8, vocab=100)
    targets = replace(read_all(batch, "next"), targets=np.arange(1024, dtype=np.int32))
    block = BLOCKS.get(DEVICE, BLOCK)
    with Largest() as largest:
        engine.run(batch, [read_all(batch, "sparse"), targets])
        assert block // 2 < largest.numbers <= max(block, 8 * 70_000)  # which come out, of 71,680,000
    documents, offsets = np.ones((40_000, 8), np.float32), np.arange(40_001, dtype=np.int32)
    with Largest() as largest:
        engine.max_similarity(np.ones((500, 8), np.float32), documents, offsets)
        assert block // 2 < largest.numbers <= block  # of 20,000,000


# Where it computes


def test_a_gpu_without_torch_names_the_command(tiny_embedder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    command = re.escape('needs torch; run: pip install "onepass[torch]", or choose ')
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(MissingExtra, match=f"^device '{device}' {command}"):
            Encoder(tiny_embedder, device=device)
    with pytest.raises(MissingExtra, match=f"^the torch engine {command}"):
        Encoder(tiny_embedder, engine="torch", device="cpu")
    assert (find_place("auto").name, find_place("auto").reason[:22]) == ("cpu", "torch is not installed")


@pytest.mark.skipif(CUDA, reason="asks for a GPU where there is none")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(tiny_embedder: Path) -> None:
    for device in ("cuda", "cuda:3"):
        with pytest.raises(BadSetting, match=rf"^device '{device}' is not here: torch finds 0 CUDA devices; choose "):
            Encoder(tiny_embedder, device=device)
    assert find_place("auto", "torch").name == "cpu"


def test_engines_of_the_cpu_are_not_for_a_gpu(tiny_embedder: Path) -> None:
    checkpoint = load_checkpoint(tiny_embedder)
    for engine in ("native", "reference"):
        with pytest.raises(BadSetting, match=f"^the {engine} engine computes on the CPU, not on cuda:0; choose "):
            build_engine(checkpoint, engine, place=gpu("cuda:0", "asked"))
        assert find_place("auto", engine).reason == f"the {engine} engine computes there"


def test_an_encoder_says_what_it_runs_on(tiny_embedder: Path) -> None:
    with Encoder(tiny_embedder, engine="torch", device="cpu") as encoder:
        info = encoder.info()
        assert {name: choice["value"] for name, choice in info["choices"].items()} == {
            "device": "cpu",
            "engine": "torch",
            "dtype": "float32",
        }
        assert info["engine"]["torch"] == torch.__version__
        assert info["micro_batch_tokens"] <= CPU.most
        vectors = encoder.embed(["one text", "and another, longer one"])
    with Encoder(tiny_embedder, engine="reference") as encoder:
        assert np.abs(vectors - encoder.embed(["one text", "and another, longer one"])).max() < 1e-5
