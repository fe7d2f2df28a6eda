"""Heads in torch: steps, poolings and finishes on the device, in float32; only what a read asks for leaves it.

Scores against a vocabulary are products of the trunk's dtype with float32 sums. Where they are pooled or asked for one
target they are made in blocks of columns, so that never tokens x vocabulary numbers exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onepass.engines.batch import Ints, Output
from onepass.engines.torch_attention import kernels_can
from onepass.engines.torch_batch import as_tensor
from onepass.engines.torch_reads import Picked, Plan, Summed
from onepass.engines.torch_steps import ACTIVATIONS, FINISHES, unit
from onepass.engines.torch_weights import Norm as NormTensors
from onepass.engines.torch_weights import Tensors
from onepass.errors import EngineFailure
from onepass.model.heads import L2, Activation, HeadSpec, Linear, Norm, Step, Truncate, Vocabulary

BLOCKS = {"cpu": 1 << 19}
BLOCK = 1 << 26
"""Most scores at once, by the type of the device: 2 MiB of float32 stay in a CPU's cache, 256 MiB keep a GPU busy."""
RISING = {"relu", "relu2", "tanh", "sigmoid", "relu_log1p"}
"""Activations that never fall: the maximum may be taken first."""

Landed = Sequence[NDArray[Any]]
Finished = tuple[list[Tensor], Callable[[Landed], Output]]
"""Tensors to copy to the host, and what makes the output of their copies."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A vocabulary's. weight: [vocab, width] in the trunk's dtype.  bias: float32 [vocab] or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Given:
    """What heads read: the trunk's states, float32 [tokens, width], and the batch's offsets, int32 [rows + 1].

    sent: what Upload.send gave for the plans' slices.
    """

    states: Tensor
    offsets: Tensor
    sent: Tensor


class Heads:
    def __init__(self, heads: Mapping[str, HeadSpec], tensors: Tensors) -> None:
        self.specs = dict(heads)
        self.chains = {name: _Chain(head) for name, head in heads.items()}
        self.dtype = tensors.dtype
        self.tables: dict[str, Tensor] = {}
        self.norms: dict[Norm, NormTensors] = {}
        self.matrices: dict[Vocabulary, Matrix] = {}
        for head in heads.values():
            for step in (*head.per_token, *head.per_row):
                self._load(step, tensors)

    def _load(self, step: Step, tensors: Tensors) -> None:
        match step:
            case Linear():
                names = [step.weight, step.bias, step.residual]
                self.tables |= {name: tensors.table(name) for name in names if isinstance(name, str)}
            case Norm():
                self.norms[step] = tensors.norm_of(step.spec, step.weight, step.bias)
            case Vocabulary():
                bias = None if step.bias is None else tensors.table(step.bias)
                self.matrices[step] = Matrix(tensors.table(step.weight, self.dtype), bias)

    def check(self, plan: Plan) -> None:
        """Raises EngineFailure for ids that the vocabulary does not have."""
        for step in (*plan.head.per_token, *plan.head.per_row):
            if isinstance(step, Vocabulary):
                rows = len(self.matrices[step].weight)
                _check_ids("token id", plan.read.vocabulary, rows)
                _check_ids("target", plan.read.targets, rows)

    def run(self, plan: Plan, given: Given) -> Finished:
        chain = self.chains[plan.read.head]
        if plan.read.targets is not None:
            return self._log_probabilities(plan, chain, given)
        if plan.head.sparse:
            return self._sparse(plan, chain, given)
        finish = plan.read.finish or plan.head.finish
        values = self._dense(plan, chain, given)
        return [FINISHES[finish](values)], lambda landed: Output(landed[0], plan.offsets, plan.ids)

    # What comes out.

    def _dense(self, plan: Plan, chain: _Chain, given: Given) -> Tensor:
        if chain.vocabulary is not None and chain.in_blocks and not chain.after_pooling:
            by_pool = zip(*(parts for _, parts in self._blocks(plan, chain, given)), strict=True)
            return _side_by_side([block for blocks in by_pool for block in blocks])
        return self._steps(plan.head.per_row, self._pooled(plan, given), plan, given)

    def _sparse(self, plan: Plan, chain: _Chain, given: Given) -> Finished:
        """Of each row what is above 0, or no number."""
        finish = plan.read.finish or plan.head.finish
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        width = 0 if chain.vocabulary is None else len(self._matrix(chain.vocabulary, plan, given).weight)
        large = plan.rows * width * len(plan.pools) > _block(given.states)
        if large and chain.in_blocks and finish in ("none", "sigmoid"):
            for first, parts in self._blocks(plan, chain, given):
                for place, part in enumerate(parts):
                    found.append(_above_0(FINISHES[finish](part), place * width + first))
        else:
            found.append(_above_0(FINISHES[finish](self._dense(plan, chain, given)), 0))
        rows, columns, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        if len(found) > 1:
            order = torch.argsort(rows * (1 << 40) + columns)
            rows, columns, values = rows[order], columns[order], values[order]
        counts = torch.bincount(rows, minlength=plan.rows)

        def output(landed: Landed) -> Output:
            numbers, ids, sizes = landed
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
            named = ids.astype(np.int32) if plan.read.vocabulary is None else plan.read.vocabulary[ids]
            return Output(numbers.reshape(-1, 1), offsets, named)

        return [values, columns.int(), counts.int()], output

    def _log_probabilities(self, plan: Plan, chain: _Chain, given: Given) -> Finished:
        """The target's logarithmic share of each token, [m, 1], by sums over blocks of the vocabulary."""
        assert plan.targets is not None
        targets = given.sent[plan.targets].long()
        scores: Iterator[tuple[int, Tensor]]
        if chain.in_blocks:
            scores = ((first, block) for first, (block,) in self._blocks(plan, chain, given))
        else:
            scores = iter([(0, self._dense(plan, chain, given))])
        highest = torch.full((plan.rows,), float("-inf"), device=given.states.device)
        total, chosen = torch.zeros_like(highest), torch.zeros_like(highest)
        for first, block in scores:
            above = torch.maximum(highest, block.amax(dim=1))
            total = total * torch.exp(highest - above) + torch.exp(block - above.unsqueeze(1)).sum(dim=1)
            highest = above
            inside = (targets >= first) & (targets < first + block.shape[1])
            own = block.gather(1, (targets - first).clamp_(0, block.shape[1] - 1).unsqueeze(1))[:, 0]
            chosen = torch.where(inside, own, chosen)
        values = (chosen - highest - torch.log(total)).unsqueeze(1)
        return [values], lambda landed: Output(landed[0], plan.offsets)

    # Blocks of a vocabulary.

    def _blocks(self, plan: Plan, chain: _Chain, given: Given) -> Iterator[tuple[int, list[Tensor]]]:
        """(first column, for each pooling float32 [rows, columns]) of the chain, but for the finish."""
        assert chain.vocabulary is not None
        matrix = self._matrix(chain.vocabulary, plan, given)
        if chain.after_pooling:
            inputs = [self._steps(chain.before, self._pooled(plan, given), plan, given)]
        else:
            inputs = [self._steps(chain.before, _tokens(pool, given), plan, given) for pool in plan.pools]
        inputs = [x.to(self.dtype) for x in inputs]
        width = max(_block(given.states) // max(*map(len, inputs), 1, 1), 256)
        for first in range(0, len(matrix.weight), width):
            own = slice(first, first + width)
            part = Matrix(matrix.weight[own], None if matrix.bias is None else matrix.bias[own])
            if chain.after_pooling:
                yield first, [_activated(chain.after, _scores(inputs[0], part))]
                continue
            pooled_parts = []
            for pool, x in zip(plan.pools, inputs, strict=True):
                late = chain.after if isinstance(pool, Summed) and pool.kind == "max" and chain.rises else ()
                scores = _activated(() if late else chain.after, _scores(x, part))
                pooled_parts.append(_activated((*late, *plan.head.per_row), _summary(plan, pool, scores, given)))
            yield first, pooled_parts

    def _matrix(self, step: Vocabulary, plan: Plan, given: Given) -> Matrix:
        """The vocabulary's, or those rows of it that the read names."""
        matrix = self.matrices[step]
        if plan.vocabulary is None:
            return matrix
        rows = given.sent[plan.vocabulary]
        return Matrix(matrix.weight[rows], None if matrix.bias is None else matrix.bias[rows])

    # Poolings and steps.

    def _pooled(self, plan: Plan, given: Given) -> Tensor:
        steps = plan.head.per_token
        parts = [(pool, self._steps(steps, _tokens(pool, given), plan, given)) for pool in plan.pools]
        return _side_by_side([_summary(plan, pool, x, given) for pool, x in parts])

    def _steps(self, steps: Sequence[Step], x: Tensor, plan: Plan, given: Given) -> Tensor:
        for step in steps:
            x = self._step(step, x, plan, given)
        return x

    def _step(self, step: Step, x: Tensor, plan: Plan, given: Given) -> Tensor:
        match step:
            case Linear():
                y = functional.linear(
                    x, self.tables[step.weight], None if step.bias is None else self.tables[step.bias]
                )
                if step.activation is not None:
                    y = ACTIVATIONS[step.activation](y)
                if isinstance(step.residual, str):
                    return y + x @ self.tables[step.residual].T
                return y + x if step.residual else y
            case Vocabulary():
                return _scores(x.to(self.dtype), self._matrix(step, plan, given))
            case Activation():
                return ACTIVATIONS[step.kind](x)
            case Norm():
                return self.norms[step](x)
            case L2():
                return unit(x)
            case Truncate():
                return x[..., : step.width]


class _Chain:
    """Where in a head's steps the vocabulary stands, if anywhere.

    before, after: the steps around it, of the same side of the pooling.  after_pooling: that side is per_row.
    in_blocks: whether all that follows changes each score by itself.  rises: whether none of that ever falls.
    """

    def __init__(self, head: HeadSpec) -> None:
        self.vocabulary: Vocabulary | None = None
        self.before: tuple[Step, ...] = ()
        self.after: tuple[Step, ...] = ()
        self.after_pooling = False
        for side, steps in enumerate((head.per_token, head.per_row)):
            for place, step in enumerate(steps):
                if isinstance(step, Vocabulary) and self.vocabulary is None:
                    self.vocabulary, self.after_pooling = step, side == 1
                    self.before, self.after = steps[:place], steps[place + 1 :]
        following = self.after if self.after_pooling else (*self.after, *head.per_row)
        self.in_blocks = all(isinstance(step, Activation) for step in following)
        self.rises = all(isinstance(step, Activation) and step.kind in RISING for step in self.after)


def _block(x: Tensor) -> int:
    return BLOCKS.get(x.device.type, BLOCK)


def _check_ids(what: str, ids: Ints | None, rows: int) -> None:
    if ids is not None and len(wrong := ids[(ids < 0) | (ids >= rows)]):
        raise EngineFailure(f"a read asks for {what} {wrong[0]} of a vocabulary of {rows}")


def _scores(x: Tensor, matrix: Matrix) -> Tensor:
    """x: [n, width] of the matrix's dtype -> float32 [n, vocab], sums in float32."""
    if x.dtype == torch.float32:
        return functional.linear(x, matrix.weight, matrix.bias)
    weight = matrix.weight.T
    y = torch.mm(x, weight, out_dtype=torch.float32) if x.is_cuda else x.float() @ weight.float()
    return y if matrix.bias is None else y.add_(matrix.bias)


def _activated(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        assert isinstance(step, Activation)
        x = ACTIVATIONS[step.kind](x)
    return x


def _tokens(pool: Picked | Summed, given: Given) -> Tensor:
    """The states that a pooling reads, [t, width]."""
    return given.states if pool.tokens is None else given.states[given.sent[pool.tokens]]


def _summary(plan: Plan, pool: Picked | Summed, x: Tensor, given: Given) -> Tensor:
    """x: [t, width], a pooling's tokens -> [rows, width]."""
    if isinstance(pool, Picked):
        return x.reshape(plan.rows, pool.columns * x.shape[1])
    bounds = given.offsets if pool.bounds is None else given.sent[pool.bounds]
    if pool.kind != "weighted_mean":
        return segments(pool.kind, x, bounds)
    assert pool.weights is not None
    weights = given.sent[pool.weights].float().unsqueeze(1)
    return segments("sum", x * weights, bounds) / segments("sum", weights, bounds)


def segments(how: str, x: Tensor, bounds: Tensor) -> Tensor:
    """float32 [t, width] -> [m, width]: of each run bounds[i]:bounds[i + 1], none of them empty, what `how` says.

    how: "max", "sum", "mean", or "mean_sqrt", the sum over the root of the run's length.
    """
    if how not in ("max", "sum", "mean", "mean_sqrt"):
        raise EngineFailure(f"the torch engine has no pooling {how}")
    if kernels_can(x.device):
        from onepass.engines.torch_kernels import segments as kernel

        return kernel(how, x, bounds)
    found = _reduced("max" if how == "max" else "sum", x, bounds)
    if how in ("max", "sum"):
        return found
    sizes = bounds.diff().unsqueeze(1)
    return found / (sizes if how == "mean" else sizes.sqrt())


def _reduced(how: str, x: Tensor, bounds: Tensor) -> Tensor:
    """The maximum or the sum."""
    if x.device.type != "mps":
        return torch.segment_reduce(x.contiguous(), how, offsets=bounds.long(), axis=0, unsafe=True)
    rows = torch.repeat_interleave(torch.arange(len(bounds) - 1, device=x.device), bounds.diff())
    filled = x.new_full((len(bounds) - 1, x.shape[1]), float("-inf") if how == "max" else 0.0)
    index = rows.unsqueeze(1).expand_as(x)
    return filled.scatter_reduce(0, index, x, "amax" if how == "max" else "sum")


def _side_by_side(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _above_0(values: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """(row, column + first, value) of what is above 0 or no number, by row and column."""
    rows, columns = (~(values <= 0)).nonzero(as_tuple=True)
    return rows, columns + first, values[rows, columns]


def similarity(query: Tensor, documents: Tensor, offsets: Ints) -> Tensor:
    """MaxSim on the device, float32 [n], in blocks of documents."""
    scores = query.new_empty(len(offsets) - 1)
    most = max(_block(query) // len(query), 1)
    begin = 0
    while begin < len(scores):
        end = max(int(np.searchsorted(offsets, offsets[begin] + most, side="right")) - 1, begin + 1)
        own = documents[offsets[begin] : offsets[end]]
        bounds = as_tensor(offsets[begin : end + 1] - offsets[begin]).to(documents.device)
        scores[begin:end] = segments("max", own @ query.T, bounds).sum(dim=1)
        begin = end
    return scores
