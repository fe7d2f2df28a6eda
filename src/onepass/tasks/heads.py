"""Which head answers a task."""

from __future__ import annotations

from onepass.errors import WrongTask
from onepass.model.checkpoint import Checkpoint
from onepass.model.heads import HeadSpec
from onepass.schedule.job import Job


def head_of(job: Job, head: str, task: str) -> HeadSpec:
    """The head that answers a task. Raises WrongTask for a model without it."""
    checkpoint = job.served.checkpoint
    if head not in checkpoint.heads:
        raise WrongTask(f"this model cannot {task}; it can {', '.join(tasks_of(checkpoint))}")
    return checkpoint.heads[head]


def tasks_of(checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint can do, by the heads it has."""
    tasks = []
    if "embed" in checkpoint.heads:
        tasks += ["embed", "similarity"]
    if "classify" in checkpoint.heads:
        tasks += ["classify"]
        tasks += ["rerank"] if len(checkpoint.heads["classify"].labels) == 1 else []
    tasks += [task for task in ("fill", "tag", "answer") if task in checkpoint.heads]
    if "fill" in checkpoint.heads or "next" in checkpoint.heads:
        tasks += ["log_probs", "classify"]  # with labels of the caller's own
    return tasks
