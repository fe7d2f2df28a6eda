"""DeBERTa's Triton kernel by itself: right, and how fast in which tiles. Part of gpu.py --smoke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from onepass.engines.torch_disentangled import disentangled_attention, plain, query_blocks, reach
from onepass.model.spec import AttentionSpec, Disentangled

V3 = Disentangled(256, 512, 256, True, True)
TILES = (
    (64, 32, 4, 2),
    (64, 32, 4, 3),
    (64, 64, 4, 2),
    (64, 64, 8, 2),
    (128, 32, 8, 2),
    (32, 32, 4, 2),
    (32, 64, 4, 2),
)


def inputs(lengths: list[int], attention: AttentionSpec, spec: Disentangled, dtype: torch.dtype, device: str) -> Any:
    torch.manual_seed(0)
    heads, size = attention.heads, attention.head_size
    offsets = torch.tensor(np.cumsum([0, *lengths], dtype=np.int32), device=device)
    visible = torch.tensor(lengths, dtype=torch.int32, device=device)
    qkv = torch.randn(int(offsets[-1]), 3, heads, size, device=device).to(dtype).unbind(1)
    tables = torch.randn(2, heads, 2 * spec.span, size, device=device).to(dtype).unbind(0)
    within = reach(spec, max(lengths), torch.device(offsets.device))
    return (*qkv, offsets, visible, within, *tables)


def compare(device: str) -> dict[str, str]:
    """By dtype the largest deviation from the plain loop, which computes in float32 from the same numbers."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        try:
            given = inputs(
                [1, 2, 3, 17, 64, 130, 500], attention := AttentionSpec(4, 64, 1 / 192**0.5, 4), V3, dtype, device
            )
            difference = disentangled_attention(*given, attention).float() - plain(*given, attention).float()
            found[str(dtype)] = f"{difference.abs().max().item():.2e}"
        except Exception as error:
            found[str(dtype)] = f"{type(error).__name__}: {error}"[:300]
    return found


def timings(lengths: list[int]) -> Iterator[dict[str, Any]]:
    """Microseconds of one layer: products with all positions as others make them, with those in reach, and all of it by
    (queries, keys, warps, stages)."""
    from onepass.engines import torch_disentangled_kernel as kernel

    attention = AttentionSpec(12, 64, 1 / 192**0.5, 12)
    given = inputs(lengths, attention, V3, torch.bfloat16, "cuda")
    query, _, _, offsets, _, within, position_key, _ = given

    def products() -> torch.Tensor:
        return torch.matmul(query.transpose(0, 1), position_key.transpose(1, 2))

    yield {"products of queries with all positions": microseconds(products)}
    blocks = query_blocks(offsets, len(query), 64)
    for columns in (64, 128):
        kernel.COLUMNS = columns

        def in_reach() -> torch.Tensor:
            return kernel.by_distance(query, position_key, offsets, within, blocks, 64, sign=1)

        yield {"products of queries with those in reach": microseconds(in_reach), "columns": columns}
    kernel.COLUMNS = 64
    usual, block = dict(kernel.TILES), kernel.query_block
    for queries, keys, warps, stages in TILES:
        kernel.TILES.update(KEYS=keys, num_warps=warps, num_stages=stages)
        kernel.query_block = lambda size, dtype, queries=queries: queries
        blocks = query_blocks(offsets, len(query), queries)
        row: dict[str, Any] = {"queries": queries, "keys": keys, "warps": warps, "stages": stages}

        def whole(blocks: torch.Tensor = blocks) -> torch.Tensor:
            return kernel.run(*given, attention, blocks)

        try:
            row["microseconds"] = microseconds(whole)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:200]
        yield row
    kernel.TILES.update(usual)
    kernel.query_block = block


def microseconds(call: Callable[[], Any], times: int = 20) -> float:
    seconds = []
    for _ in range(times + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e3)
    return round(float(np.median(seconds[3:])), 1)
