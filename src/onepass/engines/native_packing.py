"""From a spec and numpy weights to the C++ encoder: names are looked up, tensors packed, and nothing of them kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onepass.engines import _native
from onepass.engines.arithmetic import norm as normalised
from onepass.engines.batch import Floats, Ints
from onepass.engines.position_tables import PositionTables
from onepass.errors import BadCheckpoint, MissingTensor
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, Step, Truncate, Vocabulary
from onepass.model.positions import relative_indices, sinusoids
from onepass.model.spec import (
    BottleneckSpec,
    ConvSpec,
    Disentangled,
    EmbedSpec,
    EncoderSpec,
    FeedForwardSpec,
    LayerSpec,
    NormSpec,
)
from onepass.model.weights import Weights, shapes


class Packing:
    """Raises MissingTensor, and BadCheckpoint for tensors that do not fit the spec.

    A linear layer that several of the model's layers share is packed once. `bytes`: of everything packed so far.
    """

    def __init__(self, spec: EncoderSpec, weights: Weights, isa: str, dtype: str) -> None:
        self.spec = spec
        self.weights = weights
        self.isa = isa
        self.format = getattr(_native.Format, dtype)
        self.bytes = 0
        self._shapes = shapes(spec)
        self._linears: dict[tuple[Any, ...], _native.Linear] = {}
        self._relatives: dict[str, _native.RelativeScores] = {}

    def encoder(self, tables: PositionTables) -> _native.Encoder:
        spec = self.spec
        return _native.Encoder(
            self.isa,
            spec.width,
            self.embedding(spec.embed),
            [self.layer(layer, tables.bias_index(layer)) for layer in spec.layers],
            None if spec.conv is None else self.convolution(spec.conv),
            None if spec.final_norm is None else self.norm("final_norm", spec.final_norm),
        )

    def embedding(self, embed: EmbedSpec) -> _native.Embedding:
        positions = None
        if embed.positions is not None:
            rows, start = embed.positions.rows, embed.positions.start
            if embed.positions.sinusoid:
                inner = embed.width if embed.project in ("sum", "after") else self.spec.width
                table = self.counted(sinusoids(rows, inner, start))
            else:
                table = self.table("embed.position")
            positions = _native.Positions(getattr(_native.PositionRule, embed.positions.rule), start, table)
        return _native.Embedding(
            self.table("embed.word"),
            embed.scale,
            embed.ngram,
            positions,
            self.table("embed.type") if embed.types else None,
            self.table("embed.task") if embed.tasks else None,
            None if embed.norm is None else self.norm("embed.norm", embed.norm),
            self.linear("embed.project") if embed.project else None,
            getattr(_native.Widen, embed.project or "word"),
        )

    # Layers.

    def layer(self, layer: LayerSpec, bias_index: int) -> _native.Layer:
        group = f"layers.{layer.weights}"
        sandwich = layer.place == "sandwich"
        return _native.Layer(
            getattr(_native.Place, layer.place),
            self.attention(layer, bias_index),
            self.linear(f"{group}.attention.output"),
            self.chain(group, layer),
            self.feed_forward(f"{group}.ff", layer.feed_forward),
            self.norm(f"{group}.norm1", layer.norm) if layer.first_norm else None,
            self.norm(f"{group}.norm1_after", layer.norm) if sandwich else None,
            self.norm(f"{group}.norm2", layer.norm),
            self.norm(f"{group}.norm2_after", layer.norm) if sandwich else None,
            None if layer.bottleneck is None else self.bottleneck(group, layer.bottleneck, layer.norm),
        )

    def attention(self, layer: LayerSpec, bias_index: int) -> _native.SelfAttention:
        name, attention = f"layers.{layer.weights}.attention", layer.attention
        apart = layer.bottleneck is not None and layer.bottleneck.shares == "query_key"
        asking = [f"{name}.query", f"{name}.key"]
        query_norm = key_norm = None
        if attention.qk_norm is not None:
            query_norm, key_norm = (self.norm(f"{name}.{part}_norm", layer.norm) for part in ("query", "key"))
        return _native.SelfAttention(
            self.linear(*asking) if apart else self.linear(*asking, f"{name}.value"),
            self.linear(f"{name}.value") if apart else None,
            query_norm,
            key_norm,
            self.relative_scores(name, layer) if isinstance(self.spec.relative, Disentangled) else None,
            attention.heads,
            attention.kv_heads,
            attention.head_size,
            attention.scale,
            attention.causal,
            0 if attention.radius is None else attention.radius + 1,
            attention.softcap or 0.0,
            -1 if attention.rope is None else attention.rope,
            bias_index,
        )

    def chain(self, group: str, layer: LayerSpec) -> list[_native.Link]:
        activation = getattr(_native.Activation, layer.feed_forward.activation)
        return [
            _native.Link(
                _native.Dense(self.linear(f"{name}.up"), self.linear(f"{name}.down"), activation),
                self.norm(f"{name}.norm", layer.norm),
            )
            for name in (f"{group}.chain.{link}" for link in range(layer.feed_forward.chain - 1))
        ]

    def feed_forward(self, name: str, spec: FeedForwardSpec) -> _native.Dense | _native.Experts:
        activation = getattr(_native.Activation, spec.activation)
        match spec.kind:
            case "plain":
                return _native.Dense(self.linear(f"{name}.up"), self.linear(f"{name}.down"), activation)
            case "gated":
                return _native.Dense(self.gated(f"{name}.gate", f"{name}.up"), self.linear(f"{name}.down"), activation)
            case "experts":
                return self.experts(name, spec)

    def experts(self, name: str, spec: FeedForwardSpec) -> _native.Experts:
        up, down = self.tensor(f"{name}.up.weight"), self.tensor(f"{name}.down.weight")
        up_bias, down_bias = self.optional(f"{name}.up.bias"), self.optional(f"{name}.down.bias")
        activation = getattr(_native.Activation, spec.activation)
        experts = []
        for begin in range(0, spec.experts * spec.width, spec.width):
            own = slice(begin, begin + spec.width)
            bias = None if up_bias is None else up_bias[own]
            experts.append(
                _native.Dense(
                    self.packed((name, "up", begin), [(up[own], bias)]),
                    self.packed((name, "down", begin), [(np.ascontiguousarray(down[:, own]), None)]),
                    activation,
                )
            )
        router = self.packed((name, "router"), [(self.tensor(f"{name}.router.weight"), None)], _native.Format.float32)
        return _native.Experts(router, experts, None if down_bias is None else self.counted(down_bias), spec.top)

    def bottleneck(self, group: str, spec: BottleneckSpec, norm: NormSpec) -> _native.Bottleneck:
        name = f"{group}.bottleneck"
        shared = spec.shares == "query_key"
        return _native.Bottleneck(
            getattr(_native.Shares, spec.shares),
            self.linear(f"{name}.input"),
            self.linear(f"{name}.shared") if shared else None,
            self.linear(f"{name}.output"),
            self.norm(f"{name}.input_norm", norm),
            self.norm(f"{name}.shared_norm", norm) if shared else None,
            self.norm(f"{name}.output_norm", norm),
        )

    def relative_scores(self, name: str, layer: LayerSpec) -> _native.RelativeScores:
        """DeBERTa's relative table through this layer's projections, constants of the model: a row per distance."""
        if name in self._relatives:
            return self._relatives[name]
        spec, heads, size = self.spec.relative, layer.attention.heads, layer.attention.head_size
        assert isinstance(spec, Disentangled)
        table = self.tensor("relative.table")
        if spec.norm is not None:
            gain, shift = self.tensor("relative.norm.weight"), self.optional("relative.norm.bias")
            table = normalised(spec.norm, table, gain, shift)
        reach = clipped_reach(spec)
        rows = relative_indices(spec, reach)  # of i - j = -reach .. reach

        def by_head(part: str, rows: Ints) -> list[_native.Linear]:
            weight, bias = self.part(f"{name}.{part}")
            positions = table @ weight.T + (np.float32(0) if bias is None else bias)
            own = (np.ascontiguousarray(positions[rows, head * size : (head + 1) * size]) for head in range(heads))
            return [self.packed((name, part, head), [(positions, None)]) for head, positions in enumerate(own)]

        made = _native.RelativeScores(
            reach,
            by_head("position_key", rows[::-1]) if spec.content_to_position else [],
            by_head("position_query", rows) if spec.position_to_content else [],
        )
        self._relatives[name] = made
        return made

    def convolution(self, conv: ConvSpec) -> _native.Convolution:
        """A linear layer over the neighbours side by side; groups become blocks of it, the rest zeros."""
        weight, width, groups = self.tensor("conv.weight"), self.spec.width, conv.groups
        whole = np.zeros((width, conv.kernel, width), np.float32)
        each = width // groups
        for begin in range(0, width, each):
            own = slice(begin, begin + each)
            whole[own, :, own] = weight[own].transpose(0, 2, 1)
        part = (whole.reshape(width, conv.kernel * width), self.optional("conv.bias"))
        return _native.Convolution(
            self.packed(("conv",), [part]),
            conv.kernel,
            getattr(_native.Activation, conv.activation),
            self.norm("conv.norm", conv.norm),
        )

    # Heads compute in float32 whatever the trunk does, except against the vocabulary.

    def head(self, head: HeadSpec) -> _native.Head:
        return _native.Head(
            self.isa,
            self.spec.width,
            [getattr(_native.Pooling, kind) for kind in head.pool.kinds],
            [self.step(step) for step in head.per_token],
            [self.step(step) for step in head.per_row],
            -1 if head.pool.pad_id is None else head.pool.pad_id,
            head.pool.skip_prompt,
            head.pool.without,
            head.sparse,
            getattr(_native.Finish, head.finish),
        )

    def step(self, step: Step) -> _native.Step:
        match step:
            case Linear():
                activation = getattr(_native.Activation, step.activation or "identity")
                residual = self.head_linear(step.residual, None) if isinstance(step.residual, str) else None
                return _native.LinearStep(
                    self.head_linear(step.weight, step.bias), activation, step.residual is True, residual
                )
            case Vocabulary():
                return _native.VocabularyStep(self.head_linear(step.weight, step.bias, self.format))
            case Activation():
                return _native.ActivationStep(getattr(_native.Activation, step.kind))
            case Norm():
                return self.made_norm(step.spec, step.weight, step.bias)
            case L2():
                return _native.L2Step()
            case Truncate():
                return _native.TruncateStep(step.width)

    def head_linear(self, weight: str, bias: str | None, dtype: Any = _native.Format.float32) -> _native.Linear:
        part = (self.tensor(weight), None if bias is None else self.tensor(bias))
        return self.packed((weight, bias, dtype), [part], dtype)

    # Parts, counted as they are packed.

    def linear(self, *names: str) -> _native.Linear:
        """Linear layers of equal inputs as one product, their outputs side by side."""
        return self.packed(names, [self.part(name) for name in names])

    def gated(self, gate: str, up: str) -> _native.Linear:
        key = (gate, up)
        if key not in self._linears:
            self._linears[key] = _native.Linear.gated(self.isa, self.format, self.part(gate), self.part(up))
            self.bytes += self._linears[key].bytes
        return self._linears[key]

    def packed(
        self, key: tuple[Any, ...], parts: Sequence[tuple[Floats, Floats | None]], dtype: Any = None
    ) -> _native.Linear:
        if key not in self._linears:
            self._linears[key] = _native.Linear(self.isa, self.format if dtype is None else dtype, parts)
            self.bytes += self._linears[key].bytes
        return self._linears[key]

    def part(self, name: str) -> tuple[Floats, Floats | None]:
        return self.tensor(f"{name}.weight"), self.optional(f"{name}.bias")

    def norm(self, name: str, norm: NormSpec) -> _native.Norm:
        return self.made_norm(norm, f"{name}.weight", f"{name}.bias" if f"{name}.bias" in self.weights else None)

    def made_norm(self, norm: NormSpec, weight: str, bias: str | None) -> _native.Norm:
        """rms1 is rms with 1 + weight."""
        kind = "rms" if norm.kind == "rms1" else norm.kind
        gain = self.tensor(weight) + np.float32(1) if norm.kind == "rms1" else self.tensor(weight)
        shift = None if bias is None else self.counted(self.tensor(bias))
        return _native.Norm(getattr(_native.NormKind, kind), self.counted(gain), shift, norm.eps)

    def table(self, name: str) -> Floats:
        return self.counted(self.tensor(name))

    def counted(self, array: Floats) -> Floats:
        self.bytes += array.nbytes
        return array

    # Tensors by name.

    def tensor(self, name: str) -> Floats:
        if name not in self.weights:
            raise MissingTensor(f"the weights have no tensor {name!r}, which the spec needs")
        tensor = self.weights[name]
        shape = self._shapes.get(name, tensor.shape)
        if tensor.shape != shape:
            raise BadCheckpoint(f"tensor {name!r} has shape {tensor.shape}, the config says {shape}")
        return tensor

    def optional(self, name: str) -> Floats | None:
        return self.tensor(name) if name in self.weights else None


def clipped_reach(spec: Disentangled) -> int:
    """The least reach whose ends read the relative table's ends, as all farther distances do."""
    reach = 1
    while tuple(relative_indices(spec, reach)[[0, -1]]) != (0, 2 * spec.span - 1):
        reach *= 2
    inner = np.flatnonzero(np.diff(relative_indices(spec, reach)))
    return int(max(reach - inner[0], inner[-1] + 1 - reach))
