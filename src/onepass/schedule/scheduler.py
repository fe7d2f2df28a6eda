"""Which rows run next: a pure data structure, with time as an argument.

Rows are ordered by virtual arrival: row k of a request arrives at t + (tokens of its earlier rows) / rate, where t is
when the request came. A request of ten thousand texts therefore lies spread over the time its work takes, and a single
query that comes later goes before all of it that has not arrived yet. The rate promised to one request is a share of
what the engine was measured to do, so a few bulk requests at once do not hold a query up. Where the queue has fallen
behind all the same, a new request arrives beside the oldest row, up to HEAD_START before its time: nothing waits longer
for that than HEAD_START. With nothing else to do, rows run before they "arrive".
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


@dataclass(slots=True)
class Flow:
    """One request's place in the queue. arrival: of its next row.  queued: tokens."""

    arrival: float = -math.inf
    queued: int = 0


class _Entry(NamedTuple):
    """Ordered as tuples are; no two have the same number. size: tokens."""

    arrival: float
    number: int
    size: int
    row: Row
    flow: Flow


class Scheduler:
    def __init__(self) -> None:
        self._queues: dict[str, list[_Entry]] = {}
        self._number = 0
        self.tokens = 0
        self.rows = 0

    def add(self, flow: Flow, rows: Sequence[Row], now: float, tokens_per_second: float) -> None:
        """Rows of one request, in order; more of the same request may follow."""
        earliest = self._earliest(now)
        for row in rows:
            arrival = max(flow.arrival, earliest)
            self._number += 1
            size = len(row)
            heappush(self._queues.setdefault(row.model, []), _Entry(arrival, self._number, size, row, flow))
            flow.arrival = arrival + size / (SHARE * tokens_per_second)
            flow.queued += size
            self.tokens += size
            self.rows += 1

    def _earliest(self, now: float) -> float:
        """When a row that comes now arrives at the earliest: now, or beside the oldest row of a queue that is late."""
        oldest = min((queue[0].arrival for queue in self._queues.values()), default=now)
        return min(now, max(oldest, now - HEAD_START))

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
