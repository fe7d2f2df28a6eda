"""One request on its way: what it reserved, how its rows are doing, what it cost."""

from __future__ import annotations

import asyncio
import itertools
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from onepass.engines.batch import Floats
from onepass.errors import Cancelled, EmptyInput
from onepass.model.checkpoint import Checkpoint
from onepass.schedule.device import Device, Result
from onepass.schedule.row import Ask, Row
from onepass.schedule.scheduler import Flow
from onepass.schedule.tokenizer import PLAIN, Encoded, EncodeOptions, Input, Tokenizer

CHUNK_ITEMS = 32  # tokenised together: the first are computed while the next are tokenised, and others get their turn
CHUNK_CHARACTERS = 32_768

_numbers = itertools.count(1)


@dataclass(slots=True)
class Usage:
    """What a job has cost so far.

    tokens: computed, special tokens included.  lengths: tokens of each row.  characters: of the texts given.
    truncated: how many rows were cut.  tokenize, queue, inference: wall-clock seconds spent tokenising, between the
    first row queued and its micro-batch, and from there to the end of the last micro-batch.
    """

    tokens: int = 0
    characters: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"))
    truncated: int = 0
    tokenize: float = 0.0
    queue: float = 0.0
    inference: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model as jobs see it: its name on the device, its tokenizer, the device."""

    model: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    device: Device


class Job:
    """Runs inputs through one model, in whichever event loop it is awaited.

    wait: wait for room in the queue (the library), or raise Overloaded at once (the server).
    """

    def __init__(self, served: Served, *, wait: bool) -> None:
        self.served = served
        self.wait = wait
        self.usage = Usage()
        self._run: _Run | None = None

    async def run(
        self, inputs: Iterable[Input], *asks: Ask, options: EncodeOptions = PLAIN
    ) -> list[tuple[Floats, ...]]:
        """One tuple per input, with one float32 [m, width] array per ask.

        A waiting job takes any iterable and holds no more of it than the queue admits. Raises InvalidInput and its
        kinds, Overloaded, EngineFailure, Cancelled; then nothing of the request stays queued.
        """
        self._run = _Run(self, asks, options)
        return await self._run.all(inputs)

    def cancel(self) -> None:
        """Drop what is still queued; whoever awaits the job gets Cancelled."""
        if self._run is not None:
            self._run.fail(Cancelled("the request was cancelled"))


class _Run:
    """The rows of one `Job.run`: sent to the device chunk by chunk, gathered as they come back."""

    def __init__(self, job: Job, asks: tuple[Ask, ...], options: EncodeOptions) -> None:
        self.loop = asyncio.get_running_loop()
        self.served, self.wait, self.usage = job.served, job.wait, job.usage
        self.asks, self.options = asks, options
        self.request = next(_numbers)
        self.flow = Flow()
        self.held = 0  # tokens reserved for inputs that are not tokenised yet
        self.known: dict[str, list[int]] = {}
        self.outputs: dict[int, tuple[Floats, ...]] = {}
        self.expected: int | None = None  # rows in all, once all are sent
        self.sent = 0
        self.first_sent = self.first_started = 0.0
        self.inference_before = self.usage.inference
        self.done: asyncio.Future[None] = self.loop.create_future()

    async def all(self, inputs: Iterable[Input]) -> list[tuple[Floats, ...]]:
        device = self.served.device
        device.attach(self.request, self)
        try:
            if not self.wait:
                inputs = list(inputs)
                device.admission.reserve(self._room(inputs), device.seconds_to_drain())
                self.held = self._room(inputs)
            async for chunk in self._chunks(inputs):
                await self._send(chunk)
            if not self.sent:
                raise EmptyInput("the input is an empty list; send at least one text")
            self.expected = self.sent
            self._check_done()
            await self.done
            return [self.outputs[index] for index in range(self.expected)]
        except BaseException:
            device.leave(self.flow)
            raise
        finally:
            self.done.cancel()
            device.detach(self.request)
            device.admission.release(self.held)

    async def _chunks(self, inputs: Iterable[Input]) -> AsyncIterator[list[Input]]:
        """Some inputs at a time; anything but a list may block (a file, say), so it is drawn from off the loop."""
        chunks = _cut(inputs)
        while not self.done.done():
            if isinstance(inputs, list):
                chunk = next(chunks, None)
            else:
                chunk = await self.loop.run_in_executor(self.served.device.threads, next, chunks, None)
            if chunk is None:
                return
            yield chunk
        self.done.result()  # raises what went wrong with an earlier chunk

    async def _send(self, chunk: list[Input]) -> None:
        device, room = self.served.device, self._room(chunk)
        if self.wait:
            await device.admission.wait(room)
            self.held += room
        encoded = await self._encode(chunk)
        rows = [
            Row(self.served.model, self.request, self.sent + index, one.ids, one.types, self.asks, skip=one.skip)
            for index, one in enumerate(encoded)
        ]
        lengths = [len(row) for row in rows]
        tokens = sum(lengths)
        device.admission.release(room - tokens)  # settled: from here on the device gives the room back
        self.held -= room
        self.usage.tokens += tokens
        self.usage.lengths.extend(lengths)
        self.usage.truncated += sum(one.cut for one in encoded)
        self.usage.characters += sum(map(_characters, chunk))
        self.first_sent = self.first_sent or time.monotonic()
        self.sent += len(rows)
        device.submit(self.flow, rows)

    async def _encode(self, chunk: list[Input]) -> list[Encoded]:
        def encode() -> list[Encoded]:
            with self.served.device.tokenizing():
                return self.served.tokenizer.encode(chunk, self.options, first=self.sent, known=self.known)

        started = time.monotonic()
        encoded = await self.loop.run_in_executor(self.served.device.threads, encode)
        self.usage.tokenize += time.monotonic() - started
        return encoded

    def _room(self, inputs: Iterable[Input]) -> int:
        tokenizer, extra = self.served.tokenizer, 4 * len(self.options.prompt)
        return sum(min(tokenizer.estimate(item) + extra, tokenizer.max_length) for item in inputs)

    def deliver(self, results: Sequence[Result]) -> None:
        """Called by the device in this run's loop, once per micro-batch."""
        if not self.first_started:
            self.first_started = min(result.started for result in results)
            self.usage.queue += max(self.first_started - self.first_sent, 0.0)
        self.usage.inference = self.inference_before + max(result.ended for result in results) - self.first_started
        for result in results:
            if result.error is not None:
                return self.fail(result.error)
            assert result.outputs is not None
            self.outputs[result.row.index] = result.outputs
        return self._check_done()

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _check_done(self) -> None:
        if len(self.outputs) == self.expected and not self.done.done():
            self.done.set_result(None)


def _cut(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Chunks of at most CHUNK_ITEMS inputs, and of about CHUNK_CHARACTERS."""
    chunk: list[Input] = []
    size = 0
    for item in inputs:
        chunk.append(item)
        size += _characters(item)
        if len(chunk) == CHUNK_ITEMS or size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _characters(item: Input) -> int:
    """Of the texts of an item; token ids have none."""
    if isinstance(item, str):
        return len(item)
    return sum(map(len, item)) if isinstance(item, tuple) else 0
