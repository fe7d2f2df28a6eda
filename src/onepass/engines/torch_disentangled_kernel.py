"""The Triton kernel of torch_disentangled.py: one program per block of queries and head, softmax while passing keys."""

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
"""Keys of a step beside `query_block` queries: twice as many do not fit the registers."""


# What differs from batch to batch does not make another kernel.
@triton.jit(do_not_specialize=["offsets", "visible", "blocks", "tokens", "columns", "longest", "radius"])
def _attend(
    query,
    key,
    value,
    by_query,
    by_key,
    offsets,
    visible,
    blocks,
    places,
    out,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    tokens,
    columns,
    longest,
    scale,
    cap,
    radius,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    FROM_QUERY: tl.constexpr,
    FROM_KEY: tl.constexpr,
    CAPPED: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
):
    head = tl.program_id(1)
    row = tl.load(blocks + 2 * tl.program_id(0))
    first = tl.load(blocks + 2 * tl.program_id(0) + 1)
    begin = tl.load(offsets + row)
    end = tl.load(offsets + row + 1)
    seen = tl.where(first < end, tl.load(visible + row), 0)  # beyond the last block no key is passed

    size = tl.arange(0, PADDED)
    inside = size < SIZE
    i = first - begin + tl.arange(0, QUERIES)
    asked = i < end - begin
    query_at = (begin + i).to(tl.int64)
    q = tl.load(
        query + head * query_head + query_at[:, None] * query_token + size[None, :],
        mask=asked[:, None] & inside[None, :],
        other=0.0,
    )
    row_at = (head.to(tl.int64) * tokens + begin) * columns  # of the row's first token, beyond which int32 is enough

    lower = 0
    upper = seen
    if CAUSAL:
        upper = tl.minimum(upper, first - begin + QUERIES)
    if WINDOW:
        lower = tl.maximum(first - begin - radius, 0)
        if not CAUSAL:
            upper = tl.minimum(upper, first - begin + QUERIES + radius)
    highest = tl.full([QUERIES], -1.0e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, PADDED], tl.float32)
    for start in range(lower, upper, KEYS):
        j = start + tl.arange(0, KEYS)
        shown = j < seen
        key_at = (begin + j).to(tl.int64)
        k = tl.load(
            key + head * key_head + key_at[:, None] * key_token + size[None, :],
            mask=shown[:, None] & inside[None, :],
            other=0.0,
        )
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        pairs = asked[:, None] & shown[None, :]
        if FROM_QUERY:
            place = tl.load(places + (longest - 1) + (i[:, None] - j[None, :]), mask=pairs, other=0)
            scores += tl.load(by_query + row_at + (i[:, None] * columns + place), mask=pairs, other=0.0).to(tl.float32)
        if FROM_KEY:
            # A key's numbers for successive queries are neighbours: loaded by key, then turned.
            turned = shown[:, None] & asked[None, :]
            place = tl.load(places + (longest - 1) + (i[None, :] - j[:, None]), mask=turned, other=0)
            turned_scores = tl.load(by_key + row_at + (j[:, None] * columns + place), mask=turned, other=0.0)
            scores += tl.trans(turned_scores).to(tl.float32)
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
        v = tl.load(
            value + head * value_head + key_at[:, None] * value_token + size[None, :],
            mask=shown[:, None] & inside[None, :],
            other=0.0,
        )
        mixed = mixed * kept[:, None] + tl.dot(shares.to(v.dtype), v, input_precision="ieee")
        highest = higher

    mixed = mixed / tl.maximum(total, 1.0e-37)[:, None]  # who sees nothing gets zeros
    tl.store(
        out + (query_at[:, None] * HEADS + head) * SIZE + size[None, :],
        mixed.to(out.dtype.element_ty),
        mask=asked[:, None] & inside[None, :],
    )


def run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    visible: Tensor,
    reach: Reach,
    by_query: Tensor | None,
    by_key: Tensor | None,
    attention: AttentionSpec,
    blocks: Tensor,
) -> Tensor:
    """Arguments as `disentangled_attention` has them; by_query, by_key: [heads, tokens, columns of `reach.part`]."""
    tokens, heads, size = query.shape
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
        reach.places,
        out,
        query.stride(0),
        query.stride(1),
        key.stride(0),
        key.stride(1),
        value.stride(0),
        value.stride(1),
        tokens,
        reach.part.stop - reach.part.start,
        reach.longest,
        attention.scale,
        attention.softcap or 1.0,
        attention.radius or 0,
        HEADS=heads,
        SIZE=size,
        PADDED=padded,
        QUERIES=query_block(size, query.dtype),
        FROM_QUERY=by_query is not None,
        FROM_KEY=by_key is not None,
        CAPPED=attention.softcap is not None,
        CAUSAL=attention.causal,
        WINDOW=attention.radius is not None,
        **TILES,
    )
    return out
