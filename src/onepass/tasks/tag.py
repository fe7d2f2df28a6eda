"""Labels for the tokens of a text, or for the words and entities that they make up.

Tokens are joined as the token-classification pipeline of transformers 5.23 joins them; "viterbi" is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from onepass.engines.batch import Floats
from onepass.errors import InvalidInput
from onepass.model.heads import HeadSpec, Joining
from onepass.schedule.job import Answered, Job
from onepass.schedule.pieces import Alignment
from onepass.schedule.row import Ask
from onepass.schedule.tokenizer import Tokenizer
from onepass.tasks.heads import head_of
from onepass.tasks.reading import Reading, read
from onepass.tasks.texts import strings
from onepass.tasks.viterbi import OUTSIDE, best_path, kind_of
from onepass.tasks.windows import windows

T = TypeVar("T")

Strategy = Literal["none", "simple", "first", "average", "max"]  # transformers' names
Aggregation = Strategy | Joining
AGGREGATIONS: tuple[Aggregation, ...] = ("none", *get_args(Joining))

ONE_LABEL: dict[Aggregation, Callable[[Floats], Floats]] = {
    "first": lambda scores: scores[0],
    "average": lambda scores: scores.mean(axis=0),
    "max": lambda scores: scores[scores.max(axis=1).argmax()],
    "viterbi": lambda scores: scores.mean(axis=0),
}
"""From the scores of a word's tokens [tokens, labels] to those of the word [labels]."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A labelled stretch of a text.

    label: without B- or I- in front, unless tokens stay single.  score: a probability.  text: as it stands there,
    from character `start` to before `stop`.  words: number of its first word and of the one after its last, as the
    tokenizer splits words.
    """

    label: str
    score: float
    text: str
    start: int
    stop: int
    words: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text with its score for each label.

    place: which token of the row it is, counted from 0 and with the special tokens before the text.
    start, stop: characters of the text.
    """

    id: int
    place: int
    start: int
    stop: int
    scores: dict[str, float]


async def tag(
    job: Job,
    texts: Iterable[str],
    *,
    aggregation: Aggregation | None = None,
    ignore_labels: Sequence[str] = ("O",),
    window: int | None = None,
    overlap: int | None = None,
    head: str | None = None,
) -> list[list[Entity]]:
    """For each text its entities in order.

    aggregation: "none" labels each token; "simple" joins neighbours of one kind where no B- begins anew; "first",
    "average" and "max" do so with words instead of tokens, whose label is that of the first token, of the mean of the
    scores, or of the surest token; "viterbi" does as "average", but takes of all sequences of labels in which no name
    changes its kind the likeliest (`tasks.viterbi`). The score of joined tokens or words is the mean of theirs. None:
    what the head says in its checkpoint, and "simple" where it says nothing.
    ignore_labels: not in the answer; a joined entity's label is compared without its B- or I-.
    window, overlap: tokens of a row, and how many of them it shares with the row before (see `tasks.windows`). Where
    entities of two windows overlap the longer one stays, of equally long ones the surer; a single token is taken from
    the window where it lies furthest inside.
    head: name of the head to read, of a checkpoint that has several for this.
    Raises WrongTask, InvalidInput and its kinds, Overloaded, EngineFailure.
    """
    reading = tagging(job, *head_of(job, "tag", "tag", head), aggregation, ignore_labels)
    return await read(job, strings(texts), reading, windows(job, window, overlap))


def tagging(
    job: Job,
    name: str,
    head: HeadSpec,
    aggregation: Aggregation | None = None,
    ignore_labels: Sequence[str] = ("O",),
) -> Reading[list[Entity]]:
    """As `tag` says. Raises InvalidInput."""
    aggregation = head.aggregation if aggregation is None else aggregation
    if aggregation not in AGGREGATIONS:
        raise InvalidInput(f"aggregation {aggregation!r} is unknown; choose {', '.join(AGGREGATIONS)}")
    if aggregation == "viterbi" and OUTSIDE not in head.labels:
        raise InvalidInput(
            f"aggregation 'viterbi' needs a label {OUTSIDE!r} of words outside all names, which head {name!r} lacks; "
            "choose another"
        )
    if isinstance(ignore_labels, str):
        raise InvalidInput(f"ignore_labels is the string {ignore_labels!r}; send a list of labels")
    tagger = _Tagger(job.served.tokenizer, head.labels, aggregation, frozenset(ignore_labels))
    ask = Ask(name)
    return Reading(lambda text, row: ask, tagger.entities, points=True)


async def tag_tokens(
    job: Job,
    texts: Iterable[str],
    *,
    raw_scores: bool = False,
    overlap: int | None = None,
    head: str | None = None,
) -> list[list[Token]]:
    """For each text its tokens in order, without special ones, read in windows as `tag` does where it is long.

    raw_scores: the logits instead of probabilities.
    Raises what `tag` raises.
    """
    name, found = head_of(job, "tag", "tag", head)
    ask = Ask(name, finish="none" if raw_scores else None)
    rows = await job.rows(strings(texts), lambda _: (ask,), options=windows(job, None, overlap))

    def tokens(piece: Answered) -> list[Token]:
        alignment, first = piece.row.alignment, piece.row.first
        assert alignment is not None
        return [
            Token(piece.row.ids[place], first + place, start, stop, dict(zip(found.labels, scores, strict=True)))
            for place, (number, start, stop, scores) in enumerate(
                zip(alignment.texts, alignment.starts, alignment.stops, piece.outputs[0].values.tolist(), strict=True)
            )
            if number == 0
        ]

    def each() -> list[list[Token]]:
        return [
            list(_furthest_inside([piece.row.first for piece in pieces], list(map(tokens, pieces)))) for pieces in rows
        ]

    return await job.off_loop(each)


@dataclass(frozen=True, slots=True)
class _Tagger:
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    aggregation: Aggregation
    ignored: frozenset[str]

    def entities(self, text: str, pieces: Sequence[Answered]) -> list[Entity]:
        """Of a text that was read in one row or several windows."""
        parts = [list(self._parts(text, piece)) for piece in pieces]
        if self.aggregation == "none":
            return self._wanted(_furthest_inside([piece.row.first for piece in pieces], parts))
        found = [entity for part in parts for entity in self._wanted(_joined(text, part))]
        return found if len(pieces) == 1 else _longest(found)

    def _wanted(self, entities: Iterable[Entity]) -> list[Entity]:
        return [entity for entity in entities if entity.label not in self.ignored]

    def _parts(self, text: str, piece: Answered) -> Iterator[Entity]:
        """The tokens of a row with their labels, or its words where they get one label each."""
        alignment, scores = piece.row.alignment, piece.outputs[0].values
        assert alignment is not None
        tokens = [place for place, number in enumerate(alignment.texts) if number == 0]
        if self.aggregation != "none" and tokens and not any(alignment.stops):
            raise InvalidInput(
                f"the tokenizer of this model does not say where tokens stand in a text, which the aggregation "
                f"{self.aggregation!r} needs; ask for none"
            )
        one_label = ONE_LABEL.get(self.aggregation)
        groups = [[place] for place in tokens] if one_label is None else self._words(text, piece, alignment, tokens)
        if not groups:
            return
        chances = np.stack([scores[group[0]] if one_label is None else one_label(scores[group]) for group in groups])
        chosen = best_path(chances, self.labels) if self.aggregation == "viterbi" else chances.argmax(axis=1)
        for group, best, score in zip(groups, chosen, chances[np.arange(len(groups)), chosen].tolist(), strict=True):
            start, stop = alignment.starts[group[0]], alignment.stops[group[-1]]
            words = alignment.words[group[0]], alignment.words[group[-1]] + 1
            yield Entity(self.labels[best], score, text[start:stop], start, stop, words)

    def _words(self, text: str, piece: Answered, alignment: Alignment, tokens: Iterable[int]) -> list[list[int]]:
        words: list[list[int]] = []
        for place in tokens:
            id, start, stop = piece.row.ids[place], alignment.starts[place], alignment.stops[place]
            if words and self._continues(text, id, start, stop):
                words[-1].append(place)
            else:
                words.append([place])
        return words

    def _continues(self, text: str, id: int, start: int, stop: int) -> bool:
        """Whether a token goes on with a word.

        Vocabularies that mark such tokens ("##ing") spell them longer than the text. Elsewhere a word begins after a
        space, whatever the tokenizer calls a word. An unknown token is a word.
        """
        if id == self.tokenizer.unknown:
            return False
        if self.tokenizer.marks_subwords:
            return len(self.tokenizer.spelling(id)) != stop - start
        return start > 0 and " " not in text[start - 1 : start + 1]


def _joined(text: str, parts: Iterable[Entity]) -> Iterator[Entity]:
    """Neighbours of one kind as one entity, a new one where a label begins with B-."""
    groups: list[list[Entity]] = []
    for part in parts:
        if groups and not part.label.startswith("B-") and kind_of(part.label) == kind_of(groups[-1][-1].label):
            groups[-1].append(part)
        else:
            groups.append([part])
    for group in groups:
        first, last = group[0], group[-1]
        label = first.label.split("-", 1)[-1]
        score = sum(part.score for part in group) / len(group)
        words = first.words[0], last.words[1]
        yield Entity(label, score, text[first.start : last.stop], first.start, last.stop, words)


def _longest(entities: Iterable[Entity]) -> list[Entity]:
    """Of entities that overlap the longest, of equally long ones the surest."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity.start):
        if not kept or not kept[-1].start <= entity.start < kept[-1].stop:
            kept.append(entity)
        elif _strength(entity) > _strength(kept[-1]):
            kept[-1] = entity
    return kept


def _strength(entity: Entity) -> tuple[int, float]:
    return entity.stop - entity.start, entity.score


def _furthest_inside(firsts: Sequence[int], windows: Sequence[Sequence[T]]) -> Iterator[T]:
    """Each token of a text once, from the window that shows most on either side of it.

    firsts: number of each window's first token in the text.
    """
    best: dict[int, tuple[int, T]] = {}
    for first, tokens in zip(firsts, windows, strict=True):
        for place, token in enumerate(tokens):
            depth = min(place, len(tokens) - 1 - place)
            if first + place not in best or depth > best[first + place][0]:
                best[first + place] = depth, token
    return (token for _, token in best.values())
