"""Vocabulary files, read into tokenizers that normalise and split as transformers' class does for its models.

A reader takes the file, the special tokens by role and tokenizer_config.json; what goes around a text is put there by
model/tokenizer_classes.py, which also says whose files these are. Settings and orders are those of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from onepass.errors import BadCheckpoint
from onepass.model.config import Config
from onepass.model.sentencepiece import Pieces, read_pieces

Roles = Mapping[str, str]
"""The special tokens by role: cls, sep, unk, pad, mask, bos, eos; and lang, the language that texts are in."""

Scores = list[tuple[str, float]]
"""The vocabulary in the order of the model's ids, with the logarithms of a unigram model's probabilities."""


def wordpiece(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """A vocab.txt, one token a line, as BERT's own."""
    vocabulary = {token: index for index, token in enumerate(_lines(file))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_pairs(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """A vocab.json with the merges.txt beside it, as GPT-2's own."""
    vocabulary = Config.read(file, file.name).values
    lines = [line for line in _lines(file.parent / "merges.txt") if line and not line.startswith("#version")]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.flag("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen(file: Path, special: Roles, settings: Config) -> Tokenizer:
    tokenizer = byte_pairs(file, special, settings)
    space = settings.flag("add_prefix_space", False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
        ]
    )
    return tokenizer


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


# sentencepiece


def deberta_v2(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """Without the file's character map, which transformers has left out since version 5."""
    pieces = read_pieces(file)
    lower = [normalizers.Lowercase()] if settings.flag("do_lower_case", False) else []
    spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    marks = [pre_tokenizers.Punctuation("isolated")] if settings.flag("split_by_punct", False) else []
    return _tokenizer(
        pieces,
        _listed(pieces),
        special,
        [*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)],
        [*marks, _metaspace(settings, otherwise="first")],
    )


def albert(file: Path, special: Roles, settings: Config) -> Tokenizer:
    pieces = read_pieces(file)
    plain = _plain(settings, lower=True, keep_accents=False)
    return _tokenizer(pieces, _listed(pieces), special, [*QUOTES, *plain, *_charsmap(pieces)], _words(settings))


def rembert(file: Path, special: Roles, settings: Config) -> Tokenizer:
    pieces = read_pieces(file)
    steps = [*QUOTES, SINGLE_SPACES, *_plain(settings, lower=False, keep_accents=True), *_charsmap(pieces)]
    return _tokenizer(pieces, _listed(pieces), special, steps, [_metaspace(settings)])


def xlm_roberta(file: Path, special: Roles, settings: Config) -> Tokenizer:
    pieces = read_pieces(file)
    return _tokenizer(pieces, _fairseq(pieces, special), special, _charsmap(pieces), _words(settings))


def camembert(file: Path, special: Roles, settings: Config) -> Tokenizer:
    pieces = read_pieces(file)
    first = ("<s>NOTUSED", special["pad"], "</s>NOTUSED", special["unk"])
    vocabulary = [*_unscored(first), ("<unk>NOTUSED", -100.0), *_listed(pieces)[1:], *_unscored([special["mask"]])]
    return _tokenizer(pieces, vocabulary, special, _charsmap(pieces), _words(settings))


def t5(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """Behind the pieces come <extra_id_99> to <extra_id_0>."""
    pieces = read_pieces(file)
    count = settings.integer("extra_ids", 100, most=10_000)
    vocabulary = [*_listed(pieces), *_unscored([f"<extra_id_{index}>" for index in reversed(range(count))])]
    return _tokenizer(pieces, vocabulary, special, _charsmap(pieces), _words(settings))


def mbart(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """Without the file's character map, which transformers has left out since version 5."""
    pieces = read_pieces(file)
    return _tokenizer(pieces, _fairseq(pieces, special, MBART), special, [], _words(settings))


def mbart50(file: Path, special: Roles, settings: Config) -> Tokenizer:
    pieces = read_pieces(file)
    vocabulary = _fairseq(pieces, special, [*MBART, *MBART50])
    return _tokenizer(pieces, vocabulary, special, [*_charsmap(pieces), SINGLE_SPACES], [_metaspace(settings)])


def nllb(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """The languages are the additional tokens that the other files name."""
    pieces = read_pieces(file)
    listed = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    named = [token for token in listed if isinstance(token, str)] if isinstance(listed, list) else []
    vocabulary = _fairseq(pieces, special, [token for token in named if token != special["mask"]])
    return _tokenizer(pieces, vocabulary, special, [*_charsmap(pieces), SINGLE_SPACES], [_metaspace(settings)])


def llama(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """Whole texts, spaces and all, behind one more space."""
    pieces = read_pieces(file)
    scheme: Any = "always" if settings.flag("legacy", False) else "first"
    space = settings.flag("add_prefix_space", True)
    split = pre_tokenizers.Metaspace(prepend_scheme=scheme if space else "never", split=False)
    tokenizer = _tokenizer(pieces, _listed(pieces), special, [], [split])
    tokenizer.decoder = decoders.Sequence([*SPELLING, *([decoders.Strip(" ", 1, 0)] if space else [])])
    return tokenizer


def gemma(file: Path, special: Roles, settings: Config) -> Tokenizer:
    """Whole texts, spaces and all."""
    pieces = read_pieces(file)
    tokenizer = _tokenizer(pieces, _listed(pieces), special, [normalizers.Replace(" ", "▁")], [])
    tokenizer.decoder = decoders.Sequence(SPELLING)
    return tokenizer


QUOTES = (normalizers.Replace("``", '"'), normalizers.Replace("''", '"'))
SINGLE_SPACES = normalizers.Replace(Regex(" {2,}"), " ")
SPELLING: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
MBART, MBART50 = (
    languages.split()
    for languages in (
        "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP "
        "nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN",
        "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE "
        "ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI",
    )
)


def _listed(pieces: Pieces) -> Scores:
    return [(piece.text, piece.score) for piece in pieces.pieces]


def _fairseq(pieces: Pieces, special: Roles, languages: Sequence[str] = ()) -> Scores:
    """fairseq's four first tokens in place of sentencepiece's three; the languages and the mask token come last."""
    first = [special[role] for role in ("cls", "pad", "sep", "unk")]
    return [*_unscored(first), *_listed(pieces)[3:], *_unscored([*languages, special["mask"]])]


def _unscored(tokens: Sequence[str]) -> Scores:
    return [(token, 0.0) for token in tokens]


def _charsmap(pieces: Pieces) -> list[Any]:
    return [normalizers.Precompiled(pieces.charsmap)] if pieces.charsmap else []


def _plain(settings: Config, *, lower: bool, keep_accents: bool) -> list[Any]:
    """Accents and case taken off, each unless the settings, or else the arguments, say otherwise."""
    keep = settings.flag("keep_accents", keep_accents)
    accents = [] if keep else [normalizers.NFKD(), normalizers.StripAccents()]
    return [*accents, *([normalizers.Lowercase()] if settings.flag("do_lower_case", lower) else [])]


def _metaspace(settings: Config, otherwise: Any = "never") -> Any:
    space = settings.flag("add_prefix_space", True)
    return pre_tokenizers.Metaspace(prepend_scheme="always" if space else otherwise)


def _words(settings: Config) -> list[Any]:
    return [pre_tokenizers.WhitespaceSplit(), _metaspace(settings)]


def _tokenizer(
    pieces: Pieces, vocabulary: Scores, special: Roles, normalise: Sequence[Any], split: Sequence[Any]
) -> Tokenizer:
    ids = {text: index for index, (text, _) in enumerate(vocabulary)}
    unknown = special["unk"]
    if unknown not in ids:
        raise BadCheckpoint(f"the vocabulary has no token {unknown!r}, which stands for what it lacks")
    model: models.Model
    if pieces.bpe:
        model = models.BPE(ids, _merges(pieces), unk_token=unknown, fuse_unk=True, byte_fallback=pieces.byte_fallback)
    else:  # without bytes for unknown characters, even where the file has them: so it is in transformers
        model = models.Unigram(vocabulary, unk_id=ids[unknown])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([*normalise])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_tokens(
        [
            AddedToken(piece.text, normalized=False, special=piece.kind == "control")
            for piece in pieces.pieces
            if piece.kind in ("control", "user") and piece.text in ids
        ]
    )
    return tokenizer


def _merges(pieces: Pieces) -> list[tuple[str, str]]:
    """Two pieces that make a third, in the order of the third's id: sentencepiece lists pieces as it learnt them."""
    known = {piece.text for piece in pieces.pieces}
    cuts = ((text[:cut], text[cut:]) for text in (piece.text for piece in pieces.pieces) for cut in range(1, len(text)))
    return [(left, right) for left, right in cuts if left in known and right in known]
