"""The reference engine: numpy, float32, one plain loop over sequences, to be read beside a paper.

It is the truth the other engines are tested against. Here are its heads; reference_trunk.py has the encoder itself,
arithmetic.py the functions of one vector. Pooling is as in sentence-transformers' Pooling module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onepass.engines.arithmetic import ACTIVATIONS, FINISHES, norm, unit
from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read, check_similarity
from onepass.engines.reference_trunk import Trunk, check_range
from onepass.engines.refuse import meaningless, not_run, refuse
from onepass.errors import EngineFailure
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, PoolKind, Step, Truncate, Vocabulary
from onepass.model.spec import EncoderSpec
from onepass.model.weights import Weights


class Reference:
    """float32 whatever the checkpoint holds; `cores` is ignored: numpy decides."""

    name = "reference"
    dtype = "float32"

    def __init__(self, spec: EncoderSpec, heads: Mapping[str, HeadSpec], weights: Weights) -> None:
        refuse(self.name, meaningless(spec, heads), not_run(spec))
        self.heads = heads
        self.weights = weights
        self.trunk = Trunk(spec, weights)

    def info(self) -> Mapping[str, Any]:
        return {"engine": self.name, "dtype": self.dtype, "weight_bytes": sum(w.nbytes for w in self.weights.values())}

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        bounds = list(zip(batch.offsets[:-1], batch.offsets[1:], strict=True))
        rows = [batch.ids[begin:end] for begin, end in bounds]
        states = [
            self.trunk.run(ids, batch.types[begin:end], int(visible))
            for ids, (begin, end), visible in zip(rows, bounds, batch.visible, strict=True)
        ]
        return [self._output(read, states, rows) for read in reads]

    def max_similarity(self, query: Floats, documents: Floats, offsets: Ints, cores: int = 1) -> Floats:
        check_similarity(query, documents, offsets)
        scores = [(documents[begin:end] @ query.T).max(axis=0).sum() for begin, end in pairwise(offsets)]
        return np.array(scores, np.float32)

    def _output(self, read: Read, states: Sequence[Floats], rows: Sequence[Ints]) -> Output:
        head = self.heads[read.head]
        values = [self._values(head, read, index, states[row], rows[row]) for index, row in enumerate(read.rows)]
        ids = None
        if read.targets is not None:
            values = _log_probabilities(head, read, values)
        elif head.sparse:
            columns = [np.flatnonzero(~(row[0] <= 0)).astype(np.int32) for row in values]  # a NaN is not dropped
            values = [row[0, places, None] for row, places in zip(values, columns, strict=True)]
            ids = np.concatenate([*columns, np.zeros(0, np.int32)])
            ids = ids if read.vocabulary is None else read.vocabulary[ids]
        elif "max_by_token" in head.pool.kinds:
            kept = [_distinct(head, rows[row][_skipped(head, read, index) :]) for index, row in enumerate(read.rows)]
            ids = np.concatenate([*kept, np.zeros(0, np.int32)])
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        return Output(np.concatenate(values) if values else np.zeros((0, 0), np.float32), offsets, ids)

    def _values(self, head: HeadSpec, read: Read, index: int, states: Floats, ids: Ints) -> Floats:
        """One row's values, [m, width]: steps per token, poolings side by side, steps per row, finish."""
        skip = _skipped(head, read, index)
        if skip >= len(ids):
            raise EngineFailure(f"a prompt of {skip} tokens leaves nothing to pool of a row of {len(ids)}")
        spans = _pooled_spans(head, read, index, len(ids))
        if spans is None:
            pooled = self._pooled(head, read, index, states, ids, skip)
        elif len(spans):
            every = [slice(first, last + 1) for first, last in spans]
            pooled = np.concatenate([self._pooled(head, read, index, states[own], ids[own], 0) for own in every])
        else:
            pooled = self._pooled(head, read, index, states, ids, 0)[:0]
        y = self._steps(head.per_row, pooled, read)
        finish = "none" if read.targets is not None else read.finish or head.finish
        return np.asarray(FINISHES[finish](y))

    def _pooled(self, head: HeadSpec, read: Read, index: int, states: Floats, ids: Ints, skip: int) -> Floats:
        """What the head's poolings make of some tokens, side by side.

        Steps per token change each token by itself, so poolings that pick tokens pick them first.
        """
        every = None
        pooled = []
        for kind in head.pool.kinds:
            chosen = picked(kind, head, read, index, ids, skip)
            if chosen is not None:
                check_range("position", chosen, len(ids))
                x = self._steps(head.per_token, states[chosen], read)
                pooled.append(x.reshape(len(chosen), math.prod(x.shape[1:])))
            else:
                every = self._steps(head.per_token, states, read) if every is None else every
                pooled.append(summary(kind, head, every, ids, skip))
        return np.concatenate(pooled, axis=1)

    def _steps(self, steps: Sequence[Step], x: Floats, read: Read) -> Floats:
        for step in steps:
            x = self._step(step, x, read)
        return x

    def _step(self, step: Step, x: Floats, read: Read) -> Floats:
        match step:
            case Linear():
                y = x @ self._tensor(step.weight).T
                if step.bias is not None:
                    y = y + self._tensor(step.bias)
                if step.activation is not None:
                    y = ACTIVATIONS[step.activation](y)
                if isinstance(step.residual, str):
                    return y + x @ self._tensor(step.residual).T
                return y + x if step.residual else y
            case Vocabulary():
                matrix = self._tensor(step.weight)
                rows = np.arange(len(matrix), dtype=np.int32) if read.vocabulary is None else read.vocabulary
                check_range("vocabulary id", rows, len(matrix))
                y = x @ matrix[rows].T
                return y if step.bias is None else y + self._tensor(step.bias)[rows]
            case Activation():
                return ACTIVATIONS[step.kind](x)
            case Norm():
                bias = None if step.bias is None else self._tensor(step.bias)
                return norm(step.spec, x, self._tensor(step.weight), bias)
            case L2():
                return unit(x)
            case Truncate():
                return x[..., : step.width]

    def _tensor(self, name: str) -> Floats:
        return self.trunk.tensor(name)


def _skipped(head: HeadSpec, read: Read, index: int) -> int:
    return int(read.skip[index]) if head.pool.skip_prompt and read.skip is not None else 0


def _pooled_spans(head: HeadSpec, read: Read, index: int, tokens: int) -> Ints | None:
    """int32 [m, 2] of the spans that are pooled one by one, or None where all of the row is pooled at once."""
    if read.spans is None or read.offsets is None or {"tokens", "spans"}.intersection(head.pool.kinds):
        return None
    if head.sparse or "max_by_token" in head.pool.kinds:
        raise EngineFailure(f"the head {head.kind!r} gives several values for each span, and nothing tells them apart")
    spans = read.spans[read.offsets[index] : read.offsets[index + 1]]
    check_range("position", spans, tokens)
    for first, last in spans:
        if first > last:
            raise EngineFailure(f"a read's span from {first} to {last} has no tokens")
    return spans


def _log_probabilities(head: HeadSpec, read: Read, scores: Sequence[Floats]) -> list[Floats]:
    """Of each row's scores [m, vocabulary] the logarithm of the target's share, [m, 1]."""
    assert read.targets is not None
    if not any(isinstance(step, Vocabulary) for step in (*head.per_token, *head.per_row)):
        raise EngineFailure(f"the head {head.kind!r} scores no vocabulary: it has no log-probabilities")
    if head.pool.kinds != ("tokens",) or read.vocabulary is not None:
        raise EngineFailure("a read's targets are scored token by token, and among the whole vocabulary")
    counts = [len(row) for row in scores]
    if len(read.targets) != sum(counts):
        raise EngineFailure(f"a read has {len(read.targets)} targets for {sum(counts)} positions")
    values = []
    for row, targets in zip(scores, np.split(read.targets, np.cumsum(counts)[:-1]), strict=True):
        check_range("target", targets, row.shape[1])
        shifted = row - row.max(axis=1, keepdims=True)
        totals = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        values.append(np.take_along_axis(shifted, targets[:, None].astype(np.intp), axis=1) - totals)
    return values


def _distinct(head: HeadSpec, ids: Ints) -> Ints:
    """The ids that max_by_token gives a row each."""
    found = np.unique(ids)
    return found[~np.isin(found, head.pool.without)]


def picked(kind: PoolKind, head: HeadSpec, read: Read, index: int, ids: Ints, skip: int) -> Ints | None:
    """Which tokens a pooling picks, int32 [m], or [m, 2] for spans; None where it reads all of them.

    `skip` leading tokens are left out.
    """
    match kind:
        case "first":
            return np.array([skip], np.int32)
        case "last":
            return np.array([len(ids) - 1], np.int32)
        case "last_not_pad":
            real = np.flatnonzero(ids != head.pool.pad_id)
            return np.array([real[-1] if len(real) else len(ids) - 1], np.int32)
        case "tokens":
            if read.positions is None or read.offsets is None:
                return np.arange(len(ids), dtype=np.int32)
            return read.positions[read.offsets[index] : read.offsets[index + 1]]
        case "spans":
            if read.spans is None or read.offsets is None:
                raise EngineFailure(f"the head {head.kind!r} reads spans, and the read names none")
            return read.spans[read.offsets[index] : read.offsets[index + 1]]
    return None


def summary(kind: PoolKind, head: HeadSpec, x: Floats, ids: Ints, skip: int) -> Floats:
    """x: float32 [n, width] -> [1, width], or one row per distinct id, by rising id, for max_by_token.

    `skip` leading tokens are left out; weights keep their place.
    """
    kept = x[skip:]
    match kind:
        case "mean":
            return kept.mean(axis=0, keepdims=True)
        case "sum":
            return kept.sum(axis=0, keepdims=True)
        case "max":
            return kept.max(axis=0, keepdims=True)
        case "mean_sqrt":
            return kept.sum(axis=0, keepdims=True) / np.float32(math.sqrt(len(kept)))
        case "weighted_mean":
            weights = np.arange(skip + 1, len(x) + 1, dtype=np.float32)[:, None]
            return (kept * weights).sum(axis=0, keepdims=True) / weights.sum()
        case "max_by_token":
            rows = [kept[ids[skip:] == token].max(axis=0) for token in _distinct(head, ids[skip:])]
            return np.array(rows, x.dtype).reshape(len(rows), x.shape[1])
    raise EngineFailure(f"the reference engine has no pooling {kind}")
