"""Real English prose that every Python carries: the language reference behind `help()`."""

from __future__ import annotations

import re
from pydoc_data.topics import topics
from random import Random

PROSE = " ".join(" ".join(re.sub(r"[^\w\s.,;:()'\"-]", " ", text) for text in topics.values()).split())
WORDS = PROSE.split(" ")


def passages(count: int, *, most_words: int, seed: int = 0) -> list[str]:
    """Passages of 1 to most_words words, all lengths equally likely, from all over the text."""
    random = Random(seed)
    starts = [random.randrange(len(WORDS) - most_words) for _ in range(count)]
    return [" ".join(WORDS[start : start + random.randint(1, most_words)]) for start in starts]
