"""The tokenizer of a checkpoint: one complete tokenizer.json out of the several files that describe it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from onepass.errors import BadCheckpoint
from onepass.model.config import Config

# transformers builds these normalisers from tokenizer_config.json and ignores what tokenizer.json says.
REBUILT = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer"}
# These give no token type ids. (PreTrainedTokenizerFast stopped to in transformers 5; checkpoints are older than that.)
WITHOUT_TYPES = {"RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "DistilBertTokenizer"}
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What is needed to encode text as the model was trained.

    json: the contents of a tokenizer.json, its own padding and truncation removed, special and added tokens complete.
    types: whether the trunk is given token type ids.  pad_id: of the pad token.
    """

    json: str
    types: bool
    pad_id: int


def read_tokenizer(folder: Path, *, types: bool, pad_id: int, lower: bool, notes: list[str]) -> TokenizerFiles:
    """types: whether the trunk has a table for them and the family's tokenizer gives them.  lower: lowercase first.

    Appends to `notes` what the files disagree on. Raises BadCheckpoint.
    """
    settings = Config.read_if_there(folder / "tokenizer_config.json", "tokenizer_config.json")
    kind = settings.text("tokenizer_class", "").removesuffix("Fast")
    description = _description(folder, settings)
    # all-MiniLM-L6-v2 carries 128 and 128, which would cut and pad every text unasked
    description["truncation"] = description["padding"] = None
    if not kind or kind in REBUILT:
        _follow_settings(description, settings, notes)
    if lower:
        _lowercase(description)
    added = _add_tokens(description, folder, settings)
    text = json.dumps(description, ensure_ascii=False)
    _check(text, added)
    inputs = settings.get("model_input_names")
    given = "token_type_ids" in inputs if isinstance(inputs, list) else types and kind not in WITHOUT_TYPES
    return TokenizerFiles(text, types and given, pad_id)


def _description(folder: Path, settings: Config) -> dict[str, Any]:
    if (folder / "tokenizer.json").is_file():
        description = dict(Config.read(folder / "tokenizer.json", "tokenizer.json").values)
        if not isinstance(description.get("model"), dict):
            raise BadCheckpoint("tokenizer.json describes no model; save the tokenizer again")
        return description
    if (folder / "vocab.txt").is_file():
        return _wordpiece(folder / "vocab.txt", settings)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_pairs(folder, settings)
    raise BadCheckpoint(
        f"{folder} holds no tokenizer.json, vocab.txt or vocab.json with merges.txt; save a fast tokenizer there"
    )


def _wordpiece(path: Path, settings: Config) -> dict[str, Any]:
    tokens = _lines(path)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    special = _special(settings, cls="[CLS]", sep="[SEP]", unk="[UNK]", pad="[PAD]", mask="[MASK]")
    cls, sep = special["cls"], special["sep"]
    first = {"SpecialToken": {"id": cls, "type_id": 0}}
    single = [first, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": sep, "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": sep, "type_id": 1}}]
    return {
        "version": "1.0",
        "added_tokens": [
            _added(vocabulary[token], token, special=True) for token in {*special.values()} & {*vocabulary}
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + second,
            "special_tokens": {
                token: {"id": token, "ids": [_id(vocabulary, token, path.name)], "tokens": [token]}
                for token in (cls, sep)
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": special["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _byte_pairs(folder: Path, settings: Config) -> dict[str, Any]:
    vocabulary = Config.read(folder / "vocab.json", "vocab.json").values
    merges = [line for line in _lines(folder / "merges.txt") if line and not line.startswith("#version")]
    special = _special(settings, cls="<s>", sep="</s>", unk="<unk>", pad="<pad>", mask="<mask>")
    cls, sep = special["cls"], special["sep"]
    space = settings.flag("add_prefix_space", False)
    spaces = {"add_prefix_space": space, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": [
            _added(vocabulary[token], token, special=True) for token in {*special.values()} & {*vocabulary}
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "use_regex": True, **spaces},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [sep, _id(vocabulary, sep, "vocab.json")],
            "cls": [cls, _id(vocabulary, cls, "vocab.json")],
            **spaces,
        },
        "decoder": {"type": "ByteLevel", "use_regex": True, "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocabulary),
            "merges": merges,
        },
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCheckpoint(f"{path.name} cannot be read as lines of UTF-8 ({error})") from error


def _special(settings: Config, **defaults: str) -> dict[str, str]:
    """The special tokens by role, as tokenizer_config.json names them or else by default."""
    named = {}
    for role, default in defaults.items():
        value = settings.get(f"{role}_token")
        content = value.get("content") if isinstance(value, dict) else value
        named[role] = content if isinstance(content, str) else default
    return named


def _id(vocabulary: Mapping[str, Any], token: str, file: str) -> int:
    index = vocabulary.get(token)
    if not isinstance(index, int):
        raise BadCheckpoint(f"{file} has no token {token!r}, which the tokenizer puts around every text")
    return index


def _follow_settings(description: dict[str, Any], settings: Config, notes: list[str]) -> None:
    """Case and accents as tokenizer_config.json has them, whose missing keys mean the class's defaults."""
    normalizer = description.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return
    accents = settings.get("strip_accents")
    wanted = {
        "lowercase": settings.flag("do_lower_case", True),
        "handle_chinese_chars": settings.flag("tokenize_chinese_chars", True),
        "strip_accents": None if accents is None else settings.flag("strip_accents", False),
    }
    changed = [f"{key}={value}" for key, value in wanted.items() if normalizer.get(key) != value]
    if changed:
        notes.append(f"tokenizer_config.json (or its defaults) overrides tokenizer.json: {', '.join(changed)}.")
    description["normalizer"] = normalizer | wanted


def _lowercase(description: dict[str, Any]) -> None:
    """sentence-transformers' do_lower_case: lowercase before everything else, unless that happens anyway."""
    normalizer = description.get("normalizer")
    if '"Lowercase"' in json.dumps(normalizer) or (isinstance(normalizer, dict) and normalizer.get("lowercase")):
        return
    parts = [{"type": "Lowercase"}]
    if isinstance(normalizer, dict):
        parts += normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    description["normalizer"] = {"type": "Sequence", "normalizers": parts}


def _add_tokens(description: dict[str, Any], folder: Path, settings: Config) -> dict[str, int]:
    """Complete the added tokens from the other files; returns those that came from there, with their ids."""
    known = {token["content"] for token in description.get("added_tokens") or [] if isinstance(token, dict)}
    found: dict[str, dict[str, Any]] = {}
    for index, token in (settings.get("added_tokens_decoder") or {}).items():
        found[token["content"]] = _added(int(index), **token)
    if (folder / "added_tokens.json").is_file():
        for content, index in Config.read(folder / "added_tokens.json", "added_tokens.json").values.items():
            found.setdefault(content, _added(int(index), content))
    vocabulary = _vocabulary(description)
    special_map = Config.read_if_there(folder / "special_tokens_map.json", "special_tokens_map.json")
    for content, options in _special_tokens(settings, special_map).items():
        if content in found:
            found[content]["special"] = True
        elif content in vocabulary:
            found[content] = _added(vocabulary[content], content, special=True, **options)
    new = [token for content, token in found.items() if content not in known]
    tokens = [*(description.get("added_tokens") or []), *new]
    description["added_tokens"] = sorted(tokens, key=lambda token: int(token["id"]))
    return {token["content"]: token["id"] for token in new}


def _special_tokens(*files: Config) -> dict[str, dict[str, Any]]:
    """Content -> lstrip and the like, of the tokens that the files name as special."""
    named: list[Any] = [file.get(key) for file in files for key in SPECIAL]
    for file in files:
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = file.get(key)
            named += more.values() if isinstance(more, dict) else more if isinstance(more, list) else []
    tokens: dict[str, dict[str, Any]] = {}
    for token in named:
        if isinstance(token, str):
            tokens.setdefault(token, {})
        elif isinstance(token, dict) and isinstance(token.get("content"), str):
            tokens.setdefault(token["content"], {key: token.get(key, False) for key in FLAGS})
    return tokens


FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def _added(index: int, content: str, special: bool = False, **options: Any) -> dict[str, Any]:
    flags = {key: bool(options.get(key, False)) for key in FLAGS}
    return {"id": index, "content": content, **flags, "special": special}


def _vocabulary(description: Mapping[str, Any]) -> Mapping[str, int]:
    vocabulary = description["model"].get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: pairs of piece and score
        return {pair[0]: index for index, pair in enumerate(vocabulary)}
    return dict(vocabulary)


def _check(text: str, added: Mapping[str, int]) -> None:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise BadCheckpoint(f"tokenizer.json cannot be used ({error}); save the tokenizer again") from error
    for token, index in added.items():
        if tokenizer.token_to_id(token) != index:
            raise BadCheckpoint(
                f"the tokenizer's files give token {token!r} the ids {index} and {tokenizer.token_to_id(token)}"
            )
