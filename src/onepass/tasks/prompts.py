"""What the checkpoint puts before queries and before documents."""

from __future__ import annotations

from typing import Literal, get_args

from onepass.errors import InvalidInput
from onepass.schedule.job import Job
from onepass.tasks.embed import prompt_text

InputType = Literal["document", "query"]

NAMES: dict[InputType, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Prompt names of a checkpoint, the first of which holds, as sentence-transformers looks them up."""


def prompt_for(job: Job, input_type: InputType, prompt: str | None) -> str:
    """The text to put before each input of this type: the checkpoint's, or what `prompt` says instead.

    Raises InvalidInput for another type, or a prompt name that the checkpoint does not have.
    """
    if input_type not in get_args(InputType):
        raise InvalidInput(f"input_type {input_type!r} is unknown; choose {' or '.join(get_args(InputType))}")
    if prompt is not None:
        return prompt_text(job, prompt)
    prompts = job.served.checkpoint.prompts
    return next((prompts[name] for name in NAMES[input_type] if name in prompts), "")
