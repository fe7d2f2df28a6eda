"""One request on its way: what it reserved, how its rows are doing, what it cost."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onepass.blocking import is_own
from onepass.engines.batch import Floats, RowOutput
from onepass.errors import Cancelled, EmptyInput
from onepass.model.checkpoint import Checkpoint
from onepass.schedule.chunks import CHARACTERS_AT_ONCE, CHUNK_ITEMS, MOST_ITEMS, characters, chunks_of, size
from onepass.schedule.device import Device, Result
from onepass.schedule.estimates import most_in_windows, most_tokens
from onepass.schedule.fit import PLAIN, EncodeOptions
from onepass.schedule.pieces import Encoded, Pieces
from onepass.schedule.row import Ask, Row
from onepass.schedule.scheduler import Flow
from onepass.schedule.tokenizer import Input, Tokenizer

T = TypeVar("T")

_numbers = itertools.count(1)


@dataclass(slots=True)
class Usage:
    """What a job has cost so far.

    inputs: texts or pairs given.  truncated: how many of them were cut.
    tokens: computed, special tokens included.  lengths: tokens of each row.  characters: of the texts given.
    windows: how many rows there are beyond one per input.
    tokenize, queue, inference: wall-clock seconds spent tokenising, between the first row queued and its micro-batch,
    and from there to the end of the last micro-batch.
    """

    inputs: int = 0
    tokens: int = 0
    characters: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"))
    truncated: int = 0
    windows: int = 0
    tokenize: float = 0.0
    queue: float = 0.0
    inference: float = 0.0

    def add(self, other: Usage) -> None:
        """What both cost, of seconds the larger: they passed at the same time."""
        self.inputs += other.inputs
        self.tokens += other.tokens
        self.characters += other.characters
        self.lengths.extend(other.lengths)
        self.truncated += other.truncated
        self.windows += other.windows
        self.tokenize = max(self.tokenize, other.tokenize)
        self.queue = max(self.queue, other.queue)
        self.inference = max(self.inference, other.inference)


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class Answered:
    """A row and what was read from it, one output per ask."""

    row: Encoded
    outputs: tuple[RowOutput, ...]


AsksOf = Callable[[Encoded], tuple[Ask, ...]]
Tokenized = tuple[list[tuple[Encoded, tuple[Ask, ...]]], float]
"""Rows, what is asked of each, and the seconds they took."""


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model as jobs see it: its name on the device, its tokenizer, the device.

    queries: what makes tokens of queries that a table weighs, where the checkpoint has one.
    moderation: the labels that make up each category, where the model was loaded with a table of them.
    """

    model: str
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    device: Device
    queries: Tokenizer | None = None
    moderation: Mapping[str, Any] | None = None


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
        assert options.overlap is None, "an input may become several rows"
        found = await self.outputs(inputs, lambda _: asks, options=options)
        return [tuple(output.values for output in outputs) for outputs in found]

    async def outputs(
        self, inputs: Iterable[Input], asks: AsksOf, *, options: EncodeOptions = PLAIN
    ) -> list[tuple[RowOutput, ...]]:
        """As `rows`, but only what each row gave, in order; the rows themselves are not kept."""
        with self._running(_Run(self, asks, options, keep=False)) as run:
            await run.all(inputs)
        return run.outputs_in_order()

    async def rows(
        self, inputs: Iterable[Input], asks: AsksOf, *, options: EncodeOptions = PLAIN
    ) -> list[list[Answered]]:
        """As `run`, but says for each input which rows it became, and asks each row for what `asks` makes of it.

        `asks` is called in a tokenising thread and may refuse a row with a typed error.
        """
        with self._running(_Run(self, asks, options, keep=True)) as run:
            await run.all(inputs)
        rows: list[list[Answered]] = [[] for _ in range(run.inputs)]
        for encoded, outputs in zip(run.encoded, run.outputs_in_order(), strict=True):
            rows[encoded.input].append(Answered(encoded, outputs))
        return rows

    async def without_forward(
        self, inputs: Iterable[Input], answer: Callable[[Encoded], T], tokenizer: Tokenizer, options: EncodeOptions
    ) -> list[T]:
        """What `answer` makes of each input's tokens, in the thread that finds them; they never queue.

        Counted and refused as by `run`.
        """
        assert options.overlap is None, "an input may become several rows"
        answers: list[T] = []

        def asks(row: Encoded) -> tuple[Ask, ...]:
            answers.append(answer(row))
            return ()

        with self._running(_Run(self, asks, options, keep=False, tokenizer=tokenizer)) as run:
            await run.encode_all(inputs)
        return answers

    @contextmanager
    def _running(self, run: _Run) -> Iterator[_Run]:
        """Which run `cancel` stops. Afterwards none: a job and a run that held each other would wait for the search for
        cycles, which stops everything for tens of milliseconds when it comes.
        """
        self._run = run
        try:
            yield run
        finally:
            if self._run is run:
                self._run = None

    async def off_loop(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in a tokenising thread when its turn comes."""
        return await self.begun_off_loop(work)

    def begun_off_loop(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """The same, to be awaited later."""
        device = self.served.device

        def turn() -> T:
            with device.tokenizing():
                return work()

        return asyncio.get_running_loop().run_in_executor(device.threads, turn)

    def cancel(self) -> None:
        """Drop what is still queued; whoever awaits the job gets Cancelled."""
        if self._run is not None:
            self._run.fail(Cancelled("the request was cancelled"))


@dataclass(slots=True)
class _Begun:
    """A chunk that is being tokenised. room: tokens reserved for it."""

    chunk: list[Input]
    room: int
    encoding: asyncio.Future[Tokenized]


class _Run:
    """The rows of one `Job.run`: sent to the device chunk by chunk, gathered as they come back."""

    def __init__(
        self, job: Job, asks: AsksOf, options: EncodeOptions, *, keep: bool, tokenizer: Tokenizer | None = None
    ) -> None:
        """keep: the encoded rows, for whoever needs them beside the outputs.  tokenizer: another than the model's."""
        self.loop = asyncio.get_running_loop()
        self.job, self.served, self.wait, self.usage = job, job.served, job.wait, job.usage
        self.tokenizer = tokenizer or job.served.tokenizer
        self.asks, self.options, self.keep = asks, options, keep
        self.request = next(_numbers)
        self.flow = Flow()
        self.held = 0  # tokens reserved for inputs that are not tokenised yet
        self.known: dict[str, Pieces] = {}
        self.encoded: list[Encoded] = []
        self.outputs: dict[int, tuple[RowOutput, ...]] = {}
        self.expected: int | None = None  # rows in all, once all are sent
        self.given = math.inf  # items, where it is known
        self.begun = self.inputs = self.sent = 0  # items given to the tokenizer, items and rows sent, so far
        self.last_cut = -1
        self.blocks = False
        self.first_sent = self.first_started = 0.0
        self.inference_before = self.usage.inference
        self.done: asyncio.Future[None] = self.loop.create_future()

    async def all(self, inputs: Iterable[Input]) -> None:
        device = self.served.device
        self.blocks = is_own(self.loop) and isinstance(inputs, list) and len(inputs) <= CHUNK_ITEMS
        device.attach(self.request, self)
        try:
            if not self.wait:
                inputs = list(itertools.islice(inputs, device.admission.capacity + 1))  # more are too many anyway
                room = await self._room(inputs)
                device.admission.reserve(room, device.seconds_to_drain())
                self.held = room
            self.given = len(inputs) if isinstance(inputs, list) else math.inf
            await self._send_all(inputs)
            self._check_some()
            self.expected = self.sent
            self._check_done()
            await self.done
        except BaseException:
            device.leave(self.flow)
            raise
        finally:
            self.done.cancel()
            device.detach(self.request)
            device.admission.release(self.held)

    async def encode_all(self, inputs: Iterable[Input]) -> None:
        """Only tokenise, and have `asks` see every row."""
        async for chunk in self._chunks(inputs):
            encoded, seconds = await self._encoding(chunk)
            self.usage.tokenize += seconds
            self._count(chunk, [row for row, _ in encoded])
        self._check_some()

    def outputs_in_order(self) -> list[tuple[RowOutput, ...]]:
        return [self.outputs[index] for index in range(len(self.outputs))]

    async def _chunks(self, inputs: Iterable[Input]) -> AsyncIterator[list[Input]]:
        """Some inputs at a time; anything but a list may block (a file, say), so it is drawn from off the loop."""
        rows = self.served.device.admission.capacity // self.tokenizer.max_length
        chunks = chunks_of(inputs, min(max(rows, CHUNK_ITEMS), MOST_ITEMS))
        while not self.done.done():
            if isinstance(inputs, list):
                chunk = next(chunks, None)
            else:
                chunk = await self.loop.run_in_executor(self.served.device.threads, next, chunks, None)
            if chunk is None:
                return
            yield chunk
        self.done.result()  # raises what went wrong with an earlier chunk

    async def _send_all(self, inputs: Iterable[Input]) -> None:
        """Chunk by chunk; where the cores do not compute, one is tokenised while rows are made of the one before."""
        admission = self.served.device.admission
        ahead = isinstance(inputs, list) and self.served.device.place.calls is not None
        begun: _Begun | None = None
        try:
            async for chunk in self._chunks(inputs):
                room = await self._room(chunk)
                if self.wait and not admission.take(room):
                    if begun is not None:  # it may hold what is missing
                        await self._send(begun)
                        begun = None
                    await admission.wait(room)
                self.held += room if self.wait else 0
                before, begun = begun, _Begun(chunk, room, self._encoding(chunk))
                if before is not None:
                    await self._send(before)
                if not ahead:
                    await self._send(begun)
                    begun = None
            if begun is not None:
                await self._send(begun)
        finally:
            if begun is not None:
                begun.encoding.cancel()
                begun.encoding.add_done_callback(_looked_at)

    async def _send(self, begun: _Begun) -> None:
        device, chunk, room = self.served.device, begun.chunk, begun.room
        encoded, seconds = await begun.encoding
        self.usage.tokenize += seconds
        rows = [
            Row(self.served.model, self.request, self.sent + index, one.ids, one.types, asks, one.visible, one.skip)
            for index, (one, asks) in enumerate(encoded)
        ]
        tokens = sum(map(len, rows))
        device.admission.release(room - tokens)  # settled: from here on the device gives the room back
        self.held -= room
        self.first_sent = self.first_sent or time.monotonic()
        self._count(chunk, [one for one, _ in encoded])
        following = (self.given - self.inputs) * tokens / len(chunk)
        device.submit(self.flow, rows, following=following, here=self.blocks)

    def _count(self, chunk: list[Input], rows: list[Encoded]) -> None:
        lengths = [len(row.ids) for row in rows]
        self.usage.tokens += sum(lengths)
        self.usage.lengths.extend(lengths)
        self._count_inputs(len(chunk), rows)
        self.usage.windows += len(rows) - len(chunk)
        self.usage.characters += sum(map(characters, chunk))
        self.inputs += len(chunk)
        self.sent += len(rows)
        if self.keep:
            self.encoded += rows

    def _count_inputs(self, items: int, rows: list[Encoded]) -> None:
        """Each once, and once where it was cut, also where its items are in two chunks."""
        together = self.options.together
        self.usage.inputs += -(-(self.inputs + items) // together) - -(-self.inputs // together)
        cut = {row.input // together for row in rows if row.cut}
        self.usage.truncated += len(cut - {self.last_cut})
        self.last_cut = max(cut, default=self.last_cut)

    def _encoding(self, chunk: list[Input]) -> asyncio.Future[Tokenized]:
        """The chunk's rows: begun here, to be awaited in order."""
        first = self.begun
        self.begun += len(chunk)

        def encode() -> Tokenized:
            started = time.monotonic()
            rows = self.tokenizer.encode(chunk, self.options, first=first, known=self.known)
            return [(row, self.asks(row)) for row in rows], time.monotonic() - started

        if first or sum(map(size, chunk)) > CHARACTERS_AT_ONCE:
            return self.job.begun_off_loop(encode)
        at_once = self.loop.create_future()
        at_once.set_result(encode())
        return at_once

    async def _room(self, inputs: list[Input]) -> int:
        """Most tokens of their rows."""
        tokenizer, extra = self.tokenizer, 4 * len(self.options.prompt)
        if self.options.overlap is not None:

            def windows() -> int:
                return sum(most_in_windows(tokenizer, item, self.options, self.known) for item in inputs)

            pairs = any(isinstance(item, tuple) for item in inputs)  # of which one text may have to be tokenised
            long = pairs and sum(map(size, inputs)) > CHARACTERS_AT_ONCE
            return await self.job.off_loop(windows) if long else windows()
        extra += len(self.options.before) + len(self.options.after)
        least = 0 if self.options.expansion is None else self.options.expansion.length
        most = self.options.window or tokenizer.max_length
        return sum(min(max(most_tokens(tokenizer, item) + extra, least), most) for item in inputs)

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

    def _check_some(self) -> None:
        if not self.sent:
            raise EmptyInput("the input is an empty list; send at least one text")

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _check_done(self) -> None:
        if len(self.outputs) == self.expected and not self.done.done():
            self.done.set_result(None)


def _looked_at(abandoned: asyncio.Future[Tokenized]) -> None:
    """What went wrong with a chunk that nobody waits for any more is no news."""
    if not abandoned.cancelled():
        abandoned.exception()
