"""A checkpoint's rows through an engine, without tokenizer, scheduler or Encoder in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onepass.engines import build_engine
from onepass.engines.batch import Engine, PackedBatch, Read
from onepass.engines.native import Native, instruction_sets
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import Finish, HeadSpec, Pool

STATES = HeadSpec("states", Pool(("tokens",)))
"""Every token's last hidden state; `states` in run."""

ENGINES = ["reference", "native", "torch"]

Rows = Sequence[Sequence[int]]


def start(name: str, checkpoint: Checkpoint) -> Engine:
    """A float32 engine that can also be asked for STATES."""
    heads: Mapping[str, HeadSpec] = {**checkpoint.heads, STATES.kind: STATES}
    return build_engine(replace(checkpoint, heads=heads), name, "float32")[0]


def every_engine(checkpoint: Checkpoint) -> Iterator[tuple[str, Engine]]:
    """(name, engine): all of them, native on every instruction set that this machine runs; as `start`."""
    yield "reference", start("reference", checkpoint)
    yield "torch", start("torch", checkpoint)
    heads: Mapping[str, HeadSpec] = {**checkpoint.heads, STATES.kind: STATES}
    for isa, obstacle in instruction_sets().items():
        if not obstacle:
            yield f"native on {isa}", Native(checkpoint.spec, heads, checkpoint.weights, isa=isa)


def pack(rows: Rows, types: Rows | None = None) -> PackedBatch:
    lengths = np.array([len(row) for row in rows], np.int32)
    types = [[0] * len(row) for row in rows] if types is None else types
    return PackedBatch(
        ids=np.concatenate([np.array(row, np.int32) for row in rows]),
        types=np.concatenate([np.array(row, np.int32) for row in types]),
        offsets=np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)]),
        visible=lengths,
    )


def run(
    engine: Engine,
    head: str,
    rows: Rows,
    types: Rows | None = None,
    *,
    finish: Finish | None = None,
    skip: int = 0,
) -> list[NDArray[np.float32]]:
    """All rows in one batch; one array [values, width] per row."""
    read = Read(
        head,
        np.arange(len(rows), dtype=np.int32),
        skip=np.full(len(rows), skip, np.int32) if skip else None,
        finish=finish,
    )
    (output,) = engine.run(pack(rows, types), [read])
    return [output.row(index) for index in range(len(rows))]


def encode(checkpoint: Checkpoint, texts: Sequence[Any]) -> tuple[list[list[int]], list[list[int]]]:
    """ids and types of texts or pairs, as the checkpoint's own tokenizer file gives them, not cut."""
    tokenizer = checkpoint.tokenizer.library
    encoded = [tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text) for text in texts]
    types = [item.type_ids if checkpoint.tokenizer.types else [0] * len(item.ids) for item in encoded]
    return [item.ids for item in encoded], types


def deviation(ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> float:
    """Of the worst token; where a token has few numbers, any of which may be near 0, of the worst column."""
    theirs = [b.reshape(a.shape) for a, b in zip(ours, theirs, strict=True)]
    if ours[0].shape[-1] < 8:
        return error(np.concatenate(ours).T, np.concatenate(theirs).T)
    return max(map(error, ours, theirs))


def error(ours: ArrayLike, theirs: ArrayLike) -> float:
    """The worst row's |ours - theirs| / |theirs|; a row is the last axis."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())
