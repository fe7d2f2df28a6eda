"""Several heads of one checkpoint about the same texts, from one pass of the trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.tasks.classify import labelling
from onepass.tasks.embed import embedding
from onepass.tasks.fill import filling
from onepass.tasks.labels import labelled
from onepass.tasks.log_probs import following
from onepass.tasks.multivector import beside_others
from onepass.tasks.prompts import prompt_for, prompt_text
from onepass.tasks.reading import Reading, read_all
from onepass.tasks.sparse import weighing
from onepass.tasks.tag import tagging
from onepass.tasks.texts import strings

READINGS: Mapping[str, Callable[[Job, str, HeadSpec], Reading[Any]]] = {
    "embed": embedding,
    "classify": labelling,
    "tag": tagging,
    "sparse": weighing,
    "fill": filling,
    "next": following,
    "multivector": beside_others,
}
"""By a head's kind, what its own task asks and answers where no option is given."""

PROMPTS: Mapping[str, Callable[[Job], str]] = {
    "embed": lambda job: prompt_text(job, None),
    "sparse": lambda job: prompt_for(job, "document", None),
}
"""By a head's kind, what its own task puts before texts; the others put nothing there."""

PLAIN: Mapping[str, Callable[[Any], Any]] = {"classify": labelled, "sparse": list}


async def run(
    job: Job, texts: Iterable[str], heads: Sequence[str], *, prompt: str | None = None, truncate: Truncate = "right"
) -> list[dict[str, Any]]:
    """For each text what each head's own task gives for it, by the head's name, in the order asked.

    embed: float32 [width].  classify: (label, score) pairs, best first.  tag: entities.  fill: fillings of each mask.
    sparse: weights of tokens.  next: log-probabilities of the tokens.  multivector: float32 [tokens, width], as of
    documents. Heads over pairs of texts (answer, relevance, inference) are refused.
    prompt: as `embed` takes it, read by all heads. None: what their own tasks put before texts, if that is the same.
    truncate: the side on which over-long texts are cut for all heads; None refuses them. There are no windows here.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    readings = {name: _reading(job, name) for name in _checked_names(heads)}
    points = [name for name, reading in readings.items() if reading.points]
    before = _prompt(job, readings, prompt)
    if before and points:
        raise InvalidInput(f"head {points[0]!r} says where in a text something stands, which a prompt would shift")
    options = EncodeOptions(prompt=before, truncate=truncate, aligned=bool(points))
    answers = await read_all(job, strings(texts), list(readings.values()), options)
    return [dict(zip(readings, row, strict=True)) for row in answers]


def _prompt(job: Job, names: Iterable[str], prompt: str | None) -> str:
    """As asked, or the one that all heads' own tasks put before texts. Raises InvalidInput."""
    if prompt is not None:
        return prompt_text(job, prompt)
    heads = job.served.checkpoint.heads
    usual = {PROMPTS[heads[name].kind](job) if heads[name].kind in PROMPTS else "" for name in names}
    if len(usual) > 1:
        raise InvalidInput(
            f"alone these heads read different prompts, {' and '.join(map(repr, sorted(usual)))}; name one as "
            'prompt for all, or give "" for none'
        )
    return usual.pop()


def plain(answers: dict[str, Any], heads: Mapping[str, HeadSpec]) -> dict[str, Any]:
    """What `run` gives for a text, with labels and weights as objects, as JSON has them."""
    return {name: PLAIN.get(heads[name].kind, lambda same: same)(answer) for name, answer in answers.items()}


def _checked_names(heads: Sequence[str]) -> Sequence[str]:
    if isinstance(heads, str) or not isinstance(heads, Sequence) or not all(isinstance(name, str) for name in heads):
        raise InvalidInput(f"heads is a {type(heads).__name__}; send a list of names")
    if not heads:
        raise EmptyInput("heads is an empty list; name at least one")
    for index, name in enumerate(heads):
        if name in heads[:index]:
            raise InvalidInput(f"head {name!r} is asked for twice; name each once")
    return heads


def _reading(job: Job, name: str) -> Reading[Any]:
    heads = job.served.checkpoint.heads
    if name not in heads:
        raise WrongTask(f"this model has no head {name!r}; it has {', '.join(heads)}")
    head = heads[name]
    if head.pairs or head.kind not in READINGS:
        given = "pairs of texts" if head.pairs or head.kind == "answer" else f"the task {head.kind} alone"
        raise WrongTask(f"head {name!r} is for {given}, and run reads single texts; ask its own task")
    return READINGS[head.kind](job, name, head)
