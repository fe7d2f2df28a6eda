"""What needs no encoder: words counted, the commonest answer, names looked up. Heads must be better to be shipped."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from training import data, metrics
from training.data.prose import sentences

Array = NDArray[Any]
WORD = r"(?u)\b\w+\b"


def tfidf(queries: list[str], texts: list[str]) -> Array:
    """[queries, texts]: cosines of bags of words, weighted by how rare a word is among the texts."""
    weigh = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True).fit(texts)
    scores: Array = (weigh.transform(queries) @ weigh.transform(texts).T).toarray()
    return scores


def bm25(queries: list[str], texts: list[str], k1: float = 1.2, b: float = 0.75) -> Array:
    """[queries, texts], as Robertson and Zaragoza (2009) give it, with Lucene's idf."""
    count = CountVectorizer(token_pattern=WORD).fit(texts)
    counts = count.transform(texts).tocsc().astype(np.float64)
    lengths = np.asarray(counts.sum(1)).ravel()
    holding = np.diff(counts.indptr)
    idf = np.log1p((len(texts) - holding + 0.5) / (holding + 0.5))
    norm = k1 * (1 - b + b * lengths / lengths.mean())
    weights = counts.copy()
    weights.data = counts.data * (k1 + 1) / (counts.data + norm[counts.indices]) * np.repeat(idf, holding)
    asked = count.transform(queries)
    asked.data[:] = 1
    scores: Array = (asked @ weights.T).toarray()
    return scores


def bag_of_words(texts: list[str], labels: list[Any]) -> Pipeline:
    """Logistic regression over words and pairs of words."""
    rare = 2 if len(texts) > 5000 else 1
    weigh = TfidfVectorizer(token_pattern=WORD, ngram_range=(1, 2), sublinear_tf=True, min_df=rare)
    return make_pipeline(weigh, LogisticRegression(C=10, max_iter=200, tol=1e-3)).fit(texts, labels)


def majority(labels: Iterable[Any]) -> float:
    """The accuracy of always saying the commonest."""
    counts = Counter(labels)
    return max(counts.values()) / sum(counts.values())


class Names:
    """Runs of capitalised words, with the type that the run, its last or its first word most often had in training.

    A sentence's first word alone counts only if it was a name in training.
    """

    RUN = re.compile(r"[A-Z][\w'’-]*(?:\s+(?:(?:of|the|de|von|van)\s+)?[A-Z][\w'’-]*)*")

    def __init__(self, sentences: Iterable[data.Tagged]) -> None:
        known: dict[str, Counter[str]] = defaultdict(Counter)
        for one in sentences:
            for start, end, kind in data.runs(one.tags):
                words = one.tokens[start:end]
                for key in {" ".join(words), words[-1], words[0]}:
                    known[key][kind] += 1
        self.known = {key: counts.most_common(1)[0][0] for key, counts in known.items()}

    def find(self, text: str) -> list[tuple[int, int, str]]:
        found = []
        for match in self.RUN.finditer(text):
            name, words = match[0], match[0].split()
            kind = next((self.known[key] for key in (name, words[-1], words[0]) if key in self.known), None)
            if kind or (match.start() > 0 and name != "I"):
                found.append((match.start(), match.end(), kind or "PER"))
        return found


def closest_sentence(question: str, context: str) -> str:
    """The sentence of the context that shares most words with the question."""
    return max(sentences(context), key=lambda sentence: metrics.overlap_f1(sentence, question), default="")


def commonest_words(texts: Iterable[str], most: int) -> list[str]:
    counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z]+", text))
    return [word for word, _ in counts.most_common(most)]
