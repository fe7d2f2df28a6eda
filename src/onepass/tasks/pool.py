"""What a head gives for each input, as it is: no prompt is put before a text, nothing is sorted or put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from onepass.engines.batch import Floats
from onepass.errors import EmptyInput
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import Finish
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Encoded
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Input
from onepass.tasks.heads import head_of

Pooled = Literal["embed", "classify", "token_embed", "token_classify"]

# Where nothing is asked for, the first of these for which the checkpoint has a head.
POOLED: dict[str, Pooled] = {
    "embed": "embed",
    "classify": "classify",
    "multivector": "token_embed",
    "tag": "token_classify",
}


async def pool(
    job: Job, inputs: Sequence[Input], what: Pooled | None, *, raw: bool, options: EncodeOptions
) -> list[Floats]:
    """For each input float32 [width], or [tokens, width] with special tokens: vectors, or scores of labels.

    what: None: what the checkpoint is for. Vectors of tokens are those of a multivector head, or what the head for
    texts makes of each token alone.
    raw: vectors are not scaled to length 1, and logits stay logits.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    what = what or pooled_by(job.served.checkpoint)
    for index, item in enumerate(inputs):
        if not any(item) if isinstance(item, tuple) else not item:
            raise EmptyInput(f"input {index} is empty; send some text")
    kinds = {head.kind for head in job.served.checkpoint.heads.values()}
    if what == "token_embed" and "multivector" not in kinds:
        name, _ = head_of(job, "embed", "give vectors of tokens")
        finish: Finish = "none" if raw else "l2"

        def asks(row: Encoded) -> tuple[Ask, ...]:
            return (Ask(name, finish=finish, spans=tuple((place, place) for place in range(len(row.ids)))),)

        return [one.values for (one,) in await job.outputs(inputs, asks, options=options)]
    kind = next(kind for kind, pooled in POOLED.items() if pooled == what)
    name, _ = head_of(job, kind, kind)
    ask = Ask(name, finish="none" if raw else "l2" if "embed" in what else None)
    found = await job.run(inputs, ask, options=options)
    return [values if what.startswith("token") else values[0] for (values,) in found]


def pooled_by(checkpoint: Checkpoint) -> Pooled:
    """What a checkpoint is for; a vector of the text where nothing else is known."""
    kinds = {head.kind for head in checkpoint.heads.values()}
    return next((pooled for kind, pooled in POOLED.items() if kind in kinds), "embed")
