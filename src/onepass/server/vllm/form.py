"""What the requests and answers of vLLM's pooling routes have in common."""

from __future__ import annotations

import time
import uuid
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from onepass.errors import EmptyInput, InvalidInput, OnepassError
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.tokenizer import Input
from onepass.server.inputs import TextsOrIds, check_sizes, texts_or_ids
from onepass.server.operation import Dialect
from onepass.server.service import Call


class Problem(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: int


class Failure(msgspec.Struct):
    error: Problem


class Asked(msgspec.Struct, kw_only=True):
    """`truncate_prompt_tokens`: cut inputs to so many tokens, or with -1 to the model's length; left out, refuse them.

    `use_activation`: false leaves logits, or vectors that are not scaled to length 1.  `user`, `cache_salt` and
    `mm_processor_kwargs` change nothing.
    """

    model: str | None = None
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    padding: Literal["do_not_pad"] | None = None
    use_activation: bool | None = None
    request_id: str | None = None
    priority: int = 0
    normalize: msgspec.Raw | UnsetType = UNSET
    user: str | None = None
    cache_salt: str | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class AskedOfTexts(Asked, kw_only=True):
    """`input`: a text, a list of texts, one list of token ids, or a list of such lists. Ids are taken as they are."""

    input: TextsOrIds
    add_special_tokens: bool = True


class Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


async def given(call: Call, body: AskedOfTexts) -> tuple[Job, list[Input], EncodeOptions]:
    """A job, its inputs and how they become rows."""
    if body.input == []:
        raise EmptyInput("`input` is an empty list; send at least one text")
    texts, batch = texts_or_ids("input", body.input)
    job = call.open(body.model, len(texts), batch=batch)
    tokenizer = job.served.tokenizer

    def bare() -> list[Input]:
        return [
            [token.id for token in tokenizer.tokens(text, special=False)] if isinstance(text, str) else list(text)
            for text in texts
        ]

    inputs: list[Input] = [text if isinstance(text, str) else list(text) for text in texts]
    if not body.add_special_tokens:
        check_sizes(call, "input", texts)
        inputs = await job.off_loop(bare)
    return job, inputs, reading(call, body)


def reading(call: Call, body: Asked) -> EncodeOptions:
    """How inputs become rows. Raises InvalidInput, also for what this server does not do."""
    assert call.encoder is not None
    tokens, limit = body.truncate_prompt_tokens, call.encoder.checkpoint.max_length
    if not isinstance(body.normalize, UnsetType):
        raise InvalidInput("`normalize` is no longer a field of this route; use `use_activation`")
    if body.priority:
        raise InvalidInput(f"`priority` is {body.priority}, but requests here are served by arrival; leave it out")
    if tokens == 0 or (tokens is not None and tokens > limit):
        raise InvalidInput(f"`truncate_prompt_tokens` is {tokens}; choose 1 to {limit}, or -1 for {limit}")
    side = None if tokens is None else body.truncation_side or "right"
    window = None if tokens in (None, -1) else tokens
    return EncodeOptions(truncate=side, window=window, special=False)


def heading(call: Call, kind: str, request_id: str | None) -> dict[str, Any]:
    """The first fields of an answer."""
    return {
        "id": f"{kind}-{request_id or uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": call.model,
    }


def usage(job: Job) -> dict[str, Any]:
    tokens = job.usage.tokens
    return {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


def error_body(error: OnepassError, status: int) -> dict[str, Any]:
    names = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
    kind = names.get(status) or HTTPStatus(status).phrase
    param = "model" if error.code == "unknown_model" else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": status}}


WRONG = ("invalid_input", "input_too_long", "token_out_of_range", "wrong_task", "too_large")
VLLM = Dialect("vllm", error_body, Failure, dict.fromkeys(WRONG, 400))
