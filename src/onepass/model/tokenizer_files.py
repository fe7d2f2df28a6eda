"""The tokenizer of a checkpoint: one complete tokenizer.json out of the several files that describe it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.pair_template import PairTemplate
from onepass.model.tokenizer_classes import CLASSES, DEFAULTS, TokenizerClass, frame, surround
from onepass.model.vocabularies import Roles

GENERIC = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}
"""Names that say nothing of a vocabulary."""

DRIFTED = {"AlbertTokenizer", "DebertaV2Tokenizer", "MBartTokenizer"}
"""Without tokenizer.json, transformers 5 splits some text of these in other ways than in training."""

TYPES_DROPPED = {"AlbertTokenizer", "RemBertTokenizer"}
"""Token types of these went missing in transformers 5."""

NO_LIMIT = 10**30
"""A `model_max_length` that is none, as transformers writes it."""

SPECIAL = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
MASKS = ("[MASK]", "<mask>")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What is needed to encode text as the model was trained.

    library: without padding and truncation, special and added tokens complete; never changed from here on.
    types: whether the trunk is given token type ids.  pad_id: of the pad token.
    mask_id: of the token that stands for a hidden one, None where there is none.
    text_only: whether pooling leaves out special tokens before a text even where there is no prompt (LLM2Vec).
    pairs: the text into which pairs are put, of a model that is asked about them in words.
    """

    library: Tokenizer
    types: bool
    pad_id: int
    mask_id: int | None = None
    text_only: bool = False
    pairs: PairTemplate | None = None


def read_tokenizer(
    folder: Path, config: Config, *, types: bool, pad_id: int, lower: bool, notes: list[str]
) -> TokenizerFiles:
    """config: the model's.  types: whether the trunk has a table for them.  lower: lowercase first.

    Appends to `notes` what the files disagree on. Raises BadCheckpoint.
    """
    settings = _settings(folder)
    stored = (folder / "tokenizer.json").is_file()
    name = _class(settings, config, stored)
    kind = CLASSES.get(name)
    special = {} if kind is None else _roles(kind, settings)
    tokenizer = _from_json(folder) if stored else _from_vocabulary(folder, name, kind, special, settings)
    # all-MiniLM-L6-v2 carries 128 and 128, which would cut and pad every text unasked
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if kind is not None and kind.rebuilt:
        _follow_settings(tokenizer, settings, notes if stored else [])
    if lower:
        _lowercase(tokenizer)
    _add_tokens(tokenizer, folder, settings)
    if kind is not None and (not stored or "lang" in special):
        frame(tokenizer, kind, special, settings)
    if kind is not None and not stored:
        _add_missing(tokenizer, kind, special, settings)
    _end(tokenizer, special.get("eos"), settings, notes if stored else [])
    if name in DRIFTED and not stored:
        notes.append("There is no tokenizer.json: the ids are those of transformers 5, not always those of training.")
    inputs = settings.get("model_input_names")
    given = "token_type_ids" in inputs if isinstance(inputs, list) else kind is None or kind.types
    if types and given and name in TYPES_DROPPED:
        notes.append("The second text of a pair has token type 1, as in training; transformers 5 gives it 0.")
    return TokenizerFiles(tokenizer, types and given, pad_id, _mask_id(tokenizer, special, settings))


def _settings(folder: Path) -> Config:
    """tokenizer_config.json, and what only the older special_tokens_map.json says."""
    older, newer = (
        Config.read_if_there(folder / name, name) for name in ("special_tokens_map.json", "tokenizer_config.json")
    )
    return Config({**older.values, **newer.values}, "tokenizer_config.json")


def _class(settings: Config, config: Config, stored: bool) -> str:
    """The name of the tokenizer's class: as the files have it, or else as the model_type has."""
    named = settings.text("tokenizer_class", "") or config.text("tokenizer_class", "")
    if not named or (named in GENERIC and not stored):
        return DEFAULTS.get(config.text("model_type", ""), "")
    return named.removesuffix("Fast") if named not in GENERIC else named


def _from_json(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing narrower
        raise _unusable("tokenizer.json", error) from error


def _from_vocabulary(
    folder: Path, name: str, kind: TokenizerClass | None, special: Roles, settings: Config
) -> Tokenizer:
    if kind is None:
        raise BadCheckpoint(
            f"{folder} holds no tokenizer.json, and the vocabulary of {name or 'an unnamed class'} is not read without "
            "one; save a fast tokenizer there"
        )
    if (file := kind.file(folder)) is None:
        raise BadCheckpoint(f"{folder} holds no tokenizer.json and no {kind.files}; save a fast tokenizer there")
    try:
        return kind.read(file, special, settings)
    except BadCheckpoint:
        raise
    except Exception as error:
        raise _unusable(file.name, error) from error


def _unusable(file: str, error: Exception) -> BadCheckpoint:
    reason = " ".join(str(error).split())
    return BadCheckpoint(f"{file} cannot be used ({reason}); save the tokenizer again")


def _roles(kind: TokenizerClass, settings: Config) -> dict[str, str]:
    """The special tokens by role, as the files name them or else by default."""
    keys = {role: "src_lang" if role == "lang" else f"{role}_token" for role in kind.special}
    named = {role: _named(settings.get(key)) for role, key in keys.items()}
    return {
        role: default if (token := named[role]) is None else token.content for role, default in kind.special.items()
    }


def _follow_settings(tokenizer: Tokenizer, settings: Config, notes: list[str]) -> None:
    """Case and accents as tokenizer_config.json has them, whose missing keys mean the class's defaults.

    transformers builds these normalisers from tokenizer_config.json and ignores what tokenizer.json says.
    """
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    accents = settings.get("strip_accents")
    wanted = {
        "lowercase": settings.flag("do_lower_case", True),
        "handle_chinese_chars": settings.flag("tokenize_chinese_chars", True),
        "strip_accents": None if accents is None else settings.flag("strip_accents", False),
    }
    changed = {key: value for key, value in wanted.items() if getattr(normalizer, key) != value}
    for key, value in changed.items():
        setattr(normalizer, key, value)
    tokenizer.normalizer = normalizer
    if changed:
        said = ", ".join(f"{key}={value}" for key, value in changed.items())
        notes.append(f"tokenizer_config.json (or its defaults) overrides tokenizer.json: {said}.")


def _lowercase(tokenizer: Tokenizer) -> None:
    """sentence-transformers' do_lower_case: lowercase before everything else."""
    present = tokenizer.normalizer
    parts = [normalizers.Lowercase()] + ([] if present is None else [present])
    tokenizer.normalizer = normalizers.Sequence(parts)


def _add_tokens(tokenizer: Tokenizer, folder: Path, settings: Config) -> None:
    """Add the tokens that only the other files name. Raises BadCheckpoint where their ids contradict each other."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    special = {token.content: token for token in _special_tokens(settings)}
    for index, token in sorted(_numbered(folder, settings), key=lambda pair: pair[0]):
        if token.content in known:
            continue
        token.special = token.special or token.content in special
        tokenizer.add_tokens([token])
        if (given := tokenizer.token_to_id(token.content)) != index:
            raise BadCheckpoint(f"the tokenizer's files give token {token.content!r} the ids {index} and {given}")
    # a special token that is in the vocabulary is one token wherever a text holds it
    tokenizer.add_special_tokens(
        [
            token
            for content, token in special.items()
            if content not in known and tokenizer.token_to_id(content) is not None
        ]
    )


def _add_missing(tokenizer: Tokenizer, kind: TokenizerClass, special: Roles, settings: Config) -> None:
    """A vocabulary's file need not hold every special token: DeBERTa's ends before [MASK]. They get the next ids."""
    tokens = {
        token: AddedToken(token, normalized=False, lstrip=role == "mask" and kind.lstrip)
        for role, token in special.items()
    }
    tokens |= {token.content: token for token in _special_tokens(settings)}
    tokenizer.add_special_tokens([*tokens.values()])


def _end(tokenizer: Tokenizer, default: str | None, settings: Config, notes: list[str]) -> None:
    """The end token behind every text where tokenizer_config.json asks for it and the template has none.

    Models that read the last token were trained with it; transformers 5 ignores the flag beside a tokenizer.json.
    """
    named = _named(settings.get("eos_token"))
    end = default if named is None else named.content
    if end is None or not settings.flag("add_eos_token", False) or tokenizer.encode("a").tokens[-1:] == [end]:
        return
    single, pair = (_template(tokenizer, pair, end) for pair in (False, True))
    surround(tokenizer, single, pair)
    notes.append(f"{end} is put behind every text: tokenizer_config.json sets add_eos_token.")


def _template(tokenizer: Tokenizer, pair: bool, end: str) -> list[str]:
    """The present template, as TemplateProcessing has it, with `end` behind each text."""
    shown = tokenizer.encode("a", "a" if pair else None)
    parts: list[str] = []
    for sequence, group in groupby(
        zip(shown.sequence_ids, shown.type_ids, shown.tokens, strict=True), key=lambda place: place[0]
    ):
        members = list(group)
        type = members[0][1]
        if sequence is None:
            parts += [f"{token}:{type}" for _, type, token in members]
        else:
            parts += [f"${'AB'[sequence]}:{type}", f"{end}:{type}"]
    return parts


def _numbered(folder: Path, settings: Config) -> Iterator[tuple[int, AddedToken]]:
    """Added tokens with the ids that tokenizer_config.json and added_tokens.json give them."""
    listed = settings.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise settings.wrong("added_tokens_decoder", "an object from ids to tokens")
    seen = set()
    for key, value in listed.items():
        token = _named(value)
        if token is None or not key.isdecimal():
            raise settings.wrong("added_tokens_decoder", "an object from ids to tokens")
        seen.add(token.content)
        yield int(key), token
    older = Config.read_if_there(folder / "added_tokens.json", "added_tokens.json")
    for content in older.values:
        if content not in seen:
            yield older.integer(content, 0), AddedToken(content, normalized=False)


def _special_tokens(settings: Config) -> Iterator[AddedToken]:
    more = [settings.get(key) for key in MORE_SPECIAL]
    lists = [item.values() if isinstance(item, dict) else item for item in more if isinstance(item, dict | list)]
    for value in [*(settings.get(key) for key in SPECIAL), *(value for items in lists for value in items)]:
        if (token := _named(value)) is not None:
            token.special = True
            yield token


def _mask_id(tokenizer: Tokenizer, special: Roles, settings: Config) -> int | None:
    """Of the token that the files name or the class has, or else of the one that most vocabularies have."""
    named = _named(settings.get("mask_token"))
    wanted = (special["mask"],) if "mask" in special else MASKS if named is None else (named.content,)
    return next((index for token in wanted if (index := tokenizer.token_to_id(token)) is not None), None)


def _named(value: Any) -> AddedToken | None:
    """A token written as a string or as an object with flags; None for anything else."""
    if isinstance(value, str):
        return AddedToken(value, normalized=False)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        return None
    flags = {key: value.get(key) is True for key in FLAGS}
    return AddedToken(value["content"], special=value.get("special") is True, **flags)
