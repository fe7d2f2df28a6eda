"""Labels as words that a language model expects: of a masked one at the mask, of a causal one after the prompt.

(Schick & Schuetze 2020; Brown et al. 2020.) Only the first token of each label's word is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput, WrongTask
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.job import Job
from onepass.schedule.pieces import Encoded
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Tokenizer
from onepass.tasks.heads import head_of
from onepass.tasks.labels import Long, around_slot, merged

MASKED = "{{}} This text is about {mask}."
CAUSAL = "{}\nThis text is about"


@dataclass(frozen=True, slots=True)
class Prompt:
    """before, after: tokens around the text.  space: put before the text.  place: of the token that is read, counted
    from the first of `before`, or from the last of the prompt if negative.  words: the token of each label.
    """

    before: tuple[int, ...]
    space: str
    after: tuple[int, ...]
    place: int
    words: tuple[int, ...]


async def worded(
    job: Job,
    texts: Iterable[str],
    labels: Sequence[str],
    multi_label: bool,
    template: str | None,
    long: Long,
    options: EncodeOptions,
    head: str | None = None,
) -> Floats:
    """Logits [texts, labels] of the labels' words; the text is cut, or read in windows, the template never."""
    if multi_label:
        raise InvalidInput("multi_label cannot be had of a language model, whose words are weighed against each other")
    tokenizer = job.served.tokenizer
    kinds = {own: spec.kind for own, spec in job.served.checkpoint.heads.items()}
    masked = kinds[head] == "fill" if head in kinds else "fill" in kinds.values()
    name, _ = head_of(job, "fill" if masked else "next", "classify", head)
    prompt = (_masked if masked else _causal)(tokenizer, labels, template)
    leading, trailing = tokenizer.around()

    def asks(row: Encoded) -> tuple[Ask, ...]:
        place = leading + prompt.place if prompt.place >= 0 else len(row.ids) - trailing + prompt.place
        return (Ask(name, finish="none", positions=(place,), vocabulary=prompt.words),)

    framed = replace(options, before=prompt.before, after=prompt.after, prompt=prompt.space)
    found = await job.rows(texts, asks, options=framed)
    return np.stack([merged([one.outputs[0].values[0] for one in windows], long) for windows in found])


def _masked(tokenizer: Tokenizer, labels: Sequence[str], template: str | None) -> Prompt:
    if tokenizer.mask_id is None:
        raise WrongTask("this model cannot score labels of yours: its tokenizer names no mask token")
    mask = tokenizer.spelling(tokenizer.mask_id)
    before, after = around_slot(MASKED.format(mask=mask) if template is None else template)
    if (count := (before + after).count(mask)) != 1:
        raise InvalidInput(f"template {template!r} holds {count} masks; this model needs one {mask} in it")
    left, space, right = _frame(tokenizer, before, after)
    if mask in after:
        place, lead = right.index(tokenizer.mask_id) - len(right), BESIDE + after.partition(mask)[0]
    else:
        place, lead = left.index(tokenizer.mask_id), before.partition(mask)[0]
    context = _ids(tokenizer, lead + mask)[:-1]
    words = [_following(tokenizer, context, lead + label, label) for label in labels]
    return Prompt(left, space, right, place, _first(tokenizer, labels, words))


def _causal(tokenizer: Tokenizer, labels: Sequence[str], template: str | None) -> Prompt:
    """A space at the template's end belongs to the word that follows, as tokenizers of decoders have it."""
    before, after = around_slot(CAUSAL if template is None else template)
    after = after.rstrip()
    left, space, right = _frame(tokenizer, before, after)
    context = _ids(tokenizer, BESIDE + after)
    words = [_following(tokenizer, context, f"{BESIDE}{after} {label}", label) for label in labels]
    return Prompt(left, space, right, -1, _first(tokenizer, labels, words))


BESIDE = "a"
"""Stands for the text where tokens depend on there being one before them."""


def _frame(tokenizer: Tokenizer, before: str, after: str) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """Tokens before a text, the space between, tokens behind it: as the whole would be cut into tokens."""
    left = before.rstrip()
    right = _following(tokenizer, _ids(tokenizer, BESIDE), BESIDE + after, after)
    return _ids(tokenizer, left), before[len(left) :], right


def _following(tokenizer: Tokenizer, context: tuple[int, ...], whole: str, alone: str) -> tuple[int, ...]:
    """The tokens of `whole` behind those of its beginning, or the tokens of the rest alone if they run into them."""
    ids = _ids(tokenizer, whole)
    return ids[len(context) :] if ids[: len(context)] == context else _ids(tokenizer, alone)


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(token.id for token in tokenizer.tokens(text, special=False))


def _first(tokenizer: Tokenizer, labels: Sequence[str], words: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The first token of each word. Raises InvalidInput where one has none, or two have the same."""
    seen: dict[int, str] = {}
    for label, ids in zip(labels, words, strict=True):
        if not ids or ids[0] == tokenizer.unknown:
            raise InvalidInput(f"label {label!r} gives no token of this model's vocabulary; choose another word")
        if ids[0] in seen:
            raise InvalidInput(
                f"labels {seen[ids[0]]!r} and {label!r} begin with the same token {tokenizer.spelling(ids[0])!r}, "
                "which is all that is scored; choose words that differ there"
            )
        seen[ids[0]] = label
    return tuple(seen)
