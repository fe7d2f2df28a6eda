"""Texts through a task, chunk by chunk: the next is under way while the results of one are written."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from onepass.encoder import Encoder
from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.job import Job
from onepass.settings import ModelSettings
from onepass.shell.inputs import Source, Text, chunks
from onepass.shell.options import loading
from onepass.shell.progress import progress

AHEAD = 2

Answer = TypeVar("Answer")
Ask = Callable[[Job, list[Any]], Coroutine[Any, Any, Answer]]
Write = Callable[[int, list[Text], Answer], None]


class Pending(NamedTuple):
    """A chunk on its way. start: index of its first text."""

    start: int
    texts: list[Text]
    job: Job
    answer: Future[Any]


def run(settings: ModelSettings, source: Source, ask: Ask[Answer], write: Write[Answer], output: Path | None) -> None:
    """Load the model and ask it about every text; `write` gets each chunk: index of its first text, texts, answer.

    Says on stderr how many texts were cut, and in how many rows texts were read if some became windows. Raises
    EmptyInput where the source holds nothing.
    """
    texts = cut = windows = 0
    with (
        Encoder(**loading(settings)) as encoder,
        closing(finished(encoder, ask, chunks(source.texts))) as answered,
        progress(source, output) as advance,
    ):
        for chunk in answered:
            write(chunk.start, chunk.texts, chunk.answer.result())
            texts = chunk.start + len(chunk.texts)
            cut += chunk.job.usage.truncated
            windows += chunk.job.usage.windows
            advance(len(chunk.texts), chunk.job.usage.tokens)
    if not texts:
        raise EmptyInput("the input holds no texts; give at least one")
    if cut:
        words = f"{cut:,} of {texts:,} texts were longer than the model takes and were cut"
        click.echo(f"onepass: {words}; --truncate none refuses them instead", err=True)
    if windows:
        click.echo(f"onepass: long texts were read in windows, {texts:,} texts in {texts + windows:,} rows", err=True)


def finished(encoder: Encoder, ask: Ask[Any], chunks: Iterable[list[Text]]) -> Generator[Pending, None, None]:
    """Each chunk with its answer, in order.

    The event loop runs in a thread of its own, so that this one may wait for a file, and Ctrl-C reaches it there.
    """
    pending: deque[Pending] = deque()
    start = 0
    with event_loop() as loop:
        for chunk in chunks:
            job = encoder.job()
            pending.append(Pending(start, chunk, job, asyncio.run_coroutine_threadsafe(ask(job, chunk), loop)))
            start += len(chunk)
            if len(pending) == AHEAD:
                yield waited(pending.popleft())
        while pending:
            yield waited(pending.popleft())


def waited(chunk: Pending) -> Pending:
    """The chunk, answered. A task counts inputs from the start of its chunk; an error of it says so."""
    try:
        chunk.answer.result()
    except InvalidInput as error:
        if chunk.start:
            error.add_note(f"counted from text {chunk.start} of the whole input")
        raise
    return chunk


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A running event loop; what still runs in it at the end is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="onepass-shell", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(cancel_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
