"""Which rows run next: a pure data structure, with time as an argument.

Turns are ordered by virtual arrival: that of row k of a request at t + (tokens of its earlier rows) / rate, where t is
when the request came. A request of ten thousand texts therefore lies spread over the time its work takes, and a single
query that comes later goes before all of it that has not arrived yet. The rate promised to one request is a share of
what the engine was measured to do, so a few bulk requests at once do not hold a query up. Where the queue has fallen
behind all the same, a new request arrives before its time: where the clock is, which goes on as each request does while
all take turns (fair queueing: Demers, Keshav and Shenker, 1989), but by no more than HEAD_START, so nothing waits for
that any longer. With nothing else to do, rows run before they "arrive".

The turn of a short request is for its own row. Long ones trade theirs (`Line`) and are answered one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, nlargest
from typing import NamedTuple

from onepass.schedule.line import Line, Place
from onepass.schedule.row import Row

HEAD_START = 5.0  # seconds
SHARE = 0.25  # of the measured tokens per second: what one request's virtual arrivals are spread by


SHORT = 512  # tokens of a request, such as a query, that keeps its turns
PART = 1.0  # seconds of the engine's work: requests that are longer have their place in the line part by part


@dataclass(slots=True)
class Flow:
    """One request. arrival: of its next turn.  turns: that are queued.  queue: of its model.  place: in its line."""

    arrival: float = -math.inf
    turns: int = 0
    queue: _Queue | None = None
    place: Place | None = None


class _Turn(NamedTuple):
    """Ordered as tuples are; no two have the same number. size: tokens.  seconds: that these take, as promised.

    row: None where turns are traded.
    """

    arrival: float
    number: int
    size: int
    seconds: float
    flow: Flow
    row: Row | None


class _Queue:
    """Of one model. turns: a heap.  line: as many rows of long requests as there are turns without one."""

    def __init__(self) -> None:
        self.turns: list[_Turn] = []
        self.line = Line()


class Scheduler:
    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._number = 0
        self._clock = -math.inf
        self._flows = 0  # that have turns queued
        self.tokens = 0
        self.rows = 0

    def add(self, flow: Flow, rows: Sequence[Row], now: float, tokens_per_second: float, following: float = 0) -> None:
        """Rows of one request, in order. following: tokens of the same request that will come later, as expected."""
        total = sum(map(len, rows))
        rate = SHARE * tokens_per_second
        if flow.queue is None and total + following > SHORT:
            flow.place = Place()
        self._clock = min(max(self._clock, now - HEAD_START), now) if self.rows else now
        self._flows += not flow.turns
        flow.turns += len(rows)
        flow.queue = queue = self._queues.setdefault(rows[0].model, _Queue())
        for row in rows:
            self._number += 1
            arrival, size = max(flow.arrival, self._clock), len(row)
            turn = _Turn(arrival, self._number, size, size / rate, flow, None if flow.place else row)
            heappush(queue.turns, turn)
            flow.arrival = arrival + turn.seconds
        if flow.place is not None:
            queue.line.add(flow.place, rows, following, PART * tokens_per_second)
        self.tokens += total
        self.rows += len(rows)

    def leave(self, flow: Flow) -> int:
        """Forget the rows of a flow that are still queued. Returns their tokens."""
        if (queue := flow.queue) is None:
            return 0
        if flow.place is None:
            gone = {turn.number: turn for turn in queue.turns if turn.flow is flow}
            forgotten = sum(turn.size for turn in gone.values())
        else:  # others may have had its turns, and it theirs
            rows = queue.line.leave(flow.place)
            traded = [turn for turn in queue.turns if turn.row is None]
            gone = {turn.number: turn for turn in nlargest(len(rows), traded, lambda turn: (turn.flow is flow, turn))}
            forgotten = sum(map(len, rows))
        queue.turns = [turn for turn in queue.turns if turn.number not in gone]
        heapify(queue.turns)
        for turn in gone.values():
            self._over(turn)
        self.rows -= len(gone)
        self.tokens -= forgotten
        return forgotten

    def next(self, budget: int, now: float, window: int = 4) -> list[Row]:
        """A micro-batch of one model: the row whose turn came first, then some of the next few.

        Turns that have not arrived count only with a first one that has not either, or of the same request, or if both
        are of long ones: a query does not wait for bulk rows that fill up its micro-batch. At most `budget` tokens,
        unless the first row alone is longer. Empty if nothing is queued.  window: how many budgets' worth of the
        earliest turns are looked through.
        """
        if not self.rows:
            return []
        queue = min((queue for queue in self._queues.values() if queue.turns), key=lambda queue: queue.turns[0])
        head = queue.turns[0]
        passed: list[_Turn] = []
        taken: list[Row] = []
        room, seen, line_fits = float(budget), 0, True
        while queue.turns and seen < window * budget and room > 0:
            turn = heappop(queue.turns)
            traded = turn.row is None
            together = turn.flow is head.flow or (traded and head.row is None)
            row = None
            if (line_fits or not traded) and (together or head.arrival > now or turn.arrival <= now):
                row = self._row(queue, turn, room if taken else math.inf)
            if row is None:
                line_fits = line_fits and not traded
                passed.append(turn)
                seen += turn.size
            else:
                taken.append(row)
                seen += len(row)
                room -= len(row)
                self._clock += turn.seconds / self._flows
                self._over(turn)
        for turn in passed:
            heappush(queue.turns, turn)
        self.tokens -= sum(map(len, taken))
        self.rows -= len(taken)
        return taken

    def _over(self, turn: _Turn) -> None:
        turn.flow.turns -= 1
        self._flows -= not turn.flow.turns

    def _row(self, queue: _Queue, turn: _Turn, room: float) -> Row | None:
        """Whose turn it is, if it is not longer than `room`."""
        if turn.row is None:
            return queue.line.take(room)
        return turn.row if turn.size <= room else None
