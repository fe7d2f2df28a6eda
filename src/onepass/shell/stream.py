"""Texts through a task, chunk by chunk: the next is under way while the results of one are written."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from onepass.encoder import Encoder
from onepass.errors import EmptyInput
from onepass.schedule.job import Job
from onepass.settings import ModelSettings
from onepass.shell.inputs import Source, Text, chunks
from onepass.shell.progress import progress

AHEAD = 2

Answer = TypeVar("Answer")
Ask = Callable[[Job, list[Any]], Coroutine[Any, Any, Answer]]
Write = Callable[[int, list[Text], Answer], None]


class Pending(NamedTuple):
    """A chunk on its way."""

    texts: list[Text]
    job: Job
    answer: Future[Any]


def run(
    model: str, settings: ModelSettings, source: Source, ask: Ask[Answer], write: Write[Answer], output: Path | None
) -> None:
    """Load the model and ask it about every text; `write` gets each chunk: index of its first text, texts, answer.

    Says on stderr how many texts were cut. Raises EmptyInput where the source holds nothing.
    """
    texts = cut = 0
    with Encoder(model, **dataclasses.asdict(settings)) as encoder, progress(source, output) as advance:
        for chunk in finished(encoder, ask, chunks(source.texts)):
            write(texts, chunk.texts, chunk.answer.result())
            texts += len(chunk.texts)
            cut += chunk.job.usage.truncated
            advance(len(chunk.texts), chunk.job.usage.tokens)
    if not texts:
        raise EmptyInput("the input holds no texts; give at least one")
    if cut:
        words = f"{cut:,} of {texts:,} texts were longer than the model takes and were cut"
        click.echo(f"onepass: {words}; --truncate none refuses them instead", err=True)


def finished(encoder: Encoder, ask: Ask[Any], chunks: Iterable[list[Text]]) -> Iterator[Pending]:
    """Each chunk with its answer, in order.

    The event loop runs in a thread of its own, so that this one may wait for a file, and Ctrl-C reaches it there.
    """
    pending: deque[Pending] = deque()
    with event_loop() as loop:
        try:
            for chunk in chunks:
                job = encoder.job()
                pending.append(Pending(chunk, job, asyncio.run_coroutine_threadsafe(ask(job, chunk), loop)))
                if len(pending) == AHEAD:
                    pending[0].answer.result()
                    yield pending.popleft()
            while pending:
                pending[0].answer.result()
                yield pending.popleft()
        finally:
            for waiting in pending:
                waiting.answer.cancel()


@contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="onepass-shell", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
