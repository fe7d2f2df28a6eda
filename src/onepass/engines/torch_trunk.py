"""The torch engine's trunk: packed tokens to hidden states, every option of model/spec.py a branch.

The residual stream stays float32 and is read and written once for each norm: what a sublayer gives is not added until
the next norm, in whose kernel it is. Products take and give the dtype of their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from onepass.engines.position_tables import PositionTables
from onepass.engines.torch_attention import kernels_can
from onepass.engines.torch_batch import Rows, as_tensor
from onepass.engines.torch_layer import Bottleneck, FeedForward, Layer, make_layer
from onepass.engines.torch_steps import activate, add_norm, added
from onepass.engines.torch_weights import Linear, Norm, Tensors
from onepass.model.positions import sinusoids
from onepass.model.spec import ConvSpec, EmbedSpec, EncoderSpec


class Stream(NamedTuple):
    """The residual stream between layers: x + update + bias, float32. rounded: the sum in the products' dtype."""

    x: Tensor
    update: Tensor | None = None
    bias: Tensor | None = None
    rounded: Tensor | None = None

    def value(self) -> Tensor:
        return added(self.x, self.update, self.bias)


class Trunk:
    def __init__(self, spec: EncoderSpec, tensors: Tensors, positions: PositionTables) -> None:
        self.spec = spec
        self.dtype = tensors.dtype
        self.fused = kernels_can(tensors.device)
        self.embedding = Embedding(spec, tensors)
        made: dict[int, Layer] = {}
        for layer in spec.layers:
            if layer.weights not in made:
                made[layer.weights] = make_layer(spec, layer, tensors, positions.bias_index(layer), self.fused)
        self.layers = [made[layer.weights] for layer in spec.layers]
        self.convolution = None if spec.conv is None else Convolution(spec.conv, tensors)
        self.final_norm = None if spec.final_norm is None else tensors.norm("final_norm", spec.final_norm)

    @property
    def on_device(self) -> bool:
        """Whether no layer waits for the host, so that a CUDA graph can hold them all."""
        return all(layer.on_device for layer in self.layers)

    def run(self, rows: Rows) -> Tensor:
        """float32 [tokens, width]."""
        stream = self.embedding.run(rows)
        embedded = stream
        for index, layer in enumerate(self.layers):
            stream = self.layer(layer, stream, rows)
            if index == 0 and self.convolution is not None:
                update = self.convolution.run(self.rounded(embedded), rows)
                x, rounded = self.normed(Stream(stream.value(), update), self.convolution.norm, keep_sum=False)
                stream = Stream(x, rounded=rounded)
        if self.final_norm is None:
            return stream.value()
        return self.normed(stream, self.final_norm, keep_sum=False)[0]

    def layer(self, layer: Layer, stream: Stream, rows: Rows) -> Stream:
        match layer.place:
            case "post":
                return self.post(layer, stream, rows)
            case "pre":
                return self.pre(layer, stream, rows)
            case "sandwich":
                return self.sandwich(layer, stream, rows)
            case _:
                assert layer.bottleneck is not None
                return self.bottleneck(layer, layer.bottleneck, stream, rows)

    def post(self, layer: Layer, stream: Stream, rows: Rows) -> Stream:
        x, y = stream.value(), self.rounded(stream)
        stream = self.joined(x, *layer.attention.run(y, y, rows), layer.norm1)
        for feed_forward, norm in layer.chain:
            stream = self.fed(stream, feed_forward, norm)
        return self.fed(stream, layer.feed_forward, layer.norm2)

    def pre(self, layer: Layer, stream: Stream, rows: Rows) -> Stream:
        x, y = self.entered(stream, layer.norm1)
        x, y = self.entered(Stream(x, *layer.attention.run(y, y, rows)), layer.norm2)
        return Stream(x, *layer.feed_forward.run(y))

    def sandwich(self, layer: Layer, stream: Stream, rows: Rows) -> Stream:
        assert layer.norm1_after is not None
        assert layer.norm2_after is not None
        x, y = self.entered(stream, layer.norm1)
        x = x + layer.norm1_after(self.widened(*layer.attention.run(y, y, rows)))
        x, y = self.entered(Stream(x), layer.norm2)
        return Stream(x + layer.norm2_after(self.widened(*layer.feed_forward.run(y))))

    def bottleneck(self, layer: Layer, narrow: Bottleneck, stream: Stream, rows: Rows) -> Stream:
        """MobileBERT: attention and feed-forwards at the bottleneck's width."""
        x, y = stream.value(), self.rounded(stream)
        u = self.joined(narrow.input(y).float(), None, None, narrow.input_norm)
        asking, answering = self.rounded(u), y
        if narrow.shared is not None and narrow.shared_norm is not None:
            asking = narrow.shared_norm(narrow.shared(y).float()).to(self.dtype)
        elif narrow.shares == "all":
            answering = asking
        else:
            asking = y
        u = self.joined(u.x, *layer.attention.run(asking, answering, rows), layer.norm1)
        for feed_forward, norm in layer.chain:
            u = self.fed(u, feed_forward, norm)
        u = self.fed(u, layer.feed_forward, layer.norm2)
        return self.joined(x, narrow.output(self.rounded(u)), None, narrow.output_norm)

    def fed(self, stream: Stream, feed_forward: FeedForward, norm: Norm) -> Stream:
        """norm(x + feed_forward(x)) of a stream to which nothing is to be added."""
        return self.joined(stream.x, *feed_forward.run(self.rounded(stream)), norm)

    # Sums and norms.

    def joined(self, x: Tensor, update: Tensor | None, bias: Tensor | None, norm: Norm | None) -> Stream:
        """norm(x + update + bias), or the sum alone."""
        if norm is None:
            return Stream(added(x, update, bias))
        x, rounded = self.normed(Stream(x, update, bias), norm, keep_sum=False)
        return Stream(x, rounded=rounded)

    def entered(self, stream: Stream, norm: Norm | None) -> tuple[Tensor, Tensor]:
        """The stream's sum, and its norm for a product to read."""
        if norm is None:
            return stream.value(), self.rounded(stream)
        return self.normed(stream, norm, keep_sum=True)

    def normed(self, stream: Stream, norm: Norm, *, keep_sum: bool) -> tuple[Tensor, Tensor]:
        return add_norm(stream.x, stream.update, stream.bias, norm, self.dtype, keep_sum, self.fused)

    def rounded(self, stream: Stream) -> Tensor:
        return stream.value().to(self.dtype) if stream.rounded is None else stream.rounded

    def widened(self, update: Tensor, bias: Tensor | None) -> Tensor:
        """A sublayer's output in float32, its bias added."""
        return update.float() if bias is None else update.float() + bias


class Embedding:
    """From ids to the first hidden states; tables are float32."""

    def __init__(self, spec: EncoderSpec, tensors: Tensors) -> None:
        embed = spec.embed
        self.spec = embed
        self.dtype = tensors.dtype
        self.fused = kernels_can(tensors.device)
        self.word = tensors.table("embed.word")
        self.position = _position_table(spec, tensors)
        self.type = tensors.table("embed.type") if embed.types else None
        self.task = tensors.table("embed.task")[0] if embed.tasks else None
        self.norm = None if embed.norm is None else tensors.norm("embed.norm", embed.norm)
        self.project = None if embed.project is None else tensors.linear("embed.project")

    def run(self, rows: Rows) -> Stream:
        embed, norm = self.spec, self.norm
        if self.fused and norm is not None and self.task is None and embed.ngram == 1 and embed.project is None:
            return self.at_once(norm, rows)
        x = self.summed(rows)
        rounded = None
        if norm is not None:
            x, rounded = add_norm(x, None, None, norm, self.dtype, False, self.fused)
        if embed.project == "after":
            return Stream(self.projected(x))
        return Stream(x, rounded=rounded)

    def at_once(self, norm: Norm, rows: Rows) -> Stream:
        """What nothing is projected in: sums and norm in one kernel."""
        from onepass.engines.torch_kernels import embed

        position = None if self.position is None else (self.position, rows.positions)
        kind = None if self.type is None else (self.type, rows.types)
        x, rounded = embed(self.word, rows.ids, position, kind, self.spec.scale, norm, self.dtype)
        return Stream(x, rounded=rounded)

    def summed(self, rows: Rows) -> Tensor:
        """What the norm reads."""
        embed = self.spec
        x = functional.embedding(rows.ids, self.word)
        if embed.scale != 1.0:
            x = x * embed.scale
        if embed.ngram == 3:
            x = torch.cat([neighbours(x, rows, 1), x, neighbours(x, rows, -1)], dim=1)
        if embed.project == "word":
            x = self.projected(x)
        if self.position is not None:
            x = x + functional.embedding(rows.positions, self.position)
        if self.type is not None:
            x = x + functional.embedding(rows.types, self.type)
        if self.task is not None:
            x = x + self.task
        return self.projected(x) if embed.project == "sum" else x

    def projected(self, x: Tensor) -> Tensor:
        assert self.project is not None
        return self.project(x.to(self.dtype)).float()


def _position_table(spec: EncoderSpec, tensors: Tensors) -> Tensor | None:
    embed: EmbedSpec = spec.embed
    if embed.positions is None:
        return None
    if not embed.positions.sinusoid:
        return tensors.table("embed.position")
    inner = embed.width if embed.project in ("sum", "after") else spec.width
    return tensors.moved([sinusoids(embed.positions.rows, inner, embed.positions.start)], torch.float32)


def neighbours(x: Tensor, rows: Rows, step: int) -> Tensor:
    """x: [tokens, width] -> for each token that `step` places on in its row, zeros beyond the row's ends."""
    tokens = torch.arange(len(x), device=x.device)
    there = rows.left >= step if step > 0 else rows.places >= -step
    return x[(tokens + step).clamp_(0, len(x) - 1)].masked_fill(~there.unsqueeze(1), 0)


@dataclass(frozen=True, slots=True)
class _Reach:
    before: int
    after: int


class Convolution:
    """DeBERTa v2's: a linear layer over the neighbours side by side; groups become blocks of it, the rest zeros."""

    def __init__(self, conv: ConvSpec, tensors: Tensors) -> None:
        self.spec = conv
        before = (conv.kernel - 1) // 2
        self.reach = _Reach(before, conv.kernel - 1 - before)
        weight = as_tensor(tensors.array("conv.weight"))
        width, each, kernel = weight.shape
        groups = conv.groups
        whole = torch.zeros(groups, width // groups, kernel, groups, each)
        for group, part in enumerate(weight.view(groups, width // groups, each, kernel)):
            whole[group, :, :, group] = part.transpose(1, 2)
        bias = tensors.optional("conv.bias")
        self.linear = Linear(
            tensors.moved([whole.reshape(width, kernel * groups * each).numpy()], tensors.dtype),
            None if bias is None else tensors.moved([bias], tensors.dtype),
        )
        self.norm = tensors.norm("conv.norm", conv.norm)

    def run(self, x: Tensor, rows: Rows) -> Tensor:
        """x: [tokens, width] -> the same, to be added to the stream."""
        steps = range(-self.reach.before, self.reach.after + 1)
        side_by_side = torch.cat([x if step == 0 else neighbours(x, rows, step) for step in steps], dim=1)
        return activate(self.spec.activation, self.linear(side_by_side))
