"""Texts as numbers of words, and words as tokens: what workers make batches of, without any tokenizer.

Both tokenizers split texts into the same words and each word by itself, so a text's tokens are its words' tokens. A
batch can so be cut, spliced, lowered and masked word by word, and the student's states be compared with the teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]
WIDTHS = (16, 32, 48, 64, 96, 128, 160, 192, 256, 288, 384, 512)
"""Longest rows are filled up to one of these: a GPU meets few shapes then, and each new one costs it time."""


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length, end to end: row r is values[offsets[r]:offsets[r + 1]]."""

    values: Ints
    offsets: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Ints], dtype: type) -> Ragged:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        values = np.empty(offsets[-1], dtype)
        for row, begin in zip(rows, offsets, strict=False):
            values[begin : begin + len(row)] = row
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Ints:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    def gather(self, rows: Ints) -> tuple[Ints, Ints]:
        """The values of `rows` end to end, and which of `rows` each belongs to."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        owner = np.repeat(np.arange(len(rows)), lengths)
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return self.values[np.repeat(self.offsets[rows], lengths) + within], owner


@dataclass(frozen=True)
class Store:
    """Texts, and what is known of them.

    tables: words' tokens under "cased", "lower" (the student's) and "teacher"; under "entries" the student's vocabulary
    as the teacher reads it.  texts: words' numbers.
    groups: name -> numbers of texts.  tasks: name -> int32 [n, columns]; which columns says prepare.py.
    tags: for each text of the task "entities", a tag per word.  special: ids by name, "teacher_cls" among them.
    kinds: how each word is written, as shapes.py numbers it.
    """

    tables: dict[str, Ragged]
    texts: Ragged
    groups: dict[str, Ints]
    tasks: dict[str, Ints]
    tags: Ragged
    special: dict[str, int]
    kinds: Ints

    def save(self, folder: Path) -> None:
        arrays: dict[str, Ints] = {"texts": self.texts.values, "texts.lengths": self.texts.lengths().astype(np.int32)}
        arrays |= {"kinds": self.kinds, "tags": self.tags.values, "tags.lengths": self.tags.lengths().astype(np.int32)}
        for name, table in self.tables.items():
            arrays |= {f"table.{name}": table.values, f"table.{name}.lengths": table.lengths().astype(np.uint8)}
        arrays |= {f"group.{name}": rows for name, rows in self.groups.items()}
        arrays |= {f"task.{name}": rows for name, rows in self.tasks.items()}
        arrays |= {f"special.{name}": np.array(value) for name, value in self.special.items()}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "store.npz", **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, folder: Path) -> Store:
        with np.load(folder / "store.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}

        def ragged(name: str) -> Ragged:
            lengths = arrays[name + ".lengths"].astype(np.int64)
            return Ragged(arrays[name], np.concatenate([[0], np.cumsum(lengths)]))

        def under(prefix: str) -> dict[str, Ints]:
            return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

        tables = {name: ragged(f"table.{name}") for name in ("cased", "lower", "teacher", "entries")}
        special = {name: int(value) for name, value in under("special.").items()}
        return cls(tables, ragged("texts"), under("group."), under("task."), ragged("tags"), special, arrays["kinds"])


@dataclass(frozen=True)
class Laid:
    """Rows of tokens side by side: ids int32 [rows, longest], lengths int32 [rows].

    types: int8 like ids, 1 in second texts; None where no row has one.
    words: int32 like ids, which of the batch's words a token is a piece of, -1 for special tokens.
    shapes: int8 like ids, how its word is written, as shapes.py numbers it; None for tokens that show it themselves.
    """

    ids: Ints
    lengths: Ints
    words: Ints
    types: Ints | None = None
    shapes: Ints | None = None


class Layout:
    """Lays rows of words out as tokens, for one tokenizer."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        self.tables, self.special = store.tables, store.special
        self.kinds = store.kinds
        self.first, self.last = store.special[prefix + "cls"], store.special[prefix + "sep"]

    def lay(self, rows: Sequence[Ints], table: str, most: int, seconds: Sequence[Ints] | None = None) -> Laid:
        """rows of words as [CLS] row [SEP], or [CLS] row [SEP] second [SEP]; the end is cut at `most` tokens.

        Of pairs the first text is cut at half of `most`, and the batch's words are all first texts', then all seconds'.
        """
        parts = [self._part(rows, table, most // 2 if seconds is not None else most - 2)]
        if seconds is not None:
            room = most - 3 - parts[0][3]
            parts.append(self._part(seconds, table, room))
        count = len(rows)
        lengths = 2 + parts[0][3] + (parts[1][3] + 1 if seconds is not None else 0)
        longest = next((size for size in WIDTHS if size >= lengths.max()), int(lengths.max()))
        ids = np.full((count, longest), self.special["pad"], np.int32)
        words = np.full((count, longest), -1, np.int32)
        types = np.zeros((count, longest), np.int8) if seconds is not None else None
        ids[:, 0] = self.first
        shapes = np.zeros((count, longest), np.int8) if table == "teacher" else None
        start, before, every = np.ones(count, np.int64), 0, np.arange(count)
        for number, (values, row, within, own, word, kind) in enumerate(parts):
            place = start[row] + within
            ids[row, place], words[row, place] = values, word + before
            if shapes is not None:
                shapes[row, place] = kind
            end = start + own
            ids[every, end] = self.last
            if types is not None and number == 1:
                columns = np.arange(longest)
                types[(columns >= start[:, None]) & (columns <= end[:, None])] = 1
            start, before = end + 1, before + sum(map(len, rows))
        return Laid(ids, lengths.astype(np.int32), words, types, shapes)

    def _part(self, rows: Sequence[Ints], table: str, room: int | Ints) -> tuple[Ints, ...]:
        """Per token: id, row, place in its part, (per row: tokens), word, shape."""
        sizes = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
        values, word = self.tables[table].gather(flat)
        row = np.repeat(np.arange(len(rows)), sizes)[word]
        tokens = np.bincount(row, minlength=len(rows))
        within = np.arange(len(values)) - np.repeat(np.cumsum(tokens) - tokens, tokens)
        shape = np.zeros(len(word), np.int8)
        if table == "teacher":
            shape = 1 + 2 * self.kinds[flat].astype(np.int8)[word] + (np.diff(word, prepend=-1) == 0)
        kept = within < (np.asarray(room)[row] if np.ndim(room) else room)
        own = np.minimum(tokens, room)
        return values[kept], row[kept], within[kept], own, word[kept], shape[kept]
