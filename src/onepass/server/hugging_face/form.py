"""What the requests and answers of all tasks have in common."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from onepass.errors import EmptyInput
from onepass.server.answer import Answer, dumps, listing

TopK = Annotated[int, Meta(ge=1, le=1_000)]
Texts = str | list[str]


class Asked(msgspec.Struct, kw_only=True):
    model: str | None = None


def many(inputs: Texts) -> list[str]:
    if not inputs:
        raise EmptyInput("`inputs` cannot be empty")
    return [inputs] if isinstance(inputs, str) else inputs


def each(inputs: Texts, rows: list[Any]) -> Answer:
    """What belongs to the one text, or a list of that for each."""
    if isinstance(inputs, str):
        return Answer(dumps(rows[0]))
    return listing(len(rows), lambda start, stop: rows[start:stop], step=32)
