"""Sentences, and cutting text at their ends."""

import re
from collections.abc import Iterator

# Short words with a dot behind which a sentence rarely ends.
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|Gen|Col|Capt|Sen|Rep|Jr|Sr|vs|etc|e\.g|i\.e|cf|al|No|Fig|Inc|Ltd|Co|Corp|approx"
    r"|U\.S|a\.m|p\.m)|\b[A-Z])\.$"
)
_END = re.compile(r"[.!?]['\"’”)\]]*\s+(?=['\"‘“(\[]?[A-Z0-9])")


def sentences(text: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text, start, match.start() + 1):
            continue
        yield text[start : match.end()].strip()
        start = match.end()
    if text[start:].strip():
        yield text[start:].strip()


def cut(text: str, limit: int) -> str:
    """The leading sentences of `text` that fit into `limit` characters; of one too long, its leading words."""
    if len(text) <= limit:
        return text
    taken = ""
    for sentence in sentences(text):
        if len(taken) + 1 + len(sentence) > limit:
            break
        taken = f"{taken} {sentence}".strip()
    return taken or text[:limit].rsplit(" ", 1)[0]


def pieces(text: str, limit: int) -> Iterator[str]:
    """`text` in pieces of at most `limit` characters that end where sentences do; longer sentences are left out."""
    taken = ""
    for sentence in sentences(text) if len(text) > limit else [text]:
        if len(sentence) > limit:
            continue
        if taken and len(taken) + 1 + len(sentence) > limit:
            yield taken
            taken = ""
        taken = f"{taken} {sentence}".strip()
    if taken:
        yield taken
