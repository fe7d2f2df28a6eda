"""What surrounds the vectors of a late-interaction model (ColBERT), from each of the forms in which it is saved.

Three are read as sentence-transformers 6.2 reads them: its own MultiVectorEncoder, PyLate's folders, and those of
Stanford's ColBERT with their artifact.metadata.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tokenizers import AddedToken, Tokenizer

from onepass.errors import BadCheckpoint, BadSetting, UnsupportedOption
from onepass.model.config import Config
from onepass.model.spec import Disentangled, EncoderSpec
from onepass.model.tokenizer_files import TokenizerFiles

LATE = OWN, PYLATE = "MultiVectorEncoder", "ColBERT"
"""model_type in config_sentence_transformers.json."""

SIDES = ("query", "document")
QUERY_LENGTH = 32  # ColBERT's, where a file fills queries up without saying how far
EXPANSION_KEYS = {"strategy", "attend", "token", "length"}


@dataclass(frozen=True, slots=True)
class Expansion:
    """Rows of fewer than `length` tokens are filled up with `token`.

    attended: whether other tokens see those put there; they always see the text, and have vectors.
    """

    token: int
    length: int
    attended: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """How queries, or documents, become rows and vectors.

    prompt: text put before each, which spells the marker.  length: most tokens of a row; None: the model's limit.
    expansion: how short rows are filled up.  without: ids of tokens that are seen, but have no vector.
    start: leading tokens that have none.
    """

    prompt: str = ""
    length: int | None = None
    expansion: Expansion | None = None
    without: frozenset[int] = frozenset()
    start: int = 0


@dataclass(frozen=True, slots=True)
class MultiVector:
    """mean: a score is the mean over the query's vectors of their largest product, not the sum (MeanMaxSim)."""

    query: Side = Side()
    document: Side = Side()
    mean: bool = False

    @property
    def length(self) -> int:
        """Most tokens of any row, once `fitted`."""
        return max(self.query.length or 0, self.document.length or 0)


@dataclass(slots=True)
class Said:
    """What the files say, in words.

    prompts, lengths: by side, "query" and "document".  expansion: strategy, attend, token and length.
    skipped: words that have no vector on the sides in `skipped_of`.
    markers: what prompts begin with, one token each where the vocabulary has it.
    """

    prompts: Mapping[str, str]
    lengths: dict[str, int | None] = field(default_factory=dict)
    expansion: Config | None = None
    skipped: tuple[str, ...] = ()
    skipped_of: tuple[str, ...] = ("document",)
    markers: tuple[str, ...] = ()
    mean: bool = False


def is_multivector(saved: Config) -> bool:
    """saved: config_sentence_transformers.json. PyLate's first versions wrote no model_type of their own."""
    return saved.get("model_type") in LATE or "query_prefix" in saved.values


def normalises(saved: Config) -> bool:
    """Whether vectors have length 1 without a module that says so: PyLate does not write one."""
    return saved.get("model_type") != OWN


def said_by_modules(saved: Config, transformer: Config, mask: Config, tokenizer: Config) -> Said:
    """transformer, mask: the configs of the modules Transformer and MultiVectorMask.  tokenizer: its own."""
    tokenizer.only("padding_side", "right")
    if saved.get("model_type") != OWN:
        return _said_by_pylate(saved)
    expansion = transformer.get("query_expansion")
    if expansion is not None and (not isinstance(expansion, dict) or expansion.keys() - EXPANSION_KEYS):
        raise transformer.wrong("query_expansion", f"an object of {', '.join(sorted(EXPANSION_KEYS))}")
    mask.only("keep_only_token_ids")
    return Said(
        prompts=saved.texts("prompts"),
        lengths={side: length_of(transformer, f"{side}_length") for side in SIDES},
        expansion=None if expansion is None else Config(expansion, f"{transformer.source}'s query_expansion"),
        skipped=_words(mask, "skiplist_words", ()),
        skipped_of=_words(mask, "skiplist_tasks", ("document",)),
        mean=saved.get("similarity_fn_name") == "meanmaxsim",
    )


def _said_by_pylate(saved: Config) -> Said:
    saved.only("query_expansion")
    prefixes = {side: saved.text(f"{side}_prefix", "") for side in SIDES}
    prompts = saved.texts("prompts")
    for side, prefix in prefixes.items():
        prompts[side] = prefix + prompts.get(side, "").removeprefix(prefix)
    lengths = {side: length_of(saved, f"{side}_length") for side in SIDES}
    expansion = None
    if saved.flag("do_query_expansion", True):
        attend = saved.flag(saved.first("attend_to_expansion_tokens", "attend_to_mask_tokens"), False)
        expansion = fixed(lengths.pop("query"), attend, saved.source)
    skipped = _words(saved, "skiplist_words", tuple(string.punctuation))
    return Said(prompts, lengths, expansion, skipped, markers=tuple(prefixes.values()))


def length_of(config: Config, key: str) -> int | None:
    return None if config.get(key) is None else config.integer(key, 0, least=1)


def _words(config: Config, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    words = config.get(key)
    words = default if words is None else [words] if isinstance(words, str) else words
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise config.wrong(key, "a list of strings")
    return tuple(words)


def fixed(length: int | None, attend: bool, source: str) -> Config:
    return Config({"strategy": "fixed", "attend": attend, "length": length or QUERY_LENGTH}, source)


def read_multivector(said: Said, files: TokenizerFiles) -> MultiVector:
    """Ids for words; markers become special tokens of the tokenizer. Raises BadCheckpoint, UnsupportedOption."""
    tokenizer = files.library
    for marker in said.markers:
        _mark(tokenizer, marker)
    ids = frozenset(id for word in said.skipped if (id := tokenizer.token_to_id(word)) is not None)
    expansion, lengths = None, dict(said.lengths)
    if said.expansion is not None:
        said.expansion.only("strategy", "fixed", "min")
        expansion = _expansion(said.expansion, files)
        longer = lengths.get("query") if said.expansion.get("strategy") == "min" else expansion.length
        lengths["query"] = longer and max(longer, expansion.length)
    query, document = (
        Side(said.prompts.get(side, ""), lengths.get(side), without=ids if side in said.skipped_of else frozenset())
        for side in SIDES
    )
    return MultiVector(replace(query, expansion=expansion), document, said.mean)


def _expansion(said: Config, files: TokenizerFiles) -> Expansion:
    named = said.text("token", "")
    token = files.library.token_to_id(named) if named else files.mask_id
    if token is None:
        wanted = f"the token {named!r}" if named else "the mask token"
        raise BadCheckpoint(f"{said.source} fills queries up with {wanted}, which the tokenizer does not have")
    return Expansion(token, said.integer("length", 0, least=1), said.flag("attend", False))


def _mark(tokenizer: Tokenizer, marker: str) -> None:
    """Written out, a marker such as "[unused0] " falls into pieces, where the model was trained with one id."""
    for token in (marker, *marker.split(None, 1)[:1]):
        if tokenizer.token_to_id(token) is not None:
            if tokenizer.encode(token, add_special_tokens=False).tokens != [token]:
                tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
            return


def fitted(sides: MultiVector, spec: EncoderSpec, limit: int, asked: int | None) -> MultiVector:
    """The sides with their rows' most tokens.

    limit: what the files say of the model beside them.  asked: the caller's own, for documents instead of theirs.
    Raises BadSetting where queries are filled up beyond what was asked, BadCheckpoint where it is beyond the positions,
    UnsupportedOption where transformers fills them up in a way of its own.
    """
    query = least(sides.query.length or limit, spec.max_tokens, asked)
    document = asked or least(sides.document.length or limit, spec.max_tokens)
    if (expansion := sides.query.expansion) is not None:
        if expansion.length > query:
            error = BadCheckpoint if asked is None else BadSetting
            raise error(f"queries are filled up to {expansion.length} tokens, but a row may have only {query}")
        if isinstance(spec.relative, Disentangled) and not expansion.attended:
            raise UnsupportedOption(
                "queries are filled up with tokens that others do not see, which DeBERTa's code masks in its own way; "
                "save the model with tokens that are attended to"
            )
    return replace(sides, query=replace(sides.query, length=query), document=replace(sides.document, length=document))


def least(*numbers: int | None) -> int:
    return min(number for number in numbers if number is not None)
