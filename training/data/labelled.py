"""Texts with a label: sentiment, toxicity, intents, and what a sentence entails."""

import csv
import html
import io
import re
import tarfile
from ast import literal_eval
from collections.abc import Iterator
from json import loads
from pathlib import Path
from typing import NamedTuple

from training.data.files import read_lines, read_table, read_text
from training.data.splits import Split, split_of

NEGATIVE, NEUTRAL, POSITIVE = 0, 1, 2
ENTAILMENT, UNDECIDED, CONTRADICTION = 0, 1, 2


class Labelled(NamedTuple):
    text: str
    label: int
    source: str
    split: Split


class Entailed(NamedTuple):
    premise: str
    hypothesis: str
    label: int  # 0 entailment, 1 neutral, 2 contradiction
    source: str
    split: Split


class Intent(NamedTuple):
    text: str
    label: str
    split: Split


def tidy(text: str) -> str:
    """One line, with entities resolved; names of accounts are all `@user`."""
    text = html.unescape(html.unescape(text)).replace("<br />", " ")
    text = text.replace("http://url_removed", "")
    text = re.sub(r"(?<!\w)@\w+", "@user", re.sub(r"^[\s!\"]*RT @\w+:\s*", "", text))
    return " ".join(text.split()).strip('" ')


def _hashed(texts: Iterator[tuple[str, int]], source: str, split: Split, share: float = 0.1) -> Iterator[Labelled]:
    seen: set[str] = set()
    for raw, label in texts:
        text = tidy(raw)
        if len(text) > 2 and text not in seen and split_of(f"{source} {text}", share) == split:
            seen.add(text)
            yield Labelled(text, label, source, split)


# Sentiment

RATED = {"amazonReviewSnippets": "vader-amazon", "nytEditorialSnippets": "vader-nyt"}


def sentiment(folder: Path, split: Split) -> Iterator[Labelled]:
    """Texts with 0 negative, 1 neutral or 2 positive. Official test parts are held out where there are some; of the
    short reviews of uci-sentences, which have no neutral ones, four tenths."""
    folder = folder / "sentiment"
    for part, source in {**RATED, "tweets": "vader-tweets"}.items():
        yield from _hashed(_rated(folder / "vader" / "hutto_ICWSM_2014.tar.gz", part), source, split)
    for part in ("amazon_cells", "yelp", "imdb"):
        rows = (line.rsplit("\t", 1) for line in read_lines(folder / "uci-sentences" / f"{part}_labelled.txt") if line)
        yield from _hashed(((text, 2 * int(label)) for text, label in rows), f"uci-{part}", split, 0.4)
    yield from _imdb(folder / "acmi-imdb", split)
    yield from _emotions(folder / "goemotions", split)
    yield from _stack_overflow(folder / "senti4sd", split)


def _rated(archive: Path, part: str) -> Iterator[tuple[str, int]]:
    """Mean ratings from -4 to 4 of twenty people; what lies between the labels is left out."""
    with tarfile.open(archive) as files:
        file = files.extractfile(f"hutto_ICWSM_2014/{part}_GroundTruth.txt")
        assert file is not None
        content = file.read().decode("utf-8", "replace").lstrip("\ufeff")
    for line in content.splitlines():
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) > 0.8:
            yield text, POSITIVE if float(rating) > 0 else NEGATIVE
        elif abs(float(rating)) < 0.35:
            yield text, NEUTRAL


def _imdb(folder: Path, split: Split) -> Iterator[Labelled]:
    parts = ("test",) if split == "held" else ("train", "dev")
    for name in (f"{kind}_{part}" for part in parts for kind in ("orig", "new")):
        for label, text, *_ in read_table(folder / f"{name}.tsv", "\t"):
            yield Labelled(tidy(text), POSITIVE if label == "Positive" else NEGATIVE, "acmi-imdb", split)


GOOD = {"admiration", "amusement", "approval", "caring", "excitement", "gratitude", "joy", "love", "optimism", "pride"}
GOOD |= {"relief"}
BAD = {
    "anger",
    "annoyance",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "fear",
    "grief",
    "nervousness",
}
BAD |= {"remorse", "sadness"}


def emotions(folder: Path, split: Split) -> Iterator[tuple[str, set[str]]]:
    """Comments of goemotions with the names of their emotions; the official test part is held out."""
    names = read_lines(folder / "labels.txt")
    for part in ("test",) if split == "held" else ("train", "dev"):
        for text, ids, *_ in read_table(folder / f"{part}.tsv", "\t", header=False, quoted=False):
            yield (
                text.replace("[NAME]", "Alex").replace("[RELIGION]", "religion"),
                {names[int(id)] for id in ids.split(",")},
            )


def _emotions(folder: Path, split: Split) -> Iterator[Labelled]:
    """What is all good, all bad or neutral; surprise, confusion and mixtures are left out."""
    for text, felt in emotions(folder, split):
        for label, names in ((POSITIVE, GOOD), (NEGATIVE, BAD), (NEUTRAL, {"neutral"})):
            if felt <= names:
                yield Labelled(tidy(text), label, "goemotions", split)


def _stack_overflow(folder: Path, split: Split) -> Iterator[Labelled]:
    labels = {"negative": NEGATIVE, "neutral": NEUTRAL, "positive": POSITIVE}
    for row in read_table(folder / ("test1326.csv" if split == "held" else "train3098.csv"), ";", header=False):
        if len(row) >= 3 and row[1] in labels:
            yield Labelled(tidy(";".join(row[2:])), labels[row[1]], "senti4sd", split)


# Toxicity


def toxicity(folder: Path, split: Split) -> Iterator[Labelled]:
    """Texts with 1 toxic or 0 not. What is not toxic comes from the same sets, and from comments and reviews that are
    friendly, neutral or critical: so being negative, or swearing in joy, is not yet toxic."""
    safety = folder / "safety"
    tweets = (row for row in read_table(safety / "davidson-hate" / "labeled_data.csv"))
    yield from _hashed(((row[6], int(row[5] != "2")) for row in tweets), "davidson-hate", split)
    rows = read_table(safety / "surge-toxicity" / "toxicity_en.csv")
    yield from _hashed(((text, int(label == "Toxic")) for text, label in rows), "surge-toxicity", split, 0.3)
    for spans, text in _spans(safety / "toxic-spans", split):
        if spans:  # in the others no words were found to be toxic
            yield Labelled(tidy(text), 1, "toxic-spans", split)
    calm = GOOD | {"neutral", "curiosity", "sadness", "surprise", "realization", "confusion"}
    mild = (text for text, felt in emotions(folder / "sentiment" / "goemotions", split) if felt <= calm)
    yield from (
        Labelled(tidy(text), 0, "goemotions", split) for text in mild if split_of(f"mild {text}", 0.4) == "held"
    )
    archive = folder / "sentiment" / "vader" / "hutto_ICWSM_2014.tar.gz"
    for part, source in RATED.items():
        yield from _hashed(((text, 0) for text, _ in _rated(archive, part)), source, split)


def _spans(folder: Path, split: Split) -> Iterator[tuple[list[int], str]]:
    for part in ("test",) if split == "held" else ("train", "trial"):
        for spans, text in csv.reader(io.StringIO(read_text(folder / f"tsd_{part}.csv"))):
            if spans != "spans":
                yield literal_eval(spans), text


# Intents


def intents(folder: Path, name: str) -> list[Intent]:
    """All of banking77, clinc150, hwu64 or snips, in their official parts; clinc150 without what is out of scope."""
    folder = folder / "intent" / name
    if name == "clinc150":
        parts = loads(read_text(folder / "data_full.json"))
        train, held = parts["train"] + parts["val"], parts["test"]
    elif name == "snips":
        train = [row for file in sorted(folder.glob("train_*")) for row in _snips(file)]
        held = [row for file in sorted(folder.glob("validate_*")) for row in _snips(file)]
    else:
        files = {"banking77": ("train.csv", "test.csv"), "hwu64": ("trainset.csv", "testset.csv")}[name]
        train, held = (read_table(folder / file) for file in files)
    splits: list[tuple[Split, list[list[str]]]] = [("train", train), ("held", held)]
    return [
        Intent(" ".join(text.split()), re.sub(r"[_/]+", " ", label).strip(), split)
        for split, rows in splits
        for text, label in rows
    ]


def _snips(file: Path) -> Iterator[list[str]]:
    for label, rows in loads(_decoded(file)).items():
        for row in rows:
            yield ["".join(part["text"] for part in row["data"]), re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label).lower()]


def _decoded(file: Path) -> str:
    try:
        return read_text(file.with_name(file.name.removesuffix(".gz")))
    except UnicodeDecodeError:
        return file.read_bytes().decode("latin-1")


# Entailment


def nli(folder: Path, split: Split) -> Iterator[Entailed]:
    """Pairs of a premise and a hypothesis: counterfactually revised SNLI, whose hypotheses alone tell little, and
    ConjNLI. The official test part of the first and the only checked part of the second are held out."""
    labels = {"entailment": ENTAILMENT, "neutral": UNDECIDED, "contradiction": CONTRADICTION}
    snli = ("all_combined_test",) if split == "held" else ("all_combined_train", "all_combined_dev")
    conj = ("conj_dev",) if split == "held" else ("adversarial_train_15k",)
    for source, names in (("acmi-snli", snli), ("conjnli", conj)):
        for name in names:
            for premise, hypothesis, label, *_ in read_table(
                folder / "nli" / source / f"{name}.tsv", "\t", quoted=False
            ):
                if label in labels:
                    yield Entailed(premise.strip(), hypothesis.strip(), labels[label], source, split)
