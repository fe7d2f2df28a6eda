"""Pairs for models that are asked about them in words: the filled template as tokens, the document's apart."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer as Library

from onepass.errors import InvalidInput
from onepass.model.pair_template import PairTemplate
from onepass.schedule.pieces import BARE, Arranged, Pieces, framed


def asked(
    library: Library, template: PairTemplate, items: Iterable[Sequence[str]], instruction: str
) -> Iterator[Arranged]:
    """The documents of pairs, each in the template with its query, with the tokens that the whole text gives.

    A token that is partly the document's counts as the document's. Raises InvalidInput for what is no pair, and for an
    instruction where the template has no place for one.
    """
    if instruction and template.instructed is None:
        raise InvalidInput("this model's template has no place for a prompt; leave the prompt out")
    texts, spans = [], []
    for item in items:
        if len(item) != 2:
            raise InvalidInput("this model is asked about pairs of texts; send a query with each document")
        query, document = item
        before, after = template.around(query, instruction)
        inside = template.put(document)
        texts.append(before + inside + after)
        spans.append((len(before), len(before) + len(inside)))
    for found, span in zip(library.encode_batch(texts, add_special_tokens=False), spans, strict=True):
        first, end = _tokens(found.offsets, *span)
        ids: Sequence[int] = found.ids
        yield [Pieces(ids[first:end])], framed(BARE, ids[:first], ids[end:]), 0


def _tokens(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """First token of the characters from start to stop, and the one behind them."""
    first = bisect_right(offsets, start, key=lambda span: span[1])
    return first, bisect_left(offsets, stop, lo=first, key=lambda span: span[0])
