"""CUDA graphs of the trunk: the host hands a batch over at once instead of kernel by kernel.

To launch kernels takes the host some 5 ms a batch, and it needs the interpreter for them, which tokenising threads want
at the same time. A graph belongs to a bucket of sizes. A batch is filled up to it with tokens of no row and rows of no
tokens, which attention never reads; their states are not read either. All graphs share one pool of memory and places
for states, because they run one after another on the engine's stream.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from onepass.engines.batch import PackedBatch
from onepass.engines.torch_batch import Bucket, Rows

log = logging.getLogger("onepass.torch")

MOST_TOKENS = 32_768  # of the largest micro-batch
SMALL_TOKENS = 4096  # up to here rows that are not there cost attention next to nothing
MOST_GRAPHS = 64
SEEN = 2  # a bucket that was met so often gets a graph, if there are fewer or one of those there was met less often
HALVED_AFTER = 1024  # batches, after which what was met before counts half


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
        self._width, self._device = width, device
        self._places: dict[int, Tensor] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._aside = torch.cuda.Stream(device)  # others enqueue on the engine's stream while this one captures
        self._met = Met()
        self._captured: dict[Bucket, _Captured] = {}
        self._broken = False

    def __len__(self) -> int:
        return len(self._captured)

    def bucket(self, batch: PackedBatch) -> Bucket | None:
        """The bucket of a batch, or None for one that is not to be run as a graph."""
        if self._broken or batch.tokens > MOST_TOKENS:
            return None
        lengths = batch.lengths
        if (batch.visible != lengths).any():
            return None
        found = bucket_of(batch.tokens, batch.rows, int(lengths.max()))
        self._met.count(found)
        if found in self._captured or self._met.deserves(found, list(self._captured), MOST_GRAPHS):
            return found
        return None

    def states(self, bucket: Bucket, staged: Tensor, rows: Callable[[Tensor], Rows]) -> tuple[Tensor, Tensor]:
        """(float32 [bucket.tokens, width], the bucket's offsets), to be read before the next graph runs.

        staged: the inputs on the host, int32.  rows: what makes rows of inputs.
        """
        if (captured := self._captured.get(bucket)) is None:
            inputs = staged.to(self._device, non_blocking=True)
            captured = self._capture(bucket, inputs, rows)
            if captured is None:
                made = rows(inputs)
                return self._run(made), made.offsets
        captured.inputs.copy_(staged, non_blocking=True)
        captured.graph.replay()
        return self._place(bucket), captured.rows.offsets

    def clear(self) -> None:
        """Give the memory of all graphs back; those still wanted are captured again."""
        with self.lock:
            torch.cuda.synchronize(self._device)
            self._captured.clear()
            self._places.clear()
            self._pool = torch.cuda.graph_pool_handle()

    def _place(self, bucket: Bucket) -> Tensor:
        """Where a graph leaves its states: one array for all buckets of up to so many tokens, a power of two."""
        size = max(SMALL_TOKENS, 1 << (bucket.tokens - 1).bit_length())
        if size not in self._places:
            self._places[size] = torch.empty((size, self._width), dtype=torch.float32, device=self._device)
        return self._places[size][: bucket.tokens]

    def _capture(self, bucket: Bucket, inputs: Tensor, rows: Callable[[Tensor], Rows]) -> _Captured | None:
        if len(self._captured) >= MOST_GRAPHS:
            torch.cuda.current_stream().synchronize()
            del self._captured[self._met.least(self._captured)]
        graph = torch.cuda.CUDAGraph()
        try:
            states = self._place(bucket)
            self._run(rows(inputs))  # compiles kernels and sends tables, which a capture cannot
            held = rows(inputs)
            with torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"):
                states.copy_(self._run(held))
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            log.warning("CUDA graphs are off, kernels are launched one by one: %s", error)
            self._broken = True
            return None
        self._captured[bucket] = captured = _Captured(graph, inputs, held)
        return captured


class Met:
    """How often each bucket was met, lately more than before."""

    def __init__(self) -> None:
        self._times: Counter[Bucket] = Counter()
        self._batches = 0

    def count(self, bucket: Bucket) -> None:
        self._times[bucket] += 1
        self._batches += 1
        if self._batches % HALVED_AFTER == 0:
            self._times = Counter({one: times // 2 for one, times in self._times.items() if times > 1})

    def deserves(self, bucket: Bucket, held: Collection[Bucket], most: int) -> bool:
        """Whether to capture it: where there is no more room only for one that is met more often than another.

        Else ever new sizes would have the host capture all the time, which takes longer than to launch.
        """
        times = self._times[bucket]
        return times >= SEEN and (len(held) < most or times > self._times[self.least(held)])

    def least(self, held: Collection[Bucket]) -> Bucket:
        return min(held, key=lambda bucket: self._times[bucket])


def bucket_of(tokens: int, rows: int, longest: int) -> Bucket:
    """Tokens up by an eighth at most; rows and the longest by four at most in small batches, by two in large ones.

    What is not there costs attention a block of threads that ends at once.
    """
    power = 4 if tokens <= SMALL_TOKENS else 2
    return Bucket(in_eighths(tokens), in_powers(rows, power, 1), in_powers(longest, power, 32))


def in_eighths(n: int) -> int:
    """n rounded up to an eighth of its power of two, to 8 at least: at most an eighth more."""
    step = max(8, (1 << (n - 1).bit_length()) // 16)
    return -(-n // step) * step


def in_powers(n: int, power: int, least: int) -> int:
    """n rounded up to `least` times a power of `power`."""
    while least < n:
        least *= power
    return least
