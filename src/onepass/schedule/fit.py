"""Tokens of one or two texts to rows: cut to fit, or in windows, among what stands around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from onepass.errors import EmptyInput, InputTooLong
from onepass.model.multivector import Expansion
from onepass.schedule.pieces import (
    Encoded,
    Fixed,
    Part,
    Pieces,
    Truncate,
    aligned,
    filled,
    filled_in,
    fixed,
    kept,
    shares,
)


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How inputs become rows.

    prompt: text put before each single text, and before a pair's first one; the instruction of a model that is asked in
    words (`TokenizerFiles.pairs`).  truncate: which side of an over-long input goes; None refuses it.
    special: put special tokens around given token ids; texts always get them.
    second_tokens: most tokens of the last text of an item, cut on the right.
    second_whole: a pair's second text is kept whole, and the first one is cut, or read in windows.
    before, after: token ids around each single text, inside the special tokens; they are never cut.
    overlap: an over-long text, or a pair's second text, becomes several rows instead of being cut: windows that share
    so many tokens with the one before.  window: most tokens of a row; None: the model's limit.
    expansion: how a row that is shorter is filled up (ColBERT's queries).
    aligned: say where each token of a text came from (`Encoded.alignment`).
    together: so many items are one input to whoever asked, and errors number inputs, not items.
    """

    prompt: str = ""
    truncate: Truncate = "right"
    special: bool = True
    second_tokens: int | None = None
    second_whole: bool = False
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    overlap: int | None = None
    window: int | None = None
    expansion: Expansion | None = None
    aligned: bool = False
    together: int = 1


PLAIN = EncodeOptions()


class Fitter:
    """For the inputs of one call, which share what stands around their texts.

    most: tokens of a row.  types: whether the model tells types apart.  check: refuses ids that it has no row for.
    """

    def __init__(
        self, options: EncodeOptions, most: int, types: bool, check: Callable[[Sequence[int], int], object] | None
    ) -> None:
        self._options, self._types, self._check = options, types, check
        self._limit = min(options.window or most, most)
        self._around: Sequence[Fixed] = ()
        self._template: Sequence[Part] | None = None
        self._before: Pieces | None = None

    def rows(
        self, parts: Sequence[Pieces], template: Sequence[Part], number: int, *, cut: bool, skip: int
    ) -> Iterable[Encoded]:
        """Of one input.  cut: whether something is missing already.  skip: leading tokens that are prompt.

        Raises InputTooLong, EmptyInput, TokenOutOfRange.
        """
        options, limit = self._options, self._limit
        if options.second_tokens is not None and len(parts[-1]) > options.second_tokens:
            parts, cut = (*parts[:-1], parts[-1][: options.second_tokens]), True
        room = limit - (len(template) - len(parts))
        total = sum([len(part.ids) for part in parts])
        if room < 1:
            raise InputTooLong(
                f"{limit - room} tokens stand around input {number}, which leaves none of {limit} for it; shorten them",
                limit - room,
                limit - 1,
            )
        if total <= room:
            return (self._row(parts, template, number, cut, skip),)
        if options.overlap is not None:
            return self._in_windows(parts, template, number, cut, skip)
        if options.truncate is None:
            size = total + limit - room
            raise InputTooLong(
                f"input {number} has {size} tokens, the model takes {limit}; shorten it or turn truncation on",
                size,
                limit,
            )
        if options.second_whole and len(parts) == 2:
            sizes = _beside(len(parts[1]), room, number)
        else:
            sizes = shares(parts, room)
        parts = [kept(part, size, options.truncate) for part, size in zip(parts, sizes, strict=True)]
        return (self._row(parts, template, number, True, skip),)

    def _in_windows(
        self, parts: Sequence[Pieces], template: Sequence[Part], number: int, cut: bool, skip: int
    ) -> Iterator[Encoded]:
        place = 0 if self._options.second_whole else len(parts) - 1
        text, windows = parts[place], list(parts)
        room = self._limit - (len(template) - len(parts)) - sum(map(len, parts)) + len(text)
        for start, stop in _windows(len(text), room, number, self._options.overlap or 0):
            windows[place] = text[start:stop]
            yield self._row(windows, template, number, cut, skip, start)

    def _row(
        self, parts: Sequence[Pieces], template: Sequence[Part], number: int, cut: bool, skip: int, first: int = 0
    ) -> Encoded:
        ids, types = filled_in(self._fixed(template, parts), parts[-1])
        if self._check is not None:
            self._check(ids, number)
        if not ids:
            raise EmptyInput(f"input {number} has no tokens; send some text")
        alignment = aligned(parts, template, len(self._options.prompt)) if self._options.aligned else None
        visible = filled(ids, types, self._options.expansion)
        return Encoded(ids, types, cut, skip, number, first, alignment, visible)

    def _fixed(self, template: Sequence[Part], parts: Sequence[Pieces]) -> Sequence[Fixed]:
        """What stands around the last text: the same for all that share a first one, such as a query."""
        before = parts[0] if len(parts) == 2 else None
        if self._template is not template or self._before is not before:
            self._around = fixed(template, parts, self._types)
            self._template, self._before = template, before
        return self._around


def _beside(second: int, room: int, number: int) -> list[int]:
    """How many tokens of the first text stand beside all of the second one."""
    if second >= room:
        raise InputTooLong(
            f"the second text of input {number} has {second} tokens and is kept whole, which leaves none of {room} "
            "for the first; shorten it",
            second,
            room - 1,
        )
    return [room - second, second]


def _windows(size: int, room: int, number: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First token and end of each window of at most `room` tokens, each sharing `overlap` with the one before."""
    if room <= overlap:
        raise InputTooLong(
            f"input {number} leaves {max(room, 0)} tokens of a row for each window, which must be more than the "
            f"overlap of {overlap}; shorten what stands beside it, or the overlap",
            overlap + 1,
            max(room, 0),
        )
    start = 0
    while True:
        yield start, min(start + room, size)
        if start + room >= size:
            return
        start += room - overlap
