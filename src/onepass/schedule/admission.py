"""Room in the queue, in tokens: reserved before any tokenising, given back as rows finish."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from onepass.errors import Overloaded, TooLarge


class Admission:
    """Counts tokens that were admitted and are not answered yet. Any thread, any event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reserved = 0
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    def check(self, tokens: int) -> None:
        """Raises TooLarge for what would not fit into an empty queue."""
        if tokens > self.capacity:
            raise TooLarge(
                f"the request may need {tokens} tokens, more than the {self.capacity} this queue ever admits at once; "
                "split it into smaller requests"
            )

    def reserve(self, tokens: int, seconds_to_drain: float) -> None:
        """Take the room now. Raises TooLarge, and Overloaded where there is none at the moment."""
        self.check(tokens)
        with self._lock:
            if not self._take(tokens):
                free = max(self.capacity - self.reserved, 0)
                raise Overloaded(
                    f"the queue has room for {free} of its {self.capacity} tokens, the request may need {tokens}; "
                    f"come back in {max(seconds_to_drain, 1):.0f} s",
                    retry_after=max(seconds_to_drain, 1.0),
                )

    def take(self, tokens: int) -> bool:
        """Take the room if there is some and nobody waits for it; whether it was taken. Raises TooLarge."""
        self.check(tokens)
        with self._lock:
            return self._take(tokens)

    def _take(self, tokens: int) -> bool:
        free = not self._waiting and self.reserved + tokens <= self.capacity
        self.reserved += tokens if free else 0
        return free

    async def wait(self, tokens: int) -> None:
        """Take the room when there is some, in the order of asking. Raises TooLarge."""
        self.check(tokens)
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._take(tokens):
                return
            turn = loop.create_future()
            self._waiting.append((tokens, loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self._abandon(turn, tokens)
            raise

    def release(self, tokens: int) -> None:
        with self._lock:
            self.reserved -= tokens
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self.reserved + self._waiting[0][0] <= self.capacity:
            tokens, loop, turn = self._waiting.popleft()
            if loop.is_closed():
                continue
            self.reserved += tokens
            loop.call_soon_threadsafe(self._wake, turn, tokens)

    def _wake(self, turn: asyncio.Future[None], tokens: int) -> None:
        if turn.cancelled():
            self.release(tokens)
        else:
            turn.set_result(None)

    def _abandon(self, turn: asyncio.Future[None], tokens: int) -> None:
        """The waiter was cancelled: leave the line, or give back what was granted in the same moment."""
        granted = turn.done() and not turn.cancelled()
        with self._lock:
            self._waiting = deque(entry for entry in self._waiting if entry[2] is not turn)
            if granted:
                self.reserved -= tokens
            self._grant()
