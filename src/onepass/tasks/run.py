"""Several heads of one checkpoint about the same texts, from one pass of the trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.model.heads import HeadSpec
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.tokenizer import EncodeOptions
from onepass.tasks.classify import labelling
from onepass.tasks.embed import embedding, prompt_text
from onepass.tasks.fill import filling
from onepass.tasks.labels import labelled
from onepass.tasks.log_probs import following
from onepass.tasks.multivector import beside_others
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

PLAIN: Mapping[str, Callable[[Any], Any]] = {"classify": labelled, "sparse": list}


async def run(
    job: Job, texts: Iterable[str], heads: Sequence[str], *, prompt: str | None = None, truncate: Truncate = "right"
) -> list[dict[str, Any]]:
    """For each text what each head's own task gives for it, by the head's name, in the order asked.

    embed: float32 [width].  classify: (label, score) pairs, best first.  tag: entities.  fill: fillings of each mask.
    sparse: weights of tokens.  next: log-probabilities of the tokens.  multivector: float32 [tokens, width], as of
    documents. Heads over pairs of texts (answer, relevance, inference) are refused.
    prompt: as `embed` takes it, read by all heads; a default prompt must be named, or refused with "", unless all
    heads embed.
    truncate: the side on which over-long texts are cut for all heads; None refuses them. There are no windows here.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    readings = {name: _reading(job, name) for name in _checked_names(heads)}
    points = [name for name, reading in readings.items() if reading.points]
    kinds = {job.served.checkpoint.heads[name].kind for name in readings}
    before = prompt_text(job, prompt) if prompt is not None or "embed" in kinds else ""
    if before and prompt is None and kinds != {"embed"}:
        raise InvalidInput(
            f"this model puts {before!r} before texts to embed, which every head would read; name it as prompt, or "
            'give "" for none'
        )
    if before and points:
        raise InvalidInput(f"head {points[0]!r} says where in a text something stands, which a prompt would shift")
    options = EncodeOptions(prompt=before, truncate=truncate, aligned=bool(points))
    answers = await read_all(job, strings(texts), list(readings.values()), options)
    return [dict(zip(readings, row, strict=True)) for row in answers]


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
