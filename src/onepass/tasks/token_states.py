"""A vector per token as the encoder leaves it, before any head."""

from __future__ import annotations

from collections.abc import Iterable

from onepass.engines.batch import Floats
from onepass.model.heads import STATES
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Text
from onepass.tasks.heads import head_of
from onepass.tasks.prompts import prompt_text
from onepass.tasks.texts import texts_or_ids


async def token_states(
    job: Job,
    texts: Iterable[Text],
    *,
    prompt: str | None = None,
    truncate: Truncate = "right",
    special: bool = True,
) -> list[Floats]:
    """For each text float32 [tokens, width], special tokens and the prompt's included.

    As sentence-transformers' token_embeddings where its Transformer module is followed by nothing per token; options
    as for `embed`, which the checkpoint must be able to do.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    head_of(job, "embed", "embed")
    options = EncodeOptions(prompt=prompt_text(job, prompt), truncate=truncate, special=special)
    return [states for (states,) in await job.run(texts_or_ids(texts), Ask(STATES), options=options)]
