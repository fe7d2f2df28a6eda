"""The vocabulary: cased WordPiece, trained on counts in which each source has its share.

Documentation of C++ would else make up half of it. The rank of a word in a vocabulary of BERT stands for its frequency
in general English, which the folder's texts, old books and manuals mostly, do not have.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
COUNTED = 4_000_000  # words that the trainer sees
CHARACTERS = 400
LOWERED = 0.25  # share of words that are counted in lower case, too: people type queries so


def untrained() -> Tokenizer:
    """Case is kept, since names are found by it; accents are not, since most words with them would be in pieces."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=False, strip_accents=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def by_rank(vocabulary: Iterable[str]) -> Counter[str]:
    """Zipf's law over a vocabulary in order of frequency; single letters and pieces of words are left out."""
    words = [word for word in vocabulary if len(word) > 1 and word.isalpha()]
    return Counter({word: round(1e8 / (rank + 50)) for rank, word in enumerate(words)})


def trained(sources: Mapping[str, tuple[float, Counter[str]]], size: int) -> Tokenizer:
    """A tokenizer of `size` words from (share, counts of words) by source.

    The library's trainer breaks ties as its hash tables lie: two runs differ in a word or two, and in the order of ids.
    """
    shares: defaultdict[str, float] = defaultdict(float)
    for share, counts in sources.values():
        total = sum(counts.values())
        for word, count in counts.items():
            shares[word] += share * count / total
            shares[word.lower()] += LOWERED * share * count / total
    scale = COUNTED / sum(shares.values())

    def repeated() -> Iterator[str]:
        for word, share in shares.items():
            if count := round(share * scale):
                yield from [" ".join([word] * min(count, 1000))] * -(-count // 1000)

    tokenizer = untrained()
    tokenizer.train_from_iterator(
        repeated(),
        WordPieceTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL),
            limit_alphabet=CHARACTERS,
            show_progress=False,
            min_frequency=2,
        ),
    )
    first, last = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", first), ("[SEP]", last)],
    )
    from tokenizers.decoders import WordPiece as Pieces

    tokenizer.decoder = Pieces()
    return tokenizer
