"""The tokenizer of a checkpoint: one complete tokenizer.json out of the several files that describe it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from onepass.errors import BadCheckpoint
from onepass.model.config import Config

# transformers builds these normalisers from tokenizer_config.json and ignores what tokenizer.json says.
REBUILT = {"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MPNetTokenizer"}
# These give no token type ids. (PreTrainedTokenizerFast stopped to in transformers 5; checkpoints are older than that.)
WITHOUT_TYPES = {"RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "DistilBertTokenizer"}
SPECIAL = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
MORE_SPECIAL = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


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
    tokenizer = _open(folder, settings)
    # all-MiniLM-L6-v2 carries 128 and 128, which would cut and pad every text unasked
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if not kind or kind in REBUILT:
        _follow_settings(tokenizer, settings, notes, (folder / "tokenizer.json").is_file())
    if lower:
        _lowercase(tokenizer)
    _add_tokens(tokenizer, folder, settings)
    inputs = settings.get("model_input_names")
    given = "token_type_ids" in inputs if isinstance(inputs, list) else kind not in WITHOUT_TYPES
    return TokenizerFiles(tokenizer.to_str(), types and given, pad_id)


def _open(folder: Path, settings: Config) -> Tokenizer:
    for names, opener in (
        (("tokenizer.json",), _from_json),
        (("vocab.txt",), _wordpiece),
        (("vocab.json", "merges.txt"), _byte_pairs),
    ):
        if all((folder / name).is_file() for name in names):
            try:
                return opener(folder, settings)
            except BadCheckpoint:
                raise
            except Exception as error:  # the library raises nothing narrower
                reason = " ".join(str(error).split())
                raise BadCheckpoint(f"{names[0]} cannot be used ({reason}); save the tokenizer again") from error
    raise BadCheckpoint(
        f"{folder} holds no tokenizer.json, vocab.txt or vocab.json with merges.txt; save a fast tokenizer there"
    )


def _from_json(folder: Path, settings: Config) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _wordpiece(folder: Path, settings: Config) -> Tokenizer:
    """A vocab.txt, one token a line, as BERT's own."""
    vocabulary = {token: index for index, token in enumerate(_lines(folder / "vocab.txt"))}
    special = _roles(settings, cls="[CLS]", sep="[SEP]", unk="[UNK]", pad="[PAD]", mask="[MASK]")
    cls, sep = special["cls"], special["sep"]
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(token, _id(tokenizer, token, "vocab.txt")) for token in (cls, sep)],
    )
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    return tokenizer


def _byte_pairs(folder: Path, settings: Config) -> Tokenizer:
    """A vocab.json with its merges.txt, as RoBERTa's own."""
    vocabulary = Config.read(folder / "vocab.json", "vocab.json").values
    lines = [line for line in _lines(folder / "merges.txt") if line and not line.startswith("#version")]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    special = _roles(settings, cls="<s>", sep="</s>", unk="<unk>", pad="<pad>", mask="<mask>")
    space = settings.flag("add_prefix_space", False)
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    sep, cls = ((special[role], _id(tokenizer, special[role], "vocab.json")) for role in ("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    return tokenizer


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _roles(settings: Config, **defaults: str) -> dict[str, str]:
    """The special tokens by role, as tokenizer_config.json names them or else by default."""
    named = {}
    for role, default in defaults.items():
        token = _named(settings.get(f"{role}_token"))
        named[role] = default if token is None else token.content
    return named


def _id(tokenizer: Tokenizer, token: str, file: str) -> int:
    index: int | None = tokenizer.token_to_id(token)
    if index is None:
        raise BadCheckpoint(f"{file} has no token {token!r}, which the tokenizer puts around every text")
    return index


def _follow_settings(tokenizer: Tokenizer, settings: Config, notes: list[str], from_json: bool) -> None:
    """Case and accents as tokenizer_config.json has them, whose missing keys mean the class's defaults."""
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
    if changed and from_json:  # one made from vocab.txt had nothing to say
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
    special_map = Config.read_if_there(folder / "special_tokens_map.json", "special_tokens_map.json")
    special = {token.content: token for token in _special_tokens(settings, special_map)}
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


def _special_tokens(*files: Config) -> Iterator[AddedToken]:
    for file in files:
        more = [file.get(key) for key in MORE_SPECIAL]
        lists = [item.values() if isinstance(item, dict) else item for item in more if isinstance(item, dict | list)]
        for value in [*(file.get(key) for key in SPECIAL), *(value for items in lists for value in items)]:
            if (token := _named(value)) is not None:
                token.special = True
                yield token


def _named(value: Any) -> AddedToken | None:
    """A token written as a string or as an object with flags; None for anything else."""
    if isinstance(value, str):
        return AddedToken(value, normalized=False)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        return None
    flags = {key: value.get(key) is True for key in FLAGS}
    return AddedToken(value["content"], special=value.get("special") is True, **flags)
