"""Texts through a task, chunk by chunk: the next is under way while the results of one are written."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import click

from onepass.encoder import Encoder
from onepass.errors import EmptyInput
from onepass.schedule.job import Job
from onepass.settings import ModelSettings
from onepass.shell.inputs import Source, Text, chunks
from onepass.shell.progress import progress

AHEAD = 2

Answer = TypeVar("Answer")
Ask = Callable[[Job, list[Any]], Awaitable[Answer]]
Write = Callable[[int, list[Text], Answer], None]


def run(
    model: str, settings: ModelSettings, source: Source, ask: Ask[Answer], write: Write[Answer], output: Path | None
) -> None:
    """Load the model and ask it about every text; `write` gets each chunk: index of its first text, texts, answer.

    Says on stderr how many texts were cut. Raises EmptyInput where the source holds nothing.
    """
    with Encoder(model, **dataclasses.asdict(settings)) as encoder, progress(source, output) as advance:
        texts, cut = asyncio.run(drive(encoder, source, ask, write, advance))
        if not texts:
            raise EmptyInput("the input holds no texts; give at least one")
    if cut:
        words = f"{cut:,} of {texts:,} texts were longer than the model takes and were cut"
        click.echo(f"onepass: {words}; --truncate none refuses them instead", err=True)


async def drive(
    encoder: Encoder, source: Source, ask: Ask[Answer], write: Write[Answer], advance: Callable[[int, int], None]
) -> tuple[int, int]:
    """How many texts there were, and how many rows were cut."""
    texts = cut = 0
    async with aclosing(answers(encoder, ask, chunks(source.texts))) as finished:
        async for chunk, answer, job in finished:
            write(texts, chunk, answer)
            texts += len(chunk)
            cut += job.usage.truncated
            advance(len(chunk), job.usage.tokens)
    return texts, cut


async def answers(
    encoder: Encoder, ask: Ask[Answer], chunks: Iterable[list[Text]]
) -> AsyncGenerator[tuple[list[Text], Answer, Job]]:
    """Each chunk with its answer and its finished job, in order."""
    pending: deque[tuple[list[Text], asyncio.Future[Answer], Job]] = deque()
    try:
        for chunk in chunks:
            job = encoder.job(wait=True)
            pending.append((chunk, asyncio.ensure_future(ask(job, chunk)), job))
            if len(pending) == AHEAD:
                yield await first(pending)
        while pending:
            yield await first(pending)
    finally:
        for _, answer, _ in pending:
            answer.cancel()


async def first(
    pending: deque[tuple[list[Text], asyncio.Future[Answer], Job]],
) -> tuple[list[Text], Answer, Job]:
    chunk, answer, job = pending.popleft()
    return chunk, await answer, job
