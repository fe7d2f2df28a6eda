"""Names in sentences: persons, organisations, locations and others, from five sets made to agree."""

import re
from collections.abc import Callable, Iterator
from json import loads
from pathlib import Path
from typing import NamedTuple

from training.data.files import read_text, token_sentences
from training.data.splits import Split, split_of

DOMAINS = ("ai", "literature", "music", "politics", "science")
TYPES = ("PER", "ORG", "LOC", "MISC")


class Tagged(NamedTuple):
    tokens: list[str]
    tags: list[str]  # "O", "B-PER", "I-PER", ...
    partial: bool  # others (MISC) were not marked, or not all: a token with "O" may still be one
    source: str
    split: Split


# CrossNER's types as ours; those that are not here are mostly common nouns (fields, genres, proteins) and are no names.
CROSSNER = {
    **dict.fromkeys(("person", "politician", "writer", "musicalartist", "scientist", "researcher"), "PER"),
    **dict.fromkeys(("organisation", "university", "politicalparty", "band"), "ORG"),
    **dict.fromkeys(("country", "location"), "LOC"),
    **dict.fromkeys(("misc", "award", "book", "event", "song", "album", "election", "product", "programlang"), "MISC"),
    **dict.fromkeys(("poem", "academicjournal", "magazine", "conference", "astronomicalobject"), "MISC"),
}
WNUT = {"person": "PER", "location": "LOC", "corporation": "ORG", "group": "ORG"}
WNUT |= {"product": "MISC", "creative-work": "MISC"}
PRESIDIO = {"PERSON": "PER", "ORGANIZATION": "ORG", "GPE": "LOC", "NRP": "MISC"}
PRONOUNS_OF_CONTRACTS = {"borrower", "lender", "property"}


def entities(folder: Path, split: Split) -> Iterator[Tagged]:
    """Sentences with their names. Held out are, of wikigold, a quarter of the documents; of crossner and btc a tenth of
    the sentences of all parts; of wnut17 and sec-filings the official test parts; of presidio a tenth of the templates
    its sentences were made from."""
    folder = folder / "ner"
    yield from _wikigold(folder / "wikigold" / "wikigold.conll", split)
    crossner = [folder / "crossner" / f"{domain}_{part}.txt" for domain in DOMAINS for part in ("train", "dev", "test")]
    yield from _hashed(crossner, CROSSNER.get, False, "crossner", split)
    btc = [folder / "btc" / f"btc.{part}" for part in ("train", "dev", "test")]
    yield from (_without_handles(found) for found in _hashed(btc, str, True, "btc", split))
    for name in ("test.annotated",) if split == "held" else ("train.conll", "dev.conll"):
        yield from _read(folder / "wnut17" / name, WNUT.get, True, "wnut17", split)
    name = "test_FIN3.txt" if split == "held" else "train_FIN5.txt"
    yield from (
        _without_roles(found) for found in _read(folder / "sec-filings" / name, str, True, "sec-filings", split)
    )
    yield from _presidio(folder / "presidio-pii" / "synth_dataset_v2.json", split)


TypeOf = Callable[[str], str | None]


def _hashed(files: list[Path], type_of: TypeOf, partial: bool, source: str, split: Split) -> Iterator[Tagged]:
    for file in files:
        for found in _read(file, type_of, partial, source, split):
            if split_of(f"{source} {' '.join(found.tokens)}") == split:
                yield found


def _read(file: Path, type_of: TypeOf, partial: bool, source: str, split: Split) -> Iterator[Tagged]:
    for tokens, tags in token_sentences(file):
        if tokens != ["-DOCSTART-"]:
            yield Tagged(tokens, _unified(tokens, tags, type_of), partial, source, split)


def _unified(tokens: list[str], tags: list[str], type_of: TypeOf) -> list[str]:
    """Our types, always beginning with "B-"; what has neither a capital nor a digit is no name."""
    unified = ["O"] * len(tags)
    for start, end, kind in runs(tags):
        name = type_of(kind)
        if name and any(char.isupper() or char.isdigit() for char in "".join(tokens[start:end])):
            unified[start:end] = [f"B-{name}", *[f"I-{name}"] * (end - start - 1)]
    return unified


def runs(tags: list[str]) -> Iterator[tuple[int, int, str]]:
    """First token, token behind the last, and type of each name, of tags with or without "B-"."""
    start, kind = 0, ""
    for position, tag in enumerate([*tags, "O"]):
        inside = kind and tag == f"I-{kind}"
        if kind and not inside:
            yield start, position, kind
            kind = ""
        if not inside and tag != "O":
            start, kind = position, tag[2:]


def _wikigold(file: Path, split: Split) -> Iterator[Tagged]:
    document: list[tuple[list[str], list[str]]] = []
    for tokens, tags in [*token_sentences(file), (["-DOCSTART-"], ["O"])]:
        if tokens != ["-DOCSTART-"]:
            document.append((tokens, tags))
            continue
        if document and split_of("wikigold " + " ".join(document[0][0]), 0.25) == split:
            for kept, marked in document:
                yield Tagged(kept, _unified(kept, marked, str), False, "wikigold", split)
        document = []


def _without_roles(found: Tagged) -> Tagged:
    """Contracts mark "Borrower" and the like as persons."""
    tags = list(found.tags)
    for start, end, _ in runs(found.tags):
        if {token.lower() for token in found.tokens[start:end]} <= PRONOUNS_OF_CONTRACTS:
            tags[start:end] = ["O"] * (end - start)
    return found._replace(tags=tags)


def _without_handles(found: Tagged) -> Tagged:
    """Names of accounts are not marked elsewhere."""
    tags = list(found.tags)
    for start, end, _ in runs(found.tags):
        if start and found.tokens[start - 1] == "@":
            tags[start:end] = ["O"] * (end - start)
    return found._replace(tags=tags)


def _presidio(file: Path, split: Split) -> Iterator[Tagged]:
    """Made-up sentences with made-up names; those with addresses, whose places are not marked, are left out."""
    for row in loads(read_text(file)):
        kinds = {span["entity_type"] for span in row["spans"]}
        if "STREET_ADDRESS" in kinds or split_of(f"presidio {row['template_id']}") != split:
            continue
        tokens, tags = [], []
        for match in re.finditer(r"\w+(?:[-.]\w+)*|[^\w\s]", row["full_text"]):
            tokens.append(match[0])
            tags.append(_tag_at(match.start(), match.end(), row["spans"]))
        if tokens:
            yield Tagged(tokens, tags, True, "presidio", split)


def _tag_at(start: int, end: int, spans: list[dict[str, str | int]]) -> str:
    for span in spans:
        first, last = int(span["start_position"]), int(span["end_position"])
        if first < end and start < last and (kind := PRESIDIO.get(str(span["entity_type"]))):
            return f"B-{kind}" if start <= first else f"I-{kind}"
    return "O"


# Raw text

_NO_SPACE_BEFORE = re.compile(r"[.,;:!?%)\]}…]+$|'{1,2}$|''|['’](?:s|S|ll|re|ve|d|m|t)$|n['’]t$|”")
_NO_SPACE_BEHIND = re.compile(r"[(\[{$£€#@“‘]$|``")
_QUOTES = {"``": '"', "''": '"', "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}


def detokenize(tokens: list[str]) -> tuple[str, list[tuple[int, int]]]:
    """The tokens as running text, and of each its first character and the one behind its last."""
    text, spans = "", []
    open_quote = False
    glued = True
    for raw in tokens:
        token = _QUOTES.get(raw, raw)
        closes = token == '"' and open_quote
        if not glued and not closes and (raw in ("``", '"') or not _NO_SPACE_BEFORE.match(raw)):
            text += " "
        spans.append((len(text), len(text) + len(token)))
        text += token
        if token == '"':
            open_quote = not open_quote
        glued = (token == '"' and open_quote) or bool(_NO_SPACE_BEHIND.match(token))
    return text, spans


def spans_of(found: Tagged) -> tuple[str, list[tuple[int, int, str]]]:
    """The sentence as running text, and of each name its first character, the one behind its last, and its type."""
    text, places = detokenize(found.tokens)
    return text, [(places[start][0], places[end - 1][1], kind) for start, end, kind in runs(found.tags)]
