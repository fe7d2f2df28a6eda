"""What depends on the tokenizer's class: vocabularies without tokenizer.json, languages, end tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from test_sentencepiece import SAMPLES, read, same_ids
from tiny import change_json, tiny_tokenizer, write_json
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from onepass.errors import BadCheckpoint

auto: Any = transformers.AutoTokenizer
RENAMED = {"<s>": "[CLS]", "</s>": "[SEP]", "<unk>": "[UNK]", "<pad>": "[PAD]", "<mask>": "[MASK]"}


def from_bytes(folder: Path, model_type: str, names: dict[str, str]) -> Path:
    """vocab.json and merges.txt, some tokens renamed."""
    model = json.loads(tiny_tokenizer("roberta").to_str())["model"]
    vocabulary = {names.get(token, token): index for token, index in {**model["vocab"], "<mask>": 500}.items()}
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]))
    write_json(folder / "config.json", {"model_type": model_type})
    write_json(folder / "tokenizer_config.json", {})
    return folder


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("roberta", {}),
        ("bart", {}),
        ("gpt2", {"</s>": "<|endoftext|>"}),
        ("qwen3", {"</s>": "<|endoftext|>"}),
    ],
)
def test_bytes(tmp_path: Path, model_type: str, names: dict[str, str]) -> None:
    same_ids(from_bytes(tmp_path, model_type, names))


def test_deberta_v1_has_one_separator_between_texts(tmp_path: Path) -> None:
    """As in training and in transformers 4; version 5.23 puts two."""
    folder = from_bytes(tmp_path, "deberta", RENAMED)
    theirs, ours = auto.from_pretrained(folder), read(folder)
    for text in SAMPLES:
        assert ours.library.encode(text).ids == theirs(text).input_ids, text
    pair = ours.library.encode("a", "b")
    assert pair.tokens == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 1, 1]
    assert ours.types


def test_mpnet_s_vocabulary(tmp_path: Path) -> None:
    """BERT's word pieces between RoBERTa's special tokens."""
    names = {token: name for name, token in RENAMED.items() if name != "<unk>"}
    vocabulary = tiny_tokenizer("bert").get_vocab()
    lines = [names.get(token, token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    write_json(tmp_path / "config.json", {"model_type": "mpnet"})
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "MPNetTokenizer"})
    same_ids(tmp_path)
    assert not read(tmp_path).types


def test_a_class_that_says_nothing_means_the_family_s(tmp_path: Path) -> None:
    folder = from_bytes(tmp_path, "roberta", {})
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert read(folder).library.encode("a").tokens == ["<s>", "a", "</s>"]


def words(folder: Path, post_processor: Any, **settings: Any) -> Path:
    """A tokenizer.json of a few words, and a tokenizer_config.json with an end token."""
    names = ["<s>", "</s>", "<unk>", "a", "b", "de_DE", "en_XX", "deu_Latn", "eng_Latn", "x:y"]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", {"model_type": "llama"})
    write_json(folder / "tokenizer_config.json", {"eos_token": "</s>"} | settings)
    return folder


def template(single: str, pair: str) -> Any:
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 1)])


BEGIN = template("<s> $A", "<s> $A <s>:1 $B:1")


@pytest.mark.parametrize(
    ("post_processor", "single", "pair"),
    [
        (None, "a </s>", "a </s> b </s>"),
        (BEGIN, "<s> a </s>", "<s> a </s> <s> b </s>"),
        (processors.Sequence([processors.ByteLevel(), BEGIN]), "<s> a </s>", "<s> a </s> <s> b </s>"),
    ],
)
def test_an_end_token_that_is_asked_for_is_put(tmp_path: Path, post_processor: Any, single: str, pair: str) -> None:
    """e5-mistral and its kin were trained with it; transformers 5 lets tokenizer.json decide."""
    notes: list[str] = []
    folder = words(tmp_path, post_processor, add_eos_token=True)
    ours = read(folder, notes).library
    assert ours.encode("a").tokens == single.split()
    assert ours.encode("a", "b").tokens == pair.split()
    assert notes == ["</s> is put behind every text: tokenizer_config.json sets add_eos_token."]


@pytest.mark.parametrize("changes", [{}, {"add_eos_token": False}])
def test_an_end_token_that_is_not_asked_for_is_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    notes: list[str] = []
    assert read(words(tmp_path, BEGIN, **changes), notes).library.encode("a").tokens == ["<s>", "a"]
    assert notes == []


def test_an_end_token_that_is_there_is_not_put_twice(tmp_path: Path) -> None:
    notes: list[str] = []
    folder = words(tmp_path, template("<s> $A </s>", "<s> $A </s> $B </s>"), add_eos_token=True)
    assert read(folder, notes).library.encode("a", "b").tokens == ["<s>", "a", "</s>", "b", "</s>"]
    assert notes == []


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"tokenizer_class": "NllbTokenizer"}, "eng_Latn a </s>"),
        ({"tokenizer_class": "NllbTokenizer", "src_lang": "deu_Latn"}, "deu_Latn a </s>"),
        ({"tokenizer_class": "NllbTokenizerFast", "legacy_behaviour": True}, "a </s> eng_Latn"),
        ({"tokenizer_class": "MBartTokenizer"}, "a </s> en_XX"),
        ({"tokenizer_class": "MBart50Tokenizer", "src_lang": "de_DE"}, "de_DE a </s>"),
    ],
)
def test_the_language_comes_from_tokenizer_config(tmp_path: Path, changes: dict[str, Any], tokens: str) -> None:
    """tokenizer.json has the template of the language that its tokenizer was last used with."""
    assert read(words(tmp_path, BEGIN, **changes)).library.encode("a").tokens == tokens.split()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eos_token": "<end>"}, "the vocabulary has no token '<end>', which the tokenizer puts around every text"),
        ({"eos_token": "x:y"}, "the special tokens x:y cannot be put around texts ("),
    ],
)
def test_an_end_token_that_cannot_be_put(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    folder = words(tmp_path, None, add_eos_token=True, **changes)
    with pytest.raises(BadCheckpoint) as caught:
        read(folder)
    assert str(caught.value).startswith(sentence)
