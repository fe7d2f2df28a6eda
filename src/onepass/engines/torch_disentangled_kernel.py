"""The Triton kernels of torch_disentangled.py: one program per block of tokens and head.

What a token gives for positions is kept by e, its own place less the other token's, from the highest e in the token's
block downwards. So a token's numbers for successive others are neighbours.
"""

# ruff: noqa: N803
# mypy: disable-error-code="import-untyped, import-not-found, no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from onepass.engines.torch_disentangled import Reach, query_block
from onepass.model.spec import AttentionSpec

TILES = {"KEYS": 32, "num_warps": 4, "num_stages": 2}
COLUMNS = 64
"""Of positions that are multiplied at a time."""


@triton.jit(do_not_specialize=["offsets", "blocks", "tokens", "far"])
def _multiply(
    x,
    table,
    places,
    offsets,
    blocks,
    out,
    x_token,
    x_head,
    rows,
    tokens,
    columns,
    far,
    SIGN: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    head = tl.program_id(1)
    row = tl.load(blocks + 2 * tl.program_id(0))
    first = tl.load(blocks + 2 * tl.program_id(0) + 1)
    begin = tl.load(offsets + row)
    end = tl.load(offsets + row + 1)

    size = tl.arange(0, PADDED)
    inside = size < SIZE
    block = tl.arange(0, BLOCK)
    there = first + block < end
    a = tl.load(
        x + head * x_head + (first + block).to(tl.int64)[:, None] * x_token + size[None, :],
        mask=there[:, None] & inside[None, :],
        other=0.0,
    )
    highest = tl.minimum(first - begin + BLOCK - 1, far)
    count = highest - tl.maximum(first - (end - 1), -far) + 1
    count = tl.where(first < end, count, 0)
    out_at = out + (head.to(tl.int64) * tokens + first) * columns
    for start in range(0, count, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        needed = column < count
        place = tl.load(places + far + SIGN * (highest - column), mask=needed, other=0)
        b = tl.load(
            table + (head * rows + place)[:, None] * SIZE + size[None, :],
            mask=needed[:, None] & inside[None, :],
            other=0.0,
        )
        products = tl.dot(a, tl.trans(b), input_precision="ieee")
        tl.store(
            out_at + (block[:, None] * columns + column[None, :]),
            products.to(out.dtype.element_ty),
            mask=there[:, None] & (column < columns)[None, :],  # whole vectors; what is not needed is not read
        )


def by_distance(
    x: Tensor, table: Tensor, offsets: Tensor, reach: Reach, blocks: Tensor, size: int, *, sign: int
) -> Tensor:
    """x: [tokens, heads, head_size], table: [heads, 2 span, head_size] -> [heads, tokens, columns] in x's dtype.

    Only what the token's row needs is written. blocks: of `size` tokens.  sign: 1 where x are queries, -1 keys.
    """
    tokens, heads, head_size = x.shape
    columns = -(-min(reach.longest + size, 2 * reach.far + 1) // 16) * 16
    out = torch.empty((heads, tokens, columns), dtype=x.dtype, device=x.device)
    _multiply[(len(blocks), heads)](
        x,
        table.contiguous(),
        reach.places,
        offsets,
        blocks,
        out,
        x.stride(0),
        x.stride(1),
        table.shape[1],
        tokens,
        columns,
        reach.far,
        SIGN=sign,
        SIZE=head_size,
        PADDED=max(16, triton.next_power_of_2(head_size)),
        BLOCK=size,
        COLUMNS=COLUMNS,
        num_warps=4,
        num_stages=2,
    )
    return out


@triton.jit
def _tile(x, tokens, token_stride, at, there, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """[tokens, PADDED] of one head, which begins at `at`; zeros where no token is or beyond the head's size."""
    column = tl.arange(0, PADDED)
    place = at + tokens.to(tl.int64)[:, None] * token_stride + column[None, :]
    return tl.load(x + place, mask=there[:, None] & (column < SIZE)[None, :], other=0.0)


@triton.jit
def _by_place(x, i, j, pairs, columns, block, far, SIZE: tl.constexpr):
    """[i, j]: what the tokens i of one block, which holds `block`, give for the others j; x: of the row's first."""
    highest = tl.minimum(block // SIZE * SIZE + SIZE - 1, far)
    e = tl.maximum(tl.minimum(i[:, None] - j[None, :], far), -far)
    return tl.load(x + (i[:, None] * columns + highest - e), mask=pairs, other=0.0)


@triton.jit
def _keys(first, seen, radius, QUERIES: tl.constexpr, KEYS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """The first and the end of the keys that a block of queries can see; from the beginning of a tile of keys."""
    lower, upper = 0, seen
    if CAUSAL:
        upper = tl.minimum(upper, first + QUERIES)
    if WINDOW:
        lower = tl.maximum(first - radius, 0) // KEYS * KEYS
        if not CAUSAL:
            upper = tl.minimum(upper, first + QUERIES + radius)
    return lower, upper


# What differs from batch to batch does not make another kernel.
@triton.jit(do_not_specialize=["offsets", "visible", "blocks", "tokens", "far", "radius"])
def _attend(
    query, key, value, by_query, by_key, offsets, visible, blocks, out,
    query_token, query_head, key_token, key_head, value_token, value_head, tokens, columns, far, scale, cap, radius,
    HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    FROM_QUERY: tl.constexpr, FROM_KEY: tl.constexpr, CAPPED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.load(blocks + 2 * tl.program_id(0))
    first = tl.load(blocks + 2 * tl.program_id(0) + 1)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    seen = tl.where(first < end, tl.load(visible + row), 0)  # beyond the last block no key is passed
    i = first - begin + tl.arange(0, QUERIES)
    asked = i < end - begin
    q = _tile(query, begin + i, query_token, head * query_head, asked, SIZE, PADDED)
    row_at = (head.to(tl.int64) * tokens + begin) * columns  # of the row's first token, beyond which int32 is enough
    lower, upper = _keys(first - begin, seen, radius, QUERIES, KEYS, CAUSAL, WINDOW)
    highest = tl.full([QUERIES], -1.0e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, PADDED], tl.float32)
    for start in range(lower, upper, KEYS):
        j = start + tl.arange(0, KEYS)
        shown = j < seen
        k = _tile(key, begin + j, key_token, head * key_head, shown, SIZE, PADDED)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        pairs = asked[:, None] & shown[None, :]
        if FROM_QUERY:
            scores += _by_place(by_query + row_at, i, j, pairs, columns, first - begin, far, QUERIES).to(tl.float32)
        if FROM_KEY:  # loaded by key, where the numbers for successive queries are neighbours, then turned
            turned = shown[:, None] & asked[None, :]
            turned = _by_place(by_key + row_at, j, i, turned, columns, start, far, QUERIES)
            scores += tl.trans(turned).to(tl.float32)
        scores *= scale
        if CAPPED:
            scores = cap * (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0)
        if CAUSAL:
            pairs = pairs & (i[:, None] >= j[None, :])
        if WINDOW:
            pairs = pairs & (i[:, None] - j[None, :] <= radius) & (j[None, :] - i[:, None] <= radius)
        scores = tl.where(pairs, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2((scores - higher[:, None]) * 1.4426950408889634)
        kept = tl.exp2((highest - higher) * 1.4426950408889634)
        total = total * kept + tl.sum(shares, 1)
        v = _tile(value, begin + j, value_token, head * value_head, shown, SIZE, PADDED)
        mixed = mixed * kept[:, None] + tl.dot(shares.to(v.dtype), v, input_precision="ieee")
        highest = higher
    mixed = mixed / tl.maximum(total, 1.0e-37)[:, None]  # who sees nothing gets zeros
    size = tl.arange(0, PADDED)
    place = ((begin + i).to(tl.int64)[:, None] * HEADS + head) * SIZE + size[None, :]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=asked[:, None] & (size < SIZE)[None, :])


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    visible: Tensor,
    reach: Reach,
    position_key: Tensor | None,
    position_query: Tensor | None,
    attention: AttentionSpec,
    blocks: Tensor,
) -> Tensor:
    """Arguments as `disentangled_attention` has them; kv_heads are heads."""
    tokens, heads, size = query.shape
    block = query_block(size, query.dtype)
    by_query = by_key = None
    if position_key is not None:
        by_query = by_distance(query, position_key, offsets, reach, blocks, block, sign=1)
    if position_query is not None:
        by_key = by_distance(key, position_query, offsets, reach, blocks, block, sign=-1)
    columns = [x.shape[2] for x in (by_query, by_key) if x is not None]
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    padded = max(16, triton.next_power_of_2(size))
    _attend[(len(blocks), heads)](
        query,
        key,
        value,
        query if by_query is None else by_query,
        query if by_key is None else by_key,
        offsets,
        visible,
        blocks,
        out,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        tokens,
        max(columns, default=0),
        reach.far,
        attention.scale,
        attention.softcap or 1.0,
        attention.radius or 0,
        HEADS=heads,
        SIZE=size,
        PADDED=padded,
        QUERIES=block,
        FROM_QUERY=by_query is not None,
        FROM_KEY=by_key is not None,
        CAPPED=attention.softcap is not None,
        CAUSAL=attention.causal,
        WINDOW=attention.radius is not None,
        **TILES,
    )
    return out
