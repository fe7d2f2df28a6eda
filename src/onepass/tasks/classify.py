"""Label scores per text, or per pair of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.job import Job
from onepass.schedule.pieces import Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import EncodeOptions
from onepass.tasks.heads import head_of

Scores = list[tuple[str, float]]
Classified = str | tuple[str, str]


async def classify(
    job: Job, inputs: Iterable[Classified], *, raw_scores: bool = False, truncate: Truncate = "right"
) -> list[Scores]:
    """For each input its (label, score) pairs, best first.

    Scores are softmax for one label of several, sigmoid for one label alone or for several at once (multi-label), as
    the checkpoint says; raw_scores leaves the logits. Raises WrongTask, InvalidInput and its kinds, Overloaded,
    EngineFailure.
    """
    head = head_of(job, "classify", "classify")
    ask = Ask("classify", finish="none" if raw_scores else None)
    outputs = await job.run(_checked_all(inputs), ask, options=EncodeOptions(truncate=truncate))
    return [
        sorted(zip(head.labels, scores[0].tolist(), strict=True), key=lambda pair: -pair[1]) for (scores,) in outputs
    ]


def _checked_all(inputs: Iterable[Classified]) -> Iterable[Classified]:
    """The inputs as they come; a list stays one."""
    if isinstance(inputs, list):
        return [_checked(item, index) for index, item in enumerate(inputs)]
    return (_checked(item, index) for index, item in enumerate(inputs))


def _checked(item: Classified, index: int) -> Classified:
    """A text, or a pair as a tuple. Raises InvalidInput, EmptyInput."""
    texts = [item] if isinstance(item, str) else item
    if not isinstance(texts, Sequence) or len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"input {index} is {_shown(item)}; send a string, or a pair of strings")
    if not any(texts):
        raise EmptyInput(f"input {index} is empty; send some text")
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _shown(item: object) -> str:
    return f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, Sequence) else "")
