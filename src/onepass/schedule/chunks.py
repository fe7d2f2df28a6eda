"""A request's inputs in chunks: what is tokenised together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onepass.schedule.tokenizer import Input

CHUNK_ITEMS = 32  # tokenised together: the first are computed while the next are tokenised, and others get their turn
MOST_ITEMS = 128  # of later chunks; fewer where the queue has not the room for so many rows
CHUNK_CHARACTERS = 32_768  # or token ids
CHARACTERS_AT_ONCE = 500  # of a first chunk: tokenised sooner than it could go to another thread and back


def chunks_of(inputs: Iterable[Input], largest: int) -> Iterator[list[Input]]:
    """Chunks of about CHUNK_CHARACTERS: first of CHUNK_ITEMS inputs, then each time of twice as many, to `largest`."""
    chunk: list[Input] = []
    held, most = 0, CHUNK_ITEMS
    for item in inputs:
        chunk.append(item)
        held += size(item)
        if len(chunk) == most or held >= CHUNK_CHARACTERS:
            yield chunk
            chunk, held, most = [], 0, min(2 * most, largest)
    if chunk:
        yield chunk


def size(item: Input) -> int:
    """Characters, or token ids."""
    return len(item) if isinstance(item, list) else characters(item)


def characters(item: Input) -> int:
    """Of the texts of an item; token ids have none."""
    if isinstance(item, str):
        return len(item)
    return sum(map(len, item)) if isinstance(item, tuple) else 0
