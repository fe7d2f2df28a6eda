"""Labels that a text may entail: any, through a classifier trained on natural language inference (Yin et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import WrongTask
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_of
from onepass.tasks.labels import Long, around_slot, merged

TEMPLATE = "This example is {}."


async def entailed(
    job: Job,
    texts: Iterable[str],
    labels: Sequence[str],
    multi_label: bool,
    template: str | None,
    long: Long,
    options: EncodeOptions,
    head: str | None,
) -> Floats:
    """Logits [texts, labels]: each text beside each label's hypothesis, a row each; hypotheses are never cut.

    The logit of entailment, or with several labels at once, or one alone, how far it lies above contradiction's. As in
    transformers' zero-shot pipeline, contradiction is column 0, or the last where entailment is 0.
    """
    classifiers = {own: one for own, one in job.served.checkpoint.heads.items() if one.kind == "classify"}
    if not any(map(_infers, classifiers.values())):
        names = [label for one in classifiers.values() for label in one.labels]
        raise WrongTask(
            f"this model cannot score labels of yours: none of its own ({', '.join(names[:8])}) begins with 'entail'; "
            "leave labels out, or serve a model trained on natural language inference"
        )
    head, found = head_of(job, "classify", "classify with labels of yours", head, _infers)
    (entailment, *_) = _entailing(found)
    contradiction = -1 if entailment == 0 else 0
    before, after = around_slot(TEMPLATE if template is None else template)
    hypotheses = [before + label + after for label in labels]
    pairs = ((text, hypothesis) for text in texts for hypothesis in hypotheses)
    ask = Ask(head, finish="none")
    rows = await job.rows(
        pairs,
        lambda _: (ask,),
        options=replace(options, second_whole=True, together=len(labels)),
    )

    def logit(row: Floats) -> Floats:
        below = row[contradiction] if multi_label or len(labels) == 1 else 0
        return row[entailment : entailment + 1] - below

    logits = [merged([logit(one.outputs[0].values[0]) for one in windows], long) for windows in rows]
    return np.concatenate(logits).reshape(-1, len(labels))


def by_words(checkpoint: Checkpoint, head: str | None) -> bool:
    """Whether the caller's labels are a language model's words: where it is the head, or no head infers."""
    heads = checkpoint.heads
    spoken = [name for name, one in heads.items() if one.kind in ("fill", "next")]
    if head is not None:
        return head in spoken
    classifiers = [one for one in heads.values() if one.kind == "classify"]
    return not classifiers or (bool(spoken) and not any(map(_infers, classifiers)))


def _infers(head: HeadSpec) -> bool:
    return len(head.labels) > 1 and head.pairs is not False and bool(_entailing(head))


def _entailing(head: HeadSpec) -> list[int]:
    return [column for column, label in enumerate(head.labels) if label.lower().startswith("entail")]
