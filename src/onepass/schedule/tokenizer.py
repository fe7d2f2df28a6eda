"""Text to token ids, exactly as the checkpoint's tokenizer gives them; `fit.py` cuts them to length.

Nothing is ever changed on the shared tokenizer at run time, and the special tokens around a text or a pair are read off
its own post-processor once. So a rerank query is encoded once and put beside each document, with the ids that pair
encoding would give.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from onepass.errors import BadCheckpoint, EmptyInput, InputTooLong, InvalidInput, TokenOutOfRange
from onepass.model.checkpoint import TokenizerFiles
from onepass.schedule.asked import asked
from onepass.schedule.fit import EncodeOptions, Fitter
from onepass.schedule.pieces import (
    BARE,
    IDS,
    Arranged,
    Encoded,
    Pieces,
    byte_offsets,
    check_unicode,
    framed,
    read_template,
)

Text = str | Sequence[int]
Input = Text | tuple[str, str]

CHARACTERS_PER_TOKEN = 250  # no text of more characters than this per allowed token is tokenised whole


@dataclass(frozen=True, slots=True)
class Token:
    """start, stop: byte offsets into the UTF-8 text, None for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Tokenizer:
    """Stateless after construction, so any number of threads may encode at once.

    marks_subwords: whether tokens inside a word are spelled so ("##ing").  unknown: id of the unknown token, if any.
    pairs: the text that pairs are put into, of a model that is asked about them in words.
    """

    def __init__(self, files: TokenizerFiles, *, vocabulary: int, max_length: int) -> None:
        """vocabulary: rows of the model's word table; max_length: tokens of one row, special tokens included."""
        self._library = files.library
        self._types = files.types
        self._text_only = files.text_only
        self.pairs = files.pairs
        self._vocabulary = vocabulary
        self._oversized = self._library.get_vocab_size(with_added_tokens=True) > vocabulary
        self._templates = (read_template(self._library, pair=False), read_template(self._library, pair=True))
        self._around = [sum(part.slot < 0 for part in template) for template in self._templates]
        self.mask_id = files.mask_id
        self.marks_subwords = bool(getattr(self._library.model, "continuing_subword_prefix", None))
        self.unknown = self._unknown()
        self.max_length = max_length
        if max_length <= max(map(self.special_tokens, (False, True))):
            raise BadCheckpoint(f"a maximum length of {max_length} tokens leaves no room beside the special tokens")

    def special_tokens(self, pair: bool = False) -> int:
        """How many special tokens surround a text, or a pair."""
        return self._around[pair]

    def encode(
        self,
        items: Sequence[Input],
        options: EncodeOptions,
        *,
        first: int = 0,
        known: dict[str, Pieces] | None = None,
    ) -> list[Encoded]:
        """One row per item; with `options.overlap` one or more, in order. `first` is the number of items[0].

        `known` remembers tokens of texts between calls, those of a pair's first one: a rerank query is encoded once.
        Raises EmptyInput, InputTooLong (truncate None), TokenOutOfRange, InvalidInput for text that is not Unicode.
        """
        known = {} if known is None else known
        numbers = [number // options.together for number in range(first, first + len(items))]
        clipped = [self._clipped(item, number, options) for item, number in zip(items, numbers, strict=True)]
        texts = filter(None, clipped)
        if self.pairs is None:
            arranged = self._between(texts, options, known)
        else:
            arranged = asked(self._library, self.pairs, texts, options.prompt)
        fitter = Fitter(options, self.max_length, self._types, self._check_range if self._oversized else None)
        rows: list[Encoded] = []
        for index, (item, number, own) in enumerate(zip(items, numbers, clipped, strict=True)):
            if own:
                parts, template, skip = next(arranged)
            else:
                parts, template, skip = [self._given(item, number)], self._templates[0] if options.special else BARE, 0
            if options.before or options.after:
                template = framed(template, options.before, options.after)
                skip = (skip or self.around()[0]) + len(options.before)
            new = fitter.rows(parts, template, number, cut=own != texts_of(item), skip=skip)
            rows += new if options.together == 1 else (replace(row, input=first + index) for row in new)
        return rows

    def tokens(self, text: str, *, special: bool = True) -> list[Token]:
        """The tokens of a text, uncut, with byte offsets."""
        check_unicode(text, "input 0")
        encoding = self._library.encode(text, add_special_tokens=special)
        starts = byte_offsets(text)
        return [
            Token(id, piece, bool(mask), None if mask else starts[begin], None if mask else starts[end])
            for id, piece, mask, (begin, end) in zip(
                encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
            )
        ]

    def spelling(self, id: int) -> str:
        """A token as the vocabulary writes it: "##ing", "\u0120the"."""
        token: str | None = self._library.id_to_token(id)
        assert token is not None, f"token id {id} was not made by this tokenizer"
        return token

    def spellings(self, ids: Sequence[int]) -> list[str | None]:
        """None for an id that no token has: some vocabulary matrices have more rows than there are tokens."""
        return [self._library.id_to_token(id) for id in ids]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Raises TokenOutOfRange."""
        self._check_range(ids, 0)
        return self._library.decode(list(ids), skip_special_tokens=skip_special)

    def around(self, *, pair: bool = False) -> tuple[int, int]:
        """How many special tokens stand before a text, or a pair, and behind it."""
        slots = [place for place, part in enumerate(self._templates[pair]) if part.slot >= 0]
        return slots[0], len(self._templates[pair]) - 1 - slots[-1]

    def first_token(self, word: str) -> int | None:
        """The id of the token that is spelt `word`, or of the first into which it falls; None for no token at all.

        Raises TokenOutOfRange for one that the model has no row for, InvalidInput for text that is not Unicode.
        """
        check_unicode(word, "a candidate")
        id: int | None = self._library.token_to_id(word)
        if id is None:
            id = next(iter(self.pieces([word], aligned=False)[0].ids), None)
        if id is not None:
            self._check_range([id], 0)
        return id

    def _between(
        self, items: Iterable[Sequence[str]], options: EncodeOptions, known: dict[str, Pieces]
    ) -> Iterator[Arranged]:
        """Texts and pairs between special tokens."""
        prompted = [(options.prompt + first, *rest) for first, *rest in items] if options.prompt else list(items)
        fresh = list(dict.fromkeys(text for texts in prompted for text in texts if text not in known))
        found = dict(zip(fresh, self.pieces(fresh, aligned=options.aligned), strict=True))
        known.update({texts[0]: found[texts[0]] for texts in prompted if len(texts) == 2 and texts[0] in found})
        skips = self._skips(options.prompt, found)
        for texts in prompted:
            parts = [known[text] if text in known else found[text] for text in texts]
            yield parts, self._templates[len(parts) == 2], skips.get(texts[0], 0)

    def pieces(self, texts: list[str], *, aligned: bool) -> list[Pieces]:
        """The tokens of each text, uncut, without special ones. aligned: with their characters and words."""
        if not aligned and len(texts) == 1:  # a batch of one would wake the library's threads
            return [Pieces(self._library.encode(texts[0], add_special_tokens=False).ids)]
        if not aligned:
            found = self._library.encode_batch_fast(texts, add_special_tokens=False)
            return [Pieces(array(IDS, one.ids)) for one in found]
        encodings = self._library.encode_batch(texts, add_special_tokens=False)
        return [Pieces(one.ids, one.offsets, one.word_ids) for one in encodings]

    def _given(self, ids: object, number: int) -> Pieces:
        assert isinstance(ids, Sequence)
        if not ids:
            raise EmptyInput(f"input {number} is an empty list of token ids; send at least one")
        return Pieces(self._check_range(ids, number))

    def _check_range(self, ids: Sequence[int], number: int) -> array[int]:
        """The ids as an array. Raises InvalidInput, TokenOutOfRange."""
        found = array(IDS)
        with suppress(TypeError, OverflowError):
            found = array(IDS, list(ids))
        if len(found) < len(ids) or (found and np.frombuffer(found, np.uint32).max() >= self._vocabulary):
            raise self._refused(ids, number)
        return found

    def _refused(self, ids: Sequence[int], number: int) -> InvalidInput:
        """What is wrong with the first that is."""
        (id, *_) = (id for id in ids if not hasattr(id, "__index__") or not 0 <= id < self._vocabulary)
        if not hasattr(id, "__index__"):
            return InvalidInput(
                f"input {number} is a list that holds a {type(id).__name__}; send a string, or a list of token ids"
            )
        return TokenOutOfRange(
            f"token id {id} of input {number} is outside this model's vocabulary of {self._vocabulary} ids; "
            "send text, or ids from this model's own tokenizer"
        )

    def _clipped(self, item: Input, number: int, options: EncodeOptions) -> tuple[str, ...]:
        """The texts of an item, cut to the character bound where not read in windows; none of token ids.

        Raises InvalidInput, InputTooLong.
        """
        texts = texts_of(item)
        bound = CHARACTERS_PER_TOKEN * self.max_length
        for text in texts:
            if not text.isascii():
                check_unicode(text, f"input {number}")
            if len(text) > bound and options.overlap is None and options.truncate is None:
                raise InputTooLong(
                    f"input {number} has {len(text)} characters, the limit is {bound} ({CHARACTERS_PER_TOKEN} for each "
                    f"of the model's {self.max_length} tokens); shorten it or turn truncation on",
                    len(text),
                    bound,
                    "characters",
                )
        if options.overlap is not None or max(map(len, texts), default=0) <= bound:
            return texts
        kept = slice(-bound, None) if options.truncate == "left" else slice(bound)
        return tuple(text[kept] for text in texts)

    def _skips(self, prompt: str, found: Mapping[str, Pieces]) -> dict[str, int]:
        """By text, the leading tokens of its row that are prompt, special tokens before it included.

        As sentence-transformers counts, those of the prompt alone; LLM2Vec counts what the text alone does not have.
        """
        if not prompt and not self._text_only:
            return {}
        leading, _ = self.around()
        if self._text_only:
            alone = self.pieces([text.removeprefix(prompt) for text in found], aligned=False)
            return {text: leading + len(found[text]) - len(own) for text, own in zip(found, alone, strict=True)}
        return dict.fromkeys(found, leading + len(self.pieces([prompt], aligned=False)[0]))

    def _unknown(self) -> int | None:
        """Id of the token that stands for what the vocabulary lacks. A unigram model does not tell its name."""
        names = (getattr(self._library.model, "unk_token", None), "<unk>", "[UNK]")
        ids = (self._library.token_to_id(name) for name in names if name is not None)
        return next((id for id in ids if id is not None), None)


def texts_of(item: Input) -> tuple[str, ...]:
    """The strings of an item; none for token ids."""
    if isinstance(item, str):
        return (item,)
    return item if isinstance(item, tuple) else ()
