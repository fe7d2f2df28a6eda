"""Batches as numpy arrays, made by worker processes: one class per objective, each yields forever.

Words are changed here: masked, replaced, lowered. What a batch holds says each class; rows are laid out by store.Layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.shapes import KINDS
from training.store import Ints, Laid, Layout, Store

Batch = dict[str, Any]
Random = np.random.Generator
LONGEST = 192  # tokens of a row of names


class Source(Protocol):
    def batch(self, random: Random) -> Batch: ...


def laid(name: str, rows: Laid) -> Batch:
    found = {f"{name}.ids": rows.ids, f"{name}.lengths": rows.lengths}
    if rows.types is not None:
        found[f"{name}.types"] = rows.types
    if rows.shapes is not None:
        found[f"{name}.shapes"] = rows.shapes
    return found


def case(random: Random) -> str:
    """A third of all batches is in lower case, as people type."""
    return "lower" if random.random() < 1 / 3 else "cased"


@dataclass
class Spans:
    """Stretches of texts: whole ones, and parts of long ones, at most so many tokens that `tokens` fill a batch."""

    store: Store
    weights: Mapping[str, float]
    tokens: int
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    shares: tuple[float, ...] = (0.1, 0.25, 0.35, 0.2, 0.1)

    def __post_init__(self) -> None:
        self.layer, self.teacher = Layout(self.store), Layout(self.store, "teacher_")
        self.names = list(self.weights)
        self.chances = np.array(list(self.weights.values())) / sum(self.weights.values())

    def rows(self, random: Random) -> tuple[list[Ints], int]:
        longest = int(random.choice(self.lengths, p=self.shares))
        count = max(self.tokens // longest, 1)
        groups = random.choice(len(self.names), count, p=self.chances)
        rows = []
        for group in groups:
            texts = self.store.groups[self.names[group]]
            text = self.store.texts[texts[random.integers(len(texts))]]
            most = max(int(longest * 0.8), 4)
            if len(text) > most:
                begin = 0 if random.random() < 0.4 else random.integers(len(text) - most)
                text = text[begin : begin + (most if random.random() < 0.7 else random.integers(3, most))]
            rows.append(text)
        return rows, longest


@dataclass
class Distilled(Spans):
    """What the teacher reads, too. student.*, teacher.*; student.words, teacher.words: which word a token is of.

    In a part of the rows words are replaced by others, at random: so the student meets words where the corpus has none.
    """

    def batch(self, random: Random) -> Batch:
        rows, longest = self.rows(random)
        strange = self.store.groups["wordlist"]
        for number in np.flatnonzero(random.random(len(rows)) < 0.25):
            row = rows[number].copy()
            for place in np.flatnonzero(random.random(len(row)) < 0.15):
                row[place] = self.store.texts[strange[random.integers(len(strange))]][0]
            rows[number] = row
        student = self.layer.lay(rows, case(random), longest + 16)
        teacher = self.teacher.lay(rows, "teacher", longest + 16)
        words = np.int32(sum(map(len, rows)))
        both = laid("student", student) | laid("teacher", teacher)
        return both | {"student.words": student.words, "teacher.words": teacher.words, "count": words}


@dataclass
class Named(Spans):
    """What the taggers read, too, as in Distilled. In half of the rows names, as capitals tell them, make place for
    others: so the student meets names where the corpus has none."""

    lengths: tuple[int, ...] = (32, 64, 128)
    shares: tuple[float, ...] = (0.4, 0.4, 0.2)
    renamed: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.capital = np.isin(self.store.kinds, [KINDS.index(kind) for kind in ("Capitalised", "CAPITALS", "miXed")])
        self.pieces = self.store.tables["cased"].lengths()

    def batch(self, random: Random) -> Batch:
        rows = self.alike([row for _ in range(4) for row in self.rows(random)[0]], random)
        student = self.layer.lay(rows, "lower" if random.random() < 0.1 else "cased", LONGEST)
        teacher = self.teacher.lay(rows, "teacher", LONGEST)
        both = laid("student", student) | laid("teacher", teacher)
        words = {"student.words": student.words, "teacher.words": teacher.words}
        return both | words | {"count": np.int32(sum(map(len, rows)))}

    def alike(self, drawn: list[Ints], random: Random) -> list[Ints]:
        """Of four times as many as a batch takes, neighbours by length, so that little is filled up."""
        for number in np.flatnonzero(random.random(len(drawn)) < self.renamed):
            drawn[number] = self.with_others(drawn[number], random)
        owner = np.repeat(np.arange(len(drawn)), [len(row) for row in drawn])
        sizes = 2 + np.bincount(owner, self.pieces[np.concatenate(drawn)], len(drawn))
        last = max(len(drawn) - self.tokens // int(sizes.max()), 1)
        order = np.argsort(sizes, kind="stable")[random.integers(last) :]
        most = np.searchsorted(np.arange(1, len(order) + 1) * sizes[order], self.tokens, "right")
        return [drawn[number] for number in order[: max(int(most), 1)]]

    def with_others(self, row: Ints, random: Random) -> Ints:
        """A row with half of its runs of capitals replaced by names of the group "names"."""
        runs = np.flatnonzero(np.diff(self.capital[row].astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        names, parts, done = self.store.groups["names"], [], 0
        for begin, end in runs[random.random(len(runs)) < 0.5]:
            parts += [row[done:begin], self.store.texts[names[random.integers(len(names))]]]
            done = end
        return np.concatenate([*parts, row[done:]])


@dataclass
class Read(Spans):
    """What is read once more by the model as it was, and as it is. text.*"""

    def batch(self, random: Random) -> Batch:
        rows, longest = self.rows(random)
        return laid("text", self.layer.lay(rows, case(random), longest))


@dataclass
class Masked(Spans):
    """Whole words hidden: of those chosen 80 % become [MASK], 10 % another token, 10 % stay.

    targets: -100 elsewhere.
    """

    share: float = 0.15

    def batch(self, random: Random) -> Batch:
        rows, longest = self.rows(random)
        student = self.layer.lay(rows, case(random) if random.random() < 0.5 else "cased", longest)
        drawn = random.random(sum(map(len, rows)) + 1) < self.share
        drawn[0], drawn[-1] = True, False  # at least one word, and no special token, whose word is -1
        chosen = drawn[student.words]
        targets = np.where(chosen, student.ids, -100)
        fate = random.random(student.ids.shape)
        vocabulary = self.store.special["vocabulary"]
        ids = np.where(chosen & (fate < 0.8), self.store.special["mask"], student.ids)
        ids = np.where(chosen & (fate > 0.9), random.integers(5, vocabulary, ids.shape), ids).astype(np.int32)
        return {"ids": ids, "lengths": student.lengths, "targets": targets.astype(np.int64)}


@dataclass
class Pairs:
    """Queries with their texts, of one kind a batch, so that negatives are near. query.*, text.*, both teacher's, too.

    group: which texts may answer each other's queries; they are no negatives.
    """

    store: Store
    weights: Mapping[str, float]
    tokens: int
    longest: int = 128

    def __post_init__(self) -> None:
        self.layer, self.teacher = Layout(self.store), Layout(self.store, "teacher_")
        self.names = list(self.weights)
        self.chances = np.array(list(self.weights.values())) / sum(self.weights.values())

    def batch(self, random: Random) -> Batch:
        pairs = self.store.tasks["pairs." + self.names[random.choice(len(self.names), p=self.chances)]]
        longest = int(random.choice([64, self.longest, 192]))
        chosen = pairs[random.choice(len(pairs), min(max(self.tokens // longest, 4), len(pairs)), replace=False)]
        queries, texts = ([self.store.texts[text] for text in column] for column in chosen.T[:2])
        found: Batch = {"group": chosen[:, 2]}
        for name, rows, most in (("query", queries, 64), ("text", texts, longest)):
            found |= laid(name, self.layer.lay(rows, case(random), most))
            found |= laid(f"{name}.teacher", self.teacher.lay(rows, "teacher", most))
        return found


@dataclass
class Near:
    """Pairs in heaps: some drawn, and for each others whose texts are near its query. query.*, text.*, group."""

    store: Store
    near: Mapping[str, tuple[Ints, Ints]]  # per kind of pairs: numbers of pairs, and for each the pairs near it
    tokens: int
    beside: int = 7

    def __post_init__(self) -> None:
        self.layer = Layout(self.store)
        self.names = list(self.near)
        sizes = np.array([len(self.near[name][0]) ** 0.5 for name in self.names])
        self.chances = sizes / sizes.sum()

    def batch(self, random: Random) -> Batch:
        name = self.names[random.choice(len(self.names), p=self.chances)]
        every, (known, near) = self.store.tasks["pairs." + name], self.near[name]
        longest = int(random.choice([64, 128, 192]))
        heaps = min(max(self.tokens // (longest + 32) // (1 + self.beside), 1), 16)
        seeds = random.choice(len(known), heaps, replace=False)
        beside = np.concatenate([random.choice(near[seed], self.beside, replace=False) for seed in seeds])
        chosen = every[np.unique(np.concatenate([known[seeds], beside]))]
        found: Batch = {"group": chosen[:, 2]}
        for part, rows, most in (("query", chosen[:, 0], 48), ("text", chosen[:, 1], longest)):
            found |= laid(part, self.layer.lay([self.store.texts[text] for text in rows], case(random), most))
        return found


@dataclass
class Labelled:
    """Texts, or pairs of texts, with a label. text.*, label. Some words are replaced by [MASK], so that few decide.

    tasks: name of the task -> its share; columns are (text, label) or (first, second, label).
    balanced: labels are drawn equally often.
    """

    store: Store
    tasks: Mapping[str, float]
    tokens: int
    longest: int = 256
    balanced: bool = False
    hidden: float = 0.06

    def __post_init__(self) -> None:
        self.layer = Layout(self.store)
        self.chances = np.array(list(self.tasks.values())) / sum(self.tasks.values())
        self.rows = [self.store.tasks[name] for name in self.tasks]
        self.by_label = [
            [np.flatnonzero(rows[:, -1] == label) for label in np.unique(rows[:, -1])] for rows in self.rows
        ]

    def batch(self, random: Random) -> Batch:
        longest = int(random.choice([48, 96, self.longest], p=[0.5, 0.3, 0.2]))
        count = max(self.tokens // longest, 8)
        chosen = []
        for number in random.choice(len(self.rows), count, p=self.chances):
            rows = self.rows[number]
            if self.balanced:
                kinds = self.by_label[number]
                of_label = kinds[random.integers(len(kinds))]
                chosen.append(rows[of_label[random.integers(len(of_label))]])
            else:
                chosen.append(rows[random.integers(len(rows))])
        rows = np.array(chosen)
        firsts = [self.store.texts[text] for text in rows[:, 0]]
        seconds = [self.store.texts[text] for text in rows[:, 1]] if rows.shape[1] == 3 else None
        given = self.layer.lay(firsts, case(random), longest, seconds)
        text = laid("text", hide(given, self.store.special["mask"], self.hidden, random))
        return text | {"label": rows[:, -1].astype(np.int64)}


@dataclass
class Tagged:
    """Texts with a tag for each token; -100 at special ones. partial: rows in which MISC was not looked for.

    reader: "teacher_" for the teacher's tokens.
    """

    store: Store
    tokens: int
    longest: int = 128
    hidden: float = 0.05
    reader: str = ""

    def __post_init__(self) -> None:
        self.layer = Layout(self.store, self.reader)
        rows = self.store.tasks["entities"]
        self.chances = rows[:, 2] / rows[:, 2].sum()

    def batch(self, random: Random) -> Batch:
        longest = int(random.choice([32, 64, self.longest], p=[0.4, 0.4, 0.2]))
        every = self.store.tasks["entities"]
        # of four times as many, neighbours by length, so that little is filled up
        count = max(self.tokens // longest, 8)
        drawn = random.choice(len(every), 4 * count, p=self.chances)
        drawn = drawn[np.argsort(self.store.texts.lengths()[every[drawn, 0]], kind="stable")]
        chosen = drawn[(begin := random.integers(3 * count)) : begin + count]
        written = "teacher" if self.reader else "lower" if random.random() < 0.1 else "cased"
        given = self.layer.lay([self.store.texts[text] for text in every[chosen, 0]], written, longest)
        tags = np.append(np.concatenate([self.store.tags[number] for number in chosen]).astype(np.int64), -100)
        targets = tags[given.words]
        text = laid("text", hide(given, self.store.special[self.reader + "mask"], self.hidden, random))
        return text | {"targets": targets, "partial": every[chosen, 1].astype(bool)}


@dataclass
class Answered:
    """Questions with contexts. pair.*, start, stop: the places of the answer's first and last token."""

    store: Store
    tokens: int
    longest: int = 256

    def __post_init__(self) -> None:
        self.layer = Layout(self.store)

    def batch(self, random: Random) -> Batch:
        every = self.store.tasks["answers"]
        rows = every[random.integers(len(every), size=max(self.tokens // self.longest, 8))]
        questions = [self.store.texts[text] for text in rows[:, 0]]
        contexts = [self.store.texts[text] for text in rows[:, 1]]
        given = self.layer.lay(questions, case(random), self.longest, contexts)
        before = sum(map(len, questions)) + np.concatenate([[0], np.cumsum(list(map(len, contexts)))[:-1]])
        first = given.words == (before + rows[:, 2])[:, None]
        last = given.words == (before + rows[:, 3])[:, None]
        kept = first.any(1) & last.any(1)
        places = np.arange(given.ids.shape[1])
        found = {"start": first.argmax(1), "stop": np.where(last, places, -1).max(1)}
        cut = Laid(given.ids[kept], given.lengths[kept], given.words[kept], _kept(given.types, kept))
        return laid("pair", cut) | {name: value[kept].astype(np.int64) for name, value in found.items()}


def _kept(types: Ints | None, kept: NDArray[np.bool_]) -> Ints | None:
    return None if types is None else types[kept]


def hide(rows: Laid, mask: int, share: float, random: Random) -> Laid:
    """A part of the words as [MASK]."""
    hidden = (random.random(rows.ids.shape) < share) & (rows.words >= 0)
    ids = np.where(hidden, np.int32(mask), rows.ids)
    return replace(rows, ids=ids)


@dataclass
class Mixed:
    """What one step learns from: a batch of each of `always`, and `some` drawn from `at_times` by their weights."""

    always: Mapping[str, Source]
    at_times: Mapping[str, tuple[float, Source]]
    some: int
    seed: int

    def stream(self, worker: int) -> Iterator[dict[str, Batch]]:
        random = np.random.default_rng([self.seed, worker])
        names = list(self.at_times)
        chances = np.array([share for share, _ in self.at_times.values()])
        chosen: Iterable[str] = []
        while True:
            if self.some:
                chosen = random.choice(names, self.some, replace=False, p=chances / chances.sum())
            sources = dict(self.always) | {name: self.at_times[name][1] for name in chosen}
            yield {name: source.batch(random) for name, source in sources.items()}
