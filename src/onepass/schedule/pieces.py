"""Tokens of a text, and rows made of them: what a text keeps when it is cut, and where each token came from."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from tokenizers import Tokenizer as Library

from onepass.errors import BadCheckpoint, InvalidInput
from onepass.model.multivector import Expansion

Truncate = Literal["right", "left"] | None
IDS = "I"  # Python fills such an array from a list in half the time that one with a sign takes


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the tokens of a row came from, one number each per token.

    texts: 0 or 1, which text; -1 for special tokens.  starts, stops: characters of that text.
    words: number of the word (as the tokenizer's pre-tokeniser splits) in that text, -1 for special tokens.
    """

    texts: array[int]
    starts: array[int]
    stops: array[int]
    words: array[int]


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class Encoded:
    """One row, special tokens included.

    cut: whether something was left out to fit.  skip: prompt tokens.  input: number of the item it came from.
    first: how many tokens of the windowed text lie before this row's window.  alignment: where asked for, of the text's
    tokens and the special ones.  visible: how many leading tokens the others see; None: all.
    """

    ids: array[int]
    types: array[int]
    cut: bool
    skip: int = 0
    input: int = 0
    first: int = 0
    alignment: Alignment | None = None
    visible: int | None = None


@dataclass(slots=True)  # one per row: a frozen one takes six times as long to make
class Pieces:
    """A text's tokens. offsets, words: where alignment is asked for, else empty."""

    ids: Sequence[int]
    offsets: Sequence[tuple[int, int]] = ()
    words: Sequence[int | None] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, kept: slice) -> Pieces:
        return Pieces(self.ids[kept], self.offsets[kept], self.words[kept])


@dataclass(frozen=True, slots=True)
class Part:
    """Either one special token (id) or the ids of text 0 or 1 (slot)."""

    type: int
    id: int = -1
    slot: int = -1


BARE = (Part(type=0, slot=0),)

Arranged = tuple[Sequence[Pieces], Sequence[Part], int]
"""An item's tokens, text by text, where they stand among fixed ones, and how many leading tokens are prompt."""


def read_template(library: Library, *, pair: bool) -> tuple[Part, ...]:
    """Where special tokens go and each place's type, read off one encoded text or pair. Raises BadCheckpoint."""
    shown = library.encode("a", "a" if pair else None)
    if not set(shown.sequence_ids) >= ({0, 1} if pair else {0}):
        raise BadCheckpoint("the tokenizer turns the text 'a' into no tokens; its tokenizer.json is not usable")
    places = zip(shown.sequence_ids, shown.type_ids, shown.ids, strict=True)
    template: list[Part] = []
    for sequence, group in groupby(places, key=lambda place: place[0]):
        members = list(group)
        if sequence is None:
            template.extend(Part(type=type, id=id) for _, type, id in members)
        else:
            template.append(Part(type=members[0][1], slot=sequence))
    return tuple(template)


def framed(template: Sequence[Part], before: Sequence[int], after: Sequence[int]) -> tuple[Part, ...]:
    """The template of a single text with more fixed tokens around the text."""
    ((place, text),) = [(place, part) for place, part in enumerate(template) if part.slot >= 0]
    first, last = (tuple(Part(type=text.type, id=id) for id in ids) for ids in (before, after))
    return (*template[:place], *first, text, *last, *template[place + 1 :])


class Fixed(NamedTuple):
    """A stretch of a row that is the same in many. type: of the text before it."""

    type: int
    ids: array[int]
    types: array[int]


def fixed(template: Sequence[Part], parts: Sequence[Pieces], types: bool) -> list[Fixed]:
    """What stands before the last text of a row, and after it, one stretch more than the text has places.

    types: whether the model tells types apart; else all are 0.
    """
    found = [Fixed(0, array(IDS), array("i"))]
    for place in template:
        type = place.type if types else 0
        if place.slot == len(parts) - 1:
            found.append(Fixed(type, array(IDS), array("i")))
            continue
        ids = parts[place.slot].ids if place.slot >= 0 else (place.id,)
        found[-1].ids.extend(ids)
        found[-1].types.extend([type] * len(ids))
    return found


def filled_in(around: Sequence[Fixed], text: Pieces) -> tuple[array[int], array[int]]:
    """The row's ids and types, with the text in its places."""
    ids, types = around[0].ids[:], around[0].types[:]
    for after in around[1:]:
        ids.extend(text.ids)
        types.extend(array("i", (after.type,)) * len(text.ids))
        ids.extend(after.ids)
        types.extend(after.types)
    return ids, types


def kept(text: Pieces, size: int, side: Truncate) -> Pieces:
    if size >= len(text):
        return text
    return text[len(text) - size :] if side == "left" else text[:size]


def filled(ids: array[int], types: array[int], expansion: Expansion | None) -> int | None:
    """Fills a row up to the expansion's length, in place; how many of its tokens the others see, None for all."""
    if expansion is None or len(ids) >= expansion.length:
        return None
    visible, missing = len(ids), expansion.length - len(ids)
    ids.extend([expansion.token] * missing)
    types.extend([0] * missing)
    return None if expansion.attended else visible


def aligned(parts: Sequence[Pieces], template: Sequence[Part], prompt: int) -> Alignment:
    """prompt: characters that were put before the text; a token of them stands at 0 to 0."""
    texts, starts, stops, words = array("b"), array("i"), array("i"), array("i")
    for place in template:
        if place.slot < 0:
            texts.append(-1)
            starts.append(0)
            stops.append(0)
            words.append(-1)
            continue
        part = parts[place.slot]
        texts.extend([place.slot] * len(part))
        starts.extend(max(start - prompt, 0) for start, _ in part.offsets)
        stops.extend(max(stop - prompt, 0) for _, stop in part.offsets)
        words.extend(-1 if word is None else word for word in part.words)
    return Alignment(texts, starts, stops, words)


def shares(parts: Sequence[Pieces], room: int) -> list[int]:
    """How many ids each part keeps: "longest first", as the tokenizers library cuts pairs."""
    if len(parts) == 1:
        return [room]
    short, long = sorted(map(len, parts))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return [short, long] if len(parts[0]) <= len(parts[1]) else [long, short]


def check_unicode(text: str, name: str) -> None:
    """Raises InvalidInput for a string that UTF-8 cannot carry."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{name} is not Unicode text: it holds a lone surrogate at character {error.start}; send well-formed text"
        ) from None


def byte_offsets(text: str) -> Sequence[int]:
    """Byte offset of each character, and of the end."""
    if text.isascii():
        return range(len(text) + 1)
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + len(character.encode()))
    return offsets
