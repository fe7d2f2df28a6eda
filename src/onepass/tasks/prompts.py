"""What is put before texts: a prompt of the checkpoint or of the caller's, or what it has for queries or documents."""

from __future__ import annotations

from typing import Literal, get_args

from onepass.errors import InvalidInput
from onepass.schedule.job import Job

InputType = Literal["document", "query"]

NAMES: dict[InputType, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Prompt names of a checkpoint, the first of which holds, as sentence-transformers looks them up."""


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


def prompt_or_type(job: Job, prompt: str | None, input_type: InputType | None) -> str:
    """The same where one of the two may be given, or neither. Raises InvalidInput for both."""
    if input_type is None:
        return prompt_text(job, prompt)
    if prompt is not None:
        raise InvalidInput(f"prompt {prompt!r} and input_type {input_type!r} both choose a prompt; give one of them")
    return prompt_for(job, input_type, None)
