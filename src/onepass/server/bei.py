"""Token classification as Baseten's BEI answers it: /predict_tokens, in the frame of text-embeddings-inference."""

from __future__ import annotations

from typing import Any

import msgspec

from onepass.errors import EmptyInput, InvalidInput
from onepass.server.answer import Answer, listing
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.tei.form import TEI, Cut
from onepass.tasks.tag import Entity, Strategy, Token, tag, tag_tokens


class PredictTokensRequest(Cut, kw_only=True):
    """`inputs`: texts, each alone or in a list of its own.  `raw_scores`: of every label, the logits of single tokens.

    `truncate`, `truncation_direction`: long texts are read in windows, so that nothing has to be cut.
    """

    inputs: list[str | list[str]]
    raw_scores: bool = False
    aggregation_strategy: Strategy = "none"


class TokenResult(msgspec.Struct):
    """`token_id`: 0 where tokens were put together.  `start`, `end`: characters.  `results`: scores by label."""

    token: str
    token_id: int
    start: int
    end: int
    results: dict[str, float]


async def answer_predict_tokens(call: Call, body: PredictTokensRequest) -> Answer:
    texts = [text_of(number, item) for number, item in enumerate(body.inputs)]
    job = call.open(body.model, len(texts))
    if not texts:
        raise EmptyInput("`inputs` cannot be empty")
    rows: list[list[dict[str, Any]]]
    if body.aggregation_strategy == "none":
        found = await tag_tokens(job, texts, raw_scores=body.raw_scores)
        rows = [
            [single(text, token, every=body.raw_scores) for token in tokens]
            for text, tokens in zip(texts, found, strict=True)
        ]
    elif body.raw_scores:
        raise InvalidInput(
            f"`raw_scores` are those of single tokens, but `aggregation_strategy` is {body.aggregation_strategy!r}; "
            "ask for 'none', or leave `raw_scores` out"
        )
    else:
        rows = [
            list(map(together, entities)) for entities in await tag(job, texts, aggregation=body.aggregation_strategy)
        ]
    return listing(len(rows), lambda start, stop: rows[start:stop], step=32)


def text_of(number: int, item: str | list[str]) -> str:
    """Raises InvalidInput for a list of other than one text."""
    if isinstance(item, str):
        return item
    if len(item) != 1:
        raise InvalidInput(f"`inputs` number {number} is a list of {len(item)} texts; put each text into its own")
    return item[0]


def single(text: str, token: Token, *, every: bool) -> dict[str, Any]:
    """every: label, or only the likeliest."""
    scores = token.scores
    if not every:
        best = max(scores, key=scores.__getitem__)
        scores = {best: scores[best]}
    return {
        "token": text[token.start : token.stop],
        "token_id": token.id,
        "start": token.start,
        "end": token.stop,
        "results": scores,
    }


def together(entity: Entity) -> dict[str, Any]:
    return {
        "token": entity.text,
        "token_id": 0,
        "start": entity.start,
        "end": entity.stop,
        "results": {entity.label: entity.score},
    }


OPERATIONS = (
    Operation(
        "/predict_tokens",
        "tag",
        TEI,
        PredictTokensRequest,
        list[list[TokenResult]],
        answer_predict_tokens,
        "Tokens or entities of texts with scores by label.",
    ),
)
