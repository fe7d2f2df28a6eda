"""Weights of vocabulary tokens for a text: SPLADE, BGE-M3's lexical weights, and tables of queries' tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from onepass.engines.batch import Floats, Ints, RowOutput
from onepass.errors import InvalidInput
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Encoded, Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Text, Tokenizer
from onepass.tasks.heads import head_of
from onepass.tasks.prompts import InputType, prompt_for
from onepass.tasks.reading import Reading
from onepass.tasks.texts import texts_or_ids


@dataclass(frozen=True, slots=True)
class TokenWeight:
    """token: as the vocabulary spells it ("##ing"), None for an id that no token has.  id: its number."""

    token: str | None
    id: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A text as weights of tokens, best first; the others weigh 0. It iterates over `TokenWeight`.

    ids: int32 [m].  weights: float32 [m].
    Two arrays, because they are what indexes take; how tokens are spelt is looked up when asked for.
    """

    ids: Ints
    weights: Floats
    tokenizer: Tokenizer = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[TokenWeight]:
        return map(TokenWeight, self.tokens(), self.ids.tolist(), self.weights.tolist())

    def tokens(self) -> list[str | None]:
        return self.tokenizer.spellings(self.ids.tolist())

    def dot(self, other: SparseVector) -> float:
        """The sum of products over common tokens: how well a document answers a query."""
        _, mine, theirs = np.intersect1d(self.ids, other.ids, assume_unique=True, return_indices=True)
        return float(self.weights[mine] @ other.weights[theirs])


async def sparse(
    job: Job,
    texts: Iterable[Text],
    *,
    input_type: InputType = "document",
    top_k: int | None = None,
    threshold: float = 0.0,
    prompt: str | None = None,
    truncate: Truncate = "right",
    special: bool = True,
    head: str | None = None,
) -> list[SparseVector]:
    """A vector of token weights for each text, as sentence-transformers' SparseEncoder or BGE-M3 gives it.

    SPLADE (a masked language model): log(1 + relu(score)) of every token of the vocabulary, the maximum or the sum over
    the text. BGE-M3: relu(w . h + b) of the text's own tokens, the maximum where one stands several times.
    input_type: "query" reads queries, by a table and without a forward pass where the checkpoint has one; it and
    "document" choose the prompt, too.  prompt: another prompt's name or text, as for embed.
    top_k: most weights of a vector; None: the checkpoint's own limit, if it has one.
    threshold: weights must be larger than it.
    special: whether given token ids get special tokens around them.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, _ = head_of(job, "sparse", "sparse", head)
    if top_k is not None and top_k < 1:
        raise InvalidInput(f"top_k is {top_k}; ask for at least 1")
    if not 0 <= threshold < math.inf:
        raise InvalidInput(f"threshold is {threshold}; give a number from 0 on")
    served = job.served
    top = served.checkpoint.most_weights if top_k is None else top_k
    options = EncodeOptions(prompt=prompt_for(job, input_type, prompt), truncate=truncate, special=special)
    if input_type == "query" and served.checkpoint.table is not None and served.queries is not None:
        weights, tokenizer = served.checkpoint.table.weights, served.queries

        def looked_up(row: Encoded) -> SparseVector:
            ids = np.unique(np.frombuffer(row.ids, np.int32))
            return _vector(tokenizer, RowOutput(weights[ids, None], ids).strongest(top, threshold))

        return await job.without_forward(texts_or_ids(texts), looked_up, tokenizer, options)
    ask = Ask(name, top=top, above=threshold)
    outputs = await job.outputs(texts_or_ids(texts), lambda _: (ask,), options=options)
    return [_vector(served.tokenizer, output) for (output,) in outputs]


def weighing(job: Job, name: str, head: HeadSpec) -> Reading[SparseVector]:
    """A text's weights as the checkpoint makes them."""
    tokenizer, ask = job.served.tokenizer, Ask(name, top=job.served.checkpoint.most_weights, above=0.0)
    return Reading(lambda text, row: ask, lambda text, rows: _vector(tokenizer, rows[0].outputs[0]))


def _vector(tokenizer: Tokenizer, output: RowOutput) -> SparseVector:
    assert output.ids is not None
    return SparseVector(output.ids, output.values[:, 0], tokenizer)
