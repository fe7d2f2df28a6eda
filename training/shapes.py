"""How words are written: what a tokenizer in lower case does not see, and names are known by."""

from __future__ import annotations

KINDS = ("other", "digits", "lower", "Capitalised", "C", "CAPITALS", "miXed")
SHAPES = 1 + 2 * len(KINDS)
"""Of tokens: 0 for special ones, then each kind for a word's first piece and for the pieces behind it."""


def kind_of(word: str) -> int:
    """The kind of a word; without any letter it is of digits, if it has some, or other."""
    if not any(map(str.isalpha, word)):
        kind = "digits" if any(map(str.isdigit, word)) else "other"
    elif word == word.lower():
        kind = "lower"
    elif word.isupper():
        kind = "CAPITALS" if len(word) > 1 else "C"
    else:
        kind = "Capitalised" if word == word.capitalize() else "miXed"
    return KINDS.index(kind)
