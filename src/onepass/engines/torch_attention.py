"""Attention over packed rows in torch: which of four ways a layer goes, and the two of them that torch has itself.

Flash attention for rows of any length (`torch.nn.attention.varlen`) on CUDA, where it can say what the layer asks; for
other layers there a Triton kernel (torch_packed.py; torch_disentangled.py for DeBERTa); on CPU and MPS the rows grouped
by length, each group one exact scaled_dot_product_attention. Nothing is padded in any of them.
"""

from __future__ import annotations

import importlib.util
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onepass.engines.torch_batch import Group, Rows
from onepass.model.spec import AttentionSpec

SCORES = 1 << 24
"""Most scores of a group's block of queries at once, 64 MiB of float32."""


def flash_can(attention: AttentionSpec, device: torch.device, dtype: torch.dtype, biased: bool) -> bool:
    """Whether flash attention inside torch runs this layer: on CUDA from compute capability 8.0, in half precision."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and attention.head_size % 8 == 0
        and attention.head_size <= 256
        and attention.softcap is None
        and not biased
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


@cache
def kernels_can(device: torch.device) -> bool:
    """Whether Triton's kernels run here."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0)


def flash(query: Tensor, key: Tensor, value: Tensor, rows: Rows, attention: AttentionSpec) -> Tensor:
    """query: [tokens, heads, head_size], key, value: [tokens, kv_heads, head_size] -> as query.

    For rows that are seen whole, or else for layers in which each token sees all that is seen.
    """
    reach = -1 if attention.radius is None else attention.radius
    window = (reach, 0 if attention.causal else reach)
    offsets = rows.offsets
    if not rows.all_visible:
        seen, offsets = seen_tokens(rows)
        key, value = key[seen], value[seen]
    more: dict[str, Any] = {"enable_gqa": True} if attention.kv_heads != attention.heads and _names_groups() else {}
    out: Tensor = _varlen()(
        query,
        key,
        value,
        rows.offsets,
        offsets,
        rows.longest,
        rows.longest,
        scale=attention.scale,
        window_size=window,
        **more,
    )
    return out


def seen_tokens(rows: Rows) -> tuple[Tensor, Tensor]:
    """(int64 [m], the tokens that are seen as keys; int32 [rows + 1], which of them are which row's)."""

    def make() -> tuple[Tensor, Tensor]:
        seen = rows.places < torch.repeat_interleave(rows.visible, rows.offsets.diff())
        return seen.nonzero()[:, 0], functional.pad(rows.visible.cumsum(0, dtype=torch.int32), (1, 0))

    return rows.once("seen", make)


@cache
def _varlen() -> Any:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


@cache
def _names_groups() -> bool:
    """Later versions of torch want it said that several query heads read one key head; earlier ones just do it."""
    return "enable_gqa" in inspect.signature(_varlen()).parameters


def grouped(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, attention: AttentionSpec, bias: Tensor | None
) -> Tensor:
    """As `flash`, for anything, in float32: rows of one length at a time.

    bias: float32 [heads, 2 reach + 1], added to the scores by j - i = -reach .. reach.
    """
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    for group in rows.groups:
        _attend(group, query, key, value, attention, bias, out)
    return out


def _attend(
    group: Group,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention: AttentionSpec,
    bias: Tensor | None,
    out: Tensor,
) -> None:
    """Block by block of the queries of one group, so that what is held does not grow with the square of a length."""
    rows, length = group.tokens.shape
    block = max(1, SCORES // (rows * attention.heads * length))
    for first in range(0, length, block):
        last = min(first + block, length) - 1
        begin = 0 if attention.radius is None else max(0, first - attention.radius)
        end = group.visible
        if attention.causal:
            end = min(end, last + 1)
        elif attention.radius is not None:
            end = min(end, last + 1 + attention.radius)
        mine = group.tokens[:, first : last + 1]
        if begin >= end:
            out[mine] = 0
            continue
        keys = group.tokens[:, begin:end]
        distances = torch.arange(begin, end, device=query.device) - torch.arange(
            first, last + 1, device=query.device
        ).unsqueeze(1)
        q, k, v = (x[tokens].transpose(1, 2).float() for x, tokens in ((query, mine), (key, keys), (value, keys)))
        mixed = _mixed(q, k, v, attention, _mask(distances, attention, bias))
        out[mine] = mixed.transpose(1, 2).to(out.dtype)


def _mask(distances: Tensor, attention: AttentionSpec, bias: Tensor | None) -> Tensor | None:
    """Of distances j - i: whether it is seen, bool [q, k]; or float32 [heads, q, k], what is added to scores."""
    seen = None
    if attention.causal:
        seen = distances <= 0
    if attention.radius is not None:
        near = distances.abs() <= attention.radius
        seen = near if seen is None else seen & near
    if bias is None:
        return seen
    added = bias[:, distances + bias.shape[1] // 2]
    return added if seen is None else added.masked_fill(~seen, float("-inf"))


def _mixed(query: Tensor, key: Tensor, value: Tensor, attention: AttentionSpec, mask: Tensor | None) -> Tensor:
    """query: float32 [rows, heads, q, head_size], key, value: [rows, kv_heads, k, head_size] -> as query."""
    if attention.kv_heads != attention.heads:
        group = attention.heads // attention.kv_heads
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    if attention.softcap is None:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scale)
    scores = attention.scale * (query @ key.transpose(2, 3))
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    scores = attention.softcap * torch.tanh(scores / attention.softcap)
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask.isneginf()
        scores = scores.masked_fill(hidden, float("-inf"))
    # who sees nothing gets zeros
    shares = torch.softmax(scores - scores.amax(dim=-1, keepdim=True).clamp_min(-1e38), dim=-1)
    return torch.where(scores.isneginf(), 0, shares) @ value
