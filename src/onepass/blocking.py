"""Coroutines from code that blocks: on an event loop of the calling thread, or beside one that is running there.

Two threads less to wake than with one loop for all callers, which is a fifth of what a short query takes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result, in this thread; an exception here (Ctrl-C, say) cancels it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(_own.loop(), coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, _beside(os.getpid()))
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def is_own(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether it is this thread's, on which nothing runs but what `wait` waits for."""
    return _own.has(loop)


def _run(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        raise


class _Loop:
    """An event loop that is closed with its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()

    def __del__(self) -> None:
        if self.process == os.getpid():
            self.loop.close()


class _Own(threading.local):
    """The loop of each thread. A forked child makes another and keeps the first: to close it would end the parent's."""

    def __init__(self) -> None:
        self.loops: list[_Loop] = []

    def loop(self) -> asyncio.AbstractEventLoop:
        if not self.loops or self.loops[-1].process != os.getpid():
            self.loops.append(_Loop())
        return self.loops[-1].loop

    def has(self, loop: asyncio.AbstractEventLoop) -> bool:
        return bool(self.loops) and self.loops[-1].loop is loop


_own = _Own()


@cache
def _beside(process: int) -> asyncio.AbstractEventLoop:
    """One loop in a thread of its own, for callers in whose thread a loop is running; a forked child makes another."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="onepass-loop", daemon=True).start()
    return loop
