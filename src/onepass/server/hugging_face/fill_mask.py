"""Tokens for masks, as the fill-mask pipeline answers."""

from __future__ import annotations

from typing import Any

import msgspec

from onepass.server.answer import Answer
from onepass.server.hugging_face.form import Asked, Texts, TopK, each, many
from onepass.server.service import Call
from onepass.tasks.fill import Filling, fill


class FillParameters(msgspec.Struct, kw_only=True):
    targets: list[str] | None = None
    top_k: TopK = 5


class FillMask(Asked, kw_only=True):
    inputs: Texts
    parameters: FillParameters = msgspec.field(default_factory=FillParameters)


async def fill_masks(call: Call, body: FillMask) -> Answer:
    """For one mask a list of tokens, for several a list of such lists."""
    texts, wanted = many(body.inputs), body.parameters
    found = await fill(
        call.open(body.model, len(texts), batch=isinstance(body.inputs, list)),
        texts,
        top_k=wanted.top_k,
        candidates=wanted.targets,
        truncate=call.cut(None),
    )
    masks = [[list(map(filled, tokens)) for tokens in row] for row in found]
    return each(body.inputs, [row[0] if len(row) == 1 else row for row in masks])


def filled(filling: Filling) -> dict[str, Any]:
    return {
        "score": filling.score,
        "token": filling.id,
        "token_str": filling.token,
        "sequence": filling.sequence,
    }
