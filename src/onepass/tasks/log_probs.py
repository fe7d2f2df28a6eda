"""How likely each token of a text is to a language model: given what stands before it, or all that stands around it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from onepass.errors import EmptyInput, InvalidInput, WrongTask
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Encoded, Truncate
from onepass.schedule.row import Ask
from onepass.tasks.heads import head_of
from onepass.tasks.reading import Reading, read
from onepass.tasks.texts import strings


@dataclass(frozen=True, slots=True)
class LogProb:
    """A token of a text.

    text: the characters start:stop.  id: its number.  log_prob: natural logarithm of its probability among the whole
    vocabulary; None for what nothing stands before, to a causal model.
    """

    text: str
    id: int
    start: int
    stop: int
    log_prob: float | None


async def log_probs(
    job: Job, texts: Iterable[str], *, truncate: Truncate = "right", head: str | None = None
) -> list[list[LogProb]]:
    """For each text its tokens with their log-probabilities, special tokens around the text left out.

    A causal model (with a "next" head) gives each token's given those before it, the special tokens in front included,
    from one row per text. A masked one (with a "fill" head) gives each token's where it alone is masked; the sum is the
    pseudo log-likelihood of Salazar et al. 2020. That takes one row per token, so the work grows with the square of a
    text's length.
    truncate: "right" cuts over-long texts; None refuses them.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    kinds = {own: spec.kind for own, spec in job.served.checkpoint.heads.items()}
    causal = kinds[head] == "next" if head in kinds else "next" in kinds.values()
    name, found = head_of(job, "next" if causal else "fill", "log_probs", head)
    if truncate == "left":
        raise InvalidInput(
            "truncate is 'left', but tokens have a log-probability only after their own beginning; cut on the right"
        )
    options = EncodeOptions(truncate=truncate, aligned=True)
    if causal:
        return await read(job, strings(texts), following(job, name, found), options)
    return await _masked(job, name, texts, options)


def following(job: Job, head: str, spec: HeadSpec) -> Reading[list[LogProb]]:
    """Each token given those before it, from one row."""

    def ask(text: str, row: Encoded) -> Ask:
        places = [place for place in _places(row) if place > 0]
        before, targets = tuple(place - 1 for place in places), tuple(row.ids[place] for place in places)
        return Ask(head, positions=before, targets=targets)

    def answer(text: str, rows: Sequence[Answered]) -> list[LogProb]:
        (one,) = rows
        return _tokens(text, one.row, one.outputs[0].values[:, 0].tolist())

    return Reading(ask, answer, points=True)


async def _masked(job: Job, head: str, texts: Iterable[str], options: EncodeOptions) -> list[list[LogProb]]:
    tokenizer = job.served.tokenizer
    if (mask := tokenizer.mask_id) is None:
        raise WrongTask("this model has no log-probabilities: its tokenizer names no mask token")
    seen: list[str] = []
    rows: list[Encoded] = []
    asks: list[Ask] = []

    def encoded() -> Iterator[Encoded]:
        for index, text in enumerate(strings(texts)):
            seen.append(text)
            rows.extend(tokenizer.encode([text], options, first=index))
            job.usage.characters += len(text)
            job.usage.truncated += rows[-1].cut
            yield rows[-1]

    def masked(source: Iterable[Encoded]) -> Iterator[list[int]]:
        for row in source:
            for place in _places(row):
                asks.append(Ask(head, positions=(place,), targets=(row.ids[place],)))
                yield [*row.ids[:place], mask, *row.ids[place + 1 :]]

    source: Iterable[Encoded] = encoded()
    if not job.wait:  # refuse what is too much before it is written down
        source = await job.off_loop(lambda: list(encoded()))
        job.served.device.admission.check(sum(len(_places(row)) * len(row.ids) for row in rows))
    found = await job.outputs(masked(source), lambda row: (asks[row.input],), options=EncodeOptions(special=False))
    job.usage.inputs = len(rows)  # instead of a copy for each token
    values = (float(output.values[0, 0]) for (output,) in found)
    return [_tokens(text, row, list(islice(values, len(_places(row))))) for text, row in zip(seen, rows, strict=True)]


def _places(row: Encoded) -> list[int]:
    """Of the text's tokens. Raises EmptyInput where there is none."""
    assert row.alignment is not None
    places = [place for place, text in enumerate(row.alignment.texts) if text == 0]
    if not places:
        raise EmptyInput(f"input {row.input} has no tokens; send some text")
    return places


def _tokens(text: str, row: Encoded, log_probs: Sequence[float]) -> list[LogProb]:
    """log_probs: of the text's last tokens; a first token may have none."""
    assert row.alignment is not None
    places = _places(row)
    values = [*[None] * (len(places) - len(log_probs)), *log_probs]
    spans = [(row.alignment.starts[place], row.alignment.stops[place]) for place in places]
    return [
        LogProb(text[start:stop], row.ids[place], start, stop, value)
        for place, (start, stop), value in zip(places, spans, values, strict=True)
    ]
