"""What the model sees: each set with its licence, how far that reaches, and what it is used for."""

from typing import NamedTuple


class Source(NamedTuple):
    title: str
    licence: str
    tier: str  # A: covers text and labels; B: labels or a repository, over text of third parties
    use: str


SOURCES = {
    "ms-cpp-docs": Source("Microsoft C++ documentation", "CC BY 4.0", "A", "text, titles, answers"),
    "ms-powershell-docs": Source("Microsoft PowerShell documentation", "CC BY 4.0", "A", "text, titles, answers"),
    "peps": Source("Python Enhancement Proposals", "public domain or CC0", "A", "text, titles, answers"),
    "eips": Source("Ethereum Improvement Proposals", "CC0", "A", "text, titles, answers"),
    "18f-site": Source("18F site", "CC0", "A", "text, titles, answers"),
    "18f-handbook": Source("18F handbook", "CC0", "A", "text, titles, answers"),
    "classic-books": Source("127 books by authors who died before 1947", "public domain", "A", "text"),
    "tldr": Source("tldr pages", "CC BY 4.0", "A", "pairs, answers"),
    "medquad": Source("MedQuAD: questions and answers of the NIH", "CC BY 4.0", "A", "pairs, answers"),
    "nl2bash": Source("NL2Bash", "MIT", "A", "pairs"),
    "disfl-qa": Source("Disfl-QA", "CC BY 4.0", "A", "pairs"),
    "rqe-questions": Source("RQE: recognising question entailment", "CC BY 4.0", "A", "entailment"),
    "acmi-snli": Source("Counterfactually augmented SNLI", "Apache-2.0", "B", "entailment"),
    "conjnli": Source("ConjNLI", "MIT", "B", "entailment, answers"),
    "vader": Source("VADER's rated tweets, product reviews and editorials", "MIT", "B", "sentiment, toxicity"),
    "uci-sentences": Source("Sentiment labelled sentences", "CC BY 4.0", "B", "sentiment"),
    "acmi-imdb": Source("Counterfactually augmented IMDB", "Apache-2.0", "B", "sentiment"),
    "goemotions": Source("GoEmotions", "Apache-2.0", "B", "sentiment, toxicity"),
    "senti4sd": Source("Senti4SD", "MIT", "B", "sentiment"),
    "davidson-hate": Source("Hate speech and offensive language", "MIT", "B", "toxicity"),
    "surge-toxicity": Source("Surge AI toxicity", "MIT", "B", "toxicity"),
    "toxic-spans": Source("Toxic spans of Civil Comments", "CC0", "A", "toxicity"),
    "wikigold": Source("WikiGold", "CC BY 4.0", "A", "entities, answers"),
    "crossner": Source("CrossNER", "MIT", "B", "entities, answers"),
    "btc": Source("Broad Twitter Corpus", "CC BY 4.0", "B", "entities"),
    "wnut17": Source("WNUT 2017", "CC BY 4.0", "B", "entities"),
    "sec-filings": Source("Names in SEC filings", "CC BY 3.0", "A", "entities"),
    "presidio-pii": Source("Presidio's made-up sentences", "MIT", "A", "entities"),
    "clinc150": Source("CLINC150", "CC BY 3.0", "A", "labels of one's own"),
    "hwu64": Source("HWU64", "CC BY 4.0", "A", "labels of one's own"),
    "snips": Source("Snips NLU", "CC0", "A", "labels of one's own"),
    "banking77": Source("BANKING77", "CC BY 4.0", "A", "only measured with"),
}


def table() -> str:
    """The sets as a table in Markdown."""
    rows = [f"| {one.title} | {one.licence} | {one.tier} | {one.use} |" for one in SOURCES.values()]
    return "\n".join(["| set | licence | tier | use |", "|---|---|---|---|", *rows])
