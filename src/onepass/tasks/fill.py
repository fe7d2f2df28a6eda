"""Words for the masks of a text, as a masked language model guesses them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onepass.errors import EmptyInput, InvalidInput, TooLarge, WrongTask
from onepass.model.heads import HeadSpec
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Encoded, Truncate
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Tokenizer
from onepass.tasks.heads import head_of
from onepass.tasks.reading import Reading, read
from onepass.tasks.texts import strings

log = logging.getLogger("onepass")

MOST_WRITTEN = 16_777_216  # tokens of the texts around all guesses of a request to a server
NEAR = 8  # tokens beside a mask whose text a guess may change


@dataclass(frozen=True, slots=True)
class Filling:
    """A token for a mask.

    token: its text, spaces included.  id: its number.  score: its probability among the whole vocabulary.
    sequence: the text with this mask filled, decoded from tokens; beside other masks with its special tokens.
    """

    token: str
    id: int
    score: float
    sequence: str


Fillings = list[list[Filling]]
"""For each mask of a text, in order, its tokens, best first."""


async def fill(
    job: Job,
    texts: Iterable[str],
    *,
    top_k: int = 5,
    candidates: Sequence[str] | None = None,
    truncate: Truncate = "right",
    head: str | None = None,
) -> list[Fillings]:
    """The `top_k` likeliest tokens for each mask of each text, as transformers' fill-mask pipeline finds them.

    Masks of one text are guessed side by side: no guess knows of the others.
    candidates: only these tokens, whose scores stay their probabilities among the whole vocabulary. A word that is no
    token stands for the first of those it falls into, and a warning says so; one that falls into none is left out.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput for a text without a mask or with one where it is cut, EmptyInput, Overloaded,
    TooLarge for a server's request whose guesses have texts of more than MOST_WRITTEN tokens, EngineFailure.
    """
    reading = filling(job, *head_of(job, "fill", "fill", head), top_k, candidates)
    return await read(job, strings(texts), reading, EncodeOptions(truncate=truncate))


def filling(
    job: Job, head: str, spec: HeadSpec, top_k: int = 5, candidates: Sequence[str] | None = None
) -> Reading[Fillings]:
    """As `fill` says. Raises WrongTask, InvalidInput, EmptyInput."""
    tokenizer = job.served.tokenizer
    mask = tokenizer.mask_id
    if mask is None:
        raise WrongTask("this model cannot fill: its tokenizer names no mask token")
    if top_k < 1:
        raise InvalidInput(f"top_k is {top_k}; ask for at least 1")
    columns = None if candidates is None else _ids(tokenizer, candidates)
    name = tokenizer.spelling(mask)
    most = min(top_k, job.served.checkpoint.spec.embed.vocab if columns is None else len(columns))
    written = 0

    def ask(text: str, row: Encoded) -> Ask:
        nonlocal written
        masks = tuple(index for index, id in enumerate(row.ids) if id == mask)
        lost = text.count(name) - len(masks) if row.cut else 0
        if lost > 0:
            raise InvalidInput(
                f"{lost} of the {text.count(name)} masks of input {row.input} lie beyond the "
                f"{tokenizer.max_length} tokens that the model takes; shorten the text around them"
            )
        if not masks:
            raise InvalidInput(f"input {row.input} holds no {name}; put one where a token is missing")
        written += len(masks) * most * len(row.ids)
        if not job.wait and written > MOST_WRITTEN:
            raise TooLarge(
                f"the texts around the guesses of inputs 0 to {row.input} have {written} tokens, more than the "
                f"{MOST_WRITTEN} that a request may ask for; lower top_k, or send fewer texts at once"
            )
        return Ask(head, finish="softmax", positions=masks, columns=columns, top=top_k)

    pad = job.served.checkpoint.tokenizer.pad_id
    return Reading(ask, lambda text, rows: _fillings(tokenizer, rows[0], pad))


def _ids(tokenizer: Tokenizer, candidates: Sequence[str]) -> tuple[int, ...]:
    """Distinct ids, in order of first appearance."""
    if isinstance(candidates, str):
        raise InvalidInput("candidates is one string; send a list of strings")
    ids: dict[int, None] = {}
    for index, word in enumerate(candidates):
        if not isinstance(word, str):
            raise InvalidInput(f"candidate {index} is a {type(word).__name__}; send a string")
        id = tokenizer.first_token(word)
        if id is None:
            log.warning("candidate %r gives no token; it is left out", word)
            continue
        if (spelt := tokenizer.spelling(id)) != word:
            log.warning("candidate %r is no token; %r stands for it", word, spelt)
        ids[id] = None
    if not ids:
        raise EmptyInput("none of the candidates is a token; send at least one")
    return tuple(ids)


def _fillings(tokenizer: Tokenizer, answered: Answered, pad: int) -> Fillings:
    (ask,) = answered.outputs
    row = answered.row.ids.tolist()
    masks = [position for position, id in enumerate(row) if id == tokenizer.mask_id]
    assert ask.ids is not None

    def decode(ids: list[int]) -> str:
        return tokenizer.decode([id for id in ids if id != pad], skip_special=len(masks) == 1)

    found = []
    for position, guesses, scores in zip(masks, ask.ids.tolist(), ask.values.tolist(), strict=True):
        filled = _filled(decode, row, position)
        found.append(
            [
                Filling(tokenizer.decode([id], skip_special=False), id, score, filled(id))
                for id, score in zip(guesses, scores, strict=True)
            ]
        )
    return found


def _filled(decode: Callable[[list[int]], str], ids: list[int], position: int) -> Callable[[int], str]:
    """The text with another token at `position`, of which only what is near is decoded again."""
    start, stop = max(position - NEAR, 0), position + 1 + NEAR
    left, near = decode(ids[:position]), decode(ids[start:position])
    seen, whole = decode(ids[:stop]), decode(ids)
    # neither a character in two halves, nor special tokens alone that do not show beside what is joined
    parted = whole.startswith(seen) and (seen or whole == seen) and (near or start == 0)

    def filled(id: int) -> str:
        changed = decode([*ids[start:position], id, *ids[position + 1 : stop]])
        if parted and changed.startswith(near):
            return left + changed[len(near) :] + whole[len(seen) :]
        return decode([*ids[:position], id, *ids[position + 1 :]])

    return filled
