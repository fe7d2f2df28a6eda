"""The line of long requests of one model: which of them a turn goes to.

By turns, requests that came together would all be answered at their end. So they trade: every turn goes to the request
that would be done first if all took turns. Then each is answered at least as early as by turns, and most much earlier
(the fair sojourn protocol: Friedman and Henderson, 2003). The clock counts tokens: how many each of the requests that
take turns would have had by now.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from onepass.schedule.row import Row

LOOKED_AT = 16  # rows, for one that fills up a micro-batch


@dataclass(slots=True, order=True)
class Part:
    """Rows of one request that have one place in the line. due: where the clock is when they would be done by turns."""

    due: float
    number: int
    rows: deque[Row] = field(default_factory=deque, compare=False)


@dataclass(slots=True)
class Place:
    """Of one request. parts: with rows in the line, and the last of all.  left: tokens for which that has room."""

    parts: list[Part] = field(default_factory=list)
    left: float = 0.0


class Line:
    def __init__(self) -> None:
        self._parts: list[Part] = []  # a heap of those with rows
        self._taking_turns: list[float] = []  # a heap: when parts would be done
        self._clock = 0.0
        self._number = 0

    def add(self, place: Place, rows: Sequence[Row], following: float, most: float) -> None:
        """Rows of one request, in order. following: tokens that will come later.  most: tokens of a part."""
        behind = following + sum(map(len, rows))
        for row in rows:
            if place.left <= 0:
                place.left = most
                self._open(place, min(behind, most))
            part = place.parts[-1]
            if not part.rows:
                heappush(self._parts, part)
            part.rows.append(row)
            place.left -= len(row)
            behind -= len(row)

    def _open(self, place: Place, size: float) -> None:
        """Another part, which takes turns when the one before is done. size: its tokens, as expected."""
        self._number += 1
        begin = max([self._clock, *[part.due for part in place.parts]])
        place.parts = [*[part for part in place.parts if part.rows], Part(begin + size, self._number)]
        heappush(self._taking_turns, place.parts[-1].due)

    def take(self, room: float = math.inf) -> Row | None:
        """The next row of the request that is first, or one soon behind it that is not longer than `room`."""
        if not self._parts:
            return None
        rows = self._parts[0].rows
        for index in range(min(len(rows), LOOKED_AT)):
            if len(row := rows[index]) <= room:
                del rows[index]
                if not rows:
                    heappop(self._parts)
                self._go_on(len(row))
                return row
        return None

    def _go_on(self, tokens: float) -> None:
        """So many tokens for those who take turns, the same for each."""
        turns = self._taking_turns
        while turns:
            ahead = turns[0] - self._clock
            if tokens < ahead * len(turns):
                self._clock += tokens / len(turns)
                return
            tokens -= ahead * len(turns)
            self._clock = heappop(turns)

    def leave(self, place: Place) -> list[Row]:
        """Forget the rows of a request, which are returned."""
        gone = [part for part in place.parts if part.rows]
        for part in gone:
            self._parts.remove(part)
            if part.due in self._taking_turns:
                self._taking_turns.remove(part.due)
        heapify(self._parts)
        heapify(self._taking_turns)
        place.parts, place.left = [], 0.0
        return [row for part in gone for row in part.rows]
