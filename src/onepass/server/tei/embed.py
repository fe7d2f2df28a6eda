"""/embed, /embed_all, /embed_sparse, /similarity: vectors of texts, and cosines."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput
from onepass.schedule.job import Job
from onepass.schedule.tokenizer import Text
from onepass.server.answer import Answer, listing, nested
from onepass.server.inputs import TextsOrIds, texts_or_ids
from onepass.server.operation import Operation
from onepass.server.service import Call
from onepass.server.tei.form import TEI, Cut, refuse_empty
from onepass.tasks.embed import embed
from onepass.tasks.similarity import similarity
from onepass.tasks.sparse import SparseVector, sparse
from onepass.tasks.token_states import token_states

AT_ONCE = 32_768
"""Numbers written in about a millisecond."""


class Embedding(Cut, kw_only=True):
    """`inputs`: a text, a list of token ids, or a list of either."""

    inputs: TextsOrIds
    prompt_name: str | None = None


class EmbedRequest(Embedding, kw_only=True):
    normalize: bool = True
    dimensions: int | None = None


class EmbedAllRequest(Embedding, kw_only=True):
    pass


class EmbedSparseRequest(Embedding, kw_only=True):
    pass


class SimilarityInputs(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class SimilarityParameters(Cut, kw_only=True):
    prompt_name: str | None = None


class SimilarityRequest(msgspec.Struct, kw_only=True):
    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: str | None = None


class SparseValue(msgspec.Struct):
    index: int
    value: float


def opened(call: Call, body: Embedding) -> tuple[Job, list[Text]]:
    inputs, batch = texts_or_ids("inputs", body.inputs)
    job = call.open(body.model, len(inputs), batch=batch)
    refuse_empty(inputs)
    return job, inputs


async def answer_embed(call: Call, body: EmbedRequest) -> Answer:
    job, inputs = opened(call, body)
    vectors = await embed(
        job,
        inputs,
        prompt=call.prompt(body.prompt_name),
        dimensions=body.dimensions,
        normalize=body.normalize,
        special=False,
        truncate=body.side(call),
    )
    step = max(1, AT_ONCE // vectors.shape[1])
    return listing(len(vectors), lambda start, stop: vectors[start:stop], step=step)


async def answer_embed_all(call: Call, body: EmbedAllRequest) -> Answer:
    """A vector for each token, special ones included, before pooling and whatever follows it."""
    job, inputs = opened(call, body)
    prompt = call.prompt(body.prompt_name)
    found = await token_states(job, inputs, prompt=prompt, special=False, truncate=body.side(call))

    def written(states: Floats) -> Answer:
        step = max(1, AT_ONCE // states.shape[1])
        return listing(len(states), lambda start, stop: states[start:stop], step=step)

    return nested(map(written, found))


async def answer_embed_sparse(call: Call, body: EmbedSparseRequest) -> Answer:
    """The weights of each input that are not 0, by rising number of the token."""
    job, inputs = opened(call, body)
    prompt = call.prompt(body.prompt_name)
    found = await sparse(job, inputs, prompt=prompt, special=False, truncate=body.side(call))

    def written(vector: SparseVector) -> Answer:
        order = np.argsort(vector.ids)
        ids, weights = vector.ids[order].tolist(), vector.weights[order].tolist()

        def rows(start: int, stop: int) -> list[dict[str, Any]]:
            pairs = zip(ids[start:stop], weights[start:stop], strict=True)
            return [{"index": index, "value": value} for index, value in pairs]

        return listing(len(ids), rows, step=2_048)

    return nested(map(written, found))


async def answer_similarity(call: Call, body: SimilarityRequest) -> Answer:
    source, sentences = body.inputs.source_sentence, body.inputs.sentences
    parameters = body.parameters or SimilarityParameters()
    job = call.open(body.model, len(sentences) + 1)
    if not sentences:
        raise EmptyInput("`inputs.sentences` cannot be empty")
    refuse_empty([source, *sentences])
    cosines = await similarity(
        job, [source], sentences, prompt=call.prompt(parameters.prompt_name), truncate=parameters.side(call)
    )
    return listing(len(sentences), lambda start, stop: cosines[0, start:stop], step=AT_ONCE)


OPERATIONS = (
    Operation("/embed", "embed", TEI, EmbedRequest, list[list[float]], answer_embed, "One vector per input."),
    Operation(
        "/embed_all",
        "embed",
        TEI,
        EmbedAllRequest,
        list[list[list[float]]],
        answer_embed_all,
        "One vector per token of each input.",
    ),
    Operation(
        "/embed_sparse",
        "embed",
        TEI,
        EmbedSparseRequest,
        list[list[SparseValue]],
        answer_embed_sparse,
        "The weighted vocabulary tokens of each input.",
    ),
    Operation(
        "/similarity",
        "embed",
        TEI,
        SimilarityRequest,
        list[float],
        answer_similarity,
        "Cosines of one text with others.",
    ),
)
