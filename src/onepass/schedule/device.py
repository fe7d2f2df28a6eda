"""The cores or the GPU, and what runs there: lanes that take micro-batches from one scheduler and call engines.

A lane is a thread that drives one core, or all of them when it has the only work there has been for a while. Where
engines compute on a GPU a few lanes keep it busy, and the cores tokenise. Models register with the device, so ten
models share the same lanes, queue and room.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onepass.engines.batch import Engine, Output, RowOutput
from onepass.engines.place import CPU, Place
from onepass.errors import Cancelled, EngineFailure, OnepassError
from onepass.schedule.admission import Admission
from onepass.schedule.cost import Cost, measure
from onepass.schedule.pack import pack, unpack
from onepass.schedule.row import Row
from onepass.schedule.scheduler import Flow, Scheduler

log = logging.getLogger("onepass.device")

QUEUE_TOKENS = 1_048_576
SHARES = 2  # of what waits, for each core: so nobody's micro-batch takes longer than half of what waits takes anyway
CALM = 0.05  # seconds since requests last met here, after which a micro-batch gets all cores
NICENESS = 5  # of lanes, above that of the thread that starts them


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class Result:
    """One row's outputs, one per ask, or what went wrong with it. started, ended: time.monotonic()."""

    row: Row
    outputs: tuple[RowOutput, ...] | None
    error: OnepassError | None
    started: float
    ended: float


class Sink(Protocol):
    """Who waits for rows: told in its own event loop, once per micro-batch, about all of its rows in it."""

    loop: asyncio.AbstractEventLoop

    def deliver(self, results: Sequence[Result]) -> None: ...


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What an observer is told after each run."""

    model: str
    rows: int
    tokens: int
    cores: int
    seconds: float


_devices: weakref.WeakSet[Device] = weakref.WeakSet()


def _begin_in_child() -> None:
    for device in _devices:
        device._begin()


def _close_at_exit() -> None:
    for device in list(_devices):
        device.close()


os.register_at_fork(after_in_child=_begin_in_child)
atexit.register(_close_at_exit)


class Device:
    """cores: compute threads shared by all lanes.  queue_tokens: tokens admitted at once.  place: of the engines."""

    def __init__(self, cores: int, queue_tokens: int = QUEUE_TOKENS, place: Place = CPU) -> None:
        self.cores = cores
        self.place = place
        # micro-batches that compute at the same time: those on a GPU one after another
        self.parallel = cores if place.calls is None else 1
        self.queue_tokens = queue_tokens
        self.observers: list[Callable[[MicroBatch], None]] = []
        self._engines: dict[str, Engine] = {}
        self._costs: dict[str, Cost] = {}
        self._begin()
        _devices.add(self)

    def _begin(self) -> None:
        """Nothing queued and no thread running: at the start, and again in a forked child, which has no threads."""
        self.admission = Admission(self.queue_tokens)
        self.threads = ThreadPoolExecutor(self.cores, thread_name_prefix="onepass-tokenizer")
        self._sinks: dict[int, Sink] = {}
        self._scheduler = Scheduler()
        self._lock = threading.RLock()
        self._queued = threading.Condition(self._lock)  # lanes wait for rows
        self._turns = threading.Condition(self._lock)  # tokenising threads wait for their turn
        self._busy = 0
        self._latest = 0  # request of the micro-batch taken last
        self._crowded = -math.inf  # when two requests last met
        self._ended = 0.0  # when a micro-batch was last done
        self._tokenizing = 0
        self._lanes: list[threading.Thread] = []
        self._closed = False

    # Models come and go.

    def register(self, model: str, engine: Engine, max_length: int) -> None:
        """Measure the engine, then serve rows of `model`, of at most max_length tokens, with it."""
        cost = measure(engine, max_length, self.place)
        with self._lock:
            self._engines[model] = engine
            self._costs[model] = cost

    def unregister(self, model: str) -> None:
        with self._lock:
            del self._engines[model], self._costs[model]

    def engine(self, model: str) -> Engine:
        """Raises Cancelled once the model is unregistered."""
        if (engine := self._engines.get(model)) is None:
            raise Cancelled("the encoder was closed")
        return engine

    def cost(self, model: str) -> Cost:
        return self._costs[model]

    def close(self) -> None:
        """Stop the lanes after what they are running; rows still queued are answered with Cancelled."""
        with self._lock:
            self._closed = True
            self._queued.notify_all()
        for lane in self._lanes:
            lane.join()
        self._lanes = []
        now = time.monotonic()
        while rows := self._scheduler.next(1 << 30, now):
            self._deliver([Result(row, None, Cancelled("the encoder was closed"), now, now) for row in rows])

    # Rows come and go.

    @property
    def queued_tokens(self) -> int:
        return self._scheduler.tokens

    @property
    def queued_rows(self) -> int:
        return self._scheduler.rows

    @property
    def tokens_per_second(self) -> float:
        """Of all cores, or the GPU, for the slowest model registered."""
        return self.parallel * min((cost.tokens_per_second for cost in list(self._costs.values())), default=1e4)

    def seconds_to_drain(self) -> float:
        """Predicted seconds until what is admitted now has been answered."""
        return self.admission.reserved / self.tokens_per_second

    def attach(self, request: int, sink: Sink) -> None:
        self._sinks[request] = sink

    def detach(self, request: int) -> None:
        self._sinks.pop(request, None)

    def submit(self, flow: Flow, rows: Sequence[Row], *, following: float = 0, here: bool = False) -> None:
        """Queue rows of one model and request, which has a sink attached. Raises Cancelled once closed.

        following: tokens of the request that will be submitted later, as expected.
        here: the calling thread has nothing else to do. It runs rows that are one micro-batch itself where nothing else
        runs or waits, which takes two threads less to wake; they are delivered when this returns.
        """
        with self._lock:
            if self._closed or rows[0].model not in self._costs:
                raise Cancelled("the encoder was closed")
            rate = self.parallel * self._costs[rows[0].model].tokens_per_second
            self._scheduler.add(flow, rows, time.monotonic(), rate, following)
            work = self._next() if here and self._one_micro_batch(rows) else None
            if work is None:
                if not self._lanes:
                    self._start()
                self._queued.notify(len(rows) if self._on_cores else 1)
        if work is not None:
            self._work(*work)

    def _one_micro_batch(self, rows: Sequence[Row]) -> bool:
        """Whether these rows, just queued, are all there is to do, and little enough for one micro-batch."""
        alone = not self._busy and self._scheduler.rows == len(rows)
        return alone and self._scheduler.tokens <= self._budget()

    def leave(self, flow: Flow) -> None:
        """Drop what a request still has queued, and give its room back."""
        with self._lock:
            dropped = self._scheduler.leave(flow)
        self.admission.release(dropped)

    @contextmanager
    def tokenizing(self) -> Iterator[None]:
        """A turn to tokenise: one at a time while lanes compute on the cores, else as many as there are cores."""
        with self._turns:
            self._turns.wait_for(lambda: self._tokenizing < (1 if self._busy and self._on_cores else self.cores))
            self._tokenizing += 1
        try:
            yield
        finally:
            with self._turns:
                self._tokenizing -= 1
                self._turns.notify_all()

    # Lanes.

    @property
    def _on_cores(self) -> bool:
        return self.place.calls is None

    def _start(self) -> None:
        self._lanes = [
            threading.Thread(target=self._lane, name=f"onepass-lane-{index}", daemon=True)
            for index in range(self.place.calls or self.cores)
        ]
        for lane in self._lanes:
            lane.start()

    def _lane(self) -> None:
        _step_back()
        while work := self._take():
            self._work(*work)

    def _take(self) -> tuple[list[Row], int] | None:
        """Wait for a micro-batch. None once closed."""
        with self._lock:
            while not self._closed:
                if work := self._next():
                    if self._scheduler.rows:
                        self._queued.notify()
                    return work
                self._queued.wait()
        return None

    def _next(self) -> tuple[list[Row], int] | None:
        """A micro-batch, from here on busy, and how many cores it gets: all, if it is the only work."""
        rows = self._scheduler.next(self._budget(), time.monotonic(), self.place.window)
        if not rows:
            return None
        alone = self._alone(rows)
        self._busy += 1
        return rows, self.cores if alone else 1

    def _work(self, rows: list[Row], cores: int) -> None:
        try:
            self._run(rows, cores)
        finally:
            with self._turns:
                self._busy -= 1
                self._turns.notify_all()

    def _alone(self, rows: list[Row]) -> bool:
        """Whether these rows, just taken, get all cores: nothing else runs or waits, and it has been so for a while.

        Several cores spend more on a short text than one does, so while requests come close to each other each has one.
        """
        others, now = bool(self._busy or self._scheduler.rows), time.monotonic()
        if rows[0].request != rows[-1].request or (others and rows[-1].request != self._latest):
            self._crowded = now
        self._latest = rows[-1].request
        return self._on_cores and not others and now - self._crowded > CALM

    def _budget(self) -> int:
        """Tokens of the next micro-batch, for the slowest model: full where much waits, else a share of what does.

        So what comes meanwhile waits for less, and every idle core takes part. What is small is not shared.
        """
        full = min((cost.budget for cost in self._costs.values()), default=512)
        if not self._on_cores:
            return full
        small = min((cost.small for cost in self._costs.values()), default=full)
        waiting = self._scheduler.tokens
        if waiting <= small:
            return small
        share = max(small, -(-waiting // (SHARES * self.cores)))
        return min(full, share, -(-waiting // max(1, self.cores - self._busy)))

    def _run(self, rows: list[Row], cores: int) -> None:
        started = time.monotonic()
        try:
            results = self._results(rows, cores, started)
        except BaseException:  # Ctrl-C in a caller's thread
            self.admission.release(sum(map(len, rows)))
            raise
        self._deliver(results)
        ended = time.monotonic()
        if not self._on_cores:  # it waited for the one before
            started, self._ended = max(started, self._ended), ended
        if cores == 1 and (cost := self._costs.get(rows[0].model)):  # packing and handing out included
            cost.observe([len(row) for row in rows], ended - started)

    def _results(self, rows: list[Row], cores: int, started: float) -> list[Result]:
        try:
            return self._compute(rows, cores, started)
        except Exception as error:
            log.warning("a micro-batch of %d rows failed, running its rows one by one: %s", len(rows), error)
            return [self._compute_alone(row, cores) for row in rows]

    def _compute(self, rows: list[Row], cores: int, started: float) -> list[Result]:
        try:
            engine = self.engine(rows[0].model)
        except Cancelled as gone:
            return [Result(row, None, gone, started, started) for row in rows]
        batch, reads = pack(rows)
        outputs = engine.run(batch, reads, cores)
        ended = time.monotonic()
        self._observe(rows, cores, ended - started)
        given = zip(rows, unpack(rows, outputs), strict=True)
        if _finite(outputs):
            return [Result(row, own, None, started, ended) for row, own in given]
        return [self._result(row, own, started, ended) for row, own in given]

    def _result(self, row: Row, outputs: tuple[RowOutput, ...], started: float, ended: float) -> Result:
        if _finite(outputs):
            return Result(row, outputs, None, started, ended)
        failure = EngineFailure(f"input {row.index} gave values that are not finite numbers")
        return Result(row, None, failure, started, ended)

    def _compute_alone(self, row: Row, cores: int) -> Result:
        started = time.monotonic()
        try:
            return self._compute([row], cores, started)[0]
        except Exception as error:
            failure = EngineFailure(f"input {row.index} could not be computed: {error}")
            return Result(row, None, failure, started, time.monotonic())

    def _observe(self, rows: list[Row], cores: int, seconds: float) -> None:
        seen = MicroBatch(rows[0].model, len(rows), sum(map(len, rows)), cores, seconds)
        for observer in self.observers:
            observer(seen)

    def _deliver(self, results: list[Result]) -> None:
        """Give the rows' room back and tell each event loop once, whatever the number of requests."""
        self.admission.release(sum(len(result.row) for result in results))
        by_sink: dict[int, list[Result]] = {}
        for result in results:
            by_sink.setdefault(result.row.request, []).append(result)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Sink, list[Result]]]] = {}
        for request, mine in by_sink.items():
            if sink := self._sinks.get(request):
                by_loop.setdefault(sink.loop, []).append((sink, mine))
        here = _running_loop()
        for loop, deliveries in by_loop.items():
            if loop is here:
                _hand_out(deliveries)
                continue
            with suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_hand_out, deliveries)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """This thread's: lanes have none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _finite(outputs: Sequence[Output | RowOutput]) -> bool:
    return all(np.isfinite(output.values).all() for output in outputs)


def _step_back() -> None:
    """Let threads that wake up, such as the event loop's, go before this one, which only computes.

    Linux since 6.6 makes a thread of the same niceness wait for the end of this one's slice, for milliseconds.
    """
    if sys.platform == "linux":  # elsewhere niceness is the whole process's
        own = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)


def _hand_out(deliveries: list[tuple[Sink, list[Result]]]) -> None:
    for sink, results in deliveries:
        sink.deliver(results)
