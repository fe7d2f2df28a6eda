"""What transformers' tokenizer classes, by their names in tokenizer_config.json, do beyond what tokenizer.json says.

Mostly needed where there is no tokenizer.json. docs/tokenizers.md has what was compared with transformers 5.23, and
where that differs from what the models were trained with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, processors

from onepass.errors import BadCheckpoint
from onepass.model import vocabularies
from onepass.model.config import Config
from onepass.model.vocabularies import Roles

Reader = Callable[[Path, Roles, Config], Tokenizer]

SENTENCEPIECE = ("spm.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """read: the tokenizer out of a file of the class, with the special tokens and tokenizer_config.json.

    names: of that file; the first one there is read.  special: the special tokens where no file names them.
    around: what goes around a text, and around two; `{role}` is a special token, `:1` the token type.
    types: whether it gives token types.  lstrip: whether the mask token takes the space before it.
    rebuilt: tokenizer_config.json says its case and accents, tokenizer.json does not.
    """

    read: Reader
    names: tuple[str, ...]
    special: Roles
    around: tuple[str, str]
    types: bool = False
    lstrip: bool = False
    rebuilt: bool = False

    @property
    def files(self) -> str:
        return " or ".join(self.names)

    def file(self, folder: Path) -> Path | None:
        return next((path for name in self.names if (path := folder / name).is_file()), None)


def frame(tokenizer: Tokenizer, kind: TokenizerClass, special: Roles, settings: Config) -> None:
    """Put the class's special tokens around texts; `{bos}` only where add_bos_token does not say otherwise.

    Raises BadCheckpoint for one that the vocabulary lacks.
    """
    around = LANGUAGE_LAST if settings.flag("legacy_behaviour", False) and kind.around is LANGUAGE else kind.around
    if not settings.flag("add_bos_token", True):
        around = (around[0].replace("{bos}", ""), around[1].replace("{bos}:1", "").replace("{bos}", ""))
    single, pair = ([part.format(**special) for part in text.split()] for text in around)
    surround(tokenizer, single, pair)


def surround(tokenizer: Tokenizer, single: list[str], pair: list[str]) -> None:
    """Set the template around a text and a pair. Raises BadCheckpoint for a token that the vocabulary lacks."""
    tokens = sorted({re.sub(r":\d+$", "", part) for part in single if not part.startswith(("$A", "$B"))})
    ids = [(token, tokenizer.token_to_id(token)) for token in tokens]
    for token, index in ids:
        if index is None:
            raise BadCheckpoint(f"the vocabulary has no token {token!r}, which the tokenizer puts around every text")
    try:
        template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    except ValueError as error:  # a colon or a $ in a token means something else to it
        raise BadCheckpoint(f"the special tokens {', '.join(tokens)} cannot be put around texts ({error})") from error
    bytewise = isinstance(tokenizer.decoder, decoders.ByteLevel)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template]) if bytewise else template


# The classes

BRACKETS = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
ANGLES = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
GOOGLE = BRACKETS | {"unk": "<unk>", "pad": "<pad>"}
T5 = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
LLAMA = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
GEMMA = {"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
ENDING = {"eos": "<|endoftext|>"}

BARE = ("$A", "$A $B")
BERT = ("{cls} $A {sep}", "{cls} $A {sep} $B:1 {sep}:1")
ROBERTA = ("{cls} $A {sep}", "{cls} $A {sep} {sep} $B {sep}")
AFTER = ("$A {eos}", "$A {eos} $B {eos}")
LANGUAGE = ("{lang} $A {sep}", "{lang} $A $B {sep}")
LANGUAGE_LAST = ("$A {sep} {lang}", "$A $B {sep} {lang}")
BEGIN = ("{bos} $A", "{bos} $A {bos}:1 $B:1")


VOCAB_TXT, VOCAB_JSON = ("vocab.txt",), ("vocab.json",)
EN_XX = ANGLES | {"lang": "en_XX"}
ENG_LATN = ANGLES | {"lang": "eng_Latn"}

BERT_CLASS = TokenizerClass(vocabularies.wordpiece, VOCAB_TXT, BRACKETS, BERT, types=True, rebuilt=True)
ROBERTA_CLASS = TokenizerClass(vocabularies.byte_pairs, VOCAB_JSON, ANGLES, ROBERTA)

CLASSES: Mapping[str, TokenizerClass] = {
    "AlbertTokenizer": TokenizerClass(vocabularies.albert, SENTENCEPIECE, GOOGLE, BERT, types=True),
    "BartTokenizer": ROBERTA_CLASS,
    "BertTokenizer": BERT_CLASS,
    "CamembertTokenizer": TokenizerClass(vocabularies.camembert, SENTENCEPIECE, ANGLES, ROBERTA),
    "ConvBertTokenizer": BERT_CLASS,
    "DebertaTokenizer": TokenizerClass(vocabularies.byte_pairs, VOCAB_JSON, BRACKETS, BERT, types=True),
    "DebertaV2Tokenizer": TokenizerClass(vocabularies.deberta_v2, SENTENCEPIECE, BRACKETS, BERT, types=True),
    "DistilBertTokenizer": replace(BERT_CLASS, types=False),
    "ElectraTokenizer": BERT_CLASS,
    "GemmaTokenizer": TokenizerClass(vocabularies.gemma, SENTENCEPIECE, GEMMA, BEGIN),
    "GPT2Tokenizer": TokenizerClass(vocabularies.byte_pairs, VOCAB_JSON, ENDING, BARE),
    "LlamaTokenizer": TokenizerClass(vocabularies.llama, SENTENCEPIECE, LLAMA, BEGIN),
    "MBart50Tokenizer": TokenizerClass(vocabularies.mbart50, SENTENCEPIECE, EN_XX, LANGUAGE, lstrip=True),
    "MBartTokenizer": TokenizerClass(vocabularies.mbart, SENTENCEPIECE, EN_XX, LANGUAGE_LAST),
    "MobileBertTokenizer": BERT_CLASS,
    "MPNetTokenizer": replace(BERT_CLASS, special=ANGLES | {"unk": "[UNK]"}, around=ROBERTA, types=False),
    "NllbTokenizer": TokenizerClass(vocabularies.nllb, SENTENCEPIECE, ENG_LATN, LANGUAGE, lstrip=True),
    "Qwen2Tokenizer": TokenizerClass(vocabularies.qwen, VOCAB_JSON, ENDING, BARE),
    "RemBertTokenizer": TokenizerClass(vocabularies.rembert, SENTENCEPIECE, GOOGLE, BERT, types=True),
    "RobertaTokenizer": ROBERTA_CLASS,
    "T5Tokenizer": TokenizerClass(vocabularies.t5, SENTENCEPIECE, T5, AFTER),
    "XLMRobertaTokenizer": TokenizerClass(vocabularies.xlm_roberta, SENTENCEPIECE, ANGLES, ROBERTA),
}

DEFAULTS: Mapping[str, str] = {
    "albert": "AlbertTokenizer",
    "bart": "BartTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "convbert": "ConvBertTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "ernie": "BertTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gte": "XLMRobertaTokenizer",
    "jina_embeddings_v3": "XLMRobertaTokenizer",
    "llama": "LlamaTokenizer",
    "llama_bidirec": "LlamaTokenizer",
    "mbart": "MBartTokenizer",
    "mistral": "LlamaTokenizer",
    "mobilebert": "MobileBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "mt5": "T5Tokenizer",
    "nomic_bert": "BertTokenizer",
    "phi3": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "rembert": "RemBertTokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "umt5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "xlm-roberta-xl": "XLMRobertaTokenizer",
}
"""By model_type, where no file names a class."""
