"""Most tokens that inputs can become, from their sizes: what is reserved in the queue before they are tokenised.

One a byte, and one for a space put before a text. Normalisation may spell out a rare character (U+FDFA) into more than
its bytes; the exact count settles that.
"""

from __future__ import annotations

from onepass.schedule.chunks import characters
from onepass.schedule.fit import EncodeOptions
from onepass.schedule.pieces import Pieces
from onepass.schedule.tokenizer import CHARACTERS_PER_TOKEN, Input, Tokenizer, texts_of


def most_tokens(tokenizer: Tokenizer, item: Input) -> int:
    """Of an input that becomes one row."""
    most = tokenizer.max_length
    if characters(item) >= most:  # no need to look at them
        return most
    if isinstance(item, tuple):
        return min(sum(map(_bytes, item)) + _around_pair(tokenizer), most)
    return min((_bytes(item) if isinstance(item, str) else len(item)) + tokenizer.special_tokens(), most)


def most_in_windows(tokenizer: Tokenizer, item: Input, options: EncodeOptions, known: dict[str, Pieces]) -> int:
    """Of all the windows of an input, its prompt included.

    A token for each byte of what stands beside a text in all of its windows would leave little of them for the text
    itself, and make many windows. So what may take more than half of the room is tokenised, into `known`
    (`Tokenizer.encode`), unless it is longer than any text that is tokenised whole.
    """
    first, *rest = texts_of(item) or ("",)
    texts = [options.prompt + first, *rest]
    beside = texts.pop(-1 if options.second_whole else 0) if rest else ""
    long = _bytes(texts[0]) if isinstance(item, str | tuple) else len(item)
    around = _around_pair(tokenizer) if rest else tokenizer.special_tokens()
    around += len(options.before) + len(options.after)
    limit = min(options.window or tokenizer.max_length, tokenizer.max_length)
    room = limit - around - (options.overlap or 0)
    size = _bytes(beside) if rest else 0
    if 2 * size > room and tokenizer.pairs is None and len(beside) <= CHARACTERS_PER_TOKEN * limit:
        size = _counted(tokenizer, beside, options, known)
        if size >= room:
            return limit  # one row at most: what leaves no room for windows is refused when it is encoded
    step = max(room - size, 1)
    return min(long + size + around, limit) + max(-(-(long + size + around - limit) // step), 0) * limit


def _counted(tokenizer: Tokenizer, text: str, options: EncodeOptions, known: dict[str, Pieces]) -> int:
    """Tokens of a text; none of one that is not Unicode, which is refused when it is encoded."""
    if text not in known:
        try:
            text.encode()
        except UnicodeEncodeError:
            return 0
        [known[text]] = tokenizer.pieces([text], aligned=options.aligned)
    return len(known[text])


def _around_pair(tokenizer: Tokenizer) -> int:
    return tokenizer.special_tokens(pair=True) if tokenizer.pairs is None else tokenizer.pairs.size


def _bytes(text: str) -> int:
    """One more than its bytes in UTF-8; half of a surrogate pair, which is refused later, counts as three."""
    return 1 + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))
