"""DeBERTa's attention over packed rows in torch: two Triton kernels on CUDA, a plain loop over rows elsewhere.

Scores by position need q_i . PK[p] for the relative indices p of i - j, and k_j . PQ[p]. Padded implementations make
them as one matrix product of all tokens with all 2 span positions: 512 numbers for each token and head, five times what
a row of 90 tokens reads, and writing and reading them takes about as long as all linear layers of the block. So a first
kernel multiplies each block of tokens only with the positions within its own row's reach, and writes them in the order
in which the second reads them: for a query the keys of a tile are neighbours, and no table of places lies between.
Nothing of the size of rows x longest x longest is made: a token has at most as many numbers as there are distances that
differ.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onepass.model.positions import relative_indices
from onepass.model.spec import AttentionSpec, Disentangled

STEP = 32
"""Longest rows are rounded up to a multiple, so that there are few tables and few shapes of products."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How rows of up to `longest` tokens read the relative table.

    far: what lies beyond is as this distance.  places: int32 [2 far + 1] on the device, rows of the relative table for
    i - j = -far .. far.
    """

    longest: int
    far: int
    places: Tensor


@functools.lru_cache(maxsize=256)
def reach(spec: Disentangled, longest: int, device: torch.device) -> Reach:
    """For rows of up to `longest` tokens, rounded up; kept. Copies to the device when called with something new."""
    longest = -(-longest // STEP) * STEP
    rows = relative_indices(spec, longest - 1)
    middle, changes = longest - 1, np.flatnonzero(np.diff(rows))
    far = int(max(middle - changes[0], changes[-1] + 1 - middle))
    return Reach(longest, far, torch.from_numpy(rows[middle - far : middle + far + 1].copy()).to(device))


def query_blocks(offsets: Tensor, tokens: int, size: int) -> Tensor:
    """Rows cut into blocks of `size` queries: int32 [tokens // size + rows, 2], the row and its block's first token.

    offsets: int32 [rows + 1]. There are as many as there can be; those beyond the last have the first token 2^30.
    Made on the device, from sizes the host knows, so that a CUDA graph can hold it.
    """
    rows = len(offsets) - 1
    counts = (offsets.diff() + (size - 1)) // size
    ends = counts.cumsum(0)
    numbers = torch.arange(tokens // size + rows, device=offsets.device)
    row = torch.searchsorted(ends, numbers, right=True).clamp_(max=rows - 1)
    first = offsets[row] + (numbers - (ends - counts)[row]) * size
    return torch.stack([row, first.masked_fill_(numbers >= ends[-1], 1 << 30)], dim=1).int()


def disentangled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    visible: Tensor,
    reach: Reach,
    position_key: Tensor | None,
    position_query: Tensor | None,
    attention: AttentionSpec,
    blocks: Tensor | None = None,
) -> Tensor:
    """[tokens, heads, head_size], in the dtype of `query`; scores, softmax and sums are float32.

    query: [tokens, heads, head_size], and key, value: [tokens, kv_heads, head_size], of one dtype; views are fine if
    their last dimension is contiguous.
    offsets: int32 [rows + 1].  visible: int32 [rows], leading tokens of a row that are keys. Both on query's device.
    reach: `reach(spec.relative, longest, device)`, where no row has more than `longest` tokens.
    position_key, position_query: [heads, 2 span, head_size], in query's dtype: the relative table after its norm, in
    float32, through the layer's position_key and position_query, biases included; None: no such scores.
    attention: scale, causal, radius and softcap are applied; rope and qk_norm are the caller's.
    blocks: `query_blocks(offsets, tokens, query_block(head_size, dtype))`, the same for all layers of a batch; made
    here if None. The plain loop does not read it.
    """
    if attention.kv_heads != attention.heads:
        group = attention.heads // attention.kv_heads
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    if not query.is_cuda:
        return plain(query, key, value, offsets, visible, reach, position_key, position_query, attention)
    from onepass.engines.torch_disentangled_kernel import run

    if blocks is None:
        blocks = query_blocks(offsets, len(query), query_block(attention.head_size, query.dtype))
    return run(query, key, value, offsets, visible, reach, position_key, position_query, attention, blocks)


def query_block(head_size: int, dtype: torch.dtype) -> int:
    """Tokens of one program of the kernels: what its registers hold."""
    return 64 if head_size <= 128 and dtype != torch.float32 else 32


def plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    visible: Tensor,
    reach: Reach,
    position_key: Tensor | None,
    position_query: Tensor | None,
    attention: AttentionSpec,
) -> Tensor:
    """`disentangled_attention` row by row, as the reference engine does, in float32; kv_heads are heads."""
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    bounds = offsets.tolist()
    for begin, end, keys in zip(bounds[:-1], bounds[1:], visible.tolist(), strict=True):
        q, k, v = (x[begin:end].transpose(0, 1).float() for x in (query, key, value))
        distances = torch.arange(end - begin, device=query.device)
        distances = distances[:, None] - distances
        places = reach.places[distances.clamp(-reach.far, reach.far) + reach.far].long().expand(len(q), -1, -1)
        scores = q @ k.transpose(1, 2)
        if position_key is not None:
            by_query = q @ position_key.float().transpose(1, 2)
            scores = scores + by_query.gather(2, places)
        if position_query is not None:
            by_key = k @ position_query.float().transpose(1, 2)
            scores = scores + by_key.gather(2, places.transpose(1, 2)).transpose(1, 2)
        scores = scores * attention.scale
        if attention.softcap is not None:
            scores = attention.softcap * torch.tanh(scores / attention.softcap)
        hidden = (torch.arange(end - begin, device=query.device) >= keys).expand_as(distances)
        if attention.causal:
            hidden = hidden | (distances < 0)
        if attention.radius is not None:
            hidden = hidden | (distances.abs() > attention.radius)
        shares = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1)
        shares = shares.masked_fill(hidden.all(dim=-1, keepdim=True), 0.0)  # who sees nothing gets zeros
        out[begin:end] = (shares @ v).transpose(0, 1).to(query.dtype)
    return out
