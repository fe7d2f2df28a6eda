"""Texts as a caller gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onepass.errors import EmptyInput, InvalidInput
from onepass.schedule.tokenizer import Input, Text


def strings(texts: Iterable[str], name: str = "input") -> Iterable[str]:
    """The texts as they come, a list as a list. Raises InvalidInput and EmptyInput at the first that is none."""
    every = (_string(text, f"{name} {index}") for index, text in enumerate(texts))
    return list(every) if isinstance(texts, list) else every


def _string(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"{name} is a {type(text).__name__}; send a string")
    if not text:
        raise EmptyInput(f"{name} is empty; send some text")
    return text


def texts_or_ids(texts: Iterable[Text]) -> Iterable[Input]:
    """The same of texts and lists of token ids."""
    every = (_text_or_ids(text, index) for index, text in enumerate(texts))
    return list(every) if isinstance(texts, list) else every


def _text_or_ids(text: Text, index: int) -> Input:
    if not isinstance(text, str | Sequence):
        raise InvalidInput(f"input {index} is a {type(text).__name__}; send a string or a list of token ids")
    if not len(text):
        raise EmptyInput(f"input {index} is empty; send some text")
    return text if isinstance(text, str) else list(text)
