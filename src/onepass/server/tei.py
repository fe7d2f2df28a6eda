"""The routes of text-embeddings-inference: /embed /predict /rerank /similarity /tokenize /decode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec

from onepass.errors import EmptyInput, InputTooLong, InvalidInput, OnepassError
from onepass.schedule.tokenizer import Text
from onepass.server.answer import Answer, dumps, listing, unit_scores
from onepass.server.inputs import TextsOrIds, check_sizes, texts_or_ids, texts_or_pairs
from onepass.server.operation import Dialect, Operation
from onepass.server.service import Call
from onepass.tasks.classify import classify
from onepass.tasks.embed import embed
from onepass.tasks.rerank import rerank
from onepass.tasks.similarity import similarity

Side = Literal["Right", "Left", "right", "left"]

# Words of the wire for our error codes; what is missing here is Validation.
ERROR_TYPES = {
    "empty_input": "Empty",
    "wrong_task": "Backend",
    "engine_failure": "Backend",
    "internal": "Backend",
    "overloaded": "Overloaded",
    "unavailable": "Unhealthy",
    "cancelled": "Unhealthy",
    "unauthorized": "Unauthorized",
    "not_found": "NotFound",
    "method_not_allowed": "MethodNotAllowed",
    "unsupported_media": "UnsupportedMediaType",
    "bad_json": "BadJson",
    "body_too_large": "PayloadTooLarge",
}


class Failure(msgspec.Struct):
    error: str
    error_type: str


class EmbedRequest(msgspec.Struct, kw_only=True):
    """`inputs`: a text, a list of token ids, or a list of either."""

    inputs: TextsOrIds
    normalize: bool = True
    dimensions: int | None = None
    prompt_name: str | None = None
    truncate: bool | None = None
    truncation_direction: Side = "Right"
    model: str | None = None


class PredictRequest(msgspec.Struct, kw_only=True):
    """`inputs`: a text, a pair of texts, or a list of one-text and two-text lists."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Side = "Right"
    model: str | None = None


class RerankRequest(msgspec.Struct, kw_only=True):
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Side = "Right"
    model: str | None = None


class SimilarityInputs(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class SimilarityParameters(msgspec.Struct, kw_only=True):
    truncate: bool | None = None
    truncation_direction: Side = "Right"
    prompt_name: str | None = None


class SimilarityRequest(msgspec.Struct, kw_only=True):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


class DecodeRequest(msgspec.Struct, kw_only=True):
    ids: list[int | list[int]]
    skip_special_tokens: bool = True
    model: str | None = None


class Prediction(msgspec.Struct):
    score: float
    label: str


class Rank(msgspec.Struct, omit_defaults=True):
    index: int
    score: float
    text: str | None = None


class TokenInfo(msgspec.Struct):
    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


async def answer_embed(call: Call, body: EmbedRequest) -> Answer:
    inputs, batch = texts_or_ids("inputs", body.inputs)
    job = call.open(body.model, len(inputs), batch=batch)
    refuse_empty(inputs)
    vectors = await embed(
        job,
        inputs,
        prompt=call.prompt(body.prompt_name),
        dimensions=body.dimensions,
        normalize=body.normalize,
        special=False,
        truncate=call.cut(body.truncate, side(body.truncation_direction)),
    )
    step = max(1, 32_768 // vectors.shape[1])
    return listing(len(vectors), lambda start, stop: vectors[start:stop], step=step)


async def answer_predict(call: Call, body: PredictRequest) -> Answer:
    if not body.inputs:
        raise EmptyInput("`inputs` cannot be empty")
    inputs, batch = texts_or_pairs("inputs", body.inputs)
    job = call.open(body.model, len(inputs), batch=batch)
    if any(not "".join(item) for item in inputs):
        raise EmptyInput("`inputs` cannot be empty")
    labels = await classify(
        job,
        inputs,
        raw_scores=body.raw_scores,
        truncate=call.cut(body.truncate, side(body.truncation_direction)),
    )
    rows = [[{"score": score, "label": label} for label, score in row] for row in labels]
    if not batch:
        return Answer(dumps(rows[0]))
    step = max(1, 2_048 // max(len(rows[0]), 1))
    return listing(len(rows), lambda start, stop: rows[start:stop], step=step)


async def answer_rerank(call: Call, body: RerankRequest) -> Answer:
    job = call.open(body.model, len(body.texts))
    if not body.texts:
        raise EmptyInput("`texts` cannot be empty")
    ranks = await rerank(
        job,
        body.query,
        body.texts,
        raw_scores=body.raw_scores,
        truncate=call.cut(body.truncate, side(body.truncation_direction)),
    )
    if not body.raw_scores:
        ranks = unit_scores(call, ranks)

    def rows(start: int, stop: int) -> list[dict[str, Any]]:
        if body.return_text:
            return [
                {"index": one.index, "text": body.texts[one.index], "score": one.score} for one in ranks[start:stop]
            ]
        return [{"index": one.index, "score": one.score} for one in ranks[start:stop]]

    return listing(len(ranks), rows, step=1_024)


async def answer_similarity(call: Call, body: SimilarityRequest) -> Answer:
    source, sentences = body.inputs.source_sentence, body.inputs.sentences
    parameters = body.parameters or SimilarityParameters()
    job = call.open(body.model, len(sentences) + 1)
    if not sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    refuse_empty([source, *sentences])
    cosines = await similarity(
        job,
        [source],
        sentences,
        prompt=call.prompt(parameters.prompt_name),
        truncate=call.cut(parameters.truncate, side(parameters.truncation_direction)),
    )
    return listing(len(sentences), lambda start, stop: cosines[0, start:stop], step=32_768)


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


def refuse_empty(inputs: Sequence[Text]) -> None:
    if not all(inputs):
        raise EmptyInput("`inputs` cannot be empty")


def side(direction: Side) -> Literal["left", "right"]:
    return "left" if direction in ("Left", "left") else "right"


def error_body(error: OnepassError, status: int) -> dict[str, str]:
    """`{"error": ..., "error_type": ...}`, in the words that TEI's clients look for."""
    message = str(error)
    if isinstance(error, InputTooLong):
        message = f"`inputs` must have less than {error.limit} {error.unit}. Given: {error.size}"
    if error.code in ("empty_input", "input_too_long", "invalid_input", "token_out_of_range"):
        message = f"Input validation error: {message}"
    return {"error": message, "error_type": ERROR_TYPES.get(error.code, "Validation")}


TEI = Dialect("tei", error_body, Failure, {"wrong_task": 424, "engine_failure": 424})

OPERATIONS = (
    Operation("/embed", "embed", TEI, EmbedRequest, list[list[float]], answer_embed, "One vector per input."),
    Operation(
        "/predict",
        "predict",
        TEI,
        PredictRequest,
        list[Prediction | list[Prediction]],
        answer_predict,
        "Labels with scores, best first, per input.",
    ),
    Operation("/rerank", "predict", TEI, RerankRequest, list[Rank], answer_rerank, "Texts by relevance to a query."),
    Operation(
        "/similarity",
        "embed",
        TEI,
        SimilarityRequest,
        list[float],
        answer_similarity,
        "Cosines of one text with others.",
    ),
    Operation(
        "/tokenize", "tokenize", TEI, TokenizeRequest, list[list[TokenInfo]], answer_tokenize, "Tokens of texts."
    ),
    Operation("/decode", "decode", TEI, DecodeRequest, list[str], answer_decode, "Texts of token ids."),
)
