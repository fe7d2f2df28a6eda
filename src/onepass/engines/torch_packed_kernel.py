"""A Triton kernel for attention over packed rows with what flash attention inside torch does not say.

Biases by distance, capped scores, rows of which only the first tokens are seen, float32, any head size. One program per
block of queries and head; the softmax is made while passing the keys.
"""

# ruff: noqa: N803
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from onepass.model.spec import AttentionSpec


@triton.jit
def _tile(pointer, tokens, token_stride, head, there, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """[tokens, PADDED] of one head, zeros where no token is or beyond the head's size."""
    column = tl.arange(0, PADDED)
    place = tokens.to(tl.int64)[:, None] * token_stride + head * SIZE + column[None, :]
    return tl.load(pointer + place, mask=there[:, None] & (column < SIZE)[None, :], other=0.0)


@triton.jit
def _keys(first, seen, radius, QUERIES: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """The first and the end of the keys that a block of queries can see."""
    lower, upper = seen * 0, seen
    if CAUSAL:
        upper = tl.minimum(upper, first + QUERIES)
    if WINDOW:
        lower = tl.maximum(first - radius, 0)
        if not CAUSAL:
            upper = tl.minimum(upper, first + QUERIES + radius)
    return lower, upper


# What differs from batch to batch does not make another kernel.
@triton.jit(do_not_specialize=["reach", "radius"])
def _attend(
    query, key, value, bias, offsets, visible, blocks, out,
    query_token, key_token, value_token, reach, scale, cap, radius,
    HEADS: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.load(blocks + 2 * tl.program_id(0))
    first = tl.load(blocks + 2 * tl.program_id(0) + 1)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    seen = tl.where(first < end, tl.load(visible + row), 0)  # beyond the last block no key is passed
    i = first - begin + tl.arange(0, QUERIES)
    asked = i < end - begin
    q = _tile(query, begin + i, query_token, head, asked, SIZE, PADDED)
    lower, upper = _keys(first - begin, seen, radius, QUERIES, CAUSAL, WINDOW)
    highest = tl.full([QUERIES], -1.0e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, PADDED], tl.float32)
    for start in range(lower, upper, KEYS):
        j = start + tl.arange(0, KEYS)
        k = _tile(key, begin + j, key_token, head // GROUP, j < seen, SIZE, PADDED)
        scores = scale * tl.dot(q, tl.trans(k), input_precision="ieee")
        pairs = asked[:, None] & (j < seen)[None, :]
        distance = j[None, :] - i[:, None]
        if BIASED:
            scores += tl.load(bias + head * (2 * reach + 1) + reach + distance, mask=pairs, other=0.0)
        if CAPPED:
            scores = cap * (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0)
        if CAUSAL:
            pairs = pairs & (distance <= 0)
        if WINDOW:
            pairs = pairs & (distance <= radius) & (-distance <= radius)
        scores = tl.where(pairs, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2((scores - higher[:, None]) * 1.4426950408889634)
        kept = tl.exp2((highest - higher) * 1.4426950408889634)
        total = total * kept + tl.sum(shares, 1)
        v = _tile(value, begin + j, value_token, head // GROUP, j < seen, SIZE, PADDED)
        mixed = mixed * kept[:, None] + tl.dot(shares.to(v.dtype), v, input_precision="ieee")
        highest = higher
    mixed = mixed / tl.maximum(total, 1.0e-37)[:, None]  # who sees nothing gets zeros
    column = tl.arange(0, PADDED)
    place = ((begin + i).to(tl.int64)[:, None] * HEADS + head) * SIZE + column[None, :]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=asked[:, None] & (column < SIZE)[None, :])


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    visible: Tensor,
    blocks: Tensor,
    bias: Tensor | None,
    attention: AttentionSpec,
    queries: int,
) -> Tensor:
    """As torch_attention.flash and, for the bias, torch_attention.grouped.

    offsets: int32 [rows + 1].  visible: int32 [rows].  blocks: torch_disentangled.query_blocks in blocks of `queries`.
    """
    tokens, heads, size = query.shape
    padded = max(16, triton.next_power_of_2(size))
    out = torch.empty((tokens, heads, size), dtype=query.dtype, device=query.device)
    query, key, value = (x if x.stride()[1:] == (size, 1) else x.contiguous() for x in (query, key, value))
    _attend[(len(blocks), heads)](
        query,
        key,
        value,
        query if bias is None else bias,
        offsets,
        visible,
        blocks,
        out,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        0 if bias is None else bias.shape[1] // 2,
        attention.scale,
        attention.softcap or 1.0,
        attention.radius or 0,
        HEADS=heads,
        GROUP=attention.heads // attention.kv_heads,
        SIZE=size,
        PADDED=padded,
        QUERIES=queries,
        KEYS=64 if padded <= 128 and query.dtype != torch.float32 else 32,
        BIASED=bias is not None,
        CAPPED=attention.softcap is not None,
        CAUSAL=attention.causal,
        WINDOW=attention.radius is not None,
        num_warps=4,
        num_stages=2,
    )
    return out
