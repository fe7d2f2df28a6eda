"""Cosines between the vectors of two lists of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onepass.engines.batch import Floats
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.tokenizer import Text
from onepass.tasks.embed import embed


async def similarity(
    job: Job,
    a: Sequence[Text],
    b: Sequence[Text],
    *,
    prompt: str | None = None,
    truncate: Truncate = "right",
    head: str | None = None,
) -> Floats:
    """float32 [len(a), len(b)], cosines. Raises what `embed` raises."""
    both = await embed(job, [*a, *b], prompt=prompt, normalize=True, truncate=truncate, head=head)
    vectors = both.astype(np.float32, copy=False)
    return await job.off_loop(lambda: vectors[: len(a)] @ vectors[len(a) :].T)
