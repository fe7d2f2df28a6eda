"""Which head answers a task."""

from __future__ import annotations

from collections.abc import Callable

from onepass.errors import InvalidInput, WrongTask
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import HeadSpec
from onepass.model.rerankers import RERANKERS
from onepass.schedule.job import Job


def head_of(
    job: Job, kind: str, task: str, name: str | None = None, fits: Callable[[HeadSpec], bool] = lambda _: True
) -> tuple[str, HeadSpec]:
    """The head that answers a task, with its name.

    name: as the caller asked. None: the checkpoint's default for the task, else the one named like the task, or like
    its kind, or the only one that fits.
    Raises WrongTask for a model without such a head, InvalidInput where the caller must choose among several.
    """
    return head_in(job.served.checkpoint, kind, task, name, fits)


def head_in(
    checkpoint: Checkpoint,
    kind: str,
    task: str,
    name: str | None = None,
    fits: Callable[[HeadSpec], bool] = lambda _: True,
) -> tuple[str, HeadSpec]:
    """As `head_of`, of a checkpoint."""
    fitting = {own: head for own, head in checkpoint.heads.items() if head.kind == kind and fits(head)}
    if name is None:
        if not fitting:
            raise WrongTask(f"this model cannot {task}; it can {', '.join(tasks_of(checkpoint))}")
        name = next((own for own in (checkpoint.defaults.get(task), task, kind) if own in fitting), None)
        if name is None and len(fitting) > 1:
            raise InvalidInput(f"this model has several heads that {task}: {', '.join(fitting)}; name one as head")
        name = name or next(iter(fitting))
    elif name not in fitting:
        raise WrongTask(
            f"this model has no head {name!r} that can {task}; those that can are {', '.join(fitting) or 'none'}"
        )
    return name, fitting[name]


def reranker_of(job: Job, name: str | None = None) -> tuple[str, HeadSpec]:
    """The head that reranks, with its name: one that reads pairs before vectors of tokens before a vector of the text.

    Raises as `head_of`.
    """
    checkpoint = job.served.checkpoint
    reranking = [own for own in checkpoint.heads.values() if reranks(own, checkpoint)]
    if not reranking and "next" in {own.kind for own in checkpoint.heads.values()}:
        raise WrongTask(
            "this model cannot rerank: its files say no more than that it is a language model; if it was trained to, "
            f"load it with the setting reranker, {' or '.join(RERANKERS)}"
        )
    kinds = [kind for kind in RANKING if kind in {own.kind for own in reranking}]
    named = checkpoint.heads.get(name or checkpoint.defaults.get("rerank", ""))
    kind = named.kind if named is not None else next(iter(kinds), "classify")
    return head_of(job, kind, "rerank", name, lambda own: reranks(own, checkpoint))


RANKING = ("classify", "multivector", "embed")
"""Kinds of heads that rerank, the best first."""


def reranks(head: HeadSpec, checkpoint: Checkpoint) -> bool:
    """A language model's plain states are no vectors to rank by, unless its file says itself that they embed."""
    if head.kind == "embed":
        return checkpoint.own is not None or not {"fill", "next"} & {own.kind for own in checkpoint.heads.values()}
    return is_reranker(head) or head.kind == "multivector"


def tasks_of(checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint can do, by the heads it has."""
    heads = checkpoint.heads.values()
    kinds = {head.kind for head in heads}
    tasks = []
    if "embed" in kinds:
        tasks += ["embed", "similarity"]
    if "classify" in kinds:
        tasks += ["classify"]
    tasks += ["rerank"] if any(reranks(head, checkpoint) for head in heads) else []
    tasks += [task for task in ("sparse", "multivector", "fill", "tag", "answer") if task in kinds]
    if {"fill", "next"} & kinds:
        tasks += ["log_probs", "classify"]  # with labels of the caller's own
    return list(dict.fromkeys(tasks))


def is_reranker(head: HeadSpec) -> bool:
    return head.kind == "classify" and len(head.labels) == 1 and head.pairs is not False
