"""The forms in which texts and token ids arrive, sorted into one entry per row."""

from __future__ import annotations

from collections.abc import Sequence

from onepass.errors import InvalidInput, TooLarge
from onepass.schedule.tokenizer import CHARACTERS_PER_TOKEN, Text
from onepass.server.service import Call
from onepass.tasks.prompts import InputType

TextsOrIds = str | list[int | str | list[int]]


def texts_or_ids(field: str, given: TextsOrIds) -> tuple[list[Text], bool]:
    """One entry per row, and whether they came as a batch. A flat list of ids is one row, also when it is empty."""
    if isinstance(given, str):
        return [given], False
    ids = [item for item in given if isinstance(item, int)]
    if len(ids) == len(given):
        return [ids], False
    if ids:
        raise InvalidInput(f"`{field}` mixes token ids with texts; put the ids of each input into a list of their own")
    return [item for item in given if not isinstance(item, int)], True


def texts_or_pairs(field: str, given: str | list[str | list[str]]) -> tuple[list[str | tuple[str, str]], bool]:
    """One text or pair per row, and whether they came as a batch. A flat list is one text or one pair."""
    if isinstance(given, str):
        return [given], False
    texts = [item for item in given if isinstance(item, str)]
    if len(texts) == len(given):
        return [text_or_pair(field, texts)], False
    if texts:
        raise InvalidInput(f"`{field}` mixes texts with lists; put each text or pair into a list of its own")
    return [text_or_pair(field, item) for item in given if not isinstance(item, str)], True


def text_or_pair(field: str, texts: Sequence[str]) -> str | tuple[str, str]:
    if len(texts) == 1:
        return texts[0]
    if len(texts) == 2:
        return texts[0], texts[1]
    raise InvalidInput(f"`{field}` must hold one or two texts each, not {len(texts)}; send a list of lists for a batch")


def check_sizes(call: Call, field: str, texts: Sequence[Text]) -> None:
    """Raises TooLarge for a text of more characters than any of this model's rows could come from."""
    assert call.encoder is not None
    limit = CHARACTERS_PER_TOKEN * call.encoder.checkpoint.max_length
    for number, text in enumerate(texts):
        if isinstance(text, str) and len(text) > limit:
            raise TooLarge(f"`{field}` number {number} has {len(text)} characters, this route takes {limit}; split it")


def prompt_or_type(call: Call, name: str | None, input_type: InputType | None) -> tuple[str | None, InputType | None]:
    """The prompt of that name where the model has one, else the input type: `embed` takes either."""
    assert call.encoder is not None
    if name in call.encoder.checkpoint.prompts:
        return name, None
    return None, input_type


async def leading(call: Call, text: str, tokens: int) -> str:
    """The text as far as its first tokens reach; the rest is counted as cut."""
    job = call.job
    assert job is not None
    tokenizer = job.served.tokenizer
    start = text[: CHARACTERS_PER_TOKEN * tokenizer.max_length]
    found = await job.off_loop(lambda: tokenizer.tokens(start, special=False))
    if len(found) > tokens:
        start = start.encode()[: found[tokens - 1].stop].decode()
    job.usage.truncated += len(start) < len(text)
    return start
