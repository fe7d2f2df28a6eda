"""Which rows run next: a pure data structure, with time as an argument.

Row k of a request arrives, virtually, at t + (tokens of its earlier rows) / rate, where t is when the request came and
the rate a share of what the engine was measured to do. So a request of ten thousand texts lies spread over some time.
Rows run in the order in which the requests they belong to end there, and of very long ones the next part: a single
query goes before all of a larger request, and requests that came together are answered one after the other, the last
when it would be if they took turns. Where the queue has fallen behind, a new request arrives beside the row that would
be next, up to HEAD_START before its time, so nothing waits longer for that than HEAD_START. With nothing else to do,
rows run before they "arrive".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from onepass.schedule.row import Row

HEAD_START = 5.0  # seconds
SHARE = 0.25  # of the measured tokens per second: what one request's virtual arrivals are spread by
PART = 1.0  # seconds of the engine's work: longer requests have their place in the queue part by part


@dataclass(slots=True)
class Flow:
    """One request's place in the queue. arrival: of its next row.  queued: tokens.

    due: when the last row of the current part arrives.  left: tokens of that part that are still to come.
    first: number of the request's first row.
    """

    arrival: float = -math.inf
    queued: int = 0
    due: float = -math.inf
    left: int = 0
    first: int = 0


class _Entry(NamedTuple):
    """Ordered as tuples are; no two have the same number. size: tokens."""

    due: float
    first: int
    number: int
    arrival: float
    size: int
    row: Row
    flow: Flow


class Scheduler:
    def __init__(self) -> None:
        self._queues: dict[str, list[_Entry]] = {}
        self._number = 0
        self.tokens = 0
        self.rows = 0

    def add(self, flow: Flow, rows: Sequence[Row], now: float, tokens_per_second: float, following: float = 0) -> None:
        """Rows of one request, in order. following: tokens of the same request that will come later, as expected."""
        earliest, rate = self._earliest(now), SHARE * tokens_per_second
        sizes = list(map(len, rows))
        total = sum(sizes)
        behind = total + following
        for row, size in zip(rows, sizes, strict=True):
            arrival = max(flow.arrival, earliest)
            self._number += 1
            flow.first = flow.first or self._number
            if flow.left <= 0:
                flow.left = math.ceil(min(behind, PART * tokens_per_second))
                flow.due = arrival + flow.left / rate
            entry = _Entry(flow.due, flow.first, self._number, arrival, size, row, flow)
            heappush(self._queues.setdefault(row.model, []), entry)
            flow.arrival = arrival + size / rate
            flow.left -= size
            behind -= size
        flow.queued += total
        self.tokens += total
        self.rows += len(rows)

    def _earliest(self, now: float) -> float:
        """When a row that comes now arrives at the earliest: now, or beside the next row of a queue that is late."""
        first = min((queue[0].arrival for queue in self._queues.values()), default=now)
        return min(now, max(first, now - HEAD_START))

    def leave(self, flow: Flow) -> int:
        """Forget the rows of a flow that are still queued. Returns their tokens."""
        forgotten = flow.queued
        for model, queue in list(self._queues.items()):
            kept = [entry for entry in queue if entry.flow is not flow]
            if len(kept) != len(queue):
                self.rows -= len(queue) - len(kept)
                self._replace(model, kept)
        self.tokens -= forgotten
        flow.queued = 0
        return forgotten

    def next(self, budget: int, now: float, window: int = 4) -> list[Row]:
        """A micro-batch of one model: the row that arrived first, then some of the next few.

        Rows that have arrived come in that order, then others of close length. The latter only with a row that has not
        arrived either, or that is of their request: a query does not wait for bulk rows that fill up its micro-batch.
        At most `budget` tokens, unless the first row alone is longer. Empty if nothing is queued.  window: how many
        budgets' worth of the earliest rows are looked through.
        """
        if not self._queues:
            return []
        model, queue = min(self._queues.items(), key=lambda item: item[1][0])
        head = heappop(queue)
        early: list[_Entry] = []
        seen = 0
        while queue and seen < window * budget:
            early.append(heappop(queue))
            seen += early[-1].size
        early.sort(key=lambda entry: (entry.arrival > now and abs(entry.size - head.size), entry))
        taken, room = [head], budget - head.size
        for entry in early:
            fits = entry.size <= room
            if fits and (head.arrival > now or entry.arrival <= now or entry.flow is head.flow):
                taken.append(entry)
                room -= entry.size
            else:
                heappush(queue, entry)
        if not queue:
            del self._queues[model]
        for entry in taken:
            entry.flow.queued -= entry.size
            self.tokens -= entry.size
        self.rows -= len(taken)
        return [entry.row for entry in taken]

    def _replace(self, model: str, entries: list[_Entry]) -> None:
        if entries:
            entries.sort()  # a sorted list is a heap
            self._queues[model] = entries
        else:
            del self._queues[model]
