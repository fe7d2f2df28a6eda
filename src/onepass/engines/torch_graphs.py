"""CUDA graphs of the trunk for small batches, which the host would launch more slowly than the GPU runs them.

A graph belongs to a bucket of sizes. A batch is filled up to it with tokens of no row and rows of no tokens, which
attention never reads; their states are not read either. All graphs share one pool of memory and one place for states,
because they run one after another on the engine's stream.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onepass.engines.batch import PackedBatch
from onepass.engines.torch_batch import Bucket, Rows

log = logging.getLogger("onepass.torch")

MOST_TOKENS = 4096  # beyond, the GPU takes longer than the host
MOST_GRAPHS = 64
SEEN = 2  # a bucket that was met so often gets a graph


@dataclass(frozen=True, slots=True)
class _Captured:
    """inputs: int32, as `Layout` lays them out.  rows: made of them, with the tables that the graph reads, too."""

    graph: torch.cuda.CUDAGraph
    inputs: Tensor
    rows: Rows


class Graphs:
    """run: the trunk.  Whoever runs a graph holds `lock` until all that reads its states is enqueued, too."""

    def __init__(self, run: Callable[[Rows], Tensor], width: int, device: torch.device) -> None:
        self.lock = threading.Lock()
        self._run = run
        self._states = torch.empty((MOST_TOKENS, width), dtype=torch.float32, device=device)
        self._pool = torch.cuda.graph_pool_handle()
        self._aside = torch.cuda.Stream(device)  # others enqueue on the engine's stream while this one captures
        self._met: Counter[Bucket] = Counter()
        self._captured: OrderedDict[Bucket, _Captured] = OrderedDict()
        self._broken = False

    def __len__(self) -> int:
        return len(self._captured)

    def bucket(self, batch: PackedBatch) -> Bucket | None:
        """The bucket of a batch, or None for one that is not to be run as a graph."""
        if self._broken or batch.tokens > MOST_TOKENS:
            return None
        lengths = batch.offsets[1:] - batch.offsets[:-1]
        if (batch.visible != lengths).any():
            return None
        found = Bucket(in_eighths(batch.tokens), in_fours(batch.rows, 1), in_fours(int(lengths.max()), 32))
        if found not in self._captured:
            self._met[found] += 1
            if self._met[found] < SEEN:
                return None
        return found

    def states(self, bucket: Bucket, sent: Tensor, rows: Callable[[Tensor], Rows]) -> Tensor:
        """float32 [bucket.tokens, width], to be read before the next graph runs.

        sent: the inputs, int32.  rows: what makes rows of inputs.
        """
        if bucket not in self._captured and not self._capture(bucket, sent, rows):
            return self._run(rows(sent))
        captured = self._captured[bucket]
        self._captured.move_to_end(bucket)
        captured.inputs.copy_(sent)
        captured.graph.replay()
        return self._states[: bucket.tokens]

    def _capture(self, bucket: Bucket, sent: Tensor, rows: Callable[[Tensor], Rows]) -> bool:
        while len(self._captured) >= MOST_GRAPHS:
            torch.cuda.current_stream().synchronize()
            self._captured.popitem(last=False)
        inputs = sent.clone()
        self._run(rows(inputs))  # compiles kernels and sends tables, which a capture cannot
        graph, held = torch.cuda.CUDAGraph(), rows(inputs)
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"):
                self._states[: bucket.tokens].copy_(self._run(held))
        except torch.OutOfMemoryError:
            return False
        except RuntimeError as error:
            log.warning("CUDA graphs are off, kernels are launched one by one: %s", error)
            self._broken = True
            return False
        self._captured[bucket] = _Captured(graph, inputs, held)
        return True


def in_eighths(n: int) -> int:
    """n rounded up to an eighth of its power of two, to 8 at least: at most an eighth more."""
    step = max(8, (1 << (n - 1).bit_length()) // 16)
    return -(-n // step) * step


def in_fours(n: int, least: int) -> int:
    """n rounded up to `least` times a power of four: what is not there costs attention next to nothing."""
    while least < n:
        least *= 4
    return least
