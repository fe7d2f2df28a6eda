"""What is run: sequences of given lengths, as token ids and as the texts that tokenise to exactly those ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from onepass.model.spec import Disentangled, EncoderSpec, LayerSpec

SIGMA = 0.7
SHORTEST, LONGEST = 4, 512
SPECIAL = 2  # [CLS] and [SEP]


@dataclass(frozen=True, slots=True)
class Workload:
    """ids: of each sequence, special tokens included.  texts: the same sequences as text."""

    name: str
    texts: list[str]
    ids: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))

    def first(self, sequences: int | None) -> Workload:
        """The first so many of them; None: all."""
        return Workload(self.name, self.texts[:sequences], self.ids[:sequences])

    def operations(self, spec: EncoderSpec) -> float:
        """Floating-point operations of linear layers and attention, 2 per multiply-add, on real tokens only."""
        return sum(2 * multiply_adds(layer, spec, len(row)) for layer in spec.layers for row in self.ids)


def multiply_adds(layer: LayerSpec, spec: EncoderSpec, tokens: int) -> float:
    """Of one layer for a row of `tokens` tokens. DeBERTa's scores count as the two or three products that they are."""
    attention, feed_forward = layer.attention, layer.feed_forward
    queries, keys = (heads * attention.head_size for heads in (attention.heads, attention.kv_heads))
    linear = spec.width * (2 * queries + 2 * keys)
    linear += spec.width * feed_forward.width * (3 if feed_forward.kind == "gated" else 2)
    radius = tokens if attention.radius is None else attention.radius
    ahead = 0 if attention.causal else radius
    pairs = sum(min(token, radius) + 1 + min(tokens - 1 - token, ahead) for token in range(tokens))
    scores = 1
    if isinstance(spec.relative, Disentangled):
        scores += spec.relative.content_to_position + spec.relative.position_to_content
    return tokens * linear + (scores + 1) * pairs * queries


def workloads(folder: Path) -> dict[str, Workload]:
    """single: one sequence of 12 tokens.  rerank200: 200, median 90 tokens.  stream512: 512, median 60.

    Lengths of these are log-normal, clipped to 4..512 tokens. tokens512 and tokens4096: one sequence of so many tokens.
    folder: of a checkpoint with a WordPiece tokenizer.json.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    words = vocabulary_words(folder)
    lengths = {
        "single": [12],
        "rerank200": drawn(200, median=90),
        "stream512": drawn(512, median=60),
        "tokens512": [512],
        "tokens4096": [4096],
    }
    return {name: workload(name, sizes, words, tokenizer) for name, sizes in lengths.items()}


def vocabulary_words(folder: Path) -> list[str]:
    """Lower-case words that are one token each, of a checkpoint with a WordPiece tokenizer.json."""
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and word.islower())


def drawn(count: int, *, median: int) -> list[int]:
    lengths = np.random.default_rng(0).lognormal(np.log(median), SIGMA, count)
    return [int(length) for length in np.clip(lengths.round(), SHORTEST, LONGEST)]


def workload(name: str, sizes: list[int], words: list[str], tokenizer: Tokenizer) -> Workload:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words, size - SPECIAL)) for size in sizes]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert [len(row) for row in ids] == sizes, "a word of the vocabulary is one token"
    return Workload(name, texts, ids)
