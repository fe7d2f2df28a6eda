"""The reference engine: numpy, float32, one plain loop over sequences, to be read beside a paper.

It is the truth the other engines are tested against. Sources: BERT (Devlin et al. 2018) as written in transformers'
modeling_bert; pooling as sentence-transformers' Pooling module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from onepass.engines.batch import Floats, Ints, Output, PackedBatch, Read
from onepass.engines.refuse import refuse
from onepass.errors import EngineFailure, MissingTensor
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, PoolKind, Step, Truncate
from onepass.model.spec import EncoderSpec, LayerSpec, NormSpec, PositionSpec
from onepass.model.weights import Weights

_erf = np.frompyfunc(math.erf, 1, 1)


class Reference:
    """float32 whatever the checkpoint holds; `cores` is ignored: numpy decides."""

    name = "reference"
    dtype = "float32"

    def __init__(self, spec: EncoderSpec, heads: Mapping[str, HeadSpec], weights: Weights) -> None:
        refuse(spec, heads)
        self.spec = spec
        self.heads = heads
        self.weights = weights

    def info(self) -> Mapping[str, Any]:
        return {"engine": self.name, "dtype": self.dtype, "weight_bytes": sum(w.nbytes for w in self.weights.values())}

    def run(self, batch: PackedBatch, reads: Sequence[Read], cores: int = 1) -> list[Output]:
        bounds = list(zip(batch.offsets[:-1], batch.offsets[1:], strict=True))
        rows = [batch.ids[begin:end] for begin, end in bounds]
        states = [
            self._trunk(ids, batch.types[begin:end], int(visible))
            for ids, (begin, end), visible in zip(rows, bounds, batch.visible, strict=True)
        ]
        return [self._read(read, states, rows) for read in reads]

    # The trunk: one sequence at a time.

    def _trunk(self, ids: Ints, types: Ints, visible: int) -> Floats:
        """ids, types: int32 [n] -> float32 [n, width]."""
        hidden = self._embed(ids, types)
        for layer in self.spec.layers:
            hidden = self._layer(layer, hidden, visible)
        return hidden

    def _embed(self, ids: Ints, types: Ints) -> Floats:
        embed = self.spec.embed
        _check_range("token id", ids, embed.vocab)
        x = self._tensor("embed.word")[ids] * np.float32(embed.scale)
        if embed.positions is not None:
            x = x + self._tensor("embed.position")[positions(embed.positions, ids)]
        if embed.types:
            _check_range("token type", types, embed.types)
            x = x + self._tensor("embed.type")[types]
        if embed.norm is not None:
            x = self._norm(embed.norm, "embed.norm", x)
        if embed.project == "after":
            x = self._linear("embed.project", x)
        return x

    def _layer(self, layer: LayerSpec, x: Floats, visible: int) -> Floats:
        name = f"layers.{layer.weights}"
        x = self._norm(layer.norm, f"{name}.norm1", x + self._attention(layer, f"{name}.attention", x, visible))
        inner = ACTIVATIONS[layer.feed_forward.activation](self._linear(f"{name}.ff.up", x))
        return self._norm(layer.norm, f"{name}.norm2", x + self._linear(f"{name}.ff.down", inner))

    def _attention(self, layer: LayerSpec, name: str, x: Floats, visible: int) -> Floats:
        heads, size = layer.attention.heads, layer.attention.head_size
        # [n, heads * size] -> [heads, n, size]
        query, key, value = (
            self._linear(f"{name}.{part}", x).reshape(len(x), heads, size).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = np.float32(layer.attention.scale) * (query @ key[:, :visible].transpose(0, 2, 1))
        mixed = softmax(scores) @ value[:, :visible]
        return self._linear(f"{name}.output", mixed.transpose(1, 0, 2).reshape(len(x), heads * size))

    # Heads: one row at a time.

    def _read(self, read: Read, states: Sequence[Floats], rows: Sequence[Ints]) -> Output:
        head = self.heads[read.head]
        values = []
        for index, row in enumerate(read.rows):
            x = self._steps(head.per_token, states[row])
            skip = int(read.skip[index]) if head.pool.skip_prompt and read.skip is not None else 0
            pooled = [
                _pick(read, index, x) if kind == "tokens" else pool(kind, x, rows[row], skip, head.pool.pad_id)
                for kind in head.pool.kinds
            ]
            y = self._steps(head.per_row, np.concatenate(pooled, axis=1))
            values.append(FINISHES[read.finish or head.finish](y))
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        return Output(np.concatenate(values) if values else np.zeros((0, 0), np.float32), offsets)

    def _steps(self, steps: Sequence[Step], x: Floats) -> Floats:
        for step in steps:
            x = self._step(step, x)
        return x

    def _step(self, step: Step, x: Floats) -> Floats:
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
            case Activation():
                return ACTIVATIONS[step.kind](x)
            case Norm():
                bias = None if step.bias is None else self._tensor(step.bias)
                return layer_norm(x, self._tensor(step.weight), bias, step.spec.eps)
            case L2():
                return unit(x)
            case Truncate():
                return x[:, : step.width]
        raise EngineFailure(f"the reference engine has no head step {step}")

    # Tensors by name.

    def _tensor(self, name: str) -> Floats:
        try:
            return self.weights[name]
        except KeyError:
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs") from None

    def _linear(self, name: str, x: Floats) -> Floats:
        y = x @ self._tensor(f"{name}.weight").T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _norm(self, norm: NormSpec, name: str, x: Floats) -> Floats:
        return layer_norm(x, self._tensor(f"{name}.weight"), self.weights.get(f"{name}.bias"), norm.eps)


def _check_range(what: str, values: Ints, rows: int) -> None:
    """Raises EngineFailure for an index that its table does not have."""
    if values.min() < 0 or values.max() >= rows:
        raise EngineFailure(f"the {what}s run from {values.min()} to {values.max()}, their table has {rows} rows")


def positions(spec: PositionSpec, ids: Ints) -> Ints:
    """The position table's row for each token of one sequence. Raises EngineFailure beyond the table's end."""
    if spec.rule == "arange":
        rows = np.arange(len(ids), dtype=np.int32) + np.int32(spec.start)
    else:
        real = ids != spec.start
        rows = np.where(real, np.cumsum(real) + spec.start, spec.start).astype(np.int32)
    if rows.max() >= spec.rows:
        raise EngineFailure(f"a row of {len(ids)} tokens needs position {rows.max()}, the table has {spec.rows} rows")
    return rows


def layer_norm(x: Floats, weight: Floats, bias: Floats | None, eps: float) -> Floats:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(eps)) * weight
    return y if bias is None else y + bias


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: Floats) -> Floats:
    return np.float32(1) / (np.float32(1) + np.exp(-np.clip(x, -80, 80)))


def unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))


def gelu(x: Floats) -> Floats:
    return np.float32(0.5) * x * (1 + _erf(x / np.float32(math.sqrt(2))).astype(np.float32))


def gelu_tanh(x: Floats) -> Floats:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * sigmoid(np.float32(1.702) * x),
    "gelu_clipped": lambda x: np.clip(gelu(x), -10, 10),
    "silu": lambda x: x * sigmoid(x),
    "relu": relu,
    "relu2": lambda x: np.square(relu(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "relu_log1p": lambda x: np.log1p(relu(x)),
}

FINISHES: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda x: x,
    "l2": unit,
    "softmax": softmax,
    "sigmoid": sigmoid,
}


def pool(kind: PoolKind, x: Floats, ids: Ints, skip: int, pad_id: int | None) -> Floats:
    """x: float32 [n, width] of one row -> [1, width]. `skip` leading tokens are left out; weights keep their place."""
    if skip >= len(x):
        raise EngineFailure(f"a prompt of {skip} tokens leaves nothing to pool of a row of {len(x)}")
    kept = x[skip:]
    match kind:
        case "first":
            return kept[:1]
        case "last":
            return kept[-1:]
        case "last_not_pad":
            real = np.flatnonzero(ids != pad_id)
            last = int(real[-1]) if len(real) else len(x) - 1
            return x[last : last + 1]
        case "mean":
            return kept.mean(axis=0, keepdims=True)
        case "max":
            return kept.max(axis=0, keepdims=True)
        case "mean_sqrt":
            return kept.sum(axis=0, keepdims=True) / np.float32(math.sqrt(len(kept)))
        case "weighted_mean":
            weights = np.arange(skip + 1, len(x) + 1, dtype=np.float32)[:, None]
            return (kept * weights).sum(axis=0, keepdims=True) / weights.sum()
    raise EngineFailure(f"the reference engine has no pooling {kind}")


def _pick(read: Read, index: int, x: Floats) -> Floats:
    """The read's positions of its row `index`, or every token."""
    if read.positions is None or read.offsets is None:
        return x
    return x[read.positions[read.offsets[index] : read.offsets[index + 1]]]
