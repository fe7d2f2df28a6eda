"""The reference engine's trunk: one sequence at a time, every option of model/spec.py a branch to be read.

Sources are the papers that the families name, and the modeling files of transformers where those say more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onepass.engines.arithmetic import ACTIVATIONS, norm, softmax
from onepass.engines.batch import Floats, Ints
from onepass.errors import EngineFailure, MissingTensor
from onepass.model.positions import alibi_slopes, distance_buckets, relative_indices, rotary, sinusoids
from onepass.model.spec import (
    Alibi,
    AttentionSpec,
    BottleneckSpec,
    ConvSpec,
    Disentangled,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
    PositionSpec,
    T5Buckets,
)
from onepass.model.weights import Weights


@dataclass(frozen=True, slots=True)
class Row:
    """What attention knows of one sequence: its length, how many of its tokens are keys, its rotary tables."""

    tokens: int
    visible: int
    rotaries: Sequence[tuple[Floats, Floats]]

    @property
    def distances(self) -> Ints:
        """i - j of query i and key j, int32 [tokens, tokens]."""
        places = np.arange(self.tokens, dtype=np.int32)
        return places[:, None] - places


class Trunk:
    """Token ids to hidden states, with tensors under the names of model/weights.py."""

    def __init__(self, spec: EncoderSpec, weights: Weights) -> None:
        self.spec = spec
        self.weights = weights

    def run(self, ids: Ints, types: Ints, visible: int) -> Floats:
        """ids, types: int32 [n] -> float32 [n, width]. Raises EngineFailure for indices that a table does not have."""
        row = Row(len(ids), visible, [rotary(rope, len(ids)) for rope in self.spec.ropes])
        embedded = self.embed(ids, types)
        x = embedded
        for index, layer in enumerate(self.spec.layers):
            x = self.layer(layer, x, row)
            if index == 0 and self.spec.conv is not None:
                x = self.norm(self.spec.conv.norm, "conv.norm", x + self.convolution(self.spec.conv, embedded))
        if self.spec.final_norm is not None:
            x = self.norm(self.spec.final_norm, "final_norm", x)
        return x

    # Embeddings.

    def embed(self, ids: Ints, types: Ints) -> Floats:
        embed = self.spec.embed
        check_range("token id", ids, embed.vocab)
        x = self.tensor("embed.word")[ids] * np.float32(embed.scale)
        if embed.ngram == 3:
            nothing = np.zeros_like(x[:1])
            x = np.concatenate([np.concatenate([x[1:], nothing]), x, np.concatenate([nothing, x[:-1]])], axis=1)
        if embed.project == "word":
            x = self.linear("embed.project", x)
        if embed.positions is not None:
            x = x + self.position_table(embed.positions, x.shape[1])[position_rows(embed.positions, ids)]
        if embed.types:
            check_range("token type", types, embed.types)
            x = x + self.tensor("embed.type")[types]
        if embed.tasks:
            x = x + self.tensor("embed.task")[0]
        if embed.project == "sum":
            x = self.linear("embed.project", x)
        if embed.norm is not None:
            x = self.norm(embed.norm, "embed.norm", x)
        if embed.project == "after":
            x = self.linear("embed.project", x)
        return x

    def position_table(self, positions: PositionSpec, width: int) -> Floats:
        if positions.sinusoid:
            return sinusoids(positions.rows, width, positions.start)
        return self.tensor("embed.position")

    # Layers.

    def layer(self, layer: LayerSpec, x: Floats, row: Row) -> Floats:
        name = f"layers.{layer.weights}"

        def norm(part: str, y: Floats) -> Floats:
            return self.norm(layer.norm, f"{name}.{part}", y) if layer.first_norm or part != "norm1" else y

        def attend(asking: Floats, answering: Floats) -> Floats:
            return self.attention(layer.attention, f"{name}.attention", layer.norm, asking, answering, row)

        def feed(y: Floats) -> Floats:
            return self.feed_forward(layer.feed_forward, f"{name}.ff", y)

        match layer.place:
            case "post":
                x = norm("norm1", x + attend(x, x))
                x = self.chain(layer, x)
                return norm("norm2", x + feed(x))
            case "pre":
                y = norm("norm1", x)
                x = x + attend(y, y)
                return x + feed(norm("norm2", x))
            case "sandwich":
                y = norm("norm1", x)
                x = x + norm("norm1_after", attend(y, y))
                return x + norm("norm2_after", feed(norm("norm2", x)))
            case "bottleneck":
                assert layer.bottleneck is not None
                u, asking, answering = self.narrowed(layer, layer.bottleneck, x)
                u = norm("norm1", u + attend(asking, answering))
                u = self.chain(layer, u)
                u = norm("norm2", u + feed(u))
                return norm("bottleneck.output_norm", x + self.linear(f"{name}.bottleneck.output", u))

    def narrowed(self, layer: LayerSpec, bottleneck: BottleneckSpec, x: Floats) -> tuple[Floats, Floats, Floats]:
        """MobileBERT: (the residual stream at the bottleneck's width, what queries and keys read, what values read)."""

        def narrow(part: str) -> Floats:
            name = f"layers.{layer.weights}.bottleneck.{part}"
            return self.norm(layer.norm, f"{name}_norm", self.linear(name, x))

        u = narrow("input")
        match bottleneck.shares:
            case "all":
                return u, u, u
            case "query_key":
                return u, narrow("shared"), x
            case "none":
                return u, x, x

    def chain(self, layer: LayerSpec, x: Floats) -> Floats:
        """All feed-forwards but the last one."""
        for link in range(layer.feed_forward.chain - 1):
            name = f"layers.{layer.weights}.chain.{link}"
            x = self.norm(layer.norm, f"{name}.norm", x + self.feed_forward(layer.feed_forward, name, x))
        return x

    def feed_forward(self, spec: FeedForwardSpec, name: str, x: Floats) -> Floats:
        act = ACTIVATIONS[spec.activation]
        match spec.kind:
            case "plain":
                inner = act(self.linear(f"{name}.up", x))
            case "gated":
                inner = act(self.linear(f"{name}.gate", x)) * self.linear(f"{name}.up", x)
            case "experts":
                shares = softmax(self.linear(f"{name}.router", x))
                for token in shares:
                    token[np.argsort(-token, kind="stable")[spec.top :]] = 0
                inner = act(self.linear(f"{name}.up", x)) * np.repeat(shares, spec.width, axis=1)
        return self.linear(f"{name}.down", inner)

    def convolution(self, spec: ConvSpec, x: Floats) -> Floats:
        """DeBERTa v2: over the tokens of the sequence, with zeros beyond its ends."""
        reach = (spec.kernel - 1) // 2
        padded = np.pad(x, ((reach, spec.kernel - 1 - reach), (0, 0)))
        inputs, weights = np.split(padded, spec.groups, axis=1), np.split(self.tensor("conv.weight"), spec.groups)
        y = np.zeros_like(x)
        for place in range(spec.kernel):
            parts = [a[place : place + len(x)] @ w[:, :, place].T for a, w in zip(inputs, weights, strict=True)]
            y += np.concatenate(parts, axis=1)
        bias = self.weights.get("conv.bias")
        return ACTIVATIONS[spec.activation](y if bias is None else y + bias)

    # Attention.

    def attention(
        self, attention: AttentionSpec, name: str, qk_norm: NormSpec, asking: Floats, answering: Floats, row: Row
    ) -> Floats:
        """Queries and keys are made of `asking`, values of `answering`; both float32 [n, ...]."""
        query, key = self.linear(f"{name}.query", asking), self.linear(f"{name}.key", asking)
        value = self.linear(f"{name}.value", answering)
        if attention.qk_norm == "flat":
            query = self.norm(qk_norm, f"{name}.query_norm", query)
            key = self.norm(qk_norm, f"{name}.key_norm", key)
        query, key, value = (by_head(x, attention.head_size) for x in (query, key, value))
        if attention.qk_norm == "head":
            query = self.norm(qk_norm, f"{name}.query_norm", query)
            key = self.norm(qk_norm, f"{name}.key_norm", key)
        if attention.rope is not None:
            query, key = (rotate(x, *row.rotaries[attention.rope]) for x in (query, key))
        group = attention.heads // attention.kv_heads
        key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)

        scores = query @ key.transpose(0, 2, 1)
        if isinstance(self.spec.relative, Disentangled):
            scores = scores + self.disentangled(self.spec.relative, attention, name, query, key, row)
        scores = np.float32(attention.scale) * scores + self.distance_bias(attention, name, row)
        if attention.softcap is not None:
            cap = np.float32(attention.softcap)
            scores = cap * np.tanh(scores / cap)
        mixed = softmax(scores, seen(attention, row)) @ value
        return self.linear(f"{name}.output", mixed.transpose(1, 0, 2).reshape(len(asking), -1))

    def distance_bias(self, attention: AttentionSpec, name: str, row: Row) -> Floats:
        """What the distance alone adds to each head's scores, [heads, n, n]; T5 and ALiBi."""
        relative = self.spec.relative
        match relative:
            case T5Buckets():
                table = self.tensor(f"{name}.distance" if relative.per_layer else "relative.distance")
                buckets = distance_buckets(relative, row.tokens - 1)
                return table[buckets[row.tokens - 1 - row.distances]].transpose(2, 0, 1)
            case Alibi():
                return -alibi_slopes(attention.heads)[:, None, None] * np.abs(row.distances).astype(np.float32)
        return np.zeros((1, 1, 1), np.float32)

    def disentangled(
        self, relative: Disentangled, attention: AttentionSpec, name: str, query: Floats, key: Floats, row: Row
    ) -> Floats:
        """DeBERTa's scores of contents for positions, [heads, n, n], not yet scaled."""
        table = self.tensor("relative.table")
        if relative.norm is not None:
            table = self.norm(relative.norm, "relative.norm", table)
        places = relative_indices(relative, row.tokens - 1)[row.tokens - 1 + row.distances][None]
        scores = np.zeros((1, 1, 1), np.float32)
        if relative.content_to_position:
            positions = by_head(self.linear(f"{name}.position_key", table), attention.head_size)
            scores = scores + np.take_along_axis(query @ positions.transpose(0, 2, 1), places, axis=2)
        if relative.position_to_content:
            positions = by_head(self.linear(f"{name}.position_query", table), attention.head_size)
            by_key = np.take_along_axis(key @ positions.transpose(0, 2, 1), places.transpose(0, 2, 1), axis=2)
            scores = scores + by_key.transpose(0, 2, 1)
        return scores

    # Tensors by name.

    def tensor(self, name: str) -> Floats:
        try:
            return self.weights[name]
        except KeyError:
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs") from None

    def linear(self, name: str, x: Floats) -> Floats:
        y = x @ self.tensor(f"{name}.weight").T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def norm(self, spec: NormSpec, name: str, x: Floats) -> Floats:
        return norm(spec, x, self.tensor(f"{name}.weight"), self.weights.get(f"{name}.bias"))


def check_range(what: str, values: Ints, rows: int) -> None:
    """Raises EngineFailure for an index that its table does not have."""
    if len(values) and (values.min() < 0 or values.max() >= rows):
        raise EngineFailure(f"the {what}s run from {values.min()} to {values.max()}, their table has {rows} rows")


def position_rows(spec: PositionSpec, ids: Ints) -> Ints:
    """The position table's row for each token of one sequence. Raises EngineFailure beyond the table's end."""
    if spec.rule == "arange":
        rows = np.arange(len(ids), dtype=np.int32) + np.int32(spec.start)
    else:
        real = ids != spec.start
        rows = np.where(real, np.cumsum(real) + spec.start, spec.start).astype(np.int32)
    if rows.max() >= spec.rows:
        raise EngineFailure(f"a row of {len(ids)} tokens needs position {rows.max()}, the table has {spec.rows} rows")
    return rows


def by_head(x: Floats, size: int) -> Floats:
    """[n, heads * size] -> [heads, n, size]."""
    return x.reshape(len(x), -1, size).transpose(1, 0, 2)


def rotate(x: Floats, cosines: Floats, sines: Floats) -> Floats:
    """x: [heads, n, head_size]; pairs (k, k + half) of the first 2 half numbers are turned, the rest stay."""
    half = cosines.shape[1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines, rest], axis=-1)


def seen(attention: AttentionSpec, row: Row) -> NDArray[np.bool_]:
    """Whether query i sees key j, [n, n]."""
    seen = np.broadcast_to(np.arange(row.tokens) < row.visible, (row.tokens, row.tokens))
    if attention.causal:
        seen = seen & (row.distances >= 0)
    if attention.radius is not None:
        seen = seen & (np.abs(row.distances) <= attention.radius)
    return seen
