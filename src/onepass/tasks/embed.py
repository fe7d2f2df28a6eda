"""One vector per text, as the checkpoint's pooling makes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput
from onepass.model.heads import HeadSpec
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import EncodeOptions, Input, Text
from onepass.tasks.heads import head_of
from onepass.tasks.reading import Reading

Precision = Literal["float32", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "binary")


class EmbedOptions(TypedDict, total=False):
    """The options of `embed`."""

    prompt: str | None
    dimensions: int | None
    normalize: bool | None
    precision: Precision
    truncate: Truncate
    head: str | None


async def embed(
    job: Job,
    texts: Iterable[Text],
    *,
    prompt: str | None = None,
    dimensions: int | None = None,
    normalize: bool | None = None,
    precision: Precision = "float32",
    truncate: Truncate = "right",
    special: bool = True,
    head: str | None = None,
) -> NDArray[np.float32] | NDArray[np.int8]:
    """float32 [n, width], int8 [n, width] or int8 [n, ceil(width / 8)] (binary).

    prompt: a prompt name of the checkpoint, or the text itself if it holds a space, line break or colon; None: the
    checkpoint's default prompt.
    dimensions: keep that many leading values, and make the length 1 again where the vectors are normalised.
    normalize: None does as the checkpoint says.
    precision: int8 maps -1..1 of a unit vector to -127..127; binary keeps signs, eight to a byte, first value in the
    highest bit, minus 128 (as sentence-transformers and Cohere pack it).
    special: whether given token ids get special tokens around them.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    name, found = head_of(job, "embed", "embed", head)
    width = job.served.checkpoint.widths[name]
    if dimensions is not None and not 1 <= dimensions <= width:
        raise InvalidInput(f"dimensions is {dimensions}, this model gives 1 to {width}; ask for a number between")
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision {precision!r} is unknown; choose {', '.join(PRECISIONS)}")
    unit = found.finish == "l2" if normalize is None else normalize
    if precision == "int8" and not unit:
        raise InvalidInput("precision int8 needs vectors of length 1; leave normalize on, or ask for float32")
    ask = Ask(name, finish="l2" if unit else "none")
    options = EncodeOptions(prompt=prompt_text(job, prompt), truncate=truncate, special=special)
    outputs = await job.run(_not_empty(texts), ask, options=options)
    vectors = np.concatenate([vector for (vector,) in outputs])
    return quantize(cut(vectors, dimensions or width, unit=unit), precision)


def embedding(job: Job, name: str, head: HeadSpec) -> Reading[Floats]:
    """A text's vector as the checkpoint makes it, float32 [width]."""
    ask = Ask(name)
    return Reading(lambda text, row: ask, lambda text, rows: rows[0].outputs[0].values[0])


def cut(vectors: Floats, dimensions: int, *, unit: bool) -> Floats:
    """The leading values of each row, scaled to length 1 again if they were (Matryoshka)."""
    if dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    if unit:
        kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.float32(1e-12))
    return np.ascontiguousarray(kept)


def quantize(vectors: Floats, precision: Precision) -> NDArray[np.float32] | NDArray[np.int8]:
    if precision == "int8":
        return np.clip(np.rint(vectors * 127), -127, 127).astype(np.int8)
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=1).astype(np.int16) - 128).astype(np.int8)
    return vectors


def prompt_text(job: Job, prompt: str | None) -> str:
    """The text to put before each input. Raises InvalidInput for a name that the checkpoint does not have."""
    prompts, default = job.served.checkpoint.prompts, job.served.checkpoint.default_prompt
    if prompt is None:
        return prompts.get(default, "") if default else ""
    if prompt in prompts:
        return prompts[prompt]
    if not prompt or set(prompt) & set(" \n:"):
        return prompt
    names = ", ".join(prompts) or "none"
    raise InvalidInput(
        f"prompt {prompt!r} is not a prompt name of this model, which has {names}; "
        "use a name, or give the prompt's text with its space or colon"
    )


def _not_empty(texts: Iterable[Text]) -> Iterable[Input]:
    """The texts as they come; a list stays one. Raises EmptyInput at the first empty text."""
    if isinstance(texts, list):
        return [_checked(text, index) for index, text in enumerate(texts)]
    return (_checked(text, index) for index, text in enumerate(texts))


def _checked(text: Text, index: int) -> Input:
    if not isinstance(text, str | Sequence):
        raise InvalidInput(f"input {index} is a {type(text).__name__}; send a string or a list of token ids")
    if not len(text):
        raise EmptyInput(f"input {index} is empty; send some text")
    return text if isinstance(text, str) else list(text)
