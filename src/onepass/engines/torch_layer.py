"""A layer's sublayers in torch: each takes rounded states and gives what is to be added, with a bias still to add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onepass.engines.torch_attention import flash, flash_can, grouped, kernels_can
from onepass.engines.torch_batch import Rows, as_tensor
from onepass.engines.torch_disentangled import disentangled_attention, query_block, query_blocks, reach
from onepass.engines.torch_steps import ACTIVATIONS, activated, gated, rotated
from onepass.engines.torch_weights import Linear, Norm, Tensors
from onepass.model.spec import BottleneckSpec, Disentangled, EncoderSpec, FeedForwardSpec, LayerSpec, NormSpec

Update = tuple[Tensor, Tensor | None]
"""[tokens, width] in the products' dtype, and a float32 bias [width] that is still to be added, or None."""


class SelfAttention:
    def __init__(self, spec: EncoderSpec, layer: LayerSpec, tensors: Tensors, bias_index: int, fused: bool) -> None:
        name = f"layers.{layer.weights}.attention"
        self.spec = layer.attention
        self.fused = fused
        self.bias_index = bias_index
        self.relative = spec.relative if isinstance(spec.relative, Disentangled) else None
        asking = [f"{name}.query", f"{name}.key"]
        self.apart = layer.bottleneck is not None and layer.bottleneck.shares == "query_key"
        self.asked = tensors.linear(*asking) if self.apart else tensors.linear(*asking, f"{name}.value")
        self.valued = tensors.linear(f"{name}.value") if self.apart else None
        self.output = tensors.linear(f"{name}.output", late=True)
        self.norms: Sequence[Norm] = ()
        if self.spec.qk_norm is not None:
            self.norms = [tensors.norm(f"{name}.{part}_norm", layer.norm) for part in ("query", "key")]
        self.position_key = self.position_query = None
        if self.relative is not None:
            if self.relative.content_to_position:
                self.position_key = _positions(self.relative, f"{name}.position_key", layer, tensors)
            if self.relative.position_to_content:
                self.position_query = _positions(self.relative, f"{name}.position_query", layer, tensors)
        self.flashes = flash_can(self.spec, tensors.device, tensors.dtype, bias_index >= 0 or self.relative is not None)
        self.kernels = kernels_can(tensors.device)

    @property
    def on_device(self) -> bool:
        """Whether it reads nothing on the host."""
        return self.flashes or self.kernels

    def run(self, asking: Tensor, answering: Tensor, rows: Rows) -> Update:
        """Queries and keys are made of `asking`, values of `answering`; both [tokens, ...]."""
        heads, kv_heads, size = self.spec.heads, self.spec.kv_heads, self.spec.head_size
        made = self.asked(asking).unflatten(1, (-1, size))
        if self.valued is not None:
            both, value = made, self.valued(answering).unflatten(1, (-1, size))
        else:
            both, value = made.split([heads + kv_heads, kv_heads], dim=1)
        if self.spec.qk_norm is not None:
            both = self.normed(both)
        if self.spec.rope is not None:
            tables, starts = rows.tables[self.spec.rope], rows.starts[self.spec.rope]
            both = rotated(both, *tables, starts, self.fused)
        query, key = both.split([heads, kv_heads], dim=1)
        mixed = self.mixed(query, key, value, rows)
        return self.output(mixed.reshape(len(mixed), -1)), self.output.late_bias

    def normed(self, both: Tensor) -> Tensor:
        """Queries and keys, [tokens, heads + kv_heads, head_size], each head by itself or all of them together."""
        parts = both.split([self.spec.heads, self.spec.kv_heads], dim=1)
        flat = self.spec.qk_norm == "flat"
        normed = [norm((x.flatten(1) if flat else x).float()) for norm, x in zip(self.norms, parts, strict=True)]
        return torch.cat([y.view(x.shape).to(x.dtype) for y, x in zip(normed, parts, strict=True)], dim=1)

    def mixed(self, query: Tensor, key: Tensor, value: Tensor, rows: Rows) -> Tensor:
        """[tokens, heads, head_size], by the fastest way that says what this layer asks."""
        relative = self.relative
        if relative is not None:
            return disentangled_attention(
                query,
                key,
                value,
                rows.offsets,
                rows.visible,
                rows.once("reach", lambda: reach(relative, rows.longest, query.device)),
                self.position_key,
                self.position_query,
                self.spec,
                self.blocks(query, rows) if self.kernels else None,
            )
        narrowed = self.spec.causal or self.spec.radius is not None
        if self.flashes and (rows.all_visible or not narrowed):
            return flash(query, key, value, rows, self.spec)
        bias = None if self.bias_index < 0 else rows.biases[self.bias_index]
        if self.kernels:
            from onepass.engines.torch_packed_kernel import run

            blocks, queries = self.blocks(query, rows), query_block(self.spec.head_size, query.dtype)
            return run(query, key, value, rows.offsets, rows.visible, blocks, bias, self.spec, queries)
        return grouped(query, key, value, rows, self.spec, bias)

    def blocks(self, query: Tensor, rows: Rows) -> Tensor:
        """The batch's blocks of queries for a kernel, made by the first layer that needs them."""
        size = query_block(self.spec.head_size, query.dtype)
        return rows.once(f"blocks of {size}", lambda: query_blocks(rows.offsets, len(query), size))


def _positions(relative: Disentangled, name: str, layer: LayerSpec, tensors: Tensors) -> Tensor:
    """DeBERTa's relative table through a layer's projection, a constant: [heads, 2 span, head_size]."""

    def make() -> Tensor:
        table = as_tensor(tensors.array("relative.table"))
        if relative.norm is not None:
            table = _normed(relative.norm, table, tensors)
        positions = table @ as_tensor(tensors.array(f"{name}.weight")).T
        bias = tensors.optional(f"{name}.bias")
        if bias is not None:
            positions = positions + as_tensor(bias)
        by_head = positions.unflatten(1, (layer.attention.heads, -1)).transpose(0, 1)
        return tensors.moved([by_head.contiguous().numpy()], tensors.dtype)

    return tensors.once(("positions", name), make)


def _normed(norm: NormSpec, table: Tensor, tensors: Tensors) -> Tensor:
    made: Tensor = tensors.norm("relative.norm", norm)(table.to(tensors.device))
    return made.cpu()


class FeedForward:
    def __init__(self, name: str, spec: FeedForwardSpec, tensors: Tensors, fused: bool) -> None:
        self.spec = spec
        self.fused = fused
        first = [f"{name}.gate", f"{name}.up"] if spec.kind == "gated" else [f"{name}.up"]
        self.up = tensors.linear(*first)
        self.down = tensors.linear(f"{name}.down", late=True)
        self.router = tensors.table(f"{name}.router.weight") if spec.kind == "experts" else None

    @property
    def on_device(self) -> bool:
        return self.router is None

    def run(self, x: Tensor) -> Update:
        """x: [tokens, width]."""
        if self.router is not None:
            return self.routed(x, self.router)
        if self.spec.kind == "gated":
            inner = gated(self.spec.activation, self.up(x), self.fused)
        else:
            inner = activated(self.spec.activation, self.up, x)
        return self.down(inner), self.down.late_bias

    def routed(self, x: Tensor, router: Tensor) -> Update:
        """Nomic's experts: each over the tokens that took it, of which the host must know the number."""
        width, top = self.spec.width, self.spec.top
        shares, experts = torch.softmax(x.float() @ router.T, dim=1).sort(dim=1, descending=True, stable=True)
        order = experts[:, :top].flatten().sort(stable=True)
        counts = torch.bincount(order.values, minlength=self.spec.experts).tolist()
        weights = shares[:, :top].flatten()[order.indices].unsqueeze(1)
        out = torch.zeros((len(x), self.down.weight.shape[0]), dtype=torch.float32, device=x.device)
        begin = 0
        for expert, count in enumerate(counts):
            mine = order.indices[begin : begin + count] // top
            own = slice(expert * width, (expert + 1) * width)
            inner = x[mine] @ self.up.weight[own].T
            if self.up.bias is not None:
                inner = inner + self.up.bias[own]
            inner = ACTIVATIONS[self.spec.activation](inner.float()) * weights[begin : begin + count]
            out.index_add_(0, mine, (inner.to(x.dtype) @ self.down.weight[:, own].T).float())
            begin += count
        return out, self.down.late_bias


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """MobileBERT's; names as in `BottleneckSpec` and model/weights.py."""

    shares: str
    input: Linear
    input_norm: Norm
    shared: Linear | None
    shared_norm: Norm | None
    output: Linear
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Layer:
    """One group of weights; norms are those of `LayerSpec`."""

    place: str
    attention: SelfAttention
    chain: Sequence[tuple[FeedForward, Norm]]
    feed_forward: FeedForward
    norm1: Norm | None
    norm1_after: Norm | None
    norm2: Norm
    norm2_after: Norm | None
    bottleneck: Bottleneck | None

    @property
    def on_device(self) -> bool:
        return self.attention.on_device and self.feed_forward.on_device


def make_layer(spec: EncoderSpec, layer: LayerSpec, tensors: Tensors, bias_index: int, fused: bool) -> Layer:
    group = f"layers.{layer.weights}"
    sandwich = layer.place == "sandwich"
    links = [f"{group}.chain.{link}" for link in range(layer.feed_forward.chain - 1)]
    return Layer(
        layer.place,
        SelfAttention(spec, layer, tensors, bias_index, fused),
        [
            (FeedForward(link, layer.feed_forward, tensors, fused), tensors.norm(f"{link}.norm", layer.norm))
            for link in links
        ],
        FeedForward(f"{group}.ff", layer.feed_forward, tensors, fused),
        tensors.norm(f"{group}.norm1", layer.norm) if layer.first_norm else None,
        tensors.norm(f"{group}.norm1_after", layer.norm) if sandwich else None,
        tensors.norm(f"{group}.norm2", layer.norm),
        tensors.norm(f"{group}.norm2_after", layer.norm) if sandwich else None,
        None if layer.bottleneck is None else _bottleneck(group, layer.bottleneck, layer.norm, tensors),
    )


def _bottleneck(group: str, spec: BottleneckSpec, norm: NormSpec, tensors: Tensors) -> Bottleneck:
    name = f"{group}.bottleneck"
    shared = spec.shares == "query_key"
    return Bottleneck(
        spec.shares,
        tensors.linear(f"{name}.input"),
        tensors.norm(f"{name}.input_norm", norm),
        tensors.linear(f"{name}.shared") if shared else None,
        tensors.norm(f"{name}.shared_norm", norm) if shared else None,
        tensors.linear(f"{name}.output"),
        tensors.norm(f"{name}.output_norm", norm),
    )
