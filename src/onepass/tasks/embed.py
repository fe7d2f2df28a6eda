"""One vector per text, as the checkpoint's pooling makes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Text
from onepass.tasks.prompts import InputType, prompt_or_type
from onepass.tasks.reading import Reading
from onepass.tasks.texts import texts_or_ids
from onepass.tasks.vectors import Precision, Ranges, Vectors, form


class EmbedOptions(TypedDict, total=False):
    """The options of `embed`."""

    prompt: str | None
    input_type: InputType | None
    dimensions: int | None
    normalize: bool | None
    precision: Precision
    ranges: Ranges | None
    max_tokens: int | None
    truncate: Truncate
    head: str | None


async def embed(
    job: Job,
    texts: Iterable[Text],
    *,
    prompt: str | None = None,
    input_type: InputType | None = None,
    dimensions: int | None = None,
    normalize: bool | None = None,
    precision: Precision = "float32",
    ranges: Ranges | None = None,
    max_tokens: int | None = None,
    truncate: Truncate = "right",
    special: bool = True,
    head: str | None = None,
) -> Vectors:
    """float32 [n, width], int8 or uint8 [n, width], int8 (binary) or uint8 (ubinary) [n, ceil(width / 8)].

    prompt: a prompt name of the checkpoint, or the text itself if it holds a space, line break or colon; None: the
    checkpoint's default prompt.
    input_type: "query" or "document" instead: the checkpoint's prompt of that name, or of "passage" or "corpus" for
    documents, or none.
    dimensions: keep that many leading values, and make the length 1 again where the vectors are normalised.
    normalize: None does as the checkpoint says.
    precision: int8 maps -1..1 of a unit vector to -127..127, uint8 to 1..255; binary and ubinary keep signs, eight to a
    byte, first value in the highest bit, binary minus 128 (as sentence-transformers and Cohere pack them).
    ranges: [2, width], lowest and highest value of each dimension in vectors like these; int8 and uint8 then divide
    what lies between into 256 steps, as sentence-transformers does.
    max_tokens: of a row, special tokens included; longer texts are over-long even where the model takes more.
    special: whether given token ids get special tokens around them.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    wanted = form(job, dimensions, normalize, precision, ranges, head)
    if max_tokens is not None and max_tokens < 1:
        raise InvalidInput(f"max_tokens is {max_tokens}; ask for at least 1, or leave it out")
    ask = Ask(wanted.head, finish=wanted.finish)
    text = prompt_or_type(job, prompt, input_type)
    options = EncodeOptions(prompt=text, truncate=truncate, special=special, window=max_tokens)
    outputs = await job.run(texts_or_ids(texts), ask, options=options)
    return wanted.of(np.concatenate([vector for (vector,) in outputs]))


def embedding(job: Job, name: str, head: HeadSpec) -> Reading[Floats]:
    """A text's vector as the checkpoint makes it, float32 [width]."""
    ask = Ask(name)
    return Reading(lambda text, row: ask, lambda text, rows: rows[0].outputs[0].values[0])
