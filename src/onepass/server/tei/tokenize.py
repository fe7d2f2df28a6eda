"""/tokenize, /decode: tokens of texts, and texts of tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from onepass.errors import EmptyInput, InvalidInput
from onepass.server.answer import Answer, dumps, listing
from onepass.server.inputs import check_sizes
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.tei.form import TEI, Asked, refuse_empty


class TokenizeRequest(Asked, kw_only=True):
    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(Asked, kw_only=True):
    ids: list[int | list[int]]
    skip_special_tokens: bool = True


class TokenInfo(msgspec.Struct):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


async def answer_tokenize(call: Call, body: TokenizeRequest) -> Answer:
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    encoder = call.choose(body.model)
    call.check_count(len(texts))
    if not texts:
        raise EmptyInput("`inputs` cannot be empty")
    refuse_empty(texts)
    name = call.prompt(body.prompt_name) or encoder.checkpoint.default_prompt
    prompt = encoder.checkpoint.prompts[name] if name is not None else ""
    check_sizes(call, "inputs", texts)

    def piece(text: str) -> bytes:
        return dumps(
            [
                {"id": token.id, "text": token.text, "special": token.special, "start": token.start, "stop": token.stop}
                for token in encoder.tokenizer.tokens(prompt + text, special=body.add_special_tokens)
            ]
        )

    return Answer(threaded_list(texts, piece))


async def answer_decode(call: Call, body: DecodeRequest) -> Answer:
    numbers = [item for item in body.ids if isinstance(item, int)]
    lists = [item for item in body.ids if isinstance(item, list)]
    encoder = call.choose(body.model)
    call.check_count(max(len(lists), 1))
    if not body.ids:
        raise EmptyInput("`ids` cannot be empty")
    if numbers and lists:
        raise InvalidInput("`ids` mixes token ids with lists; put the ids of each text into a list of their own")
    rows = lists or [numbers]
    texts = await asyncio.to_thread(
        lambda: [encoder.tokenizer.decode(row, skip_special=body.skip_special_tokens) for row in rows]
    )
    return listing(len(texts), lambda start, stop: texts[start:stop], step=1_024)


async def threaded_list(items: Sequence[str], piece: Any) -> AsyncIterator[bytes]:
    """A JSON array of what `piece` makes of each item, made in a thread, one item at a time."""
    for number, item in enumerate(items):
        yield (b"," if number else b"[") + await asyncio.to_thread(piece, item)
    yield b"]"


OPERATIONS = (
    Operation(
        "/tokenize", "tokenize", TEI, TokenizeRequest, list[list[TokenInfo]], answer_tokenize, "Tokens of texts."
    ),
    Operation("/decode", "decode", TEI, DecodeRequest, list[str], answer_decode, "Texts of token ids."),
)
