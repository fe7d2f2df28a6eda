"""Labels of the caller's own by how near their vectors, as `embed` makes them, are to a text's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput
from onepass.model.checkpoint import Checkpoint
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.tasks.embed import embed
from onepass.tasks.heads import head_of
from onepass.tasks.labels import Long, around_slot

TEMPLATE = "{}"
TEMPERATURE = 0.05
"""Cosines are divided by it, as in the losses that such vectors are trained with."""


async def alike(
    job: Job,
    texts: Iterable[str],
    labels: Sequence[str],
    multi_label: bool,
    template: str | None,
    long: Long,
    options: EncodeOptions,
    head: str | None,
) -> Floats:
    """Logits [texts, labels]: the cosine of each text with `template` that holds the label, divided by TEMPERATURE.

    Cosines have no zero that would say "this label does not fit", so labels are scored against each other only.
    Raises InvalidInput for a single label, for labels scored each by itself, and for windows.
    """
    if multi_label or len(labels) == 1:
        raise InvalidInput(
            "this model compares vectors, which only say which of several labels fits best; give at least two labels "
            "and leave multi_label out"
        )
    if long != "cut":
        raise InvalidInput(f"long is {long!r}, but this model compares one vector of a text with each label; use 'cut'")
    name, _ = head_of(job, "embed", "labels", head)
    before, after = around_slot(TEMPLATE if template is None else template)
    known = await embed(job, [before + label + after for label in labels], normalize=True, truncate=None, head=name)
    found = await embed(job, texts, normalize=True, truncate=options.truncate, head=name)
    return np.asarray(found @ known.T / TEMPERATURE, np.float32)


def by_vectors(checkpoint: Checkpoint, head: str | None) -> bool:
    """Whether the caller's labels are compared by vectors: where that head is asked for, or is the file's default."""
    named = checkpoint.heads.get(head or checkpoint.defaults.get("labels", ""))
    return named is not None and named.kind == "embed"
