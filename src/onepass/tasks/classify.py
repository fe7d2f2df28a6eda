"""Label scores per text, or per pair of texts: the checkpoint's own labels, or the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from onepass.engines.arithmetic import FINISHES
from onepass.engines.batch import Floats
from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.model.heads import Finish, HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Encoded, Truncate
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_of
from onepass.tasks.label_vectors import alike, by_vectors
from onepass.tasks.label_words import worded
from onepass.tasks.labels import LONG, Long, checked_labels, finish_of, merged
from onepass.tasks.reading import Reading, read
from onepass.tasks.zero_shot import by_words, entailed

Scores = list[tuple[str, float]]
Classified = str | tuple[str, str]

T = TypeVar("T")


async def classify(
    job: Job,
    inputs: Iterable[Classified],
    *,
    labels: Sequence[str] | None = None,
    multi_label: bool | None = None,
    template: str | None = None,
    long: Long = "cut",
    raw_scores: bool = False,
    truncate: Truncate = "right",
    head: str | None = None,
) -> list[Scores]:
    """For each input its (label, score) pairs, best first.

    labels: the caller's own, for single texts. A checkpoint trained on inference (a label of it starts with "entail")
    scores each by whether the text entails `template` with the label in its slot, "This example is {}." by default; a
    masked or causal language model by the label's word in `template`, see `tasks.label_words`; an "embed" head, where
    it is named or the checkpoint's default for "labels", by its vectors, see `tasks.label_vectors`.
    multi_label: whether each label is scored by itself (sigmoid) or all against each other (softmax). None: as the
    checkpoint says, and against each other where the labels are the caller's.
    long: "cut" cuts a text that is longer than a row as `truncate` says. "mean" and "max" read it in windows that
    overlap by an eighth, and take the mean or the largest of each label's logits before scores are made of them.
    raw_scores: the logits.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    if long not in LONG:
        raise InvalidInput(f"long is {long!r}; choose {', '.join(LONG)}")
    overlap = None if long == "cut" else job.served.tokenizer.max_length // 8
    options = EncodeOptions(truncate=truncate, overlap=overlap)
    if labels is None:
        name, found = _trained(job, template, head)
        finish = found.finish if multi_label is None else finish_of(multi_label, len(found.labels))
        reading = labelling(job, name, found, long, "none" if raw_scores else finish)
        return await read(job, _each(inputs, _text_or_pair), reading, options)
    names, texts = checked_labels(labels), _each(inputs, _text)
    checkpoint = job.served.checkpoint
    scored = alike if by_vectors(checkpoint, head) else worded if by_words(checkpoint, head) else entailed
    logits = await scored(job, texts, names, bool(multi_label), template, long, options, head)
    finish = finish_of(multi_label or False, len(names))
    return best_first(names, logits if raw_scores else FINISHES[finish](logits))


def labelling(job: Job, name: str, head: HeadSpec, long: Long = "cut", finish: Finish | None = None) -> Reading[Scores]:
    """The checkpoint's own labels. finish: how scores are made of logits; None: as the checkpoint says.

    Its reading raises InvalidInput for a text where the head was trained on pairs, and the other way round.
    """
    one = Ask(name, finish="none")

    def ask(item: Classified, row: Encoded) -> Ask:
        if head.pairs is not None and head.pairs != isinstance(item, tuple):
            given, wanted = ("a single text", "pairs") if head.pairs else ("a pair of texts", "single texts")
            raise InvalidInput(
                f"input {row.input} is {given}, but head {name!r} was trained on {wanted}; send those, or name another "
                "head"
            )
        return one

    def answer(item: Classified, rows: Sequence[Answered]) -> Scores:
        logits = merged([row.outputs[0].values[0] for row in rows], long)
        return best_first(head.labels, FINISHES[finish or head.finish](logits[None]))[0]

    return Reading(ask, answer)


def best_first(labels: Sequence[str], scores: Floats) -> list[Scores]:
    """scores: [inputs, labels]."""
    return [sorted(zip(labels, row, strict=True), key=lambda pair: -pair[1]) for row in scores.tolist()]


def _trained(job: Job, template: str | None, head: str | None) -> tuple[str, HeadSpec]:
    """The head with labels of its own."""
    if template is not None:
        raise InvalidInput("template is for labels of your own; give labels, or leave it out")
    kinds = {own.kind for own in job.served.checkpoint.heads.values()}
    if "classify" not in kinds and {"fill", "next"} & kinds:
        raise WrongTask("this model has no labels of its own; name some in labels")
    return head_of(job, "classify", "classify", head)


def _each(inputs: Iterable[Any], check: Callable[[Any, int], T]) -> Iterable[T]:
    """The inputs as they come, each checked; a list stays one."""
    checked = (check(item, index) for index, item in enumerate(inputs))
    return list(checked) if isinstance(inputs, list) else checked


def _text_or_pair(item: Any, index: int) -> Classified:
    """A text, or a pair as a tuple. Raises InvalidInput, EmptyInput."""
    texts = [item] if isinstance(item, str) else item
    if not isinstance(texts, Sequence) or len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"input {index} is {_shown(item)}; send a string, or a pair of strings")
    if not any(texts):
        raise EmptyInput(f"input {index} is empty; send some text")
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _text(item: Any, index: int) -> str:
    """Raises InvalidInput, EmptyInput."""
    if not isinstance(item, str):
        raise InvalidInput(f"input {index} is {_shown(item)}; with labels of your own, send a string")
    if not item:
        raise EmptyInput(f"input {index} is empty; send some text")
    return item


def _shown(item: object) -> str:
    return f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, Sequence) else "")
