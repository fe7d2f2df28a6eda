"""Labels for tokens, or for what they make up, as the token-classification pipeline answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from onepass.server.answer import Answer
from onepass.server.hugging_face.form import Asked, Texts, each, many
from onepass.server.service import Call
from onepass.tasks.tag import Entity, Strategy, Token, tag, tag_tokens


class TaggingParameters(msgspec.Struct, kw_only=True):
    aggregation_strategy: Strategy | None = None
    ignore_labels: tuple[str, ...] = ("O",)
    stride: int | None = None


class TokenClassification(Asked, kw_only=True):
    """`aggregation_strategy`: null: what the model says.  `stride`: tokens that a window of a long
    text shares with the one before.
    """

    inputs: Texts
    parameters: TaggingParameters = msgspec.field(default_factory=TaggingParameters)


async def classify_tokens(call: Call, body: TokenClassification) -> Answer:
    texts, wanted = many(body.inputs), body.parameters
    job = call.open(body.model, len(texts), batch=isinstance(body.inputs, list))
    if wanted.aggregation_strategy == "none":
        ignored = frozenset(wanted.ignore_labels)
        tokens = await tag_tokens(job, texts, overlap=wanted.stride)
        spelling = job.served.tokenizer.spelling
        return each(body.inputs, [single_tokens(row, ignored, spelling) for row in tokens])
    groups = await tag(
        job,
        texts,
        aggregation=wanted.aggregation_strategy,
        ignore_labels=wanted.ignore_labels,
        overlap=wanted.stride,
    )
    return each(body.inputs, [list(map(group, row)) for row in groups])


def single_tokens(tokens: list[Token], ignored: frozenset[str], spelling: Callable[[int], str]) -> list[dict[str, Any]]:
    """The tokens whose likeliest label is not ignored."""
    best = ((max(token.scores, key=token.scores.__getitem__), token) for token in tokens)
    return [
        {
            "entity": label,
            "score": token.scores[label],
            "index": token.place,
            "word": spelling(token.id),
            "start": token.start,
            "end": token.stop,
        }
        for label, token in best
        if label not in ignored
    ]


def group(entity: Entity) -> dict[str, Any]:
    return {
        "entity_group": entity.label,
        "score": entity.score,
        "word": entity.text,
        "start": entity.start,
        "end": entity.stop,
    }
