"""Triton kernels for torch_steps.py: one pass over memory for what would be five in plain torch."""

# ruff: noqa: N803
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from onepass.engines.torch_weights import Norm
from onepass.model.spec import ActivationKind

KINDS = {"layer": 0, "rms": 1, "affine": 2}


@triton.jit
def _normed(s, column, inside, width, weight, shift, eps, KIND: tl.constexpr, SHIFTED: tl.constexpr):
    y = s
    if KIND == 0:
        centred = tl.where(inside, s - tl.sum(s, 0) / width, 0.0)
        y = centred / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    elif KIND == 1:
        y = s / tl.sqrt(tl.sum(s * s, 0) / width + eps)
    y = y * tl.load(weight + column, mask=inside, other=0.0)
    if SHIFTED:
        y += tl.load(shift + column, mask=inside, other=0.0)
    return y


@triton.jit
def _add_norm(
    x, update, bias, weight, shift, stream, rounded, width, eps,
    KIND: tl.constexpr, UPDATED: tl.constexpr, BIASED: tl.constexpr, SHIFTED: tl.constexpr, KEEP_SUM: tl.constexpr,
    KEEP_NORM: tl.constexpr, ROUND: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, WIDTH)
    inside = column < width
    s = tl.load(x + row + column, mask=inside, other=0.0)
    if UPDATED:
        s += tl.load(update + row + column, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        s += tl.load(bias + column, mask=inside, other=0.0)
    if KEEP_SUM:
        tl.store(stream + row + column, s, mask=inside)
    y = _normed(s, column, inside, width, weight, shift, eps, KIND, SHIFTED)
    if KEEP_NORM:
        tl.store(stream + row + column, y, mask=inside)
    if ROUND:
        tl.store(rounded + row + column, y.to(rounded.dtype.element_ty), mask=inside)


def add_norm(
    x: Tensor, update: Tensor | None, bias: Tensor | None, norm: Norm, dtype: torch.dtype, keep_sum: bool
) -> tuple[Tensor, Tensor]:
    """As torch_steps.add_norm."""
    x = x.contiguous()
    rows, width = x.shape
    update = None if update is None else update.contiguous()
    exact = dtype == torch.float32
    stores_sum = keep_sum and (update is not None or bias is not None)  # else the sum is x itself
    stores_norm = not keep_sum
    stream = torch.empty_like(x) if stores_sum or stores_norm else x
    rounded = stream if exact and stores_norm else torch.empty(x.shape, dtype=dtype, device=x.device)
    size = triton.next_power_of_2(width)
    _add_norm[(rows,)](
        x,
        x if update is None else update,
        x if bias is None else bias,
        norm.weight,
        norm.weight if norm.bias is None else norm.bias,
        stream,
        rounded,
        width,
        norm.eps,
        KIND=KINDS[norm.kind],
        UPDATED=update is not None,
        BIASED=bias is not None,
        SHIFTED=norm.bias is not None,
        KEEP_SUM=stores_sum,
        KEEP_NORM=stores_norm,
        ROUND=not (exact and stores_norm),
        WIDTH=size,
        num_warps=_warps(size),
    )
    return stream, rounded


@triton.jit
def _embed(
    word, ids, position, positions, kind, types, weight, shift, stream, rounded, width, scale, eps,
    POSITIONS: tl.constexpr, TYPES: tl.constexpr, KIND: tl.constexpr, SHIFTED: tl.constexpr, ROUND: tl.constexpr,
    WIDTH: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < width
    s = scale * tl.load(word + tl.load(ids + token).to(tl.int64) * width + column, mask=inside, other=0.0)
    if POSITIONS:
        s += tl.load(position + tl.load(positions + token).to(tl.int64) * width + column, mask=inside, other=0.0)
    if TYPES:
        s += tl.load(kind + tl.load(types + token).to(tl.int64) * width + column, mask=inside, other=0.0)
    y = _normed(s, column, inside, width, weight, shift, eps, KIND, SHIFTED)
    tl.store(stream + token * width + column, y, mask=inside)
    if ROUND:
        tl.store(rounded + token * width + column, y.to(rounded.dtype.element_ty), mask=inside)


def embed(
    word: Tensor,
    ids: Tensor,
    position: tuple[Tensor, Tensor] | None,
    kind: tuple[Tensor, Tensor] | None,
    scale: float,
    norm: Norm,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """(float32 [tokens, width], the same in `dtype`): norm(scale * word[ids] + position + kind).

    word: float32 [vocab, width].  position, kind: a table and int32 [tokens], its row for each token.
    """
    width = word.shape[1]
    stream = torch.empty((len(ids), width), dtype=torch.float32, device=word.device)
    exact = dtype == torch.float32
    rounded = stream if exact else torch.empty(stream.shape, dtype=dtype, device=word.device)
    size = triton.next_power_of_2(width)
    _embed[(len(ids),)](
        word,
        ids,
        *(position or (word, ids)),
        *(kind or (word, ids)),
        norm.weight,
        norm.weight if norm.bias is None else norm.bias,
        stream,
        rounded,
        width,
        scale,
        norm.eps,
        POSITIONS=position is not None,
        TYPES=kind is not None,
        KIND=KINDS[norm.kind],
        SHIFTED=norm.bias is not None,
        ROUND=not exact,
        WIDTH=size,
        num_warps=_warps(size),
    )
    return stream, rounded


def _warps(size: int) -> int:
    return min(max(size // 256, 1), 8)


@triton.jit
def _gate(both, out, width, KIND: tl.constexpr, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = column < width
    x = tl.load(both + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    if KIND == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        x = x * tl.sigmoid(x)
    tl.store(out + row * width + column, (x * up).to(out.dtype.element_ty), mask=inside)


def gate(both: Tensor, kind: ActivationKind) -> Tensor:
    """As torch_steps.gated."""
    rows, double = both.shape
    width = double // 2
    out = torch.empty((rows, width), dtype=both.dtype, device=both.device)
    size = min(triton.next_power_of_2(width), 1024 if width % 1024 == 0 else 512)
    _gate[(rows, triton.cdiv(width, size))](both.contiguous(), out, width, KIND=kind, SIZE=size, num_warps=4)
    return out


@triton.jit
def _rotate(x, cosines, sines, starts, token_stride, head_stride, heads, half, HEADS: tl.constexpr, HALF: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head, place = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (place < half)
    table = tl.load(starts + token).to(tl.int64) * half + place
    c = tl.load(cosines + table, mask=place < half, other=0.0)
    s = tl.load(sines + table, mask=place < half, other=0.0)
    first = x + token * token_stride + head * head_stride + place
    a = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(first + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(first, (a * c - b * s).to(x.dtype.element_ty), mask=inside)
    tl.store(first + half, (b * c + a * s).to(x.dtype.element_ty), mask=inside)


def rotate_(x: Tensor, cosines: Tensor, sines: Tensor, starts: Tensor) -> Tensor:
    """As torch_steps.rotated, in place; x's last dimension is contiguous."""
    tokens, heads, _ = x.shape
    half = cosines.shape[1]
    _rotate[(tokens,)](
        x,
        cosines,
        sines,
        starts,
        x.stride(0),
        x.stride(1),
        heads,
        half,
        HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(half),
        num_warps=4,
    )
    return x


@triton.jit
def _segments(x, bounds, out, width, HOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    nothing = float("-inf") if HOW == "max" else 0.0
    found = tl.full([ROWS, COLUMNS], nothing, tl.float32)
    strange = tl.zeros([ROWS, COLUMNS], tl.int32)  # a maximum passes over what is no number
    begin, end = tl.load(bounds + tl.program_id(0)), tl.load(bounds + tl.program_id(0) + 1)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS)
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        numbers = tl.load(x + place, mask=(row < end)[:, None] & inside[None, :], other=nothing)
        if HOW == "max":
            found = tl.maximum(found, numbers)
            strange += (numbers != numbers).to(tl.int32)
        else:
            found += numbers
    result = tl.max(found, 0) if HOW == "max" else tl.sum(found, 0)
    if HOW == "max":
        result = tl.where(tl.sum(strange, 0) > 0, float("nan"), result)
    if HOW == "mean":
        result /= end - begin
    if HOW == "mean_sqrt":
        result /= tl.sqrt((end - begin).to(tl.float32))
    tl.store(out + tl.program_id(0).to(tl.int64) * width + column, result, mask=inside)


def segments(how: str, x: Tensor, bounds: Tensor) -> Tensor:
    """As torch_heads.segments."""
    count, width = len(bounds) - 1, x.shape[1]
    out = torch.empty((count, width), dtype=torch.float32, device=x.device)
    if count and width:
        _segments[(count, triton.cdiv(width, 64))](
            x.contiguous(), bounds, out, width, HOW=how, ROWS=32, COLUMNS=64, num_warps=4
        )
    return out
